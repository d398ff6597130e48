/* infer_control.c - inference of If, Loop, Scan, SequenceMap and FlexAttention through their bodies. */
#include <string.h>

#include "onnx/infer/infer_op.h"

static const qx_type no_type;

static int dtype_of_type(const qx_type *t) { return (int)t->dtype; }

static qx_status out_join(qx_infer *ix, qx_node *n, uint32_t i, const qx_type *a, const qx_type *b)
{
    qx_type t;
    if (a->kind == QX_KIND_NONE || b->kind == QX_KIND_NONE) return qx_ix_out_type(ix, n, i, a->kind == QX_KIND_NONE ? b : a);
    qx_status st = qx_ix_join(ix, n, a, b, &t);
    if (st != QX_OK) return qx_note(qx_ix_ctx(ix), st, "output %u of the branches", i);
    return qx_ix_out_type(ix, n, i, &t);
}

/* ---- If --------------------------------------------------------------------------------------------------------------------- */

/* 1 or 0 when the condition is known, else -1. */
static int condition(qx_infer *ix, qx_node *n)
{
    const qx_content *c = qx_ix_content(ix, n, 0);
    return c && c->n == 1 && c->v[0].kind == QX_NUM_INT ? c->v[0].i != 0 : -1;
}

/* A branch that is perhaps never taken may contradict itself (exporters leave such branches); then nothing is known of it. */
static qx_status branch(qx_infer *ix, qx_node *n, qx_graph *g, bool taken, bool *usable)
{
    *usable = false;
    if (!g) return QX_OK;
    QX_TRY(qx_ix_enter(ix, g));
    qx_status st = qx_infer_graph(ix, g);
    *usable = st == QX_OK;
    if (st == QX_OK || taken || (st != QX_E_SHAPE && st != QX_E_TYPE)) return st;
    qx_warn(qx_ix_ctx(ix), "a branch of node '%s' (If) cannot run: %s", n->name, qx_ctx_error(qx_ix_ctx(ix)));
    qx_ctx_clear_error(qx_ix_ctx(ix));
    return QX_OK;
}

static const qx_type *output_type(qx_infer *ix, const qx_graph *g, uint32_t i)
{
    return i < g->n_outputs ? qx_infer_type(ix, g->outputs[i]) : &no_type;
}

int qx_infer_if(qx_infer *ix, qx_node *n)
{
    qx_graph *yes = qx_ix_body(ix, n, "then_branch"), *no = qx_ix_body(ix, n, "else_branch");
    int taken = condition(ix, n);
    bool has_yes, has_no;
    QX_TRY(branch(ix, n, yes, taken == 1, &has_yes));
    QX_TRY(branch(ix, n, no, taken == 0, &has_no));
    if (yes && no && (yes->n_outputs != n->n_out || no->n_outputs != n->n_out))
        QX_IX_FAIL(ix, n, QX_E_FORMAT, "it has %u outputs, its branches %u and %u", n->n_out, yes->n_outputs, no->n_outputs);
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (taken >= 0 && (taken ? has_yes : has_no)) {
            const qx_value *from = (taken ? yes : no)->outputs[i];
            QX_TRY(qx_ix_out_type(ix, n, i, qx_infer_type(ix, from)));
            qx_ix_out_content(ix, n, i, (qx_content *)qx_infer_content(ix, from));
        } else if (has_yes && has_no) {
            QX_TRY(out_join(ix, n, i, output_type(ix, yes, i), output_type(ix, no, i)));
        }
    }
    return QX_OK;
}

/* ---- Loop ------------------------------------------------------------------------------------------------------------------- */

