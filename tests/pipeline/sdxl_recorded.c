/* Draws with the bundled micro-sdxl and compares with what diffusers computed: timesteps exactly, latents after every step within 1e-3 of the
 * largest value, pictures at 50 dB or more, for each recorded scheduler. Two calls a step (--unet with batch 1) give the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "samples/qonnx-sdxl/run.h"

#define DIR TEST_SOURCE_DIR "/samples/models/micro-sdxl"

typedef struct recorded { float *latents; int64_t steps, per; float timesteps[64]; sx_image picture; } recorded;

static void copy_array(qonnx_ctx *ctx, const qonnx_tensor *t, recorded *r)
{
    sx_err e;
    int64_t n = qonnx_tensor_numel(t);
    if (strcmp(t->name, "latents") == 0) {
        r->steps = t->dims[0];
        r->per = n / r->steps;
        assert_int_equal(SX_NEW(&e, n, &r->latents), SX_OK);
        assert_int_equal(qonnx_to_float(ctx, t->dtype, t->data, n, r->latents), QONNX_OK);
    } else if (strcmp(t->name, "timesteps") == 0) {
        assert_true(n <= 64);
        assert_int_equal(qonnx_to_float(ctx, t->dtype, t->data, n, r->timesteps), QONNX_OK);
    } else if (strcmp(t->name, "picture") == 0) {
        assert_int_equal(sx_image_new(&e, (int)t->dims[1], (int)t->dims[0], 0, &r->picture), SX_OK);
        memcpy(r->picture.rgb, t->data, (size_t)n);
    }
}

static void load(qonnx_ctx *ctx, const char *name, recorded *r)
{
    char path[512];
    qonnx_npz *z;
    *r = (recorded){0};
    snprintf(path, sizeof path, "%s/recorded/%s.npz", DIR, name);
    if (qonnx_npz_open(ctx, path, &z) != QONNX_OK) fail_msg("%s", qonnx_error(ctx));
    for (int i = 0; i < qonnx_npz_count(z); i++) {
        qonnx_tensor t;
        if (qonnx_npz_get(z, i, &t) == QONNX_OK) copy_array(ctx, &t, r); /* the prompt and the settings are text: not numbers */
    }
    qonnx_npz_close(z);
    assert_true(r->latents && r->picture.rgb);
}

typedef struct seen { float t[64]; int n; } seen;
static void on_timestep(void *user, double t)
{
    seen *s = user;
    if (s->n < 64) s->t[s->n++] = (float)t;
}

static double worst_step(const recorded *r, const sx_shot *s)
{
    double worst = 0;
    for (int64_t k = 0; k < r->steps; k++) {
        double top = 0, d = 0;
        for (int64_t i = k * r->per; i < (k + 1) * r->per; i++) {
            top = fmax(top, fabs(r->latents[i]));
            d = fmax(d, fabs((double)r->latents[i] - s->trace[i]));
        }
        worst = fmax(worst, d / top);
    }
    return worst;
}

static void run_one(const char *name, const char *scheduler, int steps, double guidance)
{
    qonnx_ctx *ctx = qonnx_open();
    recorded r;
    sx_err e = {0};
    sx_folder f;
    sx_batch *b;
    load(ctx, name, &r);
    char *text[] = {"a red circle left of a blue square on a gray background"};
    sx_prompts prompts = {text, 1};
    sx_options o = {.scheduler = scheduler, .steps = steps, .guidance = guidance, .seed = 3, .count = 1, .width = -1, .height = -1, .eta = NAN, .strength = NAN, .quiet = true};
    if (sx_folder_open(&e, DIR, NULL, &f) != SX_OK) fail_msg("%s", e.text);
    if (sx_batch_new(&e, &o, ctx, &f, &prompts, &b) != SX_OK) fail_msg("%s", e.text);
    seen s = {.n = 0};
    b->keep_trace = true;
    b->on_timestep = on_timestep;
    b->user = &s;
    sx_pipe_init(&b->pipe, ctx, &f, "device=cpu");
    if (sx_batch_run(&e, b) != SX_OK) fail_msg("%s: %s", name, e.text);
    assert_int_equal(b->shots[0].steps, r.steps);
    assert_int_equal(s.n, r.steps);
    assert_memory_equal(s.t, r.timesteps, (size_t)s.n * sizeof(float));
    double worst = worst_step(&r, &b->shots[0]);
    sx_compared c;
    assert_int_equal(sx_compare(&e, &r.picture, &b->shots[0].picture, &c), SX_OK);
    print_message("%-16s latents within %.2g, picture %.1f dB, %.3f s a step\n", name, worst, c.psnr, b->step_total / (double)b->step_count);
    assert_true(worst < 1e-3);
    assert_true(c.psnr >= 50);
    sx_batch_free(b);
    sx_folder_free(&f);
    sx_free(r.latents);
    sx_image_free(&r.picture);
    qonnx_close(ctx);
}

static void euler(void **state) { (void)state; run_one("euler", "euler", 12, 4); }
static void euler_a(void **state) { (void)state; run_one("euler_a", "euler-a", 12, 4); }
static void euler_trailing(void **state) { (void)state; run_one("euler_trailing", "euler-trailing", 4, 4); }
static void ddim(void **state) { (void)state; run_one("ddim", "ddim", 12, 4); }
static void dpmpp(void **state) { (void)state; run_one("dpmpp_2m", "dpmpp-2m", 12, 4); }
static void dpmpp_karras(void **state) { (void)state; run_one("dpmpp_2m_karras", "dpmpp-2m-karras", 12, 4); }
static void lcm(void **state) { (void)state; run_one("lcm", "lcm", 4, 1); }

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(euler), cmocka_unit_test(euler_a), cmocka_unit_test(euler_trailing), cmocka_unit_test(ddim), cmocka_unit_test(dpmpp),
        cmocka_unit_test(dpmpp_karras), cmocka_unit_test(lcm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
