/* gram.c - Gram tiles for AVX2 and AVX-512, at the speed of a matrix product. The sums in float64 of a large matrix lie in the
 * last cache or in memory: they are fetched while the products run. */
#include "kernels/loops/gram_leaf.h"

enum { T = QX_GRAM_TILE };

#if defined(__x86_64__)
#include <immintrin.h>

/* Rows [i, i + 4) of the tile: eight sums. */
QX_TARGET_AVX2 static inline void avx2_rows(const float *a, const float *b, int64_t rows, double *tile)
{
    __m256 c[4][2];
    for (int i = 0; i < 4; i++) c[i][0] = c[i][1] = _mm256_setzero_ps();
    for (int64_t r = 0; r < rows; r++, a += T, b += T) {
        const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
        for (int i = 0; i < 4; i++) {
            const __m256 v = _mm256_broadcast_ss(a + i);
            c[i][0] = _mm256_fmadd_ps(v, b0, c[i][0]);
            c[i][1] = _mm256_fmadd_ps(v, b1, c[i][1]);
        }
    }
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 4; h++) {
            double *t = tile + i * T + h * 4;
            const __m128 part = h & 1 ? _mm256_extractf128_ps(c[i][h / 2], 1) : _mm256_castps256_ps128(c[i][h / 2]);
            _mm256_storeu_pd(t, _mm256_add_pd(_mm256_loadu_pd(t), _mm256_cvtps_pd(part)));
        }
}

QX_TARGET_AVX2 static void avx2_add(const qx_gram_block *b, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    for (int64_t i = i0; i < i1; i++)
        for (int64_t j = i > j0 ? i : j0; j < j1; j++)
            for (int r = 0; r < T; r += 4) avx2_rows(qx_gram_panel(b, i) + r, qx_gram_panel(b, j), b->rows, qx_gram_tile(b, i, j) + r * T);
}

enum { HIGH = 8, WIDE = 3, LINES = HIGH * T * 8 / 64 }; /* lines of a cache that eight rows of a tile take */

QX_TARGET_AVX512 static inline void avx512_put(__m512 c, double *t)
{
    _mm512_storeu_pd(t, _mm512_add_pd(_mm512_loadu_pd(t), _mm512_cvtps_pd(_mm512_castps512_ps256(c))));
    _mm512_storeu_pd(t + 8, _mm512_add_pd(_mm512_loadu_pd(t + 8), _mm512_cvtps_pd(_mm512_extractf32x8_ps(c, 1))));
}

/* Rows [i, i + 8) of n tiles side by side: 24 sums. n is a constant where this is called, so that they stay in registers. */
QX_TARGET_AVX512 static inline __attribute__((always_inline)) void avx512_rows(const int n, const float *a, const float *b, int64_t rows,
    double *tile)
{
    __m512 c[HIGH][WIDE];
#pragma GCC unroll 8
    for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 3
        for (int j = 0; j < n; j++) c[i][j] = _mm512_setzero_ps();
    for (int64_t first = 0; first < rows; first += LINES) {
        for (int j = 0; j < n; j++) _mm_prefetch((const char *)(tile + j * QX_GRAM_CELLS) + first % 256 / LINES * 64, _MM_HINT_T0);
        const int64_t end = rows - first < LINES ? rows : first + LINES;
        for (int64_t r = first; r < end; r++) {
            __m512 v[WIDE];
#pragma GCC unroll 3
            for (int j = 0; j < n; j++) v[j] = _mm512_loadu_ps(b + (j * rows + r) * T);
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++) {
                const __m512 s = _mm512_set1_ps(a[r * T + i]);
#pragma GCC unroll 3
                for (int j = 0; j < n; j++) c[i][j] = _mm512_fmadd_ps(s, v[j], c[i][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 3
        for (int j = 0; j < n; j++) avx512_put(c[i][j], tile + j * QX_GRAM_CELLS + i * T);
}

QX_TARGET_AVX512 static void avx512_few(int n, const float *a, const float *b, int64_t rows, double *tile)
{
    if (n == 3) avx512_rows(3, a, b, rows, tile);
    else if (n == 2) avx512_rows(2, a, b, rows, tile);
    else avx512_rows(1, a, b, rows, tile);
}

QX_TARGET_AVX512 static void avx512_add(const qx_gram_block *b, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    for (int64_t i = i0; i < i1; i++)
        for (int64_t j = i > j0 ? i : j0; j < j1; j += WIDE)
            for (int r = 0; r < T; r += HIGH)
                avx512_few(j1 - j < WIDE ? (int)(j1 - j) : WIDE, qx_gram_panel(b, i) + r, qx_gram_panel(b, j), b->rows,
                           qx_gram_tile(b, i, j) + r * T);
}
#endif

qx_gram_add_fn *qx_gram_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return avx512_add;
    if (isa == QX_ISA_AVX2) return avx2_add;
#endif
    (void)isa;
    return qx_gram_ref;
}
