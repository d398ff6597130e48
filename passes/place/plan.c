/* plan.c - one item per linear operator: who quantizes it, or why nobody does. Patterns first, then default rules. */
#include "passes/place/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "onnx/file/io.h"
#include "onnx/weight/weight.h"
#include "passes/place/emit.h"
#include "passes/place/rules.h"

/* ---- patterns ----------------------------------------------------------------------------------------------------- */

typedef struct pattern { const char *text; const char *op; qx_pattern *names; int64_t hits; bool any; } pattern;
typedef struct patterns { pattern *items; int n; } patterns;
typedef struct filters { patterns include, exclude, settings; } filters;

static qx_status add_pattern(qx_ctx *ctx, const char *text, pattern *p)
{
    *p = (pattern){.text = text, .op = strncmp(text, "op:", 3) == 0 ? text + 3 : NULL};
    return qx_pattern_new(ctx, p->op ? p->op : text, &p->names);
}

/* A glob that starts with neither '/' nor '*' may start at any component of the path: "lm_head*" finds "/model/lm_head/MatMul". */
static bool hits_name(pattern *p, const char *name)
{
    if (qx_pattern_matches(p->names, name)) return true;
    if (p->text[0] == '/' || p->text[0] == '*') return false;
    for (const char *s = name; *s; s++)
        if ((*s == '/' || *s == '.') && s[1] && qx_pattern_matches(p->names, s + 1)) return true;
    return false;
}

static bool pattern_hits_node(pattern *p, const qx_node *n)
{
    return p->op ? qx_pattern_matches(p->names, n->op_type) : hits_name(p, n->name) || (n->scope && hits_name(p, n->scope));
}

static bool pattern_hits(pattern *p, const qx_linear *l)
{
    bool hit = pattern_hits_node(p, l->node) || (!p->op && l->w_init && hits_name(p, l->w_init->name));
    p->hits += hit;
    return hit;
}

/* Index of the last pattern that matches, -1 for none; all are tried so that every pattern's hits are counted. */
static int last_match(patterns *ps, const qx_linear *l)
{
    int last = -1;
    for (int i = 0; i < ps->n; i++)
        if (pattern_hits(&ps->items[i], l)) last = i;
    return last;
}

static qx_status compile(qx_ctx *ctx, const char *const *texts, int n, patterns *out)
{
    QX_TRY(qx_alloc_array(ctx, (size_t)n, sizeof *out->items, (void **)&out->items));
    for (; out->n < n; out->n++) QX_TRY(add_pattern(ctx, texts[out->n], &out->items[out->n]));
    return QX_OK;
}

static void free_patterns(qx_ctx *ctx, patterns *ps)
{
    for (int i = 0; i < ps->n; i++) qx_pattern_free(ps->items[i].names);
    qx_free(ctx, ps->items);
}

static qx_status find_any(void *user, qx_node *n)
{
    pattern *p = user;
    if (p->any) return QX_OK;
    p->any = pattern_hits_node(p, n);
    for (uint32_t i = 0; i < n->n_in && !p->any && !p->op; i++) p->any = n->in[i] && n->in[i]->init && hits_name(p, n->in[i]->name);
    return QX_OK;
}

/* The components of a node's or weight's name, of which the pattern may have meant one. */
static void offer_name(qx_nearest *near, const char *name)
{
    for (size_t n; *name; name += n + (name[n] != 0)) {
        n = strcspn(name, "/.");
        if (n) qx_nearest_offer(near, name, n);
    }
}

static qx_status offer_node(void *user, qx_node *n)
{
    qx_nearest *near = user;
    offer_name(near, n->name);
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] && n->in[i]->init) offer_name(near, n->in[i]->name);
    return QX_OK;
}

/* "; did you mean X?" for the longest piece of the pattern between its stars, slashes and dots. */
static const char *guess_name(qx_pipeline *pipe, const pattern *p, char *out, size_t cap)
{
    const char *best = p->text;
    size_t len = 0;
    for (const char *s = p->text; *s; s += strcspn(s, "*/."), s += strspn(s, "*/.")) {
        const size_t n = strcspn(s, "*/.");
        if (n > len) best = s, len = n;
    }
    qx_nearest near = qx_nearest_to(best, len);
    if (!p->op) (void)qx_model_each_node(pipe->model, offer_node, &near);
    return near.edits ? qx_nearest_text(&near, "", out, cap) : "";
}

