/* solve_columns.c - see solve_columns.h. Loops over rows, sixteen and more at a time; four columns with fused multiply-add where
 * the CPU has it. */
#include "kernels/solve/solve_columns.h"

#include "kernels/loops/multi.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { WIDE = QX_COLUMNS_WIDE, FOUR = QX_COLUMNS_FOUR };

static void pull_base(int64_t wide, int64_t np, int columns, const float *u, int64_t ldu, const float *e, float *x)
{
    for (int64_t p = 0; p < np; p++)
        for (int c = 0; c < columns; c++) qx_columns_push(wide, u[p * ldu + c], e + p * wide, x + c * wide);
}

#if defined(__x86_64__)
/* x stays in registers: four columns of LANES * VECTORS rows. */
#define PULL(isa, TARGET, V, LANES, VECTORS, LOAD, SET1, FNMA, STORE)                                                                  \
    TARGET static void pull_##isa(int64_t wide, int64_t np, const float *u, int64_t ldu, const float *e, float *x)                    \
    {                                                                                                                                 \
        for (int64_t i = 0; i < wide; i += LANES * VECTORS) {                                                                         \
            V acc[FOUR][VECTORS];                                                                                                     \
            for (int c = 0; c < FOUR; c++)                                                                                            \
                for (int v = 0; v < VECTORS; v++) acc[c][v] = LOAD(x + c * wide + i + v * LANES);                                     \
            for (int64_t p = 0; p < np; p++) {                                                                                        \
                V ep[VECTORS];                                                                                                        \
                for (int v = 0; v < VECTORS; v++) ep[v] = LOAD(e + p * wide + i + v * LANES);                                         \
                for (int c = 0; c < FOUR; c++) {                                                                                      \
                    const V f = SET1(u[p * ldu + c]);                                                                                 \
                    for (int v = 0; v < VECTORS; v++) acc[c][v] = FNMA(f, ep[v], acc[c][v]);                                          \
                }                                                                                                                     \
            }                                                                                                                         \
            for (int c = 0; c < FOUR; c++)                                                                                            \
                for (int v = 0; v < VECTORS; v++) STORE(x + c * wide + i + v * LANES, acc[c][v]);                                     \
        }                                                                                                                             \
    }
PULL(avx512, QX_TARGET_AVX512, __m512, 16, 1, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fnmadd_ps, _mm512_storeu_ps)
PULL(avx512_32, QX_TARGET_AVX512, __m512, 16, 2, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fnmadd_ps, _mm512_storeu_ps)
PULL(avx2, QX_TARGET_AVX2, __m256, 8, 2, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fnmadd_ps, _mm256_storeu_ps)
#endif

void qx_columns_pull(int64_t wide, int64_t np, int columns, const float *u, int64_t ldu, const float *e, float *x)
{
#if defined(__x86_64__)
    if (columns == FOUR && qx_isa_best() == QX_ISA_AVX512) {
        if (wide % (2 * WIDE) == 0) pull_avx512_32(wide, np, u, ldu, e, x);
        else pull_avx512(wide, np, u, ldu, e, x);
        return;
    }
    if (columns == FOUR && qx_isa_best() == QX_ISA_AVX2) {
        pull_avx2(wide, np, u, ldu, e, x);
        return;
    }
#endif
    pull_base(wide, np, columns, u, ldu, e, x);
}

QX_INLINE void qx_columns_push_body(int64_t wide, float f, const float *restrict e, float *restrict x)
{
    for (int64_t i = 0; i < wide; i++) x[i] -= f * e[i];
}
QX_MULTI(, qx_columns_push, (int64_t wide, float f, const float *e, float *x), (wide, f, e, x))
