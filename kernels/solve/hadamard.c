/* hadamard.c - normalised Hadamard rotations: fast Walsh-Hadamard for powers of two, times a small matrix of Paley for the other factor. */
#include <math.h>
#include <string.h>

#include "kernels/solve/solve.h"

enum { MAX_KRON = 256, LANES = 16 };

static bool prime(int64_t q)
{
    if (q < 3) return false;
    for (int64_t d = 2; d * d <= q; d++)
        if (q % d == 0) return false;
    return true;
}

/* 1: q + 1 = n with q prime, q = 3 mod 4 (Paley I). 2: 2 (q + 1) = n with q prime, q = 1 mod 4 (Paley II). 0: neither. */
static int paley_kind(int64_t n)
{
    if (n % 4 == 0 && prime(n - 1)) return 1;
    if (n % 4 == 0 && prime(n / 2 - 1) && (n / 2 - 1) % 4 == 1) return 2;
    return 0;
}

bool qx_hadamard_plan(int64_t n, int64_t block, qx_hadamard *out)
{
    int64_t two = 1, odd;
    if (n < 1 || block < 0) return false;
    while (n % (two * 2) == 0) two *= 2;
    odd = n / two;
    *out = (qx_hadamard){n, 1, two};
    if (block > 0) {
        out->pow2 = block;
        return (block & (block - 1)) == 0 && n % block == 0;
    }
    for (int64_t m = 4; odd > 1 && m <= two && m * odd <= MAX_KRON; m *= 2)
        if (paley_kind(m * odd)) {
            out->kron = m * odd, out->pow2 = two / m;
            break;
        }
    return true;
}

/* chi[i]: 1 for squares mod q, -1 for the others, 0 for 0. */
static void characters(int64_t q, int8_t *chi)
{
    for (int64_t i = 0; i < q; i++) chi[i] = i ? -1 : 0;
    for (int64_t i = 1; i < q; i++) chi[i * i % q] = 1;
}

/* Paley I: I + S with S = [0 1'; -1 Q]. Entries of row i, column j. */
static int paley_one(const int8_t *chi, int64_t q, int64_t i, int64_t j)
{
    if (i == j) return 1;
    if (i == 0) return 1;
    if (j == 0) return -1;
    return chi[((i - j) % q + q) % q];
}

/* Paley II: each entry of the symmetric conference matrix C becomes 2 x 2: 0 -> [1 -1; -1 -1], c -> c [1 1; 1 -1]. */
static int paley_two(const int8_t *chi, int64_t q, int64_t i, int64_t j)
{
    const int64_t a = i / 2, b = j / 2;
    const bool low = i % 2 && j % 2;
    if (a == b) return i % 2 == 0 && j % 2 == 0 ? 1 : -1;
    const int c = a == 0 || b == 0 ? 1 : chi[((a - b) % q + q) % q];
    return low ? -c : c;
}

static void walsh(float *x, int64_t n)
{
    for (int64_t half = 1; half < n; half *= 2)
        for (int64_t i = 0; i < n; i += 2 * half)
            for (int64_t j = i; j < i + half; j++) {
                const float a = x[j], b = x[j + half];
                x[j] = a + b, x[j + half] = a - b;
            }
}

/* signs[b][a]: what x[a] counts with in y[b]. */
static void sign_table(int64_t kron, bool transpose, int8_t *signs)
{
    const int kind = paley_kind(kron);
    const int64_t q = kind == 1 ? kron - 1 : kron / 2 - 1;
    int8_t chi[MAX_KRON];
    characters(q, chi);
    for (int64_t b = 0; b < kron; b++)
        for (int64_t a = 0; a < kron; a++) {
            const int64_t i = transpose ? b : a, j = transpose ? a : b;
            signs[b * kron + a] = (kind == 1 ? paley_one(chi, q, i, j) : paley_two(chi, q, i, j)) > 0 ? 1 : -1;
        }
}

/* One group: y[b] = sum over a of signs[b][a] x[a] for the `kron` sub-vectors, LANES elements of pow2 at once. */
static void mix(const qx_hadamard *h, const int8_t *signs, float *x)
{
    float in[MAX_KRON][LANES];
    for (int64_t e = 0; e < h->pow2; e += LANES) {
        const size_t n = (size_t)(h->pow2 - e < LANES ? h->pow2 - e : LANES);
        memset(in, 0, (size_t)h->kron * sizeof *in);
        for (int64_t a = 0; a < h->kron; a++) memcpy(in[a], x + a * h->pow2 + e, n * sizeof *x);
        for (int64_t b = 0; b < h->kron; b++) {
            float y[LANES] = {0};
            for (int64_t a = 0; a < h->kron; a++) {
                const float s = signs[b * h->kron + a];
                for (int i = 0; i < LANES; i++) y[i] += s * in[a][i];
            }
            memcpy(x + b * h->pow2 + e, y, n * sizeof *x);
        }
    }
}

void qx_hadamard_rows(const qx_hadamard *h, float *x, int64_t rows, bool transpose)
{
    const int64_t group = h->kron * h->pow2;
    const float norm = (float)(1.0 / sqrt((double)group));
    int8_t signs[MAX_KRON * MAX_KRON];
    if (h->kron > 1) sign_table(h->kron, transpose, signs);
    for (int64_t g = 0; g < rows * h->n / group; g++, x += group) {
        for (int64_t a = 0; a < h->kron; a++) walsh(x + a * h->pow2, h->pow2);
        if (h->kron > 1) mix(h, signs, x);
        for (int64_t i = 0; i < group; i++) x[i] *= norm;
    }
}
