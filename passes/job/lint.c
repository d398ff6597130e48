/* lint.c - rules by target, one function each, in one table. Facts come from running the forms on the runtimes (docs/runtimes.md), not
 * from their documentation. */
#include "passes/job/lint.h"

#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/place/plan.h"

typedef struct linter {
    qx_model *m;
    qx_target target;
    qx_arena *arena;
    qx_finding *items;
    int64_t n, cap;
    qx_status st;
    const char *rule;
    bool error;
} linter;

static void find(linter *l, const qx_node *n, const char *text)
{
    if (qx_arena_grow(l->arena, (void **)&l->items, l->n, &l->cap, sizeof *l->items) != QX_OK) { l->st = QX_E_NOMEM; return; }
    const char *name = n->name[0] ? n->name : n->n_out && n->out[0] ? n->out[0]->name : "";
    l->items[l->n++] = (qx_finding){l->rule, l->error, qx_arena_strdup(l->arena, name), qx_arena_strdup(l->arena, n->op_type), text};
    if (!text) l->st = QX_E_NOMEM;
}

#define FIND(l, n, ...) find((l), (n), qx_arena_printf((l)->arena, __VA_ARGS__))

/* ---- facts about a node ----------------------------------------------------------------------------------------------------- */

static bool is_op(const qx_node *n, qx_op_id id) { return n && n->op->id == id; }
static bool is_dq(const qx_node *n)
{
    return is_op(n, QX_OP_DequantizeLinear) || is_op(n, QX_OP_trt_TRT_MXFP8DequantizeLinear) ||
        is_op(n, QX_OP_trt_TRT_FP8DequantizeLinear) || is_op(n, QX_OP_trt_TRT_INT4DequantizeLinear);
}
static bool is_linear(const qx_node *n) { return (n->op->traits & QX_T_LINEAR) != 0; }
static bool is_fp8(qx_dtype t) { return t == QX_DT_FLOAT8E4M3FN || t == QX_DT_FLOAT8E5M2; }
static bool is_rearranging(const qx_node *n) { return (n->op->traits & QX_T_COPY) != 0; }

static const qx_node *dq_behind(const qx_value *v)
{
    for (int i = 0; i < 8 && v && v->def; i++) {
        if (is_dq(v->def)) return v->def;
        if (!is_rearranging(v->def) && !is_op(v->def, QX_OP_Cast)) return NULL;
        v = qx_node_in(v->def, 0);
    }
    return NULL;
}

static bool is_weight_dq(const qx_node *dq)
{
    qx_const_view c;
    return qx_node_in(dq, 0) && qx_const_trace(dq->in[0], &c);
}

static qx_dtype code_type(const qx_node *dq) { return qx_node_in(dq, 0) ? dq->in[0]->type.dtype : QX_DT_UNDEFINED; }
static qx_dtype scale_type(const qx_node *dq) { return qx_node_in(dq, 1) ? dq->in[1]->type.dtype : QX_DT_UNDEFINED; }

/* A convolution between DequantizeLinears of integer codes. */
static bool is_coded_conv(const qx_node *n)
{
    if (!is_op(n, QX_OP_Conv) || !qx_node_in(n, 0) || !qx_node_in(n, 1)) return false;
    const qx_node *x = n->in[0]->def, *w = n->in[1]->def;
    return is_op(x, QX_OP_DequantizeLinear) && is_op(w, QX_OP_DequantizeLinear) && !qx_dtype_is_float(code_type(x));
}

/* Relu and Clip become part of the range of the codes behind them. */
static bool limits_range(const qx_node *n) { return is_op(n, QX_OP_Relu) || is_op(n, QX_OP_Clip); }

/* Whether a pair is what lets ONNX Runtime run the convolution in front of it on codes. */
static bool ends_conv(const qx_node *dq)
{
    const qx_node *q = qx_node_in(dq, 0) ? dq->in[0]->def : NULL;
    const qx_node *n = is_op(q, QX_OP_QuantizeLinear) && qx_node_in(q, 0) ? q->in[0]->def : NULL;
    if (n && limits_range(n) && qx_node_in(n, 0)) n = n->in[0]->def;
    return is_coded_conv(n);
}

