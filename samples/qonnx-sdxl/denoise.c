/* denoise.c - the UNet loop: binding of inputs, classifier-free guidance as one batch of two or as two calls, the schedule's steps. */
#include <math.h>
#include <string.h>

#include "metrics.h"
#include "pipeline.h"

/* Noise alone, or for inpainting noise, a mask and a picture. */
static int check_channels(sx_err *e, const sx_pipe *p, sx_unet *u)
{
    const int64_t ch = u->m.in[u->sample].dims[1], c = p->folder->channels;
    u->masks = ch == 2 * c + 1;
    if (ch <= 0 || ch == c || u->masks) return SX_OK;
    return sx_fail(e, SX_UNSUPPORTED, "unet '%s' takes %lld latent channels, expected the VAE's %lld, or %lld for inpainting; "
                                      "what wants other pictures besides is not drawn here: " SX_BY_ITSELF, u->m.path, (long long)ch,
                   (long long)c, (long long)(2 * c + 1), "sdxl-int8");
}

static int bind_unet(sx_err *e, sx_pipe *p, sx_unet *u)
{
    enum { SAMPLE, TIMESTEP, HIDDEN, TEXT, IDS, COND, N };
    const bool xl = p->folder->model[SX_TEXT2] != NULL;
    const sx_role in[N] = {
        [SAMPLE] = {{"sample", "latent", "latent_model_input", "x"}, .rank = 4, .rank2 = -1},
        [TIMESTEP] = {{"timestep", "timesteps", "t"}, .rank = 0, .rank2 = 1, .any_type = true},
        [HIDDEN] = {{"encoder_hidden_states", "text_embeddings", "context"}, .rank = 3, .rank2 = -1},
        [TEXT] = {{"text_embeds", "pooled_embeddings", "y"}, .rank = 2, .rank2 = -1, .optional = !xl},
        [IDS] = {{"time_ids", "add_time_ids"}, .rank = 2, .rank2 = -1, .last = xl && p->folder->aesthetics ? 5 : 6, .optional = !xl},
        [COND] = {{"timestep_cond"}, .rank = 2, .rank2 = -1, .last = p->folder->time_cond_dim, .optional = true}};
    static const sx_role out[1] = {{{"out_sample", "latent", "noise_pred", "sample_out"}, .rank = 4, .rank2 = -1}};
    int at[N], o;
    SX_TRY(sx_bind(e, &u->m, false, in, N, false, at));
    if (sx_bind(e, &u->m, false, in, N, true, at) != SX_OK)
        return sx_note(e, e->code, "a UNet that takes more (a ControlNet's residuals, an adapter's pictures) is not drawn here: "
                                   "" SX_BY_ITSELF, "sdxl-int8");
    SX_TRY(sx_bind(e, &u->m, true, out, 1, false, &o));
    u->sample = at[SAMPLE];
    u->timestep = at[TIMESTEP];
    u->hidden = at[HIDDEN];
    u->text_embeds = at[TEXT];
    u->time_ids = at[IDS];
    u->timestep_cond = at[COND];
    u->out = o;
    int64_t batch = u->m.in[u->sample].dims[0];
    if (batch > 2 || batch == 0)
        return sx_fail(e, SX_UNSUPPORTED, "unet '%s': batch fixed to %lld, expected 1, 2 or free", u->m.path, (long long)batch);
    u->batch = batch > 0 ? (int)batch : 0;
    return check_channels(e, p, u);
}

int sx_pipe_open_unet(sx_err *e, sx_pipe *p)
{
    if (p->unet.m.session) return SX_OK;
    SX_TRY(sx_pipe_open_part(e, p, "unet", SX_UNET, &p->unet.m));
    int rc = bind_unet(e, p, &p->unet);
    if (rc != SX_OK) sx_model_close(&p->unet.m);
    return rc;
}

void sx_pipe_close_unet(sx_pipe *p)
{
    sx_model_close(&p->unet.m);
    p->unet = (sx_unet){0};
}

bool sx_pipe_is_xl(const sx_pipe *p) { return p->unet.text_embeds >= 0; }

