/* test_conv_act.c - what follows a convolution as part of it: every activation behind every kind of convolution gives what the
 * nodes give one by one, and the step is gone; so does the mean of a picture. Bounds that are not constant, and results that
 * something else reads, stay nodes of their own. Pictures that a mean of themselves scales keep their layout, one node takes
 * pictures of any size, one pixel too, and the number of threads changes no byte. */
#include "base/ctx.h"
#include "exec_run.h"
#include "runtime/dnnl/door.h"
#include "runtime/plan.h"

static const char *const acts[] = {"Relu(t)", "LeakyRelu<alpha=0.2>(t)", "HardSwish(t)", "HardSigmoid<alpha=0.3,beta=0.4>(t)",
                                   "Sigmoid(t)", "Tanh(t)", "Clip(t, lo, hi)", "Clip(t, lo)"};
/* Winograd, one pixel, depthwise, channels that are no whole blocks, a line, one group of several. */
typedef struct shape { const char *x, *w, *b, *attrs, *y; } shape;
static const shape shapes[] = {{"1,32,20,20", "48,32,3,3", "48", "pads=[1,1,1,1]", "1,48,20,20"},
                               {"2,32,5,5", "16,32,1,1", "16", "group=1", "2,16,5,5"},
                               {"1,32,9,9", "32,1,3,3", "32", "group=32,strides=[2,2]", "1,32,4,4"},
                               {"1,13,7,6", "21,13,2,3", "21", "group=1", "1,21,6,4"},
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

static void act_text(char *text, size_t size, const shape *s, const char *act)
{
    snprintf(text, size, HEAD(18) "g (float[%s] x, float[%s] w, float[%s] b) => (float[%s] y) <float lo = {-0.5}, float hi = "
                                  "{1.5}> { t = Conv<%s>(x, w, b) y = %s }", s->x, s->w, s->b, s->y, s->attrs, act);
}

static void activations(void **state)
{
    char text[1024];
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t k = 0; k < sizeof acts / sizeof *acts; k++) {
            act_text(text, sizeof text, &shapes[i], acts[k]);
            assert_int_equal(spared(text), 1);
        }
}

static void sum_text(char *text, size_t size, const shape *s, const char *act)
{
    snprintf(text, size, HEAD(18) "g (float[%s] x, float[%s] w, float[%s] b, float[%s] r) => (float[%s] y) { t = Conv<%s>(x, w, "
                                  "b) u = Add(r, t) y = %s }", s->x, s->w, s->b, s->y, s->y, s->attrs, act);
}

/* What is added may be laid out otherwise, be read by others, or be the graph's input; a sum with a smaller tensor stays a node. */
static void sums(void **state)
{
    char text[1024];
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        sum_text(text, sizeof text, &shapes[i], "HardSwish(u)");
        assert_int_equal(spared(text), 2);
    }
    for (int c = 24; c <= 32; c += 8) {
        snprintf(text, sizeof text, HEAD(18) "g (float[1,%d,20,20] x, float[%d,%d,3,3] w, float[%d,%d,1,1] v, float[1,%d,1,1] z) "
                                             "=> (float[1,%d,20,20] y) { a = Conv<pads=[1,1,1,1]>(x, w) b = Add(a, x)"
                 " c = Relu(b) d = Conv(c, v) e = Add(c, d) f = Conv<pads=[1,1,1,1]>(e, w) g = Add(f, e) h = Conv(g, v) y = Add(h, z) }",
                     c, c, c, c, c, c, c);
        assert_int_equal(spared(text), 4);
    }
}

/* n numbers of (lo, hi) as an initializer. */
static int put_numbers(char *to, const char *type, int n, double lo, double hi)
{
    int at = sprintf(to, "%s = {", type);
    for (int i = 0; i < n; i++) at += sprintf(to + at, "%s%.4f", i ? ", " : "", lo + (hi - lo) * (double)(i * 7919 % 1009) / 1009);
    return at + sprintf(to + at, "}, ");
}