/* A pattern that found no linear operator: nothing in the model at all is an error; only others are a warning (--set: an error). */
static qx_status check_hits(qx_pipeline *pipe, patterns *ps, const char *option, bool strict)
{
    for (int i = 0; i < ps->n; i++) {
        pattern *p = &ps->items[i];
        char hint[120];
        if (p->hits) continue;
        QX_TRY(qx_model_each_node(pipe->model, find_any, p));
        if (!p->any || strict)
            QX_FAIL(pipe->ctx, QX_E_USAGE,
                    "--%s '%s' matches no %s of the model%s (%lld linear operators; qonnx inspect --nodes lists names)", option, p->text,
                    p->any ? "linear operator" : "node or weight", guess_name(pipe, p, hint, sizeof hint),
                        (long long)pipe->plan->linears.count);
        qx_warn(pipe->ctx, "--%s '%s' matches nodes, but none of them can be quantized", option, p->text);
    }
    return QX_OK;
}

/* ---- decisions ---------------------------------------------------------------------------------------------------- */

void qx_item_keep(qx_pipeline *pipe, qx_plan_item *it, qx_why why, const char *fmt, ...)
{
    char text[200] = "";
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
    }
    it->pass = NULL;
    it->act = QX_DT_UNDEFINED;
    it->dynamic = QX_DYNAMIC_NONE;
    it->why = why;
    it->detail = text[0] ? qx_arena_strdup(pipe->model->arena, text) : NULL;
}

qx_status qx_item_note(struct qx_pipeline *pipe, qx_plan_item *it, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    it->notes = it->notes ? qx_arena_printf(pipe->model->arena, "%s; %s", it->notes, text) : qx_arena_strdup(pipe->model->arena, text);
    return it->notes ? QX_OK : QX_E_NOMEM;
}

qx_status qx_item_unobserved(struct qx_pipeline *pipe, qx_plan_item *it, const char *text)
{
    return pipe->no_stats ? QX_OK : qx_item_note(pipe, it, "%s", text);
}

static qx_pass *main_format(const qx_pipeline *pipe)
{
    for (int i = 0; i < pipe->n_passes; i++)
        if (pipe->passes[i]->def->flags & QX_PASS_FORMAT) return pipe->passes[i];
    return NULL;
}

/* What the command line says about this node; false when it settles the matter as "stays float". */
static bool apply_patterns(qx_pipeline *pipe, filters *f, qx_plan_item *it)
{
    int set = last_match(&f->settings, it->lin);
    int excluded = last_match(&f->exclude, it->lin);
    int included = last_match(&f->include, it->lin);
    it->pass = main_format(pipe);
    if (set >= 0) {
        it->pass = pipe->settings[set];
        it->asked = it->forced = it->pass != NULL;
        if (!it->pass) qx_item_keep(pipe, it, QX_WHY_EXCLUDED, "--set %s=float", f->settings.items[set].text);
        return it->asked;
    }
    if (excluded >= 0) { qx_item_keep(pipe, it, QX_WHY_EXCLUDED, "--exclude %s", f->exclude.items[excluded].text); return false; }
    if (f->include.n && included < 0) { qx_item_keep(pipe, it, QX_WHY_NOT_INCLUDED, NULL); return false; }
    it->asked = included >= 0;
    return true;
}

/* A default rule would keep it in float: an embedding, a recurrence or a head gets INT8 rows instead, unless a mix chooses the head's
 * format; where what stays float takes a share of the file, so does that. */
