/* store.c - opens the files behind a model: the model itself and its external data, under the containment policy.
 *
 * A location is a name in a hostile file. It is judged three times: as text (relative, no "..", no control bytes), as what was really
 * opened (a regular file whose real path lies beside the model, or beside what the model's link points at, so that link farms like a
 * download cache work), and against the model file. The descriptor that passed is the one that all reads use. */
#include "onnx/file/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK };

qx_status qx_store_warn(qx_model *m, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (m->store->opt.strict) QX_FAIL(m->ctx, QX_E_FORMAT, "%s (an error because of --strict)", text);
    qx_warn(m->ctx, "%s", text);
    return QX_OK;
}

/* ---- kinds of files ---- */

static const char *kind_of(mode_t mode)
{
    static const struct { mode_t mode; const char *text; } kinds[] = {
        {S_IFDIR, "a directory"}, {S_IFIFO, "a fifo"}, {S_IFSOCK, "a socket"}, {S_IFCHR, "a character device"}, {S_IFBLK, "a block device"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if ((mode & S_IFMT) == kinds[i].mode) return kinds[i].text;
    return "not a regular file";
}

/* A folder is given where a model belongs: the models in it, the first by name and how many. */
static qx_status refuse_folder(qx_ctx *ctx, const char *path)
{
    char first[NAME_MAX + 1] = "";
    int count = 0;
    DIR *d = opendir(path);
    for (const struct dirent *e; d && (e = readdir(d));) {
        const size_t n = strlen(e->d_name);
        if (n < 6 || strcmp(e->d_name + n - 5, ".onnx") != 0) continue;
        if (!count++ || strcmp(e->d_name, first) < 0) (void)snprintf(first, sizeof first, "%s", e->d_name);
    }
    if (d) (void)closedir(d);
    if (!count) QX_FAIL(ctx, QX_E_FORMAT, "model '%s' is a directory, not a file; it holds no .onnx file", path);
    if (count == 1) QX_FAIL(ctx, QX_E_FORMAT, "model '%s' is a directory, not a file; it holds %s", path, first);
    QX_FAIL(ctx, QX_E_FORMAT, "model '%s' is a directory, not a file; it holds %d models (%s ...)", path, count, first);
}

static qx_status check_regular(qx_ctx *ctx, int fd, const char *path, const char *what, struct stat *st)
{
    struct statfs fs;
    if (fstat(fd, st) != 0) QX_FAIL(ctx, QX_E_IO, "%s '%s': %s", what, path, strerror(errno));
    if (S_ISDIR(st->st_mode) && strcmp(what, "model") == 0) return refuse_folder(ctx, path);
    if (!S_ISREG(st->st_mode))
        QX_FAIL(ctx, QX_E_FORMAT, "%s '%s' is %s, not a file: it is read at many places; save it first", what, path, kind_of(st->st_mode));
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC))
        QX_FAIL(ctx, QX_E_FORMAT, "%s '%s' is a file of the kernel (/proc or /sys)", what, path);
    return QX_OK;
}

static qx_status open_error(qx_ctx *ctx, int err, const char *path, const char *what)
{
    if (err == ELOOP) QX_FAIL(ctx, QX_E_IO, "%s '%s': symbolic links lead in a circle, or are refused here", what, path);
    if (err == EMFILE || err == ENFILE) QX_FAIL(ctx, QX_E_IO, "%s '%s': too many files are open; raise the limit (ulimit -n)", what, path);
    if (err == ENOENT && strstr(path, "://"))
        QX_FAIL(ctx, QX_E_IO, "%s '%s' is a URL: download it first, with the files of its external data", what, path);
    if (err == ENOENT && strcmp(path, "-") == 0) QX_FAIL(ctx, QX_E_IO, "%s '-': standard input is not read; name a file", what);
    if (err == ENXIO) QX_FAIL(ctx, QX_E_FORMAT, "%s '%s' is a socket or a device without a driver, not a file", what, path);
    QX_FAIL(ctx, QX_E_IO, "%s '%s': %s", what, path, strerror(err));
}

