/* search.c - see search.h. */
#include "passes/search/search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/dot.h"
#include "kernels/quant.h"
#include "kernels/search.h"
#include "passes/search/codes.h"

enum { TILE = 64, JUDGED_TILES = 8 }; /* twice as many where activations are quantized too: eight cost smoothquant,fp8 a tenth of its KL */
static const int64_t candidate_bytes = (int64_t)48 << 20; /* for the candidates' copies of X */

bool qx_spec_scales(const qx_qspec *spec, int64_t rows, int64_t k, float tensor_amax, const float *importance, const float *x,
                    float *scale, int32_t *zero, qx_quant *q)
{
    const int64_t block = spec->block > 0 ? spec->block : k;
    /* its second level keeps block scales in range */
    const bool two_level = spec->codes == QX_DT_FLOAT4E2M1 && spec->scale == QX_DT_FLOAT8E4M3FN;
    *q = (qx_quant){.grid = {rows, k, spec->block < 0 ? rows : 1, block},
                    .format = {.codes = spec->codes, .scale = two_level ? QX_DT_FLOAT : spec->scale, .narrow = spec->narrow},
                    .scale = scale};
    if (!two_level && spec->block >= 0 && (spec->rule == QX_SCALE_SEARCH || spec->zero_point)) {
        q->format.negative = spec->allow_negative_scale;
        q->zero = spec->zero_point ? zero : NULL;
        const qx_search search = {.format = q->format, .block = block, .zero_point = spec->zero_point, .weight = importance,
                                  .coarse = true};
        return qx_search_rows(&search, x, rows, k, scale, spec->zero_point ? zero : NULL, NULL);
    }
    const int64_t cells = qx_grid_cells(&q->grid);
    memset(scale, 0, (size_t)cells * sizeof *scale);
    if (spec->block < 0) scale[0] = tensor_amax;
    else qx_amax(&q->grid, QX_DT_FLOAT, x, scale, NULL);
    qx_scale_from_amax(&q->format, scale, cells, scale, NULL);
    return true;
}

void qx_spec_fake(const qx_qspec *spec, int64_t rows, int64_t k, float tensor_amax, const float *importance, float *x, float *scale,
                  int32_t *zero)
{
    qx_quant q;
    if (qx_spec_scales(spec, rows, k, tensor_amax, importance, x, scale, zero, &q)) qx_fake_quantize(&q, x);
}

/* ---- activations ---- */

bool qx_act_rounds(const qx_act_grid *g) { return g->dynamic || (g->act && g->scale > 0); }

/* One scale for all, codes around zero. */
static void fake_even(qx_dtype codes, float scale, int64_t n, float *x)
{
    qx_fake_quantize(&(qx_quant){.grid = {1, n, 1, n}, .format = {.codes = codes}, .scale = &scale}, x);
}

static void fake_row(int64_t k, float *x)
{
    const qx_format f = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT};
    float top = 0, scale;
    for (int64_t j = 0; j < k; j++) top = fmaxf(top, fabsf(x[j]));
    qx_scale_from_amax(&f, &top, 1, &scale, NULL);
    fake_even(QX_DT_INT8, scale, k, x);
}

/* As DynamicQuantizeLinear: UINT8 from the least to the largest, zero among them. */
static void fake_tensor(int64_t n, float *x)
{
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
    const float scale = (hi - lo) / 255;
    if (!(scale > 0)) return;
    const int32_t zero = (int32_t)fminf(fmaxf(nearbyintf(-lo / scale), 0), 255);
    qx_fake_quantize(&(qx_quant){.grid = {1, n, 1, n}, .format = {.codes = QX_DT_UINT8}, .scale = &scale, .zero = &zero}, x);
}

/* Rows at a time, whose blocks have room on the stack. */
static void fake_blocks(const qx_qspec *spec, int64_t rows, int64_t k, float *x)
{
    enum { CELLS = 256 };
    const qx_format f = {.codes = spec->codes, .scale = spec->scale};
    const int64_t block = spec->block, part = CELLS * block < k ? CELLS * block : k;
    float scale[CELLS], top = 0, second = 1, lo, most;
    (void)qx_format_range(&f, &lo, &most);
    if (spec->scale == QX_DT_FLOAT8E4M3FN) {
        for (int64_t i = 0; i < rows * k; i++) top = fmaxf(top, fabsf(x[i]));
        second = qx_nvfp4_global(top);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < k; c += part) {
            const int64_t n = k - c < part ? k - c : part;
            const qx_grid grid = {1, n, 1, block};
            float *y = x + r * k + c;
            memset(scale, 0, sizeof scale);
            (void)qx_amax(&grid, QX_DT_FLOAT, y, scale, NULL);
            for (int64_t i = 0; i < qx_grid_cells(&grid); i++) scale[i] = scale[i] / most / second;
            qx_scales_stored(&f, scale, qx_grid_cells(&grid), NULL);
            for (int64_t i = 0; i < qx_grid_cells(&grid); i++) scale[i] *= second;
            (void)qx_fake_quantize(&(qx_quant){.grid = grid, .format = {.codes = spec->codes}, .scale = scale}, y);
        }
}

