/* vmath_leaf.h - rows of exponentials: the softmax of attention, SiLU and GELU, and attention's products of a few rows, with fused
 * multiply-add, one table per instruction set. About twice as fast as the loops of kernels/loops/fmath.h, whose bits are the same
 * everywhere; here the last bit depends on the instruction set (never on threads). */
#ifndef QX_KERNELS_LOOPS_VMATH_LEAF_H
#define QX_KERNELS_LOOPS_VMATH_LEAF_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/loops/isa.h"

typedef struct qx_affine { float mean[16], a[16], b[16]; } qx_affine;

typedef struct qx_vmath {
    /* s = scale s + mask (mask NULL: 0); the largest of them, NaN left out, -Inf when there is none. */
    float (*score_top)(float *s, int64_t n, float scale, const float *mask);
    /* s = exp(s - top), s <= top; their sum. */
    float (*exp_sum)(float *s, int64_t n, float top);
    /* y = z, or with silu z / (1 + exp(-z)), of z = (x - mean) a + b, whose three numbers repeat after 16 elements; x may be y. */
    void (*affine)(const float *x, int64_t n, const qx_affine *p, bool silu, float *y);
    /* y = x / (1 + exp(-x)), x (1 + erf(x / sqrt 2)) / 2; x may be y. */
    void (*silu)(const float *x, float *y, int64_t n);
    void (*gelu)(const float *x, float *y, int64_t n);
    void (*gelu_tanh)(const float *x, float *y, int64_t n); /* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2; x may be y */
    void (*sigmoid)(const float *x, float *y, int64_t n); /* y = 1 / (1 + exp(-x)), 0 below -87; x may be y */
    /* s[r][j] = sum over c of q[r][c] k[j][c]; r < rows, j < n, c < d. */
    void (*dots)(int64_t rows, int64_t n, int64_t d, const float *q, int64_t ldq, const float *k, int64_t ldk, float *s, int64_t lds);
    /* y[r][c] += sum over j of s[r][j] v[j][c]; r < rows, j < n, c < d. */
    void (*times)(int64_t rows, int64_t n, int64_t d, const float *s, int64_t lds, const float *v, int64_t ldv, float *y, int64_t ldy);
} qx_vmath;

const qx_vmath *qx_vmath_ref(void);
#if defined(__x86_64__)
const qx_vmath *qx_vmath_avx2(void);
const qx_vmath *qx_vmath_avx512(void);
#endif
static inline const qx_vmath *qx_vmath_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return qx_vmath_avx512();
    if (isa == QX_ISA_AVX2) return qx_vmath_avx2();
#endif
    (void)isa;
    return qx_vmath_ref();
}

#endif
