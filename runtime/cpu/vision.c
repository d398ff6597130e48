/* vision.c - operators of detection and sampling networks: NonMaxSuppression, RoiAlign, MaxRoiPool, GridSample, AffineGrid,
 * Col2Im, CenterCropPad, DeformConv, MaxUnpool. Plain loops in float, formulas as in the standard. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "runtime/cpu/op.h"

static qx_status need_rank(qx_call *c, uint32_t i, int rank, const qx_tensor **t)
{
    QX_TRY(qx_call_need(c, i, t));
    if ((*t)->rank == rank) return QX_OK;
    QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has rank %d, expected %d", i, (*t)->rank, rank);
}

/* ---- NonMaxSuppression ---- */

typedef struct box { float y1, x1, y2, x2, area; } box;

static box box_at(const float *p, bool center)
{
    box b = {p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2, 0};
    if (!center) b = (box){fminf(p[0], p[2]), fminf(p[1], p[3]), fmaxf(p[0], p[2]), fmaxf(p[1], p[3]), 0};
    b.area = (b.y2 - b.y1) * (b.x2 - b.x1);
    return b;
}

static float overlap(const box *a, const box *b)
{
    const float h = fminf(a->y2, b->y2) - fmaxf(a->y1, b->y1), w = fminf(a->x2, b->x2) - fmaxf(a->x1, b->x1);
    const float inter = h > 0 && w > 0 ? h * w : 0, sum = a->area + b->area - inter;
    return sum > 0 ? inter / sum : 0;
}

typedef struct candidate { float score; int64_t index; } candidate;
typedef struct nms {
    const float *scores; /* [batches][classes][n] */
    box *boxes;          /* [batches][n] */
    int64_t classes, n, most;
    float iou, score;
    bool has_score;
    candidate *order;    /* [threads][n] */
    int64_t *picked;     /* [batches][classes][most], of which count[batch][class] are used */
    int64_t *count;
} nms;

/* Best score first, of equal ones the lower index. */
static int by_score(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score > y->score || x->score < y->score) return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Greedy selection of one class. NaN counts as the lowest score. */
static qx_status nms_class(void *user, int64_t at)
{
    const nms *k = user;
    const float *scores = k->scores + at * k->n;
    const box *boxes = k->boxes + at / k->classes * k->n;
    candidate *order = k->order + qx_thread_index() * k->n;
    int64_t *picked = k->picked + at * k->most, n = 0, count = 0;
    for (int64_t i = 0; i < k->n; i++)
        if (!k->has_score || scores[i] > k->score) order[n++] = (candidate){scores[i] == scores[i] ? scores[i] : -INFINITY, i};
    qsort(order, (size_t)n, sizeof *order, by_score);
    for (int64_t i = 0; i < n && count < k->most; i++) {
        bool keep = true;
        for (int64_t j = 0; keep && j < count; j++) keep = overlap(&boxes[order[i].index], &boxes[picked[j]]) <= k->iou;
        if (keep) picked[count++] = order[i].index;
    }
    k->count[at] = count;
    return QX_OK;
}

static qx_status nms_read(qx_call *c, nms *k, int64_t *batches)
{
    const qx_tensor *b, *s;
    const float *boxes;
    double iou, score;
    const bool center = qx_call_int(c, "center_point_box", 0) != 0;
    QX_TRY(need_rank(c, 0, 3, &b));
    QX_TRY(need_rank(c, 1, 3, &s));
    if (b->dims[2] != 4 || b->dims[0] != s->dims[0] || b->dims[1] != s->dims[2]) QX_CALL_FAIL(c, QX_E_SHAPE, "boxes and scores do not fit");
    QX_TRY(qx_call_in_f32(c, 0, &boxes));
    QX_TRY(qx_call_in_f32(c, 1, &k->scores));
    QX_TRY(qx_call_scalar_i64(c, 2, 0, &k->most));
    QX_TRY(qx_call_scalar_f64(c, 3, 0, &iou));
    QX_TRY(qx_call_scalar_f64(c, 4, 0, &score));
    *k = (nms){.scores = k->scores, .classes = s->dims[1], .n = b->dims[1], .most = k->most, .iou = (float)iou, .score = (float)score,
               .has_score = qx_call_in(c, 4) != NULL};
    *batches = b->dims[0];
    k->most = k->most < 0 ? 0 : k->most > k->n ? k->n : k->most;
    QX_TRY(QX_CALL_SCRATCH(c, *batches * k->n + 1, &k->boxes));
    for (int64_t i = 0; i < *batches * k->n; i++) k->boxes[i] = box_at(boxes + 4 * i, center);
    QX_TRY(QX_CALL_SCRATCH(c, qx_ctx_threads(c->ctx) * k->n + 1, &k->order));
    QX_TRY(QX_CALL_SCRATCH(c, *batches * k->classes * k->most + 1, &k->picked));
    return QX_CALL_SCRATCH(c, *batches * k->classes + 1, &k->count);
}

