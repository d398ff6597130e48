/* test_check.c - the checker: every id of the tables M, G and Q of malformed models is a case, refused (or let pass) for its own reason.
 * Shape rules (S, Q07 to Q10) are in test_infer.c; bytes, tensors and external data (P, T, E) are tested where files are read. */
#include "model_text.h"
#include "proto_bytes.h"

/* ---- as text ---------------------------------------------------------------------------------------------------------------- */

static const struct { const char *id, *text, *message; } refused[] = {
    {"M02", "<opset_import: [\"\" : 17]> g (float x) => (float y) { y = Neg (x) }", "no IR version"},
    {"M02", "<ir_version: 0, opset_import: [\"\" : 17]> g (float x) => (float y) { y = Neg (x) }", "no IR version"},
    {"M03", "<ir_version: 15, opset_import: [\"\" : 17]> g (float x) => (float y) { y = Neg (x) }", "IR version is 15; 3 to 14 are read"},
    {"M04", "<ir_version: 8> g (float x) => (float y) { y = Neg (x) }", "imports no operator set"},
    {"M05", "<ir_version: 8, opset_import: [\"\" : 17, \"ai.onnx\" : 18]> g (float x) => (float y) { y = Neg (x) }",
     "imports domain 'ai.onnx' twice, version 17 and 18"},
    {"M06", "<ir_version: 8, opset_import: [\"\" : 0]> g (float x) => (float y) { y = Neg (x) }", "imports version 0 of 'ai.onnx'"},
    {"M06", "<ir_version: 8, opset_import: [\"\" : 99]> g (float x) => (float y) { y = Neg (x) }", "imports version 99"},
    {"M06", "<ir_version: 8, opset_import: [\"\" : 17, \"x\" : 2147483648]> g (float x) => (float y) { y = Neg (x) }",
     "imports version 2147483648 of 'x'"},
    {"M07", HEAD(17) "g (float x) => (float y) { y = other.Neg (x) }", "is of domain 'other', which the model does not import"},
    {"M08", HEAD(17) "g (float x) => (float y) { y = Negg (x) }", "there is no operator of this name at opset 17"},
    {"M08", HEAD(17) "g (float x) => (float y) { y = Gelu (x) }", "there is no operator of this name at opset 17"},
    {"M10", "<ir_version: 8, opset_import: [\"\" : 17], metadata_props: [\"k\" : \"1\", \"k\" : \"2\"]> g (float x) => (float y) "
            "{ y = Neg (x) }", "metadata key 'k' is there twice"},
    {"M11", "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float x) => (float y) { y = l.f (x) } <domain: \"l\", "
            "opset_import: [\"l\" : 1]> f (a) => (b) { b = l.f (a) }", "function 'f' calls itself"},
    {"M12", "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float x) => (float y) { y = l.f (x) } <domain: \"l\", "
            "opset_import: [\"l\" : 1]> f (a) => (b) { b = l.h (a) }"
            "<domain: \"l\", opset_import: [\"l\" : 1]> h (a) => (b) { b = l.f (a) }", "function 'f' calls itself by way of h"},
    {"M13", "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float x, bool c) => (float y) { y = l.f (x, c) } <domain: "
            "\"l\", opset_import: [\"l\" : 1, \"\" : 17]> f (a, c) => (b) "
            "{ b = If <then_branch = t () => (p) { p = l.f (a, c) }, else_branch = e () => (q) { q = Neg (a) }> (c) }",
            "function 'f' calls itself"},
    {"M16", "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float x) => (float y) { y = l.f (x) } <domain: \"l\", "
            "opset_import: [\"\" : 17]> f (a) => (b) { b = Neg (a) }"
            "<domain: \"l\", opset_import: [\"\" : 17]> f (a) => (b) { b = Exp (a) }",
            "function 'f' of domain 'l' (overload '') is defined twice"},
    {"G01", HEAD(17) "g (float x) => (float y) { y = Add (x, z) }", "input 1 'z' is never produced"},
    {"G02", HEAD(17) "g (float x) => (float y) { y = Neg (z) z = Exp (x) }",
     "nodes are not sorted: node (Neg) that makes 'y' uses 'z' before node (Exp)"},
    {"G03", HEAD(17) "g (float x) => (float y) { a = Add (x, b) b = Neg (a) y = Exp (b) }", "is part of a cycle: it uses 'b'"},
    {"G03", HEAD(17) "g (float x) => (float y) { y = Add (x, y) }", "is part of a cycle"},
    {"G04", HEAD(17) "g (float x) => (float y) { y = Neg (x) y = Exp (x) }", "output 0 'y' is already made by another node"},
    {"G05", HEAD(17) "g (float x) => (float x) { x = Neg (x) }", "output 0 'x' is already a graph input"},
    {"G06", HEAD(17) "g (float x) => (float y) <float y = {1}> { y = Neg (x) }", "output 0 'y' is already an initializer"},
    {"G07", HEAD(17) "g (float x) => (float y) <float w = {1}, float w = {2}> { y = Add (x, w) }", "initializer 'w' is there twice"},
    {"G08", HEAD(17) "g (float x, float x) => (float y) { y = Neg (x) }", "input 'x' is declared twice"},
    {"G10", "<ir_version: 3, opset_import: [\"\" : 17]> g (float x) => (float y) <float w = {1}> { y = Add (x, w) }",
     "initializer 'w' is not a graph input, which IR version 3 requires"},
    {"G10", HEAD(17) "g (float x, int64 w = {1}) => (float y) <float w = {1}> { y = Neg (x) }", "there twice"},
    {"G11", HEAD(17) "g (float x) => (float y) { z = Neg (x) }", "output 'y' of graph 'g' is never produced"},
    {"G12", HEAD(17) "g (float x) => (float y) { y = Add (x) }", "has no input 1, which version 14 requires"},
    {"G12", HEAD(17) "g (float x) => (float y) { y = Add (, x) }", "has no input 0"},
    {"G12", HEAD(17) "g (float x) => (float y) { y = Neg (x, x) }", "has 2 inputs; version 13 takes at most 1"},
    {"G12", HEAD(17) "g (float x) => (float y) { y, z = Neg (x) }", "has 2 outputs; version 13 makes at most 1"},
    {"G15", HEAD(17) "g (float[2] x) => (float[2] y) { y = Softmax <axis = 0, axis = 1> (x) }", "attribute 'axis' is there twice"},
    {"G19", HEAD(17) "g (float[2] x) => (float[2] y) { y = Softmax <axis: int = @a> (x) }",
     "attribute 'axis' refers to 'a' of a function, but is in none"},
    {"G21", HEAD(17) "g (float x, bool c) => (float y) { h = Neg (x) y = If <then_branch = t () => (float h) { h = Exp (x) }, "
                     "else_branch = e () => (float q) { q = Neg (h) }> (c) }",
            "output 'h' has the name of a value outside of subgraph 't'"},
    {"G26", HEAD(17) "g (x) => (float y) { y = Neg (x) }", "graph input 'x' has no type"},
    {"Q01", HEAD(17) "g (uint8[2] x) => (y) <float s = {0.0}> { y = DequantizeLinear (x, s) }",
     "scale 's' is 0 at element 0; it must be positive"},
    {"Q01", HEAD(17) "g (uint8[2] x) => (y) <float[2] s = {1.0, -0.5}> { y = DequantizeLinear <axis = 0> (x, s) }",
     "scale 's' is -0.5 at element 1"},
    {"Q02", HEAD(17) "g (uint8[2] x) => (y) <float s = {nan}> { y = DequantizeLinear (x, s) }", "scale 's' is NaN"},
    {"Q02", HEAD(17) "g (float[2] x) => (y) <float s = {inf}> { y = QuantizeLinear (x, s) }", "scale 's' is infinite"},
    {"Q03", HEAD(17) "g (float[2] x) => (y) <float s = {1e-40}> { y = QuantizeLinear (x, s) }", "is subnormal"},
    {"Q03", HEAD(21) "g (float16[2] x) => (y) <float16 s = {1e-9}> { y = QuantizeLinear (x, s) }", "scale 's' is 0"},
    {"Q04", HEAD(17) "g (uint8[2] x) => (y) <float s = {1.0}, int8 z = {0}> { y = DequantizeLinear (x, s, z) }",
     "the zero point is i8 but the codes are u8"},
    {"Q05", HEAD(17) "g (uint8[2] x) => (y) <float[2] s = {1.0, 1.0}, uint8 z = {0}> { y = DequantizeLinear <axis = 0> (x, s, z) }",
     "the zero point has 1 elements (rank 0) and the scale 2 (rank 1)"},
    {"Q06", HEAD(19) "g (float8e4m3fn[2] x) => (y) <float s = {1.0}, float8e4m3fn z = {1.0}> { y = DequantizeLinear (x, s, z) }",
     "zero point 'z' of a float format is 1"},
    {"Q11", HEAD(17) "g (float8e4m3fn[2] x) => (y) <float s = {1.0}> { y = DequantizeLinear (x, s) }",
     "f8e4m3 needs opset 19, the model imports 17"},
    {"Q11", HEAD(17) "g (uint8[2] x) => (y) <float16 s = {1.0}> { y = DequantizeLinear (x, s) }", "a 16-bit scale needs opset 19"},
    {"Q11", HEAD(19) "g (int4[2] x) => (y) <float s = {1.0}> { y = DequantizeLinear (x, s) }", "i4 needs opset 21"},
    {"Q11", HEAD(19) "g (int16[2] x) => (y) <float s = {1.0}> { y = DequantizeLinear (x, s) }", "i16 needs opset 21"},
    {"Q11", HEAD(19) "g (uint8[4] x) => (y) <float[2] s = {1.0, 1.0}> { y = DequantizeLinear <axis = 0, block_size = 2> (x, s) }",
     "block_size needs opset 21"},
    {"Q11", HEAD(21) "g (float4e2m1[2] x) => (y) <float s = {1.0}> { y = DequantizeLinear (x, s) }", "f4e2m1 needs opset 23"},
};

