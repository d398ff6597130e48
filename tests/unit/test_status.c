/* test_status.c - error chain, formatter, log, cancel. */
#include "unit.h"

#include <sched.h>
#include <stdatomic.h>

#include "base/text.h"
#include "base/thread.h"

static void codes(void **state)
{
    (void)state;
    assert_string_equal(qx_status_text(QX_E_FORMAT), "malformed input");
    assert_int_equal(qx_status_exit_code(QX_OK), 0);
    assert_int_equal(qx_status_exit_code(QX_E_IO), 1);
    assert_int_equal(qx_status_exit_code(QX_E_USAGE), 2);
    assert_int_equal(qx_status_exit_code(QX_E_UNSUPPORTED), 3);
    assert_int_equal(qx_status_exit_code(QX_E_GATE), 4);
}

static void chain(void **state)
{
    qx_ctx *ctx = *state;
    assert_string_equal(qx_ctx_error(ctx), "");
    FAILS(qx_fail(ctx, QX_E_SHAPE, "block %d does not divide K=%lld", 32, 100ll), QX_E_SHAPE);
    FAILS(qx_note(ctx, QX_E_SHAPE, "weight '%s'", "w"), QX_E_SHAPE);
    assert_string_equal(qx_ctx_error(ctx), "weight 'w': block 32 does not divide K=100");
    qx_fail(ctx, QX_E_IO, "second"); /* the first was handled, or nothing would have run on */
    assert_string_equal(qx_ctx_error(ctx), "second");
    qx_fail(ctx, QX_E_IO, "outer: %.2000s", qx_ctx_error(ctx));
    assert_string_equal(qx_ctx_error(ctx), "outer: second");
    qx_ctx_clear_error(ctx);
    assert_string_equal(qx_ctx_error(ctx), "");
}

static void endless_chain(void **state)
{
    qx_ctx *ctx = *state;
    qx_fail(ctx, QX_E_FAIL, "core");
    for (int i = 0; i < 3000; i++) qx_note(ctx, QX_E_FAIL, "level %d", i);
    size_t n = strlen(qx_ctx_error(ctx));
    assert_true(n > 4000 && n < 10000);
    assert_string_equal(qx_ctx_error(ctx) + n - 3, "...");
    assert_int_equal(strncmp(qx_ctx_error(ctx), "level 2999: level 2998", 22), 0);
}

static void formats_like_printf(void **state)
{
    qx_ctx *ctx = *state;
    char want[512];
    qx_fail(ctx, QX_E_FAIL, "%5d|%-5d|%05d|%+d|%x|%c|%%|%zu|%lld|%ld|%hhu|%*d|%.3f|%10.2e|%s|%8s|%-8s|%.2s|%.*s",
            42, 42, 42, 42, 255u, 'q', (size_t)7, -9000000000ll, 12l, (unsigned char)200, 6, 3, 1.5, 12345.678, "abc", "abc", "abc",
            "abc", 1, "xyz");
    snprintf(want, sizeof want, "%5d|%-5d|%05d|%+d|%x|%c|%%|%zu|%lld|%ld|%hhu|%*d|%.3f|%10.2e|%s|%8s|%-8s|%.2s|%.*s",
             42, 42, 42, 42, 255u, 'q', (size_t)7, -9000000000ll, 12l, (unsigned char)200, 6, 3, 1.5, 12345.678, "abc", "abc", "abc",
             "abc", 1, "xyz");
    assert_string_equal(qx_ctx_error(ctx), want);
}

static void hostile_names(void **state)
{
    qx_ctx *ctx = *state;
    char *longname = malloc(1 << 20);
    memset(longname, 'n', (1 << 20) - 1);
    longname[(1 << 20) - 1] = '\0';
    qx_fail(ctx, QX_E_FORMAT, "node '%s' is bad", longname);
    assert_int_equal(strlen(qx_ctx_error(ctx)), strlen("node '' is bad") + 256 + 3);
    assert_string_equal(qx_ctx_error(ctx) + strlen(qx_ctx_error(ctx)) - 12, "n...' is bad");
    free(longname);
    qx_fail(ctx, QX_E_FORMAT, "node '%s'", "a\x1b[2Jb\nc\xff\xe2\x80\xae");
    assert_string_equal(qx_ctx_error(ctx), "node 'a\\x1b[2Jb\\nc\\xff\\u202e'");
    const char *volatile none = NULL;
    qx_fail(ctx, QX_E_FORMAT, "node '%s'", none);
    assert_string_equal(qx_ctx_error(ctx), "node '(null)'");
}

/* The piece that comes first fails, and only then the others do, each with a status and a note of its own. */
typedef struct racers { qx_ctx *ctx; atomic_llong first; atomic_bool failed; } racers;

static qx_status fail_in_turn(void *user, int64_t i)
{
    racers *r = user;
    long long none = -1;
    if (!atomic_compare_exchange_strong(&r->first, &none, i)) {
        while (!atomic_load(&r->failed)) sched_yield();
        qx_ctx_clear_error(r->ctx);
        qx_fail(r->ctx, QX_E_SHAPE, "piece %lld is late", (long long)i);
        return qx_note(r->ctx, QX_E_SHAPE, "late");
    }
    qx_fail(r->ctx, QX_E_FAIL, "handled");
    qx_fail(r->ctx, QX_E_IO, "piece %lld", (long long)i);
    atomic_store(&r->failed, true);
    usleep(2000); /* the others overwrite it now, if they can */
    return qx_note(r->ctx, QX_E_IO, "first");
}

