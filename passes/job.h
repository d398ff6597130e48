/* job.h - parts of the job from file to file (quantize.c) that are files of their own. Internal to passes/. */
#ifndef QX_PASSES_JOB_H
#define QX_PASSES_JOB_H

#include "passes/plan.h"

/* Files named sample*.npz or calib*.npz beside the model, sorted by name; in the arena. */
qx_status qx_find_samples(qx_ctx *ctx, qx_arena *arena, const char *model_path, const char ***paths, int *n);
/* QX_E_USAGE: what to give, with the model's inputs. */
qx_status qx_no_samples(qx_ctx *ctx, const qx_model *m);
/* "dir/unet.onnx" and "fp8" give "dir/unet.fp8.onnx". */
const char *qx_output_name(qx_arena *arena, const char *input, const char *label);
/* Runs float and written model on samples [first, first + count) and fills report->outputs and report->layers (the ten worst). */
qx_status qx_verify_run(qx_ctx *ctx, qx_model *before, qx_model *after, qx_samples *samples, int64_t first, int64_t count, const qx_exec_options *eo, qx_report *report);

#endif
