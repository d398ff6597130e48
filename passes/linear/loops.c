/* loops.c - see loops.h. tf2onnx writes the cells of recurrent networks so (Keras' GRU, ConvLSTM2D, RNN of a cell): their kernels are
 * states of a while loop. */
#include "passes/linear/loops.h"

#include "onnx/edit.h"
#include "onnx/weight/weight.h"

enum { STATE_IN = 2, STATE_OUT = 1, MAX_CHAIN = 8 }; /* first states among the inputs and outputs of a body */

static bool handed_on(const qx_graph *body, uint32_t state)
{
    const qx_value *v = body->outputs[STATE_OUT + state], *in = body->inputs[STATE_IN + state];
    for (int i = 0; i < MAX_CHAIN && v != in && v->def && v->graph == body && v->def->op->id == QX_OP_Identity; i++) v = v->def->in[0];
    return v == in;
}

static bool is_matrix(const qx_value *v)
{
    const qx_weight *w = v ? qx_value_const(v) : NULL;
    return w && !v->is_input && w->rank >= 2 && qx_dtype_is_float(w->dtype);
}

static qx_status open_state(qx_node *n, qx_graph *body, uint32_t state)
{
    qx_value *w = n->in[STATE_IN + state], *out = n->out[state];
    if (!is_matrix(w) || !handed_on(body, state) || (out && out->is_output)) return QX_OK;
    if (out) QX_TRY(qx_value_replace_uses(out, w, NULL));
    QX_TRY(qx_value_replace_uses(body->inputs[STATE_IN + state], w, NULL));
    return qx_loop_drop_state(n, state);
}

static qx_status open_loop(void *user, qx_node *n)
{
    const qx_attr *a = n->op->id == QX_OP_Loop ? qx_node_attr(n, "body") : NULL;
    qx_graph *body = a ? a->graph : NULL;
    (void)user;
    if (!body || n->n_in < STATE_IN || body->n_inputs != n->n_in || body->n_outputs != STATE_OUT + n->n_out) return QX_OK;
    for (uint32_t i = n->n_in - STATE_IN; i-- > 0;) QX_TRY(open_state(n, body, i));
    return QX_OK;
}

qx_status qx_loops_open(qx_model *m) { return qx_model_each_node(m, open_loop, NULL); }
