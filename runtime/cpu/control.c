/* control.c - If, Loop, Scan, SequenceMap: operators that run subgraphs. Bodies see the values of the outer graph; loop state is moved from
 * one trip to the next. Loop trips are capped by the executor's max_loop, so that a hostile model ends. */
#include <string.h>

#include "runtime/cpu/op.h"

static qx_status body_of(const qx_call *c, const char *name, qx_graph **g)
{
    const qx_attr *a = qx_call_attr(c, name);
    if (a && a->graph) {
        *g = a->graph;
        return QX_OK;
    }
    QX_CALL_FAIL(c, QX_E_FORMAT, "attribute '%s' is missing", name);
}

static void free_all(qx_call *c, qx_tensor *t, uint32_t n)
{
    for (uint32_t i = 0; t && i < n; i++) qx_tensor_free(c->ctx, &t[i]);
}

qx_status qx_cpu_if(qx_call *c)
{
    int64_t cond;
    qx_graph *g = NULL;
    qx_tensor *out;
    QX_TRY(qx_call_scalar_i64(c, 0, 0, &cond));
    QX_TRY(body_of(c, cond ? "then_branch" : "else_branch", &g));
    if (g->n_outputs != c->n_out) QX_CALL_FAIL(c, QX_E_FORMAT, "the branch has %u outputs, the node %u", g->n_outputs, c->n_out);
    QX_TRY(QX_CALL_SCRATCH(c, c->n_out + 1, &out));
    memset(out, 0, (c->n_out + 1) * sizeof *out);
    qx_status st = qx_call_graph(c, g, NULL, 0, out, c->n_out);
    for (uint32_t i = 0; st == QX_OK && i < c->n_out; i++) st = qx_call_out_take(c, i, &out[i]);
    if (st != QX_OK) free_all(c, out, c->n_out);
    return st;
}

/* ---- Stacking the results of trips along a new axis ---- */

typedef struct stack { qx_tensor *items; int64_t n, cap; } stack;

static qx_status stack_push(qx_call *c, stack *s, qx_tensor *t)
{
    QX_TRY(qx_grow(c->ctx, (void **)&s->items, s->n, &s->cap, sizeof *t));
    s->items[s->n++] = *t;
    memset(t, 0, sizeof *t);
    return QX_OK;
}

static void stack_free(qx_call *c, stack *s)
{
    for (int64_t i = 0; i < s->n; i++) qx_tensor_free(c->ctx, &s->items[i]);
    qx_free(c->ctx, s->items);
}

static qx_status same_shape(const qx_call *c, const qx_tensor *a, const qx_tensor *b, int64_t trip)
{
    if (a->dtype == b->dtype && a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0])) return QX_OK;
    QX_CALL_FAIL(c, QX_E_SHAPE, "a scan output changes its shape in trip %lld", (long long)trip);
}

/* Output i = the items stacked along `axis`; reversed when asked. No items: an output with 0 on that axis, typed like the body's output. */
static qx_status stack_out(qx_call *c, uint32_t i, const stack *s, int64_t axis_attr, bool reverse, const qx_value *proto)
{
    int64_t dims[QX_MAX_RANK + 1] = {0};
    const qx_tensor *f = s->n ? &s->items[0] : NULL;
    const int rank = f ? f->rank : proto->type.has_shape ? proto->type.rank : 0;
    qx_tensor *y;
    int axis;
    if (rank + 1 > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "scan output of rank %d", rank + 1);
    QX_TRY(qx_call_axis(c, axis_attr, rank + 1, &axis));
    for (int d = 0; d <= rank; d++) {
        const int k = d - (d > axis);
        dims[d] = d == axis ? s->n : f ? f->dims[k] : proto->type.dims[k].n > 0 ? proto->type.dims[k].n : 0;
    }
    QX_TRY(qx_call_out(c, i, f ? f->dtype : proto->type.dtype, rank + 1, dims, &y));
    const int64_t outer = f ? qx_prod(f->dims, 0, axis) : 0;
    const size_t run = f && outer ? f->bytes / (size_t)outer : 0;
    for (int64_t t = 0; t < s->n; t++) {
        const qx_tensor *item = &s->items[reverse ? s->n - 1 - t : t];
        QX_TRY(same_shape(c, f, item, t));
        for (int64_t o = 0; o < outer; o++)
            memcpy((char *)y->data + (size_t)(o * s->n + t) * run, (const char *)item->data + (size_t)o * run, run);
    }
    return QX_OK;
}

/* ---- Loop ---- */

