/* nvfp4.c - choice of the E4M3 block scales of NVFP4: amax rule, four-over-six, or all 126 codes, by plain, weighted or local-Hessian
 * error. The sweep goes outward from the amax rule's code and skips scales that cannot win: below some scale the largest element
 * alone costs more than the best so far, above some scale every code is 0 and the error stops changing. */
#include "kernels/scalar.h"
#include "kernels/search_leaf.h"

enum { B = QX_NVFP4_BLOCK, TOP_CODE = 0x7e, ONE_CODE = 0x38 };

float qx_nvfp4_global(float amax, bool four_over_six)
{
    const float g = amax / (6.0f * (four_over_six ? 256.0f : 448.0f));
    return g > 0x1p-126f ? g : amax > 0 ? 0x1p-126f : 1.0f;
}

typedef struct block { const qx_search_leaf *leaf; float x[B], w[B]; const float *h; float global, amax; bool weighted; } block;

static uint8_t scale_code(const block *b, float target)
{
    const uint8_t c = qx_sc_f32_to_e4m3(b->amax / target / b->global, 1);
    return c == 0 ? 1 : c;
}

static float scale_value(const block *b, int code) { return qx_sc_e4m3_to_f32((uint8_t)code) * b->global; }

static float error_of(const block *b, int code)
{
    const float s = scale_value(b, code), inv = 1.0f / s, none = 0;
    float e;
    if (b->h) return b->leaf->hessian_error(b->x, b->h, s, inv);
    b->leaf->errors[QX_ROUND_E2M1](b->x, b->weighted ? b->w : NULL, B, &s, &inv, &none, &none, 1, &e);
    return e;
}

/* Weighted or plain error of saturating the largest element alone: a lower bound for scale codes below this one. */
static float saturation_bound(const block *b, int code)
{
    const float top = 6.0f * scale_value(b, code);
    float least = 0;
    for (int i = 0; i < B; i++) {
        const float a = b->x[i] < 0 ? -b->x[i] : b->x[i], d = a > top ? a - top : 0.0f, e = d * d * (b->weighted ? b->w[i] : 1.0f);
        least = e > least ? e : least;
    }
    return least * 0.999f; /* the sums below are rounded */
}

static int sweep(const block *b, int start)
{
    int best = start;
    float err = error_of(b, start);
    bool up = true, down = true;
    for (int d = 1; d <= TOP_CODE && (up || down); d++) {
        const int hi = start + d, lo = start - d;
        up = up && hi <= TOP_CODE, down = down && lo >= 1;
        if (up) {
            const float e = error_of(b, hi);
            if (e < err) err = e, best = hi;
            up = b->amax > 0.25f * scale_value(b, hi); /* beyond: every code is 0 */
        }
        if (!down) continue;
        down = b->h || saturation_bound(b, lo) <= err;
        const float e = down ? error_of(b, lo) : err;
        if (e < err) err = e, best = lo;
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
    b->amax = 0;
    for (int64_t i = 0; i < B; i++) {
        b->x[i] = i < n ? row[at + i] : 0.0f;
        b->w[i] = p->weight && i < n ? p->weight[at + i] : 0.0f;
        const float a = b->x[i] < 0 ? -b->x[i] : b->x[i];
        b->amax = a > b->amax ? a : b->amax;
    }
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
