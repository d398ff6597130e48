/* build_attr.c - types and attributes from their messages. What an attribute holds follows its declared type; whether the message
 * agrees with it is the checker's business. */
#include "onnx/file/build.h"

static qx_status intern(qx_model *m, const char *text, const char **out)
{
    *out = qx_intern_kept(m->names, qx_text_or_empty(text));
    return *out ? QX_OK : QX_NOMEM(m);
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

static qx_status build_dim(qx_model *m, const Onnx__TensorShapeProto__Dimension *d, qx_dim *out)
{
    *out = (qx_dim){.n = -1};
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0) out->n = d->dim_value;
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && qx_text_or_empty(d->dim_param)[0])
        return intern(m, d->dim_param, &out->sym);
    return QX_OK;
}

static qx_status build_shape(qx_model *m, const Onnx__TensorShapeProto *s, qx_type *out)
{
    if (!s) return QX_OK;
    if (s->n_dim > QX_MAX_DIMS) QX_FAIL(m->ctx, QX_E_FORMAT, "a shape has %zu dimensions; at most %d are read", s->n_dim, QX_MAX_DIMS);
    out->has_shape = true;
    out->rank = (int)s->n_dim;
    out->dims = qx_arena_array(m->arena, s->n_dim ? s->n_dim : 1, sizeof(qx_dim));
    if (!out->dims) return QX_NOMEM(m);
    for (size_t i = 0; i < s->n_dim; i++) QX_TRY(build_dim(m, s->dim[i], &out->dims[i]));
    return QX_OK;
}

static qx_status build_type(qx_model *m, const Onnx__TypeProto *t, int depth, qx_type *out);

static qx_status build_elem(qx_model *m, const Onnx__TypeProto *t, int depth, qx_type *out)
{
    if (depth >= QX_MAX_TYPE_NESTING) QX_FAIL(m->ctx, QX_E_FORMAT, "a type is nested deeper than %d", QX_MAX_TYPE_NESTING);
    qx_type *elem = qx_arena_alloc(m->arena, sizeof *elem);
    if (!elem) return QX_NOMEM(m);
    out->elem = elem;
    return build_type(m, t, depth + 1, elem);
}

static qx_status build_type(qx_model *m, const Onnx__TypeProto *t, int depth, qx_type *out)
{
    *out = (qx_type){0};
    if (!t) return QX_OK;
    switch (t->value_case) {
    case ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE:
        *out = (qx_type){.kind = QX_KIND_TENSOR, .dtype = (qx_dtype)t->tensor_type->elem_type};
        return build_shape(m, t->tensor_type->shape, out);
    case ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE:
        *out = (qx_type){.kind = QX_KIND_SPARSE, .dtype = (qx_dtype)t->sparse_tensor_type->elem_type};
        return build_shape(m, t->sparse_tensor_type->shape, out);
    case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
        out->kind = QX_KIND_SEQUENCE;
        return build_elem(m, t->sequence_type->elem_type, depth, out);
    case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
        out->kind = QX_KIND_OPTIONAL;
        return build_elem(m, t->optional_type->elem_type, depth, out);
    case ONNX__TYPE_PROTO__VALUE_MAP_TYPE:
        *out = (qx_type){.kind = QX_KIND_MAP, .dtype = (qx_dtype)t->map_type->key_type};
        return build_elem(m, t->map_type->value_type, depth, out);
    default:
        return QX_OK;
    }
}

