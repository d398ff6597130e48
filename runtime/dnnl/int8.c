/* int8.c - products and convolutions of 8-bit codes by oneDNN. */
#include "runtime/dnnl/door.h"

#ifdef QONNX_HAVE_DNNL
#include <string.h>

#include "kernels/igemm.h"
#include "runtime/dnnl/dn.h"

struct qx_dnnl_int8 { qx_dn_weights w; };

void qx_dnnl_int8_free(qx_ctx *ctx, qx_dnnl_int8 *s)
{
    if (!s) return;
    qx_dn_weights_drop(ctx, &s->w);
    qx_free(ctx, s);
}

static double int8_flops(const qx_int8_op *op) { return op->conv ? qx_dn_conv_flops(&op->shape) : qx_dn_mm_flops(1, op->m, op->k, op->n); }

/* Without VNNI the qx_dn's products of bytes saturate in 16 bits: wrong results, no error. */
static bool bytes_are_exact(void)
{
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    return (isa & (unsigned)dnnl_cpu_isa_avx512_core_vnni) == (unsigned)dnnl_cpu_isa_avx512_core_vnni ||
        (isa & (unsigned)dnnl_cpu_isa_avx2_vnni) == (unsigned)dnnl_cpu_isa_avx2_vnni;
}

/* Of a picture that is plain, or has its channels last. */
static void picture_strides(const int64_t *dims, int n, int layout, int64_t *strides)
{
    qx_strides(dims, n, strides);
    if (!layout) return;
    for (int i = 2; i < n; i++) strides[i] *= dims[1];
    strides[1] = 1;
}

static dnnl_data_type_t y_type(const qx_int8_op *op)
{
    return !op->codes ? dnnl_f32 : op->codes->type == QX_DT_UINT8 ? dnnl_u8 : dnnl_s8;
}

/* The caller's layouts of x, w and y. Returns the rank of x; that of w goes to *wn. */
static qx_status int8_plain(qx_call *c, const qx_int8_op *op, dnnl_memory_desc_t *x, dnnl_memory_desc_t *w, dnnl_memory_desc_t *y,
                            dnnl_memory_desc_t *b)
{
    dnnl_data_type_t xt = op->x_type == QX_DT_UINT8 ? dnnl_u8 : dnnl_s8;
    int64_t dx[5], dw[6], dy[5], db[5] = {1, 1, 1, 1, 1}, s[6];
    if (!op->conv) {
        QX_TRY(qx_dn_typed_md(c, x, 2, (int64_t[]){op->m, op->k}, xt, (int64_t[]){op->k, 1}));
        QX_TRY(qx_dn_typed_md(c, w, 2, (int64_t[]){op->k, op->n}, dnnl_s8, (int64_t[]){op->w_row, op->w_col}));
        QX_TRY(qx_dn_typed_md(c, b, 2, (int64_t[]){1, op->n}, dnnl_f32, (int64_t[]){op->n, 1}));
        return qx_dn_typed_md(c, y, 2, (int64_t[]){op->m, op->n}, dnnl_f32, (int64_t[]){op->n, 1});
    }
    int n = qx_dn_conv_dims(&op->shape, dx, dw, dy), wn = n + (op->shape.group > 1);
    picture_strides(dx, n, op->shape.x_block, s);
    QX_TRY(qx_dn_typed_md(c, x, n, dx, xt, s));
    picture_strides(dy, n, op->shape.y_block, s);
    QX_TRY(qx_dn_typed_md(c, y, n, dy, y_type(op), s));
    qx_strides(dw, wn, s);
    QX_TRY(qx_dn_typed_md(c, w, wn, dw, dnnl_s8, s));
    db[1] = op->shape.out_ch;
    qx_strides(db, n, s);
    return qx_dn_typed_md(c, b, n, db, dnnl_f32, s);
}

/* Bias, activation, division by the scale of the codes, and where they have a zero point rounding before that is added (the library
 * rounds behind it, and half to even of a sum is not that of a part). */
static dnnl_status_t add_tail(const qx_int8_op *op, const dnnl_memory_desc_t *bias, const dnnl_memory_desc_t *one, dnnl_post_ops_t po)
{
    const qx_activation *a = op->act;
    const dnnl_alg_kind_t alg = a && a->clip ? dnnl_eltwise_clip : dnnl_eltwise_relu;
    dnnl_status_t d = op->bias ? dnnl_post_ops_append_binary(po, dnnl_binary_add, bias) : dnnl_success;
    if (d == dnnl_success && a) d = dnnl_post_ops_append_eltwise(po, 1.0f, alg, a->p[0], a->p[1]);
    if (d != dnnl_success || !op->codes) return d;
    d = dnnl_post_ops_append_binary(po, dnnl_binary_div, one);
    if (d != dnnl_success || op->codes->zero == 0) return d;
    d = dnnl_post_ops_append_eltwise(po, 1.0f, dnnl_eltwise_round, 0, 0);
    return d == dnnl_success ? dnnl_post_ops_append_binary(po, dnnl_binary_add, one) : d;
}

