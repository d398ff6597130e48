/* matmul.c - adapters of products: MatMul, Gemm, FusedMatMul, the plan's product with bias and activation, integer codes, weights
 * of few bits. The library does what it has an engine for, kernels/cuda/gemm.cu the rest. */
#include <string.h>

#include "runtime/cpu/matmul/gemm.h"
#include "runtime/cuda/lib.h"
#include "runtime/fuse/fuse.h"

static qx_status two_real_place(const cu_build *b)
{
    QX_TRY(cu_want_real(b, 0));
    return cu_want_real(b, 1);
}

/* ---- a product with what comes behind it ---- */

typedef struct product_args {
    qk_gemm_args g;
    qk_bias_rows_args tail;
    qk_sparse_args sparse;       /* values NULL: dense */
    int bias, add, mul, plus;    /* input numbers, 0: none */
    bool has_tail, added;        /* added: the library adds `plus` */
    cu_product_plan *plan;       /* NULL: our own */
} product_args;

/* By the library, or by our own kernel: *whole, since that does what stands behind a product too. */
static qx_status product(const cu_run *r, cu_product_plan *plan, const cu_product_data *a, const qk_gemm_args *g, bool *whole)
{
    bool done = false;
    if (plan) QX_TRY(cu_product_run(r->d, plan, a, &done));
    *whole = !done;
    if (done) return QX_OK;
    r->step->kernel = "product";
    return cu_launched(r->d->m, qk_gemm(r->q, g));
}

static qx_status product_run(const cu_run *r)
{
    const product_args *p = r->args;
    qk_gemm_args g = p->g;
    g.x = r->in[0].data;
    g.w = r->in[1].data;
    g.y = r->out[0].data;
    g.bias = p->bias ? r->in[p->bias].data : NULL;
    g.add = p->add ? r->in[p->add].data : NULL;
    g.mul = p->mul ? r->in[p->mul].data : NULL;
    g.plus = p->plus ? r->in[p->plus].data : NULL;
    if (p->sparse.values) {
        qk_sparse_args s = p->sparse;
        s.x = g.x;
        s.bias = g.bias;
        s.y = g.y;
        QX_TRY(cu_launched(r->d->m, qk_sparse_gemm(r->q, &s)));
    } else {
        const cu_product_data a = {.x = g.x, .w = g.w, .bias = g.bias, .add = p->added ? g.plus : NULL, .y = g.y, .ws = r->ws};
        bool whole;
        QX_TRY(product(r, p->plan, &a, &g, &whole));
        if (whole) return QX_OK;
    }
    if (!p->has_tail) return QX_OK;
    qk_bias_rows_args tail = p->tail;
    tail.x = tail.y = g.y;
    tail.mul = g.mul;
    tail.plus = p->added ? NULL : g.plus;
    return cu_launched(r->d->m, qk_bias_act(r->q, &tail));
}

static bool plain_operands(const product_args *p)
{
    const qk_gemm_args *g = &p->g;
    const bool xn = g->xc == 1, wn = g->wc == 1;
    if (g->dtype != g->wtype || g->dtype != g->ytype || g->brank > 1 || p->add || g->yc != 1 || g->yr != g->n || g->k < 1) return false;
    if ((p->bias && g->btype != g->ytype) || (!xn && g->xr != 1) || (!wn && g->wr != 1)) return false;
    return (xn ? g->xr == g->k || g->m == 1 : g->xc == g->m) && (wn ? g->wr == g->n || g->k == 1 : g->wc == g->k);
}

static qx_status by_library(cu_build *b, product_args *p)
{
    const qk_gemm_args *g = &p->g;
    const cu_product q = {.type = g->dtype, .ytype = g->ytype, .m = g->m, .n = g->n, .k = g->k, .batch = g->batch,
                          .bx = g->brank ? g->bx[0] : 0, .bw = g->brank ? g->bw[0] : 0,
                          .by = g->by, .w_nk = g->wc != 1, .x_km = g->xc != 1, .has_bias = p->bias != 0,
                              .has_add = p->plus && !p->mul && g->act == QX_ACT_NONE, .alpha = g->alpha};
    cu_product_plan *plan = NULL;
    bool taken = false;
    QX_TRY(cu_product_new(b->d, &q, &plan, &b->step->workspace, &taken));
    if (taken) cu_step_plan(b, plan, cu_product_free, "cublasLt");
    p->plan = plan;
    p->added = taken && q.has_add;
    return QX_OK;
}

