/* tensor.c - making, copying and freeing runtime tensors. Sizes are checked: dims come from models and feeds. */
#include "runtime/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "runtime/cpu/op.h"

qx_status qx_tensor_shape(qx_ctx *ctx, qx_tensor *t, qx_dtype dtype, int rank, const int64_t *dims)
{
    memset(t, 0, sizeof *t);
    if (rank < 0 || rank > QX_MAX_RANK) QX_FAIL(ctx, QX_E_UNSUPPORTED, "tensor of rank %d: at most %d is run", rank, QX_MAX_RANK);
    t->dtype = dtype;
    t->rank = rank;
    for (int i = 0; i < rank; i++) t->dims[i] = dims[i];
    if (!qx_dims_product(dims, rank, &t->numel)) {
        char text[256];
        QX_FAIL(ctx, QX_E_SHAPE, "%s: a dim is negative, or their product overflows", qx_tensor_describe(t, text, sizeof text));
    }
    if (dtype == QX_DT_STRING) {
        if (!qx_mul_size((size_t)t->numel, sizeof(char *), &t->bytes)) QX_FAIL(ctx, QX_E_SHAPE, "string tensor too large");
        return QX_OK;
    }
    if (!qx_dtype_bytes(dtype, t->numel, &t->bytes))
        QX_FAIL(ctx, QX_E_SHAPE, "%lld elements of %s: size overflows", (long long)t->numel, qx_dtype_get(dtype)->text);
    return QX_OK;
}

qx_status qx_tensor_new(qx_ctx *ctx, qx_tensor *t, qx_dtype dtype, int rank, const int64_t *dims)
{
    QX_TRY(qx_tensor_shape(ctx, t, dtype, rank, dims));
    return qx_alloc(ctx, t->bytes, &t->data);
}

static void free_strings(qx_ctx *ctx, qx_tensor *t)
{
    char **s = t->data;
    for (int64_t i = 0; s && i < t->numel; i++) qx_free(ctx, s[i]);
}

void qx_tensor_free(qx_ctx *ctx, qx_tensor *t)
{
    for (int64_t i = 0; i < t->n_items; i++) qx_tensor_free(ctx, &t->items[i]);
    qx_free(ctx, t->items);
    if (t->dtype == QX_DT_STRING && !t->is_sequence && !t->is_optional) free_strings(ctx, t);
    qx_free(ctx, t->data);
    memset(t, 0, sizeof *t);
}

static qx_status copy_strings(qx_ctx *ctx, const qx_tensor *from, qx_tensor *to)
{
    char *const *src = from->data;
    char **dst = to->data;
    for (int64_t i = 0; i < from->numel; i++) {
        size_t n = src[i] ? strlen(src[i]) : 0;
        QX_TRY(qx_alloc(ctx, n + 1, (void **)&dst[i]));
        if (n) memcpy(dst[i], src[i], n);
    }
    return QX_OK;
}

static qx_status copy_items(qx_ctx *ctx, const qx_tensor *from, qx_tensor *to)
{
    to->dtype = from->dtype;
    to->is_sequence = from->is_sequence;
    to->is_optional = from->is_optional;
    QX_TRY(qx_alloc_array(ctx, (size_t)from->n_items, sizeof *to->items, (void **)&to->items));
    for (int64_t i = 0; i < from->n_items; i++) {
        to->n_items = i + 1;
        QX_TRY(qx_tensor_copy(ctx, &from->items[i], &to->items[i]));
    }
    return QX_OK;
}

qx_status qx_tensor_copy(qx_ctx *ctx, const qx_tensor *from, qx_tensor *to)
{
    qx_status st;
    memset(to, 0, sizeof *to);
    if (from->is_sequence || from->is_optional) {
        st = copy_items(ctx, from, to);
    } else {
        st = qx_tensor_new(ctx, to, from->dtype, from->rank, from->dims);
        if (st == QX_OK && from->dtype == QX_DT_STRING) st = copy_strings(ctx, from, to);
        else if (st == QX_OK && from->bytes) memcpy(to->data, from->data, from->bytes);
    }
    if (st != QX_OK) qx_tensor_free(ctx, to);
    return st;
}

const char *qx_tensor_describe(const qx_tensor *t, char *buf, size_t cap)
{
    int n = snprintf(buf, cap, "%s%s[", t->is_sequence ? "seq of " : t->is_optional ? "optional " : "", qx_dtype_get(t->dtype)->text);
    for (int i = 0; i < t->rank && n > 0 && (size_t)n < cap; i++)
        n += snprintf(buf + n, cap - (size_t)n, i ? ",%lld" : "%lld", (long long)t->dims[i]);
    if (n > 0 && (size_t)n < cap) snprintf(buf + n, cap - (size_t)n, "]");
    return buf;
}