static void models_that_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        qx_ctx *ctx = qx_ctx_new(NULL);
        qx_model *m = NULL;
        if (qx_model_parse_text(ctx, refused[i].text, &m) == QX_OK) fail_msg("%s accepted: %s", refused[i].id, refused[i].text);
        if (!strstr(qx_ctx_error(ctx), refused[i].message))
            fail_msg("%s says '%s' instead of '%s'", refused[i].id, qx_ctx_error(ctx), refused[i].message);
        assert_int_equal(qx_mem_in_use(ctx), 0);
        qx_ctx_free(ctx);
    }
}

static const struct { const char *id, *text; int warnings; } accepted[] = {
    {"M05", "<ir_version: 8, opset_import: [\"\" : 17, \"ai.onnx\" : 17]> g (float x) => (float y) { y = Neg (x) }", 0},
    {"M09", "<ir_version: 8, opset_import: [\"\" : 17, \"my\" : 3]> g (float x) => (float y) { y = my.Thing (x) }", 0},
    {"G10", HEAD(17) "g (float x, float w = {1}) => (float y) { y = Add (x, w) }", 0},
    {"G23", HEAD(17) "g (float[2] x, float hi) => (float[2] y) { y = Clip (x, , hi) }", 0},
    {"G24", HEAD(17) "g (float[2] x) => (float[2] y) { [n] a = Neg (x) [n] b = Neg (a) y = Neg (b) }", 0},
    {"G25", HEAD(17) "g (float[2] x) => (float[3] y) { y = Neg (x) }", 1},
    {"", "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float x) => (float y) { y = l.f (x) } <domain: \"l\", "
         "opset_import: [\"\" : 17]> f <a = 2> (p) => (q) { k = Constant <value_int: int = @a> () q = Neg (p) }", 0},
    {"", HEAD(17) "g (float x, bool c) => (float y) { y = If <then_branch = t () => (float h) { h = Exp (x) }, else_branch = e () "
                  "=> (float h) { h = Neg (x) }> (c) }", 0},
    {"", HEAD(17) "g (float16[2] x) => (y) <float16 s = {0.00001}> { c = Cast <to = 1> (s) y = Identity (x) }", 0},
};

