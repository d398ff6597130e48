/* test_model_text.c - the text form: what is printed reads back as the same model, and mistakes name their line. */
#include "base/buf.h"
#include "model_text.h"
#include "onnx/weight/weight.h"

/* print(parse(text)) is `text` itself when text is in printed form. */
static void assert_stable(const char *text)
{
    fixture f = load(text);
    qx_buf b = QX_BUF_INIT(f.ctx);
    ok(&f, qx_model_print(f.m, &b));
    if (strcmp(b.data, text) != 0) fail_msg("printed:\n%s\ninstead of:\n%s", b.data, text);
    qx_buf_free(&b);
    unload(&f);
}

static void a_model_prints_as_written(void **state)
{
    (void)state;
    assert_stable("<\n   ir_version: 10,\n   opset_import: [\"\" : 21, \"my.domain\" : 1],\n   producer_name: \"me\",\n   "
                  "metadata_props: [\"a\" : \"1\", \"b\" : \"x \\\"y\\\"\"]\n>\n"
                  "g (float[N, 3] x, int64[] any, seq(float[?]) s) => (float[N, 2] \"out/put\")\n"
                  "<float[3, 2] w = {1.0, 2.5, -3.0, 0.001, 1e+20, -0.0},\n int8[2] q = {-128, 127},\n int4[3] n = {-8, 7, 1},\n "
                  "float16 h = {0.5},\n bool[2] t = {1, 0},\n string[1] str = {\"a\"}>\n"
                  "{\n"
                  "   [\"/layer/mm\"] y = MatMul (x, w)\n"
                  "   h2 = Cast <to = 1> (h)\n"
                  "   z = Clip (y, , h2)\n"
                  "   z2 = my.domain.Foo <activation = \"Relu\", alpha = 1.5, list = [1, 2], reals = [1.0, 0.5], strings = "
                  "[\"p\", \"q\"], none: ints = [], t = int64[2] {3, 4}> (z, w)\n"
                  "   \"out/put\" = Identity (z)\n"
                  "}\n");
}

static void bodies_and_functions_print_as_written(void **state)
{
    (void)state;
    assert_stable("<\n   ir_version: 10,\n   opset_import: [\"\" : 17, \"local\" : 1]\n>\n"
                  "g (float[2] x, bool c) => (float[2] y)\n"
                  "{\n"
                  "   y = If <then_branch = t () => (float[2] p)\n   {\n      p = local.scaled <alpha = 2.0> (x)\n   }, "
                  "else_branch = e () => (float[2] q)\n   {\n      q = Identity (x)\n   }> (c)\n"
                  "}\n"
                  "<\n   domain: \"local\",\n   opset_import: [\"\" : 17]\n>\n"
                  "scaled <alpha, beta = 1.0> (a) => (b)\n"
                  "{\n"
                  "   k = Constant <value_float: float = @alpha> ()\n"
                  "   b = Mul (a, k)\n"
                  "}\n");
}

static void large_tensors_print_as_a_hash(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[4,8] x) => (float[4,8] y) <float[8,8] w = random(1)> { y = MatMul (x, w) }");
    qx_buf b = QX_BUF_INIT(f.ctx);
    ok(&f, qx_model_print(f.m, &b));
    assert_non_null(strstr(b.data, "float[8, 8] w = hash("));
    qx_buf_free(&b);
    unload(&f);
}

static void content_is_made_up_the_same_way_everywhere(void **state)
{
    (void)state;
    fixture f = load(HEAD(21) "g (float x) => (float x2) <float[1000] r = random(1), float16[3] f = fill(0.5), int64[3] i = iota, "
                              "int4[3] k = {-1, 2, -8}> { x2 = Identity (x) }");
    float r[1000];
    double sum = 0, squares = 0;
    ok(&f, qx_weight_read(f.ctx, value(&f, "r")->init, r));
    for (int i = 0; i < 1000; i++) sum += (double)r[i], squares += (double)r[i] * (double)r[i];
    assert_true(sum / 1000 < 0.1 && sum / 1000 > -0.1 && squares / 1000 > 0.85 && squares / 1000 < 1.15);
    uint16_t h[3];
    int64_t n[3];
    uint8_t k[2];
    ok(&f, qx_weight_read(f.ctx, value(&f, "f")->init, h));
    assert_int_equal(h[2], 0x3800);
    ok(&f, qx_weight_read(f.ctx, value(&f, "i")->init, n));
    assert_int_equal(n[2], 2);
    ok(&f, qx_weight_read(f.ctx, value(&f, "k")->init, k));
    assert_int_equal(k[0], 0x2f);
    assert_int_equal(k[1], 0x08);
    unload(&f);
}

static void mistakes_name_their_line(void **state)
{
    (void)state;
    refuse("<ir_version: 10, opset_import: [\"\" : 17]>\ng (float x) => (float y)\n{ y = Neg x) }", "line 3, before 'x) }': expected '('");
    refuse("<ir_versio: 10>", "a model has no field 'ir_versio'");
    refuse(HEAD(17) "g (float x) => (float y) { y = Neg (x)", "expected '}'");
    refuse(HEAD(17) "g (float x) => (float y) <float[2] w = {1}> { y = Neg (x) }", "expected ','");
    refuse(HEAD(17) "g (float x) => (float y) <float[N] w = {1}> { y = Neg (x) }", "dim 0 of a tensor is no number");
    refuse(HEAD(17) "g (float x) => (float y) { y = Neg (x) } trailing", "something stands behind the model");
    refuse(HEAD(17) "g (float x) => (float y) <float[100000,100000] w = iota> { y = Neg (x) }", "at most 16777216 elements");
    refuse("", "expected the name of the graph");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_prints_as_written), cmocka_unit_test(bodies_and_functions_print_as_written),
        cmocka_unit_test(large_tensors_print_as_a_hash),
        cmocka_unit_test(content_is_made_up_the_same_way_everywhere), cmocka_unit_test(mistakes_name_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
