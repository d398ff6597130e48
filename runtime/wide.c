/* wide.c - values of 16 bits that are kept as floats in memory between steps that compute in floats anyway.
 *
 * Half types are computed in float and rounded once, at the output of each step. Where the next step works in floats too, turning
 * the result into 16 bits and back is work for nothing, and a convolution in a layout of its own cannot begin before it is done. So
 * a value that such steps pass on is a FLOAT tensor whose numbers are rounded in place: the same bits at half the passes, for twice
 * the memory. Its declared type is known to the plan only. Steps that know halves only get them, around their call. */
#include <string.h>

#include "runtime/fuse/fuse.h"
#include "runtime/plan.h"

/* moves: what it writes is what it reads, rounded already. constants: it wants all operands in one type, constants too. */
typedef struct ability { qx_cpu_fn *fn; bool moves, constants; } ability;
static const ability abilities[] = {
    {qx_cpu_conv, false, false}, {qx_cpu_conv_transpose, false, false}, {qx_cpu_batch_norm, false, false}, {qx_cpu_gn, false, false},
    {qx_cpu_group_norm, false, false}, {qx_cpu_layernorm, false, false}, {qx_cpu_row_norm, false, false}, {qx_cpu_softmax, false, false},
    {qx_cpu_pool, false, false}, {qx_cpu_global_pool, false, false}, {qx_cpu_reduce, false, false}, {qx_cpu_resize, false, false},
    {qx_cpu_act, false, false}, {qx_cpu_unary, false, false}, {qx_cpu_clip, false, false}, {qx_cpu_glu, false, false},
    {qx_cpu_rope, false, false}, {qx_cpu_attn, false, false}, {qx_cpu_linear, false, false}, {qx_cpu_matmul, false, false},
    {qx_cpu_gemm, false, false}, {qx_cpu_binary, false, true}, {qx_cpu_cast, false, false}, {qx_cpu_variadic, false, true},
    {qx_cpu_where, true, true}, {qx_cpu_concat, true, true}, {qx_cpu_pad, true, true}, {qx_cpu_reshape, true, false},
    {qx_cpu_flatten, true, false}, {qx_cpu_squeeze, true, false}, {qx_cpu_unsqueeze, true, false}, {qx_cpu_identity, true, false},
    {qx_cpu_transpose, true, false}, {qx_cpu_slice, true, false}, {qx_cpu_split, true, false}, {qx_cpu_expand, true, false},
    {qx_cpu_shape, true, false}};

static const ability *ability_of(const qx_rstep *s)
{
    for (size_t i = 0; i < sizeof abilities / sizeof *abilities; i++)
        if (abilities[i].fn == s->fn) return s->ref_attrs ? NULL : &abilities[i];
    return NULL;
}

static bool is_half(qx_dtype t) { return t == QX_DT_FLOAT16 || t == QX_DT_BFLOAT16; }

/* Made and read in this graph only, and seen by nobody else. */
static bool may_be_wide(const qx_exec *x, const qx_gplan *p, const qx_value *v)
{
    const qx_vinfo *i = &x->info[v->id];
    return v->type.kind == QX_KIND_TENSOR && is_half(v->type.dtype) && i->content == QX_CLASS_DATA && !i->keep && !i->watched &&
        v->graph == p->graph && !v->is_output;
}

typedef struct votes { int32_t able, unable; } votes;

/* Who reads each value: subgraphs cannot read wide ones at all. */
static qx_status count_readers(qx_exec *x, const qx_gplan *p, votes *v)
{
    uint8_t *need = NULL;
    QX_TRY(qx_alloc_array(x->ctx, (size_t)x->n_values + 1, 1, (void **)&need));
    qx_status st = QX_OK;
    for (uint32_t k = 0; k < p->n_steps && st == QX_OK; k++) {
        const qx_rstep *s = &p->steps[k];
        for (uint32_t i = 0; i < s->n_in; i++)
            if (s->in[i] != QX_NO_VALUE) *(ability_of(s) ? &v[s->in[i]].able : &v[s->in[i]].unable) += 1;
        if (!(s->node->op->traits & QX_T_CONTROL)) continue;
        memset(need, 0, x->n_values);
        st = qx_plan_mark_inputs(x, s, need);
        for (uint32_t id = 0; id < x->n_values; id++)
            if (need[id]) v[id].unable = INT32_MAX / 2;
    }
    qx_free(x->ctx, need);
    return st;
}

static bool has_wide(const qx_exec *x, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] != QX_NO_VALUE && x->info[ids[i]].wide) return true;
    return false;
}

qx_status qx_plan_wide(qx_exec *x, qx_gplan *p)
{
    votes *v = NULL;
    QX_TRY(qx_alloc_array(x->ctx, (size_t)x->n_values + 1, sizeof *v, (void **)&v));
    qx_status st = count_readers(x, p, v);
    for (uint32_t k = 0; k < p->n_steps && st == QX_OK; k++)
        for (uint32_t i = 0; i < p->steps[k].n_out && ability_of(&p->steps[k]); i++) {
            const uint32_t id = p->steps[k].out[i];
            if (id != QX_NO_VALUE && v[id].able > v[id].unable && may_be_wide(x, p, p->steps[k].out_value[i])) x->info[id].wide = true;
        }
    for (uint32_t k = 0; k < p->n_steps && st == QX_OK; k++) {
        qx_rstep *s = &p->steps[k];
        const bool in = has_wide(x, s->in, s->n_in);
        s->wide = ability_of(s) && (in || has_wide(x, s->out, s->n_out));
        s->wide_in = in && !s->wide;
    }
    qx_free(x->ctx, v);
    return st;
}

