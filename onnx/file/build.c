/* build.c - from the messages of a model to its graph: scopes, values, nodes, captures, use lists, functions.
 *
 * What the graph cannot represent is refused here (two producers of one name, initializers without a name, endless nesting);
 * everything else that is wrong is kept as it is and found by qx_check. A name that nothing defines becomes a value without a
 * producer, so that even a broken model can be looked at. */
#include "onnx/file/build.h"

#include <string.h>

#include "base/text.h"

typedef struct builder {
    qx_model *m;
    uint64_t hash;
} builder;

#define SHOWN(s) qx_printable((s), (char[200]){0}, 200)

static qx_status build_graph(builder *b, qx_graph *g, Onnx__GraphProto *p, int depth);

static qx_status intern(builder *b, const char *text, const char **out)
{
    *out = qx_intern_kept(b->m->names, qx_text_or_empty(text));
    return *out ? QX_OK : QX_NOMEM(b->m);
}

static qx_status intern_domain(builder *b, const char *text, const char **out)
{
    text = qx_text_or_empty(text);
    return intern(b, strcmp(text, "ai.onnx") == 0 ? "" : text, out);
}

/* ---- the hash of the structure ------------------------------------------------------------------------------------ */

static void hash_bytes(builder *b, const void *p, size_t n)
{
    uint64_t pair[2] = {b->hash, n ? qx_hash64(p, n) : 0};
    b->hash = qx_hash64(pair, sizeof pair);
}

static void hash_text(builder *b, const char *s)
{
    hash_bytes(b, s, strlen(s));
}

static void hash_weight(builder *b, const qx_weight *w)
{
    if (!w) return;
    hash_text(b, w->name ? w->name : "");
    int64_t facts[3] = {w->dtype, w->src.offset, w->src.length};
    hash_bytes(b, facts, sizeof facts);
    hash_bytes(b, w->dims, (size_t)w->rank * sizeof *w->dims);
}

static void hash_attr(builder *b, const qx_attr *a)
{
    hash_text(b, a->name);
    int64_t facts[2] = {a->type, a->i};
    hash_bytes(b, facts, sizeof facts);
    hash_bytes(b, &a->f, sizeof a->f);
    if (a->s) hash_bytes(b, a->s, a->s_len);
    if (a->ints) hash_bytes(b, a->ints, (size_t)a->n * sizeof *a->ints);
    if (a->floats) hash_bytes(b, a->floats, (size_t)a->n * sizeof *a->floats);
    hash_weight(b, a->tensor);
}

static void hash_node(builder *b, const qx_node *n)
{
    hash_text(b, n->domain);
    hash_text(b, n->op_type);
    hash_text(b, n->name);
    for (uint32_t i = 0; i < n->n_in; i++) hash_text(b, n->in[i] ? n->in[i]->name : "");
    for (uint32_t i = 0; i < n->n_out; i++) hash_text(b, n->out[i] ? n->out[i]->name : "");
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

/* The value of this name in this very scope, made when it is not there. */
static qx_status value_here(builder *b, qx_graph *g, const char *name, qx_value **out)
{
    *out = qx_map_get(g->values, name);
    if (*out) return QX_OK;
    const char *interned;
    QX_TRY(intern(b, name, &interned));
    return qx_value_make(g, interned, out);
}

static qx_status declare(builder *b, qx_value *v, Onnx__ValueInfoProto *p)
{
    qx_status st = qx_build_type(b->m, p->type, &v->type);
    if (st != QX_OK) return qx_note(b->m->ctx, st, "value '%s'", SHOWN(v->name));
    v->wire = p;
    return QX_OK;
}

static qx_status add_input(builder *b, qx_graph *g, const char *name, Onnx__ValueInfoProto *p)
{
    qx_value *v;
    if (!name[0]) QX_FAIL(b->m->ctx, QX_E_FORMAT, "graph '%s': input %u has no name", SHOWN(g->name), g->n_inputs);
    if (qx_map_get(g->values, name))
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "graph '%s': input '%s' is declared twice", SHOWN(g->name), SHOWN(name));
    QX_TRY(value_here(b, g, name, &v));
    v->is_input = true;
    QX_TRY(QX_LIST_PUSH(b->m, &g->inputs, &g->n_inputs, v));
    return p ? declare(b, v, p) : QX_OK;
}

