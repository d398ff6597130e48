/* matmul.c - see matmul.h. A panel of B (256 x 32) is packed on the stack; eight rows of A against it stay in registers while k runs. */
#include "kernels/matmul.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/isa.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MR = 8, NR = QX_MATMUL_PANEL, KC = 256, MC = 256, PIECE_ROWS = 128 };

/* acc[r][j] = sum over p < kc of A(r, p) * panel[p][j] for `rows` rows. */
typedef void tile_fn(const float *a, int64_t ra, int64_t ca, int64_t kc, const float *panel, float acc[MR][NR]);

static void tile_base(const float *a, int64_t ra, int64_t ca, int64_t kc, const float *panel, float acc[MR][NR])
{
    memset(acc, 0, sizeof(float) * MR * NR);
    for (int64_t p = 0; p < kc; p++)
        for (int r = 0; r < MR; r++) {
            const float x = a[r * ra + p * ca];
            for (int j = 0; j < NR; j++) acc[r][j] += x * panel[p * NR + j];
        }
}

#if defined(__x86_64__)
QX_TARGET_AVX2 static void tile_avx2(const float *a, int64_t ra, int64_t ca, int64_t kc, const float *panel, float acc[MR][NR])
{
    for (int r0 = 0; r0 < MR; r0 += 4)
        for (int j0 = 0; j0 < NR; j0 += 16) {
            __m256 s[4][2];
            for (int r = 0; r < 4; r++) s[r][0] = s[r][1] = _mm256_setzero_ps();
            for (int64_t p = 0; p < kc; p++) {
                const __m256 b0 = _mm256_loadu_ps(panel + p * NR + j0), b1 = _mm256_loadu_ps(panel + p * NR + j0 + 8);
                for (int r = 0; r < 4; r++) {
                    const __m256 x = _mm256_set1_ps(a[(r0 + r) * ra + p * ca]);
                    s[r][0] = _mm256_fmadd_ps(x, b0, s[r][0]);
                    s[r][1] = _mm256_fmadd_ps(x, b1, s[r][1]);
                }
            }
            for (int r = 0; r < 4; r++) _mm256_storeu_ps(acc[r0 + r] + j0, s[r][0]), _mm256_storeu_ps(acc[r0 + r] + j0 + 8, s[r][1]);
        }
}

