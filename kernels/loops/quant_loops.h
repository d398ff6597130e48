/* quant_loops.h - the loops of quant_leaf.h, written once, compiled once per instruction set. The includer defines FN, TARGET and
 * CONV (its conversion table), and gets FN(leaf). No include guard. */

#define QUANT_LOOPS(name, dtype, expr)                                                                                     \
    TARGET static void FN(name##_run)(const float *restrict x, int64_t n, float s, int32_t z, float lo, float hi, void *d)         \
    {                                                                                                                      \
        dtype *restrict o = d;                                                                                                    \
        const float zp = (float)z, a = lo - zp, b = hi - zp;                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                                  \
            const float y = x[i] / s;                                                                                      \
            o[i] = (dtype)(expr);                                                                                          \
        }                                                                                                                  \
        (void)a, (void)b, (void)zp;                                                                                        \
    }                                                                                                                      \
    TARGET static void FN(name##_vec)(const float *restrict x, int64_t n, const float *restrict s, const int32_t *restrict z, float lo, float hi, void *d) \
    {                                                                                                                      \
        dtype *restrict o = d;                                                                                                    \
        if (!z) {                                                                                                          \
            const float zp = 0.0f, a = lo, b = hi;                                                                         \
            for (int64_t i = 0; i < n; i++) {                                                                              \
                const float y = x[i] / s[i];                                                                               \
                o[i] = (dtype)(expr);                                                                                      \
            }                                                                                                              \
            (void)a, (void)b, (void)zp;                                                                                    \
            return;                                                                                                        \
        }                                                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                                  \
            const float zp = (float)z[i], a = lo - zp, b = hi - zp, y = x[i] / s[i];                                       \
            o[i] = (dtype)(expr);                                                                                          \
            (void)a, (void)b, (void)zp;                                                                                    \
        }                                                                                                                  \
    }

QUANT_LOOPS(byte, uint8_t, (int32_t)(qx_rne_clamp(y, a, b) + zp))
QUANT_LOOPS(word, uint16_t, (int32_t)(qx_rne_clamp(y, a, b) + zp))
QUANT_LOOPS(qe4m3, uint8_t, qx_sc_f32_to_e4m3(y, 1))
QUANT_LOOPS(qe4m3n, uint8_t, qx_sc_f32_to_e4m3(y, 0))
QUANT_LOOPS(qe5m2, uint8_t, qx_sc_f32_to_e5m2(y, 1))
QUANT_LOOPS(qe5m2n, uint8_t, qx_sc_f32_to_e5m2(y, 0))
QUANT_LOOPS(qfnuz4, uint8_t, qx_sc_f32_to_fnuz(y, 3, 8, 1))
QUANT_LOOPS(qfnuz4n, uint8_t, qx_sc_f32_to_fnuz(y, 3, 8, 0))
QUANT_LOOPS(qfnuz5, uint8_t, qx_sc_f32_to_fnuz(y, 2, 16, 1))
QUANT_LOOPS(qfnuz5n, uint8_t, qx_sc_f32_to_fnuz(y, 2, 16, 0))
QUANT_LOOPS(qe2m1, uint8_t, qx_sc_f32_to_e2m1(y))

/* Block sizes are almost always multiples of 16. */
TARGET static void FN(expand)(const void *values, int64_t nb, int64_t block, void *out)
{
    const uint32_t *restrict v = values;
    uint32_t *restrict o = out;
    for (int64_t k = 0; k < nb; k++, o += block) {
        int64_t i = 0;
        for (; i + 16 <= block; i += 16)
            for (int64_t j = 0; j < 16; j++) o[i + j] = v[k];
        for (; i < block; i++) o[i] = v[k];
    }
}

TARGET static void FN(affine_run)(float *x, int64_t n, float s, int32_t z)
{
    const float zp = (float)z;
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - zp) * s;
}

