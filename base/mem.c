/* mem.c - counted blocks and arenas.
 *
 * A block is calloc'ed with room for a header and for its alignment, so large zeroed blocks cost no page until they are
 * written. Under AddressSanitizer an arena gives every object its own block: an overrun inside an arena is then reported. */
#include "base/mem.h"
#include "base/checked.h"
#include "base/ctx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGN 64u
#define OVERHEAD (2 * ALIGN)
#if defined(__SANITIZE_ADDRESS__)
#define LARGE_PAGE SIZE_MAX /* every block from malloc: overruns are found */
#define AGAIN_LEAST SIZE_MAX
#else
#define LARGE_PAGE ((size_t)2 << 20)
#define AGAIN_LEAST ((size_t)64 << 10) /* below, malloc keeps the pages; above, it gives the top of its heap back */
#endif

typedef struct header { void *raw; size_t size; bool again; } header; /* again: kept when it is freed */

static header *header_of(void *ptr)
{
    return (header *)((char *)ptr - sizeof(header));
}

static void *place(void *raw, size_t size)
{
    uintptr_t at = ((uintptr_t)raw + sizeof(header) + ALIGN - 1) / ALIGN * ALIGN;
    header *h = header_of((void *)at);
    h->raw = raw;
    h->size = size;
    h->again = false;
    return (void *)at;
}

static qx_status no_memory(qx_ctx *ctx, size_t size)
{
    return qx_fail(ctx, QX_E_NOMEM, "out of memory: %zu bytes wanted, %zu in use", size, qx_mem_in_use(ctx));
}

static void raise(atomic_size_t *peak, size_t now)
{
    size_t was = atomic_load_explicit(peak, memory_order_relaxed);
    while (now > was && !atomic_compare_exchange_weak(peak, &was, now)) {}
}

qx_status qx_mem_reserve(qx_ctx *ctx, size_t size)
{
    size_t cap = ctx->opt.max_memory ? ctx->opt.max_memory : SIZE_MAX;
    if (qx_countdown(&ctx->alloc_fail) || size > PTRDIFF_MAX / 2) return no_memory(ctx, size);
    size_t old = atomic_fetch_add(&ctx->in_use, size);
    if (size > cap || old > cap - size) {
        qx_drop_spares(ctx);
        old = atomic_load(&ctx->in_use) - size;
    }
    if (size > cap || old > cap - size) {
        atomic_fetch_sub(&ctx->in_use, size);
        return qx_fail(ctx, QX_E_BUDGET, "%zu bytes wanted with %zu in use, but the memory limit is %zu bytes", size, old, cap);
    }
    raise(&ctx->peak, old + size);
    raise(&ctx->recent, old + size);
    return QX_OK;
}

void qx_mem_release(qx_ctx *ctx, size_t size)
{
    atomic_fetch_sub(&ctx->in_use, size);
}

/* Large blocks that are written at once (weights, activations) lie on large pages where the system has them: a fault for every 4
 * KiB costs more than clearing the memory, and products over many megabytes miss the address cache. They come from the kernel and
 * go back to it, so that packing hundreds of weights leaves no holes in the heap. raw NULL says so; the block begins where its
 * page does. */
static size_t large_bytes(size_t size) { return (size + OVERHEAD + 4095) / 4096 * 4096; }

static void *large_block(size_t size)
{
    size_t bytes = large_bytes(size), slack = LARGE_PAGE;
    char *at = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return NULL;
    size_t before = (LARGE_PAGE - (uintptr_t)at % LARGE_PAGE) % LARGE_PAGE;
    if (before) munmap(at, before);
    munmap(at + before + bytes, slack - before);
    at += before;
    madvise(at, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE); /* a hint: failure changes nothing */
    void *ptr = place(at, size);
    header_of(ptr)->raw = NULL;
    return ptr;
}

static void release(header *h)
{
    if (h->raw) free(h->raw);
    else munmap((void *)((uintptr_t)h / LARGE_PAGE * LARGE_PAGE), large_bytes(h->size));
}

static void *small_block(size_t size, bool zero)
{
    void *raw = zero ? calloc(1, size + OVERHEAD) : malloc(size + OVERHEAD);
    return raw ? place(raw, size) : NULL;
}

static qx_status get(qx_ctx *ctx, size_t size, bool zero, void **out)
{
    *out = NULL;
    QX_TRY(qx_mem_reserve(ctx, size));
    *out = !zero && size >= LARGE_PAGE ? large_block(size) : small_block(size, zero);
    if (!*out) {
        qx_mem_release(ctx, size);
        return no_memory(ctx, size);
    }
    return QX_OK;
}

qx_status qx_alloc(qx_ctx *ctx, size_t size, void **out)
{
    return get(ctx, size, true, out);
}

