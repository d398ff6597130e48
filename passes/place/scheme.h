/* scheme.h - the machinery that FORMAT passes share: a pass fills a qx_scheme from its options, this does the rest. */
#ifndef QX_PASSES_SCHEME_H
#define QX_PASSES_SCHEME_H

#include "passes/linear/activation.h"
#include "passes/place/emit.h"
#include "passes/place/rules.h"

/* An Add of a convolution network and its input that comes past the convolutions. */
typedef struct qx_skip_input { qx_node *add; uint32_t index; } qx_skip_input;
typedef struct qx_skips { qx_skip_input *items; int64_t count; } qx_skips;

typedef struct qx_scheme {
    const char *name;        /* for reports: "int8", "int4 block 32" */
    qx_family family;        /* size rules */
    qx_qspec weight;         /* template; the scale type follows the weight's unless scale is set (E8M0 ...) */
    bool importance;         /* weigh the search by E[x^2] when there is data */
    qx_dtype act;            /* QX_DT_UNDEFINED: weights only */
    float levels;            /* positive levels of act: 127, 448 */
    qx_dynamic dynamic;      /* activations are quantized when the model runs (act is UNDEFINED) */
    const char *still;       /* its name where x stays float all the same (dynamic BLOCK), or rows have scales of their own (squares) */
    bool act_zero;           /* activations with a zero point (UINT8) */
    bool act_zero_auto;      /* ... those of linear operators that lie mostly on one side of 0 */
    qx_range_options range;
    bool range_auto;         /* a range that a WEIGHTS pass chose on the output (item->act_range) comes before `range` */
    float given;             /* such a range, for one item; 0: none */
    double level;            /* 0: no levels */
    bool attention;          /* products of attention too */
    bool rest;               /* weights of operators that stay float for their name or level: stored in INT8 all the same */
    bool exact_input;        /* no runtime may round its input; else ONNX Runtime may (accuracy_level 4) */
    bool unblocked;          /* weights that have no blocks: INT8 with a scale a channel (else float) */
    bool float_scales;       /* block scales of float32 weights are stored in that type, never in float16 */
    bool few_blocks;         /* weights that have blocks are few: INT8 for them too; found by qx_scheme_plan */
    bool keep_end;           /* convolutions of a UNet's first down and last up block: x stays float */
    int end_block;           /* its number, -1: none; found by qx_scheme_plan */
    bool one_row;            /* operators with one row a sample: x stays float, the weight alone in INT8 */
    bool residual;           /* skip inputs of residual Adds in convolution networks */
    qx_skips skips;          /* those; found by qx_scheme_plan */
    bool concat;             /* one scale for a Concat and its inputs */
    bool outputs;            /* what quantized convolutions write */
    bool pools;              /* ... only where poolings hand it on to others: with their codes */
    float flat;              /* while one such output is decided: below -flat its readers need no values apart; 0: they do */
} qx_scheme;

/* plan(): settles which items the pass keeps, fills their spec and act, asks for statistics. p->state is the scheme (in the
 * model's arena). */
qx_status qx_scheme_plan(qx_pass *p, qx_model *m, qx_stats *stats, const qx_scheme *scheme);
/* run(): scales from statistics, then nodes. */
qx_status qx_scheme_run(qx_pass *p, qx_model *m, qx_stats *stats);
/* Asks for what qx_scheme_act_scale will read of v. Diffusion recipes (level > 0) ask for the timesteps too, which cost nothing:
 * statistics for a range off the histogram (act=mse) then serve every way of choosing it. */
qx_status qx_scheme_want_range(const qx_scheme *s, qx_stats *stats, qx_value *v);
typedef struct qx_act_codes { qx_dtype act; float scale; int32_t zero; } qx_act_codes;
/* Scale and zero point of a value by its statistics, rounded to its type; the reason when they may not be written. */
qx_why qx_scheme_act_scale(qx_pass *p, const qx_scheme *s, const qx_stats *stats, const qx_value *v, qx_act_codes *out,
                           char detail[120]);
/* How the format will store an operator's input, by its statistics so far; the reason when it may not. */
qx_why qx_scheme_input_codes(const qx_plan_item *it, const qx_stats *stats, qx_act_codes *out, char detail[120]);
/* From decide(): x stays float after all, the weight alone is stored, in 8 bits. false: the weight is not this operator's alone, or
 * somebody asked for the format. */
bool qx_scheme_float_input(qx_plan_item *it);
/* Whether the weight of a convolution that is computed in float anyway stays float too: for ONNX Runtime, which multiplies in its fast
 * layout by constants alone and dequantizes other weights at each run, where its codes would hardly make the file smaller. */
bool qx_scheme_float_weight(const qx_plan_item *it);
/* The largest |x| that the codes of an activation span under a scale; of UINT8: half of what they span. */
float qx_scheme_reach(qx_dtype act, float scale);
/* Options of how ranges are chosen, shared by all that puts scales on activations. `without`: what act=auto is where smoothquant
 * chose no range. */
qx_range_options qx_scheme_range(const qx_pass *p, float levels, qx_dtype format, qx_range_method without);
#define QX_SCHEME_RANGE_OPTIONS(without) \
    {"act", QX_OPT_CHOICE, "auto", 0, 0, "auto|max|percentile|entropy|mse|steps-min-mean|steps-mean-max", \
     "how the range of an activation is chosen; auto: by smoothquant on the output, without it " without}, \
    {"percentile", QX_OPT_FLOAT, "99.999", 50, 100, NULL, "for act=percentile: how much of |x| is inside the range"}, \
    {"step-fraction", QX_OPT_FLOAT, "1", 0, 1, NULL, "for act=steps-*: the first part of the diffusion steps that counts"}