qx_status qx_cpu_nms(qx_call *c)
{
    nms k;
    int64_t batches, rows = 0;
    qx_tensor *y;
    QX_TRY(nms_read(c, &k, &batches));
    const int64_t lists = batches * k.classes;
    QX_TRY(qx_parallel(c->ctx, lists, nms_class, &k));
    for (int64_t i = 0; i < lists; i++) rows += k.count[i];
    QX_TRY(qx_call_out(c, 0, QX_DT_INT64, 2, (int64_t[]){rows, 3}, &y));
    int64_t (*row)[3] = y->data;
    for (int64_t i = 0; i < lists; i++)
        for (int64_t j = 0; j < k.count[i]; j++, row++)
            (*row)[0] = i / k.classes, (*row)[1] = i % k.classes, (*row)[2] = k.picked[i * k.most + j];
    return QX_OK;
}

/* ---- Bilinear reading ---- */

static float pixel(const float *x, int64_t h, int64_t w, int64_t i, int64_t j)
{
    return i >= 0 && i < h && j >= 0 && j < w ? x[i * w + j] : 0;
}

static float bilinear_zero(const float *x, int64_t h, int64_t w, float fy, float fx)
{
    if (!(fy > -1 && fx > -1 && fy < (float)h && fx < (float)w)) return 0;
    const int64_t i = (int64_t)floorf(fy), j = (int64_t)floorf(fx);
    const float a = fy - (float)i, b = fx - (float)j;
    return (1 - a) * ((1 - b) * pixel(x, h, w, i, j) + b * pixel(x, h, w, i, j + 1)) + a * ((1 - b) * pixel(x, h, w, i + 1,
        j) + b * pixel(x, h, w, i + 1, j + 1));
}

/* ---- RoiAlign, MaxRoiPool ---- */

typedef struct roi { const float *x; int64_t h, w, oh, ow, ratio; float scale, offset; bool max; } roi;

/* Where one sample falls on an axis: between lo and hi, at `part` from lo; out: outside of the picture. */
typedef struct roi_tap { int64_t lo, hi; float part; bool out; } roi_tap;

/* The samples of n bins of `grid` samples each. */
static void taps_of(float start, float bin, int64_t n, int64_t grid, int64_t len, roi_tap *t)
{
    for (int64_t i = 0; i < n * grid; i++) {
        float f = start + (float)(i / grid) * bin;
        f = f + ((float)(i % grid) + 0.5f) * bin / (float)grid;
        t[i].out = f < -1 || f > (float)len;
        f = fminf(fmaxf(f, 0), (float)(len - 1));
        t[i].lo = (int64_t)f;
        t[i].hi = t[i].lo + 1 < len ? t[i].lo + 1 : t[i].lo;
        t[i].part = f - (float)t[i].lo;
    }
}

static float roi_bin(const roi *k, const roi_tap *ty, int64_t gh, const roi_tap *tx, int64_t gw)
{
    float best = -FLT_MAX, sum = 0;
    for (int64_t iy = 0; iy < gh; iy++) {
        const float a = ty[iy].part, *top = k->x + ty[iy].lo * k->w, *low = k->x + ty[iy].hi * k->w;
        for (int64_t ix = 0; ix < gw; ix++) {
            if (ty[iy].out || tx[ix].out) {
                best = fmaxf(best, 0);
                continue;
            }
            const float b = tx[ix].part, v00 = (1 - a) * (1 - b) * top[tx[ix].lo], v01 = (1 - a) * b * top[tx[ix].hi];
            const float v10 = a * (1 - b) * low[tx[ix].lo], v11 = a * b * low[tx[ix].hi];
            sum += v00 + v01 + v10 + v11;
            if (k->max) best = fmaxf(best, fmaxf(fmaxf(v00, v01), fmaxf(v10, v11)));
        }
    }
    return k->max ? best : sum / (float)(gh * gw > 0 ? gh * gw : 1);
}

