/* qonnx.h - the public interface of libqonnx: quantize a model file, look at one, run one, collect calibration statistics.
 *
 *     #include <qonnx.h>                               // cc program.c $(pkg-config --cflags --libs qonnx)
 *
 *     qonnx_ctx *ctx = qonnx_open();
 *     qonnx_job *job;
 *     if (qonnx_job_new(ctx, "model.onnx", &job) != QONNX_OK || qonnx_job_set(job, "int8", "1") != QONNX_OK ||
 *         qonnx_job_set(job, "calib", "samples.npz") != QONNX_OK || qonnx_job_run(job) != QONNX_OK)
 *         fprintf(stderr, "%s\n", qonnx_error(ctx));
 *     else
 *         puts(qonnx_job_report(job));
 *     qonnx_job_free(job);
 *     qonnx_close(ctx);
 *
 * Errors. What can fail returns QONNX_OK or another code; qonnx_error(ctx) then says what went wrong, with the names and numbers.
 * A pointer that goes out through the last parameter is NULL after a failure. Nothing is printed, nothing exits, no signal is
 * handled.
 *
 * Ownership. Strings and arrays given to a function are copied or done with when it returns, unless it says otherwise. Each
 * object has its own function that frees it, and takes NULL; the context is closed last.
 *
 * Threads. A context and what was made with it belong to one thread at a time; several contexts may be used at once. Work inside
 * is spread over the context's threads, and results do not depend on how many there are.
 *
 * Stability. Structs that callers fill or read (qonnx_tensor, qonnx_port) do not change within a soname; enums only grow. Before
 * version 1.0 a minor version may change the interface, and then has another soname. */
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

/* FAILED: input or output, memory, a broken file, cancelled. USAGE: an argument or option that cannot be right. UNSUPPORTED: the
 * model holds what is not supported, or nothing that could be quantized. GATE: done, but below the quality that was asked for.
 * The numbers are also the command's exit codes. */
typedef enum qonnx_code { QONNX_OK = 0, QONNX_FAILED = 1, QONNX_USAGE = 2, QONNX_UNSUPPORTED = 3, QONNX_GATE = 4 } qonnx_code;

/* ---- The context --------------------------------------------------------------------------------------------------------------------- */

typedef struct qonnx_ctx qonnx_ctx;
/* text is one line without a newline and lives until the function returns. level: 0 debug, 1 info, 2 warning. */
typedef void qonnx_log_fn(void *user, int level, const char *text);
/* stage ("calibrate", "write", ...) has done `done` of `total` steps. Called from the thread that called the library. */
typedef void qonnx_progress_fn(void *user, const char *stage, int64_t done, int64_t total);

QONNX_API const char *qonnx_version(void); /* "0.1.0", of the library that runs */
QONNX_API qonnx_ctx *qonnx_open(void);     /* NULL: out of memory */
QONNX_API void qonnx_close(qonnx_ctx *ctx);
/* Of the last call that failed; "" when none did. Lives until the next call with this context. */
QONNX_API const char *qonnx_error(const qonnx_ctx *ctx);
/* Either may be NULL. Neither may call the library. */
QONNX_API void qonnx_set_log(qonnx_ctx *ctx, qonnx_log_fn *log, qonnx_progress_fn *progress, void *user);
/* Set *flag non-zero, from another thread or a signal handler, to stop: the running call returns QONNX_FAILED and leaves nothing behind. */
QONNX_API void qonnx_set_cancel(qonnx_ctx *ctx, const volatile int *flag);
/* Both before the first object is made with the context. */
QONNX_API qonnx_code qonnx_set_threads(qonnx_ctx *ctx, int threads);      /* 0: one a core */
/* 0: no cap. What needs more fails with a message that has both numbers */
QONNX_API qonnx_code qonnx_set_max_memory(qonnx_ctx *ctx, int64_t bytes);

/* ---- Quantizing a file ----------------------------------------------------------------------------------------------------- */

typedef struct qonnx_job qonnx_job;
QONNX_API qonnx_code qonnx_job_new(qonnx_ctx *ctx, const char *input_path, qonnx_job **out);
/* The options of `qonnx quantize`, by the same names without the dashes (`qonnx quantize --help`): qonnx_job_set(job, "preset",
 * "sdxl-fp8"), (job, "target", "ort"), (job, "exclude", "*time_emb*"). Options that may repeat are added; a flag takes "1" or
 * "0", NULL counts as "1". An unknown name or a value out of bounds is QONNX_USAGE. A format must be asked for; samples are found
 * beside the model when none are named. */
