/* obs_range.c - range and histogram of a stream of arrays. Histogram widths are powers of two: widening joins pairs of bins exactly, so
 * the result is that of one histogram over all data whose width was known beforehand. */
#include "calib/stats/observer.h"

#include "base/thread.h"

#include <math.h>
#include <string.h>

enum { PIECE = 1 << 16, EXP_FLOOR = -120 };

void qx_range_join(qx_scan *into, const qx_scan *from)
{
    if (from->n == 0) return;
    if (into->n == 0) {
        *into = *from;
        return;
    }
    if (from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
    if (from->absmax > into->absmax) into->absmax = from->absmax;
    into->n += from->n;
    into->zeros += from->zeros;
    into->nonfinite |= from->nonfinite;
    into->sum = qx_dd_join(into->sum, from->sum);
    into->sumsq = qx_dd_join(into->sumsq, from->sumsq);
}

typedef struct scan_job { const float *x; int64_t n; qx_scan *parts; } scan_job;

static qx_status scan_piece(void *user, int64_t i)
{
    scan_job *j = user;
    int64_t at = i * PIECE, n = j->n - at < PIECE ? j->n - at : PIECE;
    j->parts[i] = qx_scan_f32(j->x + at, n, false);
    return QX_OK;
}

qx_status qx_range_of(qx_ctx *ctx, const float *x, int64_t n, qx_scan *out)
{
    int64_t pieces = (n + PIECE - 1) / PIECE;
    scan_job j = {x, n, NULL};
    *out = (qx_scan){0};
    if (pieces <= 1) {
        *out = qx_scan_f32(x, n, false);
        return QX_OK;
    }
    QX_TRY(QX_NEW_ARRAY(ctx, pieces, &j.parts));
    qx_status st = qx_parallel(ctx, pieces, scan_piece, &j);
    for (int64_t i = 0; i < pieces && st == QX_OK; i++) qx_range_join(out, &j.parts[i]);
    qx_free(ctx, j.parts);
    return st;
}

/* ---- histogram ---- */

/* Smallest exponent for which absmax < 4096 * 2^exp. */
static int exp_for(float absmax)
{
    int e;
    frexpf(absmax, &e); /* absmax < 2^e */
    e -= 12;
    return absmax > 0 && e > EXP_FLOOR ? e : EXP_FLOOR;
}

static void widen(qx_hist *h, int exp)
{
    for (; h->exp < exp; h->exp++) {
        bool empty = true;
        for (int i = 0; i < QX_HIST_BINS / 2; i++) {
            h->bins[i] = h->bins[2 * i] + h->bins[2 * i + 1];
            empty &= h->bins[i] == 0;
        }
        memset(h->bins + QX_HIST_BINS / 2, 0, QX_HIST_BINS / 2 * sizeof *h->bins);
        if (empty) h->exp = exp - 1;
    }
}

/* The histogram can take numbers below 4096 * 2^exp from here on. */
static qx_status reach(qx_ctx *ctx, qx_hist *h, int exp)
{
    if (!h->bins) QX_TRY(QX_NEW_ARRAY(ctx, QX_HIST_BINS, &h->bins));
    if (!h->set) h->exp = exp;
    h->set = true;
    widen(h, exp);
    return QX_OK;
}

qx_status qx_hist_cover(qx_ctx *ctx, qx_hist *h, float absmax) { return reach(ctx, h, exp_for(absmax)); }

typedef struct hist_job { const float *x; int64_t n, pieces; float inv; uint64_t *bins; } hist_job; /* bins[pieces][QX_HIST_BINS] */

static qx_status hist_piece(void *user, int64_t i)
{
    hist_job *j = user;
    int64_t from = j->n / j->pieces * i, to = i + 1 == j->pieces ? j->n : j->n / j->pieces * (i + 1);
    qx_hist_f32(j->x + from, to - from, j->inv, j->bins + i * QX_HIST_BINS);
    return QX_OK;
}

static qx_status hist_by_pieces(qx_ctx *ctx, qx_hist *h, hist_job *j)
{
    QX_TRY(QX_NEW_ARRAY(ctx, j->pieces * QX_HIST_BINS, &j->bins));
    qx_status st = qx_parallel(ctx, j->pieces, hist_piece, j);
    for (int64_t i = 0; i < j->pieces && st == QX_OK; i++)
        for (int64_t b = 0; b < QX_HIST_BINS; b++) h->bins[b] += j->bins[i * QX_HIST_BINS + b];
    qx_free(ctx, j->bins);
    return st;
}

/* A tensor that one thread counts goes straight into the bins. A model's histograms are larger than a cache, so those of a tensor
 * that touches most of its own are fetched in order first. */
qx_status qx_hist_add(qx_ctx *ctx, qx_hist *h, const float *x, int64_t n, float absmax, int64_t zeros)
{
    QX_TRY(qx_hist_cover(ctx, h, absmax));
    hist_job j = {.x = x, .n = n, .pieces = n > 2 * PIECE ? qx_ctx_threads(ctx) : 1, .inv = ldexpf(1, -h->exp), .bins = h->bins};
    for (int b = 0; n >= QX_HIST_BINS && b < QX_HIST_BINS; b += 8) __builtin_prefetch(h->bins + b, 1);
    if (j.pieces > 1) QX_TRY(hist_by_pieces(ctx, h, &j));
    else QX_TRY(hist_piece(&j, 0));
    h->bins[0] -= (uint64_t)zeros;
    return QX_OK;
}

/* Where bin i of a histogram that is finer by `shift` lies. */
static int coarser(int i, int shift) { return shift < 12 ? i >> shift : 0; }

qx_status qx_hist_add_seen(qx_ctx *ctx, qx_hist *h, const uint32_t *bins, int exp, int64_t zeros)
{
    QX_TRY(reach(ctx, h, exp));
    for (int i = 0; i < QX_HIST_BINS; i++) h->bins[coarser(i, h->exp - exp)] += bins[i];
    h->bins[0] -= (uint64_t)zeros;
    return QX_OK;
}

qx_status qx_hist_join(qx_ctx *ctx, qx_hist *into, const qx_hist *from)
{
    if (!from->set) return QX_OK;
    QX_TRY(reach(ctx, into, from->exp));
    for (int i = 0; i < QX_HIST_BINS; i++) into->bins[coarser(i, into->exp - from->exp)] += from->bins[i];
    return QX_OK;
}

void qx_hist_free(qx_ctx *ctx, qx_hist *h)
{
    qx_free(ctx, h->bins);
    *h = (qx_hist){0};
}
