/* device_plan.c - which steps run on the device, how a node looks to the plugin, and compiling it for the dims of a run.
 *
 * Placement happens when the plan is made, so that a node without a kernel is an error by name before anything runs. The dims of
 * all values follow from those of the feeds by shape inference, once for each set of input shapes; a node whose output shape
 * depends on data is inferred when it runs. */
#include <stdio.h>
#include <string.h>

#include "onnx/infer/infer.h"
#include "runtime/device/device.h"
#include "runtime/fuse/fuse.h"

/* ---- A node as plain structs ---- */

static bool put_attr(qx_node_view *v, qx_dev_attr a)
{
    if (v->node.n_attrs == sizeof v->attrs / sizeof *v->attrs) return false;
    v->attrs[v->node.n_attrs++] = a;
    return true;
}

static bool put_int(qx_node_view *v, const char *name, int64_t i)
{
    return put_attr(v, (qx_dev_attr){.name = name, .kind = QX_DEV_INT, .i = i});
}
static bool put_float(qx_node_view *v, const char *name, float f)
{
    return put_attr(v, (qx_dev_attr){.name = name, .kind = QX_DEV_FLOAT, .f = (double)f});
}

static bool node_attr(qx_node_view *v, const qx_attr *a)
{
    switch (a->type) {
    case QX_ATTR_INT: return put_int(v, a->name, a->i);
    case QX_ATTR_FLOAT: return put_float(v, a->name, a->f);
    case QX_ATTR_STRING: return put_attr(v, (qx_dev_attr){.name = a->name, .kind = QX_DEV_STRING, .s = a->s, .n = (int64_t)a->s_len});
    case QX_ATTR_INTS: return put_attr(v, (qx_dev_attr){.name = a->name, .kind = QX_DEV_INTS, .ints = a->ints, .n = a->n});
    case QX_ATTR_FLOATS: return put_attr(v, (qx_dev_attr){.name = a->name, .kind = QX_DEV_FLOATS, .floats = a->floats, .n = a->n});
    default: return false;
    }
}

static bool no_attrs(qx_node_view *v, const void *p) { return (void)v, (void)p, true; }
static bool act_attrs(qx_node_view *v, const void *p) { return put_int(v, "act", (int64_t)((const qx_act_params *)p)->act); }
static bool linear_attrs(qx_node_view *v, const void *p) { return put_int(v, "act", (int64_t)((const qx_linear_params *)p)->act); }
static bool rope_attrs(qx_node_view *v, const void *p) { return put_int(v, "bshd", ((const qx_rope_params *)p)->bshd); }

static bool norm_attrs(qx_node_view *v, const void *params)
{
    const qx_norm_params *p = params;
    return put_int(v, "rms", p->rms) && put_float(v, "epsilon", p->eps);
}

static bool glu_attrs(qx_node_view *v, const void *params)
{
    const qx_glu_params *p = params;
    return put_int(v, "act", (int64_t)p->act) && put_int(v, "upper", p->upper);
}

static bool gn_attrs(qx_node_view *v, const void *params)
{
    const qx_gn_params *p = params;
    return put_int(v, "groups", p->groups) && put_float(v, "epsilon", p->eps) && put_int(v, "silu", p->silu);
}

static bool attn_attrs(qx_node_view *v, const void *params)
{
    const qx_attn_params *p = params;
    return put_float(v, "scale", p->scale) && put_int(v, "k_layout", (int64_t)p->k_layout) && put_int(v, "q_bshd", p->q_bshd) &&
           put_int(v, "v_bshd", p->v_bshd) && put_int(v, "out_bshd", p->out_bshd) && put_float(v, "p_scale", p->p_scale) &&
           put_int(v, "p_codes", (int64_t)p->p_codes) && put_int(v, "p_zero", p->p_zero);
}

static bool int8_attrs(qx_node_view *v, const void *params)
{
    const qx_int8_params *p = params;
    return put_int(v, "kind", (int64_t)p->kind) && put_int(v, "nk", p->w_nk) && put_int(v, "blocked", p->blocked);
}

static bool row_codes_attrs(qx_node_view *v, const void *params) { return put_int(v, "zero", ((const qx_row_codes_params *)params)->zero); }

