/* verify_run.c - how far the written model is from the float one: signal to noise and cosine of every output, and of the linear operators'
 * results at a few thousand places each, of which the ten worst are kept. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/spool.h"
#include "passes/job/job.h"
#include "passes/coded.h"
#include "passes/job/verify_outputs.h"

enum { PLACES = 4096, WORST = 10, MAX_LAYERS = 4096 }; /* PLACES: of all samples together */

/* places [samples][places] of the float model, n [samples] of them */
typedef struct layer { const char *name, *op, *format, *scope; qx_pairs s; float *places; int64_t *n; } layer;
typedef struct verifier {
    qx_ctx *ctx;
    qx_exec *exec;           /* of the model that runs now */
    const qx_model *after;
    int64_t sample, samples, places;
    layer *layers; int n_layers;
    qx_value **watched[2];
    bool second;
    qx_ends ends;            /* what is compared: the outputs, or where an operator without a kernel follows, what it reads */
    qx_output_meter *outputs;
    qx_spool *floats;        /* the float model's outputs */
} verifier;

/* Places are spread evenly, the same for both models as shapes agree. */
static qx_status on_layer(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    verifier *f = user;
    layer *l = &f->layers[watch];
    (void)v;
    if (t->on_device || !qx_dtype_is_float(t->dtype)) return QX_OK;
    int64_t step = t->numel > f->places ? t->numel / f->places : 1, n = t->numel / step;
    if (n > f->places) n = f->places;
    if (f->second && n != l->n[f->sample]) return QX_OK;
    size_t size = (size_t)qx_dtype_bits(t->dtype) / 8;
    for (int64_t i = 0; i < n; i++) {
        float x, *at = &l->places[f->sample * f->places + i];
        qx_to_f32(t->dtype, (const char *)t->data + (size_t)(i * step) * size, 1, &x);
        if (f->second) qx_pairs_add(&l->s, (double)*at, (double)x);
        else *at = x;
    }
    l->n[f->sample] = n;
    return QX_OK;
}

static qx_status make_places(verifier *f)
{
    for (int i = 0; i < f->n_layers; i++) {
        QX_TRY(qx_alloc_array(f->ctx, (size_t)(f->samples * f->places), sizeof(float), (void **)&f->layers[i].places));
        QX_TRY(qx_alloc_array(f->ctx, (size_t)f->samples, sizeof(int64_t), (void **)&f->layers[i].n));
    }
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
        if (!b || b->type.dtype != a->type.dtype || !f->ends.can[a->id] || f->n_layers == MAX_LAYERS || f->n_layers == n) continue;
        f->watched[0][f->n_layers] = a;
        f->watched[1][f->n_layers] = b;
        f->layers[f->n_layers++] = (layer){.name = rn->name, .op = rn->op, .format = rn->format, .scope = rn->scope};
    }
    qx_map_free(formats);
    return make_places(f);
}

/* What stands in for an output must be in both models. */
static void keep_common(qx_ends *e, const qx_model *after)
{
    int kept = 0;
    for (int i = 0; i < e->n; i++)
        if (qx_graph_find(after->graph, e->names[i])) e->names[kept++] = e->names[i];
    e->n = kept;
}

static qx_status start_meters(verifier *f, const qx_model *before)
{
    bool detector = false;
    QX_TRY(qx_alloc_array(f->ctx, (size_t)f->ends.n + 1, sizeof *f->outputs, (void **)&f->outputs));
    QX_FOR_NODES(before->graph, n) detector = detector || n->op->id == QX_OP_NonMaxSuppression;
    for (int i = 0; i < f->ends.n; i++) {
        qx_meter_start(&f->outputs[i], f->ends.names[i], qx_graph_find(before->graph, f->ends.names[i]));
        f->outputs[i].list = detector;
    }
    return QX_OK;
}

/* ---- one sample ---------------------------------------------------------------------------------------------------------- */

/* What is no plain tensor is not compared: only that it is none is kept. */
static bool is_plain(const qx_tensor *t) { return !t->is_sequence && !t->is_optional && t->dtype != QX_DT_STRING; }

static qx_status put_tensor(qx_spool *s, const qx_tensor *t)
{
    qx_tensor head = *t;
    head.data = NULL;
    head.items = NULL;
    head.n_items = 0;
    QX_TRY(qx_spool_put(s, &head, sizeof head));
    return is_plain(t) ? qx_spool_put(s, t->data, t->bytes) : QX_OK;
}

static qx_status get_tensor(qx_ctx *ctx, qx_spool *s, qx_tensor *t)
{
    QX_TRY(qx_spool_get(s, t, sizeof *t));
    if (!is_plain(t)) return QX_OK;
    const qx_status st = qx_alloc_raw(ctx, t->bytes, &t->data);
    return st == QX_OK ? qx_spool_get(s, t->data, t->bytes) : st;
}

/* Codes are compared as the floats they stand for. */
static qx_status compare(verifier *f, int i, const qx_tensor *b)
{
    qx_tensor a = {0}, decoded = {0};
    qx_status st = get_tensor(f->ctx, f->floats, &a);
    if (st == QX_OK && is_plain(&a) && qx_dtype_is_real(a.dtype)) st = qx_coded_numbers(f->ctx, f->after, f->ends.names[i], b, &decoded);
    if (st == QX_OK) qx_meter_add(&f->outputs[i], &a, decoded.data ? &decoded : b);
    if (is_plain(&a)) qx_free(f->ctx, a.data);
    qx_tensor_free(f->ctx, &decoded);
    return st;
}

