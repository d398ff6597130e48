/* rows.c - the canonical matrix W[n, k] of a weight, a few rows at a time, from any storage order, and the steps on it. */
#include <string.h>

#include "kernels/quant.h"
#include "onnx/file/source.h"

enum { MAX_STEPS = 64, GATHER = 16, CALL_BYTES = 8192 /* of a file that are read in the time that one call takes */ };

/* ---- steps ---- */

static qx_status scale_cols(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const float *f = s->arg; /* [k] */
    (void)ctx, (void)first, (void)scratch;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < k; c++) x[r * k + c] *= f[c];
    return QX_OK;
}

static qx_status scale_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const float *f = s->arg; /* [n] */
    (void)ctx, (void)scratch;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < k; c++) x[r * k + c] *= f[first + r];
    return QX_OK;
}

/* The inner loop runs along the smaller stride, which is the storage order. */
static qx_status scale_cells(const qx_cells *c, const float *f, bool by_row, float *x)
{
    const bool rows_inside = c->row_stride < c->col_stride;
    const int64_t outer = rows_inside ? c->cols : c->rows, inner = rows_inside ? c->rows : c->cols;
    const int64_t so = rows_inside ? c->col_stride : c->row_stride, si = rows_inside ? c->row_stride : c->col_stride;
    const float *fo = f + (rows_inside ? c->col0 : c->row0), *fi = f + (rows_inside ? c->row0 : c->col0);
    for (int64_t o = 0; o < outer; o++) {
        float *p = x + o * so;
        if (rows_inside == by_row) for (int64_t i = 0; i < inner; i++) p[i * si] *= fi[i];
        else for (int64_t i = 0; i < inner; i++) p[i * si] *= fo[o];
    }
    return QX_OK;
}

static qx_status scale_cols_cells(qx_ctx *ctx, const qx_step *s, const qx_cells *c, float *x)
{
    (void)ctx;
    return scale_cells(c, s->arg, false, x);
}

static qx_status scale_rows_cells(qx_ctx *ctx, const qx_step *s, const qx_cells *c, float *x)
{
    (void)ctx;
    return scale_cells(c, s->arg, true, x);
}

const qx_stepdef qx_step_scale_cols = {.name = "scale_cols", .rows = scale_cols, .cells = scale_cols_cells};
const qx_stepdef qx_step_scale_rows = {.name = "scale_rows", .rows = scale_rows, .cells = scale_rows_cells};

const qx_step *qx_step_new(qx_model *m, const qx_stepdef *def, const qx_step *prev, const void *arg)
{
    qx_step *s = qx_arena_alloc(m->arena, sizeof *s);
    if (s) *s = (qx_step){def, prev, arg};
    return s;
}

static qx_status list_steps(qx_ctx *ctx, const qx_step *last, const qx_step *list[MAX_STEPS], int *count)
{
    int n = 0;
    for (const qx_step *s = last; s; s = s->prev, n++)
        if (n == MAX_STEPS) QX_FAIL(ctx, QX_E_FAIL, "a weight has more than %d steps", MAX_STEPS);
    *count = n;
    for (const qx_step *s = last; s; s = s->prev) list[--n] = s;
    return QX_OK;
}

static qx_status run_step(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x)
{
    void *scratch = NULL;
    if (!s->def->rows) QX_FAIL(ctx, QX_E_FAIL, "step '%s' decides a grid; its rows can only be read through its job", s->def->name);
    const size_t n = s->def->scratch_bytes ? s->def->scratch_bytes(s, k) : 0;
    if (n) QX_TRY(qx_alloc_raw(ctx, n, &scratch));
    const qx_status st = s->def->rows(ctx, s, first, rows, k, x, scratch);
    qx_free(ctx, scratch);
    return st == QX_OK ? st : qx_note(ctx, st, "step '%s'", s->def->name);
}

