/* mix.c - see mix.h. */
#include "passes/search/mix.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/map.h"
#include "onnx/weight/weight.h"
#include "passes/search/fold.h"

/* ---- the list of formats -------------------------------------------------------------------------------------------------- */

static bool is_float_name(const char *s)
{
    return !strcmp(s, "float") || !strcmp(s, "fp16") || !strcmp(s, "fp32") || !strcmp(s, "none");
}

/* Next part of "a(b=1)+c" up to a '+' outside parentheses; NULL at the end. */
static const char *next_part(qx_arena *arena, const char **at)
{
    int depth = 0;
    const char *s = *at, *e = s;
    if (!*s) return NULL;
    for (; *e && !(*e == '+' && depth == 0); e++) depth += (*e == '(') - (*e == ')');
    *at = *e ? e + 1 : e;
    while (e > s && e[-1] == ' ') e--;
    while (s < e && *s == ' ') s++;
    return qx_arena_strndup(arena, s, (size_t)(e - s));
}

static bool activations(const char *part) { return !strcmp(part, "int8") || !strcmp(part, "fp8"); }

static bool rounds_weights_alone(const char *part)
{
    return !is_float_name(part) && strncmp(part, "int8", 4) && strncmp(part, "fp8", 3) && !strstr(part, "-dynamic");
}

/* A bare int8 or fp8 beside a weight-only format stands for storage. */
static qx_status storage_names(qx_mix *m, const char **parts, int n)
{
    bool storage = false;
    for (int i = 0; i < n; i++)
        storage = storage || rounds_weights_alone(parts[i]);
    for (int i = 0; i < n && storage; i++)
        if (activations(parts[i]) && !(parts[i] = qx_arena_printf(m->pass->pipe->arena, "%s-weights", parts[i]))) return QX_E_NOMEM;
    return QX_OK;
}

static qx_status join(qx_mix *m, const char *const *parts, int n)
{
    qx_buf b = QX_BUF_INIT(m->pass->ctx);
    qx_status st = QX_OK;
    for (int i = 0; i < n && st == QX_OK; i++) st = qx_buf_printf(&b, "%s%s", i ? "+" : "", parts[i]);
    if (st == QX_OK && !(m->text = qx_arena_strdup(m->pass->pipe->arena, b.data ? b.data : ""))) st = QX_E_NOMEM;
    qx_buf_free(&b);
    return st;
}

static qx_status parse_formats(qx_mix *m, const char *text)
{
    const char *parts[QX_MIX_FORMATS + 1], *part;
    qx_pipeline *pipe = m->pass->pipe;
    int n = 0;
    while ((part = next_part(pipe->arena, &text))) {
        if (n == QX_MIX_FORMATS) QX_FAIL(pipe->ctx, QX_E_USAGE, "%s: more than %d formats", m->pass->def->name, QX_MIX_FORMATS);
        for (int i = 0; i < n; i++)
            if (!strcmp(parts[i], part)) QX_FAIL(pipe->ctx, QX_E_USAGE, "%s: format '%.100s' is given twice", m->pass->def->name, part);
        parts[n++] = part;
    }
    QX_TRY(qx_arena_status(pipe->arena)); /* a part that could not be copied is not the end of the list */
    QX_TRY(storage_names(m, parts, n));
    qx_status st = QX_OK;
    for (int i = 0; i < n; i++) {
        if (is_float_name(parts[i])) m->keep_float = true, m->float_name = parts[i];
        else st = qx_pipeline_parse_format(pipe, parts[i], &m->formats[m->n++]);
        if (st != QX_OK) return qx_note(pipe->ctx, st, "%s(formats=%.200s)", m->pass->def->name, parts[i]);
    }
    if (!m->n) QX_FAIL(pipe->ctx, QX_E_USAGE, "%s: no format to choose from: write formats=int4+int8+float", m->pass->def->name);
    for (int i = 0; i < m->n; i++) m->names[i] = m->formats[i]->def->name;
    m->names[m->n] = "float";
    return join(m, parts, n);
}

/* ---- groups ----------------------------------------------------------------------------------------------------------------- */

/* "/model/layers.0/self_attn" of "/model/layers.0/self_attn/q_proj/MatMul"; "" when the name has no such path. */
static size_t module_of(const char *name)
{
    size_t n = strlen(name);
    for (int cut = 0; cut < 2; cut++) {
        while (n && name[n - 1] != '/' && name[n - 1] != '.') n--;
        if (!n) return 0;
        n--;
    }
    return n;
}

