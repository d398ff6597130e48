/* winograd.c - see winograd.h. With points 0, a, -a, b, -b and infinity, M(x) = x (x^2 - a^2) (x^2 - b^2): a row of the pictures'
 * matrix holds the coefficients of M(x) / (x - p), one of the weights' matrix 1, p, p^2 by M'(p), a column of the results' matrix
 * the powers of p. */
#include "kernels/winograd.h"

#include <string.h>

#include "kernels/gemm.h"
#include "kernels/loops/multi.h"

enum { LANES = QX_WINO_LANES, IN = 6, OUT = QX_WINO_TILE };
#define PA 0.625f
#define PB 1.5f
#define A2 (PA * PA)
#define B2 (PB * PB)

/* ---- Weights ---- */

/* Of the weights of QX_GEMM_NR outputs side by side: divisions are most of it, and a vector takes as long as a number. */
QX_INLINE void weights_pass(const double *restrict g, int step, double *restrict u, int ustep)
{
    const double a = (double)PA, b = (double)PB, na = 2 * a * a * (a * a - b * b), nb = 2 * b * b * (b * b - a * a);
    for (int l = 0; l < QX_GEMM_NR; l++) {
        const double g0 = g[l], g1 = g[step + l], g2 = g[2 * step + l];
        u[l] = g0 / (a * a * b * b);
        u[ustep + l] = (g0 + a * g1 + a * a * g2) / na;
        u[2 * ustep + l] = (g0 - a * g1 + a * a * g2) / na;
        u[3 * ustep + l] = (g0 + b * g1 + b * b * g2) / nb;
        u[4 * ustep + l] = (g0 - b * g1 + b * b * g2) / nb;
        u[5 * ustep + l] = g2;
    }
}

QX_INLINE void qx_wino_panel_body(const float *w, int64_t in, int64_t out, int64_t first, float *to, int64_t stride)
{
    enum { NR = QX_GEMM_NR };
    double g[9 * NR] = {0}, t[18 * NR], u[QX_WINO_POINTS * NR];
    const int64_t n = out - first < NR ? out - first : NR;
    for (int64_t i = 0; i < in; i++) {
        for (int64_t j = 0; j < n; j++)
            for (int k = 0; k < 9; k++) g[k * NR + j] = (double)w[((first + j) * in + i) * 9 + k];
        for (int x = 0; x < 3; x++) weights_pass(g + x * NR, 3 * NR, t + x * NR, 3 * NR);
        for (int y = 0; y < IN; y++) weights_pass(t + 3 * y * NR, NR, u + IN * y * NR, NR);
        for (int p = 0; p < QX_WINO_POINTS; p++)
            for (int l = 0; l < NR; l++) to[p * stride + i * NR + l] = (float)u[p * NR + l];
    }
}
QX_MULTI(, qx_wino_panel, (const float *w, int64_t in, int64_t out, int64_t first, float *to, int64_t stride),
         (w, in, out, first, to, stride))

/* ---- Pictures ---- */

/* Between the picture and tile[size][size][LANES]: `run` channels side by side, of the pixels from (y, x) on that exist. */
QX_INLINE void move_run(const qx_wino_picture *p, int64_t first, int64_t y, int64_t x, int size, float *tile, size_t run, bool store)
{
    const int64_t y0 = y < 0 ? -y : 0, x0 = x < 0 ? -x : 0, y1 = p->height - y < size ? p->height - y : size,
        x1 = p->width - x < size ? p->width - x : size;
    float *from = p->data + first / p->block * p->plane + first % p->block;
    for (int64_t i = y0; i < y1; i++)
        for (int64_t j = x0; j < x1; j++) {
            float *pixel = from + (y + i) * p->row + (x + j) * p->pixel, *t = tile + (i * size + j) * LANES;
            if (store) memcpy(pixel, t, run * sizeof *t);
            else memcpy(t, pixel, run * sizeof *t);
        }
}

/* The same of n channels that are pictures of their own. */
QX_INLINE void move_planes(const qx_wino_picture *p, int64_t first, int64_t n, int64_t y, int64_t x, int size, float *tile, bool store)
{
    const int64_t y0 = y < 0 ? -y : 0, x0 = x < 0 ? -x : 0, y1 = p->height - y < size ? p->height - y : size,
        x1 = p->width - x < size ? p->width - x : size;
    for (int64_t c = 0; c < n; c++)
        for (int64_t i = y0; i < y1; i++) {
            float *row = p->data + (first + c) * p->plane + (y + i) * p->row + x, *t = tile + i * size * LANES + c;
            if (store) for (int64_t j = x0; j < x1; j++) row[j] = t[j * LANES];
            else for (int64_t j = x0; j < x1; j++) t[j * LANES] = row[j];
        }
}

