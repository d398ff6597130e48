/* test_job.c - a whole quantize job under faults: every allocation, read, write, fsync and rename fails in its turn, and the
 * process is killed at random moments. Each time: a clean error, all memory given back, and the old output or the new one. */
#include "../unit/unit.h"
#include "base/file.h"
#include "base/thread.h"
#include "passes/settings.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define MODEL TEST_SOURCE_DIR "/tests/data/mlp/model.onnx"
#define SAMPLES TEST_SOURCE_DIR "/tests/data/mlp/calib.npz"

static char dir[64];

static const char *in_dir(const char *name)
{
    static char paths[4][512];
    static int next;
    char *p = paths[next++ & 3];
    snprintf(p, sizeof paths[0], "%s/%s", dir, name);
    return p;
}

static void clear_dir(void)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlink(in_dir(e->d_name));
    if (d) closedir(d);
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/qonnx-test-faults-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    clear_dir();
    return rmdir(dir);
}

static int entries(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

typedef struct job { const char *passes; bool external; int threads; } job;

static qx_status set_all(qx_job_args *a, const job *j)
{
    QX_TRY(qx_job_args_set(a, "output", in_dir("out.onnx")));
    QX_TRY(qx_job_args_set(a, "passes", j->passes));
    QX_TRY(qx_job_args_set(a, "calib", SAMPLES));
    QX_TRY(qx_job_args_set(a, "force", "1"));
    return j->external ? qx_job_args_set(a, "external-data", "1") : QX_OK;
}

/* One job in a context of its own. `arm` sets the fault; memory must be back before the context goes. */
static qx_status run_job(const job *j, void (*arm)(qx_ctx *, int64_t), int64_t n)
{
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = j->threads});
    qx_job_args *a = NULL;
    qx_report *r = NULL;
    const qx_quantize_options *given;
    qx_status st = qx_job_args_new(ctx, &a);
    if (st == QX_OK) st = set_all(a, j);
    if (st == QX_OK) st = qx_job_args_options(a, &given);
    if (st == QX_OK) {
        qx_quantize_options opt = *given;
        opt.input = MODEL;
        if (arm) arm(ctx, n);
        st = qx_report_new(ctx, &r);
        if (st == QX_OK) st = qx_quantize_file(ctx, &opt, r);
        qx_mem_fail_at(ctx, 0);
    }
    if (st != QX_OK && !*qx_ctx_error(ctx)) fail_msg("status %d without a message", (int)st);
    qx_report_free(r);
    qx_job_args_free(a);
    if (qx_mem_in_use(ctx)) fail_msg("%zu bytes not given back after fault %lld: %s", qx_mem_in_use(ctx), (long long)n, qx_ctx_error(ctx));
    qx_ctx_free(ctx);
    return st;
}

typedef struct snapshot { char *model, *data; size_t model_len, data_len; } snapshot;

static void take(qx_ctx *ctx, snapshot *s)
{
    *s = (snapshot){0};
    if (access(in_dir("out.onnx"), F_OK) == 0) OK(qx_file_slurp(ctx, in_dir("out.onnx"), 1 << 24, &s->model, &s->model_len));
    if (access(in_dir("out.onnx.data"), F_OK) == 0) OK(qx_file_slurp(ctx, in_dir("out.onnx.data"), 1 << 24, &s->data, &s->data_len));
}

static void drop(qx_ctx *ctx, snapshot *s)
{
    qx_free(ctx, s->model);
    qx_free(ctx, s->data);
}

static bool equal(const snapshot *a, const snapshot *b)
{
    return a->model_len == b->model_len && a->data_len == b->data_len && !a->model == !b->model && !a->data == !b->data
        && (!a->model || memcmp(a->model, b->model, a->model_len) == 0) && (!a->data || memcmp(a->data, b->data, a->data_len) == 0);
}

static void arm_memory(qx_ctx *ctx, int64_t n) { qx_mem_fail_at(ctx, n); }
static void arm_read(qx_ctx *ctx, int64_t n) { qx_io_fail_at(ctx, QX_IO_READ, n); }
static void arm_write(qx_ctx *ctx, int64_t n) { qx_io_fail_at(ctx, QX_IO_WRITE, n); }
static void arm_fsync(qx_ctx *ctx, int64_t n) { qx_io_fail_at(ctx, QX_IO_FSYNC, n); }
static void arm_rename(qx_ctx *ctx, int64_t n) { qx_io_fail_at(ctx, QX_IO_RENAME, n); }

