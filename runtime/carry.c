/* carry.c - outputs that are inputs of the next run, as the cache of a language model is: they stay in the executor instead of going out
 * and in again. GroupQueryAttention says itself how many rows of its cache count, so where it is the only reader a cache that has grown
 * gets rows to spare, and the next runs append to it where it lies. */
#include <string.h>

#include "runtime/plan.h"

struct qx_carry { const qx_value *from, *to; qx_tensor t; }; /* t.data NULL and rank 0: nothing yet */

static qx_carry *carry_of(const qx_exec *x, const qx_value *v)
{
    for (int64_t i = 0; i < x->n_carries; i++)
        if (x->carries[i].from == v || x->carries[i].to == v) return &x->carries[i];
    return NULL;
}

qx_status qx_exec_carry(qx_exec *x, const char *output, const char *input)
{
    const qx_graph *g = x->model->graph;
    const qx_value *from = qx_graph_find(g, output), *to = qx_graph_find(g, input);
    if (!from || !from->is_output) QX_FAIL(x->ctx, QX_E_USAGE, "the model has no output '%s'", output);
    if (!to || !to->is_input || to->init) QX_FAIL(x->ctx, QX_E_USAGE, "the model has no input '%s' that runs are given", input);
    if (carry_of(x, from) || carry_of(x, to)) QX_FAIL(x->ctx, QX_E_USAGE, "'%s' or '%s' is carried already", output, input);
    if (from->type.kind != QX_KIND_TENSOR || to->type.kind != QX_KIND_TENSOR || from->type.dtype != to->type.dtype)
        QX_FAIL(x->ctx, QX_E_TYPE, "output '%s' and input '%s' are not tensors of one type", output, input);
    QX_TRY(qx_grow(x->ctx, (void **)&x->carries, x->n_carries, &x->cap_carries, sizeof *x->carries));
    x->carries[x->n_carries++] = (qx_carry){.from = from, .to = to};
    return QX_OK;
}

void qx_carries_drop(qx_exec *x)
{
    for (int64_t i = 0; i < x->n_carries; i++) qx_tensor_free(x->ctx, &x->carries[i].t);
    qx_free(x->ctx, x->carries);
}

bool qx_is_carried(const qx_exec *x, const qx_value *v) { return carry_of(x, v) && v->is_output; }

void qx_carries_bind(qx_exec *x)
{
    for (int64_t i = 0; i < x->n_carries; i++) {
        qx_carry *c = &x->carries[i];
        qx_slot *s = &x->slots[c->to->id];
        if (s->set) { /* given: it begins anew */
            qx_tensor_free(x->ctx, &c->t);
            c->t = (qx_tensor){.data = NULL};
        } else if (c->t.rank) {
            *s = (qx_slot){.t = c->t, .set = true, .borrowed = true};
        }
    }
}

/* ---- Caches that grow ---- */

/* The only reader tells by itself how many of the rows count, and nobody sees the result between two runs. */
static bool may_have_spare_rows(const qx_exec *x, const qx_carry *c)
{
    const qx_use *u = c->to->uses;
    const qx_node *n = u ? u->node : NULL;
    const qx_type *t = &c->to->type;
    if (!n || c->to->n_uses != 1 || c->from->n_uses || x->device || n->op->id != QX_OP_ms_GroupQueryAttention) return false;
    const bool one_cache = (u->index == 3 || u->index == 4) && qx_node_out(n, u->index - 2) == c->from;
    const bool fixed = t->has_shape && t->rank == 4 && t->dims[2].n >= 0;
    return one_cache && !fixed && !qx_node_in(n, 10) && !qx_node_out(n, 3) && !qx_attr_int(n, "sliding_window_cache", 0);
}

enum { LEAST_SPARE = 32 };

/* [batch, heads, rows, row]: half as many rows more. */
static qx_status with_spare_rows(qx_exec *x, qx_tensor *t)
{
    const int64_t heads = t->dims[0] * t->dims[1], rows = t->dims[2], more = rows / 2 > LEAST_SPARE ? rows / 2 : LEAST_SPARE;
    const int64_t dims[4] = {t->dims[0], t->dims[1], rows + more, t->dims[3]};
    qx_tensor wide;
    if (!t->numel) return QX_OK;
    QX_TRY(qx_tensor_new(x->ctx, &wide, t->dtype, 4, dims));
    const size_t row = t->bytes / (size_t)(heads * rows), had = row * (size_t)rows, has = row * (size_t)dims[2];
    for (int64_t i = 0; i < heads; i++) {
        char *to = (char *)wide.data + (size_t)i * has;
        memcpy(to, (const char *)t->data + (size_t)i * had, had);
        memset(to + had, 0, has - had);
    }
    qx_tensor_free(x->ctx, t);
    *t = wide;
    return QX_OK;
}

qx_status qx_carries_keep(qx_exec *x)
{
    for (int64_t i = 0; i < x->n_carries; i++) {
        qx_carry *c = &x->carries[i];
        qx_tensor fresh;
        if (x->slots[c->from->id].set && c->t.data && x->slots[c->from->id].t.data == c->t.data) continue; /* appended in place */
        QX_TRY(qx_give_output(x, c->from, &fresh));
        qx_tensor_free(x->ctx, &c->t);
        c->t = fresh;
        if (may_have_spare_rows(x, c)) QX_TRY(with_spare_rows(x, &c->t));
    }
    return QX_OK;
}

/* ---- For the adapter ---- */

qx_status qx_call_out_append(qx_call *c, uint32_t i, uint32_t from, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t)
{
    qx_exec *x = c->exec;
    const qx_value *in = from < c->step->n_in ? c->step->in_value[from] : NULL;
    const qx_carry *k = in ? carry_of(x, in) : NULL;
    const qx_tensor *have = qx_call_in(c, from);
    const bool same = k && have && i < c->n_out && c->step->out[i] == k->from->id && in->n_uses == 1 && have->data == k->t.data &&
        have->dtype == dtype && have->rank == rank && memcmp(have->dims, dims, (size_t)rank * sizeof *dims) == 0;
    if (!same || x->depth > 0) return qx_call_out(c, i, dtype, rank, dims, t);
    qx_slot *s = &x->slots[k->from->id];
    qx_slot_clear(x, s);
    *s = (qx_slot){.t = *have, .set = true, .borrowed = true};
    if (t) *t = &s->t;
    return QX_OK;
}
