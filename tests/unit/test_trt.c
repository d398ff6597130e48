/* test_trt.c - TensorRT's quantization operators: codes and scales of known blocks, whatever is given by attribute, shape or name, and what
 * is refused. Against NumPy: tests/interop/trt.py. */
#include "exec_run.h"

#define TRT "<ir_version: 12, opset_import: [\"\" : 24, \"trt\" : 1]>\n"

typedef struct known { const char *text; float x[64]; int64_t n; float want[64]; int64_t wanted; } known;

static void feed(const fixture *f, const float *v, int64_t n, feeds *in)
{
    make_feeds(f, in);
    assert_int_equal(in->n, 1);
    assert_int_equal(in->t[0].numel, n);
    memcpy(in->t[0].data, v, (size_t)n * sizeof *v);
}

static void gives(const known *k)
{
    fixture f = load(k->text);
    qx_exec *x = make_exec(&f, NULL);
    feeds in;
    qx_tensor y;
    float got[64];
    feed(&f, k->x, k->n, &in);
    run(&f, x, &in, &y);
    assert_int_equal(y.numel, k->wanted);
    assert_true(qx_to_f32(y.dtype, y.data, y.numel, got));
    for (int64_t i = 0; i < k->wanted; i++)
        if (got[i] != k->want[i]) fail_msg("%s: [%lld] is %g instead of %g", k->text, (long long)i, (double)got[i], (double)k->want[i]);
    qx_tensor_free(f.ctx, &y);
    free_feeds(&f, &in);
    qx_exec_free(x);
    unload(&f);
}

#define FP4 "g (float[2,16] x) => (" /* the second level of a tensor that reaches 1.6 */
#define FP4_BODY ") <float s2 = {0.000595238}> { codes, s = trt.TRT_FP4DynamicQuantize <axis = -1, block_size = 16, scale_type = 17> (x, s2) }"
#define RAMP -.08f, -.07f, -.06f, -.05f, -.04f, -.03f, -.02f, -.01f, 0, .01f, .02f, .03f, .04f, .05f, .06f, .07f

static void blocks_of_fp4(void **state)
{
    (void)state;
    const known codes = {TRT FP4 "float4e2m1[2,16] codes" FP4_BODY, {RAMP}, 32,
                         {-6, -6, -4, -4, -3, -2, -1.5f, -1, 0, 1, 1.5f, 2, 3, 4, 4, 6}, 32};
    const known scales = {TRT FP4 "float8e4m3fn[2,1] s" FP4_BODY, {RAMP}, 32, {22, 1}, 2}; /* 22.4 rounded; a block of zeros */
    gives(&codes);
    gives(&scales);
}

#define MX "g (float[1,32] x) => ("
#define MX_BODY ") { codes, s = trt.TRT_MXFP8DynamicQuantize (x) }"

