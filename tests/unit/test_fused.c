/* test_fused.c - fused steps against the same nodes one by one: results, bytes for any number of threads, and runs from recorded memory;
 * forms of one operator that must agree,
 * and pictures that are plain for whoever watches them. */
#include <stdlib.h>

#include "exec_run.h"

typedef struct run_case { const char *name, *text; double min_db; int steps; /* that a fused run takes; 0: not looked at */ } run_case;

/* Every graph input is fed with numbers spread over (-1, 1); "y" is compared. */
static const run_case cases[] = {
    {"attention with scale and mask",
     HEAD(17) "g (float[2,4,9,8] q, float[2,4,11,8] k, float[2,4,11,8] v, float[2,1,9,11] mask) => (float[2,9,4,8] y)\n"
     "<float c = {0.35}> { kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) t = Mul(s, c) u = Add(t, mask) p = "
     "Softmax<axis=-1>(u) o = MatMul(p, v) y = Transpose<perm=[0,2,1,3]>(o) }", 110, 1},
    {"attention of rank 3, keys already turned",
     HEAD(17) "g (float[3,70,16] q, float[3,16,300] k, float[3,300,16] v) => (float[3,70,16] y)\n"
     "<float c = {4.0}> { s = MatMul(q, k) t = Div(s, c) p = Softmax<axis=-1>(t) y = MatMul(p, v) }", 110, 0},
    {"attention read through transpositions",
     HEAD(17) "g (float[1,600,2,32] q, float[1,600,2,32] k, float[1,600,2,32] v) => (float[1,600,2,32] y)\n"
     "<float c = {0.42}> { qt = Transpose<perm=[0,2,1,3]>(q) kt = Transpose<perm=[0,2,3,1]>(k) vt = Transpose<perm=[0,2,1,3]>(v) "
     "qs = Mul(qt, c) ks = Mul(kt, c)"
     " s = MatMul(qs, ks) p = Softmax<axis=-1>(s) o = MatMul(p, vt) y = Transpose<perm=[0,2,1,3]>(o) }", 110, 0},
    {"attention whose values alone were repeated for their heads",
     HEAD(17) "g (float[1,2,9,8] q, float[1,2,8,11] k, float[1,1,11,8] v) => (float[1,2,9,8] y)\n"
     "<int64[1] two = {2}, int64[5] more = {1, 1, 2, 11, 8}, int64[4] shape = {1, 2, 11, 8}> { s = MatMul(q, k) p = Softmax<axis=-1>(s)"
     " u = Unsqueeze(v, two) e = Expand(u, more) r = Reshape(e, shape) y = MatMul(p, r) }", 110, 0},
    {"gelu, half first", HEAD(17) "g (float[5,33] x) => (float[5,33] y) <float h = {0.5}, float one = {1.0}, float r = {1.4142135}>"
     " { a = Div(x, r) e = Erf(a) b = Add(e, one) c = Mul(x, b) y = Mul(c, h) }", 110, 0},
    {"linear with bias and silu", HEAD(17) "g (float[3,7,40] x) => (float[3,7,24] y) <float[40,24] w = random(1), float[24] b = random(2)>"
     " { a = MatMul(x, w) c = Add(b, a) s = Sigmoid(c) y = Mul(c, s) }", 110, 1},
    {"group normalisation and silu", HEAD(17) "g (float[2,8,6,5] x) => (float[2,8,6,5] y)\n"
     "<int64[3] three = {2, 4, -1}, int64[4] four = {2, 8, 6, 5}, float[4] one = fill(1), float[4] nil = fill(0), float[8,1,1] "
     "gamma = random(3), float[8,1,1] beta = random(4)>"
     " { a = Reshape(x, three) b = InstanceNormalization<epsilon=0.00001>(a, one, nil) c = Reshape(b, four) d = Mul(c, gamma) e = "
     "Add(d, beta) s = Sigmoid(e) y = Mul(e, s) }", 110, 1},
    {"int8 product, uint8 activation", HEAD(17) "g (float[3,50] x) => (float[3,20] y)\n"
     "<float s = {0.01}, uint8 z = {117}, int8[50,20] w = random(5), float[20] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1>(w, ws) y = MatMul(d, v) }", 110, 0},
    {"int8 convolution in groups", HEAD(17) "g (float[1,4,9,9] x) => (float[1,6,9,9] y)\n"
     "<float s = {0.01}, int8 z = {-9}, int8[6,2,3,3] w = random(6), float[6] ws = fill(0.02), float[6] b = random(7)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, ws) y = Conv<pads=[1,1,1,1], "
     "group=2>(d, v, b) }", 110, 0},
    {"depthwise convolution and silu",
     HEAD(17) "g (float[1,40,19,33] x) => (float[1,40,10,17] y) <float[40,1,5,5] w = random(6), float[40] b = random(7)>"
     " { a = Conv<pads=[2,2,2,2], strides=[2,2], group=40>(x, w, b) s = Sigmoid(a) y = Mul(a, s) }", 110, 0},
    {"4-bit weight in blocks", HEAD(21) "g (float[2,64] x) => (float[2,32] y)\n"
     "<int4[64,32] w = random(8), float[4,32] ws = fill(0.05)> { v = DequantizeLinear<axis=0, block_size=16>(w, ws) y = MatMul(x, v) }",
     110, 0},
    {"4-bit weight in blocks, columns of no whole bytes", HEAD(21) "g (float[2,150] x) => (float[2,67] y)\n"
     "<uint4[150,67] w = random(8), float[5,67] ws = fill(0.05), uint4[5,67] z = random(3)> { v = DequantizeLinear<axis=0, block_size=32>(w, ws, z) "
     "y = MatMul(x, v) }", 110, 0},
    {"8-bit weight in blocks, more columns than one piece", HEAD(21) "g (float[2,150] x) => (float[2,130] y)\n"
     "<int8[150,130] w = random(8), float[2,130] ws = fill(0.05)> { v = DequantizeLinear<axis=0, block_size=128>(w, ws) y = MatMul(x, v) }", 100, 0},
    {"codes that are turned, with their scales and zero points", HEAD(21) "g (float[2,64] x, float[20,64] x20) => (float[22,32] y)\n"
     "<uint4[32,64] w = random(8), float[32,2] ws = {0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10, 0.06, 0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10, 0.06, 0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10, 0.06, 0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10, 0.06, 0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10, 0.06, 0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03}, uint4[32,2] z = random(3)> { c = Transpose<perm=[1,0]>(w) s = Transpose<perm=[1,0]>(ws) "
     "o = Transpose<perm=[1,0]>(z) v = DequantizeLinear<axis=0, block_size=32>(c, s, o) a = MatMul(x, v) b = MatMul(x20, v) y = Concat<axis=0>(a, b) }", 110, 3},
    {"rows of codes that are turned twice", HEAD(21) "g (float[2,64] x) => (float[2,32] y)\n"
     "<int8[64,32] w = random(8), float[32] ws = {0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10, 0.06, 0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10, 0.06, 0.02, 0.09, 0.05, 0.12, 0.08, 0.04, 0.11, 0.07, 0.03, 0.10}> { c = Transpose<perm=[1,0]>(w) v = DequantizeLinear<axis=0>(c, ws) t = Transpose<perm=[1,0]>(v) y = MatMul(x, t) }", 110, 1},
    {"an int8 product whose codes are turned", HEAD(17) "g (float[3,64] x) => (float[3,32] y)\n"
     "<int8[32,64] w = random(8), float[32] ws = fill(0.01), float s = {0.02}, int8 n = {3}> { q = QuantizeLinear(x, s, n) d = DequantizeLinear(q, s, n) "
     "c = Transpose<perm=[1,0]>(w) v = DequantizeLinear<axis=1>(c, ws) y = MatMul(d, v) }", 110, 2},
    {"rows of 8-bit codes as they lie, zero points", HEAD(21) "g (float[2,64] x, float[20,64] x20) => (float[22,32] y)\n"
     "<int8[32,64] w = random(8), float[32] ws = fill(0.05), int8[32] z = random(3)> { v = DequantizeLinear<axis=0>(w, ws, z) t = Transpose<perm=[1,0]>(v) "
     "a = MatMul(x, t) b = MatMul(x20, t) y = Concat<axis=0>(a, b) }", 110, 3},
    {"rows of unsigned 8-bit codes as they lie", HEAD(21) "g (float[2,64] x, float[20,64] x20) => (float[22,32] y)\n"
     "<uint8[32,64] w = random(8), float ws = {0.05}, uint8 z = {3}> { v = DequantizeLinear<axis=0>(w, ws, z) t = Transpose<perm=[1,0]>(v) "
     "a = MatMul(x, t) b = MatMul(x20, t) y = Concat<axis=0>(a, b) }", 110, 3},
    {"rows of 4-bit codes as they lie", HEAD(21) "g (float[2,64] x, float[20,64] x20) => (float[22,32] y)\n"
     "<int4[32,64] w = random(8), float[32,4] ws = fill(0.05)> { v = DequantizeLinear<axis=1, block_size=16>(w, ws) t = Transpose<perm=[1,0]>(v) "
     "a = MatMul(x, t) b = MatMul(x20, t) y = Concat<axis=0>(a, b) }", 110, 3},
    {"rows of 4-bit codes, scales of 16 bits", HEAD(21) "g (float[2,64] x, float[20,64] x20) => (float[22,32] y)\n"
     "<int4[32,64] w = random(8), float16[32,4] ws = fill(0.05)> { s = Cast<to=1>(ws) v = DequantizeLinear<axis=1, block_size=16>(w, s) "
     "t = Transpose<perm=[1,0]>(v) a = MatMul(x, t) b = MatMul(x20, t) y = Concat<axis=0>(a, b) }", 110, 3},
    {"rows of unsigned 4-bit codes as they lie, zero points", HEAD(21) "g (float[2,64] x, float[20,64] x20) => (float[22,32] y)\n"
     "<uint4[32,64] w = random(8), float[32,2] ws = fill(0.05), uint4[32,2] z = random(3)> { v = DequantizeLinear<axis=-1, block_size=32>(w, ws, z) t = Transpose<perm=[1,0]>(v) "
     "a = MatMul(x, t) b = MatMul(x20, t) y = Concat<axis=0>(a, b) }", 110, 3},
    {"rows of 4-bit codes that are no whole blocks", HEAD(21) "g (float[2,72] x, float[20,72] x20) => (float[22,32] y)\n"
     "<int4[32,72] w = random(8), float[32] ws = fill(0.05)> { v = DequantizeLinear<axis=0>(w, ws) t = Transpose<perm=[1,0]>(v) "
     "a = MatMul(x, t) b = MatMul(x20, t) y = Concat<axis=0>(a, b) }", 110, 3},
    {"attention over a cache of codes", HEAD(21) "g (float[2,4,1,16] q, float[2,2,1,16] k) => (float[2,4,1,16] y)\n"
     "<int8[2,2,40,16] pk = random(1), int8[2,2,40,16] pv = random(2), float s = {0.03}, int8 n = {0}, int64[1] two = {2}, "
     "int64[5] wide = {2, 2, 2, 41, 16}, int64[4] all = {2, 4, 41, 16}>"
     " { c = QuantizeLinear(k, s, n) nk = Concat<axis=2>(pk, c) nv = Concat<axis=2>(pv, c) dk = DequantizeLinear(nk, s) "
     "dv = DequantizeLinear(nv, s) uk = Unsqueeze(dk, two) ek = Expand(uk, wide) rk = Reshape(ek, all) uv = Unsqueeze(dv, two) "
     "ev = Expand(uv, wide) rv = Reshape(ev, all) t = Transpose<perm=[0,1,3,2]>(rk) a = MatMul(q, t) p = Softmax<axis=-1>(a) "
     "y = MatMul(p, rv) }", 110, 4},
    {"attention over a cache of codes with zero points, many rows", HEAD(21) "g (float[2,4,20,16] q, float[2,2,20,16] k) => (float[2,4,20,16] y)\n"
     "<uint8[2,2,40,16] pk = random(1), uint8[2,2,40,16] pv = random(2), float s = {0.03}, uint8 z = {3}, int64[1] two = {2}, "
     "int64[5] wide = {2, 2, 2, 60, 16}, int64[4] all = {2, 4, 60, 16}>"
     " { c = QuantizeLinear(k, s, z) nk = Concat<axis=2>(pk, c) nv = Concat<axis=2>(pv, c) dk = DequantizeLinear(nk, s, z) "
     "dv = DequantizeLinear(nv, s, z) uk = Unsqueeze(dk, two) ek = Expand(uk, wide) rk = Reshape(ek, all) uv = Unsqueeze(dv, two) "
     "ev = Expand(uv, wide) rv = Reshape(ev, all) t = Transpose<perm=[0,1,3,2]>(rk) a = MatMul(q, t) p = Softmax<axis=-1>(a) "
     "y = MatMul(p, rv) }", 110, 4},
    {"convolutions in a row", HEAD(17) "g (float[2,16,12,10] x, float[2,32,1,1] time) => (float[2,16,24,20] y)\n"
     "<float[32,16,3,3] w1 = random(1), float[32] b1 = random(2), float[16,32,3,3] w2 = random(3), float[16,16,1,1] w3 = "
     "random(4), float[16,16,3,3] w4 = random(13),"
     " int64[3] three = {2, 8, -1}, int64[4] four = {2, 32, 12, 10}, float[8] one = fill(1), float[8] nil = fill(0), "
     "float[32,1,1] gamma = random(5), float[32,1,1] beta = random(6),"
     " float[4] scales = {1, 1, 2, 2}, float[0] roi = {}>"
     " { c1 = Conv<pads=[1,1,1,1]>(x, w1, b1) t = Add(c1, time) r = Reshape(t, three) i = "
     "InstanceNormalization<epsilon=0.00001>(r, one, nil) k = Reshape(i, four) d = Mul(k, gamma)"
     " e = Add(d, beta) s = Sigmoid(e) z = Mul(e, s) c2 = Conv<pads=[1,1,1,1]>(z, w2) sum = Add(c2, x) c3 = Conv(sum, w3) m = Mul(c3, sum)"
     " up = Resize<mode=\"nearest\", coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"floor\">(m, roi, scales) y = "
     "Conv<pads=[1,1,1,1]>(up, w4) }", 100, 0},
    {"convolutions joined, and a reader of plain pictures", HEAD(21) "g (float[1,4,9,7] x) => (float[1,63,48] y)\n"
     "<float[16,4,3,3] w1 = random(1), float[32,4,1,1] w2 = random(2), float[48,48,3,3] w3 = random(3), float[48] gamma = "
     "random(4), float[48] beta = random(5), int64[3] shape = {1, 48, 63}, float half = {0.5}>"
     " { a = Conv<pads=[1,1,1,1]>(x, w1) b = Conv(x, w2) bh = Mul(half, b) j = Concat<axis=1>(a, bh) n = "
     "GroupNormalization<num_groups=6>(j, gamma, beta) r = Relu(n)"
     " c = Conv<pads=[1,1,1,1]>(r, w3) f = Reshape(c, shape) y = Transpose<perm=[0,2,1]>(f) }", 100, 0},
    {"a large picture: pieces of pixels", HEAD(21) "g (float[1,3,80,70] x) => (float[1,3,80,70] y)\n"
     "<float[64,3,3,3] w1 = random(1), float[64] gamma = random(2), float[64] beta = random(3), float[64,64,3,3] w2 = random(4), "
     "float[3,64,3,3] w3 = random(5)>"
     " { a = Conv<pads=[1,1,1,1]>(x, w1) n = GroupNormalization<num_groups=32>(a, gamma, beta) b = Conv<pads=[1,1,1,1]>(n, w2) c "
     "= Tanh(b) y = Conv<pads=[1,1,1,1]>(c, w3) }", 95, 0},
    {"pools, bounds and statistics in blocks", HEAD(17) "g (float[2,16,13,11] x) => (float[2,16,14,12] y)\n"
     "<float[32,16,3,3] w1 = random(1), float[32,1,3,3] w2 = random(2), float[16,32,1,1] w3 = random(3), float[16,48,3,3] w4 = "
     "random(4), float[32] k = random(5),"
     " float[32] z = random(6), float[32] v = fill(0.7), float[32,1,1] ch = random(7), float lo = {-0.2}, float hi = {0.9}, "
     "float[4] scales = {1, 1, 2, 2}, float[0] roi = {}>"
     " { a = Conv<pads=[1,1,1,1]>(x, w1) b = BatchNormalization(a, k, z, z, v) c = Clip(b, lo, hi) d = Conv<pads=[1,1,1,1], "
     "group=32>(c, w2) m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(d)"
     " p = AveragePool<kernel_shape=[3,2], pads=[1,0,1,1]>(d) e = Mul(m, ch) f = Conv(e, w3) j = Concat<axis=1>(f, p) s = "
     "AveragePool<kernel_shape=[2,3], strides=[2,2], pads=[0,1,1,1], count_include_pad=1>(j)"
     " up = Resize<mode=\"nearest\", coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"floor\">(s, roi, scales) g = "
     "GlobalAveragePool(up) gm = GlobalMaxPool(up) gg = Mul(g, gm) u = Add(up, gg) h = HardSwish(u) y = Conv<pads=[1,1,1,1]>(h, w4) }",
     100, 0},
    {"the same with channels last", HEAD(17) "g (float[2,5,13,11] x) => (float[2,6,14,12] y)\n"
     "<float[20,5,3,3] w1 = random(1), float[20,1,3,3] w2 = random(2), float[37,20,1,1] w3 = random(3), float[6,57,3,3] w4 = "
     "random(4), float[20] k = random(5),"
     " float[20] z = random(6), float[20] v = fill(0.7), float[20,1,1] ch = random(7), float lo = {-0.2}, float hi = {0.9}, "
     "float[4] scales = {1, 1, 2, 2}, float[0] roi = {}>"
     " { a = Conv<pads=[1,1,1,1]>(x, w1) b = BatchNormalization(a, k, z, z, v) c = Clip(b, lo, hi) d = Conv<pads=[1,1,1,1], "
     "group=20>(c, w2) m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(d)"
     " p = AveragePool<kernel_shape=[3,2], pads=[1,0,1,1]>(d) e = Mul(m, ch) f = Conv(e, w3) j = Concat<axis=1>(f, p) s = "
     "AveragePool<kernel_shape=[2,3], strides=[2,2], pads=[0,1,1,1], count_include_pad=1>(j)"
     " up = Resize<mode=\"nearest\", coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"floor\">(s, roi, scales) g = "
     "GlobalAveragePool(up) gm = GlobalMaxPool(up) gg = Mul(g, gm) u = Add(up, gg) h = HardSwish(u) y = Conv<pads=[1,1,1,1]>(h, w4) }",
     100, 0},
    {"gelu of tanh", HEAD(17) "g (float[5,33] x) => (float[5,33] y) <float h = {0.5}, float one = {1.0}, float r = {0.7978846}, "
                              "float k = {0.044715}, float three = {3.0}>"
     " { p = Pow(x, three) kp = Mul(p, k) s = Add(x, kp) rs = Mul(r, s) t = Tanh(rs) o = Add(one, t) hx = Mul(x, h) y = Mul(hx, o) }",
     105, 1},
    {"rms norm by reciprocal", HEAD(18) "g (float[3,5,40] x) => (float[3,5,40] y) <float two = {2.0}, float e = {0.00001}, "
                                        "int64[1] last = {-1}, float[40] w = random(3)>"
     " { p = Pow(x, two) m = ReduceMean<keepdims=1>(p, last) a = Add(m, e) q = Sqrt(a) r = Reciprocal(q) n = Mul(x, r) y = Mul(w, n) }",
     115, 1},
    {"rms norm by division, squares as products",
     HEAD(17) "g (float[3,5,40] x) => (float[3,5,40] y) <float one = {1.0}, float e = {0.00001}, float[40] w = random(3)>"
     " { p = Mul(x, x) m = ReduceMean<axes=[-1]>(p) a = Add(e, m) q = Sqrt(a) r = Div(one, q) n = Mul(x, r) y = Mul(n, w) }", 115, 1},
    {"mean over another axis is no rms norm",
     HEAD(17) "g (float[3,40,40] x) => (float[3,40,40] y) <float one = {1.0}, float e = {0.00001}, float[40] w = random(3)>"
     " { p = Mul(x, x) m = ReduceMean<axes=[1]>(p) a = Add(e, m) q = Sqrt(a) r = Div(one, q) n = Mul(x, r) y = Mul(n, w) }", 115, 0},
    {"layer norm from its chain", HEAD(17) "g (float[3,5,40] x) => (float[3,5,40] y) <float two = {2.0}, float e = {0.00001}, "
                                           "float[40] w = random(3), float[40] b = random(4)>"
     " { mu = ReduceMean<axes=[-1]>(x) d = Sub(x, mu) p = Pow(d, two) m = ReduceMean<axes=[-1]>(p) a = Add(m, e) q = Sqrt(a) n = "
     "Div(d, q) s = Mul(n, w) y = Add(s, b) }", 115, 1},
    {"rotary embedding of transposed heads", HEAD(17) "g (float[2,7,3,8] h, float[1,7,8] c, float[2,1,7,8] s) => (float[2,3,7,8] y)\n"
     "<int64[1] zero = {0}, int64[1] half = {4}, int64[1] end = {9223372036854775807}, int64[1] last = {3}, int64[1] one = {1}>"
     " { x = Transpose<perm=[0,2,1,3]>(h) xc = Mul(x, c) l = Slice(x, zero, half, last, one) u = Slice(x, half, end, last, one) n "
     "= Neg(u) r = Concat<axis=-1>(n, l) rs = Mul(r, s) y = Add(xc, rs) }", 120, 1},
    {"rotary embedding by Split", HEAD(17) "g (float[2,3,7,8] x, float[7,8] c, float[7,8] s) => (float[2,3,7,8] y) <int64[2] "
                                           "sizes = {4, 4}>"
     " { xc = Mul(x, c) l, u = Split<axis=-1>(x, sizes) n = Neg(u) r = Concat<axis=-1>(n, l) rs = Mul(r, s) y = Add(xc, rs) }", 120, 1},
    {"halves in the wrong order are not rotary",
     HEAD(17) "g (float[2,3,7,8] x, float[7,8] c, float[7,8] s) => (float[2,3,7,8] y) <int64[2] sizes = {4, 4}>"
     " { xc = Mul(x, c) l, u = Split<axis=-1>(x, sizes) n = Neg(l) r = Concat<axis=-1>(n, u) rs = Mul(r, s) y = Add(xc, rs) }", 120, 0},
    {"gated unit by slices", HEAD(17) "g (float[3,7,40] x) => (float[3,7,20] y) <float h = {0.5}, float one = {1.0}, float r = {1.4142135},"
     " int64[1] zero = {0}, int64[1] half = {20}, int64[1] end = {9223372036854775807}, int64[1] last = {-1}>"
     " { v = Slice(x, zero, half, last) g = Slice(x, half, end, last) a = Div(g, r) e = Erf(a) b = Add(e, one) c = Mul(g, b) d = "
     "Mul(c, h) y = Mul(v, d) }", 110, 1},
    {"gated unit by Split", HEAD(17) "g (float[3,7,40] x) => (float[3,7,20] y) <float h = {0.5}, float one = {1.0}, float r = {1.4142135}>"
     " { v, g = Split<axis=-1>(x) a = Div(g, r) e = Erf(a) b = Add(e, one) c = Mul(g, b) d = Mul(c, h) y = Mul(v, d) }", 110, 1},
    {"gate, value, product back and residual", HEAD(17) "g (float[3,7,40] x) => (float[3,7,40] y) <float[40,24] w1 = random(1), "
                                                        "float[40,24] w2 = random(2), float[24,40] w3 = random(3), float[40] b = random(4)>"
     " { a = MatMul(x, w1) s = Sigmoid(a) g = Mul(a, s) u = MatMul(x, w2) h = Mul(g, u) d = MatMul(h, w3) db = Add(b, d) y = "
     "Add(x, db) }", 110, 3},
    {"a residual that is broadcast is added by itself",
     HEAD(17) "g (float[3,7,40] x, float[7,24] r) => (float[3,7,24] y) <float[40,24] w = random(1)> { a = MatMul(x, w) y = Add(a, r) }",
     110, 0},
    {"gated unit whose halves are worked out from the shape",
     HEAD(17) "g (float[b,40] x) => (float[b,20] y) <float h = {0.5}, float one = {1.0}, float r = {1.4142135},"
     " int64[1] zero = {0}, int64 last = {1}, int64 two = {2}, int64[1] end = {9223372036854775807}, int64[1] axis = {0}, "
     "int64[1] ax = {1}>"
     " { sh = Shape(x) d = Gather(sh, last) m = Div(d, two) half = Unsqueeze(m, axis) v = Slice(x, zero, half, ax) g = Slice(x, "
     "half, end, ax)"
     " a = Div(g, r) e = Erf(a) b1 = Add(e, one) c = Mul(g, b1) k = Mul(c, h) y = Mul(v, k) }", 110, 1},
    {"bias, factors and scales shared by Identity", HEAD(17) "g (float[3,7,40] x) => (float[3,7,40] y) <float[40,40] w = "
                                                             "random(1), float[40] b = random(2), float two = {2.0}, float e = {0.00001}>"
     " { bi = Identity(b) gi = Identity(bi) ei = Identity(e) a = MatMul(x, w) c = Add(a, bi) p = Pow(c, two) m = "
     "ReduceMean<axes=[-1]>(p) v = Add(m, ei) q = Sqrt(v) n = Div(c, q) y = Mul(n, gi) }", 110, 2},
    {"large weights are packed piece by piece",
     HEAD(17) "g (float[3,700] x) => (float[3,700] y) <float[700,523] w = random(1), float[700,523] back = random(2)>"
     " { a = MatMul(x, w) t = Transpose<perm=[1,0]>(back) y = MatMul(a, t) }", 110, 2},
    {"what multiplies by one is passed on, other factors are not", HEAD(17) "g (float[1,16,9,7] x) => (float[1,16,9,7] y) "
                                                                            "<float[16,16,3,3] w = random(1), float one = {1.0}, float near = {1.0001}, float[1,1,1,1,1] wide = {1.0}, int64[4] four = {1, 16, 9, 7}>"
     " { a = Conv<pads=[1,1,1,1]>(x, w) b = Div(a, one) c = Mul(one, b) d = Conv<pads=[1,1,1,1]>(c, w) e = Mul(d, near) f = "
     "Div(e, wide) y = Reshape(f, four) }", 100, 0},
    {"int8 product, its constants shared by Identity", HEAD(17) "g (float[3,50] x) => (float[3,20] y)\n"
     "<float s = {0.01}, int8 z = {0}, int8[50,20] w = random(5), float[20] ws = fill(0.02)>"
     " { si = Identity(s) wi = Identity(w) wsi = Identity(ws) q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, si, z) v = "
     "DequantizeLinear<axis=1>(wi, wsi) y = MatMul(d, v) }", 110, 2},
    {"4-bit weight shared by Identity", HEAD(21) "g (float[2,64] x) => (float[2,32] y)\n"
     "<int4[64,32] w = random(8), float[4,32] ws = fill(0.05)> { wi = Identity(w) wsi = Identity(ws) v = DequantizeLinear<axis=0, "
     "block_size=16>(wi, wsi) y = MatMul(x, v) }", 110, 1},
    {"a head tied to a table", HEAD(17) "g (float[3,40] x) => (float[3,50] y) <float[50,40] w = random(1)> { t = "
                                        "Transpose<perm=[1,0]>(w) y = MatMul(x, t) }", 110, 1},
    {"rows of a table of codes", HEAD(21) "g (float[5,6] x) => (float[5,4] y) <int8[6,4] t = {-67, 24, 12, -94, -33, 107, 27, -6, "
                                          "33, 21, -111, 28, -124, 105, 87, -7, -61, 14, -68, -78, 127, 56, -7, 11}, float[6] s = {0.838, 0.482, 0.643, 0.159, 0.639, 0.869}>"
     " { i = ArgMax<axis=1, keepdims=0>(x) d = DequantizeLinear<axis=0>(t, s) y = Gather(d, i) }", 1000, 2},
    {"rows of a table in blocks, scales of 16 bits", HEAD(21) "g (float[5,6] x) => (float[5,8] y) <int4[6,8] t = random(1), float16[6,2] h = fill(0.3)>"
     " { i = ArgMax<axis=1, keepdims=0>(x) s = Cast<to=1>(h) d = DequantizeLinear<axis=-1, block_size=4>(t, s) y = Gather(d, i) }", 1000, 2},
    {"rows of a table in blocks, with zero points", HEAD(21) "g (float[5,6] x) => (float[5,8] y) <uint4[6,8] t = {12, 0, 2, 5, 1, "
                                                             "9, 0, 8, 15, 12, 13, 12, 14, 4, 11, 3, 1, 4, 15, 6, 8, 13, 9, 13, 12, 11, 13, 7, 10, 0, 8, 5, 10, 3, 6, 8, 9, 3, 2, 15, 15, 2, 11, 2, 13, 4, 0, 9}, float[6,2] s = {0.433, 0.421, 0.128, 0.609, 0.764, 0.384, 0.591, 0.555, 0.923, 0.286, 0.244, 0.046}, uint4[6,2] z = {0, 2, 3, 1, 6, 13, 9, 8, 4, 1, 10, 10}>"
     " { i = ArgMax<axis=1, keepdims=0>(x) d = DequantizeLinear<axis=-1, block_size=4>(t, s, z) y = Gather(d, i) }", 1000, 2},
    {"matrices of a table of experts", HEAD(21) "g (float[5,3] x) => (float[5,4,2] y) <int8[3,4,2] t = {-35, 118, -92, 102, 93, "
                                                "-31, -31, -10, 95, 6, -29, 37, 94, 25, 47, 16, -101, 31, 122, 113, 80, 2, -58, -17}, float[3,2,2] s = {0.638, 0.718, 0.937, 0.443, 0.266, 0.310, 0.346, 0.791, 0.988, 0.322, 0.383, 0.593}>"
     " { i = ArgMax<axis=1, keepdims=0>(x) d = DequantizeLinear<axis=1, block_size=2>(t, s) y = Gather(d, i) }", 1000, 2},
    {"a table with a scale a column, and one with a single scale", HEAD(21) "g (float[5,6] x) => (float[5,4] y) <int8[6,4] t = "
                                                                            "{-93, -112, 35, 33, -42, -8, -37, 46, 107, -37, 28, 53, -56, 61, -2, -122, 23, -112, 117, 46, -122, 119, -33, -63}, float[4] s = {0.632, 0.306, 0.605, 0.186}, float one = {0.25}>"
     " { i = ArgMax<axis=1, keepdims=0>(x) d = DequantizeLinear<axis=1>(t, s) e = DequantizeLinear(t, one) a = Gather(d, i) b = "
     "Gather(e, i) y = Add(a, b) }", 1000, 4},
    {"experts on the left, a column for each index",
     HEAD(21) "g (float[70,3] r, float[70,40,1] x) => (float[70,37,1] y) <float[3,37,40] t = random(1)>"
     " { i = ArgMax<axis=1, keepdims=0>(r) w = Gather(t, i) y = MatMul(w, x) }", 110, 2},
    {"experts on the right, two rows for each index",
     HEAD(21) "g (float[9,5] r, float[9,2,40] x) => (float[9,2,70] y) <float[5,40,70] t = random(1)>"
     " { i = ArgMax<axis=1, keepdims=0>(r) w = Gather(t, i) y = MatMul(x, w) }", 110, 2},
    {"experts by GatherND, three columns for each index, in float16",
     HEAD(21) "g (float[4,2,5] r, float[2,40,3] x) => (float[4,2,37,3] y) <float16[5,37,40] t = random(1)>"
     " { i = ArgMax<axis=2, keepdims=1>(r) h = Cast<to=10>(x) w = GatherND(t, i) p = MatMul(w, h) y = Cast<to=1>(p) }", 100, 4},
    {"experts counted from the end, one row for all indices",
     HEAD(21) "g (float[9,5] r, float[40] x) => (float[9,70] y) <float[5,40,70] t = random(1), int64 five = {5}>"
     " { i = ArgMax<axis=1, keepdims=0>(r) e = Sub(i, five) w = Gather(t, e) y = MatMul(x, w) }", 110, 3},
    {"experts in codes", HEAD(21) "g (float[70,3] r, float[70,40,1] x) => (float[70,37,1] y) <int8[3,37,40] t = random(1), "
                                  "float[37] s = fill(0.03)>"
     " { i = ArgMax<axis=1, keepdims=0>(r) d = DequantizeLinear<axis=1>(t, s) w = Gather(d, i) y = MatMul(w, x) }", 110, 2},
    {"experts in 4-bit blocks", HEAD(21) "g (float[9,5] r, float[9,2,40] x) => (float[9,2,70] y) <uint4[5,40,70] t = random(1), "
                                         "float[5,5,70] s = fill(0.03), uint4[5,5,70] z = random(3)>"
     " { i = ArgMax<axis=1, keepdims=0>(r) d = DequantizeLinear<axis=1, block_size=8>(t, s, z) w = Gather(d, i) y = MatMul(x, w) }", 110,
     2},
    {"a shape is the last to read a value", HEAD(17) "g (float[n,4,8,8] x) => (float[n,16,8,8] y)\n"
     "<float16[8,4,1,1] w1 = random(1), float16[8,8,1,1] w2 = random(2), float16[16,4,1,1] w3 = random(3), float16[16,16,1,1] w4 "
     "= random(4), int64[1] nil = {0}, int64[1] one = {1}, int64[1] two = {2},"
     " int64[1] four = {4}, int64[1] all = {16}>"
     " { f = Cast<to = 10>(x) g = AveragePool<kernel_shape=[2,2], strides=[2,2]>(f) gc = Conv(g, w3) a = Conv(f, w1) ra = Relu(a) "
     "b = Conv(ra, w2) rb = Relu(b) c = Concat<axis=1>(ra, rb)"
     " v = Slice(c, nil, all, one) q = Sigmoid(gc) s = Shape(c) hw = Slice(s, two, four) t = Shape(q) nc = Slice(t, nil, two) "
     "size = Concat<axis=0>(nc, hw)"
     " up = Resize<mode=\"nearest\", coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"floor\">(q, , , size) m = "
     "Mul(v, up) m32 = Cast<to = 1>(m)"
     " mean = ReduceMean<axes=[2,3]>(m32) m16 = Cast<to = 10>(mean) e = Conv(m16, w4) h = HardSigmoid(e) z = Mul(m, h) y = "
     "Cast<to = 1>(z) }", 40, 0},
    {"a codebook in the place of keys and values is no attention",
     HEAD(17) "g (float[2,3,8] x) => (float[2,3,8] y) <float16[8,16] w = random(1), float16[16,8] v = random(2)>"
     " { h = Cast<to = 10>(x) a = MatMul(h, w) p = Softmax<axis=-1>(a) z = MatMul(p, v) y = Cast<to = 1>(z) }", 50, 0},
    {"subgraph that captures", HEAD(17) "g (float[4] x, float[4] x2) => (float[4] y) <float[4] k = {1, 2, 3, 4}, int64 n = {5}, "
                                        "bool t = {1}>"
     " { y = Loop<body = b (int64 i, bool c, float[4] a) => (bool co, float[4] ao) { co = Identity(c) m = Mul(a, k) ao = Add(m, "
     "x2) }>(n, t, x) }", 1000, 0},
    {"halves kept as floats, moved, joined with constants and read as halves",
     HEAD(17) "g (float[3,40] x, float[40,3] x2) => (float[3,179] y)\n"
     "<float16[3,6] c = random(3), float16 two = {2}, float16 v = {0.5}, int64[4] pads = {0, 0, 0, 40}, int64[1] one = {1}, int64 ax = {1}, "
     "int64[1] from = {3}, int64[1] to = {49}, bool[3,1] t = {1, 0, 1}, float16[1,86] w = random(4)>"
     " { a = Cast<to = 10>(x) b = Cast<to = 10>(x2) m = Mul(a, two) bt = Transpose<perm=[1,0]>(b) s = Softmax(bt) d = Add(m, s) "
     "e = Concat<axis=1>(d, c) p = Pad(e, pads, v) q = Sigmoid(p) h = Where(t, q, w) cs = CumSum(q, ax) sum = Cast<to = 1>(cs) "
     "best = ArgMax<axis=1>(q) bf = Cast<to = 1>(best) "
     "z = Slice(q, from, to, one) z2 = Concat<axis=1>(z, z) zf = Cast<to = 1>(z2) y = Concat<axis=1>(zf, sum, bf) }", 1000, 0},
    {"halves kept as floats overflow as halves do",
     HEAD(17) "g (float[3,40] x) => (float[3,40] y) <float16 big = {60000}, float16 hundred = {100}>"
     " { a = Cast<to = 10>(x) b = Mul(a, a) c = Add(b, b) d = Exp(c) e = Mul(d, big) f = Div(hundred, e) y = Cast<to = 1>(f) }", 1000, 0},
    {"a value kept in floats does not change what it was cast from", HEAD(17) "g (float[3,40] x) => (float[3,40] y)"
     " { a = Exp(x) b = Cast<to = 10>(a) c = Sigmoid(b) d = Cast<to = 1>(c) y = Add(a, d) }", 1000, 0},
    {"bfloat16 kept as floats", HEAD(17) "g (float[3,40] x) => (float[3,40] y) <float16 nothing = {0}>"
     " { a = Cast<to = 16>(x) b = Exp(a) c = Mul(b, a) d = Softmax(c) y = Cast<to = 1>(d) }", 1000, 0},
    {"a half convolution, its BatchNormalization, sum and activation",
     HEAD(17) "g (float[1,16,9,7] x) => (float[1,16,9,7] y) <float16[16,16,3,3] w = random(1), float16[16] s = random(2), float16[16] b = "
     "random(3), float16[16] m = random(4), float16[16] v = fill(0.7), float16[16,16,1,1] w2 = random(5)>"
     " { a = Cast<to = 10>(x) c = Conv<pads=[1,1,1,1]>(a, w) n = BatchNormalization(c, s, b, m, v) t = Add(n, a) r = Relu(t) "
     "d = Conv(r, w2) y = Cast<to = 1>(d) }", 55, 4},
    {"rotation of halves", HEAD(17) "g (float[2,3,5,8] x, float[5,8] cs, float[5,8] sn) => (float[2,3,5,8] y)\n"
     "<int64[1] nil = {0}, int64[1] half = {4}, int64[1] all = {8}, int64[1] last = {3}>"
     " { a = Cast<to = 10>(x) c = Cast<to = 10>(cs) s = Cast<to = 10>(sn) l = Slice(a, nil, half, last) h = Slice(a, half, all, last) "
     "n = Neg(h) r = Concat<axis=-1>(n, l) p = Mul(a, c) q = Mul(r, s) z = Add(p, q) y = Cast<to = 1>(z) }", 60, 5},
    {"a gated unit of halves", HEAD(17) "g (float[6,16] x) => (float[6,8] y) <int64[2] parts = {8, 8}>"
     " { a = Cast<to = 10>(x) l, h = Split<axis=-1>(a, parts) s = Sigmoid(h) g = Mul(h, s) z = Mul(l, g) y = Cast<to = 1>(z) }", 60, 3},
    {"attention with a table of zeros",
     HEAD(17) "g (float[2,9,8] q, float[2,8,11] k, float[2,11,8] v) => (float[2,9,8] y) <int64[3] dims = {2, 9, 11}, float nil = {0}, float c = {0.3}>"
     " { s = MatMul(q, k) t = Mul(s, c) z = ConstantOfShape(dims) n = Mul(z, nil) a = Add(t, n) p = Softmax<axis=-1>(a) y = MatMul(p, v) }",
     110, 1},
    {"attention with a table of zeros that is more than the scores",
     HEAD(17) "g (float[1,9,8] q, float[1,8,11] k, float[2,11,8] v) => (float[2,9,8] y) <int64[3] dims = {2, 9, 11}>"
     " { s = MatMul(q, k) z = ConstantOfShape(dims) a = Add(z, s) p = Softmax<axis=-1>(a) y = MatMul(p, v) }", 110, 0},
    {"attention with a table of numbers that are not 0",
     HEAD(17) "g (float[2,9,8] q, float[2,8,11] k, float[2,11,8] v) => (float[2,9,8] y) <int64[3] dims = {2, 9, 11}, float c = {-2}>"
     " { s = MatMul(q, k) z = ConstantOfShape<value=float[1] {3}>(dims) n = Mul(z, c) a = Add(s, n) p = Softmax<axis=-1>(a) "
     "y = MatMul(p, v) }", 110, 0},
};

