/* edit_attr.c - attributes of a node (edit.h). */
#include "onnx/edit_own.h"

#include <string.h>

static qx_status attr_slot(qx_node *n, const char *name, qx_attr **out)
{
    qx_model *m = n->graph->model;
    const char *interned;
    *out = NULL;
    QX_TRY(qx_name_intern(m, name, &interned));
    qx_touch_node(n);
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
    qx_touch_node(n);
    return QX_OK;
}