/* Length of the prefix up to and with "experts" when a number follows, else 0. */
static size_t experts_of(const char *name)
{
    const char *at = strstr(name, "experts");
    return at && (at[7] == '.' || at[7] == '/') && at[8] >= '0' && at[8] <= '9' ? (size_t)(at - name) + 7 : 0;
}

/* Whether every format that the item may have leaves its activations alone: then nothing but its own weight changes. */
static bool rounds_weight_alone(const qx_mix *m, int64_t item)
{
    for (int f = 0; f < m->n; f++)
        if (qx_mix_at(m, item, f)->ok && (qx_mix_at(m, item, f)->act || qx_mix_at(m, item, f)->dynamic)) return false;
    return true;
}

/* What must agree has the same key: experts of one layer; readers of one tensor inside one module. */
static const char *key_of(const qx_mix *m, qx_arena *arena, const qx_linear *l)
{
    const char *node = l->node->name, *weight = l->w_init ? l->w_init->name : "";
    const char *name = module_of(node) ? node : weight;
    if (experts_of(name)) return qx_arena_printf(arena, "experts %.*s", (int)experts_of(name), name);
    if (!m->together && rounds_weight_alone(m, l->index)) return qx_arena_printf(arena, "alone %lld", (long long)l->index);
    return qx_arena_printf(arena, "%lld %.*s", (long long)l->group_id, (int)module_of(name), name);
}

static void relabel(qx_mix *m, int64_t count, int64_t from, int64_t to)
{
    for (int64_t i = 0; i < count; i++)
        if (m->group[i] == from) m->group[i] = to;
}

/* Readers of one weight agree too. */
static void join_shared(qx_mix *m, const qx_plan *plan)
{
    for (int64_t i = 0; i < plan->linears.count; i++)
        for (int64_t j = i + 1; m->group[i] >= 0 && plan->items[i].weight->items > 1 && j < plan->linears.count; j++)
            if (m->group[j] >= 0 && m->group[j] != m->group[i] && plan->items[j].weight == plan->items[i].weight)
                relabel(m, plan->linears.count, m->group[j], m->group[i]);
}

/* Whether l reads tokens that were picked from x: an expert, written by itself. */
static bool reads_picked(const qx_linear *l, const qx_value *x)
{
    for (const qx_value *v = l->rows; v && v != x; v = qx_row_source(v, l->k))
        if (v->def && (v->def->op->id == QX_OP_Gather || v->def->op->id == QX_OP_GatherND)) return true;
    return false;
}

/* The first reader of picked tokens among the items of a group; -1: there are no experts. */
static int64_t first_expert(const qx_mix *m, const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (m->group[g->items[i]->lin->index] >= 0 && reads_picked(g->items[i]->lin, g->x)) return g->items[i]->lin->index;
    return -1;
}

/* expert[i]: 1 + the first expert of its layer; 0: i is none. */
static void join_readers(qx_mix *m, const qx_group *g, int64_t count, int64_t *expert)
{
    const int64_t first = first_expert(m, g);
    for (int64_t j = 0; first >= 0 && j < g->n; j++) {
        const qx_linear *l = g->items[j]->lin;
        if (m->group[l->index] < 0 || !reads_picked(l, g->x)) continue;
        expert[l->index] = first + 1;
        relabel(m, count, m->group[l->index], m->group[first]);
    }
}

/* The readers of what an expert makes, of all experts of its layer. behind[e]: 1 + the first of them. */
static void join_behind(qx_mix *m, const qx_group *g, int64_t count, const int64_t *expert, int64_t *behind)
{
    qx_fold f;
    const int64_t at = g->items[0]->lin->index;
    qx_fold_find(m->pass->pipe, g, &f);
    const int64_t e = m->group[at] >= 0 && f.kind == QX_FOLD_ROWS ? expert[f.producer->lin->index] : 0;
    if (!e) return;
    if (behind[e]) relabel(m, count, m->group[at], m->group[behind[e] - 1]);
    else behind[e] = at + 1;
}

