/* blocks.c - see blocks.h. Of a block with the largest value a, s2 from calibration (E4M3) or 1:
 *     s = stored(a / largest code / s2), codes = round(x / (s s2)), what readers see = codes s s2.
 *
 *   TensorRT, NVFP4   codes, s = TRT_FP4DynamicQuantize(x, s2); DequantizeLinear(codes, DequantizeLinear(s, s2))
 *   TensorRT, MXFP8   codes, s = TRT_MXFP8DynamicQuantize(x);   TRT_MXFP8DequantizeLinear(codes, s)
 *   the standard      a = ReduceMax(Abs(Reshape(x))), Div by the largest code and s2, Cast to the type of s; then QuantizeLinear
 *                     and DequantizeLinear with s as a value of the graph
 * Both compute the same bits; a block of zeros has another s there, which nobody sees. */
#include "passes/place/blocks.h"

#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/place/nodes.h"

static bool for_tensorrt(const qx_pipeline *pipe) { return pipe->opt->target == QX_TARGET_TENSORRT; }

bool qx_blocks_fit(const qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec, const char **detail)
{
    const qx_linear *l = it->lin;
    const qx_type *x = &l->x->type;
    const qx_op_id op = l->node->op->id;
    *detail = NULL;
    if (op != QX_OP_MatMul && op != QX_OP_Gemm) *detail = "not a product of matrices";
    else if (!l->plain || l->x_index != 0 || (op == QX_OP_Gemm && qx_attr_int(l->node, "transA", 0)))
        *detail = "its contraction is not the last axis of x";
    else if (!x->has_shape || x->rank < 1 || x->dims[x->rank - 1].n != l->k) *detail = "the rank of x is not known";
    else if (l->k % spec->block) *detail = "blocks do not divide its rows";
    else if (for_tensorrt(pipe) && x->rank != 2 && x->rank != 3) *detail = "TensorRT quantizes tensors of two and three axes so";
    return !*detail;
}

qx_need qx_blocks_need(const qx_pipeline *pipe, const qx_qspec *spec)
{
    return for_tensorrt(pipe) && !qx_spec_two_level(spec) ? qx_need_for(spec->codes, QX_DT_FLOAT, false, false) :
                                                    qx_need_for(spec->codes, spec->scale, true, true);
}

typedef struct writing { qx_pipeline *pipe; qx_graph *g; qx_value *v; const qx_qspec *spec; qx_node *at; qx_type scales; } writing;

static qx_status put(const writing *w, const char *op, qx_value *a, qx_value *b, const qx_type *like, qx_dtype dtype, const char *suffix,
                     qx_node **out)
{
    return qx_node_put(w->g, w->at, &(qx_new_node){op, {a, b}, b ? 2u : 1u, like, dtype, w->v->name, suffix}, out);
}

static qx_status cast(const writing *w, qx_value *a, qx_dtype to, const char *suffix, qx_node **out)
{
    QX_TRY(put(w, "Cast", a, NULL, &a->type, to, suffix, out));
    return qx_attr_set_int(*out, "to", to);
}

static qx_status blocked(const writing *w, qx_node *n)
{
    QX_TRY(qx_attr_set_int(n, "axis", -1));
    return qx_attr_set_int(n, "block_size", w->spec->block);
}

/* codes and scales as floats of x's type. */
static qx_status back(const writing *w, qx_value *codes, qx_value *scale, qx_value **out)
{
    qx_node *n;
    const qx_dtype type = w->v->type.dtype, made = qx_spec_two_level(w->spec) ? QX_DT_FLOAT : type;
    QX_TRY(put(w, "DequantizeLinear", codes, scale, &w->v->type, made, "BlockDequantize", &n));
    QX_TRY(blocked(w, n));
    if (!qx_spec_two_level(w->spec)) QX_TRY(qx_attr_set_int(n, "output_dtype", made));
    if (made != type) QX_TRY(cast(w, n->out[0], type, "BlockCast", &n));
    *out = n->out[0];
    return QX_OK;
}

/* ---- TensorRT's ----------------------------------------------------------------------------------------------------------- */

