/* opset_convert.c - one function for every way in which an operator's definition changed between opsets: attributes that became
 * inputs, defaults that moved, operators that were replaced. Each gives the node the form of the version it is converted to, with
 * the meaning that it had. */
#include "passes/place/opset_convert.h"

#include <string.h>

#include "onnx/weight/weight.h"

#define REFUSE(c, ...) return qx_fail((c)->node->graph->model->ctx, QX_E_UNSUPPORTED, __VA_ARGS__)

/* ---- new inputs ----------------------------------------------------------------------------------------------------------- */

static bool in_function(const qx_node *n)
{
    const qx_graph *g = n->graph;
    while (g->parent) g = g->parent;
    return g->function != NULL;
}

/* A constant named after the node's first output. Bodies of functions have no initializers: there it is a Constant node. */
static qx_status make_constant(const qx_conversion *c, const char *what, qx_dtype dtype, int rank, const int64_t *dims, const void *data,
                               qx_value **out)
{
    qx_node *n = c->node, *holder;
    qx_model *m = n->graph->model;
    qx_weight *w;
    const char *base = qx_arena_printf(m->arena, "%s_%s", n->n_out && n->out[0] ? n->out[0]->name : n->op_type, what);
    if (!base) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(m, dtype, rank, dims, data, &w));
    if (!in_function(n)) return qx_init_add(n->graph, base, w, out);
    QX_TRY(qx_node_add(n->graph, &(qx_node_spec){.op_type = "Constant", .domain = "", .out_names = &base, .n_out = 1}, n, &holder));
    *out = holder->out[0];
    return qx_attr_set_tensor(holder, "value", w);
}

static qx_status put_constant(const qx_conversion *c, uint32_t index, const char *what, qx_dtype dtype, int rank, const int64_t *dims,
                              const void *data)
{
    qx_value *v;
    while (c->node->n_in < index) QX_TRY(qx_node_set_in(c->node, c->node->n_in, NULL));
    QX_TRY(make_constant(c, what, dtype, rank, dims, data, &v));
    return qx_node_set_in(c->node, index, v);
}

/* An attribute that is given by a call of the function cannot become a constant. */
static qx_status own_value(const qx_conversion *c, const char *name)
{
    const qx_attr *a = qx_node_attr(c->node, name);
    if (a && a->ref_name) REFUSE(c, "attribute '%s' comes from the function's caller ('%s')", name, a->ref_name);
    return QX_OK;
}

static qx_status ints_to_input(const qx_conversion *c, const char *name, uint32_t index)
{
    int64_t count;
    QX_TRY(own_value(c, name));
    const int64_t *v = qx_attr_ints(c->node, name, &count);
    if (!v || c->dry) return QX_OK;
    QX_TRY(put_constant(c, index, name, QX_DT_INT64, 1, &count, v));
    return qx_attr_remove(c->node, name);
}

/* Element type of input 0: what a new scalar input must have. */
static qx_status data_type(const qx_conversion *c, qx_dtype *out)
{
    const qx_value *x = qx_node_in(c->node, 0);
    *out = x && x->type.kind == QX_KIND_TENSOR ? x->type.dtype : QX_DT_UNDEFINED;
    if (*out == QX_DT_FLOAT || *out == QX_DT_FLOAT16 || *out == QX_DT_BFLOAT16 || *out == QX_DT_DOUBLE) return QX_OK;
    REFUSE(c, "the element type of its input is %s", *out ? qx_dtype_get((int)*out)->text : "not known");
}

static qx_status put_scalar(const qx_conversion *c, uint32_t index, const char *what, qx_dtype dtype, float v)
{
    double d = (double)v;
    uint64_t code = 0;
    if (dtype == QX_DT_DOUBLE) memcpy(&code, &d, sizeof d);
    else if (!qx_ref_from_f32((int)dtype, &v, 1, &code)) REFUSE(c, "%s cannot hold %g", qx_dtype_get((int)dtype)->text, d);
    return put_constant(c, index, what, dtype, 0, NULL, &code);
}

/* ---- lists that moved to inputs -------------------------------------------------------------------------------------------- */

