/* nbits_rounded.c - products of rows that are rounded to codes of 8 bits, block by block, with codes of 4 or 8 bits: the sum of a
 * block is an integer, exact, and one multiplication by both scales makes it a number (qx_nbits.rounds_x of nbits.h). Few rows read
 * codes as they lie; for more a stretch of 32 columns is unpacked into bytes once, on the stack, for all of them. */
#include <math.h>
#include <string.h>

#include "kernels/loops/multi.h"
#include "kernels/loops/nbits_leaf.h"

enum { FEW = QX_NBITS_ROWS /* up to which codes are read as they lie; five take as long in panels */, COLUMNS = 32, FEW_COLUMNS = 4,
       LANES = 16, LINE = 64, MAX_BLOCKS = 256,
       STRETCH = QX_NBITS_STRETCH, MOST_BLOCKS = STRETCH / 16 };

bool qx_nbits_in_ints(const qx_nbits_leaf *l, const qx_nbits *w)
{
    const bool power = (w->block & (w->block - 1)) == 0, whole = w->bits != 2 && w->block * w->bits >= 128; /* 16 bytes */
    return w->rounds_x && l->ints && power && whole && w->block <= STRETCH && qx_nbits_row_bytes(w) >= qx_nbits_padded_k(w) * w->bits / 8;
}

/* ---- Rounding ---- */

/* The largest |x|, or what is above every number when one of them is none. */
QX_INLINE void top_of_body(int64_t n, const float *restrict x, float *out)
{
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t b;
        memcpy(&b, &x[i], sizeof b);
        b &= INT32_MAX; /* without its sign a float compares as its bits do */
        most = b > most ? b : most;
    }
    memcpy(out, &most, sizeof most);
}
QX_MULTI(static, top_of, (int64_t n, const float *x, float *out), (n, x, out))

/* |x * inverse| is hardly above 127: adding 1.5 * 2^23 leaves the nearest integer in the low bits. */
QX_INLINE void codes_of_body(int64_t n, const float *restrict x, float inverse, int8_t *restrict out)
{
    for (int64_t i = 0; i < n; i++) out[i] = (int8_t)(int32_t)((x[i] * inverse + 0x1.8p23f) - 0x1.8p23f);
}
QX_MULTI(static, codes_of, (int64_t n, const float *x, float inverse, int8_t *out), (n, x, inverse, out))

/* The scale of n numbers, and what they are multiplied by: 0 where all codes are 0, as those of numbers so small that 127 over them
 * is none, and those beside what is not finite, whose scale is no number. */
static float scale_of(int64_t n, const float *x, float *inverse)
{
    float top;
    top_of(n, x, &top);
    const bool fine = isfinite(top) && isfinite(127 / top);
    *inverse = fine ? 127 / top : 0;
    return fine ? top / 127 : isfinite(top) ? 0 : NAN;
}

static void codes_or_zeros(int64_t n, const float *x, float inverse, int8_t *codes)
{
    if (inverse > 0) codes_of(n, x, inverse, codes);
    else memset(codes, 0, (size_t)n);
}

void qx_nbits_round_row(const qx_nbits *w, const float *x, float *out)
{
    int8_t codes[STRETCH];
    for (int64_t at = 0; at < w->k; at += w->block) {
        const int64_t end = w->k - at < w->block ? w->k : at + w->block;
        float inverse;
        const float scale = scale_of(end - at, x + at, &inverse);
        for (int64_t i = at; i < end; i += STRETCH) {
            const int64_t n = end - i < STRETCH ? end - i : STRETCH;
            codes_or_zeros(n, x + i, inverse, codes);
            for (int64_t j = 0; j < n; j++) out[i + j] = (float)codes[j] * scale;
        }
    }
}

/* ---- Rows in the order of their products ---- */

static int64_t per_word(const qx_nbits *w) { return 32 / w->bits; }               /* codes of 4 bytes */
static int64_t per_line(const qx_nbits *w) { return LINE * 8 / w->bits; }
static int64_t lines_of(const qx_nbits *w) { return (qx_nbits_padded_k(w) + per_line(w) - 1) / per_line(w); }
static int64_t few_floats(const qx_nbits *w) { return lines_of(w) * QX_NBITS_LINE(w->bits) + qx_nbits_blocks(w); } /* of a row */

/* Many rows: codes [m][padded k], then [m][blocks] each of scales, sums and what integer sums begin with. */
typedef struct many { int8_t *codes; float *scale, *sum; int32_t *begin; } many;

static many many_of(const qx_nbits *w, int64_t m, float *scratch)
{
    const int64_t n = m * qx_nbits_blocks(w);
    float *scale = scratch + m * qx_nbits_padded_k(w) / 4;
    return (many){(int8_t *)scratch, scale, scale + n, (int32_t *)(void *)(scale + 2 * n)};
}

