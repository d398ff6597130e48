/* Levels of the diffusion recipes on the real SDXL UNet graph: what each quantizes, against the counts that follow from the
 * architecture. Needs sdxl-unet-full in QONNX_MODELS; its weights are not needed, because a plan does not read them (a sparse
 * file stands in). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "passes/pipeline.h"

enum { DATA_BYTES_OVER = 6 }; /* GB; the external data ends below */
static char dir[] = "/tmp/sdxl_levels_XXXXXX", model[64], data[64];

static void copy(qx_ctx *ctx, const char *from, const char *to)
{
    char *bytes;
    size_t n;
    assert_int_equal(qx_file_slurp(ctx, from, 64 << 20, &bytes, &n), QX_OK);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    qx_free(ctx, bytes);
}

static int set_up(void **state)
{
    (void)state;
    const char *models = getenv("QONNX_MODELS");
    char from[512];
    if (!models) return 0;
    snprintf(from, sizeof from, "%s/sdxl-unet-full/model.onnx", models);
    if (access(from, R_OK) != 0) return 0;
    qx_ctx *ctx = qx_ctx_new(NULL);
    assert_non_null(mkdtemp(dir));
    snprintf(model, sizeof model, "%s/model.onnx", dir);
    snprintf(data, sizeof data, "%s/model.onnx_data", dir);
    copy(ctx, from, model);
    int fd = open(data, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)DATA_BYTES_OVER << 30), 0);
    close(fd);
    qx_ctx_free(ctx);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (!model[0]) return 0;
    unlink(model);
    unlink(data);
    return rmdir(dir);
}

typedef struct counts { int conv, linear, product, kept_proj_out; } counts;

static counts plan(const char *passes, double *seconds)
{
    counts c = {0};
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_report *r;
    assert_int_equal(qx_report_new(ctx, &r), QX_OK);
    qx_quantize_options o = {.input = model, .passes = passes, .dry_run = true, .no_verify = true};
    double t0 = qx_clock_seconds();
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    *seconds = qx_clock_seconds() - t0;
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        bool attention = strstr(n->name, "/attn1/MatMul") || strstr(n->name, "/attn2/MatMul"); /* /attn1/to_q/MatMul is a linear */
        if (!n->format) c.kept_proj_out += strstr(n->name, "proj_out") && strcmp(n->op, "MatMul") == 0;
        else if (strcmp(n->op, "Conv") == 0) c.conv++;
        else if (attention) c.product++;
        else c.linear++;
    }
    qx_report_free(r);
    qx_ctx_free(ctx);
    return c;
}

static void levels(void **state)
{
    (void)state;
    if (!model[0]) {
        print_message("skipped: QONNX_MODELS names no folder with sdxl-unet-full\n");
        skip();
    }
    static const struct { const char *passes; counts want; } rows[] = {
        {"int8(level=1)", {38, 0, 0, 11}},
        {"int8(level=2)", {38, 140, 0, 11}},
        {"int8(level=2.5)", {38, 560, 0, 11}},
        {"int8(level=3)", {38, 711, 0, 11}},
        {"fp8(level=3)", {38, 711, 0, 11}},
        {"fp8(level=4)", {38, 711, 280, 11}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double seconds;
        counts c = plan(rows[i].passes, &seconds);
        print_message("%-16s %d convolutions, %d linears, %d attention products, %.2f s\n", rows[i].passes, c.conv, c.linear, c.product,
                      seconds);
        assert_int_equal(c.conv, rows[i].want.conv);
        assert_int_equal(c.linear, rows[i].want.linear);
        assert_int_equal(c.product, rows[i].want.product);
        assert_int_equal(c.kept_proj_out, rows[i].want.kept_proj_out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(levels)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
