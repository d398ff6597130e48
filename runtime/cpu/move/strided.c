/* strided.c - see strided.h. Neighbouring axes are merged first; what remains is runs, or a transposition of two axes in tiles. */
#include "runtime/cpu/move/strided.h"

#include <string.h>

#include "kernels/move.h"
#include "kernels/quant.h"

enum { PIECE = 1 << 14 };

static void merge(const qx_strided *in, qx_strided *out)
{
    out->rank = 0;
    for (int i = 0; i < in->rank; i++) {
        if (in->dims[i] == 1) continue;
        int l = out->rank - 1;
        if (l >= 0 && out->stride[l] == in->stride[i] * in->dims[i]) {
            out->dims[l] *= in->dims[i];
            out->stride[l] = in->stride[i];
            continue;
        }
        out->dims[out->rank] = in->dims[i];
        out->stride[out->rank++] = in->stride[i];
    }
    if (out->rank > 0) return;
    out->dims[0] = 1;
    out->stride[0] = 1;
    out->rank = 1;
}

typedef struct job {
    qx_strided s;
    const char *src;
    char *dst;
    int size, t;          /* t: axis with stride 1 that is transposed with the last, or -1 */
    int64_t dst_stride[QX_STRIDED_RANK];
    int64_t n, per;       /* outer positions, and how many make a piece */
    int64_t t_cuts, t_cut;
} job;

/* Source and destination offset of outer position p; axis t is left out. */
static void position(const job *j, int64_t p, int64_t *from, int64_t *to)
{
    *from = *to = 0;
    for (int i = j->s.rank - 2; i >= 0; i--) {
        if (i == j->t) continue;
        int64_t at = p % j->s.dims[i];
        p /= j->s.dims[i];
        *from += at * j->s.stride[i];
        *to += at * j->dst_stride[i];
    }
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    int l = j->s.rank - 1;
    int64_t from, to, cut = i % j->t_cuts, first = i / j->t_cuts * j->per, last = first + j->per < j->n ? first + j->per : j->n;
    for (int64_t p = first; p < last; p++) {
        position(j, p, &from, &to);
        if (j->t < 0) {
            qx_copy_run(j->src + from * j->size, j->s.stride[l], j->dst + to * j->size, j->s.dims[l], j->size);
            continue;
        }
        int64_t r0 = cut * j->t_cut, rows = j->s.dims[j->t] - r0 < j->t_cut ? j->s.dims[j->t] - r0 : j->t_cut;
        qx_copy_2d(j->src + (from + r0 * j->s.stride[j->t]) * j->size, j->s.stride[j->t], j->s.stride[l],
                   j->dst + (to + r0 * j->dst_stride[j->t]) * j->size, j->dst_stride[j->t], rows, j->s.dims[l], j->size);
    }
    return QX_OK;
}

static int transposed_axis(const qx_strided *s)
{
    int l = s->rank - 1;
    if (s->stride[l] == 1 || s->stride[l] == 0 || s->dims[l] < 4) return -1;
    for (int i = 0; i < l; i++)
        if (s->stride[i] == 1 && s->dims[i] >= 4) return i;
    return -1;
}

qx_status qx_strided_copy(qx_ctx *ctx, const qx_strided *s, const void *src, void *dst, int size)
{
    job j = {.src = src, .dst = dst, .size = size, .t_cuts = 1};
    for (int i = 0; i < s->rank; i++)
        if (s->dims[i] == 0) return QX_OK;
    merge(s, &j.s);
    int64_t d = 1;
    for (int i = j.s.rank - 1; i >= 0; i--) {
        j.dst_stride[i] = d;
        d *= j.s.dims[i];
    }
    j.t = transposed_axis(&j.s);
    int64_t run = j.s.dims[j.s.rank - 1];
    j.n = d / run;
    if (j.t >= 0) {
        j.n /= j.s.dims[j.t];
        j.t_cut = PIECE / run + 1 < 32 ? 32 : (PIECE / run + 1 + 31) / 32 * 32;
        j.t_cuts = (j.s.dims[j.t] + j.t_cut - 1) / j.t_cut;
        int64_t tile = run * (j.s.dims[j.t] < j.t_cut ? j.s.dims[j.t] : j.t_cut);
        j.per = j.t_cuts > 1 ? 1 : PIECE / tile + 1;
    } else {
        j.per = PIECE / run + 1;
    }
    return qx_parallel(ctx, (j.n + j.per - 1) / j.per * j.t_cuts, piece, &j);
}

qx_status qx_elem_size(const qx_call *c, const qx_tensor *t, int *size)
{
    int bits = qx_dtype_bits(t->dtype);
    *size = t->dtype == QX_DT_STRING ? (int)sizeof(char *) : bits / 8;
    if (t->is_sequence || t->is_optional || *size == 0)
        QX_CALL_FAIL(c, QX_E_TYPE, "%s is not moved element by element", qx_dtype_get(t->dtype)->text);
    return QX_OK;
}

qx_status qx_own_strings(qx_call *c, qx_tensor *t)
{
    char **s = t->data;
    qx_status st = QX_OK;
    for (int64_t i = 0; i < t->numel; i++) {
        const char *from = s[i];
        s[i] = NULL;
        if (st != QX_OK || !from) continue;
        size_t n = strlen(from);
        st = qx_alloc(c->ctx, n + 1, (void **)&s[i]);
        if (st == QX_OK && n) memcpy(s[i], from, n);
    }
    return st;
}

/* Several elements a byte: one a byte meanwhile. */
static qx_status packed_out(qx_call *c, uint32_t i, const qx_tensor *in, int64_t offset, int rank, const int64_t *dims, const qx_strided *s)
{
    const int bits = qx_dtype_bits(in->dtype);
    uint8_t *from, *to;
    qx_tensor *y = NULL;
    QX_TRY(qx_call_out(c, i, in->dtype, rank, dims, &y));
    if (y->numel == 0) return QX_OK;
    QX_TRY(QX_CALL_SCRATCH(c, in->numel, &from));
    QX_TRY(QX_CALL_SCRATCH(c, y->numel, &to));
    qx_unpack(bits, false, in->data, in->numel, from);
    QX_TRY(qx_strided_copy(c->ctx, s, from + offset, to, 1));
    qx_pack(bits, to, y->numel, y->data);
    return QX_OK;
}

qx_status qx_strided_out(qx_call *c, uint32_t i, const qx_tensor *in, int64_t offset, int rank, const int64_t *dims, const qx_strided *s)
{
    qx_tensor *y = NULL;
    int size;
    const bool tensor = !in->is_sequence && !in->is_optional && in->dtype != QX_DT_STRING;
    if (tensor && qx_dtype_bits(in->dtype) < 8) return packed_out(c, i, in, offset, rank, dims, s);
    QX_TRY(qx_elem_size(c, in, &size));
    QX_TRY(qx_call_out(c, i, in->dtype, rank, dims, &y));
    if (y->numel == 0) return QX_OK;
    QX_TRY(qx_strided_copy(c->ctx, s, (const char *)in->data + offset * size, y->data, size));
    return in->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}
