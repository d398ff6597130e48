/* kernel_quant.c - kernels/cuda/quant.cu bit for bit against kernels/ref: every code type, scale type and layout of scales, ties,
 * saturation, NaN, scales of zero. */
#include "kernel_case.h"
#include "kernels/quant.h"

enum { OUTER = 3, D = 10, INNER = 8, BLOCK = 4, N = OUTER * D * INNER };
static const int code_types[] = {QX_DT_INT8, QX_DT_UINT8, QX_DT_INT16, QX_DT_UINT16, QX_DT_INT4, QX_DT_UINT4, QX_DT_INT2, QX_DT_UINT2,
                                 QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E5M2, QX_DT_FLOAT8E4M3FNUZ, QX_DT_FLOAT8E5M2FNUZ,
                                 QX_DT_FLOAT4E2M1};
typedef enum layout { ONE, AXIS, BLOCKS, LAYOUTS } layout;

/* A slice [D][INNER] at a time as the CPU sees it: cells along its rows. */
static qx_grid grid_of(layout l)
{
    return l == ONE ? (qx_grid){D, INNER, D, INNER} : l == AXIS ? (qx_grid){D, INNER, 1, INNER} : (qx_grid){D, INNER, BLOCK, 1};
}

static int64_t cells_of(layout l) { return l == ONE ? 1 : l == AXIS ? D : qx_grid_cells(&(qx_grid){D, INNER, BLOCK, 1}); }

static qk_quant_args args_of(layout l, int dt, int codes, int stype)
{
    return (qk_quant_args){.outer = OUTER, .d = D, .inner = INNER, .block = l == BLOCKS ? BLOCK : 1, .blocks = (D + BLOCK - 1) / BLOCK,
                           .kind = l, .dtype = dt, .codes = codes, .stype = stype, .saturate = 1};
}

static bool has_zeros(int codes) { return codes != QX_DT_FLOAT4E2M1 && !(codes >= QX_DT_FLOAT8E4M3FN && codes <= QX_DT_FLOAT8E5M2FNUZ); }

/* Scales of all slices (blocked ones: each slice has its own), hard ones among them. */
static void scales_of(int stype, float *s, int64_t n, uint32_t seed, bool hard)
{
    for (int64_t i = 0; i < n; i++)
        s[i] = stype == QX_DT_FLOAT8E8M0 ? ldexpf(1, (int)(rng_next(&seed) % 9) - 6) : 0.01f + rng_uniform(&seed);
    if (hard && n > 2 && stype == QX_DT_FLOAT) s[1] = 1e-38f, s[2] = 0;
}

typedef struct quant_case { layout l; int dt, codes, stype; } quant_case;

/* Codes of one byte each, by the CPU. */
static void on_cpu(const quant_case *c, const float *x, const float *scale, const int32_t *zero, uint8_t *unpacked)
{
    const bool blocked = c->l == BLOCKS;
    const int size = c->codes == QX_DT_INT16 || c->codes == QX_DT_UINT16 ? 2 : 1;
    for (int64_t o = 0; o < OUTER; o++) {
        const qx_quant q = {.grid = grid_of(c->l), .format = {.codes = (qx_dtype)c->codes},
                            .scale = scale + (blocked ? o * cells_of(c->l) : 0),
                            .zero = zero ? zero + (blocked ? o * cells_of(c->l) : 0) : NULL, .unpacked = true};
        assert_true(qx_quantize(&q, QX_DT_FLOAT, x + o * D * INNER, unpacked + o * D * INNER * size));
    }
}

static void *zeros_of(int codes, int32_t *zero, int64_t n)
{
    const int bits = (int)qx_dtype_bits(codes);
    uint8_t one[512], packed[512];
    uint16_t two[256];
    for (int64_t i = 0; i < n; i++)
        zero[i] = (int32_t)(i % (codes == QX_DT_INT2 ? 2 : 3)), one[i] = (uint8_t)zero[i], two[i] = (uint16_t)zero[i];
    if (bits == 16) return kc_in(two, (size_t)n * 2, 0);
    if (bits == 8) return kc_in(one, (size_t)n, 0);
    qx_pack(bits, one, n, packed);
    return kc_in(packed, (size_t)((n * bits + 7) / 8), 0);
}

