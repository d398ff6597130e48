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

typedef struct finder { qx_pass *p; const qx_scheme *s; qx_stats *stats; ancestors *room; bool writing; } finder;

static bool quantizes(const qx_pass *p, const qx_node *conv)
{
    const qx_plan_item *it = conv ? qx_plan_item_of(p->pipe->plan, conv) : NULL;
    return it && it->pass == p;
}

static qx_status write_skip(finder *f, qx_node *add, uint32_t skip)
{
    float scale;
    int32_t zero;
    char detail[120];
    qx_value *out;
    qx_why why = qx_scheme_act_scale(f->p, f->s, f->stats, qx_same_elements(add->in[skip]), &scale, &zero, detail);
    if (qx_skipf(f->p, add, why, "skip input%s%s", *detail ? ": " : "", detail)) return QX_OK;
    QX_TRY(qx_emit_pair(f->p->pipe, add->in[skip], f->s->act, scale, zero, &out));
    QX_TRY(qx_node_set_in(add, skip, out));
    qx_applied(f->p, add, f->s->name);
    return QX_OK;
}

static qx_status visit(void *user, qx_node *n)
{
    finder *f = user;
    if (n->op->id != QX_OP_Add || n->graph->function) return QX_OK;
    int branch = branch_of(n, f->room);
    if (branch < 0 || !quantizes(f->p, backbone(n->in[branch]))) return QX_OK;
    const qx_value *skip = n->in[1 - branch];
    if (skip->type.kind != QX_KIND_TENSOR || n->in[branch]->type.dtype != skip->type.dtype) return QX_OK;
    if (f->writing) return write_skip(f, n, (uint32_t)(1 - branch));
    return qx_scheme_want_range(f->s, f->stats, qx_same_elements((qx_value *)skip));
}

/* Only the skip of an Add whose input does not come from another pair is looked at, so both phases see the same graph: run() comes before
 * the items are rewritten. */
static qx_status each_add(qx_pass *p, qx_stats *stats, const qx_scheme *s, bool writing)
{
    finder f = {p, s, stats, NULL, writing};
    QX_TRY(qx_alloc_array(p->ctx, 2, sizeof *f.room, (void **)&f.room));
    qx_status st = qx_model_each_node(p->pipe->model, visit, &f);
    qx_free(p->ctx, f.room);
    return st;
}

qx_status qx_residual_plan(qx_pass *p, qx_stats *stats, const qx_scheme *s) { return each_add(p, stats, s, false); }
qx_status qx_residual_run(qx_pass *p, qx_stats *stats, const qx_scheme *s) { return each_add(p, stats, s, true); }
