/* codes.c - see codes.h. */
#include "runtime/cpu/codes/codes.h"

#include <string.h>

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

/* ---- Finishing a tile: a row at a time, so that the loops over columns are vectors ---- */

enum { NR = QX_IGEMM_PANEL };

/* v[j] = (float)acc[j] * scale[j], where the scale is (row * column) / output, each step rounded to float as the standard's
 * reference has it. */
static void scaled_row(const int32_t *restrict acc, const float *restrict scale, float *restrict v)
{
    for (int j = 0; j < NR; j++) v[j] = (float)acc[j] * scale[j];
}

/* rne(v) + zero clamped to [lo, hi]; NaN counts as 0. */
static void codes_row(const float *restrict v, float zero, float lo, float hi, uint8_t *restrict q)
{
    for (int j = 0; j < NR; j++) {
        const float code = qx_rne_clamp(v[j], -65536.0f, 65536.0f) + zero;
        q[j] = (uint8_t)(int32_t)(code < lo ? lo : code > hi ? hi : code);
    }
}

static void scatter(const void *from, int size, int64_t n, char *to, int64_t step)
{
    if (step == 1) memcpy(to, from, (size_t)(n * size));
    else if (size == 1) for (int64_t j = 0; j < n; j++) to[j * step] = ((const char *)from)[j];
    else for (int64_t j = 0; j < n; j++) memcpy(to + j * step * size, (const char *)from + j * size, (size_t)size);
}

typedef struct finish { float scale[NR], bias[NR], lo, hi; int32_t ibias[NR]; int64_t first, cols; } finish;

/* Columns behind the last are scaled by 0. */
static void scales_of_row(const qx_code_tile *t, int64_t i, finish *f)
{
    const float sa = t->sa[t->sa_per_row ? i : 0];
    for (int64_t j = 0; j < NR; j++) {
        const float s = j < f->cols ? sa * t->sb[t->sb_per_col ? f->first + j : 0] : 0.0f;
        f->scale[j] = t->out->kind == QX_CODE_CODES ? s / t->out->sy : s;
    }
}

static void prepare(const qx_code_tile *t, finish *f)
{
    const qx_code_out *o = t->out;
    f->lo = o->codes == QX_DT_INT8 ? -128.0f : 0.0f;
    f->hi = o->codes == QX_DT_INT8 ? 127.0f : 255.0f;
    for (int64_t j = 0; j < NR; j++) {
        f->bias[j] = o->bias && j < f->cols ? o->bias[f->first + j] : 0.0f;
        f->ibias[j] = o->ibias && j < f->cols ? o->ibias[f->first + j] : 0;
    }
    if (o->kind != QX_CODE_INT32) scales_of_row(t, 0, f);
}

static void finish_row(const qx_code_tile *t, finish *f, int64_t i, int32_t *acc)
{
    const qx_code_out *o = t->out;
    float v[NR];
    uint8_t q[NR];
    char *y = (char *)t->y + i * t->row * (o->kind == QX_CODE_CODES ? 1 : 4);
    if (o->kind == QX_CODE_INT32) {
        scatter(acc, 4, f->cols, y, t->col);
        return;
    }
    if (t->sa_per_row) scales_of_row(t, i, f);
    if (o->ibias)
        for (int j = 0; j < NR; j++) acc[j] = (int32_t)((uint32_t)acc[j] + (uint32_t)f->ibias[j]);
    scaled_row(acc, f->scale, v);
    if (o->kind == QX_CODE_FLOAT) {
        for (int j = 0; o->bias && j < NR; j++) v[j] += f->bias[j];
        scatter(v, 4, f->cols, y, t->col);
        return;
    }
    codes_row(v, (float)o->zy, f->lo, f->hi, q);
    scatter(q, 1, f->cols, y, t->col);
}

void qx_code_tile_run(const qx_code_tile *t)
{
    int32_t acc[QX_CODE_ROWS * NR];
    const qx_code_panels *w = t->w;
    finish f = {.first = t->panel * NR};
    f.cols = w->n - f.first < NR ? w->n - f.first : NR;
    if (f.cols < NR) memset(acc, 0, sizeof acc);
    const qx_igemm g = {.m = t->rows, .n = f.cols, .k = w->k, .a = t->a, .lda = t->lda, .a_signed = t->a_signed, .za = t->za,
                        .za_per_row = t->za_per_row,
                        .packed = w->packed + t->matrix * (int64_t)qx_igemm_packed_bytes(w->k,
                            w->n) + t->panel * (int64_t)qx_igemm_packed_bytes(w->k, NR),
                        .sums = w->sums + t->matrix * qx_igemm_sums(w->n) + f.first, .b_signed = w->is_signed,
                        .zb = t->zb && t->zb_per_col ? t->zb + f.first : t->zb, .zb_per_col = t->zb_per_col, .c = acc, .ldc = NR};
    qx_igemm_run(&g, 0, 0, t->rows);
    prepare(t, &f);
    for (int64_t i = 0; i < t->rows; i++) finish_row(t, &f, i, acc + i * NR);
}