static void one_case(const run_case *rc)
{
    fixture f = load(rc->text);
    feeds in;
    qx_tensor plain, fused, again;
    qx_exec_options simple = {.no_fuse = true, .simulate = true};
    make_feeds(&f, &in);
    qx_exec *a = make_exec(&f, &simple), *b = make_exec(&f, NULL);
    run(&f, a, &in, &plain);
    run(&f, b, &in, &fused);
    qx_exec_profile(b, true);
    run(&f, b, &in, &again);
    qx_tensor_free(f.ctx, &again);
    int steps;
    qx_exec_times(b, &steps);
    if (rc->steps && steps != rc->steps) fail_msg("%s: %d steps, %d expected", rc->name, steps, rc->steps);
    qx_exec_profile(b, false);
    double db = sqnr(&plain, &fused);
    if (!(db >= rc->min_db)) fail_msg("%s: fused against plain %.1f dB", rc->name, db);
    for (int k = 0; k < 3; k++) { /* recorded, then replayed from the arena */
        run(&f, b, &in, &again);
        assert_memory_equal(fused.data, again.data, fused.bytes);
        qx_tensor_free(f.ctx, &again);
    }
    qx_tensor_free(f.ctx, &plain);
    qx_tensor_free(f.ctx, &fused);
    qx_exec_free(a);
    qx_exec_free(b);
    free_feeds(&f, &in);
    unload(&f);
}

