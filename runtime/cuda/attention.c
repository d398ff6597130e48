/* attention.c - adapters of attention: the plan's fused pattern, GroupQueryAttention with its caches, and the standard's Attention without caches. */
#include <math.h>
#include <string.h>

#include "runtime/cuda/lib.h"
#include "runtime/fuse.h"

enum { MOST_HEAD = 256 };

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

typedef struct attn_args { qk_attn_args a; const cu_sdpa_plan *plan; int mask; } attn_args; /* mask: input number */

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
    if (p->plan) return cu_sdpa_run(r->d, p->plan, a.q.p, a.k.p, a.v.p, a.y, r->ws);
    return cu_launched(r->d->m, qk_attention(r->q, &a));
}

/* Our own kernel: how many blocks share the keys of a row, and the memory for their parts. */
static size_t own_attention(cu_build *b, qk_attn_args *a)
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

/* cuDNN takes it when nothing is masked. */
static qx_status attn_step(cu_build *b, attn_args *p)
{
    qk_attn_args *a = &p->a;
    if (a->dk > MOST_HEAD || a->dv > MOST_HEAD) CU_NO(b, "heads of %lld and %lld: at most %d", (long long)a->dk, (long long)a->dv, MOST_HEAD);
    if (!p->mask && !a->causal && a->left < 0 && !(a->softcap > 0) && a->dtype != QX_DT_FLOAT) {
        cu_sdpa s = {.type = a->dtype, .batch = a->batch, .heads = a->heads, .kv_heads = a->kv_heads, .rows = a->rows, .keys = a->keys, .d = a->dk, .dv = a->dv, .scale = a->scale,
                     .o = {a->yb, a->yh, a->ys, 1}};
        copy4(s.q, &a->q);
        copy4(s.k, &a->k);
        copy4(s.v, &a->v);
        cu_sdpa_plan *plan = NULL;
        bool taken = false;
        QX_TRY(cu_sdpa_new(b->d, &s, &plan, &b->step->workspace, &taken));
        if (taken) cu_step_plan(b, plan, cu_sdpa_free, "cuDNN");
        p->plan = plan;
    }
    if (!p->plan) b->step->workspace = own_attention(b, a);
    return cu_step(b, attn_run, p, sizeof *p);
}

/* Dims of query, key and value that fit each other (a batch of one is shared), and where the result goes: [b, h, s, d], or [b, s, h, d]. */
static qx_status shapes(const cu_build *b, qk_attn_args *a, const dims4 *q, const dims4 *k, const dims4 *v, bool out_bshd)
{
    a->batch = q->b > k->b ? q->b : k->b;
    if (q->d != k->d || k->s != v->s || k->h != v->h || k->h < 1 || q->h % k->h || (q->b != a->batch && q->b != 1) || (k->b != a->batch && k->b != 1) || (v->b != a->batch && v->b != 1))
        CU_BAD(b, "query [%lld,%lld,%lld,%lld], %lld keys of %lld in %lld heads", (long long)q->b, (long long)q->h, (long long)q->s, (long long)q->d, (long long)k->s, (long long)k->d, (long long)k->h);
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
    attn_args p = {.a = {.scale = cu_float(b, "scale", 1), .left = -1, .dtype = b->in[0].dtype}};
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
    static const char *const known[] = {"is_causal", "q_num_heads", "kv_num_heads", "scale", "softcap", "qk_matmul_output_mode", "softmax_precision"};
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
    if (t->rank != 3 || heads < 1 || t->dims[2] % heads || t->dtype != b->in[0].dtype) CU_BAD(b, "operand %u of rank %d with %lld heads", i, t->rank, (long long)heads);
    *n = (dims4){t->dims[0], heads, t->dims[1], t->dims[2] / heads};
    *v = (qk_attn_view){NULL, t->dims[1] * t->dims[2], n->d, t->dims[2], 1};
    return QX_OK;
}

