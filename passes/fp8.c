/* fp8.c - E4M3 weights and activations. The scale is always amax/448, so that the codes use the whole range of the format. */
#include "passes/place/scheme.h"

static const qx_option options[] = {
    QX_SCHEME_RANGE_OPTIONS("max"),
    {"weights", QX_OPT_CHOICE, "channel", 0, 0, "channel|tensor", "one scale per output channel, or one per weight"},
    {"level", QX_OPT_FLOAT, "0", 0, 4, NULL, "diffusion recipes: 1 convolutions, 2 and feed-forward, 2.5 and q/k/v, 3 and all linears but proj_out, 4 and attention; 0: everything but attention"},
    {"attention", QX_OPT_BOOL, "false", 0, 1, NULL, "the two products of attention too (level 4 has them)"},
    QX_SCHEME_REST_OPTION,
    QX_SCHEME_END_OPTION,
    QX_SCHEME_ONE_ROW_OPTION,
    QX_SCHEME_RESIDUAL_OPTION,
    QX_SCHEME_CONCAT_OPTION,
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    double level = qx_opt_float(p, "level");
    qx_scheme s = {.name = "fp8", .family = QX_FAMILY_FP8, .act = QX_DT_FLOAT8E4M3FN, .levels = 448, .level = level,
                   .attention = level >= 4 || qx_opt_bool(p, "attention"), .rest = qx_scheme_rest(p), .keep_end = qx_scheme_keep_end(p), .one_row = qx_scheme_one_row(p), .residual = qx_scheme_fuses(p, "residual"),
                   .concat = qx_scheme_fuses(p, "concat")};
    s.weight = (qx_qspec){.codes = QX_DT_FLOAT8E4M3FN, .block = qx_opt_text(p, "weights")[0] == 't' ? -1 : 0, .rule = QX_SCALE_AMAX};
    s.range = qx_scheme_range(p, s.levels, s.act, QX_RANGE_MAX);
    s.range_auto = qx_scheme_range_auto(p);
    return qx_scheme_plan(p, m, stats, &s);
}

const qx_passdef qx_pass_fp8 = {
    .name = "fp8", .brief = "FP8 (E4M3) weights and activations", .options = options, .flags = QX_PASS_FORMAT | QX_PASS_CALIBRATED | QX_PASS_ROUNDS_X, .plan = plan, .run = qx_scheme_run,
    .doc = "W and x in E4M3 (largest value 448), scale amax/448, W per output channel, x per tensor. Relative precision is the\n"
           "same for small and large values, so outliers cost little where INT8 loses everything. --target ort writes activations\n"
           "as Div, Cast, Cast, Mul, which ONNX Runtime's CPU provider executes; generic and tensorrt write QuantizeLinear.\n"
           "Use it on devices with FP8 matrix units (Ada, Hopper, Blackwell, MI300)."};