static void fused_is_plain(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) one_case(&cases[i]);
}

/* Without auto_pad the larger half of what output_shape takes away lies in front, as the standard has it. */
static void transposed_into_a_shape(void **state)
{
    (void)state;
    static const char *const text[] = {
        HEAD(17) "g (float[1,2,3] x) => (float[1,3,6] y) <float[2,3,3] w = random(6)> { y = ConvTranspose<strides=[2], output_shape=[6]>(x, w) }",
        HEAD(17) "g (float[1,2,3] x) => (float[1,3,6] y) <float[2,3,3] w = random(6)> { y = ConvTranspose<strides=[2], pads=[1, 0]>(x, w) }"};
    float first[18];
    qx_tensor y;
    for (int i = 0; i < 2; i++) {
        feeds in;
        fixture f = load(text[i]);
        make_feeds(&f, &in);
        qx_exec *x = make_exec(&f, NULL);
        run(&f, x, &in, &y);
        assert_int_equal(y.numel, 18);
        if (i) assert_memory_equal(first, y.data, sizeof first);
        else memcpy(first, y.data, sizeof first);
        qx_tensor_free(f.ctx, &y);
        qx_exec_free(x);
        free_feeds(&f, &in);
        unload(&f);
    }
}

/* A cache of the window's length that is not full yet is a cache like others, an empty one too. One that has dropped its first keys
 * gives what the keys that are left give. */
