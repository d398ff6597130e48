/* test_observer.c - observers on plain arrays: independence of order and cutting bit for bit, the thresholds of known cases, Gram and
 * im2col against naive loops, merging. */
#include "../unit/unit.h"
#include "calib/stats/store.h"

#include <math.h>

static uint32_t rng = 1;
static float noise(void)
{
    float t = 0;
    for (int i = 0; i < 4; i++) {
        rng = rng * 1664525u + 1013904223u;
        t += (float)(rng >> 8) * 0x1p-24f - 0.5f;
    }
    return t;
}

static void feed(qx_ctx *ctx, qx_observer *o, const float *x, int rank, const int64_t *dims)
{
    qx_tensor t;
    OK(qx_tensor_shape(ctx, &t, QX_DT_FLOAT, rank, dims));
    t.data = (void *)(uintptr_t)x;
    OK(qx_observer_add(ctx, o, &t, 0));
}

static qx_observer observer(uint32_t kinds)
{
    return (qx_observer){.name = "x", .want = kinds, .doing = kinds, .axis = -1, .rows_cap = 40};
}

/* With statistics of channels, be they rows or pictures, the range is joined out of theirs: the same bits as by itself. */
static void range_out_of_channels(void **state)
{
    qx_ctx *ctx = *state;
    enum { N = 2 * 300 * 45 };
    static float x[N];
    for (int i = 0; i < N; i++) x[i] = i % 11 ? noise() : 0;
    for (int axis = 1; axis < 3; axis++) {
        const int64_t dims[] = {2, 300, 45};
        qx_observer alone = observer(QX_STAT_RANGE), with = observer(QX_STAT_RANGE | QX_STAT_CHANNELS);
        with.axis = axis;
        for (int k = 0; k < 2; k++) feed(ctx, &alone, x, 3, dims), feed(ctx, &with, x, 3, dims);
        OK(qx_observer_finish(ctx, &alone));
        OK(qx_observer_finish(ctx, &with));
        const qx_value_stats *a = &alone.view, *b = &with.view;
        assert_int_equal(b->zeros, 2 * ((N + 10) / 11));
        assert_true(a->count == b->count && a->zeros == b->zeros && a->min == b->min && a->max == b->max && a->absmax == b->absmax &&
                    a->sum == b->sum && a->sumsq == b->sumsq && a->samples == b->samples);
        qx_observer_reset(ctx, &alone);
        qx_observer_reset(ctx, &with);
    }
}

/* What is not finite is told of with its place, and leaves no trace in the channels. */
static void channels_of_what_is_not_finite(void **state)
{
    qx_ctx *ctx = *state;
    for (int k = 0; k < 3; k++) {
        const int64_t dims[] = {5, 7};
        float x[35] = {0};
        x[23] = k == 0 ? NAN : k == 1 ? INFINITY : -INFINITY;
        for (int axis = 0; axis < 2; axis++) {
            qx_observer o = observer(QX_STAT_RANGE | QX_STAT_CHANNELS);
            o.axis = axis;
            qx_tensor t;
            OK(qx_tensor_shape(ctx, &t, QX_DT_FLOAT, 2, dims));
            t.data = x;
            assert_int_equal(qx_observer_add(ctx, &o, &t, 0), QX_E_NUMERIC);
            assert_non_null(strstr(qx_ctx_error(ctx), k ? "Inf at index 23 of 35" : "NaN at index 23 of 35"));
            for (int64_t c = 0; c < o.channels.n; c++) assert_true(o.channels.acc.sq[c].hi == 0);
            qx_ctx_clear_error(ctx);
            qx_observer_reset(ctx, &o);
        }
    }
}

static float threshold_of(qx_ctx *ctx, const float *x, int64_t n, qx_range_method method, double percentile, float levels, bool skip_zeros)
{
    qx_observer o = observer(QX_STAT_RANGE | QX_STAT_HISTOGRAM);
    feed(ctx, &o, x, 1, &n);
    float t = method == QX_RANGE_PERCENTILE ? qx_hist_percentile(&o.hist, &o.range, percentile, skip_zeros) : method == QX_RANGE_ENTROPY
        ? qx_hist_entropy(&o.hist, &o.range) : qx_hist_mse(&o.hist, &o.range, levels, QX_DT_INT8);
    qx_observer_reset(ctx, &o);
    return t;
}

