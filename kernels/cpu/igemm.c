/* igemm.c - see igemm.h. */
#include "kernels/igemm.h"

#include <string.h>

#include "kernels/loops/igemm_leaf.h"
#include "kernels/loops/multi.h"
#include "kernels/quant.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MR = QX_IGEMM_ROWS, NR = QX_IGEMM_PANEL, KC = QX_IGEMM_DEPTH };

/* acc[r][j] += sum over i < 4 * quads of a[r][i] * b[i / 4][j][i % 4]. */
static void tile_base(int64_t rows, const uint8_t *a, const int8_t *b, int64_t quads, int32_t acc[MR][NR])
{
    for (int64_t q = 0; q < quads; q++, b += 4 * NR)
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < NR; j++)
                for (int t = 0; t < 4; t++) acc[r][j] += (int32_t)a[r * KC + 4 * q + t] * (int32_t)b[4 * j + t];
}

#if defined(__x86_64__)
/* Widened to 16 bit: pairs of products never overflow 32 bit. Even and odd pairs of a column are summed at the end. */
QX_TARGET_AVX2 static void tile_avx2(int64_t rows, const uint8_t *a, const int8_t *b, int64_t quads, int32_t acc[MR][NR])
{
    for (int r0 = 0; r0 < rows; r0 += 2)
        for (int j0 = 0; j0 < NR; j0 += 16) {
            __m256i s[2][4];
            for (int r = 0; r < 2; r++)
                for (int v = 0; v < 4; v++) s[r][v] = _mm256_setzero_si256();
            for (int64_t q = 0; q < quads; q++) {
                const int8_t *bq = b + 4 * NR * q + 4 * j0;
                __m256i x[2];
                for (int r = 0; r < 2; r++) {
                    int32_t four;
                    memcpy(&four, a + (r0 + r) * KC + 4 * q, 4);
                    x[r] = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
                }
                for (int v = 0; v < 4; v++) {
                    const __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(bq + 16 * v)));
                    for (int r = 0; r < 2; r++) s[r][v] = _mm256_add_epi32(s[r][v], _mm256_madd_epi16(x[r], w));
                }
            }
            for (int r = 0; r < 2; r++)
                for (int v = 0; v < 4; v++) {
                    int32_t t[8];
                    _mm256_storeu_si256((__m256i *)(void *)t, s[r][v]);
                    for (int j = 0; j < 4; j++) acc[r0 + r][j0 + 4 * v + j] += t[2 * j] + t[2 * j + 1];
                }
        }
}

/* rows is a constant where this is called, so that acc stays in registers: one row reads each weight once and does nothing in vain. */
QX_TARGET_VNNI static inline __attribute__((always_inline)) void vnni_rows(const int rows, const uint8_t *a, const int8_t *b, int64_t quads,
                                                                           int32_t acc[MR][NR])
{
    __m512i s[MR][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++) s[r][v] = _mm512_loadu_si512(acc[r] + 16 * v);
    for (int64_t q = 0; q < quads; q++, b += 4 * NR) {
        const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 64);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a + r * KC + 4 * q, 4);
            const __m512i x = _mm512_set1_epi32(four);
            s[r][0] = _mm512_dpbusd_epi32(s[r][0], x, b0);
            s[r][1] = _mm512_dpbusd_epi32(s[r][1], x, b1);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++) _mm512_storeu_si512(acc[r] + 16 * v, s[r][v]);
}

QX_TARGET_VNNI static void tile_vnni(int64_t rows, const uint8_t *a, const int8_t *b, int64_t quads, int32_t acc[MR][NR])
{
    switch (rows) {
    case 1: vnni_rows(1, a, b, quads, acc); break;
    case 2: vnni_rows(2, a, b, quads, acc); break;
    case 3: vnni_rows(3, a, b, quads, acc); break;
    case 4: vnni_rows(4, a, b, quads, acc); break;
    case 5: case 6: vnni_rows(6, a, b, quads, acc); break; /* of five the sixth is zeros */
    default: vnni_rows(MR, a, b, quads, acc); break;
    }
}
#endif

qx_igemm_tile *qx_igemm_tile_at(int level)
{
#if defined(__x86_64__)
    if (level == 2) return qx_isa_vnni() ? tile_vnni : NULL;
    if (level == 1) return qx_isa_best() >= QX_ISA_AVX2 ? tile_avx2 : NULL;
#endif
    return level == 0 ? tile_base : NULL;
}

static qx_igemm_tile *best_tile(void)
{
    for (int level = 2; level > 0; level--)
        if (qx_igemm_tile_at(level)) return qx_igemm_tile_at(level);
    return tile_base;
}

