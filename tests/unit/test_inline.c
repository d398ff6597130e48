/* test_inline.c - local functions put in the place of their calls. */
#include "base/buf.h"
#include "model_text.h"
#include "onnx/weight/weight.h"

#define LOCAL "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]>\n"
#define FN "<domain: \"l\", opset_import: [\"\" : 17, \"l\" : 1]> "

/* Inlines everything; the text of what comes out has all the parts. */
static void inlined(const char *text, const char *output_type, const char *const *parts)
{
    fixture f = load(text);
    qx_buf b = QX_BUF_INIT(f.ctx);
    ok(&f, qx_functions_inline(f.m));
    ok(&f, qx_verify(f.m));
    ok(&f, qx_check(f.m, false));
    ok(&f, qx_infer_shapes(f.m, NULL, 0));
    assert_type(&f, "y", output_type);
    ok(&f, qx_model_print(f.m, &b));
    for (; *parts; parts++) {
        if (!strstr(b.data, *parts)) fail_msg("no '%s' in\n%s", *parts, b.data);
    }
    assert_null(strstr(b.data, "l."));
    qx_buf_free(&b);
    unload(&f);
}

static void a_call_becomes_its_body(void **state)
{
    (void)state;
    inlined(LOCAL "g (float[2,3] x) => (float[2,3] y) { [call] y = l.f (x) }" FN "f (a) => (b) { t = Neg (a) b = Exp (t) }", "f32[2,3]",
            (const char *[]){"[\"call/Neg\"] \"call/t\" = Neg (x)", "[\"call/Exp\"] y = Exp (\"call/t\")", NULL});
}

static void attributes_come_from_the_call_or_the_default(void **state)
{
    (void)state;
    inlined(LOCAL "g (float[2,3] x) => (y) { p = l.f <axis = 0> (x) y = l.f (p) }" FN "f <axis: int = 1> (a) => (b) { b = Softmax "
                                                                                      "<axis: int = @axis> (a) }", "f32[2,3]",
            (const char *[]){"p = Softmax <axis = 0> (x)", "y = Softmax <axis = 1> (p)", NULL});
    inlined(LOCAL "g (float[2,3] x) => (y) { y = l.f (x) }" FN "f <axis> (a) => (b) { b = Softmax <axis: int = @axis> (a) }", "f32[2,3]",
            (const char *[]){"y = Softmax (x)", NULL});
}

static void calls_inside_calls(void **state)
{
    (void)state;
    inlined(LOCAL "g (float[2] x) => (y) { y = l.f <s = 2.0> (x) }" FN "f <s> (a) => (b) { u = l.h <k: float = @s> (a) b = l.h <k "
                                                                       "= 3.0> (u) }"
            FN "h <k> (a) => (b) { c = Constant <value_float: float = @k> () b = Mul (a, c) }", "f32[2]",
            (const char *[]){"Constant <value_float = 2.0> ()", "Constant <value_float = 3.0> ()", NULL});
}

static void omitted_inputs_stay_omitted(void **state)
{
    (void)state;
    inlined(LOCAL "g (float[2] x, float hi) => (y) { y = l.f (x, , hi) }" FN "f (a, lo, up) => (b) { b = Clip (a, lo, up) }", "f32[2]",
            (const char *[]){"y = Clip (x, , hi)", NULL});
}

static void results_that_are_inputs_or_twice_the_same(void **state)
{
    (void)state;
    inlined(LOCAL "g (float[2] x) => (y, z, w) { y, z, w = l.f (x) }" FN "f (a) => (a, b, b) { b = Neg (a) }", "f32[2]",
            (const char *[]){"y = Identity (x)", "z = Neg (x)", "w = Identity (z)", NULL});
}

static void bodies_inside_functions(void **state)
{
    (void)state;
    inlined(LOCAL "g (float[2] x, bool c) => (y) { y = l.f <alpha = 0.5> (x, c) }"
            FN "f <alpha> (a, k) => (b) { n = Neg (a) b = If <then_branch = t () => (p) { p = Elu <alpha: float = @alpha> (n) }, "
               "else_branch = e () => (q) { r = l.h (n) q = Exp (r) }> (k) }"
            FN "h (a) => (b) { b = Abs (a) }", "f32[2]", (const char *[]){"Elu <alpha = 0.5> (\"f/n\")", "Abs (\"f/n\")", NULL});
}

static void the_same_function_twice_gets_other_names(void **state)
{
    (void)state;
    inlined(LOCAL "g (float[2] x) => (y) { p = l.f (x) y = l.f (p) }" FN "f (a) => (b) { t = Neg (a) b = Exp (t) }", "f32[2]",
            (const char *[]){"\"f/t\" = Neg (x)", "\"f/t_1\" = Neg (p)", NULL});
}

static void imports_come_along(void **state)
{
    (void)state;
    fixture f = load("<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float[2,4] x) => (y) { y = l.f (x) }"
                     "<domain: \"l\", opset_import: [\"com.microsoft\" : 1]> f (a) => (b) { b = com.microsoft.QuickGelu (a) }");
    ok(&f, qx_function_inline(producer(&f, "y")));
    assert_int_equal(qx_graph_opset(f.m->graph, "com.microsoft"), 1);
    assert_int_equal(producer(&f, "y")->op->id, QX_OP_ms_QuickGelu);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void another_definition_is_refused(void **state)
{
    (void)state;
    fixture f = load("<ir_version: 8, opset_import: [\"\" : 18, \"l\" : 1]> g (float[2,4] x) => (y) { y = l.f (x) }"
                     "<domain: \"l\", opset_import: [\"\" : 13]> f (a) => (b) { b = ReduceMax <axes = [0]> (a) }");
    assert_int_equal(qx_functions_inline(f.m), QX_E_UNSUPPORTED);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "is written for opset 13, the caller imports 18"));
    unload(&f);
}

static void endless_growth_is_stopped(void **state)
{
    (void)state;
    char text[16384];
    size_t at = (size_t)snprintf(text, sizeof text, LOCAL "g (float[2] x) => (y) { y = l.f0 (x) }");
    for (int i = 0; i < 40; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, FN "f%d (a) => (b) { c = l.f%d (a) b = l.f%d (c) }\n", i, i + 1, i + 1);
    snprintf(text + at, sizeof text - at, FN "f40 (a) => (b) { b = Neg (a) }");
    fixture f = {.ctx = qx_ctx_new(&(qx_ctx_options){.max_memory = 48 << 20})};
    ok(&f, qx_model_parse_text(f.ctx, text, &f.m));
    qx_status st = qx_functions_inline(f.m);
    assert_true(st == QX_E_BUDGET || st == QX_E_NOMEM);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_becomes_its_body), cmocka_unit_test(attributes_come_from_the_call_or_the_default),
        cmocka_unit_test(calls_inside_calls),
        cmocka_unit_test(omitted_inputs_stay_omitted), cmocka_unit_test(results_that_are_inputs_or_twice_the_same),
        cmocka_unit_test(bodies_inside_functions),
        cmocka_unit_test(the_same_function_twice_gets_other_names), cmocka_unit_test(imports_come_along),
        cmocka_unit_test(another_definition_is_refused),
        cmocka_unit_test(endless_growth_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