/* Takes over fd. */
static qx_status adopt(qx_ctx *ctx, int fd, const char *path, const char *what, struct stat *st, qx_file **out)
{
    const qx_status s = check_regular(ctx, fd, path, what, st);
    if (s == QX_OK) return qx_file_from_fd(ctx, fd, path, out);
    (void)close(fd);
    return s;
}

qx_status qx_store_open_regular(qx_ctx *ctx, const char *path, const char *what, qx_file **out)
{
    struct stat st;
    const int fd = open(path, OPEN_FLAGS);
    if (fd < 0) return open_error(ctx, errno, path, what);
    return adopt(ctx, fd, path, what, &st, out);
}

/* ---- what a file looks like when it is not a model ---- */

static bool is_text(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] >= 0x7f || (p[i] < 0x20 && p[i] != '\n' && p[i] != '\t' && p[i] != '\r')) return false;
    return n > 0;
}

typedef struct file_kind { size_t at; const char *magic; size_t n; bool data_too; const char *text; } file_kind;

#define EXPORT "export the model to ONNX (torch.onnx.export, optimum-cli export onnx)"
#define CONVERT "convert it to ONNX (python -m tf2onnx.convert)"
static const file_kind kinds[] = {
    {0, "version https://git-lfs", 23, true, "a Git LFS pointer; fetch the content with `git lfs pull`"},
    {0, "\x1f\x8b", 2, true, "gzip data; unpack it first"},
    {0, "PK\3\4", 4, true, "a zip archive; unpack it first, or if it is a torch checkpoint " EXPORT},
    {0, "<!DOCTYPE", 9, true, "an HTML page (a failed download?)"},
    {0, "<!doctype", 9, true, "an HTML page (a failed download?)"},
    {0, "<html", 5, true, "an HTML page (a failed download?)"},
    {4, "\0\0\0\0{", 5, false, "a safetensors file: weights without a graph; " EXPORT},
    {0, "GGUF", 4, false, "a GGUF file of llama.cpp: weights without a graph; " EXPORT " from what it was made of"},
    {0, "\x80\2", 2, false, "a Python pickle (a torch checkpoint?); " EXPORT},
    {4, "TFL3", 4, false, "a TensorFlow Lite model; " CONVERT},
    {0, "\x89HDF", 4, false, "an HDF5 file (Keras?); " CONVERT},
};

static qx_status refuse_kind(qx_ctx *ctx, qx_file *f, const char *what)
{
    const bool model = strcmp(what, "model") == 0;
    uint8_t head[64];
    const size_t n = qx_file_size(f) < 64 ? (size_t)qx_file_size(f) : 64;
    QX_TRY(qx_file_read(f, 0, n, head));
    for (const file_kind *k = kinds; k < kinds + sizeof kinds / sizeof *kinds; k++)
        if ((model || k->data_too) && n >= k->at + k->n && !memcmp(head + k->at, k->magic, k->n))
            QX_FAIL(ctx, QX_E_FORMAT, "%s '%s' is %s", what, qx_file_path(f), k->text);
    if (model && is_text(head, n))
        QX_FAIL(ctx, QX_E_FORMAT, "model '%s' is a text file; an ONNX model (*.onnx) is wanted", qx_file_path(f));
    return QX_OK;
}

/* ---- directories ---- */

static char *arena_dirname(qx_model *m, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return qx_arena_strdup(m->arena, ".");
    return qx_arena_strndup(m->arena, path, slash == path ? 1 : (size_t)(slash - path));
}

/* Real path in the arena; NULL when it cannot be had. */
static const char *real_in_arena(qx_model *m, const char *path)
{
    char real[PATH_MAX];
    return realpath(path, real) ? qx_arena_strdup(m->arena, real) : NULL;
}