qx_status qx_steps_run(qx_ctx *ctx, const qx_step *steps, int64_t first, int64_t rows, int64_t k, float *x)
{
    const qx_step *list[MAX_STEPS];
    int n;
    QX_TRY(list_steps(ctx, steps, list, &n));
    for (int i = 0; i < n; i++) QX_TRY(run_step(ctx, list[i], first, rows, k, x));
    return QX_OK;
}

bool qx_steps_have_cells(const qx_step *steps)
{
    for (const qx_step *s = steps; s; s = s->prev)
        if (!s->def->cells) return false;
    return true;
}

qx_status qx_steps_run_cells(qx_ctx *ctx, const qx_step *steps, const qx_cells *c, float *x)
{
    const qx_step *list[MAX_STEPS];
    int n;
    QX_TRY(list_steps(ctx, steps, list, &n));
    for (int i = 0; i < n; i++) QX_TRY(list[i]->def->cells(ctx, list[i], c, x));
    return QX_OK;
}

/* ---- rows of stored tensors ---- */

/* tmp[j * ld + r * inner + i] holds element (o0 + j, r, i); to x[r * k + (o0 + j) * inner + i]. */
static void scatter(const float *tmp, int64_t ld, int64_t nj, int64_t rows, int64_t inner, int64_t k, float *x)
{
    if (inner == 1) {
        (void)qx_transpose(4, nj, rows, tmp, ld, x, k);
        return;
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < nj; j++) memcpy(x + r * k + j * inner, tmp + j * ld + r * inner, (size_t)inner * sizeof *x);
}

/* Rows of one matrix are strided in the file: several outer steps at a time, as one range when little would be read in vain. */
static qx_status gather(qx_ctx *ctx, const qx_weight *w, const qx_view *v, int64_t first, int64_t rows, float *x)
{
    const int64_t seg = rows * v->inner, full = qx_view_span(v) * v->inner, k = qx_view_k(v);
    const bool wide = seg * 4 >= full || (full - seg) * (int64_t)sizeof *x <= CALL_BYTES;
    const int64_t ld = wide ? full : seg;
    float *tmp = NULL;
    void *raw = NULL;
    qx_status st;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(GATHER * ld) * sizeof *tmp, (void **)&tmp));
    QX_TRY_GOTO(st, qx_alloc_raw(ctx, qx_source_raw_bytes(w, GATHER * ld), &raw));
    for (int64_t o = 0; o < v->outer; o += GATHER) {
        const int64_t nj = v->outer - o < GATHER ? v->outer - o : GATHER, at = qx_view_index(v, v->outer, first, o) * v->inner;
        if (wide) QX_TRY_GOTO(st, qx_source_f32(ctx, w, at, (nj - 1) * full + seg, raw, tmp));
        for (int64_t j = 0; !wide && j < nj; j++) QX_TRY_GOTO(st, qx_source_f32(ctx, w, at + j * full, seg, raw, tmp + j * ld));
        scatter(tmp, ld, nj, rows, v->inner, k, x + o * v->inner);
    }
    st = QX_OK;
done:
    qx_free(ctx, raw);
    qx_free(ctx, tmp);
    return st;
}

static qx_status stored_rows(qx_ctx *ctx, const qx_weight *w, const qx_view *v, int64_t first, int64_t rows, float *x)
{
    void *raw;
    if (v->outer > 1) {
        for (int64_t i = 0, n; i < rows; i += n) {
            n = qx_view_run(v, first + i, rows - i);
            QX_TRY(gather(ctx, w, v, first + i, n, x + i * qx_view_k(v)));
        }
        return QX_OK;
    }
    QX_TRY(qx_alloc_raw(ctx, qx_source_raw_bytes(w, rows * v->inner), &raw));
    const qx_status st = qx_source_f32(ctx, w, first * v->inner, rows * v->inner, raw, x);
    qx_free(ctx, raw);
    return st;
}

/* ---- rows of tensors that a job makes ---- */

