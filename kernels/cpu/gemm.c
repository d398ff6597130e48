/* gemm.c - see gemm.h. A tile of rows by one panel stays in registers while k runs: 12 x 32 with AVX-512, 6 x 16 twice with AVX2, plain C
 * elsewhere. Fused multiply-add needs intrinsics: the build forbids the compiler to fuse by itself. */
#include "kernels/gemm.h"

#include "kernels/multi.h"
#include "kernels/quant.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { NR = QX_GEMM_NR };

int64_t qx_gemm_packed_size(int64_t k, int64_t n) { return (n + NR - 1) / NR * NR * k; }

QX_INLINE void qx_gemm_pack_panel_body(const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, float *dst)
{
    int64_t first = p * NR, cols = n - first < NR ? n - first : NR;
    if (cols < NR)
        for (int64_t i = 0; i < k * NR; i++) dst[i] = 0.0f;
    if (col == 1) {
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < cols; j++) dst[i * NR + j] = w[i * row + first + j];
        return;
    }
    if (row == 1) {
        (void)qx_transpose(sizeof *w, cols, k, w + first * col, col, dst, NR);
        return;
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < cols; j++) dst[i * NR + j] = w[i * row + (first + j) * col];
}
QX_MULTI(, qx_gemm_pack_panel, (const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, float *dst), (w, k, n, row, col, p, dst))

/* acc[rows][NR] to y. */
QX_INLINE void store(const qx_gemm_tile *t, int64_t r0, const float *acc, int rows)
{
    for (int r = 0; r < rows; r++) {
        float *y = t->y + (r0 + r) * t->ldy;
        const float *a = acc + r * NR;
        for (int64_t j = 0; j < t->cols; j++) y[j] = a[j] + (t->add ? y[j] : 0.0f) + (t->bias ? t->bias[j] : 0.0f);
    }
}

static void tile_base(const qx_gemm_tile *t, int64_t r0, int rows)
{
    float acc[4 * NR] = {0};
    for (int64_t i = 0; i < t->k; i++)
        for (int r = 0; r < rows; r++) {
            float a = t->x[(r0 + r) * t->ldx + i * t->cx];
            for (int j = 0; j < NR; j++) acc[r * NR + j] += a * t->panel[i * NR + j];
        }
    store(t, r0, acc, rows);
}

#if defined(__x86_64__)
/* rows is a constant where these are called, so that the loops over it unroll and acc stays in registers. */
#define TILE(isa, TARGET, V, W, ROWS_MAX, COLS, ZERO, LOAD, SET1, FMA, ADD, STORE)                                          \
    TARGET static inline __attribute__((always_inline)) void tile_##isa##_rows(const qx_gemm_tile *t, int64_t r0, const int rows) \
    {                                                                                                                  \
        const bool whole = t->cols == NR && !t->bias;                                                                  \
        float out[ROWS_MAX * NR];                                                                                      \
        const float *x = t->x + r0 * t->ldx;                                                                           \
        for (int c = 0; c < NR; c += COLS) {                                                                           \
            V acc[ROWS_MAX][COLS / W];                                                                                 \
            for (int r = 0; r < rows; r++)                                                                             \
                for (int v = 0; v < COLS / W; v++) acc[r][v] = ZERO();                                                 \
            for (int64_t i = 0; i < t->k; i++) {                                                                       \
                V b[COLS / W];                                                                                         \
                for (int v = 0; v < COLS / W; v++) b[v] = LOAD(t->panel + i * NR + c + v * W);                         \
                for (int r = 0; r < rows; r++) {                                                                       \
                    V a = SET1(x[r * t->ldx + i * t->cx]);                                                             \
                    for (int v = 0; v < COLS / W; v++) acc[r][v] = FMA(a, b[v], acc[r][v]);                            \
                }                                                                                                      \
            }                                                                                                          \
            for (int r = 0; r < rows; r++) {                                                                           \
                float *y = whole ? t->y + (r0 + r) * t->ldy + c : out + r * NR + c;                                    \
                for (int v = 0; v < COLS / W; v++) STORE(y + v * W, whole && t->add ? ADD(LOAD(y + v * W), acc[r][v]) : acc[r][v]); \
            }                                                                                                          \
        }                                                                                                              \
        if (!whole) store(t, r0, out, rows);                                                                           \
    }                                                                                                                  \
    TARGET static void panel_##isa(const qx_gemm_tile *t)                                                              \
    {                                                                                                                  \
        int64_t r = 0;                                                                                                 \
        for (; r + ROWS_MAX <= t->m; r += ROWS_MAX) tile_##isa##_rows(t, r, ROWS_MAX);                                 \
        for (; r + 4 <= t->m; r += 4) tile_##isa##_rows(t, r, 4);                                                      \
        for (; r < t->m; r++) tile_##isa##_rows(t, r, 1);                                                              \
    }
TILE(avx512, QX_TARGET_AVX512, __m512, 16, 12, 32, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_storeu_ps)
TILE(avx2, QX_TARGET_AVX2, __m256, 8, 6, 16, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_storeu_ps)
#endif

static void panel_base(const qx_gemm_tile *t)
{
    int64_t r = 0;
    for (; r + 4 <= t->m; r += 4) tile_base(t, r, 4);
    for (; r < t->m; r++) tile_base(t, r, 1);
}

void qx_gemm_panel(const qx_gemm_tile *t)
{
#if defined(__x86_64__)
    if (qx_isa_best() == QX_ISA_AVX512) panel_avx512(t);
    else if (qx_isa_best() == QX_ISA_AVX2) panel_avx2(t);
    else
#endif
        panel_base(t);
}