void qx_act_fake(const qx_act_grid *g, int64_t rows, int64_t k, float *x)
{
    if (g->dynamic == QX_DYNAMIC_TENSOR) fake_tensor(rows * k, x);
    for (int64_t i = 0; i < rows && g->dynamic == QX_DYNAMIC_ROW; i++) fake_row(k, x + i * k);
    if (g->dynamic == QX_DYNAMIC_BLOCK) fake_blocks(g->blocks, rows, k, x);
    if (!g->dynamic && g->act) fake_even(g->act == QX_DT_UINT8 ? QX_DT_INT8 : g->act, g->scale, rows * k, x);
}

/* ---- reading the weights of a group ---- */

enum { STRIP = 512 }; /* rows of W read together: a [K,N] weight is then read in long runs */

static int64_t tiles_of(const qx_group *g)
{
    int64_t t = 0;
    for (int64_t i = 0; i < g->n; i++) t += qx_cells_of(g->items[i]->lin->n, TILE);
    return t;
}

typedef struct piece { int64_t item, first, rows, at; } piece; /* rows of an item's weight that are kept; `at`: how many lie before them */
typedef struct strip { int64_t item, first, rows, pieces; } strip; /* pieces: the first of those in it or behind it */
typedef struct reading {
    qx_ctx *ctx;
    const qx_group *g;
    int64_t k, block;
    strip *strips; int64_t n;
    float *max; double *sum;                       /* [n][k] of each strip's columns, or NULL */
    const piece *pieces; int64_t n_pieces; float *kept; /* rows of the pieces, one behind the other */
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

static bool holds(const strip *s, const piece *p) { return p->item == s->item && p->first < s->first + s->rows; }

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
    for (int64_t p = s->pieces; st == QX_OK && p < r->n_pieces && holds(s, &r->pieces[p]); p++)
        memcpy(r->kept + r->pieces[p].at * k, x + (r->pieces[p].first - s->first) * k, (size_t)(r->pieces[p].rows * k) * sizeof *x);
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
            while (p < r->n_pieces && holds(&s, &r->pieces[p])) p++;
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

static qx_status read_group(reading *r, const qx_group_columns *c)
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

qx_status qx_group_maxima(qx_ctx *ctx, const qx_group *g, float *max)
{
    return read_group(&(reading){.ctx = ctx, .g = g, .k = g->k}, &(qx_group_columns){.max = max});
}

/* ---- what candidates are judged on ---- */

struct qx_judge {
    qx_ctx *ctx;
    const qx_group *group;
    const qx_value_stats *stats;
    int64_t k, rows, sampled;      /* rows of x: sampled ones, then those with the largest values */
    piece *pieces; int64_t n_pieces, n_weights;
    float *w;                      /* [n_weights][k] */
    float *raw;                    /* [rows][k] as collected */
    float *weigh;                  /* [rows] */
    float *y;                      /* raw W', rows weighed: [rows][piece rows] for one piece behind the other */
    double *part;                  /* [pieces][rows + k] */
    double *colsq;                 /* [k] squares of a column of w, summed */
    double reference, usual;       /* of the weights that are judged */
};

bool qx_item_rounds_x(const qx_plan_item *it) { return it->pass && (it->act || it->dynamic); }

const qx_plan_item *qx_group_quantized(const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (qx_item_rounds_x(g->items[i])) return g->items[i];
    return NULL;
}

static void weigh_rows(const qx_judge *j, float *x, int64_t n)
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
            j->pieces[j->n_pieces++] = (piece){i, first, rows, j->n_weights};
            j->n_weights += rows;
        }
    return QX_OK;
}

