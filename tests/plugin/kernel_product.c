/* kernel_product.c - our own products (kernels/cuda/gemm.cu, codes.cu, sparse.cu) against sums in double, and what stands behind
 * a library's products: every type, dims that fill no tile, weights turned and not, batches that are shared. */
#include "kernel_case.h"
#include "kernels/nbits.h"
#include "kernels/quant.h"
#include "runtime/cpu/matmul/gemm.h"

enum { MOST = 1 << 16 };
static float xs[MOST], ws[MOST], ys[MOST], want[MOST];

/* A sum of k products of numbers in (-1, 1), against its size: f32 in order of k. */
static double within(int64_t k) { return 1e-6 * sqrt((double)k); }

/* ---- reals ---- */

typedef struct gemm_case { int64_t m, n, k, batch; bool x_turned, w_turned, one_w, behind; int wtype; } gemm_case; /* wtype 0: that of x */

static void gemm_of(int dt, const gemm_case *c)
{
    const int wt = c->wtype ? c->wtype : dt;
    static float mul[MOST / 8], plus[MOST / 8];
    float bias[70], add[70], scale[70];
    const int64_t nx = c->batch * c->m * c->k, nw = (c->one_w ? 1 : c->batch) * c->k * c->n, ny = c->batch * c->m * c->n;
    kc_even(xs, nx, 1), kc_even(ws, nw, 2), kc_even(bias, c->n, 3), kc_even(add, c->m, 4), kc_even(mul, ny, 5), kc_even(plus, ny, 6),
        kc_even(scale, c->n, 7);
    qk_gemm_args a = {.x = kc_reals(dt, xs, nx, 0), .w = kc_reals(wt, ws, nw, 0), .y = kc_reals_out(dt, ny, 0), .m = c->m, .n = c->n,
                      .k = c->k, .batch = c->batch, .xr = c->x_turned ? 1 : c->k, .xc = c->x_turned ? c->m : 1,
                      .wr = c->w_turned ? 1 : c->n, .wc = c->w_turned ? c->k : 1, .yr = c->n, .yc = 1, .brank = c->batch > 1,
                      .bdims = {c->batch}, .bx = {c->m * c->k}, .bw = {c->one_w ? 0 : c->k * c->n}, .by = c->m * c->n, .dtype = dt,
                      .wtype = wt, .ytype = dt, .btype = dt, .act = c->behind ? QX_ACT_SILU : QX_ACT_NONE, .alpha = 0.5f, .beta = 2};
    if (c->behind)
        a.bias = kc_reals(dt, bias, c->n, 0), a.add = kc_reals(dt, add, c->m, 0), a.add_r = 1, a.mul = kc_reals(dt, mul, ny, 0),
            a.plus = kc_reals(dt, plus, ny, 0), a.col_scale = kc_in(scale, (size_t)c->n * 4, 0);
    KC_RUN(qk_gemm, &a);
    for (int64_t i = 0; i < ny; i++) {
        const int64_t b = i / c->n / c->m, m = i / c->n % c->m, n = i % c->n;
        double s = 0;
        for (int64_t k = 0; k < c->k; k++)
            s += (double)xs[b * a.bx[0] + m * a.xr + k * a.xc] * (double)ws[b * a.bw[0] + k * a.wr + n * a.wc];
        s *= 0.5;
        if (c->behind)
            s = s * (double)scale[n] + (double)bias[n] + 2 * (double)add[m], s = s / (1 + exp(-s)) * (double)mul[i] + (double)plus[i];
        want[i] = (float)s;
    }
    kc_reals_back(dt, ys, a.y, ny);
    kc_agree("product", dt, ys, want, ny, within(c->k), 1);
    kc_release();
}