int64_t qx_nbits_ints_scratch(const qx_nbits *w, int64_t m)
{
    return m * (m <= FEW ? few_floats(w) : qx_nbits_padded_k(w) / 4 + 3 * qx_nbits_blocks(w));
}

static int32_t sum_of(int64_t n, const int8_t *c)
{
    int32_t s = 0;
    for (int64_t i = 0; i < n; i++) s += c[i];
    return s;
}

/* Of each eight the even ones, then the odd: as a word of 4-bit codes gives them by its low and its high nibbles. */
static void by_nibbles(int64_t n, const int8_t *restrict c, int8_t *restrict even, int8_t *restrict odd, int64_t step)
{
    for (int64_t i = 0; i < n / 8; i++)
        for (int64_t t = 0; t < 4; t++) even[i * step + t] = c[8 * i + 2 * t], odd[i * step + t] = c[8 * i + 2 * t + 1];
}

/* n codes from `at` on into the lines of a row, the next of which lies `step` floats further; they begin and end with whole words. */
static void into_lines(const qx_nbits *w, int64_t at, int64_t n, const int8_t *c, float scale, float *lines, int64_t step)
{
    const int64_t per = per_word(w);
    for (int64_t i = 0; i < n;) {
        const int64_t in = (at + i) % per_line(w), some = per_line(w) - in < n - i ? per_line(w) - in : n - i, lane = in / per;
        float *line = lines + (at + i) / per_line(w) * step, *lanes = line + QX_NBITS_LINE(w->bits) - 2 * LANES;
        int8_t *codes = (int8_t *)line + 4 * lane;
        if (w->bits == 4) by_nibbles(some, c + i, codes, codes + LINE, 4);
        else memcpy(codes, c + i, (size_t)some);
        for (int64_t j = 0; j < some / per; j++) {
            const int32_t begin = -(int32_t)qx_nbits_half(w) * sum_of(per, c + i + j * per);
            memcpy(&lanes[lane + j], &begin, sizeof begin);
            lanes[LANES + lane + j] = scale;
        }
        i += some;
    }
}

/* Row r of `rows`, whose lines lie side by side from p on, and behind them the sums of each one's blocks. */
static void prepare_few(const qx_nbits *w, const float *x, int64_t r, int64_t rows, float *p)
{
    const int64_t line = QX_NBITS_LINE(w->bits), step = line * rows;
    float *sum = p + lines_of(w) * step + r * qx_nbits_blocks(w);
    int8_t codes[STRETCH];
    for (int64_t i = 0; i < lines_of(w); i++) memset(p + i * step + r * line, 0, (size_t)line * sizeof *p);
    for (int64_t b = 0; b < qx_nbits_blocks(w); b++) {
        const int64_t at = b * w->block, n = w->k - at < w->block ? w->k - at : w->block;
        float inverse;
        const float scale = scale_of(n, x + at, &inverse);
        memset(codes, 0, (size_t)w->block);
        codes_or_zeros(n, x + at, inverse, codes);
        sum[b] = scale * (float)sum_of(n, codes);
        into_lines(w, at, w->block, codes, scale, p + r * line, step);
    }
}

static void prepare_many(const qx_nbits *w, const float *x, int64_t r, const many *to)
{
    const int64_t blocks = qx_nbits_blocks(w);
    int8_t codes[STRETCH];
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t at = b * w->block, n = w->k - at < w->block ? w->k - at : w->block;
        int8_t *out = to->codes + r * qx_nbits_padded_k(w) + at;
        float inverse;
        to->scale[r * blocks + b] = scale_of(n, x + at, &inverse);
        memset(codes, 0, (size_t)w->block);
        codes_or_zeros(n, x + at, inverse, codes);
        const int32_t sum = sum_of(n, codes);
        to->sum[r * blocks + b] = (float)sum;
        to->begin[r * blocks + b] = -(int32_t)qx_nbits_half(w) * sum;
        if (w->bits == 4) by_nibbles(w->block, codes, out, out + 4, 8);
        else memcpy(out, codes, (size_t)w->block);
    }
}

void qx_nbits_ints_prepare(const qx_nbits *w, int64_t m, const float *x, int64_t row, float *scratch)
{
    const many to = many_of(w, m, scratch);
    if (m <= FEW) prepare_few(w, x, row, m, scratch);
    else prepare_many(w, x, row, &to);
}

/* ---- Products ---- */

int64_t qx_nbits_ints_pieces(const qx_nbits *w, int64_t m) { return (void)m, (w->n + COLUMNS - 1) / COLUMNS; }

static uint8_t flip_of(const qx_nbits *w) { return !w->is_signed ? 0 : w->bits == 8 ? 0x80 : 0x88; }