static void percentiles(void **state)
{
    qx_ctx *ctx = *state;
    float x[300];
    for (int i = 0; i < 100; i++) x[i] = (float)i;
    assert_true(fabsf(threshold_of(ctx, x, 100, QX_RANGE_PERCENTILE, 90, 0, false) - 89) <= 100 / 1024.0f);
    assert_true(fabsf(threshold_of(ctx, x, 100, QX_RANGE_PERCENTILE, 80, 0, false) - 79) <= 100 / 1024.0f);
    assert_true(threshold_of(ctx, x, 100, QX_RANGE_PERCENTILE, 100, 0, false) == 99);
    for (int i = 0; i < 100; i++) x[100 + i] = (float)i * 0.5f;
    assert_true(fabsf(threshold_of(ctx, x, 200, QX_RANGE_PERCENTILE, 99, 0, false) - 97) <= 100 / 1024.0f);
    float y[30] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    assert_true(fabsf(threshold_of(ctx, y, 30, QX_RANGE_PERCENTILE, 50, 0, true) - 5) <= 10 / 2048.0f * 2);
    assert_true(threshold_of(ctx, y, 30, QX_RANGE_PERCENTILE, 50, 0, false) == 0);
}

static void entropy_and_mse(void **state)
{
    qx_ctx *ctx = *state;
    static float x[10001];
    for (int i = 0; i < 10000; i++) x[i] = (float)(i * 7919 % 10000) / 10000.0f;
    x[10000] = 10;
    float t = threshold_of(ctx, x, 10001, QX_RANGE_ENTROPY, 0, 127, false);
    assert_true(t < 1.1f && t > 0.9f);
    for (int i = 0; i < 10000; i++) x[i] = i & 1 ? -x[i] : x[i];
    t = threshold_of(ctx, x, 10001, QX_RANGE_ENTROPY, 0, 127, false);
    assert_true(t < 1.1f && t > 0.9f);
    float flat[64];
    for (int i = 0; i < 64; i++) flat[i] = 255;
    flat[63] = 256;
    t = threshold_of(ctx, flat, 64, QX_RANGE_MSE, 0, 127, false);
    assert_true(fabsf(t - 255) < fabsf(t - 256));
    static float wide[694];
    for (int i = 0; i < 693; i++) wide[i] = 512;
    wide[693] = 513;
    t = threshold_of(ctx, wide, 694, QX_RANGE_MSE, 0, 255, false);
    assert_true(fabsf(t - 512) < fabsf(t - 513));
    float zeros[8] = {0};
    assert_true(threshold_of(ctx, zeros, 8, QX_RANGE_ENTROPY, 0, 127, false) == 0);
    assert_true(threshold_of(ctx, zeros, 8, QX_RANGE_MSE, 0, 127, false) == 0);
}

/* Squared error of x on the grid of UINT8 with a zero point whose range is [min, t]. */
static double uint8_error(const float *x, int n, float min, float t)
{
    double step = ((double)t - min) / 255, sum = 0;
    for (int i = 0; i < n; i++) {
        double q = fmin(fmax(nearbyint((x[i] - min) / step), 0), 255), d = q * step + min - x[i];
        sum += d * d;
    }
    return sum;
}

/* SiLU outputs: a grid with a zero point is twice as fine as INT8's there, so clipping pays off less. */
static void mse_with_a_zero_point(void **state)
{
    enum { N = 20000 };
    static float x[N];
    float min = 0, max = 0;
    for (int i = 0; i < N; i++) {
        float v = noise() * (i % 200 ? 1 : 12);
        x[i] = v / (1 + expf(-v));
        min = fminf(min, x[i]), max = fmaxf(max, x[i]);
    }
    qx_observer o = observer(QX_STAT_RANGE | QX_STAT_HISTOGRAM);
    feed(*state, &o, x, 1, &(int64_t){N});
    const float t = qx_hist_mse(&o.hist, &o.range, 127, QX_DT_UINT8), narrow = qx_hist_mse(&o.hist, &o.range, 127, QX_DT_INT8);
    double best = INFINITY;
    for (int i = 1; i <= 400; i++) best = fmin(best, uint8_error(x, N, min, max * (float)i / 400));
    assert_true(narrow < t && t <= max);
    assert_true(uint8_error(x, N, min, t) <= 1.02 * best);
    assert_true(uint8_error(x, N, min, narrow) > 1.05 * best);
    qx_observer_reset(*state, &o);
}