static qx_status get_array(qx_ctx *ctx, size_t count, size_t size, bool zero, void **out)
{
    size_t bytes;
    *out = NULL;
    if (!qx_mul_size(count, size, &bytes)) QX_FAIL(ctx, QX_E_NOMEM, "%zu elements of %zu bytes are more than memory can hold", count, size);
    return get(ctx, bytes, zero, out);
}

qx_status qx_alloc_array(qx_ctx *ctx, size_t count, size_t size, void **out)
{
    return get_array(ctx, count, size, true, out);
}

qx_status qx_alloc_raw_array(qx_ctx *ctx, size_t count, size_t size, void **out)
{
    return get_array(ctx, count, size, false, out);
}

qx_status qx_alloc_raw(qx_ctx *ctx, size_t size, void **out)
{
    return get(ctx, size, false, out);
}

/* ---- Blocks for the next run ---- */

static void *take_spare(qx_spares *s, size_t size)
{
    void *found = NULL;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->n && !found; i++) {
        const size_t has = header_of(s->block[i])->size;
        if (has < size || has > size + size / 4) continue;
        found = s->block[i];
        s->block[i] = s->block[--s->n];
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

static bool keep_spare(qx_spares *s, void *block)
{
    pthread_mutex_lock(&s->lock);
    const bool room = s->holders > 0 && s->n < QX_SPARES;
    if (room) s->block[s->n++] = block;
    pthread_mutex_unlock(&s->lock);
    return room;
}

static void free_now(qx_ctx *ctx, void *ptr)
{
    header *h = header_of(ptr);
    qx_mem_release(ctx, h->size);
    release(h);
}

void qx_drop_spares(qx_ctx *ctx)
{
    qx_spares *s = &ctx->spares;
    pthread_mutex_lock(&s->lock);
    while (s->n > 0) free_now(ctx, s->block[--s->n]);
    pthread_mutex_unlock(&s->lock);
}

void qx_hold_spares(qx_ctx *ctx)
{
    pthread_mutex_lock(&ctx->spares.lock);
    ctx->spares.holders++;
    pthread_mutex_unlock(&ctx->spares.lock);
}

void qx_let_spares_go(qx_ctx *ctx)
{
    pthread_mutex_lock(&ctx->spares.lock);
    const bool last = --ctx->spares.holders == 0;
    pthread_mutex_unlock(&ctx->spares.lock);
    if (last) qx_drop_spares(ctx);
}

qx_status qx_alloc_again(qx_ctx *ctx, size_t size, void **out)
{
    if (size < AGAIN_LEAST) return qx_alloc_raw(ctx, size, out);
    if ((*out = take_spare(&ctx->spares, size))) return QX_OK;
    QX_TRY(qx_alloc_raw(ctx, size + size / 16, out)); /* the next run's may be a little larger: caches that grow by a token */
    header_of(*out)->again = true;
    return QX_OK;
}

qx_status qx_regrow(qx_ctx *ctx, void **ptr, size_t old_size, size_t new_size)
{
    void *grown;
    QX_TRY(get(ctx, new_size, false, &grown));
    size_t kept = old_size < new_size ? old_size : new_size;
    if (*ptr && kept) memcpy(grown, *ptr, kept);
    if (!*ptr) kept = 0;
    memset((char *)grown + kept, 0, new_size - kept);
    qx_free(ctx, *ptr);
    *ptr = grown;
    return QX_OK;
}

qx_status qx_grow(qx_ctx *ctx, void **items, int64_t n, int64_t *cap, size_t size)
{
    if (n < *cap) return QX_OK;
    const int64_t more = *cap ? 2 * *cap : 16;
    QX_TRY(qx_regrow(ctx, items, (size_t)*cap * size, (size_t)more * size));
    *cap = more;
    return QX_OK;
}

void qx_free(qx_ctx *ctx, void *ptr)
{
    if (!ptr || (header_of(ptr)->again && keep_spare(&ctx->spares, ptr))) return;
    free_now(ctx, ptr);
}

uint64_t qx_machine_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

uint64_t qx_process_peak(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && !kib && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu", &kib) != 1) kib = 0;
    if (f) fclose(f);
    return (uint64_t)kib * 1024;
}

size_t qx_mem_in_use(const qx_ctx *ctx)
{
    return atomic_load(&ctx->in_use);
}

size_t qx_mem_peak(const qx_ctx *ctx)
{
    return atomic_load(&ctx->peak);
}

size_t qx_mem_take_peak(qx_ctx *ctx)
{
    return atomic_exchange(&ctx->recent, qx_mem_in_use(ctx));
}

void qx_mem_fail_at(qx_ctx *ctx, int64_t n)
{
    atomic_store(&ctx->alloc_fail, n);
}

int64_t qx_mem_fail_left(const qx_ctx *ctx)
{
    return atomic_load(&ctx->alloc_fail);
}