static void powers_of_two(void **state)
{
    (void)state;
    static const struct { float amax, code; } rows[] = {{1, 119}, {2, 120}, {.5f, 118}, {3, 120}, {7, 121}, {8, 122}, {448, 127}, {449, 128}, {0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const known k = {TRT MX "uint8[1,1] s" MX_BODY, {[5] = -rows[i].amax}, 32, {rows[i].code}, 1};
        gives(&k);
    }
    const known codes = {TRT MX "float8e4m3fn[1,32] codes" MX_BODY, {[3] = 448, [4] = -1.0625f, [5] = 17}, 32,
                         {[3] = 448, [4] = -1, [5] = 16}, 32};
    gives(&codes);
}

static void blocks_of_two_axes(void **state)
{
    (void)state;
    const known back = {TRT "g (float[4,4] x) => (float[4,4] y) <float[2,2] s = {1, 2, 3, 4}> { q = Cast <to = 17> (x) y = "
                        "trt.TRT_BlockDequantize <block_shape = [2, 2]> (q, s) }",
                        {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 16, {1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4}, 16};
    const known there = {TRT "g (float[2,4] x) => (float8e4m3fn[2,4] y) <float[1,2] s = {1, 2}> { y = trt.TRT_BlockQuantize <block_shape = "
                         "[2, 2]> (x, s) }", {2, 2, 2, 2, 4, 4, 4, 4}, 8, {2, 2, 1, 1, 4, 4, 2, 2}, 8};
    const known whole = {TRT "g (float[2,4] x) => (float[2,1] s) { q, s = trt.TRT_DynamicQuantize <block_shape = [1, -1], output_type = 17> "
                         "(x) }", {448, 1, 2, 3, 1, 896, 1, 1}, 8, {1, 2}, 2};
    gives(&back);
    gives(&there);
    gives(&whole);
}

/* Blocks that no attribute gives; powers of two as bytes; the standard's pair in TensorRT's domain, and TensorRT's in the standard's. */
static void pairs(void **state)
{
    (void)state;
    const known shapes = {TRT "g (float[4,1] x) => (float[4,1] y) <float[2,1] s = {1, 3}> { q = Cast <to = 22> (x) y = "
                          "TRT_INT4DequantizeLinear <axis = 0> (q, s) }", {1, -2, 3, -8}, 4, {1, -2, 9, -24}, 4};
    const known bytes = {TRT "g (float[1,4] x) => (float[1,4] y) <uint8[1,2] s = {128, 126}> { q = Cast <to = 17> (x) y = "
                         "trt.TRT_MXFP8DequantizeLinear <axis = -1, block_size = 2> (q, s) }", {1, 2, 3, 4}, 4, {2, 4, 1.5f, 2}, 4};
    const known named = {TRT "g (float[3] x) => (float[3] y) <float s = {2}> { q = trt.TRT_FP8QuantizeLinear (x, s) y = trt.DequantizeLinear "
                         "(q, s) }", {1000, 4.25f, -1}, 3, {896, 4, -1}, 3};
    gives(&shapes);
    gives(&bytes);
    gives(&named);
}

static void refused(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        {TRT "g (float[a,b] x) => (s) <float t = {1}> { q, s = trt.TRT_FP4DynamicQuantize <axis = -1> (x, t) }", "not whole blocks of 16"},
        {TRT "g (float[2,20] x) => (s) <float t = {1}> { q, s = trt.TRT_FP4DynamicQuantize <axis = -1> (x, t) }", "not whole blocks of 16"},
        {TRT "g (float[2,16] x) => (s) <float t = {0}> { q, s = trt.TRT_FP4DynamicQuantize <axis = -1> (x, t) }", "one above 0"},
        {TRT "g (float[3,4] x) => (y) <float[3,2] t = fill(1)> { y = trt.TRT_BlockQuantize <block_shape = [1, 4]> "
         "(x, t) }", "their scales differ: 1 and 2"},
        {TRT "g (float[2,2,16] x) => (y) <float[1,2,16] t = fill(1)> { y = trt.TRT_BlockQuantize <block_shape = [2,1,1]> (x, t) }", "axis 0"},
        {TRT "g (float[2,16] x) => (s) { q, s = trt.TRT_DynamicQuantize <block_shape = [1, 16]> (x) }", "output_type"},
        {TRT "g (float[2,16] x) => (s) { q, s = trt.TRT_DynamicQuantize <block_shape = [1, 16], output_type = 17, scale_type = 8> (x) }", "scale_type"},
        {TRT "g (float[2,16] x) => (y) <float[2,1] t = fill(1)> { y = trt.TRT_BlockQuantize <block_shape = [1, 16], output_dtype = 8> (x, t) }",
         "output_dtype"},
        {TRT "g (float[2,16] x) => (s) { q, s = trt.TRT_DynamicQuantize <block_shape = [1, 0], output_type = 17> (x) }", "blocks of 0"},
        {TRT "g (float x) => (s) { q, s = trt.TRT_MXFP8DynamicQuantize (x) }", "axis"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fixture f = {.ctx = qx_ctx_new(NULL)};
        qx_exec *x = NULL;
        feeds in = {.n = 0};
        qx_tensor y;
        qx_status st = qx_model_parse_text(f.ctx, texts[i][0], &f.m); /* infers too */
        if (st == QX_OK) {
            make_feeds(&f, &in);
            x = make_exec(&f, NULL);
            st = qx_exec_run(x, in.f, in.n, NULL, 1, &y);
        }
        assert_int_not_equal(st, QX_OK);
        if (!strstr(qx_ctx_error(f.ctx), texts[i][1])) fail_msg("%s: %s", texts[i][0], qx_ctx_error(f.ctx));
        free_feeds(&f, &in);
        qx_exec_free(x);
        unload(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_of_fp4), cmocka_unit_test(powers_of_two), cmocka_unit_test(blocks_of_two_axes),
                                       cmocka_unit_test(pairs), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
