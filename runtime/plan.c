/* plan.c - turns graphs into steps: what is needed, in which order, and which values die where.
 *
 * Every graph of the model (subgraphs and function bodies too) is planned before anything runs, so that an operator without a kernel is
 * reported by node name at once. Nodes that nothing needs are left out. */
#include <string.h>

#include "runtime/device/device.h"
#include "runtime/fuse/fuse.h"

typedef struct id_list { uint32_t *ids; int64_t n, cap; } id_list;

static qx_status list_add(qx_exec *x, id_list *l, uint32_t id)
{
    QX_TRY(qx_grow(x->ctx, (void **)&l->ids, l->n, &l->cap, sizeof *l->ids));
    l->ids[l->n++] = id;
    return QX_OK;
}

static bool inside(const qx_graph *g, const qx_graph *outer)
{
    for (; g; g = g->parent)
        if (g == outer) return true;
    return false;
}

/* Values from outside of `body` that it, or a graph inside it, reads. */
static qx_status body_captures(qx_exec *x, const qx_graph *body, const qx_graph *top, id_list *l)
{
    QX_FOR_NODES(body, n) {
        for (uint32_t i = 0; i < n->n_in; i++)
            if (n->in[i] && !inside(n->in[i]->graph, top)) QX_TRY(list_add(x, l, n->in[i]->id));
        for (uint32_t i = 0; i < n->n_attrs; i++) {
            if (n->attrs[i].graph) QX_TRY(body_captures(x, n->attrs[i].graph, top, l));
            for (int64_t k = 0; n->attrs[i].graphs && k < n->attrs[i].n; k++) QX_TRY(body_captures(x, n->attrs[i].graphs[k], top, l));
        }
    }
    for (uint32_t i = 0; i < body->n_outputs; i++)
        if (!inside(body->outputs[i]->graph, top)) QX_TRY(list_add(x, l, body->outputs[i]->id));
    return QX_OK;
}

static qx_status step_captures(qx_exec *x, const qx_node *n, id_list *l)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const qx_attr *a = &n->attrs[i];
        if (a->graph) QX_TRY(body_captures(x, a->graph, a->graph, l));
        for (int64_t k = 0; a->graphs && k < a->n; k++) QX_TRY(body_captures(x, a->graphs[k], a->graphs[k], l));
    }
    return QX_OK;
}

qx_status qx_plan_mark_inputs(qx_exec *x, const qx_rstep *s, uint8_t *need)
{
    id_list l = {0};
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->in[i] != QX_NO_VALUE) need[s->in[i]] = 1;
    qx_status st = step_captures(x, s->node, &l);
    for (int64_t i = 0; i < l.n; i++) need[l.ids[i]] = 1;
    qx_free(x->ctx, l.ids);
    return st;
}

static bool has_refs(const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (n->attrs[i].ref_name) return true;
    return false;
}

const qx_function *qx_plan_function(const qx_model *m, const qx_node *n)
{
    for (uint32_t i = 0; i < m->n_functions; i++) {
        const qx_function *f = m->functions[i];
        const char *fo = f->overload ? f->overload : "", *no = n->overload ? n->overload : "";
        if (f->name == n->op_type && strcmp(f->domain, n->domain) == 0 && strcmp(fo, no) == 0) return f;
    }
    return NULL;
}

