/* small_floats.c - nvfp4, mxfp8, mxfp4: weights as 4 and 8 bit floats in small blocks; activations stay float, or (-dynamic) have the
 * same format, block scales found when the model runs.
 *
 * nvfp4: E2M1 codes in blocks of 16 under E4M3 block scales under one float for the tensor: two DequantizeLinear, as TensorRT
 * expects them. mxfp8, mxfp4: E4M3 or E2M1 codes in blocks of 32 under power-of-two scales (E8M0), the OCP microscaling formats
 * in the standard's own operators (opset 24). Nodes of activations: place/blocks.c. */
#include "passes/place/scheme.h"

static const qx_option options[] = {
    {"scale", QX_OPT_CHOICE, "search", 0, 0, "search|amax", "block scale of least squared error, or amax over the largest code"},
    QX_SCHEME_UNBLOCKED_OPTION,
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

typedef struct blocks { const char *weights; qx_dtype codes, scale; int64_t block; } blocks; /* weights: the format of weights alone */
static const blocks nvfp4 = {"nvfp4", QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E4M3FN, 16},
                    mxfp8 = {"mxfp8", QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E8M0, 32},
                    mxfp4 = {"mxfp4", QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E8M0, 32};

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats, const blocks *b)
{
    const float levels = 6.0f * 448.0f; /* of the second level: the largest code under the largest block scale */
    const bool dynamic = (p->def->flags & QX_PASS_ROUNDS_X) != 0;
    if (b == &mxfp4 && p->pipe->opt->target == QX_TARGET_TENSORRT)
        QX_FAIL(p->ctx, QX_E_USAGE, "TensorRT has no 4-bit floats under powers of two; write nvfp4 or mxfp8, or use another --target");
    qx_scheme s = {.name = p->def->name, .family = QX_FAMILY_WEIGHT_ONLY, .importance = true, .unblocked = qx_scheme_unblocked(p),
                   .dynamic = dynamic ? QX_DYNAMIC_BLOCK : QX_DYNAMIC_NONE, .still = b->weights, .levels = levels,
                   .range = {.method = QX_RANGE_MAX, .levels = levels, .format = b->codes}};
    s.weight = (qx_qspec){.codes = b->codes, .scale = b->scale, .block = b->block,
                          .rule = qx_opt_text(p, "scale")[0] == 's' ? QX_SCALE_SEARCH : QX_SCALE_AMAX};
    return qx_scheme_plan(p, m, stats, &s);
}

static qx_status plan_nvfp4(qx_pass *p, qx_model *m, qx_stats *stats) { return plan(p, m, stats, &nvfp4); }
static qx_status plan_mxfp8(qx_pass *p, qx_model *m, qx_stats *stats) { return plan(p, m, stats, &mxfp8); }
static qx_status plan_mxfp4(qx_pass *p, qx_model *m, qx_stats *stats) { return plan(p, m, stats, &mxfp4); }

const qx_passdef qx_pass_nvfp4 = {
    .name = "nvfp4", .brief = "NVFP4 weights: E2M1 in blocks of 16, two levels of scales", .options = options, .flags = QX_PASS_FORMAT,
    .plan = plan_nvfp4, .run = qx_scheme_run,
    .doc = "4.5 bits a weight. Block scale = E4M3(blockamax / 6 / s2), s2 = amax / (6 * 448); search tries every E4M3 code. Opset 23."};
const qx_passdef qx_pass_mxfp8 = {
    .name = "mxfp8", .brief = "MXFP8 weights: E4M3 in blocks of 32 with power-of-two scales", .options = options,
    .flags = QX_PASS_FORMAT, .plan = plan_mxfp8, .run = qx_scheme_run,
    .doc = "8.25 bits a weight. Scale = 2^ceil(log2(blockamax / 448)); search also tries the neighbouring powers. Opset 24."};
const qx_passdef qx_pass_mxfp4 = {
    .name = "mxfp4", .brief = "MXFP4 weights: E2M1 in blocks of 32 with power-of-two scales", .options = options,
    .flags = QX_PASS_FORMAT, .plan = plan_mxfp4, .run = qx_scheme_run,
    .doc = "4.25 bits a weight. Scale = 2^ceil(log2(blockamax / 6)); search also tries the neighbouring powers. Opset 24."};

const qx_passdef qx_pass_nvfp4_dynamic = {
    .name = "nvfp4-dynamic", .brief = "NVFP4 weights and activations (W4A4), block scales of activations found at run time",
    .options = options, .flags = QX_PASS_FORMAT | QX_PASS_CALIBRATED | QX_PASS_ROUNDS_X, .plan = plan_nvfp4, .run = qx_scheme_run,
    .doc = "Weights as nvfp4; inputs of products in the same format: E2M1 codes in blocks of 16 along the contraction, block scale\n"
           "E4M3(blockamax / 6 / s2) when the model runs, s2 = amax / (6 * 448) from calibration. For TensorRT on Blackwell, which\n"
           "multiplies FP4 by FP4 alone: --target tensorrt writes TRT_FP4DynamicQuantize, the others the standard's operators (opset 23)."};
const qx_passdef qx_pass_mxfp8_dynamic = {
    .name = "mxfp8-dynamic", .brief = "MXFP8 weights and activations (W8A8), block scales of activations found at run time",
    .options = options, .flags = QX_PASS_FORMAT | QX_PASS_ROUNDS_X, .plan = plan_mxfp8, .run = qx_scheme_run,
    .doc = "Weights as mxfp8; inputs of products in the same format, scale 2^ceil(log2(blockamax / 448)) when the model runs. Needs no\n"
           "samples. --target tensorrt writes TRT_MXFP8DynamicQuantize, the others the standard's operators (opset 24)."};
const qx_passdef qx_pass_mxfp4_dynamic = {
    .name = "mxfp4-dynamic", .brief = "MXFP4 weights and activations (W4A4), block scales of activations found at run time",
    .options = options, .flags = QX_PASS_FORMAT | QX_PASS_ROUNDS_X, .plan = plan_mxfp4, .run = qx_scheme_run,
    .doc = "Weights as mxfp4; inputs of products in the same format, scale 2^ceil(log2(blockamax / 6)) when the model runs. Needs no\n"
           "samples; the standard's operators (opset 24). Not for TensorRT."};
