/* kernel_pointwise.c - kernels/cuda/pointwise.cu and what stands behind products, against the CPU's loops: every function, every
 * type, hard numbers, pieces of eight and single elements. */
#include "kernel_case.h"
#include "kernels/pointwise.h"
#include "runtime/cpu/matmul/gemm.h"

enum { MOST = 2600 };
/* Lengths and distances from an aligned address (in elements) with which pieces of eight are taken, or not. */
static const struct { int64_t n, shift; } arrays[] = {{2560, 0}, {1003, 0}, {64, 1}, {8, 0}, {1, 3}};

static bool by_libm(qx_unary op)
{
    return op >= QX_U_EXP && op != QX_U_RECIPROCAL && op != QX_U_FLOOR && op != QX_U_CEIL && op != QX_U_ROUND && op != QX_U_RELU &&
        op != QX_U_LEAKY_RELU && op != QX_U_THRESHOLDED && op != QX_U_SHRINK &&
           op != QX_U_HARDSIGMOID && op != QX_U_HARDSWISH && op != QX_U_SOFTSIGN;
}

static void unary_reals(int dt, qx_unary op, int64_t n, int64_t shift)
{
    static float x[MOST], y[MOST], want[MOST];
    const float p[2] = {0.3f, 1.7f};
    char what[40];
    snprintf(what, sizeof what, "unary %d", op);
    kc_hard(x, n, 5 + (uint32_t)n);
    qk_unary_args a = {.x = kc_reals(dt, x, n, (size_t)shift * kc_size(dt)), .y = kc_reals_out(dt, n, (size_t)shift * kc_size(dt)),
                       .n = n, .op = op, .dtype = dt, .p = {p[0], p[1]}};
    KC_RUN(qk_unary, &a);
    qx_unary_find(op, QX_DT_FLOAT)(x, want, n, p);
    kc_reals_back(dt, y, a.y, n);
    kc_agree(what, dt, y, want, n, by_libm(op) ? 4e-6 : 1e-7, 1e-6);
    kc_release();
}

static void unary_integers(int dt, qx_unary op)
{
    const int64_t n = 333;
    const size_t bytes = (size_t)n * kc_size(dt);
    void *x = kc_bytes((int64_t)bytes, 8), *y = malloc(bytes), *want = malloc(bytes);
    qk_unary_args a = {.x = kc_in(x, bytes, 0), .y = kc_out(bytes, 0), .n = n, .op = op, .dtype = dt};
    KC_RUN(qk_unary, &a);
    qx_unary_find(op, (qx_dtype)dt)(x, want, n, NULL);
    kc_back(y, a.y, bytes);
    kc_same("unary of integers", y, want, bytes);
    free(x), free(y), free(want);
    kc_release();
}

static void unary(void)
{
    static const int integers[] = {QX_DT_INT8, QX_DT_INT16, QX_DT_INT32, QX_DT_INT64};
    static const qx_unary of_integers[] = {QX_U_ABS, QX_U_NEG, QX_U_SIGN, QX_U_RELU};
    for (int op = 0; op < QX_U_COUNT_; op++)
        KC_EACH_REAL(dt)
            for (int i = 0; i < COUNT(arrays); i++) unary_reals(dt, (qx_unary)op, arrays[i].n, arrays[i].shift);
    for (int i = 0; i < COUNT(integers); i++)
        for (int k = 0; k < COUNT(of_integers); k++) unary_integers(integers[i], of_integers[k]);
}

static void flip(void)
{
    uint8_t *x = kc_bytes(301, 3), y[301];
    qk_flip_args a = {kc_in(x, 301, 1), kc_out(301, 3), 301, 0x81};
    KC_RUN(qk_flip, &a);
    kc_back(y, a.y, 301);
    for (int i = 0; i < 301; i++) assert_int_equal(y[i], x[i] ^ 0x81);
    free(x);
}

static void is_nan(void)
{
    float x[300];
    uint8_t y[300];
    KC_EACH_REAL(dt)
        for (int kind = 0; kind < 4; kind++) {
            kc_hard(x, 300, 77);
            qk_isnan_args a = {kc_reals(dt, x, 300, 0), kc_out(300, 0), 300, dt, kind};
            KC_RUN(qk_isnan, &a);
            kc_back(y, a.y, 300);
            for (int i = 0; i < 300; i++)
                assert_int_equal(y[i], kind == 0 ? isnan(x[i]) : isinf(x[i]) && ((kind & 1 && x[i] > 0) || (kind & 2 && x[i] < 0)));
            kc_release();
        }
}

