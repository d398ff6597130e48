/* test_masked.c - attention where fused and single nodes may part: rows that see no key, scores of another type than the values.
 * Softmax of a row of -Inf is NaN, so attention in primitive nodes gives NaN, fused or node by node; the standard's Attention
 * says zeros, and gives them. */
#include <math.h>

#include "model_text.h"
#include "runtime/exec.h"

#define PRIMITIVE HEAD(23) "g (float[1,2,3,8] q, float[1,2,4,8] k, float[1,2,4,8] v) => (float[1,2,3,8] y) <float c = {0.35}, float[3,4] m = {1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0}>" \
    " { lm = Log(m) kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) t = Mul(s, c) u = Add(t, lm) p = Softmax<axis=-1>(u) y = MatMul(p, v) }"
#define STANDARD HEAD(23) "g (float[1,2,3,8] q, float[1,2,4,8] k, float[1,2,4,8] v) => (float[1,2,3,8] y) <float[3,4] m = {1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0}>" \
    " { lm = Log(m) y = Attention<scale=0.35>(q, k, v, lm) }"
/* Scores stay float32, the product with V is float16, and so is what it is added to. */
#define MIXED HEAD(23) "g (float[1,2,3,8] q, float[1,2,4,8] k, float[1,2,4,8] v) => (float[1,2,3,8] y) <float c = {0.35}, float16[8] b = {1, 2, 3, 4, 5, 6, 7, 8}>" \
    " { vh = Cast<to = 10>(v) vi = Neg(vh) kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) t = Mul(s, c) p = Softmax<axis=-1>(t) ph = Cast<to = 10>(p) z = MatMul(ph, vi)" \
    " zb = Add(z, b) y = Cast<to = 1>(zb) }"

enum { SIZE = 2 * 3 * 8 };

static void run(const char *text, bool no_fuse, float y[SIZE])
{
    fixture f = load(text);
    qx_exec *x = NULL;
    qx_exec_options o = {.no_fuse = no_fuse};
    qx_tensor in[3], out;
    qx_feed feeds[3];
    for (int i = 0; i < 3; i++) {
        const qx_value *v = f.m->graph->inputs[i];
        ok(&f, qx_tensor_new(f.ctx, &in[i], QX_DT_FLOAT, 4, (int64_t[]){1, 2, v->type.dims[2].n, 8}));
        for (int64_t k = 0; k < in[i].numel; k++) ((float *)in[i].data)[k] = (float)((k * 37 + i * 11) % 23) / 11.0f - 1.0f;
        feeds[i] = (qx_feed){v->name, &in[i]};
    }
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    ok(&f, qx_exec_run(x, feeds, 3, NULL, 1, &out));
    assert_int_equal(out.numel, SIZE);
    memcpy(y, out.data, SIZE * sizeof *y);
    for (int i = 0; i < 3; i++) qx_tensor_free(f.ctx, &in[i]);
    qx_tensor_free(f.ctx, &out);
    qx_exec_free(x);
    unload(&f);
}

static void rows_without_keys(void **state)
{
    float plain[SIZE], fused[SIZE], standard[SIZE];
    (void)state;
    run(PRIMITIVE, true, plain);
    run(PRIMITIVE, false, fused);
    run(STANDARD, false, standard);
    for (int i = 0; i < SIZE; i++) {
        if (i / 8 % 3 == 1) { /* the masked row of each head */
            assert_true(isnan(plain[i]) && isnan(fused[i]));
            assert_true(standard[i] == 0);
            continue;
        }
        assert_true(fabsf(plain[i] - fused[i]) < 1e-5f && fabsf(plain[i] - standard[i]) < 1e-5f);
    }
}

static void values_of_another_type(void **state)
{
    float plain[SIZE], fused[SIZE];
    (void)state;
    run(MIXED, true, plain);
    run(MIXED, false, fused);
    for (int i = 0; i < SIZE; i++) assert_true(fabsf(plain[i] - fused[i]) < 1e-2f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_without_keys), cmocka_unit_test(values_of_another_type)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
