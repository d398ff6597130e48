/* test_shapes_run.c - inference against execution: for each model of QONNX_MODELS with a sample, what inference says of every value (type,
 * dims, content of shape arithmetic) from the inputs alone is what the executor then computes. */
#include <dirent.h>
#include <stdlib.h>

#include "calib/data/samples.h"
#include "model_text.h"
#include "runtime/exec.h"

enum { MOST_FEEDS = 64 };
typedef struct comparison { qx_infer *ix; const char *model; int64_t seen; } comparison;

static void compare_type(const comparison *c, const qx_value *v, const qx_tensor *t)
{
    const qx_type *y = qx_infer_type(c->ix, v);
    char a[200], b[200];
    bool same = y->kind == QX_KIND_TENSOR && y->has_shape && y->rank == t->rank && y->dtype == t->dtype;
    for (int i = 0; same && i < t->rank; i++) same = y->dims[i].n == t->dims[i];
    if (!same)
        fail_msg("%s: '%s' is inferred as %s and computed as %s", c->model, v->name, qx_type_describe(y, a, sizeof a),
                 qx_tensor_describe(t, b, sizeof b));
}

static double element(const qx_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case QX_DT_INT64: return (double)((const int64_t *)t->data)[i];
    case QX_DT_INT32: return (double)((const int32_t *)t->data)[i];
    case QX_DT_BOOL: return (double)((const uint8_t *)t->data)[i];
    default: return (double)((const float *)t->data)[i];
    }
}

static void compare_content(const comparison *c, const qx_value *v, const qx_tensor *t)
{
    const qx_content *k = qx_infer_content(c->ix, v);
    bool comparable = t->dtype == QX_DT_INT64 || t->dtype == QX_DT_INT32 || t->dtype == QX_DT_BOOL || t->dtype == QX_DT_FLOAT;
    for (int64_t i = 0; k && comparable && k->n == t->numel && i < k->n; i++) {
        double known = k->v[i].kind == QX_NUM_INT ? (double)k->v[i].i : k->v[i].f, run = element(t, i);
        if (k->v[i].kind == QX_NUM_UNKNOWN || known == run || (known != known && run != run)) continue;
        fail_msg("%s: element %lld of '%s' is inferred as %g and computed as %g", c->model, (long long)i, v->name, known, run);
    }
}

static qx_status watch(void *user, int index, const qx_value *v, const qx_tensor *t)
{
    comparison *c = user;
    (void)index;
    c->seen++;
    compare_type(c, v, t);
    compare_content(c, v, t);
    return QX_OK;
}

static void run_watched(fixture *f, comparison *c, const qx_feed *feeds, int n_feeds)
{
    qx_value **values = calloc(f->m->n_values + 1, sizeof *values);
    qx_tensor *outs = calloc(f->m->graph->n_outputs + 1, sizeof *outs);
    qx_exec *x;
    int n = 0;
    assert_true(values && outs);
    QX_FOR_NODES(f->m->graph, node) {
        for (uint32_t i = 0; i < node->n_out; i++) {
            if (node->out[i] && node->out[i]->type.kind == QX_KIND_TENSOR) values[n++] = node->out[i];
        }
    }
    ok(f, qx_exec_new(f->ctx, f->m, &(qx_exec_options){0}, &x));
    ok(f, qx_exec_watch(x, values, n, watch, c));
    ok(f, qx_exec_run(x, feeds, n_feeds, NULL, (int)f->m->graph->n_outputs, outs));
    assert_int_equal(c->seen, n);
    for (uint32_t i = 0; i < f->m->graph->n_outputs; i++) qx_tensor_free(f->ctx, &outs[i]);
    qx_exec_free(x);
    free(values);
    free(outs);
}

/* False when the folder holds no model with a sample. */
static bool try_model(const char *folder, const char *name)
{
    char model[600], sample[600];
    snprintf(model, sizeof model, "%s/%s/model.onnx", folder, name);
    snprintf(sample, sizeof sample, "%s/%s/sample.npz", folder, name);
    FILE *there = fopen(sample, "rb");
    if (!there) return false;
    fclose(there);
    fixture f = {.ctx = qx_ctx_new(NULL)};
    comparison c = {.model = name};
    qx_npz *z;
    qx_tensor tensors[MOST_FEEDS];
    qx_feed feeds[MOST_FEEDS];
    int n = 0;
    ok(&f, qx_model_read(f.ctx, model, NULL, &f.m));
    ok(&f, qx_npz_open(f.ctx, sample, &z));
    ok(&f, qx_infer_new(f.m, &c.ix));
    for (int i = 0; i < qx_npz_count(z) && n < MOST_FEEDS; i++) {
        const qx_value *v = qx_graph_find(f.m->graph, qx_npz_name(z, i));
        if (!v) continue;
        ok(&f, qx_npz_read(z, i, &tensors[n]));
        ok(&f, qx_infer_give(c.ix, v, tensors[n].dtype, tensors[n].rank, tensors[n].dims, tensors[n].data));
        feeds[n] = (qx_feed){.name = v->name, .tensor = &tensors[n]};
        n++;
    }
    ok(&f, qx_infer_graph(c.ix, f.m->graph));
    run_watched(&f, &c, feeds, n);
    while (n) qx_tensor_free(f.ctx, &tensors[--n]);
    qx_infer_free(c.ix);
    qx_npz_close(z);
    unload(&f);
    return true;
}

static void what_is_inferred_is_what_is_computed(void **state)
{
    (void)state;
    const char *folder = getenv("QONNX_MODELS");
    DIR *d = folder ? opendir(folder) : NULL;
    int tried = 0;
    if (!d) {
        print_message("QONNX_MODELS is not set\n");
        skip();
    }
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        /* the large ones take too long for every day */
        if (e->d_name[0] != '.' && !strstr(e->d_name, "sdxl")) tried += try_model(folder, e->d_name);
    }
    closedir(d);
    print_message("%d models\n", tried);
    if (tried == 0) skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_inferred_is_what_is_computed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
