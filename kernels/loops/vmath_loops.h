/* vmath_loops.h - the loops of vmath_leaf.h over sixteen lanes; included after lanes.h. Gives `vmath`. */
#include <math.h>

#if LANES_ISA == 512
/* A table of sixteen numbers is one register and a look into it one instruction that no multiply-add waits for: half as many of
 * those as without. MAGIC: added, it leaves a number rounded to an integer in the low bits. */
#define MAGIC 12582912.0f

/* 2^(j / 16), less what adding j << 19 to its bits brings. */
static const uint32_t roots[16] = {
    0x3f800000u, 0x3f7daac3u, 0x3f7b95c2u, 0x3f79c3d3u, 0x3f7837f0u, 0x3f76f532u, 0x3f75fed7u, 0x3f75583fu, 0x3f7504f3u, 0x3f7508a4u,
    0x3f75672au, 0x3f76248cu, 0x3f7744fdu, 0x3f78ccdfu, 0x3f7ac0c7u, 0x3f7d257du};

/* 2^(i / 16) e^r with |r| <= ln2 / 32, for x <= 88. NaN stays. What would not be a normal number is 0: processors take a hundred
 * times as long for it, and softmax has many (masked keys). */
LANE v16 v_exp(v16 from)
{
    const v16 least = v_set(-87.0f), x = v_max(least, from), at = v_fma(x, v_set(23.083120654f), v_set(MAGIC)), i = v_sub(at, v_set(MAGIC));
    v16 r = v_fma(i, v_set(-0.693359375f / 16), x);
    r = v_fma(i, v_set(2.12194440e-4f / 16), r);
    const v16 p = v_fma(v_mul(r, r), v_fma(v_set(0.16666667f), r, v_set(0.5000162f)), r), power = v_add_bits(v_pick(roots, at), at);
    return v_zero_below(v_fma(power, p, power), from, least);
}
#else
/* As fm_exp (kernels/loops/fmath.h): 2^n r with |r| <= ln2 / 2. NaN stays; overflow gives Inf from 88.72 on. What would not be a normal
 * number is 0: processors take a hundred times as long for it, and softmax has many (masked keys). */
LANE v16 v_exp(v16 from)
{
    const v16 least = v_set(-87.0f), x = v_min(v_set(89.0f), v_max(least, from)), n = v_rne(v_mul(x, v_set(1.44269504f)));
    v16 r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    v16 p = v_fma(v_set(1.9875691500e-4f), r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_add(v_fma(v_mul(r, r), p, r), v_set(1.0f));
    return v_zero_below(v_ldexp(p, n), from, least);
}
#endif

TARGET static float score_top(float *s, int64_t n, float scale, const float *mask)
{
    const v16 f = v_set(scale);
    v16 top = v_set(-INFINITY);
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        const v16 v = mask ? v_fma(v_load(s + j), f, v_load(mask + j)) : v_mul(v_load(s + j), f);
        v_store(s + j, v);
        top = v_max(v, top);
    }
    if (j < n) {
        const v16 v = v_fma(v_load_n(s + j, n - j), f, mask ? v_load_n(mask + j, n - j) : v_set(0.0f));
        v_store_n(s + j, v, n - j);
        top = v_max(v_first(v, n - j, v_set(-INFINITY)), top);
    }
    return v_top(top);
}

TARGET static float exp_sum(float *s, int64_t n, float top)
{
    const v16 m = v_set(top);
    v16 sum = v_set(0.0f);
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        const v16 e = v_exp(v_sub(v_load(s + j), m));
        v_store(s + j, e);
        sum = v_add(sum, e);
    }
    if (j < n) {
        const v16 e = v_first(v_exp(v_sub(v_load_n(s + j, n - j), m)), n - j, v_set(0.0f));
        v_store_n(s + j, e, n - j);
        sum = v_add(sum, e);
    }
    return v_sum(sum);
}