static qx_status claim_init(builder *b, qx_graph *g, const char *name, qx_value **out)
{
    if (!name[0]) QX_FAIL(b->m->ctx, QX_E_FORMAT, "graph '%s': initializer %u has no name", SHOWN(g->name), g->n_inits);
    QX_TRY(value_here(b, g, name, out));
    if ((*out)->init || (*out)->sparse)
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "graph '%s': initializer '%s' is there twice", SHOWN(g->name), SHOWN(name));
    return QX_LIST_PUSH(b->m, &g->inits, &g->n_inits, *out);
}

static qx_status add_init(builder *b, qx_graph *g, Onnx__TensorProto *t)
{
    qx_value *v;
    QX_TRY(claim_init(b, g, qx_text_or_empty(t->name), &v));
    QX_TRY(qx_weight_from_proto(b->m, t, &v->init));
    v->init->name = v->name;
    hash_weight(b, v->init);
    if (v->is_input && v->type.kind == QX_KIND_TENSOR) return QX_OK; /* the declaration stands; qx_check compares */
    return qx_type_tensor(b->m, v->init->dtype, v->init->rank, v->init->dims, &v->type);
}

static qx_status add_sparse(builder *b, qx_graph *g, Onnx__SparseTensorProto *s)
{
    qx_value *v;
    QX_TRY(claim_init(b, g, qx_text_or_empty(s->values ? s->values->name : NULL), &v));
    qx_status st = qx_build_sparse(b->m, s, &v->sparse);
    if (st != QX_OK) return qx_note(b->m->ctx, st, "sparse initializer '%s'", SHOWN(v->name));
    hash_weight(b, v->sparse->values);
    hash_weight(b, v->sparse->indices);
    return qx_type_tensor(b->m, v->sparse->values->dtype, v->sparse->rank, v->sparse->dims, &v->type);
}

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

static qx_status add_output(builder *b, qx_node *n, uint32_t i, const char *name)
{
    char label[256];
    if (!name[0]) return QX_OK;
    qx_value *v = qx_map_get(n->graph->values, name);
    if (v) {
        const char *what = v->is_input ? "a graph input" : v->init || v->sparse ? "an initializer" : "made by another node";
        const char *quote = n->name[0] ? "'" : "";
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "node %s%s%s%s(%s): output %u '%s' is already %s%s%s", quote, SHOWN(n->name), quote,
                *quote ? " " : "", n->op_type, i, SHOWN(name), what, v->def ? ": " : "",
                v->def ? qx_node_label(v->def, label, sizeof label) : "");
    }
    QX_TRY(value_here(b, n->graph, name, &v));
    v->def = n;
    v->def_index = i;
    n->out[i] = v;
    return QX_OK;
}

/* torch.onnx's dynamo exporter names nodes by number and writes the modules into metadata, outermost first and the operation last:
 * "['', 'm', 'm.blocks.0', 'linear_3']" gives m.blocks.0. */
static qx_status read_scope(builder *b, qx_node *n, const Onnx__NodeProto *p)
{
    const char *text = NULL, *end = NULL, *open;
    for (size_t i = 0; i < p->n_metadata_props; i++)
        if (strcmp(qx_text_or_empty(p->metadata_props[i]->key), "pkg.torch.onnx.name_scopes") == 0)
            text = qx_text_or_empty(p->metadata_props[i]->value);
    if (!text || !(end = strrchr(text, ','))) return QX_OK;
    for (end--; end > text && *end != '\''; end--) {}
    for (open = end; open > text && open[-1] != '\'';) open--;
    if (open == text || open == end) return QX_OK;
    n->scope = qx_arena_strndup(b->m->arena, open, (size_t)(end - open));
    return n->scope ? QX_OK : QX_NOMEM(b->m);
}

static qx_status add_node(builder *b, qx_graph *g, Onnx__NodeProto *p)
{
    const char *op_type, *domain, *name;
    qx_node *n;
    if (!qx_text_or_empty(p->op_type)[0])
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "node %u '%s' of graph '%s' has no op_type", g->n_nodes, SHOWN(qx_text_or_empty(p->name)),
                SHOWN(g->name));
    if (p->n_input > UINT32_MAX / 2 || p->n_output > UINT32_MAX / 2)
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "node '%s' has %zu inputs", SHOWN(qx_text_or_empty(p->name)), p->n_input);
    QX_TRY(intern(b, p->op_type, &op_type));
    QX_TRY(intern_domain(b, p->domain, &domain));
    QX_TRY(intern(b, p->name, &name));
    QX_TRY(qx_node_make(g, op_type, domain, name, (uint32_t)p->n_input, (uint32_t)p->n_output, &n));
    QX_TRY(intern(b, p->overload, &n->overload));
    n->wire = n->wire_origin = p;
    QX_TRY(read_scope(b, n, p));
    if (b->m->n_functions) n->callee = qx_model_function(b->m, domain, op_type, n->overload);
    for (uint32_t i = 0; i < n->n_out; i++) QX_TRY(add_output(b, n, i, p->output[i]));
    qx_node_link(g, n, NULL);
    return QX_OK;
}

