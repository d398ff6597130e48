/* edit_attr.c - attributes of a node (edit.h). */
#include "onnx/edit_own.h"

#include <string.h>

/* The attribute of this name, an old one or a new one, becomes `value`. */
static qx_status set(qx_node *n, const char *name, qx_attr value)
{
    qx_model *m = n->graph->model;
    QX_TRY(qx_name_intern(m, name, &value.name));
    qx_touch_node(n);
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].name != value.name) continue;
        n->attrs[i] = value;
        return QX_OK;
    }
    qx_attr *more = qx_arena_array(m->arena, (size_t)n->n_attrs + 1, sizeof *more);
    if (!more) return QX_NOMEM(m);
    if (n->n_attrs) memcpy(more, n->attrs, n->n_attrs * sizeof *more);
    n->attrs = more;
    n->attrs[n->n_attrs++] = value;
    return QX_OK;
}

qx_status qx_attr_set_int(qx_node *n, const char *name, int64_t v) { return set(n, name, (qx_attr){.type = QX_ATTR_INT, .i = v}); }

qx_status qx_attr_set_float(qx_node *n, const char *name, float v) { return set(n, name, (qx_attr){.type = QX_ATTR_FLOAT, .f = v}); }

qx_status qx_attr_set_tensor(qx_node *n, const char *name, qx_weight *t)
{
    return set(n, name, (qx_attr){.type = QX_ATTR_TENSOR, .tensor = t});
}

qx_status qx_attr_set_string(qx_node *n, const char *name, const char *v)
{
    const size_t len = strlen(v);
    char *copy = qx_arena_strndup(n->graph->model->arena, v, len);
    return copy ? set(n, name, (qx_attr){.type = QX_ATTR_STRING, .s = copy, .s_len = len}) : QX_NOMEM(n->graph->model);
}

qx_status qx_attr_set_ints(qx_node *n, const char *name, const int64_t *v, int64_t count)
{
    int64_t *copy = qx_arena_array(n->graph->model->arena, count ? (size_t)count : 1, sizeof *copy);
    if (!copy) return QX_NOMEM(n->graph->model);
    if (count) memcpy(copy, v, (size_t)count * sizeof *copy);
    return set(n, name, (qx_attr){.type = QX_ATTR_INTS, .ints = copy, .n = count});
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
