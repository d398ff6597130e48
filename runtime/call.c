/* call.c - what an adapter sees while its node runs (runtime/cpu/op.h): attributes through function frames, inputs in a convenient type,
 * outputs, scratch and state. */
#include <stdio.h>
#include <string.h>

#include "runtime/cpu/half.h"
#include "runtime/plan.h"

qx_status qx_call_fail(const qx_call *c, qx_status code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const qx_node *n = c->node;
    const char *out = n->n_out && n->out[0] ? n->out[0]->name : "";
    return qx_fail(c->ctx, code, "node '%s' (%s): %s", n->name && *n->name ? n->name : out, n->op_type, text);
}

/* ---- Attributes ---- */

static const qx_attr *frame_attr(const qx_node *n, const qx_frame *f, const char *name)
{
    const qx_attr *a = qx_node_attr(n, name);
    while (a && a->ref_name) {
        if (!f) return NULL;
        a = qx_node_attr(f->call, a->ref_name);
        f = f->up;
    }
    return a;
}

const qx_attr *qx_call_attr(const qx_call *c, const char *name) { return frame_attr(c->node, c->frame, name); }

int64_t qx_call_int(const qx_call *c, const char *name, int64_t fallback)
{
    const qx_attr *a = qx_call_attr(c, name);
    return a && a->type == QX_ATTR_INT ? a->i : fallback;
}

float qx_call_float(const qx_call *c, const char *name, float fallback)
{
    const qx_attr *a = qx_call_attr(c, name);
    return a && a->type == QX_ATTR_FLOAT ? a->f : fallback;
}

const char *qx_call_str(const qx_call *c, const char *name, const char *fallback)
{
    const qx_attr *a = qx_call_attr(c, name);
    return a && a->type == QX_ATTR_STRING ? a->s : fallback;
}

const int64_t *qx_call_ints(const qx_call *c, const char *name, int64_t *count)
{
    const qx_attr *a = qx_call_attr(c, name);
    bool there = a && a->type == QX_ATTR_INTS;
    *count = there ? a->n : 0;
    return there ? a->ints : NULL;
}

const float *qx_call_floats(const qx_call *c, const char *name, int64_t *count)
{
    const qx_attr *a = qx_call_attr(c, name);
    bool there = a && a->type == QX_ATTR_FLOATS;
    *count = there ? a->n : 0;
    return there ? a->floats : NULL;
}

/* ---- Inputs ---- */

qx_status qx_call_need(const qx_call *c, uint32_t i, const qx_tensor **out)
{
    *out = qx_call_in(c, i);
    if (!*out) QX_CALL_FAIL(c, QX_E_FORMAT, "input %u is missing", i);
    return QX_OK;
}

qx_status qx_call_rank(const qx_call *c, uint32_t i, int rank, const qx_tensor **out)
{
    QX_TRY(qx_call_need(c, i, out));
    if ((*out)->rank == rank) return QX_OK;
    QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has rank %d, expected %d", i, (*out)->rank, rank);
}

typedef struct convert_job { const qx_tensor *t; float *out; size_t piece_bytes; } convert_job;
enum { CONVERT_PIECE = 1 << 16 }; /* elements; even, so that packed types split at bytes */

static qx_status convert_piece(void *user, int64_t i)
{
    const convert_job *j = user;
    int64_t first = i * CONVERT_PIECE, n = j->t->numel - first < CONVERT_PIECE ? j->t->numel - first : CONVERT_PIECE;
    qx_to_f32(j->t->dtype, (const char *)j->t->data + (size_t)i * j->piece_bytes, n, j->out + first);
    return QX_OK;
}

qx_status qx_call_to_f32(qx_call *c, const qx_tensor *t, const float **out)
{
    if (t->dtype == QX_DT_FLOAT) {
        *out = t->data;
        return QX_OK;
    }
    float *f = NULL;
    char text[96];
    if (t->is_sequence || t->is_optional || qx_dtype_get(t->dtype)->cls == 'S' || qx_dtype_get(t->dtype)->cls == 'C')
        QX_CALL_FAIL(c, QX_E_TYPE, "%s where a numeric tensor is needed", qx_tensor_describe(t, text, sizeof text));
    QX_TRY(QX_CALL_SCRATCH(c, t->numel, &f));
    convert_job j = {t, f, (size_t)CONVERT_PIECE * (size_t)qx_dtype_bits(t->dtype) / 8};
    QX_TRY(qx_parallel(c->ctx, (t->numel + CONVERT_PIECE - 1) / CONVERT_PIECE, convert_piece, &j));
    *out = f;
    return QX_OK;
}

