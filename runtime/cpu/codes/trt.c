/* trt.c - TensorRT's quantization operators: pairs of its own names, blocks over several axes, and activations whose block scales are found
 * when the model runs.
 *
 * Of a block with the largest value a, under a second level s2 (1 where the operator has none):
 *     s = stored(a / largest code / s2)      E4M3: half to even, 2^-9 at least; E8M0: up to a power of two
 *     codes = round(x / (s s2))              half to even, saturating
 * A block of zeros has the scale 1 (E8M0: 2^-127), as blocks of weights have. */
#include "onnx/trt.h"

#include "kernels/quant.h"
#include "runtime/cpu/codes/qdq.h"

static qx_qdefault defaults(const qx_call *c)
{
    const qx_op_id op = c->node->op->id;
    return (qx_qdefault){.codes = qx_trt_codes(op), .powers = qx_trt_powers(op), .by_shape = true};
}

qx_status qx_cpu_trt_quantize(qx_call *c)
{
    const qx_qdefault d = defaults(c);
    return qx_q_node(c, &d);
}

qx_status qx_cpu_trt_dequantize(qx_call *c)
{
    const qx_qdefault d = defaults(c);
    return qx_dq_node(c, &d);
}

/* ---- blocks of the last two axes ------------------------------------------------------------------------------------------ */

/* A tensor as `outer` matrices of rows x cols in blocks of br x bc; strips of br rows are the unit of work. */
typedef struct boxes { int64_t outer, rows, cols, br, bc, strips; } boxes;

static int64_t scales_of(const boxes *b) { return b->outer * (b->rows / b->br) * (b->cols / b->bc); }

/* What block_shape, or axis and block_size, say of an axis. */
static qx_status block_of(const qx_call *c, const qx_tensor *x, int i, int64_t *block)
{
    const qx_op_id op = c->node->op->id;
    const bool fp4 = op == QX_OP_trt_TRT_FP4DynamicQuantize;
    int64_t n, b = 1;
    int axis;
    if (fp4 || op == QX_OP_trt_TRT_MXFP8DynamicQuantize) {
        QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", fp4 ? 1 : -1), x->rank, &axis));
        if (axis == i) b = qx_call_int(c, "block_size", fp4 ? 16 : 32);
    } else {
        const int64_t *shape = qx_call_ints(c, "block_shape", &n);
        if (!shape || n != x->rank)
            QX_CALL_FAIL(c, QX_E_SHAPE, "block_shape has %lld numbers, the data rank %d", (long long)(shape ? n : 0), x->rank);
        b = shape[i] == -1 ? x->dims[i] : shape[i];
    }
    if (b < 1 || x->dims[i] % b)
        QX_CALL_FAIL(c, QX_E_SHAPE, "axis %d of %lld elements is not whole blocks of %lld", i, (long long)x->dims[i], (long long)b);
    *block = b;
    return QX_OK;
}

static qx_status boxes_of(const qx_call *c, const qx_tensor *x, boxes *b)
{
    int64_t block;
    *b = (boxes){.outer = 1, .rows = 1, .cols = 1, .br = 1, .bc = 1};
    for (int i = 0; i < x->rank; i++) {
        QX_TRY(block_of(c, x, i, &block));
        if (i == x->rank - 1) b->cols = x->dims[i], b->bc = block;
        else if (i == x->rank - 2) b->rows = x->dims[i], b->br = block;
        else b->outer *= x->dims[i];
        if (i < x->rank - 2 && block != 1)
            QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "blocks of axis %d; those of the last two axes are known here", i);
    }
    b->strips = b->outer * (b->rows / b->br);
    return QX_OK;
}

typedef struct job {
    const boxes *b;
    qx_dtype x_type, codes;
    const char *x;
    char *y;                      /* codes, or floats of y_type where they are dequantized */
    qx_dtype y_type;              /* UNDEFINED: x is quantized */
    float *own;                   /* scales that are to be found; NULL: they are given */
    float *scale;                 /* what codes are multiplied by */
    qx_format format;
    float second;
    int64_t per;                  /* strips a piece */
} job;

static const char *at(const char *p, qx_dtype type, int64_t element) { return p + (size_t)element * (size_t)qx_dtype_bits(type) / 8; }

static void find_scales(const job *j, const qx_grid *g, const char *x, float *own, float *scale)
{
    float lo = 0, top = 1;
    const int64_t n = qx_grid_cells(g);
    for (int64_t i = 0; i < n; i++) own[i] = 0;
    (void)qx_amax(g, j->x_type, x, own, NULL);
    (void)qx_format_range(&j->format, &lo, &top);
    for (int64_t i = 0; i < n; i++) {
        const float s = own[i] / top / j->second;
        own[i] = s == 0 && own[i] > 0 ? 0x1p-149f : s;
    }
    qx_scales_stored(&j->format, own, n, NULL);
    for (int64_t i = 0; i < n; i++) scale[i] = own[i] * j->second;
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const boxes *b = j->b;
    const int64_t first = i * j->per, strips = b->strips - first < j->per ? b->strips - first : j->per, along = b->cols / b->bc;
    const qx_grid g = {strips * b->br, b->cols, b->br, b->bc};
    const int64_t from = first * b->br * b->cols;
    const char *x = at(j->x, j->x_type, from);
    char *y = j->y + (at(j->y, j->y_type ? j->y_type : j->codes, from) - j->y);
    if (j->own) find_scales(j, &g, x, j->own + first * along, j->scale + first * along);
    const qx_quant q = {.grid = g, .format = {.codes = j->codes}, .scale = j->scale + first * along};
    const bool ok = j->y_type ? qx_dequantize(&q, x, j->y_type, y) : qx_quantize(&q, j->x_type, x, y);
    return ok ? QX_OK : QX_E_TYPE;
}

