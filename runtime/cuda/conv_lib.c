/* conv_lib.c - a convolution by the library, and what stands around it: pictures with the channels innermost (which its matrix
 * units want) turned in and out, the constant weight once; for INT8 unsigned codes made signed, a border of the zero point, and
 * what the zero point adds to the sums taken off the bias. INT8 that the library does not scale itself gives INT32 sums, with
 * scales, zero point and bias behind them. E4M3 that the library has no engine for is widened to f16, which holds all its
 * numbers, and scaled behind f32 sums. f32 stays as it is. */
#include <string.h>

#include "runtime/cuda/lib.h"

typedef struct lib_args {
    const cu_engine *plan;
    qk_turn_args in, out;
    qk_scale_args tail;      /* INT8, widened E4M3; scale NULL: none */
    qk_cast_args widen;      /* n 0: not */
    const void *w;
    const float *scale, *shift; /* of the library's graph; shift: what INT8 has for a bias */
    uint32_t x, bias;        /* input numbers; bias 0: none */
    size_t x_bytes, y_bytes, sums_bytes, wide_bytes;
    int64_t border;          /* elements to fill with fill[0] before the picture is put inside; 0: no border */
    uint64_t fill;
    bool last;
} lib_args;

static qx_status turned_in(const cu_run *r, const lib_args *p, void *to, void *wide)
{
    qk_turn_args t = p->in;
    t.src = r->in[p->x].data;
    if (p->widen.n) {
        qk_cast_args c = p->widen;
        c.x = t.src;
        c.y = wide;
        t.src = wide;
        QX_TRY(cu_launched(r->d->m, qk_cast(r->q, &c)));
    }
    t.dst = to;
    if (p->border) {
        const qk_fill_args f = {to, p->border, p->fill, p->in.size};
        QX_TRY(cu_launched(r->d->m, qk_fill(r->q, &f)));
    }
    return cu_launched(r->d->m, qk_turn(r->q, &t));
}

static qx_status lib_conv_run(const cu_run *r)
{
    const lib_args *p = r->args;
    char *x = r->ws, *y = x + p->x_bytes, *sums = y + p->y_bytes, *wide = sums + p->sums_bytes;
    const void *bias = p->bias ? r->in[p->bias].data : NULL;
    cu_conv_data a = {.x = x, .w = p->w, .bias = p->shift ? p->shift : bias, .scale = p->scale, .y = p->tail.scale ? sums : y,
                      .ws = wide + p->wide_bytes};
    if (!p->last) {
        a.x = r->in[p->x].data;
        a.w = r->in[1].data;
        a.y = r->out[0].data;
        return cu_conv_run(r->d, p->plan, &a);
    }
    if (p->tail.scale) a.bias = NULL;
    QX_TRY(turned_in(r, p, x, wide));
    QX_TRY(cu_conv_run(r->d, p->plan, &a));
    if (p->tail.scale) {
        qk_scale_args s = p->tail;
        s.acc = sums;
        s.bias = bias;
        s.y = y;
        QX_TRY(cu_launched(r->d->m, qk_scale_rows(r->q, &s)));
    }
    qk_turn_args t = p->out;
    t.src = y;
    t.dst = r->out[0].data;
    return cu_launched(r->d->m, qk_turn(r->q, &t));
}

/* A result of INT8 codes has a constant part. */
static bool has_shift(const cu_lib_conv *q) { return q->zero || q->bias; }

/* Zero padding would be a code of its own where zero is not the code 0: the border is put into the picture. */
static void border(cu_conv *c, lib_args *p, int64_t zero)
{
    const int64_t wide = c->in[1] + c->begin[1] + c->end[1], high = c->in[0] + c->begin[0] + c->end[0];
    if (zero == 0 || (wide == c->in[1] && high == c->in[0])) return;
    p->in.width = c->in[1];
    p->in.step = wide;
    p->in.first = c->begin[0] * wide + c->begin[1];
    p->in.out_cols = high * wide;
    p->border = c->batch * c->in_ch * high * wide;
    p->fill = (uint8_t)zero;
    c->in[0] = high;
    c->in[1] = wide;
    memset(c->begin, 0, sizeof c->begin);
    memset(c->end, 0, sizeof c->end);
}