/* Whether n, which ONNX Runtime has for codes too, stands between pairs. */
static bool works_on_codes(const qx_node *n)
{
    const bool has = is_op(n, QX_OP_Mul) || is_op(n, QX_OP_Concat) || is_op(n, QX_OP_MaxPool) || is_op(n, QX_OP_Resize);
    return has && n->out[0]->n_uses == 1 && is_op(n->out[0]->uses->node, QX_OP_QuantizeLinear);
}

/* ---- rules ------------------------------------------------------------------------------------------------------------------ */

/* A Q/DQ pair on an activation none of whose readers is a linear operator: two extra passes over memory, nothing gained.
 * FP4 is dequantized to float32 in 16-bit models too: a Cast stands between. */
static void isolated_pair(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_DequantizeLinear) || is_weight_dq(n)) return;
    for (const qx_use *u = n->out[0]->uses; u; u = u->next)
        if (is_linear(u->node) || is_rearranging(u->node) || u->node->op->traits & (QX_T_ATTENTION | QX_T_QDQ) ||
            is_op(u->node, QX_OP_Add) || is_op(u->node, QX_OP_Cast) || (l->target == QX_TARGET_ORT && works_on_codes(u->node)))
            return;
    if (l->target == QX_TARGET_ORT && ends_conv(n)) return;
    FIND(l, n, "no matrix product or convolution reads '%s': the pair costs two passes over memory and gains nothing", n->out[0]->name);
}

/* Only one of the two inputs of a product is quantized: it runs in float. */
static void half_quantized(linter *l, const qx_node *n)
{
    if (!is_linear(n) || n->n_in < 2) return;
    const qx_node *a = dq_behind(n->in[0]), *b = dq_behind(n->in[1]);
    if (!a == !b) return;
    const qx_node *dq = a ? a : b;
    /* weight-only by design */
    if (b && (qx_dtype_is_small_int(code_type(dq)) || code_type(dq) == QX_DT_FLOAT4E2M1)) return;
    FIND(l, n, "only %s is %s: the product runs in float", a ? "the activation" : "the weight", qx_dtype_get(code_type(dq))->text);
}

static void contrib_operator(linter *l, const qx_node *n)
{
    if (strcmp(n->domain, "com.microsoft") == 0) FIND(l, n, "domain com.microsoft is ONNX Runtime's own");
}

static void tensorrts_own(linter *l, const qx_node *n)
{
    if (strcmp(n->op->domain, "trt") == 0 || strncmp(n->domain, "trt", 3) == 0) FIND(l, n, "an operator of TensorRT alone");
}

/* Its parser has no such element type; it reads powers of two as bytes. */
static void trt_powers(linter *l, const qx_node *n)
{
    if (n->op->traits & QX_T_QDQ && scale_type(n) == QX_DT_FLOAT8E8M0)
        FIND(l, n, "TensorRT's parser has no element type f8e8m0 (--target tensorrt writes TRT_MXFP8DequantizeLinear)");
}

static void trt_zero_point(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_DequantizeLinear) && !is_op(n, QX_OP_QuantizeLinear)) return;
    const qx_value *z = qx_node_in(n, 2);
    if (z && (z->type.dtype == QX_DT_UINT8 || z->type.dtype == QX_DT_UINT4 || z->type.dtype == QX_DT_UINT2))
        FIND(l, n, "TensorRT's quantization is symmetric: a %s zero point is refused", qx_dtype_get(z->type.dtype)->text);
}

static void trt_int4_transpose(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_DequantizeLinear) || code_type(n) != QX_DT_INT4) return;
    for (const qx_use *u = n->out[0]->uses; u; u = u->next)
        if (!is_linear(u->node))
            FIND(l, n, "'%s' stands between the INT4 weight and its product: TensorRT fuses only a plain DequantizeLinear",
                 u->node->op_type);
}