static void set_roots(qx_model *m, const char *path)
{
    qx_store *s = m->store;
    s->roots[0] = s->base_dir ? real_in_arena(m, s->base_dir) : NULL;
    const char *real = path ? real_in_arena(m, path) : NULL;
    s->roots[1] = real ? arena_dirname(m, real) : NULL;
    s->roots[2] = s->opt.external_data_root ? real_in_arena(m, s->opt.external_data_root) : NULL;
}

qx_status qx_store_open_model(qx_model *m, const char *path, const qx_read_options *opt)
{
    qx_store *s = m->store;
    struct stat st;
    if (opt) s->opt = *opt;
    const int fd = open(path, OPEN_FLAGS);
    if (fd < 0) return open_error(m->ctx, errno, path, "model");
    QX_TRY(adopt(m->ctx, fd, path, "model", &st, &s->model_file));
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    if (st.st_size == 0) QX_FAIL(m->ctx, QX_E_FORMAT, "model '%s' is an empty file", path);
    QX_TRY(refuse_kind(m->ctx, s->model_file, "model"));
    s->base_dir = arena_dirname(m, path);
    if (!s->base_dir) return QX_E_NOMEM;
    set_roots(m, path);
    return QX_OK;
}

qx_status qx_store_set_memory(qx_model *m, const void *bytes, size_t n, const char *base_dir, const qx_read_options *opt)
{
    qx_store *s = m->store;
    if (opt) s->opt = *opt;
    if (n == 0) QX_FAIL(m->ctx, QX_E_FORMAT, "model in memory is empty");
    s->mem = bytes;
    s->mem_size = (int64_t)n;
    if (base_dir && !(s->base_dir = qx_arena_strdup(m->arena, base_dir))) return QX_E_NOMEM;
    set_roots(m, NULL);
    return QX_OK;
}

/* ---- external locations ---- */

static qx_status check_location(qx_model *m, const char *tensor, const char *loc)
{
    const char *why = NULL;
    if (!*loc) why = "it is empty";
    else if (*loc == '/') why = "it is absolute";
    else if (!strcmp(loc, "*/_ORT_MEM_ADDR_/*")) why = "it is a memory address tag, never valid in a file";
    else if (strchr(loc, '\\')) why = "it holds a backslash";
    else if (((loc[0] | 32) >= 'a' && (loc[0] | 32) <= 'z') && loc[1] == ':') why = "it starts with a drive letter";
    for (const char *p = loc; !why && *p; p++) {
        const bool start = p == loc || p[-1] == '/';
        if ((uint8_t)*p < 0x20 || *p == 0x7f) why = "it holds a control byte";
        else if (start && p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == 0)) why = "it climbs out with '..'";
    }
    if (why) QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': location '%s' of its external data is refused: %s", tensor, loc, why);
    return QX_OK;
}

static bool under(const char *path, const char *root)
{
    const size_t n = root ? strlen(root) : 0;
    if (!n) return false;
    if (n == 1) return root[0] == '/';
    return !strncmp(path, root, n) && path[n] == '/';
}

