/* shapes_codes.c - products and convolutions of codes with the largest dims of SDXL's UNet and Llama 8B, as the formats write
 * them: INT8, E4M3, 4-bit weights in blocks of 32. */
#include "tests/gpu/shapes.h"

#define PAIR(name, x, zero) name "q = QuantizeLinear(" x ", s, " zero ") " name "x = DequantizeLinear(" name "q, s, " zero ") "

void build_codes(builder *b, const char *dir)
{
    static const char text[] =
        "<ir_version: 10, opset_import: [\"\" : 21]>\n"
        "codes (float16[8192,640] x, float16[2,320,128,128] p, float16[2048,4096] t, float16[1,4096] u) => (float16[8192,5120] a, "
        "float16[8192,5120] b, float16[2,320,128,128] c,"
        " float16[2,320,128,128] d, float16[2048,4096] e, float16[1,4096] f)\n"
        "<float16 s = {0.01}, uint8 z = {117}, float8e4m3fn nil = {0}, int8[640,5120] wa = random(1), float16[5120] sa = "
        "fill(0.02), float8e4m3fn[640,5120] wb = random(2),"
        " int8[320,320,3,3] wc = random(3), float16[320] sc = fill(0.02), float16[320] bias = fill(0.5), "
        "float8e4m3fn[320,320,3,3] wd = random(4), int4[4096,4096] we = random(5),"
        " float16[128,4096] se = fill(0.03)>\n"
        "{ " PAIR("a", "x", "z") "av = DequantizeLinear<axis=1>(wa, sa) a = MatMul(ax, av) " PAIR("b", "x",
            "nil") "bv = DequantizeLinear<axis=1>(wb, sa) b = MatMul(bx, bv) "
        PAIR("c", "p", "z") "cv = DequantizeLinear<axis=0>(wc, sc) c = Conv<pads=[1,1,1,1]>(cx, cv, bias) " PAIR("d", "p",
            "nil") "dv = DequantizeLinear<axis=0>(wd, sc)"
        " d = Conv<pads=[1,1,1,1]>(dx, dv, bias) ev = DequantizeLinear<axis=0, block_size=32>(we, se) e = MatMul(t, ev) f = "
        "MatMul(u, ev) }";
    build_start(b, text, 1);
    build_finish(b, dir, NULL, 0);
}
