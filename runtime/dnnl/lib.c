/* lib.c - the engine, primitives and memory objects: see dn.h. */
#include "runtime/dnnl/door.h"

#ifdef QONNX_HAVE_DNNL
#include <string.h>

#include "runtime/dnnl/dn.h"
#include "runtime/plan.h"

#define SMALL_FLOPS 2e6
enum { SMALL_REORDER = 1 << 16 }; /* elements */

int qx_dnnl_block(void)
{
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    if ((isa & (unsigned)dnnl_cpu_isa_avx512_core) == (unsigned)dnnl_cpu_isa_avx512_core) return 16;
    return (isa & (unsigned)dnnl_cpu_isa_avx2) == (unsigned)dnnl_cpu_isa_avx2 ? 8 : 0;
}

bool qx_dnnl_has_bf16(void)
{
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    return (isa & (unsigned)dnnl_cpu_isa_avx512_core_bf16) == (unsigned)dnnl_cpu_isa_avx512_core_bf16;
}

const char *qx_dn_text(dnnl_status_t s)
{
    static const char *const names[] = {"success", "out of memory", "invalid arguments", "unimplemented", "iterator ends",
                                        "runtime error", "not required"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

qx_status qx_dn_get(qx_call *c, double flops, qx_dn **out)
{
    qx_dn *l = c->exec->dnnl;
    if (!l) {
        QX_TRY(qx_alloc(c->ctx, sizeof *l, (void **)&l));
        c->exec->dnnl = l;
        QX_DN(c, dnnl_engine_create(&l->engine, dnnl_cpu, 0));
        QX_DN(c, dnnl_stream_create(&l->stream, l->engine, dnnl_stream_default_flags));
    }
    qx_thread_apply(c->ctx, flops < SMALL_FLOPS ? 1 : 0);
    *out = l;
    return QX_OK;
}

static void args_drop(qx_dn_args *e)
{
    for (int i = 0; i < e->n; i++) dnnl_memory_destroy(e->a[i].memory);
    e->n = 0;
}

static void turn_drop(qx_ctx *ctx, qx_dn_turn *t)
{
    if (!t) return;
    args_drop(&t->args);
    if (t->p) dnnl_primitive_destroy(t->p);
    qx_free(ctx, t);
}

void qx_dnnl_free(qx_ctx *ctx, void *handle)
{
    qx_dn *l = handle;
    if (!l) return;
    for (int i = 0; i < QX_DN_REORDERS; i++) turn_drop(ctx, l->turns[i]);
    if (l->stream) dnnl_stream_destroy(l->stream);
    if (l->engine) dnnl_engine_destroy(l->engine);
    qx_free(ctx, l);
}

/* ---- Primitives ---- */

void qx_dn_prim_drop(qx_dn_prim *p)
{
    if (p->p) dnnl_primitive_destroy(p->p);
    args_drop(&p->args);
    memset(p, 0, sizeof *p);
}

qx_dn_prim *qx_dn_prim_slot(qx_dn_prim *cache, const int64_t key[10], uint64_t *clock, bool *found)
{
    qx_dn_prim *oldest = &cache[0];
    for (int i = 0; i < QX_DN_CACHE; i++) {
        if (cache[i].p && memcmp(cache[i].key, key, sizeof cache[i].key) == 0) {
            cache[i].used = ++*clock;
            *found = true;
            return &cache[i];
        }
        if (cache[i].used < oldest->used) oldest = &cache[i];
    }
    qx_dn_prim_drop(oldest);
    memcpy(oldest->key, key, sizeof oldest->key);
    oldest->used = ++*clock;
    *found = false;
    return oldest;
}

/* Not brgconv: how it cuts rows at the borders of a picture, and with that the order of its sums, follows the number of threads. */
bool qx_dn_stable(const char *impl)
{
    /* brdgmm_dw: depthwise */
    return (strncmp(impl, "brg", 3) == 0 && strncmp(impl, "brgconv:", 8) != 0) || strncmp(impl, "brdgmm", 6) == 0 ||
        strncmp(impl, "jit", 3) == 0;
}

/* Integer sums are exact in any order; only the library's reference loops are slower than our own. */
bool qx_dn_exact(const char *impl) { return strncmp(impl, "ref", 3) != 0; }

static qx_status prim_take(qx_call *c, const_dnnl_primitive_desc_t pd, qx_dn_good *good, qx_dn_prim *p)
{
    const char *impl = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &impl);
    dnnl_memory_desc_t scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (!good(impl)) return QX_OK;
    p->impl = impl;
    p->scratch = scratch;
    p->src = *dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    p->wei = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    p->dst = *dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    QX_DN(c, dnnl_primitive_create(&p->p, pd));
    return QX_OK;
}

qx_status qx_dn_prim_make(qx_call *c, qx_dn *l, const_dnnl_op_desc_t desc, const_dnnl_primitive_attr_t attr, qx_dn_good *good,
                          qx_dn_prim *p)
{
    dnnl_primitive_desc_iterator_t it = NULL;
    dnnl_status_t d = dnnl_primitive_desc_iterator_create(&it, desc, attr, l->engine, NULL);
    qx_status st = QX_OK;
    while (d == dnnl_success && st == QX_OK && !p->p) {
        dnnl_primitive_desc_t pd = dnnl_primitive_desc_iterator_fetch(it);
        st = pd ? prim_take(c, pd, good, p) : qx_call_fail(c, QX_E_NOMEM, "oneDNN: no descriptor");
        dnnl_primitive_desc_destroy(pd);
        d = dnnl_primitive_desc_iterator_next(it);
    }
    if (it) dnnl_primitive_desc_iterator_destroy(it);
    if (st == QX_OK && d != dnnl_success && d != dnnl_unimplemented && d != dnnl_iterator_ends)
        st = qx_call_fail(c, d == dnnl_out_of_memory ? QX_E_NOMEM : QX_E_FAIL, "oneDNN: %s", qx_dn_text(d));
    return st;
}

static qx_status add_act(qx_call *c, dnnl_post_ops_t po, qx_act act)
{
    static const dnnl_alg_kind_t kinds[] = {[QX_ACT_RELU] = dnnl_eltwise_relu, [QX_ACT_GELU] = dnnl_eltwise_gelu_erf,
                                            [QX_ACT_GELU_TANH] = dnnl_eltwise_gelu_tanh,
                                            [QX_ACT_SILU] = dnnl_eltwise_swish, [QX_ACT_SIGMOID] = dnnl_eltwise_logistic,
                                                [QX_ACT_TANH] = dnnl_eltwise_tanh, [QX_ACT_HARDSWISH] = dnnl_eltwise_hardswish};
    if (act != QX_ACT_NONE) QX_DN(c, dnnl_post_ops_append_eltwise(po, 1.0f, kinds[act], act == QX_ACT_SILU ? 1.0f : 0.0f, 0.0f));
    return QX_OK;
}

qx_status qx_dn_attr(qx_call *c, qx_act act, const dnnl_memory_desc_t *mul, const dnnl_memory_desc_t *add, dnnl_primitive_attr_t *out)
{
    dnnl_post_ops_t po = NULL;
    QX_DN(c, dnnl_primitive_attr_create(out));
    QX_DN(c, dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user));
    QX_DN(c, dnnl_post_ops_create(&po));
    qx_status st = add_act(c, po, act);
    if (st == QX_OK && mul && dnnl_post_ops_append_binary(po, dnnl_binary_mul, mul) != dnnl_success)
        st = qx_call_fail(c, QX_E_FAIL, "oneDNN: no binary post-op");
    if (st == QX_OK && add && dnnl_post_ops_append_binary(po, dnnl_binary_add, add) != dnnl_success)
        st = qx_call_fail(c, QX_E_FAIL, "oneDNN: no binary post-op");
    if (st == QX_OK && dnnl_primitive_attr_set_post_ops(*out, po) != dnnl_success)
        st = qx_call_fail(c, QX_E_FAIL, "oneDNN: post-ops refused");
    dnnl_post_ops_destroy(po);
    return st;
}

