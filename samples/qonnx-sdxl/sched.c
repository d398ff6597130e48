/* sched.c - timesteps and noise levels of a schedule: beta tables, spacings, Karras levels, names. The step rules are in sched_step.c.
 * Coefficients are computed in double; diffusers uses float32 tables, which differ by about 1e-6. */
#include "sched.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#define PI 3.14159265358979323846

const char *const sx_spacing_names[SX_SPACING_COUNT] = {"leading", "trailing", "linspace"};
const char *const sx_prediction_names[SX_PREDICTION_COUNT] = {"epsilon", "v_prediction", "sample"};
const char *const sx_betas_names[SX_BETAS_COUNT] = {"scaled_linear", "linear", "squaredcos_cap_v2"};

/* The class of diffusers behind each sampler, and what the class takes where a config is silent. */
static const struct { const char *name, *class_name; sx_spacing spacing; bool alpha_to_one, clip, sd_betas; } samplers[SX_SAMPLER_COUNT] = {
    [SX_EULER] = {"euler", "EulerDiscreteScheduler", SX_LINSPACE, false, false, false},
    [SX_EULER_A] = {"euler-a", "EulerAncestralDiscreteScheduler", SX_LINSPACE, false, false, false},
    [SX_DDIM] = {"ddim", "DDIMScheduler", SX_LEADING, true, true, false},
    [SX_DPMPP_2M] = {"dpmpp-2m", "DPMSolverMultistepScheduler", SX_LINSPACE, false, false, false},
    [SX_LCM] = {"lcm", "LCMScheduler", SX_LEADING, true, false, true},
    [SX_PNDM] = {"pndm", "PNDMScheduler", SX_LEADING, false, false, false},
};

/* Names of the command line: a sampler and what it sets beside; -1 leaves the folder's setting. */
static const struct { const char *name; sx_sampler sampler; int karras, spacing; } named[] = {
    {"euler", SX_EULER, 0, -1},          {"euler-karras", SX_EULER, 1, -1},       {"euler-trailing", SX_EULER, 0, SX_TRAILING},
    {"lightning", SX_EULER, 0, SX_TRAILING}, {"euler-a", SX_EULER_A, 0, -1},      {"turbo", SX_EULER_A, 0, SX_TRAILING},
    {"ddim", SX_DDIM, 0, -1},            {"ddim-trailing", SX_DDIM, 0, SX_TRAILING}, {"dpmpp-2m", SX_DPMPP_2M, 0, -1},
    {"dpmpp-2m-karras", SX_DPMPP_2M, 1, -1}, {"lcm", SX_LCM, 0, -1},              {"pndm", SX_PNDM, 0, -1},
};

sx_sched_config sx_sched_defaults(void)
{
    return (sx_sched_config){.sampler = SX_EULER, .spacing = SX_LEADING, .train_steps = 1000, .steps_offset = 1, .beta_start = 0.00085,
        .beta_end = 0.012, .clip_range = 1.0, .original_steps = 50, .timestep_scaling = 10.0, .skip_prk = true};
}

const char *sx_sampler_name(sx_sampler s) { return samplers[s].name; }

static int unknown(sx_err *e, const char *name, bool by_class)
{
    sx_text t = {0};
    for (int i = 0; by_class && i < SX_SAMPLER_COUNT; i++) sx_text_add(&t, "%s%s", i ? ", " : "", samplers[i].class_name);
    for (size_t i = 0; !by_class && i < sizeof named / sizeof *named; i++) sx_text_add(&t, "%s%s", i ? ", " : "", named[i].name);
    sx_fail(e, by_class ? SX_UNSUPPORTED : SX_USAGE, "scheduler '%.80s' is not known; known are: %s%s", name, t.s ? t.s : "",
            by_class ? " (choose one with --scheduler)" : "");
    sx_text_free(&t);
    return e->code;
}

int sx_sched_by_name(sx_err *e, const char *name, sx_sched_config *cfg)
{
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        if (strcasecmp(name, named[i].name) != 0) continue;
        cfg->sampler = named[i].sampler;
        cfg->karras = named[i].karras;
        if (named[i].spacing >= 0) cfg->spacing = (sx_spacing)named[i].spacing;
        return SX_OK;
    }
    return unknown(e, name, false);
}

int sx_sched_by_class(sx_err *e, const char *class_name, sx_sched_config *cfg)
{
    for (int i = 0; i < SX_SAMPLER_COUNT; i++) {
        if (strcmp(class_name, samplers[i].class_name) != 0) continue;
        *cfg = sx_sched_defaults();
        cfg->sampler = (sx_sampler)i;
        cfg->spacing = samplers[i].spacing;
        cfg->steps_offset = 0;
        cfg->set_alpha_to_one = samplers[i].alpha_to_one;
        cfg->clip_sample = samplers[i].clip;
        if (samplers[i].sd_betas) return SX_OK;
        cfg->betas = SX_LINEAR;
        cfg->beta_start = 0.0001;
        cfg->beta_end = 0.02;
        return SX_OK;
    }
    return unknown(e, class_name, true);
}

