/* plan.h - the one place where "a float weight transform", "statistics" and "a format" meet: one item per linear operator, of a mixture
 * of experts one per layer.
 *
 * How a pipeline runs:
 *   1. qx_plan_new finds the linear operators and gives every one an item. Name filters, --set and the default rules (rules.c) decide
 *      which FORMAT pass has it (item->pass) or why it stays float (item->why).
 *   2. plan() of the FORMAT passes fills item->spec and item->act for the items they have, then plan() of the WEIGHTS passes looks at
 *      them. Both ask for statistics (qx_stats_want) of item->x_stat.
 *   3. After the sweep, run() of the WEIGHTS passes, in text order: they derive float steps (qx_plan_step), rescale statistics that
 *      they change (qx_stats_scale_channels), may fill spec.rule = QX_SCALE_GIVEN + spec.given, or set item->importance. They do not
 *      make jobs. Weights that two linears share have one `weight` record, so a step is added once for both.
 *   4. run() of the FORMAT passes (scheme.c) makes the jobs and the nodes (emit.c).
 *   5. Weights with steps but no format are stored as float again (qx_plan_store_rest).
 * A pass that wants to leave an item float calls qx_item_keep at any time before 4. */
#ifndef QX_PASSES_PLAN_H
#define QX_PASSES_PLAN_H

#include "passes/linear/linear.h"
#include "passes/pipeline.h"

/* Of an input that is quantized when the model runs, what shares a scale. ROW: a token (symmetric); TENSOR:
 * DynamicQuantizeLinear's UINT8 with a zero point, which ONNX Runtime fuses; BLOCK: a block of the weight's format, in that format. */
typedef enum qx_dynamic { QX_DYNAMIC_NONE, QX_DYNAMIC_ROW, QX_DYNAMIC_TENSOR, QX_DYNAMIC_BLOCK } qx_dynamic;

/* What becomes of one stored weight; shared by all linears that use it (tied weights once). */
typedef struct qx_plan_weight {
    qx_value *value;          /* the initializer or the output of the Constant */
    const qx_weight *tensor;
    qx_view view;
    const qx_step *steps;     /* float transform so far; NULL: none */
    qx_qspec spec;            /* format; codes QX_DT_UNDEFINED: stays float */
    const char *format;       /* name for reports: "int8", "int4 block 32" */
    int64_t items;            /* linears that use it */
    bool embedding;           /* one of them is an embedding */
    bool done;                /* emitted */
    bool pruned;              /* a step before made it 2:4: zeros must stay */
    bool exact_input;         /* no runtime may round its input */
    bool settled;             /* table_block is decided */
    float block_amax;         /* root mean square of the largest values of some blocks of 32; 0: not looked at */
    int64_t table_block;      /* of an embedding or a head with outliers: its blocks; 0: as the format has it */
    bool solved;              /* gptq or sparsegpt has put its solver behind it */
    qx_job *job;
    int64_t report_row;       /* of report->tensors; -1: none */
} qx_plan_weight;

typedef struct qx_plan_item {
    const qx_linear *lin;
    qx_plan_weight *weight;   /* NULL: variable weight */
    qx_pass *pass;            /* FORMAT pass that has it; NULL: stays float */
    qx_why why;               /* why it stays float */
    const char *detail;       /* numbers for that reason; may be NULL */
    const char *notes;        /* what WEIGHTS passes did to it ("smoothquant 0.55 (norm)"); NULL: nothing */
    bool asked;               /* named by --set or --include: rules of default names do not apply */
    bool forced;              /* named by --set: rules of sizes do not apply either */
    bool weight_only;         /* the pass stores its weight; x stays float although the format quantizes activations */
    bool table;               /* an embedding, a head ... that nobody named: rows of INT8, which no WEIGHTS pass prepares */
    bool float_output;        /* what it writes is not rounded, although the format would */
    bool skips_too;           /* residual Adds that read x read its pair, as the operator does */
    qx_pass *attention_pass;  /* FORMAT pass that may have it as an attention product (variable weight); NULL: none */
    bool rescaled;            /* its output carries a folded factor or lacks a branch: not comparable with the float model's */
    qx_value *x_stat;         /* value whose range statistics stand for x (same elements, through Reshape/Transpose) */
    qx_dtype act;             /* format of x; UNDEFINED: stays float */
    qx_dynamic dynamic;       /* x is quantized when the model runs (and act is UNDEFINED) */
    /* largest |x| that the format shall reach, chosen on the output by a WEIGHTS pass; 0: by the format's own rule */
    float act_range;
    float act_scale;          /* decided by the format pass in run(); > 0 when act is set, or dynamic is BLOCK (its second level) */
    int32_t act_zero;         /* zero point of x (UINT8) */
    qx_dtype out_act;         /* of its result's own pair, once it is written; UNDEFINED: it has none */
    float out_scale;
    int32_t out_zero;
    double act_sqnr;          /* of x on the rows that calibration kept, decibels; NaN: no rows, or float */
} qx_plan_item;

