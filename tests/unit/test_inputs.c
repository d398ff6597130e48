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
        assert_int_equal(n->out[0]->uses->node->op->id == QX_OP_QuantizeLinear, target != QX_TARGET_OPENVINO && !float_result);
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
    check_notes(QX_TARGET_GENERIC, "/wide", true);
    check_notes(QX_TARGET_GENERIC, "/b", false);
    check_notes(QX_TARGET_OPENVINO, "/wide", false);
}

/* Three like /wide, each a third of all there is, beside nine that do next to nothing. */
#define SEEN(f, i) "r" #i " = " f "(x) [\"/n" #i "\"] y" #i " = Conv<pads=[1,1,1,1]>(r" #i ", b) "
#define WIDE(a, b, i) "q" #i " = Mul(" a ", " b ") [\"/w" #i "\"] u" #i " = Conv<pads=[1,1,1,1]>(q" #i ", a" #i ") v" #i " = Mul(u" #i ", gain) t" #i " = Tanh(v" #i ") "
#define MANY HEAD(17) \
    "g (float[1,16,12,12] x) => (float[1,16,12,12] y) " \
    "<float[16,16,3,3] a1 = random(1), float[16,16,3,3] a2 = random(3), float[16,16,3,3] a3 = random(4), float[16,16,3,3] b = random(2), float gain = {300}, float few = {0.1}> { " \
    "x2 = Mul(x, x) x3 = Mul(x2, x) x4 = Mul(x2, x2) x5 = Mul(x4, x) x6 = Mul(x4, x2) " WIDE("x6", "x", 1) WIDE("x5", "x2", 2) WIDE("x4", "x3", 3) \
    SEEN("Tanh", 1) SEEN("Sin", 2) SEEN("Cos", 3) SEEN("Sigmoid", 4) SEEN("Softsign", 5) SEEN("Erf", 6) SEEN("Atan", 7) SEEN("Relu", 8) SEEN("Softplus", 9) \
    "s = Sum(y1, y2, y3, y4, y5, y6, y7, y8, y9) s1 = Mul(s, few) y = Sum(t1, t2, t3, s1) }"

static void check_for(qx_target target, const char *passes, const char *text, const char *expected)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_buf said = QX_BUF_INIT(ctx);
    qx_quantize_options o = {.passes = passes, .samples = {.random = 8}, .target = target};
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

/* For a target that reads results as floats: inputs alone. */
static void check(const char *passes, const char *text, const char *expected) { check_for(QX_TARGET_OPENVINO, passes, text, expected); }

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

static void several_that_share_the_effect(void **state)
{
    (void)state;
    check("smoothquant,int8", MANY, "/w1: int8-weights\n");
    check("smoothquant,int8", MANY, "/w2: int8-weights\n");
    check("smoothquant,int8", MANY, "/w3: int8-weights\n");
    check("smoothquant,int8", MANY, "/n5: int8\n");
    check("smoothquant(input-effect=50),int8", MANY, "/w1: int8\n");
}

/* The readers of one tensor, as its rounding reaches both; and one of three, which is more than one in four. */
static void all_that_read_it(void **state)
{
    (void)state;
    const char *text = HEAD(17) "g (float[1,16,12,12] x) => (float[1,16,12,12] y) "
        "<float[16,16,3,3] a = random(1), float[16,16,3,3] b = random(2), float[16,16,3,3] c = random(3), float gain = {300}> { "
        "x2 = Mul(x, x) x4 = Mul(x2, x2) x6 = Mul(x4, x2) x7 = Mul(x6, x) r = Tanh(x) "
        "[\"/wide\"] w = Conv<pads=[1,1,1,1]>(x7, a) [\"/other\"] v = Conv<pads=[1,1,1,1]>(x7, c) wv = Mul(w, v) w1 = Mul(wv, gain) w2 = Tanh(w1) "
        "[\"/b\"] z = Conv<pads=[1,1,1,1]>(r, b) y = Add(z, w2) }";
    check("smoothquant,int8", text, "/wide: int8-weights\n");
    check("smoothquant,int8", text, "/other: int8-weights\n");
    check("smoothquant,int8", text, "/b: int8\n");
}

