/* resize.c - Resize and Upsample, one axis after another: every mode is, per axis, a short list of weighted source positions for
 * each output position (nearest: one, linear: two, cubic: four, more with antialiasing), so the modes differ only in how the list
 * is made. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/move.h"
#include "runtime/cpu/op.h"

typedef enum mode { NEAREST, LINEAR, CUBIC } mode;
typedef enum coord { HALF_PIXEL, HALF_PIXEL_SYMMETRIC, PYTORCH_HALF_PIXEL, ALIGN_CORNERS, ASYMMETRIC, TF_CROP, TF_HALF_PIXEL } coord;

/* at, w: [out][taps] */
typedef struct axis_map { int64_t in, out; double scale; int taps; int64_t *at; float *w; bool *outside; } axis_map;

typedef struct args {
    mode mode; coord coord; const char *nearest;
    float cubic_a, extrapolation; bool exclude_outside, antialias;
    int rank; int64_t out[QX_MAX_RANK]; double scale[QX_MAX_RANK]; float roi[2 * QX_MAX_RANK];
} args;

static double source_at(const args *a, int axis, int64_t i, int64_t in, int64_t out, double scale)
{
    double length = scale * (double)in, x = (double)i;
    switch (a->coord) {
    case ALIGN_CORNERS: return length <= 1 ? 0 : x * (double)(in - 1) / (length - 1);
    case ASYMMETRIC: return x / scale;
    case PYTORCH_HALF_PIXEL: return length <= 1 ? 0 : (x + 0.5) / scale - 0.5;
    case TF_HALF_PIXEL: return (x + 0.5) / scale;
    case HALF_PIXEL_SYMMETRIC: {
        double adjust = (double)out / length, center = (double)in / 2;
        return center * (1 - adjust) + (x + 0.5) / scale - 0.5;
    }
    case TF_CROP: {
        double s = (double)a->roi[axis], e = (double)a->roi[axis + a->rank];
        return length > 1 && out > 1 ? s * (double)(in - 1) + x * (e - s) * (double)(in - 1) / (double)(out - 1)
            : 0.5 * (s + e) * (double)(in - 1);
    }
    default: return (x + 0.5) / scale - 0.5;
    }
}

static int64_t nearest_of(const char *how, double x)
{
    if (strcmp(how, "floor") == 0) return qx_f64_to_i64(floor(x));
    if (strcmp(how, "ceil") == 0) return qx_f64_to_i64(ceil(x));
    if (strcmp(how, "round_prefer_ceil") == 0) return qx_f64_to_i64(floor(x + 0.5));
    return qx_f64_to_i64(ceil(x - 0.5)); /* round_prefer_floor */
}

static double kernel(const args *a, double d)
{
    d = fabs(d);
    if (a->mode == LINEAR) return d < 1 ? 1 - d : 0;
    double A = (double)a->cubic_a;
    if (d <= 1) return ((A + 2) * d - (A + 3)) * d * d + 1;
    return d < 2 ? ((A * d - 5 * A) * d + 8 * A) * d - 4 * A : 0;
}

static int64_t clamp(int64_t v, int64_t n) { return v < 0 ? 0 : v >= n ? n - 1 : v; }

static void fill_taps(const args *a, const axis_map *m, int64_t i, double x)
{
    double stretch = a->antialias && m->scale < 1 ? m->scale : 1, sum = 0;
    int64_t first = qx_f64_to_i64(floor(x)) - m->taps / 2 + 1;
    for (int t = 0; t < m->taps; t++) {
        int64_t p = first + t;
        double w = kernel(a, ((double)p - x) * stretch);
        if (a->exclude_outside && (p < 0 || p >= m->in)) w = 0;
        m->at[i * m->taps + t] = clamp(p, m->in);
        m->w[i * m->taps + t] = (float)w;
        sum += w;
    }
    for (int t = 0; t < m->taps && sum != 0; t++) m->w[i * m->taps + t] = (float)((double)m->w[i * m->taps + t] / sum);
}