static void gemm(void)
{
    static const gemm_case cases[] = {{1, 1, 1, 1, 0, 0, 0, 0, 0}, {5, 67, 130, 1, 0, 0, 0, 1, 0}, {70, 33, 17, 2, 1, 0, 0, 0, 0},
                                      {9, 64, 64, 3, 0, 1, 1, 1, 0}, {66, 3, 40, 2, 1, 1, 0, 1, 0},
                                      {3, 20, 64, 1, 0, 1, 0, 0, QX_DT_FLOAT8E4M3FN}};
    for (int i = 0; i < COUNT(cases); i++) KC_EACH_REAL(dt) gemm_of(dt, &cases[i]);
}

/* ---- integers ---- */

/* With everything known on the host, and what stands behind it. */
static void int8_of(int64_t m, int64_t n, int64_t k, bool x_unsigned, bool w_turned, int zx, bool rows, int ytype)
{
    uint8_t *x = kc_bytes(m * k, 1);
    int8_t *w = kc_bytes(n * k, 2);
    float scale[70], bias[70], row[70];
    kc_even(scale, n, 3), kc_even(bias, n, 4), kc_even(row, m, 5);
    qk_int8_args a = {.x = kc_in(x, (size_t)(m * k), 0), .w = kc_in(w, (size_t)(n * k), 0), .bias = kc_reals(ytype, bias, n, 0),
                      .sw = kc_in(scale, (size_t)n * 4, 0), .rows = rows ? kc_in(row, (size_t)m * 4, 0) : NULL,
                      .y = kc_reals_out(ytype, m * n, 0), .m = m, .n = n, .k = k, .batch = 1,
                      .wr = w_turned ? 1 : n, .wc = w_turned ? k : 1, .yr = n, .yc = 1, .x_unsigned = x_unsigned, .zx = zx,
                          .ytype = ytype, .btype = ytype};
    KC_RUN(qk_int8_gemm, &a);
    for (int64_t i = 0; i < m * n; i++) {
        int32_t s = 0;
        for (int64_t q = 0; q < k; q++) s += ((x_unsigned ? x[i / n * k + q] : (int8_t)x[i / n * k + q]) - zx) * w[q * a.wr + i % n * a.wc];
        want[i] = (float)s * (rows ? row[i / n] : 1) * scale[i % n] + bias[i % n];
    }
    kc_reals_back(ytype, ys, a.y, m * n);
    kc_agree("product of codes", ytype, ys, want, m * n, 1e-7, 0);
    free(x), free(w);
    kc_release();
}

static void int8_gemm(void)
{
    KC_EACH_REAL(dt) {
        int8_of(1, 1, 1, false, false, 0, false, dt);
        int8_of(5, 67, 130, true, false, 117, true, dt);
        int8_of(70, 33, 17, false, true, -9, false, dt);
    }
}

/* INT32 sums of matrices, zero points on the device: one, or one a row (column). */
static void integers_of(bool x_unsigned, bool w_unsigned, int64_t x_zeros, int64_t w_zeros, bool one_w)
{
    enum { B = 3, M = 70, N = 67, K = 37 };
    uint8_t *x = kc_bytes(B * M * K, 1), *w = kc_bytes(B * K * N, 2), *zx = kc_bytes(M, 3), *zw = kc_bytes(N, 4);
    static int32_t y[B * M * N];
    qk_int8_args a = {.x = kc_in(x, B * M * K, 0), .w = kc_in(w, B * K * N, 0), .x_zero = kc_in(zx, M, 0), .w_zero = kc_in(zw, N, 0),
                      .y = kc_out(sizeof y, 0), .m = M, .n = N, .k = K, .batch = B, .wr = N, .wc = 1, .yr = N, .yc = 1,
                      .x_zeros = x_zeros, .w_zeros = w_zeros, .brank = 1, .bdims = {B}, .bx = {M * K}, .bw = {one_w ? 0 : K * N},
                          .by = M * N, .x_unsigned = x_unsigned, .w_unsigned = w_unsigned};
    KC_RUN(qk_int8_gemm, &a);
    kc_back(y, a.y, sizeof y);
#define CODE(is_unsigned, v) ((is_unsigned) ? (int)(v) : (int)(int8_t)(v))
    for (int64_t i = 0; i < B * M * N; i++) {
        const int64_t b = i / N / M, m = i / N % M, n = i % N;
        int32_t s = 0;
        for (int64_t k = 0; k < K; k++)
            s += (CODE(x_unsigned, x[(b * M + m) * K + k]) - CODE(x_unsigned, zx[m % x_zeros])) * (CODE(w_unsigned,
                w[(one_w ? 0 : b) * K * N + k * N + n]) - CODE(w_unsigned, zw[n % w_zeros]));
        assert_int_equal(y[i], s);
    }
    free(x), free(w), free(zx), free(zw);
    kc_release();
}

