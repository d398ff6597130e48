/* threshold.c - thresholds off a histogram of |x|: percentile, entropy, mean squared error. Only the histogram and the range are
 * looked at, so a method can be changed without looking at data again. Formulas are in docs/calibration.md. */
#include "calib/stats/observer.h"

#include <math.h>
#include <string.h>

enum { LEVELS = 128, ENTROPY_BINS = 2048, COARSE = 256 };

static double width_of(const qx_hist *h) { return ldexp(1, h->exp); }

static float at_most(double t, float absmax) { return t < (double)absmax ? (float)t : absmax; }

/* ---- percentile ---- */

/* The right edge of the bin where the share of values at or below reaches p: never less than p percent are kept. All are what the
 * histogram holds: one that was made anew behind a scaling has a few values more than the range counts, and 100 % must reach its end. */
float qx_hist_percentile(const qx_hist *h, const qx_scan *range, double percentile, bool skip_zeros)
{
    const int64_t zeros = skip_zeros ? 0 : range->zeros;
    int64_t below = zeros, total = zeros;
    for (int i = 0; h->bins && i < QX_HIST_BINS; i++) total += (int64_t)h->bins[i];
    const double need = percentile / 100 * (double)total;
    if (!h->bins || (double)below >= need) return 0;
    for (int i = 0; i < QX_HIST_BINS; i++) {
        below += (int64_t)h->bins[i];
        if ((double)below >= need) return at_most((i + 1) * width_of(h), range->absmax);
    }
    return range->absmax;
}

/* ---- entropy ---- */

typedef struct prefix {
    double count[ENTROPY_BINS + 1], clogc[ENTROPY_BINS + 1];
    int used[ENTROPY_BINS + 1];
    double c[ENTROPY_BINS];
    int n;
} prefix;

static void make_prefix(const qx_hist *h, prefix *p)
{
    p->n = 0;
    p->count[0] = p->clogc[0] = 0;
    p->used[0] = 0;
    for (int i = 0; i < ENTROPY_BINS; i++) {
        double c = (double)(h->bins[2 * i] + h->bins[2 * i + 1]);
        p->c[i] = c;
        p->count[i + 1] = p->count[i] + c;
        p->clogc[i + 1] = p->clogc[i] + (c > 0 ? c * log(c) : 0);
        p->used[i + 1] = p->used[i] + (c > 0);
        if (c > 0) p->n = i + 1;
    }
}

/* KL(P || Q) for the first i bins: P has everything beyond in its last bin; Q spreads each level's (untailed) count over the bins of
 * the level that hold something. A last bin that holds only the tail meets a Q of 1e-4 counts. */
static double divergence(const prefix *p, int i)
{
    double inside = p->count[i], total = p->count[p->n], tail = total - inside, c = p->c[i - 1];
    if (inside <= 0) return INFINITY;
    double sum = p->clogc[i] - (c > 0 ? c * log(c) : 0); /* sum of c log c but for the last bin */
    for (int l = 0; l < LEVELS; l++) {
        int from = (int)((int64_t)l * i / LEVELS), to = (int)((int64_t)(l + 1) * i / LEVELS);
        double s = p->count[to] - p->count[from];
        if (s <= 0) continue;
        double logq = log(s / (p->used[to] - p->used[from]));
        bool last = l == LEVELS - 1;
        sum -= (s - (last ? c : 0)) * logq;
        if (last && c > 0) sum += (c + tail) * (log(c + tail) - logq);
    }
    if (c <= 0 && tail > 0) sum += tail * (log(tail) - log(1e-4));
    return sum / total + log(inside / total);
}

/* Zeros are represented exactly whatever the threshold, so they take no part. */
float qx_hist_entropy(const qx_hist *h, const qx_scan *range)
{
    prefix p;
    if (!h->bins) return 0;
    make_prefix(h, &p);
    if (p.n <= LEVELS) return range->absmax;
    double best = INFINITY;
    int at = p.n;
    for (int i = LEVELS; i <= p.n; i++) {
        double d = divergence(&p, i);
        if (d <= best) best = d, at = i; /* the last minimum wins */
    }
    return at_most(at * 2 * width_of(h), range->absmax);
}

/* ---- mean squared error ---- */

/* Size of a step when |x| up to t shall be representable. UINT8 has a zero point: its 255 steps span what of [-t, t] holds values. */
static double step_of(const qx_scan *range, double t, float levels, qx_dtype format)
{
    if (format != QX_DT_UINT8) return t / (double)levels;
    const double lo = fmin(0, fmax((double)range->min, -t)), hi = fmax(0, fmin((double)range->max, t));
    return (hi - lo) / 255;
}

/* The bins that hold something: where they are and how much; the rest of the last eight counts nothing. */
typedef struct filled { double x[QX_HIST_BINS], count[QX_HIST_BINS]; int64_t n; } filled;

static void list_filled(const qx_hist *h, filled *f)
{
    f->n = 0;
    for (int i = 0; i < QX_HIST_BINS; i++)
        if (h->bins[i]) f->x[f->n] = (i + 0.5) * width_of(h), f->count[f->n++] = (double)h->bins[i];
    for (; f->n % 8; f->n++) f->x[f->n] = f->count[f->n] = 0;
}

static double error_at(const filled *f, const qx_scan *range, double t, float levels, qx_dtype format)
{
    return qx_levels_error(f->x, f->count, f->n, step_of(range, t, levels, format), t, format);
}

float qx_hist_mse(const qx_hist *h, const qx_scan *range, float levels, qx_dtype format)
{
    filled f;
    if (!h->bins) return 0;
    int used = QX_HIST_BINS;
    while (used > 0 && !h->bins[used - 1]) used--;
    if (used == 0) return 0;
    double best = INFINITY;
    int at = used, step = used > COARSE ? used / COARSE : 1;
    list_filled(h, &f);
    for (int e = used; e > 0; e -= step) {
        double err = error_at(&f, range, e * width_of(h), levels, format);
        if (err < best) best = err, at = e;
    }
    int from = at - step > 0 ? at - step + 1 : 1, to = at + step - 1 < used ? at + step - 1 : used;
    for (int e = from; e <= to; e++) {
        double err = error_at(&f, range, e * width_of(h), levels, format);
        if (err < best) best = err, at = e;
    }
    return at == used ? range->absmax : at_most(at * width_of(h), range->absmax);
}
