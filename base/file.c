/* file.c - reading: pread with exact sizes, a read-only map, whole small files. */
#include "base/file.h"
#include "base/checked.h"
#include "base/ctx.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct qx_file {
    qx_ctx *ctx;
    char *path;
    int fd;
    int64_t size;
    void *map;
};

static qx_status file_new(qx_ctx *ctx, int fd, const char *path, qx_file **out)
{
    struct stat st;
    qx_file *f;
    char why[128];
    if (fstat(fd, &st) != 0) QX_FAIL(ctx, QX_E_IO, "'%s': cannot look at it: %s", path, qx_errno_text(errno, why, sizeof why));
    if (!S_ISREG(st.st_mode))
        QX_FAIL(ctx, QX_E_IO, "'%s' is %s, not a regular file", path, S_ISDIR(st.st_mode) ? "a directory" : "a device, pipe or socket");
    QX_TRY(QX_NEW(ctx, &f));
    f->ctx = ctx;
    f->fd = fd;
    f->size = st.st_size;
    qx_status s = qx_alloc(ctx, strlen(path) + 1, (void **)&f->path);
    if (s != QX_OK) {
        qx_free(ctx, f);
        return s;
    }
    memcpy(f->path, path, strlen(path) + 1);
    *out = f;
    return QX_OK;
}

qx_status qx_file_from_fd(qx_ctx *ctx, int fd, const char *path, qx_file **out)
{
    *out = NULL;
    qx_status st = file_new(ctx, fd, path, out);
    if (st != QX_OK) close(fd);
    return st;
}

/* O_NONBLOCK: opening a pipe by mistake must not hang; it changes nothing for a regular file. */
qx_status qx_file_open(qx_ctx *ctx, const char *path, qx_file **out)
{
    char why[128];
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) QX_FAIL(ctx, QX_E_IO, "'%s': cannot open: %s", path, qx_errno_text(errno, why, sizeof why));
    return qx_file_from_fd(ctx, fd, path, out);
}

void qx_file_close(qx_file *f)
{
    if (!f) return;
    if (f->map) munmap(f->map, (size_t)f->size);
    close(f->fd);
    qx_free(f->ctx, f->path);
    qx_free(f->ctx, f);
}

const char *qx_file_path(const qx_file *f)
{
    return f->path;
}

int64_t qx_file_size(const qx_file *f)
{
    return f->size;
}

int qx_file_fd(const qx_file *f)
{
    return f->fd;
}

static qx_status too_short(qx_file *f, int64_t offset, size_t n, size_t got)
{
    return qx_fail(f->ctx, QX_E_IO,
                   "'%s': %zu bytes wanted at offset %lld, but only %zu are there (the file had %lld bytes when it was opened)",
                   f->path, n, (long long)offset, got, (long long)f->size);
}

qx_status qx_file_read(qx_file *f, int64_t offset, size_t n, void *out)
{
    char why[128];
    size_t got = 0;
    int64_t end;
    if (offset < 0 || n > INT64_MAX || !qx_add_i64(offset, (int64_t)n, &end))
        QX_FAIL(f->ctx, QX_E_IO, "'%s': cannot read %zu bytes at offset %lld", f->path, n, (long long)offset);
    while (got < n) {
        size_t want = n - got < (1u << 30) ? n - got : 1u << 30;
        ssize_t r = qx_countdown(&f->ctx->io_fail[QX_IO_READ]) ? (errno = EIO, -1)
            : pread(f->fd, (char *)out + got, want, offset + (int64_t)got);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0)
            QX_FAIL(f->ctx, QX_E_IO, "'%s': cannot read %zu bytes at offset %lld: %s", f->path, n, (long long)offset,
                    qx_errno_text(errno, why, sizeof why));
        if (r == 0) return too_short(f, offset, n, got);
        got += (size_t)r;
    }
    return QX_OK;
}

qx_status qx_file_map(qx_file *f, const uint8_t **out)
{
    char why[128];
    if (!f->map && f->size > 0) {
        bool fails = qx_countdown(&f->ctx->io_fail[QX_IO_READ]);
        void *p = fails ? (errno = EIO, MAP_FAILED) : mmap(NULL, (size_t)f->size, PROT_READ, MAP_PRIVATE, f->fd, 0);
        if (p == MAP_FAILED)
            QX_FAIL(f->ctx, QX_E_IO, "'%s': cannot map %lld bytes: %s", f->path, (long long)f->size, qx_errno_text(errno, why, sizeof why));
        f->map = p;
    }
    *out = f->map ? f->map : (const uint8_t *)"";
    return QX_OK;
}

void qx_file_rest(qx_file *f)
{
    if (f && f->map) (void)madvise(f->map, (size_t)f->size, MADV_DONTNEED);
}

static qx_status slurp(qx_file *f, size_t cap, char **out, size_t *len)
{
    if ((uint64_t)f->size > cap)
        QX_FAIL(f->ctx, QX_E_FORMAT, "'%s' has %lld bytes; at most %zu are allowed here", f->path, (long long)f->size, cap);
    size_t n = (size_t)f->size;
    QX_TRY(qx_alloc_raw(f->ctx, n + 1, (void **)out));
    qx_status st = qx_file_read(f, 0, n, *out);
    if (st != QX_OK) {
        qx_free(f->ctx, *out);
        *out = NULL;
        return st;
    }
    (*out)[n] = '\0';
    if (len) *len = n;
    return QX_OK;
}

qx_status qx_file_slurp(qx_ctx *ctx, const char *path, size_t cap, char **out, size_t *len)
{
    qx_file *f;
    *out = NULL;
    if (len) *len = 0;
    QX_TRY(qx_file_open(ctx, path, &f));
    qx_status st = slurp(f, cap, out, len);
    qx_file_close(f);
    return st;
}

void qx_io_fail_at(qx_ctx *ctx, qx_io_kind kind, int64_t n)
{
    atomic_store(&ctx->io_fail[kind], n);
}

int64_t qx_io_fail_left(const qx_ctx *ctx, qx_io_kind kind)
{
    return atomic_load(&ctx->io_fail[kind]);
}