double qx_dn_mm_flops(int64_t batch, int64_t m, int64_t k, int64_t n) { return 2.0 * (double)batch * (double)m * (double)k * (double)n; }

double qx_dn_conv_flops(const qx_conv_shape *s)
{
    double flops = 2.0 * (double)s->batch * (double)s->out_ch * (double)(s->in_ch / s->group);
    for (int i = 0; i < s->spatial; i++) flops *= (double)s->out[i] * (double)s->kernel[i];
    return flops;
}

/* ---- Execution ---- */

/* Argument `id` of the next run: data, which lies as md says (what it said at the first run). */
static qx_status arg(qx_call *c, qx_dn *l, qx_dn_args *e, int id, const dnnl_memory_desc_t *md, const void *data)
{
    int i = 0;
    while (i < e->n && e->a[i].arg != id) i++;
    if (i == e->n) {
        QX_DN(c, dnnl_memory_create(&e->a[i].memory, md, l->engine, (void *)(uintptr_t)data));
        e->a[i].arg = id;
        e->n++;
    } else if (e->data[i] != data) {
        QX_DN(c, dnnl_memory_set_data_handle(e->a[i].memory, (void *)(uintptr_t)data));
    }
    e->data[i] = data;
    return QX_OK;
}

static qx_status execute(qx_call *c, qx_dn *l, dnnl_primitive_t p, const qx_dn_args *e)
{
    QX_DN(c, dnnl_primitive_execute(p, l->stream, e->n, e->a));
    QX_DN(c, dnnl_stream_wait(l->stream));
    return QX_OK;
}

