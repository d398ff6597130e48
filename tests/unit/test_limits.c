/* test_limits.c - models of a few hundred bytes that ask for terabytes or for work without end: each is refused with a message
 * that names the node, and memory never goes beyond the limit. */
#include "model_text.h"
#include "runtime/exec.h"

enum { LIMIT = 256 << 20 };

typedef struct greedy { const char *name, *text, *names; } greedy; /* names: what the message must have in it */

#define OUT "=> (float[A,B] y)"
static const greedy cases[] = {
    {"ConstantOfShape", HEAD(20) "g (float[1] x) => (float[A,B,C] y) <int64[3] s = {100000, 100000, 100}> { y = ConstantOfShape(s) }",
     "ConstantOfShape"},
    {"ConstantOfShape overflow", HEAD(20) "g (float[1] x) => (float[A,B,C] y) <int64[3] s = {9000000000, 9000000000, 9000000000}> "
                                          "{ y = ConstantOfShape(s) }", "ConstantOfShape"},
    {"Expand", HEAD(20) "g (float[1] x) " OUT " <int64[2] s = {1000000, 1000000}> { y = Expand(x, s) }", "Expand"},
    {"Expand of what the run computes",
     HEAD(20) "g (float[1] x) " OUT " <int64[2] s = {1000000, 1000000}> { a = Abs(s) y = Expand(x, a) }", "Expand"},
    {"Tile", HEAD(20) "g (float[1,1] x) " OUT " <int64[2] s = {1000000, 1000000}> { y = Tile(x, s) }", "Tile"},
    {"Tile overflow", HEAD(20) "g (float[4,4] x) " OUT " <int64[2] s = {9000000000000000000, 9000000000000000000}> { y = Tile(x, s) }",
     "Tile"},
    {"Range", HEAD(20) "g (float[1] x) => (int64[N] y) <int64 a = {0}, int64 b = {1000000000000}, int64 c = {1}> { y = Range(a, b, c) }",
     "Range"},
    {"Range of floats", HEAD(20) "g (float[1] x) => (float[N] y) <float a = {0}, float b = {1e30}, float c = {1e-30}> { y = "
                                 "Range(a, b, c) }", "Range"},
    {"Resize", HEAD(19) "g (float[1,1,4,4] x) => (float[A,B,C,D] y) <float[4] s = {1, 1, 200000, 200000}> { y = Resize(x, , s) }",
     "Resize"},
    {"Resize to sizes", HEAD(19) "g (float[1,1,4,4] x) => (float[A,B,C,D] y) <int64[4] s = {1, 1, 1000000, 1000000}> { y = "
                                 "Resize(x, , , s) }", "Resize"},
    {"Pad", HEAD(20) "g (float[1,1] x) " OUT " <int64[4] s = {0, 0, 1000000, 1000000}> { y = Pad(x, s) }", "Pad"},
    {"Pad of one axis", HEAD(20) "g (float[1] x) => (float[N] y) <int64[2] s = {0, 1000000000000}> { y = Pad(x, s) }", "Pad"},
    {"OneHot", HEAD(20) "g (int64[1] x) => (float[A,B] y) <int64 d = {1000000000000}, float[2] v = {0, 1}> { y = OneHot(x, d, v) }",
     "OneHot"},
    {"RandomNormal", HEAD(20) "g (float[1] x) " OUT " { y = RandomNormal<shape=[1000000, 1000000]>() }", "RandomNormal"},
    {"Multinomial", HEAD(20) "g (float[1,4] x) => (int32[A,B] y) { y = Multinomial<sample_size=1000000000000>(x) }", "Multinomial"},
    {"HannWindow", HEAD(20) "g (float[1] x) => (float[N] y) <int64 n = {1000000000000}> { y = HannWindow(n) }", "HannWindow"},
    {"DFT", HEAD(20) "g (float[1,8,1] x) => (float[A,B,C] y) <int64 n = {1000000000000}> { y = DFT(x, n) }", "DFT"},
    {"CenterCropPad", HEAD(20) "g (float[1,1] x) " OUT " <int64[2] s = {1000000, 1000000}> { y = CenterCropPad(x, s) }", "CenterCropPad"},
    {"AffineGrid", HEAD(20) "g (float[1,2,3] x) => (float[A,B,C,D] y) <int64[4] s = {1, 1, 1000000, 1000000}> { y = AffineGrid(x, s) }",
     "AffineGrid"},
    {"ConvTranspose", HEAD(20) "g (float[1,1,4,4] x) => (float[A,B,C,D] y) <float[1,1,2,2] w = random(1)> { y = "
                               "ConvTranspose<strides=[300000, 300000]>(x, w) }", "ConvTranspose"},
    {"Conv padding", HEAD(20) "g (float[1,1,4,4] x) => (float[A,B,C,D] y) <float[1,1,2,2] w = random(1)> { y = "
                              "Conv<pads=[1000000, 1000000, 0, 0]>(x, w) }", "Conv"},
    {"MaxPool padding", HEAD(20) "g (float[1,1,4,4] x) => (float[A,B,C,D] y) { y = MaxPool<kernel_shape=[2, 2], pads=[1000000, "
                                 "1000000, 0, 0]>(x) }", "MaxPool"},
    {"RoiAlign", HEAD(20) "g (float[1,1,4,4] x) => (float[A,B,C,D] y) <float[1,4] r = {0, 0, 1, 1}, int64[1] b = {0}> { y = "
                          "RoiAlign<output_height=1000000, output_width=1000000>(x, r, b) }", "RoiAlign"},
    {"MelWeightMatrix", HEAD(20) "g (float[1] x) => (float[A,B] y) <int64 a = {1000000}, int64 b = {2000000}, int64 r = {8000}, "
                                 "float l = {0}, float h = {4000}> { y = MelWeightMatrix(a, b, r, l, h) }", "MelWeightMatrix"},
    {"growing chain", HEAD(20) "g (float[100,100] x) " OUT " <int64[2] s = {40, 40}> { a = Tile(x, s) b = Tile(a, s) y = Tile(b, s) }",
     "Tile"},
    {"Gather grows", HEAD(20) "g (float[1,1000000] x) => (float[A,B,C] y) <int64[1] n = {1000000}, int64 z = {0}> { i = "
                              "ConstantOfShape<value = int64 {0}>(n) y = Gather(x, i) }", "Gather"},
    {"broadcast", HEAD(20) "g (float[1,1000000] x) " OUT " <int64[2] s = {1000000, 1}> { t = Reshape(x, s) y = Add(x, t) }", "Add"},
    {"MatMul", HEAD(20) "g (float[1,1000000] x) " OUT " <int64[2] s = {1000000, 1}> { t = Reshape(x, s) y = MatMul(t, x) }", "MatMul"},
    {"caches", HEAD(20) "g (float[1,1,64] q, float[1,1,64] k, float[1,1,64] v) => (float[1,1,64] y, float[A,B,C,D] pk, "
                        "float[E,F,G,H] pv) <int32[1] l = {0}, int32 t = {2000000000}>"
     " { y, pk, pv = com.microsoft.GroupQueryAttention<num_heads=1, kv_num_heads=1>(q, k, v, , , l, t) }", "GroupQueryAttention"},
};

