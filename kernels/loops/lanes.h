/* lanes.h - sixteen floats at a time, with the same results on every instruction set: sums run in sixteen lanes and fold 16, 8, 4, 2, 1
 * whatever the register width. The includer defines LANES_ISA to 0 (plain C), 2 (AVX2) or 512 before; one per translation unit. */
#ifndef QX_KERNELS_LOOPS_LANES_H
#define QX_KERNELS_LOOPS_LANES_H

#include "kernels/loops/isa.h"
#include "kernels/scalar.h"

#if LANES_ISA == 512
#include <immintrin.h>
#define TARGET QX_TARGET_AVX512
#define LANE TARGET static inline __attribute__((always_inline, unused))
typedef struct v16 { __m512 v; } v16;
LANE v16 v_set(float f) { return (v16){_mm512_set1_ps(f)}; }
LANE v16 v_load(const float *p) { return (v16){_mm512_loadu_ps(p)}; }
LANE v16 v_load_n(const float *p, int64_t n) { return (v16){_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p)}; }
LANE void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a.v); }
LANE v16 v_add(v16 a, v16 b) { return (v16){_mm512_add_ps(a.v, b.v)}; }
LANE v16 v_sub(v16 a, v16 b) { return (v16){_mm512_sub_ps(a.v, b.v)}; }
LANE v16 v_mul(v16 a, v16 b) { return (v16){_mm512_mul_ps(a.v, b.v)}; }
LANE v16 v_div(v16 a, v16 b) { return (v16){_mm512_div_ps(a.v, b.v)}; }
LANE v16 v_min(v16 a, v16 b) { return (v16){_mm512_min_ps(a.v, b.v)}; }
LANE v16 v_max(v16 a, v16 b) { return (v16){_mm512_max_ps(a.v, b.v)}; }
LANE void v_store_n(float *p, v16 a, int64_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), a.v); }
LANE v16 v_first(v16 a, int64_t n, v16 b) { return (v16){_mm512_mask_blend_ps((__mmask16)((1u << n) - 1u), b.v, a.v)}; }
LANE v16 v_larger(v16 a, v16 b)
{
    return (v16){_mm512_mask_mov_ps(_mm512_max_ps(b.v, a.v), _mm512_cmp_ps_mask(b.v, b.v, _CMP_UNORD_Q), b.v)};
}
LANE v16 v_even(const float *p)
{
    const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return (v16){_mm512_permutex2var_ps(_mm512_loadu_ps(p), at, _mm512_loadu_ps(p + 16))};
}
LANE v16 v_third(const float *p)
{
    const __m512i low = _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0),
        high = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29);
    return (v16){_mm512_permutex2var_ps(_mm512_permutex2var_ps(_mm512_loadu_ps(p), low, _mm512_loadu_ps(p + 16)), high,
                                        _mm512_loadu_ps(p + 32))};
}
LANE v16 v_fourth(const float *p)
{
    const __m512i at = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512 low = _mm512_permutex2var_ps(_mm512_loadu_ps(p), at, _mm512_loadu_ps(p + 16)),
        high = _mm512_permutex2var_ps(_mm512_loadu_ps(p + 32), at, _mm512_loadu_ps(p + 48));
    return (v16){_mm512_shuffle_f32x4(low, high, 0x44)};
}
LANE v16 v_rne(v16 a) { return (v16){_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
LANE v16 v_fma(v16 a, v16 b, v16 c) { return (v16){_mm512_fmadd_ps(a.v, b.v, c.v)}; }
LANE v16 v_ldexp(v16 a, v16 n) { return (v16){_mm512_scalef_ps(a.v, n.v)}; }
LANE v16 v_rcp(v16 a)
{
    const __m512 r = _mm512_rcp14_ps(a.v);
    return (v16){_mm512_fmadd_ps(r, _mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(1.0f)), r)};
}
LANE v16 v_zero_below(v16 a, v16 x, v16 least) { return (v16){_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, least.v, _CMP_NLT_UQ), a.v)}; }
LANE v16 v_abs(v16 a) { return (v16){_mm512_abs_ps(a.v)}; }
LANE v16 v_sign_of(v16 a, v16 x) { return (v16){_mm512_or_ps(a.v, _mm512_and_ps(x.v, _mm512_set1_ps(-0.0f)))}; }
LANE v16 v_above(v16 x, v16 limit, v16 a, v16 b)
{
    return (v16){_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_GT_OQ), b.v, a.v)};
}
LANE float v_top(v16 a) { return _mm512_reduce_max_ps(a.v); }
LANE v16 v_pick(const void *table, v16 at) { return (v16){_mm512_permutexvar_ps(_mm512_castps_si512(at.v), _mm512_loadu_ps(table))}; }
LANE v16 v_add_bits(v16 a, v16 low)
{
    return (v16){_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_slli_epi32(_mm512_castps_si512(low.v), 19)))};
}
LANE v16 v_every(const float *p, int64_t step, int64_t n)
{
    const __m512i at = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                          _mm512_set1_epi32((int)step));
    return (v16){_mm512_mask_i32gather_ps(_mm512_setzero_ps(), n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1u), at, p, 4)};
}
typedef struct flips { __m128i bytes; } flips;
LANE flips v_flips(uint8_t flip) { return (flips){_mm_set1_epi8((char)flip)}; }
LANE v16 v_bytes(const uint8_t *p, const flips *f)
{
    return (v16){_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)p), f->bytes)))};
}
typedef struct q128 { __m512i v; } q128;
LANE q128 v_codes(const uint8_t *p, int64_t n)
{
    return (q128){_mm512_maskz_loadu_epi32(n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1u), p)};
}
LANE __m512i v_every4(const uint8_t *p, int64_t row, int64_t last, int c) /* 16 bytes of columns c, c + 4, c + 8 and c + 12 */
{
#define V_BYTES16(i) _mm_loadu_si128((const __m128i *)(const void *)(p + ((i) < last ? (i) : last) * row))
    const __m512i x = _mm512_inserti32x4(_mm512_castsi128_si512(V_BYTES16(c)), V_BYTES16(c + 4), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(x, V_BYTES16(c + 8), 2), V_BYTES16(c + 12), 3);
#undef V_BYTES16
}
LANE void v_columns(const uint8_t *p, int64_t row, int64_t last, q128 *w)
{
    const __m512i a = v_every4(p, row, last, 0), b = v_every4(p, row, last, 1), c = v_every4(p, row, last, 2),
        d = v_every4(p, row, last, 3), ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d), ba = _mm512_unpackhi_epi32(a, b),
        dc = _mm512_unpackhi_epi32(c, d);
    w[0].v = _mm512_unpacklo_epi64(ab, cd), w[1].v = _mm512_unpackhi_epi64(ab, cd);
    w[2].v = _mm512_unpacklo_epi64(ba, dc), w[3].v = _mm512_unpackhi_epi64(ba, dc);
}
LANE v16 v_byte(q128 c, int i, uint8_t flip)
{
    const __m512i low = _mm512_and_si512(_mm512_srl_epi32(c.v, _mm_cvtsi32_si128(8 * i)), _mm512_set1_epi32(255));
    return (v16){_mm512_cvtepi32_ps(_mm512_xor_si512(low, _mm512_set1_epi32(flip)))};
}
LANE q128 v_next(q128 c) { return (q128){_mm512_srli_epi32(c.v, 4)}; }
LANE q128 v_later(q128 c) { return (q128){_mm512_srli_epi32(c.v, 12)}; }
typedef struct places { __m512i code[5], ones[5]; __m512 less[5]; } places;
LANE places v_places(uint32_t flip)
{
    places p;
    for (int i = 0; i < 5; i++) {
        p.code[i] = _mm512_set1_epi32(15 << 4 * i);
        p.ones[i] = _mm512_set1_epi32((int)(0x4b000000u | flip << 4 * i));
        p.less[i] = _mm512_set1_ps((float)(0x800000 + (8 << 4 * i)));
        __asm__("" : "+v"(p.code[i]), "+v"(p.ones[i]), "+v"(p.less[i])); /* or they would be made anew at each use, which is slow */
    }
    return p;
}
LANE v16 v_code(q128 c, int place, const places *p)
{
    const __m512i bits = _mm512_ternarylogic_epi32(c.v, p->code[place], p->ones[place], 0x6a); /* (c & code) ^ ones */
    return (v16){_mm512_sub_ps(_mm512_castsi512_ps(bits), p->less[place])};
}
LANE v16 v_repeat(const float *p, int64_t n, int shift)
{
    const __m512i at = _mm512_srl_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm_cvtsi32_si128(shift));
    return (v16){_mm512_permutexvar_ps(at, _mm512_maskz_loadu_ps(n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1u), p))};
}
LANE float v_sum(v16 a)
{
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
LANE __m512 v_sums_pair(__m512 a, __m512 b, int low) /* halves of a and b added up: in both, quarters are whole for the next */
{
    return low ? _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee))
               : _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
