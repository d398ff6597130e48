/* between.c - sums and activations between integer products (runtime/fuse/fuse_between.c): pieces that stay in the first cache go
 * from codes to floats, through both, and to codes again. Elements are independent, so any layout serves that all tensors share. */
#include <string.h>

#include "kernels/pointwise.h"
#include "kernels/quant.h"
#include "runtime/cpu/codes/qdq.h"
#include "runtime/fuse/fuse.h"

enum { PIECE = 1 << 15, PART = 1 << 11 };

typedef struct side { const char *data; qx_dtype type; const float *scale; const int32_t *zero; } side; /* scale NULL: floats */

typedef struct job { side a, b; qx_quant to; const qx_activation *act; uint8_t *y; int64_t n; } job;

/* n numbers from element `at` on: where they lie, or in buf. */
static const float *floats(const side *s, int64_t at, int64_t n, float *buf)
{
    if (!s->scale) return (const float *)(const void *)s->data + at;
    const qx_quant q = {.grid = {1, n, 1, n}, .format = {.codes = s->type}, .scale = s->scale, .zero = s->zero};
    qx_dequantize(&q, s->data + at, QX_DT_FLOAT, buf);
    return buf;
}

static void part(const job *j, int64_t at, int64_t n)
{
    float buf[PART], other[PART];
    qx_quant q = j->to;
    const float *x = floats(&j->a, at, n, buf);
    if (j->b.data) {
        qx_binary_find(QX_B_ADD, QX_DT_FLOAT)(x, 1, floats(&j->b, at, n, other), 1, buf, n);
        x = buf;
    }
    if (!j->act->none) {
        if (x != buf) memcpy(buf, x, (size_t)n * sizeof *buf);
        qx_activation_piece(j->act, buf, n);
        x = buf;
    }
    q.grid = (qx_grid){1, n, 1, n};
    qx_quantize(&q, QX_DT_FLOAT, x, j->y + at);
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const int64_t end = (i + 1) * PIECE < j->n ? (i + 1) * PIECE : j->n;
    for (int64_t at = i * PIECE; at < end; at += PART) part(j, at, end - at < PART ? end - at : PART);
    return QX_OK;
}

static qx_status side_of(qx_call *c, uint32_t at, side *s)
{
    const qx_tensor *t = qx_call_in(c, at), *scale = qx_call_in(c, at + 1);
    if (!t) return QX_OK;
    *s = (side){.data = t->data, .type = t->dtype};
    if (scale ? qx_dtype_bits((int)t->dtype) != 8 || qx_dtype_is_float(t->dtype) : t->dtype != QX_DT_FLOAT)
        QX_CALL_FAIL(c, QX_E_TYPE, "input %u is %s, the model declares another type", at, qx_dtype_get((int)t->dtype)->text);
    if (!scale) return QX_OK;
    QX_TRY(qx_call_in_f32(c, at + 1, &s->scale));
    return qx_q_zeros(c, qx_call_in(c, at + 2), &s->zero);
}

qx_status qx_cpu_between(qx_call *c)
{
    const qx_between_params *p = c->fused;
    const qx_tensor *a, *b = qx_call_in(c, QX_BETWEEN_B);
    job j = {.act = &p->act, .to.format.codes = p->codes};
    qx_tensor *y = NULL;
    char ta[96], tb[96];
    QX_TRY(qx_call_need(c, QX_BETWEEN_A, &a));
    if (b && (b->rank != a->rank || memcmp(b->dims, a->dims, (size_t)a->rank * sizeof *a->dims) != 0))
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s and %s, the model declares equal dims", qx_tensor_describe(a, ta, sizeof ta),
                     qx_tensor_describe(b, tb, sizeof tb));
    QX_TRY(side_of(c, QX_BETWEEN_A, &j.a));
    QX_TRY(side_of(c, QX_BETWEEN_B, &j.b));
    QX_TRY(qx_call_in_f32(c, QX_BETWEEN_Y_SCALE, &j.to.scale));
    QX_TRY(qx_q_zeros(c, qx_call_in(c, QX_BETWEEN_Y_ZERO), &j.to.zero));
    QX_TRY(qx_call_out(c, 0, p->codes, a->rank, a->dims, &y));
    j.y = y->data;
    j.n = y->numel;
    return qx_parallel(c->ctx, (j.n + PIECE - 1) / PIECE, piece, &j);
}
