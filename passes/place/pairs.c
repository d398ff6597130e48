/* pairs.c - Q/DQ of activations and their kin: one pair a value and grid, in the operators that the target was seen to execute
 * (docs/runtimes.md). */
#include "passes/place/emit.h"

#include "base/checked.h"
#include "passes/place/blocks.h"
#include "passes/place/nodes.h"

enum { OPSET_OUTPUT_DTYPE = 21 }; /* of QuantizeLinear's attribute */

/* blocks: type of block scales that are found at run time */
typedef struct pair { qx_dtype codes, blocks; float scale; int32_t zero; qx_value *out; struct pair *next; } pair;
struct qx_emit { pair **of; uint32_t n; };

qx_status qx_emit_new(qx_pipeline *pipe)
{
    qx_model *m = pipe->model;
    struct qx_emit *e = qx_arena_alloc(m->arena, sizeof *e);
    if (!e) return QX_E_NOMEM;
    e->n = m->n_values;
    e->of = qx_arena_array(m->arena, (size_t)e->n + 1, sizeof *e->of);
    pipe->emit = e;
    pipe->dynamic = NULL;
    return e->of ? QX_OK : QX_E_NOMEM;
}

/* ONNX Runtime drops a Relu in front of a QuantizeLinear whose zero point has the byte 0, which it takes for uint8's: with float8
 * negative values then come through (1.31 and 1.32, also with session.disable_quant_qdq). A type that is given by output_dtype instead is
 * left alone. */
static bool hides_zero(const qx_pipeline *pipe, const qx_value *v, qx_dtype codes)
{
    const int64_t most = pipe->opt->max_opset;
    return pipe->opt->target == QX_TARGET_GENERIC && qx_dtype_is_float(codes) && v->def && v->def->op->id == QX_OP_Relu &&
        (!most || most >= OPSET_OUTPUT_DTYPE);
}

qx_need qx_emit_pair_need(const qx_pipeline *pipe, const qx_value *v, qx_dtype codes)
{
    return hides_zero(pipe, v, codes) ? (qx_need){OPSET_OUTPUT_DTYPE, 10} : qx_need_for(codes, v->type.dtype, false, false);
}

/* The opset when every format has written its weights. */
static int64_t opset_to_be(const qx_pipeline *pipe, const qx_graph *g)
{
    int64_t opset = qx_graph_opset(g, "");
    for (int64_t i = 0; i < pipe->plan->linears.count; i++) {
        const qx_plan_item *it = &pipe->plan->items[i];
        const int64_t need = it->pass && it->weight ? qx_emit_weight_need(pipe, it).opset : 0;
        opset = need > opset ? need : opset;
    }
    return opset;
}

/* ONNX Runtime multiplies UINT8 codes faster than INT8 (vision transformer 115 ms instead of 143), and wants one type on both sides of a
 * convolution, where most have a zero point.
 * From opset 21 on ONNX Runtime (1.31) does not load INT8 codes in front of a MatMul of rank 3 with a bias: it makes a Gemm of
 * both, and the pair that it moves behind the Reshape gets a zero point of another type. UINT8 with zero point 128 is the same
 * grid and loads. TensorRT has no such codes. */
static bool shifts_codes(const qx_pipeline *pipe, const qx_value *v, qx_dtype codes)
{
    if (codes != QX_DT_INT8 || pipe->opt->target == QX_TARGET_TENSORRT) return false;
    if (qx_target_has(pipe->opt->target, QX_TARGET_FUSES_CODES)) return true;
    if (opset_to_be(pipe, v->graph) < QX_ORT_BIASED_OPSET) return false;
    return qx_feeds_biased_matmul(v);
}

