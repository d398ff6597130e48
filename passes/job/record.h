/* record.h - what an output's metadata says about the job that made it, so that --like can do the same to another model.
 *
 * Keys: qonnx.version, qonnx.passes (expanded), qonnx.target, qonnx.options (JSON: every option that decides what is written, as it was
 * given), qonnx.source (hash of the input's structure), qonnx.samples, qonnx.stats (hash of what calibration found), qonnx.seed. */
#ifndef QX_PASSES_RECORD_H
#define QX_PASSES_RECORD_H

#include "passes/job/settings.h"

typedef struct qx_record {
    const char *path;                                  /* of the model that carries it */
    const char *version, *passes, *target, *options, *source, *samples, *stats; /* NULL: not recorded */
} qx_record;

/* Reads the metadata of a model that qonnx wrote; QX_E_USAGE when it is not one. In the arena. */
qx_status qx_record_read(qx_ctx *ctx, qx_arena *arena, const char *path, qx_record *out);
/* The options of a job as JSON for qonnx.options; "" when all are defaults. */
qx_status qx_record_options(qx_ctx *ctx, const qx_quantize_options *o, qx_buf *out);
/* Sets the recorded passes and options on a job, apart from names in `given` (which the user set again). Samples of any kind that
 * are given replace all recorded ones. */
typedef bool qx_record_given(void *user, const char *name);
qx_status qx_record_replay(qx_ctx *ctx, const qx_record *r, qx_job_args *a, qx_record_given *given, void *user);
/* Warnings for what is different now, each with both sides; stats NULL: there were none. */
void qx_record_compare(qx_ctx *ctx, const qx_record *r, const char *source, const char *stats, const char *samples);

#endif