/* Runs the body with carried types until what it gives back is what it gets: dims that change become unknown. */
static qx_status loop_body(qx_infer *ix, qx_node *n, qx_graph *g, qx_type *carried, qx_type *given_back, uint32_t count)
{
    for (int round = 0; round < 4; round++) {
        bool stable = true;
        QX_TRY(qx_ix_enter(ix, g));
        qx_type iteration = {.kind = QX_KIND_TENSOR, .dtype = QX_DT_INT64, .has_shape = true, .dims = qx_ix_dims(ix, 0)};
        qx_type condition_type = {.kind = QX_KIND_TENSOR, .dtype = QX_DT_BOOL, .has_shape = true, .dims = qx_ix_dims(ix, 0)};
        qx_ix_set_type(ix, g->inputs[0], &iteration);
        qx_ix_set_type(ix, g->inputs[1], &condition_type);
        for (uint32_t i = 0; i < count; i++) qx_ix_set_type(ix, g->inputs[i + 2], &carried[i]);
        QX_TRY(qx_infer_graph(ix, g));
        for (uint32_t i = 0; i < count; i++) {
            const qx_type *back = qx_infer_type(ix, g->outputs[i + 1]);
            qx_type joined = *back;
            /* an optional that the first round fills */
            bool unwraps = carried[i].kind == QX_KIND_OPTIONAL && back->kind != QX_KIND_OPTIONAL;
            if (!unwraps) QX_TRY(qx_ix_join(ix, n, &carried[i], back, &joined));
            stable = stable && (unwraps || qx_type_equal(&joined, &carried[i]));
            given_back[i] = joined;
            if (!unwraps) carried[i] = joined;
        }
        if (stable) return QX_OK;
    }
    return QX_OK;
}

static qx_status stacked(qx_infer *ix, qx_node *n, uint32_t out, const qx_type *t, qx_dim count)
{
    if (t->kind != QX_KIND_TENSOR) return QX_OK;
    if (!t->has_shape) return qx_ix_out_unranked(ix, n, out, dtype_of_type(t));
    qx_dim *dims = qx_ix_dims(ix, t->rank + 1);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = count;
    if (t->rank) memcpy(dims + 1, t->dims, (size_t)t->rank * sizeof *dims);
    return qx_ix_out(ix, n, out, dtype_of_type(t), t->rank + 1, dims);
}

int qx_infer_loop(qx_infer *ix, qx_node *n)
{
    qx_graph *g = qx_ix_body(ix, n, "body");
    if (!g || n->n_in < 2) return QX_OK;
    uint32_t count = n->n_in - 2;
    if (g->n_inputs != n->n_in || g->n_outputs < 1 + count || g->n_outputs - 1 != n->n_out)
        QX_IX_FAIL(ix, n, QX_E_FORMAT, "it has %u inputs and %u outputs, its body %u and %u", n->n_in, n->n_out, g->n_inputs, g->n_outputs);
    qx_type *carried = qx_arena_array(qx_ix_arena(ix), (size_t)count + 1, sizeof *carried);
    qx_type *given_back = qx_arena_array(qx_ix_arena(ix), (size_t)count + 1, sizeof *given_back);
    if (!carried || !given_back) return QX_IX_NOMEM(ix);
    for (uint32_t i = 0; i < count; i++) carried[i] = *qx_ix_in(ix, n, i + 2);
    QX_TRY(loop_body(ix, n, g, carried, given_back, count));
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (i < count) QX_TRY(qx_ix_out_type(ix, n, i, &given_back[i]));
        else QX_TRY(stacked(ix, n, i, qx_infer_type(ix, g->outputs[i + 1]), qx_dim_unknown()));
    }
    return QX_OK;
}

/* ---- Scan ------------------------------------------------------------------------------------------------------------------- */

/* Type of one slice along `axis`, and how long that axis is. */
static qx_status slice_type(qx_infer *ix, qx_node *n, const qx_type *t, int64_t axis_in, int batch, qx_type *out, qx_dim *length)
{
    int axis;
    *out = *t;
    if (t->kind != QX_KIND_TENSOR || !t->has_shape) return QX_OK;
    if (t->rank < batch + 1) QX_IX_FAIL(ix, n, QX_E_SHAPE, "a scanned input has rank %d", t->rank);
    QX_TRY(qx_ix_axis(ix, n, batch ? batch : axis_in, t->rank, &axis));
    out->dims = qx_ix_dims(ix, t->rank);
    if (!out->dims) return QX_IX_NOMEM(ix);
    out->rank = 0;
    for (int i = batch; i < t->rank; i++) {
        if (i != axis) out->dims[out->rank++] = t->dims[i];
    }
    return qx_ix_equal(ix, n, "lengths of the scanned inputs", length, t->dims[axis]);
}

