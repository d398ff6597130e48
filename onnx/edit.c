/* edit.c - the only way to change a graph. Uses, definitions and names stay consistent in every call; whatever was touched
 * loses its `wire`, and so does every node around it, so that the writer rebuilds exactly that. */
#include "onnx/edit.h"

#include <stdio.h>
#include <string.h>

#include "onnx/make.h"
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

static void touch_graph(qx_graph *g)
{
    g->model->dirty = true;
    for (; g->owner; g = g->parent) touch_holder(g);
}

static void touch_node(qx_node *n)
{
    n->wire = NULL;
    touch_graph(n->graph);
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

static qx_status intern(qx_model *m, const char *text, const char **out)
{
    *out = qx_intern(m->names, text);
    return *out ? QX_OK : QX_NOMEM(m);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

qx_status qx_value_new(qx_graph *g, const char *name, qx_value **out)
{
    QX_TRY(qx_value_make(g, qx_unique_name(g->model, name), out));
    touch_graph(g);
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
    touch_graph(v->graph);
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
        touch_node(u->node);
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
    if (v->def) touch_node(v->def);
    for (qx_use *u = v->uses; u; u = u->next) touch_node(u->node);
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
    QX_TRY(intern(m, s->op_type, &op_type));
    QX_TRY(intern(m, s->domain && strcmp(s->domain, "ai.onnx") != 0 ? s->domain : "", &domain));
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
    touch_graph(g);
    if (out) *out = n;
    return QX_OK;
}

static void forget_value(qx_value *v)
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
    touch_graph(n->graph);
    drop_uses(n);
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].graph) drop_body_uses(n->attrs[i].graph);
        for (int64_t k = 0; n->attrs[i].graphs && k < n->attrs[i].n; k++) drop_body_uses(n->attrs[i].graphs[k]);
    }
    for (uint32_t i = 0; i < n->n_out; i++) forget_value(n->out[i]);
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
        touch_node(n);
        return QX_OK;
    }
    qx_use_remove(n->in[index], n, index);
    n->in[index] = v;
    touch_node(n);
    return qx_use_add(v, n, index);
}

qx_status qx_node_truncate_in(qx_node *n, uint32_t n_in)
{
    while (n->n_in > n_in) {
        n->n_in--;
        qx_use_remove(n->in[n->n_in], n, n->n_in);
        n->in[n->n_in] = NULL;
    }
    touch_node(n);
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
    for (; n->n_out > n_out; n->n_out--) forget_value(n->out[n->n_out - 1]);
    touch_node(n);
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
    forget_value(in);
    forget_value(out);
    close_gap(n->out, &n->n_out, state);
    for (uint32_t i = state; i < n->n_out; i++)
        if (n->out[i]) n->out[i]->def_index = i;
    for (uint32_t i = BEFORE_IN + state; i + 1 < n->n_in; i++) QX_TRY(qx_node_set_in(n, i, n->in[i + 1]));
    touch_graph(body);
    return qx_node_truncate_in(n, n->n_in - 1);
}

qx_status qx_node_move(qx_node *n, qx_node *before)
{
    if (before == n) return QX_OK;
    if (before && before->graph != n->graph) QX_FAIL(n->graph->model->ctx, QX_E_FAIL, "a node cannot move into another graph");
    qx_node_unlink(n);
    qx_node_link(n->graph, n, before);
    touch_graph(n->graph);
    return QX_OK;
}

qx_status qx_node_set_op(qx_node *n, const char *domain, const char *op_type)
{
    qx_model *m = n->graph->model;
    const qx_op *op;
    if (strcmp(domain, "ai.onnx") == 0) domain = "";
    QX_TRY(resolve_op(n->graph, domain, op_type, &op));
    QX_TRY(intern(m, op_type, &n->op_type));
    QX_TRY(intern(m, domain, &n->domain));
    n->op = op ? op : &qx_op_unknown;
    n->callee = qx_model_function(m, domain, op_type, "");
    touch_node(n);
    return QX_OK;
}

/* ---- initializers ------------------------------------------------------------------------------------------------ */

static qx_status attach(qx_value *v, qx_weight *w)
{
    qx_model *m = v->graph->model;
    if (w->name != v->name) {
        if (w->name) { /* the weight serves another value under its own name */
            w = qx_arena_memdup(m->arena, w, sizeof *w);
            if (!w) return QX_NOMEM(m);
        }
        w->name = v->name;
    }
    v->init = w;
    v->wire = NULL;
    touch_graph(v->graph);
    return qx_type_tensor(m, w->dtype, w->rank, w->dims, &v->type);
}

qx_status qx_init_add(qx_graph *g, const char *name, qx_weight *w, qx_value **out)
{
    qx_value *v;
    QX_TRY(qx_value_make(g, qx_unique_name(g->model, name), &v));
    QX_TRY(QX_LIST_PUSH(g->model, &g->inits, &g->n_inits, v));
    QX_TRY(attach(v, w));
    *out = v;
    return QX_OK;
}

