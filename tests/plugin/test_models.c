/* test_models.c - whole models with the CUDA plugin's adapters and kernels in their host form (runtime/cuda, kernels/cuda):
 * against the CPU, without fallback, so that a node that the plugin has no kernel for is a failure. QONNX_MODELS names the folder
 * of models; models that take long in this form are left out. An argument is the quality that is asked for, in dB; without it 90
 * for f32 and 50 for halves. */
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>

#include "../unit/unit.h"
#include "calib/data/samples.h"
#include "onnx/file/io.h"
#include "runtime/exec.h"

enum { MOST_FEEDS = 64, MOST_OUTS = 64 };
static const off_t most_bytes = (off_t)24 << 20;
static double asked_db; /* 0: by type */

typedef struct run {
    qx_model *m;
    qx_exec *x;
    qx_npz *npz;
    qx_tensor in[MOST_FEEDS], out[MOST_OUTS];
    qx_feed feeds[MOST_FEEDS];
    int n_in, n_out;
} run;

static void check(qx_ctx *ctx, qx_status st, const char *what)
{
    if (st != QX_OK) fail_msg("%s: %s", what, qx_ctx_error(ctx));
}

static void open_model(qx_ctx *ctx, run *r, const char *path, const char *sample)
{
    check(ctx, qx_model_read(ctx, path, NULL, &r->m), path);
    check(ctx, qx_infer_shapes(r->m, NULL, 0), path);
    check(ctx, qx_npz_open(ctx, sample, &r->npz), sample);
    for (int i = 0; i < qx_npz_count(r->npz); i++) {
        const char *name = qx_npz_name(r->npz, i);
        bool is_input = false;
        for (uint32_t k = 0; k < r->m->graph->n_inputs; k++) is_input = is_input || !strcmp(r->m->graph->inputs[k]->name, name);
        if (!is_input || r->n_in == MOST_FEEDS) continue;
        check(ctx, qx_npz_read(r->npz, i, &r->in[r->n_in]), sample);
        r->feeds[r->n_in] = (qx_feed){name, &r->in[r->n_in]};
        r->n_in++;
    }
    r->n_out = (int)r->m->graph->n_outputs;
    assert_true(r->n_out <= MOST_OUTS);
}

static void close_model(qx_ctx *ctx, run *r)
{
    for (int i = 0; i < r->n_in; i++) qx_tensor_free(ctx, &r->in[i]);
    qx_npz_close(r->npz);
    qx_model_free(r->m);
}

static double sqnr(const qx_tensor *a, const qx_tensor *b)
{
    double s = 0, n = 0;
    float x, y;
    const size_t step = (size_t)qx_dtype_bits(a->dtype) / 8;
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->numel, b->numel);
    assert_memory_equal(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
    for (int64_t i = 0; i < a->numel; i++) {
        assert_true(qx_to_f32(a->dtype, (const char *)a->data + (size_t)i * step, 1, &x) &&
                    qx_to_f32(b->dtype, (const char *)b->data + (size_t)i * step, 1, &y));
        s += (double)x * (double)x;
        n += ((double)x - (double)y) * ((double)x - (double)y);
    }
    return n > 0 ? 10 * log10(s / n) : 999;
}

static void compare(const char *name, const char *path, const char *sample)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    run r = {0};
    qx_tensor want[MOST_OUTS];
    open_model(ctx, &r, path, sample);
    qx_exec_options cpu = {.device = QX_DEVICE_CPU}, dev = {.device = QX_DEVICE_CUDA,
                                                            .plugin_dir = getenv("QONNX_TEST_PLUGIN") ? getenv("QONNX_TEST_PLUGIN")
                                                            : PLUGIN_HOST_DIR};
    check(ctx, qx_exec_new(ctx, r.m, &cpu, &r.x), path);
    check(ctx, qx_exec_run(r.x, r.feeds, r.n_in, NULL, r.n_out, want), path);
    qx_exec_free(r.x);
    check(ctx, qx_exec_new(ctx, r.m, &dev, &r.x), path);
    for (int again = 0; again < 2; again++) { /* recorded memory, then the arena */
        double least = 999;
        bool half = false;
        check(ctx, qx_exec_run(r.x, r.feeds, r.n_in, NULL, r.n_out, r.out), path);
        for (int i = 0; i < r.n_out; i++) {
            double db = sqnr(&want[i], &r.out[i]);
            half = half || want[i].dtype != QX_DT_FLOAT;
            least = db < least ? db : least;
            qx_tensor_free(ctx, &r.out[i]);
        }
        if (!again) printf("%-40s %6.1f dB\n", name, least);
        if (!(least >= (asked_db > 0 ? asked_db : half ? 50 : 90))) fail_msg("%s: %.1f dB", name, least);
    }
    qx_exec_free(r.x);
    for (int i = 0; i < r.n_out; i++) qx_tensor_free(ctx, &want[i]);
    close_model(ctx, &r);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
}

static void models(void **state)
{
    (void)state;
    const char *root = getenv("QONNX_MODELS");
    struct dirent **list;
    int n = root ? scandir(root, &list, NULL, alphasort) : -1, done = 0;
    for (int i = 0; i < n; i++) {
        char path[600], sample[600];
        struct stat st;
        snprintf(path, sizeof path, "%.300s/%.200s/model.onnx", root, list[i]->d_name);
        snprintf(sample, sizeof sample, "%.300s/%.200s/sample.npz", root, list[i]->d_name);
        if (stat(path, &st) == 0 && st.st_size < most_bytes && access(sample, R_OK) == 0) {
            compare(list[i]->d_name, path, sample);
            done++;
        }
        free(list[i]);
    }
    if (n >= 0) free(list);
    if (!done) {
        printf("skipped: QONNX_MODELS names no folder of models\n");
        skip();
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) asked_db = atof(argv[1]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
