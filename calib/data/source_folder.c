/* source_folder.c - a folder as samples: its .npz files, its .npy files together as one set of arrays, each sub-folder of .npy
 * files; or, where sub-folders are named like inputs, the k-th file of each as sample k. */
#include "calib/data/source.h"

#include "calib/data/folder.h"

#include <string.h>
#include <sys/stat.h>

static qx_status add_archives(qx_samples *s, const char *dir, const char *suffix)
{
    const char **names;
    int n;
    QX_TRY(qx_folder_list(s->arena, dir, suffix, &names, &n));
    for (int i = 0; i < n; i++) {
        const char *path = qx_arena_printf(s->arena, "%s/%s", dir, names[i]);
        qx_npz *z;
        if (!path) return QX_E_NOMEM;
        QX_TRY(qx_npz_open(s->ctx, path, &z));
        if (!suffix && qx_npz_count(z) == 0) qx_npz_close(z); /* a folder without arrays */
        else QX_TRY(qx_source_npz(s, z));
    }
    return QX_OK;
}

/* "INPUT=DIR/INPUT/FILE.npy" for each file of the folder named like an input; none when there is no such folder. */
static qx_status list_input(qx_samples *s, const char *dir, const char *input, const char ***specs, int *n)
{
    struct stat sb;
    const char *path = qx_arena_printf(s->arena, "%s/%s", dir, input);
    *n = 0;
    if (!path) return QX_E_NOMEM;
    if (strpbrk(input, "=/") || stat(path, &sb) != 0 || !S_ISDIR(sb.st_mode)) return QX_OK;
    QX_TRY(qx_folder_list(s->arena, path, ".npy", specs, n));
    for (int i = 0; i < *n; i++)
        if (!((*specs)[i] = qx_arena_printf(s->arena, "%s=%s/%s", input, path, (*specs)[i]))) return QX_E_NOMEM;
    return QX_OK;
}

static qx_status add_sample(qx_samples *s, const char ***specs, uint32_t inputs, int k)
{
    qx_npz *z;
    int n = 0;
    const char **mine = qx_arena_array(s->arena, inputs + 1, sizeof *mine);
    if (!mine) return QX_E_NOMEM;
    for (uint32_t i = 0; i < inputs; i++)
        if (specs[i]) mine[n++] = specs[i][k];
    QX_TRY(qx_npz_open_raw(s->ctx, mine, n, &z));
    return qx_source_npz(s, z);
}

static qx_status add_by_input(qx_samples *s, const char *dir)
{
    const char ***specs = qx_arena_array(s->arena, s->n_inputs + 1, sizeof *specs), *first = NULL;
    int count = 0, n;
    if (!specs) return QX_E_NOMEM;
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        QX_TRY(list_input(s, dir, s->inputs[i]->name, &specs[i], &n));
        if (!n) specs[i] = NULL;
        else if (first && n != count)
            QX_FAIL(s->ctx, QX_E_USAGE, "%s: %d files for input '%s', %d for '%s'", dir, count, first, n, s->inputs[i]->name);
        else first = s->inputs[i]->name, count = n;
    }
    for (int k = 0; k < count; k++) QX_TRY(add_sample(s, specs, s->n_inputs, k));
    return QX_OK;
}

qx_status qx_source_folder(qx_samples *s, const char *dir)
{
    const char **names;
    int n, before = s->n_sources;
    QX_TRY(add_archives(s, dir, ".npz"));
    QX_TRY(qx_folder_list(s->arena, dir, ".npy", &names, &n));
    if (n) {
        qx_npz *z;
        QX_TRY(qx_npz_open(s->ctx, dir, &z));
        QX_TRY(qx_source_npz(s, z));
    }
    int flat = s->n_sources;
    QX_TRY(add_by_input(s, dir));
    if (s->n_sources == flat) QX_TRY(add_archives(s, dir, NULL));
    if (s->n_sources == before) QX_FAIL(s->ctx, QX_E_USAGE, "%s: no .npz or .npy files in this folder", dir);
    return QX_OK;
}

