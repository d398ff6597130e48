/* test_rows.c - loops over rows (softmax, normalisations, reductions, rotation, dot) and copies, against double arithmetic:
 * lengths around every vector width, values that overflow, cancel, are NaN or infinite. */
#include "kernels.h"

#include "kernels/move.h"
#include "kernels/rows.h"
#include "kernels/loops/vmath_leaf.h"

static const int lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 64, 100, 1000};
enum { MOST = 1000 };
typedef enum fill { NORMAL, LARGE, TINY, EQUAL, SPIKE, FILLS } fill;

static void make(float *x, int n, fill f, uint32_t *s)
{
    for (int i = 0; i < n; i++) {
        const float v = rng_normal(s);
        x[i] = f == LARGE ? v * 1e30f : f == TINY ? v * 1e-40f : f == EQUAL ? 3.25f : v;
    }
    if (f == SPIKE) x[n / 2] = 80.0f;
}

static void close(const char *what, const float *y, const double *want, int n, double tol)
{
    for (int i = 0; i < n; i++) {
        const bool good = isnan(want[i]) ? isnan(y[i]) : (double)y[i] == want[i] ||
            fabs((double)y[i] - want[i]) <= tol * (1 + fabs(want[i]));
        if (!good) fail_msg("%s of %d: element %d is %.9g, expected %.9g", what, n, i, (double)y[i], want[i]);
    }
}

static void softmax_of(const float *x, double *y, int n, bool log_form)
{
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) top = (double)x[i] > top ? (double)x[i] : top;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - top);
    for (int i = 0; i < n; i++) y[i] = log_form ? (double)x[i] - top - log(sum) : exp((double)x[i] - top) / sum;
}

static void softmax(void **state)
{
    float x[MOST], y[MOST];
    double want[MOST];
    uint32_t s = 3;
    (void)state;
    for (int k = 0; k < COUNT(lengths); k++)
        for (int f = 0; f < FILLS; f++) {
            const int n = lengths[k];
            make(x, n, (fill)f, &s);
            if (f == NORMAL && n > 2) x[1] = -INFINITY;
            softmax_of(x, want, n, false);
            qx_softmax_row(x, y, n, false);
            close("softmax", y, want, n, 2e-6);
            if (f != LARGE && f != NORMAL) {
                softmax_of(x, want, n, true);
                qx_log_softmax_row(x, y, n);
                close("log softmax", y, want, n, 4e-6);
            }
            qx_softmax_row(x, x, n, true); /* in place */
            if (f != NORMAL || n <= 2) softmax_of(x, want, n, false);
        }
    for (int i = 0; i < 20; i++) x[i] = -INFINITY;
    qx_softmax_row(x, y, 20, false);
    for (int i = 0; i < 20; i++) assert_true(isnan(y[i])); /* the formula's 0 / 0 */
    qx_softmax_row(x, y, 20, true);
    for (int i = 0; i < 20; i++) assert_true(y[i] == 0);
    for (int at = 0; at < 20; at++) { /* one NaN makes the row NaN */
        for (int i = 0; i < 20; i++) x[i] = i == at ? NAN : 1.0f;
        qx_softmax_row(x, y, 20, false);
        for (int i = 0; i < 20; i++) assert_true(isnan(y[i]));
    }
}

