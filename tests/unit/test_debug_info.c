/* test_debug_info.c - what exporters write for debugging goes, and nothing else: names, what is unknown, modules that patterns look for. */
#include "base/mem.h"
#include "onnx/edit.h"
#include "onnx/file/io.h"
#include "passes/pipeline.h"
#include "pb.h"
#include "tmp_dir.h"

#define DYNAMO TEST_SOURCE_DIR "/samples/models/sd3-mmdit-dynamo/model.onnx"

typedef struct place { qx_ctx *ctx; tmp_dir dir; } place;

static int setup(void **state)
{
    place *p = *state = calloc(1, sizeof *p);
    p->ctx = qx_ctx_new(NULL);
    return p->ctx ? tmp_make(&p->dir, "/tmp") : -1;
}

static int teardown(void **state)
{
    place *p = *state;
    const int rc = tmp_remove(&p->dir);
    qx_ctx_free(p->ctx);
    free(p);
    return rc;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static pb node(const char *op, const char *in, const char *in2, const char *out)
{
    pb n = {0};
    pb_str(&n, 1, in);
    if (in2) pb_str(&n, 1, in2);
    pb_str(&n, 2, out);
    pb_str(&n, 3, "name-of-a-node");
    pb_str(&n, 4, op);
    return n;
}

/* Everything that can stand beside a node; `tag` ends each text. */
static void notes(pb *n, const char *tag)
{
    static const char *const keys[] = {"mine", "namespace", "pkg.torch.onnx.stack_trace", "pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.fx_node",
                                       "pkg.onnxscript.rewriter.rule_name", "pkg.torch.onnx.original_name"};
    char text[64];
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        snprintf(text, sizeof text, "<%s:%s>", keys[i], tag);
        pb_entry(n, 9, keys[i], text);
    }
    snprintf(text, sizeof text, "['', 'm.%s', 'op']", tag);
    pb_entry(n, 9, "pkg.torch.onnx.name_scopes", text);
    snprintf(text, sizeof text, "<doc:%s>", tag);
    pb_str(n, 6, text);
    snprintf(text, sizeof text, "<unknown:%s>", tag);
    pb_str(n, 400, text); /* no field of today's format */
}

/* y = If(c) { MatMul (x, w) } else { Relu (x) }, and a Relu that only has a namespace. */
static pb noted_model(void)
{
    pb g = {0}, then = {0}, otherwise = {0}, attr = {0}, n = node("MatMul", "x", "w", "t");
    notes(&n, "product");
    pb_msg(&then, 1, &n);
    pb_str(&then, 2, "then");
    pb_value_info(&then, 12, "t");
    n = node("Relu", "x", NULL, "e");
    notes(&n, "inner");
    pb_msg(&otherwise, 1, &n);
    pb_str(&otherwise, 2, "else");
    pb_value_info(&otherwise, 12, "e");
    n = node("If", "c", NULL, "u");
    pb_str(&attr, 1, "then_branch"), pb_msg(&attr, 6, &then), pb_int(&attr, 20, 5);
    pb_msg(&n, 5, &attr);
    pb_str(&attr, 1, "else_branch"), pb_msg(&attr, 6, &otherwise), pb_int(&attr, 20, 5);
    pb_msg(&n, 5, &attr);
    notes(&n, "outer");
    pb_msg(&g, 1, &n);
    n = node("Relu", "u", NULL, "y");
    pb_entry(&n, 9, "namespace", "<somebody's own>");
    pb_msg(&g, 1, &n);
    pb_str(&g, 2, "g");
    pb_str(&g, 10, "<doc of the graph>");
    pb_entry(&g, 16, "pkg.torch.onnx.stack_trace", "<of the graph>");
    pb w = pb_tensor("w", 1, 2, (int64_t[]){1, 1});
    pb_blob(&w, 9, "\0\0\200?", 4);
    pb_msg(&g, 5, &w);
    pb c = pb_tensor("c", 9, 0, NULL);
    pb_blob(&c, 9, "\1", 1);
    pb_msg(&g, 5, &c);
    pb_value_info(&g, 11, "x");
    pb_value_info(&g, 12, "y");
    return pb_model(&g);
}

static int64_t file_size(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    const long size = ftell(f);
    fclose(f);
    return size;
}

