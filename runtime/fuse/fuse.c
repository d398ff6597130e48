/* fuse.c - runs the patterns over the steps of a graph and drops what they made superfluous. */
#include "runtime/fuse/fuse.h"

#include <math.h>
#include <string.h>

#include "onnx/infer/infer.h"
#include "onnx/weight/weight.h"

const qx_node *qx_fuse_is(const qx_rstep *s, qx_op_id op)
{
    return s && !s->fused && s->node->op->id == op ? s->node : NULL;
}

qx_rstep *qx_fuse_def(const qx_fuser *f, const qx_value *v)
{
    qx_rstep *s = v ? f->def[v->id] : NULL;
    return s && !s->fused ? s : NULL;
}

static const qx_value *behind_cast(const qx_value *v);

static const qx_value *before_turn(const qx_fuser *f, const qx_value *v, bool *turned)
{
    int64_t n;
    const qx_node *t = v ? qx_fuse_is(qx_fuse_def(f, v), QX_OP_Transpose) : NULL;
    const int64_t *perm = t ? qx_attr_ints(t, "perm", &n) : NULL;
    *turned = t && (!perm || (n == 2 && perm[0] == 1 && perm[1] == 0));
    return *turned ? t->in[0] : v;
}

/* Scales or zero points of codes that are turned; those of one axis or none need not be. */
static bool part_fits(const qx_fuser *f, const qx_value **part, bool turned)
{
    bool too;
    if (!*part) return true;
    *part = behind_cast(before_turn(f, *part, &too));
    const qx_weight *w = qx_fuse_const(*part);
    return w && (w->rank <= 1 ? !too : too == turned);
}

bool qx_fuse_dequantized(const qx_fuser *f, const qx_value *v, qx_fuse_weight *out)
{
    bool result_turned, turned;
    v = before_turn(f, v, &result_turned);
    const qx_node *dq = qx_fuse_is(qx_fuse_def(f, v), QX_OP_DequantizeLinear);
    if (!dq) return false;
    *out = (qx_fuse_weight){.scale = qx_fuse_scale(dq), .zero = qx_node_in(dq, 2), .axis = qx_attr_int(dq, "axis", 1),
                            .block = qx_attr_int(dq, "block_size", 0)};
    out->codes = before_turn(f, dq->in[0], &turned);
    const qx_weight *w = qx_fuse_const(out->codes);
    if (!w || !part_fits(f, &out->scale, turned) || !part_fits(f, &out->zero, turned)) return false;
    if (out->axis < 0) out->axis += w->rank;
    if (turned) out->axis = 1 - out->axis;
    out->swapped = turned != result_turned;
    return true;
}

bool qx_fuse_inner(const qx_fuser *f, const qx_value *v)
{
    const qx_vinfo *i = &f->x->info[v->id];
    return v->n_uses == 1 && !v->is_output && !i->keep && !i->watched && v->def && v->graph == f->p->graph &&
        v->uses->node->graph == v->graph;
}

qx_rstep *qx_fuse_user(const qx_fuser *f, const qx_value *v)
{
    if (!qx_fuse_inner(f, v)) return NULL;
    const qx_node *n = v->uses->node;
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i]) return qx_fuse_def(f, n->out[i]);
    return NULL;
}

qx_status qx_fuse_set(qx_fuser *f, qx_rstep *s, qx_cpu_fn *fn, const void *params, const qx_value *const *in, uint32_t n_in,
                      const qx_value *out)
{
    qx_arena *a = f->x->mem;
    uint32_t *ids = qx_arena_array(a, n_in + 1, sizeof *ids), *oid = qx_arena_array(a, 1, sizeof *oid),
        *cache = qx_arena_array(a, 1, sizeof *cache);
    const qx_value **values = qx_arena_array(a, n_in + 1, sizeof *values), **ov = qx_arena_array(a, 1, sizeof *ov);
    if (!ids || !oid || !cache || !values || !ov) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    for (uint32_t i = 0; i < n_in; i++) {
        ids[i] = in[i] ? in[i]->id : QX_NO_VALUE;
        values[i] = in[i];
    }
    *oid = out->id;
    *ov = out;
    *cache = QX_NO_VALUE;
    s->fn = fn;
    s->fused = params;
    s->in = ids;
    s->in_value = values;
    s->n_in = n_in;
    s->out = oid;
    s->out_value = ov;
    s->cache_at = cache;
    s->n_out = 1;
    f->def[out->id] = s;
    return QX_OK;
}

const qx_value *qx_fuse_behind(const qx_value *v)
{
    for (int depth = 0; v && v->def && v->def->op->id == QX_OP_Identity && depth < 8; depth++) v = v->def->in[0];
    return v;
}

