/* kernel_attention.c - the attention kernels against a plain softmax in double: types, head sizes, groups, masks, windows,
 * lengths, soft caps, sinks, split keys. */
#include "kernel_case.h"

typedef struct attn_case {
    int dtype;
    int64_t batch, heads, kv_heads, rows, keys, dk, dv;
    /* mask: 1 added, 2 bool; left 0: none; turned: keys are [d, s]; codes: what probabilities become */
    int causal, left, mask, lengths, softcap, sink, splits, turned, codes;
} attn_case;

static const attn_case cases[] = {
    {QX_DT_FLOAT, 2, 4, 2, 19, 37, 24, 40, 1, 0, 1, 0, 0, 1, 1, 0, 0}, {QX_DT_FLOAT, 1, 3, 3, 5, 70, 256, 256, 1, 9, 2, 1, 1, 0, 1, 1, 0},
    {QX_DT_FLOAT16, 2, 4, 2, 70, 130, 64, 64, 0, 0, 0, 0, 0, 0, 1, 0, 0},
    {QX_DT_FLOAT16, 1, 8, 2, 33, 97, 128, 128, 1, 0, 0, 0, 0, 0, 1, 0, 0},
    {QX_DT_FLOAT16, 2, 2, 1, 3, 300, 40, 80, 1, 20, 1, 1, 0, 1, 3, 0, 0},
    {QX_DT_FLOAT16, 1, 5, 5, 1, 700, 64, 64, 0, 0, 2, 1, 1, 0, 4, 0, 0},
    {QX_DT_BFLOAT16, 1, 6, 2, 21, 65, 200, 256, 1, 0, 1, 0, 0, 1, 2, 0, 0},
    {QX_DT_BFLOAT16, 2, 2, 2, 64, 64, 96, 33, 0, 0, 0, 0, 0, 0, 1, 1, 0},
    {QX_DT_FLOAT16, 1, 32, 8, 1, 513, 128, 128, 1, 0, 0, 1, 0, 0, 5, 0, 0}, {QX_DT_FLOAT16, 1, 1, 1, 9, 5, 8, 8, 1, 0, 0, 1, 0, 1, 2, 0, 0},
    {QX_DT_FLOAT16, 1, 4, 4, 33, 257, 64, 64, 0, 0, 0, 0, 0, 0, 1, 0, QX_DT_FLOAT8E4M3FN},
    {QX_DT_BFLOAT16, 1, 2, 1, 5, 600, 128, 128, 1, 0, 0, 0, 0, 1, 2, 0, QX_DT_FLOAT8E4M3FN},
    {QX_DT_FLOAT, 1, 2, 2, 7, 90, 32, 32, 0, 0, 1, 0, 0, 1, 1, 0, QX_DT_FLOAT8E4M3FN},
    {QX_DT_FLOAT16, 2, 4, 2, 21, 90, 64, 40, 1, 0, 1, 1, 0, 0, 4, 0, QX_DT_INT8},
    {QX_DT_BFLOAT16, 1, 3, 3, 9, 70, 200, 256, 0, 0, 0, 0, 0, 0, 1, 1, QX_DT_UINT8},
    {QX_DT_FLOAT, 2, 2, 1, 19, 37, 24, 40, 1, 9, 2, 0, 0, 0, 1, 0, QX_DT_INT8},
};

/* What the kernel is given, and the same numbers in float. */
typedef struct problem { qk_attn_args a; float *q, *k, *v, *mask, *sink; int32_t lengths[4], offsets[4]; } problem;

static double score(const problem *p, int64_t b, int64_t h, int64_t r, int64_t key)
{
    const qk_attn_args *a = &p->a;
    const int64_t hk = h / (a->heads / a->kv_heads), offset = a->offsets ? a->offsets[b] : a->offset;
    double s = 0;
    if (key >= (a->lengths ? a->lengths[b] : a->keys) || (a->causal && key > r + offset) || (a->left >= 0 && key < r + offset - a->left))
        return -INFINITY;
    for (int64_t d = 0; d < a->dk; d++)
        s += (double)p->q[b * a->q.b + h * a->q.h + r * a->q.s + d] * (double)p->k[b * a->k.b + hk * a->k.h + key * a->k.s + d * a->k.d];
    s *= (double)a->scale;
    if (a->softcap > 0) s = (double)a->softcap * tanh(s / (double)a->softcap);
    const double m = p->mask ? (double)p->mask[b * a->mask.b + h * a->mask.h + r * a->mask.s + key] : 0;
    return a->mtype == QX_DT_BOOL && p->mask ? (m != 0 ? s : -INFINITY) : s + m;
}

