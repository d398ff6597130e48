/* codes.cu - products with weights of 2, 4 or 8 bits that stay codes in memory. Few rows (decoding) are bound by reading them, so
 * each is read once and in wide loads: 4-bit codes by f16 and bf16 on matrix units, everything else in f32. Many rows expand the
 * weight once and multiply it as any other. */
#include <math.h>

#include "kernels/cuda/act.h"
#include "kernels/cuda/mma.h"

QX_HD int codes_bits(int dt) { return dt == QK_I4 || dt == QK_U4 ? 4 : dt == QK_I2 || dt == QK_U2 ? 2 : 8; }

/* Where scale and zero point of a weight are, and the zero point. */
typedef struct scale_place { int64_t block, at; } scale_place;
QX_HD scale_place scale_of(const qk_codes_args *a, int64_t n, int64_t k)
{
    /* k and block are within 31 bits: divisions of 32 are several times faster */
    const int64_t block = a->block ? (uint32_t)k / (uint32_t)a->block : 0;
    const scale_place p = {block, n * a->s_n + block * a->s_k};
    return p;
}

QX_HD int64_t zero_of(const qk_codes_args *a, int64_t n, scale_place p)
{
    if (!a->zero) return a->bias_zero;
    const int bits = codes_bits(a->ctype);
    return a->z_row_bits ? (int64_t)qk_nibble((const uint8_t *)a->zero + n * (a->z_row_bits / 8), bits, p.block)
        : qk_int(a->zero, a->ctype, p.at);
}

/* Codes of column n when they are neighbours (nk), from its first on. */
QX_HD const uint8_t *codes_of(const qk_codes_args *a, int64_t n)
{
    return (const uint8_t *)a->codes + n * (a->row_bytes ? a->row_bytes : a->k * codes_bits(a->ctype) / 8);
}

QX_HD float weight_at(const qk_codes_args *a, int64_t n, int64_t k)
{
    const scale_place p = scale_of(a, n, k);
    const void *row = (const uint8_t *)a->codes + n * a->row_bytes;
    const int64_t i = a->row_bytes ? k : a->nk ? n * a->k + k : k * a->n + n;
    return (float)(qk_int(row, a->ctype, i) - zero_of(a, n, p)) * qk_real(a->scale, a->stype, p.at);
}

/* Weights k .. k + 7 of column n: in one block, and their codes in one load (codes_are_wide). */
QK_INSIDE void weights8(const qk_codes_args *a, int64_t n, int64_t k, float *v)
{
    const int bits = codes_bits(a->ctype);
    const scale_place p = scale_of(a, n, k);
    const uint8_t *at = codes_of(a, n) + k * bits / 8;
    /* the sign: to codes from 0 on */
    const uint32_t flip = a->ctype == QK_I8 || a->ctype == QK_I4 || a->ctype == QK_I2 ? 1u << (bits - 1) : 0;
    const float zero = (float)(zero_of(a, n, p) + flip), s = qk_real(a->scale, a->stype, p.at);
    uint64_t r = bits == 2 ? *(const uint16_t *)(const void *)at : bits == 4 ? *(const uint32_t *)(const void *)at
        : *(const uint64_t *)(const void *)at;
    QK_UNROLL for (int i = 0; i < QK_WIDE; i++, r >>= bits) v[i] = ((float)(((uint32_t)r & ((1u << bits) - 1u)) ^ flip) - zero) * s;
}

/* Pieces of eight: rows of whole pieces that begin where a load may, and blocks of them. */
static int codes_are_wide(const qk_codes_args *a)
{
    return a->nk && a->k % QK_WIDE == 0 && a->block % QK_WIDE == 0 && a->row_bytes % QK_WIDE == 0 && qk_is_wide(a->codes) &&
        (!a->x || qk_is_wide(a->x));
}

QX_HD void codes_store(const qk_codes_args *a, int64_t m, int64_t n, float sum)
{
    if (m >= a->m || n >= a->n) return;
    if (a->bias) sum += qk_real(a->bias, a->btype, n);
    qk_put_real(a->y, a->dtype, m * a->n + n, act_of(a->act, sum));
}

/* ---- any codes: a warp has two columns and walks along k with pieces of EACH elements ---- */

enum { WARPS = 8, LANES = 32, THREADS = WARPS * LANES, GEMV_ROWS = 8, WARP_COLS = 2, GEMV_COLS = WARPS * WARP_COLS };

