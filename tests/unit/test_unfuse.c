/* test_unfuse.c - ONNX Runtime's fused operators written out: the same numbers, names that stay, and what cannot be written out; the
 * same of Loops without states that are constants. */
#include "exec_run.h"
#include "passes/linear/loops.h"
#include "passes/linear/unfuse.h"

static int64_t count_ops(const fixture *f, const char *op)
{
    int64_t count = 0;
    QX_FOR_NODES(f->m->graph, n) count += strcmp(n->op_type, op) == 0;
    return count;
}

/* op is there once, and only nodes of com.microsoft that are MultiHeadAttention. */
static void same(const char *text, const char *op, int64_t nodes, int64_t n)
{
    static float before[512], after[512];
    fixture f = load(text);
    run_on_random(&f, before, n);
    ok(&f, qx_unfuse(f.m));
    ok(&f, qx_verify(f.m));
    int64_t left = 0;
    QX_FOR_NODES(f.m->graph, node) left++, assert_true(!*node->domain || strcmp(node->op_type, "MultiHeadAttention") == 0);
    assert_int_equal(left, nodes);
    assert_int_equal(count_ops(&f, op), 1);
    assert_string_equal(f.m->graph->outputs[0]->name, "y");
    run_on_random(&f, after, n);
    for (int64_t i = 0; i < n; i++) assert_float_equal(before[i], after[i], 1e-5f);
    unload(&f);
}

#define CONV(inputs, attributes) HEAD(17) "g (float[1,4,5,6] x, float[1,6,5,6] z) => (float[1,6,5,6] y) " \
    "<float[6,4,3,3] w = random(1), float[6] b = random(2)> { y = com.microsoft.FusedConv<pads=[1,1,1,1], " attributes ">(" inputs ") }"
#define GEMM(attributes) HEAD(17) "g (float[5,8] x) => (float[5,6] y) <float[8,6] w = random(1), float[6] b = random(2)>" \
    " { t = com.microsoft.FusedGemm<alpha=0.5, " attributes ">(x, w, b) q = Exp(t) y = Add(q, t) }"

static void convolutions(void **state)
{
    (void)state;
    same(CONV("x, w, b", "activation=\"Relu\""), "Conv", 2, 180);
    same(CONV("x, w, b, z", "activation=\"LeakyRelu\", activation_params=[0.3]"), "Add", 3, 180);
    same(CONV("x, w", "activation=\"Clip\", activation_params=[-0.25, 0.5]"), "Clip", 2, 180);
    same(CONV("x, w, b", "activation=\"HardSigmoid\", activation_params=[0.3, 0.4]"), "HardSigmoid", 2, 180);
}

static void products(void **state)
{
    (void)state;
    same(GEMM("activation=\"LeakyRelu\", activation_alpha=0.2"), "LeakyRelu", 4, 30); /* both readers take what lies behind it */
    same(GEMM("activation=\"Tanh\""), "Gemm", 4, 30);
}

#define ATTENTION(inputs, attributes) HEAD(17) "g (float[2,5,8] x) => (float[2,5,A] y) <float[8,24] w = random(1), " \
    "float[24] b = random(2), float[8,28] wide = random(3), int32[2] lengths = {5, 3}, int32[2,5] mask = {1,1,1,1,1, 1,1,0,1,0}, " \
    "float[2,2,5,5] scores = random(4)>" \
    " { y = com.microsoft.Attention<num_heads=2" attributes ">(" inputs ") }"

static void attentions(void **state)
{
    (void)state;
    same(ATTENTION("x, w, b", ""), "MultiHeadAttention", 3, 80);
    same(ATTENTION("x, w", ", unidirectional=1, scale=0.3"), "Split", 3, 80);
    same(ATTENTION("x, w, b, lengths", ""), "MatMul", 3, 80);
    same(ATTENTION("x, w, b, mask", ", mask_filter_value=-50.0"), "MultiHeadAttention", 3, 80);
    same(ATTENTION("x, w, b, , , scores", ""), "MultiHeadAttention", 3, 80);
    same(ATTENTION("x, wide", ", qkv_hidden_sizes=[8, 8, 12]"), "MultiHeadAttention", 3, 120);
    fixture f = load(HEAD(17) "g (float[2,5,8] x, float[2,2,2,p,4] past) => (float[2,5,8] y, q) "
                              "<float[8,24] w = random(1), float[24] b = random(2)>"
                              " { y, q = com.microsoft.Attention<num_heads=2>(x, w, b, , past) }");
    ok(&f, qx_unfuse(f.m));
    assert_int_equal(count_ops(&f, "Attention"), 1); /* keys and values in one tensor */
    unload(&f);
}

/* Two of the four states are constants that each turn hands on; who reads such a state behind the Loop reads the constant. */
static void loops(void **state)
{
    static float before[64], after[64];
    (void)state;
    fixture f = load(HEAD(17) "g (float[2,32] x) => (float[2,32] y) <float[32,32] k0 = random(1), float[32,32] m0 = random(2), "
        "float[32,32] last = random(3), int64 n = {3}, bool go = {1}>"
        " { h, k1, m1, l1 = Loop<body = b (int64 i, bool c, float[2,32] h, float[32,32] k, float[32,32] m, float[32,32] l) => "
        "(bool co, float[2,32] ho, float[32,32] ko, float[32,32] mo, float[32,32] l) { co = Identity(c) a = MatMul(h, k) d = MatMul(a, m) "
        "e = MatMul(d, l) ho = Tanh(e) ko = Identity(k) mo = Neg(m) }>(n, go, x, k0, m0, last)"
        " z = MatMul(h, k1) y = MatMul(z, m1) }");
    run_on_random(&f, before, 64);
    ok(&f, qx_loops_open(f.m));
    ok(&f, qx_verify(f.m));
    assert_int_equal(f.m->graph->first->n_in, 4); /* count, condition, h and m */
    assert_int_equal(f.m->graph->first->n_out, 2);
    run_on_random(&f, after, 64);
    assert_memory_equal(before, after, sizeof before);
    unload(&f);
}

/* An operator of its own for Clip's limits as inputs came with opset 11; a name that nobody knows stays for the executor to refuse. */
static void stays(void **state)
{
    (void)state;
    static const char *const text[] = {
        "<ir_version: 8, opset_import: [\"\" : 10, \"com.microsoft\" : 1]> g (float[5,8] x) => (float[5,6] y) "
        "<float[8,6] w = random(1), float[6] b = random(2)> { y = com.microsoft.FusedGemm<activation=\"Clip\">(x, w, b) }",
        HEAD(17) "g (float[5,8] x) => (float[5,6] y) <float[8,6] w = random(1), float[6] b = random(2)>"
                 " { y = com.microsoft.FusedGemm<activation=\"Own\">(x, w, b) }"};
    for (int i = 0; i < 2; i++) {
        fixture f = load(text[i]);
        ok(&f, qx_unfuse(f.m));
        assert_int_equal(count_ops(&f, "FusedGemm"), 1);
        unload(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(convolutions), cmocka_unit_test(products), cmocka_unit_test(attentions), cmocka_unit_test(loops),
                                       cmocka_unit_test(stays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
