/* test_models.c - the standard's test data (Debian's libonnx-testdata) and, where QONNX_MODELS names a folder, real exports: all load,
 * pass the checker and the verifier, and infer what they declare; exports keep no dim that is not a number or an expression. */
#include <ftw.h>
#include <stdlib.h>

#include "base/buf.h"
#include "model_text.h"

enum { MOST_FILES = 4000 };
static char *files[MOST_FILES];
static int n_files;

static int collect(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)ftw;
    size_t n = strlen(path);
    if (flag == FTW_F && n > 5 && strcmp(path + n - 5, ".onnx") == 0 && n_files < MOST_FILES) files[n_files++] = strdup(path);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void find_models(const char *folder)
{
    n_files = 0;
    nftw(folder, collect, 16, FTW_PHYS);
    qsort(files, (size_t)n_files, sizeof *files, by_name);
}

static void forget_models(void)
{
    for (int i = 0; i < n_files; i++) free(files[i]);
    n_files = 0;
}

/* Types as declared, before inference settles them. */
static void assert_declared(const char *path, qx_model *plain, qx_model *inferred)
{
    for (uint32_t i = 0; i < plain->graph->n_outputs; i++) {
        const qx_type *a = &plain->graph->outputs[i]->type, *b = &inferred->graph->outputs[i]->type;
        char ta[200], tb[200];
        bool differ = a->kind != b->kind || a->dtype != b->dtype || (a->has_shape && (!b->has_shape || a->rank != b->rank));
        for (int k = 0; !differ && a->has_shape && k < a->rank; k++) differ = a->dims[k].n >= 0 && a->dims[k].n != b->dims[k].n;
        if (differ)
            fail_msg("%s: output '%s' is declared %s, inferred %s", path, plain->graph->outputs[i]->name,
                     qx_type_describe(a, ta, sizeof ta), qx_type_describe(b, tb, sizeof tb));
    }
}

/* print(parse(print(m))) is print(m), where all content is written out. */
static void assert_text(const char *path, qx_model *m)
{
    qx_buf once = QX_BUF_INIT(m->ctx), twice = QX_BUF_INIT(m->ctx);
    qx_model *again = NULL;
    if (qx_model_print(m, &once) != QX_OK) fail_msg("%s: %s", path, qx_ctx_error(m->ctx));
    if (!strstr(once.data, "hash(")) {
        if (qx_model_parse_text(m->ctx, once.data, &again) != QX_OK) fail_msg("%s: %s", path, qx_ctx_error(m->ctx));
        assert_int_equal(qx_model_print(again, &twice), QX_OK);
        assert_string_equal(once.data, twice.data);
        qx_model_free(again);
    }
    qx_buf_free(&once);
    qx_buf_free(&twice);
}

static void the_standards_models(void **state)
{
    (void)state;
    find_models("/usr/share/libonnx-testdata/data");
    if (n_files == 0) {
        print_message("libonnx-testdata is not installed\n");
        skip();
    }
    for (int i = 0; i < n_files; i++) {
        qx_ctx *ctx = qx_ctx_new(NULL);
        qx_model *plain = NULL, *m = NULL;
        if (qx_model_read(ctx, files[i], &(qx_read_options){.skip_check = true}, &plain) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
        if (qx_model_read(ctx, files[i], NULL, &m) != QX_OK) fail_msg("%s: %s", files[i], qx_ctx_error(ctx));
        if (qx_verify(m) != QX_OK) fail_msg("%s: %s", files[i], qx_ctx_error(ctx));
        if (qx_ctx_warnings(ctx)) fail_msg("%s: %d warnings", files[i], qx_ctx_warnings(ctx));
        assert_declared(files[i], plain, m);
        assert_text(files[i], m);
        qx_model_free(plain);
        qx_model_free(m);
        qx_ctx_free(ctx);
    }
    print_message("%d models\n", n_files);
    forget_models();
}

static void assert_known(const char *path, const qx_graph *g)
{
    for (size_t i = 0; i < qx_map_count(g->values); i++) {
        void *p;
        qx_map_key_at(g->values, i, &p);
        const qx_value *v = p;
        char buf[200];
        bool known = v->type.kind == QX_KIND_TENSOR && v->type.has_shape;
        for (int k = 0; known && k < v->type.rank; k++) known = v->type.dims[k].n >= 0 || v->type.dims[k].sym;
        if (!known) fail_msg("%s: '%s' is %s", path, v->name, qx_type_describe(&v->type, buf, sizeof buf));
    }
}

static void real_exports(void **state)
{
    (void)state;
    const char *folder = getenv("QONNX_MODELS");
    if (!folder) {
        print_message("QONNX_MODELS is not set\n");
        skip();
    }
    find_models(folder);
    int loaded = 0;
    for (int i = 0; i < n_files; i++) {
        if (strstr(files[i], "sdxl-unet-full")) continue; /* its weights are made on demand */
        qx_ctx *ctx = qx_ctx_new(NULL);
        qx_model *m = NULL;
        if (qx_model_read(ctx, files[i], NULL, &m) != QX_OK) fail_msg("%s: %s", files[i], qx_ctx_error(ctx));
        if (qx_verify(m) != QX_OK) fail_msg("%s: %s", files[i], qx_ctx_error(ctx));
        assert_known(files[i], m->graph);
        qx_model_free(m);
        qx_ctx_free(ctx);
        loaded++;
    }
    forget_models();
    assert_true(loaded > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_standards_models), cmocka_unit_test(real_exports)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
