/* weights_only.c - int4, int2, int8-weights, fp8-weights: the weight is stored in few bits and dequantized by its reader;
 * activations stay float. Needs no samples; with samples the search for block scales weighs every input channel by E[x^2]. */
#include <stdio.h>

#include "passes/place/scheme.h"
#include "passes/search/sequence.h"

#define HALF_SCALES_OPTION {"half-scales", QX_OPT_BOOL, "true", 0, 1, NULL, \
    "block scales of float32 weights are stored as float16 behind a Cast, which runtimes fold as they load (not for tensorrt)"}

#define FEW_BITS_OPTIONS(ZERO, SCALE, LOWEST) \
    {"block", QX_OPT_INT, "32", 8, 65536, NULL, \
     "elements of the contraction that share a scale (32, 64, 128; smaller is more accurate and larger in file)"}, \
    {"zero-point", QX_OPT_BOOL, ZERO, 0, 1, NULL, "asymmetric blocks with a zero point (not for tensorrt)"}, \
    {"scale", QX_OPT_CHOICE, "search", 0, 0, "search|amax", "block scale of least squared error, or " SCALE}, \
    {"negative-scale", QX_OPT_BOOL, "true", 0, 1, NULL, \
     "let the search use a negative scale, so that the largest value lands on " LOWEST " (not for tensorrt)"}, \
    HALF_SCALES_OPTION, \
    QX_SCHEME_UNBLOCKED_OPTION, \
    QX_SCHEME_LEVEL_OPTION, \
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL}
static const qx_option int4_options[] = {FEW_BITS_OPTIONS("false", "amax/7", "-8")};
static const qx_option int2_options[] = {FEW_BITS_OPTIONS("true", "amax (with a zero point the range over 3)", "-2")};
#define EIGHT_OPTIONS \
    {"block", QX_OPT_INT, "0", 0, 65536, NULL, "elements of the contraction that share a scale; 0: one scale per output channel"}, \
    {"scale", QX_OPT_CHOICE, "amax", 0, 0, "search|amax", "scale of least squared error, or amax over the largest code"}, \
    HALF_SCALES_OPTION
static const qx_option int8_options[] = {EIGHT_OPTIONS, QX_SCHEME_LEVEL_OPTION, {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL}};
static const qx_option fp8_options[] = {
    EIGHT_OPTIONS,
    {"rows", QX_OPT_INT, "1", 1, 65536, NULL,
     "output channels that share a scale too; 128 beside block=128: the squares of DeepSeek's checkpoints (amax alone)"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static qx_status with_name(qx_pass *p, qx_scheme *s, const char *base)
{
    if (s->weight.block > 0) s->name = qx_arena_printf(p->pipe->model->arena, "%s block %lld", base, (long long)s->weight.block);
    else s->name = base;
    return s->name ? QX_OK : QX_E_NOMEM;
}

static qx_scale_rule rule_of(const qx_pass *p) { return qx_opt_text(p, "scale")[0] == 's' ? QX_SCALE_SEARCH : QX_SCALE_AMAX; }

static bool is_exact(const qx_pass *p) { return qx_opt_text(p, "accuracy-level")[0] == '0'; }

static qx_status plan_few_bits(qx_pass *p, qx_model *m, qx_stats *stats, qx_dtype is_signed, qx_dtype is_unsigned)
{
    const bool zero = qx_opt_bool(p, "zero-point"), positive = qx_target_has(p->pipe->opt->target, QX_TARGET_POSITIVE_SCALES);
    if (zero && p->pipe->opt->target == QX_TARGET_TENSORRT)
        QX_FAIL(p->ctx, QX_E_USAGE, "%s(zero-point=true): TensorRT's INT4 is symmetric; leave it out or use another --target",
                p->def->name);
    qx_scheme s = {.family = QX_FAMILY_WEIGHT_ONLY, .importance = true, .unblocked = qx_scheme_unblocked(p), .exact_input = is_exact(p),
                   .float_scales = !qx_opt_bool(p, "half-scales")};
    s.weight = (qx_qspec){.codes = zero ? is_unsigned : is_signed, .block = qx_opt_int(p, "block"), .zero_point = zero,
                          .rule = rule_of(p),
                          .allow_negative_scale = qx_opt_bool(p, "negative-scale") && !positive};
    QX_TRY(with_name(p, &s, p->def->name));
    return qx_scheme_plan(p, m, stats, &s);
}

static qx_status plan_int4(qx_pass *p, qx_model *m, qx_stats *stats) { return plan_few_bits(p, m, stats, QX_DT_INT4, QX_DT_UINT4); }

static qx_status plan_int2(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_target target = p->pipe->opt->target;
    if (qx_target_has(target, QX_TARGET_NO_TWO_BITS))
        QX_FAIL(p->ctx, QX_E_USAGE, "int2: --target %s reads no 2-bit weights; use int4, or another --target", qx_target_name(target));
    return plan_few_bits(p, m, stats, QX_DT_INT2, QX_DT_UINT2);
}

static qx_status plan_eight(qx_pass *p, qx_model *m, qx_stats *stats, qx_dtype codes, const char *name)
{
    qx_scheme s = {.family = QX_FAMILY_WEIGHT_ONLY, .importance = true, .exact_input = codes == QX_DT_INT8 && is_exact(p),
                   .float_scales = !qx_opt_bool(p, "half-scales")};
    s.weight = (qx_qspec){.codes = codes, .block = qx_opt_int(p, "block"), .narrow = codes == QX_DT_INT8, .rule = rule_of(p)};
    QX_TRY(with_name(p, &s, name));
    return qx_scheme_plan(p, m, stats, &s);
}

static qx_status plan_int8(qx_pass *p, qx_model *m, qx_stats *stats) { return plan_eight(p, m, stats, QX_DT_INT8, "int8-weights"); }
/* Weights that are solved in turn are kept with a scale for each row before the format's scales are chosen. */
static qx_status check_turns(const qx_pass *p)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++)
        for (int j = 0; plan->items[i].pass == p && j < p->pipe->n_passes; j++)
            if (qx_in_turn(p->pipe->passes[j], &plan->items[i]))
                QX_FAIL(p->ctx, QX_E_USAGE, "fp8-weights(rows=%lld) and %s(sequential=true): layers solved in turn have a scale for each "
                                            "row; leave one of both out", (long long)qx_opt_int(p, "rows"), p->pipe->passes[j]->def->name);
    return QX_OK;
}

