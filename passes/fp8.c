/* fp8.c - E4M3 weights and activations. The scale is always amax/448, so that the codes use the whole range of the format. */
#include "passes/place/scheme.h"

static const qx_option options[] = {
    QX_SCHEME_RANGE_OPTIONS("max"),
    QX_SCHEME_WEIGHTS_OPTION,
    QX_SCHEME_PLACE_OPTIONS,
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    qx_scheme s = qx_scheme_of_options(p, QX_DT_FLOAT8E4M3FN, 448, QX_RANGE_MAX);
    s.name = "fp8";
    s.family = QX_FAMILY_FP8;
    s.weight.codes = QX_DT_FLOAT8E4M3FN;
    return qx_scheme_plan(p, m, stats, &s);
}

const qx_passdef qx_pass_fp8 = {
    .name = "fp8", .brief = "FP8 (E4M3) weights and activations", .options = options,
    .flags = QX_PASS_FORMAT | QX_PASS_CALIBRATED | QX_PASS_ROUNDS_X, .plan = plan, .run = qx_scheme_run,
    .doc = "W and x in E4M3 (largest value 448), scale amax/448, W per output channel, x per tensor. Relative precision is the\n"
           "same for small and large values, so outliers cost little where INT8 loses everything. --target ort writes activations\n"
           "as Div, Cast, Cast, Mul, which ONNX Runtime's CPU provider executes; generic and tensorrt write QuantizeLinear.\n"
           "Use it on devices with FP8 matrix units (Ada, Hopper, Blackwell, MI300)."};
