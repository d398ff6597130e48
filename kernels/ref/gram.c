/* gram.c - Gram tiles in plain C: the reference. */
#include <math.h>

#include "kernels/loops/gram_leaf.h"

enum { T = QX_GRAM_TILE };

static void add_tile(const float *a, const float *b, int64_t rows, double *tile)
{
    for (int i = 0; i < T; i++)
        for (int j = 0; j < T; j++) {
            float s = 0;
            for (int64_t r = 0; r < rows; r++) s = fmaf(a[r * T + i], b[r * T + j], s);
            tile[i * T + j] += (double)s;
        }
}

void qx_gram_ref(const qx_gram_block *b, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    for (int64_t i = i0; i < i1; i++)
        for (int64_t j = i > j0 ? i : j0; j < j1; j++) add_tile(qx_gram_panel(b, i), qx_gram_panel(b, j), b->rows, qx_gram_tile(b, i, j));
}
