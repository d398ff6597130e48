/* residual.c - the skip input of a residual Add in a convolution network gets a pair, so that TensorRT can fuse convolution + Add in 8 bit;
 * the branch that ends in the convolution stays float. Only where a convolution that the pass quantizes stands behind the Add: the residual
 * stream of a transformer is never touched. */
#include "passes/place/scheme.h"

enum { MAX_UP = 12, MAX_SEEN = 256 };

static bool is_variable(const qx_value *v)
{
    qx_const_view c;
    return v && !qx_const_trace(v, &c);
}

/* The one variable input of an operator that fuses behind a convolution: bias, scale, BatchNormalization, Relu, x * Sigmoid(x), MaxPool. */
static const qx_value *through(const qx_node *n)
{
    const qx_value *a = qx_node_in(n, 0), *b = qx_node_in(n, 1);
    switch (n->op->id) {
    case QX_OP_BatchNormalization: case QX_OP_Relu: case QX_OP_MaxPool: case QX_OP_Cast: case QX_OP_Identity: return a;
    case QX_OP_Add: case QX_OP_Mul:
        if (is_variable(a) != is_variable(b)) return is_variable(a) ? a : b;
        if (n->op->id != QX_OP_Mul) return NULL;
        if (b->def && b->def->op->id == QX_OP_Sigmoid && b->def->in[0] == a) return a;
        return a->def && a->def->op->id == QX_OP_Sigmoid && a->def->in[0] == b ? b : NULL;
    default: return NULL;
    }
}

static const qx_node *backbone(const qx_value *v)
{
    for (int i = 0; i < MAX_UP && v && v->def; i++) {
        if (v->def->op->id == QX_OP_Conv || v->def->op->id == QX_OP_ConvTranspose) return v->def;
        v = through(v->def);
    }
    return NULL;
}

/* Ancestors of v, breadth first, with their distance. */
typedef struct ancestors { const qx_value *v[MAX_SEEN]; int distance[MAX_SEEN]; int n; } ancestors;

static int find_in(const ancestors *a, const qx_value *v)
{
    for (int i = 0; i < a->n; i++)
        if (a->v[i] == v) return i;
    return -1;
}

static void walk_up(ancestors *a, const qx_value *v)
{
    *a = (ancestors){.v = {v}, .n = 1};
    for (int i = 0; i < a->n; i++) {
        const qx_node *n = a->v[i]->def;
        for (uint32_t k = 0; n && k < n->n_in && a->n < MAX_SEEN; k++)
            if (n->in[k] && !n->in[k]->init && find_in(a, n->in[k]) < 0) {
                a->distance[a->n] = a->distance[i] + 1;
                a->v[a->n++] = n->in[k];
            }
    }
}

/* Distances of both inputs to their nearest common ancestor; that value, or NULL. */
static const qx_value *common(const qx_value *x, const qx_value *y, ancestors room[2], int *dx, int *dy)
{
    const qx_value *best = NULL;
    walk_up(&room[0], x);
    walk_up(&room[1], y);
    for (int i = 0; i < room[0].n; i++) {
        int k = find_in(&room[1], room[0].v[i]);
        if (k < 0 || (best && room[0].distance[i] + room[1].distance[k] >= *dx + *dy)) continue;
        best = room[0].v[i];
        *dx = room[0].distance[i];
        *dy = room[1].distance[k];
    }
    return best;
}

/* Index of the branch input (the one that stays float), or -1: no residual Add of a convolution network. */
static int branch_of(const qx_node *add, ancestors room[2])
{
    int d0 = 0, d1 = 0;
    const qx_value *a = qx_node_in(add, 0), *b = qx_node_in(add, 1);
    if (!is_variable(a) || !is_variable(b) || a == b) return -1;
    const qx_node *x = backbone(a), *y = backbone(b);
    if (x == y) return -1;
    const qx_value *lca = common(a, b, room, &d0, &d1);
    if (!lca) return -1;
    if (x && y) return d0 > d1 ? 0 : 1;
    if (lca->def && lca->def == (x ? x : y)) return -1;
    return x ? 0 : 1;
}

static bool quantizes(const qx_pass *p, const qx_node *conv)
{
    const qx_plan_item *it = conv ? qx_plan_item_of(p->pipe->plan, conv) : NULL;
    return it && it->pass == p;
}

/* An embedding of the timestep is added to all pixels of a channel: [N,C,1,1] is no skip. */
static bool is_broadcast(const qx_type *a, const qx_type *b)
{
    if (!a->has_shape || !b->has_shape) return false;
    if (a->rank != b->rank) return true;
    for (int i = 0; i < a->rank; i++)
        if ((a->dims[i].n == 1) != (b->dims[i].n == 1)) return true;
    return false;
}

typedef struct finder { qx_pass *p; const qx_scheme *s; qx_stats *stats; ancestors *room; qx_skips *found; int64_t cap; } finder;

static qx_status visit(void *user, qx_node *n)
{
    finder *f = user;
    if (n->op->id != QX_OP_Add || n->graph->function) return QX_OK;
    const int branch = branch_of(n, f->room);
    if (branch < 0 || !quantizes(f->p, backbone(n->in[branch]))) return QX_OK;
    qx_value *skip = n->in[1 - branch];
    const qx_type *t = &skip->type, *other = &n->in[branch]->type;
    if (t->kind != QX_KIND_TENSOR || other->dtype != t->dtype || is_broadcast(t, other)) return QX_OK;
    QX_TRY(qx_arena_grow(f->p->pipe->model->arena, (void **)&f->found->items, f->found->count, &f->cap, sizeof *f->found->items));
    f->found->items[f->found->count++] = (qx_skip_input){n, (uint32_t)(1 - branch)};
    return qx_scheme_want_range(f->s, f->stats, qx_same_elements(skip));
}

qx_status qx_residual_plan(qx_pass *p, qx_stats *stats, qx_scheme *s)
{
    finder f = {p, s, stats, NULL, &s->skips, 0};
    QX_TRY(qx_alloc_array(p->ctx, 2, sizeof *f.room, (void **)&f.room));
    const qx_status st = qx_model_each_node(p->pipe->model, visit, &f);
    qx_free(p->ctx, f.room);
    return st;
}

static qx_status write_skip(qx_pass *p, qx_stats *stats, const qx_scheme *s, const qx_skip_input *at)
{
    qx_act_codes c;
    char detail[120];
    qx_value *skip = at->add->in[at->index], *out;
    if (skip->def && skip->def->op->id == QX_OP_DequantizeLinear) return QX_OK; /* the convolution that writes it has a pair */
    const qx_why why = qx_scheme_act_scale(p, s, stats, qx_same_elements(skip), &c, detail);
    if (qx_skipf(p, at->add, why, "skip input%s%s", *detail ? " " : "", detail)) return QX_OK;
    QX_TRY(qx_emit_pair(p->pipe, skip, s->act, c.scale, c.zero, &out));
    QX_TRY(qx_node_set_in(at->add, at->index, out));
    qx_applied(p, at->add, s->name);
    return QX_OK;
}

/* What plan() found: passes in between change the graph, and the search for a common ancestor with it. A branch whose convolution
 * was dropped since is left alone. */
qx_status qx_residual_run(qx_pass *p, qx_stats *stats, const qx_scheme *s)
{
    for (int64_t i = 0; i < s->skips.count; i++) {
        const qx_skip_input *at = &s->skips.items[i];
        if (quantizes(p, backbone(at->add->in[1 - at->index]))) QX_TRY(write_skip(p, stats, s, at));
    }
    return QX_OK;
}