static bool take_table(qx_pipeline *pipe, qx_plan_item *it, bool vision, const char **what)
{
    const qx_linear *l = it->lin;
    const bool table = qx_rule_is_table(l), of_mix = table && !l->embedding && !l->recurrent;
    if (!pipe->tables || (of_mix && it->pass->def->flags & QX_PASS_MIXES)) return false;
    if (!table && !(pipe->plan->store_kept && qx_rule_may_store(l, vision, pipe->opt->target, &pipe->plan->batch))) return false;
    const char *why = table ? qx_rule_float_table(l, pipe->plan->bytes) : NULL;
    const qx_qspec rows = {.codes = QX_DT_INT8, .scale = l->w->dtype, .block = l->k};
    if (!why && qx_rule_needs_blocks(l, pipe->opt->target) && !qx_emit_may(pipe, qx_emit_need(&rows)))
        why = "blocks need a newer opset or IR version";
    if (why) {
        const char *text = qx_arena_printf(pipe->model->arena, "%s, %s", *what, why);
        if (text) *what = text;
        return false;
    }
    if (!table) {
        const char *note = qx_arena_printf(pipe->model->arena, "%s: computed in float", *what);
        it->notes = note ? note : "computed in float";
    }
    it->pass = pipe->tables;
    return it->table = it->weight_only = true;
}

/* Whether 8 bits of all that stays float by its name take a share off the file. */
static bool kept_is_large(const qx_pipeline *pipe, bool vision)
{
    enum { ONE_IN = 50 };
    int64_t saved = 0;
    for (int64_t i = 0; i < pipe->plan->linears.count; i++) {
        const qx_linear *l = pipe->plan->items[i].lin;
        if (l->w && qx_dtype_is_real(l->w->dtype) && qx_rule_may_store(l, vision, pipe->opt->target, &pipe->plan->batch))
            saved += (int64_t)l->w->bytes - l->w->numel;
    }
    return !pipe->stores_rest && saved >= pipe->plan->bytes / ONE_IN;
}

static void apply_rules(qx_pipeline *pipe, qx_plan_item *it, bool vision)
{
    const qx_linear *l = it->lin;
    qx_const_view c;
    const char *what;
    if (!l->w && l->quantized) qx_item_keep(pipe, it, QX_WHY_ALREADY_QUANTIZED, NULL);
    else if (l->node->graph->function) qx_item_keep(pipe, it, QX_WHY_FUNCTION, NULL);
    else if (!l->w) {
        it->attention_pass = it->pass;
        qx_item_keep(pipe, it, QX_WHY_WEIGHT_NOT_CONSTANT, NULL);
    }
    else if (qx_const_trace(l->x, &c)) qx_item_keep(pipe, it, QX_WHY_NOT_ELIGIBLE, "both inputs are constant");
    else if (!qx_dtype_is_real(l->w->dtype))
        qx_item_keep(pipe, it, QX_WHY_NOT_FLOAT, "%s", qx_dtype_get(l->w->dtype)->text);
    else if (!it->asked && (what = qx_rule_name(l, vision)) != NULL && !take_table(pipe, it, vision, &what))
        qx_item_keep(pipe, it, QX_WHY_DEFAULT_NAME, "%s", what);
}

/* Rules for a vision branch apply when it is one: when the rest, a language model, weighs more than twice as much. Of two towers
 * both are quantized. */
static bool has_vision_branch(const qx_plan *plan)
{
    int64_t vision = 0, rest = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_linear *l = plan->items[i].lin;
        if (l->w && !l->embedding) *(qx_rule_is_vision(l) ? &vision : &rest) += l->w->numel;
    }
    return rest / 2 > vision;
}

/* ---- weights that are used twice ------------------------------------------------------------------------------------ */

static qx_status group_weights(qx_pipeline *pipe, qx_plan *plan)
{
    qx_plan_weight **of = NULL;
    qx_model *m = pipe->model;
    plan->weights = qx_arena_array(m->arena, (size_t)plan->linears.count + 1, sizeof *plan->weights);
    if (!plan->weights) return QX_E_NOMEM;
    QX_TRY(qx_alloc_array(pipe->ctx, m->n_values + 1, sizeof *of, (void **)&of));
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        const qx_linear *l = it->lin;
        if (!l->w) continue;
        qx_plan_weight **slot = &of[l->w_init->id];
        if (!*slot) {
            *slot = &plan->weights[plan->n_weights++];
            **slot = (qx_plan_weight){.value = l->w_init, .tensor = l->w, .view = l->view, .report_row = -1};
        }
        if (qx_view_same(&(*slot)->view, &l->view)) { it->weight = *slot; (*slot)->items++; (*slot)->embedding |= l->embedding; }
        else qx_item_keep(pipe, it, QX_WHY_SHARED, "used with two layouts");
    }
    qx_free(pipe->ctx, of);
    return QX_OK;
}

