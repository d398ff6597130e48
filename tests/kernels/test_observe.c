/* test_observe.c - observation loops: every instruction set gives the bits of the reference; the reference agrees with long double. */
#include "kernels.h"
#include "kernels/loops/observe_leaf.h"

#include <math.h>

static uint32_t state32 = 12345;
static float noise(void)
{
    state32 = state32 * 1664525u + 1013904223u;
    int e = (int)(state32 >> 28) - 8;
    return ldexpf((float)(int32_t)(state32 << 4) / 2147483648.0f, e);
}

static const qx_observe_leaf *leaf_of(int isa)
{
    return isa <= (int)qx_isa_best() ? qx_observe_cpu((qx_isa)isa) : NULL;
}

static void scans(void **state)
{
    (void)state;
    static float x[1037];
    for (int i = 0; i < 1037; i++) x[i] = i % 17 ? noise() : 0.0f;
    for (int64_t n = 0; n <= 1037; n += n < 20 ? 1 : 113) {
        qx_scan want = qx_observe_ref()->scan(x, n, true);
        long double sum = 0, sq = 0, mag = 0;
        int64_t zeros = 0;
        for (int64_t i = 0; i < n; i++) sum += x[i], mag += fabsf(x[i]), sq += (long double)x[i] * x[i], zeros += x[i] == 0;
        assert_true(fabsl(sum - (long double)qx_dd_value(want.sum)) <= 1e-15L * sqrtl(sq));
        assert_true(fabsl(sq - (long double)qx_dd_value(want.sumsq)) <= 1e-15L * sq);
        assert_true(fabsl(mag - (long double)qx_dd_value(want.abs)) <= 1e-15L * mag);
        assert_int_equal(zeros, want.zeros);
        for (int isa = 0; isa < QX_ISA_COUNT_; isa++) {
            if (!leaf_of(isa)) continue;
            qx_scan got = leaf_of(isa)->scan(x, n, true);
            assert_memory_equal(&got.sum, &want.sum, sizeof got.sum);
            assert_memory_equal(&got.sumsq, &want.sumsq, sizeof got.sumsq);
            assert_memory_equal(&got.abs, &want.abs, sizeof got.abs);
            const qx_scan less = leaf_of(isa)->scan(x, n, false);
            assert_true(qx_dd_value(less.abs) == 0 && memcmp(&less.sum, &want.sum, sizeof less.sum) == 0 &&
                        memcmp(&less.sumsq, &want.sumsq, sizeof less.sumsq) == 0 && less.absmax == want.absmax);
            assert_true(got.min == want.min && got.max == want.max && got.absmax == want.absmax && got.zeros == want.zeros &&
                        !got.nonfinite);
        }
    }
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    for (int at = 0; at < 19; at++)
        for (int k = 0; k < 3; k++) {
            float y[19];
            memcpy(y, x, sizeof y);
            y[at] = bad[k];
            assert_true(qx_scan_f32(y, 19, k & 1).nonfinite);
            assert_int_equal(qx_first_nonfinite(y, 19), at);
        }
    assert_int_equal(qx_first_nonfinite(x, 1037), -1);
}

static void sums_do_not_depend_on_order(void **state)
{
    (void)state;
    static float x[5000], y[5000];
    for (int i = 0; i < 5000; i++) x[i] = noise();
    for (int i = 0; i < 5000; i++) y[i] = x[(i * 7 + 13) % 5000];
    qx_scan a = qx_scan_f32(x, 5000, true), b = qx_scan_f32(y, 1234, true), c = qx_scan_f32(y + 1234, 5000 - 1234, true);
    assert_true(qx_dd_value(a.sum) == qx_dd_value(qx_dd_join(b.sum, c.sum)));
    assert_true(qx_dd_value(a.sumsq) == qx_dd_value(qx_dd_join(c.sumsq, b.sumsq)));
}

static void histograms(void **state)
{
    (void)state;
    static float x[999];
    for (int i = 0; i < 999; i++) x[i] = fmodf(noise(), 3.9f);
    uint64_t want[1024] = {0};
    for (int i = 0; i < 999; i++) want[(int)floorf(fabsf(x[i]) * 256)]++;
    for (int isa = 0; isa < QX_ISA_COUNT_; isa++) {
        uint64_t got[1024] = {0};
        if (!leaf_of(isa)) continue;
        leaf_of(isa)->hist(x, 999, 256, got);
        assert_memory_equal(got, want, sizeof want);
    }
}

static void columns(void **state)
{
    (void)state;
    enum { R = 57, C = 21, S = 23 };
    static float x[R * S];
    for (int i = 0; i < R * S; i++) x[i] = i % 7 ? noise() : i % 2 ? 0.0f : -0.0f;
    int64_t none = 0;
    for (int i = 0; i < R * S; i++) none += i % S < C && x[i] == 0;
    for (int isa = 0; isa < QX_ISA_COUNT_; isa++) {
        if (!leaf_of(isa)) continue;
        float lo[C], hi[C];
        qx_dd s[C] = {{0}}, a[C] = {{0}}, q[C] = {{0}};
        for (int c = 0; c < C; c++) lo[c] = hi[c] = x[c];
        qx_columns acc = {lo, hi, s, a, q};
        const int64_t first = leaf_of(isa)->columns(x, 30, S, C, &acc);
        assert_int_equal(first + leaf_of(isa)->columns(x + 30 * S, R - 30, S, C, &acc), none);
        for (int c = 0; c < C; c++) {
            long double ws = 0, wa = 0, wq = 0;
            float wl = x[c], wh = x[c];
            for (int r = 0; r < R; r++) {
                float v = x[r * S + c];
                ws += v, wa += fabsl((long double)v), wq += (long double)v * v;
                wl = v < wl ? v : wl, wh = v > wh ? v : wh;
            }
            assert_true(qx_dd_value(s[c]) == (double)ws && qx_dd_value(a[c]) == (double)wa && qx_dd_value(q[c]) == (double)wq &&
                        lo[c] == wl && hi[c] == wh);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(scans), cmocka_unit_test(sums_do_not_depend_on_order),
                                       cmocka_unit_test(histograms), cmocka_unit_test(columns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
