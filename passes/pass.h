/* pass.h - what a pass is. One file passes/NAME.c ends in a const qx_passdef; one line in passes.def names it.
 *
 * plan() looks at the graph and asks for statistics; run() decides first and mutates after, through onnx/edit.h. A pass never runs
 * the model and never copies a weight: it derives jobs and steps (onnx/weight/weight.h). Every node looked at is either applied or skipped
 * with a reason, as data. */
#ifndef QX_PASSES_PASS_H
#define QX_PASSES_PASS_H

#include "calib/stats/stats.h"
#include "onnx/edit.h"

/* Reasons, one row each: QX_WHY(name, text). Texts may be completed with numbers (qx_skipf). */
typedef enum qx_why {
    QX_WHY_NONE = 0,
#define QX_WHY(name, text) QX_WHY_##name,
#include "passes/why.def"
#undef QX_WHY
    QX_WHY_COUNT_
} qx_why;
const char *qx_why_text(qx_why w);

typedef enum qx_option_type { QX_OPT_BOOL, QX_OPT_INT, QX_OPT_FLOAT, QX_OPT_CHOICE, QX_OPT_TEXT } qx_option_type;
typedef struct qx_option {
    const char *name;
    qx_option_type type;
    const char *def;
    double min, max;
    const char *choices;
    const char *help;
} qx_option;
/* Ends with name NULL. choices: "max|percentile|entropy|mse"; INT and FLOAT options may have choices too: words allowed beside
 * numbers ("auto"). */

typedef enum qx_target {
#define QX_TARGET(symbol, name, also, limits) QX_TARGET_##symbol,
#include "passes/targets.def"
#undef QX_TARGET
} qx_target;
enum { /* limits and tastes of a target: passes/targets.def */
    QX_TARGET_WHOLE_BLOCKS = 1, QX_TARGET_POSITIVE_SCALES = 2, QX_TARGET_FLOAT_TABLES = 4, QX_TARGET_NO_TWO_BITS = 8,
    QX_TARGET_CONSTANT_SCALES = 16, QX_TARGET_FUSES_CODES = 32, QX_TARGET_CONTRIB = 64,
};
/* "generic", "ort", "tensorrt", "openvino". */
const char *qx_target_name(qx_target t);
bool qx_target_has(qx_target t, unsigned limit);
/* By name, or as people also call them ("trt", "onnxruntime"); QX_E_USAGE for others. */
qx_status qx_target_parse(qx_ctx *ctx, const char *text, qx_target *out);
typedef struct qx_pass qx_pass;
typedef struct qx_passdef {
    const char *name, *brief;
    const qx_option *options;     /* NULL: none */
    uint32_t flags;
    int order;                    /* of passes that change weights: one may not follow another of a higher order; 0: anywhere */
    const char *doc;              /* longer help for `qonnx passes NAME`: formula, source, when to use; NULL: none */
    qx_status (*plan)(qx_pass *p, qx_model *m, qx_stats *stats); /* NULL: nothing to ask */
    qx_status (*run)(qx_pass *p, qx_model *m, qx_stats *stats);
    /* Before anything else is planned: exact changes of the float graph, so that the sweep sees the model as changed (rotate).
     * Reads no statistics. NULL: none. */
    qx_status (*rewrite)(qx_pass *p, qx_model *m);
    /* the one that rewrite goes by, "off": it does nothing; statistics are kept apart by it alone. NULL: all */
    const char *rewrite_option;
    /* Behind run() of all formats: corrections by the codes that they chose (bias-correction). NULL: none. */
    qx_status (*finish)(qx_pass *p, qx_model *m, qx_stats *stats);
    /* Between the sweep and the first run(), formats first: chooses by what was observed. May measure the model
     * (passes/search/probe.h) but not edit it. NULL: nothing to choose. */
    qx_status (*decide)(qx_pass *p, qx_model *m, qx_stats *stats);
    bool (*probes)(const qx_pass *p); /* whether decide() will run the model with these options; NULL: it will */
    /* Behind plan(): operations that take as long as its own share of the job, for the time told before (passes/job/time.c counts
     * runs, searches of factors, solvers and the writing). NULL: none. */
    double (*work)(const qx_pass *p, const qx_stats *stats);
} qx_passdef;
enum {
    QX_PASS_FORMAT = 1u << 0,     /* ends in a low-precision format: int8, fp8, int4, ... (one node gets one format) */
    QX_PASS_WEIGHTS = 1u << 1,    /* changes weights in float before a format: smoothquant, awq, gptq, sparsity, rotate */
    QX_PASS_CALIBRATED = 1u << 2, /* needs statistics */
    QX_PASS_INTERNAL = 1u << 3,   /* not offered to users by itself */
    QX_PASS_NEEDS_FORMAT = 1u << 4, /* pointless without a format behind it: smoothquant, awq, svdquant, gptq, bias-correction */
    QX_PASS_MIXES = 1u << 5,      /* a FORMAT pass that chooses among other formats: mixed, role-mix */
    QX_PASS_ROUNDS_X = 1u << 6,   /* a FORMAT pass that quantizes activations too: int8, fp8, int8-dynamic */
    QX_PASS_FOR_X = 1u << 7,      /* a WEIGHTS pass that is for quantized activations: smoothquant */
    QX_PASS_FOR_FLOAT_X = 1u << 8, /* a WEIGHTS pass that is for activations that stay float: awq */
    QX_PASS_UNTIMED = 1u << 10,   /* takes time that the forecast of a job does not count: mixed, svdquant, rotate */
    QX_PASS_REORDERS = 1u << 9,   /* rewrite only moves channels: it may follow passes that change weights */
};

/* A pass in a pipeline: its definition, its option values, and what it shares with the others. */
struct qx_pass {
    const qx_passdef *def;
    qx_ctx *ctx;
    struct qx_pipeline *pipe;     /* passes/pipeline.h: target, filters, report, format decisions */
    const char **values;          /* by option index, as text that was checked */
    bool optional;                /* written "name?": left out when there are no samples */
    void *state;                  /* what plan() leaves for run(); in the model's arena */
};
bool qx_opt_bool(const qx_pass *p, const char *name);
int64_t qx_opt_int(const qx_pass *p, const char *name);
double qx_opt_float(const qx_pass *p, const char *name);
const char *qx_opt_text(const qx_pass *p, const char *name);

/* Reports: names are taken from the node as it was in the input model. */
void qx_applied(qx_pass *p, const qx_node *n, const char *format);
bool qx_skip(qx_pass *p, const qx_node *n, qx_why why);           /* true (and recorded) when why != NONE */
bool qx_skipf(qx_pass *p, const qx_node *n, qx_why why, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
