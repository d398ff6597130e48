/* report.c - the comparison as files: one HTML page that holds its pictures, JSON, and the PNG files apart. */
#include <math.h>
#include <string.h>

#include "compare.h"

enum { GAIN = 8 };

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
    sx_text_add(t, ", \"seed\": %llu, \"verdict\": \"%s\", \"reference_verdict\": \"%s\", ", (unsigned long long)s->seed, p->verdict, p->ref_verdict);
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

static double per_step(const sx_batch *b) { return b->step_count ? b->step_total / (double)b->step_count : NAN; }

static void json_side(sx_text *t, const char *key, const sx_batch *b)
{
    sx_text_add(t, "  \"%s\": {\"unet\": ", key);
    sx_text_json(t, b->folder->model[SX_UNET]);
    sx_text_add(t, ", \"vae\": ");
    sx_text_json(t, b->folder->model[SX_VAE_DEC]);
    sx_text_add(t, ", ");
    json_number(t, "seconds_per_step", per_step(b));
    sx_text_add(t, "},\n");
}

void sx_report_json(const sx_comparison *c, double min_psnr, sx_text *t)
{
    const sx_plan *p = &c->test->plan;
    sx_text_add(t, "{\n  \"steps\": %d, \"guidance\": %.9g, \"width\": %d, \"height\": %d, \"scheduler\": \"%s\",\n", p->steps, p->guidance, p->width, p->height, sx_sampler_name(p->sched.sampler));
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
    sx_text_add(t, ",\n  \"conventions\": \"PSNR over RGB/255 per picture, then mean, identical counts 100; SSIM gaussian 11x11 sigma 1.5 at full size\",\n  \"pictures\": [\n");
    for (int i = 0; i < c->n; i++) {
        json_pair(t, &c->test->shots[i], &c->pairs[i]);
        sx_text_add(t, i + 1 < c->n ? ",\n" : "\n");
    }
    sx_text_add(t, "  ]\n}\n");
}

static void base64(sx_text *t, const char *bytes, size_t n)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)bytes[i] << 16;
        if (i + 1 < n) v |= (uint32_t)(unsigned char)bytes[i + 1] << 8;
        if (i + 2 < n) v |= (unsigned char)bytes[i + 2];
        char q[4] = {set[v >> 18], set[v >> 12 & 63], i + 1 < n ? set[v >> 6 & 63] : '=', i + 2 < n ? set[v & 63] : '='};
        sx_text_put(t, q, 4);
    }
}

/* The picture as a file in dir, and as an element of the page. */
static int put_picture(sx_err *e, sx_text *html, const char *dir, const char *name, const sx_image *m, const char *alt)
{
    sx_text png = {0};
    char *path = NULL;
    int rc = sx_png_encode(e, m, NULL, 0, &png);
    if (rc == SX_OK) rc = sx_join(e, dir, name, &path);
    if (rc == SX_OK) rc = sx_write_file(e, path, png.s, png.len);
    if (rc == SX_OK) {
        sx_text_add(html, "<img alt=\"");
        sx_text_html(html, alt);
        sx_text_add(html, "\" src=\"data:image/png;base64,");
        base64(html, png.s, png.len);
        sx_text_add(html, "\">");
    }
    sx_free(path);
    sx_text_free(&png);
    return rc;
}

static int drift_plot(sx_err *e, const sx_comparison *c, const char *dir, sx_text *html)
{
    sx_image plot;
    const sx_series s[2] = {{"mean", c->mean_sqnr, c->steps, 0x1F5FBF}, {"worst picture", c->worst_sqnr, c->steps, 0xC0392B}};
    if (!c->steps) return SX_OK;
    SX_TRY(sx_plot(e, "latent SQNR, dB (higher is closer)", "step", s, 2, &plot));
    int rc = put_picture(e, html, dir, "drift.png", &plot, "latent drift by step");
    sx_image_free(&plot);
    return rc;
}

