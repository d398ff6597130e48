/* reshape.c - operators that only rename dims (no copy), read shapes, or make a tensor from nothing. */
#include <math.h>
#include <string.h>

#include "onnx/weight/weight.h"
#include "runtime/cpu/op.h"

qx_status qx_cpu_identity(qx_call *c)
{
    const qx_tensor *x;
    QX_TRY(qx_call_need(c, 0, &x));
    return qx_call_out_view(c, 0, 0, x->rank, x->dims);
}

qx_status qx_cpu_shape(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    int64_t start = qx_call_int(c, "start", 0), end = qx_call_int(c, "end", x->rank);
    start = start < 0 ? start + x->rank : start;
    end = end < 0 ? end + x->rank : end;
    start = start < 0 ? 0 : start > x->rank ? x->rank : start;
    end = end < start ? start : end > x->rank ? x->rank : end;
    int64_t n = end - start;
    QX_TRY(qx_call_out(c, 0, QX_DT_INT64, 1, &n, &y));
    for (int64_t i = 0; i < n; i++) ((int64_t *)y->data)[i] = x->dims[start + i];
    return QX_OK;
}

qx_status qx_cpu_size(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_out(c, 0, QX_DT_INT64, 0, NULL, &y));
    *(int64_t *)y->data = x->numel;
    return QX_OK;
}

qx_status qx_cpu_reshape(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *want;
    int64_t n, dims[QX_MAX_RANK], known = 1;
    int hole = -1;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_list(c, "shape", 1, &want, &n));
    if (n > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "reshape to rank %lld: at most %d is run", (long long)n, QX_MAX_RANK);
    bool zero_is_zero = qx_call_int(c, "allowzero", 0) != 0;
    for (int i = 0; i < n; i++) {
        dims[i] = want[i];
        if (want[i] == 0 && !zero_is_zero) {
            if (i >= x->rank) QX_CALL_FAIL(c, QX_E_SHAPE, "shape entry %d is 0 (copy) but the input has rank %d", i, x->rank);
            dims[i] = x->dims[i];
        }
        if (want[i] < -1 || (want[i] == -1 && hole >= 0)) QX_CALL_FAIL(c, QX_E_SHAPE, "shape entry %d is %lld", i, (long long)want[i]);
        if (want[i] == -1) hole = i;
        else if (!qx_mul_i64(known, dims[i], &known)) QX_CALL_FAIL(c, QX_E_SHAPE, "target shape overflows");
    }
    if (hole >= 0) {
        if (known == 0 ? x->numel != 0 : x->numel % known != 0)
            QX_CALL_FAIL(c, QX_E_SHAPE, "%lld elements do not divide by %lld", (long long)x->numel, (long long)known);
        dims[hole] = known ? x->numel / known : 0;
    }
    return qx_call_out_view(c, 0, 0, (int)n, dims);
}

qx_status qx_cpu_flatten(qx_call *c)
{
    const qx_tensor *x;
    int axis;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 1), x->rank + 1, &axis));
    if (qx_call_int(c, "axis", 1) < 0) axis--; /* negative axes count from the rank, not from rank + 1 */
    int64_t dims[2] = {qx_prod(x->dims, 0, axis), qx_prod(x->dims, axis, x->rank)};
    return qx_call_out_view(c, 0, 0, 2, dims);
}

qx_status qx_cpu_squeeze(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *axes;
    int64_t n, dims[QX_MAX_RANK];
    bool gone[QX_MAX_RANK] = {false};
    int rank = 0;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_list(c, "axes", 1, &axes, &n));
    for (int i = 0; !axes && i < x->rank; i++) gone[i] = x->dims[i] == 1;
    for (int64_t i = 0; i < n; i++) {
        int a;
        QX_TRY(qx_call_axis(c, axes[i], x->rank, &a));
        if (a >= x->rank || x->dims[a] != 1) QX_CALL_FAIL(c, QX_E_SHAPE, "axis %lld cannot be squeezed: it is not 1", (long long)axes[i]);
        gone[a] = true;
    }
    for (int i = 0; i < x->rank; i++)
        if (!gone[i]) dims[rank++] = x->dims[i];
    return qx_call_out_view(c, 0, 0, rank, dims);
}

