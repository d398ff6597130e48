/* test_steps.c - fused steps, products of codes and observers of the CUDA plugin, against the CPU: what the standard's node tests
 * cannot reach. On its host form, or on a device (QONNX_TEST_PLUGIN). --smoke SECONDS: the few cases that a new device is tried
 * with first, each in a process of its own that ends after so long (0: never), as rows of a table: what ran it, how close it came,
 * what the libraries said. */
#include <stdlib.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/exec_run.h"
#include "kernels/observe.h"
#include "step_cases.h"

/* The kernel that took the product of the model: the only step that neither casts nor quantizes. */
static void check_kernel(qx_exec *x, const char *wanted)
{
    int n, seen = 0;
    const qx_node_time *t = qx_exec_times(x, &n);
    for (int i = 0; i < n && wanted; i++) seen += t[i].kernel && strcmp(t[i].kernel, wanted) == 0;
    if (getenv("QONNX_TEST_PLUGIN") && wanted && strcmp(wanted, "mma.sp")) return; /* a device has libraries for what is our own here */
    if (wanted && seen != 1) fail_msg("%d steps were run by '%s'", seen, wanted);
}

/* What the last run gives: the first records the memory, the second runs from it, the third is recorded and replayed where that
 * is possible, the last goes step by step. */
static void run_often(const fixture *f, const qx_exec_options *o, const char *kernel, const feeds *in, qx_tensor *out,
                      void (*told)(qx_exec *x))
{
    qx_exec *x = make_exec(f, o);
    for (int again = 0; again < 4; again++) {
        if (again) qx_tensor_free(f->ctx, out);
        qx_exec_profile(x, again == 3);
        run(f, x, in, out);
    }
    check_kernel(x, kernel);
    if (told) told(x);
    qx_exec_free(x);
}

/* A plugin for a device (QONNX_TEST_PLUGIN) may choose other kernels for what the host form has no library for. */
static qx_exec_options on_host_form(void)
{
    const char *device = getenv("QONNX_TEST_PLUGIN");
    return (qx_exec_options){.device = QX_DEVICE_CUDA, .plugin_dir = device ? device : PLUGIN_HOST_DIR};
}

/* A card's units for 8-bit floats keep 14 bits of a sum, those for the other types round it their own way. */
static double least_db(const step_case *c)
{
    const double most = !getenv("QONNX_TEST_PLUGIN") ? 999 : strstr(c->name, "fp8") ? 55 : 90;
    return c->min_db < most ? c->min_db : most;
}

static double run_case(const step_case *c, void (*told)(qx_exec *x))
{
    fixture f = load(c->text);
    feeds in;
    qx_tensor a, b;
    qx_exec_options cpu = {.device = QX_DEVICE_CPU, .no_fuse = true, .simulate = true}, dev = on_host_form();
    ok(&f, qx_infer_shapes(f.m, NULL, 0));
    make_feeds(&f, &in);
    run_often(&f, &cpu, NULL, &in, &a, NULL);
    dev.sparse = c->kernel != NULL;
    run_often(&f, &dev, c->kernel, &in, &b, told);
    const double db = sqnr(&a, &b);
    qx_tensor_free(f.ctx, &a);
    qx_tensor_free(f.ctx, &b);
    free_feeds(&f, &in);
    unload(&f);
    return db;
}

static void steps(void **state)
{
    int bad = 0;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const double db = run_case(&cases[i], NULL);
        const bool good = db >= least_db(&cases[i]);
        printf("%-56s %6.1f dB%s\n", cases[i].name, db, good ? "" : ", too few");
        bad += !good;
    }
    assert_int_equal(bad, 0);
}

/* ---- a new device ---- */

/* What ran the steps that are not the plugin's everyday kernels, and what the libraries answered. */
static void tell(qx_exec *x)
{
    int n, told = 0;
    const qx_node_time *t = qx_exec_times(x, &n);
    for (int i = 0; i < n; i++)
        if (t[i].kernel && strcmp(t[i].kernel, "own") != 0) printf("%s%s", told++ ? ", " : "", t[i].kernel);
    printf("%s | ", told ? "" : "own");
    for (int i = 0; i < n; i++)
        if (t[i].note) printf("%s ", t[i].note);
    printf("| ");
}

