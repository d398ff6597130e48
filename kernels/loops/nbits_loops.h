/* nbits_loops.h - dot products of codes and prepared x over sixteen lanes, a few columns at once so that their chains of
 * additions overlap; included after lanes.h. Gives `leaf`. What a column gives does not depend on which others are taken with it.
 * Prepared x of 4-bit codes (nbits.c, by_places): of each 128 elements the first of every eight, then the second of every eight and
 * so on, as they lie in sixteen words of codes, over the power of 16 that v_code multiplies by; behind the sixteen of a row those of
 * the others. */
enum { AT_ONCE = LANES_ISA == 512 ? 4 : 2 /* columns */, ROWS = LANES_ISA == 512 ? QX_NBITS_ROWS : 2,
       LINE = 64, AHEAD = 4096 /* bytes of codes; of scales a quarter */, GROUP = 128 /* 4-bit codes of a line */ };

/* Zero points are taken off as scale * zero * (sum of x in the block), so that the inner loop is one product; `done` of them was in it. */
LANE v16 corrections(const qx_nbits_dot *p, int64_t r, int64_t c, float done)
{
    const float *scale = p->scale + c * p->ld_scale, *zero = p->zero ? p->zero + c * p->ld_zero : NULL;
    v16 acc = v_set(0.0f);
    for (int64_t b = 0; b < p->blocks; b += 16) {
        const int64_t n = p->blocks - b;
        const v16 z = zero ? v_part(zero + b, n) : v_set(p->zero_all);
        acc = v_fma(v_mul(v_part(scale + b, n), v_sub(z, v_set(done))), v_part(p->sum + r * p->ld_sum + b, n), acc);
    }
    return acc;
}

/* Columns side by side are as far into their codes as into what is fetched: short rows one behind the other are no stream that a
 * processor follows. Scales take a quarter of the room of codes at most. */
LANE void fetch(const uint8_t *codes, const float *scale, int64_t b, int64_t bytes)
{
    for (int64_t i = b * bytes; i < (b + 1) * bytes; i += LINE) __builtin_prefetch(codes + AHEAD + i, 0, 2);
    if (b % 4 == 0) __builtin_prefetch((const char *)scale + AHEAD / 4 + b * LINE / 4, 0, 2);
}

/* How scales of 4-bit codes lie over the sixteen words of a group: the number of bits that lead from a word to its scale (4: one
 * for all), or UNEVEN. */
enum { UNEVEN = -1 };
LANE int spread_of(const qx_nbits_dot *p)
{
    for (int shift = 1; shift < 4; shift++)
        if (p->block == 8 << shift) return shift;
    return p->block % GROUP == 0 || p->blocks == 1 ? 4 : UNEVEN;
}

TARGET static __attribute__((noinline)) void uneven_scales(const qx_nbits_dot *p, const float *scale, int64_t g, float *each)
{
    for (int i = 0; i < 16; i++) {
        const int64_t b = (g * GROUP + 8 * i) / p->block;
        each[i] = b < p->blocks ? scale[b] : 0.0f;
    }
}

/* The scale of each word of group g, whose first block is b. */
LANE v16 scales_of(const qx_nbits_dot *p, const float *scale, int64_t g, int64_t b, int spread)
{
    float each[16];
    if (spread != UNEVEN) return v_repeat(scale + b, p->blocks - b, spread);
    uneven_scales(p, scale, g, each);
    return v_load(each);
}

#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++) /* or what the loop is over would lie in memory */

LANE void dot8_columns(const qx_nbits_dot *p, int64_t first, const int cols, float *y)
{
    const flips f = v_flips(p->flip);
    const uint8_t *from = p->codes + first * p->row_bytes;
    const float *x = p->x, *scale = p->scale + first * p->ld_scale;
    v16 acc[AT_ONCE], d[AT_ONCE];
    float rest[AT_ONCE] = {0};
    for (int c = 0; c < cols; c++) acc[c] = v_set(0.0f);
    for (int64_t b = 0; b < p->blocks; b++, from += p->block, x += p->block) {
        int64_t i = 0;
        fetch(p->codes + first * p->row_bytes, scale, b, cols * p->block);
        for (int c = 0; c < cols; c++) d[c] = v_set(0.0f);
        for (; i + 16 <= p->block; i += 16)
            for (int c = 0; c < cols; c++) d[c] = v_fma(v_bytes(from + c * p->row_bytes + i, &f), v_load(x + i), d[c]);
        for (; i < p->block; i++)
            for (int c = 0; c < cols; c++)
                rest[c] += scale[c * p->ld_scale + b] * (float)(from[c * p->row_bytes + i] ^ p->flip) * x[i];
        for (int c = 0; c < cols; c++) acc[c] = v_fma(d[c], v_set(scale[c * p->ld_scale + b]), acc[c]);
    }
    for (int c = 0; c < cols; c++) y[first + c] += v_sum(v_sub(acc[c], corrections(p, 0, first + c, 0.0f))) + rest[c];
}

