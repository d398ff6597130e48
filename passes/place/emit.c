/* emit.c - writes Q/DQ, DQ of weights and MatMulNBits. Every form here is one that the target was seen to execute (docs/targets.md). */
#include "passes/place/emit.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/place/blocks.h"
#include "passes/place/dynamic.h"
#include "passes/place/gathered.h"
#include "passes/place/mixture.h"
#include "passes/place/nodes.h"
#include "passes/place/square.h"

enum { OPSET_OUTPUT_DTYPE = 21, OPSET_BLOCKS = 21 }; /* of QuantizeLinear's attribute, and of blocks */

/* blocks: type of block scales that are found at run time */
typedef struct pair { qx_dtype codes, blocks; float scale; int32_t zero; qx_value *out; struct pair *next; } pair;
struct qx_emit { pair **of; uint32_t n; qx_map *zeros; };

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

/* ---- activations -------------------------------------------------------------------------------------------------------- */

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
    if (pipe->opt->target == QX_TARGET_ORT) return true;
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

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

static const char *suffix_of(qx_dtype codes)
{
    switch (codes) {
    case QX_DT_INT8: return "i8";
    case QX_DT_UINT8: return "u8";
    case QX_DT_INT4: return "i4";
    case QX_DT_UINT4: return "u4";
    case QX_DT_FLOAT8E4M3FN: case QX_DT_FLOAT8E5M2: return "f8";
    case QX_DT_FLOAT4E2M1: return "f4";
    default: return "q";
    }
}

static qx_status add_part(qx_graph *g, const qx_plan_weight *w, qx_part part, const char *suffix, qx_value **out)
{
    *out = NULL;
    if (!w->job->part[part]) return QX_OK;
    const char *name = qx_arena_printf(g->model->arena, "%s_%s", w->value->name, suffix);
    return name ? qx_init_add(g, name, w->job->part[part], out) : QX_E_NOMEM;
}

typedef enum form { FORM_SAME, FORM_NK_TRANSPOSE, FORM_NK_GEMM, FORM_NBITS, FORM_GATHER, FORM_INTEGER, FORM_MIXTURE } form;

static bool power_of_two(int64_t v) { return v > 0 && (v & (v - 1)) == 0; }

/* A Gemm that is x W' with a bias, or none. */
static bool is_product(const qx_linear *l)
{
    const qx_node *n = l->node;
    const qx_value *c = qx_node_in(n, 2);
    if (n->op->id == QX_OP_MatMul) return true;
    if (n->op->id != QX_OP_Gemm || qx_attr_int(n, "transA", 0) || qx_attr_float(n, "alpha", 1) != 1) return false;
    return !c || (qx_attr_float(n, "beta", 1) == 1 && c->type.has_shape && c->type.rank == 1 && c->type.dims[0].n == l->n);
}

/* MatMulNBits multiplies by a [N, K] matrix of blocks of 4 or 8 bits; the scales have the type of x. */
static bool nbits_fits(const qx_pipeline *pipe, const qx_linear *l, const qx_qspec *s)
{
    bool bits = s->codes == QX_DT_INT4 || s->codes == QX_DT_UINT4 || s->codes == QX_DT_INT8;
    if (pipe->opt->target != QX_TARGET_ORT || !bits || s->block < 16 || !power_of_two(s->block) || s->block > 256) return false;
    return is_product(l) && l->plain && l->w->rank == 2 &&
        (l->x->type.dtype == QX_DT_FLOAT || l->x->type.dtype == QX_DT_FLOAT16);
}

/* GatherBlockQuantized dequantizes the rows that are asked for; a DequantizeLinear in front of Gather the whole table each time. */
static bool gather_fits(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    const bool bits = w->spec.codes == QX_DT_INT4 || w->spec.codes == QX_DT_UINT4,
        own = w->items == 1 && w->value->n_uses == 1 && it->lin->w_in == w->value;
    return pipe->opt->target == QX_TARGET_ORT && it->lin->embedding && own && bits && w->spec.block >= 16 &&
        power_of_two(w->spec.block) && it->lin->contract_axis == 1;
}

