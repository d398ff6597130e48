/* classes.c - which values have the same content in every run, or in every run with the same input shapes.
 *
 * Exports are full of Shape-Gather-Concat chains and of masks and tables made from them. They are run once and kept: constants for the life
 * of the executor, shape values for as long as the input shapes stay. A value whose dims depend on data (NonZero, a Loop) makes
 * everything behind it DATA. Unknown operators are taken to make their output shape from everything, which is always safe. */
#include "runtime/plan.h"

/* Bit i set: the content of input i decides dims of the outputs. Operators not listed and not pointwise: every input. */
typedef struct shape_rule { qx_op_id op; uint32_t content; } shape_rule;
static const shape_rule shape_rules[] = {
    {QX_OP_MatMul, 0}, {QX_OP_Gemm, 0}, {QX_OP_Conv, 0}, {QX_OP_ConvTranspose, 4}, {QX_OP_Softmax, 0}, {QX_OP_LogSoftmax, 0},
    {QX_OP_LayerNormalization, 0}, {QX_OP_RMSNormalization, 0}, {QX_OP_InstanceNormalization, 0}, {QX_OP_GroupNormalization, 0},
    {QX_OP_BatchNormalization, 0}, {QX_OP_SimplifiedLayerNormalization, 0}, {QX_OP_LpNormalization, 0}, {QX_OP_Transpose, 0},
    {QX_OP_Concat, 0}, {QX_OP_Gather, 0}, {QX_OP_GatherElements, 0}, {QX_OP_GatherND, 0}, {QX_OP_Where, 0}, {QX_OP_Cast, 0},
    {QX_OP_CastLike, 0}, {QX_OP_Identity, 0}, {QX_OP_Shape, 0}, {QX_OP_Size, 0}, {QX_OP_Flatten, 0}, {QX_OP_Einsum, 0},
    {QX_OP_ArgMax, 0}, {QX_OP_ArgMin, 0}, {QX_OP_CumSum, 0}, {QX_OP_Trilu, 2}, {QX_OP_DepthToSpace, 0}, {QX_OP_SpaceToDepth, 0},
    {QX_OP_MaxPool, 0}, {QX_OP_AveragePool, 0}, {QX_OP_GlobalAveragePool, 0}, {QX_OP_GlobalMaxPool, 0}, {QX_OP_ScatterElements, 0},
    {QX_OP_ScatterND, 0}, {QX_OP_QuantizeLinear, 0}, {QX_OP_DequantizeLinear, 0}, {QX_OP_DynamicQuantizeLinear, 0},
    {QX_OP_MatMulInteger, 0}, {QX_OP_QLinearMatMul, 0}, {QX_OP_ConvInteger, 0}, {QX_OP_QLinearConv, 0}, {QX_OP_Attention, 0},
    {QX_OP_RotaryEmbedding, 0}, {QX_OP_ReduceMean, 2}, {QX_OP_ReduceSum, 2}, {QX_OP_ReduceMax, 2}, {QX_OP_ReduceMin, 2},
    {QX_OP_ReduceProd, 2}, {QX_OP_ReduceL1, 2}, {QX_OP_ReduceL2, 2}, {QX_OP_ReduceSumSquare, 2}, {QX_OP_ReduceLogSum, 2},
    {QX_OP_ReduceLogSumExp, 2}, {QX_OP_Squeeze, 2}, {QX_OP_Unsqueeze, 2}, {QX_OP_Reshape, 2}, {QX_OP_Expand, 2}, {QX_OP_Split, 2},
    {QX_OP_Tile, 2}, {QX_OP_Slice, 30}, {QX_OP_Pad, 10}, {QX_OP_Resize, 14}, {QX_OP_TopK, 2}, {QX_OP_OneHot, 2},
    {QX_OP_ms_SkipSimplifiedLayerNormalization, 0}, {QX_OP_ms_SkipLayerNormalization, 0}, {QX_OP_ms_MatMulNBits, 0},
    {QX_OP_ms_GatherBlockQuantized, 0}, {QX_OP_ms_RotaryEmbedding, 0}, {QX_OP_ms_FusedMatMul, 0}, {QX_OP_ms_QuickGelu, 0},
    {QX_OP_ms_FastGelu, 0}, {QX_OP_ms_BiasGelu, 0}, {QX_OP_ms_QuantizeLinear, 0}, {QX_OP_ms_DequantizeLinear, 0},
    {QX_OP_ms_GroupQueryAttention, 0x40}, {QX_OP_ms_FusedGemm, 0}, {QX_OP_ms_FusedConv, 0}, {QX_OP_ms_NhwcConv, 0},
    {QX_OP_ms_NhwcFusedConv, 0},
    {QX_OP_ms_MatMulIntegerToFloat, 0}, {QX_OP_ms_DynamicQuantizeMatMul, 0}, {QX_OP_ms_DynamicQuantizeLSTM, 0}, {QX_OP_LSTM, 0},
    {QX_OP_GRU, 0}, {QX_OP_RNN, 0}, {QX_OP_ms_QGemm, 0}, {QX_OP_ms_QLinearConv, 0},
    {QX_OP_ms_MatMulInteger16, 0}, {QX_OP_LRN, 0}, {QX_OP_MeanVarianceNormalization, 0}, {QX_OP_CausalConvWithState, 0},
    {QX_OP_ms_CausalConvWithState, 0}, {QX_OP_LinearAttention, 0}, {QX_OP_ms_LinearAttention, 0}, {QX_OP_ms_MultiHeadAttention, 0},
    {QX_OP_ms_Attention, 0}, {QX_OP_ms_QAttention, 0}, {QX_OP_ms_MoE, 0}, {QX_OP_ms_QMoE, 0}, {QX_OP_ms_GroupNorm, 0},
    {QX_OP_ms_SkipGroupNorm, 0},
    {QX_OP_ms_EmbedLayerNormalization, 0}, {QX_OP_ms_BiasAdd, 0}, {QX_OP_ms_BiasSplitGelu, 0}, {QX_OP_ms_BiasSoftmax, 0},
    {QX_OP_ms_GatedRMSNorm, 0}, {QX_OP_ms_GatedAdd, 0}, {QX_OP_ms_LinearAttentionGate, 0}, {QX_OP_ms_MRotaryEmbedding, 0},
    {QX_OP_ms_QLinearAdd, 0}, {QX_OP_ms_QLinearMul, 0}, {QX_OP_ms_QLinearSigmoid, 0}, {QX_OP_ms_QLinearLeakyRelu, 0},
    {QX_OP_ms_QLinearConcat, 0},
    {QX_OP_ms_QLinearSoftmax, 0}, {QX_OP_ms_QLinearWhere, 0}, {QX_OP_ms_QLinearReduceMean, 0}, {QX_OP_ms_QLinearAveragePool, 0},
    {QX_OP_ms_QLinearGlobalAveragePool, 0}, {QX_OP_ms_NhwcMaxPool, 0},
};

