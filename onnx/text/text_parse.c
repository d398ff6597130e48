/* text_parse.c - graphs, nodes, attributes, functions and the model header of the text form. */
#include <stdlib.h>
#include <string.h>

#include "onnx/file/io.h"
#include "onnx/text/text.h"

static qx_status read_graph(qx_text *t, char *name, Onnx__GraphProto **out);

#define NEW(t, kind, var)                                 \
    do {                                                  \
        (var) = qx_text_new((t), sizeof *(var));          \
        if (!(var)) return QX_TEXT_NOMEM(t);              \
        onnx__##kind##__init(var);                        \
    } while (0)

static qx_status need_name(qx_text *t, const char *what, char **out)
{
    QX_TRY(qx_text_name(t, true, out));
    return *out ? QX_OK : qx_text_fail(t, "expected %s", what);
}

/* ---- attributes -------------------------------------------------------------------------------------------------------- */

static const struct { const char *word; int type; } attr_words[] = {
    {"float", QX_ATTR_FLOAT}, {"int", QX_ATTR_INT}, {"string", QX_ATTR_STRING}, {"tensor", QX_ATTR_TENSOR}, {"graph", QX_ATTR_GRAPH},
    {"floats", QX_ATTR_FLOATS},
    {"ints", QX_ATTR_INTS}, {"strings", QX_ATTR_STRINGS}, {"type_proto", QX_ATTR_TYPE_PROTO}, {"graphs", QX_ATTR_GRAPHS},
};

static qx_status read_attr_type(qx_text *t, int *out)
{
    for (size_t i = 0; i < sizeof attr_words / sizeof *attr_words; i++) {
        if (!qx_text_eat(t, attr_words[i].word)) continue;
        *out = attr_words[i].type;
        return QX_OK;
    }
    return qx_text_fail(t, "expected the type of an attribute");
}

typedef struct numbers { int64_t *ints; float *floats; size_t n; bool any_float; } numbers;

static qx_status read_numbers(qx_text *t, numbers *out)
{
    size_t cap = 0;
    while (!qx_text_peek(t, ']')) {
        bool is_float;
        double f;
        if (out->n) QX_TRY(qx_text_expect(t, ","));
        if (out->n == cap) {
            size_t more = cap ? 2 * cap : 8;
            int64_t *ints = qx_arena_array(t->m->arena, more, sizeof *ints);
            float *floats = qx_arena_array(t->m->arena, more, sizeof *floats);
            if (!ints || !floats) return QX_TEXT_NOMEM(t);
            if (cap) memcpy(ints, out->ints, cap * sizeof *ints), memcpy(floats, out->floats, cap * sizeof *floats);
            out->ints = ints;
            out->floats = floats;
            cap = more;
        }
        QX_TRY(qx_text_number(t, &is_float, &out->ints[out->n], &f));
        out->floats[out->n++] = (float)f;
        out->any_float = out->any_float || is_float;
    }
    return qx_text_expect(t, "]");
}

static qx_status read_strings(qx_text *t, Onnx__AttributeProto *a)
{
    size_t cap = 1;
    for (const char *p = t->p; *p && *p != ']'; p++) cap += *p == ',';
    a->strings = qx_arena_array(t->m->arena, cap, sizeof *a->strings);
    if (!a->strings) return QX_TEXT_NOMEM(t);
    do {
        char *s;
        if (a->n_strings == cap) return qx_text_fail(t, "a list of strings must not have ']' in a string");
        QX_TRY(qx_text_string(t, &s, &a->strings[a->n_strings].len));
        a->strings[a->n_strings++].data = (uint8_t *)s;
    } while (qx_text_eat(t, ","));
    return qx_text_expect(t, "]");
}

static qx_status read_graphs(qx_text *t, Onnx__AttributeProto *a)
{
    do {
        Onnx__GraphProto *g;
        char *name;
        QX_TRY(need_name(t, "the name of a graph", &name));
        QX_TRY(read_graph(t, name, &g));
        QX_TRY(qx_text_push(t, &a->graphs, &a->n_graphs, g));
    } while (qx_text_eat(t, ","));
    return qx_text_expect(t, "]");
}

