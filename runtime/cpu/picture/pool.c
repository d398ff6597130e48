/* pool.c - MaxPool, AveragePool, LpPool, their global forms, and com.microsoft's NhwcMaxPool. Windows may reach beyond the input:
 * MaxPool and LpPool skip what is outside, AveragePool counts it when count_include_pad says so (never what ceil_mode adds behind
 * the padding). */
#include <math.h>
#include <string.h>

#include "kernels/pool.h"
#include "kernels/rows.h"
#include "runtime/cpu/picture/pool.h"

typedef enum pool_kind { MAX, AVERAGE, LP } pool_kind;

typedef struct pool {
    qx_windows w;
    const float *x;
    float *y;
    int64_t *arg;                /* flat index of the maximum in the input; NULL: not asked for */
    int spatial;
    int64_t lanes;               /* channels side by side: 1 when plain */
    int64_t plane, out_plane;    /* pixels */
    int64_t band_rows, bands;    /* output rows of a band; bands of a plane and depth */
    int64_t all, per_piece;      /* bands */
    int64_t per_thread;          /* numbers of scratch */
    float *scratch, *cols;       /* cols: of an average, what each column of outputs counts */
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
    const int64_t span = (p->w.kernel[i] - 1) * p->w.dilation[i] + 1, s = p->w.stride[i];
    if (strncmp(mode, "SAME", 4) == 0) {
        p->w.out[i] = (p->w.in[i] + s - 1) / s;
        int64_t total = (p->w.out[i] - 1) * s + span - p->w.in[i];
        total = total < 0 ? 0 : total;
        p->w.begin[i] = strcmp(mode, "SAME_LOWER") == 0 ? total - total / 2 : total / 2;
        p->w.end[i] = total - p->w.begin[i];
        return QX_OK;
    }
    if (strcmp(mode, "VALID") == 0) p->w.begin[i] = p->w.end[i] = 0;
    const int64_t room = p->w.in[i] + p->w.begin[i] + p->w.end[i] - span;
    if (room < 0)
        QX_CALL_FAIL(c, QX_E_SHAPE, "kernel spans %lld of axis %d, the padded input has %lld", (long long)span, i,
                     (long long)(room + span));
    p->w.out[i] = (ceil_mode ? room + s - 1 : room) / s + 1;
    if (ceil_mode && (p->w.out[i] - 1) * s >= p->w.in[i] + p->w.begin[i]) p->w.out[i]--; /* a window that starts behind the input */
    return QX_OK;
}

/* Missing axes become axes of 1 in front. */
static void three_axes(pool *p)
{
    int64_t *const lists[] = {p->w.in, p->w.out, p->w.kernel, p->w.stride, p->w.dilation, p->w.begin, p->w.end};
    for (int l = 0; l < 7; l++)
        for (int i = 2; i >= 0; i--) lists[l][i] = i >= 3 - p->spatial ? lists[l][i - (3 - p->spatial)] : l < 5;
}