/* Weights take in a BatchNormalization behind them: with and without a bias, before a sum, grouped, in every kind of kernel, one
 * pixel too. */
static void norms(void **state)
{
    static const struct { int in, out, group, kernel, side; bool bias; } kinds[] =
        {{33, 40, 1, 3, 18, true}, {32, 16, 1, 3, 5, false}, {24, 24, 24, 3, 6, true}, {16, 8, 2, 1, 4, false}, {8, 12, 1, 1, 1, true}};
    static char text[1 << 18];
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const int in = kinds[i].in, out = kinds[i].out, k = kinds[i].kernel, side = kinds[i].side;
        char type[64];
        int at = sprintf(text, HEAD(18) "g (float[2,%d,%d,%d] x, float[2,%d,%d,%d] r) => (float[2,%d,%d,%d] y) <", in, side, side, out,
                         side, side, out, side, side);
        sprintf(type, "float[%d,%d,%d,%d] w", out, in / kinds[i].group, k, k);
        at += put_numbers(text + at, type, out * in / kinds[i].group * k * k, -1, 1);
        for (int p = 0; p < 5; p++) {
            sprintf(type, "float[%d] %c", out, "bsamv"[p]);
            at += put_numbers(text + at, type, out, p == 4 ? 0.1 : -1, 2);
        }
        sprintf(text + at, "float unused = {0}> { t = Conv<group=%d,pads=[%d,%d,%d,%d]>(x, w%s) n = "
                           "BatchNormalization<epsilon=0.01>(t, s, a, m, v) u = Add(n, r) y = Relu(u) }", kinds[i].group, k / 2, k / 2,
                           k / 2,
                k / 2, kinds[i].bias ? ", b" : "");
        assert_int_equal(spared(text), 3);
    }
    /* behind pictures of several convolutions it takes the activation */
    for (int c = 16; c <= 24; c += 8) {
        int at = sprintf(text, HEAD(18) "g (float[1,%d,7,6] x, float[%d,%d,3,3] w, float[%d] s, float[%d] a, float[%d] m) => "
                                        "(float[1,%d,7,6] y) <", c, c, 2 * c, 2 * c, 2 * c, 2 * c, c);
        char type[64];
        sprintf(type, "float[%d] v", 2 * c);
        at += put_numbers(text + at, type, 2 * c, 0.1, 2);
        sprintf(text + at, "float zero = {0}> { p = Neg(x) q = Concat<axis=1>(x, p) n = BatchNormalization(q, s, a, m, v) u = "
                           "Clip(n, zero) y = Conv<pads=[1,1,1,1]>(u, w) }");
        assert_int_equal(spared(text), 1);
    }
    /* statistics that are not constant, and weights that are not: nodes of their own */
    assert_int_equal(spared(HEAD(18) "g (float[1,4,5,5] x, float[4,4,1,1] w, float[4] s) => (float[1,4,5,5] y) <float[4] v = {1, "
                                     "2, 3, 4}> { t = Conv(x, w) y = BatchNormalization(t, s, v, v, v) }"), 0);
}

static void run_not_finite(const char *text, bool no_fuse, float *y, int64_t *n)
{
    fixture f = load(text);
    feeds in;
    qx_tensor out;
    make_feeds(&f, &in);
    float *x = in.t[0].data;
    x[7] = NAN, x[in.t[0].numel - 3] = INFINITY, x[in.t[0].numel / 2] = -INFINITY, x[1] = 1e-42f;
    qx_exec *e = make_exec(&f, &(qx_exec_options){.no_fuse = no_fuse});
    for (int again = 0; again < 2; again++) { /* the second run takes what the first has made */
        run(&f, e, &in, &out);
        memcpy(y, out.data, out.bytes);
        *n = out.numel;
        qx_tensor_free(f.ctx, &out);
    }
    qx_exec_free(e);
    free_feeds(&f, &in);
    unload(&f);
}

