/* half.h - rounding float results to fp16 and bf16: half to even, overflow to Inf (stored weights saturate, arithmetic does not). */
#ifndef QX_RUNTIME_CPU_HALF_H
#define QX_RUNTIME_CPU_HALF_H

#include <math.h>

#include "kernels/dtype.h"

enum { QX_HALF_TILE = 1024 }; /* floats of a tile on the stack */

/* Works for any dtype that qx_from_f32 knows; only fp16 and bf16 differ from it (Inf). */
static inline void qx_half_from_f32(qx_dtype dtype, const float *x, int64_t n, void *y)
{
    qx_from_f32(dtype, x, n, y);
    if (dtype != QX_DT_FLOAT16 && dtype != QX_DT_BFLOAT16) return;
    const float limit = dtype == QX_DT_FLOAT16 ? 65520.0f : 3.3961775e38f; /* half way between the largest finite and the next power */
    const uint16_t inf = dtype == QX_DT_FLOAT16 ? 0x7c00 : 0x7f80;
    uint16_t *h = y;
    for (int64_t i = 0; i < n; i++)
        h[i] = fabsf(x[i]) >= limit ? (uint16_t)(x[i] < 0 ? inf | 0x8000 : inf) : h[i];
}

#endif