/* One number, beside a result of rank n. */
static qx_status one_md(qx_call *c, int n, dnnl_memory_desc_t *md)
{
    return qx_dn_strided_md(c, md, n, (int64_t[]){1, 1, 1, 1, 1}, (int64_t[]){1, 1, 1, 1, 1});
}

static qx_status int8_attr(qx_call *c, const qx_int8_op *op, const dnnl_memory_desc_t *b, dnnl_primitive_attr_t *out)
{
    dnnl_memory_desc_t one;
    dnnl_post_ops_t po = NULL;
    QX_TRY(qx_dn_attr(c, QX_ACT_NONE, NULL, NULL, out));
    QX_TRY(one_md(c, b->ndims, &one));
    QX_DN(c, dnnl_post_ops_create(&po));
    dnnl_status_t d = add_tail(op, b, &one, po);
    if (d == dnnl_success) d = dnnl_primitive_attr_set_post_ops(*out, po);
    dnnl_post_ops_destroy(po);
    QX_DN(c, d);
    QX_DN(c, dnnl_primitive_attr_set_output_scales(*out, op->n_scales, op->n_scales > 1 ? 1 << 1 : 0, op->scale));
    if (op->zero) QX_DN(c, dnnl_primitive_attr_set_zero_points(*out, DNNL_ARG_SRC, 1, 0, &op->zero));
    return QX_OK;
}

static qx_status int8_desc(qx_call *c, qx_dn *l, const qx_int8_op *op, const dnnl_memory_desc_t *x, const dnnl_memory_desc_t *w,
                           const dnnl_memory_desc_t *y, const_dnnl_primitive_attr_t attr, qx_dn_prim *p)
{
    dnnl_matmul_desc_t md;
    dnnl_convolution_desc_t cd;
    dnnl_memory_desc_t ax, ay;
    dnnl_dims_t strides, dilates, begin, end;
    if (!op->conv) {
        QX_DN(c, dnnl_matmul_desc_init(&md, x, w, NULL, y));
        return qx_dn_prim_make(c, l, &md, attr, qx_dn_exact, p);
    }
    QX_TRY(qx_dn_typed_md(c, &ax, x->ndims, x->dims, x->data_type, NULL));
    QX_TRY(qx_dn_typed_md(c, &ay, y->ndims, y->dims, y->data_type, NULL));
    for (int i = 0; i < op->shape.spatial; i++) {
        strides[i] = op->shape.stride[i];
        dilates[i] = op->shape.dilation[i] - 1;
        begin[i] = op->shape.begin[i];
        end[i] = op->shape.end[i];
    }
    QX_DN(c, dnnl_dilated_convolution_forward_desc_init(&cd, dnnl_forward_inference, dnnl_convolution_direct, &ax, w, NULL, &ay, strides,
                                                        dilates, begin, end));
    return qx_dn_prim_make(c, l, &cd, attr, qx_dn_exact, p);
}

