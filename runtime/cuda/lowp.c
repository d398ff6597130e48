/* lowp.c - adapters of products of codes: MatMulInteger, and the plan's products of INT8 and FP8 activations by INT8 and FP8
 * weights. cuBLASLt multiplies the codes where it takes the problem, a small kernel behind it puts in scales, zero point and
 * bias; FP8 that it does not take (cards before sm_89, K or N that are no multiples of 16) is multiplied as f16, which holds all
 * its numbers; else kernels/cuda/gemm.cu does it. What depends on the constant weight only (its transposition, the sums of its
 * columns, the scales, its f16 form) is made once, when the step is compiled. */
#include <string.h>

#include "runtime/cuda/lib.h"
#include "runtime/fuse/fuse.h"

enum { X = QX_INT8_X, X_SCALE = QX_INT8_X_SCALE, X_ZERO = QX_INT8_X_ZERO, W = QX_INT8_W, W_SCALE = QX_INT8_W_SCALE, BIAS = QX_INT8_BIAS };

qx_status cu_codes_place(const cu_build *b)
{
    if (b->node->n_in < QX_INT8_INPUTS) CU_NO(b, "%u inputs", b->node->n_in);
    b->place->host_in = 1u << X_SCALE | 1u << X_ZERO | 1u << W_SCALE;
    return QX_OK;
}

/* Scales of x and w multiplied, as the CPU does, on the device; one for all columns when the weight has one. */
qx_status cu_codes_scales(cu_build *b, int64_t n, const float **out, bool *one, float *sx)
{
    const qx_dev_tensor *tx = &b->in[X_SCALE], *tw = &b->in[W_SCALE];
    float *host = NULL;
    void *dev;
    if (tx->numel != 1 || (tw->numel != 1 && tw->numel != n) || !cu_real(tx->dtype) || !cu_real(tw->dtype))
        CU_BAD(b, "%lld and %lld scales for %lld channels", (long long)tx->numel, (long long)tw->numel, (long long)n);
    qx_to_f32(tx->dtype, tx->host, 1, sx);
    QX_TRY(qx_alloc_array(b->d->ctx, (size_t)tw->numel, sizeof *host, (void **)&host));
    qx_to_f32(tw->dtype, tw->host, tw->numel, host);
    for (int64_t i = 0; i < tw->numel; i++) host[i] *= *sx;
    qx_status st = cu_step_memory(b, host, (size_t)tw->numel * sizeof *host, &dev);
    qx_free(b->d->ctx, host);
    *out = dev;
    *one = tw->numel == 1;
    return st;
}

/* Those of x are made when the graph runs, one a row: the weight's alone. */
static qx_status weight_scales(cu_build *b, int64_t m, int64_t n, const float **out, bool *one)
{
    const qx_dev_tensor *rows = &b->in[QX_INT8_ROW_SCALE], *tw = &b->in[W_SCALE];
    void *dev;
    if (rows->numel != m || rows->dtype != QX_DT_FLOAT || tw->numel != n || tw->dtype != QX_DT_FLOAT)
        CU_BAD(b, "%lld scales for %lld rows, %lld for %lld columns", (long long)rows->numel, (long long)m, (long long)tw->numel,
               (long long)n);
    QX_TRY(cu_step_memory(b, tw->host, tw->bytes, &dev));
    *out = dev;
    *one = false;
    return QX_OK;
}

int cu_codes_zero(const cu_build *b)
{
    if (!cu_has(b, X_ZERO)) return 0;
    return b->in[X_ZERO].dtype == QX_DT_UINT8 ? *(const uint8_t *)b->in[X_ZERO].host : *(const int8_t *)b->in[X_ZERO].host;
}

/* ---- a product of codes ---- */

/* x is input 0. w, bias, rows, x_zero: input numbers; x_zero: of codes that are known on the device only (INT32 sums are the
 * result then). 0: none. */
