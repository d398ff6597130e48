/* gemm.c - see gemm.h. A tile of rows by one panel stays in registers while k runs: 12 x 32 with AVX-512 (6 x 64 when there
 * are few rows), 6 x 16 with AVX2, plain C elsewhere. Fused multiply-add needs intrinsics: the build forbids the compiler to fuse by itself. */
#include "kernels/gemm.h"

#include "kernels/multi.h"
#include "kernels/quant.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { NR = QX_GEMM_NR };

int64_t qx_gemm_packed_size(int64_t k, int64_t n) { return (n + NR - 1) / NR * NR * k; }

QX_INLINE void qx_gemm_pack_panel_body(const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, int64_t width, float *dst)
{
    int64_t first = p * width, cols = n - first < width ? n - first : width;
    if (cols < width)
        for (int64_t i = 0; i < k * width; i++) dst[i] = 0.0f;
    if (col == 1) {
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < cols; j++) dst[i * width + j] = w[i * row + first + j];
        return;
    }
    if (row == 1) {
        (void)qx_transpose(sizeof *w, cols, k, w + first * col, col, dst, width);
        return;
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < cols; j++) dst[i * width + j] = w[i * row + (first + j) * col];
}
QX_MULTI(, qx_gemm_pack_panel, (const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, int64_t width, float *dst), (w, k, n, row, col, p, width, dst))

/* acc[rows][width], the columns from c on, to y. */
QX_INLINE void store(const qx_gemm_tile *t, int64_t r0, int64_t c, const float *acc, int rows, int width)
{
    const int64_t cols = t->cols - c < width ? t->cols - c : width;
    for (int r = 0; r < rows; r++) {
        float *y = t->y + (r0 + r) * t->ldy + c;
        const float *a = acc + r * width;
        for (int64_t j = 0; j < cols; j++) y[j] = a[j] + (t->add ? y[j] : 0.0f) + (t->bias ? t->bias[c + j] : 0.0f);
    }
}

static void tile_base(const qx_gemm_tile *t, int64_t r0, int64_t c, int rows)
{
    float acc[4 * NR] = {0};
    for (int64_t i = 0; i < t->k; i++)
        for (int r = 0; r < rows; r++) {
            float a = t->x[(r0 + r) * t->ldx + i * t->cx];
            for (int j = 0; j < NR; j++) acc[r * NR + j] += a * t->panel[i * t->ldp + c + j];
        }
    store(t, r0, c, acc, rows, NR);
}

#if defined(__x86_64__)
enum { ROOM = 12 * NR, AHEAD = 512 }; /* floats of the largest tile; floats that a panel is fetched ahead */

/* One tile of `rows` rows and `width` columns from row r0 and column c on. rows and width are constants where these are called, so that the loops over
 * them unroll and acc stays in registers. fetch: the panel comes from memory, whose latency one core's own fetching does not cover (13 GB/s; 16 with it). */