static bool file_has(const char *path, const char *text)
{
    const size_t n = (size_t)file_size(path);
    char *bytes = malloc(n);
    FILE *f = fopen(path, "rb");
    assert_int_equal(fread(bytes, 1, n, f), n);
    fclose(f);
    bool found = false;
    for (size_t i = 0, k = strlen(text); i + k <= n && !found; i++) found = !memcmp(bytes + i, text, k);
    free(bytes);
    return found;
}

static void goes_and_stays(void **state)
{
    static const struct { const char *text; bool stays; } rows[] = {
        {"<pkg.torch.onnx.stack_trace:outer>", false}, {"<pkg.torch.onnx.stack_trace:inner>", false},
        {"<pkg.torch.onnx.stack_trace:product>", false}, {"<pkg.torch.onnx.class_hierarchy:inner>", false},
        {"<pkg.torch.onnx.fx_node:outer>", false}, {"<pkg.onnxscript.rewriter.rule_name:inner>", false}, {"<namespace:outer>", false},
        {"<doc:outer>", false}, {"<doc:inner>", false}, {"m.inner", false},
        {"<mine:outer>", true}, {"<mine:inner>", true}, {"<unknown:outer>", true}, {"<unknown:product>", true},
        {"<pkg.torch.onnx.original_name:inner>", true}, {"m.product", true}, {"<somebody's own>", true}, {"name-of-a-node", true},
        {"<doc of the graph>", true}, {"<of the graph>", true},
    };
    place *p = *state;
    const char *in = tmp_path(&p->dir, "in.onnx"), *out = tmp_path(&p->dir, "out.onnx");
    qx_model *m;
    int64_t bytes;
    pb file = noted_model();
    FILE *f = fopen(in, "wb");
    assert_int_equal(fwrite(file.p, 1, file.n, f), file.n);
    fclose(f);
    pb_free(&file);
    if (qx_model_read(p->ctx, in, NULL, &m) != QX_OK || qx_debug_info_drop(m, &bytes) != QX_OK || qx_verify(m) != QX_OK ||
        qx_model_write(m, out, NULL, NULL) != QX_OK)
        fail_msg("%s", qx_ctx_error(p->ctx));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_true(file_has(in, rows[i].text));
        if (file_has(out, rows[i].text) != rows[i].stays) fail_msg("%s %s", rows[i].text, rows[i].stays ? "is gone" : "stays");
    }
    const int64_t less = file_size(in) - file_size(out); /* lengths of what is around them may take a byte less too */
    if (less < bytes || less > bytes + 8) fail_msg("%lld bytes less, %lld said", (long long)less, (long long)bytes);
    qx_model_free(m);
}

static int64_t quantized(place *p, bool keep, const char *out, qx_report **r)
{
    assert_int_equal(qx_report_new(p->ctx, r), QX_OK);
    qx_quantize_options o = {.input = DYNAMO, .output = out, .passes = "int8-weights", .no_verify = true, .keep_debug_info = keep};
    if (qx_quantize_file(p->ctx, &o, *r) != QX_OK) fail_msg("%s", qx_ctx_error(p->ctx));
    return file_size(out);
}

/* torch's dynamo export: smaller by what is reported, and every node that the report names by its module is so in the written file too. */
static void modules_stay(void **state)
{
    place *p = *state;
    const char *kept = tmp_path(&p->dir, "kept.onnx"), *out = tmp_path(&p->dir, "out.onnx");
    qx_report *with, *r;
    const int64_t before = quantized(p, true, kept, &with), after = quantized(p, false, out, &r);
    assert_int_equal(with->debug_bytes, 0);
    assert_true(r->debug_bytes > 300000);
    assert_true(before - after >= r->debug_bytes / 2); /* nodes that a rewrite replaced take theirs along in both files */
    qx_model *m;
    int named = 0;
    if (qx_model_read(p->ctx, out, NULL, &m) != QX_OK) fail_msg("%s", qx_ctx_error(p->ctx));
    QX_FOR_NODES(m->graph, n)
        for (int64_t i = 0; i < r->n_nodes; i++) {
            if (!r->nodes[i].format || !r->nodes[i].scope || strcmp(r->nodes[i].name, n->name)) continue;
            assert_string_equal(n->scope, r->nodes[i].scope);
            named++;
        }
    assert_true(named > 40);
    qx_model_free(m);
    qx_report_free(with);
    qx_report_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(goes_and_stays), CASE(modules_stay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
