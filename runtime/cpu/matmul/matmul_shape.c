/* matmul_shape.c - see matmul.h. */
#include "runtime/cpu/matmul/matmul.h"

/* Operands of rank 1 are a row on the left and a column on the right; their axis disappears from the output. */
qx_status qx_mm_shape_of(const qx_call *c, const qx_tensor *a, const qx_tensor *b, qx_mm_shape *s)
{
    char x[96], y[96];
    int ra = a->rank < 2 ? 2 : a->rank, rb = b->rank < 2 ? 2 : b->rank;
    if (a->rank == 0 || b->rank == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "product with a scalar");
    s->m = a->rank == 1 ? 1 : a->dims[a->rank - 2];
    s->k = a->dims[a->rank - 1];
    s->n = b->rank == 1 ? 1 : b->dims[b->rank - 1];
    int64_t kb = b->rank == 1 ? b->dims[0] : b->dims[b->rank - 2];
    if (kb != s->k || !qx_broadcast(a->dims, ra - 2, b->dims, rb - 2, s->batch_dims, &s->n_batch))
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s by %s: inner dims are %lld and %lld", qx_tensor_describe(a, x, sizeof x),
                     qx_tensor_describe(b, y, sizeof y), (long long)s->k, (long long)kb);
    s->rank = 0;
    for (int i = 0; i < s->n_batch; i++) s->dims[s->rank++] = s->batch_dims[i];
    if (a->rank > 1) s->dims[s->rank++] = s->m;
    if (b->rank > 1) s->dims[s->rank++] = s->n;
    return QX_OK;
}

int64_t qx_mm_batch_at(const qx_mm_shape *s, const qx_tensor *t, int64_t i)
{
    int own = t->rank < 2 ? 0 : t->rank - 2;
    int64_t off = 0, stride = 1;
    for (int d = s->n_batch - 1; d >= 0; d--) {
        int64_t at = i % s->batch_dims[d];
        i /= s->batch_dims[d];
        int q = d - (s->n_batch - own);
        if (q < 0) continue;
        if (t->dims[q] != 1) off += at * stride;
        stride *= t->dims[q];
    }
    return off;
}

int64_t qx_mm_batches(const qx_tensor *t) { return t->rank < 3 ? 1 : qx_prod(t->dims, 0, t->rank - 2); }