static void one(const quant_case *c, bool with_zero, size_t shift)
{
    float x[N], scale[OUTER * 24], y[N], want[N];
    int32_t zero[OUTER * 24];
    uint8_t unpacked[2 * N], packed[2 * N], got[2 * N];
    const int64_t cells = cells_of(c->l) * (c->l == BLOCKS ? OUTER : 1);
    const int bits = (int)qx_dtype_bits(c->codes);
    const size_t bytes = (size_t)(N * bits + 7) / 8;
    char what[90];
    snprintf(what, sizeof what, "%s by scales of %s, layout %d, from %s", qx_dtype_get(c->codes)->text, qx_dtype_get(c->stype)->text,
             c->l, qx_dtype_get(c->dt)->text);
    kc_hard(x, N, 17);
    scales_of(c->stype, scale, cells, 5, !with_zero);
    qk_quant_args a = args_of(c->l, c->dt, c->codes, c->stype);
    a.x = kc_reals(c->dt, x, N, shift * kc_size(c->dt)), a.scale = kc_reals(c->stype, scale, cells, 0),
        a.zero = with_zero ? zeros_of(c->codes, zero, cells) : NULL, a.y = kc_out(bytes, 0);
    KC_RUN(qk_quantize, &a);
    on_cpu(c, x, scale, with_zero ? zero : NULL, unpacked);
    if (bits < 8) qx_pack(bits, unpacked, N, packed);
    else memcpy(packed, unpacked, bytes);
    kc_back(got, a.y, bytes);
    kc_same(what, got, packed, bytes);
    qk_quant_args back = a; /* and the numbers that the codes stand for */
    back.x = kc_in(packed, bytes, 0), back.y = kc_reals_out(c->dt, N, 0);
    KC_RUN(qk_dequantize, &back);
    for (int64_t o = 0; o < OUTER; o++) {
        const int64_t first = c->l == BLOCKS ? o * cells_of(c->l) : 0;
        const qx_quant q = {.grid = grid_of(c->l), .format = {.codes = (qx_dtype)c->codes}, .scale = scale + first,
                            .zero = with_zero ? zero + first : NULL, .unpacked = true};
        assert_true(qx_dequantize(&q, unpacked + o * D * INNER * (bits == 16 ? 2 : 1), QX_DT_FLOAT, want + o * D * INNER));
    }
    kc_reals_back(c->dt, y, back.y, N);
    kc_agree(what, c->dt, y, want, N, 1e-12, 0);
    kc_release();
}

static void quantize(void)
{
    static const int scale_types[] = {QX_DT_FLOAT, QX_DT_FLOAT16, QX_DT_BFLOAT16, QX_DT_FLOAT8E8M0, QX_DT_FLOAT8E4M3FN};
    for (int k = 0; k < COUNT(code_types); k++)
        for (int l = 0; l < LAYOUTS; l++) {
            KC_EACH_REAL(dt) one(&(quant_case){(layout)l, dt, code_types[k], QX_DT_FLOAT}, false, l == ONE && k % 2 ? 1 : 0);
            for (int s = 0; s < COUNT(scale_types); s++)
                one(&(quant_case){(layout)l, kc_real_types[s % 3], code_types[k], scale_types[s]}, has_zeros(code_types[k]), 0);
        }
}