/* Sparse units when that was asked for, else the library, else our own. g is complete but for pointers; one batch axis at most
 * fits the library. */
static qx_status product_step(cu_build *b, product_args *p)
{
    const qk_gemm_args *g = &p->g;
    if (plain_operands(p)) {
        if (g->batch == 1 && g->xc == 1) QX_TRY(cu_sparse_weight(b, 1, g->n, g->k, g->wc != 1, &p->sparse));
        if (!p->sparse.values) QX_TRY(by_library(b, p));
        p->sparse.m = g->m;
        p->sparse.ytype = g->ytype;
        p->sparse.alpha = g->alpha;
        p->has_tail = g->act != QX_ACT_NONE || p->mul || (p->plus && !p->added);
        p->tail = (qk_bias_rows_args){.rows = g->batch * g->m, .n = g->n, .dtype = g->ytype, .act = g->act};
    }
    return cu_step(b, product_run, p, sizeof *p);
}

/* Batch axes of [.., m, k] x [.., k, n] broadcast against each other; a weight without batch takes all rows at once. */
static qx_status batches(const cu_build *b, qk_gemm_args *g, const qx_dev_tensor *x, const qx_dev_tensor *w)
{
    int xr = x->rank > 1 ? x->rank - 2 : 0, wr = w->rank > 1 ? w->rank - 2 : 0, rank = xr > wr ? xr : wr;
    int64_t dims[QK_RANK], s[2][QK_RANK] = {{0}}, sx = g->m * g->k, sw = g->k * g->n;
    for (int i = rank - 1; i >= 0; i--) {
        int ix = i - (rank - xr), iw = i - (rank - wr);
        int64_t dx = ix < 0 ? 1 : x->dims[ix], dw = iw < 0 ? 1 : w->dims[iw];
        if (dx != dw && dx != 1 && dw != 1) CU_BAD(b, "batch axis of %lld and %lld", (long long)dx, (long long)dw);
        dims[i] = dx == 1 ? dw : dx;
        s[0][i] = dx == 1 ? 0 : sx;
        s[1][i] = dw == 1 ? 0 : sw;
        sx *= dx;
        sw *= dw;
    }
    rank = cu_collapse(rank, dims, 2, s);
    if (rank > 4) CU_NO(b, "%d batch axes", rank);
    g->batch = cu_prod(dims, 0, rank);
    if (rank == 1 && s[1][0] == 0 && g->xc == 1) { /* one weight for all rows */
        g->m *= g->batch;
        g->batch = 1;
        return QX_OK;
    }
    g->brank = g->batch > 1 ? rank : 0;
    for (int i = 0; i < rank; i++) {
        g->bdims[i] = dims[i];
        g->bx[i] = s[0][i];
        g->bw[i] = s[1][i];
    }
    return QX_OK;
}

qx_status cu_product_dims(const cu_build *b, bool ta, bool tb, qk_gemm_args *g)
{
    const qx_dev_tensor *x = &b->in[0], *w = &b->in[1];
    if (x->rank < 1 || w->rank < 1 || ((ta || tb) && (x->rank < 2 || w->rank < 2)))
        CU_BAD(b, "operands of rank %d and %d", x->rank, w->rank);
    int64_t x0 = x->rank > 1 ? x->dims[x->rank - 2] : 1, x1 = x->dims[x->rank - 1], w0 = w->rank > 1 ? w->dims[w->rank - 2] : w->dims[0],
        w1 = w->rank > 1 ? w->dims[w->rank - 1] : 1;
    *g = (qk_gemm_args){.m = ta ? x1 : x0, .k = ta ? x0 : x1, .n = tb ? w0 : w1, .dtype = x->dtype, .wtype = w->dtype,
                        .ytype = b->out[0].dtype, .alpha = 1, .beta = 1, .batch = 1, .yc = 1};
    if (g->k != (tb ? w1 : w0)) CU_BAD(b, "inner dims %lld and %lld", (long long)g->k, (long long)(tb ? w1 : w0));
    g->xr = ta ? 1 : g->k;
    g->xc = ta ? g->m : 1;
    g->wr = tb ? 1 : g->n;
    g->wc = tb ? g->k : 1;
    QX_TRY(batches(b, g, x, w));
    g->yr = g->n;
    g->by = g->m * g->n;
    return QX_OK;
}

