/* matmul.c - MatMul, Gemm, and com.microsoft's FusedMatMul and FusedGemm. A constant second operand is packed at the first run
 * and then forgotten; batches of the first operand are rows of one product. Everything else is a batched product of two variable
 * tensors. */
#include <string.h>

#include "runtime/cpu/pointwise/activation.h"
#include "runtime/cpu/pointwise/broadcast.h"
#include "runtime/cpu/matmul/gemm.h"
#include "runtime/cpu/matmul/matmul.h"
#include "runtime/cpu/move/strided.h"

typedef struct state { qx_packed *packed; float *bias; qx_bmm_state *bmm; } state;

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    qx_packed_free(ctx, s->packed);
    qx_bmm_free(ctx, s->bmm);
    qx_free(ctx, s->bias);
}

static bool is_int(const qx_tensor *t) { return qx_dtype_get(t->dtype)->cls != 'F'; }

/* ---- Exact products of other types: doubles and integers, plain loops ---- */

#define EXACT(T, U)                                                                                                    \
    for (int64_t i = 0; i < s->m; i++)                                                                                 \
        for (int64_t j = 0; j < s->n; j++) {                                                                           \
            U acc = 0;                                                                                                 \
            for (int64_t q = 0; q < s->k; q++) acc += (U)((const T *)a)[i * s->k + q] * (U)((const T *)b)[q * s->n + j]; \
            ((T *)y)[i * s->n + j] = (T)acc;                                                                           \
        }

static qx_status exact(qx_call *c, const qx_mm_shape *s, qx_dtype dt, const void *a, const void *b, void *y)
{
    switch (dt) {
    case QX_DT_DOUBLE: EXACT(double, double) return QX_OK;
    case QX_DT_INT32: EXACT(int32_t, uint32_t) return QX_OK;
    case QX_DT_UINT32: EXACT(uint32_t, uint32_t) return QX_OK;
    case QX_DT_INT64: EXACT(int64_t, uint64_t) return QX_OK;
    case QX_DT_UINT64: EXACT(uint64_t, uint64_t) return QX_OK;
    default: QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(dt)->text);
    }
}

/* x, or f x in scratch. */
static qx_status scaled(qx_call *c, const float *x, int64_t n, float f, const float **out)
{
    float *y = NULL;
    *out = x;
    if (f == 1.0f) return QX_OK;
    QX_TRY(QX_CALL_SCRATCH(c, n, &y));
    for (int64_t i = 0; i < n; i++) y[i] = f * x[i];
    *out = y;
    return QX_OK;
}

/* ---- MatMul ---- */

typedef struct side { const qx_tensor *t; const float *x; } side;

static qx_status bmm(qx_call *c, state *st, const qx_mm_shape *s, side a, side b, float *y)
{
    int64_t nb = qx_prod(s->batch_dims, 0, s->n_batch), na = qx_mm_batches(a.t), nbb = qx_mm_batches(b.t);
    qx_bmm g = {nb, s->m, s->n, s->k, a.x, b.x, y, {s->m * s->k, s->k, 1}, {s->k * s->n, s->n, 1}};
    if (nbb == 1 && nb > 1 && na == nb) { /* one right matrix: the batch is rows */
        g.batch = 1;
        g.m = nb * s->m;
        return qx_bmm_run(c, &st->bmm, &g);
    }
    if ((na == nb || na == 1) && (nbb == nb || nbb == 1)) {
        if (na == 1) g.sa[0] = nb == 1 ? g.sa[0] : 0;
        if (nbb == 1) g.sb[0] = nb == 1 ? g.sb[0] : 0;
        return qx_bmm_run(c, &st->bmm, &g);
    }
    g.batch = 1; /* some batch axes are shared, some are not */
    for (int64_t i = 0; i < nb; i++) {
        g.a = a.x + qx_mm_batch_at(s, a.t, i) * s->m * s->k;
        g.b = b.x + qx_mm_batch_at(s, b.t, i) * s->k * s->n;
        g.y = y + i * s->m * s->n;
        QX_TRY(qx_bmm_run(c, &st->bmm, &g));
    }
    return QX_OK;
}

