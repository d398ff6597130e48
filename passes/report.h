/* report.h - what was done and how good it is, as data: printed by cli/, written as JSON, queried through the public API. */
#ifndef QX_PASSES_REPORT_H
#define QX_PASSES_REPORT_H

#include "base/json.h"
#include "base/map.h"

typedef struct qx_report_node {
    const char *name, *op, *graph;   /* node as in the input model; graph: "" for the main one */
    const char *scope;               /* module that the exporter wrote beside the name; NULL: none */
    const char *pass;                /* that decided */
    const char *format;              /* "fp8", "int8", ...; NULL: left alone */
    const char *reason;              /* NULL when applied */
    const char *notes;               /* what passes before the format did: "smoothquant 0.55 (norm, +3.1 dB)"; NULL: nothing */
    int64_t float_bytes;             /* of its weight, when that stays float (a shared one: at its first reader) */
    bool rescaled;                   /* its output carries a factor that its reader takes away again */
} qx_report_node;
typedef struct qx_report_tensor {
    const char *name, *format;
    int64_t bytes_before, bytes_after, n, k, block;
    double sqnr;                     /* of the codes, measured while they are written; NaN: not measured */
    double input_sqnr;               /* of the quantized input that it meets, on rows that calibration kept; NaN: not measured */
    const char *node, *scope;        /* the first linear operator that reads it; its module (as in qx_report_node) */
} qx_report_tensor;
/* sqnr_db, cosine: of float values; equal: share of integer or boolean values that are the same; top1: share of rows of scores
 * whose largest is the same. NaN: not of this kind. note: why nothing or little can be said; NULL. */
typedef struct qx_report_output {
    const char *name;
    double sqnr_db, cosine, max_abs;
    int64_t count;
    double equal, top1;
    const char *note;
} qx_report_output;
/* float against quantized at this value */
typedef struct qx_report_layer { const char *name, *op, *format, *scope; double sqnr_db, cosine; } qx_report_layer;
/* A choice of formats (mixed): on the frontier, or (with a label) one that it is compared with. kl and noise are predicted sums;
 * NaN: unknown. */
typedef struct qx_report_point {
    const char *label, *formats;     /* formats: "int4 96, int8-weights 25" when shown */
    int64_t bytes; double bits;      /* of the file; per weight that takes part */
    double kl, noise;                /* noise: of the output, relative to its energy (score=layer: sum of the layers' own) */
    double measured_kl, measured_noise; /* of the chosen one, before anything was written */
    bool shown, chosen;
} qx_report_point;
/* bytes: the most that was in use meanwhile */
typedef struct qx_report_stage { const char *name; double seconds; int64_t bytes; } qx_report_stage;
typedef struct qx_report_need { const char *stage; int64_t bytes; } qx_report_need;

/* What the outputs say together, worst first. BROKEN: values that are not finite where the float model gives none. */
typedef enum qx_grade { QX_GRADE_NONE, QX_GRADE_BROKEN, QX_GRADE_FAR, QX_GRADE_DIFFERS, QX_GRADE_CLOSE, QX_GRADE_VERY_CLOSE } qx_grade;
enum { QX_MOST_HINTS = 4 };

typedef struct qx_report {
    qx_ctx *ctx; qx_arena *arena;
    qx_strings *words;                             /* operators, formats, reasons: what many rows share */
    const char *input, *output, *data_path, *pipeline, *samples, *device;
    int64_t input_bytes, output_bytes;
    int64_t debug_bytes;                           /* of the input, dropped: stack traces and the like beside nodes */
    size_t peak_bytes; int64_t peak_rss;
    qx_report_node *nodes; int64_t n_nodes;
    qx_report_tensor *tensors; int64_t n_tensors;
    qx_report_output *outputs; int64_t n_outputs;  /* empty: no samples to verify with (verify_note says so) */
    qx_report_layer *layers; int64_t n_layers;
    qx_report_stage *stages; int64_t n_stages;
    qx_report_need *forecast; int64_t n_forecast;  /* memory by stage, said before the work */
    int64_t expected_bytes;                        /* and of the whole job, like peak_rss; 0: not forecast */
    double expected_seconds;                       /* of the whole job, with nothing else running; 0: not forecast */
    const char *expected_without;                  /* passes whose time is not counted there ("mixed, svdquant"); NULL: none */
    qx_report_point *points; int64_t n_points;
    const char *verify_note;
    qx_grade grade;                                /* NONE: nothing was compared */
    const char *verdict;                           /* the grade in words; NULL: none */
    const char *hints[QX_MOST_HINTS]; int n_hints; /* what would make it better, for this model and this job */
    bool all_ran;                                  /* verification ran both models as a whole */
    const char *next;                              /* a command that tells what is not known yet of the result; NULL: none */
    int64_t warnings; int64_t n_quantized;
} qx_report;

/* What became of a node that was looked at. */
typedef enum qx_fate { QX_FATE_QUANTIZED, QX_FATE_MERGED, QX_FATE_FLOAT, QX_FATE_NOT_LINEAR } qx_fate;
qx_fate qx_report_fate(const qx_report_node *n);

/* What a person calls a node: its name; where the exporter only numbered it, "model.layers.3.mlp.down_proj (node_linear_83)".
 * Into buf, which it returns. */
const char *qx_report_title(const char *name, const char *scope, char *buf, size_t cap);

qx_status qx_report_new(qx_ctx *ctx, qx_report **out);
void qx_report_free(qx_report *r);
qx_status qx_report_add_node(qx_report *r, const qx_report_node *n);
qx_status qx_report_add_tensor(qx_report *r, const qx_report_tensor *t);
qx_status qx_report_add_output(qx_report *r, const qx_report_output *o);
qx_status qx_report_add_layer(qx_report *r, const qx_report_layer *l);
qx_status qx_report_add_stage(qx_report *r, const char *name,
                              double *since); /* now ends what began at *since (qx_clock_seconds), which becomes now */
qx_status qx_report_add_forecast(qx_report *r, const char *stage, int64_t bytes);
qx_status qx_report_add_point(qx_report *r, const qx_report_point *p);
qx_status qx_report_json(const qx_report *r, qx_buf *out);
qx_status qx_report_html(const qx_report *r, qx_buf *out); /* report_html.c: one page, for people */

#endif
