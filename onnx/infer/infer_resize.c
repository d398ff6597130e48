/* infer_resize.c - inference of Resize, Upsample, GridSample and AffineGrid: output sizes from scales (in float arithmetic, as the
 * runtimes do) or from given sizes. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "onnx/infer/infer_op.h"

/* floor(size * scale); the product of a number is taken in float. */
static qx_dim scaled(qx_infer *ix, qx_dim size, qx_num scale)
{
    double s;
    if (!qx_num_as_real(scale, &s)) return qx_dim_of_num(ix, qx_num_floor(ix, qx_num_mul(ix, qx_num_of_dim(ix, size), scale)));
    if (size.n >= 0) return qx_dim_of_num(ix, qx_num_of(qx_f64_to_i64((double)floorf((float)size.n * (float)s))));
    return s == 1 ? size : qx_dim_of_num(ix, qx_num_floor(ix, qx_num_mul(ix, qx_num_of_dim(ix, size), qx_num_real(s))));
}

static qx_status check_scale(qx_infer *ix, const qx_node *n, qx_num v, int64_t i)
{
    double s;
    if (!qx_num_as_real(v, &s) || (s > 0 && s < 1e6)) return QX_OK;
    QX_IX_FAIL(ix, n, QX_E_SHAPE, "scale %lld is %g", (long long)i, s);
}

/* Which axis entry i of scales or sizes is for. */
static qx_status axis_at(qx_infer *ix, qx_node *n, const int64_t *axes, int64_t i, int rank, int *out)
{
    return qx_ix_axis(ix, n, axes ? axes[i] : i, rank, out);
}

static qx_status by_scales(qx_infer *ix, qx_node *n, const qx_type *x, const qx_content *scales, const int64_t *axes, int64_t count,
                           qx_dim *dims)
{
    if (scales->n != count) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it has %lld scales for %lld axes", (long long)scales->n, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        int axis;
        QX_TRY(axis_at(ix, n, axes, i, x->rank, &axis));
        QX_TRY(check_scale(ix, n, scales->v[i], i));
        dims[axis] = scaled(ix, x->dims[axis], scales->v[i]);
    }
    return QX_OK;
}

/* keep_aspect_ratio_policy: one scale for all axes, the smallest or the largest that the sizes ask for. */
static qx_status keep_ratio(qx_infer *ix, qx_node *n, const qx_type *x, const int64_t *axes, int64_t count, bool larger, qx_dim *dims)
{
    double scale = larger ? 0 : INFINITY;
    for (int64_t i = 0; i < count; i++) {
        int axis;
        QX_TRY(axis_at(ix, n, axes, i, x->rank, &axis));
        if (dims[axis].n < 0 || x->dims[axis].n <= 0) scale = NAN;
        double s = (double)((float)dims[axis].n / (float)x->dims[axis].n);
        if (larger ? s > scale : s < scale) scale = s;
    }
    for (int64_t i = 0; i < count; i++) {
        int axis;
        QX_TRY(axis_at(ix, n, axes, i, x->rank, &axis));
        dims[axis] = isfinite(scale) ? qx_dim_of(qx_f64_to_i64((double)floorf((float)scale * (float)x->dims[axis].n + 0.5f)))
            : qx_dim_unknown();
    }
    return QX_OK;
}

static qx_status by_sizes(qx_infer *ix, qx_node *n, const qx_type *x, const qx_content *sizes, const int64_t *axes, int64_t count,
                          qx_dim *dims)
{
    const char *policy = qx_ix_string(ix, n, "keep_aspect_ratio_policy", "stretch");
    if (sizes->n != count) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it has %lld sizes for %lld axes", (long long)sizes->n, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        int axis;
        int64_t v;
        QX_TRY(axis_at(ix, n, axes, i, x->rank, &axis));
        if (qx_num_as_int(sizes->v[i], &v) && (v < 0 || v > (INT64_C(1) << 40)))
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "size %lld is %lld", (long long)i, (long long)v);
        dims[axis] = qx_dim_of_num(ix, sizes->v[i]);
    }
    return strcmp(policy, "stretch") == 0 ? QX_OK : keep_ratio(ix, n, x, axes, count, strcmp(policy, "not_larger") != 0, dims);
}

