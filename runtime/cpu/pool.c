/* pool.c - MaxPool, AveragePool, LpPool, their global forms, and com.microsoft's NhwcMaxPool. Windows may reach beyond the input: MaxPool and LpPool
 * skip what is outside, AveragePool counts it when count_include_pad says so (never what ceil_mode adds behind the padding). */
#include <math.h>
#include <string.h>

#include "kernels/multi.h"
#include "runtime/cpu/pool.h"

typedef enum pool_kind { MAX, AVERAGE, LP } pool_kind;

typedef struct pool {
    const float *x;
    float *y;
    int64_t *arg;                /* flat index of the maximum in the input; NULL: not asked for */
    int spatial;
    int64_t lanes;               /* channels side by side: 1 when plain */
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];
    int64_t plane, out_plane;    /* pixels */
    int64_t rows, per_thread;    /* output rows of all planes; numbers of scratch for each thread */
    double *scratch, *cols; /* cols: of an average, what each column of outputs counts */
    float p;
    bool count_pad, column;
    pool_kind kind;
} pool;

static qx_status values(const qx_call *c, const char *name, int n, int64_t fallback, int64_t min, int64_t *out)
{
    int64_t count;
    const int64_t *v = qx_call_ints(c, name, &count);
    if (v && count != n) QX_CALL_FAIL(c, QX_E_SHAPE, "%s has %lld entries, %d are needed", name, (long long)count, n);
    for (int i = 0; i < n; i++) {
        out[i] = v ? v[i] : fallback;
        if (out[i] < min || out[i] > INT32_MAX) QX_CALL_FAIL(c, QX_E_SHAPE, "%s entry %d is %lld", name, i, (long long)out[i]);
    }
    return QX_OK;
}

static qx_status extent(const qx_call *c, pool *p, int i, const char *mode, bool ceil_mode)
{
    const int64_t span = (p->kernel[i] - 1) * p->dilation[i] + 1, s = p->stride[i];
    if (strncmp(mode, "SAME", 4) == 0) {
        p->out[i] = (p->in[i] + s - 1) / s;
        int64_t total = (p->out[i] - 1) * s + span - p->in[i];
        total = total < 0 ? 0 : total;
        p->begin[i] = strcmp(mode, "SAME_LOWER") == 0 ? total - total / 2 : total / 2;
        p->end[i] = total - p->begin[i];
        return QX_OK;
    }
    if (strcmp(mode, "VALID") == 0) p->begin[i] = p->end[i] = 0;
    const int64_t room = p->in[i] + p->begin[i] + p->end[i] - span;
    if (room < 0) QX_CALL_FAIL(c, QX_E_SHAPE, "kernel spans %lld of axis %d, the padded input has %lld", (long long)span, i, (long long)(room + span));
    p->out[i] = (ceil_mode ? room + s - 1 : room) / s + 1;
    if (ceil_mode && (p->out[i] - 1) * s >= p->in[i] + p->begin[i]) p->out[i]--; /* a window that starts behind the input */
    return QX_OK;
}

/* Missing axes become axes of 1 in front. */
static void three_axes(pool *p)
{
    int64_t *const lists[] = {p->in, p->out, p->kernel, p->stride, p->dilation, p->begin, p->end};
    for (int l = 0; l < 7; l++)
        for (int i = 2; i >= 0; i--) lists[l][i] = i >= 3 - p->spatial ? lists[l][i - (3 - p->spatial)] : l < 5;
}

static qx_status setup(qx_call *c, const qx_tensor *x, pool *p)
{
    int64_t ends[6];
    p->spatial = x->rank - 2;
    if (p->spatial < 1 || p->spatial > 3) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "%d spatial axes", p->spatial);
    if (!qx_call_attr(c, "kernel_shape")) QX_CALL_FAIL(c, QX_E_SHAPE, "no kernel_shape");
    QX_TRY(values(c, "kernel_shape", p->spatial, 1, 1, p->kernel));
    QX_TRY(values(c, "strides", p->spatial, 1, 1, p->stride));
    QX_TRY(values(c, "dilations", p->spatial, 1, 1, p->dilation));
    QX_TRY(values(c, "pads", 2 * p->spatial, 0, 0, ends));
    p->plane = p->out_plane = 1;
    for (int i = 0; i < p->spatial; i++) {
        p->in[i] = x->dims[2 + i];
        p->begin[i] = ends[i];
        p->end[i] = ends[i + p->spatial];
        QX_TRY(extent(c, p, i, qx_call_str(c, "auto_pad", "NOTSET"), qx_call_int(c, "ceil_mode", 0) != 0));
        p->plane *= p->in[i];
        p->out_plane *= p->out[i];
    }
    p->p = qx_call_float(c, "p", (float)qx_call_int(c, "p", 2));
    p->count_pad = qx_call_int(c, "count_include_pad", 0) != 0;
    p->column = qx_call_int(c, "storage_order", 0) != 0;
    three_axes(p);
    p->lanes = 1;
    const qx_op_id op = c->node->op->id;
    p->kind = op == QX_OP_LpPool ? LP : op == QX_OP_AveragePool || op == QX_OP_ms_QLinearAveragePool ? AVERAGE : MAX;
    return QX_OK;
}

