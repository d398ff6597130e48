/* observe.h - what calibration looks at: ranges, sums, histograms, per-column sums, and Gram matrices of float arrays in memory.
 *
 * Sums are kept as an unevaluated pair hi + lo (error-free additions), so that they come out the same in any order of the data but for
 * cases about 2^-50 rare; maxima and counts are exact. All loops have a fixed lane structure: the same bits on every instruction set. */
#ifndef QX_KERNELS_OBSERVE_H
#define QX_KERNELS_OBSERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/dtype.h"

typedef struct qx_dd { double hi, lo; } qx_dd;
static inline qx_dd qx_dd_add(qx_dd a, double b)
{
    double s = a.hi + b, t = s - a.hi;
    double e = (a.hi - (s - t)) + (b - t);
    return (qx_dd){s, a.lo + e};
}
static inline qx_dd qx_dd_join(qx_dd a, qx_dd b)
{
    qx_dd s = qx_dd_add(a, b.hi);
    s.lo += b.lo;
    return s;
}
static inline double qx_dd_value(qx_dd a) { return a.hi + a.lo; }

typedef struct qx_scan {
    float min, max, absmax;  /* of no elements: 0 */
    int64_t n, zeros;
    bool nonfinite;          /* a NaN or Inf is among them: the other fields mean nothing then */
    qx_dd sum, abs, sumsq;   /* of x, |x|, x^2 */
} qx_scan;
/* sizes: abs too, which costs a third of the others together; else it is 0. */
qx_scan qx_scan_f32(const float *x, int64_t n, bool sizes);
/* Index of the first NaN or Inf, -1 when there is none. */
int64_t qx_first_nonfinite(const float *x, int64_t n);

/* bins[(int)(|x| * inv_width)]++ (zeros too, in bin 0). The caller has made sure that the largest |x| falls inside; inv_width is
 * a power of two. */
void qx_hist_f32(const float *x, int64_t n, float inv_width, uint64_t *bins);

/* Sum over i of count[i] (Q(x[i]) - x[i])^2, x[i] >= 0, n a multiple of 8, where Q rounds x / scale to a level of the format
 * (anything but small floats: to a whole number, below 2^51) and keeps it at or below top. */
double qx_levels_error(const double *x, const double *count, int64_t n, double scale, double top, qx_dtype format);

/* Per column of a [rows, cols] matrix with row stride `stride`: accumulates. Returns how many zeros it saw. */
typedef struct qx_columns { float *min, *max; qx_dd *sum, *abs, *sq; } qx_columns; /* arrays [cols] */
int64_t qx_columns_f32(const float *x, int64_t rows, int64_t stride, int64_t cols, const qx_columns *acc);

#endif
