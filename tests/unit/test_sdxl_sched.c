/* Schedules and random numbers of the picture sample, against vectors computed in double and numbers that torch prints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "samples/qonnx-sdxl/sched.h"
#include "tests/unit/sched_recorded.h"

static void near_rel(double got, double want, double tol)
{
    if (fabs(got - want) > tol * fmax(1, fabs(want))) fail_msg("got %.8g, expected %.8g", got, want);
}

static sx_sched *make(sx_sampler sampler, sx_spacing spacing, bool karras, int n)
{
    sx_err e = {0};
    sx_sched_config c = sx_sched_defaults();
    c.sampler = sampler;
    c.spacing = spacing;
    c.karras = karras;
    sx_sched *s = NULL;
    if (sx_sched_new(&e, &c, n, &s) != SX_OK) fail_msg("%s", e.text);
    return s;
}

static void betas(void **state)
{
    (void)state;
    sx_sched *s = make(SX_EULER, SX_LEADING, false, 20);
    near_rel(s->abar[0], 0.99915, 1e-8);
    near_rel(s->abar[1], 0.99829603, 1e-8);
    near_rel(s->abar[499], 0.27766965, 1e-8);
    near_rel(s->abar[999], 0.00466010, 1e-8);
    sx_sched_free(s);
}

static const struct row { int n; sx_spacing sp; double t0, t1, t_last, s0, s1, s2, s_last, init, s_before; } rows[] = {
    {20, SX_LEADING, 951, 901, 1, 11.028331, 8.390685, 6.506398, 0.041314, 11.073576, 0.228147},
    {30, SX_LEADING, 958, 925, 1, 11.476846, 9.543583, 8.004311, 0.041314, 11.520330, 0.182166},
    {50, SX_LEADING, 981, 961, 1, 13.120411, 11.676046, 10.425041, 0.041314, 13.158464, 0.141463},
    {4, SX_TRAILING, 999, 749, 249, 14.614641, 4.081729, 1.612886, 0.693205, 14.614641, 0},
    {8, SX_TRAILING, 999, 874, 124, 14.614641, 7.297352, 4.081729, 0.397746, 14.614641, 0},
    {30, SX_TRAILING, 999, 966, 32, 14.614641, 12.017744, 9.917172, 0.176321, 14.614641, 0},
    {20, SX_LINSPACE, 999, 946.421, 0, 14.614641, 10.746844, 8.081534, 0.029167, 14.614641, 0},
};

static void spacings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        sx_sched *s = make(SX_EULER, r->sp, false, r->n);
        near_rel(s->t[0], r->t0, 1e-6);
        near_rel(s->t[1], r->t1, 1e-6);
        near_rel(s->t[r->n - 1], r->t_last, 1e-6);
        near_rel(s->sigma[0], r->s0, 1e-6);
        near_rel(s->sigma[1], r->s1, 1e-6);
        near_rel(s->sigma[2], r->s2, 1e-6);
        near_rel(s->sigma[r->n - 1], r->s_last, 1e-6);
        if (r->s_before) near_rel(s->sigma[r->n - 2], r->s_before, 3e-6);
        assert_true(s->sigma[r->n] == 0);
        near_rel(s->init_scale, r->init, 1e-6);
        sx_sched_free(s);
    }
}

static void karras_levels(void **state)
{
    (void)state;
    static const double want[] = {11.028331, 8.979169, 7.265430};
    sx_sched *s = make(SX_EULER, SX_LEADING, true, 20);
    for (int i = 0; i < 3; i++) near_rel(s->sigma[i], want[i], 1e-6);
    near_rel(s->sigma[18], 0.063901, 1e-6);
    near_rel(s->sigma[19], 0.041314, 1e-6);
    sx_sched_free(s);
    static const float t[] = {999, 933, 854, 761, 646, 506, 345, 190, 78, 23, 4, 0}; /* as diffusers 0.42 prints them */
    s = make(SX_DPMPP_2M, SX_LEADING, true, 12);
    for (int i = 0; i < 12; i++) assert_true(s->t[i] == t[i]);
    sx_sched_free(s);
}

