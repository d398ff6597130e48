/* search.c - least-squares choice of scales per row or block. Candidates are made and compared here; the error sums are leaf loops.
 * Order of candidates is fixed and a later one must be strictly better, so results do not depend on anything but the numbers. */
#include "kernels/search.h"

#include <stddef.h>

#include "kernels/scalar.h"
#include "kernels/search_leaf.h"

enum { PIECE = 256, MAX_GRID = 40, MAX_CANDIDATES = 3 * MAX_GRID, MAX_REFINE = 4 };

typedef struct plan {
    const qx_search_leaf *leaf;
    const qx_search *s;
    qx_grid_kind kind;
    float lo, hi;               /* of the codes */
    float grid[MAX_GRID];       /* factors, the first is 1 */
    int n_grid;
} plan;

typedef struct candidates { float scale[MAX_CANDIDATES], inv[MAX_CANDIDATES], lo[MAX_CANDIDATES], hi[MAX_CANDIDATES]; int n; } candidates;
typedef struct choice { float scale; int32_t zero; double err; } choice;

static bool kind_of(qx_dtype codes, qx_grid_kind *k)
{
    switch ((int)codes) {
    case QX_DT_INT8: case QX_DT_UINT8: case QX_DT_INT16: case QX_DT_UINT16: case QX_DT_INT4: case QX_DT_UINT4: case QX_DT_INT2: case QX_DT_UINT2:
        *k = QX_ROUND_INT;
        return true;
    case QX_DT_FLOAT8E4M3FN: *k = QX_ROUND_E4M3; return true;
    case QX_DT_FLOAT8E5M2: *k = QX_ROUND_E5M2; return true;
    case QX_DT_FLOAT4E2M1: *k = QX_ROUND_E2M1; return true;
    default: return false;
    }
}

static void make_grid(plan *p)
{
    const bool wide = qx_dtype_bits(p->s->format.codes) >= 8;
    float step = p->s->step > 0 ? p->s->step : wide ? .025f : .05f;
    const float least = p->s->shrink > 0 ? p->s->shrink : wide || p->kind != QX_ROUND_INT ? .5f : .7f;
    if (p->s->format.scale == QX_DT_FLOAT8E8M0) {
        p->grid[0] = 1.0f, p->grid[1] = .5f, p->grid[2] = 2.0f, p->n_grid = 3;
        return;
    }
    if ((1.0f - least) / step > MAX_GRID - 1) step = (1.0f - least) / (MAX_GRID - 1);
    for (p->n_grid = 0; p->n_grid < MAX_GRID; p->n_grid++) {
        const float f = 1.0f - step * (float)p->n_grid;
        if (f < least - .001f) break;
        p->grid[p->n_grid] = f;
    }
}

static bool plan_init(plan *p, const qx_search_leaf *l, const qx_search *s)
{
    p->leaf = l, p->s = s;
    if (!kind_of(s->format.codes, &p->kind) || !qx_format_range(&s->format, &p->lo, &p->hi)) return false;
    if (s->zero_point && p->kind != QX_ROUND_INT) return false;
    make_grid(p);
    return true;
}

/* Errors of all candidates over n elements, in pieces that keep a float sum short. */
static void errors_of(const plan *p, const float *x, const float *w, int64_t n, const candidates *c, double *err)
{
    float part[MAX_CANDIDATES];
    for (int i = 0; i < c->n; i++) err[i] = 0;
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t m = n - at < PIECE ? n - at : PIECE;
        p->leaf->errors[p->kind](x + at, w ? w + at : NULL, m, c->scale, c->inv, c->lo, c->hi, c->n, part);
        for (int i = 0; i < c->n; i++) err[i] += (double)part[i];
    }
}

static void finish_candidate(const plan *p, candidates *c, int i, int32_t zero)
{
    c->inv[i] = 1.0f / c->scale[i];
    c->lo[i] = p->lo - (float)zero, c->hi[i] = p->hi - (float)zero;
}

static void add_candidate(const plan *p, candidates *c, float scale, int32_t zero)
{
    if (c->n == MAX_CANDIDATES) return;
    c->scale[c->n] = scale;
    finish_candidate(p, c, c->n++, zero);
}

static void take_best(const candidates *c, const double *err, const plan *p, choice *best)
{
    for (int i = 0; i < c->n; i++)
        if (best->err < 0 || err[i] < best->err) *best = (choice){c->scale[i], (int32_t)(p->lo - c->lo[i]), err[i]};
}

static float stored(const plan *p, float s) { return qx_scale_stored(&p->s->format, s, NULL); }

/* The scale that minimises the error for the codes of `best`, as long as it improves: cheap, and finer than any grid. */
static void refine(const plan *p, const float *x, const float *w, int64_t n, choice *best)
{
    for (int round = 0; round < MAX_REFINE; round++) {
        const float lo = p->lo - (float)best->zero, hi = p->hi - (float)best->zero, inv = 1.0f / best->scale;
        double num = 0, den = 0, err;
        for (int64_t at = 0; at < n; at += PIECE) {
            float a, b;
            p->leaf->moments(x + at, w ? w + at : NULL, n - at < PIECE ? n - at : PIECE, inv, lo, hi, &a, &b);
            num += (double)a, den += (double)b;
        }
        if (!(den > 0)) return;
        const float s = stored(p, (float)(num / den));
        if (s == best->scale || (s < 0) != (best->scale < 0)) return;
        candidates c = {.n = 0};
        add_candidate(p, &c, s, best->zero);
        errors_of(p, x, w, n, &c, &err);
        if (!(err < best->err)) return;
        *best = (choice){s, best->zero, err};
    }
}