static qx_status run_quantized(verifier *f, const qx_feed *feeds, int n, qx_tensor *out)
{
    qx_feed *own = NULL;
    qx_tensor *codes = NULL;
    qx_status st;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(f->ctx, n + 1, &own));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(f->ctx, n + 1, &codes));
    QX_TRY_GOTO(st, qx_coded_feeds(f->ctx, f->after, feeds, n, own, codes));
    st = qx_exec_run(f->exec, own, n, f->ends.names, f->ends.n, out);
done:
    for (int i = 0; codes && i < n; i++) qx_tensor_free(f->ctx, &codes[i]);
    qx_free(f->ctx, codes);
    qx_free(f->ctx, own);
    return st;
}

static qx_status run_sample(verifier *f, const qx_feed *feeds, int n)
{
    qx_tensor *out;
    QX_TRY(qx_alloc_array(f->ctx, (size_t)f->ends.n + 1, sizeof *out, (void **)&out));
    qx_status st = f->second ? run_quantized(f, feeds, n, out) : qx_exec_run(f->exec, feeds, n, f->ends.names, f->ends.n, out);
    for (int i = 0; i < f->ends.n && st == QX_OK; i++) st = f->second ? compare(f, i, &out[i]) : put_tensor(f->floats, &out[i]);
    for (int i = 0; i < f->ends.n; i++) qx_tensor_free(f->ctx, &out[i]);
    qx_free(f->ctx, out);
    return st;
}

/* ---- one model ----------------------------------------------------------------------------------------------------------- */

static qx_status run_samples(verifier *f, qx_samples *samples, int64_t first)
{
    const qx_feed *feeds;
    int n;
    const int64_t done = f->second ? f->samples : 0;
    for (f->sample = 0; f->sample < f->samples; f->sample++) {
        qx_progress(f->ctx, "verify", done + f->sample, 2 * f->samples);
        QX_TRY(qx_check_cancel(f->ctx));
        QX_TRY(qx_samples_get(samples, first + f->sample, &feeds, &n));
        QX_TRY(run_sample(f, feeds, n));
    }
    return QX_OK;
}

/* One model after the other, so that never both have their weights in memory. */
static qx_status run_model(verifier *f, const qx_verification *v, bool second)
{
    f->second = second;
    qx_status st = qx_exec_new(f->ctx, second ? v->after : v->before, &v->exec, &f->exec);
    if (st != QX_OK) return qx_note(f->ctx, st, "verification of the %s model", second ? "quantized" : "float");
    st = qx_exec_watch(f->exec, f->watched[second], f->n_layers, on_layer, f);
    if (st == QX_OK) st = run_samples(f, v->samples, v->first);
    qx_exec_free(f->exec);
    return st;
}

static qx_status run_both(verifier *f, const qx_verification *v)
{
    qx_status st = run_model(f, v, false);
    qx_spool_rewind(f->floats);
    if (st == QX_OK) st = run_model(f, v, true);
    qx_progress(f->ctx, "verify", 2 * f->samples, 2 * f->samples);
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
    r->all_ran = f->ends.all;
    if (!f->ends.all)
        r->verify_note = f->ends.n ? "measured as far as the operators have kernels"
            : "not verified: an operator without a kernel stands before every output";
    QX_TRY(qx_meters_report(f->outputs, f->ends.n, r));
    int kept = 0;
    qsort(f->layers, (size_t)f->n_layers, sizeof *f->layers, by_sqnr);
    for (int i = 0; i < f->n_layers && kept < WORST; i++) {
        const layer *l = &f->layers[i];
        if (!l->s.n) continue;
        kept++;
        qx_report_layer rl = {l->name, l->op, l->format, l->scope, qx_pairs_sqnr(&l->s), qx_pairs_cosine(&l->s)};
        QX_TRY(qx_report_add_layer(r, &rl));
    }
    return QX_OK;
}

static void free_all(verifier *f)
{
    qx_spool_close(f->floats);
    qx_ends_free(f->ctx, &f->ends);
    for (int i = 0; i < 2; i++) qx_free(f->ctx, f->watched[i]);
    for (int i = 0; i < f->n_layers; i++) {
        qx_free(f->ctx, f->layers[i].places);
        qx_free(f->ctx, f->layers[i].n);
    }
    qx_free(f->ctx, f->layers);
    qx_free(f->ctx, f->outputs);
}

qx_status qx_verify_run(qx_ctx *ctx, const qx_verification *v, qx_report *r)
{
    verifier f = {.ctx = ctx, .after = v->after, .samples = v->count, .places = PLACES / (v->count > 0 ? v->count : 1)};
    qx_status st;
    QX_TRY_GOTO(st, qx_exec_ends(ctx, v->before, &f.ends));
    keep_common(&f.ends, v->after);
    QX_TRY_GOTO(st, choose_layers(&f, v->before, v->after, r));
    QX_TRY_GOTO(st, start_meters(&f, v->before));
    QX_TRY_GOTO(st, qx_spool_open(ctx, "outputs of the float model", NULL, false, &f.floats));
    QX_TRY_GOTO(st, run_both(&f, v));
    st = fill(&f, r);
done:
    free_all(&f);
    return st;
}
