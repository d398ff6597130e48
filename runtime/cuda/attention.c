/* attention.c - adapters of attention: the plan's fused pattern, and the standard's Attention without caches.
 * GroupQueryAttention: gqa.c. */
#include <math.h>
#include <string.h>

#include "runtime/cuda/lib.h"
#include "runtime/fuse/fuse.h"

static qx_status real_place(const cu_build *b) { return cu_want_real(b, 0); }

typedef struct dims4 { int64_t b, h, s, d; } dims4;

/* An operand of rank 3 or 4 as batch, heads, rows, columns with strides. */
static qx_status operand(const cu_build *b, uint32_t i, bool bshd, dims4 *n, qk_attn_view *v)
{
    const qx_dev_tensor *t = &b->in[i];
    const int64_t *e = t->dims;
    if (t->rank != 4 && (t->rank != 3 || bshd)) CU_BAD(b, "attention operand %u of rank %d", i, t->rank);
    if (t->dtype != b->in[0].dtype || !cu_real(t->dtype)) CU_NO(b, "attention operand %u of %s", i, qx_dtype_get(t->dtype)->text);
    if (t->rank == 3) *n = (dims4){e[0], 1, e[1], e[2]};
    else if (bshd) *n = (dims4){e[0], e[2], e[1], e[3]};
    else *n = (dims4){e[0], e[1], e[2], e[3]};
    v->b = n->b == 1 ? 0 : n->h * n->s * n->d;
    v->h = bshd ? n->d : n->s * n->d;
    v->s = bshd ? n->h * n->d : n->d;
    v->d = 1;
    return QX_OK;
}

static qx_status mask_operand(const cu_build *b, uint32_t i, int rank, const qk_attn_args *a, qk_attn_view *v)
{
    const qx_dev_tensor *t = &b->in[i];
    int64_t e[4] = {1, 1, 1, 1}, s[4], stride = 1;
    const int64_t want[4] = {a->batch, a->heads, a->rows, a->keys};
    if (t->rank > rank) CU_BAD(b, "mask of rank %d for scores of rank %d", t->rank, rank);
    for (int k = 0; k < t->rank; k++) e[4 - t->rank + k] = t->dims[k];
    if (rank == 3) {
        e[0] = e[1];
        e[1] = 1;
    }
    for (int k = 3; k >= 0; k--) {
        if (e[k] != 1 && e[k] != want[k]) CU_BAD(b, "mask has %lld where %lld are needed", (long long)e[k], (long long)want[k]);
        s[k] = e[k] == 1 ? 0 : stride;
        stride *= e[k];
    }
    *v = (qk_attn_view){CU_LATER, s[0], s[1], s[2], s[3]};
    return QX_OK;
}

typedef struct attn_args { qk_attn_args a; const cu_engine *plan; int mask; } attn_args; /* mask: input number */

static qx_status attn_run(const cu_run *r)
{
    const attn_args *p = r->args;
    qk_attn_args a = p->a;
    a.q.p = r->in[0].data;
    a.k.p = r->in[1].data;
    a.v.p = r->in[2].data;
    a.mask.p = p->mask ? r->in[p->mask].data : NULL;
    a.y = r->out[0].data;
    a.part = r->ws;
    bool done = false;
    if (p->plan) QX_TRY(cu_sdpa_run(r->d, p->plan, a.q.p, a.k.p, a.v.p, a.y, r->ws, &done));
    if (done) return QX_OK;
    r->step->kernel = "attention";
    return cu_launched(r->d->m, qk_attention(r->q, &a));
}

size_t cu_own_attention(cu_build *b, qk_attn_args *a)
{
    a->splits = qk_attention_splits(a);
    b->step->kernel = "attention";
    return a->splits > 1 ? (size_t)(a->splits * a->batch * a->heads * a->rows * (a->dv + 2)) * sizeof(float) : 0;
}

static void copy4(int64_t *to, const qk_attn_view *v)
{
    to[0] = v->b;
    to[1] = v->h;
    to[2] = v->s;
    to[3] = v->d;
}