static qx_status read_list(qx_text *t, Onnx__AttributeProto *a, int *type)
{
    numbers n = {0};
    if (*type == QX_ATTR_GRAPHS) return read_graphs(t, a);
    if (qx_text_peek(t, '"')) {
        *type = QX_ATTR_STRINGS;
        return read_strings(t, a);
    }
    QX_TRY(read_numbers(t, &n));
    if (!*type) *type = n.any_float ? QX_ATTR_FLOATS : QX_ATTR_INTS;
    if (*type == QX_ATTR_FLOATS) a->floats = n.floats, a->n_floats = n.n;
    else a->ints = n.ints, a->n_ints = n.n;
    return QX_OK;
}

static qx_status read_scalar(qx_text *t, Onnx__AttributeProto *a, int *type)
{
    bool is_float;
    double f;
    if (qx_text_peek(t, '"')) {
        char *s;
        QX_TRY(qx_text_string(t, &s, &a->s.len));
        a->s.data = (uint8_t *)s;
        a->has_s = true;
        *type = QX_ATTR_STRING;
        return QX_OK;
    }
    QX_TRY(qx_text_number(t, &is_float, &a->i, &f));
    if (!*type) *type = is_float ? QX_ATTR_FLOAT : QX_ATTR_INT;
    a->f = (float)f;
    a->has_f = *type == QX_ATTR_FLOAT;
    a->has_i = *type == QX_ATTR_INT;
    if (!a->has_i) a->i = 0;
    if (!a->has_f) a->f = 0;
    return QX_OK;
}

/* A word: a tensor ("int64[1] {2}"), a type, or a graph ("body (x) => (y) {...}"). */
static qx_status read_worded(qx_text *t, Onnx__AttributeProto *a, int *type)
{
    Onnx__TypeProto *element = NULL;
    char *name;
    if (*type != QX_ATTR_GRAPH) QX_TRY(qx_text_type(t, &element));
    if (element && *type == QX_ATTR_TYPE_PROTO) {
        a->tp = element;
        return QX_OK;
    }
    QX_TRY(qx_text_name(t, true, &name));
    if (element) {
        *type = QX_ATTR_TENSOR;
        qx_text_eat(t, "=");
        return qx_text_tensor(t, element, name, &a->t);
    }
    *type = QX_ATTR_GRAPH;
    return read_graph(t, name, &a->g);
}

static bool number_ahead(qx_text *t)
{
    qx_text_skip(t);
    return strchr("-+.0123456789\"", *t->p) != NULL || ((strncmp(t->p, "inf", 3) == 0 || strncmp(t->p, "nan", 3) == 0) &&
                                                        strchr(" ,>\n", t->p[3]));
}

static qx_status read_attr(qx_text *t, Onnx__AttributeProto **out)
{
    Onnx__AttributeProto *a;
    int type = 0;
    NEW(t, attribute_proto, a);
    *out = a;
    QX_TRY(need_name(t, "the name of an attribute", &a->name));
    if (qx_text_eat(t, ":")) QX_TRY(read_attr_type(t, &type));
    QX_TRY(qx_text_expect(t, "="));
    if (qx_text_eat(t, "@")) QX_TRY(need_name(t, "the attribute of the function", &a->ref_attr_name));
    else if (qx_text_eat(t, "[")) QX_TRY(read_list(t, a, &type));
    else if (number_ahead(t)) QX_TRY(read_scalar(t, a, &type));
    else QX_TRY(read_worded(t, a, &type));
    a->has_type = true;
    a->type = type;
    return QX_OK;
}

static qx_status read_attrs(qx_text *t, Onnx__AttributeProto ***list, size_t *count)
{
    if (!qx_text_eat(t, "<")) return QX_OK;
    while (!qx_text_eat(t, ">")) {
        Onnx__AttributeProto *a;
        if (*count) QX_TRY(qx_text_expect(t, ","));
        QX_TRY(read_attr(t, &a));
        QX_TRY(qx_text_push(t, list, count, a));
    }
    return QX_OK;
}

/* ---- nodes --------------------------------------------------------------------------------------------------------------- */

