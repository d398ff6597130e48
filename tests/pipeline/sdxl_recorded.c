/* Draws with the bundled pipelines and compares with what diffusers computed: timesteps exactly, latents after every step within
 * 1e-3 of the largest value, pictures at 50 dB or more. micro-sdxl for each scheduler; tiny folders
 * (tests/data/make_pipelines.py) for each layout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "samples/qonnx-sdxl/run.h"

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

static void load(qonnx_ctx *ctx, const char *dir, const char *name, recorded *r)
{
    char path[640];
    qonnx_npz *z;
    *r = (recorded){0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
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

/* One recorded run: the file beside what it takes to repeat it. */
typedef struct row {
    const char *dir, *record, *scheduler; /* below the test's source folder; scheduler NULL: the folder's */
    int steps;
    double guidance;
    int64_t seed;
    const char *negative, *init, *refiner_mode; /* refiner_mode: with the tiny refiner behind it */
    double strength, within, psnr;        /* latents: largest difference by the largest value; picture in dB */
    bool tokenizers;                      /* the folder has none: those of micro-sdxl */
    const char *mask;
    int clip_skip;
} row;

static const row rows[] = {
#define MICRO "/samples/models/micro-sdxl"
    {MICRO, "recorded/euler.npz", "euler", 12, 4, 3, .within = 1e-3, .psnr = 50},
    {MICRO, "recorded/euler_a.npz", "euler-a", 12, 4, 3, .within = 1e-3, .psnr = 50},
    {MICRO, "recorded/euler_trailing.npz", "euler-trailing", 4, 4, 3, .within = 1e-3, .psnr = 50},
    {MICRO, "recorded/ddim.npz", "ddim", 12, 4, 3, .within = 1e-3, .psnr = 50},
    {MICRO, "recorded/dpmpp_2m.npz", "dpmpp-2m", 12, 4, 3, .within = 1e-3, .psnr = 50},
    {MICRO, "recorded/dpmpp_2m_karras.npz", "dpmpp-2m-karras", 12, 4, 3, .within = 1e-3, .psnr = 50},
    {MICRO, "recorded/lcm.npz", "lcm", 4, 1, 3, .within = 1e-3, .psnr = 50},
#define TINY "/tests/data/pipelines/"
#define RING "a green ring"
    {TINY "sdxl", "recorded.npz", NULL, 4, 5, 7, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "sdxl", "turbo.npz", "turbo", 3, 0, 7, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "sdxl", "clip-skip.npz", NULL, 4, 5, 7, RING, .within = 1e-3, .psnr = 50, .tokenizers = true, .clip_skip = 1},
    {TINY "lcm", "recorded.npz", NULL, 3, 2, 7, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "refiner", "recorded.npz", NULL, 4, 5, 7, NULL, "init.png", .strength = 0.5, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "sdxl", "../refiner/ensemble.npz", NULL, 10, 5, 7, RING, NULL, "ensemble", .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "sdxl", "../refiner/img2img.npz", NULL, 10, 5, 7, RING, NULL, "img2img", .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "sd15", "img2img.npz", NULL, 8, 7.5, 7, RING, "init.png", .strength = 0.5, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "sd15", "recorded.npz", NULL, 4, 7.5, 7, RING, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "sd2", "recorded.npz", NULL, 4, 6, 7, RING, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "inpaint", "recorded.npz", NULL, 6, 7.5, 7, RING, "init.png", .strength = 1, .within = 1e-3, .psnr = 50, .tokenizers = true,
     .mask = "mask.png"},
    {TINY "inpaint", "strength.npz", NULL, 6, 7.5, 7, RING, "init.png", .strength = 0.5, .within = 1e-3, .psnr = 50, .tokenizers = true,
     .mask = "mask.png"},
    {TINY "sdxl", "../inpaint/xl-turbo.npz", "turbo", 4, 5, 7, RING, "../inpaint/init.png", .strength = 1, .within = 1e-3, .psnr = 50,
     .tokenizers = true, .mask = "../inpaint/mask.png"},
    {TINY "sdxl", "../inpaint/xl-strength.npz", NULL, 4, 5, 7, RING, "../inpaint/init.png", .strength = 0.75, .within = 1e-3, .psnr = 50,
     .tokenizers = true, .mask = "../inpaint/mask.png"},
    {TINY "trt", "recorded.npz", "euler", 4, 5, 7, RING, .within = 1e-3, .psnr = 50, .tokenizers = true},
    {TINY "half", "recorded.npz", NULL, 4, 5, 7, RING, .within = 2e-2, .psnr = 30, .tokenizers = true},
};

