/* gram.c - see gram.h: packing, and the pieces of the work. */
#include "kernels/loops/gram_leaf.h"

#include <string.h>

enum { T = QX_GRAM_TILE, SIDE = 12 }; /* panels of a piece: of 256 rows 200 KB on each side */

void qx_gram_pack(const float *x, int64_t rows, int64_t stride, int64_t cols_left, float *panel)
{
    const size_t n = cols_left < T ? (size_t)cols_left : T;
    for (int64_t r = 0; r < rows && n == T; r++) { /* of a size that the compiler knows: a call for each 64 bytes took longer */
        __builtin_prefetch(x + r * stride + T, 0, 2);
        memcpy(panel + r * T, x + r * stride, T * sizeof *x);
    }
    for (int64_t r = 0; r < rows && n < T; r++) {
        memcpy(panel + r * T, x + r * stride, n * sizeof *x);
        memset(panel + r * T + n, 0, (T - n) * sizeof *x);
    }
}

static int64_t sides(int64_t p) { return (p + SIDE - 1) / SIDE; }

int64_t qx_gram_pieces(int64_t p) { return sides(p) * (sides(p) + 1) / 2; }

static int64_t end_of(int64_t p, int64_t side) { return (side + 1) * SIDE < p ? (side + 1) * SIDE : p; }

void qx_gram_piece(const qx_gram_block *b, int64_t i)
{
    int64_t row = 0;
    for (int64_t n = sides(b->p); i >= n - row; row++) i -= n - row;
    qx_gram_cpu(qx_isa_best())(b, row * SIDE, end_of(b->p, row), (row + i) * SIDE, end_of(b->p, row + i));
}