static qx_status scratch_arg(qx_call *c, qx_dn *l, qx_dn_args *e, const dnnl_memory_desc_t *md)
{
    size_t bytes = dnnl_memory_desc_get_size(md);
    void *data = NULL;
    if (!bytes) return QX_OK;
    QX_TRY(qx_call_scratch(c, bytes, &data));
    return arg(c, l, e, DNNL_ARG_SCRATCHPAD, md, data);
}

static qx_status turn_make(qx_call *c, qx_dn *l, qx_dn_turn *t)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = NULL;
    QX_DN(c, dnnl_primitive_attr_create(&attr));
    dnnl_status_t d = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (d == dnnl_success) d = dnnl_reorder_primitive_desc_create(&pd, &t->from, l->engine, &t->to, l->engine, attr);
    dnnl_primitive_attr_destroy(attr);
    QX_DN(c, d);
    t->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    d = dnnl_primitive_create(&t->p, pd);
    dnnl_primitive_desc_destroy(pd);
    QX_DN(c, d);
    return QX_OK;
}

static unsigned turn_slot(const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to)
{
    uint64_t h = (uint64_t)from->ndims;
    for (int i = 0; i < from->ndims; i++)
        h = (h * 31 + (uint64_t)from->dims[i]) * 31 + (uint64_t)(from->format_desc.blocking.strides[i] +
            7 * to->format_desc.blocking.strides[i]);
    return (unsigned)(h ^ h >> 17) % QX_DN_REORDERS;
}

/* The reordering, kept until another one takes its place. */
static qx_status turn_find(qx_call *c, qx_dn *l, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to, qx_dn_turn **out)
{
    qx_dn_turn **slot = &l->turns[turn_slot(from, to)];
    if (!*slot || !dnnl_memory_desc_equal(&(*slot)->from, from) || !dnnl_memory_desc_equal(&(*slot)->to, to)) {
        turn_drop(c->ctx, *slot);
        *slot = NULL;
        QX_TRY(QX_NEW(c->ctx, slot));
        (*slot)->from = *from;
        (*slot)->to = *to;
    }
    if (!(*slot)->p) QX_TRY(turn_make(c, l, *slot));
    *out = *slot;
    return QX_OK;
}

qx_status qx_dn_reorder(qx_call *c, qx_dn *l, const dnnl_memory_desc_t *from, const void *src, const dnnl_memory_desc_t *to, void *dst)
{
    qx_dn_turn *t = NULL;
    QX_TRY(turn_find(c, l, from, to, &t));
    QX_TRY(arg(c, l, &t->args, DNNL_ARG_FROM, from, src));
    QX_TRY(arg(c, l, &t->args, DNNL_ARG_TO, to, dst));
    QX_TRY(scratch_arg(c, l, &t->args, &t->scratch));
    return execute(c, l, t->p, &t->args);
}

void qx_dn_prim_have(qx_dn_prim *p, const dnnl_memory_desc_t *src, const dnnl_memory_desc_t *dst)
{
    p->have_src = *src;
    p->have_dst = *dst;
    p->turn_src = !dnnl_memory_desc_equal(&p->src, src);
    p->turn_dst = !dnnl_memory_desc_equal(&p->dst, dst);
}

