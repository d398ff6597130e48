/* score.c - LPIPS and CLIP scores by networks that the user exported: which inputs they have, what pictures and prompts must look
 * like there.
 *
 * LPIPS: two pictures [1,3,H,W] in -1..1, the mean of the first output. CLIP: pixel_values [1,3,S,S] with CLIP's mean and
 * deviation, resized and cut to the middle square; score 100 max(cos, 0) as in torchmetrics. Picture and text side in one file
 * (transformers' CLIPModel) or in two. */
#include "score.h"

#include <math.h>
#include <string.h>

enum { CLIP_SIDE = 224 };

/* ---- LPIPS -------------------------------------------------------------------------------------------------------- */

static int wrong_ports(sx_err *e, const sx_model *m, const char *expected)
{
    sx_text t = {0};
    sx_describe_ports(m->in, m->n_in, &t);
    sx_fail(e, SX_UNSUPPORTED, "%s '%s': expected %s; the graph takes: %s", m->what, m->path, expected, t.s ? t.s : "nothing");
    sx_text_free(&t);
    return e->code;
}

/* The size that a picture input wants: fixed by the graph, else the fallback. */
static int side(const qonnx_port *p, int axis, int fallback)
{
    return p->rank == 4 && p->dims[axis] > 0 && p->dims[axis] <= SX_MAX_SIDE ? (int)p->dims[axis] : fallback;
}

static int lpips_input(sx_err *e, const qonnx_port *p, const sx_image *m, sx_feed *feed, float **x)
{
    const int w = side(p, 3, m->w), h = side(p, 2, m->h);
    sx_image fitted = {0};
    SX_TRY(sx_image_resize(e, m, w, h, &fitted));
    int rc = SX_NEW(e, (size_t)w * (size_t)h * 3, x);
    if (rc == SX_OK) sx_image_to_floats(&fitted, *x);
    sx_image_free(&fitted);
    *feed = (sx_feed){.rank = 4, .dims = {1, 3, h, w}, .f = *x};
    return rc;
}

static int lpips(sx_err *e, sx_model *m, const sx_image *ref, const sx_image *test, double *out)
{
    sx_feed in[2];
    float *x[2] = {0};
    sx_fetch got = {.name = m->out[0].name};
    int rc = SX_OK;
    for (int i = 0; rc == SX_OK && i < 2; i++) {
        rc = lpips_input(e, &m->in[i], i ? test : ref, &in[i], &x[i]);
        in[i].port = i;
    }
    if (rc == SX_OK) rc = sx_model_run(e, m, in, 2, &got, 1);
    *out = rc == SX_OK && got.n ? 0 : NAN;
    for (size_t i = 0; rc == SX_OK && i < got.n; i++) *out += got.f[i] / (double)got.n;
    sx_free(got.f);
    sx_free(x[0]);
    sx_free(x[1]);
    return rc;
}

static int score_lpips(sx_err *e, const sx_options *o, qonnx_ctx *ctx, sx_comparison *c, const char *options)
{
    sx_model m;
    SX_TRY(sx_model_open(e, ctx, "LPIPS network", o->lpips, options, &m));
    int rc = m.n_in == 2 && m.n_out >= 1 && m.in[0].rank == 4 &&
        m.in[1].rank == 4 ? SX_OK : wrong_ports(e, &m, "two pictures [1,3,H,W] and one output");
    c->mean_lpips = 0;
    for (int i = 0; rc == SX_OK && i < c->n; i++) {
        const sx_image *a = &c->ref->shots[i].picture, *b = &c->test->shots[i].picture;
        if (a->rgb && b->rgb) rc = lpips(e, &m, a, b, &c->pairs[i].lpips);
        c->mean_lpips += c->pairs[i].lpips / c->n;
    }
    sx_model_close(&m);
    return rc;
}

/* ---- CLIP --------------------------------------------------------------------------------------------------------- */

typedef struct clip { sx_model image, text; /* text.session NULL: one file for both */ sx_clip *tok; int64_t *ids, *ones; int len; } clip;

/* The middle square of the picture, normalised: [3][s][s]. */
static int pixel_values(sx_err *e, const sx_image *m, int s, float **out)
{
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f}, deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    const int less = m->w < m->h ? m->w : m->h, w = (int)lround((double)m->w * s / less), h = (int)lround((double)m->h * s / less);
    sx_image fitted = {0};
    SX_TRY(sx_image_resize(e, m, w, h, &fitted));
    int rc = SX_NEW(e, (size_t)s * (size_t)s * 3, out);
    const size_t left = (size_t)(w - s) / 2, top = (size_t)(h - s) / 2, n = (size_t)s * (size_t)s;
    for (size_t i = 0; rc == SX_OK && i < n * 3; i++) {
        const size_t ch = i / n, y = i % n / (size_t)s, x = i % (size_t)s;
        (*out)[i] = ((float)fitted.rgb[((top + y) * (size_t)w + left + x) * 3 + ch] / 255.0f - mean[ch]) / deviation[ch];
    }
    sx_image_free(&fitted);
    return rc;
}

enum { PIXELS, IDS, MASK, N_IN };
static const sx_role clip_in[N_IN] = {
    [PIXELS] = {{"pixel_values", "image", "images"}, .rank = 4, .rank2 = -1, .optional = true},
    [IDS] = {{"input_ids", "text", "tokens"}, .rank = 2, .rank2 = -1, .integer = true, .optional = true},
    [MASK] = {{"attention_mask"}, .rank = 2, .rank2 = -1, .integer = true, .optional = true}};