static double beta_at(const sx_sched_config *c, int i)
{
    int n = c->train_steps;
    double u = n > 1 ? (double)i / (n - 1) : 0;
    if (c->betas == SX_LINEAR) return c->beta_start + u * (c->beta_end - c->beta_start);
    if (c->betas == SX_COSINE) {
        double a = cos(((double)i / n + 0.008) / 1.008 * PI / 2), b = cos(((double)(i + 1) / n + 0.008) / 1.008 * PI / 2);
        return fmin(1 - b * b / (a * a), 0.999);
    }
    double r = sqrt(c->beta_start) + u * (sqrt(c->beta_end) - sqrt(c->beta_start));
    return r * r;
}

/* Lin et al. 2023, algorithm 1: shifts sqrt(abar) so that the last is 0, keeps the first. */
static void rescale_zero_snr(double *abar, int n)
{
    double first = sqrt(abar[0]), last = sqrt(abar[n - 1]);
    for (int i = 0; i < n; i++) {
        double r = (sqrt(abar[i]) - last) * first / (first - last);
        abar[i] = r * r;
    }
    abar[n - 1] = ldexp(1, -24); /* diffusers' stand-in for 0, so that sigma stays finite */
}

static void fill_abar(sx_sched *s)
{
    double p = 1;
    for (int i = 0; i < s->cfg.train_steps; i++) s->abar[i] = p *= 1 - beta_at(&s->cfg, i);
    if (s->cfg.zero_snr) rescale_zero_snr(s->abar, s->cfg.train_steps);
}

static double table_sigma(const sx_sched *s, int i) { return sqrt((1 - s->abar[i]) / s->abar[i]); }

static double sigma_at(const sx_sched *s, double t)
{
    int last = s->cfg.train_steps - 1, i = t <= 0 ? 0 : t >= last ? last : (int)t;
    double a = table_sigma(s, i), b = i < last ? table_sigma(s, i + 1) : a;
    return a + (t <= 0 || t >= last ? 0 : t - i) * (b - a);
}

/* Inverse of sigma_at by interpolation of log sigma. */
static double t_of_sigma(const sx_sched *s, double sigma)
{
    int lo = 0, hi = s->cfg.train_steps - 1;
    if (sigma <= table_sigma(s, 0)) return 0;
    if (sigma >= table_sigma(s, hi)) return hi;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (table_sigma(s, mid) <= sigma) lo = mid;
        else hi = mid;
    }
    double a = log(table_sigma(s, lo)), b = log(table_sigma(s, hi));
    return lo + (log(sigma) - a) / (b - a);
}

static void karras(double *sigma, int n, double smin, double smax)
{
    double a = pow(smax, 1 / 7.0), b = pow(smin, 1 / 7.0);
    for (int i = 0; i < n; i++) sigma[i] = pow(a + (n > 1 ? (double)i / (n - 1) : 0) * (b - a), 7);
}

/* diffusers' lists. DPM++ lays out one point more and drops it; its and DDIM's timesteps are whole numbers. */
static void space_timesteps(sx_sched *s, int n)
{
    const sx_sched_config *c = &s->cfg;
    int T = c->train_steps;
    bool dpm = c->sampler == SX_DPMPP_2M, whole = dpm || c->sampler == SX_DDIM || c->sampler == SX_PNDM;
    int points = dpm ? n + 1 : n;
    for (int i = 0; i < n; i++) {
        int up = points - 1 - i; /* lists are built rising and reversed */
        double t;
        if (c->spacing == SX_LEADING) t = (double)up * (T / points) + c->steps_offset;
        else if (c->spacing == SX_TRAILING) t = nearbyint(T - i * ((double)T / n)) - 1;
        else t = points > 1 ? (double)up * (T - 1) / (points - 1) : (dpm ? T - 1 : 0);
        s->t[i] = (float)(whole ? nearbyint(t) : t);
    }
}

static void lcm_timesteps(sx_sched *s, int n)
{
    int k = s->cfg.train_steps / s->cfg.original_steps, len = s->cfg.original_steps;
    for (int i = 0; i < n; i++) s->t[i] = (float)((len - (int)floor((double)i * len / n)) * k - 1);
}

