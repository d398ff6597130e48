/* solve_lowrank.c - best rank-r product for a weight: subspace iteration on W'W from a seeded start, then an exact small eigenproblem. */
#include <math.h>
#include <string.h>

#include "kernels/solve/solve.h"

enum { EXTRA = 8, SWEEPS = 40 };

static void rotate(double *a, double *v, int64_t n, int64_t p, int64_t q)
{
    const double apq = a[p * n + q], theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
    const double t = (theta >= 0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
    for (int64_t i = 0; i < n; i++) {
        const double x = a[i * n + p], y = a[i * n + q];
        a[i * n + p] = c * x - s * y, a[i * n + q] = s * x + c * y;
    }
    for (int64_t i = 0; i < n; i++) {
        const double x = a[p * n + i], y = a[q * n + i], vx = v[i * n + p], vy = v[i * n + q];
        a[p * n + i] = c * x - s * y, a[q * n + i] = s * x + c * y;
        v[i * n + p] = c * vx - s * vy, v[i * n + q] = s * vx + c * vy;
    }
}

static void sort_falling(double *value, double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t top = i;
        for (int64_t j = i + 1; j < n; j++)
            if (value[j] > value[top]) top = j;
        if (top == i) continue;
        const double t = value[i];
        value[i] = value[top], value[top] = t;
        for (int64_t r = 0; r < n; r++) {
            const double x = v[r * n + i];
            v[r * n + i] = v[r * n + top], v[r * n + top] = x;
        }
    }
}

void qx_jacobi_eigen(double *a, int64_t n, double *value, double *v)
{
    double total = 0;
    for (int64_t i = 0; i < n * n; i++) v[i] = 0, total += a[i] * a[i];
    for (int64_t i = 0; i < n; i++) v[i * n + i] = 1;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double off = 0;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) off += a[p * n + q] * a[p * n + q];
        if (!(off > 1e-30 * total)) break;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++)
                if (a[p * n + q] != 0) rotate(a, v, n, p, q);
    }
    for (int64_t i = 0; i < n; i++) value[i] = a[i * n + i];
    sort_falling(value, v, n);
}

static int64_t width(const qx_lowrank *l)
{
    const int64_t most = l->n < l->k ? l->n : l->k, want = l->rank + EXTRA;
    return want < most ? want : most;
}

size_t qx_lowrank_scratch(const qx_lowrank *l)
{
    const int64_t p = width(l);
    return sizeof(float) * (size_t)(p * l->k + l->n * p + 2) + sizeof(double) * (size_t)(2 * p * p + p + l->k);
}

static float noise(uint64_t *s) /* splitmix64, uniform in [-1, 1) */
{
    uint64_t z = *s += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (float)((z ^ (z >> 31)) >> 40) * 0x1p-23f - 1.0f;
}

/* Makes the p rows of q[p][k] orthonormal: modified Gram-Schmidt, twice. A row that vanishes becomes 0. */
static void orthonormal(float *q, int64_t p, int64_t k, double *row)
{
    for (int64_t i = 0; i < p; i++) {
        double first = 0, norm = 0;
        for (int64_t c = 0; c < k; c++) row[c] = (double)q[i * k + c], first += row[c] * row[c];
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < i; j++) {
                double dot = 0;
                for (int64_t c = 0; c < k; c++) dot += row[c] * (double)q[j * k + c];
                for (int64_t c = 0; c < k; c++) row[c] -= dot * (double)q[j * k + c];
            }
        for (int64_t c = 0; c < k; c++) norm += row[c] * row[c];
        const double f = norm > 1e-24 * first && norm > 0 ? 1 / sqrt(norm) : 0;
        for (int64_t c = 0; c < k; c++) q[i * k + c] = (float)(row[c] * f);
    }
}

void qx_lowrank_solve(const qx_lowrank *l, const float *w, float *b, float *a, void *scratch)
{
    const int64_t n = l->n, k = l->k, p = width(l), r = l->rank;
    qx_matmul_fn *mm = l->mm ? l->mm : qx_matmul_f32;
    double *gram = scratch, *vec = gram + p * p, *value = vec + p * p, *row = value + p;
    float *q = (float *)(void *)(row + k), *y = q + p * k; /* q[p][k], y[n][p] */
    uint64_t seed = l->seed + 1;
    for (int64_t i = 0; i < p * k; i++) q[i] = noise(&seed);
    orthonormal(q, p, k, row);
    const qx_matmul out = {n, p, k, w, k, 1, q, 1, k, y, p, 1.0f, 0.0f};  /* y = w q' */
    const qx_matmul back = {p, k, n, y, 1, p, w, k, 1, q, k, 1.0f, 0.0f}; /* q = y' w */
    for (int i = 0; i < (l->iterations > 0 ? l->iterations : 8); i++) {
        mm(l->user, &out);
        mm(l->user, &back);
        orthonormal(q, p, k, row);
    }
    mm(l->user, &out);
    for (int64_t i = 0; i < p; i++)
        for (int64_t j = 0; j <= i; j++) {
            double s = 0;
            for (int64_t t = 0; t < n; t++) s += (double)y[t * p + i] * (double)y[t * p + j];
            gram[i * p + j] = gram[j * p + i] = s;
        }
    qx_jacobi_eigen(gram, p, value, vec); /* right singular vectors of w inside the subspace: rows of vec' q */
    for (int64_t i = 0; i < r; i++)
        for (int64_t c = 0; c < k; c++) {
            double s = 0;
            for (int64_t j = 0; j < p; j++) s += vec[j * p + i] * (double)q[j * k + c];
            a[i * k + c] = (float)s;
        }
    const qx_matmul last = {n, r, k, w, k, 1, a, 1, k, b, r, 1.0f, 0.0f}; /* b = w a' */
    mm(l->user, &last);
}