static void trt_few_channels(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_Conv) || !dq_behind(n->in[0]) || !n->in[1]->type.has_shape || n->in[1]->type.rank < 2) return;
    int64_t oc = n->in[1]->type.dims[0].n, ic = n->in[1]->type.dims[1].n;
    if ((oc > 0 && oc <= 4) || (ic > 0 && ic <= 4))
        FIND(l, n, "%lld and %lld channels: there is no 8-bit kernel for a few-channel convolution", (long long)oc, (long long)ic);
}

/* ONNX Runtime up to 1.31 (1.32 no longer, both measured): its selectors turn float8 Q/DQ around MatMul and Conv into integer operators
 * and then refuse the type. */
static void ort_fp8_pair(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_DequantizeLinear) || !is_fp8(code_type(n)) || is_weight_dq(n) || scale_type(n) != QX_DT_FLOAT) return;
    for (const qx_use *u = n->out[0]->uses; u; u = u->next)
        if (is_op(u->node, QX_OP_MatMul) || is_op(u->node, QX_OP_Conv)) {
            FIND(l, n, "float8 Q/DQ before %s '%s' is refused at default settings before 1.32 (session.disable_quant_qdq=1 runs "
                       "it; --target ort writes Cast)", u->node->op_type, u->node->name);
            return;
        }
}

static void ort_fp8_codes_moved(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_QuantizeLinear) || !is_fp8(n->out[0]->type.dtype)) return;
    for (const qx_use *u = n->out[0]->uses; u; u = u->next)
        if (is_rearranging(u->node)) FIND(l, n, "%s on float8 codes is refused", u->node->op_type);
}

static void ort_no_kernel(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_DequantizeLinear)) return;
    qx_dtype c = code_type(n), s = scale_type(n);
    if (c == QX_DT_FLOAT4E2M1 || s == QX_DT_FLOAT8E8M0 || s == QX_DT_FLOAT8E4M3FN || s == QX_DT_BFLOAT16)
        FIND(l, n, "DequantizeLinear of %s with %s scales is not implemented on the CPU", qx_dtype_get(c)->text, qx_dtype_get(s)->text);
}

/* It makes MatMulNBits of blocks along axis 0 straight in front of the product, and multiplies by 8-bit blocks of x then. */
static void ort_turned_blocks(linter *l, const qx_node *n)
{
    const qx_weight *s = qx_node_in(n, 1) ? qx_value_const(n->in[1]) : NULL;
    if (!is_op(n, QX_OP_DequantizeLinear) || !s || s->rank != 2 || qx_attr_int(n, "block_size", 0) <= 0) return;
    for (const qx_use *u = n->out[0]->uses; u; u = u->next) {
        const bool turned = is_op(u->node, QX_OP_Transpose) || (is_op(u->node, QX_OP_Gemm) && qx_attr_int(u->node, "transB", 0));
        if (!turned) continue;
        FIND(l, n, "turned by '%s': dequantized as a whole at each run (blocks along axis 0 straight before a MatMul are not)",
             u->node->op_type);
        return;
    }
}

static void ort_int8_bias(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_DequantizeLinear) || code_type(n) != QX_DT_INT8 || is_weight_dq(n) ||
        qx_graph_opset(n->graph, "") < QX_ORT_BIASED_OPSET)
        return;
    if (qx_feeds_biased_matmul(n->out[0]))
        FIND(l, n, "INT8 codes in front of a MatMul with a bias do not load from opset 21 on (UINT8 with zero point 128 does)");
}

/* The DequantizeLinear of INT8 weights behind the product of two pairs, else NULL. */
static const qx_node *int8_weight_of(const qx_node *n)
{
    const qx_node *x = qx_node_in(n, 0) ? n->in[0]->def : NULL, *w = qx_node_in(n, 1) ? n->in[1]->def : NULL;
    if (!x || !w || !is_op(x, QX_OP_DequantizeLinear) || !is_op(w, QX_OP_DequantizeLinear)) return NULL;
    return is_weight_dq(w) && !is_weight_dq(x) && code_type(w) == QX_DT_INT8 ? w : NULL;
}

static bool goes_to(const qx_value *y, qx_op_id op) { return y->n_uses == 1 && !y->is_output && is_op(y->uses->node, op); }