/* PLMS calls the second timestep twice, to start its multistep rule: n + 1 calls. */
static void pndm_timesteps(sx_sched *s, int n)
{
    space_timesteps(s, n);
    if (n < 2) return;
    for (int i = n; i >= 2; i--) s->t[i] = s->t[i - 1];
    s->n = n + 1;
}

static void fill_sigmas(sx_sched *s)
{
    const sx_sched_config *c = &s->cfg;
    for (int i = 0; i < s->n; i++) s->sigma[i] = sigma_at(s, s->t[i]);
    s->sigma[s->n] = c->final_sigma_min ? table_sigma(s, 0) : 0;
    if (!c->karras || (c->sampler != SX_EULER && c->sampler != SX_DPMPP_2M)) return;
    bool dpm = c->sampler == SX_DPMPP_2M; /* DPM++ spans the whole table, Euler the chosen list */
    double smin = dpm ? table_sigma(s, 0) : s->sigma[s->n - 1], smax = dpm ? table_sigma(s, c->train_steps - 1) : s->sigma[0];
    karras(s->sigma, s->n, smin, smax);
    for (int i = 0; i < s->n; i++) {
        double t = t_of_sigma(s, s->sigma[i]);
        s->t[i] = (float)(dpm ? nearbyint(t) : t);
    }
}

static double init_scale(const sx_sched *s)
{
    if (s->cfg.sampler != SX_EULER && s->cfg.sampler != SX_EULER_A) return 1;
    double m = s->sigma[0];
    return s->cfg.spacing == SX_LEADING ? sqrt(m * m + 1) : m;
}

static int check(sx_err *e, const sx_sched_config *c, int steps)
{
    if (c->train_steps < 2 || c->train_steps > 100000)
        return sx_fail(e, SX_FAILED, "num_train_timesteps is %d, expected 2 to 100000", c->train_steps);
    int most = c->sampler == SX_LCM ? c->original_steps : c->train_steps - (c->sampler == SX_DPMPP_2M);
    if (steps < 1 || steps > most)
        return sx_fail(e, SX_USAGE, "%d steps with scheduler %s, expected 1 to %d", steps, samplers[c->sampler].name, most);
    if (!(c->beta_start > 0) || !(c->beta_end >= c->beta_start) || !(c->beta_end < 1))
        return sx_fail(e, SX_FAILED, "beta_start %g and beta_end %g, expected 0 < start <= end < 1", c->beta_start, c->beta_end);
    if (c->sampler == SX_LCM && (c->original_steps < 1 || c->original_steps > c->train_steps))
        return sx_fail(e, SX_FAILED, "original_inference_steps is %d, expected 1 to %d", c->original_steps, c->train_steps);
    if (c->sampler == SX_PNDM && !c->skip_prk)
        return sx_fail(e, SX_UNSUPPORTED, "PNDM with skip_prk_steps false is not offered; use --scheduler ddim or euler");
    return SX_OK;
}

int sx_sched_new(sx_err *e, const sx_sched_config *cfg, int steps, sx_sched **out)
{
    SX_TRY(check(e, cfg, steps));
    sx_sched *s;
    SX_TRY(SX_NEW(e, 1, &s));
    s->cfg = *cfg;
    s->n = s->steps = steps;
    int rc = SX_OK;
    SX_TRY_GOTO(rc, SX_NEW(e, steps + 1, &s->t));
    SX_TRY_GOTO(rc, SX_NEW(e, steps + 2, &s->sigma));
    SX_TRY_GOTO(rc, SX_NEW(e, cfg->train_steps, &s->abar));
    fill_abar(s);
    if (cfg->sampler == SX_LCM) lcm_timesteps(s, steps);
    else if (cfg->sampler == SX_PNDM) pndm_timesteps(s, steps);
    else space_timesteps(s, steps);
    fill_sigmas(s);
    s->end = s->n;
    s->init_scale = init_scale(s);
    *out = s;
    return SX_OK;
done:
    sx_sched_free(s);
    return rc;
}

void sx_sched_free(sx_sched *s)
{
    if (!s) return;
    for (int i = 0; i < 4; i++) sx_free(s->hist[i]);
    sx_free(s->saved);
    sx_free(s->t);
    sx_free(s->sigma);
    sx_free(s->abar);
    sx_free(s);
}

int sx_sched_window(sx_err *e, sx_sched *s, int begin, int end)
{
    if (begin < 0 || begin >= end || end > s->n) return sx_fail(e, SX_USAGE, "no step is left: steps %d to %d of %d", begin, end, s->n);
    s->begin = begin;
    s->end = end;
    return SX_OK;
}

int sx_sched_start_late(sx_err *e, sx_sched *s, double strength)
{
    int keep = (int)(s->steps * strength);
    return sx_sched_window(e, s, s->steps - (keep < 1 ? 1 : keep), s->n);
}