/* Taps of one axis: n of them inside of the input, from position lo on; padded: those inside of input and padding. */
typedef struct taps { int64_t lo, n, padded; } taps;

static taps taps_at(const pool *p, int axis, int64_t o)
{
    const int64_t first = o * p->stride[axis] - p->begin[axis], d = p->dilation[axis], in = p->in[axis], kernel = p->kernel[axis], to = in + p->end[axis];
    if (d == 1) { /* the same without divisions */
        const int64_t lo = first < 0 ? 0 : first, hi = first + kernel < in ? first + kernel : in, pad = to - first;
        return (taps){lo, hi > lo ? hi - lo : 0, pad < kernel ? pad < 0 ? 0 : pad : kernel};
    }
    const int64_t skip = first < 0 ? (-first + d - 1) / d : 0, pad = to > first ? (to - first + d - 1) / d : 0;
    int64_t end = in > first ? (in - first + d - 1) / d : 0;
    end = end < kernel ? end : kernel;
    return (taps){first + skip * d, end > skip ? end - skip : 0, pad < kernel ? pad : kernel};
}

static float maximum(const pool *p, const float *x, const taps t[3], int64_t *arg)
{
    float m = -INFINITY;
    int64_t best = -1;
    for (int64_t a = 0; a < t[0].n; a++)
        for (int64_t b = 0; b < t[1].n; b++) {
            const int64_t row = ((t[0].lo + a * p->dilation[0]) * p->in[1] + t[1].lo + b * p->dilation[1]) * p->in[2] + t[2].lo;
            for (int64_t c = 0; c < t[2].n; c++) {
                const float v = x[row + c * p->dilation[2]];
                if (best >= 0 && !(v > m) && v == v) continue;
                m = v;
                best = row + c * p->dilation[2];
            }
        }
    if (best < 0) best = 0;
    const int64_t pos[3] = {best / (p->in[1] * p->in[2]), best / p->in[2] % p->in[1], best % p->in[2]};
    *arg = p->column ? (pos[2] * p->in[1] + pos[1]) * p->in[0] + pos[0] : best;
    return m;
}

static float norm(const pool *p, const float *x, const taps t[3])
{
    double s = 0;
    for (int64_t a = 0; a < t[0].n; a++)
        for (int64_t b = 0; b < t[1].n; b++) {
            const float *row = x + ((t[0].lo + a * p->dilation[0]) * p->in[1] + t[1].lo + b * p->dilation[1]) * p->in[2] + t[2].lo;
            for (int64_t c = 0; c < t[2].n; c++) s += pow(fabs((double)row[c * p->dilation[2]]), (double)p->p);
        }
    return (float)pow(s, 1.0 / (double)p->p);
}

/* One output after the other: norms, and maxima that are asked for with their places. */
static qx_status plane_piece(void *user, int64_t plane)
{
    const pool *p = user;
    const float *x = p->x + plane * p->plane;
    int64_t at = plane * p->out_plane;
    taps t[3];
    for (int64_t a = 0; a < p->out[0]; a++)
        for (int64_t b = 0; b < p->out[1]; b++)
            for (int64_t c = 0; c < p->out[2]; c++, at++) {
                t[0] = taps_at(p, 0, a);
                t[1] = taps_at(p, 1, b);
                t[2] = taps_at(p, 2, c);
                p->y[at] = p->kind == LP ? norm(p, x, t) : maximum(p, x, t, &p->arg[at]);
                if (p->arg) p->arg[at] += plane * p->plane;
            }
    return QX_OK;
}

/* ---- Row by row: the rows of a window are folded into one line, then the line into the outputs, tap by tap. Both run along memory, whether a pixel is
 * one number or the `lanes` channels that lie side by side. ---- */

