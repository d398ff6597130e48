/* kernel_move.c - kernels that move elements (kernels/cuda/move.cu, conv.cu, the resize of rows.cu) against index arithmetic:
 * every size of an element, odd dims, indices out of range. */
#include "kernel_case.h"

/* [3][5][cols] of elements of `size` bytes, by number. */
enum { COLS = 37, ALL = 3 * 5 * COLS };

static void copy(void)
{
    for (int size = 1; size <= 8; size *= 2) { /* a transposition of a slice, written into a larger place */
        uint8_t *x = kc_bytes(ALL * size, 3), *y = malloc((size_t)(2 * ALL * size));
        qk_copy_args a = {.src = kc_in(x, (size_t)(ALL * size), 0), .dst = kc_out((size_t)(2 * ALL * size), 0), .n = 3 * 4 * 18,
                          .s0 = COLS + 1, .d0 = 7, .rank = 3, .size = size, .dims = {18, 3, 4}, .ss = {2, 5 * COLS, COLS},
                          .ds = {3 * 4 * 2, 4 * 2, 2}};
        KC_RUN(qk_copy, &a);
        kc_back(y, a.dst, (size_t)(2 * ALL * size));
        for (int i = 0; i < 18; i++)
            for (int j = 0; j < 3; j++)
                for (int k = 0; k < 4; k++)
                    assert_memory_equal(y + (7 + i * 24 + j * 8 + k * 2) * size, x + (COLS + 1 + i * 2 + j * 5 * COLS + k * COLS) * size,
                                        (size_t)size);
        free(x), free(y);
        kc_release();
    }
}

static void turn(void)
{
    for (int size = 1; size <= 8; size *= 2) {
        uint8_t *x = kc_bytes(3 * 45 * 70 * size, 4), *y = malloc((size_t)(3 * 45 * 70 * size));
        qk_turn_args a = {.src = kc_in(x, (size_t)(3 * 45 * 70 * size), 0), .dst = kc_out((size_t)(3 * 45 * 70 * size), 0), .batch = 3,
                          .rows = 45, .cols = 70, .size = size, .flip = size == 1 ? 0x80 : 0};
        KC_RUN(qk_turn, &a);
        kc_back(y, a.dst, (size_t)(3 * 45 * 70 * size));
        for (int b = 0; b < 3; b++)
            for (int r = 0; r < 45; r++)
                for (int c = 0; c < 70; c++) {
                    const uint8_t *want = x + ((b * 45 + r) * 70 + c) * size, *got = y + ((b * 70 + c) * 45 + r) * size;
                    if (size == 1) assert_int_equal(*got, *want ^ 0x80);
                    else assert_memory_equal(got, want, (size_t)size);
                }
        free(x), free(y);
        kc_release();
    }
}

/* A picture of 6 x 7 with 33 channels, turned into the middle of one of 8 x 10. */
static void turn_into(void)
{
    uint8_t *x = kc_bytes(33 * 42, 4), y[80 * 33];
    qk_turn_args a = {.src = kc_in(x, 33 * 42, 0), .dst = kc_out(sizeof y, 0), .batch = 1, .rows = 33, .cols = 42, .size = 1, .width = 7,
                      .step = 10, .first = 11, .out_cols = 80};
    KC_RUN(qk_turn, &a);
    kc_back(y, a.dst, sizeof y);
    for (int p = 0; p < 80; p++)
        for (int c = 0; c < 33; c++) {
            const int h = p / 10 - 1, w = p % 10 - 1;
            assert_int_equal(y[p * 33 + c], h < 0 || h >= 6 || w < 0 || w >= 7 ? 0xcd : x[c * 42 + h * 7 + w]);
        }
    free(x);
}

static void fill(void)
{
    const uint64_t v = 0x0123456789abcdefu;
    for (int size = 1; size <= 8; size *= 2) {
        uint8_t y[8 * 301];
        qk_fill_args a = {kc_out((size_t)(301 * size), (size_t)size), 301, v, size};
        KC_RUN(qk_fill, &a);
        kc_back(y, a.dst, (size_t)(301 * size));
        for (int i = 0; i < 301; i++) assert_memory_equal(y + i * size, &v, (size_t)size);
    }
}

