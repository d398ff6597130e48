/* test_device.c - the plugin loader, and the executor with a plugin: against the same model on the CPU, over repeated runs,
 * changing shapes, watches, fallback and too little memory. The plugin is tests/plugin/mock.c, whose memory the host cannot
 * touch. */
#include <string.h>

#include "../unit/model_text.h"
#include "runtime/exec.h"

static const char *const mlp = HEAD(17) "g (float[n,6] x, float[n,5] r) => (float[n,5] y, float[5,n] z)\n"
    "<float[6,8] w1 = random(1), float[8,5] w2 = random(2), int64[2] turned = {5, -1}>"
    " { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) y = Add(c, r) z = Reshape(y, turned) }";
/* Sqrt is not known to the mock: in the middle of nodes that are. */
static const char *const mixed = HEAD(17) "g (float[4] x) => (float[4] y) { a = Relu(x) b = Sqrt(a) c = Add(b, a) y = Relu(c) }";

/* The mock knows single nodes only. */
static qx_exec_options on(const char *kind)
{
    static char dir[8][256];
    static int at;
    char *d = dir[at++ % 8];
    snprintf(d, sizeof dir[0], "%s/%s", MOCK_DIR, kind);
    return (qx_exec_options){.device = QX_DEVICE_CUDA, .plugin_dir = d, .no_fuse = true};
}