static void caches_of_a_window(void **state)
{
    (void)state;
#define KEYS(last, all) "int32[1] last = {" last "}, int32 total = {" all "}"
#define FOUR_KEYS KEYS("3", "4")
#define GQA(rows, more, past, lengths) HEAD(21) "g (float[1," rows ",32] x) => (float[1," rows ",16] y) <float[1,1,4,8] k = random(1), " \
    "float[1,1,4,8] v = random(2), " lengths "> { y, a, b = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=1, " \
    "local_window_size=3" more ">(x, , , " past ", last, total) }"
    static const char *const same[][2] = {
        {GQA("4", ", sliding_window_cache=1", ", ", FOUR_KEYS), GQA("4", "", ", ", FOUR_KEYS)},
        {GQA("1", ", sliding_window_cache=1", "k, v", FOUR_KEYS), GQA("1", "", "k, v", FOUR_KEYS)},
        /* the fifth does not fit: it runs over a copy, and three keys stay; the sixth finds these; of six at once the last do */
        {GQA("1", ", sliding_window_cache=1", "k, v", KEYS("4", "5")), GQA("1", "", "k, v", KEYS("4", "5"))},
        {GQA("1", ", sliding_window_cache=1", "k, v", KEYS("5", "6")), GQA("1", "", "k, v", FOUR_KEYS)},
        {GQA("6", ", sliding_window_cache=1", "k, v", KEYS("5", "6")), GQA("6", "", ", ", KEYS("5", "6"))}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        float first[96];
        for (int k = 0; k < 2; k++) {
            feeds in;
            qx_tensor y;
            fixture f = load(same[i][k]);
            make_feeds(&f, &in);
            qx_exec *x = make_exec(&f, NULL);
            run(&f, x, &in, &y);
            assert_true(y.bytes <= sizeof first);
            if (k) assert_memory_equal(first, y.data, y.bytes);
            else memcpy(first, y.data, y.bytes);
            qx_tensor_free(f.ctx, &y);
            qx_exec_free(x);
            free_feeds(&f, &in);
            unload(&f);
        }
    }
}

