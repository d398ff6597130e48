/* main.c - the program: chooses among drawing, comparing, calibrating and quantizing, and says how it went. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compare.h"
#include "json.h"
#include "quantize.h"
#include "score.h"
#include "spin.h"

static volatile int stop_flag; /* what the library polls */

static void on_signal(int sig)
{
    (void)sig;
    stop_flag = 1;
}

static void on_log(void *user, int level, const char *text)
{
    const sx_options *o = user;
    if (level >= 2 || o->verbose) fprintf(stderr, "%s%s\n", level >= 2 ? "warning: " : "", text);
}

static int set_up(sx_err *e, const sx_options *o, qonnx_ctx *ctx)
{
    qonnx_set_log(ctx, on_log, NULL, (void *)o);
    qonnx_set_cancel(ctx, &stop_flag);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    qonnx_code c = QONNX_OK;
    if (o->threads) c = qonnx_set_threads(ctx, (int)o->threads);
    if (c == QONNX_OK && o->max_memory) {
        double v = 0;
        char unit = 0;
        if (sscanf(o->max_memory, "%lf%c", &v, &unit) < 1 || !(v > 0) || (unit && !strchr("KMGTkmgt", unit)))
            return sx_fail(e, SX_USAGE, "--max-memory: '%.40s' is not a size", o->max_memory);
        const char *units = "KMGT", *at = unit ? strchr(units, unit & ~0x20) : NULL;
        c = qonnx_set_max_memory(ctx, (int64_t)(v * (at ? pow(1024, (double)(at - units + 1)) : 1)));
    }
    return c == QONNX_OK ? SX_OK : sx_fail(e, (int)c, "%s", qonnx_error(ctx));
}

/* "dir/a.png" and 3 give "dir/a-3.png". */
static int numbered(sx_err *e, const char *path, int i, int n, char **out)
{
    if (n == 1) return sx_strdup(e, path, out);
    size_t len = strlen(path), stem = len > 4 && strcmp(path + len - 4, ".png") == 0 ? len - 4 : len;
    return sx_printf(e, out, "%.*s-%d.png", (int)stem, path, i);
}

static int write_shot(sx_err *e, const sx_batch *b, int i, sx_text *json)
{
    const sx_shot *s = &b->shots[i];
    char *path = NULL, *params = NULL;
    sx_look look;
    sx_look_at(&s->picture, &look);
    const char *verdict = sx_verdict(&look, NULL, s->bad);
    int rc = numbered(e, b->o->out ? b->o->out : "out.png", i, b->n, &path);
    if (rc == SX_OK) rc = sx_shot_parameters(e, b, s, &params);
    sx_png_text text = {"parameters", params};
    if (rc == SX_OK) rc = sx_png_write(e, path, &s->picture, &text, 1);
    if (rc == SX_OK && !b->o->json)
        printf("%s  seed %llu  %.2f s%s%s\n", path, (unsigned long long)s->seed, s->seconds, strcmp(verdict, "ok") ? "  looks " : "",
               strcmp(verdict, "ok") ? verdict : "");
    if (rc == SX_OK) {
        sx_text_add(json, "%s    {\"file\": ", i ? ",\n" : "");
        sx_text_json(json, path);
        sx_text_add(json, ", \"prompt\": ");
        sx_text_json(json, s->prompt);
        sx_text_add(json, ", \"seed\": %llu, \"seconds\": %.6g, \"look\": \"%s\", \"truncated_tokens\": %d}",
                    (unsigned long long)s->seed, s->seconds, verdict, b->pos[s->prompt_index].dropped);
    }
    sx_free(path);
    sx_free(params);
    return rc;
}