static qx_status resolve_inputs(builder *b, qx_node *n)
{
    const Onnx__NodeProto *p = n->wire_origin;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!p->input[i][0]) continue;
        n->in[i] = qx_graph_find(n->graph, p->input[i]);
        if (!n->in[i]) QX_TRY(value_here(b, n->graph, p->input[i], &n->in[i]));
    }
    return QX_OK;
}

static qx_status add_body(builder *b, qx_node *n, Onnx__GraphProto *p, int depth, qx_graph **out)
{
    const char *name;
    char label[256];
    if (depth >= QX_MAX_NESTING)
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "%s: subgraphs are nested deeper than %d", qx_node_label(n, label, sizeof label), QX_MAX_NESTING);
    QX_TRY(intern(b, p->name, &name));
    QX_TRY(qx_graph_make(b->m, name, n->graph, n, out));
    return build_graph(b, *out, p, depth + 1);
}

static qx_status add_bodies(builder *b, qx_node *n, const Onnx__AttributeProto *p, int depth, qx_attr *a)
{
    if (a->ref_name) return QX_OK;
    if (a->type == QX_ATTR_GRAPH && p->g) return add_body(b, n, p->g, depth, &a->graph);
    if (a->type != QX_ATTR_GRAPHS) return QX_OK;
    a->graphs = qx_arena_array(b->m->arena, p->n_graphs ? p->n_graphs : 1, sizeof *a->graphs);
    if (!a->graphs) return QX_NOMEM(b->m);
    for (size_t i = 0; i < p->n_graphs; i++) {
        QX_TRY(add_body(b, n, p->graphs[i], depth, &a->graphs[i]));
        a->n = (int64_t)i + 1;
    }
    return QX_OK;
}

static qx_status add_attrs(builder *b, qx_node *n, int depth)
{
    const Onnx__NodeProto *p = n->wire_origin;
    char label[256];
    if (!p->n_attribute) return QX_OK;
    if (p->n_attribute > QX_MAX_ATTRS)
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "%s has %zu attributes; at most %d are read", qx_node_label(n, label, sizeof label),
                p->n_attribute, QX_MAX_ATTRS);
    n->attrs = qx_arena_array(b->m->arena, p->n_attribute, sizeof *n->attrs);
    if (!n->attrs) return QX_NOMEM(b->m);
    for (size_t i = 0; i < p->n_attribute; i++) {
        qx_attr *a = &n->attrs[i];
        qx_status st = qx_build_attr(b->m, p->attribute[i], a);
        if (st != QX_OK)
            return qx_note(b->m->ctx, st, "%s attribute '%s'", qx_node_label(n, label, sizeof label),
                           SHOWN(qx_text_or_empty(p->attribute[i]->name)));
        n->n_attrs = (uint32_t)i + 1;
        hash_attr(b, a);
        QX_TRY(add_bodies(b, n, p->attribute[i], depth, a));
    }
    return QX_OK;
}

/* Backwards with prepending, so that every list of uses ends up in graph order. */
static qx_status link_uses(qx_graph *g)
{
    for (qx_node *n = g->last; n; n = n->prev) {
        for (uint32_t i = n->n_attrs; i-- > 0;) {
            const qx_attr *a = &n->attrs[i];
            for (int64_t k = a->graphs ? a->n : 0; k-- > 0;) QX_TRY(link_uses(a->graphs[k]));
            if (a->graph) QX_TRY(link_uses(a->graph));
        }
        for (uint32_t i = n->n_in; i-- > 0;) QX_TRY(qx_use_add(n->in[i], n, i));
    }
    return QX_OK;
}

/* ---- graphs ------------------------------------------------------------------------------------------------------- */

