/* infer_conv.c - inference of operators that slide a window over an image: convolutions, pooling, and what turns images into other
 * sizes (Resize, Upsample, GridSample, RoiAlign, Col2Im). */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "onnx/infer/infer_conv.h"

/* ---- windows ------------------------------------------------------------------------------------------------------------ */

static qx_status ints_attr(qx_infer *ix, qx_node *n, const char *name, int count, int64_t fallback, int64_t least, int64_t *out)
{
    int64_t given;
    const int64_t *v = qx_ix_ints(ix, n, name, &given);
    for (int i = 0; i < count; i++) out[i] = fallback;
    if (!v || given == 0) return QX_OK;
    if (given != count) QX_IX_FAIL(ix, n, QX_E_SHAPE, "attribute '%s' has %lld entries instead of %d", name, (long long)given, count);
    for (int i = 0; i < count; i++) {
        if (v[i] < least || v[i] > INT32_MAX) QX_IX_FAIL(ix, n, QX_E_SHAPE, "attribute '%s': entry %d is %lld", name, i, (long long)v[i]);
        out[i] = v[i];
    }
    return QX_OK;
}

qx_status qx_window_read(qx_infer *ix, qx_node *n, int spatial, qx_window *w)
{
    *w = (qx_window){.spatial = spatial};
    if (spatial > QX_WINDOW_DIMS)
        QX_IX_FAIL(ix, n, QX_E_UNSUPPORTED, "it has %d spatial axes; at most %d are supported", spatial, QX_WINDOW_DIMS);
    QX_TRY(ints_attr(ix, n, "kernel_shape", spatial, 0, 1, w->kernel));
    QX_TRY(ints_attr(ix, n, "strides", spatial, 1, 1, w->stride));
    QX_TRY(ints_attr(ix, n, "dilations", spatial, 1, 1, w->dilation));
    QX_TRY(ints_attr(ix, n, "pads", 2 * spatial, 0, INT32_MIN, w->pads));
    const char *pad = qx_ix_string(ix, n, "auto_pad", "NOTSET");
    w->same = strcmp(pad, "SAME_UPPER") == 0 || strcmp(pad, "SAME_LOWER") == 0;
    if (strcmp(pad, "VALID") == 0 || w->same) memset(w->pads, 0, sizeof w->pads);
    else if (strcmp(pad, "NOTSET") != 0 && pad[0]) QX_IX_FAIL(ix, n, QX_E_FORMAT, "auto_pad is '%.40s'", pad);
    return QX_OK;
}

qx_dim qx_window_out(qx_infer *ix, const qx_window *w, int i, qx_dim in, bool ceil_mode)
{
    qx_num size = qx_num_of_dim(ix, in), stride = qx_num_of(w->stride[i]);
    if (w->same) return qx_dim_of_num(ix, qx_num_floordiv(ix, qx_num_add(ix, size, qx_num_of(w->stride[i] - 1)), stride));
    int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1, begin = w->pads[i], end = w->pads[i + w->spatial];
    qx_num span = qx_num_add(ix, size, qx_num_of(begin + end - reach));
    qx_num steps = qx_num_floordiv(ix, ceil_mode ? qx_num_add(ix, span, qx_num_of(w->stride[i] - 1)) : span, stride);
    /* The last window must begin inside the image or its front padding. */
    if (ceil_mode && in.n >= 0 && steps.kind == QX_NUM_INT && steps.i * w->stride[i] >= in.n + begin) steps.i--;
    return qx_dim_of_num(ix, qx_num_add(ix, steps, qx_num_of(1)));
}

static qx_status refuse_small(qx_infer *ix, qx_node *n, const qx_window *w, int i, qx_dim in)
{
    int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
    if (w->same || in.n < 0 || in.n + w->pads[i] + w->pads[i + w->spatial] >= reach) return QX_OK;
    QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %d has %lld elements with padding, less than the window of %lld", i + 2,
               (long long)(in.n + w->pads[i] + w->pads[i + w->spatial]), (long long)reach);
}

/* ---- convolution ----------------------------------------------------------------------------------------------------------- */