static void integers(void)
{
    integers_of(true, false, 1, 1, true);
    integers_of(false, true, 70, 67, false);
    integers_of(true, true, 1, 67, false);
}

static void scale_of(int ytype, int64_t n, bool whole, bool one, size_t shift)
{
    enum { M = 15 };
    int32_t *acc = kc_bytes(4 * M * n, 5), sums[64];
    float scale[64], bias[64];
    kc_even(scale, n, 3), kc_even(bias, n, 4);
    for (int64_t i = 0; i < M * n; i++) acc[i] /= 1 << 10, xs[i] = (float)acc[i] / 3;
    for (int64_t i = 0; i < n; i++) sums[i] = (int32_t)i * 77 - 1000;
    qk_scale_args a = {.acc = whole ? kc_in(acc, (size_t)(4 * M * n), 0) : kc_in(xs, (size_t)(4 * M * n), 0),
                       .sums = whole ? kc_in(sums, (size_t)n * 4, 0) : NULL, .scale = kc_in(scale, (size_t)n * 4, 0),
                       .bias = kc_reals(ytype, bias, n, 0),
                       .y = kc_reals_out(ytype, M * n, shift * kc_size(ytype)), .m = M, .n = n, .whole = whole, .zx = whole ? -11 : 0,
                           .one = one, .ytype = ytype, .btype = ytype};
    KC_RUN(qk_scale_rows, &a);
    for (int64_t i = 0; i < M * n; i++)
        want[i] = (whole ? (float)(acc[i] + 11 * sums[i % n]) : xs[i]) * scale[one ? 0 : i % n] + bias[i % n];
    kc_reals_back(ytype, ys, a.y, M * n);
    kc_agree("scaled sums", ytype, ys, want, M * n, 1e-7, 0);
    free(acc);
    kc_release();
}

static void scale_rows(void)
{
    KC_EACH_REAL(dt)
        for (int flags = 0; flags < 4; flags++) {
            scale_of(dt, 64, flags & 1, flags & 2, 0);
            scale_of(dt, 64, flags & 1, flags & 2, 1);
            scale_of(dt, 13, flags & 1, flags & 2, 0);
        }
}

static void row_sums(void)
{
    int8_t *w = kc_bytes(37 * 300, 1);
    int32_t sums[37];
    qk_sums_args a = {kc_in(w, 37 * 300, 0), kc_out(sizeof sums, 0), 37, 300};
    KC_RUN(qk_row_sums, &a);
    kc_back(sums, a.sums, sizeof sums);
    for (int i = 0; i < 37; i++) {
        int32_t s = 0;
        for (int k = 0; k < 300; k++) s += w[i * 300 + k];
        assert_int_equal(sums[i], s);
    }
    free(w);
}

