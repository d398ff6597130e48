/* observe_loops.h - the loops of observe.h, compiled once per instruction set (FN, TARGET). Vectors of eight lanes everywhere, by the
 * compiler's vector types: an instruction set decides how fast they run, never what they give. */

#ifndef LEAST
#define LEAST(a, b) PICK((a) < (b), a, b)
#define MOST(a, b) PICK((a) > (b), a, b)
#define MOSTI(a, b) PICKI((a) > (b), a, b)
#endif
#ifndef MINUS
#define MINUS(a, b) ((a) - (b))
#endif
#ifndef WIDEN
#define WIDEN(v) __builtin_convertvector(v, v8d)
#endif

TARGET static inline __attribute__((always_inline)) qx_scan FN(scan_what)(const float *x, int64_t n, const bool sizes)
{
    const v8i magnitude = splat8i(0x7fffffff);
    v8f lo = n ? splat8f(x[0]) : splat8f(0), hi = lo;
    v8i top = {0}, zeros = {0};
    v8d sum = {0}, sum_lo = {0}, mag = {0}, mag_lo = {0}, sq = {0}, sq_lo = {0};
    int64_t i = 0, tail_zeros = 0;
    for (; i + 8 <= n; i += 8) {
        v8f v;
        memcpy(&v, x + i, sizeof v);
        v8i bits = (v8i)v & magnitude;
        lo = LEAST(v, lo);
        hi = MOST(v, hi);
        top = MOSTI(bits, top);
        zeros -= bits == 0;
        v8d d = WIDEN(v);
        ADD2(sum, sum_lo, d);
        if (sizes) ADD2(mag, mag_lo, ABS8(d));
        ADD2(sq, sq_lo, d * d);
    }
    qx_scan s = {.n = n};
    s.min = s.max = n ? x[0] : 0;
    int32_t most = 0;
    for (int l = 0; l < 8; l++) {
        if (lo[l] < s.min) s.min = lo[l];
        if (hi[l] > s.max) s.max = hi[l];
        if (top[l] > most) most = top[l];
        s.zeros += zeros[l];
        s.sum = qx_dd_join(s.sum, (qx_dd){sum[l], sum_lo[l]});
        s.abs = qx_dd_join(s.abs, (qx_dd){mag[l], mag_lo[l]});
        s.sumsq = qx_dd_join(s.sumsq, (qx_dd){sq[l], sq_lo[l]});
    }
    for (; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        if (bits > most) most = bits;
        tail_zeros += bits == 0;
        if (x[i] < s.min) s.min = x[i];
        if (x[i] > s.max) s.max = x[i];
        s.sum = qx_dd_add(s.sum, x[i]);
        if (sizes) s.abs = qx_dd_add(s.abs, __builtin_fabsf(x[i]));
        s.sumsq = qx_dd_add(s.sumsq, (double)x[i] * x[i]);
    }
    s.zeros += tail_zeros;
    s.nonfinite = most >= 0x7f800000;
    memcpy(&s.absmax, &most, sizeof most);
    return s;
}

TARGET static qx_scan FN(scan)(const float *x, int64_t n, bool sizes)
{
    return sizes ? FN(scan_what)(x, n, true) : FN(scan_what)(x, n, false);
}

/* Bins of a stretch first, then their counts: taking lanes out of a vector between the counts costs five times as much. */
TARGET static void FN(hist)(const float *x, int64_t n, float inv_width, uint64_t *bins)
{
    enum { STRETCH = 256 };
    const v8i magnitude = splat8i(0x7fffffff);
    int32_t at[STRETCH];
    int64_t i = 0;
    for (; i + STRETCH <= n; i += STRETCH) {
        for (int k = 0; k < STRETCH; k += 8) {
            v8f v;
            memcpy(&v, x + i + k, sizeof v);
            v = (v8f)((v8i)v & magnitude) * inv_width;
            v8i a = __builtin_convertvector(v, v8i);
            memcpy(at + k, &a, sizeof a);
        }
        for (int k = 0; k < STRETCH; k++) bins[at[k]]++;
    }
    for (; i < n; i++) bins[(int32_t)(__builtin_fabsf(x[i]) * inv_width)]++;
}

/* Eight columns from c on, all rows, sums in registers. */
TARGET static inline __attribute__((always_inline)) int64_t FN(columns8)(const float *x, int64_t rows, int64_t stride, int64_t c,
                                                                         const qx_columns *acc)
{
    const v8i magnitude = splat8i(0x7fffffff);
    int64_t none = 0;
    v8i zeros = {0};
    v8f lo, hi;
    v8d s, s_lo, a, a_lo, q, q_lo;
    memcpy(&lo, acc->min + c, sizeof lo);
    memcpy(&hi, acc->max + c, sizeof hi);
    for (int l = 0; l < 8; l++) {
        s[l] = acc->sum[c + l].hi, s_lo[l] = acc->sum[c + l].lo;
        a[l] = acc->abs[c + l].hi, a_lo[l] = acc->abs[c + l].lo;
        q[l] = acc->sq[c + l].hi, q_lo[l] = acc->sq[c + l].lo;
    }
    for (int64_t r = 0; r < rows; r++) {
        v8f v;
        memcpy(&v, x + r * stride + c, sizeof v);
        lo = LEAST(v, lo);
        hi = MOST(v, hi);
        zeros -= ((v8i)v & magnitude) == 0;
        v8d d = WIDEN(v);
        ADD2(s, s_lo, d);
        ADD2(a, a_lo, ABS8(d));
        ADD2(q, q_lo, d * d);
    }
    memcpy(acc->min + c, &lo, sizeof lo);
    memcpy(acc->max + c, &hi, sizeof hi);
    for (int l = 0; l < 8; l++) {
        acc->sum[c + l] = (qx_dd){s[l], s_lo[l]};
        acc->abs[c + l] = (qx_dd){a[l], a_lo[l]};
        acc->sq[c + l] = (qx_dd){q[l], q_lo[l]};
        none += zeros[l];
    }
    return none;
}

TARGET static int64_t FN(columns)(const float *x, int64_t rows, int64_t stride, int64_t cols, const qx_columns *acc)
{
    int64_t c = 0, zeros = 0;
    for (; c + 8 <= cols; c += 8) zeros += FN(columns8)(x, rows, stride, c, acc);
    for (; c < cols; c++)
        for (int64_t r = 0; r < rows; r++) {
            float v = x[r * stride + c];
            zeros += v == 0;
            if (v < acc->min[c]) acc->min[c] = v;
            if (v > acc->max[c]) acc->max[c] = v;
            acc->sum[c] = qx_dd_add(acc->sum[c], v);
            acc->abs[c] = qx_dd_add(acc->abs[c], __builtin_fabsf(v));
            acc->sq[c] = qx_dd_add(acc->sq[c], (double)v * v);
        }
    return zeros;
}