static bool sizes_known(const qx_type *t)
{
    for (int i = 0; t->has_shape && i < t->rank; i++)
        if (t->dims[i].n < 0) return false;
    return t->has_shape;
}

/* passes/place/ort_products.c has the forms that stay integer. */
static void ort_float_gemm(linter *l, const qx_node *n)
{
    const qx_node *w = int8_weight_of(n);
    const qx_type *x = w ? &n->in[0]->type : NULL;
    if (w && is_op(n, QX_OP_Gemm)) {
        const qx_value *b = qx_node_in(n, 2);
        const bool floats = b && !goes_to(n->out[0], QX_OP_QuantizeLinear) && !(b->def && is_op(b->def, QX_OP_DequantizeLinear));
        if (!qx_node_in(w, 2) || floats)
            FIND(l, n, "computed in float, its weight decoded at each run: an integer Gemm wants a zero point of it, and no float bias");
    } else if (w && is_op(n, QX_OP_MatMul) && goes_to(n->out[0], QX_OP_Add)) {
        const qx_use *u = n->out[0]->uses;
        const qx_value *b = qx_node_in(u->node, 1 - u->index);
        const qx_weight *c = b ? qx_value_const(b) : NULL;
        if (c && x->has_shape && (x->rank == 2 || (sizes_known(x) && c->rank == 1)))
            FIND(l, n, "merged with its bias to a Gemm, which is computed in float, its weight decoded at each run");
    }
}

static void two_bits(linter *l, const qx_node *n)
{
    if (is_op(n, QX_OP_DequantizeLinear) && qx_dtype_bits(code_type(n)) == 2)
        FIND(l, n, "%s does not read codes of %s", qx_target_name(l->target), qx_dtype_get(code_type(n))->text);
}

static void ort_nbits_block(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_ms_MatMulNBits)) return;
    int64_t b = qx_attr_int(n, "block_size", 0);
    if (b < 16 || b > 256) FIND(l, n, "block_size %lld: 16 to 256 are computed right", (long long)b);
}

static void ort_nbits_level(linter *l, const qx_node *n)
{
    if (is_op(n, QX_OP_ms_MatMulNBits) && qx_attr_int(n, "bits", 4) == 8 && qx_attr_int(n, "accuracy_level", 0) != 4)
        FIND(l, n, "8-bit codes without accuracy_level 4: the whole weight is dequantized at each run");
}

static bool writes_codes(const qx_value *v)
{
    if (!v->n_uses || v->is_output) return false;
    if (v->n_uses == 1 && limits_range(v->uses->node)) return writes_codes(v->uses->node->out[0]);
    for (const qx_use *u = v->uses; u; u = u->next)
        if (!is_op(u->node, QX_OP_QuantizeLinear) && !is_rearranging(u->node)) return false;
    return true;
}

static void ort_float_conv(linter *l, const qx_node *n)
{
    if (is_coded_conv(n) && !writes_codes(n->out[0]))
        FIND(l, n, "no QuantizeLinear behind it: it runs in float and dequantizes its weight at each run");
}

/* The standard lets the last block of an axis be shorter; the parsers of TensorRT and OpenVINO do not. */
static void whole_blocks(linter *l, const qx_node *n)
{
    const int64_t block = qx_attr_int(n, "block_size", 0);
    const qx_value *x = qx_node_in(n, 0);
    if (!(n->op->traits & QX_T_QDQ) || block <= 0 || !x || !x->type.has_shape) return;
    int64_t axis = qx_attr_int(n, "axis", 1);
    if (axis < 0) axis += x->type.rank;
    if (axis < 0 || axis >= x->type.rank || x->type.dims[axis].n <= 0 || x->type.dims[axis].n % block == 0) return;
    FIND(l, n, "blocks of %lld do not divide the %lld of axis %lld", (long long)block, (long long)x->type.dims[axis].n, (long long)axis);
}

static bool quantizes_activations(const qx_graph *g)
{
    QX_FOR_NODES(g, n)
        if (is_op(n, QX_OP_QuantizeLinear) && !qx_dtype_is_float(n->out[0]->type.dtype)) return true;
    return false;
}

