/* dnnl.c - the only file that calls oneDNN (2.x: version 3 renamed most of this). Weights are reordered once into the layout that the
 * library asks for; primitives are kept per node. Scratch comes from the call, so nothing stays allocated between calls. */
#include "runtime/dnnl.h"
#include "runtime/cpu/int8.h"

#ifdef QONNX_HAVE_DNNL
#include <dnnl.h>
#include <string.h>

#include "runtime/plan.h"

#define SMALL_FLOPS 2e6
enum { CACHE = 6 }; /* primitives of one node: different row counts */

typedef struct library { dnnl_engine_t engine; dnnl_stream_t stream; } library;

static const char *status_text(dnnl_status_t s)
{
    static const char *const names[] = {"success", "out of memory", "invalid arguments", "unimplemented", "iterator ends", "runtime error", "not required"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

#define DNNL(c, call)                                                                                       \
    do {                                                                                                    \
        dnnl_status_t s_ = (call);                                                                          \
        if (s_ != dnnl_success) return qx_call_fail((c), s_ == dnnl_out_of_memory ? QX_E_NOMEM : QX_E_FAIL, "oneDNN: %s (%s)", status_text(s_), #call); \
    } while (0)

/* flops of the product that comes: a small one is done before a second thread would have woken up. */
static qx_status get_library(qx_call *c, double flops, library **out)
{
    library *l = c->exec->dnnl;
    if (!l) {
        QX_TRY(qx_alloc(c->ctx, sizeof *l, (void **)&l));
        c->exec->dnnl = l;
        DNNL(c, dnnl_engine_create(&l->engine, dnnl_cpu, 0));
        DNNL(c, dnnl_stream_create(&l->stream, l->engine, dnnl_stream_default_flags));
    }
    qx_thread_apply(c->ctx, flops < SMALL_FLOPS ? 1 : 0);
    *out = l;
    return QX_OK;
}

void qx_dnnl_free(qx_ctx *ctx, void *handle)
{
    library *l = handle;
    if (!l) return;
    if (l->stream) dnnl_stream_destroy(l->stream);
    if (l->engine) dnnl_engine_destroy(l->engine);
    qx_free(ctx, l);
}

/* ---- Primitives ---- */

typedef struct prim {
    int64_t key[10];
    uint64_t used;
    dnnl_primitive_t p;
    dnnl_memory_desc_t src, wei, dst, scratch;
    const char *impl;
} prim;

static void prim_drop(prim *p)
{
    if (p->p) dnnl_primitive_destroy(p->p);
    memset(p, 0, sizeof *p);
}

/* The primitive with this key, or the slot to make it in (*found false). */
static prim *prim_slot(prim *cache, const int64_t key[10], uint64_t *clock, bool *found)
{
    prim *oldest = &cache[0];
    for (int i = 0; i < CACHE; i++) {
        if (cache[i].p && memcmp(cache[i].key, key, sizeof cache[i].key) == 0) {
            cache[i].used = ++*clock;
            *found = true;
            return &cache[i];
        }
        if (cache[i].used < oldest->used) oldest = &cache[i];
    }
    prim_drop(oldest);
    memcpy(oldest->key, key, sizeof oldest->key);
    oldest->used = ++*clock;
    *found = false;
    return oldest;
}

static bool stable_impl(const char *impl) { return strncmp(impl, "brg", 3) == 0 || strncmp(impl, "jit", 3) == 0; }

/* From descriptor and attributes to a primitive with its layouts known. p->p stays NULL when there is no implementation that `good` likes. */
static qx_status prim_make_if(qx_call *c, library *l, const_dnnl_op_desc_t desc, const_dnnl_primitive_attr_t attr, bool (*good)(const char *impl), prim *p)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t st = dnnl_primitive_desc_create(&pd, desc, attr, l->engine, NULL);
    if (st == dnnl_unimplemented) return QX_OK;
    DNNL(c, st);
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &p->impl);
    p->src = *dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    p->wei = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    p->dst = *dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    p->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    st = good(p->impl) ? dnnl_primitive_create(&p->p, pd) : dnnl_success;
    dnnl_primitive_desc_destroy(pd);
    DNNL(c, st);
    return QX_OK;
}

static qx_status prim_make(qx_call *c, library *l, const_dnnl_op_desc_t desc, const_dnnl_primitive_attr_t attr, prim *p)
{
    return prim_make_if(c, l, desc, attr, stable_impl, p);
}

/* Integer sums are exact in any order; only the library's reference loops are slower than our own. */
static bool not_reference(const char *impl) { return strncmp(impl, "ref", 3) != 0; }

static qx_status prim_make_any(qx_call *c, library *l, const_dnnl_op_desc_t desc, const_dnnl_primitive_attr_t attr, prim *p)
{
    return prim_make_if(c, l, desc, attr, not_reference, p);
}

static qx_status add_act(qx_call *c, dnnl_post_ops_t po, qx_act act)
{
    static const dnnl_alg_kind_t kinds[] = {[QX_ACT_RELU] = dnnl_eltwise_relu, [QX_ACT_GELU] = dnnl_eltwise_gelu_erf, [QX_ACT_GELU_TANH] = dnnl_eltwise_gelu_tanh,
                                            [QX_ACT_SILU] = dnnl_eltwise_swish, [QX_ACT_SIGMOID] = dnnl_eltwise_logistic, [QX_ACT_TANH] = dnnl_eltwise_tanh};
    if (act != QX_ACT_NONE) DNNL(c, dnnl_post_ops_append_eltwise(po, 1.0f, kinds[act], act == QX_ACT_SILU ? 1.0f : 0.0f, 0.0f));
    return QX_OK;
}

static qx_status make_attr(qx_call *c, qx_act act, const dnnl_memory_desc_t *add, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t po = NULL;
    DNNL(c, dnnl_primitive_attr_create(out));
    DNNL(c, dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user));
    DNNL(c, dnnl_post_ops_create(&po));
    qx_status st = add_act(c, po, act);
    if (st == QX_OK && add && dnnl_post_ops_append_binary(po, dnnl_binary_add, add) != dnnl_success) st = qx_call_fail(c, QX_E_FAIL, "oneDNN: no binary post-op");
    if (st == QX_OK && dnnl_primitive_attr_set_post_ops(*out, po) != dnnl_success) st = qx_call_fail(c, QX_E_FAIL, "oneDNN: post-ops refused");
    dnnl_post_ops_destroy(po);
    return st;
}

