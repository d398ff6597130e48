/* test_bias_correction.c - what bias-correction is sure of, and what it leaves alone. What it gains: test_equalize.c. */
#include "rewrite.h"

/* Both inputs have a mean of 1; of one input a single row out of 64 makes nearly all of it. That row's error is no reason to move the other 63. */
static void few_rows(void **state)
{
    fixture f = load(HEAD(17)
                     "g (float[64,32] x) => (float[64,32] even, float[64,32] massive)\n"
                     "<float[32,32] v = random(1), float[32,32] w = random(2), float[32] b = random(3), float one = {1}, float big = {63}, float small = {0.01},\n"
                     " int64[1] zero = {0}, int64[1] first = {1}, int64[1] end = {64}>\n"
                     "{ x1 = Add(x, one) [\"even\"] even = Gemm(x1, v, b) top = Slice(x1, zero, first, zero) rest = Slice(x1, first, end, zero)\n"
                     "  top1 = Mul(top, big) rest1 = Mul(rest, small) x2 = Concat <axis = 0> (top1, rest1) [\"massive\"] massive = Gemm(x2, w, b) }");
    qx_quantize_options o = {.passes = "bias-correction,int8-weights", .samples.random = 1};
    qx_stats *stats = NULL;
    qx_report *r;
    ok(&f, qx_report_new(f.ctx, &r));
    ok(&f, rewrite(f.ctx, &o, f.m, r, &stats));
    (void)state;
    int found = 0;
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        if (strcmp(n->name, "even") == 0) found++, assert_non_null(strstr(n->notes, "bias corrected"));
        if (strcmp(n->name, "massive") == 0) found++, assert_string_equal(n->notes, "bias-correction: no mean error is sure");
    }
    assert_int_equal(found, 2);
    qx_stats_free(stats);
    qx_report_free(r);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