static const qx_content *filled(const qx_content *c)
{
    return c && c->n ? c : NULL;
}

int qx_infer_resize(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t count;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    const int64_t *axes = n->op->since >= 18 ? qx_ix_ints(ix, n, "axes", &count) : NULL;
    if (!axes) count = x->rank;
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    if (x->rank) memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    const qx_content *scales = filled(qx_ix_content(ix, n, n->op->since < 11 ? 1 : 2)),
        *sizes = filled(n->op->since < 11 ? NULL : qx_ix_content(ix, n, 3));
    const char *mode = qx_ix_string(ix, n, "coordinate_transformation_mode", "half_pixel");
    bool crops = strcmp(mode, "tf_crop_and_resize") == 0 && !sizes; /* the region of interest counts too */
    if (sizes) QX_TRY(by_sizes(ix, n, x, sizes, axes, count, dims));
    else if (scales && !crops) QX_TRY(by_scales(ix, n, x, scales, axes, count, dims));
    else for (int64_t i = 0; i < count; i++) {
        int axis;
        QX_TRY(axis_at(ix, n, axes, i, x->rank, &axis));
        dims[axis] = qx_dim_unknown();
    }
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

int qx_infer_upsample(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    const qx_content *scales = n->op->since >= 9 ? qx_ix_content(ix, n, 1) : NULL;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    const qx_attr *a = qx_ix_attr(ix, n, "scales"), *h = qx_ix_attr(ix, n, "height_scale"), *w = qx_ix_attr(ix, n, "width_scale");
    qx_content *c = n->op->since < 9 ? qx_ix_new_content(ix, a ? a->n : h && w ? 4 : -1) : NULL;
    for (int64_t i = 0; c && i < c->n; i++) c->v[i] = qx_num_real(a ? (double)a->floats[i] : i < 2 ? 1.0 : (double)(i == 2 ? h : w)->f);
    if (c) scales = c;
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < x->rank; i++) dims[i] = qx_dim_unknown();
    if (scales) QX_TRY(by_scales(ix, n, x, scales, NULL, x->rank, dims));
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

int qx_infer_grid_sample(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *grid;
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &grid)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    if (x->rank < 3 || grid->rank != x->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "X has rank %d and the grid rank %d", x->rank, grid->rank);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    memcpy(dims, x->dims, 2 * sizeof *dims);
    QX_TRY(qx_ix_equal(ix, n, "batch sizes", &dims[0], grid->dims[0]));
    for (int i = 2; i < x->rank; i++) dims[i] = grid->dims[i - 1];
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

int qx_infer_affine_grid(qx_infer *ix, qx_node *n)
{
    const qx_type *theta, *size;
    const qx_content *c = qx_ix_content(ix, n, 1);
    if (!qx_ix_shaped(ix, n, 1, &size) || size->rank != 1 || size->dims[0].n < 4 || size->dims[0].n > 5)
        return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    int rank = (int)size->dims[0].n;
    qx_dim *dims = qx_ix_dims(ix, rank);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = c ? qx_dim_of_num(ix, c->v[0]) : qx_dim_unknown();
    if (!c && qx_ix_shaped(ix, n, 0, &theta) && theta->rank == 3) dims[0] = theta->dims[0];
    for (int i = 1; i < rank - 1; i++) dims[i] = c ? qx_dim_of_num(ix, c->v[i + 1]) : qx_dim_unknown();
    dims[rank - 1] = qx_dim_of(rank - 2);
    return qx_ix_out(ix, n, 0, qx_ix_dtype(ix, n, 0), rank, dims);
}