static qx_status quantizer(const writing *w, const char *op, qx_value *s2, qx_dtype scale, qx_node **out)
{
    qx_model *m = w->g->model;
    const char *name = qx_arena_printf(m->arena, "%s_%s", w->v->name, op);
    const char *parts[] = {qx_arena_printf(m->arena, "%s_codes", w->v->name), qx_arena_printf(m->arena, "%s_block_scale", w->v->name)};
    qx_value *in[] = {w->v, s2};
    if (!name || !parts[0] || !parts[1]) return QX_E_NOMEM;
    if (!qx_graph_opset(w->g, "trt")) QX_TRY(qx_model_set_opset(m, "trt", 1));
    QX_TRY(qx_node_add(w->g, &(qx_node_spec){.op_type = op, .domain = "trt", .name = name, .in = in, .n_in = s2 ? 2 : 1,
                                             .out_names = parts, .n_out = 2}, w->at, out));
    qx_type codes = w->v->type, scales = w->scales;
    codes.dtype = w->spec->codes;
    scales.dtype = scale;
    QX_TRY(qx_value_set_type((*out)->out[0], &codes));
    QX_TRY(qx_value_set_type((*out)->out[1], &scales));
    return blocked(w, *out);
}

static qx_status tensorrt_nvfp4(const writing *w, float second, qx_value **out)
{
    qx_node *q, *n;
    qx_value *s2;
    QX_TRY(qx_scalar_put(w->g, w->v->name, "block_scale_2", QX_DT_FLOAT, second, &s2));
    QX_TRY(quantizer(w, "TRT_FP4DynamicQuantize", s2, QX_DT_FLOAT8E4M3FN, &q));
    QX_TRY(qx_attr_set_int(q, "scale_type", QX_DT_FLOAT8E4M3FN));
    QX_TRY(put(w, "DequantizeLinear", q->out[1], s2, &w->scales, QX_DT_FLOAT, "BlockScale", &n));
    return back(w, q->out[0], n->out[0], out);
}

static qx_status tensorrt_mxfp8(const writing *w, qx_value **out)
{
    qx_node *q;
    QX_TRY(quantizer(w, "TRT_MXFP8DynamicQuantize", NULL, QX_DT_UINT8, &q));
    QX_TRY(qx_attr_set_int(q, "output_dtype", w->spec->codes));
    QX_TRY(back(w, q->out[0], q->out[1], out));
    return qx_node_set_op((*out)->def, "trt", "TRT_MXFP8DequantizeLinear");
}

/* ---- the standard's ------------------------------------------------------------------------------------------------------- */

static qx_status integers(const writing *w, const char *suffix, const int64_t *v, int64_t n, qx_value **out)
{
    qx_weight *t;
    const char *name = qx_arena_printf(w->g->model->arena, "%s_%s", w->v->name, suffix);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(w->g->model, QX_DT_INT64, 1, &n, v, &t));
    return qx_init_add(w->g, name, t, out);
}

/* The largest |x| of each block, in float32. */
static qx_status block_maxima(const writing *w, qx_value **out)
{
    const qx_type *x = &w->v->type;
    const int64_t k = x->dims[x->rank - 1].n;
    int64_t *shape = qx_arena_array(w->g->model->arena, (size_t)x->rank + 1, sizeof *shape); /* 0: as it is */
    qx_type cut = *x;
    cut.rank = x->rank + 1;
    cut.dims = qx_arena_array(w->g->model->arena, (size_t)cut.rank, sizeof *cut.dims);
    if (!shape || !cut.dims) return QX_E_NOMEM;
    for (int i = 0; i + 1 < x->rank; i++) cut.dims[i] = x->dims[i];
    shape[x->rank - 1] = k / w->spec->block, shape[x->rank] = w->spec->block;
    for (int i = x->rank - 1; i <= x->rank; i++) cut.dims[i] = (qx_dim){.n = shape[i]};
    qx_value *dims, *axes;
    qx_node *n;
    QX_TRY(integers(w, "block_shape", shape, cut.rank, &dims));
    QX_TRY(integers(w, "block_axis", &(int64_t){-1}, 1, &axes));
    QX_TRY(put(w, "Reshape", w->v, dims, &cut, x->dtype, "Blocks", &n));
    QX_TRY(put(w, "Abs", n->out[0], NULL, &cut, x->dtype, "BlockAbs", &n));
    QX_TRY(put(w, "ReduceMax", n->out[0], axes, &w->scales, x->dtype, "BlockMax", &n));
    QX_TRY(qx_attr_set_int(n, "keepdims", 0));
    if (x->dtype != QX_DT_FLOAT) QX_TRY(cast(w, n->out[0], QX_DT_FLOAT, "BlockFloat", &n));
    *out = n->out[0];
    return QX_OK;
}

