/* nvfp4.c - choice of the E4M3 block scales of NVFP4: amax rule, four-over-six, or all 126 codes, by plain, weighted or local-Hessian
 * error. The sweep goes up and down from the amax rule's code and stops where no scale can win any more: further down the largest element
 * alone, saturated, costs more than the best so far; further up the elements that round to 0 do. */
#include <math.h>

#include "kernels/scalar.h"
#include "kernels/search_leaf.h"

enum { B = QX_NVFP4_BLOCK, TOP_CODE = 0x7e, ONE_CODE = 0x38 };

float qx_nvfp4_global(float amax, bool four_over_six)
{
    const float g = amax / (6.0f * (four_over_six ? 256.0f : 448.0f));
    return g > 0x1p-126f ? g : amax > 0 ? 0x1p-126f : 1.0f;
}

typedef struct block {
    const qx_search_leaf *leaf;
    float x[B], mag[B], w[B], energy[B]; /* energy: w x^2 */
    const float *h;
    float global, amax;
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

/* Lower bounds of the error for this code and all codes below it (the element that saturates worst) or above it (everything that
 * rounds to 0). A little less than computed: the sums they are compared with are rounded. A Hessian allows only the trivial ones. */
static float bound_below(const block *b, int code)
{
    const float top = 6.0f * scale_value(b, code);
    float worst[4] = {0}; /* four at a time, for the vectoriser */
    for (int i = 0; i < B && !b->h; i += 4)
        for (int j = 0; j < 4; j++) {
            const float over = b->mag[i + j] - top, d = over > 0.0f ? over : 0.0f, e = d * d * b->w[i + j];
            worst[j] = e > worst[j] ? e : worst[j];
        }
    const float x = worst[0] > worst[1] ? worst[0] : worst[1], y = worst[2] > worst[3] ? worst[2] : worst[3];
    return (x > y ? x : y) * 0.999f;
}

static float bound_above(const block *b, int code)
{
    const float zero = 0.25f * scale_value(b, code);
    float sum[4] = {0};
    if (b->h) return b->amax <= zero ? INFINITY : 0.0f;
    for (int i = 0; i < B; i += 4)
        for (int j = 0; j < 4; j++) sum[j] += b->mag[i + j] <= zero ? b->energy[i + j] : 0.0f;
    return (sum[0] + sum[1] + sum[2] + sum[3]) * 0.999f;
}

static void keep_best(int first, int step, int n, const float *err, int *code, float *least)
{
    for (int i = 0; i < n; i++)
        if (err[i] < *least) *least = err[i], *code = first + i * step;
}

static int sweep(const block *b, int start)
{
    int best = start;
    float err[4], least = error_of(b, start);
    for (int c = start + 1; c <= TOP_CODE && bound_above(b, c) <= least; c += 4) {
        const int n = TOP_CODE - c + 1 < 4 ? TOP_CODE - c + 1 : 4;
        errors_of(b, c, 1, n, err);
        keep_best(c, 1, n, err, &best, &least);
    }
    for (int c = start - 1; c >= 1 && bound_below(b, c) <= least; c -= 4) {
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
    if (rule == QX_NVFP4_SWEEP) return sweep(b, six);
    return error_of(b, four) < error_of(b, six) ? four : six;
}

static void load_block(block *b, const qx_nvfp4 *p, const float *row, int64_t at, int64_t n)
{
    uint32_t top = 0;
    memset(b->x, 0, sizeof b->x);
    memcpy(b->x, row + at, sizeof *b->x * (size_t)n);
    for (int i = 0; i < B; i++) b->w[i] = 1.0f;
    if (p->weight) memcpy(b->w, p->weight + at, sizeof *b->w * (size_t)n);
    for (int i = 0; i < B; i++) {
        const uint32_t a = qx_bits_of(b->x[i]) & 0x7fffffffu;
        b->mag[i] = qx_of_bits(a), b->energy[i] = b->mag[i] * b->mag[i] * b->w[i];
        top = a > top ? a : top;
    }
    b->amax = qx_of_bits(top);
    b->h = p->hessian ? p->hessian + at * B : NULL;
}

void qx_nvfp4_search_using(const qx_search_leaf *l, const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, uint8_t *code, float *scale, double *err)
{
    const int64_t nb = qx_cells_of(k, B);
    block b = {.leaf = l, .global = p->global, .weighted = p->weight != NULL};
    for (int64_t i = 0; i < rows * nb; i++) {
        const int64_t at = i % nb * B;
        load_block(&b, p, x + i / nb * k, at, k - at < B ? k - at : B);
        const int c = choose(&b, p->rule);
        code[i] = (uint8_t)c, scale[i] = scale_value(&b, c);
        if (err) err[i] = b.amax == 0.0f ? 0.0 : (double)error_of(&b, c);
    }
}