/* ---- Around the call ---- */

static qx_status to_floats(qx_call *c, const qx_tensor **in)
{
    qx_tensor *wide = NULL;
    const float *data;
    QX_TRY(qx_call_scratch(c, sizeof *wide, (void **)&wide));
    QX_TRY(qx_call_to_f32(c, *in, &data));
    QX_TRY(qx_tensor_shape(c->ctx, wide, QX_DT_FLOAT, (*in)->rank, (*in)->dims));
    wide->data = (void *)(uintptr_t)data;
    *in = wide;
    return QX_OK;
}

typedef struct half_job { qx_dtype to; const float *x; uint16_t *y; int64_t n; } half_job;

static qx_status half_piece(void *user, int64_t i)
{
    const half_job *j = user;
    const int64_t first = i * QX_CALL_PIECE, n = j->n - first < QX_CALL_PIECE ? j->n - first : QX_CALL_PIECE;
    qx_from_f32(j->to, j->x + first, n, j->y + first);
    return QX_OK;
}

static int64_t pieces(int64_t n) { return (n + QX_CALL_PIECE - 1) / QX_CALL_PIECE; }

static qx_status to_halves(qx_call *c, qx_dtype to, const qx_tensor **in)
{
    qx_tensor *half = NULL;
    QX_TRY(qx_call_scratch(c, sizeof *half, (void **)&half));
    QX_TRY(qx_tensor_shape(c->ctx, half, to, (*in)->rank, (*in)->dims));
    QX_TRY(qx_call_scratch(c, half->bytes, &half->data));
    half_job j = {to, (*in)->data, half->data, half->numel};
    *in = half;
    return qx_parallel(c->ctx, pieces(j.n), half_piece, &j);
}

qx_status qx_wide_inputs(qx_call *c, const qx_tensor **in)
{
    const qx_rstep *s = c->step;
    const ability *a = ability_of(s);
    for (uint32_t i = 0; i < s->n_in; i++) {
        if (!in[i]) continue;
        const bool wide = c->exec->info[s->in[i]].wide, constant = c->exec->info[s->in[i]].content == QX_CLASS_CONST;
        if (!s->wide && wide) QX_TRY(to_halves(c, s->in_value[i]->type.dtype, &in[i]));
        if (s->wide && is_half(in[i]->dtype) && in[i]->data && (!constant || a->constants)) QX_TRY(to_floats(c, &in[i]));
    }
    return QX_OK;
}

typedef struct round_job { qx_dtype to; float *x; int64_t n; } round_job;

static qx_status round_piece(void *user, int64_t i)
{
    const round_job *j = user;
    const int64_t first = i * QX_CALL_PIECE;
    qx_round_half(j->to, j->x + first, j->n - first < QX_CALL_PIECE ? j->n - first : QX_CALL_PIECE);
    return QX_OK;
}

/* The output is in the other form than the plan has it: new memory. */
static qx_status turn(qx_call *c, qx_slot *slot, qx_dtype declared, qx_block_home home)
{
    const qx_tensor *t = &slot->t;
    qx_tensor shape;
    qx_block *b = NULL;
    const bool widen = is_half(slot->t.dtype);
    QX_TRY(qx_tensor_shape(c->ctx, &shape, widen ? QX_DT_FLOAT : declared, t->rank, t->dims));
    QX_TRY(qx_block_new(c->exec, shape.bytes, home, &b));
    shape.data = b->data;
    half_job j = {declared, t->data, shape.data, t->numel};
    qx_status st = QX_OK;
    if (widen) qx_to_f32(t->dtype, t->data, t->numel, shape.data);
    else st = qx_parallel(c->ctx, pieces(j.n), half_piece, &j);
    qx_slot_clear(c->exec, slot);
    *slot = (qx_slot){.t = shape, .block = b, .set = true};
    return st;
}

qx_status qx_wide_outputs(qx_call_rt *rt)
{
    qx_call *c = &rt->c;
    const qx_rstep *s = c->step;
    for (uint32_t i = 0; i < s->n_out; i++) {
        if (s->out[i] == QX_NO_VALUE || !is_half(s->out_value[i]->type.dtype)) continue;
        const qx_dtype declared = s->out_value[i]->type.dtype;
        qx_slot *slot = &c->exec->slots[s->out[i]];
        const bool wide = c->exec->info[s->out[i]].wide, is_float = slot->t.dtype == QX_DT_FLOAT;
        if (wide != is_float) QX_TRY(turn(c, slot, declared, rt->home[i]));
        else if (wide && !ability_of(s)->moves) {
            round_job j = {declared, slot->t.data, slot->t.numel};
            QX_TRY(qx_parallel(c->ctx, pieces(j.n), round_piece, &j));
        }
    }
    return QX_OK;
}

bool qx_call_out_wide(const qx_call *c, uint32_t i)
{
    return i < c->step->n_out && c->step->out[i] != QX_NO_VALUE && c->exec->info[c->step->out[i]].wide;
}
