/* blocks.c - products of E4M3 codes whose weight has a scale for each 128 along k. On cards whose cuBLASLt scales by blocks
 * (Hopper) the codes are multiplied as they are. Elsewhere the weight becomes numbers once, when the step is compiled, the
 * activation in each run, and both are multiplied as the graph says. */
#include <string.h>

#include "runtime/cuda/lib.h"
#include "runtime/fuse/fuse.h"

enum { X = QX_INT8_X, X_SCALE = QX_INT8_X_SCALE, W = QX_INT8_W, W_SCALE = QX_INT8_W_SCALE, BIAS = QX_INT8_BIAS };

typedef struct args {
    cu_product_plan *plan;
    qk_gemm_args own;      /* of numbers, without the library */
    qk_quant_args x;       /* the activation as numbers; y NULL: codes are multiplied */
    const void *w;         /* what is multiplied; NULL: the input itself */
    const float *sx, *sw;  /* of codes */
    size_t x_bytes;
    int bias;
} args;

static qx_status run(const cu_run *r)
{
    const args *p = r->args;
    cu_product_data d = {.x = r->in[X].data, .w = p->w ? p->w : r->in[W].data, .bias = p->bias ? r->in[p->bias].data : NULL,
                         .y = r->out[0].data, .sx = p->sx, .sw = p->sw,
                         .ws = (char *)r->ws + p->x_bytes};
    bool done = false;
    if (p->x.y) {
        qk_quant_args x = p->x;
        x.x = d.x;
        x.y = r->ws;
        d.x = r->ws;
        QX_TRY(cu_launched(r->d->m, qk_dequantize(r->q, &x)));
    }
    if (p->plan) QX_TRY(cu_product_run(r->d, p->plan, &d, &done));
    if (done) return QX_OK;
    if (!p->x.y) QX_FAIL(r->d->ctx, QX_E_FAIL, "%s", r->d->why);
    r->step->kernel = "product";
    qk_gemm_args g = p->own;
    g.x = d.x;
    g.w = d.w;
    g.bias = d.bias;
    g.y = d.y;
    return cu_launched(r->d->m, qk_gemm(r->q, &g));
}

/* ---- codes ---- */

/* Scales of x and w multiplied, by block and column; where x's would be, by block and row, are ones. */
static qx_status block_scales(cu_build *b, args *p, const qk_gemm_args *g, bool nk)
{
    const qx_dev_tensor *s = &b->in[W_SCALE];
    const int64_t blocks = s->numel / g->n, count = blocks * (g->m > g->n ? g->m : g->n);
    float *host = NULL, *all = NULL, sx;
    void *dev = NULL;
    qx_to_f32(b->in[X_SCALE].dtype, b->in[X_SCALE].host, 1, &sx);
    QX_TRY(qx_alloc_array(b->d->ctx, (size_t)(count + s->numel), sizeof *host, (void **)&host));
    all = host + count;
    qx_to_f32(s->dtype, s->host, s->numel, all);
    for (int64_t i = 0; i < s->numel; i++) host[i] = all[nk ? i % g->n * blocks + i / g->n : i] * sx;
    qx_status st = cu_step_memory(b, host, (size_t)s->numel * sizeof *host, &dev);
    p->sw = dev;
    for (int64_t i = 0; i < blocks * g->m; i++) host[i] = 1.0f;
    if (st == QX_OK) st = cu_step_memory(b, host, (size_t)(blocks * g->m) * sizeof *host, &dev);
    p->sx = dev;
    qx_free(b->d->ctx, host);
    return st;
}

static qx_status by_codes(cu_build *b, args *p, bool nk, size_t *ws, bool *taken)
{
    const qk_gemm_args *g = &p->own;
    const cu_product q = {.type = QX_DT_FLOAT8E4M3FN, .ytype = g->ytype, .m = g->m, .n = g->n, .k = g->k, .batch = 1, .w_nk = true,
                          .has_bias = p->bias != 0, .alpha = 1,
                          .scale_mode = CU_SCALE_BLOCKS};
    void *dev;
    if (p->bias && (g->ytype == QX_DT_FLOAT || g->btype != g->ytype)) return QX_OK; /* no place for it in an epilogue of FP8 */
    QX_TRY(cu_product_new(b->d, &q, &p->plan, ws, taken));
    if (!*taken) return QX_OK;
    cu_step_plan(b, p->plan, cu_product_free, "cublasLt");
    QX_TRY(block_scales(b, p, g, nk));
    if (nk) return QX_OK;
    QX_TRY(cu_step_memory(b, NULL, b->in[W].bytes, &dev));
    p->w = dev;
    const qk_turn_args t = {.src = b->in[W].data, .dst = dev, .batch = 1, .rows = g->k, .cols = g->n, .size = 1};
    return cu_launched(b->d->m, qk_turn(b->d->q, &t));
}

