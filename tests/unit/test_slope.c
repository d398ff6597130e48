/* test_slope.c - codes of what a LeakyRelu or PRelu reads reach below 0 as far as that is worth coarser steps, told channel by channel. */
#include "rewrite.h"

/* /first makes values of 40 at most, and 300 below that in its channel 0. */
#define BETWEEN(weights, act) HEAD(17) \
    "g (float[1,16,12,12] x) => (float[1,16,12,12] y) " \
    "<float[16,16,3,3] a = random(1), float[16,16,3,3] b = random(2), float[16] offset = {-300, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}" weights "> { " \
    "[\"/first\"] u = Conv<pads=[1,1,1,1]>(x, a, offset) v = " act " y = Conv<pads=[1,1,1,1]>(v, b) }"
#define SLOPES(first, rest) ", float[16,1,1] s = {" first ", " rest ", " rest ", " rest ", " rest ", " rest ", " rest ", " rest ", " rest ", " \
    rest ", " rest ", " rest ", " rest ", " rest ", " rest ", " rest "}"

/* Where the codes of what /first writes begin. */
static float lowest(const char *passes, const char *text)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_quantize_options o = {.passes = passes, .samples = {.random = 8}};
    qx_report *report;
    qx_stats *stats = NULL;
    qx_model *m = NULL;
    float scale = 0, zero = 0;
    if (qx_report_new(ctx, &report) != QX_OK || qx_model_parse_text(ctx, text, &m) != QX_OK || rewrite(ctx, &o, m, report, &stats) != QX_OK)
        fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    QX_FOR_NODES(m->graph, n) {
        if (strcmp(n->name, "/first")) continue;
        const qx_node *q = n->out[0]->uses->node;
        assert_int_equal(q->op->id, QX_OP_QuantizeLinear);
        assert_int_equal(qx_weight_read_f32(ctx, qx_value_const(q->in[1]), 0, 1, &scale), QX_OK);
        assert_int_equal(qx_weight_read_f32(ctx, qx_value_const(q->in[2]), 0, 1, &zero), QX_OK);
    }
    qx_report_free(report);
    qx_model_free(m);
    qx_stats_free(stats);
    qx_ctx_free(ctx);
    return -zero * scale;
}

static void a_steep_side_is_kept(void **state)
{
    (void)state;
    assert_true(lowest("int8", BETWEEN("", "LeakyRelu<alpha=1.0>(u)")) < -280);
    assert_true(lowest("int8", BETWEEN(SLOPES("1", "1"), "PRelu(u, s)")) < -280);
    assert_true(lowest("int8", BETWEEN(SLOPES("-1", "0"), "PRelu(u, s)")) < -280);
}

static void a_flat_one_is_cut_off(void **state)
{
    (void)state;
    const float low = lowest("int8", BETWEEN("", "LeakyRelu<alpha=0.001>(u)"));
    assert_true(low < 0 && low > -100);
    assert_true(lowest("int8", BETWEEN(", float s = {0.001}", "PRelu(u, s)")) == low);
    assert_true(lowest("int8(act=max)", BETWEEN("", "LeakyRelu<alpha=0.001>(u)")) < -280); /* somebody asked for all of it */
}

/* Only channel 0 is long, and only its slope is flat. */
static void each_channel_by_its_own_slope(void **state)
{
    (void)state;
    const float low = lowest("int8", BETWEEN(SLOPES("0", "1"), "PRelu(u, s)"));
    assert_true(low < -10 && low > -100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_steep_side_is_kept), cmocka_unit_test(a_flat_one_is_cut_off),
                                       cmocka_unit_test(each_channel_by_its_own_slope)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
