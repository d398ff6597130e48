/* folder.c - finds the parts of a pipeline and reads their small JSON files. Class names are hints only: folders decide. */
#include "folder.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sched_config.h"

const char *const sx_part_names[SX_PART_COUNT] = {"text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder"};

/* Folder names by part: optimum's first, then TensorRT's. */
static const char *const part_dirs[SX_PART_COUNT][5] = {
    [SX_TEXT1] = {"text_encoder", "clip", "clip.opt"},
    [SX_TEXT2] = {"text_encoder_2", "clip2", "clip2.opt"},
    [SX_UNET] = {"unet", "unetxl", "unetxl.opt", "unet.opt"},
    [SX_VAE_DEC] = {"vae_decoder", "vae", "vae.opt"},
    [SX_VAE_ENC] = {"vae_encoder", "vae_encoder.opt"},
};

/* model.onnx, else the only .onnx of the folder. */
static int find_onnx(sx_err *e, const char *dir, char **out)
{
    *out = NULL;
    char *path, *only = NULL;
    SX_TRY(sx_join(e, dir, "model.onnx", &path));
    if (sx_is_file(path)) {
        *out = path;
        return SX_OK;
    }
    sx_free(path);
    DIR *d = opendir(dir);
    int count = 0, rc = SX_OK;
    for (struct dirent *x; rc == SX_OK && d && (x = readdir(d));) {
        size_t n = strlen(x->d_name);
        if (n < 6 || strcmp(x->d_name + n - 5, ".onnx") != 0 || count++) continue;
        rc = sx_join(e, dir, x->d_name, &only);
    }
    if (d) closedir(d);
    if (rc == SX_OK && count > 1)
        rc = sx_fail(e, SX_FAILED, "'%s' holds %d .onnx files and none is model.onnx: name one with an option", dir, count);
    if (rc != SX_OK || count != 1) sx_free(only);
    else *out = only;
    return rc;
}

static int find_part(sx_err *e, const char *dir, int part, char **out)
{
    *out = NULL;
    for (int i = 0; i < 5 && part_dirs[part][i] && !*out; i++) {
        char *d;
        SX_TRY(sx_join(e, dir, part_dirs[part][i], &d));
        int rc = sx_is_dir(d) ? find_onnx(e, d, out) : SX_OK;
        sx_free(d);
        SX_TRY(rc);
    }
    return SX_OK;
}

static int find_dir(sx_err *e, const char *dir, const char *name, const char *over, char **out)
{
    if (over) return sx_is_dir(over) ? sx_strdup(e, over, out) : sx_fail(e, SX_FAILED, "tokenizer '%s' is not a folder", over);
    SX_TRY(sx_join(e, dir, name, out));
    if (sx_is_dir(*out)) return SX_OK;
    sx_free(*out);
    *out = NULL;
    return SX_OK;
}

static int is_shown(const struct dirent *d) { return d->d_name[0] != '.'; }

static void list_dir(const char *dir, sx_text *t)
{
    enum { MOST = 40 };
    struct dirent **list;
    int n = scandir(dir, &list, is_shown, alphasort);
    for (int i = 0; i < n; i++) {
        if (i < MOST) sx_text_add(t, "%s%.60s", i ? ", " : "", list[i]->d_name);
        free(list[i]);
    }
    if (n > 0) free(list);
    else sx_text_add(t, "nothing");
}

