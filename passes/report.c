/* report.c - the report as growing arrays in its own arena, and as JSON. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/thread.h"
#include "passes/pass.h"
#include "passes/report.h"

qx_status qx_report_new(qx_ctx *ctx, qx_report **out)
{
    qx_arena *arena;
    QX_TRY(qx_arena_new(ctx, &arena));
    qx_report *r = qx_arena_alloc(arena, sizeof *r);
    qx_status st = r ? qx_strings_new(ctx, &r->words) : QX_E_NOMEM;
    if (st != QX_OK) return qx_arena_free(arena), st;
    r->ctx = ctx;
    r->arena = arena;
    *out = r;
    return QX_OK;
}

void qx_report_free(qx_report *r)
{
    if (!r) return;
    void *lists[] = {r->nodes, r->tensors, r->outputs, r->layers, r->stages, r->forecast, r->points};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) qx_free(r->ctx, lists[i]);
    qx_strings_free(r->words);
    qx_arena_free(r->arena);
}

/* Grows at powers of two. */
static void *slot(qx_report *r, void **items, int64_t *n, size_t size)
{
    const bool full = *n == 0 || (*n >= 16 && (*n & (*n - 1)) == 0);
    if (full && qx_regrow(r->ctx, items, (size_t)*n * size, (size_t)(*n ? 2 * *n : 16) * size) != QX_OK) return NULL;
    return (char *)*items + (size_t)(*n)++ * size;
}

/* Keeps a copy: the model whose names these are may be gone when the report is read. */
static const char *keep(qx_report *r, const char *s) { return s ? qx_arena_strdup(r->arena, s) : NULL; }

/* The same for what many rows share. */
static const char *word(qx_report *r, const char *s) { return s ? qx_intern(r->words, s) : NULL; }

#define ADD(r, array, count, src) \
    do { \
        void *place_ = slot(r, (void **)&(r)->array, &(r)->count, sizeof *(r)->array); \
        if (!place_) return QX_E_NOMEM; \
        memcpy(place_, src, sizeof *(r)->array); \
    } while (0)

qx_status qx_report_add_node(qx_report *r, const qx_report_node *n)
{
    qx_report_node x = {keep(r, n->name), word(r, n->op), word(r, n->graph), word(r, n->scope), word(r, n->pass), word(r, n->format),
                        word(r, n->reason), keep(r, n->notes), n->float_bytes, n->rescaled};
    ADD(r, nodes, n_nodes, &x);
    return QX_OK;
}

qx_status qx_report_add_tensor(qx_report *r, const qx_report_tensor *t)
{
    qx_report_tensor x = *t;
    x.name = keep(r, t->name);
    x.format = word(r, t->format);
    x.node = keep(r, t->node);
    x.scope = word(r, t->scope);
    ADD(r, tensors, n_tensors, &x);
    return QX_OK;
}

qx_status qx_report_add_output(qx_report *r, const qx_report_output *o)
{
    qx_report_output x = *o;
    x.name = keep(r, o->name);
    x.note = keep(r, o->note);
    ADD(r, outputs, n_outputs, &x);
    return QX_OK;
}

qx_status qx_report_add_layer(qx_report *r, const qx_report_layer *l)
{
    qx_report_layer x = *l;
    x.name = keep(r, l->name);
    x.op = word(r, l->op);
    x.format = word(r, l->format);
    x.scope = word(r, l->scope);
    ADD(r, layers, n_layers, &x);
    return QX_OK;
}

qx_status qx_report_add_stage(qx_report *r, const char *name, double *since)
{
    const double now = qx_clock_seconds();
    qx_report_stage x = {keep(r, name), now - *since, (int64_t)qx_mem_take_peak(r->ctx)};
    *since = now;
    ADD(r, stages, n_stages, &x);
    return QX_OK;
}

qx_status qx_report_add_forecast(qx_report *r, const char *stage, int64_t bytes)
{
    qx_report_need x = {keep(r, stage), bytes};
    ADD(r, forecast, n_forecast, &x);
    return QX_OK;
}

qx_status qx_report_add_point(qx_report *r, const qx_report_point *p)
{
    qx_report_point x = *p;
    x.label = keep(r, p->label);
    x.formats = keep(r, p->formats);
    ADD(r, points, n_points, &x);
    return QX_OK;
}

