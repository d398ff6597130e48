/* report.c - the comparison for people: one HTML page that holds its pictures, worst first, and every picture as a file beside it. */
#include <math.h>
#include <string.h>

#include "compare.h"

enum { GAIN = 8, THUMB = 320 };

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

static int embed(sx_err *e, sx_text *html, const sx_image *m, const char *alt)
{
    sx_text png = {0};
    int rc = sx_png_encode(e, m, NULL, 0, &png);
    if (rc == SX_OK) {
        sx_text_add(html, "<img alt=\"");
        sx_text_html(html, alt);
        sx_text_add(html, "\" src=\"data:image/png;base64,");
        base64(html, png.s, png.len);
        sx_text_add(html, "\">");
    }
    sx_text_free(&png);
    return rc;
}

static int save(sx_err *e, const char *dir, const char *name, const sx_image *m, const sx_png_text *text)
{
    char *path;
    SX_TRY(sx_join(e, dir, name, &path));
    int rc = sx_png_write(e, path, m, text, text != NULL);
    sx_free(path);
    return rc;
}

/* The picture in full as a file, at most THUMB pixels of it in the page. */
static int show(sx_err *e, sx_text *html, const char *dir, const char *name, const sx_image *m, const sx_png_text *text)
{
    sx_image small;
    const double k = fmin(1, (double)THUMB / fmax(m->w, m->h));
    SX_TRY(save(e, dir, name, m, text));
    SX_TRY(sx_image_resize(e, m, (int)fmax(1, floor(m->w * k)), (int)fmax(1, floor(m->h * k)), &small));
    sx_text_add(html, "<td><a href=\"%s\">", name);
    int rc = embed(e, html, &small, name);
    sx_text_add(html, "</a></td>");
    sx_image_free(&small);
    return rc;
}

static int drift_plot(sx_err *e, const sx_comparison *c, const char *dir, sx_text *html)
{
    sx_image plot;
    const sx_series s[2] = {{"mean", c->mean_sqnr, c->steps, 0x1F5FBF}, {"worst picture", c->worst_sqnr, c->steps, 0xC0392B}};
    if (!c->steps) return SX_OK;
    SX_TRY(sx_plot(e, "latent SQNR, dB (higher is closer)", "step", s, 2, &plot));
    int rc = save(e, dir, "drift.png", &plot, NULL);
    if (rc == SX_OK) rc = embed(e, html, &plot, "latent drift by step");
    sx_image_free(&plot);
    return rc;
}

