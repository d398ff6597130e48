/* test_forecast.c - the memory that a job says it will take is what it takes: stage by stage, whole, and under --max-memory; its time.
 * Formula by formula on a graph whose sizes are known by hand. */
#include <math.h>
#include <time.h>

#include "model_text.h"
#include "tmp_dir.h"
#include "passes/job/job.h"
#include "passes/job/settings.h"
#include "calib/stats/observer.h"
#include "runtime/exec.h"

#define LM(name) TEST_SOURCE_DIR "/samples/models/micro-llama/" name

#define UNET(name) TEST_SOURCE_DIR "/samples/models/micro-sdxl/unet/" name

static tmp_dir dir;
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

static qx_status job(qx_ctx *ctx, const char *passes, qx_report *r)
{
    const qx_quantize_options o = {.input = LM("model.onnx"), .output = tmp_path(&dir, "out.onnx"), .passes = passes, .force = true,
                                   .samples = {.text = LM("calib.txt"), .tokenizer = LM("tokenizer.json"), .seq_len = 128, .limit = 4}};
    return qx_quantize_file(ctx, &o, r);
}

static int64_t measured(const qx_report *r, const char *stage)
{
    for (int64_t i = 0; i < r->n_stages; i++)
        if (strcmp(r->stages[i].name, stage) == 0) return r->stages[i].bytes;
    return 0;
}

/* Stages of a small model: its own terms are megabytes, so that constants weigh as much as they ever do. One thread: buffers of
 * many are said for all of them, and how many are in use at once is chance. */
static void stages(void **state)
{
    static const char *const jobs[] = {"int8", "smoothquant,int8", "gptq,int4", "awq,int4", "sparsity,int8",
                                       "gptq(sequential=true),int4"};
    (void)state;
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; j++) {
        qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = 1});
        qx_report *r;
        OK(qx_report_new(ctx, &r));
        OK(job(ctx, jobs[j], r));
        double worst = 0, most = 0;
        for (int64_t i = 0; i < r->n_forecast; i++) {
            const double said = (double)r->forecast[i].bytes, was = (double)measured(r, r->forecast[i].stage);
            print_message("%s, %s: %.1f MB said, %.1f MB used\n", jobs[j], r->forecast[i].stage, said / 1e6, was / 1e6);
            assert_true(was > 0);
            assert_true(said > was / 1.15 && said < was * 2);
            worst = fmax(worst, said), most = fmax(most, was);
        }
        assert_true(r->n_forecast >= 3);
        assert_true(worst > most / 1.15 && worst < most * 1.25); /* what decides */
        qx_report_free(r);
        assert_int_equal(qx_mem_in_use(ctx), 0);
        qx_ctx_free(ctx);
    }
}

/* Any number of threads: never much more than was said. */
static void threads(void **state)
{
    (void)state;
    for (int n = 2; n <= 16; n *= 8) {
        qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = n});
        qx_report *r;
        OK(qx_report_new(ctx, &r));
        OK(job(ctx, "gptq,int4", r));
        for (int64_t i = 0; i < r->n_forecast; i++)
            assert_true((double)r->forecast[i].bytes > (double)measured(r, r->forecast[i].stage) / 1.15);
        qx_report_free(r);
        qx_ctx_free(ctx);
    }
}

/* Less than it needs: told before the work. As much as was said: it is done. */
static void limits(void **state)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_report *r;
    int64_t need = 0;
    (void)state;
    OK(qx_report_new(ctx, &r));
    OK(job(ctx, "smoothquant,int8", r));
    for (int64_t i = 0; i < r->n_forecast; i++) need = r->forecast[i].bytes > need ? r->forecast[i].bytes : need;
    qx_report_free(r);
    for (int fits = 0; fits < 2; fits++) {
        qx_ctx_configure(ctx, &(qx_ctx_options){.max_memory = (size_t)(fits ? need : 18 << 20)}); /* 18 MiB: the tokenizer alone takes 16 */
        OK(qx_report_new(ctx, &r));
        const qx_status st = job(ctx, "smoothquant,int8", r);
        assert_int_equal(st, fits ? QX_OK : QX_E_BUDGET);
        if (!fits) MESSAGE_HAS(ctx, "needs about");
        if (!fits) MESSAGE_HAS(ctx, "--max-memory is");
        assert_int_equal(measured(r, "calibrate") > 0, fits);
        qx_report_free(r);
        qx_ctx_clear_error(ctx);
    }
    qx_ctx_free(ctx);
}

