/* test_report_html.c - the report as a page: what it says, that names from files cannot break out of it, and the axes of the frontier. */
#include <math.h>

#include "base/buf.h"
#include "passes/job/frontier.h"
#include "tests/unit/unit.h"

static qx_report *new_report(qx_ctx *ctx)
{
    qx_report *r;
    OK(qx_report_new(ctx, &r));
    r->input = "model.onnx";
    r->output = "<b>\"model\".onnx";
    r->input_bytes = 1000;
    r->output_bytes = 400;
    return r;
}

static char *page(qx_ctx *ctx, const qx_report *r, qx_buf *b)
{
    *b = (qx_buf)QX_BUF_INIT(ctx);
    OK(qx_report_html(r, b));
    OK(qx_buf_put(b, "", 1));
    return (char *)b->data;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *s = text; (s = strstr(s, what)); s++) n++;
    return n;
}

static void names_are_escaped(void **state)
{
    qx_buf b;
    qx_report *r = new_report(*state);
    OK(qx_report_add_node(r, &(qx_report_node){.name = "a<script>&\"\n", .op = "MatMul", .graph = "", .reason = "excluded"}));
    OK(qx_report_add_tensor(r, &(qx_report_tensor){.name = "<i>", .format = "int8", .bytes_before = 100, .bytes_after = 25, .n = 5,
                                                   .k = 5, .sqnr = 40, .input_sqnr = NAN}));
    const char *text = page(*state, r, &b);
    assert_null(strstr(text, "<script>"));
    assert_null(strstr(text, "<b>\""));
    assert_non_null(strstr(text, "a&lt;script&gt;&amp;&quot;&#xfffd;"));
    assert_non_null(strstr(text, "&lt;i&gt;"));
    qx_buf_free(&b);
    qx_report_free(r);
}

static void verdict_and_shares(void **state)
{
    qx_buf b;
    qx_report *r = new_report(*state);
    r->grade = QX_GRADE_DIFFERS;
    r->verdict = "results will differ";
    r->hints[r->n_hints++] = "more samples";
    OK(qx_report_add_output(r, &(qx_report_output){.name = "y", .sqnr_db = 15, .cosine = 0.9, .count = 4, .equal = NAN, .top1 = 0.5}));
    OK(qx_report_add_output(r, &(qx_report_output){.name = "z", .sqnr_db = 25, .cosine = 0.9, .count = 4, .equal = NAN, .top1 = NAN}));
    OK(qx_report_add_layer(r, &(qx_report_layer){.name = "fc", .op = "Gemm", .format = "int8", .sqnr_db = 9, .cosine = 0.9}));
    for (int i = 0; i < 2; i++)
        OK(qx_report_add_tensor(r, &(qx_report_tensor){.name = "w", .format = i ? "int4" : "int8", .bytes_before = 400,
                                                       .bytes_after = 100, .sqnr = NAN, .input_sqnr = NAN}));
    const char *text = page(*state, r, &b);
    assert_non_null(strstr(text, "class=\"badge g3\">results will differ"));
    assert_non_null(strstr(text, "<b>40 %</b>"));
    assert_non_null(strstr(text, "<b>15.0 dB</b>"));      /* the output furthest from float */
    assert_non_null(strstr(text, "<b>50.0 %</b>"));
    assert_int_equal(count(text, "width:25.00%"), 2);     /* 100 of 400 bytes each; */
    assert_int_equal(count(text, "width:50.00%"), 1);     /* the rest is float */
    assert_non_null(strstr(text, "<i class=low style=\"width:18.0%\">"));
    assert_non_null(strstr(text, "class=hint>more samples"));
    assert_null(strstr(text, "<svg"));
    qx_buf_free(&b);
    qx_report_free(r);
}

static void long_tables_are_folded(void **state)
{
    qx_buf b;
    qx_report *r = new_report(*state);
    for (int i = 0; i < 61; i++)
        OK(qx_report_add_node(r, &(qx_report_node){.name = "n", .op = "MatMul", .graph = "", .reason = "excluded"}));
    OK(qx_report_add_node(r, &(qx_report_node){.name = "s", .op = "Shape", .graph = "", .reason = "merged with an equal node"}));
    const char *text = page(*state, r, &b);
    assert_non_null(strstr(text, "<details><summary>61 nodes left in float"));
    assert_non_null(strstr(text, "<details open><summary>0 weights"));
    qx_buf_free(&b);
    qx_report_free(r);
}

static void frontier(void **state)
{
    qx_buf b;
    qx_report *r = new_report(*state);
    const double loss[] = {0.02, 0.001, 0.00009};
    for (int i = 0; i < 3; i++)
        OK(qx_report_add_point(r, &(qx_report_point){.bytes = 100 + 50 * i, .kl = loss[i], .noise = NAN, .formats = "int4 3",
                                                     .chosen = i == 1, .shown = true}));
    OK(qx_report_add_point(r, &(qx_report_point){.bytes = 100, .kl = 0.02, .noise = NAN, .formats = "int4 3", .label = "all int4",
                                                 .shown = true}));
    const qx_axes a = qx_frontier_axes(r);
    assert_true(a.kl && a.x0 == 100 && a.x1 == 200 && a.y0 == -5 && a.y1 == -1);
    assert_true(fabs(qx_frontier_x(&a, &r->points[1]) - 0.5) < 1e-12);
    assert_true(fabs(qx_frontier_y(&a, &r->points[1]) - 0.5) < 1e-12); /* 1e-3 between 1e-1 and 1e-5 */
    const char *text = page(*state, r, &b);
    assert_int_equal(count(text, "<circle"), 4);
    assert_int_equal(count(text, ">chosen<"), 1);
    assert_int_equal(count(text, ">all int4<"), 1);
    r->points[2].kl = NAN; /* not known for every point: the noise is drawn */
    assert_false(qx_frontier_axes(r).kl);
    qx_buf_free(&b);
    qx_report_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_are_escaped), cmocka_unit_test(verdict_and_shares),
                                       cmocka_unit_test(long_tables_are_folded), cmocka_unit_test(frontier)};
    return cmocka_run_group_tests(tests, with_ctx, free_ctx);
}
