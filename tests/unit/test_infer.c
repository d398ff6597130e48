/* test_infer.c - dim expressions, shape inference with names, content of shape arithmetic, and shapes that cannot be. */
#include "model_text.h"
#include "onnx/infer/expr.h"

/* ---- expressions ---------------------------------------------------------------------------------------------------------- */

static void expressions_are_canonical(void **state)
{
    (void)state;
    static const struct { const char *text, *canonical; } cases[] = {
        {"batch", "batch"}, {"seq+past", "past+seq"}, {"past + seq", "past+seq"}, {"height*2", "2*height"}, {"2*(h+1) - h - h", "2"},
        {"a*b - b*a", "0"},
        {"(2*h)/2", "h"}, {"(4*h+2)/2", "2*h+1"}, {"(h+1)/2", "(h+1)/2"}, {"h//2", "h/2"}, {"floor(h/2)", "h/2"}, {"(h/2)/2", "h/4"},
        {"((h+1)/2+1)/2", "(h+3)/4"},
        {"(2*h+1)/2", "h"}, {"(6*h+3)/4", "(h+1)/2+h"}, {"h-1", "h-1"}, {"1-h", "1-h"}, {"b*s*h/(b*s)", "h"},
        {"(b*p*64 + b*s*64)/(p+s)", "64*b"}, {"x*x", "x*x"},
        {"max(s, min(2048, s))", "s"}, {"min(s, s+1)", "s"}, {"max(a, b)", "max(a,b)"}, {"max(b, a)", "max(a,b)"},
        {"(h+7)/8*8", "8*((h+7)/8)"}, {"unk__12", "unk__12"},
        {"not an expression", "not an expression"}, {"a**2", "a**2"}, {"0*h", "0"}, {"-(h)", "-h"}, {"h/0", "h/0"}, {"2d", "2d"},
    };
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_strings *names;
    qx_exprs *x;
    assert_int_equal(qx_strings_new(ctx, &names), QX_OK);
    assert_int_equal(qx_exprs_new(ctx, names, &x), QX_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qx_expr *e = qx_expr_parse(x, cases[i].text);
        if (!e || strcmp(qx_expr_text(e), cases[i].canonical) != 0)
            fail_msg("'%s' became '%s' instead of '%s'", cases[i].text, e ? qx_expr_text(e) : "nothing", cases[i].canonical);
        assert_ptr_equal(qx_expr_parse(x, cases[i].canonical), e); /* what is printed means the same */
    }
    qx_exprs_free(x);
    qx_strings_free(names);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
}

static int64_t eval_cases(qx_exprs *x, const char *text)
{
    int64_t v = -999;
    const qx_expr *e = qx_expr_parse(x, text);
    return e && qx_expr_is_int(e, &v) ? v : -999;
}

/* The rules of simplification against plain arithmetic, for all small values. */
static void simplification_keeps_values(void **state)
{
    (void)state;
    static const char *const texts[] = {"((h+1)/2+1)/2", "(6*h+3)/4", "(5*h+7*w+2)/3", "(4*h-2*w)/2", "(h-5)/3", "((h/3)+2)/4",
                                        "(h*w+h)/h", "max(h-w,0)", "min(h+w,2*w)", "(12*h+8)/(4)/3", "(3*(h/2)+1)/3"};
    for (int h = 1; h < 8; h++) {
        for (int w = 1; w < 8; w++) {
            qx_ctx *ctx = qx_ctx_new(NULL);
            qx_strings *names;
            qx_exprs *free_x, *x;
            assert_int_equal(qx_strings_new(ctx, &names), QX_OK);
            assert_int_equal(qx_exprs_new(ctx, names, &free_x), QX_OK);
            assert_int_equal(qx_exprs_new(ctx, names, &x), QX_OK);
            qx_exprs_fix(x, "h", h);
            qx_exprs_fix(x, "w", w);
            for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                const qx_expr *e = qx_expr_parse(free_x, texts[i]);
                assert_non_null(e);
                if (eval_cases(x, texts[i]) != eval_cases(x, qx_expr_text(e)))
                    fail_msg("'%s' became '%s', which differs at h=%d w=%d", texts[i], qx_expr_text(e), h, w);
            }
            qx_exprs_free(x);
            qx_exprs_free(free_x);
            qx_strings_free(names);
            qx_ctx_free(ctx);
        }
    }
}

