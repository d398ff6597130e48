/* test_nbits.c - products with few-bit weights against a double sum over codes decoded here one by one. */
#include "kernels.h"

#include "kernels/loops/nbits_leaf.h"

typedef struct ncase { int bits; bool is_signed; int zero; int64_t n, k, block; } ncase; /* zero: 0 default, 1 packed, 2 float */
static const ncase cases[] = {
    {4, false, 0, 5, 64, 32}, {4, false, 1, 37, 130, 32}, {4, true, 0, 33, 128, 128}, {4, false, 2, 3, 48, 16}, {4, true, 1, 6, 96, 32},
    {8, false, 0, 40, 100, 32}, {8, true, 0, 4, 77, 77}, {8, false, 1, 9, 256, 64}, {2, false, 0, 34, 64, 16}, {2, false, 1, 3, 100, 32},
    {4, false, 1, 2, 9000, 16}, {4, false, 0, 1, 1, 16}, {4, false, 0, 33, 600, 256}, {4, false, 1, 7, 300, 48},
    {4, true, 0, 5, 576, 576}, {4, false, 2, 6, 700, 160}, {4, true, 1, 9, 8, 16}, {4, false, 1, 5, 257, 64}};
static const int64_t rows[] = {0, 1, 2, 3, 4, 7, 12, 13, 40};

static unsigned get(const uint8_t *p, int bits, int64_t i) { return (p[i * bits / 8] >> (i * bits % 8)) & ((1u << bits) - 1u); }

static double weight(const qx_nbits *w, int64_t n, int64_t k)
{
    const int64_t nb = (w->k + w->block - 1) / w->block, b = k / w->block;
    const int half = 1 << (w->bits - 1);
    int c = (int)get(w->codes + n * (nb * w->block * w->bits / 8), w->bits, k);
    double z = w->is_signed ? 0 : half;
    if (w->is_signed && c >= half) c -= 2 * half;
    if (w->zero_f) z = (double)w->zero_f[n * nb + b];
    if (w->zero) {
        int v = (int)get(w->zero + n * ((nb * w->bits + 7) / 8), w->bits, b);
        z = w->is_signed && v >= half ? v - 2 * half : v;
    }
    return ((double)c - z) * (double)w->scale[n * nb + b];
}

/* Rows and pieces in one order or the other. */
static void multiply(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *x, int64_t ldx, float *scratch, float *y,
                     bool backwards)
{
    const int64_t n = qx_nbits_pieces_using(l, w, m);
    for (int64_t r = 0; r < m; r++) qx_nbits_prepare_using(l, w, m, x, ldx, backwards ? m - 1 - r : r, scratch);
    for (int64_t p = 0; p < n; p++) qx_nbits_piece_using(l, w, m, x, ldx, scratch, y, w->n, backwards ? n - 1 - p : p);
}

/* Row x as the products round it. */
static void rounded_row(const qx_nbits *w, const float *x, double *out)
{
    for (int64_t at = 0; at < w->k; at += w->block) {
        const int64_t end = at + w->block < w->k ? at + w->block : w->k;
        float top = 0;
        for (int64_t i = at; i < end; i++) top = fmaxf(top, fabsf(x[i]));
        for (int64_t i = at; i < end; i++) out[i] = top > 0 ? (double)rintf(x[i] * (127 / top)) * (double)(top / 127) : 0;
    }
}