static qx_status matmul_exact(qx_call *c, const qx_mm_shape *s, const qx_tensor *a, const qx_tensor *b)
{
    qx_tensor *y = NULL;
    size_t size = (size_t)qx_dtype_bits(a->dtype) / 8;
    if (a->dtype != b->dtype)
        QX_CALL_FAIL(c, QX_E_TYPE, "operands are %s and %s", qx_dtype_get(a->dtype)->text, qx_dtype_get(b->dtype)->text);
    QX_TRY(qx_call_out(c, 0, a->dtype, s->rank, s->dims, &y));
    int64_t nb = y->numel ? qx_prod(s->batch_dims, 0, s->n_batch) : 0;
    for (int64_t i = 0; i < nb; i++)
        QX_TRY(exact(c, s, a->dtype, (const char *)a->data + (size_t)(qx_mm_batch_at(s, a, i) * s->m * s->k) * size,
                     (const char *)b->data + (size_t)(qx_mm_batch_at(s, b, i) * s->k * s->n) * size,
                     (char *)y->data + (size_t)(i * s->m * s->n) * size));
    return QX_OK;
}

static void zero(float *y, int64_t n) { if (n > 0) memset(y, 0, (size_t)n * sizeof *y); }

/* An operand as the product sees it: com.microsoft's FusedMatMul swaps the last two axes (turn) and brings the first axis behind the batch
 * axes (roll) before that. t has the dims after both. */
typedef struct operand { const qx_tensor *in; qx_tensor t; bool turn, roll; } operand;

static void swap_last(qx_tensor *t)
{
    const int64_t d = t->dims[t->rank - 1];
    t->dims[t->rank - 1] = t->dims[t->rank - 2];
    t->dims[t->rank - 2] = d;
}

static qx_status read_operand(qx_call *c, uint32_t i, bool turn, bool roll, operand *o)
{
    QX_TRY(qx_call_need(c, i, &o->in));
    o->t = *o->in;
    o->turn = turn && o->in->rank > 1;
    o->roll = roll && o->in->rank > 2;
    if (o->roll) { /* [M, b..., K] is read as [b..., M, K] */
        for (int d = 0; d < o->t.rank - 2; d++) o->t.dims[d] = o->in->dims[d + 1];
        o->t.dims[o->t.rank - 2] = o->in->dims[0];
    }
    if (o->turn) swap_last(&o->t);
    return QX_OK;
}

/* The operand's numbers in the order of o->t. */
static qx_status operand_f32(qx_call *c, uint32_t i, const operand *o, const float **out)
{
    const int r = o->t.rank;
    QX_TRY(qx_call_in_f32(c, i, out));
    if (!o->turn && !o->roll) return QX_OK;
    qx_strided s = {.rank = r};
    for (int d = 0; d < r; d++) {
        const int seen = o->turn && d >= r - 2 ? 2 * r - 3 - d : d; /* axis before the swap */
        const int own = !o->roll || seen == r - 1 ? seen : seen == r - 2 ? 0 : seen + 1;
        s.dims[d] = o->t.dims[d];
        s.stride[d] = qx_prod(o->in->dims, own + 1, r);
    }
    float *copy = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, o->t.numel, &copy));
    QX_TRY(qx_strided_copy(c->ctx, &s, *out, copy, sizeof *copy));
    *out = copy;
    return QX_OK;
}

static void scale_all(float *y, int64_t n, float f)
{
    if (f == 1.0f) return;
    for (int64_t i = 0; i < n; i++) y[i] *= f;
}

static qx_status product(qx_call *c, const operand *a, const operand *b, float alpha, const qx_activation *act)
{
    const float *fa, *fb;
    float *y = NULL;
    qx_mm_shape s;
    state *st = NULL;
    QX_TRY(qx_mm_shape_of(c, &a->t, &b->t, &s));
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    QX_TRY(operand_f32(c, 0, a, &fa));
    const int64_t batch = qx_prod(s.batch_dims, 0, s.n_batch), rows = batch * s.m;
    const bool pack = qx_call_in_const(c, 1) && !b->roll && qx_mm_batches(&b->t) == 1 && qx_mm_batches(&a->t) == batch;
    QX_TRY(qx_call_out_f32(c, 0, a->t.dtype, s.rank, s.dims, &y));
    if (s.k == 0 || rows == 0 || s.n == 0) {
        zero(y, rows * s.n);
        return QX_OK;
    }
    if (!pack) {
        QX_TRY(operand_f32(c, 1, b, &fb));
        QX_TRY(bmm(c, st, &s, (side){&a->t, fa}, (side){&b->t, fb}, y));
        scale_all(y, rows * s.n, alpha);
        return qx_activation_run(c, act, y, rows * s.n);
    }
    if (!st->packed) {
        QX_TRY(qx_call_in_f32(c, 1, &fb));
        QX_TRY(scaled(c, fb, s.k * s.n, alpha, &fb));
        const qx_matrix w = {.k = s.k, .n = s.n, .row = b->turn ? 1 : s.n, .col = b->turn ? s.k : 1, .data = fb,
                             .value = alpha == 1.0f ? qx_call_initializer(c, 1) : NULL};
        QX_TRY(qx_packed_new(c, &w, rows, &st->packed));
    }
    qx_call_drop_const(c, 1);
    qx_gemm g = {.m = rows, .x = fa, .y = y};
    QX_TRY(qx_gemm_run(c, st->packed, &g));
    return qx_activation_run(c, act, y, rows * s.n);
}