QX_INLINE void move_tile(const qx_wino_picture *p, int64_t first, int64_t y, int64_t x, int size, float *tile, bool store)
{
    const int64_t n = p->channels - first < LANES ? p->channels - first : LANES;
    if (n == LANES && p->block >= LANES) {
        move_run(p, first, y, x, size, tile, LANES, store);
        return;
    }
    if (p->block == 1) {
        move_planes(p, first, n, y, x, size, tile, store);
        return;
    }
    for (int64_t c = 0, run; c < n; c += run) {
        run = n - c < p->block ? n - c : p->block;
        if (run == LANES / 2) move_run(p, first + c, y, x, size, tile + c, LANES / 2, store);
        else move_run(p, first + c, y, x, size, tile + c, (size_t)run, store);
    }
}

/* One direction of the transformation of a picture: six numbers, `step` apart, of all lanes. */
QX_INLINE void in_pass(const float *restrict s, int64_t step, float *restrict d, int64_t dstep)
{
    for (int l = 0; l < LANES; l++) {
        const float s0 = s[l], s1 = s[step + l], s2 = s[2 * step + l], s3 = s[3 * step + l], s4 = s[4 * step + l], s5 = s[5 * step + l];
        const float p = s4 - B2 * s2, q = PA * (s3 - B2 * s1), r = s4 - A2 * s2, t = PB * (s3 - A2 * s1);
        d[l] = A2 * B2 * s0 - (A2 + B2) * s2 + s4;
        d[dstep + l] = p + q;
        d[2 * dstep + l] = p - q;
        d[3 * dstep + l] = r + t;
        d[4 * dstep + l] = r - t;
        d[5 * dstep + l] = A2 * B2 * s1 - (A2 + B2) * s3 + s5;
    }
}

QX_INLINE void qx_wino_in_body(const qx_wino_picture *p, int64_t first, int64_t y, int64_t x, float *to, int64_t stride)
{
    float tile[QX_WINO_POINTS * LANES], t[QX_WINO_POINTS * LANES];
    const bool whole = y >= 0 && x >= 0 && y + IN <= p->height && x + IN <= p->width && first + LANES <= p->channels && p->block >= LANES;
    if (whole) {
        const float *from = p->data + first / p->block * p->plane + first % p->block + y * p->row + x * p->pixel;
        for (int i = 0; i < IN; i++) in_pass(from + i * p->pixel, p->row, t + i * LANES, IN * LANES);
    } else {
        memset(tile, 0, sizeof tile);
        move_tile(p, first, y, x, IN, tile, false);
        for (int i = 0; i < IN; i++) in_pass(tile + i * LANES, IN * LANES, t + i * LANES, IN * LANES);
    }
    for (int i = 0; i < IN; i++) in_pass(t + i * IN * LANES, LANES, to + i * IN * stride, stride);
}
QX_MULTI(, qx_wino_in, (const qx_wino_picture *p, int64_t first, int64_t y, int64_t x, float *to, int64_t stride),
         (p, first, y, x, to, stride))

/* ---- Results ---- */

QX_INLINE void out_pass(const float *restrict s, int64_t step, float *restrict d, int64_t dstep)
{
    for (int l = 0; l < LANES; l++) {
        const float s1 = s[step + l], s2 = s[2 * step + l], s3 = s[3 * step + l], s4 = s[4 * step + l];
        const float a = s1 + s2, b = s1 - s2, c = s3 + s4, e = s3 - s4;
        d[l] = s[l] + a + c;
        d[dstep + l] = PA * b + PB * e;
        d[2 * dstep + l] = A2 * a + B2 * c;
        d[3 * dstep + l] = A2 * PA * b + B2 * PB * e + s[5 * step + l];
    }
}

QX_INLINE void qx_wino_out_body(const float *from, int64_t stride, float *pixels)
{
    float t[OUT * IN * LANES];
    for (int i = 0; i < IN; i++) out_pass(from + i * stride, IN * stride, t + i * LANES, IN * LANES);
    for (int i = 0; i < OUT; i++) out_pass(t + i * IN * LANES, LANES, pixels + i * OUT * LANES, LANES);
}
QX_MULTI(, qx_wino_out, (const float *from, int64_t stride, float *pixels), (from, stride, pixels))

QX_INLINE void qx_wino_add_body(float *pixels, const qx_wino_picture *p, int64_t first, int64_t y, int64_t x)
{
    float other[QX_WINO_PIXELS * LANES] = {0};
    move_tile(p, first, y, x, OUT, other, false);
    for (int i = 0; i < QX_WINO_PIXELS * LANES; i++) pixels[i] += other[i];
}
QX_MULTI(, qx_wino_add, (float *pixels, const qx_wino_picture *p, int64_t first, int64_t y, int64_t x), (pixels, p, first, y, x))

QX_INLINE void qx_wino_store_body(const float *pixels, const qx_wino_picture *p, int64_t first, int64_t y, int64_t x)
{
    move_tile(p, first, y, x, OUT, (float *)(uintptr_t)pixels, true);
}
QX_MULTI(, qx_wino_store, (const float *pixels, const qx_wino_picture *p, int64_t first, int64_t y, int64_t x), (pixels, p, first, y, x))