static void clip(void)
{
    float x[500], y[500], want[500];
    KC_EACH_REAL(dt) {
        kc_hard(x, 500, 6);
        qk_clip_args a = {.x = kc_reals(dt, x, 500, 0), .y = kc_reals_out(dt, 500, 0), .n = 500, .dtype = dt, .lo = -1.5f, .hi = 5};
        KC_RUN(qk_clip, &a);
        for (int i = 0; i < 500; i++) want[i] = x[i] < -1.5f ? -1.5f : x[i] > 5 ? 5 : x[i];
        kc_reals_back(dt, y, a.y, 500);
        kc_agree("clip", dt, y, want, 500, 0, 0);
        kc_release();
    }
    int64_t ints[100], back[100];
    for (int i = 0; i < 100; i++) ints[i] = ((int64_t)i - 50) * ((int64_t)1 << 55);
    qk_clip_args a = {.x = kc_in(ints, sizeof ints, 0), .y = kc_out(sizeof ints, 0), .n = 100, .dtype = QX_DT_INT64,
                      .ilo = -((int64_t)9 << 55), .ihi = (int64_t)7 << 56};
    KC_RUN(qk_clip, &a);
    kc_back(back, a.y, sizeof back);
    for (int i = 0; i < 100; i++) assert_int_equal(back[i], ints[i] < a.ilo ? a.ilo : ints[i] > a.ihi ? a.ihi : ints[i]);
}

/* ---- two operands ---- */

/* y [3][5][cols]; strides of an operand: dense, a row for all, one a row, one for all, steps between rows. */
typedef struct walk { int64_t stride[3], numel; } walk;
enum { WALKS = 5 };
static walk walk_of(int kind, int64_t cols)
{
    const walk all[WALKS] = {{{5 * cols, cols, 1}, 15 * cols}, {{0, 0, 1}, cols}, {{5, 1, 0}, 15}, {{0, 0, 0}, 1},
                             {{cols, 0, 1}, 3 * cols}};
    return all[kind];
}

static int64_t at(int64_t i, int64_t cols, const walk *w)
{
    return i / (5 * cols) * w->stride[0] + i / cols % 5 * w->stride[1] + i % cols * w->stride[2];
}

static bool compares(int op) { return op >= QX_B_EQUAL && op <= QX_B_GREATER_EQUAL; }

static void binary_reals(int dt, int op, int64_t cols, int wa, int wb, size_t shift)
{
    static float a[960], b[960], y[960], want[960];
    static uint8_t yes[960], want_yes[960];
    const int64_t n = 15 * cols;
    const walk ka = walk_of(wa, cols), kb = walk_of(wb, cols);
    char what[60];
    snprintf(what, sizeof what, "binary %d, operands %d and %d", op, wa, wb);
    kc_hard(a, ka.numel, 11);
    kc_hard(b, kb.numel, 12);
    qk_binary_args q = {.a = kc_reals(dt, a, ka.numel, shift), .b = kc_reals(dt, b, kb.numel, 0),
                        .y = compares(op) ? kc_out((size_t)n, 0) : kc_reals_out(dt, n, 0), .n = n, .rank = 3, .op = op, .dtype = dt,
                        .dims = {3, 5, cols}};
    memcpy(q.sa, ka.stride, sizeof ka.stride);
    memcpy(q.sb, kb.stride, sizeof kb.stride);
    KC_RUN(qk_binary, &q);
    for (int64_t i = 0; i < n; i++)
        qx_binary_find((qx_binary)op, QX_DT_FLOAT)(&a[at(i, cols, &ka)], 1, &b[at(i, cols, &kb)], 1,
                                                   compares(op) ? (void *)&want_yes[i] : (void *)&want[i], 1);
    if (compares(op)) {
        kc_back(yes, q.y, (size_t)n);
        kc_same(what, yes, want_yes, (size_t)n);
    } else {
        kc_reals_back(dt, y, q.y, n);
        kc_agree(what, dt, y, want, n, op == QX_B_POW ? 4e-6 : 1e-7, 0);
    }
    kc_release();
}

