/* check_quant.c - QuantizeLinear and DequantizeLinear: scales that a division by cannot survive, zero points that do not fit, and types
 * that the stamped operator set does not have yet. Shapes against axes and blocks are judged by inference. */
#include <float.h>
#include <math.h>

#include "base/text.h"
#include "onnx/check/check.h"

static int code_bits(int dtype)
{
    return qx_dtype_bits(dtype);
}

/* The opset that brought a type of codes into Q/DQ. */
static int needed_opset(int dtype)
{
    switch (dtype) {
    case QX_DT_FLOAT8E4M3FN: case QX_DT_FLOAT8E4M3FNUZ: case QX_DT_FLOAT8E5M2: case QX_DT_FLOAT8E5M2FNUZ: return 19;
    case QX_DT_INT16: case QX_DT_UINT16: return 21;
    case QX_DT_FLOAT4E2M1: return 23;
    default: return code_bits(dtype) == 4 ? 21 : code_bits(dtype) == 2 ? 25 : 10;
    }
}

static qx_status need(qx_checker *c, const qx_node *n, int opset, const char *what)
{
    int64_t has = qx_graph_opset(n->graph, "");
    if (has >= opset) return QX_OK;
    QX_REFUSE(c, "%s: %s needs opset %d, the model imports %lld", QX_LABEL(n), what, opset, (long long)has);
}

static int type_at(const qx_node *n, uint32_t i)
{
    const qx_value *v = qx_node_in(n, i);
    return v && v->type.kind == QX_KIND_TENSOR ? (int)v->type.dtype : 0;
}

static qx_status check_versions(qx_checker *c, const qx_node *n, int codes, int scale)
{
    if (n->domain[0] || n->op->domain[0]) return QX_OK; /* pairs of com.microsoft and trt have all types from the start */
    if (codes) QX_TRY(need(c, n, needed_opset(codes), qx_dtype_get(codes)->text));
    if (scale == QX_DT_FLOAT16 || scale == QX_DT_BFLOAT16) QX_TRY(need(c, n, 19, "a 16-bit scale"));
    if (scale == QX_DT_FLOAT8E8M0) QX_TRY(need(c, n, 24, "an f8e8m0 scale"));
    return qx_attr_int(n, "block_size", 0) ? need(c, n, 21, "block_size") : QX_OK;
}

/* Subnormal float16 scales work but have fewer digits, powers of two apart; counted, because a float16 model may have thousands. */
typedef struct subnormals { int64_t count, at; float first; } subnormals;

static bool few_bits(int dtype) { return code_bits(dtype) == 4 || code_bits(dtype) == 2; }

static qx_status judge_scale(qx_checker *c, const qx_node *n, const qx_weight *w, int64_t i, float v, subnormals *sub)
{
    if (!isfinite(v))
        QX_REFUSE(c, "%s: scale '%s' is %s at element %lld", QX_LABEL(n), QX_SHOWN(w->name), isnan(v) ? "NaN" : "infinite", (long long)i);
    /* Weights of few bits may have negative block scales: the largest value then lands on the lowest code. Nothing is ever
     * divided by them. */
    if (v < 0 && n->op->id == QX_OP_DequantizeLinear && few_bits(type_at(n, 0))) v = -v;
    if (v <= 0)
        QX_REFUSE(c, "%s: scale '%s' is %g at element %lld; it must be positive", QX_LABEL(n), QX_SHOWN(w->name), (double)v, (long long)i);
    /* its least, 2^-127, is what a block of zeros has, and a power of two loses no digits */
    if (w->dtype == QX_DT_FLOAT8E8M0) return QX_OK;
    int exponent;
    if (v >= FLT_MIN && (w->dtype != QX_DT_FLOAT16 || v >= 0x1p-14f || frexpf(v, &exponent) == 0.5f)) return QX_OK;
    if (w->dtype != QX_DT_FLOAT16)
        QX_REFUSE(c, "%s: scale '%s' is subnormal (%g) at element %lld", QX_LABEL(n), QX_SHOWN(w->name), (double)v, (long long)i);
    if (!sub->count++) sub->at = i, sub->first = v;
    return QX_OK;
}