/* Rows of reference, test, difference. */
static int sheet(sx_err *e, const sx_comparison *c, const char *dir, sx_text *html)
{
    sx_image *pics = NULL, out, *diffs = NULL;
    char (*text)[400] = NULL;
    const char **labels = NULL;
    int rc, n = 0;
    SX_TRY_GOTO(rc, SX_NEW(e, c->n * 3, &pics));
    SX_TRY_GOTO(rc, SX_NEW(e, c->n, &diffs));
    SX_TRY_GOTO(rc, SX_NEW(e, c->n * 3, &labels));
    SX_TRY_GOTO(rc, SX_NEW(e, c->n, &text));
    for (int i = 0; i < c->n; i++) {
        const sx_image *r = &c->ref->shots[i].picture, *t = &c->test->shots[i].picture;
        if (!r->rgb || !t->rgb) continue;
        SX_TRY_GOTO(rc, sx_difference(e, r, t, GAIN, &diffs[i]));
        snprintf(text[i], sizeof text[i], "%.2f dB %s", c->pairs[i].c.psnr, c->pairs[i].verdict);
        pics[n] = *r;
        labels[n++] = c->test->shots[i].prompt;
        pics[n] = *t;
        labels[n++] = text[i];
        pics[n] = diffs[i];
        labels[n++] = "difference x 8";
    }
    if (n) {
        SX_TRY_GOTO(rc, sx_contact_sheet(e, pics, labels, n, n > 12 ? 6 : 3, 384, &out));
        rc = put_picture(e, html, dir, "sheet.png", &out, "reference, test and difference");
        sx_image_free(&out);
    }
done:
    for (int i = 0; diffs && i < c->n; i++) sx_image_free(&diffs[i]);
    sx_free(pics);
    sx_free(diffs);
    sx_free(labels);
    sx_free(text);
    return rc;
}

static void cell(sx_text *t, double v, int digits)
{
    if (isinf(v)) sx_text_add(t, "<td>same</td>");
    else if (isnan(v)) sx_text_add(t, "<td>-</td>");
    else sx_text_add(t, "<td>%.*f</td>", digits, v);
}

static void table(sx_text *t, const sx_comparison *c)
{
    sx_text_add(t, "<table><tr><th>#</th><th class=l>prompt</th><th>seed</th><th>PSNR dB</th><th>SSIM</th><th>MS-SSIM</th><th>GMSD</th><th>max</th><th>latent SQNR dB</th>%s%s<th>look</th></tr>\n",
                isnan(c->mean_lpips) ? "" : "<th>LPIPS</th>", isnan(c->mean_clip) ? "" : "<th>CLIP</th>");
    for (int i = 0; i < c->n; i++) {
        const sx_pair *p = &c->pairs[i];
        const sx_shot *s = &c->test->shots[i];
        sx_text_add(t, "<tr%s><td>%d</td><td class=l>", strcmp(p->verdict, "ok") ? " class=bad" : "", i);
        sx_text_html(t, s->prompt);
        sx_text_add(t, "</td><td>%llu</td>", (unsigned long long)s->seed);
        cell(t, p->c.psnr, 2);
        cell(t, p->c.ssim, 4);
        cell(t, p->c.ms_ssim, 4);
        cell(t, p->c.gmsd, 4);
        sx_text_add(t, "<td>%d</td>", p->c.max_abs);
        cell(t, p->last.sqnr_db, 2);
        if (!isnan(c->mean_lpips)) cell(t, p->lpips, 4);
        if (!isnan(c->mean_clip)) cell(t, p->clip, 2);
        sx_text_add(t, "<td>%s%s", p->verdict, s->failure ? ": " : "");
        if (s->failure) sx_text_html(t, s->failure);
        sx_text_add(t, "</td></tr>\n");
    }
    sx_text_add(t, "</table>\n");
}

