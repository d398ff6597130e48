/* reduce.c - Reduce*, ArgMax, ArgMin. The reduced axes are brought to one or several groups of neighbours: [outer, n, inner] is reduced
 * directly; anything else is transposed first. Integers and doubles go through their own exact loop. */
#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "kernels/rows.h"
#include "runtime/cpu/move/strided.h"

typedef struct reduce_row { qx_op_id op; qx_reduce fn; } reduce_row;
static const reduce_row rows[] = {
    {QX_OP_ReduceSum, QX_R_SUM}, {QX_OP_ReduceMean, QX_R_MEAN}, {QX_OP_ReduceMax, QX_R_MAX}, {QX_OP_ReduceMin, QX_R_MIN},
    {QX_OP_ReduceProd, QX_R_PROD}, {QX_OP_ReduceL1, QX_R_L1}, {QX_OP_ReduceL2, QX_R_L2}, {QX_OP_ReduceSumSquare, QX_R_SUMSQ},
    {QX_OP_ReduceLogSum, QX_R_LOGSUM}, {QX_OP_ReduceLogSumExp, QX_R_LOGSUMEXP},
};

enum { COL_BLOCK = 1024, SHORT = 16 /* rows of fewer are no vectors: turned, some of them are columns */, TURNED = 256 };

typedef struct job { qx_reduce op; const void *x; void *y; int64_t n, inner, outer, per, blocks; qx_dtype dtype; } job;

static void short_rows(const job *j, int64_t first, int64_t last)
{
    float turned[SHORT * TURNED];
    for (int64_t r = first, m; r < last; r += m) {
        m = last - r < TURNED ? last - r : TURNED;
        (void)qx_transpose(sizeof *turned, m, j->n, (const float *)j->x + r * j->n, j->n, turned, TURNED);
        qx_reduce_cols(j->op, turned, j->n, TURNED, (float *)j->y + r, m);
    }
}

static qx_status piece_rows(void *user, int64_t i)
{
    const job *j = user;
    int64_t last = (i + 1) * j->per < j->outer ? (i + 1) * j->per : j->outer;
    if (j->n > 0 && j->n < SHORT && last - i * j->per >= SHORT && j->op != QX_R_LOGSUMEXP) {
        short_rows(j, i * j->per, last);
        return QX_OK;
    }
    for (int64_t r = i * j->per; r < last; r++) ((float *)j->y)[r] = qx_reduce_row(j->op, (const float *)j->x + r * j->n, j->n);
    return QX_OK;
}

static qx_status piece_cols(void *user, int64_t i)
{
    const job *j = user;
    int64_t o = i / j->blocks, c = i % j->blocks * COL_BLOCK, m = j->inner - c < COL_BLOCK ? j->inner - c : COL_BLOCK;
    qx_reduce_cols(j->op, (const float *)j->x + o * j->n * j->inner + c, j->n, j->inner, (float *)j->y + o * j->inner + c, m);
    return QX_OK;
}

/* Exact for the type: one accumulator of it an output element. */
#define EXACT(T, A, ABS, MAXV, MINV, FINISH)                                                     \
    for (int64_t k = 0; k < j->outer * j->inner; k++) {                                          \
        const T *p = (const T *)j->x + k / j->inner * j->n * j->inner + k % j->inner;            \
        A acc = j->op == QX_R_PROD ? 1 : j->op == QX_R_MAX ? (A)(MINV) : j->op == QX_R_MIN ? (A)(MAXV) : 0; \
        for (int64_t i = 0; i < j->n; i++) {                                                     \
            A v = p[i * j->inner];                                                               \
            switch (j->op) {                                                                     \
            case QX_R_MAX: acc = v > acc || v != v ? v : acc; break;                             \
            case QX_R_MIN: acc = v < acc || v != v ? v : acc; break;                             \
            case QX_R_PROD: acc = acc * v; break;                                                \
            case QX_R_L1: acc += ABS(v); break;                                                  \
            case QX_R_L2: case QX_R_SUMSQ: acc += v * v; break;                                  \
            case QX_R_LOGSUMEXP: acc += (A)exp((double)v); break;                                \
            default: acc += v; break;                                                            \
            }                                                                                    \
        }                                                                                        \
        ((T *)j->y)[k] = (T)(FINISH);                                                            \
    }
#define IABS(v) ((v) < 0 ? -(v) : (v))

static double finish_f64(const job *j, double v)
{
    switch (j->op) {
    case QX_R_MEAN: return v / (double)j->n;
    case QX_R_L2: return sqrt(v);
    case QX_R_LOGSUM: case QX_R_LOGSUMEXP: return log(v);
    default: return v;
    }
}

