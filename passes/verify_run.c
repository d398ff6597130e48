/* verify_run.c - how far the written model is from the float one: signal to noise and cosine of every output, and of the linear operators'
 * results at a few thousand places each, of which the ten worst are kept. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "passes/job.h"
#include "passes/kv_cache.h"
#include "passes/verify_outputs.h"

enum { PLACES = 2048, WORST = 10, MAX_LAYERS = 4096 };

typedef struct layer { const char *name, *op, *format; qx_pairs s; float places[PLACES]; int64_t n; } layer;
typedef struct verifier {
    qx_ctx *ctx;
    qx_exec *exec[2];
    const qx_model *after;
    layer *layers; int n_layers;
    qx_value **watched[2];
    bool second;
    qx_ends ends;            /* what is compared: the outputs, or where an operator without a kernel follows, what it reads */
    qx_output_meter *outputs; qx_tensor *held[2];
} verifier;

/* Places are spread evenly, the same for both models as shapes agree. */
static qx_status on_layer(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    verifier *f = user;
    layer *l = &f->layers[watch];
    (void)v;
    if (t->on_device || !qx_dtype_is_float(t->dtype)) return QX_OK;
    int64_t step = t->numel > PLACES ? t->numel / PLACES : 1, n = t->numel / step;
    if (n > PLACES) n = PLACES;
    if (f->second && n != l->n) return QX_OK;
    size_t size = (size_t)qx_dtype_bits(t->dtype) / 8;
    for (int64_t i = 0; i < n; i++) {
        float x;
        qx_to_f32(t->dtype, (const char *)t->data + (size_t)(i * step) * size, 1, &x);
        if (f->second) qx_pairs_add(&l->s, (double)l->places[i], (double)x);
        else l->places[i] = x;
    }
    l->n = n;
    return QX_OK;
}

/* Results of quantized nodes that both models have under the same name. */
static qx_status choose_layers(verifier *f, qx_model *before, qx_model *after, const qx_report *r)
{
    QX_TRY(qx_alloc_array(f->ctx, MAX_LAYERS, sizeof(qx_value *), (void **)&f->watched[0]));
    QX_TRY(qx_alloc_array(f->ctx, MAX_LAYERS, sizeof(qx_value *), (void **)&f->watched[1]));
    qx_map *formats;
    QX_TRY(qx_map_new(f->ctx, &formats));
    qx_status st = QX_OK;
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_nodes && st == QX_OK; i++)
        if (r->nodes[i].format && !r->nodes[i].rescaled && ++n) st = qx_map_put(formats, r->nodes[i].name, (void *)(uintptr_t)&r->nodes[i]);
    if (st == QX_OK) st = qx_alloc_array(f->ctx, (size_t)(n < MAX_LAYERS ? n : MAX_LAYERS), sizeof *f->layers, (void **)&f->layers);
    if (st != QX_OK) { qx_map_free(formats); return st; }
    QX_FOR_NODES(before->graph, node) {
        qx_value *a = qx_node_out(node, 0);
        const char *name = node->name[0] ? node->name : a ? a->name : "";
        const qx_report_node *rn = qx_map_get(formats, name);
        qx_value *b = a && rn ? qx_graph_find(after->graph, a->name) : NULL;
        if (!b || !f->ends.can[a->id] || f->n_layers == MAX_LAYERS || f->n_layers == n) continue;
        f->watched[0][f->n_layers] = a;
        f->watched[1][f->n_layers] = b;
        f->layers[f->n_layers++] = (layer){.name = rn->name, .op = rn->op, .format = rn->format};
    }
    qx_map_free(formats);
    return QX_OK;
}

/* What stands in for an output must be in both models. */
static void keep_common(qx_ends *e, const qx_model *after)
{
    int kept = 0;
    for (int i = 0; i < e->n; i++)
        if (qx_graph_find(after->graph, e->names[i])) e->names[kept++] = e->names[i];
    e->n = kept;
}

static qx_status open_both(verifier *f, qx_model *before, qx_model *after, const qx_exec_options *eo)
{
    qx_model *const models[2] = {before, after};
    for (int i = 0; i < 2; i++) {
        qx_status st = qx_exec_new(f->ctx, models[i], eo, &f->exec[i]);
        if (st != QX_OK) return qx_note(f->ctx, st, "verification of the %s model", i ? "quantized" : "float");
        QX_TRY(qx_exec_watch(f->exec[i], f->watched[i], f->n_layers, on_layer, f));
        QX_TRY(qx_alloc_array(f->ctx, (size_t)f->ends.n + 1, sizeof(qx_tensor), (void **)&f->held[i]));
    }
    QX_TRY(qx_alloc_array(f->ctx, (size_t)f->ends.n + 1, sizeof *f->outputs, (void **)&f->outputs));
    bool detector = false;
    QX_FOR_NODES(before->graph, n) detector = detector || n->op->id == QX_OP_NonMaxSuppression;
    for (int i = 0; i < f->ends.n; i++) {
        qx_meter_start(&f->outputs[i], f->ends.names[i], qx_graph_find(before->graph, f->ends.names[i]));
        f->outputs[i].list = detector;
    }
    return QX_OK;
}

