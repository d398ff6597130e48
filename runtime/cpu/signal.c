/* signal.c - windows, DFT, STFT, mel filters. Transforms are kernels/fft.h, in double. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernels/fft.h"
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

/* The factors of a length and its roots of unity, until a call comes with another. */
typedef struct lengths { qx_fft fft; qx_complex *w; } lengths;

static void drop(qx_ctx *ctx, void *block) { qx_free(ctx, ((lengths *)block)->w); }

static qx_status plan_of(qx_call *c, int64_t len, const qx_fft **out)
{
    lengths *l = NULL;
    QX_TRY(qx_call_state(c, sizeof *l, drop, (void **)&l));
    *out = &l->fft;
    if (l->fft.n == len) return QX_OK;
    qx_free(c->ctx, l->w);
    *l = (lengths){.w = NULL};
    QX_TRY(qx_alloc_array(c->ctx, (size_t)len, sizeof *l->w, (void **)&l->w));
    qx_fft_plan(len, l->w, &l->fft);
    return QX_OK;
}

/* Lines are independent; each thread has room for one of `given` numbers, its transform and the largest factor. */
typedef struct lines_job {
    const qx_fft *fft;
    qx_complex *room; int64_t per_thread, given;
    const float *x, *window; float *y;
    const struct dft *d; int64_t n, inner;      /* DFT */
    int64_t length, step, frames, bins, taps; int parts; /* STFT */
} lines_job;

static qx_status room_for(qx_call *c, lines_job *j)
{
    j->per_thread = j->given + j->fft->n + j->fft->largest;
    return QX_CALL_SCRATCH(c, j->per_thread * qx_ctx_threads(c->ctx), &j->room);
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

/* One line of the axis into in[], as long as the transform; a one-sided spectrum is completed by symmetry, anything else by zeros. The
 * inverse transform is the forward one of numbers whose parts have changed places. */
static void dft_line(const dft *d, const float *x, int64_t n, int64_t stride, qx_complex *in)
{
    for (int64_t t = 0; t < n && t < d->len; t++)
        in[t] = (qx_complex){(double)x[t * stride * d->in_parts], d->in_parts == 2 ? (double)x[t * stride * d->in_parts + 1] : 0};
    for (int64_t t = n; t < d->len; t++)
        in[t] = d->inverse && d->onesided && d->len - t < n ? (qx_complex){in[d->len - t].re, -in[d->len - t].im} : (qx_complex){0, 0};
    for (int64_t t = 0; t < d->len && d->inverse; t++) in[t] = (qx_complex){in[t].im, in[t].re};
}

static qx_status dft_piece(void *user, int64_t line)
{
    const lines_job *j = user;
    const dft *d = j->d;
    const int64_t o = line / j->inner, i = line % j->inner;
    qx_complex *in = j->room + qx_thread_index() * j->per_thread, *out = in + j->given;
    dft_line(d, j->x + (o * j->n * j->inner + i) * d->in_parts, j->n, j->inner, in);
    qx_fft_run(j->fft, in, out, out + d->len);
    for (int64_t k = 0; k < d->out_len; k++) {
        float *to = j->y + ((o * d->out_len + k) * j->inner + i) * d->out_parts;
        to[0] = (float)(d->inverse ? out[k].im / (double)d->len : out[k].re);
        if (d->out_parts == 2) to[1] = (float)(d->inverse ? out[k].re / (double)d->len : out[k].im);
    }
    return QX_OK;
}

qx_status qx_cpu_dft(qx_call *c)
{
    const qx_tensor *x;
    dft d = {0};
    lines_job j = {.d = &d};
    int64_t dims[QX_MAX_RANK];
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(dft_setup(c, x, &d));
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    memcpy(dims, x->dims, sizeof dims);
    dims[d.axis] = d.out_len;
    dims[x->rank - 1] = d.out_parts;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &j.y));
    j.n = x->dims[d.axis], j.inner = qx_prod(x->dims, d.axis + 1, x->rank - 1), j.given = d.len;
    QX_TRY(plan_of(c, d.len, &j.fft));
    QX_TRY(room_for(c, &j));
    return qx_parallel(c->ctx, qx_prod(x->dims, 0, d.axis) * j.inner, dft_piece, &j);
}

/* ---- STFT: signal [batch, length, 1 or 2] or [batch, length] ---- */

static qx_status frame_piece(void *user, int64_t i)
{
    const lines_job *j = user;
    const float *x = j->x + (i / j->frames * j->length + i % j->frames * j->step) * j->parts;
    qx_complex *in = j->room + qx_thread_index() * j->per_thread, *out = in + j->given;
    for (int64_t t = 0; t < j->given; t++) {
        const double w = !j->window ? 1 : t < j->taps ? (double)j->window[t] : 0;
        in[t] = (qx_complex){w * (double)x[t * j->parts], j->parts == 2 ? w * (double)x[t * j->parts + 1] : 0};
    }
    qx_fft_run(j->fft, in, out, out + j->given);
    for (int64_t k = 0; k < j->bins; k++) {
        float *to = j->y + (i * j->bins + k) * 2;
        to[0] = (float)out[k].re, to[1] = (float)out[k].im;
    }
    return QX_OK;
}

qx_status qx_cpu_stft(qx_call *c)
{
    const qx_tensor *x, *win = qx_call_in(c, 2);
    lines_job j = {.taps = win ? win->numel : 0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_scalar_i64(c, 1, 0, &j.step));
    if (win) QX_TRY(qx_call_in_f32(c, 2, &j.window));
    QX_TRY(qx_call_scalar_i64(c, 3, j.taps, &j.given));
    j.parts = x->rank == 3 ? (int)x->dims[2] : 1;
    if (x->rank < 2 || x->rank > 3 || j.parts < 1 || j.parts > 2 || j.step <= 0 || j.given <= 0 || j.given > x->dims[1] || j.taps > j.given)
        QX_CALL_FAIL(c, QX_E_SHAPE, "frame_step %lld, frame_length %lld on a signal of rank %d", (long long)j.step, (long long)j.given,
                     x->rank);
    j.length = x->dims[1];
    j.frames = (j.length - j.given) / j.step + 1, j.bins = qx_call_int(c, "onesided", 1) ? j.given / 2 + 1 : j.given;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, (int64_t[]){x->dims[0], j.frames, j.bins, 2}, &j.y));
    QX_TRY(plan_of(c, j.given, &j.fft));
    QX_TRY(room_for(c, &j));
    return qx_parallel(c->ctx, x->dims[0] * j.frames, frame_piece, &j);
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
