/* test_gram.c - Gram matrices by matrix units, in their host form, against sums in double: types, columns and rows that fill no tile, wide and single loads, a second call. */
#include <math.h>

#include "../unit/unit.h"
#include "kernels/cuda/kernels.h"
#include "kernels/dtype.h"

typedef struct gram_case { int dtype; int64_t rows, k; } gram_case;
static const gram_case cases[] = {{QX_DT_FLOAT, 1, 1}, {QX_DT_FLOAT, 530, 72}, {QX_DT_FLOAT, 33, 67}, {QX_DT_FLOAT16, 600, 136}, {QX_DT_BFLOAT16, 17, 65}};

static void one(const gram_case *c)
{
    const size_t size = (size_t)qx_dtype_bits(c->dtype) / 8;
    char *x = malloc((size_t)(c->rows * c->k) * size); /* of exactly its size */
    float *as_read = malloc((size_t)(c->rows * c->k) * sizeof *as_read);
    double *got = calloc((size_t)(c->k * c->k), sizeof *got);
    unsigned seed = 7;
    for (int64_t i = 0; i < c->rows * c->k; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float v = ldexpf((float)(seed >> 8) / 8388608.0f - 1.0f, (int)(i % c->k % 9) - 4); /* columns of different sizes */
        qx_from_f32(c->dtype, &v, 1, x + (size_t)i * size);
        qx_to_f32(c->dtype, x + (size_t)i * size, 1, &as_read[i]);
    }
    const qk_gram_args a = {.x = x, .gram = got, .rows = c->rows, .k = c->k, .dtype = c->dtype};
    for (int call = 0; call < 2; call++) assert_int_equal(qk_gram(NULL, &a), 0);
    for (int64_t i = 0; i < c->k; i++)
        for (int64_t j = i; j < c->k; j++) {
            double want = 0, most = 0;
            for (int64_t r = 0; r < c->rows; r++) {
                const double p = (double)as_read[r * c->k + i] * (double)as_read[r * c->k + j];
                want += 2 * p;
                most += 2 * fabs(p);
            }
            if (!(fabs(got[i * c->k + j] - want) <= 4e-6 * most)) fail_msg("case %d: [%d, %d] is %.9g, not %.9g", (int)(c - cases), (int)i, (int)j, got[i * c->k + j], want);
        }
    free(x), free(as_read), free(got);
}

static void gram(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) one(&cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gram)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
