/* obs_channels.c - per channel: range, and error-free sums of x, |x| and x^2. Threads take blocks of channels, so each channel's
 * sums run in the order of the data whatever the number of threads. What a tensor's channels hold, joined, is what the tensor holds:
 * it is not looked at a second time for that. */
#include "calib/stats/observer.h"

#include "base/thread.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 128 };

/* One tensor: what its channels hold, and the zeros that each piece has seen. */
typedef struct job { const float *x; int64_t outer, inner; qx_channels seen; int64_t *zeros; } job;

/* Channels are the last axis. */
static qx_status columns_piece(void *user, int64_t i)
{
    job *j = user;
    int64_t at = i * BLOCK, all = j->seen.n, n = all - at < BLOCK ? all - at : BLOCK;
    qx_columns a = j->seen.acc;
    a = (qx_columns){a.min + at, a.max + at, a.sum + at, a.abs + at, a.sq + at};
    for (int64_t r = 0; r < j->outer; r += 256)
        j->zeros[i] += qx_columns_f32(j->x + r * all + at, j->outer - r < 256 ? j->outer - r : 256, all, n, &a);
    return QX_OK;
}

/* A channel is a run of `inner` elements in each of `outer` places. */
static qx_status runs_piece(void *user, int64_t c)
{
    job *j = user;
    const qx_columns *a = &j->seen.acc;
    for (int64_t o = 0; o < j->outer; o++) {
        qx_scan s = qx_scan_f32(j->x + (o * j->seen.n + c) * j->inner, j->inner, true);
        if (s.min < a->min[c]) a->min[c] = s.min;
        if (s.max > a->max[c]) a->max[c] = s.max;
        a->sum[c] = qx_dd_join(a->sum[c], s.sum);
        a->abs[c] = qx_dd_join(a->abs[c], s.abs);
        a->sq[c] = qx_dd_join(a->sq[c], s.sumsq);
        j->zeros[c] += s.zeros;
    }
    return QX_OK;
}

static qx_status make(qx_ctx *ctx, qx_channels *c, int64_t n)
{
    qx_channels made = {.n = n};
    qx_status st = QX_NEW_ARRAY(ctx, n, &made.acc.min);
    if (st == QX_OK) st = QX_NEW_ARRAY(ctx, n, &made.acc.max);
    if (st == QX_OK) st = QX_NEW_ARRAY(ctx, n, &made.acc.sum);
    if (st == QX_OK) st = QX_NEW_ARRAY(ctx, n, &made.acc.abs);
    if (st == QX_OK) st = QX_NEW_ARRAY(ctx, n, &made.acc.sq);
    if (st != QX_OK) {
        qx_channels_free(ctx, &made);
        return st;
    }
    for (int64_t i = 0; i < n; i++) made.acc.min[i] = FLT_MAX, made.acc.max[i] = -FLT_MAX;
    *c = made;
    return QX_OK;
}

/* Shape of the job: [outer, channels, inner]; the accumulator is made at the first call. */
static qx_status begin(qx_ctx *ctx, qx_channels *c, int rank, const int64_t *dims, int axis, const char *name, job *j)
{
    int a = axis < 0 ? axis + rank : axis;
    if (a < 0 || a >= rank) QX_FAIL(ctx, QX_E_SHAPE, "statistics of '%s': channel axis %d of a tensor of rank %d", name, axis, rank);
    *j = (job){.outer = 1, .inner = 1};
    for (int d = 0; d < a; d++) j->outer *= dims[d];
    for (int d = a + 1; d < rank; d++) j->inner *= dims[d];
    if (!c->n) QX_TRY(make(ctx, c, dims[a]));
    if (c->n != dims[a])
        QX_FAIL(ctx, QX_E_SHAPE, "statistics of '%s': axis %d has %lld channels now, %lld before", name, axis, (long long)dims[a],
                (long long)c->n);
    c->rows += (double)j->outer * (double)j->inner;
    return QX_OK;
}