enum { PAIRED = QX_HIST_BINS / 2 };

/* KL(P || Q) for one threshold, as TensorRT published it: P and Q as whole arrays, Q merged into 128 levels and spread over its
 * bins that hold anything. */
static double published_divergence(const double *bins, int n, int i)
{
    double p[PAIRED] = {0}, q[PAIRED] = {0}, p_sum = 0, q_sum = 0, kl = 0;
    for (int b = 0; b < n; b++) p[b < i ? b : i - 1] += bins[b];
    for (int l = 0; l < 128; l++) {
        const int from = l * i / 128, to = (l + 1) * i / 128;
        double sum = 0, used = 0;
        for (int b = from; b < to; b++) sum += bins[b], used += bins[b] > 0;
        for (int b = from; b < to; b++) q[b] = bins[b] > 0 ? sum / used : 0;
    }
    if (bins[i - 1] <= 0) q[i - 1] = p[i - 1] > 0 ? 1e-4 : 0;
    for (int b = 0; b < i; b++) p_sum += p[b], q_sum += bins[b];
    for (int b = 0; b < i; b++) kl += p[b] > 0 ? p[b] / p_sum * log(p[b] / p_sum / (q[b] / q_sum)) : 0;
    return kl;
}

/* A heavy tail: products inside an MLP, of which entropy keeps a third of the range. */
static void entropy_as_published(void **state)
{
    qx_ctx *ctx = *state;
    static float x[20000];
    const int64_t n = 20000;
    for (int i = 0; i < n; i++) x[i] = noise() * noise() * expf(2 * noise());
    qx_observer o = observer(QX_STAT_RANGE | QX_STAT_HISTOGRAM);
    feed(ctx, &o, x, 1, &n);
    double bins[PAIRED], best = INFINITY;
    int used = 0, at = 0;
    for (int i = 0; i < PAIRED; i++) {
        bins[i] = (double)(o.hist.bins[2 * i] + o.hist.bins[2 * i + 1]);
        if (bins[i] > 0) used = i + 1;
    }
    for (int i = 128; i <= used; i++) {
        const double d = published_divergence(bins, used, i);
        if (d <= best) best = d, at = i;
    }
    const float t = qx_hist_entropy(&o.hist, &o.range);
    assert_float_equal(t, ldexp(2 * at, o.hist.exp), 1e-6 * t);
    assert_true(t < 0.6f * o.range.absmax);
    qx_observer_reset(ctx, &o);
}

/* Loss at the mse threshold is never above the loss at the maximum, whatever the data. */
static double loss(const float *x, int n, float t)
{
    double sum = 0, s = (double)t / 127;
    for (int i = 0; i < n; i++) {
        double q = nearbyint(fabs((double)x[i]) / s);
        double d = fmin(q, 127) * s - fabs((double)x[i]);
        sum += d * d;
    }
    return sum;
}

static void mse_is_not_worse_than_max(void **state)
{
    qx_ctx *ctx = *state;
    for (int trial = 0; trial < 5; trial++) {
        float x[2000], top = 0;
        for (int i = 0; i < 2000; i++) x[i] = noise();
        x[7] = -12;
        x[100] = 10;
        for (int i = 0; i < 2000; i++) top = fmaxf(top, fabsf(x[i]));
        assert_true(loss(x, 2000, threshold_of(ctx, x, 2000, QX_RANGE_MSE, 0, 127, false)) <= loss(x, 2000, top) * 1.001);
    }
}

enum { R = 700, K = 37 };
static const uint32_t exact_kinds = QX_STAT_RANGE | QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS | QX_STAT_STEPS;