static int64_t padded(int64_t i, int64_t n, int mode)
{
    if (mode == 1) return i < 0 ? 0 : i >= n ? n - 1 : i;
    while (i < 0 || i >= n) i = mode == 3 ? (i < 0 ? i + n : i - n) : i < 0 ? -i : 2 * n - 2 - i;
    return i;
}

static void pad(void)
{
    uint8_t *x = kc_bytes(4 * 5 * 6, 1), y[9 * 12 * 8];
    for (int mode = 1; mode <= 3; mode++) {
        qk_pad_args a = {.src = kc_in(x, 120, 0), .dst = kc_out(sizeof y, 0), .n = sizeof y, .rank = 3, .size = 1, .mode = mode,
                         .dims = {9, 12, 8}, .in = {4, 5, 6}, .begin = {3, 4, -1}, .ss = {30, 6, 1}};
        KC_RUN(qk_pad, &a);
        kc_back(y, a.dst, sizeof y);
        for (int i = 0; i < (int)sizeof y; i++)
            assert_int_equal(y[i], x[padded(i / 96 - 3, 4, mode) * 30 + padded(i / 8 % 12 - 4, 5, mode) * 6 + padded(i % 8 + 1, 6, mode)]);
        kc_release();
    }
    free(x);
}

/* ---- indices: from the end, and out of range ---- */

static const int64_t picks[] = {0, 4, -1, -5, 2, 5, -6, 3, 1};
enum { PICKS = 9, GOOD = 5 }; /* the first five are in range of 5 */
static int64_t place(int64_t v) { return v < -5 || v >= 5 ? -1 : v < 0 ? v + 5 : v; }

static void *indices(bool wide, int n, int64_t *as)
{
    int32_t narrow[PICKS];
    for (int i = 0; i < n; i++) narrow[i] = (int32_t)(as[i] = picks[i]);
    return wide ? kc_in(as, (size_t)n * 8, 0) : kc_in(narrow, (size_t)n * 4, 0);
}

static void check_bad(const int32_t *bad, int want)
{
    int32_t b;
    kc_back(&b, bad, sizeof b);
    assert_int_equal(b, want);
}

static void gather(void)
{
    const int32_t nil = 0;
    int64_t idx[PICKS];
    for (int round = 0; round < 8; round++) {
        const int size = 1 << round % 4, n = round < 4 ? GOOD : PICKS;
        uint8_t *x = kc_bytes(ALL * size, 5), y[3 * PICKS * COLS * 8], zeros[8] = {0};
        int32_t *bad = kc_in(&nil, sizeof nil, 0);
        qk_gather_args a = {.x = kc_in(x, (size_t)(ALL * size), 0), .idx = indices(round % 2, n, idx),
                            .y = kc_out((size_t)(3 * n * COLS * size), 0), .bad = bad, .outer = 3, .d = 5, .count = n, .inner = COLS,
                            .size = size, .wide = round % 2};
        KC_RUN(qk_gather, &a);
        kc_back(y, a.y, (size_t)(3 * n * COLS * size));
        for (int i = 0; i < 3 * n * COLS; i++) {
            const int64_t v = place(idx[i / COLS % n]), from = (i / COLS / n * 5 + v) * COLS + i % COLS;
            assert_memory_equal(y + i * size, v < 0 ? zeros : x + from * size, (size_t)size);
        }
        check_bad(bad, n > GOOD);
        free(x);
        kc_release();
    }
}

