/* unfuse.c - see unfuse.h. A session of ONNX Runtime that saves its optimised model writes FusedConv and FusedGemm; a format has no
 * place for its nodes in them, no other runtime knows them, and ONNX Runtime fuses the plain form again when it loads the file. Its
 * transformer tool puts the projections of queries, keys and values into Attention, a third of a transformer's weights, which no
 * format reaches there; MultiHeadAttention is the same without them. */
#include "passes/linear/unfuse.h"

#include <math.h>
#include <string.h>

#include "onnx/edit.h"
#include "onnx/weight/weight.h"

/* Attributes of the activation by their place in activation_params, which FusedGemm calls activation_alpha and activation_beta. */
static const struct form { const char *name, *attr[2]; float fallback[2]; } forms[] = {
    {"Relu", {0}, {0}}, {"Sigmoid", {0}, {0}}, {"Tanh", {0}, {0}}, {"Softplus", {0}, {0}}, {"Softsign", {0}, {0}},
    {"LeakyRelu", {"alpha"}, {0.01f}}, {"Elu", {"alpha"}, {1}}, {"ThresholdedRelu", {"alpha"}, {1}},
    {"HardSigmoid", {"alpha", "beta"}, {0.2f, 0.5f}}, {"Clip", {"min", "max"}, {-INFINITY, INFINITY}},
};
enum { CLIP_BY_INPUTS = 11 };

/* The rest of a node that is being written out: y is what has been computed so far, at the last node written. */
typedef struct tail { qx_node *at; qx_value *y; const qx_type *type; } tail;

static qx_status append(tail *t, const char *op, qx_value *const *in, uint32_t n_in)
{
    qx_graph *g = t->at->graph;
    const char *base = t->at->name[0] ? t->at->name : t->y->name;
    const char *name = qx_unique_name(g->model, qx_arena_printf(g->model->arena, "%s_%s", base, op));
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_node_add(g, &(qx_node_spec){.op_type = op, .domain = "", .name = name, .in = in, .n_in = n_in, .out_names = &name,
                                          .n_out = 1}, t->at->next, &t->at));
    t->y = t->at->out[0];
    return qx_value_set_type(t->y, t->type);
}

static qx_status clip(tail *t, const float *p)
{
    qx_value *in[3] = {t->y};
    qx_graph *g = t->at->graph;
    for (int i = 0; i < 2; i++) {
        qx_weight *w;
        QX_TRY(qx_weight_scalar_f32(g->model, t->type->dtype, p[i], &w));
        QX_TRY(qx_init_add(g, qx_arena_printf(g->model->arena, "%s_%s", t->y->name, i ? "max" : "min"), w, &in[1 + i]));
    }
    return append(t, "Clip", in, 3);
}

static qx_status activate(tail *t, const struct form *f, const float *p)
{
    if (strcmp(f->name, "Clip") == 0) return clip(t, p);
    QX_TRY(append(t, f->name, &t->y, 1));
    for (int i = 0; i < 2 && f->attr[i]; i++) QX_TRY(qx_attr_set_float(t->at, f->attr[i], p[i]));
    return QX_OK;
}

static const struct form *form_of(const char *name)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(forms[i].name, name) == 0) return &forms[i];
    return NULL;
}

static void read_params(const qx_node *n, const struct form *f, float *p)
{
    static const char *const names[2] = {"activation_alpha", "activation_beta"};
    const qx_attr *a = qx_node_attr(n, "activation_params");
    const int64_t count = a ? a->n : 0;
    for (int i = 0; i < 2; i++) p[i] = i < count && a->floats ? a->floats[i] : qx_attr_float(n, names[i], f->fallback[i]);
}

static qx_status plain_operator(qx_node *n, const char *op)
{
    static const char *const gone[] = {"activation", "activation_params", "activation_alpha", "activation_beta"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) QX_TRY(qx_attr_remove(n, gone[i]));
    if (n->n_in > 3) QX_TRY(qx_node_truncate_in(n, 3));
    return qx_node_set_op(n, "", op);
}

/* ---- Attention: its projection as a MatMul ------------------------------------------------------------------------------------ */

enum { A_X, A_WEIGHTS, A_BIAS, A_MASK, A_PAST, A_SCORES }; /* inputs of Attention */

/* Lengths of each row of the batch, or a mask by position; two lengths in one vector are not MultiHeadAttention's. */
static bool mask_fits(const qx_value *mask, const qx_value *x)
{
    if (!mask) return true;
    const qx_type *t = &mask->type;
    return t->has_shape && (t->rank == 2 || t->rank == 3 || (t->rank == 1 && qx_dim_same(t->dims[0], x->type.dims[0])));
}

static bool only_projects(const qx_node *n)
{
    const qx_value *x = n->in[A_X], *w = n->in[A_WEIGHTS];
    const bool has_state = qx_node_in(n, A_PAST) || n->n_in > A_SCORES + 1 || qx_node_out(n, 1) || qx_attr_int(n, "do_rotary", 0);
    return !has_state && w && qx_value_const(w) && w->type.rank == 2 && x->type.has_shape && x->type.rank == 3 &&
        mask_fits(qx_node_in(n, A_MASK), x);
}