static void set_up(const row *r, sx_options *o, char *dir, char *init, char *mask, size_t cap)
{
    *o = (sx_options){.scheduler = r->scheduler, .steps = r->steps, .guidance = r->guidance, .seed = r->seed, .clip_skip = r->clip_skip,
                      .negative = r->negative, .count = 1, .width = -1, .height = -1, .eta = NAN,
        .strength = r->init ? r->strength : NAN, .quiet = true};
    if (strstr(r->dir, "trt")) o->width = o->height = 64; /* this layout has no config that says the size */
    if (r->tokenizers) {
        o->over.tokenizer = TEST_SOURCE_DIR MICRO "/tokenizer";
        o->over.tokenizer_2 = TEST_SOURCE_DIR MICRO "/tokenizer_2";
    }
    if (r->refiner_mode) {
        o->refiner = TEST_SOURCE_DIR TINY "refiner";
        o->refiner_mode = r->refiner_mode;
        o->refiner_start = 0.8;
        o->refiner_strength = 0.3;
    }
    snprintf(dir, cap, "%s%s", TEST_SOURCE_DIR, r->dir);
    snprintf(init, cap, "%s%s/%s", TEST_SOURCE_DIR, r->dir, r->init ? r->init : "");
    snprintf(mask, cap, "%s%s/%s", TEST_SOURCE_DIR, r->dir, r->mask ? r->mask : "");
    o->init = r->init ? init : NULL;
    o->mask = r->mask ? mask : NULL;
}

static void compare(const row *w, const recorded *r, const seen *s, const sx_batch *b)
{
    sx_err e = {0};
    assert_int_equal(b->shots[0].steps, r->steps);
    assert_int_equal(s->n, r->steps);
    assert_memory_equal(s->t, r->timesteps, (size_t)s->n * sizeof(float));
    double worst = worst_step(r, &b->shots[0]);
    sx_compared c;
    assert_int_equal(sx_compare(&e, &r->picture, &b->shots[0].picture, &c), SX_OK);
    print_message("%s %-28s latents within %.2g, picture %.1f dB, %.3f s a step\n", strrchr(w->dir, '/') + 1, w->record, worst, c.psnr,
                  b->step_total / (double)b->step_count);
    assert_true(worst < w->within);
    assert_true(c.psnr >= w->psnr);
}

static void run_one(void **state)
{
    const row *w = *state;
    qonnx_ctx *ctx = qonnx_open();
    recorded r;
    sx_err e = {0};
    sx_folder f;
    sx_batch *b;
    sx_options o;
    char dir[512], init[512], mask[512], *text[] = {"a red circle left of a blue square on a gray background"};
    sx_prompts prompts = {text, 1};
    seen s = {.n = 0};
    set_up(w, &o, dir, init, mask, sizeof dir);
    load(ctx, dir, w->record, &r);
    if (sx_folder_open(&e, dir, &o.over, &f) != SX_OK) fail_msg("%s", e.text);
    if (sx_batch_new(&e, &o, ctx, &f, &prompts, &b) != SX_OK) fail_msg("%s", e.text);
    b->keep_trace = true;
    b->on_timestep = on_timestep;
    b->user = &s;
    sx_pipe_init(&b->pipe, ctx, &f, "device=cpu");
    if (sx_batch_run(&e, b) != SX_OK) fail_msg("%s: %s", w->record, e.text);
    compare(w, &r, &s, b);
    sx_batch_free(b);
    sx_folder_free(&f);
    sx_free(r.latents);
    sx_image_free(&r.picture);
    qonnx_close(ctx);
}

int main(void)
{
    enum { N = sizeof rows / sizeof *rows };
    struct CMUnitTest tests[N];
    for (int i = 0; i < N; i++) tests[i] = (struct CMUnitTest){rows[i].record, run_one, NULL, NULL, (void *)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
