/* job.h - parts of the job from file to file (quantize.c) that are files of their own. Internal to passes/. */
#ifndef QX_PASSES_JOB_H
#define QX_PASSES_JOB_H

#include "passes/plan.h"

/* Runs float and written model on samples [first, first + count) and fills report->outputs and report->layers (the ten worst). */
qx_status qx_verify_run(qx_ctx *ctx, qx_model *before, qx_model *after, qx_samples *samples, int64_t first, int64_t count, const qx_exec_options *eo, qx_report *report);

#endif