/* ---- operators ------------------------------------------------------------------------------------------------------------- */

static const struct { const char *graph, *expected; } shapes[] = {
    {"(float[B,1,S] x, float[4,1] y) => (z) { z = Add (x, y) }", "f32[B,4,S]"},
    {"(float[a] x, float[b] y) => (z) { z = Add (x, y) }", "f32[max(a,b)]"},
    {"(float[B,S,8] x) => (z) <float[8,16] w = fill(0)> { z = MatMul (x, w) }", "f32[B,S,16]"},
    {"(float[B,H,S,D] q, float[B,H,D,T] k) => (z) { z = MatMul (q, k) }", "f32[B,H,S,T]"},
    {"(float[K] q, float[B,K,T] k) => (z) { z = MatMul (q, k) }", "f32[B,T]"},
    {"(float[M,K] a, float[N,K] b) => (z) { z = Gemm <transB = 1> (a, b) }", "f32[M,N]"},
    {"(float[B,3,H,W] x) => (z) <float[8,3,3,3] w = fill(0)> { z = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w) }",
     "f32[B,8,(H+1)/2,(W+1)/2]"},
    {"(float[B,3,H,W] x) => (z) <float[8,3,3,3] w = fill(0)> { z = Conv <auto_pad = \"SAME_UPPER\", strides = [2,2]> (x, w) }",
     "f32[B,8,(H+1)/2,(W+1)/2]"},
    {"(float[B,4,H,W] x) => (z) <float[4,2,3,3] w = fill(0)> { z = ConvTranspose <strides = [2,2], group = 2> (x, w) }",
     "f32[B,4,2*H+1,2*W+1]"},
    {"(float[1,4,7,7] x) => (z) { z = MaxPool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1> (x) }", "f32[1,4,4,4]"},
    {"(float[B,C,H,W] x) => (z) { z = GlobalAveragePool (x) }", "f32[B,C,1,1]"},
    {"(float[B,S,8] x) => (z) <int64[4] s = {0, 0, 2, 4}> { z = Reshape (x, s) }", "f32[B,S,2,4]"},
    {"(float[B,S,8] x) => (z) <int64[2] s = {-1, 8}> { z = Reshape (x, s) }", "f32[B*S,8]"},
    {"(float[B,S,8] x) => (z) <int64[3] s = {0, -1, 4}> { z = Reshape (x, s) }", "f32[B,2*S,4]"},
    {"(float[?,S,8] x) => (z) <int64[3] s = {0, -1, 4}> { z = Reshape (x, s) }", "f32[?,2*S,4]"},
    {"(float[B,P,N] x, float[B,S,N] y) => (z) { c = Concat <axis = 1> (x, y) z = Identity (c) }", "f32[B,P+S,N]"},
    {"(float[B,S] x) => (z) <int64[1] a = {1}> { z = Unsqueeze (x, a) }", "f32[B,1,S]"},
    {"(float[B,1,S] x) => (z) <int64[1] a = {1}> { z = Squeeze (x, a) }", "f32[B,S]"},
    {"(float[2,1,1] x) => (z) { z = Squeeze (x) }", "f32[2]"},
    {"(float[A,B,C] x) => (z) { z = Transpose <perm = [2,0,1]> (x) }", "f32[C,A,B]"},
    {"(float[A,B,C] x) => (z) { z = Transpose (x) }", "f32[C,B,A]"},
    {"(float[2,B,C] x) => (z) { z = Flatten <axis = 2> (x) }", "f32[2*B,C]"},
    {"(float[V,8] x, int64[B,S] i) => (z) { z = Gather (x, i) }", "f32[B,S,8]"},
    {"(float[B,S] x) => (z) <int64[1] st = {1}, int64[1] en = {9223372036854775807}, int64[1] ax = {1}> { z = Slice (x, st, en, ax) }",
     "f32[B,S-1]"},
    {"(float[B,10] x) => (z) <int64[1] st = {-3}, int64[1] en = {-1}, int64[1] ax = {1}> { z = Slice (x, st, en, ax) }", "f32[B,2]"},
    {"(float[B,10] x) => (z) <int64[1] st = {-1}, int64[1] en = {-9223372036854775807}, int64[1] ax = {1}, int64[1] sp = {-2}> { "
     "z = Slice (x, st, en, ax, sp) }", "f32[B,5]"},
    {"(float[B,9] x) => (z) { z, z1 = Split <axis = 1, num_outputs = 2> (x) }", "f32[B,5]"},
    {"(float[B,\"2*D\"] x) => (z) { z, z1 = Split <axis = 1, num_outputs = 2> (x) }", "f32[B,D]"},
    {"(float[B,3,H] x) => (z) <int64[6] p = {0,0,1,0,0,2}> { z = Pad (x, p) }", "f32[B,3,H+3]"},
    {"(float[B,C,H,W] x) => (z) <float[4] s = {1.0,1.0,2.0,2.0}> { z = Resize <mode = \"nearest\"> (x, , s) }", "f32[B,C,2*H,2*W]"},
    {"(float[B,C,H,W] x) => (z) <float[4] s = {1.0,1.0,0.5,0.5}> { z = Resize <mode = \"nearest\"> (x, , s) }", "f32[B,C,H/2,W/2]"},
    {"(float[B,S,8] x) => (z) <int64[1] a = {-1}> { z = ReduceMean <keepdims = 1> (x, a) }", "f32[B,S,1]"},
    {"(float[B,S,8] x) => (z) <int64[1] a = {1}> { z = ReduceSum <keepdims = 0> (x, a) }", "f32[B,8]"},
    {"(float[B,S,8] x) => (z) { z = ArgMax <axis = 1, keepdims = 0> (x) }", "i64[B,8]"},
    {"(float[B,S,8] x) => (z) <int64[1] k = {3}> { z, i = TopK (x, k) }", "f32[B,S,3]"},
    {"(float[B,S,8] x) => (z) { s = Shape (x) z = ConstantOfShape (s) }", "f32[B,S,8]"},
    {"(float[B,S,8] x, float[1,1,8] y) => (z) { s = Shape (x) z = Expand (y, s) }", "f32[B,S,8]"},
    {"(float[B,S] x) => (z) { s = Size (x) a = Constant <value_int = 0> () d = Constant <value_int = 1> () z = Range (a, s, d) }",
     "i64[B*S]"},
    {"(float[A,B,C] x, float[A,C,D] y) => (z) { z = Einsum <equation = \"abc,acd->abd\"> (x, y) }", "f32[A,B,D]"},
    {"(float[X,A,B] x, float[X,B,C] y) => (z) { z = Einsum <equation = \"...ij,...jk\"> (x, y) }", "f32[X,A,C]"},
    {"(float[B,16,H,W] x) => (z) { z = DepthToSpace <blocksize = 2> (x) }", "f32[B,4,2*H,2*W]"},
    {"(float[B,4,8,W] x) => (z) { z = SpaceToDepth <blocksize = 2> (x) }", "f32[B,16,4,W/2]"},
    {"(float[S,B,4] x) => (z) <float[2,20,4] w = fill(0), float[2,20,5] r = fill(0)> { z, h, c = LSTM <hidden_size = 5, direction "
     "= \"bidirectional\"> (x, w, r) }", "f32[S,2,B,5]"},
    {"(float[S,B,4] x) => (z) <int8[1,4,20] w = fill(0), int8[1,5,20] r = fill(0), float[1] s = fill(1), int8[1] o = fill(0)> "
     "{ y, h, z = com.microsoft.DynamicQuantizeLSTM <hidden_size = 5> (x, w, r, , , , , , s, o, s, o) }", "f32[1,B,5]"},
    {"(float[B,H,S,D] q, float[B,K,T,D] k, float[B,K,T,E] v) => (z) { z = Attention (q, k, v) }", "f32[B,H,S,E]"},
    {"(float[B,S,64] q, float[B,T,32] k, float[B,T,32] v) => (z) { z = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v) }",
     "f32[B,S,64]"},
    {"(float[B,S,64] q, float[B,T,64] k, float[B,T,48] v) => (z) { z = Attention <q_num_heads = 1, kv_num_heads = 1> (q, k, v) }",
     "f32[B,S,48]"},
    {"(float[B,S,32] x) => (z) <uint8[16,2,8] w = fill(0), float[32] s = fill(1)> { z = com.microsoft.MatMulNBits <K = 32, N = "
     "16, bits = 4, block_size = 16> (x, w, s) }", "f32[B,S,16]"},
    {"(uint8[8,3] x) => (z) <float16[8] s = fill(1)> { z = DequantizeLinear <axis = 0> (x, s) }", "f16[8,3]"},
    {"(float[B,8] x) => (z) <float s = {1.0}> { z = QuantizeLinear <output_dtype = 17> (x, s) }", "f8e4m3[B,8]"},
    {"(float[B,8] x) => (z) { z = Cast <to = 10> (x) }", "f16[B,8]"},
    {"(float[B,8] x) => (z) <float s = {1.0}> { z = trt.TRT_FP8QuantizeLinear (x, s) }", "f8e4m3[B,8]"},
    {"(float[B,8] x) => (z) <float s = {1.0}> { z = TRT_INT4QuantizeLinear (x, s) }", "i4[B,8]"},
    {"(float[B,64] x) => (z) <uint8[1,2] s = {1, 2}> { z = trt.TRT_MXFP8DequantizeLinear <axis = 1, block_size = 32> (x, s) }", "f32[B,64]"},
    {"(float[B,64] x) => (z) <float s = {1.0}> { z, t = trt.TRT_FP4DynamicQuantize (x, s) }", "f4e2m1[B,64]"},
    {"(float[B,64] x) => (z) <float s = {1.0}> { c, z = trt.TRT_FP4DynamicQuantize (x, s) }", "f8e4m3[B,4]"},
    {"(float[B,S,64] x) => (z) { c, z = trt.TRT_MXFP8DynamicQuantize (x) }", "u8[B,S,2]"},
    {"(float[B,64] x) => (z) { c, z = trt.TRT_DynamicQuantize <block_shape = [1, 16], output_type = 23, scale_type = 17> (x) }", "f8e4m3[B,4]"},
    {"(float8e4m3fn[256,64] x, float[2,1] s) => (z) { z = trt.TRT_BlockDequantize <block_shape = [128, 64]> (x, s) }", "f32[256,64]"},
    {"(float[3] x) => (z) { z = NonZero (x) }", "i64[1,?]"},
    {"(float[B] x, bool c) => (z) { z = If <then_branch = t () => (p) { p = Neg (x) }, else_branch = e () => (q) { q = Exp (x) }> (c) }",
     "f32[B]"},
    {"(float[B,2] x, float[B,3] y, bool c) => (z) { z = If <then_branch = t () => (p) { p = Neg (x) }, else_branch = e () => (q) "
     "{ q = Exp (y) }> (c) }", "f32[B,?]"},
    {"(float[B] x, int64 n, bool c) => (z) { f, z = Loop <body = b (i, k, a) => (k2, a2, s) { k2 = Identity (k) a2 = Neg (a) s = "
     "Exp (a2) }> (n, c, x) }", "f32[?,B]"},
    {"(float[B] x, int64 n, bool c) => (z) { z = Loop <body = b (i, k, a) => (k2, a2) { k2 = Identity (k) a2 = Concat <axis = 0> "
     "(a, x) }> (n, c, x) }", "f32[?]"},
    {"(float[B] x, float[T,B] y) => (z) { f, z = Scan <num_scan_inputs = 1, body = b (s, e) => (s2, o) { s2 = Add (s, e) o = "
     "Identity (s2) }> (x, y) }", "f32[T,B]"},
    {"(float[A] x, float[A] y) => (z) { s = SequenceConstruct (x, y) z = ConcatFromSequence <axis = 0, new_axis = 1> (s) }", "f32[?,A]"},
    {"(float[A] x, float[B,2] y) => (z) { s = SequenceConstruct (x) t = SequenceInsert (s, y) i = SequenceLength (t) z = Neg (i) }",
     "i64[]"},
    {"(float[A,2] x, float[B,2] y) => (z) <int64 first = {0}> { s = SequenceConstruct (x) t = SequenceInsert (s, y) z = "
     "SequenceAt (t, first) }", "f32[?,2]"},
    {"(uint8[N] x) => (z) { z = ImageDecoder <pixel_format = \"Grayscale\"> (x) }", "u8[?,?,1]"},
    {"(float[B,S,V] x, int64[B,S] t) => (z) { p = Transpose <perm = [0,2,1]> (x) z = SoftmaxCrossEntropyLoss <reduction = "
     "\"none\"> (p, t) }", "f32[B,S]"},
};

