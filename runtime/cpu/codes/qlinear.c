/* qlinear.c - com.microsoft's QLinear operators without a product: codes in, codes out, float arithmetic in between, as ONNX
 * Runtime defines them (dequantize, the operation, quantize). A function of one code is a table of 256 codes. */
#include <string.h>

#include "kernels/pointwise.h"
#include "kernels/quant.h"
#include "kernels/rows.h"
#include "runtime/cpu/codes/codes.h"
#include "runtime/cpu/picture/pool.h"
#include "runtime/cpu/move/strided.h"

/* A tensor of codes with its scale and zero point. */
typedef struct coded { const qx_tensor *t; const uint8_t *data; float scale; int32_t zero; bool sign; } coded;

static qx_status read_scale(qx_call *c, uint32_t scale, uint32_t zero, coded *q)
{
    double s;
    int64_t z;
    QX_TRY(qx_call_scalar_f64(c, scale, 1, &s));
    QX_TRY(qx_call_scalar_i64(c, zero, 0, &z));
    q->scale = (float)s;
    q->zero = (int32_t)z;
    return QX_OK;
}

static qx_status read_coded(qx_call *c, uint32_t data, uint32_t scale, uint32_t zero, coded *q)
{
    QX_TRY(qx_code_input(c, data, &q->t));
    q->data = q->t->data;
    q->sign = q->t->dtype == QX_DT_INT8;
    return read_scale(c, scale, zero, q);
}

/* The output's type, scale and zero point. */
static qx_status read_out(qx_call *c, uint32_t scale, uint32_t zero, qx_dtype type, coded *y)
{
    *y = (coded){.sign = type == QX_DT_INT8};
    return read_scale(c, scale, zero, y);
}

static qx_dtype type_of(const coded *q) { return q->sign ? QX_DT_INT8 : QX_DT_UINT8; }

static qx_quant quant_of(const coded *q, int64_t n) { return (qx_quant){.grid = {1, n, 1, n}, .format = {.codes = type_of(q)},
                                                                        .scale = &q->scale, .zero = &q->zero}; }

static void decode_run(const coded *q, const uint8_t *codes, int64_t n, float *x)
{
    const qx_quant k = quant_of(q, n);
    if (n) qx_dequantize(&k, codes, QX_DT_FLOAT, x);
}

static void encode_run(const coded *q, const float *x, int64_t n, uint8_t *codes)
{
    const qx_quant k = quant_of(q, n);
    if (n) qx_quantize(&k, QX_DT_FLOAT, x, codes);
}

static void values_of(const coded *q, float table[256])
{
    uint8_t all[256];
    for (int i = 0; i < 256; i++) all[i] = (uint8_t)i;
    decode_run(q, all, 256, table);
}

/* table[code of x] = code of y for the same number. */
static void requantizer(const coded *x, const coded *y, uint8_t table[256])
{
    float values[256];
    values_of(x, values);
    encode_run(y, values, 256, table);
}

/* Codes of floats. */
enum { PIECE = 1 << 14 };
typedef struct encode_job { const coded *q; const float *x; uint8_t *y; int64_t n; } encode_job;

static qx_status encode_piece(void *user, int64_t i)
{
    const encode_job *j = user;
    const int64_t first = i * PIECE;
    encode_run(j->q, j->x + first, j->n - first < PIECE ? j->n - first : PIECE, j->y + first);
    return QX_OK;
}

static qx_status encode(qx_call *c, const coded *q, const float *x, int64_t n, uint8_t *y)
{
    encode_job j = {q, x, y, n};
    return qx_parallel(c->ctx, (n + PIECE - 1) / PIECE, encode_piece, &j);
}

static qx_status decode(qx_call *c, const coded *q, const float **out)
{
    float *f = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, q->t->numel + 1, &f));
    decode_run(q, q->data, q->t->numel, f);
    *out = f;
    return QX_OK;
}

/* ---- Sigmoid, LeakyRelu ---- */

