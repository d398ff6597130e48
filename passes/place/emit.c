/* emit.c - writes codes and scales of weights, and the nodes in front of their readers, in the form that form.c found. */
#include "passes/place/form.h"

#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/place/dynamic.h"
#include "passes/place/gathered.h"
#include "passes/place/half_scale.h"
#include "passes/place/mixture.h"
#include "passes/place/nodes.h"
#include "passes/place/square.h"

/* What is stored of a weight, and its scale as readers take it; zero: or NULL. */
typedef struct stored { qx_value *codes, *scale_stored, *scale, *zero; } stored;

static const char *suffix_of(qx_dtype codes)
{
    switch (codes) {
    case QX_DT_INT8: return "i8";
    case QX_DT_UINT8: return "u8";
    case QX_DT_INT4: return "i4";
    case QX_DT_UINT4: return "u4";
    case QX_DT_INT2: return "i2";
    case QX_DT_UINT2: return "u2";
    case QX_DT_FLOAT8E4M3FN: case QX_DT_FLOAT8E5M2: return "f8";
    case QX_DT_FLOAT4E2M1: return "f4";
    default: return "q";
    }
}

static qx_status add_part(qx_graph *g, const qx_plan_weight *w, qx_part part, const char *suffix, qx_value **out)
{
    *out = NULL;
    if (!w->job->part[part]) return QX_OK;
    const char *name = qx_arena_printf(g->model->arena, "%s_%s", w->value->name, suffix);
    return name ? qx_init_add(g, name, w->job->part[part], out) : QX_E_NOMEM;
}

static int64_t dq_axis(const qx_plan_item *it, qx_form f)
{
    if (f == QX_FORM_NK_TRANSPOSE || f == QX_FORM_NK_GEMM) return it->weight->spec.block > 0 ? 1 : 0;
    return it->weight->spec.block > 0 ? it->lin->contract_axis : it->lin->channel_axis;
}

/* Block scales that are codes themselves: dequantized by the scale of the tensor first. */
static qx_status block_scales(qx_plan_weight *w, qx_value *codes, qx_value *scale2, qx_value **out)
{
    qx_graph *g = w->value->graph;
    qx_node *n, *at = qx_place_behind(w->value);
    const char *base = qx_arena_printf(g->model->arena, "%s_scale", w->value->name);
    if (!base) return QX_E_NOMEM;
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"DequantizeLinear", {codes, scale2}, 2, &codes->type, QX_DT_FLOAT, base,
                                             "DequantizeLinear"}, &n));
    *out = n->out[0];
    return QX_OK;
}

static qx_status tensorrts_own(qx_pipeline *pipe, qx_node *n, const char *op)
{
    if (!qx_graph_opset(n->graph, "trt")) QX_TRY(qx_model_set_opset(pipe->model, "trt", 1));
    return qx_node_set_op(n, "trt", op);
}

static qx_status in_squares(qx_pipeline *pipe, const qx_plan_weight *w, qx_node *n)
{
    const bool last = qx_attr_int(n, "axis", 1) != 0; /* the contraction */
    const int64_t shape[2] = {last ? w->spec.given_rows : w->spec.block, last ? w->spec.block : w->spec.given_rows};
    QX_TRY(qx_attr_remove(n, "axis"));
    QX_TRY(qx_attr_remove(n, "block_size"));
    QX_TRY(tensorrts_own(pipe, n, "TRT_BlockDequantize"));
    return qx_attr_set_ints(n, "block_shape", shape, 2);
}