static void binary_integers(int dt, int op)
{
    const int64_t n = 257;
    const size_t bytes = (size_t)n * kc_size(dt), out = compares(op) ? (size_t)n : bytes;
    void *a = kc_bytes((int64_t)bytes, 4), *b = kc_bytes((int64_t)bytes, 5), *y = malloc(bytes), *want = malloc(bytes);
    memset(b, 0, kc_size(dt) * 3); /* divisions by zero */
    qk_binary_args q = {.a = kc_in(a, bytes, 0), .b = kc_in(b, bytes, 0), .y = kc_out(out, 0), .n = n, .rank = 1, .op = op, .dtype = dt,
                        .dims = {n}, .sa = {1}, .sb = {1}};
    KC_RUN(qk_binary, &q);
    qx_binary_find((qx_binary)op, (qx_dtype)dt)(a, 1, b, 1, want, n);
    kc_back(y, q.y, out);
    kc_same("binary of integers", y, want, out);
    free(a), free(b), free(y), free(want);
    kc_release();
}

static void binary(void)
{
    static const int integers[] = {QX_DT_INT8, QX_DT_UINT8, QX_DT_INT32, QX_DT_INT64};
    for (int op = 0; op <= QX_B_GREATER_EQUAL; op++) {
        for (int wb = 0; wb < WALKS; wb++) KC_EACH_REAL(dt) binary_reals(dt, op, wb % 2 ? 64 : 13, 0, wb, 0);
        for (int wa = 1; wa < WALKS; wa++) binary_reals(kc_real_types[wa % 3], op, 64, wa, 0, wa == 1 ? kc_size(kc_real_types[wa % 3]) : 0);
    }
    for (int op = 0; op <= QX_B_XOR; op++)
        for (int i = 0; i < COUNT(integers); i++)
            if (qx_binary_find((qx_binary)op, (qx_dtype)integers[i])) binary_integers(integers[i], op);
}

/* The same operations as single loops, rounded to the type after each. */
static void chain_of(int dt, int64_t cols)
{
    static float x[960], row[960], col[960], v[960], y[960];
    const int64_t n = 15 * cols;
    const walk walks[3] = {walk_of(0, cols), walk_of(1, cols), walk_of(2, cols)};
    const float p[2] = {0.3f, 0};
    float *operands[3] = {x, row, col};
    kc_even(x, n, 1), kc_even(row, cols, 2), kc_even(col, 15, 3);
    qk_chain_args a = {.n = n, .rank = 3, .dtype = dt, .n_in = 3, .n_ops = 5, .dims = {3, 5, cols},
                       .ops = {{QX_U_RELU, 0, 0, 0, {0, 0}}, {QX_B_SUB, 1, 1, 1, {0, 0}}, {QX_U_LEAKY_RELU, 0, 0, 0, {p[0], 0}},
                               {QX_B_MUL, 1, 0, 2, {0, 0}}, {QX_B_DIV, 1, 1, 1, {0, 0}}}};
    for (int i = 0; i < 3; i++) {
        a.in[i] = kc_reals(dt, operands[i], walks[i].numel, 0);
        memcpy(a.strides[i], walks[i].stride, sizeof walks[i].stride);
    }
    a.y = kc_reals_out(dt, n, 0);
    KC_RUN(qk_chain, &a);
    memcpy(v, x, sizeof v);
    for (int o = 0; o < a.n_ops; o++) {
        uint32_t typed;
        for (int64_t i = 0; i < n; i++) {
            const qk_chain_op *op = &a.ops[o];
            float u = op->binary ? operands[op->input][at(i, cols, &walks[op->input])] : 0;
            if (!op->binary) qx_unary_find((qx_unary)op->fn, QX_DT_FLOAT)(&v[i], &v[i], 1, op->p);
            else qx_binary_find((qx_binary)op->fn, QX_DT_FLOAT)(op->swapped ? &u : &v[i], 1, op->swapped ? &v[i] : &u, 1, &v[i], 1);
            qx_from_f32(dt, &v[i], 1, &typed);
            qx_to_f32(dt, &typed, 1, &v[i]);
        }
    }
    kc_reals_back(dt, y, a.y, n);
    kc_agree("chain", dt, y, v, n, 0, 0);
    kc_release();
}

