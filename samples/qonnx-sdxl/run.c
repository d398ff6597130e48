/* run.c - runs a batch: every prompt through the text encoders, then every picture through the UNet, so that each large part is loaded once
 * and the text encoders are gone before the UNet comes. */
#include "run.h"

#include <math.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "start.h"

static int choose(sx_err *e, const char *option, const char *text, const char *const *names, int n, int *value)
{
    sx_text t = {0};
    if (!text) return SX_OK;
    for (int i = 0; i < n; i++) {
        sx_text_add(&t, "%s%s", i ? ", " : "", names[i]);
        if (strcmp(names[i], text) != 0) continue;
        *value = i;
        sx_text_free(&t);
        return SX_OK;
    }
    sx_fail(e, SX_USAGE, "--%s: '%.60s' is not one of %s", option, text, t.s ? t.s : "");
    sx_text_free(&t);
    return e->code;
}

static int choose_schedule(sx_err *e, const sx_options *o, const sx_folder *f, sx_sched_config *c)
{
    *c = f->sched;
    if (f->sched_problem && !o->scheduler) return sx_fail(e, SX_UNSUPPORTED, "%s", f->sched_problem);
    if (o->scheduler) SX_TRY(sx_sched_by_name(e, o->scheduler, c));
    int spacing = c->spacing, prediction = c->prediction;
    SX_TRY(choose(e, "spacing", o->spacing, sx_spacing_names, SX_SPACING_COUNT, &spacing));
    SX_TRY(choose(e, "prediction", o->prediction, sx_prediction_names, SX_PREDICTION_COUNT, &prediction));
    c->spacing = (sx_spacing)spacing;
    c->prediction = (sx_prediction)prediction;
    if (!isnan(o->eta)) c->eta = o->eta;
    return SX_OK;
}

int sx_plan_make(sx_err *e, const sx_options *o, const sx_folder *f, sx_plan *p)
{
    SX_TRY(choose_schedule(e, o, f, &p->sched));
    const sx_sched_config *c = &p->sched;
    bool turbo = (c->sampler == SX_EULER_A && c->spacing == SX_TRAILING) || (o->scheduler && strcasecmp(o->scheduler, "lightning") == 0),
        lcm = c->sampler == SX_LCM;
    p->steps = o->steps > 0 ? (int)o->steps : turbo || lcm ? 4 : 25;
    p->guidance = !isnan(o->guidance) ? o->guidance : turbo ? 0 : lcm ? 1 : f->model[SX_TEXT2] ? 5 : 7.5;
    p->strength = !isnan(o->strength) ? o->strength : o->mask ? 1 : 0.3;
    p->width = o->width > 0 ? (int)o->width : f->size;
    p->height = o->height > 0 ? (int)o->height : f->size;
    return sx_check_size(e, f, p->width, p->height);
}

const char *sx_session_options(const sx_options *o, char *buf, size_t cap)
{
    snprintf(buf, cap, "device=%.20s compute=%.20s simulate=%d", o->device ? o->device : "auto", o->compute ? o->compute : "f32",
             o->simulate);
    return buf;
}

int sx_shot_parameters(sx_err *e, const sx_batch *b, const sx_shot *s, char **out)
{
    const sx_plan *p = &b->plan;
    const char *neg = b->o->negative;
    return sx_printf(e, out, "%s%s%s\nSteps: %d, Sampler: %s%s, Spacing: %s, Guidance: %g, Seed: %llu, Size: %dx%d, Rng: torch "
                             "%s, Model: %s, Version: qonnx-sdxl %s", s->prompt,
                     neg ? "\nNegative prompt: " : "", neg ? neg : "", p->steps, sx_sampler_name(p->sched.sampler),
                     p->sched.karras ? " karras" : "",
                     sx_spacing_names[p->sched.spacing], p->guidance, (unsigned long long)s->seed, p->width, p->height,
                     s->rng.kind == SX_RNG_CUDA ? "cuda" : "cpu",
                     b->folder->model[SX_UNET], qonnx_version());
}