static void operators_infer(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char text[2048];
        snprintf(text, sizeof text, "<ir_version: 10, opset_import: [\"\" : 23, \"com.microsoft\" : 1, \"trt\" : 1]>\ng %s", shapes[i].graph);
        fixture f = {.ctx = qx_ctx_new(NULL)};
        char buf[256];
        if (qx_model_parse_text(f.ctx, text, &f.m) != QX_OK) fail_msg("%s: %s", shapes[i].graph, qx_ctx_error(f.ctx));
        qx_type_describe(&value(&f, "z")->type, buf, sizeof buf);
        if (strcmp(buf, shapes[i].expected) != 0) fail_msg("%s\nz is %s instead of %s", shapes[i].graph, buf, shapes[i].expected);
        unload(&f);
    }
}

/* The chain that exporters write for x.view(b, s, heads, -1).transpose(1, 2). */
static void exported_reshape_chain(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[batch,seq,64] x) => (z) <int64 i0 = {0}, int64 i1 = {1}, int64[1] ax = {0}, int64[1] "
                              "heads = {4}, int64[1] rest = {-1}> {\n"
                              "s = Shape (x) b = Gather (s, i0) t = Gather (s, i1) b1 = Unsqueeze (b, ax) t1 = Unsqueeze (t, ax)\n"
                              "want = Concat <axis = 0> (b1, t1, heads, rest) r = Reshape (x, want) z = Transpose <perm = "
                              "[0,2,1,3]> (r) }");
    assert_type(&f, "r", "f32[batch,seq,4,16]");
    assert_type(&f, "z", "f32[batch,4,seq,16]");
    unload(&f);
}

