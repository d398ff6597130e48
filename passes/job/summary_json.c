/* summary_json.c - what `qonnx inspect --json` and qonnx_inspect give: the same facts as summary.h, with names. */
#include "onnx/infer/infer.h"
#include "onnx/weight/weight.h"
#include "passes/job/summary.h"

enum { TYPE_TEXT = 256 };

static qx_status put_port(qx_jsonw *w, const qx_value *v)
{
    char type[TYPE_TEXT];
    QX_TRY(qx_jsonw_begin_object(w, NULL));
    QX_TRY(qx_jsonw_string(w, "name", v->name));
    QX_TRY(qx_jsonw_string(w, "type", qx_type_describe(&v->type, type, sizeof type)));
    return qx_jsonw_end_object(w);
}

static qx_status put_ports(qx_jsonw *w, const char *key, qx_value *const *v, uint32_t n)
{
    QX_TRY(qx_jsonw_begin_array(w, key));
    for (uint32_t i = 0; i < n; i++)
        if (!v[i]->init) QX_TRY(put_port(w, v[i]));
    return qx_jsonw_end_array(w);
}

static qx_status put_head(qx_jsonw *w, const qx_model *m)
{
    QX_TRY(qx_jsonw_string(w, "model", m->path));
    QX_TRY(qx_jsonw_int(w, "ir_version", m->ir_version));
    QX_TRY(qx_jsonw_begin_object(w, "opsets"));
    for (uint32_t i = 0; i < m->n_opsets; i++) QX_TRY(qx_jsonw_int(w, m->opsets[i].domain, m->opsets[i].version));
    QX_TRY(qx_jsonw_end_object(w));
    QX_TRY(qx_jsonw_string(w, "producer", m->producer_name ? m->producer_name : ""));
    QX_TRY(put_ports(w, "inputs", m->graph->inputs, m->graph->n_inputs));
    QX_TRY(put_ports(w, "outputs", m->graph->outputs, m->graph->n_outputs));
    QX_TRY(qx_jsonw_begin_object(w, "metadata"));
    for (uint32_t i = 0; i < m->n_meta; i++) QX_TRY(qx_jsonw_string(w, m->meta[i].key, m->meta[i].value));
    return qx_jsonw_end_object(w);
}

static qx_status put_operators(qx_jsonw *w, const qx_summary *s)
{
    QX_TRY(qx_jsonw_begin_array(w, "operators"));
    for (int64_t i = 0; i < s->n_ops; i++) {
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "op", s->ops[i].op));
        if (*s->ops[i].domain) QX_TRY(qx_jsonw_string(w, "domain", s->ops[i].domain));
        QX_TRY(qx_jsonw_int(w, "nodes", s->ops[i].nodes));
        QX_TRY(qx_jsonw_int(w, "weight_bytes", s->ops[i].weight_bytes));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return qx_jsonw_end_array(w);
}

static qx_status put_totals(qx_jsonw *w, const qx_summary *s)
{
    const struct { const char *key; int64_t value; } totals[] = {
        {"nodes", s->nodes}, {"functions", s->functions}, {"tensors", s->tensors}, {"parameters", s->parameters}, {"bytes", s->bytes},
        {"linear", s->linear},
        {"linear_constant", s->linear_constant}, {"linear_bytes", s->linear_bytes}, {"kept_bytes", s->kept_bytes},
        {"embedding_bytes", s->embedding_bytes},
        {"saves_8bit", s->saves_8bit}, {"saves_4bit", s->saves_4bit}, {"quantized_nodes", s->quantized_nodes},
        {"attentions", s->attentions},
    };
    for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) QX_TRY(qx_jsonw_int(w, totals[i].key, totals[i].value));
    QX_TRY(qx_jsonw_begin_object(w, "bytes_by_type"));
    for (int64_t i = 0; i < s->n_types; i++) QX_TRY(qx_jsonw_int(w, qx_dtype_get(s->types[i].dtype)->text, s->types[i].bytes));
    return qx_jsonw_end_object(w);
}

static qx_status put_node(void *user, qx_node *n)
{
    qx_jsonw *w = user;
    QX_TRY(qx_jsonw_begin_object(w, NULL));
    QX_TRY(qx_jsonw_string(w, "name", n->name));
    QX_TRY(qx_jsonw_string(w, "op", n->op_type));
    if (*n->domain) QX_TRY(qx_jsonw_string(w, "domain", n->domain));
    QX_TRY(qx_jsonw_begin_array(w, "inputs"));
    for (uint32_t i = 0; i < n->n_in; i++) QX_TRY(qx_jsonw_string(w, NULL, n->in[i] ? n->in[i]->name : ""));
    QX_TRY(qx_jsonw_end_array(w));
    QX_TRY(qx_jsonw_begin_array(w, "outputs"));
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i]) QX_TRY(put_port(w, n->out[i]));
    QX_TRY(qx_jsonw_end_array(w));
    return qx_jsonw_end_object(w);
}

static qx_status put_tensors(void *user, qx_graph *g)
{
    qx_jsonw *w = user;
    char type[TYPE_TEXT];
    for (uint32_t i = 0; i < g->n_inits; i++) {
        const qx_weight *t = g->inits[i]->init;
        if (!t) continue;
        QX_TRY(qx_jsonw_begin_object(w, NULL));
        QX_TRY(qx_jsonw_string(w, "name", g->inits[i]->name));
        QX_TRY(qx_jsonw_string(w, "type", qx_weight_describe(t, type, sizeof type)));
        QX_TRY(qx_jsonw_int(w, "bytes", (int64_t)t->bytes));
        QX_TRY(qx_jsonw_int(w, "readers", g->inits[i]->n_uses));
        QX_TRY(qx_jsonw_end_object(w));
    }
    return QX_OK;
}

qx_status qx_summary_json(qx_model *m, const qx_summary *s, bool nodes, bool tensors, qx_buf *out)
{
    qx_jsonw w;
    qx_jsonw_init(&w, out, true);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(put_head(&w, m));
    QX_TRY(put_totals(&w, s));
    QX_TRY(put_operators(&w, s));
    if (nodes) {
        QX_TRY(qx_jsonw_begin_array(&w, "node_list"));
        QX_TRY(qx_model_each_node(m, put_node, &w));
        QX_TRY(qx_jsonw_end_array(&w));
    }
    if (tensors) {
        QX_TRY(qx_jsonw_begin_array(&w, "tensor_list"));
        QX_TRY(qx_model_each_graph(m, put_tensors, &w));
        QX_TRY(qx_jsonw_end_array(&w));
    }
    return qx_jsonw_end_object(&w);
}