QK_INSIDE void gemv_body(const qk_codes_args *a, const int EACH)
{
    const int t = QK_THREAD;
    QK_SHARED(float, red, GEMV_ROWS * WARP_COLS * THREADS);
    const int64_t blocks_n = (a->n + GEMV_COLS - 1) / GEMV_COLS, n0 = QK_BLOCK % blocks_n * GEMV_COLS, m0 = QK_BLOCK / blocks_n * GEMV_ROWS;
    const int64_t n = n0 + t / LANES * WARP_COLS;
    float sum[GEMV_ROWS * WARP_COLS], w[WARP_COLS][QK_WIDE], x[QK_WIDE];
    QK_UNROLL for (int i = 0; i < GEMV_ROWS * WARP_COLS; i++) sum[i] = 0;
    for (int64_t k = t % LANES * EACH; n < a->n && k < a->k; k += LANES * EACH) {
        QK_UNROLL for (int c = 0; c < WARP_COLS; c++) {
            const int64_t col = n + c < a->n ? n + c : n; /* a column beyond the last one is not stored */
            if (EACH == 1) w[c][0] = weight_at(a, col, k);
            else weights8(a, col, k, w[c]);
        }
        QK_UNROLL for (int r = 0; r < GEMV_ROWS; r++) {
            if (m0 + r >= a->m) continue;
            if (EACH == 1) x[0] = qk_real(a->x, a->dtype, (m0 + r) * a->k + k);
            else qk_real8(a->x, a->dtype, (m0 + r) * a->k + k, x);
            QK_UNROLL for (int c = 0; c < WARP_COLS; c++)
                QK_UNROLL for (int i = 0; i < EACH; i++) sum[r * WARP_COLS + c] = fmaf(x[i], w[c][i], sum[r * WARP_COLS + c]);
        }
    }
    QK_UNROLL for (int i = 0; i < GEMV_ROWS * WARP_COLS; i++) red[i * THREADS + t] = sum[i];
    QK_SYNC();
    if (t < GEMV_ROWS * GEMV_COLS) {
        const int r = t / GEMV_COLS, c = t % GEMV_COLS;
        const float *of = red + (r * WARP_COLS + c % WARP_COLS) * THREADS + c / WARP_COLS * LANES;
        float s = 0;
        for (int lane = 0; lane < LANES; lane++) s += of[(lane + t) % LANES]; /* threads begin at different banks; each always at its own */
        codes_store(a, m0 + r, n0 + c, s);
    }
}

QK_KERNEL(gemv_kernel, qk_codes_args) { gemv_body(&a, 1); }
QK_KERNEL(gemv_wide_kernel, qk_codes_args) { gemv_body(&a, QK_WIDE); }

/* ---- 4-bit codes by f16 or bf16 on matrix units ---- */

/* A block has 16 columns of the weight (the instruction's rows) and 8 rows of x; its warps take turns along k in pieces of 128. A
 * lane reads 32 neighbouring codes of two columns and the 32 elements of x that meet them: the order of k within a product does
 * not matter as long as both sides have the same. Codes become numbers as in FasterTransformer's and Marlin's kernels: a code in
 * the low bits of 1024 (128 for bf16) is that number plus the code; less the zero point it is exact, and times the scale it is
 * rounded once, to what DequantizeLinear gives in that type. */
enum { TILE_N = 16, TILE_M = 8, LANE_K = 32, WARP_K = 4 * LANE_K, AHEAD = 2, TILE_OUT = TILE_N * TILE_M };

/* Two numbers in a register: a b + c. */
QX_HD uint32_t pair_fma(int bf, uint32_t a, uint32_t b, uint32_t c)
{
#ifdef __CUDA_ARCH__
    uint32_t d;
    if (bf) asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    else asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#else
    uint32_t d = 0;
    for (int i = 0; i < 32; i += 16) {
        const uint16_t u = (uint16_t)(a >> i), v = (uint16_t)(b >> i), w = (uint16_t)(c >> i);
        const float s = bf ? fmaf(qx_sc_bf16_to_f32(u), qx_sc_bf16_to_f32(v), qx_sc_bf16_to_f32(w))
            : fmaf(qx_sc_f16_to_f32(u), qx_sc_f16_to_f32(v), qx_sc_f16_to_f32(w));
        d |= (uint32_t)(bf ? qx_sc_f32_to_bf16(s) : qx_sc_f32_to_f16(s)) << i;
    }
    return d;
#endif
}

/* How a lane's codes of one column become numbers. */
typedef struct pair_scale { uint32_t zero, scale; } pair_scale;
QX_HD pair_scale pair_scale_of(const qk_codes_args *a, int bf, int64_t n, int64_t k)
{
    const scale_place p = scale_of(a, n, k);
    const float nil = (bf ? 128.0f : 1024.0f) + (float)(zero_of(a, n, p) + (a->ctype == QK_I4 ? 8 : 0));
    const uint32_t z = bf ? qk_f32_to_bf16(-nil) : qk_f32_to_f16(-nil), s = ((const uint16_t *)a->scale)[p.at];
    const pair_scale r = {z | z << 16, s | s << 16};
    return r;
}

