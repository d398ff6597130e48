/* status.c - the context: error chain, log, progress, cancel.
 *
 * A new failure of a thread replaces its old message (the old one was handled, or it would have been passed on). In a parallel
 * region the message is the first thread's that failed, and no other thread writes, extends or clears it: qx_parallel returns the
 * status that belongs to it. */
#include "base/ctx.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static const struct { const char *text; int exit_code; } statuses[] = {
#define X(name, exit_code, text) [QX_##name] = {text, exit_code},
    QX_STATUS_LIST(X)
#undef X
};

const char *qx_status_text(qx_status s)
{
    return (size_t)s < sizeof statuses / sizeof *statuses ? statuses[s].text : "unknown status";
}

int qx_status_exit_code(qx_status s)
{
    return (size_t)s < sizeof statuses / sizeof *statuses ? statuses[s].exit_code : 1;
}

/* Only the order of hash tables depends on it, and nothing depends on that; so the clock will do without getrandom. */
static uint64_t fresh_seed(const void *p)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed) return seed;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_nsec * 0x9E3779B97F4A7C15u ^ (uint64_t)(uintptr_t)p;
}

qx_ctx *qx_ctx_new(const qx_ctx_options *opt)
{
    qx_ctx *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return NULL;
    if (opt) ctx->opt = *opt;
    ctx->threads = ctx->opt.threads > 0 ? ctx->opt.threads : omp_get_max_threads();
    ctx->seed = fresh_seed(ctx);
    ctx->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!ctx->c_locale) {
        free(ctx);
        return NULL;
    }
    pthread_mutex_init(&ctx->lock, NULL);
    pthread_mutex_init(&ctx->sink, NULL);
    pthread_mutex_init(&ctx->spares.lock, NULL);
    return ctx;
}

void qx_ctx_free(qx_ctx *ctx)
{
    if (!ctx) return;
    qx_drop_spares(ctx);
    pthread_mutex_destroy(&ctx->spares.lock);
    pthread_mutex_destroy(&ctx->lock);
    pthread_mutex_destroy(&ctx->sink);
    freelocale(ctx->c_locale);
    free(ctx);
}

void qx_ctx_configure(qx_ctx *ctx, const qx_ctx_options *opt)
{
    ctx->opt = opt ? *opt : (qx_ctx_options){0};
    ctx->threads = ctx->opt.threads > 0 ? ctx->opt.threads : omp_get_max_threads();
}

int qx_ctx_threads(const qx_ctx *ctx)
{
    return ctx->threads;
}

size_t qx_ctx_max_memory(const qx_ctx *ctx)
{
    return ctx->opt.max_memory;
}

const char *qx_ctx_error(const qx_ctx *ctx)
{
    return ctx->error;
}

bool qx_error_is_mine(const qx_ctx *ctx)
{
    return atomic_load(&ctx->error_of) == 1 + omp_get_thread_num();
}

/* Whether another thread's failure stands, in a region: its message is left alone. Call with lock held. */
static bool of_another(const qx_ctx *ctx)
{
    return atomic_load(&ctx->error_of) && atomic_load(&ctx->regions) && !qx_error_is_mine(ctx);
}

void qx_ctx_clear_error(qx_ctx *ctx)
{
    pthread_mutex_lock(&ctx->lock);
    if (!of_another(ctx)) {
        atomic_store(&ctx->error_of, 0);
        ctx->error[0] = '\0';
    }
    pthread_mutex_unlock(&ctx->lock);
}

static void set_message(qx_ctx *ctx, const char text[QX_MESSAGE_MAX])
{
    memcpy(ctx->error, text, QX_MESSAGE_MAX);
    atomic_store(&ctx->error_of, 1 + omp_get_thread_num());
}

qx_status qx_fail(qx_ctx *ctx, qx_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&ctx->lock);
    if (!of_another(ctx)) {
        char text[QX_MESSAGE_MAX]; /* an argument may be the old message */
        qx_format(text, sizeof text, fmt, ap);
        set_message(ctx, text);
    }
    pthread_mutex_unlock(&ctx->lock);
    va_end(ap);
    return code;
}

/* "<note>: " before the message that stands, whose end is cut where both are too long. */
static void extend_message(qx_ctx *ctx, const char *fmt, va_list ap)
{
    char text[QX_MESSAGE_MAX];
    qx_format(text, sizeof text, fmt, ap);
    size_t n = strlen(text), old = strlen(ctx->error);
    const char *joint = old ? ": " : "";
    size_t head = n + strlen(joint);
    if (head < sizeof text) {
        size_t kept = old < sizeof text - 1 - head ? old : sizeof text - 1 - head;
        memcpy(text + n, joint, strlen(joint));
        memcpy(text + head, ctx->error, kept);
        text[head + kept] = '\0';
        if (kept < old) memcpy(text + sizeof text - 4, "...", 4);
    }
    set_message(ctx, text);
}

qx_status qx_note(qx_ctx *ctx, qx_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&ctx->lock);
    if (!of_another(ctx)) extend_message(ctx, fmt, ap);
    pthread_mutex_unlock(&ctx->lock);
    va_end(ap);
    return code;
}

/* Whether one of the last lines of this kind had this text: a job reads its model and its result more than once. Call with sink locked. */
static bool told_before(qx_ctx *ctx, const char *text)
{
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (const char *c = text; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001B3u;
    for (int i = 0; i < QX_TOLD; i++)
        if (ctx->told[i] == hash) return true;
    ctx->told[ctx->n_told++ % QX_TOLD] = hash;
    return false;
}

static void log_va(qx_ctx *ctx, qx_log_level level, bool once, const char *fmt, va_list ap)
{
    if (!ctx->opt.log) return;
    char text[QX_MESSAGE_MAX];
    qx_format(text, sizeof text, fmt, ap);
    pthread_mutex_lock(&ctx->sink);
    if (!once || !told_before(ctx, text)) ctx->opt.log(ctx->opt.user, level, text);
    pthread_mutex_unlock(&ctx->sink);
}

void qx_log(qx_ctx *ctx, qx_log_level level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    log_va(ctx, level, level == QX_LOG_WARN, fmt, ap);
    va_end(ap);
}

void qx_log_once(qx_ctx *ctx, qx_log_level level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    log_va(ctx, level, true, fmt, ap);
    va_end(ap);
}

void qx_warn(qx_ctx *ctx, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    atomic_fetch_add(&ctx->warnings, 1);
    log_va(ctx, QX_LOG_WARN, true, fmt, ap);
    va_end(ap);
}

int qx_ctx_warnings(const qx_ctx *ctx)
{
    return atomic_load(&ctx->warnings);
}

void qx_progress(qx_ctx *ctx, const char *stage, int64_t done, int64_t total)
{
    if (!ctx->opt.progress) return;
    pthread_mutex_lock(&ctx->sink);
    ctx->opt.progress(ctx->opt.user, stage, done, total);
    pthread_mutex_unlock(&ctx->sink);
}

qx_status qx_check_cancel(qx_ctx *ctx)
{
    if (!ctx->opt.cancel || !*ctx->opt.cancel) return QX_OK;
    return qx_fail(ctx, QX_E_CANCELLED, "interrupted");
}

bool qx_countdown(atomic_int_least64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed) > 0 && atomic_fetch_sub(counter, 1) == 1;
}

const char *qx_errno_text(int err, char *buf, size_t cap)
{
    return strerror_r(err, buf, cap);
}
