/* mem.h - the only place that calls malloc. Every block is counted against ctx's max_memory, and tests can make the
 * n-th allocation fail (qx_mem_fail_at). Arena objects are never freed one by one. */
#ifndef QX_BASE_MEM_H
#define QX_BASE_MEM_H

#include "base/status.h"

/* Zeroed, 64-byte aligned block of `size` bytes (size 0 gives a valid pointer). *out is NULL on failure. Free with qx_free. */
qx_status qx_alloc(qx_ctx *ctx, size_t size, void **out);
/* Same with count * size, checked for overflow. */
qx_status qx_alloc_array(qx_ctx *ctx, size_t count, size_t size, void **out);
/* Not zeroed: for tiles and activations. */
qx_status qx_alloc_raw(qx_ctx *ctx, size_t size, void **out);
qx_status qx_alloc_raw_array(qx_ctx *ctx, size_t count, size_t size, void **out); /* the product is checked */
/* Not zeroed, for what is asked for anew again and again and given away (the outputs of a run): from 64 KiB on a block is kept when it is
 * freed, for the next such call of about its size, so that the kernel need not clear its pages each time. Kept blocks count as in
 * use, and go when the memory limit needs them. They are kept while somebody holds them; the last who lets go frees them. */
qx_status qx_alloc_again(qx_ctx *ctx, size_t size, void **out);
void qx_hold_spares(qx_ctx *ctx);
void qx_let_spares_go(qx_ctx *ctx);
void qx_drop_spares(qx_ctx *ctx); /* now, whoever holds them */
/* Grows *ptr (which may be NULL) to new_size bytes; new bytes are zero; *ptr is unchanged on failure. */
qx_status qx_regrow(qx_ctx *ctx, void **ptr, size_t old_size, size_t new_size);
/* Room for one more behind the n elements of a list: when n == *cap, *items grows to twice as many. */
qx_status qx_grow(qx_ctx *ctx, void **items, int64_t n, int64_t *cap, size_t size);
void qx_free(qx_ctx *ctx, void *ptr);
/* Bytes of memory that the machine has; 0: not known. */
uint64_t qx_machine_memory(void);
/* The most memory, in bytes, that this process has had in use since its program started (getrusage counts what its parent had
 * when it forked); 0: not known. */
uint64_t qx_process_peak(void);
size_t qx_mem_in_use(const qx_ctx *ctx);
size_t qx_mem_peak(const qx_ctx *ctx);
/* The most that was in use since the last call (at first: since the start). Not while other threads allocate. */
size_t qx_mem_take_peak(qx_ctx *ctx);
/* Test hook: the n-th allocation from now (1-based) fails with QX_E_NOMEM; 0 switches it off. */
void qx_mem_fail_at(qx_ctx *ctx, int64_t n);
/* Allocations until it fails; 0 or less: it has failed (or was off). */
int64_t qx_mem_fail_left(const qx_ctx *ctx);

#define QX_NEW(ctx, ptr) qx_alloc((ctx), sizeof **(ptr), (void **)(ptr))
#define QX_NEW_ARRAY(ctx, n, ptr) qx_alloc_array((ctx), (size_t)(n), sizeof **(ptr), (void **)(ptr))

typedef struct qx_arena qx_arena;
qx_status qx_arena_new(qx_ctx *ctx, qx_arena **out);
void qx_arena_free(qx_arena *a);
/* Zeroed and 8-byte aligned; NULL when out of memory (the failure is recorded in the context). */
void *qx_arena_alloc(qx_arena *a, size_t size);
/* Gives a large object (256 KiB and more) back before its time; smaller ones stay until the arena goes. */
void qx_arena_release(qx_arena *a, void *p);
void *qx_arena_array(qx_arena *a, size_t count, size_t size);
/* The same in an arena, where the old array stays. */
qx_status qx_arena_grow(qx_arena *a, void **items, int64_t n, int64_t *cap, size_t size);
char *qx_arena_strndup(qx_arena *a, const char *s, size_t n);
char *qx_arena_strdup(qx_arena *a, const char *s);
char *qx_arena_printf(qx_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *qx_arena_memdup(qx_arena *a, const void *p, size_t n);
size_t qx_arena_bytes(const qx_arena *a);
/* QX_E_NOMEM once an allocation in the arena has failed: one check for the many copies of names behind which a NULL is no crash. */
qx_status qx_arena_status(const qx_arena *a);
qx_ctx *qx_arena_ctx(const qx_arena *a);

#endif
