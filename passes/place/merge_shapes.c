/* merge_shapes.c - one copy of each integer computation. Exporters write the same chain (Shape, Gather, Unsqueeze, and their
 * Constants) once per use: thousands of nodes that say the same. Only values of integer or bool type are merged, so that no
 * activation, weight or range that another pass looks at is touched. */
#include "onnx/edit.h"
#include "passes/linear/same.h"
#include "passes/pass.h"

typedef struct merger { qx_pass *pass; qx_buf key; qx_map *seen; } merger;

static bool is_integer(const qx_value *v)
{
    qx_dtype t = v->type.dtype;
    return v->type.kind == QX_KIND_TENSOR && (t == QX_DT_INT64 || t == QX_DT_INT32 || t == QX_DT_BOOL);
}

static bool may_merge(const qx_node *n)
{
    const uint32_t never = QX_T_RANDOM | QX_T_CONTROL | QX_T_QDQ | QX_T_QUANTIZED | QX_T_LINEAR;
    if (n->op->id == QX_OP_UNKNOWN || (n->op->traits & never) || n->n_out != 1 || !n->out[0]) return false;
    return !n->out[0]->is_output && is_integer(n->out[0]);
}

static qx_status merge_node(merger *g, qx_node *n)
{
    bool known;
    if (!may_merge(n)) return QX_OK;
    qx_buf_clear(&g->key);
    QX_TRY(qx_same_node(&g->key, n, &known));
    if (!known) return QX_OK;
    qx_value *same = qx_map_get(g->seen, g->key.data);
    if (!same) return qx_map_put(g->seen, g->key.data, n->out[0]);
    QX_TRY(qx_value_replace_uses(n->out[0], same, NULL));
    (void)qx_skip(g->pass, n, QX_WHY_MERGED);
    return qx_node_erase(n);
}

static qx_status merge_graph(void *user, qx_graph *graph)
{
    merger *g = user;
    QX_TRY(qx_map_new(g->pass->ctx, &g->seen));
    qx_status st = QX_OK;
    for (qx_node *n = graph->first, *next; n && st == QX_OK; n = next) {
        next = n->next;
        st = merge_node(g, n);
    }
    qx_map_free(g->seen);
    return st;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)stats;
    merger g = {.pass = p, .key = QX_BUF_INIT(p->ctx)};
    qx_status st = qx_model_each_graph(m, merge_graph, &g);
    qx_buf_free(&g.key);
    return st;
}

const qx_passdef qx_pass_merge_shapes = {.name = "merge-shapes",
                                         .brief = "one copy of each integer computation that the exporter repeated", .run = run,
    .doc = "Merges nodes with integer or bool results that have the same operator, inputs and attributes (Shape, Gather, Unsqueeze,\n"
           "Concat and their Constants). Results do not change; the graph of an exported UNet loses a third of its nodes."};
