/* verify_run.c - how far the written model is from the float one: signal to noise and cosine of every output, and of the linear operators'
 * results at a few thousand places each, of which the ten worst are kept. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "passes/job.h"
#include "passes/kv_cache.h"

enum { PLACES = 2048, WORST = 10, MAX_LAYERS = 4096 };

/* Sums over pairs (a float model, b quantized). */
typedef struct sums { double aa, bb, ab, dd, max; int64_t n, bad[2]; } sums;

static void add_pair(sums *s, double a, double b)
{
    double d = a - b;
    s->bad[0] += !isfinite(a);
    s->bad[1] += !isfinite(b);
    s->aa += a * a;
    s->bb += b * b;
    s->ab += a * b;
    s->dd += d * d;
    if (!(fabs(d) <= s->max)) s->max = fabs(d); /* NaN sticks */
    s->n++;
}

static double sqnr(const sums *s)
{
    if (s->dd == 0) return 300;
    return s->aa > 0 ? 10 * log10(s->aa / s->dd) : -300;
}

static double cosine(const sums *s) { return s->aa > 0 && s->bb > 0 ? s->ab / sqrt(s->aa * s->bb) : s->aa == s->bb; }

typedef struct layer { const char *name, *op, *format; sums s; float places[PLACES]; int64_t n; } layer;
typedef struct verifier {
    qx_ctx *ctx;
    qx_exec *exec[2];
    const qx_model *after;
    layer *layers; int n_layers;
    qx_value **watched[2];
    bool second;
    qx_ends ends;            /* what is compared: the outputs, or where an operator without a kernel follows, what it reads */
    sums *outputs; qx_tensor *held[2];
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
        if (f->second) add_pair(&l->s, (double)l->places[i], (double)x);
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
    return qx_alloc_array(f->ctx, (size_t)f->ends.n + 1, sizeof *f->outputs, (void **)&f->outputs);
}

static qx_status compare_output(verifier *f, int i, const char *name)
{
    enum { PIECE = 4096 };
    float a[PIECE], b[PIECE];
    const qx_tensor *x = &f->held[0][i], *y = &f->held[1][i];
    if (x->is_sequence || x->is_optional || !qx_dtype_is_float(x->dtype)) return QX_OK;
    if (y->dtype != x->dtype && qx_dtype_bits(y->dtype) <= 8) return QX_OK; /* codes (a cache): not comparable without their scale */
    if (x->numel != y->numel) QX_FAIL(f->ctx, QX_E_SHAPE, "verification: output '%s' has %lld elements in float and %lld quantized", name, (long long)x->numel, (long long)y->numel);
    size_t sx = (size_t)qx_dtype_bits(x->dtype) / 8, sy = (size_t)qx_dtype_bits(y->dtype) / 8;
    for (int64_t at = 0; at < x->numel; at += PIECE) {
        int64_t n = x->numel - at < PIECE ? x->numel - at : PIECE;
        qx_to_f32(x->dtype, (const char *)x->data + (size_t)at * sx, n, a);
        qx_to_f32(y->dtype, (const char *)y->data + (size_t)at * sy, n, b);
        for (int64_t k = 0; k < n; k++) add_pair(&f->outputs[i], (double)a[k], (double)b[k]);
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
    for (int o = 0; o < f->ends.n && st == QX_OK; o++) st = compare_output(f, o, f->ends.names[o]);
    drop_held(f, 0);
    drop_held(f, 1);
    return st;
}

static int by_sqnr(const void *a, const void *b)
{
    const layer *x = a, *y = b;
    double d = sqnr(&x->s) - sqnr(&y->s);
    return d < 0 ? -1 : d > 0 ? 1 : strcmp(x->name, y->name);
}

/* A float model that overflows by itself (a float16 VAE) has nothing to compare with: say so instead of numbers alone. */
static qx_status note_overflow(const char *name, const sums *s, qx_report *r)
{
    if (!s->bad[0]) return QX_OK;
    r->verify_note = qx_arena_printf(r->arena, "output '%s': %lld of %lld values of the model before are not finite, %lld after", name, (long long)s->bad[0], (long long)s->n, (long long)s->bad[1]);
    return r->verify_note ? QX_OK : QX_E_NOMEM;
}

static qx_status fill(verifier *f, qx_report *r)
{
    if (!f->ends.all) r->verify_note = f->ends.n ? "measured as far as the operators have kernels" : "not verified: an operator without a kernel stands before every output";
    for (int i = 0; i < f->ends.n; i++) {
        const sums *s = &f->outputs[i];
        qx_report_output o = {f->ends.names[i], sqnr(s), cosine(s), s->max, s->n};
        if (s->n) QX_TRY(qx_report_add_output(r, &o));
        QX_TRY(note_overflow(o.name, s, r));
    }
    int kept = 0;
    for (int i = 0; i < f->n_layers; i++)
        if (f->layers[i].s.n && kept != i) f->layers[kept++] = f->layers[i];
        else kept += f->layers[i].s.n != 0;
    qsort(f->layers, (size_t)kept, sizeof *f->layers, by_sqnr);
    for (int i = 0; i < kept && i < WORST; i++) {
        const layer *l = &f->layers[i];
        qx_report_layer rl = {l->name, l->op, l->format, sqnr(&l->s), cosine(&l->s)};
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
