/* search_loops.h - error sums over sixteen lanes; included once per translation unit after lanes.h. Gives `leaf`. */

/* Four candidates at a time: x is loaded once, and four sums hide each other's latency. The sums themselves are those of one at a time. */
#define ERROR_STEP(j, q_expr)                                                                                                \
    do {                                                                                                                     \
        const v16 y = v_mul(xv, v_set(inv[c + j])), a = v_set(lo[c + j]), b = v_set(hi[c + j]), q = (q_expr);                \
        const v16 d = v_sub(xv, v_mul(q, v_set(s[c + j]))), e = v_mul(d, d);                                                 \
        sum##j = v_add(sum##j, w ? v_mul(wv, e) : e);                                                                        \
        (void)a, (void)b;                                                                                                    \
    } while (0)
#if LANES_ISA == 0
#define ERROR_FOUR(q_expr) /* the reference stays plain */
#else
#define ERROR_FOUR(q_expr)                                                                                                   \
    for (; c + 4 <= m; c += 4) {                                                                                             \
        v16 sum0 = v_set(0.0f), sum1 = sum0, sum2 = sum0, sum3 = sum0;                                                       \
        for (int64_t i = 0; i < n; i += 16) {                                                                                \
            const v16 xv = v_part(x + i, n - i), wv = w ? v_part(w + i, n - i) : xv;                                         \
            ERROR_STEP(0, q_expr);                                                                                           \
            ERROR_STEP(1, q_expr);                                                                                           \
            ERROR_STEP(2, q_expr);                                                                                           \
            ERROR_STEP(3, q_expr);                                                                                           \
        }                                                                                                                    \
        err[c] = v_sum(sum0), err[c + 1] = v_sum(sum1), err[c + 2] = v_sum(sum2), err[c + 3] = v_sum(sum3);                  \
    }
#endif
#define ERROR_LOOP(name, q_expr)                                                                                             \
    TARGET static void name(const float *x, const float *w, int64_t n, const float *s, const float *inv, const float *lo,    \
                            const float *hi, int m, float *err)                                                              \
    {                                                                                                                        \
        int c = 0;                                                                                                           \
        ERROR_FOUR(q_expr)                                                                                                   \
        for (; c < m; c++) {                                                                                                 \
            v16 sum0 = v_set(0.0f);                                                                                          \
            for (int64_t i = 0; i < n; i += 16) {                                                                            \
                const v16 xv = v_part(x + i, n - i), wv = w ? v_part(w + i, n - i) : xv;                                     \
                ERROR_STEP(0, q_expr);                                                                                       \
            }                                                                                                                \
            err[c] = v_sum(sum0);                                                                                            \
        }                                                                                                                    \
    }

ERROR_LOOP(errors_int, v_rne(v_min(v_max(y, a), b)))
ERROR_LOOP(errors_e4m3, v_mini_round(y, 3, 7, 448.0f))
ERROR_LOOP(errors_e5m2, v_mini_round(y, 2, 15, 57344.0f))
ERROR_LOOP(errors_e2m1, v_mini_round(y, 1, 1, 6.0f))

/* ---- sixteen blocks, one a lane ---- */

#define LANE_STEP(j, q_expr)                                                                                                 \
    do {                                                                                                                     \
        const v16 y = v_mul(xv, v_load(inv + 16 * (c + j))), a = v_load(lo + 16 * (c + j)), b = v_load(hi + 16 * (c + j));   \
        const v16 q = (q_expr), d = v_sub(xv, v_mul(q, v_load(s + 16 * (c + j)))), e = v_mul(d, d);                          \
        sum##j = v_add(sum##j, w ? v_mul(wv, e) : e);                                                                        \
        (void)a, (void)b;                                                                                                    \
    } while (0)
