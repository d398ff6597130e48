/* test_job.c - a whole quantize job under faults: every allocation, read, write, fsync and rename fails in its turn, and the
 * process is killed at random moments and at every change of a directory. Each time: a clean error, all memory given back, and the
 * old output or the new one. */
#include "../unit/tmp_dir.h"
#include "base/file.h"
#include "base/thread.h"
#include "onnx/file/io.h"
#include "passes/job/settings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define DATA(name) TEST_SOURCE_DIR "/tests/data/" name

/* The calls that give, change and take names, in place of the C library's: the process dies before or behind the n-th of them. */
static int names_left;
static bool no_links; /* as on a file system without them */

static long named(long result)
{
    if (names_left && --names_left == 0) kill(getpid(), SIGKILL);
    return result;
}

int rename(const char *from, const char *to)
{
    named(0);
    return (int)named(syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to));
}

int link(const char *from, const char *to)
{
    named(0);
    if (no_links) errno = EPERM;
    return (int)named(no_links ? -1 : syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int unlink(const char *path)
{
    named(0);
    return (int)named(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

static tmp_dir dir;
static const char *in_dir(const char *name) { return tmp_path(&dir, name); }

static void clear_dir(void)
{
    DIR *d = opendir(dir.path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlink(in_dir(e->d_name));
    if (d) closedir(d);
}

static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

/* of a perceptron, or of a small language model */
typedef struct job { const char *passes; bool external; int threads; bool decoder; } job;
typedef enum fault { NONE, MEMORY, READ, WRITE, FSYNC, RENAME } fault;
static const qx_io_kind io_kinds[] = {[READ] = QX_IO_READ, [WRITE] = QX_IO_WRITE, [FSYNC] = QX_IO_FSYNC, [RENAME] = QX_IO_RENAME};

static void arm(qx_ctx *ctx, fault f, int64_t n)
{
    if (f == MEMORY) qx_mem_fail_at(ctx, n);
    else if (f != NONE) qx_io_fail_at(ctx, io_kinds[f], n);
}

/* True when the armed fault did not come to pass. */
static bool disarm(qx_ctx *ctx, fault f)
{
    bool unused = f == NONE || (f == MEMORY ? qx_mem_fail_left(ctx) : qx_io_fail_left(ctx, io_kinds[f])) > 0;
    arm(ctx, f, 0);
    return unused;
}

static qx_status set_all(qx_job_args *a, const job *j)
{
    QX_TRY(qx_job_args_set(a, "output", in_dir("out.onnx")));
    QX_TRY(qx_job_args_set(a, "passes", j->passes));
    QX_TRY(qx_job_args_set(a, "calib", j->decoder ? DATA("cache/ids.npz") : DATA("mlp/calib.npz")));
    QX_TRY(qx_job_args_set(a, "force", "1"));
    return j->external ? qx_job_args_set(a, "external-data", "1") : QX_OK;
}

static char last_error[400]; /* of the job that failed last */

/* One job in a context of its own, whose n-th operation of a kind fails. All memory must be back before the context goes. */
static qx_status run_job(const job *j, fault f, int64_t n, bool *unused)
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
        opt.input = j->decoder ? DATA("cache/concat.onnx") : DATA("mlp/model.onnx");
        arm(ctx, f, n);
        st = qx_report_new(ctx, &r);
        if (st == QX_OK) st = qx_quantize_file(ctx, &opt, r);
    }
    bool never = disarm(ctx, f);
    if (unused) *unused = never;
    if (st != QX_OK && !*qx_ctx_error(ctx)) fail_msg("status %d without a message", (int)st);
    snprintf(last_error, sizeof last_error, "%s", qx_ctx_error(ctx));
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

/* What the job leaves without a fault. */
static void reference(qx_ctx *ctx, const job *j, snapshot *s)
{
    clear_dir();
    OK(run_job(j, NONE, 0, NULL));
    take(ctx, s);
}

/* Every step-th fault, so that jobs with many operations end. The old output is that of another pass, so old and new differ. A
 * failure leaves the old one, or the new one when only the verification behind it failed; a fault that the job could do without
 * leaves the new one to the byte. Returns the number of faults. */
static int every_fault(fault f, int step, const job *new_job)
{
    const qx_status code = f == MEMORY ? QX_E_NOMEM : QX_E_IO;
    const job old_job = {"int8-weights", new_job->external, 1, new_job->decoder};
    qx_ctx *ctx = qx_ctx_new(NULL);
    snapshot old, new, now;
    int n = 1;
    reference(ctx, new_job, &new);
    reference(ctx, &old_job, &old);
    assert_false(equal(&old, &new));
    int files = tmp_entries(&dir);
    for (bool unused = false;; n += step) {
        qx_status st = run_job(new_job, f, n, &unused);
        if (unused) break;
        take(ctx, &now);
        if (st != QX_OK && st != code) fail_msg("fault %d gave status %d (%s): %s", n, (int)st, qx_status_text(st), last_error);
        if (!equal(&now, &new) && (st == QX_OK || !equal(&now, &old)))
            fail_msg("fault %d (status %d) left neither the old output nor the new one", n, (int)st);
        if (tmp_entries(&dir) != files) fail_msg("fault %d left %d files, not %d", n, tmp_entries(&dir), files);
        if (equal(&now, &new)) OK(run_job(&old_job, NONE, 0, NULL));
        drop(ctx, &now);
    }
    drop(ctx, &old);
    drop(ctx, &new);
    qx_ctx_free(ctx);
    return n - 1;
}

static const job weights = {"int4(block=32)", true, 1, false}, activations = {"int8", false, 1, false};

static void every_allocation(void **state)
{
    static const job chosen = {"bias-correction,mixed(sqnr=20,formats=int4+int8,probes=1)", false, 1, false};
    static const job solved = {"bias-correction,gptq,int4(block=32)", false, 1, false};
    (void)state;
    assert_true(every_fault(MEMORY, 1, &weights) > 100);
    assert_true(every_fault(MEMORY, 1, &activations) > 100);
    assert_true(every_fault(MEMORY, 1, &chosen) > 100);
    assert_true(every_fault(MEMORY, 7, &solved) > 20);
    assert_true(every_fault(WRITE, 1, &solved) > 1);
    assert_true(every_fault(READ, 1, &solved) > 2);
}

/* Passes that solve, rotate and look for the cache of a decoder whose dims have names. */
static void every_allocation_of_a_decoder(void **state)
{
    static const job jobs[] = {{"kv-cache(int8)", false, 1, true}, {"rotate,int8", false, 1, true},
                               {"gptq,int4(block=32)", true, 1, true}, {"awq,kv-cache(fp8),int4(block=32)", true, 1, true}};
    (void)state;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) assert_true(every_fault(MEMORY, 23, &jobs[i]) > 100);
    assert_true(every_fault(READ, 3, &jobs[2]) > 2);
    assert_true(every_fault(WRITE, 3, &jobs[3]) > 2);
}

static void every_file_operation(void **state)
{
    (void)state;
    assert_true(every_fault(READ, 1, &activations) > 2);
    assert_true(every_fault(WRITE, 1, &weights) > 2);
    assert_true(every_fault(WRITE, 1, &activations) > 0);
    assert_true(every_fault(FSYNC, 1, &weights) >= 2);
    assert_true(every_fault(RENAME, 1, &weights) == 3);
}

/* The disk is full after so many bytes: the kernel says so, not a hook. */
static void full_disk(void **state)
{
    (void)state;
    snapshot old, now;
    qx_ctx *ctx = qx_ctx_new(NULL);
    const job old_job = {"int8-weights", true, 1, false};
    clear_dir();
    OK(run_job(&old_job, NONE, 0, NULL));
    take(ctx, &old);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t cap = 0; cap < 3000; cap += 499) {
        struct rlimit before, small;
        getrlimit(RLIMIT_FSIZE, &before);
        small = (struct rlimit){cap, before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
        qx_status st = run_job(&weights, NONE, 0, NULL);
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

/* A job in a process of its own, which dies at the n-th change of a directory (0: never). This process must stay without threads. */
static pid_t job_in_child(const job *j, int n)
{
    pid_t child = fork();
    if (child != 0) return child;
    names_left = n;
    _exit(run_job(j, NONE, 0, NULL) != QX_OK);
}

static void whole_job(const job *j)
{
    int how;
    waitpid(job_in_child(j, 0), &how, 0);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

/* What the output says once it is loaded: the model with all its weights inside. NULL when there is no model; one that does not
 * load fails the test. */
static char *content(qx_ctx *ctx, size_t *len)
{
    qx_model *m;
    char *bytes = NULL;
    const char *path = in_dir("inside");
    if (access(in_dir("out.onnx"), F_OK) != 0) return NULL;
    OK(qx_model_read(ctx, in_dir("out.onnx"), NULL, &m));
    m->dirty = true; /* not a copy of the file */
    OK(qx_model_write(m, path, &(qx_write_options){.inline_limit = INT64_MAX}, NULL));
    qx_model_free(m);
    OK(qx_file_slurp(ctx, path, 1 << 24, &bytes, len));
    assert_int_equal(unlink(path), 0);
    return bytes;
}

typedef struct killing {
    qx_ctx *ctx;
    job jobs[2];
    char *wanted[2];
    size_t len[2];
    int killed;
} killing;

static void killing_begin(killing *k)
{
    *k = (killing){.ctx = qx_ctx_new(NULL), .jobs = {{"int8-weights", true, 2, false}, {"int4(block=32)", true, 2, false}}};
    clear_dir();
    for (int i = 0; i < 2; i++) {
        whole_job(&k->jobs[i]);
        k->wanted[i] = content(k->ctx, &k->len[i]);
    }
}

static void killing_end(killing *k)
{
    whole_job(&k->jobs[0]); /* takes away what the killed ones left */
    assert_int_equal(tmp_entries(&dir), 2);
    for (int i = 0; i < 2; i++) qx_free(k->ctx, k->wanted[i]);
    qx_ctx_free(k->ctx);
}

/* True when the child was killed. What it leaves is the output of one of the two jobs, whole. */
static bool buried(killing *k, pid_t child, int round)
{
    int how;
    size_t len = 0;
    waitpid(child, &how, 0);
    char *now = content(k->ctx, &len);
    bool whole = false;
    for (int i = 0; i < 2; i++) whole = whole || (now && len == k->len[i] && memcmp(now, k->wanted[i], len) == 0);
    if (!whole) fail_msg("round %d left %s", round, now ? "a mixture" : "no model");
    qx_free(k->ctx, now);
    k->killed += WIFSIGNALED(how);
    return WIFSIGNALED(how);
}

/* A machine's load changes while this runs, so the wait is not taken from a clock: it grows behind each kill that came in time and
 * shrinks behind each that came too late, and so finds the length of a job and stays around it. A wait of nothing kills at once. */
static void kill_at_random(void **state)
{
    enum { WANTED = 30, ROUNDS = 5000 };
    (void)state;
    killing k;
    uint32_t r = 12345;
    double longest = 1e4; /* microseconds */
    int round = 0;
    killing_begin(&k);
    while (k.killed < WANTED && round < ROUNDS) {
        pid_t child = job_in_child(&k.jobs[round & 1], 0);
        r = r * 1664525u + 1013904223u;
        sleep_us((long)((double)r / UINT32_MAX * longest));
        kill(child, SIGKILL);
        longest *= buried(&k, child, round++) ? 1.25 : 0.8;
    }
    print_message("%d of %d jobs were killed, the last waits up to %.0f us\n", k.killed, round, longest);
    assert_int_equal(k.killed, WANTED);
    killing_end(&k);
}

/* Every instant there is: the state of the directory changes by these calls alone. Each round starts from what the last one left. */
static void kill_at_every_name(void **state)
{
    killing k;
    int n = 1;
    no_links = *state != NULL;
    killing_begin(&k);
    while (buried(&k, job_in_child(&k.jobs[n & 1], n), n)) n++;
    assert_true(k.killed > 10); /* three renames and what goes with them, each before and behind */
    killing_end(&k);
    no_links = false;
}

static void kill_without_links(void **state)
{
    *state = &dir;
    kill_at_every_name(state);
}

/* A rename that fails where there is no way back: whatever stays loads. */
static void failure_without_links(void **state)
{
    (void)state;
    killing k;
    const job jobs[2] = {{"int8-weights", true, 1, false}, weights};
    killing_begin(&k);
    no_links = true;
    for (int n = 1; n <= 3; n++) {
        size_t len;
        assert_int_equal(run_job(&jobs[n & 1], RENAME, n, NULL), QX_E_IO);
        char *now = content(k.ctx, &len);
        assert_non_null(now);
        assert_true((len == k.len[0] && memcmp(now, k.wanted[0], len) == 0) || (len == k.len[1] && memcmp(now, k.wanted[1], len) == 0));
        qx_free(k.ctx, now);
    }
    no_links = false;
    killing_end(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_allocation, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(every_allocation_of_a_decoder, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(every_file_operation, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(full_disk, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(kill_at_random, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(kill_at_every_name, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(kill_without_links, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(failure_without_links, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
