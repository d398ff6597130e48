/* sched_step.c - one step of each sampler. x is the latent, m the UNet's output; all rules work on the whole batch at once and keep
 * diffusers' order of noise draws, because the picture of a seed depends on it. */
#include <math.h>
#include <string.h>

#include "sched.h"

typedef struct step_in { const sx_sched *s; int i; const float *m; float *x; size_t n; const float *z; } step_in;

/* Predicted clean latent as a * x + b * m, at signal level abar. */
typedef struct lin { double a, b; } lin;

static lin clean_vp(const sx_sched *s, double abar)
{
    double sa = sqrt(abar), sb = sqrt(1 - abar);
    switch (s->cfg.prediction) {
    case SX_V_PREDICTION: return (lin){sa, -sb};
    case SX_SAMPLE: return (lin){0, 1};
    default: return (lin){1 / sa, -sb / sa};
    }
}

/* The same where the latent is not scaled down by sqrt(abar): x = x0 + sigma * noise. */
static lin clean_ve(const sx_sched *s, double sigma)
{
    double q = sigma * sigma + 1;
    switch (s->cfg.prediction) {
    case SX_V_PREDICTION: return (lin){1 / q, -sigma / sqrt(q)};
    case SX_SAMPLE: return (lin){0, 1};
    default: return (lin){1, -sigma};
    }
}

static double abar_at(const sx_sched *s, int t)
{
    if (t < 0) return s->cfg.set_alpha_to_one ? 1.0 : s->abar[0];
    return s->abar[t < s->cfg.train_steps ? t : s->cfg.train_steps - 1];
}

/* x += (x - x0) / sigma * (next - sigma), then the ancestral noise. */
static void euler(const step_in *p, double next, double up)
{
    double sg = p->s->sigma[p->i];
    lin c = clean_ve(p->s, sg);
    double r = (next - sg) / sg, kx = 1 + r * (1 - c.a), km = -r * c.b;
    for (size_t j = 0; j < p->n; j++) p->x[j] = (float)(kx * p->x[j] + km * p->m[j] + (up > 0 ? up * p->z[j] : 0));
}

static void step_euler(const step_in *p) { euler(p, p->s->sigma[p->i + 1], 0); }

static void step_euler_a(const step_in *p)
{
    double s = p->s->sigma[p->i], s2 = p->s->sigma[p->i + 1];
    double up = sqrt(s2 * s2 * (s * s - s2 * s2) / (s * s));
    euler(p, sqrt(s2 * s2 - up * up), up);
}

static void step_ddim(const step_in *p)
{
    const sx_sched *s = p->s;
    int t = (int)p->s->t[p->i], ratio = s->cfg.train_steps / s->steps;
    double a = abar_at(s, t), b = abar_at(s, t - ratio), lim = s->cfg.clip_range;
    double sd = s->cfg.eta * sqrt((1 - b) / (1 - a) * (1 - a / b)), dir = sqrt(fmax(1 - b - sd * sd, 0));
    lin c = clean_vp(s, a);
    for (size_t j = 0; j < p->n; j++) {
        double x0 = c.a * p->x[j] + c.b * p->m[j], eps = (p->x[j] - sqrt(a) * x0) / sqrt(1 - a);
        if (s->cfg.clip_sample) x0 = fmin(fmax(x0, -lim), lim); /* eps stays what the network said, as in diffusers */
        p->x[j] = (float)(sqrt(b) * x0 + dir * eps + (sd > 0 ? sd * p->z[j] : 0));
    }
}

static void step_lcm(const step_in *p)
{
    const sx_sched *s = p->s;
    int t = (int)s->t[p->i];
    bool last = p->i == s->n - 1;
    double a = abar_at(s, t), b = abar_at(s, last ? t : (int)s->t[p->i + 1]), k = s->cfg.timestep_scaling * t;
    double skip = 0.25 / (k * k + 0.25), out = k / sqrt(k * k + 0.25), lim = s->cfg.clip_range;
    lin c = clean_vp(s, a);
    for (size_t j = 0; j < p->n; j++) {
        double x0 = c.a * p->x[j] + c.b * p->m[j];
        if (s->cfg.clip_sample) x0 = fmin(fmax(x0, -lim), lim);
        double d = out * x0 + skip * p->x[j];
        p->x[j] = (float)(last ? d : sqrt(b) * d + sqrt(1 - b) * p->z[j]);
    }
}

/* Newest first; pointers rotate, the oldest buffer is reused. */
static float *push_hist(sx_sched *s)
{
    float *oldest = s->hist[3];
    memmove(s->hist + 1, s->hist, 3 * sizeof *s->hist);
    s->hist[0] = oldest;
    if (s->n_hist < 4) s->n_hist++;
    return oldest;
}

