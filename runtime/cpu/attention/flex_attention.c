/* flex_attention.c - ai.onnx.preview.FlexAttention: softmax(score_mod(scale Q K')) V with subgraphs that see the whole score
 * matrix, so it exists as a whole. Sums are in double; scores and probabilities have the type of softmax_precision, as the
 * subgraphs expect. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/op.h"

typedef struct flex {
    int64_t batch, heads, kv_heads, rows, keys, d, dv;
    double scale;
    const qx_tensor *q, *k, *v;
    qx_tensor scores;
    qx_tensor *y;
} flex;

static double at(const qx_tensor *t, int64_t i)
{
    float f = 0;
    if (t->dtype == QX_DT_DOUBLE) return ((const double *)t->data)[i];
    qx_to_f32((int)t->dtype, (const char *)t->data + i * qx_dtype_bits((int)t->dtype) / 8, 1, &f);
    return (double)f;
}

static void put(qx_tensor *t, int64_t i, double v)
{
    const float f = (float)v;
    if (t->dtype == QX_DT_DOUBLE) ((double *)t->data)[i] = v;
    else qx_from_f32((int)t->dtype, &f, 1, (char *)t->data + i * qx_dtype_bits((int)t->dtype) / 8);
}

static qx_status setup(qx_call *c, flex *f)
{
    char a[96], b[96];
    QX_TRY(qx_call_need(c, 0, &f->q));
    QX_TRY(qx_call_need(c, 1, &f->k));
    QX_TRY(qx_call_need(c, 2, &f->v));
    const int64_t *q = f->q->dims, *k = f->k->dims, *v = f->v->dims;
    if (f->q->rank != 4 || f->k->rank != 4 || f->v->rank != 4 || q[0] != k[0] || q[0] != v[0] || q[3] != k[3] || k[1] != v[1] ||
        k[2] != v[2] || k[1] < 1 || q[1] % k[1])
        QX_CALL_FAIL(c, QX_E_SHAPE, "Q %s and K %s do not fit", qx_tensor_describe(f->q, a, sizeof a),
                     qx_tensor_describe(f->k, b, sizeof b));
    if (!qx_dtype_is_float(f->q->dtype) || f->k->dtype != f->q->dtype || f->v->dtype != f->q->dtype)
        QX_CALL_FAIL(c, QX_E_TYPE, "Q, K and V must be of one float type");
    *f = (flex){q[0], q[1], k[1], q[2], k[2], q[3], v[3], 0, f->q, f->k, f->v, {0}, NULL};
    const qx_attr *scale = qx_call_attr(c, "scale");
    f->scale = scale ? (double)qx_call_float(c, "scale", 1) : 1.0 / sqrt((double)(f->d ? f->d : 1));
    return QX_OK;
}

static qx_status score_row(void *user, int64_t i)
{
    flex *f = user;
    const int64_t head = i / f->rows, kv = head / f->heads * f->kv_heads + head % f->heads / (f->heads / f->kv_heads);
    for (int64_t j = 0; j < f->keys; j++) {
        double s = 0;
        for (int64_t d = 0; d < f->d; d++) s += at(f->q, i * f->d + d) * at(f->k, (kv * f->keys + j) * f->d + d);
        put(&f->scores, i * f->keys + j, s * f->scale);
    }
    return QX_OK;
}

static qx_status softmax_row(void *user, int64_t i)
{
    flex *f = user;
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < f->keys; j++) {
        const double s = at(&f->scores, i * f->keys + j);
        top = s > top || isnan(s) ? s : top;
    }
    for (int64_t j = 0; j < f->keys; j++) sum += exp(at(&f->scores, i * f->keys + j) - top);
    for (int64_t j = 0; j < f->keys; j++) put(&f->scores, i * f->keys + j, exp(at(&f->scores, i * f->keys + j) - top) / sum);
    return QX_OK;
}

static qx_status value_row(void *user, int64_t i)
{
    flex *f = user;
    const int64_t head = i / f->rows, kv = head / f->heads * f->kv_heads + head % f->heads / (f->heads / f->kv_heads);
    for (int64_t d = 0; d < f->dv; d++) {
        double s = 0;
        for (int64_t j = 0; j < f->keys; j++) s += at(&f->scores, i * f->keys + j) * at(f->v, (kv * f->keys + j) * f->dv + d);
        put(f->y, i * f->dv + d, s);
    }
    return QX_OK;
}

/* Sends the scores through a subgraph, which must keep type and shape. */
static qx_status modify(qx_call *c, flex *f, const char *name)
{
    const qx_attr *a = qx_call_attr(c, name);
    const qx_tensor *in = &f->scores;
    qx_tensor out;
    char given[96], want[96];
    if (!a || !a->graph) return QX_OK;
    QX_TRY(qx_call_graph(c, a->graph, &in, 1, &out, 1));
    if (out.dtype != in->dtype || out.rank != in->rank || memcmp(out.dims, in->dims, 4 * sizeof *in->dims) != 0) {
        const qx_status st = qx_call_fail(c, QX_E_SHAPE, "%s gives %s instead of %s", name,
                                          qx_tensor_describe(&out, given, sizeof given), qx_tensor_describe(in, want, sizeof want));
        qx_tensor_free(c->ctx, &out);
        return st;
    }
    qx_tensor_free(c->ctx, &f->scores);
    f->scores = out;
    return QX_OK;
}

static qx_status run(qx_call *c, flex *f)
{
    const int64_t rows = f->batch * f->heads * f->rows;
    QX_TRY(qx_parallel(c->ctx, f->keys ? rows : 0, score_row, f));
    QX_TRY(modify(c, f, "score_mod"));
    QX_TRY(qx_parallel(c->ctx, f->keys ? rows : 0, softmax_row, f));
    QX_TRY(modify(c, f, "prob_mod"));
    return qx_parallel(c->ctx, rows, value_row, f);
}

qx_status qx_cpu_flex_attention(qx_call *c)
{
    flex f = {0};
    QX_TRY(setup(c, &f));
    const qx_dtype type = (qx_dtype)qx_call_int(c, "softmax_precision", f.q->dtype == QX_DT_DOUBLE ? QX_DT_DOUBLE : QX_DT_FLOAT);
    if (type != QX_DT_FLOAT && type != QX_DT_DOUBLE && type != QX_DT_FLOAT16 && type != QX_DT_BFLOAT16)
        QX_CALL_FAIL(c, QX_E_TYPE, "softmax_precision is %lld", (long long)type);
    QX_TRY(qx_call_out(c, 0, f.q->dtype, 4, (int64_t[]){f.batch, f.heads, f.rows, f.dv}, &f.y));
    QX_TRY(qx_tensor_new(c->ctx, &f.scores, type, 4, (int64_t[]){f.batch, f.heads, f.rows, f.keys}));
    const qx_status st = run(c, &f);
    qx_tensor_free(c->ctx, &f.scores);
    return st;
}