/* x / (1 + exp(-z)). The exponential and its reciprocal stay normal numbers; below, the sigmoid is 0: x times it is -0, and NaN
 * of -Inf, as nodes that are not fused have it. */
LANE v16 v_gate(v16 x, v16 z)
{
    const v16 least = v_set(-87.0f), one = v_set(1.0f);
    return v_mul(x, v_zero_below(v_rcp(v_add(one, v_exp(v_sub(v_set(0.0f), v_max(least, z))))), z, least));
}

LANE v16 v_silu(v16 x) { return v_gate(x, x); }
LANE v16 v_sigmoid(v16 x) { return v_gate(v_set(1.0f), x); }

/* (1 + tanh(u)) / 2 is the sigmoid of 2 u = x (2 sqrt(2 / pi) + 2 * 0.044715 sqrt(2 / pi) x^2). */
LANE v16 v_gelu_tanh(v16 x) { return v_gate(x, v_mul(x, v_fma(v_mul(x, x), v_set(0.0713548163f), v_set(1.5957691216f)))); }

#if LANES_ISA == 512
/* Phi(t) for t <= 0, a polynomial of t + 0.4 i around each -0.4 i; 0 from -5.8 down, where it is 3e-9. */
static const float tail[6][16] = {
    {0.5f, 0.344578266f, 0.211855397f, 0.115069665f, 0.0547992885f, 0.0227501281f, 0.0081975339f, 0.00255512982f, 0.000687138177f,
     0.00015910888f, 3.16713995e-05f, 5.4126026e-06f, 7.93344725e-07f, 9.96479699e-08f, 1.07182583e-08f, 0.0f},
    {0.398942262f, 0.368270129f, 0.289691538f, 0.194186047f, 0.110920832f, 0.0539909638f, 0.0223945286f, 0.00791545026f, 0.00238408777f,
     0.000611901865f, 0.000133830239f, 2.49424884e-05f, 3.96130599e-06f, 5.3610546e-07f, 6.18266114e-08f, 0.0f},
    {-4.49541346e-07f, 0.0736515746f, 0.115874022f, 0.116510853f, 0.0887375548f, 0.0539921746f, 0.0268740673f, 0.0110816872f,
     0.00381437549f, 0.0011012766f, 0.000267585885f, 5.48463067e-05f, 9.49953119e-06f, 1.39218423e-06f, 1.72810772e-07f, 0.0f},
    {-0.0664994866f, -0.0515572838f, -0.0173818991f, 0.0142395636f, 0.028839048f, 0.0269955862f, 0.0177665744f, 0.00902375858f,
     0.00367151853f, 0.00121969986f, 0.000334552547f, 7.63128191e-05f, 1.45474005e-05f, 2.32572074e-06f, 3.12644687e-07f, 0.0f},
    {-7.88379693e-05f, -0.0172674842f, -0.0226157475f, -0.0150944972f, -0.00331302453f, 0.00441855565f, 0.00613865955f, 0.00446588406f,
     0.00231245975f, 0.000923964835f, 0.000294928643f, 7.66152225e-05f, 1.63811401e-05f, 2.90427147e-06f, 4.29200071e-07f, 0.0f},
    {0.00970844273f, 0.00630340492f, -0.00101189688f, -0.00572128361f, -0.00534244394f, -0.0022565953f, 0.000285316666f, 0.00113978831f,
     0.000920661318f, 0.000476882589f, 0.000183315395f, 5.51259836e-05f, 1.33098538e-05f, 2.61943524e-06f, 4.24302897e-07f, 0.0f}};