static void normalisation(void **state)
{
    float x[MOST], g[MOST], b[MOST], y[MOST], mean, inv;
    double want[MOST];
    uint32_t s = 9;
    (void)state;
    for (int k = 0; k < COUNT(lengths); k++)
        for (int f = 0; f < FILLS; f++) {
            const int n = lengths[k];
            double m = 0, v = 0, q = 0;
            if (f == LARGE) continue; /* squares overflow float statistics: the standard's stash type */
            make(x, n, (fill)f, &s);
            make(g, n, NORMAL, &s);
            make(b, n, NORMAL, &s);
            for (int i = 0; i < n; i++) m += (double)x[i] / n, q += (double)x[i] * (double)x[i] / n;
            for (int i = 0; i < n; i++) v += ((double)x[i] - m) * ((double)x[i] - m) / n;
            for (int i = 0; i < n; i++) want[i] = ((double)x[i] - m) / sqrt(v + 1e-5) * (double)g[i] + (double)b[i];
            qx_layernorm_row(x, g, b, 1e-5f, y, n, &mean, &inv);
            close("layer norm", y, want, n, 1e-4);
            assert_true(fabs((double)mean - m) <= 1e-5 * (1 + fabs(m)) && fabs((double)inv * sqrt(v + 1e-5) - 1) < 1e-4);
            qx_layernorm_row(x, NULL, NULL, 1e-5f, y, n, NULL, NULL);
            for (int i = 0; i < n; i++) want[i] = ((double)x[i] - m) / sqrt(v + 1e-5);
            close("plain layer norm", y, want, n, 1e-4);
            for (int i = 0; i < n; i++) want[i] = (double)x[i] / sqrt(q + 1e-6) * (double)g[i];
            qx_rmsnorm_row(x, g, 1e-6f, y, n, &inv);
            close("rms norm", y, want, n, 1e-5);
            qx_moments(x, n, 1e-5f, &mean, &inv);
            qx_affine_row(x, mean, inv, 2.0f, -1.0f, y, n);
            for (int i = 0; i < n; i++) want[i] = ((double)x[i] - m) / sqrt(v + 1e-5) * 2 - 1;
            close("moments", y, want, n, 1e-4);
        }
}

static double reduced(qx_reduce op, const float *x, int n, int stride)
{
    double s = op == QX_R_PROD ? 1 : op == QX_R_MAX || op == QX_R_LOGSUMEXP ? -INFINITY : op == QX_R_MIN ? INFINITY : 0, top = -INFINITY;
    for (int i = 0; i < n; i++) top = fmax(top, (double)x[i * stride]);
    if (op == QX_R_LOGSUMEXP) s = 0;
    for (int i = 0; i < n; i++) {
        const double v = (double)x[i * stride];
        switch (op) {
        case QX_R_MAX: s = isnan(v) || isnan(s) ? NAN : fmax(s, v); break;
        case QX_R_MIN: s = isnan(v) || isnan(s) ? NAN : fmin(s, v); break;
        case QX_R_PROD: s *= v; break;
        case QX_R_L1: s += fabs(v); break;
        case QX_R_L2: case QX_R_SUMSQ: s += v * v; break;
        case QX_R_LOGSUMEXP: s += exp(v - top); break;
        default: s += v; break;
        }
    }
    return op == QX_R_MEAN ? s / n : op == QX_R_L2 ? sqrt(s) : op == QX_R_LOGSUM ? log(s) : op == QX_R_LOGSUMEXP ? log(s) + top : s;
}

static void reductions(void **state)
{
    static float x[17 * MOST];
    float y[17];
    double want[17];
    uint32_t s = 21;
    (void)state;
    for (int op = QX_R_SUM; op <= QX_R_LOGSUMEXP; op++)
        for (int k = 0; k < COUNT(lengths); k++)
            for (int bad = 0; bad < 2; bad++) {
                const int n = op == QX_R_PROD && lengths[k] > 64 ? 64 : lengths[k];
                for (int i = 0; i < 17 * n; i++) x[i] = op == QX_R_LOGSUM ? fabsf(rng_normal(&s)) + 0.1f : rng_normal(&s);
                if (bad && op != QX_R_LOGSUMEXP) x[n / 2] = NAN;
                want[0] = reduced((qx_reduce)op, x, n, 1);
                y[0] = qx_reduce_row((qx_reduce)op, x, n);
                close("reduction of a row", y, want, 1, 2e-5);
                qx_reduce_cols((qx_reduce)op, x, n, 17, y, 17);
                for (int i = 0; i < 17; i++) want[i] = reduced((qx_reduce)op, x + i, n, 17);
                close("reduction of columns", y, want, 17, 2e-5);
            }
    assert_true(qx_reduce_row(QX_R_SUM, x, 0) == 0 && qx_reduce_row(QX_R_PROD, x, 0) == 1);
    assert_true(qx_reduce_row(QX_R_MAX, x, 0) == -INFINITY && qx_reduce_row(QX_R_MIN, x, 0) == INFINITY &&
                isnan(qx_reduce_row(QX_R_MEAN, x, 0)));
}