static double mm_flops(int64_t batch, int64_t m, int64_t k, int64_t n) { return 2.0 * (double)batch * (double)m * (double)k * (double)n; }

static double conv_flops(const qx_conv_shape *s)
{
    double flops = 2.0 * (double)s->batch * (double)s->out_ch * (double)(s->in_ch / s->group);
    for (int i = 0; i < s->spatial; i++) flops *= (double)s->out[i] * (double)s->kernel[i];
    return flops;
}

/* ---- Memory objects of one execution ---- */

enum { MAX_ARGS = 7 };
typedef struct exec_args { dnnl_exec_arg_t a[MAX_ARGS]; int n; } exec_args;

static qx_status arg(qx_call *c, library *l, exec_args *e, int id, const dnnl_memory_desc_t *md, const void *data)
{
    dnnl_memory_t m = NULL;
    DNNL(c, dnnl_memory_create(&m, md, l->engine, (void *)(uintptr_t)data));
    e->a[e->n++] = (dnnl_exec_arg_t){id, m};
    return QX_OK;
}

static qx_status execute(qx_call *c, library *l, dnnl_primitive_t p, exec_args *e, qx_status st)
{
    dnnl_status_t d = st == QX_OK ? dnnl_primitive_execute(p, l->stream, e->n, e->a) : dnnl_success;
    if (st == QX_OK && d == dnnl_success) d = dnnl_stream_wait(l->stream);
    for (int i = 0; i < e->n; i++) dnnl_memory_destroy(e->a[i].memory);
    if (st != QX_OK) return st;
    DNNL(c, d);
    return QX_OK;
}

static qx_status scratch_arg(qx_call *c, library *l, exec_args *e, const dnnl_memory_desc_t *md)
{
    size_t bytes = dnnl_memory_desc_get_size(md);
    void *data = NULL;
    if (!bytes) return QX_OK;
    QX_TRY(qx_call_scratch(c, bytes, &data));
    return arg(c, l, e, DNNL_ARG_SCRATCHPAD, md, data);
}

static qx_status reorder(qx_call *c, library *l, const dnnl_memory_desc_t *from, const void *src, const dnnl_memory_desc_t *to, void *dst)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t p = NULL;
    dnnl_primitive_attr_t attr = NULL;
    DNNL(c, dnnl_primitive_attr_create(&attr));
    dnnl_status_t d = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (d == dnnl_success) d = dnnl_reorder_primitive_desc_create(&pd, from, l->engine, to, l->engine, attr);
    dnnl_primitive_attr_destroy(attr);
    DNNL(c, d);
    dnnl_memory_desc_t scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    d = dnnl_primitive_create(&p, pd);
    dnnl_primitive_desc_destroy(pd);
    DNNL(c, d);
    exec_args e = {.n = 0};
    qx_status st = arg(c, l, &e, DNNL_ARG_FROM, from, src);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_TO, to, dst);
    if (st == QX_OK) st = scratch_arg(c, l, &e, &scratch);
    st = execute(c, l, p, &e, st);
    dnnl_primitive_destroy(p);
    return st;
}

static qx_status typed_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims, dnnl_data_type_t type, const int64_t *strides)
{
    dnnl_dims_t d, s;
    for (int i = 0; i < n; i++) {
        d[i] = dims[i];
        s[i] = strides ? strides[i] : 0;
    }
    if (strides) DNNL(c, dnnl_memory_desc_init_by_strides(md, n, d, type, s));
    else DNNL(c, dnnl_memory_desc_init_by_tag(md, n, d, type, dnnl_format_tag_any));
    return QX_OK;
}

