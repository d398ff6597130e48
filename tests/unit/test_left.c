/* test_left.c - products with the weight on the left: whatever x lies like, its columns are the rows of X'X, and an algorithm that
 * weighs them finds the same codes as for the weight on the right. */
#include "unit.h"

#include <math.h>

#include "onnx/file/io.h"
#include "passes/pipeline.h"

#define BASE "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,96,6] z) => (float y) <float[6,48] basis = random(1), " \
             "float[64,48] w = random(2), int64[3] three = {2,96,64}, int64[2] two = {192,48}> { h = MatMul(z, basis) "
#define BEHIND "v = Transpose<perm = [0,2,1]>(p) y = Identity(v) }"

/* Relu between the product and its Transpose: nothing says any more that the columns were rows of something. */
static const char *const forms[] = {
    BASE "a = Relu(h) wt = Transpose(w) [\"m\"] y = MatMul(a, wt) }",
    BASE "t = Transpose<perm = [0,2,1]>(h) a = Relu(t) [\"m\"] p = MatMul(w, a) " BEHIND,
    BASE "r = Relu(h) a = Transpose<perm = [0,2,1]>(r) [\"m\"] p = MatMul(w, a) " BEHIND,
    BASE "r = Reshape(h, two) t = Transpose(r) a = Relu(t) wt = Transpose(w) [\"m\"] p = Gemm<transA = 1>(a, wt) y = Reshape(p, three) }",
    BASE "r = Reshape(h, two) a = Relu(r) [\"m\"] p = Gemm<transB = 1>(w, a) v = Transpose(p) y = Reshape(v, three) }",
};

static double quality(qx_ctx *ctx, const char *text, const char *passes)
{
    char in[160], out[160];
    qx_model *m;
    qx_report *r;
    snprintf(in, sizeof in, "/tmp/qonnx_test_left_%ld.onnx", (long)getpid());
    snprintf(out, sizeof out, "/tmp/qonnx_test_left_%ld_out.onnx", (long)getpid());
    OK(qx_model_parse_text(ctx, text, &m));
    OK(qx_model_write(m, in, &(qx_write_options){.force = true}, NULL));
    qx_model_free(m);
    qx_quantize_options o = {.input = in, .output = out, .passes = passes, .force = true};
    o.samples = (qx_samples_options){.random = 8, .seed = 1, .hold_out = true};
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s: %s", text, passes, qx_ctx_error(ctx));
    const double db = r->outputs[0].sqnr_db;
    print_message("%-40s %.2f dB\n", passes, db);
    qx_report_free(r);
    unlink(in);
    unlink(out);
    return db;
}

#define MAGNITUDE "sparsity(method=magnitude,permute=off),int8-weights"

static void same_as_on_the_right(void **state)
{
    static const struct { const char *passes, *worse; double gain; } jobs[] = {
        {"gptq,int4(block=16)", "int4(block=16,scale=amax)", 4}, {"int4(block=16)", "int4(block=16,scale=amax)", 0.3},
        {"sparsity(permute=off),int8-weights", MAGNITUDE, 3}, {"sparsity(method=wanda,permute=off),int8-weights", MAGNITUDE, 0.1}};
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; j++) {
        const double right = quality(*state, forms[0], jobs[j].passes);
        assert_true(right > quality(*state, forms[0], jobs[j].worse) + jobs[j].gain);
        for (size_t i = 1; i < sizeof forms / sizeof *forms; i++)
            assert_true(fabs(quality(*state, forms[i], jobs[j].passes) - right) < 0.2);
    }
}

/* In turn, both streams' columns meet in one tensor. (The weight has to be an initializer, as in these forms.) */
static void in_turn(void **state)
{
    const double rows = quality(*state, forms[2], "gptq(sequential=true),int4(block=16)");
    assert_true(rows > quality(*state, forms[2], "gptq,int4(block=16)") + 1);
    assert_true(fabs(quality(*state, forms[1], "gptq(sequential=true),int4(block=16)") - rows) < 0.2);
}

/* What stands before the Transpose takes awq's and smoothquant's factors. */
static void factors(void **state)
{
#define UNEVEN "float[48] gamma = {90,1,1,1,1,1,1,60,1,1,1,1,1,1,1,1,1,1,1,120,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}"
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,64,48] x) => (float y) <float[32,48] w = random(1), "
        UNEVEN "> { a = Mul(x, gamma) t = Transpose<perm = [0,2,1]>(a) [\"m\"] p = MatMul(w, t) y = Transpose<perm = [0,2,1]>(p) }";
    assert_true(quality(*state, text, "awq,int4") > quality(*state, text, "int4") + 3);
    assert_true(quality(*state, text, "smoothquant,int8") > quality(*state, text, "int8") + 3);
}

/* The second product's input has its channels before the last axis, as the first leaves them: no factor for the first's rows. */
static void no_factor_on_the_wrong_axis(void **state)
{
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,64,48] x) => (float y) <float[64,48] w = random(1), "
        "float[64,32] v = random(2)> { t = Transpose<perm = [0,2,1]>(x) [\"m\"] p = MatMul(w, t) [\"n\"] y = MatMul(p, v) }";
    assert_true(quality(*state, text, "awq,int4") > quality(*state, text, "int4") - 0.5);
    assert_true(quality(*state, text, "smoothquant(alpha=0.5),int8") > 25);
}

/* One value read as rows by one product and as columns by another: each has its own Gram matrix and its own channels,
 * also behind a factor on the rows. */
static void both_ways(void **state)
{
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,64,48] x) => (float[2,64,32] y, float[2,32,48] z) "
        "<float[48,32] w = random(1), float[32,64] v = random(2), " UNEVEN "> { a = Mul(x, gamma) [\"m\"] y = MatMul(a, w) "
        "[\"n\"] z = MatMul(v, a) }";
    const double plain = quality(*state, text, "int4");
    assert_true(quality(*state, text, "gptq,int4") > plain - 0.5);
    assert_true(quality(*state, text, "smoothquant,int8") > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(same_as_on_the_right), TEST(in_turn), TEST(factors), TEST(no_factor_on_the_wrong_axis),
                                       TEST(both_ways)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