static qx_status dequantizer(qx_pipeline *pipe, qx_plan_item *it, qx_form f, const stored *s, qx_value **out)
{
    qx_plan_weight *w = it->weight;
    qx_graph *g = w->value->graph;
    qx_node *n, *at = qx_place_behind(w->value);
    qx_type t = s->codes->type;
    if (s->scale->def) at = s->scale->def->next;
    const bool powers = w->spec.scale == QX_DT_FLOAT8E8M0; /* a scale that says nothing about the type of the result */
    const qx_dtype made = qx_spec_two_level(&w->spec) ? QX_DT_FLOAT : w->tensor->dtype;
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"DequantizeLinear", {s->codes, s->scale, s->zero}, s->zero ? 3u : 2u, &t, made, w->value->name,
                                             "DequantizeLinear"}, &n));
    if (powers) QX_TRY(qx_attr_set_int(n, "output_dtype", made));
    if (w->spec.block != -1) QX_TRY(qx_attr_set_int(n, "axis", dq_axis(it, f)));
    if (w->spec.block > 0) QX_TRY(qx_attr_set_int(n, "block_size", w->spec.block));
    if (qx_form_powers(pipe, w)) QX_TRY(tensorrts_own(pipe, n, "TRT_MXFP8DequantizeLinear"));
    if (w->spec.given_rows > 1 && pipe->opt->target == QX_TARGET_TENSORRT) QX_TRY(in_squares(pipe, w, n));
    *out = n->out[0];
    if (made != w->tensor->dtype) {
        QX_TRY(qx_node_put(g, at, &(qx_new_node){"Cast", {*out}, 1, &t, w->tensor->dtype, w->value->name, "Cast"}, &n));
        QX_TRY(qx_attr_set_int(n, "to", w->tensor->dtype));
        *out = n->out[0];
    }
    if (f != QX_FORM_NK_TRANSPOSE) return QX_OK;
    static const int64_t perm[2] = {1, 0};
    QX_TRY(qx_node_put(g, at, &(qx_new_node){"Transpose", {n->out[0]}, 1, &w->value->type, w->tensor->dtype, w->value->name,
                                             "Transpose"}, &n));
    QX_TRY(qx_attr_set_ints(n, "perm", perm, 2));
    *out = n->out[0];
    return QX_OK;
}

/* ONNX Runtime's CPU provider has no kernel for 8-bit codes and a float input: it dequantizes the whole weight at each run. */
enum { INPUT_IN_8_BITS = 4 };

static qx_status from_gemm(qx_node *n, qx_value *bias)
{
    static const char *const gone[] = {"alpha", "beta", "transA", "transB"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) QX_TRY(qx_attr_remove(n, gone[i]));
    if (!bias) return QX_OK;
    if (n->n_in == 3) QX_TRY(qx_node_set_in(n, 3, NULL)); /* zero points */
    QX_TRY(qx_node_set_in(n, 4, NULL));
    return qx_node_set_in(n, 5, bias);
}

/* ONNX Runtime 1.32 has no such kernel for 2 bits but in these blocks, and computes what is written: so does the file, at any reader. */
static bool rounds_input(const qx_plan_weight *w)
{
    return !w->exact_input && (qx_dtype_bits(w->spec.codes) != 2 || (w->spec.block >= 32 && w->spec.block <= 128));
}

static qx_status to_nbits(qx_pipeline *pipe, qx_plan_item *it, const stored *s)
{
    qx_node *n = it->lin->node;
    const qx_plan_weight *w = it->weight;
    const bool gemm = n->op->id == QX_OP_Gemm;
    qx_value *bias = qx_node_in(n, 2);
    if (!qx_graph_opset(pipe->model->graph, "com.microsoft")) QX_TRY(qx_model_set_opset(pipe->model, "com.microsoft", 1));
    QX_TRY(qx_node_set_op(n, "com.microsoft", "MatMulNBits"));
    QX_TRY(qx_node_set_in(n, 1, s->codes));
    QX_TRY(qx_node_set_in(n, 2, s->scale));
    if (s->zero) QX_TRY(qx_node_set_in(n, 3, s->zero));
    if (gemm) QX_TRY(from_gemm(n, bias));
    QX_TRY(qx_attr_set_int(n, "K", qx_view_k(&w->view)));
    QX_TRY(qx_attr_set_int(n, "N", w->view.n));
    QX_TRY(qx_attr_set_int(n, "bits", qx_dtype_bits(w->spec.codes)));
    if (rounds_input(w)) QX_TRY(qx_attr_set_int(n, "accuracy_level", INPUT_IN_8_BITS));
    return qx_attr_set_int(n, "block_size", w->spec.block);
}

static qx_status to_gather(qx_pipeline *pipe, qx_plan_item *it, const stored *s)
{
    qx_node *n = it->lin->node;
    if (!qx_graph_opset(pipe->model->graph, "com.microsoft")) QX_TRY(qx_model_set_opset(pipe->model, "com.microsoft", 1));
    QX_TRY(qx_node_set_op(n, "com.microsoft", "GatherBlockQuantized"));
    QX_TRY(qx_node_set_in(n, 0, s->codes));
    QX_TRY(qx_node_set_in(n, 2, s->scale));
    if (s->zero) QX_TRY(qx_node_set_in(n, 3, s->zero));
    QX_TRY(qx_attr_remove(n, "axis"));
    QX_TRY(qx_attr_set_int(n, "gather_axis", 0));
    QX_TRY(qx_attr_set_int(n, "quantize_axis", 1));
    return qx_attr_set_int(n, "block_size", it->weight->spec.block);
}