/* Hard numbers give the same bits at every alignment, and a NaN anywhere in the row makes the result NaN. */
static void wild_rows(void **state)
{
    static float x[16 + MOST], y[MOST], first[MOST], gamma[MOST];
    uint32_t s = 61;
    (void)state;
    for (int i = 0; i < MOST; i++) gamma[i] = rng_normal(&s);
    for (int k = 0; k < COUNT(lengths); k++)
        for (int at = 0; at < 16; at++) {
            const int n = lengths[k];
            uint32_t same = 5 + (uint32_t)k; /* the same numbers for each `at` */
            for (int i = 0; i < n; i++) x[at + i] = adversarial(&same, at % 2);
            for (int op = QX_R_SUM; op <= QX_R_LOGSUMEXP; op++) {
                const float r = qx_reduce_row((qx_reduce)op, x + at, n),
                    moved = (memcpy(y, x + at, (size_t)n * sizeof *y), qx_reduce_row((qx_reduce)op, y, n));
                assert_true(memcmp(&r, &moved, sizeof r) == 0 || (isnan(r) && isnan(moved)));
            }
            qx_softmax_row(x + at, first, n, false), memcpy(y, x + at, (size_t)n * sizeof *y), qx_softmax_row(y, y, n, false);
            for (int i = 0; i < n; i++) assert_true(first[i] == y[i] || (isnan(first[i]) && isnan(y[i])));
            for (int i = 0; i < n; i++) x[at + i] = rng_normal(&s);
            x[at + (at * 7 + k) % n] = NAN;
            for (int op = QX_R_SUM; op <= QX_R_LOGSUMEXP; op++) assert_true(isnan(qx_reduce_row((qx_reduce)op, x + at, n)));
            qx_layernorm_row(x + at, gamma, gamma, 1e-5f, y, n, NULL, NULL), qx_rmsnorm_row(x + at, gamma, 1e-5f, first, n, NULL);
            for (int i = 0; i < n; i++) assert_true(isnan(y[i]) && isnan(first[i]));
            qx_softmax_row(x + at, y, n, true);
            for (int i = 0; i < n; i++) assert_true(isnan(y[i]));
        }
}

static void rotation_and_dot(void **state)
{
    float x[64], y[64], c[32], sn[32];
    double want[64];
    uint32_t s = 33;
    (void)state;
    for (int half = 1; half <= 32; half += half < 4 ? 1 : 7)
        for (int inter = 0; inter < 2; inter++) {
            double dot = 0;
            for (int i = 0; i < 2 * half; i++) x[i] = rng_normal(&s);
            for (int i = 0; i < half; i++) c[i] = rng_normal(&s), sn[i] = rng_normal(&s);
            for (int i = 0; i < half; i++) {
                const int a = inter ? 2 * i : i, b = inter ? 2 * i + 1 : i + half;
                want[a] = (double)x[a] * (double)c[i] - (double)x[b] * (double)sn[i];
                want[b] = (double)x[a] * (double)sn[i] + (double)x[b] * (double)c[i];
            }
            qx_rope_row(x, c, sn, half, inter, y);
            close("rope", y, want, 2 * half, 1e-6);
            for (int i = 0; i < 2 * half; i++) dot += (double)x[i] * (double)y[i];
            assert_true(fabs((double)qx_dot(x, y, 2 * half) - dot) < 1e-4);
            for (int i = 0; i < 2 * half; i++) want[i] = (double)y[i] + 0.5 * (double)x[i];
            qx_axpy(0.5f, x, y, 2 * half);
            close("axpy", y, want, 2 * half, 1e-6);
            memcpy(y, x, sizeof y);
            qx_rope_row(y, c, sn, half, inter, y); /* in place */
            qx_rope_row(x, c, sn, half, inter, x);
            assert_memory_equal(x, y, (size_t)(2 * half) * sizeof *x);
        }
}