/* A DequantizeLinear in front of Gather dequantizes the whole table at each run. INT8 rows are gathered as they are, with their scales, and
 * multiplied: operators that every runtime has, of any operator set. TensorRT takes codes by DequantizeLinear alone. */
static bool rows_fit(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_linear *l = it->lin;
    const qx_qspec *s = &it->weight->spec;
    const bool whole = s->block == 0 || (s->block > 0 && l->k % s->block == 0 && l->x->type.has_shape);
    return pipe->opt->target != QX_TARGET_TENSORRT && l->embedding && l->w_in == it->weight->value && l->channel_axis == 0 &&
        it->weight->tensor->rank == 2 && s->codes == QX_DT_INT8 && whole;
}

static bool only_gathered(const qx_pipeline *pipe, const qx_plan_weight *w)
{
    int64_t n = 0;
    for (int64_t i = 0; i < pipe->plan->linears.count; i++)
        n += pipe->plan->items[i].weight == w && rows_fit(pipe, &pipe->plan->items[i]);
    return n == w->value->n_uses;
}

/* One copy serves a head and the embeddings that share its weight. */
static bool all_nbits(const qx_pipeline *pipe, const qx_plan_weight *w)
{
    bool any = false;
    for (int64_t i = 0; i < pipe->plan->linears.count; i++) {
        const qx_plan_item *it = &pipe->plan->items[i];
        if (it->weight != w) continue;
        const bool product = it->pass && nbits_fits(pipe, it->lin, &w->spec);
        if (!product && !(rows_fit(pipe, it) && w->spec.scale == w->tensor->dtype)) return false;
        if (product && w->embedding && it->lin->x->type.dtype != w->tensor->dtype) return false;
        any |= product;
    }
    return any;
}

/* ONNX Runtime's CPU provider multiplies with 8-bit activations (5 dB worse, measured) when an INT8 weight's dequantizer feeds
 * MatMul or Gemm directly and the activation is float; behind a Transpose it computes what is written, at least below opset 21.
 * For what MatMulNBits cannot hold. */
static bool integer_weight_only(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_linear *l = it->lin;
    return pipe->opt->target == QX_TARGET_ORT && !it->act && !qx_dtype_is_float(it->weight->spec.codes) && !l->is_conv &&
           it->weight->tensor->rank == 2 && it->weight->spec.block == 0 && l->contract_axis == 0;
}

static bool in_integers(const qx_plan_item *it) { return it->dynamic && it->dynamic != QX_DYNAMIC_BLOCK; }

static bool any_dynamic(const qx_pipeline *pipe, const qx_plan_weight *w)
{
    for (int64_t i = 0; i < pipe->plan->linears.count; i++)
        if (pipe->plan->items[i].weight == w && in_integers(&pipe->plan->items[i])) return true;
    return false;
}

static form choose_form(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    const qx_linear *l = it->lin;
    if (gather_fits(pipe, it)) return FORM_GATHER;
    if (qx_mixture_fits(pipe, it)) return FORM_MIXTURE;
    if (any_dynamic(pipe, w)) return FORM_INTEGER;
    if (w->spec.block <= 0) return integer_weight_only(pipe, it) ? FORM_NK_TRANSPOSE : FORM_SAME;
    if (all_nbits(pipe, w)) return FORM_NBITS;
    bool last = l->contract_axis == w->tensor->rank - 1;
    if (last || w->tensor->rank != 2 || pipe->opt->target == QX_TARGET_TENSORRT) return FORM_SAME;
    bool flips = l->node->op->id == QX_OP_Gemm && l->w_index == 1 && w->items == 1 && w->value->n_uses == 1 && l->w_in == w->value;
    return flips ? FORM_NK_GEMM : FORM_NK_TRANSPOSE;
}