static void models_that_pass(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        fixture f = load(accepted[i].text);
        if (qx_ctx_warnings(f.ctx) != accepted[i].warnings)
            fail_msg("%s: %d warnings instead of %d", accepted[i].id, qx_ctx_warnings(f.ctx), accepted[i].warnings);
        ok(&f, qx_verify(f.m));
        unload(&f);
    }
}

/* ---- nodes out of order ------------------------------------------------------------------------------------------------------- */

static const struct { const char *text, *sorted; int64_t moved; } orders[] = {
    {HEAD(17) "g (float x) => (float y) { y = Neg (c) c = Exp (b) b = Abs (a) a = Sqrt (x) }", "Sqrt Abs Exp Neg", 3},
    {HEAD(17) "g (float x) => (float y) { p = Sin (x) y = Add (q, p) r = Cos (x) q = Exp (r) z = Abs (x) }", "Sin Cos Exp Add Abs", 2},
    {HEAD(17) "g (float x) => (float y) { a = Sqrt (x) b = Exp (x) y = Add (b, a) }", "Sqrt Exp Add", 0},
    {HEAD(17) "g (float x, bool c) => (float y) { y = If <then_branch = t () => (p) { p = Neg (h) }, else_branch = e () => (q) { "
              "q = Abs (k) k = Exp (h) }> (c) h = Sqrt (x) }", "Sqrt If", 2},
    {HEAD(17) "g (float x) => (float y) { a = Add (x, b) b = Neg (a) y = Exp (b) }", NULL, 0}, /* a cycle is none the less refused */
};