static bool chain_attrs(qx_node_view *v, const void *params)
{
    const qx_chain_params *p = params;
    return put_attr(v, (qx_dev_attr){.name = "ops", .kind = QX_DEV_INTS, .ints = p->ops, .n = (int64_t)p->n * QX_CHAIN_FIELDS}) &&
           put_attr(v, (qx_dev_attr){.name = "p", .kind = QX_DEV_FLOATS, .floats = p->p, .n = 2 * (int64_t)p->n});
}

static bool wq_attrs(qx_node_view *v, const void *params)
{
    const qx_wq_params *p = params;
    return put_int(v, "block", p->block) && put_int(v, "nk", p->nk);
}

/* Fused steps by their CPU function; domain "qonnx". The inputs are those of runtime/fuse/fuse.h. */
typedef struct fused_row { qx_cpu_fn *fn; const char *op; bool (*attrs)(qx_node_view *v, const void *params); bool node_attrs; } fused_row;
static const fused_row fused_rows[] = {
    {qx_cpu_act, "Act", act_attrs, false}, {qx_cpu_linear, "Linear", linear_attrs, false}, {qx_cpu_gn, "GroupNorm", gn_attrs, false},
    {qx_cpu_attn, "Attention", attn_attrs, false}, {qx_cpu_int8_linear, "Int8Linear", int8_attrs, true},
    {qx_cpu_wq_linear, "CodesLinear", wq_attrs, false},
    {qx_cpu_row_norm, "RowNorm", norm_attrs, false}, {qx_cpu_rope, "Rotate", rope_attrs, false}, {qx_cpu_glu, "Glu", glu_attrs, false},
    {qx_cpu_identity, "Same", no_attrs, false}, {qx_cpu_row_codes, "RowCodes", row_codes_attrs, false},
    {qx_cpu_chain, "Chain", chain_attrs, false},
};

static bool describe_fused(const qx_rstep *s, qx_node_view *out)
{
    for (size_t i = 0; i < sizeof fused_rows / sizeof *fused_rows; i++) {
        const fused_row *r = &fused_rows[i];
        if (r->fn != s->fn) continue;
        out->node.domain = "qonnx";
        out->node.op = r->fn == qx_cpu_int8_linear && ((const qx_int8_params *)s->fused)->fp8 ? "Fp8Linear" : r->op;
        out->node.version = 1;
        for (uint32_t k = 0; r->node_attrs && k < s->node->n_attrs; k++)
            if (!node_attr(out, &s->node->attrs[k])) return false;
        return r->attrs(out, s->fused);
    }
    return false;
}

bool qx_device_describe(const qx_rstep *s, qx_node_view *out)
{
    const qx_node *n = s->node;
    memset(&out->node, 0, sizeof out->node);
    out->node = (qx_dev_node){.name = *n->name || !s->n_out || !s->out_value[0] ? n->name : s->out_value[0]->name, .domain = n->domain,
                              .op = n->op_type,
                              .version = n->op->since, .n_in = s->n_in, .n_out = s->n_out, .attrs = out->attrs};
    if (s->fused) return describe_fused(s, out);
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (!node_attr(out, &n->attrs[i])) return false;
    return true;
}

/* ---- Placement ---- */

static uint32_t constant_flags(const qx_exec *x) { return x->opt.sparse ? QX_DEV_CONST | QX_DEV_SPARSE : QX_DEV_CONST; }

static void static_tensor(const qx_exec *x, const qx_value *v, qx_dev_tensor *out)
{
    memset(out, 0, sizeof *out);
    out->rank = -1;
    if (!v) return;
    const qx_weight *w = v->init;
    if (x->info[v->id].content == QX_CLASS_CONST) out->flags = constant_flags(x);
    out->dtype = w ? (int32_t)w->dtype : v->type.kind == QX_KIND_TENSOR ? (int32_t)v->type.dtype : 0;
    if (w && w->rank <= QX_DEV_RANK) {
        out->rank = w->rank;
        for (int i = 0; i < w->rank; i++) out->dims[i] = w->dims[i];
    } else if (v->type.kind == QX_KIND_TENSOR && v->type.has_shape && v->type.rank <= QX_DEV_RANK) {
        out->rank = v->type.rank;
        for (int i = 0; i < v->type.rank; i++) out->dims[i] = v->type.dims[i].n;
    }
}