static qx_status axes_input(const qx_conversion *c) { return ints_to_input(c, "axes", 1); }
static qx_status split_input(const qx_conversion *c) { return ints_to_input(c, "split", 1); }

/* From version 18 on equal parts must be asked for. */
static qx_status split_count(const qx_conversion *c)
{
    bool sized = qx_node_in(c->node, 1) || qx_node_attr(c->node, "split");
    return sized || c->dry ? QX_OK : qx_attr_set_int(c->node, "num_outputs", c->node->n_out);
}

static qx_status slice_inputs(const qx_conversion *c)
{
    QX_TRY(ints_to_input(c, "starts", 1));
    QX_TRY(ints_to_input(c, "ends", 2));
    return ints_to_input(c, "axes", 3);
}

static qx_status topk_input(const qx_conversion *c)
{
    const int64_t one = 1;
    QX_TRY(own_value(c, "k"));
    if (c->dry) return QX_OK;
    int64_t k = qx_attr_int(c->node, "k", 0);
    QX_TRY(put_constant(c, 1, "k", QX_DT_INT64, 1, &one, &k));
    return qx_attr_remove(c->node, "k");
}

static qx_status pad_inputs(const qx_conversion *c)
{
    qx_dtype dtype;
    float value = qx_attr_float(c->node, "value", 0);
    QX_TRY(own_value(c, "value"));
    QX_TRY(ints_to_input(c, "pads", 1));
    if (value != 0) QX_TRY(data_type(c, &dtype));
    if (c->dry) return QX_OK;
    if (value != 0) QX_TRY(put_scalar(c, 2, "value", dtype, value));
    return qx_attr_remove(c->node, "value");
}

static qx_status clip_inputs(const qx_conversion *c)
{
    static const char *const names[] = {"min", "max"};
    qx_dtype dtype = QX_DT_UNDEFINED;
    for (uint32_t i = 0; i < 2; i++) {
        if (!qx_node_attr(c->node, names[i])) continue;
        QX_TRY(own_value(c, names[i]));
        QX_TRY(data_type(c, &dtype));
        if (c->dry) continue;
        QX_TRY(put_scalar(c, i + 1, names[i], dtype, qx_attr_float(c->node, names[i], 0)));
        QX_TRY(qx_attr_remove(c->node, names[i]));
    }
    return QX_OK;
}

/* Without training_mode it copies its input, before and after. */
static qx_status dropout_input(const qx_conversion *c)
{
    const qx_value *mask = qx_node_out(c->node, 1);
    if (mask && (mask->n_uses || mask->is_output)) REFUSE(c, "its mask is used, which was not defined outside of training and is now");
    QX_TRY(own_value(c, "ratio"));
    if (c->dry) return QX_OK;
    if (mask) QX_TRY(qx_node_truncate_out(c->node, 1));
    if (qx_node_attr(c->node, "ratio")) QX_TRY(put_scalar(c, 1, "ratio", QX_DT_FLOAT, qx_attr_float(c->node, "ratio", 0.5f)));
    return qx_attr_remove(c->node, "ratio");
}

static qx_status dft_input(const qx_conversion *c)
{
    QX_TRY(own_value(c, "axis"));
    if (c->dry) return QX_OK;
    int64_t axis = qx_attr_int(c->node, "axis", 1);
    QX_TRY(put_constant(c, 2, "axis", QX_DT_INT64, 0, NULL, &axis));
    return qx_attr_remove(c->node, "axis");
}

/* ---- defaults and names that changed ------------------------------------------------------------------------------------------ */

static qx_status roi_align_mode(const qx_conversion *c)
{
    return c->dry ? QX_OK : qx_attr_set_string(c->node, "coordinate_transformation_mode", "output_half_pixel");
}

static qx_status grid_sample_mode(const qx_conversion *c)
{
    const char *mode = qx_attr_string(c->node, "mode", NULL);
    if (c->dry || !mode) return QX_OK;
    if (strcmp(mode, "bilinear") == 0) return qx_attr_set_string(c->node, "mode", "linear");
    return strcmp(mode, "bicubic") == 0 ? qx_attr_set_string(c->node, "mode", "cubic") : QX_OK;
}

static qx_status scatter_elements(const qx_conversion *c)
{
    return c->dry ? QX_OK : qx_node_set_op(c->node, "", "ScatterElements");
}

