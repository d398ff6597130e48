/* attn_fused.c - the step behind runtime/fuse/fuse_attention.c: operands of rank 3 or 4 as heads with strides. */
#include "runtime/cpu/attention/attention.h"
#include "runtime/cpu/move/strided.h"
#include "runtime/fuse/fuse.h"

typedef struct dims4 { int64_t b, h, s, d; } dims4; /* batch, heads, rows, columns of one operand */

/* Codes, where there is a scale for them (input `scale`): their bytes instead of floats. */
static qx_status values(qx_call *c, uint32_t i, uint32_t scale, float zero, qx_heads *o, qx_coded_heads *codes)
{
    const qx_tensor *s = qx_call_in(c, scale);
    if (!s) return qx_call_in_f32(c, i, &o->data);
    if (s->numel != 1) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld scales for codes of attention, one is needed", (long long)s->numel);
    codes->data = c->in[i]->data;
    codes->codes = (qx_attn_codes){.type = (int)c->in[i]->dtype, .zero = zero};
    return qx_call_in_f32(c, scale, &codes->codes.scale);
}

static qx_status operand(qx_call *c, uint32_t i, bool bshd, dims4 *n, qx_heads *o)
{
    const qx_tensor *t;
    char a[96];
    QX_TRY(qx_call_need(c, i, &t));
    if (t->rank != 4 && (t->rank != 3 || bshd)) QX_CALL_FAIL(c, QX_E_SHAPE, "attention operand %s", qx_tensor_describe(t, a, sizeof a));
    const int64_t *e = t->dims;
    if (t->rank == 3) *n = (dims4){e[0], 1, e[1], e[2]};
    else if (bshd) *n = (dims4){e[0], e[2], e[1], e[3]};
    else *n = (dims4){e[0], e[1], e[2], e[3]};
    o->batch = n->b == 1 ? 0 : n->h * n->s * n->d;
    o->head = bshd ? n->d : n->s * n->d;
    o->row = bshd ? n->h * n->d : n->d;
    o->col = 1;
    return QX_OK;
}

static qx_status key_operand(qx_call *c, qx_k_layout layout, dims4 *n, qx_heads *o)
{
    QX_TRY(operand(c, QX_ATTN_K, layout == QX_K_BSHD, n, o));
    if (layout != QX_K_BHDS) return QX_OK;
    int64_t keys = n->d; /* [.., D, S]: rows and columns change places */
    n->d = n->s;
    n->s = keys;
    o->row = 1;
    o->col = keys;
    return QX_OK;
}

/* The mask broadcast to [batch, heads, rows, keys]: strides, and a copy only when its last axis is one element. */
static qx_status mask_operand(qx_call *c, int rank, int64_t keys, qx_heads *o)
{
    const qx_tensor *t = qx_call_in(c, QX_ATTN_MASK);
    int64_t e[4] = {1, 1, 1, 1}, s[4], stride = 1;
    if (!t) return QX_OK;
    QX_TRY(qx_call_in_f32(c, QX_ATTN_MASK, &o->data));
    if (t->rank > rank) QX_CALL_FAIL(c, QX_E_SHAPE, "mask of rank %d for scores of rank %d", t->rank, rank);
    for (int i = 0; i < t->rank; i++) e[4 - t->rank + i] = t->dims[i];
    if (rank == 3) { /* batch, rows, keys */
        e[0] = e[1];
        e[1] = 1;
    }
    for (int i = 3; i >= 0; i--) {
        s[i] = e[i] == 1 ? 0 : stride;
        stride *= e[i];
    }
    if (e[3] == 1 && keys != 1) {
        float *wide = NULL;
        int64_t n = e[0] * e[1] * e[2];
        QX_TRY(QX_CALL_SCRATCH(c, n * keys, &wide));
        for (int64_t i = 0; i < n * keys; i++) wide[i] = o->data[i / keys];
        o->data = wide;
        for (int i = 0; i < 3; i++) s[i] *= keys;
    } else if (e[3] != keys) {
        QX_CALL_FAIL(c, QX_E_SHAPE, "mask has %lld columns for %lld keys", (long long)e[3], (long long)keys);
    }
    o->batch = s[0];
    o->head = s[1];
    o->row = s[2];
    o->col = 1;
    return QX_OK;
}

qx_status qx_cpu_attn(qx_call *c)
{
    const qx_attn_params *p = c->fused;
    dims4 q, k, v;
    qx_attn a = {.scale = p->scale, .left = -1, .nan_when_empty = true};
    QX_TRY(operand(c, QX_ATTN_Q, p->q_bshd, &q, &a.q));
    QX_TRY(key_operand(c, p->k_layout, &k, &a.k));
    QX_TRY(operand(c, QX_ATTN_V, p->v_bshd, &v, &a.v));
    QX_TRY(qx_call_in_f32(c, QX_ATTN_Q, &a.q.data));
    QX_TRY(values(c, QX_ATTN_K, QX_ATTN_K_SCALE, p->k_zero, &a.k, &a.kc));
    QX_TRY(values(c, QX_ATTN_V, QX_ATTN_V_SCALE, p->v_zero, &a.v, &a.vc));
    int64_t batch = q.b > k.b ? q.b : k.b;
    if (q.d != k.d || k.s != v.s || k.h != v.h || k.h < 1 || q.h % k.h || (q.b != batch && q.b != 1) || (k.b != batch && k.b != 1) ||
        (v.b != batch && v.b != 1))
        QX_CALL_FAIL(c, QX_E_SHAPE, "query [%lld,%lld,%lld,%lld], %lld keys of %lld in %lld heads, %lld values", (long long)q.b,
                     (long long)q.h,
                     (long long)q.s, (long long)q.d, (long long)k.s, (long long)k.d, (long long)k.h, (long long)v.s);
    int rank = c->in[0]->rank;
    QX_TRY(mask_operand(c, rank, k.s, &a.mask));
    a.batch = batch;
    a.heads = q.h;
    a.kv_heads = k.h;
    a.rows = q.s;
    a.keys = k.s;
    a.d = q.d;
    a.dv = v.d;
    int64_t dims[4] = {batch, p->out_bshd ? q.s : q.h, p->out_bshd ? q.h : q.s, v.d}, flat[3] = {batch, q.s, v.d};
    const qx_tensor *scale = qx_call_in(c, QX_ATTN_V_SCALE); /* has the type of what its codes stand for */
    QX_TRY(qx_call_out_f32(c, 0, (scale ? scale : c->in[QX_ATTN_V])->dtype, rank, rank == 3 ? flat : dims, &a.y));
    a.y_batch = q.h * q.s * v.d;
    a.y_head = p->out_bshd ? v.d : q.s * v.d;
    a.y_row = p->out_bshd ? q.h * v.d : v.d;
    return qx_attn_run(c, &a);
}
