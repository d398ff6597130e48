/* quantize.c - statistics from the pipeline itself, and the quantized folder: everything is made beside the target and renamed at the end,
 * so that a folder with the target's name is complete. */
#include "quantize.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *sx_quantize_passes(const char *format)
{
    if (strcmp(format, "fp8") == 0) return "sdxl-fp8";
    if (strcmp(format, "int8") == 0) return "sdxl-int8";
    return format;
}

static void set_step(void *user, double t) { qonnx_calibration_step(user, t); }

int sx_calibrate(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, const char *passes, const char *stats, double *seconds)
{
    sx_prompts prompts = {0};
    sx_batch *b = NULL;
    qonnx_calibration *c = NULL;
    char options[128];
    double t0 = sx_seconds();
    int rc = sx_prompts_load(e, &(sx_list){0}, o->calibrate, &prompts);
    if (rc == SX_OK) rc = sx_batch_new(e, o, ctx, f, &prompts, &b);
    if (rc == SX_OK) {
        b->decode = false;
        b->label = "calibrate";
        sx_pipe_init(&b->pipe, ctx, f, sx_session_options(o, options, sizeof options));
        rc = sx_pipe_open_unet(e, &b->pipe);
    }
    if (rc == SX_OK) {
        qonnx_code q = qonnx_calibration_begin(b->pipe.unet.m.session, passes, &c);
        if (q != QONNX_OK) rc = sx_fail(e, (int)q, "calibration: %s", qonnx_error(ctx));
    }
    if (rc == SX_OK) {
        qonnx_calibration_expect(c, (int64_t)b->n * b->plan.steps);
        b->on_timestep = set_step;
        b->user = c;
        rc = sx_batch_run(e, b);
    }
    if (rc == SX_OK && qonnx_calibration_save(c, stats) != QONNX_OK)
        rc = sx_fail(e, SX_FAILED, "statistics '%s': %s", stats, qonnx_error(ctx));
    if (seconds) *seconds = sx_seconds() - t0;
    qonnx_calibration_end(c);
    sx_batch_free(b);
    sx_prompts_free(&prompts);
    return rc;
}

/* ---- the folder ---- */

static int copy_bytes(sx_err *e, const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1, rc = SX_OK;
    if (in < 0) return sx_fail(e, SX_FAILED, "cannot open '%s': %s", from, strerror(errno));
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out < 0) rc = sx_fail(e, SX_FAILED, "cannot write '%s': %s", to, strerror(errno));
    static const size_t step = 1 << 30;
    for (ssize_t n = 1; rc == SX_OK && n > 0;) {
        n = copy_file_range(in, NULL, out, NULL, step, 0);
        if (n < 0 && errno == EINTR) n = 1;
        else if (n < 0) rc = sx_fail(e, SX_FAILED, "copying '%s': %s", from, strerror(errno));
    }
    close(in);
    if (out >= 0 && close(out) != 0 && rc == SX_OK) rc = sx_fail(e, SX_FAILED, "closing '%s': %s", to, strerror(errno));
    return rc;
}

static int link_or_copy(sx_err *e, const char *from, const char *to)
{
    if (linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0) return SX_OK;
    return copy_bytes(e, from, to);
}

enum { MOST_DEPTH = 8 };

/* Files of `from` into `to`; below the UNet's folder only what is not a model or its data. */
static int clone_tree(sx_err *e, const char *from, const char *to, const char *unet_dir, int depth)
{
    if (depth > MOST_DEPTH) return sx_fail(e, SX_FAILED, "'%s' is nested more than %d deep", from, MOST_DEPTH);
    SX_TRY(sx_make_dirs(e, to));
    DIR *d = opendir(from);
    if (!d) return sx_fail(e, SX_FAILED, "cannot read '%s': %s", from, strerror(errno));
    bool is_unet = strcmp(from, unet_dir) == 0;
    int rc = SX_OK;
    for (struct dirent *x; rc == SX_OK && (x = readdir(d));) {
        char *a = NULL, *b = NULL;
        if (x->d_name[0] == '.') continue;
        rc = sx_join(e, from, x->d_name, &a);
        if (rc == SX_OK) rc = sx_join(e, to, x->d_name, &b);
        size_t n = strlen(x->d_name);
        bool small = n > 5 && strcmp(x->d_name + n - 5, ".json") == 0;
        if (rc == SX_OK && sx_is_dir(a)) rc = clone_tree(e, a, b, unet_dir, depth + 1);
        else if (rc == SX_OK && sx_is_file(a) && (!is_unet || small)) rc = link_or_copy(e, a, b);
        sx_free(a);
        sx_free(b);
    }
    closedir(d);
    return rc;
}

