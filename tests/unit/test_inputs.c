/* test_inputs.c - a convolution whose rounded input (or result, where a runtime wants a pair behind it) alone costs more than the rest of the
 * network keeps it in float: found by running, so with samples. */
#include "rewrite.h"

/* y is made of five convolutions. /wide reads x^7, whose few large values leave 8 bits nothing for the rest, and Tanh makes the rest all that
 * is seen. `more` is what is added up. */
#define CONVS(more) HEAD(17) \
    "g (float[1,16,12,12] x) => (float[1,16,12,12] y) " \
    "<float[16,16,3,3] a = random(1), float[16,16,3,3] b = random(2), float[16,16,3,3] c = random(3), float[16,16,3,3] d = random(4), float[16,16,3,3] e = random(5), " \
    "float gain = {300}> { " \
    "x2 = Mul(x, x) x4 = Mul(x2, x2) x6 = Mul(x4, x2) x7 = Mul(x6, x) r = Tanh(x) " \
    "[\"/wide\"] w = Conv<pads=[1,1,1,1]>(x7, a) w1 = Mul(w, gain) w2 = Tanh(w1) " \
    "[\"/b\"] y1 = Conv<pads=[1,1,1,1]>(r, b) [\"/c\"] y2 = Conv<pads=[1,1,1,1]>(r, c) [\"/d\"] y3 = Conv<pads=[1,1,1,1]>(r, d) [\"/e\"] y4 = Conv<pads=[1,1,1,1]>(r, e) " \
    "z1 = Add(y1, y2) z2 = Add(y3, y4) z = Add(z1, z2) " more " }"

/* /wide gives one channel of 1,000, which leaves the others' steps of 4, and Tanh makes them all that is seen. */
#define OFFSET HEAD(17) \
    "g (float[1,16,12,12] x) => (float[1,16,12,12] y) " \
    "<float[16,16,3,3] a = random(1), float[16,16,3,3] b = random(2), float[16,16,3,3] c = random(3), float[16,16,3,3] d = random(4), " \
    "float[16] offset = {1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}> { r = Tanh(x) " \
    "[\"/wide\"] w = Conv<pads=[1,1,1,1]>(r, a, offset) w1 = Tanh(w) [\"/b\"] y1 = Conv<pads=[1,1,1,1]>(r, b) [\"/c\"] y2 = Conv<pads=[1,1,1,1]>(r, c) " \
    "t1 = Tanh(y1) t2 = Tanh(y2) z1 = Add(t1, t2) z = Add(z1, w1) [\"/d\"] v = Conv<pads=[1,1,1,1]>(z, d) y = Tanh(v) }"

static void check_notes(qx_target target, const char *node, bool float_result)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_quantize_options o = {.passes = "smoothquant,int8", .samples = {.random = 8}, .target = target};
    qx_report *report;
    qx_stats *stats = NULL;
    qx_model *m = NULL;
    if (qx_report_new(ctx, &report) != QX_OK || qx_model_parse_text(ctx, OFFSET, &m) != QX_OK || rewrite(ctx, &o, m, report, &stats) != QX_OK)
        fail_msg("%s", qx_ctx_error(ctx));
    bool said = false;
    for (int64_t i = 0; i < report->n_nodes; i++)
        said = said || (strcmp(report->nodes[i].name, node) == 0 && report->nodes[i].notes && strstr(report->nodes[i].notes, "result stays float"));
    assert_int_equal(said, float_result);
    QX_FOR_NODES(m->graph, n) {
        if (strcmp(n->name, node)) continue;
        assert_int_equal(n->out[0]->uses->node->op->id == QX_OP_QuantizeLinear, target == QX_TARGET_ORT && !float_result);
    }
    qx_report_free(report);
    qx_model_free(m);
    qx_stats_free(stats);
    qx_ctx_free(ctx);
}

static void the_worst_result_stays_float(void **state)
{
    (void)state;
    check_notes(QX_TARGET_ORT, "/wide", true);
    check_notes(QX_TARGET_ORT, "/b", false);
    check_notes(QX_TARGET_GENERIC, "/wide", false);
}

static void check(const char *passes, const char *text, const char *expected)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_buf said = QX_BUF_INIT(ctx);
    qx_quantize_options o = {.passes = passes, .samples = {.random = 8}};
    qx_report *report;
    qx_stats *stats = NULL;
    qx_model *m = NULL;
    if (qx_report_new(ctx, &report) != QX_OK || qx_model_parse_text(ctx, text, &m) != QX_OK || rewrite(ctx, &o, m, report, &stats) != QX_OK)
        fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    print_decisions(report, &said);
    if (!strstr(said.data, expected)) fail_msg("%s: no '%s' in\n%s", passes, expected, said.data);
    qx_report_free(report);
    qx_model_free(m);
    qx_stats_free(stats);
    qx_buf_free(&said);
    qx_ctx_free(ctx);
}

static void the_worst_input_stays_float(void **state)
{
    (void)state;
    check("smoothquant,int8", CONVS("y = Add(z, w2)"), "/wide: int8-weights\n");
    check("smoothquant,int8", CONVS("y = Add(z, w2)"), "/b: int8\n");
}

/* Not by the size of its error: where Tanh hides it, it has none. */
static void unless_it_does_not_matter(void **state)
{
    (void)state;
    check("smoothquant,int8", CONVS("n = Constant<value = float {0.0001}>() s = Mul(w2, n) y = Add(z, s)"), "/wide: int8\n");
}

static void unless_told_not_to(void **state)
{
    (void)state;
    check("smoothquant(input-effect=100),int8", CONVS("y = Add(z, w2)"), "/wide: int8\n");
    check("smoothquant(probes=0),int8", CONVS("y = Add(z, w2)"), "/wide: int8\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_worst_input_stays_float), cmocka_unit_test(unless_it_does_not_matter),
                                       cmocka_unit_test(unless_told_not_to), cmocka_unit_test(the_worst_result_stays_float)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
