/* kernel_rows.c - kernels/cuda/rows.cu against the CPU's loops over rows: lengths around every block and every piece of eight,
 * values that overflow, cancel, are NaN or infinite. */
#include "kernel_case.h"
#include "kernels/rows.h"

enum { MOST = 3 * 2100 };
static const int64_t lengths[] = {1, 7, 8, 33, 64, 255, 1000, 2048};
typedef enum fill { NORMAL, LARGE, TINY, EQUAL, SPIKE, BAD, FILLS } fill;

static void make(float *x, int64_t n, int kind, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = rng_normal(&seed);
        x[i] = kind == LARGE ? v * 1e18f : kind == TINY ? v * 1e-40f : kind == EQUAL ? 3.25f : v;
    }
    if (kind == SPIKE) x[n / 2] = 80.0f;
    if (kind == BAD) x[n / 3] = NAN, x[n - 1] = INFINITY;
}

/* x [outer][d][inner] as rows, one behind the other, and back. */
static void to_rows(const float *x, float *rows, int64_t outer, int64_t d, int64_t inner, bool back)
{
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            for (int64_t k = 0; k < d; k++) {
                const int64_t at = (o * d + k) * inner + i, row = (o * inner + i) * d + k;
                rows[back ? at : row] = x[back ? row : at];
            }
}

static void softmax_of(int dt, int64_t d, int64_t inner, int kind, bool log)
{
    static float x[MOST], rows[MOST], want[MOST], y[MOST];
    const int64_t outer = inner > 1 ? 1 : 3, n = outer * d * inner;
    make(x, n, kind, 3);
    if (kind == NORMAL && d > 2) x[1] = -INFINITY;
    qk_softmax_args a = {.x = kc_reals(dt, x, n, 0), .y = kc_reals_out(dt, n, 0), .outer = outer, .d = d, .inner = inner, .dtype = dt,
                         .log = log};
    KC_RUN(qk_softmax, &a);
    to_rows(x, rows, outer, d, inner, false);
    for (int64_t r = 0; r < outer * inner; r++)
        (log ? qx_log_softmax_row(rows + r * d, rows + r * d, d) : qx_softmax_row(rows + r * d, rows + r * d, d, false));
    to_rows(rows, want, outer, d, inner, true);
    kc_reals_back(dt, y, a.y, n);
    kc_agree(log ? "log softmax" : "softmax", dt, y, want, n, 1e-5, 1e-3);
    kc_release();
}

static void softmax(void)
{
    static const int kinds[] = {NORMAL, TINY, EQUAL, SPIKE};
    for (int i = 0; i < COUNT(lengths); i++)
        KC_EACH_REAL(dt)
            for (int k = 0; k < COUNT(kinds); k++) {
                softmax_of(dt, lengths[i], 1, kinds[k], false);
                softmax_of(dt, lengths[i], 3, kinds[k], kinds[k] != NORMAL);
            }
}

/* Layer and RMS norms, with and without what stands before and behind. */
typedef struct norm_case { int64_t d; bool rms, skip, affine; size_t shift; } norm_case;
static void norm_of(int dt, const norm_case *c, int kind)
{
    static float x[MOST], skip[MOST], sum[MOST], y[MOST], want[MOST], g[2100], b[2100], bias[2100];
    float mean[3], inv[3], want_mean[3] = {0}, want_inv[3];
    const int64_t n = 3 * c->d;
    const size_t shift = c->shift * kc_size(dt);
    make(x, n, kind, 4), kc_even(skip, n, 5), kc_even(g, c->d, 6), kc_even(b, c->d, 7), kc_even(bias, c->d, 8);
    qk_norm_args a = {.x = kc_reals(dt, x, n, shift), .y = kc_reals_out(dt, n, shift), .mean = c->rms ? NULL : kc_out(12, 0),
                      .inv = kc_out(12, 0), .rows = 3, .d = c->d, .dtype = dt, .ptype = dt, .rms = c->rms, .eps = 1e-5f};
    if (c->skip) a.skip = kc_reals(dt, skip, n, shift), a.bias = kc_reals(dt, bias, c->d, 0), a.sum = kc_reals_out(dt, n, shift);
    if (c->affine) a.gamma = kc_reals(dt, g, c->d, 0), a.beta = c->rms ? NULL : kc_reals(dt, b, c->d, 0);
    KC_RUN(qk_norm, &a);
    for (int64_t i = 0; i < n && c->skip; i++) x[i] = x[i] + skip[i] + bias[i % c->d];
    for (int r = 0; r < 3; r++) {
        if (c->rms) qx_rmsnorm_row(x + r * c->d, c->affine ? g : NULL, a.eps, want + r * c->d, c->d, &want_inv[r]);
        else
            qx_layernorm_row(x + r * c->d, c->affine ? g : NULL, c->affine ? b : NULL, a.eps, want + r * c->d, c->d, &want_mean[r],
                             &want_inv[r]);
    }
    kc_reals_back(dt, y, a.y, n);
    kc_agree("normalisation", dt, y, want, n, 2e-5, 1);
    kc_back(inv, a.inv, sizeof inv);
    kc_agree("1 / deviation", QX_DT_FLOAT, inv, want_inv, 3, 1e-5, 0);
    if (!c->rms) kc_back(mean, a.mean, sizeof mean);
    if (!c->rms) kc_agree("mean", QX_DT_FLOAT, mean, want_mean, 3, 1e-5, 1e-2);
    if (c->skip) kc_reals_back(dt, sum, a.sum, n);
    if (c->skip) kc_agree("sum before the norm", dt, sum, x, n, 1e-7, 0);
    kc_release();
}