qx_status qx_call_in_f32(qx_call *c, uint32_t i, const float **out)
{
    const qx_tensor *t;
    QX_TRY(qx_call_need(c, i, &t));
    return qx_call_to_f32(c, t, out);
}

static bool widen(const qx_tensor *t, int64_t *out)
{
#define CASE(DT, T)                                                              \
    case QX_DT_##DT:                                                             \
        for (int64_t k = 0; k < t->numel; k++) out[k] = (int64_t)((const T *)t->data)[k]; \
        return true;
    switch (t->dtype) {
        CASE(INT8, int8_t) CASE(UINT8, uint8_t) CASE(INT16, int16_t) CASE(UINT16, uint16_t) CASE(INT32, int32_t)
        CASE(UINT32, uint32_t) CASE(UINT64, uint64_t) CASE(BOOL, uint8_t)
        default: return false;
    }
#undef CASE
}

qx_status qx_call_in_i64(qx_call *c, uint32_t i, const int64_t **out, int64_t *n)
{
    const qx_tensor *t = qx_call_in(c, i);
    *out = NULL;
    *n = 0;
    if (!t) return QX_OK;
    *n = t->numel;
    if (t->dtype == QX_DT_INT64) {
        *out = t->data;
        return QX_OK;
    }
    int64_t *v = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, t->numel, &v));
    if (!widen(t, v)) QX_CALL_FAIL(c, QX_E_TYPE, "input %u is %s where integers are needed", i, qx_dtype_get(t->dtype)->text);
    *out = v;
    return QX_OK;
}

qx_status qx_call_scalar_i64(qx_call *c, uint32_t i, int64_t fallback, int64_t *out)
{
    const int64_t *v;
    int64_t n;
    *out = fallback;
    if (!qx_call_in(c, i)) return QX_OK;
    QX_TRY(qx_call_in_i64(c, i, &v, &n));
    if (n != 1) QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements where one is needed", i, (long long)n);
    *out = v[0];
    return QX_OK;
}

qx_status qx_call_scalar_f64(qx_call *c, uint32_t i, double fallback, double *out)
{
    const qx_tensor *t = qx_call_in(c, i);
    const float *v;
    *out = fallback;
    if (!t) return QX_OK;
    if (t->numel != 1) QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements where one is needed", i, (long long)t->numel);
    if (t->dtype == QX_DT_DOUBLE) {
        *out = *(const double *)t->data;
        return QX_OK;
    }
    QX_TRY(qx_call_to_f32(c, t, &v));
    *out = v[0];
    return QX_OK;
}

qx_status qx_call_list(qx_call *c, const char *name, uint32_t i, const int64_t **out, int64_t *n)
{
    if (qx_call_in(c, i)) return qx_call_in_i64(c, i, out, n);
    *out = qx_call_ints(c, name, n);
    return QX_OK;
}

bool qx_call_in_const(const qx_call *c, uint32_t i)
{
    if (i >= c->step->n_in || c->step->in[i] == QX_NO_VALUE) return false;
    return c->exec->info[c->step->in[i]].content == QX_CLASS_CONST;
}

void qx_call_drop_const(qx_call *c, uint32_t i)
{
    /* a streaming step packs again next time */
    if (i >= 64 || c->step->streams || !qx_call_in_const(c, i) || (c->step->dropped >> i & 1)) return;
    c->step->dropped |= (uint64_t)1 << i;
    qx_vinfo *v = &c->exec->info[c->step->in[i]];
    v->consumers--;
}

const qx_weight *qx_call_stored(const qx_call *c, uint32_t i)
{
    return i < 64 && (c->step->stored >> i & 1) ? c->step->in_value[i]->init : NULL;
}

const qx_value *qx_call_initializer(const qx_call *c, uint32_t i)
{
    const qx_value *v = i < c->step->n_in ? c->step->in_value[i] : NULL;
    return v && v->init && qx_call_in_const(c, i) ? v : NULL;
}

bool qx_call_can_read_again(const qx_call *c, uint32_t i)
{
    return i < c->step->n_in && c->step->in_value[i] && c->step->in_value[i]->init && qx_call_in_const(c, i);
}