static void remove_tree(const char *path, int depth)
{
    DIR *d = depth <= MOST_DEPTH + 1 ? opendir(path) : NULL;
    for (struct dirent *x; d && (x = readdir(d));) {
        sx_err e;
        char *p;
        struct stat st;
        if (strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0 || sx_join(&e, path, x->d_name, &p) != SX_OK) continue;
        if (lstat(p, &st) == 0 && S_ISDIR(st.st_mode)) remove_tree(p, depth + 1);
        else unlink(p);
        sx_free(p);
    }
    if (d) closedir(d);
    rmdir(path);
}

static int job_set(sx_err *e, qonnx_ctx *ctx, qonnx_job *j, const char *name, const char *value)
{
    qonnx_code c = value ? qonnx_job_set(j, name, value) : QONNX_OK;
    return c == QONNX_OK ? SX_OK : sx_fail(e, (int)c, "quantize: %s", qonnx_error(ctx));
}

/* One quantized folder in the making. */
typedef struct making {
    sx_err *e;
    const sx_options *o;
    qonnx_ctx *ctx;
    const sx_folder *f;
    const char *made;        /* the new folder, under its name for now */
    char *stats;             /* statistics file; NULL: the passes need none */
    char *half;              /* the UNet with 16-bit floats, while it is needed; NULL: without --float */
    char **report;
} making;

static const char *source_of(const making *m) { return m->half ? m->half : m->f->model[SX_UNET]; }

/* Runs the job, and takes its report where one is wanted. */
static int run_job(making *m, qonnx_job *j, char **report)
{
    const qonnx_code c = qonnx_job_run(j);
    if (c != QONNX_OK) return sx_fail(m->e, (int)c, "quantize: %s", qonnx_error(m->ctx));
    return report ? sx_strdup(m->e, qonnx_job_report(j) ? qonnx_job_report(j) : "{}", report) : SX_OK;
}

static int new_job(making *m, const char *unet, const char *out, qonnx_job **j)
{
    const qonnx_code c = qonnx_job_new(m->ctx, unet, j);
    if (c != QONNX_OK) return sx_fail(m->e, (int)c, "quantize: %s", qonnx_error(m->ctx));
    SX_TRY(job_set(m->e, m->ctx, *j, "output", out));
    return job_set(m->e, m->ctx, *j, "no-verify", "1"); /* --ref --report judges whole pictures */
}

/* --float: the UNet in 16 bits, beside the new folder. Calibration runs it, and quantizing starts from it. */
static int make_half(making *m)
{
    qonnx_job *j = NULL;
    int rc;
    if (!m->o->rest) return SX_OK;
    SX_TRY(sx_printf(m->e, &m->half, "%s.half.onnx", m->made));
    SX_TRY_GOTO(rc, new_job(m, m->f->model[SX_UNET], m->half, &j));
    SX_TRY_GOTO(rc, job_set(m->e, m->ctx, j, "float", m->o->rest));
    rc = run_job(m, j, NULL);
done:
    qonnx_job_free(j);
    return rc;
}

static void remove_half(making *m)
{
    char *data = NULL;
    if (!m->half) return;
    unlink(m->half);
    if (sx_printf(m->e, &data, "%s.data", m->half) == SX_OK) unlink(data);
    sx_free(data);
    sx_free(m->half);
}