static qx_status push_name(qx_text *t, char ***list, size_t *count)
{
    char *name;
    QX_TRY(qx_text_name(t, true, &name));
    return qx_text_push(t, list, count, name ? name : (char *)"");
}

/* "op", "domain.op" (the last dot divides), with ":overload" behind. */
static qx_status read_operator(qx_text *t, Onnx__NodeProto *n)
{
    char *whole;
    QX_TRY(need_name(t, "an operator", &whole));
    char *dot = strrchr(whole, '.');
    n->op_type = dot ? dot + 1 : whole;
    if (dot) {
        *dot = '\0';
        n->domain = whole;
    }
    return qx_text_eat(t, ":") ? need_name(t, "an overload", &n->overload) : QX_OK;
}

static qx_status read_node(qx_text *t, Onnx__NodeProto **out)
{
    Onnx__NodeProto *n;
    NEW(t, node_proto, n);
    *out = n;
    if (qx_text_eat(t, "[")) {
        QX_TRY(need_name(t, "the name of a node", &n->name));
        QX_TRY(qx_text_expect(t, "]"));
    }
    if (!qx_text_peek(t, '=')) {
        do QX_TRY(push_name(t, &n->output, &n->n_output));
        while (qx_text_eat(t, ","));
    }
    QX_TRY(qx_text_expect(t, "="));
    QX_TRY(read_operator(t, n));
    QX_TRY(read_attrs(t, &n->attribute, &n->n_attribute));
    QX_TRY(qx_text_expect(t, "("));
    if (!qx_text_peek(t, ')')) {
        do QX_TRY(push_name(t, &n->input, &n->n_input));
        while (qx_text_eat(t, ","));
    }
    QX_TRY(qx_text_expect(t, ")"));
    return n->n_attribute ? QX_OK : read_attrs(t, &n->attribute, &n->n_attribute);
}

static qx_status read_nodes(qx_text *t, Onnx__NodeProto ***list, size_t *count)
{
    QX_TRY(qx_text_expect(t, "{"));
    while (!qx_text_eat(t, "}")) {
        Onnx__NodeProto *n = NULL;
        if (!*t->p) return qx_text_fail(t, "expected '}'");
        QX_TRY(read_node(t, &n));
        QX_TRY(qx_text_push(t, list, count, n));
        qx_text_eat(t, ";");
    }
    return QX_OK;
}

/* ---- graphs ---------------------------------------------------------------------------------------------------------------- */

/* A typed name, with content behind '=' when it is an initializer. */
static qx_status read_value(qx_text *t, Onnx__GraphProto *g, Onnx__ValueInfoProto **out)
{
    Onnx__ValueInfoProto *v;
    Onnx__TensorProto *tensor;
    NEW(t, value_info_proto, v);
    QX_TRY(qx_text_type(t, &v->type));
    QX_TRY(need_name(t, "the name of a value", &v->name));
    *out = v;
    if (!qx_text_eat(t, "=")) return QX_OK;
    if (!v->type) return qx_text_fail(t, "'%s' has content but no type", v->name);
    QX_TRY(qx_text_tensor(t, v->type, v->name, &tensor));
    return qx_text_push(t, &g->initializer, &g->n_initializer, tensor);
}

static qx_status read_values(qx_text *t, Onnx__GraphProto *g, const char *open, const char *close, Onnx__ValueInfoProto ***list,
                             size_t *count, bool inits)
{
    QX_TRY(qx_text_expect(t, open));
    for (bool first = true; !qx_text_eat(t, close); first = false) {
        Onnx__ValueInfoProto *v = NULL;
        size_t before = g->n_initializer;
        if (!first) QX_TRY(qx_text_expect(t, ","));
        QX_TRY(read_value(t, g, &v));
        if (!inits || g->n_initializer == before) QX_TRY(qx_text_push(t, list, count, v));
    }
    return QX_OK;
}

