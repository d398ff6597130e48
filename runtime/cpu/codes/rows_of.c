/* rows_of.c - the steps behind runtime/fuse/fuse_rows.c: rows of a table that lies in the file, and rows of one that lies in codes. */
#include <string.h>

#include "onnx/weight/weight.h"
#include "runtime/cpu/codes/rows_of.h"

/* Output [dims of the indices][dims of a row], and the indices, none negative. */
static qx_status make_output(qx_call *c, qx_dtype dtype, int rank, const int64_t *table, const int64_t **idx, int64_t *n, qx_tensor **y)
{
    const qx_tensor *ix;
    const int64_t *given;
    int64_t dims[2 * QX_MAX_RANK], *at;
    QX_TRY(qx_call_need(c, 0, &ix));
    QX_TRY(qx_call_in_i64(c, 0, &given, n));
    for (int i = 0; i < ix->rank; i++) dims[i] = ix->dims[i];
    if (ix->rank + rank - 1 > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_SHAPE, "the result has rank %d", ix->rank + rank - 1);
    for (int i = 1; i < rank; i++) dims[ix->rank + i - 1] = table[i];
    QX_TRY(QX_CALL_SCRATCH(c, *n, &at));
    for (int64_t i = 0; i < *n; i++) {
        at[i] = given[i] < 0 ? given[i] + table[0] : given[i];
        if (at[i] < 0 || at[i] >= table[0]) QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld of %lld", (long long)given[i], (long long)table[0]);
    }
    *idx = at;
    return qx_call_out(c, 0, dtype, ix->rank + rank - 1, dims, y);
}

qx_status qx_cpu_rows_of(qx_call *c)
{
    const qx_weight *w = ((const qx_rows_params *)c->fused)->table;
    const int64_t *idx, row = qx_prod(w->dims, 1, w->rank);
    int64_t n;
    qx_tensor *y = NULL;
    QX_TRY(make_output(c, w->dtype, w->rank, w->dims, &idx, &n, &y));
    for (int64_t i = 0; i < n; i++) QX_TRY(qx_weight_read_f32(c->ctx, w, idx[i] * row, row, (float *)y->data + i * row));
    return QX_OK;
}

/* Rows of `bytes` each, put behind each other in scratch. */
static qx_status pick(qx_call *c, const void *table, const int64_t *idx, int64_t n, int64_t bytes, char **out)
{
    QX_TRY(QX_CALL_SCRATCH(c, n * bytes, out));
    for (int64_t i = 0; i < n; i++) memcpy(*out + i * bytes, (const char *)table + idx[i] * bytes, (size_t)bytes);
    return QX_OK;
}

/* From the layout of the table to that of the picked rows: scales that a row has of its own are picked too. */
static qx_status pick_scales(qx_call *c, const qx_tensor *codes, const int64_t *idx, int64_t n, qx_qparams *p)
{
    qx_qlayout *l = &p->layout;
    const bool by_row = !l->scalar && l->axis == 0;
    if (!l->scalar) *(by_row ? &l->d : &l->outer) = by_row ? n : l->outer / codes->dims[0] * n;
    if (by_row) l->blocks = n;
    if (l->scalar || (!by_row && !l->blocked)) return QX_OK; /* every row has the same */
    const int64_t cells = by_row ? 1 : l->outer * l->blocks * l->inner / n;
    char *scale, *zero;
    QX_TRY(pick(c, p->scale, idx, n, cells * (int64_t)sizeof *p->scale, &scale));
    p->scale = (const float *)(const void *)scale;
    if (!p->zero) return QX_OK;
    QX_TRY(pick(c, p->zero, idx, n, cells * (int64_t)sizeof *p->zero, &zero));
    p->zero = (const int32_t *)(const void *)zero;
    return QX_OK;
}

qx_status qx_code_table_open(qx_call *c, const qx_rows_dq_params *f, uint32_t first, qx_code_table *out)
{
    const qx_tensor *scale, *zero = qx_call_in(c, first + 2);
    *out = (qx_code_table){.type = f->type};
    QX_TRY(qx_call_need(c, first, &out->codes));
    QX_TRY(qx_call_need(c, first + 1, &scale));
    QX_TRY(qx_qlayout_make(c, out->codes, scale, f->axis, f->block, &out->p.layout));
    if (zero && zero->numel != scale->numel)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld zero points, %lld scales", (long long)zero->numel, (long long)scale->numel);
    QX_TRY(qx_call_in_f32(c, first + 1, &out->p.scale));
    QX_TRY(qx_q_zeros(c, zero, &out->p.zero));
    out->p.codes = out->codes->dtype;
    out->row = out->codes->numel / out->codes->dims[0];
    return QX_OK;
}

qx_status qx_code_table_read(qx_call *c, const qx_code_table *t, const int64_t *idx, int64_t n, void *y)
{
    char *picked;
    qx_qparams p = t->p;
    QX_TRY(pick(c, t->codes->data, idx, n, t->row * qx_dtype_bits(p.codes) / 8, &picked));
    QX_TRY(pick_scales(c, t->codes, idx, n, &p));
    return qx_dq_tensor(c, &p, picked, n * t->row, t->type, y);
}

qx_status qx_cpu_rows_dq(qx_call *c)
{
    const qx_rows_dq_params *f = c->fused;
    const int64_t *idx;
    int64_t n;
    qx_tensor *y = NULL;
    qx_code_table t;
    QX_TRY(qx_code_table_open(c, f, QX_ROWS_DQ_CODES, &t));
    QX_TRY(make_output(c, f->type, t.codes->rank, t.codes->dims, &idx, &n, &y));
    return y->numel ? qx_code_table_read(c, &t, idx, n, y->data) : QX_OK;
}