/* The output of a job that stores floats, seen as the rows that the job itself works on. */
bool qx_rows_follow(const qx_weight *w, const qx_view *v)
{
    const qx_job *j = w->job;
    if (w->part != QX_PART_CODES || !qx_job_is_float(j)) return false;
    if (j->layout == QX_LAYOUT_NK) return v->outer == 1 && v->n == j->view.n;
    return qx_view_same(v, &j->view);
}

qx_status qx_round_f32(qx_ctx *ctx, qx_dtype dtype, float *x, int64_t count)
{
    void *tmp;
    if (dtype == QX_DT_FLOAT) return QX_OK;
    QX_TRY(qx_alloc_array(ctx, (size_t)count, 4, &tmp));
    const bool ok = qx_from_f32(dtype, x, count, tmp) && qx_to_f32(dtype, tmp, count, x);
    qx_free(ctx, tmp);
    if (!ok) QX_FAIL(ctx, QX_E_TYPE, "cannot round to %s", qx_dtype_get(dtype)->name);
    return QX_OK;
}

static qx_status rounded_rows(qx_ctx *ctx, const qx_weight *w, int64_t first, int64_t rows, float *x)
{
    const qx_job *j = w->job;
    QX_TRY(qx_rows_read(ctx, j->in, &j->view, j->steps, first, rows, x));
    return qx_round_f32(ctx, w->dtype, x, rows * qx_view_k(&j->view));
}

/* Any other product of a job: made whole in memory, then read like a stored tensor. */
static qx_status whole_then_rows(qx_ctx *ctx, const qx_weight *w, const qx_view *v, int64_t first, int64_t rows, float *x)
{
    void *all;
    QX_TRY(qx_alloc_raw(ctx, w->bytes, &all));
    qx_status st = qx_weight_read(ctx, w, all);
    qx_weight flat = *w;
    flat.job = NULL;
    flat.src = (qx_source){.kind = QX_SRC_BYTES, .bytes = all, .length = (int64_t)w->bytes};
    if (st == QX_OK) st = stored_rows(ctx, &flat, v, first, rows, x);
    qx_free(ctx, all);
    return st;
}

qx_status qx_view_check(qx_ctx *ctx, const qx_weight *w, const qx_view *v)
{
    const bool fits = v->n > 0 && v->outer > 0 && v->inner > 0 && w->numel % v->n == 0 && w->numel / v->n % v->outer == 0 &&
        w->numel / v->n / v->outer == v->inner;
    if (!fits)
        QX_FAIL(ctx, QX_E_SHAPE, "weight '%s' has %lld elements, seen as %lld rows of %lld x %lld", w->name, (long long)w->numel,
                (long long)v->n, (long long)v->outer, (long long)v->inner);
    if (v->span < 0 || (v->span && v->n % v->span))
        QX_FAIL(ctx, QX_E_SHAPE, "weight '%s': %lld rows are not matrices of %lld rows", w->name, (long long)v->n, (long long)v->span);
    return QX_OK;
}

qx_status qx_rows_read(qx_ctx *ctx, const qx_weight *w, const qx_view *view, const qx_step *steps, int64_t first, int64_t rows, float *x)
{
    QX_TRY(qx_view_check(ctx, w, view));
    if (first < 0 || rows < 0 || first > view->n - rows)
        QX_FAIL(ctx, QX_E_SHAPE, "weight '%s': rows %lld..%lld of %lld", w->name, (long long)first, (long long)(first + rows),
                (long long)view->n);
    if (!w->job) QX_TRY(stored_rows(ctx, w, view, first, rows, x));
    else if (qx_rows_follow(w, view)) QX_TRY(rounded_rows(ctx, w, first, rows, x));
    else QX_TRY(whole_then_rows(ctx, w, view, first, rows, x));
    return qx_steps_run(ctx, steps, first, rows, qx_view_k(view), x);
}