/* NhwcConv as ONNX Runtime's optimizer writes it, with the weight's channels last, is Conv between transpositions. */
static void channels_last_weights(void **state)
{
    (void)state;
    static const char *const text[] = {
        "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> g (float[2,9,7,4] x) => (float[2,9,7,6] y) "
        "<float[6,3,3,4] w = random(6), float[6] b = random(7)>"
        " { y = com.microsoft.NhwcConv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b) }",
        HEAD(17) "g (float[2,9,7,4] x) => (float[2,9,7,6] y) <float[6,3,3,4] w = random(6), float[6] b = random(7)>"
        " { u = Transpose<perm=[0,3,1,2]>(x) v = Transpose<perm=[0,3,1,2]>(w) z = Conv<pads=[1,1,1,1]>(u, v, b) y = "
        "Transpose<perm=[0,2,3,1]>(z) }"};
    qx_tensor y[2];
    fixture f[2];
    for (int i = 0; i < 2; i++) {
        feeds in;
        f[i] = load(text[i]);
        make_feeds(&f[i], &in);
        qx_exec *x = make_exec(&f[i], NULL);
        run(&f[i], x, &in, &y[i]);
        if (i == 0) {
            qx_tensor again; /* nothing of the first run's weight may be left in the wrong order */
            run(&f[i], x, &in, &again);
            assert_memory_equal(y[0].data, again.data, again.bytes);
            qx_tensor_free(f[i].ctx, &again);
        }
        qx_exec_free(x);
        free_feeds(&f[i], &in);
    }
    assert_true(sqnr(&y[1], &y[0]) > 120);
    for (int i = 0; i < 2; i++) {
        qx_tensor_free(f[i].ctx, &y[i]);
        unload(&f[i]);
    }
}

