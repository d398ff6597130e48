/* scale.c - scales from ranges: the amax rule, the asymmetric rule, and what a scale looks like once it is stored. */
#include <float.h>

#include "kernels/quant.h"
#include "kernels/scalar.h"

typedef struct limits { float smallest, largest; } limits;

static limits scale_limits(qx_dtype t)
{
    switch ((int)t) {
    case QX_DT_FLOAT16: return (limits){0x1p-24f, 65504.0f};
    case QX_DT_BFLOAT16: return (limits){FLT_MIN, 0x1.fep127f};
    case QX_DT_FLOAT8E4M3FN: return (limits){0x1p-9f, 448.0f};
    case QX_DT_FLOAT8E8M0: return (limits){0x1p-127f, 0x1p127f};
    default: return (limits){FLT_MIN, FLT_MAX};
    }
}

static float rounded(qx_dtype t, float s)
{
    switch ((int)t) {
    case QX_DT_FLOAT16: return qx_sc_f16_to_f32(qx_sc_f32_to_f16(s));
    case QX_DT_BFLOAT16: return qx_sc_bf16_to_f32(qx_sc_f32_to_bf16(s));
    case QX_DT_FLOAT8E4M3FN: return qx_sc_e4m3_to_f32(qx_sc_f32_to_e4m3(s, 1));
    case QX_DT_FLOAT8E8M0: return qx_sc_e8m0_to_f32(qx_sc_f32_to_e8m0_ceil(s));
    default: return s;
    }
}

float qx_scale_stored(const qx_format *f, float s, int64_t *adjusted)
{
    const limits lim = scale_limits(f->scale);
    const float mag = s < 0 ? -s : s;
    const bool finite = s - s == 0.0f;
    float r = rounded(f->scale, mag);
    bool moved = !finite;
    if (!finite || s == 0.0f) r = 1.0f;
    else if (r < lim.smallest) r = lim.smallest, moved = true;
    else if (r > lim.largest) r = lim.largest, moved = true;
    if (moved && adjusted) ++*adjusted;
    return s < 0 && finite && f->scale != QX_DT_FLOAT8E8M0 ? -r : r;
}

void qx_scale_from_amax(const qx_format *f, const float *amax, int64_t n, float *scale, int64_t *adjusted)
{
    float lo = 0, hi = 1;
    qx_format_range(f, &lo, &hi);
    for (int64_t i = 0; i < n; i++) scale[i] = amax[i] == 0.0f ? 1.0f : qx_scale_stored(f, amax[i] / hi == 0.0f ? FLT_TRUE_MIN : amax[i] / hi, adjusted);
}

void qx_scale_from_range(const qx_format *f, const float *lo, const float *hi, int64_t n, float *scale, int32_t *zero, int64_t *adjusted)
{
    float qlo = 0, qhi = 1;
    qx_format_range(f, &qlo, &qhi);
    for (int64_t i = 0; i < n; i++) {
        const float a = lo[i] < 0 ? lo[i] : 0.0f, b = hi[i] > 0 ? hi[i] : 0.0f;
        const float wide = (b / (qhi - qlo)) - (a / (qhi - qlo)); /* no overflow when a and b are near FLT_MAX */
        const float s = (b - a) - (b - a) == 0.0f ? (b - a) / (qhi - qlo) : wide;
        scale[i] = a == b ? 1.0f : qx_scale_stored(f, s == 0.0f ? FLT_TRUE_MIN : s, adjusted);
        const float z = qlo - a / scale[i];
        zero[i] = (int32_t)qx_rne_clamp(z, qlo, qhi);
    }
}
