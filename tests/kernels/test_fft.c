/* test_fft.c - transforms of every kind of length against the definition, in long double. */
#include "kernels.h"

#include "kernels/fft.h"

enum { MOST = 2048 };

static void check(int n, qx_complex *w, const qx_complex *in, qx_complex *out, qx_complex *room)
{
    const long double two_pi = 6.283185307179586476925286766559L;
    qx_fft f;
    int64_t all = 1;
    qx_fft_plan(n, w, &f);
    for (int i = 0; i < f.factors; i++) all *= f.factor[i];
    assert_int_equal(all, n);
    qx_fft_run(&f, in, out, room);
    for (int k = 0; k < n; k += n > 400 ? 37 : 1) {
        long double re = 0, im = 0;
        for (int t = 0; t < n; t++) {
            const long double a = two_pi * (long double)((int64_t)k * t % n) / n;
            re += (long double)in[t].re * cosl(a) + (long double)in[t].im * sinl(a);
            im += (long double)in[t].im * cosl(a) - (long double)in[t].re * sinl(a);
        }
        if (!(fabs((double)re - out[k].re) + fabs((double)im - out[k].im) < 1e-13 * n)) fail_msg("length %d, number %d", n, k);
    }
}

static void lengths(void **state)
{
    static const int more[] = {97, 128, 240, 360, 400, 441, 1021, 1024, 2 * 1021, 2048};
    static qx_complex w[MOST], in[MOST], out[MOST], room[MOST];
    uint32_t s = 5;
    (void)state;
    for (int i = 0; i < MOST; i++) in[i] = (qx_complex){(double)rng_normal(&s), (double)rng_normal(&s)};
    for (int n = 1; n <= 64; n++) check(n, w, in, out, room);
    for (int i = 0; i < COUNT(more); i++) check(more[i], w, in, out, room);
}

/* What is a whole number of eighths of the circle is exact: constants have no energy but in their first number. */
static void exact_where_it_can_be(void **state)
{
    static qx_complex w[64], in[64], out[64], room[64];
    qx_fft f;
    (void)state;
    for (int i = 0; i < 64; i++) in[i] = (qx_complex){1, 0};
    qx_fft_plan(64, w, &f);
    qx_fft_run(&f, in, out, room);
    for (int i = 0; i < 64; i++) assert_true(out[i].re == (i ? 0 : 64) && out[i].im == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lengths), cmocka_unit_test(exact_where_it_can_be)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