typedef struct qx_plan {
    qx_linears linears;
    qx_plan_item *items;      /* [linears.count], same index */
    qx_attention *attentions; int64_t n_attentions;
    qx_plan_weight *weights; int64_t n_weights;
    int64_t bytes;            /* of the whole model, as a file */
    qx_dim batch;             /* what counts samples */
    bool store_kept;          /* what stays float by its name is much of it: stored as tables are */
    int32_t *by_node;         /* node id -> index of its (first) item, -1 none; length n_node_ids at the start */
    uint32_t n_nodes;
} qx_plan;

/* What was decided for a node of the input model; indexed by node id. */
typedef struct qx_decision {
    const qx_node *node;
    const char *name, *op, *graph;
    const qx_pass *pass;
    const char *format, *reason, *notes;
    int64_t float_bytes;
    bool rescaled;
} qx_decision;

struct qx_pipeline {
    qx_ctx *ctx;
    qx_arena *arena;              /* of the pipeline: text, option values */
    qx_pass **passes; int n_passes; /* in text order */
    const char *text;
    /* while it runs: */
    const qx_quantize_options *opt;
    qx_pass **settings;           /* FORMAT pass of each --set, [opt->n_settings]; NULL: float */
    qx_pass **set_passes; int n_set_passes; /* the different ones among them (and `tables`) that `passes` has not */
    qx_pass *tables;              /* FORMAT pass of what stays float by its name, as far as it is stored in 8 bits; NULL: it is not */
    bool tables_measured;         /* --tables auto: those that cost too much in 8 bits have 16 */
    bool stores_rest;             /* the main format stores what stays float by its name itself, as its option says */
    qx_model *model;
    qx_plan *plan;
    qx_report *report;
    qx_decision *decisions; uint32_t n_decisions;
    struct qx_emit *emit;         /* emit.c: pairs and weights made so far */
    struct qx_dynamic_input *dynamic; /* dynamic.c: inputs with codes so far */
    bool have_data;               /* there are samples or loaded statistics: optional statistics may be asked for */
    uint64_t stats_hash;          /* of what calibration found, before passes rescale it; 0: no data */
    bool no_stats;                /* dry run without statistics: scales are placeholders, nothing is written */
    int64_t n_quantized;
    qx_status failed;             /* statistics lack what a format needs: told when the pass ends */
    struct qx_pipeline **subs; int64_t n_subs, cap_subs; /* parsed --set formats and those of a mix (qx_pipeline_parse_format) */
    qx_samples *samples;          /* while decide() runs; NULL: none */
    qx_exec *exec;                /* and the executor of the sweep, which has the weights packed; NULL: none */
    int64_t disk_room;            /* bytes that are free where the output goes, and 1; 0: not known */
    qx_samples *shapes;           /* the first one shows how large samples are, for forecasts, in a dry run too; NULL: none */
};

/* Linear operators, filters and rules; fills pipe->plan. */
qx_status qx_plan_new(struct qx_pipeline *pipe, qx_model *m);
/* Linears whose weight is shared with one that stays float stay float too; called again after passes dropped items. */
void qx_plan_settle(struct qx_pipeline *pipe);
/* NULL: not a linear operator. Of a mixture, whose items stand behind each other: the first. */
qx_plan_item *qx_plan_item_of(const qx_plan *plan, const qx_node *n);
/* Whether no item before this one has its weight. */
bool qx_plan_first_reader(const qx_plan *plan, int64_t item);
/* Puts a step behind the weight's steps. arg must live in the model's arena. */
qx_status qx_plan_step(struct qx_pipeline *pipe, qx_plan_weight *w, const qx_stepdef *def, const void *arg);
/* Writes `mark` at every node that an --exclude matches, by its id; for passes that look at more than linear operators. */
qx_status qx_plan_excluded(struct qx_pipeline *pipe, uint8_t *nodes, uint8_t mark);
/* The item stays float, for this reason. fmt may be NULL. */
void qx_item_keep(struct qx_pipeline *pipe, qx_plan_item *it, qx_why why, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* One line about what a WEIGHTS pass did to an item, for reports: "smoothquant 0.55 (norm)". Lines add up. */
qx_status qx_item_note(struct qx_pipeline *pipe, qx_plan_item *it, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* `text` as a note, where a pass lacks statistics of the item's input: nothing in a plan, which is made before anything is observed. */
qx_status qx_item_unobserved(struct qx_pipeline *pipe, qx_plan_item *it, const char *text);
/* Weights with steps that no format took are stored as float of their own type. */
qx_status qx_plan_store_rest(struct qx_pipeline *pipe);
/* The value that holds the same elements as v before Reshape, Transpose, Squeeze, Unsqueeze, Flatten, Identity. */
qx_value *qx_same_elements(qx_value *v);

#endif