qx_status qx_cpu_matmul(qx_call *c)
{
    static const qx_activation none = {.none = true};
    operand a, b;
    qx_mm_shape s;
    QX_TRY(read_operand(c, 0, false, false, &a));
    QX_TRY(read_operand(c, 1, false, false, &b));
    if (!is_int(&a.t) && a.t.dtype != QX_DT_DOUBLE) return product(c, &a, &b, 1.0f, &none);
    QX_TRY(qx_mm_shape_of(c, &a.t, &b.t, &s));
    return matmul_exact(c, &s, a.in, b.in);
}

qx_status qx_cpu_ms_fused_matmul(qx_call *c)
{
    operand a, b;
    qx_activation act; /* of FusedMatMulActivation */
    QX_TRY(qx_activation_read(c, &act));
    QX_TRY(read_operand(c, 0, qx_call_int(c, "transA", 0) != 0, qx_call_int(c, "transBatchA", 0) != 0, &a));
    QX_TRY(read_operand(c, 1, qx_call_int(c, "transB", 0) != 0, qx_call_int(c, "transBatchB", 0) != 0, &b));
    if (is_int(&a.t) || a.t.dtype == QX_DT_DOUBLE) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(a.t.dtype)->text);
    return product(c, &a, &b, qx_call_float(c, "alpha", 1.0f), &act);
}

/* ---- Gemm ---- */

/* alpha and beta are folded into W and C where these are constant; C broadcasts to [m, n]. */
typedef struct gemm_args { int64_t m, n, k; bool ta, tb; float alpha, beta; } gemm_args;

static qx_status gemm_shape(const qx_call *c, const qx_tensor *a, const qx_tensor *b, gemm_args *g)
{
    char x[96], y[96];
    g->ta = qx_call_int(c, "transA", 0) != 0;
    g->tb = qx_call_int(c, "transB", 0) != 0;
    g->alpha = qx_call_float(c, "alpha", 1.0f);
    g->beta = qx_call_float(c, "beta", 1.0f);
    if (a->rank != 2 || b->rank != 2) QX_CALL_FAIL(c, QX_E_SHAPE, "operands have rank %d and %d, 2 is needed", a->rank, b->rank);
    g->m = a->dims[g->ta];
    g->k = a->dims[!g->ta];
    g->n = b->dims[!g->tb];
    if (b->dims[g->tb] != g->k)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s by %s: inner dims are %lld and %lld", qx_tensor_describe(a, x, sizeof x),
                     qx_tensor_describe(b, y, sizeof y), (long long)g->k, (long long)b->dims[g->tb]);
    return QX_OK;
}

/* C as [m, n] with strides (0 where it is shared). */
static qx_status c_strides(const qx_call *c, const qx_tensor *t, const gemm_args *g, int64_t *row, int64_t *col)
{
    int64_t dims[2] = {g->m, g->n}, out[QX_MAX_RANK];
    int rank;
    if (!qx_broadcast(dims, 2, t->dims, t->rank, out, &rank) || rank != 2 || out[0] != g->m || out[1] != g->n) {
        char x[96];
        QX_CALL_FAIL(c, QX_E_SHAPE, "C %s does not broadcast to [%lld,%lld]", qx_tensor_describe(t, x, sizeof x), (long long)g->m,
                     (long long)g->n);
    }
    int64_t cols = t->rank >= 1 ? t->dims[t->rank - 1] : 1;
    *col = cols == 1 ? 0 : 1;
    *row = t->rank == 2 && t->dims[0] > 1 ? cols : 0;
    return QX_OK;
}

static qx_status gemm_exact(qx_call *c, const qx_tensor *a, const qx_tensor *b, const gemm_args *g)
{
    qx_tensor *y = NULL;
    if (a->dtype != QX_DT_DOUBLE || b->dtype != QX_DT_DOUBLE)
        QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get(a->dtype)->text);
    QX_TRY(qx_call_out(c, 0, a->dtype, 2, (int64_t[]){g->m, g->n}, &y));
    const double *pa = a->data, *pb = b->data, *pc = NULL;
    int64_t row = 0, col = 0;
    if (qx_call_in(c, 2)) {
        QX_TRY(c_strides(c, c->in[2], g, &row, &col));
        if (c->in[2]->dtype != QX_DT_DOUBLE) QX_CALL_FAIL(c, QX_E_TYPE, "C is %s", qx_dtype_get(c->in[2]->dtype)->text);
        pc = c->in[2]->data;
    }
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double acc = 0;
            for (int64_t q = 0; q < g->k; q++) acc += pa[g->ta ? q * g->m + i : i * g->k + q] * pb[g->tb ? j * g->k + q : q * g->n + j];
            ((double *)y->data)[i * g->n + j] = (double)g->alpha * acc + (pc ? (double)g->beta * pc[i * row + j * col] : 0.0);
        }
    return QX_OK;
}

