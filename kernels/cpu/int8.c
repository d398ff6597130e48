/* int8.c - see int8.h. */
#include "kernels/int8.h"

#include "kernels/loops/multi.h"

QX_INLINE void qx_int8_row_body(const int16_t *x, const int8_t *w, int64_t k, int64_t n, int64_t row, int64_t col, int32_t *acc)
{
    if (row == 1) { /* [n, k]: a dot product each */
        for (int64_t j = 0; j < n; j++) {
            const int8_t *p = w + j * col;
            int32_t s = 0;
            for (int64_t i = 0; i < k; i++) s += x[i] * p[i];
            acc[j] = s;
        }
        return;
    }
    for (int64_t j = 0; j < n; j++) acc[j] = 0;
    for (int64_t i = 0; i < k; i++) {
        const int8_t *p = w + i * row;
        int32_t v = x[i];
        for (int64_t j = 0; j < n; j++) acc[j] += v * p[j];
    }
}
QX_MULTI(, qx_int8_row, (const int16_t *x, const int8_t *w, int64_t k, int64_t n, int64_t row, int64_t col, int32_t *acc),
         (x, w, k, n, row, col, acc))

QX_INLINE void qx_int8_finish_body(const int32_t *acc, const float *scale, int64_t step, const float *bias, float *y, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = (float)acc[j] * scale[j * step] + (bias ? bias[j] : 0.0f);
}
QX_MULTI(, qx_int8_finish, (const int32_t *acc, const float *scale, int64_t step, const float *bias, float *y, int64_t n),
         (acc, scale, step, bias, y, n))
