/* attention.h - what both attention kernels know of masks: which keys a query sees. */
#ifndef QX_KERNELS_CUDA_ATTENTION_H
#define QX_KERNELS_CUDA_ATTENTION_H

#include <math.h>

#include "kernels/cuda/elem.h"
#include "kernels/loops/fmath.h"

/* A batch entry: how many keys count, and where its first query stands among them. Rows and keys are within 31 bits (the adapters
 * see to it). */
typedef struct attn_batch { int b, keys, offset; } attn_batch;
QX_HD attn_batch attn_batch_of(const qk_attn_args *a, int b)
{
    attn_batch p = {b, a->lengths ? a->lengths[b] : (int)a->keys, a->offsets ? a->offsets[b] : (int)a->offset};
    p.keys = p.keys < (int)a->keys ? p.keys : (int)a->keys;
    return p;
}

/* Keys [*first, *last) are all that rows row0 .. row1 can see by length, causality and window; *first is a multiple of `tile`. */
QX_HD void attn_span(const qk_attn_args *a, attn_batch p, int row0, int row1, int tile, int *first, int *last)
{
    *first = 0;
    *last = p.keys;
    if (a->causal && row1 + p.offset + 1 < *last) *last = row1 + p.offset + 1;
    if (a->left >= 0 && row0 + p.offset > a->left) *first = (int)(row0 + p.offset - a->left) / tile * tile;
}

/* Whether a query in this row sees the key at all. */
QX_HD int attn_sees(const qk_attn_args *a, attn_batch p, int row, int key)
{
    return key < p.keys && (!a->causal || key <= row + p.offset) && (a->left < 0 || key >= row + p.offset - a->left);
}

/* The score s of a pair that sees each other, as softmax gets it. */
QX_HD float attn_score(const qk_attn_args *a, int b, int h, int row, int key, float s)
{
    if (a->softcap > 0) s = a->softcap * fm_tanh(s / a->softcap);
    if (!a->mask.p) return s;
    const int64_t at = b * a->mask.b + h * a->mask.h + row * a->mask.s + key * a->mask.d;
    if (a->mtype == QK_BOOL) return ((const uint8_t *)a->mask.p)[at] ? s : qx_of_bits(0xff800000u);
    return s + qk_real(a->mask.p, a->mtype, at);
}

/* The head's extra score; *is 0: it has none. */
QX_HD float attn_sink(const qk_attn_args *a, int h, int *is)
{
    *is = a->sink != 0;
    return *is ? qk_real(a->sink, a->stype, h) : 0.0f;
}

/* v rounded to E4M3, saturated. */
#if !defined(__CUDA_ARCH__)
#define attn_e4m3(v) qx_sc_e4m3_to_f32(qx_sc_f32_to_e4m3(v, 1))
#elif __CUDA_ARCH__ >= 890
static __device__ __forceinline__ float attn_e4m3(float v)
{
    uint16_t codes;
    uint32_t halves;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(0.0f), "f"(v));
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
    return qk_f16_to_f32((uint16_t)halves);
}
#else
QK_APART float attn_e4m3(float v) { return qx_sc_e4m3_to_f32(qx_sc_f32_to_e4m3(v, 1)); }
#endif

/* A probability's code less its zero point, which f16 and bf16 hold exactly. */
QX_HD float attn_code(const qk_attn_args *a, float p)
{
    const float v = p / a->p_scale, low = a->p_codes == QK_U8 ? 0.0f : -128.0f, zero = (float)a->p_zero;
    return a->p_codes == QK_E4M3 ? attn_e4m3(v) : qx_rne_clamp(v, low - zero, low + 255.0f - zero);
}

/* attention_tile.cu: f16 and bf16 by matrix units. */
int qk_attention_tile(qk_queue q, const qk_attn_args *a);

#endif
