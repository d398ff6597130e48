/* job.c - describing a job: which parts it makes, of which type and dims. Nothing is computed here; job_run.c does the work. */
#include "base/checked.h"
#include "kernels/quant.h"
#include "onnx/weight/job_run.h"

int64_t qx_job_blocks(const qx_job *j)
{
    const int64_t k = qx_view_k(&j->view);
    return j->spec.block > 0 ? qx_cells_of(k, j->spec.block) : 1;
}


int qx_job_code_bits(const qx_job *j) { return qx_dtype_bits(j->spec.codes); }

qx_format qx_job_format(const qx_job *j)
{
    return (qx_format){.codes = j->spec.codes, .scale = j->spec.scale, .narrow = j->spec.narrow, .negative = j->spec.allow_negative_scale};
}

/* ---- checks ---- */

static qx_status check_spec(qx_ctx *ctx, const qx_job *j)
{
    const qx_qspec *q = &j->spec;
    const char *name = j->in->name, *codes = qx_dtype_get(q->codes)->name;
    float lo, hi;
    const qx_format f = qx_job_format(j);
    if (qx_job_is_float(j)) {
        if (j->steps && j->steps->def->grid)
            QX_FAIL(ctx, QX_E_UNSUPPORTED, "weight '%s': step '%s' decides a grid, but the format is %s", name, j->steps->def->name, codes);
        return QX_OK;
    }
    if (!qx_format_range(&f, &lo, &hi)) QX_FAIL(ctx, QX_E_TYPE, "weight '%s': %s is not a type to quantize to", name, codes);
    if (!qx_dtype_is_float(q->scale)) QX_FAIL(ctx, QX_E_TYPE, "weight '%s': scales of type %s", name, qx_dtype_get(q->scale)->name);
    if (q->block < -1) QX_FAIL(ctx, QX_E_SHAPE, "weight '%s': block %lld", name, (long long)q->block);
    if (q->zero_point && qx_dtype_is_float(q->codes)) QX_FAIL(ctx, QX_E_TYPE, "weight '%s': %s has no zero point", name, codes);
    if (q->rule == QX_SCALE_GIVEN && !q->given) QX_FAIL(ctx, QX_E_FAIL, "weight '%s': the scales are said to be given but are not", name);
    if (j->steps && j->steps->def->grid && q->block == -1)
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "weight '%s': step '%s' decides a grid of rows and blocks, not one scale for the whole tensor",
                name, j->steps->def->name);
    if (j->layout != QX_LAYOUT_NBITS) return QX_OK;
    if (q->block <= 0) QX_FAIL(ctx, QX_E_SHAPE, "weight '%s': MatMulNBits wants a block, not %lld", name, (long long)q->block);
    if (q->block * qx_dtype_bits(q->codes) % 8)
        QX_FAIL(ctx, QX_E_SHAPE, "weight '%s': a block of %lld codes of %d bits is not whole bytes", name, (long long)q->block,
                qx_dtype_bits(q->codes));
    if (qx_dtype_is_float(q->codes) || qx_dtype_bits(q->codes) > 8)
        QX_FAIL(ctx, QX_E_TYPE, "weight '%s': MatMulNBits holds integers of up to 8 bits, not %s", name, codes);
    return QX_OK;
}

/* ---- dims ---- */

typedef struct shape { int rank; int64_t dims[64]; } shape;

static shape source_shape(const qx_weight *w)
{
    shape s = {.rank = w->rank};
    for (int i = 0; i < w->rank; i++) s.dims[i] = w->dims[i];
    return s;
}

/* The one axis of the source that is k, with `span` rows behind it and the matrices before it. -1: there is none. */
static int contraction_axis(const qx_job *j)
{
    const qx_weight *w = j->in;
    const qx_view *v = &j->view;
    const int64_t k = qx_view_k(v), behind = v->outer == 1 && k > 1 ? 1 : qx_view_span(v);
    int64_t before = 1;
    if (v->inner != 1 && v->outer != 1) return -1;
    for (int i = 0; i < w->rank; before *= w->dims[i++])
        if (w->dims[i] == k && before == v->n / behind) return i; /* numel = n * k: what is behind fits then */
    return k == 1 ? w->rank - 1 : -1;
}