/* Columns of queries, keys and values; false: they do not add up. */
static bool widths(const qx_node *n, int64_t *out)
{
    int64_t count, all = n->in[A_WEIGHTS]->type.dims[1].n;
    const int64_t *sizes = qx_attr_ints(n, "qkv_hidden_sizes", &count);
    if (sizes && count != 3) return false;
    for (int i = 0; i < 3; i++) out[i] = sizes ? sizes[i] : all / 3;
    return out[0] > 0 && out[1] > 0 && out[2] > 0 && out[0] + out[1] + out[2] == all;
}

static qx_status narrow(qx_value *v, const qx_type *like, int64_t width)
{
    qx_type t = *like;
    t.dims = qx_arena_memdup(v->graph->model->arena, like->dims, (size_t)like->rank * sizeof *t.dims);
    if (!t.dims) return QX_E_NOMEM;
    t.dims[t.rank - 1] = (qx_dim){.n = width};
    return qx_value_set_type(v, &t);
}

static const char *beside(const qx_node *n, const char *what)
{
    qx_model *m = n->graph->model;
    return qx_unique_name(m, qx_arena_printf(m->arena, "%s_%s", n->name[0] ? n->name : n->out[0]->name, what));
}

static qx_status split(qx_node *n, qx_value *all, const int64_t *width, qx_node **out)
{
    enum { SIZES_BY_INPUT = 13 };
    const bool by_input = qx_graph_opset(n->graph, "") >= SIZES_BY_INPUT;
    const char *names[3] = {beside(n, "q"), beside(n, "k"), beside(n, "v")}, *name = beside(n, "Split");
    qx_value *in[2] = {all};
    qx_weight *w;
    if (!names[0] || !names[1] || !names[2] || !name) return QX_E_NOMEM;
    if (by_input) {
        QX_TRY(qx_weight_from_bytes(n->graph->model, QX_DT_INT64, 1, (const int64_t[]){3}, width, &w));
        QX_TRY(qx_init_add(n->graph, beside(n, "sizes"), w, &in[1]));
    }
    QX_TRY(qx_node_add(n->graph, &(qx_node_spec){.op_type = "Split", .domain = "", .name = name, .in = in, .n_in = by_input ? 2 : 1,
                                                 .out_names = names, .n_out = 3}, n, out));
    QX_TRY(qx_attr_set_int(*out, "axis", 2));
    if (!by_input) QX_TRY(qx_attr_set_ints(*out, "split", width, 3));
    for (int i = 0; i < 3; i++) QX_TRY(narrow((*out)->out[i], &all->type, width[i]));
    return QX_OK;
}

static qx_status project_outside(qx_node *n)
{
    static const char *const gone[] = {"qkv_hidden_sizes", "do_rotary", "rotary_embedding_dim", "past_present_share_buffer"};
    int64_t width[3];
    qx_node *product, *parts;
    const char *name = beside(n, "qkv_MatMul");
    if (!name) return QX_E_NOMEM;
    if (!widths(n, width)) return QX_OK;
    QX_TRY(qx_node_add(n->graph, &(qx_node_spec){.op_type = "MatMul", .domain = "", .name = name, .in = n->in, .n_in = 2,
                                                 .out_names = &name, .n_out = 1}, n, &product));
    QX_TRY(narrow(product->out[0], &n->in[A_X]->type, width[0] + width[1] + width[2]));
    QX_TRY(split(n, product->out[0], width, &parts));
    qx_value *in[6] = {parts->out[0], parts->out[1], parts->out[2], qx_node_in(n, A_BIAS), qx_node_in(n, A_MASK), qx_node_in(n, A_SCORES)};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) QX_TRY(qx_attr_remove(n, gone[i]));
    QX_TRY(qx_node_set_op(n, "com.microsoft", "MultiHeadAttention"));
    const uint32_t n_in = in[5] ? 6 : in[4] ? 5 : in[3] ? 4 : 3;
    for (uint32_t i = 0; i < n_in; i++) QX_TRY(qx_node_set_in(n, i, in[i]));
    return n->n_in > n_in ? qx_node_truncate_in(n, n_in) : QX_OK;
}

/* ---- all ---------------------------------------------------------------------------------------------------------------------- */

static qx_status unfuse(void *user, qx_node *n)
{
    const bool conv = n->op->id == QX_OP_ms_FusedConv;
    const char *name = conv || n->op->id == QX_OP_ms_FusedGemm ? qx_attr_string(n, "activation", "") : NULL;
    const struct form *f = name ? form_of(name) : NULL;
    qx_value *y = n->out[0], *addend = conv ? qx_node_in(n, 3) : NULL;
    tail t = {n, y, &y->type};
    float p[2] = {0};
    (void)user;
    if (n->op->id == QX_OP_ms_Attention && only_projects(n)) return project_outside(n);
    if (!name || (*name && !f) || y->type.kind != QX_KIND_TENSOR) return QX_OK;
    if (f && strcmp(f->name, "Clip") == 0 && qx_graph_opset(n->graph, "") < CLIP_BY_INPUTS) return QX_OK;
    if (f) read_params(n, f, p);
    QX_TRY(plain_operator(n, conv ? "Conv" : "Gemm"));
    if (addend) QX_TRY(append(&t, "Add", (qx_value *[]){y, addend}, 2));
    if (f) QX_TRY(activate(&t, f, p));
    if (t.y == y) return QX_OK;
    if (y->is_output) QX_TRY(qx_output_rewire(y, t.y));
    return qx_value_replace_uses(y, t.y, n->next); /* but the first of the new nodes */
}

qx_status qx_unfuse(qx_model *m)
{
    return qx_model_each_node(m, unfuse, NULL);
}