static void expect_same_nan(const char *text)
{
    static float plain[1 << 16], fused[1 << 16];
    int64_t n, nans = 0;
    run_not_finite(text, true, plain, &n);
    run_not_finite(text, false, fused, &n);
    for (int64_t j = 0; j < n; j++) {
        nans += isnan(plain[j]) != 0;
        if (isnan(plain[j]) || isnan(fused[j])) assert_true(isnan(plain[j]) && isnan(fused[j]));
        else assert_true(plain[j] == fused[j] || fabsf(plain[j] - fused[j]) < 1e-4f);
    }
    assert_true(nans > 0 && nans < n);
}

/* NaN and Inf in a picture come out where the nodes one by one let them come out: none becomes a number. */
static void not_finite(void **state)
{
    char text[1024];
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        for (size_t k = 0; k < sizeof acts / sizeof *acts; k++) {
            act_text(text, sizeof text, s, acts[k]);
            expect_same_nan(text);
        }
        sum_text(text, sizeof text, s, "Relu(u)");
        expect_same_nan(text);
    }
}

/* Blocked and channels-last pictures between convolutions, an activation behind each, and squeeze and excitation by ReduceMean. */
static void chains(void **state)
{
    static const char form[] = HEAD(18) "g (float[1,%d,12,12] x, float[%d,%d,3,3] w, float[%d,%d,1,1] v, float[%d,%d,1,1] u) => "
                                        "(float[1,%d,12,12] y) <int64[2] axes = {-2, 3}, float six = {6}, float zero = {0}>"
                                        " { a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) m = ReduceMean(b, axes) p = Conv(m, v) q = "
                                        "HardSigmoid(p) r = Mul(b, q) s = Conv(r, u) y = Clip(s, zero, six) }";
    char text[1024];
    (void)state;
    for (int c = 24; c <= 32; c += 8) {
        snprintf(text, sizeof text, form, c, c, c, c, c, c, c, c);
        assert_int_equal(spared(text), 3);
    }
}

/* HardSwish as exporters without it write it, behind a convolution whose bias is a node of its own: one step; with other numbers
 * it stays as it is. */
static void written_out(void **state)
{
    static const struct { const char *nodes; int nodes_less; } forms[] = {
        {"a = Add(t, three) c = Clip(a, zero, six) m = Mul(t, c) y = Div(m, six)", 4},
        {"a = Add(three, t) c = Clip(a, zero, six) d = Div(c, six) y = Mul(d, t)", 4},
        {"a = Add(t, three) c = Clip(a, zero, six) m = Mul(c, t) y = Mul(m, sixth)", 4},
        {"a = Add(t, three) c = Clip(a, zero, six) d = Mul(sixth, c) y = Mul(t, d)", 4},
        {"a = Add(t, three) c = Clip(a, zero, three) m = Mul(t, c) y = Div(m, six)", 0},
            {"a = Add(t, six) c = Clip(a, zero, six) m = Mul(t, c) y = Div(m, six)", 0}};
    static const struct { const char *dims; int fits; } biases[] = {{"1,32,1,1", 1}, {"32,1,1", 1}, {"1,32,1,20", 0}, {"20", 0}};
    static char text[8192];
    (void)state;
    for (size_t b = 0; b < sizeof biases / sizeof *biases; b++)
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
            int n = snprintf(text, sizeof text, HEAD(18) "g (float[1,8,20,20] x) => (float[1,32,18,20] y) <float three = {3}, "
                                                         "float six = {6}, float zero = {0}, float sixth = {0.16666667}, "
                                                         "float[32,8,3,3] k = {");
            for (int j = 0; j < 32 * 8 * 9; j++)
                n += snprintf(text + n, sizeof text - (size_t)n, "%s%d", j ? "," : "", (j * 7 + j / 9) % 5 - 2);
            n += snprintf(text + n, sizeof text - (size_t)n, "}, float[%s] bias = {", biases[b].dims);
            for (int j = 0; j < (strcmp(biases[b].dims, "20") == 0 ? 20 : strcmp(biases[b].dims, "1,32,1,20") == 0 ? 640 : 32); j++)
                n += snprintf(text + n, sizeof text - (size_t)n, "%s%d", j ? "," : "", j % 7 - 3);
            snprintf(text + n, sizeof text - (size_t)n, "}> { s = Conv<pads=[0,1,0,1]>(x, k) t = Add(s, bias) %s }", forms[i].nodes);
            assert_int_equal(spared(text), biases[b].fits + (forms[i].nodes_less == 0 ? 0 : biases[b].fits ? 4 : 3));
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
    assert_int_equal(laid_out(HEAD(18) "g (float[1,32,12,12] x, float[32,32,3,3] w, float[32,32,1,1] v) => (float[1,32,12,12] y) "
                                       "{ a = Conv<pads=[1,1,1,1]>(x, w) m = GlobalAveragePool(a) p = Conv(m, v)"
                                       " q = Sigmoid(p) r = Mul(a, q) y = Conv(r, v) }"), 2);
}

