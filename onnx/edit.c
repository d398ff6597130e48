/* edit.c - the only way to change a graph. Uses, definitions and names stay consistent in every call; whatever was touched
 * loses its `wire`, and so does every node around it, so that the writer rebuilds exactly that. Here: names, values and nodes;
 * edit_init.c, edit_attr.c, edit_model.c and dead.c have the rest. */
#include "onnx/edit_own.h"

#include <string.h>

#include "onnx/weight/weight.h"

/* ---- what is touched --------------------------------------------------------------------------------------------- */

static void touch_holder(const qx_graph *g)
{
    qx_node *n = g->owner;
    n->wire = NULL;
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        qx_attr *a = &n->attrs[i];
        bool holds = a->graph == g;
        for (int64_t k = 0; a->graphs && k < a->n && !holds; k++) holds = a->graphs[k] == g;
        if (holds) a->wire = NULL;
    }
}

void qx_touch_graph(qx_graph *g)
{
    g->model->dirty = true;
    for (; g->owner; g = g->parent) touch_holder(g);
}

void qx_touch_node(qx_node *n)
{
    n->wire = NULL;
    qx_touch_graph(n->graph);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

const char *qx_unique_name(qx_model *m, const char *base)
{
    if (!base) return NULL; /* memory ran out while it was put together */
    if (!base[0]) base = "qx";
    if (!m->taken && qx_map_new(m->ctx, &m->taken) != QX_OK) return NULL;
    if (!qx_map_has(m->taken, base)) return qx_intern(m->names, base);
    /* The value kept for a taken name is where its numbering stands, so that a thousand copies cost a thousand steps. */
    uintptr_t number = (uintptr_t)qx_map_get(m->taken, base);
    for (;;) {
        const char *name = qx_arena_printf(m->arena, "%s_%llu", base, (unsigned long long)++number);
        if (!name) return NULL;
        if (qx_map_has(m->taken, name)) continue;
        if (qx_map_put(m->taken, base, (void *)number) != QX_OK) return NULL;
        return qx_intern(m->names, name);
    }
}

qx_status qx_name_intern(qx_model *m, const char *text, const char **out)
{
    *out = qx_intern(m->names, text);
    return *out ? QX_OK : QX_NOMEM(m);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

qx_status qx_value_new(qx_graph *g, const char *name, qx_value **out)
{
    QX_TRY(qx_value_make(g, qx_unique_name(g->model, name), out));
    qx_touch_graph(g);
    return QX_OK;
}

static qx_status clone_dims(qx_model *m, qx_type *t)
{
    qx_dim *dims = qx_arena_array(m->arena, t->rank ? (size_t)t->rank : 1, sizeof *dims);
    if (!dims) return QX_NOMEM(m);
    if (t->rank) memcpy(dims, t->dims, (size_t)t->rank * sizeof *dims);
    t->dims = dims;
    return QX_OK;
}

qx_status qx_value_set_type(qx_value *v, const qx_type *t)
{
    qx_type copy = *t;
    QX_TRY(clone_dims(v->graph->model, &copy));
    v->type = copy;
    v->wire = NULL;
    qx_touch_graph(v->graph);
    return QX_OK;
}

qx_status qx_value_replace_uses(qx_value *from, qx_value *to, const qx_node *except)
{
    if (from == to) return QX_OK;
    qx_use *kept = NULL, **kept_end = &kept, *moved = NULL, **moved_end = &moved;
    uint32_t n_moved = 0;
    for (qx_use *u = from->uses, *next; u; u = next) {
        next = u->next;
        bool stays = u->node == except;
        qx_use ***end = stays ? &kept_end : &moved_end;
        u->next = NULL;
        **end = u;
        *end = &u->next;
        if (stays) continue;
        u->node->in[u->index] = to;
        qx_touch_node(u->node);
        n_moved++;
    }
    *moved_end = to->uses;
    to->uses = moved;
    to->n_uses += n_moved;
    from->uses = kept;
    from->n_uses -= n_moved;
    return QX_OK;
}

/* Names of v stand in the messages of its producer and users. */
static void touch_mentions(qx_value *v)
{
    if (v->def) qx_touch_node(v->def);
    for (qx_use *u = v->uses; u; u = u->next) qx_touch_node(u->node);
}

static int64_t output_slot(const qx_graph *g, const qx_value *v, uint32_t from)
{
    for (uint32_t i = from; i < g->n_outputs; i++) {
        if (g->outputs[i] == v) return i;
    }
    return -1;
}

static qx_status rename_value(qx_value *v, const char *name)
{
    if (v->init && v->init->name != name) {
        qx_weight *copy = qx_arena_memdup(v->graph->model->arena, v->init, sizeof *copy);
        if (!copy) return QX_NOMEM(v->graph->model);
        copy->name = name;
        v->init = copy;
    }
    v->name = name;
    QX_TRY(qx_map_put(v->graph->values, name, v));
    touch_mentions(v);
    return qx_name_take(v->graph->model, name);
}

static qx_status swap_names(qx_value *a, qx_value *b)
{
    const char *name = a->name;
    QX_TRY(rename_value(a, b->name));
    return rename_value(b, name);
}

qx_status qx_output_rewire(qx_value *from, qx_value *to)
{
    qx_graph *g = from->graph;
    if (!from->is_output) QX_FAIL(g->model->ctx, QX_E_FAIL, "'%s' is not a graph output", from->name);
    if (to->graph != g || to->is_output || to->is_input)
        QX_FAIL(g->model->ctx, QX_E_FAIL,
                "'%s' cannot take the place of output '%s': its own name is part of the interface or of another graph", to->name,
                from->name);
    for (int64_t i = output_slot(g, from, 0); i >= 0; i = output_slot(g, from, (uint32_t)i + 1)) g->outputs[i] = to;
    from->is_output = false;
    to->is_output = true;
    to->wire = from->wire;
    from->wire = NULL;
    return swap_names(from, to);
}

qx_status qx_value_swap_names(qx_value *a, qx_value *b)
{
    if (a->graph != b->graph || a->is_input || b->is_input || a->is_output || b->is_output)
        QX_FAIL(a->graph->model->ctx, QX_E_FAIL, "'%s' and '%s' cannot change names", a->name, b->name);
    return swap_names(a, b);
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

static qx_status resolve_op(qx_graph *g, const char *domain, const char *op_type, const qx_op **out)
{
    int64_t opset = qx_graph_opset(g, domain);
    *out = qx_op_find(domain, op_type, opset);
    if (*out || qx_model_function(g->model, domain, op_type, "")) return QX_OK;
    QX_FAIL(g->model->ctx, QX_E_UNSUPPORTED, "operator '%s%s%s' is not known at opset %lld", domain, domain[0] ? "::" : "", op_type,
            (long long)opset);
}

static qx_status add_outputs(qx_node *n, const qx_node_spec *s)
{
    for (uint32_t i = 0; i < s->n_out; i++) {
        if (!s->out_names[i]) continue;
        QX_TRY(qx_value_make(n->graph, qx_unique_name(n->graph->model, s->out_names[i]), &n->out[i]));
        n->out[i]->def = n;
        n->out[i]->def_index = i;
    }
    return QX_OK;
}

qx_status qx_node_add(qx_graph *g, const qx_node_spec *s, qx_node *before, qx_node **out)
{
    qx_model *m = g->model;
    const char *op_type, *domain, *name = "";
    const qx_op *op;
    QX_TRY(qx_name_intern(m, s->op_type, &op_type));
    QX_TRY(qx_name_intern(m, s->domain && strcmp(s->domain, "ai.onnx") != 0 ? s->domain : "", &domain));
    QX_TRY(resolve_op(g, domain, op_type, &op));
    if (s->name && s->name[0] && !(name = qx_unique_name(m, s->name))) return QX_NOMEM(m);
    qx_node *n;
    QX_TRY(qx_node_make(g, op_type, domain, name, s->n_in, s->n_out, &n));
    n->callee = qx_model_function(m, domain, op_type, "");
    QX_TRY(add_outputs(n, s));
    for (uint32_t i = 0; i < s->n_in; i++) {
        n->in[i] = s->in[i];
        QX_TRY(qx_use_add(n->in[i], n, i));
    }
    qx_node_link(g, n, before);
    qx_touch_graph(g);
    if (out) *out = n;
    return QX_OK;
}

void qx_value_forget(qx_value *v)
{
    if (!v) return;
    qx_map_remove(v->graph->values, v->name); /* its name stays taken: a later value of that name would confuse reports */
    v->def = NULL;
}

static void drop_uses(qx_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++) qx_use_remove(n->in[i], n, i);
}

/* Uses that the bodies of n make of outer values go with n. The depth was capped when the graph was made. */
static void drop_body_uses(qx_graph *g)
{
    QX_FOR_NODES(g, n) {
        drop_uses(n);
        for (uint32_t i = 0; i < n->n_attrs; i++) {
            if (n->attrs[i].graph) drop_body_uses(n->attrs[i].graph);
            for (int64_t k = 0; n->attrs[i].graphs && k < n->attrs[i].n; k++) drop_body_uses(n->attrs[i].graphs[k]);
        }
    }
}

qx_status qx_node_erase(qx_node *n)
{
    char label[256];
    for (uint32_t i = 0; i < n->n_out; i++) {
        const qx_value *v = n->out[i];
        if (v && (v->n_uses || v->is_output))
            QX_FAIL(n->graph->model->ctx, QX_E_FAIL, "%s cannot be erased: '%s' %s", qx_node_label(n, label, sizeof label), v->name,
                    v->is_output ? "is a graph output" : "is used");
    }
    qx_touch_graph(n->graph);
    drop_uses(n);
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].graph) drop_body_uses(n->attrs[i].graph);
        for (int64_t k = 0; n->attrs[i].graphs && k < n->attrs[i].n; k++) drop_body_uses(n->attrs[i].graphs[k]);
    }
    for (uint32_t i = 0; i < n->n_out; i++) qx_value_forget(n->out[i]);
    qx_node_unlink(n);
    return QX_OK;
}