/* Experts of a layer that no name tells: those that read tokens picked from one tensor, and what comes behind them. */
static qx_status join_experts(qx_mix *m)
{
    struct qx_pipeline *pipe = m->pass->pipe;
    const int64_t count = pipe->plan->linears.count;
    int64_t n, *expert = qx_arena_array(pipe->model->arena, (size_t)count + 1, sizeof *expert),
        *behind = qx_arena_array(pipe->model->arena, (size_t)count + 1, sizeof *behind);
    qx_group *groups;
    if (!expert || !behind) return QX_E_NOMEM;
    QX_TRY(qx_groups_find(pipe, &groups, &n));
    for (int64_t i = 0; i < n; i++) join_readers(m, &groups[i], count, expert);
    for (int64_t i = 0; i < n; i++) join_behind(m, &groups[i], count, expert, behind);
    return QX_OK;
}

/* Numbers without gaps, in order of first appearance. */
static void number_groups(qx_mix *m, int64_t count, int64_t *scratch)
{
    for (int64_t i = 0; i < count; i++) scratch[i] = -1;
    m->n_groups = 0;
    for (int64_t i = 0; i < count; i++) {
        if (m->group[i] < 0) continue;
        if (scratch[m->group[i]] < 0) scratch[m->group[i]] = m->n_groups++;
        m->group[i] = scratch[m->group[i]];
    }
}

static qx_status find_groups(qx_mix *m)
{
    const qx_plan *plan = m->pass->pipe->plan;
    qx_arena *arena = m->pass->pipe->model->arena;
    qx_map *first;
    int64_t *scratch = qx_arena_array(arena, (size_t)plan->linears.count + 1, sizeof *scratch);
    if (!scratch) return QX_E_NOMEM;
    QX_TRY(qx_map_new(m->pass->ctx, &first));
    qx_status st = QX_OK;
    for (int64_t i = 0; i < plan->linears.count && st == QX_OK; i++) {
        if (m->group[i] < 0) continue;
        const char *key = key_of(m, arena, &plan->linears.items[i]);
        const uintptr_t at = key ? (uintptr_t)qx_map_get(first, key) : 0;
        m->group[i] = at ? (int64_t)at - 1 : i;
        st = !key ? QX_E_NOMEM : at ? QX_OK : qx_map_put(first, key, (void *)(uintptr_t)(i + 1));
    }
    qx_map_free(first);
    if (st != QX_OK) return st;
    join_shared(m, plan);
    QX_TRY(join_experts(m));
    number_groups(m, plan->linears.count, scratch);
    return QX_OK;
}

/* ---- planning every format --------------------------------------------------------------------------------------------------- */

/* A language model head whose weight is the embedding too: then the embedding is stored in its format, which has at least 8 bits. */
static bool is_tied(const qx_plan_item *it) { return it->weight->embedding && qx_rule_names_head(it->lin); }

static void find_candidates(qx_mix *m)
{
    qx_plan *plan = m->pass->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        const bool head = it->weight && it->why == QX_WHY_DEFAULT_NAME && qx_rule_names_head(it->lin);
        m->group[i] = (it->pass == m->pass && it->weight) || head ? 0 : -1;
        if (m->group[i] == 0 && is_tied(&plan->items[i])) plan->items[i].asked = true; /* or it would stay float for the embedding's sake */
        if (m->group[i] < 0 && it->pass == m->pass) qx_item_keep(m->pass->pipe, &plan->items[i], QX_WHY_WEIGHT_NOT_CONSTANT, NULL);
    }
}

/* Nodes, names and shapes in the file: measured on written models, from above. */
static int64_t graph_bytes(const qx_plan_item *it, const qx_qspec *spec)
{
    const int64_t name = (int64_t)strlen(it->weight->value->name);
    const bool cast = spec->scale == QX_DT_FLOAT16 && it->weight->tensor->dtype == QX_DT_FLOAT;
    return 9 * name + 300 + (cast ? 4 * name + 100 : 0);
}

/* A weight's bytes belong to the first of its readers that the mix decides on: an embedding that shares a head's weight is not
 * one of them. */
static bool counts_bytes(const qx_mix *m, int64_t item)
{
    const qx_plan_item *items = m->pass->pipe->plan->items;
    for (int64_t i = 0; i < item; i++)
        if (items[i].weight == items[item].weight && m->group[i] >= 0) return false;
    return true;
}