/* One region in all channels: its samples lie at the same places in each. */
static qx_status roi_one(qx_ctx *ctx, const roi *shared, const float *r, int64_t channels, float *y)
{
    roi k = *shared;
    const float x0 = r[0] * k.scale - k.offset, y0 = r[1] * k.scale - k.offset;
    float w = r[2] * k.scale - k.offset - x0, h = r[3] * k.scale - k.offset - y0;
    if (k.offset == 0) {
        w = fmaxf(w, 1);
        h = fmaxf(h, 1);
    }
    const float bh = h / (float)k.oh, bw = w / (float)k.ow;
    if (!(fabsf(bh) < 1e6f && fabsf(bw) < 1e6f)) QX_FAIL(ctx, QX_E_SHAPE, "a region of %g by %g", (double)w, (double)h);
    const int64_t gh = k.ratio > 0 ? k.ratio : bh > 0 ? (int64_t)ceilf(bh) : 0,
        gw = k.ratio > 0 ? k.ratio : bw > 0 ? (int64_t)ceilf(bw) : 0;
    roi_tap *t;
    QX_TRY(QX_NEW_ARRAY(ctx, k.oh * gh + k.ow * gw + 1, &t));
    roi_tap *tx = t + k.oh * gh;
    taps_of(y0, bh, k.oh, gh, k.h, t);
    taps_of(x0, bw, k.ow, gw, k.w, tx);
    for (int64_t ch = 0; ch < channels; ch++, k.x += k.h * k.w)
        for (int64_t i = 0; i < k.oh; i++)
            for (int64_t j = 0; j < k.ow; j++) *y++ = roi_bin(&k, t + i * gh, gh, tx + j * gw, gw);
    qx_free(ctx, t);
    return QX_OK;
}

typedef struct roi_job { qx_ctx *ctx; roi k; const float *x, *rois; const int64_t *batch; int64_t channels; float *y; } roi_job;

static qx_status roi_piece(void *user, int64_t i)
{
    const roi_job *j = user;
    roi k = j->k;
    k.x = j->x + j->batch[i] * j->channels * k.h * k.w;
    return roi_one(j->ctx, &k, j->rois + 4 * i, j->channels, j->y + i * j->channels * k.oh * k.ow);
}

qx_status qx_cpu_roi_align(qx_call *c)
{
    const qx_tensor *x, *r, *bi;
    roi_job j = {.ctx = c->ctx};
    int64_t n_batch;
    QX_TRY(need_rank(c, 0, 4, &x));
    QX_TRY(need_rank(c, 1, 2, &r));
    QX_TRY(need_rank(c, 2, 1, &bi));
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_in_f32(c, 1, &j.rois));
    QX_TRY(qx_call_in_i64(c, 2, &j.batch, &n_batch));
    const bool half = !strcmp(qx_call_str(c, "coordinate_transformation_mode", c->version >= 16 ? "half_pixel" : "output_half_pixel"),
                              "half_pixel");
    j.k = (roi){.h = x->dims[2], .w = x->dims[3], .oh = qx_call_int(c, "output_height", 1), .ow = qx_call_int(c, "output_width", 1),
                .ratio = qx_call_int(c, "sampling_ratio", 0),
                .scale = qx_call_float(c, "spatial_scale", 1), .offset = half ? 0.5f : 0,
                    .max = !strcmp(qx_call_str(c, "mode", "avg"), "max")};
    j.channels = x->dims[1];
    if (r->dims[1] != 4 || n_batch != r->dims[0] || j.k.oh <= 0 || j.k.ow <= 0 || j.k.ratio < 0 || j.k.ratio > 1024)
        QX_CALL_FAIL(c, QX_E_SHAPE, "rois, batch_indices or output size do not fit");
    for (int64_t i = 0; i < n_batch; i++)
        if (j.batch[i] < 0 || j.batch[i] >= x->dims[0])
            QX_CALL_FAIL(c, QX_E_SHAPE, "batch index %lld of %lld", (long long)j.batch[i], (long long)x->dims[0]);
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, (int64_t[]){r->dims[0], x->dims[1], j.k.oh, j.k.ow}, &j.y));
    if (j.k.h == 0 || j.k.w == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "a picture of %lld x %lld", (long long)j.k.h, (long long)j.k.w);
    return qx_parallel(c->ctx, n_batch, roi_piece, &j);
}

/* Of the picture or far beyond its edges. */
static int64_t pixel_of(float at) { return qx_f64_to_i64((double)roundf(fmaxf(fminf(at, 0x1p31f), -0x1p31f))); }

static void max_roi_one(const roi *k, const float *r, float *y)
{
    const int64_t x0 = pixel_of(r[0] * k->scale), y0 = pixel_of(r[1] * k->scale), x1 = pixel_of(r[2] * k->scale),
        y1 = pixel_of(r[3] * k->scale);
    const float bh = (float)(y1 - y0 + 1 > 1 ? y1 - y0 + 1 : 1) / (float)k->oh,
        bw = (float)(x1 - x0 + 1 > 1 ? x1 - x0 + 1 : 1) / (float)k->ow;
    for (int64_t i = 0; i < k->oh; i++)
        for (int64_t j = 0; j < k->ow; j++) {
            int64_t hs = y0 + (int64_t)floorf((float)i * bh), he = y0 + (int64_t)ceilf((float)(i + 1) * bh),
                ws = x0 + (int64_t)floorf((float)j * bw), we = x0 + (int64_t)ceilf((float)(j + 1) * bw);
            hs = hs < 0 ? 0 : hs > k->h ? k->h : hs;
            he = he < 0 ? 0 : he > k->h ? k->h : he;
            ws = ws < 0 ? 0 : ws > k->w ? k->w : ws;
            we = we < 0 ? 0 : we > k->w ? k->w : we;
            float best = he <= hs || we <= ws ? 0 : -FLT_MAX;
            for (int64_t a = hs; a < he; a++)
                for (int64_t b = ws; b < we; b++) best = fmaxf(best, k->x[a * k->w + b]);
            y[i * k->ow + j] = best;
        }
}

