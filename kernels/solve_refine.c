/* solve_refine.c - coordinate descent on the codes of rows under tr(dW H dW'). Per row: g = H d once (one product for the tile), then each
 * change of a weight by delta moves g by -delta times a row of H. A step goes to the grid value nearest the one-dimensional optimum, so the
 * error never grows; what rounding says about the sum is checked at the end and a row that did not gain is put back. */
#include <string.h>

#include "kernels/multi.h"
#include "kernels/scalar.h"
#include "kernels/solve.h"

typedef struct tile { const qx_refine *r; int64_t k, block, blocks, rows; float lo, hi; float *d, *g, *start; double *before; } tile;

static int64_t block_of(const qx_refine *r) { return r->block > 0 ? r->block : r->k > 0 ? r->k : 1; }

size_t qx_refine_scratch(const qx_refine *r, int64_t rows) { return sizeof(float) * (size_t)(3 * rows * r->k) + sizeof(double) * (size_t)(2 * rows); }

static float nearest(const tile *t, float v, int64_t row, int64_t column)
{
    const int64_t i = row * t->blocks + column / t->block;
    const float s = t->r->scale[i], z = t->r->zero ? (float)t->r->zero[i] : 0.0f, y = v / s;
    switch ((int)t->r->format.codes) {
    case QX_DT_FLOAT8E4M3FN: return qx_mini_round(y, 3, 7, 448.0f) * s;
    case QX_DT_FLOAT8E5M2: return qx_mini_round(y, 2, 15, 57344.0f) * s;
    case QX_DT_FLOAT4E2M1: return qx_mini_round(y, 1, 1, 6.0f) * s;
    default: return qx_rne_clamp(y, t->lo - z, t->hi - z) * s;
    }
}

QX_INLINE void follow_body(int64_t k, float delta, const float *restrict h, float *restrict g)
{
    for (int64_t i = 0; i < k; i++) g[i] -= delta * h[i];
}
QX_MULTI(static, follow, (int64_t k, float delta, const float *h, float *g), (k, delta, h, g))

/* One sweep over the columns of a row; the number of weights that moved. d = w0 - w, g = H d. */
static int64_t sweep(const tile *t, int64_t row, float *w)
{
    float *d = t->d + row * t->k, *g = t->g + row * t->k;
    int64_t moved = 0;
    for (int64_t j = 0; j < t->k; j++) {
        const float hjj = t->r->h[j * t->k + j];
        if (!(hjj > 0) || (t->r->mask && !t->r->mask[row * t->k + j])) continue;
        const float target = w[j] + g[j] / hjj, q = nearest(t, target, row, j), delta = q - w[j];
        const float gain = delta * (2.0f * g[j] - delta * hjj); /* what the error falls by */
        if (delta == 0.0f || !(gain > 0.0f)) continue;
        w[j] = q;
        d[j] -= delta;
        follow(t->k, delta, t->r->h + j * t->k, g);
        moved++;
    }
    return moved;
}

bool qx_refine_rows(const qx_refine *r, const float *w0, float *w, int64_t rows, double *err, void *scratch)
{
    const int64_t n = rows * r->k;
    tile t = {.r = r, .k = r->k, .block = block_of(r), .rows = rows};
    double *e0 = scratch, *e1 = e0 + rows;
    if (!qx_format_range(&r->format, &t.lo, &t.hi) || r->format.codes == QX_DT_FLOAT8E4M3FNUZ || r->format.codes == QX_DT_FLOAT8E5M2FNUZ) return false;
    t.blocks = qx_cells_of(r->k, t.block);
    t.d = (float *)(void *)(e1 + rows), t.g = t.d + n, t.start = t.g + n;
    memcpy(t.start, w, sizeof *w * (size_t)n);
    for (int64_t i = 0; i < n; i++) t.d[i] = w0[i] - w[i];
    qx_quad_errors(t.d, r->h, rows, r->k, e0, t.g, NULL, NULL);
    for (int64_t row = 0; row < rows; row++)
        for (int s = 0; s < (r->sweeps > 0 ? r->sweeps : 4); s++)
            if (sweep(&t, row, w + row * r->k) == 0) break;
    for (int64_t i = 0; i < n; i++) t.d[i] = w0[i] - w[i];
    qx_quad_errors(t.d, r->h, rows, r->k, e1, t.g, NULL, NULL);
    for (int64_t row = 0; row < rows; row++) {
        if (!(e1[row] <= e0[row])) memcpy(w + row * r->k, t.start + row * r->k, sizeof *w * (size_t)r->k);
        if (err) err[row] = e1[row] <= e0[row] ? e1[row] : e0[row];
    }
    return true;
}