qx_status qx_cpu_ms_qlinear_unary(qx_call *c)
{
    coded x, y;
    qx_tensor *out = NULL;
    float values[256];
    uint8_t table[256];
    const bool sigmoid = c->node->op->id == QX_OP_ms_QLinearSigmoid;
    const float p[2] = {qx_call_float(c, "alpha", 0.01f), 0};
    QX_TRY(read_coded(c, 0, 1, 2, &x));
    QX_TRY(read_out(c, 3, 4, type_of(&x), &y));
    QX_TRY(qx_call_out(c, 0, type_of(&x), x.t->rank, x.t->dims, &out));
    values_of(&x, values);
    qx_unary_find(sigmoid ? QX_U_SIGMOID : QX_U_LEAKY_RELU, QX_DT_FLOAT)(values, values, 256, p);
    encode_run(&y, values, 256, table);
    for (int64_t i = 0; i < x.t->numel; i++) ((uint8_t *)out->data)[i] = table[x.data[i]];
    return QX_OK;
}

/* ---- Add, Mul ---- */

/* Element strides of operand t in an output of this rank: 0 where it is shared. */
static void shared_strides(const qx_tensor *t, int rank, int64_t *stride)
{
    for (int i = 0; i < rank; i++) {
        const int own = i - (rank - t->rank);
        stride[i] = own < 0 || t->dims[own] == 1 ? 0 : qx_prod(t->dims, own + 1, t->rank);
    }
}

static qx_status broadcast_codes(qx_call *c, const qx_tensor *t, int size, int rank, const int64_t *dims, const void **out)
{
    qx_strided s = {.rank = rank};
    void *copy = NULL;
    *out = t->data;
    if (t->numel == qx_prod(dims, 0, rank)) return QX_OK;
    for (int i = 0; i < rank; i++) s.dims[i] = dims[i];
    shared_strides(t, rank, s.stride);
    QX_TRY(qx_call_scratch_array(c, qx_prod(dims, 0, rank) + 1, (size_t)size, &copy));
    *out = copy;
    return qx_strided_copy(c->ctx, &s, t->data, copy, size);
}

static qx_status common_shape(qx_call *c, const qx_tensor *a, const qx_tensor *b, int64_t *dims, int *rank)
{
    char s[96], t[96];
    if (qx_broadcast(a->dims, a->rank, b->dims, b->rank, dims, rank)) return QX_OK;
    QX_CALL_FAIL(c, QX_E_SHAPE, "%s and %s do not broadcast", qx_tensor_describe(a, s, sizeof s), qx_tensor_describe(b, t, sizeof t));
}

enum { TILE = 1024 };
typedef struct pair_job { const coded *y, *ca, *cb; const uint8_t *a, *b; uint8_t *out; int64_t n; qx_binary op; } pair_job;

static qx_status pair_piece(void *user, int64_t i)
{
    const pair_job *j = user;
    float a[TILE], b[TILE];
    for (int64_t k = i * PIECE; k < (i + 1) * PIECE && k < j->n; k += TILE) {
        const int64_t n = j->n - k < TILE ? j->n - k : TILE;
        decode_run(j->ca, j->a + k, n, a);
        decode_run(j->cb, j->b + k, n, b);
        qx_binary_find(j->op, QX_DT_FLOAT)(a, 1, b, 1, a, n);
        encode_run(j->y, a, n, j->out + k);
    }
    return QX_OK;
}

