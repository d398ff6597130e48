/* test_exec.c - the executor: changing shapes, watches, runs that begin at a mark, packed weights, values asked for by name, failures,
 * and feeds that do not fit. */
#include <stdlib.h>

#include "exec_run.h"

/* Linear, bias, SiLU: one fused step. */
static const char linear_text[] =
    HEAD(17) "g (float[3,7,40] x) => (float[3,7,24] y) <float[40,24] w = random(1), float[24] b = random(2)>"
    " { a = MatMul(x, w) c = Add(b, a) s = Sigmoid(c) y = Mul(c, s) }";

static const char attention_text[] =
    HEAD(17) "g (float[2,4,9,8] q, float[2,4,11,8] k, float[2,4,11,8] v, float[2,1,9,11] mask) => (float[2,9,4,8] y)"
    "<float c = {0.35}> { kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) t = Mul(s, c) u = Add(t, mask) p = Softmax<axis=-1>(u) "
    "o = MatMul(p, v) y = Transpose<perm=[0,2,1,3]>(o) }";

static void shapes_may_change(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[batch,4] x) => (float[4,batch] y) <float[4,4] w = random(1), int64 zero = {0}>"
                     " { s = Shape(x) b = Gather<axis=0>(s, zero) f = Cast<to=1>(b) a = MatMul(x, w) c = Div(a, f) y = "
                     "Transpose<perm=[1,0]>(c) }");
    qx_exec *x = make_exec(&f, NULL);
    for (int k = 0; k < 24; k++) { /* more shapes than plans are kept */
        int64_t dims[2] = {1 + k % 12, 4};
        qx_tensor in, y;
        assert_int_equal(qx_tensor_new(f.ctx, &in, QX_DT_FLOAT, 2, dims), QX_OK);
        for (int64_t i = 0; i < in.numel; i++) ((float *)in.data)[i] = 1.0f;
        qx_feed feed = {"x", &in};
        assert_int_equal(qx_exec_run(x, &feed, 1, NULL, 1, &y), QX_OK);
        assert_int_equal(y.dims[0], 4);
        assert_int_equal(y.dims[1], dims[0]);
        const float *v = y.data;
        for (int64_t i = 1; i < dims[0]; i++) assert_true(fabsf(v[i] - v[0]) <= 1e-6f * fabsf(v[0])); /* equal rows */
        qx_tensor_free(f.ctx, &y);
        qx_tensor_free(f.ctx, &in);
    }
    qx_exec_free(x);
    unload(&f);
}

typedef struct seen { int calls[3]; double sum[3]; } seen;

static qx_status watch(void *user, int i, const qx_value *v, const qx_tensor *t)
{
    seen *s = user;
    (void)v;
    s->calls[i]++;
    for (int64_t k = 0; k < t->numel; k++) s->sum[i] += (double)((const float *)t->data)[k];
    return QX_OK;
}

static void watched_values_are_told(void **state)
{
    (void)state;
    fixture f = load(linear_text); /* linear, bias, silu: the watched sum stops fusion there */
    feeds in;
    seen s = {0};
    qx_tensor a, b;
    const char *names[2] = {"c", "y"};
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, NULL);
    qx_value *w[3] = {value(&f, "x"), value(&f, "c"), value(&f, "y")};
    assert_int_equal(qx_exec_watch(x, w, 3, watch, &s), QX_OK);
    run(&f, x, &in, &a);
    run(&f, x, &in, &b);
    for (int i = 0; i < 3; i++) assert_int_equal(s.calls[i], 2);
    assert_memory_equal(a.data, b.data, a.bytes);
    qx_tensor_free(f.ctx, &b);
    assert_int_equal(qx_exec_watch(x, NULL, 0, NULL, NULL), QX_OK);
    qx_tensor both[2];
    assert_int_equal(qx_exec_run(x, in.f, in.n, names, 2, both), QX_OK);
    double sum = 0;
    for (int64_t i = 0; i < both[0].numel; i++) sum += (double)((const float *)both[0].data)[i];
    assert_true(fabs(2 * sum - s.sum[1]) < 1e-3);
    assert_true(sqnr(&a, &both[1]) > 110);
    qx_tensor_free(f.ctx, &a);
    qx_tensor_free(f.ctx, &both[0]);
    qx_tensor_free(f.ctx, &both[1]);
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
}

/* Three products in a row, a shape that is worked out, a value that is read far behind where it is made. Watched are the first sum, the
 * second and the third; the third is made larger where `add` says so. */
typedef struct changing { int calls[3]; float add; } changing;

