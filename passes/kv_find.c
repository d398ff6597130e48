/* kv_find.c - finds caches, and what a quantized cache is read with; see kv_cache.h. */
#include <string.h>

#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/kv_cache.h"

static bool is_float(const qx_type *t) { return t->kind == QX_KIND_TENSOR && (t->dtype == QX_DT_FLOAT || t->dtype == QX_DT_FLOAT16 || t->dtype == QX_DT_BFLOAT16); }
static bool is_cache_input(const qx_value *v) { return !v->init && strstr(v->name, "past") && is_float(&v->type) && v->type.has_shape && v->type.rank >= 3; }

/* The only use of v that reads more than its shape; NULL: none, or several. */
static const qx_use *only_reader(const qx_value *v)
{
    const qx_use *found = NULL;
    for (const qx_use *u = v->uses; u; u = u->next) {
        if (u->node->op->id == QX_OP_Shape) continue;
        if (found) return NULL;
        found = u;
    }
    return found;
}

/* Through operators that hand on what they get. */
static const qx_use *through_copies(const qx_use *u)
{
    while (u && (u->node->op->id == QX_OP_Identity || (u->node->op->id == QX_OP_Concat && u->node->n_in == 1)) && !u->node->out[0]->is_output)
        u = only_reader(u->node->out[0]);
    return u;
}

static bool is_cache_axis(const qx_node *concat)
{
    const qx_type *t = &concat->out[0]->type;
    const int64_t axis = qx_attr_int(concat, "axis", 0);
    return concat->n_in == 2 && t->has_shape && axis != -1 && axis != t->rank - 1;
}

/* The Concat, or GroupQueryAttention, that takes the past and puts out the present. */
static bool by_dataflow(qx_kv_pair *p)
{
    for (const qx_use *u = p->past->uses; u; u = u->next) {
        const qx_use *end = through_copies(u);
        qx_node *n = end ? end->node : NULL;
        if (!n || n->graph != p->past->graph) continue;
        if (n->op->id == QX_OP_Concat && end->index == 0 && is_cache_axis(n) && n->out[0]->is_output) {
            p->node = n;
            p->present = n->out[0];
            p->form = QX_KV_CONCAT;
            return true;
        }
        if (n->op->id == QX_OP_ms_GroupQueryAttention && u == end && (u->index == 3 || u->index == 4)) {
            qx_value *present = qx_node_out(n, u->index - 2);
            if (!present || !present->is_output || qx_node_in(n, 12) || qx_node_in(n, 13)) return false;
            p->node = n;
            p->present = present;
            p->form = QX_KV_FUSED;
            p->key = u->index == 3;
            return true;
        }
    }
    return false;
}

/* "past_key_values.3.key" goes on as "present.3.key": what stands behind the first '.' is the same. */
static bool by_name(const qx_model *m, qx_kv_pair *p)
{
    const char *tail = strchr(p->past->name, '.');
    for (uint32_t i = 0; tail && i < m->graph->n_outputs; i++) {
        qx_value *v = m->graph->outputs[i];
        const char *other = strchr(v->name, '.');
        if (strncmp(v->name, "present", 7) || !other || strcmp(tail, other) || v->type.dtype != p->past->type.dtype || !v->def) continue;
        p->present = v;
        p->form = QX_KV_AROUND;
        return true;
    }
    return false;
}

qx_status qx_kv_find(qx_model *m, qx_kv_pair **out, int64_t *n)
{
    qx_kv_pair *list = qx_arena_array(m->arena, m->graph->n_inputs + 1u, sizeof *list);
    if (!list) return QX_E_NOMEM;
    *n = 0;
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) {
        qx_kv_pair p = {.past = m->graph->inputs[i]};
        if (!is_cache_input(p.past)) continue;
        p.key = strstr(p.past->name, "key") && !strstr(p.past->name, ".value");
        if (by_dataflow(&p) || by_name(m, &p)) list[(*n)++] = p;
    }
    *out = list;
    return QX_OK;
}

/* ---- of a model that is quantized ---------------------------------------------------------------------------------------------- */

static const qx_weight *scale_behind(const qx_value *v, int depth)
{
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_node *n = u->node;
        if (n->op->id == QX_OP_DequantizeLinear && u->index == 0) return qx_value_const(n->in[1]);
        if (n->op->id == QX_OP_ms_GroupQueryAttention && (u->index == 3 || u->index == 4)) return qx_node_in(n, u->index + 9) ? qx_value_const(n->in[u->index + 9]) : NULL;
        const bool copy = n->op->id == QX_OP_Concat || n->op->id == QX_OP_Identity;
        const qx_weight *w = copy && depth < 4 ? scale_behind(n->out[0], depth + 1) : NULL;
        if (w) return w;
    }
    return NULL;
}

const qx_weight *qx_kv_scale(const qx_value *past)
{
    const qx_dtype t = past->type.dtype;
    if (past->type.kind != QX_KIND_TENSOR || (t != QX_DT_INT8 && t != QX_DT_FLOAT8E4M3FN) || !strstr(past->name, "past")) return NULL;
    return scale_behind(past, 0);
}

qx_status qx_kv_encode_input(qx_ctx *ctx, const qx_value *past, const qx_tensor *from, qx_tensor *to)
{
    const qx_weight *scale = qx_kv_scale(past);
    const int64_t cols = from->rank ? from->dims[from->rank - 1] : 1;
    float *s = NULL;
    if (!scale || (scale->numel != 1 && scale->numel != cols)) QX_FAIL(ctx, QX_E_SHAPE, "input '%s': no scale that fits %lld channels", past->name, (long long)cols);
    QX_TRY(qx_tensor_new(ctx, to, past->type.dtype, from->rank, from->dims));
    qx_status st = qx_alloc_array(ctx, (size_t)scale->numel, sizeof *s, (void **)&s);
    if (st == QX_OK) st = qx_weight_read_f32(ctx, scale, 0, scale->numel, s);
    const int64_t rows = cols ? from->numel / cols : 0;
    const qx_quant q = {.grid = {rows, cols, rows, scale->numel == 1 ? cols : 1}, .format = {.codes = past->type.dtype}, .scale = s};
    if (st == QX_OK && from->numel && !qx_quantize(&q, from->dtype, from->data, to->data)) st = qx_fail(ctx, QX_E_TYPE, "input '%s': %s cannot be quantized", past->name, qx_dtype_get(from->dtype)->text);
    qx_free(ctx, s);
    if (st != QX_OK) qx_tensor_free(ctx, to);
    return st;
}
