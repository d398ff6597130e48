/* transpose.c - matrix transpose by small blocks, so that both sides stay in the cache; the same with codes packed on the way. */
#include <string.h>

#include "kernels/loops/multi.h"
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
static void transpose_words_sse(int64_t rows, int64_t cols, const uint32_t *s, int64_t sl, uint32_t *d, int64_t dl)
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

#if defined(__x86_64__)
#include <immintrin.h>

/* Words [0, 4) of rows q, q + 4, q + 8 and q + 12 of the n at s; those that are not there of row 0. */
QX_TARGET_AVX512 static inline __attribute__((always_inline)) __m512 four_of_four(const uint32_t *s, int64_t sl, int64_t n, int q)
{
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)(s + (q < n ? q : 0) * sl)));
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(s + (q + 4 < n ? q + 4 : 0) * sl)), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(s + (q + 8 < n ? q + 8 : 0) * sl)), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(s + (q + 12 < n ? q + 12 : 0) * sl)), 3);
}

/* 16 rows at a time, four words of each: 4 x 4 are turned in every quarter of a register. */
QX_TARGET_AVX512 static void transpose_words_avx512(int64_t rows, int64_t cols, const uint32_t *s, int64_t sl, uint32_t *d, int64_t dl)
{
    const int64_t c4 = cols & ~(int64_t)3;
    for (int64_t c0 = 0; c0 < c4; c0 += 64)
        for (int64_t r = 0; r < rows; r += 16) {
            const int64_t n = rows - r < 16 ? rows - r : 16;
            const __mmask16 keep = (__mmask16)((1u << n) - 1);
            for (int64_t c = c0; c < c4 && c < c0 + 64; c += 4) {
                const uint32_t *from = s + r * sl + c;
                float *to = (float *)(d + c * dl + r);
                const __m512 x = four_of_four(from, sl, n, 0), y = four_of_four(from, sl, n, 1), z = four_of_four(from, sl, n, 2),
                    w = four_of_four(from, sl, n, 3);
                const __m512d xy = _mm512_castps_pd(_mm512_unpacklo_ps(x, y)), zw = _mm512_castps_pd(_mm512_unpacklo_ps(z, w));
                const __m512d xy2 = _mm512_castps_pd(_mm512_unpackhi_ps(x, y)), zw2 = _mm512_castps_pd(_mm512_unpackhi_ps(z, w));
                _mm512_mask_storeu_ps(to, keep, _mm512_castpd_ps(_mm512_unpacklo_pd(xy, zw)));
                _mm512_mask_storeu_ps(to + dl, keep, _mm512_castpd_ps(_mm512_unpackhi_pd(xy, zw)));
                _mm512_mask_storeu_ps(to + 2 * dl, keep, _mm512_castpd_ps(_mm512_unpacklo_pd(xy2, zw2)));
                _mm512_mask_storeu_ps(to + 3 * dl, keep, _mm512_castpd_ps(_mm512_unpackhi_pd(xy2, zw2)));
            }
        }
    transpose_uint32_t(rows, cols - c4, s + c4, sl, d + c4 * dl, dl);
}
#endif

static void transpose_words(int64_t rows, int64_t cols, const uint32_t *s, int64_t sl, uint32_t *d, int64_t dl)
{
#if defined(__x86_64__)
    if (qx_isa_best() == QX_ISA_AVX512) {
        transpose_words_avx512(rows, cols, s, sl, d, dl);
        return;
    }
#endif
    transpose_words_sse(rows, cols, s, sl, d, dl);
}

/* 16 x 16 bytes in registers: four rounds of interleaving row i with row i + 8. */
static void transpose_16(const uint8_t *s, int64_t sl, uint8_t *d, int64_t dl)
{
    __m128i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm_loadu_si128((const __m128i *)(const void *)(s + i * sl));
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]), b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        for (int i = 0; i < 16; i++) a[i] = b[i];
    }
    for (int i = 0; i < 16; i++) _mm_storeu_si128((__m128i *)(void *)(d + i * dl), a[i]);
}

