/* nbits_loops.h - dot products of codes and prepared x over sixteen lanes; included after lanes.h. Gives `leaf`.
 * Prepared x of 4-bit codes: each 32 elements as 16 even ones, then 16 odd ones (a byte holds one of each); a block of 16: 8 and 8. */

LANE const uint8_t *flip_bytes(const uint8_t *c, uint8_t flip, uint8_t *t)
{
    if (!flip) return c;
    for (int i = 0; i < 16; i++) t[i] = c[i] ^ flip;
    return t;
}

/* Zero points are taken off as scale * zero * (sum of x in the block), so that the inner loop is one product. */
LANE float corrections(int64_t blocks, const float *scale, const float *zero, const float *sum)
{
    v16 acc = v_set(0.0f);
    for (int64_t b = 0; b < blocks; b += 16) {
        const int64_t n = blocks - b;
        acc = v_fma(v_mul(v_part(scale + b, n), v_part(zero + b, n)), v_part(sum + b, n), acc);
    }
    return v_sum(acc);
}

LANE v16 dot4_16(const uint8_t *c, const float *x, uint8_t flip)
{
    float q[16];
    for (int i = 0; i < 8; i++) q[i] = (float)((c[i] ^ flip) & 15), q[8 + i] = (float)((c[i] ^ flip) >> 4);
    return v_mul(v_load(q), v_load(x));
}

TARGET static float dot4(const uint8_t *c, const float *x, int64_t blocks, int64_t block, const float *scale, const float *zero, const float *sum, uint8_t flip)
{
    const int64_t wide = block / 32 * 32;
    v16 acc = v_set(0.0f), lo, hi;
    uint8_t t[16];
    for (int64_t b = 0; b < blocks; b++, c += block / 2, x += block) {
        v16 d = v_set(0.0f);
        for (int64_t i = 0; i < wide; i += 32) {
            v_nibbles(flip_bytes(c + i / 2, flip, t), &lo, &hi);
            d = v_fma(hi, v_load(x + i + 16), v_fma(lo, v_load(x + i), d));
        }
        if (wide < block) d = v_add(d, dot4_16(c + wide / 2, x + wide, flip));
        acc = v_fma(d, v_set(scale[b]), acc);
    }
    return v_sum(acc) - corrections(blocks, scale, zero, sum);
}

TARGET static float dot8(const uint8_t *c, const float *x, int64_t blocks, int64_t block, const float *scale, const float *zero, const float *sum, uint8_t flip)
{
    v16 acc = v_set(0.0f);
    float rest = 0;
    uint8_t t[16];
    for (int64_t b = 0; b < blocks; b++, c += block, x += block) {
        v16 d = v_set(0.0f);
        int64_t i = 0;
        for (; i + 16 <= block; i += 16) d = v_fma(v_bytes(flip_bytes(c + i, flip, t)), v_load(x + i), d);
        for (; i < block; i++) rest += scale[b] * (float)(c[i] ^ flip) * x[i];
        acc = v_fma(d, v_set(scale[b]), acc);
    }
    return v_sum(acc) + rest - corrections(blocks, scale, zero, sum);
}

static const qx_nbits_leaf leaf = {dot4, dot8};
