/* test_match.c - patterns of nodes (onnx/match.h): what they accept, what they leave alone, and the activations that passes find by them. */
#include "model_text.h"

#include "onnx/match.h"
#include "onnx/weight/weight.h"
#include "passes/linear/activation.h"

static bool made(const void *user, const qx_value *v, qx_made *out)
{
    (void)user;
    if (!v->def) return false;
    *out = (qx_made){v->def->op_type, v->def, (const qx_value *const *)v->def->in, v->def->n_in, 1};
    return true;
}

static bool number(const void *user, const qx_value *v, double *out)
{
    float c;
    const bool is = v->init && v->init->numel == 1 && qx_weight_read_f32(v->graph->model->ctx, v->init, 0, 1, &c) == QX_OK;
    (void)user;
    if (is) *out = (double)c;
    return is;
}

/* The value that a test names as kept. */
static bool vanishes(const void *user, const qx_value *v) { return !user || strcmp(v->name, user) != 0; }

typedef struct match_case { const char *nodes, *pattern; bool matches; const char *kept; } match_case;

static const match_case cases[] = {
    {"y = Mul(x, c2)", "Mul(x, =2)", true, NULL},
    {"y = Mul(c2, x)", "Mul(x, =2)", true, NULL},                       /* either order */
    {"y = Sub(c2, x)", "Sub(x, =2)", false, NULL},
    {"y = Mul(x, c2)", "Mul(x, =2.01)", false, NULL},
    {"y = Mul(x, c2)", "Mul(x, $e)", true, NULL},
    {"y = Mul(x, z)", "Mul(x, $e)", false, NULL},
    {"y = Mul(x, x)", "Mul(x, x)", true, NULL},                         /* one letter, one value */
    {"y = Mul(x, z)", "Mul(x, x)", false, NULL},
    {"a = Neg(x) y = Exp(a)", "Exp(Neg(x))", true, NULL},
    {"a = Neg(x) y = Exp(a)", "Exp(Neg(x))", false, "a"},               /* somebody asks for what would vanish */
    {"a = Neg(x) b = Exp(a) y = Mul(a, b)", "Mul(d:Neg(x), Exp(d))", true, NULL},  /* two readers, both in the pattern */
    {"a = Neg(x) b = Exp(a) c = Mul(a, b) e = Abs(a) y = Add(c, e)", "Add(Mul(d:Neg(x), Exp(d)), z)", false, NULL}, /* a third outside */
    {"a = Neg(x) b = Exp(a) c = Mul(a, b) y = Add(c, a)", "Add(Mul(d:Neg(x), Exp(d)), d)", true, NULL},
    {"y = Exp(x)", "{Neg(x)|Exp(x)}", true, NULL},
    {"y = Abs(x)", "{Neg(x)|Exp(x)}", false, NULL},
    {"a = Neg(x) y = Mul(x, a)", "Mul({Exp(x)|Neg(x)}, x)", true, NULL}, /* a choice inside what may be swapped */
    {"y = Elu<alpha=0.5>(x)", "Elu[alpha=0.5](x)", true, NULL},
    {"y = Elu<alpha=0.6>(x)", "Elu[alpha=0.5](x)", false, NULL},
    {"y = Elu(x)", "Elu[alpha=0.5](x)", false, NULL},
    {"y = Elu(x)", "Elu[alpha=0.5?](x)", true, NULL},
    {"y = Elu<alpha=0.6>(x)", "Elu[alpha=0.5?](x)", false, NULL},
    {"y = Selu<alpha=2.0, gamma=3.0>(x)", "Selu[alpha=2, gamma=3](x)", true, NULL},
    {"y = Selu<alpha=2.0, gamma=4.0>(x)", "Selu[alpha=2, gamma=3](x)", false, NULL},
    {"y = Softmax<axis=1>(x)", "Softmax[axis=1](x)", true, NULL},       /* a whole number */
    {"y = Sum(x, z)", "Sum(x)", true, NULL},                            /* more inputs may follow */
    {"y = Neg(x)", "Neg(x, z)", false, NULL},
    {"y = Clip(x, , c2)", "Clip(x, z)", false, NULL},                   /* a missing input is nothing */
};

