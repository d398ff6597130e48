/* products.c - see products.h. jax2onnx writes every dense layer as an Einsum, Keras' EinsumDense is one. Runtimes have products of
 * integers and of blocks of 4 bits for MatMul alone; an Einsum behind a DequantizeLinear computes in float, and decodes its weight
 * in each run. */
#include "passes/linear/products.h"

#include <string.h>

#include "onnx/edit.h"
#include "onnx/weight/weight.h"
#include "passes/linear/equation.h"
#include "passes/linear/linear.h"

enum { MOST = QX_EQUATION_AXES };

/* x is [lead..., in...], y [lead..., out...], and the weight [in..., out...], or turned the other way round. */
typedef struct form { int lead, in, out; bool turned, dots; } form;

static int labels_until(const char *term, const char *of, bool met)
{
    int n = 0;
    while (term[n] && !strchr(of, term[n]) == !met) n++;
    return n;
}

static bool read_form(const char *x, const char *w, const char *y, form *f)
{
    f->lead = labels_until(x, w, false);
    f->in = (int)strlen(x) - f->lead;
    f->out = (int)strlen(y) - f->lead;
    f->dots = memchr(x, '.', (size_t)f->lead) != NULL;
    if (f->in < 1 || f->out < 1 || strncmp(x, y, (size_t)f->lead) != 0 || (int)strlen(w) != f->in + f->out) return false;
    const char *in = x + f->lead, *out = y + f->lead;
    if (labels_until(in, y, false) != f->in || labels_until(out, x, false) != f->out) return false;
    f->turned = strncmp(w, out, (size_t)f->out) == 0 && strcmp(w + f->out, in) == 0;
    return f->turned || (strncmp(w, in, (size_t)f->in) == 0 && strcmp(w + f->in, out) == 0);
}

/* A name beside the node's, or where it has none beside its result's. */
static const char *beside(const qx_node *n, const char *what)
{
    qx_model *m = n->graph->model;
    return qx_unique_name(m, qx_arena_printf(m->arena, "%s_%s", n->name[0] ? n->name : n->out[0]->name, what));
}

static qx_status put(qx_node *n, const char *op, qx_value *const *in, uint32_t n_in, qx_node *before, qx_node **out)
{
    const char *name = beside(n, op);
    if (!name) return QX_E_NOMEM;
    return qx_node_add(n->graph, &(qx_node_spec){.op_type = op, .domain = "", .name = name, .in = in, .n_in = n_in, .out_names = &name,
                                                 .n_out = 1}, before, out);
}

/* v as [lead..., last...]: lead dims stay what they are. */
static qx_status reshape(qx_node *n, qx_value *v, int lead, const int64_t *last, int count, qx_node *before, qx_node **out)
{
    int64_t dims[2 * MOST] = {0}, rank = lead + count;
    qx_weight *w;
    qx_value *in[2] = {v};
    const char *name = beside(n, "shape");
    if (!name) return QX_E_NOMEM;
    memcpy(dims + lead, last, (size_t)count * sizeof *dims);
    QX_TRY(qx_weight_from_bytes(n->graph->model, QX_DT_INT64, 1, &rank, dims, &w));
    QX_TRY(qx_init_add(n->graph, name, w, &in[1]));
    return put(n, "Reshape", in, 2, before, out);
}

/* The type of a value of [lead of like..., last]. */
static qx_status set_type(qx_value *v, const qx_type *like, int lead, int64_t last)
{
    qx_type t = *like;
    if (!t.has_shape) return qx_value_set_type(v, &t);
    t.rank = lead + 1;
    t.dims = qx_arena_array(v->graph->model->arena, (size_t)t.rank, sizeof *t.dims);
    if (!t.dims) return QX_E_NOMEM;
    for (int i = 0; i < lead; i++) t.dims[i] = like->dims[i];
    t.dims[lead] = (qx_dim){last, NULL};
    return qx_value_set_type(v, &t);
}

static int64_t product(const int64_t *dims, int n)
{
    int64_t p = 1;
    for (int i = 0; i < n; i++) p *= dims[i]; /* of a weight: known to fit */
    return p;
}

/* The weight of more than two axes as a matrix: the same bytes under other dims. */
static qx_status flatten(qx_node *n, uint32_t index, int first)
{
    qx_value *old = n->in[index], *v;
    qx_model *m = n->graph->model;
    qx_graph *g = old->graph;
    const char *name = old->name;
    qx_weight *w = qx_arena_memdup(m->arena, old->init, sizeof *w);
    int64_t *dims = qx_arena_array(m->arena, 2, sizeof *dims);
    if (!w || !dims) return QX_E_NOMEM;
    dims[0] = product(w->dims, first);
    dims[1] = product(w->dims + first, w->rank - first);
    w->rank = 2;
    w->dims = dims;
    w->wire = NULL;
    QX_TRY(qx_node_set_in(n, index, NULL));
    QX_TRY(qx_init_erase(old));
    QX_TRY(qx_init_add(g, name, w, &v));
    return qx_node_set_in(n, index, v);
}