qx_status qx_call_const_again(qx_call *c, uint32_t i, const void **data)
{
    void *copy = NULL;
    const qx_tensor *t = qx_call_in(c, i);
    if (t && t->data) {
        *data = t->data;
        return QX_OK;
    }
    if (!t || !qx_call_can_read_again(c, i)) QX_CALL_FAIL(c, QX_E_FAIL, "constant input %u is gone", i);
    const qx_weight *w = c->step->in_value[i]->init;
    QX_TRY(qx_call_scratch(c, w->bytes, &copy));
    QX_TRY(qx_weight_read(c->ctx, w, copy));
    *data = copy;
    return QX_OK;
}

qx_status qx_call_const_again_f32(qx_call *c, uint32_t i, const float **out)
{
    const void *data;
    QX_TRY(qx_call_const_again(c, i, &data));
    qx_tensor t = *qx_call_in(c, i);
    t.data = (void *)(uintptr_t)data;
    return qx_call_to_f32(c, &t, out);
}

qx_status qx_call_axis(const qx_call *c, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= (rank ? rank : 1)) QX_CALL_FAIL(c, QX_E_SHAPE, "axis %lld of a tensor of rank %d", (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return QX_OK;
}

int qx_call_in_layout(const qx_call *c, uint32_t i)
{
    uint32_t id = c->step->native && i < c->step->n_in ? c->step->in[i] : QX_NO_VALUE;
    return id == QX_NO_VALUE ? 0 : c->exec->info[id].block;
}

int qx_call_out_layout(const qx_call *c, uint32_t i)
{
    uint32_t id = c->step->native && i < c->step->n_out ? c->step->out[i] : QX_NO_VALUE;
    return id == QX_NO_VALUE ? 0 : c->exec->info[id].block;
}

static int block_of_layout(int layout) { return layout < 0 ? -layout : layout; }
int qx_call_in_block(const qx_call *c, uint32_t i) { return block_of_layout(qx_call_in_layout(c, i)); }
int qx_call_out_block(const qx_call *c, uint32_t i) { return block_of_layout(qx_call_out_layout(c, i)); }

/* ---- Outputs ---- */

static qx_call_rt *rt_of(qx_call *c) { return (qx_call_rt *)c; } /* c is the first member */

/* The plan chose layouts by declared shapes; a tensor that comes otherwise would be read and written out of bounds. */
static qx_status check_blocked(const qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims)
{
    uint32_t id = i < c->step->n_out ? c->step->out[i] : QX_NO_VALUE;
    const int layout = id == QX_NO_VALUE ? 0 : c->exec->info[id].block, block = block_of_layout(layout);
    if (!block || (dtype == QX_DT_FLOAT && rank == 4 && (layout < 0 ? dims[1] == block : dims[1] % block == 0))) return QX_OK;
    qx_tensor t = {.dtype = dtype, .rank = rank};
    char got[96];
    for (int k = 0; k < rank && k < QX_MAX_RANK; k++) t.dims[k] = dims[k];
    QX_CALL_FAIL(c, QX_E_SHAPE, "output %u is %s, the model declares a float picture with a multiple of %d channels", i,
                 qx_tensor_describe(&t, got, sizeof got), block);
}

qx_status qx_call_out(qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t)
{
    qx_call_rt *rt = rt_of(c);
    qx_tensor shape;
    QX_TRY(check_blocked(c, i, dtype, rank, dims));
    if (i >= c->n_out) { /* not wanted: scratch with the right shape */
        qx_tensor *spare = NULL;
        QX_TRY(qx_call_scratch(c, sizeof *spare, (void **)&spare));
        QX_TRY(qx_tensor_shape(c->ctx, spare, dtype, rank, dims));
        QX_TRY(qx_call_scratch(c, spare->bytes, &spare->data));
        if (t) *t = spare;
        return QX_OK;
    }
    qx_status st = qx_tensor_shape(c->ctx, &shape, dtype, rank, dims);
    if (st != QX_OK) return qx_note(c->ctx, st, "node '%s' (%s): output %u", c->node->name, c->node->op_type, i);
    qx_slot *s = rt->out[i];
    qx_slot_clear(c->exec, s);
    if (dtype == QX_DT_STRING) {
        QX_TRY(qx_tensor_new(c->ctx, &s->t, dtype, rank, dims));
        s->owned = true;
    } else {
        QX_TRY(qx_block_new(c->exec, shape.bytes, rt->home[i], &s->block));
        shape.data = s->block->data;
        s->t = shape;
    }
    s->set = true;
    if (t) *t = &s->t;
    return QX_OK;
}

qx_status qx_call_out_f32(qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims, float **y)
{
    qx_call_rt *rt = rt_of(c);
    qx_tensor *t = NULL;
    QX_TRY(qx_call_out(c, i, dtype, rank, dims, &t));
    if (dtype == QX_DT_FLOAT || i >= c->n_out) {
        if (dtype == QX_DT_FLOAT) *y = t->data;
        else QX_TRY(QX_CALL_SCRATCH(c, t->numel, y));
        return QX_OK;
    }
    if (rt->n_pending == QX_MAX_PENDING) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "more than %d rounded outputs", QX_MAX_PENDING);
    QX_TRY(QX_CALL_SCRATCH(c, t->numel, y));
    rt->pending[rt->n_pending++] = (qx_pending){*y, i, t->numel};
    return QX_OK;
}