/* Version 8 has a batch axis in front of everything, which the body does not see. */
static qx_status drop_batch(qx_infer *ix, const qx_type *t, qx_dim *batch, qx_type *out)
{
    *out = *t;
    if (t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank == 0) return QX_OK;
    *batch = t->dims[0];
    out->rank = t->rank - 1;
    out->dims = qx_ix_dims(ix, out->rank);
    if (!out->dims) return QX_IX_NOMEM(ix);
    if (out->rank) memcpy(out->dims, t->dims + 1, (size_t)out->rank * sizeof *out->dims);
    return QX_OK;
}

static qx_status scan_outputs(qx_infer *ix, qx_node *n, qx_graph *g, uint32_t states, int batched, qx_dim batch, qx_dim length)
{
    int64_t count;
    const int64_t *axes = qx_ix_ints(ix, n, "scan_output_axes", &count);
    for (uint32_t i = 0; i < n->n_out; i++) {
        const qx_type *t = qx_infer_type(ix, g->outputs[i]);
        if (t->kind != QX_KIND_TENSOR) continue;
        int extra = batched + (i >= states), axis = batched;
        if (!t->has_shape) {
            QX_TRY(qx_ix_out_unranked(ix, n, i, dtype_of_type(t)));
            continue;
        }
        int rank = t->rank + extra;
        if (i >= states && axes && i - states < (uint64_t)count) QX_TRY(qx_ix_axis(ix, n, axes[i - states], rank, &axis));
        qx_dim *dims = qx_ix_dims(ix, rank);
        if (!dims) return QX_IX_NOMEM(ix);
        for (int d = 0, k = 0; d < rank; d++) {
            if (batched && d == 0) dims[d] = batch;
            else if (i >= states && d == axis) dims[d] = length;
            else dims[d] = t->dims[k++];
        }
        QX_TRY(qx_ix_out(ix, n, i, dtype_of_type(t), rank, dims));
    }
    return QX_OK;
}

int qx_infer_scan(qx_infer *ix, qx_node *n)
{
    qx_graph *g = qx_ix_body(ix, n, "body");
    int batched = n->op->since < 9;
    int64_t scans = qx_ix_int(ix, n, "num_scan_inputs", 0), count;
    const int64_t *axes = qx_ix_ints(ix, n, "scan_input_axes", &count);
    uint32_t inputs = n->n_in - (batched && n->n_in ? 1 : 0);
    qx_dim batch = qx_dim_unknown(), length = qx_dim_unknown();
    if (!g) return QX_OK;
    if (scans < 1 || scans > inputs)
        QX_IX_FAIL(ix, n, QX_E_FORMAT, "num_scan_inputs is %lld and it has %u inputs", (long long)scans, inputs);
    if (g->n_inputs != inputs || g->n_outputs != n->n_out)
        QX_IX_FAIL(ix, n, QX_E_FORMAT, "it has %u inputs and %u outputs, its body %u and %u", inputs, n->n_out, g->n_inputs, g->n_outputs);
    uint32_t states = inputs - (uint32_t)scans;
    if (states > n->n_out) QX_IX_FAIL(ix, n, QX_E_FORMAT, "it has %u state variables and %u outputs", states, n->n_out);
    QX_TRY(qx_ix_enter(ix, g));
    for (uint32_t i = 0; i < inputs; i++) {
        const qx_type *t = qx_ix_in(ix, n, i + (uint32_t)batched);
        qx_type seen = *t;
        int64_t axis = axes && i >= states && i - states < (uint64_t)count ? axes[i - states] : 0;
        if (i >= states) QX_TRY(slice_type(ix, n, t, axis, batched, &seen, &length));
        else if (batched) QX_TRY(drop_batch(ix, t, &batch, &seen));
        qx_ix_set_type(ix, g->inputs[i], &seen);
        if (batched && t->kind == QX_KIND_TENSOR && t->has_shape && t->rank) batch = t->dims[0];
    }
    QX_TRY(qx_infer_graph(ix, g));
    return scan_outputs(ix, n, g, states, batched, batch, length);
}