static qx_status change_third(void *user, int i, const qx_value *v, const qx_tensor *t)
{
    changing *c = user;
    (void)v;
    c->calls[i]++;
    for (int64_t k = 0; k < t->numel && i == 2; k++) ((float *)t->data)[k] += c->add;
    return QX_OK;
}

static void run_changed(const fixture *f, qx_exec *x, const feeds *in, changing *c, float add, qx_tensor *y)
{
    memset(c, 0, sizeof *c);
    c->add = add;
    run(f, x, in, y);
}

/* From each place the bits of a whole run, changed or not, once and again; what was before is not told. */
static void runs_begin_at_marks(void **state)
{
    static const char *const text = HEAD(17) "g (float[rows,40] x) => (float[rows,40] y) <float[40,40] v = random(1), float[40,40] w = random(2), "
        "float[40] b = random(3)> { a0 = MatMul(x, v) a = Add(a0, b) c0 = MatMul(a, w) c = Add(c0, b) sh = Shape(c) z = ConstantOfShape(sh) "
        "e0 = MatMul(c, v) e = Add(e0, z) s = Sigmoid(e) g = Mul(e, s) y = Add(g, a) }";
    (void)state;
    fixture f = load(text);
    feeds in;
    changing c;
    qx_marks *m;
    qx_tensor plain, changed, y;
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, NULL);
    qx_value *w[3] = {value(&f, "a"), value(&f, "c"), value(&f, "e")};
    const qx_value *at[3] = {w[0], w[1], w[2]}, *fed = value(&f, "x");
    assert_int_equal(qx_exec_watch(x, w, 3, change_third, &c), QX_OK);
    run_changed(&f, x, &in, &c, 1, &changed);
    ok(&f, qx_marks_new(f.ctx, at, 3, &m));
    qx_exec_mark(x, m);
    run_changed(&f, x, &in, &c, 0, &plain);
    assert_true(sqnr(&plain, &changed) < 60);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 3; i++) {
            qx_exec_begin(x, m, at + i, 3 - i);
            run_changed(&f, x, &in, &c, round ? 1 : 0, &y);
            assert_memory_equal(y.data, round ? changed.data : plain.data, y.bytes);
            for (int k = 0; k < 3; k++) assert_int_equal(c.calls[k], k >= i);
            qx_tensor_free(f.ctx, &y);
        }
    qx_exec_begin(x, m, (const qx_value *[]){at[2], fed}, 2); /* a graph input: from the start */
    run_changed(&f, x, &in, &c, 0, &y);
    assert_int_equal(c.calls[0], 1);
    assert_memory_equal(y.data, plain.data, y.bytes);
    qx_tensor_free(f.ctx, &y);
    assert_int_equal(qx_exec_watch(x, w, 3, change_third, &c), QX_OK); /* another plan: the same */
    qx_exec_begin(x, m, at + 2, 1);
    run_changed(&f, x, &in, &c, 0, &y);
    assert_int_equal(c.calls[0], 1);
    qx_tensor_free(f.ctx, &y);
    qx_tensor_free(f.ctx, &plain);
    qx_tensor_free(f.ctx, &changed);
    qx_marks_free(m);
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
}

static qx_status look_away(void *user, int w, const qx_value *v, const qx_tensor *t)
{
    return (void)user, (void)w, (void)v, (void)t, QX_OK;
}

/* Another watch is another plan, in which an activation is not fused with the product before it: what was packed for the one
 * before serves it, the weight that two products read in both orientations too. */
static void packed_weights_outlive_a_plan(void **state)
{
    (void)state;
    enum { PACKED = 3 * 256 * 256 * sizeof(float) };
    fixture f = load("<ir_version: 8, opset_import: [\"\" : 17]> g (float[8,256] x) => (float[8,256] y) <float[256,256] w = "
                     "random(1), float[256,256] u = random(2), float[256] b = random(3)> {\n"
                     "m = MatMul(x, w) a = Add(m, b) s = Relu(a) t = Gemm<transB = 1>(s, w) y = MatMul(t, u) }");
    feeds in;
    qx_tensor first, fresh, again;
    make_feeds(&f, &in);
    qx_value *mid = value(&f, "a");
    qx_exec *x = make_exec(&f, NULL), *other = make_exec(&f, NULL);
    assert_int_equal(qx_exec_watch(other, &mid, 1, look_away, NULL), QX_OK);
    run(&f, other, &in, &fresh);
    qx_exec_free(other);
    run(&f, x, &in, &first);
    assert_int_equal(qx_exec_watch(x, &mid, 1, look_away, NULL), QX_OK);
    assert_true(qx_mem_in_use(f.ctx) >= PACKED);
    run(&f, x, &in, &again);
    assert_memory_equal(again.data, fresh.data, fresh.bytes);
    qx_tensor_free(f.ctx, &again);
    assert_int_equal(qx_exec_watch(x, NULL, 0, NULL, NULL), QX_OK);
    run(&f, x, &in, &again);
    assert_memory_equal(again.data, first.data, first.bytes);
    qx_exec_free(x);
    qx_tensor_free(f.ctx, &first);
    qx_tensor_free(f.ctx, &fresh);
    qx_tensor_free(f.ctx, &again);
    free_feeds(&f, &in);
    unload(&f);
}

