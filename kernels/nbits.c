/* nbits.c - see nbits.h. All codes are taken as unsigned: signed ones have their top bit flipped on the way and the zero point
 * raised to match. */
#include "kernels/nbits.h"

#include <string.h>

#include "kernels/gemm.h"
#include "kernels/loops/multi.h"
#include "kernels/loops/nbits_leaf.h"
#include "kernels/quant.h"

enum { COLUMNS = QX_GEMM_NR, HALF = 16, MAX_BLOCKS = 256, TOGETHER = 4 /* columns that a dot product takes at once */,
       MOST_K = QX_GEMM_K, GROUP = 128 /* 4-bit codes likewise */ };

/* Two-bit codes and short rows (a signed flat layout whose last block is not padded) take the general way. */
static bool by_dot(const qx_nbits *w, int64_t m)
{
    return m <= (w->bits == 4 ? QX_NBITS_GEMV_ROWS_4 : QX_NBITS_GEMV_ROWS) && w->bits != 2 &&
        qx_nbits_row_bytes(w) >= qx_nbits_padded_k(w) * w->bits / 8 && (w->bits == 8 || w->block % 16 == 0);
}

static unsigned code_at(const uint8_t *row, int bits, int64_t i)
{
    return ((unsigned)row[i * bits / 8] >> (i * bits % 8)) & ((1u << bits) - 1u);
}

/* Zero point of a block for unsigned codes. */
float qx_nbits_zero(const qx_nbits *w, int64_t n, int64_t b)
{
    const int64_t nb = qx_nbits_blocks(w), bytes = (nb * w->bits + 7) / 8;
    if (w->zero_f) return w->zero_f[n * nb + b] + (w->is_signed ? (float)qx_nbits_half(w) : 0.0f);
    if (!w->zero) return (float)qx_nbits_half(w);
    return (float)(code_at(w->zero + n * bytes, w->bits, b) ^ (w->is_signed ? qx_nbits_half(w) : 0u));
}

/* out[i] = (code - z) * s for n codes from element `at` of a row of unsigned 4-bit codes; at is even. */
QX_INLINE void nibbles_body(const uint8_t *restrict c, int64_t n, unsigned flip, float z, float s, float *restrict out)
{
    for (int64_t i = 0; i < n / 2; i++) {
        out[2 * i] = ((float)(int32_t)((c[i] & 15u) ^ flip) - z) * s;
        out[2 * i + 1] = ((float)(int32_t)(((unsigned)c[i] >> 4) ^ flip) - z) * s;
    }
    if (n & 1) out[n - 1] = ((float)(int32_t)((c[n / 2] & 15u) ^ flip) - z) * s;
}
QX_MULTI(static, nibbles, (const uint8_t *c, int64_t n, unsigned flip, float z, float s, float *out), (c, n, flip, z, s, out))

/* Elements [k0, k0 + kc) of column n. */
static void unpack_range(const qx_nbits *w, int64_t n, int64_t k0, int64_t kc, float *out)
{
    const uint8_t *row = w->codes + n * qx_nbits_row_bytes(w);
    const unsigned flip = w->is_signed ? qx_nbits_half(w) : 0u;
    for (int64_t i = 0, end; i < kc; i = end) {
        const int64_t at = k0 + i, b = at / w->block;
        const float z = qx_nbits_zero(w, n, b), s = w->scale[n * qx_nbits_blocks(w) + b];
        end = (b + 1) * w->block - k0 < kc ? (b + 1) * w->block - k0 : kc;
        if (w->bits == 4 && at % 2 == 0) nibbles(row + at / 2, end - i, flip, z, s, out + i);
        else for (; i < end; i++) out[i] = ((float)(code_at(row, w->bits, k0 + i) ^ flip) - z) * s;
    }
}

void qx_nbits_column(const qx_nbits *w, int64_t n, float *out) { unpack_range(w, n, 0, w->k, out); }

/* Floats of a prepared row: 4-bit codes are taken 128 at a time. */
static int64_t prepared_k(const qx_nbits *w)
{
    return w->bits == 4 ? (qx_nbits_padded_k(w) + GROUP - 1) / GROUP * GROUP : qx_nbits_padded_k(w);
}

/* Rows in the order of dot products, and behind them rounded ones as they are. */
static int64_t dot_scratch(const qx_nbits *w, int64_t m) { return by_dot(w, m) ? m * (prepared_k(w) + qx_nbits_blocks(w)) : 0; }

int64_t qx_nbits_scratch_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m)
{
    return qx_nbits_in_ints(l, w) ? qx_nbits_ints_scratch(w, m) : dot_scratch(w, m) + (w->rounds_x ? m * w->k : 0);
}

