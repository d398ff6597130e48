/* test_stream.c - weights that are read for each use: the outputs of the executor that keeps them, in far less memory; chosen by
 * itself under a memory cap. A language model (MatMul, Gather, Gemm), a UNet and a VAE decoder (convolutions), and a quantized
 * graph. */
#include "unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "calib/data/samples.h"
#include "passes/pipeline.h"
#include "runtime/exec.h"

enum { MAX = 16 };
typedef struct feeds { qx_tensor t[MAX]; qx_feed f[MAX]; char names[MAX][128]; int n; } feeds;
typedef struct result { qx_tensor out; size_t least, peak; } result; /* bytes in use before and at most */

static void load_feeds(qx_ctx *ctx, const char *path, feeds *fs)
{
    qx_npz *z;
    OK(qx_npz_open(ctx, path, &z));
    fs->n = qx_npz_count(z);
    assert_true(fs->n <= MAX);
    for (int i = 0; i < fs->n; i++) {
        OK(qx_npz_read(z, i, &fs->t[i]));
        snprintf(fs->names[i], sizeof fs->names[i], "%s", qx_npz_name(z, i));
        fs->f[i] = (qx_feed){fs->names[i], &fs->t[i]};
    }
    qx_npz_close(z);
}

/* Twice with one executor: the second run must not find what the first has dropped. model NULL: the folder's. */
static void run(const char *model, const char *folder, bool stream, size_t cap, result *r)
{
    char path[512];
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.max_memory = cap, .threads = 2}); /* scratch of many threads would hide the weights */
    qx_model *m;
    qx_exec *x;
    feeds fs;
    snprintf(path, sizeof path, "%s/samples/models/%s/model.onnx", TEST_SOURCE_DIR, folder);
    OK(qx_model_read(ctx, model ? model : path, NULL, &m));
    snprintf(path, sizeof path, "%s/samples/models/%s/sample.npz", TEST_SOURCE_DIR, folder);
    load_feeds(ctx, path, &fs);
    r->least = qx_mem_in_use(ctx);
    OK(qx_exec_new(ctx, m, &(qx_exec_options){.stream_weights = stream}, &x));
    const char *name = m->graph->outputs[0]->name;
    for (int i = 0; i < 2; i++) {
        qx_tensor out;
        OK(qx_exec_run(x, fs.f, fs.n, &name, 1, &out));
        if (i == 0) {
            qx_tensor_free(ctx, &out);
            continue;
        }
        r->out = out;
        r->out.data = malloc(out.bytes);
        assert_non_null(r->out.data);
        memcpy(r->out.data, out.data, out.bytes);
        qx_tensor_free(ctx, &out);
    }
    r->peak = qx_mem_peak(ctx);
    qx_exec_free(x);
    for (int i = 0; i < fs.n; i++) qx_tensor_free(ctx, &fs.t[i]);
    qx_model_free(m);
    qx_ctx_free(ctx);
}

static double distance(const qx_tensor *a, const qx_tensor *b)
{
    double d = 0, s = 0;
    assert_int_equal(a->numel, b->numel);
    for (int64_t i = 0; i < a->numel; i++) {
        const double x = ((const float *)a->data)[i], y = ((const float *)b->data)[i];
        d += (x - y) * (x - y);
        s += x * x;
    }
    return sqrt(d / s);
}

static void same_outputs(const char *model, const char *folder, double least_saving)
{
    result kept = {0}, streamed = {0};
    run(model, folder, false, 0, &kept);
    run(model, folder, true, 0, &streamed);
    double d = distance(&kept.out, &streamed.out);
    print_message("%s: relative distance %.2g, %.1f MB kept, %.1f MB streamed\n", folder, d, (double)(kept.peak - kept.least) / 1e6,
                  (double)(streamed.peak - streamed.least) / 1e6);
    assert_true(d < 2e-5);
    assert_true((double)(kept.peak - kept.least) >= least_saving * (double)(streamed.peak - streamed.least));
    free(kept.out.data);
    free(streamed.out.data);
}

static void language_model(void **state)
{
    (void)state;
    same_outputs(NULL, "micro-llama", 1.5);
}

static void unet(void **state)
{
    (void)state;
    same_outputs(NULL, "micro-sdxl/unet", 1.15);
}

static void decoder(void **state)
{
    (void)state;
    same_outputs(NULL, "micro-sdxl/vae_decoder", 1);
}

/* DequantizeLinear of every weight stands at the head of the file: each must run before its reader, not all at once. */
static void quantized(void **state)
{
    (void)state;
    char out[128];
    qx_report *r;
    qx_ctx *ctx = qx_ctx_new(NULL);
    snprintf(out, sizeof out, "/tmp/qonnx_test_stream_%ld.onnx", (long)getpid());
    qx_quantize_options o = {.input = TEST_SOURCE_DIR "/samples/models/micro-sdxl/unet/model.onnx", .output = out,
                             .passes = "int8-weights", .force = true, .no_verify = true};
    OK(qx_report_new(ctx, &r));
    OK(qx_quantize_file(ctx, &o, r));
    same_outputs(out, "micro-sdxl/unet", 1.5);
    qx_report_free(r);
    qx_ctx_free(ctx);
    unlink(out);
}

/* 35 MB of weights under a cap of 60 MB: more than half of it, so they are streamed, and the run fits. */
static void chosen_under_a_cap(void **state)
{
    (void)state;
    result kept = {0}, capped = {0};
    run(NULL, "micro-sdxl/unet", false, 0, &kept);
    run(NULL, "micro-sdxl/unet", false, 60 << 20, &capped);
    assert_true(distance(&kept.out, &capped.out) < 2e-5);
    assert_true(capped.peak <= 60 << 20);
    free(kept.out.data);
    free(capped.out.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(language_model), cmocka_unit_test(unet), cmocka_unit_test(decoder),
                                       cmocka_unit_test(quantized), cmocka_unit_test(chosen_under_a_cap)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
