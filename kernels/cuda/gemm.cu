/* gemm.cu - matrix products of our own: any strides and types with f32 sums (what cuBLASLt does not take), integer products, and
 * what stands behind a product: scales, bias and activation. Tiles of 64 x 64 in shared memory; a product's terms are added in
 * order of k by fused multiply-adds. Weights of few bits: codes.cu. */
#include <math.h>

#include "kernels/cuda/act.h"

enum { T = 64, TK = 16, GEMM_THREADS = 256, PER = T * T / GEMM_THREADS }; /* a thread owns a 4 x 4 patch of the tile */

typedef struct tile_at { int64_t m0, n0, xb, wb, yb; } tile_at;

/* The block's tile and the offsets of its batch; ARGS: qk_gemm_args or qk_int8_args. */
#define TILE_OF(name, args)                                                 \
    QX_HD tile_at name(const args *a, int64_t block)                        \
    {                                                                       \
        const int64_t tn = (a->n + T - 1) / T, tm = (a->m + T - 1) / T;     \
        tile_at at = {block / tn % tm * T, block % tn * T, 0, 0, 0};        \
        int64_t b = block / tn / tm;                                        \
        at.yb = b * a->by;                                                  \
        for (int k = a->brank - 1; k >= 0; k--) {                           \
            at.xb += b % a->bdims[k] * a->bx[k];                            \
            at.wb += b % a->bdims[k] * a->bw[k];                            \
            b /= a->bdims[k];                                               \
        }                                                                   \
        return at;                                                          \
    }
TILE_OF(tile_of, qk_gemm_args)
TILE_OF(codes_tile_of, qk_int8_args)

static int64_t tiles_of(int64_t batch, int64_t m, int64_t n) { return batch * ((m + T - 1) / T) * ((n + T - 1) / T); }

/* A call: sixteen copies of it, one for each sum of a thread, would be long. */
QK_APART void gemm_store(const qk_gemm_args *a, const tile_at *at, int64_t m, int64_t n, float sum)
{
    if (m >= a->m || n >= a->n) return;
    float v = a->alpha * sum;
    if (a->col_scale) v *= a->col_scale[a->col_one ? 0 : n];
    if (a->bias) v += qk_real(a->bias, a->btype, n);
    if (a->add) v += a->beta * qk_real(a->add, a->btype, m * a->add_r + n * a->add_c);
    const int64_t i = at->yb + m * a->yr + n * a->yc;
    v = act_of(a->act, v);
    if (a->mul) v *= qk_real(a->mul, a->ytype, i);
    if (a->plus) v += qk_real(a->plus, a->ytype, i);
    qk_put_real(a->y, a->ytype, i, v);
}

QK_KERNEL(gemm_kernel, qk_gemm_args)
{
    const int t = QK_THREAD;
    QK_SHARED(float, xs, TK * T); /* [k][row] */
    QK_SHARED(float, ws, TK * T); /* [k][column] */
    float acc[PER];
    const tile_at at = tile_of(&a, QK_BLOCK);
    QK_UNROLL for (int i = 0; i < PER; i++) acc[i] = 0;
    for (int64_t k0 = 0; k0 < a.k; k0 += TK) {
        for (int e = t; e < TK * T; e += QK_NT) {
            /* neighbours of a warp read along the stride that is 1 */
            const int xk = a.xc == 1 ? e % TK : e / T, xm = a.xc == 1 ? e / TK : e % T, wk = a.wr == 1 ? e % TK : e / T,
                wn = a.wr == 1 ? e / TK : e % T;
            const int64_t m = at.m0 + xm, n = at.n0 + wn;
            xs[xk * T + xm] = m < a.m && k0 + xk < a.k ? qk_get(a.x, a.dtype, at.xb + m * a.xr + (k0 + xk) * a.xc) : 0.0f;
            ws[wk * T + wn] = n < a.n && k0 + wk < a.k ? qk_get(a.w, a.wtype, at.wb + (k0 + wk) * a.wr + n * a.wc) : 0.0f;
        }
        QK_SYNC();
        const int r = t / 16 * 4, c = t % 16 * 4;
        for (int k = 0; k < TK; k++)
            QK_UNROLL for (int i = 0; i < PER; i++) acc[i] = fmaf(xs[k * T + r + i / 4], ws[k * T + c + i % 4], acc[i]);
        QK_SYNC();
    }
    QK_UNROLL for (int i = 0; i < PER; i++) gemm_store(&a, &at, at.m0 + t / 16 * 4 + i / 4, at.n0 + t % 16 * 4 + i % 4, acc[i]);
}
QK_EXTERN int qk_gemm(qk_queue q, const qk_gemm_args *a)
{
    return QK_LAUNCH(gemm_kernel, tiles_of(a->batch, a->m, a->n), GEMM_THREADS, q, a);
}

