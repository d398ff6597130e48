/* nvfp4.c - choice of the E4M3 block scales of NVFP4: of all 126 codes the one of least error, weighted or not. The codes next to the amax rule's are
 * tried for sixteen blocks at once; up and down from there block by block, where a scale could still win. Further down the largest element alone,
 * saturated, costs more than the best so far. Further up a scale under which nothing rounds to more than 3 has no value that half of it has not. */
#include <math.h>

#include "kernels/multi.h"
#include "kernels/scalar.h"
#include "kernels/search_group.h"

/* LAST_ODD: the last code whose half may be no code. */
enum { B = QX_NVFP4_BLOCK, TOP_CODE = 0x7e, ONE_CODE = 0x38, DOWN = 3, UP = 6, WINDOW = 1 + UP + DOWN, LAST_ODD = 0x0f };

static const float no_limits[WINDOW * QX_LANES]; /* of codes: a float format needs none */

float qx_nvfp4_global(float amax)
{
    const float g = amax / (6.0f * 448.0f);
    return g > 0x1p-126f ? g : amax > 0 ? 0x1p-126f : 1.0f;
}

/* ---- one block, beyond the window ---- */

typedef struct block {
    const qx_search_leaf *leaf;
    float x[B], w[B];
    float global, amax, peak_weight; /* of the largest element */
} block;

/* Codes from 8 on are the upper bits of a float. */
QX_INLINE float scale_value(float global, int32_t code)
{
    const float normal = qx_of_bits((uint32_t)(code + (120 << 3)) << 20), small = (float)code * 0x1p-9f;
    return (code < 8 ? small : normal) * global;
}

/* Errors of n <= 4 codes: first, first + step, ... */
static void errors_of(const block *b, int first, int step, int n, float *err)
{
    float s[4], inv[4];
    for (int i = 0; i < n; i++) s[i] = scale_value(b->global, first + i * step), inv[i] = 1.0f / s[i];
    b->leaf->errors[QX_ROUND_E2M1](b->x, b->w, B, s, inv, no_limits, no_limits, n, err);
}

/* A lower bound of the error for this code and all below it. A little less than computed: the sums it is compared with are rounded. */
QX_INLINE float bound_below(float amax, float scale, float weight)
{
    const float over = amax - 6.0f * scale;
    return over <= 0.0f ? 0.0f : over * over * weight * 0.999f;
}

/* For this code and all above it: everything that rounds to 0. */
static float bound_above(const block *b, int code)
{
    const float zero = 0.25f * scale_value(b->global, code);
    float sum[4] = {0};
    for (int i = 0; i < B; i += 4)
        for (int j = 0; j < 4; j++) sum[j] += qx_of_bits(qx_bits_of(b->x[i + j]) & 0x7fffffffu) <= zero ? b->x[i + j] * b->x[i + j] * b->w[i + j] : 0.0f;
    return (sum[0] + sum[1] + sum[2] + sum[3]) * 0.999f;
}

/* Something may round to 4, or the half is no code. */
QX_INLINE int needs_code(float amax, float scale, int32_t code) { return (code <= LAST_ODD) | (amax * 1.001f > 3.5f * scale); }

static void keep_best(int first, int step, int n, const float *err, int *code, float *least)
{
    for (int i = 0; i < n; i++)
        if (err[i] < *least) *least = err[i], *code = first + i * step;
}

/* Codes from `up` upwards and from `down` downwards, against `best`. */
static int sweep_beyond(const block *b, int best, int up, int down)
{
    float err[4], least;
    errors_of(b, best, 1, 1, &least);
    for (int c = up; c <= TOP_CODE && needs_code(b->amax, scale_value(b->global, c), c) && bound_above(b, c) <= least; c += 4) {
        const int n = TOP_CODE - c + 1 < 4 ? TOP_CODE - c + 1 : 4;
        errors_of(b, c, 1, n, err);
        keep_best(c, 1, n, err, &best, &least);
    }
    for (int c = down; c >= 1 && bound_below(b->amax, scale_value(b->global, c), b->peak_weight) <= least; c -= 4) {
        const int n = c < 4 ? c : 4;
        errors_of(b, c, -1, n, err);
        keep_best(c, -1, n, err, &best, &least);
    }
    return best;
}

