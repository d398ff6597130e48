/* test_sweep.c - samples of every kind and the sweep over them, on a small bundled network: batches cut or not, any order, any memory
 * budget and any number of threads give the same file; another model's or a damaged file is refused; merged parts equal one run. */
#include "../unit/tmp_dir.h"
#include "base/file.h"
#include "calib/data/npz.h"
#include "calib/stats/store.h"

#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MLP TEST_SOURCE_DIR "/tests/data/mlp/"
static tmp_dir dir;
static const char *in_dir(const char *name) { return tmp_path(&dir, name); }
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

/* calib.npz of the network: x[16, 64]. Written anew in other forms. */
static void load_x(qx_ctx *ctx, qx_tensor *x)
{
    qx_npz *z;
    OK(qx_npz_open(ctx, MLP "calib.npz", &z));
    OK(qx_npz_read(z, qx_npz_find(z, "x"), x));
    qx_npz_close(z);
}

static void save_x(qx_ctx *ctx, const char *path, const char *name, const float *x, int rank, const int64_t *dims)
{
    qx_tensor t;
    OK(qx_tensor_shape(ctx, &t, QX_DT_FLOAT, rank, dims));
    t.data = (void *)(uintptr_t)x;
    OK(qx_npz_write(ctx, path, &name, &t, 1));
}

typedef struct world { qx_model *m; qx_exec *x; qx_stats *s; } world;
static int64_t enough; /* rows that Gram matrices need for each column; 0: all */

static qx_status try_world(qx_ctx *ctx, world *w, uint32_t kinds)
{
    *w = (world){0};
    QX_TRY(qx_model_read(ctx, MLP "model.onnx", NULL, &w->m));
    QX_TRY(qx_infer_shapes(w->m, NULL, 0));
    QX_TRY(qx_exec_new(ctx, w->m, NULL, &w->x));
    QX_TRY(qx_stats_new(ctx, w->m->graph_hash, &w->s));
    static const char *const names[] = {"x", "c"};
    for (int i = 0; i < 2; i++) {
        qx_stat_request r = {.value = qx_graph_find(w->m->graph, names[i]), .kinds = kinds, .axis = -1, .rows = 10, .enough = enough};
        assert_non_null(r.value);
        QX_TRY(qx_stats_want(w->s, &r));
    }
    return QX_OK;
}

static void open_world(qx_ctx *ctx, world *w, uint32_t kinds) { OK(try_world(ctx, w, kinds)); }

static void close_world(world *w)
{
    qx_stats_free(w->s);
    qx_exec_free(w->x);
    qx_model_free(w->m);
}

static const uint32_t all_kinds = QX_STAT_RANGE | QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS | QX_STAT_GRAM;

static uint64_t collect(qx_ctx *ctx, const char *const *paths, int n, uint32_t kinds, int64_t want_samples, const char *save)
{
    world w;
    qx_samples *samples;
    qx_samples_options o = {.paths = paths, .n_paths = n};
    open_world(ctx, &w, kinds);
    OK(qx_samples_open(ctx, w.m, &o, &samples));
    assert_int_equal(qx_samples_count(samples), want_samples);
    OK(qx_stats_collect(w.s, w.x, samples));
    const qx_value_stats *v = qx_stats_get(w.s, qx_graph_find(w.m->graph, "x"));
    assert_int_equal(v->count, 16 * 64);
    if (save) OK(qx_stats_save(w.s, save, true));
    uint64_t hash = qx_stats_hash(w.s);
    qx_samples_close(samples);
    close_world(&w);
    return hash;
}

/* ---- interrupted and gone on with ---- */

static qx_status sweep_with(qx_ctx *ctx, const char *samples_path, const char *checkpoint, uint32_t kinds, uint64_t *hash)
{
    world w;
    qx_samples *samples;
    qx_samples_options o = {.paths = &samples_path, .n_paths = 1};
    open_world(ctx, &w, kinds);
    OK(qx_samples_open(ctx, w.m, &o, &samples));
    OK(qx_stats_resumable(w.s, checkpoint, 0));
    qx_status st = qx_stats_collect(w.s, w.x, samples);
    if (st == QX_OK && hash) *hash = qx_stats_hash(w.s);
    qx_samples_close(samples);
    close_world(&w);
    return st;
}

static void die_at(void *user, const char *stage, int64_t done, int64_t total)
{
    (void)total;
    if (strcmp(stage, "calibrate") == 0 && done == *(const int64_t *)user) kill(getpid(), SIGKILL);
}