static void nodes_out_of_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        fixture f = {.ctx = qx_ctx_new(NULL)};
        char got[200] = "";
        int64_t moved = -1;
        ok(&f, qx_model_parse_text_raw(f.ctx, orders[i].text, &f.m));
        f.m->dirty = false; /* as one that was read */
        ok(&f, qx_sort_nodes(f.m, &moved));
        assert_int_equal(moved, orders[i].moved);
        assert_int_equal(f.m->dirty, moved > 0);
        QX_FOR_NODES(f.m->graph, n) snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", *got ? " " : "", n->op_type);
        if (orders[i].sorted) ok(&f, qx_check(f.m, true)), assert_string_equal(got, orders[i].sorted);
        else assert_int_equal(qx_check(f.m, true), QX_E_FORMAT);
        unload(&f);
    }
}

/* ---- what is no fault ---------------------------------------------------------------------------------------------------------- */

static void scales_below_zero_of_few_bits(void **state)
{
#define BLOCKED(type) HEAD(25) "g (" type "[4,1] x) => (y) <float[2,1] s = {1.0, -0.5}> { y = DequantizeLinear <axis = 0, block_size = 2> (x, s) }"
    static const struct { const char *text; qx_status st; } rows[] = {{BLOCKED("int4"), QX_OK}, {BLOCKED("int2"), QX_OK}, {BLOCKED("int8"), QX_E_FORMAT}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fixture f = {.ctx = qx_ctx_new(NULL)};
        ok(&f, qx_model_parse_text_raw(f.ctx, rows[i].text, &f.m));
        assert_int_equal(qx_check(f.m, true), rows[i].st);
        unload(&f);
    }
}

/* ---- call chains --------------------------------------------------------------------------------------------------------------- */

/* `count` functions, each calling the next; the last one is a Neg. */
static char *chain_of_calls(int count)
{
    size_t cap = 200 + (size_t)count * 120, at = 0;
    char *text = malloc(cap);
    assert_non_null(text);
    at += (size_t)snprintf(text, cap, "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float x) => (float y) { y = l.f0 (x) }");
    for (int i = 0; i < count; i++) {
        at += (size_t)snprintf(text + at, cap - at, "<domain: \"l\", opset_import: [\"\" : 17, \"l\" : 1]> f%d (a) => (b) { b = ", i);
        at += (size_t)(i + 1 < count ? snprintf(text + at, cap - at, "l.f%d (a) }\n", i + 1)
                       : snprintf(text + at, cap - at, "Neg (a) }\n"));
    }
    return text;
}

static void call_chains_have_a_limit(void **state) /* M14 */
{
    (void)state;
    char *text = chain_of_calls(100);
    fixture f = load(text);
    assert_type(&f, "y", "f32[]");
    unload(&f);
    free(text);
    text = chain_of_calls(101);
    refuse(text, "starts a chain of more than 100 calls");
    free(text);
}