/* A scale a row and one zero point for all, in pieces of eight and not: what the plan makes of int8-dynamic. */
static void rows_of(int64_t cols)
{
    enum { ROWS = 5 };
    float x[ROWS * 64], s[ROWS];
    uint8_t y[ROWS * 64], codes[ROWS * 64];
    int32_t zero[ROWS];
    kc_hard(x, ROWS * cols, 3);
    scales_of(QX_DT_FLOAT, s, ROWS, 4, false);
    for (int i = 0; i < ROWS; i++) zero[i] = 128;
    qk_quant_args a = {.x = kc_reals(QX_DT_FLOAT, x, ROWS * cols, 0), .scale = kc_in(s, sizeof s, 0),
                       .y = kc_out((size_t)(ROWS * cols), 0), .outer = 1, .d = ROWS, .inner = cols, .block = 1, .blocks = 1,
                       .kind = AXIS, .dtype = QX_DT_FLOAT, .codes = QX_DT_UINT8,
                       .stype = QX_DT_FLOAT, .saturate = 1, .missing = 128};
    KC_RUN(qk_quantize, &a);
    const qx_quant q = {.grid = {ROWS, cols, 1, cols}, .format = {.codes = QX_DT_UINT8}, .scale = s, .zero = zero};
    qx_quantize(&q, QX_DT_FLOAT, x, codes);
    kc_back(y, a.y, (size_t)(ROWS * cols));
    kc_same("codes of rows", y, codes, (size_t)(ROWS * cols));
    kc_release();
}

static void quantize_rows(void)
{
    rows_of(64);
    rows_of(13);
}

/* Of INT32 sums. */
static void dequantize_sums(void)
{
    int32_t *x = kc_bytes(4 * N, 3);
    float s[D], y[N], want[N];
    scales_of(QX_DT_FLOAT, s, D, 4, false);
    qk_quant_args a = args_of(AXIS, QX_DT_FLOAT, QX_DT_INT32, QX_DT_FLOAT);
    a.x = kc_in(x, 4 * N, 0), a.scale = kc_reals(QX_DT_FLOAT, s, D, 0), a.y = kc_reals_out(QX_DT_FLOAT, N, 0);
    KC_RUN(qk_dequantize, &a);
    for (int i = 0; i < N; i++) want[i] = (float)x[i] * s[i / INNER % D];
    kc_reals_back(QX_DT_FLOAT, y, a.y, N);
    kc_agree("INT32", QX_DT_FLOAT, y, want, N, 0, 0);
    free(x);
}

static void dynamic_of(int dt, int64_t n, float from, float to)
{
    static float x[3000];
    static uint8_t y[3000], want[3000];
    float scale, want_scale, lo = 0, hi = 0;
    uint8_t zero;
    int32_t want_zero;
    uint32_t seed = 8;
    for (int64_t i = 0; i < n; i++) x[i] = from + (to - from) * rng_uniform(&seed);
    qk_dynamic_args a = {.x = kc_reals(dt, x, n, 0), .y = kc_out((size_t)n, 0), .scale = kc_out(4, 0), .zero = kc_out(1, 0),
                         .part = kc_out(512 * sizeof(float), 0), .n = n, .dtype = dt};
    KC_RUN(qk_dynamic_quant, &a);
    for (int64_t i = 0; i < n; i++) lo = x[i] < lo ? x[i] : lo, hi = x[i] > hi ? x[i] : hi;
    want_scale = (hi - lo) / 255 > 0 ? (hi - lo) / 255 : 1;
    want_zero = (int32_t)fmaxf(0, fminf(255, nearbyintf(-lo / want_scale)));
    const qx_quant q = {.grid = {1, n, 1, n}, .format = {.codes = QX_DT_UINT8}, .scale = &want_scale, .zero = &want_zero};
    qx_quantize(&q, QX_DT_FLOAT, x, want);
    kc_back(&scale, a.scale, 4), kc_back(&zero, a.zero, 1), kc_back(y, a.y, (size_t)n);
    assert_true(scale == want_scale && zero == want_zero);
    kc_same("dynamic codes", y, want, (size_t)n);
    kc_release();
}

static void dynamic(void)
{
    KC_EACH_REAL(dt) {
        dynamic_of(dt, 1, -3, -2);
        dynamic_of(dt, 2048, -1, 3);
        dynamic_of(dt, 2999, 2, 5);
        dynamic_of(dt, 77, 0, 0);
    }
}

const kernel_family kernels_quant[] = {{"quantize and dequantize", quantize}, {"quantize by rows", quantize_rows},
                                       {"dequantize of INT32", dequantize_sums}, {"dynamic_quant", dynamic}, {0}};
