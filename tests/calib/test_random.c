/* test_random.c - made-up samples: ids inside the smallest table they index, bytes for pictures of bytes, sizes for dims without
 * a telling name, and a length that the model can take. */
#include "../unit/model_text.h"
#include "calib/data/samples.h"

typedef struct made { fixture f; qx_samples *s; const qx_feed *feeds; int n; } made;

static made make(const char *text)
{
    made r = {.f = load(text)};
    ok(&r.f, qx_samples_open(r.f.ctx, r.f.m, &(qx_samples_options){.random = 2}, &r.s));
    return r;
}

static void get(made *r) { ok(&r->f, qx_samples_get(r->s, 0, &r->feeds, &r->n)); }

static void drop(made *r)
{
    qx_samples_close(r->s);
    unload(&r->f);
}

static void assert_dims(const qx_tensor *t, const char *expected)
{
    char got[96];
    assert_string_equal(qx_tensor_describe(t, got, sizeof got), expected);
}

static int64_t largest(const qx_tensor *t)
{
    int64_t most = -1;
    for (int64_t i = 0; i < t->numel; i++) {
        int64_t v = t->dtype == QX_DT_INT64 ? ((const int64_t *)t->data)[i] : ((const uint8_t *)t->data)[i];
        most = v > most ? v : most;
    }
    return most;
}

static void ids_fit_the_table_behind_a_reshape(void **state)
{
    (void)state;
    made r = make(HEAD(17) "g (int64[1,40] input_ids, int64[1,40] words) => (y, z) <float[7,2] t = {0,0,0,0,0,0,0,0,0,0,0,0,0,0}, "
                           "int64[2] flat = {1,-1}> "
                           "{ r = Reshape (input_ids, flat) y = Gather (t, r) c = Cast <to = 6> (words) z = Gather (t, c) }");
    get(&r);
    for (int i = 0; i < 2; i++) assert_in_range(largest(r.feeds[i].tensor), 3, 6); /* 40 draws of 7 */
    drop(&r);
}

static void pictures_of_bytes_and_open_dims(void **state)
{
    (void)state;
    made r = make(HEAD(17) "g (uint8[n,3,a,c] picture, float[n,strange] sound, float[n,16,p,q] latent, float[n,frames,80] mel) => "
                           "(y, z, u, v) "
                           "{ y = Identity (picture) z = Neg (sound) u = Neg (latent) v = Neg (mel) }");
    get(&r);
    static const char *const dims[] = {"u8[1,3,256,256]", "f32[1,16000]", "f32[1,16,64,64]", "f32[1,256,80]"};
    for (int i = 0; i < 4; i++) assert_dims(r.feeds[i].tensor, dims[i]);
    assert_in_range(largest(r.feeds[0].tensor), 250, 255);
    drop(&r);
}

/* A table of 40 positions: 256 and 128 and 64 are too many. */
#define POSITIONS "p = Shape <start = 1> (input_ids) s = Squeeze (p) r = Range (zero, s, one) y = Gather (t, r) "

static void the_length_is_halved_until_the_model_runs(void **state)
{
    (void)state;
    int64_t len = 0;
    made r = make(HEAD(17) "g (int64[batch,seq] input_ids) => (y) <float[40,1] t = "
                           "{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}, "
                           "int64 zero = {0}, int64 one = {1}> {" POSITIONS "}");
    get(&r);
    assert_dims(r.feeds[0].tensor, "i64[1,256]");
    ok(&r.f, qx_samples_fit(r.s, NULL, &len));
    assert_int_equal(len, 32);
    get(&r);
    assert_dims(r.feeds[0].tensor, "i64[1,32]");
    drop(&r);
}

static void no_length_will_do(void **state)
{
    (void)state;
    int64_t len = 0;
    made r = make(HEAD(17) "g (float[batch,3,odd,even] x) => (y) <int64[2] want = {7,5}> { y = Reshape (x, want) }");
    assert_true(qx_samples_fit(r.s, NULL, &len) != QX_OK);
    assert_non_null(strstr(qx_ctx_error(r.f.ctx), "made-up sizes of its inputs (x f32[1,3,256,256]): give --dim NAME=N or --calib"));
    assert_int_equal(len, 0);
    drop(&r);
}

static void open_dims_that_weights_fix(void **state)
{
    (void)state;
    made r = make(HEAD(17) "g (float[n,n] x, float[a,b,c,d] picture, float[p,q] z, float[5] idle) => (y, u, v) <float[3,2] w = "
                           "{1,2,3,4,5,6}, "
                           "float[2,3,1,1] k = {1,2,3,4,5,6}, float[2,4] t = {1,2,3,4,5,6,7,8}> { y = MatMul (x, w) s = Sigmoid "
                           "(picture) u = Conv <group = 2> (s, k) v = Gemm <transB = 1> (z, t) }");
    get(&r);
    assert_int_equal(r.n, 3); /* nothing for the input that nobody reads */
    static const char *const dims[] = {"f32[1,3]", "f32[1,6,64,64]", "f32[1,4]"};
    for (int i = 0; i < 3; i++) assert_dims(r.feeds[i].tensor, dims[i]);
    drop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_fit_the_table_behind_a_reshape), cmocka_unit_test(pictures_of_bytes_and_open_dims),
        cmocka_unit_test(open_dims_that_weights_fix), cmocka_unit_test(the_length_is_halved_until_the_model_runs),
        cmocka_unit_test(no_length_will_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