const qx_weight *qx_fuse_const(const qx_value *v)
{
    v = qx_fuse_behind(v);
    return v && !v->is_input ? qx_value_const(v) : NULL;
}

static const qx_value *behind_cast(const qx_value *v)
{
    v = qx_fuse_behind(v);
    if (!v || !v->def || v->def->op->id != QX_OP_Cast) return v;
    const qx_weight *half = qx_fuse_const(v->def->in[0]);
    return half && half->dtype == QX_DT_FLOAT16 ? qx_fuse_behind(v->def->in[0]) : v;
}

const qx_value *qx_fuse_scale(const qx_node *dq) { return behind_cast(dq->in[1]); }

/* Shape inference over the whole model, with the declared dims. */
struct qx_fuse_facts { bool tried, no_memory; qx_infer *infer; };

static bool inferred_scalar(const qx_fuser *f, const qx_value *v, double *out)
{
    struct qx_fuse_facts *k = f->facts;
    if (!v || !v->def) return false;
    if (!k->tried) {
        k->tried = true;
        qx_model *m = f->x->model;
        qx_status st = qx_infer_new(m, &k->infer);
        if (st == QX_OK) st = qx_infer_graph(k->infer, m->graph);
        if (!qx_fuse_ok(f, st)) { /* nothing is known then */
            if (k->infer) qx_infer_free(k->infer);
            k->infer = NULL;
        }
    }
    const qx_content *c = k->infer ? qx_infer_content(k->infer, v) : NULL;
    if (!k->infer || !qx_fuse_ok(f, qx_infer_status(k->infer)) || !c || c->n != 1 ||
        (c->v[0].kind != QX_NUM_INT && c->v[0].kind != QX_NUM_REAL))
        return false;
    *out = c->v[0].kind == QX_NUM_INT ? (double)c->v[0].i : c->v[0].f;
    return isfinite(*out);
}

bool qx_fuse_ok(const qx_fuser *f, qx_status st)
{
    f->facts->no_memory |= st == QX_E_NOMEM;
    if (st != QX_OK && st != QX_E_NOMEM) qx_ctx_clear_error(f->x->ctx);
    return st == QX_OK;
}

static bool const_scalar(const qx_fuser *f, const qx_value *v, double *out)
{
    uint64_t raw[2] = {0, 0};
    float x;
    const qx_weight *w = qx_fuse_const(v);
    if (!w || w->numel != 1 || w->bytes > sizeof raw || w->dtype == QX_DT_STRING || !qx_fuse_ok(f, qx_weight_read(f->x->ctx, w, raw)))
        return false;
    if (w->dtype == QX_DT_DOUBLE) memcpy(out, raw, sizeof *out);
    else if (w->dtype == QX_DT_INT64) *out = (double)(int64_t)raw[0];
    else if (qx_to_f32(w->dtype, raw, 1, &x)) *out = (double)x;
    else return false;
    return isfinite(*out);
}

qx_rstep *qx_fuse_act_behind(const qx_fuser *f, const qx_value *v)
{
    const qx_vinfo *i = &f->x->info[v->id];
    qx_rstep *a = f->act[v->id];
    if (!a || a->fn != qx_cpu_act || v->is_output || i->keep || i->watched) return NULL;
    return v->n_uses == ((const qx_act_params *)a->fused)->reads ? a : NULL;
}

const qx_value *qx_fuse_with_same(const qx_fuser *f, const qx_value *v, qx_op_id op, qx_rstep **reader)
{
    *reader = qx_fuse_user(f, v);
    const qx_node *n = qx_fuse_is(*reader, op);
    if (!n || (*reader)->ref_attrs) return NULL;
    const qx_value *o = n->in[0] == v ? n->in[1] : n->in[0];
    if (!o || o->type.dtype != v->type.dtype || !qx_type_same_dims(&o->type, &v->type)) return NULL;
    return qx_type_same_dims(&o->type, &(*reader)->out_value[0]->type) ? o : NULL;
}

bool qx_fuse_scalar(const qx_fuser *f, const qx_value *v, double *out) { return const_scalar(f, v, out) || inferred_scalar(f, v, out); }