static void whole_lists(void **state)
{
    (void)state;
    static const float lcm4[] = {999, 759, 499, 259}, lcm8[] = {999, 879, 759, 639, 499, 379, 259, 139};
    static const float dpm[] = {913, 837, 761, 685, 609, 533, 457, 381, 305, 229, 153, 77};
    sx_sched *s = make(SX_LCM, SX_LEADING, false, 4);
    for (int i = 0; i < 4; i++) assert_true(s->t[i] == lcm4[i]);
    sx_sched_free(s);
    s = make(SX_LCM, SX_LEADING, false, 8);
    for (int i = 0; i < 8; i++) assert_true(s->t[i] == lcm8[i]);
    sx_sched_free(s);
    s = make(SX_DPMPP_2M, SX_LEADING, false, 12);
    for (int i = 0; i < 12; i++) assert_true(s->t[i] == dpm[i]);
    sx_sched_free(s);
    s = make(SX_PNDM, SX_LEADING, false, 50); /* diffusers: 981, 961, 961, 941 ... 21, 1 */
    assert_int_equal(s->n, 51);
    assert_true(s->t[0] == 981 && s->t[1] == 961 && s->t[2] == 961 && s->t[3] == 941 && s->t[50] == 1);
    sx_sched_free(s);
}

/* With the true noise as the network's answer, every sampler that ends at no noise must return the clean latent. */
static void exact_denoiser(void **state)
{
    (void)state;
    static const sx_sampler all[] = {SX_EULER, SX_EULER_A, SX_DPMPP_2M};
    for (size_t k = 0; k < 3; k++) {
        for (int pred = SX_EPSILON; pred <= SX_SAMPLE; pred++) {
            sx_err e = {0};
            sx_sched_config c = sx_sched_defaults();
            c.sampler = all[k];
            c.prediction = (sx_prediction)pred;
            sx_sched *s = NULL;
            assert_int_equal(sx_sched_new(&e, &c, 10, &s), SX_OK);
            float clean[32], x[32], m[32], noise[32];
            sx_rng r;
            sx_rng_init(&r, SX_RNG_CPU, 5);
            sx_rng_normal(&r, clean, 32);
            sx_rng_normal(&r, noise, 32);
            memcpy(x, clean, sizeof x);
            sx_sched_add_noise(s, 0, x, noise, 32);
            for (int i = 0; i < s->n; i++) {
                bool ve = all[k] != SX_DPMPP_2M;
                double sg = s->sigma[i], al = 1 / sqrt(sg * sg + 1);
                for (int j = 0; j < 32; j++) {
                    double xs = ve ? x[j] * al : x[j], eps = (xs - al * clean[j]) / (sg * al);
                    m[j] = (float)(pred == SX_EPSILON ? eps : pred == SX_SAMPLE ? clean[j] : al * eps - sg * al * clean[j]);
                }
                assert_int_equal(sx_sched_step(&e, s, i, m, x, 32, &r), SX_OK);
            }
            for (int j = 0; j < 32; j++) near_rel(x[j], clean[j], 1e-4);
            sx_sched_free(s);
        }
    }
}

static void ancestral_split(void **state)
{
    (void)state;
    sx_err e = {0};
    sx_sched *s = make(SX_EULER_A, SX_TRAILING, false, 4);
    float x[16] = {0}, m[16], z[16];
    sx_rng r, same;
    sx_rng_init(&r, SX_RNG_CPU, 0);
    sx_rng_init(&same, SX_RNG_CPU, 0);
    sx_rng_normal(&same, z, 16);
    for (int j = 0; j < 16; j++) m[j] = 1;
    assert_int_equal(sx_sched_step(&e, s, 0, m, x, 16, &r), SX_OK);
    for (int j = 0; j < 16; j++) near_rel(x[j], (1.139988 - 14.614641) + 3.919304 * z[j], 1e-5);
    sx_sched_free(s);
}

static void bad_settings(void **state)
{
    (void)state;
    sx_err e = {0};
    sx_sched_config c = sx_sched_defaults();
    sx_sched *s = NULL;
    assert_int_equal(sx_sched_by_name(&e, "heun9000", &c), SX_USAGE);
    assert_non_null(strstr(e.text, "dpmpp-2m-karras"));
    assert_int_equal(sx_sched_by_class(&e, "MagicScheduler", &c), SX_UNSUPPORTED);
    assert_non_null(strstr(e.text, "EulerDiscreteScheduler"));
    assert_int_equal(sx_sched_new(&e, &c, 0, &s), SX_USAGE);
    assert_int_equal(sx_sched_new(&e, &c, 1001, &s), SX_USAGE);
    assert_int_equal(sx_sched_by_name(&e, "lcm", &c), SX_OK);
    assert_int_equal(sx_sched_new(&e, &c, 51, &s), SX_USAGE);
    c.beta_end = 2;
    assert_int_equal(sx_sched_new(&e, &c, 4, &s), SX_FAILED);
}