/* y of columns [n, n + cols), cols <= FEW_COLUMNS, for rows that lie side by side. */
static void few_columns(const qx_nbits_leaf *l, const qx_nbits *w, int64_t rows, int64_t n, int64_t cols, const float *x, float *y,
                        int64_t ldy)
{
    const int64_t nb = qx_nbits_blocks(w), line = QX_NBITS_LINE(w->bits) * rows;
    const bool zeros = w->zero || w->zero_f;
    float zero[FEW_COLUMNS * MAX_BLOCKS];
    for (int64_t b = 0; b < nb; b += MAX_BLOCKS) { /* whole lines: a block is 16 bytes and more */
        const int64_t some = nb - b < MAX_BLOCKS ? nb - b : MAX_BLOCKS;
        for (int64_t c = 0; zeros && c < cols; c++)
            for (int64_t i = 0; i < some; i++) zero[c * MAX_BLOCKS + i] = qx_nbits_zero(w, n + c, b + i);
        const qx_nbits_dot d = {.codes = w->codes + n * qx_nbits_row_bytes(w) + b * w->block * w->bits / 8,
                                .row_bytes = qx_nbits_row_bytes(w), .scale = w->scale + n * nb + b, .ld_scale = nb,
                                .zero = zeros ? zero : NULL, .ld_zero = MAX_BLOCKS, .x = x + b * w->block / per_line(w) * line,
                                .sum = x + lines_of(w) * line + b, .ld_sum = nb, .blocks = some, .block = w->block, .flip = flip_of(w)};
        (w->bits == 8 ? l->ints->few8 : l->ints->few4)(&d, rows, cols, y, ldy);
    }
}

/* A stretch of a panel's columns: bytes, and by block the scales and zero points of columns. */
typedef struct panel {
    uint8_t codes[STRETCH * COLUMNS] __attribute__((aligned(64)));
    float scale[MOST_BLOCKS * COLUMNS], zero[MOST_BLOCKS * COLUMNS];
} panel;

static void unpack(const qx_nbits_leaf *l, const qx_nbits *w, int64_t first, int64_t n, int64_t b0, int64_t blocks, panel *p)
{
    const int64_t bytes = w->block * w->bits / 8, nb = qx_nbits_blocks(w);
    l->ints->pack(w->codes + first * qx_nbits_row_bytes(w) + b0 * bytes, qx_nbits_row_bytes(w), n, blocks * bytes, w->bits, flip_of(w),
                  p->codes);
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t j = 0; j < COLUMNS; j++) {
            const int64_t at = first + (j < n ? j : 0);
            p->scale[b * COLUMNS + j] = w->scale[at * nb + b0 + b];
            if (w->zero || w->zero_f) p->zero[b * COLUMNS + j] = qx_nbits_zero(w, at, b0 + b) - (float)qx_nbits_half(w);
        }
}

static void many_piece(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const many *x, int64_t first, int64_t n, float *y, int64_t ldy)
{
    const int64_t nb = qx_nbits_blocks(w), kp = qx_nbits_padded_k(w), most = STRETCH / w->block;
    panel p;
    for (int64_t r = 0; r < m; r++)
        for (int64_t j = 0; j < n; j++) y[r * ldy + first + j] = w->bias ? w->bias[first + j] : 0.0f;
    for (int64_t b = 0; b < nb; b += most) {
        const int64_t some = nb - b < most ? nb - b : most;
        unpack(l, w, first, n, b, some, &p);
        for (int64_t r = 0; r < m; r += QX_NBITS_TILE) {
            const int64_t at = r * nb + b;
            const qx_nbits_tile t = {.x = x->codes + r * kp + b * w->block, .ldx = kp, .x_scale = x->scale + at, .x_sum = x->sum + at,
                                     .begin = x->begin + at, .ld_block = nb, .panel = p.codes, .scale = p.scale,
                                     .zero = w->zero || w->zero_f ? p.zero : NULL, .blocks = some, .quads = w->block / 4,
                                     .y = y + r * ldy + first, .ldy = ldy, .cols = n};
            l->ints->tile(&t, m - r < QX_NBITS_TILE ? m - r : QX_NBITS_TILE);
        }
    }
}

void qx_nbits_ints_piece(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *scratch, float *y, int64_t ldy, int64_t piece)
{
    const int64_t first = piece * COLUMNS, n = w->n - first < COLUMNS ? w->n - first : COLUMNS;
    if (m > FEW) {
        const many x = many_of(w, m, (float *)(uintptr_t)scratch); /* only read */
        many_piece(l, w, m, &x, first, n, y, ldy);
        return;
    }
    for (int64_t r = 0; r < m; r++)
        for (int64_t j = first; j < first + n; j++) y[r * ldy + j] = w->bias ? w->bias[j] : 0.0f;
    for (int64_t j = first; j < first + n; j += FEW_COLUMNS)
        few_columns(l, w, m, j, first + n - j < FEW_COLUMNS ? first + n - j : FEW_COLUMNS, scratch, y + j, ldy);
}
