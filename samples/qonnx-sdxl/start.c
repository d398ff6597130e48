/* start.c - the first latent of a picture. A mask works in two ways: a UNet made for it (9 channels) sees the mask and the
 * picture without what the mask covers; any other UNet draws everything, and what the mask leaves is put back after every step
 * (pipeline.h, sx_keep). */
#include "start.h"

#include <math.h>
#include <string.h>

static int noise_from_file(sx_err *e, sx_batch *b, float *x, size_t n)
{
    qonnx_npz *z;
    qonnx_tensor t;
    qonnx_code c = qonnx_npz_open(b->ctx, b->o->noise, &z);
    if (c != QONNX_OK) return sx_fail(e, (int)c, "--noise: %s", qonnx_error(b->ctx));
    int rc = SX_OK, i = 0;
    while (i < qonnx_npz_count(z) && (c = qonnx_npz_get(z, i, &t)) == QONNX_OK && strcmp(t.name, "noise") != 0) i++;
    if (c != QONNX_OK) rc = sx_fail(e, (int)c, "--noise: %s", qonnx_error(b->ctx));
    else if (i == qonnx_npz_count(z)) rc = sx_fail(e, SX_USAGE, "'%s' holds no array named noise", b->o->noise);
    else if (qonnx_tensor_numel(&t) != (int64_t)n)
        rc = sx_fail(e, SX_USAGE, "'%s': noise has %lld values, the latent %zu", b->o->noise, (long long)qonnx_tensor_numel(&t), n);
    else if (qonnx_to_float(b->ctx, t.dtype, t.data, (int64_t)n, x) != QONNX_OK)
        rc = sx_fail(e, SX_FAILED, "--noise: %s", qonnx_error(b->ctx));
    qonnx_npz_close(z);
    return rc;
}

static int draw_noise(sx_err *e, sx_batch *b, sx_shot *s, float *x, size_t n)
{
    if (b->o->noise) return noise_from_file(e, b, x, n);
    sx_rng_normal(&s->rng, x, n);
    return SX_OK;
}

/* A file at the size of the pictures. */
static int read_fitted(sx_err *e, const sx_plan *p, const char *path, sx_image *out)
{
    sx_image in;
    SX_TRY(sx_png_read(e, path, &in));
    int rc = sx_image_resize(e, &in, p->width, p->height, out);
    sx_image_free(&in);
    return rc;
}

/* [3][h][w] in -1..1; *x stays NULL without --init. */
static int read_picture(sx_err *e, const sx_batch *b, float **x)
{
    sx_image m;
    if (!b->o->init) return SX_OK;
    SX_TRY(read_fitted(e, &b->plan, b->o->init, &m));
    int rc = SX_NEW(e, 3 * (size_t)m.w * (size_t)m.h, x);
    if (rc == SX_OK) sx_image_to_floats(&m, *x);
    sx_image_free(&m);
    return rc;
}

/* [h][w]: 1 where the file is bright, everywhere without a file. */
static int read_mask(sx_err *e, const sx_batch *b, float **mask)
{
    const size_t n = (size_t)b->plan.width * (size_t)b->plan.height;
    sx_image m;
    SX_TRY(SX_NEW(e, n, mask));
    for (size_t i = 0; i < n; i++) (*mask)[i] = 1;
    if (!b->o->mask) return SX_OK;
    SX_TRY(read_fitted(e, &b->plan, b->o->mask, &m));
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = m.rgb + 3 * i;
        (*mask)[i] = 299 * p[0] + 587 * p[1] + 114 * p[2] >= 127500; /* luminance of at least a half, as PIL weighs it */
    }
    sx_image_free(&m);
    return SX_OK;
}