/* Rows that are prepared and multiplied together. */
static int64_t together(const qx_nbits *w) { return w->bits == 4 ? QX_NBITS_ROWS : 1; }

/* Sixteen words of eight codes: the first element of each, the second of each and so on, over 16^place (v_code of lanes.h; the
 * last three are taken three places lower); `step` floats from sixteen to sixteen. */
static void by_places(const float *x, int64_t n, float *to, int64_t step)
{
    static const float over[8] = {1, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-8f, 0x1p-12f, 0x1p-16f};
    for (int64_t i = 0; i < GROUP; i++) to[i % 8 * step + i / 8] = i < n ? x[i] * over[i % 8] : 0.0f;
}

static void block_sums(const qx_nbits *w, const float *x, float *sum)
{
    for (int64_t b = 0; b < qx_nbits_blocks(w); b++) {
        const int64_t end = (b + 1) * w->block < w->k ? (b + 1) * w->block : w->k;
        double s = 0;
        for (int64_t i = b * w->block; i < end; i++) s += (double)x[i];
        sum[b] = (float)s;
    }
}

/* Row r of `rows` that lie side by side from p on, and behind them the sums of each one's blocks. */
static void prepare_row(const qx_nbits *w, const float *x, int64_t r, int64_t rows, float *p)
{
    const int64_t k = prepared_k(w);
    for (int64_t i = 0; w->bits == 4 && i < k; i += GROUP) by_places(x + i, w->k - i, p + i * rows + 16 * r, 16 * rows);
    for (int64_t i = 0; w->bits == 8 && i < k; i++) p[i] = i < w->k ? x[i] : 0.0f;
    block_sums(w, x, p + k * rows + r * qx_nbits_blocks(w));
}

void qx_nbits_prepare_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *x, int64_t ldx, int64_t row,
                            float *scratch)
{
    const int64_t first = row - row % together(w), rows = m - first < together(w) ? m - first : together(w);
    const float *from = x + row * ldx;
    if (qx_nbits_in_ints(l, w)) {
        qx_nbits_ints_prepare(w, m, from, row, scratch);
        return;
    }
    if (w->rounds_x) {
        float *rounded = scratch + dot_scratch(w, m) + row * w->k;
        qx_nbits_round_row(w, from, rounded);
        from = rounded;
    }
    if (by_dot(w, m)) prepare_row(w, from, row - first, rows, scratch + first * (prepared_k(w) + qx_nbits_blocks(w)));
}

static int64_t piece_columns(const qx_nbits *w, int64_t m) { return by_dot(w, m) ? COLUMNS : 3 * COLUMNS; }

int64_t qx_nbits_pieces_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m)
{
    return qx_nbits_in_ints(l, w) ? qx_nbits_ints_pieces(w, m) : (w->n + piece_columns(w, m) - 1) / piece_columns(w, m);
}

/* y[r][c] of columns [n, n + cols), cols <= TOGETHER, for m rows prepared together. */
static void dot_columns(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, int64_t n, int64_t cols, const float *x, float *y,
                        int64_t ldy)
{
    const int64_t nb = qx_nbits_blocks(w);
    float zero[TOGETHER * MAX_BLOCKS];
    const bool zeros = w->zero || w->zero_f;
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < cols; c++) y[r * ldy + c] = w->bias ? w->bias[n + c] : 0.0f;
    for (int64_t b = 0; b < nb; b += MAX_BLOCKS) {
        const int64_t some = nb - b < MAX_BLOCKS ? nb - b : MAX_BLOCKS;
        for (int64_t c = 0; zeros && c < cols; c++)
            for (int64_t i = 0; i < some; i++) zero[c * MAX_BLOCKS + i] = qx_nbits_zero(w, n + c, b + i);
        const qx_nbits_dot d = {.codes = w->codes + n * qx_nbits_row_bytes(w) + b * w->block * w->bits / 8,
                                .row_bytes = qx_nbits_row_bytes(w),
                                .scale = w->scale + n * nb + b, .ld_scale = nb,
                                .zero = zeros ? zero : NULL, .ld_zero = MAX_BLOCKS, .zero_all = (float)qx_nbits_half(w),
                                .x = x + b * w->block * m, .sum = x + prepared_k(w) * m + b, .ld_sum = nb,
                                .blocks = some, .block = w->block, .flip = (uint8_t)(!w->is_signed ? 0 : w->bits == 8 ? 0x80 : 0x88)};
        (w->bits == 8 ? l->dot8 : l->dot4)(&d, m, cols, y, ldy);
    }
}

typedef struct from { const qx_nbits_leaf *l; const qx_nbits *w; int64_t first; } from;

