/* group.c - see group.h. Every operator's input is followed upwards over what only moves rows; operators that meet belong together. */
#include "passes/search/group.h"

#include <string.h>

enum { MAX_CHAIN = 12 };

bool qx_group_takes(const qx_plan_item *it) { return it->weight && qx_linear_reads_rows(it->lin); }

int64_t qx_last_dim(const qx_value *v)
{
    return v && v->type.has_shape && v->type.rank > 0 ? v->type.dims[v->type.rank - 1].n : -1;
}

bool qx_use_reads_values(const qx_use *u) { return !(u->node->op->traits & QX_T_SHAPE_ONLY); }

/* ---- upwards ---- */

static int rank_of(const qx_value *v) { return v->type.has_shape ? v->type.rank : -1; }

/* Which rows are picked, not which channels. */
static bool picks_rows(const qx_node *n)
{
    const int rank = rank_of(n->in[0]);
    int64_t axis = qx_attr_int(n, "axis", 0), depth;
    if (n->op->id == QX_OP_Gather) return axis += axis < 0 ? rank : 0, rank > 1 && axis < rank - 1;
    depth = qx_node_in(n, 1) ? qx_last_dim(n->in[1]) : -1;
    return depth >= 1 && qx_attr_int(n, "batch_dims", 0) + depth < rank;
}

/* Whether rows of k channels, which the output is known to have, come out of n's first input as they are. */
static bool moves_rows(const qx_node *n, int64_t k)
{
    const int64_t last = qx_last_dim(n->in[0]);
    switch (n->op->id) {
    case QX_OP_Identity: return true;
    case QX_OP_Cast: return qx_dtype_is_float(n->in[0]->type.dtype) && qx_dtype_bits(n->in[0]->type.dtype) >= 16;
    case QX_OP_Unsqueeze: return k > 1; /* its new axes are 1 */
    case QX_OP_Reshape: case QX_OP_Squeeze: case QX_OP_Expand: case QX_OP_Tile: return last == k;
    case QX_OP_Flatten: return last == k || qx_attr_int(n, "axis", 1) == rank_of(n->in[0]) - 1;
    case QX_OP_Gather: case QX_OP_GatherND: return picks_rows(n);
    default: return false;
    }
}

qx_value *qx_row_source(const qx_value *v, int64_t k)
{
    const qx_node *n = v->def;
    if (!n || v->def_index || !qx_node_in(n, 0) || n->in[0]->graph != v->graph || !moves_rows(n, k)) return NULL;
    return n->in[0];
}

/* One step up from what an operator reads. */
static qx_value *above(const qx_linear *l, const qx_value *v) { return v == l->x && l->rows != v ? l->rows : qx_row_source(v, l->k); }

/* Whether v is what l reads, or between that and top. */
static bool on_way(const qx_linear *l, const qx_value *v, const qx_value *top)
{
    const qx_value *at = l->x;
    for (int i = 0; i < MAX_CHAIN && at; i++, at = above(l, at)) {
        if (at == v) return true;
        if (at == top) return false;
    }
    return false;
}

static qx_value *top_of(const qx_linear *l)
{
    qx_value *v = l->rows;
    for (int i = 2; i < MAX_CHAIN; i++) {
        qx_value *up = qx_row_source(v, l->k);
        if (!up) break;
        v = up;
    }
    return v;
}

/* ---- who reads what ---- */

static bool is_reader(const qx_group *g, const qx_use *u)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i]->lin->node == u->node && g->items[i]->lin->x_index == u->index) return true;
    return false;
}

static bool leads_to_group(const qx_group *g, const qx_use *u)
{
    if (u->index || u->node->n_out != 1) return false;
    for (int64_t i = 0; i < g->n; i++)
        if (on_way(g->items[i]->lin, u->node->out[0], g->x)) return true;
    return false;
}

static bool only_group_reads(const qx_group *g, const qx_value *v)
{
    if (v->is_output) return false;
    for (const qx_use *u = v->uses; u; u = u->next)
        if (qx_use_reads_values(u) && !qx_group_has_use(g, u)) return false;
    return true;
}

/* Every step is one further from x, on a way of at most MAX_CHAIN. */
bool qx_group_has_use(const qx_group *g, const qx_use *u)
{
    return is_reader(g, u) || (leads_to_group(g, u) && only_group_reads(g, u->node->out[0]));
}

/* Whether a factor on x could reach the operators and nobody else: by all readers of x, or by some. */
static bool reachable(const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++) {
        const qx_value *v = g->items[i]->lin->x;
        for (; v != g->x && only_group_reads(g, v);) v = above(g->items[i]->lin, v);
        if (v != g->x) return false;
    }
    return true;
}

/* ---- weights ---- */

static bool is_weight_of(const qx_group *g, const qx_use *u)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i]->lin->node == u->node && g->items[i]->lin->w_index == u->index) return true;
    return false;
}