QX_TARGET_AVX512 static void tile_avx512(const float *a, int64_t ra, int64_t ca, int64_t kc, const float *panel, float acc[MR][NR])
{
    __m512 s[MR][2];
    for (int r = 0; r < MR; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
    for (int64_t p = 0; p < kc; p++) {
        const __m512 b0 = _mm512_loadu_ps(panel + p * NR), b1 = _mm512_loadu_ps(panel + p * NR + 16);
#pragma GCC unroll 8
        for (int r = 0; r < MR; r++) {
            const __m512 x = _mm512_set1_ps(a[r * ra + p * ca]);
            s[r][0] = _mm512_fmadd_ps(x, b0, s[r][0]);
            s[r][1] = _mm512_fmadd_ps(x, b1, s[r][1]);
        }
    }
    for (int r = 0; r < MR; r++) _mm512_storeu_ps(acc[r], s[r][0]), _mm512_storeu_ps(acc[r] + 16, s[r][1]);
}
#endif

static tile_fn *best_tile(void)
{
#if defined(__x86_64__)
    if (qx_isa_best() == QX_ISA_AVX512) return tile_avx512;
    if (qx_isa_best() == QX_ISA_AVX2) return tile_avx2;
#endif
    return tile_base;
}

static void pack_panel(const void *user, int64_t k0, int64_t kc, int64_t j0, int64_t nc, float *panel)
{
    const qx_matmul *p = user;
    const float *b = p->b + k0 * p->rb + j0 * p->cb;
    if (p->cb == 1 && nc == NR) {
        for (int64_t i = 0; i < kc; i++) memcpy(panel + i * NR, b + i * p->rb, NR * sizeof *panel);
        return;
    }
    for (int64_t i = 0; i < kc; i++)
        for (int64_t j = 0; j < NR; j++) panel[i * NR + j] = j < nc ? b[i * p->rb + j * p->cb] : 0.0f;
}

/* C tile += alpha * acc, or C = beta C + alpha * acc on the first pass over k. */
static void put_tile(const qx_matmul *p, bool first, int64_t i0, int64_t mr, int64_t j0, int64_t nc, float acc[MR][NR])
{
    for (int64_t r = 0; r < mr; r++) {
        float *restrict c = p->c + (i0 + r) * p->ldc + j0;
        if (first && p->beta == 0.0f)
            for (int64_t j = 0; j < nc; j++) c[j] = p->alpha * acc[r][j];
        else if (first && p->beta != 1.0f)
            for (int64_t j = 0; j < nc; j++) c[j] = p->beta * c[j] + p->alpha * acc[r][j];
        else
            for (int64_t j = 0; j < nc; j++) c[j] += p->alpha * acc[r][j];
    }
}

/* The last rows: a full tile of A is made by repeating the last row, so that the tile needs no variants. */
static void edge_tile(tile_fn *tile, const float *a, int64_t ra, int64_t ca, int64_t mr, int64_t kc, const float *panel, float acc[MR][NR])
{
    float rows[MR * KC];
    for (int64_t r = 0; r < MR; r++)
        for (int64_t p = 0; p < kc; p++) rows[r * KC + p] = a[(r < mr ? r : mr - 1) * ra + p * ca];
    tile(rows, KC, 1, kc, panel, acc);
}

/* Rows [i0, i0 + mc) of C against one packed panel. */
static void panel_rows(tile_fn *tile, const qx_matmul *p, int64_t i0, int64_t mc, int64_t k0, int64_t kc, int64_t j0, const float *panel)
{
    const int64_t nc = p->n - j0 < NR ? p->n - j0 : NR;
    float acc[MR][NR];
    for (int64_t i = i0; i < i0 + mc; i += MR) {
        const int64_t mr = i0 + mc - i < MR ? i0 + mc - i : MR;
        const float *a = p->a + i * p->ra + k0 * p->ca;
        if (mr == MR) tile(a, p->ra, p->ca, kc, panel, acc);
        else edge_tile(tile, a, p->ra, p->ca, mr, kc, panel, acc);
        put_tile(p, k0 == 0, i, mr, j0, nc, acc);
    }
}

void qx_matmul_packed(const qx_matmul *p, qx_matmul_pack_fn *pack, const void *user)
{
    tile_fn *tile = best_tile();
    float panel[KC * NR];
    if (p->k == 0 && p->beta == 1.0f) return;
    for (int64_t i0 = 0; i0 < p->m; i0 += MC) /* this much of A stays in the second cache while panels of B pass */
        for (int64_t k0 = 0; k0 == 0 || k0 < p->k; k0 += KC)
            for (int64_t j0 = 0; j0 < p->n; j0 += NR) {
                const int64_t mc = p->m - i0 < MC ? p->m - i0 : MC, kc = p->k - k0 < KC ? p->k - k0 : KC;
                pack(user, k0, kc, j0, p->n - j0 < NR ? p->n - j0 : NR, panel);
                panel_rows(tile, p, i0, mc, k0, kc, j0, panel);
            }
}

void qx_matmul_f32(void *user, const qx_matmul *p)
{
    (void)user;
    qx_matmul_packed(p, pack_panel, p);
}

int64_t qx_matmul_pieces(const qx_matmul *p) { return (p->m + PIECE_ROWS - 1) / PIECE_ROWS; }

void qx_matmul_piece(const qx_matmul *p, int64_t i)
{
    qx_matmul q = *p;
    const int64_t first = i * PIECE_ROWS;
    q.m = p->m - first < PIECE_ROWS ? p->m - first : PIECE_ROWS;
    q.a += first * p->ra, q.c += first * p->ldc;
    qx_matmul_f32(0, &q);
}
