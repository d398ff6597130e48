/* pb_build.c - from the graph back to messages. Whatever kept its message (`wire`) is used as it is; the rest is built from the graph, on
 * top of the message it came from when there is one, so that doc strings, metadata and unknown fields survive. */
#include <string.h>

#include "onnx/file/pb_build.h"

enum { MAX_DEPTH = 200 };

static qx_status build_graph(qx_out_plan *p, const qx_graph *g, int depth, Onnx__GraphProto **out);

static void *copy_of(qx_out_plan *p, const void *message, size_t size) { return qx_arena_memdup(p->arena, message, size); }

#define MESSAGE(p, out, type, wire, init)                                          \
    do {                                                                           \
        const type fresh_ = init;                                                  \
        *(out) = copy_of((p), (wire) ? (const void *)(wire) : &fresh_, sizeof fresh_); \
        if (!*(out)) return QX_E_NOMEM;                                            \
    } while (0)

/* Room for n pointers and one more, so that n = 0 is no special case. */
static void *list_of(qx_out_plan *p, size_t n) { return qx_arena_array(p->arena, n + 1, sizeof(void *)); }

/* ---- types ---- */

static qx_status build_type(qx_out_plan *p, const qx_type *t, int depth, Onnx__TypeProto **out);

static qx_status build_shape(qx_out_plan *p, const qx_type *t, Onnx__TensorShapeProto **out)
{
    *out = NULL;
    if (!t->has_shape) return QX_OK;
    MESSAGE(p, out, Onnx__TensorShapeProto, NULL, ONNX__TENSOR_SHAPE_PROTO__INIT);
    Onnx__TensorShapeProto *s = *out;
    s->dim = list_of(p, (size_t)t->rank);
    if (!s->dim) return QX_E_NOMEM;
    for (; s->n_dim < (size_t)t->rank; s->n_dim++) {
        const qx_dim *d = &t->dims[s->n_dim];
        MESSAGE(p, &s->dim[s->n_dim], Onnx__TensorShapeProto__Dimension, NULL, ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT);
        Onnx__TensorShapeProto__Dimension *o = s->dim[s->n_dim];
        if (d->n >= 0) {
            o->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            o->dim_value = d->n;
        } else if (d->sym) {
            o->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            o->dim_param = (char *)d->sym;
        }
    }
    return QX_OK;
}

static qx_status build_tensor_type(qx_out_plan *p, const qx_type *t, Onnx__TypeProto *o)
{
    if (t->kind == QX_KIND_SPARSE) {
        o->value_case = ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE;
        MESSAGE(p, &o->sparse_tensor_type, Onnx__TypeProto__SparseTensor, NULL, ONNX__TYPE_PROTO__SPARSE_TENSOR__INIT);
        o->sparse_tensor_type->has_elem_type = 1;
        o->sparse_tensor_type->elem_type = t->dtype;
        return build_shape(p, t, &o->sparse_tensor_type->shape);
    }
    o->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    MESSAGE(p, &o->tensor_type, Onnx__TypeProto__Tensor, NULL, ONNX__TYPE_PROTO__TENSOR__INIT);
    o->tensor_type->has_elem_type = 1;
    o->tensor_type->elem_type = t->dtype;
    return build_shape(p, t, &o->tensor_type->shape);
}

static qx_status build_holder_type(qx_out_plan *p, const qx_type *t, int depth, Onnx__TypeProto *o)
{
    Onnx__TypeProto *elem;
    QX_TRY(build_type(p, t->elem, depth + 1, &elem));
    if (t->kind == QX_KIND_SEQUENCE) {
        o->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
        MESSAGE(p, &o->sequence_type, Onnx__TypeProto__Sequence, NULL, ONNX__TYPE_PROTO__SEQUENCE__INIT);
        o->sequence_type->elem_type = elem;
    } else if (t->kind == QX_KIND_OPTIONAL) {
        o->value_case = ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
        MESSAGE(p, &o->optional_type, Onnx__TypeProto__Optional, NULL, ONNX__TYPE_PROTO__OPTIONAL__INIT);
        o->optional_type->elem_type = elem;
    } else {
        o->value_case = ONNX__TYPE_PROTO__VALUE_MAP_TYPE;
        MESSAGE(p, &o->map_type, Onnx__TypeProto__Map, NULL, ONNX__TYPE_PROTO__MAP__INIT);
        o->map_type->has_key_type = 1;
        o->map_type->key_type = t->dtype;
        o->map_type->value_type = elem;
    }
    return QX_OK;
}