/* A process that is killed when it begins sample `at` of the sweep. */
static void killed_sweep(const char *samples, const char *checkpoint, int64_t at)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        qx_ctx_options o = {.threads = 1, .progress = die_at, .user = &at};
        qx_ctx *ctx = qx_ctx_new(&o);
        (void)sweep_with(ctx, samples, checkpoint, all_kinds, NULL);
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void going_on_after_a_kill(void **state)
{
    (void)state;
    qx_ctx_options one = {.threads = 1};
    qx_ctx *ctx = qx_ctx_new(&one);
    char path[300];
    const char *plain = MLP "calib.npz", *list[] = {plain};
    snprintf(path, sizeof path, "%s", in_dir("sweep.part"));
    uint64_t want = collect(ctx, list, 1, all_kinds, 16, NULL), got = 0;
    killed_sweep(plain, path, 0);
    assert_int_not_equal(access(path, F_OK), 0); /* nothing had been seen */
    for (int64_t at = 1; at < 16; at += 5) { /* the second goes on from what the first left, and so on */
        killed_sweep(plain, path, at);
        assert_int_equal(access(path, F_OK), 0);
    }
    qx_stats *s;
    OK(qx_stats_new(ctx, 0, &s));
    FAILS(qx_stats_load(s, path), QX_E_USAGE);
    MESSAGE_HAS(ctx, "after 11 samples");
    qx_stats_free(s);
    qx_ctx_clear_error(ctx);
    FAILS(sweep_with(ctx, plain, path, all_kinds & ~(uint32_t)QX_STAT_GRAM, NULL), QX_E_USAGE);
    MESSAGE_HAS(ctx, "other statistics");
    qx_ctx_clear_error(ctx);
    qx_tensor x;
    load_x(ctx, &x);
    save_x(ctx, in_dir("fewer.npz"), "x", x.data, 2, (int64_t[]){12, 64});
    qx_tensor_free(ctx, &x);
    FAILS(sweep_with(ctx, in_dir("fewer.npz"), path, all_kinds, NULL), QX_E_USAGE);
    MESSAGE_HAS(ctx, "give the same samples");
    qx_ctx_clear_error(ctx);
    OK(sweep_with(ctx, plain, path, all_kinds, &got));
    assert_true(got == want);
    assert_int_not_equal(access(path, F_OK), 0);
    FILE *f = fopen(path, "wb");
    fputs("qonnx-stats 1\n{\n}\n", f);
    fclose(f);
    FAILS(sweep_with(ctx, plain, path, all_kinds, NULL), QX_E_FORMAT);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    remove(path);
    qx_ctx_free(ctx);
}

/* Sixteen samples of 40 rows, of which the Gram matrices take some. */
static const char *long_samples(qx_ctx *ctx)
{
    static float x[16 * 40 * 64];
    for (int i = 0; i < 16 * 40 * 64; i++) x[i] = (float)((i * 7919) % 1009) / 1009.0f - 0.5f;
    save_x(ctx, in_dir("long.npz"), "x", x, 3, (int64_t[]){16, 40, 64});
    return in_dir("long.npz");
}

/* Some rows are enough: fewer are summed, and where a sweep was interrupted does not change which. */
static void some_rows(void **state)
{
    qx_ctx *ctx = *state;
    char path[300], rows[300];
    uint64_t all, some, got;
    snprintf(rows, sizeof rows, "%s", long_samples(ctx));
    snprintf(path, sizeof path, "%s", in_dir("some.part"));
    OK(sweep_with(ctx, rows, NULL, all_kinds, &all));
    enough = 2;
    OK(sweep_with(ctx, rows, NULL, all_kinds, &some));
    assert_true(some != all);
    killed_sweep(rows, path, 5);
    assert_int_equal(access(path, F_OK), 0);
    enough = 3;
    FAILS(sweep_with(ctx, rows, path, all_kinds, NULL), QX_E_USAGE);
    MESSAGE_HAS(ctx, "other statistics");
    qx_ctx_clear_error(ctx);
    enough = 2;
    OK(sweep_with(ctx, rows, path, all_kinds, &got));
    assert_true(got == some);
    enough = 0;
}

static uint64_t collect_in(const qx_ctx_options *o, const char *path, uint32_t kinds, int64_t n)
{
    qx_ctx *ctx = qx_ctx_new(o);
    uint64_t h = collect(ctx, &path, 1, kinds, n, NULL);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
    return h;
}

