/* test_lint.c - what runtimes do not load. All: element types that an operator does not have. ONNX Runtime: INT8 in front of a biased MatMul, from opset 21 on, unless the codes are UINT8
 * or the input is a matrix. TensorRT: scales below 0. TensorRT and OpenVINO: blocks that are not whole. OpenVINO: a Cast to FP8, a recurrence
 * with a scale a row. */
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

#define INT8_PRODUCT(dims, zero, nodes) HEAD(17) "g (float[" dims ",2] x) => (float[" dims ",2] y) <int8[2,2] w = {1, 2, 3, 4}, float[2] sw = {0.5, 1}, int8[2] zw = {0, 0}, " \
    "float[2] b = {1, 2}, float[1,2] b2 = {1, 2}, float s = {0.5}, uint8 z = {128}> " \
    "{ q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) v = DequantizeLinear <axis=1> (w, sw" zero ") " nodes "}"

/* Measured: tests/interop/fused.py writes the good forms and looks for integer operators in what ONNX Runtime makes of them. */
static void products_in_float(void **state)
{
    (void)state;
    expect(INT8_PRODUCT("4", "", "y = Gemm (d, v)"), QX_TARGET_ORT, "float-gemm");
    expect(INT8_PRODUCT("4", ", zw", "y = Gemm (d, v, b)"), QX_TARGET_ORT, "float-gemm");
    expect(INT8_PRODUCT("4", ", zw", "m = Gemm (d, v) y = Add (m, b)"), QX_TARGET_ORT, NULL);
    expect(INT8_PRODUCT("4", "", "m = MatMul (d, v) y = Add (m, b)"), QX_TARGET_ORT, "float-gemm");
    expect(INT8_PRODUCT("n", "", "m = MatMul (d, v) y = Add (b2, m)"), QX_TARGET_ORT, "float-gemm");
    expect(INT8_PRODUCT("4", "", "y = MatMul (d, v)"), QX_TARGET_ORT, NULL);
    expect(INT8_PRODUCT("4,5", "", "m = MatMul (d, v) y = Add (b, m)"), QX_TARGET_ORT, "float-gemm");
    expect(INT8_PRODUCT("4,5", "", "m = MatMul (d, v) y = Add (m, b2)"), QX_TARGET_ORT, NULL);
    expect(INT8_PRODUCT("n,5", "", "m = MatMul (d, v) y = Add (m, b)"), QX_TARGET_ORT, NULL);
    expect(INT8_PRODUCT("4,5", "", "m = MatMul (d, v) y = Add (m, b)"), QX_TARGET_GENERIC, NULL);
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

static void codes_of_two_bits(void **state)
{
    static const char model[] = HEAD(25) "g (float[4,4] x) => (float[4,1] y) <int2[4,1] w = {1, -2, 0, -1}, float[2,1] s = {0.5, 0.25}> "
        "{ d = DequantizeLinear <axis = 0, block_size = 2> (w, s) y = MatMul (x, d) }";
    (void)state;
    expect(model, QX_TARGET_TENSORRT, "two-bits");
    expect(model, QX_TARGET_OPENVINO, "two-bits");
    expect(model, QX_TARGET_GENERIC, NULL);
    expect(STORED("4", "2", "0.5, 0.25"), QX_TARGET_OPENVINO, NULL);
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

static void blocks_that_are_turned(void **state)
{
    (void)state;
    const char *turned = HEAD(21) "g (float[4,32] x) => (float[4,2] y) <int4[2,32] w = random(1), float[2,1] s = {0.5, 0.25}> "
        "{ d = DequantizeLinear <axis = 1, block_size = 32> (w, s) t = Transpose <perm = [1, 0]> (d) y = MatMul (x, t) }";
    const char *by_gemm = HEAD(21) "g (float[4,32] x) => (float[4,2] y) <int4[2,32] w = random(1), float[2,1] s = {0.5, 0.25}> "
        "{ d = DequantizeLinear <axis = 1, block_size = 32> (w, s) y = Gemm <transB = 1> (x, d) }";
    const char *straight = HEAD(21) "g (float[4,32] x) => (float[4,2] y) <int4[32,2] w = random(1), float[1,2] s = {0.5, 0.25}> "
        "{ d = DequantizeLinear <axis = 0, block_size = 32> (w, s) y = MatMul (x, d) }";
    expect(turned, QX_TARGET_ORT, "turned-blocks");
    expect(by_gemm, QX_TARGET_ORT, "turned-blocks");
    expect(straight, QX_TARGET_ORT, NULL);
    expect(turned, QX_TARGET_OPENVINO, NULL);
}

/* What OpenVINO does with a scale a row there was seen with its 2026.4. */
static void recurrences(void **state)
{
    (void)state;
    const char *blocks = HEAD(21) "g (float[4,1,2] x) => (float[4,1,1,1] y) <int8[1,3,2] w = {1, 2, 3, 4, 5, 6}, float[1,3,1] s = {1, 1, 1}, "
        "float[1,3,1] r = {1, 1, 1}, float a = {0.5}, int8 z = {0}> { q = QuantizeLinear (x, a, z) e = DequantizeLinear (q, a, z) "
        "d = DequantizeLinear <axis = 2, block_size = 2> (w, s) y = GRU <hidden_size = 1> (e, d, r) }";
    const char *alone = HEAD(21) "g (float[4,1,2] x) => (float[4,1,1,1] y) <int8[1,3,2] w = {1, 2, 3, 4, 5, 6}, float[3] s = {1, 1, 1}, "
        "float[1,3,1] r = {1, 1, 1}> { d = DequantizeLinear <axis = 1> (w, s) y = GRU <hidden_size = 1> (x, d, r) }";
    const char *rows = HEAD(21) "g (float[4,1,2] x) => (float[4,1,1,1] y) <int8[1,3,2] w = {1, 2, 3, 4, 5, 6}, float[3] s = {1, 1, 1}, "
        "float[1,3,1] r = {1, 1, 1}, float a = {0.5}, int8 z = {0}> { q = QuantizeLinear (x, a, z) e = DequantizeLinear (q, a, z) "
        "d = DequantizeLinear <axis = 1> (w, s) y = GRU <hidden_size = 1> (e, d, r) }";
    expect(rows, QX_TARGET_OPENVINO, "recurrence");
    expect(rows, QX_TARGET_GENERIC, NULL);
    expect(blocks, QX_TARGET_OPENVINO, NULL);
    expect(alone, QX_TARGET_OPENVINO, NULL);
}

#define POWERS HEAD(24) "g (float[4,32] x) => (float[4,2] y) <float4e2m1[2,32] w = fill(1), float8e8m0[2,1] s = fill(1)> " \
    "{ d = DequantizeLinear <axis = -1, block_size = 32, output_dtype = 1> (w, s) y = Gemm <transB = 1> (x, d) }"
#define AS_BYTES "<ir_version: 12, opset_import: [\"\" : 24, \"trt\" : 1]> g (float[4,32] x) => (float[4,2] y) <float8e4m3fn[2,32] w = fill(1), uint8[2,1] s = fill(127)> " \
    "{ c, t = trt.TRT_MXFP8DynamicQuantize (x) a = trt.TRT_MXFP8DequantizeLinear <axis = -1, block_size = 32> (c, t) " \
    "d = trt.TRT_MXFP8DequantizeLinear <axis = -1, block_size = 32> (w, s) y = Gemm <transB = 1> (a, d) }"

static void powers_of_two(void **state)
{
    (void)state;
    expect(POWERS, QX_TARGET_TENSORRT, "powers-of-two");
    expect(POWERS, QX_TARGET_GENERIC, NULL);
    expect(AS_BYTES, QX_TARGET_TENSORRT, NULL);
    expect("<ir_version: 12, opset_import: [\"\" : 24, \"trt\" : 1]> g (float16[4,16] x) => (float16[4,2] y) <float16[16,2] w = fill(1), float s = {1}> "
           "{ c, t = trt.TRT_FP4DynamicQuantize <axis = -1> (x, s) u = DequantizeLinear (t, s) "
           "a = DequantizeLinear <axis = -1, block_size = 16> (c, u) h = Cast <to = 10> (a) y = MatMul (h, w) }", QX_TARGET_TENSORRT,
           "half-quantized"); /* and nothing else: a pair in front of a Cast has its reader */
}

static void tensorrts_operators(void **state)
{
    (void)state;
    static const char *heads[] = {"\"trt\" : 1", "\"trt.plugins\" : 1"}, *domains[] = {"trt.", "trt.plugins."};
    for (int i = 0; i < 2; i++) {
        char text[600];
        snprintf(text, sizeof text, "<ir_version: 10, opset_import: [\"\" : 21, %s]> g (float[4] x) => (float8e4m3fn[4] y) <float s = {1}> "
                 "{ y = %sTRT_FP8QuantizeLinear (x, s) }", heads[i], domains[i]);
        expect(text, QX_TARGET_ORT, "trt");
        expect(text, QX_TARGET_OPENVINO, "trt");
        expect(text, QX_TARGET_TENSORRT, NULL);
    }
}

static void cast_to_fp8(void **state)
{
    (void)state;
    const char *text = HEAD(19) "g (float[4] x) => (float[4] y) { q = Cast <to = 17> (x) y = Cast <to = 1> (q) }";
    expect(text, QX_TARGET_OPENVINO, "fp8-cast");
    expect(text, QX_TARGET_ORT, NULL);
}

#define CONV(behind) HEAD(19) "g (float[1,1,4,4] x) => (float[1,1,4,4] y) <float s = {0.1}, uint8 z = {0}, int8[1,1,1,1] c = {3}> " \
    "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear(c, s) a = Conv(d, w) " behind " }"

static void convolutions_in_float(void **state)
{
    (void)state;
    expect(CONV("y = Sigmoid(a)"), QX_TARGET_ORT, "float-conv");
    expect(CONV("y = Sigmoid(a)"), QX_TARGET_OPENVINO, NULL);
    expect(CONV("r = Relu(a) e = QuantizeLinear(r, s, z) f = DequantizeLinear(e, s, z) y = Sigmoid(f)"), QX_TARGET_ORT, NULL);
    expect(CONV("r = Relu(a) e = QuantizeLinear(r, s, z) f = DequantizeLinear(e, s, z) y = Add(f, r)"), QX_TARGET_ORT, "float-conv");
}

#define NBITS(more) "<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1]> g (float[1,16] x) => (float[1,1] y) <uint8[1,1,16] w = random(1), float[1] s = {1}> " \
    "{ y = com.microsoft.MatMulNBits <K = 16, N = 1, bits = 8, block_size = 16" more "> (x, w, s) }"

static void codes_without_a_kernel(void **state)
{
    (void)state;
    expect(NBITS(""), QX_TARGET_ORT, "nbits-level");
    expect(NBITS(", accuracy_level = 4"), QX_TARGET_ORT, NULL);
}

#define UNARY(op, type, opset) "<ir_version: 10, opset_import: [\"\" : " opset "]> " "g (" type "[4] x) => (" type "[4] y) { y = " op "(x) }"

static void types_of_the_standard(void **state)
{
    (void)state;
    expect(UNARY("Sqrt", "int64", "17"), QX_TARGET_GENERIC, "types");
    expect(UNARY("Sqrt", "int64", "17"), QX_TARGET_OPENVINO, "types");
    expect(UNARY("Sqrt", "float", "17"), QX_TARGET_GENERIC, NULL);
    expect(UNARY("Abs", "int64", "17"), QX_TARGET_GENERIC, NULL);
    expect(UNARY("Sin", "bfloat16", "21"), QX_TARGET_GENERIC, "types"); /* from 22 on */
    expect(UNARY("Sin", "bfloat16", "22"), QX_TARGET_GENERIC, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(int8_before_a_bias), cmocka_unit_test(products_in_float), cmocka_unit_test(scales_below_zero), cmocka_unit_test(codes_of_two_bits),
                                       cmocka_unit_test(blocks_that_are_not_whole), cmocka_unit_test(blocks_that_are_turned), cmocka_unit_test(cast_to_fp8), cmocka_unit_test(recurrences),
                                       cmocka_unit_test(powers_of_two), cmocka_unit_test(tensorrts_operators),
                                       cmocka_unit_test(convolutions_in_float), cmocka_unit_test(codes_without_a_kernel),
                                       cmocka_unit_test(types_of_the_standard)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