static qx_status make_map(qx_call *c, const args *a, int axis, axis_map *m)
{
    double stretch = a->antialias && m->scale < 1 ? m->scale : 1;
    double taps = a->mode == NEAREST ? 1 : ceil((a->mode == LINEAR ? 1 : 2) / stretch) * 2;
    if (!(taps <= 65536)) QX_CALL_FAIL(c, QX_E_SHAPE, "scale %g of axis %d needs %g taps", m->scale, axis, taps);
    m->taps = (int)taps;
    QX_TRY(QX_CALL_SCRATCH(c, m->out * m->taps, &m->at));
    QX_TRY(QX_CALL_SCRATCH(c, m->out * m->taps, &m->w));
    QX_TRY(QX_CALL_SCRATCH(c, m->out, &m->outside));
    for (int64_t i = 0; i < m->out; i++) {
        double x = source_at(a, axis, i, m->in, m->out, m->scale);
        m->outside[i] = a->coord == TF_CROP && (x < 0 || x > (double)(m->in - 1));
        if (a->mode == NEAREST) {
            m->at[i] = clamp(nearest_of(a->nearest, x), m->in);
            m->w[i] = 1;
        } else {
            fill_taps(a, m, i, x);
        }
    }
    return QX_OK;
}

/* ---- One axis ---- */

typedef struct job { const axis_map *m; const char *x; char *y; int64_t outer, inner; int size; bool weighted; float extrapolation; } job;

static qx_status piece(void *user, int64_t k)
{
    const job *j = user;
    const axis_map *m = j->m;
    int64_t o = k / m->out, i = k % m->out, n = j->inner;
    if (!j->weighted) {
        memcpy(j->y + k * n * j->size, j->x + (o * m->in + m->at[i]) * n * j->size, (size_t)(n * j->size));
        return QX_OK;
    }
    float *y = (float *)(void *)j->y + k * n;
    const float *x = (const float *)(const void *)j->x + o * m->in * n;
    for (int64_t q = 0; q < n; q++) y[q] = 0;
    for (int t = 0; t < m->taps; t++) {
        float w = m->w[i * m->taps + t];
        const float *s = x + m->at[i * m->taps + t] * n;
        for (int64_t q = 0; q < n; q++) y[q] += w * s[q];
    }
    return QX_OK;
}

/* Elements of size bytes by the map; 4: a float, 64: a block of channels. */
static void pick(const axis_map *m, const char *x, int64_t size, char *y)
{
    if (size == 4)
        for (int64_t i = 0; i < m->out; i++) memcpy(y + 4 * i, x + 4 * m->at[i], 4);
    else if (size == 64)
        for (int64_t i = 0; i < m->out; i++) memcpy(y + 64 * i, x + 64 * m->at[i], 64);
    else if (size == 1)
        for (int64_t i = 0; i < m->out; i++) y[i] = x[m->at[i]];
    else
        for (int64_t i = 0; i < m->out; i++) memcpy(y + i * size, x + m->at[i] * size, (size_t)size);
}

/* The innermost axis: rows are gathered whole, a call an output element would be too many. */
static qx_status piece_last(void *user, int64_t o)
{
    const job *j = user;
    const axis_map *m = j->m;
    if (!j->weighted) {
        pick(m, j->x + o * m->in * j->size, j->size, j->y + o * m->out * j->size);
        return QX_OK;
    }
    for (int64_t i = 0; i < m->out; i++) {
        const float *x = (const float *)(const void *)j->x + o * m->in;
        float acc = 0;
        for (int t = 0; t < m->taps; t++) acc += m->w[i * m->taps + t] * x[m->at[i * m->taps + t]];
        ((float *)(void *)j->y)[o * m->out + i] = acc;
    }
    return QX_OK;
}