/* The item whose weight stands at this input; NULL: none. */
static const qx_plan_item *item_at(const qx_plan *plan, const qx_use *u)
{
    const qx_plan_item *end = plan->items + plan->linears.count;
    for (const qx_plan_item *it = qx_plan_item_of(plan, u->node); it && it < end && it->lin->node == u->node; it++)
        if (it->lin->w_index == u->index) return it;
    return NULL;
}

/* True when every reader of v, through operators that only rearrange, is a linear operator that `pass` quantizes. */
static bool all_quantized(const qx_plan *plan, const qx_value *v, const qx_pass *pass, int depth)
{
    if (v->is_output || depth > 16) return false;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_plan_item *it = item_at(plan, u);
        if (it) {
            if (it->pass != pass) return false;
            continue;
        }
        bool chain = u->index == 0 && (u->node->op->traits & QX_T_COPY || u->node->op->id == QX_OP_Cast);
        if (!chain || !all_quantized(plan, u->node->out[0], pass, depth + 1)) return false;
    }
    return true;
}

/* A weight has one format; two that were asked for by name contradict each other. */
static qx_status check_shared(qx_pipeline *pipe)
{
    const qx_plan *plan = pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *a = &plan->items[i];
        for (int64_t j = i + 1; a->forced && a->weight && a->weight->items > 1 && j < plan->linears.count; j++) {
            const qx_plan_item *b = &plan->items[j];
            if (b->weight == a->weight && b->forced && b->pass != a->pass)
                QX_FAIL(pipe->ctx, QX_E_USAGE, "'%s' and '%s' share the weight '%s', which cannot be both %s and %s", a->lin->node->name,
                        b->lin->node->name, a->weight->value->name,
                        a->pass->def->name, b->pass->def->name);
        }
    }
    return QX_OK;
}

/* One low-precision copy serves all readers of a weight; when some reader stays float, all do, unless the node was asked for. */
void qx_plan_settle(qx_pipeline *pipe)
{
    qx_plan *plan = pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        if (!it->pass || it->asked || it->weight->done || it->weight->value->n_uses == 1) continue;
        if (!all_quantized(plan, it->weight->value, it->pass, 0))
            qx_item_keep(pipe, it, QX_WHY_SHARED, "'%.100s'", it->weight->value->name);
    }
}

/* ---- making the plan ------------------------------------------------------------------------------------------------- */

static qx_status compile_all(qx_pipeline *pipe, filters *f)
{
    const qx_quantize_options *o = pipe->opt;
    const char **texts = qx_arena_array(pipe->arena, (size_t)o->n_settings + 1, sizeof *texts);
    if (!texts) return QX_E_NOMEM;
    for (int i = 0; i < o->n_settings; i++) texts[i] = o->settings[i].pattern;
    QX_TRY(compile(pipe->ctx, o->include, o->n_include, &f->include));
    QX_TRY(compile(pipe->ctx, o->exclude, o->n_exclude, &f->exclude));
    return compile(pipe->ctx, texts, o->n_settings, &f->settings);
}

typedef struct marking { const patterns *ps; uint8_t *nodes, mark; } marking;

static qx_status mark_node(void *user, qx_node *n)
{
    const marking *k = user;
    for (int i = 0; i < k->ps->n; i++)
        if (pattern_hits_node(&k->ps->items[i], n)) k->nodes[n->id] = k->mark;
    return QX_OK;
}

