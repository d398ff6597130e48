/* sched_config.c - scheduler_config.json to a schedule. A setting that would change the picture and is not offered is named,
 * never ignored. */
#include "sched_config.h"

#include <stdio.h>
#include <string.h>

static const char config[] = "scheduler_config.json";

static int read_choice(sx_err *e, const sx_json *j, const char *key, const char *const *names, int n, int *value)
{
    const char *text = sx_json_text(j, key, NULL);
    for (int i = 0; text && i < n; i++) {
        if (strcmp(names[i], text) != 0) continue;
        *value = i;
        return SX_OK;
    }
    return text ? sx_fail(e, SX_UNSUPPORTED, "%s: %s is '%.60s', known are %s, %s, %s", config, key, text, names[0], names[1], names[2])
        : SX_OK;
}

/* Settings with one value that is offered, and the samplers whose class reads them (a file may hold keys of another class). */
enum { EULER = 1 << SX_EULER, EULER_A = 1 << SX_EULER_A, DDIM = 1 << SX_DDIM, DPM = 1 << SX_DPMPP_2M, LCM = 1 << SX_LCM,
       PNDM = 1 << SX_PNDM };
static const struct { const char *key, *only; unsigned samplers; } fixed[] = {
    {"trained_betas", NULL, EULER | EULER_A | DDIM | DPM | LCM | PNDM},
    {"interpolation_type", "linear", EULER},
    {"timestep_type", "discrete", EULER},
    {"sigma_min", NULL, EULER},
    {"sigma_max", NULL, EULER},
    {"use_exponential_sigmas", "false", EULER | DPM},
    {"use_beta_sigmas", "false", EULER | DPM},
    {"use_lu_lambdas", "false", DPM},
    {"use_flow_sigmas", "false", DPM},
    {"thresholding", "false", DDIM | DPM | LCM},
    {"algorithm_type", "dpmsolver++", DPM},
    {"solver_type", "midpoint", DPM},
    {"solver_order", "2", DPM},
    {"variance_type", NULL, DPM},
};

/* A scalar as text; NULL for null, absent, and what has no short text. */
static const char *scalar(const sx_json *v, char *buf, size_t cap)
{
    const char *text = sx_json_string(v);
    if (text) return text;
    if (sx_json_is_bool(v)) return sx_json_truth(v) ? "true" : "false";
    snprintf(buf, cap, "%g", sx_json_value(v, 0));
    return sx_json_is_array(v) ? "a list" : buf;
}

static int check_fixed(sx_err *e, const sx_json *j, sx_sampler sampler)
{
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        char buf[32];
        if (!(fixed[i].samplers >> sampler & 1) || !sx_json_has(j, fixed[i].key)) continue;
        const char *is = scalar(sx_json_get(j, fixed[i].key), buf, sizeof buf), *only = fixed[i].only;
        if (!only || strcmp(is, only) != 0)
            return sx_fail(e, SX_UNSUPPORTED, "%s: %s is %.40s, only %s is offered (choose a sampler with --scheduler)", config,
                           fixed[i].key, is, only ? only : "null");
    }
    return SX_OK;
}

static int read_numbers(sx_err *e, const sx_json *j, sx_sched_config *c)
{
    int spacing = c->spacing, prediction = c->prediction, betas = c->betas;
    SX_TRY(read_choice(e, j, "timestep_spacing", sx_spacing_names, SX_SPACING_COUNT, &spacing));
    SX_TRY(read_choice(e, j, "prediction_type", sx_prediction_names, SX_PREDICTION_COUNT, &prediction));
    SX_TRY(read_choice(e, j, "beta_schedule", sx_betas_names, SX_BETAS_COUNT, &betas));
    c->spacing = (sx_spacing)spacing;
    c->prediction = (sx_prediction)prediction;
    c->betas = (sx_betas)betas;
    SX_TRY(sx_json_whole(e, j, config, "num_train_timesteps", 1, 100000, &c->train_steps));
    SX_TRY(sx_json_whole(e, j, config, "steps_offset", 0, 100000, &c->steps_offset));
    return sx_json_whole(e, j, config, "original_inference_steps", 1, 100000, &c->original_steps);
}

int sx_sched_read(sx_err *e, const sx_json *j, sx_sched_config *c, char **problem)
{
    sx_err why = {0};
    int rc = sx_sched_by_class(&why, sx_json_text(j, "_class_name", "EulerDiscreteScheduler"), c);
    if (rc == SX_OK) rc = check_fixed(&why, j, c->sampler);
    if (rc != SX_OK) SX_TRY(sx_strdup(e, why.text, problem));
    SX_TRY(read_numbers(e, j, c));
    c->beta_start = sx_json_number(j, "beta_start", c->beta_start);
    c->beta_end = sx_json_number(j, "beta_end", c->beta_end);
    c->karras = sx_json_bool(j, "use_karras_sigmas", c->karras);
    c->set_alpha_to_one = sx_json_bool(j, "set_alpha_to_one", c->set_alpha_to_one);
    c->clip_sample = sx_json_bool(j, "clip_sample", c->clip_sample);
    c->clip_range = sx_json_number(j, "clip_sample_range", c->clip_range);
    c->zero_snr = sx_json_bool(j, "rescale_betas_zero_snr", c->zero_snr);
    c->timestep_scaling = sx_json_number(j, "timestep_scaling", c->timestep_scaling);
    c->final_sigma_min = strcmp(sx_json_text(j, "final_sigmas_type", "zero"), "sigma_min") == 0;
    c->skip_prk = c->sampler != SX_PNDM || sx_json_bool(j, "skip_prk_steps", false);
    return SX_OK;
}