#if LANES_ISA == 0
#define LANE_FOUR(q_expr)
#define LANE_TWO(q_expr)
#else
#define LANE_TWO(q_expr)                                                                                                     \
    for (; c + 2 <= m; c += 2) {                                                                                             \
        v16 sum0 = v_set(0.0f), sum1 = sum0;                                                                                 \
        for (int64_t i = 0; i < n; i++) {                                                                                    \
            const v16 xv = v_load(x + ldx * i), wv = w ? v_load(w + 16 * i) : xv;                                             \
            LANE_STEP(0, q_expr);                                                                                            \
            LANE_STEP(1, q_expr);                                                                                            \
        }                                                                                                                    \
        v_store(err + 16 * c, sum0), v_store(err + 16 * c + 16, sum1);                                                       \
    }
#define LANE_FOUR(q_expr)                                                                                                    \
    for (; c + 4 <= m; c += 4) {                                                                                             \
        v16 sum0 = v_set(0.0f), sum1 = sum0, sum2 = sum0, sum3 = sum0;                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                                    \
            const v16 xv = v_load(x + ldx * i), wv = w ? v_load(w + 16 * i) : xv;                                             \
            LANE_STEP(0, q_expr);                                                                                            \
            LANE_STEP(1, q_expr);                                                                                            \
            LANE_STEP(2, q_expr);                                                                                            \
            LANE_STEP(3, q_expr);                                                                                            \
        }                                                                                                                    \
        v_store(err + 16 * c, sum0), v_store(err + 16 * c + 16, sum1);                                                       \
        v_store(err + 16 * c + 32, sum2), v_store(err + 16 * c + 48, sum3);                                                  \
    }
#endif
#define LANE_LOOP(name, q_expr)                                                                                              \
    TARGET static void name(const float *x, int64_t ldx, const float *w, int64_t n, const float *s, const float *inv, const float *lo,    \
                            const float *hi, int m, float *err)                                                              \
    {                                                                                                                        \
        int c = 0;                                                                                                           \
        LANE_FOUR(q_expr)                                                                                                    \
        LANE_TWO(q_expr)                                                                                                     \
        for (; c < m; c++) {                                                                                                 \
            v16 sum0 = v_set(0.0f);                                                                                          \
            for (int64_t i = 0; i < n; i++) {                                                                                \
                const v16 xv = v_load(x + ldx * i), wv = w ? v_load(w + 16 * i) : xv;                                         \
                LANE_STEP(0, q_expr);                                                                                        \
            }                                                                                                                \
            v_store(err + 16 * c, sum0);                                                                                     \
        }                                                                                                                    \
    }

LANE_LOOP(lane_errors_int, v_rne(v_min(v_max(y, a), b)))
LANE_LOOP(lane_errors_e4m3, v_mini_round(y, 3, 7, 448.0f))
LANE_LOOP(lane_errors_e5m2, v_mini_round(y, 2, 15, 57344.0f))
LANE_LOOP(lane_errors_e2m1, v_mini_round(y, 1, 1, 6.0f))

/* q by clamping and rounding, then A += w x q, B += w q^2. */
TARGET static void lane_moments(const float *x, int64_t ldx, const float *w, int64_t n, const qx_try *t, float *a, float *b)
{
    for (int c = 0; c < t->m; c++) {
        const v16 iv = v_load(t->inv + 16 * c), lo = v_load(t->lo + 16 * c), hi = v_load(t->hi + 16 * c);
        v16 up = v_set(0.0f), down = v_set(0.0f);
        for (int64_t i = 0; i < n; i++) {
            const v16 xv = v_load(x + ldx * i), q = v_rne(v_min(v_max(v_mul(xv, iv), lo), hi));
            const v16 wq = w ? v_mul(v_load(w + 16 * i), q) : q;
            up = v_add(up, v_mul(wq, xv));
            down = v_add(down, v_mul(wq, q));
        }
        v_store(a + 16 * c, v_add(v_load(a + 16 * c), up)), v_store(b + 16 * c, v_add(v_load(b + 16 * c), down));
    }
}

/* A value rounded and clamped to 16 bits, in both halves of its word. */
LANE h32 twice(v16 v)
{
    const h32 r = h_round(v_min(v_max(v, v_set(-32767.0f)), v_set(32767.0f)));
    return h_halves(r, r);
}

