/* source.h - raw access to what weights hold, for weight.c, rows.c, job.c and the writer. Internal to onnx/. */
#ifndef QX_ONNX_SOURCE_H
#define QX_ONNX_SOURCE_H

#include "onnx/weight/weight.h"

/* Bytes [first, first + n) of the content of a weight without a job. Thread safe. */
qx_status qx_source_read(qx_ctx *ctx, const qx_weight *w, size_t first, size_t n, void *out);
/* Elements [first, first + count) as they are stored, unpacked to float; `raw` is scratch of qx_source_raw_bytes(w, count). */
qx_status qx_source_f32(qx_ctx *ctx, const qx_weight *w, int64_t first, int64_t count, void *raw, float *out);
size_t qx_source_raw_bytes(const qx_weight *w, int64_t count);
/* Runs the steps, first to last, on x[rows][k]. */
qx_status qx_steps_run(qx_ctx *ctx, const qx_step *steps, int64_t first, int64_t rows, int64_t k, float *x);
/* x[count] rounded to a float type and back. */
qx_status qx_round_f32(qx_ctx *ctx, qx_dtype dtype, float *x, int64_t count);
/* Every step of the chain can run on cells in storage order; and running them so. */
bool qx_steps_have_cells(const qx_step *steps);
qx_status qx_steps_run_cells(qx_ctx *ctx, const qx_step *steps, const qx_cells *c, float *x);
/* w comes from a job that stores floats, and its rows under v are the rows that the job works on: they can be made tile by tile. */
bool qx_rows_follow(const qx_weight *w, const qx_view *v);
qx_status qx_view_check(qx_ctx *ctx, const qx_weight *w, const qx_view *v);
/* The job only stores its rows as floats: no scales. */
static inline bool qx_job_is_float(const qx_job *j) { return qx_dtype_is_real(j->spec.codes); }

#endif
