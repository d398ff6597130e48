/* pipeline.c - opening and closing of a pipeline's parts, and the VAE at both ends. */
#include "pipeline.h"

#include <math.h>
#include <string.h>

#include "metrics.h"

void sx_pipe_init(sx_pipe *p, qonnx_ctx *ctx, const sx_folder *folder, const char *options)
{
    *p = (sx_pipe){.ctx = ctx, .folder = folder, .options = options};
}

int sx_pipe_open_part(sx_err *e, sx_pipe *p, const char *what, sx_part part, sx_model *m)
{
    double t0 = sx_seconds();
    if (m->session) return SX_OK;
    int rc = sx_model_open(e, p->ctx, what, p->folder->model[part], p->options, m);
    p->seconds_load += sx_seconds() - t0;
    return rc;
}

void sx_pipe_close_text(sx_pipe *p)
{
    for (int k = 0; k < 2; k++) {
        sx_model_close(&p->text[k]);
        sx_clip_free(p->tok[k]);
        p->tok[k] = NULL;
        for (int i = 0; i < 2; i++) {
            sx_free(p->hidden_name[k][i]);
            p->hidden_name[k][i] = NULL;
        }
    }
    sx_free(p->pooled_name);
    p->pooled_name = NULL;
}

void sx_pipe_close(sx_pipe *p)
{
    sx_pipe_close_text(p);
    sx_pipe_close_unet(p);
    sx_model_close(&p->vae_dec);
    sx_model_close(&p->vae_enc);
}

void sx_keep_free(sx_keep *k)
{
    sx_free(k->mask);
    sx_free(k->masked);
    sx_free(k->known);
    sx_free(k->noise);
    *k = (sx_keep){0};
}

size_t sx_latent_count(const sx_pipe *p, int width, int height)
{
    size_t f = (size_t)p->folder->vae_factor;
    return (size_t)p->folder->channels * ((size_t)width / f) * ((size_t)height / f);
}

int sx_check_size(sx_err *e, const sx_folder *f, int width, int height)
{
    int m = f->vae_factor;
    if (width < m || height < m || width % m || height % m || width > SX_MAX_SIDE || height > SX_MAX_SIDE)
        return sx_fail(e, SX_USAGE, "size %d x %d: both must be multiples of %d, from %d to %d", width, height, m, m, SX_MAX_SIDE);
    return SX_OK;
}

static void unscale(const sx_folder *f, const float *latent, size_t n, float *out)
{
    size_t plane = n / (size_t)f->channels;
    for (size_t i = 0; i < n; i++) {
        size_t c = i / plane;
        double v = latent[i] / f->vae_scaling;
        if (f->latent_mean && f->latent_std) v = v * f->latent_std[c] + f->latent_mean[c];
        out[i] = (float)(v + f->vae_shift);
    }
}

