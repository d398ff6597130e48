/* sample.c - pictures read at places between their pixels: GridSample, AffineGrid, which makes such places, and DeformConv.
 * Plain loops in float, formulas as in the standard. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "runtime/cpu/op.h"

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
    QX_TRY(qx_call_rank(c, 0, 3, &theta));
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
    QX_TRY(qx_call_rank(c, 0, 4, &x));
    QX_TRY(qx_call_rank(c, 1, 4, &w));
    QX_TRY(qx_call_rank(c, 2, 4, &off));
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