/* The same bytes as when every value in between is asked for by name, so that no step takes in another. Returns the steps spared. */
static uint32_t same_bytes(const char *text, const char *const *names, int n)
{
    enum { MOST = 16 };
    fixture f = load(text);
    feeds in;
    qx_tensor one, all[MOST];
    assert_in_range(n, 1, MOST);
    make_feeds(&f, &in);
    qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = false});
    run(&f, x, &in, &one);
    const uint32_t steps = x->main->n_steps;
    ok(&f, qx_exec_run(x, in.f, in.n, names, n, all));
    assert_int_equal(one.bytes, all[0].bytes);
    assert_memory_equal(one.data, all[0].data, one.bytes);
    const uint32_t spared_steps = x->main->n_steps - steps;
    for (int i = 0; i < n; i++) qx_tensor_free(f.ctx, &all[i]);
    qx_tensor_free(f.ctx, &one);
    qx_exec_free(x);
    free_feeds(&f, &in);
    unload(&f);
    return spared_steps;
}

#define CODES(to, from) " " to "q = QuantizeLinear(" from ", s, z) " to " = DequantizeLinear(" to "q, s, z)"
/* A network of INT8: pictures of codes and what lies between convolutions (sums, pools, Split, Concat, Resize) have their channels last
 * from the first convolution to the last; what follows a convolution or a sum up to QuantizeLinear is one step with it; and the result
 * has the bytes of steps that are not. */
static void codes(void **state)
{
    static float plain[1 << 14], fused[1 << 14];
    static const char form[] = HEAD(18)
        "g (float[2,24,12,10] x) => (float[2,40,6,5] y) <float s = {0.02}, %s z = {%d}, int8[24,24,3,3] w = random(5), "
        "float[24] ws = fill(0.02), float[24] b = random(6), int8[40,48,3,3] w2 = random(7), float k = {0.03}, float low = {-0.7}, "
        "float high = {1.1}, float[4] scales = {1, 1, 0.5, 0.5}>"
        " { v = DequantizeLinear<axis=0>(w, ws) v2 = DequantizeLinear(w2, k)" CODES("d", "x")
        " a = Conv<pads=[1,1,1,1]>(d, v, b) r = Relu(a)" CODES("e", "r") " c = Conv<pads=[1,1,1,1]>(e, v)" CODES("f", "c")
        " t = Add(e, f) u = Clip(t, low, high)" CODES("h", "u") " g = HardSwish(h)" CODES("hs", "g")
        " tt = Add(h, e)" CODES("k2", "tt")
        " p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(k2)" CODES("i", "p")
        " j = Resize<mode=\"nearest\">(hs, , scales) l, m = Split<axis=1,num_outputs=2>(j) n = Concat<axis=1>(m, i, l)" CODES("o", "n")
        " y = Conv<pads=[1,1,1,1]>(o, v2) }";
    static const char *const names[] = {"y", "a", "r", "c", "e", "f", "t", "u", "h", "g", "tt"};
    char text[2048];
    (void)state;
    for (int zero = 0; zero < 2; zero++) {
        qx_tensor a = {.data = plain}, b = {.data = fused};
        snprintf(text, sizeof text, form, zero ? "int8" : "uint8", zero ? 7 : 0);
        run_once(text, true, &a);
        run_once(text, false, &b);
        assert_true(sqnr(&a, &b) > 60);
        if (qx_dnnl_block() == 16) assert_int_equal(laid_out(text), 15);
        assert_int_equal(same_bytes(text, names, 11), 10);
    }
}

