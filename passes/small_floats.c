/* small_floats.c - nvfp4, mxfp8, mxfp4: weights as 4 and 8 bit floats in small blocks; activations stay float.
 *
 * nvfp4: E2M1 codes in blocks of 16 under E4M3 block scales under one float for the tensor: two DequantizeLinear, as TensorRT
 * expects them. mxfp8, mxfp4: E4M3 or E2M1 codes in blocks of 32 under power-of-two scales (E8M0), the OCP microscaling formats
 * in the standard's own operators (opset 24). */
#include "passes/place/scheme.h"

static const qx_option options[] = {
    {"scale", QX_OPT_CHOICE, "search", 0, 0, "search|amax", "block scale of least squared error, or amax over the largest code"},
    QX_SCHEME_UNBLOCKED_OPTION,
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats, qx_dtype codes, qx_dtype scale, int64_t block)
{
    qx_scheme s = {.name = p->def->name, .family = QX_FAMILY_WEIGHT_ONLY, .importance = true, .unblocked = qx_scheme_unblocked(p)};
    s.weight = (qx_qspec){.codes = codes, .scale = scale, .block = block,
                          .rule = qx_opt_text(p, "scale")[0] == 's' ? QX_SCALE_SEARCH : QX_SCALE_AMAX};
    return qx_scheme_plan(p, m, stats, &s);
}

static qx_status plan_nvfp4(qx_pass *p, qx_model *m, qx_stats *stats)
{
    return plan(p, m, stats, QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E4M3FN, 16);
}
static qx_status plan_mxfp8(qx_pass *p, qx_model *m, qx_stats *stats)
{
    return plan(p, m, stats, QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E8M0, 32);
}
static qx_status plan_mxfp4(qx_pass *p, qx_model *m, qx_stats *stats) { return plan(p, m, stats, QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E8M0, 32); }

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