static int64_t quads_of(int64_t k) { return (k + 3) / 4; }
int64_t qx_igemm_panels(int64_t n) { return (n + NR - 1) / NR; }
size_t qx_igemm_packed_bytes(int64_t k, int64_t n) { return (size_t)(qx_igemm_panels(n) * quads_of(k) * 4 * NR); }
int64_t qx_igemm_sums(int64_t n) { return qx_igemm_panels(n) * NR; }

QX_INLINE void sum_bytes_body(int64_t n, const uint8_t *s, uint8_t flip, uint32_t *out)
{
    uint32_t sum = 0;
    for (int64_t p = 0; p < n; p++) sum += (uint32_t)(s[p] ^ flip);
    *out = sum;
}
QX_MULTI(static, sum_bytes, (int64_t n, const uint8_t *s, uint8_t flip, uint32_t *out), (n, s, flip, out))

/* Four rows of B into the fours of their columns. */
QX_INLINE void put_rows_body(int64_t n, const uint8_t *restrict s, int64_t row, uint8_t flip, int8_t *restrict d)
{
    const uint8_t *b = s + row, *c = b + row, *e = c + row;
    for (int64_t j = 0; j < n; j++) {
        d[4 * j] = (int8_t)(s[j] ^ flip);
        d[4 * j + 1] = (int8_t)(b[j] ^ flip);
        d[4 * j + 2] = (int8_t)(c[j] ^ flip);
        d[4 * j + 3] = (int8_t)(e[j] ^ flip);
    }
}
QX_MULTI(static, put_rows, (int64_t n, const uint8_t *s, int64_t row, uint8_t flip, int8_t *d), (n, s, row, flip, d))

/* Columns of B that lie side by side along k: 32 bits move together. */
static void put_columns(const qx_igemm_part *b, const uint8_t *s, int64_t fours, uint8_t flip, int64_t width, int8_t *d)
{
    if (!flip && b->col % 4 == 0 && (uintptr_t)s % 4 == 0) {
        (void)qx_transpose(4, b->cols, fours, s, b->col / 4, d, width);
        return;
    }
    for (int64_t j = 0; j < b->cols; j++)
        for (int64_t q = 0; q < fours; q++) {
            uint32_t four;
            memcpy(&four, s + j * b->col + 4 * q, sizeof four);
            four ^= flip * 0x01010101u;
            memcpy(d + 4 * (q * width + j), &four, sizeof four);
        }
}

void qx_igemm_pack(const qx_igemm_part *b, int64_t width, int64_t quads, int8_t *d)
{
    const uint8_t *s = b->b;
    const uint8_t flip = b->is_signed ? 0 : 0x80; /* u - 128 as signed */
    int64_t fours = b->k / 4;
    if (b->cols < width || 4 * quads > b->k) memset(d, 0, (size_t)(quads * 4 * width));
    if (b->row == 1) put_columns(b, s, fours, flip, width, d);
    else if (b->col == 1) for (int64_t q = 0; q < fours; q++) put_rows(b->cols, s + 4 * q * b->row, b->row, flip, d + 4 * q * width);
    else fours = 0;
    for (int64_t i = 4 * fours; i < b->k; i++)
        for (int64_t j = 0; j < b->cols; j++)
            d[(i / 4 * width + j) * 4 + i % 4] = (int8_t)(s[i * b->row + j * b->col] ^ flip);
}

void qx_igemm_pack_panel(const void *b, bool is_signed, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, int8_t *packed,
                         int32_t *sums)
{
    const int64_t quads = quads_of(k), first = p * NR;
    const qx_igemm_part part = {(const char *)b + first * col, is_signed, k, n - first < NR ? n - first : NR, row, col};
    int8_t *d = packed + p * quads * 4 * NR;
    qx_igemm_pack(&part, NR, quads, d);
    qx_igemm_panel_sums(d, quads, NR, sums + first);
}

QX_INLINE void flip_bytes_body(int64_t n, const uint8_t *restrict src, uint8_t flip, uint8_t *restrict dst)
{
    for (int64_t i = 0; i < n; i++) dst[i] = src[i] ^ flip;
}
QX_MULTI(static, flip_bytes, (int64_t n, const uint8_t *src, uint8_t flip, uint8_t *dst), (n, src, flip, dst))

