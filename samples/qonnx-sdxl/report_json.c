/* report_json.c - the comparison as JSON, for scripts: report.json and standard output. */
#include <math.h>

#include "compare.h"

static void json_number(sx_text *t, const char *key, double v)
{
    sx_text_add(t, "\"%s\": ", key);
    if (isfinite(v)) sx_text_add(t, "%.9g", v);
    else sx_text_add(t, isinf(v) && v > 0 ? "\"inf\"" : "null");
}

static void json_scores(sx_text *t, const char *prefix, double lpips, double clip_ref, double clip)
{
    if (!isnan(lpips)) sx_text_add(t, ", \"%slpips\": %.9g", prefix, lpips);
    if (!isnan(clip)) sx_text_add(t, ", \"%sclip_score\": %.9g, \"%sreference_clip_score\": %.9g", prefix, clip, prefix, clip_ref);
}

static void json_pair(sx_text *t, const sx_shot *s, const sx_pair *p)
{
    sx_text_add(t, "    {\"prompt\": ");
    sx_text_json(t, s->prompt);
    sx_text_add(t, ", \"seed\": %llu, \"verdict\": \"%s\", \"reference_verdict\": \"%s\", ", (unsigned long long)s->seed, p->verdict,
                p->ref_verdict);
    json_number(t, "psnr_db", p->c.psnr);
    sx_text_add(t, ", ");
    json_number(t, "ssim", p->c.ssim);
    sx_text_add(t, ", ");
    json_number(t, "ms_ssim", p->c.ms_ssim);
    sx_text_add(t, ", \"ms_ssim_scales\": %d, ", p->c.ms_scales);
    json_number(t, "gmsd", p->c.gmsd);
    sx_text_add(t, ", \"max_abs\": %d, \"latent_sqnr_db\": [", p->c.max_abs);
    for (int i = 0; i < p->steps; i++) {
        double v = p->drift[i].sqnr_db;
        sx_text_add(t, i ? ", " : "");
        if (isfinite(v)) sx_text_add(t, "%.6g", v);
        else sx_text_add(t, "\"inf\"");
    }
    sx_text_add(t, "], ");
    json_number(t, "final_latent_mse", p->last.mse);
    sx_text_add(t, ", ");
    json_number(t, "final_latent_cosine", p->last.cosine);
    if (s->failure) {
        sx_text_add(t, ", \"failure\": ");
        sx_text_json(t, s->failure);
    }
    json_scores(t, "", p->lpips, p->clip_ref, p->clip);
    sx_text_add(t, "}");
}

static void json_side(sx_text *t, const char *key, const sx_batch *b)
{
    sx_text_add(t, "  \"%s\": {\"unet\": ", key);
    sx_text_json(t, b->folder->model[SX_UNET]);
    sx_text_add(t, ", \"vae\": ");
    sx_text_json(t, b->folder->model[SX_VAE_DEC]);
    sx_text_add(t, ", ");
    json_number(t, "seconds_per_step", sx_per_step(b));
    sx_text_add(t, "},\n");
}

void sx_report_json(const sx_comparison *c, double min_psnr, sx_text *t)
{
    const sx_plan *p = &c->test->plan;
    sx_text_add(t, "{\n  \"steps\": %d, \"guidance\": %.9g, \"width\": %d, \"height\": %d, \"scheduler\": \"%s\",\n", p->steps,
                p->guidance, p->width, p->height, sx_sampler_name(p->sched.sampler));
    json_side(t, "reference", c->ref);
    json_side(t, "test", c->test);
    sx_text_add(t, "  ");
    json_number(t, "mean_psnr_db", c->mean_psnr);
    sx_text_add(t, ", ");
    json_number(t, "worst_psnr_db", c->worst_psnr);
    sx_text_add(t, ", ");
    json_number(t, "mean_ssim", c->mean_ssim);
    sx_text_add(t, ", ");
    json_number(t, "mean_ms_ssim", c->mean_ms_ssim);
    sx_text_add(t, ", ");
    json_number(t, "mean_gmsd", c->mean_gmsd);
    json_scores(t, "mean_", c->mean_lpips, c->mean_clip_ref, c->mean_clip);
    sx_text_add(t, ", \"pictures_wrong\": %d,\n  ", c->wrong);
    json_number(t, "min_psnr_db", min_psnr);
    sx_text_add(t, ",\n  \"conventions\": \"PSNR over RGB/255 per picture, then mean, identical counts 100; SSIM gaussian 11x11 "
                   "sigma 1.5 at full size\",\n  \"pictures\": [\n");
    for (int i = 0; i < c->n; i++) {
        json_pair(t, &c->test->shots[i], &c->pairs[i]);
        sx_text_add(t, i + 1 < c->n ? ",\n" : "\n");
    }
    sx_text_add(t, "  ]\n}\n");
}