static qx_status check_scale(qx_checker *c, const qx_node *n)
{
    enum { TILE = 1024 };
    float tile[TILE];
    subnormals sub = {0};
    const qx_value *v = qx_node_in(n, 1);
    const qx_weight *w = v ? qx_value_const(v) : NULL;
    if (!w || !qx_dtype_is_float(w->dtype) || w->dtype == QX_DT_FLOAT8E4M3FN || w->dtype == QX_DT_DOUBLE || w->job) return QX_OK;
    for (int64_t at = 0; at < w->numel && c->scale_budget > 0; at += TILE) {
        int64_t count = w->numel - at < TILE ? w->numel - at : TILE;
        QX_TRY(qx_weight_read_f32(c->ctx, w, at, count, tile));
        c->scale_budget -= count * 4;
        for (int64_t i = 0; i < count; i++) QX_TRY(judge_scale(c, n, w, at + i, tile[i], &sub));
    }
    if (!sub.count) return QX_OK;
    return qx_check_warn(c, "%s: scale '%s' has %lld of %lld elements that are subnormal in float16, the first %g at element %lld",
                         QX_LABEL(n), QX_SHOWN(w->name), (long long)sub.count, (long long)w->numel, (double)sub.first,
                         (long long)sub.at);
}

static qx_status check_zero(qx_checker *c, const qx_node *n, int codes)
{
    enum { TILE = 1024 };
    float tile[TILE];
    const qx_value *v = qx_node_in(n, 2);
    int type = type_at(n, 2);
    if (!v) return QX_OK;
    if (codes && type && codes != type)
        QX_REFUSE(c, "%s: the zero point is %s but the codes are %s", QX_LABEL(n), qx_dtype_get(type)->text, qx_dtype_get(codes)->text);
    const qx_weight *w = qx_value_const(v), *s = qx_node_in(n, 1) ? qx_value_const(qx_node_in(n, 1)) : NULL;
    bool one = w && s && w->numel == 1 && s->numel == 1;
    if (w && s && !one && (w->numel != s->numel || w->rank != s->rank))
        QX_REFUSE(c, "%s: the zero point has %lld elements (rank %d) and the scale %lld (rank %d)", QX_LABEL(n), (long long)w->numel,
                  w->rank, (long long)s->numel, s->rank);
    if (!w || !qx_dtype_is_float(w->dtype) || w->job) return QX_OK;
    for (int64_t at = 0; at < w->numel && c->scale_budget > 0; at += TILE) {
        int64_t count = w->numel - at < TILE ? w->numel - at : TILE;
        QX_TRY(qx_weight_read_f32(c->ctx, w, at, count, tile));
        c->scale_budget -= count;
        for (int64_t i = 0; i < count; i++) {
            if (tile[i] != 0)
                QX_REFUSE(c, "%s: zero point '%s' of a float format is %g at element %lld; it must be 0", QX_LABEL(n), QX_SHOWN(w->name),
                          (double)tile[i], (long long)(at + i));
        }
    }
    return QX_OK;
}

static bool quantizes(qx_op_id op)
{
    switch (op) {
    case QX_OP_QuantizeLinear: case QX_OP_ms_QuantizeLinear: case QX_OP_trt_TRT_FP8QuantizeLinear:
    case QX_OP_trt_TRT_INT4QuantizeLinear: case QX_OP_trt_TRT_MXFP8QuantizeLinear: case QX_OP_trt_TRT_BlockQuantize: return true;
    default: return false;
    }
}

qx_status qx_check_quant(qx_checker *c, const qx_node *n)
{
    if (n->op->max_out > 1) return QX_OK; /* finds its scales when it runs */
    int stated = (int)qx_attr_int(n, "output_dtype", 0), codes = quantizes(n->op->id) ? (stated ? stated : type_at(n, 2)) : type_at(n, 0);
    QX_TRY(check_versions(c, n, codes, type_at(n, 1)));
    QX_TRY(check_scale(c, n));
    return check_zero(c, n, codes);
}