/* Rows of K elements are filled up to whole blocks: no more than a sixteenth is wasted, where that is possible; nothing of rows that are
 * gathered too. */
static int64_t nbits_block(int64_t k, bool gathered)
{
    enum { MOST = 128, LEAST = 16 };
    const int64_t waste = gathered ? 0 : k / 16;
    int64_t block = MOST;
    while (block > LEAST && (k + block - 1) / block * block - k > waste) block /= 2;
    return block;
}

void qx_emit_prefer_blocks(const qx_pipeline *pipe, qx_plan_item *it)
{
    qx_qspec *s = &it->weight->spec;
    if (pipe->opt->target != QX_TARGET_ORT || it->act || s->codes != QX_DT_INT8 || s->block != 0) return;
    s->block = nbits_block(it->lin->k, it->weight->embedding);
    if (choose_form(pipe, it) != FORM_NBITS) s->block = 0;
}

/* FP4 and MX formats have the one block size of their name. */
static bool block_is_fixed(const qx_qspec *s) { return s->scale == QX_DT_FLOAT8E8M0 || s->scale == QX_DT_FLOAT8E4M3FN; }

int64_t qx_emit_block(const qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec)
{
    enum { LEAST = 16, MOST = 4096 };
    const int64_t k = it->lin->k, block = spec->block;
    if (block > 0 && it->lin->mixture && pipe->opt->target == QX_TARGET_ORT && !block_is_fixed(spec))
        return qx_mixture_block(pipe, it, block);
    if (block <= 0 || !qx_target_has(pipe->opt->target, QX_TARGET_WHOLE_BLOCKS) || k <= 0) return block;
    if (k % block == 0) return block;
    int64_t less = block_is_fixed(spec) ? 0 : MOST;
    while (less >= LEAST && (less > block || k % less)) less /= 2;
    return less >= LEAST ? less : 0;
}

qx_why qx_emit_fits(const qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec, const char **detail)
{
    *detail = NULL;
    if (it->lin->contract_axis < 0 && (spec->block > 0 || (spec->block == 0 && it->lin->channel_axis < 0))) {
        *detail = "contracted over several axes";
        return QX_WHY_NOT_ELIGIBLE;
    }
    if (spec->block <= 0) return QX_WHY_NONE;
    if (it->lin->is_conv) { *detail = "blocks along a convolution's channels"; return QX_WHY_NOT_ELIGIBLE; }
    if (qx_emit_block(pipe, it, spec) > 0) return QX_WHY_NONE;
    *detail = qx_arena_printf(pipe->model->arena, "blocks of %lld do not divide %lld, as --target %s asks for", (long long)spec->block,
                              (long long)it->lin->k, qx_target_name(pipe->opt->target));
    if (!*detail) *detail = "blocks that are not whole";
    return QX_WHY_NOT_ELIGIBLE;
}

/* TensorRT's parser has no element type of powers of two: it takes them as bytes, in an operator of its own. */
static bool powers_for_tensorrt(const qx_pipeline *pipe, const qx_plan_weight *w)
{
    return w->spec.scale == QX_DT_FLOAT8E8M0 && pipe->opt->target == QX_TARGET_TENSORRT;
}

qx_need qx_emit_weight_need(const qx_pipeline *pipe, const qx_plan_item *it)
{
    if (in_integers(it) && it->weight->items == 1) return (qx_need){11, 6}; /* of DynamicQuantizeLinear and Round */
    const bool bytes = it->weight->spec.codes == QX_DT_INT8;
    if (bytes && (choose_form(pipe, it) == FORM_NBITS || only_gathered(pipe, it->weight)))
        return (qx_need){13, 7}; /* no operator but MatMulNBits knows of blocks */
    if (powers_for_tensorrt(pipe, it->weight)) return qx_blocks_need(pipe, &it->weight->spec);
    return qx_emit_need(&it->weight->spec);
}

qx_need qx_emit_need(const qx_qspec *spec) { return qx_need_for(spec->codes, spec->scale, spec->block != -1, spec->block > 0); }