/* Feeds every input of the main graph with zeros of its (small) shape. */
static int feed(const fixture *f, qx_tensor *t, qx_feed *feeds)
{
    const qx_graph *g = f->m->graph;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        int64_t dims[QX_MAX_RANK];
        for (int d = 0; d < g->inputs[i]->type.rank; d++) dims[d] = g->inputs[i]->type.dims[d].n;
        assert_int_equal(qx_tensor_new(f->ctx, &t[i], g->inputs[i]->type.dtype, g->inputs[i]->type.rank, dims), QX_OK);
        feeds[i] = (qx_feed){g->inputs[i]->name, &t[i]};
    }
    return (int)g->n_inputs;
}

static void one(const greedy *k, const qx_exec_options *o, size_t limit)
{
    const qx_ctx_options opt = {.max_memory = limit};
    fixture f = {.ctx = qx_ctx_new(&opt)};
    qx_exec *x = NULL;
    qx_tensor t[4] = {{0}}, out[4] = {{0}};
    qx_feed feeds[4];
    assert_non_null(f.ctx);
    qx_status st = qx_model_parse_text(f.ctx, k->text, &f.m); /* inference may see it already */
    int n = st == QX_OK ? feed(&f, t, feeds) : 0;
    if (st == QX_OK) st = qx_exec_new(f.ctx, f.m, o, &x);
    if (st == QX_OK) st = qx_exec_run(x, feeds, n, NULL, (int)f.m->graph->n_outputs, out);
    if (st == QX_OK) fail_msg("%s: ran", k->name);
    if (!strstr(qx_ctx_error(f.ctx), k->names)) fail_msg("%s: says '%s', which does not name %s", k->name, qx_ctx_error(f.ctx), k->names);
    if (limit && qx_mem_peak(f.ctx) > limit) fail_msg("%s: took %zu bytes", k->name, qx_mem_peak(f.ctx));
    if (x) qx_exec_free(x);
    for (int i = 0; i < 4; i++) {
        qx_tensor_free(f.ctx, &t[i]);
        qx_tensor_free(f.ctx, &out[i]);
    }
    if (f.m) unload(&f);
    else qx_ctx_free(f.ctx);
}

static void no_memory_beyond_the_limit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) one(&cases[i], NULL, LIMIT);
}

/* Without a limit of the user's, machine words still do not overflow. */
static void sizes_do_not_wrap(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strstr(cases[i].name, "overflow")) one(&cases[i], NULL, 0);
}

static void loops_end(void **state)
{
    static const greedy endless[] = {
        {"Loop", HEAD(17) "g (float[1] x) => (float[1] y) <int64 n = {9000000000000000000}, bool t = {1}> { y = Loop<body = b "
                          "(int64 i, bool c, float[1] a) => (bool co, float[1] ao)"
         " { co = Identity(c) ao = Identity(a) }>(n, t, x) }", "Loop"},
        {"Loop without a count", HEAD(17) "g (float[1] x) => (float[1] y) <bool t = {1}> { y = Loop<body = b (int64 i, bool c, "
                                          "float[1] a) => (bool co, float[1] ao)"
         " { co = Identity(c) ao = Identity(a) }>(, t, x) }", "Loop"},
        {"Loop that gathers", HEAD(17) "g (float[1] x) => (float[N,A] y) <int64 n = {9000000000000000000}, bool t = {1}> { y = "
                                       "Loop<body = b (int64 i, bool c) => (bool co, float[1] ao)"
         " { co = Identity(c) ao = Identity(x) }>(n, t) }", "Loop"},
    };
    (void)state;
    const qx_exec_options o = {.max_loop = 1000};
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) one(&endless[i], &o, LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_memory_beyond_the_limit), cmocka_unit_test(sizes_do_not_wrap),
                                       cmocka_unit_test(loops_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