/* max(x, 0) - |x| Phi(-|x|); NaN of -Inf, as nodes that are not fused have it. */
LANE v16 v_gelu(v16 x)
{
    const v16 t = v_max(v_set(-6.0f), v_sign_of(x, v_set(-0.0f))), at = v_fma(t, v_set(-2.5f), v_set(MAGIC)),
        r = v_fma(v_sub(at, v_set(MAGIC)), v_set(0.4f), t);
    v16 q = v_pick(tail[5], at);
    for (int i = 4; i >= 0; i--) q = v_fma(q, r, v_pick(tail[i], at));
    return v_fma(t, q, v_sub(x, v_min(x, v_set(0.0f))));
}
#else
/* The two polynomials of fm_erf (kernels/loops/fmath.h). */
LANE v16 v_erf(v16 x)
{
    const v16 t = v_abs(x), s = v_mul(t, t);
    v16 r = v_fma(v_fma(v_set(-1.72853470e-5f), t, v_set(3.83197126e-4f)), s, v_fma(v_set(-3.88396438e-3f), t, v_set(2.42546219e-2f)));
    r = v_fma(r, t, v_set(-1.06777877e-1f));
    r = v_fma(r, t, v_set(-6.34846687e-1f));
    r = v_fma(r, t, v_set(-1.28717512e-1f));
    const v16 one = v_set(1.0f), far = v_sub(one, v_exp(v_sub(v_mul(r, t), t)));
    v16 q = v_fma(v_set(-5.96761703e-4f), s, v_set(4.99119423e-3f));
    q = v_fma(q, s, v_set(-2.67681349e-2f));
    q = v_fma(q, s, v_set(1.12819925e-1f));
    q = v_fma(q, s, v_set(-3.76125336e-1f));
    q = v_fma(q, s, v_set(1.28379166e-1f));
    const v16 big = v_sign_of(v_above(t, v_set(4.0f), one, far), x);
    return v_above(t, v_set(0.927734375f), big, v_fma(q, x, x));
}

LANE v16 v_gelu(v16 x)
{
    const v16 h = v_mul(v_set(0.5f), x);
    return v_fma(h, v_erf(v_mul(x, v_set(0.70710678118654752f))), h);
}
#endif

#define ROW(name, expr)                                                                          \
    TARGET static void name(const float *x, float *y, int64_t n)                                 \
    {                                                                                            \
        int64_t i = 0;                                                                           \
        for (; i + 16 <= n; i += 16) v_store(y + i, expr(v_load(x + i)));                        \
        if (i < n) v_store_n(y + i, expr(v_load_n(x + i, n - i)), n - i);                         \
    }
ROW(silu, v_silu)
ROW(gelu, v_gelu)
ROW(gelu_tanh, v_gelu_tanh)
ROW(sigmoid, v_sigmoid)

LANE v16 v_affine(v16 x, v16 mean, v16 a, v16 b, bool act)
{
    const v16 z = v_fma(v_sub(x, mean), a, b);
    return act ? v_silu(z) : z;
}

TARGET static void affine(const float *x, int64_t n, const qx_affine *p, bool act, float *y)
{
    const v16 mean = v_load(p->mean), a = v_load(p->a), b = v_load(p->b);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(y + i, v_affine(v_load(x + i), mean, a, b, act));
    if (i < n) v_store_n(y + i, v_affine(v_load_n(x + i, n - i), mean, a, b, act), n - i);
}

/* ---- Products of few rows ---- */

/* As many rows of k at once as sums fit the registers. */
enum { AT_ONCE = LANES_ISA == 512 ? 16 : 4 };

LANE void dots_block(int64_t d, const float *q, const float *k, int64_t ldk, float *s)
{
    v16 sum[AT_ONCE];
    int64_t c = 0;
    for (int i = 0; i < AT_ONCE; i++) sum[i] = v_set(0.0f);
    for (; c + 16 <= d; c += 16) {
        const v16 x = v_load(q + c);
        for (int i = 0; i < AT_ONCE; i++) sum[i] = v_fma(x, v_load(k + i * ldk + c), sum[i]);
    }
    if (c < d) {
        const v16 x = v_load_n(q + c, d - c);
        for (int i = 0; i < AT_ONCE; i++) sum[i] = v_fma(x, v_load_n(k + i * ldk + c, d - c), sum[i]);
    }
#if LANES_ISA == 512
    v_store(s, v_sums(sum));
#else
    for (int i = 0; i < AT_ONCE; i++) s[i] = v_sum(sum[i]);
#endif
}

