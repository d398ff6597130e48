/* qonnx.h - the public interface of libqonnx: quantize a model file, run a model, collect calibration statistics.
 *
 * Every function that can fail returns QONNX_OK or another code; qonnx_error(ctx) then says what went wrong, with the names and
 * numbers. Nothing is printed, nothing exits. Objects are freed with their own function; the context last. A context and what was made
 * with it belong to one thread at a time; work inside is spread over the context's threads. */
#ifndef QONNX_H
#define QONNX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QONNX_API __attribute__((visibility("default")))
#else
#define QONNX_API
#endif

/* The numbers are also the exit codes of the command line. */
typedef enum qonnx_code { QONNX_OK = 0, QONNX_FAILED = 1, QONNX_USAGE = 2, QONNX_UNSUPPORTED = 3, QONNX_GATE = 4 } qonnx_code;

typedef struct qonnx_ctx qonnx_ctx;
typedef void qonnx_log_fn(void *user, int level, const char *text); /* level 0 debug, 1 info, 2 warning */
typedef void qonnx_progress_fn(void *user, const char *stage, int64_t done, int64_t total);

QONNX_API const char *qonnx_version(void);
QONNX_API qonnx_ctx *qonnx_open(void); /* NULL: out of memory */
QONNX_API void qonnx_close(qonnx_ctx *ctx);
QONNX_API const char *qonnx_error(const qonnx_ctx *ctx);
QONNX_API void qonnx_set_log(qonnx_ctx *ctx, qonnx_log_fn *log, qonnx_progress_fn *progress, void *user);
/* Set *flag non-zero from a signal handler to stop; the call returns QONNX_FAILED and leaves nothing behind. */
QONNX_API void qonnx_set_cancel(qonnx_ctx *ctx, const volatile int *flag);
QONNX_API qonnx_code qonnx_set_threads(qonnx_ctx *ctx, int threads);      /* 0: all */
QONNX_API qonnx_code qonnx_set_max_memory(qonnx_ctx *ctx, int64_t bytes); /* 0: no cap */

/* ---- Tensors. Types are TensorProto.DataType numbers. ---- */
enum { QONNX_MAX_RANK = 8 };
enum { QONNX_FLOAT = 1, QONNX_UINT8 = 2, QONNX_INT8 = 3, QONNX_INT32 = 6, QONNX_INT64 = 7, QONNX_BOOL = 9, QONNX_FLOAT16 = 10, QONNX_DOUBLE = 11, QONNX_BFLOAT16 = 16, QONNX_FLOAT8E4M3FN = 17 };
typedef struct qonnx_tensor {
    const char *name; /* input or output name */
    int dtype, rank;
    int64_t dims[QONNX_MAX_RANK];
    const void *data; /* row-major, contiguous, little endian */
} qonnx_tensor;
/* Elements of t, or -1 when a dim is negative or the product overflows. */
QONNX_API int64_t qonnx_tensor_numel(const qonnx_tensor *t);
/* Any numeric type to and from float (round half to even, saturating): dst and src hold n elements. */
QONNX_API qonnx_code qonnx_to_float(qonnx_ctx *ctx, int dtype, const void *src, int64_t n, float *dst);
QONNX_API qonnx_code qonnx_from_float(qonnx_ctx *ctx, int dtype, const float *src, int64_t n, void *dst);

/* Arrays of an .npz file. Names and data live until qonnx_npz_close. */
typedef struct qonnx_npz qonnx_npz;
QONNX_API qonnx_code qonnx_npz_open(qonnx_ctx *ctx, const char *path, qonnx_npz **out);
QONNX_API int qonnx_npz_count(const qonnx_npz *z);
QONNX_API qonnx_code qonnx_npz_get(qonnx_npz *z, int i, qonnx_tensor *out); /* reads the data */
QONNX_API void qonnx_npz_close(qonnx_npz *z);
QONNX_API qonnx_code qonnx_npz_save(qonnx_ctx *ctx, const char *path, const qonnx_tensor *tensors, int n);