static qx_status strided_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims, const int64_t *strides)
{
    return typed_md(c, md, n, dims, dnnl_f32, strides);
}

/* The library may choose the layout. */
static qx_status any_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims) { return typed_md(c, md, n, dims, dnnl_f32, NULL); }

/* ---- Product with a constant matrix ---- */

struct qx_dnnl_mm {
    int64_t k, n;
    dnnl_memory_desc_t md; /* layout of `packed` */
    void *packed;
    prim cache[CACHE];
    uint64_t clock;
};

void qx_dnnl_mm_free(qx_ctx *ctx, qx_dnnl_mm *s)
{
    if (!s) return;
    for (int i = 0; i < CACHE; i++) prim_drop(&s->cache[i]);
    qx_free(ctx, s->packed);
    qx_free(ctx, s);
}

/* wei NULL: the library may choose the layout of the weights. */
static qx_status mm_prim(qx_call *c, library *l, const qx_dnnl_mm *s, const qx_gemm *g, const dnnl_memory_desc_t *wei, prim *p)
{
    dnnl_memory_desc_t x, w, b, y;
    dnnl_matmul_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    QX_TRY(strided_md(c, &x, 2, (int64_t[]){g->m, s->k}, (int64_t[]){s->k, 1}));
    QX_TRY(strided_md(c, &y, 2, (int64_t[]){g->m, s->n}, (int64_t[]){s->n, 1}));
    QX_TRY(strided_md(c, &b, 2, (int64_t[]){1, s->n}, (int64_t[]){s->n, 1}));
    if (wei) w = *wei;
    else QX_TRY(any_md(c, &w, 2, (int64_t[]){s->k, s->n}));
    DNNL(c, dnnl_matmul_desc_init(&d, &x, &w, g->bias ? &b : NULL, &y));
    qx_status st = make_attr(c, g->act, g->add ? &y : NULL, &attr);
    if (st == QX_OK) st = prim_make(c, l, &d, attr, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return st;
}

static qx_status mm_repack(qx_call *c, library *l, qx_dnnl_mm *s, const dnnl_memory_desc_t *to)
{
    void *fresh = NULL;
    QX_TRY(qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(to), &fresh));
    qx_status st = reorder(c, l, &s->md, s->packed, to, fresh);
    if (st != QX_OK) {
        qx_free(c->ctx, fresh);
        return st;
    }
    qx_free(c->ctx, s->packed);
    s->packed = fresh;
    s->md = *to;
    for (int i = 0; i < CACHE; i++) prim_drop(&s->cache[i]);
    return QX_OK;
}

qx_status qx_dnnl_mm_new(qx_call *c, const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t m_hint, qx_dnnl_mm **out)
{
    library *l = NULL;
    dnnl_memory_desc_t plain;
    prim p = {.p = NULL};
    *out = NULL;
    if (k == 0 || n == 0) return QX_OK;
    QX_TRY(get_library(c, mm_flops(1, m_hint, k, n), &l));
    qx_dnnl_mm probe = {.k = k, .n = n};
    qx_gemm g = {.m = m_hint > 0 ? m_hint : 1};
    QX_TRY(mm_prim(c, l, &probe, &g, NULL, &p));
    if (!p.p) return QX_OK;
    dnnl_memory_desc_t md = p.wei;
    prim_drop(&p);
    qx_dnnl_mm *s = NULL;
    QX_TRY(QX_NEW(c->ctx, &s));
    s->k = k;
    s->n = n;
    s->md = md;
    qx_status st = qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(&md), &s->packed);
    if (st == QX_OK) st = strided_md(c, &plain, 2, (int64_t[]){k, n}, (int64_t[]){row, col});
    if (st == QX_OK) st = reorder(c, l, &plain, w, &md, s->packed);
    if (st != QX_OK) {
        qx_dnnl_mm_free(c->ctx, s);
        return st;
    }
    *out = s;
    return QX_OK;
}

/* The packed layout was chosen for other row counts: it is kept when the library can use it, else the weights are packed anew. */
static qx_status mm_find(qx_call *c, library *l, qx_dnnl_mm *s, const qx_gemm *g, prim **out)
{
    int64_t key[10] = {g->m, g->act, g->bias != NULL, g->add != NULL};
    bool found;
    prim *p = prim_slot(s->cache, key, &s->clock, &found);
    if (!found) {
        QX_TRY(mm_prim(c, l, s, g, &s->md, p));
        if (!p->p) {
            prim fresh = {.p = NULL};
            QX_TRY(mm_prim(c, l, s, g, NULL, &fresh));
            if (!fresh.p) QX_CALL_FAIL(c, QX_E_FAIL, "oneDNN has no kernel for %lld x %lld x %lld", (long long)g->m, (long long)s->k, (long long)s->n);
            qx_status st = mm_repack(c, l, s, &fresh.wei);
            memcpy(fresh.key, key, sizeof key);
            fresh.used = ++s->clock;
            *p = fresh;
            QX_TRY(st);
        }
    }
    *out = p;
    return QX_OK;
}

