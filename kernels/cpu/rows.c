/* rows.c - see rows.h. Sums keep LANES partial sums in a fixed order: vectorisable without letting the compiler reorder anything. */
#include "kernels/rows.h"

#include "kernels/loops/fmath.h"

enum { LANES = 32 };

QX_INLINE float fold_sum(const float *l)
{
    float t[16];
    for (int i = 0; i < 16; i++) t[i] = l[i] + l[i + 16];
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; i++) t[i] += t[i + w];
    return t[0];
}

#define LANE_SUM(result, n, expr)                             \
    do {                                                      \
        float l_[LANES] = {0};                                \
        int64_t i = 0;                                        \
        for (; i + LANES <= (n); i += LANES)                  \
            for (int q = 0; q < LANES; q++) { int64_t k = i + q; l_[q] += (expr); } \
        for (int q = 0; i < (n); i++, q++) { int64_t k = i; l_[q] += (expr); } \
        (result) = fold_sum(l_);                              \
    } while (0)

#define LANE_FOLD(result, n, init, op, expr)                  \
    do {                                                      \
        float l_[LANES];                                      \
        int64_t i = 0;                                        \
        for (int q = 0; q < LANES; q++) l_[q] = (init);       \
        for (; i + LANES <= (n); i += LANES)                  \
            for (int q = 0; q < LANES; q++) { int64_t k = i + q; l_[q] = op(l_[q], expr); } \
        for (int q = 0; i < (n); i++, q++) { int64_t k = i; l_[q] = op(l_[q], expr); } \
        for (int w = LANES / 2; w > 0; w /= 2)                \
            for (int q = 0; q < w; q++) l_[q] = op(l_[q], l_[q + w]); \
        (result) = l_[0];                                     \
    } while (0)

QX_INLINE float nan_max(float a, float b) { return ((b > a) | (b != b)) ? b : a; }
QX_INLINE float nan_min(float a, float b) { return ((b < a) | (b != b)) ? b : a; }
QX_INLINE float larger(float a, float b) { return b > a ? b : a; }

QX_INLINE float row_max(const float *x, int64_t n)
{
    float m;
    LANE_FOLD(m, n, -INFINITY, larger, x[k]);
    return m;
}

QX_INLINE bool has_nan(const float *x, int64_t n)
{
    float m;
    LANE_FOLD(m, n, -INFINITY, nan_max, x[k]);
    return m != m;
}

QX_INLINE void qx_softmax_row_body(const float *x, float *y, int64_t n, bool zero_masked)
{
    float m = row_max(x, n), sum;
    if (zero_masked && m == -INFINITY && !has_nan(x, n)) {
        for (int64_t i = 0; i < n; i++) y[i] = 0;
        return;
    }
    QX_IVDEP
    for (int64_t i = 0; i < n; i++) y[i] = fm_exp(x[i] - m);
    LANE_SUM(sum, n, y[k]);
    float r = 1.0f / sum;
    for (int64_t i = 0; i < n; i++) y[i] *= r;
}
QX_MULTI(, qx_softmax_row, (const float *x, float *y, int64_t n, bool zero_masked), (x, y, n, zero_masked))

QX_INLINE void qx_log_softmax_row_body(const float *x, float *y, int64_t n)
{
    float m = row_max(x, n), sum;
    LANE_SUM(sum, n, fm_exp(x[k] - m));
    float l = logf(sum) + m;
    for (int64_t i = 0; i < n; i++) y[i] = x[i] - l;
}
QX_MULTI(, qx_log_softmax_row, (const float *x, float *y, int64_t n), (x, y, n))

QX_INLINE void moments(const float *x, int64_t n, float eps, float *mean, float *inv)
{
    float s, v;
    LANE_SUM(s, n, x[k]);
    float m = s / (float)n;
    LANE_SUM(v, n, (x[k] - m) * (x[k] - m));
    *mean = m;
    *inv = 1.0f / sqrtf(v / (float)n + eps);
}