qx_status qx_init_replace(qx_value *v, qx_weight *w)
{
    if (!v->init) QX_FAIL(v->graph->model->ctx, QX_E_FAIL, "'%s' is not an initializer", v->name);
    return attach(v, w);
}

qx_status qx_input_fix(qx_value *v)
{
    qx_graph *g = v->graph;
    uint32_t kept = 0;
    if (!v->init || !v->is_input) QX_FAIL(g->model->ctx, QX_E_FAIL, "'%s' is not a graph input with a default", v->name);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] != v) g->inputs[kept++] = g->inputs[i];
    g->n_inputs = kept;
    v->is_input = false;
    touch_graph(g);
    return QX_OK;
}

static void remove_init(qx_value *v)
{
    qx_graph *g = v->graph;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        if (g->inits[i] != v) g->inits[kept++] = g->inits[i];
    }
    g->n_inits = kept;
    v->init = NULL;
    v->sparse = NULL;
    if (!v->is_input) forget_value(v);
}

qx_status qx_init_erase(qx_value *v)
{
    if (v->n_uses || v->is_output) QX_FAIL(v->graph->model->ctx, QX_E_FAIL, "initializer '%s' is used and cannot be erased", v->name);
    remove_init(v);
    touch_graph(v->graph);
    return QX_OK;
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static qx_status attr_slot(qx_node *n, const char *name, qx_attr **out)
{
    qx_model *m = n->graph->model;
    const char *interned;
    QX_TRY(intern(m, name, &interned));
    touch_node(n);
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].name != interned) continue;
        *out = &n->attrs[i];
        **out = (qx_attr){.name = interned};
        return QX_OK;
    }
    qx_attr *more = qx_arena_array(m->arena, (size_t)n->n_attrs + 1, sizeof *more);
    if (!more) return QX_NOMEM(m);
    if (n->n_attrs) memcpy(more, n->attrs, n->n_attrs * sizeof *more);
    n->attrs = more;
    *out = &more[n->n_attrs++];
    (*out)->name = interned;
    return QX_OK;
}

qx_status qx_attr_set_int(qx_node *n, const char *name, int64_t v)
{
    qx_attr *a;
    QX_TRY(attr_slot(n, name, &a));
    a->type = QX_ATTR_INT;
    a->i = v;
    return QX_OK;
}

qx_status qx_attr_set_float(qx_node *n, const char *name, float v)
{
    qx_attr *a;
    QX_TRY(attr_slot(n, name, &a));
    a->type = QX_ATTR_FLOAT;
    a->f = v;
    return QX_OK;
}

qx_status qx_attr_set_string(qx_node *n, const char *name, const char *v)
{
    qx_attr *a;
    QX_TRY(attr_slot(n, name, &a));
    a->type = QX_ATTR_STRING;
    a->s_len = strlen(v);
    a->s = qx_arena_strndup(n->graph->model->arena, v, a->s_len);
    return a->s ? QX_OK : QX_NOMEM(n->graph->model);
}

qx_status qx_attr_set_ints(qx_node *n, const char *name, const int64_t *v, int64_t count)
{
    qx_model *m = n->graph->model;
    int64_t *copy = qx_arena_array(m->arena, count ? (size_t)count : 1, sizeof *copy);
    if (!copy) return QX_NOMEM(m);
    if (count) memcpy(copy, v, (size_t)count * sizeof *copy);
    qx_attr *a;
    QX_TRY(attr_slot(n, name, &a));
    a->type = QX_ATTR_INTS;
    a->n = count;
    a->ints = copy;
    return QX_OK;
}

qx_status qx_attr_set_tensor(qx_node *n, const char *name, qx_weight *t)
{
    qx_attr *a;
    QX_TRY(attr_slot(n, name, &a));
    a->type = QX_ATTR_TENSOR;
    a->tensor = t;
    return QX_OK;
}

qx_status qx_attr_remove(qx_node *n, const char *name)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (strcmp(n->attrs[i].name, name) != 0) n->attrs[kept++] = n->attrs[i];
    }
    if (kept == n->n_attrs) return QX_OK;
    n->n_attrs = kept;
    touch_node(n);
    return QX_OK;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static qx_status restamp_node(void *user, qx_node *n)
{
    (void)user;
    n->op = qx_op_resolve(n->graph, n->domain, n->op_type);
    return QX_OK;
}