qx_status qx_cpu_ms_qlinear_binary(qx_call *c)
{
    coded a, b, y;
    qx_tensor *out = NULL;
    int64_t dims[QX_MAX_RANK];
    int rank;
    const void *pa, *pb;
    QX_TRY(read_coded(c, 0, 1, 2, &a));
    QX_TRY(read_coded(c, 3, 4, 5, &b));
    QX_TRY(read_out(c, 6, 7, type_of(&a), &y));
    QX_TRY(common_shape(c, a.t, b.t, dims, &rank));
    QX_TRY(qx_call_out(c, 0, type_of(&a), rank, dims, &out));
    if (out->numel == 0) return QX_OK;
    QX_TRY(broadcast_codes(c, a.t, 1, rank, dims, &pa));
    QX_TRY(broadcast_codes(c, b.t, 1, rank, dims, &pb));
    pair_job j = {&y, &a, &b, pa, pb, out->data, out->numel, c->node->op->id == QX_OP_ms_QLinearMul ? QX_B_MUL : QX_B_ADD};
    return qx_parallel(c->ctx, (j.n + PIECE - 1) / PIECE, pair_piece, &j);
}

/* condition, X, scale, zero, Y, scale, zero, Z scale, zero. */
qx_status qx_cpu_ms_qlinear_where(qx_call *c)
{
    const qx_tensor *cond;
    coded x, y, z;
    qx_tensor *out = NULL;
    uint8_t tx[256], ty[256];
    int64_t dims[QX_MAX_RANK];
    int rank;
    const void *pc, *px, *py;
    qx_tensor both;
    QX_TRY(qx_call_need(c, 0, &cond));
    if (cond->dtype != QX_DT_BOOL) QX_CALL_FAIL(c, QX_E_TYPE, "the condition is %s", qx_dtype_get(cond->dtype)->text);
    QX_TRY(read_coded(c, 1, 2, 3, &x));
    QX_TRY(read_coded(c, 4, 5, 6, &y));
    QX_TRY(read_out(c, 7, 8, type_of(&x), &z));
    QX_TRY(common_shape(c, x.t, y.t, dims, &rank));
    QX_TRY(qx_tensor_shape(c->ctx, &both, QX_DT_UINT8, rank, dims));
    QX_TRY(common_shape(c, cond, &both, dims, &rank));
    QX_TRY(qx_call_out(c, 0, type_of(&x), rank, dims, &out));
    if (out->numel == 0) return QX_OK;
    QX_TRY(broadcast_codes(c, cond, 1, rank, dims, &pc));
    QX_TRY(broadcast_codes(c, x.t, 1, rank, dims, &px));
    QX_TRY(broadcast_codes(c, y.t, 1, rank, dims, &py));
    requantizer(&x, &z, tx);
    requantizer(&y, &z, ty);
    for (int64_t i = 0; i < out->numel; i++)
        ((uint8_t *)out->data)[i] = ((const uint8_t *)pc)[i] ? tx[((const uint8_t *)px)[i]] : ty[((const uint8_t *)py)[i]];
    return QX_OK;
}

/* ---- Concat: y scale, y zero, then (x, scale, zero) a part ---- */

static qx_status concat_dims(qx_call *c, int axis, const qx_tensor *first, int64_t *dims)
{
    char a[96], b[96];
    memcpy(dims, first->dims, sizeof first->dims);
    for (uint32_t i = 5; i < c->n_in; i += 3) {
        const qx_tensor *t;
        QX_TRY(qx_code_input(c, i, &t));
        bool fits = t->rank == first->rank;
        for (int d = 0; fits && d < t->rank; d++) fits = d == axis || t->dims[d] == first->dims[d];
        if (!fits)
            QX_CALL_FAIL(c, QX_E_SHAPE, "%s behind %s along axis %d", qx_tensor_describe(t, a, sizeof a),
                         qx_tensor_describe(first, b, sizeof b), axis);
        dims[axis] += t->dims[axis];
    }
    return QX_OK;
}

