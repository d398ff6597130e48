/* bind.c - the caller's side of a run: feeds against the declared inputs, and the values that are given back. */
#include "runtime/exec.h"

#include <string.h>

#include "runtime/device/device.h"

/* ---- Feeds ---- */

static qx_status list_inputs(qx_exec *x, const char *name)
{
    const qx_graph *g = x->model->graph;
    char text[512];
    size_t n = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < g->n_inputs && n < sizeof text - 64; i++) {
        const char *in = g->inputs[i]->name;
        size_t len = strlen(in) < 48 ? strlen(in) : 48;
        if (n) text[n++] = ' ';
        memcpy(text + n, in, len);
        n += len;
        text[n] = 0;
    }
    QX_FAIL(x->ctx, QX_E_USAGE, "the model has no input '%s'; its inputs are: %s", name, text);
}

/* The declared type against the given tensor; symbols are free. */
static qx_status check_feed(qx_exec *x, const qx_value *v, const qx_tensor *t)
{
    char got[96];
    const qx_type *ty = &v->type;
    qx_tensor_describe(t, got, sizeof got);
    if (ty->kind == QX_KIND_SEQUENCE || ty->kind == QX_KIND_OPTIONAL) {
        if (!t->is_sequence && !t->is_optional)
            QX_FAIL(x->ctx, QX_E_TYPE, "input '%s': %s given, a sequence or optional is needed", v->name, got);
        return QX_OK;
    }
    if (ty->kind != QX_KIND_TENSOR) return QX_OK;
    if (t->is_sequence || t->is_optional || (ty->dtype && t->dtype != ty->dtype))
        QX_FAIL(x->ctx, QX_E_TYPE, "input '%s': %s given, %s is needed", v->name, got, qx_dtype_get(ty->dtype)->text);
    if (!ty->has_shape) return QX_OK;
    if (t->rank != ty->rank) QX_FAIL(x->ctx, QX_E_SHAPE, "input '%s': %s has rank %d, rank %d is needed", v->name, got, t->rank, ty->rank);
    for (int i = 0; i < t->rank; i++)
        if (ty->dims[i].n >= 0 && ty->dims[i].n != t->dims[i])
            QX_FAIL(x->ctx, QX_E_SHAPE, "input '%s': %s has %lld in dim %d, %lld is needed", v->name, got, (long long)t->dims[i], i,
                    (long long)ty->dims[i].n);
    return QX_OK;
}

qx_status qx_bind_feeds(qx_exec *x, const qx_feed *feeds, int n)
{
    const qx_graph *g = x->model->graph;
    for (int i = 0; i < n; i++) {
        const qx_value *v = NULL;
        for (uint32_t k = 0; k < g->n_inputs; k++)
            if (strcmp(g->inputs[k]->name, feeds[i].name) == 0) v = g->inputs[k];
        if (!v) return list_inputs(x, feeds[i].name);
        QX_TRY(check_feed(x, v, feeds[i].tensor));
        qx_slot *s = &x->slots[v->id];
        qx_slot_clear(x, s);
        s->t = *feeds[i].tensor;
        s->set = s->borrowed = true;
    }
    qx_carries_bind(x);
    for (uint32_t k = 0; k < g->n_inputs; k++) {
        const qx_value *v = g->inputs[k];
        if (!x->slots[v->id].set) QX_TRY(qx_const_load(x, v));
        if (!x->slots[v->id].set && x->info[v->id].needed)
            QX_FAIL(x->ctx, QX_E_USAGE, "input '%s' is missing (%d given, the model has %u)", v->name, n, g->n_inputs);
    }
    return QX_OK;
}

/* ---- Outputs ---- */

qx_status qx_give_output(qx_exec *x, const qx_value *v, qx_tensor *out)
{
    qx_slot *s = &x->slots[v->id];
    QX_TRY(qx_const_load(x, v));
    if (!s->set) QX_FAIL(x->ctx, QX_E_FAIL, "output '%s' was not computed", v->name);
    if (s->t.on_device) return qx_device_copy_out(x, s, out);
    if (s->dev) qx_dblock_release(x, s->dev);
    s->dev = NULL;
    if (s->owned) {
        *out = s->t;
        memset(s, 0, sizeof *s);
        return QX_OK;
    }
    if (s->block && s->block->refs == 1 && !s->block->arena && x->info[v->id].content == QX_CLASS_DATA && s->t.data == s->block->data) {
        *out = s->t;
        s->block->data = NULL;
        qx_slot_clear(x, s);
        return QX_OK;
    }
    return qx_tensor_copy(x->ctx, &s->t, out);
}

qx_status qx_find_outputs(qx_exec *x, const char *const *names, int n, const qx_value **vals)
{
    const qx_graph *g = x->model->graph;
    if (!names && x->no_outputs) QX_FAIL(x->ctx, QX_E_USAGE, "all outputs are asked for, but only watched values are computed");
    if (!names && n != (int)g->n_outputs) QX_FAIL(x->ctx, QX_E_USAGE, "%d outputs asked for, the model has %u", n, g->n_outputs);
    for (int i = 0; i < n; i++) {
        vals[i] = names ? qx_graph_find(g, names[i]) : g->outputs[i];
        if (!vals[i]) QX_FAIL(x->ctx, QX_E_USAGE, "the model has no value '%s'", names[i]);
        if (qx_is_carried(x, vals[i]))
            QX_FAIL(x->ctx, QX_E_USAGE, "output '%s' is carried to the next run, so it is not given out: name the others", vals[i]->name);
    }
    return QX_OK;
}

qx_status qx_keep_values(qx_exec *x, const qx_value *const *vals, int n)
{
    for (int i = 0; i < n; i++) {
        bool known = vals[i]->is_output && vals[i]->graph == x->model->graph && !x->no_outputs;
        for (int k = 0; k < x->n_keep; k++) known = known || x->keep_ids[k] == vals[i]->id;
        if (known) continue;
        QX_TRY(qx_regrow(x->ctx, (void **)&x->keep_ids, (size_t)x->n_keep * sizeof *x->keep_ids,
                         ((size_t)x->n_keep + 1) * sizeof *x->keep_ids));
        x->keep_ids[x->n_keep++] = vals[i]->id;
        if (x->planned) qx_plan_renew(x);
    }
    return QX_OK;
}

qx_status qx_exec_expose(qx_exec *x, qx_value *v)
{
    const qx_value *one[1] = {v};
    if (v->graph != x->model->graph)
        QX_FAIL(x->ctx, QX_E_USAGE, "value '%s' lies in a subgraph: only values of the main graph can be outputs", v->name);
    return qx_keep_values(x, one, 1);
}