static qx_status read_graph(qx_text *t, char *name, Onnx__GraphProto **out)
{
    Onnx__GraphProto *g;
    NEW(t, graph_proto, g);
    *out = g;
    g->name = name;
    if (++t->depth > QX_MAX_NESTING) return qx_text_fail(t, "graphs are nested deeper than %d", QX_MAX_NESTING);
    QX_TRY(read_values(t, g, "(", ")", &g->input, &g->n_input, false));
    QX_TRY(qx_text_expect(t, "=>"));
    QX_TRY(read_values(t, g, "(", ")", &g->output, &g->n_output, false));
    if (qx_text_peek(t, '<')) QX_TRY(read_values(t, g, "<", ">", &g->value_info, &g->n_value_info, true));
    QX_TRY(read_nodes(t, &g->node, &g->n_node));
    t->depth--;
    return QX_OK;
}

/* ---- the header, functions -------------------------------------------------------------------------------------------------- */

static qx_status read_opsets(qx_text *t, Onnx__OperatorSetIdProto ***list, size_t *count)
{
    QX_TRY(qx_text_expect(t, "["));
    while (!qx_text_eat(t, "]")) {
        Onnx__OperatorSetIdProto *o;
        size_t len;
        bool is_float;
        double f;
        if (*count) QX_TRY(qx_text_expect(t, ","));
        NEW(t, operator_set_id_proto, o);
        QX_TRY(qx_text_string(t, &o->domain, &len));
        QX_TRY(qx_text_expect(t, ":"));
        QX_TRY(qx_text_number(t, &is_float, &o->version, &f));
        o->has_version = true;
        QX_TRY(qx_text_push(t, list, count, o));
    }
    return QX_OK;
}

static qx_status read_meta(qx_text *t, Onnx__StringStringEntryProto ***list, size_t *count)
{
    QX_TRY(qx_text_expect(t, "["));
    while (!qx_text_eat(t, "]")) {
        Onnx__StringStringEntryProto *e;
        size_t len;
        if (*count) QX_TRY(qx_text_expect(t, ","));
        NEW(t, string_string_entry_proto, e);
        QX_TRY(qx_text_string(t, &e->key, &len));
        QX_TRY(qx_text_expect(t, ":"));
        QX_TRY(qx_text_string(t, &e->value, &len));
        QX_TRY(qx_text_push(t, list, count, e));
    }
    return QX_OK;
}

static qx_status read_integer(qx_text *t, int64_t *out)
{
    bool is_float;
    double f;
    return qx_text_number(t, &is_float, out, &f);
}

static qx_status read_header_entry(qx_text *t, Onnx__ModelProto *m)
{
    char *key;
    size_t len;
    QX_TRY(need_name(t, "a field of the model", &key));
    QX_TRY(qx_text_expect(t, ":"));
    if (strcmp(key, "ir_version") == 0) {
        m->has_ir_version = true;
        return read_integer(t, &m->ir_version);
    }
    if (strcmp(key, "model_version") == 0) {
        m->has_model_version = true;
        return read_integer(t, &m->model_version);
    }
    if (strcmp(key, "opset_import") == 0) return read_opsets(t, &m->opset_import, &m->n_opset_import);
    if (strcmp(key, "metadata_props") == 0) return read_meta(t, &m->metadata_props, &m->n_metadata_props);
    if (strcmp(key, "producer_name") == 0) return qx_text_string(t, &m->producer_name, &len);
    if (strcmp(key, "producer_version") == 0) return qx_text_string(t, &m->producer_version, &len);
    if (strcmp(key, "domain") == 0) return qx_text_string(t, &m->domain, &len);
    if (strcmp(key, "doc_string") == 0) return qx_text_string(t, &m->doc_string, &len);
    return qx_text_fail(t, "a model has no field '%s'", key);
}

static qx_status read_names(qx_text *t, const char *open, const char *close, char ***list, size_t *count)
{
    QX_TRY(qx_text_expect(t, open));
    while (!qx_text_eat(t, close)) {
        char *name;
        if (*count) QX_TRY(qx_text_expect(t, ","));
        QX_TRY(need_name(t, "a name", &name));
        QX_TRY(qx_text_push(t, list, count, name));
    }
    return QX_OK;
}