/* Rows [r0, r0 + rows) of `all`: what is taken together turns a code into a number once. */
LANE void dot4_columns(const qx_nbits_dot *p, const int r0, const int rows, const int all, int64_t first, const int cols, float *y,
                       int64_t ldy)
{
    const uint8_t *from = p->codes + first * p->row_bytes;
    const float *x = p->x + 16 * r0, *scale = p->scale + first * p->ld_scale;
    const int64_t words = p->blocks * p->block / 8;
    const int spread = spread_of(p);
    const int64_t scales = cols * GROUP / p->block; /* of a group of each column, in floats */
    const places at = v_places(p->flip & 15);
    v16 acc[ROWS][AT_ONCE] = {0}, d[ROWS][AT_ONCE] = {0}, code[AT_ONCE] = {0};
    q128 c[AT_ONCE] = {0};
    for (int64_t g = 0; 16 * g < words; g++, x += GROUP * all) {
        const int64_t b = g * GROUP / p->block;
        EACH(i, cols) __builtin_prefetch(from + AHEAD + (g * cols + i) * LINE, 0, 3);
        __builtin_prefetch(scale + (AHEAD / LINE + g) * scales, 0, 3);
        EACH(i, cols) c[i] = v_codes(from + i * p->row_bytes + g * LINE, words - 16 * g);
        EACH(r, rows) EACH(i, cols) d[r][i] = v_set(0.0f);
        EACH(k, 8) {
            EACH(i, cols) code[i] = v_code(k == 5 ? c[i] = v_later(c[i]) : c[i], k < 5 ? k : k - 3, &at);
            EACH(r, rows) {
                const v16 xk = v_load(x + 16 * (k * all + r));
                EACH(i, cols) d[r][i] = v_fma(code[i], xk, d[r][i]);
            }
        }
        EACH(i, cols) {
            const v16 s = scales_of(p, scale + i * p->ld_scale, g, b, spread);
            EACH(r, rows) acc[r][i] = v_fma(d[r][i], s, acc[r][i]);
        }
    }
    EACH(r, rows) EACH(i, cols)
        y[r * ldy + first + i] += v_sum(p->zero ? v_sub(acc[r][i], corrections(p, r0 + r, first + i, 8.0f)) : acc[r][i]);
}

LANE void dot4_rows(const qx_nbits_dot *p, const int r0, const int rows, const int all, const int at_once, int64_t cols, float *y,
                    int64_t ldy)
{
    int64_t c = 0;
    for (; c + at_once <= cols; c += at_once) dot4_columns(p, r0, rows, all, c, at_once, y + r0 * ldy, ldy);
    for (; c < cols; c++) dot4_columns(p, r0, rows, all, c, 1, y + r0 * ldy, ldy);
}

/* More rows take fewer columns at once, for what is summed to stay in registers. */
TARGET static void dot4(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy)
{
#if LANES_ISA == 512
    switch (rows) {
    case 1: dot4_rows(p, 0, 1, 1, AT_ONCE, cols, y, ldy); break;
    case 2: dot4_rows(p, 0, 2, 2, AT_ONCE / 2, cols, y, ldy); break;
    case 3: dot4_rows(p, 0, 3, 3, AT_ONCE / 2, cols, y, ldy); break;
    default: dot4_rows(p, 0, 4, 4, AT_ONCE / 2, cols, y, ldy); break;
    }
#else
    for (int r = 0; r < (int)rows; r += ROWS)
        if (rows - r == 1) dot4_rows(p, r, 1, (int)rows, AT_ONCE, cols, y, ldy);
        else dot4_rows(p, r, ROWS, (int)rows, AT_ONCE / 2, cols, y, ldy);
#endif
}

TARGET static void dot8(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy)
{
    int64_t c = 0;
    (void)rows, (void)ldy;
    for (; c + AT_ONCE <= cols; c += AT_ONCE) dot8_columns(p, c, AT_ONCE, y);
    for (; c < cols; c++) dot8_columns(p, c, 1, y);
}

TARGET static void panel4(const uint8_t *codes, int64_t row_bytes, int64_t cols, uint8_t flip, const float *zero, const float *scale,
                          float *out, int64_t ld)
{
    const places at = v_places(flip & 15);
    const v16 z = v_sub(v_load(zero), v_set(8.0f)), s = v_load(scale);
    q128 words[4];
    v_columns(codes, row_bytes, cols - 1, words);
    EACH(w, 4)
        EACH(k, 8) {
            v_store(out + (8 * w + k) * ld, v_mul(v_sub(v_code(words[w], 0, &at), z), s));
            words[w] = v_next(words[w]);
        }
}

TARGET static void panel8(const uint8_t *codes, int64_t row_bytes, int64_t cols, uint8_t flip, const float *zero, const float *scale,
                          float *out, int64_t ld)
{
    const v16 z = v_load(zero), s = v_load(scale);
    q128 words[4];
    v_columns(codes, row_bytes, cols - 1, words);
    EACH(w, 4) EACH(k, 4) v_store(out + (4 * w + k) * ld, v_mul(v_sub(v_byte(words[w], k, flip), z), s));
}

static const qx_nbits_leaf leaf = {.dot4 = dot4, .dot8 = dot8, .panel4 = panel4, .panel8 = panel8};
