/* kernel_observe.c - what calibration asks of a tensor (kernels/cuda/observe.cu, gram.cu) against the CPU's observers: ranges and
 * counts exactly, sums as pairs, Gram matrices against sums in double. */
#include "kernel_case.h"
#include "kernels/observe.h"

enum { MOST = 1 << 17, PARTS = 8, BINS = 4096 };
static float x[MOST];

static void same_sum(const char *what, qx_dd want, const double *got)
{
    const double w = qx_dd_value(want), g = got[0] + got[1];
    if (!(fabs(w - g) <= 1e-12 * (1 + fabs(w)))) fail_msg("%s: %.17g, the CPU has %.17g", what, g, w);
}

static void fill(int64_t n, bool bad)
{
    uint32_t seed = 5;
    for (int64_t i = 0; i < n; i++) x[i] = i % 7 ? rng_normal(&seed) * (i % 11 ? 1 : 300) : i % 14 ? 0.0f : -0.0f;
    if (bad) x[n / 2] = NAN, x[n - 1] = -INFINITY;
}

/* Every block sees an element, as runtime/cuda/observe.c has it. */
static int parts_of(int64_t n)
{
    int parts = PARTS;
    while (parts * 128 > n && parts > 1) parts /= 2;
    return parts;
}

static void *scan_of(int dt, int64_t n, size_t shift, qk_scan_part *out, const void **data)
{
    *data = kc_reals(dt, x, n, shift);
    qk_scan_args a = {.x = *data, .parts = kc_out(PARTS * sizeof *out, 0), .n = n, .dtype = dt, .n_parts = parts_of(n)};
    KC_RUN(qk_scan, &a);
    qk_scan_part parts[PARTS];
    kc_back(parts, a.parts, PARTS * sizeof *parts);
    *out = parts[0];
    for (int i = 1; i < a.n_parts; i++) {
        out->min = fminf(out->min, parts[i].min), out->max = fmaxf(out->max, parts[i].max),
            out->absmax = fmaxf(out->absmax, parts[i].absmax);
        out->zeros += parts[i].zeros, out->nonfinite += parts[i].nonfinite;
        for (int k = 0; k < 2; k++) out->sum[k] += parts[i].sum[k], out->abs[k] += parts[i].abs[k], out->sq[k] += parts[i].sq[k];
    }
    return a.parts;
}

static void scan(void)
{
    static const int64_t lengths[] = {1, 100, 1003, 16384, 100003};
    for (int i = 0; i < COUNT(lengths); i++)
        for (int shift = 0; shift < 2; shift++)
            KC_EACH_REAL(dt) {
                qk_scan_part p;
                const void *data;
                fill(lengths[i], false);
                scan_of(dt, lengths[i], shift ? kc_size(dt) : 0, &p, &data);
                const qx_scan w = qx_scan_f32(x, lengths[i], true);
                assert_true(p.min == w.min && p.max == w.max && p.absmax == w.absmax && p.zeros == w.zeros && p.nonfinite == 0);
                same_sum("sum", w.sum, p.sum), same_sum("sum of sizes", w.abs, p.abs), same_sum("sum of squares", w.sumsq, p.sq);
                kc_release();
            }
    qk_scan_part p;
    const void *data;
    fill(3000, true);
    scan_of(QX_DT_FLOAT, 3000, 0, &p, &data);
    assert_int_equal(p.nonfinite, 2);
}

static void histogram(void)
{
    static const int64_t lengths[] = {1, 1003, 100003};
    for (int i = 0; i < COUNT(lengths); i++)
        KC_EACH_REAL(dt) {
            static uint32_t bins[BINS];
            static uint64_t want[BINS];
            qk_scan_part p;
            const void *data;
            int32_t exp;
            fill(lengths[i], false);
            const qk_scan_part *parts = scan_of(dt, lengths[i], 0, &p, &data);
            memset(bins, 0, sizeof bins), memset(want, 0, sizeof want);
            qk_hist_args a = {.x = data, .parts = parts, .bins = kc_in(bins, sizeof bins, 0), .exp = kc_out(4, 0), .n = lengths[i],
                              .dtype = dt, .n_parts = parts_of(lengths[i])};
            KC_RUN(qk_histogram, &a);
            kc_back(bins, a.bins, sizeof bins), kc_back(&exp, a.exp, 4);
            assert_true(p.absmax < ldexpf(BINS, exp) && (p.absmax >= ldexpf(BINS / 2, exp) || exp == -120));
            qx_hist_f32(x, lengths[i], ldexpf(1, -exp), want);
            for (int k = 0; k < BINS; k++) assert_int_equal(bins[k], want[k]);
            kc_release();
        }
}

