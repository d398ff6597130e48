/* probe.c - see probe.h. Inputs and results of all linear operators are watched; when a result is made, Y += X
 * dW' (and what rounding X does) for operators that are to change. Convolutions and other shapes get noise of the energy that
 * their score says. */
#include "passes/search/probe.h"

#include <math.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/quant.h"
#include "passes/place/rules.h"
#include "passes/search/group.h"
#include "passes/search/probe_effect.h"
#include "passes/search/probe_product.h"

static const int64_t few_weights = 20000000, most_weights = 2000000000;

int64_t qx_probe_samples(int64_t weights) { return weights > most_weights ? 0 : weights < few_weights ? 4 : 1; }

double qx_probe_size(const qx_probe_effect *e) { return isnan(e->kl) ? e->noise : fmax(e->kl, 0); }

/* Of a sample in float. norm[output][rows]: log-sum-exp of each row of logits */
typedef struct held { qx_tensor *out; double **norm; qx_marks *marks; } held;
struct qx_probe {
    qx_ctx *ctx;
    struct qx_pipeline *pipe;
    const qx_stats *stats;
    qx_exec *exec, *own;             /* own: NULL when it is the sweep's */
    qx_probe_runs runs;
    held *ref;                       /* [count] */
    qx_ends ends;                    /* where the outputs are compared */
    bool *logits, any_logits;
    qx_value **watched; int n_watched;
    const qx_probe_change **change;  /* [items]: of this run, or NULL */
    const qx_value **first;          /* [changes]: what the operators that change read */
    float **x; int64_t *x_len;       /* [items]: copies of inputs in this run */
};

/* ---- one operator ---- */

/* Y is X W' with the rows of X in memory order. */
static bool is_product(const qx_plan_item *it, int64_t x_len, int64_t y_len)
{
    const qx_linear *l = it->lin;
    if (!l->plain || !x_len || x_len % l->k) return false;
    return y_len == x_len / l->k * l->n;
}

static qx_status round_product(qx_probe *p, int64_t i, const qx_probe_change *c, float *y)
{
    const qx_plan_item *it = &p->pipe->plan->items[i];
    const qx_linear *l = it->lin;
    const qx_rounded_product d = {.item = it, .change = c, .seen = p->stats ? qx_stats_get(p->stats, l->x) : NULL, .x = p->x[i],
                                  .rows = p->x_len[i] / l->k, .n = l->n, .k = l->k, .alpha = qx_attr_float(l->node, "alpha", 1), .y = y,
                                  .biased = qx_node_in(l->node, 2) != NULL};
    return qx_rounded_product_add(p->ctx, &d);
}

/* Rows of a table are rounded as they are gathered. */
static qx_status round_rows(qx_probe *p, const qx_plan_item *it, const qx_probe_change *c, int64_t n, float *y)
{
    const int64_t k = it->lin->k;
    float *scale;
    QX_TRY(qx_alloc_raw(p->ctx, (size_t)n * sizeof *scale + 1, (void **)&scale));
    qx_spec_fake(c->spec, &(qx_row_tile){.rows = n / k, .k = k, .x = y, .scale = scale});
    qx_free(p->ctx, scale);
    return QX_OK;
}

/* The tensor's memory holds the result from here on: what a watch is allowed to change (runtime/exec.h). */
static qx_status change_result(qx_probe *p, int64_t i, const qx_tensor *t)
{
    const qx_plan_item *it = &p->pipe->plan->items[i];
    const qx_probe_change *c = p->change[i];
    float *y = NULL;
    qx_status st;
    if (t->on_device || !qx_dtype_is_float(t->dtype)) return QX_OK;
    QX_TRY(qx_alloc_raw(p->ctx, (size_t)t->numel * sizeof *y + 1, (void **)&y));
    (void)qx_to_f32(t->dtype, t->data, t->numel, y);
    if (p->x[i] && is_product(it, p->x_len[i], t->numel)) {
        st = round_product(p, i, c, y);
    } else if (it->lin->embedding && c->spec) {
        st = round_rows(p, it, c, t->numel, y);
    } else {
        qx_probe_noise(y, t->numel, c->error);
        st = QX_OK;
    }
    if (st == QX_OK) (void)qx_from_f32(t->dtype, y, t->numel, t->data);
    qx_exec_changed(p->exec);
    qx_free(p->ctx, y);
    qx_free(p->ctx, p->x[i]); /* its one reader is done */
    p->x[i] = NULL;
    return st;
}

