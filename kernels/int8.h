/* int8.h - exact integer products of 8-bit codes, for CPUs and builds where no library may be trusted with them. */
#ifndef QX_KERNELS_INT8_H
#define QX_KERNELS_INT8_H

#include <stdint.h>

enum { QX_INT8_MAX_K = 65793 }; /* longest sum of products of 9-bit by 8-bit codes that cannot overflow int32 */
/* acc[j] = sum over i < k of x[i] * w[i * row + j * col], j < n. One of row, col is 1. x holds code - zero point. */
void qx_int8_row(const int16_t *x, const int8_t *w, int64_t k, int64_t n, int64_t row, int64_t col, int32_t *acc);
/* y[j] = (float)acc[j] * scale[j * step] + (bias ? bias[j] : 0) */
void qx_int8_finish(const int32_t *acc, const float *scale, int64_t step, const float *bias, float *y, int64_t n);

#endif