QONNX_API qonnx_code qonnx_job_set(qonnx_job *job, const char *name, const char *value);
/* Reads, calibrates, writes (completely or not at all) and verifies. QONNX_GATE: the file was written, but min-sqnr was missed. */
QONNX_API qonnx_code qonnx_job_run(qonnx_job *job);
/* The report of the last run as JSON: sizes, stages, outputs and layers with their signal to noise, weights, every node with
 * format or reason, verdict, hints. NULL before a run, and after one that failed. Owned by the job. */
QONNX_API const char *qonnx_job_report(qonnx_job *job);
QONNX_API void qonnx_job_free(qonnx_job *job);

/* ---- Looking at a file ----------------------------------------------------------------------------------------------------- */

/* What `qonnx inspect --json` prints: inputs and outputs with types and shapes, opsets, metadata, operators, bytes by type, what
 * could be quantized and would be saved. Reads the structure only. *json belongs to the context until the next call of one of
 * these two. */
QONNX_API qonnx_code qonnx_inspect(qonnx_ctx *ctx, const char *model_path, const char **json);
/* What `qonnx check --target --json` prints: findings, each with rule, severity, node and text. target: "generic", "ort", "openvino" or
 * "tensorrt"; NULL: generic. Findings are no failure; a file that breaks the format is. */
QONNX_API qonnx_code qonnx_check(qonnx_ctx *ctx, const char *model_path, const char *target, const char **json);

/* ---- Tensors --------------------------------------------------------------------------------------------------------------- */

enum { QONNX_MAX_RANK = 8 };
/* Some of TensorProto.DataType's numbers; the others have the same meaning here. */
enum { QONNX_FLOAT = 1, QONNX_UINT8 = 2, QONNX_INT8 = 3, QONNX_INT32 = 6, QONNX_INT64 = 7, QONNX_BOOL = 9, QONNX_FLOAT16 = 10,
       QONNX_DOUBLE = 11, QONNX_BFLOAT16 = 16, QONNX_FLOAT8E4M3FN = 17 };
typedef struct qonnx_tensor {
    const char *name; /* of the input or output */
    int dtype, rank;
    int64_t dims[QONNX_MAX_RANK];
    const void *data; /* row-major, contiguous, little endian; NULL where there are no elements */
} qonnx_tensor;
/* Elements of t, or -1 when a dim is negative or the product overflows. */
QONNX_API int64_t qonnx_tensor_numel(const qonnx_tensor *t);
/* Any numeric type to and from float (round half to even, saturating): dst and src hold n elements. A type without numbers is
 * QONNX_USAGE. */
QONNX_API qonnx_code qonnx_to_float(qonnx_ctx *ctx, int dtype, const void *src, int64_t n, float *dst);
QONNX_API qonnx_code qonnx_from_float(qonnx_ctx *ctx, int dtype, const float *src, int64_t n, void *dst);

/* Arrays of an .npz file. Names, and data once read, live until qonnx_npz_close. */
typedef struct qonnx_npz qonnx_npz;
QONNX_API qonnx_code qonnx_npz_open(qonnx_ctx *ctx, const char *path, qonnx_npz **out);
QONNX_API int qonnx_npz_count(const qonnx_npz *z);
QONNX_API qonnx_code qonnx_npz_get(qonnx_npz *z, int i, qonnx_tensor *out); /* array i of [0, count): reads its data */
QONNX_API void qonnx_npz_close(qonnx_npz *z);
/* Writes n arrays under their names, whole or not at all; a file that is there is replaced. */
QONNX_API qonnx_code qonnx_npz_save(qonnx_ctx *ctx, const char *path, const qonnx_tensor *tensors, int n);

/* ---- Text to token ids and back, by a tokenizer.json ----------------------------------------------------------------------- */

typedef struct qonnx_tokenizer qonnx_tokenizer;
/* BPE, WordPiece and Unigram; another model is QONNX_UNSUPPORTED. */
QONNX_API qonnx_code qonnx_tokenizer_open(qonnx_ctx *ctx, const char *path, qonnx_tokenizer **out);
/* text is UTF-8. *ids (n of them) belongs to the tokenizer until its next call. */
QONNX_API qonnx_code qonnx_tokenizer_encode(qonnx_tokenizer *t, const char *text, const int64_t **ids, int64_t *n);
/* Ids that belong before a text (begin-of-text), as the file says; *n may be 0. They belong to the tokenizer. */
QONNX_API qonnx_code qonnx_tokenizer_prefix(qonnx_tokenizer *t, const int64_t **ids, int64_t *n);
/* *text (NUL-terminated) belongs to the tokenizer until its next call. */
QONNX_API qonnx_code qonnx_tokenizer_decode(qonnx_tokenizer *t, const int64_t *ids, int64_t n, const char **text);
QONNX_API void qonnx_tokenizer_close(qonnx_tokenizer *t);