qx_fate qx_report_fate(const qx_report_node *n)
{
    if (n->format) return QX_FATE_QUANTIZED;
    if (!n->reason || strcmp(n->reason, qx_why_text(QX_WHY_NOT_LINEAR)) == 0) return QX_FATE_NOT_LINEAR;
    return strcmp(n->reason, qx_why_text(QX_WHY_MERGED)) == 0 ? QX_FATE_MERGED : QX_FATE_FLOAT;
}

const char *qx_report_title(const char *name, const char *scope, char *buf, size_t cap)
{
    if (scope && *scope && !strpbrk(name, "/.")) snprintf(buf, cap, "%s (%s)", scope, name);
    else snprintf(buf, cap, "%s", name);
    return buf;
}

static qx_status put_text(qx_jsonw *w, const char *key, const char *value)
{
    return value ? qx_jsonw_string(w, key, value) : qx_jsonw_null(w, key);
}

static qx_status put_head(const qx_report *r, qx_jsonw *w)
{
    QX_TRY(qx_jsonw_string(w, "qonnx", QONNX_VERSION));
    QX_TRY(put_text(w, "input", r->input));
    QX_TRY(put_text(w, "output", r->output));
    QX_TRY(put_text(w, "data", r->data_path));
    QX_TRY(put_text(w, "pipeline", r->pipeline));
    QX_TRY(put_text(w, "samples", r->samples));
    QX_TRY(put_text(w, "device", r->device));
    QX_TRY(qx_jsonw_int(w, "input_bytes", r->input_bytes));
    QX_TRY(qx_jsonw_int(w, "output_bytes", r->output_bytes));
    QX_TRY(qx_jsonw_int(w, "debug_bytes_dropped", r->debug_bytes));
    QX_TRY(qx_jsonw_int(w, "peak_bytes", (int64_t)r->peak_bytes));
    QX_TRY(qx_jsonw_int(w, "peak_rss", r->peak_rss));
    QX_TRY(qx_jsonw_int(w, "expected_bytes", r->expected_bytes));
    QX_TRY(qx_jsonw_number(w, "expected_seconds", r->expected_seconds));
    QX_TRY(put_text(w, "expected_without", r->expected_without));
    QX_TRY(qx_jsonw_int(w, "nodes_quantized", r->n_quantized));
    QX_TRY(qx_jsonw_int(w, "warnings", r->warnings));
    QX_TRY(put_text(w, "verdict", r->verdict));
    QX_TRY(qx_jsonw_begin_array(w, "hints"));
    for (int i = 0; i < r->n_hints; i++) QX_TRY(qx_jsonw_string(w, NULL, r->hints[i]));
    QX_TRY(qx_jsonw_end_array(w));
    QX_TRY(put_text(w, "next", r->next));
    return put_text(w, "verify_note", r->verify_note);
}

static qx_status put_nodes(const qx_report *r, qx_jsonw *w)
{
    QX_TRY(qx_jsonw_begin_array(w, "nodes"));
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "name", n->name));
        QX_TRY(qx_jsonw_string(w, "op", n->op));
        if (n->graph && *n->graph) QX_TRY(qx_jsonw_string(w, "graph", n->graph));
        if (n->scope) QX_TRY(qx_jsonw_string(w, "scope", n->scope));
        if (n->pass) QX_TRY(qx_jsonw_string(w, "pass", n->pass));
        if (n->format) QX_TRY(qx_jsonw_string(w, "format", n->format));
        if (n->reason) QX_TRY(qx_jsonw_string(w, "reason", n->reason));
        if (n->notes) QX_TRY(qx_jsonw_string(w, "notes", n->notes));
        if (n->float_bytes) QX_TRY(qx_jsonw_int(w, "float_bytes", n->float_bytes));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

static qx_status put_tensors(const qx_report *r, qx_jsonw *w)
{
    QX_TRY(qx_jsonw_begin_array(w, "tensors"));
    for (int64_t i = 0; i < r->n_tensors; i++) {
        const qx_report_tensor *t = &r->tensors[i];
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "name", t->name));
        if (t->node) QX_TRY(qx_jsonw_string(w, "node", t->node));
        if (t->scope) QX_TRY(qx_jsonw_string(w, "scope", t->scope));
        QX_TRY(put_text(w, "format", t->format));
        QX_TRY(qx_jsonw_int(w, "bytes_before", t->bytes_before));
        QX_TRY(qx_jsonw_int(w, "bytes_after", t->bytes_after));
        QX_TRY(qx_jsonw_int(w, "n", t->n));
        QX_TRY(qx_jsonw_int(w, "k", t->k));
        QX_TRY(qx_jsonw_int(w, "block", t->block));
        if (isfinite(t->sqnr)) QX_TRY(qx_jsonw_number(w, "sqnr_db", t->sqnr));
        if (isfinite(t->input_sqnr)) QX_TRY(qx_jsonw_number(w, "input_sqnr_db", t->input_sqnr));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

