/* status.h - how anything in qonnx says that it failed, and the context that every call carries.
 *
 * A function that can fail returns qx_status. The text is put together where the facts are known, with
 * QX_FAIL(ctx, code, "weight '%s': ..."), and callers may add where they were with QX_NOTE. The library never prints,
 * exits or aborts; it has no writable globals: log lines, progress and warnings go to the sinks in the context. */
#ifndef QX_BASE_STATUS_H
#define QX_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QX_STATUS_LIST(X) \
    X(OK, 0, "ok") \
    X(E_FAIL, 1, "failure") \
    X(E_USAGE, 2, "wrong use") \
    X(E_UNSUPPORTED, 3, "unsupported") \
    X(E_GATE, 4, "quality gate missed") \
    X(E_NOMEM, 1, "out of memory") \
    X(E_BUDGET, 1, "memory budget") \
    X(E_IO, 1, "input/output") \
    X(E_FORMAT, 1, "malformed input") \
    X(E_SHAPE, 1, "shapes disagree") \
    X(E_TYPE, 1, "types disagree") \
    X(E_NUMERIC, 1, "not a number") \
    X(E_CANCELLED, 1, "interrupted")

typedef enum qx_status {
#define X(name, exit_code, text) QX_##name,
    QX_STATUS_LIST(X)
#undef X
} qx_status;

/* Name of a status ("malformed input"); exit code of the command line for it (0 ok, 1 failure, 2 usage, 3 unsupported, 4 gate). */
const char *qx_status_text(qx_status s);
int qx_status_exit_code(qx_status s);

typedef enum qx_log_level { QX_LOG_DEBUG, QX_LOG_INFO, QX_LOG_WARN } qx_log_level;

/* Progress of a long stage: `done` of `total` units (total 0: unknown). Called from one thread at a time. */
typedef void qx_log_fn(void *user, qx_log_level level, const char *text);
typedef void qx_progress_fn(void *user, const char *stage, int64_t done, int64_t total);

typedef struct qx_ctx_options {
    int threads;               /* 0: all cores that OpenMP sees */
    size_t max_memory;         /* bytes that qx_alloc may hand out at once; 0: no cap */
    qx_log_fn *log;            /* may be NULL */
    qx_progress_fn *progress;  /* may be NULL */
    void *user;
    const volatile int *cancel; /* set non-zero (by a signal handler) to stop with QX_E_CANCELLED; may be NULL */
} qx_ctx_options;

typedef struct qx_ctx qx_ctx;

/* NULL only when out of memory. `opt` may be NULL (defaults). The context outlives everything made with it. */
qx_ctx *qx_ctx_new(const qx_ctx_options *opt);
void qx_ctx_free(qx_ctx *ctx);
/* Replaces all options of a living context (NULL: defaults). */
void qx_ctx_configure(qx_ctx *ctx, const qx_ctx_options *opt);
int qx_ctx_threads(const qx_ctx *ctx);
size_t qx_ctx_max_memory(const qx_ctx *ctx);
/* The message chain of the last failure, innermost first, joined by ": "; "" when none. Valid until the next failure. */
const char *qx_ctx_error(const qx_ctx *ctx);
void qx_ctx_clear_error(qx_ctx *ctx);

/* Records a message and returns `code`. Safe from several threads: in a parallel region the first thread that fails is heard, the
 * others are not. Names longer than 256 bytes are cut by the formatter. */
qx_status qx_fail(qx_ctx *ctx, qx_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "<text>: " before the pending message; returns `code` unchanged. */
qx_status qx_note(qx_ctx *ctx, qx_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void qx_log(qx_ctx *ctx, qx_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Not when one of the last 64 lines of this kind, or warnings, had the same text: for what every executor of a job would say. */
void qx_log_once(qx_ctx *ctx, qx_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A warning is counted, and logged unless one of the last 64 had the same text. */
void qx_warn(qx_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int qx_ctx_warnings(const qx_ctx *ctx);
void qx_progress(qx_ctx *ctx, const char *stage, int64_t done, int64_t total);
/* QX_OK, or QX_E_CANCELLED with a message once the cancel flag is set. Long loops call it once a tile, node or sample. */
qx_status qx_check_cancel(qx_ctx *ctx);

/* The code is returned as written, so that the compiler sees that it is not QX_OK. */
#define QX_FAIL(ctx, code, ...) return (qx_fail((ctx), (code), __VA_ARGS__), (code))
#define QX_TRY(expr)                              \
    do {                                          \
        qx_status qx_try_ = (expr);               \
        if (qx_try_ != QX_OK) return qx_try_;     \
    } while (0)
/* For functions with one `done:` label: `st` is their qx_status variable. */
#define QX_TRY_GOTO(st, expr)                     \
    do {                                          \
        (st) = (expr);                            \
        if ((st) != QX_OK) goto done;             \
    } while (0)

#endif