static qx_status stop_here(void *user, int i, const qx_value *v, const qx_tensor *t)
{
    (void)i, (void)t;
    return qx_fail(user, QX_E_CANCELLED, "enough at '%s'", v->name);
}

static void failures_leave_nothing_behind(void **state)
{
    (void)state;
    fixture f = load(attention_text);
    feeds in;
    qx_tensor y;
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, NULL);
    qx_value *w = value(&f, "u");
    assert_int_equal(qx_exec_watch(x, &w, 1, stop_here, f.ctx), QX_OK);
    assert_int_equal(qx_exec_run(x, in.f, in.n, NULL, 1, &y), QX_E_CANCELLED);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "'u'"));
    qx_ctx_clear_error(f.ctx);
    assert_int_equal(qx_exec_watch(x, NULL, 0, NULL, NULL), QX_OK);
    run(&f, x, &in, &y);
    qx_tensor_free(f.ctx, &y);
    for (int64_t n = 1; n < 400; n += 7) { /* the n-th allocation fails */
        qx_mem_fail_at(f.ctx, n);
        qx_exec *z = NULL;
        qx_status st = qx_exec_new(f.ctx, f.m, NULL, &z);
        if (st == QX_OK) st = qx_exec_run(z, in.f, in.n, NULL, 1, &y);
        qx_mem_fail_at(f.ctx, 0);
        if (st == QX_OK) qx_tensor_free(f.ctx, &y);
        else assert_int_equal(st, QX_E_NOMEM);
        qx_ctx_clear_error(f.ctx);
        qx_exec_free(z);
    }
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
}

typedef struct bad_feed { const char *name; qx_dtype type; int rank; int64_t dims[4]; const char *says; } bad_feed;

static void wrong_feeds_are_named(void **state)
{
    (void)state;
    static const bad_feed bad[] = {
        {"z", QX_DT_FLOAT, 2, {2, 4}, "no input 'z'"}, {"x", QX_DT_INT64, 2, {2, 4}, "i64[2,4]"},
        {"x", QX_DT_FLOAT, 1, {4}, "rank 1"}, {"x", QX_DT_FLOAT, 2, {2, 5}, "4 is needed"}};
    fixture f = load(HEAD(17) "g (float[b,4] x) => (float[b,4] y) { y = Relu(x) }");
    qx_exec *x = make_exec(&f, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qx_tensor t, y;
        assert_int_equal(qx_tensor_new(f.ctx, &t, bad[i].type, bad[i].rank, bad[i].dims), QX_OK);
        qx_feed feed = {bad[i].name, &t};
        assert_int_not_equal(qx_exec_run(x, &feed, 1, NULL, 1, &y), QX_OK);
        if (!strstr(qx_ctx_error(f.ctx), bad[i].says)) fail_msg("\"%s\" lacks \"%s\"", qx_ctx_error(f.ctx), bad[i].says);
        qx_ctx_clear_error(f.ctx);
        qx_tensor_free(f.ctx, &t);
    }
    qx_tensor y;
    assert_int_equal(qx_exec_run(x, NULL, 0, NULL, 1, &y), QX_E_USAGE);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "'x' is missing"));
    qx_ctx_clear_error(f.ctx);
    qx_exec_free(x);
    unload(&f);
}

static void nan_is_traced_to_its_node(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[3] x) => (float[3] y) <float m = {-2.0}> { a = Add(x, m) [\"root\"] b = Sqrt(a) y = Neg(b) }");
    qx_exec_options o = {.trace_nan = true};
    feeds in;
    qx_tensor y;
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, &o);
    assert_int_equal(qx_exec_run(x, in.f, in.n, NULL, 1, &y), QX_E_NUMERIC);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "'root'"));
    qx_ctx_clear_error(f.ctx);
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
}

