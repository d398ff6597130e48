/* nbits_loops.h - dot products of codes and prepared x over sixteen lanes, a few columns at once so that their chains of
 * additions overlap; included after lanes.h. Gives `leaf`. What a column gives does not depend on which others are taken with it.
 * Prepared x of 4-bit codes: each 32 elements as 16 even ones, then 16 odd ones (a byte holds one of each); a block of 16: 8 and
 * 8. */
enum { AT_ONCE = LANES_ISA == 512 ? 4 : 2, LINE = 64, AHEAD = 4096 /* bytes of codes; of scales a quarter */ };

/* Zero points are taken off as scale * zero * (sum of x in the block), so that the inner loop is one product. */
LANE v16 corrections(const qx_nbits_dot *p, int64_t c)
{
    const float *scale = p->scale + c * p->ld_scale, *zero = p->zero ? p->zero + c * p->ld_zero : NULL;
    v16 acc = v_set(0.0f);
    for (int64_t b = 0; b < p->blocks; b += 16) {
        const int64_t n = p->blocks - b;
        acc = v_fma(v_mul(v_part(scale + b, n), zero ? v_part(zero + b, n) : v_set(p->zero_all)), v_part(p->sum + b, n), acc);
    }
    return acc;
}

LANE v16 dot4_16(const uint8_t *c, const float *x, uint8_t flip)
{
    float q[16];
    for (int i = 0; i < 8; i++) q[i] = (float)((c[i] ^ flip) & 15), q[8 + i] = (float)((c[i] ^ flip) >> 4);
    return v_mul(v_load(q), v_load(x));
}

/* d[c] = dot(x, codes) over the whole lanes of one block, c < cols. */
LANE void block_dot(const uint8_t *codes, int64_t row, const float *x, int64_t n, const flips *f, const int bits, const int cols, v16 *d)
{
    v16 lo, hi;
    for (int c = 0; c < cols; c++) d[c] = v_set(0.0f);
    for (int64_t i = 0; bits == 4 && i + 32 <= n; i += 32)
        for (int c = 0; c < cols; c++) {
            v_nibbles(codes + c * row + i / 2, f, &lo, &hi);
            d[c] = v_fma(hi, v_load(x + i + 16), v_fma(lo, v_load(x + i), d[c]));
        }
    for (int64_t i = 0; bits == 8 && i + 16 <= n; i += 16)
        for (int c = 0; c < cols; c++) d[c] = v_fma(v_bytes(codes + c * row + i, f), v_load(x + i), d[c]);
}

/* Block b of columns side by side is as far into their codes as into what is fetched: short rows one behind the other are no
 * stream that a processor follows. */
LANE void fetch(const uint8_t *codes, const float *scale, int64_t b, int64_t bytes)
{
    for (int64_t i = b * bytes; i < (b + 1) * bytes; i += LINE) __builtin_prefetch(codes + AHEAD + i, 0, 2);
    if (b % 4 == 0) __builtin_prefetch((const char *)scale + AHEAD / 4 + b * LINE / 4, 0, 2);
}

LANE void dot_columns(const qx_nbits_dot *p, int64_t first, const int bits, const int cols, float *y)
{
    const flips f = v_flips(p->flip);
    const uint8_t *codes = p->codes + first * p->row_bytes;
    const float *x = p->x, *scale = p->scale + first * p->ld_scale;
    const int64_t wide = p->block / (bits == 4 ? 32 : 16) * (bits == 4 ? 32 : 16);
    v16 acc[AT_ONCE], d[AT_ONCE];
    float rest[AT_ONCE] = {0};
    for (int c = 0; c < cols; c++) acc[c] = v_set(0.0f);
    for (int64_t b = 0; b < p->blocks; b++, codes += p->block * bits / 8, x += p->block) {
        fetch(p->codes + first * p->row_bytes, scale, b, cols * p->block * bits / 8);
        block_dot(codes, p->row_bytes, x, p->block, &f, bits, cols, d);
        for (int c = 0; c < cols && wide < p->block; c++) {
            if (bits == 4) d[c] = v_add(d[c], dot4_16(codes + c * p->row_bytes + wide / 2, x + wide, p->flip));
            for (int64_t i = wide; bits == 8 && i < p->block; i++)
                rest[c] += scale[c * p->ld_scale + b] * (float)(codes[c * p->row_bytes + i] ^ p->flip) * x[i];
        }
        for (int c = 0; c < cols; c++) acc[c] = v_fma(d[c], v_set(scale[c * p->ld_scale + b]), acc[c]);
    }
    for (int c = 0; c < cols; c++) y[first + c] += v_sum(v_sub(acc[c], corrections(p, first + c))) + rest[c];
}

#define DOT(bits)                                                                        \
    TARGET static void dot##bits(const qx_nbits_dot *p, int64_t cols, float *y)          \
    {                                                                                    \
        int64_t c = 0;                                                                   \
        for (; c + AT_ONCE <= cols; c += AT_ONCE) dot_columns(p, c, bits, AT_ONCE, y);   \
        for (; c < cols; c++) dot_columns(p, c, bits, 1, y);                             \
    }
DOT(4)
DOT(8)

TARGET static void halves4(const uint8_t *codes, int64_t n, uint8_t flip, float zero, float scale, float *even, float *odd)
{
    const flips f = v_flips(flip);
    const v16 z = v_set(zero), s = v_set(scale);
    for (int64_t i = 0; i < n / 2; i += 16) {
        v16 lo, hi;
        v_nibbles(codes + i, &f, &lo, &hi);
        v_store(even + i, v_mul(v_sub(lo, z), s));
        v_store(odd + i, v_mul(v_sub(hi, z), s));
    }
}

static const qx_nbits_leaf leaf = {dot4, dot8, halves4};