static void the_number_of_functions_has_a_limit(void **state) /* M15 */
{
    (void)state;
    char *text = chain_of_calls(10001);
    refuse(text, "10001 local functions; at most 10000");
    free(text);
}

/* Two calls a level, 60 levels: 2^60 visits if every call were followed. */
static void many_calls_cost_bounded_time(void **state)
{
    (void)state;
    char text[16384];
    size_t at = (size_t)snprintf(text, sizeof text,
                                 "<ir_version: 8, opset_import: [\"\" : 17, \"l\" : 1]> g (float x) => (float y) { y = l.f0 (x) }");
    for (int i = 0; i < 60; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "<domain: \"l\", opset_import: [\"\" : 17, \"l\" : 1]> f%d (a) => (b) { c = l.f%d (a) b = l.f%d (c) }\n",
                               i, i + 1, i + 1);
    snprintf(text + at, sizeof text - at, "<domain: \"l\", opset_import: [\"\" : 17]> f60 (a) => (b) { b = Neg (a) }");
    fixture f = load(text);
    unload(&f);
}

/* Each Gather doubles the rank: without a limit thirty of them ask for 2^30 dims. */
static void ranks_have_a_limit(void **state)
{
    (void)state;
    char text[4096];
    size_t at = (size_t)snprintf(text, sizeof text, HEAD(17) "g (int64[1,1] x0) => (y) { ");
    for (int i = 0; i < 30; i++) at += (size_t)snprintf(text + at, sizeof text - at, "x%d = Gather (x%d, x%d) ", i + 1, i, i);
    snprintf(text + at, sizeof text - at, "y = Identity (x30) }");
    refuse(text, "at most 64 is supported");
}

static void nested_types_have_a_limit(void **state)
{
    (void)state;
    char text[4096];
    size_t at = (size_t)snprintf(text, sizeof text, HEAD(17) "g (float x0) => (y) { ");
    for (int i = 0; i < 40; i++) at += (size_t)snprintf(text + at, sizeof text - at, "x%d = Optional (x%d) ", i + 1, i);
    snprintf(text + at, sizeof text - at, "y = Identity (x40) }");
    refuse(text, "nested deeper than 16");
}

static void imports_have_a_limit(void **state)
{
    (void)state;
    char *text = malloc(65536);
    assert_non_null(text);
    size_t at = (size_t)snprintf(text, 65536, "<ir_version: 8, opset_import: [\"\" : 17");
    for (int i = 0; i < 1000; i++) at += (size_t)snprintf(text + at, 65536 - at, ", \"d%d\" : 1", i);
    snprintf(text + at, 65536 - at, "]> g (float x) => (float y) { y = Neg (x) }");
    refuse(text, "1001 operator sets are imported; at most 1000");
    free(text);
}

static void subgraphs_have_a_limit(void **state) /* G22 */
{
    (void)state;
    char text[16384];
    size_t at = (size_t)snprintf(text, sizeof text, HEAD(17) "g (float x, bool c) => (float y) { y = ");
    for (int i = 0; i < 50; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "If <else_branch = e%d () => (float q%d) { q%d = Neg (x) }, then_branch = t%d () => (float p%d) { p%d = ",
                               i, i, i, i, i, i);
    at += (size_t)snprintf(text + at, sizeof text - at, "Neg (x) ");
    for (int i = 0; i < 50; i++) at += (size_t)snprintf(text + at, sizeof text - at, "}> (c) ");
    snprintf(text + at, sizeof text - at, "}");
    refuse(text, "nested deeper than");
}

/* ---- as bytes: what the text form cannot say -------------------------------------------------------------------------------------- */

static void put_io(pb *graph, int field, const char *name)
{
    pb tensor = {0}, type = {0}, info = {0};
    pb_int(&tensor, 1, 1);
    pb shape = {0}, dim = {0};
    pb_int(&dim, 1, 2);
    pb_msg(&shape, 1, &dim);
    pb_msg(&tensor, 2, &shape);
    pb_msg(&type, 1, &tensor);
    pb_str(&info, 1, name);
    pb_msg(&info, 2, &type);
    pb_msg(graph, field, &info);
}