/* cuDNN takes it when nothing is masked, nor probabilities rounded. */
static qx_status attn_step(cu_build *b, attn_args *p)
{
    qk_attn_args *a = &p->a;
    if (a->dk > CU_MOST_HEAD || a->dv > CU_MOST_HEAD)
        CU_NO(b, "heads of %lld and %lld: at most %d", (long long)a->dk, (long long)a->dv, CU_MOST_HEAD);
    if (!p->mask && !a->causal && a->left < 0 && !(a->softcap > 0) && !(a->p_scale > 0) && a->dtype != QX_DT_FLOAT) {
        cu_sdpa s = {.type = a->dtype, .batch = a->batch, .heads = a->heads, .kv_heads = a->kv_heads, .rows = a->rows, .keys = a->keys,
                     .d = a->dk, .dv = a->dv, .scale = a->scale,
                     .o = {a->yb, a->yh, a->ys, 1}};
        copy4(s.q, &a->q);
        copy4(s.k, &a->k);
        copy4(s.v, &a->v);
        cu_engine *plan = NULL;
        bool taken = false;
        QX_TRY(cu_sdpa_new(b->d, &s, &plan, &b->step->workspace, &taken));
        if (taken) cu_step_plan(b, plan, cu_engine_free, "cuDNN");
        p->plan = plan;
    }
    if (!p->plan) b->step->workspace = cu_own_attention(b, a);
    return cu_step(b, attn_run, p, sizeof *p);
}

/* Dims of query, key and value that fit each other (a batch of one is shared), and where the result goes: [b, h, s, d], or [b, s, h, d]. */
static qx_status shapes(const cu_build *b, qk_attn_args *a, const dims4 *q, const dims4 *k, const dims4 *v, bool out_bshd)
{
    a->batch = q->b > k->b ? q->b : k->b;
    if (q->d != k->d || k->s != v->s || k->h != v->h || k->h < 1 || q->h % k->h || (q->b != a->batch && q->b != 1) ||
        (k->b != a->batch && k->b != 1) || (v->b != a->batch && v->b != 1))
        CU_BAD(b, "query [%lld,%lld,%lld,%lld], %lld keys of %lld in %lld heads", (long long)q->b, (long long)q->h, (long long)q->s,
               (long long)q->d, (long long)k->s, (long long)k->d, (long long)k->h);
    if (q->s > INT32_MAX / q->h || k->s > INT32_MAX)
        CU_NO(b, "%lld rows in %lld heads and %lld keys", (long long)q->s, (long long)q->h, (long long)k->s);
    a->heads = q->h;
    a->kv_heads = k->h;
    a->rows = q->s;
    a->keys = k->s;
    a->dk = q->d;
    a->dv = v->d;
    a->yb = q->h * q->s * v->d;
    a->yh = out_bshd ? v->d : q->s * v->d;
    a->ys = out_bshd ? q->h * v->d : v->d;
    return QX_OK;
}

static qx_status with_mask(const cu_build *b, attn_args *p, int rank, bool may_be_bool)
{
    if (!cu_has(b, 3)) return QX_OK;
    p->mask = 3;
    p->a.mtype = b->in[3].dtype;
    if (!cu_real(p->a.mtype) && !(may_be_bool && p->a.mtype == QX_DT_BOOL)) CU_NO(b, "a mask of %s", qx_dtype_get(p->a.mtype)->text);
    return mask_operand(b, 3, rank, &p->a, &p->a.mask);
}