bool qx_emit_may(const qx_pipeline *pipe, qx_need need)
{
    const qx_quantize_options *o = pipe->opt;
    return (!o->max_opset || need.opset <= o->max_opset) && (!o->max_ir || need.ir <= o->max_ir);
}

qx_status qx_emit_raise(qx_pipeline *pipe, qx_need need, const char *because)
{
    const qx_quantize_options *o = pipe->opt;
    if (o->max_opset && need.opset > o->max_opset)
        QX_FAIL(pipe->ctx, QX_E_USAGE, "%s needs opset %lld, --max-opset allows %lld", because, (long long)need.opset,
                (long long)o->max_opset);
    if (o->max_ir && need.ir > o->max_ir)
        QX_FAIL(pipe->ctx, QX_E_USAGE, "%s needs IR version %lld, --max-ir allows %lld", because, (long long)need.ir, (long long)o->max_ir);
    return qx_opset_raise(pipe->model, need, because);
}

static int64_t dq_axis(const qx_plan_item *it, form f)
{
    if (f == FORM_NK_TRANSPOSE || f == FORM_NK_GEMM) return it->weight->spec.block > 0 ? 1 : 0;
    return it->weight->spec.block > 0 ? it->lin->contract_axis : it->lin->channel_axis;
}

static bool two_level(const qx_plan_weight *w) { return w->job->part[QX_PART_SCALE2] != NULL; }

/* Block scales that are codes themselves: dequantized by the scale of the tensor first. */
static qx_status block_scales(qx_plan_weight *w, qx_value *codes, qx_value *scale2, qx_value **out)
{
    qx_graph *g = w->value->graph;
    qx_node *n, *at = qx_place_behind(w->value);
    const char *base = qx_arena_printf(g->model->arena, "%s_scale", w->value->name);
    if (!base) return QX_E_NOMEM;
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"DequantizeLinear", {codes, scale2}, 2, &codes->type, QX_DT_FLOAT, base,
                                             "DequantizeLinear"}, &n));
    *out = n->out[0];
    return QX_OK;
}

static qx_status tensorrts_own(qx_pipeline *pipe, qx_node *n, const char *op)
{
    if (!qx_graph_opset(n->graph, "trt")) QX_TRY(qx_model_set_opset(pipe->model, "trt", 1));
    return qx_node_set_op(n, "trt", op);
}

static qx_status in_squares(qx_pipeline *pipe, const qx_plan_weight *w, qx_node *n)
{
    const bool last = qx_attr_int(n, "axis", 1) != 0; /* the contraction */
    const int64_t shape[2] = {last ? w->spec.given_rows : w->spec.block, last ? w->spec.block : w->spec.given_rows};
    QX_TRY(qx_attr_remove(n, "axis"));
    QX_TRY(qx_attr_remove(n, "block_size"));
    QX_TRY(tensorrts_own(pipe, n, "TRT_BlockDequantize"));
    return qx_attr_set_ints(n, "block_shape", shape, 2);
}