/* What a piece of weights makes of the rows, their squares and those of its columns. */
static qx_status open_piece(void *user, int64_t t)
{
    qx_judge *j = user;
    const piece *p = &j->pieces[t];
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
    for (int64_t t = 0; t < j->n_pieces; t++) weigh_rows(j, j->y + j->pieces[t].at * j->rows, j->pieces[t].rows);
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
    QX_TRY(read_group(&(reading){.ctx = j->ctx, .g = j->group, .k = j->k, .pieces = j->pieces, .n_pieces = j->n_pieces, .kept = j->w},
                      columns));
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

/* ---- candidates ---- */

typedef struct run {
    qx_judge *j;
    const qx_candidates *c;
    int64_t first;    /* the candidates of this round start here */
    bool integers;    /* x and all weights are INT8: their products are made of codes */
    float *xs;        /* [candidates of a round][rows][k]: X / s, quantized when asked, rows weighed; or: */
    qx_code_rows codes; /* the same rows as codes */
    float *amax;      /* [n][items]: of W s, where the spec has one scale for the tensor */
    int64_t pieces;   /* that judge: every so many */
    double *part;     /* [n][pieces] */
} run;

static const piece *piece_of(const run *r, int64_t t) { return &r->j->pieces[t * (r->c->every > 1 ? r->c->every : 1)]; }

static const float *range_of(const run *r) { return r->c->absmax ? r->c->absmax : r->j->stats->channels.absmax; }

/* The largest |x / s| that the grid of candidate i reaches. */
static float reach(const run *r, int64_t i)
{
    const float *s = r->c->s + i * r->j->k, *range = range_of(r);
    float top = 0;
    for (int64_t j = 0; j < r->j->k; j++) top = fmaxf(top, range[j] / s[j]);
    return r->c->clip ? top * r->c->clip[i] : top;
}

/* How candidate i rounds x: if calibrated, with one scale from the largest channel maximum. */
static qx_act_grid grid_of(const run *r, int64_t i)
{
    const qx_plan_item *it = r->c->quantize_x ? qx_group_quantized(r->j->group) : NULL;
    if (!it) return (qx_act_grid){0};
    qx_act_grid g = {.act = it->act, .dynamic = it->dynamic, .blocks = &it->weight->spec};
    const qx_format f = {.codes = g.act == QX_DT_UINT8 ? QX_DT_INT8 : g.act, .scale = QX_DT_FLOAT};
    const float top = g.dynamic ? 0 : reach(r, i);
    if (!g.dynamic) qx_scale_from_amax(&f, &top, 1, &g.scale, NULL);
    return g;
}

static void divide_row(const float *x, const float *s, int64_t k, float *y)
{
    for (int64_t c = 0; c < k; c++) y[c] = x[c] / s[c];
}

/* X / s of a candidate, on the activation's grid. */
static qx_status make_x(void *user, int64_t at)
{
    const run *r = user;
    const qx_judge *j = r->j;
    const int64_t i = r->first + at, k = j->k;
    const qx_act_grid g = grid_of(r, i);
    float *y = r->xs + at * j->rows * k;
    for (int64_t a = 0; a < j->rows; a++) divide_row(j->raw + a * k, r->c->s + i * k, k, y + a * k);
    if (r->c->quantize_x) qx_act_fake(&g, j->rows, k, y);
    weigh_rows(j, y, k);
    return QX_OK;
}

static qx_status make_codes(void *user, int64_t at)
{
    const run *r = user;
    const qx_judge *j = r->j;
    const int64_t i = r->first + at, k = j->k;
    const qx_act_grid g = grid_of(r, i);
    float *y;
    QX_TRY(qx_alloc_raw(j->ctx, (size_t)k * sizeof *y, (void **)&y));
    for (int64_t a = 0; a < j->rows; a++) {
        divide_row(j->raw + a * k, r->c->s + i * k, k, y);
        qx_codes_row(&g, k, y, j->weigh[a], r->codes.codes + (at * j->rows + a) * k, &r->codes.scale[at * j->rows + a]);
    }
    qx_free(j->ctx, y);
    return QX_OK;
}

/* ---- rows that nobody has seen ---- */

/* Among exchangeable rows one in as many new ones as were seen exceeds the largest value m that was seen, whatever the
 * distribution: each of 2 N rows is the largest alike often. Behind m the tail falls as P(|x| > u m) = u^-6 (fitted to down
 * projections of language models; a Gaussian's falls faster), so a grid that reaches c m, c >= 1, loses the integral of 2 (u - c)
 * u^-6 over u > c, times m^2. */
double qx_unseen_loss(double room) { return 1 / (10 * pow(room, 4)); }

/* What clipping costs in rows that nobody has seen, times the squares of the weights it meets. Judged rows do not show it: few
 * are extreme, and a large alpha leaves every channel without headroom. Twice: texts differ from each other by more than rows of
 * one text do. */
static double unseen_error(const run *r, int64_t i)
{
    const qx_judge *j = r->j;
    const float top = reach(r, i), *s = r->c->s + i * j->k, *range = range_of(r);
    double sum = 0;
    for (int64_t c = 0; c < j->k; c++) {
        const double m = (double)range[c], room = m > 0 ? fmax((double)(top * s[c]) / m, 1) : 1, energy = m * m * j->colsq[c];
        sum += energy * qx_unseen_loss(room) / fmax(fmax(j->usual, energy * room * room), 1e-300);
    }
    return sum * 2 * (double)j->rows / (double)r->c->seen;
}

/* ---- errors ---- */

/* What a thread works with on a piece: its rows of W s, and what scales and their search take. */
typedef struct room { float *w, *scale, *importance; int32_t *zero; } room;

static void close_room(qx_ctx *ctx, room *m)
{
    void *list[] = {m->w, m->scale, m->importance, m->zero};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(ctx, list[i]);
}

static qx_status open_room(qx_ctx *ctx, int64_t rows, int64_t k, room *m)
{
    QX_TRY(qx_alloc_raw(ctx, (size_t)(rows * k) * sizeof *m->w, (void **)&m->w));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(rows * k + rows) * sizeof *m->scale, (void **)&m->scale));
    QX_TRY(qx_alloc_raw(ctx, (size_t)(rows * k + rows) * sizeof *m->zero, (void **)&m->zero));
    return qx_alloc_raw(ctx, (size_t)k * sizeof *m->importance, (void **)&m->importance);
}