static int64_t finish_i64(const job *j, int64_t v)
{
    if (j->op == QX_R_MEAN) return j->n ? v / j->n : 0;
    return j->op == QX_R_SUM || j->op == QX_R_MAX || j->op == QX_R_MIN || j->op == QX_R_PROD || j->op == QX_R_L1 ||
        j->op == QX_R_SUMSQ ? v : (int64_t)finish_f64(j, (double)v);
}

static qx_status reduce_exact(qx_call *c, const job *j)
{
    switch (j->dtype) {
    case QX_DT_DOUBLE: EXACT(double, double, fabs, INFINITY, -INFINITY, finish_f64(j, acc)) return QX_OK;
    case QX_DT_INT64: EXACT(int64_t, int64_t, IABS, INT64_MAX, INT64_MIN, finish_i64(j, acc)) return QX_OK;
    case QX_DT_INT32: EXACT(int32_t, int64_t, IABS, INT32_MAX, INT32_MIN, finish_i64(j, acc)) return QX_OK;
    case QX_DT_INT8: EXACT(int8_t, int64_t, IABS, INT8_MAX, INT8_MIN, finish_i64(j, acc)) return QX_OK;
    case QX_DT_UINT8: EXACT(uint8_t, int64_t, IABS, UINT8_MAX, 0, finish_i64(j, acc)) return QX_OK;
    case QX_DT_BOOL: EXACT(uint8_t, int64_t, IABS, 1, 0, acc != 0) return QX_OK;
    case QX_DT_UINT32: EXACT(uint32_t, int64_t, IABS, UINT32_MAX, 0, finish_i64(j, acc)) return QX_OK;
    case QX_DT_UINT64: EXACT(uint64_t, int64_t, IABS, INT64_MAX, 0, finish_i64(j, acc)) return QX_OK;
    case QX_DT_INT16: EXACT(int16_t, int64_t, IABS, INT16_MAX, INT16_MIN, finish_i64(j, acc)) return QX_OK;
    case QX_DT_UINT16: EXACT(uint16_t, int64_t, IABS, UINT16_MAX, 0, finish_i64(j, acc)) return QX_OK;
    default: QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(j->dtype)->text);
    }
}

static qx_status reduced_axes(qx_call *c, const qx_tensor *x, bool *out, bool *none)
{
    const int64_t *axes;
    int64_t n;
    QX_TRY(qx_call_list(c, "axes", 1, &axes, &n));
    *none = n == 0 && qx_call_int(c, "noop_with_empty_axes", 0) != 0;
    for (int i = 0; i < x->rank; i++) out[i] = n == 0;
    for (int64_t i = 0; i < n; i++) {
        int a;
        QX_TRY(qx_call_axis(c, axes[i], x->rank, &a));
        out[a] = true;
    }
    return QX_OK;
}

/* Reduced axes as one group of neighbours [from, to); false when they are not. Axes of 1 element fit anywhere. */
static bool one_group(const qx_tensor *x, const bool *red, int *from, int *to)
{
    *from = *to = x->rank;
    bool open = false, closed = false;
    for (int i = 0; i < x->rank; i++) {
        if (x->dims[i] == 1) continue;
        if (red[i]) {
            if (closed) return false;
            if (!open) *from = i;
            *to = i + 1;
            open = true;
        } else if (open) {
            closed = true;
        }
    }
    return true;
}

/* Data with the reduced axes last: a copy in scratch. */
static qx_status bring_last(qx_call *c, const qx_tensor *x, const void *data, int size, const bool *red, void **out)
{
    qx_strided s = {0};
    int64_t strides[QX_MAX_RANK];
    qx_strides(x->dims, x->rank, strides);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->rank; i++) {
            if (red[i] != (pass == 1)) continue;
            s.dims[s.rank] = x->dims[i];
            s.stride[s.rank++] = strides[i];
        }
    QX_TRY(qx_call_scratch_array(c, x->numel, (size_t)size, out));
    return qx_strided_copy(c->ctx, &s, data, *out, size);
}