static void transpose_bytes(int64_t rows, int64_t cols, const uint8_t *s, int64_t sl, uint8_t *d, int64_t dl)
{
    const int64_t r16 = rows & ~(int64_t)15, c16 = cols & ~(int64_t)15;
    for (int64_t c0 = 0; c0 < c16; c0 += 64)
        for (int64_t r = 0; r < r16; r += 16)
            for (int64_t c = c0; c < c16 && c < c0 + 64; c += 16) transpose_16(s + r * sl + c, sl, d + c * dl + r, dl);
    transpose_uint8_t(rows, cols - c16, s + c16, sl, d + c16 * dl, dl);
    transpose_uint8_t(rows - r16, c16, s + r16 * sl, sl, d + r16, dl);
}
#else
#define transpose_words transpose_uint32_t
#define transpose_bytes transpose_uint8_t
#endif

bool qx_transpose(int elem_size, int64_t rows, int64_t cols, const void *src, int64_t src_ld, void *dst, int64_t dst_ld)
{
    if (elem_size == 1) transpose_bytes(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 2) transpose_uint16_t(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 4) transpose_words(rows, cols, src, src_ld, dst, dst_ld);
    else if (elem_size == 8) transpose_uint64_t(rows, cols, src, src_ld, dst, dst_ld);
    else return false;
    return true;
}

/* ---- codes, transposed and packed ---- */

enum { TILE_BYTES = 64, TILE_COLS = 64 };

typedef struct packing { int bits; uint8_t up; int64_t rows, cols; const uint8_t *codes; } packing;

/* Packed rows r .. r + nr of columns c .. c + nc into tile[nr][TILE_COLS]. */
QX_INLINE void pack_tile_body(const packing *p, int64_t r, int64_t nr, int64_t c, int64_t nc, uint8_t *restrict tile)
{
    const int bits = p->bits;
    const int64_t per = 8 / bits, ld = p->cols;
    const uint8_t mask = (uint8_t)((1u << bits) - 1u), up = p->up;
    for (int64_t i = 0; i < nr; i++, tile += TILE_COLS) {
        const int64_t row = (r + i) * per, have = p->rows - row < per ? p->rows - row : per;
        const uint8_t *restrict x = p->codes + row * ld + c;
        if (bits == 4 && have == 2) {
            for (int64_t k = 0; k < nc; k++) tile[k] = (uint8_t)(((x[k] + up) & 15) | (x[ld + k] + up) << 4);
            continue;
        }
        for (int64_t k = 0; k < nc; k++) tile[k] = (uint8_t)((x[k] + up) & mask);
        for (int64_t j = 1; j < have; j++)
            for (int64_t k = 0; k < nc; k++) tile[k] = (uint8_t)(tile[k] | ((x[j * ld + k] + up) & mask) << (j * bits));
    }
}
QX_MULTI(static, pack_tile, (const packing *p, int64_t r, int64_t nr, int64_t c, int64_t nc, uint8_t *tile), (p, r, nr, c, nc, tile))

/* Stored a cache line at a time: columns lie far apart, often a power of two, and shorter pieces would push each other out of the
 * cache. The lines are asked for before the work that fills them. */
void qx_pack_columns(int bits, int up, int64_t rows, int64_t cols, const uint8_t *codes, uint8_t *dst, int64_t dst_ld)
{
    uint8_t tile[TILE_BYTES * TILE_COLS], turned[TILE_COLS * TILE_BYTES];
    const packing p = {bits, (uint8_t)up, rows, cols, codes};
    const int64_t per = 8 / bits, packed = (rows + per - 1) / per;
    for (int64_t c = 0; c < cols; c += TILE_COLS)
        for (int64_t r = 0; r < packed; r += TILE_BYTES) {
            const int64_t nc = cols - c < TILE_COLS ? cols - c : TILE_COLS, nr = packed - r < TILE_BYTES ? packed - r : TILE_BYTES;
            for (int64_t i = 0; i < nc; i++) __builtin_prefetch(dst + (c + i) * dst_ld + r, 1);
            pack_tile(&p, r, nr, c, nc, tile);
            transpose_bytes(nr, nc, tile, TILE_COLS, turned, TILE_BYTES);
            for (int64_t i = 0; i < nc && nr == TILE_BYTES; i++) memcpy(dst + (c + i) * dst_ld + r, turned + i * TILE_BYTES, TILE_BYTES);
            for (int64_t i = 0; i < nc && nr < TILE_BYTES; i++) memcpy(dst + (c + i) * dst_ld + r, turned + i * TILE_BYTES, (size_t)nr);
        }
}
