/* text_print.c - a model as text. Same model, same text: everything in the order in which the graph holds it. Tensors of more than 16
 * elements are printed as the hash of their content, so that a golden text stays small and still notices a changed bit. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "onnx/file/io.h"
#include "onnx/text/text.h"

enum { WRITTEN_OUT = 16 };
typedef struct printer { qx_buf *b; const qx_model *m; } printer;

#define PUT(p, ...) QX_TRY(qx_buf_printf((p)->b, __VA_ARGS__))

static qx_status put_quoted(printer *p, const char *s, size_t n)
{
    PUT(p, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') PUT(p, "\\%c", c);
        else if (c == '\n') PUT(p, "\\n");
        else PUT(p, "%c", c < 32 ? '?' : c);
    }
    PUT(p, "\"");
    return QX_OK;
}

static bool is_identifier(const char *s)
{
    if (!*s || isdigit((unsigned char)*s) || *s == '.') return false;
    while (isalnum((unsigned char)*s) || *s == '_' || *s == '.') s++;
    return *s == '\0';
}

static qx_status put_name(printer *p, const char *s)
{
    if (!is_identifier(s)) return put_quoted(p, s, strlen(s));
    PUT(p, "%s", s);
    return QX_OK;
}

/* ---- types and tensors ---------------------------------------------------------------------------------------------------- */

static qx_status put_lower(printer *p, const char *s)
{
    for (; *s; s++) PUT(p, "%c", tolower((unsigned char)*s));
    return QX_OK;
}

static qx_status put_type(printer *p, const qx_type *t)
{
    if (t->kind == QX_KIND_SEQUENCE || t->kind == QX_KIND_OPTIONAL) {
        PUT(p, t->kind == QX_KIND_SEQUENCE ? "seq(" : "optional(");
        if (t->elem) QX_TRY(put_type(p, t->elem));
        PUT(p, ")");
        return QX_OK;
    }
    if (t->kind == QX_KIND_NONE) return QX_OK;
    if (t->kind == QX_KIND_SPARSE) PUT(p, "sparse_");
    QX_TRY(put_lower(p, qx_dtype_get(t->dtype)->name));
    if (!t->has_shape) PUT(p, "[]");
    for (int i = 0; t->has_shape && i < t->rank; i++) {
        PUT(p, i ? ", " : "[");
        if (t->dims[i].n >= 0) PUT(p, "%lld", (long long)t->dims[i].n);
        else if (t->dims[i].sym) QX_TRY(put_name(p, t->dims[i].sym));
        else PUT(p, "?");
    }
    if (t->has_shape && t->rank) PUT(p, "]");
    return QX_OK;
}

/* The shortest text that reads back as the same float, always recognisable as a real number. */
static qx_status put_float(printer *p, double v, bool is_double)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back = 0;
        sscanf(text, "%lf", &back);
        if (!isfinite(v) || (is_double ? back == v : (float)back == (float)v)) break;
    }
    PUT(p, "%s%s", text, isfinite(v) && !strpbrk(text, ".e") ? ".0" : "");
    return QX_OK;
}

static int64_t code_at(int dtype, const uint8_t *data, int64_t i)
{
    int bits = qx_dtype_bits(dtype);
    bool is_signed = qx_dtype_get(dtype)->cls == 'I';
    uint64_t v = 0;
    if (bits >= 8) memcpy(&v, data + (size_t)i * (size_t)(bits / 8), (size_t)bits / 8);
    else v = (uint64_t)(data[i * bits / 8] >> (i * bits % 8)) & ((1u << bits) - 1);
    if (is_signed && bits < 64 && (v >> (bits - 1) & 1)) v |= ~UINT64_C(0) << bits;
    return (int64_t)v;
}

static qx_status put_element(printer *p, int dtype, const uint8_t *data, int64_t i)
{
    if (dtype == QX_DT_DOUBLE) {
        double v;
        memcpy(&v, data + i * 8, 8);
        return put_float(p, v, true);
    }
    if (qx_dtype_is_float(dtype)) {
        float v = 0;
        uint64_t code = (uint64_t)code_at(dtype, data, i);
        qx_ref_to_f32(dtype, &code, 1, &v);
        return put_float(p, v, false);
    }
    if (dtype == QX_DT_UINT64) PUT(p, "%llu", (unsigned long long)code_at(dtype, data, i));
    else PUT(p, "%lld", (long long)code_at(dtype, data, i));
    return QX_OK;
}

