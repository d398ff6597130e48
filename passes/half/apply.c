/* apply.c - makes 16-bit nodes of those that were chosen. A value has the type that its maker gives it; a reader of the other
 * type gets a Cast, one for all readers, right behind the maker. Weights are stored in the type that their readers want, in both
 * where they differ. Inputs and outputs of graphs and of bodies stay float32. */
#include "passes/half/half.h"

#include <math.h>
#include <string.h>

#include "onnx/weight/weight.h"

typedef struct apply {
    qx_half *h;
    qx_value **other;    /* [n_values] the same value in the other type; NULL: not made yet */
    bool *is_half;       /* [n_values] its maker gives 16 bits */
    bool *large;         /* [n_values] float32 that may leave the type's range, because a constant on its way does */
    qx_linears linears;
    const qx_view **view; /* [n_values] how the linear operator that reads this weight sees it */
} apply;

/* ---- weights -------------------------------------------------------------------------------------------------------------------- */

/* From `masked` on a value stands for infinity, and `infinite` for it: far enough from 0 for any exp, and from the end of the range for
 * a score, or another mask, to be added. Rounded to bfloat16 float32's lowest number would be minus infinity. */
typedef struct range { float masked, infinite, end; const char *min, *max; } range;
static const range fp16_range = {QX_HALF_MASKED, 32752, 65504, "fp16_min", "fp16_max"},
                   bf16_range = {0x1.fep127f, 0x1p120f, 0x1.fep127f, "bf16_min", "bf16_max"};

static const range *range_of(const apply *a) { return a->h->type == QX_DT_FLOAT16 ? &fp16_range : &bf16_range; }

static float clamp(const range *r, float x) /* NaN stays */
{
    const float end = fabsf(x) >= r->masked ? r->infinite : r->end;
    return x > end ? end : x < -end ? -end : x;
}

static qx_status clamp_cells(qx_ctx *ctx, const qx_step *s, const qx_cells *c, float *x)
{
    (void)ctx;
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t k = 0; k < c->cols; k++) {
            float *at = &x[r * c->row_stride + k * c->col_stride];
            *at = clamp(s->arg, *at);
        }
    return QX_OK;
}

static qx_status clamp_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    (void)ctx, (void)first, (void)scratch;
    for (int64_t i = 0; i < rows * k; i++) x[i] = clamp(s->arg, x[i]);
    return QX_OK;
}

static const qx_stepdef step_clamp = {.name = "clamp", .rows = clamp_rows, .cells = clamp_cells};

qx_status qx_half_store(qx_model *m, const qx_weight *w, const qx_view *view, qx_dtype type, const qx_step *step, qx_weight **out)
{
    const int64_t last = w->rank ? w->dims[w->rank - 1] : 1;
    const qx_view rows = {.n = last ? w->numel / last : 0, .outer = 1, .inner = last};
    const qx_qspec spec = {.codes = type};
    qx_job *job;
    if (!w->numel) return qx_weight_from_bytes(m, type, w->rank, w->dims, "", out);
    QX_TRY(qx_job_new(m, w, view ? view : &rows, step, &spec, QX_LAYOUT_SAME, &job));
    *out = job->part[QX_PART_CODES];
    return QX_OK;
}

static qx_status convert(apply *a, const qx_value *v, const qx_weight *w, qx_weight **out)
{
    const qx_step *step = qx_step_new(a->h->m, &step_clamp, NULL, range_of(a));
    if (!step) return QX_E_NOMEM;
    return qx_half_store(a->h->m, w, a->view[v->id], a->h->type, step, out);
}

/* ---- one value in both types ------------------------------------------------------------------------------------------------------ */

static const char *in_type(const apply *a, const qx_value *v, bool half)
{
    return qx_arena_printf(a->h->m->arena, "%s_%s", v->name, !half ? "fp32" : a->h->type == QX_DT_FLOAT16 ? "fp16" : "bf16");
}

static qx_node *behind(const qx_value *v) { return v->def ? v->def->next : v->graph->first; }

static qx_status add_node(qx_graph *g, const char *op, qx_value *const *in, uint32_t n_in, const char *name, qx_node *before, qx_node **out)
{
    const char *node = qx_arena_printf(g->model->arena, "%s_%s", name ? name : "", op);
    const qx_node_spec spec = {.op_type = op, .domain = "", .name = node, .in = in, .n_in = n_in, .out_names = &name, .n_out = 1};
    return name && node ? qx_node_add(g, &spec, before, out) : QX_E_NOMEM;
}