static void products(void **state)
{
    (void)state;
    static uint8_t codes[40 * 9100], zero[40 * 1000];
    static float scale[40 * 1000], zero_f[40 * 1000], x[41 * 9100], y[40 * 40], again[40 * 40], scratch[40 * 10000], column[9100], bias[40];
    static double given[40 * 9100], weights[9100];
    uint32_t s = 9;
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)rng_next(&s);
    for (size_t i = 0; i < sizeof zero; i++) zero[i] = (uint8_t)rng_next(&s);
    for (int i = 0; i < COUNT(scale); i++) scale[i] = .01f * rng_normal(&s), zero_f[i] = 8 * rng_uniform(&s);
    for (int i = 0; i < COUNT(x); i++) x[i] = rng_normal(&s);
    for (int i = 0; i < 40; i++) bias[i] = rng_normal(&s);
    for (int c = 0; c < 2 * COUNT(cases); c++)
        for (int r = 0; r < COUNT(rows); r++)
            for (int isa = -1; isa <= (int)qx_isa_best(); isa++) {
                const bool rounds = c >= COUNT(cases);
                const ncase *t = &cases[c % COUNT(cases)];
                const qx_nbits w = {.bits = t->bits, .n = t->n, .k = t->k, .block = t->block, .codes = codes, .is_signed = t->is_signed,
                                    .scale = scale,
                                    .zero = t->zero == 1 ? zero : NULL, .zero_f = t->zero == 2 ? zero_f : NULL,
                                        .bias = c % 2 ? bias : NULL, .rounds_x = rounds};
                const int64_t m = rows[r], ldx = t->k + 3;
                const qx_nbits_leaf *leaf = isa < 0 ? qx_nbits_leaf_ref() : qx_nbits_leaf_cpu((qx_isa)isa);
                assert_true(qx_nbits_scratch_using(leaf, &w, m) <= COUNT(scratch));
                multiply(leaf, &w, m, x, ldx, scratch, y, false);
                multiply(leaf, &w, m, x, ldx, scratch, again, true);
                if (m) assert_memory_equal(y, again, sizeof(float) * (size_t)(m * t->n));
                for (int64_t i = 0; i < m && rounds; i++) rounded_row(&w, x + i * ldx, given + i * t->k);
                for (int64_t n = 0; n < t->n; n++) {
                    for (int64_t k = 0; k < t->k; k++) weights[k] = weight(&w, n, k);
                    if (r == 0) {
                        qx_nbits_column(&w, n, column);
                        for (int64_t k = 0; k < t->k; k++) assert_true(fabs((double)column[k] - weight(&w, n, k)) < 1e-6);
                    }
                    for (int64_t i = 0; i < m; i++) {
                        double want = w.bias ? (double)bias[n] : 0, mag = 0;
                        for (int64_t k = 0; k < t->k; k++) {
                            const double v = (rounds ? given[i * t->k + k] : (double)x[i * ldx + k]) * weights[k];
                            want += v, mag += fabs(v);
                        }
                        if (!(fabs(want - (double)y[i * t->n + n]) < 3e-6 * mag + 1e-5))
                            fail_msg("case %d m %d isa %d: %g is not %g", c, (int)m, isa, (double)y[i * t->n + n], want);
                    }
                }
            }
}

/* A NaN or an infinity anywhere in a row of x: nothing of that row is a number, wherever the vectors end, and the rows beside it
 * are what they were. */
static void not_finite(void **state)
{
    enum { MANY = 9, K = 77, N = 6 };
    static uint8_t codes[N * 128];
    static float scale[N * 3], x[MANY * K + 3], y[MANY * N], plain[MANY * N], scratch[4096];
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    uint32_t s = 21;
    (void)state;
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)rng_next(&s);
    for (int i = 0; i < COUNT(scale); i++) scale[i] = 0.01f + rng_uniform(&s);
    for (int way = 0; way < 12; way++)
        for (int at = 0; at < K; at++)
            for (int isa = -1; isa <= (int)qx_isa_best(); isa++) {
                const int bits = 2 << way % 3, m = way >= 6 ? MANY : 3;
                const qx_nbits w = {.bits = bits, .n = N, .k = K, .block = 32, .codes = codes, .scale = scale, .rounds_x = way / 3 % 2};
                const qx_nbits_leaf *leaf = isa < 0 ? qx_nbits_leaf_ref() : qx_nbits_leaf_cpu((qx_isa)isa);
                float *rows_at = x + at % 4; /* every alignment */
                for (int i = 0; i < m * K; i++) rows_at[i] = rng_normal(&s);
                for (int pass = 0; pass < 2; pass++) {
                    if (pass) rows_at[K + at] = bad[at % 3];
                    multiply(leaf, &w, m, rows_at, K, scratch, pass ? y : plain, pass);
                }
                for (int i = 0; i < N; i++) assert_true(!isfinite(y[N + i]) && y[i] == plain[i] && y[2 * N + i] == plain[2 * N + i]);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(not_finite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