static void any_form_of_the_samples(void **state)
{
    qx_ctx *ctx = *state;
    qx_tensor x;
    load_x(ctx, &x);
    float turned[16 * 64];
    for (int i = 0; i < 16; i++) memcpy(turned + i * 64, (float *)x.data + (i * 5 + 3) % 16 * 64, 64 * sizeof(float));
    save_x(ctx, in_dir("stacked1.npz"), "x", x.data, 3, (int64_t[]){16, 1, 64});
    save_x(ctx, in_dir("stacked4.npz"), "x", x.data, 3, (int64_t[]){4, 4, 64});
    save_x(ctx, in_dir("turned.npz"), "x", turned, 2, (int64_t[]){16, 64});
    mkdir(in_dir("many"), 0700);
    save_x(ctx, in_dir("many/b.npz"), "x", (float *)x.data + 10 * 64, 2, (int64_t[]){6, 64});
    save_x(ctx, in_dir("many/a.npz"), "x", x.data, 2, (int64_t[]){10, 64});
    FILE *f = fopen(in_dir("x.raw"), "wb");
    fwrite(x.data, 1, x.bytes, f);
    fclose(f);
    char raw[256];
    snprintf(raw, sizeof raw, "x=%s:f32[16,64]", in_dir("x.raw"));
    const char *plain = MLP "calib.npz", *forms[] = {in_dir("stacked1.npz"), in_dir("many"), raw};
    uint64_t want = collect(ctx, &plain, 1, all_kinds, 16, NULL);
    for (int i = 0; i < 3; i++) assert_true(collect(ctx, &forms[i], 1, all_kinds, 16, NULL) == want);
    const char *four = in_dir("stacked4.npz");
    assert_true(collect(ctx, &four, 1, all_kinds, 4, NULL) == want);
    const char *other = in_dir("turned.npz"); /* another order: all but the Gram matrix is the same bits */
    uint32_t exact = all_kinds & ~(uint32_t)QX_STAT_GRAM;
    assert_true(collect(ctx, &other, 1, exact, 16, NULL) == collect(ctx, &plain, 1, exact, 16, NULL));
    qx_tensor_free(ctx, &x);
}

static void threads(void **state)
{
    (void)state;
    qx_ctx_options one = {.threads = 1}, four = {.threads = 4};
    uint64_t want = collect_in(&one, MLP "calib.npz", all_kinds, 16);
    assert_true(collect_in(&four, MLP "calib.npz", all_kinds, 16) == want);
}

static int parts, dropped;
static void count_parts(void *user, qx_log_level level, const char *text)
{
    (void)user, (void)level;
    parts += strstr(text, "sweep") != NULL;
    dropped += strstr(text, "not collected") != NULL;
}

/* From plenty of memory down to what is too little: always the same result, in one sweep or in two, until a matrix fits no sweep:
 * then it is missing, and said to be. */
static void memory_budget(void **state)
{
    (void)state;
    qx_ctx_options free_one = {.threads = 1};
    uint64_t want = collect_in(&free_one, MLP "calib.npz", all_kinds, 16);
    int several = 0, missing = 0;
    for (size_t cap = 2 << 20; cap > 200000 && !missing; cap -= 5000) {
        qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = 1, .max_memory = cap, .log = count_parts});
        world w = {0};
        const char *path = MLP "calib.npz";
        qx_samples *samples = NULL;
        parts = dropped = 0;
        qx_status st = try_world(ctx, &w, all_kinds);
        if (st == QX_OK) st = qx_samples_open(ctx, w.m, &(qx_samples_options){.paths = &path, .n_paths = 1}, &samples);
        if (st == QX_OK) st = qx_stats_collect(w.s, w.x, samples);
        assert_int_equal(st, QX_OK);
        assert_int_equal(qx_stats_hash(w.s) == want, !dropped);
        several += !dropped && parts > 1;
        missing = dropped;
        qx_samples_close(samples);
        close_world(&w);
        assert_int_equal(qx_mem_in_use(ctx), 0);
        qx_ctx_free(ctx);
    }
    assert_true(several > 0);
    assert_true(missing > 0);
}

/* Several sweeps for the Gram matrices, killed again and again: what was finished and what was not goes on to the same bits. */
static int calls_left;
static void die_later(void *user, const char *stage, int64_t done, int64_t total)
{
    (void)user, (void)done, (void)total;
    if (strcmp(stage, "calibrate") == 0 && --calls_left == 0) kill(getpid(), SIGKILL);
}

