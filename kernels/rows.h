/* rows.h - loops over rows of floats: softmax, normalisations, reductions. One call handles one row (or one column block), so that
 * callers spread rows over threads; sums run in eight fixed lanes, so a row's result never depends on who computes it or on the CPU. */
#ifndef QX_KERNELS_ROWS_H
#define QX_KERNELS_ROWS_H

#include <stdbool.h>
#include <stdint.h>

/* y = softmax(x); x may be y. A row of -Inf only gives NaN, as the formula has it; zero_masked gives zeros instead. */
void qx_softmax_row(const float *x, float *y, int64_t n, bool zero_masked);
void qx_log_softmax_row(const float *x, float *y, int64_t n);
/* y = (x - mean) / sqrt(var + eps) * gamma + beta; gamma, beta may be NULL; *mean and *inv (1 / sqrt) may be NULL. */
void qx_layernorm_row(const float *x, const float *gamma, const float *beta, float eps, float *y, int64_t n, float *mean, float *inv);
/* y = x / sqrt(mean(x^2) + eps) * gamma */
void qx_rmsnorm_row(const float *x, const float *gamma, float eps, float *y, int64_t n, float *inv);
/* Mean and 1 / sqrt(var + eps) of n values; then y = (x - mean) * inv * gamma + beta with scalars (one channel of a group). */
void qx_moments(const float *x, int64_t n, float eps, float *mean, float *inv);
void qx_affine_row(const float *x, float mean, float inv, float gamma, float beta, float *y, int64_t n);
/* Channels side by side: x[pixels][lanes], lanes 8 or 16. Of each lane the mean and the sum of squared distances from it; pixels >= 1. */
void qx_lane_moments(const float *x, int64_t pixels, int lanes, double *mean, double *m2);
/* Joins the moments of n2 more values into those of n. */
void qx_join_moments(double *mean, double *m2, int64_t n, double mean2, double m22, int64_t n2);

typedef enum qx_reduce { QX_R_SUM, QX_R_MEAN, QX_R_MAX, QX_R_MIN, QX_R_PROD, QX_R_L1, QX_R_L2, QX_R_SUMSQ, QX_R_LOGSUM,
                         QX_R_LOGSUMEXP } qx_reduce;
/* Of n contiguous values. n = 0 gives the neutral element (MAX -Inf, MIN +Inf, MEAN NaN). NaN is handed on. */
float qx_reduce_row(qx_reduce op, const float *x, int64_t n);
/* y[i] = op over k of x[k * stride + i], i in [0, m). */
void qx_reduce_cols(qx_reduce op, const float *x, int64_t n, int64_t stride, float *y, int64_t m);

/* RoPE on one head: half = n / 2 angles. interleaved: pairs (2i, 2i+1); else (i, i + half). x may be y. */
void qx_rope_row(const float *x, const float *cos, const float *sin, int64_t half, bool interleaved, float *y);
/* The same with angles for the whole head of d: y = x cos + (-upper half of x, lower half of x) sin. x and y do not overlap. */
void qx_rotate_half_row(const float *x, const float *cos, const float *sin, int64_t d, float *y);
/* sum x[i] * y[i] in fixed lanes; y += a x. */
float qx_dot(const float *x, const float *y, int64_t n);
void qx_axpy(float a, const float *x, float *y, int64_t n);

#endif