/* Few elements to a position: a row a piece. */
static qx_status piece_row(void *user, int64_t o)
{
    const job *j = user;
    qx_status st = QX_OK;
    for (int64_t i = 0; i < j->m->out && st == QX_OK; i++) st = piece(user, o * j->m->out + i);
    return st;
}

static qx_status run_axis(qx_call *c, const job *j)
{
    if (j->inner > 1 && j->inner <= 64) return qx_parallel(c->ctx, j->outer, piece_row, (void *)(uintptr_t)j);
    if (j->inner == 1) return qx_parallel(c->ctx, j->outer, piece_last, (void *)(uintptr_t)j);
    return qx_parallel(c->ctx, j->outer * j->m->out, piece, (void *)(uintptr_t)j);
}

/* Where any axis reads outside of the picture (tf_crop_and_resize) the value is given. */
static void extrapolate(const args *a, const axis_map *maps, float *y, int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        int64_t rest = k;
        bool outside = false;
        for (int i = a->rank - 1; i >= 0; i--) {
            int64_t at = rest % a->out[i];
            outside = outside || (maps[i].outside && maps[i].outside[at]);
            rest /= a->out[i];
        }
        if (outside) y[k] = a->extrapolation;
    }
}

/* ---- Rows and columns at once, of the nearest pixels ---- */

typedef struct nearest { const axis_map *rows, *columns; const char *x; char *y; int64_t size; } nearest;

/* The first of the output rows that are one input row fills the others too. */
static qx_status piece_rows(void *user, int64_t k)
{
    const nearest *j = user;
    const int64_t o = k / j->rows->out, i = k % j->rows->out, from = j->rows->at[i], bytes = j->columns->out * j->size;
    if (i && j->rows->at[i - 1] == from) return QX_OK;
    char *y = j->y + k * bytes;
    pick(j->columns, j->x + (o * j->rows->in + from) * j->columns->in * j->size, j->size, y);
    for (int64_t n = 1; i + n < j->rows->out && j->rows->at[i + n] == from; n++) memcpy(y + n * bytes, y, (size_t)bytes);
    return QX_OK;
}

/* The first of two axes side by side that are all that is resized; -1: others are. */
static int both_axes(const args *a, const int64_t *in)
{
    int first = -1, n = 0;
    for (int i = 0; i < a->rank; i++) {
        if (a->out[i] == in[i] && a->scale[i] == 1) continue;
        if (first >= 0 && i != first + 1) return -1;
        if (first < 0) first = i;
        n++;
    }
    return n == 2 && a->mode == NEAREST && a->coord != TF_CROP ? first : -1;
}

static qx_status run_nearest(qx_call *c, const args *a, const int64_t *in, int axis, const nearest *given)
{
    axis_map maps[2] = {{0}};
    nearest j = *given;
    for (int i = 0; i < 2; i++) {
        maps[i] = (axis_map){.in = in[axis + i], .out = a->out[axis + i], .scale = a->scale[axis + i]};
        QX_TRY(make_map(c, a, axis + i, &maps[i]));
    }
    j.rows = &maps[0];
    j.columns = &maps[1];
    j.size *= qx_prod(in, axis + 2, a->rank);
    return qx_parallel(c->ctx, qx_prod(in, 0, axis) * maps[0].out, piece_rows, &j);
}

/* ---- One axis after the other ---- */

