/* metrics.c - PSNR, SSIM, MS-SSIM and GMSD by their published definitions, in double; conventions stand in metrics.h. */
#include "metrics.h"

#include <math.h>
#include <string.h>

enum { WIN = 11 };
typedef struct plane { int w, h; double *v; } plane;

static int plane_new(sx_err *e, int w, int h, plane *p)
{
    p->w = w;
    p->h = h;
    return SX_NEW(e, (size_t)w * (size_t)h, &p->v);
}

static void window(double g[WIN])
{
    double sum = 0;
    for (int i = 0; i < WIN; i++) sum += g[i] = exp(-(i - 5) * (i - 5) / (2 * 1.5 * 1.5));
    for (int i = 0; i < WIN; i++) g[i] /= sum;
}

/* Gaussian means over every position where the whole window fits: out is (w-10) x (h-10); rows is scratch of w-10 x h. */
static void blur(const double *in, int w, int h, const double g[WIN], double *rows, double *out)
{
    int ow = w - WIN + 1, oh = h - WIN + 1;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < ow; x++) {
            double s = 0;
            for (int k = 0; k < WIN; k++) s += g[k] * in[(size_t)y * (size_t)w + (size_t)(x + k)];
            rows[(size_t)y * (size_t)ow + (size_t)x] = s;
        }
    for (int y = 0; y < oh; y++)
        for (int x = 0; x < ow; x++) {
            double s = 0;
            for (int k = 0; k < WIN; k++) s += g[k] * rows[(size_t)(y + k) * (size_t)ow + (size_t)x];
            out[(size_t)y * (size_t)ow + (size_t)x] = s;
        }
}

enum { MA, MB, AA, BB, AB, MAPS };

/* Mean SSIM and mean contrast-structure term of one channel in 0..1. */
static int ssim_plane(sx_err *e, const plane *a, const plane *b, double *ssim, double *cs)
{
    double g[WIN], *map[MAPS] = {0}, *prod = NULL, *rows = NULL, total = 0, total_cs = 0;
    const double c1 = 0.01 * 0.01, c2 = 0.03 * 0.03;
    size_t n = (size_t)a->w * (size_t)a->h, m = (size_t)(a->w - WIN + 1) * (size_t)(a->h - WIN + 1);
    int rc;
    window(g);
    SX_TRY_GOTO(rc, SX_NEW(e, n, &prod));
    SX_TRY_GOTO(rc, SX_NEW(e, n, &rows));
    for (int k = 0; k < MAPS; k++) {
        SX_TRY_GOTO(rc, SX_NEW(e, m, &map[k]));
        for (size_t i = 0; i < n; i++)
            prod[i] = k == MA ? a->v[i] : k == MB ? b->v[i] : k == AA ? a->v[i] * a->v[i] : k == BB ? b->v[i] * b->v[i] : a->v[i] * b->v[i];
        blur(prod, a->w, a->h, g, rows, map[k]);
    }
    for (size_t i = 0; i < m; i++) {
        double u = map[MA][i], v = map[MB][i], suu = map[AA][i] - u * u, svv = map[BB][i] - v * v, suv = map[AB][i] - u * v;
        double term = (2 * suv + c2) / (suu + svv + c2);
        total_cs += term;
        total += term * (2 * u * v + c1) / (u * u + v * v + c1);
    }
    *ssim = total / (double)m;
    *cs = total_cs / (double)m;
done:
    for (int k = 0; k < MAPS; k++) sx_free(map[k]);
    sx_free(prod);
    sx_free(rows);
    return rc;
}

static void halve(plane *p)
{
    int w = p->w / 2, h = p->h / 2;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const double *q = p->v + (size_t)(2 * y) * (size_t)p->w + (size_t)(2 * x);
            p->v[(size_t)y * (size_t)w + (size_t)x] = (q[0] + q[1] + q[p->w] + q[p->w + 1]) / 4;
        }
    p->w = w;
    p->h = h;
}

