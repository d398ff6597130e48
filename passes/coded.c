/* coded.c - see coded.h. Scales are found by dataflow: names may be anything. */
#include "passes/coded.h"

#include "kernels/quant.h"
#include "onnx/weight/weight.h"

static bool is_code(qx_dtype t) { return t == QX_DT_INT8 || t == QX_DT_UINT8 || t == QX_DT_FLOAT8E4M3FN; }

static bool take(qx_coded *out, qx_dtype codes, const qx_value *scale, const qx_value *zero)
{
    const qx_weight *s = scale ? qx_value_const(scale) : NULL, *z = zero ? qx_value_const(zero) : NULL;
    if (!s || (zero && !z) || (z && z->numel != s->numel)) return false;
    *out = (qx_coded){codes, s, z};
    return true;
}

static bool read_with(const qx_value *v, qx_dtype codes, int depth, qx_coded *out)
{
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_node *n = u->node;
        if (n->op->id == QX_OP_DequantizeLinear && u->index == 0) return take(out, codes, n->in[1], qx_node_in(n, 2));
        if (n->op->id == QX_OP_ms_GroupQueryAttention && (u->index == 3 || u->index == 4))
            return take(out, codes, qx_node_in(n, u->index + 9), NULL);
        const bool copy = n->op->id == QX_OP_Concat || n->op->id == QX_OP_Identity;
        if (copy && depth < 4 && read_with(n->out[0], codes, depth + 1, out)) return true;
    }
    return false;
}

bool qx_coded_input(const qx_value *v, qx_coded *out)
{
    if (v->is_input && qx_value_is_real(v)) return *out = (qx_coded){.codes = v->type.dtype}, true;
    return v->is_input && v->type.kind == QX_KIND_TENSOR && is_code(v->type.dtype) && read_with(v, v->type.dtype, 0, out);
}

bool qx_coded_output(const qx_value *v, qx_coded *out)
{
    const qx_node *n = v->def;
    if (v->type.kind != QX_KIND_TENSOR || !is_code(v->type.dtype) || !n) return false;
    if (n->op->id == QX_OP_QuantizeLinear) return take(out, v->type.dtype, n->in[1], qx_node_in(n, 2));
    const uint32_t scale = v == qx_node_out(n, 1) ? 12 : 13; /* of keys, of values */
    return n->op->id == QX_OP_ms_GroupQueryAttention && take(out, v->type.dtype, qx_node_in(n, scale), NULL);
}

static qx_status read_zero(qx_ctx *ctx, const qx_weight *w, int32_t *zero)
{
    float *z;
    QX_TRY(qx_alloc_array(ctx, (size_t)w->numel, sizeof *z, (void **)&z));
    const qx_status st = qx_weight_read_f32(ctx, w, 0, w->numel, z);
    for (int64_t i = 0; i < w->numel && st == QX_OK; i++) zero[i] = (int32_t)z[i];
    qx_free(ctx, z);
    return st;
}

static qx_status convert(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_tensor *to, float *scale, int32_t *zero)
{
    const int64_t n = c->scale->numel, cols = from->rank ? from->dims[from->rank - 1] : 1, rows = cols ? from->numel / cols : 0;
    const qx_quant q = {.grid = {rows, cols, rows, n == 1 ? cols : 1}, .format = {.codes = c->codes}, .scale = scale,
                        .zero = c->zero ? zero : NULL};
    QX_TRY(qx_weight_read_f32(ctx, c->scale, 0, n, scale));
    if (c->zero) QX_TRY(read_zero(ctx, c->zero, zero));
    if (!from->numel) return QX_OK;
    const bool done = is_code(to->dtype) ? qx_quantize(&q, from->dtype, from->data, to->data)
        : qx_dequantize(&q, from->data, to->dtype, to->data);
    if (!done) QX_FAIL(ctx, QX_E_TYPE, "%s cannot become %s", qx_dtype_get(from->dtype)->text, qx_dtype_get(to->dtype)->text);
    return QX_OK;
}

static bool is_float(qx_dtype t) { return qx_dtype_is_real(t) || t == QX_DT_DOUBLE; }

static bool to_floats(const qx_tensor *from, float *x)
{
    if (from->dtype != QX_DT_DOUBLE) return qx_to_f32(from->dtype, from->data, from->numel, x);
    for (int64_t i = 0; i < from->numel; i++) x[i] = (float)((const double *)from->data)[i];
    return true;
}

static qx_status to_float_type(qx_ctx *ctx, const qx_tensor *from, qx_dtype dtype, qx_tensor *to)
{
    float *x;
    QX_TRY(qx_tensor_new(ctx, to, dtype, from->rank, from->dims));
    qx_status st = qx_alloc_array(ctx, (size_t)from->numel + 1, sizeof *x, (void **)&x);
    if (st == QX_OK && !(to_floats(from, x) && qx_from_f32(dtype, x, from->numel, to->data)))
        st = qx_fail(ctx, QX_E_TYPE, "%s cannot become %s", qx_dtype_get(from->dtype)->text, qx_dtype_get(dtype)->text);
    qx_free(ctx, x);
    if (st != QX_OK) qx_tensor_free(ctx, to);
    return st;
}

static qx_status turn(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_dtype dtype, qx_tensor *to)
{
    const int64_t n = c->scale->numel, cols = from->rank ? from->dims[from->rank - 1] : 1;
    float *scale = NULL;
    int32_t *zero = NULL;
    qx_status st;
    if (n != 1 && n != cols) QX_FAIL(ctx, QX_E_SHAPE, "%lld scales do not fit %lld channels", (long long)n, (long long)cols);
    QX_TRY(qx_tensor_new(ctx, to, dtype, from->rank, from->dims));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)n, sizeof *scale, (void **)&scale));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)n, sizeof *zero, (void **)&zero));
    st = convert(ctx, c, from, to, scale, zero);
done:
    qx_free(ctx, scale);
    qx_free(ctx, zero);
    if (st != QX_OK) qx_tensor_free(ctx, to);
    return st;
}

qx_status qx_coded_encode(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_tensor *to)
{
    return c->scale ? turn(ctx, c, from, c->codes, to) : to_float_type(ctx, from, c->codes, to);
}

qx_status qx_coded_decode(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_tensor *to)
{
    return turn(ctx, c, from, QX_DT_FLOAT, to);
}

qx_status qx_coded_feeds(qx_ctx *ctx, const qx_model *m, const qx_feed *feeds, int n, qx_feed *out, qx_tensor *made)
{
    for (int i = 0; i < n; i++) {
        qx_coded c;
        const qx_tensor *t = feeds[i].tensor;
        const qx_value *v = qx_graph_find(m->graph, feeds[i].name);
        out[i] = feeds[i];
        if (!v || v->type.dtype == t->dtype || !is_float(t->dtype) || !qx_coded_input(v, &c)) continue;
        const qx_status st = qx_coded_encode(ctx, &c, t, &made[i]);
        if (st != QX_OK) return qx_note(ctx, st, "input '%s'", v->name);
        out[i].tensor = &made[i];
    }
    return QX_OK;
}

qx_status qx_coded_numbers(qx_ctx *ctx, const qx_model *m, const char *name, const qx_tensor *t, qx_tensor *numbers)
{
    qx_coded c;
    const qx_value *v = qx_graph_find(m->graph, name);
    *numbers = (qx_tensor){0};
    return v && qx_coded_output(v, &c) ? qx_coded_decode(ctx, &c, t, numbers) : QX_OK;
}