static qx_status keep_input(qx_probe *p, int64_t i, const qx_tensor *t)
{
    qx_free(p->ctx, p->x[i]);
    p->x[i] = NULL;
    p->x_len[i] = 0;
    if (t->on_device || p->pipe->plan->items[i].lin->is_conv || !qx_dtype_is_float(t->dtype)) return QX_OK;
    QX_TRY(qx_alloc_raw(p->ctx, (size_t)t->numel * sizeof(float) + 1, (void **)&p->x[i]));
    p->x_len[i] = t->numel;
    (void)qx_to_f32(t->dtype, t->data, t->numel, p->x[i]);
    return QX_OK;
}

bool qx_probe_can_round(const struct qx_pipeline *pipe, const qx_plan_item *it)
{
    const qx_value *v = it->lin->x;
    if (!v->def || v->is_output) return false;
    if (it->skips_too) return true;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_plan_item *reader = qx_plan_item_of(pipe->plan, u->node);
        if (qx_use_reads_values(u) && !(reader && u->index == reader->lin->x_index && qx_item_rounds_x(reader))) return false;
    }
    return true;
}

enum { PIECE = 1 << 16, TILE = 2048 };
typedef struct rounded { const qx_act_codes *codes; const qx_tensor *t; } rounded;

/* A tile at a time: pictures are too large for a copy in float. */
static qx_status round_piece(void *user, int64_t k)
{
    const rounded *r = user;
    const qx_act_codes *c = r->codes;
    const int64_t left = r->t->numel - k * PIECE, end = k * PIECE + (left < PIECE ? left : PIECE);
    for (int64_t i = k * PIECE; i < end; i += TILE) {
        const int64_t n = end - i < TILE ? end - i : TILE;
        const qx_quant q = {.grid = {1, n, 1, n}, .format = {.codes = c->act}, .scale = &c->scale,
                            .zero = c->act == QX_DT_UINT8 ? &c->zero : NULL};
        float x[TILE];
        char *at = (char *)r->t->data + i * qx_dtype_bits(r->t->dtype) / 8;
        (void)qx_to_f32(r->t->dtype, at, n, x);
        (void)qx_fake_quantize(&q, x);
        (void)qx_from_f32(r->t->dtype, x, n, at);
    }
    return QX_OK;
}

/* A value on its grid, where it lies. */
static qx_status round_value(qx_probe *p, const qx_act_codes *c, const qx_tensor *t)
{
    if (t->on_device || !qx_dtype_is_float(t->dtype) || !t->numel) return QX_OK;
    QX_TRY(qx_parallel(p->ctx, (t->numel + PIECE - 1) / PIECE, round_piece, &(rounded){c, t}));
    qx_exec_changed(p->exec);
    return QX_OK;
}

static qx_status on_result(qx_probe *p, int64_t i, const qx_tensor *t)
{
    const qx_probe_change *c = p->change[i];
    if (!c) return QX_OK;
    if (!c->input.act && (c->spec || c->error > 0)) QX_TRY(change_result(p, i, t));
    return c->output.act ? round_value(p, &c->output, t) : QX_OK;
}

static qx_status on_value(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    qx_probe *p = user;
    const qx_plan *plan = p->pipe->plan;
    (void)watch;
    if (v->def) {
        const qx_plan_item *it = qx_plan_item_of(plan, v->def);
        if (it) QX_TRY(on_result(p, it - plan->items, t));
    }
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_plan_item *it = qx_plan_item_of(plan, u->node);
        const qx_probe_change *c = it && u->index == it->lin->x_index ? p->change[it - plan->items] : NULL;
        if (c && c->input.act) return round_value(p, &c->input, t); /* all readers share one grid */
        if (c) QX_TRY(keep_input(p, it - plan->items, t));
    }
    return QX_OK;
}

