/* search.c - see search.h. */
#include "passes/search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/dot.h"
#include "kernels/quant.h"
#include "kernels/search.h"

enum { TILE = 64, ROWS_MIN = 16, ROWS_MAX = 128 };
static const int64_t candidate_bytes = (int64_t)48 << 20; /* for the candidates' copies of X */

static void fake_searched(const qx_qspec *spec, int64_t rows, int64_t k, const float *importance, float *x, float *scale, int32_t *zero)
{
    const int64_t block = spec->block > 0 ? spec->block : k;
    const qx_format f = {.codes = spec->codes, .scale = spec->scale, .narrow = spec->narrow, .negative = spec->allow_negative_scale};
    const qx_search search = {.format = f, .block = block, .zero_point = spec->zero_point, .weight = importance};
    if (!qx_search_rows(&search, x, rows, k, scale, spec->zero_point ? zero : NULL, NULL)) return;
    qx_fake_quantize(&(qx_quant){.grid = {rows, k, 1, block}, .format = f, .scale = scale, .zero = spec->zero_point ? zero : NULL}, x);
}

void qx_spec_fake(const qx_qspec *spec, int64_t rows, int64_t k, float tensor_amax, const float *importance, float *x, float *scale, int32_t *zero)
{
    const int64_t block = spec->block > 0 ? spec->block : k;
    const bool two_level = spec->codes == QX_DT_FLOAT4E2M1 && spec->scale == QX_DT_FLOAT8E4M3FN; /* its second level keeps block scales in range */
    qx_quant q = {.grid = {rows, k, spec->block < 0 ? rows : 1, block}, .format = {.codes = spec->codes, .scale = two_level ? QX_DT_FLOAT : spec->scale, .narrow = spec->narrow}, .scale = scale};
    if (!two_level && spec->block >= 0 && (spec->rule == QX_SCALE_SEARCH || spec->zero_point)) {
        fake_searched(spec, rows, k, importance, x, scale, zero);
        return;
    }
    const int64_t cells = qx_grid_cells(&q.grid);
    memset(scale, 0, (size_t)cells * sizeof *scale);
    if (spec->block < 0) scale[0] = tensor_amax;
    else qx_amax(&q.grid, QX_DT_FLOAT, x, scale, NULL);
    qx_scale_from_amax(&q.format, scale, cells, scale, NULL);
    qx_fake_quantize(&q, x);
}

/* ---- columns ---- */

typedef struct columns { qx_ctx *ctx; const qx_group *g; int64_t block, tiles; float *max, *mean; qx_lock *lock; } columns;

static int64_t tiles_of(const qx_group *g)
{
    int64_t t = 0;
    for (int64_t i = 0; i < g->n; i++) t += qx_cells_of(g->items[i]->lin->n, TILE);
    return t;
}

/* Which item and row tile number t of the group is. */
static const qx_plan_item *tile_at(const qx_group *g, int64_t t, int64_t *first, int64_t *rows)
{
    for (int64_t i = 0; i < g->n; i++) {
        const int64_t n = g->items[i]->lin->n, here = qx_cells_of(n, TILE);
        if (t >= here) {
            t -= here;
            continue;
        }
        *first = t * TILE;
        *rows = n - *first < TILE ? n - *first : TILE;
        return g->items[i];
    }
    return NULL;
}

static qx_status read_tile(qx_ctx *ctx, const qx_plan_item *it, int64_t first, int64_t rows, float *x)
{
    return qx_rows_read(ctx, it->weight->tensor, &it->weight->view, it->weight->steps, first, rows, x);
}

static void add_columns(const columns *c, const float *x, int64_t rows, float *max, double *mean)
{
    const int64_t k = c->g->k, block = c->block > 0 ? c->block : k;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < k; b += block) {
            const int64_t end = b + block < k ? b + block : k;
            float top = 0;
            for (int64_t j = b; j < end; j++) top = fmaxf(top, fabsf(x[r * k + j]));
            for (int64_t j = b; j < end; j++) {
                const float a = fabsf(x[r * k + j]);
                max[j] = fmaxf(max[j], a);
                if (top > 0) mean[j] += (double)(a / top);
            }
        }
}

