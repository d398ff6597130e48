/* coded.c - see coded.h. Scales are found by dataflow: names may be anything. */
#include "passes/coded.h"

#include <string.h>

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

static qx_dtype of_cache(const qx_node *gqa, qx_dtype stored)
{
    return qx_attr_int(gqa, "kv_cache_bit_width", 8) == 4 ? QX_DT_UINT4 : stored;
}

static bool read_with(const qx_value *v, qx_dtype codes, int depth, qx_coded *out)
{
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_node *n = u->node;
        if (n->op->id == QX_OP_DequantizeLinear && u->index == 0) return take(out, codes, n->in[1], qx_node_in(n, 2));
        if (n->op->id == QX_OP_ms_GroupQueryAttention && (u->index == 3 || u->index == 4))
            return take(out, of_cache(n, codes), qx_node_in(n, u->index + 9), NULL);
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
    return n->op->id == QX_OP_ms_GroupQueryAttention && take(out, of_cache(n, v->type.dtype), qx_node_in(n, scale), NULL);
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

/* How the scales lie: `slabs` stretches of rows x cols, stretch i under the scales of head i % heads. */
typedef struct slabs { int64_t n, rows, cols, heads; } slabs;

static bool slabs_of(const qx_coded *c, const qx_tensor *numbers, slabs *out)
{
    const int64_t n = c->scale->numel, cols = numbers->rank ? numbers->dims[numbers->rank - 1] : 1, rows = cols ? numbers->numel / cols : 0;
    *out = (slabs){1, rows, cols, 1};
    if (n == 1 || n == cols) return true;
    if (numbers->rank != 4 || n != numbers->dims[1] * cols) return false;
    *out = (slabs){numbers->dims[0] * numbers->dims[1], numbers->dims[2], cols, numbers->dims[1]};
    return true;
}

static qx_status convert(qx_ctx *ctx, const qx_coded *c, const slabs *s, const qx_tensor *from, qx_tensor *to, float *scale, int32_t *zero)
{
    const bool codes = is_code(to->dtype);
    const int64_t n = c->scale->numel, each = s->rows * s->cols;
    QX_TRY(qx_weight_read_f32(ctx, c->scale, 0, n, scale));
    if (c->zero) QX_TRY(read_zero(ctx, c->zero, zero));
    for (int64_t i = 0; c->codes == QX_DT_UINT4 && i < n; i++) zero[i] = 8;
    for (int64_t i = 0; i < s->n && each; i++) {
        const int64_t at = n == 1 ? 0 : i % s->heads * s->cols;
        const qx_quant q = {.grid = {s->rows, s->cols, s->rows, n == 1 ? s->cols : 1}, .format = {.codes = c->codes}, .scale = scale + at,
                            .zero = c->zero || c->codes == QX_DT_UINT4 ? zero + at : NULL};
        const char *in = (const char *)from->data + i * each * qx_dtype_bits(codes ? from->dtype : c->codes) / 8;
        char *out = (char *)to->data + i * each * qx_dtype_bits(codes ? c->codes : to->dtype) / 8;
        if (!(codes ? qx_quantize(&q, from->dtype, in, out) : qx_dequantize(&q, in, to->dtype, out)))
            QX_FAIL(ctx, QX_E_TYPE, "%s cannot become %s", qx_dtype_get(from->dtype)->text, qx_dtype_get(to->dtype)->text);
    }
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

/* The shape of the numbers that stand for codes, and the other way round: they differ where two codes share a byte. */
static qx_status with_width(qx_ctx *ctx, const qx_tensor *like, qx_dtype dtype, int64_t cols, qx_tensor *to)
{
    int64_t dims[QX_MAX_RANK];
    memcpy(dims, like->dims, (size_t)like->rank * sizeof *dims);
    if (like->rank) dims[like->rank - 1] = cols;
    return qx_tensor_new(ctx, to, dtype, like->rank, dims);
}

static qx_status turn(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_dtype dtype, qx_tensor *to)
{
    const bool four = c->codes == QX_DT_UINT4, encode = is_code(dtype);
    const int64_t n = c->scale->numel, cols = from->rank ? from->dims[from->rank - 1] : 1;
    float *scale = NULL;
    int32_t *zero = NULL;
    slabs s;
    qx_status st;
    if (four && encode && cols % 2) QX_FAIL(ctx, QX_E_SHAPE, "two codes share a byte, and there are %lld channels", (long long)cols);
    QX_TRY(with_width(ctx, from, dtype, !four ? cols : encode ? cols / 2 : cols * 2, to));
    if (!slabs_of(c, encode ? from : to, &s))
        QX_TRY_GOTO(st, qx_fail(ctx, QX_E_SHAPE, "%lld scales do not fit %lld channels", (long long)n, (long long)cols));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)n, sizeof *scale, (void **)&scale));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, (size_t)n, sizeof *zero, (void **)&zero));
    st = convert(ctx, c, &s, from, to, scale, zero);
done:
    qx_free(ctx, scale);
    qx_free(ctx, zero);
    if (st != QX_OK) qx_tensor_free(ctx, to);
    return st;
}

qx_status qx_coded_encode(qx_ctx *ctx, const qx_coded *c, const qx_tensor *from, qx_tensor *to)
{
    return c->scale ? turn(ctx, c, from, c->codes == QX_DT_UINT4 ? QX_DT_UINT8 : c->codes, to) : to_float_type(ctx, from, c->codes, to);
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