int sx_decode(sx_err *e, sx_pipe *p, const float *latent, int width, int height, sx_image *out, int64_t *bad)
{
    static const sx_role in[1] = {{{"latent_sample", "latent", "z"}, .rank = 4, .rank2 = -1}},
        outs[1] = {{{"sample", "images", "image"}, .rank = 4, .rank2 = -1}};
    const sx_folder *f = p->folder;
    int i, o, rc;
    SX_TRY(sx_pipe_open_part(e, p, "VAE decoder", SX_VAE_DEC, &p->vae_dec));
    double t0 = sx_seconds();
    SX_TRY(sx_bind(e, &p->vae_dec, false, in, 1, true, &i));
    SX_TRY(sx_bind(e, &p->vae_dec, true, outs, 1, false, &o));
    size_t n = sx_latent_count(p, width, height);
    float *z;
    SX_TRY(SX_NEW(e, n, &z));
    unscale(f, latent, n, z);
    sx_feed feed = {.port = i, .rank = 4, .dims = {1, f->channels, height / f->vae_factor, width / f->vae_factor}, .f = z};
    sx_fetch got = {.name = p->vae_dec.out[o].name};
    SX_TRY_GOTO(rc, sx_model_run(e, &p->vae_dec, &feed, 1, &got, 1));
    if (got.rank != 4 || got.dims[1] != 3 || got.dims[2] != height || got.dims[3] != width) {
        rc = sx_fail(e, SX_UNSUPPORTED, "VAE decoder gave %zu values, expected a picture of 3 x %d x %d", got.n, height, width);
        goto done;
    }
    int64_t not_finite = sx_count_bad(got.f, got.n);
    if (bad) *bad = not_finite;
    if (not_finite && !bad) {
        rc = sx_model_blame(e, &p->vae_dec, &feed, 1, &got, 1, not_finite);
        sx_note(e, rc, "the VAE decoder overflowed (a float16 VAE of SDXL does: rewrite it with `qonnx quantize --passes "
                       "fp16-safe`, or take a float32 one with --vae)");
    } else {
        rc = sx_image_from_floats(e, got.f, width, height, out, NULL);
    }
done:
    sx_free(got.f);
    sx_free(z);
    p->seconds_vae += sx_seconds() - t0;
    return rc;
}

/* Mean and log variance, or the latent itself, by the number of channels. */
static int take_latent(sx_err *e, sx_pipe *p, const sx_fetch *got, size_t n, sx_rng *rng, float *latent)
{
    const sx_folder *f = p->folder;
    bool gaussian = got->n == 2 * n;
    float *z = NULL;
    if (!gaussian && got->n != n) return sx_fail(e, SX_UNSUPPORTED, "VAE encoder gave %zu values, expected %zu or %zu", got->n, n, 2 * n);
    if (gaussian) {
        SX_TRY(SX_NEW(e, n, &z));
        sx_rng_normal(rng, z, n);
    }
    size_t plane = n / (size_t)f->channels;
    for (size_t i = 0; i < n; i++) {
        double v = got->f[i];
        if (gaussian) v += exp(0.5 * fmin(fmax(got->f[n + i], -30), 20)) * z[i];
        v -= f->vae_shift;
        if (f->latent_mean && f->latent_std) v = (v - f->latent_mean[i / plane]) / f->latent_std[i / plane];
        latent[i] = (float)(v * f->vae_scaling);
    }
    sx_free(z);
    return SX_OK;
}

int sx_encode_image(sx_err *e, sx_pipe *p, const float *x, int width, int height, sx_rng *rng, float *latent)
{
    static const sx_role in[1] = {{{"sample", "images", "image"}, .rank = 4, .rank2 = -1}},
        outs[1] = {{{"latent_parameters", "latent_sample", "latent"}, .rank = 4, .rank2 = -1}};
    int i, o;
    if (!p->folder->model[SX_VAE_ENC])
        return sx_fail(e, SX_FAILED, "'%s' lacks vae_encoder/model.onnx, which --init and UNets for inpainting need", p->folder->dir);
    SX_TRY(sx_pipe_open_part(e, p, "VAE encoder", SX_VAE_ENC, &p->vae_enc));
    SX_TRY(sx_bind(e, &p->vae_enc, false, in, 1, true, &i));
    SX_TRY(sx_bind(e, &p->vae_enc, true, outs, 1, false, &o));
    sx_feed feed = {.port = i, .rank = 4, .dims = {1, 3, height, width}, .f = x};
    sx_fetch got = {.name = p->vae_enc.out[o].name};
    SX_TRY(sx_model_run(e, &p->vae_enc, &feed, 1, &got, 1));
    int64_t bad = sx_count_bad(got.f, got.n);
    int rc = bad ? sx_model_blame(e, &p->vae_enc, &feed, 1, &got, 1, bad)
                 : take_latent(e, p, &got, sx_latent_count(p, width, height), rng, latent);
    sx_free(got.f);
    return rc;
}
