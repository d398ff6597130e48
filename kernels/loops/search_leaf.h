/* search_leaf.h - the loops behind search.c, one table per instruction set. Internal to kernels/ and its tests. */
#ifndef QX_KERNELS_LOOPS_SEARCH_LEAF_H
#define QX_KERNELS_LOOPS_SEARCH_LEAF_H

#include "kernels/loops/isa.h"
#include "kernels/search.h"

typedef enum qx_grid_kind { QX_ROUND_INT, QX_ROUND_E4M3, QX_ROUND_E5M2, QX_ROUND_E2M1, QX_ROUND_COUNT_ } qx_grid_kind;

enum { QX_LANES = 16, QX_FIXED_TOP = 1023, QX_FIXED_E2M1 = 4095 }; /* what 1 is in fixed point */

/* Candidates of sixteen blocks for integer codes: inv[c][lane] codes per unit of x, lo and hi the limits of codes minus zero point. */
typedef struct qx_try { const float *inv, *lo, *hi; int m; } qx_try;
/* The best of the candidates so far: scale A / B and gain A^2 / B, A = sum w x q, B = sum w q^2, and lowest code minus zero
 * point; rows of lanes. */
typedef struct qx_fit { float scale[QX_LANES], gain[QX_LANES], lo[QX_LANES]; } qx_fit;

/* Sixteen blocks at once, one a lane: x is a tile [n][ldx], w one of [n][QX_LANES]; scales and results are rows of QX_LANES. Sums
 * run in order of n. */
typedef struct qx_lane_leaf {
    /* err[c][lane] = sum w (x - s q)^2 for candidate c < m with scale s[c][lane], inverse inv[c][lane], code limits lo[c][lane],
     * hi[c][lane]. */
    void (*errors[QX_ROUND_COUNT_])(const float *x, int64_t ldx, const float *w, int64_t n, const float *s, const float *inv,
                                    const float *lo, const float *hi, int m, float *err);
    /* a[c][lane] += sum w x q, b[c][lane] += sum w q^2 with the integer q of each candidate. */
    void (*moments)(const float *x, int64_t ldx, const float *w, int64_t n, const qx_try *t, float *a, float *b);
    /* The same in 16-bit fixed point: x[pairs][QX_LANES], each word two consecutive elements (the first in the low half), in
     * units of 1 / QX_FIXED_TOP; q = clamp(round(x * mul / 2^15)), mul = inv * 2^15 / QX_FIXED_TOP. At most 256 elements; |x| <=
     * QX_FIXED_TOP, |q| <= 16: sums stay below 2^24. */
    void (*fixed)(const int32_t *x, int64_t pairs, const qx_try *t, float *a, float *b);
    /* For E2M1: err[c][lane] = sum (x - s q)^2 - sum x^2, |x| <= 1 in units of 1 / QX_FIXED_E2M1, q = |x| * inv rounded to the
     * format, half up; s and inv for such x. */
    void (*fixed_e2m1)(const int32_t *x, int64_t pairs, const float *s, const float *inv, int m, float *err);
    /* x * unit[lane] * top, rounded, as the two before take it. */
    void (*to_fixed)(const float *x, int64_t ldx, int64_t n, const float *unit, int top, int32_t *out);
    /* Keeps in *f the first candidate of the largest gain above what is there, A / B of the sign of its inv. */
    void (*take)(const qx_try *t, const float *a, const float *b, qx_fit *f);
    void (*least)(const float *v, int m, float *least, float *which); /* of v[m][lane]: the smallest and the index of the first such */
    void (*range)(const float *x, int64_t ldx, int64_t n, float *lo, float *hi); /* widens lo and hi */
} qx_lane_leaf;

typedef struct qx_search_leaf {
    qx_lane_leaf lanes;
    /* err[i] = sum w (x - s_i q)^2, q = x * inv_i rounded and clamped to [lo_i, hi_i] (integers) or to the format (lo, hi
     * unused). n <= 256. */
    void (*errors[QX_ROUND_COUNT_])(const float *x, const float *w, int64_t n, const float *s, const float *inv, const float *lo,
                                    const float *hi, int m, float *err);
} qx_search_leaf;

const qx_search_leaf *qx_search_leaf_ref(void);
#if defined(__x86_64__)
const qx_search_leaf *qx_search_leaf_avx2(void);
const qx_search_leaf *qx_search_leaf_avx512(void);
#endif
static inline const qx_search_leaf *qx_search_leaf_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return qx_search_leaf_avx512();
    if (isa == QX_ISA_AVX2) return qx_search_leaf_avx2();
#endif
    (void)isa;
    return qx_search_leaf_ref();
}

bool qx_search_rows_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t rows, int64_t k, float *scale,
                          int32_t *zero, double *err);
bool qx_search_errors_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t n, const float *scale,
                            const int32_t *zero, int m, double *err);
void qx_nvfp4_search_using(const qx_search_leaf *l, const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, uint8_t *code,
                           float *scale, double *err);

#endif