typedef struct epilogue { float *y; const float *c; int64_t row, col, n; float alpha, beta; } epilogue; /* y = alpha y + beta C */

static qx_status epilogue_row(void *user, int64_t i)
{
    const epilogue *e = user;
    float *y = e->y + i * e->n;
    for (int64_t j = 0; j < e->n; j++) y[j] = e->alpha * y[j] + (e->c ? e->beta * e->c[i * e->row + j * e->col] : 0.0f);
    return QX_OK;
}

static qx_status gemm_variable(qx_call *c, state *st, const gemm_args *g, const float *a, const float *b, epilogue *e)
{
    qx_bmm p = {1, g->m, g->n, g->k, a, b, e->y, {g->m * g->k, g->ta ? 1 : g->k, g->ta ? g->m : 1},
                {g->k * g->n, g->tb ? 1 : g->n, g->tb ? g->k : 1}};
    if (g->k == 0) zero(e->y, g->m * g->n);
    else QX_TRY(qx_bmm_run(c, &st->bmm, &p));
    if (e->alpha == 1.0f && !e->c) return QX_OK;
    return qx_parallel(c->ctx, g->m, epilogue_row, e);
}

/* Bias [n] of a packed Gemm, kept in the state: a constant C that is one row (or one number). */
static qx_status keep_bias(qx_call *c, state *st, const gemm_args *g, const float *cc, int64_t col)
{
    QX_TRY(qx_alloc_array(c->ctx, (size_t)g->n, sizeof *st->bias, (void **)&st->bias));
    for (int64_t j = 0; j < g->n; j++) st->bias[j] = g->beta * cc[j * col];
    return QX_OK;
}

qx_status qx_cpu_gemm(qx_call *c)
{
    const qx_tensor *a, *b, *tc = qx_call_in(c, 2);
    qx_activation act; /* of FusedGemm */
    const float *fa, *fb, *fc = NULL;
    float *y = NULL;
    gemm_args g;
    state *st = NULL;
    int64_t row = 0, col = 0;
    QX_TRY(qx_call_need(c, 0, &a));
    QX_TRY(qx_call_need(c, 1, &b));
    QX_TRY(gemm_shape(c, a, b, &g));
    QX_TRY(qx_activation_read(c, &act));
    if (is_int(a) || a->dtype == QX_DT_DOUBLE) return gemm_exact(c, a, b, &g);
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    QX_TRY(qx_call_in_f32(c, 0, &fa));
    if (tc) QX_TRY(c_strides(c, tc, &g, &row, &col));
    bool pack = qx_call_in_const(c, 1) && !g.ta && g.k > 0 && g.n > 0 && g.m > 0 && (!tc || (qx_call_in_const(c, 2) && row == 0));
    if (tc && !(pack && st->packed)) QX_TRY(qx_call_in_f32(c, 2, &fc));
    QX_TRY(qx_call_out_f32(c, 0, a->dtype, 2, (int64_t[]){g.m, g.n}, &y));
    if (!pack) {
        QX_TRY(qx_call_in_f32(c, 1, &fb));
        QX_TRY(gemm_variable(c, st, &g, fa, fb, &(epilogue){y, fc, row, col, g.n, g.alpha, g.beta}));
        return qx_activation_run(c, &act, y, g.m * g.n);
    }
    if (!st->packed) {
        QX_TRY(qx_call_in_f32(c, 1, &fb));
        QX_TRY(scaled(c, fb, g.k * g.n, g.alpha, &fb));
        const qx_matrix w = {.k = g.k, .n = g.n, .row = g.tb ? 1 : g.n, .col = g.tb ? g.k : 1, .data = fb,
                             .value = g.alpha == 1.0f ? qx_call_initializer(c, 1) : NULL};
        QX_TRY(qx_packed_new(c, &w, g.m, &st->packed));
        if (tc && !st->bias) QX_TRY(keep_bias(c, st, &g, fc, col));
    }
    qx_call_drop_const(c, 1);
    qx_call_drop_const(c, 2);
    qx_gemm r = {.m = g.m, .x = fa, .bias = st->bias, .y = y};
    QX_TRY(qx_gemm_run(c, st->packed, &r));
    return qx_activation_run(c, &act, y, g.m * g.n);
}
