/* test_hints.c - what a run says at its end when the result differs: which layers, and what would keep them. */
#include <math.h>

#include "model_text.h"
#include "passes/job/hints.h"

#define MODEL "g (float[2,4] x) => (float[2,4] y) <float[4,4] w = random(1)> { y = MatMul (x, w) }"

/* The first hint of a job of `passes` that ended with `grade`, `op` furthest from float. */
static void assert_says(qx_grade grade, const char *passes, const char *op, const char *words)
{
    char text[400];
    qx_report *r;
    qx_pipeline *pipe;
    const qx_quantize_options opt = {.passes = passes};
    snprintf(text, sizeof text, "%s" MODEL, HEAD(21));
    fixture f = load(text);
    ok(&f, qx_report_new(f.ctx, &r));
    ok(&f, qx_pipeline_parse(f.ctx, passes, &pipe));
    pipe->opt = &opt;
    r->input = "m.onnx";
    r->output = "q.onnx";
    r->grade = grade;
    ok(&f, qx_report_add_output(r, &(qx_report_output){.name = "y", .sqnr_db = 17, .cosine = 0.9, .count = 4, .equal = NAN, .top1 = NAN}));
    ok(&f, qx_report_add_layer(r, &(qx_report_layer){.name = "enc/rnn", .op = op, .format = "int8-weights", .sqnr_db = 9, .cosine = 0.9}));
    ok(&f, qx_hints_add(r, f.m, pipe, &opt, NULL));
    if (words) assert_non_null(r->n_hints ? strstr(r->hints[0], words) : NULL);
    for (int i = 0; i < r->n_hints && !words; i++) assert_null(strstr(r->hints[i], "more bits"));
    qx_pipeline_free(pipe);
    qx_report_free(r);
    unload(&f);
}

static void recurrences_are_kept_by_name(void **state)
{
    (void)state;
    assert_says(QX_GRADE_DIFFERS, "int8", "LSTM", "furthest is 'enc/rnn'");
    assert_says(QX_GRADE_DIFFERS, "int8", "LSTM", "--set \"op:LSTM=float\"");
    assert_says(QX_GRADE_FAR, "int8-weights", "GRU", "--set \"op:GRU=float\"");
}

static void activations_are_left_float(void **state)
{
    (void)state;
    assert_says(QX_GRADE_DIFFERS, "int8", "MatMul", "--passes int8-weights leaves activations float");
    assert_says(QX_GRADE_DIFFERS, "int4", "MatMul", "--target-sqnr 20 finds where, or");
    assert_says(QX_GRADE_VERY_CLOSE, "int8", "LSTM", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(recurrences_are_kept_by_name), cmocka_unit_test(activations_are_left_float)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