/* Rows of A as unsigned bytes, zero beyond k and in what is computed behind the last row. */
static void load_tile(const qx_igemm *g, int64_t i0, int64_t mr, int64_t k0, int64_t kc, uint8_t *tile)
{
    for (int64_t r = 0; r < (mr > 6 ? MR : mr + mr % 2); r++) {
        uint8_t *d = tile + r * KC;
        if (r < mr) flip_bytes(kc, (const uint8_t *)g->a + (i0 + r) * g->lda + k0, g->a_signed ? 0x80 : 0, d);
        else memset(d, 0, (size_t)kc);
        for (int64_t i = kc; i % 4; i++) d[i] = 0;
    }
}

/* What the columns of a panel need at the end, filled up to 32. */
typedef struct columns { int64_t first, n; uint32_t zb[NR]; float scale[NR], bias[NR]; bool any_zb; } columns;

static void load_columns(const qx_igemm *g, int64_t p, columns *c)
{
    const uint32_t half = g->b_signed ? 0u : 128u;
    c->first = p * NR, c->n = g->n - c->first < NR ? g->n - c->first : NR, c->any_zb = false;
    for (int64_t j = 0; j < NR; j++) {
        const int64_t at = c->first + (j < c->n ? j : 0);
        c->zb[j] = (uint32_t)(g->zb ? g->zb[g->zb_per_col ? at : 0] : 0) - half;
        c->scale[j] = g->c ? 1.0f : g->scale_b[g->scale_b_per_col ? at : 0];
        c->bias[j] = !g->c && g->bias ? g->bias[at] : 0.0f;
        c->any_zb = c->any_zb || c->zb[j] != 0;
    }
}

/* With A' = A + 128 (signed A) or A, B' = B - 128 (unsigned B) or B, and the zero points moved alike:
 * sum (A' - za)(B' - zb) = sum A'B' - za sum B' - zb (sum A' - k za). In uint32, where wrapping is defined. */
QX_INLINE void finish_body(int32_t *restrict acc, uint32_t za, uint32_t sum_a, const int32_t *restrict sums, const columns *restrict c)
{
    for (int j = 0; j < NR; j++) acc[j] = (int32_t)((uint32_t)acc[j] - za * (uint32_t)sums[j] - c->zb[j] * sum_a);
}
QX_MULTI(static, finish, (int32_t *acc, uint32_t za, uint32_t sum_a, const int32_t *sums, const columns *c), (acc, za, sum_a, sums, c))

QX_INLINE void to_float_body(const int32_t *restrict acc, float scale_a, const columns *restrict c, float *restrict y)
{
    for (int j = 0; j < NR; j++) y[j] = (float)acc[j] * (scale_a * c->scale[j]) + c->bias[j];
}
QX_MULTI(static, to_float, (const int32_t *acc, float scale_a, const columns *c, float *y), (acc, scale_a, c, y))

static void finish_row(const qx_igemm *g, int64_t i, const columns *c, int32_t *acc)
{
    const uint32_t za = (uint32_t)(g->za ? g->za[g->za_per_row ? i : 0] : 0) + (g->a_signed ? 128u : 0u);
    uint32_t sum = 0;
    float y[NR];
    if (c->any_zb) sum_bytes(g->k, (const uint8_t *)g->a + i * g->lda, g->a_signed ? 0x80 : 0, &sum);
    if (za || c->any_zb) finish(acc, za, sum - (uint32_t)g->k * za, g->sums + c->first, c);
    if (g->c) {
        memcpy(g->c + i * g->ldc + c->first, acc, sizeof *acc * (size_t)c->n);
        return;
    }
    to_float(acc, g->scale_a[g->scale_a_per_row ? i : 0], c, y);
    memcpy(g->y + i * g->ldy + c->first, y, sizeof *y * (size_t)c->n);
}

void qx_igemm_run_using(qx_igemm_tile *tile, const qx_igemm *g, int64_t p, int64_t i0, int64_t i1)
{
    const int8_t *panel = g->packed + p * quads_of(g->k) * 4 * NR;
    uint8_t a[MR * KC];
    int32_t acc[MR][NR];
    columns c;
    load_columns(g, p, &c);
    for (int64_t i = i0; i < i1; i += MR) {
        const int64_t mr = i1 - i < MR ? i1 - i : MR;
        memset(acc, 0, sizeof acc);
        for (int64_t k0 = 0; k0 < g->k; k0 += KC) {
            const int64_t kc = g->k - k0 < KC ? g->k - k0 : KC;
            load_tile(g, i, mr, k0, kc, a);
            tile(mr, a, panel + k0 * NR, (kc + 3) / 4, acc);
        }
        for (int64_t r = 0; r < mr; r++) finish_row(g, i + r, &c, acc[r]);
    }
}

void qx_igemm_run(const qx_igemm *g, int64_t p, int64_t i0, int64_t i1) { qx_igemm_run_using(best_tile(), g, p, i0, i1); }
