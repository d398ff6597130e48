/* divergence.c - see divergence.h. Pieces of a row are turned into terms by loops that vectorise, and terms are added in eight
 * lanes: the same bits on every instruction set. */
#include "kernels/divergence.h"

#include "kernels/loops/fmath.h"

enum { PIECE = 256, LANES = 8 };

static double sum_of(const double *d, int64_t n)
{
    double s[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) s[l] += d[i + l];
    for (int l = 0; i < n; i++, l++) s[l] += d[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

QX_INLINE void exps_body(const float *restrict x, int64_t n, float most, double *restrict d)
{
    for (int64_t i = 0; i < n; i++) d[i] = (double)fm_exp(x[i] - most);
}
QX_MULTI(static, exps, (const float *x, int64_t n, float most, double *d), (x, n, most, d))

double qx_log_sum_exp(const float *x, int64_t n)
{
    float most = x[0];
    double sum = 0, d[PIECE];
    for (int64_t i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t some = n - i < PIECE ? n - i : PIECE;
        exps(x + i, some, most, d);
        sum += sum_of(d, some);
    }
    return log(sum) + (double)most;
}

/* Where p is next to nothing the term is 0, whatever q is. */
QX_INLINE void terms_body(const float *restrict p, double p_norm, const float *restrict q, double q_norm, int64_t n, double *restrict d)
{
    for (int64_t i = 0; i < n; i++) {
        const double lp = (double)p[i] - p_norm, t = (double)fm_exp((float)lp) * (lp - ((double)q[i] - q_norm));
        d[i] = lp > -80 ? t : 0;
    }
}
QX_MULTI(static, terms, (const float *p, double p_norm, const float *q, double q_norm, int64_t n, double *d), (p, p_norm, q, q_norm, n, d))

double qx_divergence(const float *p, double p_norm, const float *q, double q_norm, int64_t n)
{
    double sum = 0, d[PIECE];
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t some = n - i < PIECE ? n - i : PIECE;
        terms(p + i, p_norm, q + i, q_norm, some, d);
        sum += sum_of(d, some);
    }
    return sum;
}

/* Eight sums of each, one a lane, as in sum_of. */
QX_INLINE void noise_body(const float *restrict a, const float *restrict b, int64_t n, double *restrict signal, double *restrict noise)
{
    for (int64_t i = 0; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            const double x = (double)a[i + l], d = x - (double)b[i + l];
            signal[l] += x * x;
            noise[l] += d * d;
        }
    for (int64_t i = n / LANES * LANES; i < n; i++) {
        const double x = (double)a[i], d = x - (double)b[i];
        signal[i % LANES] += x * x;
        noise[i % LANES] += d * d;
    }
}
QX_MULTI(static, noise, (const float *a, const float *b, int64_t n, double *s, double *d), (a, b, n, s, d))

void qx_noise(const float *a, const float *b, int64_t n, double *signal, double *noise_of)
{
    double s[LANES] = {0}, d[LANES] = {0};
    noise(a, b, n, s, d);
    *signal = sum_of(s, LANES);
    *noise_of = sum_of(d, LANES);
}