static qx_status all_rows_of_codes(qx_pipeline *pipe, const qx_plan_weight *w, const stored *s)
{
    for (int64_t i = 0; w->embedding && i < pipe->plan->linears.count; i++) {
        qx_plan_item *it = &pipe->plan->items[i];
        if (it->weight == w && qx_form_rows_fit(pipe, it)) QX_TRY(qx_gathered_rows(it, s->codes, s->scale_stored));
    }
    return QX_OK;
}

/* Every linear that uses the weight becomes MatMulNBits on the same codes, of which embeddings gather theirs. */
static qx_status all_to_nbits(qx_pipeline *pipe, const qx_plan_weight *w, const stored *s)
{
    for (int64_t i = 0; i < pipe->plan->linears.count; i++) {
        qx_plan_item *it = &pipe->plan->items[i];
        if (it->weight == w && !it->lin->embedding) QX_TRY(to_nbits(pipe, it, s));
    }
    return all_rows_of_codes(pipe, w, s);
}

static int64_t job_bytes(const qx_job *job)
{
    int64_t sum = 0;
    for (int i = 0; i < QX_PART_COUNT_; i++)
        if (job->part[i]) sum += (int64_t)job->part[i]->bytes;
    return sum;
}

static qx_status report_weight(qx_pipeline *pipe, const qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    if (!pipe->report) return QX_OK;
    w->report_row = pipe->report->n_tensors;
    qx_report_tensor t = {.name = w->value->name, .format = w->format, .bytes_before = (int64_t)w->tensor->bytes,
                          .bytes_after = job_bytes(w->job) + qx_square_bytes(w), .n = w->view.n,
                          .k = qx_view_k(&w->view), .block = w->spec.block, .sqnr = NAN, .input_sqnr = it->act_sqnr,
                              .node = it->lin->node->name, .scope = it->lin->node->scope};
    return qx_report_add_tensor(pipe->report, &t);
}

static qx_status rewire(qx_pipeline *pipe, qx_plan_item *it, qx_form f)
{
    qx_plan_weight *w = it->weight;
    qx_graph *g = w->value->graph;
    qx_value *scale2, *dq;
    stored s;
    if (qx_form_powers(pipe, w)) w->job->part[QX_PART_SCALE]->dtype = QX_DT_UINT8;
    QX_TRY(add_part(g, w, QX_PART_CODES, suffix_of(w->spec.codes), &s.codes));
    if (w->spec.given_rows > 1) QX_TRY(qx_square_value(pipe, w, dq_axis(it, f) == 0, &s.scale));
    else QX_TRY(add_part(g, w, QX_PART_SCALE, "scale", &s.scale));
    s.scale_stored = s.scale;
    QX_TRY(add_part(g, w, QX_PART_ZERO, "zp", &s.zero));
    QX_TRY(add_part(g, w, QX_PART_SCALE2, "scale_f32_scale", &scale2));
    if (scale2) QX_TRY(block_scales(w, s.scale, scale2, &s.scale));
    if (!qx_form_only_gathered(pipe, w)) QX_TRY(qx_half_scale_cast(w, s.scale, &s.scale));
    if (f == QX_FORM_NBITS) return all_to_nbits(pipe, w, &s);
    if (f == QX_FORM_GATHER) return to_gather(pipe, it, &s);
    if (f == QX_FORM_MIXTURE) return qx_mixture_layer(pipe, it, s.codes, s.scale, s.zero);
    bool rest = true;
    if (f == QX_FORM_INTEGER) QX_TRY(qx_dynamic_write(pipe, w, s.codes, s.scale, &rest));
    if (!rest) return QX_OK;
    QX_TRY(all_rows_of_codes(pipe, w, &s));
    if (!w->value->n_uses) return QX_OK;
    QX_TRY(dequantizer(pipe, it, f, &s, &dq));
    if (f == QX_FORM_NK_GEMM) {
        QX_TRY(qx_attr_set_int(it->lin->node, "transB", 1));
        return qx_node_set_in(it->lin->node, it->lin->w_index, dq);
    }
    return qx_value_replace_uses(w->value, dq, dq->def);
}

static qx_layout layout_of(qx_form f)
{
    if (f == QX_FORM_NBITS || f == QX_FORM_MIXTURE) return QX_LAYOUT_NBITS;
    return f == QX_FORM_SAME || f == QX_FORM_GATHER || f == QX_FORM_INTEGER ? QX_LAYOUT_SAME : QX_LAYOUT_NK;
}

