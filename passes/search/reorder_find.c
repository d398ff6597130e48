/* reorder_find.c - see reorder.h. From each reader upwards: every value on the way must serve this reader alone. */
#include "passes/search/reorder.h"

#include "passes/rotate_find.h"
#include "passes/search/group.h"

enum { MOST_VALUES = 32 };

typedef struct walk {
    const qx_linear **of;    /* node id -> linear or NULL */
    qx_reorder *r;
    const qx_value *seen[MOST_VALUES]; int n_seen;
} walk;

static int64_t channels_of(const walk *w, const qx_value *v)
{
    if (!w->r->to->is_conv) return qx_last_dim(v);
    return v->type.has_shape && v->type.rank > 2 ? v->type.dims[1].n : -1;
}

static bool was_seen(const walk *w, const qx_value *v)
{
    for (int i = 0; i < w->n_seen; i++)
        if (w->seen[i] == v) return true;
    return false;
}

/* A constant that lies along the channels: [C] or [.., 1, C], of pictures [C, 1, 1] and with more 1 in front. */
static bool along_channels(const walk *w, const qx_weight *c, int64_t width)
{
    const int behind = w->r->to->is_conv ? w->r->to->window.rank : 0;
    return c->numel == width && c->rank > behind && c->dims[c->rank - 1 - behind] == c->numel && qx_dtype_is_float(c->dtype);
}

static bool add_vector(walk *w, qx_node *n, uint32_t index)
{
    if (w->r->n_vectors == QX_REORDER_MOST) return false;
    w->r->vector[w->r->n_vectors].node = n;
    w->r->vector[w->r->n_vectors++].index = index;
    return true;
}

/* A stored weight that this operator alone reads: it is replaced where it stands, and other orders find it so. */
static bool owns_weight(const qx_linear *l)
{
    const qx_value *v = l->w ? l->w_init : NULL;
    return v && v->init && v->n_uses == 1 && !v->is_input && !v->is_output && !l->embedding && l->group == 1 &&
        (l->plain || l->is_conv) && l->node->op->id != QX_OP_ConvTranspose;
}

/* One matrix whose rows may move, with its bias. */
static bool add_producer(walk *w, const qx_linear *l)
{
    const qx_linear *to = w->r->to;
    const bool fits = owns_weight(l) && l->is_conv == to->is_conv && l->n % w->r->channels == 0 && l->node->graph == to->node->graph;
    if (!fits || w->r->n_from == QX_REORDER_MOST) return false;
    const qx_weight *bias = l->bias ? qx_value_const(l->bias) : NULL;
    if (l->bias && (!bias || bias->numel != l->n)) return false;
    w->r->from[w->r->n_from++] = l;
    return true;
}

static bool gather(walk *w, qx_value *v, int64_t width);

static bool gather_operand(walk *w, qx_node *n, uint32_t index, int64_t width)
{
    qx_value *v = n->in[index];
    const qx_weight *c = v ? qx_value_const(v) : NULL;
    if (!v || (c && c->numel == 1)) return true;
    for (uint32_t i = 0; c && i < n->n_in; i++) /* a bias goes with its operator */
        if (n->in[i] && n->in[i]->def && w->of[n->in[i]->def->id] && w->of[n->in[i]->def->id]->bias == v &&
            w->of[n->in[i]->def->id]->bias_add == n)
            return true;
    if (c) return along_channels(w, c, width) && add_vector(w, n, index);
    return (channels_of(w, v) == 1 && !w->r->to->is_conv) || gather(w, v, width);
}

/* Parts of equal size, all of which are on the way. */
static bool gather_parts(walk *w, qx_node *n, int64_t width)
{
    const int64_t axis = qx_attr_int(n, "axis", 0), rank = n->in[0]->type.has_shape ? n->in[0]->type.rank : 0;
    if (w->r->to->is_conv || rank < 1 || (axis != -1 && axis != rank - 1)) return false;
    return gather(w, n->in[0], width * n->n_out);
}