static int write_sheet(sx_err *e, const sx_batch *b)
{
    sx_image *pics = NULL, sheet;
    const char **labels = NULL;
    if (!b->o->sheet) return SX_OK;
    int rc = SX_NEW(e, b->n, &pics);
    if (rc == SX_OK) rc = SX_NEW(e, b->n, &labels);
    for (int i = 0; rc == SX_OK && i < b->n; i++) {
        pics[i] = b->shots[i].picture;
        labels[i] = b->shots[i].prompt;
    }
    if (rc == SX_OK) rc = sx_contact_sheet(e, pics, labels, b->n, 0, 512, &sheet);
    if (rc == SX_OK) {
        rc = sx_png_write(e, b->o->sheet, &sheet, NULL, 0);
        sx_image_free(&sheet);
    }
    sx_free(pics);
    sx_free(labels);
    return rc;
}

static void stage_table(const sx_batch *b, double all)
{
    char unet[48];
    snprintf(unet, sizeof unet, "unet x %lld", (long long)b->pipe.unet_runs);
    printf("%-20s %9.2f s\n%-20s %9.2f s\n%-20s %9.2f s\n%-20s %9.2f s\n%-20s %9.2f s   %.4f pictures/s\n", "loading",
           b->pipe.seconds_load, "text encoders", b->pipe.seconds_text, unet, b->pipe.seconds_unet, "vae", b->pipe.seconds_vae,
           "all", all, b->n / all);
}

static int finish_drawing(sx_err *e, sx_batch *b)
{
    sx_text json = {0};
    double all = sx_seconds() - b->started;
    int rc = SX_OK;
    for (int i = 0; rc == SX_OK && i < b->n; i++) rc = write_shot(e, b, i, &json);
    if (rc == SX_OK) rc = write_sheet(e, b);
    if (rc == SX_OK && b->o->json)
        printf("{\n  \"steps\": %d, \"guidance\": %.9g, \"scheduler\": \"%s\", \"width\": %d, \"height\": %d,\n  \"seconds\": "
               "{\"load\": %.6g, \"text\": %.6g, \"unet\": %.6g, \"vae\": %.6g, \"all\": %.6g}, \"unet_runs\": %lld,\n"
               "  \"pictures\": [\n%s\n  ]\n}\n", b->plan.steps, b->plan.guidance, sx_sampler_name(b->plan.sched.sampler), b->plan.width,
               b->plan.height, b->pipe.seconds_load, b->pipe.seconds_text, b->pipe.seconds_unet,
               b->pipe.seconds_vae, all, (long long)b->pipe.unet_runs, json.s ? json.s : "");
    else if (rc == SX_OK && !b->o->quiet) stage_table(b, all);
    sx_text_free(&json);
    return rc;
}

/* A path that cannot be written shall be known before the work, not after it. */
static int check_output(sx_err *e, const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    char *dir;
    if (!slash) return SX_OK;
    SX_TRY(sx_printf(e, &dir, "%.*s", slash == path ? 1 : (int)(slash - path), path));
    int rc = access(dir, W_OK) == 0 ? SX_OK : sx_fail(e, SX_FAILED, "cannot write '%s': folder '%s': %s", path, dir, strerror(errno));
    sx_free(dir);
    return rc;
}

static int draw(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f)
{
    sx_prompts prompts;
    sx_batch *b = NULL;
    char options[128];
    SX_TRY(check_output(e, o->out));
    SX_TRY(check_output(e, o->sheet));
    SX_TRY(sx_prompts_load(e, &o->prompts, o->prompts_file, &prompts));
    int rc = sx_batch_new(e, o, ctx, f, &prompts, &b);
    if (rc == SX_OK) {
        sx_pipe_init(&b->pipe, ctx, f, sx_session_options(o, options, sizeof options));
        rc = sx_batch_run(e, b);
    }
    if (rc == SX_OK) rc = finish_drawing(e, b);
    sx_batch_free(b);
    sx_prompts_free(&prompts);
    return rc;
}

