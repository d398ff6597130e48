/* noops.c - see noops.h. Exporters leave them between a convolution and its activation, a product and its bias, a residual and its
 * sum. Runtimes drop them when they load a file and fuse what is left, so pairs are placed as if they were not there. */
#include "passes/linear/noops.h"

#include "onnx/edit.h"

static bool same_type(const qx_node *n)
{
    const qx_type *t = &n->in[0]->type;
    return t->kind == QX_KIND_TENSOR && t->dtype == (qx_dtype)qx_attr_int(n, "to", QX_DT_UNDEFINED);
}

/* Trained Dropouts say so by a third input, before opset 7 by an attribute. */
static bool drops_nothing(const qx_node *n)
{
    const bool mask = n->n_out > 1 && n->out[1] && (n->out[1]->uses || n->out[1]->is_output);
    return !mask && n->op->since >= 7 && (n->n_in < 3 || !n->in[2]);
}

static bool does_nothing(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Identity: return true;
    case QX_OP_Cast: return same_type(n);
    case QX_OP_Dropout: return drops_nothing(n);
    case QX_OP_Sum: case QX_OP_Max: case QX_OP_Min: case QX_OP_Mean: case QX_OP_Concat: return n->n_in == 1;
    default: return false;
    }
}

static qx_status drop(void *user, qx_node *n)
{
    (void)user;
    if (n->n_in < 1 || !n->in[0] || !n->n_out || !n->out[0] || n->out[0]->is_output || !does_nothing(n)) return QX_OK;
    QX_TRY(qx_value_replace_uses(n->out[0], n->in[0], NULL));
    return qx_node_erase(n);
}

qx_status qx_noops_drop(qx_model *m) { return qx_model_each_node(m, drop, NULL); }
