/* arena.c - objects that die together. Chunks double from 4 KiB to 1 MiB; a larger object gets a chunk of its own behind the
 * current one, so the rest of that stays in use. */
#include "base/mem.h"
#include "base/checked.h"

#include <stdio.h>
#include <string.h>

#define GRAIN 8u
#define FIRST_CHUNK 4096u
#define LAST_CHUNK (1u << 20)
#ifdef __SANITIZE_ADDRESS__
#define OWN_BLOCK_FROM 1u /* every object its own block: overruns are seen */
#else
#define OWN_BLOCK_FROM (LAST_CHUNK / 4)
#endif

typedef struct chunk { struct chunk *next; size_t used, cap; bool own; } chunk; /* own: of one object */
#define CHUNK_HEAD ((sizeof(chunk) + GRAIN - 1) / GRAIN * GRAIN)

struct qx_arena {
    qx_ctx *ctx;
    chunk *first; /* the one that is being filled */
    size_t next_cap, bytes;
    bool failed;
};

qx_status qx_arena_new(qx_ctx *ctx, qx_arena **out)
{
    QX_TRY(QX_NEW(ctx, out));
    (*out)->ctx = ctx;
    (*out)->next_cap = FIRST_CHUNK;
    return QX_OK;
}

void qx_arena_free(qx_arena *a)
{
    if (!a) return;
    for (chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        qx_free(a->ctx, c);
    }
    qx_free(a->ctx, a);
}

static chunk *chunk_new(qx_arena *a, size_t cap)
{
    void *p;
    if (qx_alloc(a->ctx, CHUNK_HEAD + cap, &p) != QX_OK) {
        a->failed = true;
        return NULL;
    }
    chunk *c = p;
    c->cap = cap;
    return c;
}

static void *own_block(qx_arena *a, size_t size)
{
    chunk *c = chunk_new(a, size);
    if (!c) return NULL;
    c->used = size;
    c->own = true;
    if (a->first) c->next = a->first->next, a->first->next = c;
    else a->first = c;
    a->bytes += size;
    return (char *)c + CHUNK_HEAD;
}

static bool refill(qx_arena *a, size_t size)
{
    while (a->next_cap < size) a->next_cap *= 2;
    chunk *c = chunk_new(a, a->next_cap - CHUNK_HEAD);
    if (!c) return false;
    c->next = a->first;
    a->first = c;
    if (a->next_cap < LAST_CHUNK) a->next_cap *= 2;
    return true;
}

void *qx_arena_alloc(qx_arena *a, size_t size)
{
    size_t padded;
    if (!qx_add_size(size, GRAIN - 1 + CHUNK_HEAD, &padded)) {
        qx_fail(a->ctx, QX_E_NOMEM, "%zu bytes are more than memory can hold", size);
        return NULL;
    }
    if (size >= OWN_BLOCK_FROM) return own_block(a, size);
    padded = (size + GRAIN - 1) / GRAIN * GRAIN;
    if (!padded) padded = GRAIN;
    if ((!a->first || a->first->cap - a->first->used < padded) && !refill(a, padded + CHUNK_HEAD)) return NULL;
    void *p = (char *)a->first + CHUNK_HEAD + a->first->used;
    a->first->used += padded;
    a->bytes += padded;
    return p;
}

void qx_arena_release(qx_arena *a, void *p)
{
    for (chunk **at = &a->first, *c; (c = *at); at = &c->next) {
        if (!c->own || (char *)c + CHUNK_HEAD != p) continue;
        *at = c->next;
        a->bytes -= c->used;
        qx_free(a->ctx, c);
        return;
    }
}

void *qx_arena_array(qx_arena *a, size_t count, size_t size)
{
    size_t bytes;
    if (qx_mul_size(count, size, &bytes)) return qx_arena_alloc(a, bytes);
    qx_fail(a->ctx, QX_E_NOMEM, "%zu elements of %zu bytes are more than memory can hold", count, size);
    return NULL;
}

qx_status qx_arena_grow(qx_arena *a, void **items, int64_t n, int64_t *cap, size_t size)
{
    enum { FIRST = 16 };
    if (n < *cap) return QX_OK;
    const size_t more = *cap ? 2 * (size_t)*cap : FIRST;
    void *p = qx_arena_array(a, more, size);
    if (!p) return QX_E_NOMEM;
    if (n) memcpy(p, *items, (size_t)n * size);
    *items = p;
    *cap = (int64_t)more;
    return QX_OK;
}

void *qx_arena_memdup(qx_arena *a, const void *p, size_t n)
{
    void *copy = qx_arena_alloc(a, n);
    if (copy && n) memcpy(copy, p, n);
    return copy;
}

char *qx_arena_strndup(qx_arena *a, const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = qx_arena_alloc(a, len + 1);
    if (copy) memcpy(copy, s, len);
    return copy;
}

char *qx_arena_strdup(qx_arena *a, const char *s)
{
    return qx_arena_strndup(a, s, strlen(s));
}

char *qx_arena_printf(qx_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *text = n < 0 ? NULL : qx_arena_alloc(a, (size_t)n + 1);
    if (text) vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return text;
}

qx_status qx_arena_status(const qx_arena *a)
{
    return a->failed ? qx_fail(a->ctx, QX_E_NOMEM, "out of memory: a part of %zu bytes could not grow", a->bytes) : QX_OK;
}

size_t qx_arena_bytes(const qx_arena *a)
{
    return a->bytes;
}

qx_ctx *qx_arena_ctx(const qx_arena *a)
{
    return a->ctx;
}
