/* kernel_cache.c - kernels/cuda/cache.cu: lengths that fit and that do not, and caches of numbers and of codes, against what the
 * CPU's caches hold (runtime/cpu/attention/kv_codes.c). */
#include "kernel_case.h"

enum { B = 2, H = 3, ROWS = 2, PAST = 5, CAP = 8 };

static void lengths_of(const int32_t seq[B], int64_t total, const int32_t want[B], bool bad)
{
    const int32_t nil = 0, t32 = (int32_t)total;
    int32_t lengths[B], offsets[B], hit;
    int64_t starts[B];
    for (int wide = 0; wide < 2; wide++) {
        int32_t *flag = kc_in(&nil, sizeof nil, 0);
        qk_lengths_args a = {.seq = kc_in(seq, B * sizeof *seq, 0), .total = wide ? kc_in(&total, 8, 0) : kc_in(&t32, 4, 0),
                             .lengths = kc_out(sizeof lengths, 0), .offsets = kc_out(sizeof offsets, 0),
                             .starts = kc_out(sizeof starts, 0), .bad = flag,
                             .batch = B, .rows = ROWS, .past_cap = PAST, .cap = CAP, .stype = QX_DT_INT32,
                                 .ttype = wide ? QX_DT_INT64 : QX_DT_INT32};
        KC_RUN(qk_cache_lengths, &a);
        kc_back(lengths, a.lengths, sizeof lengths), kc_back(offsets, a.offsets, sizeof offsets),
            kc_back(starts, a.starts, sizeof starts), kc_back(&hit, flag, sizeof hit);
        assert_int_equal(hit, bad);
        for (int b = 0; b < B; b++) {
            assert_int_equal(lengths[b], want[b]);
            assert_int_equal(offsets[b], total == ROWS ? 0 : want[b] - ROWS);
            assert_int_equal(starts[b], offsets[b]);
        }
        kc_release();
    }
}

static void lengths(void)
{
    lengths_of((int32_t[B]){6, 3}, 7, (int32_t[B]){7, 4}, false);
    lengths_of((int32_t[B]){1, 1}, ROWS, (int32_t[B]){2, 2}, false);         /* a prompt */
    lengths_of((int32_t[B]){6, 40}, 7, (int32_t[B]){7, ROWS}, true);         /* beyond the cache */
    lengths_of((int32_t[B]){-9, 6}, 7, (int32_t[B]){ROWS, 7}, true);
    lengths_of((int32_t[B]){INT32_MAX, 6}, 7, (int32_t[B]){ROWS, 7}, true);
}

static const int64_t starts[B] = {5, 2};
/* Element i of the new cache: among the new rows, the old ones, or none of them (-1). */
static int64_t fresh_at(int64_t i, int64_t d)
{
    const int64_t r = i / d % CAP, b = i / d / CAP / H, s = r - starts[b];
    return s < 0 || s >= ROWS ? -1 : ((b * ROWS + s) * H + i / d / CAP % H) * d + i % d;
}

/* Old ones end where the new begin, whatever lies behind. */
static int64_t past_at(int64_t i, int64_t d)
{
    return i / d % CAP < starts[i / d / CAP / H] ? (i / d / CAP * PAST + i / d % CAP) * d + i % d : -1;
}

static void reals_of(int dt, int64_t d)
{
    static float past[B * H * PAST * 16], fresh[B * ROWS * H * 16], y[B * H * CAP * 16], want[B * H * CAP * 16];
    kc_even(past, B * H * PAST * d, 1), kc_even(fresh, B * ROWS * H * d, 2);
    qk_cache_args a = {.past = kc_reals(dt, past, B * H * PAST * d, 0), .fresh = kc_reals(dt, fresh, B * ROWS * H * d, 0),
                       .cache = kc_reals_out(dt, B * H * CAP * d, 0), .starts = kc_in(starts, sizeof starts, 0), .batch = B, .heads = H,
                       .rows = ROWS,
                       .past_cap = PAST, .cap = CAP, .d = d, .fb = ROWS * H * d, .fs = H * d, .fh = d, .dtype = dt};
    KC_RUN(qk_cache_fill, &a);
    for (int64_t i = 0; i < B * H * CAP * d; i++)
        want[i] = fresh_at(i, d) >= 0 ? fresh[fresh_at(i, d)] : past_at(i, d) >= 0 ? past[past_at(i, d)] : 0;
    kc_reals_back(dt, y, a.cache, B * H * CAP * d);
    kc_agree("cache", dt, y, want, B * H * CAP * d, 0, 0);
    kc_release();
}