qx_status qx_cpu_max_roi_pool(qx_call *c)
{
    const qx_tensor *x, *r;
    const float *xf, *rf;
    int64_t n;
    float *y;
    const int64_t *shape = qx_call_ints(c, "pooled_shape", &n);
    QX_TRY(need_rank(c, 0, 4, &x));
    QX_TRY(need_rank(c, 1, 2, &r));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_in_f32(c, 1, &rf));
    if (n != 2 || shape[0] <= 0 || shape[1] <= 0 || r->dims[1] != 5) QX_CALL_FAIL(c, QX_E_SHAPE, "pooled_shape or rois do not fit");
    roi k = {.h = x->dims[2], .w = x->dims[3], .oh = shape[0], .ow = shape[1], .scale = qx_call_float(c, "spatial_scale", 1)};
    const int64_t dims[4] = {r->dims[0], x->dims[1], k.oh, k.ow};
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, dims, &y));
    for (int64_t i = 0; i < dims[0]; i++)
        for (int64_t ch = 0; ch < dims[1]; ch++) {
            const float b = rf[5 * i];
            if (!(b >= 0 && b < (float)x->dims[0])) QX_CALL_FAIL(c, QX_E_SHAPE, "batch index %g of %lld", (double)b, (long long)x->dims[0]);
            k.x = xf + ((int64_t)b * dims[1] + ch) * k.h * k.w;
            max_roi_one(&k, rf + 5 * i + 1, y + (i * dims[1] + ch) * k.oh * k.ow);
        }
    return QX_OK;
}

/* ---- GridSample (2 and 3 spatial dims) ---- */

enum { PAD_ZEROS, PAD_BORDER, PAD_REFLECT };
typedef struct sampler { int nd; int64_t dims[3]; int pad; bool align; } sampler;

static float reflect(float v, float low, float high)
{
    const float span = high - low;
    if (span <= 0) return 0;
    if (fabsf(v - low) > 4 * span) v = low + fmodf(v - low, 2 * span); /* the picture and its mirror image repeat */
    while (v < low || v > high) v = v < low ? 2 * low - v : 2 * high - v;
    return v;
}

/* An output is a sum of weighted pixels, the same ones in every channel. */
enum { MOST_TAPS = 64, POINTS = 64 };
typedef struct grid_tap { int64_t at; float w; } grid_tap;

/* Adds the pixel at an integer position, after padding rules; one outside is 0 and left out. */
static int add_tap(const sampler *s, const int64_t *at, float w, grid_tap *out, int n)
{
    int64_t flat = 0;
    for (int d = 0; d < s->nd; d++) {
        int64_t p = at[d];
        const int64_t len = s->dims[d];
        if (s->pad == PAD_BORDER) p = p < 0 ? 0 : p >= len ? len - 1 : p;
        else if (s->pad == PAD_REFLECT)
            p = qx_f64_to_i64((double)reflect((float)p, s->align ? 0 : -0.5f, s->align ? (float)(len - 1) : (float)len - 0.5f));
        if (p < 0 || p >= len) return n;
        flat = flat * len + p;
    }
    out[n] = (grid_tap){flat, w};
    return n + 1;
}

static int nearest_taps(const sampler *s, const float *at, grid_tap *out)
{
    int64_t p[3];
    for (int d = 0; d < s->nd; d++) p[d] = qx_f64_to_i64((double)nearbyintf(at[d]));
    return add_tap(s, p, 1, out, 0);
}

static int linear_taps(const sampler *s, const float *at, grid_tap *out)
{
    int n = 0;
    for (int corner = 0; corner < 1 << s->nd; corner++) {
        int64_t p[3];
        float w = 1;
        for (int d = 0; d < s->nd; d++) {
            const float f = floorf(at[d]);
            const int up = corner >> d & 1;
            p[d] = qx_f64_to_i64((double)f) + up;
            w *= up ? at[d] - f : 1 - (at[d] - f);
        }
        if (w != 0) n = add_tap(s, p, w, out, n);
    }
    return n;
}