static void head(sx_text *t, const sx_comparison *c, double min_psnr)
{
    const sx_plan *p = &c->test->plan;
    sx_text_add(t, "<!doctype html><html lang=en><meta charset=utf-8><title>qonnx-sdxl comparison</title><style>body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;"
                   "padding:0 1rem;color:#202020;background:#f4f4f2}table{border-collapse:collapse}td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #d8d8d4}.l{text-align:left}"
                   ".bad{background:#f6d9d5}img{max-width:100%%;image-rendering:auto}code{background:#e8e8e4;padding:0 .2rem}</style>\n<h1>Same seeds, two pipelines</h1>\n<p>Reference <code>");
    sx_text_html(t, c->ref->folder->model[SX_UNET]);
    sx_text_add(t, "</code>, test <code>");
    sx_text_html(t, c->test->folder->model[SX_UNET]);
    sx_text_add(t, "</code>; %d pictures of %d x %d, %d steps, %s, guidance %g.</p>\n", c->n, p->width, p->height, p->steps, sx_sampler_name(p->sched.sampler), p->guidance);
    sx_text_add(t, "<table><tr><th class=l>mean PSNR</th><td>%.2f dB</td></tr><tr><th class=l>worst PSNR</th><td>%.2f dB</td></tr><tr><th class=l>mean SSIM</th><td>%.4f</td></tr>"
                   "<tr><th class=l>mean MS-SSIM</th><td>%.4f</td></tr><tr><th class=l>mean GMSD</th><td>%.4f</td></tr><tr><th class=l>pictures that look wrong</th><td>%d</td></tr>"
                   "<tr><th class=l>seconds a step, reference / test</th><td>%.3f / %.3f</td></tr>", c->mean_psnr, c->worst_psnr, c->mean_ssim, c->mean_ms_ssim, c->mean_gmsd, c->wrong,
                per_step(c->ref), per_step(c->test));
    if (!isnan(c->mean_lpips)) sx_text_add(t, "<tr><th class=l>mean LPIPS</th><td>%.4f</td></tr>", c->mean_lpips);
    if (!isnan(c->mean_clip)) sx_text_add(t, "<tr><th class=l>mean CLIP score, reference / test</th><td>%.2f / %.2f</td></tr>", c->mean_clip_ref, c->mean_clip);
    if (isfinite(min_psnr)) sx_text_add(t, "<tr><th class=l>gate</th><td>%.2f dB: %s</td></tr>", min_psnr, c->mean_psnr >= min_psnr ? "kept" : "missed");
    sx_text_add(t, "</table>\n<p>PSNR over RGB/255 per picture, then mean (identical counts 100 dB); SSIM with an 11 x 11 gaussian, sigma 1.5, full size; MS-SSIM over the %d scales that fit; "
                   "GMSD 0 means same. Differences are shown times %d.</p>\n", c->n ? c->pairs[0].c.ms_scales : 0, GAIN);
}

static int write_pictures(sx_err *e, const sx_comparison *c, const char *dir)
{
    for (int i = 0; i < c->n; i++) {
        for (int k = 0; k < 2; k++) {
            const sx_batch *b = k ? c->test : c->ref;
            char *path, *params = NULL;
            if (!b->shots[i].picture.rgb) continue;
            SX_TRY(sx_printf(e, &path, "%s/%s-%03d.png", dir, k ? "test" : "ref", i));
            int rc = sx_shot_parameters(e, b, &b->shots[i], &params);
            sx_png_text text = {"parameters", params};
            if (rc == SX_OK) rc = sx_png_write(e, path, &b->shots[i].picture, &text, 1);
            sx_free(path);
            sx_free(params);
            SX_TRY(rc);
        }
    }
    return SX_OK;
}

static int write_text(sx_err *e, const char *dir, const char *name, sx_text *t)
{
    char *path;
    if (t->failed) return sx_fail(e, SX_FAILED, "out of memory for %s", name);
    SX_TRY(sx_join(e, dir, name, &path));
    int rc = sx_write_file(e, path, t->s, t->len);
    sx_free(path);
    return rc;
}

int sx_report_write(sx_err *e, const sx_comparison *c, double min_psnr, const char *dir)
{
    sx_text html = {0}, json = {0};
    int rc;
    SX_TRY_GOTO(rc, sx_make_dirs(e, dir));
    head(&html, c, min_psnr);
    SX_TRY_GOTO(rc, drift_plot(e, c, dir, &html));
    sx_text_add(&html, "\n");
    table(&html, c);
    SX_TRY_GOTO(rc, sheet(e, c, dir, &html));
    sx_text_add(&html, "\n</html>\n");
    sx_report_json(c, min_psnr, &json);
    SX_TRY_GOTO(rc, write_pictures(e, c, dir));
    SX_TRY_GOTO(rc, write_text(e, dir, "report.json", &json));
    rc = write_text(e, dir, "report.html", &html);
done:
    sx_text_free(&html);
    sx_text_free(&json);
    return rc;
}
