/* bias.c - see bias.h. */
#include "passes/linear/bias.h"

#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/linear_read.h"

/* Where the bias stands: input 2, or the constant operand of the Add. What is there now need not be l->bias any more: smoothquant
 * folds factors into it. */
static qx_node *bias_place(const qx_linear *l, uint32_t *index)
{
    *index = l->bias_add ? qx_is_variable(l->bias_add->in[0]) : l->node->op->id == QX_OP_ms_MatMulNBits ? 5 : 2;
    return l->bias_add ? l->bias_add : l->node;
}

bool qx_bias_can_change(const qx_linear *l)
{
    if (!l->plain && !l->is_conv) return false;
    if (!l->bias) return l->is_conv || l->node->op->id == QX_OP_Gemm;
    const qx_weight *w = qx_value_const(l->bias);
    return w && w->numel == l->n && qx_dtype_is_float(w->dtype) && qx_dtype_bits(w->dtype) >= 16 &&
        (l->bias_add || qx_attr_float(l->node, "beta", 1) == 1);
}

qx_status qx_bias_change(qx_model *m, qx_linear *l, const float *factor, const float *add)
{
    const qx_view view = {1, 1, l->n, 0};
    uint32_t index;
    qx_node *at = bias_place(l, &index);
    const qx_value *was = qx_node_in(at, index);
    const qx_weight *old = was ? qx_value_const(was) : NULL;
    const qx_dtype dtype = old ? old->dtype : l->w->dtype;
    float *b = qx_arena_array(m->arena, (size_t)l->n, sizeof *b);
    void *bytes = qx_arena_alloc(m->arena, (size_t)l->n * 4);
    qx_weight *w;
    qx_value *v;
    if (!b || !bytes) return QX_E_NOMEM;
    if (old) QX_TRY(qx_rows_read(m->ctx, old, &view, NULL, 0, 1, b));
    for (int64_t i = 0; i < l->n; i++) b[i] = b[i] * (factor ? factor[i] : 1) + (add ? add[i] : 0);
    if (!qx_from_f32(dtype, b, l->n, bytes))
        QX_FAIL(m->ctx, QX_E_TYPE, "bias of '%s': %s cannot be written", l->node->name, qx_dtype_get(dtype)->text);
    QX_TRY(qx_weight_from_bytes(m, dtype, old ? old->rank : 1, old ? old->dims : &l->n, bytes, &w));
    QX_TRY(qx_init_add(at->graph, qx_unique_name(m, was ? was->name : qx_arena_printf(m->arena, "%s_bias", l->w_init->name)), w, &v));
    QX_TRY(qx_node_set_in(at, index, v));
    l->bias = v;
    return QX_OK;
}

/* ---- recurrences: B [directions][of W, of R] ------------------------------------------------------------------------------------ */

enum { INPUT_B = 3 };

static int64_t directions_of(const qx_linear *l)
{
    const char *d = qx_attr_string(l->node, "direction", "forward");
    return strcmp(d, "bidirectional") == 0 ? 2 : 1;
}

bool qx_bias_recurrent_can_add(const qx_linear *l)
{
    const qx_value *b = qx_node_in(l->node, INPUT_B);
    const qx_weight *w = b ? qx_value_const(b) : NULL;
    if (!l->recurrent || !l->w || l->n % directions_of(l)) return false;
    return !b ? l->w->dtype == QX_DT_FLOAT : w && w->dtype == QX_DT_FLOAT && w->numel == 2 * l->n;
}

/* Biases of a direction that `add` is for: all, or without the candidate's. */
static int64_t told(const qx_linear *l, int64_t each)
{
    enum { R = 2, GATES = 3 };
    const bool resets_first = l->node->op->id == QX_OP_GRU && l->w_index == R && qx_attr_int(l->node, "linear_before_reset", 0) == 0;
    return resets_first ? each - each / GATES : each;
}

qx_status qx_bias_recurrent_add(qx_model *m, const qx_linear *l, const float *add)
{
    const int64_t dirs = directions_of(l), each = l->n / dirs, dims[2] = {dirs, 2 * each}, at = l->w_index == 2 ? each : 0;
    const qx_value *was = qx_node_in(l->node, INPUT_B);
    const qx_weight *old = was ? qx_value_const(was) : NULL;
    float *b = qx_arena_array(m->arena, (size_t)(2 * l->n), sizeof *b);
    qx_weight *w;
    qx_value *v;
    if (!b) return QX_E_NOMEM;
    if (old) QX_TRY(qx_weight_read(m->ctx, old, b));
    for (int64_t d = 0; d < dirs; d++)
        for (int64_t i = 0; i < told(l, each); i++) b[d * 2 * each + at + i] += add[d * each + i];
    QX_TRY(qx_weight_from_bytes(m, QX_DT_FLOAT, 2, dims, b, &w));
    QX_TRY(qx_init_add(l->node->graph, qx_unique_name(m, was ? was->name : qx_arena_printf(m->arena, "%s_bias", l->w_init->name)), w, &v));
    return qx_node_set_in(l->node, INPUT_B, v);
}
