/* job_search.c - scales of least squared error, by the rule QX_SCALE_SEARCH: per block from the tile alone, per tensor from a sweep. */
#include <math.h>
#include <string.h>

#include "kernels/search.h"
#include "onnx/weight/job_run.h"

/* The search wants finite numbers: what is not counts as 0 there (its code is made from what it is). */
static qx_status finite_rows(qx_run *r, const qx_tile *t, const qx_grid *g, float **copy)
{
    const int64_t n = t->rows * t->cols;
    qx_nonfinite bad = QX_NONFINITE_NONE;
    float amax = 0;
    *copy = NULL;
    (void)qx_amax(&(qx_grid){g->rows, g->cols, g->rows, g->cols}, QX_DT_FLOAT, t->src, &amax, &bad);
    if (!bad.nan && !bad.inf) return QX_OK;
    if (!r->n_range) qx_run_note_bad(r, &bad);
    QX_TRY(qx_alloc_array(r->ctx, (size_t)n, sizeof **copy, (void **)copy));
    for (int64_t i = 0; i < n; i++) (*copy)[i] = isfinite(((const float *)t->src)[i]) ? ((const float *)t->src)[i] : 0;
    return QX_OK;
}

/* Of the columns of W that the tile has. */
static const float *importance(const qx_run *r, const qx_tile *t)
{
    const float *all = r->j->spec.importance;
    return all && r->columns ? all + t->first : all;
}

static qx_status search_two_level(qx_run *r, qx_tile *t, const float *x)
{
    const int64_t rows = r->columns ? t->cols : t->rows, k = r->columns ? t->rows : t->cols, cells = rows * qx_cells_of(k, QX_NVFP4_BLOCK);
    const qx_nvfp4 p = {.global = r->scale2, .weight = importance(r, t), .columns = r->columns};
    uint8_t *code;
    if (r->j->spec.block != QX_NVFP4_BLOCK)
        QX_FAIL(r->ctx, QX_E_SHAPE, "weight '%s': NVFP4 has blocks of %d, not %lld", r->j->in->name, QX_NVFP4_BLOCK,
                (long long)r->j->spec.block);
    QX_TRY(qx_alloc_raw(r->ctx, (size_t)cells, (void **)&code));
    qx_nvfp4_search(&p, x, rows, k, code, t->scale, NULL);
    (void)qx_to_f32(QX_DT_FLOAT8E4M3FN, code, cells, t->scale);
    qx_free(r->ctx, code);
    return QX_OK;
}

static qx_status search_blocks(qx_run *r, qx_tile *t, const float *x)
{
    const qx_qspec *q = &r->j->spec;
    const qx_search s = {.format = qx_job_format(r->j), .block = q->block, .zero_point = q->zero_point, .weight = importance(r, t),
                         .columns = r->columns};
    if (qx_search_rows(&s, x, r->columns ? t->cols : t->rows, r->columns ? t->rows : t->cols, t->scale, t->zero, NULL)) return QX_OK;
    QX_FAIL(r->ctx, QX_E_UNSUPPORTED, "weight '%s': no scale search for %s", r->j->in->name, qx_dtype_get(q->codes)->name);
}

qx_status qx_tile_search(qx_run *r, qx_tile *t, const qx_grid *g)
{
    float *copy;
    if (r->j->spec.block == -1) { /* found by the sweep */
        t->scale[0] = r->tensor_scale;
        if (t->zero) t->zero[0] = r->tensor_zero;
        return QX_OK;
    }
    QX_TRY(finite_rows(r, t, g, &copy));
    const float *x = copy ? copy : t->src;
    const qx_status st = qx_spec_two_level(&r->j->spec) ? search_two_level(r, t, x) : search_blocks(r, t, x);
    qx_free(r->ctx, copy);
    return st;
}

/* ---- one scale for the tensor: candidates summed over all tiles, in the order of the tiles ---- */

enum { CANDIDATES = 21 };
typedef struct sweep { qx_run *r; float scale[CANDIDATES]; int32_t zero[CANDIDATES]; double *err; /* [tiles][CANDIDATES] */ } sweep;

static qx_status sweep_tile(void *user, int64_t i)
{
    sweep *s = user;
    qx_run *r = s->r;
    const qx_job *j = r->j;
    qx_tile t = {.first = i * r->tile, .rows = r->rows - i * r->tile < r->tile ? r->rows - i * r->tile : r->tile, .col0 = r->col0,
                 .cols = r->cols};
    const qx_search p = {.format = qx_job_format(j), .zero_point = j->spec.zero_point};
    float *copy = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_tile_load(r, &t));
    const qx_grid g = qx_tile_grid(r, &t);
    QX_TRY_GOTO(st, finite_rows(r, &t, &g, &copy));
    if (!qx_search_errors(&p, copy ? copy : t.src, t.rows * t.cols, s->scale, j->spec.zero_point ? s->zero : NULL, CANDIDATES,
                          s->err + i * CANDIDATES))
        st = qx_fail(r->ctx, QX_E_UNSUPPORTED, "weight '%s': no scale search for %s", j->in->name, qx_dtype_get(j->spec.codes)->name);
done:
    qx_free(r->ctx, copy);
    qx_tile_free(r, &t);
    return st;
}

static void candidates(sweep *s)
{
    const qx_run *r = s->r;
    const qx_format f = qx_job_format(r->j);
    for (int c = 0; c < CANDIDATES; c++) {
        const float shrink = 1.0f - 0.5f * (float)c / (CANDIDATES - 1), lo = r->lo[0] * shrink, hi = r->hi[0] * shrink,
            amax = fmaxf(-lo, hi);
        if (r->j->spec.zero_point) qx_scale_from_range(&f, &lo, &hi, 1, &s->scale[c], &s->zero[c], NULL);
        else qx_scale_from_amax(&f, &amax, 1, &s->scale[c], NULL);
    }
}

qx_status qx_run_search_tensor(qx_run *r)
{
    sweep s = {.r = r};
    double best = INFINITY;
    candidates(&s);
    QX_TRY(QX_NEW_ARRAY(r->ctx, r->n_tiles * CANDIDATES, &s.err));
    const qx_status st = qx_parallel(r->ctx, r->n_tiles, sweep_tile, &s);
    for (int c = 0; c < CANDIDATES && st == QX_OK; c++) {
        double sum = 0;
        for (int64_t i = 0; i < r->n_tiles; i++) sum += s.err[i * CANDIDATES + c];
        if (sum >= best) continue; /* ties: the larger scale */
        best = sum;
        r->tensor_scale = s.scale[c];
        r->tensor_zero = s.zero[c];
    }
    qx_free(r->ctx, s.err);
    return st;
}