/* 2026.4 folds blocks into constants, but keeps codes with a scale a row for its integer kernels, of which these have none. */
static void ov_recurrence(linter *l, const qx_node *n)
{
    if (!is_op(n, QX_OP_LSTM) && !is_op(n, QX_OP_GRU)) return;
    for (uint32_t i = 1; i <= 2; i++) {
        const qx_node *dq = qx_node_in(n, i) ? dq_behind(n->in[i]) : NULL;
        if (!dq || qx_attr_int(dq, "block_size", 0) || !is_weight_dq(dq) || !quantizes_activations(l->m->graph)) continue;
        FIND(l, n, "codes of '%s' with a scale a row do not load beside quantized activations (--target openvino writes blocks)",
             n->in[i]->name);
    }
}

static void ov_fp8_cast(linter *l, const qx_node *n)
{
    if (is_op(n, QX_OP_Cast) && n->n_out && is_fp8(n->out[0]->type.dtype))
        FIND(l, n, "a Cast to float8 does not saturate there: values beyond the range become NaN (QuantizeLinear saturates)");
}

/* The first stored scale that is bad: its index, or -1. */
static int64_t find_scale(linter *l, const qx_node *n, bool (*bad)(float v), float *out)
{
    float v[1024];
    qx_const_view c;
    if (!(n->op->traits & QX_T_QDQ) || !qx_node_in(n, 1) || !qx_const_trace(n->in[1], &c) || c.tensor->job) return -1;
    for (int64_t at = 0; at < c.tensor->numel; at += 1024) {
        const int64_t k = c.tensor->numel - at < 1024 ? c.tensor->numel - at : 1024;
        if (qx_weight_read_f32(l->m->ctx, c.tensor, at, k, v) != QX_OK) return -1;
        for (int64_t i = 0; i < k; i++)
            if (bad(v[i])) return *out = v[i], at + i;
    }
    return -1;
}

static bool is_useless(float v) { return !(v > -3.4e38f && v < 3.4e38f) || v == 0; }
static bool is_negative(float v) { return v < 0; }

/* A scale of 0, not finite or subnormal makes zeros or NaN of everything behind it. */
static void bad_scale(linter *l, const qx_node *n)
{
    float v;
    const int64_t i = find_scale(l, n, is_useless, &v);
    if (i >= 0) FIND(l, n, "scale[%lld] is %g", (long long)i, (double)v);
}

static void trt_negative_scale(linter *l, const qx_node *n)
{
    float v;
    const int64_t i = find_scale(l, n, is_negative, &v);
    if (i >= 0) FIND(l, n, "scale[%lld] is %g: TensorRT's parser takes positive scales only", (long long)i, (double)v);
}

/* An element type that the operator does not have at this version: runtimes refuse such a file. */
static void wrong_type(linter *l, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_value *v = qx_node_in(n, i);
        const uint32_t may = v ? qx_op_input_types(n->op, i) : 0;
        if (!may || v->type.kind != QX_KIND_TENSOR || !v->type.dtype || may >> v->type.dtype & 1) continue;
        FIND(l, n, "input %u is %s, which %s of opset %d does not take", i, qx_dtype_get((int)v->type.dtype)->text, n->op_type,
             n->op->since);
        return;
    }
}

enum { GENERIC = 1u << QX_TARGET_GENERIC, ORT = 1u << QX_TARGET_ORT, TRT = 1u << QX_TARGET_TENSORRT,
       OV = 1u << QX_TARGET_OPENVINO, ALL = GENERIC | ORT | TRT | OV };
