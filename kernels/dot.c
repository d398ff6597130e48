/* dot.c - see dot.h. A block of up to MR x NR results is kept in registers while k runs once over both operands: the rows of a
 * stay in the first level of cache while rows of b stream by. */
#include "kernels/dot.h"

#include <stdbool.h>

#include "kernels/loops/multi.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MR = 6, NR = 4, KB = 2048 };

/* Blocks of rows x NR results; NR rows of b are there (ldb 0: the same one again). */
typedef void block_fn(int rows, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float out[MR][NR]);

static void block_base(int rows, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float out[MR][NR])
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < NR; j++) {
            float s = 0;
            for (int64_t p = 0; p < k; p++) s += a[i * lda + p] * b[j * ldb + p];
            out[i][j] = s;
        }
}

#if defined(__x86_64__)
/* rows is a constant where these are called, so that the loops over it unroll and the sums stay in registers. */
QX_TARGET_AVX512 static inline __attribute__((always_inline)) void rows_avx512(const int rows, int64_t k, const float *a, int64_t lda,
    const float *b, int64_t ldb, float out[MR][NR])
{
    __m512 acc[MR][NR];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < NR; j++) acc[i][j] = _mm512_setzero_ps();
    int64_t p = 0;
    for (; p + 16 <= k; p += 16) {
        __m512 vb[NR];
        for (int j = 0; j < NR; j++) vb[j] = _mm512_loadu_ps(b + j * ldb + p);
        for (int i = 0; i < rows; i++) {
            const __m512 va = _mm512_loadu_ps(a + i * lda + p);
            for (int j = 0; j < NR; j++) acc[i][j] = _mm512_fmadd_ps(va, vb[j], acc[i][j]);
        }
    }
    if (p < k) {
        const __mmask16 mask = (__mmask16)((1u << (k - p)) - 1);
        for (int i = 0; i < rows; i++) {
            const __m512 va = _mm512_maskz_loadu_ps(mask, a + i * lda + p);
            for (int j = 0; j < NR; j++) acc[i][j] = _mm512_fmadd_ps(va, _mm512_maskz_loadu_ps(mask, b + j * ldb + p), acc[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < NR; j++) out[i][j] = _mm512_reduce_add_ps(acc[i][j]);
}

QX_TARGET_AVX2 static float sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

QX_TARGET_AVX2 static inline __attribute__((always_inline)) void rows_avx2(const int rows, int64_t k, const float *a, int64_t lda,
    const float *b, int64_t ldb, float out[MR][NR])
{
    const int64_t whole = k / 8 * 8;
    for (int h = 0; h < NR; h += 2) { /* two columns at a time: twelve sums fit the 16 registers */
        __m256 acc[MR][2];
        for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = _mm256_setzero_ps();
        for (int64_t p = 0; p < whole; p += 8) {
            const __m256 b0 = _mm256_loadu_ps(b + h * ldb + p), b1 = _mm256_loadu_ps(b + (h + 1) * ldb + p);
            for (int i = 0; i < rows; i++) {
                const __m256 va = _mm256_loadu_ps(a + i * lda + p);
                acc[i][0] = _mm256_fmadd_ps(va, b0, acc[i][0]);
                acc[i][1] = _mm256_fmadd_ps(va, b1, acc[i][1]);
            }
        }
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < 2; j++) {
                float s = sum8(acc[i][j]);
                for (int64_t p = whole; p < k; p++) s += a[i * lda + p] * b[(h + j) * ldb + p];
                out[i][h + j] = s;
            }
    }
}

#define BLOCK(name, TARGET)                                                                                                              \
    TARGET static void block_##name(int rows, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float out[MR][NR]) \
    {                                                                                                                                    \
        switch (rows) {                                                                                                                  \
        case 6: rows_##name(6, k, a, lda, b, ldb, out); break;                                                                           \
        case 5: rows_##name(5, k, a, lda, b, ldb, out); break;                                                                           \
        case 4: rows_##name(4, k, a, lda, b, ldb, out); break;                                                                           \
        case 3: rows_##name(3, k, a, lda, b, ldb, out); break;                                                                           \
        case 2: rows_##name(2, k, a, lda, b, ldb, out); break;                                                                           \
        default: rows_##name(1, k, a, lda, b, ldb, out); break;                                                                          \
        }                                                                                                                                \
    }
BLOCK(avx512, QX_TARGET_AVX512)
BLOCK(avx2, QX_TARGET_AVX2)
#endif

static block_fn *pick(void)
{
#if defined(__x86_64__)
    const qx_isa isa = qx_isa_best();
    if (isa == QX_ISA_AVX512) return block_avx512;
    if (isa == QX_ISA_AVX2) return block_avx2;
#endif
    return block_base;
}

/* At the edge, where fewer than NR rows of b are left, each is taken NR times: no memory behind the operand is touched. */
static void block_any(block_fn *fn, int rows, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb,
                      float out[MR][NR])
{
    if (n >= NR) {
        fn(rows, k, a, lda, b, ldb, out);
        return;
    }
    float part[MR][NR];
    for (int64_t j = 0; j < n; j++) {
        fn(rows, k, a, lda, b + j * ldb, 0, part);
        for (int i = 0; i < rows; i++) out[i][j] = part[i][0];
    }
}

static int rows_at(int64_t m, int64_t i) { return m - i < MR ? (int)(m - i) : MR; }

void qx_gemm_nt(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc)
{
    block_fn *fn = pick();
    float out[MR][NR];
    for (int64_t k0 = 0; k0 < k || k0 == 0; k0 += KB) {
        const int64_t kn = k - k0 < KB ? k - k0 : KB;
        for (int64_t i = 0; i < m; i += MR)
            for (int64_t j = 0; j < n; j += NR) {
                block_any(fn, rows_at(m, i), n - j, kn, a + i * lda + k0, lda, b + j * ldb + k0, ldb, out);
                for (int64_t y = 0; y < MR && i + y < m; y++)
                    for (int64_t x = 0; x < NR && j + x < n; x++) {
                        float *to = &c[(i + y) * ldc + j + x];
                        *to = k0 ? *to + out[y][x] : out[y][x];
                    }
            }
    }
}

double qx_gemm_nt_error(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const float *c,
                        int64_t ldc)
{
    block_fn *fn = pick();
    float out[MR][NR];
    double sum = 0;
    for (int64_t i = 0; i < m; i += MR)
        for (int64_t j = 0; j < n; j += NR) {
            double block = 0;
            block_any(fn, rows_at(m, i), n - j, k, a + i * lda, lda, b + j * ldb, ldb, out);
            for (int64_t y = 0; y < MR && i + y < m; y++)
                for (int64_t x = 0; x < NR && j + x < n; x++) {
                    const double d = (double)c[(i + y) * ldc + j + x] - (double)out[y][x];
                    block += d * d;
                }
            sum += block;
        }
    return sum;
}

QX_INLINE void qx_row_times_body(int64_t n, int64_t k, const float *a, const float *b, int64_t ldb, float *restrict y)
{
    int64_t p = k % 4;
    for (int64_t j = 0; j < n; j++) y[j] = 0;
    for (int64_t i = 0; i < p; i++)
        for (int64_t j = 0; j < n; j++) y[j] += a[i] * b[i * ldb + j];
    for (; p < k; p += 4) {
        const float *b0 = b + p * ldb, *b1 = b0 + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb;
        for (int64_t j = 0; j < n; j++) y[j] = (((y[j] + a[p] * b0[j]) + a[p + 1] * b1[j]) + a[p + 2] * b2[j]) + a[p + 3] * b3[j];
    }
}
QX_MULTI(, qx_row_times, (int64_t n, int64_t k, const float *a, const float *b, int64_t ldb, float *y), (n, k, a, b, ldb, y))

/* ---- rows by a panel ---- */

enum { STRETCH = 192 }; /* rows of a panel that stay in the first cache while all rows of a meet them */

/* ROWS results by a whole panel stay in registers of LANES floats. With add, y holds what the sums begin with. rows is a constant
 * where tile_X is called. */
#define PANELS(name, TARGET, LANES, ROWS)                                                                                     \
    typedef float lanes_##name __attribute__((vector_size((LANES) * 4), aligned(4)));                                         \
    TARGET static inline __attribute__((always_inline)) void tile_##name(const int rows, int64_t k, const float *a, int64_t lda, \
                                                                         const float *b, bool add, float *y, int64_t ldy)     \
    {                                                                                                                         \
        enum { PARTS = QX_PANEL / (LANES) };                                                                                  \
        lanes_##name sum[ROWS][PARTS];                                                                                        \
        for (int i = 0; i < rows; i++)                                                                                        \
            for (int v = 0; v < PARTS; v++)                                                                                   \
                sum[i][v] = add ? *(const lanes_##name *)(y + i * ldy + v * (LANES)) : (lanes_##name){0};                     \
        for (int64_t p = 0; p < k; p++)                                                                                       \
            for (int i = 0; i < rows; i++)                                                                                    \
                for (int v = 0; v < PARTS; v++)                                                                               \
                    sum[i][v] += a[i * lda + p] * *(const lanes_##name *)(b + p * QX_PANEL + v * (LANES));                    \
        for (int i = 0; i < rows; i++)                                                                                        \
            for (int v = 0; v < PARTS; v++) *(lanes_##name *)(y + i * ldy + v * (LANES)) = sum[i][v];                         \
    }                                                                                                                         \
    TARGET static void panel_##name(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, bool add, float *y, int64_t ldy) \
    {                                                                                                                         \
        int64_t i = 0;                                                                                                        \
        for (; i + (ROWS) <= m; i += (ROWS)) tile_##name(ROWS, k, a + i * lda, lda, b, add, y + i * ldy, ldy);                \
        for (; i < m; i++) tile_##name(1, k, a + i * lda, lda, b, add, y + i * ldy, ldy);                                     \
    }
PANELS(base, QX_TARGET_BASE, 4, 1)
#if defined(__x86_64__)
PANELS(avx2, QX_TARGET_AVX2, 8, 3)
PANELS(avx512, QX_TARGET_AVX512, 16, 6)
#endif

void qx_rows_times(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *y, int64_t ldy)
{
    void (*fn)(int64_t, int64_t, const float *, int64_t, const float *, bool, float *, int64_t) = panel_base;
#if defined(__x86_64__)
    const qx_isa isa = qx_isa_best();
    if (isa == QX_ISA_AVX512) fn = panel_avx512;
    if (isa == QX_ISA_AVX2) fn = panel_avx2;
#endif
    for (int64_t p = 0; p < k || p == 0; p += STRETCH)
        fn(m, k - p < STRETCH ? k - p : STRETCH, a + p, lda, b + p * QX_PANEL, p > 0, y, ldy);
}