/* Outputs of tap k of the last axis that lie inside of the input: [*lo, *hi); the pixel that output c sees is c * stride + *off. */
static void tap_range(const pool *p, int64_t k, int64_t *lo, int64_t *hi, int64_t *off)
{
    const int64_t s = p->stride[2], last = p->in[2] - 1;
    *off = k * p->dilation[2] - p->begin[2];
    *lo = *off < 0 ? (-*off + s - 1) / s : 0;
    *hi = last < *off ? 0 : (last - *off) / s + 1;
    if (*hi > p->out[2]) *hi = p->out[2];
}

/* to[i] = combine(to[i], x[i * step]), of type T; m and v: what is there and what comes. */
#define FOLD(name, T, combine)                                                                                    \
    QX_INLINE void name##_down(T *restrict to, const float *restrict x, int64_t n)                                \
    {                                                                                                             \
        for (int64_t i = 0; i < n; i++) { const T m = to[i], v = (T)x[i]; to[i] = combine; }                      \
    }                                                                                                             \
    QX_INLINE void name##_along(T *restrict to, const T *restrict x, int64_t step, int64_t n)                     \
    {                                                                                                             \
        if (step == 1) for (int64_t i = 0; i < n; i++) { const T m = to[i], v = x[i]; to[i] = combine; }          \
        else if (step == 2) for (int64_t i = 0; i < n; i++) { const T m = to[i], v = x[2 * i]; to[i] = combine; } \
        else for (int64_t i = 0; i < n; i++) { const T m = to[i], v = x[i * step]; to[i] = combine; }             \
    }
FOLD(max, float, v != v ? v : v > m ? v : m)
FOLD(sum, double, m + v)
#undef FOLD

/* line[in[2] * lanes]: the rows of the window, from start. */
#define FOLD_LINE(name, start)                                                                                    \
    for (int64_t i = 0; i < width; i++) line[i] = start;                                                          \
    for (int64_t a = 0; a < t[0].n; a++)                                                                          \
        for (int64_t b = 0; b < t[1].n; b++)                                                                      \
            name##_down(line, x + ((t[0].lo + a * p->dilation[0]) * p->in[1] + t[1].lo + b * p->dilation[1]) * width, width);

/* acc[out[2] * lanes]: the taps of the last axis. */
#define FOLD_TAPS(name, start)                                                                                    \
    for (int64_t i = 0; i < p->out[2] * lanes; i++) acc[i] = start;                                               \
    for (int64_t k = 0; k < p->kernel[2]; k++) {                                                                  \
        tap_range(p, k, &lo, &hi, &off);                                                                          \
        if (lanes == 1) name##_along(acc + lo, line + lo * s + off, s, hi - lo);                                  \
        else if (s == 1) name##_along(acc + lo * lanes, line + (lo + off) * lanes, 1, (hi - lo) * lanes);         \
        else for (int64_t c = lo; c < hi; c++) name##_along(acc + c * lanes, line + (c * s + off) * lanes, 1, lanes); \
    }