/* The float weights (34 MB, with Winograd's form of filters 70) are read for each use within 128 MB of memory, INT8's and INT4's
 * may be kept: verification is told of what is kept. */
static void written_model_kept(void **state)
{
    static const char *const jobs[] = {"int8", "int4"};
    (void)state;
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; j++) {
        qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = 1, .max_memory = 128 << 20});
        qx_report *r;
        OK(qx_report_new(ctx, &r));
        const char *const sample = UNET("sample.npz");
        const qx_quantize_options o = {.input = UNET("model.onnx"), .output = tmp_path(&dir, "unet.onnx"), .passes = jobs[j], .force = true,
                                       .samples = {.paths = &sample, .n_paths = 1}};
        OK(qx_quantize_file(ctx, &o, r));
        const int64_t i = r->n_forecast - 1;
        assert_string_equal(r->forecast[i].stage, "verify");
        print_message("%s: %.1f MB said, %.1f MB used\n", jobs[j], (double)r->forecast[i].bytes / 1e6, (double)measured(r, "verify") / 1e6);
        assert_true((double)r->forecast[i].bytes > (double)measured(r, "verify") / 1.15);
        qx_report_free(r);
        qx_ctx_free(ctx);
    }
}

/* Rows that a sample does not have take no memory; the sample of rows is the same, however they come. */
static void room_for_rows(void **state)
{
    enum { ROWS = 300, LEN = 8, CAP = 64 };
    static float x[ROWS * LEN];
    qx_reservoir few = {0}, once = {0}, bits = {0};
    qx_ctx *ctx = qx_ctx_new(NULL);
    (void)state;
    for (int i = 0; i < ROWS * LEN; i++) x[i] = (float)(i * 37 % 1009);
    OK(qx_reservoir_add(ctx, &few, x, 3, LEN, LEN, 1 << 20)); /* 32 MiB of rows */
    assert_true(qx_mem_in_use(ctx) < 4096);
    OK(qx_reservoir_add(ctx, &once, x, ROWS, LEN, LEN, CAP));
    for (int i = 0, n; i < ROWS; i += n) {
        n = ROWS - i < 1 + i % 7 ? ROWS - i : 1 + i % 7;
        OK(qx_reservoir_add(ctx, &bits, x + i * LEN, n, LEN, LEN, CAP));
    }
    OK(qx_reservoir_sort(ctx, &once));
    OK(qx_reservoir_sort(ctx, &bits));
    assert_int_equal(once.n, CAP);
    assert_int_equal(bits.n, CAP);
    assert_memory_equal(once.data, bits.data, sizeof(float) * CAP * LEN);
    qx_reservoir_free(ctx, &few);
    qx_reservoir_free(ctx, &once);
    qx_reservoir_free(ctx, &bits);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
}

/* With 100 rows: x A and its Relu are alive together, and nothing else; the output is counted apart. */
static void by_hand(void **state)
{
    qx_exec *x;
    qx_exec_need need;
    qx_tensor t;
    (void)state;
    fixture f = load(HEAD(17) "g (float[rows, 4] x) => (float[rows, 3] y) <float[4, 2] a = {1, 2, 3, 4, 5, 6, 7, 8}, float[2, 3] "
                              "b = {1, 2, 3, 4, 5, 6}> { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }");
    OK(qx_infer_shapes(f.m, NULL, 0));
    OK(qx_exec_new(f.ctx, f.m, NULL, &x));
    OK(qx_tensor_new(f.ctx, &t, QX_DT_FLOAT, 2, (const int64_t[]){100, 4}));
    OK(qx_exec_forecast(x, &(qx_feed){"x", &t}, 1, NULL, &need));
    assert_int_equal(need.weights, (4 * 2 + 2 * 3) * 4);
    assert_int_equal(need.outputs, 100 * 3 * 4);
    assert_int_equal(need.activations, 2 * 100 * 2 * 4);
    assert_int_equal(need.unknown, 0);
    assert_true(need.flops == 2.0 * 100 * (4 * 2 + 2 * 3));
    assert_true(need.packed == (double)need.weights && !need.streamed);
    qx_tensor_free(f.ctx, &t);
    qx_exec_free(x);
    unload(&f);
}

