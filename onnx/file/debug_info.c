/* debug_info.c - takes out what exporters wrote for people who debug an export: where in which source each node came from (edit.h). torch's
 * dynamo exporter writes a kilobyte a node, 3.7 % of a language model of 135 million parameters in 4 bits. What is not known to be of that
 * kind stays. */
#include <string.h>

#include "onnx/edit_own.h"
#include "onnx/file/build.h"

static bool always(const qx_node *n, const Onnx__NodeProto *p)
{
    (void)n, (void)p;
    return true;
}

/* `namespace` alone could be anybody's; beside torch's keys it is the modules around the node once more, with their classes. */
static bool from_torch(const qx_node *n, const Onnx__NodeProto *p)
{
    static const char start[] = "pkg.torch.onnx.";
    (void)n;
    for (size_t i = 0; i < p->n_metadata_props; i++)
        if (strncmp(qx_text_or_empty(p->metadata_props[i]->key), start, sizeof start - 1) == 0) return true;
    return false;
}

/* Patterns find a numbered node by its module (build.c), and they look where weights and products are. */
static bool nobody_names(const qx_node *n, const Onnx__NodeProto *p)
{
    (void)p;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] && n->in[i]->init) return false;
    return !(n->op->traits & (QX_T_LINEAR | QX_T_ATTENTION));
}

static const struct { const char *key; bool (*goes)(const qx_node *n, const Onnx__NodeProto *p); } debug_keys[] = {
    {"namespace", from_torch},
    {"pkg.onnxscript.rewriter.rule_name", always},
    {"pkg.torch.onnx.class_hierarchy", always},
    {"pkg.torch.onnx.fx_node", always},
    {"pkg.torch.onnx.name_scopes", nobody_names},
    {"pkg.torch.onnx.stack_trace", always},
};

static bool drops(const qx_node *n, const Onnx__NodeProto *p, const char *key)
{
    for (size_t i = 0; i < sizeof debug_keys / sizeof *debug_keys; i++)
        if (strcmp(key, debug_keys[i].key) == 0) return debug_keys[i].goes(n, p);
    return false;
}

/* A copy of the message without them: it is the node's as it was in all else, so that the writer takes it as it is. */
static qx_status strip_message(const qx_node *n, const Onnx__NodeProto *old, Onnx__NodeProto **out)
{
    Onnx__NodeProto *p = *out = qx_arena_memdup(n->graph->model->arena, old, sizeof *old);
    if (!p) return QX_NOMEM(n->graph->model);
    p->doc_string = NULL;
    p->metadata_props = qx_arena_array(n->graph->model->arena, old->n_metadata_props + 1, sizeof *p->metadata_props);
    if (!p->metadata_props) return QX_NOMEM(n->graph->model);
    p->n_metadata_props = 0;
    for (size_t i = 0; i < old->n_metadata_props; i++)
        if (!drops(n, old, qx_text_or_empty(old->metadata_props[i]->key)))
            p->metadata_props[p->n_metadata_props++] = old->metadata_props[i];
    return QX_OK;
}

static qx_status strip_node(void *user, qx_node *n)
{
    int64_t *bytes = user;
    const Onnx__NodeProto *old = n->wire_origin;
    Onnx__NodeProto *p;
    if (!old || (!old->doc_string && !old->n_metadata_props)) return QX_OK;
    QX_TRY(strip_message(n, old, &p));
    const int64_t less = (int64_t)onnx__node_proto__get_packed_size(old) - (int64_t)onnx__node_proto__get_packed_size(p);
    if (!less) return QX_OK;
    *bytes += less;
    n->wire_origin = p;
    if (n->wire) n->wire = p;
    qx_touch_graph(n->graph);
    return QX_OK;
}

qx_status qx_debug_info_drop(qx_model *m, int64_t *bytes)
{
    *bytes = 0;
    return qx_model_each_node(m, strip_node, bytes);
}