/* Convolutions of lines, of pictures of width 1, with several outputs a channel: all by one loop here. */
typedef struct line_conv { const char *text; int64_t group, in_ch, out_ch, in, kernel, stride, dilation, begin, out; } line_conv;

static void line_reference(const line_conv *l, const float *x, const float *w, const float *b, float *y)
{
    const int64_t per = l->in_ch / l->group;
    for (int64_t o = 0; o < l->out_ch; o++)
        for (int64_t p = 0; p < l->out; p++) {
            double sum = (double)b[o];
            for (int64_t c = 0; c < per; c++)
                for (int64_t k = 0; k < l->kernel; k++) {
                    const int64_t at = p * l->stride - l->begin + k * l->dilation, from = o / (l->out_ch / l->group) * per + c;
                    if (at >= 0 && at < l->in) sum += (double)x[from * l->in + at] * (double)w[(o * per + c) * l->kernel + k];
                }
            y[o * l->out + p] = (float)sum;
        }
}

static void lines_and_copies(void **state)
{
    (void)state;
    static const line_conv lines[] = {
        {HEAD(17) "g (float[1,12,40] x, float[12,1,9] w, float[12] b) => (float[1,12,40] y) { y = Conv<group=12, pads=[4,4]>(x, w, b) }",
         12, 12, 12, 40, 9, 1, 1, 4, 40},
        {HEAD(17) "g (float[1,16,33] x, float[48,1,5] w, float[48] b) => (float[1,48,15] y) { y = Conv<group=16, strides=[2], "
                  "dilations=[2], pads=[3,2]>(x, w, b) }", 16, 16, 48, 33, 5, 2, 2, 3, 15},
        {HEAD(17) "g (float[1,20,50,1] x, float[32,20,5,1] w, float[32] b) => (float[1,32,48,1] y) { y = Conv<pads=[2,0,0,0]>(x, w, b) }",
         1, 20, 32, 50, 5, 1, 1, 2, 48},
        {HEAD(17) "g (float[1,6,30] x, float[9,2,3] w, float[9] b) => (float[1,9,28] y) { y = Conv<group=3>(x, w, b) }", 3, 6, 9, 30, 3,
         1, 1, 0, 28}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        static float want[48 * 48];
        feeds in;
        qx_tensor y, reference;
        fixture f = load(lines[i].text);
        make_feeds(&f, &in);
        qx_exec *x = make_exec(&f, NULL);
        run(&f, x, &in, &y);
        reference = y, reference.data = want;
        assert_true((size_t)y.numel <= sizeof want / sizeof *want);
        line_reference(&lines[i], in.t[0].data, in.t[1].data, in.t[2].data, want);
        if (!(sqnr(&reference, &y) > 110)) fail_msg("case %zu: %.1f dB", i, sqnr(&reference, &y));
        qx_tensor_free(f.ctx, &y);
        qx_exec_free(x);
        free_feeds(&f, &in);
        unload(&f);
    }
}