bool sx_uses_negative(const sx_pipe *p, double guidance) { return guidance > 1 && p->folder->time_cond_dim == 0; }

void sx_guidance_embedding(double guidance, int dim, float *out)
{
    double w = (guidance - 1) * 1000;
    int half = dim / 2;
    for (int i = 0; i < half; i++) {
        double a = w * exp(-i * log(10000.0) / (half > 1 ? half - 1 : 1));
        out[i] = (float)sin(a);
        out[half + i] = (float)cos(a);
    }
}

/* Everything that stays the same over the steps, laid out for two rows: [negative or positive][positive]. */
typedef struct fixed { float *hidden, *pooled, *ids, *cond; int n_ids, n_cond; bool guided; } fixed;

static void fixed_free(fixed *c)
{
    sx_free(c->hidden);
    sx_free(c->pooled);
    sx_free(c->ids);
    sx_free(c->cond);
}

static void two_rows(float *to, const float *first, const float *second, size_t n)
{
    memcpy(to, first, n * sizeof *to);
    memcpy(to + n, second, n * sizeof *to);
}

static void fill_ids(const sx_request *r, double score, bool refiner, float *v)
{
    v[0] = (float)(r->original_h ? r->original_h : r->height);
    v[1] = (float)(r->original_w ? r->original_w : r->width);
    v[2] = (float)r->crop_top;
    v[3] = (float)r->crop_left;
    if (refiner) {
        v[4] = (float)score;
        return;
    }
    v[4] = (float)r->height;
    v[5] = (float)r->width;
}

static int check_dims(sx_err *e, const sx_pipe *p, const sx_request *r)
{
    const sx_unet *u = &p->unet;
    const qonnx_port *h = &u->m.in[u->hidden];
    if (h->dims[2] > 0 && h->dims[2] != r->pos->dim)
        return sx_fail(e, SX_UNSUPPORTED, "unet input '%s' is %lld wide, the text encoders give %d", h->name, (long long)h->dims[2],
                       r->pos->dim);
    if (u->text_embeds >= 0 && !r->pos->pooled)
        return sx_fail(e, SX_UNSUPPORTED, "unet input '%s' wants pooled text, which needs text_encoder_2", u->m.in[u->text_embeds].name);
    if (r->neg && (r->neg->tokens != r->pos->tokens || r->neg->dim != r->pos->dim))
        return sx_fail(e, SX_FAILED, "negative prompt of %d x %d values, positive of %d x %d", r->neg->tokens, r->neg->dim,
                       r->pos->tokens, r->pos->dim);
    return SX_OK;
}

static int make_fixed(sx_err *e, const sx_pipe *p, const sx_request *r, fixed *c)
{
    const sx_unet *u = &p->unet;
    const sx_cond *pos = r->pos;
    SX_TRY(check_dims(e, p, r));
    c->guided = r->neg && sx_uses_negative(p, r->guidance);
    const sx_cond *first = c->guided ? r->neg : pos;
    size_t n = (size_t)pos->tokens * (size_t)pos->dim;
    SX_TRY(SX_NEW(e, 2 * n, &c->hidden));
    two_rows(c->hidden, first->hidden, pos->hidden, n);
    if (u->text_embeds >= 0) {
        SX_TRY(SX_NEW(e, 2 * pos->pool, &c->pooled));
        two_rows(c->pooled, first->pooled, pos->pooled, (size_t)pos->pool);
    }
    if (u->time_ids >= 0) {
        int64_t last = u->m.in[u->time_ids].dims[1];
        c->n_ids = last == 5 || last == 6 ? (int)last : p->folder->aesthetics ? 5 : 6;
        SX_TRY(SX_NEW(e, 2 * c->n_ids, &c->ids));
        fill_ids(r, c->guided ? r->negative_score : r->score, c->n_ids == 5, c->ids);
        fill_ids(r, r->score, c->n_ids == 5, c->ids + c->n_ids);
    }
    if (u->timestep_cond >= 0) {
        int64_t last = u->m.in[u->timestep_cond].dims[1];
        c->n_cond = last > 0 && last < 65536 ? (int)last : p->folder->time_cond_dim ? p->folder->time_cond_dim : 256;
        SX_TRY(SX_NEW(e, 2 * c->n_cond, &c->cond));
        sx_guidance_embedding(r->guidance, c->n_cond, c->cond);
        memcpy(c->cond + c->n_cond, c->cond, (size_t)c->n_cond * sizeof(float));
    }
    return SX_OK;
}

