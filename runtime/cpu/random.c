/* random.c - RandomNormal, RandomUniform and their Like forms, Bernoulli, Multinomial, and the mask of a training Dropout.
 *
 * Every element has its own number, a hash of (seed, index), so results are the same for any number of threads and in every run.
 * The standard leaves the generator open; a node without a seed gets one made from its name, so that two nodes differ and runs
 * agree. */
#include "runtime/cpu/random.h"

#include <math.h>
#include <string.h>

#include "runtime/cpu/op.h"

/* splitmix64's finishing step (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t v)
{
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

double qx_random_uniform(uint64_t seed, uint64_t i)
{
    return (double)(mix(seed + (i + 1) * 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}

uint64_t qx_random_seed(const qx_call *c, const char *attr)
{
    const qx_attr *a = qx_call_attr(c, attr);
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    uint32_t bits;
    float f = qx_call_float(c, attr, 0.0f);
    if (a && a->type == QX_ATTR_INT) return mix((uint64_t)qx_call_int(c, attr, 0));
    memcpy(&bits, &f, sizeof bits);
    if (a) return mix(bits + 0x5bd1e995u);
    for (const char *p = c->node->name ? c->node->name : ""; *p; p++) h = (h ^ (uint8_t)*p) * 1099511628211u;
    return mix(h);
}

enum { PIECE = 1 << 13 };
typedef enum kind { UNIFORM, NORMAL, BERNOULLI } kind;
typedef struct job { kind kind; uint64_t seed; double a, b; const float *p; qx_tensor *y; double *wide; } job;

/* Box and Muller: two uniforms for a normal; 1 - u is never 0. */
static double draw(const job *j, int64_t i)
{
    const uint64_t at = (uint64_t)i;
    if (j->kind == UNIFORM) return j->a + (j->b - j->a) * qx_random_uniform(j->seed, at);
    if (j->kind == BERNOULLI) return qx_random_uniform(j->seed, at) < (double)j->p[i] ? 1.0 : 0.0;
    const double u = 1.0 - qx_random_uniform(j->seed, 2 * at), v = qx_random_uniform(j->seed, 2 * at + 1);
    return j->a + j->b * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

static qx_status piece(void *user, int64_t k)
{
    const job *j = user;
    const int64_t first = k * PIECE, n = j->y->numel - first < PIECE ? j->y->numel - first : PIECE, bits = qx_dtype_bits((int)j->y->dtype);
    float tile[256];
    for (int64_t i = first; i < first + n; i += 256) {
        const int64_t m = first + n - i < 256 ? first + n - i : 256;
        for (int64_t q = 0; q < m; q++) {
            const double v = draw(j, i + q);
            tile[q] = (float)v;
            /* [low, high) after rounding too */
            if (j->kind == UNIFORM && tile[q] >= (float)j->b && j->b > j->a) tile[q] = nextafterf((float)j->b, (float)j->a);
            if (j->y->dtype == QX_DT_DOUBLE) ((double *)j->y->data)[i + q] = v;
        }
        if (j->y->dtype != QX_DT_DOUBLE && !qx_from_f32((int)j->y->dtype, tile, m, (char *)j->y->data + i * bits / 8)) return QX_E_TYPE;
    }
    return QX_OK;
}

static qx_status fill(qx_call *c, job *j, qx_dtype type, int rank, const int64_t *dims)
{
    if (qx_dtype_bits((int)type) < 8 || type == QX_DT_STRING)
        QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get((int)type)->text);
    QX_TRY(qx_call_out(c, 0, type, rank, dims, &j->y));
    const qx_status st = qx_parallel(c->ctx, (j->y->numel + PIECE - 1) / PIECE, piece, j);
    if (st == QX_E_TYPE) QX_CALL_FAIL(c, st, "not defined for %s", qx_dtype_get((int)type)->text);
    return st;
}

static void distribution(const qx_call *c, job *j)
{
    const qx_op_id op = c->node->op->id;
    j->kind = op == QX_OP_RandomNormal || op == QX_OP_RandomNormalLike ? NORMAL : UNIFORM;
    j->a = (double)(j->kind == NORMAL ? qx_call_float(c, "mean", 0) : qx_call_float(c, "low", 0));
    j->b = (double)(j->kind == NORMAL ? qx_call_float(c, "scale", 1) : qx_call_float(c, "high", 1));
    j->seed = qx_random_seed(c, "seed");
}

qx_status qx_cpu_random(qx_call *c)
{
    job j = {0};
    int64_t n;
    const int64_t *dims = qx_call_ints(c, "shape", &n);
    if (n > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_SHAPE, "shape has %lld axes, %d are the most", (long long)n, QX_MAX_RANK);
    distribution(c, &j);
    return fill(c, &j, (qx_dtype)qx_call_int(c, "dtype", QX_DT_FLOAT), (int)n, dims);
}

qx_status qx_cpu_random_like(qx_call *c)
{
    job j = {0};
    const qx_tensor *x;
    QX_TRY(qx_call_need(c, 0, &x));
    distribution(c, &j);
    return fill(c, &j, (qx_dtype)qx_call_int(c, "dtype", x->dtype), x->rank, x->dims);
}

qx_status qx_cpu_bernoulli(qx_call *c)
{
    job j = {.kind = BERNOULLI, .seed = qx_random_seed(c, "seed")};
    const qx_tensor *x;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &j.p));
    return fill(c, &j, (qx_dtype)qx_call_int(c, "dtype", x->dtype), x->rank, x->dims);
}

/* Input: log probabilities of a row, not normalized; output: indices drawn from each. */
qx_status qx_cpu_multinomial(qx_call *c)
{
    const qx_tensor *x;
    const float *f;
    qx_tensor *y = NULL;
    const int64_t n = qx_call_int(c, "sample_size", 1);
    const qx_dtype type = (qx_dtype)qx_call_int(c, "dtype", QX_DT_INT32);
    const uint64_t seed = qx_random_seed(c, "seed");
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank != 2 || x->dims[1] < 1 || n < 0) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld samples of an input of rank %d", (long long)n, x->rank);
    if (type != QX_DT_INT32 && type != QX_DT_INT64)
        QX_CALL_FAIL(c, QX_E_TYPE, "dtype %s; int32 or int64 is needed", qx_dtype_get((int)type)->text);
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out(c, 0, type, 2, (int64_t[]){x->dims[0], n}, &y));
    for (int64_t r = 0; r < x->dims[0]; r++, f += x->dims[1]) {
        double top = -INFINITY, all = 0;
        for (int64_t k = 0; k < x->dims[1]; k++) top = (double)f[k] > top ? (double)f[k] : top;
        for (int64_t k = 0; k < x->dims[1]; k++) all += exp((double)f[k] - top);
        for (int64_t i = 0; i < n; i++) {
            double rest = qx_random_uniform(seed, (uint64_t)(r * n + i)) * all;
            int64_t k = 0;
            while (k + 1 < x->dims[1] && (rest -= exp((double)f[k] - top)) >= 0) k++;
            if (type == QX_DT_INT64) ((int64_t *)y->data)[r * n + i] = k;
            else ((int32_t *)y->data)[r * n + i] = (int32_t)k;
        }
    }
    return QX_OK;
}