static qx_status setup(qx_call *c, const qx_tensor *x, pool *p)
{
    int64_t ends[6];
    p->spatial = x->rank - 2;
    if (p->spatial < 1 || p->spatial > 3) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "%d spatial axes", p->spatial);
    if (!qx_call_attr(c, "kernel_shape")) QX_CALL_FAIL(c, QX_E_SHAPE, "no kernel_shape");
    QX_TRY(values(c, "kernel_shape", p->spatial, 1, 1, p->w.kernel));
    QX_TRY(values(c, "strides", p->spatial, 1, 1, p->w.stride));
    QX_TRY(values(c, "dilations", p->spatial, 1, 1, p->w.dilation));
    QX_TRY(values(c, "pads", 2 * p->spatial, 0, 0, ends));
    p->plane = p->out_plane = 1;
    for (int i = 0; i < p->spatial; i++) {
        p->w.in[i] = x->dims[2 + i];
        p->w.begin[i] = ends[i];
        p->w.end[i] = ends[i + p->spatial];
        QX_TRY(extent(c, p, i, qx_call_str(c, "auto_pad", "NOTSET"), qx_call_int(c, "ceil_mode", 0) != 0));
        p->plane *= p->w.in[i];
        p->out_plane *= p->w.out[i];
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

static float maximum(const pool *p, const float *x, const qx_taps t[3], int64_t *arg)
{
    float m = -INFINITY;
    int64_t best = -1;
    for (int64_t a = 0; a < t[0].n; a++)
        for (int64_t b = 0; b < t[1].n; b++) {
            const int64_t row = ((t[0].lo + a * p->w.dilation[0]) * p->w.in[1] + t[1].lo + b * p->w.dilation[1]) * p->w.in[2] + t[2].lo;
            for (int64_t c = 0; c < t[2].n; c++) {
                const float v = x[row + c * p->w.dilation[2]];
                if (best >= 0 && !(v > m) && v == v) continue;
                m = v;
                best = row + c * p->w.dilation[2];
            }
        }
    if (best < 0) best = 0;
    const int64_t pos[3] = {best / (p->w.in[1] * p->w.in[2]), best / p->w.in[2] % p->w.in[1], best % p->w.in[2]};
    *arg = p->column ? (pos[2] * p->w.in[1] + pos[1]) * p->w.in[0] + pos[0] : best;
    return m;
}

static double power(double v, double p) { return p == 2 ? v * v : p == 1 ? fabs(v) : pow(fabs(v), p); }
static double root(double s, double p) { return p == 2 ? sqrt(s) : p == 1 ? s : pow(s, 1.0 / p); }

static float norm(const pool *p, const float *x, const qx_taps t[3])
{
    double s = 0;
    for (int64_t a = 0; a < t[0].n; a++)
        for (int64_t b = 0; b < t[1].n; b++) {
            const float *row = x + ((t[0].lo + a * p->w.dilation[0]) * p->w.in[1] + t[1].lo + b * p->w.dilation[1]) * p->w.in[2] + t[2].lo;
            for (int64_t c = 0; c < t[2].n; c++) s += power((double)row[c * p->w.dilation[2]], (double)p->p);
        }
    return (float)root(s, (double)p->p);
}

/* One output after the other: norms, and maxima that are asked for with their places. */
static qx_status plane_piece(void *user, int64_t plane)
{
    const pool *p = user;
    const float *x = p->x + plane * p->plane;
    int64_t at = plane * p->out_plane;
    qx_taps t[3];
    for (int64_t a = 0; a < p->w.out[0]; a++)
        for (int64_t b = 0; b < p->w.out[1]; b++)
            for (int64_t c = 0; c < p->w.out[2]; c++, at++) {
                t[0] = qx_taps_at(&p->w, 0, a);
                t[1] = qx_taps_at(&p->w, 1, b);
                t[2] = qx_taps_at(&p->w, 2, c);
                p->y[at] = p->kind == LP ? norm(p, x, t) : maximum(p, x, t, &p->arg[at]);
                if (p->arg) p->arg[at] += plane * p->plane;
            }
    return QX_OK;
}

/* Numbers of the last axis that each output is the mean of. */
static qx_status count_columns(qx_call *c, pool *p)
{
    QX_TRY(qx_call_scratch_array(c, p->w.out[2] * p->lanes + 1, sizeof *p->cols, (void **)&p->cols));
    for (int64_t i = 0; i < p->w.out[2]; i++) {
        const qx_taps t = qx_taps_at(&p->w, 2, i);
        for (int64_t l = 0; l < p->lanes; l++) p->cols[i * p->lanes + l] = (float)(p->count_pad ? t.padded : t.n);
    }
    return QX_OK;
}

enum { BAND = 4096 }; /* numbers, about */

static void band(const pool *p, int64_t at, float *scratch)
{
    const qx_windows *w = &p->w;
    const int64_t first = at % p->bands * p->band_rows, depth = at / p->bands; /* depth: of all planes */
    const qx_pool_band b = {.lanes = p->lanes, .depth = depth % w->out[0], .first = first,
                            .n = w->out[1] - first < p->band_rows ? w->out[1] - first : p->band_rows,
                            .x = p->x + depth / w->out[0] * p->plane * p->lanes, .cols = p->cols, .count_pad = p->count_pad,
                            .y = p->y + (depth * w->out[1] + first) * w->out[2] * p->lanes, .scratch = scratch};
    qx_pool_rows(w, &b);
}

static qx_status bands_piece(void *user, int64_t i)
{
    const pool *p = user;
    const int64_t end = (i + 1) * p->per_piece < p->all ? (i + 1) * p->per_piece : p->all;
    for (int64_t at = i * p->per_piece; at < end; at++) band(p, at, p->scratch + qx_thread_index() * p->per_thread);
    return QX_OK;
}

/* All planes [channels / lanes], x and y set. */
static qx_status run(qx_call *c, pool *p, int64_t planes)
{
    const qx_windows *w = &p->w;
    const int64_t row = w->in[2] * p->lanes + 1;
    if (p->kind == LP || p->arg) return qx_parallel(c->ctx, planes, plane_piece, p);
    if (planes * p->out_plane == 0) return QX_OK;
    p->band_rows = row < BAND ? BAND / row : 1;
    if (p->band_rows > w->out[1]) p->band_rows = w->out[1];
    p->bands = (w->out[1] + p->band_rows - 1) / p->band_rows;
    p->all = planes * w->out[0] * p->bands;
    p->per_piece = p->band_rows * row < BAND ? BAND / (p->band_rows * row) : 1;
    p->per_thread = qx_pool_scratch(w, p->lanes, p->band_rows);
    QX_TRY(qx_call_scratch_array(c, p->per_thread, sizeof *p->scratch * (size_t)qx_ctx_threads(c->ctx), (void **)&p->scratch));
    if (p->kind == AVERAGE) QX_TRY(count_columns(c, p));
    return qx_parallel(c->ctx, (p->all + p->per_piece - 1) / p->per_piece, bands_piece, p);
}

static void out_dims(const pool *p, const qx_tensor *x, int64_t *dims)
{
    dims[0] = x->dims[0];
    dims[1] = x->dims[1];
    for (int i = 0; i < p->spatial; i++) dims[2 + i] = p->w.out[3 - p->spatial + i];
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

/* Output i of x's type (floats rounded when the adapter returns, 8-bit codes here) from floats in scratch; maxima of codes are
 * exact in float. */
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

static float global_end(const global_job *j, double s)
{
    return (float)(j->kind == AVERAGE ? s / (double)j->n : j->kind == LP ? root(s, j->p) : s);
}

static qx_status global_piece(void *user, int64_t i)
{
    const global_job *j = user;
    const float *x = j->x + i * j->n;
    double s = 0;
    if (j->kind == AVERAGE) s = sum_of(x, j->n);
    else if (j->kind == MAX) s = (double)qx_reduce_row(QX_R_MAX, x, j->n);
    else for (int64_t k = 0; k < j->n; k++) s += power((double)x[k], j->p);
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
            else s[l] += power(v, j->p);
        }
    for (int l = 0; l < lanes; l++) y[l] = global_end(j, s[l]);
}

/* One pixel an output: the same in memory whatever its layout. */
static qx_status global_lanes_piece(void *user, int64_t i)
{
    const global_job *j = user;
    const float *x = j->x + i * j->n * j->block;
    for (int at = 0; at < j->block; at += MOST_LANES)
        global_lanes(j, x + at, j->block - at < MOST_LANES ? j->block - at : MOST_LANES, j->y + i * j->block + at);
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