static void chain(void)
{
    KC_EACH_REAL(dt) {
        chain_of(dt, 64);
        chain_of(dt, 13);
    }
}

static void where(void)
{
    for (int size = 1; size <= 8; size *= 2) {
        const int64_t cols = 13, n = 15 * cols;
        const walk wc = walk_of(1, cols), wa = walk_of(2, cols), wb = walk_of(0, cols);
        uint8_t *c = kc_bytes(wc.numel, 9), *a = kc_bytes(wa.numel * size, 2), *b = kc_bytes(wb.numel * size, 3),
            *y = malloc((size_t)(n * size));
        for (int64_t i = 0; i < wc.numel; i++) c[i] &= 1;
        qk_where_args q = {.c = kc_in(c, (size_t)wc.numel, 0), .a = kc_in(a, (size_t)(wa.numel * size), 0),
                           .b = kc_in(b, (size_t)(wb.numel * size), 0), .y = kc_out((size_t)(n * size), 0), .n = n, .rank = 3, .size = size,
                           .dims = {3, 5, cols}};
        memcpy(q.sc, wc.stride, sizeof wc.stride), memcpy(q.sa, wa.stride, sizeof wa.stride), memcpy(q.sb, wb.stride, sizeof wb.stride);
        KC_RUN(qk_where, &q);
        kc_back(y, q.y, (size_t)(n * size));
        for (int64_t i = 0; i < n; i++) {
            const uint8_t *want = c[at(i, cols, &wc)] ? a + at(i, cols, &wa) * size : b + at(i, cols, &wb) * size;
            assert_memory_equal(y + i * size, want, (size_t)size);
        }
        free(c), free(a), free(b), free(y);
        kc_release();
    }
}

/* ---- casts ---- */

static void cast_small(int from, int to, int64_t n, size_t shift)
{
    static float x[MOST];
    static uint8_t typed[4 * MOST], want[4 * MOST], y[4 * MOST];
    size_t in, out;
    char what[60];
    snprintf(what, sizeof what, "cast %s to %s", qx_dtype_get(from)->text, qx_dtype_get(to)->text);
    kc_hard(x, n, 31);
    assert_true(qx_dtype_bytes(from, n, &in) && qx_dtype_bytes(to, n, &out));
    qx_ref_from_f32(from, x, n, typed);
    qx_ref_to_f32(from, typed, n, x);
    for (int64_t i = 0; i < n; i++) x[i] = isnan(x[i]) ? 3 : x[i]; /* a NaN may lose its payload */
    qx_ref_from_f32(from, x, n, typed);
    qx_ref_from_f32(to, x, n, want);
    qk_cast_args a = {.x = kc_in(typed, in, shift * in / (size_t)n), .y = kc_out(out, 0), .n = n, .from = from, .to = to, .saturate = 1};
    KC_RUN(qk_cast, &a);
    kc_back(y, a.y, out);
    kc_same(what, y, want, out);
    kc_release();
}

/* As the CPU casts (runtime/cpu/pointwise/cast.c): towards zero, what does not fit at the ends of 64 bits, then the low bits. */
static void cast_integers(int to)
{
    static const float x[] = {0, -0.0f, 0.9f, -0.9f, 1.5f, -1.5f, 127.9f, 128, -128.9f, 255.5f, 256, 65535.5f, 1e9f, -1e9f, 3e9f, 1e20f,
                              -1e20f, NAN, INFINITY, -INFINITY};
    const int64_t n = COUNT(x);
    const size_t size = kc_size(to);
    uint8_t y[8 * COUNT(x)];
    qk_cast_args a = {.x = kc_in(x, sizeof x, 0), .y = kc_out((size_t)n * size, 0), .n = n, .from = QX_DT_FLOAT, .to = to};
    KC_RUN(qk_cast, &a);
    kc_back(y, a.y, (size_t)n * size);
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)x[i];
        int64_t want = isnan(x[i]) ? 0 : v <= -0x1p63 ? INT64_MIN : v >= 0x1p63 ? INT64_MAX : (int64_t)v;
        if (to == QX_DT_BOOL) want = x[i] != 0;
        assert_memory_equal(y + (size_t)i * size, &want, size);
    }
    kc_release();
}