/* Weights that do not fit are packed for each run, or once a sweep; Gram matrices that do not fit together take several sweeps;
 * so many rows will come. */
static void under_a_limit(void **state)
{
    enum { ROOM = 7 << 19 }; /* 3.5 MB: less than twice the weights' 2 MB */
    qx_exec *x;
    qx_stats *stats;
    qx_stats_need need;
    qx_tensor t;
    (void)state;
    fixture f = load(HEAD(17) "g (float[rows, 512] x) => (float[rows, 512] y) <float[512, 512] a = random(1), float[512, 512] b = random(2)> "
                              "{ h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }");
    const qx_value *y = qx_graph_find(f.m->graph, "y"), *in = qx_graph_find(f.m->graph, "x");
    OK(qx_infer_shapes(f.m, NULL, 0));
    OK(qx_tensor_new(f.ctx, &t, QX_DT_FLOAT, 2, (const int64_t[]){100, 512}));
    for (int limited = 0; limited < 2; limited++) {
        qx_ctx_configure(f.ctx, &(qx_ctx_options){.max_memory = limited ? qx_mem_in_use(f.ctx) + ROOM : 0});
        OK(qx_exec_new(f.ctx, f.m, &(qx_exec_options){.stream_weights = limited}, &x));
        OK(qx_stats_new(f.ctx, 1, &stats));
        OK(qx_stats_want(stats, &(qx_stat_request){.value = y, .kinds = QX_STAT_RANGE, .axis = -1}));
        OK(qx_stats_want(stats, &(qx_stat_request){.value = in, .kinds = QX_STAT_ROWS, .axis = -1, .rows = 16}));
        OK(qx_stats_forecast(stats, x, &(qx_feed){"x", &t}, 1, 3, &need));
        assert_true(need.run.packed == 2 * 512 * 512 * sizeof(float));
        assert_int_equal(need.run.streamed, limited);
        assert_int_equal(need.run.weights, (limited ? 1 : 2) * 512 * 512 * (int)sizeof(float)); /* one at a time, packed as it is read */
        assert_int_equal(need.layered, limited);
        assert_int_equal(need.sweeps, 1);
        assert_true(qx_stats_rows_to_come(stats, in, NULL) == 300);
        assert_true(isinf(qx_stats_rows_to_come(stats, qx_graph_find(f.m->graph, "h"), NULL))); /* nobody asked */
        qx_stats_free(stats);
        qx_exec_free(x);
    }
    qx_tensor_free(f.ctx, &t);
    unload(&f);
}

/* Pictures that lie in blocks of channels are copied for whoever watches them, in every run alike; a plan that is made anew keeps no
 * arena beside what it records. */