#define FOLD_ROW(name, T, start)                                                                                  \
    QX_INLINE void name##_row_body(const pool *p, const float *x, const taps t[2], T *line, T *acc)               \
    {                                                                                                             \
        const int64_t lanes = p->lanes, s = p->stride[2], width = p->in[2] * lanes;                               \
        int64_t lo, hi, off;                                                                                      \
        FOLD_LINE(name, start)                                                                                    \
        FOLD_TAPS(name, start)                                                                                    \
    }                                                                                                             \
    QX_MULTI(static, name##_row, (const pool *p, const float *x, const taps t[2], T *line, T *acc), (p, x, t, line, acc))
FOLD_ROW(max, float, -INFINITY)
FOLD_ROW(sum, double, 0)
#undef FOLD_ROW

/* y = sum / (rows * cols) of each pixel's lanes. */
QX_INLINE void share_body(int64_t n, int64_t lanes, const double *restrict sum, double rows, const double *restrict cols, float *restrict y)
{
    if (lanes == 1) for (int64_t c = 0; c < n; c++) y[c] = (float)(sum[c] / (rows * cols[c]));
    else for (int64_t c = 0; c < n; c++)
        for (int64_t l = c * lanes; l < (c + 1) * lanes; l++) y[l] = (float)(sum[l] / (rows * cols[c]));
}
QX_MULTI(static, share, (int64_t n, int64_t lanes, const double *sum, double rows, const double *cols, float *y), (n, lanes, sum, rows, cols, y))

static void average_row(const pool *p, const float *x, const taps t[2], double *line, float *y)
{
    double *sum = line + p->in[2] * p->lanes;
    sum_row(p, x, t, line, sum);
    share(p->out[2], p->lanes, sum, (double)(p->count_pad ? t[0].padded * t[1].padded : t[0].n * t[1].n), p->cols, y);
}

/* Numbers of the last axis that each output is the mean of. */
static qx_status count_columns(qx_call *c, pool *p)
{
    QX_TRY(qx_call_scratch_array(c, p->out[2] + 1, sizeof *p->cols, (void **)&p->cols));
    for (int64_t i = 0; i < p->out[2]; i++) {
        const taps t = taps_at(p, 2, i);
        p->cols[i] = (double)(p->count_pad ? t.padded : t.n);
    }
    return QX_OK;
}

enum { PIECE = 4096 }; /* outputs, about */

static int64_t piece_rows(const pool *p)
{
    const int64_t row = p->out[2] * p->lanes;
    return row < PIECE ? PIECE / (row + 1) + 1 : 1;
}

static qx_status rows_piece(void *user, int64_t i)
{
    const pool *p = user;
    const int64_t per = piece_rows(p), end = (i + 1) * per < p->rows ? (i + 1) * per : p->rows;
    double *line = p->scratch + qx_thread_index() * p->per_thread;
    for (int64_t r = i * per; r < end; r++) {
        const int64_t b = r % p->out[1], a = r / p->out[1] % p->out[0];
        const taps t[2] = {taps_at(p, 0, a), taps_at(p, 1, b)};
        const float *x = p->x + r / (p->out[0] * p->out[1]) * p->plane * p->lanes;
        float *y = p->y + r * p->out[2] * p->lanes;
        if (p->kind == MAX) max_row(p, x, t, (float *)(void *)line, y);
        else average_row(p, x, t, line, y);
    }
    return QX_OK;
}

/* All planes [channels / lanes], x and y set. */
static qx_status run(qx_call *c, pool *p, int64_t planes)
{
    if (p->kind == LP || p->arg) return qx_parallel(c->ctx, planes, plane_piece, p);
    p->rows = planes * p->out[0] * p->out[1];
    p->per_thread = (p->in[2] + p->out[2]) * p->lanes + 8;
    QX_TRY(qx_call_scratch_array(c, p->per_thread, sizeof *p->scratch * (size_t)qx_ctx_threads(c->ctx), (void **)&p->scratch));
    if (p->kind == AVERAGE) QX_TRY(count_columns(c, p));
    const int64_t per = piece_rows(p);
    return qx_parallel(c->ctx, (p->rows + per - 1) / per, rows_piece, p);
}

static void out_dims(const pool *p, const qx_tensor *x, int64_t *dims)
{
    dims[0] = x->dims[0];
    dims[1] = x->dims[1];
    for (int i = 0; i < p->spatial; i++) dims[2 + i] = p->out[3 - p->spatial + i];
}

qx_status qx_pool_f32(qx_call *c, const qx_tensor *x, const float *data, int64_t *dims, float **y)
{
    pool p = {0};
    QX_TRY(setup(c, x, &p));
    p.x = data;
    out_dims(&p, x, dims);
    QX_TRY(QX_CALL_SCRATCH(c, qx_prod(dims, 0, x->rank) + 1, &p.y));
    *y = p.y;
    return run(c, &p, x->dims[0] * x->dims[1]);
}

/* Output i of x's type (floats rounded when the adapter returns, 8-bit codes here) from floats in scratch; maxima of codes are exact in float. */
static qx_status write_codes(qx_call *c, const qx_tensor *x, int64_t n, const float *f, void *y)
{
    if (qx_dtype_bits((int)x->dtype) != 8) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get((int)x->dtype)->text);
    qx_from_f32((int)x->dtype, f, n, y);
    return QX_OK;
}

qx_status qx_cpu_pool(qx_call *c)
{
    const qx_tensor *x;
    pool p = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(setup(c, x, &p));
    QX_TRY(qx_call_in_f32(c, 0, &p.x));
    int64_t dims[QX_MAX_RANK];
    qx_tensor *arg = NULL, *y = NULL;
    out_dims(&p, x, dims);
    if (qx_dtype_is_float(x->dtype)) {
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &p.y));
    } else {
        QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, dims, &y));
        QX_TRY(QX_CALL_SCRATCH(c, y->numel + 1, &p.y));
    }
    if (p.kind == MAX && c->n_out > 1) {
        QX_TRY(qx_call_out(c, 1, QX_DT_INT64, x->rank, dims, &arg));
        p.arg = arg->data;
    }
    if (qx_call_in_block(c, 0)) p.lanes = qx_call_in_block(c, 0);
    QX_TRY(run(c, &p, x->dims[0] * x->dims[1] / p.lanes));
    return y ? write_codes(c, x, y->numel, p.y, y->data) : QX_OK;
}

