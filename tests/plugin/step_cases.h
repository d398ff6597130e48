/* step_cases.h - what the CUDA plugin is tried with, step by step (test_steps.c): small models that end in one fused step or
 * product each. */
#ifndef STEP_CASES_H
#define STEP_CASES_H

#include <stdbool.h>

#include "../unit/model_text.h"

/* kernel: what must have run the product, NULL: not looked at. smoke: one of the few that a new device is tried with first. */
typedef struct step_case { const char *name, *text; double min_db; const char *kernel; bool smoke; } step_case;

/* Rows of a [64, n] weight: two of four neighbours are zero, in the four orders. */
#define MASK64 MASK16 "," MASK16 "," MASK16 "," MASK16
#define MASK16 "1,0,0,1, 0,1,1,0, 1,1,0,0, 0,0,0,1"
#define CODES(a) #a ",-3,5,7,-1,2,4,-6,1,0,3,-2,6,-7,2,1"
#define SCALES(a) #a ",0.02,0.04,0.013,0.1,0.025,0.3,0.06,0.017,0.2,0.05,0.031,0.07,0.011,0.09,0.15"
#define NIL16 "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"
#define CODES16x16 CODES(2) "," NIL16 "," NIL16 "," CODES(-5) "," NIL16 "," CODES(4) "," CODES(1) "," NIL16 "," CODES(3) "," CODES(-1) "," NIL16 "," NIL16 "," NIL16 "," NIL16 "," NIL16 "," CODES(6)
#define CODES64x16 CODES16x16 "," CODES16x16 "," CODES16x16 "," CODES16x16
#define DQ_INT8 "float s = {0.01}, uint8 z = {117}, int8[64,48] w = random(5), float[48] ws = fill(0.02)"
/* y = a product of x, quantized and dequantized, by w dequantized (dq: attributes and inputs). */
#define CODES_BY(dq, product) " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear" dq " y = " product " }"
#define E4M3_X "float s = {0.01}, float8e4m3fn z = {0}, "
/* What int8-dynamic writes: codes of rows by scales that the graph makes. */
#define ROWS_QUANTIZED(x, y, w, ws) \
    "g (" x " x) => (" y " y) <" w " w = random(5), " ws " ws = fill(0.02), int64[1] last = {-1}, float least = {1e-30}, float step = {0.007874016}, float middle = {128}, uint8 z = {128}>" \
    " { a = Abs(x) m = ReduceMax(a, last) t = Max(m, least) s = Mul(t, step) d = Div(x, s) r = Round(d) u = Add(r, middle) q = Cast<to=2>(u) i = MatMulInteger(q, w, z) f = Cast<to=1>(i) p = Mul(f, s) y = Mul(p, ws) }"
/* Attention in another type than its inputs have. */
#define QKV_AS(type) "xh = Cast<to=" #type ">(x) kh = Cast<to=" #type ">(k) vh = Cast<to=" #type ">(v) "
#define SOFTMAX_OF(qk) "s = MatMul(" qk ") t = Mul(s, c) p = Softmax<axis=-1>(t) o = MatMul(p, vh) y = Cast<to=1>(o)"
#define GQA "o, ck, cv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2"
#define GQA_INPUTS "g (float[2,3,64] x, float[2,3,32] k, float[2,3,32] v, float[2,2,6,16] pk, float[2,2,6,16] pv, float[1,4,3,9] bias, float[4] sink) => (float[2,3,64] y)\n" \
    "<int32[2] lens = {8, 5}, int32[1] total = {9}> "
/* Caches of codes; row: bytes of one, for heads of 16. */
#define CODED_GQA(type, row, scales, mode, bits, ks, vs) \
    "g (float[2,3,64] x, float[2,3,32] k, float[2,3,32] v) => (float[2,3,64] y)\n" \
    "<int32[2] lens = {8, 5}, int32[1] total = {9}, " type "[2,2,6," #row "] pk = random(3), " type "[2,2,6," #row "] pv = random(4), float" scales " ks = " ks ", float" scales " vs = " vs ">" \
    " { y, ck, cv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2, k_quant_type=\"" mode "\", v_quant_type=\"" mode "\", kv_cache_bit_width=" #bits ">(x, k, v, pk, pv, lens, total, , , , , , ks, vs) }"