/* Candidate `first + slot` on one piece of the weights, W s in the room. */
static qx_status error_of(const run *r, int64_t slot, const piece *p, room *m, double *error)
{
    const qx_judge *j = r->j;
    const int64_t k = j->k, i = r->first + slot;
    const qx_qspec *spec = &j->group->items[p->item]->weight->spec;
    const float *s = r->c->s + i * k, *sq = j->stats->channels.n == k ? j->stats->channels.importance : NULL;
    const float *y = j->y + p->at * j->rows, *imp = sq ? m->importance : NULL, amax = r->amax[i * j->group->n + p->item];
    for (int64_t c = 0; sq && c < k; c++) m->importance[c] = sq[c] / (s[c] * s[c]);
    if (r->integers) {
        const qx_code_rows x = {r->codes.codes + slot * j->rows * k, r->codes.scale + slot * j->rows};
        return qx_codes_error(j->ctx, spec, &x, j->rows, p->rows, k, amax, imp, m->w, y, error);
    }
    if (spec->codes) qx_spec_fake(spec, p->rows, k, amax, imp, m->w, m->scale, m->zero);
    *error = qx_gemm_nt_error(j->rows, p->rows, k, r->xs + slot * j->rows * k, k, m->w, k, y, p->rows);
    return QX_OK;
}

/* Candidate `first + at / pieces` on one piece of the weights. */
static qx_status piece_error(void *user, int64_t at)
{
    run *r = user;
    const qx_judge *j = r->j;
    const int64_t k = j->k, slot = at / r->pieces, i = r->first + slot, t = at % r->pieces;
    const piece *p = piece_of(r, t);
    const float *s = r->c->s + i * k, *w = j->w + p->at * k;
    room m = {0};
    qx_status st;
    QX_TRY_GOTO(st, qx_check_cancel(j->ctx));
    QX_TRY_GOTO(st, open_room(j->ctx, p->rows, k, &m));
    for (int64_t a = 0; a < p->rows; a++)
        for (int64_t c = 0; c < k; c++) m.w[a * k + c] = w[a * k + c] * s[c];
    st = error_of(r, slot, p, &m, &r->part[i * r->pieces + t]);
done:
    close_room(j->ctx, &m);
    return st;
}

/* Tensor maxima of W s for every candidate and item, where needed. */
static qx_status tensor_maxima(run *r)
{
    const qx_group *g = r->j->group;
    qx_ctx *ctx = r->j->ctx;
    float *col = NULL;
    qx_status st = QX_OK;
    for (int64_t i = 0; st == QX_OK && i < g->n; i++) {
        if (g->items[i]->weight->spec.block >= 0) continue;
        qx_group one = {.items = &g->items[i], .n = 1, .x = g->x, .k = g->k};
        if (!col) st = qx_alloc_array(ctx, (size_t)g->k, sizeof *col, (void **)&col);
        if (st == QX_OK) st = qx_group_maxima(ctx, &one, col);
        for (int64_t a = 0; st == QX_OK && a < r->c->n; a++)
            for (int64_t j = 0; j < g->k; j++) r->amax[a * g->n + i] = fmaxf(r->amax[a * g->n + i], col[j] * r->c->s[a * g->k + j]);
    }
    qx_free(ctx, col);
    return st;
}