qx_status qx_channels_ask(qx_ctx *ctx, qx_channels *c, const qx_tensor *t, int axis, const char *name, qx_look *look)
{
    job j;
    QX_TRY(begin(ctx, c, t->rank, t->dims, axis, name, &j));
    look->outer = j.outer;
    look->channels = c->n;
    look->inner = j.inner;
    return QX_OK;
}

/* A NaN is in no range, but in every sum. */
static qx_scan whole(const job *j, int64_t pieces)
{
    const qx_columns *a = &j->seen.acc;
    qx_scan s = {.n = j->outer * j->seen.n * j->inner, .min = a->min[0], .max = a->max[0]};
    for (int64_t i = 0; i < pieces; i++) s.zeros += j->zeros[i];
    for (int64_t i = 0; i < j->seen.n; i++) {
        if (a->min[i] < s.min) s.min = a->min[i];
        if (a->max[i] > s.max) s.max = a->max[i];
        s.sum = qx_dd_join(s.sum, a->sum[i]);
        s.abs = qx_dd_join(s.abs, a->abs[i]);
        s.sumsq = qx_dd_join(s.sumsq, a->sq[i]);
    }
    s.absmax = fmaxf(fabsf(s.min), fabsf(s.max));
    s.nonfinite = !isfinite(s.sumsq.hi);
    return s;
}

qx_status qx_channels_add(qx_ctx *ctx, qx_channels *c, const float *x, int rank, const int64_t *dims, int axis, const char *name,
                          qx_scan *all)
{
    job j;
    QX_TRY(begin(ctx, c, rank, dims, axis, name, &j));
    QX_TRY(make(ctx, &j.seen, c->n));
    j.x = x;
    const int64_t pieces = j.inner == 1 ? (c->n + BLOCK - 1) / BLOCK : c->n;
    qx_status st = QX_NEW_ARRAY(ctx, pieces, &j.zeros);
    if (st == QX_OK) st = qx_parallel(ctx, pieces, j.inner == 1 ? columns_piece : runs_piece, &j);
    if (st == QX_OK) {
        *all = whole(&j, pieces);
        if (!all->nonfinite) qx_channels_add_seen(c, &j.seen.acc);
    }
    qx_free(ctx, j.zeros);
    qx_channels_free(ctx, &j.seen);
    return st;
}

void qx_channels_add_seen(qx_channels *c, const qx_columns *seen)
{
    const qx_columns *a = &c->acc;
    for (int64_t i = 0; i < c->n; i++) {
        if (seen->min[i] < a->min[i]) a->min[i] = seen->min[i];
        if (seen->max[i] > a->max[i]) a->max[i] = seen->max[i];
        a->sum[i] = qx_dd_join(a->sum[i], seen->sum[i]);
        a->abs[i] = qx_dd_join(a->abs[i], seen->abs[i]);
        a->sq[i] = qx_dd_join(a->sq[i], seen->sq[i]);
    }
}

qx_status qx_channels_join(qx_ctx *ctx, qx_channels *into, const qx_channels *from, const char *name)
{
    if (!from->n) return QX_OK;
    if (!into->n) QX_TRY(make(ctx, into, from->n));
    if (into->n != from->n)
        QX_FAIL(ctx, QX_E_SHAPE, "statistics of '%s': %lld channels in one store, %lld in the other", name, (long long)into->n,
                (long long)from->n);
    qx_channels_add_seen(into, &from->acc);
    into->rows += from->rows;
    return QX_OK;
}

void qx_channels_free(qx_ctx *ctx, qx_channels *c)
{
    qx_free(ctx, c->acc.min);
    qx_free(ctx, c->acc.max);
    qx_free(ctx, c->acc.sum);
    qx_free(ctx, c->acc.abs);
    qx_free(ctx, c->acc.sq);
    *c = (qx_channels){0};
}
