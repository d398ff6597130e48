/* pool.h - maxima, sums and means of windows that slide over pictures: where the windows lie, and a band of output rows at a
 * time. A picture is a plane of `lanes` numbers a pixel (1: plain; else the channels that lie side by side) with three spatial
 * axes, of which the first ones may have length 1. */
#ifndef QX_KERNELS_POOL_H
#define QX_KERNELS_POOL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct qx_windows {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3]; /* begin, end: padding */
} qx_windows;

/* What of a window lies where on one axis: n taps inside of the input, from position lo on; padded: taps inside of input and padding. */
typedef struct qx_taps { int64_t lo, n, padded; } qx_taps;
static inline qx_taps qx_taps_at(const qx_windows *w, int axis, int64_t o)
{
    const int64_t first = o * w->stride[axis] - w->begin[axis], d = w->dilation[axis], in = w->in[axis], kernel = w->kernel[axis],
        to = in + w->end[axis];
    if (d == 1) { /* the same without divisions */
        const int64_t lo = first < 0 ? 0 : first, hi = first + kernel < in ? first + kernel : in, pad = to - first;
        return (qx_taps){lo, hi > lo ? hi - lo : 0, pad < kernel ? pad < 0 ? 0 : pad : kernel};
    }
    const int64_t skip = first < 0 ? (-first + d - 1) / d : 0, pad = to > first ? (to - first + d - 1) / d : 0;
    int64_t end = in > first ? (in - first + d - 1) / d : 0;
    end = end < kernel ? end : kernel;
    return (qx_taps){first + skip * d, end > skip ? end - skip : 0, pad < kernel ? pad : kernel};
}

/* Rows [first, first + n) of axis 1, at `depth` of axis 0: y[n, out[2], lanes] of the plane x. Maxima hand NaN on, and are -Inf
 * of nothing. Means are sums of columns, added up in float, by rows * cols, cols[out[2] * lanes] being what of each output's
 * columns counts; rows: those inside, or with count_pad those in the padding too. scratch: qx_pool_scratch numbers. */
typedef struct qx_pool_band {
    int64_t lanes, depth, first, n;
    const float *x, *cols;
    /* NULL: maxima */ bool count_pad;
    float *y, *scratch;
} qx_pool_band;
int64_t qx_pool_scratch(const qx_windows *w, int64_t lanes, int64_t n);
void qx_pool_rows(const qx_windows *w, const qx_pool_band *b);

#endif
