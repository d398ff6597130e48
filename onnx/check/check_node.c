/* check_node.c - one node: is its operator known where it must be, has it the inputs and outputs that the operator asks for; and
 * sparse tensors, whose indices are data that must be looked at before anybody uses them. */
#include <string.h>

#include "base/checked.h"
#include "base/text.h"
#include "onnx/check/check.h"

static qx_status check_operator(qx_checker *c, const qx_node *n)
{
    int64_t opset = qx_graph_opset(n->graph, n->domain);
    if (n->callee) return QX_OK;
    if (opset == 0)
        QX_REFUSE(c, "%s is of domain '%s', which %s does not import", QX_LABEL(n), QX_SHOWN(n->domain[0] ? n->domain : "ai.onnx"),
                  "the model");
    if (n->op->id == QX_OP_UNKNOWN && qx_op_domain_is_known(n->domain))
        QX_FAIL(c->ctx, QX_E_UNSUPPORTED, "%s: there is no operator of this name at opset %lld", QX_LABEL(n), (long long)opset);
    return QX_OK;
}

/* Only the number counts: Scan-8 and com.microsoft's attention have optional inputs in front of ones that are not. */
static qx_status check_number(qx_checker *c, const qx_node *n)
{
    if ((int64_t)n->n_in >= n->op->min_in) return QX_OK;
    QX_REFUSE(c, "%s has %u inputs; version %d takes at least %d", QX_LABEL(n), n->n_in, n->op->since, n->op->min_in);
}

static qx_status check_counts(qx_checker *c, const qx_node *n)
{
    const qx_op *op = n->op;
    if (n->n_in == 0 && n->n_out == 0) QX_REFUSE(c, "%s has neither inputs nor outputs", QX_LABEL(n));
    if (n->callee) {
        const qx_graph *body = n->callee->body;
        if (n->n_in > body->n_inputs || n->n_out > body->n_outputs)
            QX_REFUSE(c, "%s has %u inputs and %u outputs; the function has %u and %u", QX_LABEL(n), n->n_in, n->n_out, body->n_inputs,
                      body->n_outputs);
        return QX_OK;
    }
    if (op->id == QX_OP_UNKNOWN) return QX_OK;
    if ((int64_t)n->n_in > op->max_in)
        QX_REFUSE(c, "%s has %u inputs; version %d takes at most %d", QX_LABEL(n), n->n_in, op->since, op->max_in);
    if ((int64_t)n->n_out > op->max_out)
        QX_REFUSE(c, "%s has %u outputs; version %d makes at most %d", QX_LABEL(n), n->n_out, op->since, op->max_out);
    if ((int64_t)n->n_out < op->min_out)
        QX_REFUSE(c, "%s has %u outputs; version %d makes at least %d", QX_LABEL(n), n->n_out, op->since, op->min_out);
    if (op->max_in == INT32_MAX || op->domain[0]) return check_number(c, n);
    for (int i = 0; i < op->min_in; i++) {
        if (!qx_node_in(n, (uint32_t)i)) QX_REFUSE(c, "%s has no input %d, which version %d requires", QX_LABEL(n), i, op->since);
    }
    return QX_OK;
}

qx_status qx_check_node(void *user, qx_node *n)
{
    qx_checker *c = user;
    QX_TRY(check_operator(c, n));
    QX_TRY(check_counts(c, n));
    QX_TRY(qx_check_attrs(c, n));
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].sparse) QX_TRY(qx_check_sparse(c, n->attrs[i].name, n->attrs[i].sparse));
    }
    return n->op->traits & QX_T_QDQ ? qx_check_quant(c, n) : QX_OK;
}

/* ---- sparse tensors ----------------------------------------------------------------------------------------------------- */

/* Indices as one row per value: a place in each dim, or one place in the flattened tensor. */
static qx_status check_places(qx_checker *c, const char *name, const qx_sparse *s, const int64_t *at, int64_t nnz, int64_t width)
{
    int64_t total, last = -1;
    if (!qx_dims_product(s->dims, s->rank, &total)) QX_REFUSE(c, "sparse tensor '%s': its dims overflow", QX_SHOWN(name));
    for (int64_t i = 0; i < nnz; i++) {
        int64_t flat = 0;
        for (int64_t k = 0; k < width; k++) {
            int64_t limit = width == 1 ? total : s->dims[k], v = at[i * width + k];
            if (width == 1 && s->rank == 1) limit = s->dims[0];
            if (v < 0 || v >= limit)
                QX_REFUSE(c, "sparse tensor '%s': index %lld of value %lld is outside of 0..%lld", QX_SHOWN(name), (long long)v,
                          (long long)i, (long long)limit - 1);
            flat = flat * (width == 1 ? 1 : s->dims[k]) + v;
        }
        if (flat <= last)
            QX_REFUSE(c, "sparse tensor '%s': value %lld lies at %lld, the one before it at %lld: indices must rise", QX_SHOWN(name),
                      (long long)i, (long long)flat, (long long)last);
        last = flat;
    }
    return QX_OK;
}

qx_status qx_check_sparse(qx_checker *c, const char *name, const qx_sparse *s)
{
    const qx_weight *v = s->values, *at = s->indices;
    if (s->rank < 1) QX_REFUSE(c, "sparse tensor '%s' has no dims", QX_SHOWN(name));
    for (int i = 0; i < s->rank; i++) {
        if (s->dims[i] <= 0) QX_REFUSE(c, "sparse tensor '%s': dim %d is %lld", QX_SHOWN(name), i, (long long)s->dims[i]);
    }
    if (v->rank != 1) QX_REFUSE(c, "sparse tensor '%s': its values have rank %d instead of 1", QX_SHOWN(name), v->rank);
    if (at->dtype != QX_DT_INT64)
        QX_REFUSE(c, "sparse tensor '%s': its indices are %s instead of i64", QX_SHOWN(name), qx_dtype_get(at->dtype)->text);
    int64_t nnz = v->numel, width = at->rank == 2 ? at->dims[1] : 1;
    if ((at->rank != 1 && at->rank != 2) || at->dims[0] != nnz || (at->rank == 2 && width != s->rank))
        QX_REFUSE(c, "sparse tensor '%s' of rank %d has %lld values and %lld indices of width %lld", QX_SHOWN(name), s->rank,
                  (long long)nnz, (long long)(at->rank ? at->dims[0] : 1), (long long)width);
    void *places;
    QX_TRY(qx_alloc_raw(c->ctx, at->bytes, &places));
    qx_status st = qx_weight_read(c->ctx, at, places);
    if (st == QX_OK) st = check_places(c, name, s, places, nnz, width);
    qx_free(c->ctx, places);
    return st;
}
