/* search.h - scales chosen by least squared error instead of the amax rule.
 *
 * For a block x under a candidate scale s the error is sum_j w_j (x_j - s * (Q(x_j / s)))^2, w_j the importance of column j (the
 * mean square of the activation it meets) or 1. Every candidate is rounded to the stored scale type first, so what is compared is
 * what will be written. The amax rule is always among the candidates: a search never does worse. Inside the search x / s is
 * computed as x * (1 / s); the codes themselves are made with a true division by qx_quantize.
 *
 * Integer codes, symmetric: the largest magnitude on the highest code, or (without format.narrow) on the lowest - by a negative
 * scale where
 *   format.negative allows it and the value is positive - and one to thirteen scales shrunk from these. The codes with the largest
 *   A^2 / B, A = sum w x q, B = sum w q^2, are kept and give the scale A / B, once more after the codes were made anew with it.
 * Integer codes with zero points: the range (extended to 0) times a grid, zero points beside the rounded one, then the same.
 * Float codes: amax/top times the grid 1 .. 1/2 (an octave: a factor of two only moves the exponent), 21 steps for 8 bits and 11
 * for 4; with
 *   E8M0 scales the exponents ceil(log2(amax/top)) + {0, -1, 1}.
 * x must be finite. All-zero blocks get scale 1 (E8M0: 2^-127), zero point 0 clamped into the codes, error 0. When the largest
 * and the smallest element have the same magnitude the positive one decides the sign of a negative scale. */
#ifndef QX_KERNELS_SEARCH_H
#define QX_KERNELS_SEARCH_H

#include "kernels/quant.h"

typedef struct qx_search {
    qx_format format;    /* codes, stored scale type, narrow, negative */
    int64_t block;       /* elements of a row under one scale; a row's last block may be shorter; 0: whole rows */
    bool zero_point;     /* integers only */
    const float *weight; /* [k], >= 0; NULL: 1 */
    bool coarse;         /* integers: a third of the candidates and one round of least squares, to compare weights by, not to store them */
    /* x is [k][rows] and blocks run down its columns; scale, zero and err are [blocks][rows]: a [K,N] weight as it is stored */
    bool columns;
} qx_search;

/* x is [rows][k] (s->columns: [k][rows]). scale[rows][blocks], zero the same (may be NULL without zero_point). err[rows][blocks]
 * (may be NULL): the weighted squared error of the choice. Rows are independent. false: format or source not supported. */
bool qx_search_rows(const qx_search *s, const float *x, int64_t rows, int64_t k, float *scale, int32_t *zero, double *err);
/* err[i] += error of x[n] under scale[i] (not rounded here), zero[i] (NULL: 0), for i < m: for ranges that span several tiles.
 * Sums run in double over pieces of 256 elements, so the result depends on how x is cut only through those. */
bool qx_search_errors(const qx_search *s, const float *x, int64_t n, const float *scale, const int32_t *zero, int m, double *err);

/* ---- NVFP4: E2M1 codes in blocks of 16, E4M3 block scales, one float for the tensor ---- */

enum { QX_NVFP4_BLOCK = 16 };
typedef struct qx_nvfp4 {
    float global;          /* scale of the tensor, from qx_nvfp4_global */
    const float *weight;   /* [k] importance; NULL: 1 */
    bool columns;          /* as in qx_search */
} qx_nvfp4;

/* amax / (6 * 448); 1 when amax is 0. */
float qx_nvfp4_global(float amax);
/* Per row and block of 16 (the last may be shorter): code[] is the E4M3 block scale of least error as stored, scale[] =
 * value(code) * global in float: what the codes are divided by and what two DequantizeLinear give. Codes lie in [2^-9, 448]; an
 * all-zero block stores 1.0. Least of all codes from two (weighted: six) below the amax rule's to seven above it: without weights
 * of all 126, but for what sums in 16-bit fixed point do not tell apart. err[] may be NULL. Of equal errors the amax rule's code,
 * E4M3(blockamax / 6 / global), wins, then larger codes going up, then smaller ones going down. */
void qx_nvfp4_search(const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, uint8_t *code, float *scale, double *err);

#endif