/* Scales of rows; and the sums without what the zero point adds, which is known on the device only. */
static void sums_of(bool x_unsigned)
{
    enum { M = 9, N = 24 };
    int32_t *acc = kc_bytes(4 * M * N, 5), sums[N], y[M * N];
    const uint8_t code = 0x93;
    const int zero = x_unsigned ? code - 128 : (int8_t)code;
    float scale[N], rows[M];
    kc_even(scale, N, 3), kc_even(rows, M, 4);
    for (int i = 0; i < M * N; i++) acc[i] /= 1 << 10;
    for (int i = 0; i < N; i++) sums[i] = i * 77 - 1000;
    qk_scale_args a = {.acc = kc_in(acc, sizeof y, 0), .sums = kc_in(sums, sizeof sums, 0), .x_zero = kc_in(&code, 1, 0),
                       .y = kc_out(sizeof y, 0), .m = M, .n = N, .whole = 1, .zx = x_unsigned ? -128 : 0, .x_unsigned = x_unsigned};
    KC_RUN(qk_scale_rows, &a);
    kc_back(y, a.y, sizeof y);
    for (int i = 0; i < M * N; i++) assert_int_equal(y[i], acc[i] - zero * sums[i % N]);
    a.scale = kc_in(scale, sizeof scale, 0), a.rows = kc_in(rows, sizeof rows, 0), a.ytype = QX_DT_FLOAT,
        a.y = kc_reals_out(QX_DT_FLOAT, M * N, 0);
    KC_RUN(qk_scale_rows, &a);
    for (int i = 0; i < M * N; i++) want[i] = (float)y[i] * rows[i / N] * scale[i % N];
    kc_reals_back(QX_DT_FLOAT, ys, a.y, M * N);
    kc_agree("sums by scales of rows", QX_DT_FLOAT, ys, want, M * N, 1e-7, 0);
    free(acc);
    kc_release();
}

static void integer_sums(void)
{
    sums_of(false);
    sums_of(true);
}

/* ---- weights of few bits ---- */

typedef struct codes_case { int ctype; int64_t m, n, k, block; bool nk, zero; } codes_case; /* block 0: a scale a column */

/* The weight as numbers [n, k], and its parts on the device. */
static qk_codes_args weight_of(int dt, const codes_case *c, float *w)
{
    const int bits = (int)qx_dtype_bits(c->ctype);
    const bool sign = c->ctype == QX_DT_INT8 || c->ctype == QX_DT_INT4 || c->ctype == QX_DT_INT2;
    const int64_t blocks = c->block ? (c->k + c->block - 1) / c->block : 1, cells = c->n * blocks;
    uint8_t *packed = kc_bytes(c->n * c->k * bits / 8 + 1, 9), *codes = malloc((size_t)(c->n * c->k)), zeros[MOST / 64],
        packed_zeros[MOST / 64];
    float scale[MOST / 64];
    uint32_t seed = 4;
    qx_unpack(bits == 8 ? 4 : bits, sign, packed, bits == 8 ? 0 : c->n * c->k, codes);
    if (bits == 8) memcpy(codes, packed, (size_t)(c->n * c->k));
    for (int64_t i = 0; i < cells; i++) scale[i] = 0.01f + 0.1f * rng_uniform(&seed), zeros[i] = (uint8_t)(i % 3);
    if (bits == 8) memcpy(packed_zeros, zeros, (size_t)cells);
    else qx_pack(bits, zeros, cells, packed_zeros);
    qk_codes_args a = {.codes = kc_in(packed, (size_t)(c->n * c->k * bits + 7) / 8, 0), .scale = kc_reals(dt, scale, cells, 0),
                       .zero = c->zero ? kc_in(packed_zeros, (size_t)(cells * bits + 7) / 8, 0) : NULL, .m = c->m, .n = c->n, .k = c->k,
                       .block = c->block, .blocks = blocks, .s_n = c->block && c->nk ? blocks : 1,
                           .s_k = !c->block ? 0 : c->nk ? 1 : c->n, .dtype = dt, .stype = dt, .btype = dt, .ctype = c->ctype, .nk = c->nk};
    for (int64_t n = 0; n < c->n; n++)
        for (int64_t k = 0; k < c->k; k++) {
            const uint8_t v = codes[c->nk ? n * c->k + k : k * c->n + n];
            const int64_t cell = n * a.s_n + (c->block ? k / c->block : 0) * a.s_k;
            w[n * c->k + k] = (float)((sign ? (int8_t)v : v) - (c->zero ? zeros[cell] : 0)) * scale[cell];
        }
    free(packed), free(codes);
    return a;
}

