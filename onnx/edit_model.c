/* edit_model.c - what a model says of itself: operator sets, IR version, metadata (edit.h). */
#include "onnx/edit_own.h"

#include <string.h>

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
    QX_TRY(qx_name_intern(m, strcmp(domain, "ai.onnx") == 0 ? "" : domain, &name));
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