static void watched_pictures(void **state)
{
    qx_exec *x;
    qx_stats *stats;
    qx_stats_need need;
    qx_tensor t;
    (void)state;
    fixture f = load(HEAD(17) "g (float[1,16,h,w] x) => (float[1,1,1,1] y) <float[32,16,3,3] a = random(1), float[32,32,3,3] b = random(2), "
                              "float[1,4] s = {1, 1, 2, 2}> { k = Conv<pads=[1,1,1,1]>(x, a) r = Relu(k) u = Resize<mode=\"nearest\">(r, , s) "
                              "m = Conv<pads=[1,1,1,1]>(u, b) n = Sigmoid(m) y = ReduceMean<axes=[1,2,3]>(n) }");
    OK(qx_infer_shapes(f.m, NULL, 0));
    OK(qx_tensor_new(f.ctx, &t, QX_DT_FLOAT, 4, (const int64_t[]){1, 16, 160, 160}));
    memset(t.data, 0, t.bytes);
    OK(qx_exec_new(f.ctx, f.m, &(qx_exec_options){.only_watched = true}, &x));
    OK(qx_stats_new(f.ctx, 1, &stats));
    for (const char *name = "ru"; *name; name++) {
        const qx_value *v = qx_graph_find(f.m->graph, (char[]){*name, 0});
        OK(qx_stats_want(stats, &(qx_stat_request){.value = v, .kinds = QX_STAT_RANGE, .axis = -1}));
    }
    const qx_feed feed = {"x", &t};
    OK(qx_stats_forecast(stats, x, &feed, 1, 4, &need));
    const int64_t before = (int64_t)qx_mem_in_use(f.ctx);
    for (int round = 0; round < 2; round++) {
        (void)qx_mem_take_peak(f.ctx);
        OK(qx_stats_attach(stats, x));
        for (int i = 0; i < 3; i++) {
            const char *const none[1] = {NULL};
            OK(qx_exec_run(x, &feed, 1, none, 0, NULL));
        }
        OK(qx_stats_finish(stats));
        const double used = (double)((int64_t)qx_mem_take_peak(f.ctx) - before), said = (double)need.sweep;
        print_message("watched pictures, round %d: %.1f MB said, %.1f MB used\n", round, said / 1e6, used / 1e6);
        assert_true(used < said * 1.15 + (2 << 20));
    }
    qx_stats_free(stats);
    qx_exec_free(x);
    qx_tensor_free(f.ctx, &t);
    unload(&f);
}

/* Four matrices of 1 MB (and what they need beside), room for some of them. */
static void gram_sweeps(void **state)
{
    qx_exec *x;
    qx_stats *stats;
    qx_stats_need need[2];
    qx_tensor t;
    (void)state;
    fixture f = load(HEAD(17) "g (float[rows, 512] x) => (float[rows, 512] d) { a = Relu(x) b = Neg(a) c = Relu(b) d = Neg(c) }");
    OK(qx_infer_shapes(f.m, NULL, 0));
    OK(qx_tensor_new(f.ctx, &t, QX_DT_FLOAT, 2, (const int64_t[]){64, 512}));
    for (int limited = 0; limited < 2; limited++) {
        const size_t room = limited ? (size_t)need[0].sweep - (size_t)need[0].largest_gram : 0;
        qx_ctx_configure(f.ctx, &(qx_ctx_options){.max_memory = limited ? qx_mem_in_use(f.ctx) + room : 0});
        OK(qx_exec_new(f.ctx, f.m, NULL, &x));
        OK(qx_stats_new(f.ctx, 1, &stats));
        for (const char *name = "abcd"; *name; name++) {
            const qx_value *v = qx_graph_find(f.m->graph, (char[]){*name, 0});
            OK(qx_stats_want(stats, &(qx_stat_request){.value = v, .kinds = QX_STAT_GRAM, .axis = -1}));
        }
        OK(qx_stats_forecast(stats, x, &(qx_feed){"x", &t}, 1, 3, &need[limited]));
        qx_stats_free(stats);
        qx_exec_free(x);
    }
    assert_int_equal(need[0].sweeps, 1);
    assert_true(need[1].sweeps >= 2 && need[1].sweeps <= 4);
    assert_true(need[1].sweep < need[0].sweep);
    qx_tensor_free(f.ctx, &t);
    unload(&f);
}

/* Operations of what is more than a product of rows by a weight. */
static void operations(void **state)
{
    static const struct { const char *text; double flops; } rows[] = {
        {HEAD(17) "g (float[1,8,6,6] x) => (float[1,4,3,3] y) <float[4,8,3,3] w = random(1)> { y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) }",
         2.0 * 4 * 9 * 8 * 9},
        {HEAD(17) "g (float[1,8,6,6] x) => (float[1,8,6,6] y) <float[8,1,3,3] w = random(1)> { y = Conv<pads=[1,1,1,1], group=8>(x, w) }",
         2.0 * 8 * 36 * 9},
        {HEAD(17) "g (float[2,5,7] x, float[2,7,3] z) => (float[2,5,3] y) { y = MatMul(x, z) }", 2.0 * 2 * 5 * 7 * 3},
        {HEAD(17) "g (float[1,2,9,8] q, float[1,2,11,8] k, float[1,2,11,8] v) => (float[1,2,9,8] y) { t = Transpose<perm=[0,1,3,2]>(k) "
                  "s = MatMul(q, t) p = Softmax<axis=-1>(s) y = MatMul(p, v) }", 4.0 * 2 * 9 * 11 * 8},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qx_exec *x;
        qx_exec_need need;
        fixture f = load(rows[i].text);
        OK(qx_infer_shapes(f.m, NULL, 0));
        OK(qx_exec_new(f.ctx, f.m, NULL, &x));
        OK(qx_exec_forecast(x, NULL, 0, NULL, &need));
        assert_true(need.flops == rows[i].flops);
        assert_true(need.moved >= (double)need.outputs);
        qx_exec_free(x);
        unload(&f);
    }
}