static qx_status set_dtype(qx_value *v, const qx_type *like, qx_dtype dtype)
{
    qx_type t = *like;
    t.kind = QX_KIND_TENSOR;
    t.dtype = dtype;
    return qx_value_set_type(v, &t);
}

static qx_status scalar(qx_graph *g, const char *name, float x, qx_value **out)
{
    qx_weight *w;
    QX_TRY(qx_weight_scalar_f32(g->model, QX_DT_FLOAT, x, &w));
    return qx_init_add(g, name, w, out);
}

/* float32's lowest number, as masks have it, would become minus infinity, and a row of those no number at all; so would float16's
 * with a score added. */
static qx_status clip(apply *a, qx_value **v)
{
    qx_value *in[3] = {*v, NULL, NULL};
    qx_node *n;
    const range *r = range_of(a);
    const bool by_inputs = qx_graph_opset((*v)->graph, "") >= 11;
    if (by_inputs) {
        QX_TRY(scalar((*v)->graph, r->min, -r->infinite, &in[1]));
        QX_TRY(scalar((*v)->graph, r->max, r->infinite, &in[2]));
    }
    QX_TRY(add_node((*v)->graph, "Clip", in, by_inputs ? 3 : 1, qx_arena_printf(a->h->m->arena, "%s_clipped", (*v)->name), behind(*v), &n));
    if (!by_inputs) {
        QX_TRY(qx_attr_set_float(n, "min", -r->infinite));
        QX_TRY(qx_attr_set_float(n, "max", r->infinite));
    }
    QX_TRY(set_dtype(n->out[0], &(*v)->type, QX_DT_FLOAT));
    *v = n->out[0];
    return QX_OK;
}

static qx_status cast(apply *a, qx_value *v, bool half, qx_value **out)
{
    qx_node *n;
    const qx_type was = v->type;
    const char *name = in_type(a, v, half);
    if (half && a->large[v->id]) QX_TRY(clip(a, &v));
    QX_TRY(add_node(v->graph, "Cast", &v, 1, name, behind(v), &n));
    QX_TRY(qx_attr_set_int(n, "to", half ? a->h->type : QX_DT_FLOAT));
    QX_TRY(set_dtype(n->out[0], &was, half ? a->h->type : QX_DT_FLOAT));
    *out = n->out[0];
    return QX_OK;
}

static qx_status constant(apply *a, qx_value *v, const qx_weight *w, qx_value **out)
{
    qx_weight *half;
    QX_TRY(convert(a, v, w, &half));
    return qx_init_add(v->graph, in_type(a, v, true), half, out);
}

/* v as a reader wants it. */
static qx_status as_type(apply *a, qx_value *v, bool half, qx_value **out)
{
    const qx_weight *w = qx_value_const(v);
    if (a->is_half[v->id] == half) return *out = v, QX_OK;
    if (!a->other[v->id]) QX_TRY(w ? constant(a, v, w, &a->other[v->id]) : cast(a, v, half, &a->other[v->id]));
    *out = a->other[v->id];
    return QX_OK;
}

/* ---- nodes ----------------------------------------------------------------------------------------------------------------------- */

typedef struct shape { bool half; uint32_t in, out; } shape; /* what a node wants */

static shape shape_of(const apply *a, const qx_node *n)
{
    shape s = {.half = !a->h->full[n->id]};
    if (!qx_half_form(n, a->h->type, &s.in, &s.out)) s.half = false;
    return s;
}

static bool has_bit(uint32_t bits, uint32_t i) { return bits >> (i < 31 ? i : 31) & 1; }

/* Whether n wants input i in 16 bits; false in *cares: it takes any type. */
static bool wants_half(const apply *a, const qx_node *n, uint32_t i, bool *cares)
{
    const shape s = shape_of(a, n);
    *cares = !qx_half_reads_any(n);
    return s.half && has_bit(s.in, i);
}

static bool all_want_half(const apply *a, const qx_value *v)
{
    bool cares;
    for (const qx_use *u = v->uses; u; u = u->next)
        if (u->node->id >= a->h->n_nodes || !wants_half(a, u->node, u->index, &cares) || !cares) return false;
    return v->uses && !v->is_output && !v->is_input;
}

