/* quant.cu - QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear in every layout of scales. Bit for bit what kernels/ref
 * computes: true division, half to even, saturation (kernels/scalar.h). */
#include <math.h>

#include "kernels/cuda/elem.h"

QX_HD int64_t scale_index(const qk_quant_args *a, int64_t i)
{
    if (a->kind == 0) return 0;
    const int64_t inner = i % a->inner, k = i / a->inner % a->d;
    if (a->kind == 1) return k;
    return (i / a->inner / a->d * a->blocks + k / a->block) * a->inner + inner;
}

QX_HD int code_bits(int dt)
{
    return dt == QK_I4 || dt == QK_U4 || dt == QK_E2M1 ? 4 : dt == QK_I2 || dt == QK_U2 ? 2 : dt == QK_I16 ||
        dt == QK_U16 ? 16 : dt == QK_I32 ? 32 : 8;
}

QX_HD void code_range(int dt, float *lo, float *hi)
{
    switch (dt) {
    case QK_I8: *lo = -128.0f, *hi = 127.0f; break;
    case QK_U8: *lo = 0.0f, *hi = 255.0f; break;
    case QK_I16: *lo = -32768.0f, *hi = 32767.0f; break;
    case QK_U16: *lo = 0.0f, *hi = 65535.0f; break;
    case QK_I4: *lo = -8.0f, *hi = 7.0f; break;
    case QK_U4: *lo = 0.0f, *hi = 15.0f; break;
    case QK_I2: *lo = -2.0f, *hi = 1.0f; break;
    default: *lo = 0.0f, *hi = 3.0f; break;
    }
}

QX_HD int is_int_code(int dt)
{
    return dt == QK_I8 || dt == QK_U8 || dt == QK_I16 || dt == QK_U16 || dt == QK_I4 || dt == QK_U4 || dt == QK_I2 || dt == QK_U2;
}

/* clamp(rne(v) + z): the zero point is an integer, so clamping may come first. NaN counts as 0. */
QX_HD uint32_t int_code(float v, int32_t z, int dt)
{
    float lo, hi;
    code_range(dt, &lo, &hi);
    return (uint32_t)((int32_t)qx_rne_clamp(v, lo - (float)z, hi - (float)z) + z);
}

/* The code of v, a number in units of the scale. */
QX_HD uint32_t code_of_scaled(const qk_quant_args *a, float v, int32_t zero)
{
    if (is_int_code(a->codes)) return int_code(v, zero, a->codes);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    if (a->codes == QK_E4M3 && a->saturate) { /* the card's own, in pairs; a NaN is 0x7F */
        uint16_t pair;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(v));
        return pair & 0xffu;
    }
#endif
    return a->codes == QK_E2M1 ? qx_sc_f32_to_e2m1(v) : qk_to_small_float(v, a->codes, a->saturate);
}

QX_HD int32_t zero_of(const qk_quant_args *a, int64_t c)
{
    return a->zero && is_int_code(a->codes) ? (int32_t)qk_int(a->zero, a->codes, c) : a->missing;
}

QX_HD uint32_t code_of(const qk_quant_args *a, int64_t i)
{
    const int64_t c = scale_index(a, i);
    return code_of_scaled(a, qk_real(a->x, a->dtype, i) / qk_get(a->scale, a->stype, c), zero_of(a, c));
}