/* Input `from` dies here, owns its memory alone, and is not shared with another input. */
static bool may_take(const qx_call *c, uint32_t from, size_t bytes, bool heap)
{
    const qx_rstep *s = c->step;
    uint32_t id = from < s->n_in ? s->in[from] : QX_NO_VALUE;
    if (id == QX_NO_VALUE || c->exec->opt.trace_nan) return false; /* tracing looks at the inputs afterwards */
    const qx_slot *slot = &c->exec->slots[id];
    if (!slot->block || slot->block->refs != 1 || slot->block->bytes < bytes || slot->t.bytes != bytes || slot->t.data != slot->block->data)
        return false;
    if (heap && slot->block->arena) return false;
    for (uint32_t k = 0; k < s->n_in; k++)
        if (k != from && s->in[k] == id) return false;
    for (uint32_t k = 0; k < s->n_release; k++)
        if (s->release[k] == id) return true;
    return false;
}

bool qx_call_may_reuse(const qx_call *c, uint32_t i, uint32_t from)
{
    const qx_call_rt *rt = (const qx_call_rt *)c;
    const qx_tensor *t = qx_call_in(c, from);
    return i < c->n_out && t && may_take(c, from, t->bytes, rt->home[i]);
}

qx_status qx_call_out_reuse(qx_call *c, uint32_t i, uint32_t from, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t)
{
    qx_call_rt *rt = rt_of(c);
    qx_tensor shape;
    QX_TRY(check_blocked(c, i, dtype, rank, dims));
    QX_TRY(qx_tensor_shape(c->ctx, &shape, dtype, rank, dims));
    if (i >= c->n_out || dtype == QX_DT_STRING || !may_take(c, from, shape.bytes, rt->home[i]))
        return qx_call_out(c, i, dtype, rank, dims, t);
    qx_slot *s = rt->out[i];
    qx_slot_clear(c->exec, s);
    s->block = c->exec->slots[c->step->in[from]].block;
    s->block->refs++;
    shape.data = s->block->data;
    s->t = shape;
    s->set = true;
    if (t) *t = &s->t;
    return QX_OK;
}

qx_status qx_call_out_take(qx_call *c, uint32_t i, qx_tensor *t)
{
    qx_call_rt *rt = rt_of(c);
    if (i >= c->n_out) {
        qx_tensor_free(c->ctx, t);
        return QX_OK;
    }
    QX_TRY(check_blocked(c, i, t->dtype, t->is_sequence || t->is_optional ? -1 : t->rank, t->dims));
    qx_slot_clear(c->exec, rt->out[i]);
    rt->out[i]->t = *t;
    rt->out[i]->set = rt->out[i]->owned = true;
    memset(t, 0, sizeof *t);
    return QX_OK;
}

static qx_status out_copy(qx_call *c, uint32_t i, const qx_tensor *in, int rank, const int64_t *dims)
{
    qx_tensor copy, shape;
    QX_TRY(qx_tensor_copy(c->ctx, in, &copy));
    if (!in->is_sequence && !in->is_optional) {
        QX_TRY(qx_tensor_shape(c->ctx, &shape, in->dtype, rank, dims));
        shape.data = copy.data;
        copy = shape;
    }
    return qx_call_out_take(c, i, &copy);
}