/* The child's end is what matters: a case that breaks the device breaks no other. */
static bool smoke_case(const step_case *c, unsigned most_seconds)
{
    int status = 0;
    printf("| %s | ", c->name);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(most_seconds); /* one that hangs holds up no other; 0: a loaded machine is no reason to stop */
        const double db = run_case(c, tell);
        printf("%.1f dB%s |\n", db, db >= least_db(c) ? "" : ", too few");
        fflush(stdout);
        _exit(db >= least_db(c) ? 0 : 1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return false;
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
        printf("**stopped%s** | | |\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ", out of time" : "");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int smoke(unsigned most_seconds)
{
    int n = 0, good = 0;
    printf("| piece | ran on | what the libraries refused | against the CPU |\n|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!cases[i].smoke) continue;
        n++;
        good += smoke_case(&cases[i], most_seconds);
    }
    printf("\n%d of %d pieces work\n", good, n);
    return good < n;
}

/* ---- a decoder's steps: lengths are fed, caches stay as long as they are until they are too short ---- */

static void decoding(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2,1,64] q, float[2,1,32] k, float[2,1,32] v, float[2,2,12,16] pk, float[2,2,12,16] pv, "
                              "int32[2] lens, int32[1] total) => (float[2,1,64] y)"
                              " { y, ck, cv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, k, v, pk, pv, "
                              "lens, total) }");
    const qx_exec_options cpu = {.device = QX_DEVICE_CPU}, dev = on_host_form();
    feeds in;
    ok(&f, qx_infer_shapes(f.m, NULL, 0));
    make_feeds(&f, &in);
    for (int i = 5; i < 7; i++) in.t[i].dtype = QX_DT_INT32; /* as wide as the floats that were made */
    qx_exec *a = make_exec(&f, &cpu), *b = make_exec(&f, &dev);
    for (int32_t total = 5; total < 15; total += 2) { /* 13: longer than the cache */
        qx_tensor want, got;
        ((int32_t *)in.t[5].data)[0] = total - 1;
        ((int32_t *)in.t[5].data)[1] = total - 4;
        *(int32_t *)in.t[6].data = total;
        run(&f, a, &in, &want);
        run(&f, b, &in, &got);
        assert_true(sqnr(&want, &got) > 110);
        qx_tensor_free(f.ctx, &want);
        qx_tensor_free(f.ctx, &got);
    }
    ((int32_t *)in.t[5].data)[1] = 40; /* beyond every cache: an error, and nothing out of bounds */
    qx_tensor none;
    assert_int_equal(qx_exec_run(b, in.f, in.n, NULL, 1, &none), QX_E_SHAPE);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "GroupQueryAttention"));
    qx_exec_free(a);
    qx_exec_free(b);
    free_feeds(&f, &in);
    unload(&f);
}

/* ---- observers ---- */

/* Two looks at the value in each run (as rows of 50, and as [2, 3, 50]), and its Gram matrix over all runs. */
typedef struct observing { qx_exec *x; const float *data; void *gram; int calls, seen; } observing;
static const qx_look asked[2] = {{true, 6, 50, 1}, {false, 2, 3, 50}};

static void same_pair(qx_dd a, qx_dd b) { assert_true(fabs(qx_dd_value(a) - qx_dd_value(b)) <= 1e-12 * (1 + fabs(qx_dd_value(a)))); }

static void compare_columns(const observing *o, const qx_seen *seen, const qx_look *as)
{
    float ends[2][64];
    qx_dd sums[3][64];
    const qx_columns want = {ends[0], ends[1], sums[0], sums[1], sums[2]}, *got = &seen->columns;
    memset(sums, 0, sizeof sums);
    assert_int_equal(seen->channels, as->channels);
    for (int64_t i = 0; i < as->channels; i++) ends[0][i] = 1e30f, ends[1][i] = -1e30f;
    for (int64_t p = 0; p < as->outer * as->inner; p++) {
        float row[64];
        for (int64_t c = 0; c < as->channels; c++) row[c] = o->data[(p / as->inner * as->channels + c) * as->inner + p % as->inner];
        qx_columns_f32(row, 1, as->channels, as->channels, &want);
    }
    for (int64_t c = 0; c < as->channels; c++) {
        assert_true(want.min[c] == got->min[c] && want.max[c] == got->max[c]);
        same_pair(want.sum[c], got->sum[c]);
        same_pair(want.abs[c], got->abs[c]);
        same_pair(want.sq[c], got->sq[c]);
    }
}