/* Kernel dims from the weight when the attribute is absent; refused when both are there and differ. */
static qx_status kernel_from_weight(qx_infer *ix, qx_node *n, const qx_type *weight, qx_window *w)
{
    for (int i = 0; i < w->spatial; i++) {
        qx_dim d = weight ? weight->dims[i + 2] : qx_dim_unknown();
        if (w->kernel[i] && d.n >= 0 && d.n != w->kernel[i])
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "kernel_shape says %lld for axis %d, the weight has %lld", (long long)w->kernel[i], i,
                       (long long)d.n);
        if (d.n == 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "the weight has a kernel of size 0 in axis %d", i);
        if (!w->kernel[i]) w->kernel[i] = d.n > INT32_MAX ? 0 : d.n;
    }
    return QX_OK;
}

static qx_status check_groups(qx_infer *ix, qx_node *n, const qx_type *x, const qx_type *weight, int64_t group, bool transposed)
{
    if (group < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "group is %lld", (long long)group);
    int64_t channels = x->dims[1].n, have = weight->dims[transposed ? 0 : 1].n, outputs = weight->dims[0].n;
    if (channels >= 0 && channels % group != 0)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "%lld channels do not divide into %lld groups", (long long)channels, (long long)group);
    if (!transposed && outputs >= 0 && outputs % group != 0)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "%lld output channels do not divide into %lld groups", (long long)outputs, (long long)group);
    int64_t want = transposed ? channels : channels / group;
    if (channels >= 0 && have >= 0 && have != want)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "the input has %lld channels in %lld groups, the weight takes %lld", (long long)channels,
                   (long long)group, (long long)have);
    return QX_OK;
}