/* Real path of what was opened, from the descriptor. */
static bool path_of_fd(int fd, const char *path, char out[PATH_MAX])
{
    char link[64];
    struct stat a, b;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n > 0) {
        out[n] = 0;
        return true;
    }
    /* no /proc: the name must still lead to the same file */
    return realpath(path, out) && fstat(fd, &a) == 0 && stat(out, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static qx_status check_contained(qx_model *m, int fd, const char *path, const char *tensor)
{
    const qx_store *s = m->store;
    char real[PATH_MAX];
    if (s->opt.allow_symlinks) return QX_OK;
    if (!path_of_fd(fd, path, real))
        QX_FAIL(m->ctx, QX_E_IO, "tensor '%s': cannot tell where external data '%s' really lies", tensor, path);
    for (int i = 0; i < 3; i++)
        if (s->roots[i] && under(real, s->roots[i])) return QX_OK;
    QX_FAIL(m->ctx, QX_E_FORMAT,
            "tensor '%s': external data '%s' really lies at '%s', outside the model's directory '%s' (allow it with "
            "--allow-symlinks or --external-data-root DIR)",
            tensor, path, real, s->roots[0] ? s->roots[0] : s->base_dir);
}

/* Strict opening where the kernel has no openat2: no component may be a link. */
static int open_no_links(int dir, const char *loc)
{
    char part[PATH_MAX];
    int fd = dup(dir);
    while (fd >= 0) {
        const char *slash = strchr(loc, '/');
        const size_t n = slash ? (size_t)(slash - loc) : strlen(loc);
        if (n >= sizeof part) { (void)close(fd); errno = ENAMETOOLONG; return -1; }
        memcpy(part, loc, n);
        part[n] = 0;
        const int next = openat(fd, n ? part : ".", OPEN_FLAGS | O_NOFOLLOW | (slash ? O_DIRECTORY : 0));
        const int err = errno;
        (void)close(fd);
        errno = err;
        if (!slash) return next;
        fd = next;
        loc = slash + 1;
    }
    return -1;
}

static int open_strict(const char *base, const char *loc)
{
    const int dir = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return -1;
    struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, dir, loc, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) fd = open_no_links(dir, loc);
    const int err = errno;
    (void)close(dir);
    errno = err;
    return fd;
}

static qx_status open_external(qx_model *m, const char *tensor, const char *path, const char *loc, qx_ext_file *f)
{
    qx_store *s = m->store;
    struct stat st;
    const int fd = s->opt.strict ? open_strict(s->base_dir, loc) : open(path, OPEN_FLAGS);
    if (fd < 0 && errno == ENOENT && s->opt.missing_data_ok) {
        f->missing = true;
        qx_warn(m->ctx, "external data '%s' is not there", path);
        return QX_OK;
    }
    if (fd < 0) return qx_note(m->ctx, open_error(m->ctx, errno, path, "external data"), "tensor '%s'", tensor);
    qx_status r = check_regular(m->ctx, fd, path, "external data", &st);
    if (r != QX_OK) qx_note(m->ctx, r, "tensor '%s'", tensor);
    else r = check_contained(m, fd, path, tensor);
    if (r == QX_OK && s->model_file && st.st_dev == s->dev && st.st_ino == s->ino)
        r = qx_fail(m->ctx, QX_E_FORMAT, "tensor '%s': external data '%s' is the model file itself", tensor, loc);
    if (r == QX_OK && s->opt.strict && st.st_nlink != 1)
        r = qx_fail(m->ctx, QX_E_FORMAT, "tensor '%s': external data '%s' has %lld hard links, refused by --strict", tensor, path,
                    (long long)st.st_nlink);
    if (r != QX_OK) {
        (void)close(fd);
        return r;
    }
    QX_TRY(qx_file_from_fd(m->ctx, fd, path, &f->file));
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    return refuse_kind(m->ctx, f->file, "external data");
}

static qx_status add_file(qx_model *m, const char *loc, qx_ext_file **out)
{
    qx_store *s = m->store;
    QX_TRY(qx_arena_grow(m->arena, (void **)&s->files, s->n_files, &s->cap_files, sizeof *s->files));
    qx_ext_file *f = qx_arena_alloc(m->arena, sizeof *f);
    if (!f || !(f->location = qx_arena_strdup(m->arena, loc))) return QX_E_NOMEM;
    s->files[s->n_files++] = f;
    *out = f;
    return QX_OK;
}

