/* util.c - errors, memory, text and files of the sample program: the only file of it that calls malloc. */
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int sx_fail(sx_err *e, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    e->code = code;
    return code;
}

int sx_note(sx_err *e, int code, const char *fmt, ...)
{
    char old[sizeof e->text];
    memcpy(old, e->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text) snprintf(e->text + n, sizeof e->text - (size_t)n, ": %.4000s", old);
    e->code = code;
    return code;
}

int sx_alloc(sx_err *e, size_t count, size_t size, void **out)
{
    *out = calloc(count ? count : 1, size ? size : 1);
    return *out ? SX_OK : sx_fail(e, SX_FAILED, "out of memory: %zu x %zu bytes", count, size);
}

int sx_regrow(sx_err *e, size_t count, size_t size, void **ptr)
{
    size_t bytes;
    void *p = __builtin_mul_overflow(count, size, &bytes) ? NULL : realloc(*ptr, bytes ? bytes : 1);
    if (!p) return sx_fail(e, SX_FAILED, "out of memory: %zu x %zu bytes", count, size);
    *ptr = p;
    return SX_OK;
}

void sx_free(void *p) { free(p); }

int sx_strdup(sx_err *e, const char *s, char **out) { return sx_printf(e, out, "%s", s); }

int sx_printf(sx_err *e, char **out, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(out, fmt, ap);
    va_end(ap);
    if (n >= 0) return SX_OK;
    *out = NULL;
    return sx_fail(e, SX_FAILED, "out of memory");
}

static bool text_room(sx_text *t, size_t n)
{
    if (t->failed || n > SIZE_MAX / 4 || t->len > SIZE_MAX / 4) return !(t->failed = true);
    if (t->len + n + 1 <= t->cap) return true;
    size_t cap = t->cap ? t->cap : 256;
    while (cap < t->len + n + 1) cap *= 2;
    char *p = realloc(t->s, cap);
    if (!p) return !(t->failed = true);
    t->s = p;
    t->cap = cap;
    return true;
}

void sx_text_put(sx_text *t, const char *bytes, size_t n)
{
    if (!text_room(t, n)) return;
    if (n) memcpy(t->s + t->len, bytes, n);
    t->len += n;
    t->s[t->len] = 0;
}

void sx_text_add(sx_text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0 && text_room(t, (size_t)n)) {
        vsnprintf(t->s + t->len, (size_t)n + 1, fmt, again);
        t->len += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

void sx_text_html(sx_text *t, const char *s)
{
    for (; *s; s++) {
        const char *rep = *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;" : *s == '"' ? "&quot;" : NULL;
        if (rep) sx_text_add(t, "%s", rep);
        else sx_text_put(t, s, 1);
    }
}

void sx_text_json(sx_text *t, const char *s)
{
    sx_text_put(t, "\"", 1);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') sx_text_add(t, "\\%c", *s);
        else if ((unsigned char)*s < 0x20) sx_text_add(t, "\\u%04x", *s);
        else sx_text_put(t, s, 1);
    }
    sx_text_put(t, "\"", 1);
}

void sx_text_free(sx_text *t)
{
    free(t->s);
    *t = (sx_text){0};
}

int sx_read_file(sx_err *e, const char *path, size_t cap, char **out, size_t *len)
{
    *out = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return sx_fail(e, SX_FAILED, "cannot open '%s': %s", path, strerror(errno));
    struct stat st;
    int rc = SX_OK;
    if (fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) rc = sx_fail(e, SX_FAILED, "'%s' is not a regular file", path);
    else if ((uint64_t)st.st_size > cap)
        rc = sx_fail(e, SX_FAILED, "'%s' has %lld bytes, more than the %zu accepted here", path, (long long)st.st_size, cap);
    else rc = sx_alloc(e, (size_t)st.st_size + 1, 1, (void **)out);
    if (rc == SX_OK) {
        *len = fread(*out, 1, (size_t)st.st_size, f);
        if (*len != (size_t)st.st_size) rc = sx_fail(e, SX_FAILED, "'%s': read %zu of %lld bytes", path, *len, (long long)st.st_size);
    }
    if (rc != SX_OK) {
        free(*out);
        *out = NULL;
    }
    fclose(f);
    return rc;
}

static int write_all(sx_err *e, const char *path, int fd, const char *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return sx_fail(e, SX_FAILED, "writing '%s': %s", path, strerror(errno));
        p += n;
        len -= (size_t)n;
    }
    return SX_OK;
}

int sx_write_file(sx_err *e, const char *path, const void *bytes, size_t len)
{
    char *tmp;
    SX_TRY(sx_printf(e, &tmp, "%s.XXXXXX", path));
    int fd = mkstemp(tmp);
    int rc = fd < 0 ? sx_fail(e, SX_FAILED, "cannot write '%s': %s", path, strerror(errno)) : write_all(e, path, fd, bytes, len);
    if (fd >= 0) {
        fchmod(fd, 0644);
        if (close(fd) != 0 && rc == SX_OK) rc = sx_fail(e, SX_FAILED, "closing '%s': %s", path, strerror(errno));
        if (rc == SX_OK && rename(tmp, path) != 0) rc = sx_fail(e, SX_FAILED, "cannot rename to '%s': %s", path, strerror(errno));
        if (rc != SX_OK) unlink(tmp);
    }
    free(tmp);
    return rc;
}

bool sx_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool sx_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int sx_make_dirs(sx_err *e, const char *path)
{
    char *p;
    SX_TRY(sx_strdup(e, path, &p));
    int rc = SX_OK;
    for (char *s = p + 1; rc == SX_OK; s++) {
        if (*s && *s != '/') continue;
        char c = *s;
        *s = 0;
        if (mkdir(p, 0755) != 0 && errno != EEXIST) rc = sx_fail(e, SX_FAILED, "cannot make directory '%s': %s", p, strerror(errno));
        *s = c;
        if (!c) break;
    }
    if (rc == SX_OK && !sx_is_dir(path)) rc = sx_fail(e, SX_FAILED, "'%s' is not a directory", path);
    free(p);
    return rc;
}

int sx_join(sx_err *e, const char *dir, const char *name, char **out) { return sx_printf(e, out, "%s/%s", dir, name); }

double sx_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
