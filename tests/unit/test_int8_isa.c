/* test_int8_isa.c - real int8 arithmetic is exact on every instruction set that oneDNN can be told to stay within. Without VNNI
 * its kernels saturate sums of two products in 16 bits, so there our own have to run. tests/CMakeLists.txt runs this program once
 * for the machine and once for each older set (DNNL_MAX_CPU_ISA); full-range random codes, since regular ones can hide the fault. */
#include <math.h>
#include <stdlib.h>

#include "model_text.h"
#include "runtime/exec.h"

typedef struct int8_case { const char *name, *text; } int8_case;
static const int8_case cases[] = {
    {"product, uint8", HEAD(17) "g (float[9,300] x) => (float[9,70] y) <float s = {0.0079}, uint8 z = {127}, int8[300,70] w = "
                                "random(5), float[70] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1>(w, ws) y = MatMul(d, v) }"},
    {"product, int8", HEAD(17) "g (float[9,300] x) => (float[9,70] y) <float s = {0.0079}, int8 z = {0}, int8[300,70] w = "
                               "random(6), float[70] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1>(w, ws) y = MatMul(d, v) }"},
    {"one row, uint8", HEAD(17) "g (float[1,301] x) => (float[1,70] y) <float s = {0.0079}, uint8 z = {120}, int8[301,70] w = "
                                "random(9), float[70] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1>(w, ws) y = MatMul(d, v) }"},
    {"few rows, int8", HEAD(17) "g (float[5,303] x) => (float[5,200] y) <float s = {0.0079}, int8 z = {-7}, int8[303,200] w = "
                                "random(10), float[200] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1>(w, ws) y = MatMul(d, v) }"},
    /* the weight's sums that lie behind what is packed: none, both, those of the zero point */
    {"product, uint8 from 0", HEAD(17) "g (float[9,302] x) => (float[9,70] y) <float s = {0.0079}, uint8 z = {0}, int8[302,70] w = "
                                       "random(9), float[70] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1>(w, ws) y = MatMul(d, v) }"},
    {"rows of a weight, int8 and a zero point", HEAD(17) "g (float[9,303] x) => (float[9,130] y) <float s = {0.0079}, int8 z = {-7}, "
                                                         "int8[130,303] w = random(9), float[130] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, ws) y = Gemm<transB=1>(d, v) }"},
    {"rows of a weight, uint8", HEAD(17) "g (float[40,304] x) => (float[40,130] y) <float s = {0.0079}, uint8 z = {120}, "
                                         "int8[130,304] w = random(9), float[130] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, ws) y = Gemm<transB=1>(d, v) }"},
    {"convolution, uint8", HEAD(17) "g (float[1,16,9,9] x) => (float[1,24,9,9] y) <float s = {0.0079}, uint8 z = {127}, "
                                    "int8[24,16,3,3] w = random(7), float[24] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, ws) y = Conv<pads=[1,1,1,1]>(d, v) }"},
    {"convolution, int8", HEAD(17) "g (float[1,16,9,9] x) => (float[1,24,9,9] y) <float s = {0.0079}, int8 z = {3}, "
                                   "int8[24,16,3,3] w = random(8), float[24] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, ws) y = Conv<pads=[1,1,1,1]>(d, v) }"},
    /* the library's own sums of so many channels are wrong */
    {"deep convolution, uint8", HEAD(17) "g (float[1,1792,16,16] x) => (float[1,64,16,16] y) <float s = {0.0079}, uint8 z = {127}, "
                                         "int8[64,1792,3,3] w = random(7), float[64] ws = fill(0.02)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, ws) y = Conv<pads=[1,1,1,1]>(d, v) }"},
    /* the library's output scales multiply a bias too */
    {"product with bias", HEAD(17) "g (float[9,300] x) => (float[9,70] y) <float s = {0.0079}, uint8 z = {127}, int8[300,70] w = "
                                   "random(5), float[70] ws = fill(0.02), float[70] b = random(11)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=1>(w, ws) y = Gemm(d, v, b) }"},
    {"convolution with bias", HEAD(17) "g (float[1,16,9,9] x) => (float[1,24,9,9] y) <float s = {0.0079}, uint8 z = {127}, "
                                       "int8[24,16,3,3] w = random(7), float[24] ws = fill(0.02), float[24] b = random(12)>"
     " { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis=0>(w, ws) y = "
     "Conv<pads=[1,1,1,1]>(d, v, b) }"},
};

/* Whether the environment keeps oneDNN below VNNI. */
static bool without_vnni(void)
{
    const char *isa = getenv("DNNL_MAX_CPU_ISA");
    return isa && (!strcmp(isa, "SSE41") || !strcmp(isa, "AVX2") || !strcmp(isa, "AVX512_CORE"));
}

static void run(const int8_case *k, const qx_exec_options *o, bool quantized, float *y, int64_t *n)
{
    fixture f = load(k->text);
    qx_exec *x = NULL;
    qx_tensor in, out;
    int64_t dims[QX_MAX_RANK];
    uint32_t seed = 12345;
    int count = 0;
    const qx_value *v = f.m->graph->inputs[0];
    for (int d = 0; d < v->type.rank; d++) dims[d] = v->type.dims[d].n;
    ok(&f, qx_tensor_new(f.ctx, &in, QX_DT_FLOAT, v->type.rank, dims));
    for (int64_t i = 0; i < in.numel; i++) {
        seed = seed * 1664525u + 1013904223u;
        ((float *)in.data)[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    ok(&f, qx_exec_new(f.ctx, f.m, o, &x));
    qx_exec_profile(x, true);
    ok(&f, qx_exec_run(x, &(qx_feed){"x", &in}, 1, NULL, 1, &out));
    *n = out.numel;
    memcpy(y, out.data, out.bytes);
    const qx_node_time *t = qx_exec_times(x, &count);
    int products = 0;
    for (int i = 0; quantized && i < count; i++) {
        if (strcmp(t[i].op, "MatMul") && strcmp(t[i].op, "Gemm") && strcmp(t[i].op, "Conv")) continue;
        products++;
        if (!t[i].kernel || (without_vnni() && strncmp(t[i].kernel, "own", 3) != 0))
            fail_msg("%s: kernel '%s' on a CPU without VNNI", k->name, t[i].kernel ? t[i].kernel : "(none)");
    }
    assert_int_equal(products, quantized);
    qx_tensor_free(f.ctx, &in);
    qx_tensor_free(f.ctx, &out);
    qx_exec_free(x);
    unload(&f);
}

static void sums_are_exact(void **state)
{
    static float real[16384], simulated[16384];
    const qx_exec_options plain = {.simulate = true, .no_fuse = true};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n, m;
        double noise = 0, signal = 0;
        run(&cases[i], NULL, true, real, &n);
        run(&cases[i], &plain, false, simulated, &m);
        assert_true(n == m && n > 0);
        for (int64_t k = 0; k < n; k++) {
            noise += ((double)real[k] - (double)simulated[k]) * ((double)real[k] - (double)simulated[k]);
            signal += (double)simulated[k] * (double)simulated[k];
        }
        if (noise > signal * 1e-10) fail_msg("%s: %.1f dB between integer and float arithmetic", cases[i].name, 10 * log10(signal / noise));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_are_exact)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