/* ---- effect ---- */

static bool is_compared(const qx_probe *p, int o, const qx_tensor *t)
{
    return !t->is_sequence && !t->is_optional && qx_dtype_is_float(t->dtype) && (!p->any_logits || p->logits[o]) && t->numel > 0;
}

static qx_status compare(qx_probe *p, const held *h, const qx_tensor *got, qx_effect_sums *s)
{
    for (int o = 0; o < p->ends.n; o++)
        if (is_compared(p, o, &h->out[o]) && h->out[o].numel == got[o].numel)
            QX_TRY(qx_effect_compare(p->ctx, &h->out[o], h->norm[o], &got[o], s));
    return QX_OK;
}

static void free_outputs(qx_probe *p, qx_tensor *out)
{
    for (int i = 0; out && i < p->ends.n; i++) qx_tensor_free(p->ctx, &out[i]);
    qx_free(p->ctx, out);
}

static qx_status run_sample(qx_probe *p, int64_t i, qx_tensor **out)
{
    const qx_feed *feeds;
    int n;
    QX_TRY(qx_check_cancel(p->ctx));
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->ends.n + 1, sizeof **out, (void **)out));
    qx_samples *all = p->pipe->samples;
    qx_samples_half(all, p->runs.half);
    const qx_status st = qx_samples_get(all, i * qx_samples_count(all) / p->runs.count, &feeds, &n);
    qx_samples_half(all, false);
    QX_TRY(st);
    return qx_exec_run(p->exec, feeds, n, p->ends.names, p->ends.n, *out);
}

static void forget(qx_probe *p)
{
    const int64_t n = p->pipe->plan->linears.count;
    for (int64_t i = 0; i < n; i++) {
        if (p->x) qx_free(p->ctx, p->x[i]);
        if (p->x) p->x[i] = NULL;
        if (p->change) p->change[i] = NULL;
    }
}

qx_status qx_probe_run(qx_probe *p, const qx_probe_change *changes, int64_t n, qx_probe_effect *out)
{
    qx_effect_sums s = {0};
    qx_status st = QX_OK;
    for (int64_t i = 0; i < n; i++) {
        p->change[changes[i].item] = &changes[i];
        p->first[i] = p->pipe->plan->items[changes[i].item].lin->x;
    }
    for (int64_t i = 0; i < p->runs.count && st == QX_OK; i++) {
        qx_tensor *got = NULL;
        qx_exec_begin(p->exec, p->ref[i].marks, p->first, (int)n);
        st = run_sample(p, i, &got);
        if (st == QX_OK) st = compare(p, &p->ref[i], got, &s);
        free_outputs(p, got);
    }
    forget(p);
    *out = qx_effect_of(&s);
    return st;
}

/* ---- making one ---------------------------------------------------------------------------------------------------------------- */

/* Inputs and results of linear operators with a weight, in bodies of If and Loop too. */
static qx_status watch(qx_probe *p)
{
    const qx_plan *plan = p->pipe->plan;
    const uint32_t n_values = p->pipe->model->n_values;
    uint8_t *seen;
    QX_TRY(qx_alloc(p->ctx, n_values + 1u, (void **)&seen));
    qx_status st = qx_alloc_array(p->ctx, (size_t)(2 * plan->linears.count) + 1, sizeof *p->watched, (void **)&p->watched);
    for (int64_t i = 0; i < plan->linears.count && st == QX_OK; i++) {
        const qx_linear *l = plan->items[i].lin;
        qx_value *v[2] = {l->x, l->node->out[0]};
        for (int j = 0; j < 2 && plan->items[i].weight; j++)
            if (v[j] && p->ends.can[v[j]->id] && !seen[v[j]->id])
                seen[v[j]->id] = 1, p->watched[p->n_watched++] = v[j];
    }
    qx_free(p->ctx, seen);
    return st == QX_OK ? qx_exec_watch(p->exec, p->watched, p->n_watched, on_value, p) : st;
}