/* The output before is that of another pass, so old and new differ. Returns how many faults there were to try. */
static int every_fault(void (*arm)(qx_ctx *, int64_t), const job *new_job, qx_status code)
{
    const job old_job = {"int8-weights", new_job->external, 1};
    qx_ctx *ctx = qx_ctx_new(NULL);
    snapshot old, now;
    int n = 1, files;
    clear_dir();
    OK(run_job(&old_job, NULL, 0));
    take(ctx, &old);
    files = entries();
    for (;; n++) {
        qx_status st = run_job(new_job, arm, n);
        take(ctx, &now);
        if (st == QX_OK) break;
        if (st != code) fail_msg("fault %d gave status %d (%s)", n, (int)st, qx_status_text(st));
        if (!equal(&old, &now)) fail_msg("fault %d left neither the old output nor the new one", n);
        if (entries() != files) fail_msg("fault %d left %d files, not %d", n, entries(), files);
        drop(ctx, &now);
    }
    assert_false(equal(&old, &now));
    drop(ctx, &old);
    drop(ctx, &now);
    qx_ctx_free(ctx);
    return n - 1;
}

static const job weights = {"int4(block=32)", true, 1}, activations = {"int8", false, 1};

static void every_allocation(void **state)
{
    (void)state;
    assert_true(every_fault(arm_memory, &weights, QX_E_NOMEM) > 100);
    assert_true(every_fault(arm_memory, &activations, QX_E_NOMEM) > 100);
}

static void every_file_operation(void **state)
{
    (void)state;
    assert_true(every_fault(arm_read, &activations, QX_E_IO) > 2);
    assert_true(every_fault(arm_write, &weights, QX_E_IO) > 2);
    assert_true(every_fault(arm_write, &activations, QX_E_IO) > 0);
    assert_true(every_fault(arm_fsync, &weights, QX_E_IO) >= 2);
    assert_true(every_fault(arm_rename, &weights, QX_E_IO) == 2);
}

/* The disk is full after so many bytes: the kernel says so, not a hook. */
static void full_disk(void **state)
{
    (void)state;
    snapshot old, now;
    qx_ctx *ctx = qx_ctx_new(NULL);
    const job old_job = {"int8-weights", true, 2};
    clear_dir();
    OK(run_job(&old_job, NULL, 0));
    take(ctx, &old);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t cap = 0; cap < 6000; cap += 999) {
        struct rlimit before, small;
        getrlimit(RLIMIT_FSIZE, &before);
        small = (struct rlimit){cap, before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
        qx_status st = run_job(&weights, NULL, 0);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(st, QX_E_IO);
        take(ctx, &now);
        assert_true(equal(&old, &now));
        drop(ctx, &now);
    }
    drop(ctx, &old);
    qx_ctx_free(ctx);
}

static void sleep_us(long us)
{
    nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

/* The time of one job, so that the kills fall inside it. */
static long job_us(const job *j)
{
    double t = qx_clock_seconds();
    OK(run_job(j, NULL, 0));
    return (long)((qx_clock_seconds() - t) * 1e6) + 1;
}

static void kill_at_random(void **state)
{
    (void)state;
    const job jobs[2] = {{"int8-weights", true, 2}, {"int4(block=32)", true, 2}};
    snapshot wanted[2], now;
    qx_ctx *ctx = qx_ctx_new(NULL);
    uint32_t r = 12345;
    long us = 0;
    int killed = 0;
    clear_dir();
    for (int i = 0; i < 2; i++) {
        us = job_us(&jobs[i]);
        take(ctx, &wanted[i]);
    }
    for (int round = 0; round < 60; round++) {
        pid_t child = fork();
        if (child == 0) _exit(run_job(&jobs[round & 1], NULL, 0) != QX_OK);
        r = r * 1664525u + 1013904223u;
        sleep_us((long)((double)r / UINT32_MAX * 2.0 * (double)us));
        kill(child, SIGKILL);
        int how;
        waitpid(child, &how, 0);
        killed += WIFSIGNALED(how);
        take(ctx, &now);
        /* Between the two renames there may be no model, but never one beside the data of another. */
        if (now.model && !equal(&now, &wanted[0]) && !equal(&now, &wanted[1])) fail_msg("round %d left a mixture", round);
        drop(ctx, &now);
    }
    assert_true(killed > 10);
    OK(run_job(&jobs[0], NULL, 0)); /* takes away what the killed ones left */
    assert_int_equal(entries(), 2);
    for (int i = 0; i < 2; i++) drop(ctx, &wanted[i]);
    qx_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_allocation, setup, teardown), cmocka_unit_test_setup_teardown(every_file_operation, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk, setup, teardown), cmocka_unit_test_setup_teardown(kill_at_random, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
