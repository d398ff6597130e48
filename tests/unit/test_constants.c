/* test_constants.c - weights that a graph computes from constants become initializers, where that makes nothing larger. */
#include "model_text.h"
#include "onnx/edit.h"
#include "onnx/weight/weight.h"
#include "passes/linear/constants.h"
#include "runtime/exec.h"

#define FOUR "<float[2,2] w = {1, 2, 3, 6}, float[2,1] a = {1, 2}, float[1,2] b = {10, 20}, float[1,1] h = {0.5}, float s0 = {0.5}, int8 z0 = {0}>"
#define GRAPH(nodes) HEAD(17) "g (float[n,2] x) => (float[n,2] y) " FOUR " { " nodes " }"

static fixture folded(const char *text)
{
    static const qx_exec_options options;
    fixture f = load(text);
    ok(&f, qx_fold_computed_weights(f.m, &options));
    ok(&f, qx_verify(f.m));
    return f;
}

static void assert_weight(const fixture *f, const float *expected)
{
    float got[4];
    const qx_value *w = producer(f, "y")->in[1];
    assert_non_null(w->init);
    ok(f, qx_weight_read_f32(f->ctx, w->init, 0, 4, got));
    for (int i = 0; i < 4; i++) assert_float_equal(got[i], expected[i], 1e-6f);
}

static void a_standardised_weight_is_stored(void **state)
{
    (void)state;
    fixture f = folded(GRAPH("m = ReduceMean <axes=[1]> (w) c = Sub (w, m) y = MatMul (x, c)"));
    assert_weight(&f, (const float[]){-0.5f, 0.5f, -1.5f, 1.5f});
    unload(&f);
}

static void a_branch_beside_the_weight_is_merged(void **state)
{
    (void)state;
    fixture f = folded(GRAPH("d = MatMul (a, b) s = Mul (d, h) c = Add (w, s) y = MatMul (x, c)"));
    assert_weight(&f, (const float[]){6, 12, 13, 26});
    unload(&f);
}

/* No larger than both together, though larger than each. */
static void projections_side_by_side_are_one(void **state)
{
    (void)state;
    fixture f = folded(GRAPH("n = Neg (a) c = Concat <axis=1> (a, n) y = MatMul (x, c)"));
    assert_weight(&f, (const float[]){1, -1, 2, -2});
    unload(&f);
}

static void two_users_share_the_result(void **state)
{
    (void)state;
    fixture f = folded(GRAPH("c = Neg (w) z = MatMul (x, c) y = MatMul (z, c)"));
    assert_ptr_equal(producer(&f, "y")->in[1], producer(&f, "z")->in[1]);
    assert_weight(&f, (const float[]){-1, -2, -3, -6});
    unload(&f);
}

static const qx_value *product_of(const fixture *f, int branch)
{
    const qx_node *n = f->m->graph->first;
    while (n->op->id != QX_OP_If) n = n->next;
    return qx_node_attr(n, branch ? "else_branch" : "then_branch")->graph->outputs[0]->def->in[1];
}

/* Of body constants, of main ones and of both; what two branches compute alike is stored once. */
static void a_weight_of_a_body_is_stored_outside(void **state)
{
    (void)state;
    fixture f = folded(HEAD(17) "g (float[n,2] x, bool c) => (float[n,2] y) <float[2,2] w = {1, 2, 3, 6}> { y = If <"
                       "then_branch = t () => (p) <float[1] h = {2}> { r = Neg (w) d = Mul (r, h) p = MatMul (x, d) }, "
                       "else_branch = e () => (q) { k = Constant <value = float[1] {2}> () s = Neg (w) d = Mul (s, k) u = Neg (x) q = MatMul (u, d) }> (c) }");
    const qx_value *w = product_of(&f, 0);
    float got[4];
    assert_ptr_equal(w, product_of(&f, 1));
    assert_non_null(w->init);
    assert_ptr_equal(w->graph, f.m->graph);
    ok(&f, qx_weight_read_f32(f.ctx, w->init, 0, 4, got));
    for (int i = 0; i < 4; i++) assert_float_equal(got[i], ((const float[]){-2, -4, -6, -12})[i], 1e-6f);
    unload(&f);
}

/* Of a loop's turn, and in a branch one that would grow: no node leaves its body. */
static void what_a_body_gets_stays_in_it(void **state)
{
    (void)state;
    fixture f = folded(HEAD(17) "g (float[2,n,2] x, bool c) => (float[2,n,2] y) <float[2,2] w = {1, 2, 3, 4}, int64[3] s = {2, 2, 2}> { y = If <"
                       "then_branch = t () => (p) { d = Expand (w, s) p = MatMul (x, d) }, "
                       "else_branch = e () => (q) { m = ReduceSum (x) d = Mul (w, m) q = MatMul (x, d) }> (c) }");
    assert_int_equal(f.m->graph->n_nodes, 1);
    assert_non_null(product_of(&f, 0)->def);
    assert_non_null(product_of(&f, 1)->def);
    unload(&f);
}

static void stays(const char *text)
{
    fixture f = folded(text);
    assert_non_null(producer(&f, "y")->in[1]->def);
    unload(&f);
}

static void what_would_grow_or_is_no_constant_stays(void **state)
{
    (void)state;
    stays(HEAD(17) "g (float[n,3] x) => (float[n,3] y) <float[3,1] a = {1, 2, 3}, float[1,3] b = {4, 5, 6}>"
                   " { d = MatMul (a, b) y = MatMul (x, d) }"); /* two small factors */
    stays(HEAD(17) "g (float[2,n,2] x) => (float[2,n,2] y) <float[2,2] w = {1, 2, 3, 4}, int64[3] s = {2, 2, 2}>"
                   " { d = Expand (w, s) y = MatMul (x, d) }"); /* repeated */
    stays(GRAPH("t = Transpose <perm=[1,0]> (w) y = MatMul (x, t)"));                       /* only rearranged: the passes see through it */
    stays(GRAPH("s = ReduceSum (x) c = Mul (w, s) y = MatMul (x, c)"));                     /* depends on the input */
    stays(GRAPH("r = RandomNormalLike (w) y = MatMul (x, r)"));                             /* another one in each run */
    stays(GRAPH("q = QuantizeLinear (w, s0, z0) d = DequantizeLinear (q, s0, z0) c = Neg (d) y = MatMul (x, c)") /* quantized already */);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_standardised_weight_is_stored), cmocka_unit_test(a_branch_beside_the_weight_is_merged),
        cmocka_unit_test(projections_side_by_side_are_one),
        cmocka_unit_test(a_weight_of_a_body_is_stored_outside), cmocka_unit_test(what_a_body_gets_stays_in_it),
        cmocka_unit_test(two_users_share_the_result), cmocka_unit_test(what_would_grow_or_is_no_constant_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