static void find_logits(qx_probe *p)
{
    const qx_plan *plan = p->pipe->plan;
    for (int i = 0; i < p->ends.n; i++) {
        const qx_value *v = qx_graph_find(p->pipe->model->graph, p->ends.names[i]);
        p->logits[i] = strcmp(p->ends.names[i], "logits") == 0;
        for (int64_t k = 0; k < plan->linears.count && !p->logits[i]; k++) p->logits[i] = qx_rule_head_output(plan->items[k].lin) == v;
        p->any_logits = p->any_logits || p->logits[i];
    }
}

/* Log sums of the float logits, which every comparison needs. */
static qx_status norms(qx_probe *p, held *h)
{
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->ends.n + 1, sizeof *h->norm, (void **)&h->norm));
    for (int o = 0; o < p->ends.n; o++)
        if (p->logits[o] && is_compared(p, o, &h->out[o])) QX_TRY(qx_effect_norms(p->ctx, &h->out[o], &h->norm[o]));
    return QX_OK;
}

static void free_held(qx_probe *p, held *h)
{
    free_outputs(p, h->out);
    qx_marks_free(h->marks);
    for (int o = 0; h->norm && o < p->ends.n; o++) qx_free(p->ctx, h->norm[o]);
    qx_free(p->ctx, h->norm);
}

static qx_status open_exec(qx_probe *p)
{
    const qx_exec_options eo = {.device = QX_DEVICE_CPU, .only_watched = true};
    if (!p->pipe->exec) QX_TRY(qx_exec_new(p->ctx, p->pipe->model, &eo, &p->own));
    p->exec = p->own ? p->own : p->pipe->exec;
    return QX_OK;
}

static qx_status make(qx_probe *p)
{
    const size_t items = (size_t)p->pipe->plan->linears.count + 1;
    QX_TRY(qx_exec_ends(p->ctx, p->pipe->model, &p->ends));
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->runs.count, sizeof *p->ref, (void **)&p->ref));
    QX_TRY(qx_alloc_array(p->ctx, (size_t)p->ends.n + 1, sizeof *p->logits, (void **)&p->logits));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->change, (void **)&p->change));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->first, (void **)&p->first));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->x, (void **)&p->x));
    QX_TRY(qx_alloc_array(p->ctx, items, sizeof *p->x_len, (void **)&p->x_len));
    find_logits(p);
    QX_TRY(open_exec(p));
    QX_TRY(watch(p));
    for (int64_t i = 0; i < p->runs.count; i++) {
        QX_TRY(qx_marks_new(p->ctx, p->runs.begins, p->runs.n_begins, &p->ref[i].marks));
        qx_exec_mark(p->exec, p->ref[i].marks);
        QX_TRY(run_sample(p, i, &p->ref[i].out));
        QX_TRY(norms(p, &p->ref[i]));
    }
    return QX_OK;
}

qx_status qx_probe_new(struct qx_pipeline *pipe, const qx_stats *stats, const qx_probe_runs *runs, qx_probe **out)
{
    qx_probe *p;
    *out = NULL;
    QX_TRY(QX_NEW(pipe->ctx, &p));
    *p = (qx_probe){.ctx = pipe->ctx, .pipe = pipe, .stats = stats, .runs = *runs};
    if (p->runs.count > qx_samples_count(pipe->samples)) p->runs.count = qx_samples_count(pipe->samples);
    qx_status st = make(p);
    if (st == QX_OK) *out = p;
    else qx_probe_free(p);
    return st;
}

void qx_probe_free(qx_probe *p)
{
    if (!p) return;
    forget(p);
    qx_exec_free(p->own);
    for (int64_t i = 0; p->ref && i < p->runs.count; i++) free_held(p, &p->ref[i]);
    qx_ends_free(p->ctx, &p->ends);
    void *list[] = {p->ref, p->logits, p->watched, p->change, p->first, p->x, p->x_len};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) qx_free(p->ctx, list[i]);
    qx_free(p->ctx, p);
}