static qx_status matmul_args(const cu_build *b, bool ta, bool tb, qk_gemm_args *g)
{
    const int x = b->in[0].dtype, w = b->in[1].dtype;
    if (!cu_real(x) || x != w) CU_NO(b, "a product of %s and %s", qx_dtype_get(x)->text, qx_dtype_get(w)->text);
    return cu_product_dims(b, ta, tb, g);
}

static qx_status matmul_compile(cu_build *b)
{
    bool fused = b->op == QX_OP_ms_FusedMatMul;
    product_args p = {.bias = 0};
    if (fused && (cu_int(b, "transBatchA", 0) || cu_int(b, "transBatchB", 0))) CU_NO(b, "batches that are transposed");
    QX_TRY(matmul_args(b, fused && cu_int(b, "transA", 0), fused && cu_int(b, "transB", 0), &p.g));
    if (fused) p.g.alpha = cu_float(b, "alpha", 1.0f);
    return product_step(b, &p);
}
const cu_adapter qx_cuda_matmul = {two_real_place, matmul_compile};

static qx_status gemm_compile(cu_build *b)
{
    product_args p = {.bias = 0};
    const qx_dev_tensor *c = &b->in[2];
    if (b->in[0].rank != 2 || b->in[1].rank != 2) CU_BAD(b, "operands of rank %d and %d", b->in[0].rank, b->in[1].rank);
    QX_TRY(matmul_args(b, cu_int(b, "transA", 0), cu_int(b, "transB", 0), &p.g));
    p.g.alpha = cu_float(b, "alpha", 1.0f);
    p.g.beta = cu_float(b, "beta", 1.0f);
    if (!cu_has(b, 2)) return product_step(b, &p);
    int64_t s[QK_RANK] = {0};
    if (!cu_real(c->dtype)) CU_NO(b, "C of %s", qx_dtype_get(c->dtype)->text);
    QX_TRY(cu_broadcast(b, c, &b->out[0], s));
    p.g.btype = c->dtype;
    if (s[0] == 0 && s[1] == 1 && !(p.g.beta < 1) && !(p.g.beta > 1)) {
        p.bias = 2;
    } else {
        p.add = 2;
        p.g.add_r = s[0];
        p.g.add_c = s[1];
    }
    return product_step(b, &p);
}
const cu_adapter qx_cuda_gemm = {two_real_place, gemm_compile};

static qx_status linear_compile(cu_build *b)
{
    product_args p = {.bias = cu_has(b, QX_LINEAR_BIAS) ? QX_LINEAR_BIAS : 0, .mul = cu_has(b, QX_LINEAR_MUL) ? QX_LINEAR_MUL : 0,
                      .plus = cu_has(b, QX_LINEAR_ADD) ? QX_LINEAR_ADD : 0};
    QX_TRY(matmul_args(b, false, false, &p.g));
    if (p.bias && (!cu_real(b->in[p.bias].dtype) || b->in[p.bias].numel != p.g.n))
        CU_BAD(b, "bias of %lld elements for %lld columns", (long long)b->in[p.bias].numel, (long long)p.g.n);
    for (int i = QX_LINEAR_MUL; i <= QX_LINEAR_ADD; i++)
        if (cu_has(b, (uint32_t)i) && (b->in[i].numel != b->out[0].numel || b->in[i].dtype != b->out[0].dtype))
            CU_BAD(b, "operand %d has %lld elements, the product %lld", i, (long long)b->in[i].numel, (long long)b->out[0].numel);
    if (p.bias) p.g.btype = b->in[p.bias].dtype;
    p.g.act = (int32_t)cu_int(b, "act", 0);
    return product_step(b, &p);
}
extern const cu_adapter cu_linear;
const cu_adapter cu_linear = {two_real_place, linear_compile};

/* ---- weights of few bits ---- */

/* turned: the codes as [n, k], NULL: as they are */
typedef struct codes_args { qk_codes_args c; qk_gemm_args g; int zero, bias; bool expand; const void *turned; cu_product_plan *plan;
                            } codes_args;