static void cubic_weights(float t, float w[4])
{
    const float a = -0.75f, u = 1 - t;
    w[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    w[2] = ((a + 2) * u - (a + 3)) * u * u + 1;
    w[3] = ((a * (u + 1) - 5 * a) * (u + 1) + 8 * a) * (u + 1) - 4 * a;
}

static int cubic_taps(const sampler *s, const float *at, grid_tap *out)
{
    float w[3][4] = {{0}};
    int64_t base[3] = {0}, all = 1;
    int n = 0;
    for (int d = 0; d < s->nd; d++) {
        base[d] = qx_f64_to_i64((double)floorf(at[d])) - 1;
        cubic_weights(at[d] - floorf(at[d]), w[d]);
        all *= 4;
    }
    for (int64_t i = 0; i < all; i++) {
        int64_t p[3], rest = i;
        float f = 1;
        for (int d = s->nd - 1; d >= 0; d--, rest /= 4) {
            p[d] = base[d] + rest % 4;
            f *= w[d][rest % 4];
        }
        n = add_tap(s, p, f, out, n);
    }
    return n;
}

typedef int taps_fn(const sampler *s, const float *at, grid_tap *out);
typedef struct grid_job { sampler s; taps_fn *fn; const float *x, *grid; float *y; int64_t channels, pixels, points, blocks; } grid_job;

/* Where the point of the grid lies, in pixels; the grid lists x first. */
static void grid_place(const grid_job *j, const float *point, float at[3])
{
    const sampler *s = &j->s;
    for (int d = 0; d < s->nd; d++) {
        const float v = point[s->nd - 1 - d], len = (float)s->dims[d];
        at[d] = s->align ? (v + 1) / 2 * (len - 1) : ((v + 1) * len - 1) / 2;
        if (s->pad == PAD_BORDER && j->fn != cubic_taps) at[d] = fminf(fmaxf(at[d], 0), len - 1);
        if (s->pad == PAD_REFLECT) at[d] = reflect(at[d], s->align ? 0 : -0.5f, s->align ? len - 1 : len - 0.5f);
        if (!(fabsf(at[d]) < 1e9f)) at[d] = -1e9f;
    }
}

/* A block of points of one picture, in all channels. */
static qx_status grid_piece(void *user, int64_t i)
{
    const grid_job *j = user;
    const int64_t n = i / j->blocks, first = i % j->blocks * POINTS, count = j->points - first < POINTS ? j->points - first : POINTS;
    grid_tap taps[POINTS][MOST_TAPS];
    int n_taps[POINTS];
    for (int64_t p = 0; p < count; p++) {
        float at[3];
        grid_place(j, j->grid + (n * j->points + first + p) * j->s.nd, at);
        n_taps[p] = j->fn(&j->s, at, taps[p]);
    }
    for (int64_t ch = n * j->channels; ch < (n + 1) * j->channels; ch++)
        for (int64_t p = 0; p < count; p++) {
            const float *x = j->x + ch * j->pixels;
            float sum = 0;
            for (int t = 0; t < n_taps[p]; t++) sum += taps[p][t].w * x[taps[p][t].at];
            j->y[ch * j->points + first + p] = sum;
        }
    return QX_OK;
}

qx_status qx_cpu_grid_sample(qx_call *c)
{
    const qx_tensor *x, *g;
    grid_job j = {0};
    int64_t dims[5];
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &g));
    const char *mode = qx_call_str(c, "mode", "linear"), *pad = qx_call_str(c, "padding_mode", "zeros");
    j.s = (sampler){.nd = x->rank - 2, .pad = !strcmp(pad, "border") ? PAD_BORDER : !strcmp(pad, "reflection") ? PAD_REFLECT : PAD_ZEROS,
                    .align = qx_call_int(c, "align_corners", 0) != 0};
    j.fn = !strcmp(mode, "nearest") ? nearest_taps : strstr(mode, "cubic") ? cubic_taps : linear_taps;
    if (j.s.nd < 1 || j.s.nd > 3 || g->rank != x->rank || g->dims[g->rank - 1] != j.s.nd || g->dims[0] != x->dims[0])
        QX_CALL_FAIL(c, QX_E_SHAPE, "X of rank %d, grid of rank %d", x->rank, g->rank);
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_in_f32(c, 1, &j.grid));
    dims[0] = x->dims[0];
    dims[1] = j.channels = x->dims[1];
    for (int d = 0; d < j.s.nd; d++) {
        j.s.dims[d] = x->dims[2 + d];
        dims[2 + d] = g->dims[1 + d];
    }
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &j.y));
    j.points = qx_prod(dims, 2, x->rank);
    j.pixels = qx_prod(x->dims, 2, x->rank);
    j.blocks = (j.points + POINTS - 1) / POINTS;
    return qx_parallel(c->ctx, dims[0] * j.blocks, grid_piece, &j);
}

/* ---- AffineGrid ---- */