static void gather_elements(void)
{
    const int32_t nil = 0;
    for (int wide = 0; wide < 2; wide++) {
        int64_t idx[3 * 2 * 7];
        int32_t narrow[3 * 2 * 7];
        uint16_t y[3 * 2 * 7], *x = kc_bytes(3 * 5 * 7 * 2, 6);
        int32_t *bad = kc_in(&nil, sizeof nil, 0);
        for (int i = 0; i < COUNT(idx); i++) narrow[i] = (int32_t)(idx[i] = picks[i % GOOD]);
        qk_gather_elements_args a = {.x = kc_in(x, 3 * 5 * 7 * 2, 0),
                                     .idx = wide ? kc_in(idx, sizeof idx, 0) : kc_in(narrow, sizeof narrow, 0), .y = kc_out(sizeof y, 0),
                                     .bad = bad, .n = COUNT(idx), .d = 5, .along = 7, .rank = 3, .size = 2,
                                     .wide = wide, .dims = {3, 2, 7}, .ss = {35, 0, 1}};
        KC_RUN(qk_gather_elements, &a);
        kc_back(y, a.y, sizeof y);
        for (int i = 0; i < COUNT(y); i++) assert_int_equal(y[i], x[i / 14 * 35 + place(idx[i]) * 7 + i % 7]);
        check_bad(bad, 0);
        free(x);
        kc_release();
    }
}

/* x [2][5][4][inner]: tuples of two name rows; read, or written (each once). */
static void nd(void)
{
    enum { INNER = 9, TUPLES = 4 };
    static const int64_t tuples[2][TUPLES][2] = {{{0, 0}, {-1, 3}, {2, -2}, {4, 1}}, {{1, 1}, {3, -4}, {-5, 2}, {2, 3}}};
    const int32_t nil = 0;
    for (int scatter = 0; scatter < 2; scatter++) {
        const int64_t numel = 2 * 5 * 4 * INNER, rows = 2 * TUPLES * INNER;
        uint32_t *x = kc_bytes(4 * (scatter ? rows : numel), 7), *before = kc_bytes(4 * numel, 8), y[2 * 5 * 4 * INNER];
        int32_t *bad = kc_in(&nil, sizeof nil, 0);
        qk_nd_args a = {.x = kc_in(x, (size_t)(scatter ? rows : numel) * 4, 0), .idx = kc_in(tuples, sizeof tuples, 0),
                        .y = scatter ? kc_in(before, (size_t)numel * 4, 0) : kc_out((size_t)rows * 4, 0), .bad = bad, .batch = 2,
                        .per_batch = TUPLES,
                        .inner = INNER, .x_batch = 20 * INNER, .depth = 2, .size = 4, .scatter = scatter, .d = {5, 4},
                            .stride = {4 * INNER, INNER}};
        KC_RUN(qk_nd, &a);
        kc_back(y, a.y, (size_t)(scatter ? numel : rows) * 4);
        for (int i = 0; i < rows; i++) {
            const int64_t b = i / INNER / TUPLES, *t = tuples[b][i / INNER % TUPLES],
                off = (b * 20 + (t[0] < 0 ? t[0] + 5 : t[0]) * 4 + (t[1] < 0 ? t[1] + 4 : t[1])) * INNER + i % INNER;
            if (scatter) before[off] = x[i];
            else assert_int_equal(y[i], x[off]);
        }
        if (scatter) kc_same("ScatterND", y, before, (size_t)numel * 4);
        check_bad(bad, 0);
        free(x), free(before);
        kc_release();
    }
}

/* ---- pictures ---- */

