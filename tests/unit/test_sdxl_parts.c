/* The picture sample without a model: finding inputs by role, pipeline folders that lack something, the command line, prompt lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "samples/qonnx-sdxl/folder.h"
#include "samples/qonnx-sdxl/model.h"
#include "samples/qonnx-sdxl/options.h"
#include "samples/qonnx-sdxl/pipeline.h"
#include "samples/qonnx-sdxl/run.h"

static const sx_role roles[] = {
    {{"sample", "latent"}, .rank = 4, .rank2 = -1},
    {{"timestep"}, .rank = 0, .rank2 = 1, .any_type = true},
    {{"text_embeds"}, .rank = 2, .rank2 = -1},
    {{"time_ids"}, .rank = 2, .rank2 = -1, .last = 6},
    {{"timestep_cond"}, .rank = 2, .rank2 = -1, .last = 256, .optional = true},
};
enum { N_ROLES = sizeof roles / sizeof *roles };

static void by_name_and_alias(void **state)
{
    (void)state;
    const qonnx_port ports[] = {{"time_ids", QONNX_FLOAT16, 2, {-1, 6}}, {"latent", QONNX_FLOAT16, 4, {-1, 4, -1, -1}},
                                {"timestep", QONNX_INT64, 1, {1}}, {"text_embeds", QONNX_FLOAT16, 2, {-1, 1280}}};
    int at[N_ROLES];
    sx_err e = {0};
    assert_int_equal(sx_bind_ports(&e, "unet", ports, 4, roles, N_ROLES, true, at), SX_OK);
    const int want[] = {1, 2, 3, 0, -1};
    assert_memory_equal(at, want, sizeof want);
}

static void by_shape(void **state)
{
    (void)state;
    const qonnx_port ports[] = {{"a", QONNX_FLOAT, 4, {-1, 4, -1, -1}}, {"b", QONNX_FLOAT, 0, {0}}, {"c", QONNX_FLOAT, 2, {-1, 96}},
                                {"d", QONNX_FLOAT, 2, {-1, 6}}};
    int at[N_ROLES];
    sx_err e = {0};
    assert_int_equal(sx_bind_ports(&e, "unet", ports, 4, roles, N_ROLES, true, at), SX_OK);
    assert_true(at[0] == 0 && at[1] == 1 && at[2] == 2 && at[3] == 3);
    const qonnx_port vague[] = {{"a", QONNX_FLOAT, 4, {-1, 4, -1, -1}}, {"b", QONNX_FLOAT, 0, {0}}, {"c", QONNX_FLOAT, 2, {-1, -1}},
                                {"d", QONNX_FLOAT, 2, {-1, -1}}};
    assert_int_equal(sx_bind_ports(&e, "unet", vague, 4, roles, N_ROLES, true, at), SX_UNSUPPORTED);
    assert_non_null(strstr(e.text, "more than one"));
    assert_non_null(strstr(e.text, "c f32[?,?], d f32[?,?]")); /* lists what is there */
}

static void leftovers(void **state)
{
    (void)state;
    const qonnx_port ports[] = {{"sample", QONNX_FLOAT, 4, {-1, 4, -1, -1}}, {"timestep", QONNX_FLOAT, 0, {0}},
                                {"text_embeds", QONNX_FLOAT, 2, {-1, 96}}, {"time_ids", QONNX_FLOAT, 2, {-1, 6}},
                                {"control", QONNX_FLOAT, 1, {7}}};
    int at[N_ROLES];
    sx_err e = {0};
    assert_int_equal(sx_bind_ports(&e, "unet", ports, 5, roles, N_ROLES, true, at), SX_UNSUPPORTED);
    assert_non_null(strstr(e.text, "control"));
    assert_int_equal(sx_bind_ports(&e, "unet", ports, 5, roles, N_ROLES, false, at), SX_OK);
    assert_int_equal(sx_bind_ports(&e, "unet", ports + 1, 4, roles, N_ROLES, false, at), SX_UNSUPPORTED);
    assert_non_null(strstr(e.text, "nothing matches 'sample'"));
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[300];
    sx_err e;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    *strrchr(path, '/') = 0;
    assert_int_equal(sx_make_dirs(&e, path), SX_OK);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(sx_write_file(&e, path, text, strlen(text)), SX_OK);
}

static void expect_error(const char *dir, int code, const char *part)
{
    sx_folder f;
    sx_err e = {0};
    assert_int_equal(sx_folder_open(&e, dir, NULL, &f), code);
    if (!strstr(e.text, part)) fail_msg("'%s' lacks '%s'", e.text, part);
}