static qx_status step_fill(qx_exec *x, qx_rstep *s, const qx_node *n)
{
    s->node = n;
    s->n_in = n->n_in;
    s->n_out = n->n_out;
    s->in = qx_arena_array(x->mem, n->n_in + 1, sizeof *s->in);
    s->out = qx_arena_array(x->mem, n->n_out + 1, sizeof *s->out);
    s->in_value = qx_arena_array(x->mem, n->n_in + 1, sizeof *s->in_value);
    s->out_value = qx_arena_array(x->mem, n->n_out + 1, sizeof *s->out_value);
    s->cache_at = qx_arena_array(x->mem, n->n_out + 1, sizeof *s->cache_at);
    if (!s->in || !s->out || !s->in_value || !s->out_value || !s->cache_at)
        QX_FAIL(x->ctx, QX_E_NOMEM, "plan of %u inputs: out of memory", n->n_in);
    for (uint32_t i = 0; i < n->n_in; i++) {
        s->in[i] = n->in[i] ? n->in[i]->id : QX_NO_VALUE;
        s->in_value[i] = n->in[i];
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        s->out[i] = n->out[i] ? n->out[i]->id : QX_NO_VALUE;
        s->out_value[i] = n->out[i];
        s->cache_at[i] = QX_NO_VALUE;
        if (n->out[i] && x->info[n->out[i]->id].watched) s->watched = true;
    }
    s->ref_attrs = has_refs(n);
    const qx_function *f = qx_plan_function(x->model, n);
    s->fn = f ? qx_cpu_function_call : qx_cpu_find(n->op);
    if (s->fn == qx_cpu_none)
        QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "node '%s': operator %s%s%s has no CPU kernel", n->name, n->domain, *n->domain ? "." : "",
                n->op_type);
    if (f) {
        qx_gplan *body;
        QX_TRY(qx_plan_graph(x, f->body, &body));
    }
    return QX_OK;
}

static qx_status plan_subgraphs(qx_exec *x, const qx_node *n)
{
    qx_gplan *p;
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const qx_attr *a = &n->attrs[i];
        if (a->graph) QX_TRY(qx_plan_graph(x, a->graph, &p));
        for (int64_t k = 0; a->graphs && k < a->n; k++) QX_TRY(qx_plan_graph(x, a->graphs[k], &p));
    }
    return QX_OK;
}

bool qx_holds_watched(const qx_exec *x, const qx_node *n)
{
    if (!(n->op->traits & QX_T_CONTROL)) return false;
    for (int i = 0; i < x->n_watch; i++)
        for (const qx_graph *g = x->watch[i]->graph; g && g->owner; g = g->owner->graph)
            if (g->owner == n) return true;
    return false;
}

/* Marks what the outputs need, walking backwards; need[] is by value id. */
static qx_status mark_needed(qx_exec *x, const qx_graph *g, uint8_t *need, bool *node_needed)
{
    for (uint32_t i = 0; i < g->n_outputs && qx_outputs_wanted(x, g); i++) need[g->outputs[i]->id] = 1;
    qx_status st = QX_OK;
    id_list caps = {0};
    uint32_t k = g->n_nodes;
    for (const qx_node *n = g->last; n && k > 0 && st == QX_OK; n = n->prev) {
        bool used = qx_holds_watched(x, n);
        k--;
        for (uint32_t i = 0; i < n->n_out; i++)
            used = used || (n->out[i] && (need[n->out[i]->id] || x->info[n->out[i]->id].keep || x->info[n->out[i]->id].watched));
        node_needed[k] = used;
        if (!used) continue;
        for (uint32_t i = 0; i < n->n_in; i++)
            if (n->in[i]) need[n->in[i]->id] = 1;
        caps.n = 0;
        st = step_captures(x, n, &caps);
        for (int64_t i = 0; i < caps.n; i++) need[caps.ids[i]] = 1;
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) x->info[g->inputs[i]->id].needed = need[g->inputs[i]->id];
    qx_free(x->ctx, caps.ids);
    return st;
}

static qx_status make_steps(qx_exec *x, qx_gplan *p)
{
    const qx_graph *g = p->graph;
    uint8_t *need = NULL;
    bool *node_needed = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, 1, (void **)&need));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, g->n_nodes + 1, 1, (void **)&node_needed));
    QX_TRY_GOTO(st, mark_needed(x, g, need, node_needed));
    p->steps = qx_arena_array(x->mem, g->n_nodes + 1, sizeof *p->steps);
    if (!p->steps) QX_TRY_GOTO(st, qx_fail(x->ctx, QX_E_NOMEM, "plan of %u nodes: out of memory", g->n_nodes));
    uint32_t k = 0;
    QX_FOR_NODES(g, n) {
        if (k >= g->n_nodes) break;
        if (!node_needed[k++]) continue;
        QX_TRY_GOTO(st, step_fill(x, &p->steps[p->n_steps], n));
        p->n_steps++;
        QX_TRY_GOTO(st, plan_subgraphs(x, n));
    }
