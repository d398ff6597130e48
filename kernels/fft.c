/* fft.c - see fft.h. Decimation in time: transforms of every p-th number, which the p-th roots of unity join. */
#include "kernels/fft.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925286766559;

void qx_fft_plan(int64_t n, qx_complex *w, qx_fft *out)
{
    *out = (qx_fft){.n = n, .largest = 1, .w = w};
    for (int64_t i = 0; i < n; i++) { /* by the nearest eighth of the circle, so that what is 0 or 1 is exactly that */
        const int64_t eighths = (8 * i + n / 2) / n;
        const double rest = two_pi * (double)(8 * i - eighths * n) / (8 * (double)n), c = cos(rest), s = sin(rest);
        static const double half = 0.70710678118654752440, cosines[] = {1, half, 0, -half, -1, -half, 0, half};
        const double ec = cosines[eighths % 8], es = cosines[(eighths + 6) % 8];
        w[i] = (qx_complex){ec * c - es * s, -(es * c + ec * s)};
    }
    for (int64_t p = 4; n > 1; p = p == 4 ? 2 : p == 2 ? 3 : p + 2) {
        if (p > 2 && p * p > n && p != 4) p = n;
        for (; n % p == 0; n /= p) {
            out->factor[out->factors++] = p;
            if (p > out->largest) out->largest = p;
        }
    }
}

static inline qx_complex times(qx_complex a, qx_complex b) { return (qx_complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static inline qx_complex plus(qx_complex a, qx_complex b) { return (qx_complex){a.re + b.re, a.im + b.im}; }
static inline qx_complex minus(qx_complex a, qx_complex b) { return (qx_complex){a.re - b.re, a.im - b.im}; }

static void join_2(const qx_fft *f, int64_t m, int64_t step, qx_complex *out)
{
    for (int64_t k = 0; k < m; k++) {
        const qx_complex a = out[k], b = times(out[k + m], f->w[k * step]);
        out[k] = plus(a, b), out[k + m] = minus(a, b);
    }
}

static void join_4(const qx_fft *f, int64_t m, int64_t step, qx_complex *out)
{
    for (int64_t k = 0; k < m; k++) {
        const qx_complex a = out[k], b = times(out[k + m], f->w[k * step]), c = times(out[k + 2 * m], f->w[2 * k * step]),
            d = times(out[k + 3 * m], f->w[3 * k * step]), ac = plus(a, c), a_c = minus(a, c), bd = plus(b, d), b_d = minus(b, d),
            turned = {b_d.im, -b_d.re}; /* times -i */
        out[k] = plus(ac, bd), out[k + m] = plus(a_c, turned), out[k + 2 * m] = minus(ac, bd), out[k + 3 * m] = minus(a_c, turned);
    }
}

static void join_any(const qx_fft *f, int64_t p, int64_t m, int64_t step, qx_complex *out, qx_complex *room)
{
    const int64_t root = f->n / p;
    for (int64_t k = 0; k < m; k++) {
        for (int64_t i = 0; i < p; i++) room[i] = times(out[k + i * m], f->w[i * k * step]);
        for (int64_t q = 0; q < p; q++) {
            qx_complex s = room[0];
            for (int64_t i = 1, at = q; i < p; i++, at = at + q < p ? at + q : at + q - p) s = plus(s, times(room[i], f->w[at * root]));
            out[k + q * m] = s;
        }
    }
}

/* n numbers `stride` apart, the product of the factors from `level` on: at most QX_FFT_FACTORS levels deep. */
static void transform(const qx_fft *f, int level, int64_t n, int64_t stride, const qx_complex *in, qx_complex *out, qx_complex *room)
{
    if (n == 1) {
        *out = *in;
        return;
    }
    const int64_t p = f->factor[level], m = n / p;
    for (int64_t i = 0; i < p; i++) transform(f, level + 1, m, stride * p, in + i * stride, out + i * m, room);
    if (p == 2) join_2(f, m, stride, out);
    else if (p == 4) join_4(f, m, stride, out);
    else join_any(f, p, m, stride, out, room);
}

void qx_fft_run(const qx_fft *f, const qx_complex *in, qx_complex *out, qx_complex *room) { transform(f, 0, f->n, 1, in, out, room); }