static qx_status grow_inputs(qx_node *n)
{
    qx_model *m = n->graph->model;
    qx_value **in = qx_arena_array(m->arena, (size_t)n->n_in + 1, sizeof *in);
    if (!in) return QX_NOMEM(m);
    if (n->n_in) memcpy(in, n->in, n->n_in * sizeof *in);
    n->in = in;
    n->n_in++;
    return QX_OK;
}

qx_status qx_node_set_in(qx_node *n, uint32_t index, qx_value *v)
{
    char label[256];
    if (index > n->n_in)
        QX_FAIL(n->graph->model->ctx, QX_E_FAIL, "%s has %u inputs: input %u cannot be set", qx_node_label(n, label, sizeof label),
                n->n_in, index);
    if (index == n->n_in) QX_TRY(grow_inputs(n));
    if (n->in[index] == v) {
        qx_touch_node(n);
        return QX_OK;
    }
    qx_use_remove(n->in[index], n, index);
    n->in[index] = v;
    qx_touch_node(n);
    return qx_use_add(v, n, index);
}

qx_status qx_node_truncate_in(qx_node *n, uint32_t n_in)
{
    while (n->n_in > n_in) {
        n->n_in--;
        qx_use_remove(n->in[n->n_in], n, n->n_in);
        n->in[n->n_in] = NULL;
    }
    qx_touch_node(n);
    return QX_OK;
}