qx_status qx_dnnl_mm_run(qx_call *c, qx_dnnl_mm *s, const qx_gemm *g)
{
    library *l = NULL;
    prim *p;
    exec_args e = {.n = 0};
    dnnl_memory_desc_t b;
    QX_TRY(get_library(c, mm_flops(1, g->m, s->k, s->n), &l));
    QX_TRY(mm_find(c, l, s, g, &p));
    QX_TRY(strided_md(c, &b, 2, (int64_t[]){1, s->n}, (int64_t[]){s->n, 1}));
    qx_status st = arg(c, l, &e, DNNL_ARG_SRC, &p->src, g->x);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_WEIGHTS, &p->wei, s->packed);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_DST, &p->dst, g->y);
    if (st == QX_OK && g->bias) st = arg(c, l, &e, DNNL_ARG_BIAS, &b, g->bias);
    int post = g->act != QX_ACT_NONE;
    if (st == QX_OK && g->add) st = arg(c, l, &e, DNNL_ARG_ATTR_MULTIPLE_POST_OP(post) | DNNL_ARG_SRC_1, &p->dst, g->add);
    if (st == QX_OK) st = scratch_arg(c, l, &e, &p->scratch);
    qx_call_note_kernel(c, p->impl, 2.0 * (double)g->m * (double)s->k * (double)s->n);
    return execute(c, l, p->p, &e, st);
}

/* ---- Product of two variable tensors ---- */

struct qx_dnnl_bmm { prim cache[CACHE]; uint64_t clock; };

void qx_dnnl_bmm_free(qx_ctx *ctx, qx_dnnl_bmm *s)
{
    if (!s) return;
    for (int i = 0; i < CACHE; i++) prim_drop(&s->cache[i]);
    qx_free(ctx, s);
}

static qx_status bmm_prim(qx_call *c, library *l, const qx_bmm *g, prim *p)
{
    dnnl_memory_desc_t a, b, y;
    dnnl_matmul_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    int64_t ba = g->sa[0] ? g->batch : 1, bb = g->sb[0] ? g->batch : 1;
    QX_TRY(strided_md(c, &a, 3, (int64_t[]){ba, g->m, g->k}, (int64_t[]){g->sa[0] ? g->sa[0] : g->m * g->k, g->sa[1], g->sa[2]}));
    QX_TRY(strided_md(c, &b, 3, (int64_t[]){bb, g->k, g->n}, (int64_t[]){g->sb[0] ? g->sb[0] : g->k * g->n, g->sb[1], g->sb[2]}));
    QX_TRY(strided_md(c, &y, 3, (int64_t[]){g->batch, g->m, g->n}, (int64_t[]){g->m * g->n, g->n, 1}));
    DNNL(c, dnnl_matmul_desc_init(&d, &a, &b, NULL, &y));
    qx_status st = make_attr(c, QX_ACT_NONE, NULL, &attr);
    if (st == QX_OK) st = prim_make(c, l, &d, attr, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return st;
}

qx_status qx_dnnl_bmm_run(qx_call *c, qx_dnnl_bmm **state, const qx_bmm *g, bool *done)
{
    library *l = NULL;
    bool found;
    *done = false;
    if (g->batch < 1 || g->m < 1 || g->n < 1 || g->k < 1) return QX_OK;
    QX_TRY(get_library(c, mm_flops(g->batch, g->m, g->k, g->n), &l));
    if (!*state) QX_TRY(QX_NEW(c->ctx, state));
    int64_t key[10] = {g->batch, g->m, g->n, g->k, g->sa[0], g->sa[1], g->sa[2], g->sb[0], g->sb[1], g->sb[2]};
    prim *p = prim_slot((*state)->cache, key, &(*state)->clock, &found);
    if (!found) QX_TRY(bmm_prim(c, l, g, p));
    if (!p->p) return QX_OK;
    exec_args e = {.n = 0};
    qx_status st = arg(c, l, &e, DNNL_ARG_SRC, &p->src, g->a);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_WEIGHTS, &p->wei, g->b);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_DST, &p->dst, g->y);
    if (st == QX_OK) st = scratch_arg(c, l, &e, &p->scratch);
    qx_call_note_kernel(c, p->impl, 2.0 * (double)g->batch * (double)g->m * (double)g->k * (double)g->n);
    QX_TRY(execute(c, l, p->p, &e, st));
    *done = true;
    return QX_OK;
}

/* ---- Convolution ---- */

struct qx_dnnl_conv {
    bool winograd;         /* the packed weights are transformed: no way back to plain ones */
    dnnl_memory_desc_t md;
    void *packed;
    prim cache[CACHE];
    uint64_t clock;
};