/* The reason goes to *why; a NULL reason: it runs on the device. */
static qx_status place_step(qx_exec *x, qx_rstep *s, const char **why)
{
    qx_gpu *d = x->device;
    qx_node_view v;
    qx_dev_place place = {0};
    qx_dev_tensor *in = NULL;
    *why = "it has subgraphs, or attributes that a device kernel cannot take";
    if (s->klass != QX_CLASS_DATA || s->ref_attrs || s->fn == qx_cpu_function_call || s->n_in > 32 || !qx_device_describe(s, &v))
        return QX_OK;
    QX_TRY(qx_alloc_array(x->ctx, s->n_in + 1, sizeof *in, (void **)&in));
    for (uint32_t i = 0; i < s->n_in; i++) static_tensor(x, s->in_value[i], &in[i]);
    qx_dev_status st = d->b->place(d->dev, &v.node, in, &place);
    qx_free(x->ctx, in);
    *why = st == QX_DEV_OK ? NULL : d->b->error(d->dev);
    s->on_device = st == QX_DEV_OK;
    s->view = place.view != 0;
    s->host_in = place.host_in;
    s->shape_in = 0;
    for (uint32_t i = 0; i < s->n_in && s->on_device; i++) {
        if (s->in[i] == QX_NO_VALUE || x->info[s->in[i]].content != QX_CLASS_DATA) continue;
        s->shape_in |= place.shape_in & 1u << i;
        if (s->shape_in >> i & 1) d->reshaping = true;
        if ((s->host_in >> i & 1) || ((s->shape_in >> i & 1) && s->in_value[i]->def)) d->changing = true;
    }
    return QX_OK;
}

qx_status qx_device_place(qx_exec *x)
{
    qx_gpu *d = x->device;
    d->n_steps = d->n_host = 0;
    d->changing = d->reshaping = false;
    for (uint32_t i = 0; i < x->main->n_steps; i++) {
        qx_rstep *s = &x->main->steps[i];
        const char *why;
        if (s->klass != QX_CLASS_DATA) continue;
        QX_TRY(place_step(x, s, &why));
        if (s->on_device) {
            d->n_steps++;
            continue;
        }
        d->n_host++;
        if (!x->opt.allow_fallback)
            QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "node '%s' (%s) has no kernel on %s: %.200s; --allow-fallback runs it on the CPU",
                    s->node->name, s->node->op_type, d->b->name, why);
        qx_log(x->ctx, QX_LOG_DEBUG, "node '%s' (%s) runs on the CPU: %.200s", s->node->name, s->node->op_type, why);
    }
    if (d->n_host)
        qx_log(x->ctx, QX_LOG_INFO, "%s runs %lld nodes, the CPU %lld that have no kernel there", d->name, (long long)d->n_steps,
               (long long)d->n_host);
    return QX_OK;
}

/* ---- Dims of a run ---- */

static qx_status infer_start(qx_exec *x, qx_dev_plan *p)
{
    const qx_graph *g = x->main->graph;
    QX_TRY(qx_infer_new(x->model, &p->infer));
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const qx_slot *s = &x->slots[g->inputs[i]->id];
        if (!s->set || s->t.is_sequence || s->t.is_optional) continue;
        QX_TRY(qx_infer_give(p->infer, g->inputs[i], s->t.dtype, s->t.rank, s->t.dims, s->t.dtype == QX_DT_STRING ? NULL : s->t.data));
    }
    return qx_infer_graph(p->infer, (qx_graph *)(uintptr_t)g);
}

static bool dims_of(const qx_type *t, int64_t *dims)
{
    if (t->kind != QX_KIND_TENSOR || !t->dtype || !t->has_shape || t->rank > QX_MAX_RANK) return false;
    for (int i = 0; i < t->rank; i++) {
        if (t->dims[i].n < 0) return false;
        dims[i] = t->dims[i].n;
    }
    return true;
}

static bool outputs_known(const qx_dev_plan *p, const qx_rstep *s)
{
    int64_t dims[QX_MAX_RANK];
    for (uint32_t i = 0; i < s->n_out; i++)
        if (s->out_value[i] && !dims_of(qx_infer_type(p->infer, s->out_value[i]), dims)) return false;
    return true;
}