/* ---- SequenceMap ---------------------------------------------------------------------------------------------------------------- */

int qx_infer_sequence_map(qx_infer *ix, qx_node *n)
{
    qx_graph *g = qx_ix_body(ix, n, "body");
    if (!g || g->n_inputs != n->n_in || g->n_outputs != n->n_out) return QX_OK;
    QX_TRY(qx_ix_enter(ix, g));
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_type *t = qx_ix_in(ix, n, i);
        qx_ix_set_type(ix, g->inputs[i], t->kind == QX_KIND_SEQUENCE && t->elem ? t->elem : t);
    }
    QX_TRY(qx_infer_graph(ix, g));
    for (uint32_t i = 0; i < n->n_out; i++) {
        const qx_type *made = qx_infer_type(ix, g->outputs[i]);
        if (made->kind != QX_KIND_TENSOR) continue; /* sequences hold tensors */
        qx_type *elem = qx_arena_memdup(qx_ix_arena(ix), made, sizeof *elem);
        if (!elem) return QX_IX_NOMEM(ix);
        QX_TRY(qx_ix_out_type(ix, n, i, &(qx_type){.kind = QX_KIND_SEQUENCE, .elem = elem}));
    }
    return QX_OK;
}

/* FlexAttention: the score matrix goes through the subgraphs; Q and V decide the output. */
int qx_infer_flex_attention(qx_infer *ix, qx_node *n)
{
    static const char *const bodies[] = {"score_mod", "prob_mod"};
    const qx_type *q, *k, *v;
    if (!qx_ix_shaped(ix, n, 0, &q) || !qx_ix_shaped(ix, n, 1, &k) || !qx_ix_shaped(ix, n, 2, &v))
        return qx_ix_out_unranked(ix, n, 0, dtype_of_type(qx_ix_in(ix, n, 0)));
    if (q->rank != 4 || k->rank != 4 || v->rank != 4)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "Q, K and V have ranks %d, %d and %d instead of 4", q->rank, k->rank, v->rank);
    qx_type scores = {.kind = QX_KIND_TENSOR, .has_shape = true, .rank = 4, .dims = qx_ix_dims(ix, 4)};
    qx_dim *dims = qx_ix_dims(ix, 4);
    if (!dims || !scores.dims) return QX_IX_NOMEM(ix);
    scores.dtype = (qx_dtype)qx_ix_int(ix, n, "softmax_precision", q->dtype == QX_DT_DOUBLE ? QX_DT_DOUBLE : QX_DT_FLOAT);
    memcpy(scores.dims, (qx_dim[]){q->dims[0], q->dims[1], q->dims[2], k->dims[2]}, 4 * sizeof *dims);
    memcpy(dims, (qx_dim[]){q->dims[0], q->dims[1], q->dims[2], v->dims[3]}, 4 * sizeof *dims);
    for (int i = 0; i < 2; i++) {
        qx_graph *g = qx_ix_body(ix, n, bodies[i]);
        if (!g) continue;
        if (g->n_inputs != 1 || g->n_outputs != 1)
            QX_IX_FAIL(ix, n, QX_E_FORMAT, "%s has %u inputs and %u outputs instead of one each", bodies[i], g->n_inputs, g->n_outputs);
        QX_TRY(qx_ix_enter(ix, g));
        qx_ix_set_type(ix, g->inputs[0], &scores);
        QX_TRY(qx_infer_graph(ix, g));
    }
    return qx_ix_out(ix, n, 0, (int)q->dtype, 4, dims);
}