void qx_dnnl_conv_free(qx_ctx *ctx, qx_dnnl_conv *s)
{
    if (!s) return;
    for (int i = 0; i < CACHE; i++) prim_drop(&s->cache[i]);
    qx_free(ctx, s->packed);
    qx_free(ctx, s);
}

static void dense_strides(int n, const int64_t *dims, int64_t *strides)
{
    int64_t s = 1;
    for (int i = n - 1; i >= 0; i--) {
        strides[i] = s;
        s *= dims[i];
    }
}

static int conv_dims(const qx_conv_shape *s, int64_t *x, int64_t *w, int64_t *y)
{
    int g = s->group > 1, n = s->spatial + 2;
    x[0] = y[0] = s->batch;
    x[1] = s->in_ch;
    y[1] = s->out_ch;
    if (g) w[0] = s->group;
    w[g] = s->out_ch / s->group;
    w[g + 1] = s->in_ch / s->group;
    for (int i = 0; i < s->spatial; i++) {
        x[2 + i] = s->in[i];
        y[2 + i] = s->out[i];
        w[g + 2 + i] = s->kernel[i];
    }
    return n;
}

/* Winograd's transformation pays for 3x3 convolutions with enough channels; its weights are four times as large, so there is a limit. Error
 * about 1.5e-6 of the result's norm; the same bits for any number of threads. */
#define WINOGRAD_BYTES 3.2e7
static bool winograd_may_pay(const qx_conv_shape *s)
{
    bool small = s->spatial == 2 && s->group == 1 && s->in_ch >= 16 && s->out_ch >= 16 && s->out[0] * s->out[1] >= 256;
    for (int i = 0; small && i < 2; i++) small = s->kernel[i] == 3 && s->stride[i] == 1 && s->dilation[i] == 1 && s->begin[i] <= 1 && s->end[i] <= 1;
    return small && 4.0 * 9.0 * (double)s->in_ch * (double)s->out_ch * 4.0 <= WINOGRAD_BYTES;
}

static qx_status conv_prim(qx_call *c, library *l, const qx_conv_shape *s, bool winograd, bool bias, qx_act act, const dnnl_memory_desc_t *wei, prim *p)
{
    int64_t dx[5], dw[6], dy[5];
    dnnl_memory_desc_t x, w, b, y;
    dnnl_convolution_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_dims_t strides, dilates, begin, end;
    int n = conv_dims(s, dx, dw, dy);
    QX_TRY(any_md(c, &x, n, dx));
    QX_TRY(any_md(c, &y, n, dy));
    if (wei) w = *wei;
    else QX_TRY(any_md(c, &w, n + (s->group > 1), dw));
    QX_TRY(strided_md(c, &b, 1, &s->out_ch, (int64_t[]){1}));
    for (int i = 0; i < s->spatial; i++) {
        strides[i] = s->stride[i];
        dilates[i] = s->dilation[i] - 1;
        begin[i] = s->begin[i];
        end[i] = s->end[i];
    }
    DNNL(c, dnnl_dilated_convolution_forward_desc_init(&d, dnnl_forward_inference, winograd ? dnnl_convolution_winograd : dnnl_convolution_direct, &x, &w, bias ? &b : NULL, &y, strides, dilates, begin, end));
    qx_status st = make_attr(c, act, NULL, &attr);
    if (st == QX_OK) st = prim_make(c, l, &d, attr, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return st;
}

qx_status qx_dnnl_conv_new(qx_call *c, const qx_conv_shape *shape, const float *w, qx_dnnl_conv **out)
{
    library *l = NULL;
    prim p = {.p = NULL};
    int64_t dx[5], dw[6], dy[5], strides[6];
    dnnl_memory_desc_t plain;
    *out = NULL;
    QX_TRY(get_library(c, conv_flops(shape), &l));
    int n = conv_dims(shape, dx, dw, dy) + (shape->group > 1);
    bool winograd = winograd_may_pay(shape);
    if (winograd) QX_TRY(conv_prim(c, l, shape, true, true, QX_ACT_NONE, NULL, &p));
    if (winograd && (!p.p || (double)dnnl_memory_desc_get_size(&p.scratch) > WINOGRAD_BYTES)) {
        prim_drop(&p);
        winograd = false;
    }
    if (!winograd) QX_TRY(conv_prim(c, l, shape, false, true, QX_ACT_NONE, NULL, &p));
    if (!p.p) return QX_OK;
    dnnl_memory_desc_t md = p.wei;
    prim_drop(&p);
    qx_dnnl_conv *s = NULL;
    QX_TRY(QX_NEW(c->ctx, &s));
    s->winograd = winograd;
    s->md = md;
    dense_strides(n, dw, strides);
    qx_status st = qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(&md), &s->packed);
    if (st == QX_OK) st = strided_md(c, &plain, n, dw, strides);
    if (st == QX_OK) st = reorder(c, l, &plain, w, &md, s->packed);
    if (st != QX_OK) {
        qx_dnnl_conv_free(c->ctx, s);
        return st;
    }
    *out = s;
    return QX_OK;
}

