/* transpose.c - matrix transpose by small blocks, so that both sides stay in the cache. */
#include "kernels/quant.h"

enum { BLOCK = 32 };

#define TRANSPOSE(type)                                                                                            \
    static void transpose_##type(int64_t rows, int64_t cols, const type *s, int64_t sl, type *d, int64_t dl)       \
    {                                                                                                              \
        for (int64_t r0 = 0; r0 < rows; r0 += BLOCK)                                                               \
            for (int64_t c0 = 0; c0 < cols; c0 += BLOCK) {                                                         \
                const int64_t r1 = r0 + BLOCK < rows ? r0 + BLOCK : rows, c1 = c0 + BLOCK < cols ? c0 + BLOCK : cols; \
                for (int64_t c = c0; c < c1; c++)                                                                  \
                    for (int64_t r = r0; r < r1; r++) d[c * dl + r] = s[r * sl + c];                               \
            }                                                                                                      \
    }
TRANSPOSE(uint8_t)
TRANSPOSE(uint16_t)
TRANSPOSE(uint32_t)
TRANSPOSE(uint64_t)

#ifdef __SSE2__ /* part of every x86-64 */
#include <emmintrin.h>

/* 4 x 4 words in registers; what is left over at the edges goes the plain way. */
static void transpose_words(int64_t rows, int64_t cols, const uint32_t *s, int64_t sl, uint32_t *d, int64_t dl)
{
    const int64_t r4 = rows & ~(int64_t)3, c4 = cols & ~(int64_t)3;
    for (int64_t c0 = 0; c0 < c4; c0 += 64) /* columns of the source are far apart in the target: few at a time */
        for (int64_t r = 0; r < r4; r += 4)
            for (int64_t c = c0; c < c4 && c < c0 + 64; c += 4) {
                __m128 a = _mm_loadu_ps((const float *)(s + r * sl + c)), b = _mm_loadu_ps((const float *)(s + (r + 1) * sl + c));
                __m128 e = _mm_loadu_ps((const float *)(s + (r + 2) * sl + c)), f = _mm_loadu_ps((const float *)(s + (r + 3) * sl + c));
                _MM_TRANSPOSE4_PS(a, b, e, f);
                _mm_storeu_ps((float *)(d + c * dl + r), a);
                _mm_storeu_ps((float *)(d + (c + 1) * dl + r), b);
                _mm_storeu_ps((float *)(d + (c + 2) * dl + r), e);
                _mm_storeu_ps((float *)(d + (c + 3) * dl + r), f);
            }
    transpose_uint32_t(rows, cols - c4, s + c4, sl, d + c4 * dl, dl);
    transpose_uint32_t(rows - r4, c4, s + r4 * sl, sl, d + r4, dl);
}
#else
#define transpose_words transpose_uint32_t
#endif

bool qx_transpose(int elem_size, int64_t rows, int64_t cols, const void *src, int64_t src_ld, void *dst, int64_t dst_ld)
{
    if (elem_size == 1) transpose_uint8_t(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 2) transpose_uint16_t(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 4) transpose_words(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 8) transpose_uint64_t(rows, cols, src, src_ld, dst, dst_ld);
    else return false;
    return true;
}
