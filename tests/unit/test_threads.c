/* test_threads.c - every algorithm gives the same file for any number of threads: sums that were cut by thread, a choice between
 * equals or a race would show in a byte. */
#include "tmp_dir.h"
#include "unit.h"
#include "passes/job/settings.h"

#define LM(name) TEST_SOURCE_DIR "/samples/models/micro-llama/" name
#define UNET(name) TEST_SOURCE_DIR "/samples/models/micro-sdxl/unet/" name

static tmp_dir dir;
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

static const qx_samples_options text = {.text = LM("calib.txt"), .tokenizer = LM("tokenizer.json"), .seq_len = 32, .limit = 3};
static const char *const call = UNET("sample.npz");
static const qx_samples_options latents = {.paths = &call, .n_paths = 1};

/* The file that so many threads write; the caller frees it. */
static unsigned char *written(const char *passes, int threads, size_t *size)
{
    const char *out = tmp_path(&dir, "out.onnx");
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = threads});
    const bool biases = strstr(passes, "bias-correction"); /* of which the language model has none */
    const qx_quantize_options o = {.input = biases ? UNET("model.onnx") : LM("model.onnx"), .output = out, .passes = passes, .force = true,
                                   .no_verify = true, .samples = biases ? latents : text};
    qx_report *r;
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    qx_report_free(r);
    qx_ctx_free(ctx);
    unsigned char *bytes = malloc(32 << 20);
    FILE *f = fopen(out, "rb");
    assert_non_null(f);
    assert_non_null(bytes);
    *size = fread(bytes, 1, 32 << 20, f);
    fclose(f);
    return bytes;
}

static const char *const chains[] = {
    "smoothquant,bias-correction,int8", "bias-correction,gptq(columns=256),int4", "smoothquant(alpha=0.5),fp8",
    "smoothquant,int8-dynamic", "awq,int4", "awq,gptq,int4(block=128)", "gptq,nvfp4", "svdquant(rank=4),int4", "rotate,int4",
    "sparsity(sequential=true),gptq(sequential=true),nvfp4", "sparsity,int8", "sparsity(method=wanda),int8-weights", "sparsity(method=magnitude),fp8", "mixed(size=3800000,probes=1)",
};

static void same_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        size_t n, m;
        unsigned char *one = written(chains[i], 1, &n), *three = written(chains[i], 3, &m);
        assert_true(n > 100000);
        if (n != m || memcmp(one, three, n) != 0) fail_msg("%s: files of 1 and 3 threads differ", chains[i]);
        free(one);
        free(three);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(same_file, make_dir, remove_dir)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
