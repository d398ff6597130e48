/* test_tables.c - embeddings and heads that nobody named: 8 bits, blocks where rows have outliers, the same numbers for every target. */
#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "passes/job/settings.h"
#include "passes/pipeline.h"

enum { ROWS = 64, K = 256 };

/* A table that embedding and head share. One element of each row is `outlier` times as large as the others. */
static void write_model(qx_ctx *ctx, int opset, double outlier, const char *path)
{
    qx_model *m;
    qx_buf b = QX_BUF_INIT(ctx);
    OK(qx_buf_printf(&b, "<ir_version: 8, opset_import: [\"\" : %d]> g (int64[1,8] input_ids) => (float[1,8,%d] logits) "
                         "<float[%d,%d] w = "
                         "random(1), float[%d,%d] table = {", opset, ROWS, K, K, ROWS, K));
    for (int i = 0; i < ROWS * K; i++) {
        const double even = 0.001 * ((i * 7919) % 21 - 10);
        OK(qx_buf_printf(&b, "%s%.3f", i ? "," : "", i % K == (i / K * 5) % K ? 0.01 * outlier : even));
    }
    OK(qx_buf_printf(&b, "}> { [\"embed\"] x = Gather(table, input_ids) [\"up\"] a = MatMul(x, w) r = Relu(a) t = Transpose<perm = [1, 0]>"
                         "(table) [\"lm_head\"] logits = MatMul(r, t) }"));
    OK(qx_model_parse_text(ctx, b.data, &m));
    OK(qx_model_write(m, path, &(qx_write_options){.force = true}, NULL));
    qx_model_free(m);
    qx_buf_free(&b);
}

static const char *format_of(const qx_report *r, const char *name)
{
    for (int64_t i = 0; i < r->n_nodes; i++)
        if (strcmp(r->nodes[i].name, name) == 0) return r->nodes[i].format ? r->nodes[i].format : "float";
    fail_msg("no node '%s'", name);
    return NULL;
}

typedef struct wanted {
    qx_target target; const char *tables; int64_t max_opset; const char *format; double least_db;
    const char *passes; /* NULL: fp8-weights */
} wanted;

static void judge(qx_ctx *ctx, const char *in, const char *out, const wanted *w)
{
    qx_report *r;
    qx_quantize_options o = {.input = in, .output = out, .passes = w->passes ? w->passes : "fp8-weights",
                             .target = w->target, .tables = w->tables,
                             .max_opset = w->max_opset, .force = true, .samples = {.random = 4, .seed = 1}};
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    print_message("%s, %s: %.1f dB\n", qx_target_name(w->target), w->format, r->outputs[0].sqnr_db);
    assert_string_equal(format_of(r, "embed"), w->format);
    assert_string_equal(format_of(r, "lm_head"), w->format);
    assert_true(r->outputs[0].sqnr_db > w->least_db);
    qx_report_free(r);
}

static void run(void **state, int opset, double outlier, const wanted *cases, int n)
{
    char in[128], out[128];
    snprintf(in, sizeof in, "/tmp/qonnx_test_tables_%ld.in", (long)getpid());
    snprintf(out, sizeof out, "/tmp/qonnx_test_tables_%ld.onnx", (long)getpid());
    write_model(*state, opset, outlier, in);
    for (int i = 0; i < n; i++) judge(*state, in, out, &cases[i]);
    unlink(in);
    unlink(out);
}

static void even_rows(void **state)
{
    static const wanted cases[] = {
        {QX_TARGET_GENERIC, NULL, 0, "int8-weights", 25, NULL}, {QX_TARGET_ORT, NULL, 0, "int8-weights block 64", 25, NULL},
        {QX_TARGET_OPENVINO, "int8", 0, "int8-weights", 25, NULL}, {QX_TARGET_TENSORRT, NULL, 0, "float", 25, NULL},
        {QX_TARGET_GENERIC, "float", 0, "float", 25, NULL},
    };
    /* where blocks are free, weights alone get them; rounded activations would hide what they gain */
    static const wanted free[] = {{QX_TARGET_GENERIC, NULL, 0, "int8-weights block 64", 25, "int8-weights"}, {QX_TARGET_GENERIC, NULL, 0, "int8-weights", 25, "int8"},
                                  {QX_TARGET_GENERIC, NULL, 0, "int8-weights", 15, "int4"}},
        older[] = {{QX_TARGET_GENERIC, NULL, 0, "int8-weights", 25, "int8-weights"}, {QX_TARGET_GENERIC, NULL, 0, "int8-weights block 32", 25, "int8-weights(block=32)"},
                   {QX_TARGET_GENERIC, NULL, 0, "int8-weights block 128", 25, "int8-weights(block=128)"}};
    run(state, 17, 1, cases, sizeof cases / sizeof *cases);
    run(state, 21, 1, free, sizeof free / sizeof *free);
    run(state, 17, 1, older, sizeof older / sizeof *older); /* blocks that were asked for are the table's too */
}