/* Options that formats of weights and calibrated activations (int8, fp8) share besides, and the scheme that they make. It lacks
 * name and weight's codes. */
qx_scheme qx_scheme_of_options(const qx_pass *p, qx_dtype act, float levels, qx_range_method without);
#define QX_SCHEME_WEIGHTS_OPTION \
    {"weights", QX_OPT_CHOICE, "channel", 0, 0, "channel|tensor", "one scale per output channel, or one per weight"}
#define QX_SCHEME_PLACE_OPTIONS \
    {"level", QX_OPT_FLOAT, "0", 0, 4, NULL, \
     "diffusion recipes: 1 convolutions, 2 and feed-forward, 2.5 and q/k/v, 3 and all linears but proj_out, 4 and attention; 0: everything but attention"}, \
    {"attention", QX_OPT_BOOL, "false", 0, 1, NULL, "the two products of attention too (level 4 has them)"}, \
    {"rest", QX_OPT_CHOICE, "float", 0, 0, "float|weights", \
     "operators that stay float for their name or level: all float, or their weights alone in INT8 (first and last convolution excepted)"}, \
    {"end", QX_OPT_CHOICE, "quantize", 0, 0, "quantize|float", \
     "inputs of the convolutions in a diffusion UNet's first down and last up block, whose error reaches the output undamped"}, \
    {"one-row", QX_OPT_CHOICE, "weights", 0, 0, "weights|quantize", \
     "operators with one row a sample (behind pooling, of a timestep), while they hold under half of the weights: " \
     "weights alone in INT8, as 8 bits of such inputs cost accuracy and gain no time; or inputs too"}, \
    {"residual", QX_OPT_CHOICE, "auto", 0, 0, "auto|on|off", \
     "Q/DQ on the skip input of residual Adds of convolution networks; auto: for tensorrt, which fuses them"}, \
    {"concat", QX_OPT_CHOICE, "auto", 0, 0, "auto|on|off", \
     "one scale for a Concat's output and its quantized inputs, so that codes are moved and not rescaled; auto: for tensorrt"}

/* The unblocked option of formats in blocks: "int8". */
bool qx_scheme_unblocked(const qx_pass *p);
#define QX_SCHEME_UNBLOCKED_OPTION \
    {"unblocked", QX_OPT_CHOICE, "int8", 0, 0, "int8|float", \
     "weights that have no blocks (convolutions, Einsum over several axes): INT8 with a scale per channel, or float"}

#define QX_SCHEME_LEVEL_OPTION \
    {"accuracy-level", QX_OPT_CHOICE, "4", 0, 0, "0|4", \
     "for ONNX Runtime (targets generic and ort): 4 lets it multiply by 8-bit blocks of x, rounded as it runs (docs/runtimes.md); 0: x as it is, many times slower in generic"}

/* attention.c: the four inputs of the two products of every attention that the pass may have. */
qx_status qx_attention_plan(qx_pass *p, qx_stats *stats, const qx_scheme *s);
qx_status qx_attention_run(qx_pass *p, const qx_stats *stats, const qx_scheme *s);
/* residual.c: skip inputs of residual Adds. */
qx_status qx_residual_plan(qx_pass *p, qx_stats *stats, qx_scheme *s);
qx_status qx_residual_run(qx_pass *p, qx_stats *stats, const qx_scheme *s);
/* concat.c: one scale for a Concat's output and its inputs, where those have pairs. After the scales are decided. */
qx_status qx_concat_share(qx_pass *p);

/* outputs.c: pairs behind quantized convolutions. After the scales of inputs are decided, before pairs are written. */
qx_status qx_outputs_plan(qx_pass *p, qx_stats *stats, const qx_scheme *s);
/* x = f(y), y what a convolution writes: where y has a pair too, x is rounded twice. f QX_ACTIVATION_NONE: x is made otherwise. */
typedef struct qx_twice { const qx_plan_item *maker; const qx_value *y; qx_activation f; float slope; } qx_twice;
qx_twice qx_output_twice(const struct qx_plan *plan, const qx_plan_item *it);
const qx_value *qx_output_end(const qx_plan_item *it); /* what has the pair then */
/* From decide(): the codes that a convolution's result will have, by the statistics so far; false: it will have no pair of its own. */
bool qx_output_codes(const qx_plan_item *it, const qx_stats *stats, qx_act_codes *out);
qx_status qx_outputs_run(qx_pass *p, const qx_stats *stats, const qx_scheme *s);

/* slope.c: how far below 0 codes of v reach, which conv writes and a LeakyRelu or PRelu reads; 0: as far as its values. And what is asked
 * of v for that. */
qx_status qx_slope_plan(const qx_scheme *s, qx_stats *stats, const qx_plan_item *conv, const qx_value *v);
qx_status qx_slope_reach(const qx_scheme *s, const qx_stats *stats, const qx_plan_item *conv, const qx_value *v, float *reach);

/* skips.c: what quantized convolutions read as codes and residual Adds read too: all of them read the pair (it->skips_too). `first`: found
 * at plan time; later what still holds. Written between outputs and items. */
void qx_skips_mark(qx_pass *p, bool first);
qx_status qx_skips_write(qx_pass *p);

/* What a search of the weight's scales weighs columns by, where the scheme of its pass p does so. run() does it, and before that whoever
 * solves the weight already. */
void qx_scheme_weigh(const qx_pass *p, const qx_stats *stats, qx_plan_item *it);

#endif
