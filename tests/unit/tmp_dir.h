/* tmp_dir.h - for tests: a folder of their own that is gone afterwards, paths in it, and files put there. */
#ifndef QX_TESTS_TMP_DIR_H
#define QX_TESTS_TMP_DIR_H

#include <dirent.h>

#include "unit.h"

typedef struct tmp_dir { char path[64]; } tmp_dir;

/* Makes it below `root`. 0, or -1: what cmocka's set-up functions return. */
static inline int tmp_make(tmp_dir *d, const char *root)
{
    snprintf(d->path, sizeof d->path, "%s/qonnx-test-XXXXXX", root);
    return mkdtemp(d->path) ? 0 : -1;
}

static inline int tmp_remove(const tmp_dir *d)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", d->path);
    return system(command);
}

/* `name` in the folder. The text stays until the eighth call after. */
static inline const char *tmp_path(const tmp_dir *d, const char *name)
{
    static char path[8][512];
    static int at;
    char *p = path[at++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", d->path, name);
    return p;
}

/* How many files and folders it holds. */
static inline int tmp_entries(const tmp_dir *d)
{
    int n = -2; /* . and .. */
    DIR *open = opendir(d->path);
    assert_non_null(open);
    while (readdir(open)) n++;
    closedir(open);
    return n;
}

static inline void put_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f) fail_msg("cannot make %s", path);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

#endif