/* Pipelines whose network is not a UNet: what can be done with them. */
static void add_other_kind(const char *dir, sx_text *t)
{
    static const struct { const char *folder, *preset; } kinds[] = {{"transformer", "dit-int8"}, {"prior", "dit-int8"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        sx_err e;
        char *path;
        if (sx_join(&e, dir, kinds[i].folder, &path) != SX_OK) return;
        if (sx_is_dir(path)) sx_text_add(t, "; a pipeline with a %s is not drawn here: " SX_BY_ITSELF, kinds[i].folder, kinds[i].preset);
        sx_free(path);
    }
}

static int require_parts(sx_err *e, const sx_folder *f)
{
    sx_text missing = {0}, found = {0};
    if (!f->model[SX_UNET]) sx_text_add(&missing, ", unet/model.onnx");
    if (!f->model[SX_VAE_DEC]) sx_text_add(&missing, ", vae_decoder/model.onnx");
    if (!f->model[SX_TEXT1] && !f->model[SX_TEXT2]) sx_text_add(&missing, ", text_encoder/model.onnx or text_encoder_2/model.onnx");
    if (f->model[SX_TEXT1] && !f->tokenizer) sx_text_add(&missing, ", tokenizer/ (or --tokenizer DIR)");
    if (f->model[SX_TEXT2] && !f->tokenizer_2) sx_text_add(&missing, ", tokenizer_2/ (or --tokenizer-2 DIR)");
    if (missing.len) {
        list_dir(f->dir, &found);
        if (!f->model[SX_UNET]) add_other_kind(f->dir, &found);
        sx_fail(e, SX_FAILED, "'%s' lacks %s; found: %s", f->dir, missing.s + 2, found.s ? found.s : "");
    }
    int rc = missing.len ? SX_FAILED : SX_OK;
    sx_text_free(&missing);
    sx_text_free(&found);
    return rc;
}

/* The first of several paths below the folder that is a file; NULL document when none is. */
static int read_config(sx_err *e, const char *dir, const char *const *names, sx_json **doc)
{
    *doc = NULL;
    for (; *names && !*doc; names++) {
        char *path;
        SX_TRY(sx_join(e, dir, *names, &path));
        int rc = sx_is_file(path) ? sx_json_read(e, path, doc) : SX_OK;
        sx_free(path);
        SX_TRY(rc);
    }
    return SX_OK;
}

static int read_sched(sx_err *e, sx_folder *f)
{
    static const char *const names[] = {"scheduler/scheduler_config.json", NULL};
    sx_json *j;
    f->sched = sx_sched_defaults();
    SX_TRY(read_config(e, f->dir, names, &j));
    int rc = j ? sx_sched_read(e, j, &f->sched, &f->sched_problem) : SX_OK;
    sx_json_free(j);
    return rc;
}

static int read_numbers(sx_err *e, const sx_json *j, const char *key, int n, double **out)
{
    const sx_json *a = sx_json_get(j, key);
    if (!sx_json_is_array(a)) return SX_OK;
    if (sx_json_count(a) != n)
        return sx_fail(e, SX_FAILED, "VAE config: %s has %d numbers, the latent %d channels", key, sx_json_count(a), n);
    SX_TRY(SX_NEW(e, n, out));
    int i = 0;
    for (const sx_json *v = sx_json_first(a); v; v = sx_json_next(v)) (*out)[i++] = sx_json_value(v, 0);
    return SX_OK;
}

static int read_vae(sx_err *e, sx_folder *f)
{
    static const char *const names[] = {"vae_decoder/config.json", "vae/config.json", "vae_encoder/config.json", NULL};
    sx_json *j;
    SX_TRY(read_config(e, f->dir, names, &j));
    bool xl = f->model[SX_TEXT2] != NULL;
    f->scaling_assumed = !sx_json_has(j, "scaling_factor");
    f->vae_scaling = sx_json_number(j, "scaling_factor", xl ? 0.13025 : 0.18215);
    f->vae_shift = sx_json_number(j, "shift_factor", 0);
    f->channels = 4;
    int blocks = sx_json_count(sx_json_get(j, "block_out_channels"));
    f->vae_factor = blocks >= 1 && blocks <= 8 ? 1 << (blocks - 1) : 8;
    int rc = sx_json_whole(e, j, "VAE config", "latent_channels", 1, 64, &f->channels);
    if (rc == SX_OK && (!(f->vae_scaling > 0) || !isfinite(f->vae_scaling)))
        rc = sx_fail(e, SX_FAILED, "VAE config: scaling_factor is %g, expected a positive number", f->vae_scaling);
    if (rc == SX_OK) rc = read_numbers(e, j, "latents_mean", f->channels, &f->latent_mean);
    if (rc == SX_OK) rc = read_numbers(e, j, "latents_std", f->channels, &f->latent_std);
    sx_json_free(j);
    return rc;
}

static int read_unet(sx_err *e, sx_folder *f)
{
    static const char *const names[] = {"unet/config.json", "unetxl/config.json", NULL};
    sx_json *j;
    SX_TRY(read_config(e, f->dir, names, &j));
    int cells = f->model[SX_TEXT2] ? 128 : 64, rc = SX_OK;
    /* [h, w]: the usual size */
    if (!sx_json_is_array(sx_json_get(j, "sample_size"))) rc = sx_json_whole(e, j, "unet config", "sample_size", 1, 2048, &cells);
    int levels = sx_json_count(sx_json_get(j, "block_out_channels"));
    f->unet_factor = levels >= 1 && levels <= 8 ? 1 << (levels - 1) : 1;
    if (rc == SX_OK) rc = sx_json_whole(e, j, "unet config", "time_cond_proj_dim", 0, 65536, &f->time_cond_dim);
    sx_json_free(j);
    f->size = cells * f->vae_factor;
    if (rc == SX_OK && f->time_cond_dim % 2)
        rc = sx_fail(e, SX_FAILED, "unet config: time_cond_proj_dim is %d, expected an even number", f->time_cond_dim);
    return rc;
}

static int read_rest(sx_err *e, sx_folder *f)
{
    static const char *const index[] = {"model_index.json", NULL},
        *const text[2][2] = {{"text_encoder/config.json"}, {"text_encoder_2/config.json"}};
    sx_json *j;
    SX_TRY(read_config(e, f->dir, index, &j));
    f->force_zeros = sx_json_bool(j, "force_zeros_for_empty_prompt", f->model[SX_TEXT1] && f->model[SX_TEXT2]);
    f->aesthetics = sx_json_bool(j, "requires_aesthetics_score", !f->model[SX_TEXT1] && f->model[SX_TEXT2]);
    const char *cls = sx_json_text(j, "_class_name", NULL);
    int rc = cls ? sx_strdup(e, cls, &f->class_name) : SX_OK;
    sx_json_free(j);
    for (int i = 0; rc == SX_OK && i < 2; i++) {
        rc = read_config(e, f->dir, text[i], &j);
        if (rc != SX_OK) break;
        rc = sx_json_whole(e, j, text[i][0], "num_hidden_layers", 0, 4096, &f->text_layers[i]);
        sx_json_free(j);
    }
    return rc;
}

static int open_all(sx_err *e, sx_folder *f, const sx_override *over)
{
    if (!sx_is_dir(f->dir)) return sx_fail(e, SX_FAILED, "'%s' is not a folder", f->dir);
    for (int p = 0; p < SX_PART_COUNT; p++) {
        const char *o = over ? over->model[p] : NULL;
        if (o && !sx_is_file(o)) return sx_fail(e, SX_FAILED, "%s '%s' is not a file", sx_part_names[p], o);
        SX_TRY(o ? sx_strdup(e, o, &f->model[p]) : find_part(e, f->dir, p, &f->model[p]));
    }
    SX_TRY(find_dir(e, f->dir, "tokenizer", over ? over->tokenizer : NULL, &f->tokenizer));
    SX_TRY(find_dir(e, f->dir, "tokenizer_2", over ? over->tokenizer_2 : NULL, &f->tokenizer_2));
    SX_TRY(require_parts(e, f));
    SX_TRY(read_sched(e, f));
    SX_TRY(read_vae(e, f));
    SX_TRY(read_unet(e, f));
    return read_rest(e, f);
}

sx_override sx_only_tokenizers(const sx_override *over)
{
    return (sx_override){.tokenizer = over->tokenizer, .tokenizer_2 = over->tokenizer_2};
}

int sx_folder_open(sx_err *e, const char *dir, const sx_override *over, sx_folder *f)
{
    *f = (sx_folder){0};
    int rc = sx_strdup(e, dir, &f->dir);
    if (rc == SX_OK) rc = open_all(e, f, over);
    if (rc != SX_OK) sx_folder_free(f);
    return rc;
}

void sx_folder_free(sx_folder *f)
{
    for (int p = 0; p < SX_PART_COUNT; p++) sx_free(f->model[p]);
    sx_free(f->dir);
    sx_free(f->tokenizer);
    sx_free(f->tokenizer_2);
    sx_free(f->class_name);
    sx_free(f->sched_problem);
    sx_free(f->latent_mean);
    sx_free(f->latent_std);
    *f = (sx_folder){0};
}
