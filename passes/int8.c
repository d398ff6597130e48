/* int8.c - W8A8: weights per output channel, symmetric (scale amax/127); activations per tensor, with a zero point where they lie
 * on one side of 0. */
#include "passes/place/scheme.h"

static const qx_option options[] = {
    QX_SCHEME_RANGE_OPTIONS("mse"),
    QX_SCHEME_WEIGHTS_OPTION,
    {"zero-point", QX_OPT_BOOL, "auto", 0, 1, "auto",
     "activations as UINT8 with a zero point; auto: those that lie mostly on one side of 0 (never for tensorrt, whose INT8 is symmetric)"},
    QX_SCHEME_PLACE_OPTIONS,
    {"outputs", QX_OPT_CHOICE, "auto", 0, 0, "auto|on|off",
     "Q/DQ behind quantized convolutions too, for runtimes that have no convolution of codes in and floats out; auto: for ort and generic"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    /* TensorRT's INT8 is symmetric */
    const char asked = p->pipe->opt->target == QX_TARGET_TENSORRT ? 'f' : qx_opt_text(p, "zero-point")[0];
    const bool zero = asked == 't';
    qx_scheme s = qx_scheme_of_options(p, zero ? QX_DT_UINT8 : QX_DT_INT8, 127, QX_RANGE_MSE);
    s.name = "int8";
    s.family = QX_FAMILY_INT8;
    s.weight.codes = QX_DT_INT8;
    s.weight.narrow = true;
    s.act_zero = zero;
    s.act_zero_auto = asked == 'a';
    const qx_target target = p->pipe->opt->target;
    const bool fuses = qx_opt_text(p, "outputs")[0] == 'a' && qx_target_has(target, QX_TARGET_FUSES_CODES);
    s.outputs = fuses || qx_opt_text(p, "outputs")[1] == 'n';
    s.pools = s.outputs || target == QX_TARGET_OPENVINO;
    if (zero) s.concat = false; /* inputs on different sides of 0 have no scale in common */
    return qx_scheme_plan(p, m, stats, &s);
}

const qx_passdef qx_pass_int8 = {
    .name = "int8", .brief = "INT8 weights and activations (W8A8)", .options = options,
    .flags = QX_PASS_FORMAT | QX_PASS_CALIBRATED | QX_PASS_ROUNDS_X, .plan = plan, .run = qx_scheme_run,
    .doc = "y = DQ(Q(x)) W, W stored as INT8 codes with one scale per output channel (amax/127), x quantized per tensor with a\n"
           "scale from calibration (range/127; the range of least squared error unless act says otherwise); UINT8 with a zero "
           "point where x lies mostly on one side of 0. Bias stays float. Heads and embeddings: weights alone (--tables).\n"
           "Float by default: convolutions with few channels, contractions or outputs under 16 (rules of TensorRT and ONNX Runtime).\n"
           "Use it when the device has INT8 matrix units; add smoothquant for language models with outlier channels."};