static int channel(sx_err *e, const sx_image *m, int c, plane *p)
{
    SX_TRY(plane_new(e, m->w, m->h, p));
    for (size_t i = 0; i < (size_t)m->w * (size_t)m->h; i++) p->v[i] = m->rgb[i * 3 + (size_t)c] / 255.0;
    return SX_OK;
}

static int smaller(int a, int b) { return a < b ? a : b; }

static int ms_ssim_channel(sx_err *e, const sx_image *ref, const sx_image *test, int c, double *ssim, double *ms, int *scales)
{
    static const double weight[5] = {.0448, .2856, .3001, .2363, .1333};
    plane a = {0}, b = {0};
    double per[5], cs[5], sum = 0, product = 1;
    int n = 0, rc;
    SX_TRY_GOTO(rc, channel(e, ref, c, &a));
    SX_TRY_GOTO(rc, channel(e, test, c, &b));
    for (; n < 5 && smaller(a.w, a.h) >= WIN; n++) {
        SX_TRY_GOTO(rc, ssim_plane(e, &a, &b, &per[n], &cs[n]));
        sum += weight[n];
        halve(&a);
        halve(&b);
    }
    for (int i = 0; i < n; i++) product *= pow(fmax(i == n - 1 ? per[i] : cs[i], 0), n == 5 ? weight[i] : weight[i] / sum);
    *ssim = n ? per[0] : NAN;
    *ms = n ? product : NAN;
    *scales = n;
done:
    sx_free(a.v);
    sx_free(b.v);
    return rc;
}

static int luma(sx_err *e, const sx_image *m, plane *p)
{
    SX_TRY(plane_new(e, m->w, m->h, p));
    for (size_t i = 0; i < (size_t)m->w * (size_t)m->h; i++) {
        const uint8_t *q = m->rgb + i * 3;
        p->v[i] = (.299 * q[0] + .587 * q[1] + .114 * q[2]) / 255;
    }
    return SX_OK;
}

static double at(const plane *p, int x, int y)
{
    return x < 0 || y < 0 || x >= p->w || y >= p->h ? 0 : p->v[(size_t)y * (size_t)p->w + (size_t)x];
}

static double gradient(const plane *p, int x, int y)
{
    double gx = 0, gy = 0;
    for (int k = -1; k <= 1; k++) {
        gx += at(p, x - 1, y + k) - at(p, x + 1, y + k);
        gy += at(p, x + k, y - 1) - at(p, x + k, y + 1);
    }
    return sqrt(gx * gx + gy * gy) / 3;
}

static int gmsd(sx_err *e, const sx_image *ref, const sx_image *test, double *out)
{
    plane a = {0}, b = {0};
    double sum = 0, sq = 0, c = 170 / (255.0 * 255.0);
    int rc;
    SX_TRY_GOTO(rc, luma(e, ref, &a));
    SX_TRY_GOTO(rc, luma(e, test, &b));
    halve(&a);
    halve(&b);
    for (int y = 0; y < a.h; y++)
        for (int x = 0; x < a.w; x++) {
            double g = gradient(&a, x, y), h = gradient(&b, x, y), s = (2 * g * h + c) / (g * g + h * h + c);
            sum += s;
            sq += s * s;
        }
    double n = (double)a.w * a.h;
    *out = n > 0 ? sqrt(fmax(sq / n - sum / n * (sum / n), 0)) : NAN;
done:
    sx_free(a.v);
    sx_free(b.v);
    return rc;
}

int sx_compare(sx_err *e, const sx_image *ref, const sx_image *test, sx_compared *out)
{
    if (ref->w != test->w || ref->h != test->h)
        return sx_fail(e, SX_FAILED, "pictures of %d x %d and %d x %d do not compare", ref->w, ref->h, test->w, test->h);
    *out = (sx_compared){0};
    double se = 0;
    size_t n = (size_t)ref->w * (size_t)ref->h * 3;
    for (size_t i = 0; i < n; i++) {
        int d = ref->rgb[i] - test->rgb[i];
        se += (double)d * d;
        if (d < 0) d = -d;
        if (d > out->max_abs) out->max_abs = d;
    }
    out->psnr = se > 0 ? 10 * log10(255.0 * 255.0 * (double)n / se) : INFINITY;
    for (int c = 0; c < 3; c++) {
        double s, m;
        SX_TRY(ms_ssim_channel(e, ref, test, c, &s, &m, &out->ms_scales));
        out->ssim += s / 3;
        out->ms_ssim += m / 3;
    }
    return gmsd(e, ref, test, &out->gmsd);
}