/* ---- integer codes ---- */

QX_HD int code8(const void *p, int is_unsigned, int64_t i) { return is_unsigned ? ((const uint8_t *)p)[i] : ((const int8_t *)p)[i]; }

QK_APART void int8_store(const qk_int8_args *a, const tile_at *at, int64_t m, int64_t n, int32_t sum)
{
    if (m >= a->m || n >= a->n) return;
    const int64_t i = at->yb + m * a->yr + n * a->yc;
    if (!a->sw) {
        ((int32_t *)a->y)[i] = sum;
        return;
    }
    float v = (float)sum * (a->rows ? a->rows[m] : 1.0f) * a->sw[a->sw_one ? 0 : n];
    if (a->bias) v += qk_real(a->bias, a->btype, n);
    qk_put_real(a->y, a->ytype, i, v);
}

QK_KERNEL(int8_kernel, qk_int8_args)
{
    const int t = QK_THREAD;
    QK_SHARED(int16_t, xs, TK * T);
    QK_SHARED(int16_t, ws, TK * T);
    int32_t acc[PER];
    const tile_at at = codes_tile_of(&a, QK_BLOCK);
    QK_UNROLL for (int i = 0; i < PER; i++) acc[i] = 0;
    for (int64_t k0 = 0; k0 < a.k; k0 += TK) {
        for (int e = t; e < TK * T; e += QK_NT) {
            const int xk = e % TK, xm = e / TK, wk = a.wr == 1 ? e % TK : e / T, wn = a.wr == 1 ? e / TK : e % T;
            const int64_t m = at.m0 + xm, n = at.n0 + wn;
            int x = 0, w = 0;
            if (m < a.m && k0 + xk < a.k)
                x = code8(a.x, a.x_unsigned, at.xb + m * a.k + k0 + xk) - (a.x_zero ? code8(a.x_zero, a.x_unsigned, m % a.x_zeros) : a.zx);
            if (n < a.n && k0 + wk < a.k)
                w = code8(a.w, a.w_unsigned, at.wb + (k0 + wk) * a.wr + n * a.wc) - (a.w_zero
                    ? code8(a.w_zero, a.w_unsigned, n % a.w_zeros) : 0);
            xs[xk * T + xm] = (int16_t)x;
            ws[wk * T + wn] = (int16_t)w;
        }
        QK_SYNC();
        const int r = t / 16 * 4, c = t % 16 * 4;
        for (int k = 0; k < TK; k++)
            QK_UNROLL for (int i = 0; i < PER; i++) acc[i] += xs[k * T + r + i / 4] * ws[k * T + c + i % 4];
        QK_SYNC();
    }
    QK_UNROLL for (int i = 0; i < PER; i++) int8_store(&a, &at, at.m0 + t / 16 * 4 + i / 4, at.n0 + t % 16 * 4 + i % 4, acc[i]);
}
QK_EXTERN int qk_int8_gemm(qk_queue q, const qk_int8_args *a)
{
    return QK_LAUNCH(int8_kernel, tiles_of(a->batch, a->m, a->n), GEMM_THREADS, q, a);
}

QX_HD int32_t zero_of(const qk_scale_args *a) { return a->zx + (a->x_zero ? code8(a->x_zero, a->x_unsigned, 0) : 0); }
QX_HD int32_t without_zero(const qk_scale_args *a, int32_t zero, int64_t i, int64_t n)
{
    const uint32_t acc = (uint32_t)((const int32_t *)a->acc)[i];
    return (int32_t)(a->sums ? acc - (uint32_t)zero * (uint32_t)a->sums[n] : acc);
}

