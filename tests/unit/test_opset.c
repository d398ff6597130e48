/* test_opset.c - raising the opset: each operator whose definition changed gets the form of the new version. That the results stay the
 * same is tested with ONNX Runtime by tests/interop/opset.py. */
#include "base/buf.h"
#include "model_text.h"
#include "passes/place/opset.h"

typedef struct conversion { int from, to; const char *graph; const char *parts[4]; } conversion;

static const conversion cases[] = {
    {17, 18, "(float[2,3] x) => (y) { y = ReduceMean <axes = [1], keepdims = 0> (x) }",
     {"int64[1] y_axes = {1}", "ReduceMean <keepdims = 0> (x, y_axes)"}},
    {12, 13, "(float[2,3] x) => (y) { y = ReduceSum <axes = [1]> (x) }", {"ReduceSum (x, y_axes)"}},
    {12, 13, "(float[2,3] x) => (y) { y = ReduceMean <axes = [1]> (x) }", {"ReduceMean <axes = [1]> (x)"}}, /* not before 18 */
    {11, 13, "(float[1,3] x) => (y) { y = Squeeze <axes = [0]> (x) }", {"Squeeze (x, y_axes)"}},
    {11, 21, "(float[3] x) => (y) { y = Unsqueeze <axes = [0, 2]> (x) }", {"int64[2] y_axes = {0, 2}", "Unsqueeze (x, y_axes)"}},
    {11, 13, "(float[2,4] x) => (y) { y, z = Split <axis = 1> (x) }", {"Split <axis = 1> (x)"}}, /* num_outputs only from 18 */
    {11, 18, "(float[2,4] x) => (y) { y, z = Split <axis = 1> (x) }", {"Split <axis = 1, num_outputs = 2> (x)"}},
    {11, 18, "(float[2,4] x) => (y) { y, z = Split <axis = 1, split = [1, 3]> (x) }",
     {"int64[2] y_split = {1, 3}", "Split <axis = 1> (x, y_split)"}},
    {9, 13, "(float[4,4] x) => (y) { y = Slice <axes = [1], starts = [1], ends = [3]> (x) }",
     {"Slice (x, y_starts, y_ends, y_axes)", "int64[1] y_ends = {3}"}},
    {9, 11, "(float[4,4] x) => (y) { y, i = TopK <k = 2> (x) }", {"int64[1] y_k = {2}", "TopK (x, y_k)"}},
    {9, 11, "(float[4] x) => (y) { y = Pad <pads = [1, 2], value = 0.5> (x) }",
     {"int64[2] y_pads = {1, 2}", "float y_value = {0.5}", "Pad (x, y_pads, y_value)"}},
    {9, 11, "(float[4] x) => (y) { y = Pad <pads = [1, 2]> (x) }", {"Pad (x, y_pads)"}},
    {9, 13, "(float16[4] x) => (y) { y = Clip <max = 6.0> (x) }", {"float16 y_max = {6.0}", "Clip (x, , y_max)"}},
    {9, 13, "(float[4] x) => (y) { y = Dropout <ratio = 0.25> (x) }", {"float y_ratio = {0.25}", "Dropout (x, y_ratio)"}},
    {11, 13, "(float[2,3] x) => (y) { y = Softmax (x) }", {"Softmax <axis = -1> (x)"}},
    {11, 13, "(float[2,3,4] x) => (y) { y = Softmax <axis = 1> (x) }",
     {"Flatten <axis = 1> (x)", "Softmax <axis = -1> (y_flat)", "Shape (x)", "y = Reshape (y_back, y_shape)"}},
    {11, 13, "(float[2,3,1] x) => (y) { y = LogSoftmax <axis = 1> (x) }", {"LogSoftmax <axis = 1> (x)"}},
    {9, 11, "(float[1,1,2,2] x) => (y) <float[4] s = {1, 1, 2, 2}> { y = Upsample <mode = \"nearest\"> (x, s) }",
     {"float[0] y_roi = {}", "Resize <mode = \"nearest\", coordinate_transformation_mode = \"asymmetric\", nearest_mode = "
                             "\"floor\"> (x, y_roi, s)"}},
    {7, 13, "(float[1,1,2,2] x) => (y) { y = Upsample <mode = \"linear\", scales = [1.0, 1.0, 2.0, 2.0]> (x) }",
     {"float[4] y_scales = {1.0, 1.0, 2.0, 2.0}",
      "Resize <mode = \"linear\", coordinate_transformation_mode = \"asymmetric\"> (x, , y_scales)"}},
    {10, 13, "(float[1,1,4,4] x) => (y) <float[4] s = {1, 1, 0.5, 0.5}> { y = Resize <mode = \"nearest\"> (x, s) }",
     {"nearest_mode = \"ceil\"> (x, , s)"}},
    {10, 16, "(float[1,1,4,4] x, float[1,4] r, int64[1] b) => (y) { y = RoiAlign (x, r, b) }",
     {"coordinate_transformation_mode = \"output_half_pixel\""}},
    {16, 20, "(float[1,1,4,4] x, float[1,2,2,2] g) => (y) { y = GridSample <mode = \"bicubic\"> (x, g) }", {"mode = \"cubic\""}},
    {17, 20, "(float[1,4,1] x) => (y) { y = DFT (x) }", {"int64 y_axis = {1}", "DFT (x, , y_axis)"}},
    {9, 11, "(float[2,3] x, int64[1,3] i, float[1,3] u) => (y) { y = Scatter (x, i, u) }", {"ScatterElements (x, i, u)"}},
    {7, 14, "(float[1,2,3] x) => (y) <float[2] s = {1,1}, float[2] b = {0,0}, float[2] m = {0,0}, float[2] v = {1,1}> { y = "
            "BatchNormalization <spatial = 1> (x, s, b, m, v) }", {"BatchNormalization (x, s, b, m, v)"}},
    {18, 21, "(float[1,4,3] x) => (y) <float[2] s = {1,2}, float[2] b = {0,0}> { y = GroupNormalization <num_groups = 2> (x, s, b) }",
     {"int64[2] y_shape = {2, 2}", "Expand (y_scale, y_shape)", "GroupNormalization <num_groups = 2> (x, y_scale_2, y_bias_2)"}},
};