/* torch's interpolate: sizes go through floats and Floor. */
static void sizes_through_floats(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[b,3,h,w] x) => (z) <int64[1] two = {2}, int64[1] four = {4}, float half = {0.5}, int64[1] "
                              "zero = {0}> {\n"
                              "s = Shape (x) hw = Slice (s, two, four) bc = Slice (s, zero, two) fl = Cast <to = 1> (hw) sc = Mul "
                              "(fl, half) dn = Floor (sc) it = Cast <to = 7> (dn)\n"
                              "sizes = Concat <axis = 0> (bc, it) z = Resize <mode = \"nearest\"> (x, , , sizes) }");
    assert_type(&f, "z", "f32[b,3,h/2,w/2]");
    unload(&f);
}

/* torch's expand: -1 is replaced by 1 through Where. */
static void expand_with_where(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[b,1,s,d] x) => (z) <int64[4] want = {-1, 4, -1, -1}, int64[1] n = {4}, int64[4] m = "
                              "{-1,-1,-1,-1}> {\n"
                              "ones = ConstantOfShape <value = int64[1] {1}> (n) neg = Equal (want, m) dims = Where (neg, ones, "
                              "want) z = Expand (x, dims) }");
    assert_type(&f, "z", "f32[b,4,s,d]");
    unload(&f);
}

