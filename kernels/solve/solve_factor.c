/* solve_factor.c - blocked Cholesky, triangular inverse, and the factor of the inverse that GPTQ and SparseGPT walk along. Nearly
 * all work is in the product that the caller hands in; what is left are 128-column blocks on one thread. Before it, H with few
 * rows is made trustworthy. */
#include <math.h>
#include <string.h>

#include "kernels/loops/multi.h"
#include "kernels/solve/solve.h"

enum { NB = 128, TILE = 64, STRIP = 512 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

QX_INLINE void axpy_body(int64_t n, float a, const float *x, float *y)
{
    QX_IVDEP
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}
QX_MULTI(static, axpy, (int64_t n, float a, const float *x, float *y), (n, a, x, y))

/* Unblocked Cholesky of the lower triangle of an nb x nb block. */
static int64_t cholesky_block(float *a, int64_t ld, int64_t nb)
{
    float column[NB];
    for (int64_t j = 0; j < nb; j++) {
        const float d = a[j * ld + j];
        if (!(d > 0.0f) || !(d < INFINITY)) return j;
        const float root = sqrtf(d);
        a[j * ld + j] = root;
        for (int64_t i = j + 1; i < nb; i++) column[i] = a[i * ld + j] /= root;
        for (int64_t i = j + 1; i < nb; i++) axpy(i - j, -column[i], column + j + 1, a + i * ld + j + 1);
    }
    return -1;
}

/* inv[nb][NB] = inverse of a lower triangular block, zero above the diagonal. Double inside: everything else is multiplied by it. */
static void invert_block(const float *l, int64_t ld, int64_t nb, float *inv)
{
    double column[NB];
    memset(inv, 0, sizeof *inv * (size_t)(nb * NB));
    for (int64_t j = 0; j < nb; j++)
        for (int64_t i = j; i < nb; i++) {
            double s = i == j ? 1.0 : 0.0;
            for (int64_t p = j; p < i; p++) s -= (double)l[i * ld + p] * column[p];
            column[i] = s / (double)l[i * ld + i];
            inv[i * NB + j] = (float)column[i];
        }
}

/* Rows below the diagonal block: P = A inv(L11)', a few rows at a time through the stack. */
static void solve_panel(float *a, int64_t ld, int64_t rows, int64_t nb, const float *inv, qx_matmul_fn *mm, void *user)
{
    float copy[TILE * NB];
    for (int64_t r = 0; r < rows; r += TILE) {
        const int64_t m = least(TILE, rows - r);
        for (int64_t i = 0; i < m; i++) memcpy(copy + i * NB, a + (r + i) * ld, sizeof *copy * (size_t)nb);
        const qx_matmul p = {m, nb, nb, copy, NB, 1, inv, 1, NB, a + r * ld, ld, 1.0f, 0.0f};
        mm(user, &p);
    }
}

int64_t qx_cholesky(float *a, int64_t n, qx_matmul_fn *mm, void *user)
{
    float inv[NB * NB];
    if (!mm) mm = qx_matmul_f32;
    for (int64_t j = 0; j < n; j += NB) {
        const int64_t nb = least(NB, n - j), rest = n - j - nb;
        const int64_t bad = cholesky_block(a + j * n + j, n, nb);
        if (bad >= 0) return j + bad;
        if (rest == 0) break;
        float *panel = a + (j + nb) * n + j;
        invert_block(a + j * n + j, n, nb, inv);
        solve_panel(panel, n, rest, nb, inv, qx_matmul_f32, NULL);
        for (int64_t r = 0; r < rest; r += STRIP) { /* lower part only, in strips of rows */
            const int64_t m = least(STRIP, rest - r);
            const qx_matmul p = {m, r + m, nb, panel + r * n, n, 1, panel, 1, n, a + (j + nb + r) * n + j + nb, n, -1.0f, 1.0f};
            mm(user, &p);
        }
    }
    return -1;
}

/* dst[nb][cols] = -inv[nb][nb] src, dst and src the same rows of l: column tiles through the stack. */
static void scale_by_inverse(const float *inv, int64_t nb, float *l, int64_t ld, int64_t cols)
{
    float copy[NB * TILE];
    for (int64_t c = 0; c < cols; c += TILE) {
        const int64_t m = least(TILE, cols - c);
        for (int64_t i = 0; i < nb; i++) memcpy(copy + i * TILE, l + i * ld + c, sizeof *copy * (size_t)m);
        const qx_matmul p = {nb, m, nb, inv, NB, 1, copy, TILE, 1, l + c, ld, -1.0f, 0.0f};
        qx_matmul_f32(NULL, &p);
    }
}

void qx_lower_inverse(float *l, int64_t n, float *scratch, qx_matmul_fn *mm, void *user)
{
    float inv[NB * NB];
    if (!mm) mm = qx_matmul_f32;
    for (int64_t i = 0; i < n; i += NB) {
        const int64_t nb = least(NB, n - i);
        float *row = l + i * n;
        for (int64_t r = 0; r < nb; r++) memcpy(scratch + r * n, row + r * n, sizeof *row * (size_t)(i + nb));
        invert_block(scratch + i, n, nb, inv);
        for (int64_t c = 0; c < i; c += STRIP) { /* rows above are inverted already; columns from c see them from row c on */
            const int64_t m = least(STRIP, i - c);
            const qx_matmul p = {nb, m, i - c, scratch + c, n, 1, l + c * n + c, n, 1, row + c, n, 1.0f, 0.0f};
            mm(user, &p);
        }
        scale_by_inverse(inv, nb, row, n, i);
        for (int64_t r = 0; r < nb; r++) {
            memcpy(row + r * n + i, inv + r * NB, sizeof *row * (size_t)nb);
            memset(row + r * n + i + nb, 0, sizeof *row * (size_t)(n - i - nb));
        }
    }
}

/* The lower triangle of H with rows and columns in reversed (permuted) order, damped. false when something is not finite. */
static bool load_reversed(const qx_factor *f, double damping, float *a)
{
    const int64_t k = f->k;
    for (int64_t i = 0; i < k; i++) {
        const int64_t hi = f->perm ? f->perm[k - 1 - i] : k - 1 - i;
        const float *row = f->h + hi * k;
        for (int64_t j = 0; j <= i; j++) a[i * k + j] = row[f->perm ? f->perm[k - 1 - j] : k - 1 - j];
        const float d = row[hi];
        if (!(d >= 0.0f) || !(d < INFINITY)) return false;
        if (d == 0.0f) memset(a + i * k, 0, sizeof *a * (size_t)i); /* dead input: its row must not disturb the others */
        a[i * k + i] = d == 0.0f ? 1.0f : (float)((double)d + damping);
    }
    return true;
}

bool qx_factor_inverse(const qx_factor *f, float *u, float *scratch, double *damping)
{
    const int64_t k = f->k;
    double mean = 0, damp = f->damp;
    for (int64_t i = 0; i < k; i++) mean += (double)f->h[i * k + i];
    mean = k ? mean / (double)k : 0;
    for (int attempt = 0; attempt <= (f->retries > 0 ? f->retries : 3); attempt++) {
        *damping = damp * mean;
        if (!load_reversed(f, *damping, u)) return false;
        if (qx_cholesky(u, k, f->mm, f->user) < 0) {
            qx_lower_inverse(u, k, scratch, f->mm, f->user);
            for (int64_t i = 0, j = k * k - 1; i < j; i++, j--) { /* both orders reversed: lower becomes upper */
                const float t = u[i];
                u[i] = u[j], u[j] = t;
            }
            return true;
        }
        damp = damp > 0 ? damp * 10 : 0.01;
    }
    return false;
}

double qx_shrink_gram(float *h, int64_t k, double rows, double strength)
{
    double inputs = 0;
    for (int64_t i = 0; i < k; i++) inputs += h[i * k + i] > 0;
    if (!(strength > 0) || !(inputs > 0)) return 0;
    const double share = strength * inputs / (strength * inputs + rows);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++)
            if (i != j) h[i * k + j] *= (float)(1 - share);
    return share;
}