static qx_status fill_cell(qx_mix *m, int64_t i, int format)
{
    const qx_plan *plan = m->pass->pipe->plan;
    const qx_plan_item *it = &plan->items[i];
    qx_mix_cell *c = qx_mix_at(m, i, format);
    *c = (qx_mix_cell){.ok = format == m->n || it->pass == m->formats[format], .why = it->why, .detail = it->detail,
                       .spec = it->weight->spec,
                       .format = it->weight->format, .act = it->act, .dynamic = it->dynamic, .weight_only = it->weight_only,
                       .notes = it->notes};
    if (c->ok && is_tied(it) && format < m->n && qx_dtype_bits(c->spec.codes) < 8) {
        c->ok = false;
        c->why = QX_WHY_SHARED;
        c->detail = "the embedding needs 8 bits";
    }
    if (c->ok && format < m->n && (!m->names[format] || !c->weight_only)) m->names[format] = c->format;
    if (!c->ok || !counts_bytes(m, i)) return QX_OK;
    c->bytes = qx_write_tensor_bytes((int64_t)it->weight->tensor->bytes, m->external);
    if (format == m->n) return QX_OK;
    QX_TRY(qx_emit_bytes(m->pass->pipe, it, &c->spec, m->external, &c->bytes));
    c->bytes += graph_bytes(it, &c->spec);
    return QX_OK;
}

/* Nodes that quantize an input, and those that scale what MatMulInteger sums, with their names and constants: as graph_bytes. */
static int64_t input_bytes(const qx_plan_item *it, const qx_mix_cell *c, bool counted)
{
    enum { NODE = 100, CONSTANTS = 250, BLOCK_CONSTANTS = 500 };
    static const struct { int input, product; int64_t constants; } nodes[] = {[QX_DYNAMIC_NONE] = {2, 0, CONSTANTS},
        [QX_DYNAMIC_ROW] = {8, 2, CONSTANTS}, [QX_DYNAMIC_TENSOR] = {1, 2, CONSTANTS}, [QX_DYNAMIC_BLOCK] = {10, 0, BLOCK_CONSTANTS}};
    const int64_t x = 4 * (int64_t)strlen(it->lin->x->name) + NODE, y = 4 * (int64_t)strlen(it->lin->node->out[0]->name) + NODE;
    if (!c->act && !c->dynamic) return 0;
    return nodes[c->dynamic].product * y + (counted ? 0 : nodes[c->dynamic].input * x + nodes[c->dynamic].constants);
}

/* Readers of x in one group share its codes. */
static void count_inputs(qx_mix *m)
{
    const qx_plan *plan = m->pass->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        bool counted = false;
        if (m->group[i] < 0) continue;
        for (int64_t j = 0; j < i && !counted; j++)
            counted = m->group[j] == m->group[i] && plan->items[j].lin->x == plan->items[i].lin->x;
        for (int f = 0; f < m->n; f++) qx_mix_at(m, i, f)->bytes += input_bytes(&plan->items[i], qx_mix_at(m, i, f), counted);
    }
}

/* The items as if this format (n: none) had them all. */
static qx_status plan_format(qx_mix *m, int format, qx_stats *stats)
{
    qx_plan *plan = m->pass->pipe->plan;
    qx_pass *f = format < m->n ? m->formats[format] : NULL;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        if (m->group[i] < 0) continue;
        it->pass = f;
        it->why = QX_WHY_NONE;
        it->detail = NULL;
        it->weight_only = it->lin->embedding;
        it->notes = NULL;
        it->act = QX_DT_UNDEFINED;
        it->dynamic = QX_DYNAMIC_NONE;
        it->weight->spec = (qx_qspec){0};
        it->weight->format = NULL;
    }
    if (f) QX_TRY(f->def->plan(f, m->pass->pipe->model, stats));
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (m->group[i] >= 0) QX_TRY(fill_cell(m, i, format));
    return QX_OK;
}

/* Until the decision every group has its smallest format, so that passes which prepare weights ask for the statistics that any
 * format needs. */
static void give_smallest(const qx_mix *m)
{
    for (int64_t g = 0; g < m->n_groups; g++) {
        int best = m->n;
        int64_t least = INT64_MAX, bytes;
        for (int f = 0; f < m->n; f++)
            if (qx_mix_allowed(m, g, f, &bytes) && bytes < least) best = f, least = bytes;
        qx_mix_give_group(m, g, best);
    }
}