/* Codes i and i + 4 of the eight in w. */
QX_HD uint32_t pair_of(int bf, uint32_t w, int i, pair_scale p)
{
    const uint32_t one = bf ? 0x3f803f80u : 0x3c003c00u, magic = bf ? 0x43004300u : 0x64006400u, minus_nil = 0x80008000u;
    return pair_fma(bf, pair_fma(bf, (w >> (4 * i) & 0x000f000fu) | magic, one, p.zero), p.scale, minus_nil);
}

/* Elements i and i + 4 of the eight in x[0 .. 3]. */
QX_HD uint32_t x_pair(const uint32_t *x, int i)
{
    const uint32_t low = x[i / 2], high = x[i / 2 + 2];
    return i % 2 ? low >> 16 | (high & 0xffff0000u) : (low & 0xffffu) | high << 16;
}

/* Eight elements of row m from k on; zeros where there are none. */
QX_HD void load_x(const qk_codes_args *a, int64_t m, int64_t k, uint32_t *x)
{
    x[0] = x[1] = x[2] = x[3] = 0;
    if (m < a->m && k < a->k) qk_load16((const uint16_t *)a->x + m * a->k + k, x);
}

QK_INSIDE void codes_mma_body(const qk_codes_args *a, const int bf)
{
    const int t = QK_THREAD;
    QK_SHARED(float, red, WARPS * TILE_OUT);
    float acc[4];
    uint32_t wv[AHEAD * 8]; /* of a step: four words of column g, four of column g + 8 */
    pair_scale sv[AHEAD * 2];
    uint32_t xv[4], av[4], bv[2];
    const int64_t tiles = (a->n + TILE_N - 1) / TILE_N, n0 = QK_BLOCK % tiles * TILE_N, m0 = QK_BLOCK / tiles * TILE_M;
    const uint32_t flip = a->ctype == QK_I4 ? 0x88888888u : 0;
    QK_UNROLL for (int i = 0; i < 4; i++) acc[i] = 0;
    for (int64_t k0 = 0; k0 < a->k; k0 += WARPS * WARP_K * AHEAD) {
        QK_UNROLL for (int s = 0; s < AHEAD; s++) {
            const int64_t k = k0 + (s * WARPS + t / LANES) * WARP_K + t % 4 * LANE_K;
            QK_UNROLL for (int h = 0; h < 2; h++) {
                const int64_t n = n0 + t % LANES / 4 + 8 * h;
                uint32_t *w = wv + s * 8 + h * 4;
                w[0] = w[1] = w[2] = w[3] = 0;
                sv[s * 2 + h].zero = sv[s * 2 + h].scale = 0;
                if (n >= a->n || k >= a->k) continue;
                qk_load16(codes_of(a, n) + k / 2, w);
                sv[s * 2 + h] = pair_scale_of(a, bf, n, k);
            }
        }
        QK_UNROLL for (int s = 0; s < AHEAD; s++) {
            QK_UNROLL for (int i = 0; i < 8; i++) { /* word i / 2 of the step, half i % 2 of its pairs */
                const int word = i / 2, pair = i % 2 * 2;
                if (pair == 0) load_x(a, m0 + t % LANES / 4, k0 + (s * WARPS + t / LANES) * WARP_K + t % 4 * LANE_K + 8 * word, xv);
                QK_UNROLL for (int r = 0; r < 4; r++) av[r] = pair_of(bf, wv[s * 8 + r % 2 * 4 + word] ^ flip, pair + r / 2,
                                                                      sv[s * 2 + r % 2]);
                QK_UNROLL for (int r = 0; r < 2; r++) bv[r] = x_pair(xv, pair + r);
                mma(bf ? QK_BF16 : QK_F16, acc, av, bv);
            }
        }
    }
    QK_UNROLL for (int i = 0; i < 4; i++) red[t / LANES * TILE_OUT + (t % 4 * 2 + i % 2) * TILE_N + t % LANES / 4 + i / 2 * 8] = acc[i];
    QK_SYNC();
    if (t < TILE_OUT) {
        float s = 0;
        for (int w = 0; w < WARPS; w++) s += red[w * TILE_OUT + t];
        codes_store(a, m0 + t / TILE_N, n0 + t % TILE_N, s);
    }
}

QK_KERNEL_RESIDENT(codes_f16_kernel, qk_codes_args, THREADS, 3) { codes_mma_body(&a, 0); }
QK_KERNEL_RESIDENT(codes_bf16_kernel, qk_codes_args, THREADS, 3) { codes_mma_body(&a, 1); }