static int quantize_unet(making *m, const char *out)
{
    qonnx_job *j = NULL;
    const sx_options *o = m->o;
    const char *passes = sx_quantize_passes(o->quantize);
    int rc;
    SX_TRY_GOTO(rc, new_job(m, source_of(m), out, &j));
    /* a text, not a name */
    if (qonnx_job_set(j, "preset", passes) != QONNX_OK) SX_TRY_GOTO(rc, job_set(m->e, m->ctx, j, "passes", passes));
    SX_TRY_GOTO(rc, job_set(m->e, m->ctx, j, "level", o->level));
    SX_TRY_GOTO(rc, job_set(m->e, m->ctx, j, "load-stats", m->stats));
    for (int i = 0; i < o->set.n; i++) SX_TRY_GOTO(rc, job_set(m->e, m->ctx, j, "set", o->set.v[i]));
    for (int i = 0; i < o->exclude.n; i++) SX_TRY_GOTO(rc, job_set(m->e, m->ctx, j, "exclude", o->exclude.v[i]));
    rc = run_job(m, j, m->report);
done:
    qonnx_job_free(j);
    return rc;
}

/* Last part of a path's folder: ".../unet/model.onnx" gives "unet". */
static int part_folder(sx_err *e, const sx_folder *f, const char *unet, char **dir, char **leaf)
{
    const char *slash = strrchr(unet, '/');
    size_t n = slash ? (size_t)(slash - unet) : 0, k = strlen(f->dir);
    SX_TRY(sx_printf(e, dir, "%.*s", (int)n, unet));
    bool inside = n > k && strncmp(unet, f->dir, k) == 0 && unet[k] == '/';
    return sx_strdup(e, inside ? *dir + k + 1 : "unet", leaf);
}

static int fill_folder(making *m)
{
    sx_err *e = m->e;
    char *dir = NULL, *leaf = NULL, *unet = NULL, *folder = NULL;
    int rc = part_folder(e, m->f, m->f->model[SX_UNET], &dir, &leaf);
    if (rc == SX_OK && strcmp(leaf, "unet") == 0) { /* a UNet from elsewhere: still leave out the folder's own */
        sx_free(dir);
        rc = sx_join(e, m->f->dir, "unet", &dir);
    }
    if (rc == SX_OK) rc = clone_tree(e, m->f->dir, m->made, dir, 0);
    if (rc == SX_OK) rc = sx_join(e, m->made, leaf, &folder);
    if (rc == SX_OK) rc = sx_make_dirs(e, folder);
    if (rc == SX_OK) rc = sx_join(e, folder, "model.onnx", &unet);
    if (rc == SX_OK) rc = quantize_unet(m, unet);
    sx_free(dir);
    sx_free(leaf);
    sx_free(folder);
    sx_free(unet);
    return rc;
}

static int put_in_place(sx_err *e, const char *made, const char *target, const char *old)
{
    bool had = sx_is_dir(target);
    if (had && rename(target, old) != 0) return sx_fail(e, SX_FAILED, "cannot move '%s' aside: %s", target, strerror(errno));
    if (rename(made, target) == 0) {
        if (had) remove_tree(old, 0);
        return SX_OK;
    }
    sx_fail(e, SX_FAILED, "cannot rename to '%s': %s", target, strerror(errno));
    if (had) (void)!rename(old, target);
    return SX_FAILED;
}

static void trim_slashes(char *s)
{
    for (size_t n = strlen(s); n > 1 && s[n - 1] == '/'; n--) s[n - 1] = 0;
}