static double luma8(const uint8_t *q) { return .299 * q[0] + .587 * q[1] + .114 * q[2]; }

static double laplacian_variance(const sx_image *m)
{
    double sum = 0, sq = 0, n = 0;
    for (int y = 1; y + 1 < m->h; y++)
        for (int x = 1; x + 1 < m->w; x++, n++) {
            const uint8_t *q = m->rgb + ((size_t)y * (size_t)m->w + (size_t)x) * 3, *up = q - (size_t)m->w * 3,
                *down = q + (size_t)m->w * 3;
            double v = (luma8(up) + luma8(down) + luma8(q - 3) + luma8(q + 3) - 4 * luma8(q)) / 255;
            sum += v;
            sq += v * v;
        }
    return n > 0 ? sq / n - sum / n * (sum / n) : 0;
}

void sx_look_at(const sx_image *m, sx_look *out)
{
    int64_t hist[256] = {0}, n = (int64_t)m->w * m->h, below = 0;
    double sum[3] = {0}, sq[3] = {0};
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *q = m->rgb + i * 3;
        hist[(int)(luma8(q) + 0.5)]++;
        for (int c = 0; c < 3; c++) {
            sum[c] += q[c] / 255.0;
            sq[c] += q[c] / 255.0 * q[c] / 255.0;
        }
    }
    for (int c = 0; c < 3; c++) {
        out->mean[c] = sum[c] / (double)n;
        out->std[c] = sqrt(fmax(sq[c] / (double)n - out->mean[c] * out->mean[c], 0));
    }
    out->luma_low = -1;
    out->luma_high = 1;
    for (int v = 0; v < 256; v++) {
        below += hist[v];
        if (out->luma_low < 0 && below * 100 > n) out->luma_low = v / 255.0;
        if (below * 100 >= n * 99) {
            out->luma_high = v / 255.0;
            break;
        }
    }
    out->laplacian = laplacian_variance(m);
}

const char *sx_verdict(const sx_look *t, const sx_look *ref, int64_t bad)
{
    double std = (t->std[0] + t->std[1] + t->std[2]) / 3, ref_std = ref ? (ref->std[0] + ref->std[1] + ref->std[2]) / 3 : 0;
    if (bad) return "nan";
    if (t->luma_high < 10 / 255.0 && !(ref && ref->luma_high < 10 / 255.0)) return "black";
    if (std < 2 / 255.0 && !(ref && ref_std < 2 / 255.0)) return "flat";
    if (ref ? std < 0.6 * ref_std : t->luma_high - t->luma_low < 0.12 && std < 0.06) return "washed-out";
    if (ref && t->laplacian > 4 * ref->laplacian + 1e-3) return "noisy";
    if (ref && t->laplacian < 0.25 * ref->laplacian - 1e-4) return "blurred";
    return "ok";
}

sx_drift sx_latent_drift(const float *ref, const float *test, size_t n)
{
    double rr = 0, tt = 0, rt = 0, dd = 0;
    for (size_t i = 0; i < n; i++) {
        double r = ref[i], t = test[i], d = r - t;
        rr += r * r;
        tt += t * t;
        rt += r * t;
        dd += d * d;
    }
    return (sx_drift){n ? dd / (double)n : 0, dd > 0 ? 10 * log10(rr / dd) : INFINITY,
                      rr > 0 && tt > 0 ? rt / sqrt(rr * tt) : (rr == tt ? 1 : 0)};
}

int64_t sx_count_bad(const float *x, size_t n)
{
    int64_t bad = 0;
    for (size_t i = 0; i < n; i++) bad += !isfinite(x[i]);
    return bad;
}