/* Magnitude of the largest element, and the element itself (the first of equals). */
static float signed_peak(const float *x, int64_t n)
{
    uint32_t top = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t a = qx_bits_of(x[i]) & 0x7fffffffu;
        top = a > top ? a : top;
    }
    while (at < n && (qx_bits_of(x[at]) & 0x7fffffffu) != top) at++;
    return n > 0 ? x[at] : 0.0f;
}

static void symmetric(const plan *p, const float *x, const float *w, int64_t n, choice *best)
{
    const float peak = signed_peak(x, n), amax = peak < 0 ? -peak : peak;
    const bool full = p->kind == QX_ROUND_INT && !p->s->format.narrow && p->lo < 0;
    candidates c = {.n = 0};
    double err[MAX_CANDIDATES];
    const float base[3] = {amax / p->hi, amax / (p->hi + .5f), (p->s->format.negative ? peak : -amax) / p->lo};
    for (int j = 0; j < (full ? 3 : 1); j++)
        for (int i = 0; i < p->n_grid; i++) c.scale[c.n++] = base[j] * p->grid[i];
    qx_scales_stored(&p->s->format, c.scale, c.n, NULL);
    for (int i = 0; i < c.n; i++) finish_candidate(p, &c, i, 0);
    errors_of(p, x, w, n, &c, err);
    take_best(&c, err, p, best);
    if (p->kind == QX_ROUND_INT) refine(p, x, w, n, best);
}

static void asymmetric(const plan *p, const float *x, const float *w, int64_t n, choice *best)
{
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) lo = x[i] < lo ? x[i] : lo, hi = x[i] > hi ? x[i] : hi;
    candidates c = {.n = 0};
    double err[MAX_CANDIDATES];
    for (int i = 0; i < p->n_grid; i++) {
        float s, a = lo * p->grid[i], b = hi * p->grid[i];
        int32_t z;
        qx_scale_from_range(&p->s->format, &a, &b, 1, &s, &z, NULL);
        add_candidate(p, &c, s, z);
        if ((float)z > p->lo) add_candidate(p, &c, s, z - 1);
        if ((float)z < p->hi) add_candidate(p, &c, s, z + 1);
    }
    errors_of(p, x, w, n, &c, err);
    take_best(&c, err, p, best);
    refine(p, x, w, n, best);
}

static void search_block(const plan *p, const float *x, const float *w, int64_t n, choice *best)
{
    *best = (choice){0, 0, -1};
    if (signed_peak(x, n) == 0.0f) {
        *best = (choice){p->s->format.scale == QX_DT_FLOAT8E8M0 ? 0x1p-127f : 1.0f, p->lo > 0 ? (int32_t)p->lo : 0, 0};
        return;
    }
    if (p->s->zero_point) asymmetric(p, x, w, n, best);
    else symmetric(p, x, w, n, best);
}

bool qx_search_rows_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t rows, int64_t k, float *scale, int32_t *zero, double *err)
{
    plan p;
    if (!plan_init(&p, l, s) || (s->zero_point && !zero)) return false;
    const int64_t block = s->block > 0 ? s->block : (k > 0 ? k : 1), nb = qx_cells_of(k, block);
    for (int64_t i = 0; i < rows * nb; i++) {
        const int64_t row = i / nb, at = i % nb * block, n = k - at < block ? k - at : block;
        choice best;
        search_block(&p, x + row * k + at, s->weight ? s->weight + at : NULL, n, &best);
        scale[i] = best.scale;
        if (zero) zero[i] = best.zero;
        if (err) err[i] = best.err;
    }
    return true;
}

bool qx_search_errors_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t n, const float *scale, const int32_t *zero, int m, double *err)
{
    plan p;
    if (!plan_init(&p, l, s)) return false;
    for (int first = 0; first < m; first += MAX_CANDIDATES) {
        candidates c = {.n = 0};
        double part[MAX_CANDIDATES];
        for (int i = first; i < m && c.n < MAX_CANDIDATES; i++) add_candidate(&p, &c, scale[i], zero ? zero[i] : 0);
        errors_of(&p, x, s->weight, n, &c, part);
        for (int i = 0; i < c.n; i++) err[first + i] += part[i];
    }
    return true;
}

static const qx_search_leaf *best_leaf(void) { return qx_search_leaf_cpu(qx_isa_best()); }

bool qx_search_rows(const qx_search *s, const float *x, int64_t rows, int64_t k, float *scale, int32_t *zero, double *err)
{
    return qx_search_rows_using(best_leaf(), s, x, rows, k, scale, zero, err);
}
bool qx_search_errors(const qx_search *s, const float *x, int64_t n, const float *scale, const int32_t *zero, int m, double *err)
{
    return qx_search_errors_using(best_leaf(), s, x, n, scale, zero, m, err);
}
void qx_nvfp4_search(const qx_nvfp4 *p, const float *x, int64_t rows, int64_t k, uint8_t *code, float *scale, double *err)
{
    qx_nvfp4_search_using(best_leaf(), p, x, rows, k, code, scale, err);
}