/* DPM-Solver++(2M), midpoint: first order on the first step and on the step to no noise. */
static void step_dpmpp(sx_sched *s, const step_in *p)
{
    int i = p->i;
    double sg = s->sigma[i], next = s->sigma[i + 1], al = 1 / sqrt(sg * sg + 1), an = 1 / sqrt(next * next + 1);
    lin c = clean_vp(s, al * al);
    float *d0 = push_hist(s);
    for (size_t j = 0; j < p->n; j++) d0[j] = (float)(c.a * p->x[j] + c.b * p->m[j]);
    double h = log(sg) - log(next), em = next > 0 ? expm1(-h) : -1, kx = next * an / (sg * al);
    bool short_list = s->n < 15 && i == s->n - 1; /* lower_order_final */
    bool first_order = s->n_hist < 2 || (i == s->n - 1 && next == 0) || short_list;
    double r = first_order ? 1 : (log(s->sigma[i - 1]) - log(sg)) / h;
    for (size_t j = 0; j < p->n; j++) {
        double d = first_order ? d0[j] : d0[j] + (0.5 / r) * ((double)d0[j] - s->hist[1][j]);
        p->x[j] = (float)(kx * p->x[j] - an * em * d);
    }
}

static void plms_move(const sx_sched *s, int t, int prev, const step_in *p, const double *k, int terms, const float *x)
{
    double a = abar_at(s, t), b = abar_at(s, prev), den = a * sqrt(1 - b) + sqrt(a * (1 - a) * b);
    bool v = s->cfg.prediction == SX_V_PREDICTION;
    for (size_t j = 0; j < p->n; j++) {
        double m = 0;
        for (int q = 0; q < terms; q++) m += k[q] * s->hist[q][j];
        if (v) m = sqrt(a) * m + sqrt(1 - a) * x[j];
        p->x[j] = (float)(sqrt(b / a) * x[j] - (b - a) * m / den);
    }
}

/* Pseudo linear multistep: the second call repeats the first step with the mean of both outputs. */
static void step_pndm(sx_sched *s, const step_in *p)
{
    static const double k[5][4] = {{0}, {1}, {1.5, -0.5}, {23 / 12.0, -16 / 12.0, 5 / 12.0}, {55 / 24.0, -59 / 24.0, 37 / 24.0, -9 / 24.0}};
    int ratio = s->cfg.train_steps / s->steps, t = (int)s->t[p->i];
    if (s->count == 1) {
        const double half[2] = {0.5, 0.5};
        memcpy(push_hist(s), p->m, p->n * sizeof(float));
        plms_move(s, t + ratio, t, p, half, 2, s->saved);
        float *dropped = s->hist[0]; /* diffusers does not keep this output */
        memmove(s->hist, s->hist + 1, 3 * sizeof *s->hist);
        s->hist[3] = dropped;
        s->n_hist--;
        return;
    }
    memcpy(push_hist(s), p->m, p->n * sizeof(float));
    if (s->count == 0) memcpy(s->saved, p->x, p->n * sizeof(float));
    plms_move(s, t, t - ratio, p, k[s->n_hist], s->n_hist, p->x);
}

static int make_room(sx_err *e, sx_sched *s, size_t n)
{
    if (s->numel == n) return SX_OK;
    if (s->numel) return sx_fail(e, SX_FAILED, "latent of %zu values after one of %zu", n, s->numel);
    for (int i = 0; i < 4; i++) SX_TRY(SX_NEW(e, n, &s->hist[i]));
    SX_TRY(SX_NEW(e, n, &s->saved));
    s->numel = n;
    return SX_OK;
}

static bool draws(const sx_sched *s, int i)
{
    switch (s->cfg.sampler) {
    case SX_EULER_A: return true; /* on the last step too, where its weight is 0 */
    case SX_LCM: return i != s->n - 1;
    case SX_DDIM: return s->cfg.eta > 0;
    default: return false;
    }
}

void sx_sched_scale(const sx_sched *s, int i, const float *x, size_t n, float *out)
{
    bool scales = s->cfg.sampler == SX_EULER || s->cfg.sampler == SX_EULER_A;
    double k = scales ? 1 / sqrt(s->sigma[i] * s->sigma[i] + 1) : 1;
    for (size_t j = 0; j < n; j++) out[j] = (float)(k * x[j]);
}

void sx_sched_add_noise(const sx_sched *s, int i, float *x, const float *noise, size_t n)
{
    double sg = s->sigma[i], kx = 1, kn = sg;
    if (s->cfg.sampler != SX_EULER && s->cfg.sampler != SX_EULER_A) { /* these keep the latent's variance */
        kx = 1 / sqrt(sg * sg + 1);
        kn = sg * kx;
    }
    for (size_t j = 0; j < n; j++) x[j] = (float)(kx * x[j] + kn * noise[j]);
}

int sx_sched_step(sx_err *e, sx_sched *s, int i, const float *model_out, float *x, size_t n, sx_rng *rng)
{
    float *z = NULL;
    if (i < s->begin || i >= s->end) return sx_fail(e, SX_FAILED, "step %d outside %d to %d", i, s->begin, s->end - 1);
    SX_TRY(make_room(e, s, n));
    if (draws(s, i)) {
        SX_TRY(SX_NEW(e, n, &z));
        sx_rng_normal(rng, z, n);
    }
    step_in p = {s, i, model_out, x, n, z};
    switch (s->cfg.sampler) {
    case SX_EULER_A: step_euler_a(&p); break;
    case SX_DDIM: step_ddim(&p); break;
    case SX_DPMPP_2M: step_dpmpp(s, &p); break;
    case SX_LCM: step_lcm(&p); break;
    case SX_PNDM: step_pndm(s, &p); break;
    default: step_euler(&p); break;
    }
    s->count++;
    sx_free(z);
    return SX_OK;
}
