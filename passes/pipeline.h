/* pipeline.h - pass text to passes, plan, sweep, run; and the whole job from file to file that the command line and the public
 * API share. */
#ifndef QX_PASSES_PIPELINE_H
#define QX_PASSES_PIPELINE_H

#include "onnx/file/io.h"
#include "passes/pass.h"
#include "passes/report.h"

typedef struct qx_setting { const char *pattern, *format; } qx_setting; /* --set "P=FORMAT" */
typedef struct qx_quantize_options {
    const char *input, *output;          /* output NULL: derived (unet.fp8.onnx) */
    const char *passes;                  /* "smoothquant(alpha=auto),int8"; presets are expanded before */
    const char *target_size, *target_sqnr, *formats; /* short for the pass mixed, which is put behind `passes` (settings.c) */
    const char *level;                   /* --level: the diffusion recipe's, set in the format of `passes` (settings.c) */
    bool sequential;                     /* --sequential: an option of gptq and sparsity in `passes` (settings.c) */
    const char *io;                      /* "int8": short for the pass io, which is put behind `passes` (settings.c) */
    const char *rest;                    /* "fp16", "bf16": short for that pass in front of `passes` (settings.c) */
    const char *like_path;               /* --like: a model whose record (passes/job/record.h) settings.c replays */
    const struct qx_record *like;        /* that record, for comparing; NULL: none */
    const char *frontier;                /* PNG of the choices that mixed had; NULL: none */
    qx_samples_options samples;
    const char *save_stats, *load_stats; bool save_gram;
    const char *resume;                  /* checkpoint of calibration: kept there, and gone on with when it is there */
    const char *const *include; int n_include;
    const char *const *exclude; int n_exclude;
    const qx_setting *settings; int n_settings;
    const char *tables;                  /* embeddings, recurrences, heads that nobody named: "auto" (NULL too), "int8" or "float" */
    qx_target target;
    const qx_dim_fix *dims; int n_dims;
    bool dry_run, no_verify, force, external_data, strict, fix_order, allow_symlinks, allow_requantize, verify_each,
        keep_debug_info;
    const char *external_data_root;
    const char *const *verify; int n_verify; /* --verify FILE.npz */
    double min_sqnr; bool has_min_sqnr;
    int64_t max_opset, max_ir;           /* what the reader of the output understands; 0: no cap */
    /* where calibration and verification run: device, plugin_dir, max_device_memory; nodes without a kernel there run on the
     * CPU */
    qx_exec_options exec;
} qx_quantize_options;

typedef struct qx_pipeline qx_pipeline;
/* Parses and checks names, options, bounds and order; QX_E_USAGE says what to write instead. */
qx_status qx_pipeline_parse(qx_ctx *ctx, const char *text, qx_pipeline **out);
/* With every option written out: what is stored in the output's metadata ("qonnx.passes"). */
const char *qx_pipeline_text(const qx_pipeline *p);
void qx_pipeline_free(qx_pipeline *p);
/* Sets an option in every pass that has one of this name; QX_E_USAGE when none has. `value` has to live as long as p. */
qx_status qx_pipeline_set(qx_pipeline *p, const char *option, const char *value);
/* Passes written "name?" become ordinary ones when there are samples and go when there are none; the text says what is left. A
 * plan does it by itself. */
qx_status qx_pipeline_settle(qx_pipeline *p, bool have_samples);
/* What statistics of this model are keyed by: the hash of its structure, and of passes that rewrite it before the sweep. */
uint64_t qx_pipeline_stats_key(const qx_pipeline *p, const qx_model *m);
/* Whether a pass runs the model again between the sweep and the rewriting, to measure what it chooses among (smoothquant, mixed). */
bool qx_pipeline_probes(const qx_pipeline *p);
/* Whether a pass chooses among formats by statistics (mixed): a dry run then needs them too. */
bool qx_pipeline_decides(const qx_pipeline *p);
/* The one format that the text names ("int4(block=32)"), as --set and formats= want it: a pass of p, freed with it. Mixes and
 * passes that prepare weights are refused. */
qx_status qx_pipeline_parse_format(qx_pipeline *p, const char *text, qx_pass **out);
bool qx_pass_same(const qx_pass *a, const qx_pass *b); /* one definition, the same options */
/* A row of presets.def ("fp8", "int8", "sdxl-int8"...): a name for a pipeline text. */
typedef struct qx_preset {
    const char *name, *text;
    const char *with_text; /* the text where samples are made from --text; NULL: `text` */
    const char *brief;
} qx_preset;
const qx_preset *qx_presets(int *count);
const qx_preset *qx_preset_find(const char *name); /* NULL when unknown */
const qx_passdef *const *qx_passes(int *count); /* all, in order of passes.def */

/* plan() of every pass alone: reads the graph and asks stats for what run() will need. For callers that run the model themselves. */
qx_status qx_pipeline_plan(qx_pipeline *p, qx_model *m, const qx_quantize_options *opt, qx_stats *stats);
/* On a model in memory: plan(), collect (when stats lack something and samples is not NULL), run() of each pass, dead code, verify. */
qx_status qx_pipeline_run(qx_pipeline *p, qx_model *m, const qx_quantize_options *opt, qx_samples *samples, qx_stats *stats,
                          qx_report *report);
/* The whole job: read, plan, calibrate, rewrite, write, verify, report. */
qx_status qx_quantize_file(qx_ctx *ctx, const qx_quantize_options *opt, qx_report *report);

#endif
