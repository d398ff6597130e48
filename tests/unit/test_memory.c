/* test_memory.c - counted blocks, arenas, buffers, checked arithmetic, and what they do when memory ends. */
#include "unit.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/map.h"
#include "base/mem.h"

static void arithmetic(void **state)
{
    (void)state;
    int64_t v = 7;
    size_t z = 7;
    assert_true(qx_add_i64(INT64_MAX - 1, 1, &v) && v == INT64_MAX);
    v = 7;
    assert_false(qx_add_i64(INT64_MAX, 1, &v));
    assert_false(qx_sub_i64(INT64_MIN, 1, &v));
    assert_false(qx_mul_i64(INT64_MAX, 2, &v));
    assert_false(qx_mul_i64(INT64_MIN, -1, &v));
    assert_false(qx_add_size(SIZE_MAX, 1, &z));
    assert_false(qx_mul_size(SIZE_MAX / 2 + 1, 2, &z));
    assert_true(qx_mul_size(0, SIZE_MAX, &z) && z == 0);
}

static void dims(void **state)
{
    (void)state;
    int64_t n = 7;
    assert_true(qx_dims_product(NULL, 0, &n) && n == 1);
    assert_true(qx_dims_product((int64_t[]){3, 0, 5}, 3, &n) && n == 0);
    assert_true(qx_dims_product((int64_t[]){3, 4, 5}, 3, &n) && n == 60);
    n = 7;
    assert_false(qx_dims_product((int64_t[]){3, -1}, 2, &n));
    assert_false(qx_dims_product((int64_t[]){1ll << 40, 1ll << 40}, 2, &n));
    assert_false(qx_dims_product((int64_t[]){1ll << 40, 1ll << 40, 0}, 3, &n));
}

static void blocks(void **state)
{
    qx_ctx *ctx = *state;
    unsigned char *p;
    void *none;
    OK(qx_alloc(ctx, 1000, (void **)&p));
    assert_int_equal((uintptr_t)p % 64, 0);
    for (int i = 0; i < 1000; i++) assert_int_equal(p[i], 0);
    assert_int_equal(qx_mem_in_use(ctx), 1000);
    memset(p, 5, 1000);
    OK(qx_regrow(ctx, (void **)&p, 1000, 5000));
    assert_int_equal((uintptr_t)p % 64, 0);
    assert_true(p[999] == 5 && p[1000] == 0 && p[4999] == 0);
    assert_int_equal(qx_mem_in_use(ctx), 5000);
    assert_int_equal(qx_mem_peak(ctx), 6000);
    OK(qx_alloc(ctx, 0, &none));
    assert_non_null(none);
    qx_free(ctx, none);
    qx_free(ctx, p);
    qx_free(ctx, NULL);
    FAILS(qx_alloc_array(ctx, SIZE_MAX / 4, 8, &none), QX_E_NOMEM);
    FAILS(qx_alloc(ctx, SIZE_MAX - 8, &none), QX_E_NOMEM);
    FAILS(qx_alloc(ctx, SIZE_MAX / 2, &none), QX_E_NOMEM);
    assert_null(none);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void budget(void **state)
{
    (void)state;
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.max_memory = 1 << 20});
    void *a, *b;
    OK(qx_alloc(ctx, 1 << 19, &a));
    OK(qx_alloc(ctx, 1 << 19, &b));
    qx_free(ctx, b);
    FAILS(qx_alloc(ctx, (1 << 19) + 1, &b), QX_E_BUDGET);
    MESSAGE_HAS(ctx, "524289 bytes wanted with 524288 in use, but the memory limit is 1048576 bytes");
    qx_free(ctx, a);
    qx_ctx_free(ctx);
}

/* A block comes back when its size is asked for again, and goes when others need its memory. Small ones are not kept. */
static void kept_for_the_next_run(void **state)
{
#ifndef __SANITIZE_ADDRESS__ /* there no block is kept, so that a late use is found */
    enum { LARGE = 6 << 20 };
    (void)state;
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.max_memory = 16 << 20});
    void *a, *b, *c;
    qx_hold_spares(ctx);
    OK(qx_alloc_again(ctx, LARGE, &a));
    memset(a, 1, LARGE);
    const size_t one = qx_mem_in_use(ctx);
    qx_free(ctx, a);
    assert_int_equal(qx_mem_in_use(ctx), one);
    OK(qx_alloc_again(ctx, LARGE + 4096, &b)); /* a row more */
    assert_ptr_equal(a, b);
    OK(qx_alloc_again(ctx, LARGE, &c));
    assert_ptr_not_equal(b, c);
    qx_free(ctx, b);
    qx_free(ctx, c);
    assert_int_equal(qx_mem_in_use(ctx), 2 * one);
    OK(qx_alloc_raw(ctx, 12 << 20, &a)); /* the limit does not count what is only kept */
    assert_int_equal(qx_mem_in_use(ctx), 12 << 20);
    qx_free(ctx, a);
    OK(qx_alloc_again(ctx, 1024, &a));
    qx_free(ctx, a);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    OK(qx_alloc_again(ctx, LARGE, &a));
    qx_free(ctx, a);
    qx_drop_spares(ctx);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    OK(qx_alloc_again(ctx, 100 << 10, &a)); /* a layer's cache: too small for pages of its own */
    qx_free(ctx, a);
    OK(qx_alloc_again(ctx, 101 << 10, &b));
    assert_ptr_equal(a, b);
    qx_free(ctx, b);
    assert_true(qx_mem_in_use(ctx) > 0);
    qx_let_spares_go(ctx);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    OK(qx_alloc_again(ctx, LARGE, &a)); /* nobody holds any */
    qx_free(ctx, a);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