static void load_block(block *b, const qx_group *g, int lane)
{
    b->amax = 0.0f, b->peak_weight = 1.0f;
    for (int64_t i = 0; i < B; i++) {
        const bool there = i < g->n[lane];
        b->x[i] = there ? g->tile[i * g->ld + lane] : 0.0f;
        b->w[i] = there && g->weighted ? g->wtile[i * QX_LANES + lane] : 1.0f;
        if (fabsf(b->x[i]) > b->amax) b->amax = fabsf(b->x[i]), b->peak_weight = b->w[i];
    }
}

/* ---- sixteen blocks at once ---- */

/* The amax rule's codes, one or more. */
QX_INLINE void start_codes_body(const float *restrict amax, float global, int32_t *restrict start)
{
    for (int l = 0; l < QX_LANES; l++) {
        const int32_t c = qx_sc_f32_to_e4m3(amax[l] / 6.0f / global, 1);
        start[l] = c == 0 ? 1 : c;
    }
}
QX_MULTI(static, start_codes, (const float *amax, float global, int32_t *start), (amax, global, start))

/* The window's codes: the amax rule's first, then up, then down, as the sweep goes; kept inside 1 .. TOP_CODE. */
QX_INLINE int32_t window_code(int32_t start, int i)
{
    const int32_t c = i <= UP ? start + i : start - (i - UP), up = c < 1 ? 1 : c;
    return up > TOP_CODE ? TOP_CODE : up;
}

/* Values of the window's codes times global, and their inverses. */
QX_INLINE void window_scales_body(const int32_t *restrict start, float global, float *restrict s, float *restrict inv)
{
    for (int i = 0; i < WINDOW; i++)
        for (int l = 0; l < QX_LANES; l++) {
            const float v = scale_value(global, window_code(start[l], i));
            s[i * QX_LANES + l] = v;
            inv[i * QX_LANES + l] = 1.0f / v;
        }
}
QX_MULTI(static, window_scales, (const int32_t *start, float global, float *s, float *inv), (start, global, s, inv))

/* Lanes for which a code outside the window may still be the best. weight: no more than any of the lane's. Returns whether there is one. */
QX_INLINE void beyond_body(const int32_t *restrict start, const float *restrict amax, const float *restrict weight, const float *restrict least, float global, int32_t *restrict more, int32_t *any)
{
    int32_t all = 0;
    for (int l = 0; l < QX_LANES; l++) {
        const int32_t up = start[l] + UP + 1, down = start[l] - DOWN - 1;
        const int more_up = (up <= TOP_CODE) & needs_code(amax[l], scale_value(global, up), up);
        const int more_down = (down >= 1) & (bound_below(amax[l], scale_value(global, down), weight[l]) <= least[l]);
        more[l] = (more_up | more_down) & (amax[l] > 0.0f);
        all |= more[l];
    }
    *any = all;
}
QX_MULTI(static, beyond, (const int32_t *start, const float *amax, const float *weight, const float *least, float global, int32_t *more, int32_t *any), (start, amax, weight, least, global, more, any))

QX_INLINE void picked_body(const int32_t *restrict start, const float *restrict which, const float *restrict amax, int32_t *restrict code)
{
    for (int l = 0; l < QX_LANES; l++) code[l] = amax[l] == 0.0f ? ONE_CODE : window_code(start[l], (int32_t)which[l]);
}
QX_MULTI(static, picked, (const int32_t *start, const float *which, const float *amax, int32_t *code), (start, which, amax, code))