static qx_status build_type(qx_out_plan *p, const qx_type *t, int depth, Onnx__TypeProto **out)
{
    *out = NULL;
    if (!t || t->kind == QX_KIND_NONE) return QX_OK;
    if (depth > MAX_DEPTH) QX_FAIL(p->m->ctx, QX_E_FORMAT, "a type nests more than %d deep", MAX_DEPTH);
    MESSAGE(p, out, Onnx__TypeProto, NULL, ONNX__TYPE_PROTO__INIT);
    if (t->kind == QX_KIND_TENSOR || t->kind == QX_KIND_SPARSE) return build_tensor_type(p, t, *out);
    return build_holder_type(p, t, depth, *out);
}

/* origin: an older declaration of the value (doc string, metadata), or NULL. */
static qx_status build_value_info(qx_out_plan *p, const qx_value *v, const void *origin, Onnx__ValueInfoProto **out)
{
    Onnx__ValueInfoProto *w = v->wire;
    if (w && w->name && !strcmp(w->name, v->name)) return *out = w, QX_OK;
    MESSAGE(p, out, Onnx__ValueInfoProto, w ? (const void *)w : origin, ONNX__VALUE_INFO_PROTO__INIT);
    (*out)->name = (char *)v->name;
    return w ? QX_OK : build_type(p, &v->type, 0, &(*out)->type);
}

static qx_status build_value_infos(qx_out_plan *p, qx_value *const *v, uint32_t n, Onnx__ValueInfoProto ***list, size_t *count)
{
    *list = list_of(p, n);
    if (!*list) return QX_E_NOMEM;
    for (*count = 0; *count < n; ++*count) QX_TRY(build_value_info(p, v[*count], NULL, &(*list)[*count]));
    return QX_OK;
}

/* The types that the input declared for inner values, as far as those values are still there. */
static qx_status build_inner_infos(qx_out_plan *p, const qx_graph *g, Onnx__ValueInfoProto *const *old, size_t n_old,
                                   Onnx__ValueInfoProto ***list, size_t *count)
{
    *list = list_of(p, n_old);
    *count = 0;
    if (!*list) return QX_E_NOMEM;
    for (size_t i = 0; i < n_old; i++) {
        const qx_value *v = qx_map_get(g->values, old[i]->name ? old[i]->name : "");
        if (!v || v->is_input || v->is_output || (!v->def && !v->init && !v->sparse)) continue;
        if (v->wire == old[i]) (*list)[(*count)++] = old[i];
        else if (v->type.kind != QX_KIND_NONE) QX_TRY(build_value_info(p, v, old[i], &(*list)[(*count)++]));
    }
    return QX_OK;
}

/* ---- attributes ---- */

static bool graph_has_external(const qx_graph *g, int depth);

static bool attr_has_external(const qx_attr *a, int depth)
{
    bool yes = qx_pb_was_external(a->tensor) || (a->sparse && (qx_pb_was_external(a->sparse->values) ||
                                                               qx_pb_was_external(a->sparse->indices)));
    for (int64_t i = 0; a->tensors && i < a->n && !yes; i++) yes = qx_pb_was_external(a->tensors[i]);
    if (depth > MAX_DEPTH) return yes;
    for (int64_t i = 0; a->graphs && i < a->n && !yes; i++) yes = graph_has_external(a->graphs[i], depth + 1);
    return yes || (a->graph && graph_has_external(a->graph, depth + 1));
}

/* External data moves to a file with another name, so messages that point at it cannot stay as they are. */
static bool node_has_external(const qx_node *n, int depth)
{
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (attr_has_external(&n->attrs[i], depth)) return true;
    return false;
}

static bool graph_has_external(const qx_graph *g, int depth)
{
    for (uint32_t i = 0; i < g->n_inits; i++) {
        const qx_value *v = g->inits[i];
        if (qx_pb_was_external(v->init) || (v->sparse && (qx_pb_was_external(v->sparse->values) || qx_pb_was_external(v->sparse->indices))))
            return true;
    }
    QX_FOR_NODES(g, n)
        if (node_has_external(n, depth)) return true;
    return false;
}

/* In external mode every graph inside may hold initializers that move out. */
static bool must_rebuild(const qx_out_plan *p, const qx_attr *a, int depth)
{
    if (!a->wire) return true;
    if (p->external && (a->graph || a->graphs)) return true;
    return p->m->store->external_tensors && attr_has_external(a, depth);
}