static qx_status fused_compile(cu_build *b)
{
    attn_args p = {.a = {.scale = cu_float(b, "scale", 1), .left = -1, .dtype = b->in[0].dtype, .p_scale = cu_float(b, "p_scale", 0),
                          .p_codes = (int32_t)cu_int(b, "p_codes", 0), .p_zero = (int32_t)cu_int(b, "p_zero", 0)}};
    qk_attn_args *a = &p.a;
    int64_t layout = cu_int(b, "k_layout", 0);
    dims4 q, k, v;
    QX_TRY(operand(b, 0, cu_int(b, "q_bshd", 0), &q, &a->q));
    QX_TRY(operand(b, 1, layout == QX_K_BSHD, &k, &a->k));
    QX_TRY(operand(b, 2, cu_int(b, "v_bshd", 0), &v, &a->v));
    if (layout == QX_K_BHDS) { /* [.., D, S] */
        const int64_t keys = k.d;
        k.d = k.s;
        k.s = keys;
        a->k.s = 1;
        a->k.d = keys;
    }
    QX_TRY(shapes(b, a, &q, &k, &v, cu_int(b, "out_bshd", 0) != 0));
    QX_TRY(with_mask(b, &p, b->in[0].rank, false));
    return attn_step(b, &p);
}
extern const cu_adapter cu_fused_attention;
const cu_adapter cu_fused_attention = {real_place, fused_compile};

/* ---- the standard's Attention: query, key, value, mask; caches go to the CPU ---- */

static qx_status attention_place(const cu_build *b)
{
    static const char *const known[] = {"is_causal", "q_num_heads", "kv_num_heads", "scale", "softcap", "qk_matmul_output_mode",
                                        "softmax_precision"};
    QX_TRY(cu_want_real(b, 0));
    for (uint32_t i = 0; i < b->node->n_attrs; i++) {
        bool is = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) is = is || strcmp(b->node->attrs[i].name, known[k]) == 0;
        if (!is) CU_NO(b, "attribute %s", b->node->attrs[i].name); /* windows of later versions */
    }
    for (uint32_t i = 4; i < b->node->n_in; i++)
        if (cu_has(b, i)) CU_NO(b, "caches and lengths as inputs");
    if (b->node->n_out > 1) CU_NO(b, "more than the first output");
    if (cu_int(b, "softmax_precision", 1) != 1) CU_NO(b, "a softmax in another precision");
    return QX_OK;
}

static qx_status heads_operand(const cu_build *b, uint32_t i, const char *attr, dims4 *n, qk_attn_view *v)
{
    const qx_dev_tensor *t = &b->in[i];
    if (t->rank == 4) return operand(b, i, false, n, v);
    const int64_t heads = cu_int(b, attr, 0);
    if (t->rank != 3 || heads < 1 || t->dims[2] % heads || t->dtype != b->in[0].dtype)
        CU_BAD(b, "operand %u of rank %d with %lld heads", i, t->rank, (long long)heads);
    *n = (dims4){t->dims[0], heads, t->dims[1], t->dims[2] / heads};
    *v = (qk_attn_view){NULL, t->dims[1] * t->dims[2], n->d, t->dims[2], 1};
    return QX_OK;
}

static qx_status attention_compile(cu_build *b)
{
    attn_args p = {.a = {.left = -1, .dtype = b->in[0].dtype, .causal = cu_int(b, "is_causal", 0) != 0,
                         .softcap = cu_float(b, "softcap", 0)}};
    qk_attn_args *a = &p.a;
    dims4 q, k, v;
    if (!cu_real(b->in[0].dtype)) CU_NO(b, "attention of %s", qx_dtype_get(b->in[0].dtype)->text);
    QX_TRY(heads_operand(b, 0, "q_num_heads", &q, &a->q));
    QX_TRY(heads_operand(b, 1, "kv_num_heads", &k, &a->k));
    QX_TRY(heads_operand(b, 2, "kv_num_heads", &v, &a->v));
    if (k.b != q.b || v.b != q.b)
        CU_BAD(b, "query, key and value of batch %lld, %lld, %lld", (long long)q.b, (long long)k.b, (long long)v.b);
    QX_TRY(shapes(b, a, &q, &k, &v, b->in[0].rank == 3));
    a->scale = cu_float(b, "scale", 1.0f / sqrtf((float)q.d));
    QX_TRY(with_mask(b, &p, 4, true));
    return attn_step(b, &p);
}
const cu_adapter qx_cuda_attention = {attention_place, attention_compile};
