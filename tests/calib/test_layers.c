/* test_layers.c - sweeps layer by layer, for models whose weights do not fit in memory: the same statistics as end to end, also
 * when the sweep is killed between two stretches or stopped anywhere within one and gone on with. */
#include "../unit/tmp_dir.h"
#include "base/file.h"
#include "calib/stats/store.h"

#include <signal.h>
#include <sys/wait.h>

static tmp_dir dir;
static const char *in_dir(const char *name) { return tmp_path(&dir, name); }
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }
static int calls_left;

typedef struct world { qx_model *m; qx_exec *x; qx_stats *s; } world;

static void close_world(world *w)
{
    qx_stats_free(w->s);
    qx_exec_free(w->x);
    qx_model_free(w->m);
}

/* Twelve layers whose weights are more than the memory limit: the same statistics, layer by layer. A constant that is made at
 * first is read at last. fail_at: the allocation behind the start of the sweep that fails; 0: none. */
static uint64_t deep_hash(const qx_ctx_options *o, const char *checkpoint, int64_t fail_at, qx_status *st)
{
    enum { LAYERS = 12, COLS = 256 };
    char text[4096];
    int at = snprintf(text, sizeof text, "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4,256] x) => (float[4,256] y) <");
    for (int i = 0; i < LAYERS; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%sfloat[256,256] w%d = random(%d)", i ? ", " : "", i, i + 1);
    at += snprintf(text + at, sizeof text - (size_t)at, ", float[256] b = random(99)> { c = Neg(b) ");
    for (int i = 0; i < LAYERS; i++) {
        char in[8] = "x";
        if (i) snprintf(in, sizeof in, "a%d", i - 1);
        at += snprintf(text + at, sizeof text - (size_t)at, "m%d = MatMul(%s, w%d) a%d = Tanh(m%d) ", i, in, i, i, i);
    }
    snprintf(text + at, sizeof text - (size_t)at, "e = Add(a%d, c) y = Tanh(e) }", LAYERS - 1);
    qx_ctx *ctx = qx_ctx_new(o);
    world w = {0};
    qx_samples *samples = NULL;
    uint64_t hash = 0;
    *st = qx_model_parse_text(ctx, text, &w.m);
    if (*st == QX_OK) *st = qx_infer_shapes(w.m, NULL, 0);
    if (*st == QX_OK) *st = qx_exec_new(ctx, w.m, NULL, &w.x);
    if (*st == QX_OK) *st = qx_stats_new(ctx, w.m->graph_hash, &w.s);
    for (int i = 0; i < LAYERS + 1 && *st == QX_OK; i += 3) {
        char name[8] = "y";
        if (i < LAYERS) snprintf(name, sizeof name, "a%d", i);
        qx_stat_request r = {.value = qx_graph_find(w.m->graph, name),
                             .kinds = QX_STAT_RANGE | QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS, .axis = -1, .rows = 10};
        *st = qx_stats_want(w.s, &r);
    }
    if (*st == QX_OK) *st = qx_stats_resumable(w.s, checkpoint, 0);
    qx_mem_fail_at(ctx, *st == QX_OK ? fail_at : 0);
    if (*st == QX_OK) *st = qx_samples_open(ctx, w.m, &(qx_samples_options){.random = 5}, &samples);
    if (*st == QX_OK) *st = qx_stats_collect(w.s, w.x, samples);
    if (*st == QX_OK) hash = qx_stats_hash(w.s);
    else if (!fail_at) print_message("%s\n", qx_ctx_error(ctx));
    qx_mem_fail_at(ctx, 0);
    qx_samples_close(samples);
    close_world(&w);
    qx_ctx_free(ctx);
    return hash;
}

enum { DEEP_CAP = 8 << 20 };
static int layered;
static void count_layered(void *user, qx_log_level level, const char *text)
{
    (void)user, (void)level;
    layered += strstr(text, "layer by layer") != NULL;
}

static void layer_by_layer(void **state)
{
    (void)state;
    qx_status st;
    layered = 0;
    uint64_t want = deep_hash(&(qx_ctx_options){.threads = 2, .log = count_layered}, NULL, 0, &st);
    OK(st);
    assert_int_equal(layered, 0);
    assert_true(deep_hash(&(qx_ctx_options){.threads = 2, .max_memory = DEEP_CAP, .log = count_layered}, NULL, 0, &st) == want);
    OK(st);
    assert_true(layered > 0);
}

static void die_at_stretch(void *user, const char *stage, int64_t done, int64_t total)
{
    (void)user, (void)done, (void)total;
    if (strcmp(stage, "calibrate layer by layer") == 0 && --calls_left == 0) kill(getpid(), SIGKILL);
}

/* Killed when it begins its n-th stretch. */
static void kill_deep(int stretches, const char *checkpoint)
{
    int status = 0;
    const pid_t pid = fork();
    calls_left = stretches;
    if (pid == 0) {
        qx_status st;
        (void)deep_hash(&(qx_ctx_options){.threads = 1, .max_memory = DEEP_CAP, .progress = die_at_stretch}, checkpoint, 0, &st);
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int went_on;
static void count_went_on(void *user, qx_log_level level, const char *text)
{
    (void)user, (void)level;
    went_on += strstr(text, "going on behind step") != NULL;
}

/* The n-th file of activations beside a checkpoint. */
static const char *slot_of(const char *checkpoint, int n)
{
    static char path[320];
    snprintf(path, sizeof path, "%s.activations.%d", checkpoint, n);
    return path;
}

static void goes_on(const qx_ctx_options *o, const char *path, uint64_t want, int on)
{
    qx_status st;
    went_on = 0;
    assert_true(deep_hash(o, path, 0, &st) == want);
    OK(st);
    assert_int_equal(went_on, on);
    assert_int_not_equal(access(path, F_OK), 0);
    for (int i = 0; i < 3; i++) assert_int_not_equal(access(slot_of(path, i), F_OK), 0);
}

static void layer_by_layer_resumed(void **state)
{
    (void)state;
    char path[300];
    qx_status st = QX_OK;
    snprintf(path, sizeof path, "%s", in_dir("layers.part"));
    const qx_ctx_options small = {.threads = 1, .max_memory = DEEP_CAP, .log = count_went_on},
        plenty = {.threads = 1, .log = count_went_on};
    const uint64_t want = deep_hash(&plenty, NULL, 0, &st);
    OK(st);
    for (int stretches = 1; stretches < 5; stretches++) {
        kill_deep(stretches, path);
        goes_on(stretches % 2 ? &small : &plenty, path, want, stretches > 1);
    }
    for (int i = 0; i < 3; i++) kill_deep(2, path); /* again and again */
    goes_on(&small, path, want, 1);
    int stopped = 0;
    /* anywhere within a stretch, or while a checkpoint is written: what the last one holds is gone on with */
    for (int64_t at = 30;; at = at * 3 / 2, stopped++) {
        (void)deep_hash(&small, path, at, &st);
        if (st == QX_OK) break;
        goes_on(&small, path, want, access(path, F_OK) == 0);
    }
    assert_true(stopped > 5);
}

/* Activations that are not the ones that were put by, or none. */
static void layers_damaged(void **state)
{
    (void)state;
    char path[300];
    qx_status st;
    snprintf(path, sizeof path, "%s", in_dir("damaged.part"));
    const qx_ctx_options small = {.threads = 1, .max_memory = DEEP_CAP};
    for (int lost = 0; lost < 2; lost++) {
        kill_deep(3, path);
        for (int i = 0; i < 3; i++) {
            FILE *f = lost ? NULL : fopen(slot_of(path, i), "r+b");
            if (lost) (void)unlink(slot_of(path, i));
            if (!f) continue;
            fseek(f, 100, SEEK_SET);
            fputc('!', f);
            fclose(f);
        }
        (void)deep_hash(&small, path, INT64_MAX, &st);
        assert_int_equal(st, lost ? QX_E_IO : QX_E_USAGE);
        assert_int_equal(unlink(path), 0);
    }
    for (int i = 0; i < 3; i++) (void)unlink(slot_of(path, i));
}

int main(void)
{
    /* those that fork come first: a child has none of the threads that later ones start */
    const struct CMUnitTest tests[] = {cmocka_unit_test(layer_by_layer_resumed), cmocka_unit_test(layers_damaged),
                                       cmocka_unit_test(layer_by_layer)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