static qx_status standard_pair(const qx_pipeline *pipe, qx_value *v, const pair *p, qx_value **out)
{
    qx_graph *g = v->graph;
    qx_node *at = qx_place_behind(v), *q, *dq;
    qx_value *scale, *zero;
    const bool hidden = hides_zero(pipe, v, p->codes), shifted = shifts_codes(pipe, v, p->codes);
    const qx_dtype codes = shifted ? QX_DT_UINT8 : p->codes;
    QX_TRY(qx_scalar_put(g, v->name, "scale", v->type.dtype, p->scale, &scale));
    QX_TRY(qx_scalar_put(g, v->name, "zero_point", codes, (float)(shifted ? p->zero + 128 : p->zero), &zero));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"QuantizeLinear", {v, scale, zero}, hidden ? 2u : 3u, &v->type, codes, v->name,
                                             "QuantizeLinear"}, &q));
    if (hidden) QX_TRY(qx_attr_set_int(q, "output_dtype", codes));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"DequantizeLinear", {q->out[0], scale, zero}, 3, &v->type, v->type.dtype, v->name,
                                             "DequantizeLinear"}, &dq));
    *out = dq->out[0];
    return QX_OK;
}

/* The same arithmetic in operators that ONNX Runtime's CPU provider runs as they are: it refuses float8 Q/DQ around MatMul. */
static qx_status cast_pair(qx_value *v, const pair *p, qx_value **out)
{
    qx_graph *g = v->graph;
    qx_node *at = qx_place_behind(v), *n;
    qx_value *scale;
    qx_dtype t = v->type.dtype;
    QX_TRY(qx_scalar_put(g, v->name, "scale", t, p->scale, &scale));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Div", {v, scale}, 2, &v->type, t, v->name, "Div"}, &n));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Cast", {n->out[0]}, 1, &v->type, p->codes, v->name, "CastTo"}, &n));
    QX_TRY(qx_attr_set_int(n, "to", p->codes));
    QX_TRY(qx_attr_set_int(n, "saturate", 1));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Cast", {n->out[0]}, 1, &v->type, t, v->name, "CastBack"}, &n));
    QX_TRY(qx_attr_set_int(n, "to", t));
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Mul", {n->out[0], scale}, 2, &v->type, t, v->name, "Mul"}, &n));
    *out = n->out[0];
    return QX_OK;
}

/* The pair like this that v has, or a new one (out NULL), which is remembered. */
static qx_status pair_of(qx_pipeline *pipe, const qx_value *v, const pair *like, pair **out)
{
    struct qx_emit *e = pipe->emit;
    for (pair *p = v->id < e->n ? e->of[v->id] : NULL; p; p = p->next)
        if (p->codes == like->codes && p->blocks == like->blocks && p->scale == like->scale && p->zero == like->zero)
            return *out = p, QX_OK;
    pair *p = qx_arena_memdup(pipe->model->arena, like, sizeof *p);
    if (!p) return QX_E_NOMEM;
    if (v->id < e->n) { p->next = e->of[v->id]; e->of[v->id] = p; }
    *out = p;
    return QX_OK;
}

qx_status qx_emit_pair(qx_pipeline *pipe, qx_value *v, qx_dtype codes, float scale, int32_t zero, qx_value **out)
{
    pair *p;
    const bool casts = pipe->opt->target == QX_TARGET_ORT && qx_dtype_is_float(codes);
    QX_TRY(pair_of(pipe, v, &(pair){.codes = codes, .scale = scale, .zero = zero}, &p));
    if (!p->out) QX_TRY(casts ? cast_pair(v, p, &p->out) : standard_pair(pipe, v, p, &p->out));
    *out = p->out;
    return QX_OK;
}

qx_status qx_emit_blocks(qx_pipeline *pipe, qx_value *v, const qx_qspec *spec, float second, qx_value **out)
{
    pair *p;
    QX_TRY(pair_of(pipe, v, &(pair){.codes = spec->codes, .blocks = spec->scale, .scale = second}, &p));
    if (!p->out) QX_TRY(qx_blocks_put(pipe, v, spec, second, &p->out));
    *out = p->out;
    return QX_OK;
}
