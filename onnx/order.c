/* order.c - puts nodes that a file lists before what they need in order. The standard wants them sorted; ONNX Runtime sorts for
 * itself, so that files by converters which do not go about unnoticed. Depth first in the order of the file: a node moves only to
 * stand before the first that needs it. */
#include "onnx/edit.h"

enum { NEW, OPEN, DONE };
typedef struct sorter {
    qx_graph *g;
    uint8_t *state;                     /* of each node id */
    qx_node **pending; uint32_t n_pending;    /* at most one entry a use, and the root */
    qx_node **order; uint32_t n_order;  /* of g */
    bool cycle;
    int64_t moved;
} sorter;

static void need(sorter *s, qx_node *n)
{
    if (s->state[n->id] == OPEN) s->cycle = true;
    if (s->state[n->id] == NEW) s->pending[s->n_pending++] = n;
}

/* What n and the bodies that it holds (at most QX_MAX_NESTING deep) use of s->g. */
static void needs(sorter *s, const qx_node *n)
{
    for (uint32_t i = n->n_in; i-- > 0;)
        if (n->in[i] && n->in[i]->def && n->in[i]->graph == s->g) need(s, n->in[i]->def);
    for (uint32_t i = 0; i < n->n_attrs; i++)
        for (int64_t k = n->attrs[i].graph ? 1 : n->attrs[i].graphs ? n->attrs[i].n : 0; k-- > 0;)
            QX_FOR_NODES(n->attrs[i].graph ? n->attrs[i].graph : n->attrs[i].graphs[k], inner) needs(s, inner);
}

static void put_in_order(sorter *s, qx_node *root)
{
    s->pending[s->n_pending++] = root;
    while (s->n_pending && !s->cycle) {
        qx_node *n = s->pending[s->n_pending - 1];
        if (s->state[n->id] == NEW) {
            s->state[n->id] = OPEN;
            needs(s, n);
            continue;
        }
        s->n_pending--;
        if (s->state[n->id] == DONE) continue; /* wanted by several */
        s->state[n->id] = DONE;
        s->order[s->n_order++] = n;
        s->moved += n != root;
    }
}

/* A cycle is left for qx_check to name. */
static qx_status sort_graph(void *user, qx_graph *g)
{
    sorter *s = user;
    const int64_t before = s->moved;
    s->g = g, s->n_pending = s->n_order = 0;
    QX_FOR_NODES(g, n)
        if (s->state[n->id] == NEW && !s->cycle) put_in_order(s, n);
    if (s->cycle || s->moved == before) return QX_OK;
    for (uint32_t i = 0; i < s->n_order; i++) QX_TRY(qx_node_move(s->order[i], NULL));
    return QX_OK;
}

static qx_status count_uses(void *user, qx_node *n)
{
    *(int64_t *)user += n->n_in;
    return QX_OK;
}

qx_status qx_sort_nodes(qx_model *m, int64_t *moved)
{
    sorter s = {0};
    int64_t uses = 1;
    qx_status st;
    QX_TRY(qx_model_each_node(m, count_uses, &uses));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(m->ctx, m->n_node_ids + 1, &s.state));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(m->ctx, m->n_node_ids + 1, &s.order));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(m->ctx, uses, &s.pending));
    st = qx_model_each_graph(m, sort_graph, &s);
    *moved = s.moved;
done:
    qx_free(m->ctx, s.state);
    qx_free(m->ctx, s.order);
    qx_free(m->ctx, s.pending);
    return st;
}