typedef struct args {
    qk_int8_args own;          /* without the library: INT8 */
    qk_gemm_args own_fp8;      /* and FP8 */
    qk_scale_args tail;
    cu_product_plan *plan;
    qk_sparse_args sparse;     /* values NULL: dense */
    const void *w;             /* [n, k] made at compile time; NULL: the input is that already */
    const float *sx, *sw;      /* of the library's FP8 product; NULL: no scales */
    size_t acc_bytes, x_bytes; /* in the workspace: sums, and x when it is not multiplied as it is */
    const void *w_zero;        /* of our own product, [own.w_zeros] */
    uint32_t w_in, bias, rows, x_zero;
    /* whole: INT32 sums are the result; flip: unsigned codes become signed ones; widen: FP8 becomes f16; tailed: the library
     * writes sums, the tail the result */
    bool fp8, flip, widen, tailed, whole;
} args;

static qx_status own_run(const cu_run *r, const args *p, const void *bias)
{
    r->step->kernel = "product";
    if (p->fp8) {
        qk_gemm_args g = p->own_fp8;
        g.x = r->in[X].data;
        g.w = r->in[p->w_in].data;
        g.bias = bias;
        g.y = r->out[0].data;
        return cu_launched(r->d->m, qk_gemm(r->q, &g));
    }
    qk_int8_args a = p->own;
    a.x = r->in[X].data;
    a.w = r->in[p->w_in].data;
    a.bias = bias;
    a.rows = p->rows ? r->in[p->rows].data : NULL;
    a.x_zero = p->x_zero ? r->in[p->x_zero].data : NULL;
    a.w_zero = p->w_zero;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_int8_gemm(r->q, &a));
}

/* x as the library multiplies it, at `to` when it has to be made. */
static qx_status staged_x(const cu_run *r, const args *p, void *to, const void **x)
{
    const int64_t n = r->in[X].numel;
    *x = r->in[X].data;
    if (!p->flip && !p->widen) return QX_OK;
    const qk_flip_args f = {*x, to, n, 0x80};
    const qk_cast_args c = {.x = *x, .y = to, .n = n, .from = r->in[X].dtype, .to = QX_DT_FLOAT16};
    *x = to;
    return cu_launched(r->d->m, p->flip ? qk_flip(r->q, &f) : qk_cast(r->q, &c));
}

static qx_status run(const cu_run *r)
{
    const args *p = r->args;
    const void *bias = p->bias ? r->in[p->bias].data : NULL, *x;
    char *staged = (char *)r->ws + p->acc_bytes, *acc = p->whole ? r->out[0].data : r->ws;
    if (!p->plan && !p->sparse.values) return own_run(r, p, bias);
    QX_TRY(staged_x(r, p, staged, &x));
    if (p->sparse.values) {
        qk_sparse_args s = p->sparse;
        s.x = x;
        s.y = acc;
        QX_TRY(cu_launched(r->d->m, qk_sparse_gemm(r->q, &s)));
    } else {
        const cu_product_data d = {.x = x, .w = p->w ? p->w : r->in[p->w_in].data, .bias = p->tailed ? NULL : bias,
                                   .y = p->tailed ? acc : r->out[0].data, .sx = p->sx, .sw = p->sw,
                                   .ws = staged + p->x_bytes};
        bool done;
        QX_TRY(cu_product_run(r->d, p->plan, &d, &done));
        if (!done) return own_run(r, p, bias);
    }
    if (!p->tailed || (p->whole && !p->tail.sums)) return QX_OK;
    qk_scale_args t = p->tail;
    t.acc = acc;
    t.bias = bias;
    t.rows = p->rows ? r->in[p->rows].data : NULL;
    t.x_zero = p->x_zero ? r->in[p->x_zero].data : NULL;
    t.y = r->out[0].data;
    return cu_launched(r->d->m, qk_scale_rows(r->q, &t));
}

static qx_status turn(const cu_build *b, const args *p, int64_t n, int64_t k, void *to)
{
    const qk_turn_args t = {.src = b->in[p->w_in].data, .dst = to, .batch = 1, .rows = k, .cols = n, .size = 1};
    return cu_launched(b->d->m, qk_turn(b->d->q, &t));
}

/* The weight with k innermost. */
static qx_status turned_weight(cu_build *b, args *p, int64_t n, int64_t k, bool nk)
{
    void *dev;
    if (nk) return QX_OK;
    QX_TRY(cu_step_memory(b, NULL, (size_t)(n * k), &dev));
    p->w = dev;
    return turn(b, p, n, k, dev);
}

