/* gqa.c - GroupQueryAttention (runtime/cpu/attention/gqa.c): query and key normalised and rotated, the caches, attention. How many keys
 * there are is read on the device, so that the step is compiled once for caches of a length and the decoder's steps can be
 * recorded; only the dims of the caches depend on the content of an input. */
#include <math.h>
#include <string.h>

#include "runtime/cuda/lib.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, SEQLENS, TOTAL, COS, SIN, POSITIONS, BIAS, SINK, K_SCALE, V_SCALE, Q_NORM, K_NORM };

typedef struct gqa_args {
    qk_attn_args a;
    qk_rope_args rope;
    qk_norm_args norm;
    qk_lengths_args lengths;
    qk_cache_args k, v;
    int64_t q_row, k_row;
    size_t lengths_at, q_at, k_at, kv_at, vv_at, part_at; /* in the workspace */
    bool packed, rotary, norms, bias, sink;
} gqa_args;

static bool staged(const gqa_args *g) { return g->rotary || g->norms; } /* query and key are turned into something else first */

static qx_status gqa_place(const cu_build *b)
{
    QX_TRY(cu_want_real(b, QUERY));
    if (cu_int(b, "sliding_window_cache", 0)) CU_NO(b, "sliding_window_cache");
    if (b->node->n_out > 3) CU_NO(b, "the scores as an output");
    b->place->shape_in = 1u << TOTAL;
    return QX_OK;
}

/* ---- a run ---- */

/* Heads of [batch, rows, row] into a dense [batch, rows, heads, d], normalised and rotated there. */
static qx_status stage(const cu_run *r, const gqa_args *g, const void *x, int64_t first, int64_t row, int64_t heads, uint32_t gamma,
                       void *y)
{
    const qk_attn_args *a = &g->a;
    const int64_t d = a->dk;
    const qk_copy_args c = {.src = x, .dst = y, .n = a->batch * a->rows * heads * d, .s0 = first, .rank = 2, .size = cu_bytes(a->dtype),
                            .dims = {a->batch * a->rows, heads * d},
                            .ss = {row, 1}, .ds = {heads * d, 1}};
    QX_TRY(cu_launched(r->d->m, qk_copy(r->q, &c)));
    if (g->norms) {
        qk_norm_args n = g->norm;
        n.x = n.y = y; /* an element is read and written by the same thread */
        n.gamma = r->in[gamma].data;
        n.rows = a->batch * a->rows * heads;
        QX_TRY(cu_launched(r->d->m, qk_norm(r->q, &n)));
    }
    if (!g->rotary) return QX_OK;
    qk_rope_args p = g->rope;
    p.x = p.y = y; /* and so is a pair */
    p.heads = heads;
    p.sb = a->rows * heads * d;
    p.sh = d;
    p.ss = heads * d;
    p.cos = r->in[COS].data;
    p.sin = r->in[SIN].data;
    p.pos = p.pos ? r->in[POSITIONS].data : (const int64_t *)(const void *)((const char *)r->ws + g->lengths_at);
    p.bad = r->d->bad;
    return cu_launched(r->d->m, qk_rope(r->q, &p));
}

static qx_status fill(const cu_run *r, const gqa_args *g, const qk_cache_args *cache, const void *past, const void *fresh,
                      uint32_t scale, void *out, void *values)
{
    qk_cache_args c = *cache;
    c.past = past;
    c.fresh = fresh;
    c.scale = c.codes ? r->in[scale].data : NULL;
    c.cache = out;
    c.values = values;
    c.starts = (const int64_t *)(const void *)((const char *)r->ws + g->lengths_at);
    return cu_launched(r->d->m, qk_cache_fill(r->q, &c));
}