/* Tiles are folded in order, so that the mean does not depend on the threads. */
qx_status qx_group_columns(qx_ctx *ctx, const qx_group *g, int64_t block, float *w, float *mean)
{
    columns c = {.ctx = ctx, .g = g, .block = block, .tiles = tiles_of(g), .max = w, .mean = mean};
    float *x = NULL;
    double *sum = NULL;
    int64_t total = 0;
    qx_status st = qx_alloc_raw(ctx, (size_t)(TILE * g->k) * sizeof *x, (void **)&x);
    if (st == QX_OK) st = qx_alloc_array(ctx, (size_t)g->k, sizeof *sum, (void **)&sum);
    memset(w, 0, (size_t)g->k * sizeof *w);
    for (int64_t t = 0; st == QX_OK && t < c.tiles; t++) {
        int64_t first = 0, rows = 0;
        const qx_plan_item *it = tile_at(g, t, &first, &rows);
        st = read_tile(ctx, it, first, rows, x);
        if (st == QX_OK) add_columns(&c, x, rows, w, sum);
        total += rows;
    }
    for (int64_t j = 0; st == QX_OK && mean && j < g->k; j++) mean[j] = (float)(sum[j] / (double)total);
    qx_free(ctx, x);
    qx_free(ctx, sum);
    return st;
}

/* ---- candidates ---- */

typedef struct run {
    qx_ctx *ctx;
    qx_candidates *c;
    int64_t k, rows, tiles; /* rows: sampled ones, then those with the largest values */
    int64_t sampled;
    float *raw;       /* [rows][k] as collected */
    float *xs;        /* [n][rows][k]: X / s, quantized when asked, rows weighed */
    float *x;         /* [rows][k], rows weighed */
    float *weigh;     /* [rows] */
    double *colsq;    /* [k] squares of a column of the group's weights, summed */
    float *amax;      /* [n][items]: of W s, where the spec has one scale for the tensor */
    double *part;     /* [tiles][n + 1] */
} run;

const qx_plan_item *qx_group_quantized(const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i]->pass && g->items[i]->act) return g->items[i];
    return NULL;
}

static int64_t rows_for(const qx_candidates *c)
{
    int64_t rows = candidate_bytes / 4 / (c->n * c->group->k);
    rows = rows < ROWS_MIN ? ROWS_MIN : rows > ROWS_MAX ? ROWS_MAX : rows;
    if (c->max_rows && rows > c->max_rows) rows = c->max_rows;
    return rows < c->stats->n_rows ? rows : c->stats->n_rows;
}

static void weigh_rows(const run *r, float *x)
{
    for (int64_t a = 0; a < r->rows; a++)
        for (int64_t j = 0; j < r->k; j++) x[a * r->k + j] *= r->weigh[a];
}

/* The largest |x / s| that the grid of candidate i reaches. */
static float reach(const run *r, int64_t i)
{
    const qx_candidates *c = r->c;
    const float *s = c->s + i * r->k, *range = c->absmax ? c->absmax : c->stats->channels.absmax;
    float top = 0;
    for (int64_t j = 0; j < r->k; j++) top = fmaxf(top, range[j] / s[j]);
    return c->clip ? top * c->clip[i] : top;
}

/* X / s of candidate i, on the activation's grid: one scale from the largest channel maximum. */
static qx_status make_x(void *user, int64_t i)
{
    run *r = user;
    const qx_candidates *c = r->c;
    const float *s = c->s + i * r->k;
    float *y = r->xs + i * r->rows * r->k;
    const float top = reach(r, i);
    for (int64_t a = 0; a < r->rows; a++)
        for (int64_t j = 0; j < r->k; j++) y[a * r->k + j] = r->raw[a * r->k + j] / s[j];
    if (!c->quantize_x) return weigh_rows(r, y), QX_OK;
    const qx_dtype act = qx_group_quantized(c->group)->act;
    const qx_format f = {.codes = act == QX_DT_UINT8 ? QX_DT_INT8 : act, .scale = QX_DT_FLOAT};
    float scale;
    qx_scale_from_amax(&f, &top, 1, &scale, NULL);
    qx_fake_quantize(&(qx_quant){.grid = {r->rows, r->k, r->rows, r->k}, .format = f, .scale = &scale}, y);
    weigh_rows(r, y);
    return QX_OK;
}

/* ---- the weight of a row ---- */

/* |X W'|^2 of every row over one tile of weights, and the squares of its columns: part[rows + k]. */
static qx_status tile_norms(void *user, int64_t t)
{
    run *r = user;
    int64_t first = 0, rows = 0;
    const qx_plan_item *it = tile_at(r->c->group, t, &first, &rows);
    float *w = NULL, *y = NULL;
    double *part = r->part + t * (r->rows + r->k);
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)(rows * r->k) * sizeof *w, (void **)&w));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)(rows * r->rows) * sizeof *y, (void **)&y));
    QX_TRY_GOTO(st, read_tile(r->ctx, it, first, rows, w));
    qx_gemm_nt(r->rows, rows, r->k, r->raw, r->k, w, r->k, y, rows);
    for (int64_t a = 0; a < r->rows; a++) {
        part[a] = 0;
        for (int64_t j = 0; j < rows; j++) part[a] += (double)y[a * rows + j] * (double)y[a * rows + j];
    }
    for (int64_t a = 0; a < rows; a++)
        for (int64_t j = 0; j < r->k; j++) part[r->rows + j] += (double)w[a * r->k + j] * (double)w[a * r->k + j];