static int draw_side(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, const sx_prompts *p, const char *label,
                     const char *options, sx_batch **out)
{
    SX_TRY(sx_batch_new(e, o, ctx, f, p, out));
    (*out)->label = label;
    (*out)->keep_trace = (*out)->tolerate_nan = true;
    sx_pipe_init(&(*out)->pipe, ctx, f, options);
    int rc = sx_batch_run(e, *out);
    if (rc != SX_OK) return sx_note(e, rc, "%s", label);
    sx_pipe_close_unet(&(*out)->pipe);
    return SX_OK;
}

static void print_scores(double lpips, double clip_ref, double clip)
{
    if (!isnan(lpips)) printf("  LPIPS %.4f", lpips);
    if (!isnan(clip)) printf("  CLIP %.2f (reference %.2f)", clip, clip_ref);
}

static int judge(sx_err *e, const sx_options *o, const sx_comparison *c)
{
    if (o->json) {
        sx_text t = {0};
        sx_report_json(c, o->min_psnr, &t);
        fputs(t.s ? t.s : "", stdout);
        sx_text_free(&t);
    } else {
        for (int i = 0; i < c->n; i++) {
            const sx_pair *p = &c->pairs[i];
            printf("%3d  PSNR %6.2f dB  SSIM %.4f  MS-SSIM %.4f  GMSD %.4f  latent %6.2f dB", i, p->c.psnr, p->c.ssim, p->c.ms_ssim,
                   p->c.gmsd, p->last.sqnr_db);
            print_scores(p->lpips, p->clip_ref, p->clip);
            printf("  %s\n", p->verdict);
        }
        printf("mean PSNR %.2f dB, worst %.2f dB, SSIM %.4f, MS-SSIM %.4f, GMSD %.4f,", c->mean_psnr, c->worst_psnr, c->mean_ssim,
               c->mean_ms_ssim, c->mean_gmsd);
        print_scores(c->mean_lpips, c->mean_clip_ref, c->mean_clip);
        printf(" %d of %d pictures look wrong\n", c->wrong, c->n);
        if (o->report) printf("%s/report.html\n", o->report);
    }
    if (isnan(o->min_psnr)) return SX_OK;
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->pairs[i].verdict, "nan") == 0)
            return sx_fail(e, SX_GATE, "picture %d is not a number%s%s", i, c->test->shots[i].failure ? ": " : "",
                           c->test->shots[i].failure ? c->test->shots[i].failure : "");
    if (c->mean_psnr < o->min_psnr) return sx_fail(e, SX_GATE, "mean PSNR is %.2f dB, --min-psnr asks for %g", c->mean_psnr, o->min_psnr);
    return SX_OK;
}

/* The reference is the folder without replacements, or another folder. */
static int compare(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f)
{
    sx_prompts prompts;
    sx_folder rf;
    sx_batch *ref = NULL, *test = NULL;
    sx_comparison c = {0};
    char options[128], plain[128];
    sx_options ro = *o;
    const sx_override same = sx_only_tokenizers(&o->over);
    ro.simulate = false;
    sx_session_options(o, options, sizeof options);
    sx_session_options(&ro, plain, sizeof plain);
    SX_TRY(sx_prompts_load(e, &o->prompts, o->prompts_file, &prompts));
    int rc = sx_folder_open(e, o->ref_dir ? o->ref_dir : o->dir, &same, &rf);
    if (rc == SX_OK) {
        rc = draw_side(e, &ro, ctx, &rf, &prompts, "reference", plain, &ref);
        if (rc == SX_OK) rc = draw_side(e, o, ctx, f, &prompts, "test", options, &test);
        if (rc == SX_OK) rc = sx_compare_batches(e, ref, test, &c);
        if (rc == SX_OK) rc = sx_score_pairs(e, o, ctx, f, &c);
        if (rc == SX_OK && o->report) rc = sx_report_write(e, &c, o->min_psnr, o->report);
        if (rc == SX_OK) rc = judge(e, o, &c);
        sx_comparison_free(&c);
        sx_batch_free(ref);
        sx_batch_free(test);
        sx_folder_free(&rf);
    }
    sx_prompts_free(&prompts);
    return rc;
}