typedef struct loop {
    qx_graph *g;
    uint32_t n_state, n_scan;
    qx_tensor *state;  /* [n_state] owned */
    qx_tensor *out;    /* [1 + n_state + n_scan] of one trip */
    stack *scans;      /* [n_scan] */
    const qx_tensor **in;
} loop;

static qx_status loop_init(qx_call *c, loop *l)
{
    QX_TRY(body_of(c, "body", &l->g));
    l->n_state = c->n_in > 2 ? c->n_in - 2 : 0;
    if (l->g->n_inputs != l->n_state + 2 || l->g->n_outputs < l->n_state + 1 || c->n_out > l->g->n_outputs - 1)
        QX_CALL_FAIL(c, QX_E_FORMAT, "body with %u inputs and %u outputs for %u loop variables", l->g->n_inputs, l->g->n_outputs,
                     l->n_state);
    l->n_scan = l->g->n_outputs - 1 - l->n_state;
    QX_TRY(QX_CALL_SCRATCH(c, l->n_state + 1, &l->state));
    memset(l->state, 0, (l->n_state + 1) * sizeof *l->state);
    QX_TRY(QX_CALL_SCRATCH(c, l->g->n_outputs, &l->out));
    memset(l->out, 0, l->g->n_outputs * sizeof *l->out);
    QX_TRY(QX_CALL_SCRATCH(c, l->n_scan + 1, &l->scans));
    memset(l->scans, 0, (l->n_scan + 1) * sizeof *l->scans);
    QX_TRY(QX_CALL_SCRATCH(c, l->n_state + 2, &l->in));
    for (uint32_t i = 0; i < l->n_state; i++) {
        const qx_tensor *t;
        QX_TRY(qx_call_need(c, i + 2, &t));
        QX_TRY(qx_tensor_copy(c->ctx, t, &l->state[i]));
    }
    return QX_OK;
}

static void loop_free(qx_call *c, loop *l)
{
    free_all(c, l->state, l->n_state);
    if (l->out) free_all(c, l->out, l->g->n_outputs);
    for (uint32_t i = 0; l->scans && i < l->n_scan; i++) stack_free(c, &l->scans[i]);
}

/* One trip: *cond becomes the body's. */
static qx_status loop_trip(qx_call *c, loop *l, int64_t trip, bool *cond)
{
    int64_t number = trip;
    uint8_t flag = *cond;
    qx_tensor t_trip = {0}, t_cond = {0};
    QX_TRY(qx_tensor_shape(c->ctx, &t_trip, QX_DT_INT64, 0, NULL));
    QX_TRY(qx_tensor_shape(c->ctx, &t_cond, QX_DT_BOOL, 0, NULL));
    t_trip.data = &number;
    t_cond.data = &flag;
    l->in[0] = &t_trip;
    l->in[1] = &t_cond;
    for (uint32_t i = 0; i < l->n_state; i++) l->in[i + 2] = &l->state[i];
    QX_TRY(qx_call_graph(c, l->g, l->in, l->n_state + 2, l->out, l->g->n_outputs));
    if (l->out[0].numel < 1 || !l->out[0].data) QX_CALL_FAIL(c, QX_E_SHAPE, "the body's condition is empty");
    *cond = *(const uint8_t *)l->out[0].data != 0;
    qx_tensor_free(c->ctx, &l->out[0]);
    for (uint32_t i = 0; i < l->n_state; i++) {
        qx_tensor_free(c->ctx, &l->state[i]);
        l->state[i] = l->out[1 + i];
        memset(&l->out[1 + i], 0, sizeof l->out[0]);
    }
    for (uint32_t i = 0; i < l->n_scan; i++) QX_TRY(stack_push(c, &l->scans[i], &l->out[1 + l->n_state + i]));
    return QX_OK;
}

static qx_status loop_run(qx_call *c, loop *l)
{
    int64_t limit, flag;
    QX_TRY(loop_init(c, l));
    QX_TRY(qx_call_scalar_i64(c, 0, INT64_MAX, &limit));
    QX_TRY(qx_call_scalar_i64(c, 1, 1, &flag));
    bool cond = flag != 0;
    for (int64_t trip = 0; trip < limit && cond; trip++) {
        if (trip >= qx_call_max_loop(c))
            QX_CALL_FAIL(c, QX_E_BUDGET, "more than %lld trips (--max-loop allows more)", (long long)qx_call_max_loop(c));
        QX_TRY(qx_check_cancel(c->ctx));
        QX_TRY(loop_trip(c, l, trip, &cond));
    }
    for (uint32_t i = 0; i < l->n_state && i < c->n_out; i++) QX_TRY(qx_call_out_take(c, i, &l->state[i]));
    for (uint32_t i = 0; i < l->n_scan && l->n_state + i < c->n_out; i++)
        QX_TRY(stack_out(c, l->n_state + i, &l->scans[i], 0, false, l->g->outputs[1 + l->n_state + i]));
    return QX_OK;
}