/* The lengths, query and keys as attention wants them, and both caches. */
static qx_status prepare(const cu_run *r, const gqa_args *g, qk_attn_args *a)
{
    const int64_t hidden = a->heads * a->dk, size = cu_bytes(a->dtype);
    char *ws = r->ws, *starts = ws + g->lengths_at;
    const void *q = r->in[QUERY].data, *k = g->packed ? q : r->in[KEY].data, *v = g->packed ? q : r->in[VALUE].data;
    const int64_t k0 = g->packed ? hidden : 0, v0 = g->packed ? hidden + a->kv_heads * a->dk : 0;
    qk_lengths_args l = g->lengths;
    l.seq = r->in[SEQLENS].data;
    l.total = r->in[TOTAL].data;
    l.starts = (int64_t *)(void *)starts;
    l.lengths = (int32_t *)(void *)(starts + (size_t)a->batch * sizeof(int64_t));
    l.offsets = l.lengths + a->batch;
    l.bad = r->d->bad;
    QX_TRY(cu_launched(r->d->m, qk_cache_lengths(r->q, &l)));
    a->lengths = l.lengths;
    a->offsets = l.offsets;
    const void *fresh_k = (const char *)k + k0 * size;
    a->q.p = q;
    if (staged(g)) {
        QX_TRY(stage(r, g, q, 0, g->q_row, a->heads, Q_NORM, ws + g->q_at));
        QX_TRY(stage(r, g, k, k0, g->k_row, a->kv_heads, K_NORM, ws + g->k_at));
        fresh_k = ws + g->k_at;
        a->q.p = ws + g->q_at;
    }
    QX_TRY(fill(r, g, &g->k, r->in[PAST_KEY].data, fresh_k, K_SCALE, r->out[1].data, ws + g->kv_at));
    QX_TRY(fill(r, g, &g->v, r->in[PAST_VALUE].data, (const char *)v + v0 * size, V_SCALE, r->out[2].data, ws + g->vv_at));
    a->k.p = g->k.codes ? ws + g->kv_at : r->out[1].data;
    a->v.p = g->v.codes ? ws + g->vv_at : r->out[2].data;
    return QX_OK;
}

static qx_status gqa_run(const cu_run *r)
{
    const gqa_args *g = r->args;
    qk_attn_args a = g->a;
    QX_TRY(prepare(r, g, &a));
    a.y = r->out[0].data;
    a.part = (float *)(void *)((char *)r->ws + g->part_at);
    if (g->bias) a.mask.p = r->in[BIAS].data;
    if (g->sink) a.sink = r->in[SINK].data;
    return cu_launched(r->d->m, qk_attention(r->q, &a));
}

/* ---- compiling ---- */

