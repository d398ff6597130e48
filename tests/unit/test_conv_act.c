/* test_conv_act.c - what follows a convolution as part of it: every activation behind every kind of convolution gives what the nodes give one by one, and the step is
 * gone; so does the mean of a picture. Bounds that are not constant, and results that something else reads, stay nodes of their own. Pictures that a mean of
 * themselves scales keep their layout, one node takes pictures of any size, one pixel too, and the number of threads changes no byte. */
#include "base/ctx.h"
#include "exec_run.h"
#include "runtime/dnnl/door.h"
#include "runtime/plan.h"

static const char *const acts[] = {"Relu(t)", "LeakyRelu<alpha=0.2>(t)", "HardSwish(t)", "HardSigmoid<alpha=0.3,beta=0.4>(t)", "Sigmoid(t)", "Tanh(t)", "Clip(t, lo, hi)", "Clip(t, lo)"};
/* Winograd, one pixel, depthwise, channels that are no whole blocks, a line, one group of several. */
typedef struct shape { const char *x, *w, *b, *attrs, *y; } shape;
static const shape shapes[] = {{"1,32,20,20", "48,32,3,3", "48", "pads=[1,1,1,1]", "1,48,20,20"}, {"2,32,5,5", "16,32,1,1", "16", "group=1", "2,16,5,5"},
                               {"1,32,9,9", "32,1,3,3", "32", "group=32,strides=[2,2]", "1,32,4,4"}, {"1,13,7,6", "21,13,2,3", "21", "group=1", "1,21,6,4"},
                               {"1,8,30", "12,8,5", "12", "group=1", "1,12,26"}, {"1,8,6,6", "12,4,3,3", "12", "group=2", "1,12,4,4"}};

static uint32_t run_once(const char *text, bool no_fuse, qx_tensor *y)
{
    fixture f = load(text);
    feeds in;
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = no_fuse});
    qx_tensor out;
    run(&f, x, &in, &out);
    qx_tensor_free(f.ctx, &out);
    run(&f, x, &in, &out); /* the second run takes what the first has made */
    y->numel = out.numel;
    memcpy(y->data, out.data, out.bytes);
    const uint32_t steps = x->main->n_steps;
    qx_tensor_free(f.ctx, &out);
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
    return steps;
}

/* Steps that fusing spares; the results agree. */
static uint32_t spared(const char *text)
{
    static float plain[1 << 16], fused[1 << 16];
    qx_tensor a = {.data = plain}, b = {.data = fused};
    const uint32_t before = run_once(text, true, &a), after = run_once(text, false, &b);
    assert_true(sqnr(&a, &b) > 100);
    return before - after;
}

static void activations(void **state)
{
    char text[1024];
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t k = 0; k < sizeof acts / sizeof *acts; k++) {
            const shape *s = &shapes[i];
            snprintf(text, sizeof text, HEAD(18) "g (float[%s] x, float[%s] w, float[%s] b) => (float[%s] y) <float lo = {-0.5}, float hi = {1.5}> { t = Conv<%s>(x, w, b) y = %s }", s->x, s->w, s->b, s->y,
                     s->attrs, acts[k]);
            assert_int_equal(spared(text), 1);
        }
}

/* Blocked and channels-last pictures between convolutions, an activation behind each, and squeeze and excitation by ReduceMean. */
static void chains(void **state)
{
    static const char form[] = HEAD(18) "g (float[1,%d,12,12] x, float[%d,%d,3,3] w, float[%d,%d,1,1] v, float[%d,%d,1,1] u) => (float[1,%d,12,12] y) <int64[2] axes = {-2, 3}, float six = {6}, float zero = {0}>"
                                        " { a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) m = ReduceMean(b, axes) p = Conv(m, v) q = HardSigmoid(p) r = Mul(b, q) s = Conv(r, u) y = Clip(s, zero, six) }";
    char text[1024];
    (void)state;
    for (int c = 24; c <= 32; c += 8) {
        snprintf(text, sizeof text, form, c, c, c, c, c, c, c, c);
        assert_int_equal(spared(text), 3);
    }
}

/* Values that the plan keeps in a layout of convolutions. */
static int laid_out(const char *text)
{
    fixture f = load(text);
    feeds in;
    qx_tensor out;
    int n = 0;
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = false});
    run(&f, x, &in, &out);
    for (uint32_t i = 0; i < x->n_values; i++) n += x->info[i].block != 0;
    qx_tensor_free(f.ctx, &out);
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
    return n;
}

/* The gate, one pixel a channel, ties nothing: the picture before and behind it stays as convolutions leave it. */
static void gates(void **state)
{
    (void)state;
    if (!qx_dnnl_block()) skip();
    assert_int_equal(laid_out(HEAD(18) "g (float[1,32,12,12] x, float[32,32,3,3] w, float[32,32,1,1] v) => (float[1,32,12,12] y) { a = Conv<pads=[1,1,1,1]>(x, w) m = GlobalAveragePool(a) p = Conv(m, v)"
                                       " q = Sigmoid(p) r = Mul(a, q) y = Conv(r, v) }"), 2);
}

enum { CH = 8 };

