/* pipeline.h - from prompt to picture: text encoders, UNet loop with classifier-free guidance, VAE. Each part is opened when it is first
 * needed and closed by its own call, so that a large pipeline need not be in memory at once. */
#ifndef SX_PIPELINE_H
#define SX_PIPELINE_H

#include "clip.h"
#include "folder.h"
#include "image.h"
#include "model.h"

/* Text as the UNet takes it. pooled is NULL where the pipeline has none (SD 1.x). */
typedef struct sx_cond { float *hidden; int tokens, dim; float *pooled; int pool; int dropped; /* tokens that did not fit */ } sx_cond;
void sx_cond_free(sx_cond *c);

typedef struct sx_unet {
    sx_model m;
    int sample, timestep, hidden, text_embeds, time_ids, timestep_cond, out;
    int batch;                     /* 0: free */
    bool masks;                    /* made for inpainting: a mask and the masked picture stand behind the latent's channels */
} sx_unet;

/* What a mask says while a picture is drawn. */
typedef struct sx_keep {
    float *mask;                   /* [h/8][w/8]: 1 is drawn anew, 0 stays */
    float *masked;                 /* latent of the picture without what the mask covers: seen by UNets that take masks */
    /* latent of the whole picture and its noise: put back outside the mask after each step; NULL with such a UNet */
    float *known, *noise;
} sx_keep;
void sx_keep_free(sx_keep *k);

typedef struct sx_pipe {
    qonnx_ctx *ctx;
    const sx_folder *folder;
    const char *options;           /* of sessions */
    sx_clip *tok[2];
    sx_model text[2];
    char *hidden_name[2][2], *pooled_name; /* outputs of the text encoders: [encoder][0 the usual layer, 1 that of clip_skip] */
    int clip_skip;                 /* layers further back that prompts are read at; 0: the usual one */
    sx_unet unet;
    sx_model vae_dec, vae_enc;
    double seconds_load, seconds_text, seconds_unet, seconds_vae;
    int64_t unet_runs;
} sx_pipe;

void sx_pipe_init(sx_pipe *p, qonnx_ctx *ctx, const sx_folder *folder, const char *options);
void sx_pipe_close(sx_pipe *p);
/* Opens one part into *m, counting the time as loading. */
int sx_pipe_open_part(sx_err *e, sx_pipe *p, const char *what, sx_part part, sx_model *m);
int sx_pipe_open_unet(sx_err *e, sx_pipe *p);  /* nothing to do when open */
void sx_pipe_close_text(sx_pipe *p);
void sx_pipe_close_unet(sx_pipe *p);
bool sx_pipe_is_xl(const sx_pipe *p);          /* after open_unet: the UNet takes text_embeds and time_ids */

int sx_encode(sx_err *e, sx_pipe *p, const char *prompt, sx_cond *out);
/* The negative side, which clip_skip does not touch (as in diffusers). prompt NULL: none was given - zeros where the pipeline
 * says so, else "". */
int sx_encode_negative(sx_err *e, sx_pipe *p, const char *prompt, sx_cond *out);

typedef struct sx_step { int i, begin, end; double t; const float *latent; size_t n; double seconds; } sx_step;
typedef int sx_step_fn(void *user, sx_err *e, const sx_step *s);
typedef struct sx_request {
    const sx_cond *pos, *neg;      /* neg NULL: no guidance */
    double guidance;
    const sx_keep *keep;           /* NULL: no mask */
    int width, height;             /* of the picture */
    int crop_top, crop_left, original_w, original_h; /* 0 originals: width and height */
    double score, negative_score;  /* aesthetic scores of a refiner */
    sx_step_fn *on_step, *before_step; /* may be NULL */
    void *user;
} sx_request;

/* Whether guidance g needs the negative side with this UNet. */
bool sx_uses_negative(const sx_pipe *p, double guidance);
/* Runs calls [begin, end) of the schedule on latent x [channels][h/8][w/8]. A NaN is an error that names the node. */
int sx_denoise(sx_err *e, sx_pipe *p, sx_sched *s, const sx_request *r, float *x, sx_rng *rng);
/* Latent to picture. bad (not NULL): count of values that are not finite, and no error then. */
int sx_decode(sx_err *e, sx_pipe *p, const float *latent, int width, int height, sx_image *out, int64_t *bad);
/* Picture x [3][h][w] in -1..1 to latent; draws one noise when the encoder gives mean and variance. */
int sx_encode_image(sx_err *e, sx_pipe *p, const float *x, int width, int height, sx_rng *rng, float *latent);
size_t sx_latent_count(const sx_pipe *p, int width, int height);
/* Size must suit the VAE: an error that names the multiple. */
int sx_check_size(sx_err *e, const sx_folder *f, int width, int height);
/* Guidance embedding of latent consistency models: dim values. */
void sx_guidance_embedding(double guidance, int dim, float *out);

#endif
