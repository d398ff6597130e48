/* test_activations.c - how much memory a run takes: the arena against what liveness allows at best (the most bytes that are alive
 * at once), and attention that stays far below its matrix of scores. The models of QONNX_MODELS join in. */
#include <stdlib.h>

#include "calib/data/samples.h"
#include "model_text.h"
#include "runtime/plan.h"

enum { MOST_FEEDS = 64, MOST_OUTS = 64, ALIGN = 64 };

static size_t round_up(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

/* The most bytes that the recorded allocations hold at once. */
static size_t most_alive(const qx_shape_plan *p)
{
    size_t most = 0;
    for (int64_t i = 0; i < p->n_recs; i++) { /* the peak is at some birth */
        size_t alive = 0;
        for (int64_t k = 0; k < p->n_recs; k++)
            if (p->recs[k].born <= p->recs[i].born && p->recs[k].died > p->recs[i].born) alive += round_up(p->recs[k].bytes);
        if (alive > most) most = alive;
    }
    return most;
}

static void check_plan(const fixture *f, const char *name, const qx_feed *feeds, int n)
{
    qx_exec *x = NULL;
    qx_tensor out[MOST_OUTS];
    const uint32_t n_out = f->m->graph->n_outputs;
    assert_true(n_out <= MOST_OUTS);
    ok(f, qx_exec_new(f->ctx, f->m, &(qx_exec_options){.device = QX_DEVICE_CPU}, &x));
    for (int run = 0; run < 2; run++) {
        ok(f, qx_exec_run(x, feeds, n, NULL, (int)n_out, out));
        for (uint32_t i = 0; i < n_out; i++) qx_tensor_free(f->ctx, &out[i]);
    }
    const qx_shape_plan *p = &x->plans[0];
    for (int i = 0; i < QX_SHAPE_PLANS; i++)
        if (x->plans[i].used > p->used) p = &x->plans[i];
    assert_true(p->ready && p->n_recs > 0);
    const size_t best = most_alive(p);
    print_message("%s: arena %zu, alive at once %zu\n", name, p->arena_bytes, best);
    if ((double)p->arena_bytes > 1.1 * (double)best)
        fail_msg("%s: the arena takes %zu bytes, %zu are alive at once", name, p->arena_bytes, best);
    qx_exec_free(x);
}

static void random_feed(const fixture *f, uint32_t i, qx_tensor *t)
{
    const qx_value *v = f->m->graph->inputs[i];
    int64_t dims[QX_MAX_RANK];
    uint32_t seed = 7 + i;
    for (int d = 0; d < v->type.rank; d++) dims[d] = v->type.dims[d].n;
    ok(f, qx_tensor_new(f->ctx, t, QX_DT_FLOAT, v->type.rank, dims));
    for (int64_t k = 0; k < t->numel; k++) {
        seed = seed * 1664525u + 1013904223u;
        ((float *)t->data)[k] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

static const char *const graphs[] = {
    "g (float[1,64,64] x) => (float[1,64,64] y) <float[64,256] w1 = random(1), float[256,64] w2 = random(2), float[64,64] w3 = random(3)>"
    " { q = MatMul(x, w3) a = Tanh(q) b = Add(a, x) h = MatMul(b, w1) r = Sigmoid(h) d = MatMul(r, w2) y = Add(d, b) }",
    "g (float[1,8,32,32] x) => (float[1,8,64,64] y) <float[16,8,3,3] w1 = random(1), float[8,16,3,3] w2 = random(2), "
    "float[8,24,1,1] w3 = random(3), float[4] s = {1, 1, 2, 2}, float[0] roi = {}>"
    " { a = Conv<pads=[1,1,1,1]>(x, w1) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, w2) d = Add(c, x) j = Concat<axis=1>(d, a) k = "
    "Conv(j, w3) u = Resize<mode=\"nearest\">(k, roi, s) y = Softplus(u) }",
};

static void arenas_are_near_the_best(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof graphs / sizeof *graphs; i++) {
        char text[4096];
        qx_tensor t;
        snprintf(text, sizeof text, HEAD(17) "%s", graphs[i]);
        fixture f = load(text);
        random_feed(&f, 0, &t);
        check_plan(&f, i ? "pictures" : "rows", &(qx_feed){f.m->graph->inputs[0]->name, &t}, 1);
        qx_tensor_free(f.ctx, &t);
        unload(&f);
    }
}

static bool try_model(const char *folder, const char *name)
{
    char model[600], sample[600];
    qx_npz *z = NULL;
    qx_tensor t[MOST_FEEDS];
    qx_feed feeds[MOST_FEEDS];
    int n = 0;
    snprintf(model, sizeof model, "%s/%s/model.onnx", folder, name);
    snprintf(sample, sizeof sample, "%s/%s/sample.npz", folder, name);
    fixture f = {.ctx = qx_ctx_new(NULL)};
    if (qx_npz_open(f.ctx, sample, &z) != QX_OK) {
        qx_ctx_free(f.ctx);
        return false;
    }
    ok(&f, qx_model_read(f.ctx, model, NULL, &f.m));
    for (; n < qx_npz_count(z) && n < MOST_FEEDS; n++) {
        ok(&f, qx_npz_read(z, n, &t[n]));
        feeds[n] = (qx_feed){qx_npz_name(z, n), &t[n]};
    }
    check_plan(&f, name, feeds, n);
    while (n) qx_tensor_free(f.ctx, &t[--n]);
    qx_npz_close(z);
    unload(&f);
    return true;
}

static void arenas_of_real_models(void **state)
{
    static const char *const names[] = {"bert", "clip-text", "gemma", "gpt3", "gpt3-dynamo", "llama", "llama-dynamo", "llama-with-past",
                                        "mistral", "nemotron", "sd3-mmdit-dynamo", "starcoder2", "vae-decoder",
                                        "micro-sdxl/unet", "micro-sdxl/vae_decoder"};
    const char *folder = getenv("QONNX_MODELS");
    int tried = 0;
    (void)state;
    if (!folder) {
        print_message("skipped: QONNX_MODELS is not set\n");
        skip();
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) tried += try_model(folder, names[i]);
    if (!tried) skip();
}

/* 4,096 tokens as in SDXL's largest attention: the scores of one head are 64 MiB, the two here 128. */
static void runs_without_scores(const char *constants, const char *scaled)
{
    enum { LIMIT = 16 << 20 };
    char text[1000];
    qx_tensor t[3], out;
    qx_feed feeds[3];
    qx_exec *x = NULL;
    snprintf(text, sizeof text, HEAD(17) "g (float[1,2,4096,64] q, float[1,2,4096,64] k, float[1,2,4096,64] v) => (float[1,4096,2,64] y) "
             "<float c = {0.125}%s> { kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) %s p = Softmax<axis=-1>(m) o = "
             "MatMul(p, v) y = Transpose<perm=[0,2,1,3]>(o) }", constants, scaled);
    fixture f = load(text);
    for (uint32_t i = 0; i < 3; i++) {
        random_feed(&f, i, &t[i]);
        feeds[i] = (qx_feed){f.m->graph->inputs[i]->name, &t[i]};
    }
    qx_ctx_configure(f.ctx, &(qx_ctx_options){.max_memory = qx_mem_in_use(f.ctx) + LIMIT});
    ok(&f, qx_exec_new(f.ctx, f.m, &(qx_exec_options){.device = QX_DEVICE_CPU}, &x));
    ok(&f, qx_exec_run(x, feeds, 3, NULL, 1, &out));
    qx_tensor_free(f.ctx, &out);
    qx_exec_free(x);
    for (int i = 0; i < 3; i++) qx_tensor_free(f.ctx, &t[i]);
    unload(&f);
}

static void attention_needs_no_scores(void **state)
{
    (void)state;
    runs_without_scores("", "m = Mul(s, c)");
}

/* baddbmm with beta = 0: TorchScript adds a table as large as the scores, times 0. */
static void nor_zeros_as_large(void **state)
{
    (void)state;
    runs_without_scores(", float nil = {0}, int64[4] dims = {1, 2, 4096, 4096}",
                        "a = Mul(s, c) z = ConstantOfShape(dims) n = Mul(z, nil) m = Add(a, n)");
}

/* One token behind 8,191: two caches of a MiB of codes go in and come out. As floats they would be four times that. */
static void caches_stay_codes(void **state)
{
    enum { PAST = 8191, LIMIT = 4 << 20 };
    static float x[4 * 64];
    static int8_t past[2 * PAST * 64];
    static const int64_t dims[] = {1, 1, 256}, kv[] = {1, 1, 128}, cache[] = {1, 2, PAST, 64};
    qx_tensor t[5], out[3];
    qx_feed feeds[5];
    qx_exec *e = NULL;
    (void)state;
    for (int i = 0; i < 4 * 64; i++) x[i] = (float)(i % 7) - 3;
    for (int i = 0; i < 2 * PAST * 64; i++) past[i] = (int8_t)(i % 201 - 100);
    fixture f = load(HEAD(17) "g (float[1,1,256] q, float[1,1,128] k, float[1,1,128] v, int8[1,2,8191,64] pk, int8[1,2,8191,64] pv) => "
                              "(float[1,1,256] y, int8[1,2,8192,64] nk, int8[1,2,8192,64] nv) "
                              "<int32[1] len = {8191}, int32 all = {8192}, float[1] s = {0.02}>"
                              " { y, nk, nv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2, k_quant_type=\"PER_TENSOR\","
                              " v_quant_type=\"PER_TENSOR\", kv_cache_bit_width=8>(q, k, v, pk, pv, len, all, , , , , , s, s) }");
    for (int i = 0; i < 5; i++) {
        ok(&f, qx_tensor_shape(f.ctx, &t[i], i < 3 ? QX_DT_FLOAT : QX_DT_INT8, i < 3 ? 3 : 4, i == 0 ? dims : i < 3 ? kv : cache));
        t[i].data = i < 3 ? (void *)x : (void *)past;
        feeds[i] = (qx_feed){f.m->graph->inputs[i]->name, &t[i]};
    }
    qx_ctx_configure(f.ctx, &(qx_ctx_options){.max_memory = qx_mem_in_use(f.ctx) + LIMIT, .threads = 2});
    ok(&f, qx_exec_new(f.ctx, f.m, &(qx_exec_options){.device = QX_DEVICE_CPU}, &e));
    ok(&f, qx_exec_run(e, feeds, 5, NULL, 3, out));
    assert_memory_equal(out[1].data, past, PAST * 64);
    for (int i = 0; i < 3; i++) qx_tensor_free(f.ctx, &out[i]);
    qx_exec_free(e);
    unload(&f);
}

/* A network unrolled over time: 24 products by one weight of a MiB have one packed form. */
static void shared_weights_are_packed_once(void **state)
{
    enum { STEPS = 24, LIMIT = 6 << 20 };
    char text[4000];
    size_t at = (size_t)snprintf(text, sizeof text, HEAD(17) "g (float[1,512] x0) => (float[1,512] x%d) <float[512,512] w = random(1)> {",
                                 STEPS);
    qx_tensor t, out;
    qx_exec *x = NULL;
    (void)state;
    for (int i = 0; i < STEPS; i++) {
        const char *form = i % 3 == 0 ? " x%d = MatMul(x%d, w)" : i % 3 == 1 ? " x%d = Gemm(x%d, w)" : " x%d = Gemm<transB=1>(x%d, w)";
        at += (size_t)snprintf(text + at, sizeof text - at, form, i + 1, i);
    }
    snprintf(text + at, sizeof text - at, " }");
    fixture f = load(text);
    random_feed(&f, 0, &t);
    qx_ctx_configure(f.ctx, &(qx_ctx_options){.max_memory = qx_mem_in_use(f.ctx) + LIMIT});
    for (int no_fuse = 0; no_fuse < 2; no_fuse++) {
        ok(&f, qx_exec_new(f.ctx, f.m, &(qx_exec_options){.device = QX_DEVICE_CPU, .no_fuse = no_fuse}, &x));
        for (int run = 0; run < 2; run++) {
            ok(&f, qx_exec_run(x, &(qx_feed){"x0", &t}, 1, NULL, 1, &out));
            qx_tensor_free(f.ctx, &out);
        }
        qx_exec_free(x);
    }
    qx_tensor_free(f.ctx, &t);
    unload(&f);
}

/* A head that is the transpose of a table of codes: both read the codes as they are stored, and they are no activation. */
static void a_table_of_codes_is_there_once(void **state)
{
    enum { ROWS = 65536, K = 128, LIMIT = ROWS * K / 2 }; /* beside the model, which holds the codes */
    const int64_t dims[] = {1};
    int64_t id = 77;
    qx_tensor t, out;
    qx_exec *x = NULL;
    (void)state;
    fixture f = load(HEAD(21) "g (int64[1] i) => (float[1,65536] y) <int8[65536,128] w = random(1), float[65536] s = fill(0.01)>"
                              " { d = DequantizeLinear<axis=0>(w, s) g = Gather(d, i) h = Tanh(g) t = Transpose<perm=[1,0]>(d) "
                              "y = MatMul(h, t) }");
    ok(&f, qx_tensor_shape(f.ctx, &t, QX_DT_INT64, 1, dims));
    t.data = &id;
    qx_ctx_configure(f.ctx, &(qx_ctx_options){.max_memory = qx_mem_in_use(f.ctx) + ROWS * K + LIMIT});
    ok(&f, qx_exec_new(f.ctx, f.m, &(qx_exec_options){.device = QX_DEVICE_CPU}, &x));
    for (int run = 0; run < 2; run++) {
        ok(&f, qx_exec_run(x, &(qx_feed){"i", &t}, 1, NULL, 1, &out));
        qx_tensor_free(f.ctx, &out);
    }
    assert_true(qx_exec_peak_bytes(x) < ROWS * K / 4);
    qx_exec_free(x);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(arenas_are_near_the_best), cmocka_unit_test(arenas_of_real_models),
                                       cmocka_unit_test(attention_needs_no_scores), cmocka_unit_test(nor_zeros_as_large),
                                       cmocka_unit_test(caches_stay_codes), cmocka_unit_test(a_table_of_codes_is_there_once),
                                       cmocka_unit_test(shared_weights_are_packed_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