#else
    (void)state;
    skip();
#endif
}

static void arena(void **state)
{
    qx_ctx *ctx = *state;
    qx_arena *a;
    OK(qx_arena_new(ctx, &a));
    unsigned char *prev[2000];
    for (int i = 0; i < 2000; i++) {
        prev[i] = qx_arena_alloc(a, (size_t)i);
        assert_int_equal((uintptr_t)prev[i] % 8, 0);
        for (int k = 0; k < i; k++) assert_int_equal(prev[i][k], 0);
        memset(prev[i], i & 255, (size_t)i);
    }
    unsigned char *large = qx_arena_array(a, 1000, 5000);
    memset(large, 1, 5000000);
    for (int i = 1; i < 2000; i++) assert_true(prev[i][0] == (i & 255) && prev[i][i - 1] == (i & 255));
    assert_string_equal(qx_arena_printf(a, "%s-%d", "x", 5), "x-5");
    assert_string_equal(qx_arena_strndup(a, "hello", 3), "hel");
    assert_string_equal(qx_arena_strdup(a, "hello"), "hello");
    assert_null(qx_arena_array(a, SIZE_MAX / 2, 3));
    int *list = NULL;
    int64_t cap = 0;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(qx_arena_grow(a, (void **)&list, i, &cap, sizeof *list), QX_OK);
        assert_true(cap > i && cap <= 2 * i + 16);
        list[i] = i;
    }
    for (int i = 0; i < 1000; i++) assert_int_equal(list[i], i);
    assert_null(qx_arena_alloc(a, SIZE_MAX));
    assert_true(qx_arena_bytes(a) >= 5000000 + 1999000);
    assert_ptr_equal(qx_arena_ctx(a), ctx);
    qx_arena_free(a);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

/* Large objects go at once, small ones (the first of a chunk among them) with the arena, and what is left is untouched. */
static void released(void **state)
{
    enum { LARGE = 1 << 20 };
    qx_ctx *ctx = *state;
    qx_arena *a;
    OK(qx_arena_new(ctx, &a));
    char *first = qx_arena_strdup(a, "first"), *large[3];
    for (int i = 0; i < 3; i++) large[i] = memset(qx_arena_alloc(a, LARGE), i, LARGE);
    const size_t before = qx_mem_in_use(ctx);
    qx_arena_release(a, large[1]);
    assert_true(qx_mem_in_use(ctx) <= before - LARGE);
    qx_arena_release(a, NULL);
    qx_arena_release(a, first + 1);
#ifndef __SANITIZE_ADDRESS__ /* there every object is a block of its own */
    qx_arena_release(a, first);
    assert_string_equal(first, "first");
#endif
    assert_true(large[0][LARGE - 1] == 0 && large[2][0] == 2);
    assert_non_null(qx_arena_strdup(a, "more"));
    qx_arena_free(a);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void buffer(void **state)
{
    qx_ctx *ctx = *state;
    qx_buf b = QX_BUF_INIT(ctx);
    void *at;
    for (int i = 0; i < 1000; i++) OK(qx_buf_printf(&b, "%d,", i));
    assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strlen(b.data), b.len);
    OK(qx_buf_extend(&b, 5, &at));
    memcpy(at, "abcde", 5);
    OK(qx_buf_put(&b, "\0f", 2));
    assert_memory_equal(b.data + b.len - 7, "abcde\0f", 8);
    qx_buf_clear(&b);
    assert_int_equal(b.len, 0);
    FAILS(qx_buf_extend(&b, SIZE_MAX - 3, &at), QX_E_NOMEM);
    qx_buf_free(&b);
    qx_buf_free(&b);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

/* Something that touches every container; must give back everything wherever it is stopped. */
static qx_status little_job(qx_ctx *ctx)
{
    qx_map *m = NULL;
    qx_strings *s = NULL;
    qx_buf b = QX_BUF_INIT(ctx);
    qx_status st = qx_map_new(ctx, &m);
    for (int i = 0; st == QX_OK && i < 40; i++) {
        qx_buf_clear(&b);
        st = qx_buf_printf(&b, "a rather long key, so that the buffer and the arena must grow now and then: %0100d", i);
        if (st == QX_OK) st = qx_map_put(m, b.data, ctx);
    }
    if (st == QX_OK) st = qx_strings_new(ctx, &s);
    if (st == QX_OK && !qx_intern(s, "text")) st = QX_E_NOMEM;
    qx_strings_free(s);
    qx_map_free(m);
    qx_buf_free(&b);
    return st;
}

static void every_allocation_may_fail(void **state)
{
    qx_ctx *ctx = *state;
    int n = 1;
    for (;; n++) {
        qx_mem_fail_at(ctx, n);
        qx_status st = little_job(ctx);
        assert_int_equal(qx_mem_in_use(ctx), 0);
        if (st == QX_OK) break;
        assert_int_equal(st, QX_E_NOMEM);
        MESSAGE_HAS(ctx, "out of memory");
    }
    assert_true(n > 8);
    qx_mem_fail_at(ctx, 0);
    OK(little_job(ctx));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(arithmetic), TEST(dims), TEST(blocks), TEST(budget), TEST(kept_for_the_next_run), TEST(arena), TEST(released), TEST(buffer),
        TEST(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