qx_status qx_cpu_loop(qx_call *c)
{
    loop l = {0};
    qx_status st = loop_run(c, &l);
    loop_free(c, &l);
    return st;
}

/* ---- Scan ---- (version 8 has a batch axis and a leading sequence_lens input; each batch entry is one version 9 scan) */

typedef struct scan {
    qx_graph *g;
    uint32_t n_state, n_seq, n_scan;
    int64_t trips;
    qx_tensor *state, *out, *slice;
    stack *scans;
    const qx_tensor **in;
    const qx_tensor *const *seq; /* [n_seq] */
} scan;

static int64_t list_at(qx_call *c, const char *name, uint32_t i)
{
    int64_t n;
    const int64_t *v = qx_call_ints(c, name, &n);
    return v && i < n ? v[i] : 0;
}

/* Slice number t of seq[i] along its axis, as a new tensor without that axis. */
static qx_status scan_slice(qx_call *c, const scan *s, uint32_t i, int64_t t, qx_tensor *out)
{
    const qx_tensor *x = s->seq[i];
    int64_t dims[QX_MAX_RANK];
    int axis, r = 0;
    QX_TRY(qx_call_axis(c, list_at(c, "scan_input_axes", i), x->rank, &axis));
    if (x->dims[axis] != s->trips)
        QX_CALL_FAIL(c, QX_E_SHAPE, "scan input %u has %lld steps, another has %lld", i, (long long)x->dims[axis], (long long)s->trips);
    for (int d = 0; d < x->rank; d++)
        if (d != axis) dims[r++] = x->dims[d];
    QX_TRY(qx_tensor_new(c->ctx, out, x->dtype, r, dims));
    const int64_t at = list_at(c, "scan_input_directions", i) ? s->trips - 1 - t : t;
    const int64_t outer = qx_prod(x->dims, 0, axis);
    const size_t run = outer ? out->bytes / (size_t)outer : 0;
    for (int64_t o = 0; o < outer; o++)
        memcpy((char *)out->data + (size_t)o * run, (const char *)x->data + (size_t)(o * s->trips + at) * run, run);
    return QX_OK;
}

static qx_status scan_trip(qx_call *c, scan *s, int64_t t)
{
    qx_status st = QX_OK;
    for (uint32_t i = 0; i < s->n_state; i++) s->in[i] = &s->state[i];
    for (uint32_t i = 0; st == QX_OK && i < s->n_seq; i++) {
        st = scan_slice(c, s, i, t, &s->slice[i]);
        s->in[s->n_state + i] = &s->slice[i];
    }
    if (st == QX_OK) st = qx_call_graph(c, s->g, s->in, s->n_state + s->n_seq, s->out, s->g->n_outputs);
    free_all(c, s->slice, s->n_seq);
    memset(s->slice, 0, (s->n_seq + 1) * sizeof *s->slice);
    for (uint32_t i = 0; st == QX_OK && i < s->n_state; i++) {
        qx_tensor_free(c->ctx, &s->state[i]);
        s->state[i] = s->out[i];
        memset(&s->out[i], 0, sizeof s->out[i]);
    }
    for (uint32_t i = 0; st == QX_OK && i < s->n_scan; i++) st = stack_push(c, &s->scans[i], &s->out[s->n_state + i]);
    return st;
}

static qx_status scan_init(qx_call *c, scan *s, uint32_t first)
{
    QX_TRY(body_of(c, "body", &s->g));
    const int64_t n_seq = qx_call_int(c, "num_scan_inputs", 0);
    if (n_seq < 1 || n_seq > c->n_in - first || s->g->n_inputs != c->n_in - first || s->g->n_outputs != c->n_out)
        QX_CALL_FAIL(c, QX_E_FORMAT, "num_scan_inputs %lld with %u inputs; body with %u inputs and %u outputs", (long long)n_seq,
                     c->n_in - first, s->g->n_inputs, s->g->n_outputs);
    s->n_seq = (uint32_t)n_seq;
    s->n_state = c->n_in - first - s->n_seq;
    if (s->g->n_outputs < s->n_state)
        QX_CALL_FAIL(c, QX_E_FORMAT, "body with %u outputs for %u state variables", s->g->n_outputs, s->n_state);
    s->n_scan = s->g->n_outputs - s->n_state;
    QX_TRY(QX_CALL_SCRATCH(c, s->n_state + 1, &s->state));
    memset(s->state, 0, (s->n_state + 1) * sizeof *s->state);
    QX_TRY(QX_CALL_SCRATCH(c, s->n_seq + 1, &s->slice));
    memset(s->slice, 0, (s->n_seq + 1) * sizeof *s->slice);
    QX_TRY(QX_CALL_SCRATCH(c, s->g->n_outputs + 1, &s->out));
    memset(s->out, 0, (s->g->n_outputs + 1) * sizeof *s->out);
    QX_TRY(QX_CALL_SCRATCH(c, s->n_scan + 1, &s->scans));
    memset(s->scans, 0, (s->n_scan + 1) * sizeof *s->scans);
    return QX_CALL_SCRATCH(c, s->g->n_inputs + 1, &s->in);
}