/* spatial = 0 (a mean for every element) went away with version 9. */
static qx_status batch_norm_spatial(const qx_conversion *c)
{
    if (qx_attr_int(c->node, "spatial", 1) == 0) REFUSE(c, "spatial = 0 has no counterpart");
    return c->dry ? QX_OK : qx_attr_remove(c->node, "spatial");
}

/* The outputs of training changed with version 14; in inference there is only the first. */
static qx_status batch_norm_outputs(const qx_conversion *c)
{
    for (uint32_t i = 1; i < c->node->n_out; i++) {
        const qx_value *v = c->node->out[i];
        if (v && (v->n_uses || v->is_output)) REFUSE(c, "output '%s' of its training form is used", v->name);
    }
    return c->dry ? QX_OK : qx_node_truncate_out(c->node, 1);
}

/* ---- Softmax and its kin before version 13: over everything from `axis` on ------------------------------------------------------ */

static qx_status add_node(const qx_conversion *c, const char *op, const char *tail, qx_value *const *in, uint32_t n_in, qx_node *before,
                          qx_node **out)
{
    qx_node *n = c->node;
    qx_model *m = n->graph->model;
    const char *name = qx_arena_printf(m->arena, "%s_%s", n->out[0]->name, tail),
        *node_name = qx_arena_printf(m->arena, "%s_%s", n->name[0] ? n->name : op, tail);
    if (!name || !node_name) return QX_E_NOMEM;
    return qx_node_add(n->graph, &(qx_node_spec){.op_type = op, .domain = "", .name = node_name, .in = in, .n_in = n_in,
                                                 .out_names = &name, .n_out = 1}, before, out);
}

static qx_status set_dims(qx_value *v, qx_dtype dtype, int rank, const qx_dim *dims)
{
    return qx_value_set_type(v, &(qx_type){.kind = QX_KIND_TENSOR, .dtype = dtype, .has_shape = true, .rank = rank,
                                           .dims = (qx_dim *)dims});
}

static qx_dim product(const qx_dim *d, int64_t from, int64_t to)
{
    qx_dim p = {.n = 1};
    for (int64_t i = from; i < to; i++) p.n = d[i].n < 0 || p.n < 0 || (p.n && d[i].n > INT64_MAX / p.n) ? -1 : p.n * d[i].n;
    return p;
}

/* x -> Flatten(axis) -> this node over the last axis -> Reshape to what x was. The last node takes over the output value. */
static qx_status flatten_around(const qx_conversion *c, int64_t axis)
{
    qx_node *n = c->node, *flat, *shape, *back;
    qx_value *x = n->in[0], *y = n->out[0];
    const qx_type type = x->type;
    QX_TRY(add_node(c, "Flatten", "flat", &x, 1, n, &flat));
    QX_TRY(qx_attr_set_int(flat, "axis", axis));
    QX_TRY(add_node(c, "Shape", "shape", &x, 1, n, &shape));
    QX_TRY(qx_node_set_in(n, 0, flat->out[0]));
    QX_TRY(add_node(c, "Reshape", "back", (qx_value *[]){y, shape->out[0]}, 2, n->next, &back));
    QX_TRY(qx_value_set_type(back->out[0], &y->type));
    QX_TRY(qx_value_replace_uses(y, back->out[0], back));
    if (y->is_output) QX_TRY(qx_output_rewire(y, back->out[0]));
    if (type.has_shape) {
        int64_t at = axis < 0 ? axis + type.rank : axis;
        QX_TRY(set_dims(flat->out[0], type.dtype, 2, (qx_dim[]){product(type.dims, 0, at), product(type.dims, at, type.rank)}));
        QX_TRY(set_dims(y, type.dtype, 2, flat->out[0]->type.dims));
        QX_TRY(set_dims(shape->out[0], QX_DT_INT64, 1, (qx_dim[]){{.n = type.rank}}));
    }
    return qx_attr_set_int(n, "axis", -1);
}