static void same(const qx_observer *a, const qx_observer *b, bool gram)
{
    assert_true(a->range.n == b->range.n && a->range.zeros == b->range.zeros && a->view.min == b->view.min &&
                a->view.max == b->view.max && a->view.sum == b->view.sum && a->view.sumsq == b->view.sumsq);
    assert_int_equal(a->hist.exp, b->hist.exp);
    assert_memory_equal(a->hist.bins, b->hist.bins, QX_HIST_BINS * sizeof *a->hist.bins);
    const qx_channel_stats *c = &a->view.channels, *d = &b->view.channels;
    assert_int_equal(c->n, K);
    assert_memory_equal(c->absmax, d->absmax, 6 * K * sizeof(float)); /* the six arrays lie behind each other */
    assert_int_equal(a->view.n_rows, 40);
    assert_int_equal(b->view.n_rows, 40);
    assert_memory_equal(a->view.rows, b->view.rows, 40 * K * sizeof(float));
    if (!gram) return;
    assert_int_equal(a->view.gram_rows, b->view.gram_rows);
    assert_memory_equal(a->view.gram, b->view.gram, K * K * sizeof(float));
}

static void make_rows(float *x)
{
    for (int i = 0; i < R * K; i++) x[i] = noise() * (i % K == 3 ? 50 : 1) * (i / K == 650 ? 40 : 1);
    for (int i = 0; i < K; i++) x[5 * K + i] = 0;
}

static void cutting_does_not_matter(void **state)
{
    qx_ctx *ctx = *state;
    static float x[R * K];
    make_rows(x);
    qx_observer whole = observer(exact_kinds | QX_STAT_GRAM);
    feed(ctx, &whole, x, 3, (int64_t[]){7, 100, K});
    OK(qx_observer_finish(ctx, &whole));
    for (int64_t cut = 1; cut < R; cut = cut * 3 + 11) {
        qx_observer o = observer(exact_kinds | QX_STAT_GRAM);
        for (int64_t r = 0; r < R; r += cut) feed(ctx, &o, x + r * K, 2, (int64_t[]){R - r < cut ? R - r : cut, K});
        OK(qx_observer_finish(ctx, &o));
        same(&whole, &o, true);
        qx_observer_reset(ctx, &o);
    }
    qx_observer_reset(ctx, &whole);
}

static void order_does_not_matter(void **state)
{
    qx_ctx *ctx = *state;
    static float x[R * K];
    make_rows(x);
    qx_observer a = observer(exact_kinds | QX_STAT_GRAM), b = observer(exact_kinds | QX_STAT_GRAM);
    feed(ctx, &a, x, 2, (int64_t[]){R, K});
    for (int i = 0; i < R; i++) feed(ctx, &b, x + (i * 39 + 17) % R * K, 2, (int64_t[]){1, K});
    OK(qx_observer_finish(ctx, &a));
    OK(qx_observer_finish(ctx, &b));
    same(&a, &b, false);
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) { /* stated bound of the Gram matrix */
            float scale = sqrtf(a.view.gram[i * K + i] * a.view.gram[j * K + j]);
            assert_true(fabsf(a.view.gram[i * K + j] - b.view.gram[i * K + j]) <= 2e-6f * scale);
        }
    qx_observer_reset(ctx, &a);
    qx_observer_reset(ctx, &b);
}

static void merging_equals_one_run(void **state)
{
    qx_ctx *ctx = *state;
    static float x[R * K];
    make_rows(x);
    qx_observer a = observer(exact_kinds), b = observer(exact_kinds), whole = observer(exact_kinds);
    feed(ctx, &whole, x, 2, (int64_t[]){R, K});
    feed(ctx, &a, x, 2, (int64_t[]){300, K});
    feed(ctx, &b, x + 300 * K, 2, (int64_t[]){R - 300, K});
    OK(qx_observer_finish(ctx, &a));
    OK(qx_observer_finish(ctx, &b));
    OK(qx_observer_finish(ctx, &whole));
    OK(qx_observer_join(ctx, &a, &b));
    same(&a, &whole, false);
    qx_observer_reset(ctx, &a);
    qx_observer_reset(ctx, &b);
    qx_observer_reset(ctx, &whole);
}