static void codes_of(int dt, const codes_case *c)
{
    float bias[64];
    qk_codes_args a = weight_of(dt, c, ws);
    kc_even(xs, c->m * c->k, 1), kc_even(bias, c->n, 2);
    a.x = kc_reals(dt, xs, c->m * c->k, 0), a.bias = kc_reals(dt, bias, c->n, 0), a.y = kc_reals_out(dt, c->m * c->n, 0),
        a.act = QX_ACT_RELU;
    KC_RUN(qk_codes_linear, &a);
    double most = 0;
    for (int64_t i = 0; i < c->m * c->n; i++) {
        double s = (double)bias[i % c->n], size = 1;
        for (int64_t k = 0; k < c->k; k++)
            s += (double)xs[i / c->n * c->k + k] * (double)ws[i % c->n * c->k + k],
                size += fabs((double)xs[i / c->n * c->k + k] * (double)ws[i % c->n * c->k + k]);
        want[i] = s > 0 ? (float)s : 0;
        most = size > most ? size : most;
    }
    kc_reals_back(dt, ys, a.y, c->m * c->n); /* matrix units get weights rounded to their type */
    kc_agree("product by a weight of codes", dt, ys, want, c->m * c->n, dt == QX_DT_FLOAT ? 1e-6 : dt == QX_DT_FLOAT16 ? 2e-4 : 2e-3, most);
    a.y = kc_reals_out(dt, c->n * c->k, 0);
    KC_RUN(qk_codes_expand, &a);
    kc_reals_back(dt, ys, a.y, c->n * c->k);
    kc_agree("weight of codes", dt, ys, ws, c->n * c->k, 1e-7, 0);
    if (!c->nk) { /* and turned, the same weight again */
        qk_codes_args t = a, u = a;
        t.y = kc_out((size_t)(c->n * c->k * qx_dtype_bits(c->ctype) + 7) / 8, 0);
        KC_RUN(qk_codes_turn, &t);
        u.codes = t.y, u.nk = 1, u.y = kc_reals_out(dt, c->n * c->k, 0);
        KC_RUN(qk_codes_expand, &u);
        kc_reals_back(dt, ys, u.y, c->n * c->k);
        kc_agree("turned weight of codes", dt, ys, ws, c->n * c->k, 1e-7, 0);
    }
    kc_release();
}

/* Rows of it, from the end and out of range. */
static void rows_of(int dt, const codes_case *c)
{
    static const int64_t picks[] = {3, -1, 0, 99, 3};
    const int32_t nil = 0;
    int32_t hit;
    qk_codes_rows_args a = {.w = weight_of(dt, c, ws), .idx = kc_in(picks, sizeof picks, 0), .bad = kc_in(&nil, sizeof nil, 0),
                            .count = COUNT(picks), .wide = 1};
    a.w.y = kc_reals_out(dt, COUNT(picks) * c->k, 0);
    KC_RUN(qk_codes_rows, &a);
    for (int64_t i = 0; i < COUNT(picks) * c->k; i++) {
        const int64_t n = picks[i / c->k] < 0 ? picks[i / c->k] + c->n : picks[i / c->k];
        want[i] = n < c->n ? ws[n * c->k + i % c->k] : 0;
    }
    kc_reals_back(dt, ys, a.w.y, COUNT(picks) * c->k);
    kc_agree("rows of codes", dt, ys, want, COUNT(picks) * c->k, 1e-7, 0);
    kc_back(&hit, a.bad, sizeof hit);
    assert_int_equal(hit, 1);
    kc_release();
}

static void codes(void)
{
    static const codes_case cases[] = {
        {QX_DT_INT4, 1, 40, 416, 32, false, true}, {QX_DT_UINT4, 11, 24, 1152, 64, true, true},
        {QX_DT_UINT4, 3, 17, 96, 16, true, false}, {QX_DT_INT4, 2, 33, 37, 0, true, true}, {QX_DT_UINT2, 9, 33, 48, 0, true, true},
        {QX_DT_INT2, 1, 20, 64, 16, false, false}, {QX_DT_INT8, 5, 32, 64, 0, false, true}, {QX_DT_UINT8, 12, 18, 72, 24, true, true},
        {QX_DT_INT8, 1, 7, 19, 5, false, false},
    };
    for (int i = 0; i < COUNT(cases); i++)
        KC_EACH_REAL(dt) {
            codes_of(dt, &cases[i]);
            if (cases[i].nk) rows_of(dt, &cases[i]);
        }
}