static void functions_are_inferred_through_their_body(void **state)
{
    (void)state;
    fixture f = load("<ir_version: 10, opset_import: [\"\" : 17, \"local\" : 1]>\n"
                     "g (float[b,8] x, float[8,b] y) => (z, w) { z = local.f <axis = 1> (x) w = local.f <axis = 0> (y) }\n"
                     "<domain: \"local\", opset_import: [\"\" : 17]> f <axis> (a) => (o) { o = ArgMax <axis: int = @axis, "
                     "keepdims = 0> (a) }");
    assert_type(&f, "z", "i64[b]");
    assert_type(&f, "w", "i64[b]");
    char buf[64];
    qx_value *in = f.m->functions[0]->body->inputs[0];
    assert_string_equal(qx_type_describe(&in->type, buf, sizeof buf), "f32[?,?]"); /* the calls differ */
    unload(&f);
}

static void a_dim_can_be_fixed(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[batch,\"2*h\"] x) => (z) { z = Concat <axis = 1> (x, x) }");
    ok(&f, qx_infer_shapes(f.m, (qx_dim_fix[]){{"h", 5}, {"batch", 2}}, 2));
    assert_type(&f, "z", "f32[2,20]");
    assert_int_equal(qx_infer_shapes(f.m, &(qx_dim_fix){"width", 5}, 1), QX_E_USAGE);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "no input has a dimension called 'width'"));
    unload(&f);
}