static qx_status attention_compile(cu_build *b)
{
    attn_args p = {.a = {.left = -1, .dtype = b->in[0].dtype, .causal = cu_int(b, "is_causal", 0) != 0, .softcap = cu_float(b, "softcap", 0)}};
    qk_attn_args *a = &p.a;
    dims4 q, k, v;
    if (!cu_real(b->in[0].dtype)) CU_NO(b, "attention of %s", qx_dtype_get(b->in[0].dtype)->text);
    QX_TRY(heads_operand(b, 0, "q_num_heads", &q, &a->q));
    QX_TRY(heads_operand(b, 1, "kv_num_heads", &k, &a->k));
    QX_TRY(heads_operand(b, 2, "kv_num_heads", &v, &a->v));
    if (k.b != q.b || v.b != q.b) CU_BAD(b, "query, key and value of batch %lld, %lld, %lld", (long long)q.b, (long long)k.b, (long long)v.b);
    QX_TRY(shapes(b, a, &q, &k, &v, b->in[0].rank == 3));
    a->scale = cu_float(b, "scale", 1.0f / sqrtf((float)q.d));
    QX_TRY(with_mask(b, &p, 4, true));
    return attn_step(b, &p);
}
const cu_adapter qx_cuda_attention = {attention_place, attention_compile};

/* ---- GroupQueryAttention: runtime/cpu/gqa.c ---- */

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, SEQLENS, TOTAL, COS, SIN, POSITIONS, BIAS, SINK, K_SCALE };

typedef struct gqa_args {
    qk_attn_args a;
    qk_rope_args rope;
    int64_t past_cap, cap, q_row, k_row, past[64]; /* past: keys before the new ones, by batch */
    size_t part;                                   /* where the parts of split keys lie in the workspace */
    bool packed, rotary, bias, sink;
    const int64_t *starts;                         /* the same on the device */
} gqa_args;

static qx_status gqa_place(const cu_build *b)
{
    QX_TRY(cu_want_real(b, QUERY));
    for (uint32_t i = K_SCALE; i < b->node->n_in; i++)
        if (cu_has(b, i)) CU_NO(b, "input %u (a quantized cache, or norms of query and key)", i);
    if (cu_int(b, "sliding_window_cache", 0)) CU_NO(b, "sliding_window_cache");
    if (b->node->n_out > 3) CU_NO(b, "the scores as an output");
    b->place->host_in = 1u << SEQLENS | 1u << TOTAL;
    return QX_OK;
}

/* Rows from one layout to another: [batch] x [heads] x [rows] x d. */
static qx_status move_rows(const cu_run *r, const void *src, int64_t s0, const int64_t ss[3], void *dst, int64_t d0, const int64_t ds[3], const int64_t n[4], int size)
{
    qk_copy_args c = {.src = src, .dst = dst, .n = n[0] * n[1] * n[2] * n[3], .s0 = s0, .d0 = d0, .rank = 4, .size = size,
                      .dims = {n[0], n[1], n[2], n[3]}, .ss = {ss[0], ss[1], ss[2], 1}, .ds = {ds[0], ds[1], ds[2], 1}};
    return c.n ? cu_launched(r->d->m, qk_copy(r->q, &c)) : QX_OK;
}

/* The old cache into the new one, then the new rows behind it. */
static qx_status fill_cache(const cu_run *r, const gqa_args *g, const void *past, const void *fresh, int64_t fresh0, int64_t fresh_row, const void *rotated, void *cache, size_t bytes)
{
    const qk_attn_args *a = &g->a;
    const int64_t d = a->dk, h = a->kv_heads, size = cu_bytes(a->dtype);
    const int64_t to[3] = {h * g->cap * d, g->cap * d, d}, from[3] = {h * g->past_cap * d, g->past_cap * d, d}, old[4] = {a->batch, h, g->past_cap, d}, one[4] = {1, h, a->rows, d};
    if (g->cap > g->past_cap) QX_TRY(cu_zero(r->d->m, cache, bytes));
    if (past && g->past_cap) QX_TRY(move_rows(r, past, 0, from, cache, 0, to, old, (int)size));
    const int64_t row = rotated ? h * d : fresh_row, ss[3] = {0, d, row};
    for (int64_t b = 0; b < a->batch; b++)
        QX_TRY(move_rows(r, rotated ? rotated : fresh, b * a->rows * row + (rotated ? 0 : fresh0), ss, cache, b * to[0] + g->past[b] * d, to, one, (int)size));
    return QX_OK;
}

