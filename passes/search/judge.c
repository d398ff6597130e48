/* judge.c - see judge.h and judge_own.h: what candidates are judged on. */
#include "passes/search/judge_own.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/dot.h"
#include "kernels/quant.h"

enum { TILE = 64, JUDGED_TILES = 8 }; /* twice as many where activations are quantized too: eight cost smoothquant,fp8 a tenth of its KL */

static int64_t tiles_of(const qx_group *g)
{
    int64_t t = 0;
    for (int64_t i = 0; i < g->n; i++) t += qx_cells_of(g->items[i]->lin->n, TILE);
    return t;
}

void qx_judge_weigh(const qx_judge *j, float *x, int64_t n)
{
    for (int64_t a = 0; a < j->rows; a++)
        for (int64_t i = 0; i < n; i++) x[a * n + i] *= j->weigh[a];
}

/* Every so many tiles of the group's weights, evenly: candidates differ in the same way on all of them. */
static qx_status choose_pieces(qx_judge *j)
{
    const qx_group *g = j->group;
    const int64_t tiles = tiles_of(g), stride = qx_cells_of(tiles, qx_group_quantized(g) ? 2 * JUDGED_TILES : JUDGED_TILES);
    QX_TRY(qx_alloc_array(j->ctx, (size_t)qx_cells_of(tiles, stride) + 1, sizeof *j->pieces, (void **)&j->pieces));
    for (int64_t i = 0, t = 0; i < g->n; i++)
        for (int64_t first = 0; first < g->items[i]->lin->n; first += TILE, t++) {
            if (t % stride) continue;
            const int64_t left = g->items[i]->lin->n - first, rows = left < TILE ? left : TILE;
            j->pieces[j->n_pieces++] = (qx_piece){i, first, rows, j->n_weights};
            j->n_weights += rows;
        }
    return QX_OK;
}

/* What a piece of weights makes of the rows, their squares and those of its columns. */
static qx_status open_piece(void *user, int64_t t)
{
    qx_judge *j = user;
    const qx_piece *p = &j->pieces[t];
    const float *w = j->w + p->at * j->k;
    float *y = j->y + p->at * j->rows;
    double *norm = j->part + t * (j->rows + j->k), *square = norm + j->rows;
    qx_gemm_nt(j->rows, p->rows, j->k, j->raw, j->k, w, j->k, y, p->rows);
    for (int64_t a = 0; a < j->rows; a++)
        for (int64_t i = 0; i < p->rows; i++) norm[a] += (double)y[a * p->rows + i] * (double)y[a * p->rows + i];
    for (int64_t a = 0; a < p->rows; a++)
        for (int64_t i = 0; i < j->k; i++) square[i] += (double)w[a * j->k + i] * (double)w[a * j->k + i];
    return QX_OK;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void add_doubles(const double *from, int64_t n, double *to)
{
    for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

/* 1 / max(|y|, median |y|): a few tokens with enormous values (attention sinks) would otherwise decide alone, though what comes behind
 * (a residual stream of the same size, a norm) only sees their error in relation to them. */
static qx_status weigh(qx_judge *j)
{
    double *norm;
    QX_TRY(qx_alloc_array(j->ctx, (size_t)(2 * j->rows), sizeof *norm, (void **)&norm));
    double *sorted = norm + j->rows;
    for (int64_t t = 0; t < j->n_pieces; t++) {
        add_doubles(j->part + t * (j->rows + j->k), j->rows, norm);
        add_doubles(j->part + t * (j->rows + j->k) + j->rows, j->k, j->colsq);
    }
    memcpy(sorted, norm, (size_t)j->sampled * sizeof *norm);
    qsort(sorted, (size_t)j->sampled, sizeof *sorted, by_value);
    j->usual = sorted[j->sampled / 2];
    for (int64_t a = 0; a < j->rows; a++) {
        const double most = fmax(norm[a], j->usual);
        j->weigh[a] = most > 0 ? (float)(1 / sqrt(most)) : 1;
        j->reference += norm[a] * (double)j->weigh[a] * (double)j->weigh[a];
    }
    for (int64_t t = 0; t < j->n_pieces; t++) qx_judge_weigh(j, j->y + j->pieces[t].at * j->rows, j->pieces[t].rows);
    qx_free(j->ctx, norm);
    return QX_OK;
}

static qx_status open_judge(qx_judge *j, const qx_group_columns *columns)
{
    const size_t rows = (size_t)j->rows, k = (size_t)j->k;
    QX_TRY(choose_pieces(j));
    QX_TRY(qx_alloc_raw(j->ctx, (size_t)j->n_weights * k * sizeof *j->w, (void **)&j->w));
    QX_TRY(qx_alloc_raw(j->ctx, rows * k * sizeof *j->raw, (void **)&j->raw));
    QX_TRY(qx_alloc_raw(j->ctx, (size_t)j->n_weights * rows * sizeof *j->y, (void **)&j->y));
    QX_TRY(qx_alloc_raw(j->ctx, rows * sizeof *j->weigh, (void **)&j->weigh));
    QX_TRY(qx_alloc_array(j->ctx, k, sizeof *j->colsq, (void **)&j->colsq));
    QX_TRY(qx_alloc_array(j->ctx, (size_t)j->n_pieces * (rows + k), sizeof *j->part, (void **)&j->part));
    memcpy(j->raw, j->stats->rows, (size_t)j->sampled * k * sizeof *j->raw);
    if (j->rows > j->sampled) memcpy(j->raw + (size_t)j->sampled * k, j->stats->tops, (rows - (size_t)j->sampled) * k * sizeof *j->raw);
    QX_TRY(qx_group_read(j->ctx, j->group, &(qx_pieces){j->pieces, j->n_pieces, j->w}, columns));
    QX_TRY(qx_parallel(j->ctx, j->n_pieces, open_piece, j));
    return weigh(j);
}

qx_status qx_judge_new(qx_ctx *ctx, const qx_group *g, const qx_value_stats *stats, int64_t most_rows, const qx_group_columns *columns,
                       qx_judge **out)
{
    *out = NULL;
    QX_TRY(QX_NEW(ctx, out));
    qx_judge *j = *out;
    *j = (qx_judge){.ctx = ctx, .group = g, .stats = stats, .k = g->k, .sampled = most_rows < stats->n_rows ? most_rows : stats->n_rows};
    j->rows = j->sampled + stats->n_tops;
    const qx_status st = open_judge(j, columns);
    if (st == QX_OK) return QX_OK;
    qx_judge_free(j);
    *out = NULL;
    return st;
}

void qx_judge_free(qx_judge *j)
{
    if (!j) return;
    void *list[] = {j->pieces, j->w, j->raw, j->weigh, j->y, j->part, j->colsq};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(j->ctx, list[i]);
    qx_free(j->ctx, j);
}

double qx_judge_reference(const qx_judge *j) { return j->reference; }

double qx_judge_usual(const qx_judge *j)
{
    int64_t n = 0;
    for (int64_t i = 0; i < j->group->n; i++) n += j->group->items[i]->lin->n;
    return j->usual * (double)n / (double)j->n_weights;
}