static qx_status put_content(printer *p, const qx_weight *w)
{
    qx_ctx *ctx = p->m->ctx;
    char cls = qx_dtype_get(w->dtype)->cls;
    if (w->dtype == QX_DT_STRING && w->src.strings && w->numel <= WRITTEN_OUT) {
        PUT(p, "{");
        for (int64_t i = 0; i < w->numel; i++) {
            if (i) PUT(p, ", ");
            QX_TRY(put_quoted(p, w->src.strings[i], w->src.string_lens[i]));
        }
        PUT(p, "}");
        return QX_OK;
    }
    if (w->numel > WRITTEN_OUT || cls == 'C' || cls == 'S') {
        uint64_t h = 0;
        if (cls != 'S') QX_TRY(qx_weight_hash(ctx, w, &h));
        PUT(p, "hash(%016llx)", (unsigned long long)h);
        return QX_OK;
    }
    uint8_t data[WRITTEN_OUT * 8];
    QX_TRY(qx_weight_read(ctx, w, data));
    PUT(p, "{");
    for (int64_t i = 0; i < w->numel; i++) {
        if (i) PUT(p, ", ");
        QX_TRY(put_element(p, (int)w->dtype, data, i));
    }
    PUT(p, "}");
    return QX_OK;
}

static qx_status put_weight_type(printer *p, const qx_weight *w)
{
    QX_TRY(put_lower(p, qx_dtype_get(w->dtype)->name));
    for (int i = 0; i < w->rank; i++) PUT(p, "%s%lld", i ? ", " : "[", (long long)w->dims[i]);
    if (w->rank) PUT(p, "]");
    return QX_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------------------ */

static qx_status put_graph(printer *p, const qx_graph *g, int indent);

static const char *const attr_type_words[] = {"", "float", "int", "string", "tensor", "graph", "floats", "ints", "strings", "tensors",
                                              "graphs", "sparse_tensor", "sparse_tensors", "type_proto", "type_protos"};

static qx_status put_list(printer *p, const qx_attr *a)
{
    PUT(p, a->n ? " = [" : ": %s = [", attr_type_words[a->type]);
    for (int64_t i = 0; i < a->n; i++) {
        if (i) PUT(p, ", ");
        if (a->type == QX_ATTR_INTS) PUT(p, "%lld", (long long)a->ints[i]);
        else if (a->type == QX_ATTR_FLOATS) QX_TRY(put_float(p, (double)a->floats[i], false));
        else QX_TRY(put_quoted(p, a->strings[i], a->string_lens[i]));
    }
    PUT(p, "]");
    return QX_OK;
}

static qx_status put_attr(printer *p, const qx_attr *a, int indent)
{
    QX_TRY(put_name(p, a->name));
    if (a->ref_name) {
        PUT(p, ": %s = @", attr_type_words[a->type]);
        return put_name(p, a->ref_name);
    }
    switch (a->type) {
    case QX_ATTR_INTS: case QX_ATTR_FLOATS: case QX_ATTR_STRINGS: return put_list(p, a);
    case QX_ATTR_INT: PUT(p, " = %lld", (long long)a->i); return QX_OK;
    case QX_ATTR_FLOAT: PUT(p, " = "); return put_float(p, (double)a->f, false);
    case QX_ATTR_STRING: PUT(p, " = "); return put_quoted(p, a->s, a->s_len);
    case QX_ATTR_TENSOR:
        PUT(p, " = ");
        QX_TRY(put_weight_type(p, a->tensor));
        PUT(p, " ");
        return put_content(p, a->tensor);
    case QX_ATTR_GRAPH: PUT(p, " = "); return put_graph(p, a->graph, indent + 1);
    case QX_ATTR_TYPE_PROTO: PUT(p, ": type_proto = "); return a->type_value ? put_type(p, a->type_value) : QX_OK;
    default: PUT(p, ": %s = ...", attr_type_words[a->type]); return QX_OK;
    }
}

static qx_status put_node(printer *p, const qx_node *n, int indent)
{
    PUT(p, "%*s", 3 * indent, "");
    if (n->name[0]) {
        PUT(p, "[");
        QX_TRY(put_name(p, n->name));
        PUT(p, "] ");
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (i) PUT(p, ", ");
        if (n->out[i]) QX_TRY(put_name(p, n->out[i]->name));
    }
    PUT(p, " = %s%s%s%s%s", n->domain, n->domain[0] ? "." : "", n->op_type, n->overload[0] ? ":" : "", n->overload);
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        PUT(p, i ? ", " : " <");
        QX_TRY(put_attr(p, &n->attrs[i], indent));
    }
    PUT(p, n->n_attrs ? "> (" : " (");
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (i) PUT(p, ", ");
        if (n->in[i]) QX_TRY(put_name(p, n->in[i]->name));
    }
    PUT(p, ")\n");
    return QX_OK;
}

/* ---- graphs ------------------------------------------------------------------------------------------------------------------- */

static qx_status put_typed(printer *p, const qx_value *v)
{
    QX_TRY(put_type(p, &v->type));
    if (v->type.kind != QX_KIND_NONE) PUT(p, " ");
    return put_name(p, v->name);
}