QK_KERNEL(quantize_kernel, qk_quant_args)
{
    const int bits = code_bits(a.codes), per = bits < 8 ? 8 / bits : 1;
    const int64_t n = a.outer * a.d * a.inner;
    if (a.wide) { /* one scale for eight neighbours, codes of a byte: what stands before products */
        QK_EACH(piece, n / QK_WIDE) {
            const int64_t c = scale_index(&a, piece * QK_WIDE);
            const float scale = qk_get(a.scale, a.stype, c);
            const int32_t zero = zero_of(&a, c);
            float v[QK_WIDE];
            uint32_t r[2] = {0, 0};
            qk_real8(a.x, a.dtype, piece * QK_WIDE, v);
            for (int k = 0; k < QK_WIDE; k++) r[k / 4] |= (code_of_scaled(&a, v[k] / scale, zero) & 0xffu) << (8 * (k % 4));
            qk_store8((uint8_t *)a.y + piece * QK_WIDE, r);
        }
        return;
    }
    QK_EACH(item, (n + per - 1) / per) {
        uint64_t v = 0; /* as wide as the widest move */
        for (int k = 0; k < per && item * per + k < n; k++) {
            const uint64_t e = code_of(&a, item * per + k);
            v |= per == 1 ? e : (e & ((1u << bits) - 1u)) << (k * bits);
        }
        qk_move(&v, 0, a.y, item, bits < 8 ? 1 : bits / 8);
    }
}
QK_EXTERN int qk_quantize(qk_queue q, const qk_quant_args *args)
{
    qk_quant_args a = *args;
    const int64_t n = a.outer * a.d * a.inner;
    a.wide = (a.kind == 0 || (a.kind == 1 && a.inner % QK_WIDE == 0)) && code_bits(a.codes) == 8 && n % QK_WIDE == 0 &&
        qk_is_wide(a.x) && qk_is_wide(a.y);
    return QK_LAUNCH(quantize_kernel, QK_EACH_BLOCKS(a.wide ? n / QK_WIDE : n), 256, q, &a);
}

QK_KERNEL(dequantize_kernel, qk_quant_args)
{
    QK_EACH(i, a.outer * a.d * a.inner) {
        const int64_t c = scale_index(&a, i);
        const float s = qk_get(a.scale, a.stype, c);
        float v;
        if (is_int_code(a.codes) || a.codes == QK_I32) {
            const int64_t z = a.zero ? qk_int(a.zero, a.codes, c) : 0;
            v = a.codes == QK_I32 ? (float)qk_int(a.x, a.codes, i) - (float)z : (float)(qk_int(a.x, a.codes, i) - z);
        } else {
            v = qk_get(a.x, a.codes, i);
        }
        qk_put_real(a.y, a.dtype, i, v * s);
    }
}
QK_EXTERN int qk_dequantize(qk_queue q, const qk_quant_args *a)
{
    return QK_LAUNCH(dequantize_kernel, QK_EACH_BLOCKS(a->outer * a->d * a->inner), 256, q, a);
}

/* ---- dynamic: range in two steps, then codes with a scale that lies on the device ---- */

enum { PARTS = 256 };
QK_KERNEL(range_kernel, qk_dynamic_args)
{
    const int t = QK_THREAD;
    QK_SHARED(float, lo, 256);
    QK_SHARED(float, hi, 256);
    float mn = 0, mx = 0;
    for (int64_t i = QK_BLOCK * QK_NT + t; i < a.n; i += QK_BLOCKS * QK_NT) {
        const float x = qk_real(a.x, a.dtype, i);
        mn = x < mn ? x : mn;
        mx = x > mx ? x : mx;
    }
    lo[t] = mn;
    hi[t] = mx;
    QK_FOLD(lo, u < v ? u : v);
    QK_FOLD(hi, u > v ? u : v);
    if (t == 0) {
        a.part[2 * QK_BLOCK] = lo[0];
        a.part[2 * QK_BLOCK + 1] = hi[0];
    }
}

QK_KERNEL(dynamic_kernel, qk_dynamic_args)
{
    QK_EACH(i, 1) {
        float mn = 0, mx = 0;
        for (int k = 0; k < PARTS; k++) {
            mn = a.part[2 * k] < mn ? a.part[2 * k] : mn;
            mx = a.part[2 * k + 1] > mx ? a.part[2 * k + 1] : mx;
        }
        const float s = (mx - mn) / 255.0f, scale = s > 0 ? s : 1.0f;
        *a.scale = scale;
        *a.zero = (uint8_t)(int32_t)qx_rne_clamp(-mn / scale, 0.0f, 255.0f);
    }
}

QK_EXTERN int qk_dynamic_quant(qk_queue q, const qk_dynamic_args *a)
{
    const qk_quant_args quant = {.x = a->x, .scale = a->scale, .zero = a->zero, .y = a->y, .outer = 1, .d = a->n, .inner = 1, .block = 1,
                                 .blocks = 1, .kind = 0, .dtype = a->dtype, .codes = QK_U8,
                                 .stype = QK_F32, .saturate = 1};
    int err = QK_LAUNCH(range_kernel, PARTS, 256, q, a);
    if (!err) err = QK_LAUNCH(dynamic_kernel, 1, 32, q, a);
    return err ? err : qk_quantize(q, &quant);
}
