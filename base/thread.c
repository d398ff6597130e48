/* thread.c - the only file that starts threads. */
#include "base/thread.h"
#include "base/ctx.h"

#include <fenv.h>
#include <omp.h>
#include <time.h>

/* ThreadSanitizer cannot see libgomp's barriers (Debian's libgomp is not instrumented), so they are told to it: what was
 * written before a region is seen in it, and what was written in it is seen behind it. */
#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *);
void __tsan_release(void *);
#define SEE_OTHERS(p) __tsan_acquire(p)
#define SHOW_OTHERS(p) __tsan_release(p)
#define NOT_CHECKED __attribute__((no_sanitize_thread, noinline))
#else
#define SEE_OTHERS(p) ((void)(p))
#define SHOW_OTHERS(p) ((void)(p))
#define NOT_CHECKED
#endif

struct qx_lock { qx_ctx *ctx; pthread_mutex_t mutex; };

typedef struct job {
    qx_ctx *ctx;
    qx_piece_fn *fn;
    void *user;
    int64_t n;
    bool team; /* of more than this thread */
    atomic_int_least64_t next;
    atomic_int status; /* of the failure whose message stands */
} job;

static qx_status piece(const job *j, int64_t i)
{
    QX_TRY(qx_check_cancel(j->ctx));
    QX_TRY(j->fn(j->user, i));
    if (j->team && qx_error_is_mine(j->ctx)) qx_ctx_clear_error(j->ctx); /* it was handled: another thread's may be heard */
    return QX_OK;
}

static void work(job *j)
{
    int64_t i;
    SEE_OTHERS(j);
    while (atomic_load(&j->status) == QX_OK && (i = atomic_fetch_add(&j->next, 1)) < j->n) {
        int expected = QX_OK;
        const qx_status st = piece(j, i);
        if (st == QX_OK) continue;
        if (qx_error_is_mine(j->ctx)) atomic_store(&j->status, (int)st); /* also over that of a thread which was not heard */
        else atomic_compare_exchange_strong(&j->status, &expected, (int)st);
    }
    SHOW_OTHERS(j);
}

NOT_CHECKED static void region(job *j, int threads)
{
    SHOW_OTHERS(j);
#pragma omp parallel num_threads(threads)
    work(j);
    SEE_OTHERS(j);
}

qx_status qx_parallel(qx_ctx *ctx, int64_t n, qx_piece_fn *fn, void *user)
{
    job j = {.ctx = ctx, .fn = fn, .user = user, .n = n};
    int threads = n < ctx->threads ? (int)(n > 0 ? n : 1) : ctx->threads;
    if (threads == 1 || omp_in_parallel()) {
        work(&j);
        return (qx_status)atomic_load(&j.status);
    }
    qx_ctx_clear_error(ctx);
    j.team = true;
    atomic_fetch_add(&ctx->regions, 1);
    region(&j, threads);
    atomic_fetch_sub(&ctx->regions, 1);
    const qx_status st = (qx_status)atomic_load(&j.status);
    if (st != QX_OK && !*ctx->error) return qx_fail(ctx, st, "%s", qx_status_text(st)); /* unheard beside one that was handled then */
    return st;
}

void qx_thread_apply(const qx_ctx *ctx, int most)
{
    int n = most > 0 && most < ctx->threads ? most : ctx->threads;
    if (!omp_in_parallel() && omp_get_max_threads() != n) omp_set_num_threads(n);
}

/* Clearing is slow, and seldom needed. */
static bool raised_here(void) { return fetestexcept(FE_INVALID) && feclearexcept(FE_INVALID) == 0; }

NOT_CHECKED static void ask_all(atomic_int *raised)
{
#pragma omp parallel
    if (raised_here()) atomic_store(raised, 1);
}

bool qx_thread_invalid(void)
{
    atomic_int raised = 0;
    if (omp_in_parallel() || omp_get_max_threads() == 1) return raised_here();
    ask_all(&raised);
    return atomic_load(&raised) != 0;
}

int qx_thread_index(void)
{
    return omp_get_thread_num();
}

qx_status qx_lock_new(qx_ctx *ctx, qx_lock **out)
{
    QX_TRY(QX_NEW(ctx, out));
    (*out)->ctx = ctx;
    pthread_mutex_init(&(*out)->mutex, NULL);
    return QX_OK;
}

void qx_lock_free(qx_lock *l)
{
    if (!l) return;
    pthread_mutex_destroy(&l->mutex);
    qx_free(l->ctx, l);
}

void qx_lock_take(qx_lock *l)
{
    pthread_mutex_lock(&l->mutex);
}

void qx_lock_give(qx_lock *l)
{
    pthread_mutex_unlock(&l->mutex);
}

double qx_clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