done:
    qx_free(x->ctx, need);
    qx_free(x->ctx, node_needed);
    return st;
}

typedef struct liveness { uint8_t *seen, *mine, *is_out; id_list dying; } liveness;

/* A value may be released by the steps of the graph that owns it; constants, outputs and kept values never. */
static bool releasable(const qx_exec *x, const liveness *lv, uint32_t id)
{
    return lv->mine[id] && !lv->is_out[id] && !x->info[id].keep && x->info[id].content != QX_CLASS_CONST;
}

static qx_status step_release(qx_exec *x, qx_rstep *s, liveness *lv)
{
    id_list *d = &lv->dying;
    d->n = 0;
    QX_TRY(step_captures(x, s->node, d));
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->in[i] != QX_NO_VALUE) QX_TRY(list_add(x, d, s->in[i]));
    for (uint32_t i = 0; i < s->n_out; i++)
        if (s->out[i] != QX_NO_VALUE) QX_TRY(list_add(x, d, s->out[i]));
    s->release = qx_arena_array(x->mem, d->n + 1, sizeof *s->release);
    if (!s->release) QX_FAIL(x->ctx, QX_E_NOMEM, "plan: out of memory");
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t id = d->ids[i];
        if (lv->seen[id] || !releasable(x, lv, id)) continue;
        lv->seen[id] = 1;
        s->release[s->n_release++] = id;
    }
    return QX_OK;
}

/* Walks backwards: the first sight of a value is its last use. */
static qx_status find_last_uses(qx_exec *x, qx_gplan *p)
{
    liveness lv = {0};
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, 1, (void **)&lv.seen));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, 1, (void **)&lv.mine));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, 1, (void **)&lv.is_out));
    for (uint32_t i = 0; i < p->graph->n_outputs; i++) lv.is_out[p->graph->outputs[i]->id] = 1;
    for (uint32_t i = 0; i < p->graph->n_inputs; i++) lv.mine[p->graph->inputs[i]->id] = 1;
    for (uint32_t i = 0; i < p->n_steps; i++)
        for (uint32_t k = 0; k < p->steps[i].n_out; k++)
            if (p->steps[i].out[k] != QX_NO_VALUE) lv.mine[p->steps[i].out[k]] = 1;
    for (uint32_t i = p->n_steps; i-- > 0;) QX_TRY_GOTO(st, step_release(x, &p->steps[i], &lv));
done:
    qx_free(x->ctx, lv.seen);
    qx_free(x->ctx, lv.mine);
    qx_free(x->ctx, lv.is_out);
    qx_free(x->ctx, lv.dying.ids);
    return st;
}

static void count_consumers(qx_exec *x, const qx_gplan *p)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        for (uint32_t k = 0; k < p->steps[i].n_in; k++)
            if (p->steps[i].in[k] != QX_NO_VALUE) x->info[p->steps[i].in[k]].consumers++;
    for (uint32_t i = 0; i < p->graph->n_outputs; i++) x->info[p->graph->outputs[i]->id].consumers++;
}