static void gram_is_exact(void **state)
{
    qx_ctx *ctx = *state;
    static float x[R * K];
    make_rows(x);
    qx_observer o = observer(QX_STAT_RANGE | QX_STAT_GRAM);
    feed(ctx, &o, x, 2, (int64_t[]){R, K});
    OK(qx_observer_finish(ctx, &o));
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            double want = 0, si = 0, sj = 0;
            for (int r = 0; r < R; r++)
                want += (double)x[r * K + i] * x[r * K + j], si += (double)x[r * K + i] * x[r * K + i],
                    sj += (double)x[r * K + j] * x[r * K + j];
            assert_true(fabs((double)o.view.gram[i * K + j] - want) <= 1e-6 * sqrt(si * sj));
            assert_true(o.view.gram[i * K + j] == o.view.gram[j * K + i]);
        }
    OK(qx_gram_spill(ctx, &o.gram));
    OK(qx_gram_own(ctx, &o.gram));
    assert_memory_equal(&o.gram.full[K + 2], &o.gram.full[2 * K + 1], sizeof(float));
    qx_observer_reset(ctx, &o);
}

/* A row for each column out of ten, which makes one row of every ten: cutting does not matter, and the matrix is that of a tenth
 * of the rows. Rows are one-hot here, so that the diagonal tells which were taken. */
static void thinned_gram(void **state)
{
    enum { ROWS = 600, THIN = 10 };
    static float x[ROWS * ROWS];
    for (int i = 0; i < ROWS; i++) x[i * ROWS + i] = 1;
    float first[ROWS];
    for (int64_t cut = ROWS; cut > 0; cut = cut == ROWS ? 7 : 0) {
        qx_observer o = observer(QX_STAT_RANGE | QX_STAT_GRAM);
        o.thin_gram = (qx_thinning){.enough = 1, .runs = (THIN * ROWS + cut - 1) / cut};
        for (int64_t r = 0; r < ROWS; r += cut) feed(*state, &o, x + r * ROWS, 2, (int64_t[]){ROWS - r < cut ? ROWS - r : cut, ROWS});
        OK(qx_observer_finish(*state, &o));
        assert_int_equal(o.view.gram_rows, ROWS / THIN);
        for (int s = 0; s < ROWS; s += THIN) {
            float taken = 0;
            for (int i = s; i < s + THIN; i++) taken += o.view.gram[i * ROWS + i];
            assert_true(taken == 1); /* one of each stretch */
        }
        for (int i = 0; i < ROWS; i++) {
            if (cut == ROWS) first[i] = o.view.gram[i * ROWS + i];
            assert_true(first[i] == o.view.gram[i * ROWS + i]);
        }
        qx_observer_reset(*state, &o);
    }
    int places = 0; /* not the same place in every stretch */
    for (int i = 0; i < THIN; i++)
        for (int s = 0, used = 0; s < ROWS && !used; s += THIN) places += used = first[s + i] > 0;
    assert_true(places >= THIN - 2);
}

/* Patches of a convolution, thinned: those rows that the same picks give of the patches laid out as a matrix. The sample of rows
 * stays that of all. */
static void thinned_patches(void **state)
{
    enum { H = 20, W = 31, THIN = 4 };
    static float x[H * W];
    for (int i = 0; i < H * W; i++) x[i] = (float)i;
    qx_observer a = observer(QX_STAT_RANGE | QX_STAT_GRAM | QX_STAT_ROWS), b = a, all = a;
    a.has_window = all.has_window = true;
    a.window = all.window = (qx_conv_window){.kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}, .rank = 2, .group = 1};
    a.thin_gram = b.thin_gram = (qx_thinning){.enough = H * W / THIN, .runs = 1};
    feed(*state, &a, x, 4, (int64_t[]){1, 1, H, W});
    feed(*state, &b, x, 2, (int64_t[]){H * W, 1});
    feed(*state, &all, x, 4, (int64_t[]){1, 1, H, W});
    OK(qx_observer_finish(*state, &a));
    OK(qx_observer_finish(*state, &b));
    OK(qx_observer_finish(*state, &all));
    assert_int_equal(a.view.gram_rows, H * W / THIN);
    assert_true(a.view.gram[0] == b.view.gram[0]);
    assert_true(fabsf(a.view.gram[0] * THIN / all.view.gram[0] - 1) < 0.02f);
    assert_memory_equal(a.view.rows, all.view.rows, 40 * sizeof(float));
    qx_observer_reset(*state, &a);
    qx_observer_reset(*state, &b);
    qx_observer_reset(*state, &all);
}

