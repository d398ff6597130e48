/* solve_permute.c - an order of columns whose fours lose less when two of each are pruned (the search of NVIDIA's ASP: Pool and
 * Yu, Channel Permutations for N:M Sparsity, 2021).
 *
 * Two fours at a time, drawn at random, are divided anew: of the 35 ways to make two fours of eight columns the one that loses
 * least is taken. What a four loses is the sum over rows of its two smallest scores. Sums run in sixteen lanes over rows, in one
 * order everywhere. */
#include <string.h>

#include "kernels/loops/multi.h"
#include "kernels/scalar.h"
#include "kernels/solve/solve.h"

enum { FOUR = 4, EIGHT = 8, SPLITS = 35, LANES = 16 };

typedef struct search {
    const float *score;  /* [k][wide] */
    int64_t k, wide;     /* wide: rows padded to LANES with 0 */
    int32_t *perm;
    int32_t *draw;       /* [k / 4] fours in random order */
    float *loss;         /* [k / 4] of each four as it is */
    uint8_t split[SPLITS][EIGHT];
    uint64_t seed;
} search;

static int64_t padded(int64_t rows) { return (rows + LANES - 1) / LANES * LANES; }

size_t qx_permute_2_4_scratch(int64_t k, int64_t rows) { return sizeof(float) * (size_t)(k * padded(rows) + k / FOUR * 2); }

QX_INLINE void lose_body(int64_t n, const float *restrict a, const float *restrict b, const float *restrict c, const float *restrict d,
                         float *restrict sum)
{
    float part[LANES] = {0};
    for (int64_t r = 0; r < n; r += LANES)
        for (int i = 0; i < LANES; i++) {
            const float p = a[r + i], q = b[r + i], s = c[r + i], t = d[r + i];
            const float low1 = p < q ? p : q, high1 = p < q ? q : p, low2 = s < t ? s : t, high2 = s < t ? t : s;
            const float least = low1 < low2 ? low1 : low2, other = low1 < low2 ? low2 : low1, high = high1 < high2 ? high1 : high2;
            part[i] += least + (other < high ? other : high);
        }
    *sum = 0;
    for (int i = 0; i < LANES; i++) *sum += part[i];
}
QX_MULTI(static, lose, (int64_t n, const float *a, const float *b, const float *c, const float *d, float *sum), (n, a, b, c, d, sum))

static float loss_of(const search *s, const int32_t *columns, const uint8_t *four)
{
    float sum;
    const float *at[FOUR];
    for (int i = 0; i < FOUR; i++) at[i] = s->score + columns[four[i]] * s->wide;
    lose(s->wide, at[0], at[1], at[2], at[3], &sum);
    return sum;
}

/* All ways to divide eight: the first of them stays in the first four. */
static void make_splits(search *s)
{
    int n = 0;
    for (uint8_t a = 1; a < EIGHT; a++)
        for (uint8_t b = (uint8_t)(a + 1); b < EIGHT; b++)
            for (uint8_t c = (uint8_t)(b + 1); c < EIGHT; c++, n++) {
                uint8_t *p = s->split[n], *rest = p + FOUR;
                p[0] = 0, p[1] = a, p[2] = b, p[3] = c;
                for (uint8_t i = 1; i < EIGHT; i++)
                    if (i != a && i != b && i != c) *rest++ = i;
            }
}

/* splitmix64 */
static uint64_t draw(search *s, uint64_t below)
{
    uint64_t x = s->seed += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (x ^ (x >> 31)) % below;
}

static void shuffle(search *s)
{
    for (int64_t i = s->k / FOUR - 1; i > 0; i--) {
        const int64_t j = (int64_t)draw(s, (uint64_t)i + 1);
        const int32_t t = s->draw[i];
        s->draw[i] = s->draw[j], s->draw[j] = t;
    }
}

static void divide(search *s, int64_t a, int64_t b)
{
    static const uint8_t first[FOUR] = {0, 1, 2, 3};
    int32_t eight[EIGHT];
    float best = s->loss[a] + s->loss[b];
    int taken = -1;
    memcpy(eight, s->perm + a * FOUR, FOUR * sizeof *eight);
    memcpy(eight + FOUR, s->perm + b * FOUR, FOUR * sizeof *eight);
    for (int i = 0; i < SPLITS; i++) {
        const float sum = loss_of(s, eight, s->split[i]) + loss_of(s, eight, s->split[i] + FOUR);
        if (sum < best) best = sum, taken = i;
    }
    if (taken < 0) return;
    for (int i = 0; i < FOUR; i++)
        s->perm[a * FOUR + i] = eight[s->split[taken][i]], s->perm[b * FOUR + i] = eight[s->split[taken][i + FOUR]];
    s->loss[a] = loss_of(s, s->perm + a * FOUR, first);
    s->loss[b] = loss_of(s, s->perm + b * FOUR, first);
}

static double total(const search *s)
{
    double sum = 0;
    for (int64_t i = 0; i < s->k / FOUR; i++) sum += (double)s->loss[i];
    return sum;
}

static void start(search *s, const float *score, int64_t rows, float *turned)
{
    static const uint8_t first[FOUR] = {0, 1, 2, 3};
    memset(turned, 0, sizeof *turned * (size_t)(s->k * s->wide));
    for (int64_t j = 0; j < s->k; j++)
        for (int64_t r = 0; r < rows; r++) turned[j * s->wide + r] = score[r * s->k + j];
    for (int64_t j = 0; j < s->k; j++) s->perm[j] = (int32_t)j;
    for (int64_t i = 0; i < s->k / FOUR; i++) s->draw[i] = (int32_t)i, s->loss[i] = loss_of(s, s->perm + i * FOUR, first);
    make_splits(s);
}

double qx_permute_2_4(const float *score, int64_t rows, int64_t k, int sweeps, uint64_t seed, int32_t *perm, void *scratch)
{
    search s = {.k = k, .wide = padded(rows), .perm = perm, .seed = seed};
    float *turned = scratch;
    s.score = turned;
    s.loss = turned + k * s.wide;
    s.draw = (int32_t *)(void *)(s.loss + k / FOUR);
    start(&s, score, rows, turned);
    const double before = total(&s);
    for (int i = 0; i < sweeps; i++) {
        shuffle(&s);
        for (int64_t j = 0; j + 1 < k / FOUR; j += 2) divide(&s, s.draw[j], s.draw[j + 1]);
    }
    return before > 0 ? total(&s) / before : 1;
}
