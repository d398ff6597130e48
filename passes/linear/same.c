/* same.c - see same.h. */
#include "passes/linear/same.h"

#include "onnx/weight/weight.h"

static qx_status add_bytes(qx_buf *key, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) QX_TRY(qx_buf_printf(key, "%02x", ((const uint8_t *)bytes)[i]));
    return QX_OK;
}

qx_status qx_same_tensor(qx_buf *key, const qx_weight *w, bool *known)
{
    uint8_t bytes[QX_SAME_CONSTANT];
    *known = w->bytes <= sizeof bytes && w->dtype != QX_DT_STRING;
    if (!*known) return QX_OK;
    QX_TRY(qx_weight_read(key->ctx, w, bytes));
    QX_TRY(qx_buf_printf(key, "t%d", (int)w->dtype));
    for (int i = 0; i < w->rank; i++) QX_TRY(qx_buf_printf(key, ",%lld", (long long)w->dims[i]));
    QX_TRY(qx_buf_printf(key, ":"));
    return add_bytes(key, bytes, w->bytes);
}

static qx_status add_attr(qx_buf *key, const qx_attr *a, bool *known)
{
    *known = !a->ref_name;
    QX_TRY(qx_buf_printf(key, "|%s=", a->name));
    switch (a->type) {
    case QX_ATTR_INT: return qx_buf_printf(key, "i%lld", (long long)a->i);
    case QX_ATTR_FLOAT: return add_bytes(key, &a->f, sizeof a->f);
    case QX_ATTR_STRING: return add_bytes(key, a->s, a->s_len);
    case QX_ATTR_INTS: return add_bytes(key, a->ints, (size_t)a->n * sizeof *a->ints);
    case QX_ATTR_TENSOR: return *known ? qx_same_tensor(key, a->tensor, known) : QX_OK;
    default: *known = false; return QX_OK;
    }
}

qx_status qx_same_node(qx_buf *key, const qx_node *n, bool *known)
{
    *known = true;
    QX_TRY(qx_buf_printf(key, "%s.%s", n->domain, n->op_type));
    for (uint32_t i = 0; i < n->n_in; i++) QX_TRY(qx_buf_printf(key, "/%lld", n->in[i] ? (long long)n->in[i]->id : -1LL));
    for (uint32_t i = 0; i < n->n_attrs && *known; i++) QX_TRY(add_attr(key, &n->attrs[i], known));
    return QX_OK;
}