/* Sifts down in a heap with the smallest (diagonal, then the largest index) on top, so that the sorted order falls. */
static bool after(const float *h, int64_t k, int32_t a, int32_t b)
{
    const float x = h[(int64_t)a * k + a], y = h[(int64_t)b * k + b];
    return x < y || (x == y && a > b);
}

static void sift(const float *h, int64_t k, int32_t *p, int64_t i, int64_t n)
{
    for (int64_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && after(h, k, p[c + 1], p[c])) c++;
        if (!after(h, k, p[c], p[i])) return;
        const int32_t t = p[c];
        p[c] = p[i], p[i] = t;
    }
}

void qx_order_by_diagonal(const float *h, int64_t k, int32_t *perm)
{
    for (int64_t i = 0; i < k; i++) perm[i] = (int32_t)i;
    for (int64_t i = k / 2; i-- > 0;) sift(h, k, perm, i, k);
    for (int64_t n = k; n > 1;) {
        const int32_t t = perm[0];
        perm[0] = perm[--n], perm[n] = t;
        sift(h, k, perm, 0, n);
    }
}

void qx_quad_errors(const float *dw, const float *h, int64_t rows, int64_t k, double *err, float *scratch, qx_matmul_fn *mm, void *user)
{
    const qx_matmul p = {rows, k, k, dw, k, 1, h, k, 1, scratch, k, 1.0f, 0.0f};
    (mm ? mm : qx_matmul_f32)(user, &p);
    for (int64_t r = 0; r < rows; r++) {
        double s = 0;
        for (int64_t i = 0; i < k; i++) s += (double)scratch[r * k + i] * (double)dw[r * k + i];
        err[r] = s;
    }
}