static void im2col(void)
{
    for (int size = 1; size <= 4; size *= 2) {
        enum { CH = 6, GROUP = 3, H = 7, W = 9, OH = 5, OW = 4, TAPS = 6 };
        uint8_t *x = kc_bytes(2 * CH * H * W * size, 9), y[2 * OH * OW * GROUP * TAPS * 4];
        const uint32_t outside = 0x31;
        qk_im2col_args a = {.x = kc_in(x, (size_t)(2 * CH * H * W * size), 0),
                            .y = kc_out((size_t)(2 * OH * OW * GROUP * TAPS * size), 0), .batch = 2, .channels = CH, .first_channel = 3,
                            .group_channels = GROUP, .in = {1, H, W}, .out = {1, OH, OW},
                            .kernel = {1, 3, 2}, .stride = {1, 2, 3}, .dilation = {1, 1, 2}, .begin = {0, 2, 1}, .spatial = 2,
                                .size = size, .zero = (int32_t)outside};
        if (size == 1) a.zero = 0, a.zero_at = kc_in(&outside, 1, 0); /* as code on the device */
        KC_RUN(qk_im2col, &a);
        kc_back(y, a.y, (size_t)(2 * OH * OW * GROUP * TAPS * size));
        for (int i = 0; i < 2 * OH * OW * GROUP * TAPS; i++) {
            const int col = i % (GROUP * TAPS), p = i / (GROUP * TAPS) % (OH * OW), b = i / (GROUP * TAPS) / (OH * OW), tap = col % TAPS;
            const int h = p / OW * 2 + tap / 2 - 2, w = p % OW * 3 + tap % 2 * 2 - 1;
            const uint8_t *want = h < 0 || h >= H || w < 0 || w >= W ? (const uint8_t *)&outside
                : x + (((b * CH + 3 + col / TAPS) * H + h) * W + w) * size;
            assert_memory_equal(y + i * size, want, (size_t)size);
        }
        free(x);
        kc_release();
    }
}

/* Two planes of 3 x 4 to 5 x 7, by neighbours and by weights between two. */
static void resize(void)
{
    static const int32_t h0[] = {0, 0, 1, 1, 2}, h1[] = {0, 1, 2, 2, 2}, w0[] = {0, 0, 1, 1, 2, 3, 3}, w1[] = {1, 1, 2, 2, 3, 3, 3},
        nil[] = {0};
    static const float fh[] = {0, 0.6f, 0.2f, 0.8f, 0}, fw[] = {0.1f, 0.5f, 0, 0.9f, 0.3f, 0, 0}, none[] = {0};
    float x[2 * 12], y[2 * 35], want[2 * 35];
    for (int linear = 0; linear < 2; linear++)
        KC_EACH_REAL(dt) {
            kc_even(x, 24, 3);
            qk_resize_args a = {.x = kc_reals(dt, x, 24, 0), .y = kc_reals_out(dt, 70, 0), .planes = 2, .in = {1, 3, 4},
                                .out = {1, 5, 7}, .i0 = {kc_in(nil, sizeof nil, 0), kc_in(h0, sizeof h0, 0), kc_in(w0, sizeof w0, 0)},
                                .i1 = {kc_in(nil, sizeof nil, 0), kc_in(h1, sizeof h1, 0), kc_in(w1, sizeof w1, 0)}, .dtype = dt,
                                    .size = (int32_t)kc_size(dt)};
            if (linear) a.w[0] = kc_in(none, sizeof none, 0), a.w[1] = kc_in(fh, sizeof fh, 0), a.w[2] = kc_in(fw, sizeof fw, 0);
            KC_RUN(qk_resize, &a);
            for (int i = 0; i < 70; i++) {
                const float *p = x + i / 35 * 12;
                const int h = i / 7 % 5, w = i % 7;
                const float top = p[h0[h] * 4 + w0[w]] * (1 - fw[w]) + p[h0[h] * 4 + w1[w]] * fw[w],
                    low = p[h1[h] * 4 + w0[w]] * (1 - fw[w]) + p[h1[h] * 4 + w1[w]] * fw[w];
                want[i] = linear ? top * (1 - fh[h]) + low * fh[h] : p[h0[h] * 4 + w0[w]];
            }
            kc_reals_back(dt, y, a.y, 70);
            kc_agree("resize", dt, y, want, 70, linear ? 1e-6 : 0, 1);
            kc_release();
        }
}

const kernel_family kernels_move[] = {{"copy", copy}, {"turn", turn}, {"turn into a larger picture", turn_into}, {"fill", fill},
                                      {"pad", pad}, {"gather", gather}, {"gather_elements", gather_elements}, {"nd", nd},
                                      {"im2col", im2col},
                                      {"resize", resize}, {0}};
