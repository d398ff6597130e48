/* outset.c - output that is complete or not there at all.
 *
 * Each file is written under a temporary name in its own directory, held by a lock, so that the next run can tell what a
 * killed one left behind from what a living one is writing, and removes the former. Commit: fsync all, keep a hard link to
 * each file that will be replaced, rename in order. If a rename fails, what was replaced comes back from its link.
 *
 * Two files cannot be replaced in one step. Where an old model and its old data are both there, a stand-in goes between: the new
 * data gets a second name, the bridge; a model that refers to the bridge replaces the old one, and that rename is the commit
 * point; then the data and the model proper take their names, and the bridge goes. So a pair that loads is there at every
 * instant. What a kill in between leaves is such a pair with hidden data, which the next successful run for this target takes away. */
#include "base/file.h"
#include "base/checked.h"
#include "base/ctx.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define COPY_STEP ((int64_t)64 << 20)
#define COPY_BUFFER ((size_t)1 << 20)
#define TEMP_PREFIX ".qonnx-"
#define BRIDGE_PREFIX ".qonnx-data-"

struct qx_out {
    qx_out *next;
    qx_outset *set;
    char *path, *temp, *backup; /* backup: NULL when there is nothing to bring back */
    int fd;
    bool renamed, was_there, replaced; /* the temporary has its name; an old file had it; it no longer has */
};

struct qx_outset {
    qx_ctx *ctx;
    qx_arena *arena;
    qx_out *first, **last;
    qx_out *stand_in; /* for the last file; NULL when there is no old pair */
    char *bridge;     /* second name of the first file while the stand-in stands */
};

qx_status qx_outset_new(qx_ctx *ctx, qx_outset **out)
{
    qx_outset *s;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &s));
    s->ctx = ctx;
    s->last = &s->first;
    qx_status st = qx_arena_new(ctx, &s->arena);
    if (st != QX_OK) qx_free(ctx, s);
    else *out = s;
    return st;
}

static qx_status io_error(qx_ctx *ctx, const char *path, const char *what)
{
    char why[128];
    return qx_fail(ctx, QX_E_IO, "'%s': cannot %s: %s", path, what, qx_errno_text(errno, why, sizeof why));
}

static bool injected(qx_ctx *ctx, qx_io_kind kind)
{
    if (!qx_countdown(&ctx->io_fail[kind])) return false;
    errno = EIO;
    return true;
}

static qx_status check_target(qx_ctx *ctx, const char *path, qx_file *const *inputs, int n_inputs)
{
    struct stat st, in;
    if (stat(path, &st) != 0) return errno == ENOENT || errno == ELOOP ? QX_OK : io_error(ctx, path, "write there");
    if (!S_ISREG(st.st_mode))
        QX_FAIL(ctx, QX_E_IO, "'%s' is %s; give the name of a file", path,
                S_ISDIR(st.st_mode) ? "a directory" : "a device, pipe or socket");
    for (int i = 0; i < n_inputs; i++)
        if (inputs[i] && fstat(qx_file_fd(inputs[i]), &in) == 0 && in.st_dev == st.st_dev && in.st_ino == st.st_ino)
            QX_FAIL(ctx, QX_E_USAGE, "output '%s' is the same file as input '%s'; give another name", path, qx_file_path(inputs[i]));
    return QX_OK;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

/* The folder of a path; false: its name is too long for this system. */
static bool folder_of(const char *path, char dir[PATH_MAX], size_t *len)
{
    const char *slash = strrchr(path, '/');
    *len = !slash ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (*len >= PATH_MAX) return false;
    memcpy(dir, *len ? path : ".", *len ? *len : 1);
    dir[*len ? *len : 1] = '\0';
    return true;
}

int64_t qx_out_room(const char *path)
{
    char dir[PATH_MAX];
    size_t len;
    struct statvfs fs;
    if (!folder_of(path, dir, &len) || statvfs(dir, &fs) != 0 || !fs.f_blocks) return -1;
    return fs.f_bavail < (uint64_t)INT64_MAX / fs.f_frsize ? (int64_t)(fs.f_bavail * fs.f_frsize) : INT64_MAX;
}

qx_status qx_out_check(qx_ctx *ctx, const char *path, const char *const *kept, int n)
{
    char dir[PATH_MAX], why[128];
    size_t len;
    if (!folder_of(path, dir, &len))
        QX_FAIL(ctx, QX_E_IO, "'%.64s...' cannot be written: its folder's name has %zu bytes", path, len);
    if (strcmp(path, "-") == 0)
        QX_FAIL(ctx, QX_E_USAGE, "output '-': nothing is written to standard output; name a file (./- if it shall be called that)");
    for (int i = 0; i < n; i++)
        if (kept[i] && same_file(path, kept[i]))
            QX_FAIL(ctx, QX_E_USAGE, "output '%s' is the same file as '%s'; give another name", path, kept[i]);
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) QX_FAIL(ctx, QX_E_USAGE, "output '%s' is a folder; name a file in it", path);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        QX_FAIL(ctx, QX_E_USAGE, "output '%s' is a device, pipe or socket; give the name of a file", path);
    if (access(dir, W_OK) != 0)
        QX_FAIL(ctx, QX_E_IO, "'%s' cannot be written: folder '%s': %s", path, dir, qx_errno_text(errno, why, sizeof why));
    return QX_OK;
}

