/* folder.c - names in a folder, sorted. */
#include "calib/data/folder.h"

#include "base/buf.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 65536 };

bool qx_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool wanted(const struct dirent *e, const char *suffix)
{
    if (suffix) return qx_has_suffix(e->d_name, suffix);
    return e->d_type == DT_DIR && strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
}

static qx_status collect(qx_arena *a, DIR *d, const char *path, const char *suffix, qx_buf *list)
{
    for (struct dirent *e; (e = readdir(d));) {
        if (!wanted(e, suffix)) continue;
        const char *name = qx_arena_strdup(a, e->d_name);
        if (!name) return QX_E_NOMEM;
        QX_TRY(qx_buf_put(list, &name, sizeof name));
        if (list->len / sizeof name > MAX_NAMES) QX_FAIL(list->ctx, QX_E_FORMAT, "%s: more than %d files", path, MAX_NAMES);
    }
    return QX_OK;
}

qx_status qx_folder_list(qx_arena *a, const char *path, const char *suffix, const char ***names, int *n)
{
    qx_buf list = QX_BUF_INIT(qx_arena_ctx(a));
    DIR *d = opendir(path);
    if (!d) QX_FAIL(list.ctx, QX_E_IO, "%s: the folder cannot be listed", path);
    qx_status st = collect(a, d, path, suffix, &list);
    closedir(d);
    *n = (int)(list.len / sizeof **names);
    *names = st == QX_OK ? qx_arena_array(a, (size_t)*n + 1, sizeof **names) : NULL;
    if (st == QX_OK && !*names) st = QX_E_NOMEM;
    if (st == QX_OK && *n) {
        memcpy(*names, list.data, list.len);
        qsort(*names, (size_t)*n, sizeof **names, by_bytes);
    }
    qx_buf_free(&list);
    return st;
}