static qx_status softmax_axis(const qx_conversion *c)
{
    QX_TRY(own_value(c, "axis"));
    if (c->dry) return QX_OK;
    const qx_type *t = &c->node->in[0]->type;
    int64_t axis = qx_attr_int(c->node, "axis", 1);
    if (axis == -1 || (t->has_shape && t->rank && axis == t->rank - 1)) return qx_attr_set_int(c->node, "axis", -1);
    bool rest_is_one = t->has_shape;
    for (int64_t i = axis < 0 ? axis + t->rank : axis; t->has_shape && ++i < t->rank;) rest_is_one = rest_is_one && t->dims[i].n == 1;
    if (rest_is_one && axis < t->rank) return qx_attr_set_int(c->node, "axis", axis);
    return flatten_around(c, axis);
}

/* ---- Upsample, Resize -------------------------------------------------------------------------------------------------------------- */

/* How version 10 rounded to the nearest element: down when enlarging, up when shrinking (as ONNX Runtime computes it; the standard
 * does not say). One attribute cannot say both. */
static qx_status nearest_mode(const qx_conversion *c, const char **out)
{
    float s[16];
    const qx_value *v = qx_node_in(c->node, 1);
    const qx_weight *w = v ? qx_value_const(v) : NULL;
    bool grows = false, shrinks = false;
    *out = "floor";
    if (!w || w->dtype != QX_DT_FLOAT || w->numel > 16) return QX_OK; /* scales that are computed are those of upsampling */
    QX_TRY(qx_weight_read_f32(c->node->graph->model->ctx, w, 0, w->numel, s));
    for (int64_t i = 0; i < w->numel; i++) grows = grows || s[i] > 1, shrinks = shrinks || s[i] < 1;
    if (grows && shrinks) REFUSE(c, "it enlarges one axis and shrinks another, which newer versions round differently");
    if (shrinks) *out = "ceil";
    return QX_OK;
}

/* Version 11 brought the region of interest in front of the scales and named the arithmetic that version 10 had. */
static qx_status resize_roi(const qx_conversion *c)
{
    const int64_t none = 0;
    qx_value *scales = qx_node_in(c->node, 1);
    bool nearest = strcmp(qx_attr_string(c->node, "mode", "nearest"), "nearest") == 0;
    const char *rounding = "floor";
    if (nearest) QX_TRY(nearest_mode(c, &rounding));
    if (c->dry) return QX_OK;
    QX_TRY(qx_node_set_in(c->node, 1, NULL));
    QX_TRY(qx_node_set_in(c->node, 2, scales));
    if (c->to < 13) QX_TRY(put_constant(c, 1, "roi", QX_DT_FLOAT, 1, &none, "")); /* optional from 13 on */
    QX_TRY(qx_attr_set_string(c->node, "coordinate_transformation_mode", "asymmetric"));
    return nearest ? qx_attr_set_string(c->node, "nearest_mode", rounding) : QX_OK;
}

static qx_status upsample_to_resize(const qx_conversion *c)
{
    const qx_attr *scales = qx_node_attr(c->node, "scales");
    if (c->old_since < 9 && (!scales || scales->ref_name || scales->type != QX_ATTR_FLOATS)) REFUSE(c, "it has no scales of its own");
    if (c->dry) return QX_OK;
    if (c->old_since < 9) {
        QX_TRY(put_constant(c, 1, "scales", QX_DT_FLOAT, 1, &scales->n, scales->floats));
        QX_TRY(qx_attr_remove(c->node, "scales"));
    }
    QX_TRY(qx_node_set_op(c->node, "", "Resize"));
    if (strcmp(qx_attr_string(c->node, "mode", "nearest"), "bilinear") == 0) QX_TRY(qx_attr_set_string(c->node, "mode", "linear"));
    return c->to < 11 ? QX_OK : resize_roi(c);
}

/* ---- GroupNormalization 18 -> 21: scale and bias of a group become those of each channel ----------------------------------- */