static void norm(void)
{
    static const int kinds[] = {NORMAL, SPIKE};
    for (int i = 0; i < COUNT(lengths); i++)
        for (int flags = 0; flags < 16; flags++) {
            const norm_case c = {lengths[i], flags & 1, flags & 2, flags & 4, flags & 8 ? 1 : 0};
            norm_of(kc_real_types[(i + flags) % 3], &c, kinds[flags % 2]);
            norm_of(QX_DT_FLOAT, &c, EQUAL);
        }
}

static void group_norm_of(int dt, int64_t inner, bool silu)
{
    enum { BATCH = 2, GROUPS = 3, PER = 4 };
    static float x[BATCH * GROUPS * PER * 264], y[BATCH * GROUPS * PER * 264], want[BATCH * GROUPS * PER * 264];
    float g[GROUPS * PER], b[GROUPS * PER];
    const int64_t n = BATCH * GROUPS * PER * inner;
    make(x, n, NORMAL, 21), kc_even(g, COUNT(g), 22), kc_even(b, COUNT(b), 23);
    qk_group_norm_args a = {.x = kc_reals(dt, x, n, 0), .gamma = kc_reals(dt, g, COUNT(g), 0), .beta = kc_reals(dt, b, COUNT(b), 0),
                            .y = kc_reals_out(dt, n, 0), .groups_total = BATCH * GROUPS, .groups = GROUPS, .channels = GROUPS * PER,
                            .inner = inner, .dtype = dt, .ptype = dt, .silu = silu, .eps = 1e-5f};
    KC_RUN(qk_group_norm, &a);
    for (int64_t k = 0; k < BATCH * GROUPS * PER; k++) {
        float mean, inv;
        qx_moments(x + k / PER * PER * inner, PER * inner, a.eps, &mean, &inv);
        qx_affine_row(x + k * inner, mean, inv, g[k % COUNT(g)], b[k % COUNT(b)], want + k * inner, inner);
    }
    for (int64_t i = 0; i < n && silu; i++) want[i] = (float)((double)want[i] / (1 + exp(-(double)want[i])));
    kc_reals_back(dt, y, a.y, n);
    kc_agree("group norm", dt, y, want, n, 1e-5, 1);
    kc_release();
}

static void group_norm(void)
{
    KC_EACH_REAL(dt)
        for (int silu = 0; silu < 2; silu++) {
            group_norm_of(dt, 264, silu);
            group_norm_of(dt, 35, silu);
            group_norm_of(dt, 1, silu);
        }
}

static void reduce_of(int dt, int op, int64_t d, int64_t inner, int kind)
{
    static float x[MOST], rows[MOST];
    float y[3], want[3];
    const int64_t outer = inner > 1 ? 1 : 3, n = outer * d * inner;
    char what[40];
    snprintf(what, sizeof what, "reduction %d of %d", op, (int)d);
    make(x, n, kind, 9);
    for (int64_t i = 0; i < n && (op == QX_R_LOGSUM || op == QX_R_PROD); i++) x[i] = 1 + fabsf(x[i]) / 64;
    qk_reduce_args a = {.x = kc_reals(dt, x, n, 0), .y = kc_reals_out(dt, outer * inner, 0), .outer = outer, .d = d, .inner = inner,
                        .dtype = dt, .op = op};
    KC_RUN(qk_reduce, &a);
    to_rows(x, rows, outer, d, inner, false);
    for (int64_t r = 0; r < outer * inner; r++) want[r] = qx_reduce_row((qx_reduce)op, rows + r * d, d);
    kc_reals_back(dt, y, a.y, outer * inner);
    kc_agree(what, dt, y, want, outer * inner, op == QX_R_MAX || op == QX_R_MIN ? 1e-7 : op == QX_R_PROD ? 1e-7 * (double)d : 1e-5,
             op == QX_R_SUM || op == QX_R_MEAN ? sqrt((double)d) : 0);
    kc_release();
}