/* One call: x holds two rows of `channels` channels; what comes back has n values a row. */
typedef struct call { const fixed *c; const sx_request *r; const float *x; int64_t channels, h, w; size_t n; float t; } call;

/* Rows [first, first + rows) of the fixed inputs with rows copies of the latent; out: [rows][n]. */
static int run_unet(sx_err *e, sx_pipe *p, const call *k, int first, int rows, float *out)
{
    sx_unet *u = &p->unet;
    const fixed *c = k->c;
    const sx_cond *pos = k->r->pos;
    float t[2] = {k->t, k->t};
    const qonnx_port *tp = &u->m.in[u->timestep];
    int64_t t_len = tp->rank == 1 && tp->dims[0] > 0 ? tp->dims[0] : 1;
    if (t_len > 2)
        return sx_fail(e, SX_UNSUPPORTED, "unet input '%s' takes %lld timesteps, expected 1 or the batch", tp->name, (long long)t_len);
    size_t f = (size_t)first;
    int n = 0;
    sx_feed in[6];
    in[n++] = (sx_feed){.port = u->sample, .rank = 4, .dims = {rows, k->channels, k->h, k->w}, .f = k->x};
    in[n++] = (sx_feed){.port = u->timestep, .rank = tp->rank == 1, .dims = {t_len}, .f = t};
    in[n++] = (sx_feed){.port = u->hidden, .rank = 3, .dims = {rows, pos->tokens, pos->dim},
                        .f = c->hidden + f * (size_t)pos->tokens * (size_t)pos->dim};
    if (u->text_embeds >= 0)
        in[n++] = (sx_feed){.port = u->text_embeds, .rank = 2, .dims = {rows, pos->pool}, .f = c->pooled + f * (size_t)pos->pool};
    if (u->time_ids >= 0) in[n++] = (sx_feed){.port = u->time_ids, .rank = 2, .dims = {rows, c->n_ids}, .f = c->ids + f * (size_t)c->n_ids};
    if (u->timestep_cond >= 0)
        in[n++] = (sx_feed){.port = u->timestep_cond, .rank = 2, .dims = {rows, c->n_cond}, .f = c->cond + f * (size_t)c->n_cond};
    sx_fetch o = {.name = u->m.out[u->out].name};
    SX_TRY(sx_model_run(e, &u->m, in, n, &o, 1));
    int64_t bad = sx_count_bad(o.f, o.n);
    int rc = SX_OK;
    if (o.n != k->n * (size_t)rows) rc = sx_fail(e, SX_UNSUPPORTED, "unet gave %zu values, expected %zu", o.n, k->n * (size_t)rows);
    else if (bad) rc = sx_model_blame(e, &u->m, in, n, &o, 1, bad);
    else memcpy(out, o.f, o.n * sizeof *out);
    sx_free(o.f);
    return rc;
}

/* Noise prediction with guidance into eps[n]; x and rows hold two rows each. */
static int predict(sx_err *e, sx_pipe *p, const call *k, double guidance, float *rows, float *eps)
{
    bool guided = k->c->guided;
    int batch = p->unet.batch;
    if (guided && batch == 1) {
        SX_TRY(run_unet(e, p, k, 0, 1, rows));
        SX_TRY(run_unet(e, p, k, 1, 1, rows + k->n));
    } else {
        SX_TRY(run_unet(e, p, k, 0, guided || batch == 2 ? 2 : 1, rows));
    }
    const float *neg = rows, *pos = rows + k->n;
    for (size_t i = 0; i < k->n; i++) eps[i] = guided ? neg[i] + (float)guidance * (pos[i] - neg[i]) : rows[i];
    return SX_OK;
}