/* A schedule that is not offered is an error of drawing only: --scheduler may replace it. */
static void expect_problem(const char *dir, const char *part)
{
    sx_folder f;
    sx_err e = {0};
    sx_options o = {.width = -1, .height = -1, .steps = 5, .guidance = NAN, .eta = NAN, .strength = NAN};
    sx_plan plan;
    if (sx_folder_open(&e, dir, NULL, &f) != SX_OK) fail_msg("%s", e.text);
    assert_non_null(f.sched_problem);
    if (!strstr(f.sched_problem, part)) fail_msg("'%s' lacks '%s'", f.sched_problem, part);
    assert_int_equal(sx_plan_make(&e, &o, &f, &plan), SX_UNSUPPORTED);
    o.scheduler = "euler";
    assert_int_equal(sx_plan_make(&e, &o, &f, &plan), SX_OK);
    sx_folder_free(&f);
}

static void folders(void **state)
{
    (void)state;
    char dir[] = "/tmp/sdxl_dir_XXXXXX", clean[64];
    assert_non_null(mkdtemp(dir));
    expect_error("/nonexistent/x", SX_FAILED, "not a folder");
    expect_error(dir, SX_FAILED, "unet/model.onnx, vae_decoder/model.onnx");
    put(dir, "unetxl.opt/model.onnx", "x");
    put(dir, "vae.opt/only.onnx", "x");
    put(dir, "clip2.opt/model.onnx", "x");
    expect_error(dir, SX_FAILED, "tokenizer_2/ (or --tokenizer-2 DIR); found: ");
    put(dir, "tokenizer_2/vocab.json", "{}");
    put(dir, "vae/config.json", "{\"scaling_factor\": 0.5, \"block_out_channels\": [1,2,3,4], \"latents_mean\": [1,2,3,4], "
                                "\"latents_std\": [1,1,1,1]}");
    put(dir, "scheduler/scheduler_config.json", "{\"_class_name\": \"EulerAncestralDiscreteScheduler\", \"timestep_spacing\": "
                                                "\"trailing\", \"prediction_type\": \"v_prediction\"}");
    put(dir, "unet/config.json", "{\"sample_size\": 64, \"time_cond_proj_dim\": 256}");
    sx_folder f;
    sx_err e = {0};
    if (sx_folder_open(&e, dir, NULL, &f) != SX_OK) fail_msg("%s", e.text);
    assert_true(f.sched.sampler == SX_EULER_A && f.sched.spacing == SX_TRAILING && f.sched.prediction == SX_V_PREDICTION);
    assert_true(f.vae_scaling == 0.5 && f.vae_factor == 8 && f.size == 512 && f.time_cond_dim == 256 && f.latent_mean[3] == 4 &&
                f.aesthetics && !f.force_zeros);
    assert_non_null(strstr(f.model[SX_VAE_DEC], "only.onnx"));
    sx_options o;
    sx_plan plan;
    char *argv[] = {"x", dir, "-p", "a"};
    assert_int_equal(sx_options_parse(&e, 4, argv, &o), SX_OK);
    assert_int_equal(sx_plan_make(&e, &o, &f, &plan), SX_OK);
    assert_true(plan.steps == 4 && plan.guidance == 0 && plan.width == 512); /* turbo's defaults */
    sx_options_free(&o);
    sx_folder_free(&f);
    put(dir, "vae.opt/second.onnx", "x");
    expect_error(dir, SX_FAILED, "2 .onnx files");
    put(dir, "vae.opt/model.onnx", "x");
    put(dir, "vae/config.json", "{\"scaling_factor\": -1}");
    expect_error(dir, SX_FAILED, "scaling_factor is -1");
    put(dir, "vae/config.json", "{\"latents_mean\": [1]}");
    expect_error(dir, SX_FAILED, "has 1 numbers, the latent 4 channels");
    put(dir, "vae/config.json", "{}"); /* old exports name no factor: SDXL's, and not 2^(blocks - 1) */
    assert_int_equal(sx_folder_open(&e, dir, NULL, &f), SX_OK);
    assert_true(f.scaling_assumed && f.vae_scaling == 0.13025);
    sx_folder_free(&f);
    put(dir, "scheduler/scheduler_config.json", "{\"prediction_type\": \"magic\"}");
    expect_error(dir, SX_UNSUPPORTED, "prediction_type is 'magic'");
    put(dir, "scheduler/scheduler_config.json", "{\"_class_name\": \"DDIMScheduler\", \"solver_order\": 3}");
    assert_int_equal(sx_folder_open(&e, dir, NULL, &f), SX_OK); /* the class's own defaults; a key of another class says nothing */
    assert_true(!f.sched_problem && f.sched.sampler == SX_DDIM && f.sched.betas == SX_LINEAR && f.sched.beta_end == 0.02 &&
                f.sched.spacing == SX_LEADING);
    assert_true(f.sched.steps_offset == 0 && f.sched.set_alpha_to_one && f.sched.clip_sample);
    sx_folder_free(&f);
    put(dir, "scheduler/scheduler_config.json", "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"solver_order\": 3}");
    expect_problem(dir, "solver_order is 3, only 2 is offered");
    put(dir, "scheduler/scheduler_config.json",
        "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"sde-dpmsolver++\"}");
    expect_problem(dir, "algorithm_type is sde-dpmsolver++, only dpmsolver++");
    put(dir, "scheduler/scheduler_config.json", "{\"trained_betas\": [0.1, 0.2]}");
    expect_problem(dir, "trained_betas is a list, only null");
    put(dir, "scheduler/scheduler_config.json", "{\"num_train_timesteps\": -1}");
    expect_error(dir, SX_FAILED, "num_train_timesteps is -1, expected a whole number from 1 to 100000");
    put(dir, "scheduler/scheduler_config.json", "{\"steps_offset\": null}");
    put(dir, "unet/config.json", "{\"sample_size\": 1e300}");
    expect_error(dir, SX_FAILED, "sample_size is 1e+300, expected a whole number from 1 to 2048");
    put(dir, "unet/config.json", "{\"sample_size\": \"big\"}");
    expect_error(dir, SX_FAILED, "sample_size is not a number");
    put(dir, "unet/config.json", "{\"time_cond_proj_dim\": 7}");
    expect_error(dir, SX_FAILED, "time_cond_proj_dim is 7, expected an even number");
    snprintf(clean, sizeof clean, "rm -r %s", dir);
    assert_int_equal(system(clean), 0);
}