static int fits_matrix_units(const qk_codes_args *a)
{
    return codes_are_wide(a) && codes_bits(a->ctype) == 4 && (a->dtype == QK_F16 || a->dtype == QK_BF16) && a->stype == a->dtype &&
        a->k % LANE_K == 0 && a->block % LANE_K == 0 &&
           a->row_bytes % 16 == 0;
}

static int64_t tiles_of(const qk_codes_args *a, int64_t cols, int64_t rows)
{
    return ((a->n + cols - 1) / cols) * ((a->m + rows - 1) / rows);
}

QK_EXTERN int qk_codes_linear(qk_queue q, const qk_codes_args *a)
{
    if (fits_matrix_units(a) && a->dtype == QK_F16) return QK_LAUNCH(codes_f16_kernel, tiles_of(a, TILE_N, TILE_M), THREADS, q, a);
    if (fits_matrix_units(a)) return QK_LAUNCH(codes_bf16_kernel, tiles_of(a, TILE_N, TILE_M), THREADS, q, a);
    if (codes_are_wide(a)) return QK_LAUNCH(gemv_wide_kernel, tiles_of(a, GEMV_COLS, GEMV_ROWS), THREADS, q, a);
    return QK_LAUNCH(gemv_kernel, tiles_of(a, GEMV_COLS, GEMV_ROWS), THREADS, q, a);
}

/* ---- the weight in another form ---- */

QK_KERNEL(expand_kernel, qk_codes_args)
{
    QK_EACH(i, a.n * a.k) qk_put_real(a.y, a.dtype, i, weight_at(&a, i / a.k, i % a.k));
}

QK_KERNEL(expand_wide_kernel, qk_codes_args)
{
    QK_EACH(i, a.n * a.k / QK_WIDE) {
        float v[QK_WIDE];
        weights8(&a, i * QK_WIDE / a.k, i * QK_WIDE % a.k, v);
        qk_put_real8(a.y, a.dtype, i * QK_WIDE, v);
    }
}

QK_EXTERN int qk_codes_expand(qk_queue q, const qk_codes_args *a)
{
    if (codes_are_wide(a) && qk_is_wide(a->y)) return QK_LAUNCH(expand_wide_kernel, QK_EACH_BLOCKS(a->n * a->k / QK_WIDE), 256, q, a);
    return QK_LAUNCH(expand_kernel, QK_EACH_BLOCKS(a->n * a->k), 256, q, a);
}

/* Pieces of EACH elements of the rows that are asked for. */
QK_INSIDE void rows_body(const qk_codes_rows_args *a, const int EACH)
{
    const qk_codes_args *w = &a->w;
    QK_EACH(piece, a->count * w->k / EACH) {
        const int64_t i = piece * EACH, n = qk_index(a->idx, a->wide, i / w->k, w->n, a->bad), k = i % w->k;
        float v[QK_WIDE] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (n >= 0 && EACH == 1) v[0] = weight_at(w, n, k);
        else if (n >= 0) weights8(w, n, k, v);
        if (EACH == 1) qk_put_real(w->y, w->dtype, i, v[0]);
        else qk_put_real8(w->y, w->dtype, i, v);
    }
}

QK_KERNEL(rows_kernel, qk_codes_rows_args) { rows_body(&a, 1); }
QK_KERNEL(rows_wide_kernel, qk_codes_rows_args) { rows_body(&a, QK_WIDE); }
QK_EXTERN int qk_codes_rows(qk_queue q, const qk_codes_rows_args *a)
{
    if (codes_are_wide(&a->w) && qk_is_wide(a->w.y))
        return QK_LAUNCH(rows_wide_kernel, QK_EACH_BLOCKS(a->count * a->w.k / QK_WIDE), 256, q, a);
    return QK_LAUNCH(rows_kernel, QK_EACH_BLOCKS(a->count * a->w.k), 256, q, a);
}

/* One thread a byte of the result. */
QK_KERNEL(codes_turn_kernel, qk_codes_args)
{
    const int bits = codes_bits(a.ctype), per = 8 / bits;
    QK_EACH(byte, (a.n * a.k + per - 1) / per) {
        uint32_t v = 0;
        for (int c = 0; c < per && byte * per + c < a.n * a.k; c++) {
            const int64_t i = byte * per + c;
            v |= qk_nibble(a.codes, bits, i % a.k * a.n + i / a.k) << (c * bits);
        }
        ((uint8_t *)a.y)[byte] = (uint8_t)v;
    }
}
QK_EXTERN int qk_codes_turn(qk_queue q, const qk_codes_args *a)
{
    return QK_LAUNCH(codes_turn_kernel, QK_EACH_BLOCKS(a->n * a->k), 256, q, a);
}