static qx_ctx *small_ctx(size_t cap, bool dies)
{
    return qx_ctx_new(&(qx_ctx_options){.threads = 1, .max_memory = cap, .log = count_parts, .progress = dies ? die_later : NULL});
}

/* Three Gram matrices of 7 MB each, against which the memory for writing and reading a checkpoint is little. */
static uint64_t sweep_in(size_t cap, bool dies, const char *checkpoint)
{
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,1200] x) => (float[2,1200] y) { a = Tanh(x) "
                               "b = Tanh(a) y = Neg(b) }";
    qx_ctx *ctx = small_ctx(cap, dies);
    world w = {0};
    qx_samples *samples;
    OK(qx_model_parse_text(ctx, text, &w.m));
    OK(qx_infer_shapes(w.m, NULL, 0));
    OK(qx_exec_new(ctx, w.m, NULL, &w.x));
    OK(qx_stats_new(ctx, w.m->graph_hash, &w.s));
    for (const char *name = "xab"; *name; name++)
        OK(qx_stats_want(w.s, &(qx_stat_request){.value = qx_graph_find(w.m->graph, (char[2]){*name}), .kinds = all_kinds, .axis = -1,
                                                 .rows = 10}));
    OK(qx_samples_open(ctx, w.m, &(qx_samples_options){.random = 8}, &samples));
    OK(qx_stats_resumable(w.s, checkpoint, 0));
    const qx_status st = qx_stats_collect(w.s, w.x, samples);
    if (st != QX_OK) print_message("%s\n", qx_ctx_error(ctx));
    const uint64_t hash = st == QX_OK ? qx_stats_hash(w.s) : 0;
    qx_samples_close(samples);
    close_world(&w);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
    return hash;
}