/* Attributes of a function: a bare name, or "name: type = default". */
static qx_status read_function_attrs(qx_text *t, Onnx__FunctionProto *f)
{
    if (!qx_text_eat(t, "<")) return QX_OK;
    for (bool first = true; !qx_text_eat(t, ">"); first = false) {
        char *name;
        if (!first) QX_TRY(qx_text_expect(t, ","));
        const char *before = t->p;
        QX_TRY(need_name(t, "the name of an attribute", &name));
        if (!qx_text_peek(t, ':') && !qx_text_peek(t, '=')) {
            QX_TRY(qx_text_push(t, &f->attribute, &f->n_attribute, name));
            continue;
        }
        Onnx__AttributeProto *a;
        t->p = before;
        QX_TRY(read_attr(t, &a));
        QX_TRY(qx_text_push(t, &f->attribute_proto, &f->n_attribute_proto, a));
    }
    return QX_OK;
}

static qx_status read_function_head(qx_text *t, Onnx__FunctionProto *f)
{
    size_t len;
    QX_TRY(qx_text_expect(t, "<"));
    for (bool first = true; !qx_text_eat(t, ">"); first = false) {
        char *key;
        if (!first) QX_TRY(qx_text_expect(t, ","));
        QX_TRY(need_name(t, "a field of the function", &key));
        QX_TRY(qx_text_expect(t, ":"));
        if (strcmp(key, "opset_import") == 0) QX_TRY(read_opsets(t, &f->opset_import, &f->n_opset_import));
        else if (strcmp(key, "domain") == 0) QX_TRY(qx_text_string(t, &f->domain, &len));
        else if (strcmp(key, "overload") == 0) QX_TRY(qx_text_string(t, &f->overload, &len));
        else if (strcmp(key, "doc_string") == 0) QX_TRY(qx_text_string(t, &f->doc_string, &len));
        else return qx_text_fail(t, "a function has no field '%s'", key);
    }
    return QX_OK;
}

static qx_status read_function(qx_text *t, Onnx__FunctionProto **out)
{
    Onnx__FunctionProto *f;
    NEW(t, function_proto, f);
    *out = f;
    QX_TRY(read_function_head(t, f));
    QX_TRY(need_name(t, "the name of a function", &f->name));
    QX_TRY(read_function_attrs(t, f));
    QX_TRY(read_names(t, "(", ")", &f->input, &f->n_input));
    QX_TRY(qx_text_expect(t, "=>"));
    QX_TRY(read_names(t, "(", ")", &f->output, &f->n_output));
    return read_nodes(t, &f->node, &f->n_node);
}

qx_status qx_text_model(qx_text *t, Onnx__ModelProto **out)
{
    Onnx__ModelProto *m;
    char *name;
    NEW(t, model_proto, m);
    *out = m;
    if (qx_text_eat(t, "<")) {
        for (bool first = true; !qx_text_eat(t, ">"); first = false) {
            if (!first) QX_TRY(qx_text_expect(t, ","));
            QX_TRY(read_header_entry(t, m));
        }
    }
    QX_TRY(need_name(t, "the name of the graph", &name));
    QX_TRY(read_graph(t, name, &m->graph));
    while (qx_text_peek(t, '<')) {
        Onnx__FunctionProto *f = NULL;
        QX_TRY(read_function(t, &f));
        QX_TRY(qx_text_push(t, &m->functions, &m->n_functions, f));
    }
    qx_text_skip(t);
    return *t->p ? qx_text_fail(t, "something stands behind the model") : QX_OK;
}

qx_status qx_model_parse_text_raw(qx_ctx *ctx, const char *text, qx_model **out)
{
    qx_model *m;
    Onnx__ModelProto *proto;
    QX_TRY(qx_model_new(ctx, NULL, &m));
    qx_text t = {.m = m, .start = text, .p = text};
    qx_status st = qx_text_model(&t, &proto);
    if (st == QX_OK) st = qx_build_model(m, proto);
    m->dirty = true; /* there is no file that the writer could copy */
    if (st == QX_OK) *out = m;
    else qx_model_free(m);
    return st;
}

qx_status qx_model_parse_text(qx_ctx *ctx, const char *text, qx_model **out)
{
    qx_model *m;
    QX_TRY(qx_model_parse_text_raw(ctx, text, &m));
    qx_status st = qx_check(m, false);
    if (st == QX_OK) st = qx_infer_shapes(m, NULL, 0);
    if (st == QX_OK) *out = m;
    else qx_model_free(m);
    return st;
}