static void operators_take_their_new_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        snprintf(text, sizeof text, "<ir_version: 7, opset_import: [\"\" : %d]> g %s", cases[i].from, cases[i].graph);
        fixture f = load(text);
        qx_buf b = QX_BUF_INIT(f.ctx);
        if (qx_opset_raise(f.m, (qx_need){cases[i].to, 8}, "the test") != QX_OK) fail_msg("%s: %s", cases[i].graph, qx_ctx_error(f.ctx));
        ok(&f, qx_verify(f.m));
        ok(&f, qx_check(f.m, false));
        ok(&f, qx_infer_shapes(f.m, NULL, 0));
        ok(&f, qx_model_print(f.m, &b));
        assert_int_equal(qx_graph_opset(f.m->graph, ""), cases[i].to);
        for (int k = 0; k < 4 && cases[i].parts[k]; k++) {
            if (!strstr(b.data, cases[i].parts[k])) fail_msg("%s\nbecame\n%s\nwithout '%s'", cases[i].graph, b.data, cases[i].parts[k]);
        }
        qx_buf_free(&b);
        unload(&f);
    }
}

static const conversion refusals[] = {
    {9, 13, "(float[1,2,3] x) => (y) <float[2] s = {1,1}> { y, d, e, g2, h = BatchNormalization (x, s, s, s, s) w = Neg (d) }",
     {"BatchNormalization"}},
    {10, 13, "(float[1,1,4,4] x) => (y) <float[4] s = {1, 1, 0.5, 2}> { y = Resize <mode = \"nearest\"> (x, s) }",
     {"it enlarges one axis and shrinks another"}},
    {9, 13, "(float[4] x) => (y) { y, m = Dropout (x) n = Cast <to = 1> (m) z = Add (y, n) }", {"its mask is used"}},
};

static void what_has_no_counterpart_is_refused_and_nothing_changes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        char text[1024];
        snprintf(text, sizeof text, "<ir_version: 7, opset_import: [\"\" : %d]> g %s", refusals[i].from, refusals[i].graph);
        fixture f = load(text);
        int to = i == 0 ? 14 : refusals[i].to;
        f.m->dirty = false; /* as one that was read */
        assert_int_equal(qx_opset_raise(f.m, (qx_need){to, 8}, "the test"), QX_E_UNSUPPORTED);
        if (!strstr(qx_ctx_error(f.ctx), refusals[i].parts[0]) || !strstr(qx_ctx_error(f.ctx), "the test needs opset"))
            fail_msg("says '%s'", qx_ctx_error(f.ctx));
        assert_int_equal(qx_graph_opset(f.m->graph, ""), refusals[i].from);
        assert_false(f.m->dirty);
        ok(&f, qx_verify(f.m));
        unload(&f);
    }
}

static void bodies_of_functions_are_raised_with_constants_inside(void **state)
{
    (void)state;
    fixture f = load("<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float[2,3] x) => (y) { y = l.f (x) }\n"
                     "<domain: \"l\", opset_import: [\"\" : 17]> f (a) => (b) { b = ReduceMean <axes = [1]> (a) }");
    qx_buf b = QX_BUF_INIT(f.ctx);
    ok(&f, qx_opset_raise(f.m, (qx_need){21, 10}, "the test"));
    ok(&f, qx_verify(f.m));
    ok(&f, qx_model_print(f.m, &b));
    if (!strstr(b.data, "b_axes = Constant <value = int64[1] {1}> ()")) fail_msg("%s", b.data);
    assert_non_null(strstr(b.data, "ReduceMean (a, b_axes)"));
    assert_int_equal(qx_graph_opset(f.m->functions[0]->body, ""), 21);
    qx_buf_free(&b);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operators_take_their_new_form), cmocka_unit_test(what_has_no_counterpart_is_refused_and_nothing_changes),
        cmocka_unit_test(bodies_of_functions_are_raised_with_constants_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