static void patterns(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        qx_match m;
        snprintf(text, sizeof text, HEAD(17) "g (float[3,4] x, float[3,4] z) => (float[3,4] y) <float c2 = {2.0}> { %s }", cases[i].nodes);
        fixture f = load(text);
        const qx_match_graph g = {cases[i].kept, made, number, vanishes};
        if (qx_match_value(&g, value(&f, "y"), cases[i].pattern, &m) != cases[i].matches)
            fail_msg("'%s' %s '%s'", cases[i].pattern, cases[i].matches ? "does not match" : "matches", cases[i].nodes);
        if (cases[i].matches && m.v[QX_LETTER('x')] != value(&f, "x")) fail_msg("'%s': x is something else", cases[i].pattern);
        unload(&f);
    }
}

/* What is kept of a match. */
static void letters(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[3] x) => (float[3] y) <float c = {0.25}> { a = Add(x, c) y = Mul(a, x) }");
    const qx_match_graph g = {NULL, made, number, vanishes};
    qx_match m;
    assert_true(qx_match_value(&g, value(&f, "y"), "Mul(d:Add(x, $e), x)", &m));
    assert_ptr_equal(m.v[QX_LETTER('d')], value(&f, "a"));
    assert_int_equal(m.reads[QX_LETTER('x')], 2);
    assert_true(m.num[QX_LETTER('e')] == 0.25);
    unload(&f);
}

typedef struct act_case { int opset; const char *nodes; qx_activation what; } act_case;

static const act_case acts[] = {
    {17, "s = Sigmoid(x) y = Mul(x, s)", QX_ACTIVATION_SILU},
    {17, "s = Sigmoid(x) y = Mul(s, z)", QX_ACTIVATION_NONE},
    {17, "s = Sigmoid(x) m = Mul(x, s) y = Add(m, s)", QX_ACTIVATION_NONE}, /* a part is read by somebody else */
    {17, "y = HardSwish(x)", QX_ACTIVATION_HARD_SWISH},
    {17, "h = HardSigmoid<alpha=0.16666667>(x) y = Mul(x, h)", QX_ACTIVATION_HARD_SWISH},
    {17, "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(h, x)", QX_ACTIVATION_HARD_SWISH},
    {17, "h = HardSigmoid<alpha=0.16666667, beta=0.4>(x) y = Mul(h, x)", QX_ACTIVATION_NONE},
    {17, "h = HardSigmoid(x) y = Mul(x, h)", QX_ACTIVATION_NONE}, /* a slope of 0.2 */
    {17, "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", QX_ACTIVATION_HARD_SWISH},
    {17, "a = Add(x, three) c = Clip(a, zero, three) m = Mul(x, c) y = Div(m, six)", QX_ACTIVATION_NONE},
    {9, "a = Add(x, three) c = Clip<min=0.0, max=6.0>(a) m = Mul(x, c) y = Div(m, six)", QX_ACTIVATION_HARD_SWISH},
    {9, "a = Add(x, three) c = Clip<max=6.0>(a) m = Mul(x, c) y = Div(m, six)", QX_ACTIVATION_NONE},
    {17, "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(half, m)", QX_ACTIVATION_GELU},
    {17, "d = Div(x, six) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(half, m)", QX_ACTIVATION_NONE},
};

static void activations(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        char text[600];
        qx_value *x = NULL;
        snprintf(text, sizeof text, "<ir_version: 8, opset_import: [\"\" : %d]>\ng (float[3,4] x, float[3,4] z) => (float[3,4] y)\n"
                 "<float three = {3.0}, float zero = {0.0}, float six = {6.0}, float one = {1.0}, float half = {0.5}, float root = {1.4142135}> { %s }",
                 acts[i].opset, acts[i].nodes);
        fixture f = load(text);
        if (qx_activation_ends(producer(&f, "y"), &x) != acts[i].what) fail_msg("'%s' is taken for something else", acts[i].nodes);
        if (acts[i].what) assert_ptr_equal(x, value(&f, "x"));
        unload(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(patterns), cmocka_unit_test(letters), cmocka_unit_test(activations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