/* Columns [j0, j0 + nc), nc <= HALF, of which codes of 16 bytes one behind the other have one scale and zero point. */
static void panel_half(const from *f, int64_t k0, int64_t kc, int64_t j0, int64_t nc, float *panel)
{
    const int64_t some = 16 * 8 / f->w->bits;
    const qx_nbits *w = f->w;
    const uint8_t *codes = w->codes + (f->first + j0) * qx_nbits_row_bytes(w);
    float zero[HALF] = {0}, scale[HALF] = {0};
    for (int64_t k = k0, seen = -1; k < k0 + kc; k += some) {
        const int64_t b = k / w->block;
        for (int64_t j = 0; b != seen && j < nc; j++) {
            zero[j] = qx_nbits_zero(w, f->first + j0 + j, b);
            scale[j] = w->scale[(f->first + j0 + j) * qx_nbits_blocks(w) + b];
        }
        seen = b;
        (w->bits == 8 ? f->l->panel8 : f->l->panel4)(codes + k * w->bits / 8, qx_nbits_row_bytes(w), nc,
                                                     !w->is_signed ? 0 : w->bits == 8 ? 0x80 : 0x88, zero, scale,
                                                     panel + (k - k0) * COLUMNS, COLUMNS);
    }
}

static void unpack_panel(const void *user, int64_t k0, int64_t kc, int64_t j0, int64_t nc, float *panel)
{
    const from *f = user;
    float columns[COLUMNS * MOST_K];
    if (nc < COLUMNS) memset(panel, 0, sizeof *panel * (size_t)(kc * COLUMNS));
    const int64_t some = 16 * 8 / f->w->bits;
    if (f->w->bits != 2 && f->w->block % some == 0 && k0 % some == 0 && kc % some == 0) {
        for (int64_t j = 0; j < nc; j += HALF) panel_half(f, k0, kc, j0 + j, nc - j < HALF ? nc - j : HALF, panel + j);
        return;
    }
    for (int64_t j = 0; j < nc; j++) unpack_range(f->w, f->first + j0 + j, k0, kc, columns + j * MOST_K);
    (void)qx_transpose(sizeof *columns, nc, kc, columns, MOST_K, panel, COLUMNS);
}

void qx_nbits_piece_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *x, int64_t ldx, const float *scratch,
                          float *y, int64_t ldy, int64_t piece)
{
    const int64_t most = piece_columns(w, m), first = piece * most, n = w->n - first < most ? w->n - first : most;
    if (qx_nbits_in_ints(l, w)) {
        qx_nbits_ints_piece(l, w, m, scratch, y, ldy, piece);
        return;
    }
    if (by_dot(w, m)) {
        for (int64_t j = first; j < first + n; j += TOGETHER)
            for (int64_t r = 0; r < m; r += together(w))
                dot_columns(l, w, m - r < together(w) ? m - r : together(w), j, first + n - j < TOGETHER ? first + n - j : TOGETHER,
                            scratch + r * (prepared_k(w) + qx_nbits_blocks(w)), y + r * ldy + j, ldy);
        return;
    }
    const from f = {l, w, first};
    if (w->rounds_x) x = scratch, ldx = w->k;
    const qx_sgemm g = {.m = m, .k = w->k, .n = n, .x = x, .ldx = ldx, .cx = 1, .make = unpack_panel, .user = &f,
                        .bias = w->bias ? w->bias + first : NULL, .y = y + first, .ldy = ldy, .alpha = 1.0f};
    qx_sgemm_run(&g);
}

static const qx_nbits_leaf *best(void) { return qx_nbits_leaf_cpu(qx_isa_best()); }
int64_t qx_nbits_scratch(const qx_nbits *w, int64_t m) { return qx_nbits_scratch_using(best(), w, m); }
bool qx_nbits_prepares(const qx_nbits *w, int64_t m) { return w->rounds_x || by_dot(w, m); }
int64_t qx_nbits_pieces(const qx_nbits *w, int64_t m) { return qx_nbits_pieces_using(best(), w, m); }

const char *qx_nbits_kernel(const qx_nbits *w, int64_t m)
{
    return qx_nbits_in_ints(best(), w) ? "int8" : by_dot(w, m) ? "codes" : "panels";
}

void qx_nbits_prepare(const qx_nbits *w, int64_t m, const float *x, int64_t ldx, int64_t row, float *scratch)
{
    qx_nbits_prepare_using(best(), w, m, x, ldx, row, scratch);
}

void qx_nbits_piece(const qx_nbits *w, int64_t m, const float *x, int64_t ldx, const float *scratch, float *y, int64_t ldy, int64_t piece)
{
    qx_nbits_piece_using(best(), w, m, x, ldx, scratch, y, ldy, piece);
}
