/* ort_bias.c - a float16 bias in a form that ONNX Runtime does not round again. */
#include <math.h>

#include "onnx/weight/weight.h"
#include "passes/place/emit.h"
#include "passes/place/nodes.h"

/* A power of two whose multiples up to 2^30 hold b, float16 numbers: exactly, unless its largest is 2^30 times its smallest. */
static float bias_step(const float *b, int64_t n)
{
    enum { BITS = 30, SMALLEST = -24 };
    float most = 0;
    int end;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(b[i]));
    (void)frexpf(most, &end);
    return ldexpf(1, end - BITS > SMALLEST ? end - BITS : SMALLEST);
}

static qx_status int32_bias(qx_graph *g, qx_value *v, const qx_weight *old, qx_value **out, qx_value **scale)
{
    const qx_view view = {1, 1, old->numel, 0};
    qx_model *m = g->model;
    float *b = qx_arena_array(m->arena, (size_t)old->numel, sizeof *b), step;
    int32_t *codes = qx_arena_array(m->arena, (size_t)old->numel, sizeof *codes);
    qx_weight *w;
    if (!b || !codes) return QX_E_NOMEM;
    QX_TRY(qx_rows_read(m->ctx, old, &view, NULL, 0, 1, b));
    for (int64_t i = 0; i < old->numel; i++)
        if (!isfinite(b[i])) return *out = NULL, QX_OK;
    step = bias_step(b, old->numel);
    for (int64_t i = 0; i < old->numel; i++) codes[i] = (int32_t)rintf(b[i] / step);
    QX_TRY(qx_weight_from_bytes(m, QX_DT_INT32, 1, old->dims, codes, &w));
    QX_TRY(qx_init_add(g, qx_arena_printf(m->arena, "%s_i32", v->name), w, out));
    return qx_scalar_put(g, v->name, "scale", QX_DT_FLOAT16, step, scale);
}

static qx_status through_codes(qx_node *n, qx_value *v, const qx_weight *w)
{
    qx_value *codes, *scale;
    qx_node *dq;
    QX_TRY(int32_bias(n->graph, v, w, &codes, &scale));
    if (!codes) return QX_OK;
    QX_TRY(qx_node_put(n->graph, n, &(qx_new_node){"DequantizeLinear", {codes, scale}, 2, &v->type, QX_DT_FLOAT16, v->name,
                                                   "DequantizeLinear"}, &dq));
    return qx_node_set_in(n, 2, dq->out[0]);
}

/* Between pairs ONNX Runtime rounds a float bias to multiples of input scale times weight scale, a product in the bias's type: of
 * float16 it is zero or nearly (MobileNetV2: 11 dB instead of 54). What a DequantizeLinear makes it leaves alone. */
qx_status qx_emit_biases(qx_pipeline *pipe)
{
    const qx_plan *plan = pipe->plan;
    for (int64_t i = 0; qx_target_has(pipe->opt->target, QX_TARGET_FUSES_CODES) && i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        qx_node *n = it->lin->node;
        const bool has = n->op->id == QX_OP_Conv || n->op->id == QX_OP_ConvTranspose || n->op->id == QX_OP_Gemm;
        qx_value *v = it->pass && it->act && has ? qx_node_in(n, 2) : NULL;
        const qx_weight *w = v ? qx_value_const(v) : NULL;
        if (w && w->dtype == QX_DT_FLOAT16 && w->rank == 1 && w->numel) QX_TRY(through_codes(n, v, w));
    }
    return QX_OK;
}