/* Heads of [batch, rows, row] rotated into a dense [batch, rows, heads, d]. */
static qx_status rotate(const cu_run *r, const gqa_args *g, const void *x, int64_t first, int64_t row, int64_t heads, void *y)
{
    const qk_attn_args *a = &g->a;
    const int64_t d = a->dk, ss[3] = {a->rows * row, d, row}, ds[3] = {a->rows * heads * d, d, heads * d}, n[4] = {a->batch, heads, a->rows, d};
    QX_TRY(move_rows(r, x, first, ss, y, 0, ds, n, cu_bytes(a->dtype)));
    qk_rope_args p = g->rope;
    p.x = p.y = y; /* every element is read and written by one thread: pairs are not shared */
    p.heads = heads;
    p.sb = a->rows * heads * d;
    p.sh = d;
    p.ss = heads * d;
    p.cos = r->in[COS].data;
    p.sin = r->in[SIN].data;
    p.pos = p.pos ? r->in[POSITIONS].data : g->starts;
    p.bad = r->d->bad;
    return cu_launched(r->d->m, qk_rope(r->q, &p));
}

static qx_status gqa_run(const cu_run *r)
{
    const gqa_args *g = r->args;
    qk_attn_args a = g->a;
    const int64_t d = a.dk, hidden = a.heads * d, kv = a.kv_heads * d;
    const size_t q_bytes = cu_round((size_t)(a.batch * a.rows * hidden) * (size_t)cu_bytes(a.dtype));
    const void *k = g->packed ? r->in[QUERY].data : r->in[KEY].data, *v = g->packed ? r->in[QUERY].data : r->in[VALUE].data;
    void *rq = r->ws, *rk = (char *)r->ws + q_bytes;
    const int64_t k0 = g->packed ? hidden : 0, v0 = g->packed ? hidden + kv : 0;
    if (g->rotary) {
        QX_TRY(rotate(r, g, r->in[QUERY].data, 0, g->q_row, a.heads, rq));
        QX_TRY(rotate(r, g, k, k0, g->k_row, a.kv_heads, rk));
    }
    QX_TRY(fill_cache(r, g, r->in[PAST_KEY].data, k, k0, g->k_row, g->rotary ? rk : NULL, r->out[1].data, r->out[1].bytes));
    QX_TRY(fill_cache(r, g, r->in[PAST_VALUE].data, v, v0, g->k_row, NULL, r->out[2].data, r->out[2].bytes));
    a.q.p = g->rotary ? rq : r->in[QUERY].data;
    a.k.p = r->out[1].data;
    a.v.p = r->out[2].data;
    a.y = r->out[0].data;
    a.part = (float *)(void *)((char *)r->ws + g->part);
    if (g->bias) a.mask.p = r->in[BIAS].data;
    if (g->sink) a.sink = r->in[SINK].data;
    return cu_launched(r->d->m, qk_attention(r->q, &a));
}

