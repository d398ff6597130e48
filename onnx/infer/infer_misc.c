/* infer_misc.c - inference of random generators, signal processing, strings and detection. */
#include <string.h>

#include "onnx/infer/infer_op.h"

static qx_dim scalar_dim(qx_infer *ix, const qx_node *n, uint32_t i)
{
    const qx_content *c = qx_ix_content(ix, n, i);
    return c && c->n == 1 ? qx_dim_of_num(ix, c->v[0]) : qx_dim_unknown();
}

/* ---- random --------------------------------------------------------------------------------------------------------------- */

int qx_infer_random_like(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int dtype = (int)qx_ix_int(ix, n, "dtype", qx_ix_dtype(ix, n, 0));
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    return qx_ix_out(ix, n, 0, dtype, x->rank, x->dims);
}

int qx_infer_random(qx_infer *ix, qx_node *n)
{
    int64_t count;
    const int64_t *shape = qx_ix_ints(ix, n, "shape", &count);
    int dtype = (int)qx_ix_int(ix, n, "dtype", QX_DT_FLOAT);
    if (!shape || count > 64) return qx_ix_out_unranked(ix, n, 0, dtype);
    qx_dim *dims = qx_ix_dims(ix, (int)count);
    for (int64_t i = 0; dims && i < count; i++) {
        if (shape[i] < 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "dim %lld of its shape is %lld", (long long)i, (long long)shape[i]);
        dims[i] = qx_dim_of(shape[i]);
    }
    return qx_ix_out(ix, n, 0, dtype, (int)count, dims);
}

int qx_infer_multinomial(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    qx_dim *dims = qx_ix_dims(ix, 2);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = qx_ix_shaped(ix, n, 0, &x) && x->rank == 2 ? x->dims[0] : qx_dim_unknown();
    dims[1] = qx_dim_of_num(ix, qx_num_of(qx_ix_int(ix, n, "sample_size", 1)));
    return qx_ix_out(ix, n, 0, (int)qx_ix_int(ix, n, "dtype", QX_DT_INT32), 2, dims);
}

/* ---- signals ---------------------------------------------------------------------------------------------------------------- */

int qx_infer_window(qx_infer *ix, qx_node *n)
{
    qx_dim *dims = qx_ix_dims(ix, 1);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = scalar_dim(ix, n, 0);
    return qx_ix_out(ix, n, 0, (int)qx_ix_int(ix, n, "output_datatype", QX_DT_FLOAT), 1, dims);
}

/* Bins of a one-sided spectrum of n points. */
static qx_dim one_sided(qx_infer *ix, qx_dim n)
{
    return qx_dim_of_num(ix, qx_num_add(ix, qx_num_floordiv(ix, qx_num_of_dim(ix, n), qx_num_of(2)), qx_num_of(1)));
}

int qx_infer_mel_weight(qx_infer *ix, qx_node *n)
{
    qx_dim *dims = qx_ix_dims(ix, 2);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = one_sided(ix, scalar_dim(ix, n, 1));
    dims[1] = scalar_dim(ix, n, 0);
    return qx_ix_out(ix, n, 0, (int)qx_ix_int(ix, n, "output_datatype", QX_DT_FLOAT), 2, dims);
}

/* Axis of a DFT: attribute in version 17, input 2 from version 20. */
static bool dft_axis(qx_infer *ix, qx_node *n, int64_t *axis)
{
    int64_t count;
    *axis = n->op->since < 20 ? qx_ix_int(ix, n, "axis", 1) : -2;
    if (n->op->since < 20 || !qx_ix_given(n, 2)) return true;
    return qx_ix_ints_of(ix, n, 2, axis, 1, &count) && count == 1;
}

