/* elem.h - one element of any type: read as float or integer, written with the rounding that kernels/scalar.h defines. */
#ifndef QX_KERNELS_CUDA_ELEM_H
#define QX_KERNELS_CUDA_ELEM_H

#include "kernels/cuda/grid.h"
#include "kernels/scalar.h"

/* TensorProto.DataType; the same numbers as kernels/dtype.h, which is not for device code. */
enum {
    QK_F32 = 1, QK_U8 = 2, QK_I8 = 3, QK_U16 = 4, QK_I16 = 5, QK_I32 = 6, QK_I64 = 7, QK_BOOL = 9, QK_F16 = 10, QK_F64 = 11, QK_U32 = 12,
    QK_U64 = 13,
    QK_BF16 = 16, QK_E4M3 = 17, QK_E4M3FNUZ = 18, QK_E5M2 = 19, QK_E5M2FNUZ = 20, QK_U4 = 21, QK_I4 = 22, QK_E2M1 = 23, QK_E8M0 = 24,
        QK_U2 = 25, QK_I2 = 26
};

QX_HD int qk_is_real(int dt) { return dt == QK_F32 || dt == QK_F16 || dt == QK_BF16; }

/* Code i of a packed array. */
QX_HD uint32_t qk_nibble(const void *p, int bits, int64_t i)
{
    const int per = 8 / bits;
    return ((uint32_t)((const uint8_t *)p)[i / per] >> (int)(i % per * bits)) & ((1u << bits) - 1u);
}

/* Half precision by the card's own instruction: one instead of a dozen, which a kernel bound by memory would feel. The same
 * numbers; a NaN loses its payload. */
