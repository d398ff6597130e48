/* job.h - parts of the job from file to file (quantize.c) that are files of their own. Internal to passes/. */
#ifndef QX_PASSES_JOB_H
#define QX_PASSES_JOB_H

#include "passes/place/plan.h"

/* disk.c: behind plan() of all passes: QX_E_IO when the output will not fit on the disk it goes to, as far as one knows by then. */
qx_status qx_job_fits_disk(qx_pipeline *p);
/* Behind plan() of all passes: fills report->forecast with what each stage will take (p->shapes says how large samples are), and
 * expected_seconds; warns when memory is near --max-memory and is QX_E_BUDGET when it is beyond. sweeps: the samples will be run for
 * statistics; verifies: both models behind it. */
qx_status qx_job_forecast(qx_pipeline *p, qx_stats *stats, bool sweeps, bool verifies, qx_report *report);
/* time.c: seconds of the job on the context's threads. run: of the model from end to end. */
typedef struct qx_work { const qx_stats_need *sweep; const qx_exec_need *run; bool probes, verifies; } qx_work;
double qx_seconds_forecast(const qx_pipeline *p, const qx_stats *stats, const qx_work *w);
/* What is not counted there: "mixed, svdquant", in the pipeline's arena; NULL: nothing. */
const char *qx_seconds_without(const qx_pipeline *p);
/* memory.c: columns of the Gram matrix that w is solved against; 0: it is not. */
int64_t qx_solved_columns(const qx_pipeline *p, const qx_stats *stats, const qx_plan_weight *w);

/* The float and the written model, and samples [first, first + count) to run both on. */
typedef struct qx_verification {
    qx_model *before, *after;
    qx_samples *samples;
    int64_t first, count;
    qx_exec_options exec;
} qx_verification;
/* Fills report->outputs, report->layers (the ten worst), all_ran and the verdict. */
qx_status qx_verify_run(qx_ctx *ctx, const qx_verification *v, qx_report *report);

#endif