static qx_status set_output(builder *b, qx_graph *g, const char *name, Onnx__ValueInfoProto *p)
{
    if (!name[0]) QX_FAIL(b->m->ctx, QX_E_FORMAT, "graph '%s': output %u has no name", SHOWN(g->name), g->n_outputs);
    qx_value *v = qx_graph_find(g, name);
    if (!v) QX_TRY(value_here(b, g, name, &v));
    v->is_output = true;
    QX_TRY(QX_LIST_PUSH(b->m, &g->outputs, &g->n_outputs, v));
    if (!p || v->graph != g || v->wire) return QX_OK;
    if (!v->init && !v->sparse) return declare(b, v, p);
    v->wire = p;
    return QX_OK;
}

static qx_status add_value_info(builder *b, qx_graph *g, Onnx__ValueInfoProto **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        qx_value *v = qx_map_get(g->values, qx_text_or_empty(list[i]->name));
        if (!v || v->wire) continue;
        if (v->init || v->sparse) v->wire = list[i];
        else QX_TRY(declare(b, v, list[i]));
    }
    return QX_OK;
}

static qx_status add_nodes(builder *b, qx_graph *g, Onnx__NodeProto **list, size_t count, int depth)
{
    for (size_t i = 0; i < count; i++) QX_TRY(add_node(b, g, list[i]));
    QX_FOR_NODES(g, n) {
        QX_TRY(resolve_inputs(b, n));
        hash_node(b, n);
        QX_TRY(add_attrs(b, n, depth));
    }
    return QX_OK;
}

static qx_status build_graph(builder *b, qx_graph *g, Onnx__GraphProto *p, int depth)
{
    g->wire = p;
    for (size_t i = 0; i < p->n_input; i++) QX_TRY(add_input(b, g, qx_text_or_empty(p->input[i]->name), p->input[i]));
    for (size_t i = 0; i < p->n_initializer; i++) QX_TRY(add_init(b, g, p->initializer[i]));
    for (size_t i = 0; i < p->n_sparse_initializer; i++) QX_TRY(add_sparse(b, g, p->sparse_initializer[i]));
    QX_TRY(add_nodes(b, g, p->node, p->n_node, depth));
    for (size_t i = 0; i < p->n_output; i++) QX_TRY(set_output(b, g, qx_text_or_empty(p->output[i]->name), p->output[i]));
    return add_value_info(b, g, p->value_info, p->n_value_info);
}

/* ---- functions ---------------------------------------------------------------------------------------------------- */

/* skl2onnx writes an import twice, word for word; ONNX Runtime takes it. */
static bool imported(const qx_opset *list, uint32_t n, const qx_opset *o)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i].domain == o->domain && list[i].version == o->version) return true;
    return false;
}

static qx_status build_opsets(builder *b, Onnx__OperatorSetIdProto **list, size_t count, qx_opset **out, uint32_t *n_out)
{
    if (count > QX_MAX_IMPORTS)
        QX_FAIL(b->m->ctx, QX_E_FORMAT, "%zu operator sets are imported; at most %d are read", count, QX_MAX_IMPORTS);
    *out = qx_arena_array(b->m->arena, count ? count : 1, sizeof **out);
    if (!*out) return QX_NOMEM(b->m);
    *n_out = 0;
    for (size_t i = 0; i < count; i++) {
        qx_opset *o = &(*out)[*n_out];
        QX_TRY(intern_domain(b, list[i]->domain, &o->domain));
        o->version = list[i]->version;
        *n_out += !imported(*out, *n_out, o);
    }
    return QX_OK;
}

static qx_status function_head(builder *b, Onnx__FunctionProto *p, qx_function **out)
{
    qx_function *f = qx_arena_alloc(b->m->arena, sizeof *f);
    if (!f) return QX_NOMEM(b->m);
    f->wire = p;
    QX_TRY(intern(b, p->name, &f->name));
    QX_TRY(intern_domain(b, p->domain, &f->domain));
    QX_TRY(intern(b, p->overload, &f->overload));
    qx_opset *opsets;
    QX_TRY(build_opsets(b, p->opset_import, p->n_opset_import, &opsets, &f->n_opsets));
    f->opsets = opsets;
    QX_TRY(qx_graph_make(b->m, f->name, NULL, NULL, &f->body));
    f->body->function = f;
    *out = f;
    return QX_OK;
}