static bool in_integers(const run *r)
{
    const qx_group *g = r->j->group;
    const qx_act_grid x = grid_of(r, 0);
    bool all = r->c->quantize_x && qx_codes_input(&x, r->j->k);
    for (int64_t i = 0; i < g->n; i++) all = all && qx_codes_weight(&g->items[i]->weight->spec);
    return all;
}

static qx_status open_rounds(run *r, int64_t most)
{
    const qx_judge *j = r->j;
    const size_t rows = (size_t)(most * j->rows), cells = rows * (size_t)j->k;
    if (!r->integers) return qx_alloc_raw(j->ctx, cells * sizeof *r->xs, (void **)&r->xs);
    QX_TRY(qx_alloc_raw(j->ctx, cells, (void **)&r->codes.codes));
    return qx_alloc_raw(j->ctx, rows * sizeof *r->codes.scale, (void **)&r->codes.scale);
}

/* As many candidates at a time as their copies of X may take memory. */
static qx_status run_rounds(run *r)
{
    const qx_judge *j = r->j;
    const int64_t n = r->c->n, fit = candidate_bytes / (int64_t)sizeof *r->xs / (j->rows * j->k + 1),
        most = fit < 1 ? 1 : fit < n ? fit : n;
    r->integers = in_integers(r);
    QX_TRY(open_rounds(r, most));
    for (r->first = 0; r->first < n; r->first += most) {
        const int64_t now = n - r->first < most ? n - r->first : most;
        QX_TRY(qx_parallel(j->ctx, now, r->integers ? make_codes : make_x, r));
        QX_TRY(qx_parallel(j->ctx, now * r->pieces, piece_error, r));
    }
    return QX_OK;
}

double qx_judge_work(const qx_group *g, double rows)
{
    enum { CANDIDATES = 12, MOST_ROWS = 160, MOST_WEIGHTS = 512 }; /* as far as all weights are looked at */
    double sum = 0;
    for (int64_t i = 0; i < g->n; i++) {
        const int64_t n = g->items[i]->lin->n;
        sum += 2.0 * CANDIDATES * fmin(rows, MOST_ROWS) * (double)(n < MOST_WEIGHTS ? n : MOST_WEIGHTS) * (double)g->k;
    }
    return sum;
}

qx_status qx_judge_run(qx_judge *j, const qx_candidates *c, double *error)
{
    run r = {.j = j, .c = c, .pieces = qx_cells_of(j->n_pieces, c->every > 1 ? c->every : 1)};
    int64_t weights = 0;
    qx_status st;
    for (int64_t t = 0; t < r.pieces; t++) weights += piece_of(&r, t)->rows;
    QX_TRY_GOTO(st, qx_alloc_array(j->ctx, (size_t)(c->n * r.pieces) + 1, sizeof *r.part, (void **)&r.part));
    QX_TRY_GOTO(st, qx_alloc_array(j->ctx, (size_t)(c->n * j->group->n), sizeof *r.amax, (void **)&r.amax));
    QX_TRY_GOTO(st, tensor_maxima(&r));
    QX_TRY_GOTO(st, run_rounds(&r));
    for (int64_t i = 0; i < c->n; i++) {
        error[i] = 0;
        for (int64_t t = 0; t < r.pieces; t++) error[i] += r.part[i * r.pieces + t];
        error[i] *= (double)j->n_weights / (double)weights;
        if (c->seen) error[i] += unseen_error(&r, i);
    }
done:
    qx_free(j->ctx, r.part);
    qx_free(j->ctx, r.amax);
    qx_free(j->ctx, r.xs);
    qx_free(j->ctx, r.codes.codes);
    qx_free(j->ctx, r.codes.scale);
    return st;
}

qx_status qx_item_note(struct qx_pipeline *pipe, qx_plan_item *it, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    it->notes = it->notes ? qx_arena_printf(pipe->model->arena, "%s; %s", it->notes, text) : qx_arena_strdup(pipe->model->arena, text);
    return it->notes ? QX_OK : QX_E_NOMEM;
}

qx_status qx_item_unobserved(struct qx_pipeline *pipe, qx_plan_item *it, const char *text)
{
    return pipe->no_stats ? QX_OK : qx_item_note(pipe, it, "%s", text);
}