/* Weights packed anew as `to` from what is packed now, or from the model when that is transformed. */
static qx_status conv_repack(qx_call *c, library *l, qx_dnnl_conv *s, const qx_conv_shape *shape, const dnnl_memory_desc_t *to)
{
    dnnl_memory_desc_t from = s->md;
    const void *data = s->packed;
    void *packed = NULL;
    if (s->winograd) {
        int64_t dx[5], dw[6], dy[5], strides[6];
        const qx_tensor *w = qx_call_in(c, 1);
        qx_tensor plain = *w;
        const float *f;
        QX_TRY(qx_call_const_again(c, 1, &data));
        plain.data = (void *)(uintptr_t)data;
        QX_TRY(qx_call_to_f32(c, &plain, &f));
        data = f;
        int n = conv_dims(shape, dx, dw, dy) + (shape->group > 1);
        dense_strides(n, dw, strides);
        QX_TRY(strided_md(c, &from, n, dw, strides));
    }
    QX_TRY(qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(to), &packed));
    qx_status st = reorder(c, l, &from, data, to, packed);
    if (st != QX_OK) {
        qx_free(c->ctx, packed);
        return st;
    }
    qx_free(c->ctx, s->packed);
    s->packed = packed;
    s->md = *to;
    for (int i = 0; i < CACHE; i++) prim_drop(&s->cache[i]);
    return QX_OK;
}

static qx_status conv_find(qx_call *c, library *l, qx_dnnl_conv *s, const qx_conv_shape *shape, bool bias, qx_act act, prim **out)
{
    int64_t key[10] = {shape->batch, shape->in[0], shape->in[1], shape->in[2], bias, act};
    bool found;
    prim *p = prim_slot(s->cache, key, &s->clock, &found);
    *out = p;
    if (found) return QX_OK;
    QX_TRY(conv_prim(c, l, shape, s->winograd, bias, act, &s->md, p));
    if (p->p) return QX_OK;
    prim fresh = {.p = NULL};
    bool winograd = s->winograd;
    QX_TRY(conv_prim(c, l, shape, winograd, bias, act, NULL, &fresh));
    if (!fresh.p && winograd) {
        winograd = false;
        QX_TRY(conv_prim(c, l, shape, false, bias, act, NULL, &fresh));
    }
    if (!fresh.p) QX_CALL_FAIL(c, QX_E_FAIL, "oneDNN has no kernel for this picture size");
    qx_status st = conv_repack(c, l, s, shape, &fresh.wei);
    if (st != QX_OK) {
        prim_drop(&fresh);
        return st;
    }
    s->winograd = winograd;
    memcpy(fresh.key, key, sizeof key);
    fresh.used = ++s->clock;
    *p = fresh;
    return QX_OK;
}

/* A buffer in the layout that the primitive wants: the caller's own when it is dense already. */
static qx_status in_layout(qx_call *c, const dnnl_memory_desc_t *want, const dnnl_memory_desc_t *plain, float **data)
{
    if (dnnl_memory_desc_equal(want, plain)) return QX_OK;
    return qx_call_scratch(c, dnnl_memory_desc_get_size(want), (void **)data);
}

qx_status qx_dnnl_conv_run(qx_call *c, qx_dnnl_conv *s, const qx_conv_shape *shape, const float *x, const float *bias, qx_act act, float *y)
{
    library *l = NULL;
    prim *p;
    exec_args e = {.n = 0};
    int64_t dx[5], dw[6], dy[5], strides[6];
    dnnl_memory_desc_t plain_x, plain_y, b;
    QX_TRY(get_library(c, conv_flops(shape), &l));
    QX_TRY(conv_find(c, l, s, shape, bias != NULL, act, &p));
    int n = conv_dims(shape, dx, dw, dy);
    dense_strides(n, dx, strides);
    QX_TRY(strided_md(c, &plain_x, n, dx, strides));
    dense_strides(n, dy, strides);
    QX_TRY(strided_md(c, &plain_y, n, dy, strides));
    QX_TRY(strided_md(c, &b, 1, &shape->out_ch, (int64_t[]){1}));
    float *in = (float *)(uintptr_t)x, *out = y;
    QX_TRY(in_layout(c, &p->src, &plain_x, &in));
    QX_TRY(in_layout(c, &p->dst, &plain_y, &out));
    if (in != x) QX_TRY(reorder(c, l, &plain_x, x, &p->src, in));
    qx_status st = arg(c, l, &e, DNNL_ARG_SRC, &p->src, in);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_WEIGHTS, &p->wei, s->packed);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_DST, &p->dst, out);
    if (st == QX_OK && bias) st = arg(c, l, &e, DNNL_ARG_BIAS, &b, bias);
    if (st == QX_OK) st = scratch_arg(c, l, &e, &p->scratch);
    qx_call_note_kernel(c, p->impl, conv_flops(shape));
    QX_TRY(execute(c, l, p->p, &e, st));
    if (out != y) QX_TRY(reorder(c, l, &p->dst, out, &plain_y, y));
    return QX_OK;
}