/* The mask at the latent's size: the pixel at each cell's corner, as torch's "nearest" takes it. */
static int shrink_mask(sx_err *e, const sx_batch *b, const float *mask, float **out)
{
    const size_t f = (size_t)b->folder->vae_factor, w = (size_t)b->plan.width, cols = w / f, rows = (size_t)b->plan.height / f;
    SX_TRY(SX_NEW(e, rows * cols, out));
    for (size_t y = 0; y < rows; y++)
        for (size_t x = 0; x < cols; x++) (*out)[y * cols + x] = mask[y * f * w + x * f];
    return SX_OK;
}

/* What the mask covers becomes gray; without a picture all of it is. diffusers encodes this for UNets that do not look at it,
 * too: it draws noise. */
static int encode_masked(sx_err *e, sx_batch *b, sx_shot *s, const float *picture, const float *mask, size_t n)
{
    const size_t pixels = (size_t)b->plan.width * (size_t)b->plan.height;
    float *x;
    SX_TRY(SX_NEW(e, 3 * pixels, &x));
    for (size_t i = 0; picture && i < 3 * pixels; i++) x[i] = picture[i] * (1 - mask[i % pixels]);
    int rc = SX_NEW(e, n, &s->keep.masked);
    if (rc == SX_OK) rc = sx_encode_image(e, &b->pipe, x, b->plan.width, b->plan.height, &s->rng, s->keep.masked);
    sx_free(x);
    return rc;
}

static int copy_of(sx_err *e, const float *x, size_t n, float **out)
{
    SX_TRY(SX_NEW(e, n, out));
    memcpy(*out, x, n * sizeof *x);
    return SX_OK;
}

/* s->latent holds the noise on return where nothing of a picture shall show. */
static int first_latent(sx_err *e, sx_batch *b, sx_shot *s, sx_sched *sched, const float *picture, bool masked, size_t n)
{
    const bool pure = !picture || (masked && b->plan.strength == 1), put_back = masked && !b->pipe.unet.masks;
    float *noise = NULL, *known = NULL;
    int rc = SX_OK;
    if (!pure || put_back) {
        SX_TRY_GOTO(rc, SX_NEW(e, n, &known));
        SX_TRY_GOTO(rc, sx_encode_image(e, &b->pipe, picture, b->plan.width, b->plan.height, &s->rng, known));
    }
    SX_TRY_GOTO(rc, SX_NEW(e, n, &noise));
    SX_TRY_GOTO(rc, draw_noise(e, b, s, noise, n));
    if (picture) SX_TRY_GOTO(rc, sx_sched_start_late(e, sched, b->plan.strength));
    SX_TRY_GOTO(rc, copy_of(e, pure ? noise : known, n, &s->latent));
    if (!pure) sx_sched_add_noise(sched, sched->begin, s->latent, noise, n);
    for (size_t i = 0; pure && i < n; i++) s->latent[i] = (float)(s->latent[i] * sched->init_scale);
    if (put_back) {
        s->keep.known = known;
        s->keep.noise = noise;
        return SX_OK;
    }
done:
    sx_free(known);
    sx_free(noise);
    return rc;
}

int sx_start(sx_err *e, sx_batch *b, sx_shot *s, sx_sched *sched)
{
    float *picture = NULL, *mask = NULL;
    SX_TRY(sx_pipe_open_unet(e, &b->pipe));
    const bool takes = b->pipe.unet.masks, masked = takes || b->o->mask;
    if (takes && b->o->init && !b->o->mask)
        return sx_fail(e, SX_USAGE, "this UNet inpaints: --init wants --mask FILE.png, white where the picture shall be drawn anew");
    const size_t n = sx_latent_count(&b->pipe, b->plan.width, b->plan.height);
    int rc = read_picture(e, b, &picture);
    if (rc == SX_OK) rc = first_latent(e, b, s, sched, picture, masked, n);
    if (rc == SX_OK && masked) rc = read_mask(e, b, &mask);
    if (rc == SX_OK && masked) rc = shrink_mask(e, b, mask, &s->keep.mask);
    if (rc == SX_OK && masked) rc = encode_masked(e, b, s, picture, mask, n);
    sx_free(picture);
    sx_free(mask);
    return rc;
}