/* The same of FP8 codes in f16. */
static qx_status widened_weight(cu_build *b, args *p, int64_t n, int64_t k, bool nk)
{
    void *dev, *codes = NULL; /* with k innermost, while it is needed */
    QX_TRY(cu_step_memory(b, NULL, (size_t)(n * k) * sizeof(uint16_t), &dev));
    p->w = dev;
    if (!nk) QX_TRY(cu_alloc(b->d->m, (size_t)(n * k), &codes));
    qx_status st = nk ? QX_OK : turn(b, p, n, k, codes);
    const qk_cast_args c = {.x = nk ? b->in[p->w_in].data : codes, .y = dev, .n = n * k, .from = b->in[p->w_in].dtype, .to = QX_DT_FLOAT16};
    if (st == QX_OK) st = cu_launched(b->d->m, qk_cast(b->d->q, &c));
    cu_release(b->d->m, codes);
    return st;
}

static qx_status column_sums(cu_build *b, args *p, int64_t n, int64_t k)
{
    void *dev;
    QX_TRY(cu_step_memory(b, NULL, (size_t)n * sizeof(int32_t), &dev));
    const qk_sums_args s = {p->w ? p->w : b->in[p->w_in].data, dev, n, k};
    p->tail.sums = dev;
    return cu_launched(b->d->m, qk_row_sums(b->d->q, &s));
}

/* Ways in which the library may multiply FP8 codes, best first: with our scales and bias; plain sums in f32; the codes as f16.
 * The tail stands behind the others. */
typedef enum fp8_way { SCALED, SUMS, WIDENED, FP8_WAYS } fp8_way;

/* False: not a way for this step, since a bias must have the type of the result, and f32 has no place in an epilogue of FP8. */
static bool describe_fp8(const cu_build *b, const args *p, fp8_way way, bool one, cu_product *q)
{
    const int ytype = b->out[0].dtype;
    q->type = way == WIDENED ? QX_DT_FLOAT16 : b->in[X].dtype;
    q->ytype = way == SCALED ? ytype : QX_DT_FLOAT;
    q->has_bias = way == SCALED && p->bias;
    q->scale_mode = way == SCALED && !one ? CU_SCALE_ROWS : CU_SCALE_ONE;
    return !q->has_bias || (ytype != QX_DT_FLOAT && b->in[BIAS].dtype == ytype);
}

/* The library wants scales of both operands. Those of x are in the weight's, so x has ones; where the tail scales, both have. */
static qx_status fp8_scales(cu_build *b, args *p, const cu_product *q)
{
    const int64_t count = q->scale_mode ? q->m : 1;
    float *host = NULL;
    void *dev;
    QX_TRY(qx_alloc_array(b->d->ctx, (size_t)count, sizeof *host, (void **)&host));
    for (int64_t i = 0; i < count; i++) host[i] = 1.0f;
    const qx_status st = cu_step_memory(b, host, (size_t)count * sizeof *host, &dev);
    qx_free(b->d->ctx, host);
    p->sx = dev;
    p->sw = p->tailed ? dev : p->tail.scale;
    return st;
}

/* *taken: the library has an algorithm for the codes, or for FP8 ones widened to f16. */
static qx_status by_library(cu_build *b, args *p, const qk_int8_args *a, bool one, bool *taken, size_t *ws)
{
    cu_product q = {.type = QX_DT_INT8, .ytype = QX_DT_INT32, .m = a->m, .n = a->n, .k = a->k, .batch = 1, .w_nk = true, .alpha = 1};
    p->tailed = true;
    if (!p->fp8) QX_TRY(cu_product_new(b->d, &q, &p->plan, ws, taken));
    for (fp8_way way = SCALED; p->fp8 && way < FP8_WAYS && !*taken; way++) {
        if (!describe_fp8(b, p, way, one, &q)) continue;
        QX_TRY(cu_product_new(b->d, &q, &p->plan, ws, taken));
        p->tailed = way != SCALED;
        p->widen = way == WIDENED;
    }
    if (!*taken) return QX_OK;
    cu_step_plan(b, p->plan, cu_product_free, "cublasLt");
    return p->fp8 && !p->widen ? fp8_scales(b, p, &q) : QX_OK;
}