/* The same in fixed point, two elements a lane: q = clamp(round(x * mul / 2^15)). Four candidates at a time, so that x is loaded once. */
#define FIXED_BEGIN(j)                                                                                                       \
    const h32 mul##j = twice(v_mul(v_load(t->inv + 16 * (c + j)), v_set(32768.0f / (float)QX_FIXED_TOP)));                   \
    const h32 lo##j = twice(v_load(t->lo + 16 * (c + j))), hi##j = twice(v_load(t->hi + 16 * (c + j)));                      \
    h32 up##j = h_set(0), down##j = h_set(0)
#define FIXED_STEP(j)                                                                                                        \
    do {                                                                                                                     \
        const h32 q = h_min(h_max(h_mulr(xv, mul##j), lo##j), hi##j);                                                        \
        up##j = h_add32(up##j, h_madd(q, xv)), down##j = h_add32(down##j, h_madd(q, q));                                     \
    } while (0)
#define FIXED_END(j)                                                                                                         \
    v_store(a + 16 * (c + j), v_add(v_load(a + 16 * (c + j)), v_mul(v_words(up##j), v_set(1.0f / (float)QX_FIXED_TOP))));    \
    v_store(b + 16 * (c + j), v_add(v_load(b + 16 * (c + j)), v_words(down##j)))
TARGET static void lane_fixed(const int32_t *x, int64_t pairs, const qx_try *t, float *a, float *b)
{
    int c = 0;
    for (; c + 4 <= t->m; c += 4) {
        FIXED_BEGIN(0);
        FIXED_BEGIN(1);
        FIXED_BEGIN(2);
        FIXED_BEGIN(3);
        for (int64_t i = 0; i < pairs; i++) {
            const h32 xv = h_load(x + 16 * i);
            FIXED_STEP(0);
            FIXED_STEP(1);
            FIXED_STEP(2);
            FIXED_STEP(3);
        }
        FIXED_END(0);
        FIXED_END(1);
        FIXED_END(2);
        FIXED_END(3);
    }
    for (; c < t->m; c++) {
        FIXED_BEGIN(0);
        for (int64_t i = 0; i < pairs; i++) {
            const h32 xv = h_load(x + 16 * i);
            FIXED_STEP(0);
        }
        FIXED_END(0);
    }
}
#undef FIXED_BEGIN
#undef FIXED_STEP
#undef FIXED_END

/* E2M1 in fixed point: quarters of a code, rounded down, look up twice the code's value. */
#define E2M1_BEGIN(j)                                                                                                        \
    const h32 mul##j = twice(v_mul(v_load(inv + 16 * (c + j)), v_set(4.0f * 65536.0f / (float)QX_FIXED_E2M1)));              \
    h32 up##j = h_set(0), down##j = h_set(0)
#define E2M1_STEP(j)                                                                                                         \
    do {                                                                                                                     \
        const h32 q = h_e2m1(h_mulhi(xv, mul##j));                                                                           \
        up##j = h_add32(up##j, h_madd(q, xv)), down##j = h_add32(down##j, h_madd(q, q));                                     \
    } while (0)
#define E2M1_END(j)                                                                                                          \
    do {                                                                                                                     \
        const v16 half = v_mul(v_load(s + 16 * (c + j)), v_set(0.5f));                                                       \
        const v16 a = v_mul(v_words(up##j), v_set(2.0f / (float)QX_FIXED_E2M1));                                             \
        v_store(err + 16 * (c + j), v_mul(half, v_sub(v_mul(half, v_words(down##j)), a)));                                   \
    } while (0)
#define E2M1_LOOP(steps)                                                                                                     \
    for (int64_t i = 0; i < pairs; i++) {                                                                                    \
        const h32 xv = h_abs(h_load(x + 16 * i));                                                                            \
        steps;                                                                                                               \
    }
TARGET static void lane_fixed_e2m1(const int32_t *x, int64_t pairs, const float *s, const float *inv, int m, float *err)
{
    int c = 0;
    for (; c + 4 <= m; c += 4) {
        E2M1_BEGIN(0);
        E2M1_BEGIN(1);
        E2M1_BEGIN(2);
        E2M1_BEGIN(3);
        E2M1_LOOP(E2M1_STEP(0); E2M1_STEP(1); E2M1_STEP(2); E2M1_STEP(3))
        E2M1_END(0);
        E2M1_END(1);
        E2M1_END(2);
        E2M1_END(3);
    }
    for (; c < m; c++) {
        E2M1_BEGIN(0);
        E2M1_LOOP(E2M1_STEP(0))
        E2M1_END(0);
    }
}
#undef E2M1_BEGIN
#undef E2M1_STEP
#undef E2M1_END
#undef E2M1_LOOP

TARGET static void lane_to_fixed(const float *x, int64_t ldx, int64_t n, const float *unit, int top, int32_t *out)
{
    const v16 one = v_mul(v_load(unit), v_set((float)top));
    for (int64_t i = 0; i < n; i += 2) {
        const h32 first = h_round(v_mul(v_load(x + ldx * i), one));
        const h32 second = i + 1 < n ? h_round(v_mul(v_load(x + ldx * (i + 1)), one)) : h_set(0);
        h_store(out + 8 * i, h_halves(first, second));
    }
}

TARGET static void lane_take(const qx_try *t, const float *a, const float *b, qx_fit *f)
{
    const v16 none = v_set(0.0f);
    v16 scale = v_load(f->scale), gain = v_load(f->gain), lo = v_load(f->lo);
    for (int c = 0; c < t->m; c++) {
        const v16 up = v_load(a + 16 * c), down = v_load(b + 16 * c), slope = v_div(up, down), ours = v_mul(up, slope);
        const v16 same = v_mul(slope, v_sign_of(v_set(1.0f), v_load(t->inv + 16 * c)));
        const v16 good = v_above(down, none, v_above(same, none, ours, none), none);
        scale = v_above(good, gain, slope, scale);
        lo = v_above(good, gain, v_load(t->lo + 16 * c), lo);
        gain = v_above(good, gain, good, gain);
    }
    v_store(f->scale, scale), v_store(f->gain, gain), v_store(f->lo, lo);
}

TARGET static void lane_least(const float *v, int m, float *least, float *which)
{
    v16 best = v_load(v), at = v_set(0.0f);
    for (int c = 1; c < m; c++) {
        const v16 x = v_load(v + 16 * c);
        at = v_above(best, x, v_set((float)c), at);
        best = v_above(best, x, x, best);
    }
    v_store(least, best), v_store(which, at);
}

TARGET static void lane_range(const float *x, int64_t ldx, int64_t n, float *lo, float *hi)
{
    v16 a = v_load(lo), b = v_load(hi);
    for (int64_t i = 0; i < n; i++) a = v_min(v_load(x + ldx * i), a), b = v_max(v_load(x + ldx * i), b);
    v_store(lo, a), v_store(hi, b);
}

static const qx_search_leaf leaf = {
    .lanes = {.errors = {[QX_ROUND_INT] = lane_errors_int, [QX_ROUND_E4M3] = lane_errors_e4m3, [QX_ROUND_E5M2] = lane_errors_e5m2,
                         [QX_ROUND_E2M1] = lane_errors_e2m1},
              .moments = lane_moments, .fixed = lane_fixed, .fixed_e2m1 = lane_fixed_e2m1, .to_fixed = lane_to_fixed, .take = lane_take,
              .least = lane_least, .range = lane_range},
    .errors = {[QX_ROUND_INT] = errors_int, [QX_ROUND_E4M3] = errors_e4m3, [QX_ROUND_E5M2] = errors_e5m2, [QX_ROUND_E2M1] = errors_e2m1},
};
#undef ERROR_LOOP
#undef ERROR_STEP
#undef ERROR_FOUR
#undef LANE_LOOP
#undef LANE_FOUR
#undef LANE_TWO
#undef LANE_STEP
