/* gram.cu - Gram matrices X'X on matrix units: tiles of 64 x 64 at and above the diagonal only, one block each. f16 and bf16 are
 * numbers of TF32 as they are. f32 is split into two of them, x = hi + lo, and hi hi + hi lo + lo hi is f32 in all but name
 * (2^-22 a product; "3xTF32", CUTLASS example 27). Sums of 512 rows are f32, those of such blocks f64, as on the CPU
 * (kernels/observe.h). */
#include "kernels/cuda/mma.h"

enum { TILE = 64, ROWS = 16, LD = TILE + 8, WARPS = 4, THREADS = WARPS * 32, BLOCK_ROWS = 512, M_TILES = 2, N_TILES = 4,
       OWN = M_TILES * N_TILES * 4 };
/* LD: the four rows and eight columns of a fragment lie in 32 different banks. A warp has 32 x 32 of the tile: M_TILES x N_TILES
 * products of the instruction. */

typedef struct gram_place { int64_t i0, j0; } gram_place;
QX_HD gram_place gram_place_of(int64_t k, int64_t block)
{
    const int64_t tiles = (k + TILE - 1) / TILE;
    int64_t i = 0;
    for (; block >= tiles - i; i++) block -= tiles - i;
    const gram_place p = {i * TILE, (i + block) * TILE};
    return p;
}

/* Rows r0 .. of columns c0 .. into [ROWS][LD], zeros where there is nothing. */
QX_HD void gram_load(float *to, const qk_gram_args *a, int64_t r0, int64_t c0, int t)
{
    if (a->wide) {
        for (int e = t * QK_WIDE; e < ROWS * TILE; e += THREADS * QK_WIDE) {
            const int64_t r = r0 + e / TILE, c = c0 + e % TILE;
            float v[QK_WIDE] = {0, 0, 0, 0, 0, 0, 0, 0};
            if (r < a->rows && c < a->k) qk_real8(a->x, a->dtype, r * a->k + c, v);
            for (int i = 0; i < QK_WIDE; i++) to[e / TILE * LD + e % TILE + i] = v[i];
        }
        return;
    }
    for (int e = t; e < ROWS * TILE; e += THREADS) {
        const int64_t r = r0 + e / TILE, c = c0 + e % TILE;
        to[e / TILE * LD + e % TILE] = r < a->rows && c < a->k ? qk_get(a->x, a->dtype, r * a->k + c) : 0.0f;
    }
}

/* To TF32's 11 bits, half away from zero. */
QX_HD uint32_t tf32_of(float x) { return (qx_bits_of(x) + 0x1000u) & 0xffffe000u; }

/* Element of the tile as operand: hi, or what it leaves over. */
QX_HD uint32_t gram_part(float x, int low) { return low ? tf32_of(x - qx_of_bits(tf32_of(x))) : tf32_of(x); }

/* Registers of the warp's left (rows of the result: 16 a product, two columns of registers) or right operand: columns `at` + ...
 * of rows k .. k + 7 of the tile. */
QK_INSIDE void gram_left(uint32_t *r, const float *x, int k, int at, int lane, int low)
{
    QK_UNROLL for (int i = 0; i < M_TILES * 4; i++) r[i] =
        gram_part(x[(k + lane % 4 + i % 4 / 2 * 4) * LD + at + i / 4 * 16 + lane / 4 + i % 2 * 8], low);
}
QK_INSIDE void gram_right(uint32_t *r, const float *x, int k, int at, int lane, int low)
{
    QK_UNROLL for (int i = 0; i < N_TILES * 2; i++) r[i] = gram_part(x[(k + lane % 4 + i % 2 * 4) * LD + at + i / 2 * 8 + lane / 4], low);
}

QK_INSIDE void gram_body(const qk_gram_args *a, const int split)
{
    const int t = QK_THREAD;
    QK_SHARED(float, xi, ROWS * LD);
    QK_SHARED(float, xj, ROWS * LD);
    float acc[OWN];
    uint32_t left[M_TILES * 4], right[N_TILES * 2];
    const gram_place w = gram_place_of(a->k, QK_BLOCK);
    for (int64_t b0 = 0; b0 < a->rows; b0 += BLOCK_ROWS) {
        const int64_t end = b0 + BLOCK_ROWS < a->rows ? b0 + BLOCK_ROWS : a->rows;
        QK_UNROLL for (int i = 0; i < OWN; i++) acc[i] = 0;
        for (int64_t r0 = b0; r0 < end; r0 += ROWS) {
            QK_SYNC(); /* everybody is done with the last rows */
            gram_load(xi, a, r0, w.i0, t);
            gram_load(xj, a, r0, w.j0, t);
            QK_SYNC();
            for (int step = 0; step < ROWS / 8; step++)
                QK_UNROLL for (int part = 0; part < (split ? 3 : 1); part++) { /* hi hi, lo hi, hi lo */
                    gram_left(left, xi, step * 8, t / 64 * 32, t % 32, part == 1);
                    gram_right(right, xj, step * 8, t / 32 % 2 * 32, t % 32, part == 2);
                    QK_UNROLL for (int i = 0; i < M_TILES * N_TILES; i++) mma(QK_F32, acc + 4 * i, left + i / N_TILES * 4,
                        right + i % N_TILES * 2);
                }
        }
        QK_UNROLL for (int e = 0; e < OWN; e++) {
            const int64_t i = w.i0 + t / 64 * 32 + e / 4 / N_TILES * 16 + t % 32 / 4 + e % 4 / 2 * 8,
                j = w.j0 + t / 32 % 2 * 32 + e / 4 % N_TILES * 8 + t % 4 * 2 + e % 2;
            if (i < a->k && j < a->k) a->gram[i * a->k + j] += (double)acc[e];
        }
    }
}

QK_KERNEL_RESIDENT(gram_kernel, qk_gram_args, THREADS, 4) { gram_body(&a, 0); }
QK_KERNEL_RESIDENT(gram_split_kernel, qk_gram_args, THREADS, 4) { gram_body(&a, 1); }
QK_EXTERN int qk_gram(qk_queue q, const qk_gram_args *args)
{
    qk_gram_args a = *args;
    const int64_t tiles = (a.k + TILE - 1) / TILE;
    const int halves = a.dtype == QK_F16 || a.dtype == QK_BF16;
    a.wide = qk_is_real(a.dtype) && a.k % QK_WIDE == 0 && qk_is_wide(a.x);
    if (!halves) return QK_LAUNCH(gram_split_kernel, tiles * (tiles + 1) / 2, THREADS, q, &a);
    return QK_LAUNCH(gram_kernel, tiles * (tiles + 1) / 2, THREADS, q, &a);
}