/* attention_bias is a mask that may have columns behind the last key; head_sink, or smooth_softmax, whose sink is 0. */
static qx_status gqa_extras(cu_build *b, gqa_args *g)
{
    qk_attn_args *a = &g->a;
    const qx_dev_tensor *bias = &b->in[BIAS], *sink = &b->in[SINK];
    if ((g->bias = cu_has(b, BIAS))) {
        if (!cu_real(bias->dtype)) CU_NO(b, "a bias of %s", qx_dtype_get(bias->dtype)->text);
        if (bias->rank != 4 || (bias->dims[0] != 1 && bias->dims[0] != a->batch) || (bias->dims[1] != 1 && bias->dims[1] != a->heads) ||
            bias->dims[2] != a->rows || bias->dims[3] < a->keys)
            CU_BAD(b, "attention_bias must be [%lld or 1, %lld or 1, %lld, %lld]", (long long)a->batch, (long long)a->heads,
                   (long long)a->rows, (long long)a->keys);
        const int64_t row = bias->dims[3], head = row * bias->dims[2];
        a->mtype = bias->dtype;
        a->mask = (qk_attn_view){CU_LATER, bias->dims[0] == 1 ? 0 : head * bias->dims[1], bias->dims[1] == 1 ? 0 : head, row, 1};
    }
    if ((g->sink = cu_has(b, SINK))) {
        if (!cu_real(sink->dtype) || sink->numel != a->heads)
            CU_BAD(b, "head_sink of %lld elements for %lld heads", (long long)sink->numel, (long long)a->heads);
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

static qx_status gqa_lengths(const cu_build *b, gqa_args *g)
{
    const qx_dev_tensor *seq = &b->in[SEQLENS], *total = &b->in[TOTAL];
    if (!cu_has(b, SEQLENS) || !cu_has(b, TOTAL) || !cu_integer(seq->dtype) || !cu_integer(total->dtype))
        CU_BAD(b, "seqlens_k and total_sequence_length must be integers");
    if (seq->numel != g->a.batch || total->numel != 1)
        CU_BAD(b, "%lld lengths for batch %lld", (long long)seq->numel, (long long)g->a.batch);
    if (g->a.keys > INT32_MAX) CU_NO(b, "%lld keys", (long long)g->a.keys);
    if (g->a.keys < g->a.rows) CU_BAD(b, "caches of %lld rows for %lld new tokens", (long long)g->a.keys, (long long)g->a.rows);
    g->lengths = (qk_lengths_args){.batch = g->a.batch, .rows = g->a.rows, .past_cap = g->k.past_cap, .cap = g->a.keys,
                                   .stype = seq->dtype, .ttype = total->dtype};
    return QX_OK;
}

static qx_status gqa_rotary(const cu_build *b, gqa_args *g)
{
    const qx_dev_tensor *cs = &b->in[COS];
    const qk_attn_args *a = &g->a;
    g->rotary = cu_int(b, "do_rotary", 0) != 0;
    if (!g->rotary) return QX_OK;
    if (!cu_has(b, COS) || !cu_has(b, SIN) || cs->rank != 2 || b->in[SIN].numel != cs->numel || 2 * cs->dims[1] > a->dk ||
        !cu_real(cs->dtype))
        CU_BAD(b, "cos and sin tables do not fit heads of %lld", (long long)a->dk);
    g->rope = (qk_rope_args){.batch = a->batch, .seq = a->rows, .d = a->dk, .rot = 2 * cs->dims[1], .max_pos = cs->dims[0],
                             .dtype = a->dtype, .ttype = cs->dtype,
                             .interleaved = cu_int(b, "rotary_interleaved", 0) != 0, .pos_batch = 1, .pos_add = 1};
    if (!cu_has(b, POSITIONS)) return QX_OK;
    if (b->in[POSITIONS].numel != a->batch * a->rows || b->in[POSITIONS].dtype != QX_DT_INT64)
        CU_BAD(b, "%lld positions", (long long)b->in[POSITIONS].numel);
    g->rope.pos = CU_LATER;
    g->rope.pos_batch = a->rows;
    g->rope.pos_seq = 1;
    g->rope.pos_add = 0;
    return QX_OK;
}

static qx_status gqa_norms(const cu_build *b, gqa_args *g)
{
    g->norms = cu_has(b, Q_NORM) || cu_has(b, K_NORM);
    if (!g->norms) return QX_OK;
    const qx_dev_tensor *q = &b->in[Q_NORM], *k = &b->in[K_NORM];
    if (!cu_has(b, Q_NORM) || !cu_has(b, K_NORM) || q->numel != g->a.dk || k->numel != g->a.dk || !cu_real(q->dtype) ||
        k->dtype != q->dtype)
        CU_BAD(b, "q_norm_weight and k_norm_weight go together, with %lld elements each", (long long)g->a.dk);
    g->norm = (qk_norm_args){.d = g->a.dk, .dtype = g->a.dtype, .ptype = q->dtype, .rms = 1, .eps = cu_float(b, "qk_norm_epsilon", 1e-6f)};
    return QX_OK;
}

/* A cache of reals, or of codes with their scale. */
static qx_status gqa_cache(const cu_build *b, gqa_args *g, uint32_t past, uint32_t out, uint32_t scale_in, const char *mode,
                           qk_cache_args *c)
{
    const qk_attn_args *a = &g->a;
    const qx_dev_tensor *o = &b->out[out], *s = &b->in[scale_in];
    const int64_t d = a->dk;
    const bool per_channel = cu_is(b, mode, "PER_CHANNEL", false), coded = per_channel || cu_is(b, mode, "PER_TENSOR", false);
    *c = (qk_cache_args){.batch = a->batch, .heads = a->kv_heads, .rows = a->rows, .d = d, .dtype = a->dtype,
                         .past_cap = cu_has(b, past) ? b->in[past].dims[2] : 0};
    if (o->rank != 4 || o->dims[0] != a->batch || o->dims[1] != a->kv_heads || o->dims[2] < c->past_cap)
        CU_BAD(b, "a cache of rank %d with %lld heads", o->rank, (long long)o->dims[1]);
    if (cu_has(b, past) && b->in[past].dtype != o->dtype)
        CU_BAD(b, "caches of %s and %s", qx_dtype_get(b->in[past].dtype)->text, qx_dtype_get(o->dtype)->text);
    c->cap = o->dims[2];
    const bool four = coded && o->dtype == QX_DT_UINT8 && cu_int(b, "kv_cache_bit_width", 8) == 4;
    if (o->dims[3] != (four ? d / 2 : d)) CU_BAD(b, "rows of %lld in a cache of heads of %lld", (long long)o->dims[3], (long long)d);
    if (!coded && o->dtype != a->dtype) CU_NO(b, "a cache of %s without a scale", qx_dtype_get(o->dtype)->text);
    if (!coded) return QX_OK;
    if (!four && o->dtype != QX_DT_INT8 && o->dtype != QX_DT_FLOAT8E4M3FN) CU_NO(b, "a cache of %s", qx_dtype_get(o->dtype)->text);
    if (four && d % 8) CU_NO(b, "4-bit caches with heads of %lld, no multiple of 8", (long long)d);
    if (!cu_has(b, scale_in) || !cu_real(s->dtype) || s->numel != (per_channel ? a->kv_heads * d : 1))
        CU_BAD(b, "%s: %lld scales", mode, (long long)(cu_has(b, scale_in) ? s->numel : 0));
    c->codes = four ? QX_DT_UINT4 : o->dtype;
    c->stype = s->dtype;
    c->per_channel = per_channel;
    return QX_OK;
}

static qx_status gqa_heads(const cu_build *b, gqa_args *g)
{
    const qx_dev_tensor *q = &b->in[QUERY];
    qk_attn_args *a = &g->a;
    if (q->rank != 3 || !cu_real(q->dtype)) CU_NO(b, "a query of rank %d and %s", q->rank, qx_dtype_get(q->dtype)->text);
    *a = (qk_attn_args){.batch = q->dims[0], .rows = q->dims[1], .heads = cu_int(b, "num_heads", 0),
                        .kv_heads = cu_int(b, "kv_num_heads", 0), .dtype = q->dtype,
                        .causal = cu_int(b, "causal", 1) != 0, .left = cu_int(b, "local_window_size", -1) - 1,
                            .softcap = cu_float(b, "softcap", 0)};
    if (a->left < -1) a->left = -1;
    const int64_t parts = g->packed ? a->heads + 2 * a->kv_heads : a->heads;
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads || q->dims[2] % parts)
        CU_BAD(b, "%lld heads and %lld key heads in rows of %lld", (long long)a->heads, (long long)a->kv_heads, (long long)q->dims[2]);
    a->dk = a->dv = q->dims[2] / parts;
    if (a->rows > INT32_MAX / a->heads) CU_NO(b, "%lld rows in %lld heads", (long long)a->rows, (long long)a->heads);
    if (a->dk > CU_MOST_HEAD) CU_NO(b, "heads of %lld: at most %d", (long long)a->dk, CU_MOST_HEAD);
    const int64_t need = a->batch * a->rows * a->kv_heads * a->dk;
    for (uint32_t i = KEY; i <= VALUE && !g->packed; i++)
        if (b->in[i].numel != need || b->in[i].dtype != q->dtype)
            CU_BAD(b, "input %u has %lld elements, %lld are needed", i, (long long)b->in[i].numel, (long long)need);
    if (!b->out[1].dtype || !b->out[2].dtype) CU_NO(b, "a cache that nobody reads");
    return QX_OK;
}

/* Strides of everything that attention and the caches read. */
static void gqa_strides(gqa_args *g)
{
    qk_attn_args *a = &g->a;
    const int64_t d = a->dk, hidden = a->heads * d, kv = a->kv_heads * d;
    g->q_row = g->packed ? hidden + 2 * kv : hidden;
    g->k_row = g->packed ? g->q_row : kv;
    const int64_t row = staged(g) ? hidden : g->q_row;
    a->q = (qk_attn_view){NULL, a->rows * row, d, row, 1};
    a->k = a->v = (qk_attn_view){NULL, kv * a->keys, a->keys * d, d, 1};
    a->yb = a->rows * hidden;
    a->yh = d;
    a->ys = hidden;
    g->v.fs = g->k_row;
    g->k.fs = staged(g) ? kv : g->k_row;
    g->k.fb = a->rows * g->k.fs;
    g->v.fb = a->rows * g->v.fs;
    g->k.fh = g->v.fh = d;
}

static size_t taken(size_t *at, int64_t elements, int64_t size)
{
    const size_t here = *at;
    *at += cu_round((size_t)(elements * size));
    return here;
}

static void gqa_workspace(cu_build *b, gqa_args *g)
{
    qk_attn_args *a = &g->a;
    const int64_t size = cu_bytes(a->dtype), tokens = a->batch * a->rows, values = a->batch * a->kv_heads * a->keys * a->dk;
    size_t at = 0;
    g->lengths_at = taken(&at, a->batch, sizeof(int64_t) + 2 * sizeof(int32_t));
    g->q_at = taken(&at, staged(g) ? tokens * a->heads * a->dk : 0, size);
    g->k_at = taken(&at, staged(g) ? tokens * a->kv_heads * a->dk : 0, size);
    g->kv_at = taken(&at, g->k.codes ? values : 0, size);
    g->vv_at = taken(&at, g->v.codes ? values : 0, size);
    g->part_at = at;
    b->step->workspace = at + cu_own_attention(b, a);
}

static qx_status gqa_compile(cu_build *b)
{
    gqa_args g = {.packed = !cu_has(b, KEY)};
    qk_attn_args *a = &g.a;
    QX_TRY(gqa_heads(b, &g));
    QX_TRY(gqa_cache(b, &g, PAST_KEY, 1, K_SCALE, "k_quant_type", &g.k));
    QX_TRY(gqa_cache(b, &g, PAST_VALUE, 2, V_SCALE, "v_quant_type", &g.v));
    if (g.k.cap != g.v.cap || g.k.past_cap != g.v.past_cap)
        CU_BAD(b, "caches of %lld and %lld rows", (long long)g.k.cap, (long long)g.v.cap);
    a->keys = g.k.cap;
    const float scale = cu_float(b, "scale", 0);
    a->scale = scale != 0 ? scale : 1.0f / sqrtf((float)a->dk);
    QX_TRY(gqa_lengths(b, &g));
    QX_TRY(gqa_rotary(b, &g));
    QX_TRY(gqa_norms(b, &g));
    gqa_strides(&g);
    QX_TRY(gqa_extras(b, &g));
    gqa_workspace(b, &g);
    return cu_step(b, gqa_run, &g, sizeof g);
}
const cu_adapter qx_cuda_gqa = {gqa_place, gqa_compile};