static const step_case cases[] = {
    {"float product with bias", HEAD(17) "g (float[80,64] x) => (float[80,48] y) <float[64,48] w = random(1), float[48] b = "
                                         "random(2)> { a = MatMul(x, w) y = Add(a, b) }", 110, NULL, true},
    {"half product with bias", HEAD(17) "g (float[80,64] x) => (float[80,48] y) <float16[64,48] w = random(1), float16[48] b = random(2)>"
     " { h = Cast<to=10>(x) a = MatMul(h, w) c = Add(a, b) y = Cast<to=1>(c) }", 50, NULL, true},
    {"bfloat16 product, turned weight", HEAD(17) "g (float[80,64] x) => (float[80,48] y) <bfloat16[48,64] w = random(1)>"
     " { h = Cast<to=16>(x) a = Gemm<transB=1>(h, w) y = Cast<to=1>(a) }", 34, NULL, true},
    {"float convolution", HEAD(17) "g (float[2,8,9,7] x) => (float[2,6,5,4] y) <float[6,8,3,3] w = random(5), float[6] b = "
                                   "random(7)> { y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) }", 110, NULL, true},
    {"half attention without a mask",
     HEAD(17) "g (float[2,4,128,64] x, float[2,4,256,64] k, float[2,4,256,64] v) => (float[2,4,128,64] y) <float16 c = {0.125}>"
     " { " QKV_AS(10) "kt = Transpose<perm=[0,1,3,2]>(kh) " SOFTMAX_OF("xh, kt") " }",
     50, "attention", true},
    {"attention with mask", HEAD(17) "g (float[2,4,9,8] x, float[2,4,11,8] k, float[2,4,11,8] v, float[2,1,9,11] mask) => "
                                     "(float[2,9,4,8] y)\n"
     "<float c = {0.35}> { kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(x, kt) t = Mul(s, c) u = Add(t, mask) p = "
     "Softmax<axis=-1>(u) o = MatMul(p, v) y = Transpose<perm=[0,2,1,3]>(o) }", 110, NULL, false},
    {"attention with turned keys, long", HEAD(17) "g (float[3,70,16] x, float[3,16,300] k, float[3,300,16] v) => (float[3,70,16] y)\n"
     "<float c = {4.0}> { s = MatMul(x, k) t = Div(s, c) p = Softmax<axis=-1>(t) y = MatMul(p, v) }", 110, NULL, false},
    {"product, bias, silu, gate and residual", HEAD(17) "g (float[3,7,40] x, float[3,7,24] g, float[3,7,24] r) => (float[3,7,24] "
                                                        "y) <float[40,24] w = random(1), float[24] b = random(2)>"
     " { a = MatMul(x, w) c = Add(a, b) s = Sigmoid(c) d = Mul(c, s) e = Mul(d, g) y = Add(e, r) }", 110, NULL, false},
    {"group normalisation and silu", HEAD(17) "g (float[2,8,6,5] x) => (float[2,8,6,5] y)\n"
     "<int64[3] three = {2, 4, -1}, int64[4] four = {2, 8, 6, 5}, float[4] one = fill(1), float[4] nil = fill(0), float[8,1,1] "
     "gamma = random(3), float[8,1,1] beta = random(4)>"
     " { a = Reshape(x, three) b = InstanceNormalization<epsilon=0.00001>(a, one, nil) c = Reshape(b, four) d = Mul(c, gamma) e = "
     "Add(d, beta) s = Sigmoid(e) y = Mul(e, s) }", 110, NULL, true},
    {"int8 product by the library", HEAD(17) "g (float[5,64] x) => (float[5,48] y) <" DQ_INT8 ">"
     CODES_BY("<axis=1>(w, ws)", "MatMul(d, v)"), 110, NULL, true},
    {"int8 product of our own", HEAD(17) "g (float[3,50] x) => (float[3,21] y) <float s = {0.01}, int8 z = {-7}, int8[50,21] w = "
                                         "random(5), float[21] ws = fill(0.02)>"
     CODES_BY("<axis=1>(w, ws)", "MatMul(d, v)"), 110, NULL, true},
    {"int8 Gemm with bias", HEAD(17) "g (float[3,64] x) => (float[3,48] y) <float s = {0.01}, int8 z = {9}, int8[48,64] w = "
                                     "random(5), float ws = {0.02}, float[48] b = random(6)>"
     CODES_BY("(w, ws)", "Gemm<transB=1>(d, v, b)"), 110, NULL, false},
    {"int8 product of rows quantized as they come, library", HEAD(18) ROWS_QUANTIZED("float[2,9,64]", "float[2,9,48]", "int8[64,48]",
        "float[48]"), 110, "cublasLt", true},
    {"int8 product of rows quantized as they come, our own", HEAD(18) ROWS_QUANTIZED("float[5,37]", "float[5,21]", "int8[37,21]",
        "float[21]"), 110, "product", false},
    {"integer product behind DynamicQuantizeLinear",
     HEAD(17) "g (float[2,5,64] x) => (float[2,5,48] y) <int8[64,48] w = random(5), float[48] ws = fill(0.02)>"
     " { q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, w, z) f = Cast<to=1>(i) t = Mul(s, ws) y = Mul(f, t) }", 110,
     "cublasLt", true},
    {"integer products, batches, zero points by row and column", HEAD(17) "g (float[2,3,5,7] x) => (float[2,3,5,6] y) <float s = "
                                                                          "{0.01}, uint8 z = {117}, uint8[3,7,6] w = random(5), uint8[5] za = random(2), uint8[6] zb = random(3)>"
     " { q = QuantizeLinear(x, s, z) i = MatMulInteger(q, w, za, zb) y = Cast<to=1>(i) }", 110, "product", false},
    {"integer convolution, groups, zero points",
     HEAD(17) "g (float[2,4,7,6] x) => (float[2,6,7,6] y) <uint8[6,2,3,3] w = random(5), uint8[6] zw = random(3)>"
     " { q, s, z = DynamicQuantizeLinear(x) i = ConvInteger<pads=[1,1,1,1], group=2>(q, w, z, zw) y = Cast<to=1>(i) }", 110, "patches",
     false},
    {"rows of a table of 4-bit codes", HEAD(17) "g (float[2,3] x) => (float[2,3,48] y) <uint8[20,24] t = random(1), float[20,3] "
                                                "ts = random(2), uint8[20,2] tz = random(3), int64[2,3] at = {0, 19, -1, 3, 3, 7}, int64[1] last = {-1}>"
     " { y0 = com.microsoft.GatherBlockQuantized<block_size=16>(t, at, ts, tz) u = Unsqueeze(x, last) y = Mul(y0, u) }", 110, NULL, false},
    {"int8 convolution in groups", HEAD(17) "g (float[2,4,9,9] x) => (float[2,6,9,9] y)\n"
     "<float s = {0.01}, int8 z = {-9}, int8[6,2,3,3] w = random(6), float[6] ws = fill(0.02), float[6] b = random(7)>"
     CODES_BY("<axis=0>(w, ws)", "Conv<pads=[1,1,1,1], group=2>(d, v, b)"), 110, NULL, false},
    {"fp8 product, one scale", HEAD(19) "g (float[5,64] x) => (float[5,48] y) <" E4M3_X "float8e4m3fn[64,48] w = random(5), float ws = {0.02}>"
     CODES_BY("(w, ws)", "MatMul(d, v)"), 110, NULL, true},
    {"fp8 product, a scale a column, bias",
     HEAD(19) "g (float[5,64] x) => (float[5,48] y) <" E4M3_X "float8e4m3fn[48,64] w = random(5), float[48] ws = fill(0.02), float[48] b = random(3)>"
     CODES_BY("<axis=0>(w, ws)", "Gemm<transB=1>(d, v, b)"), 110, NULL, true},
    {"fp8 product of our own", HEAD(19) "g (float[5,40] x) => (float[5,21] y) <" E4M3_X "float8e4m3fn[40,21] w = random(5), "
                                                                                        "float[21] ws = fill(0.02)>"
     CODES_BY("<axis=1>(w, ws)", "MatMul(d, v)"), 110, NULL, false},
    {"fp8 product widened to half",
     HEAD(19) "g (float[5,40] x) => (float[5,24] y) <" E4M3_X "float8e4m3fn[40,24] w = random(5), float[24] ws = fill(0.02)>"
     CODES_BY("<axis=1>(w, ws)", "MatMul(d, v)"), 110, "cublasLt", false},
    {"fp8 product, a scale for 128 of k, by the library",
     HEAD(21) "g (float[2,4,304] x) => (float[2,4,16] y) <" E4M3_X "float8e4m3fn[304,16] w = random(5), float[3,16] ws = {" SCALES(0.01) "," SCALES(0.5) "," SCALES(0.08) "}>"
     CODES_BY("<axis=0, block_size=128>(w, ws)", "MatMul(d, v)"), 110, "cublasLt", true},
    {"fp8 Gemm, a scale for 128 of k, turned, half with bias",
     HEAD(21) "g (float[8,256] x) => (float[8,16] y) <float16 s = {0.01}, float8e4m3fn z = {0}, float8e4m3fn[16,256] w = random(5),"
     " float16[16,2] ws = {" SCALES(0.3) "," SCALES(0.07) "}, float16[16] b = random(3)> { h = Cast<to=10>(x) q = "
                                                          "QuantizeLinear(h, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1, block_size=128>(w, ws) a = Gemm<transB=1>(d, v, b) y = Cast<to=1>(a) }",
     50, "cublasLt", false},
    {"fp8 product, a scale for 128 of k, as numbers",
     HEAD(21) "g (float[3,200] x) => (float[3,8] y) <" E4M3_X "float8e4m3fn[8,200] w = random(5), float[8,2] ws = {" SCALES(0.2) "}, float[8] b = random(3)>"
     CODES_BY("<axis=1, block_size=128>(w, ws)", "Gemm<transB=1>(d, v, b)"), 110, "product", false},
    {"4-bit weight in blocks, few rows", HEAD(21) "g (float[2,64] x) => (float[2,32] y)\n"
     "<int4[64,32] w = random(8), float[4,32] ws = fill(0.05)> { v = DequantizeLinear<axis=0, block_size=16>(w, ws) y = MatMul(x, v) }",
     110, NULL, false},
    {"4-bit weight in blocks, many rows", HEAD(21) "g (float[70,64] x) => (float[70,32] y)\n"
     "<uint4[32,64] w = random(8), float[32,4] ws = fill(0.05), uint4[32,4] wz = random(9)> { v = DequantizeLinear<axis=1, "
     "block_size=16>(w, ws, wz) t = Transpose<perm=[1,0]>(v) y = MatMul(x, t) }", 110, NULL, false},
    {"4-bit weight by matrix units, half", HEAD(21) "g (float[11,416] x) => (float[11,40] y) <int4[416,40] w = random(8), "
                                                    "float16[13,40] ws = random(5), int4[13,40] wz = random(9), float16[40] b = random(6)>"
     " { h = Cast<to=10>(x) v = DequantizeLinear<axis=0, block_size=32>(w, ws, wz) a = MatMul(h, v) c = Add(a, b) y = Cast<to=1>(c) }",
     50, NULL, true},
    {"4-bit weight by matrix units, bfloat16", HEAD(23) "g (float[3,2304] x) => (float[3,24] y) <uint4[24,2304] w = random(8), "
                                                        "bfloat16[24,36] ws = random(5), uint4[24,36] wz = random(9)>"
     " { h = Cast<to=16>(x) v = DequantizeLinear<axis=1, block_size=64>(w, ws, wz) t = Transpose<perm=[1,0]>(v) a = MatMul(h, t) "
     "y = Cast<to=1>(a) }", 34, NULL, false},
    {"2-bit weight, one scale a column",
     HEAD(25) "g (float[9,48] x) => (float[9,33] y) <uint2[33,48] w = random(8), float[33] ws = fill(0.05), uint2[33] wz = random(3)>"
     " { v = DequantizeLinear<axis=0>(w, ws, wz) t = Transpose<perm=[1,0]>(v) y = MatMul(x, t) }", 110, NULL, false},
    {"8-bit weight, one scale a column", HEAD(21) "g (float[40,64] x) => (float[40,32] y)\n"
     "<int8[64,32] w = random(8), float[32] ws = fill(0.05)> { v = DequantizeLinear<axis=1>(w, ws) y = MatMul(x, v) }", 110, NULL, false},
    {"2:4 product in half precision, bias and silu", HEAD(17) "g (float[21,64] x) => (float[21,48] y)\n"
     "<float16[64,48] w0 = random(1), float16[64,1] mask = {" MASK64 "}, float16[48] b = random(2)>"
     " { w = Mul(w0, mask) h = Cast<to=10>(x) a = MatMul(h, w) c = Add(a, b) s = Sigmoid(c) d = Mul(c, s) y = Cast<to=1>(d) }", 50,
     "mma.sp", true},
    {"2:4 weight of too few columns",
     HEAD(17) "g (float[21,64] x) => (float[21,40] y) <float16[64,40] w0 = random(1), float16[64,1] mask = {" MASK64 "}>"
     " { w = Mul(w0, mask) h = Cast<to=10>(x) a = MatMul(h, w) y = Cast<to=1>(a) }", 50, "product", false},
    {"weight that is not 2:4", HEAD(17) "g (float[21,64] x) => (float[21,48] y) <float16[64,48] w = random(1)> { h = "
                                        "Cast<to=10>(x) a = MatMul(h, w) y = Cast<to=1>(a) }", 50, "product", false},
    {"2:4 product of int8 codes with a zero point", HEAD(17) "g (float[5,64] x) => (float[5,16] y) <float s = {0.01}, uint8 z = "
                                                             "{117}, int8[64,16] w = {" CODES64x16 "}, float[16] ws = fill(0.02)>"
     CODES_BY("<axis=1>(w, ws)", "MatMul(d, v)"), 110, "mma.sp", false},
    {"2:4 product of fp8 codes with bias",
     HEAD(19) "g (float[5,64] x) => (float[5,16] y) <" E4M3_X "float8e4m3fn[64,16] w = {" CODES64x16 "}, float[16] ws = fill(0.02),"
     " float[16] b = random(3)>" CODES_BY("<axis=1>(w, ws)", "Gemm(d, v, b)"), 110, "mma.sp", false},
    {"half attention, grouped, causal by mask", HEAD(17) "g (float[2,6,70,40] x, float[2,6,90,40] k, float[2,6,90,24] v, "
                                                         "float[2,1,70,90] mask) => (float[2,6,70,24] y) <float16 c = {0.158}>"
     " { " QKV_AS(10) "mh = Cast<to=10>(mask) kt = Transpose<perm=[0,1,3,2]>(kh) s = MatMul(xh, kt) t = Mul(s, c) u = Add(t, mh) "
                      "p = Softmax<axis=-1>(u)"
     " o = MatMul(p, vh) y = Cast<to=1>(o) }", 50, "attention", true},
    {"half attention, turned keys, heads of 160",
     HEAD(17) "g (float[3,20,160] x, float[3,160,130] k, float[3,130,160] v) => (float[3,20,160] y) <float16 c = {0.079}>"
     " { " QKV_AS(10) SOFTMAX_OF("xh, kh") " }", 50, "attention", false},
    {"bfloat16 attention, one row, many keys",
     HEAD(17) "g (float[1,4,1,64] x, float[1,4,1100,64] k, float[1,4,1100,64] v) => (float[1,4,1,64] y) <bfloat16 c = {0.125}>"
     " { " QKV_AS(16) "kt = Transpose<perm=[0,1,3,2]>(kh) " SOFTMAX_OF("xh, kt") " }", 34, "attention", false},
    {"half attention, grouped heads, causal, window by length",
     HEAD(23) "g (float[2,8,70,128] x, float[2,2,600,128] k, float[2,2,600,128] v) => (float[2,8,70,128] y)"
     " { " QKV_AS(10) "o = Attention<is_causal=1, softcap=20.0>(xh, kh, vh) y = Cast<to=1>(o) }", 50, "attention", false},
    {"half attention, probabilities in E4M3", HEAD(19) "g (float[2,4,33,64] x, float[2,4,70,64] k, float[2,4,70,64] v) => "
                                                       "(float[2,4,33,64] y) <float16 c = {0.125}, float16 s = {0.00223}, float8e4m3fn z = {0}>"
     " { " QKV_AS(10) "kt = Transpose<perm=[0,1,3,2]>(kh) a = MatMul(xh, kt) t = Mul(a, c) p = Softmax<axis=-1>(t)"
     " q = QuantizeLinear(p, s, z) d = DequantizeLinear(q, s, z) o = MatMul(d, vh) y = Cast<to=1>(o) }", 40, "attention", true},
    {"attention, probabilities in INT8", HEAD(17) "g (float[2,4,33,64] x, float[2,4,64,70] k, float[2,4,70,64] v, float[33,70] "
                                                  "mask) => (float[2,4,33,64] y) <float c = {0.125}, float s = {0.00392}, int8 z = {-128}>"
     " { a = MatMul(x, k) t = Mul(a, c) u = Add(t, mask) p = Softmax<axis=-1>(u) q = QuantizeLinear(p, s, z) d = "
     "DequantizeLinear(q, s, z) y = MatMul(d, v) }", 100, "attention", false},
    {"grouped queries, bias and sinks",
     HEAD(17) GQA_INPUTS "{ " GQA ">(x, k, v, pk, pv, lens, total, , , , bias, sink) y = Identity(o) }", 110, "attention", false},
    {"grouped queries, smooth softmax and a window", HEAD(17) GQA_INPUTS
     "{ " GQA ", smooth_softmax=1, local_window_size=3>(x, k, v, pk, pv, lens, total) y = Identity(o) }", 110, "attention", false},
    {"grouped queries, norms, rotary, packed",
     HEAD(17) "g (float[2,3,128] x, float[2,2,6,16] pk, float[2,2,6,16] pv, float[16] qn, float[16] kn) => (float[2,3,64] y)\n"
     "<int32[2] lens = {8, 5}, int32[1] total = {9}, float[16,6] c = random(1), float[16,6] s = random(2)>"
     " { " GQA ", do_rotary=1, qk_norm_epsilon=0.001>(x, , , pk, pv, lens, total, c, s, , , , , , qn, kn) y = Identity(o) }", 110,
     "attention", false},
    {"grouped queries, caches of int8", HEAD(17) CODED_GQA("int8", 16, "", "PER_TENSOR", 8, "{0.02}", "{0.03}"), 110, "attention", false},
    {"grouped queries, caches of fp8 by channel", HEAD(19) CODED_GQA("float8e4m3fn", 16, "[32]", "PER_CHANNEL", 8, "fill(0.02)",
                                                                     "fill(0.01)"), 110, "attention", false},
    {"grouped queries, caches of 4 bits", HEAD(17) CODED_GQA("uint8", 8, "[32]", "PER_CHANNEL", 4, "fill(0.2)", "fill(0.1)"), 110,
     "attention", false},
    {"half grouped queries, bias and sinks",
     HEAD(17) GQA_INPUTS "{ " QKV_AS(10) "pkh = Cast<to=10>(pk) pvh = Cast<to=10>(pv) bh = Cast<to=10>(bias) sh = Cast<to=10>(sink) "
     GQA ">(xh, kh, vh, pkh, pvh, lens, total, , , , bh, sh) y = Cast<to=1>(o) }", 50, "attention", false},
    {"half grouped queries, one token, long cache, sinks", HEAD(17) "g (float[1,1,64] x, float[1,1,32] k, float[1,1,32] v, "
                                                                    "float[1,2,1200,16] pk, float[1,2,1200,16] pv, float[4] sink) => (float[1,1,64] y)\n"
     "<int32[1] lens = {1200}, int32[1] total = {1201}> { " QKV_AS(10) "pkh = Cast<to=10>(pk) pvh = Cast<to=10>(pv) sh = Cast<to=10>(sink) "
     GQA ">(xh, kh, vh, pkh, pvh, lens, total, , , , , sh) y = Cast<to=1>(o) }", 50, "attention", true},
    {"int8 convolution by the library, zero point, strides", HEAD(17) "g (float[2,8,9,11] x) => (float[2,6,5,6] y)\n"
     "<float s = {0.01}, uint8 z = {119}, int8[6,8,3,3] w = random(6), float[6] ws = fill(0.02), float[6] b = random(7)>"
     CODES_BY("<axis=0>(w, ws)", "Conv<pads=[1,2,1,1], strides=[2,2]>(d, v, b)"), 110, "cuDNN", true},
    {"int8 convolution by the library, plain sums", HEAD(17) "g (float[2,12,9,11] x) => (float[2,6,9,11] y)\n"
     "<float s = {0.01}, uint8 z = {119}, int8[6,12,3,3] w = random(6), float[6] ws = fill(0.02), float[6] b = random(7)>"
     CODES_BY("<axis=0>(w, ws)", "Conv<pads=[1,1,1,1]>(d, v, b)"), 110, "cuDNN", false},
    {"fp8 convolution by the library",
     HEAD(19) "g (float[2,16,9,7] x) => (float[2,6,9,7] y) <" E4M3_X "float8e4m3fn[6,16,3,3] w = random(5), float ws = {0.02}, float[6] b = random(7)>"
     CODES_BY("(w, ws)", "Conv<pads=[1,1,1,1]>(d, v, b)"), 110, "cuDNN", true},
    {"fp8 convolution widened to f16",
     HEAD(19) "g (float[2,8,9,7] x) => (float[2,6,9,7] y) <" E4M3_X "float8e4m3fn[6,8,3,3] w = random(5), float[6] ws = fill(0.02)>"
     CODES_BY("<axis=0>(w, ws)", "Conv<pads=[1,1,1,1]>(d, v)"), 110, "cuDNN", false},
    {"fp8 convolution of our own, groups",
     HEAD(19) "g (float[2,6,9,7] x) => (float[2,4,9,7] y) <" E4M3_X "float8e4m3fn[4,3,3,3] w = random(5), float[4] ws = fill(0.02), float[4] b = random(7)>"
     CODES_BY("<axis=0>(w, ws)", "Conv<pads=[1,1,1,1], group=2>(d, v, b)"), 110, "patches", false},
    {"half convolution by the library",
     HEAD(17) "g (float[2,8,9,7] x) => (float[2,6,5,4] y) <float16[6,8,3,3] w = random(5), float16[6] b = random(7)>"
     " { h = Cast<to=10>(x) c = Conv<pads=[1,1,1,1], strides=[2,2]>(h, w, b) y = Cast<to=1>(c) }", 50, "cuDNN", true},
    {"a chain: swapped operands, scalars, a row, parameters",
     HEAD(17) "g (float[3,5,16] x, float[3,5,16] r, float[16] row, float[5,1] col) => (float[3,5,16] y) <float c = {2.5}>"
     " { a = Sub(c, x) b = Tanh(a) d = Mul(b, row) e = LeakyRelu<alpha=0.3>(d) h = Div(e, col) i = Add(r, h) y = Max(i, c) }", 140,
     "own", true},
    {"a chain of constants", HEAD(17) "g (float[3,8] x) => (float[3,8] y) <float16[3,8] w = random(1), float16[8] row = "
                                      "random(2), float16 c = {0.5}>"
     " { a = Sub(c, w) b = Exp(a) d = Mul(b, row) h = Cast<to=10>(x) k = Transpose<perm=[1,0]>(d) e = MatMul(h, k) f = MatMul(e, "
     "d) y = Cast<to=1>(f) }", 60, NULL, false},
    {"a chain of halves, odd rows", HEAD(17) "g (float[3,7] x, float[3,7] r) => (float[3,7] y)"
     " { xh = Cast<to=10>(x) rh = Cast<to=10>(r) a = Mul(rh, rh) b = Sqrt(a) c = Sub(b, xh) d = Abs(a) e = Sigmoid(c) f = Add(e, "
     "d) y = Cast<to=1>(f) }", 50, NULL, false},
    {"half precision", HEAD(17) "g (float[6,40] x) => (float[6,24] y) <float16[40,24] w = random(1), float16[24] b = random(2)>"
     " { h = Cast<to=10>(x) a = MatMul(h, w) c = Add(a, b) e = Erf(c) f = Softmax(e) y = Cast<to=1>(f) }", 50, NULL, false},
};

#endif