/* The output inside the source (or the source itself) would be copied into itself. */
static int check_target(sx_err *e, const sx_options *o, const sx_folder *f, const char *target)
{
    char *source = realpath(f->dir, NULL), *slash = strrchr(target, '/');
    char *parent = slash && slash != target ? strndup(target, (size_t)(slash - target)) : strdup(slash ? "/" : ".");
    char *where = parent ? realpath(parent, NULL) : NULL, *there = realpath(target, NULL);
    size_t n = source ? strlen(source) : 0;
    int rc = SX_OK;
    if (!source || !where) rc = sx_fail(e, SX_FAILED, "the folder that shall hold '%s' does not exist", target);
    else if ((strncmp(where, source, n) == 0 && (where[n] == '/' || !where[n])) || (there && strcmp(there, source) == 0))
        rc = sx_fail(e, SX_USAGE, "--out '%s' lies inside '%s'", target, f->dir);
    else if (access(target, F_OK) == 0 && !sx_is_dir(target)) rc = sx_fail(e, SX_USAGE, "--out '%s' exists and is not a folder", target);
    else if (sx_is_dir(target) && !o->force) rc = sx_fail(e, SX_USAGE, "--out '%s' exists; --force replaces it", target);
    free(source);
    free(parent);
    free(where);
    free(there);
    return rc;
}

/* The presets behind fp8 and int8 want ranges; without them the library would look for samples beside the model, which a pipeline
 * folder hardly has. */
static int check_statistics(sx_err *e, const sx_options *o)
{
    bool preset = sx_quantize_passes(o->quantize) != o->quantize;
    if (!preset || o->calibrate || o->stats) return SX_OK;
    return sx_fail(e, SX_USAGE, "--quantize %s needs statistics: --calibrate FILE runs the pipeline on the prompts of a file "
                                "('builtin': 64 that come along), --stats FILE takes earlier ones", o->quantize);
}

/* Runs the prompts of --calibrate, and says where the statistics are. */
static int find_statistics(making *m)
{
    const sx_options *o = m->o;
    sx_folder f = *m->f; /* the same parts, but for the UNet */
    if (!o->calibrate && !o->stats) return SX_OK;
    SX_TRY(o->stats ? sx_strdup(m->e, o->stats, &m->stats) : sx_printf(m->e, &m->stats, "%s.stats", m->made));
    if (!o->calibrate) return SX_OK;
    const bool all_levels = o->level && strtod(o->level, NULL) > 3; /* those below need no more than the preset does */
    const char *collect = o->passes ? o->passes : all_levels ? SX_EVERY_LEVEL : sx_quantize_passes(o->quantize);
    if (m->half) f.model[SX_UNET] = m->half;
    return sx_calibrate(m->e, o, m->ctx, &f, collect, m->stats, NULL);
}

static int make_folder(making *m)
{
    int rc = make_half(m);
    if (rc == SX_OK) rc = find_statistics(m);
    if (rc == SX_OK) rc = fill_folder(m);
    if (m->stats && !m->o->stats) unlink(m->stats);
    remove_half(m);
    sx_free(m->stats);
    return rc;
}

int sx_quantize_folder(sx_err *e, const sx_options *o, qonnx_ctx *ctx, const sx_folder *f, char **report)
{
    char *target = NULL, *made = NULL, *old = NULL;
    int rc;
    *report = NULL;
    if (!o->out) return sx_fail(e, SX_USAGE, "--quantize needs --out NEWDIR");
    SX_TRY(check_statistics(e, o));
    SX_TRY_GOTO(rc, sx_strdup(e, o->out, &target));
    trim_slashes(target);
    SX_TRY_GOTO(rc, check_target(e, o, f, target));
    SX_TRY_GOTO(rc, sx_printf(e, &made, "%s.new-XXXXXX", target));
    SX_TRY_GOTO(rc, sx_printf(e, &old, "%s.old-%ld", target, (long)getpid()));
    if (!mkdtemp(made)) {
        rc = sx_fail(e, SX_FAILED, "cannot make a folder beside '%s': %s", target, strerror(errno));
        goto done;
    }
    chmod(made, 0755);
    rc = make_folder(&(making){.e = e, .o = o, .ctx = ctx, .f = f, .made = made, .report = report});
    if (rc == SX_OK) rc = put_in_place(e, made, target, old);
    if (rc != SX_OK) remove_tree(made, 0);
done:
    sx_free(target);
    sx_free(made);
    sx_free(old);
    return rc;
}