/* With what the inputs really are; contents as far as the host has them. */
static qx_status infer_step(qx_dev_plan *p, const qx_rstep *s, const qx_tensor *const *in)
{
    for (uint32_t i = 0; i < s->n_in; i++)
        if (in[i])
            QX_TRY(qx_infer_give(p->infer, s->in_value[i], in[i]->dtype, in[i]->rank, in[i]->dims, in[i]->on_device ? NULL : in[i]->data));
    return s->fused ? QX_OK : qx_infer_node(p->infer, (qx_node *)(uintptr_t)s->node);
}

static qx_status output_shapes(qx_exec *x, qx_dev_plan *p, const qx_rstep *s, const qx_tensor *const *in, bool again, qx_tensor *out)
{
    char text[128];
    if (!p->infer) QX_TRY(infer_start(x, p));
    if (again || !outputs_known(p, s)) QX_TRY(infer_step(p, s, in));
    for (uint32_t i = 0; i < s->n_out; i++) {
        int64_t dims[QX_MAX_RANK];
        memset(&out[i], 0, sizeof out[i]);
        if (!s->out_value[i]) continue;
        const qx_type *t = qx_infer_type(p->infer, s->out_value[i]);
        if (!dims_of(t, dims))
            QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "node '%s' (%s): its output is %s, a device needs to know all dims before it runs "
                                              "(--allow-fallback does not help here: use --device cpu)",
                    s->node->name, s->node->op_type, qx_type_describe(t, text, sizeof text));
        QX_TRY(qx_tensor_shape(x->ctx, &out[i], t->dtype, t->rank, dims));
    }
    return QX_OK;
}

/* ---- Compiling ---- */

static bool same_shape(const qx_tensor *a, const qx_tensor *b)
{
    if (!b) return a->dtype == QX_DT_UNDEFINED;
    return a->dtype == b->dtype && a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0;
}

/* Whether the outputs have the dims that the step was compiled for, with what the inputs hold now. */
static qx_status same_outputs(qx_exec *x, const qx_rstep *s, const qx_dev_code *c, const qx_tensor *const *in, bool *same)
{
    qx_dev_plan *p = x->cur->dev;
    int64_t dims[QX_MAX_RANK];
    if (!p->infer) QX_TRY(infer_start(x, p));
    QX_TRY(infer_step(p, s, in));
    for (uint32_t i = 0; i < s->n_out && *same; i++)
        if (s->out_value[i])
            *same = dims_of(qx_infer_type(p->infer, s->out_value[i]), dims) &&
                memcmp(dims, c->out[i].dims, (size_t)c->out[i].rank * sizeof *dims) == 0;
    return QX_OK;
}

/* Arguments on the host may change the result without changing a shape: only constants and shape values are certain to stay. */
static qx_status still_fits(qx_exec *x, const qx_rstep *s, const qx_dev_code *c, const qx_tensor *const *in, bool *fits)
{
    *fits = c->step != NULL;
    for (uint32_t i = 0; i < s->n_in && *fits; i++) {
        *fits = same_shape(&c->in[i], in[i]);
        if (in[i] && (s->host_in >> i & 1) && x->info[s->in[i]].content == QX_CLASS_DATA) *fits = false;
    }
    return *fits && s->shape_in ? same_outputs(x, s, c, in, fits) : QX_OK;
}

static qx_status step_holds(qx_exec *x, const qx_rstep *s, const qx_dev_code *c, bool *hold)
{
    const qx_tensor *in[32];
    qx_tensor shapes[32];
    for (uint32_t i = 0; i < s->n_in; i++) {
        shapes[i] = c->in[i];
        shapes[i].on_device = true; /* what the values of the last run held is not there any more */
        in[i] = c->in[i].dtype == QX_DT_UNDEFINED ? NULL : s->shape_in >> i & 1 ? &x->slots[s->in[i]].t : &shapes[i];
    }
    return same_outputs(x, s, c, in, hold);
}

qx_status qx_device_dims_hold(qx_exec *x, bool *hold)
{
    *hold = true;
    for (uint32_t i = 0; i < x->main->n_steps && *hold; i++) {
        const qx_dev_code *c = &x->cur->dev->codes[i];
        if (x->main->steps[i].shape_in && c->step) QX_TRY(step_holds(x, &x->main->steps[i], c, hold));
    }
    return QX_OK;
}