/* Upwards through n, whose results have `width` channels: those of the reader, once or (packed) several times. */
static bool through(walk *w, qx_node *n, int64_t width)
{
    switch (n->op->id) {
    case QX_OP_MaxPool: case QX_OP_AveragePool: case QX_OP_GlobalAveragePool: case QX_OP_Identity: case QX_OP_Cast: return gather(w,
        n->in[0], width);
    case QX_OP_Split: return gather_parts(w, n, width);
    case QX_OP_BatchNormalization:
        for (uint32_t i = 1; i < 5; i++)
            if (!n->in[i] || !qx_value_const(n->in[i]) || !add_vector(w, n, i)) return false;
        return n->n_out == 1 && gather(w, n->in[0], width);
    default: break;
    }
    for (uint32_t i = 0; (n->op->traits & QX_T_POINTWISE) && i < n->n_in; i++)
        if (!gather_operand(w, n, i, width)) return false;
    return (n->op->traits & QX_T_POINTWISE) != 0;
}

static bool gather(walk *w, qx_value *v, int64_t width)
{
    if (was_seen(w, v)) return true;
    if (!v->def || v->is_output || channels_of(w, v) != width || w->n_seen == MOST_VALUES || v->def->graph != w->r->to->node->graph)
        return false;
    w->seen[w->n_seen++] = v;
    const qx_linear *l = w->of[v->def->id];
    return l ? v->def_index == 0 && l->n == width && add_producer(w, l) : through(w, v->def, width);
}

/* Nothing else reads what moves. */
static bool closed(const walk *w)
{
    for (int i = 0; i < w->n_seen; i++) {
        const qx_value *v = w->seen[i];
        for (const qx_use *u = v->uses; u; u = u->next) {
            if (u->node == w->r->to->node ? u->index != w->r->to->x_index : qx_use_reads_values(u) && u->node->n_out == 0) return false;
            for (uint32_t o = 0; u->node != w->r->to->node && qx_use_reads_values(u) && o < u->node->n_out; o++)
                if (u->node->out[o] && !was_seen(w, u->node->out[o])) return false;
        }
    }
    return true;
}

static qx_status find_heads(qx_model *m, const qx_linears *ls, qx_reorders *out)
{
    qx_spins *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    QX_TRY(qx_spins_heads(m, ls, s));
    for (int64_t i = 0; i < s->n_heads; i++) {
        const qx_linear *from = s->values[i].lin, *to = s->outputs[i].lin;
        if (owns_weight(to) && owns_weight(from) && to->n % 8 == 0 && s->values[i].head % 4 == 0)
            out->items[out->n++] = (qx_reorder){.to = to, .from = {from}, .n_from = 1, .channels = to->k, .head = s->values[i].head,
                                                .repeat = to->k / from->n};
    }
    return QX_OK;
}

qx_status qx_reorders_find(qx_model *m, const qx_linears *ls, qx_reorders *out)
{
    const qx_linear **of = qx_arena_array(m->arena, m->n_node_ids + 1u, sizeof *of);
    out->n = 0;
    out->items = qx_arena_array(m->arena, (size_t)ls->count * 2 + 1, sizeof *out->items);
    if (!of || !out->items) return QX_E_NOMEM;
    for (int64_t i = 0; i < ls->count; i++) of[ls->items[i].node->id] = &ls->items[i];
    for (int64_t i = 0; i < ls->count; i++) {
        const qx_linear *to = &ls->items[i];
        qx_reorder *r = &out->items[out->n];
        if (!owns_weight(to) || to->n % 8) continue;
        *r = (qx_reorder){.to = to, .channels = to->is_conv ? to->w->dims[1] : to->k, .repeat = 1};
        r->head = r->channels;
        walk w = {.of = of, .r = r};
        if (r->channels % 16 == 0 && gather(&w, to->x, r->channels) && r->n_from && closed(&w)) out->n++;
    }
    return find_heads(m, ls, out);
}
