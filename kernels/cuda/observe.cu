/* observe.cu - what calibration wants to know of a tensor, worked out where it lies: range and sums, histogram, columns. Definitions as in
 * kernels/observe.h: maxima and counts are exact, sums are pairs hi + lo of error-free additions. Gram matrices: gram.cu. */
#include <math.h>

#include "kernels/cuda/elem.h"

enum { SCAN_THREADS = 128, COLUMN_THREADS = 128 };

/* (hi, lo) += v without losing what does not fit in hi. */
QX_HD void pair_add(double *p, double v)
{
    const double s = p[0] + v, t = s - p[0];
    p[1] += (p[0] - (s - t)) + (v - t);
    p[0] = s;
}

QX_HD void part_start(qk_scan_part *p)
{
    p->min = p->max = p->absmax = 0;
    p->zeros = p->nonfinite = 0;
    p->sum[0] = p->sum[1] = p->abs[0] = p->abs[1] = p->sq[0] = p->sq[1] = 0;
}

QX_HD void part_add(qk_scan_part *p, float x, int first)
{
    const float m = fabsf(x);
    if (!(m <= 3.402823466e38f)) {
        p->nonfinite++;
        return;
    }
    p->min = first || x < p->min ? x : p->min;
    p->max = first || x > p->max ? x : p->max;
    p->absmax = m > p->absmax ? m : p->absmax;
    p->zeros += x == 0;
    pair_add(p->sum, (double)x);
    pair_add(p->abs, (double)m);
    pair_add(p->sq, (double)x * (double)x);
}

/* What `o` saw joins p. */
QX_HD void part_join(qk_scan_part *p, const qk_scan_part *o)
{
    p->min = o->min < p->min ? o->min : p->min;
    p->max = o->max > p->max ? o->max : p->max;
    p->absmax = o->absmax > p->absmax ? o->absmax : p->absmax;
    p->zeros += o->zeros;
    p->nonfinite += o->nonfinite;
    for (int j = 0; j < 2; j++) {
        pair_add(p->sum, o->sum[j]);
        pair_add(p->abs, o->abs[j]);
        pair_add(p->sq, o->sq[j]);
    }
}

/* Those of the first n threads, in their order. */
QX_HD qk_scan_part joined(const qk_scan_part *all, int64_t n)
{
    qk_scan_part p = all[0];
    for (int64_t k = 1; k < n; k++) part_join(&p, &all[k]);
    return p;
}

/* What this thread sees: pieces of eight (wide) or single elements go round the threads of all blocks. */
QK_INSIDE qk_scan_part seen_by_thread(const qk_scan_args *a, int each)
{
    qk_scan_part p;
    float v[QK_WIDE];
    int first = 1;
    part_start(&p);
    for (int64_t i = (QK_BLOCK * SCAN_THREADS + QK_THREAD) * each; i < a->n; i += QK_BLOCKS * SCAN_THREADS * each) {
        if (a->wide) qk_real8(a->x, a->dtype, i, v);
        else v[0] = qk_get(a->x, a->dtype, i);
        for (int k = 0; k < each; k++) {
            part_add(&p, v[k], first);
            first = 0;
        }
    }
    return p;
}

QK_KERNEL(scan_kernel, qk_scan_args)
{
    QK_SHARED(qk_scan_part, all, SCAN_THREADS);
    const int each = a.wide ? QK_WIDE : 1;
    const int64_t here = (a.n - QK_BLOCK * SCAN_THREADS * each + each - 1) / each; /* threads of the block that see an element */
    all[QK_THREAD] = seen_by_thread(&a, each);
    QK_SYNC();
    if (QK_THREAD == 0) a.parts[QK_BLOCK] = joined(all, here < SCAN_THREADS ? here : SCAN_THREADS);
}
QK_EXTERN int qk_scan(qk_queue q, const qk_scan_args *args)
{
    qk_scan_args a = *args;
    /* every block gets one */
    a.wide = qk_is_real(a.dtype) && a.n % QK_WIDE == 0 && qk_is_wide(a.x) && (int64_t)a.n_parts * SCAN_THREADS <= a.n / QK_WIDE;
    return QK_LAUNCH(scan_kernel, a.n_parts, SCAN_THREADS, q, &a);
}