/* x -> node -> y, with attributes and initializers as given (messages that are taken over). */
static qx_status read_model(qx_ctx *ctx, pb *attr, pb *init, pb *sparse, const char *op)
{
    pb node = {0}, graph = {0}, opset = {0}, model = {0};
    if (op) {
        pb_str(&node, 1, "x");
        pb_str(&node, 2, "y");
        pb_str(&node, 4, op);
    }
    if (attr) pb_msg(&node, 5, attr);
    pb_msg(&graph, 1, &node);
    pb_str(&graph, 2, "g");
    if (init) pb_msg(&graph, 5, init);
    put_io(&graph, 11, "x");
    put_io(&graph, 12, op ? "y" : "x");
    if (sparse) pb_msg(&graph, 15, sparse);
    pb_int(&opset, 2, 17);
    pb_int(&model, 1, 8);
    pb_msg(&model, 7, &graph);
    pb_msg(&model, 8, &opset);
    qx_model *m = NULL;
    qx_status st = qx_model_read_bytes(ctx, model.data, model.len, NULL, NULL, &m);
    if (m) qx_model_free(m);
    free(model.data);
    return st;
}

static void refuse_bytes(const char *id, pb *attr, pb *init, pb *sparse, const char *op, const char *message)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    if (read_model(ctx, attr, init, sparse, op) == QX_OK) fail_msg("%s accepted, should say '%s'", id, message);
    if (!strstr(qx_ctx_error(ctx), message)) fail_msg("%s says '%s' instead of '%s'", id, qx_ctx_error(ctx), message);
    qx_ctx_free(ctx);
}

static void accept_bytes(const char *id, pb *attr, pb *init, pb *sparse, const char *op)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    if (read_model(ctx, attr, init, sparse, op) != QX_OK) fail_msg("%s: %s", id, qx_ctx_error(ctx));
    qx_ctx_free(ctx);
}

static pb attribute(const char *name, int type)
{
    pb a = {0};
    if (name) pb_str(&a, 1, name);
    if (type) pb_int(&a, 20, type);
    return a;
}

static void models_without_parts(void **state)
{
    (void)state;
    qx_ctx *ctx = qx_ctx_new(NULL);
    pb model = {0};
    qx_model *m = NULL;
    pb_int(&model, 1, 8);
    assert_int_not_equal(qx_model_read_bytes(ctx, model.data, model.len, NULL, NULL, &m), QX_OK); /* M01 */
    assert_non_null(strstr(qx_ctx_error(ctx), "no graph"));
    free(model.data);
    qx_ctx_free(ctx);
    pb init = {0};
    pb_int(&init, 1, 1);
    pb_int(&init, 2, 1);
    pb_float(&init, 4, 1.0f);
    refuse_bytes("G09", NULL, &init, NULL, "Neg", "initializer 0 has no name");
    refuse_bytes("G13, G14", NULL, NULL, NULL, NULL, "has no op_type");
    refuse_bytes("G14", NULL, NULL, NULL, "", "has no op_type");
}

static void a_node_without_inputs_and_outputs(void **state) /* G13 */
{
    (void)state;
    refuse(HEAD(17) "g (float x) => (float x2) { x2 = Neg (x) = Constant () }", "neither inputs nor outputs");
}

static void attributes_and_their_types(void **state)
{
    (void)state;
    pb a = attribute("alpha", 1);
    pb_int(&a, 3, 5);
    refuse_bytes("G16", &a, NULL, NULL, "Elu", "attribute 'alpha' says type FLOAT but its value is of type INT");
    a = attribute("alpha", 1);
    pb_float(&a, 2, 1.0f);
    pb_int(&a, 3, 5);
    refuse_bytes("G17", &a, NULL, NULL, "Elu", "attribute 'alpha' of type FLOAT has more than one value");
    a = attribute("alpha", 0);
    pb_float(&a, 2, 1.0f);
    refuse_bytes("G18", &a, NULL, NULL, "Elu", "attribute 'alpha' has no type");
    a = attribute("alpha", 77);
    refuse_bytes("G16", &a, NULL, NULL, "Elu", "unknown type 77");
    a = attribute("value", 4);
    refuse_bytes("G16", &a, NULL, NULL, "Elu", "attribute 'value' of type TENSOR has no value");
    a = attribute(NULL, 1);
    pb_float(&a, 2, 1.0f);
    refuse_bytes("G16", &a, NULL, NULL, "Elu", "an attribute has no name");
    a = attribute("alpha", 1); /* writers of proto3 leave zeros out */
    accept_bytes("zero left out", &a, NULL, NULL, "Elu");
}

