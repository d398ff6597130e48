/* observe.c - observation loops in plain C: the reference. */
#include "kernels/observe_leaf.h"

#include <math.h>

#define FN(name) ref_##name
#define TARGET
#include "kernels/observe_loops.h"

static void ref_gram(const float *a, const float *b, int64_t rows, double *tile)
{
    for (int i = 0; i < QX_GRAM_TILE; i++)
        for (int j = 0; j < QX_GRAM_TILE; j++) {
            float s = 0;
            for (int64_t r = 0; r < rows; r++) s = fmaf(a[r * QX_GRAM_TILE + i], b[r * QX_GRAM_TILE + j], s);
            tile[i * QX_GRAM_TILE + j] += s;
        }
}

const qx_observe_leaf *qx_observe_ref(void)
{
    static const qx_observe_leaf leaf = {ref_scan, ref_hist, ref_columns, ref_gram};
    return &leaf;
}