/* Whether what was said is within a factor of twenty (the right unit) of the processor time that the whole job took on one thread. */
static bool told_well(const char *passes)
{
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = 1});
    qx_report *r;
    OK(qx_report_new(ctx, &r));
    const double since = (double)clock() / CLOCKS_PER_SEC;
    OK(job(ctx, passes, r));
    const double took = (double)clock() / CLOCKS_PER_SEC - since, said = r->expected_seconds;
    print_message("%s: %.2f s said, %.2f s took\n", passes, said, took);
    qx_report_free(r);
    qx_ctx_free(ctx);
    return said > took / 20 && said < took * 20;
}

/* On any machine, whatever else runs: a core that others slow down between its measurement and the work may be measured anew. */
static void seconds(void **state)
{
    static const char *const jobs[] = {"int8", "smoothquant,int8", "gptq,int4"};
    (void)state;
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; j++) assert_true(told_well(jobs[j]) || told_well(jobs[j]) || told_well(jobs[j]));
}

/* A disk that the output does not fit on is told of before any sample is run; what is not known is not guessed. */
static void disk(void **state)
{
    static const struct { const char *passes; int64_t room; qx_status status; } cases[] = {
        {"int4", 1 << 20, QX_E_IO}, {"int8-weights", 1 << 20, QX_E_IO}, {"int4", 1 << 23, QX_OK}, {"int4", 0, QX_OK},
        {"int4", 2400000, QX_OK}, {"int8-weights", 2400000, QX_E_IO}, /* between what both take */
        {"mixed(size=40%)", 1 << 16, QX_E_IO}, {"fp16,int4", 2400000, QX_OK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qx_ctx *ctx = qx_ctx_new(NULL);
        qx_model *m;
        qx_pipeline *p;
        qx_stats *s;
        OK(qx_model_read(ctx, LM("model.onnx"), NULL, &m));
        OK(qx_infer_shapes(m, NULL, 0));
        OK(qx_pipeline_parse(ctx, cases[i].passes, &p));
        OK(qx_stats_new(ctx, m->graph_hash, &s));
        p->no_stats = true;
        if (qx_pipeline_plan(p, m, NULL, s) != QX_OK) fail_msg("%s: %s", cases[i].passes, qx_ctx_error(ctx));
        p->disk_room = cases[i].room;
        const qx_status st = qx_job_fits_disk(p);
        if (st != cases[i].status) fail_msg("%s on %lld bytes: %s", cases[i].passes, (long long)cases[i].room, qx_ctx_error(ctx));
        if (st != QX_OK) MESSAGE_HAS(ctx, "are free where it goes");
        qx_stats_free(s);
        qx_pipeline_free(p);
        qx_model_free(m);
        qx_ctx_free(ctx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(stages, make_dir, remove_dir),
                                       cmocka_unit_test_setup_teardown(threads, make_dir, remove_dir),
                                       cmocka_unit_test_setup_teardown(limits, make_dir, remove_dir),
                                       cmocka_unit_test_setup_teardown(written_model_kept, make_dir, remove_dir), cmocka_unit_test(by_hand),
                                       cmocka_unit_test(under_a_limit), cmocka_unit_test(watched_pictures),
                                       cmocka_unit_test(gram_sweeps), cmocka_unit_test(room_for_rows),
                                       cmocka_unit_test(operations), cmocka_unit_test(disk), cmocka_unit_test_setup_teardown(seconds, make_dir, remove_dir)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