/* sheet.png: rows of reference, test, difference. */
static int sheet(sx_err *e, const sx_comparison *c, const sx_image *diffs, const char *dir)
{
    sx_image *pics = NULL, out;
    char (*text)[400] = NULL;
    const char **labels = NULL;
    int rc, n = 0;
    SX_TRY_GOTO(rc, SX_NEW(e, c->n * 3, &pics));
    SX_TRY_GOTO(rc, SX_NEW(e, c->n * 3, &labels));
    SX_TRY_GOTO(rc, SX_NEW(e, c->n, &text));
    for (int i = 0; i < c->n; i++) {
        if (!diffs[i].rgb) continue;
        snprintf(text[i], sizeof text[i], "%.2f dB %s", c->pairs[i].c.psnr, c->pairs[i].verdict);
        const sx_image row[3] = {c->ref->shots[i].picture, c->test->shots[i].picture, diffs[i]};
        const char *const under[3] = {c->test->shots[i].prompt, text[i], "difference x 8"};
        memcpy(pics + n, row, sizeof row);
        memcpy(labels + n, under, sizeof under);
        n += 3;
    }
    if (n) {
        SX_TRY_GOTO(rc, sx_contact_sheet(e, pics, labels, n, n > 12 ? 6 : 3, 384, &out));
        rc = save(e, dir, "sheet.png", &out, NULL);
        sx_image_free(&out);
    }
done:
    sx_free(pics);
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

static void numbers(sx_text *t, const sx_comparison *c, int i)
{
    const sx_pair *p = &c->pairs[i];
    const sx_shot *s = &c->test->shots[i];
    sx_text_add(t, "<td class=l>");
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
    sx_text_add(t, "</td>");
}

/* One side's picture, with how it was made inside the file. */
static int show_side(sx_err *e, sx_text *t, const sx_batch *b, const char *side, int i, const char *dir)
{
    const sx_shot *s = &b->shots[i];
    char *params, name[32];
    snprintf(name, sizeof name, "%s-%03d.png", side, i);
    if (!s->picture.rgb) {
        sx_text_add(t, "<td>none</td>");
        return SX_OK;
    }
    SX_TRY(sx_shot_parameters(e, b, s, &params));
    int rc = show(e, t, dir, name, &s->picture, &(sx_png_text){"parameters", params});
    sx_free(params);
    return rc;
}

static int row(sx_err *e, sx_text *t, const sx_comparison *c, int i, sx_image *diff, const char *dir)
{
    const sx_image *a = &c->ref->shots[i].picture, *b = &c->test->shots[i].picture;
    char name[32];
    sx_text_add(t, "<tr%s><td>%d</td>", strcmp(c->pairs[i].verdict, "ok") ? " class=bad" : "", i);
    SX_TRY(show_side(e, t, c->ref, "ref", i, dir));
    SX_TRY(show_side(e, t, c->test, "test", i, dir));
    if (a->rgb && b->rgb) {
        snprintf(name, sizeof name, "diff-%03d.png", i);
        SX_TRY(sx_difference(e, a, b, GAIN, diff));
        SX_TRY(show(e, t, dir, name, diff, NULL));
    } else sx_text_add(t, "<td></td>");
    numbers(t, c, i);
    sx_text_add(t, "</tr>\n");
    return SX_OK;
}

/* Index of the worst picture that is not marked yet: the rows come worst first. */
static int worst_left(const sx_comparison *c, const bool *done)
{
    int at = -1;
    for (int i = 0; i < c->n; i++)
        if (!done[i] && (at < 0 || c->pairs[i].c.psnr < c->pairs[at].c.psnr)) at = i;
    return at;
}

static int table(sx_err *e, sx_text *t, const sx_comparison *c, sx_image *diffs, const char *dir)
{
    bool *done;
    SX_TRY(SX_NEW(e, c->n, &done));
    sx_text_add(t, "<h2>Pictures, worst first</h2>\n<table class=pictures><tr><th>#</th><th class=l>reference</th><th "
                   "class=l>test</th><th class=l>difference x %d</th><th class=l>prompt</th><th>seed</th><th>PSNR dB</th><th>SSIM</th>"
                   "<th>MS-SSIM</th><th>GMSD</th><th>largest</th><th>latent dB</th>%s%s<th>look</th></tr>\n",
                GAIN, isnan(c->mean_lpips) ? "" : "<th>LPIPS</th>", isnan(c->mean_clip) ? "" : "<th>CLIP</th>");
    int rc = SX_OK;
    for (int k = 0; rc == SX_OK && k < c->n; k++) {
        int i = worst_left(c, done);
        done[i] = true;
        rc = row(e, t, c, i, &diffs[i], dir);
    }
    sx_text_add(t, "</table>\n");
    sx_free(done);
    return rc;
}

static const char page_start[] =
    "<!doctype html><html lang=en><meta charset=utf-8><title>qonnx-sdxl comparison</title><style>\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#202020;background:#f4f4f2}\n"
    "table{border-collapse:collapse}td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #d8d8d4}th{font-weight:600}\n"
    ".l{text-align:left}.bad{background:#f6d9d5}img{max-width:100%}code{background:#e8e8e4;padding:0 .2rem}\n"
    ".pictures img{width:9rem;max-width:none;display:block}.pictures td,.pictures th{padding:.3rem .4rem}\n";

static void head(sx_text *t, const sx_comparison *c, double min_psnr)
{
    const sx_plan *p = &c->test->plan;
    sx_text_put(t, page_start, sizeof page_start - 1);
    sx_text_add(t, "</style>\n<h1>Same seeds, two pipelines</h1>\n<p>Reference <code>");
    sx_text_html(t, c->ref->folder->model[SX_UNET]);
    sx_text_add(t, "</code>, test <code>");
    sx_text_html(t, c->test->folder->model[SX_UNET]);
    sx_text_add(t, "</code>; %d pictures of %d x %d, %d steps, %s, guidance %g.</p>\n", c->n, p->width, p->height, p->steps,
                sx_sampler_name(p->sched.sampler), p->guidance);
    sx_text_add(t, "<table><tr><th class=l>mean PSNR</th><td>%.2f dB</td></tr><tr><th class=l>worst PSNR</th><td>%.2f "
                   "dB</td></tr><tr><th class=l>mean SSIM</th><td>%.4f</td></tr>"
                   "<tr><th class=l>mean MS-SSIM</th><td>%.4f</td></tr><tr><th class=l>mean GMSD</th><td>%.4f</td></tr><tr><th "
                   "class=l>pictures that look wrong</th><td>%d</td></tr>"
                   "<tr><th class=l>seconds a step, reference / test</th><td>%.3f / %.3f</td></tr>", c->mean_psnr, c->worst_psnr,
                   c->mean_ssim, c->mean_ms_ssim, c->mean_gmsd, c->wrong,
                sx_per_step(c->ref), sx_per_step(c->test));
    if (!isnan(c->mean_lpips)) sx_text_add(t, "<tr><th class=l>mean LPIPS</th><td>%.4f</td></tr>", c->mean_lpips);
    if (!isnan(c->mean_clip))
        sx_text_add(t, "<tr><th class=l>mean CLIP score, reference / test</th><td>%.2f / %.2f</td></tr>", c->mean_clip_ref, c->mean_clip);
    if (isfinite(min_psnr))
        sx_text_add(t, "<tr><th class=l>gate</th><td>%.2f dB: %s</td></tr>", min_psnr, c->mean_psnr >= min_psnr ? "kept" : "missed");
    sx_text_add(t, "</table>\n<p>PSNR over RGB/255 per picture, then mean (identical counts 100 dB); SSIM with an 11 x 11 "
                   "gaussian, sigma 1.5, full size; MS-SSIM over the %d scales that fit; "
                   "GMSD 0 means same. Differences are shown times %d.</p>\n", c->n ? c->pairs[0].c.ms_scales : 0, GAIN);
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

static int page(sx_err *e, const sx_comparison *c, double min_psnr, const char *dir, sx_image *diffs, sx_text *html)
{
    head(html, c, min_psnr);
    SX_TRY(drift_plot(e, c, dir, html));
    sx_text_add(html, "\n");
    SX_TRY(table(e, html, c, diffs, dir));
    sx_text_add(html, "</html>\n");
    return SX_OK;
}

int sx_report_write(sx_err *e, const sx_comparison *c, double min_psnr, const char *dir)
{
    sx_text html = {0}, json = {0};
    sx_image *diffs = NULL;
    int rc;
    SX_TRY_GOTO(rc, sx_make_dirs(e, dir));
    SX_TRY_GOTO(rc, SX_NEW(e, c->n, &diffs));
    SX_TRY_GOTO(rc, page(e, c, min_psnr, dir, diffs, &html));
    SX_TRY_GOTO(rc, sheet(e, c, diffs, dir));
    sx_report_json(c, min_psnr, &json);
    SX_TRY_GOTO(rc, write_text(e, dir, "report.json", &json));
    rc = write_text(e, dir, "report.html", &html);
done:
    for (int i = 0; diffs && i < c->n; i++) sx_image_free(&diffs[i]);
    sx_free(diffs);
    sx_text_free(&html);
    sx_text_free(&json);
    return rc;
}
