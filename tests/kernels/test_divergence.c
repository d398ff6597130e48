/* test_divergence.c - log sums and Kullback-Leibler divergences of rows of logits against the formula in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "kernels/divergence.h"

enum { MOST = 1000 };

static double log_sum(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - 100);
    return log(sum) + 100;
}

static double divergence(const float *p, const float *q, int n)
{
    const double a = log_sum(p, n), b = log_sum(q, n);
    double sum = 0;
    for (int i = 0; i < n; i++)
        if ((double)p[i] - a > -80) sum += exp((double)p[i] - a) * ((double)p[i] - a - ((double)q[i] - b));
    return sum;
}

/* Lengths around the pieces and lanes of the loops. */
static void formula(void **state)
{
    static const int lengths[] = {1, 2, 7, 8, 9, 255, 256, 257, 263, 1000};
    float p[MOST], q[MOST];
    (void)state;
    for (int i = 0; i < MOST; i++) p[i] = (float)(30 * sin(1.7 * i) + i % 13), q[i] = p[i] + (float)cos(2.3 * i);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const int n = lengths[i];
        const double a = qx_log_sum_exp(p, n), b = qx_log_sum_exp(q, n), want = divergence(p, q, n);
        assert_true(fabs(a - log_sum(p, n)) < 1e-6 && fabs(b - log_sum(q, n)) < 1e-6);
        assert_true(fabs(qx_divergence(p, a, q, b, n) - want) < 1e-6 * (1 + want));
        assert_true(fabs(qx_divergence(p, a, p, a, n)) == 0);
    }
}

/* What a mask has put far below the rest counts as nothing, on either side. */
static void masked(void **state)
{
    const float p[] = {1, 2, -INFINITY, 3, -1e30f, 0, 0.5f, 1, 2}, q[] = {1, 2, -INFINITY, 3, 5, 0, 0.5f, 1, 2};
    (void)state;
    const double a = qx_log_sum_exp(p, 9), b = qx_log_sum_exp(q, 9), kl = qx_divergence(p, a, q, b, 9);
    assert_true(isfinite(a) && fabs(kl - (b - a)) < 1e-6);
}

static void energy(void **state)
{
    static const int lengths[] = {0, 1, 7, 8, 9, 1000};
    float a[MOST], b[MOST];
    (void)state;
    for (int i = 0; i < MOST; i++) a[i] = (float)(30 * sin(1.7 * i)), b[i] = a[i] + (float)cos(2.3 * i);
    for (size_t t = 0; t < sizeof lengths / sizeof *lengths; t++) {
        double signal, noise, want_signal = 0, want_noise = 0;
        for (int i = 0; i < lengths[t]; i++) {
            const double d = (double)a[i] - (double)b[i];
            want_signal += (double)a[i] * (double)a[i], want_noise += d * d;
        }
        qx_noise(a, b, lengths[t], &signal, &noise);
        assert_true(fabs(signal - want_signal) <= 1e-12 * want_signal && fabs(noise - want_noise) <= 1e-12 * want_noise);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(formula), cmocka_unit_test(masked), cmocka_unit_test(energy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