/* attention_bias is a mask that may have columns behind the last key; head_sink, or smooth_softmax, whose sink is 0. */
static qx_status gqa_extras(cu_build *b, gqa_args *g)
{
    qk_attn_args *a = &g->a;
    const qx_dev_tensor *bias = &b->in[BIAS], *sink = &b->in[SINK];
    if ((g->bias = cu_has(b, BIAS))) {
        if (!cu_real(bias->dtype)) CU_NO(b, "a bias of %s", qx_dtype_get(bias->dtype)->text);
        if (bias->rank != 4 || (bias->dims[0] != 1 && bias->dims[0] != a->batch) || (bias->dims[1] != 1 && bias->dims[1] != a->heads) || bias->dims[2] != a->rows || bias->dims[3] < g->cap)
            CU_BAD(b, "attention_bias must be [%lld or 1, %lld or 1, %lld, %lld]", (long long)a->batch, (long long)a->heads, (long long)a->rows, (long long)g->cap);
        const int64_t row = bias->dims[3], head = row * bias->dims[2];
        a->mtype = bias->dtype;
        a->mask = (qk_attn_view){CU_LATER, bias->dims[0] == 1 ? 0 : head * bias->dims[1], bias->dims[1] == 1 ? 0 : head, row, 1};
    }
    if ((g->sink = cu_has(b, SINK))) {
        if (!cu_real(sink->dtype) || sink->numel != a->heads) CU_BAD(b, "head_sink of %lld elements for %lld heads", (long long)sink->numel, (long long)a->heads);
        a->sink = CU_LATER;
        a->stype = sink->dtype;
    } else if (cu_int(b, "smooth_softmax", 0)) {
        void *zeros;
        QX_TRY(cu_step_memory(b, NULL, (size_t)a->heads * sizeof(float), &zeros));
        QX_TRY(cu_zero(b->d->m, zeros, (size_t)a->heads * sizeof(float)));
        a->sink = zeros;
        a->stype = QX_DT_FLOAT;
    }
    return QX_OK;
}

/* seqlens_k and the total length: how many keys each batch has, and where the new ones go. */
static qx_status gqa_lengths(cu_build *b, gqa_args *g)
{
    int64_t seq[64], total[64], n, n_total;
    int32_t host[128];
    void *dev;
    qk_attn_args *a = &g->a;
    QX_TRY(cu_list(b, NULL, SEQLENS, seq, &n));
    QX_TRY(cu_list(b, NULL, TOTAL, total, &n_total));
    if (n != a->batch || n_total != 1 || total[0] < a->rows) CU_BAD(b, "%lld lengths for batch %lld", (long long)n, (long long)a->batch);
    g->cap = total[0] > g->past_cap ? total[0] : g->past_cap;
    for (int64_t k = 0; k < n; k++) {
        const int64_t count = seq[k] + 1;
        g->past[k] = a->rows == total[0] ? 0 : count - a->rows;
        if (count < 1 || g->past[k] < 0 || g->past[k] > g->past_cap || g->past[k] + a->rows > g->cap || count > g->cap)
            CU_BAD(b, "batch %lld: %lld keys in all, cache of %lld", (long long)k, (long long)count, (long long)g->cap);
        host[k] = (int32_t)count;
        host[n + k] = (int32_t)g->past[k];
    }
    QX_TRY(cu_step_memory(b, host, (size_t)(2 * n) * sizeof *host, &dev));
    a->lengths = dev;
    a->offsets = (const int32_t *)dev + n;
    QX_TRY(cu_step_memory(b, g->past, (size_t)n * sizeof *g->past, &dev));
    g->starts = dev;
    return QX_OK;
}

