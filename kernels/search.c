/* search.c - least-squares choice of scales per row or block. Sixteen blocks are searched at once, one a lane, so that making, rounding and
 * comparing candidates is as wide as the error sums, which are leaf loops.
 * Order of candidates is fixed and a later one must be strictly better, so results do not depend on anything but the numbers. */
#include "kernels/search.h"

#include <string.h>

#include "kernels/multi.h"
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

/* Candidates of sixteen blocks: rows of QX_LANES. */
typedef struct candidates {
    float scale[MAX_CANDIDATES * QX_LANES], inv[MAX_CANDIDATES * QX_LANES], lo[MAX_CANDIDATES * QX_LANES], hi[MAX_CANDIDATES * QX_LANES];
    int n;
} candidates;
typedef struct choice { float scale[QX_LANES], lo[QX_LANES]; double err[QX_LANES]; } choice; /* lo: lowest code minus zero point */

/* Where the sixteen blocks lie. Lanes without a block have n 0. */
typedef struct group { const float *x[QX_LANES], *w[QX_LANES]; int64_t n[QX_LANES], longest; bool weighted; float *tile, *wtile; int64_t loaded; } group;

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

/* ---- tiles: PIECE elements of sixteen blocks, turned so that a block is a lane ---- */

QX_INLINE void turn_body(const group *g, const float *const *from, int64_t at, int64_t m, float *restrict tile)
{
    for (int l = 0; l < QX_LANES; l++) {
        const int64_t have = g->n[l] - at, n = have < 0 ? 0 : have < m ? have : m;
        const float *restrict x = from[l] + at;
        for (int64_t i = 0; i < n; i++) tile[i * QX_LANES + l] = x[i];
        for (int64_t i = n; i < m; i++) tile[i * QX_LANES + l] = 0.0f;
    }
}
QX_MULTI(static, turn, (const group *g, const float *const *from, int64_t at, int64_t m, float *tile), (g, from, at, m, tile))

/* Blocks at equal distances, none too short: a plain transpose. */
static bool even_steps(const group *g, const float *const *from, int64_t end)
{
    for (int l = 0; l < QX_LANES; l++)
        if (g->n[l] < end || from[l] - from[0] != l * (from[1] - from[0]) || from[1] < from[0]) return false;
    return true;
}

static void load_tile(const group *g, const float *const *from, int64_t at, int64_t m, float *tile)
{
    if (even_steps(g, from, at + m)) (void)qx_transpose(4, QX_LANES, m, from[0] + at, from[1] - from[0], tile, QX_LANES);
    else turn(g, from, at, m, tile);
}

/* Elements [at, at + m) of all blocks; the tile of the only piece is kept. */
static int64_t load_piece(group *g, int64_t at)
{
    const int64_t m = g->longest - at < PIECE ? g->longest - at : PIECE;
    if (g->loaded != at) {
        load_tile(g, g->x, at, m, g->tile);
        if (g->weighted) load_tile(g, g->w, at, m, g->wtile);
        g->loaded = at;
    }
    return m;
}

static const float *weights_of(const group *g) { return g->weighted ? g->wtile : NULL; }

/* ---- candidates ---- */

QX_INLINE void finish_body(candidates *c, int first, int n, float hi_lo, const float *lo)
{
    for (int i = first * QX_LANES; i < (first + n) * QX_LANES; i++) {
        c->inv[i] = 1.0f / c->scale[i];
        c->lo[i] = lo[i - first * QX_LANES];
        c->hi[i] = c->lo[i] + hi_lo;
    }
}
/* Fills in inverses and limits of n candidates; lo[n][QX_LANES]. */
QX_MULTI(static, finish, (candidates *c, int first, int n, float hi_lo, const float *lo), (c, first, n, hi_lo, lo))

QX_INLINE void add_errors_body(const float *restrict part, int n, double *restrict err)
{
    for (int i = 0; i < n * QX_LANES; i++) err[i] += (double)part[i];
}
QX_MULTI(static, add_errors, (const float *part, int n, double *err), (part, n, err))

static void errors_of(const plan *p, group *g, const candidates *c, double *err)
{
    float part[MAX_CANDIDATES * QX_LANES];
    for (int i = 0; i < c->n * QX_LANES; i++) err[i] = 0;
    for (int64_t at = 0; at < g->longest; at += PIECE) {
        const int64_t m = load_piece(g, at);
        p->leaf->lanes.errors[p->kind](g->tile, weights_of(g), m, c->scale, c->inv, c->lo, c->hi, c->n, part);
        add_errors(part, c->n, err);
    }
}