/* Long rows (a whole group of a picture) are summed in blocks, and the blocks in double. */
QX_INLINE void qx_moments_body(const float *x, int64_t n, float eps, float *mean, float *inv)
{
    enum { BLOCK = 4096 };
    double s = 0, v = 0;
    for (int64_t b = 0; b < n; b += BLOCK) {
        int64_t m = n - b < BLOCK ? n - b : BLOCK;
        const float *p = x + b;
        float part;
        LANE_SUM(part, m, p[k]);
        s += (double)part;
    }
    float mu = (float)(s / (double)n);
    for (int64_t b = 0; b < n; b += BLOCK) {
        int64_t m = n - b < BLOCK ? n - b : BLOCK;
        const float *p = x + b;
        float part;
        LANE_SUM(part, m, (p[k] - mu) * (p[k] - mu));
        v += (double)part;
    }
    *mean = mu;
    *inv = (float)(1.0 / sqrt(v / (double)n + (double)eps));
}
QX_MULTI(, qx_moments, (const float *x, int64_t n, float eps, float *mean, float *inv), (x, n, eps, mean, inv))

QX_INLINE void qx_affine_row_body(const float *x, float mean, float inv, float gamma, float beta, float *y, int64_t n)
{
    float a = inv * gamma;
    QX_IVDEP
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * a + beta;
}
QX_MULTI(, qx_affine_row, (const float *x, float mean, float inv, float gamma, float beta, float *y, int64_t n),
         (x, mean, inv, gamma, beta, y, n))

/* ---- Channels side by side ---- */

void qx_join_moments(double *mean, double *m2, int64_t n, double mean2, double m22, int64_t n2)
{
    double total = (double)n + (double)n2, d = mean2 - *mean;
    *mean += d * (double)n2 / total;
    *m2 += m22 + d * d * (double)n * (double)n2 / total;
}

/* Four pixels at a time: sum[k] += expr of element k of the group, k < 4 * lanes, so that the sums stay in registers. */
#define LANE_PIXELS(sum, n, lanes, expr)                               \
    do {                                                               \
        int64_t i_ = 0;                                                \
        for (; i_ + 4 <= (n); i_ += 4)                                 \
            for (int k = 0; k < 4 * (lanes); k++) {                    \
                const float v = p[i_ * (lanes) + k];                   \
                (sum)[k] += (expr);                                    \
            }                                                          \
        for (int k = 0; i_ * (lanes) + k < (n) * (lanes); k++) {       \
            const float v = p[i_ * (lanes) + k];                       \
            (sum)[k] += (expr);                                        \
        }                                                              \
    } while (0)

/* Blocks of pixels that stay in the nearest cache: their sums are float, those of blocks are joined in double. */
QX_INLINE void lane_moments(const float *x, int64_t pixels, const int lanes, double *mean, double *m2)
{
    enum { BLOCK = 256 };
    for (int64_t b = 0; b < pixels; b += BLOCK) {
        int64_t n = pixels - b < BLOCK ? pixels - b : BLOCK;
        const float *p = x + b * lanes;
        float sum[4 * 16] = {0}, mu[4 * 16], dev[4 * 16] = {0};
        LANE_PIXELS(sum, n, lanes, v);
        for (int q = 0; q < lanes; q++) {
            float m = (sum[q] + sum[lanes + q] + sum[2 * lanes + q] + sum[3 * lanes + q]) / (float)n;
            for (int r = 0; r < 4; r++) mu[r * lanes + q] = m;
        }
        LANE_PIXELS(dev, n, lanes, (v - mu[k]) * (v - mu[k]));
        for (int q = 0; q < lanes; q++) {
            double d = (double)(dev[q] + dev[lanes + q] + dev[2 * lanes + q] + dev[3 * lanes + q]);
            if (b) qx_join_moments(&mean[q], &m2[q], b, (double)mu[q], d, n);
            else mean[q] = (double)mu[q], m2[q] = d;
        }
    }
}