static char *directory_of(qx_arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? qx_arena_strndup(a, path, (size_t)(slash - path) + 1) : qx_arena_strdup(a, "./");
}

/* 64 bits of the target's name in the temporary's: long names stay legal, and leftovers of other targets are left alone. */
static char *hidden_prefix(qx_arena *a, const char *kind, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    uint64_t h = 14695981039346656037u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return qx_arena_printf(a, "%s%016llx-", kind, (unsigned long long)h);
}

/* Removes the hidden files of this target that no living process holds. Best effort: nothing depends on it. */
static void remove_leftovers(const char *dir, const char *prefix)
{
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0) continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0) continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(dirfd(d), e->d_name, 0);
        close(fd);
    }
    closedir(d);
}

static char *fresh_name(qx_arena *a, const char *dir, const char *prefix)
{
    uint64_t r = 0;
    if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r) r = (uint64_t)getpid();
    return qx_arena_printf(a, "%s%s%016llx", dir, prefix, (unsigned long long)r);
}

static qx_status open_temp(qx_outset *s, qx_out *o)
{
    char *dir = directory_of(s->arena, o->path), *prefix = hidden_prefix(s->arena, TEMP_PREFIX, o->path);
    if (!dir || !prefix) return QX_E_NOMEM;
    remove_leftovers(dir, prefix);
    for (int tries = 0; tries < 8; tries++) {
        o->temp = fresh_name(s->arena, dir, prefix);
        if (!o->temp) return QX_E_NOMEM;
        o->fd = open(o->temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (o->fd >= 0 || errno != EEXIST) break;
    }
    if (o->fd < 0) return io_error(s->ctx, o->path, "create");
    (void)flock(o->fd, LOCK_EX | LOCK_NB);
    return QX_OK;
}

static qx_status new_out(qx_outset *s, const char *path, qx_out **out)
{
    qx_out *o = qx_arena_alloc(s->arena, sizeof *o);
    if (!o || !(o->path = qx_arena_strdup(s->arena, path))) return QX_E_NOMEM;
    o->set = s;
    o->fd = -1;
    QX_TRY(open_temp(s, o));
    *out = o;
    return QX_OK;
}

qx_status qx_out_open(qx_outset *s, const char *path, qx_file *const *inputs, int n_inputs, qx_out **out)
{
    qx_out *o;
    *out = NULL;
    QX_TRY(check_target(s->ctx, path, inputs, n_inputs));
    QX_TRY(new_out(s, path, &o));
    *s->last = o;
    s->last = &o->next;
    *out = o;
    return QX_OK;
}

static bool exists(const qx_out *o)
{
    return access(o->path, F_OK) == 0;
}

qx_status qx_outset_stand_in(qx_outset *s, qx_out **out, const char **location)
{
    qx_out *data = s->first, *model = data ? data->next : NULL;
    *out = NULL;
    assert(model && !model->next && !s->stand_in);
    if (!exists(data) || !exists(model)) return QX_OK;
    char *dir = directory_of(s->arena, data->path), *prefix = hidden_prefix(s->arena, BRIDGE_PREFIX, data->path);
    s->bridge = dir && prefix ? fresh_name(s->arena, dir, prefix) : NULL;
    if (!s->bridge) return QX_E_NOMEM;
    QX_TRY(new_out(s, model->path, &s->stand_in));
    *out = s->stand_in;
    *location = strrchr(s->bridge, '/') + 1;
    return QX_OK;
}

qx_status qx_out_write_at(qx_out *o, int64_t offset, const void *bytes, size_t n)
{
    size_t put = 0;
    while (put < n) {
        size_t want = n - put < (1u << 30) ? n - put : 1u << 30;
        ssize_t w = injected(o->set->ctx, QX_IO_WRITE) ? -1 : pwrite(o->fd, (const char *)bytes + put, want, offset + (int64_t)put);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return qx_note(o->set->ctx, io_error(o->set->ctx, o->path, "write"), "%zu bytes at offset %lld", n, (long long)offset);
        put += (size_t)w;
    }
    return QX_OK;
}

static qx_status copy_by_hand(qx_out *o, int64_t offset, qx_file *from, int64_t from_offset, int64_t n)
{
    void *tile;
    qx_status st = QX_OK;
    QX_TRY(qx_alloc_raw(o->set->ctx, COPY_BUFFER, &tile));
    for (int64_t done = 0; done < n && st == QX_OK;) {
        size_t step = n - done < (int64_t)COPY_BUFFER ? (size_t)(n - done) : COPY_BUFFER;
        st = qx_check_cancel(o->set->ctx);
        if (st == QX_OK) st = qx_file_read(from, from_offset + done, step, tile);
        if (st == QX_OK) st = qx_out_write_at(o, offset + done, tile, step);
        done += (int64_t)step;
    }
    qx_free(o->set->ctx, tile);
    return st;
}

static bool not_supported(int err)
{
    return err == EXDEV || err == EINVAL || err == ENOSYS || err == EOPNOTSUPP || err == EBADF || err == EPERM || err == ETXTBSY;
}

qx_status qx_out_copy_at(qx_out *o, int64_t offset, qx_file *from, int64_t from_offset, int64_t n)
{
    qx_ctx *ctx = o->set->ctx;
    int64_t end;
    if (from_offset < 0 || n < 0 || !qx_add_i64(from_offset, n, &end) || end > qx_file_size(from))
        QX_FAIL(ctx, QX_E_IO, "'%s': cannot copy %lld bytes at offset %lld of %lld bytes", qx_file_path(from), (long long)n,
                (long long)from_offset, (long long)qx_file_size(from));
    while (n > 0) {
        off_t in = from_offset, to = offset;
        QX_TRY(qx_check_cancel(ctx));
        ssize_t c = injected(ctx, QX_IO_WRITE) ? -1 : copy_file_range(qx_file_fd(from), &in, o->fd, &to,
                                                                      (size_t)(n < COPY_STEP ? n : COPY_STEP), 0);
        if (c < 0 && errno == EINTR) continue;
        /* 0: some file systems, or truncated */
        if (c == 0 || (c < 0 && not_supported(errno))) return copy_by_hand(o, offset, from, from_offset, n);
        if (c < 0) return io_error(ctx, o->path, "write");
        offset += c, from_offset += c, n -= c;
    }
    return QX_OK;
}

qx_status qx_out_truncate(qx_out *o, int64_t size)
{
    if (injected(o->set->ctx, QX_IO_WRITE) || ftruncate(o->fd, size) != 0) return io_error(o->set->ctx, o->path, "set the size");
    return QX_OK;
}

int qx_out_fd(const qx_out *o)
{
    return o->fd;
}

const char *qx_out_temp_path(const qx_out *o)
{
    return o->temp;
}

/* A file system without hard links only loses the way back from a failed rename. */
static qx_status keep_old(qx_outset *s, qx_out *o)
{
    char *dir = directory_of(s->arena, o->path), *prefix = hidden_prefix(s->arena, TEMP_PREFIX, o->path);
    char *name = dir && prefix ? fresh_name(s->arena, dir, prefix) : NULL;
    if (!name) return QX_E_NOMEM;
    o->was_there = exists(o);
    if (link(o->path, name) == 0) o->backup = name;
    return QX_OK;
}

static qx_status keep_all(qx_outset *s)
{
    for (qx_out *o = s->first; o; o = o->next) QX_TRY(keep_old(s, o));
    return QX_OK;
}

static qx_status sync_directory(qx_outset *s, const char *path)
{
    char *dir = directory_of(s->arena, path);
    if (!dir) return QX_E_NOMEM;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return QX_OK; /* a directory that may be written but not read */
    bool bad = injected(s->ctx, QX_IO_FSYNC) || (fsync(fd) != 0 && errno != EINVAL);
    int err = errno;
    close(fd);
    errno = err;
    return bad ? io_error(s->ctx, dir, "sync") : QX_OK;
}

static qx_status sync_file(qx_out *o)
{
    if (injected(o->set->ctx, QX_IO_FSYNC) || fsync(o->fd) != 0) return io_error(o->set->ctx, o->path, "sync");
    return QX_OK;
}

static qx_status take_name(qx_out *o, qx_out *target)
{
    if (injected(o->set->ctx, QX_IO_RENAME) || rename(o->temp, target->path) != 0)
        return io_error(o->set->ctx, target->path, "rename the finished file to this name");
    o->renamed = target->replaced = true;
    return QX_OK;
}

/* Where there are no hard links, the bridge is a copy. */
static qx_status build_bridge(qx_outset *s)
{
    qx_out copy = {.set = s, .path = s->bridge};
    qx_file *data;
    if (link(s->first->temp, s->bridge) == 0) return QX_OK;
    copy.fd = open(s->bridge, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (copy.fd < 0) return io_error(s->ctx, s->bridge, "create");
    qx_status st = qx_file_open(s->ctx, s->first->temp, &data);
    if (st == QX_OK) {
        st = qx_out_copy_at(&copy, 0, data, 0, qx_file_size(data));
        qx_file_close(data);
    }
    if (st == QX_OK) st = sync_file(&copy);
    close(copy.fd);
    return st;
}

static qx_status cross_bridge(qx_outset *s)
{
    QX_TRY(build_bridge(s));
    QX_TRY(take_name(s->stand_in, s->first->next));
    return sync_directory(s, s->bridge);
}

static void remove_bridges(qx_outset *s)
{
    if (!s->bridge) return;
    unlink(s->bridge);
    char *dir = directory_of(s->arena, s->bridge), *prefix = hidden_prefix(s->arena, BRIDGE_PREFIX, s->first->path);
    if (dir && prefix) remove_leftovers(dir, prefix);
}

static qx_status rename_all(qx_outset *s)
{
    if (s->stand_in) QX_TRY(cross_bridge(s));
    for (qx_out *o = s->first; o; o = o->next) QX_TRY(take_name(o, o));
    for (qx_out *o = s->first; o; o = o->next) QX_TRY(sync_directory(s, o->path));
    return QX_OK;
}

/* Without a way back for one of them, the new files stay, and so does the bridge that the stand-in needs. */
static void bring_back(qx_outset *s)
{
    for (qx_out *o = s->first; o; o = o->next)
        if (o->replaced && o->was_there && !o->backup) return;
    for (qx_out *o = s->first; o; o = o->next) {
        if (!o->replaced) continue;
        if (o->backup) rename(o->backup, o->path);
        else unlink(o->path);
    }
    if (s->bridge) unlink(s->bridge);
}

static void drop_backups(qx_outset *s)
{
    for (qx_out *o = s->first; o; o = o->next)
        if (o->backup) unlink(o->backup);
}

qx_status qx_outset_commit(qx_outset *s)
{
    for (qx_out *o = s->first; o; o = o->next) QX_TRY(sync_file(o));
    if (s->stand_in) QX_TRY(sync_file(s->stand_in));
    qx_status st = keep_all(s);
    if (st == QX_OK) st = rename_all(s);
    if (st != QX_OK) bring_back(s);
    else remove_bridges(s);
    drop_backups(s);
    return st;
}

static void close_out(qx_out *o)
{
    if (!o->renamed) unlink(o->temp);
    close(o->fd);
}

void qx_outset_free(qx_outset *s)
{
    if (!s) return;
    for (qx_out *o = s->first; o; o = o->next) close_out(o);
    if (s->stand_in) close_out(s->stand_in);
    qx_arena_free(s->arena);
    qx_free(s->ctx, s);
}
