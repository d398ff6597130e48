/* sequence.c - sequences and optionals: building, taking apart, splitting and joining. Items are copied: a sequence owns its tensors. */
#include <string.h>

#include "runtime/cpu/op.h"

static qx_status seq_begin(qx_call *c, qx_tensor *seq, qx_dtype dtype, int64_t n)
{
    memset(seq, 0, sizeof *seq);
    seq->is_sequence = true;
    seq->dtype = dtype;
    return qx_alloc_array(c->ctx, (size_t)n + 1, sizeof *seq->items, (void **)&seq->items);
}

/* Adds a copy of t. Room for it was made by seq_begin. */
static qx_status seq_push(qx_call *c, qx_tensor *seq, const qx_tensor *t)
{
    QX_TRY(qx_tensor_copy(c->ctx, t, &seq->items[seq->n_items]));
    seq->n_items++;
    return QX_OK;
}

static qx_status seq_end(qx_call *c, qx_tensor *seq, qx_status st)
{
    if (st == QX_OK) return qx_call_out_take(c, 0, seq);
    qx_tensor_free(c->ctx, seq);
    return st;
}

static qx_status need_sequence(const qx_call *c, uint32_t i, const qx_tensor **out)
{
    QX_TRY(qx_call_need(c, i, out));
    if ((*out)->is_sequence) return QX_OK;
    QX_CALL_FAIL(c, QX_E_TYPE, "input %u is not a sequence", i);
}

/* Position input `i` in a sequence of n items; insert allows n itself. Absent: `fallback`. */
static qx_status position(qx_call *c, uint32_t i, int64_t n, bool insert, int64_t fallback, int64_t *out)
{
    QX_TRY(qx_call_scalar_i64(c, i, fallback, out));
    const int64_t given = *out, top = insert ? n : n - 1;
    if (*out < 0) *out += n;
    if (*out >= 0 && *out <= top) return QX_OK;
    QX_CALL_FAIL(c, QX_E_SHAPE, "position %lld in a sequence of %lld items", (long long)given, (long long)n);
}

qx_status qx_cpu_sequence_construct(qx_call *c)
{
    qx_tensor seq;
    const qx_tensor *first;
    QX_TRY(qx_call_need(c, 0, &first));
    qx_status st = seq_begin(c, &seq, first->dtype, c->n_in);
    for (uint32_t i = 0; st == QX_OK && i < c->n_in; i++) {
        const qx_tensor *t;
        st = qx_call_need(c, i, &t);
        if (st == QX_OK && t->dtype != first->dtype)
            st = qx_call_fail(c, QX_E_TYPE, "input %u is %s, input 0 is %s", i, qx_dtype_get((int)t->dtype)->name,
                              qx_dtype_get((int)first->dtype)->name);
        if (st == QX_OK) st = seq_push(c, &seq, t);
    }
    return seq_end(c, &seq, st);
}

qx_status qx_cpu_sequence_empty(qx_call *c)
{
    qx_tensor seq;
    return seq_end(c, &seq, seq_begin(c, &seq, (qx_dtype)qx_call_int(c, "dtype", QX_DT_FLOAT), 0));
}

qx_status qx_cpu_sequence_at(qx_call *c)
{
    const qx_tensor *s;
    qx_tensor item;
    int64_t at;
    QX_TRY(need_sequence(c, 0, &s));
    QX_TRY(position(c, 1, s->n_items, false, 0, &at));
    QX_TRY(qx_tensor_copy(c->ctx, &s->items[at], &item));
    return qx_call_out_take(c, 0, &item);
}

qx_status qx_cpu_sequence_insert(qx_call *c)
{
    const qx_tensor *s, *t;
    qx_tensor seq;
    int64_t at;
    QX_TRY(need_sequence(c, 0, &s));
    QX_TRY(qx_call_need(c, 1, &t));
    QX_TRY(position(c, 2, s->n_items, true, s->n_items, &at));
    qx_status st = seq_begin(c, &seq, s->n_items ? s->dtype : t->dtype, s->n_items + 1);
    for (int64_t i = 0; st == QX_OK && i <= s->n_items; i++) st = seq_push(c, &seq, i == at ? t : &s->items[i - (i > at)]);
    return seq_end(c, &seq, st);
}