static qx_status run(qx_call *c, job *j)
{
    enum { PIECE = 1 << 15 };
    const boxes *b = j->b;
    const int64_t strip = b->br * b->cols;
    if (!strip || !b->strips) return QX_OK;
    if (qx_dtype_bits(j->codes) < 8 && strip % 2) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "rows of %lld 4-bit codes", (long long)strip);
    j->per = (PIECE + strip - 1) / strip;
    const qx_status st = qx_parallel(c->ctx, (b->strips + j->per - 1) / j->per, piece, j);
    if (st == QX_E_TYPE)
        QX_CALL_FAIL(c, st, "%s and %s are not converted into each other", qx_dtype_get(j->x_type)->text,
                     qx_dtype_get(j->y_type ? j->y_type : j->codes)->text);
    return st;
}

static void scale_dims(const qx_tensor *x, const boxes *b, int64_t *dims)
{
    for (int i = 0; i < x->rank; i++) dims[i] = x->dims[i];
    if (x->rank > 0) dims[x->rank - 1] /= b->bc;
    if (x->rank > 1) dims[x->rank - 2] /= b->br;
}

qx_status qx_cpu_trt_block(qx_call *c)
{
    const bool back = c->node->op->id == QX_OP_trt_TRT_BlockDequantize;
    const qx_tensor *x, *s;
    const float *scale;
    qx_tensor *y;
    boxes b;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &s));
    QX_TRY(boxes_of(c, x, &b));
    if (s->numel != scales_of(&b))
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld blocks, %lld scales", (long long)scales_of(&b), (long long)s->numel);
    const qx_dtype stated = (qx_dtype)qx_call_int(c, "output_dtype", 0),
        made = stated ? stated : back ? s->dtype : QX_DT_FLOAT8E4M3FN;
    float lo, hi;
    if (back ? !qx_dtype_is_real(made) : !qx_format_range(&(qx_format){.codes = made}, &lo, &hi))
        QX_CALL_FAIL(c, QX_E_TYPE, "output_dtype %s", qx_dtype_get(made)->text);
    QX_TRY(qx_call_in_f32(c, 1, &scale));
    QX_TRY(qx_call_out(c, 0, made, x->rank, x->dims, &y));
    job j = {.b = &b, .x_type = x->dtype, .codes = back ? x->dtype : made, .x = x->data, .y = y->data, .y_type = back ? made : 0,
             .scale = (float *)scale};
    return run(c, &j);
}

qx_status qx_cpu_trt_dynamic(qx_call *c)
{
    const qx_trt_dynamic t = qx_trt_dynamic_types(c->node->op->id, (int)qx_call_int(c, "output_type", 0),
                                                  (int)qx_call_int(c, "scale_type", 0));
    const qx_tensor *x, *s2 = qx_call_in(c, 1);
    const float *second = NULL;
    qx_tensor *y, *s;
    boxes b;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(boxes_of(c, x, &b));
    if (s2) QX_TRY(qx_call_in_f32(c, 1, &second));
    if (s2 && (s2->numel != 1 || !(second[0] > 0)))
        QX_CALL_FAIL(c, QX_E_SHAPE, "the second scale has %lld elements and is %g: one above 0 is needed", (long long)s2->numel,
                     s2->numel ? (double)second[0] : 0.0);
    job j = {.b = &b, .x_type = x->dtype, .codes = t.codes, .x = x->data, .format = {.codes = t.codes, .scale = t.scale},
             .second = second ? second[0] : 1};
    float lo, hi;
    if (!qx_format_range(&j.format, &lo, &hi)) QX_CALL_FAIL(c, QX_E_TYPE, "output_type %s", qx_dtype_get(t.codes)->text);
    if (!qx_dtype_is_real(t.scale) && t.scale != QX_DT_FLOAT8E4M3FN && t.scale != QX_DT_FLOAT8E8M0)
        QX_CALL_FAIL(c, QX_E_TYPE, "scale_type %s", qx_dtype_get(t.scale)->text);
    const int64_t n = scales_of(&b);
    int64_t *dims;
    QX_TRY(QX_CALL_SCRATCH(c, x->rank + 1, &dims));
    scale_dims(x, &b, dims);
    QX_TRY(qx_call_out(c, 0, t.codes, x->rank, x->dims, &y));
    QX_TRY(qx_call_out(c, 1, t.stored, x->rank, dims, &s));
    QX_TRY(QX_CALL_SCRATCH(c, n + 1, &j.own));
    QX_TRY(QX_CALL_SCRATCH(c, n + 1, &j.scale));
    j.y = y->data;
    QX_TRY(run(c, &j));
    return qx_from_f32(t.scale, j.own, n, s->data) ? QX_OK : QX_E_TYPE;
}