TARGET static void FN(affine_vec)(float *x, int64_t n, const float *s, const int32_t *z)
{
    if (!z)
        for (int64_t i = 0; i < n; i++) x[i] = x[i] * s[i];
    else
        for (int64_t i = 0; i < n; i++) x[i] = (x[i] - (float)z[i]) * s[i];
}

/* Magnitudes are compared as integers: the same order as floats, and NaN and Inf come out on top where they are seen. */
TARGET static uint32_t FN(amax_run)(const float *x, int64_t n)
{
    int32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = (int32_t)(qx_bits_of(x[i]) & 0x7fffffffu);
        top = a > top ? a : top;
    }
    return (uint32_t)top;
}

TARGET static uint32_t FN(amax_vec)(const float *x, int64_t n, float *amax)
{
    const uint32_t top = FN(amax_run)(x, n);
    if (top >= 0x7f800000u) return top;
    for (int64_t i = 0; i < n; i++) {
        const float a = qx_of_bits(qx_bits_of(x[i]) & 0x7fffffffu);
        amax[i] = a > amax[i] ? a : amax[i];
    }
    return top;
}

TARGET static uint32_t FN(range_run)(const float *x, int64_t n, float *lo, float *hi)
{
    const uint32_t top = FN(amax_run)(x, n);
    if (top >= 0x7f800000u) return top;
    int32_t a = INT32_MAX, b = INT32_MIN; /* floats as integers of the same order: exact and free of the order of summation */
    for (int64_t i = 0; i < n; i++) {
        const int32_t u = (int32_t)qx_bits_of(x[i]), k = u ^ ((u >> 31) & 0x7fffffff);
        a = k < a ? k : a;
        b = k > b ? k : b;
    }
    if (n == 0) return top;
    const float fa = qx_of_bits((uint32_t)(a ^ ((a >> 31) & 0x7fffffff))), fb = qx_of_bits((uint32_t)(b ^ ((b >> 31) & 0x7fffffff)));
    *lo = fa < *lo ? fa : *lo;
    *hi = fb > *hi ? fb : *hi;
    return top;
}

TARGET static uint32_t FN(range_vec)(const float *x, int64_t n, float *lo, float *hi)
{
    const uint32_t top = FN(amax_run)(x, n);
    if (top >= 0x7f800000u) return top;
    for (int64_t i = 0; i < n; i++) {
        lo[i] = x[i] < lo[i] ? x[i] : lo[i];
        hi[i] = x[i] > hi[i] ? x[i] : hi[i];
    }
    return top;
}

TARGET static void FN(pack4)(const uint8_t *c, int64_t pairs, uint8_t *d)
{
    for (int64_t i = 0; i < pairs; i++) {
        uint16_t two; /* little endian: first code in the low byte */
        memcpy(&two, c + 2 * i, 2);
        d[i] = (uint8_t)((two & 15u) | ((two >> 4) & 0xf0u));
    }
}

#define LEAF(kind, name) [QX_KIND_##kind] = {FN(name##_run), FN(name##_vec)}
static const qx_leaf FN(leaf) = {
    .conv = CONV,
    .quant = {LEAF(BYTE, byte), LEAF(WORD, word), LEAF(E4M3, qe4m3), LEAF(E4M3_NS, qe4m3n), LEAF(E5M2, qe5m2), LEAF(E5M2_NS, qe5m2n),
              LEAF(E4M3FNUZ, qfnuz4), LEAF(E4M3FNUZ_NS, qfnuz4n), LEAF(E5M2FNUZ, qfnuz5), LEAF(E5M2FNUZ_NS, qfnuz5n), LEAF(E2M1, qe2m1)},
    .expand = FN(expand), .affine_run = FN(affine_run), .affine_vec = FN(affine_vec),
    .amax_run = FN(amax_run), .amax_vec = FN(amax_vec), .range_run = FN(range_run), .range_vec = FN(range_vec),
    .pack4 = FN(pack4),
};
#undef LEAF
#undef QUANT_LOOPS
