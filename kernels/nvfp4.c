/* nvfp4.c - choice of the E4M3 block scales of NVFP4: amax rule, four-over-six, or all 126 codes, by plain, weighted or local-Hessian
 * error. The sweep tries the codes next to the amax rule's for sixteen blocks at once, then goes on up and down block by block where a scale could
 * still win. Further down the largest element alone, saturated, costs more than the best so far. Further up the elements that round to 0 do; and a
 * scale of more than amax / 3 has no value inside the range that half of it has not, so that (without a Hessian) half of it is as good. */
#include <math.h>

#include "kernels/multi.h"
#include "kernels/scalar.h"
#include "kernels/search_leaf.h"

/* LAST_ODD: the last code whose half may be no code. */
enum { B = QX_NVFP4_BLOCK, TOP_CODE = 0x7e, ONE_CODE = 0x38, DOWN = 3, UP = 8, WINDOW = 1 + UP + DOWN, LAST_ODD = 0x0f };

float qx_nvfp4_global(float amax, bool four_over_six)
{
    const float g = amax / (6.0f * (four_over_six ? 256.0f : 448.0f));
    return g > 0x1p-126f ? g : amax > 0 ? 0x1p-126f : 1.0f;
}

typedef struct block {
    const qx_search_leaf *leaf;
    float x[B], w[B];
    const float *h;
    float global, amax, peak_weight; /* of the largest element */
    bool weighted;
} block;

static uint8_t scale_code(const block *b, float target)
{
    const uint8_t c = qx_sc_f32_to_e4m3(b->amax / target / b->global, 1);
    return c == 0 ? 1 : c;
}

static float scale_value(const block *b, int code) { return qx_sc_e4m3_to_f32((uint8_t)code) * b->global; }

/* Errors of n <= 4 codes: first, first + step, ... */
static void errors_of(const block *b, int first, int step, int n, float *err)
{
    float s[4], inv[4];
    const float none[4] = {0};
    for (int i = 0; i < n; i++) s[i] = scale_value(b, first + i * step), inv[i] = 1.0f / s[i];
    if (b->h)
        for (int i = 0; i < n; i++) err[i] = b->leaf->hessian_error(b->x, b->h, s[i], inv[i]);
    else b->leaf->errors[QX_ROUND_E2M1](b->x, b->weighted ? b->w : NULL, B, s, inv, none, none, n, err);
}

static float error_of(const block *b, int code)
{
    float e;
    errors_of(b, code, 1, 1, &e);
    return e;
}

/* Lower bounds of the error for this code and all codes below it (the largest element, saturated) or above it (everything that
 * rounds to 0). A little less than computed: the sums they are compared with are rounded. A Hessian allows only the trivial ones. */
static float bound_below(const block *b, int code)
{
    const float over = b->amax - 6.0f * scale_value(b, code);
    return b->h || over <= 0.0f ? 0.0f : over * over * b->peak_weight * 0.999f;
}

static float bound_above(const block *b, int code)
{
    const float zero = 0.25f * scale_value(b, code);
    float sum[4] = {0};
    if (b->h) return b->amax <= zero ? INFINITY : 0.0f;
    for (int i = 0; i < B; i += 4)
        for (int j = 0; j < 4; j++) sum[j] += qx_of_bits(qx_bits_of(b->x[i + j]) & 0x7fffffffu) <= zero ? b->x[i + j] * b->x[i + j] * b->w[i + j] : 0.0f;
    return (sum[0] + sum[1] + sum[2] + sum[3]) * 0.999f;
}

static void keep_best(int first, int step, int n, const float *err, int *code, float *least)
{
    for (int i = 0; i < n; i++)
        if (err[i] < *least) *least = err[i], *code = first + i * step;
}

/* Codes from `up` upwards and from `down` downwards, against what is the best so far. */
static int sweep_beyond(const block *b, int best, float least, int up, int down)
{
    float err[4];
    const int top = b->h ? TOP_CODE : LAST_ODD; /* above it half of the scale was tried */
    const bool more_up = up <= top && bound_above(b, up) <= least, more_down = down >= 1 && bound_below(b, down) <= least;
    if (!more_up && !more_down) return best;
    least = error_of(b, best); /* `least` may have been summed in another order */
    for (int c = up; c <= top && bound_above(b, c) <= least; c += 4) {
        const int n = top - c + 1 < 4 ? top - c + 1 : 4;
        errors_of(b, c, 1, n, err);
        keep_best(c, 1, n, err, &best, &least);
    }
    for (int c = down; c >= 1 && bound_below(b, c) <= least; c -= 4) {
        const int n = c < 4 ? c : 4;
        errors_of(b, c, -1, n, err);
        keep_best(c, -1, n, err, &best, &least);
    }
    return best;
}

static int choose(const block *b, qx_nvfp4_rule rule)
{
    const int six = scale_code(b, 6.0f), four = scale_code(b, 4.0f);
    if (b->amax == 0.0f) return ONE_CODE;
    if (rule == QX_NVFP4_AMAX) return six;
    if (rule == QX_NVFP4_SWEEP) return sweep_beyond(b, six, error_of(b, six), six + 1, six - 1);
    return error_of(b, four) < error_of(b, six) ? four : six;
}

