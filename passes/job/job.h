/* job.h - parts of the job from file to file (quantize.c) that are files of their own. Internal to passes/. */
#ifndef QX_PASSES_JOB_H
#define QX_PASSES_JOB_H

#include "passes/place/plan.h"

/* Behind plan() of all passes: fills report->forecast with what each stage will take (p->shapes says how large samples are),
 * warns when it is near --max-memory and is QX_E_BUDGET when it is beyond. sweeps: the samples will be run for statistics;
 * verifies: both models behind it. */
qx_status qx_memory_forecast(qx_pipeline *p, qx_stats *stats, bool sweeps, bool verifies, qx_report *report);
/* Runs float and written model on samples [first, first + count) and fills report->outputs and report->layers (the ten worst). */
qx_status qx_verify_run(qx_ctx *ctx, qx_model *before, qx_model *after, qx_samples *samples, int64_t first, int64_t count,
                        const qx_exec_options *eo, qx_report *report);

#endif