qx_status qx_store_external(qx_model *m, const char *tensor, const char *loc, qx_ext_file **out)
{
    qx_store *s = m->store;
    for (int64_t i = s->n_files - 1; i >= 0; i--)
        if ((s->files[i]->file || s->files[i]->missing) && !strcmp(s->files[i]->location, loc)) return *out = s->files[i], QX_OK;
    QX_TRY(check_location(m, tensor, loc));
    if (!s->base_dir)
        QX_FAIL(m->ctx, QX_E_FORMAT, "tensor '%s': external data '%s' of a model that was given as bytes; say which directory it lies in",
                tensor, loc);
    const char *path = qx_arena_printf(m->arena, "%s/%s", s->base_dir, loc);
    if (!path) return QX_E_NOMEM;
    QX_TRY(add_file(m, loc, out));
    return open_external(m, tensor, path, loc, *out);
}

/* ---- ranges and checksums ---- */

qx_status qx_store_add_range(qx_model *m, qx_ext_file *f, const char *tensor, int64_t offset, int64_t length)
{
    QX_TRY(qx_arena_grow(m->arena, (void **)&f->ranges, f->n_ranges, &f->cap_ranges, sizeof *f->ranges));
    f->ranges[f->n_ranges++] = (qx_ext_range){offset, length, tensor};
    return QX_OK;
}

static int by_offset(const void *pa, const void *pb)
{
    const qx_ext_range *a = pa, *b = pb;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return (a->length > b->length) - (a->length < b->length);
}

int64_t qx_model_external_bytes(const qx_model *m)
{
    int64_t sum = 0;
    for (int64_t i = 0; m->store && i < m->store->n_files; i++) {
        const qx_ext_file *f = m->store->files[i];
        for (int64_t k = 0; k < f->n_ranges; k++) /* sorted: tied weights are neighbours */
            if (!k || f->ranges[k].offset != f->ranges[k - 1].offset) sum += f->ranges[k].length;
    }
    return sum;
}

qx_status qx_store_check_overlaps(qx_model *m)
{
    for (int64_t i = 0; i < m->store->n_files; i++) {
        qx_ext_file *f = m->store->files[i];
        if (f->n_ranges) qsort(f->ranges, (size_t)f->n_ranges, sizeof *f->ranges, by_offset);
        for (int64_t k = 1; k < f->n_ranges; k++) {
            const qx_ext_range *a = &f->ranges[k - 1], *b = &f->ranges[k];
            if (b->offset >= a->offset + a->length || !a->length || !b->length) continue;
            if (a->offset == b->offset && a->length == b->length) continue; /* tied weights */
            QX_TRY(qx_store_warn(m, "external data '%s': tensor '%.128s' at %lld..%lld overlaps tensor '%.128s' at %lld..%lld",
                                 f->location, a->tensor, (long long)a->offset,
                                 (long long)(a->offset + a->length), b->tensor, (long long)b->offset, (long long)(b->offset + b->length)));
        }
    }
    return QX_OK;
}

qx_status qx_store_sha1(qx_ctx *ctx, qx_ext_file *f)
{
    enum { CHUNK = 1 << 20 };
    qx_sha1 s;
    void *buf;
    qx_status st = QX_OK;
    if (f->hashed) return QX_OK;
    QX_TRY(qx_alloc_raw(ctx, CHUNK, &buf));
    qx_sha1_init(&s);
    const int64_t size = qx_file_size(f->file);
    for (int64_t at = 0; at < size && st == QX_OK; at += CHUNK) {
        const size_t n = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
        st = qx_check_cancel(ctx);
        if (st == QX_OK) st = qx_file_read(f->file, at, n, buf);
        if (st == QX_OK) qx_sha1_update(&s, buf, n);
    }
    qx_free(ctx, buf);
    if (st == QX_OK) qx_sha1_hex(&s, f->sha1);
    f->hashed = st == QX_OK;
    return st;
}

void qx_store_free(qx_store *s)
{
    if (!s) return;
    for (int64_t i = 0; i < s->n_files; i++)
        if (s->files[i]->file) qx_file_close(s->files[i]->file);
    if (s->model_file) qx_file_close(s->model_file);
}