/* The probability that its code stands for. */
static double coded(const qk_attn_args *a, double p)
{
    const float v = (float)p / a->p_scale, low = a->p_codes == QX_DT_UINT8 ? 0 : -128, zero = (float)a->p_zero;
    return (double)a->p_scale * (double)(a->p_codes == QX_DT_FLOAT8E4M3FN ? qx_e4m3_to_f32(qx_f32_to_e4m3(v, 1))
                                         : fminf(low + 255 - zero, fmaxf(low - zero, nearbyintf(v))));
}

static double worst_row(const problem *p, int64_t b, int64_t h, int64_t r, const float *y)
{
    const qk_attn_args *a = &p->a;
    double *w = malloc((size_t)a->keys * sizeof *w), top = p->sink ? (double)p->sink[h] : -INFINITY, sum = 0, worst = 0;
    bool any = false;
    for (int64_t k = 0; k < a->keys; k++) {
        w[k] = score(p, b, h, r, k);
        any = any || w[k] > -INFINITY;
        top = w[k] > top ? w[k] : top;
    }
    if (p->sink) sum = exp((double)p->sink[h] - top);
    for (int64_t k = 0; k < a->keys; k++) sum += w[k] = any ? exp(w[k] - top) : 0;
    for (int64_t k = 0; k < a->keys && any; k++) w[k] = a->p_scale > 0 ? coded(a, w[k] / sum) : w[k] / sum;
    for (int64_t d = 0; d < a->dv; d++) {
        double o = 0;
        for (int64_t k = 0; k < a->keys && any; k++)
            o += w[k] * (double)p->v[b * a->v.b + h / (a->heads / a->kv_heads) * a->v.h + k * a->v.s + d];
        worst = fmax(worst, fabs(o - (double)y[b * a->yb + h * a->yh + r * a->ys + d]));
    }
    free(w);
    return worst;
}

/* n numbers of their own, and the same on the device. */
static void *numbers(int dtype, int64_t n, uint32_t seed, float **host)
{
    *host = malloc((size_t)n * sizeof **host);
    kc_even(*host, n, seed);
    return kc_reals(dtype, *host, n, 0);
}

static void put_mask(problem *p, const attn_case *c)
{
    const int64_t n = c->batch * c->rows * c->keys;
    uint8_t *keep = malloc((size_t)n);
    void *dev = numbers(c->mask == 2 ? QX_DT_FLOAT : c->dtype, n, 14, &p->mask);
    for (int64_t i = 0; i < n && c->mask == 2; i++) p->mask[i] = (float)(keep[i] = p->mask[i] > -0.5f);
    p->a.mtype = c->mask == 2 ? QX_DT_BOOL : c->dtype;
    p->a.mask = (qk_attn_view){c->mask == 2 ? kc_in(keep, (size_t)n, 0) : dev, c->rows * c->keys, 0, c->keys, 1};
    free(keep);
}

static void put_lengths(problem *p, const attn_case *c)
{
    for (int64_t b = 0; b < c->batch; b++)
        p->lengths[b] = (int32_t)(c->keys - 3 * b - 1), p->offsets[b] = (int32_t)(p->lengths[b] - c->rows);
    p->a.lengths = kc_in(p->lengths, sizeof p->lengths, 0);
    p->a.offsets = kc_in(p->offsets, sizeof p->offsets, 0);
}