done:
    qx_free(r->ctx, w);
    qx_free(r->ctx, y);
    return st;
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

/* The rows that are judged. */
static void gather_rows(run *r)
{
    const qx_value_stats *st = r->c->stats;
    memcpy(r->raw, st->rows, (size_t)(r->sampled * r->k) * sizeof *r->raw);
    if (r->rows > r->sampled) memcpy(r->raw + r->sampled * r->k, st->tops, (size_t)((r->rows - r->sampled) * r->k) * sizeof *r->raw);
}

/* 1 / max(|y|, median |y|): a few tokens with enormous values (attention sinks) would otherwise decide alone, though what comes behind
 * (a residual stream of the same size, a norm) only sees their error in relation to them. */
static qx_status weigh(run *r)
{
    double *norm = NULL;
    qx_status st;
    QX_TRY(qx_alloc_array(r->ctx, (size_t)(2 * r->rows), sizeof *norm, (void **)&norm));
    double *sorted = norm + r->rows;
    QX_TRY_GOTO(st, qx_parallel(r->ctx, r->tiles, tile_norms, r));
    for (int64_t t = 0; t < r->tiles; t++) {
        const double *part = r->part + t * (r->rows + r->k);
        add_doubles(part, r->rows, norm);
        add_doubles(part + r->rows, r->k, r->colsq);
    }
    memcpy(sorted, norm, (size_t)r->sampled * sizeof *norm);
    qsort(sorted, (size_t)r->sampled, sizeof *sorted, by_value);
    r->c->usual = sorted[r->sampled / 2];
    for (int64_t a = 0; a < r->rows; a++) {
        const double most = fmax(norm[a], r->c->usual);
        r->weigh[a] = most > 0 ? (float)(1 / sqrt(most)) : 1;
    }
    memcpy(r->x, r->raw, (size_t)(r->rows * r->k) * sizeof *r->x);
    weigh_rows(r, r->x);
done:
    qx_free(r->ctx, norm);
    return st;
}

/* ---- rows that nobody has seen ---- */

/* Rows of other texts exceed the largest value m of a channel about twice in as many rows as calibration saw, by sizes that follow a power law:
 * P(|x| > u m) = u^-6 (fitted to down projections of language models). Where the grid reaches c m, c >= 1, each of them loses E (|x| - c m)^2 = m^2 / (10 c^4),
 * times the squares of the weights it meets. Judged rows do not show it: few are extreme, and a large alpha leaves every channel without headroom. */
static double unseen_error(const run *r, int64_t i)
{
    const qx_candidates *c = r->c;
    const float top = reach(r, i), *s = c->s + i * r->k, *range = c->absmax ? c->absmax : c->stats->channels.absmax;
    double sum = 0;
    for (int64_t j = 0; j < r->k && c->seen; j++) {
        const double m = (double)range[j], room = m > 0 ? fmax((double)(top * s[j]) / m, 1) : 1, energy = m * m * r->colsq[j];
        sum += energy / (10 * pow(room, 4)) / fmax(fmax(r->c->usual, energy * room * room), 1e-300);
    }
    return c->seen ? sum * 2 * (double)r->rows / (double)c->seen : 0;
}

/* ---- errors ---- */

static int64_t item_index(const qx_group *g, const qx_plan_item *it)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i] == it) return i;
    return 0;
}

static qx_status tile_errors(void *user, int64_t t)
{
    run *r = user;
    qx_candidates *c = r->c;
    const int64_t k = r->k;
    int64_t first = 0, rows = 0;
    const qx_plan_item *it = tile_at(c->group, t, &first, &rows);
    float *w = NULL, *wq = NULL, *y = NULL, *scale = NULL, *imp = NULL;
    int32_t *zero = NULL;
    const float *sq = c->stats->channels.n == k ? c->stats->channels.importance : NULL;
    double *part = r->part + t * (c->n + 1);
    qx_status st;
    QX_TRY_GOTO(st, qx_check_cancel(r->ctx));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)(rows * k) * sizeof *w, (void **)&w));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)(rows * k) * sizeof *wq, (void **)&wq));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)(rows * k + rows) * sizeof *scale, (void **)&scale));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)(rows * k + rows) * sizeof *zero, (void **)&zero));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)k * sizeof *imp, (void **)&imp));
    QX_TRY_GOTO(st, qx_alloc_raw(r->ctx, (size_t)(rows * r->rows) * sizeof *y, (void **)&y));
    QX_TRY_GOTO(st, read_tile(r->ctx, it, first, rows, w));
    qx_gemm_nt(r->rows, rows, k, r->x, k, w, k, y, rows);
    for (int64_t i = 0; i < r->rows * rows; i++) part[c->n] += (double)y[i] * (double)y[i];
    for (int64_t i = 0; i < c->n; i++) {
        const float *s = c->s + i * k;
        for (int64_t a = 0; a < rows; a++)
            for (int64_t j = 0; j < k; j++) wq[a * k + j] = w[a * k + j] * s[j];
        for (int64_t j = 0; sq && j < k; j++) imp[j] = sq[j] / (s[j] * s[j]);
        if (it->weight->spec.codes) qx_spec_fake(&it->weight->spec, rows, k, r->amax[i * c->group->n + item_index(c->group, it)], sq ? imp : NULL, wq, scale, zero);
        part[i] = qx_gemm_nt_error(r->rows, rows, k, r->xs + i * r->rows * k, k, wq, k, y, rows);
    }