static qx_status dequantizer(qx_pipeline *pipe, qx_plan_item *it, form f, qx_value *codes, qx_value *scale, qx_value *zero, qx_value **out)
{
    qx_plan_weight *w = it->weight;
    qx_graph *g = w->value->graph;
    qx_node *n, *at = qx_place_behind(w->value);
    qx_type t = codes->type;
    if (scale->def) at = scale->def->next;
    const bool powers = w->spec.scale == QX_DT_FLOAT8E8M0; /* a scale that says nothing about the type of the result */
    const qx_dtype made = two_level(w) ? QX_DT_FLOAT : w->tensor->dtype;
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"DequantizeLinear", {codes, scale, zero}, zero ? 3u : 2u, &t, made, w->value->name,
                                             "DequantizeLinear"}, &n));
    if (powers) QX_TRY(qx_attr_set_int(n, "output_dtype", made));
    if (w->spec.block != -1) QX_TRY(qx_attr_set_int(n, "axis", dq_axis(it, f)));
    if (w->spec.block > 0) QX_TRY(qx_attr_set_int(n, "block_size", w->spec.block));
    if (powers_for_tensorrt(pipe, w)) QX_TRY(tensorrts_own(pipe, n, "TRT_MXFP8DequantizeLinear"));
    if (w->spec.given_rows > 1 && pipe->opt->target == QX_TARGET_TENSORRT) QX_TRY(in_squares(pipe, w, n));
    *out = n->out[0];
    if (made != w->tensor->dtype) {
        QX_TRY(qx_node_put(g, at, &(qx_new_node){"Cast", {*out}, 1, &t, w->tensor->dtype, w->value->name, "Cast"}, &n));
        QX_TRY(qx_attr_set_int(n, "to", w->tensor->dtype));
        *out = n->out[0];
    }
    if (f != FORM_NK_TRANSPOSE) return QX_OK;
    static const int64_t perm[2] = {1, 0};
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Transpose", {n->out[0]}, 1, &w->value->type, w->tensor->dtype, w->value->name,
                                             "Transpose"}, &n));
    QX_TRY(qx_attr_set_ints(n, "perm", perm, 2));
    *out = n->out[0];
    return QX_OK;
}

/* ONNX Runtime's CPU provider has no kernel for 8-bit codes and a float input: it dequantizes the whole weight at each run. */
enum { INPUT_IN_8_BITS = 4 };

static qx_status from_gemm(qx_node *n, qx_value *bias)
{
    static const char *const gone[] = {"alpha", "beta", "transA", "transB"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) QX_TRY(qx_attr_remove(n, gone[i]));
    if (!bias) return QX_OK;
    if (n->n_in == 3) QX_TRY(qx_node_set_in(n, 3, NULL)); /* zero points */
    QX_TRY(qx_node_set_in(n, 4, NULL));
    return qx_node_set_in(n, 5, bias);
}

static qx_status to_nbits(qx_pipeline *pipe, qx_plan_item *it, qx_value *codes, qx_value *scale, qx_value *zero)
{
    qx_node *n = it->lin->node;
    const qx_plan_weight *w = it->weight;
    const bool gemm = n->op->id == QX_OP_Gemm;
    qx_value *bias = qx_node_in(n, 2);
    if (!qx_graph_opset(pipe->model->graph, "com.microsoft")) QX_TRY(qx_model_set_opset(pipe->model, "com.microsoft", 1));
    QX_TRY(qx_node_set_op(n, "com.microsoft", "MatMulNBits"));
    QX_TRY(qx_node_set_in(n, 1, codes));
    QX_TRY(qx_node_set_in(n, 2, scale));
    if (zero) QX_TRY(qx_node_set_in(n, 3, zero));
    if (gemm) QX_TRY(from_gemm(n, bias));
    QX_TRY(qx_attr_set_int(n, "K", qx_view_k(&w->view)));
    QX_TRY(qx_attr_set_int(n, "N", w->view.n));
    QX_TRY(qx_attr_set_int(n, "bits", qx_dtype_bits(w->spec.codes)));
    if (!w->exact_input) QX_TRY(qx_attr_set_int(n, "accuracy_level", INPUT_IN_8_BITS));
    return qx_attr_set_int(n, "block_size", w->spec.block);
}

static qx_status to_gather(qx_pipeline *pipe, qx_plan_item *it, qx_value *codes, qx_value *scale, qx_value *zero)
{
    qx_node *n = it->lin->node;
    const qx_qspec *s = &it->weight->spec;
    if (!qx_graph_opset(pipe->model->graph, "com.microsoft")) QX_TRY(qx_model_set_opset(pipe->model, "com.microsoft", 1));
    QX_TRY(qx_node_set_op(n, "com.microsoft", "GatherBlockQuantized"));
    QX_TRY(qx_node_set_in(n, 0, codes));
    QX_TRY(qx_node_set_in(n, 2, scale));
    if (zero) QX_TRY(qx_node_set_in(n, 3, zero));
    QX_TRY(qx_attr_remove(n, "axis"));
    QX_TRY(qx_attr_set_int(n, "gather_axis", 0));
    QX_TRY(qx_attr_set_int(n, "quantize_axis", 1));
    return qx_attr_set_int(n, "block_size", s->block);
}