qx_status qx_node_truncate_out(qx_node *n, uint32_t n_out)
{
    char label[256];
    for (uint32_t i = n_out; i < n->n_out; i++) {
        const qx_value *v = n->out[i];
        if (v && (v->n_uses || v->is_output))
            QX_FAIL(n->graph->model->ctx, QX_E_FAIL, "%s: output %u '%s' is used and cannot go", qx_node_label(n, label, sizeof label),
                    i, v->name);
    }
    for (; n->n_out > n_out; n->n_out--) qx_value_forget(n->out[n->n_out - 1]);
    qx_touch_node(n);
    return QX_OK;
}

static void close_gap(qx_value **list, uint32_t *n, uint32_t at)
{
    memmove(&list[at], &list[at + 1], (*n - at - 1) * sizeof *list);
    --*n;
}

qx_status qx_loop_drop_state(qx_node *n, uint32_t state)
{
    enum { BEFORE_IN = 2, BEFORE_OUT = 1 }; /* count and condition; the condition */
    char label[256];
    qx_graph *body = qx_node_attr(n, "body")->graph;
    qx_value *in = body->inputs[BEFORE_IN + state], *result = body->outputs[BEFORE_OUT + state], *out = n->out[state];
    if (out && (out->n_uses || out->is_output))
        QX_FAIL(n->graph->model->ctx, QX_E_FAIL, "%s: state %u '%s' is used and cannot go", qx_node_label(n, label, sizeof label), state,
                out->name);
    close_gap(body->outputs, &body->n_outputs, BEFORE_OUT + state);
    result->is_output = output_slot(body, result, 0) >= 0;
    if (in->n_uses || in->is_output)
        QX_FAIL(n->graph->model->ctx, QX_E_FAIL, "%s: state %u '%s' is read in the body and cannot go",
                qx_node_label(n, label, sizeof label), state, in->name);
    close_gap(body->inputs, &body->n_inputs, BEFORE_IN + state);
    qx_value_forget(in);
    qx_value_forget(out);
    close_gap(n->out, &n->n_out, state);
    for (uint32_t i = state; i < n->n_out; i++)
        if (n->out[i]) n->out[i]->def_index = i;
    for (uint32_t i = BEFORE_IN + state; i + 1 < n->n_in; i++) QX_TRY(qx_node_set_in(n, i, n->in[i + 1]));
    qx_touch_graph(body);
    return qx_node_truncate_in(n, n->n_in - 1);
}

qx_status qx_node_move(qx_node *n, qx_node *before)
{
    if (before == n) return QX_OK;
    if (before && before->graph != n->graph) QX_FAIL(n->graph->model->ctx, QX_E_FAIL, "a node cannot move into another graph");
    qx_node_unlink(n);
    qx_node_link(n->graph, n, before);
    qx_touch_graph(n->graph);
    return QX_OK;
}

qx_status qx_node_set_op(qx_node *n, const char *domain, const char *op_type)
{
    qx_model *m = n->graph->model;
    const qx_op *op;
    if (strcmp(domain, "ai.onnx") == 0) domain = "";
    QX_TRY(resolve_op(n->graph, domain, op_type, &op));
    QX_TRY(qx_name_intern(m, op_type, &n->op_type));
    QX_TRY(qx_name_intern(m, domain, &n->domain));
    n->op = op ? op : &qx_op_unknown;
    n->callee = qx_model_function(m, domain, op_type, "");
    qx_touch_node(n);
    return QX_OK;
}