/* ---- Text to token ids and back, by a tokenizer.json ---- */
typedef struct qonnx_tokenizer qonnx_tokenizer;
QONNX_API qonnx_code qonnx_tokenizer_open(qonnx_ctx *ctx, const char *path, qonnx_tokenizer **out);
/* *ids (n of them) belongs to the tokenizer until its next call. */
QONNX_API qonnx_code qonnx_tokenizer_encode(qonnx_tokenizer *t, const char *text, const int64_t **ids, int64_t *n);
/* Ids that belong before a text (begin-of-text), as the file says; *n may be 0. They belong to the tokenizer. */
QONNX_API qonnx_code qonnx_tokenizer_prefix(qonnx_tokenizer *t, const int64_t **ids, int64_t *n);
/* *text (NUL-terminated) belongs to the tokenizer until its next call. */
QONNX_API qonnx_code qonnx_tokenizer_decode(qonnx_tokenizer *t, const int64_t *ids, int64_t n, const char **text);
QONNX_API void qonnx_tokenizer_close(qonnx_tokenizer *t);

/* ---- Running a model ---- */
typedef struct qonnx_session qonnx_session;
typedef struct qonnx_port { const char *name; int dtype, rank; int64_t dims[QONNX_MAX_RANK]; } qonnx_port; /* dims: -1 where free */
/* options: NULL, or "key=value" pairs separated by spaces: device=auto|cpu|cuda|cuda:N, allow-fallback=1
 * (nodes without a kernel there run on the CPU), plugin-dir=FOLDER, max-device-memory=8G, simulate=1, compute=f32|bf16, trace-nan=1,
 * max-loop=N (most iterations of a Loop, 1000000 unless told). */
QONNX_API qonnx_code qonnx_session_open(qonnx_ctx *ctx, const char *model_path, const char *options, qonnx_session **out);
QONNX_API void qonnx_session_close(qonnx_session *s);
QONNX_API int qonnx_session_inputs(const qonnx_session *s, const qonnx_port **ports);  /* returns how many */
QONNX_API int qonnx_session_outputs(const qonnx_session *s, const qonnx_port **ports);
/* Lets qonnx_session_run return a value that is not a graph output. Before the first run. */
QONNX_API qonnx_code qonnx_session_expose(qonnx_session *s, const char *value_name);
/* wanted NULL: all graph outputs in order, n_out of them. outs[i].data belongs to the session and lives until its next run. */
QONNX_API qonnx_code qonnx_session_run(qonnx_session *s, const qonnx_tensor *in, int n_in, const char *const *wanted, int n_out, qonnx_tensor *outs);

/* ---- Calibration by a program that runs the model itself (a diffusion pipeline) ---- */
typedef struct qonnx_calibration qonnx_calibration;
/* Observes every run of s from now on, and collects what the passes in `passes` (pipeline text or preset) want. */
QONNX_API qonnx_code qonnx_calibration_begin(qonnx_session *s, const char *passes, qonnx_calibration **out);
/* Timestep of the next run, for statistics that are kept per timestep. */
QONNX_API void qonnx_calibration_step(qonnx_calibration *c, double timestep);
/* Writes the statistics file that the job option "load-stats" takes. */
QONNX_API qonnx_code qonnx_calibration_save(qonnx_calibration *c, const char *path);
QONNX_API void qonnx_calibration_end(qonnx_calibration *c); /* before the session is closed */

/* ---- Quantizing a file. Options are those of `qonnx quantize`, by the same names without the dashes ---- */
typedef struct qonnx_job qonnx_job;
QONNX_API qonnx_code qonnx_job_new(qonnx_ctx *ctx, const char *input_path, qonnx_job **out);
/* "output", "passes", "calib", "text", "tokenizer", "seq-len", "samples", "random", "seed", "include", "exclude", "set", "target", "dim",
 * "load-stats", "save-stats", "verify", "no-verify", "min-sqnr", "external-data", "force", "dry-run", "device", ... Options that may repeat
 * are added; a flag takes "1" or "0". An unknown name or a value out of bounds is QONNX_USAGE. */
QONNX_API qonnx_code qonnx_job_set(qonnx_job *job, const char *name, const char *value);
QONNX_API qonnx_code qonnx_job_run(qonnx_job *job);
/* The report of the last run as JSON; owned by the job. */
QONNX_API const char *qonnx_job_report(qonnx_job *job);
QONNX_API void qonnx_job_free(qonnx_job *job);

#ifdef __cplusplus
}
#endif
#endif