static void copies(void **state)
{
    static const int sizes[] = {1, 2, 4, 8, 16};
    static const int64_t strides[] = {0, 1, 2, -1, -3, 7};
    static uint8_t src[16 * 4096], dst[16 * 1024 + 1];
    uint32_t s = 44;
    (void)state;
    for (size_t i = 0; i < sizeof src; i++) src[i] = (uint8_t)rng_next(&s);
    for (int k = 0; k < COUNT(sizes); k++)
        for (int t = 0; t < COUNT(strides); t++)
            for (int n = 0; n < 70; n += 1 + n / 9) {
                const int size = sizes[k];
                const uint8_t *from = src + 2000 * size;
                dst[n * size] = 0x99;
                qx_copy_run(from, strides[t], dst, n, size);
                for (int i = 0; i < n; i++) assert_memory_equal(dst + i * size, from + i * strides[t] * size, (size_t)size);
                assert_int_equal(dst[n * size], 0x99);
            }
    for (int k = 0; k < COUNT(sizes); k++)
        for (int rows = 1; rows <= 33; rows += 4)
            for (int cols = 1; cols <= 29; cols += 7) { /* a transposition into rows that are wider than they are filled */
                const int size = sizes[k];
                memset(dst, 0, sizeof dst);
                qx_copy_2d(src, 1, rows + 2, dst, 30, rows, cols, size);
                for (int r = 0; r < rows && (r * 30 + cols) * size < 16 * 1024; r++)
                    for (int c = 0; c < cols; c++)
                        assert_memory_equal(dst + (r * 30 + c) * size, src + (r + c * (rows + 2)) * size, (size_t)size);
            }
}

/* ---- Rows of exponentials, on every instruction set ---- */

static void scores_of(const qx_vmath *vm, float *x, int n)
{
    float mask[MOST], s[MOST];
    double want[MOST], top = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) mask[i] = i % 7 == 3 ? -INFINITY : 0.5f * (float)(i % 3);
    for (int i = 0; i < n; i++) {
        want[i] = (double)x[i] * 0.7 + (double)mask[i];
        top = want[i] > top ? want[i] : top; /* not when NaN */
    }
    memcpy(s, x, (size_t)n * sizeof *s);
    const float got = vm->score_top(s, n, 0.7f, mask);
    close("scores", s, want, n, 1e-6);
    if (!((double)got == top || fabs((double)got - top) <= 1e-6 * fabs(top) + 1e-44))
        fail_msg("top of %d: %.9g, expected %.9g", n, (double)got, top);
    if (top == -INFINITY) return;
    for (int i = 0; i < n; i++) sum += want[i] = exp((double)(s[i] - got)); /* the difference is rounded to float before */
    const float total = vm->exp_sum(s, n, got);
    close("exp", s, want, n, 3e-7);
    for (int i = 0; i < n; i++) assert_true(!(s[i] > 0 && s[i] < 1.17549435e-38f)); /* no subnormal numbers */
    if (!(isnan(sum) ? isnan(total) : fabs((double)total - sum) <= 1e-6 * sum))
        fail_msg("sum of %d: %.9g, expected %.9g", n, (double)total, sum);
}

static void affine_of(const qx_vmath *vm, float *x, int n, bool silu)
{
    qx_affine p;
    float y[MOST];
    double want[MOST] = {0};
    for (int l = 0; l < 16; l++) p.mean[l] = 0.1f * (float)l, p.a[l] = 2.0f - 0.3f * (float)l, p.b[l] = (float)(l % 4);
    for (int i = 0; i < n; i++) {
        /* as large as a float may be */
        const double z = (double)(float)((double)(x[i] - p.mean[i % 16]) * (double)p.a[i % 16] + (double)p.b[i % 16]);
        want[i] = silu ? z / (1 + exp(-z)) : z;
    }
    vm->affine(x, n, &p, silu, y);
    close(silu ? "affine and silu" : "affine", y, want, n, 1e-6);
    vm->affine(x, n, &p, silu, x); /* in place */
    assert_memory_equal(x, y, (size_t)n * sizeof *x);
}