static void declared_shapes_that_contradict_are_a_warning(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2,3] x) => (float[2,4] z) { z = Neg (x) }");
    assert_type(&f, "z", "f32[2,3]");
    assert_int_equal(qx_ctx_warnings(f.ctx), 1);
    unload(&f);
}

/* The builder of onnxruntime-genai declares a constant of one element as a scalar: that is not written out again. */
static void a_contradicted_declaration_is_forgotten(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2,3] x) => (float[2,3] z) <float[6] y, float[2,3] w> { y = Neg (x) w = Neg (y) z = Neg (w) }");
    assert_type(&f, "y", "f32[2,3]");
    assert_null(value(&f, "y")->wire);
    assert_non_null(value(&f, "w")->wire);
    unload(&f);
}

static void what_a_run_needs_comes_out_as_numbers(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[b,s,8] x, int64[n] want) => (z, y) { z = Reshape (x, want) s = Shape (x) y = "
                              "ConstantOfShape (s) }");
    qx_infer *ix;
    char buf[64];
    ok(&f, qx_infer_new(f.m, &ix));
    ok(&f, qx_infer_give(ix, value(&f, "x"), QX_DT_FLOAT, 3, (int64_t[]){2, 3, 8}, NULL));
    ok(&f, qx_infer_give(ix, value(&f, "want"), QX_DT_INT64, 1, (int64_t[]){2}, (int64_t[]){4, -1}));
    ok(&f, qx_infer_graph(ix, f.m->graph));
    assert_string_equal(qx_type_describe(qx_infer_type(ix, value(&f, "z")), buf, sizeof buf), "f32[4,12]");
    assert_string_equal(qx_type_describe(qx_infer_type(ix, value(&f, "y")), buf, sizeof buf), "f32[2,3,8]");
    const qx_content *c = qx_infer_content(ix, value(&f, "s"));
    assert_int_equal(c->n, 3);
    assert_int_equal(c->v[1].i, 3);
    qx_infer_free(ix);
    assert_type(&f, "z", "f32[...]"); /* the model itself is as before */
    unload(&f);
}

/* ---- shapes that cannot be --------------------------------------------------------------------------------------------------- */

