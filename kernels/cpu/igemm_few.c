/* igemm_few.c - few rows of codes by panels of packed ones: see igemm.h. Bound by memory, so a panel is fetched ahead into the
 * second cache. */
#include "kernels/igemm.h"

#include <string.h>

#include "kernels/loops/multi.h"
#if defined(__x86_64__)
#include <immintrin.h>
enum { AHEAD = 4096, LANES = 16, MOST = QX_IGEMM_WIDEST / LANES }; /* bytes; columns of a register; registers of a row */

/* rows and vectors are constants where this is called, so that acc stays in registers. */
QX_TARGET_VNNI static inline __attribute__((always_inline)) void tile(const int rows, const int vectors, const uint8_t *a,
                                                                      int64_t lda, const int8_t *b, int64_t quads, int32_t *acc)
{
    __m512i s[QX_IGEMM_FEW][MOST];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) s[r][v] = _mm512_setzero_si512();
    for (int64_t q = 0; q < quads; q++, b += 64 * vectors) {
        __m512i w[MOST];
        for (int v = 0; v < vectors; v++) __builtin_prefetch(b + AHEAD + 64 * v, 0, 2);
        for (int v = 0; v < vectors; v++) w[v] = _mm512_loadu_si512(b + 64 * v);
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a + r * lda + 4 * q, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            for (int v = 0; v < vectors; v++) s[r][v] = _mm512_dpbusd_epi32(s[r][v], x, w[v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) _mm512_storeu_si512(acc + (r * vectors + v) * LANES, s[r][v]);
}

#define FEW(vectors)                                                                                                                    \
    QX_TARGET_VNNI static void few_##vectors(int64_t rows, const uint8_t *a, int64_t lda, const int8_t *b, int64_t quads, int32_t *acc) \
    {                                                                                                                                   \
        switch (rows) {                                                                                                                 \
        case 6: tile(6, vectors, a, lda, b, quads, acc); break;                                                                         \
        case 5: tile(5, vectors, a, lda, b, quads, acc); break;                                                                         \
        case 4: tile(4, vectors, a, lda, b, quads, acc); break;                                                                         \
        case 3: tile(3, vectors, a, lda, b, quads, acc); break;                                                                         \
        case 2: tile(2, vectors, a, lda, b, quads, acc); break;                                                                         \
        default: tile(1, vectors, a, lda, b, quads, acc); break;                                                                        \
        }                                                                                                                               \
    }
FEW(2)
FEW(4)

bool qx_igemm_has_few(int64_t width)
{
    return (width == 32 || width == 64) && qx_isa_vnni();
}

void qx_igemm_few(int64_t rows, const uint8_t *a, int64_t lda, const int8_t *panel, int64_t quads, int64_t width, int32_t *acc)
{
    (width == 64 ? few_4 : few_2)(rows, a, lda, panel, quads, acc);
}
#else
bool qx_igemm_has_few(int64_t width) { return (void)width, false; }
void qx_igemm_few(int64_t rows, const uint8_t *a, int64_t lda, const int8_t *panel, int64_t quads, int64_t width, int32_t *acc)
{
    (void)rows, (void)a, (void)lda, (void)panel, (void)quads, (void)width, (void)acc;
}
#endif

QX_INLINE void qx_igemm_panel_sums_body(const int8_t *panel, int64_t quads, int64_t width, int32_t *restrict sums)
{
    for (int64_t j = 0; j < width; j++) sums[j] = 0;
    for (int64_t q = 0; q < quads; q++)
        for (int64_t j = 0; j < width; j++)
            for (int t = 0; t < 4; t++) sums[j] += panel[(q * width + j) * 4 + t];
}
QX_MULTI(, qx_igemm_panel_sums, (const int8_t *panel, int64_t quads, int64_t width, int32_t *sums), (panel, quads, width, sums))