static qx_status all_rows_of_codes(qx_pipeline *pipe, const qx_plan_weight *w, qx_value *codes, qx_value *scale)
{
    for (int64_t i = 0; w->embedding && i < pipe->plan->linears.count; i++) {
        qx_plan_item *it = &pipe->plan->items[i];
        if (it->weight == w && rows_fit(pipe, it)) QX_TRY(qx_gathered_rows(it, codes, scale));
    }
    return QX_OK;
}

/* Every linear that uses the weight becomes MatMulNBits on the same codes, of which embeddings gather theirs. */
static qx_status all_to_nbits(qx_pipeline *pipe, const qx_plan_weight *w, qx_value *codes, qx_value *scale, qx_value *zero)
{
    for (int64_t i = 0; i < pipe->plan->linears.count; i++) {
        qx_plan_item *it = &pipe->plan->items[i];
        if (it->weight == w && !it->lin->embedding) QX_TRY(to_nbits(pipe, it, codes, scale, zero));
    }
    return all_rows_of_codes(pipe, w, codes, scale);
}

static int64_t job_bytes(const qx_job *job)
{
    int64_t sum = 0;
    for (int i = 0; i < QX_PART_COUNT_; i++)
        if (job->part[i]) sum += (int64_t)job->part[i]->bytes;
    return sum;
}

static qx_status report_weight(qx_pipeline *pipe, const qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    if (!pipe->report) return QX_OK;
    w->report_row = pipe->report->n_tensors;
    qx_report_tensor t = {.name = w->value->name, .format = w->format, .bytes_before = (int64_t)w->tensor->bytes,
                          .bytes_after = job_bytes(w->job) + qx_square_bytes(w), .n = w->view.n,
                          .k = qx_view_k(&w->view), .block = w->spec.block, .sqnr = NAN, .input_sqnr = it->act_sqnr,
                              .node = it->lin->node->name, .scope = it->lin->node->scope};
    return qx_report_add_tensor(pipe->report, &t);
}

static qx_status rewire(qx_pipeline *pipe, qx_plan_item *it, form f)
{
    qx_plan_weight *w = it->weight;
    qx_graph *g = w->value->graph;
    qx_value *codes, *scale, *zero, *scale2, *dq;
    if (powers_for_tensorrt(pipe, w)) w->job->part[QX_PART_SCALE]->dtype = QX_DT_UINT8;
    QX_TRY(add_part(g, w, QX_PART_CODES, suffix_of(w->spec.codes), &codes));
    if (w->spec.given_rows > 1) QX_TRY(qx_square_value(pipe, w, dq_axis(it, f) == 0, &scale));
    else QX_TRY(add_part(g, w, QX_PART_SCALE, "scale", &scale));
    QX_TRY(add_part(g, w, QX_PART_ZERO, "zp", &zero));
    QX_TRY(add_part(g, w, QX_PART_SCALE2, "scale_f32_scale", &scale2));
    if (scale2) QX_TRY(block_scales(w, scale, scale2, &scale));
    if (f == FORM_NBITS) return all_to_nbits(pipe, w, codes, scale, zero);
    if (f == FORM_GATHER) return to_gather(pipe, it, codes, scale, zero);
    if (f == FORM_MIXTURE) return qx_mixture_layer(pipe, it, codes, scale, zero);
    bool rest = true;
    if (f == FORM_INTEGER) QX_TRY(qx_dynamic_write(pipe, w, codes, scale, &rest));
    if (!rest) return QX_OK;
    QX_TRY(all_rows_of_codes(pipe, w, codes, scale));
    if (!w->value->n_uses) return QX_OK;
    QX_TRY(dequantizer(pipe, it, f, codes, scale, zero, &dq));
    if (f == FORM_NK_GEMM) {
        QX_TRY(qx_attr_set_int(it->lin->node, "transB", 1));
        return qx_node_set_in(it->lin->node, it->lin->w_index, dq);
    }
    return qx_value_replace_uses(w->value, dq, dq->def);
}

