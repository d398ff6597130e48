/* scale.c - scales from ranges: the amax rule, the asymmetric rule, and what a scale looks like once it is stored. */
#include <float.h>

#include "kernels/loops/multi.h"
#include "kernels/quant.h"
#include "kernels/scalar.h"

/* One loop per stored type, so that it vectorises: rounding, then the limits, then what is no scale at all. Returns how many were moved. */
#define STORE_LOOP(name, round_expr, smallest, largest, keep_sign, none)                              \
    QX_INLINE void store_##name##_body(float *s, int64_t n, int64_t *out)                             \
    {                                                                                                 \
        int32_t moved = 0;                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                             \
            const float v = s[i], m = qx_of_bits(qx_bits_of(v) & 0x7fffffffu), r = (round_expr);      \
            const uint32_t sign = (keep_sign) ? qx_bits_of(v) & 0x80000000u : 0u;                     \
            float k = r < (smallest) ? (smallest) : r;                                                \
            k = k > (largest) ? (largest) : k;                                                        \
            const int usable = qx_bits_of(m) < 0x7f800000u, zero = m == 0.0f;                         \
            const float signed_k = qx_of_bits(qx_bits_of(k) | sign);                                  \
            moved += (!zero & (k != r)) | !usable;                                                    \
            s[i] = (usable & !zero) ? signed_k : zero ? (none) : 1.0f;                                \
        }                                                                                             \
        *out = moved;                                                                                 \
    }                                                                                                 \
    QX_MULTI(static, store_##name, (float *s, int64_t n, int64_t *out), (s, n, out))
STORE_LOOP(f32, m, FLT_MIN, FLT_MAX, 1, 1.0f)
STORE_LOOP(f16, qx_sc_f16_to_f32(qx_sc_f32_to_f16(m)), 0x1p-24f, 65504.0f, 1, 1.0f)
STORE_LOOP(bf16, qx_sc_bf16_to_f32(qx_sc_f32_to_bf16(m)), FLT_MIN, 0x1.fep127f, 1, 1.0f)
STORE_LOOP(e4m3, qx_mini_round(m, 3, 7, 448.0f), 0x1p-9f, 448.0f, 1, 1.0f)
STORE_LOOP(e8m0, qx_sc_e8m0_to_f32(qx_sc_f32_to_e8m0_ceil(m)), 0x1p-127f, 0x1p127f, 0, 0x1p-127f)

void qx_scales_stored(const qx_format *f, float *s, int64_t n, int64_t *adjusted)
{
    int64_t moved = 0;
    switch ((int)f->scale) {
    case QX_DT_FLOAT16: store_f16(s, n, &moved); break;
    case QX_DT_BFLOAT16: store_bf16(s, n, &moved); break;
    case QX_DT_FLOAT8E4M3FN: store_e4m3(s, n, &moved); break;
    case QX_DT_FLOAT8E8M0: store_e8m0(s, n, &moved); break;
    default: store_f32(s, n, &moved); break;
    }
    if (adjusted) *adjusted += moved;
}

float qx_scale_stored(const qx_format *f, float s, int64_t *adjusted)
{
    qx_scales_stored(f, &s, 1, adjusted);
    return s;
}

void qx_scale_from_amax(const qx_format *f, const float *amax, int64_t n, float *scale, int64_t *adjusted)
{
    float lo = 0, hi = 1;
    qx_format_range(f, &lo, &hi);
    for (int64_t i = 0; i < n; i++) {
        const float s = amax[i] / hi;
        scale[i] = s == 0.0f && amax[i] > 0.0f ? FLT_TRUE_MIN : s;
    }
    qx_scales_stored(f, scale, n, adjusted);
}

QX_INLINE void widths_body(const float *restrict lo, const float *restrict hi, int64_t n, float steps, float *restrict scale)
{
    for (int64_t i = 0; i < n; i++) {
        const float a = lo[i] < 0 ? lo[i] : 0.0f, b = hi[i] > 0 ? hi[i] : 0.0f, all = b - a;
        const float s = all - all == 0.0f ? all / steps : b / steps - a / steps; /* no overflow when a and b are near FLT_MAX */
        scale[i] = a == b ? 1.0f : s == 0.0f ? FLT_TRUE_MIN : s;
    }
}
QX_MULTI(static, widths, (const float *lo, const float *hi, int64_t n, float steps, float *scale), (lo, hi, n, steps, scale))

QX_INLINE void zeros_body(const float *restrict lo, const float *restrict hi, int64_t n, float qlo, float qhi, float *restrict scale,
                          int32_t *restrict zero)
{
    for (int64_t i = 0; i < n; i++) {
        const float a = lo[i] < 0 ? lo[i] : 0.0f, b = hi[i] > 0 ? hi[i] : 0.0f;
        scale[i] = a == b ? 1.0f : scale[i];
        zero[i] = (int32_t)qx_rne_clamp(qlo - a / scale[i], qlo, qhi);
    }
}
QX_MULTI(static, zeros, (const float *lo, const float *hi, int64_t n, float qlo, float qhi, float *scale, int32_t *zero),
         (lo, hi, n, qlo, qhi, scale, zero))

void qx_scale_from_range(const qx_format *f, const float *lo, const float *hi, int64_t n, float *scale, int32_t *zero, int64_t *adjusted)
{
    float qlo = 0, qhi = 1;
    qx_format_range(f, &qlo, &qhi);
    widths(lo, hi, n, qhi - qlo, scale);
    qx_scales_stored(f, scale, n, adjusted);
    zeros(lo, hi, n, qlo, qhi, scale, zero);
}