qx_status qx_dn_prim_run(qx_call *c, qx_dn *l, qx_dn_prim *p, const qx_dn_data *d, double flops)
{
    void *in = NULL, *out = d->y;
    if (p->turn_src) {
        QX_TRY(qx_call_scratch(c, dnnl_memory_desc_get_size(&p->src), &in));
        QX_TRY(qx_dn_reorder(c, l, &p->have_src, d->x, &p->src, in));
    }
    if (p->turn_dst) QX_TRY(qx_call_scratch(c, dnnl_memory_desc_get_size(&p->dst), &out));
    QX_TRY(arg(c, l, &p->args, DNNL_ARG_SRC, &p->src, in ? in : d->x));
    QX_TRY(arg(c, l, &p->args, DNNL_ARG_WEIGHTS, &p->wei, d->w));
    QX_TRY(arg(c, l, &p->args, DNNL_ARG_DST, &p->dst, out));
    for (int i = 0; i < d->n; i++) QX_TRY(arg(c, l, &p->args, d->more[i].id, d->more[i].md, d->more[i].data));
    QX_TRY(scratch_arg(c, l, &p->args, &p->scratch));
    qx_call_note_kernel(c, p->impl, flops);
    QX_TRY(execute(c, l, p->p, &p->args));
    return p->turn_dst ? qx_dn_reorder(c, l, &p->dst, out, &p->have_dst, d->y) : QX_OK;
}

static void drop_primitives(qx_dn_weights *w)
{
    for (int i = 0; i < QX_DN_CACHE; i++) qx_dn_prim_drop(&w->cache[i]);
}

void qx_dn_weights_drop(qx_ctx *ctx, qx_dn_weights *w)
{
    drop_primitives(w);
    qx_free(ctx, w->packed);
}

void qx_dn_packed(qx_ctx *ctx, qx_dn_weights *w, void *packed, const dnnl_memory_desc_t *md)
{
    qx_free(ctx, w->packed);
    w->packed = packed;
    w->md = *md;
    drop_primitives(w);
}

qx_status qx_dn_repack(qx_call *c, qx_dn *l, qx_dn_weights *w, const dnnl_memory_desc_t *from, const void *data,
                       const dnnl_memory_desc_t *to)
{
    void *packed = NULL;
    QX_TRY(qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(to), &packed));
    qx_status st = qx_dn_reorder(c, l, from, data, to, packed);
    if (st != QX_OK) {
        qx_free(c->ctx, packed);
        return st;
    }
    qx_dn_packed(c->ctx, w, packed, to);
    return QX_OK;
}

qx_status qx_dn_typed_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims, dnnl_data_type_t type, const int64_t *strides)
{
    dnnl_dims_t d, s;
    for (int i = 0; i < n; i++) {
        d[i] = dims[i];
        s[i] = strides ? strides[i] : 0;
    }
    if (strides) QX_DN(c, dnnl_memory_desc_init_by_strides(md, n, d, type, s));
    else QX_DN(c, dnnl_memory_desc_init_by_tag(md, n, d, type, dnnl_format_tag_any));
    return QX_OK;
}

qx_status qx_dn_strided_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims, const int64_t *strides)
{
    return qx_dn_typed_md(c, md, n, dims, dnnl_f32, strides);
}

/* The qx_dn may choose the layout. */
qx_status qx_dn_any_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims)
{
    return qx_dn_typed_md(c, md, n, dims, dnnl_f32, NULL);
}

int qx_dn_conv_dims(const qx_conv_shape *s, int64_t *x, int64_t *w, int64_t *y)
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

static qx_status plain_md(qx_call *c, const int64_t dims[4], dnnl_memory_desc_t *md)
{
    int64_t strides[4];
    qx_strides(dims, 4, strides);
    return qx_dn_strided_md(c, md, 4, dims, strides);
}

qx_status qx_dn_blocked_md(qx_call *c, const int64_t dims[4], int block, dnnl_memory_desc_t *md)
{
    dnnl_dims_t d = {dims[0], dims[1], dims[2], dims[3]};
    QX_DN(c, dnnl_memory_desc_init_by_tag(md, 4, d, dnnl_f32, block < 0 ? dnnl_nhwc : block == 16 ? dnnl_nChw16c : dnnl_nChw8c));
    return QX_OK;
}

qx_status qx_dnnl_reblock(qx_call *c, const int64_t dims[4], int from, const float *x, int to, float *y)
{
    dnnl_memory_desc_t a, b;
    qx_dn *l = NULL;
    QX_TRY(qx_dn_get(c, 0, &l));
    QX_TRY(from ? qx_dn_blocked_md(c, dims, from, &a) : plain_md(c, dims, &a));
    QX_TRY(to ? qx_dn_blocked_md(c, dims, to, &b) : plain_md(c, dims, &b));
    qx_thread_apply(c->ctx, dims[0] * dims[1] * dims[2] * dims[3] < SMALL_REORDER ? 1 : 0);
    return qx_dn_reorder(c, l, &a, x, &b, y);
}

#endif