QX_INLINE void qx_lane_moments_body(const float *x, int64_t pixels, int lanes, double *mean, double *m2)
{
    if (lanes == 16) lane_moments(x, pixels, 16, mean, m2);
    else lane_moments(x, pixels, 8, mean, m2);
}
QX_MULTI(, qx_lane_moments, (const float *x, int64_t pixels, int lanes, double *mean, double *m2), (x, pixels, lanes, mean, m2))

QX_INLINE void qx_layernorm_row_body(const float *x, const float *gamma, const float *beta, float eps, float *y, int64_t n, float *mean,
                                     float *inv)
{
    float m, r;
    moments(x, n, eps, &m, &r);
    if (mean) *mean = m;
    if (inv) *inv = r;
    if (gamma && beta) {
        QX_IVDEP
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - m) * r * gamma[i] + beta[i];
    } else {
        QX_IVDEP
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - m) * r * (gamma ? gamma[i] : 1.0f) + (beta ? beta[i] : 0.0f);
    }
}
QX_MULTI(, qx_layernorm_row, (const float *x, const float *gamma, const float *beta, float eps, float *y, int64_t n, float *mean,
                              float *inv),
         (x, gamma, beta, eps, y, n, mean, inv))

QX_INLINE void qx_rmsnorm_row_body(const float *x, const float *gamma, float eps, float *y, int64_t n, float *inv)
{
    float s;
    LANE_SUM(s, n, x[k] * x[k]);
    float r = 1.0f / sqrtf(s / (float)n + eps);
    if (inv) *inv = r;
    QX_IVDEP
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * (gamma ? gamma[i] : 1.0f);
}
QX_MULTI(, qx_rmsnorm_row, (const float *x, const float *gamma, float eps, float *y, int64_t n, float *inv), (x, gamma, eps, y, n, inv))

/* ---- Reductions: pre maps an element, then sum, product, max or min; post maps the result ---- */

typedef enum fold { FOLD_SUM, FOLD_MAX, FOLD_MIN, FOLD_PROD } fold;
static const fold folds[] = {[QX_R_SUM] = FOLD_SUM, [QX_R_MEAN] = FOLD_SUM, [QX_R_MAX] = FOLD_MAX, [QX_R_MIN] = FOLD_MIN,
                             [QX_R_PROD] = FOLD_PROD,
                             [QX_R_L1] = FOLD_SUM, [QX_R_L2] = FOLD_SUM, [QX_R_SUMSQ] = FOLD_SUM, [QX_R_LOGSUM] = FOLD_SUM,
                                 [QX_R_LOGSUMEXP] = FOLD_SUM};

static float post(qx_reduce op, float v, int64_t n)
{
    switch (op) {
    case QX_R_MEAN: return v / (float)n;
    case QX_R_L2: return sqrtf(v);
    case QX_R_LOGSUM:
    case QX_R_LOGSUMEXP: return logf(v);
    default: return v;
    }
}


QX_INLINE void reduce_row_body(qx_reduce op, const float *x, int64_t n, float *out)
{
    float r = 0;
    float m = op == QX_R_LOGSUMEXP && n > 0 ? row_max(x, n) : 0;
    if (!(fabsf(m) < INFINITY)) m = 0;
    switch (op) {
    case QX_R_SUM: case QX_R_MEAN: case QX_R_LOGSUM: LANE_SUM(r, n, x[k]); break;
    case QX_R_L1: LANE_SUM(r, n, fabsf(x[k])); break;
    case QX_R_L2: case QX_R_SUMSQ: LANE_SUM(r, n, x[k] * x[k]); break;
    case QX_R_LOGSUMEXP: LANE_SUM(r, n, fm_exp(x[k] - m)); break;
    case QX_R_MAX: LANE_FOLD(r, n, -INFINITY, nan_max, x[k]); break;
    case QX_R_MIN: LANE_FOLD(r, n, INFINITY, nan_min, x[k]); break;
    case QX_R_PROD: r = 1; for (int64_t i = 0; i < n; i++) r *= x[i]; break;
    }
    *out = post(op, r, n) + (op == QX_R_LOGSUMEXP ? m : 0);
}
QX_MULTI(static, reduce_row, (qx_reduce op, const float *x, int64_t n, float *out), (op, x, n, out))

