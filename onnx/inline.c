/* inline.c - local functions put in the place of their calls, for consumers that see one flat graph (torch's exporter writes functions).
 *
 * A body is copied node by node in front of the call; whatever the call gives (inputs, attributes) takes the place of what the function
 * declares. The call's output values stay the same objects: the node that makes a result makes the call's output. */
#include <string.h>

#include "onnx/edit.h"
#include "onnx/make.h"
#include "onnx/weight/weight.h"

typedef struct inliner {
    qx_model *m;
    qx_node *call;
    const qx_function *fn;
    qx_value **map;      /* by id of a value of the function: what stands for it outside; NULL: nothing yet */
    uint32_t n_map;
    const char *prefix;  /* of new names */
} inliner;

static qx_status clone_graph(inliner *in, const qx_graph *from, qx_node *owner, int depth, qx_graph **out);

/* ---- values ------------------------------------------------------------------------------------------------------------ */

static qx_status clone_value(inliner *in, qx_graph *g, const qx_value *from, qx_value **out)
{
    const char *base = qx_arena_printf(in->m->arena, "%s/%s", in->prefix, from->name);
    if (!base) return QX_NOMEM(in->m);
    QX_TRY(qx_value_make(g, qx_unique_name(in->m, base), out));
    (*out)->type = from->type;
    in->map[from->id] = *out;
    return QX_OK;
}

/* What stands for a value of the body: NULL for an input that the call leaves out. A value from outside of the function (used in a
 * graph that the call gives as an attribute) stands for itself. */