/* The output of one case on a context with so many threads. */
static void run_threads(const run_case *rc, int threads, float **out, size_t *bytes)
{
    qx_ctx_options o = {.threads = threads};
    fixture f = {.ctx = qx_ctx_new(&o)};
    feeds in;
    qx_tensor y;
    assert_non_null(f.ctx);
    assert_int_equal(qx_model_parse_text(f.ctx, rc->text, &f.m), QX_OK);
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, NULL);
    run(&f, x, &in, &y);
    *out = malloc(y.bytes);
    *bytes = y.bytes;
    memcpy(*out, y.data, y.bytes);
    qx_tensor_free(f.ctx, &y);
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
}

static void same_bytes_for_any_threads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float *one, *three;
        size_t n, m;
        run_threads(&cases[i], 1, &one, &n);
        run_threads(&cases[i], 3, &three, &m);
        assert_int_equal(n, m);
        if (memcmp(one, three, n) != 0) fail_msg("%s: 1 and 3 threads differ", cases[i].name);
        free(one);
        free(three);
    }
}

typedef struct seen { int calls[3]; double sum[3]; } seen;

/* A sum that depends on the order of the elements. */
static qx_status watch_order(void *user, int i, const qx_value *v, const qx_tensor *t)
{
    seen *s = user;
    (void)v;
    s->calls[i]++;
    for (int64_t k = 0; k < t->numel; k++) s->sum[i] += (double)(((const float *)t->data)[k] * (float)(k % 97));
    return QX_OK;
}