QX_INLINE void values_body(const int32_t *restrict code, float global, float *restrict s)
{
    for (int l = 0; l < QX_LANES; l++) s[l] = scale_value(global, code[l]);
}
QX_MULTI(static, values, (const int32_t *code, float global, float *s), (code, global, s))

QX_INLINE void larger_body(const float *restrict lo, const float *restrict hi, float *restrict amax)
{
    for (int l = 0; l < QX_LANES; l++) amax[l] = -lo[l] > hi[l] ? -lo[l] : hi[l];
}
QX_MULTI(static, larger, (const float *lo, const float *hi, float *amax), (lo, hi, amax))

static void amax_of(const qx_lane_leaf *lanes, const qx_group *g, float *amax)
{
    float lo[QX_LANES] = {0}, hi[QX_LANES] = {0};
    lanes->range(g->tile, g->ld, g->longest, lo, hi);
    larger(lo, hi, amax);
}

static void least_weight(const qx_lane_leaf *lanes, const qx_group *g, float *least)
{
    float hi[QX_LANES] = {0};
    for (int l = 0; l < QX_LANES; l++) least[l] = g->weighted ? g->wtile[l] : 1.0f;
    if (g->weighted) lanes->range(g->wtile, QX_LANES, g->longest, least, hi);
}

/* Codes of the blocks of a group. */
static void sweep(const qx_search_leaf *leaf, qx_group *g, float global, int32_t *code)
{
    float s[WINDOW * QX_LANES], inv[WINDOW * QX_LANES], err[WINDOW * QX_LANES], least[QX_LANES], which[QX_LANES], amax[QX_LANES], weight[QX_LANES];
    int32_t start[QX_LANES], more[QX_LANES], any;
    amax_of(&leaf->lanes, g, amax);
    start_codes(amax, global, start);
    window_scales(start, global, s, inv);
    leaf->lanes.errors[QX_ROUND_E2M1](g->tile, g->ld, qx_group_weights(g), g->longest, s, inv, no_limits, no_limits, WINDOW, err);
    leaf->lanes.least(err, WINDOW, least, which);
    least_weight(&leaf->lanes, g, weight);
    beyond(start, amax, weight, least, global, more, &any);
    picked(start, which, amax, code);
    for (int l = 0; l < QX_LANES && any; l++) {
        block b = {.leaf = leaf, .global = global};
        if (!more[l]) continue;
        load_block(&b, g, l);
        code[l] = sweep_beyond(&b, code[l], start[l] + UP + 1, start[l] - DOWN - 1);
    }
}

/* Errors of one scale a lane. */
static void lane_errors(const qx_search_leaf *leaf, const qx_group *g, const float *s, float *err)
{
    float inv[QX_LANES];
    for (int l = 0; l < QX_LANES; l++) inv[l] = 1.0f / s[l];
    leaf->lanes.errors[QX_ROUND_E2M1](g->tile, g->ld, qx_group_weights(g), g->longest, s, inv, no_limits, no_limits, 1, err);
}

void qx_nvfp4_search_using(const qx_search_leaf *l, const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, uint8_t *code, float *scale, double *err)
{
    const qx_lay y = {rows, k, B, p->columns, p->weight};
    const int64_t total = rows * qx_lay_along(&y);
    qx_group g;
    for (int64_t first = 0; first < total; first += QX_LANES) {
        const int64_t n = total - first < QX_LANES ? total - first : QX_LANES;
        float s[QX_LANES], each[QX_LANES];
        int32_t c[QX_LANES];
        qx_group_place(&g, &y, x, first);
        (void)qx_group_load(&g, 0);
        sweep(l, &g, p->global, c);
        values(c, p->global, s);
        if (err) lane_errors(l, &g, s, each);
        for (int64_t i = 0; i < n; i++) {
            code[first + i] = (uint8_t)c[i];
            scale[first + i] = s[i];
            if (err) err[first + i] = (double)each[i];
        }
    }
}
