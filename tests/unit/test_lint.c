/* test_lint.c - what runtimes do not load. ONNX Runtime: INT8 in front of a biased MatMul, from opset 21 on, unless the codes are UINT8
 * or the input is a matrix. TensorRT: scales below 0. TensorRT and OpenVINO: blocks that are not whole. OpenVINO: a Cast to FP8. */
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

#define STORED(k, scales, values) HEAD(21) "g (float[4," k "] x) => (float[4,1] y) <int4[" k ",1] w = {1, 2, 3, 4}, float[" scales ",1] s = {" values "}> " \
    "{ d = DequantizeLinear <axis = 0, block_size = 2> (w, s) y = MatMul (x, d) }"

static void scales_below_zero(void **state)
{
    (void)state;
    expect(STORED("4", "2", "0.5, -0.25"), QX_TARGET_TENSORRT, "negative-scale");
    expect(STORED("4", "2", "0.5, 0.25"), QX_TARGET_TENSORRT, NULL);
    expect(STORED("4", "2", "0.5, -0.25"), QX_TARGET_OPENVINO, NULL);
    expect(STORED("4", "2", "0.5, -0.25"), QX_TARGET_GENERIC, NULL);
}

#define THREE HEAD(21) "g (float[4,3] x) => (float[4,1] y) <int4[3,1] w = {1, 2, 3}, float[2,1] s = {0.5, 0.25}> " \
    "{ d = DequantizeLinear <axis = -2, block_size = 2> (w, s) y = MatMul (x, d) }"

static void blocks_that_are_not_whole(void **state)
{
    (void)state;
    expect(THREE, QX_TARGET_TENSORRT, "whole-blocks");
    expect(THREE, QX_TARGET_OPENVINO, "whole-blocks");
    expect(THREE, QX_TARGET_ORT, NULL);
}

static void cast_to_fp8(void **state)
{
    (void)state;
    const char *text = HEAD(19) "g (float[4] x) => (float[4] y) { q = Cast <to = 17> (x) y = Cast <to = 1> (q) }";
    expect(text, QX_TARGET_OPENVINO, "fp8-cast");
    expect(text, QX_TARGET_ORT, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(int8_before_a_bias), cmocka_unit_test(scales_below_zero),
                                       cmocka_unit_test(blocks_that_are_not_whole), cmocka_unit_test(cast_to_fp8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