/* The output behind an operator that nobody knows is stood in for by what that operator reads; the rest runs. */
/* Rows too short for vectors are reduced as columns: what a reduction of the transposed tensor gives. */
static void short_rows_are_reduced(void **state)
{
    static const char *const ops[] = {"Max", "Min", "Sum", "Mean", "Prod", "L1", "L2", "SumSquare", "LogSumExp"};
    (void)state;
    for (size_t op = 0; op < sizeof ops / sizeof *ops; op++)
        for (int n = 1; n <= 17; n += n < 4 ? 1 : 6) {
            char text[600];
            feeds in;
            qx_tensor y;
            snprintf(text, sizeof text, HEAD(18) "g (float[300,%d] x) => (float[600] y) <int64[1] last = {1}, int64[1] first = {0}>"
                     " { a = Reduce%s<keepdims=0>(x, last) t = Transpose<perm=[1,0]>(x) b = Reduce%s<keepdims=0>(t, first) "
                     "y = Concat<axis=0>(a, b) }",
                     n, ops[op], ops[op]);
            fixture f = load(text);
            make_feeds(&f, &in);
            qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = true});
            run(&f, x, &in, &y);
            for (int i = 0; i < 300; i++) {
                const float a = ((const float *)y.data)[i], b = ((const float *)y.data)[300 + i];
                if (!(fabsf(a - b) <= 1e-5f * (1 + fabsf(b))))
                    fail_msg("Reduce%s of %d, row %d: %g is not %g", ops[op], n, i, (double)a, (double)b);
            }
            qx_tensor_free(f.ctx, &y);
            qx_exec_free(x);
            free_feeds(&f, &in);
            unload(&f);
        }
}

static void parts_of_any_size_are_joined(void **state)
{
    (void)state;
    for (int n = 1; n <= 6; n++) {
        char text[300];
        feeds in;
        qx_tensor y;
        snprintf(text, sizeof text, HEAD(18) "g (float[7,%d] a, float[7,2] b) => (float[7,%d] y) { y = Concat<axis=1>(a, b) }", n, n + 2);
        fixture f = load(text);
        make_feeds(&f, &in);
        qx_exec *x = make_exec(&f, NULL);
        run(&f, x, &in, &y);
        for (int r = 0; r < 7; r++)
            for (int i = 0; i < n + 2; i++) {
                const float *from = i < n ? (const float *)in.t[0].data + r * n + i : (const float *)in.t[1].data + r * 2 + i - n;
                assert_true(((const float *)y.data)[r * (n + 2) + i] == *from);
            }
        qx_tensor_free(f.ctx, &y);
        qx_exec_free(x);
        free_feeds(&f, &in);
        unload(&f);
    }
}

static void ends_before_unknown_operators(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w)\n"
                              "{ a = Relu (x) b = Neg (a) c = com.microsoft.Unheard (b, x) y = Abs (c) z = Exp (a) w = "
                              "com.microsoft.Unheard (z) }");
    qx_ends e;
    qx_exec *x;
    ok(&f, qx_exec_ends(f.ctx, f.m, &e));
    assert_false(e.all);
    assert_int_equal(e.n, 2);
    assert_string_equal(e.names[0], "z");
    assert_string_equal(e.names[1], "b");
    assert_true(e.can[value(&f, "b")->id] && !e.can[value(&f, "c")->id] && !e.can[value(&f, "y")->id]);
    assert_int_equal(qx_exec_new(f.ctx, f.m, NULL, &x), QX_E_UNSUPPORTED);
    qx_ctx_clear_error(f.ctx);
    ok(&f, qx_exec_new(f.ctx, f.m, &(qx_exec_options){.only_watched = true}, &x));
    float data[6] = {-1, 2, -3, 4, -5, 6};
    qx_tensor in = {.dtype = QX_DT_FLOAT, .rank = 2, .dims = {2, 3}, .numel = 6, .bytes = sizeof data, .data = data}, out[2];
    ok(&f, qx_exec_run(x, &(qx_feed){"x", &in}, 1, e.names, 2, out));
    assert_true(((float *)out[1].data)[1] == -2 && ((float *)out[1].data)[2] == 0);
    for (int i = 0; i < 2; i++) qx_tensor_free(f.ctx, &out[i]);
    qx_exec_free(x);
    qx_ends_free(f.ctx, &e);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_before_unknown_operators), cmocka_unit_test(short_rows_are_reduced),
        cmocka_unit_test(parts_of_any_size_are_joined), cmocka_unit_test(shapes_may_change), cmocka_unit_test(watched_values_are_told),
        cmocka_unit_test(runs_begin_at_marks), cmocka_unit_test(packed_weights_outlive_a_plan),
        cmocka_unit_test(failures_leave_nothing_behind),
        cmocka_unit_test(wrong_feeds_are_named), cmocka_unit_test(nan_is_traced_to_its_node)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