static qx_status weight_last(cu_build *b, const cu_conv *c, uint32_t input, lib_args *p)
{
    const qx_dev_tensor *w = &b->in[input];
    const size_t bytes = (size_t)w->numel * (size_t)p->in.size;
    void *dev, *wide = NULL;
    QX_TRY(cu_step_memory(b, NULL, bytes, &dev));
    p->w = dev;
    qk_turn_args t = {.src = w->data, .dst = dev, .batch = c->out_ch, .rows = c->in_ch / c->group, .cols = cu_prod(c->kernel, 0, 3),
                      .size = p->in.size};
    if (!p->widen.n) return cu_launched(b->d->m, qk_turn(b->d->q, &t));
    QX_TRY(cu_alloc(b->d->m, bytes, &wide));
    const qk_cast_args cast = {.x = w->data, .y = wide, .n = w->numel, .from = w->dtype, .to = QX_DT_FLOAT16};
    t.src = wide;
    qx_status st = cu_launched(b->d->m, qk_cast(b->d->q, &cast));
    if (st == QX_OK) st = cu_launched(b->d->m, qk_turn(b->d->q, &t));
    cu_release(b->d->m, wide);
    return st;
}

/* Scales, zero point and bias behind m rows of the library's plain sums; sums: memory for those of the weight, [out_ch]. */
static qx_status set_tail(cu_build *b, const cu_lib_conv *q, int64_t m, int32_t *sums, qk_scale_args *tail)
{
    const cu_conv *c = &q->c;
    *tail = (qk_scale_args){.scale = q->scale, .m = m, .n = c->out_ch, .whole = c->type == QX_DT_INT8, .one = q->one, .zx = q->zero,
                            .ytype = b->out[0].dtype, .btype = q->bias ? b->in[q->bias].dtype : 0};
    if (!q->zero) return QX_OK;
    tail->sums = sums;
    const qk_sums_args s = {b->in[q->w].data, sums, c->out_ch, c->in_ch / c->group * cu_prod(c->kernel, 0, 3)};
    return cu_launched(b->d->m, qk_row_sums(b->d->q, &s));
}

/* The library's scale is by channel. */
static qx_status scale_by_channel(cu_build *b, const cu_lib_conv *q, lib_args *p)
{
    float *all = NULL, one;
    void *dev;
    p->scale = q->scale;
    if (!q->one) return QX_OK;
    QX_TRY(cu_download(b->d->m, &one, q->scale, sizeof one));
    QX_TRY(QX_NEW_ARRAY(b->d->ctx, (size_t)q->c.out_ch, &all));
    for (int64_t i = 0; i < q->c.out_ch; i++) all[i] = one;
    const qx_status st = cu_step_memory(b, all, (size_t)q->c.out_ch * sizeof *all, &dev);
    qx_free(b->d->ctx, all);
    p->scale = dev;
    return st;
}

/* The constant part of INT8 results: what the tail makes of sums that are 0. */
static qx_status shift_of(cu_build *b, const cu_lib_conv *q, lib_args *p)
{
    const size_t each = cu_round((size_t)q->c.out_ch * 4); /* the result, the weight's sums, and zeros */
    void *block;
    qk_scale_args t;
    if (!has_shift(q)) return QX_OK;
    QX_TRY(cu_step_memory(b, NULL, 3 * each, &block));
    QX_TRY(cu_zero(b->d->m, block, 3 * each));
    QX_TRY(set_tail(b, q, 1, (int32_t *)(void *)((char *)block + each), &t));
    t.acc = (char *)block + 2 * each;
    t.bias = q->bias ? b->in[q->bias].data : NULL;
    t.y = block;
    t.ytype = QX_DT_FLOAT;
    p->shift = block;
    return cu_launched(b->d->m, qk_scale_rows(b->d->q, &t));
}

