/* signal.c - windows, DFT, STFT, mel filters. The transform is the definition (a sum over the axis, in double): exact enough and
 * short; sizes in models are small. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "runtime/cpu/op.h"

static const double two_pi = 6.283185307179586476925286766559;

/* ---- Windows: a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N) ---- */

static qx_status window(qx_call *c, double a0, double a1, double a2)
{
    int64_t n;
    float *y;
    QX_TRY(qx_call_scalar_i64(c, 0, 0, &n));
    if (n < 0) QX_CALL_FAIL(c, QX_E_SHAPE, "window of %lld", (long long)n);
    const double period = (double)(qx_call_int(c, "periodic", 1) ? n : n - 1);
    QX_TRY(qx_call_out_f32(c, 0, (qx_dtype)qx_call_int(c, "output_datatype", QX_DT_FLOAT), 1, &n, &y));
    for (int64_t i = 0; i < n; i++) {
        const double t = period > 0 ? two_pi * (double)i / period : 0;
        y[i] = (float)(a0 - a1 * cos(t) + a2 * cos(2 * t));
    }
    return QX_OK;
}

qx_status qx_cpu_hann(qx_call *c) { return window(c, 0.5, 0.5, 0); }
qx_status qx_cpu_hamming(qx_call *c) { return window(c, 25.0 / 46.0, 21.0 / 46.0, 0); }
qx_status qx_cpu_blackman(qx_call *c) { return window(c, 0.42, 0.5, 0.08); }

/* ---- DFT ---- */

typedef struct complex64 { double re, im; } complex64;

/* out[k] = sum over t < n of in[t] exp(sign 2 pi i k t / len); samples behind n are zero. */
static complex64 dft_at(const complex64 *in, int64_t n, int64_t len, int64_t k, double sign)
{
    complex64 s = {0, 0};
    for (int64_t t = 0; t < n && t < len; t++) {
        const double a = sign * two_pi * (double)((k * t) % len) / (double)len, cr = cos(a), ci = sin(a);
        s.re += in[t].re * cr - in[t].im * ci;
        s.im += in[t].re * ci + in[t].im * cr;
    }
    return s;
}

typedef struct dft { bool inverse, onesided; int64_t len, out_len; int axis; int in_parts, out_parts; } dft;

static qx_status dft_setup(qx_call *c, const qx_tensor *x, dft *d)
{
    int64_t axis = qx_call_int(c, "axis", 1);
    if (c->version >= 20) QX_TRY(qx_call_scalar_i64(c, 2, -2, &axis));
    if (x->rank < 2) QX_CALL_FAIL(c, QX_E_SHAPE, "rank %d", x->rank);
    QX_TRY(qx_call_axis(c, axis, x->rank, &d->axis));
    d->in_parts = (int)x->dims[x->rank - 1];
    if (d->axis == x->rank - 1 || d->in_parts < 1 || d->in_parts > 2)
        QX_CALL_FAIL(c, QX_E_SHAPE, "the last dim must hold 1 or 2 parts, not %d", d->in_parts);
    d->inverse = qx_call_int(c, "inverse", 0) != 0;
    d->onesided = qx_call_int(c, "onesided", 0) != 0;
    const int64_t n = x->dims[d->axis];
    int64_t fallback = d->inverse && d->onesided ? 2 * (n - 1) : n;
    QX_TRY(qx_call_scalar_i64(c, 1, fallback, &d->len));
    if (d->len <= 0 || d->len > 1 << 24) QX_CALL_FAIL(c, QX_E_SHAPE, "dft_length %lld", (long long)d->len);
    d->out_len = d->onesided && !d->inverse ? d->len / 2 + 1 : d->len;
    d->out_parts = d->onesided && d->inverse ? 1 : 2;
    return QX_OK;
}

/* One line of the axis into in[]; a one-sided spectrum is completed by symmetry. */
static void dft_line(const dft *d, const float *x, int64_t n, int64_t stride, complex64 *in)
{
    for (int64_t t = 0; t < n; t++)
        in[t] = (complex64){(double)x[t * stride * d->in_parts], d->in_parts == 2 ? (double)x[t * stride * d->in_parts + 1] : 0};
    if (!(d->inverse && d->onesided)) return;
    for (int64_t t = n; t < d->len; t++) in[t] = d->len - t < n ? (complex64){in[d->len - t].re, -in[d->len - t].im} : (complex64){0, 0};
}

qx_status qx_cpu_dft(qx_call *c)
{
    const qx_tensor *x;
    const float *xf;
    float *y;
    dft d = {0};
    complex64 *in;
    int64_t dims[QX_MAX_RANK];
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(dft_setup(c, x, &d));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    memcpy(dims, x->dims, sizeof dims);
    dims[d.axis] = d.out_len;
    dims[x->rank - 1] = d.out_parts;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &y));
    const int64_t n = x->dims[d.axis], outer = qx_prod(x->dims, 0, d.axis), inner = qx_prod(x->dims, d.axis + 1, x->rank - 1);
    QX_TRY(QX_CALL_SCRATCH(c, (n > d.len ? n : d.len) + 1, &in));
    const int64_t given = d.inverse && d.onesided ? d.len : n;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            dft_line(&d, xf + (o * n * inner + i) * d.in_parts, n, inner, in);
            for (int64_t k = 0; k < d.out_len; k++) {
                complex64 v = dft_at(in, given, d.len, k, d.inverse ? 1 : -1);
                float *to = y + ((o * d.out_len + k) * inner + i) * d.out_parts;
                to[0] = (float)(d.inverse ? v.re / (double)d.len : v.re);
                if (d.out_parts == 2) to[1] = (float)(d.inverse ? v.im / (double)d.len : v.im);
            }
        }
    return QX_OK;
}