/* x: the first element of the block, `step` apart; at: its column. */
static void load_block(block *b, const qx_nvfp4 *p, const float *x, int64_t step, int64_t at, int64_t n)
{
    uint32_t top = 0;
    if (n < B) memset(b->x, 0, sizeof b->x);
    for (int64_t i = 0; i < n; i++) b->x[i] = x[i * step];
    for (int i = 0; i < B; i++) {
        const uint32_t a = qx_bits_of(b->x[i]) & 0x7fffffffu;
        top = a > top ? a : top;
    }
    b->amax = qx_of_bits(top), b->peak_weight = 1.0f;
    for (int i = 0; i < B; i++) b->w[i] = 1.0f;
    if (p->weight) memcpy(b->w, p->weight + at, sizeof *b->w * (size_t)n);
    for (int i = 0; i < n && p->weight; i++)
        if ((qx_bits_of(b->x[i]) & 0x7fffffffu) == top) b->peak_weight = b->w[i];
    b->h = p->hessian ? p->hessian + at * B : NULL;
}

/* ---- sixteen blocks at once ---- */

/* Walks the blocks in the order of the output: [rows][along], by columns [along][rows]. */
typedef struct walk { int64_t fast, slow, fast_end; } walk;

static void load_next(block *b, const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, walk *w)
{
    const int64_t row = p->columns ? w->fast : w->slow, at = (p->columns ? w->slow : w->fast) * B, n = k - at < B ? k - at : B;
    if (p->columns) load_block(b, p, x + at * rows + row, rows, at, n);
    else load_block(b, p, x + row * k + at, 1, at, n);
    if (++w->fast == w->fast_end) w->fast = 0, w->slow++;
}

/* The window's codes: the amax rule's first, then up, then down, as the sweep goes; kept inside 1 .. TOP_CODE. */
static int window_code(int start, int i)
{
    const int c = i <= UP ? start + i : start - (i - UP);
    return c < 1 ? 1 : c > TOP_CODE ? TOP_CODE : c;
}

QX_INLINE void best_of_window_body(const float *restrict err, int32_t *restrict pick, float *restrict least)
{
    for (int l = 0; l < QX_LANES; l++) pick[l] = 0, least[l] = err[l];
    for (int i = 1; i < WINDOW; i++)
        for (int l = 0; l < QX_LANES; l++) {
            const int better = err[i * QX_LANES + l] < least[l];
            pick[l] = better ? i : pick[l];
            least[l] = better ? err[i * QX_LANES + l] : least[l];
        }
}
QX_MULTI(static, best_of_window, (const float *err, int32_t *pick, float *least), (err, pick, least))

/* Values of the window's codes times global, and their inverses. Codes from 8 on are the upper bits of a float. */
QX_INLINE void window_scales_body(const int32_t *restrict start, float global, float *restrict s, float *restrict inv)
{
    for (int i = 0; i < WINDOW; i++)
        for (int l = 0; l < QX_LANES; l++) {
            const int32_t raw = i <= UP ? start[l] + i : start[l] - (i - UP), up = raw < 1 ? 1 : raw, c = up > TOP_CODE ? TOP_CODE : up;
            const float normal = qx_of_bits((uint32_t)(c + (120 << 3)) << 20), small = (float)c * 0x1p-9f, v = (c < 8 ? small : normal) * global;
            s[i * QX_LANES + l] = v;
            inv[i * QX_LANES + l] = 1.0f / v;
        }
}
QX_MULTI(static, window_scales, (const int32_t *start, float global, float *s, float *inv), (start, global, s, inv))

/* Codes of n <= QX_LANES blocks by the sweep without a Hessian. */
static void sweep_lanes(block *b, int n, uint8_t *code)
{
    float x[B * QX_LANES] = {0}, w[B * QX_LANES] = {0}, s[WINDOW * QX_LANES], inv[WINDOW * QX_LANES], err[WINDOW * QX_LANES], least[QX_LANES];
    const float none[WINDOW * QX_LANES] = {0};
    int32_t pick[QX_LANES], start[QX_LANES];
    for (int l = 0; l < QX_LANES; l++) start[l] = scale_code(&b[l < n ? l : 0], 6.0f);
    window_scales(start, b->global, s, inv);
    (void)qx_transpose(4, n, B, b[0].x, (int64_t)(sizeof *b / sizeof(float)), x, QX_LANES);
    if (b->weighted) (void)qx_transpose(4, n, B, b[0].w, (int64_t)(sizeof *b / sizeof(float)), w, QX_LANES);
    b->leaf->lanes.errors[QX_ROUND_E2M1](x, QX_LANES, b->weighted ? w : NULL, B, s, inv, none, none, WINDOW, err);
    best_of_window(err, pick, least);
    for (int l = 0; l < n; l++) {
        if (b[l].amax == 0.0f) code[l] = ONE_CODE;
        else code[l] = (uint8_t)sweep_beyond(&b[l], window_code(start[l], pick[l]), least[l], start[l] + UP + 1, start[l] - DOWN - 1);
    }
}

void qx_nvfp4_search_using(const qx_search_leaf *l, const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, uint8_t *code, float *scale, double *err)
{
    const int64_t along = qx_cells_of(k, B), total = rows * along;
    walk at = {.fast_end = p->columns ? rows : along};
    block b[QX_LANES];
    for (int64_t first = 0; first < total; first += QX_LANES) {
        const int n = total - first < QX_LANES ? (int)(total - first) : QX_LANES;
        for (int i = 0; i < n; i++) {
            b[i].leaf = l, b[i].global = p->global, b[i].weighted = p->weight != NULL;
            load_next(&b[i], p, x, rows, k, &at);
        }
        if (p->rule == QX_NVFP4_SWEEP && !p->hessian) sweep_lanes(b, n, code + first);
        else for (int i = 0; i < n; i++) code[first + i] = (uint8_t)choose(&b[i], p->rule);
        for (int i = 0; i < n; i++) {
            scale[first + i] = scale_value(&b[i], code[first + i]);
            if (err) err[first + i] = b[i].amax == 0.0f ? 0.0 : (double)error_of(&b[i], code[first + i]);
        }
    }
}