static qx_tensor filled(const fixture *f, int rank, const int64_t *dims, unsigned seed)
{
    qx_tensor t;
    ok(f, qx_tensor_new(f->ctx, &t, QX_DT_FLOAT, rank, dims));
    for (int64_t i = 0; i < t.numel; i++) {
        seed = seed * 1664525u + 1013904223u;
        ((float *)t.data)[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    return t;
}

/* ---- the loader ---- */

static void refused(void **state)
{
    static const struct { const char *kind, *part; } rows[] = {
        {"nowhere", "qonnx-cuda.so is not installed"}, {"other_abi", "plugin interface 6 of"}, {"other_size", "this program 5 of"},
        {"refuses", "does not speak plugin interface 5"},
        {"no_device", "the mock has none"}, {"no_symbol", "no function qonnx_backend"},
        {"missing_library", "libabsent.so: cannot open shared object file"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fixture f = load(mlp);
        qx_exec *x = NULL;
        qx_exec_options o = on(rows[i].kind);
        assert_int_equal(qx_exec_new(f.ctx, f.m, &o, &x), QX_E_UNSUPPORTED);
        assert_null(x);
        if (!strstr(qx_ctx_error(f.ctx), rows[i].part)) fail_msg("%s: '%s' lacks '%s'", rows[i].kind, qx_ctx_error(f.ctx), rows[i].part);
        assert_non_null(strstr(qx_ctx_error(f.ctx), "device cuda"));
        unload(&f);
    }
}

typedef struct lines { int n; char last[600]; } lines;
static void keep_line(void *user, qx_log_level level, const char *text)
{
    lines *l = user;
    if (level == QX_LOG_DEBUG) return;
    l->n++;
    snprintf(l->last, sizeof l->last, "%s", text);
}

static void auto_falls_back(void **state)
{
    (void)state;
    lines l = {0};
    qx_ctx_options co = {.log = keep_line, .user = &l};
    fixture f = {.ctx = qx_ctx_new(&co)};
    ok(&f, qx_model_parse_text(f.ctx, mlp, &f.m));
    qx_exec *x = NULL;
    qx_exec_options o = on("no_device");
    o.device = QX_DEVICE_AUTO;
    o.tell_device = true;
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    assert_string_equal(qx_exec_device_name(x), "cpu");
    assert_int_equal(l.n, 1);
    assert_non_null(strstr(l.last, "device auto: the CPU, because no device"));
    qx_exec_free(x);
    o = on("good"); /* several folders; the first with a plugin decides */
    char dirs[600];
    snprintf(dirs, sizeof dirs, "/nowhere:%s", o.plugin_dir);
    o.plugin_dir = dirs;
    o.device = QX_DEVICE_AUTO;
    o.tell_device = true;
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    assert_string_equal(qx_exec_device_name(x), "mock:0 mock");
    qx_exec_free(x);
    unload(&f);
}

static void device_texts(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:123456", "CPU"};
    fixture f = load(mlp);
    qx_exec_options o = {0};
    ok(&f, qx_exec_set_device(f.ctx, "cuda:3", &o));
    assert_int_equal(o.device, QX_DEVICE_CUDA);
    assert_int_equal(o.device_index, 3);
    ok(&f, qx_exec_set_device(f.ctx, "cpu", &o));
    assert_int_equal(o.device, QX_DEVICE_CPU);
    ok(&f, qx_exec_set_device(f.ctx, "auto", &o));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        qx_ctx_clear_error(f.ctx);
        assert_int_equal(qx_exec_set_device(f.ctx, wrong[i], &o), QX_E_USAGE);
    }
    unload(&f);
}

/* ---- runs ---- */

static void run_mlp(const fixture *f, qx_exec *x, int64_t n, unsigned seed, qx_tensor out[2])
{
    qx_tensor in = filled(f, 2, (int64_t[]){n, 6}, seed), r = filled(f, 2, (int64_t[]){n, 5}, seed + 9);
    qx_feed feeds[2] = {{"x", &in}, {"r", &r}};
    ok(f, qx_exec_run(x, feeds, 2, NULL, 2, out));
    qx_tensor_free(f->ctx, &in);
    qx_tensor_free(f->ctx, &r);
}

static void same(const qx_tensor *a, const qx_tensor *b)
{
    assert_int_equal(a->rank, b->rank);
    assert_memory_equal(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
    for (int64_t i = 0; i < a->numel; i++) {
        float p = ((const float *)a->data)[i], q = ((const float *)b->data)[i], e = p > q ? p - q : q - p;
        if (!(e <= 1e-5f)) fail_msg("element %lld: %g and %g", (long long)i, (double)p, (double)q);
    }
}

/* Shapes change between the runs. */
static void run_both(const fixture *f, const char *kind)
{
    static const int64_t rows[] = {3, 3, 3, 3, 7, 3, 7, 7, 7, 1, 3};
    qx_exec *cpu = NULL, *dev = NULL;
    qx_exec_options o = on(kind), c = {.device = QX_DEVICE_CPU, .no_fuse = true};
    o.no_fuse = true;
    ok(f, qx_exec_new(f->ctx, f->m, &c, &cpu));
    ok(f, qx_exec_new(f->ctx, f->m, &o, &dev));
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        qx_tensor a[2], b[2];
        run_mlp(f, cpu, rows[i], i, a);
        run_mlp(f, dev, rows[i], i, b);
        for (int k = 0; k < 2; k++) {
            same(&a[k], &b[k]);
            qx_tensor_free(f->ctx, &a[k]);
            qx_tensor_free(f->ctx, &b[k]);
        }
    }
    qx_exec_free(cpu);
    qx_exec_free(dev);
}

/* The first run records memory, the second runs in the arena, the third is recorded by the device, later ones are replays. */
static void as_on_the_cpu(void **state)
{
    (void)state;
    fixture f = load(mlp);
    run_both(&f, "good");
    unload(&f);
}

/* A recording that fails costs a line and nothing else: that run is repeated step by step, as all after it. */
static void no_recording(void **state)
{
    (void)state;
    lines l = {0};
    qx_ctx_options co = {.log = keep_line, .user = &l};
    fixture f = {.ctx = qx_ctx_new(&co)};
    ok(&f, qx_model_parse_text(f.ctx, mlp, &f.m));
    run_both(&f, "no_recording");
    assert_int_equal(l.n, 1);
    if (!strstr(l.last, "runs are not recorded") || !strstr(l.last, "the mock records nothing")) fail_msg("%s", l.last);
    assert_string_equal(qx_ctx_error(f.ctx), "");
    unload(&f);
}

/* A timed run tells beside each step what did it, and why not a library. */
static void notes(void **state)
{
    (void)state;
    fixture f = load(mlp);
    qx_exec *x = NULL;
    qx_exec_options o = on("good");
    qx_tensor out[2];
    int n, noted = 0;
    o.no_fuse = true;
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    qx_exec_profile(x, true);
    run_mlp(&f, x, 3, 1, out);
    const qx_node_time *t = qx_exec_times(x, &n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(t[i].note != NULL, strcmp(t[i].op, "MatMul") == 0);
        noted += t[i].note && strcmp(t[i].note, "the mock has no library") == 0;
    }
    assert_true(noted > 0);
    for (int k = 0; k < 2; k++) qx_tensor_free(f.ctx, &out[k]);
    qx_exec_free(x);
    unload(&f);
}

static void fallback(void **state)
{
    (void)state;
    fixture f = load(mixed);
    qx_exec *x = NULL;
    qx_exec_options o = on("good");
    assert_int_equal(qx_exec_new(f.ctx, f.m, &o, &x), QX_E_UNSUPPORTED);
    if (!strstr(qx_ctx_error(f.ctx), "(Sqrt) has no kernel on mock: the mock does not know it; --allow-fallback"))
        fail_msg("%s", qx_ctx_error(f.ctx));
    qx_ctx_clear_error(f.ctx);
    o.allow_fallback = true;
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    for (int k = 0; k < 4; k++) {
        float v[4] = {4, -1, 9, 0.25f}, want[4] = {6, 0, 12, 0.75f};
        qx_tensor in = {.dtype = QX_DT_FLOAT, .rank = 1, .dims = {4}, .numel = 4, .bytes = sizeof v, .data = v}, y;
        qx_feed feed = {"x", &in};
        ok(&f, qx_exec_run(x, &feed, 1, NULL, 1, &y));
        assert_memory_equal(y.data, want, sizeof want);
        qx_tensor_free(f.ctx, &y);
    }
    qx_exec_free(x);
    unload(&f);
}

typedef struct seen { int calls; double sum; } seen;
static qx_status watch(void *user, int i, const qx_value *v, const qx_tensor *t)
{
    seen *s = user;
    (void)v;
    s->calls += 1 + i;
    for (int64_t k = 0; k < t->numel; k++) s->sum += (double)((const float *)t->data)[k];
    return QX_OK;
}

static void watches(void **state)
{
    (void)state;
    fixture f = load(mlp);
    seen got[2] = {{0, 0}, {0, 0}};
    for (int side = 0; side < 2; side++) {
        qx_exec *x = NULL;
        qx_exec_options o = side ? on("good") : (qx_exec_options){.device = QX_DEVICE_CPU};
        o.no_fuse = true;
        ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
        qx_value *values[3] = {value(&f, "x"), value(&f, "b"), value(&f, "w2")};
        ok(&f, qx_exec_watch(x, values, 3, watch, &got[side]));
        for (unsigned k = 0; k < 3; k++) {
            qx_tensor out[2];
            run_mlp(&f, x, 4, k, out);
            qx_tensor_free(f.ctx, &out[0]);
            qx_tensor_free(f.ctx, &out[1]);
        }
        qx_exec_free(x);
    }
    assert_int_equal(got[0].calls, 18);
    assert_int_equal(got[1].calls, 18);
    assert_true(got[0].sum - got[1].sum < 1e-4 && got[1].sum - got[0].sum < 1e-4);
    unload(&f);
}

/* Weights beyond the limit are uploaded for each use; without a limit and without room the message has the numbers. */
static void little_memory(void **state)
{
    (void)state;
    fixture f = load(mlp);
    qx_exec *x = NULL, *cpu = NULL;
    qx_exec_options o = on("good"), c = {.device = QX_DEVICE_CPU, .no_fuse = true};
    o.no_fuse = true;
    o.max_device_memory = 64;
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    ok(&f, qx_exec_new(f.ctx, f.m, &c, &cpu));
    for (unsigned k = 0; k < 4; k++) {
        qx_tensor a[2], b[2];
        run_mlp(&f, x, 5, k, a);
        run_mlp(&f, cpu, 5, k, b);
        for (int i = 0; i < 2; i++) {
            same(&a[i], &b[i]);
            qx_tensor_free(f.ctx, &a[i]);
            qx_tensor_free(f.ctx, &b[i]);
        }
    }
    qx_exec_free(x);
    qx_exec_free(cpu);
    o = on("small_memory");
    o.no_fuse = true;
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    qx_tensor in = filled(&f, 2, (int64_t[]){900, 6}, 1), r = filled(&f, 2, (int64_t[]){900, 5}, 2), out[2];
    qx_feed feeds[2] = {{"x", &in}, {"r", &r}};
    for (int k = 0; k < 2; k++) {
        assert_int_equal(qx_exec_run(x, feeds, 2, NULL, 2, out), QX_E_NOMEM);
        if (!strstr(qx_ctx_error(f.ctx), "are free")) fail_msg("%s", qx_ctx_error(f.ctx));
        qx_ctx_clear_error(f.ctx);
    }
    qx_tensor_free(f.ctx, &in);
    qx_tensor_free(f.ctx, &r);
    qx_exec_free(x);
    unload(&f);
}

static void wrong_shapes(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[n] x, float[m] z) => (float[k] y) { y = Add(x, z) }");
    qx_exec *x = NULL;
    qx_exec_options o = on("good");
    ok(&f, qx_exec_new(f.ctx, f.m, &o, &x));
    qx_tensor a = filled(&f, 1, (int64_t[]){4}, 1), b = filled(&f, 1, (int64_t[]){1}, 2), y;
    qx_feed feeds[2] = {{"x", &a}, {"z", &b}};
    assert_int_equal(qx_exec_run(x, feeds, 2, NULL, 1, &y), QX_E_SHAPE);
    if (!strstr(qx_ctx_error(f.ctx), "equal shapes only")) fail_msg("%s", qx_ctx_error(f.ctx));
    qx_tensor_free(f.ctx, &a);
    qx_tensor_free(f.ctx, &b);
    qx_exec_free(x);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused), cmocka_unit_test(auto_falls_back), cmocka_unit_test(device_texts), cmocka_unit_test(as_on_the_cpu),
        cmocka_unit_test(no_recording), cmocka_unit_test(notes), cmocka_unit_test(fallback),
        cmocka_unit_test(watches), cmocka_unit_test(little_memory), cmocka_unit_test(wrong_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