qx_status qx_call_out_view(qx_call *c, uint32_t i, uint32_t from, int rank, const int64_t *dims)
{
    qx_call_rt *rt = rt_of(c);
    const qx_tensor *in;
    qx_tensor shape;
    QX_TRY(qx_call_need(c, from, &in));
    if (in->is_sequence || in->is_optional || in->dtype == QX_DT_STRING) return out_copy(c, i, in, rank, dims);
    QX_TRY(qx_tensor_shape(c->ctx, &shape, in->dtype, rank, dims));
    if (shape.numel != in->numel) {
        char a[96], b[96];
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s has %lld elements, %s has %lld", qx_tensor_describe(in, a, sizeof a), (long long)in->numel,
                     qx_tensor_describe(&shape, b, sizeof b), (long long)shape.numel);
    }
    if (i >= c->n_out) return QX_OK;
    QX_TRY(check_blocked(c, i, in->dtype, rank, dims));
    uint32_t id = from < c->step->n_in ? c->step->in[from] : QX_NO_VALUE;
    qx_slot *src = id != QX_NO_VALUE ? &c->exec->slots[id] : NULL;
    if (!src || !src->block || src->t.data != in->data || (rt->home[i] && src->block->arena)) {
        qx_tensor *t;
        QX_TRY(qx_call_out(c, i, in->dtype, rank, dims, &t));
        if (in->bytes) memcpy(t->data, in->data, in->bytes);
        return QX_OK;
    }
    qx_slot_clear(c->exec, rt->out[i]);
    rt->out[i]->block = src->block;
    src->block->refs++;
    shape.data = in->data;
    rt->out[i]->t = shape;
    rt->out[i]->set = true;
    return QX_OK;
}

typedef struct round_job { qx_dtype dtype; const float *from; char *to; int64_t n; size_t piece_bytes; } round_job;

static qx_status round_piece(void *user, int64_t i)
{
    const round_job *j = user;
    int64_t first = i * CONVERT_PIECE, n = j->n - first < CONVERT_PIECE ? j->n - first : CONVERT_PIECE;
    char *to = j->to + (size_t)i * j->piece_bytes;
    qx_half_from_f32(j->dtype, j->from + first, n, to);
    return QX_OK;
}

qx_status qx_call_finish(qx_call_rt *rt)
{
    for (int i = 0; i < rt->n_pending; i++) {
        const qx_pending *p = &rt->pending[i];
        const qx_tensor *t = &rt->out[p->out]->t;
        round_job j = {t->dtype, p->from, t->data, p->n, (size_t)CONVERT_PIECE * (size_t)qx_dtype_bits(t->dtype) / 8};
        QX_TRY(qx_parallel(rt->c.ctx, (p->n + CONVERT_PIECE - 1) / CONVERT_PIECE, round_piece, &j));
    }
    return QX_OK;
}

/* ---- Memory ---- */

qx_status qx_call_scratch(qx_call *c, size_t bytes, void **out) { return qx_scratch_get(c->exec, bytes, out); }

qx_status qx_call_scratch_array(qx_call *c, int64_t n, size_t size, void **out)
{
    size_t bytes;
    if (n < 0 || !qx_mul_size((size_t)n, size, &bytes)) QX_CALL_FAIL(c, QX_E_SHAPE, "scratch of %lld elements overflows", (long long)n);
    return qx_scratch_get(c->exec, bytes, out);
}

qx_status qx_call_state(qx_call *c, size_t size, void (*drop)(qx_ctx *ctx, void *state), void **out)
{
    if (!c->step->state) {
        QX_TRY(qx_alloc(c->ctx, size, &c->step->state));
        c->step->drop = drop;
    }
    *out = c->step->state;
    return QX_OK;
}

void qx_call_note_kernel(qx_call *c, const char *kernel, double flops)
{
    c->step->kernel = kernel;
    c->step->flops += flops;
}

bool qx_call_simulate(const qx_call *c) { return c->exec->opt.simulate; }
bool qx_call_bf16(const qx_call *c) { return c->exec->opt.bf16; }
int64_t qx_call_max_loop(const qx_call *c) { return c->exec->opt.max_loop > 0 ? c->exec->opt.max_loop : 1000000; }

/* ---- Subgraphs and functions ---- */

static void lend(qx_exec *x, const qx_value *v, const qx_tensor *t)
{
    qx_slot *s = &x->slots[v->id];
    qx_slot_clear(x, s);
    if (!t) return;
    s->t = *t;
    s->set = s->borrowed = true;
}