static qx_status function_attrs(builder *b, qx_function *f, const Onnx__FunctionProto *p)
{
    const char **names = qx_arena_array(b->m->arena, p->n_attribute ? p->n_attribute : 1, sizeof *names);
    f->attr_defaults = qx_arena_array(b->m->arena, p->n_attribute_proto ? p->n_attribute_proto : 1, sizeof *f->attr_defaults);
    if (!names || !f->attr_defaults) return QX_NOMEM(b->m);
    for (size_t i = 0; i < p->n_attribute; i++) QX_TRY(intern(b, p->attribute[i], &names[i]));
    for (size_t i = 0; i < p->n_attribute_proto; i++) QX_TRY(qx_build_attr(b->m, p->attribute_proto[i], &f->attr_defaults[i]));
    f->attr_names = names;
    f->n_attr_names = (uint32_t)p->n_attribute;
    f->n_attr_defaults = (uint32_t)p->n_attribute_proto;
    return QX_OK;
}

static qx_status function_body(builder *b, qx_function *f)
{
    Onnx__FunctionProto *p = f->wire;
    qx_graph *g = f->body;
    QX_TRY(function_attrs(b, f, p));
    for (size_t i = 0; i < p->n_input; i++) QX_TRY(add_input(b, g, qx_text_or_empty(p->input[i]), NULL));
    QX_TRY(add_nodes(b, g, p->node, p->n_node, 0));
    for (size_t i = 0; i < p->n_output; i++) QX_TRY(set_output(b, g, qx_text_or_empty(p->output[i]), NULL));
    QX_TRY(add_value_info(b, g, p->value_info, p->n_value_info));
    return link_uses(g);
}

static qx_status build_functions(builder *b, Onnx__ModelProto *p)
{
    qx_model *m = b->m;
    if (p->n_functions > QX_MAX_FUNCTIONS)
        QX_FAIL(m->ctx, QX_E_FORMAT, "the model has %zu local functions; at most %d are read", p->n_functions, QX_MAX_FUNCTIONS);
    for (size_t i = 0; i < p->n_functions; i++) {
        qx_function *f = NULL;
        QX_TRY(function_head(b, p->functions[i], &f));
        f->index = m->n_functions;
        QX_TRY(QX_LIST_PUSH(m, &m->functions, &m->n_functions, f));
        QX_TRY(qx_model_index_function(m, f));
    }
    for (uint32_t i = 0; i < m->n_functions; i++) {
        qx_status st = function_body(b, m->functions[i]);
        if (st != QX_OK) return qx_note(m->ctx, st, "function '%s'", SHOWN(m->functions[i]->name));
    }
    return QX_OK;
}

/* ---- the model ---------------------------------------------------------------------------------------------------- */

static qx_status build_head(builder *b, Onnx__ModelProto *p)
{
    qx_model *m = b->m;
    m->wire = p;
    m->ir_version = p->has_ir_version ? p->ir_version : 0;
    m->model_version = p->model_version;
    QX_TRY(intern(b, p->producer_name, &m->producer_name));
    QX_TRY(intern(b, p->producer_version, &m->producer_version));
    QX_TRY(intern(b, p->domain, &m->domain));
    m->doc = qx_text_or_empty(p->doc_string);
    QX_TRY(build_opsets(b, p->opset_import, p->n_opset_import, &m->opsets, &m->n_opsets));
    m->meta = qx_arena_array(m->arena, p->n_metadata_props ? p->n_metadata_props : 1, sizeof *m->meta);
    if (!m->meta) return QX_NOMEM(m);
    for (size_t i = 0; i < p->n_metadata_props; i++) {
        m->meta[i] = (qx_meta){.key = qx_text_or_empty(p->metadata_props[i]->key), .value = qx_text_or_empty(p->metadata_props[i]->value)};
    }
    m->n_meta = (uint32_t)p->n_metadata_props;
    return QX_OK;
}

qx_status qx_build_model(qx_model *m, Onnx__ModelProto *p)
{
    builder b = {.m = m};
    const char *name;
    if (!p->graph) QX_FAIL(m->ctx, QX_E_FORMAT, "the model has no graph");
    QX_TRY(build_head(&b, p));
    QX_TRY(build_functions(&b, p));
    QX_TRY(intern(&b, p->graph->name, &name));
    QX_TRY(qx_graph_make(m, name, NULL, NULL, &m->graph));
    QX_TRY(build_graph(&b, m->graph, p->graph, 0));
    QX_TRY(link_uses(m->graph));
    m->graph_hash = b.hash;
    return QX_OK;
}