static qx_status attr_lists(qx_out_plan *p, const qx_attr *a, Onnx__AttributeProto *o)
{
    const size_t n = (size_t)a->n;
    switch (a->type) {
    case QX_ATTR_FLOATS: o->floats = (float *)a->floats, o->n_floats = n; return QX_OK;
    case QX_ATTR_INTS: o->ints = (int64_t *)a->ints, o->n_ints = n; return QX_OK;
    case QX_ATTR_STRINGS:
        o->strings = qx_arena_array(p->arena, n + 1, sizeof *o->strings);
        if (!o->strings) return QX_E_NOMEM;
        for (size_t i = 0; i < n; i++) o->strings[i] = (ProtobufCBinaryData){a->string_lens[i], (uint8_t *)a->strings[i]};
        o->n_strings = n;
        return QX_OK;
    default: return QX_OK;
    }
}

static qx_status attr_scalars(qx_out_plan *p, const qx_attr *a, Onnx__AttributeProto *o)
{
    switch (a->type) {
    case QX_ATTR_FLOAT: o->has_f = 1, o->f = a->f; return QX_OK;
    case QX_ATTR_INT: o->has_i = 1, o->i = a->i; return QX_OK;
    case QX_ATTR_STRING: o->has_s = 1, o->s = (ProtobufCBinaryData){a->s_len, (uint8_t *)a->s}; return QX_OK;
    case QX_ATTR_TYPE_PROTO: return build_type(p, a->type_value, 0, &o->tp);
    default: return attr_lists(p, a, o);
    }
}

static qx_status attr_tensors(qx_out_plan *p, const qx_attr *a, Onnx__AttributeProto *o)
{
    if (a->tensor) QX_TRY(qx_pb_tensor(p, a->tensor, a->tensor->name ? a->tensor->name : "", false, &o->t));
    if (a->sparse) QX_TRY(qx_pb_sparse(p, a->sparse, a->sparse->values->name ? a->sparse->values->name : "", &o->sparse_tensor));
    if (!a->tensors) return QX_OK;
    o->tensors = list_of(p, (size_t)a->n);
    if (!o->tensors) return QX_E_NOMEM;
    for (o->n_tensors = 0; o->n_tensors < (size_t)a->n; o->n_tensors++)
        QX_TRY(qx_pb_tensor(p, a->tensors[o->n_tensors], a->tensors[o->n_tensors]->name, false, &o->tensors[o->n_tensors]));
    return QX_OK;
}

static qx_status attr_graphs(qx_out_plan *p, const qx_attr *a, int depth, Onnx__AttributeProto *o)
{
    if (a->graph) QX_TRY(build_graph(p, a->graph, depth + 1, &o->g));
    if (!a->graphs) return QX_OK;
    o->graphs = list_of(p, (size_t)a->n);
    if (!o->graphs) return QX_E_NOMEM;
    for (o->n_graphs = 0; o->n_graphs < (size_t)a->n; o->n_graphs++)
        QX_TRY(build_graph(p, a->graphs[o->n_graphs], depth + 1, &o->graphs[o->n_graphs]));
    return QX_OK;
}

static qx_status build_attr(qx_out_plan *p, const qx_attr *a, int depth, Onnx__AttributeProto **out)
{
    if (!must_rebuild(p, a, depth)) return *out = a->wire, QX_OK;
    MESSAGE(p, out, Onnx__AttributeProto, a->wire, ONNX__ATTRIBUTE_PROTO__INIT);
    Onnx__AttributeProto *o = *out;
    if (!a->wire) {
        o->name = (char *)a->name;
        o->has_type = 1;
        o->type = a->type;
        o->ref_attr_name = (char *)a->ref_name;
        if (a->ref_name) return QX_OK;
        QX_TRY(attr_scalars(p, a, o));
    }
    QX_TRY(attr_tensors(p, a, o));
    return attr_graphs(p, a, depth, o);
}

/* ---- nodes ---- */

static qx_status value_names(qx_out_plan *p, qx_value *const *v, uint32_t n, char ***list, size_t *count)
{
    *list = list_of(p, n);
    if (!*list) return QX_E_NOMEM;
    for (uint32_t i = 0; i < n; i++) (*list)[i] = (char *)(v[i] ? v[i]->name : "");
    *count = n;
    return QX_OK;
}