/* Sets or adds one import in a list that lives in the arena. */
static qx_status stamp(qx_model *m, qx_opset **list, uint32_t *count, const char *domain, int64_t version)
{
    const char *name;
    QX_TRY(intern(m, strcmp(domain, "ai.onnx") == 0 ? "" : domain, &name));
    uint32_t i = 0;
    while (i < *count && strcmp((*list)[i].domain, name) != 0) i++;
    qx_opset *more = qx_arena_array(m->arena, (size_t)*count + 1, sizeof *more); /* a copy: the old list may be shared */
    if (!more) return QX_NOMEM(m);
    if (*count) memcpy(more, *list, *count * sizeof *more);
    more[i] = (qx_opset){.domain = name, .version = version};
    *list = more;
    if (i == *count) ++*count;
    m->dirty = true;
    return QX_OK;
}

qx_status qx_model_set_opset(qx_model *m, const char *domain, int64_t version)
{
    QX_TRY(stamp(m, &m->opsets, &m->n_opsets, domain, version));
    return qx_model_each_node(m, restamp_node, NULL);
}

qx_status qx_function_set_opset(qx_function *f, const char *domain, int64_t version)
{
    qx_model *m = f->body->model;
    qx_opset *list = qx_arena_memdup(m->arena, f->n_opsets ? (const void *)f->opsets : (const void *)&(qx_opset){0},
                                     (f->n_opsets ? f->n_opsets : 1) * sizeof *list);
    if (!list) return QX_NOMEM(m);
    QX_TRY(stamp(m, &list, &f->n_opsets, domain, version));
    f->opsets = list;
    return qx_model_each_node(m, restamp_node, NULL);
}

qx_status qx_model_set_ir(qx_model *m, int64_t ir)
{
    if (ir < QX_IR_MIN || ir > QX_IR_MAX)
        QX_FAIL(m->ctx, QX_E_USAGE, "IR version %lld is outside %d..%d", (long long)ir, QX_IR_MIN, QX_IR_MAX);
    m->ir_version = ir;
    m->dirty = true;
    return QX_OK;
}

qx_status qx_model_set_meta(qx_model *m, const char *key, const char *value)
{
    m->dirty = true;
    uint32_t i = 0;
    while (i < m->n_meta && strcmp(m->meta[i].key, key) != 0) i++;
    if (!value) {
        if (i == m->n_meta) return QX_OK;
        memmove(&m->meta[i], &m->meta[i + 1], (m->n_meta - i - 1) * sizeof *m->meta);
        m->n_meta--;
        return QX_OK;
    }
    const char *copy = qx_arena_strdup(m->arena, value), *name = qx_arena_strdup(m->arena, key);
    if (!copy || !name) return QX_NOMEM(m);
    if (i == m->n_meta) {
        qx_meta *more = qx_arena_array(m->arena, (size_t)m->n_meta + 1, sizeof *more);
        if (!more) return QX_NOMEM(m);
        if (m->n_meta) memcpy(more, m->meta, m->n_meta * sizeof *more);
        m->meta = more;
        m->n_meta++;
    }
    m->meta[i] = (qx_meta){.key = name, .value = copy};
    return QX_OK;
}

/* ---- dead code --------------------------------------------------------------------------------------------------- */

static bool is_dead(const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (n->out[i] && (n->out[i]->n_uses || n->out[i]->is_output)) return false;
    }
    return true;
}

static qx_status dead_in_graph(qx_graph *g, int64_t *removed);

static qx_status dead_in_bodies(qx_node *n, int64_t *removed)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].graph) QX_TRY(dead_in_graph(n->attrs[i].graph, removed));
        for (int64_t k = 0; n->attrs[i].graphs && k < n->attrs[i].n; k++) QX_TRY(dead_in_graph(n->attrs[i].graphs[k], removed));
    }
    return QX_OK;
}

/* Backwards, so that one sweep sees every user gone before its producer. */
static qx_status dead_in_graph(qx_graph *g, int64_t *removed)
{
    for (qx_node *n = g->last, *prev; n; n = prev) {
        prev = n->prev;
        if (!is_dead(n)) {
            QX_TRY(dead_in_bodies(n, removed));
            continue;
        }
        QX_TRY(qx_node_erase(n));
        ++*removed;
    }
    return QX_OK;
}

static qx_status drop_dead_inits(void *user, qx_graph *g)
{
    int64_t *removed = user;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        qx_value *v = g->inits[i];
        if (v->n_uses || v->is_output || v->is_input) {
            g->inits[kept++] = v;
            continue;
        }
        forget_value(v);
        touch_graph(g);
        ++*removed;
    }
    g->n_inits = kept;
    return QX_OK;
}

qx_status qx_dead_code(qx_model *m, int64_t *removed)
{
    int64_t count = 0;
    QX_TRY(dead_in_graph(m->graph, &count));
    for (uint32_t i = 0; i < m->n_functions; i++) QX_TRY(dead_in_graph(m->functions[i]->body, &count));
    QX_TRY(qx_model_each_graph(m, drop_dead_inits, &count));
    if (removed) *removed = count;
    return QX_OK;
}