/* A function whose attribute has a reference and a value. */
static void a_reference_with_a_value(void **state) /* G20 */
{
    (void)state;
    pb a = attribute("alpha", 1), node = {0}, fn = {0}, opset = {0}, graph = {0}, call = {0}, model = {0}, fn_opset = {0}, local = {0};
    pb_float(&a, 2, 1.0f);
    pb_str(&a, 21, "alpha");
    pb_str(&node, 1, "p"), pb_str(&node, 2, "q"), pb_str(&node, 4, "Elu");
    pb_msg(&node, 5, &a);
    pb_str(&fn, 1, "f"), pb_str(&fn, 4, "p"), pb_str(&fn, 5, "q"), pb_str(&fn, 6, "alpha");
    pb_msg(&fn, 7, &node);
    pb_int(&fn_opset, 2, 17);
    pb_msg(&fn, 9, &fn_opset);
    pb_str(&fn, 10, "l");
    pb_str(&call, 1, "x"), pb_str(&call, 2, "y"), pb_str(&call, 4, "f"), pb_str(&call, 7, "l");
    pb_msg(&graph, 1, &call);
    pb_str(&graph, 2, "g");
    put_io(&graph, 11, "x");
    put_io(&graph, 12, "y");
    pb_int(&opset, 2, 17);
    pb_str(&local, 1, "l"), pb_int(&local, 2, 1);
    pb_int(&model, 1, 8);
    pb_msg(&model, 7, &graph);
    pb_msg(&model, 8, &opset);
    pb_msg(&model, 8, &local);
    pb_msg(&model, 25, &fn);
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_model *m = NULL;
    assert_int_not_equal(qx_model_read_bytes(ctx, model.data, model.len, NULL, NULL, &m), QX_OK);
    if (!strstr(qx_ctx_error(ctx), "refers to 'alpha' and has a value of its own")) fail_msg("says '%s'", qx_ctx_error(ctx));
    free(model.data);
    qx_ctx_free(ctx);
}

/* A sparse initializer: values [nnz] of float, indices of `index_type` and dims. */
static pb sparse_tensor(const int64_t *indices, int n_indices, int index_rank, int nnz, int index_type, const int64_t *dims, int rank)
{
    pb values = {0}, places = {0}, s = {0};
    pb_int(&values, 1, nnz);
    pb_int(&values, 2, 1);
    for (int i = 0; i < nnz; i++) pb_float(&values, 4, 1.0f);
    pb_str(&values, 8, "s");
    pb_int(&places, 1, index_rank == 2 ? n_indices / rank : n_indices);
    if (index_rank == 2) pb_int(&places, 1, rank);
    pb_int(&places, 2, index_type);
    for (int i = 0; i < n_indices; i++) pb_int(&places, index_type == 7 ? 7 : 5, indices[i]);
    pb_msg(&s, 1, &values);
    pb_msg(&s, 2, &places);
    for (int i = 0; i < rank; i++) pb_int(&s, 3, dims[i]);
    return s;
}