/* The product with weights w[i][k] = ((7 i + 3 k) % 11 - 5) / 8, at each pixel: exact in float. */
static void expect_product(const qx_tensor *x, const qx_tensor *y)
{
    const int64_t pixels = x->dims[2] * x->dims[3];
    const float *in = x->data, *out = y->data;
    assert_int_equal(y->numel, x->numel);
    for (int i = 0; i < CH; i++)
        for (int64_t p = 0; p < pixels; p++) {
            float s = 0;
            for (int k = 0; k < CH; k++) s += (float)((7 * i + 3 * k) % 11 - 5) / 8 * in[k * pixels + p];
            assert_true(s == out[i * pixels + p]);
        }
}

/* One node, constant weights, pictures of other sizes from call to call: what is packed for one size serves it again, and is made anew for others. */
static void sizes(void **state)
{
    static const int64_t dims[][2] = {{1, 1}, {6, 5}, {1, 1}, {2, 1}, {6, 5}};
    char text[2048];
    int n = snprintf(text, sizeof text, HEAD(18) "g (float[1,%d,H,W] x) => (float[1,%d,H,W] y) <float[%d,%d,1,1] w = {", CH, CH, CH, CH);
    (void)state;
    for (int i = 0; i < CH * CH; i++) n += snprintf(text + n, sizeof text - (size_t)n, "%s%g", i ? ", " : "", (double)((7 * (i / CH) + 3 * (i % CH)) % 11 - 5) / 8);
    snprintf(text + n, sizeof text - (size_t)n, "}> { y = Conv(x, w) }");
    fixture f = load(text);
    qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = false});
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        qx_tensor in, out;
        ok(&f, qx_tensor_new(f.ctx, &in, QX_DT_FLOAT, 4, (int64_t[]){1, CH, dims[i][0], dims[i][1]}));
        for (int64_t k = 0; k < in.numel; k++) ((float *)in.data)[k] = (float)((k * 5 + (int64_t)i) % 17 - 8);
        ok(&f, qx_exec_run(x, &(qx_feed){"x", &in}, 1, NULL, 1, &out));
        expect_product(&in, &out);
        qx_tensor_free(f.ctx, &in);
        qx_tensor_free(f.ctx, &out);
    }
    qx_exec_free(x);
    unload(&f);
}

/* 3x3 convolutions large enough for Winograd's algorithm: right, and the same bytes for any number of threads. */
static void any_threads(void **state)
{
    static const int counts[] = {1, 2, 3, 7};
    static const char *const shapes3[][4] = {{"2,40,23,18", "70,40,3,3", "pads=[1,0,1,1]", "2,70,23,17"}, {"1,64,40,40", "64,64,3,3", "pads=[1,1,1,1]", "1,64,40,40"}, {"1,33,30,31", "32,33,3,3", "group=1", "1,32,28,29"}};
    char text[512];
    (void)state;
    for (size_t k = 0; k < sizeof shapes3 / sizeof *shapes3; k++) {
        qx_tensor first = {.data = NULL}, out;
        const char *const *s = shapes3[k];
        snprintf(text, sizeof text, HEAD(18) "g (float[%s] x, float[%s] w) => (float[%s] y) { t = Conv<%s>(x, w) y = Relu(t) }", s[0], s[1], s[3], s[2]);
        fixture f = load(text);
        feeds in;
        make_feeds(&f, &in);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            f.ctx->threads = counts[i];
            qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = false});
            run(&f, x, &in, i ? &out : &first);
            if (i) assert_memory_equal(out.data, first.data, out.bytes);
            if (i) qx_tensor_free(f.ctx, &out);
            qx_exec_free(x);
        }
        const float *px = in.t[0].data, *pw = in.t[1].data, *py = first.data;
        const int64_t *xd = in.t[0].dims, *yd = first.dims, pad_y = k < 2, pad_x = k == 0 ? 0 : k == 1;
        for (int64_t p = 0; p < first.numel; p += 97) {
            const int64_t c = p % yd[3], r = p / yd[3] % yd[2], o = p / yd[3] / yd[2] % yd[1], n = p / yd[3] / yd[2] / yd[1];
            double sum = 0;
            for (int64_t i = 0; i < xd[1] * 9; i++) {
                const int64_t yy = r + i % 9 / 3 - pad_y, xx = c + i % 3 - pad_x;
                if (yy >= 0 && yy < xd[2] && xx >= 0 && xx < xd[3]) sum += (double)px[((n * xd[1] + i / 9) * xd[2] + yy) * xd[3] + xx] * (double)pw[o * xd[1] * 9 + i];
            }
            assert_true(fabs((double)py[p] - (sum > 0 ? sum : 0)) < 1e-4);
        }
        qx_tensor_free(f.ctx, &first);
        free_feeds(&f, &in);
        unload(&f);
    }
}

static void apart(void **state)
{
    (void)state;
    assert_int_equal(spared(HEAD(18) "g (float[1,4,5,5] x, float[4,4,1,1] w, float lo) => (float[1,4,5,5] y) { t = Conv(x, w) y = Clip(t, lo) }"), 0);
    assert_int_equal(spared(HEAD(18) "g (float[1,4,5,5] x, float[4,4,1,1] w) => (float[1,4,5,5] y) { t = Conv(x, w) u = Relu(t) y = Add(t, u) }"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(activations), cmocka_unit_test(chains), cmocka_unit_test(gates), cmocka_unit_test(sizes), cmocka_unit_test(any_threads), cmocka_unit_test(apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