/* Sparse units when that was asked for, else the library, and everything that their product needs around it; else our own. */
static qx_status with_units(cu_build *b, args *p, const qk_int8_args *a, bool nk, bool one)
{
    bool taken = false;
    size_t ws = 0;
    if (!(b->in[p->w_in].flags & QX_DEV_CONST)) return QX_OK;
    QX_TRY(cu_sparse_weight(b, p->w_in, a->n, a->k, nk, &p->sparse));
    if (p->sparse.values) {
        taken = p->tailed = true;
        p->sparse.m = a->m;
        p->sparse.ytype = p->fp8 ? QX_DT_FLOAT : QX_DT_INT32;
        p->sparse.alpha = 1;
    }
    if (!taken) QX_TRY(by_library(b, p, a, one, &taken, &ws));
    if (!taken) return QX_OK;
    p->flip = !p->fp8 && a->x_unsigned;
    p->tail.zx = a->zx - (p->flip ? 128 : 0);
    const bool sums = !p->fp8 && (p->tail.zx || p->x_zero);
    if (p->plan && p->widen) QX_TRY(widened_weight(b, p, a->n, a->k, nk));
    else if (p->plan || sums) QX_TRY(turned_weight(b, p, a->n, a->k, nk));
    if (sums) QX_TRY(column_sums(b, p, a->n, a->k));
    p->acc_bytes = p->tailed && !p->whole ? cu_round((size_t)(a->m * a->n) * 4) : 0;
    p->x_bytes = p->flip || p->widen ? cu_round((size_t)(a->m * a->k) * (p->widen ? sizeof(uint16_t) : 1)) : 0;
    b->step->workspace = p->acc_bytes + p->x_bytes + ws;
    return QX_OK;
}

static qx_status dims_of(cu_build *b, qk_int8_args *a, bool nk)
{
    const qx_dev_tensor *x = &b->in[X], *w = &b->in[W];
    if (w->rank != 2) CU_BAD(b, "a weight of rank %d", w->rank);
    a->n = w->dims[nk ? 0 : 1];
    a->k = w->dims[nk ? 1 : 0];
    if (x->rank < 1 || x->dims[x->rank - 1] != a->k || a->k < 1)
        CU_BAD(b, "rows of %lld by K = %lld", (long long)(x->rank ? x->dims[x->rank - 1] : 0), (long long)a->k);
    a->m = x->numel / a->k;
    a->batch = 1;
    a->wr = nk ? 1 : a->n;
    a->wc = nk ? a->k : 1;
    a->yr = a->n;
    a->yc = 1;
    a->ytype = b->out[0].dtype;
    return QX_OK;
}

qx_status cu_codes_product(cu_build *b, bool fp8)
{
    args p = {.fp8 = fp8, .w_in = W, .bias = cu_has(b, BIAS) ? BIAS : 0, .rows = cu_has(b, QX_INT8_ROW_SCALE) ? QX_INT8_ROW_SCALE : 0};
    const bool nk = cu_int(b, "nk", 0) != 0;
    qk_int8_args *a = &p.own;
    bool one;
    float sx;
    QX_TRY(dims_of(b, a, nk));
    if (!cu_real(a->ytype) || (p.bias && (!cu_real(b->in[BIAS].dtype) || b->in[BIAS].numel != a->n)))
        CU_NO(b, "a result of %s, a bias of %lld elements", qx_dtype_get(a->ytype)->text, (long long)b->in[BIAS].numel);
    QX_TRY(p.rows ? weight_scales(b, a->m, a->n, &a->sw, &one) : cu_codes_scales(b, a->n, &a->sw, &one, &sx));
    a->sw_one = one;
    a->btype = p.bias ? b->in[BIAS].dtype : 0;
    a->x_unsigned = b->in[X].dtype == QX_DT_UINT8;
    a->zx = fp8 ? 0 : cu_codes_zero(b);
    p.own_fp8 = (qk_gemm_args){.m = a->m, .n = a->n, .k = a->k, .batch = 1, .xr = a->k, .xc = 1, .wr = a->wr, .wc = a->wc, .yr = a->n,
                               .yc = 1, .dtype = b->in[X].dtype,
                               .wtype = b->in[W].dtype, .ytype = a->ytype, .btype = a->btype, .alpha = 1, .col_scale = a->sw,
                                   .col_one = one};
    p.tail = (qk_scale_args){.scale = a->sw, .m = a->m, .n = a->n, .whole = !fp8, .one = one, .ytype = a->ytype, .btype = a->btype};
    QX_TRY(with_units(b, &p, a, nk, one));
    return cu_step(b, run, &p, sizeof p);
}

