/* bmm.c - product of two variable tensors by oneDNN. */
#include "runtime/dnnl/door.h"

#ifdef QONNX_HAVE_DNNL
#include <string.h>

#include "runtime/dnnl/dn.h"

struct qx_dnnl_bmm { qx_dn_prim cache[QX_DN_CACHE]; uint64_t clock; };

void qx_dnnl_bmm_free(qx_ctx *ctx, qx_dnnl_bmm *s)
{
    if (!s) return;
    for (int i = 0; i < QX_DN_CACHE; i++) qx_dn_prim_drop(&s->cache[i]);
    qx_free(ctx, s);
}

static qx_status bmm_prim(qx_call *c, qx_dn *l, const qx_bmm *g, qx_dn_prim *p)
{
    dnnl_memory_desc_t a, b, y;
    dnnl_matmul_desc_t d;
    dnnl_primitive_attr_t attr = NULL;
    int64_t ba = g->sa[0] ? g->batch : 1, bb = g->sb[0] ? g->batch : 1;
    QX_TRY(qx_dn_strided_md(c, &a, 3, (int64_t[]){ba, g->m, g->k}, (int64_t[]){g->sa[0] ? g->sa[0] : g->m * g->k, g->sa[1], g->sa[2]}));
    QX_TRY(qx_dn_strided_md(c, &b, 3, (int64_t[]){bb, g->k, g->n}, (int64_t[]){g->sb[0] ? g->sb[0] : g->k * g->n, g->sb[1], g->sb[2]}));
    QX_TRY(qx_dn_strided_md(c, &y, 3, (int64_t[]){g->batch, g->m, g->n}, (int64_t[]){g->m * g->n, g->n, 1}));
    QX_DN(c, dnnl_matmul_desc_init(&d, &a, &b, NULL, &y));
    qx_status st = qx_dn_attr(c, QX_ACT_NONE, NULL, NULL, &attr);
    if (st == QX_OK) st = qx_dn_prim_make(c, l, &d, attr, qx_dn_stable, p);
    if (attr) dnnl_primitive_attr_destroy(attr);
    qx_dn_prim_have(p, &a, &y);
    return st;
}

qx_status qx_dnnl_bmm_run(qx_call *c, qx_dnnl_bmm **state, const qx_bmm *g, bool *done)
{
    qx_dn *l = NULL;
    bool found;
    *done = false;
    if (g->batch < 1 || g->m < 1 || g->n < 1 || g->k < 1) return QX_OK;
    QX_TRY(qx_dn_get(c, qx_dn_mm_flops(g->batch, g->m, g->k, g->n), &l));
    if (!*state) QX_TRY(QX_NEW(c->ctx, state));
    int64_t key[10] = {g->batch, g->m, g->n, g->k, g->sa[0], g->sa[1], g->sa[2], g->sb[0], g->sb[1], g->sb[2]};
    qx_dn_prim *p = qx_dn_prim_slot((*state)->cache, key, &(*state)->clock, &found);
    if (!found) QX_TRY(bmm_prim(c, l, g, p));
    if (!p->p) return QX_OK;
    const qx_dn_data d = {.x = g->a, .w = g->b, .y = g->y};
    QX_TRY(qx_dn_prim_run(c, l, p, &d, qx_dn_mm_flops(g->batch, g->m, g->k, g->n)));
    *done = true;
    return QX_OK;
}

#endif
