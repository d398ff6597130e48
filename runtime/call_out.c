/* call_out.c - outputs of a node while it runs (runtime/cpu/op.h): made, taken over from an input, shared as a view, or given as floats and
 * rounded to halves when the node is done. */
#include <string.h>

#include "runtime/plan.h"

static qx_call_rt *rt_of(qx_call *c) { return (qx_call_rt *)c; } /* c is the first member */

/* The plan chose layouts by declared shapes; a tensor that comes otherwise would be read and written out of bounds. */
static qx_status check_blocked(const qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims)
{
    uint32_t id = i < c->step->n_out ? c->step->out[i] : QX_NO_VALUE;
    const int layout = id == QX_NO_VALUE ? 0 : c->exec->info[id].block, block = layout < 0 ? -layout : layout;
    const bool typed = dtype == QX_DT_FLOAT || (layout < 0 && (dtype == QX_DT_INT8 || dtype == QX_DT_UINT8));
    if (!block || (typed && rank == 4 && (layout < 0 ? dims[1] == block : dims[1] % block == 0))) return QX_OK;
    qx_tensor t = {.dtype = dtype, .rank = rank};
    char got[96];
    for (int k = 0; k < rank && k < QX_MAX_RANK; k++) t.dims[k] = dims[k];
    QX_CALL_FAIL(c, QX_E_SHAPE, "output %u is %s, the model declares a picture of floats or codes with a multiple of %d channels", i,
                 qx_tensor_describe(&t, got, sizeof got), block);
}

qx_status qx_call_out(qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t)
{
    qx_call_rt *rt = rt_of(c);
    qx_tensor shape;
    QX_TRY(check_blocked(c, i, dtype, rank, dims));
    if (i >= c->n_out) { /* not wanted: scratch with the right shape */
        qx_tensor *spare = NULL;
        QX_TRY(qx_call_scratch(c, sizeof *spare, (void **)&spare));
        QX_TRY(qx_tensor_shape(c->ctx, spare, dtype, rank, dims));
        QX_TRY(qx_call_scratch(c, spare->bytes, &spare->data));
        if (t) *t = spare;
        return QX_OK;
    }
    qx_status st = qx_tensor_shape(c->ctx, &shape, dtype, rank, dims);
    if (st != QX_OK) return qx_note(c->ctx, st, "node '%s' (%s): output %u", c->node->name, c->node->op_type, i);
    qx_slot *s = rt->out[i];
    qx_slot_clear(c->exec, s);
    if (dtype == QX_DT_STRING) {
        QX_TRY(qx_tensor_new(c->ctx, &s->t, dtype, rank, dims));
        s->owned = true;
    } else {
        QX_TRY(qx_block_new(c->exec, shape.bytes, rt->home[i], &s->block));
        shape.data = s->block->data;
        s->t = shape;
    }
    s->set = true;
    if (t) *t = &s->t;
    return QX_OK;
}

qx_status qx_call_out_f32(qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims, float **y)
{
    qx_call_rt *rt = rt_of(c);
    qx_tensor *t = NULL;
    QX_TRY(qx_call_out(c, i, dtype, rank, dims, &t));
    if (dtype == QX_DT_FLOAT || i >= c->n_out) {
        if (dtype == QX_DT_FLOAT) *y = t->data;
        else QX_TRY(QX_CALL_SCRATCH(c, t->numel, y));
        return QX_OK;
    }
    if (rt->n_pending == QX_MAX_PENDING) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "more than %d rounded outputs", QX_MAX_PENDING);
    QX_TRY(QX_CALL_SCRATCH(c, t->numel, y));
    rt->pending[rt->n_pending++] = (qx_pending){*y, i, t->numel};
    return QX_OK;
}

/* Input `from` dies here, owns its memory alone, and is not shared with another input. */
static bool may_take(const qx_call *c, uint32_t from, size_t bytes, bool heap)
{
    const qx_rstep *s = c->step;
    uint32_t id = from < s->n_in ? s->in[from] : QX_NO_VALUE;
    if (id == QX_NO_VALUE || c->exec->opt.trace_nan) return false; /* tracing looks at the inputs afterwards */
    const qx_slot *slot = &c->exec->slots[id];
    if (!slot->block || slot->block->refs != 1 || slot->block->bytes < bytes || slot->t.bytes != bytes || slot->t.data != slot->block->data)
        return false;
    if (heap && slot->block->arena) return false;
    for (uint32_t k = 0; k < s->n_in; k++)
        if (k != from && s->in[k] == id) return false;
    for (uint32_t k = 0; k < s->n_release; k++)
        if (s->release[k] == id) return true;
    return false;
}

bool qx_call_may_reuse(const qx_call *c, uint32_t i, uint32_t from)
{
    const qx_call_rt *rt = (const qx_call_rt *)c;
    const qx_tensor *t = qx_call_in(c, from);
    return i < c->n_out && t && may_take(c, from, t->bytes, rt->home[i]);
}