int sx_batch_new(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *folder, const sx_prompts *prompts, sx_batch **out)
{
    sx_batch *b;
    int rng = 0;
    static const char *const rngs[] = {"cpu", "cuda"};
    SX_TRY(choose(e, "rng", o->rng, rngs, 2, &rng));
    SX_TRY(SX_NEW(e, 1, &b));
    *b = (sx_batch){.o = o, .ctx = ctx, .folder = folder, .label = "", .decode = true, .n_prompts = prompts->n,
                    .n = prompts->n * (int)o->count};
    int rc = sx_plan_make(e, o, folder, &b->plan);
    if (rc == SX_OK) rc = SX_NEW(e, b->n_prompts, &b->pos);
    if (rc == SX_OK) rc = SX_NEW(e, b->n, &b->shots);
    for (int i = 0; rc == SX_OK && i < b->n; i++) {
        sx_shot *s = &b->shots[i];
        s->prompt_index = i / (int)o->count;
        s->prompt = prompts->text[s->prompt_index];
        s->seed = (uint64_t)o->seed + (uint64_t)i;
        sx_rng_init(&s->rng, rng ? SX_RNG_CUDA : SX_RNG_CPU, s->seed);
    }
    if (rc != SX_OK) {
        sx_batch_free(b);
        return rc;
    }
    *out = b;
    return SX_OK;
}

void sx_batch_free(sx_batch *b)
{
    if (!b) return;
    sx_pipe_close(&b->pipe);
    for (int i = 0; b->pos && i < b->n_prompts; i++) sx_cond_free(&b->pos[i]);
    for (int i = 0; b->shots && i < b->n; i++) {
        sx_shot *s = &b->shots[i];
        sx_free(s->latent);
        sx_free(s->trace);
        sx_free(s->step_seconds);
        sx_free(s->failure);
        sx_image_free(&s->picture);
        sx_keep_free(&s->keep);
    }
    sx_cond_free(&b->neg);
    sx_free(b->pos);
    sx_free(b->shots);
    sx_free(b);
}

/* ---- progress ---- */

static void progress(sx_batch *b, const sx_step *st)
{
    if (b->o->quiet) return;
    double now = sx_seconds(), per = b->step_total / (double)b->step_count;
    int made = st->i + 1 - st->begin, all = st->end - st->begin;
    int64_t left = (int64_t)(b->n - b->at - 1) * all + (all - made);
    bool tty = isatty(STDERR_FILENO), last = made == all;
    if (!(tty ? now - b->last_line > 0.1 || last : last)) return;
    b->last_line = now;
    int eta = (int)(per * (double)left + 0.5);
    fprintf(stderr, "%s%s%s[%d/%d] step %d/%d  %.3f s/step  ETA %d:%02d%s", tty ? "\r\033[K" : "", b->label, *b->label ? " " : "",
            b->at + 1, b->n, made, all, per, eta / 60, eta % 60, tty && !last ? "" : "\n");
    fflush(stderr);
}

static int preview(sx_err *e, sx_batch *b, const sx_step *st)
{
    char *path;
    sx_image m;
    int64_t bad;
    if (!b->o->steps_preview || !b->decode) return SX_OK;
    SX_TRY(sx_make_dirs(e, b->o->steps_preview));
    SX_TRY(sx_decode(e, &b->pipe, st->latent, b->plan.width, b->plan.height, &m, &bad));
    int rc = sx_printf(e, &path, "%s/%s%s%03d-step-%03d.png", b->o->steps_preview, b->label, *b->label ? "-" : "", b->at, st->i + 1);
    if (rc == SX_OK) rc = sx_png_write(e, path, &m, NULL, 0);
    sx_free(path);
    sx_image_free(&m);
    return rc;
}

static int after_step(void *user, sx_err *e, const sx_step *st)
{
    sx_batch *b = user;
    sx_shot *s = &b->shots[b->at];
    int slot = st->i - st->begin;
    b->step_total += st->seconds;
    b->step_count++;
    s->step_seconds[slot] = st->seconds;
    if (s->trace) memcpy(s->trace + (size_t)slot * st->n, st->latent, st->n * sizeof(float));
    s->steps = slot + 1;
    progress(b, st);
    return preview(e, b, st);
}