LANE v16 v_sums(const v16 *a)
{
    __m512 q[4]; /* q[e]: four lanes each of a[e], a[4 + e], a[8 + e], a[12 + e] */
    for (int e = 0; e < 4; e++)
        q[e] = v_sums_pair(v_sums_pair(a[e].v, a[4 + e].v, 1), v_sums_pair(a[8 + e].v, a[12 + e].v, 1), 0);
    const __m512 x = _mm512_add_ps(_mm512_unpacklo_ps(q[0], q[1]), _mm512_unpackhi_ps(q[0], q[1]));
    const __m512 y = _mm512_add_ps(_mm512_unpacklo_ps(q[2], q[3]), _mm512_unpackhi_ps(q[2], q[3]));
    return (v16){_mm512_add_ps(_mm512_shuffle_ps(x, y, 0x44), _mm512_shuffle_ps(x, y, 0xee))};
}
LANE v16 v_mini_round(v16 y, int mbits, int bias, float top)
{
    const __m512 c = _mm512_min_ps(_mm512_max_ps(y.v, _mm512_set1_ps(-top)), _mm512_set1_ps(top));
    const __m512i e = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(c), _mm512_set1_epi32(0x7f800000)),
                                       _mm512_set1_epi32((128 - bias) << 23));
    const __m512 magic = _mm512_castsi512_ps(_mm512_add_epi32(e, _mm512_set1_epi32(((23 - mbits) << 23) + 0x400000)));
    return (v16){_mm512_sub_ps(_mm512_add_ps(c, magic), magic)};
}
typedef struct h32 { __m512i v; } h32;
LANE h32 h_set(int32_t w) { return (h32){_mm512_set1_epi32(w)}; }
LANE h32 h_load(const int32_t *p) { return (h32){_mm512_loadu_si512(p)}; }
LANE void h_store(int32_t *p, h32 a) { _mm512_storeu_si512(p, a.v); }
LANE h32 h_mulr(h32 a, h32 b) { return (h32){_mm512_mulhrs_epi16(a.v, b.v)}; }
LANE h32 h_mulhi(h32 a, h32 b) { return (h32){_mm512_mulhi_epi16(a.v, b.v)}; }
LANE h32 h_abs(h32 a) { return (h32){_mm512_abs_epi16(a.v)}; }
LANE h32 h_e2m1(h32 a)
{
    const __m512i twice = _mm512_cvtepu8_epi16(_mm256_setr_epi8(0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 6, 6, 6, 6, 8, 8, 8, 8, 8, 8, 12, 12, 12,
                                                                12, 12, 12, 12, 12, 12, 12, 12, 12));
    return (h32){_mm512_permutexvar_epi16(_mm512_min_epi16(a.v, _mm512_set1_epi16(20)), twice)};
}
LANE h32 h_min(h32 a, h32 b) { return (h32){_mm512_min_epi16(a.v, b.v)}; }
LANE h32 h_max(h32 a, h32 b) { return (h32){_mm512_max_epi16(a.v, b.v)}; }
LANE h32 h_madd(h32 a, h32 b) { return (h32){_mm512_madd_epi16(a.v, b.v)}; }
LANE h32 h_add32(h32 a, h32 b) { return (h32){_mm512_add_epi32(a.v, b.v)}; }
LANE h32 h_round(v16 a) { return (h32){_mm512_cvt_roundps_epi32(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
LANE h32 h_halves(h32 a, h32 b) { return (h32){_mm512_mask_blend_epi16(0xaaaaaaaau, a.v, _mm512_slli_epi32(b.v, 16))}; }
LANE v16 v_words(h32 a) { return (v16){_mm512_cvtepi32_ps(a.v)}; }
#elif LANES_ISA == 2
#include <immintrin.h>
#define TARGET QX_TARGET_AVX2
#define LANE TARGET static inline __attribute__((always_inline, unused))
typedef struct v16 { __m256 a, b; } v16;
LANE v16 v_set(float f) { return (v16){_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
LANE v16 v_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
LANE v16 v_load_n(const float *p, int64_t n)
{
    float t[16] = {0};
    memcpy(t, p, (size_t)n * sizeof *p);
    return v_load(t);
}
LANE void v_store(float *p, v16 x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
LANE v16 v_add(v16 x, v16 y) { return (v16){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
LANE v16 v_sub(v16 x, v16 y) { return (v16){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
LANE v16 v_mul(v16 x, v16 y) { return (v16){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
LANE v16 v_div(v16 x, v16 y) { return (v16){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
LANE v16 v_min(v16 x, v16 y) { return (v16){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
LANE v16 v_max(v16 x, v16 y) { return (v16){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
LANE void v_store_n(float *p, v16 x, int64_t n)
{
    float t[16];
    v_store(t, x);
    memcpy(p, t, (size_t)n * sizeof *p);
}
LANE v16 v_first(v16 a, int64_t n, v16 b)
{
    float t[16];
    v_store(t, b);
    v_store_n(t, a, n);
    return v_load(t);
}
LANE __m256 v_larger8(__m256 a, __m256 b) { return _mm256_blendv_ps(_mm256_max_ps(b, a), b, _mm256_cmp_ps(b, b, _CMP_UNORD_Q)); }
LANE v16 v_larger(v16 x, v16 y) { return (v16){v_larger8(x.a, y.a), v_larger8(x.b, y.b)}; }
LANE __m256 v_even8(const float *p)
{
    const __m256 t = _mm256_shuffle_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8), 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(t), 0xd8));
}
LANE v16 v_even(const float *p) { return (v16){v_even8(p), v_even8(p + 16)}; }
LANE __m256 v_rne8(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LANE v16 v_rne(v16 x) { return (v16){v_rne8(x.a), v_rne8(x.b)}; }
LANE v16 v_fma(v16 x, v16 y, v16 z) { return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
LANE __m256 v_ldexp8(__m256 a, __m256i n)
{
    const __m256i h = _mm256_srai_epi32(n, 1), bias = _mm256_set1_epi32(127); /* in two halves: the ends of the range come out right */
    a = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(h, bias), 23)));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, h), bias), 23)));
}
LANE v16 v_ldexp(v16 a, v16 n) { return (v16){v_ldexp8(a.a, _mm256_cvtps_epi32(n.a)), v_ldexp8(a.b, _mm256_cvtps_epi32(n.b))}; }
LANE v16 v_rcp(v16 a) { return (v16){_mm256_div_ps(_mm256_set1_ps(1.0f), a.a), _mm256_div_ps(_mm256_set1_ps(1.0f), a.b)}; }
LANE v16 v_zero_below(v16 a, v16 x, v16 least)
{
    return (v16){_mm256_and_ps(a.a, _mm256_cmp_ps(x.a, least.a, _CMP_NLT_UQ)),
                 _mm256_and_ps(a.b, _mm256_cmp_ps(x.b, least.b, _CMP_NLT_UQ))};
}
LANE v16 v_abs(v16 a) { return (v16){_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.a), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.b)}; }
LANE __m256 v_sign8(__m256 a, __m256 x) { return _mm256_or_ps(a, _mm256_and_ps(x, _mm256_set1_ps(-0.0f))); }
LANE v16 v_sign_of(v16 a, v16 x) { return (v16){v_sign8(a.a, x.a), v_sign8(a.b, x.b)}; }
LANE v16 v_above(v16 x, v16 limit, v16 a, v16 b)
{
    return (v16){_mm256_blendv_ps(b.a, a.a, _mm256_cmp_ps(x.a, limit.a, _CMP_GT_OQ)),
                 _mm256_blendv_ps(b.b, a.b, _mm256_cmp_ps(x.b, limit.b, _CMP_GT_OQ))};
}
LANE float v_top(v16 x)
{
    const __m256 h = _mm256_max_ps(x.a, x.b);
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)), d = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}
typedef struct flips { __m128i bytes; } flips;
LANE flips v_flips(uint8_t flip) { return (flips){_mm_set1_epi8((char)flip)}; }
LANE __m256i v_u8x8(const uint8_t *p, const flips *f)
{
    return _mm256_cvtepu8_epi32(_mm_xor_si128(_mm_loadl_epi64((const __m128i *)(const void *)p), f->bytes));
}
LANE v16 v_bytes(const uint8_t *p, const flips *f) { return (v16){_mm256_cvtepi32_ps(v_u8x8(p, f)), _mm256_cvtepi32_ps(v_u8x8(p + 8, f))}; }
typedef struct q128 { __m256i a, b; } q128;
LANE q128 v_codes(const uint8_t *p, int64_t n)
{
    uint8_t t[64] = {0};
    if (n < 16) p = memcpy(t, p, (size_t)n * 4);
    return (q128){_mm256_loadu_si256((const __m256i *)(const void *)p), _mm256_loadu_si256((const __m256i *)(const void *)(p + 32))};
}
LANE void v_columns8(const uint8_t *p, int64_t row, int64_t last, int from, __m256i *w)
{
    __m256i x[4]; /* 16 bytes of columns c and c + 4 */
    for (int c = 0; c < 4; c++) {
        const int64_t i = from + c < last ? from + c : last, k = from + c + 4 < last ? from + c + 4 : last;
        x[c] = _mm256_loadu2_m128i((const __m128i *)(const void *)(p + k * row), (const __m128i *)(const void *)(p + i * row));
    }
    const __m256i ab = _mm256_unpacklo_epi32(x[0], x[1]), cd = _mm256_unpacklo_epi32(x[2], x[3]), ba = _mm256_unpackhi_epi32(x[0], x[1]),
        dc = _mm256_unpackhi_epi32(x[2], x[3]);
    w[0] = _mm256_unpacklo_epi64(ab, cd), w[1] = _mm256_unpackhi_epi64(ab, cd);
    w[2] = _mm256_unpacklo_epi64(ba, dc), w[3] = _mm256_unpackhi_epi64(ba, dc);
}
LANE void v_columns(const uint8_t *p, int64_t row, int64_t last, q128 *w)
{
    __m256i a[4], b[4];
    v_columns8(p, row, last, 0, a);
    v_columns8(p, row, last, 8, b);
    for (int i = 0; i < 4; i++) w[i] = (q128){a[i], b[i]};
}
LANE __m256 v_byte8(__m256i c, int i, uint8_t flip)
{
    const __m256i low = _mm256_and_si256(_mm256_srl_epi32(c, _mm_cvtsi32_si128(8 * i)), _mm256_set1_epi32(255));
    return _mm256_cvtepi32_ps(_mm256_xor_si256(low, _mm256_set1_epi32(flip)));
}
LANE v16 v_byte(q128 c, int i, uint8_t flip) { return (v16){v_byte8(c.a, i, flip), v_byte8(c.b, i, flip)}; }
LANE q128 v_next(q128 c) { return (q128){_mm256_srli_epi32(c.a, 4), _mm256_srli_epi32(c.b, 4)}; }
LANE q128 v_later(q128 c) { return (q128){_mm256_srli_epi32(c.a, 12), _mm256_srli_epi32(c.b, 12)}; }
typedef struct places { uint32_t flip; } places;
LANE places v_places(uint32_t flip) { return (places){flip}; }
LANE __m256 v_code8(__m256i c, int place, uint32_t flip)
{
    const __m256i code = _mm256_set1_epi32(15 << 4 * place), ones = _mm256_set1_epi32((int)(0x4b000000u | flip << 4 * place));
    return _mm256_sub_ps(_mm256_castsi256_ps(_mm256_xor_si256(_mm256_and_si256(c, code), ones)),
                         _mm256_set1_ps((float)(0x800000 + (8 << 4 * place))));
}
LANE v16 v_code(q128 c, int place, const places *p) { return (v16){v_code8(c.a, place, p->flip), v_code8(c.b, place, p->flip)}; }
LANE v16 v_repeat(const float *p, int64_t n, int shift)
{
    const __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), by = _mm256_set1_epi32(shift);
    const __m256 few = _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), at));
    return (v16){_mm256_permutevar8x32_ps(few, _mm256_srlv_epi32(at, by)),
                 _mm256_permutevar8x32_ps(few, _mm256_srlv_epi32(_mm256_add_epi32(at, _mm256_set1_epi32(8)), by))};
}
LANE float v_sum(v16 x)
{
    const __m256 h = _mm256_add_ps(x.a, x.b);
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
LANE __m256 v_mini_round8(__m256 y, int mbits, int bias, float top)
{
    const __m256 c = _mm256_min_ps(_mm256_max_ps(y, _mm256_set1_ps(-top)), _mm256_set1_ps(top));
    const __m256i e = _mm256_max_epu32(_mm256_and_si256(_mm256_castps_si256(c), _mm256_set1_epi32(0x7f800000)),
                                       _mm256_set1_epi32((128 - bias) << 23));
    const __m256 magic = _mm256_castsi256_ps(_mm256_add_epi32(e, _mm256_set1_epi32(((23 - mbits) << 23) + 0x400000)));
    return _mm256_sub_ps(_mm256_add_ps(c, magic), magic);
}
LANE v16 v_mini_round(v16 y, int mbits, int bias, float top)
{
    return (v16){v_mini_round8(y.a, mbits, bias, top), v_mini_round8(y.b, mbits, bias, top)};
}
typedef struct h32 { __m256i a, b; } h32;
#define H_EACH(f, x, y) ((h32){f(x.a, y.a), f(x.b, y.b)})
LANE h32 h_set(int32_t w) { return (h32){_mm256_set1_epi32(w), _mm256_set1_epi32(w)}; }
LANE h32 h_load(const int32_t *p)
{
    return (h32){_mm256_loadu_si256((const __m256i *)(const void *)p), _mm256_loadu_si256((const __m256i *)(const void *)(p + 8))};
}
LANE void h_store(int32_t *p, h32 x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, x.a), _mm256_storeu_si256((__m256i *)(void *)(p + 8), x.b);
}
LANE h32 h_mulr(h32 x, h32 y) { return H_EACH(_mm256_mulhrs_epi16, x, y); }
LANE h32 h_mulhi(h32 x, h32 y) { return H_EACH(_mm256_mulhi_epi16, x, y); }
LANE h32 h_abs(h32 x) { return (h32){_mm256_abs_epi16(x.a), _mm256_abs_epi16(x.b)}; }
LANE __m256i h_e2m1_16(__m256i a)
{
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 6, 6, 6, 6, 8, 8)),
        top = _mm256_set1_epi16(20);
    const __m256i at = _mm256_min_epi16(a, top), low = _mm256_shuffle_epi8(twice, _mm256_min_epi16(at, _mm256_set1_epi16(15)));
    return _mm256_add_epi16(low, _mm256_and_si256(_mm256_cmpeq_epi16(at, top), _mm256_set1_epi16(4)));
}
LANE h32 h_e2m1(h32 x) { return (h32){h_e2m1_16(x.a), h_e2m1_16(x.b)}; }
LANE h32 h_min(h32 x, h32 y) { return H_EACH(_mm256_min_epi16, x, y); }
LANE h32 h_max(h32 x, h32 y) { return H_EACH(_mm256_max_epi16, x, y); }
LANE h32 h_madd(h32 x, h32 y) { return H_EACH(_mm256_madd_epi16, x, y); }
LANE h32 h_add32(h32 x, h32 y) { return H_EACH(_mm256_add_epi32, x, y); }
LANE h32 h_round(v16 x) { return (h32){_mm256_cvtps_epi32(v_rne8(x.a)), _mm256_cvtps_epi32(v_rne8(x.b))}; }
LANE h32 h_halves(h32 x, h32 y)
{
    return (h32){_mm256_blend_epi16(x.a, _mm256_slli_epi32(y.a, 16), 0xaa), _mm256_blend_epi16(x.b, _mm256_slli_epi32(y.b, 16), 0xaa)};
}
LANE v16 v_words(h32 x) { return (v16){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
#else
#define TARGET
#define LANE static inline __attribute__((unused)) /* not forced inline: sixteen-fold bodies would make sanitizer builds crawl */
typedef struct v16 { float f[16]; } v16;
#define LANES_EACH(expr)                             \
    v16 r_;                                          \
    for (int i = 0; i < 16; i++) r_.f[i] = (expr);   \
    return r_
LANE v16 v_set(float f) { LANES_EACH(f); }
LANE v16 v_load(const float *p) { LANES_EACH(p[i]); }
LANE v16 v_load_n(const float *p, int64_t n) { LANES_EACH(i < n ? p[i] : 0.0f); }
LANE void v_store(float *p, v16 a) { memcpy(p, a.f, sizeof a.f); }
LANE v16 v_add(v16 a, v16 b) { LANES_EACH(a.f[i] + b.f[i]); }
LANE v16 v_sub(v16 a, v16 b) { LANES_EACH(a.f[i] - b.f[i]); }
LANE v16 v_mul(v16 a, v16 b) { LANES_EACH(a.f[i] * b.f[i]); }
LANE v16 v_div(v16 a, v16 b) { LANES_EACH(a.f[i] / b.f[i]); }
LANE v16 v_min(v16 a, v16 b) { LANES_EACH(a.f[i] < b.f[i] ? a.f[i] : b.f[i]); }
LANE v16 v_max(v16 a, v16 b) { LANES_EACH(a.f[i] > b.f[i] ? a.f[i] : b.f[i]); }
LANE void v_store_n(float *p, v16 a, int64_t n) { memcpy(p, a.f, (size_t)n * sizeof *p); }
LANE v16 v_first(v16 a, int64_t n, v16 b) { LANES_EACH(i < n ? a.f[i] : b.f[i]); }
LANE v16 v_larger(v16 a, v16 b) { LANES_EACH(((b.f[i] > a.f[i]) | (b.f[i] != b.f[i])) ? b.f[i] : a.f[i]); }
LANE v16 v_even(const float *p) { LANES_EACH(p[2 * i]); }
LANE v16 v_rne(v16 a) { LANES_EACH(qx_rne(a.f[i])); }
LANE v16 v_mini_round(v16 a, int mbits, int bias, float top) { LANES_EACH(qx_mini_round(a.f[i], mbits, bias, top)); }
LANE v16 v_fma(v16 a, v16 b, v16 c) { LANES_EACH(a.f[i] * b.f[i] + c.f[i]); } /* not fused */
LANE v16 v_rcp(v16 a) { LANES_EACH(1.0f / a.f[i]); }
LANE float v_pow2(int32_t n)
{
    const uint32_t bits = (uint32_t)(n + 127) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
LANE float v_ldexp1(float a, float n)
{
    const int32_t k = n == n ? (int32_t)n : 0, h = k >> 1; /* in two halves: the ends of the range come out right */
    return a * v_pow2(h) * v_pow2(k - h);
}
LANE v16 v_ldexp(v16 a, v16 n) { LANES_EACH(v_ldexp1(a.f[i], n.f[i])); }
LANE v16 v_zero_below(v16 a, v16 x, v16 least) { LANES_EACH(x.f[i] < least.f[i] ? 0.0f : a.f[i]); }
LANE v16 v_abs(v16 a) { LANES_EACH(__builtin_fabsf(a.f[i])); }
LANE v16 v_sign_of(v16 a, v16 x) { LANES_EACH(__builtin_copysignf(a.f[i], x.f[i])); }
LANE v16 v_above(v16 x, v16 limit, v16 a, v16 b) { LANES_EACH(x.f[i] > limit.f[i] ? a.f[i] : b.f[i]); }
LANE float v_top(v16 a)
{
    float m = a.f[0];
    for (int i = 1; i < 16; i++) m = a.f[i] > m ? a.f[i] : m;
    return m;
}
typedef struct flips { uint8_t bits; } flips;
LANE flips v_flips(uint8_t flip) { return (flips){flip}; }
LANE v16 v_bytes(const uint8_t *p, const flips *f) { LANES_EACH((float)(p[i] ^ f->bits)); }
typedef struct q128 { uint32_t w[16]; } q128;
LANE q128 v_codes(const uint8_t *p, int64_t n)
{
    q128 c = {{0}};
    for (int i = 0; i < 4 * (n < 16 ? (int)n : 16); i++) c.w[i / 4] |= (uint32_t)p[i] << 8 * (i % 4);
    return c;
}
LANE void v_columns(const uint8_t *p, int64_t row, int64_t last, q128 *w)
{
    for (int i = 0; i < 16; i++) {
        const q128 c = v_codes(p + (i < last ? i : last) * row, 4);
        for (int k = 0; k < 4; k++) w[k].w[i] = c.w[k];
    }
}
LANE q128 v_shift(q128 c, int bits)
{
    for (int i = 0; i < 16; i++) c.w[i] >>= bits;
    return c;
}
LANE v16 v_byte(q128 c, int at, uint8_t flip) { LANES_EACH((float)((c.w[i] >> 8 * at & 255) ^ flip)); }
LANE q128 v_next(q128 c) { return v_shift(c, 4); }
LANE q128 v_later(q128 c) { return v_shift(c, 12); }
typedef struct places { uint32_t flip; } places;
LANE places v_places(uint32_t flip) { return (places){flip}; }
LANE v16 v_code(q128 c, int place, const places *p)
{
    LANES_EACH((float)(((int)((c.w[i] >> 4 * place & 15) ^ p->flip) - 8) * (1 << 4 * place)));
}
LANE v16 v_repeat(const float *p, int64_t n, int shift) { LANES_EACH(i >> shift < n ? p[i >> shift] : 0.0f); }
typedef struct h32 { int16_t h[32]; } h32;
#define H_EACH(expr)                                          \
    h32 r_;                                                   \
    for (int i = 0; i < 32; i++) r_.h[i] = (int16_t)(expr);   \
    return r_
LANE h32 h_load(const int32_t *p)
{
    h32 r;
    for (int i = 0; i < 16; i++) r.h[2 * i] = (int16_t)(p[i] & 0xffff), r.h[2 * i + 1] = (int16_t)(p[i] >> 16);
    return r;
}
LANE void h_store(int32_t *p, h32 a)
{
    for (int i = 0; i < 16; i++) p[i] = (int32_t)((uint32_t)(uint16_t)a.h[2 * i] | (uint32_t)(uint16_t)a.h[2 * i + 1] << 16);
}
LANE h32 h_set(int32_t w) { H_EACH(i % 2 ? w >> 16 : w & 0xffff); }
LANE h32 h_mulr(h32 a, h32 b) { H_EACH((a.h[i] * b.h[i] + 0x4000) >> 15); }
LANE h32 h_mulhi(h32 a, h32 b) { H_EACH((a.h[i] * b.h[i]) >> 16); }
LANE h32 h_abs(h32 a) { H_EACH(a.h[i] < 0 ? -a.h[i] : a.h[i]); }
LANE h32 h_e2m1(h32 a)
{
    static const int8_t twice[21] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 6, 6, 6, 6, 8, 8, 8, 8, 8, 8, 12};
    H_EACH(twice[a.h[i] < 20 ? a.h[i] : 20]);
}
LANE h32 h_min(h32 a, h32 b) { H_EACH(a.h[i] < b.h[i] ? a.h[i] : b.h[i]); }
LANE h32 h_max(h32 a, h32 b) { H_EACH(a.h[i] > b.h[i] ? a.h[i] : b.h[i]); }
LANE h32 h_madd(h32 a, h32 b)
{
    int32_t w[16];
    for (int i = 0; i < 16; i++) w[i] = a.h[2 * i] * b.h[2 * i] + a.h[2 * i + 1] * b.h[2 * i + 1];
    return h_load(w);
}
LANE h32 h_add32(h32 a, h32 b)
{
    int32_t w[16], v[16];
    h_store(w, a), h_store(v, b);
    for (int i = 0; i < 16; i++) w[i] += v[i];
    return h_load(w);
}
LANE h32 h_round(v16 a)
{
    int32_t w[16];
    for (int i = 0; i < 16; i++) w[i] = (int32_t)qx_rne(a.f[i]);
    return h_load(w);
}
LANE h32 h_halves(h32 a, h32 b)
{
    for (int i = 0; i < 16; i++) a.h[2 * i + 1] = b.h[2 * i];
    return a;
}
LANE v16 v_words(h32 a)
{
    int32_t w[16];
    h_store(w, a);
    LANES_EACH((float)w[i]);
}
LANE float v_sum(v16 a)
{
    for (int step = 8; step > 0; step /= 2)
        for (int i = 0; i < step; i++) a.f[i] += a.f[i + step];
    return a.f[0];
}
#endif

/* h32: the same lanes as words of two 16-bit halves; h_mulr rounds x * y / 2^15 half by half, h_mulhi rounds x * y / 2^16 down,
 * h_e2m1: twice the E2M1 value nearest to x / 4, x >= 0 (half way: the larger), h_madd multiplies halves and adds the two,
 * h_add32 adds words; h_round: |a| < 2^22 rounded half to even, h_halves: the low halves of both, a's below; v_words: words as
 * floats. v_mini_round: adding 1.5 * 2^23 steps of the format's spacing at y's exponent lets the FPU round half to even; a result
 * of 0 may lose its sign. v_fma (fused, but for plain C) and v_rcp (1 / a within two units of the last place, for normal 1 / a)
 * are the operations whose last bit depends on the instruction set: not for loops that must agree. v_max and v_min give b where
 * either is NaN, v_larger gives NaN (of equal ones a). v_even: every second of 32 numbers; v_third, v_fourth: likewise of 48
 * and 64; v_every: every step-th number, n of them, the rest 0; step < 2^27. v_ldexp: a * 2^n, n whole, |n| <= 150; NaN stays.
 * v_top: the largest lane. v_zero_below: a, but 0 where x < least. v_first: the first n lanes of a, the others of b. v_above: a
 * where x > limit, else b. v_sign_of: a >= 0 with the sign of x. v_bytes: 16 bytes as floats; v_flips: bits to be turned over
 * before. q128, v_codes: sixteen words of eight 4-bit codes, those from n on 0; v_code: the code at a place of 0 to 4 of each,
 * xor-ed with the flip of v_places, less 8, times 16^place: exact, and without a conversion, as low bits of 2^23; v_next,
 * v_later: one and three places later; v_columns: of sixteen columns `row` bytes apart (from `last` on that one again) the
 * first word, the second, the third and the fourth; v_byte: byte 0 to 3 of each word, xor-ed with the flip. v_repeat: lane i is
 * p[i >> shift], shift > 0; 0 from n on. AVX-512 only: v_sums: lane i is the sum of a[i], 16 of them, in another order than
 * v_sum's; v_pick: the entry of a table of sixteen at the low four bits of each lane of `at`; v_add_bits: the bits of a and, 19
 * higher, those of `low`, added up. */

#if LANES_ISA != 512
LANE v16 v_every(const float *p, int64_t step, int64_t n)
{
    float t[16] = {0};
    for (int64_t i = 0; i < 16 && i < n; i++) t[i] = p[i * step];
    return v_load(t);
}
LANE v16 v_third(const float *p) { return v_every(p, 3, 16); }
LANE v16 v_fourth(const float *p) { return v_every(p, 4, 16); }
#endif

/* Lanes from n values, n <= 16, the rest 0. */
LANE v16 v_part(const float *p, int64_t n) { return n >= 16 ? v_load(p) : v_load_n(p, n); }
LANE void v_store_part(float *p, v16 a, int64_t n)
{
    if (n >= 16) v_store(p, a);
    else v_store_n(p, a, n);
}

#endif