/* ---- 2:4 ---- */

/* Whole numbers that the type holds exactly, so that sums are exact. */
static float whole(uint32_t *seed, int dtype)
{
    return dtype == QX_DT_FLOAT8E4M3FN ? (float)(int32_t)(rng_next(seed) >> 27) - 15 : (float)(int32_t)(rng_next(seed) >> 24) - 127;
}

static void sparse_of(int dtype, int64_t m, int64_t n, int64_t k)
{
    uint32_t seed = 1u + (uint32_t)(m + n + k);
    float *w = calloc((size_t)(n * k), 4), *x = malloc((size_t)(m * k) * 4), *y = malloc((size_t)(m * n) * 4);
    int32_t bad = 0;
    for (int64_t i = 0; i < n * k; i += 4)
        for (int j = 0; j < 2; j++) /* two places of four, sometimes the same one, sometimes none */
            if (rng_next(&seed) >> 29) w[i + (rng_next(&seed) >> 20 & 3)] = whole(&seed, dtype);
    for (int64_t i = 0; i < m * k; i++) x[i] = whole(&seed, dtype);
    int32_t *flag = kc_in(&bad, sizeof bad, 0);
    const size_t size = kc_size(dtype);
    qk_compress_args c = {kc_reals(dtype, w, n * k, 0), kc_out((size_t)(n * k / 2) * size, 0), kc_out((size_t)(n * k / 32) * 4, 0), flag,
                          n, k, dtype};
    KC_RUN(qk_sparse_compress, &c);
    kc_back(&bad, flag, sizeof bad);
    assert_int_equal(bad, 0);
    qk_sparse_args s = {kc_reals(dtype, x, m * k, 0), c.values, NULL, c.meta, kc_out((size_t)(m * n) * 4, 0), m, n, k, dtype,
                        QX_DT_FLOAT, 1.0f};
    KC_RUN(qk_sparse_gemm, &s);
    kc_back(y, s.y, (size_t)(m * n) * 4);
    for (int64_t i = 0; i < m * n; i++) {
        double sum = 0;
        for (int64_t q = 0; q < k; q++) sum += (double)x[i / n * k + q] * (double)w[i % n * k + q];
        if ((double)y[i] != sum)
            fail_msg("%s [%lld,%lld,%lld], element %lld: %g instead of %g", qx_dtype_get(dtype)->text, (long long)m, (long long)n,
                     (long long)k, (long long)i, (double)y[i], sum);
    }
    w[8] = w[9] = w[10] = 1; /* three of four */
    c.w = kc_reals(dtype, w, n * k, 0);
    KC_RUN(qk_sparse_compress, &c);
    kc_back(&bad, flag, sizeof bad);
    assert_int_equal(bad, 1);
    free(w), free(x), free(y);
    kc_release();
}

static void sparse(void)
{
    sparse_of(QX_DT_FLOAT16, 5, 48, 96);
    sparse_of(QX_DT_FLOAT16, 40, 16, 32);
    sparse_of(QX_DT_INT8, 37, 80, 128);
    sparse_of(QX_DT_INT8, 1, 16, 64);
    sparse_of(QX_DT_INT8, 3, 16, 64 * 70);
    sparse_of(QX_DT_FLOAT8E4M3FN, 37, 48, 128);
}

const kernel_family kernels_product[] = {{"gemm", gemm}, {"int8_gemm", int8_gemm}, {"int8_gemm, INT32 sums", integers},
                                         {"scale_rows", scale_rows}, {"scale_rows, scales of rows", integer_sums},
                                         {"row_sums", row_sums}, {"codes_linear, codes_expand, codes_turn, codes_rows", codes},
                                         {"sparse_compress, sparse_gemm", sparse}, {0}};
