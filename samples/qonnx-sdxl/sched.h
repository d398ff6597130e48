/* sched.h - the samplers of diffusion pipelines, equal to diffusers' classes of the same name. A schedule is a list of timesteps that the
 * UNet is called with, the noise level of each, and a rule that turns (latent, UNet output) into the next latent. */
#ifndef SX_SCHED_H
#define SX_SCHED_H

#include "rng.h"
#include "util.h"

typedef enum sx_sampler { SX_EULER, SX_EULER_A, SX_DDIM, SX_DPMPP_2M, SX_LCM, SX_PNDM, SX_SAMPLER_COUNT } sx_sampler;
typedef enum sx_spacing { SX_LEADING, SX_TRAILING, SX_LINSPACE, SX_SPACING_COUNT } sx_spacing;
typedef enum sx_prediction { SX_EPSILON, SX_V_PREDICTION, SX_SAMPLE, SX_PREDICTION_COUNT } sx_prediction;
typedef enum sx_betas { SX_SCALED_LINEAR, SX_LINEAR, SX_COSINE, SX_BETAS_COUNT } sx_betas;

typedef struct sx_sched_config {
    sx_sampler sampler;
    sx_spacing spacing;
    sx_prediction prediction;
    sx_betas betas;
    int train_steps, steps_offset;
    double beta_start, beta_end;
    bool karras;             /* noise levels by Karras et al., rho 7 */
    bool set_alpha_to_one;   /* DDIM, PNDM: noise-free end instead of abar_0 */
    bool clip_sample;        /* DDIM: the predicted picture is clamped to +-clip_range */
    double clip_range;
    bool zero_snr;           /* betas rescaled so that the last step has no signal */
    double eta;              /* DDIM */
    int original_steps;      /* LCM: length of the list that was distilled */
    double timestep_scaling; /* LCM */
    bool final_sigma_min;    /* the list of noise levels ends in the smallest one instead of zero */
    bool skip_prk;           /* PNDM: without Runge-Kutta warm-up, the only form offered */
} sx_sched_config;

typedef struct sx_sched {
    sx_sched_config cfg;
    int n;               /* UNet calls of the whole schedule */
    int steps;           /* steps asked for: n, or n - 1 with PNDM */
    int begin, end;      /* calls to make: img2img begins late, the base of an ensemble ends early */
    float *t;            /* [n] */
    double *sigma;       /* [n + 1], ends in 0; of VP samplers sqrt((1-abar)/abar) at t */
    double *abar;        /* [train_steps] */
    double init_scale;   /* the first latent is noise times this */
    float *hist[4];      /* outputs of earlier steps (multistep rules), hist[0] the newest */
    int n_hist;
    float *saved;        /* PNDM: latent of the first call */
    size_t numel;        /* of hist and saved; 0 until the first step */
    int count;           /* steps taken */
} sx_sched;

/* SDXL base's schedule: Euler, leading with offset 1, scaled_linear 0.00085 to 0.012, epsilon. */
sx_sched_config sx_sched_defaults(void);
/* Names of --scheduler ("euler", "dpmpp-2m-karras", "turbo", ...): what they say replaces that of cfg. Unknown: an error that lists all. */
int sx_sched_by_name(sx_err *e, const char *name, sx_sched_config *cfg);
/* scheduler_config.json's _class_name: cfg becomes that class with its own defaults, which differ from SDXL's. Unknown: as above,
 * cfg unchanged. */
int sx_sched_by_class(sx_err *e, const char *class_name, sx_sched_config *cfg);
const char *sx_sampler_name(sx_sampler s);
extern const char *const sx_spacing_names[SX_SPACING_COUNT], *const sx_prediction_names[SX_PREDICTION_COUNT],
    *const sx_betas_names[SX_BETAS_COUNT];

int sx_sched_new(sx_err *e, const sx_sched_config *cfg, int steps, sx_sched **out);
void sx_sched_free(sx_sched *s);
/* Calls [begin, end) only; the rules still see the whole list. */
int sx_sched_window(sx_err *e, sx_sched *s, int begin, int end);
/* The last strength x steps steps, at least one: where a picture as start begins. */
int sx_sched_start_late(sx_err *e, sx_sched *s, double strength);
/* What the UNet sees at call i: out = x, scaled where the sampler wants it. */
void sx_sched_scale(const sx_sched *s, int i, const float *x, size_t n, float *out);
/* x becomes the next latent. Noise of stochastic samplers is drawn from rng, n values a draw, exactly when diffusers draws it. */
int sx_sched_step(sx_err *e, sx_sched *s, int i, const float *model_out, float *x, size_t n, sx_rng *rng);
/* Clean latent to the noise level at which call i starts: x = x with noise. */
void sx_sched_add_noise(const sx_sched *s, int i, float *x, const float *noise, size_t n);

#endif