qx_status qx_conv_shape(qx_infer *ix, qx_node *n, uint32_t x_in, uint32_t w_in, int dtype)
{
    const qx_type *x, *weight;
    qx_window w;
    if (!qx_ix_shaped(ix, n, x_in, &x) || !qx_ix_shaped(ix, n, w_in, &weight)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (x->rank < 3 || weight->rank != x->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "the input has rank %d and the weight rank %d; both must be the same, 3 or more", x->rank,
                   weight->rank);
    QX_TRY(qx_window_read(ix, n, x->rank - 2, &w));
    QX_TRY(kernel_from_weight(ix, n, weight, &w));
    QX_TRY(check_groups(ix, n, x, weight, qx_ix_int(ix, n, "group", 1), false));
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = x->dims[0];
    dims[1] = weight->dims[0];
    for (int i = 0; i < w.spatial; i++) {
        if (w.kernel[i]) QX_TRY(refuse_small(ix, n, &w, i, x->dims[i + 2]));
        dims[i + 2] = w.kernel[i] || w.same ? qx_window_out(ix, &w, i, x->dims[i + 2], false) : qx_dim_unknown();
    }
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

int qx_infer_conv(qx_infer *ix, qx_node *n) { return qx_conv_shape(ix, n, 0, 1, qx_ix_dtype(ix, n, 0)); }
int qx_infer_conv_integer(qx_infer *ix, qx_node *n) { return qx_conv_shape(ix, n, 0, 1, QX_DT_INT32); }
int qx_infer_deform_conv(qx_infer *ix, qx_node *n) { return qx_conv_shape(ix, n, 0, 1, qx_ix_dtype(ix, n, 0)); }

int qx_infer_qlinear_conv(qx_infer *ix, qx_node *n)
{
    int dtype = qx_ix_dtype(ix, n, 7);
    if (qx_ix_int(ix, n, "channels_last", 0)) return qx_nhwc_conv_shape(ix, n, 0, 3, dtype ? dtype : qx_ix_dtype(ix, n, 0));
    return qx_conv_shape(ix, n, 0, 3, dtype ? dtype : qx_ix_dtype(ix, n, 0));
}

bool qx_nhwc_weight_is_last(const qx_node *n, int64_t channels, int64_t group, int64_t last)
{
    return n->op->id == QX_OP_ms_NhwcConv && (channels < 0 || last < 0 || last * group == channels);
}

/* The weight as [M, C / group, kernel...], whichever way it is stored. */
static qx_status weight_in_order(qx_infer *ix, const qx_node *n, const qx_type *x, int64_t group, qx_type *weight)
{
    if (!qx_nhwc_weight_is_last(n, x->dims[x->rank - 1].n, group, weight->dims[weight->rank - 1].n)) return QX_OK;
    qx_dim *dims = qx_ix_dims(ix, weight->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = weight->dims[0];
    dims[1] = weight->dims[weight->rank - 1];
    for (int i = 2; i < weight->rank; i++) dims[i] = weight->dims[i - 1];
    weight->dims = dims;
    return QX_OK;
}

qx_status qx_nhwc_conv_shape(qx_infer *ix, qx_node *n, uint32_t x_in, uint32_t w_in, int dtype)
{
    const qx_type *x, *stored;
    qx_window w;
    if (!qx_ix_shaped(ix, n, x_in, &x) || !qx_ix_shaped(ix, n, w_in, &stored) || x->rank < 3 || stored->rank != x->rank)
        return qx_ix_out_unranked(ix, n, 0, dtype);
    qx_type weight = *stored;
    QX_TRY(weight_in_order(ix, n, x, qx_ix_int(ix, n, "group", 1), &weight));
    QX_TRY(qx_window_read(ix, n, x->rank - 2, &w));
    QX_TRY(kernel_from_weight(ix, n, &weight, &w));
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = x->dims[0];
    for (int i = 0; i < w.spatial; i++)
        dims[i + 1] = w.kernel[i] || w.same ? qx_window_out(ix, &w, i, x->dims[i + 1], false) : qx_dim_unknown();
    dims[x->rank - 1] = weight.dims[0];
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

static qx_dim transposed_out(qx_infer *ix, const qx_window *w, int i, qx_dim in, int64_t extra)
{
    if (w->same) return qx_dim_mul(ix, in, qx_dim_of(w->stride[i]));
    int64_t rest = extra + (w->kernel[i] - 1) * w->dilation[i] + 1 - w->pads[i] - w->pads[i + w->spatial] - w->stride[i];
    return qx_dim_of_num(ix, qx_num_add(ix, qx_num_mul(ix, qx_num_of_dim(ix, in), qx_num_of(w->stride[i])), qx_num_of(rest)));
}

int qx_infer_conv_transpose(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *weight;
    qx_window w;
    int64_t extra[QX_WINDOW_DIMS], count;
    int dtype = qx_ix_dtype(ix, n, 0);
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &weight)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (x->rank < 3 || weight->rank != x->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "the input has rank %d and the weight rank %d; both must be the same, 3 or more", x->rank,
                   weight->rank);
    QX_TRY(qx_window_read(ix, n, x->rank - 2, &w));
    QX_TRY(kernel_from_weight(ix, n, weight, &w));
    QX_TRY(ints_attr(ix, n, "output_padding", w.spatial, 0, 0, extra));
    int64_t group = qx_ix_int(ix, n, "group", 1);
    QX_TRY(check_groups(ix, n, x, weight, group, true));
    const int64_t *fixed = qx_ix_ints(ix, n, "output_shape", &count);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = x->dims[0];
    dims[1] = qx_dim_mul(ix, weight->dims[1], qx_dim_of(group));
    for (int i = 0; i < w.spatial; i++) {
        if (fixed && count >= w.spatial) dims[i + 2] = qx_dim_of_num(ix, qx_num_of(fixed[count - w.spatial + i]));
        else dims[i + 2] = w.kernel[i] || w.same ? transposed_out(ix, &w, i, x->dims[i + 2], extra[i]) : qx_dim_unknown();
    }
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

/* ---- pooling ------------------------------------------------------------------------------------------------------------------ */

qx_status qx_pool_shape(qx_infer *ix, qx_node *n, int dtype, bool channels_last)
{
    const qx_type *x;
    qx_window w;
    int first = channels_last ? 1 : 2;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (x->rank < 3) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d and needs at least 3", x->rank);
    QX_TRY(qx_window_read(ix, n, x->rank - 2, &w));
    bool ceil_mode = qx_ix_int(ix, n, "ceil_mode", 0) != 0;
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    for (int i = 0; i < w.spatial; i++) {
        if (!w.kernel[i]) QX_IX_FAIL(ix, n, QX_E_FORMAT, "it has no kernel_shape");
        QX_TRY(refuse_small(ix, n, &w, i, x->dims[i + first]));
        dims[i + first] = qx_window_out(ix, &w, i, x->dims[i + first], ceil_mode);
    }
    QX_TRY(qx_ix_out(ix, n, 0, dtype, x->rank, dims));
    return n->op->id == QX_OP_MaxPool ? qx_ix_out(ix, n, 1, QX_DT_INT64, x->rank, dims) : QX_OK;
}

int qx_infer_pool(qx_infer *ix, qx_node *n)
{
    if (n->op->id == QX_OP_LpPool && n->op->since < 2) { /* kernel_shape was optional there */
        int64_t count;
        if (!qx_ix_ints(ix, n, "kernel_shape", &count)) return QX_OK;
    }
    return qx_pool_shape(ix, n, qx_ix_dtype(ix, n, 0), false);
}

int qx_infer_ms_nhwc_pool(qx_infer *ix, qx_node *n) { return qx_pool_shape(ix, n, qx_ix_dtype(ix, n, 0), true); }

qx_status qx_global_pool_shape(qx_infer *ix, qx_node *n, int dtype, bool channels_last)
{
    const qx_type *x;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (x->rank < 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d and needs at least 2", x->rank);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    int channel = channels_last ? x->rank - 1 : 1;
    for (int i = 0; i < x->rank; i++) dims[i] = i == 0 || i == channel ? x->dims[i] : qx_dim_of(1);
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

int qx_infer_global_pool(qx_infer *ix, qx_node *n) { return qx_global_pool_shape(ix, n, qx_ix_dtype(ix, n, 0), false); }

static qx_status rois(qx_infer *ix, qx_node *n, int64_t h, int64_t w)
{
    const qx_type *x, *roi;
    qx_dim *dims = qx_ix_dims(ix, 4);
    if (!dims) return QX_IX_NOMEM(ix);
    if (h < 1 || w < 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its output is %lld x %lld", (long long)h, (long long)w);
    dims[0] = qx_ix_shaped(ix, n, 1, &roi) && roi->rank == 2 ? roi->dims[0] : qx_dim_unknown();
    dims[1] = qx_ix_shaped(ix, n, 0, &x) && x->rank == 4 ? x->dims[1] : qx_dim_unknown();
    dims[2] = qx_dim_of(h);
    dims[3] = qx_dim_of(w);
    return qx_ix_out(ix, n, 0, qx_ix_dtype(ix, n, 0), 4, dims);
}

int qx_infer_roi_align(qx_infer *ix, qx_node *n)
{
    return rois(ix, n, qx_ix_int(ix, n, "output_height", 1), qx_ix_int(ix, n, "output_width", 1));
}

int qx_infer_max_roi_pool(qx_infer *ix, qx_node *n)
{
    int64_t count;
    const int64_t *size = qx_ix_ints(ix, n, "pooled_shape", &count);
    if (count != 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "pooled_shape has %lld entries instead of 2", (long long)count);
    return rois(ix, n, size[0], size[1]);
}

int qx_infer_max_unpool(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    qx_window w;
    int rank, dtype = qx_ix_dtype(ix, n, 0);
    qx_dim *dims;
    if (qx_ix_given(n, 2)) {
        QX_TRY(qx_ix_dims_from_content(ix, n, 2, &dims, &rank));
        return rank < 0 ? qx_ix_out_unranked(ix, n, 0, dtype) : qx_ix_out(ix, n, 0, dtype, rank, dims);
    }
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (x->rank < 3) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d and needs at least 3", x->rank);
    QX_TRY(qx_window_read(ix, n, x->rank - 2, &w));
    dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    for (int i = 0; i < w.spatial; i++) dims[i + 2] = transposed_out(ix, &w, i, x->dims[i + 2], 0);
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

int qx_infer_col2im(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t image[QX_WINDOW_DIMS], block[QX_WINDOW_DIMS], count, blocks, product;
    int dtype = qx_ix_dtype(ix, n, 0);
    if (!qx_ix_ints_of(ix, n, 1, image, QX_WINDOW_DIMS, &count) || !qx_ix_ints_of(ix, n, 2, block, QX_WINDOW_DIMS, &blocks) ||
        !qx_ix_shaped(ix, n, 0, &x) || x->rank != 3)
        return qx_ix_out_unranked(ix, n, 0, dtype);
    if (count != blocks) QX_IX_FAIL(ix, n, QX_E_SHAPE, "the image has %lld axes, the block %lld", (long long)count, (long long)blocks);
    if (!qx_dims_product(block, (int)blocks, &product) || product < 1)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "the sizes of its block are not positive, or too large to be counted");
    qx_dim *dims = qx_ix_dims(ix, (int)count + 2);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = x->dims[0];
    dims[1] = qx_dim_of_num(ix, qx_num_floordiv(ix, qx_num_of_dim(ix, x->dims[1]), qx_num_of(product)));
    for (int i = 0; i < count; i++) dims[i + 2] = qx_dim_of_num(ix, qx_num_of(image[i]));
    return qx_ix_out(ix, n, 0, dtype, (int)count + 2, dims);
}