qx_status qx_cpu_affine_grid(qx_call *c)
{
    const qx_tensor *theta;
    const float *tf;
    const int64_t *size;
    int64_t n_size, dims[5];
    float *y;
    QX_TRY(need_rank(c, 0, 3, &theta));
    QX_TRY(qx_call_in_f32(c, 0, &tf));
    QX_TRY(qx_call_in_i64(c, 1, &size, &n_size));
    const bool align = qx_call_int(c, "align_corners", 0) != 0;
    const int nd = (int)n_size - 2;
    if (nd < 2 || nd > 3 || theta->dims[1] != nd || theta->dims[2] != nd + 1 || theta->dims[0] != size[0])
        QX_CALL_FAIL(c, QX_E_SHAPE, "theta does not fit a size of %lld dims", (long long)n_size);
    dims[0] = size[0];
    for (int d = 0; d < nd; d++) dims[1 + d] = size[2 + d];
    dims[1 + nd] = nd;
    QX_TRY(qx_call_out_f32(c, 0, theta->dtype, nd + 2, dims, &y));
    const int64_t points = qx_prod(dims, 1, nd + 1);
    for (int64_t n = 0; n < dims[0]; n++)
        for (int64_t p = 0; p < points; p++) {
            float at[4];
            int64_t rest = p;
            for (int d = nd - 1; d >= 0; d--) { /* at[0] is x: the last dim */
                const int64_t len = dims[1 + d], i = rest % len;
                rest /= len;
                at[nd - 1 - d] = align ? (len > 1 ? -1 + 2 * (float)i / (float)(len - 1) : 0) : -1 + (2 * (float)i + 1) / (float)len;
            }
            at[nd] = 1;
            for (int r = 0; r < nd; r++) {
                float s = 0;
                for (int k = 0; k <= nd; k++) s += tf[(n * nd + r) * (nd + 1) + k] * at[k];
                y[(n * points + p) * nd + r] = s;
            }
        }
    return QX_OK;
}

/* ---- Col2Im ---- */

qx_status qx_cpu_col2im(qx_call *c)
{
    const qx_tensor *x;
    const float *xf;
    const int64_t *image, *block, *stride, *dil, *pads;
    int64_t n_image, n_block, ns, nd, np, dims[QX_MAX_RANK], steps[QX_MAX_RANK], kernel = 1, total = 1, pixels = 1;
    float *y;
    QX_TRY(need_rank(c, 0, 3, &x));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_in_i64(c, 1, &image, &n_image));
    QX_TRY(qx_call_in_i64(c, 2, &block, &n_block));
    stride = qx_call_ints(c, "strides", &ns);
    dil = qx_call_ints(c, "dilations", &nd);
    pads = qx_call_ints(c, "pads", &np);
    const int r = (int)n_image;
    if (n_image < 1 || n_image > 4 || n_block != n_image || (stride && ns != r) || (dil && nd != r) || (pads && np != 2 * r))
        QX_CALL_FAIL(c, QX_E_SHAPE, "image, block, strides, dilations, pads do not agree");
    for (int d = 0; d < r; d++) {
        const int64_t st = stride ? stride[d] : 1, di = dil ? dil[d] : 1, pad = pads ? pads[d] + pads[r + d] : 0;
        if (image[d] <= 0 || block[d] <= 0 || st <= 0 || di <= 0)
            QX_CALL_FAIL(c, QX_E_SHAPE, "image, block, stride or dilation of dim %d is not positive", d);
        steps[d] = (image[d] + pad - di * (block[d] - 1) - 1) / st + 1;
        kernel *= block[d];
        total *= steps[d];
        pixels *= image[d];
        dims[2 + d] = image[d];
    }
    if (x->dims[1] % kernel || x->dims[2] != total)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input [%lld, %lld] for %lld block elements and %lld positions", (long long)x->dims[1],
                     (long long)x->dims[2], (long long)kernel, (long long)total);
    dims[0] = x->dims[0];
    dims[1] = x->dims[1] / kernel;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, r + 2, dims, &y));
    memset(y, 0, (size_t)(dims[0] * dims[1] * pixels) * sizeof *y);
    for (int64_t nc = 0; nc < dims[0] * dims[1]; nc++)
        for (int64_t k = 0; k < kernel; k++)
            for (int64_t t = 0; t < total; t++) {
                int64_t rk = k, rt = t, flat = 0, mul = 1;
                bool in = true;
                for (int d = r - 1; d >= 0; d--) {
                    const int64_t p = (rt % steps[d]) * (stride ? stride[d] : 1) + (rk % block[d]) * (dil ? dil[d] : 1) - (pads ? pads[d]
                        : 0);
                    rt /= steps[d];
                    rk /= block[d];
                    in = in && p >= 0 && p < image[d];
                    flat += p * mul;
                    mul *= image[d];
                }
                if (in) y[nc * pixels + flat] += xf[(nc * kernel + k) * total + t];
            }
    return QX_OK;
}