enum { EXPAND_FROM_ROWS = 32 }; /* more rows than this: the weight is expanded once and multiplied by the library */

static qx_status codes_run(const cu_run *r)
{
    const codes_args *p = r->args;
    qk_codes_args c = p->c;
    c.x = r->in[0].data;
    c.codes = p->turned ? p->turned : r->in[1].data;
    c.scale = r->in[2].data;
    c.zero = p->zero ? r->in[p->zero].data : NULL;
    c.bias = p->bias ? r->in[p->bias].data : NULL;
    c.y = r->out[0].data;
    if (!p->expand) return cu_launched(r->d->m, qk_codes_linear(r->q, &c));
    c.y = r->ws;
    QX_TRY(cu_launched(r->d->m, qk_codes_expand(r->q, &c)));
    qk_gemm_args g = p->g;
    g.x = c.x;
    g.w = r->ws;
    g.bias = c.bias;
    g.y = r->out[0].data;
    const size_t used = cu_round((size_t)(c.n * c.k) * (size_t)cu_bytes(c.dtype));
    const cu_product_data a = {.x = g.x, .w = g.w, .bias = g.bias, .y = g.y, .ws = (char *)r->ws + used};
    bool whole;
    return product(r, p->plan, &a, &g, &whole);
}

static qx_status codes_step(cu_build *b, codes_args *p)
{
    qk_codes_args *c = &p->c;
    const qx_dev_tensor *x = &b->in[0];
    if (!cu_real(x->dtype) || !cu_real(c->stype) || (p->bias && !cu_real(b->in[p->bias].dtype)))
        CU_NO(b, "an activation of %s with scales of %s", qx_dtype_get(x->dtype)->text, qx_dtype_get(c->stype)->text);
    if (x->rank < 1 || x->dims[x->rank - 1] != c->k)
        CU_BAD(b, "rows of %lld by a weight with K = %lld", (long long)(x->rank ? x->dims[x->rank - 1] : 0), (long long)c->k);
    if (c->k > INT32_MAX || c->block > INT32_MAX) CU_NO(b, "K = %lld in blocks of %lld", (long long)c->k, (long long)c->block);
    c->m = x->numel / c->k;
    b->step->kernel = "product";
    c->dtype = x->dtype;
    c->btype = p->bias ? b->in[p->bias].dtype : 0;
    if (p->bias && b->in[p->bias].numel != c->n)
        CU_BAD(b, "bias of %lld elements for %lld columns", (long long)b->in[p->bias].numel, (long long)c->n);
    p->expand = c->m > EXPAND_FROM_ROWS;
    if (!p->expand) return cu_step(b, codes_run, p, sizeof *p);
    p->g = (qk_gemm_args){.m = c->m, .n = c->n, .k = c->k, .batch = 1, .xr = c->k, .xc = 1, .wr = 1, .wc = c->k, .yr = c->n, .yc = 1,
                          .dtype = c->dtype, .wtype = c->dtype,
                          .ytype = b->out[0].dtype, .btype = c->btype, .alpha = 1};
    const cu_product q = {.type = c->dtype, .ytype = b->out[0].dtype, .m = c->m, .n = c->n, .k = c->k, .batch = 1, .w_nk = true,
                          .has_bias = p->bias != 0, .alpha = 1};
    cu_product_plan *plan = NULL;
    bool taken = false;
    size_t ws = 0;
    if (!p->bias || c->btype == q.ytype) QX_TRY(cu_product_new(b->d, &q, &plan, &ws, &taken));
    if (taken) cu_step_plan(b, plan, cu_product_free, "cublasLt");
    p->plan = plan;
    b->step->workspace = cu_round((size_t)(c->n * c->k) * (size_t)cu_bytes(c->dtype)) + ws;
    return cu_step(b, codes_run, p, sizeof *p);
}

static qx_status nbits_place(const cu_build *b)
{
    int64_t bits = cu_int(b, "bits", 4);
    QX_TRY(cu_want_real(b, 0));
    if ((bits != 2 && bits != 4 && bits != 8) || cu_int(b, "weight_prepacked", 0) || cu_has(b, 4))
        CU_NO(b, "%lld bits, packed weights or reordered groups", (long long)bits);
    if (cu_has(b, 3) && b->in[3].dtype != QX_DT_UINT8) CU_NO(b, "zero points of %s", qx_dtype_get(b->in[3].dtype)->text);
    return QX_OK;
}