QX_INLINE void take_best_body(const candidates *c, const double *err, choice *best)
{
    for (int i = 0; i < c->n; i++)
        for (int l = 0; l < QX_LANES; l++) {
            const int at = i * QX_LANES + l;
            const bool better = best->err[l] < 0 || err[at] < best->err[l];
            best->scale[l] = better ? c->scale[at] : best->scale[l];
            best->lo[l] = better ? c->lo[at] : best->lo[l];
            best->err[l] = better ? err[at] : best->err[l];
        }
}
QX_MULTI(static, take_best, (const candidates *c, const double *err, choice *best), (c, err, best))

/* The scale that minimises the error for the codes of the best so far, while it improves: cheap, and finer than any grid. */
static void refine(const plan *p, group *g, candidates *c, choice *best)
{
    double err[QX_LANES], num[QX_LANES], den[QX_LANES];
    float a[QX_LANES], b[QX_LANES], next[QX_LANES];
    for (int round = 0, moved = 1; round < MAX_REFINE && moved; round++) {
        memcpy(c->scale, best->scale, sizeof best->scale);
        finish(c, 0, 1, p->hi - p->lo, best->lo);
        for (int l = 0; l < QX_LANES; l++) num[l] = den[l] = 0;
        for (int64_t at = 0; at < g->longest; at += PIECE) {
            const int64_t m = load_piece(g, at);
            p->leaf->lanes.moments(g->tile, weights_of(g), m, c->inv, c->lo, c->hi, a, b);
            for (int l = 0; l < QX_LANES; l++) num[l] += (double)a[l], den[l] += (double)b[l];
        }
        for (int l = 0; l < QX_LANES; l++) next[l] = den[l] > 0 ? (float)(num[l] / den[l]) : best->scale[l];
        qx_scales_stored(&p->s->format, next, QX_LANES, NULL);
        memcpy(c->scale, next, sizeof next);
        finish(c, 0, 1, p->hi - p->lo, best->lo);
        c->n = 1;
        errors_of(p, g, c, err);
        moved = 0;
        for (int l = 0; l < QX_LANES; l++) {
            if (!(err[l] < best->err[l]) || (next[l] < 0) != (best->scale[l] < 0)) continue;
            best->scale[l] = next[l], best->err[l] = err[l];
            moved = 1;
        }
    }
}

static void symmetric(const plan *p, group *g, const float *least, const float *most, candidates *c, double *err, choice *best)
{
    const int bases = p->kind == QX_ROUND_INT && !p->s->format.narrow && p->lo < 0 ? 3 : 1;
    float lo[MAX_CANDIDATES * QX_LANES];
    c->n = bases * p->n_grid;
    for (int l = 0; l < QX_LANES; l++) {
        const float peak = most[l] >= -least[l] ? most[l] : least[l], amax = peak < 0 ? -peak : peak;
        const float base[3] = {amax / p->hi, amax / (p->hi + .5f), (p->s->format.negative ? peak : -amax) / p->lo};
        for (int j = 0; j < bases; j++)
            for (int i = 0; i < p->n_grid; i++) c->scale[(j * p->n_grid + i) * QX_LANES + l] = base[j] * p->grid[i];
    }
    for (int i = 0; i < c->n * QX_LANES; i++) lo[i] = p->lo;
    qx_scales_stored(&p->s->format, c->scale, (int64_t)c->n * QX_LANES, NULL);
    finish(c, 0, c->n, p->hi - p->lo, lo);
    errors_of(p, g, c, err);
    take_best(c, err, best);
    if (p->kind == QX_ROUND_INT) refine(p, g, c, best);
}

/* Each factor gives three candidates: the rounded zero point and its neighbours (clamped, so one may come twice). */
static void asymmetric(const plan *p, group *g, const float *least, const float *most, candidates *c, double *err, choice *best)
{
    float lo[MAX_CANDIDATES * QX_LANES], a[QX_LANES], b[QX_LANES];
    int32_t z[QX_LANES];
    c->n = 0;
    for (int i = 0; i < p->n_grid; i++) {
        float *s = c->scale + c->n * QX_LANES;
        for (int l = 0; l < QX_LANES; l++) a[l] = least[l] * p->grid[i], b[l] = most[l] * p->grid[i];
        qx_scale_from_range(&p->s->format, a, b, QX_LANES, s, z, NULL);
        for (int d = 0; d < 3; d++)
            for (int l = 0; l < QX_LANES; l++) {
                const float zero = (float)z[l] + (d == 1 ? -1.0f : d == 2 ? 1.0f : 0.0f);
                s[d * QX_LANES + l] = s[l];
                lo[(c->n + d) * QX_LANES + l] = p->lo - (zero < p->lo ? p->lo : zero > p->hi ? p->hi : zero);
            }
        c->n += 3;
    }
    finish(c, 0, c->n, p->hi - p->lo, lo);
    errors_of(p, g, c, err);
    take_best(c, err, best);
    refine(p, g, c, best);
}