/* ---- CenterCropPad ---- */

qx_status qx_cpu_center_crop_pad(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *shape, *axes;
    int64_t n_shape, n_axes, dims[QX_MAX_RANK], src[QX_MAX_RANK] = {0}, dst[QX_MAX_RANK] = {0}, len[QX_MAX_RANK], sx[QX_MAX_RANK],
        sy[QX_MAX_RANK];
    qx_tensor *y;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_i64(c, 1, &shape, &n_shape));
    axes = qx_call_ints(c, "axes", &n_axes);
    const size_t elem = (size_t)qx_dtype_bits((int)x->dtype) / 8;
    if ((axes ? n_axes : x->rank) != n_shape || !elem)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld sizes for %lld axes", (long long)n_shape, (long long)(axes ? n_axes : x->rank));
    memcpy(dims, x->dims, sizeof dims);
    memcpy(len, x->dims, sizeof len);
    for (int64_t i = 0; i < n_shape; i++) {
        int a;
        QX_TRY(qx_call_axis(c, axes ? axes[i] : i, x->rank, &a));
        if (shape[i] < 0) QX_CALL_FAIL(c, QX_E_SHAPE, "size %lld", (long long)shape[i]);
        dims[a] = shape[i];
        len[a] = shape[i] < x->dims[a] ? shape[i] : x->dims[a];
        src[a] = (x->dims[a] - len[a]) / 2;
        dst[a] = (shape[i] - len[a]) / 2;
    }
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, dims, &y));
    memset(y->data, 0, y->bytes);
    qx_strides(x->dims, x->rank, sx);
    qx_strides(dims, x->rank, sy);
    const int64_t n = qx_prod(len, 0, x->rank);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, from = 0, to = 0;
        for (int d = x->rank - 1; d >= 0; d--) {
            const int64_t p = rest % len[d];
            rest /= len[d];
            from += (src[d] + p) * sx[d];
            to += (dst[d] + p) * sy[d];
        }
        memcpy((char *)y->data + (size_t)to * elem, (const char *)x->data + (size_t)from * elem, elem);
    }
    return QX_OK;
}

/* ---- MaxUnpool ---- */

static int64_t unpool_dim(const qx_tensor *x, int d, const int64_t *kernel, const int64_t *stride, const int64_t *pads, int nd)
{
    return (x->dims[2 + d] - 1) * (stride ? stride[d] : 1) + kernel[d] - (pads ? pads[d] + pads[nd + d] : 0);
}

qx_status qx_cpu_max_unpool(qx_call *c)
{
    const qx_tensor *x, *idx;
    const float *xf;
    const int64_t *at, *shape, *kernel, *stride, *pads;
    int64_t n_at, n_shape, nk, ns, np, dims[QX_MAX_RANK], own[QX_MAX_RANK], p[QX_MAX_RANK];
    float *y;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &idx));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_in_i64(c, 1, &at, &n_at));
    QX_TRY(qx_call_in_i64(c, 2, &shape, &n_shape));
    kernel = qx_call_ints(c, "kernel_shape", &nk);
    stride = qx_call_ints(c, "strides", &ns);
    pads = qx_call_ints(c, "pads", &np);
    const int nd = x->rank - 2;
    if (nd < 1 || nk != nd || n_at != x->numel || (stride && ns != nd) || (pads && np != 2 * nd) || (shape && n_shape != x->rank))
        QX_CALL_FAIL(c, QX_E_SHAPE, "inputs and attributes do not fit");
    own[0] = dims[0] = x->dims[0];
    own[1] = dims[1] = x->dims[1];
    for (int d = 0; d < nd; d++) {
        own[2 + d] = unpool_dim(x, d, kernel, stride, pads, nd);
        dims[2 + d] = shape ? shape[2 + d] : own[2 + d];
        if (own[2 + d] <= 0 || dims[2 + d] < own[2 + d])
            QX_CALL_FAIL(c, QX_E_SHAPE, "output dim %d is %lld, unpooling needs %lld", 2 + d, (long long)dims[2 + d],
                         (long long)own[2 + d]);
    }
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &y));
    const int64_t n_own = qx_prod(own, 0, x->rank), n_out = qx_prod(dims, 0, x->rank);
    memset(y, 0, (size_t)n_out * sizeof *y);
    for (int64_t i = 0; i < x->numel; i++) {
        int64_t rest = at[i], to = 0;
        if (at[i] < 0 || at[i] >= n_own) QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld of %lld", (long long)at[i], (long long)n_own);
        for (int d = x->rank - 1; d >= 0; d--, rest /= own[d + 1]) p[d] = rest % own[d];
        for (int d = 0; d < x->rank; d++) to = to * dims[d] + p[d];
        y[to] = xf[i];
    }
    return QX_OK;
}