/* The content of a body's output, as the caller's own tensor. */
static qx_status take_output(qx_exec *x, const qx_graph *g, const qx_value *v, qx_tensor *out)
{
    qx_slot *s = &x->slots[v->id];
    if (!v->def || v->def->graph != g) QX_TRY(qx_const_load(x, v));
    if (!s->set) QX_FAIL(x->ctx, QX_E_FORMAT, "subgraph '%s': output '%s' was not computed", g->name ? g->name : "", v->name);
    bool sole = v->graph == g && x->info[v->id].content != QX_CLASS_CONST;
    if (sole && s->owned) {
        *out = s->t;
        memset(s, 0, sizeof *s);
        return QX_OK;
    }
    if (sole && s->block && s->block->refs == 1 && !s->block->arena && s->t.data == s->block->data) {
        *out = s->t;
        s->block->data = NULL;
        qx_slot_clear(x, s);
        return QX_OK;
    }
    return qx_tensor_copy(x->ctx, &s->t, out);
}

qx_status qx_call_graph(qx_call *c, qx_graph *g, const qx_tensor *const *in, uint32_t n_in, qx_tensor *out, uint32_t n_out)
{
    qx_exec *x = c->exec;
    qx_gplan *p;
    if (n_in > g->n_inputs || n_out != g->n_outputs)
        QX_CALL_FAIL(c, QX_E_FORMAT, "subgraph '%s' has %u inputs and %u outputs, %u and %u are needed", g->name ? g->name : "",
                     g->n_inputs, g->n_outputs, n_in, n_out);
    QX_TRY(qx_plan_graph(x, g, &p));
    for (uint32_t i = 0; i < n_out; i++) memset(&out[i], 0, sizeof out[i]);
    for (uint32_t i = 0; i < n_in; i++) lend(x, g->inputs[i], in[i]);
    qx_status st = qx_tell_interface(x, g);
    x->depth++;
    if (st == QX_OK) st = qx_run_graph(x, p, c->frame);
    uint32_t taken = 0;
    for (; st == QX_OK && taken < n_out; taken++) st = take_output(x, g, g->outputs[taken], &out[taken]);
    x->depth--;
    for (uint32_t i = 0; i < g->n_inputs; i++) lend(x, g->inputs[i], NULL);
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i]->graph == g && x->info[g->outputs[i]->id].content != QX_CLASS_CONST)
            qx_slot_clear(x, &x->slots[g->outputs[i]->id]);
    for (uint32_t i = 0; st != QX_OK && i < taken; i++) qx_tensor_free(c->ctx, &out[i]);
    return st;
}

qx_status qx_cpu_function_call(qx_call *c)
{
    const qx_function *f = qx_plan_function(c->exec->model, c->node);
    if (!f) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "no such function");
    qx_frame frame = {c->node, f, c->frame};
    qx_call inner = *c;
    inner.frame = &frame;
    if (c->n_in > f->body->n_inputs || c->n_out > f->body->n_outputs)
        QX_CALL_FAIL(c, QX_E_FORMAT, "function %s takes %u inputs and gives %u outputs; the call has %u and %u", f->name,
                     f->body->n_inputs, f->body->n_outputs, c->n_in, c->n_out);
    qx_tensor *out = NULL;
    QX_TRY(qx_call_scratch_array(c, f->body->n_outputs, sizeof *out, (void **)&out));
    QX_TRY(qx_call_graph(&inner, f->body, c->in, c->n_in, out, f->body->n_outputs));
    for (uint32_t i = 0; i < f->body->n_outputs; i++) {
        if (i < c->n_out && c->node->out[i]) QX_TRY(qx_call_out_take(c, i, &out[i]));
        else qx_tensor_free(c->ctx, &out[i]);
    }
    return QX_OK;
}

/* ---- Shapes ---- */

bool qx_broadcast(const int64_t *a, int ra, const int64_t *b, int rb, int64_t *out, int *rank)
{
    int r = ra > rb ? ra : rb;
    for (int i = 1; i <= r; i++) {
        int64_t da = i <= ra ? a[ra - i] : 1, db = i <= rb ? b[rb - i] : 1;
        if (da != db && da != 1 && db != 1) return false;
        out[r - i] = da == 1 ? db : da;
    }
    *rank = r;
    return true;
}

void qx_strides(const int64_t *dims, int rank, int64_t *strides)
{
    int64_t s = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = s;
        s *= dims[i];
    }
}