static void activations_of(const qx_vmath *vm, float *x, int n)
{
    float y[MOST];
    double want[MOST] = {0};
    for (int i = 0; i < n; i++) want[i] = (double)x[i] / (1 + exp(-(double)x[i]));
    vm->silu(x, y, n);
    close("silu", y, want, n, 1e-6);
    for (int i = 0; i < n; i++) want[i] = 1 / (1 + exp(-(double)x[i]));
    vm->sigmoid(x, y, n);
    close("sigmoid", y, want, n, 3e-7);
    for (int i = 0; i < n; i++) want[i] = (double)x[i] * 0.5 * (1 + erf((double)x[i] * 0.70710678118654752440));
    vm->gelu(x, y, n);
    close("gelu", y, want, n, 1e-6);
    for (int i = 0; i < n; i++) {
        const double v = (double)x[i];
        want[i] = v / (1 + exp(-2 * sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))); /* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)) */
    }
    vm->gelu_tanh(x, y, n);
    close("gelu by tanh", y, want, n, 1e-6);
    vm->gelu(x, y, n);
    vm->gelu(x, x, n); /* in place */
    assert_memory_equal(x, y, (size_t)n * sizeof *x);
}

/* NaN, both infinities and what overflows, in every place of a vector. */
static void not_finite_of(const qx_vmath *vm, uint32_t *s)
{
    static const float ends[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, -1e20f, -200.0f, -104.0f, -88.5f, -87.0f, 88.5f, 0x1p-149f,
                                 -0x1p-140f, -0.0f, 0.0f};
    float x[33];
    for (int n = 1; n <= 33; n += 16)
        for (int at = 0; at < n; at++)
            for (int e = 0; e < COUNT(ends); e++) {
                for (int i = 0; i < n; i++) x[i] = adversarial(s, 1);
                x[at] = ends[e];
                affine_of(vm, x, n, true);
                for (int i = 0; i < n; i++) x[i] = adversarial(s, 1);
                x[at] = ends[e];
                activations_of(vm, x, n);
            }
}

/* By tables, what is left of a number below 0 is a number of its own and not 1 less something. */
static void gelu_below_zero(void **state)
{
    float x[64], y[64];
    (void)state;
    if (qx_isa_best() != QX_ISA_AVX512) return;
    for (int b = 0; b < 400; b++) {
        for (int i = 0; i < 64; i++) x[i] = -4.0f * (float)(64 * b + i + 1) / (64 * 400);
        qx_vmath_cpu(QX_ISA_AVX512)->gelu(x, y, 64);
        for (int i = 0; i < 64; i++) {
            const double want = (double)x[i] * 0.5 * erfc((double)x[i] * -0.70710678118654752440);
            if (!(fabs((double)y[i] - want) <= 1e-5 * -want))
                fail_msg("gelu(%.9g): %.9g, expected %.9g", (double)x[i], (double)y[i], want);
        }
    }
}

static void exponentials(void **state)
{
    float x[MOST];
    uint32_t s = 8;
    (void)state;
    for (int isa = -1; isa <= (int)qx_isa_best(); isa++) {
        const qx_vmath *vm = isa < 0 ? qx_vmath_ref() : qx_vmath_cpu((qx_isa)isa);
        not_finite_of(vm, &s);
        for (int k = 0; k < COUNT(lengths); k++)
            for (int f = 0; f < FILLS; f++) {
                const int n = lengths[k];
                make(x, n, (fill)f, &s);
                for (int i = 0; i < n && f == NORMAL; i++) x[i] *= 40; /* both ends of the exponential */
                if (f == TINY && n > 9) x[9] = NAN;
                if (f != LARGE) scores_of(vm, x, n);
                activations_of(vm, x, n);
                make(x, n, (fill)f, &s);
                for (int act = 0; act < 2; act++) affine_of(vm, x, n, act);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(softmax), cmocka_unit_test(normalisation), cmocka_unit_test(reductions),
                                       cmocka_unit_test(wild_rows), cmocka_unit_test(rotation_and_dot), cmocka_unit_test(copies),
                                       cmocka_unit_test(exponentials), cmocka_unit_test(gelu_below_zero)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