/* The input's second row, and behind both latents what a UNet for inpainting sees besides. in: two rows of `row` values. */
static void fill_rows(const sx_keep *keep, size_t n, size_t plane, size_t row, float *in)
{
    if (row > n) {
        memcpy(in + n, keep->mask, plane * sizeof *in);
        memcpy(in + n + plane, keep->masked, n * sizeof *in);
    }
    memcpy(in + row, in, row * sizeof *in);
}

/* Outside the mask the picture itself, at the noise of the next call. was: scratch of n values. */
static void put_back(const sx_sched *s, int i, const sx_keep *k, size_t plane, float *x, size_t n, float *was)
{
    memcpy(was, k->known, n * sizeof *was);
    if (i + 1 < s->end) sx_sched_add_noise(s, i + 1, was, k->noise, n);
    for (size_t j = 0; j < n; j++) x[j] = (1 - k->mask[j % plane]) * was[j] + k->mask[j % plane] * x[j];
}

static int loop(sx_err *e, sx_pipe *p, sx_sched *s, const sx_request *r, const fixed *c, float *x, sx_rng *rng, float *buf)
{
    const int64_t f = p->folder->vae_factor, h = r->height / f, w = r->width / f,
        channels = p->folder->channels * (p->unet.masks ? 2 : 1) + p->unet.masks;
    const size_t n = sx_latent_count(p, r->width, r->height), plane = (size_t)(h * w), row = (size_t)channels * plane;
    float *in = buf, *rows = buf + 2 * row, *eps = rows + 2 * n;
    for (int i = s->begin; i < s->end; i++) {
        double t0 = sx_seconds();
        sx_step step = {i, s->begin, s->end, s->t[i], x, n, 0};
        if (r->before_step) SX_TRY(r->before_step(r->user, e, &step));
        sx_sched_scale(s, i, x, n, in);
        fill_rows(r->keep, n, plane, row, in);
        call k = {.c = c, .r = r, .x = in, .channels = channels, .h = h, .w = w, .n = n, .t = s->t[i]};
        SX_TRY(predict(e, p, &k, r->guidance, rows, eps));
        SX_TRY(sx_sched_step(e, s, i, eps, x, n, rng));
        if (r->keep && r->keep->known) put_back(s, i, r->keep, plane, x, n, rows);
        step.seconds = sx_seconds() - t0;
        p->seconds_unet += step.seconds;
        if (r->on_step) SX_TRY(r->on_step(r->user, e, &step));
    }
    return SX_OK;
}

/* Exporters write fixed factors into the UNet's upsampling: sizes that do not halve evenly fail inside it. */
static int explain_size(sx_err *e, const sx_folder *f, const sx_request *r, int rc)
{
    const int m = f->vae_factor * f->unet_factor;
    if (rc == SX_OK || (r->width % m == 0 && r->height % m == 0)) return rc;
    return sx_note(e, rc, "%d x %d pixels, where this UNet's levels want multiples of %d", r->width, r->height, m);
}

int sx_denoise(sx_err *e, sx_pipe *p, sx_sched *s, const sx_request *r, float *x, sx_rng *rng)
{
    fixed c = {0};
    float *buf = NULL;
    SX_TRY(sx_check_size(e, p->folder, r->width, r->height));
    SX_TRY(sx_pipe_open_unet(e, p));
    if (p->unet.masks && !r->keep)
        return sx_fail(e, SX_UNSUPPORTED, "unet '%s' is made for inpainting, which a refiner does not do", p->unet.m.path);
    int rc = make_fixed(e, p, r, &c);
    /* two inputs of up to three latents, two outputs, their mixture */
    if (rc == SX_OK) rc = SX_NEW(e, 9 * sx_latent_count(p, r->width, r->height), &buf);
    int64_t before = p->unet.m.runs;
    if (rc == SX_OK) rc = explain_size(e, p->folder, r, loop(e, p, s, r, &c, x, rng, buf));
    p->unet_runs += p->unet.m.runs - before;
    sx_free(buf);
    fixed_free(&c);
    return rc;
}
