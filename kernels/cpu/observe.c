/* observe.c - observation loops compiled for AVX2 and AVX-512; the Gram tile is written out for both, because it has to run at the speed of a matrix product. */
#include "kernels/observe_leaf.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* What the compiler makes several instructions of, or shuffles, though it is one. */
#define LEAST(a, b) ((v8f)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define MOST(a, b) ((v8f)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define MOSTI(a, b) ((v8i)_mm256_max_epi32((__m256i)(a), (__m256i)(b)))
#define FN(name) avx2_##name
#define TARGET QX_TARGET_AVX2
#include "kernels/observe_loops.h"
#undef FN
#undef TARGET
#undef WIDEN
#define WIDEN(v) ((v8d)_mm512_cvtps_pd((__m256)(v)))
#define FN(name) avx512_##name
#define TARGET QX_TARGET_AVX512
#include "kernels/observe_loops.h"

/* Rows [i, i + 4) of the tile: eight accumulators. */
QX_TARGET_AVX2 static inline void avx2_gram4(const float *a, const float *b, int64_t rows, double *tile)
{
    __m256 c[4][2];
    for (int i = 0; i < 4; i++) c[i][0] = c[i][1] = _mm256_setzero_ps();
    for (int64_t r = 0; r < rows; r++, a += QX_GRAM_TILE, b += QX_GRAM_TILE) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
        for (int i = 0; i < 4; i++) {
            __m256 v = _mm256_broadcast_ss(a + i);
            c[i][0] = _mm256_fmadd_ps(v, b0, c[i][0]);
            c[i][1] = _mm256_fmadd_ps(v, b1, c[i][1]);
        }
    }
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 4; h++) {
            double *t = tile + i * QX_GRAM_TILE + h * 4;
            __m128 part = h & 1 ? _mm256_extractf128_ps(c[i][h / 2], 1) : _mm256_castps256_ps128(c[i][h / 2]);
            _mm256_storeu_pd(t, _mm256_add_pd(_mm256_loadu_pd(t), _mm256_cvtps_pd(part)));
        }
}

QX_TARGET_AVX2 static void avx2_gram(const float *a, const float *b, int64_t rows, double *tile)
{
    for (int i = 0; i < QX_GRAM_TILE; i += 4) avx2_gram4(a + i, b, rows, tile + i * QX_GRAM_TILE);
}

QX_TARGET_AVX512 static void avx512_gram(const float *a, const float *b, int64_t rows, double *tile)
{
    __m512 c[QX_GRAM_TILE];
    for (int i = 0; i < QX_GRAM_TILE; i++) c[i] = _mm512_setzero_ps();
    for (int64_t r = 0; r < rows; r++, a += QX_GRAM_TILE, b += QX_GRAM_TILE) {
        __m512 v = _mm512_loadu_ps(b);
#pragma GCC unroll 16
        for (int i = 0; i < QX_GRAM_TILE; i++) c[i] = _mm512_fmadd_ps(_mm512_set1_ps(a[i]), v, c[i]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < QX_GRAM_TILE; i++) {
        double *t = tile + i * QX_GRAM_TILE;
        _mm512_storeu_pd(t, _mm512_add_pd(_mm512_loadu_pd(t), _mm512_cvtps_pd(_mm512_castps512_ps256(c[i]))));
        _mm512_storeu_pd(t + 8, _mm512_add_pd(_mm512_loadu_pd(t + 8), _mm512_cvtps_pd(_mm512_extractf32x8_ps(c[i], 1))));
    }
}
#endif

const qx_observe_leaf *qx_observe_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    static const qx_observe_leaf avx2 = {avx2_scan, avx2_hist, avx2_columns, avx2_gram}, avx512 = {avx512_scan, avx512_hist, avx512_columns, avx512_gram};
    if (isa == QX_ISA_AVX512) return &avx512;
    if (isa == QX_ISA_AVX2) return &avx2;
#endif
    (void)isa;
    return qx_observe_ref();
}