/* SHAPE values that a DATA step (or the graph's interface) reads: what a shape plan keeps. */
static qx_status list_cache(qx_exec *x, qx_gplan *p)
{
    uint8_t *want = NULL;
    id_list l = {0};
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, 1, (void **)&want));
    for (uint32_t i = 0; i < p->graph->n_outputs; i++) want[p->graph->outputs[i]->id] = 1;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const qx_rstep *s = &p->steps[i];
        if (s->klass != QX_CLASS_DATA) continue;
        for (uint32_t k = 0; k < s->n_in; k++)
            if (s->in[k] != QX_NO_VALUE) want[s->in[k]] = 1;
        l.n = 0;
        QX_TRY_GOTO(st, step_captures(x, s->node, &l));
        for (uint32_t k = 0; k < l.n; k++) want[l.ids[k]] = 1;
    }
    l.n = 0;
    for (uint32_t i = 0; i < p->n_steps; i++)
        for (uint32_t k = 0; p->steps[i].klass == QX_CLASS_SHAPE && k < p->steps[i].n_out; k++) {
            uint32_t id = p->steps[i].out[k];
            if (id == QX_NO_VALUE || (!want[id] && !x->info[id].keep)) continue;
            p->steps[i].cache_at[k] = l.n;
            QX_TRY_GOTO(st, list_add(x, &l, id));
        }
    p->cache = qx_arena_array(x->mem, l.n + 1, sizeof *p->cache);
    if (!p->cache) QX_TRY_GOTO(st, qx_fail(x->ctx, QX_E_NOMEM, "plan: out of memory"));
    for (int64_t i = 0; i < l.n; i++) p->cache[p->n_cache++] = l.ids[i];
done:
    qx_free(x->ctx, want);
    qx_free(x->ctx, l.ids);
    return st;
}

qx_status qx_plan_graph(qx_exec *x, const qx_graph *g, qx_gplan **out)
{
    for (uint32_t i = 0; i < x->n_gplans; i++)
        if (x->gplans[i]->graph == g) {
            *out = x->gplans[i];
            return QX_OK;
        }
    QX_TRY(qx_grow(x->ctx, (void **)&x->gplans, x->n_gplans, &x->cap_gplans, sizeof *x->gplans));
    qx_gplan *p = qx_arena_alloc(x->mem, sizeof *p);
    if (!p) QX_FAIL(x->ctx, QX_E_NOMEM, "plan: out of memory");
    p->graph = g;
    x->gplans[x->n_gplans++] = p;
    QX_TRY(make_steps(x, p));
    *out = p;
    return QX_OK;
}

/* ---- Streamed weights ---- */

/* Every output is made of weights alone and read anew for each use. */
static bool is_streamed(const qx_exec *x, const qx_rstep *s)
{
    bool any = false;
    for (uint32_t k = 0; k < s->n_out; k++) {
        if (s->out[k] == QX_NO_VALUE) continue;
        if (!x->info[s->out[k]].streamed) return false;
        any = true;
    }
    return any;
}

/* place[i]: index of the step that i stands in front of; its own unless it only prepares a weight. Backwards, so that readers are
 * placed first. */
static qx_status place_steps(qx_exec *x, const qx_gplan *p, uint32_t *first_reader, uint32_t *place)
{
    id_list captured = {0};
    qx_status st = QX_OK;
    for (uint32_t i = 0; i < x->n_values; i++) first_reader[i] = QX_NO_VALUE;
    for (uint32_t i = p->n_steps; st == QX_OK && i-- > 0;) {
        const qx_rstep *s = &p->steps[i];
        uint32_t at = i;
        for (uint32_t k = 0; k < s->n_out && is_streamed(x, s); k++)
            if (s->out[k] != QX_NO_VALUE && first_reader[s->out[k]] != QX_NO_VALUE && (at == i || first_reader[s->out[k]] < at))
                at = first_reader[s->out[k]];
        place[i] = at;
        captured.n = 0;
        st = step_captures(x, s->node, &captured);
        for (uint32_t k = 0; k < captured.n; k++) first_reader[captured.ids[k]] = at;
        for (uint32_t k = 0; k < s->n_in; k++)
            if (s->in[k] != QX_NO_VALUE && (first_reader[s->in[k]] == QX_NO_VALUE || at < first_reader[s->in[k]]))
                first_reader[s->in[k]] = at;
    }
    qx_free(x->ctx, captured.ids);
    return st;
}