static void scan_free(qx_call *c, scan *s)
{
    free_all(c, s->state, s->n_state);
    free_all(c, s->slice, s->n_seq);
    if (s->out) free_all(c, s->out, s->g->n_outputs);
    for (uint32_t i = 0; s->scans && i < s->n_scan; i++) stack_free(c, &s->scans[i]);
}

static qx_status scan_run(qx_call *c, scan *s)
{
    int axis;
    QX_TRY(scan_init(c, s, 0));
    for (uint32_t i = 0; i < s->n_state; i++) {
        const qx_tensor *t;
        QX_TRY(qx_call_need(c, i, &t));
        QX_TRY(qx_tensor_copy(c->ctx, t, &s->state[i]));
    }
    s->seq = c->in + s->n_state;
    for (uint32_t i = 0; i < s->n_seq; i++)
        if (!s->seq[i]) QX_CALL_FAIL(c, QX_E_FORMAT, "scan input %u is missing", i);
    QX_TRY(qx_call_axis(c, list_at(c, "scan_input_axes", 0), s->seq[0]->rank, &axis));
    s->trips = s->seq[0]->dims[axis];
    for (int64_t t = 0; t < s->trips; t++) {
        QX_TRY(qx_check_cancel(c->ctx));
        QX_TRY(scan_trip(c, s, t));
    }
    for (uint32_t i = 0; i < s->n_state; i++) QX_TRY(qx_call_out_take(c, i, &s->state[i]));
    for (uint32_t i = 0; i < s->n_scan; i++)
        QX_TRY(stack_out(c, s->n_state + i, &s->scans[i], list_at(c, "scan_output_axes", i),
                         list_at(c, "scan_output_directions", i) != 0, s->g->outputs[s->n_state + i]));
    return QX_OK;
}

qx_status qx_cpu_scan(qx_call *c)
{
    scan s = {0};
    qx_status st = scan_run(c, &s);
    scan_free(c, &s);
    return st;
}

/* ---- Scan-8 ---- */

/* Entry b of a batched tensor, seen in place. */
static qx_tensor batch_entry(const qx_tensor *x, int64_t b)
{
    qx_tensor t = *x;
    t.rank--;
    memmove(t.dims, t.dims + 1, (size_t)t.rank * sizeof t.dims[0]);
    t.numel = x->dims[0] ? x->numel / x->dims[0] : 0;
    t.bytes = x->dims[0] ? x->bytes / (size_t)x->dims[0] : 0;
    t.data = (char *)x->data + (size_t)b * t.bytes;
    return t;
}

typedef struct scan8 { scan s; qx_tensor *entry; stack *results; } scan8;

static qx_status scan8_batch(qx_call *c, scan8 *k, int64_t b, int64_t trips)
{
    scan *s = &k->s;
    const qx_tensor **seq;
    QX_TRY(QX_CALL_SCRATCH(c, s->n_seq, &seq));
    for (uint32_t i = 0; i < s->n_state + s->n_seq; i++) k->entry[i] = batch_entry(c->in[1 + i], b);
    for (uint32_t i = 0; i < s->n_state; i++) QX_TRY(qx_tensor_copy(c->ctx, &k->entry[i], &s->state[i]));
    for (uint32_t i = 0; i < s->n_seq; i++) seq[i] = &k->entry[s->n_state + i];
    s->seq = seq;
    s->trips = trips;
    for (int64_t t = 0; t < trips; t++) QX_TRY(scan_trip(c, s, t));
    for (uint32_t i = 0; i < s->n_state; i++) QX_TRY(stack_push(c, &k->results[i], &s->state[i]));
    for (uint32_t i = 0; i < s->n_scan; i++) {
        qx_tensor joined = {0};
        const qx_tensor *f = &s->scans[i].items[0];
        int64_t dims[QX_MAX_RANK + 1] = {s->scans[i].n};
        if (!s->scans[i].n || f->rank + 2 > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_SHAPE, "scan without steps");
        memcpy(dims + 1, f->dims, (size_t)f->rank * sizeof dims[0]);
        QX_TRY(qx_tensor_new(c->ctx, &joined, f->dtype, f->rank + 1, dims));
        for (int64_t t = 0; t < s->scans[i].n; t++) memcpy((char *)joined.data + (size_t)t * f->bytes, s->scans[i].items[t].data, f->bytes);
        QX_TRY(stack_push(c, &k->results[s->n_state + i], &joined));
        stack_free(c, &s->scans[i]);
        memset(&s->scans[i], 0, sizeof s->scans[i]);
    }
    return QX_OK;
}