static int before_step(void *user, sx_err *e, const sx_step *st)
{
    sx_batch *b = user;
    (void)e;
    if (b->on_timestep) b->on_timestep(b->user, st->t);
    return SX_OK;
}

/* ---- one picture ---- */

static bool ensemble(const sx_options *o) { return o->refiner && !(o->refiner_mode && strcmp(o->refiner_mode, "img2img") == 0); }

/* Timestep at which the refiner of an ensemble takes over. */
static double cutoff(const sx_sched *s, double share) { return nearbyint(s->cfg.train_steps - share * s->cfg.train_steps); }

static int end_early(sx_err *e, const sx_options *o, sx_sched *s)
{
    if (!ensemble(o)) return SX_OK;
    int end = s->begin;
    while (end < s->end && s->t[end] >= cutoff(s, o->refiner_start)) end++;
    return sx_sched_window(e, s, s->begin, end);
}

static sx_request request(sx_batch *b, const sx_shot *s)
{
    return (sx_request){.pos = &b->pos[s->prompt_index], .neg = b->neg.hidden ? &b->neg : NULL, .guidance = b->plan.guidance,
                        .width = b->plan.width, .height = b->plan.height,
        .keep = s->keep.mask ? &s->keep : NULL, .score = 6.0, .negative_score = 2.5, .on_step = after_step, .before_step = before_step,
            .user = b};
}

static int keep_failure(sx_err *e, sx_batch *b, sx_shot *s, int rc)
{
    if (rc != SX_FAILED || !b->tolerate_nan || !strstr(e->text, "not finite")) return rc;
    return sx_strdup(e, e->text, &s->failure);
}

static int make_latent(sx_err *e, sx_batch *b, sx_shot *s)
{
    sx_sched *sched = NULL;
    size_t n = sx_latent_count(&b->pipe, b->plan.width, b->plan.height);
    double t0 = sx_seconds();
    SX_TRY(sx_sched_new(e, &b->plan.sched, b->plan.steps, &sched));
    int rc = sx_start(e, b, s, sched);
    if (rc == SX_OK) rc = end_early(e, b->o, sched);
    if (rc == SX_OK && b->keep_trace) rc = SX_NEW(e, (size_t)(sched->end - sched->begin) * n, &s->trace);
    if (rc == SX_OK) rc = SX_NEW(e, sched->n, &s->step_seconds);
    sx_request r = request(b, s);
    if (rc == SX_OK) rc = keep_failure(e, b, s, sx_denoise(e, &b->pipe, sched, &r, s->latent, &s->rng));
    s->seconds = sx_seconds() - t0;
    sx_sched_free(sched);
    return rc;
}

static int decode_shot(sx_err *e, sx_batch *b, sx_shot *s)
{
    double t0 = sx_seconds();
    if (!b->decode || s->failure) return SX_OK;
    SX_TRY(sx_decode(e, &b->pipe, s->latent, b->plan.width, b->plan.height, &s->picture, b->tolerate_nan ? &s->bad : NULL));
    s->seconds += sx_seconds() - t0;
    return SX_OK;
}

/* ---- refiner ---- */

static int refine_shot(sx_err *e, sx_batch *b, sx_batch *ref, sx_shot *s)
{
    sx_sched *sched = NULL;
    size_t n = sx_latent_count(&b->pipe, b->plan.width, b->plan.height);
    float *noise = NULL;
    double t0 = sx_seconds();
    int rc = sx_sched_new(e, &ref->plan.sched, b->plan.steps, &sched);
    if (rc == SX_OK && ensemble(b->o)) {
        int begin = 0;
        while (begin < sched->n && sched->t[begin] >= cutoff(sched, b->o->refiner_start)) begin++;
        rc = sx_sched_window(e, sched, begin, sched->n);
    } else if (rc == SX_OK) {
        rc = sx_sched_start_late(e, sched, b->o->refiner_strength);
        if (rc == SX_OK) rc = SX_NEW(e, n, &noise);
        if (rc == SX_OK) {
            sx_rng_normal(&s->rng, noise, n);
            sx_sched_add_noise(sched, sched->begin, s->latent, noise, n);
        }
    }
    ref->shots[ref->at].step_seconds = NULL;
    if (rc == SX_OK) rc = SX_NEW(e, sched->n, &ref->shots[ref->at].step_seconds);
    sx_request r = request(ref, &ref->shots[ref->at]);
    if (rc == SX_OK) rc = sx_denoise(e, &ref->pipe, sched, &r, s->latent, &s->rng);
    s->seconds += sx_seconds() - t0;
    sx_free(noise);
    sx_sched_free(sched);
    return rc;
}