static void torch_cpu(void **state)
{
    (void)state;
    static const double four[] = {1.5410, -0.2934, -2.1788, 0.5684};
    static const double sixteen[] = {-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.6920, -0.3160, -2.1152, 0.3223, -1.2633, 0.3500,
                                     0.3081, 0.1198, 1.2377, 1.1168, -0.2473};
    static const double s42[] = {1.9269, 1.4873, 0.9007, -2.1055};
    float x[19];
    sx_rng r;
    sx_rng_init(&r, SX_RNG_CPU, 0);
    sx_rng_normal(&r, x, 4);
    for (int i = 0; i < 4; i++) near_rel(x[i], four[i], 6e-5);
    sx_rng_init(&r, SX_RNG_CPU, 0);
    sx_rng_normal(&r, x, 16);
    for (int i = 0; i < 16; i++) near_rel(x[i], sixteen[i], 6e-5);
    sx_rng_init(&r, SX_RNG_CPU, 42);
    sx_rng_normal(&r, x, 16);
    for (int i = 0; i < 4; i++) near_rel(x[i], s42[i], 6e-5);
    sx_rng_init(&r, SX_RNG_CPU, 0);
    sx_rng_normal(&r, x, 19); /* the first 3 are those of 16, the last 16 are drawn again */
    for (int i = 0; i < 3; i++) near_rel(x[i], sixteen[i], 6e-5);
    assert_true(fabs(x[5] - sixteen[5]) > 1e-3);
}

static void torch_cuda(void **state)
{
    (void)state;
    static const double s0[] = {-0.9247, -0.4253, -2.6438, 0.1452}, s42[] = {0.1940, 2.1614, -0.1721, 0.8491};
    float x[4], y[4];
    sx_rng r;
    sx_rng_init(&r, SX_RNG_CUDA, 0);
    sx_rng_normal(&r, x, 4);
    for (int i = 0; i < 4; i++) near_rel(x[i], s0[i], 6e-5);
    sx_rng_normal(&r, y, 4);
    assert_true(x[0] != y[0]);
    sx_rng_init(&r, SX_RNG_CUDA, 42);
    sx_rng_normal(&r, x, 4);
    for (int i = 0; i < 4; i++) near_rel(x[i], s42[i], 6e-5);
}

/* Latent, timesteps and every step of a diffusers scheduler; the UNet's place is taken by 0.7 sin(2 x + t / 1000). */
static void replay(const sx_sched_config *c, int steps, const float *start, const float *t, int calls, const float (*want)[16])
{
    enum { N = 16 };
    sx_err e = {0};
    sx_sched *s;
    sx_rng rng;
    float x[N], in[N], out[N];
    if (sx_sched_new(&e, c, steps, &s) != SX_OK) fail_msg("%s", e.text);
    assert_int_equal(s->n, calls);
    sx_rng_init(&rng, SX_RNG_CPU, 5);
    sx_rng_normal(&rng, x, N);
    for (int k = 0; k < N; k++) {
        x[k] = (float)(x[k] * s->init_scale);
        near_rel(x[k], start[k], 2e-5);
    }
    for (int i = 0; i < calls; i++) {
        near_rel(s->t[i], t[i], 1e-5);
        sx_sched_scale(s, i, x, N, in);
        for (int k = 0; k < N; k++) out[k] = 0.7f * sinf(2 * in[k] + s->t[i] / 1000);
        if (sx_sched_step(&e, s, i, out, x, N, &rng) != SX_OK) fail_msg("step %d: %s", i, e.text);
        for (int k = 0; k < N; k++) near_rel(x[k], want[i][k], 5e-4);
    }
    sx_sched_free(s);
}

#define CASE(name, steps, settings)                                                            \
    static void recorded_##name(void **state)                                                  \
    {                                                                                          \
        (void)state;                                                                           \
        sx_sched_config c = sx_sched_defaults();                                               \
        settings;                                                                              \
        replay(&c, steps, name##_start, name##_t, (int)(sizeof name##_t / sizeof(float)), name##_x); \
    }
RECORDED(CASE)
#undef CASE

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(betas), cmocka_unit_test(spacings), cmocka_unit_test(karras_levels),
                                       cmocka_unit_test(whole_lists),
        cmocka_unit_test(exact_denoiser), cmocka_unit_test(ancestral_split), cmocka_unit_test(bad_settings), cmocka_unit_test(torch_cpu),
        cmocka_unit_test(torch_cuda),
#define CASE(name, steps, settings) cmocka_unit_test(recorded_##name),
        RECORDED(CASE)
#undef CASE
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