/* Steps whose outputs nobody reads any more leave the list. */
static qx_status drop_dead(qx_exec *x, qx_gplan *p)
{
    uint8_t *need = NULL;
    QX_TRY(qx_alloc_array(x->ctx, x->n_values + 1, 1, (void **)&need));
    for (uint32_t i = 0; i < p->graph->n_outputs && qx_outputs_wanted(x, p->graph); i++) need[p->graph->outputs[i]->id] = 1;
    qx_status st = QX_OK;
    uint32_t kept = p->n_steps;
    for (uint32_t i = p->n_steps; i-- > 0 && st == QX_OK;) {
        qx_rstep *s = &p->steps[i];
        bool used = qx_holds_watched(x, s->node);
        for (uint32_t k = 0; k < s->n_out; k++) {
            uint32_t id = s->out[k];
            used = used || (id != QX_NO_VALUE && (need[id] || x->info[id].keep || x->info[id].watched));
        }
        if (!used) continue;
        st = qx_plan_mark_inputs(x, s, need);
        p->steps[--kept] = *s; /* i < kept, or the same place */
    }
    p->n_steps -= kept;
    memmove(p->steps, p->steps + kept, p->n_steps * sizeof *p->steps);
    qx_free(x->ctx, need);
    return st;
}

static qx_status each_step(qx_fuser *f, qx_fuse_fn *pattern)
{
    for (uint32_t i = 0; i < f->p->n_steps; i++)
        if (!f->p->steps[i].fused && !f->p->steps[i].ref_attrs) QX_TRY(pattern(f, &f->p->steps[i]));
    return QX_OK;
}

qx_status qx_fuse(qx_exec *x, qx_gplan *p)
{
    struct qx_fuse_facts facts = {.tried = false};
    qx_fuser f = {.x = x, .p = p, .facts = &facts};
    QX_TRY(qx_alloc_array(x->ctx, 2 * (size_t)x->n_values + 2, sizeof *f.def, (void **)&f.def));
    f.act = f.def + x->n_values + 1;
    for (uint32_t i = 0; i < p->n_steps; i++)
        for (uint32_t k = 0; k < p->steps[i].n_out; k++)
            if (p->steps[i].out[k] != QX_NO_VALUE) f.def[p->steps[i].out[k]] = &p->steps[i];
    qx_status st = each_step(&f, qx_fuse_int8);
    if (st == QX_OK) st = each_step(&f, qx_fuse_wq);
    if (st == QX_OK) st = each_step(&f, qx_fuse_attention);
    if (st == QX_OK) st = qx_fuse_patterns(&f);
    if (st == QX_OK) st = each_step(&f, qx_fuse_group_norm);
    if (st == QX_OK) st = each_step(&f, qx_fuse_linear);
    if (st == QX_OK) st = each_step(&f, qx_fuse_conv);
    if (st == QX_OK) st = each_step(&f, qx_fuse_batch_norm);
    if (st == QX_OK) st = each_step(&f, qx_fuse_between);
    if (st == QX_OK) st = each_step(&f, qx_fuse_experts);
    if (st == QX_OK) st = each_step(&f, qx_fuse_rows);
    if (st == QX_OK) st = each_step(&f, qx_fuse_chain);
    qx_free(x->ctx, f.def);
    if (facts.infer) qx_infer_free(facts.infer);
    if (st == QX_OK && facts.no_memory) return QX_E_NOMEM;
    return st == QX_OK ? drop_dead(x, p) : st;
}

/* What stands here is named by what it computes; other fused steps (a convolution with its activation) have the operator's own adapter. */
static const struct operator_name { qx_cpu_fn *fn; const char *name; } operators[] = {
    {qx_cpu_attn, "Attention"}, {qx_cpu_linear, "MatMul"}, {qx_cpu_wq_linear, "MatMul"}, {qx_cpu_experts, "MatMul"}, {qx_cpu_conv, "Conv"},
    {qx_cpu_batch_norm, "BatchNormalization"}, {qx_cpu_gn, "GroupNormalization"}, {qx_cpu_rope, "RotaryEmbedding"},
    {qx_cpu_glu, "gated activation"}, {qx_cpu_act, "activation"}, {qx_cpu_between, "sum, activation, codes"},
    {qx_cpu_chain, "pointwise"}, {qx_cpu_rows_of, "Gather"},
    {qx_cpu_rows_dq, "Gather"}, {qx_cpu_row_codes, "QuantizeLinear"}, {qx_cpu_row_top, "ReduceMax"},
};

const char *qx_fuse_operator(const qx_rstep *s)
{
    static const char *const int8[] = {[QX_INT8_MATMUL] = "MatMul", [QX_INT8_GEMM] = "Gemm", [QX_INT8_CONV] = "Conv"};
    if (!s->fused) return s->node->op_type;
    if (s->fn == qx_cpu_int8_linear) return int8[((const qx_int8_params *)s->fused)->kind];
    if (s->fn == qx_cpu_row_norm) return ((const qx_norm_params *)s->fused)->rms ? "RMSNormalization" : "LayerNormalization";
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (s->fn == operators[i].fn) return operators[i].name;
    return s->node->op_type;
}