static qx_status run(qx_call *c, job *j, const qx_tensor *x, const bool *red, int64_t count)
{
    int from, to;
    if (one_group(x, red, &from, &to)) {
        j->outer = qx_prod(x->dims, 0, from);
        j->n = qx_prod(x->dims, from, to);
        j->inner = qx_prod(x->dims, to, x->rank);
    } else {
        void *moved = NULL;
        QX_TRY(bring_last(c, x, j->x, j->dtype == QX_DT_FLOAT ? 4 : qx_dtype_bits(j->dtype) / 8, red, &moved));
        j->x = moved;
        j->n = count;
        j->outer = count ? x->numel / count : 0;
        j->inner = 1;
    }
    if (j->dtype != QX_DT_FLOAT) return reduce_exact(c, j);
    if (j->inner == 1) {
        j->per = (1 << 14) / (j->n + 1) + 1;
        return qx_parallel(c->ctx, (j->outer + j->per - 1) / j->per, piece_rows, j);
    }
    j->blocks = (j->inner + COL_BLOCK - 1) / COL_BLOCK;
    return qx_parallel(c->ctx, j->outer * j->blocks, piece_cols, j);
}

qx_status qx_cpu_reduce(qx_call *c)
{
    const qx_tensor *x;
    bool red[QX_MAX_RANK], none, narrow;
    int64_t dims[QX_MAX_RANK], count = 1;
    int rank = 0;
    const reduce_row *row = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].op == c->node->op->id) row = &rows[i];
    if (!row) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "not in the table of reductions");
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(reduced_axes(c, x, red, &none));
    if (none) for (int i = 0; i < x->rank; i++) red[i] = false;
    bool keep = qx_call_int(c, "keepdims", 1) != 0;
    for (int i = 0; i < x->rank; i++) {
        if (red[i]) count *= x->dims[i];
        if (!red[i] || keep) dims[rank++] = red[i] ? 1 : x->dims[i];
    }
    narrow = x->dtype == QX_DT_FLOAT16 || x->dtype == QX_DT_BFLOAT16 || x->dtype == QX_DT_FLOAT;
    job j = {.op = row->fn, .dtype = narrow ? QX_DT_FLOAT : x->dtype};
    if (narrow) {
        const float *v;
        float *y = NULL;
        QX_TRY(qx_call_in_f32(c, 0, &v));
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, rank, dims, &y));
        j.x = v;
        j.y = y;
    } else {
        qx_tensor *y = NULL;
        QX_TRY(qx_call_out(c, 0, x->dtype, rank, dims, &y));
        j.x = x->data;
        j.y = y->data;
    }
    int64_t outs;
    if (!qx_dims_product(dims, rank, &outs) || outs == 0) return QX_OK;
    if (x->numel == 0) { /* nothing to read: every output is the neutral element */
        j.outer = outs;
        j.n = 0;
        j.inner = j.per = 1;
        return j.dtype == QX_DT_FLOAT ? qx_parallel(c->ctx, outs, piece_rows, &j) : reduce_exact(c, &j);
    }
    return run(c, &j, x, red, count);
}

/* ---- ArgMax, ArgMin ---- */

#define ARG(T)                                                                     \
    for (int64_t k = 0; k < outer * inner; k++) {                                  \
        const T *p = (const T *)data + k / inner * n * inner + k % inner;          \
        int64_t best = 0;                                                          \
        for (int64_t i = 1; i < n; i++) {                                          \
            T v = p[i * inner], b = p[best * inner];                               \
            if ((max ? v > b : v < b) || (last && v == b)) best = i;               \
        }                                                                          \
        out[k] = best;                                                             \
    }

qx_status qx_cpu_arg(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y = NULL;
    int axis, rank = 0;
    int64_t dims[QX_MAX_RANK];
    bool max = c->node->op->id == QX_OP_ArgMax, last = qx_call_int(c, "select_last_index", 0) != 0,
        keep = qx_call_int(c, "keepdims", 1) != 0;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    if (x->rank == 0 || (x->dims[axis] == 0 && x->numel == 0)) QX_CALL_FAIL(c, QX_E_SHAPE, "axis %d has no elements", axis);
    for (int i = 0; i < x->rank; i++)
        if (i != axis || keep) dims[rank++] = i == axis ? 1 : x->dims[i];
    QX_TRY(qx_call_out(c, 0, QX_DT_INT64, rank, dims, &y));
    int64_t *out = y->data, n = x->dims[axis], outer = qx_prod(x->dims, 0, axis), inner = qx_prod(x->dims, axis + 1, x->rank);
    const void *data = x->data;
    const float *f;
    switch (x->dtype) {
    case QX_DT_INT64: ARG(int64_t) return QX_OK;
    case QX_DT_INT32: ARG(int32_t) return QX_OK;
    case QX_DT_UINT32: ARG(uint32_t) return QX_OK;
    case QX_DT_UINT64: ARG(uint64_t) return QX_OK;
    case QX_DT_DOUBLE: ARG(double) return QX_OK;
    default: break;
    }
    QX_TRY(qx_call_to_f32(c, x, &f));
    data = f;
    ARG(float)
    return QX_OK;
}
