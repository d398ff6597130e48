/* boxes.c - what detectors do with boxes: NonMaxSuppression picks them, RoiAlign and MaxRoiPool read the picture inside of them.
 * Plain loops in float, formulas as in the standard. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "runtime/cpu/op.h"

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
    QX_TRY(qx_call_rank(c, 0, 3, &b));
    QX_TRY(qx_call_rank(c, 1, 3, &s));
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
    QX_TRY(qx_call_rank(c, 0, 4, &x));
    QX_TRY(qx_call_rank(c, 1, 2, &r));
    QX_TRY(qx_call_rank(c, 2, 1, &bi));
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
    QX_TRY(qx_call_rank(c, 0, 4, &x));
    QX_TRY(qx_call_rank(c, 1, 2, &r));
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