/* A histogram of a block in shared memory, added to the whole at the end: counts, so the order does not matter. */
enum { BINS = 4096, HIST_THREADS = 256, EXP_FLOOR = -120 };
QX_HD int exp_for(float absmax)
{
    /* absmax < 2^(e + 12); numbers below the normal ones are far below the floor */
    const int e = (int)(qx_bits_of(absmax) >> 23) - 126 - 12;
    return e > EXP_FLOOR ? e : EXP_FLOOR;
}

QK_KERNEL(histogram_kernel, qk_hist_args)
{
    const int t = QK_THREAD;
    QK_SHARED(uint32_t, own, BINS);
    QK_SHARED(float, most, HIST_THREADS);
    for (int k = t; k < BINS; k += QK_NT) own[k] = 0;
    most[t] = 0;
    for (int k = t; k < a.n_parts; k += QK_NT) most[t] = a.parts[k].absmax > most[t] ? a.parts[k].absmax : most[t];
    QK_FOLD(most, u > v ? u : v);
    const int exp = exp_for(most[0]);
    const float inv_width = qx_of_bits((uint32_t)(127 - exp) << 23);
    for (int64_t i = QK_BLOCK * QK_NT + t; i < a.n; i += QK_BLOCKS * QK_NT) {
        const float m = fabsf(qk_get(a.x, a.dtype, i));
        const int bin = m <= most[0] ? (int)(m * inv_width) : -1;
        if (bin >= 0) QK_ADD_COUNT32(&own[bin < BINS ? bin : BINS - 1], 1u);
    }
    if (t == 0 && QK_BLOCK == 0) *a.exp = exp;
    QK_SYNC();
    for (int k = t; k < BINS; k += QK_NT)
        if (own[k]) QK_ADD_COUNT32(&a.bins[k], own[k]);
}
QK_EXTERN int qk_histogram(qk_queue q, const qk_hist_args *a)
{
    const int64_t blocks = a->n / (HIST_THREADS * 64) + 1;
    return QK_LAUNCH(histogram_kernel, blocks > 512 ? 512 : blocks, HIST_THREADS, q, a);
}

QX_HD void put_column(const qk_columns_args *a, int64_t c, const qk_scan_part *p)
{
    a->min[c] = p->min;
    a->max[c] = p->max;
    a->sum[2 * c] = p->sum[0], a->sum[2 * c + 1] = p->sum[1];
    a->abs[2 * c] = p->abs[0], a->abs[2 * c + 1] = p->abs[1];
    a->sq[2 * c] = p->sq[0], a->sq[2 * c + 1] = p->sq[1];
}

/* Channels that are neighbours in memory (inner 1): a thread a channel, so that a warp reads in a row. */
QK_KERNEL(columns_kernel, qk_columns_args)
{
    QK_EACH(c, a.channels) {
        qk_scan_part p;
        part_start(&p);
        for (int64_t o = 0; o < a.outer; o++) part_add(&p, qk_get(a.x, a.dtype, o * a.channels + c), o == 0);
        put_column(&a, c, &p);
    }
}

/* Channels of pictures: a block a channel, its threads along the picture; their parts are joined in order. */
QK_KERNEL(planes_kernel, qk_columns_args)
{
    QK_SHARED(qk_scan_part, all, COLUMN_THREADS);
    const int64_t n = a.outer * a.inner;
    qk_scan_part p;
    part_start(&p);
    for (int64_t i = QK_THREAD; i < n; i += COLUMN_THREADS)
        part_add(&p, qk_get(a.x, a.dtype, (i / a.inner * a.channels + QK_BLOCK) * a.inner + i % a.inner), i == QK_THREAD);
    all[QK_THREAD] = p;
    QK_SYNC();
    if (QK_THREAD > 0) return;
    p = joined(all, n < COLUMN_THREADS ? n : COLUMN_THREADS);
    put_column(&a, QK_BLOCK, &p);
}
QK_EXTERN int qk_columns(qk_queue q, const qk_columns_args *a)
{
    if (a->inner > 1) return QK_LAUNCH(planes_kernel, a->channels, COLUMN_THREADS, q, a);
    return QK_LAUNCH(columns_kernel, QK_EACH_BLOCKS(a->channels * 8), 32, q, a);
}