/* Weights whose readers agree change in place and keep their names. */
static qx_status store_weights(void *user, qx_graph *g)
{
    apply *a = user;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        qx_value *v = g->inits[i];
        qx_weight *half;
        if (v->id >= a->h->n_values || !a->h->was_float[v->id] || !v->init || !all_want_half(a, v)) continue;
        QX_TRY(convert(a, v, v->init, &half));
        QX_TRY(qx_init_replace(v, half));
        a->is_half[v->id] = true;
    }
    return QX_OK;
}

static qx_status mark_outputs(void *user, qx_node *n)
{
    apply *a = user;
    const shape s = shape_of(a, n);
    if (n->id >= a->h->n_nodes || !s.half || n->op->id == QX_OP_Constant) return QX_OK;
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (!n->out[i] || !a->h->was_float[n->out[i]->id] || !has_bit(s.out, i)) continue;
        a->is_half[n->out[i]->id] = true;
        QX_TRY(set_dtype(n->out[i], &n->out[i]->type, a->h->type));
    }
    return QX_OK;
}

static bool large_constant(const apply *a, const qx_value *v)
{
    const qx_view one = {1, 1, 1, 0};
    const qx_weight *w = v ? qx_value_const(v) : NULL;
    float x[1];
    if (!w || !a->h->was_float[v->id] || w->numel != 1 || qx_rows_read(a->h->m->ctx, w, &one, NULL, 0, 1, x) != QX_OK) return false;
    return x[0] != clamp(range_of(a), x[0]);
}

static void mark_large(apply *a, const qx_node *n)
{
    bool large = false;
    for (uint32_t i = 0; i < n->n_in; i++)
        large |= n->in[i] && n->in[i]->id < a->h->n_values && (a->large[n->in[i]->id] || large_constant(a, n->in[i]));
    for (uint32_t i = 0; large && a->h->full[n->id] && i < n->n_out; i++)
        if (n->out[i] && n->out[i]->id < a->h->n_values) a->large[n->out[i]->id] = true;
}

static qx_status connect(void *user, qx_node *n)
{
    apply *a = user;
    if (n->id >= a->h->n_nodes) return QX_OK;
    mark_large(a, n);
    for (uint32_t i = 0; i < n->n_in; i++) {
        qx_value *v = n->in[i], *to;
        bool cares;
        if (!v || v->id >= a->h->n_values || !a->h->was_float[v->id]) continue;
        const bool half = wants_half(a, n, i, &cares);
        if (!cares) continue;
        QX_TRY(as_type(a, v, half, &to));
        if (to != v) QX_TRY(qx_node_set_in(n, i, to));
    }
    return QX_OK;
}

/* Graphs give float32, as they did. */
static qx_status give_outputs(void *user, qx_graph *g)
{
    apply *a = user;
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        qx_value *v = g->outputs[i];
        qx_node *n;
        if (v->id >= a->h->n_values || !a->is_half[v->id]) continue;
        const qx_type was = v->type;
        QX_TRY(add_node(g, "Cast", &v, 1, in_type(a, v, true), NULL, &n));
        QX_TRY(qx_attr_set_int(n, "to", QX_DT_FLOAT));
        QX_TRY(set_dtype(n->out[0], &was, QX_DT_FLOAT));
        QX_TRY(qx_output_rewire(v, n->out[0]));
    }
    return QX_OK;
}

qx_status qx_half_apply(qx_half *h)
{
    qx_arena *arena = h->m->arena;
    apply a = {.h = h, .other = qx_arena_array(arena, h->n_values + 1, sizeof(qx_value *)),
               .is_half = qx_arena_array(arena, h->n_values + 1, sizeof(bool)),
               .large = qx_arena_array(arena, h->n_values + 1, sizeof(bool)),
                   .view = qx_arena_array(arena, h->n_values + 1, sizeof(qx_view *))};
    if (!a.other || !a.is_half || !a.large || !a.view) return QX_E_NOMEM;
    QX_TRY(qx_linears_find(h->m, &a.linears));
    for (int64_t i = 0; i < a.linears.count; i++)
        if (a.linears.items[i].w) a.view[a.linears.items[i].w_init->id] = &a.linears.items[i].view;
    QX_TRY(qx_model_each_graph(h->m, store_weights, &a));
    QX_TRY(qx_model_each_node(h->m, mark_outputs, &a));
    QX_TRY(qx_model_each_node(h->m, connect, &a));
    return qx_model_each_graph(h->m, give_outputs, &a);
}
