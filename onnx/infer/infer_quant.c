/* infer_quant.c - inference of quantization, whose scales must fit the shape of what they scale: the standard's operators and
 * TensorRT's. */
#include "onnx/infer/infer_op.h"
#include "onnx/trt.h"

/* A scale is one number, one per element of `axis`, or one per block of it. */
static qx_status scale_fits(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *s;
    int axis;
    int64_t block = qx_ix_int(ix, n, "block_size", 0);
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &s)) return QX_OK;
    if (s->rank == 0 || (s->rank == 1 && s->dims[0].n == 1 && x->rank != 1)) return QX_OK;
    if (s->rank == 1 && s->dims[0].n == 1 && !block) return QX_OK;
    if (block < 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "block_size is %lld", (long long)block);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 1), x->rank, &axis));
    if (s->rank == 1 && !block) {
        qx_dim d = x->dims[axis];
        return qx_ix_equal(ix, n, "the axis and its scales", &d, s->dims[0]);
    }
    if (s->rank != x->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "the scale has rank %d, the data rank %d", s->rank, x->rank);
    for (int i = 0; i < x->rank; i++) {
        qx_dim d = x->dims[i];
        if (i != axis) {
            QX_TRY(qx_ix_equal(ix, n, "dims of the data and its scales", &d, s->dims[i]));
        } else if (d.n >= 0 && s->dims[i].n >= 0) {
            int64_t blocks = block ? (d.n + block - 1) / block : s->dims[i].n;
            if (s->dims[i].n != blocks)
                QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %d of %lld elements in blocks of %lld needs %lld scales and has %lld", i,
                           (long long)d.n, (long long)block, (long long)blocks, (long long)s->dims[i].n);
            if (!block && s->dims[i].n && d.n % s->dims[i].n)
                QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %d of %lld elements does not divide into %lld scales", i, (long long)d.n,
                           (long long)s->dims[i].n);
        }
    }
    return QX_OK;
}

static qx_status like_input(qx_infer *ix, qx_node *n, int dtype)
{
    const qx_type *x;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    return qx_ix_out(ix, n, 0, dtype, x->rank, x->dims);
}

int qx_infer_quantize_linear(qx_infer *ix, qx_node *n)
{
    int stated = (int)qx_ix_int(ix, n, "output_dtype", 0), zero = qx_ix_dtype(ix, n, 2);
    if (stated && zero && stated != zero)
        QX_IX_FAIL(ix, n, QX_E_TYPE, "output_dtype is %s but the zero point is %s", qx_dtype_get(stated)->text, qx_dtype_get(zero)->text);
    QX_TRY(scale_fits(ix, n));
    return like_input(ix, n, stated ? stated : zero ? zero : QX_DT_UINT8);
}

int qx_infer_dequantize_linear(qx_infer *ix, qx_node *n)
{
    int stated = (int)qx_ix_int(ix, n, "output_dtype", 0), scale = qx_ix_dtype(ix, n, 1);
    QX_TRY(scale_fits(ix, n));
    if (!stated && scale == QX_DT_FLOAT8E8M0) scale = QX_DT_FLOAT;
    return like_input(ix, n, stated ? stated : scale ? scale : QX_DT_FLOAT);
}

int qx_infer_dynamic_quantize(qx_infer *ix, qx_node *n)
{
    QX_TRY(like_input(ix, n, QX_DT_UINT8));
    QX_TRY(qx_ix_out(ix, n, 1, QX_DT_FLOAT, 0, qx_ix_dims(ix, 0)));
    return qx_ix_out(ix, n, 2, QX_DT_UINT8, 0, qx_ix_dims(ix, 0));
}

/* ---- TensorRT's, as its ONNX parser reads them ---------------------------------------------------------------------------------- */

int qx_infer_trt_quantize(qx_infer *ix, qx_node *n)
{
    const int stated = (int)qx_ix_int(ix, n, "output_dtype", 0), zero = qx_ix_dtype(ix, n, 2);
    QX_TRY(scale_fits(ix, n));
    return like_input(ix, n, stated ? stated : zero ? zero : (int)qx_trt_codes(n->op->id));
}