/* ---- DeformConv (2-D) ---- */

typedef struct deform {
    const float *x, *w, *off, *mask;
    int64_t c, h, w_in, m, kh, kw, oh, ow, group, og, stride[2], dil[2], pad[2];
} deform;

static float deform_point(const deform *k, int64_t m, int64_t i, int64_t j)
{
    const int64_t cg = k->c / k->group, first = m / (k->m / k->group) * cg, area = k->oh * k->ow;
    double sum = 0;
    for (int64_t ci = 0; ci < cg; ci++) {
        const int64_t ch = first + ci, og = ch / (k->c / k->og);
        for (int64_t a = 0; a < k->kh; a++)
            for (int64_t b = 0; b < k->kw; b++) {
                const int64_t tap = og * k->kh * k->kw + a * k->kw + b, at = i * k->ow + j;
                const float dy = k->off[(2 * tap) * area + at], dx = k->off[(2 * tap + 1) * area + at];
                const float fy = (float)(i * k->stride[0] - k->pad[0] + a * k->dil[0]) + dy,
                    fx = (float)(j * k->stride[1] - k->pad[1] + b * k->dil[1]) + dx;
                const float v = bilinear_zero(k->x + ch * k->h * k->w_in, k->h, k->w_in, fy, fx) * (k->mask ? k->mask[tap * area + at] : 1);
                sum += (double)v * k->w[((m * cg + ci) * k->kh + a) * k->kw + b];
            }
    }
    return (float)sum;
}

static qx_status deform_setup(qx_call *c, deform *k, const qx_tensor *x, const qx_tensor *w, const qx_tensor *off)
{
    int64_t ns, nd, np;
    const int64_t *s = qx_call_ints(c, "strides", &ns), *d = qx_call_ints(c, "dilations", &nd), *p = qx_call_ints(c, "pads", &np);
    *k = (deform){.c = x->dims[1], .h = x->dims[2], .w_in = x->dims[3], .m = w->dims[0], .kh = w->dims[2], .kw = w->dims[3],
                  .oh = off->dims[2], .ow = off->dims[3],
                  .group = qx_call_int(c, "group", 1), .og = qx_call_int(c, "offset_group", 1)};
    for (int i = 0; i < 2; i++) {
        k->stride[i] = s && ns == 2 ? s[i] : 1;
        k->dil[i] = d && nd == 2 ? d[i] : 1;
        k->pad[i] = p && np == 4 ? p[i] : 0;
    }
    const bool fits = k->group > 0 && k->og > 0 && k->c % k->group == 0 && k->m % k->group == 0 && k->c % k->og == 0 &&
        w->dims[1] == k->c / k->group && off->dims[1] == 2 * k->og * k->kh * k->kw && off->dims[0] == x->dims[0];
    if (!fits) QX_CALL_FAIL(c, QX_E_SHAPE, "X, W, offset and groups do not fit");
    return QX_OK;
}

qx_status qx_cpu_deform_conv(qx_call *c)
{
    const qx_tensor *x, *w, *off, *mask = qx_call_in(c, 4);
    const float *xf, *offf, *maskf = NULL, *bias = NULL;
    float *y;
    deform k;
    QX_TRY(need_rank(c, 0, 4, &x));
    QX_TRY(need_rank(c, 1, 4, &w));
    QX_TRY(need_rank(c, 2, 4, &off));
    QX_TRY(deform_setup(c, &k, x, w, off));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_in_f32(c, 1, &k.w));
    QX_TRY(qx_call_in_f32(c, 2, &offf));
    if (qx_call_in(c, 3)) QX_TRY(qx_call_in_f32(c, 3, &bias));
    if (mask) QX_TRY(qx_call_in_f32(c, 4, &maskf));
    if ((bias && qx_call_in(c, 3)->numel != k.m) || (mask && mask->numel * 2 != off->numel))
        QX_CALL_FAIL(c, QX_E_SHAPE, "bias or mask does not fit");
    const int64_t dims[4] = {x->dims[0], k.m, k.oh, k.ow}, area = k.oh * k.ow;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, dims, &y));
    for (int64_t n = 0; n < dims[0]; n++) {
        k.x = xf + n * k.c * k.h * k.w_in;
        k.off = offf + n * off->dims[1] * area;
        k.mask = maskf ? maskf + n * off->dims[1] / 2 * area : NULL;
        for (int64_t m = 0; m < k.m; m++)
            for (int64_t i = 0; i < area; i++) y[(n * k.m + m) * area + i] = deform_point(&k, m, i / k.ow, i % k.ow) + (bias ? bias[m] : 0);
    }
    return QX_OK;
}