static qx_status gqa_rotary(cu_build *b, gqa_args *g)
{
    const qx_dev_tensor *cs = &b->in[COS];
    qk_attn_args *a = &g->a;
    g->rotary = cu_int(b, "do_rotary", 0) != 0;
    if (!g->rotary) return QX_OK;
    if (!cu_has(b, COS) || !cu_has(b, SIN) || cs->rank != 2 || b->in[SIN].numel != cs->numel || 2 * cs->dims[1] > a->dk || !cu_real(cs->dtype)) CU_BAD(b, "cos and sin tables do not fit heads of %lld", (long long)a->dk);
    g->rope = (qk_rope_args){.batch = a->batch, .seq = a->rows, .d = a->dk, .rot = 2 * cs->dims[1], .max_pos = cs->dims[0], .dtype = a->dtype, .ttype = cs->dtype,
                             .interleaved = cu_int(b, "rotary_interleaved", 0) != 0, .pos_batch = 1, .pos_add = 1};
    if (!cu_has(b, POSITIONS)) return QX_OK;
    if (b->in[POSITIONS].numel != a->batch * a->rows || b->in[POSITIONS].dtype != QX_DT_INT64) CU_BAD(b, "%lld positions", (long long)b->in[POSITIONS].numel);
    g->rope.pos = CU_LATER;
    g->rope.pos_batch = a->rows;
    g->rope.pos_seq = 1;
    g->rope.pos_add = 0;
    return QX_OK;
}

static qx_status gqa_compile(cu_build *b)
{
    const qx_dev_tensor *q = &b->in[QUERY];
    gqa_args g = {.packed = !cu_has(b, KEY)};
    qk_attn_args *a = &g.a;
    *a = (qk_attn_args){.batch = q->dims[0], .rows = q->dims[1], .heads = cu_int(b, "num_heads", 0), .kv_heads = cu_int(b, "kv_num_heads", 0), .dtype = q->dtype, .causal = 1,
                        .left = cu_int(b, "local_window_size", -1) - 1, .softcap = cu_float(b, "softcap", 0)};
    int64_t parts = g.packed ? a->heads + 2 * a->kv_heads : a->heads;
    if (a->left < -1) a->left = -1;
    if (q->rank != 3 || !cu_real(q->dtype) || a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads || q->dims[2] % parts || a->batch > 64)
        CU_NO(b, "%lld heads, %lld key heads, batch %lld, query of rank %d", (long long)a->heads, (long long)a->kv_heads, (long long)a->batch, q->rank);
    a->dk = a->dv = q->dims[2] / parts;
    if (a->dk > MOST_HEAD) CU_NO(b, "heads of %lld: at most %d", (long long)a->dk, MOST_HEAD);
    if (!b->out[1].dtype || !b->out[2].dtype) CU_NO(b, "a cache that nobody reads");
    a->causal = cu_int(b, "causal", 1) != 0;
    g.past_cap = cu_has(b, PAST_KEY) ? b->in[PAST_KEY].dims[2] : 0;
    QX_TRY(gqa_lengths(b, &g));
    QX_TRY(gqa_rotary(b, &g));
    const int64_t d = a->dk, hidden = a->heads * d, kv = a->kv_heads * d;
    if (b->out[1].numel != a->batch * kv * g.cap) CU_BAD(b, "caches of %lld rows, the output has %lld", (long long)g.cap, (long long)b->out[1].dims[2]);
    g.q_row = g.packed ? hidden + 2 * kv : hidden;
    g.k_row = g.packed ? g.q_row : kv;
    const int64_t row = g.rotary ? hidden : g.q_row;
    const float scale = cu_float(b, "scale", 0);
    a->scale = scale != 0 ? scale : 1.0f / sqrtf((float)d);
    a->keys = g.cap;
    a->q = (qk_attn_view){NULL, a->rows * row, d, row, 1};
    a->k = a->v = (qk_attn_view){NULL, kv * g.cap, g.cap * d, d, 1};
    a->yb = a->rows * hidden;
    a->yh = d;
    a->ys = hidden;
    const size_t size = (size_t)cu_bytes(a->dtype);
    QX_TRY(gqa_extras(b, &g));
    if (g.rotary) g.part = cu_round((size_t)(a->batch * a->rows * hidden) * size) + cu_round((size_t)(a->batch * a->rows * kv) * size);
    b->step->workspace = g.part + own_attention(b, a);
    return cu_step(b, gqa_run, &g, sizeof g);
}
const cu_adapter qx_cuda_gqa = {gqa_place, gqa_compile};