/* ---- 8-bit codes ---- */

struct qx_dnnl_int8 {
    void *packed;
    dnnl_memory_desc_t md;
    prim cache[CACHE];
    uint64_t clock;
};

void qx_dnnl_int8_free(qx_ctx *ctx, qx_dnnl_int8 *s)
{
    if (!s) return;
    for (int i = 0; i < CACHE; i++) prim_drop(&s->cache[i]);
    qx_free(ctx, s->packed);
    qx_free(ctx, s);
}

static double int8_flops(const qx_int8_op *op) { return op->conv ? conv_flops(&op->shape) : mm_flops(1, op->m, op->k, op->n); }

/* Without VNNI the library's products of bytes saturate in 16 bits: wrong results, no error. */
static bool bytes_are_exact(void)
{
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    return (isa & (unsigned)dnnl_cpu_isa_avx512_core_vnni) == (unsigned)dnnl_cpu_isa_avx512_core_vnni || (isa & (unsigned)dnnl_cpu_isa_avx2_vnni) == (unsigned)dnnl_cpu_isa_avx2_vnni;
}

/* Plain layouts of x, w and y. Returns the rank of x; that of w goes to *wn. */
static qx_status int8_plain(qx_call *c, const qx_int8_op *op, dnnl_memory_desc_t *x, dnnl_memory_desc_t *w, dnnl_memory_desc_t *y, dnnl_memory_desc_t *b)
{
    dnnl_data_type_t xt = op->x_type == QX_DT_UINT8 ? dnnl_u8 : dnnl_s8;
    int64_t dx[5], dw[6], dy[5], db[5] = {1, 1, 1, 1, 1}, s[6];
    if (!op->conv) {
        QX_TRY(typed_md(c, x, 2, (int64_t[]){op->m, op->k}, xt, (int64_t[]){op->k, 1}));
        QX_TRY(typed_md(c, w, 2, (int64_t[]){op->k, op->n}, dnnl_s8, (int64_t[]){op->w_row, op->w_col}));
        QX_TRY(typed_md(c, b, 2, (int64_t[]){1, op->n}, dnnl_f32, (int64_t[]){op->n, 1}));
        return typed_md(c, y, 2, (int64_t[]){op->m, op->n}, dnnl_f32, (int64_t[]){op->n, 1});
    }
    int n = conv_dims(&op->shape, dx, dw, dy), wn = n + (op->shape.group > 1);
    dense_strides(n, dx, s);
    QX_TRY(typed_md(c, x, n, dx, xt, s));
    dense_strides(n, dy, s);
    QX_TRY(typed_md(c, y, n, dy, dnnl_f32, s));
    dense_strides(wn, dw, s);
    QX_TRY(typed_md(c, w, wn, dw, dnnl_s8, s));
    db[1] = op->shape.out_ch;
    dense_strides(n, db, s);
    return typed_md(c, b, n, db, dnnl_f32, s);
}

static qx_status int8_attr(qx_call *c, const qx_int8_op *op, const dnnl_memory_desc_t *b, dnnl_primitive_attr_t *out)
{
    QX_TRY(make_attr(c, QX_ACT_NONE, op->bias ? b : NULL, out));
    DNNL(c, dnnl_primitive_attr_set_output_scales(*out, op->n_scales, op->n_scales > 1 ? 1 << 1 : 0, op->scale));
    if (op->zero) DNNL(c, dnnl_primitive_attr_set_zero_points(*out, DNNL_ARG_SRC, 1, 0, &op->zero));
    return QX_OK;
}

static qx_status int8_desc(qx_call *c, library *l, const qx_int8_op *op, const dnnl_memory_desc_t *x, const dnnl_memory_desc_t *w, const dnnl_memory_desc_t *y, const_dnnl_primitive_attr_t attr, prim *p)
{
    dnnl_matmul_desc_t md;
    dnnl_convolution_desc_t cd;
    dnnl_memory_desc_t ax, ay;
    dnnl_dims_t strides, dilates, begin, end;
    if (!op->conv) {
        DNNL(c, dnnl_matmul_desc_init(&md, x, w, NULL, y));
        return prim_make_any(c, l, &md, attr, p);
    }
    QX_TRY(typed_md(c, &ax, x->ndims, x->dims, x->data_type, NULL));
    QX_TRY(typed_md(c, &ay, y->ndims, y->dims, dnnl_f32, NULL));
    for (int i = 0; i < op->shape.spatial; i++) {
        strides[i] = op->shape.stride[i];
        dilates[i] = op->shape.dilation[i] - 1;
        begin[i] = op->shape.begin[i];
        end[i] = op->shape.end[i];
    }
    DNNL(c, dnnl_dilated_convolution_forward_desc_init(&cd, dnnl_forward_inference, dnnl_convolution_direct, &ax, w, NULL, &ay, strides, dilates, begin, end));
    return prim_make_any(c, l, &cd, attr, p);
}