enum { CH = 8 };

static double weight_of(int i, int k, int tap) { return (double)((7 * i + 3 * k + 5 * tap) % 11 - 5) / 8; }

/* The convolution with size x size taps around each pixel: exact in float. */
static void expect_sums(const qx_tensor *x, const qx_tensor *y, int size)
{
    const int64_t h = x->dims[2], w = x->dims[3];
    const float *in = x->data, *out = y->data;
    assert_int_equal(y->numel, x->numel);
    for (int64_t at = 0; at < y->numel; at++) {
        double s = 0;
        for (int t = 0; t < size * size; t++) {
            const int64_t r = at / w % h + t / size - size / 2, q = at % w + t % size - size / 2;
            for (int k = 0; k < CH && r >= 0 && r < h && q >= 0 && q < w; k++)
                s += weight_of((int)(at / (h * w)), k, t) * (double)in[(k * h + r) * w + q];
        }
        assert_true((float)s == out[at]);
    }
}

/* One node, constant weights, pictures of other sizes from call to call: what is packed for one size serves it again, and is made
 * anew for others. Taps that no pixel of a small picture sees are not packed, and are there when a larger one comes. */
static void sizes_of(int size)
{
    static const int64_t dims[][2] = {{1, 1}, {6, 5}, {1, 1}, {2, 1}, {1, 9}, {2, 3}, {6, 5}, {2, 2}};
    static char text[1 << 16];
    int n = snprintf(text, sizeof text, HEAD(18) "g (float[1,%d,H,W] x) => (float[1,%d,H,W] y) <float[%d,%d,%d,%d] w = {", CH, CH, CH,
                     CH, size, size);
    for (int i = 0; i < CH * CH * size * size; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%g", i ? ", " : "",
                      weight_of(i / (CH * size * size), i / (size * size) % CH, i % (size * size)));
    snprintf(text + n, sizeof text - (size_t)n, "}> { y = Conv<pads=[%d,%d,%d,%d]>(x, w) }", size / 2, size / 2, size / 2, size / 2);
    fixture f = load(text);
    qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = false});
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        qx_tensor in, out;
        ok(&f, qx_tensor_new(f.ctx, &in, QX_DT_FLOAT, 4, (int64_t[]){1, CH, dims[i][0], dims[i][1]}));
        for (int64_t k = 0; k < in.numel; k++) ((float *)in.data)[k] = (float)((k * 5 + (int64_t)i) % 17 - 8);
        ok(&f, qx_exec_run(x, &(qx_feed){"x", &in}, 1, NULL, 1, &out));
        expect_sums(&in, &out, size);
        qx_tensor_free(f.ctx, &in);
        qx_tensor_free(f.ctx, &out);
    }
    qx_exec_free(x);
    unload(&f);
}

static void sizes(void **state)
{
    (void)state;
    for (int size = 1; size <= 7; size += 2) sizes_of(size);
}

/* 3x3 convolutions large enough for Winograd's algorithm, and wide ones with gaps, lines too: right, and the same bytes for any
 * number of threads. */