static qx_status run(qx_call *c, const args *a, const qx_tensor *x, const void *data, int size, void *out)
{
    const int both = both_axes(a, x->dims);
    if (both >= 0) return run_nearest(c, a, x->dims, both, &(nearest){.x = data, .y = out, .size = size});
    axis_map maps[QX_MAX_RANK];
    int64_t dims[QX_MAX_RANK], numel = x->numel;
    const void *cur = data;
    int left = 0;
    memset(maps, 0, sizeof maps);
    memcpy(dims, x->dims, sizeof dims);
    bool crop = a->coord == TF_CROP;
    for (int i = 0; i < a->rank; i++) left += a->out[i] != dims[i] || a->scale[i] != 1 || crop;
    if (left == 0 && numel) memcpy(out, data, (size_t)numel * (size_t)size);
    for (int i = a->rank - 1; i >= 0; i--) { /* last axis first: the picture is smallest then when it grows */
        if (a->out[i] == dims[i] && a->scale[i] == 1 && !crop) continue;
        maps[i] = (axis_map){.in = dims[i], .out = a->out[i], .scale = a->scale[i]};
        QX_TRY(make_map(c, a, i, &maps[i]));
        job j = {&maps[i], cur, NULL, qx_prod(dims, 0, i), qx_prod(dims, i + 1, a->rank), size, a->mode != NEAREST, 0};
        dims[i] = a->out[i];
        void *to = out;
        if (--left > 0) QX_TRY(qx_call_scratch_array(c, qx_prod(dims, 0, a->rank), (size_t)size, &to));
        j.y = to;
        QX_TRY(run_axis(c, &j));
        cur = to;
    }
    if (crop && size == 4) extrapolate(a, maps, out, qx_prod(a->out, 0, a->rank));
    return QX_OK;
}

/* A picture with channels side by side, as [N, C / block, H, W, block]; rows and columns only. */
static qx_status run_blocked(qx_call *c, const args *a, const qx_tensor *x, int block)
{
    qx_tensor *y = NULL, v = *x;
    args wide = *a;
    if (a->out[0] != x->dims[0] || a->out[1] != x->dims[1])
        QX_CALL_FAIL(c, QX_E_SHAPE, "batch and channels are resized, the model declares that they stay");
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, a->out, &y));
    v.rank = wide.rank = 5;
    v.dims[1] = wide.out[1] = x->dims[1] / block;
    v.dims[4] = wide.out[4] = block;
    wide.scale[0] = wide.scale[1] = wide.scale[4] = 1;
    return y->numel && x->numel ? run(c, &wide, &v, x->data, qx_dtype_bits(x->dtype) / 8, y->data) : QX_OK;
}

/* ---- Arguments ---- */

static coord coord_of(const char *s)
{
    static const struct { const char *name; coord c; } names[] = {
        {"half_pixel", HALF_PIXEL}, {"half_pixel_symmetric", HALF_PIXEL_SYMMETRIC}, {"pytorch_half_pixel", PYTORCH_HALF_PIXEL},
        {"align_corners", ALIGN_CORNERS}, {"asymmetric", ASYMMETRIC}, {"tf_crop_and_resize", TF_CROP},
            {"tf_half_pixel_for_nn", TF_HALF_PIXEL}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, s) == 0) return names[i].c;
    return HALF_PIXEL;
}

/* keep_aspect_ratio_policy: one scale for all resized axes, sizes rounded from it. */
static void keep_aspect(const char *policy, const qx_tensor *x, const bool *used, args *a)
{
    bool larger = strcmp(policy, "not_smaller") == 0;
    double scale = larger ? 0 : INFINITY;
    if (strcmp(policy, "stretch") == 0) return;
    for (int i = 0; i < a->rank; i++)
        if (used[i]) scale = larger ? fmax(scale, a->scale[i]) : fmin(scale, a->scale[i]);
    for (int i = 0; i < a->rank; i++)
        if (used[i]) {
            a->scale[i] = scale;
            a->out[i] = qx_f64_to_i64(floor(scale * (double)x->dims[i] + 0.5));
        }
}

