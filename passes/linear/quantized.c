/* quantized.c - see quantized.h. */
#include "passes/linear/quantized.h"

#include <string.h>

#include "onnx/ops.h"
#include "onnx/weight/weight.h"

/* Types that hold nothing but codes. UINT8 and BOOL may be masks, and a vector is no weight. */
static bool holds_codes(const qx_value *v)
{
    const qx_weight *w = v && !v->is_input ? qx_value_const(v) : NULL;
    return w && w->rank >= 2 && w->dtype != QX_DT_UINT8 && w->dtype != QX_DT_BOOL && qx_dtype_bits(w->dtype) <= 8;
}

static bool expands(const qx_node *n)
{
    return n->op->id == QX_OP_Cast && holds_codes(qx_node_in(n, 0)) && qx_node_out(n, 0) && qx_dtype_is_float(n->out[0]->type.dtype);
}

bool qx_quantized_node(const qx_node *n)
{
    if (n->op->id == QX_OP_UNKNOWN) return strstr(n->op_type, "uantize") != NULL;
    return n->op->traits & (QX_T_QDQ | QX_T_QUANTIZED) || expands(n);
}

static qx_status count_node(void *user, qx_node *n)
{
    qx_already *a = user;
    if (a->of_codes ? !(n->op->traits & QX_T_QUANTIZED) : !qx_quantized_node(n)) return QX_OK;
    if (!a->first) a->first = n;
    a->count++;
    return QX_OK;
}

qx_status qx_already_quantized(qx_model *m, qx_already *a) { return qx_model_each_node(m, count_node, a); }

bool qx_expands_codes(const qx_value *v)
{
    enum { LONGEST = 8 };
    for (int i = 0; i < LONGEST && v && v->def; i++) {
        const qx_node *n = v->def;
        if (expands(n) || (n->op->id == QX_OP_UNKNOWN && qx_quantized_node(n))) return true;
        switch (n->op->id) {
        case QX_OP_Mul: case QX_OP_Sub: case QX_OP_Add: case QX_OP_Div: v = n->in[n->in[0]->def ? 0 : 1]; break;
        case QX_OP_Cast: case QX_OP_Transpose: case QX_OP_Reshape: case QX_OP_Identity: case QX_OP_Squeeze: case QX_OP_Unsqueeze: v =
            n->in[0]; break;
        default: return false;
        }
    }
    return false;
}