qx_status qx_build_type(qx_model *m, const Onnx__TypeProto *t, qx_type *out)
{
    return build_type(m, t, 0, out);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

qx_status qx_build_sparse(qx_model *m, Onnx__SparseTensorProto *s, qx_sparse **out)
{
    qx_sparse *sp = qx_arena_alloc(m->arena, sizeof *sp);
    if (!sp) return QX_NOMEM(m);
    if (!s->values || !s->indices) QX_FAIL(m->ctx, QX_E_FORMAT, "a sparse tensor has no %s", s->values ? "indices" : "values");
    if (s->n_dims > QX_MAX_DIMS)
        QX_FAIL(m->ctx, QX_E_FORMAT, "a sparse tensor has %zu dimensions; at most %d are read", s->n_dims, QX_MAX_DIMS);
    QX_TRY(qx_weight_from_proto(m, s->values, &sp->values));
    QX_TRY(qx_weight_from_proto(m, s->indices, &sp->indices));
    sp->rank = (int)s->n_dims;
    sp->dims = s->dims;
    sp->wire = s;
    *out = sp;
    return QX_OK;
}

static qx_status build_strings(qx_model *m, const Onnx__AttributeProto *a, qx_attr *out)
{
    const char **strings = qx_arena_array(m->arena, a->n_strings ? a->n_strings : 1, sizeof *strings);
    size_t *lens = qx_arena_array(m->arena, a->n_strings ? a->n_strings : 1, sizeof *lens);
    if (!strings || !lens) return QX_NOMEM(m);
    for (size_t i = 0; i < a->n_strings; i++) {
        strings[i] = qx_arena_strndup(m->arena, (const char *)a->strings[i].data, a->strings[i].len);
        if (!strings[i]) return QX_NOMEM(m);
        lens[i] = a->strings[i].len;
    }
    out->strings = strings;
    out->string_lens = lens;
    out->n = (int64_t)a->n_strings;
    return QX_OK;
}

static qx_status build_tensors(qx_model *m, const Onnx__AttributeProto *a, qx_attr *out)
{
    out->tensors = qx_arena_array(m->arena, a->n_tensors ? a->n_tensors : 1, sizeof *out->tensors);
    if (!out->tensors) return QX_NOMEM(m);
    for (size_t i = 0; i < a->n_tensors; i++) QX_TRY(qx_weight_from_proto(m, a->tensors[i], &out->tensors[i]));
    out->n = (int64_t)a->n_tensors;
    return QX_OK;
}

static qx_status build_string(qx_model *m, const Onnx__AttributeProto *a, qx_attr *out)
{
    out->s = qx_arena_strndup(m->arena, a->s.data ? (const char *)a->s.data : "", a->s.len);
    out->s_len = a->s.len;
    return out->s ? QX_OK : QX_NOMEM(m);
}

static qx_status build_type_value(qx_model *m, const Onnx__AttributeProto *a, qx_attr *out)
{
    qx_type *t = qx_arena_alloc(m->arena, sizeof *t);
    if (!t) return QX_NOMEM(m);
    out->type_value = t;
    return qx_build_type(m, a->tp, t);
}

qx_status qx_build_attr(qx_model *m, Onnx__AttributeProto *a, qx_attr *out)
{
    *out = (qx_attr){.type = a->has_type ? (qx_attr_type)a->type : QX_ATTR_UNDEFINED, .wire = a};
    QX_TRY(intern(m, a->name, &out->name));
    if (qx_text_or_empty(a->ref_attr_name)[0]) return intern(m, a->ref_attr_name, &out->ref_name);
    out->f = a->f;
    out->i = a->i;
    switch (out->type) {
    case QX_ATTR_STRING: return build_string(m, a, out);
    case QX_ATTR_TENSOR: return a->t ? qx_weight_from_proto(m, a->t, &out->tensor) : QX_OK;
    case QX_ATTR_FLOATS: out->floats = a->floats; out->n = (int64_t)a->n_floats; return QX_OK;
    case QX_ATTR_INTS: out->ints = a->ints; out->n = (int64_t)a->n_ints; return QX_OK;
    case QX_ATTR_STRINGS: return build_strings(m, a, out);
    case QX_ATTR_TENSORS: return build_tensors(m, a, out);
    case QX_ATTR_SPARSE_TENSOR: return a->sparse_tensor ? qx_build_sparse(m, a->sparse_tensor, &out->sparse) : QX_OK;
    case QX_ATTR_TYPE_PROTO: return build_type_value(m, a, out);
    default: return QX_OK;
    }
}