qx_status qx_cpu_sequence_erase(qx_call *c)
{
    const qx_tensor *s;
    qx_tensor seq;
    int64_t at;
    QX_TRY(need_sequence(c, 0, &s));
    QX_TRY(position(c, 1, s->n_items, false, s->n_items - 1, &at));
    qx_status st = seq_begin(c, &seq, s->dtype, s->n_items);
    for (int64_t i = 0; st == QX_OK && i < s->n_items; i++)
        if (i != at) st = seq_push(c, &seq, &s->items[i]);
    return seq_end(c, &seq, st);
}

qx_status qx_cpu_sequence_length(qx_call *c)
{
    const qx_tensor *s;
    qx_tensor *y;
    QX_TRY(need_sequence(c, 0, &s));
    QX_TRY(qx_call_out(c, 0, QX_DT_INT64, 0, NULL, &y));
    *(int64_t *)y->data = s->n_items;
    return QX_OK;
}

/* ---- Pieces along an axis ---- */

/* Copies [from, from + len) of axis into piece, which is allocated; keep 0 drops the axis (len is 1 then). */
static qx_status take_piece(qx_call *c, const qx_tensor *x, int axis, int64_t from, int64_t len, bool keep, qx_tensor *piece)
{
    int64_t dims[QX_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank; i++)
        if (i != axis || keep) dims[rank++] = i == axis ? len : x->dims[i];
    QX_TRY(qx_tensor_new(c->ctx, piece, x->dtype, rank, dims));
    const size_t elem = (size_t)qx_dtype_bits((int)x->dtype) / 8;
    if (!elem || x->dtype == QX_DT_STRING) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "splitting type %s", qx_dtype_get((int)x->dtype)->name);
    const int64_t outer = qx_prod(x->dims, 0, axis), inner = qx_prod(x->dims, axis + 1, x->rank), all = x->dims[axis];
    const size_t run = (size_t)(len * inner) * elem;
    for (int64_t o = 0; o < outer; o++)
        memcpy((char *)piece->data + (size_t)o * run, (const char *)x->data + (size_t)((o * all + from) * inner) * elem, run);
    return QX_OK;
}

/* Lengths of the pieces of SplitToSequence: input 1 is a scalar length or a list; absent: 1 each. */
static qx_status split_lengths(qx_call *c, int64_t extent, const int64_t *split, int64_t n_split, bool scalar, int64_t **out, int64_t *n)
{
    const int64_t step = n_split && scalar ? split[0] : 1;
    if (step <= 0) QX_CALL_FAIL(c, QX_E_SHAPE, "split length %lld", (long long)step);
    *n = n_split && !scalar ? n_split : (extent + step - 1) / step;
    QX_TRY(QX_CALL_SCRATCH(c, *n + 1, out));
    int64_t sum = 0;
    for (int64_t i = 0; i < *n; i++) {
        (*out)[i] = n_split && !scalar ? split[i] : extent - sum < step ? extent - sum : step;
        if ((*out)[i] < 0 || (*out)[i] > extent - sum)
            QX_CALL_FAIL(c, QX_E_SHAPE, "split %lld of %lld passes the end", (long long)(*out)[i], (long long)extent);
        sum += (*out)[i];
    }
    if (sum != extent) QX_CALL_FAIL(c, QX_E_SHAPE, "splits add up to %lld, the axis has %lld", (long long)sum, (long long)extent);
    return QX_OK;
}

qx_status qx_cpu_split_to_sequence(qx_call *c)
{
    const qx_tensor *x, *sp = qx_call_in(c, 1);
    const int64_t *split;
    int64_t n_split, n, *len, from = 0;
    int axis;
    qx_tensor seq;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    QX_TRY(qx_call_in_i64(c, 1, &split, &n_split));
    QX_TRY(split_lengths(c, x->dims[axis], split, n_split, sp && sp->rank == 0, &len, &n));
    const bool keep = sp || qx_call_int(c, "keepdims", 1);
    qx_status st = seq_begin(c, &seq, x->dtype, n);
    for (int64_t i = 0; st == QX_OK && i < n; from += len[i], i++) {
        st = take_piece(c, x, axis, from, len[i], keep, &seq.items[seq.n_items]);
        seq.n_items++;
    }
    return seq_end(c, &seq, st);
}