qx_status qx_call_out_reuse(qx_call *c, uint32_t i, uint32_t from, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t)
{
    qx_call_rt *rt = rt_of(c);
    qx_tensor shape;
    QX_TRY(check_blocked(c, i, dtype, rank, dims));
    QX_TRY(qx_tensor_shape(c->ctx, &shape, dtype, rank, dims));
    if (i >= c->n_out || dtype == QX_DT_STRING || !may_take(c, from, shape.bytes, rt->home[i]))
        return qx_call_out(c, i, dtype, rank, dims, t);
    qx_slot *s = rt->out[i];
    qx_slot_clear(c->exec, s);
    s->block = c->exec->slots[c->step->in[from]].block;
    s->block->refs++;
    shape.data = s->block->data;
    s->t = shape;
    s->set = true;
    if (t) *t = &s->t;
    return QX_OK;
}

qx_status qx_call_out_take(qx_call *c, uint32_t i, qx_tensor *t)
{
    qx_call_rt *rt = rt_of(c);
    if (i >= c->n_out) {
        qx_tensor_free(c->ctx, t);
        return QX_OK;
    }
    QX_TRY(check_blocked(c, i, t->dtype, t->is_sequence || t->is_optional ? -1 : t->rank, t->dims));
    qx_slot_clear(c->exec, rt->out[i]);
    rt->out[i]->t = *t;
    rt->out[i]->set = rt->out[i]->owned = true;
    memset(t, 0, sizeof *t);
    return QX_OK;
}

static qx_status out_copy(qx_call *c, uint32_t i, const qx_tensor *in, int rank, const int64_t *dims)
{
    qx_tensor copy, shape;
    QX_TRY(qx_tensor_copy(c->ctx, in, &copy));
    if (!in->is_sequence && !in->is_optional) {
        QX_TRY(qx_tensor_shape(c->ctx, &shape, in->dtype, rank, dims));
        shape.data = copy.data;
        copy = shape;
    }
    return qx_call_out_take(c, i, &copy);
}

qx_status qx_call_out_view(qx_call *c, uint32_t i, uint32_t from, int rank, const int64_t *dims)
{
    qx_call_rt *rt = rt_of(c);
    const qx_tensor *in;
    qx_tensor shape;
    QX_TRY(qx_call_need(c, from, &in));
    if (in->is_sequence || in->is_optional || in->dtype == QX_DT_STRING) return out_copy(c, i, in, rank, dims);
    QX_TRY(qx_tensor_shape(c->ctx, &shape, in->dtype, rank, dims));
    if (shape.numel != in->numel) {
        char a[96], b[96];
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s has %lld elements, %s has %lld", qx_tensor_describe(in, a, sizeof a), (long long)in->numel,
                     qx_tensor_describe(&shape, b, sizeof b), (long long)shape.numel);
    }
    if (i >= c->n_out) return QX_OK;
    QX_TRY(check_blocked(c, i, in->dtype, rank, dims));
    uint32_t id = from < c->step->n_in ? c->step->in[from] : QX_NO_VALUE;
    qx_slot *src = id != QX_NO_VALUE ? &c->exec->slots[id] : NULL;
    if (!src || !src->block || src->t.data != in->data || (rt->home[i] && src->block->arena)) {
        qx_tensor *t;
        QX_TRY(qx_call_out(c, i, in->dtype, rank, dims, &t));
        if (in->bytes) memcpy(t->data, in->data, in->bytes);
        return QX_OK;
    }
    qx_slot_clear(c->exec, rt->out[i]);
    rt->out[i]->block = src->block;
    src->block->refs++;
    shape.data = in->data;
    rt->out[i]->t = shape;
    rt->out[i]->set = true;
    return QX_OK;
}

typedef struct round_job { qx_dtype dtype; const float *from; char *to; int64_t n; size_t piece_bytes; } round_job;

static qx_status round_piece(void *user, int64_t i)
{
    const round_job *j = user;
    int64_t first = i * QX_CALL_PIECE, n = j->n - first < QX_CALL_PIECE ? j->n - first : QX_CALL_PIECE;
    char *to = j->to + (size_t)i * j->piece_bytes;
    qx_from_f32(j->dtype, j->from + first, n, to);
    return QX_OK;
}

qx_status qx_call_finish(qx_call_rt *rt)
{
    for (int i = 0; i < rt->n_pending; i++) {
        const qx_pending *p = &rt->pending[i];
        const qx_tensor *t = &rt->out[p->out]->t;
        round_job j = {t->dtype, p->from, t->data, p->n, (size_t)QX_CALL_PIECE * (size_t)qx_dtype_bits(t->dtype) / 8};
        QX_TRY(qx_parallel(rt->c.ctx, (p->n + QX_CALL_PIECE - 1) / QX_CALL_PIECE, round_piece, &j));
    }
    return QX_OK;
}
