/* test_merge.c - scales and shifts behind convolutions become part of them: the same numbers under the same names, and what stays where it
 * is. */
#include "exec_run.h"
#include "passes/linear/merge.h"

/* `gone` nodes are merged, and y is what it was. */
static void merges(const char *text, int64_t gone)
{
    enum { N = 6 * 5 * 6 };
    static float before[N], after[N];
    int64_t merged;
    fixture f = load(text);
    run_on_random(&f, before, N);
    ok(&f, qx_merge_scales(f.m, &merged));
    ok(&f, qx_verify(f.m));
    if (merged != gone) fail_msg("%lld nodes merged, not %lld:\n%s", (long long)merged, (long long)gone, text);
    assert_string_equal(f.m->graph->outputs[0]->name, "y");
    run_on_random(&f, after, N);
    for (int i = 0; i < N; i++) assert_float_equal(before[i], after[i], 1e-5f);
    unload(&f);
}

#define G(behind) HEAD(17) "g (float[1,4,5,6] x, float[1,6,5,6] z) => (float[1,6,5,6] y) " \
    "<float[6,4,3,3] w = random(1), float[6] b = random(2), float[6] gamma = random(3), float[6] beta = random(4), float[6] mean = random(5), float[6] var = {1, 2, 3, 4, 5, 6}, " \
    "float[1,6,1,1] s = random(6), float[6,1,1] t = random(7), float[6] flat = random(8), int64[4] shape = {1, 6, 1, 1}, float two = {2}, float[6] last = random(9), " \
    "float[5,6] pixels = random(10)> { " behind " }"
#define CONV "c = Conv<pads=[1,1,1,1]>(x, w, b) "

static void what_is_merged(void **state)
{
    (void)state;
    merges(G(CONV "y = BatchNormalization(c, gamma, beta, mean, var)"), 1);
    merges(G("c = Conv<pads=[1,1,1,1]>(x, w) y = BatchNormalization<epsilon=0.5>(c, gamma, beta, mean, var)"), 1);
    merges(G(CONV "d = Mul(c, s) e = Add(t, d) y = Relu(e)"), 2);
    merges(G(CONV "d = Mul(two, c) y = Tanh(d)"), 1);
    merges(G(CONV "r = Reshape(flat, shape) d = Add(c, r) e = BatchNormalization(d, gamma, beta, mean, var) f = Add(e, z) y = Relu(f)"), 2);
}

static void what_is_not(void **state)
{
    (void)state;
    merges(G(CONV "d = Mul(c, s) y = Add(c, d)"), 0);                          /* two readers */
    merges(G(CONV "y = Add(c, pixels)"), 0);
    merges(G(CONV "y = Mul(c, last)"), 0);                                     /* one a column, which are six too */
    merges(G(CONV "y = Add(c, z)"), 0);
    merges(G(CONV "y = Mul(c, c)"), 0);
    merges(G(CONV "e = Conv<pads=[1,1,1,1]>(x, w) d = Mul(c, s) y = Add(d, e)"), 0); /* a weight that two read */
    merges(G("w0 = Exp(w) c = Conv<pads=[1,1,1,1]>(x, w0, b) y = Mul(c, s)"), 0);
}

/* Statistics and other files know the value by the name of the last node's result. */
static void the_name_of_the_result(void **state)
{
    (void)state;
    fixture f = load(G(CONV "d = Mul(c, s) e = Add(d, t) y = Relu(e)"));
    ok(&f, qx_merge_scales(f.m, NULL));
    ok(&f, qx_verify(f.m));
    assert_string_equal(f.m->graph->first->out[0]->name, "e");
    assert_ptr_equal(qx_graph_find(f.m->graph, "e"), f.m->graph->first->out[0]);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_merged), cmocka_unit_test(what_is_not), cmocka_unit_test(the_name_of_the_result)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