/* What is watched is told as a plain tensor, whatever layout the run keeps it in. */
static void watched_pictures_are_plain(void **state)
{
    (void)state;
    static const char *const names[] = {"z", "sum", "up"};
    const run_case *rc = cases;
    while (strcmp(rc->name, "convolutions in a row") != 0) rc++;
    fixture f = load(rc->text);
    qx_exec_options simple = {.no_fuse = true};
    feeds in;
    seen s[2] = {{.calls = {0}}, {.calls = {0}}};
    make_feeds(&f, &in);
    for (int k = 0; k < 2; k++) {
        qx_exec *x = make_exec(&f, k ? &simple : NULL);
        qx_value *w[3] = {value(&f, names[0]), value(&f, names[1]), value(&f, names[2])};
        qx_tensor y;
        assert_int_equal(qx_exec_watch(x, w, 3, watch_order, &s[k]), QX_OK);
        run(&f, x, &in, &y);
        qx_tensor_free(f.ctx, &y);
        qx_exec_free(x);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(s[0].calls[i], 1);
        if (!(fabs(s[0].sum[i] - s[1].sum[i]) < 1e-3 * fabs(s[1].sum[i])))
            fail_msg("'%s': %.6f, node by node %.6f", names[i], s[0].sum[i], s[1].sum[i]);
    }
    free_feeds(&f, &in);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_is_plain), cmocka_unit_test(same_bytes_for_any_threads), cmocka_unit_test(channels_last_weights),
        cmocka_unit_test(transposed_into_a_shape), cmocka_unit_test(caches_of_a_window), cmocka_unit_test(lines_and_copies),
        cmocka_unit_test(watched_pictures_are_plain)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