static qx_status nbits_compile(cu_build *b)
{
    int64_t bits = cu_int(b, "bits", 4);
    codes_args p = {.c = {.n = cu_int(b, "N", 0), .k = cu_int(b, "K", 0), .block = cu_int(b, "block_size", 0), .nk = 1,
                          .stype = b->in[2].dtype, .s_k = 1},
                    .zero = cu_has(b, 3) ? 3 : 0, .bias = cu_has(b, 5) ? 5 : 0};
    qk_codes_args *c = &p.c;
    if (c->n < 1 || c->k < 1 || c->block < 16)
        CU_BAD(b, "N %lld, K %lld, block_size %lld", (long long)c->n, (long long)c->k, (long long)c->block);
    c->ctype = bits == 4 ? QX_DT_UINT4 : bits == 2 ? QX_DT_UINT2 : QX_DT_UINT8;
    c->blocks = (c->k + c->block - 1) / c->block;
    c->row_bytes = c->blocks * c->block * bits / 8;
    c->s_n = c->blocks;
    c->z_row_bits = (c->blocks * bits + 7) / 8 * 8;
    c->bias_zero = 1 << (bits - 1);
    if ((int64_t)b->in[1].bytes != c->n * c->row_bytes || b->in[2].numel != c->n * c->blocks ||
        (p.zero && (int64_t)b->in[3].bytes != c->n * c->z_row_bits / 8))
        CU_BAD(b, "B has %zu bytes and scales %lld elements", b->in[1].bytes, (long long)b->in[2].numel);
    return codes_step(b, &p);
}
const cu_adapter qx_cuda_matmul_nbits = {nbits_place, nbits_compile};

static qx_status codes_place(const cu_build *b) { return cu_want_real(b, 0); }

/* Constant codes are kept with k innermost, where a column is read in wide loads. Their scales stay where they are. */
static qx_status turned_codes(cu_build *b, codes_args *p)
{
    const qx_dev_tensor *w = &b->in[QX_WQ_CODES];
    void *dev;
    if (p->c.nk || !(w->flags & QX_DEV_CONST)) return QX_OK;
    QX_TRY(cu_step_memory(b, NULL, w->bytes, &dev));
    p->turned = dev;
    p->c.nk = 1;
    const qk_codes_args t = {.codes = w->data, .y = dev, .n = p->c.n, .k = p->c.k, .ctype = p->c.ctype};
    return cu_launched(b->d->m, qk_codes_turn(b->d->q, &t));
}

static qx_status codes_compile(cu_build *b)
{
    const qx_dev_tensor *w = &b->in[QX_WQ_CODES], *s = &b->in[QX_WQ_SCALE];
    bool nk = cu_int(b, "nk", 0) != 0;
    codes_args p = {.c = {.block = cu_int(b, "block", 0), .nk = nk, .stype = s->dtype, .ctype = w->dtype},
                    .zero = cu_has(b, QX_WQ_ZERO) ? QX_WQ_ZERO : 0,
                    .bias = cu_has(b, QX_WQ_BIAS) ? QX_WQ_BIAS : 0};
    qk_codes_args *c = &p.c;
    if (w->rank != 2) CU_BAD(b, "a weight of rank %d", w->rank);
    c->n = w->dims[nk ? 0 : 1];
    c->k = w->dims[nk ? 1 : 0];
    c->blocks = c->block ? (c->k + c->block - 1) / c->block : 1;
    int64_t need = c->block ? c->n * c->blocks : s->numel == 1 ? 1 : c->n;
    if (s->numel != need || (p.zero && b->in[p.zero].numel != need))
        CU_BAD(b, "%lld scales, %lld are needed", (long long)s->numel, (long long)need);
    c->s_n = need == 1 ? 0 : c->block ? (nk ? c->blocks : 1) : 1;
    c->s_k = c->block ? (nk ? 1 : c->n) : 0;
    QX_TRY(turned_codes(b, &p));
    return codes_step(b, &p);
}
extern const cu_adapter cu_codes_linear;
const cu_adapter cu_codes_linear = {codes_place, codes_compile};