qx_status qx_cpu_ms_qlinear_concat(qx_call *c)
{
    coded y, x;
    qx_tensor *out = NULL;
    const qx_tensor *first, *zero;
    int64_t dims[QX_MAX_RANK], at = 0;
    int axis;
    uint8_t table[256];
    QX_TRY(qx_code_input(c, 1, &zero));
    QX_TRY(qx_code_input(c, 2, &first));
    QX_TRY(read_out(c, 0, 1, zero->dtype, &y));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), first->rank, &axis));
    if ((c->n_in - 2) % 3 || first->rank == 0)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%u inputs of rank %d; parts are data, scale and zero point", c->n_in, first->rank);
    QX_TRY(concat_dims(c, axis, first, dims));
    QX_TRY(qx_call_out(c, 0, type_of(&y), first->rank, dims, &out));
    const int64_t outer = qx_prod(dims, 0, axis), row = qx_prod(dims, axis, first->rank);
    for (uint32_t i = 2; i < c->n_in; i += 3) {
        QX_TRY(read_coded(c, i, i + 1, i + 2, &x));
        requantizer(&x, &y, table);
        const int64_t own = qx_prod(x.t->dims, axis, x.t->rank);
        for (int64_t o = 0; o < outer; o++)
            for (int64_t k = 0; k < own; k++) ((uint8_t *)out->data)[o * row + at + k] = table[x.data[o * own + k]];
        at += own;
    }
    return QX_OK;
}

/* ---- Softmax: rows of float, as the opset of the attribute has them ---- */

qx_status qx_cpu_ms_qlinear_softmax(qx_call *c)
{
    coded x, y;
    qx_tensor *out = NULL;
    int axis;
    const bool flat = qx_call_int(c, "opset", 13) < 13;
    QX_TRY(read_coded(c, 0, 1, 2, &x));
    QX_TRY(read_out(c, 3, 4, type_of(&x), &y));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", flat ? 1 : -1), x.t->rank, &axis));
    QX_TRY(qx_call_out(c, 0, type_of(&x), x.t->rank, x.t->dims, &out));
    if (out->numel == 0) return QX_OK;
    const int64_t outer = qx_prod(x.t->dims, 0, axis), n = flat ? qx_prod(x.t->dims, axis, x.t->rank) : x.t->rank ? x.t->dims[axis] : 1,
        inner = out->numel / outer / n;
    float *row = NULL, values[256];
    uint8_t *line = NULL;
    values_of(&x, values);
    QX_TRY(QX_CALL_SCRATCH(c, n, &row));
    QX_TRY(QX_CALL_SCRATCH(c, n, &line));
    for (int64_t r = 0; r < outer * inner; r++) {
        const int64_t base = r / inner * n * inner + r % inner;
        for (int64_t i = 0; i < n; i++) row[i] = values[x.data[base + i * inner]];
        qx_softmax_row(row, row, n, false);
        encode_run(&y, row, n, line);
        for (int64_t i = 0; i < n; i++) ((uint8_t *)out->data)[base + i * inner] = line[i];
    }
    return QX_OK;
}

/* ---- GlobalAveragePool, ReduceMean: means of codes are exact sums ---- */

/* Mean over the middle of [outer, n, inner]. */
static void mean_codes(const coded *x, const coded *y, int64_t outer, int64_t n, int64_t inner, uint8_t *out)
{
    for (int64_t k = 0; k < outer * inner; k++) {
        const uint8_t *p = x->data + k / inner * n * inner + k % inner;
        int64_t sum = 0;
        for (int64_t i = 0; i < n; i++) sum += x->sign ? (int64_t)(int8_t)p[i * inner] : (int64_t)p[i * inner];
        const float mean = (float)(((double)sum - (double)n * x->zero) * (double)x->scale / (double)n);
        encode_run(y, &mean, 1, &out[k]);
    }
}

qx_status qx_cpu_ms_qlinear_global_pool(qx_call *c)
{
    coded x, y;
    qx_tensor *out = NULL;
    int64_t dims[QX_MAX_RANK];
    const bool last = qx_call_int(c, "channels_last", 0) != 0;
    QX_TRY(read_coded(c, 0, 1, 2, &x));
    QX_TRY(read_out(c, 3, 4, type_of(&x), &y));
    const int rank = x.t->rank;
    if (rank < 3) QX_CALL_FAIL(c, QX_E_SHAPE, "input of rank %d", rank);
    for (int i = 0; i < rank; i++) dims[i] = i == 0 || i == (last ? rank - 1 : 1) ? x.t->dims[i] : 1;
    QX_TRY(qx_call_out(c, 0, type_of(&x), rank, dims, &out));
    const int64_t ch = last ? dims[rank - 1] : dims[1];
    if (out->numel == 0) return QX_OK;
    const int64_t n = x.t->numel / out->numel;
    if (n == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "a picture without pixels");
    if (last) mean_codes(&x, &y, dims[0], n, ch, out->data);
    else mean_codes(&x, &y, dims[0] * ch, n, 1, out->data);
    return QX_OK;
}