/* Everything that depends on the constant inputs, once. */
static qx_status prepare(cu_build *b, const cu_lib_conv *q, lib_args *p, bool tail)
{
    void *sums = NULL;
    if (!p->last) return QX_OK;
    QX_TRY(weight_last(b, &q->c, q->w, p));
    if (tail && q->zero) QX_TRY(cu_step_memory(b, NULL, (size_t)q->c.out_ch * sizeof(int32_t), &sums));
    if (tail) return set_tail(b, q, q->c.batch * cu_prod(q->c.out, 0, 3), sums, &p->tail);
    if (q->scale) QX_TRY(scale_by_channel(b, q, p));
    return q->c.type == QX_DT_INT8 ? shift_of(b, q, p) : QX_OK;
}

/* INT8, or E4M3 in f16: plain sums, and a border where zero is another code. */
static qx_status ask_sums(cu_build *b, const cu_lib_conv *q, cu_conv *asked, lib_args *p, cu_engine **plan, size_t *ws, bool *taken)
{
    const bool int8 = q->c.type == QX_DT_INT8;
    *asked = q->c;
    asked->last = true;
    asked->ytype = int8 ? QX_DT_INT32 : QX_DT_FLOAT;
    if (int8) {
        border(asked, p, q->zero);
    } else {
        asked->type = QX_DT_FLOAT16;
        p->in.size = 2;
        p->widen = (qk_cast_args){.n = b->in[q->x].numel, .from = q->c.type, .to = QX_DT_FLOAT16};
    }
    return cu_conv_new(b->d, asked, plan, ws, taken);
}

/* With everything in the library's graph. */
static qx_status ask_whole(cu_build *b, const cu_lib_conv *q, cu_conv *asked, lib_args *p, cu_engine **plan, size_t *ws, bool *taken)
{
    const bool int8 = q->c.type == QX_DT_INT8;
    *asked = q->c;
    asked->last = p->last;
    asked->has_scale = q->scale != NULL;
    asked->has_bias = int8 ? has_shift(q) : q->bias != 0;
    if (q->bias && (int8 ? !(b->in[q->bias].flags & QX_DEV_CONST) : b->in[q->bias].dtype != q->c.ytype)) return QX_OK;
    if (int8) border(asked, p, q->zero);
    return cu_conv_new(b->d, asked, plan, ws, taken);
}

qx_status cu_conv_by_library(cu_build *b, cu_lib_conv *q, bool *taken)
{
    const cu_conv *c = &q->c;
    const bool codes = q->scale != NULL;
    const int64_t pixels = cu_prod(c->out, 0, 3);
    lib_args p = {.x = q->x, .bias = q->bias, .last = c->type != QX_DT_FLOAT};
    cu_conv asked;
    cu_engine *plan = NULL;
    size_t ws = 0;
    *taken = false;
    if ((p.last && !(b->in[q->w].flags & QX_DEV_CONST)) || (codes && (c->spatial != 2 || c->group != 1))) return QX_OK;
    p.in = (qk_turn_args){.batch = c->batch, .rows = c->in_ch, .cols = cu_prod(c->in, 0, 3), .size = cu_bytes(c->type),
                          .flip = q->flip ? 0x80 : 0};
    p.out = (qk_turn_args){.batch = c->batch, .rows = pixels, .cols = c->out_ch, .size = cu_bytes(b->out[0].dtype)};
    QX_TRY(ask_whole(b, q, &asked, &p, &plan, &ws, taken));
    const bool sums = !*taken && codes;
    if (sums) QX_TRY(ask_sums(b, q, &asked, &p, &plan, &ws, taken));
    if (!*taken) return QX_OK;
    cu_step_plan(b, plan, cu_engine_free, "cuDNN");
    p.plan = plan;
    QX_TRY(prepare(b, q, &p, sums));
    if (p.last) {
        p.x_bytes = cu_round((size_t)(asked.batch * asked.in_ch * cu_prod(asked.in, 0, 3) * p.in.size));
        p.y_bytes = cu_round((size_t)(c->batch * c->out_ch * pixels * p.out.size));
        p.sums_bytes = sums ? cu_round((size_t)(c->batch * c->out_ch * pixels) * 4) : 0;
        p.wide_bytes = cu_round((size_t)p.widen.n * 2);
    }
    b->step->workspace = p.x_bytes + p.y_bytes + p.sums_bytes + p.wide_bytes + ws;
    return cu_step(b, lib_conv_run, &p, sizeof p);
}