static void kill_within(int calls, size_t cap, const char *checkpoint)
{
    int status = 0;
    const pid_t pid = fork();
    calls_left = calls;
    if (pid == 0) {
        (void)sweep_in(cap, true, checkpoint);
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(access(checkpoint, F_OK), 0);
}

static void several_sweeps_resumed(void **state)
{
    (void)state;
    char path[300];
    snprintf(path, sizeof path, "%s", in_dir("several.part"));
    const size_t cap = 26 << 20;
    const uint64_t want = sweep_in(0, false, NULL);
    parts = dropped = 0;
    assert_true(sweep_in(cap, false, NULL) == want);
    const int all = parts;
    assert_true(all > 1 && !dropped);
    kill_within(3, cap, path); /* in the first sweep */
    kill_within(9, cap, path); /* in the second: the first has six samples to go */
    kill_within(3, cap, path);
    parts = 0;
    assert_true(sweep_in(cap, false, path) == want);
    assert_int_equal(parts, all - 1); /* the first is not made again */
    assert_int_not_equal(access(path, F_OK), 0);
    kill_within(3, cap, path);
    assert_true(sweep_in(0, false, path) == want); /* with plenty of memory by now */
}

static void files(void **state)
{
    qx_ctx *ctx = *state;
    const char *plain = MLP "calib.npz";
    uint64_t want = collect(ctx, &plain, 1, all_kinds, 16, in_dir("a.stats"));
    world w;
    open_world(ctx, &w, all_kinds);
    OK(qx_stats_load(w.s, in_dir("a.stats")));
    assert_true(qx_stats_hash(w.s) == want);
    OK(qx_stats_collect(w.s, w.x, NULL)); /* all is there: no samples are looked at */
    OK(qx_stats_save(w.s, in_dir("b.stats"), true));
    char *a, *b;
    size_t na, nb;
    OK(qx_file_slurp(ctx, in_dir("a.stats"), 1 << 24, &a, &na));
    OK(qx_file_slurp(ctx, in_dir("b.stats"), 1 << 24, &b, &nb));
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    qx_stats *other;
    OK(qx_stats_new(ctx, w.m->graph_hash ^ 1, &other));
    FAILS(qx_stats_load(other, in_dir("a.stats")), QX_E_USAGE);
    MESSAGE_HAS(ctx, "another model");
    qx_ctx_clear_error(ctx);
    for (size_t at = 0; at < na; at += na / 23) { /* any byte: refused, never a crash */
        b[at] ^= 4;
        FILE *f = fopen(in_dir("c.stats"), "wb");
        fwrite(b, 1, at % 2 ? nb : at, f);
        fclose(f);
        b[at] ^= 4;
        if (at % 2 == 0 && at == nb) continue;
        assert_int_not_equal(qx_stats_load(other, in_dir("c.stats")), QX_OK);
        qx_ctx_clear_error(ctx);
    }
    a[12] = '9'; /* the version */
    FILE *f = fopen(in_dir("c.stats"), "wb");
    fwrite(a, 1, na, f);
    fclose(f);
    FAILS(qx_stats_load(other, in_dir("c.stats")), QX_E_USAGE);
    MESSAGE_HAS(ctx, "version 9");
    qx_free(ctx, a);
    qx_free(ctx, b);
    qx_stats_free(other);
    close_world(&w);
}

static void merging(void **state)
{
    qx_ctx *ctx = *state;
    qx_tensor x;
    load_x(ctx, &x);
    save_x(ctx, in_dir("h1.npz"), "x", x.data, 2, (int64_t[]){9, 64});
    save_x(ctx, in_dir("h2.npz"), "x", (float *)x.data + 9 * 64, 2, (int64_t[]){7, 64});
    uint32_t exact = all_kinds & ~(uint32_t)QX_STAT_GRAM;
    world w[2];
    for (int i = 0; i < 2; i++) {
        const char *path = i ? in_dir("h2.npz") : in_dir("h1.npz");
        qx_samples *samples;
        open_world(ctx, &w[i], exact);
        OK(qx_samples_open(ctx, w[i].m, &(qx_samples_options){.paths = &path, .n_paths = 1}, &samples));
        OK(qx_stats_collect(w[i].s, w[i].x, samples));
        qx_samples_close(samples);
    }
    OK(qx_stats_note(w[1].s, "0123456789abcdef0123456789abcdef", 1, 2));
    OK(qx_stats_merge(w[1].s, w[0].s)); /* also the wrong way round */
    assert_int_equal(qx_stats_notes(w[1].s), 0); /* what runs have measured was of the samples of one */
    const char *plain = MLP "calib.npz";
    assert_true(qx_stats_hash(w[1].s) == collect(ctx, &plain, 1, exact, 16, NULL));
    close_world(&w[0]);
    close_world(&w[1]);
    qx_tensor_free(ctx, &x);
}

static void scaling_channels(void **state)
{
    qx_ctx *ctx = *state;
    world w;
    qx_samples *samples;
    const char *plain = MLP "calib.npz";
    open_world(ctx, &w, all_kinds);
    OK(qx_samples_open(ctx, w.m, &(qx_samples_options){.paths = &plain, .n_paths = 1}, &samples));
    OK(qx_stats_collect(w.s, w.x, samples));
    const qx_value *c = qx_graph_find(w.m->graph, "c");
    qx_value_stats before = *qx_stats_get(w.s, c);
    float f[96], gram = before.gram[5 * 96 + 7], top = before.channels.absmax[5], sq = before.channels.mean_sq[7];
    for (int i = 0; i < 96; i++) f[i] = i == 5 ? 4 : 0.5f;
    FAILS(qx_stats_scale_channels(w.s, c, f, 95), QX_E_SHAPE);
    qx_ctx_clear_error(ctx);
    OK(qx_stats_scale_channels(w.s, c, f, 96));
    const qx_value_stats *v = qx_stats_get(w.s, c);
    assert_true(v->gram[5 * 96 + 7] == gram * 2 && v->channels.absmax[5] == top * 4 && v->channels.mean_sq[7] == sq / 4);
    float most = 0, t;
    for (int i = 0; i < 96; i++) most = fmaxf(most, v->channels.absmax[i]);
    assert_true(v->absmax == most);
    OK(qx_stats_threshold(w.s, c, &(qx_range_options){.method = QX_RANGE_PERCENTILE, .percentile = 100}, &t));
    assert_true(t > 0 && t <= most);
    OK(qx_stats_park(w.s, 0)); /* what is on disk is scaled there */
    OK(qx_stats_scale_channels(w.s, c, f, 96));
    v = qx_stats_get(w.s, c);
    assert_true(v->gram_file && v->gram[5 * 96 + 7] == gram * 4);
    qx_file_rest(v->gram_file);
    assert_true(v->gram[5 * 96 + 7] == gram * 4);
    qx_samples_close(samples);
    close_world(&w);
}

/* A Mul that smooths one reader's input must not change what other readers of the original value see. */
static void scaling_an_alias(void **state)
{
    qx_ctx *ctx = *state;
    world w;
    qx_samples *samples;
    const char *plain = MLP "calib.npz";
    open_world(ctx, &w, all_kinds);
    OK(qx_samples_open(ctx, w.m, &(qx_samples_options){.paths = &plain, .n_paths = 1}, &samples));
    OK(qx_stats_collect(w.s, w.x, samples));
    const qx_value *c = qx_graph_find(w.m->graph, "c");
    qx_value twin = {.name = "c_smoothed", .graph = w.m->graph};
    uint64_t hash = qx_stats_hash(w.s);
    float f[96], top = qx_stats_get(w.s, c)->channels.absmax[5], all, same;
    const qx_range_options range = {.method = QX_RANGE_MSE, .levels = 127, .format = QX_DT_INT8};
    OK(qx_stats_alias(w.s, c, &twin));
    OK(qx_stats_threshold(w.s, c, &range, &all));
    OK(qx_stats_threshold(w.s, &twin, &range, &same));
    assert_true(all == same && qx_stats_get(w.s, &twin)->rows == qx_stats_get(w.s, c)->rows && qx_stats_hash(w.s) == hash);
    for (int i = 0; i < 96; i++) f[i] = i == 5 ? 4 : 0.5f;
    OK(qx_stats_park(w.s, 0)); /* the twin's own matrix is not brought into memory either */
    OK(qx_stats_scale_channels(w.s, &twin, f, 96));
    OK(qx_stats_threshold(w.s, c, &range, &same));
    assert_true(qx_stats_get(w.s, &twin)->gram_file && qx_stats_get(w.s, c)->gram_file);
    const qx_value_stats *a = qx_stats_get(w.s, c), *b = qx_stats_get(w.s, &twin);
    assert_true(same == all && a->channels.absmax[5] == top && b->channels.absmax[5] == 4 * top);
    assert_true(b->gram[5 * 96 + 7] == 2 * a->gram[5 * 96 + 7] && b->n_rows == a->n_rows && b->rows[5] == 4 * a->rows[5]);
    OK(qx_stats_scale_channels(w.s, &twin, f, 96)); /* once more: it keeps its own */
    assert_true(qx_stats_get(w.s, &twin)->channels.absmax[5] == 16 * top && qx_stats_get(w.s, c)->channels.absmax[5] == top);
    qx_samples_close(samples);
    close_world(&w);
}

static void refuse(qx_ctx *ctx, qx_model *m, const char *path, qx_status code, const char *part)
{
    qx_samples *s = NULL;
    const qx_feed *feeds;
    int n;
    qx_status st = qx_samples_open(ctx, m, &(qx_samples_options){.paths = &path, .n_paths = path != NULL}, &s);
    for (int64_t i = 0; st == QX_OK && i < qx_samples_count(s); i++) st = qx_samples_get(s, i, &feeds, &n);
    if (st != code) fail_msg("%s: status %d, %d wanted (%s)", path, st, code, qx_ctx_error(ctx));
    MESSAGE_HAS(ctx, part);
    qx_ctx_clear_error(ctx);
    qx_samples_close(s);
}

static void bad_samples(void **state)
{
    qx_ctx *ctx = *state;
    qx_model *m;
    OK(qx_model_read(ctx, MLP "model.onnx", NULL, &m));
    OK(qx_infer_shapes(m, NULL, 0));
    float x[256] = {0};
    refuse(ctx, m, NULL, QX_E_USAGE, "x f32[batch,64]");
    save_x(ctx, in_dir("bad.npz"), "y", x, 2, (int64_t[]){2, 64});
    refuse(ctx, m, in_dir("bad.npz"), QX_E_USAGE, "no array 'x'. It holds: y. The model takes: x f32[batch,64]");
    save_x(ctx, in_dir("bad.npz"), "x", x, 2, (int64_t[]){2, 63});
    refuse(ctx, m, in_dir("bad.npz"), QX_E_USAGE, "f32[2,63]");
    save_x(ctx, in_dir("bad.npz"), "x", x, 1, (int64_t[]){64});
    refuse(ctx, m, in_dir("bad.npz"), QX_E_USAGE, "f32[64]");
    save_x(ctx, in_dir("bad.npz"), "x", x, 3, (int64_t[]){0, 2, 64});
    refuse(ctx, m, in_dir("bad.npz"), QX_E_USAGE, "zero samples");
    x[130] = NAN;
    save_x(ctx, in_dir("bad.npz"), "x", x, 2, (int64_t[]){3, 64});
    refuse(ctx, m, in_dir("bad.npz"), QX_E_NUMERIC, "sample 2: input 'x' holds NaN at index 2");
    x[130] = INFINITY;
    save_x(ctx, in_dir("bad.npz"), "x", x, 2, (int64_t[]){3, 64});
    refuse(ctx, m, in_dir("bad.npz"), QX_E_NUMERIC, "Inf at index 2");
    mkdir(in_dir("nothing"), 0700);
    refuse(ctx, m, in_dir("nothing"), QX_E_USAGE, "no .npz or .npy");
    refuse(ctx, m, "x=/none:f32[2,64]", QX_E_IO, "/none");
    refuse(ctx, m, "x=/dev/null:f33[2,64]", QX_E_USAGE, "'f33'");
    qx_model_free(m);
}

static void overflow_in_the_model(void **state)
{
    qx_ctx *ctx = *state;
    world w;
    qx_samples *samples;
    float x[128] = {0};
    x[64] = 3e38f;
    x[65] = 3e38f;
    save_x(ctx, in_dir("big.npz"), "x", x, 2, (int64_t[]){2, 64});
    const char *path = in_dir("big.npz");
    open_world(ctx, &w, QX_STAT_RANGE);
    OK(qx_stats_want(w.s, &(qx_stat_request){.value = qx_graph_find(w.m->graph, "y"), .kinds = QX_STAT_RANGE}));
    for (int i = 66; i < 128; i++) x[i] = i & 1 ? 3.4e38f : -3.4e38f;
    save_x(ctx, path, "x", x, 2, (int64_t[]){2, 64});
    OK(qx_samples_open(ctx, w.m, &(qx_samples_options){.paths = &path, .n_paths = 1}, &samples));
    FAILS(qx_stats_collect(w.s, w.x, samples), QX_E_NUMERIC);
    MESSAGE_HAS(ctx, "sample 1, node '/");
    qx_samples_close(samples);
    close_world(&w);
}

static void held_out_and_limit(void **state)
{
    qx_ctx *ctx = *state;
    qx_model *m;
    qx_samples *s;
    const char *plain = MLP "calib.npz";
    OK(qx_model_read(ctx, MLP "model.onnx", NULL, &m));
    OK(qx_infer_shapes(m, NULL, 0));
    const struct { int64_t limit, count, held; } rows[] = {{0, 14, 2}, {8, 8, 1}, {15, 15, 1}, {16, 14, 2}};
    for (int i = 0; i < 4; i++) {
        OK(qx_samples_open(ctx, m, &(qx_samples_options){.paths = &plain, .n_paths = 1, .hold_out = true, .limit = rows[i].limit}, &s));
        assert_int_equal(qx_samples_count(s), rows[i].count);
        assert_int_equal(qx_samples_held_out(s), rows[i].held);
        qx_samples_close(s);
    }
    OK(qx_samples_open(ctx, m, &(qx_samples_options){.random = 3, .seed = 7}, &s));
    assert_true(qx_samples_synthetic(s));
    assert_non_null(strstr(qx_samples_describe(s), "seed 7: 3 samples (not real data)"));
    const qx_feed *feeds;
    int n;
    float first, again;
    OK(qx_samples_get(s, 2, &feeds, &n));
    first = ((float *)feeds[0].tensor->data)[1];
    OK(qx_samples_get(s, 0, &feeds, &n));
    assert_true(((float *)feeds[0].tensor->data)[1] != first);
    OK(qx_samples_get(s, 2, &feeds, &n));
    again = ((float *)feeds[0].tensor->data)[1];
    assert_true(first == again);
    qx_samples_close(s);
    qx_model_free(m);
}

/* Decoders with and without a cache merged into one file: a single If whose branches call different values by one name. Values of
 * bodies are seen although nothing needs the If's result, each under its own name; one that was never reached comes through a
 * file too. */
#define MERGED "<ir_version: 8, opset_import: [\"\" : 17]> merged (float[1,2] x, bool cached) => (float[1,2] y) {" \
    "y = If (cached) <then_branch = with_past () => (a) { h = Neg (x) a = Exp (h) }, else_branch = no_past () => (b) { h = Abs (x) b = Exp (h) }> }"

static void open_merged(qx_ctx *ctx, world *w)
{
    OK(qx_model_parse_text(ctx, MERGED, &w->m));
    OK(qx_exec_new(ctx, w->m, NULL, &w->x));
    OK(qx_stats_new(ctx, w->m->graph_hash, &w->s));
}

/* The value `h` of a branch: 0 then, 1 else. */
static const qx_value *in_branch(const world *w, int branch)
{
    const qx_attr *a = qx_node_attr(w->m->graph->first, branch ? "else_branch" : "then_branch");
    return qx_graph_find(a->graph, "h");
}

static void branches_with_the_same_names(void **state)
{
    qx_ctx *ctx = *state;
    world w, again;
    qx_samples *samples;
    const char *names[] = {"x", "cached"}, *path = in_dir("merged.npz");
    float x[] = {-3, 2};
    bool no = false;
    qx_tensor t[2];
    OK(qx_tensor_shape(ctx, &t[0], QX_DT_FLOAT, 2, (int64_t[]){1, 2}));
    OK(qx_tensor_shape(ctx, &t[1], QX_DT_BOOL, 0, NULL));
    t[0].data = x, t[1].data = &no;
    OK(qx_npz_write(ctx, path, names, t, 2));
    open_merged(ctx, &w);
    for (int i = 0; i < 2; i++)
        OK(qx_stats_want(w.s, &(qx_stat_request){.value = in_branch(&w, i), .kinds = QX_STAT_HISTOGRAM, .axis = -1}));
    OK(qx_samples_open(ctx, w.m, &(qx_samples_options){.paths = &path, .n_paths = 1}, &samples));
    OK(qx_stats_collect(w.s, w.x, samples));
    assert_int_equal(qx_stats_get(w.s, in_branch(&w, 0))->count, 0);
    assert_float_equal(qx_stats_get(w.s, in_branch(&w, 1))->max, 3, 0);
    OK(qx_stats_save(w.s, in_dir("merged.stats"), true));
    qx_samples_close(samples);
    open_merged(ctx, &again);
    OK(qx_stats_load(again.s, in_dir("merged.stats")));
    assert_float_equal(qx_stats_get(again.s, in_branch(&again, 1))->min, 2, 0);
    close_world(&w);
    close_world(&again);
}

/* What a Scan hands to its body has no producer in any graph; every trip counts. */
static void inputs_of_bodies(void **state)
{
    qx_ctx *ctx = *state;
    world w;
    qx_samples *samples;
    const char *path = in_dir("scanned.npz");
    save_x(ctx, path, "x", (float[]){1, 2, -3, 4, 5, -6}, 2, (int64_t[]){3, 2});
    OK(qx_model_parse_text(ctx, "<ir_version: 8, opset_import: [\"\" : 17]> g (float[3,2] x) => (float[3,2] y) {"
                                "y = Scan <num_scan_inputs = 1, body = row (float[2] e) => (float[2] o) { o = Neg (e) }> (x) }", &w.m));
    OK(qx_exec_new(ctx, w.m, NULL, &w.x));
    OK(qx_stats_new(ctx, w.m->graph_hash, &w.s));
    const qx_value *e = qx_node_attr(w.m->graph->first, "body")->graph->inputs[0];
    OK(qx_stats_want(w.s, &(qx_stat_request){.value = e, .kinds = QX_STAT_RANGE, .axis = -1}));
    OK(qx_samples_open(ctx, w.m, &(qx_samples_options){.paths = &path, .n_paths = 1}, &samples));
    OK(qx_stats_collect(w.s, w.x, samples));
    assert_float_equal(qx_stats_get(w.s, e)->min, -6, 0);
    assert_float_equal(qx_stats_get(w.s, e)->max, 5, 0);
    assert_int_equal(qx_stats_get(w.s, e)->count, 6);
    qx_samples_close(samples);
    close_world(&w);
}

int main(void)
{
    /* those that fork come first: a child has none of the threads that later ones start */
    const struct CMUnitTest tests[] = {TEST(going_on_after_a_kill), TEST(some_rows), TEST(several_sweeps_resumed),
                                       TEST(any_form_of_the_samples), TEST(threads), TEST(memory_budget), TEST(files), TEST(merging),
                                       TEST(scaling_channels), TEST(scaling_an_alias), TEST(bad_samples), TEST(overflow_in_the_model),
                                       TEST(held_out_and_limit), TEST(branches_with_the_same_names), TEST(inputs_of_bodies)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