static void any_threads(void **state)
{
    static const int counts[] = {1, 2, 3, 7};
    static const struct { const char *x, *w, *attrs, *y; int taps[2], pads[2], gap; } kinds[] = {
        {"2,40,23,18", "70,40,3,3", "pads=[1,0,1,1]", "2,70,23,17", {3, 3}, {1, 0}, 1},
        {"1,64,40,40", "64,64,3,3", "pads=[1,1,1,1]", "1,64,40,40", {3, 3}, {1, 1}, 1},
        {"1,33,30,31", "32,33,3,3", "group=1", "1,32,28,29", {3, 3}, {0, 0}, 1},
        {"1,24,21,26", "48,24,5,5", "pads=[4,4,4,4],dilations=[2,2]", "1,48,21,26", {5, 5}, {4, 4}, 2},
        {"1,16,1,288", "80,16,1,5", "pads=[0,6,0,6],dilations=[1,3]", "1,80,1,288", {1, 5}, {0, 6}, 3}};
    char text[512];
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        qx_tensor first = {.data = NULL}, out;
        snprintf(text, sizeof text, HEAD(18) "g (float[%s] x, float[%s] w) => (float[%s] y) { t = Conv<%s>(x, w) y = Relu(t) }",
                 kinds[k].x, kinds[k].w, kinds[k].y, kinds[k].attrs);
        fixture f = load(text);
        feeds in;
        make_feeds(&f, &in);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            f.ctx->threads = counts[i];
            qx_exec *x = make_exec(&f, &(qx_exec_options){.no_fuse = false});
            run(&f, x, &in, i ? &out : &first);
            if (i && memcmp(out.data, first.data, out.bytes) != 0)
                fail_msg("kind %d: %d threads give other bytes than one", (int)k, counts[i]);
            if (i) qx_tensor_free(f.ctx, &out);
            qx_exec_free(x);
        }
        const float *px = in.t[0].data, *pw = in.t[1].data, *py = first.data;
        const int64_t *xd = in.t[0].dims, *yd = first.dims, taps = kinds[k].taps[0] * kinds[k].taps[1];
        for (int64_t p = 0; p < first.numel; p += 97) {
            const int64_t c = p % yd[3], r = p / yd[3] % yd[2], o = p / yd[3] / yd[2] % yd[1], n = p / yd[3] / yd[2] / yd[1];
            double sum = 0;
            for (int64_t i = 0; i < xd[1] * taps; i++) {
                const int64_t yy = r + i % taps / kinds[k].taps[1] * kinds[k].gap - kinds[k].pads[0],
                    xx = c + i % kinds[k].taps[1] * kinds[k].gap - kinds[k].pads[1];
                if (yy >= 0 && yy < xd[2] && xx >= 0 && xx < xd[3])
                    sum += (double)px[((n * xd[1] + i / taps) * xd[2] + yy) * xd[3] + xx] * (double)pw[o * xd[1] * taps + i];
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
    assert_int_equal(spared(HEAD(18) "g (float[1,4,5,5] x, float[4,4,1,1] w, float lo) => (float[1,4,5,5] y) { t = Conv(x, w) y = "
                                     "Clip(t, lo) }"), 0);
    assert_int_equal(spared(HEAD(18) "g (float[1,4,5,5] x, float[4,4,1,1] w) => (float[1,4,5,5] y) { t = Conv(x, w) u = Relu(t) y "
                                     "= Add(t, u) }"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(activations), cmocka_unit_test(sums), cmocka_unit_test(norms),
                                       cmocka_unit_test(not_finite), cmocka_unit_test(chains), cmocka_unit_test(written_out),
                                       cmocka_unit_test(gates), cmocka_unit_test(codes), cmocka_unit_test(sizes),
                                       cmocka_unit_test(any_threads), cmocka_unit_test(apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