static qx_status scales_and_sizes(qx_call *c, const qx_tensor *x, uint32_t i_scales, uint32_t i_sizes, args *a)
{
    const qx_tensor *ts = qx_call_in(c, i_scales), *tz = i_sizes ? qx_call_in(c, i_sizes) : NULL;
    int64_t n_axes, n_sizes = 0, n_floats = 0;
    const int64_t *axes = qx_call_ints(c, "axes", &n_axes), *sizes = NULL;
    const float *scales = NULL;
    bool used[QX_MAX_RANK] = {false};
    if (ts && ts->numel) {
        QX_TRY(qx_call_in_f32(c, i_scales, &scales));
        n_floats = ts->numel;
    } else if (tz && tz->numel) {
        QX_TRY(qx_call_in_i64(c, i_sizes, &sizes, &n_sizes));
    } else {
        scales = qx_call_floats(c, "scales", &n_floats);
    }
    int64_t n = axes ? n_axes : x->rank;
    if ((scales ? n_floats : n_sizes) != n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld scales and %lld sizes for %lld axes", (long long)n_floats, (long long)n_sizes, (long long)n);
    for (int64_t k = 0; k < n; k++) {
        int i;
        QX_TRY(qx_call_axis(c, axes ? axes[k] : k, x->rank, &i));
        double scale = scales ? (double)scales[k] : x->dims[i] ? (double)sizes[k] / (double)x->dims[i] : 1;
        double out = scales ? floor(scale * (double)x->dims[i]) : (double)sizes[k];
        if (!(scale > 0) || !(out >= 0) || out > 1e12 || (out > 0 && !x->dims[i]))
            QX_CALL_FAIL(c, QX_E_SHAPE, "axis %d of %lld is scaled by %g", i, (long long)x->dims[i], scale);
        used[i] = true;
        a->scale[i] = scale;
        a->out[i] = (int64_t)out;
    }
    if (sizes) keep_aspect(qx_call_str(c, "keep_aspect_ratio_policy", "stretch"), x, used, a);
    const qx_tensor *roi = c->version >= 11 ? qx_call_in(c, 1) : NULL;
    if (roi && roi->numel == 2 * n && a->coord == TF_CROP) {
        const float *r;
        QX_TRY(qx_call_in_f32(c, 1, &r));
        for (int64_t k = 0; k < n; k++) {
            int i;
            QX_TRY(qx_call_axis(c, axes ? axes[k] : k, x->rank, &i));
            a->roi[i] = r[k];
            a->roi[i + a->rank] = r[k + n];
        }
    }
    return QX_OK;
}

qx_status qx_cpu_resize(qx_call *c)
{
    const qx_tensor *x;
    const char *m = qx_call_str(c, "mode", "nearest");
    bool old = c->version < 11 || c->node->op->id == QX_OP_Upsample;
    QX_TRY(qx_call_need(c, 0, &x));
    args a = {.rank = x->rank, .mode = *m == 'n' ? NEAREST : *m == 'c' ? CUBIC : LINEAR,
              .nearest = qx_call_str(c, "nearest_mode", old ? "floor" : "round_prefer_floor"),
              .coord = coord_of(qx_call_str(c, "coordinate_transformation_mode", old ? "asymmetric" : "half_pixel")),
              .cubic_a = qx_call_float(c, "cubic_coeff_a", -0.75f), .extrapolation = qx_call_float(c, "extrapolation_value", 0.0f),
              .exclude_outside = qx_call_int(c, "exclude_outside", 0) != 0, .antialias = qx_call_int(c, "antialias", 0) != 0};
    for (int i = 0; i < x->rank; i++) {
        a.out[i] = x->dims[i];
        a.scale[i] = 1;
        a.roi[i + x->rank] = 1;
    }
    QX_TRY(scales_and_sizes(c, x, old ? 1 : 2, old ? 0 : 3, &a));
    if (qx_call_out_block(c, 0)) return run_blocked(c, &a, x, qx_call_out_block(c, 0));
    if (a.mode == NEAREST && a.coord != TF_CROP && qx_dtype_bits(x->dtype) >= 8) {
        qx_tensor *y = NULL;
        QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, a.out, &y));
        return y->numel && x->numel ? run(c, &a, x, x->data, qx_dtype_bits(x->dtype) / 8, y->data) : QX_OK;
    }
    const float *f;
    float *y = NULL;
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, a.out, &y));
    return qx_prod(a.out, 0, x->rank) && x->numel ? run(c, &a, x, f, sizeof *y, y) : QX_OK;
}