static void reduce(void)
{
    for (int op = QX_R_SUM; op <= QX_R_LOGSUMEXP; op++)
        for (int i = 0; i < COUNT(lengths); i++) {
            const int dt = op == QX_R_PROD ? QX_DT_FLOAT : kc_real_types[i % 3];
            reduce_of(dt, op, lengths[i], 1, NORMAL);
            reduce_of(dt, op, lengths[i], 3, EQUAL);
            if (op == QX_R_MAX || op == QX_R_MIN || op == QX_R_SUM) reduce_of(QX_DT_FLOAT, op, lengths[i], 1, BAD);
        }
}

static void reduce_integers(void)
{
    static const int ops[] = {QX_R_SUM, QX_R_MAX, QX_R_MIN, QX_R_PROD};
    int32_t *x = kc_bytes(4 * 6 * 35, 2), y[6];
    for (int o = 0; o < COUNT(ops); o++) {
        qk_reduce_args a = {.x = kc_in(x, 4 * 6 * 35, 0), .y = kc_out(sizeof y, 0), .outer = 2, .d = 35, .inner = 3,
                            .dtype = QX_DT_INT32, .op = ops[o]};
        KC_RUN(qk_reduce, &a);
        kc_back(y, a.y, sizeof y);
        for (int i = 0; i < 6; i++) {
            uint64_t s = ops[o] == QX_R_PROD ? 1 : 0;
            int32_t most = INT32_MIN, least = INT32_MAX;
            for (int k = 0; k < 35; k++) {
                const int32_t v = x[(i / 3 * 35 + k) * 3 + i % 3];
                s = ops[o] == QX_R_PROD ? s * (uint64_t)v : s + (uint64_t)v;
                most = v > most ? v : most, least = v < least ? v : least;
            }
            assert_int_equal(y[i], ops[o] == QX_R_MAX ? most : ops[o] == QX_R_MIN ? least : (int32_t)(uint32_t)s);
        }
        kc_release();
    }
    free(x);
}

static void arg(void)
{
    float x[2 * 35 * 3];
    int64_t y[6];
    for (int flags = 0; flags < 4; flags++)
        KC_EACH_REAL(dt) {
            kc_even(x, COUNT(x), 3);
            for (int i = 0; i < COUNT(x); i++) x[i] = roundf(x[i] * 4); /* many equals */
            qk_arg_args a = {.x = kc_reals(dt, x, COUNT(x), 0), .y = kc_out(sizeof y, 0), .outer = 2, .d = 35, .inner = 3, .dtype = dt,
                             .min = flags & 1, .last = flags >> 1};
            KC_RUN(qk_arg, &a);
            kc_back(y, a.y, sizeof y);
            for (int i = 0; i < 6; i++) {
                int best = 0;
                for (int k = 1; k < 35; k++) {
                    const float v = x[(i / 3 * 35 + k) * 3 + i % 3], b = x[(i / 3 * 35 + best) * 3 + i % 3];
                    if ((a.min ? v < b : v > b) || (v == b && a.last)) best = k;
                }
                assert_int_equal(y[i], best);
            }
            kc_release();
        }
}

static void cumsum(void)
{
    float x[210], y[210], want[210];
    for (int flags = 0; flags < 4; flags++)
        KC_EACH_REAL(dt) {
            kc_even(x, 210, 3);
            for (int i = 0; i < 210; i++) x[i] = roundf(x[i] * 8); /* sums are exact */
            qk_cumsum_args a = {.x = kc_reals(dt, x, 210, 0), .y = kc_reals_out(dt, 210, 0), .outer = 2, .d = 35, .inner = 3,
                                .dtype = dt, .exclusive = flags & 1, .reverse = flags >> 1};
            KC_RUN(qk_cumsum, &a);
            for (int i = 0; i < 6; i++) {
                float s = 0;
                for (int k = 0; k < 35; k++) {
                    const int at = (i / 3 * 35 + (a.reverse ? 34 - k : k)) * 3 + i % 3;
                    want[at] = a.exclusive ? s : s + x[at];
                    s += x[at];
                }
            }
            kc_reals_back(dt, y, a.y, 210);
            kc_agree("running sum", dt, y, want, 210, 1e-7, 0);
            kc_release();
        }
}

