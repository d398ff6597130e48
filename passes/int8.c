/* int8.c - W8A8: weights per output channel, symmetric (scale amax/127); activations per tensor, with a zero point where they lie on one side of 0. */
#include "passes/place/scheme.h"

static const qx_option options[] = {
    QX_SCHEME_RANGE_OPTIONS("mse"),
    {"weights", QX_OPT_CHOICE, "channel", 0, 0, "channel|tensor", "one scale per output channel, or one per weight"},
    {"zero-point", QX_OPT_BOOL, "auto", 0, 1, "auto", "activations as UINT8 with a zero point; auto: those that lie mostly on one side of 0 (never for tensorrt, whose INT8 is symmetric)"},
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
    const char asked = p->pipe->opt->target == QX_TARGET_TENSORRT ? 'f' : qx_opt_text(p, "zero-point")[0]; /* TensorRT's INT8 is symmetric */
    bool zero = asked == 't';
    double level = qx_opt_float(p, "level");
    qx_scheme s = {.name = "int8", .family = QX_FAMILY_INT8, .act = zero ? QX_DT_UINT8 : QX_DT_INT8, .levels = 127, .act_zero = zero, .act_zero_auto = asked == 'a', .level = level,
                   .attention = level >= 4 || qx_opt_bool(p, "attention"), .rest = qx_scheme_rest(p), .keep_end = qx_scheme_keep_end(p), .one_row = qx_scheme_one_row(p), .residual = qx_scheme_fuses(p, "residual"),
                   .concat = !zero && qx_scheme_fuses(p, "concat")};
    s.weight = (qx_qspec){.codes = QX_DT_INT8, .block = qx_opt_text(p, "weights")[0] == 't' ? -1 : 0, .narrow = true, .rule = QX_SCALE_AMAX};
    s.range = qx_scheme_range(p, s.levels, s.act, QX_RANGE_MSE);
    s.range_auto = qx_scheme_range_auto(p);
    return qx_scheme_plan(p, m, stats, &s);
}

const qx_passdef qx_pass_int8 = {
    .name = "int8", .brief = "INT8 weights and activations (W8A8)", .options = options, .flags = QX_PASS_FORMAT | QX_PASS_CALIBRATED | QX_PASS_ROUNDS_X, .plan = plan, .run = qx_scheme_run,
    .doc = "y = DQ(Q(x)) W, W stored as INT8 codes with one scale per output channel (amax/127), x quantized per tensor with a\n"
           "scale from calibration (range/127; the range of least squared error unless act says otherwise); UINT8 with a zero point where x lies mostly on one side of 0. Bias stays float. Kept float by default: heads, embeddings,\n"
           "convolutions with few channels, contractions or outputs under 16 (placement rules of TensorRT and ONNX Runtime).\n"
           "Use it when the device has INT8 matrix units; add smoothquant for language models with outlier channels."};
