/* unfuse.c - see unfuse.h. A session of ONNX Runtime that saves its optimised model writes these two; a format has no place for its
 * nodes in them, no other runtime knows them, and ONNX Runtime fuses the plain form again when it loads the file. */
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

static qx_status unfuse(void *user, qx_node *n)
{
    const bool conv = n->op->id == QX_OP_ms_FusedConv;
    const char *name = conv || n->op->id == QX_OP_ms_FusedGemm ? qx_attr_string(n, "activation", "") : NULL;
    const struct form *f = name ? form_of(name) : NULL;
    qx_value *y = n->out[0], *addend = conv ? qx_node_in(n, 3) : NULL;
    tail t = {n, y, &y->type};
    float p[2] = {0};
    (void)user;
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