static qx_status scale_shape(qx_ctx *ctx, const qx_job *j, shape *s)
{
    const int64_t blocks = qx_job_blocks(j);
    if (j->spec.block == -1) return *s = (shape){0}, QX_OK;
    if (j->spec.block == 0) return *s = (shape){1, {j->view.n}}, QX_OK;
    if (j->layout != QX_LAYOUT_SAME) return *s = (shape){2, {j->view.n, blocks}}, QX_OK;
    const int axis = contraction_axis(j);
    if (axis < 0)
        QX_FAIL(ctx, QX_E_SHAPE, "weight '%s': blocks along k need a matrix; its %d dims have no single axis of %lld", j->in->name,
                j->in->rank, (long long)qx_view_k(&j->view));
    *s = source_shape(j->in);
    s->dims[axis] = blocks;
    return QX_OK;
}

static shape code_shape(const qx_job *j)
{
    const int64_t k = qx_view_k(&j->view), blocks = qx_job_blocks(j);
    if (j->layout == QX_LAYOUT_SAME) return source_shape(j->in);
    if (j->layout == QX_LAYOUT_NK) return (shape){2, {j->view.n, k}};
    return (shape){3, {j->view.n, blocks, j->spec.block * qx_dtype_bits(j->spec.codes) / 8}};
}

/* ---- parts ---- */

static qx_status add_part(qx_model *m, qx_job *j, qx_part part, qx_dtype dtype, const shape *s)
{
    qx_weight *w = qx_arena_alloc(m->arena, sizeof *w);
    if (!w) return QX_E_NOMEM;
    *w = (qx_weight){.name = j->in->name, .dtype = dtype, .rank = s->rank, .job = j, .part = part};
    w->dims = qx_arena_memdup(m->arena, s->dims, (size_t)s->rank * sizeof *s->dims);
    if (!w->dims) return QX_E_NOMEM;
    if (!qx_dims_product(w->dims, w->rank, &w->numel) || !qx_dtype_bytes(dtype, w->numel, &w->bytes))
        QX_FAIL(m->ctx, QX_E_SHAPE, "weight '%s': a part of the job is too large", j->in->name);
    j->part[part] = w;
    return QX_OK;
}

static qx_status add_parts(qx_model *m, qx_job *j)
{
    const qx_qspec *q = &j->spec;
    const bool nbits = j->layout == QX_LAYOUT_NBITS;
    shape s = code_shape(j);
    QX_TRY(add_part(m, j, QX_PART_CODES, nbits ? QX_DT_UINT8 : q->codes, &s));
    if (qx_job_is_float(j)) return QX_OK;
    QX_TRY(scale_shape(m->ctx, j, &s));
    QX_TRY(add_part(m, j, QX_PART_SCALE, q->scale, &s));
    if (nbits) s.dims[1] = (qx_job_blocks(j) * qx_dtype_bits(q->codes) + 7) / 8;
    if (q->zero_point) QX_TRY(add_part(m, j, QX_PART_ZERO, nbits ? QX_DT_UINT8 : q->codes, &s));
    s = (shape){0};
    return qx_spec_two_level(&j->spec) ? add_part(m, j, QX_PART_SCALE2, QX_DT_FLOAT, &s) : QX_OK;
}

qx_status qx_job_new(qx_model *m, const qx_weight *in, const qx_view *view, const qx_step *steps, const qx_qspec *spec, qx_layout layout,
                     qx_job **out)
{
    qx_job *j = qx_arena_alloc(m->arena, sizeof *j);
    if (!j) return QX_E_NOMEM;
    *j = (qx_job){.in = in, .view = *view, .steps = steps, .spec = *spec, .layout = layout};
    if (in->rank > 64) QX_FAIL(m->ctx, QX_E_SHAPE, "weight '%s' has %d dims", in->name, in->rank);
    if (in->dtype == QX_DT_STRING) QX_FAIL(m->ctx, QX_E_TYPE, "weight '%s' holds strings", in->name);
    j->range = qx_arena_alloc(m->arena, sizeof *j->range);
    j->error = qx_arena_alloc(m->arena, sizeof *j->error);
    if (!j->range || !j->error) return QX_E_NOMEM;
    QX_TRY(qx_view_check(m->ctx, in, view));
    QX_TRY(check_spec(m->ctx, j));
    QX_TRY(add_parts(m, j));
    *out = j;
    return QX_OK;
}