/* ---- rotary embeddings: [2][3][5][d], positions given (one too large) or counted ---- */

static void rope_of(int dt, int64_t d, int64_t rot, bool interleaved, bool given, bool bad)
{
    enum { B = 2, H = 3, S = 5, ROWS = 9 };
    static float x[B * H * S * 64], y[B * H * S * 64], want[B * H * S * 64], c[ROWS * 32], s[ROWS * 32];
    const int64_t n = B * H * S * d, half = rot / 2, positions[B * S] = {0, 8, 3, 3, 1, 7, 6, bad ? ROWS : 5, 4, 0};
    const int32_t nil = 0;
    int32_t hit;
    kc_even(x, n, 1), kc_even(c, ROWS * half, 2), kc_even(s, ROWS * half, 3);
    int32_t *flag = kc_in(&nil, sizeof nil, 0);
    qk_rope_args a = {.x = kc_reals(dt, x, n, 0), .cos = kc_reals(dt, c, ROWS * half, 0), .sin = kc_reals(dt, s, ROWS * half, 0),
                      .pos = given ? kc_in(positions, sizeof positions, 0) : NULL, .y = kc_reals_out(dt, n, 0), .batch = B, .heads = H,
                      .seq = S,
                      .d = d, .rot = rot, .max_pos = ROWS, .sb = H * S * d, .sh = S * d, .ss = d, .pos_batch = S, .pos_seq = 1,
                          .table_batch = 2, .dtype = dt, .ttype = dt, .interleaved = interleaved, .bad = flag};
    KC_RUN(qk_rope, &a);
    memcpy(want, x, sizeof want);
    for (int64_t r = 0; r < B * H * S; r++) {
        int64_t p = given ? positions[r / (H * S) * S + r % S] : r / (H * S) * 2 + r % S;
        p = p < ROWS ? p : 0;
        qx_rope_row(x + r * d, c + p * half, s + p * half, half, interleaved, want + r * d);
    }
    kc_reals_back(dt, y, a.y, n);
    kc_agree("rotary embedding", dt, y, want, n, 1e-6, 1);
    kc_back(&hit, flag, sizeof hit);
    assert_int_equal(hit, bad);
    kc_release();
}

static void rope(void)
{
    KC_EACH_REAL(dt)
        for (int flags = 0; flags < 4; flags++) {
            rope_of(dt, 64, 64, flags & 1, flags & 2, false);
            rope_of(dt, 17, 10, flags & 1, flags & 2, false);
        }
    rope_of(QX_DT_FLOAT, 16, 16, false, true, true);
}

static void rotate(void)
{
    enum { B = 2, H = 3, S = 5, D = 18 };
    float x[B * H * S * D], y[B * H * S * D], want[B * H * S * D], c[B * S * D], s[B * S * D];
    KC_EACH_REAL(dt) { /* x is [batch, seq, heads, d], tables are shared by the heads */
        kc_even(x, COUNT(x), 1), kc_even(c, COUNT(c), 2), kc_even(s, COUNT(s), 3);
        qk_rotate_args a = {.x = kc_reals(dt, x, COUNT(x), 0), .cos = kc_reals(dt, c, COUNT(c), 0), .sin = kc_reals(dt, s, COUNT(s), 0),
                            .y = kc_reals_out(dt, COUNT(y), 0), .heads = H, .seq = S, .d = D, .n = COUNT(x), .sx = {S * H * D, D, H * D},
                            .sc = {S * D, 0, D}, .ss = {S * D, 0, D}, .dtype = dt, .ttype = dt};
        KC_RUN(qk_rotate, &a);
        for (int r = 0; r < B * H * S; r++) {
            const int b = r / (H * S), h = r / S % H, t = r % S;
            qx_rotate_half_row(x + ((b * S + t) * H + h) * D, c + (b * S + t) * D, s + (b * S + t) * D, D, want + r * D);
        }
        kc_reals_back(dt, y, a.y, COUNT(y));
        kc_agree("rotation of halves", dt, y, want, COUNT(y), 1e-6, 1);
        kc_release();
    }
}

const kernel_family kernels_rows[] = {{"softmax", softmax}, {"norm", norm}, {"group_norm", group_norm}, {"reduce", reduce},
                                      {"reduce of integers", reduce_integers}, {"arg", arg}, {"cumsum", cumsum}, {"rope", rope},
                                      {"rotate", rotate}, {0}};