static const struct { const char *id, *graph, *message; } impossible[] = {
    {"S01", "(float[1,3,8,8] x) => (z) <float[4,3,3,3] w = fill(0)> { z = Conv <strides = [0,1]> (x, w) }",
     "attribute 'strides': entry 0 is 0"},
    {"S01", "(float[1,3,8,8] x) => (z) <float[4,3,3,3] w = fill(0)> { z = Conv <dilations = [1,0]> (x, w) }",
     "attribute 'dilations': entry 1 is 0"},
    {"S01", "(float[1,3,8,8] x) => (z) { z = MaxPool <kernel_shape = [0,2]> (x) }", "attribute 'kernel_shape': entry 0 is 0"},
    {"S01", "(float[1,3,8,8] x) => (z) <float[4,3,3,3] w = fill(0)> { z = Conv <group = 0> (x, w) }", "group is 0"},
    {"S01", "(float[1,3,8,8] x) => (z) <float[4,3,3,3] w = fill(0)> { z = Conv <group = 2> (x, w) }",
     "3 channels do not divide into 2 groups"},
    {"S02", "(float x) => (z) <int64[1] a = {0}, int64[1] b = {1}> { z = Slice (x, a, b) }", "its data is a scalar"},
    {"S02", "(float[4] x) => (z) <int64[1] a = {0}, int64[1] b = {1}> { z = Slice (x, a, b, a, a) }", "step 0 of the slice is 0"},
    {"S02", "(float[4] x) => (z) <int64[1] a = {0}, int64[1] b = {1}, int64[1] axes = {3}> { z = Slice (x, a, b, axes) }",
     "axis 3 is outside [-1, 0]"},
    {"S03", "(float[4] x) => (z) { z = Scan <num_scan_inputs = 5, body = b (s) => (t) { t = Neg (s) }> (x) }", "num_scan_inputs is 5"},
    {"S03", "(float[4,2] x) => (z) { z = Scan <num_scan_inputs = 1, scan_input_axes = [2], body = b (s) => (t) { t = Neg (s) }> (x) }",
     "axis 2 is outside [-2, 1]"},
    {"S04", "(float[2,3] x) => (z) <int64[2] s = {-1,-1}> { z = Reshape (x, s) }", "two -1"},
    {"S04", "(float[2,3] x) => (z) <int64[2] s = {2,2}> { z = Reshape (x, s) }", "6 elements"},
    {"S04", "(float[2,3] x) => (z) <int64[2] s = {-1,4}> { z = Reshape (x, s) }", "6 elements, the wanted shape 4 beside the -1"},
    {"S05", "(float[2,3] x) => (z) { z = Transpose <perm = [0,0]> (x) }", "perm is no permutation: entry 1 is 0"},
    {"S05", "(float[2,3] x) => (z) { z = Transpose <perm = [0,1,2]> (x) }", "perm has 3 entries for data of rank 2"},
    {"S06", "(float[2,3] x) => (z) { z = Concat <axis = 2> (x, x) }", "axis 2 is outside [-2, 1]"},
    {"S06", "(float[2,3] x) => (z) { z = Softmax <axis = -3> (x) }", "axis -3 is outside"},
    {"S06", "(float[2,3] x, int64[1] i) => (z) { z = Gather <axis = 5> (x, i) }", "axis 5 is outside"},
    {"S06", "(float[2,3] x) => (z) { z, y = Split <axis = 2> (x) }", "axis 2 is outside"},
    {"S06", "(float[2,3] x) => (z) <float[3] w = fill(1)> { z = LayerNormalization <axis = 2> (x, w) }", "axis 2 is outside"},
    {"S07", "(float[2,3] x) => (z) <int64[2] s = {1,1}> { z, y = Split <axis = 1> (x, s) }", "add up to 2, the axis has 3"},
    {"S08", "() => (z) <int64[2] s = {1048576,1048576}> { z = ConstantOfShape (s) }", "2^40"},
    {"S08", "(float x) => (z) <int64[2] s = {1048576,1048576}> { z = Expand (x, s) }", "2^40"},
    {"S08", "(float[1,1] x) => (z) <int64[2] s = {1048576,1048576}> { z = Tile (x, s) }", "2^40"},
    {"S10", "(float[2] x) => (z) <int64[3] d = {1,2,3}, int64 i = {3}> { z = Gather (d, i) }", "index 3 is outside of an axis with 3"},
    {"S11", "(float[1,1,4,4] x) => (z) <float[4] s = {1,1,0,2}> { z = Resize (x, , s) }", "scale 2 is 0"},
    {"S11", "(float[1,1,4,4] x) => (z) <float[4] s = {1,1,nan,2}> { z = Resize (x, , s) }", "scale 2 is nan"},
    {"S11", "(float[1,1,4,4] x) => (z) <float[4] s = {1,1,1e30,2}> { z = Resize (x, , s) }", "scale 2 is 1e+30"},
    {"S12", "(float[2] x) => (z) { z = Cast <to = 99> (x) }", "unknown type 99"},
    {"S13", "(float[2] x, int64[2] y, bool c) => (z) { z = If <then_branch = t () => (p) { p = Neg (x) }, else_branch = e () => "
            "(q) { q = Neg (y) }> (c) }", "types f32[2] and i64[2]"},
    {"Q07", "(uint8[8,3] x) => (z) <float[8] s = fill(1)> { z = DequantizeLinear <axis = 2> (x, s) }", "axis 2 is outside"},
    {"Q08", "(uint8[8,3] x) => (z) <float[7] s = fill(1)> { z = DequantizeLinear <axis = 0> (x, s) }", "differ: 8 and 7"},
    {"Q09", "(uint8[8,3] x) => (z) <float[3,3] s = fill(1)> { z = DequantizeLinear <axis = 0, block_size = 4> (x, s) }",
     "needs 2 scales and has 3"},
    {"Q10", "(uint8[8,3] x) => (z) <float[2,1,1] s = fill(1)> { z = DequantizeLinear <axis = 0, block_size = 4> (x, s) }", "rank 3"},
    {"", "(float[2,3] x, float[4,5] y) => (z) { z = MatMul (x, y) }", "inner dims of A and B differ: 3 and 4"},
    {"", "(float[2,3] x, float[2,4] y) => (z) { z = Add (x, y) }", "dims 3 and 4 cannot be broadcast"},
    {"", "(float[2] x, float16[2] y) => (z) { z = Add (x, y) }", "input 0 is f32 but input 1 is f16"},
    {"", "(float[2] x) => (z) <int64[1] k = {3}> { z, i = TopK (x, k) }", "k is 3 but axis 0 has 2"},
    {"", "(float[1,1,2,2] x) => (z) { z = MaxPool <kernel_shape = [3,3]> (x) }", "less than the window of 3"},
    {"", "(float[2,3] x, float[3,2] y) => (z) { z = Einsum <equation = \"ij,kl->im\"> (x, y) }", "has 'm' in it"},
};

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        char text[1024];
        snprintf(text, sizeof text, HEAD(21) "g %s", impossible[i].graph);
        qx_ctx *ctx = qx_ctx_new(NULL);
        qx_model *m = NULL;
        if (qx_model_parse_text(ctx, text, &m) == QX_OK) fail_msg("%s accepted: %s", impossible[i].id, impossible[i].graph);
        if (!strstr(qx_ctx_error(ctx), impossible[i].message))
            fail_msg("%s says '%s' instead of '%s'", impossible[i].id, qx_ctx_error(ctx), impossible[i].message);
        qx_ctx_free(ctx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_are_canonical), cmocka_unit_test(simplification_keeps_values), cmocka_unit_test(operators_infer),
        cmocka_unit_test(exported_reshape_chain),
        cmocka_unit_test(sizes_through_floats), cmocka_unit_test(expand_with_where),
        cmocka_unit_test(functions_are_inferred_through_their_body), cmocka_unit_test(a_dim_can_be_fixed),
        cmocka_unit_test(declared_shapes_that_contradict_are_a_warning), cmocka_unit_test(a_contradicted_declaration_is_forgotten),
        cmocka_unit_test(what_a_run_needs_comes_out_as_numbers), cmocka_unit_test(impossible_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