static qx_status plan_fp8(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const int64_t rows = qx_opt_int(p, "rows"), block = qx_opt_int(p, "block");
    if (rows == 1) return plan_eight(p, m, stats, QX_DT_FLOAT8E4M3FN, "fp8-weights");
    if (block == 0) QX_FAIL(p->ctx, QX_E_USAGE, "fp8-weights(rows=%lld) is for blocks: write block=128,rows=128", (long long)rows);
    if (rule_of(p) != QX_SCALE_AMAX)
        QX_FAIL(p->ctx, QX_E_USAGE, "fp8-weights(rows=%lld,scale=search): the scale of a square is its largest value; leave scale out",
                (long long)rows);
    QX_TRY(check_turns(p));
    qx_scheme s = {.family = QX_FAMILY_WEIGHT_ONLY};
    s.weight = (qx_qspec){.codes = QX_DT_FLOAT8E4M3FN, .block = block, .given_rows = rows, .rule = QX_SCALE_AMAX};
    QX_TRY(with_name(p, &s, "fp8-weights"));
    s.still = s.name;
    s.name = qx_arena_printf(m->arena, "%s x %lld", s.name, (long long)rows);
    return s.name ? qx_scheme_plan(p, m, stats, &s) : QX_E_NOMEM;
}

const qx_passdef qx_pass_int4 = {
    .name = "int4", .brief = "INT4 weights in blocks; activations stay float", .options = int4_options, .flags = QX_PASS_FORMAT,
    .plan = plan_int4, .run = qx_scheme_run,
    .doc = "W in blocks of `block` elements along the contraction, 4 bits each and one scale a block. The scale is searched per\n"
           "block: the largest value on 7 or on -8, shrunk in a few steps and fitted by least squares to the codes it gives,\n"
           "weighted by E[x^2] of the input channel when samples are given; what counts is the scale as stored (rounded).\n"
           "Embeddings, recurrences and heads of language models have 8 bits (--tables);\n"
           "convolutions, which have no blocks, are stored in INT8 with a scale per channel.\n"
           "--target ort writes MatMulNBits, generic and tensorrt DequantizeLinear on [K,N], of which ONNX Runtime makes the same;\n"
           "openvino, and generic with accuracy-level=0, DequantizeLinear on [N,K] + Transpose."};
const qx_passdef qx_pass_int2 = {
    .name = "int2", .brief = "INT2 weights in blocks, for what bears it; activations stay float", .options = int2_options,
    .flags = QX_PASS_FORMAT, .plan = plan_int2, .run = qx_scheme_run,
    .doc = "As int4, with four levels a block: scale and zero point are searched together. Few layers bear it: put gptq in front, or let\n"
           "--target-size choose from formats that include it (--formats int2,int4,int8).\n"
           "--target ort writes MatMulNBits of 2 bits, generic DequantizeLinear of the standard's UINT2 (opset 25).\n"
           "TensorRT has no such type."};
const qx_passdef qx_pass_int8_weights = {
    .name = "int8-weights", .brief = "INT8 weights; activations stay float", .options = int8_options, .flags = QX_PASS_FORMAT,
    .plan = plan_int8, .run = qx_scheme_run,
    .doc = "W as INT8 codes with one scale per output channel (or block). Halves an fp16 file with hardly any loss; no samples needed."};
const qx_passdef qx_pass_fp8_weights = {
    .name = "fp8-weights", .brief = "FP8 (E4M3) weights; activations stay float", .options = fp8_options, .flags = QX_PASS_FORMAT,
    .plan = plan_fp8, .run = qx_scheme_run,
    .doc = "W as E4M3 codes with one scale per output channel (or block); no samples needed."};