/* ONNX Runtime multiplies by a dequantized weight slowly: where its codes would save next to nothing it stays float with its input. */
static void a_small_weight_stays_float_too(void **state)
{
    (void)state;
#define BOTH(big) HEAD(17) \
    "g (float[1,16,12,12] x) => (float[1,16,12,12] y) " \
    "<float[16,16,3,3] a = random(1), float[16,16,3,3] b = random(2), float[16,16,3,3] c = random(3), float[16,16,3,3] d = random(4), float[16,16,3,3] e = random(5), " \
    "float[" big "] rest = random(6), float few = {0.000001}, float[16] offset = {1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, float gain = {300}> { " \
    "x2 = Mul(x, x) x4 = Mul(x2, x2) x6 = Mul(x4, x2) x7 = Mul(x6, x) r = Tanh(x) s = ReduceSum<keepdims=0>(rest) s1 = Mul(s, few) " \
    "[\"/wide\"] w = Conv<pads=[1,1,1,1]>(x7, a, offset) w1 = Mul(w, gain) w2 = Tanh(w1) " \
    "[\"/b\"] y1 = Conv<pads=[1,1,1,1]>(r, b) [\"/c\"] y2 = Conv<pads=[1,1,1,1]>(r, c) [\"/d\"] y3 = Conv<pads=[1,1,1,1]>(r, d) [\"/e\"] y4 = Conv<pads=[1,1,1,1]>(r, e) " \
    "z1 = Add(y1, y2) z2 = Add(y3, y4) z3 = Add(z1, z2) z = Add(z3, s1) y = Add(z, w2) }"
    check_for(QX_TARGET_ORT, "smoothquant,int8", BOTH("100000"), "/wide: too large an error");
    check_for(QX_TARGET_GENERIC, "smoothquant,int8", BOTH("100000"), "/wide: too large an error");
    check_for(QX_TARGET_ORT, "smoothquant,int8", BOTH("10"), "/wide: int8-weights\n");
    check("smoothquant,int8", BOTH("100000"), "/wide: int8-weights\n");
}

/* A score is one number, of no axes. */
static void a_score_is_an_output(void **state)
{
    (void)state;
    const char *text = HEAD(17) "g (float[1,16,12,12] x) => (float y) "
        "<float[16,16,3,3] a = random(1), float[16,16,3,3] b = random(2), float[16,16,3,3] c = random(3), float[16,16,3,3] d = random(4), float gain = {300}> { "
        "x2 = Mul(x, x) x4 = Mul(x2, x2) x6 = Mul(x4, x2) x7 = Mul(x6, x) r = Tanh(x) "
        "[\"/wide\"] w = Conv<pads=[1,1,1,1]>(x7, a) w1 = Mul(w, gain) w2 = Tanh(w1) "
        "[\"/b\"] y1 = Conv<pads=[1,1,1,1]>(r, b) [\"/c\"] y2 = Conv<pads=[1,1,1,1]>(r, c) [\"/d\"] y3 = Conv<pads=[1,1,1,1]>(r, d) "
        "z1 = Add(y1, y2) z2 = Add(z1, y3) z = Add(z2, w2) y = ReduceMean<keepdims=0>(z) }";
    check("smoothquant,int8", text, "/wide: int8-weights\n");
    check("smoothquant,int8", text, "/b: int8\n");
}

/* Eight results that each do an eighth: two of them are 6 % of the multiplications, three would be too dear. */
static void results_until_they_are_dear(void **state)
{
    (void)state;
#define PART(i) "[\"/w" #i "\"] u" #i " = Conv(r, a" #i ", offset) t" #i " = Tanh(u" #i ") "
    const char *text = HEAD(17) "g (float[1,16,12,12] x) => (float[1,16,12,12] y) "
        "<float[16,16,1,1] a1 = random(1), float[16,16,1,1] a2 = random(2), float[16,16,1,1] a3 = random(3), float[16,16,1,1] a4 = random(4), "
        "float[16,16,1,1] a5 = random(5), float[16,16,1,1] a6 = random(6), float[16,16,1,1] a7 = random(7), float[16,16,1,1] a8 = random(8), "
        "float[16,16,5,5] b = random(9), float[16] offset = {300, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}> { r = Tanh(x) "
        PART(1) PART(2) PART(3) PART(4) PART(5) PART(6) PART(7) PART(8)
        "[\"/b\"] v = Conv<pads=[2,2,2,2]>(r, b) y = Sum(t1, t2, t3, t4, t5, t6, t7, t8, v) }";
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_quantize_options o = {.passes = "smoothquant,int8", .samples = {.random = 8}};
    qx_report *report;
    qx_stats *stats = NULL;
    qx_model *m = NULL;
    int kept = 0;
    if (qx_report_new(ctx, &report) != QX_OK || qx_model_parse_text(ctx, text, &m) != QX_OK || rewrite(ctx, &o, m, report, &stats) != QX_OK)
        fail_msg("%s", qx_ctx_error(ctx));
    for (int64_t i = 0; i < report->n_nodes; i++)
        kept += report->nodes[i].notes && strstr(report->nodes[i].notes, "result stays float");
    assert_int_equal(kept, 2);
    qx_report_free(report);
    qx_model_free(m);
    qx_stats_free(stats);
    qx_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_worst_input_stays_float), cmocka_unit_test(unless_it_does_not_matter),
                                       cmocka_unit_test(unless_told_not_to), cmocka_unit_test(the_worst_result_stays_float),
                                       cmocka_unit_test(several_that_share_the_effect), cmocka_unit_test(all_that_read_it),
                                       cmocka_unit_test(a_score_is_an_output), cmocka_unit_test(results_until_they_are_dear),
                                       cmocka_unit_test(a_small_weight_stays_float_too)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