static qx_status scan8_run(qx_call *c, scan8 *k)
{
    const int64_t *lens;
    int64_t n_lens;
    QX_TRY(scan_init(c, &k->s, 1));
    QX_TRY(QX_CALL_SCRATCH(c, c->n_in, &k->entry));
    QX_TRY(QX_CALL_SCRATCH(c, c->n_out + 1, &k->results));
    memset(k->results, 0, (c->n_out + 1) * sizeof *k->results);
    QX_TRY(qx_call_in_i64(c, 0, &lens, &n_lens));
    for (uint32_t i = 1; i < c->n_in; i++)
        if (!c->in[i] || c->in[i]->rank < 1 + (i > k->s.n_state)) QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has no batch axis", i);
    const int64_t batch = c->in[1]->dims[0];
    for (int64_t b = 0; b < batch; b++) {
        const int64_t full = c->in[1 + k->s.n_state]->dims[1], trips = b < n_lens ? lens[b] : full;
        if (trips != full) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "sequence length %lld of %lld", (long long)trips, (long long)full);
        QX_TRY(scan8_batch(c, k, b, trips));
    }
    for (uint32_t i = 0; i < c->n_out; i++) QX_TRY(stack_out(c, i, &k->results[i], 0, false, k->s.g->outputs[i]));
    return QX_OK;
}

qx_status qx_cpu_scan8(qx_call *c)
{
    scan8 k = {{0}, NULL, NULL};
    qx_status st = scan8_run(c, &k);
    scan_free(c, &k.s);
    for (uint32_t i = 0; k.results && i < c->n_out; i++) stack_free(c, &k.results[i]);
    return st;
}

/* ---- SequenceMap ---- */

static qx_status map_run(qx_call *c, qx_graph *g, qx_tensor *out, qx_tensor *seqs)
{
    const qx_tensor *first, **in;
    QX_TRY(qx_call_need(c, 0, &first));
    QX_TRY(QX_CALL_SCRATCH(c, c->n_in, &in));
    for (uint32_t k = 0; k < c->n_out; k++) {
        seqs[k].is_sequence = true;
        QX_TRY(qx_alloc_array(c->ctx, (size_t)first->n_items + 1, sizeof *seqs->items, (void **)&seqs[k].items));
    }
    for (int64_t t = 0; t < first->n_items; t++) {
        for (uint32_t i = 0; i < c->n_in; i++) {
            const qx_tensor *x = c->in[i];
            if (x && x->is_sequence && t >= x->n_items)
                QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld items, input 0 has %lld", i, (long long)x->n_items,
                             (long long)first->n_items);
            in[i] = x && x->is_sequence ? &x->items[t] : x;
        }
        QX_TRY(qx_call_graph(c, g, in, c->n_in, out, c->n_out));
        for (uint32_t k = 0; k < c->n_out; k++) {
            seqs[k].dtype = out[k].dtype;
            seqs[k].items[seqs[k].n_items++] = out[k];
            memset(&out[k], 0, sizeof out[k]);
        }
    }
    for (uint32_t k = 0; k < c->n_out; k++) QX_TRY(qx_call_out_take(c, k, &seqs[k]));
    return QX_OK;
}

qx_status qx_cpu_sequence_map(qx_call *c)
{
    qx_graph *g = NULL;
    qx_tensor *out, *seqs;
    QX_TRY(body_of(c, "body", &g));
    QX_TRY(QX_CALL_SCRATCH(c, c->n_out, &out));
    QX_TRY(QX_CALL_SCRATCH(c, c->n_out, &seqs));
    memset(out, 0, c->n_out * sizeof *out);
    memset(seqs, 0, c->n_out * sizeof *seqs);
    qx_status st = map_run(c, g, out, seqs);
    free_all(c, out, c->n_out);
    free_all(c, seqs, c->n_out);
    return st;
}