static qx_status build_attrs(qx_out_plan *p, const qx_attr *attrs, uint32_t n, int depth, Onnx__AttributeProto ***list, size_t *count)
{
    *list = list_of(p, n);
    if (!*list) return QX_E_NOMEM;
    for (*count = 0; *count < n; ++*count) QX_TRY(build_attr(p, &attrs[*count], depth, &(*list)[*count]));
    return QX_OK;
}

static bool keep_node(const qx_out_plan *p, const qx_node *n, int depth)
{
    if (!n->wire) return false;
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (must_rebuild(p, &n->attrs[i], depth)) return false;
    return true;
}

static qx_status build_node(qx_out_plan *p, const qx_node *n, int depth, Onnx__NodeProto **out)
{
    if (keep_node(p, n, depth)) return *out = n->wire, QX_OK;
    MESSAGE(p, out, Onnx__NodeProto, n->wire_origin, ONNX__NODE_PROTO__INIT);
    Onnx__NodeProto *o = *out;
    QX_TRY(value_names(p, n->in, n->n_in, &o->input, &o->n_input));
    QX_TRY(value_names(p, n->out, n->n_out, &o->output, &o->n_output));
    if (n->name[0]) o->name = (char *)n->name;
    o->op_type = (char *)n->op_type;
    if (n->domain[0] || (o->domain && strcmp(o->domain, "ai.onnx"))) o->domain = (char *)n->domain;
    if (n->overload && n->overload[0]) o->overload = (char *)n->overload;
    return build_attrs(p, n->attrs, n->n_attrs, depth, &o->attribute, &o->n_attribute);
}

static qx_status build_nodes(qx_out_plan *p, const qx_graph *g, int depth, Onnx__NodeProto ***list, size_t *count)
{
    *list = list_of(p, g->n_nodes);
    *count = 0;
    if (!*list) return QX_E_NOMEM;
    QX_FOR_NODES(g, n) QX_TRY(build_node(p, n, depth, &(*list)[(*count)++]));
    return QX_OK;
}

/* ---- graphs ---- */

static qx_status build_inits(qx_out_plan *p, const qx_graph *g, Onnx__GraphProto *o)
{
    o->initializer = list_of(p, g->n_inits);
    o->sparse_initializer = list_of(p, g->n_inits);
    o->n_initializer = o->n_sparse_initializer = 0;
    if (!o->initializer || !o->sparse_initializer) return QX_E_NOMEM;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        const qx_value *v = g->inits[i];
        if (v->sparse) QX_TRY(qx_pb_sparse(p, v->sparse, v->name, &o->sparse_initializer[o->n_sparse_initializer++]));
        else QX_TRY(qx_pb_tensor(p, v->init, v->name, true, &o->initializer[o->n_initializer++]));
    }
    return QX_OK;
}

/* Annotations name tensors; those of tensors that are gone go too. */
static qx_status keep_annotations(qx_out_plan *p, const qx_graph *g, Onnx__GraphProto *o)
{
    Onnx__TensorAnnotation **old = o->quantization_annotation;
    const size_t n = o->n_quantization_annotation;
    if (!n) return QX_OK;
    o->quantization_annotation = list_of(p, n);
    o->n_quantization_annotation = 0;
    if (!o->quantization_annotation) return QX_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        if (old[i]->tensor_name && qx_map_get(g->values, old[i]->tensor_name))
            o->quantization_annotation[o->n_quantization_annotation++] = old[i];
    return QX_OK;
}

static qx_status build_graph(qx_out_plan *p, const qx_graph *g, int depth, Onnx__GraphProto **out)
{
    const Onnx__GraphProto *old = g->wire;
    if (depth > MAX_DEPTH) QX_FAIL(p->m->ctx, QX_E_FORMAT, "graphs nest more than %d deep", MAX_DEPTH);
    MESSAGE(p, out, Onnx__GraphProto, old, ONNX__GRAPH_PROTO__INIT);
    Onnx__GraphProto *o = *out;
    if (!old) o->name = (char *)g->name;
    QX_TRY(build_inits(p, g, o));
    QX_TRY(build_nodes(p, g, depth, &o->node, &o->n_node));
    QX_TRY(build_value_infos(p, g->inputs, g->n_inputs, &o->input, &o->n_input));
    QX_TRY(build_value_infos(p, g->outputs, g->n_outputs, &o->output, &o->n_output));
    if (old) QX_TRY(build_inner_infos(p, g, old->value_info, old->n_value_info, &o->value_info, &o->n_value_info));
    return keep_annotations(p, g, o);
}

