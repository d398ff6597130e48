/* run.h - a batch of pictures: prompts to encodings, one pass of the UNet over all of them, refiner, decoding. What the modes of
 * the program (drawing, comparing, calibrating) share. */
#ifndef SX_RUN_H
#define SX_RUN_H

#include "metrics.h"
#include "options.h"
#include "pipeline.h"
#include "prompts.h"

/* Steps, guidance, size and schedule after defaults. */
typedef struct sx_plan { sx_sched_config sched; int steps; double guidance, strength; int width, height; } sx_plan;
int sx_plan_make(sx_err *e, const sx_options *o, const sx_folder *f, sx_plan *plan);

typedef struct sx_shot {
    const char *prompt;
    int prompt_index;
    uint64_t seed;
    sx_rng rng;
    float *latent;          /* [n] */
    sx_keep keep;           /* empty without a mask */
    float *trace;           /* [steps][n] latents after each step, when asked for */
    double *step_seconds;   /* [steps] */
    int steps;              /* made so far */
    sx_image picture;
    int64_t bad;            /* values of the decoder that are not finite */
    char *failure;          /* a UNet that gave NaN: the message; no picture then */
    double seconds;
} sx_shot;

typedef struct sx_batch {
    const sx_options *o;
    qonnx_ctx *ctx;
    const sx_folder *folder;
    sx_plan plan;
    const char *label;      /* "reference", "test" or "" in progress lines */
    sx_pipe pipe;
    sx_cond *pos;           /* [n_prompts] */
    sx_cond neg;
    int n_prompts, n, dropped_prompts;
    sx_shot *shots;         /* [n] */
    bool keep_trace, tolerate_nan, decode;
    void (*on_timestep)(void *user, double t); /* before every UNet call; calibration */
    void *user;
    int at;                 /* shot in work */
    double started, last_line;
    double step_total;      /* seconds in UNet steps, and how many */
    int64_t step_count;
} sx_batch;

int sx_batch_new(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *folder, const sx_prompts *prompts, sx_batch **out);
int sx_batch_run(sx_err *e, sx_batch *b);
void sx_batch_free(sx_batch *b);
/* Options text of sessions: device, compute, simulate. buf of 128 bytes. */
const char *sx_session_options(const sx_options *o, char *buf, size_t cap);
/* Parameters as one line of text, for PNG files and reports; the caller frees. */
int sx_shot_parameters(sx_err *e, const sx_batch *b, const sx_shot *s, char **out);

#endif