/* Exporters and quantizers write what prepares weights (DequantizeLinear, Transpose) at the head of the file. Run in that order,
 * all weights of a model that is streamed would be there at once: each goes to its first reader instead. */
static qx_status delay_weights(qx_exec *x, qx_gplan *p)
{
    uint32_t *first_reader = NULL, *place = NULL, *start = NULL;
    qx_rstep *moved = NULL;
    qx_status st;
    if (!x->opt.stream_weights || !p->n_steps) return QX_OK;
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, sizeof *first_reader, (void **)&first_reader));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, p->n_steps, sizeof *place, (void **)&place));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, p->n_steps + 1, sizeof *start, (void **)&start));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, p->n_steps, sizeof *moved, (void **)&moved));
    QX_TRY_GOTO(st, place_steps(x, p, first_reader, place));
    for (uint32_t i = 0; i < p->n_steps; i++) start[place[i] + 1]++;
    for (uint32_t i = 0; i < p->n_steps; i++) start[i + 1] += start[i];
    /* in order: the reader, the last of its place, comes last */
    for (uint32_t i = 0; i < p->n_steps; i++) moved[start[place[i]]++] = p->steps[i];
    memcpy(p->steps, moved, p->n_steps * sizeof *moved);
done:
    qx_free(x->ctx, first_reader);
    qx_free(x->ctx, place);
    qx_free(x->ctx, start);
    qx_free(x->ctx, moved);
    return st;
}

qx_status qx_plan_build(qx_exec *x)
{
    x->plan_number++;
    for (uint32_t i = 0; i < x->model->graph->n_outputs && !x->no_outputs; i++) x->info[x->model->graph->outputs[i]->id].keep = true;
    for (int i = 0; i < x->n_keep; i++) x->info[x->keep_ids[i]].keep = true;
    for (int i = 0; i < x->n_watch; i++) x->info[x->watch[i]->id].watched = true;
    QX_TRY(qx_plan_graph(x, x->model->graph, &x->main));
    for (uint32_t i = 0; i < x->n_gplans && !x->opt.no_fuse; i++) QX_TRY(qx_fuse(x, x->gplans[i]));
    for (uint32_t i = 0; i < x->n_gplans; i++) {
        qx_classify(x, x->gplans[i], x->gplans[i] == x->main);
        QX_TRY(delay_weights(x, x->gplans[i]));
        if (x->gplans[i] == x->main && !x->opt.no_fuse && !x->device) {
            QX_TRY(qx_plan_wide(x, x->main));
            QX_TRY(qx_plan_layout(x, x->main));
        }
        QX_TRY(find_last_uses(x, x->gplans[i]));
        count_consumers(x, x->gplans[i]);
    }
    QX_TRY(list_cache(x, x->main));
    if (x->device) QX_TRY(qx_device_place(x));
    qx_take_packed(x);
    x->planned = true;
    return QX_OK;
}

static void free_states(qx_exec *x)
{
    for (uint32_t i = 0; i < x->n_gplans; i++)
        for (uint32_t k = 0; k < x->gplans[i]->n_steps; k++) {
            qx_rstep *s = &x->gplans[i]->steps[k];
            if (s->state && s->drop) s->drop(x->ctx, s->state);
            qx_free(x->ctx, s->state);
            s->state = NULL;
        }
}

void qx_plan_free(qx_exec *x)
{
    for (int i = 0; i < QX_SHAPE_PLANS; i++) qx_shape_plan_reset(x, &x->plans[i]);
    for (uint32_t i = 0; x->slots && i < x->n_values; i++) qx_slot_clear(x, &x->slots[i]);
    free_states(x);
    qx_free(x->ctx, x->gplans);
    x->gplans = NULL;
    x->n_gplans = x->cap_gplans = 0;
    x->main = NULL;
    if (x->mem) qx_arena_free(x->mem);
    x->mem = NULL;
    if (x->info) memset(x->info, 0, x->n_values * sizeof *x->info);
    x->planned = false;
}
