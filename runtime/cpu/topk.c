/* topk.c - TopK along an axis. Equal values: the lower index first, whatever the sort. */
#include <string.h>

#include "runtime/cpu/op.h"

typedef struct entry { double v; int64_t i; } entry;

static bool before(entry a, entry b, bool largest)
{
    if (a.v != b.v) return largest ? a.v > b.v : a.v < b.v;
    return a.i < b.i;
}

/* The k first of n entries, in order: a heap of the k best whose worst is on top, then sorted by taking it off. */
static void sift(entry *h, int64_t n, int64_t at, bool largest)
{
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(h[child], h[child + 1], largest)) child++;
        if (!before(h[at], h[child], largest)) return;
        const entry t = h[at];
        h[at] = h[child];
        h[child] = t;
    }
}

static void select_k(entry *h, int64_t n, int64_t k, bool largest)
{
    for (int64_t i = k / 2; i-- > 0;) sift(h, k, i, largest);
    for (int64_t i = k; i < n && k; i++)
        if (before(h[i], h[0], largest)) {
            h[0] = h[i];
            sift(h, k, 0, largest);
        }
    for (int64_t m = k; m > 1; m--) {
        const entry t = h[0];
        h[0] = h[m - 1];
        h[m - 1] = t;
        sift(h, m - 1, 0, largest);
    }
}

qx_status qx_cpu_topk(qx_call *c)
{
    const qx_tensor *x;
    const float *f = NULL;
    const int64_t *v = NULL;
    int64_t k, n_v, dims[QX_MAX_RANK];
    int axis;
    entry *h;
    qx_tensor *values, *indices;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", -1), x->rank, &axis));
    if (c->version >= 10) QX_TRY(qx_call_scalar_i64(c, 1, 0, &k));
    else k = qx_call_int(c, "k", 0);
    const int64_t n = x->dims[axis], outer = qx_prod(x->dims, 0, axis), inner = qx_prod(x->dims, axis + 1, x->rank);
    if (k < 0 || k > n) QX_CALL_FAIL(c, QX_E_SHAPE, "k = %lld of %lld", (long long)k, (long long)n);
    if (qx_dtype_is_float((int)x->dtype)) QX_TRY(qx_call_in_f32(c, 0, &f));
    else QX_TRY(qx_call_in_i64(c, 0, &v, &n_v));
    const bool largest = qx_call_int(c, "largest", 1) != 0;
    const size_t elem = (size_t)qx_dtype_bits((int)x->dtype) / 8;
    memcpy(dims, x->dims, sizeof dims);
    dims[axis] = k;
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, dims, &values));
    QX_TRY(qx_call_out(c, 1, QX_DT_INT64, x->rank, dims, &indices));
    QX_TRY(QX_CALL_SCRATCH(c, n + 1, &h));
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            for (int64_t j = 0; j < n; j++) {
                const int64_t at = (o * n + j) * inner + i;
                h[j] = (entry){f ? (double)f[at] : (double)v[at], j};
            }
            select_k(h, n, k, largest);
            for (int64_t j = 0; j < k; j++) {
                const int64_t to = (o * k + j) * inner + i;
                ((int64_t *)indices->data)[to] = h[j].i;
                memcpy((char *)values->data + (size_t)to * elem, (const char *)x->data + (size_t)((o * n + h[j].i) * inner + i) * elem,
                       elem);
            }
        }
    return QX_OK;
}
