/* call_graph.c - bodies of If, Loop and Scan, and local functions, run on behalf of a node (runtime/cpu/op.h). */
#include <string.h>

#include "runtime/plan.h"

static void lend(qx_exec *x, const qx_value *v, const qx_tensor *t)
{
    qx_slot *s = &x->slots[v->id];
    qx_slot_clear(x, s);
    if (!t) return;
    s->t = *t;
    s->set = s->borrowed = true;
}

/* The content of a body's output, as the caller's own tensor. */
static qx_status take_output(qx_exec *x, const qx_graph *g, const qx_value *v, qx_tensor *out)
{
    qx_slot *s = &x->slots[v->id];
    if (!v->def || v->def->graph != g) QX_TRY(qx_const_load(x, v));
    if (!s->set) QX_FAIL(x->ctx, QX_E_FORMAT, "subgraph '%s': output '%s' was not computed", g->name ? g->name : "", v->name);
    bool sole = v->graph == g && x->info[v->id].content != QX_CLASS_CONST;
    if (sole && s->owned) {
        *out = s->t;
        memset(s, 0, sizeof *s);
        return QX_OK;
    }
    if (sole && s->block && s->block->refs == 1 && !s->block->arena && s->t.data == s->block->data) {
        *out = s->t;
        s->block->data = NULL;
        qx_slot_clear(x, s);
        return QX_OK;
    }
    return qx_tensor_copy(x->ctx, &s->t, out);
}

qx_status qx_call_graph(qx_call *c, qx_graph *g, const qx_tensor *const *in, uint32_t n_in, qx_tensor *out, uint32_t n_out)
{
    qx_exec *x = c->exec;
    qx_gplan *p;
    if (n_in > g->n_inputs || n_out != g->n_outputs)
        QX_CALL_FAIL(c, QX_E_FORMAT, "subgraph '%s' has %u inputs and %u outputs, %u and %u are needed", g->name ? g->name : "",
                     g->n_inputs, g->n_outputs, n_in, n_out);
    QX_TRY(qx_plan_graph(x, g, &p));
    for (uint32_t i = 0; i < n_out; i++) memset(&out[i], 0, sizeof out[i]);
    for (uint32_t i = 0; i < n_in; i++) lend(x, g->inputs[i], in[i]);
    qx_status st = qx_tell_interface(x, g);
    x->depth++;
    if (st == QX_OK) st = qx_run_graph(x, p, c->frame);
    uint32_t taken = 0;
    for (; st == QX_OK && taken < n_out; taken++) st = take_output(x, g, g->outputs[taken], &out[taken]);
    x->depth--;
    for (uint32_t i = 0; i < g->n_inputs; i++) lend(x, g->inputs[i], NULL);
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i]->graph == g && x->info[g->outputs[i]->id].content != QX_CLASS_CONST)
            qx_slot_clear(x, &x->slots[g->outputs[i]->id]);
    for (uint32_t i = 0; st != QX_OK && i < taken; i++) qx_tensor_free(c->ctx, &out[i]);
    return st;
}

qx_status qx_cpu_function_call(qx_call *c)
{
    const qx_function *f = qx_plan_function(c->exec->model, c->node);
    if (!f) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "no such function");
    qx_frame frame = {c->node, f, c->frame};
    qx_call inner = *c;
    inner.frame = &frame;
    if (c->n_in > f->body->n_inputs || c->n_out > f->body->n_outputs)
        QX_CALL_FAIL(c, QX_E_FORMAT, "function %s takes %u inputs and gives %u outputs; the call has %u and %u", f->name,
                     f->body->n_inputs, f->body->n_outputs, c->n_in, c->n_out);
    qx_tensor *out = NULL;
    QX_TRY(qx_call_scratch_array(c, f->body->n_outputs, sizeof *out, (void **)&out));
    QX_TRY(qx_call_graph(&inner, f->body, c->in, c->n_in, out, f->body->n_outputs));
    for (uint32_t i = 0; i < f->body->n_outputs; i++) {
        if (i < c->n_out && c->node->out[i]) QX_TRY(qx_call_out_take(c, i, &out[i]));
        else qx_tensor_free(c->ctx, &out[i]);
    }
    return QX_OK;
}