static const struct rule { const char *name, *brief; unsigned targets; bool error; void (*check)(linter *l, const qx_node *n); } rules[] = {
    {"types", "element types that an operator does not have", ALL, true, wrong_type},
    {"bad-scale", "scales that are 0, infinite or NaN", ALL, true, bad_scale},
    {"isolated-pair", "Q/DQ that no product reads", ORT | TRT, false, isolated_pair},
    {"half-quantized", "products with one quantized input", TRT, false, half_quantized},
    {"contrib", "operators of com.microsoft", TRT, true, contrib_operator},
    {"powers-of-two", "scales of type f8e8m0", TRT, true, trt_powers},
    {"trt", "operators of TensorRT's own", ORT | OV, true, tensorrts_own},
    {"two-bits", "codes of 2 bits", TRT | OV, true, two_bits},
    {"zero-point", "asymmetric quantization", TRT, true, trt_zero_point},
    {"negative-scale", "scales below 0", TRT, true, trt_negative_scale},
    {"whole-blocks", "blocks that do not divide their axis", TRT | OV, true, whole_blocks},
    {"fp8-cast", "Cast to float8", OV, true, ov_fp8_cast},
    {"recurrence", "LSTM and GRU whose codes have a scale a row", OV, true, ov_recurrence},
    {"int4-transpose", "something between an INT4 weight and its product", TRT, false, trt_int4_transpose},
    {"few-channels", "8-bit convolutions with few channels", TRT, false, trt_few_channels},
    {"fp8-pair", "float8 Q/DQ around MatMul and Conv", ORT, true, ort_fp8_pair},
    {"fp8-codes", "float8 codes that are transposed or reshaped", ORT, true, ort_fp8_codes_moved},
    {"no-kernel", "types without a CPU kernel", ORT, true, ort_no_kernel},
    {"turned-blocks", "weights in blocks that are turned behind their DequantizeLinear", ORT, false, ort_turned_blocks},
    {"int8-bias", "INT8 inputs of a MatMul with a bias, from opset 21 on", ORT, true, ort_int8_bias},
    {"float-conv", "quantized convolutions without a pair behind them", ORT, false, ort_float_conv},
    {"float-gemm", "INT8 products that become a Gemm of floats", ORT, false, ort_float_gemm},
    {"nbits-level", "8-bit MatMulNBits that has no kernel", ORT, false, ort_nbits_level},
    {"nbits-block", "MatMulNBits block sizes that are computed wrong", ORT, true, ort_nbits_block},
};

const char *qx_lint_rule(int i, const char **brief)
{
    if (i < 0 || i >= (int)(sizeof rules / sizeof *rules)) return NULL;
    *brief = rules[i].brief;
    return rules[i].name;
}

static qx_status visit(void *user, qx_node *n)
{
    linter *l = user;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (!(rules[i].targets & (1u << l->target))) continue;
        l->rule = rules[i].name;
        l->error = rules[i].error;
        rules[i].check(l, n);
    }
    return l->st;
}

qx_status qx_lint(qx_model *m, qx_target target, qx_arena *arena, qx_finding **out, int64_t *count)
{
    linter l = {.m = m, .target = target, .arena = arena};
    if (target == QX_TARGET_ORT && m->ir_version > 13 && m->graph->first) {
        l.rule = "ir-version";
        l.error = true;
        FIND(&l, m->graph->first, "IR version %lld: ONNX Runtime reads up to 13 before 1.32", (long long)m->ir_version);
    }
    QX_TRY(qx_model_each_node(m, visit, &l));
    *out = l.items;
    *count = l.n;
    return QX_OK;
}

qx_status qx_lint_json(const char *model, const qx_finding *f, int64_t n, qx_buf *out)
{
    qx_jsonw w;
    qx_jsonw_init(&w, out, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(qx_jsonw_string(&w, "model", model));
    QX_TRY(qx_jsonw_begin_array(&w, "findings"));
    for (int64_t i = 0; i < n; i++) {
        QX_TRY(qx_jsonw_begin_object(&w, NULL));
        QX_TRY(qx_jsonw_string(&w, "rule", f[i].rule));
        QX_TRY(qx_jsonw_string(&w, "severity", f[i].error ? "error" : "warning"));
        QX_TRY(qx_jsonw_string(&w, "node", f[i].node));
        QX_TRY(qx_jsonw_string(&w, "op", f[i].op));
        QX_TRY(qx_jsonw_string(&w, "text", f[i].text));
        QX_TRY(qx_jsonw_end_object(&w));
    }
    QX_TRY(qx_jsonw_end_array(&w));
    return qx_jsonw_end_object(&w);
}