static void sparse_initializers(void **state)
{
    (void)state;
    const int64_t dims[] = {3, 4}, zero[] = {3, 0};
    pb s = sparse_tensor((int64_t[]){1, 11}, 2, 1, 2, 7, dims, 2);
    accept_bytes("flat", NULL, NULL, &s, "Neg");
    s = sparse_tensor((int64_t[]){0, 1, 2, 3}, 4, 2, 2, 7, dims, 2);
    accept_bytes("by place", NULL, NULL, &s, "Neg");
    s = sparse_tensor((int64_t[]){1, 12}, 2, 1, 2, 7, dims, 2);
    refuse_bytes("G27", NULL, NULL, &s, "Neg", "index 12 of value 1 is outside of 0..11");
    s = sparse_tensor((int64_t[]){0, 1, 3, 0}, 4, 2, 2, 7, dims, 2);
    refuse_bytes("G27", NULL, NULL, &s, "Neg", "index 3 of value 1 is outside of 0..2");
    s = sparse_tensor((int64_t[]){5, 1}, 2, 1, 2, 7, dims, 2);
    refuse_bytes("G28", NULL, NULL, &s, "Neg", "indices must rise");
    s = sparse_tensor((int64_t[]){1, 2, 3}, 3, 1, 2, 7, dims, 2);
    refuse_bytes("G29", NULL, NULL, &s, "Neg", "has 2 values and 3 indices");
    s = sparse_tensor((int64_t[]){1, 2}, 2, 1, 2, 6, dims, 2);
    refuse_bytes("G30", NULL, NULL, &s, "Neg", "its indices are i32 instead of i64");
    s = sparse_tensor((int64_t[]){1, 2}, 2, 1, 2, 7, zero, 2);
    refuse_bytes("G31", NULL, NULL, &s, "Neg", "dim 1 is 0");
}

/* Operators of com.microsoft without an import, as NNCF writes them: version 1, unless --strict asks for the standard. */
static void contrib_operators_without_an_import(void **state)
{
    (void)state;
    qx_ctx *ctx = qx_ctx_new(NULL);
    for (int strict = 0; strict < 2; strict++) {
        pb node = {0}, graph = {0}, opset = {0}, model = {0};
        pb_str(&node, 1, "x"), pb_str(&node, 2, "y"), pb_str(&node, 4, "QuickGelu"), pb_str(&node, 7, "com.microsoft");
        pb_msg(&graph, 1, &node), pb_str(&graph, 2, "g"), put_io(&graph, 11, "x"), put_io(&graph, 12, "y");
        pb_int(&opset, 2, 17), pb_int(&model, 1, 8), pb_msg(&model, 7, &graph), pb_msg(&model, 8, &opset);
        qx_model *m = NULL;
        const qx_read_options o = {.strict = strict};
        assert_int_equal(qx_model_read_bytes(ctx, model.data, model.len, NULL, &o, &m), strict ? QX_E_FORMAT : QX_OK);
        if (m) assert_int_equal(qx_graph_opset(m->graph, "com.microsoft"), 1);
        qx_model_free(m);
        free(model.data);
    }
    qx_ctx_free(ctx);
}

static void strict_mode_turns_warnings_into_errors(void **state)
{
    (void)state;
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_model *m = NULL;
    /* subnormal in half precision */
    const char *text = HEAD(21) "g (float16[2] x) => (y) <float16 s = {0.00001}> { y = QuantizeLinear (x, s) }";
    assert_int_equal(qx_model_parse_text_raw(ctx, text, &m), QX_OK);
    assert_int_equal(qx_check(m, false), QX_OK);
    assert_int_equal(qx_ctx_warnings(ctx), 1);
    assert_int_equal(qx_check(m, true), QX_E_FORMAT);
    assert_non_null(strstr(qx_ctx_error(ctx), "scale 's' has 1 of 1 elements that are subnormal"));
    qx_model_free(m);
    qx_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_that_are_refused), cmocka_unit_test(models_that_pass), cmocka_unit_test(nodes_out_of_order), cmocka_unit_test(scales_below_zero_of_few_bits),
        cmocka_unit_test(call_chains_have_a_limit), cmocka_unit_test(the_number_of_functions_has_a_limit),
        cmocka_unit_test(many_calls_cost_bounded_time), cmocka_unit_test(subgraphs_have_a_limit), cmocka_unit_test(ranks_have_a_limit),
        cmocka_unit_test(nested_types_have_a_limit), cmocka_unit_test(imports_have_a_limit), cmocka_unit_test(models_without_parts),
        cmocka_unit_test(a_node_without_inputs_and_outputs),
        cmocka_unit_test(attributes_and_their_types), cmocka_unit_test(a_reference_with_a_value), cmocka_unit_test(sparse_initializers),
        cmocka_unit_test(contrib_operators_without_an_import), cmocka_unit_test(strict_mode_turns_warnings_into_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