static int encode_all(sx_err *e, sx_batch *b);

/* The refiner's own prompts, UNet and schedule; latents and random streams stay those of the base. */
static int run_refiner(sx_err *e, sx_batch *b)
{
    sx_folder f;
    sx_batch *ref = NULL;
    sx_options o = *b->o;
    sx_prompts all = {0};
    o.width = b->plan.width;
    o.height = b->plan.height;
    o.scheduler = o.steps_preview = o.noise = NULL;
    const sx_override same = sx_only_tokenizers(&b->o->over);
    SX_TRY(sx_folder_open(e, b->o->refiner, &same, &f));
    int rc = SX_OK;
    for (int i = 0; rc == SX_OK && i < b->n_prompts; i++)
        rc = sx_prompts_add(e, &all, b->shots[i * (int)o.count].prompt, strlen(b->shots[i * (int)o.count].prompt));
    if (rc == SX_OK) rc = sx_batch_new(e, &o, b->ctx, &f, &all, &ref);
    if (rc == SX_OK) {
        ref->label = "refiner";
        ref->plan.guidance = b->plan.guidance;
        sx_pipe_init(&ref->pipe, b->ctx, &f, b->pipe.options);
        rc = encode_all(e, ref);
    }
    for (int i = 0; rc == SX_OK && i < b->n; i++) {
        ref->at = i;
        if (!b->shots[i].failure) rc = refine_shot(e, b, ref, &b->shots[i]);
    }
    if (rc == SX_OK) b->pipe.seconds_unet += ref->pipe.seconds_unet;
    sx_batch_free(ref);
    sx_prompts_free(&all);
    sx_folder_free(&f);
    return rc == SX_OK ? rc : sx_note(e, rc, "refiner");
}

/* ---- all ---- */

static void say_truncated(const sx_batch *b, const char *what, const char *prompt, int dropped)
{
    if (dropped > 0 && !*b->label)
        fprintf(stderr, "note: %s '%.60s%s' is too long: its last %d tokens are not seen\n", what, prompt,
                strlen(prompt) > 60 ? "..." : "", dropped);
}

static int encode_all(sx_err *e, sx_batch *b)
{
    b->pipe.clip_skip = (int)b->o->clip_skip;
    for (int i = 0; i < b->n_prompts; i++) {
        const char *text = b->shots[i * (int)b->o->count].prompt;
        SX_TRY(sx_encode(e, &b->pipe, text, &b->pos[i]));
        say_truncated(b, "prompt", text, b->pos[i].dropped);
        b->dropped_prompts += b->pos[i].dropped > 0;
    }
    if (sx_uses_negative(&b->pipe, b->plan.guidance)) {
        SX_TRY(sx_encode_negative(e, &b->pipe, b->o->negative, &b->neg));
        if (b->o->negative) say_truncated(b, "negative prompt", b->o->negative, b->neg.dropped);
    }
    sx_pipe_close_text(&b->pipe);
    return SX_OK;
}

int sx_batch_run(sx_err *e, sx_batch *b)
{
    bool refine = b->o->refiner != NULL;
    if (!b->pipe.folder) sx_pipe_init(&b->pipe, b->ctx, b->folder, b->pipe.options);
    b->started = sx_seconds();
    SX_TRY(encode_all(e, b));
    for (b->at = 0; b->at < b->n; b->at++) {
        SX_TRY(make_latent(e, b, &b->shots[b->at]));
        if (!refine) SX_TRY(decode_shot(e, b, &b->shots[b->at]));
    }
    if (!refine) return SX_OK;
    sx_pipe_close_unet(&b->pipe);
    SX_TRY(run_refiner(e, b));
    for (b->at = 0; b->at < b->n; b->at++) SX_TRY(decode_shot(e, b, &b->shots[b->at]));
    return SX_OK;
}