/* ---- MatMulInteger: the INT32 sums themselves ---- */

enum { INTEGER_W = 1, INTEGER_X_ZERO, INTEGER_W_ZERO };

static bool code8(int dtype) { return dtype == QX_DT_INT8 || dtype == QX_DT_UINT8; }

static qx_status integer_place(const cu_build *b)
{
    for (uint32_t i = 0; i < 2; i++)
        if (b->in[i].dtype && !code8(b->in[i].dtype)) CU_NO(b, "codes of %s", qx_dtype_get(b->in[i].dtype)->text);
    if (cu_has(b, INTEGER_W_ZERO)) b->place->host_in = 1u << INTEGER_W_ZERO;
    return QX_OK;
}

/* One zero point, or one a row (column) of each matrix; *count stays 0 where there is none. */
static qx_status zero_points(const cu_build *b, uint32_t i, int64_t each, int64_t *count)
{
    if (!cu_has(b, i)) return QX_OK;
    *count = b->in[i].numel;
    if (*count != 1 && *count != each) CU_NO(b, "%lld zero points for %lld rows or columns", (long long)*count, (long long)each);
    return QX_OK;
}

/* A weight's zero points on the device; those that are 0 are none. */
static qx_status weight_zeros(cu_build *b, args *p)
{
    const qx_dev_tensor *z = &b->in[INTEGER_W_ZERO];
    const char *codes = z->host;
    bool any = false;
    void *dev;
    for (int64_t i = 0; i < p->own.w_zeros; i++) any = any || codes[i];
    if (!any) return QX_OK;
    QX_TRY(cu_step_memory(b, z->host, z->bytes, &dev));
    p->w_zero = dev;
    return QX_OK;
}

static qx_status integer_compile(cu_build *b)
{
    args p = {.w_in = INTEGER_W, .x_zero = cu_has(b, INTEGER_X_ZERO) ? INTEGER_X_ZERO : 0, .whole = true};
    qk_int8_args *a = &p.own;
    qk_gemm_args g;
    const qx_dev_tensor *x = &b->in[X], *w = &b->in[INTEGER_W];
    if (!code8(x->dtype) || !code8(w->dtype)) CU_NO(b, "codes of %s by %s", qx_dtype_get(x->dtype)->text, qx_dtype_get(w->dtype)->text);
    QX_TRY(cu_product_dims(b, false, false, &g));
    *a = (qk_int8_args){.m = g.m, .n = g.n, .k = g.k, .batch = g.batch, .wr = g.wr, .wc = g.wc, .yr = g.yr, .yc = g.yc, .by = g.by,
                        .brank = g.brank, .x_unsigned = x->dtype == QX_DT_UINT8,
                        .w_unsigned = w->dtype == QX_DT_UINT8};
    memcpy(a->bdims, g.bdims, sizeof a->bdims);
    memcpy(a->bx, g.bx, sizeof a->bx);
    memcpy(a->bw, g.bw, sizeof a->bw);
    QX_TRY(zero_points(b, INTEGER_X_ZERO, x->rank > 1 ? x->dims[x->rank - 2] : 1, &a->x_zeros));
    QX_TRY(zero_points(b, INTEGER_W_ZERO, a->n, &a->w_zeros));
    QX_TRY(weight_zeros(b, &p));
    p.tail = (qk_scale_args){.m = a->m, .n = a->n, .whole = true, .x_unsigned = a->x_unsigned};
    if (a->batch == 1 && w->rank == 2 && !a->w_unsigned && !p.w_zero && a->x_zeros <= 1) QX_TRY(with_units(b, &p, a, false, false));
    return cu_step(b, run, &p, sizeof p);
}
const cu_adapter qx_cuda_matmul_integer = {integer_place, integer_compile};