/* ---- STFT: signal [batch, length, 1 or 2] or [batch, length] ---- */

qx_status qx_cpu_stft(qx_call *c)
{
    const qx_tensor *x, *win = qx_call_in(c, 2);
    const float *xf, *wf = NULL;
    int64_t step, len;
    float *y;
    complex64 *in;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_scalar_i64(c, 1, 0, &step));
    if (win) QX_TRY(qx_call_in_f32(c, 2, &wf));
    QX_TRY(qx_call_scalar_i64(c, 3, win ? win->numel : 0, &len));
    const int parts = x->rank == 3 ? (int)x->dims[2] : 1;
    if (x->rank < 2 || x->rank > 3 || parts < 1 || parts > 2 || step <= 0 || len <= 0 || len > x->dims[1] || (win && win->numel > len))
        QX_CALL_FAIL(c, QX_E_SHAPE, "frame_step %lld, frame_length %lld on a signal of rank %d", (long long)step, (long long)len, x->rank);
    const int64_t frames = (x->dims[1] - len) / step + 1, bins = qx_call_int(c, "onesided", 1) ? len / 2 + 1 : len;
    const int64_t dims[4] = {x->dims[0], frames, bins, 2};
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, dims, &y));
    QX_TRY(QX_CALL_SCRATCH(c, len, &in));
    for (int64_t b = 0; b < dims[0]; b++)
        for (int64_t f = 0; f < frames; f++) {
            for (int64_t t = 0; t < len; t++) {
                const float *p = xf + (b * x->dims[1] + f * step + t) * parts;
                const double w = !wf ? 1 : t < win->numel ? (double)wf[t] : 0;
                in[t] = (complex64){w * (double)p[0], parts == 2 ? w * (double)p[1] : 0};
            }
            for (int64_t k = 0; k < bins; k++) {
                const complex64 v = dft_at(in, len, len, k, -1);
                float *to = y + ((b * frames + f) * bins + k) * 2;
                to[0] = (float)v.re;
                to[1] = (float)v.im;
            }
        }
    return QX_OK;
}

/* ---- MelWeightMatrix ---- */

static double mel(double hz) { return 2595.0 * log10(1.0 + hz / 700.0); }

qx_status qx_cpu_mel_matrix(qx_call *c)
{
    int64_t n_mel, n_dft, rate;
    double lo, hi;
    float *y;
    QX_TRY(qx_call_scalar_i64(c, 0, 0, &n_mel));
    QX_TRY(qx_call_scalar_i64(c, 1, 0, &n_dft));
    QX_TRY(qx_call_scalar_i64(c, 2, 0, &rate));
    QX_TRY(qx_call_scalar_f64(c, 3, 0, &lo));
    QX_TRY(qx_call_scalar_f64(c, 4, 0, &hi));
    if (n_mel <= 0 || n_mel > 1 << 16 || n_dft <= 0 || n_dft > 1 << 24 || rate <= 0 || !(hi > lo))
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld bins, dft length %lld, rate %lld", (long long)n_mel, (long long)n_dft, (long long)rate);
    const int64_t bins = n_dft / 2 + 1, dims[2] = {bins, n_mel};
    int64_t *edge;
    QX_TRY(qx_call_out_f32(c, 0, (qx_dtype)qx_call_int(c, "output_datatype", QX_DT_FLOAT), 2, dims, &y));
    QX_TRY(QX_CALL_SCRATCH(c, n_mel + 2, &edge));
    const double m0 = mel(lo), step = (mel(hi) - m0) / (double)(n_mel + 2);
    for (int64_t i = 0; i < n_mel + 2; i++) {
        const double hz = 700.0 * (pow(10.0, ((double)i * step + m0) / 2595.0) - 1.0);
        edge[i] = qx_f64_to_i64(floor((double)(n_dft + 1) * hz / (double)rate));
    }
    memset(y, 0, (size_t)(bins * n_mel) * sizeof *y);
    for (int64_t m = 0; m < n_mel; m++) {
        const int64_t a = edge[m], b = edge[m + 1], e = edge[m + 2];
        if (b == a) {
            if (b >= 0 && b < bins) y[b * n_mel + m] = 1;
        } else {
            for (int64_t j = a < 0 ? 0 : a; j <= b && j < bins; j++) y[j * n_mel + m] = (float)(j - a) / (float)(b - a);
        }
        for (int64_t j = b < 0 ? 0 : b; j < e && j < bins; j++) y[j * n_mel + m] = (float)(e - j) / (float)(e - b);
    }
    return QX_OK;
}