qx_status qx_emit_bytes(qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec, bool external, int64_t *bytes)
{
    qx_plan_weight w = *it->weight; /* tried on a copy */
    qx_plan_item tried = *it;
    qx_job *job;
    w.spec = *spec;
    tried.weight = &w;
    const qx_form f = qx_form_of(pipe, &tried);
    if (w.spec.given_rows > 1) w.spec.rule = QX_SCALE_AMAX;
    QX_TRY(qx_job_new(pipe->model, w.tensor, &w.view, NULL, &w.spec, layout_of(f), &job));
    *bytes = 0;
    for (int i = 0; i < QX_PART_COUNT_; i++)
        if (job->part[i] && !(i == QX_PART_SCALE && w.spec.given_rows > 1))
            *bytes += qx_write_tensor_bytes((int64_t)job->part[i]->bytes, external);
    *bytes += qx_square_bytes(&w);
    return QX_OK;
}

static qx_status all_rows_in_half(qx_pipeline *pipe, qx_plan_weight *w)
{
    qx_value *table;
    QX_TRY(add_part(w->value->graph, w, QX_PART_CODES, "fp16", &table));
    for (int64_t i = 0; i < pipe->plan->linears.count; i++)
        if (pipe->plan->items[i].weight == w) QX_TRY(qx_gathered_half(&pipe->plan->items[i], table));
    return QX_OK;
}

/* A table that is only gathered, and that 8 bits would cost too much (passes/search/tables.c). */
static qx_status emit_half(qx_pipeline *pipe, qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    QX_TRY(qx_job_new(pipe->model, w->tensor, &w->view, w->steps, &w->spec, QX_LAYOUT_SAME, &w->job));
    QX_TRY(all_rows_in_half(pipe, w));
    w->done = true;
    return report_weight(pipe, it);
}

qx_status qx_emit_weight(qx_pipeline *pipe, qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    if (w->done) return QX_OK;
    if (w->spec.codes == QX_DT_FLOAT16) return emit_half(pipe, it);
    qx_form f = qx_form_of(pipe, it);
    const bool half = w->spec.scale == QX_DT_FLOAT16 && it->lin->x->type.dtype == QX_DT_FLOAT; /* and cast */
    if ((f == QX_FORM_NBITS && !w->embedding && !half) || f == QX_FORM_MIXTURE) w->spec.scale = it->lin->x->type.dtype;
    QX_TRY(qx_job_new(pipe->model, w->tensor, &w->view, w->steps, &w->spec, layout_of(f), &w->job));
    if (f == QX_FORM_MIXTURE) QX_TRY(qx_mixture_shape(pipe->model, it));
    if (w->spec.given_rows > 1) w->job->part[QX_PART_SCALE] = NULL; /* stored once for all its rows */
    QX_TRY(rewire(pipe, it, f));
    w->done = true;
    return report_weight(pipe, it);
}

/* A format that a solver counted on may leave the weight float in the end: its input was always zero, or held infinities. */
static qx_status leave_grid(qx_pipeline *pipe, qx_plan_weight *w)
{
    const qx_step *s = w->steps;
    if (!s->def->grid) return QX_OK;
    w->steps = s->prev;
    return s->def->in_float ? qx_plan_step(pipe, w, s->def->in_float, s->arg) : QX_OK;
}

qx_status qx_emit_float(qx_pipeline *pipe, qx_plan_weight *w)
{
    if (w->done || !w->steps) return QX_OK;
    QX_TRY(leave_grid(pipe, w));
    if (!w->steps) return QX_OK;
    qx_value *v;
    qx_qspec s = {.codes = w->tensor->dtype};
    QX_TRY(qx_job_new(pipe->model, w->tensor, &w->view, w->steps, &s, QX_LAYOUT_SAME, &w->job));
    w->done = true;
    if (w->value->init) return qx_init_replace(w->value, w->job->part[QX_PART_CODES]);
    const char *name = qx_arena_printf(pipe->model->arena, "%s_float", w->value->name);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_init_add(w->value->graph, name, w->job->part[QX_PART_CODES], &v));
    return qx_value_replace_uses(w->value, v, NULL);
}

qx_status qx_plan_store_rest(qx_pipeline *pipe)
{
    for (int64_t i = 0; i < pipe->plan->n_weights; i++) QX_TRY(qx_emit_float(pipe, &pipe->plan->weights[i]));
    return QX_OK;
}
