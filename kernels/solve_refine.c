/* solve_refine.c - coordinate descent on the codes of rows under tr(dW H dW'). Per row: g = H d once (one product for the tile), then each
 * change of a weight by delta moves g by -delta times a row of H. A step goes to the grid value nearest the one-dimensional optimum, so the
 * error never grows; what rounding says about the sum is checked at the end and a row that did not gain is put back. Between sweeps a scale is one
 * more coordinate: along w_b, the weights of its block, the least error lies at w_b'g / (w_b' H w_b). */
#include <string.h>

#include "kernels/multi.h"
#include "kernels/scalar.h"
#include "kernels/solve.h"

typedef struct tile { const qx_refine *r; int64_t k, block, blocks, rows; float lo, hi; float *d, *g, *v, *start, *start_scale; } tile;

static int64_t block_of(const qx_refine *r) { return r->block > 0 ? r->block : r->k > 0 ? r->k : 1; }

size_t qx_refine_scratch(const qx_refine *r, int64_t rows) { return sizeof(float) * (size_t)(5 * rows * r->k) + sizeof(double) * (size_t)(2 * rows); }

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

/* The scale of block b of a row, when a better one can be stored; v = w_b H. */
static bool better_scale(const tile *t, int64_t row, int64_t b, const float *w, const float *v, float *out)
{
    const int64_t end = (b + 1) * t->block < t->k ? (b + 1) * t->block : t->k;
    const float *g = t->g + row * t->k, s = t->r->scale[row * t->blocks + b], global = t->r->global > 0 ? t->r->global : 1.0f;
    double slope = 0, bend = 0;
    for (int64_t j = b * t->block; j < end; j++) slope += (double)w[j] * (double)g[j], bend += (double)w[j] * (double)v[j];
    if (!(bend > 0)) return false;
    *out = global * qx_scale_stored(&t->r->format, (float)((double)(s / global) * (1 + slope / bend)), NULL);
    const double by = (double)*out / (double)s - 1;
    return by * (2 * slope - by * bend) > 0; /* what the error falls by */
}

static void rescale_block(const tile *t, int64_t b, float *w)
{
    const int64_t first = b * t->block, width = first + t->block < t->k ? t->block : t->k - first;
    const qx_matmul p = {t->rows, t->k, width, w + first, t->k, 1, t->r->h + first * t->k, t->k, 1, t->v, t->k, 1.0f, 0.0f};
    (t->r->mm ? t->r->mm : qx_matmul_f32)(t->r->user, &p);
    for (int64_t row = 0; row < t->rows; row++) {
        float *wr = w + row * t->k, *s = &t->r->scale[row * t->blocks + b], better;
        if (!better_scale(t, row, b, wr, t->v + row * t->k, &better)) continue;
        const float by = better / *s;
        *s = better;
        for (int64_t j = first; j < first + width; j++) {
            const float q = nearest(t, wr[j] * by, row, j);
            t->d[row * t->k + j] -= q - wr[j];
            wr[j] = q;
        }
        follow(t->k, by - 1.0f, t->v + row * t->k, t->g + row * t->k);
    }
}

static void put_back(const tile *t, int64_t row, float *w)
{
    memcpy(w + row * t->k, t->start + row * t->k, sizeof *w * (size_t)t->k);
    memcpy(t->r->scale + row * t->blocks, t->start_scale + row * t->blocks, sizeof *w * (size_t)t->blocks);
}

bool qx_refine_rows(const qx_refine *r, const float *w0, float *w, int64_t rows, double *err, void *scratch)
{
    const int64_t n = rows * r->k;
    const int sweeps = r->sweeps > 0 ? r->sweeps : 4;
    tile t = {.r = r, .k = r->k, .block = block_of(r), .rows = rows};
    double *e0 = scratch, *e1 = e0 + rows;
    if (!qx_format_range(&r->format, &t.lo, &t.hi) || r->format.codes == QX_DT_FLOAT8E4M3FNUZ || r->format.codes == QX_DT_FLOAT8E5M2FNUZ) return false;
    t.blocks = qx_cells_of(r->k, t.block);
    t.d = (float *)(void *)(e1 + rows), t.g = t.d + n, t.v = t.g + n, t.start = t.v + n, t.start_scale = t.start + n;
    memcpy(t.start, w, sizeof *w * (size_t)n);
    memcpy(t.start_scale, r->scale, sizeof *w * (size_t)(rows * t.blocks));
    for (int64_t i = 0; i < n; i++) t.d[i] = w0[i] - w[i];
    qx_quad_errors(t.d, r->h, rows, r->k, e0, t.g, r->mm, r->user);
    for (int s = 0; s < sweeps; s++) {
        int64_t moved = 0;
        for (int64_t b = 0; r->rescale && s > 0 && b < t.blocks; b++) rescale_block(&t, b, w);
        for (int64_t row = 0; row < rows; row++) moved += sweep(&t, row, w + row * r->k);
        if (!moved) break;
    }
    for (int64_t i = 0; i < n; i++) t.d[i] = w0[i] - w[i];
    qx_quad_errors(t.d, r->h, rows, r->k, e1, t.g, r->mm, r->user);
    for (int64_t row = 0; row < rows; row++) {
        if (!(e1[row] <= e0[row])) put_back(&t, row, w);
        if (err) err[row] = e1[row] <= e0[row] ? e1[row] : e0[row];
    }
    return true;
}
