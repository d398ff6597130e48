/* check.c - the checker's entry, and what concerns the model as a whole: versions, imported operator sets, metadata. */
#include "onnx/check/check.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/text.h"

qx_status qx_check_warn(qx_checker *c, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (c->strict) return qx_fail(c->ctx, QX_E_FORMAT, "%s", text);
    qx_warn(c->ctx, "%s", text);
    return QX_OK;
}

static qx_status check_opsets(qx_checker *c, const qx_opset *list, uint32_t count, const char *where)
{
    for (uint32_t i = 0; i < count; i++) {
        const char *shown = list[i].domain[0] ? list[i].domain : "ai.onnx";
        int64_t version = list[i].version, most = list[i].domain[0] ? INT32_MAX : QX_OPSET_MAX;
        if (version < 1 || version > most)
            QX_REFUSE(c, "%s imports version %lld of '%s'; 1 to %lld are read", where, (long long)version, QX_SHOWN(shown),
                      (long long)most);
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(list[k].domain, list[i].domain) == 0)
                QX_REFUSE(c, "%s imports domain '%s' twice, version %lld and %lld", where, QX_SHOWN(shown), (long long)list[k].version,
                          (long long)version);
        }
    }
    return QX_OK;
}

static qx_status check_meta(qx_checker *c)
{
    qx_map *seen;
    qx_status st = QX_OK;
    QX_TRY(qx_map_new(c->ctx, &seen));
    for (uint32_t i = 0; st == QX_OK && i < c->m->n_meta; i++) {
        const char *key = c->m->meta[i].key;
        if (qx_map_has(seen, key)) st = qx_fail(c->ctx, QX_E_FORMAT, "metadata key '%s' is there twice", QX_SHOWN(key));
        else st = qx_map_put(seen, key, NULL);
    }
    qx_map_free(seen);
    return st;
}

qx_status qx_check_model(qx_checker *c)
{
    const qx_model *m = c->m;
    if (m->ir_version <= 0) QX_REFUSE(c, "the model has no IR version");
    if (m->ir_version < QX_IR_MIN || m->ir_version > QX_IR_MAX)
        QX_FAIL(c->ctx, QX_E_UNSUPPORTED, "the model's IR version is %lld; %d to %d are read", (long long)m->ir_version, QX_IR_MIN,
                QX_IR_MAX);
    if (m->n_opsets == 0) QX_REFUSE(c, "the model imports no operator set, which IR version %lld requires", (long long)m->ir_version);
    QX_TRY(check_opsets(c, m->opsets, m->n_opsets, "the model"));
    for (uint32_t i = 0; i < m->n_functions; i++) {
        qx_status st = check_opsets(c, m->functions[i]->opsets, m->functions[i]->n_opsets, "it");
        if (st != QX_OK) return qx_note(c->ctx, st, "function '%s'", QX_SHOWN(m->functions[i]->name));
    }
    return check_meta(c);
}

static qx_status number_node(void *user, qx_node *n)
{
    qx_checker *c = user;
    c->place[n->id] = ++c->next_place;
    return QX_OK;
}

qx_status qx_check(qx_model *m, bool strict)
{
    qx_checker c = {.m = m, .ctx = m->ctx, .strict = strict, .scale_budget = 16 << 20};
    qx_status st;
    QX_TRY(QX_NEW_ARRAY(m->ctx, m->n_node_ids + 1, &c.place));
    QX_TRY_GOTO(st, qx_check_model(&c));
    QX_TRY_GOTO(st, qx_check_functions(&c));
    QX_TRY_GOTO(st, qx_model_each_node(m, number_node, &c));
    QX_TRY_GOTO(st, qx_model_each_graph(m, qx_check_graph, &c));
    QX_TRY_GOTO(st, qx_model_each_node(m, qx_check_node, &c));
done:
    qx_free(m->ctx, c.place);
    return st;
}