/* ---- Running a model --------------------------------------------------------------------------------------------------------------------
 *
 *     qonnx_session *s;
 *     qonnx_tensor in = {"x", QONNX_FLOAT, 2, {1, 64}, values}, out;
 *     if (qonnx_session_open(ctx, "model.onnx", NULL, &s) == QONNX_OK && qonnx_session_run(s, &in, 1, NULL, 1, &out) == QONNX_OK)
 *         use(out.data, qonnx_tensor_numel(&out));
 *     qonnx_session_close(s);
 */

typedef struct qonnx_session qonnx_session;
typedef struct qonnx_port { const char *name; int dtype, rank; int64_t dims[QONNX_MAX_RANK]; } qonnx_port; /* dims: -1 where free */
/* options: NULL, or "key=value" pairs separated by spaces: device=auto|cpu|cuda|cuda:N, allow-fallback=1
 * (nodes without a kernel there run on the CPU), plugin-dir=FOLDER, max-device-memory=8G, simulate=1, compute=f32|bf16, trace-nan=1,
 * max-loop=N (most iterations of a Loop, 1000000 unless told). */
QONNX_API qonnx_code qonnx_session_open(qonnx_ctx *ctx, const char *model_path, const char *options, qonnx_session **out);
QONNX_API void qonnx_session_close(qonnx_session *s);
/* How many; *ports belongs to the session. */
QONNX_API int qonnx_session_inputs(const qonnx_session *s, const qonnx_port **ports);
QONNX_API int qonnx_session_outputs(const qonnx_session *s, const qonnx_port **ports);
/* Lets qonnx_session_run return a value that is not a graph output. Before the first run. */
QONNX_API qonnx_code qonnx_session_expose(qonnx_session *s, const char *value_name);
/* What `output` becomes is what `input` has in the next run: it stays in the session, need not be given, and is not among what a run
 * returns (name what is wanted). Given once more, the input begins anew. A cache of GroupQueryAttention is appended to in place. */
QONNX_API qonnx_code qonnx_session_carry(qonnx_session *s, const char *output, const char *input);
/* in: n_in tensors with the names of inputs, in any order. wanted: n_out names of outputs; NULL: all graph outputs in order.
 * outs[i].data belongs to the session and lives until its next run. */
QONNX_API qonnx_code qonnx_session_run(qonnx_session *s, const qonnx_tensor *in, int n_in, const char *const *wanted, int n_out,
                                       qonnx_tensor *outs);

/* ---- Calibration by a program that runs the model itself (a diffusion pipeline) -----------------------------------------------
 *
 *     qonnx_calibration_begin(session, "sdxl-fp8", &c);
 *     qonnx_calibration_expect(c, pictures * steps);
 *     for (each step) { qonnx_calibration_step(c, timestep); qonnx_session_run(session, ...); }
 *     qonnx_calibration_save(c, "unet.stats");     // then qonnx_job_set(job, "load-stats", "unet.stats")
 *     qonnx_calibration_end(c); */

typedef struct qonnx_calibration qonnx_calibration;
/* Observes every run of s from now on, and collects what the passes in `passes` (pipeline text or preset) want. Passes that change the
 * float graph before the sweep (sparsity, rotate, equalize, fp16) change the session's: its results stay equal up to rounding, and no
 * second calibration begins on it (QONNX_USAGE). */
QONNX_API qonnx_code qonnx_calibration_begin(qonnx_session *s, const char *passes, qonnx_calibration **out);
/* How many runs will follow, before the first of them: passes that need only some of all rows (gptq's option rows) then sum no more. */
QONNX_API void qonnx_calibration_expect(qonnx_calibration *c, int64_t runs);
/* Timestep of the next run, for statistics that are kept per timestep. */
QONNX_API void qonnx_calibration_step(qonnx_calibration *c, double timestep);
/* Writes the statistics file that the job option "load-stats" takes. */
QONNX_API qonnx_code qonnx_calibration_save(qonnx_calibration *c, const char *path);
QONNX_API void qonnx_calibration_end(qonnx_calibration *c); /* before the session is closed */

#ifdef __cplusplus
}
#endif
#endif
