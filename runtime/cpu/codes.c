/* codes.c - see codes.h. */
#include "runtime/cpu/codes.h"

#include <math.h>

#include "kernels/scalar.h"

qx_status qx_code_input(const qx_call *c, uint32_t i, const qx_tensor **out)
{
    QX_TRY(qx_call_need(c, i, out));
    if ((*out)->dtype == QX_DT_INT8 || (*out)->dtype == QX_DT_UINT8) return QX_OK;
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "input %u is %s; only int8 and uint8 codes are multiplied", i, qx_dtype_get((*out)->dtype)->text);
}

typedef struct pack_job { const qx_code_source *s; qx_code_panels *p; int64_t panels, bytes, sums; } pack_job;

static qx_status pack_piece(void *user, int64_t i)
{
    const pack_job *j = user;
    const int64_t m = i / j->panels;
    qx_igemm_pack_panel((const char *)j->s->data + m * j->s->stride, j->p->is_signed, j->p->k, j->p->n, j->s->row, j->s->col, i % j->panels,
                        j->p->packed + m * j->bytes, j->p->sums + m * j->sums);
    return QX_OK;
}

qx_status qx_code_pack(qx_call *c, const qx_code_source *s, bool keep, qx_code_panels *p)
{
    pack_job j = {s, p, qx_igemm_panels(p->n), (int64_t)qx_igemm_packed_bytes(p->k, p->n), qx_igemm_sums(p->n)};
    if (keep) {
        QX_TRY(qx_alloc_array(c->ctx, (size_t)(j.bytes + 1), (size_t)p->count, (void **)&p->packed));
        QX_TRY(qx_alloc_array(c->ctx, (size_t)(j.sums * p->count) + 1, sizeof *p->sums, (void **)&p->sums));
    } else {
        QX_TRY(QX_CALL_SCRATCH(c, j.bytes * p->count + 1, &p->packed));
        QX_TRY(QX_CALL_SCRATCH(c, j.sums * p->count + 1, &p->sums));
    }
    return qx_parallel(c->ctx, j.panels * p->count, pack_piece, &j);
}

void qx_code_panels_free(qx_ctx *ctx, qx_code_panels *p)
{
    qx_free(ctx, p->packed);
    qx_free(ctx, p->sums);
    p->packed = NULL;
    p->sums = NULL;
}

/* The scale is the quotient of the three, rounded once a step in float, as the standard's reference has it. */
static void put(const qx_code_tile *t, int32_t s, int64_t i, int64_t j, float scale)
{
    const qx_code_out *o = t->out;
    const int64_t at = i * t->row + j * t->col, col = t->panel * QX_IGEMM_PANEL + j;
    if (o->kind == QX_CODE_INT32) {
        ((int32_t *)t->y)[at] = s;
        return;
    }
    if (o->kind == QX_CODE_FLOAT) {
        ((float *)t->y)[at] = (float)s * scale + (o->bias ? o->bias[col] : 0.0f);
        return;
    }
    const bool sign = o->codes == QX_DT_INT8;
    const float v = (float)(int32_t)((uint32_t)s + (uint32_t)(o->ibias ? o->ibias[col] : 0)) * scale;
    const float code = qx_rne_clamp(v, -65536.0f, 65536.0f) + (float)o->zy, lo = sign ? -128.0f : 0.0f, hi = sign ? 127.0f : 255.0f;
    const int32_t q = (int32_t)(code < lo ? lo : code > hi ? hi : code);
    ((uint8_t *)t->y)[at] = (uint8_t)q;
}

void qx_code_tile_run(const qx_code_tile *t)
{
    int32_t acc[QX_CODE_ROWS * QX_IGEMM_PANEL];
    const qx_code_panels *w = t->w;
    const int64_t first = t->panel * QX_IGEMM_PANEL, cols = w->n - first < QX_IGEMM_PANEL ? w->n - first : QX_IGEMM_PANEL;
    const qx_igemm g = {.m = t->rows, .n = cols, .k = w->k, .a = t->a, .lda = t->lda, .a_signed = t->a_signed, .za = t->za, .za_per_row = t->za_per_row,
                        .packed = w->packed + t->matrix * (int64_t)qx_igemm_packed_bytes(w->k, w->n) + t->panel * (int64_t)qx_igemm_packed_bytes(w->k, QX_IGEMM_PANEL),
                        .sums = w->sums + t->matrix * qx_igemm_sums(w->n) + first, .b_signed = w->is_signed,
                        .zb = t->zb && t->zb_per_col ? t->zb + first : t->zb, .zb_per_col = t->zb_per_col, .c = acc, .ldc = QX_IGEMM_PANEL};
    qx_igemm_run(&g, 0, 0, t->rows);
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            float scale = 0;
            if (t->out->kind != QX_CODE_INT32) scale = t->sa[t->sa_per_row ? i : 0] * t->sb[t->sb_per_col ? first + j : 0];
            if (t->out->kind == QX_CODE_CODES) scale /= t->out->sy;
            put(t, acc[i * QX_IGEMM_PANEL + j], i, j, scale);
        }
}
