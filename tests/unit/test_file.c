/* test_file.c - exact reads, and the promise of output sets: all the new files, or all the old ones, and no litter. */
#include "tmp_dir.h"
#include "base/spool.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static tmp_dir dir;
static const char *in_dir(const char *name) { return tmp_path(&dir, name); }
static void put_text(const char *path, const char *text) { put_file(path, text, strlen(text)); }

static void assert_file(qx_ctx *ctx, const char *path, const char *want)
{
    char *text;
    OK(qx_file_slurp(ctx, path, 1000, &text, NULL));
    assert_string_equal(text, want);
    qx_free(ctx, text);
}

static int setup(void **state) { return tmp_make(&dir, "/tmp") ? -1 : with_ctx(state); }
static int teardown(void **state) { return tmp_remove(&dir) ? -1 : free_ctx(state); }

static void reading(void **state)
{
    qx_ctx *ctx = *state;
    qx_file *f;
    char b[8] = "";
    const uint8_t *map;
    put_text(in_dir("a"), "hello");
    OK(qx_file_open(ctx, in_dir("a"), &f));
    assert_int_equal(qx_file_size(f), 5);
    OK(qx_file_read(f, 1, 4, b));
    assert_string_equal(b, "ello");
    OK(qx_file_read(f, 5, 0, b));
    FAILS(qx_file_read(f, 3, 4, b), QX_E_IO);
    MESSAGE_HAS(ctx, "4 bytes wanted at offset 3, but only 2 are there");
    FAILS(qx_file_read(f, -1, 4, b), QX_E_IO);
    FAILS(qx_file_read(f, INT64_MAX - 1, 4, b), QX_E_IO);
    OK(qx_file_map(f, &map));
    assert_memory_equal(map, "hello", 5);
    qx_io_fail_at(ctx, QX_IO_READ, 1);
    FAILS(qx_file_read(f, 0, 1, b), QX_E_IO);
    OK(qx_file_read(f, 0, 1, b));
    qx_file_close(f);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void not_files(void **state)
{
    qx_ctx *ctx = *state;
    qx_file *f;
    char *text;
    const uint8_t *map;
    FAILS(qx_file_open(ctx, in_dir("none"), &f), QX_E_IO);
    MESSAGE_HAS(ctx, "none': cannot open: No such file");
    FAILS(qx_file_open(ctx, dir.path, &f), QX_E_IO);
    MESSAGE_HAS(ctx, "is a directory");
    FAILS(qx_file_open(ctx, "/dev/zero", &f), QX_E_IO);
    assert_int_equal(mkfifo(in_dir("pipe"), 0600), 0);
    FAILS(qx_file_open(ctx, in_dir("pipe"), &f), QX_E_IO); /* and does not wait for a writer */
    put_text(in_dir("empty"), "");
    OK(qx_file_open(ctx, in_dir("empty"), &f));
    OK(qx_file_map(f, &map));
    assert_non_null(map);
    qx_file_close(f);
    put_text(in_dir("ten"), "0123456789");
    FAILS(qx_file_slurp(ctx, in_dir("ten"), 9, &text, NULL), QX_E_FORMAT);
    MESSAGE_HAS(ctx, "has 10 bytes; at most 9");
    OK(qx_file_slurp(ctx, in_dir("ten"), 10, &text, NULL));
    qx_free(ctx, text);
}

/* Writes "data" and "model" as one set; returns the first failure. */
static qx_status write_pair(qx_ctx *ctx, const char *text)
{
    qx_outset *s = NULL;
    qx_out *data, *model;
    qx_status st;
    QX_TRY_GOTO(st, qx_outset_new(ctx, &s));
    QX_TRY_GOTO(st, qx_out_open(s, in_dir("data"), NULL, 0, &data));
    QX_TRY_GOTO(st, qx_out_open(s, in_dir("model"), NULL, 0, &model));
    QX_TRY_GOTO(st, qx_out_truncate(data, 4));
    QX_TRY_GOTO(st, qx_out_write_at(data, 2, text + 2, strlen(text) - 2));
    QX_TRY_GOTO(st, qx_out_write_at(data, 0, text, 2));
    QX_TRY_GOTO(st, qx_out_write_at(model, 0, text, strlen(text)));
    QX_TRY_GOTO(st, qx_outset_commit(s));
done:
    qx_outset_free(s);
    return st;
}

static void commit_and_abandon(void **state)
{
    qx_ctx *ctx = *state;
    qx_outset *s;
    qx_out *o;
    OK(write_pair(ctx, "first"));
    assert_file(ctx, in_dir("data"), "first");
    assert_int_equal(tmp_entries(&dir), 2);
    OK(qx_outset_new(ctx, &s));
    OK(qx_out_open(s, in_dir("data"), NULL, 0, &o));
    OK(qx_out_write_at(o, 0, "x", 1));
    assert_int_equal(access(qx_out_temp_path(o), R_OK), 0);
    qx_outset_free(s);
    assert_file(ctx, in_dir("data"), "first");
    assert_int_equal(tmp_entries(&dir), 2);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void refused_targets(void **state)
{
    qx_ctx *ctx = *state;
    qx_outset *s;
    qx_out *o;
    qx_file *in;
    put_text(in_dir("in"), "model");
    assert_int_equal(symlink(in_dir("in"), in_dir("alias")), 0);
    assert_int_equal(link(in_dir("in"), in_dir("hard")), 0);
    OK(qx_file_open(ctx, in_dir("in"), &in));
    OK(qx_outset_new(ctx, &s));
    FAILS(qx_out_open(s, in_dir("in"), &in, 1, &o), QX_E_USAGE);
    FAILS(qx_out_open(s, in_dir("alias"), &in, 1, &o), QX_E_USAGE);
    FAILS(qx_out_open(s, in_dir("hard"), &in, 1, &o), QX_E_USAGE);
    MESSAGE_HAS(ctx, "is the same file as input");
    FAILS(qx_out_open(s, dir.path, &in, 1, &o), QX_E_IO);
    FAILS(qx_out_open(s, "/dev/null", &in, 1, &o), QX_E_IO);
    FAILS(qx_out_open(s, in_dir("no/such/folder"), &in, 1, &o), QX_E_IO);
    qx_outset_free(s);
    qx_file_close(in);
    assert_file(ctx, in_dir("in"), "model");
}

static void copying(void **state)
{
    qx_ctx *ctx = *state;
    qx_outset *s;
    qx_out *o;
    qx_file *in;
    put_text(in_dir("in"), "0123456789");
    OK(qx_file_open(ctx, in_dir("in"), &in));
    OK(qx_outset_new(ctx, &s));
    OK(qx_out_open(s, in_dir("out"), &in, 1, &o));
    OK(qx_out_copy_at(o, 3, in, 5, 5));
    OK(qx_out_copy_at(o, 0, in, 0, 3));
    FAILS(qx_out_copy_at(o, 0, in, 6, 5), QX_E_IO);
    MESSAGE_HAS(ctx, "cannot copy 5 bytes at offset 6 of 10 bytes");
    OK(qx_outset_commit(s));
    qx_outset_free(s);
    qx_file_close(in);
    assert_file(ctx, in_dir("out"), "01256789");
}

static void every_fault_keeps_the_old(void **state)
{
    qx_ctx *ctx = *state;
    OK(write_pair(ctx, "the old"));
    for (int kind = QX_IO_WRITE; kind <= QX_IO_RENAME; kind++) {
        int n = 1;
        for (;; n++) {
            qx_io_fail_at(ctx, (qx_io_kind)kind, n);
            qx_status st = write_pair(ctx, "the new");
            qx_io_fail_at(ctx, (qx_io_kind)kind, 0);
            if (st == QX_OK) break;
            assert_int_equal(st, QX_E_IO);
            assert_file(ctx, in_dir("data"), "the old");
            assert_file(ctx, in_dir("model"), "the old");
            assert_int_equal(tmp_entries(&dir), 2);
            assert_int_equal(qx_mem_in_use(ctx), 0);
        }
        assert_true(n > 2);
        assert_file(ctx, in_dir("model"), "the new");
        OK(write_pair(ctx, "the old"));
    }
    for (int n = 1;; n++) {
        qx_mem_fail_at(ctx, n);
        qx_status st = write_pair(ctx, "the new");
        qx_mem_fail_at(ctx, 0);
        if (st == QX_OK) break;
        assert_int_equal(st, QX_E_NOMEM);
        assert_file(ctx, in_dir("model"), "the old");
        assert_int_equal(tmp_entries(&dir), 2);
        assert_int_equal(qx_mem_in_use(ctx), 0);
    }
}

/* A process that is killed while it writes leaves its temporaries; the next one for the same target takes them away. */
static void litter_of_the_killed_is_removed(void **state)
{
    qx_ctx *ctx = *state;
    OK(write_pair(ctx, "the old"));
    pid_t child = fork();
    if (child == 0) {
        qx_outset *s;
        qx_out *o;
        if (qx_outset_new(ctx, &s) == QX_OK && qx_out_open(s, in_dir("data"), NULL, 0, &o) == QX_OK) qx_out_write_at(o, 0, "half", 4);
        raise(SIGKILL);
    }
    int how;
    waitpid(child, &how, 0);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_file(ctx, in_dir("data"), "the old");
    assert_int_equal(tmp_entries(&dir), 3);
    OK(write_pair(ctx, "the new"));
    assert_file(ctx, in_dir("data"), "the new");
    assert_int_equal(tmp_entries(&dir), 2);
}

static void the_living_are_left_alone(void **state)
{
    qx_ctx *ctx = *state;
    qx_outset *s;
    qx_out *o;
    OK(qx_outset_new(ctx, &s));
    OK(qx_out_open(s, in_dir("data"), NULL, 0, &o));
    OK(qx_out_write_at(o, 0, "slow", 4));
    OK(write_pair(ctx, "quick"));
    OK(qx_outset_commit(s));
    qx_outset_free(s);
    assert_file(ctx, in_dir("data"), "slow");
    assert_file(ctx, in_dir("model"), "quick");
}

static void spooling(void **state)
{
    qx_ctx *ctx = *state;
    qx_spool *s;
    qx_file *f;
    char b[8] = "";
    OK(qx_spool_open(ctx, "a test", NULL, false, &s));
    OK(qx_spool_put(s, "one", 3));
    OK(qx_spool_put(s, "three", 5));
    qx_spool_rewind(s);
    OK(qx_spool_get(s, b, 3));
    assert_memory_equal(b, "one", 3);
    OK(qx_spool_get(s, b, 4));
    assert_memory_equal(b, "thre", 4);
    FAILS(qx_spool_get(s, b, 2), QX_E_IO);
    MESSAGE_HAS(ctx, "a test in /var/tmp: 1 of 2 bytes read at 8: end of file");
    qx_io_fail_at(ctx, QX_IO_WRITE, 1);
    FAILS(qx_spool_put(s, "x", 1), QX_E_IO);
    OK(qx_spool_to_file(s, &f));
    assert_int_equal(qx_file_size(f), 8);
    OK(qx_file_read(f, 3, 5, b));
    assert_memory_equal(b, "three", 5);
    qx_file_close(f);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void recent_peak(void **state)
{
    qx_ctx *ctx = *state;
    void *a, *b;
    OK(qx_alloc(ctx, 1000, &a));
    OK(qx_alloc(ctx, 5000, &b));
    qx_free(ctx, b);
    assert_true(qx_mem_take_peak(ctx) >= 6000);
    assert_true(qx_mem_take_peak(ctx) < 6000); /* since then: what is still there */
    assert_true(qx_mem_peak(ctx) >= 6000);
    qx_free(ctx, a);
}

#define FILES(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILES(reading), FILES(not_files), FILES(commit_and_abandon), FILES(refused_targets), FILES(copying),
        FILES(every_fault_keeps_the_old), FILES(litter_of_the_killed_is_removed), FILES(the_living_are_left_alone), FILES(spooling),
        FILES(recent_peak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