static void im2col(void **state)
{
    qx_ctx *ctx = *state;
    enum { N = 2, C = 4, H = 7, W = 9 };
    static float x[N * C * H * W];
    for (int i = 0; i < N * C * H * W; i++) x[i] = noise();
    for (int group = 1; group <= 2; group++) {
        qx_observer o = observer(QX_STAT_RANGE | QX_STAT_GRAM);
        o.has_window = true;
        o.window = (qx_conv_window){.kernel = {3, 2}, .stride = {2, 1}, .dilation = {1, 2}, .pad_begin = {1, 0}, .pad_end = {1, 1},
                                    .rank = 2, .group = group};
        int oh = (H + 2 - 3) / 2 + 1, ow = W + 1 - 3 + 1, k = C / group * 6;
        feed(ctx, &o, x, 4, (int64_t[]){N, C, H, W});
        OK(qx_observer_finish(ctx, &o));
        assert_int_equal(o.view.gram_k, k);
        assert_int_equal(o.view.gram_groups, group);
        assert_int_equal(o.view.gram_rows, N * oh * ow);
        static double want[2 * 24 * 24];
        memset(want, 0, sizeof want);
        for (int n = 0; n < N; n++)
            for (int y = 0; y < oh; y++)
                for (int z = 0; z < ow; z++) {
                    float row[24];
                    for (int e = 0; e < C * 6; e++) {
                        int c = e / 6, ky = e / 2 % 3, kx = e % 2, iy = y * 2 - 1 + ky, ix = z + kx * 2;
                        row[e] = iy >= 0 && iy < H && ix < W ? x[((n * C + c) * H + iy) * W + ix] : 0;
                    }
                    for (int g = 0; g < group; g++)
                        for (int i = 0; i < k; i++)
                            for (int j = 0; j < k; j++) want[(g * k + i) * k + j] += (double)row[g * k + i] * row[g * k + j];
                }
        for (int i = 0; i < group * k * k; i++) assert_true(fabs(want[i] - (double)o.view.gram[i]) < 1e-4);
        qx_observer_reset(ctx, &o);
    }
}

/* Columns of matrices: the same bits as of their transposes' rows. */
static void columns(void **state)
{
    enum { N = 3, C = 20, W = 31 };
    static float x[N * C * W], t[N * W * C];
    for (int i = 0; i < N * C * W; i++) x[i] = noise();
    for (int i = 0; i < N * C * W; i++) t[(i / (C * W) * W + i % W) * C + i / W % C] = x[i];
    qx_observer rows = observer(QX_STAT_RANGE | QX_STAT_GRAM | QX_STAT_ROWS), o = rows;
    o.has_window = true;
    o.window = (qx_conv_window){.group = 1};
    feed(*state, &rows, t, 4, (int64_t[]){1, N, W, C});
    feed(*state, &o, x, 4, (int64_t[]){1, N, C, W});
    OK(qx_observer_finish(*state, &rows));
    OK(qx_observer_finish(*state, &o));
    assert_int_equal(o.view.gram_rows, N * W);
    assert_int_equal(o.view.gram_k, C);
    assert_memory_equal(o.view.gram, rows.view.gram, C * C * sizeof(float));
    assert_int_equal(o.view.n_rows, rows.view.n_rows);
    assert_memory_equal(o.view.rows, rows.view.rows, (size_t)o.view.n_rows * C * sizeof(float));
    qx_observer_reset(*state, &rows);
    qx_observer_reset(*state, &o);
}