static problem problem_of(const attn_case *c)
{
    const int64_t nq = c->batch * c->heads * c->rows * c->dk, nk = c->batch * c->kv_heads * c->keys * c->dk,
        nv = c->batch * c->kv_heads * c->keys * c->dv;
    problem p = {.a = {.batch = c->batch, .heads = c->heads, .kv_heads = c->kv_heads, .rows = c->rows, .keys = c->keys, .dk = c->dk,
                       .dv = c->dv, .dtype = c->dtype, .causal = c->causal,
                       .left = c->left ? c->left : -1, .scale = 1.5f / sqrtf((float)c->dk), .softcap = c->softcap ? 0.7f : 0,
                       .splits = c->splits, .p_scale = !c->codes ? 0 : c->codes == QX_DT_FLOAT8E4M3FN ? 1.0f / 448 : 1.0f / 255,
                       .p_codes = c->codes, .p_zero = c->codes == QX_DT_INT8 ? -128 : 0, .offset = c->keys - c->rows}};
    qk_attn_args *a = &p.a;
    a->q = (qk_attn_view){numbers(c->dtype, nq, 11, &p.q), c->heads * c->rows * c->dk, c->rows * c->dk, c->dk, 1};
    a->k = (qk_attn_view){numbers(c->dtype, nk, 12, &p.k), c->kv_heads * c->keys * c->dk, c->keys * c->dk, c->turned ? 1 : c->dk,
                          c->turned ? c->keys : 1};
    a->v = (qk_attn_view){numbers(c->dtype, nv, 13, &p.v), c->kv_heads * c->keys * c->dv, c->keys * c->dv, c->dv, 1};
    a->y = kc_reals_out(c->dtype, c->batch * c->heads * c->rows * c->dv, 0);
    a->yb = c->heads * c->rows * c->dv, a->yh = c->dv, a->ys = c->heads * c->dv;
    if (c->mask) put_mask(&p, c);
    if (c->sink) a->sink = numbers(QX_DT_FLOAT, c->heads, 15, &p.sink), a->stype = QX_DT_FLOAT;
    if (c->lengths) put_lengths(&p, c);
    if (c->splits > 1) a->part = kc_out((size_t)(c->splits * c->batch * c->heads * c->rows * (c->dv + 2)) * sizeof(float), 0);
    return p;
}

static void one(const attn_case *c)
{
    problem p = problem_of(c);
    const int64_t ny = c->batch * c->heads * c->rows * c->dv;
    float *y = malloc((size_t)ny * sizeof *y);
    KC_RUN(qk_attention, &p.a);
    kc_reals_back(c->dtype, y, p.a.y, ny);
    const double limit = c->dtype == QX_DT_FLOAT ? 2e-6 : c->dtype == QX_DT_FLOAT16 ? 2e-3 : 1.5e-2;
    /* A probability that lies between two codes may get the other one: a step of 1/255, or of an eighth of it in E4M3. */
    for (int64_t i = 0; i < c->batch * c->heads * c->rows; i++) {
        const double worst = worst_row(&p, i / c->rows / c->heads, i / c->rows % c->heads, i % c->rows, y);
        if (!(worst <= limit + (c->codes == QX_DT_FLOAT8E4M3FN ? 2e-2 : c->codes ? 5e-3 : 0)))
            fail_msg("case %d, row %lld: off by %g", (int)(c - cases), (long long)i, worst);
    }
    free(p.q), free(p.k), free(p.v), free(p.mask), free(p.sink), free(y);
    kc_release();
}

static void attention(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) one(&cases[i]);
}

/* Few rows share their keys out; many rows, and few keys, do not. */
static void splits(void)
{
    qk_attn_args a = {.batch = 1, .heads = 32, .kv_heads = 8, .rows = 1, .keys = 4096, .dtype = QX_DT_FLOAT16};
    assert_int_equal(qk_attention_splits(&a), 32);
    a.keys = 200;
    assert_int_equal(qk_attention_splits(&a), 1);
    a.keys = 4096, a.rows = 4096;
    assert_int_equal(qk_attention_splits(&a), 1);
    a.rows = 1, a.dtype = QX_DT_FLOAT;
    assert_int_equal(qk_attention_splits(&a), 1);
}

const kernel_family kernels_attention[] = {{"attention", attention}, {"attention_splits", splits}, {0}};
