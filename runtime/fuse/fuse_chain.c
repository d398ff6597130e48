/* fuse_chain.c - pointwise nodes of the main graph, one behind the other, as one step for devices that have a kernel for it: each
 * of them is bound by reading and writing memory, which is done once then. The values in between are rounded to their type as if
 * they had been stored. What has a fused step of its own (activations, residuals of products) comes before this. */
#include <string.h>

#include "runtime/device/device.h"
#include "runtime/fuse/fuse.h"
#include "runtime/pointwise_ops.h"

/* A link: a node as an operation on the running value. */
typedef struct link { qx_rstep *step; int64_t fn; bool binary; float p[2]; int main; } link; /* main: the input that is the running value */

static bool real_value(const qx_value *v)
{
    return v && qx_value_is_real(v);
}

static bool unary_link(const qx_node *n, link *out)
{
    const qx_unary_row *r = qx_unary_row_of(n->op->id);
    if (!r || (r->op == QX_OP_Gelu && qx_node_attr(n, "approximate"))) return false;
    *out = (link){.fn = (int64_t)r->fn, .p = {r->p0 ? qx_attr_float(n, r->p0, r->d0) : 0, r->p1 ? qx_attr_float(n, r->p1, r->d1) : 0}};
    return true;
}

static bool binary_link(const qx_node *n, link *out)
{
    const qx_binary_row *r = qx_binary_row_of(n->op->id);
    if (!r || r->to_bool || n->n_in != 2 || n->op->since < 7 || r->op == QX_OP_Mean) return false;
    *out = (link){.fn = (int64_t)r->fn, .binary = true};
    return true;
}

/* The step as a link, when it is one; which input is the running value is not decided yet. */
static bool as_link(qx_rstep *s, link *out)
{
    if (!s || s->fused || s->ref_attrs || s->n_out != 1 || !s->out_value[0]) return false;
    const qx_node *n = s->node;
    if (!unary_link(n, out) && !binary_link(n, out)) return false;
    out->step = s;
    if (!real_value(s->out_value[0])) return false;
    for (uint32_t i = 0; i < s->n_in; i++)
        if (!real_value(s->in_value[i]) || s->in_value[i]->type.dtype != s->out_value[0]->type.dtype) return false;
    return true;
}

/* Input i of the link may be the running value: it has the dims of the result. */
static bool runs_through(const link *l, uint32_t i)
{
    return i < l->step->n_in && qx_type_same_dims(&l->step->in_value[i]->type, &l->step->out_value[0]->type);
}

/* The link before l in its chain; *before is set, and l->main. */
static bool link_before(const qx_fuser *f, link *l, link *before)
{
    for (uint32_t i = 0; i < l->step->n_in; i++) {
        const qx_value *v = l->step->in_value[i];
        if (!runs_through(l, i) || qx_fuse_user(f, v) != l->step || !as_link(qx_fuse_def(f, v), before)) continue;
        l->main = (int)i;
        if (runs_through(before, 0) || runs_through(before, 1)) return true;
    }
    return false;
}

static bool is_last(const qx_fuser *f, const qx_rstep *s)
{
    link next, here;
    if (!as_link(qx_fuse_user(f, s->out_value[0]), &next)) return true;
    return !link_before(f, &next, &here) || here.step != s;
}

static qx_status build(qx_fuser *f, qx_rstep *s, const link *links, int n)
{
    const qx_value *in[1 + QX_CHAIN_OPS];
    uint32_t n_in = 1;
    qx_chain_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    memset(p, 0, sizeof *p);
    in[0] = links[n - 1].step->in_value[links[n - 1].main];
    for (int i = 0; i < n; i++) { /* the first link lies last */
        const link *l = &links[n - 1 - i];
        int64_t *op = p->ops + QX_CHAIN_FIELDS * i;
        op[QX_CHAIN_FN] = l->fn;
        op[QX_CHAIN_BINARY] = l->binary;
        op[QX_CHAIN_SWAPPED] = l->binary && l->main == 1;
        op[QX_CHAIN_INPUT] = l->binary ? n_in : 0;
        memcpy(p->p + 2 * i, l->p, sizeof l->p);
        if (l->binary) in[n_in++] = l->step->in_value[1 - l->main];
    }
    p->n = n;
    return qx_fuse_set(f, s, qx_cpu_chain, p, in, n_in, s->out_value[0]);
}

qx_status qx_fuse_chain(qx_fuser *f, qx_rstep *s)
{
    link links[QX_CHAIN_OPS];
    int n = 1;
    if (!f->x->device || !f->x->device->b->chains || f->p->graph != f->x->model->graph || !as_link(s, &links[0]) || !is_last(f, s))
        return QX_OK;
    while (n < QX_CHAIN_OPS && link_before(f, &links[n - 1], &links[n])) n++;
    link *first = &links[n - 1];
    first->main = runs_through(first, 0) ? 0 : 1;
    return n > 1 && runs_through(first, (uint32_t)first->main) ? build(f, s, links, n) : QX_OK;
}