qx_status qx_plan_excluded(qx_pipeline *pipe, uint8_t *nodes, uint8_t mark)
{
    patterns ps = {0};
    qx_status st = compile(pipe->ctx, pipe->opt->exclude, pipe->opt->n_exclude, &ps);
    if (st == QX_OK) st = qx_model_each_node(pipe->model, mark_node, &(marking){&ps, nodes, mark});
    free_patterns(pipe->ctx, &ps);
    return st;
}

static qx_status decide(qx_pipeline *pipe, filters *f)
{
    qx_plan *plan = pipe->plan;
    bool vision = has_vision_branch(plan);
    plan->batch = qx_rule_batch(pipe->model);
    plan->store_kept = kept_is_large(pipe, vision);
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        if (it->why == QX_WHY_NONE && apply_patterns(pipe, f, it)) apply_rules(pipe, it, vision);
    }
    QX_TRY(check_hits(pipe, &f->include, "include", false));
    QX_TRY(check_hits(pipe, &f->exclude, "exclude", false));
    return check_hits(pipe, &f->settings, "set", true);
}

static qx_status apply_filters(qx_pipeline *pipe)
{
    filters f = {0};
    qx_status st = compile_all(pipe, &f);
    if (st == QX_OK) st = decide(pipe, &f);
    free_patterns(pipe->ctx, &f.include);
    free_patterns(pipe->ctx, &f.exclude);
    free_patterns(pipe->ctx, &f.settings);
    return st;
}

static qx_status measure_model(qx_model *m, int64_t *bytes)
{
    qx_write_result size = {0};
    QX_TRY(qx_model_write_size(m, &(qx_write_options){0}, &size));
    *bytes = size.model_bytes + size.data_bytes;
    return QX_OK;
}

static qx_status make_items(qx_pipeline *pipe, qx_plan *plan)
{
    qx_model *m = pipe->model;
    QX_TRY(measure_model(m, &plan->bytes));
    plan->items = qx_arena_array(m->arena, (size_t)plan->linears.count + 1, sizeof *plan->items);
    plan->n_nodes = m->n_node_ids;
    plan->by_node = qx_arena_array(m->arena, (size_t)plan->n_nodes + 1, sizeof *plan->by_node);
    if (!plan->items || !plan->by_node) return QX_E_NOMEM;
    memset(plan->by_node, 0xFF, plan->n_nodes * sizeof *plan->by_node); /* -1 */
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_linear *l = &plan->linears.items[i];
        plan->items[i] = (qx_plan_item){.lin = l, .weight_only = l->embedding, .x_stat = qx_same_elements(l->x), .act_sqnr = NAN};
        if (plan->by_node[l->node->id] < 0) plan->by_node[l->node->id] = (int32_t)i;
    }
    return QX_OK;
}

qx_status qx_plan_new(qx_pipeline *pipe, qx_model *m)
{
    qx_plan *plan = qx_arena_alloc(m->arena, sizeof *plan);
    if (!plan) return QX_E_NOMEM;
    pipe->plan = plan;
    pipe->model = m;
    QX_TRY(qx_linears_find(m, &plan->linears));
    QX_TRY(qx_attentions_find(m, &plan->attentions, &plan->n_attentions));
    QX_TRY(make_items(pipe, plan));
    QX_TRY(group_weights(pipe, plan));
    QX_TRY(apply_filters(pipe));
    QX_TRY(check_shared(pipe));
    qx_plan_settle(pipe);
    return QX_OK;
}

qx_plan_item *qx_plan_item_of(const qx_plan *plan, const qx_node *n)
{
    return n->id < plan->n_nodes && plan->by_node[n->id] >= 0 ? &plan->items[plan->by_node[n->id]] : NULL;
}

bool qx_plan_first_reader(const qx_plan *plan, int64_t item)
{
    for (int64_t i = 0; i < item; i++)
        if (plan->items[i].weight == plan->items[item].weight) return false;
    return true;
}

qx_status qx_plan_step(qx_pipeline *pipe, qx_plan_weight *w, const qx_stepdef *def, const void *arg)
{
    const qx_step *s = qx_step_new(pipe->model, def, w->steps, arg);
    if (!s) return QX_E_NOMEM;
    w->steps = s;
    return QX_OK;
}