/* Fused steps stand for nodes whose output shape follows from input shapes. */
static uint32_t content_mask(const qx_rstep *s)
{
    const qx_node *n = s->node;
    if (s->fused) return 0;
    if (n->op->traits & QX_T_POINTWISE) return 0;
    for (size_t i = 0; i < sizeof shape_rules / sizeof *shape_rules; i++)
        if (shape_rules[i].op == n->op->id) return shape_rules[i].content;
    return UINT32_MAX;
}

static bool is_opaque(const qx_rstep *s)
{
    return s->node->op->id == QX_OP_UNKNOWN || (s->node->op->traits & (QX_T_RANDOM | QX_T_CONTROL)) || s->ref_attrs;
}

static qx_class min_class(qx_class a, qx_class b) { return a < b ? a : b; }

static void classify_step(qx_exec *x, qx_rstep *s, bool is_main)
{
    qx_class content = QX_CLASS_CONST;
    bool fixed = true, opaque = is_opaque(s), only_weights = !opaque && !s->watched;
    uint32_t mask = opaque ? UINT32_MAX : content_mask(s);
    for (uint32_t i = 0; i < s->n_in; i++) {
        if (s->in[i] == QX_NO_VALUE) continue;
        const qx_vinfo *in = &x->info[s->in[i]];
        content = min_class(content, in->content);
        s->streams |= in->streamed;
        only_weights &= in->streamed || in->content == QX_CLASS_CONST;
        fixed = fixed && in->shape_fixed && (in->content != QX_CLASS_DATA || i >= 32 || !(mask >> i & 1));
    }
    bool shape_only = s->node->op->id == QX_OP_Shape || s->node->op->id == QX_OP_Size;
    if (shape_only && content != QX_CLASS_CONST) content = fixed ? QX_CLASS_SHAPE : QX_CLASS_DATA;
    if (opaque || s->watched) {
        content = QX_CLASS_DATA;
        fixed = fixed && !opaque;
    }
    if (content == QX_CLASS_SHAPE && !is_main) content = QX_CLASS_DATA;
    s->klass = content;
    for (uint32_t i = 0; i < s->n_out; i++)
        if (s->out[i] != QX_NO_VALUE) {
            x->info[s->out[i]].content = content;
            x->info[s->out[i]].streamed = only_weights && s->streams;
            x->info[s->out[i]].shape_fixed = fixed;
        }
}

void qx_classify(qx_exec *x, qx_gplan *p, bool is_main)
{
    for (uint32_t i = 0; i < p->graph->n_inits; i++) {
        const qx_value *v = p->graph->inits[i];
        if (v->is_input) continue; /* a default that a feed may replace */
        x->info[v->id].streamed = x->opt.stream_weights && v->init && v->init->numel >= QX_STREAM_ELEMENTS;
        x->info[v->id].content = x->info[v->id].streamed ? QX_CLASS_DATA : QX_CLASS_CONST;
        x->info[v->id].shape_fixed = true;
    }
    for (uint32_t i = 0; i < p->graph->n_inputs; i++) x->info[p->graph->inputs[i]->id].shape_fixed = is_main;
    for (uint32_t i = 0; i < p->n_steps; i++) classify_step(x, &p->steps[i], is_main);
}