static qx_status put_interface(printer *p, qx_value *const *list, uint32_t n, bool types)
{
    PUT(p, "(");
    for (uint32_t i = 0; i < n; i++) {
        if (i) PUT(p, ", ");
        QX_TRY(types ? put_typed(p, list[i]) : put_name(p, list[i]->name));
        if (!types || !list[i]->is_input || !list[i]->init) continue;
        PUT(p, " = ");
        QX_TRY(put_content(p, list[i]->init));
    }
    PUT(p, ")");
    return QX_OK;
}

static qx_status put_inits(printer *p, const qx_graph *g, int indent)
{
    bool any = false;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        const qx_value *v = g->inits[i];
        if (v->is_input) continue;
        PUT(p, any ? ",\n%*s" : "\n%*s<", 3 * (indent - 1) + (any ? 1 : 0), "");
        QX_TRY(put_typed(p, v));
        PUT(p, " = ");
        if (v->init) QX_TRY(put_content(p, v->init));
        else PUT(p, "sparse");
        any = true;
    }
    if (any) PUT(p, ">");
    return QX_OK;
}

static qx_status put_body(printer *p, const qx_graph *g, int indent)
{
    PUT(p, "\n%*s{\n", 3 * (indent - 1), "");
    QX_FOR_NODES(g, n) QX_TRY(put_node(p, n, indent));
    PUT(p, "%*s}", 3 * (indent - 1), "");
    return QX_OK;
}

static qx_status put_graph(printer *p, const qx_graph *g, int indent)
{
    QX_TRY(put_name(p, g->name[0] ? g->name : "graph"));
    PUT(p, " ");
    QX_TRY(put_interface(p, g->inputs, g->n_inputs, true));
    PUT(p, " => ");
    QX_TRY(put_interface(p, g->outputs, g->n_outputs, true));
    QX_TRY(put_inits(p, g, indent));
    return put_body(p, g, indent);
}

static qx_status put_opsets(printer *p, const qx_opset *list, uint32_t n)
{
    PUT(p, "opset_import: [");
    for (uint32_t i = 0; i < n; i++) PUT(p, "%s\"%s\" : %lld", i ? ", " : "", list[i].domain, (long long)list[i].version);
    PUT(p, "]");
    return QX_OK;
}

static qx_status put_function(printer *p, const qx_function *f)
{
    PUT(p, "<\n   domain: \"%s\",\n   ", f->domain);
    if (f->overload[0]) PUT(p, "overload: \"%s\",\n   ", f->overload);
    QX_TRY(put_opsets(p, f->opsets, f->n_opsets));
    PUT(p, "\n>\n");
    QX_TRY(put_name(p, f->name));
    PUT(p, " ");
    for (uint32_t i = 0; i < f->n_attr_names + f->n_attr_defaults; i++) {
        PUT(p, i ? ", " : "<");
        if (i < f->n_attr_names) QX_TRY(put_name(p, f->attr_names[i]));
        else QX_TRY(put_attr(p, &f->attr_defaults[i - f->n_attr_names], 1));
    }
    if (f->n_attr_names + f->n_attr_defaults) PUT(p, "> ");
    QX_TRY(put_interface(p, f->body->inputs, f->body->n_inputs, false));
    PUT(p, " => ");
    QX_TRY(put_interface(p, f->body->outputs, f->body->n_outputs, false));
    return put_body(p, f->body, 1);
}

static qx_status put_header(printer *p)
{
    const qx_model *m = p->m;
    PUT(p, "<\n   ir_version: %lld,\n   ", (long long)m->ir_version);
    QX_TRY(put_opsets(p, m->opsets, m->n_opsets));
    if (m->producer_name[0]) {
        PUT(p, ",\n   producer_name: ");
        QX_TRY(put_quoted(p, m->producer_name, strlen(m->producer_name)));
    }
    for (uint32_t i = 0; i < m->n_meta; i++) {
        PUT(p, i ? ", " : ",\n   metadata_props: [");
        QX_TRY(put_quoted(p, m->meta[i].key, strlen(m->meta[i].key)));
        PUT(p, " : ");
        QX_TRY(put_quoted(p, m->meta[i].value, strlen(m->meta[i].value)));
    }
    PUT(p, m->n_meta ? "]\n>\n" : "\n>\n");
    return QX_OK;
}

qx_status qx_model_print(const qx_model *m, qx_buf *out)
{
    printer p = {.b = out, .m = m};
    QX_TRY(put_header(&p));
    QX_TRY(put_graph(&p, m->graph, 1));
    PUT(&p, "\n");
    for (uint32_t i = 0; i < m->n_functions; i++) {
        QX_TRY(put_function(&p, m->functions[i]));
        PUT(&p, "\n");
    }
    return QX_OK;
}