static void code_drop(qx_exec *x, qx_dev_code *c)
{
    if (c->step) x->device->b->drop(x->device->dev, c->step);
    qx_free(x->ctx, c->in);
    memset(c, 0, sizeof *c);
}

void qx_device_tensor(const qx_exec *x, const qx_rstep *s, uint32_t i, const qx_tensor *t, qx_dev_tensor *out)
{
    memset(out, 0, sizeof *out);
    if (!t) return;
    *out = (qx_dev_tensor){.dtype = (int32_t)t->dtype, .rank = t->rank, .numel = t->numel, .bytes = t->bytes};
    memcpy(out->dims, t->dims, sizeof out->dims);
    if (x->info[s->in[i]].content == QX_CLASS_CONST) out->flags = constant_flags(x);
    if (s->host_in >> i & 1) out->host = t->data;
    else if (x->slots[s->in[i]].dev) out->data = x->slots[s->in[i]].dev->data;
}

static qx_status compile(qx_exec *x, qx_rstep *s, const qx_tensor *const *in, qx_dev_code *c)
{
    qx_gpu *d = x->device;
    qx_node_view v;
    qx_dev_tensor *ins = NULL;
    char doing[200];
    if (!qx_device_describe(s, &v)) QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "node '%s': cannot be described to a device", s->node->name);
    QX_TRY(qx_alloc_array(x->ctx, s->n_in + s->n_out + 1, sizeof *ins, (void **)&ins));
    for (uint32_t i = 0; i < s->n_in; i++) qx_device_tensor(x, s, i, in[i], &ins[i]);
    for (uint32_t i = 0; i < s->n_out; i++) {
        qx_dev_tensor *o = &ins[s->n_in + i];
        *o = (qx_dev_tensor){.dtype = (int32_t)c->out[i].dtype, .rank = c->out[i].rank, .numel = c->out[i].numel, .bytes = c->out[i].bytes};
        memcpy(o->dims, c->out[i].dims, sizeof o->dims);
    }
    qx_dev_status st = d->b->compile(d->dev, &v.node, ins, ins + s->n_in, &c->step, &c->workspace);
    qx_free(x->ctx, ins);
    snprintf(doing, sizeof doing, "node '%.100s' (%.40s)", v.node.name, s->node->op_type);
    return qx_device_status(x, st, doing);
}

qx_status qx_device_compile(qx_exec *x, qx_rstep *s, const qx_tensor *const *in, qx_dev_code **out)
{
    qx_dev_plan *p = x->cur->dev;
    qx_dev_code *c = &p->codes[s - x->main->steps];
    bool fits;
    *out = c;
    QX_TRY(still_fits(x, s, c, in, &fits));
    if (fits || (s->view && c->tried && c->in && same_shape(&c->in[0], in[0]) && x->info[s->out[0]].shape_fixed)) return QX_OK;
    bool again = c->tried;
    code_drop(x, c);
    QX_TRY(qx_alloc_array(x->ctx, s->n_in + s->n_out + 1, sizeof *c->in, (void **)&c->in));
    c->out = c->in + s->n_in;
    c->tried = true;
    for (uint32_t i = 0; i < s->n_in; i++)
        if (in[i]) c->in[i] = *in[i];
    QX_TRY(output_shapes(x, p, s, in, again, c->out));
    return s->view ? QX_OK : compile(x, s, in, c);
}

void qx_dev_plan_free(qx_exec *x, qx_dev_plan *p)
{
    if (!p) return;
    for (uint32_t i = 0; p->codes && i < x->main->n_steps; i++) code_drop(x, &p->codes[i]);
    for (uint32_t i = 0; p->kept && i < x->n_values; i++) qx_dblock_release(x, p->kept[i]);
    if (p->graph) x->device->b->drop_graph(x->device->dev, p->graph);
    qx_infer_free(p->infer);
    qx_free(x->ctx, p->codes);
    qx_free(x->ctx, p->kept);
    qx_free(x->ctx, p->recs);
    qx_free(x->ctx, p->ends);
    qx_free(x->ctx, p);
}