/* any: the library chooses the layout of the weights; else the layout they are packed in. */
static qx_status int8_prim(qx_call *c, library *l, const qx_dnnl_int8 *s, const qx_int8_op *op, bool any, prim *p)
{
    dnnl_memory_desc_t x, w, y, b, wd;
    dnnl_primitive_attr_t attr = NULL;
    QX_TRY(int8_plain(c, op, &x, &w, &y, &b));
    if (any) QX_TRY(typed_md(c, &wd, w.ndims, w.dims, dnnl_s8, NULL));
    else wd = s->md;
    qx_status st = int8_attr(c, op, &b, &attr);
    if (st == QX_OK) st = int8_desc(c, l, op, &x, &wd, &y, attr, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return st;
}

static qx_status int8_pack(qx_call *c, library *l, qx_dnnl_int8 *s, const qx_int8_op *op, const dnnl_memory_desc_t *to)
{
    dnnl_memory_desc_t x, w, y, b;
    void *fresh = NULL;
    QX_TRY(int8_plain(c, op, &x, &w, &y, &b));
    QX_TRY(qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(to), &fresh));
    qx_status st = reorder(c, l, &w, op->w, to, fresh);
    if (st != QX_OK) {
        qx_free(c->ctx, fresh);
        return st;
    }
    qx_free(c->ctx, s->packed);
    s->packed = fresh;
    s->md = *to;
    return QX_OK;
}

/* The primitive of these dims; packs the weights when there is no packing yet or it does not serve. */
static qx_status int8_find(qx_call *c, library *l, qx_dnnl_int8 *s, const qx_int8_op *op, prim **out, bool *need_w)
{
    int64_t key[10] = {op->conv, op->m, op->k, op->n, op->x_type, op->bias != NULL, op->shape.batch, op->shape.in[0], op->shape.in[1], op->shape.in[2]};
    bool found;
    prim *p = prim_slot(s->cache, key, &s->clock, &found);
    *out = p;
    if (found) return QX_OK;
    if (s->packed) QX_TRY(int8_prim(c, l, s, op, false, p));
    if (p->p) return QX_OK;
    prim fresh = {.p = NULL};
    QX_TRY(int8_prim(c, l, s, op, true, &fresh));
    if (!fresh.p) return QX_OK;
    if (!op->w) {
        prim_drop(&fresh);
        *need_w = true;
        return QX_OK;
    }
    qx_status st = int8_pack(c, l, s, op, &fresh.wei);
    for (int i = 0; i < CACHE; i++) prim_drop(&s->cache[i]);
    memcpy(fresh.key, key, sizeof key);
    fresh.used = ++s->clock;
    *p = fresh;
    return st;
}

static qx_status int8_execute(qx_call *c, library *l, const qx_dnnl_int8 *s, const qx_int8_op *op, const prim *p)
{
    dnnl_memory_desc_t x, w, y, b;
    exec_args e = {.n = 0};
    void *in = (void *)(uintptr_t)op->x;
    float *out = op->y;
    QX_TRY(int8_plain(c, op, &x, &w, &y, &b));
    QX_TRY(in_layout(c, &p->src, &x, (float **)&in));
    QX_TRY(in_layout(c, &p->dst, &y, &out));
    if (in != op->x) QX_TRY(reorder(c, l, &x, op->x, &p->src, in));
    qx_status st = arg(c, l, &e, DNNL_ARG_SRC, &p->src, in);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_WEIGHTS, &p->wei, s->packed);
    if (st == QX_OK) st = arg(c, l, &e, DNNL_ARG_DST, &p->dst, out);
    if (st == QX_OK && op->bias) st = arg(c, l, &e, DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, &b, op->bias);
    if (st == QX_OK) st = scratch_arg(c, l, &e, &p->scratch);
    QX_TRY(execute(c, l, p->p, &e, st));
    return out == op->y ? QX_OK : reorder(c, l, &p->dst, out, &y, op->y);
}

qx_status qx_dnnl_int8_run(qx_call *c, qx_dnnl_int8 **state, const qx_int8_op *op, bool *done, bool *need_w)
{
    library *l = NULL;
    prim *p = NULL;
    *done = *need_w = false;
    if (!bytes_are_exact()) return QX_OK;
    QX_TRY(get_library(c, int8_flops(op), &l));
    if (!*state) QX_TRY(QX_NEW(c->ctx, state));
    QX_TRY(int8_find(c, l, *state, op, &p, need_w));
    if (!p->p) return QX_OK;
    double flops = int8_flops(op);
    qx_call_note_kernel(c, p->impl, flops);
    QX_TRY(int8_execute(c, l, *state, op, p));
    *done = true;
    return QX_OK;
}

#endif