/* any: the qx_dn chooses the layout of the weights; else the layout they are packed in. */
static qx_status int8_prim(qx_call *c, qx_dn *l, const qx_dnnl_int8 *s, const qx_int8_op *op, bool any, qx_dn_prim *p)
{
    dnnl_memory_desc_t x, w, y, wd;
    dnnl_primitive_attr_t attr = NULL;
    QX_TRY(int8_plain(c, op, &x, &w, &y, &p->bias));
    if (any) QX_TRY(qx_dn_typed_md(c, &wd, w.ndims, w.dims, dnnl_s8, NULL));
    else wd = s->w.md;
    qx_status st = int8_attr(c, op, &p->bias, &attr);
    if (st == QX_OK) st = int8_desc(c, l, op, &x, &wd, &y, attr, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    qx_dn_prim_have(p, &x, &y);
    return st;
}

/* ---- Weights of products: the library's reordering rounds every code on its own, 4 ns each; ours moves them ---- */

/* A matrix [k, n] in blocks of 4 * quads rows by `width` columns, four rows beside each other; bytes from block to block. */
typedef struct blocks { int64_t quads, width, next_k, next_n; } blocks;

static bool blocks_of(const dnnl_memory_desc_t *md, blocks *out)
{
    const dnnl_blocking_desc_t *b = &md->format_desc.blocking;
    if (md->format_kind != dnnl_blocked || md->ndims != 2 || md->offset0 != 0 || b->inner_nblks != 3) return false;
    *out = (blocks){b->inner_blks[0], b->inner_blks[1], b->strides[0], b->strides[1]};
    return b->inner_idxs[0] == 0 && b->inner_idxs[1] == 1 && b->inner_idxs[2] == 0 && b->inner_blks[2] == 4;
}

/* Behind the blocks lies what the library adds for signed codes of x, then for their zero point: a column's sum times these. */
typedef struct sums_behind { uint64_t flag; int32_t factor; } sums_behind;
static const sums_behind behind[] = {{dnnl_memory_extra_flag_compensation_conv_s8s8, -128},
                                     {dnnl_memory_extra_flag_compensation_conv_asymmetric_src, -1}};
enum { BEHIND = sizeof behind / sizeof *behind };

/* Whether blocks and these sums are all that there is. */
static bool is_known(const dnnl_memory_desc_t *md, const blocks *b)
{
    const dnnl_memory_extra_desc_t *e = &md->extra;
    size_t bytes = (size_t)(md->padded_dims[0] * md->padded_dims[1]);
    uint64_t left = e->flags;
    if (md->padded_dims[0] % (4 * b->quads) || md->padded_dims[1] % b->width || b->width > QX_IGEMM_WIDEST) return false;
    for (int i = 0; i < BEHIND; i++)
        if (left & behind[i].flag) left &= ~behind[i].flag, bytes += (size_t)md->padded_dims[1] * sizeof(int32_t);
    return left == 0 && (!(e->flags & behind[0].flag) || e->compensation_mask == 1 << 1) &&
        (!(e->flags & behind[1].flag) || e->asymm_compensation_mask == 1 << 1) && dnnl_memory_desc_get_size(md) >= bytes;
}

typedef struct pack_job { const qx_int8_op *op; const dnnl_memory_desc_t *md; blocks b; int8_t *to; } pack_job;

static qx_status pack_columns(void *user, int64_t i)
{
    const pack_job *j = user;
    const qx_int8_op *op = j->op;
    const int64_t first = i * j->b.width, high = 4 * j->b.quads, cols = op->n - first < j->b.width ? op->n - first : j->b.width;
    int32_t sums[QX_IGEMM_WIDEST] = {0}, some[QX_IGEMM_WIDEST];
    for (int64_t k = 0; k < j->md->padded_dims[0]; k += high) {
        const int64_t rows = op->k - k < high ? op->k - k : high;
        const qx_igemm_part part = {op->w + k * op->w_row + first * op->w_col, true, rows, cols, op->w_row, op->w_col};
        int8_t *to = j->to + i * j->b.next_n + k / high * j->b.next_k;
        qx_igemm_pack(&part, j->b.width, j->b.quads, to);
        qx_igemm_panel_sums(to, j->b.quads, j->b.width, some);
        for (int64_t q = 0; q < j->b.width; q++) sums[q] += some[q];
    }
    int32_t *out = (int32_t *)(void *)(j->to + j->md->padded_dims[0] * j->md->padded_dims[1]) + first;
    for (int t = 0; t < BEHIND; t++) {
        if (!(j->md->extra.flags & behind[t].flag)) continue;
        for (int64_t q = 0; q < j->b.width; q++) out[q] = behind[t].factor * sums[q];
        out += j->md->padded_dims[1];
    }
    return QX_OK;
}

static qx_status int8_pack(qx_call *c, qx_dn *l, qx_dnnl_int8 *s, const qx_int8_op *op, const dnnl_memory_desc_t *to)
{
    dnnl_memory_desc_t x, w, y, b;
    pack_job j = {.op = op, .md = to};
    if (op->conv || !blocks_of(to, &j.b) || !is_known(to, &j.b)) {
        QX_TRY(int8_plain(c, op, &x, &w, &y, &b));
        return qx_dn_repack(c, l, &s->w, &w, op->w, to);
    }
    QX_TRY(qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(to), (void **)&j.to));
    qx_status st = qx_parallel(c->ctx, to->padded_dims[1] / j.b.width, pack_columns, &j);
    if (st == QX_OK) qx_dn_packed(c->ctx, &s->w, j.to, to);
    else qx_free(c->ctx, j.to);
    return st;
}

