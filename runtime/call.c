/* call.c - what an adapter sees while its node runs (runtime/cpu/op.h): attributes through function frames, inputs in a convenient type,
 * scratch and state. Outputs are in call_out.c, bodies and functions in call_graph.c. */
#include <stdio.h>
#include <string.h>

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

static qx_status convert_piece(void *user, int64_t i)
{
    const convert_job *j = user;
    int64_t first = i * QX_CALL_PIECE, n = j->t->numel - first < QX_CALL_PIECE ? j->t->numel - first : QX_CALL_PIECE;
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
    convert_job j = {t, f, (size_t)QX_CALL_PIECE * (size_t)qx_dtype_bits(t->dtype) / 8};
    QX_TRY(qx_parallel(c->ctx, (t->numel + QX_CALL_PIECE - 1) / QX_CALL_PIECE, convert_piece, &j));
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