/* Element i, in row m and column n. */
QX_HD float scaled(const qk_scale_args *a, int32_t zero, int64_t i, int64_t m, int64_t n)
{
    float v = a->whole ? (float)without_zero(a, zero, i, n) : ((const float *)a->acc)[i];
    if (a->rows) v *= a->rows[m];
    v *= a->scale[a->one ? 0 : n];
    return a->bias ? v + qk_real(a->bias, a->btype, n) : v;
}

QK_KERNEL(scale_kernel, qk_scale_args)
{
    const int32_t zero = zero_of(&a);
    QK_EACH(piece, a.wide ? a.m * a.n / QK_WIDE : 0) {
        const int64_t i = piece * QK_WIDE, m = i / a.n, n = i - m * a.n;
        float v[QK_WIDE];
        for (int k = 0; k < QK_WIDE; k++) v[k] = scaled(&a, zero, i + k, m, n + k);
        qk_put_real8(a.y, a.ytype, i, v);
    }
    if (a.wide) return;
    QK_EACH(i, a.m * a.n) {
        const int64_t m = i / a.n, n = i - m * a.n;
        if (a.scale) qk_put_real(a.y, a.ytype, i, scaled(&a, zero, i, m, n));
        else ((int32_t *)a.y)[i] = without_zero(&a, zero, i, n);
    }
}
QK_EXTERN int qk_scale_rows(qk_queue q, const qk_scale_args *args)
{
    qk_scale_args a = *args;
    a.wide = a.scale && a.n % QK_WIDE == 0 && qk_is_wide(a.y);
    return QK_LAUNCH(scale_kernel, QK_EACH_BLOCKS(a.wide ? a.m * a.n / QK_WIDE : a.m * a.n), 256, q, &a);
}

QK_KERNEL(sums_kernel, qk_sums_args)
{
    QK_EACH(i, a.n) {
        int32_t s = 0;
        for (int64_t k = 0; k < a.k; k++) s += ((const int8_t *)a.w)[i * a.k + k];
        a.sums[i] = s;
    }
}
QK_EXTERN int qk_row_sums(qk_queue q, const qk_sums_args *a) { return QK_LAUNCH(sums_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

QK_KERNEL(bias_wide_kernel, qk_bias_rows_args)
{
    QK_EACH(piece, a.rows * a.n / QK_WIDE) {
        const int64_t at = piece * QK_WIDE;
        float v[QK_WIDE], u[QK_WIDE];
        qk_real8(a.x, a.dtype, at, v);
        if (a.bias) {
            qk_real8(a.bias, a.btype, at % a.n, u);
            QK_UNROLL for (int i = 0; i < QK_WIDE; i++) v[i] += u[i];
        }
        QK_UNROLL for (int i = 0; i < QK_WIDE; i++) v[i] = act_of(a.act, v[i]);
        if (a.mul) {
            qk_real8(a.mul, a.dtype, at, u);
            QK_UNROLL for (int i = 0; i < QK_WIDE; i++) v[i] *= u[i];
        }
        if (a.plus) {
            qk_real8(a.plus, a.dtype, at, u);
            QK_UNROLL for (int i = 0; i < QK_WIDE; i++) v[i] += u[i];
        }
        qk_put_real8(a.y, a.dtype, at, v);
    }
}

QK_KERNEL(bias_kernel, qk_bias_rows_args)
{
    QK_EACH(i, a.rows * a.n) {
        float v = qk_real(a.x, a.dtype, i);
        if (a.bias) v += qk_real(a.bias, a.btype, i % a.n);
        v = act_of(a.act, v);
        if (a.mul) v *= qk_real(a.mul, a.dtype, i);
        if (a.plus) v += qk_real(a.plus, a.dtype, i);
        qk_put_real(a.y, a.dtype, i, v);
    }
}
QK_EXTERN int qk_bias_act(qk_queue q, const qk_bias_rows_args *a)
{
    if (a->n % QK_WIDE == 0 && qk_is_wide(a->x) && qk_is_wide(a->bias) && qk_is_wide(a->mul) && qk_is_wide(a->plus) && qk_is_wide(a->y))
        return QK_LAUNCH(bias_wide_kernel, QK_EACH_BLOCKS(a->rows * a->n / QK_WIDE), 256, q, a);
    return QK_LAUNCH(bias_kernel, QK_EACH_BLOCKS(a->rows * a->n), 256, q, a);
}
