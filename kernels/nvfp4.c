/* nvfp4.c - choice of the E4M3 block scales of NVFP4, sixteen blocks at once: the codes next to the amax rule's, by least squared
 * error, weighted or not. Without weights two codes down and seven up are as good as all 126: further down the largest element
 * alone, saturated, costs more than the amax rule; an octave up, eight codes, nothing is left that rounds to more than 3, and
 * half such a scale has every value. Where the largest element may weigh next to nothing, six down are looked at. Without weights
 * errors are summed in 16-bit fixed point, as in search.c. */
#include "kernels/loops/multi.h"
#include "kernels/scalar.h"
#include "kernels/search_group.h"

enum { B = QX_NVFP4_BLOCK, TOP_CODE = 0x7e, ONE_CODE = 0x38, UP = 7, DOWN = 2, DOWN_WEIGHTED = 6, WINDOW = 1 + UP + DOWN_WEIGHTED };

static const float no_limits[WINDOW * QX_LANES]; /* of codes: a float format needs none */

float qx_nvfp4_global(float amax)
{
    const float g = amax / (6.0f * 448.0f);
    return g > 0x1p-126f ? g : amax > 0 ? 0x1p-126f : 1.0f;
}

/* Codes from 8 on are the upper bits of a float. */
QX_INLINE float scale_value(float global, int32_t code)
{
    const float normal = qx_of_bits((uint32_t)(code + (120 << 3)) << 20), small = (float)code * 0x1p-9f;
    return (code < 8 ? small : normal) * global;
}

/* The window's codes: the amax rule's first, then up, then down; kept inside 1 .. TOP_CODE. */
QX_INLINE int32_t window_code(int32_t start, int i)
{
    const int32_t c = i <= UP ? start + i : start - (i - UP), up = c < 1 ? 1 : c;
    return up > TOP_CODE ? TOP_CODE : up;
}

/* unit: what makes a block's largest element 1. */
QX_INLINE void start_body(const float *restrict lo, const float *restrict hi, float global, int32_t *restrict code, float *restrict amax,
                          float *restrict unit)
{
    for (int l = 0; l < QX_LANES; l++) {
        const float a = -lo[l] > hi[l] ? -lo[l] : hi[l], inv = 1.0f / a;
        const int32_t c = qx_sc_f32_to_e4m3(a / 6.0f / global, 1);
        amax[l] = a, unit[l] = a > 1e-30f ? inv : 1.0f;
        code[l] = c == 0 ? 1 : c;
    }
}
QX_MULTI(static, start, (const float *lo, const float *hi, float global, int32_t *code, float *amax, float *unit),
         (lo, hi, global, code, amax, unit))

/* Values of the first n codes of the window times global and unit, and their inverses. */
QX_INLINE void window_scales_body(const int32_t *restrict first, float global, const float *restrict unit, int n, float *restrict s,
                                  float *restrict inv)
{
    for (int i = 0; i < n; i++)
        for (int l = 0; l < QX_LANES; l++) {
            const float v = scale_value(global, window_code(first[l], i)) * unit[l];
            s[i * QX_LANES + l] = v;
            inv[i * QX_LANES + l] = 1.0f / v;
        }
}
QX_MULTI(static, window_scales, (const int32_t *first, float global, const float *unit, int n, float *s, float *inv),
         (first, global, unit, n, s, inv))

QX_INLINE void picked_body(const int32_t *restrict first, const float *restrict which, const float *restrict amax, int32_t *restrict code)
{
    for (int l = 0; l < QX_LANES; l++) code[l] = amax[l] == 0.0f ? ONE_CODE : window_code(first[l], (int32_t)which[l]);
}
QX_MULTI(static, picked, (const int32_t *first, const float *which, const float *amax, int32_t *code), (first, which, amax, code))

QX_INLINE void values_body(const int32_t *restrict code, float global, float *restrict s)
{
    for (int l = 0; l < QX_LANES; l++) s[l] = scale_value(global, code[l]);
}
QX_MULTI(static, values, (const int32_t *code, float global, float *s), (code, global, s))

/* Codes of the blocks of a group. */
static void sweep(const qx_lane_leaf *lanes, qx_group *g, float global, int32_t *code)
{
    static const float ones[QX_LANES] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    float s[WINDOW * QX_LANES], inv[WINDOW * QX_LANES], err[WINDOW * QX_LANES], least[QX_LANES], which[QX_LANES], amax[QX_LANES],
        unit[QX_LANES];
    float lo[QX_LANES] = {0}, hi[QX_LANES] = {0};
    int32_t first[QX_LANES];
    const int n = 1 + UP + (g->weighted ? DOWN_WEIGHTED : DOWN);
    lanes->range(g->tile, g->ld, g->longest, lo, hi);
    start(lo, hi, global, first, amax, unit);
    window_scales(first, global, g->weighted ? ones : unit, n, s, inv);
    if (g->weighted) {
        lanes->errors[QX_ROUND_E2M1](g->tile, g->ld, g->wtile, g->longest, s, inv, no_limits, no_limits, n, err);
    } else {
        lanes->to_fixed(g->tile, g->ld, g->longest, unit, QX_FIXED_E2M1, g->fixed);
        lanes->fixed_e2m1(g->fixed, (g->longest + 1) / 2, s, inv, n, err);
    }
    lanes->least(err, n, least, which);
    picked(first, which, amax, code);
}

/* Errors of one scale a lane. */
static void lane_errors(const qx_search_leaf *leaf, const qx_group *g, const float *s, float *err)
{
    float inv[QX_LANES];
    for (int l = 0; l < QX_LANES; l++) inv[l] = 1.0f / s[l];
    leaf->lanes.errors[QX_ROUND_E2M1](g->tile, g->ld, qx_group_weights(g), g->longest, s, inv, no_limits, no_limits, 1, err);
}

void qx_nvfp4_search_using(const qx_search_leaf *l, const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, uint8_t *code,
                           float *scale, double *err)
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
        sweep(&l->lanes, &g, p->global, c);
        values(c, p->global, s);
        if (err) lane_errors(l, &g, s, each);
        for (int64_t i = 0; i < n; i++) {
            code[first + i] = (uint8_t)c[i];
            scale[first + i] = s[i];
            if (err) err[first + i] = (double)each[i];
        }
    }
}