int qx_infer_dft(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t where;
    int axis;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    if (x->rank < 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d and needs at least 2", x->rank);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    bool half = qx_ix_int(ix, n, "onesided", 0) != 0, inverse = qx_ix_int(ix, n, "inverse", 0) != 0;
    dims[x->rank - 1] = qx_dim_of(half && inverse ? 1 : 2);
    if (!dft_axis(ix, n, &where)) {
        for (int i = 0; i < x->rank - 1; i++) dims[i] = qx_dim_unknown();
        return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
    }
    QX_TRY(qx_ix_axis(ix, n, where, x->rank, &axis));
    if (axis == x->rank - 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its axis is the one of real and imaginary parts");
    qx_dim length = qx_ix_given(n, 1) ? scalar_dim(ix, n, 1) : x->dims[axis];
    if (half && inverse && !qx_ix_given(n, 1))
        length = qx_dim_of_num(ix, qx_num_mul(ix, qx_num_sub(ix, qx_num_of_dim(ix, length), qx_num_of(1)), qx_num_of(2)));
    dims[axis] = half && !inverse ? one_sided(ix, length) : length;
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

int qx_infer_stft(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *window;
    int dtype = qx_ix_dtype(ix, n, 0);
    if (!qx_ix_shaped(ix, n, 0, &x) || x->rank < 2) return qx_ix_out_unranked(ix, n, 0, dtype);
    qx_dim length = qx_ix_given(n, 3) ? scalar_dim(ix, n, 3) : qx_ix_shaped(ix, n, 2, &window) &&
        window->rank == 1 ? window->dims[0] : qx_dim_unknown(), step = scalar_dim(ix, n, 1);
    if (step.n == 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its frame step is 0");
    qx_dim *dims = qx_ix_dims(ix, 4);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = x->dims[0];
    qx_num frames = qx_num_floordiv(ix, qx_num_sub(ix, qx_num_of_dim(ix, x->dims[1]), qx_num_of_dim(ix, length)), qx_num_of_dim(ix, step));
    dims[1] = qx_dim_of_num(ix, qx_num_add(ix, frames, qx_num_of(1)));
    dims[2] = qx_ix_int(ix, n, "onesided", 1) ? one_sided(ix, length) : length;
    dims[3] = qx_dim_of(2);
    return qx_ix_out(ix, n, 0, dtype, 4, dims);
}

/* ---- strings, images, detection ------------------------------------------------------------------------------------------------ */

int qx_infer_string_split(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    if (!qx_ix_shaped(ix, n, 0, &x)) {
        QX_TRY(qx_ix_out_unranked(ix, n, 0, QX_DT_STRING));
        return qx_ix_out_unranked(ix, n, 1, QX_DT_INT64);
    }
    qx_dim *dims = qx_ix_dims(ix, x->rank + 1);
    if (!dims) return QX_IX_NOMEM(ix);
    if (x->rank) memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    dims[x->rank] = qx_dim_unknown();
    QX_TRY(qx_ix_out(ix, n, 0, QX_DT_STRING, x->rank + 1, dims));
    return qx_ix_out(ix, n, 1, QX_DT_INT64, x->rank, x->dims);
}

/* With stop words the number of strings depends on the data. */
int qx_infer_string_normalizer(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    const qx_attr *stop = qx_ix_attr(ix, n, "stopwords");
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, QX_DT_STRING);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    if (x->rank) memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    if (stop && stop->n && x->rank) dims[x->rank - 1] = qx_dim_unknown();
    return qx_ix_out(ix, n, 0, QX_DT_STRING, x->rank, dims);
}

int qx_infer_tfidf(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t count, most = -1;
    const int64_t *index = qx_ix_ints(ix, n, "ngram_indexes", &count);
    for (int64_t i = 0; i < count; i++) most = index[i] > most ? index[i] : most;
    if (!qx_ix_shaped(ix, n, 0, &x) || most < 0 || most > INT32_MAX) return qx_ix_out_unranked(ix, n, 0, QX_DT_FLOAT);
    int rank = x->rank < 2 ? 1 : 2;
    qx_dim *dims = qx_ix_dims(ix, 2);
    if (!dims) return QX_IX_NOMEM(ix);
    if (rank == 2) dims[0] = x->dims[0];
    dims[rank - 1] = qx_dim_of(most + 1);
    return qx_ix_out(ix, n, 0, QX_DT_FLOAT, rank, dims);
}

int qx_infer_image_decoder(qx_infer *ix, qx_node *n)
{
    bool gray = strcmp(qx_ix_string(ix, n, "pixel_format", "RGB"), "Grayscale") == 0;
    qx_dim *dims = qx_ix_dims(ix, 3);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = dims[1] = qx_dim_unknown();
    dims[2] = qx_dim_of(gray ? 1 : 3);
    return qx_ix_out(ix, n, 0, QX_DT_UINT8, 3, dims);
}

int qx_infer_nms(qx_infer *ix, qx_node *n)
{
    qx_dim *dims = qx_ix_dims(ix, 2);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = qx_dim_unknown();
    dims[1] = qx_dim_of(3);
    return qx_ix_out(ix, n, 0, QX_DT_INT64, 2, dims);
}