static void channels_in_the_middle(void **state)
{
    qx_ctx *ctx = *state;
    const float x[12] = {1, -2, 3, 4, 5, -6, 7, 8, 9, -10, 11, 12}; /* [2,3,2] */
    qx_observer o = observer(QX_STAT_RANGE | QX_STAT_CHANNELS);
    o.axis = 1;
    feed(ctx, &o, x, 3, (int64_t[]){2, 3, 2});
    OK(qx_observer_finish(ctx, &o));
    const qx_channel_stats *c = &o.view.channels;
    assert_int_equal(c->n, 3);
    assert_true(c->absmax[0] == 8 && c->min[0] == -2 && c->max[1] == 9 && c->min[1] == -10 && c->min[2] == -6);
    assert_true(c->mean[0] == 14 / 4.0f && c->mean_abs[0] == 18 / 4.0f && c->mean_sq[2] == (25 + 36 + 121 + 144) / 4.0f);
    qx_observer_reset(ctx, &o);
}

static void bad_data(void **state)
{
    qx_ctx *ctx = *state;
    float x[6] = {1, 2, 3, 4, NAN, 6};
    qx_observer o = observer(QX_STAT_RANGE | QX_STAT_CHANNELS);
    qx_tensor t;
    OK(qx_tensor_shape(ctx, &t, QX_DT_FLOAT, 2, (int64_t[]){2, 3}));
    t.data = x;
    FAILS(qx_observer_add(ctx, &o, &t, 0), QX_E_NUMERIC);
    MESSAGE_HAS(ctx, "'x' holds NaN at index 4 of 6");
    qx_ctx_clear_error(ctx);
    x[4] = 5;
    OK(qx_observer_add(ctx, &o, &t, 0));
    OK(qx_tensor_shape(ctx, &t, QX_DT_FLOAT, 2, (int64_t[]){3, 2}));
    t.data = x;
    FAILS(qx_observer_add(ctx, &o, &t, 0), QX_E_SHAPE);
    MESSAGE_HAS(ctx, "2 channels now, 3 before");
    OK(qx_tensor_shape(ctx, &t, QX_DT_FLOAT, 2, (int64_t[]){0, 3})); /* empty: contributes nothing */
    qx_ctx_clear_error(ctx);
    OK(qx_observer_add(ctx, &o, &t, 0));
    assert_int_equal(o.range.n, 6); /* what was refused contributes nothing */
    qx_observer_reset(ctx, &o);
}

static void steps(void **state)
{
    qx_ctx *ctx = *state;
    qx_observer o = observer(QX_STAT_RANGE | QX_STAT_STEPS);
    const float data[6] = {4, 2, 1, 8, 6, 3};
    const double keys[6] = {999, 500, 1, 999, 500, 500};
    for (int i = 0; i < 6; i++) {
        qx_tensor t;
        OK(qx_tensor_shape(ctx, &t, QX_DT_FLOAT, 0, NULL));
        t.data = (void *)(uintptr_t)&data[i];
        OK(qx_observer_add(ctx, &o, &t, keys[i]));
    }
    OK(qx_observer_finish(ctx, &o));
    assert_int_equal(o.view.n_steps, 3);
    assert_true(o.view.step_keys[0] == 999 && o.view.step_absmax[0] == 6 && o.view.step_max[0] == 8 && o.view.step_batches[0] == 2);
    /* by the number of batches, not of steps */
    assert_true(o.view.step_keys[1] == 500 && o.view.step_absmax[1] == 11 / 3.0f && o.view.step_batches[1] == 3);
    qx_observer_reset(ctx, &o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(percentiles), TEST(entropy_and_mse), TEST(entropy_as_published),
                                       TEST(mse_is_not_worse_than_max), TEST(cutting_does_not_matter), TEST(order_does_not_matter),
                                       TEST(merging_equals_one_run),
                                       TEST(gram_is_exact), TEST(thinned_gram), TEST(thinned_patches), TEST(im2col), TEST(columns),
                                           TEST(channels_in_the_middle), TEST(bad_data), TEST(steps), TEST(mse_with_a_zero_point), TEST(range_out_of_channels),
                                       TEST(channels_of_what_is_not_finite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