done:
    qx_free(r->ctx, w);
    qx_free(r->ctx, wq);
    qx_free(r->ctx, scale);
    qx_free(r->ctx, zero);
    qx_free(r->ctx, imp);
    qx_free(r->ctx, y);
    return st;
}

/* Tensor maxima of W s for every candidate and item, where needed. */
static qx_status tensor_maxima(run *r)
{
    const qx_group *g = r->c->group;
    float *col = NULL;
    qx_status st = QX_OK;
    for (int64_t i = 0; st == QX_OK && i < g->n; i++) {
        if (g->items[i]->weight->spec.block >= 0) continue;
        qx_group one = {.items = &g->items[i], .n = 1, .x = g->x, .k = g->k};
        if (!col) st = qx_alloc_array(r->ctx, (size_t)g->k, sizeof *col, (void **)&col);
        if (st == QX_OK) st = qx_group_columns(r->ctx, &one, 0, col, NULL);
        for (int64_t a = 0; st == QX_OK && a < r->c->n; a++)
            for (int64_t j = 0; j < g->k; j++) r->amax[a * g->n + i] = fmaxf(r->amax[a * g->n + i], col[j] * r->c->s[a * g->k + j]);
    }
    qx_free(r->ctx, col);
    return st;
}

qx_status qx_candidates_run(qx_ctx *ctx, qx_candidates *c)
{
    run r = {.ctx = ctx, .c = c, .k = c->group->k, .sampled = rows_for(c), .tiles = tiles_of(c->group)};
    r.rows = r.sampled + c->stats->n_tops;
    const size_t parts = (size_t)(r.tiles * (c->n + 1 > r.rows + r.k ? c->n + 1 : r.rows + r.k));
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(ctx, parts, sizeof *r.part, (void **)&r.part));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)(c->n * c->group->n), sizeof *r.amax, (void **)&r.amax));
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, (size_t)(c->n * r.rows * r.k) * sizeof *r.xs, (void **)&r.xs));
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, (size_t)(r.rows * r.k) * sizeof *r.raw, (void **)&r.raw));
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, (size_t)(r.rows * r.k) * sizeof *r.x, (void **)&r.x));
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, (size_t)r.rows * sizeof *r.weigh, (void **)&r.weigh));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)r.k, sizeof *r.colsq, (void **)&r.colsq));
    gather_rows(&r);
    QX_TRY_GOTO(st, weigh(&r));
    memset(r.part, 0, parts * sizeof *r.part);
    QX_TRY_GOTO(st, tensor_maxima(&r));
    QX_TRY_GOTO(st, qx_parallel(ctx, c->n, make_x, &r));
    QX_TRY_GOTO(st, qx_parallel(ctx, r.tiles, tile_errors, &r));
    c->reference = 0;
    for (int64_t i = 0; i <= c->n; i++) {
        double sum = 0;
        for (int64_t t = 0; t < r.tiles; t++) sum += r.part[t * (c->n + 1) + i];
        if (i < c->n) c->error[i] = sum + unseen_error(&r, i);
        else c->reference = sum;
    }
done:
    qx_free(ctx, r.part);
    qx_free(ctx, r.amax);
    qx_free(ctx, r.xs);
    qx_free(ctx, r.raw);
    qx_free(ctx, r.x);
    qx_free(ctx, r.weigh);
    qx_free(ctx, r.colsq);
    return st;
}

qx_status qx_group_untouched(const qx_pass *p, const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i]->weight->pruned || g->items[i]->weight->solved)
            QX_FAIL(p->ctx, QX_E_USAGE, "%s changes weights that a pass before it has pruned or rounded: write it first, as in \"%s,sparsity,...\"", p->def->name, p->def->name);
    return QX_OK;
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