static qx_status with_scalar(const writing *w, const char *op, qx_value *a, float b, const char *suffix, const char *named, qx_value **out)
{
    qx_value *s;
    qx_node *n;
    QX_TRY(qx_scalar_put(w->g, w->v->name, named, QX_DT_FLOAT, b, &s));
    QX_TRY(put(w, op, a, s, &w->scales, QX_DT_FLOAT, suffix, &n));
    *out = n->out[0];
    return QX_OK;
}

/* E4M3 in multiples of s2: a block of (nearly) zeros has the least scale, which a division survives. */
static qx_status small_scales(const writing *w, qx_value *v, float second, qx_value **out)
{
    qx_value *s2;
    qx_node *n;
    QX_TRY(qx_scalar_put(w->g, w->v->name, "block_scale_2", QX_DT_FLOAT, second, &s2));
    QX_TRY(put(w, "Div", v, s2, &w->scales, QX_DT_FLOAT, "BlockInScale2", &n));
    QX_TRY(with_scalar(w, "Max", n->out[0], 0x1p-9f, "BlockLeast", "block_least", &v));
    QX_TRY(cast(w, v, QX_DT_FLOAT8E4M3FN, "BlockScaleCodes", &n));
    QX_TRY(put(w, "DequantizeLinear", n->out[0], s2, &w->scales, QX_DT_FLOAT, "BlockScale", &n));
    *out = n->out[0];
    return QX_OK;
}

static qx_status powers_of_two(const writing *w, qx_value *v, qx_value **out)
{
    qx_node *n;
    QX_TRY(cast(w, v, QX_DT_FLOAT8E8M0, "BlockScaleCodes", &n));
    QX_TRY(qx_attr_set_string(n, "round_mode", "up"));
    *out = n->out[0];
    return QX_OK;
}

static qx_status standard(const writing *w, float second, qx_value **out)
{
    float lo, top;
    qx_value *scale;
    qx_node *q;
    (void)qx_format_range(&(qx_format){.codes = w->spec->codes}, &lo, &top);
    QX_TRY(block_maxima(w, &scale));
    QX_TRY(with_scalar(w, "Div", scale, top, "BlockRaw", "block_top", &scale));
    QX_TRY(qx_spec_two_level(w->spec) ? small_scales(w, scale, second, &scale) : powers_of_two(w, scale, &scale));
    QX_TRY(put(w, "QuantizeLinear", w->v, scale, &w->v->type, w->spec->codes, "BlockQuantize", &q));
    QX_TRY(blocked(w, q));
    QX_TRY(qx_attr_set_int(q, "output_dtype", w->spec->codes));
    return back(w, q->out[0], scale, out);
}

qx_status qx_blocks_put(qx_pipeline *pipe, qx_value *v, const qx_qspec *spec, float second, qx_value **out)
{
    writing w = {.pipe = pipe, .g = v->graph, .v = v, .spec = spec, .at = qx_place_behind(v), .scales = v->type};
    w.scales.dims = qx_arena_memdup(v->graph->model->arena, v->type.dims, (size_t)v->type.rank * sizeof *v->type.dims);
    if (!w.scales.dims) return QX_E_NOMEM;
    qx_dim *last = &w.scales.dims[v->type.rank - 1];
    *last = (qx_dim){.n = last->n / spec->block};
    if (!for_tensorrt(pipe)) return standard(&w, second, out);
    return qx_spec_two_level(spec) ? tensorrt_nvfp4(&w, second, out) : tensorrt_mxfp8(&w, out);
}