/* [G] -> Unsqueeze -> [G, 1] -> Expand -> [G, C / G] -> Reshape -> [C]. */
static qx_status spread(const qx_conversion *c, uint32_t index, int64_t groups, int64_t each)
{
    const int64_t one = 1, two = 2, last = 1, flat = -1, shape[2] = {groups, each};
    qx_value *axis, *wide, *all;
    qx_node *n = c->node, *a, *b, *d;
    qx_dtype dtype = n->in[index]->type.dtype;
    const char *tail = index == 1 ? "scale" : "bias";
    QX_TRY(make_constant(c, "axis", QX_DT_INT64, 1, &one, &last, &axis));
    QX_TRY(make_constant(c, "shape", QX_DT_INT64, 1, &two, shape, &wide));
    QX_TRY(make_constant(c, "flat", QX_DT_INT64, 1, &one, &flat, &all));
    QX_TRY(add_node(c, "Unsqueeze", tail, (qx_value *[]){n->in[index], axis}, 2, n, &a));
    QX_TRY(add_node(c, "Expand", tail, (qx_value *[]){a->out[0], wide}, 2, n, &b));
    QX_TRY(add_node(c, "Reshape", tail, (qx_value *[]){b->out[0], all}, 2, n, &d));
    QX_TRY(set_dims(a->out[0], dtype, 2, (qx_dim[]){{.n = groups}, {.n = 1}}));
    QX_TRY(set_dims(b->out[0], dtype, 2, (qx_dim[]){{.n = groups}, {.n = each}}));
    QX_TRY(set_dims(d->out[0], dtype, 1, (qx_dim[]){{.n = groups * each}}));
    return qx_node_set_in(n, index, d->out[0]);
}

static qx_status group_norm_channels(const qx_conversion *c)
{
    int64_t groups = qx_attr_int(c->node, "num_groups", 0);
    const qx_value *x = qx_node_in(c->node, 0);
    int64_t channels = x && x->type.has_shape && x->type.rank > 1 ? x->type.dims[1].n : -1;
    QX_TRY(own_value(c, "num_groups"));
    if (groups < 1 || channels < 1 || channels % groups)
        REFUSE(c, "its channels are not known (%lld in %lld groups)", (long long)channels, (long long)groups);
    if (c->dry || channels == groups) return QX_OK;
    QX_TRY(spread(c, 1, groups, channels / groups));
    return spread(c, 2, groups, channels / groups);
}

static qx_status no_counterpart(const qx_conversion *c)
{
    REFUSE(c, "its definition changed and there is no conversion for it");
}

const qx_change qx_changes[] = {
    {QX_OP_ReduceSum, 13, axes_input}, {QX_OP_ReduceMean, 18, axes_input}, {QX_OP_ReduceMax, 18, axes_input},
    {QX_OP_ReduceMin, 18, axes_input},
    {QX_OP_ReduceProd, 18, axes_input}, {QX_OP_ReduceL1, 18, axes_input}, {QX_OP_ReduceL2, 18, axes_input},
    {QX_OP_ReduceLogSum, 18, axes_input},
    {QX_OP_ReduceLogSumExp, 18, axes_input}, {QX_OP_ReduceSumSquare, 18, axes_input},
    {QX_OP_Squeeze, 13, axes_input}, {QX_OP_Unsqueeze, 13, axes_input},
    {QX_OP_Split, 13, split_input}, {QX_OP_Split, 18, split_count},
    {QX_OP_Slice, 10, slice_inputs}, {QX_OP_TopK, 10, topk_input}, {QX_OP_Pad, 11, pad_inputs}, {QX_OP_Clip, 11, clip_inputs},
    {QX_OP_Dropout, 12, dropout_input}, {QX_OP_DFT, 20, dft_input},
    {QX_OP_Softmax, 13, softmax_axis}, {QX_OP_LogSoftmax, 13, softmax_axis}, {QX_OP_Hardmax, 13, softmax_axis},
    {QX_OP_RoiAlign, 16, roi_align_mode}, {QX_OP_GridSample, 20, grid_sample_mode}, {QX_OP_Scatter, 11, scatter_elements},
    {QX_OP_BatchNormalization, 9, batch_norm_spatial}, {QX_OP_BatchNormalization, 14, batch_norm_outputs},
    {QX_OP_GroupNormalization, 21, group_norm_channels},
    {QX_OP_Upsample, 10, upsample_to_resize}, {QX_OP_Resize, 11, resize_roi}, {QX_OP_Scan, 9, no_counterpart},
    {QX_OP_UNKNOWN, 0, NULL},
};