static void columns_of(int dt, int64_t outer, int64_t channels, int64_t inner)
{
    float min[70], max[70], wmin[70], wmax[70], row[70];
    double sum[140], abs[140], sq[140];
    qx_dd wsum[70], wabs[70], wsq[70];
    const size_t pair = (size_t)channels * 16;
    fill(outer * channels * inner, false);
    qk_columns_args a = {.x = kc_reals(dt, x, outer * channels * inner, 0), .min = kc_out((size_t)channels * 4, 0),
                         .max = kc_out((size_t)channels * 4, 0), .sum = kc_out(pair, 0), .abs = kc_out(pair, 0), .sq = kc_out(pair, 0),
                         .outer = outer,
                         .channels = channels, .inner = inner, .dtype = dt};
    KC_RUN(qk_columns, &a);
    kc_back(min, a.min, (size_t)channels * 4), kc_back(max, a.max, (size_t)channels * 4), kc_back(sum, a.sum, pair),
        kc_back(abs, a.abs, pair), kc_back(sq, a.sq, pair);
    memset(wsum, 0, sizeof wsum), memset(wabs, 0, sizeof wabs), memset(wsq, 0, sizeof wsq);
    for (int64_t c = 0; c < channels; c++) wmin[c] = INFINITY, wmax[c] = -INFINITY;
    for (int64_t p = 0; p < outer * inner; p++) {
        for (int64_t c = 0; c < channels; c++) row[c] = x[(p / inner * channels + c) * inner + p % inner];
        qx_columns_f32(row, 1, channels, channels, &(qx_columns){wmin, wmax, wsum, wabs, wsq});
    }
    for (int64_t c = 0; c < channels; c++) {
        assert_true(min[c] == wmin[c] && max[c] == wmax[c]);
        same_sum("a column's sum", wsum[c], sum + 2 * c), same_sum("a column's sum of sizes", wabs[c], abs + 2 * c),
            same_sum("a column's sum of squares", wsq[c], sq + 2 * c);
    }
    kc_release();
}

static void columns(void)
{
    KC_EACH_REAL(dt) {
        columns_of(dt, 300, 67, 1);
        columns_of(dt, 1, 5, 1);
        columns_of(dt, 2, 9, 300);
        columns_of(dt, 3, 4, 5);
    }
}

/* Columns of different sizes, in two calls. */
static void gram_of(int dt, int64_t rows, int64_t k)
{
    double *got = calloc((size_t)(k * k), sizeof *got);
    kc_even(x, rows * k, 7);
    for (int64_t i = 0; i < rows * k; i++) x[i] = ldexpf(x[i], (int)(i % k % 9) - 4);
    qk_gram_args a = {.x = kc_reals(dt, x, rows * k, 0), .gram = kc_in(got, (size_t)(k * k) * sizeof *got, 0), .rows = rows, .k = k,
                      .dtype = dt};
    for (int call = 0; call < 2; call++) KC_RUN(qk_gram, &a);
    kc_back(got, a.gram, (size_t)(k * k) * sizeof *got);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = i; j < k; j++) {
            double want = 0, most = 0;
            for (int64_t r = 0; r < rows; r++) {
                const double p = (double)x[r * k + i] * (double)x[r * k + j];
                want += 2 * p, most += 2 * fabs(p);
            }
            if (!(fabs(got[i * k + j] - want) <= (KC_ON_DEVICE ? 2e-5 : 4e-6) * most))
                fail_msg("%s, %d rows: [%d, %d] is %.9g, not %.9g", qx_dtype_get(dt)->text, (int)rows, (int)i, (int)j, got[i * k + j],
                         want);
        }
    free(got);
    kc_release();
}

static void gram(void)
{
    gram_of(QX_DT_FLOAT, 1, 1);
    gram_of(QX_DT_FLOAT, 530, 72);
    gram_of(QX_DT_FLOAT, 33, 67);
    gram_of(QX_DT_FLOAT16, 600, 136);
    gram_of(QX_DT_BFLOAT16, 17, 65);
}

const kernel_family kernels_observe[] = {{"scan", scan}, {"histogram", histogram}, {"columns", columns}, {"gram", gram}, {0}};