qx_status qx_cpu_unsqueeze(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *axes;
    int64_t n, dims[QX_MAX_RANK];
    bool fresh[QX_MAX_RANK] = {false};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_list(c, "axes", 1, &axes, &n));
    if (x->rank + n > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "rank %lld: at most %d is run", (long long)(x->rank + n), QX_MAX_RANK);
    int rank = x->rank + (int)n, from = 0;
    for (int64_t i = 0; i < n; i++) {
        int a;
        QX_TRY(qx_call_axis(c, axes[i], rank, &a));
        if (fresh[a]) QX_CALL_FAIL(c, QX_E_SHAPE, "axis %lld is given twice", (long long)axes[i]);
        fresh[a] = true;
    }
    for (int i = 0; i < rank; i++) dims[i] = fresh[i] ? 1 : x->dims[from++];
    return qx_call_out_view(c, 0, 0, rank, dims);
}

/* ---- Constants ---- */

static qx_status from_weight(qx_call *c, const qx_weight *w)
{
    qx_tensor *y = NULL;
    QX_TRY(qx_call_out(c, 0, w->dtype, w->rank, w->dims, &y));
    if (w->dtype != QX_DT_STRING) return qx_weight_read(c->ctx, w, y->data);
    for (int64_t i = 0; i < w->numel && w->src.strings; i++) {
        QX_TRY(qx_alloc(c->ctx, w->src.string_lens[i] + 1, (void **)&((char **)y->data)[i]));
        memcpy(((char **)y->data)[i], w->src.strings[i], w->src.string_lens[i]);
    }
    return QX_OK;
}

static qx_status const_strings(qx_call *c, const char *const *s, const size_t *len, int rank, int64_t n)
{
    qx_tensor *y = NULL;
    QX_TRY(qx_call_out(c, 0, QX_DT_STRING, rank, &n, &y));
    for (int64_t i = 0; i < n; i++) {
        QX_TRY(qx_alloc(c->ctx, len[i] + 1, (void **)&((char **)y->data)[i]));
        memcpy(((char **)y->data)[i], s[i], len[i]);
    }
    return QX_OK;
}

qx_status qx_cpu_constant(qx_call *c)
{
    const qx_attr *a;
    qx_tensor *y = NULL;
    if ((a = qx_call_attr(c, "value")) && a->tensor) return from_weight(c, a->tensor);
    if ((a = qx_call_attr(c, "value_float"))) {
        QX_TRY(qx_call_out(c, 0, QX_DT_FLOAT, 0, NULL, &y));
        *(float *)y->data = a->f;
        return QX_OK;
    }
    if ((a = qx_call_attr(c, "value_int"))) {
        QX_TRY(qx_call_out(c, 0, QX_DT_INT64, 0, NULL, &y));
        *(int64_t *)y->data = a->i;
        return QX_OK;
    }
    if ((a = qx_call_attr(c, "value_floats"))) {
        QX_TRY(qx_call_out(c, 0, QX_DT_FLOAT, 1, &a->n, &y));
        if (a->n) memcpy(y->data, a->floats, y->bytes);
        return QX_OK;
    }
    if ((a = qx_call_attr(c, "value_ints"))) {
        QX_TRY(qx_call_out(c, 0, QX_DT_INT64, 1, &a->n, &y));
        if (a->n) memcpy(y->data, a->ints, y->bytes);
        return QX_OK;
    }
    if ((a = qx_call_attr(c, "value_string"))) return const_strings(c, (const char *const[]){a->s}, &a->s_len, 0, 1);
    if ((a = qx_call_attr(c, "value_strings"))) return const_strings(c, a->strings, a->string_lens, 1, a->n);
    if ((a = qx_call_attr(c, "sparse_value")) && a->sparse) {
        QX_TRY(qx_call_out(c, 0, a->sparse->values->dtype, a->sparse->rank, a->sparse->dims, &y));
        return qx_sparse_read(c->ctx, a->sparse, y->data);
    }
    QX_CALL_FAIL(c, QX_E_FORMAT, "Constant without a value");
}

