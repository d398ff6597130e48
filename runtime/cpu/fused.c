/* fused.c - fused steps: activation, group normalisation, product with what follows it. */
#include <string.h>

#include "runtime/cpu/norm/group_norm.h"
#include "runtime/cpu/pointwise/unary.h"
#include "runtime/fuse/fuse.h"

qx_status qx_cpu_act(qx_call *c)
{
    const qx_act_params *p = c->fused;
    const float one[2] = {1, 0};
    return qx_unary_run(c, qx_act_unary(p->act), one);
}

qx_status qx_cpu_gn(qx_call *c)
{
    const qx_tensor *x;
    const qx_gn_params *p = c->fused;
    qx_group_norm g = {.groups = p->groups, .eps = p->eps, .silu = p->silu, .block = qx_call_out_block(c, 0)};
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank != 4 || x->dims[1] % g.groups || c->in[1]->numel != x->dims[1] || c->in[2]->numel != x->dims[1])
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld channels in %lld groups", (long long)(x->rank == 4 ? x->dims[1] : -1), (long long)g.groups);
    g.batch = x->dims[0];
    g.channels = x->dims[1];
    g.pixels = x->dims[2] * x->dims[3];
    QX_TRY(qx_call_in_f32(c, 0, &g.x));
    QX_TRY(qx_call_in_f32(c, 1, &g.gamma));
    QX_TRY(qx_call_in_f32(c, 2, &g.beta));
    if (x->dtype == QX_DT_FLOAT) {
        QX_TRY(qx_call_out_reuse(c, 0, 0, x->dtype, x->rank, x->dims, &y));
        g.y = y->data;
    } else {
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &g.y));
    }
    return qx_group_norm_run(c, &g);
}

/* ---- Product with bias and activation ---- */

typedef struct state { qx_packed *packed; float *bias; } state;

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    qx_packed_free(ctx, s->packed);
    qx_free(ctx, s->bias);
}

static qx_status pack(qx_call *c, state *s, bool nk, int64_t rows)
{
    const qx_tensor *w = c->in[QX_LINEAR_W], *b = qx_call_in(c, QX_LINEAR_BIAS);
    const float *fb;
    qx_matrix m = {.k = w->dims[nk], .n = w->dims[!nk], .row = nk ? 1 : w->dims[1], .col = nk ? w->dims[1] : 1,
                   .stored = qx_call_stored(c, QX_LINEAR_W), .value = qx_call_initializer(c, QX_LINEAR_W)};
    if (!m.stored) QX_TRY(qx_call_in_f32(c, QX_LINEAR_W, &m.data));
    if (b) {
        QX_TRY(qx_call_in_f32(c, QX_LINEAR_BIAS, &fb));
        if (!s->bias) QX_TRY(qx_alloc_array(c->ctx, (size_t)b->numel, sizeof *s->bias, (void **)&s->bias));
        memcpy(s->bias, fb, (size_t)b->numel * sizeof *fb);
    }
    return qx_packed_new(c, &m, rows, &s->packed);
}

/* The second tensor of a product's epilogue: as large as the result, or missing. */
static qx_status epilogue(qx_call *c, uint32_t i, int64_t numel, const float **out)
{
    const qx_tensor *t = qx_call_in(c, i);
    if (!t) return QX_OK;
    if (t->numel != numel)
        QX_CALL_FAIL(c, QX_E_SHAPE, "operand %u has %lld elements, the product %lld; the model declares that they are equal", i,
                     (long long)t->numel, (long long)numel);
    return qx_call_in_f32(c, i, out);
}

qx_status qx_cpu_linear(qx_call *c)
{
    const qx_linear_params *p = c->fused;
    const qx_tensor *x, *w;
    qx_gemm g = {.act = p->act};
    state *s = NULL;
    int64_t dims[QX_MAX_RANK];
    char a[96], b[96];
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &w));
    const int64_t k = w->dims[p->nk], n = w->dims[!p->nk];
    if (x->rank < 1 || x->dims[x->rank - 1] != k)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s by %s", qx_tensor_describe(x, a, sizeof a), qx_tensor_describe(w, b, sizeof b));
    if (!qx_dtype_is_float(x->dtype)) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(x->dtype)->text);
    QX_TRY(qx_call_state(c, sizeof *s, drop, (void **)&s));
    memcpy(dims, x->dims, sizeof dims);
    dims[x->rank - 1] = n;
    g.m = qx_prod(x->dims, 0, x->rank - 1);
    QX_TRY(qx_call_in_f32(c, 0, &g.x));
    QX_TRY(epilogue(c, QX_LINEAR_MUL, g.m * n, &g.mul));
    QX_TRY(epilogue(c, QX_LINEAR_ADD, g.m * n, &g.add));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &g.y));
    if (g.m == 0 || n == 0) return QX_OK;
    if (k == 0) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "a weight without rows");
    if (s->packed && !qx_call_in_const(c, 1)) { /* weights are not kept: read again */
        qx_packed_free(c->ctx, s->packed);
        s->packed = NULL;
    }
    if (!s->packed) QX_TRY(pack(c, s, p->nk, g.m));
    qx_call_drop_const(c, 1);
    if (s->bias) qx_call_drop_const(c, 2);
    g.bias = s->bias;
    return qx_gemm_run(c, s->packed, &g);
}