static float value_of(int codes, uint8_t c)
{
    return codes == QX_DT_FLOAT8E4M3FN ? qx_e4m3_to_f32(c) : codes == QX_DT_INT8 ? (float)(int8_t)c : (float)c - 8;
}

static uint8_t code_of(int codes, float v)
{
    if (codes == QX_DT_FLOAT8E4M3FN) return qx_f32_to_e4m3(v, 1);
    if (codes == QX_DT_INT8) return (uint8_t)(int8_t)fmaxf(-128, fminf(127, nearbyintf(v)));
    return (uint8_t)(fmaxf(-8, fminf(7, nearbyintf(v))) + 8);
}

static uint8_t code_at(const uint8_t *p, int64_t i, bool four) { return four ? p[i / 2] >> (i % 2 * 4) & 15 : p[i]; }

static void codes_of(int dt, int codes, int64_t d, bool per_channel)
{
    enum { N = B * H * CAP * 16 };
    static float fresh[B * ROWS * H * 16], y[N], want[N];
    float scale[H * 16];
    const bool four = codes == QX_DT_UINT4;
    const int64_t n = B * H * CAP * d, old = B * H * PAST * d;
    uint8_t *past = kc_bytes(four ? old / 2 : old, 3), got[N];
    uint32_t seed = 5;
    kc_even(fresh, B * ROWS * H * d, 2);
    for (int i = 0; i < H * 16; i++) scale[i] = 0.02f + 0.2f * rng_uniform(&seed);
    for (int64_t i = 0; i < old && codes == QX_DT_FLOAT8E4M3FN; i++) past[i] &= 0xf7; /* no NaN */
    qk_cache_args a = {.past = kc_in(past, (size_t)(four ? old / 2 : old), 0), .fresh = kc_reals(dt, fresh, B * ROWS * H * d, 0),
                       .scale = kc_reals(dt, scale, per_channel ? H * d : 1, 0), .cache = kc_out((size_t)(four ? n / 2 : n), 0),
                       .values = kc_reals_out(dt, n, 0), .starts = kc_in(starts, sizeof starts, 0), .batch = B, .heads = H, .rows = ROWS,
                       .past_cap = PAST, .cap = CAP, .d = d, .fb = ROWS * H * d, .fs = H * d, .fh = d, .dtype = dt, .codes = codes,
                       .stype = dt, .per_channel = per_channel};
    KC_RUN(qk_cache_fill, &a);
    kc_back(got, a.cache, (size_t)(four ? n / 2 : n));
    for (int64_t i = 0; i < n; i++) {
        const float s = scale[per_channel ? i / d / CAP % H * d + i % d : 0];
        const uint8_t c = fresh_at(i, d) >= 0 ? code_of(codes, fresh[fresh_at(i, d)] / s) : past_at(i, d) >= 0
            ? code_at(past, past_at(i, d), four) : four ? 8 : 0;
        assert_int_equal(code_at(got, i, four), c);
        want[i] = value_of(codes, c) * s;
    }
    kc_reals_back(dt, y, a.values, n);
    kc_agree("cache of codes", dt, y, want, n, 1e-7, 0);
    free(past);
    kc_release();
}

static void cache(void)
{
    KC_EACH_REAL(dt) {
        reals_of(dt, 16);
        reals_of(dt, 5);
        for (int per_channel = 0; per_channel < 2; per_channel++) {
            codes_of(dt, QX_DT_INT8, 16, per_channel);
            codes_of(dt, QX_DT_INT8, 5, per_channel);
            codes_of(dt, QX_DT_FLOAT8E4M3FN, 16, per_channel);
            codes_of(dt, QX_DT_UINT4, 16, per_channel);
        }
    }
}

const kernel_family kernels_cache[] = {{"cache_lengths", lengths}, {"cache_fill", cache}, {0}};