static qx_status looked(void *user, const qx_seen *s)
{
    observing *o = user;
    const qx_look *as = &asked[o->seen++ % 2];
    const qx_scan b = qx_scan_f32(o->data, 300, true), *a = &s->scan;
    uint64_t want[4096] = {0};
    assert_true(a->min == b.min && a->max == b.max && a->absmax == b.absmax && a->zeros == b.zeros && a->n == b.n && !a->nonfinite);
    same_pair(a->sum, b.sum);
    same_pair(a->abs, b.abs);
    same_pair(a->sumsq, b.sumsq);
    compare_columns(o, s, as);
    assert_true((s->bins != NULL) == as->histogram);
    if (!s->bins) return QX_OK;
    assert_true(b.absmax < ldexpf(4096, s->exp) && b.absmax >= ldexpf(2048, s->exp));
    qx_hist_f32(o->data, 300, ldexpf(1, -s->exp), want);
    for (int k = 0; k < 4096; k++) assert_int_equal(s->bins[k], want[k]);
    return QX_OK;
}

static qx_status watch(void *user, int i, const qx_value *v, const qx_tensor *t)
{
    observing *o = user;
    const qx_tensor *host = NULL;
    (void)i;
    assert_true(t->on_device);
    for (int k = 0; k < 2; k++) assert_int_equal(qx_exec_look(o->x, t, &asked[k], looked, o), QX_OK);
    assert_int_equal(qx_exec_gram_add(o->x, t, &o->gram), QX_OK);
    assert_int_equal(o->seen, 2 * o->calls); /* nobody has waited yet */
    o->calls++;
    assert_int_equal(qx_exec_fetch(o->x, v, &host), QX_OK);
    assert_memory_equal(host->data, o->data, host->bytes);
    return QX_OK;
}

static void compare_gram(observing *o, int runs)
{
    double gram[50 * 50];
    assert_int_equal(qx_exec_gram_take(o->x, o->gram, gram), QX_OK);
    for (int r = 0; r < 50; r++)
        for (int c = r; c < 50; c++) {
            double want = 0;
            for (int k = 0; k < 6; k++) want += runs * (double)o->data[k * 50 + r] * (double)o->data[k * 50 + c];
            assert_true(fabs(gram[r * 50 + c] - want) <= (getenv("QONNX_TEST_PLUGIN") ? 1e-5 : 2e-6) * runs);
        }
}

static void observers(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[6,50] x) => (float[6,50] y) { a = Relu(x) y = Neg(a) }");
    feeds in;
    qx_tensor y;
    qx_exec_options o = on_host_form();
    observing ob = {0};
    float relu[300];
    ok(&f, qx_infer_shapes(f.m, NULL, 0));
    make_feeds(&f, &in);
    for (int i = 0; i < 300; i++) relu[i] = ((float *)in.t[0].data)[i] > 0 ? ((float *)in.t[0].data)[i] : 0;
    ob.data = relu;
    ob.x = make_exec(&f, &o);
    qx_value *values[1] = {value(&f, "a")};
    ok(&f, qx_exec_watch(ob.x, values, 1, watch, &ob));
    qx_exec_watch_in_place(ob.x, true);
    for (int k = 0; k < 2; k++) {
        run(&f, ob.x, &in, &y);
        qx_tensor_free(f.ctx, &y);
    }
    assert_int_equal(ob.calls, 2);
    assert_int_equal(ob.seen, 4);
    compare_gram(&ob, 2);
    qx_exec_free(ob.x);
    free_feeds(&f, &in);
    unload(&f);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--smoke") == 0) return smoke((unsigned)atoi(argv[2]));
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps), cmocka_unit_test(decoding), cmocka_unit_test(observers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