/* The primitive of these dims; packs the weights when there is no packing yet or it does not serve. */
static qx_status int8_find(qx_call *c, qx_dn *l, qx_dnnl_int8 *s, const qx_int8_op *op, qx_dn_prim **out, bool *need_w)
{
    int64_t key[10] = {op->conv, op->m, op->k, op->n, op->x_type, op->bias != NULL, op->shape.batch, op->shape.in[0], op->shape.in[1],
                       op->shape.in[2] * 4 + (op->act != NULL) * 2 + (op->codes != NULL)};
    bool found;
    qx_dn_prim *p = qx_dn_prim_slot(s->w.cache, key, &s->w.clock, &found);
    *out = p;
    if (found) return QX_OK;
    if (s->w.packed) QX_TRY(int8_prim(c, l, s, op, false, p));
    if (p->p) return QX_OK;
    qx_dn_prim fresh = {.p = NULL};
    QX_TRY(int8_prim(c, l, s, op, true, &fresh));
    if (!fresh.p) return QX_OK;
    if (!op->w) {
        qx_dn_prim_drop(&fresh);
        *need_w = true;
        return QX_OK;
    }
    qx_status st = int8_pack(c, l, s, op, &fresh.wei);
    memcpy(fresh.key, key, sizeof key);
    fresh.used = ++s->w.clock;
    *p = fresh;
    return st;
}

static qx_int8_panels panels_of(const qx_dn_weights *w)
{
    blocks b;
    if (!w->packed || !blocks_of(&w->md, &b) || b.next_k != b.quads * b.width * 4) return (qx_int8_panels){.data = NULL};
    return (qx_int8_panels){w->packed, b.width, b.next_n};
}

qx_status qx_dnnl_int8_panels(qx_call *c, qx_dnnl_int8 **state, const qx_int8_op *op, qx_int8_panels *out)
{
    qx_dn *l = NULL;
    qx_dn_prim *p;
    bool need_w = false;
    out->data = NULL;
    if (op->conv || !bytes_are_exact()) return QX_OK;
    if (!*state) QX_TRY(QX_NEW(c->ctx, state));
    if (!(*state)->w.packed) {
        QX_TRY(qx_dn_get(c, int8_flops(op), &l));
        QX_TRY(int8_find(c, l, *state, op, &p, &need_w));
    }
    *out = panels_of(&(*state)->w);
    return QX_OK;
}

/* oneDNN 2.6 with AVX-512 makes wrong sums of windows of 1,792 channels and more (1,536 are right): not even its own twice. */
static bool is_too_deep(const qx_int8_op *op) { return op->conv && op->shape.in_ch / op->shape.group > 1536; }

/* What the primitive reads besides x and w, in the order of int8_attr. */
static qx_status more_data(qx_call *c, const qx_int8_op *op, const qx_dn_prim *p, dnnl_memory_desc_t *one, qx_dn_data *d)
{
    int at = 0;
    QX_TRY(one_md(c, p->bias.ndims, one));
    if (op->bias) d->more[d->n++] = (qx_dn_more){DNNL_ARG_ATTR_MULTIPLE_POST_OP(at++) | DNNL_ARG_SRC_1, &p->bias, op->bias};
    if (op->act) at++;
    if (!op->codes) return QX_OK;
    const qx_int8_codes *y = op->codes;
    d->more[d->n++] = (qx_dn_more){DNNL_ARG_ATTR_MULTIPLE_POST_OP(at) | DNNL_ARG_SRC_1, one, &y->scale};
    if (y->zero != 0) d->more[d->n++] = (qx_dn_more){DNNL_ARG_ATTR_MULTIPLE_POST_OP(at + 2) | DNNL_ARG_SRC_1, one, &y->zero};
    return QX_OK;
}

qx_status qx_dnnl_int8_run(qx_call *c, qx_dnnl_int8 **state, const qx_int8_op *op, bool *done, bool *need_w)
{
    qx_dn *l = NULL;
    qx_dn_prim *p = NULL;
    *done = *need_w = false;
    if (!bytes_are_exact() || is_too_deep(op)) return QX_OK;
    QX_TRY(qx_dn_get(c, int8_flops(op), &l));
    if (!*state) QX_TRY(QX_NEW(c->ctx, state));
    QX_TRY(int8_find(c, l, *state, op, &p, need_w));
    if (!p->p) return QX_OK;
    dnnl_memory_desc_t one;
    qx_dn_data d = {.x = op->x, .w = (*state)->w.packed, .y = op->codes ? op->codes->data : op->y};
    QX_TRY(more_data(c, op, p, &one, &d));
    QX_TRY(qx_dn_prim_run(c, l, p, &d, int8_flops(op)));
    *done = true;
    return QX_OK;
}

#endif