float qx_reduce_row(qx_reduce op, const float *x, int64_t n)
{
    float r;
    reduce_row(op, x, n, &r);
    return r;
}

#define COLS(expr)                                                \
    for (int64_t k = 0; k < n; k++) {                             \
        const float *row = x + k * stride;                        \
        QX_IVDEP                                                  \
        for (int64_t i = 0; i < m; i++) y[i] = (expr);            \
    }

QX_INLINE void qx_reduce_cols_body(qx_reduce op, const float *x, int64_t n, int64_t stride, float *y, int64_t m)
{
    static const float neutral[] = {[FOLD_SUM] = 0, [FOLD_MAX] = -INFINITY, [FOLD_MIN] = INFINITY, [FOLD_PROD] = 1};
    if (op == QX_R_LOGSUMEXP) { /* rare: one column at a time, shifted by its maximum */
        for (int64_t i = 0; i < m; i++) {
            float top = -INFINITY, s = 0;
            for (int64_t k = 0; k < n; k++) top = nan_max(top, x[k * stride + i]);
            float shift = fabsf(top) < INFINITY ? top : 0;
            for (int64_t k = 0; k < n; k++) s += fm_exp(x[k * stride + i] - shift);
            y[i] = logf(s) + shift;
        }
        return;
    }
    for (int64_t i = 0; i < m; i++) y[i] = neutral[folds[op]];
    switch (op) {
    case QX_R_SUM: case QX_R_MEAN: case QX_R_LOGSUM: COLS(y[i] + row[i]) break;
    case QX_R_L1: COLS(y[i] + fabsf(row[i])) break;
    case QX_R_L2: case QX_R_SUMSQ: COLS(y[i] + row[i] * row[i]) break;
    case QX_R_MAX: COLS(nan_max(y[i], row[i])) break;
    case QX_R_MIN: COLS(nan_min(y[i], row[i])) break;
    default: COLS(y[i] * row[i]) break;
    }
    for (int64_t i = 0; i < m; i++) y[i] = post(op, y[i], n);
}
QX_MULTI(, qx_reduce_cols, (qx_reduce op, const float *x, int64_t n, int64_t stride, float *y, int64_t m), (op, x, n, stride, y, m))

QX_INLINE void qx_rope_row_body(const float *x, const float *cos, const float *sin, int64_t half, bool interleaved, float *y)
{
    if (interleaved) {
        for (int64_t i = 0; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            y[2 * i] = a * cos[i] - b * sin[i];
            y[2 * i + 1] = a * sin[i] + b * cos[i];
        }
        return;
    }
    QX_IVDEP
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        y[i] = a * cos[i] - b * sin[i];
        y[i + half] = a * sin[i] + b * cos[i];
    }
}
QX_MULTI(, qx_rope_row, (const float *x, const float *cos, const float *sin, int64_t half, bool interleaved, float *y),
         (x, cos, sin, half, interleaved, y))

QX_INLINE void qx_rotate_half_row_body(const float *x, const float *cos, const float *sin, int64_t d, float *y)
{
    const int64_t half = d / 2;
    QX_IVDEP
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        y[i] = a * cos[i] - b * sin[i];
        y[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}
QX_MULTI(, qx_rotate_half_row, (const float *x, const float *cos, const float *sin, int64_t d, float *y), (x, cos, sin, d, y))

QX_INLINE void dot_body(const float *x, const float *y, int64_t n, float *r) { LANE_SUM(*r, n, x[k] * y[k]); }
QX_MULTI(static, dot, (const float *x, const float *y, int64_t n, float *r), (x, y, n, r))
float qx_dot(const float *x, const float *y, int64_t n)
{
    float r;
    dot(x, y, n, &r);
    return r;
}

QX_INLINE void qx_axpy_body(float a, const float *x, float *y, int64_t n)
{
    QX_IVDEP
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}
QX_MULTI(, qx_axpy, (float a, const float *x, float *y, int64_t n), (a, x, y, n))
