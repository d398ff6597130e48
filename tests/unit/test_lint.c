/* test_lint.c - what ONNX Runtime does not load: INT8 in front of a biased MatMul, from opset 21 on, unless the codes are UINT8
 * or the input is a matrix. */
#include "model_text.h"
#include "passes/job/lint.h"

#define BIASED(opset, dims, type, zero) HEAD(opset) "g (float[" dims ",2] x) => (float[" dims ",2] y) <float[2,2] w = {1, 2, 3, 4}, float[2] b = {1, 2}, float s = {0.5}, " type " z = {" zero "}> " \
    "{ q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) m = MatMul (d, w) y = Add (m, b) }"

static void expect(const char *text, qx_target target, const char *rule)
{
    qx_arena *arena;
    qx_finding *found;
    int64_t n;
    fixture f = load(text);
    ok(&f, qx_arena_new(f.ctx, &arena));
    ok(&f, qx_lint(f.m, target, arena, &found, &n));
    assert_int_equal(n, rule ? 1 : 0);
    if (rule) assert_string_equal(found[0].rule, rule);
    qx_arena_free(arena);
    unload(&f);
}

static void int8_before_a_bias(void **state)
{
    (void)state;
    expect(BIASED(21, "4,5", "int8", "0"), QX_TARGET_ORT, "int8-bias");
    expect(BIASED(21, "4,5", "int8", "0"), QX_TARGET_GENERIC, NULL);
    expect(BIASED(21, "4,5", "uint8", "128"), QX_TARGET_ORT, NULL);
    expect(BIASED(20, "4,5", "int8", "0"), QX_TARGET_ORT, NULL);
    expect(BIASED(21, "4", "int8", "0"), QX_TARGET_ORT, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(int8_before_a_bias)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