/* Output dims of joining: as the first item, with the axis summed (concat) or a new axis of n (stack). */
static qx_status joined_dims(qx_call *c, const qx_tensor *s, bool stack, int axis, int64_t *dims, int *rank)
{
    const qx_tensor *f = &s->items[0];
    int64_t sum = 0;
    for (int64_t i = 0; i < s->n_items; i++) {
        const qx_tensor *t = &s->items[i];
        bool same = t->rank == f->rank && t->dtype == f->dtype;
        for (int d = 0; same && d < f->rank; d++) same = t->dims[d] == f->dims[d] || (!stack && d == axis);
        if (!same) QX_CALL_FAIL(c, QX_E_SHAPE, "item %lld does not have the shape of item 0", (long long)i);
        sum += stack ? 1 : t->dims[axis];
    }
    *rank = f->rank + (stack ? 1 : 0);
    for (int d = 0; d < *rank; d++) dims[d] = d == axis ? sum : f->dims[d - (stack && d > axis)];
    return QX_OK;
}

qx_status qx_cpu_concat_from_sequence(qx_call *c)
{
    const qx_tensor *s;
    qx_tensor *y;
    int64_t dims[QX_MAX_RANK + 1], at = 0;
    int axis, rank;
    const bool stack = qx_call_int(c, "new_axis", 0) != 0;
    QX_TRY(need_sequence(c, 0, &s));
    if (!s->n_items) QX_CALL_FAIL(c, QX_E_SHAPE, "the sequence is empty");
    const size_t elem = (size_t)qx_dtype_bits((int)s->items[0].dtype) / 8;
    if (!elem) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "joining type %s", qx_dtype_get((int)s->items[0].dtype)->name);
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), s->items[0].rank + (stack ? 1 : 0), &axis));
    QX_TRY(joined_dims(c, s, stack, axis, dims, &rank));
    if (rank > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "rank %d", rank);
    QX_TRY(qx_call_out(c, 0, s->items[0].dtype, rank, dims, &y));
    const int64_t outer = qx_prod(dims, 0, axis), inner = qx_prod(dims, axis + 1, rank);
    for (int64_t i = 0; i < s->n_items; i++) {
        const int64_t len = stack ? 1 : s->items[i].dims[axis];
        for (int64_t o = 0; o < outer; o++)
            memcpy((char *)y->data + (size_t)((o * dims[axis] + at) * inner) * elem,
                   (const char *)s->items[i].data + (size_t)(o * len * inner) * elem,
                   (size_t)(len * inner) * elem);
        at += len;
    }
    return QX_OK;
}

/* ---- Optionals ---- */

qx_status qx_cpu_optional(qx_call *c)
{
    qx_tensor opt = {.is_optional = true};
    const qx_tensor *x = qx_call_in(c, 0);
    QX_TRY(qx_alloc(c->ctx, sizeof *opt.items, (void **)&opt.items));
    qx_status st = QX_OK;
    if (x) {
        st = qx_tensor_copy(c->ctx, x, &opt.items[0]);
        opt.n_items = st == QX_OK;
        opt.dtype = x->dtype;
    }
    return seq_end(c, &opt, st);
}

qx_status qx_cpu_optional_has(qx_call *c)
{
    const qx_tensor *x = qx_call_in(c, 0);
    qx_tensor *y;
    QX_TRY(qx_call_out(c, 0, QX_DT_BOOL, 0, NULL, &y));
    *(uint8_t *)y->data = x && (!x->is_optional || x->n_items);
    return QX_OK;
}

qx_status qx_cpu_optional_get(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor item;
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->is_optional && !x->n_items) QX_CALL_FAIL(c, QX_E_FAIL, "the optional is empty");
    QX_TRY(qx_tensor_copy(c->ctx, x->is_optional ? &x->items[0] : x, &item));
    return qx_call_out_take(c, 0, &item);
}
