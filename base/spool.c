/* spool.c - see spool.h. */
#include "base/spool.h"

#include "base/ctx.h"
#include "base/map.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static const char folder[] = "/var/tmp";

struct qx_spool { qx_ctx *ctx; const char *what, *path; int fd; off_t at; };

qx_status qx_spool_open(qx_ctx *ctx, const char *what, const char *path, bool again, qx_spool **out)
{
    char why[128];
    const char *place = path ? path : folder;
    *out = NULL;
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (again ? 0 : O_CREAT | O_TRUNC), 0600)
        : open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        QX_FAIL(ctx, QX_E_IO, "%s: a file for %s cannot be %s: %s", place, what, again ? "opened" : "made",
                qx_errno_text(errno, why, sizeof why));
    const qx_status st = QX_NEW(ctx, out);
    if (st != QX_OK) return close(fd), st;
    **out = (qx_spool){.ctx = ctx, .what = what, .path = place, .fd = fd};
    return QX_OK;
}

void qx_spool_close(qx_spool *s)
{
    if (!s) return;
    if (s->fd >= 0) close(s->fd);
    qx_free(s->ctx, s);
}

void qx_spool_rewind(qx_spool *s) { s->at = 0; }
int64_t qx_spool_at(const qx_spool *s) { return s->at; }

static bool fails(qx_spool *s, qx_io_kind kind)
{
    if (!qx_countdown(&s->ctx->io_fail[kind])) return false;
    errno = EIO;
    return true;
}

static qx_status stopped(const qx_spool *s, size_t done, size_t n, const char *how)
{
    char why[128];
    QX_FAIL(s->ctx, QX_E_IO, "%s in %s: %zu of %zu bytes %s at %lld: %s", s->what, s->path, done, n, how, (long long)s->at,
            errno ? qx_errno_text(errno, why, sizeof why) : "end of file");
}

qx_status qx_spool_put(qx_spool *s, const void *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        errno = 0;
        const ssize_t w = fails(s, QX_IO_WRITE) ? -1 : pwrite(s->fd, (const char *)data + done, n - done, s->at);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return stopped(s, done, n, "written");
        done += (size_t)w;
        s->at += w;
    }
    return QX_OK;
}

qx_status qx_spool_get(qx_spool *s, void *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        errno = 0;
        const ssize_t r = fails(s, QX_IO_READ) ? -1 : pread(s->fd, (char *)data + done, n - done, s->at);
        if (r < 0 && errno == EINTR) continue;
        if (r <= 0) return stopped(s, done, n, "read");
        done += (size_t)r;
        s->at += r;
    }
    return QX_OK;
}

/* A chain over pieces. */
qx_status qx_spool_hash(const qx_spool *s, int64_t bytes, uint64_t *out)
{
    enum { PIECE = 1 << 18 };
    qx_spool reading = *s;
    void *buf;
    uint64_t chain[2] = {(uint64_t)bytes, 0};
    QX_TRY(qx_alloc_raw(s->ctx, PIECE, &buf));
    qx_status st = QX_OK;
    for (reading.at = 0; reading.at < bytes && st == QX_OK;) {
        const size_t n = bytes - reading.at < PIECE ? (size_t)(bytes - reading.at) : PIECE;
        st = qx_spool_get(&reading, buf, n);
        if (st == QX_OK) chain[1] = qx_hash64(buf, n), chain[0] = qx_hash64(chain, sizeof chain);
    }
    qx_free(s->ctx, buf);
    *out = chain[0];
    return st;
}

qx_status qx_spool_to_file(qx_spool *s, qx_file **out)
{
    const int fd = s->fd;
    s->fd = -1;
    const qx_status st = qx_file_from_fd(s->ctx, fd, s->what, out);
    qx_spool_close(s);
    return st;
}