static void fill(void *dst, const void *one, int64_t n, size_t size)
{
    char *d = dst;
    if (n <= 0) return;
    memcpy(d, one, size);
    size_t done = size, total = (size_t)n * size;
    while (done < total) {
        size_t m = done < total - done ? done : total - done;
        memcpy(d + done, d, m);
        done += m;
    }
}

qx_status qx_cpu_constant_of_shape(qx_call *c)
{
    const int64_t *dims;
    int64_t n;
    const qx_attr *a = qx_call_attr(c, "value");
    qx_dtype dt = a && a->tensor ? a->tensor->dtype : QX_DT_FLOAT;
    qx_tensor *y = NULL;
    uint64_t one[2] = {0, 0};
    QX_TRY(qx_call_in_i64(c, 0, &dims, &n));
    if (n > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "rank %lld: at most %d is run", (long long)n, QX_MAX_RANK);
    if (a && a->tensor) {
        if (a->tensor->numel != 1 || a->tensor->bytes > sizeof one || qx_dtype_bits(dt) < 8)
            QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "fill value of %lld elements of %s", (long long)a->tensor->numel, qx_dtype_get(dt)->text);
        QX_TRY(qx_weight_read(c->ctx, a->tensor, one));
    }
    QX_TRY(qx_call_out(c, 0, dt, (int)n, dims, &y));
    fill(y->data, one, y->numel, (size_t)qx_dtype_bits(dt) / 8);
    return QX_OK;
}

/* ---- Range ---- */

#define RANGE(T)                                                             \
    for (int64_t i = 0; i < n; i++) ((T *)y->data)[i] = (T)(*(const T *)s->data + (T)((T)i * *(const T *)d->data))

static double as_double(const qx_tensor *t)
{
    float f = 0;
    switch (t->dtype) {
    case QX_DT_DOUBLE: return *(const double *)t->data;
    case QX_DT_INT64: return (double)*(const int64_t *)t->data;
    case QX_DT_INT32: return *(const int32_t *)t->data;
    case QX_DT_INT16: return *(const int16_t *)t->data;
    default: qx_to_f32(t->dtype, t->data, 1, &f); return f;
    }
}

qx_status qx_cpu_range(qx_call *c)
{
    const qx_tensor *s, *l, *d;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &s));
    QX_TRY(qx_call_need(c, 1, &l));
    QX_TRY(qx_call_need(c, 2, &d));
    if (s->numel != 1 || l->numel != 1 || d->numel != 1 || s->dtype != l->dtype || s->dtype != d->dtype)
        QX_CALL_FAIL(c, QX_E_SHAPE, "start, limit and delta must be scalars of one type");
    double step = as_double(d), count = step != 0 ? ceil((as_double(l) - as_double(s)) / step) : NAN;
    if (!(count < 1e15)) QX_CALL_FAIL(c, QX_E_SHAPE, "range has %g elements (delta %g)", count, step);
    int64_t n = count > 0 ? (int64_t)count : 0;
    QX_TRY(qx_call_out(c, 0, s->dtype, 1, &n, &y));
    switch (s->dtype) {
    case QX_DT_FLOAT: RANGE(float); return QX_OK;
    case QX_DT_DOUBLE: RANGE(double); return QX_OK;
    case QX_DT_INT64: RANGE(int64_t); return QX_OK;
    case QX_DT_INT32: RANGE(int32_t); return QX_OK;
    case QX_DT_INT16: RANGE(int16_t); return QX_OK;
    default: break;
    }
    if (s->dtype != QX_DT_FLOAT16 && s->dtype != QX_DT_BFLOAT16)
        QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(s->dtype)->text);
    for (int64_t i = 0; i < n; i++) {
        float v = (float)(as_double(s) + (double)i * step);
        qx_from_f32(s->dtype, &v, 1, (uint16_t *)y->data + i);
    }
    return QX_OK;
}
