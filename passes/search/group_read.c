/* group_read.c - see group_read.h. Strips of rows are what threads read; what is kept of them lies in pieces. */
#include "passes/search/group_read.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/quant.h"

enum { STRIP = 512 }; /* rows of W read together: a [K,N] weight is then read in long runs */

typedef struct strip { int64_t item, first, rows, pieces; } strip; /* pieces: the first of those in it or behind it */
typedef struct reading {
    qx_ctx *ctx;
    const qx_group *g;
    int64_t k, block;
    strip *strips; int64_t n;
    float *max; double *sum;                       /* [n][k] of each strip's columns, or NULL */
    qx_pieces kept;
} reading;

static void add_columns(const float *x, int64_t rows, int64_t k, int64_t block, float *max, double *sum)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < k; b += block) {
            const int64_t end = b + block < k ? b + block : k;
            float top = 0;
            for (int64_t j = b; j < end; j++) {
                const float a = fabsf(x[r * k + j]);
                top = a > top ? a : top;
                max[j] = a > max[j] ? a : max[j];
            }
            for (int64_t j = b; sum && top > 0 && j < end; j++) sum[j] += (double)(fabsf(x[r * k + j]) / top);
        }
}

static bool holds(const strip *s, const qx_piece *p) { return p->item == s->item && p->first < s->first + s->rows; }

static qx_status read_strip(void *user, int64_t i)
{
    const reading *r = user;
    const strip *s = &r->strips[i];
    const qx_plan_weight *w = r->g->items[s->item]->weight;
    const int64_t k = r->k;
    float *x;
    QX_TRY(qx_alloc_raw(r->ctx, (size_t)(s->rows * k) * sizeof *x, (void **)&x));
    const qx_status st = qx_rows_read(r->ctx, w->tensor, &w->view, w->steps, s->first, s->rows, x);
    if (st == QX_OK && r->max) add_columns(x, s->rows, k, r->block, r->max + i * k, r->sum ? r->sum + i * k : NULL);
    for (int64_t p = s->pieces; st == QX_OK && p < r->kept.n && holds(s, &r->kept.items[p]); p++) {
        const qx_piece *piece = &r->kept.items[p];
        memcpy(r->kept.rows + piece->at * k, x + (piece->first - s->first) * k, (size_t)(piece->rows * k) * sizeof *x);
    }
    qx_free(r->ctx, x);
    return st;
}

/* Those with pieces in them, and all when columns are asked for. Whole tiles, so that no piece lies in two. */
static qx_status list_strips(reading *r, bool all)
{
    int64_t most = 0, p = 0;
    for (int64_t i = 0; i < r->g->n; i++) most += qx_cells_of(r->g->items[i]->lin->n, STRIP);
    QX_TRY(qx_alloc_array(r->ctx, (size_t)most, sizeof *r->strips, (void **)&r->strips));
    for (int64_t i = 0; i < r->g->n; i++)
        for (int64_t first = 0, n = r->g->items[i]->lin->n; first < n; first += STRIP) {
            const strip s = {i, first, n - first < STRIP ? n - first : STRIP, p};
            while (p < r->kept.n && holds(&s, &r->kept.items[p])) p++;
            if (all || p > s.pieces) r->strips[r->n++] = s;
        }
    return QX_OK;
}

/* Strips are folded in order, so that the mean does not depend on the threads. */
static void join_columns(const reading *r, float *w, float *mean)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < r->n; i++) rows += r->strips[i].rows;
    for (int64_t j = 0; j < r->k; j++) {
        double sum = 0;
        w[j] = 0;
        for (int64_t i = 0; i < r->n; i++) {
            w[j] = fmaxf(w[j], r->max[i * r->k + j]);
            if (mean) sum += r->sum[i * r->k + j];
        }
        if (mean) mean[j] = (float)(sum / (double)rows);
    }
}

static qx_status read_all(reading *r, const qx_group_columns *c)
{
    qx_status st;
    r->block = c && c->block > 0 ? c->block : r->k;
    QX_TRY_GOTO(st, list_strips(r, c != NULL));
    if (c) QX_TRY_GOTO(st, qx_alloc_array(r->ctx, (size_t)(r->n * r->k), sizeof *r->max, (void **)&r->max));
    if (c && c->mean) QX_TRY_GOTO(st, qx_alloc_array(r->ctx, (size_t)(r->n * r->k), sizeof *r->sum, (void **)&r->sum));
    QX_TRY_GOTO(st, qx_parallel(r->ctx, r->n, read_strip, r));
    if (c) join_columns(r, c->max, c->mean);
done:
    qx_free(r->ctx, r->strips);
    qx_free(r->ctx, r->max);
    qx_free(r->ctx, r->sum);
    return st;
}

qx_status qx_group_read(qx_ctx *ctx, const qx_group *g, const qx_pieces *kept, const qx_group_columns *columns)
{
    reading r = {.ctx = ctx, .g = g, .k = g->k};
    if (kept) r.kept = *kept;
    return read_all(&r, columns);
}

qx_status qx_group_maxima(qx_ctx *ctx, const qx_group *g, float *max)
{
    return qx_group_read(ctx, g, NULL, &(qx_group_columns){.max = max});
}