LANE float dot_one(int64_t d, const float *q, const float *k)
{
    v16 sum = v_set(0.0f);
    for (int64_t c = 0; c < d; c += 16) sum = v_fma(v_part(q + c, d - c), v_part(k + c, d - c), sum);
    return v_sum(sum);
}

TARGET static void dots(int64_t rows, int64_t n, int64_t d, const float *q, int64_t ldq, const float *k, int64_t ldk, float *s,
                        int64_t lds)
{
    int64_t j = 0;
    for (; j + AT_ONCE <= n; j += AT_ONCE)
        for (int64_t r = 0; r < rows; r++) dots_block(d, q + r * ldq, k + j * ldk, ldk, s + r * lds + j);
    for (; j < n; j++)
        for (int64_t r = 0; r < rows; r++) s[r * lds + j] = dot_one(d, q + r * ldq, k + j * ldk);
}

typedef struct times_args { int64_t n; const float *s; int64_t lds; const float *v; int64_t ldv; float *y; int64_t ldy; } times_args;

/* r rows by 16 w columns whose sums stay in registers; r and w are constants where this is called. */
LANE void times_block(const int r, const int w, const times_args *t, int64_t c)
{
    v16 sum[4][4];
    for (int i = 0; i < r; i++)
        for (int k = 0; k < w; k++) sum[i][k] = v_load(t->y + i * t->ldy + c + 16 * k);
    for (int64_t j = 0; j < t->n; j++) {
        v16 v[4];
        for (int k = 0; k < w; k++) v[k] = v_load(t->v + j * t->ldv + c + 16 * k);
        for (int i = 0; i < r; i++) {
            const v16 f = v_set(t->s[i * t->lds + j]);
            for (int k = 0; k < w; k++) sum[i][k] = v_fma(f, v[k], sum[i][k]);
        }
    }
    for (int i = 0; i < r; i++)
        for (int k = 0; k < w; k++) v_store(t->y + i * t->ldy + c + 16 * k, sum[i][k]);
}

/* The last m columns, m < 16, of one row. */
LANE void times_rest(const times_args *t, int64_t i, int64_t c, int64_t m)
{
    v16 sum = v_load_n(t->y + i * t->ldy + c, m);
    for (int64_t j = 0; j < t->n; j++) sum = v_fma(v_set(t->s[i * t->lds + j]), v_load_n(t->v + j * t->ldv + c, m), sum);
    v_store_n(t->y + i * t->ldy + c, sum, m);
}

LANE void times_rows(const int r, const times_args *t, int64_t d)
{
    enum { WIDE = LANES_ISA == 512 ? 4 : 1 };
    int64_t c = 0;
    for (; c + 16 * WIDE <= d; c += 16 * WIDE) times_block(r, WIDE, t, c);
    for (; c + 16 <= d; c += 16) times_block(r, 1, t, c);
    for (int i = 0; c < d && i < r; i++) times_rest(t, i, c, d - c);
}

TARGET static void times(int64_t rows, int64_t n, int64_t d, const float *s, int64_t lds, const float *v, int64_t ldv, float *y,
                         int64_t ldy)
{
    for (int64_t r = 0; r < rows; r += 4) {
        const times_args t = {n, s + r * lds, lds, v, ldv, y + r * ldy, ldy};
        switch (rows - r) {
        case 1: times_rows(1, &t, d); break;
        case 2: times_rows(2, &t, d); break;
        case 3: times_rows(3, &t, d); break;
        default: times_rows(4, &t, d); break;
        }
    }
}

static const qx_vmath vmath = {score_top, exp_sum, affine, silu, gelu, gelu_tanh, sigmoid, dots, times};