/* Axes are brought behind the others first. */
qx_status qx_cpu_ms_qlinear_reduce(qx_call *c)
{
    coded x, y;
    qx_tensor *out = NULL;
    int64_t dims[QX_MAX_RANK], count, n = 1;
    int rank = 0, at = 0;
    const int64_t *axes = qx_call_ints(c, "axes", &count);
    const bool keep = qx_call_int(c, "keepdims", 1) != 0;
    bool red[QX_MAX_RANK] = {false};
    QX_TRY(read_coded(c, 0, 1, 2, &x));
    QX_TRY(read_out(c, 3, 4, type_of(&x), &y));
    for (int i = 0; i < x.t->rank; i++) red[i] = count == 0;
    for (int64_t i = 0; i < count; i++) {
        int a;
        QX_TRY(qx_call_axis(c, axes[i], x.t->rank, &a));
        red[a] = true;
    }
    qx_strided s = {.rank = x.t->rank};
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x.t->rank; i++)
            if (red[i] == (pass == 1)) {
                s.dims[at] = x.t->dims[i];
                s.stride[at++] = qx_prod(x.t->dims, i + 1, x.t->rank);
            }
    for (int i = 0; i < x.t->rank; i++) {
        if (red[i]) n *= x.t->dims[i];
        if (!red[i] || keep) dims[rank++] = red[i] ? 1 : x.t->dims[i];
    }
    QX_TRY(qx_call_out(c, 0, type_of(&x), rank, dims, &out));
    if (out->numel == 0) return QX_OK;
    if (n == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "the mean of no elements");
    uint8_t *t = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, x.t->numel, &t));
    QX_TRY(qx_strided_copy(c->ctx, &s, x.data, t, 1));
    x.data = t;
    mean_codes(&x, &y, out->numel, n, 1, out->data);
    return QX_OK;
}

/* ---- AveragePool: the float pool between a decoding and an encoding; channels_last goes through NCHW ---- */

qx_status qx_cpu_ms_qlinear_pool(qx_call *c)
{
    coded x, y;
    qx_tensor *out = NULL, view;
    const float *f;
    float *pooled = NULL, *flipped = NULL;
    int64_t dims[QX_MAX_RANK], nhwc[QX_MAX_RANK];
    const bool last = qx_call_int(c, "channels_last", 0) != 0;
    QX_TRY(read_coded(c, 0, 1, 2, &x));
    QX_TRY(read_out(c, 3, 4, type_of(&x), &y));
    QX_TRY(decode(c, &x, &f));
    view = *x.t;
    if (last) {
        QX_TRY(qx_nhwc_view(c, x.t, &view));
        QX_TRY(qx_nhwc_to_nchw(c, &view, f, &f));
    }
    QX_TRY(qx_pool_f32(c, &view, f, dims, &pooled));
    const int64_t n = qx_prod(dims, 0, view.rank);
    if (last) qx_nhwc_dims(view.rank, dims, nhwc);
    QX_TRY(qx_call_out(c, 0, type_of(&x), view.rank, last ? nhwc : dims, &out));
    if (last) {
        QX_TRY(QX_CALL_SCRATCH(c, n + 1, &flipped));
        QX_TRY(qx_nchw_to_nhwc(c, view.rank, dims, pooled, flipped));
        pooled = flipped;
    }
    return encode(c, &y, pooled, n, out->data);
}