static int parse(sx_err *e, sx_options *o, int n, const char *const *args)
{
    char *argv[16] = {"qonnx-sdxl"};
    for (int i = 0; i < n; i++) argv[i + 1] = (char *)args[i];
    return sx_options_parse(e, n + 1, argv, o);
}

static void command_line(void **state)
{
    (void)state;
    sx_options o;
    sx_err e = {0};
    const char *good[] = {"dir", "-p", "a", "--prompt=b", "-s", "7", "--size", "96x64", "--ref", "-S9007199254740992", "--guidance", "2.5"};
    assert_int_equal(parse(&e, &o, 12, good), SX_OK);
    assert_true(o.prompts.n == 2 && strcmp(o.prompts.v[1], "b") == 0 && o.steps == 7 && o.width == 96 && o.height == 64 && o.ref &&
                o.seed == 9007199254740992 && o.guidance == 2.5);
    sx_options_free(&o);
    static const struct { const char *args[3]; int n; const char *says; } bad[] = {
        {{"--stps", "3"}, 2, "--steps"},       {{"--steps", "0"}, 2, "1 to 1000"},    {{"--steps", "2.5"}, 2, "whole"},
        {{"--guidance", "nan"}, 2, "not a number"},
        {{"--steps"}, 1, "needs a value"},     {{"--ref=1"}, 1, "takes no value"},    {{"a", "b"}, 2, "two folders"},
        {{"--size", "12xx"}, 2, "WIDTHxHEIGHT"},
        {{"--size", "0x64"}, 2, "positive"},   {{"--size", "-8"}, 2, "positive"},
        {{"--qqqqqqqqqqqq"}, 1, "--help"},     {{"-z"}, 1, "unknown option"},         {{"--strength", "1.5"}, 2, "out of range"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse(&e, &o, bad[i].n, bad[i].args), SX_USAGE);
        if (!strstr(e.text, bad[i].says)) fail_msg("'%s' lacks '%s'", e.text, bad[i].says);
        sx_options_free(&o);
    }
}

static void prompt_lists(void **state)
{
    (void)state;
    sx_prompts p;
    sx_err e = {0};
    assert_int_equal(sx_prompts_load(&e, &(sx_list){0}, "builtin", &p), SX_OK);
    assert_int_equal(p.n, 64);
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < i; j++) assert_string_not_equal(p.text[i], p.text[j]);
    sx_prompts_free(&p);
    char path[] = "/tmp/sdxl_prompts_XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "# head\n\n  one \r\ntwo", 19), 19);
    const char *more[] = {"zero"};
    assert_int_equal(sx_prompts_load(&e, &(sx_list){more, 1}, path, &p), SX_OK);
    assert_int_equal(p.n, 3);
    assert_string_equal(p.text[1], "one");
    assert_string_equal(p.text[2], "two");
    sx_prompts_free(&p);
    assert_int_equal(write(fd, "\0x", 2), 2);
    assert_int_equal(sx_prompts_load(&e, &(sx_list){0}, path, &p), SX_FAILED);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(sx_prompts_load(&e, &(sx_list){0}, path, &p), SX_FAILED);
    assert_int_equal(sx_prompts_load(&e, &(sx_list){0}, NULL, &p), SX_USAGE);
    close(fd);
    unlink(path);
}

static void guidance_embedding(void **state)
{
    (void)state;
    float v[256];
    sx_guidance_embedding(2.5, 256, v); /* w = 1500 */
    assert_true(fabs(v[0] - sin(1500.0)) < 1e-6 && fabs(v[128] - cos(1500.0)) < 1e-6);
    assert_true(fabs(v[127] - sin(0.15)) < 1e-6 && fabs(v[255] - cos(0.15)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_name_and_alias), cmocka_unit_test(by_shape), cmocka_unit_test(leftovers),
                                       cmocka_unit_test(folders),
        cmocka_unit_test(command_line), cmocka_unit_test(prompt_lists), cmocka_unit_test(guidance_embedding)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
