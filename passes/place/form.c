/* form.c - see form.h. */
#include "passes/place/form.h"

#include "passes/place/blocks.h"
#include "passes/place/mixture.h"
#include "passes/place/nodes.h"

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

/* MatMulNBits multiplies by a [N, K] matrix of blocks of 2, 4 or 8 bits; the scales have the type of x. */
static bool nbits_takes(const qx_linear *l, const qx_qspec *s)
{
    const bool bits = qx_dtype_is_small_int(s->codes) || s->codes == QX_DT_INT8;
    return bits && is_product(l) && l->plain && l->w->rank == 2 && (l->x->type.dtype == QX_DT_FLOAT || l->x->type.dtype == QX_DT_FLOAT16);
}

static bool nbits_block_fits(int64_t block) { return block >= 16 && block <= 256 && power_of_two(block); }

static bool nbits_fits(const qx_pipeline *pipe, const qx_linear *l, const qx_qspec *s)
{
    return qx_target_has(pipe->opt->target, QX_TARGET_CONTRIB) && nbits_block_fits(s->block) && nbits_takes(l, s);
}

bool qx_form_becomes_nbits(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_qspec *s = &it->weight->spec;
    const bool standard = qx_target_has(pipe->opt->target, QX_TARGET_FUSES_CODES) && !qx_target_has(pipe->opt->target, QX_TARGET_CONTRIB);
    const bool fits = s->block == 0 ? s->codes == QX_DT_INT8 : nbits_block_fits(s->block) && qx_dtype_bits(s->codes) >= 4;
    return standard && !it->act && !it->dynamic && !it->weight->exact_input && fits && nbits_takes(it->lin, s);
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
bool qx_form_rows_fit(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_linear *l = it->lin;
    const qx_qspec *s = &it->weight->spec;
    const bool whole = s->block == 0 || (s->block > 0 && l->k % s->block == 0 && l->x->type.has_shape);
    return pipe->opt->target != QX_TARGET_TENSORRT && l->embedding && l->w_in == it->weight->value && l->channel_axis == 0 &&
        it->weight->tensor->rank == 2 && s->codes == QX_DT_INT8 && whole;
}

bool qx_form_only_gathered(const qx_pipeline *pipe, const qx_plan_weight *w)
{
    int64_t n = 0;
    for (int64_t i = 0; i < pipe->plan->linears.count; i++)
        n += pipe->plan->items[i].weight == w && qx_form_rows_fit(pipe, &pipe->plan->items[i]);
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
        const bool rows = qx_form_rows_fit(pipe, it) && (w->spec.scale == w->tensor->dtype || w->spec.scale == QX_DT_FLOAT16);
        if (!product && !rows) return false;
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
    const bool exact = qx_target_has(pipe->opt->target, QX_TARGET_CONTRIB) ||
        (it->weight->exact_input && qx_target_has(pipe->opt->target, QX_TARGET_FUSES_CODES));
    return exact && !it->act && !qx_dtype_is_float(it->weight->spec.codes) && !l->is_conv && it->weight->tensor->rank == 2 &&
        it->weight->spec.block == 0 && l->contract_axis == 0;
}

static bool in_integers(const qx_plan_item *it) { return it->dynamic && it->dynamic != QX_DYNAMIC_BLOCK; }

static bool any_dynamic(const qx_pipeline *pipe, const qx_plan_weight *w)
{
    for (int64_t i = 0; i < pipe->plan->linears.count; i++)
        if (pipe->plan->items[i].weight == w && in_integers(&pipe->plan->items[i])) return true;
    return false;
}

qx_form qx_form_of(const qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    const qx_linear *l = it->lin;
    if (gather_fits(pipe, it)) return QX_FORM_GATHER;
    if (qx_mixture_fits(pipe, it)) return QX_FORM_MIXTURE;
    if (any_dynamic(pipe, w)) return QX_FORM_INTEGER;
    if (w->spec.block <= 0) return integer_weight_only(pipe, it) ? QX_FORM_NK_TRANSPOSE : QX_FORM_SAME;
    if (all_nbits(pipe, w)) return QX_FORM_NBITS;
    bool last = l->contract_axis == w->tensor->rank - 1;
    if (last || w->tensor->rank != 2 || pipe->opt->target == QX_TARGET_TENSORRT || qx_form_becomes_nbits(pipe, it))
        return QX_FORM_SAME;
    bool flips = l->node->op->id == QX_OP_Gemm && l->w_index == 1 && w->items == 1 && w->value->n_uses == 1 && l->w_in == w->value;
    return flips ? QX_FORM_NK_GEMM : QX_FORM_NK_TRANSPOSE;
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
    if (qx_form_of(pipe, it) != QX_FORM_NBITS) s->block = 0;
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
bool qx_form_powers(const qx_pipeline *pipe, const qx_plan_weight *w)
{
    return w->spec.scale == QX_DT_FLOAT8E8M0 && pipe->opt->target == QX_TARGET_TENSORRT;
}

qx_need qx_emit_weight_need(const qx_pipeline *pipe, const qx_plan_item *it)
{
    if (it->weight->spec.codes == QX_DT_FLOAT16) return (qx_need){0, 0};
    if (in_integers(it) && it->weight->items == 1) return (qx_need){11, 6}; /* of DynamicQuantizeLinear and Round */
    const bool bytes = it->weight->spec.codes == QX_DT_INT8;
    if (bytes && (qx_form_of(pipe, it) == QX_FORM_NBITS || qx_form_only_gathered(pipe, it->weight)))
        return (qx_need){13, 7}; /* no operator but MatMulNBits knows of blocks */
    if (qx_form_powers(pipe, it->weight)) return qx_blocks_need(pipe, &it->weight->spec);
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