static bool rearranges(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Transpose: case QX_OP_Cast: case QX_OP_Identity: case QX_OP_Reshape: case QX_OP_Gather: case QX_OP_GatherND:
        return n->n_out == 1;
    default: return false;
    }
}

static bool read_by_group(const qx_group *g, const qx_value *v, int depth)
{
    if (v->is_output || depth > 8) return false;
    for (const qx_use *u = v->uses; u; u = u->next)
        if (qx_use_reads_values(u) && !is_weight_of(g, u) && (u->index || !rearranges(u->node) ||
                                                              !read_by_group(g, u->node->out[0], depth + 1)))
            return false;
    return true;
}

bool qx_group_owns_weights(const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (!read_by_group(g, g->items[i]->weight->value, 0)) return false;
    return true;
}

/* ---- groups ---- */

/* [items]; top NULL: not usable */
typedef struct finder { struct qx_pipeline *pipe; qx_value **top; bool *placed; qx_group *groups; int64_t n; } finder;

/* The nearest to the readers of the values that all items read rows of. */
static qx_value *meeting(const qx_group *g, qx_value *top)
{
    const qx_linear *first = g->items[0]->lin;
    for (qx_value *v = first->rows; v && v != top; v = qx_row_source(v, g->k)) {
        bool all = true;
        for (int64_t i = 1; i < g->n && all; i++) all = on_way(g->items[i]->lin, v, top);
        if (all) return v;
    }
    return top;
}

/* Whether item i, which no group has yet, goes with `first`: its source is the same, or (`same`) what it reads. */
static bool belongs(const finder *f, int64_t first, bool same, int64_t i)
{
    const qx_plan_item *items = f->pipe->plan->items;
    const qx_linear *a = items[first].lin, *b = items[i].lin;
    return f->top[i] == f->top[first] && !f->placed[i] && b->k == a->k && b->node->graph == a->node->graph && (!same || b->rows == a->rows);
}

static qx_status gather_items(const finder *f, int64_t first, bool same, qx_group *g)
{
    qx_plan *plan = f->pipe->plan;
    int64_t n = 0;
    for (int64_t i = first; i < plan->linears.count; i++) n += belongs(f, first, same, i);
    *g = (qx_group){.k = plan->items[first].lin->k, .items = qx_arena_array(f->pipe->model->arena, (size_t)n, sizeof *g->items)};
    if (!g->items) return QX_E_NOMEM;
    for (int64_t i = first; i < plan->linears.count; i++)
        if (belongs(f, first, same, i)) g->items[g->n++] = &plan->items[i];
    g->x = meeting(g, f->top[first]);
    g->all_consumers = only_group_reads(g, g->x);
    return QX_OK;
}

/* A weight that something else reads too (another group, an embedding) cannot take this group's factor. */
static qx_status add_group(finder *f, int64_t first)
{
    qx_group *g = &f->groups[f->n];
    QX_TRY(gather_items(f, first, false, g));
    if (!g->all_consumers || !qx_group_owns_weights(g)) QX_TRY(gather_items(f, first, true, g));
    for (int64_t i = 0; i < g->n; i++) f->placed[g->items[i]->lin->index] = true;
    if (reachable(g) && qx_group_owns_weights(g)) f->n++;
    else memset(g, 0, sizeof *g);
    return QX_OK;
}

qx_status qx_groups_find(struct qx_pipeline *pipe, qx_group **out, int64_t *n)
{
    const qx_plan *plan = pipe->plan;
    const size_t count = (size_t)plan->linears.count + 1;
    qx_arena *arena = pipe->model->arena;
    finder f = {pipe, qx_arena_array(arena, count, sizeof *f.top), qx_arena_alloc(arena, count),
                qx_arena_array(arena, count, sizeof *f.groups), 0};
    if (!f.top || !f.placed || !f.groups) return QX_E_NOMEM;
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (qx_group_takes(&plan->items[i])) f.top[i] = top_of(plan->items[i].lin);
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (f.top[i] && !f.placed[i]) QX_TRY(add_group(&f, i));
    *out = f.groups;
    *n = f.n;
    return QX_OK;
}

qx_group qx_group_alone(qx_plan_item **it) { return (qx_group){.items = it, .n = 1, .x = (*it)->lin->rows, .k = (*it)->lin->k}; }

qx_status qx_group_want(const qx_group *g, qx_stats *stats, uint32_t kinds)
{
    QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = g->x, .kinds = kinds, .axis = -1}));
    for (int64_t i = 0; i < g->n; i++)
        if (g->items[i]->lin->rows != g->x)
            QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = g->items[i]->lin->rows, .kinds = QX_STAT_CHANNELS, .axis = -1}));
    return QX_OK;
}

bool qx_item_rounds_x(const qx_plan_item *it) { return it->pass && (it->act || it->dynamic); }

const qx_plan_item *qx_group_quantized(const qx_group *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (qx_item_rounds_x(g->items[i])) return g->items[i];
    return NULL;
}
