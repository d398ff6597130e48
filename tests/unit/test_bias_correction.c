/* test_bias_correction.c - what bias-correction is sure of, what it leaves alone, and where it writes. What it gains: test_equalize.c. */
#include "rewrite.h"

#include "exec_run.h"

/* Both inputs have a mean of 1; of one input a single row out of 64 makes nearly all of it. That row's error is no reason to move
 * the other 63. */
static void few_rows(void **state)
{
    fixture f = load(HEAD(17)
                     "g (float[64,32] x) => (float[64,32] even, float[64,32] massive)\n"
                     "<float[32,32] v = random(1), float[32,32] w = random(2), float[32] b = random(3), float one = {1}, float "
                     "big = {63}, float small = {0.01},\n"
                     " int64[1] zero = {0}, int64[1] first = {1}, int64[1] end = {64}>\n"
                     "{ x1 = Add(x, one) [\"even\"] even = Gemm(x1, v, b) top = Slice(x1, zero, first, zero) rest = Slice(x1, "
                     "first, end, zero)\n"
                     "  top1 = Mul(top, big) rest1 = Mul(rest, small) x2 = Concat <axis = 0> (top1, rest1) [\"massive\"] massive "
                     "= Gemm(x2, w, b) }");
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

/* Of three places of the window one lies in the padding, in every row: a mean of pixels would count it as if it were full. */
#define NARROW HEAD(17) "g (float[64,8,2] x) => (float[64,24,2] y)\n" \
    "<float[24,8,3] w = random(1), float[24] b = random(2), float three = {3}> { x3 = Add(x, three) y = Conv <pads = [1, 1]> (x3, w, b) }"

enum { ROWS = 64, CHANNELS = 24, PLACES = 2 };

static double mean_shift(const float *a, const float *b, int64_t channel)
{
    double sum = 0;
    for (int64_t i = 0; i < ROWS * PLACES; i++) {
        const int64_t at = (i / PLACES * CHANNELS + channel) * PLACES + i % PLACES;
        sum += (double)b[at] - (double)a[at];
    }
    return sum / (ROWS * PLACES);
}

/* What `judge` says of the outputs before and behind the passes; other inputs than the job has seen. */
static double judged(const char *text, const char *passes, double (*judge)(const qx_tensor *, const qx_tensor *))
{
    fixture plain = load(text), done = load(text);
    const qx_quantize_options o = {.passes = passes, .samples.random = 4};
    const qx_exec_options eo = {0};
    qx_stats *stats = NULL;
    qx_report *r;
    feeds in;
    qx_tensor a, b;
    ok(&done, qx_report_new(done.ctx, &r));
    ok(&done, rewrite(done.ctx, &o, done.m, r, &stats));
    qx_exec *x = make_exec(&plain, &eo), *y = make_exec(&done, &eo);
    make_feeds(&plain, &in);
    run(&plain, x, &in, &a);
    run(&done, y, &in, &b);
    const double result = judge(&a, &b);
    qx_tensor_free(plain.ctx, &a);
    qx_tensor_free(done.ctx, &b);
    free_feeds(&plain, &in);
    qx_exec_free(x);
    qx_exec_free(y);
    qx_stats_free(stats);
    qx_report_free(r);
    unload(&plain);
    unload(&done);
    return result;
}

/* How far the passes move the mean of y, all channels together. */
static double all_shifts(const qx_tensor *a, const qx_tensor *b)
{
    double sum = 0;
    for (int64_t c = 0; c < CHANNELS; c++) sum += fabs(mean_shift(a->data, b->data, c));
    return sum;
}

static double shift_of(const char *passes) { return judged(NARROW, passes, all_shifts); }

static void padding(void **state)
{
    (void)state;
    const double rounded = shift_of("int8-weights"), corrected = shift_of("bias-correction,int8-weights"),
        solved = shift_of("bias-correction,gptq,int8-weights");
    print_message("mean shift %.4f rounded, %.4f corrected, %.4f behind gptq\n", rounded, corrected, solved);
    assert_true(corrected < 0.2 * rounded && solved < 0.2 * rounded);
}

/* A channel of 100 leaves the others steps of 0.4, which SiLU's bend makes a shift of, and its own rounding another: of both together. */
static void rounded_twice(void **state)
{
    (void)state;
#define TWICE HEAD(17) "g (float[64,24,2] x) => (float[64,24,2] y)\n" \
    "<float[24,24,1] v = random(1), float[24,24,1] w = random(2), float[24] offset = {100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}> " \
    "{ r = Tanh(x) u = Conv (r, v, offset) s = Sigmoid(u) t = Mul(u, s) y = Conv (t, w) }"
    const double rounded = judged(TWICE, "int8", all_shifts), corrected = judged(TWICE, "bias-correction,int8", all_shifts);
    print_message("rounded twice: mean shift %.4f, %.4f corrected\n", rounded, corrected);
    assert_true(corrected < 0.2 * rounded);
}

/* A state adds the error up that its inputs' mean makes. W is corrected everywhere, R where the states of one direction are given, but for
 * the candidate of a GRU that resets before its product. */
static void recurrences(void **state)
{
#define RECURRENCE(rows, twice, op, options, bias) STATES("64", "0.3", rows, twice, op, options, bias)
#define STATES(size, scale, rows, twice, op, options, bias) \
    HEAD(17) "g (float[30,2,64] x) => (float[30,1,2," size "] y) <float[1," rows ",64] w = random(1), float[1," rows "," size "] r = random(2), " \
    "float[1," twice "] b = random(3), float three = {3}, float little = {0.1}, float s = {" scale "}> " \
    "{ x3 = Add (x, three) x4 = Mul (x3, little) u = Mul (w, s) v = Mul (r, s) " \
    "y, h = " op " <hidden_size = " size options "> (x4, u, v" bias ") }"
    static const struct { const char *text; double gain; } cases[] = {
        {RECURRENCE("256", "512", "LSTM", "", ", b"), 5}, {RECURRENCE("256", "512", "LSTM", "", ""), 5},
        {RECURRENCE("192", "384", "GRU", "", ", b"), 0}, {RECURRENCE("192", "384", "GRU", ", linear_before_reset = 1", ", b"), 2},
        {STATES("128", "0.05", "128", "256", "RNN", "", ", b"), 5}, {STATES("128", "0.05", "128", "256", "RNN", "", ""), 5}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const double plain = judged(cases[i].text, "int8-weights", sqnr);
        const double corrected = judged(cases[i].text, "bias-correction,int8-weights", sqnr);
        print_message("recurrence %zu: %.1f dB, corrected %.1f\n", i, plain, corrected);
        assert_true(corrected > plain + cases[i].gain);
    }
}

/* What bias-correction has solved to look at is not solved again when it is written; nor is its factor kept until then. */
static void solved_once(void **state)
{
    fixture f = load(HEAD(17) "g (float[64,96] x) => (float[64,32] y)\n"
                              "<float[96,32] w = random(1), float[32] b = random(2)> { y = Gemm(x, w, b) }");
    const qx_quantize_options o = {.passes = "bias-correction,gptq,int4(block=32)", .samples.random = 4};
    qx_stats *stats = NULL;
    qx_report *r;
    int found = 0;
    (void)state;
    ok(&f, qx_report_new(f.ctx, &r));
    ok(&f, rewrite(f.ctx, &o, f.m, r, &stats));
    for (uint32_t i = 0; i < f.m->graph->n_inits; i++) {
        const qx_weight *w = f.m->graph->inits[i]->init;
        if (!w->job || w->part != QX_PART_CODES) continue;
        found++;
        assert_string_equal(w->job->steps->def->name, "solved");
    }
    assert_int_equal(found, 1);
    qx_stats_free(stats);
    qx_report_free(r);
    unload(&f);
}

/* smoothquant folds factors into a bias that another Add reads too, by a constant of its own; the correction goes to where the
 * bias stands then. */
static void shared_bias(void **state)
{
    fixture f = load(HEAD(17)
                     "g (float[128,32] x) => (float[128,16] y, float[128,32] z)\n"
                     "<float[32,32] w = random(1), float[32,16] v = random(2), float[32,32] u = random(3),\n float[32] b = {0.1, "
                     "0.1, 0.1, 60, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 25, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1}>\n"
                     "{ m = MatMul(x, w) a = Add(m, b) r = Relu(a) [\"out\"] y = MatMul(r, v) n = MatMul(x, u) z = Add(n, b) }");
    qx_quantize_options o = {.passes = "smoothquant,bias-correction,int8", .samples.random = 4};
    qx_stats *stats = NULL;
    qx_report *r;
    bool folded = false;
    ok(&f, qx_report_new(f.ctx, &r));
    ok(&f, rewrite(f.ctx, &o, f.m, r, &stats));
    (void)state;
    for (int64_t i = 0; i < r->n_nodes; i++)
        folded |= strcmp(r->nodes[i].name, "out") == 0 && strstr(r->nodes[i].notes, "(previous linear");
    assert_true(folded);
    QX_FOR_NODES(f.m->graph, n)
        if (n->op->id == QX_OP_MatMul || n->op->id == QX_OP_Add) assert_int_equal(n->n_in, 2);
    qx_stats_free(stats);
    qx_report_free(r);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_rows), cmocka_unit_test(padding), cmocka_unit_test(recurrences), cmocka_unit_test(rounded_twice),
                                       cmocka_unit_test(shared_bias), cmocka_unit_test(solved_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