static void cast(void)
{
    static const int types[] = {QX_DT_FLOAT, QX_DT_FLOAT16, QX_DT_BFLOAT16, QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E5M2, QX_DT_FLOAT8E4M3FNUZ,
                                QX_DT_FLOAT8E5M2FNUZ};
    static const int integers[] = {QX_DT_INT8, QX_DT_UINT8, QX_DT_INT16, QX_DT_UINT16, QX_DT_INT32, QX_DT_INT64, QX_DT_BOOL};
    for (int f = 0; f < COUNT(types); f++)
        for (int t = 0; t < COUNT(types); t++)
            for (int i = 0; i < COUNT(arrays); i++) cast_small(types[f], types[t], arrays[i].n, (size_t)arrays[i].shift);
    KC_EACH_REAL(dt) cast_small(dt, QX_DT_FLOAT4E2M1, 333, 0);
    for (int i = 0; i < COUNT(integers); i++) cast_integers(integers[i]);
}

/* ---- activations ---- */

static void act_rows(qx_act act, float *x, int64_t n)
{
    if (act != QX_ACT_NONE) qx_act_row(act, x, x, n);
}

static void bias_of(int dt, qx_act act, int64_t cols, bool all, size_t shift)
{
    static float x[960], bias[64], mul[960], plus[960], y[960];
    const int64_t n = 15 * cols;
    kc_even(x, n, 1), kc_even(bias, cols, 2), kc_even(mul, n, 3), kc_even(plus, n, 4);
    qk_bias_rows_args a = {.x = kc_reals(dt, x, n, shift), .bias = kc_reals(dt, bias, cols, 0), .y = kc_reals_out(dt, n, 0), .rows = 15,
                           .n = cols, .dtype = dt, .btype = dt, .act = act};
    if (all) a.mul = kc_reals(dt, mul, n, 0), a.plus = kc_reals(dt, plus, n, 0);
    KC_RUN(qk_bias_act, &a);
    for (int64_t i = 0; i < n; i++) x[i] += bias[i % cols];
    act_rows(act, x, n);
    for (int64_t i = 0; i < n && all; i++) x[i] = x[i] * mul[i] + plus[i];
    kc_reals_back(dt, y, a.y, n);
    kc_agree("bias and activation", dt, y, x, n, 4e-6, 1);
    kc_release();
}

static void bias_act(void)
{
    for (int act = QX_ACT_NONE; act <= QX_ACT_TANH; act++)
        KC_EACH_REAL(dt) {
            bias_of(dt, (qx_act)act, 64, true, 0);
            bias_of(dt, (qx_act)act, 64, false, kc_size(dt));
            bias_of(dt, (qx_act)act, 13, true, 0);
        }
}

static void glu_of(int dt, qx_act act, int64_t cols, bool upper)
{
    static float x[2 * 960], y[960], want[960];
    kc_even(x, 30 * cols, 5);
    qk_glu_args a = {.x = kc_reals(dt, x, 30 * cols, 0), .y = kc_reals_out(dt, 15 * cols, 0), .rows = 15, .d = cols, .dtype = dt,
                     .act = act, .upper = upper};
    KC_RUN(qk_glu, &a);
    for (int64_t r = 0; r < 15; r++)
        for (int64_t c = 0; c < cols; c++) {
            float g = x[2 * r * cols + c + (upper ? cols : 0)];
            act_rows(act, &g, 1);
            want[r * cols + c] = g * x[2 * r * cols + c + (upper ? 0 : cols)];
        }
    kc_reals_back(dt, y, a.y, 15 * cols);
    kc_agree("gated unit", dt, y, want, 15 * cols, 4e-6, 1);
    kc_release();
}

static void glu(void)
{
    for (int act = QX_ACT_RELU; act <= QX_ACT_TANH; act++)
        KC_EACH_REAL(dt) {
            glu_of(dt, (qx_act)act, 64, true);
            glu_of(dt, (qx_act)act, 13, false);
        }
}

const kernel_family kernels_pointwise[] = {{"unary", unary}, {"flip", flip}, {"isnan", is_nan}, {"clip", clip}, {"binary", binary},
                                           {"chain", chain}, {"where", where}, {"cast", cast},
                                           {"bias_act", bias_act}, {"glu", glu}, {0}};