static void drop_held(verifier *f, int which)
{
    for (int i = 0; f->held[which] && i < f->ends.n; i++) {
        qx_tensor_free(f->ctx, &f->held[which][i]);
        f->held[which][i] = (qx_tensor){0};
    }
}

/* A sample for the quantized model: caches that it takes as codes are encoded. */
static qx_status coded_feeds(verifier *f, const qx_feed *feeds, int n, qx_feed *out, qx_tensor *codes)
{
    for (int i = 0; i < n; i++) {
        const qx_value *v = qx_graph_find(f->after->graph, feeds[i].name);
        out[i] = feeds[i];
        if (!v || v->type.dtype == feeds[i].tensor->dtype || !qx_kv_scale(v)) continue;
        QX_TRY(qx_kv_encode_input(f->ctx, v, feeds[i].tensor, &codes[i]));
        out[i].tensor = &codes[i];
    }
    return QX_OK;
}

static qx_status run_quantized(verifier *f, const qx_feed *feeds, int n)
{
    qx_feed *own = NULL;
    qx_tensor *codes = NULL;
    qx_status st;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(f->ctx, n + 1, &own));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(f->ctx, n + 1, &codes));
    QX_TRY_GOTO(st, coded_feeds(f, feeds, n, own, codes));
    st = qx_exec_run(f->exec[1], own, n, f->ends.names, f->ends.n, f->held[1]);
done:
    for (int i = 0; codes && i < n; i++) qx_tensor_free(f->ctx, &codes[i]);
    qx_free(f->ctx, codes);
    qx_free(f->ctx, own);
    return st;
}

static qx_status run_sample(verifier *f, qx_samples *samples, int64_t i)
{
    const qx_feed *feeds;
    int n_feeds;
    qx_status st = QX_OK;
    for (int k = 0; k < 2 && st == QX_OK; k++) {
        f->second = k == 1;
        st = qx_samples_get(samples, i, &feeds, &n_feeds);
        if (st == QX_OK) st = k ? run_quantized(f, feeds, n_feeds) : qx_exec_run(f->exec[0], feeds, n_feeds, f->ends.names, f->ends.n, f->held[0]);
    }
    for (int o = 0; o < f->ends.n && st == QX_OK; o++) qx_meter_add(&f->outputs[o], &f->held[0][o], &f->held[1][o]);
    drop_held(f, 0);
    drop_held(f, 1);
    return st;
}

static int by_sqnr(const void *a, const void *b)
{
    const layer *x = a, *y = b;
    double d = qx_pairs_sqnr(&x->s) - qx_pairs_sqnr(&y->s);
    return d < 0 ? -1 : d > 0 ? 1 : strcmp(x->name, y->name);
}

static qx_status fill(verifier *f, qx_report *r)
{
    if (!f->ends.all) r->verify_note = f->ends.n ? "measured as far as the operators have kernels" : "not verified: an operator without a kernel stands before every output";
    QX_TRY(qx_meters_report(f->outputs, f->ends.n, r));
    int kept = 0;
    for (int i = 0; i < f->n_layers; i++)
        if (f->layers[i].s.n && kept != i) f->layers[kept++] = f->layers[i];
        else kept += f->layers[i].s.n != 0;
    qsort(f->layers, (size_t)kept, sizeof *f->layers, by_sqnr);
    for (int i = 0; i < kept && i < WORST; i++) {
        const layer *l = &f->layers[i];
        qx_report_layer rl = {l->name, l->op, l->format, qx_pairs_sqnr(&l->s), qx_pairs_cosine(&l->s)};
        QX_TRY(qx_report_add_layer(r, &rl));
    }
    return QX_OK;
}

qx_status qx_verify_run(qx_ctx *ctx, qx_model *before, qx_model *after, qx_samples *samples, int64_t first, int64_t count, const qx_exec_options *eo, qx_report *r)
{
    verifier f = {.ctx = ctx, .after = after};
    qx_status st = qx_exec_ends(ctx, before, &f.ends);
    keep_common(&f.ends, after);
    if (st == QX_OK) st = choose_layers(&f, before, after, r);
    if (st == QX_OK) st = open_both(&f, before, after, eo);
    for (int64_t i = 0; i < count && st == QX_OK; i++) {
        qx_progress(ctx, "verify", i, count);
        st = qx_check_cancel(ctx);
        if (st == QX_OK) st = run_sample(&f, samples, first + i);
    }
    qx_progress(ctx, "verify", count, count);
    if (st == QX_OK) st = fill(&f, r);
    qx_ends_free(ctx, &f.ends);
    for (int i = 0; i < 2; i++) {
        qx_exec_free(f.exec[i]);
        qx_free(ctx, f.watched[i]);
        qx_free(ctx, f.held[i]);
    }
    qx_free(ctx, f.layers);
    qx_free(ctx, f.outputs);
    return st;
}