static void search_group(const plan *p, group *g, choice *best)
{
    candidates c;
    double err[MAX_CANDIDATES * QX_LANES];
    float least[QX_LANES] = {0}, most[QX_LANES] = {0};
    for (int l = 0; l < QX_LANES; l++) best->scale[l] = 1, best->lo[l] = p->lo, best->err[l] = -1;
    for (int64_t at = 0; at < g->longest; at += PIECE) {
        const int64_t m = load_piece(g, at);
        p->leaf->lanes.range(g->tile, m, least, most);
    }
    if (p->s->zero_point) asymmetric(p, g, least, most, &c, err, best);
    else symmetric(p, g, least, most, &c, err, best);
    for (int l = 0; l < QX_LANES; l++) {
        if (least[l] != 0 || most[l] != 0) continue; /* nothing but zeros */
        best->scale[l] = p->s->format.scale == QX_DT_FLOAT8E8M0 ? 0x1p-127f : 1.0f;
        best->lo[l] = p->lo > 0 ? 0.0f : p->lo, best->err[l] = 0;
    }
}

/* Lanes for blocks first .. first + QX_LANES of `total`. */
static void place_group(const qx_search *s, const float *x, int64_t k, int64_t block, int64_t nb, int64_t first, int64_t total, group *g)
{
    g->longest = 0, g->loaded = -1, g->weighted = s->weight != NULL;
    for (int64_t l = 0; l < QX_LANES; l++) {
        const int64_t i = first + l < total ? first + l : first, at = i % nb * block, n = k - at < block ? k - at : block;
        g->x[l] = x + i / nb * k + at, g->w[l] = s->weight ? s->weight + at : NULL;
        g->n[l] = first + l < total ? n : 0;
        g->longest = g->n[l] > g->longest ? g->n[l] : g->longest;
    }
}

bool qx_search_rows_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t rows, int64_t k, float *scale, int32_t *zero, double *err)
{
    plan p;
    if (!plan_init(&p, l, s) || (s->zero_point && !zero)) return false;
    const int64_t block = s->block > 0 ? s->block : (k > 0 ? k : 1), nb = qx_cells_of(k, block), total = rows * nb;
    float tile[PIECE * QX_LANES], wtile[PIECE * QX_LANES];
    group g = {.tile = tile, .wtile = wtile};
    for (int64_t first = 0; first < total; first += QX_LANES) {
        choice best;
        place_group(s, x, k, block, nb, first, total, &g);
        search_group(&p, &g, &best);
        for (int64_t i = first; i < total && i < first + QX_LANES; i++) {
            scale[i] = best.scale[i - first];
            if (zero) zero[i] = (int32_t)(p.lo - best.lo[i - first]);
            if (err) err[i] = best.err[i - first];
        }
    }
    return true;
}

bool qx_search_errors_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t n, const float *scale, const int32_t *zero, int m, double *err)
{
    plan p;
    if (!plan_init(&p, l, s)) return false;
    for (int first = 0; first < m; first += MAX_GRID) {
        const int some = m - first < MAX_GRID ? m - first : MAX_GRID;
        float inv[MAX_GRID], lo[MAX_GRID], hi[MAX_GRID], part[MAX_GRID];
        for (int i = 0; i < some; i++) {
            const float z = zero ? (float)zero[first + i] : 0.0f;
            inv[i] = 1.0f / scale[first + i], lo[i] = p.lo - z, hi[i] = p.hi - z;
        }
        for (int64_t at = 0; at < n; at += PIECE) {
            const int64_t some_n = n - at < PIECE ? n - at : PIECE;
            l->errors[p.kind](x + at, s->weight ? s->weight + at : NULL, some_n, scale + first, inv, lo, hi, some, part);
            for (int i = 0; i < some; i++) err[first + i] += (double)part[i];
        }
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
