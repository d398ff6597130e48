/* pick.c - greedy, or seeded sampling with a temperature from the k likeliest tokens. */
#include "pick.h"

#include <math.h>

static uint64_t next(uint64_t *s) /* splitmix64 */
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int64_t likeliest(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The largest value that no more than k entries exceed or reach: bisection over the range, exact enough for sampling. */
static float threshold(const float *x, int64_t n, int64_t k)
{
    float hi = x[likeliest(x, n)], lo = hi - 100;
    for (int step = 0; step < 40; step++) {
        float mid = 0.5f * (lo + hi);
        int64_t above = 0;
        for (int64_t i = 0; i < n; i++) above += x[i] >= mid;
        if (above > k) lo = mid;
        else hi = mid;
    }
    return hi;
}

int64_t llm_pick_token(llm_pick *p, float *logits, int64_t n)
{
    int64_t best = likeliest(logits, n);
    if (p->temperature <= 0) return best;
    float top = logits[best], floor_at = p->top_k > 0 && p->top_k < n ? threshold(logits, n, p->top_k) : -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        logits[i] = logits[i] >= floor_at ? (float)exp((double)(logits[i] - top) / p->temperature) : 0;
        sum += (double)logits[i];
    }
    double at = (double)(next(&p->state) >> 11) * 0x1p-53 * sum;
    for (int64_t i = 0; i < n; i++)
        if ((at -= (double)logits[i]) < 0) return i;
    return best;
}
