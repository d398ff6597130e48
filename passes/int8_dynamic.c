/* int8_dynamic.c - W8A8 without calibration: weights per output channel, activations by the values they have when the model runs. */
#include <string.h>

#include "passes/place/scheme.h"

static const qx_option options[] = {
    {"scale", QX_OPT_CHOICE, "row", 0, 0, "row|tensor",
     "what of an activation shares a scale: a row (a token), or the tensor, as ONNX Runtime's quantize_dynamic has it and fuses it"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    if (p->pipe->opt->target == QX_TARGET_TENSORRT)
        QX_FAIL(p->ctx, QX_E_USAGE, "TensorRT has no INT8 activations whose scale is found at run time; int8 finds them by calibration");
    qx_scheme s = {.name = "int8-dynamic", .family = QX_FAMILY_INT8,
                   .dynamic = strcmp(qx_opt_text(p, "scale"), "row") ? QX_DYNAMIC_TENSOR : QX_DYNAMIC_ROW};
    s.weight = (qx_qspec){.codes = QX_DT_INT8, .narrow = true, .rule = QX_SCALE_AMAX};
    return qx_scheme_plan(p, m, stats, &s);
}

const qx_passdef qx_pass_int8_dynamic = {
    .name = "int8-dynamic", .brief = "INT8 weights, activations in INT8 by the values they have at run time (W8A8 without samples)",
    .options = options, .flags = QX_PASS_FORMAT | QX_PASS_ROUNDS_X,
    .plan = plan, .run = qx_scheme_run,
    .doc = "y = (Q(x) Wq) s_x s_w by MatMulInteger: W stored as INT8 codes with one scale per output channel (amax/127), x "
           "quantized when the\n"
           "model runs, a row (token) at a time by its largest value, or the tensor at once (DynamicQuantizeLinear). Needs no "
           "samples. What is no\n"
           "product by one matrix (convolutions above all) keeps float arithmetic with its weight in INT8.\n"
           "Use it for transformers on CPUs. TensorRT does not run it."};