static qx_layout layout_of(form f)
{
    if (f == FORM_NBITS || f == FORM_MIXTURE) return QX_LAYOUT_NBITS;
    return f == FORM_SAME || f == FORM_GATHER || f == FORM_INTEGER ? QX_LAYOUT_SAME : QX_LAYOUT_NK;
}

qx_status qx_emit_bytes(qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec, bool external, int64_t *bytes)
{
    qx_plan_weight w = *it->weight; /* tried on a copy */
    qx_plan_item tried = *it;
    qx_job *job;
    w.spec = *spec;
    tried.weight = &w;
    const form f = choose_form(pipe, &tried);
    if (w.spec.given_rows > 1) w.spec.rule = QX_SCALE_AMAX;
    QX_TRY(qx_job_new(pipe->model, w.tensor, &w.view, NULL, &w.spec, layout_of(f), &job));
    *bytes = 0;
    for (int i = 0; i < QX_PART_COUNT_; i++)
        if (job->part[i] && !(i == QX_PART_SCALE && w.spec.given_rows > 1))
            *bytes += qx_write_tensor_bytes((int64_t)job->part[i]->bytes, external);
    *bytes += qx_square_bytes(&w);
    return QX_OK;
}

qx_status qx_emit_weight(qx_pipeline *pipe, qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    if (w->done) return QX_OK;
    form f = choose_form(pipe, it);
    if ((f == FORM_NBITS && !w->embedding) || f == FORM_MIXTURE) w->spec.scale = it->lin->x->type.dtype;
    QX_TRY(qx_job_new(pipe->model, w->tensor, &w->view, w->steps, &w->spec, layout_of(f), &w->job));
    if (f == FORM_MIXTURE) QX_TRY(qx_mixture_shape(pipe->model, it));
    if (w->spec.given_rows > 1) w->job->part[QX_PART_SCALE] = NULL; /* stored once for all its rows */
    QX_TRY(rewire(pipe, it, f));
    w->done = true;
    return report_weight(pipe, it);
}

/* A format that a solver counted on may leave the weight float in the end: its input was always zero, or held infinities. */
static qx_status leave_grid(qx_pipeline *pipe, qx_plan_weight *w)
{
    const qx_step *s = w->steps;
    if (!s->def->grid) return QX_OK;
    w->steps = s->prev;
    return s->def->in_float ? qx_plan_step(pipe, w, s->def->in_float, s->arg) : QX_OK;
}

qx_status qx_emit_float(qx_pipeline *pipe, qx_plan_weight *w)
{
    if (w->done || !w->steps) return QX_OK;
    QX_TRY(leave_grid(pipe, w));
    if (!w->steps) return QX_OK;
    qx_value *v;
    qx_qspec s = {.codes = w->tensor->dtype};
    QX_TRY(qx_job_new(pipe->model, w->tensor, &w->view, w->steps, &s, QX_LAYOUT_SAME, &w->job));
    w->done = true;
    if (w->value->init) return qx_init_replace(w->value, w->job->part[QX_PART_CODES]);
    const char *name = qx_arena_printf(pipe->model->arena, "%s_float", w->value->name);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_init_add(w->value->graph, name, w->job->part[QX_PART_CODES], &v));
    return qx_value_replace_uses(w->value, v, NULL);
}

qx_status qx_plan_store_rest(qx_pipeline *pipe)
{
    for (int64_t i = 0; i < pipe->plan->n_weights; i++) QX_TRY(qx_emit_float(pipe, &pipe->plan->weights[i]));
    return QX_OK;
}