#define TILE(isa, TARGET, V, W, ZERO, LOAD, SET1, FMA, ADD, STORE)                                                          \
    TARGET static inline __attribute__((always_inline)) void tile_##isa(const qx_gemm_tile *t, int64_t r0, int64_t c, const int rows, const int width, const bool fetch) \
    {                                                                                                                  \
        const bool whole = t->cols - c >= width && !t->bias;                                                           \
        float out[ROOM];                                                                                               \
        const float *x = t->x + r0 * t->ldx, *p = t->panel + c;                                                        \
        const int64_t k = t->k, ldp = t->ldp, ldx = t->ldx, cx = t->cx;                                                \
        V acc[12][8];                                                                                                  \
        for (int r = 0; r < rows; r++)                                                                                 \
            for (int v = 0; v < width / W; v++) acc[r][v] = ZERO();                                                    \
        for (int64_t i = 0; i < k; i++, p += ldp, x += cx) {                                                           \
            V b[8];                                                                                                    \
            for (int v = 0; fetch && v < width; v += 16) __builtin_prefetch(p + AHEAD + v, 0, 2); /* second cache */   \
            for (int v = 0; v < width / W; v++) b[v] = LOAD(p + v * W);                                                \
            for (int r = 0; r < rows; r++) {                                                                           \
                V a = SET1(x[r * ldx]);                                                                                \
                for (int v = 0; v < width / W; v++) acc[r][v] = FMA(a, b[v], acc[r][v]);                               \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < rows; r++) {                                                                               \
            float *y = whole ? t->y + (r0 + r) * t->ldy + c : out + r * width;                                         \
            for (int v = 0; v < width / W; v++) STORE(y + v * W, whole && t->add ? ADD(LOAD(y + v * W), acc[r][v]) : acc[r][v]); \
        }                                                                                                              \
        if (!whole) store(t, r0, c, out, rows, width);                                                                 \
    }
TILE(avx512, QX_TARGET_AVX512, __m512, 16, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_storeu_ps)
TILE(avx2, QX_TARGET_AVX2, __m256, 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_storeu_ps)

/* All rows of the strip of `width` columns at c; the tile of most rows that fits the registers, then what is left. */
#define STRIPS(isa, TARGET, most, width)                                                                                    \
    TARGET static void many_##isa(const qx_gemm_tile *t, int64_t c)                                                    \
    {                                                                                                                  \
        int64_t r = 0;                                                                                                 \
        for (; r + most <= t->m; r += most) tile_##isa(t, r, c, most, width, false);                                   \
        for (; r + 4 <= t->m; r += 4) tile_##isa(t, r, c, 4, width, false);                                            \
        for (; r < t->m; r++) tile_##isa(t, r, c, 1, width, false);                                                    \
    }
STRIPS(avx512, QX_TARGET_AVX512, 12, 32)
STRIPS(avx2, QX_TARGET_AVX2, 6, 16)

/* At most QX_GEMM_FEW rows: the panel is read once. */
#define FEW(isa, TARGET, width)                                                                                             \
    TARGET static void few_##isa##_##width(const qx_gemm_tile *t, int64_t c)                                           \
    {                                                                                                                  \
        switch (t->m) {                                                                                                \
        case 6: tile_##isa(t, 0, c, 6, width, true); break;                                                            \
        case 5: tile_##isa(t, 0, c, 5, width, true); break;                                                            \
        case 4: tile_##isa(t, 0, c, 4, width, true); break;                                                            \
        case 3: tile_##isa(t, 0, c, 3, width, true); break;                                                            \
        case 2: tile_##isa(t, 0, c, 2, width, true); break;                                                            \
        case 1: tile_##isa(t, 0, c, 1, width, true); break;                                                            \
        default: break;                                                                                                \
        }                                                                                                              \
    }
FEW(avx512, QX_TARGET_AVX512, 64)
FEW(avx512, QX_TARGET_AVX512, 32)
FEW(avx2, QX_TARGET_AVX2, 16)

static void panel_avx512(const qx_gemm_tile *t)
{
    int64_t c = 0;
    const bool few = t->m <= QX_GEMM_FEW;
    for (; few && t->cols - c > NR; c += 2 * NR) few_avx512_64(t, c);
    for (; c < t->cols; c += NR) (few ? few_avx512_32 : many_avx512)(t, c);
}

static void panel_avx2(const qx_gemm_tile *t)
{
    for (int64_t c = 0; c < t->cols; c += 16) (t->m <= QX_GEMM_FEW ? few_avx2_16 : many_avx2)(t, c);
}
#endif

static void panel_base(const qx_gemm_tile *t)
{
    for (int64_t c = 0; c < t->cols; c += NR) {
        int64_t r = 0;
        for (; r + 4 <= t->m; r += 4) tile_base(t, r, c, 4);
        for (; r < t->m; r++) tile_base(t, r, c, 1);
    }
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