/* ---- numbers ---- */

static qx_status weight_numbers(cu_build *b, args *p, bool nk)
{
    const qx_dev_tensor *w = &b->in[W], *s = &b->in[W_SCALE];
    const qk_gemm_args *g = &p->own;
    void *dev, *scale;
    QX_TRY(cu_step_memory(b, NULL, (size_t)w->numel * (size_t)cu_bytes(g->ytype), &dev));
    p->w = dev;
    QX_TRY(cu_alloc(b->d->m, s->bytes, &scale));
    const qk_quant_args a = {.x = w->data, .scale = scale, .y = dev, .outer = nk ? g->n : 1, .d = g->k, .inner = nk ? 1 : g->n,
                             .block = QX_FP8_BLOCK,
                             .blocks = s->numel / g->n, .kind = 2, .dtype = g->ytype, .codes = w->dtype, .stype = s->dtype};
    qx_status st = cu_upload(b->d->m, scale, s->host, s->bytes);
    if (st == QX_OK) st = cu_launched(b->d->m, qk_dequantize(b->d->q, &a));
    cu_release(b->d->m, scale);
    return st;
}

static qx_status by_numbers(cu_build *b, args *p, bool nk, size_t *ws)
{
    const qk_gemm_args *g = &p->own;
    const qx_dev_tensor *x = &b->in[X], *s = &b->in[X_SCALE];
    const cu_product q = {.type = g->ytype, .ytype = g->ytype, .m = g->m, .n = g->n, .k = g->k, .batch = 1, .w_nk = nk,
                          .has_bias = p->bias != 0, .alpha = 1};
    bool taken = false;
    void *scale;
    QX_TRY(weight_numbers(b, p, nk));
    QX_TRY(cu_step_memory(b, s->host, s->bytes, &scale));
    p->x = (qk_quant_args){.scale = scale, .y = CU_LATER, .outer = 1, .d = x->numel, .inner = 1, .block = 1, .blocks = 1,
                           .dtype = g->ytype, .codes = x->dtype, .stype = s->dtype};
    p->x_bytes = cu_round((size_t)x->numel * (size_t)cu_bytes(g->ytype));
    if (!p->bias || g->btype == g->ytype) QX_TRY(cu_product_new(b->d, &q, &p->plan, ws, &taken));
    if (taken) cu_step_plan(b, p->plan, cu_product_free, "cublasLt");
    return QX_OK;
}

qx_status cu_blocks_product(cu_build *b)
{
    const bool nk = cu_int(b, "nk", 0) != 0;
    const qx_dev_tensor *x = &b->in[X], *w = &b->in[W];
    const int64_t n = w->rank == 2 ? w->dims[nk ? 0 : 1] : 0, k = w->rank == 2 ? w->dims[nk ? 1 : 0] : 0;
    args p = {.bias = cu_has(b, BIAS) ? BIAS : 0};
    size_t ws = 0;
    bool taken = false;
    if (n < 1 || k < 1 || x->rank < 1 || x->dims[x->rank - 1] != k)
        CU_BAD(b, "rows of %lld by a weight of rank %d, K = %lld", (long long)(x->rank ? x->dims[x->rank - 1] : 0), w->rank, (long long)k);
    const int64_t blocks = (k + QX_FP8_BLOCK - 1) / QX_FP8_BLOCK;
    if (b->in[X_SCALE].numel != 1 || b->in[W_SCALE].numel != n * blocks || !cu_real(b->in[X_SCALE].dtype) || !cu_real(b->in[W_SCALE].dtype))
        CU_BAD(b, "%lld scales for %lld columns in %lld blocks", (long long)b->in[W_SCALE].numel, (long long)n, (long long)blocks);
    const int ytype = b->out[0].dtype, btype = p.bias ? b->in[BIAS].dtype : 0;
    if (!cu_real(ytype) || (p.bias && (!cu_real(btype) || b->in[BIAS].numel != n)))
        CU_NO(b, "a result of %s, a bias of %lld elements", qx_dtype_get(ytype)->text, p.bias ? (long long)b->in[BIAS].numel : 0LL);
    p.own = (qk_gemm_args){.m = x->numel / k, .n = n, .k = k, .batch = 1, .xr = k, .xc = 1, .wr = nk ? 1 : n, .wc = nk ? k : 1, .yr = n,
                           .yc = 1, .dtype = ytype, .wtype = ytype, .ytype = ytype,
                           .btype = btype, .alpha = 1};
    QX_TRY(by_codes(b, &p, nk, &ws, &taken));
    if (!taken) QX_TRY(by_numbers(b, &p, nk, &ws));
    b->step->workspace = p.x_bytes + ws;
    return cu_step(b, run, &p, sizeof p);
}