/* A cap on the operator set leaves rows, which need no newer one. */
static void rows_with_outliers(void **state)
{
    static const wanted cases[] = {
        {QX_TARGET_GENERIC, NULL, 0, "int8-weights block 64", 25, NULL}, {QX_TARGET_ORT, NULL, 0, "int8-weights block 64", 25, NULL},
        {QX_TARGET_GENERIC, NULL, 20, "int8-weights", 5, NULL},
    };
    run(state, 17, 15, cases, sizeof cases / sizeof *cases);
}

/* Beside weights of 8 bits tables shall lose less, where blocks ask for no newer operators; beside 4 bits nobody would see it. */
static void uneven_rows(void **state)
{
    static const wanted fine[] = {{QX_TARGET_GENERIC, NULL, 0, "int8-weights block 64", 25, NULL},
                                  {QX_TARGET_GENERIC, NULL, 0, "int8-weights block 64", 25, "int8-weights"},
                                  {QX_TARGET_GENERIC, NULL, 0, "int8-weights", 15, "int4"}},
        older = {QX_TARGET_GENERIC, NULL, 0, "int8-weights", 25, NULL};
    run(state, 21, 4, fine, sizeof fine / sizeof *fine);
    run(state, 17, 4, &older, 1);
}

/* An embedding of uneven rows straight into the output, beside a small product: in 8 bits it makes most of the noise. */
static void write_blamed(qx_ctx *ctx, const char *path)
{
    qx_model *m;
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 17]> g (int64[1,32] ids) => (float[1,32,64] y) "
        "<float[512,64] table = random(1), float[64,64] w = random(2), float small = {0.001}> { [\"embed\"] x = Gather(table, ids) "
        "[\"up\"] a = MatMul(x, w) s = Mul(a, small) y = Add(x, s) }";
    OK(qx_model_parse_text(ctx, text, &m));
    OK(qx_model_write(m, path, &(qx_write_options){.force = true}, NULL));
    qx_model_free(m);
}

/* Stored in float16 by what is measured, never where it was named int8 or nothing was run. */
static void blamed_table(void **state)
{
    static const struct { const char *tables, *format; double least_db, most_db; } cases[] = {
        {NULL, "fp16", 60, 200}, {"auto", "fp16", 60, 200}, {"int8", "int8-weights", 30, 55}};
    char in[128], out[128];
    snprintf(in, sizeof in, "/tmp/qonnx_test_tables_%ld.in", (long)getpid());
    snprintf(out, sizeof out, "/tmp/qonnx_test_tables_%ld.onnx", (long)getpid());
    write_blamed(*state, in);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qx_report *r;
        qx_quantize_options o = {.input = in, .output = out, .passes = "smoothquant,int8", .tables = cases[i].tables, .force = true,
                                 .samples = {.random = 4, .seed = 1}};
        OK(qx_report_new(*state, &r));
        if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
        print_message("%s: %.1f dB\n", cases[i].format, r->outputs[0].sqnr_db);
        assert_string_equal(format_of(r, "embed"), cases[i].format);
        assert_true(r->outputs[0].sqnr_db > cases[i].least_db && r->outputs[0].sqnr_db < cases[i].most_db);
        qx_report_free(r);
    }
    unlink(in);
    unlink(out);
}

/* What bias-correction adds goes to where ONNX Runtime's node has its bias. */
static void bias_of_a_gemm(void **state)
{
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4,64] x) => (float[4,48] y) "
                               "<float[48,64] w = random(1), float[48] b = random(2)> { [\"fc\"] y = Gemm<transB = 1>(x, w, b) }";
    char in[128], out[128];
    qx_report *r;
    qx_model *m;
    OK(qx_model_parse_text(*state, text, &m));
    snprintf(in, sizeof in, "/tmp/qonnx_test_tables_%ld.in", (long)getpid());
    snprintf(out, sizeof out, "/tmp/qonnx_test_tables_%ld.onnx", (long)getpid());
    OK(qx_model_write(m, in, &(qx_write_options){.force = true}, NULL));
    qx_model_free(m);
    qx_quantize_options o = {.input = in, .output = out, .passes = "bias-correction,int8-weights", .target = QX_TARGET_ORT, .force = true,
                             .samples = {.random = 8, .seed = 1}};
    OK(qx_report_new(*state, &r));
    if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    assert_true(r->outputs[0].sqnr_db > 30);
    qx_report_free(r);
    OK(qx_model_read(*state, out, NULL, &m));
    const qx_node *n = m->graph->last; /* behind the Cast of its scales */
    assert_true(n->op->id == QX_OP_ms_MatMulNBits);
    assert_int_equal(n->n_in, 6);
    assert_non_null(n->in[5]);
    qx_model_free(m);
    unlink(in);
    unlink(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(bias_of_a_gemm), TEST(blamed_table), TEST(even_rows), TEST(rows_with_outliers), TEST(uneven_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
