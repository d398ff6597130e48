/* check_attr.c - attributes: one of each name, a type that says which field holds the value, exactly that field filled, and
 * references to function attributes only where there is a function. Judged on the messages, where presence is still visible. */
#include <string.h>

#include "base/text.h"
#include "onnx/check/check.h"

static const char *const type_names[] = {"none", "FLOAT", "INT", "STRING", "TENSOR", "GRAPH", "FLOATS", "INTS", "STRINGS", "TENSORS",
                                         "GRAPHS",
                                         "SPARSE_TENSOR", "SPARSE_TENSORS", "TYPE_PROTO", "TYPE_PROTOS"};
enum { TYPE_COUNT = (int)(sizeof type_names / sizeof *type_names) };

/* Bit t is set when the field of attribute type t holds something. */
static uint32_t filled(const Onnx__AttributeProto *a)
{
    const bool has[TYPE_COUNT] = {
        [QX_ATTR_FLOAT] = a->has_f, [QX_ATTR_INT] = a->has_i, [QX_ATTR_STRING] = a->has_s, [QX_ATTR_TENSOR] = a->t != NULL,
        [QX_ATTR_GRAPH] = a->g != NULL, [QX_ATTR_FLOATS] = a->n_floats > 0, [QX_ATTR_INTS] = a->n_ints > 0,
        [QX_ATTR_STRINGS] = a->n_strings > 0, [QX_ATTR_TENSORS] = a->n_tensors > 0, [QX_ATTR_GRAPHS] = a->n_graphs > 0,
        [QX_ATTR_SPARSE_TENSOR] = a->sparse_tensor != NULL, [QX_ATTR_SPARSE_TENSORS] = a->n_sparse_tensors > 0,
        [QX_ATTR_TYPE_PROTO] = a->tp != NULL, [QX_ATTR_TYPE_PROTOS] = a->n_type_protos > 0,
    };
    uint32_t bits = 0;
    for (int i = 0; i < TYPE_COUNT; i++) bits |= has[i] ? 1u << i : 0;
    return bits;
}

static bool in_function(const qx_node *n)
{
    const qx_graph *g = n->graph;
    while (g->parent) g = g->parent;
    return g->function != NULL;
}

static qx_status check_value(qx_checker *c, const qx_node *n, const Onnx__AttributeProto *a)
{
    uint32_t bits = filled(a), must = 1u << QX_ATTR_TENSOR | 1u << QX_ATTR_GRAPH | 1u << QX_ATTR_SPARSE_TENSOR | 1u << QX_ATTR_TYPE_PROTO;
    int type = a->has_type ? a->type : 0;
    if (type < 0 || type >= TYPE_COUNT) QX_REFUSE(c, "%s: attribute '%s' has unknown type %d", QX_LABEL(n), QX_SHOWN(a->name), type);
    if (type == 0)
        QX_REFUSE(c, "%s: attribute '%s' has no type, which IR version %lld requires", QX_LABEL(n), QX_SHOWN(a->name),
                  (long long)c->m->ir_version);
    if (bits & (bits - 1))
        QX_REFUSE(c, "%s: attribute '%s' of type %s has more than one value", QX_LABEL(n), QX_SHOWN(a->name), type_names[type]);
    if (bits & ~(1u << type))
        QX_REFUSE(c, "%s: attribute '%s' says type %s but its value is of type %s", QX_LABEL(n), QX_SHOWN(a->name), type_names[type],
                  type_names[__builtin_ctz(bits)]);
    if (!bits && (must & 1u << type))
        QX_REFUSE(c, "%s: attribute '%s' of type %s has no value", QX_LABEL(n), QX_SHOWN(a->name), type_names[type]);
    return QX_OK;
}

static qx_status check_attr(qx_checker *c, const qx_node *n, const qx_attr *a)
{
    const Onnx__AttributeProto *p = a->wire;
    if (!a->name[0]) QX_REFUSE(c, "%s: an attribute has no name", QX_LABEL(n));
    if (a->ref_name && !in_function(n))
        QX_REFUSE(c, "%s: attribute '%s' refers to '%s' of a function, but is in none", QX_LABEL(n), QX_SHOWN(a->name),
                  QX_SHOWN(a->ref_name));
    if (a->ref_name && p && filled(p))
        QX_REFUSE(c, "%s: attribute '%s' refers to '%s' and has a value of its own", QX_LABEL(n), QX_SHOWN(a->name), QX_SHOWN(a->ref_name));
    return a->ref_name || !p ? QX_OK : check_value(c, n, p);
}

qx_status qx_check_attrs(qx_checker *c, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        QX_TRY(check_attr(c, n, &n->attrs[i]));
        for (uint32_t k = 0; k < i; k++) {
            if (n->attrs[k].name == n->attrs[i].name)
                QX_REFUSE(c, "%s: attribute '%s' is there twice", QX_LABEL(n), QX_SHOWN(n->attrs[i].name));
        }
    }
    return QX_OK;
}
