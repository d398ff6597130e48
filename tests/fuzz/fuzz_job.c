/* fuzz_job.c - a whole quantize job on a hostile model: read, plan, calibrate, rewrite, write, verify. The input is lines "option
 * value" as in a golden case's `options`, an empty line, and a model as ONNX text: text mutates into other models where bytes
 * mostly mutate into broken files. What a job has written must be a model that the checker accepts and whose weights can be read;
 * a job that fails leaves no file half done. */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

#include "passes/job/settings.h"

static char dir[32], in_path[64], out_path[64];

static void remove_folder(void) { (void)rmdir(dir); } /* each job leaves it empty */

static void make_folder(void)
{
    struct stat st;
    snprintf(dir, sizeof dir, "%s/qx_fuzz_job_XXXXXX", stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(dir) || atexit(remove_folder) != 0) abort();
    snprintf(in_path, sizeof in_path, "%s/in.onnx", dir);
    snprintf(out_path, sizeof out_path, "%s/out.onnx", dir);
}

/* The folder after a job, emptied: nothing but what was asked for may lie there. */
static void clear_folder(void)
{
    static const char *const known[] = {"in.onnx", "in.onnx.data", "out.onnx", "out.onnx.data", ".", ".."};
    DIR *d = opendir(dir);
    if (!d) abort();
    for (struct dirent *e; (e = readdir(d));) {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(e->d_name, known[i]) != 0) i++;
        if (i == sizeof known / sizeof *known) {
            fprintf(stderr, "'%s' was left behind\n", e->d_name);
            abort();
        }
        if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

/* Options that name no file; the number of samples and of Loop's iterations is ours. */
static bool allowed(const char *name)
{
    static const char *const names[] = {"passes", "preset", "int4", "int8", "fp8", "target", "include", "exclude", "set", "dim", "seed",
                                        "seq-len", "level", "target-size",
        "target-sqnr", "formats", "external-data", "max-opset", "max-ir", "strict", "fix-order", "allow-requantize", "verify-each",
            "dry-run", "no-verify", "min-sqnr"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

/* *model: what follows the options. */
static qx_status set_options(qx_job_args *a, char *text, char **model)
{
    bool random = false;
    for (char *line = text, *end; *line && *line != '\n'; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) *end++ = '\0';
        *model = end;
        char *value = strchr(line, ' ');
        if (value) *value++ = '\0';
        random = random || strcmp(line, "random") == 0;
        if (allowed(line)) QX_TRY(qx_job_args_set(a, line, value));
    }
    if (random) QX_TRY(qx_job_args_set(a, "random", "2"));
    return qx_job_args_set(a, "output", out_path);
}

static qx_status write_input(qx_ctx *ctx, const char *text)
{
    qx_model *m = NULL;
    QX_TRY(qx_model_parse_text_raw(ctx, text, &m));
    const qx_status st = qx_model_write(m, in_path, NULL, NULL);
    qx_model_free(m);
    return st;
}

/* What was written is read with all its weights. */
static void check_output(qx_ctx *ctx)
{
    qx_model *m;
    if (qx_model_read(ctx, out_path, NULL, &m) != QX_OK) {
        fprintf(stderr, "what was written is not accepted: %s\n", qx_ctx_error(ctx));
        abort();
    }
    for (uint32_t i = 0; i < m->graph->n_inits; i++) {
        const qx_weight *w = m->graph->inits[i]->init;
        void *all;
        if (!w || w->dtype == QX_DT_STRING || qx_alloc_raw(ctx, w->bytes, &all) != QX_OK) continue;
        if (qx_weight_read(ctx, w, all) != QX_OK) abort();
        qx_free(ctx, all);
    }
    qx_model_free(m);
}

static qx_status run(qx_ctx *ctx, const qx_quantize_options *given)
{
    qx_quantize_options o = *given;
    qx_report *r;
    o.input = in_path;
    o.exec = (qx_exec_options){.max_loop = 8, .device = QX_DEVICE_CPU};
    QX_TRY(qx_report_new(ctx, &r));
    const qx_status st = qx_quantize_file(ctx, &o, r);
    if ((st == QX_OK || st == QX_E_GATE) && !o.dry_run) check_output(ctx);
    qx_report_free(r);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qx_ctx *ctx = fuzz_ctx(size);
    char *text = fuzz_text(data, size), *model = text;
    const qx_quantize_options *o;
    qx_job_args *a;
    if (!*dir) make_folder();
    qx_status st = qx_job_args_new(ctx, &a);
    if (st == QX_OK) {
        st = set_options(a, text, &model);
        if (st == QX_OK) st = qx_job_args_options(a, &o);
        if (st == QX_OK) st = write_input(ctx, model + (*model == '\n'));
        if (st == QX_OK) st = run(ctx, o);
        qx_job_args_free(a);
    }
    clear_folder();
    free(text);
    fuzz_done(ctx, st);
    return 0;
}