int qx_infer_trt_dequantize(qx_infer *ix, qx_node *n)
{
    const int stated = (int)qx_ix_int(ix, n, "output_dtype", 0), scale = qx_ix_dtype(ix, n, 1);
    QX_TRY(scale_fits(ix, n));
    return like_input(ix, n, stated ? stated : scale && scale != QX_DT_UINT8 ? scale : QX_DT_FLOAT);
}

/* Scales of whole blocks: `shape` elements of each axis share one; -1: all of the axis. */
static qx_status block_scales(qx_infer *ix, qx_node *n, const qx_type *x, const int64_t *shape, qx_dim *dims)
{
    for (int i = 0; i < x->rank; i++) {
        const int64_t block = shape[i], d = x->dims[i].n;
        dims[i] = block == 1 ? x->dims[i] : qx_dim_of(1);
        if (block == -1 || block == 1) continue;
        if (block < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "blocks of %lld", (long long)block);
        if (d >= 0 && d % block)
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %d of %lld elements is not whole blocks of %lld", i, (long long)d, (long long)block);
        dims[i] = d < 0 ? qx_dim_unknown() : qx_dim_of(d / block);
    }
    return QX_OK;
}

/* What block_shape, or axis and block_size, say of each axis of x. */
static qx_status shape_of_blocks(qx_infer *ix, qx_node *n, const qx_type *x, int64_t *shape)
{
    int64_t given;
    int axis;
    const bool fp4 = n->op->id == QX_OP_trt_TRT_FP4DynamicQuantize;
    const int64_t *blocks = qx_ix_ints(ix, n, "block_shape", &given);
    for (int i = 0; i < x->rank; i++) shape[i] = 1;
    if (fp4 || n->op->id == QX_OP_trt_TRT_MXFP8DynamicQuantize) {
        QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", fp4 ? 1 : -1), x->rank, &axis));
        shape[axis] = qx_ix_int(ix, n, "block_size", fp4 ? 16 : 32);
        return QX_OK;
    }
    if (!blocks || given != x->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "block_shape has %lld numbers, the data rank %d", (long long)(blocks ? given : 0), x->rank);
    for (int i = 0; i < x->rank; i++) shape[i] = blocks[i];
    return QX_OK;
}

int qx_infer_trt_block(qx_infer *ix, qx_node *n)
{
    const bool back = n->op->id == QX_OP_trt_TRT_BlockDequantize;
    const int stated = (int)qx_ix_int(ix, n, "output_dtype", 0), made = stated ? stated : back ? qx_ix_dtype(ix, n, 1) : QX_DT_FLOAT8E4M3FN;
    const qx_type *x, *s;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, made);
    int64_t *shape = qx_arena_array(qx_ix_arena(ix), (size_t)x->rank + 1, sizeof *shape);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!shape || !dims) return QX_IX_NOMEM(ix);
    QX_TRY(shape_of_blocks(ix, n, x, shape));
    QX_TRY(block_scales(ix, n, x, shape, dims));
    if (!qx_ix_shaped(ix, n, 1, &s)) return like_input(ix, n, made);
    if (s->rank != x->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "the scale has rank %d, the data rank %d", s->rank, x->rank);
    for (int i = 0; i < x->rank; i++) QX_TRY(qx_ix_equal(ix, n, "blocks of the data and their scales", &dims[i], s->dims[i]));
    return like_input(ix, n, made);
}

int qx_infer_trt_dynamic(qx_infer *ix, qx_node *n)
{
    const qx_trt_dynamic t = qx_trt_dynamic_types(n->op->id, (int)qx_ix_int(ix, n, "output_type", 0),
                                                  (int)qx_ix_int(ix, n, "scale_type", 0));
    const qx_type *x;
    QX_TRY(like_input(ix, n, t.codes));
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 1, t.stored);
    int64_t *shape = qx_arena_array(qx_ix_arena(ix), (size_t)x->rank + 1, sizeof *shape);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!shape || !dims) return QX_IX_NOMEM(ix);
    QX_TRY(shape_of_blocks(ix, n, x, shape));
    QX_TRY(block_scales(ix, n, x, shape, dims));
    return qx_ix_out(ix, n, 1, t.stored, x->rank, dims);
}