qx_status qx_cpu_ms_nhwc_pool(qx_call *c)
{
    const qx_tensor *x;
    const float *f;
    float *pooled, *flipped = NULL;
    qx_tensor view, *y = NULL;
    int64_t dims[QX_MAX_RANK], nhwc[QX_MAX_RANK];
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_nhwc_view(c, x, &view));
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_nhwc_to_nchw(c, &view, f, &f));
    QX_TRY(qx_pool_f32(c, &view, f, dims, &pooled));
    qx_nhwc_dims(x->rank, dims, nhwc);
    if (qx_dtype_is_float(x->dtype)) {
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, nhwc, &flipped));
        return qx_nchw_to_nhwc(c, x->rank, dims, pooled, flipped);
    }
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, nhwc, &y));
    QX_TRY(QX_CALL_SCRATCH(c, y->numel + 1, &flipped));
    QX_TRY(qx_nchw_to_nhwc(c, x->rank, dims, pooled, flipped));
    return write_codes(c, x, y->numel, flipped, y->data);
}

enum { MOST_LANES = 16 };
typedef struct global_job { const float *x; float *y; int64_t n; double p; pool_kind kind; int block; } global_job;

/* In eight sums: one would wait for itself at every element. */
static double sum_of(const float *x, int64_t n)
{
    double s[8] = {0};
    int64_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (int l = 0; l < 8; l++) s[l] += (double)x[k + l];
    for (; k < n; k++) s[k % 8] += (double)x[k];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

static float global_end(const global_job *j, double s) { return (float)(j->kind == AVERAGE ? s / (double)j->n : j->kind == LP ? pow(s, 1.0 / j->p) : s); }

static qx_status global_piece(void *user, int64_t i)
{
    const global_job *j = user;
    const float *x = j->x + i * j->n;
    double s = j->kind == MAX ? -INFINITY : j->kind == AVERAGE ? sum_of(x, j->n) : 0;
    for (int64_t k = 0; k < j->n && j->kind != AVERAGE; k++) {
        const double v = (double)x[k];
        if (j->kind == MAX) s = v > s || isnan(v) ? v : s;
        else s += pow(fabs(v), j->p);
    }
    j->y[i] = global_end(j, s);
    return QX_OK;
}

/* `lanes` channels of those that lie side by side. */
static void global_lanes(const global_job *j, const float *x, int lanes, float *y)
{
    double s[MOST_LANES];
    for (int l = 0; l < lanes; l++) s[l] = j->kind == MAX ? -INFINITY : 0;
    for (int64_t k = 0; k < j->n; k++, x += j->block)
        for (int l = 0; l < lanes; l++) {
            const double v = (double)x[l];
            if (j->kind == AVERAGE) s[l] += v;
            else if (j->kind == MAX) s[l] = ((v > s[l]) | (v != v)) ? v : s[l];
            else s[l] += pow(fabs(v), j->p);
        }
    for (int l = 0; l < lanes; l++) y[l] = global_end(j, s[l]);
}

/* One pixel an output: the same in memory whatever its layout. */
static qx_status global_lanes_piece(void *user, int64_t i)
{
    const global_job *j = user;
    const float *x = j->x + i * j->n * j->block;
    for (int at = 0; at < j->block; at += MOST_LANES) global_lanes(j, x + at, j->block - at < MOST_LANES ? j->block - at : MOST_LANES, j->y + i * j->block + at);
    return QX_OK;
}

qx_status qx_cpu_global_pool(qx_call *c)
{
    const qx_tensor *x;
    int64_t dims[QX_MAX_RANK];
    const qx_op_id op = c->node->op->id;
    global_job j = {.kind = op == QX_OP_GlobalAveragePool || op == QX_OP_ReduceMean ? AVERAGE : op == QX_OP_GlobalLpPool ? LP : MAX};
    j.p = qx_call_attr(c, "p") && c->version == 1 ? (double)qx_call_float(c, "p", 2) : (double)qx_call_int(c, "p", 2);
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank < 3) QX_CALL_FAIL(c, QX_E_SHAPE, "input of rank %d", x->rank);
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    for (int i = 0; i < x->rank; i++) dims[i] = i < 2 ? x->dims[i] : 1;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &j.y));
    j.n = qx_prod(x->dims, 2, x->rank);
    j.block = qx_call_in_block(c, 0);
    if (j.block) return qx_parallel(c->ctx, x->dims[0] * x->dims[1] / j.block, global_lanes_piece, &j);
    return qx_parallel(c->ctx, x->dims[0] * x->dims[1], global_piece, &j);
}