static qx_status build_opsets(qx_out_plan *p, const qx_opset *sets, uint32_t n, Onnx__OperatorSetIdProto ***list, size_t *count)
{
    Onnx__OperatorSetIdProto **old = *list;
    const size_t n_old = *count;
    *list = list_of(p, n);
    if (!*list) return QX_E_NOMEM;
    for (*count = 0; *count < n; ++*count) {
        const qx_opset *s = &sets[*count];
        const Onnx__OperatorSetIdProto *was = *count < n_old ? old[*count] : NULL;
        const char *domain = was && was->domain && strcmp(was->domain, "ai.onnx") ? was->domain : "";
        if (was && strcmp(domain, s->domain)) was = NULL;
        MESSAGE(p, &(*list)[*count], Onnx__OperatorSetIdProto, was, ONNX__OPERATOR_SET_ID_PROTO__INIT);
        if (!was) (*list)[*count]->domain = (char *)s->domain;
        (*list)[*count]->has_version = 1;
        (*list)[*count]->version = s->version;
    }
    return QX_OK;
}

static qx_status build_function(qx_out_plan *p, const qx_function *f, Onnx__FunctionProto **out)
{
    const Onnx__FunctionProto *old = f->wire;
    const qx_graph *g = f->body;
    MESSAGE(p, out, Onnx__FunctionProto, old, ONNX__FUNCTION_PROTO__INIT);
    Onnx__FunctionProto *o = *out;
    o->name = (char *)f->name;
    if (!old) o->domain = (char *)f->domain;
    if (!old && f->overload && f->overload[0]) o->overload = (char *)f->overload;
    QX_TRY(value_names(p, g->inputs, g->n_inputs, &o->input, &o->n_input));
    QX_TRY(value_names(p, g->outputs, g->n_outputs, &o->output, &o->n_output));
    QX_TRY(build_nodes(p, g, 1, &o->node, &o->n_node));
    QX_TRY(build_attrs(p, f->attr_defaults, f->n_attr_defaults, 1, &o->attribute_proto, &o->n_attribute_proto));
    if (!old) {
        o->attribute = (char **)f->attr_names;
        o->n_attribute = f->n_attr_names;
    }
    QX_TRY(build_inner_infos(p, g, o->value_info, o->n_value_info, &o->value_info, &o->n_value_info));
    return build_opsets(p, f->opsets, f->n_opsets, &o->opset_import, &o->n_opset_import);
}

static qx_status build_meta(qx_out_plan *p, Onnx__ModelProto *o)
{
    const qx_model *m = p->m;
    o->metadata_props = list_of(p, m->n_meta);
    if (!o->metadata_props) return QX_E_NOMEM;
    for (o->n_metadata_props = 0; o->n_metadata_props < m->n_meta; o->n_metadata_props++) {
        Onnx__StringStringEntryProto **e = &o->metadata_props[o->n_metadata_props];
        MESSAGE(p, e, Onnx__StringStringEntryProto, NULL, ONNX__STRING_STRING_ENTRY_PROTO__INIT);
        (*e)->key = (char *)m->meta[o->n_metadata_props].key;
        (*e)->value = (char *)m->meta[o->n_metadata_props].value;
    }
    return QX_OK;
}

/* A model that was never a file: its header fields come from the graph. */
static void set_header(const qx_model *m, Onnx__ModelProto *o)
{
    o->producer_name = (char *)m->producer_name;
    o->producer_version = (char *)m->producer_version;
    o->domain = (char *)m->domain;
    o->doc_string = (char *)m->doc;
    o->has_model_version = m->model_version != 0;
    o->model_version = m->model_version;
}

qx_status qx_pb_model(qx_out_plan *p)
{
    const qx_model *m = p->m;
    MESSAGE(p, &p->proto, Onnx__ModelProto, m->wire, ONNX__MODEL_PROTO__INIT);
    Onnx__ModelProto *o = p->proto;
    if (!m->wire) set_header(m, o);
    o->has_ir_version = 1;
    o->ir_version = m->ir_version;
    QX_TRY(build_opsets(p, m->opsets, m->n_opsets, &o->opset_import, &o->n_opset_import));
    QX_TRY(build_meta(p, o));
    QX_TRY(build_graph(p, m->graph, 0, &o->graph));
    o->functions = list_of(p, m->n_functions);
    if (!o->functions) return QX_E_NOMEM;
    for (o->n_functions = 0; o->n_functions < m->n_functions; o->n_functions++)
        QX_TRY(build_function(p, m->functions[o->n_functions], &o->functions[o->n_functions]));
    return QX_OK;
}