static qx_value *mapped(const inliner *in, qx_value *v)
{
    if (!v || v->id >= in->n_map || in->map[v->id]) return v && v->id < in->n_map ? in->map[v->id] : v;
    const qx_graph *g = v->graph;
    while (g->parent) g = g->parent;
    return g == in->fn->body ? NULL : v;
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------- */

/* The value of a referenced attribute: the call's, else the function's default, else none. */
static const qx_attr *resolve(const inliner *in, const qx_attr *a)
{
    if (!a->ref_name) return a;
    const qx_attr *given = qx_node_attr(in->call, a->ref_name);
    for (uint32_t i = 0; !given && i < in->fn->n_attr_defaults; i++) {
        if (strcmp(in->fn->attr_defaults[i].name, a->ref_name) == 0) given = &in->fn->attr_defaults[i];
    }
    return given;
}

static qx_status clone_graphs(inliner *in, qx_attr *a, qx_node *owner, int depth)
{
    if (a->graph) {
        a->wire = NULL;
        QX_TRY(clone_graph(in, a->graph, owner, depth, &a->graph));
    }
    if (!a->graphs) return QX_OK;
    qx_graph **copies = qx_arena_array(in->m->arena, a->n ? (size_t)a->n : 1, sizeof *copies);
    if (!copies) return QX_NOMEM(in->m);
    for (int64_t i = 0; i < a->n; i++) QX_TRY(clone_graph(in, a->graphs[i], owner, depth, &copies[i]));
    a->graphs = copies;
    a->wire = NULL;
    return QX_OK;
}

static qx_status clone_attrs(inliner *in, const qx_node *from, qx_node *to, int depth)
{
    to->attrs = qx_arena_array(in->m->arena, from->n_attrs ? from->n_attrs : 1, sizeof *to->attrs);
    if (!to->attrs) return QX_NOMEM(in->m);
    for (uint32_t i = 0; i < from->n_attrs; i++) {
        const qx_attr *a = resolve(in, &from->attrs[i]);
        if (!a) continue;
        qx_attr *copy = &to->attrs[to->n_attrs++];
        *copy = *a;
        if (from->attrs[i].ref_name) { /* another name, and perhaps a reference of the caller's own function */
            copy->name = from->attrs[i].name;
            copy->wire = NULL;
        }
        QX_TRY(clone_graphs(in, copy, to, depth));
    }
    return QX_OK;
}

/* ---- nodes and graphs ------------------------------------------------------------------------------------------------------ */

static qx_status same_definition(const inliner *in, const qx_node *from)
{
    char label[256];
    const qx_graph *g = in->call->graph;
    int64_t there = qx_graph_opset(g, from->domain), here = qx_graph_opset(in->fn->body, from->domain);
    if (from->callee || from->op->id == QX_OP_UNKNOWN || there == 0 || qx_op_find(from->domain, from->op_type, there) == from->op)
        return QX_OK;
    QX_FAIL(in->m->ctx, QX_E_UNSUPPORTED, "function '%s' cannot be inlined: %s is written for opset %lld, the caller imports %lld",
            in->fn->name, qx_node_label(from, label, sizeof label), (long long)here, (long long)there);
}

static qx_status clone_node(inliner *in, const qx_node *from, qx_graph *g, qx_node *before, int depth)
{
    qx_node *n;
    const char *name = from->name[0] ? from->name : from->op_type;
    QX_TRY(same_definition(in, from));
    name = qx_arena_printf(in->m->arena, "%s/%s", in->prefix, name);
    if (!name || !(name = qx_unique_name(in->m, name))) return QX_NOMEM(in->m);
    QX_TRY(qx_node_make(g, from->op_type, from->domain, name, from->n_in, from->n_out, &n));
    n->overload = from->overload;
    n->callee = from->callee;
    n->wire_origin = from->wire_origin;
    if (n->op->id == QX_OP_UNKNOWN) n->op = from->op;
    for (uint32_t i = 0; i < from->n_in; i++) {
        n->in[i] = mapped(in, from->in[i]);
        QX_TRY(qx_use_add(n->in[i], n, i));
    }
    for (uint32_t i = 0; i < from->n_out; i++) {
        if (!from->out[i]) continue;
        QX_TRY(clone_value(in, g, from->out[i], &n->out[i]));
        n->out[i]->def = n;
        n->out[i]->def_index = i;
    }
    qx_node_link(g, n, before);
    return clone_attrs(in, from, n, depth);
}

static qx_status clone_inits(inliner *in, const qx_graph *from, qx_graph *to)
{
    for (uint32_t i = 0; i < from->n_inits; i++) {
        const qx_value *v = from->inits[i];
        qx_value *copy = in->map[v->id];
        if (!copy) QX_TRY(clone_value(in, to, v, &copy));
        copy->sparse = v->sparse;
        if (v->init) {
            qx_weight *w = qx_arena_memdup(in->m->arena, v->init, sizeof *w);
            if (!w) return QX_NOMEM(in->m);
            w->name = copy->name;
            copy->init = w;
        }
        QX_TRY(QX_LIST_PUSH(in->m, &to->inits, &to->n_inits, copy));
    }
    return QX_OK;
}

static qx_status clone_graph(inliner *in, const qx_graph *from, qx_node *owner, int depth, qx_graph **out)
{
    qx_graph *g;
    if (depth > QX_MAX_NESTING) QX_FAIL(in->m->ctx, QX_E_FORMAT, "subgraphs are nested deeper than %d", QX_MAX_NESTING);
    QX_TRY(qx_graph_make(in->m, from->name, owner->graph, owner, &g));
    g->wire = from->wire;
    *out = g;
    for (uint32_t i = 0; i < from->n_inputs; i++) {
        qx_value *v;
        QX_TRY(clone_value(in, g, from->inputs[i], &v));
        v->is_input = true;
        QX_TRY(QX_LIST_PUSH(in->m, &g->inputs, &g->n_inputs, v));
    }
    QX_TRY(clone_inits(in, from, g));
    QX_FOR_NODES(from, n) QX_TRY(clone_node(in, n, g, NULL, depth + 1));
    for (uint32_t i = 0; i < from->n_outputs; i++) {
        qx_value *v = mapped(in, from->outputs[i]);
        if (!v) QX_FAIL(in->m->ctx, QX_E_FAIL, "output '%s' of a body is not there", from->outputs[i]->name);
        v->is_output = true;
        QX_TRY(QX_LIST_PUSH(in->m, &g->outputs, &g->n_outputs, v));
    }
    return QX_OK;
}

/* ---- the call's outputs -------------------------------------------------------------------------------------------------------- */

/* `v` (an output of the call) is made by output `index` of n from now on. */
static void give_output(qx_node *n, uint32_t index, qx_value *v)
{
    n->out[index] = v;
    v->def = n;
    v->def_index = index;
}

/* A result that is an input of the function, or a second time the same value: through an Identity. */
static qx_status identity_output(inliner *in, qx_value *from, qx_value *v)
{
    qx_node *n;
    const char *name = qx_arena_printf(in->m->arena, "%s/Identity", in->prefix), *op = qx_intern(in->m->names, "Identity"),
        *domain = qx_intern(in->m->names, "");
    if (!name || !op || !domain || !(name = qx_unique_name(in->m, name))) return QX_NOMEM(in->m);
    QX_TRY(qx_node_make(in->call->graph, op, domain, name, 1, 1, &n));
    n->in[0] = from;
    QX_TRY(qx_use_add(from, n, 0));
    qx_node_link(in->call->graph, n, in->call);
    give_output(n, 0, v);
    return QX_OK;
}

static bool is_call_output(const qx_node *call, const qx_value *v)
{
    for (uint32_t i = 0; i < call->n_out; i++) {
        if (call->out[i] == v) return true;
    }
    return false;
}

static qx_status connect_output(inliner *in, uint32_t i)
{
    qx_value *v = qx_node_out(in->call, i), *inner = in->fn->body->outputs[i];
    if (!v) return QX_OK;
    qx_value *from = mapped(in, inner);
    if (!from) QX_FAIL(in->m->ctx, QX_E_FAIL, "output '%s' of function '%s' is given nothing", inner->name, in->fn->name);
    if (inner->is_input || !from->def || is_call_output(in->call, from)) return identity_output(in, from, v);
    QX_TRY(qx_value_replace_uses(from, v, NULL));
    qx_map_remove(from->graph->values, from->name);
    give_output(from->def, from->def_index, v);
    from->def = NULL;
    in->map[inner->id] = v;
    return QX_OK;
}

/* ---- public -------------------------------------------------------------------------------------------------------------------- */

static qx_status add_imports(inliner *in)
{
    const qx_function *f = in->fn;
    const qx_graph *g = in->call->graph;
    while (g->parent) g = g->parent;
    for (uint32_t i = 0; i < f->n_opsets; i++) {
        if (qx_graph_opset(g, f->opsets[i].domain)) continue;
        QX_TRY(g->function ? qx_function_set_opset(g->function, f->opsets[i].domain, f->opsets[i].version)
               : qx_model_set_opset(in->m, f->opsets[i].domain, f->opsets[i].version));
    }
    return QX_OK;
}

static qx_status inline_body(inliner *in)
{
    qx_graph *body = in->fn->body;
    QX_TRY(add_imports(in));
    for (uint32_t i = 0; i < body->n_inputs; i++) in->map[body->inputs[i]->id] = qx_node_in(in->call, i);
    QX_FOR_NODES(body, n) QX_TRY(clone_node(in, n, in->call->graph, in->call, 0));
    for (uint32_t i = 0; i < body->n_outputs; i++) QX_TRY(connect_output(in, i));
    for (uint32_t i = 0; i < in->call->n_out; i++) in->call->out[i] = NULL;
    return qx_node_erase(in->call);
}

qx_status qx_function_inline(qx_node *call)
{
    qx_model *m = call->graph->model;
    char label[256];
    if (!call->callee) QX_FAIL(m->ctx, QX_E_FAIL, "%s calls no function", qx_node_label(call, label, sizeof label));
    inliner in = {.m = m, .call = call, .fn = call->callee, .n_map = m->n_values, .prefix = call->name[0] ? call->name : call->op_type};
    QX_TRY(qx_alloc_array(m->ctx, (size_t)m->n_values + 1, sizeof *in.map, (void **)&in.map));
    qx_status st = inline_body(&in);
    qx_free(m->ctx, in.map);
    return st;
}

static qx_status inline_graph(qx_graph *g, int depth);

static qx_status inline_bodies(qx_node *n, int depth)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].graph) QX_TRY(inline_graph(n->attrs[i].graph, depth + 1));
        for (int64_t k = 0; n->attrs[i].graphs && k < n->attrs[i].n; k++) QX_TRY(inline_graph(n->attrs[i].graphs[k], depth + 1));
    }
    return QX_OK;
}

/* What a call leaves in its place is looked at next: calls inside it are inlined in turn. */
static qx_status inline_graph(qx_graph *g, int depth)
{
    qx_model *m = g->model;
    if (depth > QX_MAX_NESTING) QX_FAIL(m->ctx, QX_E_FORMAT, "subgraphs are nested deeper than %d", QX_MAX_NESTING);
    for (qx_node *n = g->first, *next; n; n = next) {
        if (!n->callee) {
            QX_TRY(inline_bodies(n, depth));
            next = n->next;
            continue;
        }
        qx_node *before = n->prev, *after = n->next;
        if (m->n_node_ids > QX_INLINE_NODES)
            QX_FAIL(m->ctx, QX_E_BUDGET, "inlining the functions makes more than %d nodes", QX_INLINE_NODES);
        QX_TRY(qx_function_inline(n));
        next = before ? before->next : g->first;
        if (next == n) next = after;
    }
    return QX_OK;
}

qx_status qx_functions_inline(qx_model *m)
{
    QX_TRY(inline_graph(m->graph, 0));
    m->n_functions = 0;
    m->dirty = true;
    return QX_OK;
}
