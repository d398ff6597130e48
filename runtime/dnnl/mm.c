/* mm.c - product of bfloat16 numbers with a constant matrix by oneDNN, packed once. */
#include "runtime/dnnl/door.h"

#ifdef QONNX_HAVE_DNNL
#include <string.h>

#include "runtime/dnnl/dn.h"

struct qx_dnnl_mm { int64_t k, n; qx_dn_weights w; };

void qx_dnnl_mm_free(qx_ctx *ctx, qx_dnnl_mm *s)
{
    if (!s) return;
    qx_dn_weights_drop(ctx, &s->w);
    qx_free(ctx, s);
}

/* wei NULL: the qx_dn may choose the layout of the weights. */
static qx_status mm_prim(qx_call *c, qx_dn *l, const qx_dnnl_mm *s, const qx_gemm *g, const dnnl_memory_desc_t *wei, qx_dn_prim *p)
{
    dnnl_memory_desc_t x, have, w, y;
    dnnl_matmul_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    QX_TRY(qx_dn_typed_md(c, &x, 2, (int64_t[]){g->m, s->k}, dnnl_bf16, (int64_t[]){s->k, 1}));
    QX_TRY(qx_dn_strided_md(c, &have, 2, (int64_t[]){g->m, s->k}, (int64_t[]){s->k, 1}));
    QX_TRY(qx_dn_strided_md(c, &y, 2, (int64_t[]){g->m, s->n}, (int64_t[]){s->n, 1}));
    QX_TRY(qx_dn_strided_md(c, &p->bias, 2, (int64_t[]){1, s->n}, (int64_t[]){s->n, 1}));
    if (wei) w = *wei;
    else QX_TRY(qx_dn_typed_md(c, &w, 2, (int64_t[]){s->k, s->n}, dnnl_bf16, NULL));
    QX_DN(c, dnnl_matmul_desc_init(&d, &x, &w, g->bias ? &p->bias : NULL, &y));
    qx_status st = qx_dn_attr(c, g->act, g->mul ? &y : NULL, g->add ? &y : NULL, &attr);
    if (st == QX_OK) st = qx_dn_prim_make(c, l, &d, attr, qx_dn_stable, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    qx_dn_prim_have(p, &have, &y); /* x is rounded into scratch */
    return st;
}

/* elements of a weight that is read in pieces: they stay in the second cache; rows of a piece, as a multiple */
enum { PIECE = 1 << 18, BLOCK = 64 };

/* Stored rows [first, first + count) of w into their place in the packed matrix. */
static qx_status pack_rows(qx_call *c, qx_dn *l, const qx_dnnl_mm *s, const qx_matrix *w, int64_t first, int64_t count, float *buf)
{
    const bool cols = qx_matrix_by_columns(w);
    const int64_t dims[2] = {cols ? w->k : count, cols ? count : w->n};
    const dnnl_dims_t part = {dims[0], dims[1]}, at = {cols ? 0 : first, cols ? first : 0};
    dnnl_memory_desc_t from, to;
    const float *data;
    QX_TRY(qx_matrix_rows(c, w, first, count, buf, &data));
    QX_TRY(qx_dn_strided_md(c, &from, 2, dims, (int64_t[]){w->row, w->col}));
    QX_DN(c, dnnl_memory_desc_init_submemory(&to, &s->w.md, part, at));
    return qx_dn_reorder(c, l, &from, data, &to, s->w.packed);
}

static qx_status pack_all(qx_call *c, qx_dn *l, const qx_dnnl_mm *s, const qx_matrix *w)
{
    const bool cols = qx_matrix_by_columns(w);
    const int64_t rows = cols ? w->n : w->k, length = cols ? w->k : w->n;
    int64_t step = w->data ? rows : PIECE / length / BLOCK * BLOCK;
    float *buf = NULL;
    if (step < BLOCK) step = BLOCK;
    if (!w->data) QX_TRY(QX_CALL_SCRATCH(c, (step < rows ? step : rows) * length, &buf));
    for (int64_t r = 0; r < rows; r += step) QX_TRY(pack_rows(c, l, s, w, r, rows - r < step ? rows - r : step, buf));
    return QX_OK;
}

qx_status qx_dnnl_mm_new(qx_call *c, const qx_matrix *w, int64_t m_hint, qx_dnnl_mm **out)
{
    qx_dn *l = NULL;
    qx_dn_prim p = {.p = NULL};
    *out = NULL;
    if (w->k == 0 || w->n == 0) return QX_OK;
    QX_TRY(qx_dn_get(c, qx_dn_mm_flops(1, m_hint, w->k, w->n), &l));
    qx_dnnl_mm probe = {.k = w->k, .n = w->n};
    qx_gemm g = {.m = m_hint > 0 ? m_hint : 1};
    QX_TRY(mm_prim(c, l, &probe, &g, NULL, &p));
    if (!p.p) return QX_OK;
    dnnl_memory_desc_t md = p.wei;
    qx_dn_prim_drop(&p);
    qx_dnnl_mm *s = NULL;
    QX_TRY(QX_NEW(c->ctx, &s));
    s->k = w->k;
    s->n = w->n;
    s->w.md = md;
    qx_status st = qx_alloc_raw(c->ctx, dnnl_memory_desc_get_size(&md), &s->w.packed);
    if (st == QX_OK) st = pack_all(c, l, s, w);
    if (st != QX_OK) {
        qx_dnnl_mm_free(c->ctx, s);
        return st;
    }
    *out = s;
    return QX_OK;
}

/* The packed layout was chosen for other row counts: it is kept when the qx_dn can use it, else the weights are packed anew. */
static qx_status mm_find(qx_call *c, qx_dn *l, qx_dnnl_mm *s, const qx_gemm *g, qx_dn_prim **out)
{
    int64_t key[10] = {g->m, g->act, g->bias != NULL, g->mul != NULL, g->add != NULL};
    bool found;
    qx_dn_prim *p = qx_dn_prim_slot(s->w.cache, key, &s->w.clock, &found);
    if (!found) {
        QX_TRY(mm_prim(c, l, s, g, &s->w.md, p));
        if (!p->p) {
            qx_dn_prim fresh = {.p = NULL};
            QX_TRY(mm_prim(c, l, s, g, NULL, &fresh));
            if (!fresh.p)
                QX_CALL_FAIL(c, QX_E_FAIL, "oneDNN has no kernel for %lld x %lld x %lld", (long long)g->m, (long long)s->k,
                             (long long)s->n);
            qx_status st = qx_dn_repack(c, l, &s->w, &s->w.md, s->w.packed, &fresh.wei);
            memcpy(fresh.key, key, sizeof key);
            fresh.used = ++s->w.clock;
            *p = fresh;
            QX_TRY(st);
        }
    }
    *out = p;
    return QX_OK;
}

qx_status qx_dnnl_mm_run(qx_call *c, qx_dnnl_mm *s, const qx_gemm *g)
{
    qx_dn *l = NULL;
    qx_dn_prim *p;
    const double flops = qx_dn_mm_flops(1, g->m, s->k, s->n);
    QX_TRY(qx_dn_get(c, flops, &l));
    QX_TRY(mm_find(c, l, s, g, &p));
    qx_dn_data d = {.x = g->x, .w = s->w.packed, .y = g->y};
    int post = g->act != QX_ACT_NONE;
    if (g->bias) d.more[d.n++] = (qx_dn_more){DNNL_ARG_BIAS, &p->bias, g->bias};
    if (g->mul) d.more[d.n++] = (qx_dn_more){DNNL_ARG_ATTR_MULTIPLE_POST_OP(post++) | DNNL_ARG_SRC_1, &p->dst, g->mul};
    if (g->add) d.more[d.n++] = (qx_dn_more){DNNL_ARG_ATTR_MULTIPLE_POST_OP(post) | DNNL_ARG_SRC_1, &p->dst, g->add};
    return qx_dn_prim_run(c, l, p, &d, flops);
}

#endif