#ifdef __CUDA_ARCH__
static __device__ __forceinline__ float qk_f16_to_f32(uint16_t h)
{
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
}
static __device__ __forceinline__ uint16_t qk_f32_to_f16(float v)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
static __device__ __forceinline__ uint16_t qk_f32_to_bf16(float v)
{
    uint16_t h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
#else
#define qk_f16_to_f32 qx_sc_f16_to_f32
#define qk_f32_to_f16 qx_sc_f32_to_f16
#define qk_f32_to_bf16 qx_sc_f32_to_bf16
#endif

/* f32, f16, bf16 only: the short form for the hot kernels. */
QX_HD float qk_real(const void *p, int dt, int64_t i)
{
    if (dt == QK_F32) return ((const float *)p)[i];
    if (dt == QK_F16) return qk_f16_to_f32(((const uint16_t *)p)[i]);
    return qx_sc_bf16_to_f32(((const uint16_t *)p)[i]);
}

QX_HD void qk_put_real(void *p, int dt, int64_t i, float v)
{
    if (dt == QK_F32) ((float *)p)[i] = v;
    else if (dt == QK_F16) ((uint16_t *)p)[i] = qk_f32_to_f16(v);
    else ((uint16_t *)p)[i] = qk_f32_to_bf16(v);
}

/* 16 bytes at an address that is a multiple of 16, in one load. */
QX_HD void qk_load16(const void *p, uint32_t *out)
{
#ifdef __CUDACC__
    const uint4 v = *(const uint4 *)p;
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
#else
    qk_host_need((uintptr_t)p % 16 == 0);
    memcpy(out, p, 16);
#endif
}

QX_HD void qk_store16(void *p, const uint32_t *v)
{
#ifdef __CUDACC__
    *(uint4 *)p = make_uint4(v[0], v[1], v[2], v[3]);
#else
    qk_host_need((uintptr_t)p % 16 == 0);
    memcpy(p, v, 16);
#endif
}

enum { QK_WIDE = 8 }; /* elements that a thread of the hot kernels takes at a time: one or two loads of 16 bytes */

/* Eight reals that begin at a multiple of 16 bytes. */
QX_HD void qk_real8(const void *p, int dt, int64_t i, float *v)
{
    uint32_t r[8];
    if (dt == QK_F32) {
        qk_load16((const float *)p + i, r);
        qk_load16((const float *)p + i + 4, r + 4);
        QK_UNROLL for (int k = 0; k < 8; k++) v[k] = qx_of_bits(r[k]);
        return;
    }
    qk_load16((const uint16_t *)p + i, r);
    QK_UNROLL for (int k = 0; k < 8; k++) {
        const uint16_t h = (uint16_t)(r[k / 2] >> (16 * (k % 2)));
        v[k] = dt == QK_F16 ? qk_f16_to_f32(h) : qx_sc_bf16_to_f32(h);
    }
}

QX_HD void qk_put_real8(void *p, int dt, int64_t i, const float *v)
{
    uint32_t r[8];
    if (dt == QK_F32) {
        QK_UNROLL for (int k = 0; k < 8; k++) r[k] = qx_bits_of(v[k]);
        qk_store16((float *)p + i, r);
        qk_store16((float *)p + i + 4, r + 4);
        return;
    }
    QK_UNROLL for (int k = 0; k < 4; k++)
        r[k] = dt == QK_F16 ? qk_f32_to_f16(v[2 * k]) | (uint32_t)qk_f32_to_f16(v[2 * k + 1]) << 16
        : qk_f32_to_bf16(v[2 * k]) | (uint32_t)qk_f32_to_bf16(v[2 * k + 1]) << 16;
    qk_store16((uint16_t *)p + i, r);
}

/* Eight bytes at an address that is a multiple of 8. */
QX_HD void qk_store8(void *p, const uint32_t *v)
{
#ifdef __CUDACC__
    *(uint2 *)p = make_uint2(v[0], v[1]);
#else
    qk_host_need((uintptr_t)p % 8 == 0);
    memcpy(p, v, 8);
#endif
}

/* Whether pieces of eight begin at multiples of 16 bytes: for the launch functions. */
static inline int qk_is_wide(const void *p) { return (uintptr_t)p % 16 == 0; }

QX_HD float qk_small_float(uint8_t c, int dt)
{
    switch (dt) {
    case QK_E4M3: return qx_sc_e4m3_to_f32(c);
    case QK_E5M2: return qx_sc_e5m2_to_f32(c);
    case QK_E4M3FNUZ: return qx_sc_fnuz_to_f32(c, 3, 8);
    case QK_E5M2FNUZ: return qx_sc_fnuz_to_f32(c, 2, 16);
    default: return qx_sc_e8m0_to_f32(c);
    }
}

QX_HD uint8_t qk_to_small_float(float v, int dt, int saturate)
{
    switch (dt) {
    case QK_E4M3: return qx_sc_f32_to_e4m3(v, saturate);
    case QK_E5M2: return qx_sc_f32_to_e5m2(v, saturate);
    case QK_E4M3FNUZ: return qx_sc_f32_to_fnuz(v, 3, 8, saturate);
    case QK_E5M2FNUZ: return qx_sc_f32_to_fnuz(v, 2, 16, saturate);
    default: return qx_sc_f32_to_e8m0_ceil(v);
    }
}

QX_HD int64_t qk_int(const void *p, int dt, int64_t i)
{
    switch (dt) {
    case QK_I64: case QK_U64: return ((const int64_t *)p)[i];
    case QK_I32: return ((const int32_t *)p)[i];
    case QK_U32: return ((const uint32_t *)p)[i];
    case QK_I16: return ((const int16_t *)p)[i];
    case QK_U16: return ((const uint16_t *)p)[i];
    case QK_I8: return ((const int8_t *)p)[i];
    case QK_I4: return qx_sc_sext(qk_nibble(p, 4, i), 4);
    case QK_U4: return (int64_t)qk_nibble(p, 4, i);
    case QK_I2: return qx_sc_sext(qk_nibble(p, 2, i), 2);
    case QK_U2: return (int64_t)qk_nibble(p, 2, i);
    default: return ((const uint8_t *)p)[i]; /* U8, BOOL */
    }
}

/* Wraps to the width of the type. */
QX_HD void qk_put_int(void *p, int dt, int64_t i, int64_t v)
{
    switch (dt) {
    case QK_I64: case QK_U64: ((int64_t *)p)[i] = v; break;
    case QK_I32: case QK_U32: ((uint32_t *)p)[i] = (uint32_t)(uint64_t)v; break;
    case QK_I16: case QK_U16: ((uint16_t *)p)[i] = (uint16_t)(uint64_t)v; break;
    default: ((uint8_t *)p)[i] = (uint8_t)(uint64_t)v; break;
    }
}

QX_HD float qk_get(const void *p, int dt, int64_t i)
{
    if (qk_is_real(dt)) return qk_real(p, dt, i);
    if (dt == QK_F64) return (float)((const double *)p)[i];
    if (dt == QK_E2M1) return qx_sc_e2m1_to_f32((uint8_t)qk_nibble(p, 4, i));
    if ((dt >= QK_E4M3 && dt <= QK_E5M2FNUZ) || dt == QK_E8M0) return qk_small_float(((const uint8_t *)p)[i], dt);
    if (dt == QK_U64) return (float)((const uint64_t *)p)[i];
    return (float)qk_int(p, dt, i);
}

/* Element i of a broadcast operand: its offset under dims (row-major) and strides. */
QX_HD int64_t qk_offset(int64_t i, int rank, const int64_t *dims, const int64_t *stride)
{
    int64_t off = 0;
    if (i < 0x7fffffff) { /* 32-bit division is several times faster */
        uint32_t r = (uint32_t)i;
        for (int k = rank - 1; k > 0; k--) {
            const uint32_t d = (uint32_t)dims[k], q = r / d;
            off += (int64_t)(r - q * d) * stride[k];
            r = q;
        }
        return rank > 0 ? off + (int64_t)r * stride[0] : 0;
    }
    for (int k = rank - 1; k >= 0; k--) {
        off += i % dims[k] * stride[k];
        i /= dims[k];
    }
    return off;
}

/* Index i of d, counted from the end when negative; -1 and *bad when out of range. wide: int64. */
QX_HD int64_t qk_index(const void *idx, int wide, int64_t i, int64_t d, int32_t *bad)
{
    int64_t v = wide ? ((const int64_t *)idx)[i] : (int64_t)((const int32_t *)idx)[i];
    v += v < 0 ? d : 0;
    if (v >= 0 && v < d) return v;
    *bad = 1;
    return -1;
}

QX_HD void qk_move(const void *src, int64_t s, void *dst, int64_t d, int size)
{
    switch (size) {
    case 1: ((uint8_t *)dst)[d] = ((const uint8_t *)src)[s]; break;
    case 2: ((uint16_t *)dst)[d] = ((const uint16_t *)src)[s]; break;
    case 4: ((uint32_t *)dst)[d] = ((const uint32_t *)src)[s]; break;
    default: ((uint64_t *)dst)[d] = ((const uint64_t *)src)[s]; break;
    }
}

QX_HD void qk_zero(void *dst, int64_t d, int size)
{
    const uint64_t nil = 0;
    qk_move(&nil, 0, dst, d, size);
}

#endif
