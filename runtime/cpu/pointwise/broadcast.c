/* broadcast.c - see broadcast.h. */
#include "runtime/cpu/pointwise/broadcast.h"

static qx_status common_shape(const qx_call *c, const qx_tensor *const *ops, int n_ops, qx_bcast *b)
{
    char x[96], y[96];
    for (int k = 0; k < n_ops; k++) {
        int64_t dims[QX_MAX_RANK];
        int rank;
        if (!qx_broadcast(b->out_dims, b->out_rank, ops[k]->dims, ops[k]->rank, dims, &rank))
            QX_CALL_FAIL(c, QX_E_SHAPE, "%s and %s cannot be broadcast", qx_tensor_describe(ops[0], x, sizeof x),
                         qx_tensor_describe(ops[k], y, sizeof y));
        b->out_rank = rank;
        for (int i = 0; i < rank; i++) b->out_dims[i] = dims[i];
    }
    return QX_OK;
}

static int64_t stride_of(const qx_tensor *t, int out_rank, int axis)
{
    int own = axis - (out_rank - t->rank);
    if (own < 0 || t->dims[own] == 1) return 0;
    return qx_prod(t->dims, own + 1, t->rank);
}

static bool can_merge(const qx_bcast *b, const int64_t *inner, int64_t dim)
{
    for (int k = 0; k < b->n_ops; k++)
        if (b->stride[k][b->rank - 1] != inner[k] * dim) return false;
    return true;
}

qx_status qx_bcast_make(const qx_call *c, const qx_tensor *const *ops, int n_ops, qx_bcast *b)
{
    *b = (qx_bcast){.n_ops = n_ops};
    QX_TRY(common_shape(c, ops, n_ops, b));
    for (int i = 0; i < b->out_rank; i++) {
        int64_t s[3] = {0, 0, 0};
        if (b->out_dims[i] == 1) continue;
        for (int k = 0; k < n_ops; k++) s[k] = stride_of(ops[k], b->out_rank, i);
        if (b->rank > 0 && can_merge(b, s, b->out_dims[i])) b->dims[b->rank - 1] *= b->out_dims[i];
        else b->dims[b->rank++] = b->out_dims[i];
        for (int k = 0; k < n_ops; k++) b->stride[k][b->rank - 1] = s[k];
    }
    if (b->rank == 0) {
        b->dims[0] = 1;
        b->rank = 1;
    }
    b->run = b->dims[b->rank - 1];
    b->runs = qx_prod(b->dims, 0, b->rank - 1);
    return QX_OK;
}

void qx_bcast_at(const qx_bcast *b, int64_t r, int64_t off[3])
{
    off[0] = off[1] = off[2] = 0;
    for (int i = b->rank - 2; i >= 0; i--) {
        int64_t at = r % b->dims[i];
        r /= b->dims[i];
        for (int k = 0; k < b->n_ops; k++) off[k] += at * b->stride[k][i];
    }
}