/* The model as it is, written as the output will be. */
static qx_status measure_input(qx_mix *m)
{
    const qx_write_options wo = {.external_data = m->pass->pipe->opt->external_data};
    qx_write_result size = {0};
    QX_TRY(qx_model_write_size(m->pass->pipe->model, &wo, &size));
    m->external = size.data_bytes > 0;
    m->input_bytes = size.model_bytes + size.data_bytes;
    return QX_OK;
}

/* What stays float keeps its type; who names another one is told what gives it. */
static void check_float_type(const qx_mix *m)
{
    const qx_dtype asked = !m->float_name ? QX_DT_UNDEFINED : !strcmp(m->float_name, "fp16") ? QX_DT_FLOAT16
        : !strcmp(m->float_name, "fp32") ? QX_DT_FLOAT : QX_DT_UNDEFINED;
    const qx_plan *plan = m->pass->pipe->plan;
    for (int64_t i = 0; asked && i < plan->linears.count; i++) {
        if (m->group[i] < 0 || plan->items[i].weight->tensor->dtype == asked) continue;
        qx_warn(m->pass->ctx, "formats: what stays float keeps the type that it has, %s; for '%s' write --float %s beside it",
                qx_dtype_get(plan->items[i].weight->tensor->dtype)->text, m->float_name, m->float_name);
        return;
    }
}

qx_status qx_mix_plan(qx_pass *p, const char *formats, bool together, qx_stats *stats, qx_mix **out)
{
    const qx_plan *plan = p->pipe->plan;
    qx_arena *arena = p->pipe->model->arena;
    qx_mix *m = qx_arena_alloc(arena, sizeof *m);
    if (!m) return QX_E_NOMEM;
    m->pass = p;
    m->together = together;
    QX_TRY(parse_formats(m, formats));
    QX_TRY(measure_input(m));
    m->cells = qx_arena_array(arena, (size_t)(plan->linears.count * (m->n + 1)) + 1, sizeof *m->cells);
    m->group = qx_arena_array(arena, (size_t)plan->linears.count + 1, sizeof *m->group);
    if (!m->cells || !m->group) return QX_E_NOMEM;
    find_candidates(m);
    check_float_type(m);
    for (int f = 0; f <= m->n; f++) QX_TRY(plan_format(m, f, stats));
    QX_TRY(find_groups(m));
    count_inputs(m);
    give_smallest(m);
    *out = m;
    return QX_OK;
}

/* ---- the decision -------------------------------------------------------------------------------------------------------------- */

/* The reason of the format that came furthest down the list, for an item that stays float although it might not have. */
static const qx_mix_cell *refusal(const qx_mix *m, int64_t item)
{
    for (int f = 0; f < m->n; f++)
        if (!qx_mix_at(m, item, f)->ok) return qx_mix_at(m, item, f);
    return NULL;
}

void qx_mix_give(const qx_mix *m, int64_t item, int format)
{
    qx_plan_item *it = &m->pass->pipe->plan->items[item];
    const qx_mix_cell *c = qx_mix_at(m, item, format);
    it->weight->spec = c->spec;
    it->weight->format = c->format;
    it->act = c->act;
    it->dynamic = c->dynamic;
    it->weight_only = c->weight_only;
    it->notes = c->notes;
    it->why = QX_WHY_NONE;
    it->pass = format < m->n ? m->formats[format] : NULL;
    if (it->pass) return;
    const qx_mix_cell *no = refusal(m, item);
    it->why = no ? no->why : QX_WHY_BUDGET;
    it->detail = no ? no->detail : NULL;
}

void qx_mix_give_group(const qx_mix *m, int64_t group, int format)
{
    for (int64_t i = 0; i < m->pass->pipe->plan->linears.count; i++)
        if (m->group[i] == group) qx_mix_give(m, i, format);
}

bool qx_mix_allowed(const qx_mix *m, int64_t group, int format, int64_t *bytes)
{
    *bytes = 0;
    for (int64_t i = 0; i < m->pass->pipe->plan->linears.count; i++) {
        if (m->group[i] != group) continue;
        if (!qx_mix_at(m, i, format)->ok) return false;
        *bytes += qx_mix_at(m, i, format)->bytes;
    }
    return true;
}

qx_status qx_mix_run(const qx_mix *m, qx_model *model, qx_stats *stats)
{
    for (int f = 0; f < m->n; f++) QX_TRY(m->formats[f]->def->run(m->formats[f], model, stats));
    return QX_OK;
}