static int calibrate(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f)
{
    double seconds;
    SX_TRY(check_output(e, o->stats));
    if (!o->stats) return sx_fail(e, SX_USAGE, "--calibrate needs --stats FILE, or --quantize FORMAT --out NEWDIR");
    SX_TRY(sx_calibrate(e, o, ctx, f, o->passes ? o->passes : SX_EVERY_LEVEL, o->stats, &seconds));
    if (!o->passes && !o->quiet)
        fprintf(stderr, "note: these are ranges alone; for what a preset wants besides (GPTQ's matrices) name it: --passes sdxl-fp8\n");
    if (o->json) printf("{\"stats\": \"%s\", \"seconds\": %.6g}\n", o->stats, seconds);
    else printf("%s  %.2f s\n", o->stats, seconds);
    return SX_OK;
}

/* What was made, and what people do with it next. */
static void print_folder(sx_err *e, const sx_options *o, const char *report)
{
    sx_json *doc;
    if (sx_json_parse(e, "report", report, strlen(report), &doc) != SX_OK) return;
    printf("wrote %s\n  UNet   %.1f MB%s%s -> %.1f MB, %.0f nodes quantized\n", o->out, sx_json_number(doc, "input_bytes", 0) / 1e6,
           o->rest ? " in " : "", o->rest ? o->rest : "",
           sx_json_number(doc, "output_bytes", 0) / 1e6, sx_json_number(doc, "nodes_quantized", 0));
    printf("  try    qonnx-sdxl %s --ref-dir %s -p TEXT --report DIR\n", o->out, o->dir);
    sx_json_free(doc);
}

static int quantize(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f)
{
    char *report;
    SX_TRY(sx_quantize_folder(e, o, ctx, f, &report));
    if (o->json) printf("%s\n", report);
    else if (o->quiet) printf("%s\n", o->out);
    else print_folder(e, o, report);
    sx_free(report);
    return SX_OK;
}

static int run(sx_err *e, const sx_options *o)
{
    sx_folder f;
    if (!o->dir) return sx_fail(e, SX_USAGE, "no pipeline folder given; --help tells how");
    if (o->refiner_mode && strcmp(o->refiner_mode, "ensemble") && strcmp(o->refiner_mode, "img2img"))
        return sx_fail(e, SX_USAGE, "--refiner-mode: '%.40s' is not ensemble or img2img", o->refiner_mode);
    if (o->mask && o->refiner)
        return sx_fail(e, SX_USAGE, "--mask and --refiner: a refiner would draw over what the mask keeps; refine the picture "
                                    "afterwards with --init");
    SX_TRY(sx_folder_open(e, o->dir, &o->over, &f));
    if (f.scaling_assumed && !o->quiet) fprintf(stderr, "note: the VAE config names no scaling_factor; %g is used\n", f.vae_scaling);
    qonnx_ctx *ctx = qonnx_open();
    int rc = ctx ? set_up(e, o, ctx) : sx_fail(e, SX_FAILED, "out of memory");
    if (rc == SX_OK)
        rc = o->quantize ? quantize(e, o, ctx, &f) : o->calibrate ? calibrate(e, o, ctx, &f) : o->ref ||
            o->ref_dir ? compare(e, o, ctx, &f) : draw(e, o, ctx, &f);
    qonnx_close(ctx);
    sx_folder_free(&f);
    return rc;
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    sx_err e = {0};
    sx_options o;
    int rc = sx_options_parse(&e, argc, argv, &o);
    if (rc == SX_OK && (o.help || argc == 1)) sx_options_help(stdout);
    else if (rc == SX_OK && o.version) printf("qonnx-sdxl %s\n", qonnx_version());
    else if (rc == SX_OK && o.show_prompts) sx_prompts_print(stdout);
    else if (rc == SX_OK) rc = run(&e, &o);
    if (rc != SX_OK) fprintf(stderr, "qonnx-sdxl: %s\n", e.text);
    sx_options_free(&o);
    return rc;
}
