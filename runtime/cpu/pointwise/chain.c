/* chain.c - a chain of pointwise nodes (fuse_chain.c) where the device does not run it: of constants, and of what follows from
 * input shapes. Operation by operation over the whole tensor; rounded to its type after each. */
#include <string.h>

#include "kernels/pointwise.h"
#include "runtime/cpu/op.h"
#include "runtime/fuse/fuse.h"

/* An operand under the dims of x. */
static void spread(const qx_tensor *t, const float *from, const qx_tensor *x, float *to)
{
    for (int64_t i = 0; i < x->numel; i++) {
        int64_t rest = i, at = 0, stride = 1;
        for (int k = x->rank - 1; k >= 0; k--) {
            const int own = k - (x->rank - t->rank);
            const int64_t d = own < 0 ? 1 : t->dims[own];
            at += d == 1 ? 0 : rest % x->dims[k] * stride;
            stride *= d;
            rest /= x->dims[k];
        }
        to[i] = from[at];
    }
}

static qx_status operand(qx_call *c, const qx_tensor *x, uint32_t i, float *to)
{
    const qx_tensor *t;
    const float *from;
    QX_TRY(qx_call_need(c, i, &t));
    QX_TRY(qx_call_in_f32(c, i, &from));
    if (t->rank > x->rank) QX_CALL_FAIL(c, QX_E_SHAPE, "operand %u has rank %d, the chain %d", i, t->rank, x->rank);
    for (int k = 0; k < t->rank; k++)
        if (t->dims[k] != 1 && t->dims[k] != x->dims[k + x->rank - t->rank])
            QX_CALL_FAIL(c, QX_E_SHAPE, "axis %d of operand %u has %lld elements", k, i, (long long)t->dims[k]);
    spread(t, from, x, to);
    return QX_OK;
}

qx_status qx_cpu_chain(qx_call *c)
{
    const qx_chain_params *p = c->fused;
    const qx_tensor *x;
    const float *first;
    float *v, *u;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &first));
    QX_TRY(QX_CALL_SCRATCH(c, x->numel + 1, &u));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &v));
    memcpy(v, first, (size_t)x->numel * sizeof *v);
    for (int i = 0; i < p->n; i++) {
        const int64_t *op = p->ops + QX_CHAIN_FIELDS * i;
        if (!op[QX_CHAIN_BINARY]) {
            qx_unary_find((qx_unary)op[QX_CHAIN_FN], QX_DT_FLOAT)(v, v, x->numel, p->p + 2 * i);
        } else {
            const bool swapped = op[QX_CHAIN_SWAPPED] != 0;
            QX_TRY(operand(c, x, (uint32_t)op[QX_CHAIN_INPUT], u));
            qx_binary_find((qx_binary)op[QX_CHAIN_FN], QX_DT_FLOAT)(swapped ? u : v, 1, swapped ? v : u, 1, v, x->numel);
        }
        if (x->dtype != QX_DT_FLOAT) qx_round_half(x->dtype, v, x->numel);
    }
    return QX_OK;
}