static qx_status put_quality(const qx_report *r, qx_jsonw *w)
{
    QX_TRY(qx_jsonw_begin_array(w, "outputs"));
    for (int64_t i = 0; i < r->n_outputs; i++) {
        const qx_report_output *o = &r->outputs[i];
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "name", o->name));
        QX_TRY(qx_jsonw_number(w, "sqnr_db", o->sqnr_db));
        QX_TRY(qx_jsonw_number(w, "cosine", o->cosine));
        QX_TRY(qx_jsonw_number(w, "max_abs", o->max_abs));
        QX_TRY(qx_jsonw_int(w, "elements", o->count));
        QX_TRY(qx_jsonw_number(w, "equal", o->equal));
        QX_TRY(qx_jsonw_number(w, "same_top1", o->top1));
        QX_TRY(put_text(w, "note", o->note));
        QX_TRY(qx_jsonw_end_object(w));
    }
    QX_TRY(qx_jsonw_end_array(w));
    QX_TRY(qx_jsonw_begin_array(w, "layers"));
    for (int64_t i = 0; i < r->n_layers; i++) {
        const qx_report_layer *l = &r->layers[i];
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "name", l->name));
        if (l->scope) QX_TRY(qx_jsonw_string(w, "scope", l->scope));
        QX_TRY(put_text(w, "op", l->op));
        QX_TRY(put_text(w, "format", l->format));
        QX_TRY(qx_jsonw_number(w, "sqnr_db", l->sqnr_db));
        QX_TRY(qx_jsonw_number(w, "cosine", l->cosine));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

static qx_status put_stages(const qx_report *r, qx_jsonw *w)
{
    QX_TRY(qx_jsonw_begin_array(w, "stages"));
    for (int64_t i = 0; i < r->n_stages; i++) {
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "name", r->stages[i].name));
        QX_TRY(qx_jsonw_number(w, "seconds", r->stages[i].seconds));
        QX_TRY(qx_jsonw_int(w, "peak_bytes", r->stages[i].bytes));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

static qx_status put_forecast(const qx_report *r, qx_jsonw *w)
{
    QX_TRY(qx_jsonw_begin_array(w, "memory_forecast"));
    for (int64_t i = 0; i < r->n_forecast; i++) {
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "stage", r->forecast[i].stage));
        QX_TRY(qx_jsonw_int(w, "bytes", r->forecast[i].bytes));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

static qx_status put_measure(qx_jsonw *w, const char *key, double v)
{
    return isfinite(v) ? qx_jsonw_number(w, key, v) : qx_jsonw_null(w, key);
}

static qx_status put_points(const qx_report *r, qx_jsonw *w)
{
    if (!r->n_points) return QX_OK;
    QX_TRY(qx_jsonw_begin_array(w, "frontier"));
    for (int64_t i = 0; i < r->n_points; i++) {
        const qx_report_point *p = &r->points[i];
        if (!p->shown) continue;
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(put_text(w, "label", p->label));
        QX_TRY(put_text(w, "formats", p->formats));
        QX_TRY(qx_jsonw_int(w, "bytes", p->bytes));
        QX_TRY(qx_jsonw_number(w, "bits_per_weight", p->bits));
        QX_TRY(put_measure(w, "kl", p->kl));
        QX_TRY(put_measure(w, "noise", p->noise));
        QX_TRY(put_measure(w, "measured_kl", p->measured_kl));
        QX_TRY(put_measure(w, "measured_noise", p->measured_noise));
        QX_TRY(qx_jsonw_bool(w, "chosen", p->chosen));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

qx_status qx_report_json(const qx_report *r, qx_buf *out)
{
    qx_jsonw w;
    qx_jsonw_init(&w, out, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(put_head(r, &w));
    QX_TRY(put_stages(r, &w));
    QX_TRY(put_forecast(r, &w));
    QX_TRY(put_quality(r, &w));
    QX_TRY(put_points(r, &w));
    QX_TRY(put_tensors(r, &w));
    QX_TRY(put_nodes(r, &w));
    return qx_jsonw_end_object(&w);
}
