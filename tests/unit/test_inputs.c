/* test_inputs.c - a convolution whose rounded input alone costs more than the rest of the network keeps a float input: found by running, so
 * with samples. */
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
                                       cmocka_unit_test(unless_told_not_to)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