static qx_status turn(qx_node *n, uint32_t index)
{
    qx_node *t;
    QX_TRY(put(n, "Transpose", &n->in[index], 1, n, &t));
    QX_TRY(qx_attr_set_ints(t, "perm", (const int64_t[]){1, 0}, 2));
    const qx_type *from = &n->in[index]->type;
    if (from->has_shape && from->rank == 2) {
        qx_dim dims[2] = {from->dims[1], from->dims[0]};
        qx_type to = *from;
        to.dims = qx_arena_memdup(n->graph->model->arena, dims, sizeof dims);
        if (!to.dims) return QX_E_NOMEM;
        QX_TRY(qx_value_set_type(t->out[0], &to));
    }
    return qx_node_set_in(n, index, t->out[0]);
}

/* The result of several last axes: y, one of them now, goes through a Reshape that takes its place and name. */
static qx_status spread(qx_node *n, int lead, const int64_t *dims, int count)
{
    qx_value *y = n->out[0];
    const qx_type type = y->type;
    qx_node *r;
    QX_TRY(reshape(n, y, lead, dims, count, n->next, &r));
    QX_TRY(qx_value_replace_uses(y, r->out[0], r));
    if (y->is_output) QX_TRY(qx_output_rewire(y, r->out[0]));
    else QX_TRY(qx_value_swap_names(y, r->out[0]));
    QX_TRY(qx_value_set_type(r->out[0], &type));
    return set_type(n->out[0], &type, lead, product(dims, count));
}

static qx_status write_product(qx_node *n, uint32_t index, const form *f, const int64_t *dims)
{
    const int64_t *in = dims + (f->turned ? f->out : 0), *out = dims + (f->turned ? 0 : f->in);
    int64_t k = product(in, f->in);
    qx_value *x = n->in[1 - index];
    qx_node *r;
    if (f->in > 1) {
        const qx_type type = x->type;
        QX_TRY(reshape(n, x, f->lead, &k, 1, n, &r));
        QX_TRY(set_type(r->out[0], &type, f->lead, k));
        x = r->out[0];
    }
    if (f->in + f->out > 2) QX_TRY(flatten(n, index, f->turned ? f->out : f->in));
    if (f->turned) QX_TRY(turn(n, index));
    qx_value *w = n->in[index];
    QX_TRY(qx_node_set_in(n, 0, x));
    QX_TRY(qx_node_set_in(n, 1, w));
    QX_TRY(qx_attr_remove(n, "equation"));
    QX_TRY(qx_node_set_op(n, "", "MatMul"));
    return f->out > 1 ? spread(n, f->lead, out, f->out) : QX_OK;
}

/* Whether the stored tensor can have other dims: no one else reads it. */
static bool own(const qx_value *w) { return w->init && !w->init->job && w->n_uses == 1 && !w->is_input && !w->is_output; }

static qx_status look(void *user, qx_node *n)
{
    qx_equation e;
    qx_const_view c;
    form f;
    int64_t dims[2 * MOST];
    (void)user;
    if (n->op->id != QX_OP_Einsum || n->n_in != 2 || n->graph->function) return QX_OK;
    if (!qx_equation_read(qx_attr_string(n, "equation", ""), &e)) return QX_OK;
    const uint32_t index = qx_const_trace(n->in[0], &c) ? 0 : 1;
    const qx_value *w = n->in[index], *x = n->in[1 - index];
    if (!qx_const_trace(w, &c) || c.quantized || !qx_dtype_is_float(c.tensor->dtype)) return QX_OK;
    if (!read_form(e.term[1 - index], e.term[index], e.term[2], &f)) return QX_OK;
    if (!w->type.has_shape || w->type.rank != f.in + f.out || (w->type.rank > 2 && !own(w))) return QX_OK;
    for (int i = 0; i < w->type.rank; i++)
        if ((dims[i] = w->type.dims[i].n) < 1) return QX_OK;
    if (f.dots && f.in + f.out > 2) { /* how many axes the dots are */
        if (!x->type.has_shape || x->type.rank < f.in || x->type.rank > MOST) return QX_OK;
        f.lead = x->type.rank - f.in;
    }
    return write_product(n, index, &f, dims);
}

qx_status qx_einsum_products(qx_model *m) { return qx_model_each_node(m, look, NULL); }