enum { IMAGE, TEXT, N_OUT };
static const sx_role clip_out[N_OUT] = {
    [IMAGE] = {{"image_embeds", "image_features", "image_embedding"}, .rank = 2, .rank2 = -1},
    [TEXT] = {{"text_embeds", "text_features", "text_embedding"}, .rank = 2, .rank2 = -1}};

/* One run of one file; out: embeddings of the roles from `first` on, n_out of them. pixels may be NULL where the graph has no
 * such input. */
static int embed(sx_err *e, sx_model *m, const clip *c, const float *pixels, int s, int first, int n_out, sx_fetch *out)
{
    int at[N_IN], o[N_OUT], n = 0;
    sx_feed in[N_IN];
    SX_TRY(sx_bind(e, m, false, clip_in, N_IN, true, at));
    if (at[PIXELS] >= 0) in[n++] = (sx_feed){.port = at[PIXELS], .rank = 4, .dims = {1, 3, s, s}, .f = pixels};
    if (at[IDS] >= 0) in[n++] = (sx_feed){.port = at[IDS], .rank = 2, .dims = {1, c->len}, .ids = c->ids};
    if (at[MASK] >= 0) in[n++] = (sx_feed){.port = at[MASK], .rank = 2, .dims = {1, c->len}, .ids = c->ones};
    SX_TRY(sx_bind(e, m, true, clip_out + first, n_out, false, o));
    for (int i = 0; i < n_out; i++) out[i] = (sx_fetch){.name = m->out[o[i]].name};
    return sx_model_run(e, m, in, n, out, n_out);
}

static double cosine(const sx_fetch *a, const sx_fetch *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < a->n; i++) {
        ab += (double)a->f[i] * b->f[i];
        aa += (double)a->f[i] * a->f[i];
        bb += (double)b->f[i] * b->f[i];
    }
    return ab / sqrt(aa * bb);
}

static int clip_score(sx_err *e, clip *c, const sx_image *m, const char *prompt, double *out)
{
    sx_fetch got[N_OUT] = {0};
    float *pixels = NULL;
    const int at = sx_find_port(c->image.in, c->image.n_in, "pixel_values"), s = side(&c->image.in[at < 0 ? 0 : at], 2, CLIP_SIDE);
    const bool joint = !c->text.session;
    if (!m->rgb) return SX_OK;
    int rc = sx_clip_encode(e, c->tok, prompt, c->ids, c->len, NULL);
    if (rc == SX_OK) rc = pixel_values(e, m, s, &pixels);
    if (rc == SX_OK) rc = embed(e, &c->image, c, pixels, s, IMAGE, joint ? N_OUT : 1, got);
    if (rc == SX_OK && !joint) rc = embed(e, &c->text, c, NULL, 0, TEXT, 1, got + TEXT);
    if (rc == SX_OK && got[0].n != got[1].n)
        rc = sx_fail(e, SX_UNSUPPORTED, "CLIP: the picture's embedding has %zu values, the text's %zu", got[0].n, got[1].n);
    if (rc == SX_OK) *out = 100 * fmax(cosine(&got[0], &got[1]), 0);
    sx_free(got[0].f);
    sx_free(got[1].f);
    sx_free(pixels);
    return rc;
}

static int open_clip(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, const char *options, clip *c)
{
    SX_TRY(sx_model_open(e, ctx, "CLIP network", o->clip, options, &c->image));
    if (o->clip_text) SX_TRY(sx_model_open(e, ctx, "CLIP text network", o->clip_text, options, &c->text));
    SX_TRY(sx_clip_open(e, f->tokenizer ? f->tokenizer : f->tokenizer_2, &c->tok));
    c->len = sx_clip_max_length(c->tok);
    SX_TRY(SX_NEW(e, c->len, &c->ids));
    SX_TRY(SX_NEW(e, c->len, &c->ones));
    for (int i = 0; i < c->len; i++) c->ones[i] = 1;
    return SX_OK;
}

static void close_clip(clip *c)
{
    sx_model_close(&c->image);
    sx_model_close(&c->text);
    sx_clip_free(c->tok);
    sx_free(c->ids);
    sx_free(c->ones);
}

static int score_clip(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, sx_comparison *c, const char *options)
{
    clip k = {0};
    int rc = open_clip(e, o, ctx, f, options, &k);
    c->mean_clip_ref = c->mean_clip = 0;
    for (int i = 0; rc == SX_OK && i < c->n; i++) {
        sx_pair *p = &c->pairs[i];
        rc = clip_score(e, &k, &c->ref->shots[i].picture, c->ref->shots[i].prompt, &p->clip_ref);
        if (rc == SX_OK) rc = clip_score(e, &k, &c->test->shots[i].picture, c->test->shots[i].prompt, &p->clip);
        c->mean_clip_ref += p->clip_ref / c->n;
        c->mean_clip += p->clip / c->n;
    }
    close_clip(&k);
    return rc;
}

int sx_score_pairs(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, sx_comparison *c)
{
    char options[128];
    sx_options plain = *o;
    plain.simulate = false;
    sx_session_options(&plain, options, sizeof options);
    if (o->clip_text && !o->clip) return sx_fail(e, SX_USAGE, "--clip-text needs --clip FILE.onnx, the picture's side");
    if (o->lpips) SX_TRY(score_lpips(e, o, ctx, c, options));
    if (o->clip) SX_TRY(score_clip(e, o, ctx, f, c, options));
    return SX_OK;
}