static void first_failure_wins_across_threads(void **state)
{
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = 4});
    (void)state;
    for (int round = 0; round < 20; round++) {
        racers r = {.ctx = ctx, .first = -1};
        char want[64];
        qx_fail(ctx, QX_E_FAIL, "stale");
        FAILS(qx_parallel(ctx, 100, fail_in_turn, &r), QX_E_IO); /* the status of the message, not of who came back first */
        snprintf(want, sizeof want, "first: piece %lld", (long long)atomic_load(&r.first));
        assert_string_equal(qx_ctx_error(ctx), want);
    }
    qx_ctx_free(ctx);
}

/* A failure that its thread has handled is in nobody's way. */
typedef struct handlers { qx_ctx *ctx; atomic_int handled_by; atomic_bool gone_on; } handlers;

static qx_status fail_once_handled(void *user, int64_t i)
{
    handlers *h = user;
    int none = -1;
    const int me = qx_thread_index();
    if (atomic_compare_exchange_strong(&h->handled_by, &none, me)) return qx_fail(h->ctx, QX_E_IO, "handled"), QX_OK;
    if (atomic_load(&h->handled_by) == me) atomic_store(&h->gone_on, true);
    if (atomic_load(&h->handled_by) == me && i < 99) return QX_OK;
    while (!atomic_load(&h->gone_on)) sched_yield();
    return qx_fail(h->ctx, QX_E_SHAPE, "the real one");
}

static void handled_failures_stand_for_nothing(void **state)
{
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = 4});
    (void)state;
    for (int round = 0; round < 20; round++) {
        handlers h = {.ctx = ctx, .handled_by = -1};
        FAILS(qx_parallel(ctx, 100, fail_once_handled, &h), QX_E_SHAPE);
        assert_string_equal(qx_ctx_error(ctx), "the real one");
    }
    qx_ctx_free(ctx);
}

typedef struct seen { int calls; qx_log_level level; char text[64]; int64_t done; } seen;

static void on_log(void *user, qx_log_level level, const char *text)
{
    seen *s = user;
    s->calls++;
    s->level = level;
    snprintf(s->text, sizeof s->text, "%s", text);
}

static void on_progress(void *user, const char *stage, int64_t done, int64_t total)
{
    seen *s = user;
    assert_string_equal(stage, "write");
    assert_int_equal(total, 10);
    s->done = done;
}

static void sinks(void **state)
{
    (void)state;
    seen s = {0};
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.log = on_log, .progress = on_progress, .user = &s});
    qx_log(ctx, QX_LOG_INFO, "hello %d", 1);
    assert_string_equal(s.text, "hello 1");
    assert_int_equal(qx_ctx_warnings(ctx), 0);
    qx_warn(ctx, "careful");
    assert_int_equal(s.level, QX_LOG_WARN);
    assert_int_equal(qx_ctx_warnings(ctx), 1);
    int calls = s.calls;
    qx_warn(ctx, "careful"); /* counted, told once */
    assert_int_equal(s.calls, calls);
    assert_int_equal(qx_ctx_warnings(ctx), 2);
    qx_warn(ctx, "careful with %s", "x");
    assert_int_equal(s.calls, calls + 1);
    qx_progress(ctx, "write", 3, 10);
    assert_int_equal(s.done, 3);
    qx_ctx_free(ctx);
}

static qx_status count_piece(void *user, int64_t i)
{
    __atomic_fetch_add((int64_t *)user, i, __ATOMIC_RELAXED);
    return QX_OK;
}

static void cancel(void **state)
{
    (void)state;
    volatile int flag = 0;
    int64_t sum = 0;
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.cancel = &flag, .threads = 4});
    OK(qx_check_cancel(ctx));
    OK(qx_parallel(ctx, 1000, count_piece, &sum));
    assert_int_equal(sum, 499500);
    OK(qx_parallel(ctx, 0, count_piece, &sum));
    flag = 1;
    FAILS(qx_parallel(ctx, 1000, count_piece, &sum), QX_E_CANCELLED);
    assert_int_equal(sum, 499500);
    MESSAGE_HAS(ctx, "interrupted");
    qx_ctx_free(ctx);
}

static qx_status nested(void *user, int64_t i)
{
    int64_t sum = 0;
    qx_ctx *ctx = user;
    if (i == 5) return qx_fail(ctx, QX_E_NUMERIC, "five");
    return qx_parallel(ctx, 10, count_piece, &sum);
}

static void nested_runs_serially(void **state)
{
    FAILS(qx_parallel(*state, 20, nested, *state), QX_E_NUMERIC);
    MESSAGE_HAS(*state, "five");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(codes), TEST(chain), TEST(endless_chain), TEST(formats_like_printf), TEST(hostile_names),
        TEST(first_failure_wins_across_threads), TEST(handled_failures_stand_for_nothing),
        TEST(sinks), TEST(cancel), TEST(nested_runs_serially),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
