/* test_sparse.c - 2:4 weights: compressed, multiplied with the instruction's host form, against the plain product; and weights that are not 2:4. Whole numbers, so exact. */
#include "../unit/unit.h"
#include "kernels/cuda/sparse.cu"

/* Whole numbers that the type holds exactly. */
static float number(unsigned *seed, int dtype)
{
    *seed = *seed * 1664525u + 1013904223u;
    return dtype == QK_E4M3 ? (float)(int32_t)(*seed >> 27) - 15.0f : (float)(int32_t)(*seed >> 24) - 128.0f + (float)(*seed >> 24 == 0);
}

static void put(void *p, int dtype, int64_t i, float v)
{
    if (dtype == QK_F16) ((uint16_t *)p)[i] = qx_sc_f32_to_f16(v);
    else if (dtype == QK_E4M3) ((uint8_t *)p)[i] = qx_sc_f32_to_e4m3(v, 1);
    else ((int8_t *)p)[i] = (int8_t)v;
}

/* Two random places of every four, sometimes the same one, sometimes zero. */
static void make_weight(float *w, int64_t n, int dtype, unsigned *seed)
{
    memset(w, 0, (size_t)n * sizeof *w);
    for (int64_t i = 0; i < n; i += 4)
        for (int k = 0; k < 2; k++) {
            *seed = *seed * 1664525u + 1013904223u;
            if (*seed >> 29) w[i + (*seed >> 20 & 3)] = number(seed, dtype);
        }
}

static void one(int dtype, int64_t m, int64_t n, int64_t k)
{
    const size_t size = dtype == QK_F16 ? 2 : 1;
    unsigned seed = 1u + (unsigned)(m + n + k);
    float *w = malloc((size_t)(n * k) * 4), *x = malloc((size_t)(m * k) * 4), *y = malloc((size_t)(m * n) * 4);
    void *wc = malloc((size_t)(n * k) * size), *xc = malloc((size_t)(m * k) * size), *values = malloc((size_t)(n * k / 2) * size);
    uint32_t *meta = malloc((size_t)(n * k / 32) * 4);
    int32_t bad = 0;
    make_weight(w, n * k, dtype, &seed);
    for (int64_t i = 0; i < n * k; i++) put(wc, dtype, i, w[i]);
    for (int64_t i = 0; i < m * k; i++) put(xc, dtype, i, x[i] = number(&seed, dtype));
    const qk_compress_args c = {wc, values, meta, &bad, n, k, dtype};
    const qk_sparse_args s = {xc, values, NULL, meta, y, m, n, k, dtype, QK_F32, 1.0f};
    assert_int_equal(qk_sparse_compress(NULL, &c), 0);
    assert_int_equal(bad, 0);
    assert_int_equal(qk_sparse_gemm(NULL, &s), 0);
    for (int64_t i = 0; i < m * n; i++) {
        double want = 0;
        for (int64_t q = 0; q < k; q++) want += (double)x[i / n * k + q] * (double)w[i % n * k + q];
        if ((double)y[i] != want) fail_msg("type %d, [%lld,%lld,%lld], element %lld: %g instead of %g", dtype, (long long)m, (long long)n, (long long)k, (long long)i, (double)y[i], want);
    }
    put(wc, dtype, 8, 1), put(wc, dtype, 9, 2), put(wc, dtype, 10, 3);
    assert_int_equal(qk_sparse_compress(NULL, &c), 0);
    assert_int_equal(bad, 1);
    free(w), free(x), free(y), free(wc), free(xc), free(values), free(meta);
}

static void products(void **state)
{
    (void)state;
    one(QK_F16, 5, 48, 96);
    one(QK_F16, 40, 16, 32);
    one(QK_I8, 37, 80, 128);
    one(QK_I8, 1, 16, 64);
    one(QK_I8, 3, 16, 64 * 70);
    one(QK_E4M3, 37, 48, 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
