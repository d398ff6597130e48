/* search.c - least-squares choice of scales per row, column or block. Sixteen blocks are searched at once, one a lane, so that making, rounding and
 * comparing candidates is as wide as the sums, which are leaf loops.
 *
 * Integer codes: for given codes q the best scale is A / B with A = sum w x q, B = sum w q^2, and it leaves sum w x^2 - A^2 / B. So a candidate is not
 * judged by its own error but by A^2 / B: a coarse grid finds the codes, the division the scale. Codes of up to four bits without weights are
 * summed in 16-bit fixed point (x in units of the largest value / 1023), twice as many at a time and free of rounding; the last word is an error in float.
 * Order of candidates is fixed and a later one must be strictly better, so results do not depend on anything but the numbers. */
#include "kernels/search.h"

#include <string.h>

#include "kernels/multi.h"
#include "kernels/scalar.h"
#include "kernels/search_leaf.h"

enum { PIECE = 256, MAX_GRID = 40, MAX_CANDIDATES = 42, FIXED_TOP = 1023 };

/* Multipliers and limits of candidates in fixed point, each value twice in a word. */
typedef struct packed { int32_t mul[MAX_CANDIDATES * QX_LANES], lo[MAX_CANDIDATES * QX_LANES], hi[MAX_CANDIDATES * QX_LANES]; } packed;

typedef struct plan {
    const qx_search_leaf *leaf;
    const qx_search *s;
    qx_grid_kind kind;
    float lo, hi;               /* of the codes */
    float grid[MAX_GRID];       /* factors of the scale, the first is 1 */
    int n_grid, rounds;         /* of least squares after the grid */
    bool fixed;                 /* sums in fixed point */
    int bases;                  /* symmetric: largest value on the highest code; and on the lowest */
    float inv[MAX_CANDIDATES * QX_LANES]; /* symmetric candidates: codes per unit of x for a largest value of 1; rows of QX_LANES */
    packed symmetric;           /* the same in fixed point */
} plan;

/* Candidates of sixteen blocks: rows of QX_LANES. */
typedef struct candidates {
    float scale[MAX_CANDIDATES * QX_LANES], inv[MAX_CANDIDATES * QX_LANES], lo[MAX_CANDIDATES * QX_LANES], hi[MAX_CANDIDATES * QX_LANES];
    int n;
} candidates;
typedef struct choice { float scale[QX_LANES], lo[QX_LANES]; double err[QX_LANES]; } choice; /* lo: lowest code minus zero point */

/* Where the sixteen blocks lie: element i of a lane at x[lane][i * step]. Lanes without a block have n 0. */
typedef struct group {
    const float *x[QX_LANES], *w[QX_LANES];
    int64_t n[QX_LANES], longest, step;
    bool weighted;
    float *tile, *wtile;
    int64_t loaded;
    int32_t *fixed; int64_t fixed_loaded; /* the same piece in fixed point, two elements a word */
} group;

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

/* Few and wide steps where least squares follows, an octave in fine ones for floats, the three exponents for E8M0. Short blocks, where everything but
 * the sums weighs most, have the fewest: 0.5 % more error than with any number. */
static void make_grid(plan *p)
{
    const qx_search *s = p->s;
    const bool exponents = s->format.scale == QX_DT_FLOAT8E8M0, ints = p->kind == QX_ROUND_INT, wide = qx_dtype_bits(s->format.codes) >= 8;
    const bool fine = !p->fixed || s->block <= 0 || s->block >= 64;
    const float step = wide ? .05f : fine ? .08f : .1f;
    p->n_grid = exponents ? 3 : ints ? (wide ? 14 : fine ? 6 : 4) : wide ? 21 : 11;
    p->rounds = p->fixed ? 1 : 2;
    for (int i = 0; i < p->n_grid; i++) {
        if (exponents) p->grid[i] = i == 0 ? 1.0f : i == 1 ? .5f : 2.0f;
        else if (ints) p->grid[i] = 1.0f / (1.0f + step * (float)i);
        else p->grid[i] = 1.0f - .5f * (float)i / (float)(p->n_grid - 1);
    }
}

QX_INLINE void pairs_body(const float *restrict v, float factor, int n, int32_t *restrict out)
{
    for (int i = 0; i < n * QX_LANES; i++) {
        const float f = v[i] * factor, g = f < -32767.0f ? -32767.0f : f > 32767.0f ? 32767.0f : f;
        const uint32_t half = qx_bits_of(g + 0x1.8p23f) & 0xffffu;
        out[i] = (int32_t)(half | half << 16);
    }
}
QX_MULTI(static, pairs, (const float *v, float factor, int n, int32_t *out), (v, factor, n, out)) /* rounded, twice in a word */

static void pack_candidates(int n, const float *inv, const float *lo, const float *hi, packed *k)
{
    pairs(inv, 32768.0f / (float)FIXED_TOP, n, k->mul);
    pairs(lo, 1, n, k->lo);
    pairs(hi, 1, n, k->hi);
}

/* What all blocks have in common: the largest value on the highest code, or on the lowest. */
static void plan_symmetric(plan *p)
{
    float lo[MAX_CANDIDATES * QX_LANES], hi[MAX_CANDIDATES * QX_LANES];
    p->bases = !p->s->format.narrow && p->lo < 0 ? 2 : 1;
    const int n = p->bases * p->n_grid;
    for (int i = 0; i < n * QX_LANES; i++) {
        const int c = i / QX_LANES;
        p->inv[i] = (c < p->n_grid ? p->hi : p->s->format.negative ? p->lo : -p->lo) / p->grid[c % p->n_grid];
        lo[i] = p->lo, hi[i] = p->hi;
    }
    if (p->fixed) pack_candidates(n, p->inv, lo, hi, &p->symmetric);
}

static bool plan_init(plan *p, const qx_search_leaf *l, const qx_search *s)
{
    p->leaf = l, p->s = s;
    if (!kind_of(s->format.codes, &p->kind) || !qx_format_range(&s->format, &p->lo, &p->hi)) return false;
    if (s->zero_point && p->kind != QX_ROUND_INT) return false;
    p->fixed = p->kind == QX_ROUND_INT && qx_dtype_bits(s->format.codes) <= 4 && !s->weight;
    make_grid(p);
    if (p->kind == QX_ROUND_INT && !s->zero_point) plan_symmetric(p);
    return true;
}

/* ---- tiles: PIECE elements of sixteen blocks, turned so that a block is a lane ---- */

QX_INLINE void turn_body(const group *g, const float *const *from, int64_t step, int64_t at, int64_t m, float *restrict tile)
{
    for (int l = 0; l < QX_LANES; l++) {
        const int64_t have = g->n[l] - at, n = have < 0 ? 0 : have < m ? have : m;
        const float *restrict x = from[l] + at * step;
        for (int64_t i = 0; i < n; i++) tile[i * QX_LANES + l] = x[i * step];
        for (int64_t i = n; i < m; i++) tile[i * QX_LANES + l] = 0.0f;
    }
}
QX_MULTI(static, turn, (const group *g, const float *const *from, int64_t step, int64_t at, int64_t m, float *tile), (g, from, step, at, m, tile))

/* Blocks at equal distances, none too short. */
static bool even_steps(const group *g, const float *const *from, int64_t end)
{
    for (int l = 0; l < QX_LANES; l++)
        if (g->n[l] < end || from[l] - from[0] != l * (from[1] - from[0]) || from[1] < from[0]) return false;
    return true;
}

static void load_tile(const group *g, const float *const *from, int64_t step, int64_t at, int64_t m, float *tile)
{
    if (!even_steps(g, from, at + m)) turn(g, from, step, at, m, tile);
    else if (step == 1) (void)qx_transpose(4, QX_LANES, m, from[0] + at, from[1] - from[0], tile, QX_LANES);
    else if (from[1] - from[0] == 1) for (int64_t i = 0; i < m; i++) memcpy(tile + i * QX_LANES, from[0] + (at + i) * step, sizeof(float[QX_LANES]));
    else turn(g, from, step, at, m, tile);
}

/* Elements [at, at + m) of all blocks; the tile of the only piece is kept. */
static int64_t load_piece(group *g, int64_t at)
{
    const int64_t m = g->longest - at < PIECE ? g->longest - at : PIECE;
    if (g->loaded != at) {
        load_tile(g, g->x, g->step, at, m, g->tile);
        if (g->weighted) load_tile(g, g->w, 1, at, m, g->wtile);
        g->loaded = at;
    }
    return m;
}

static const float *weights_of(const group *g) { return g->weighted ? g->wtile : NULL; }

/* ---- errors of candidates ---- */

QX_INLINE void finish_body(candidates *c, float hi_lo)
{
    for (int i = 0; i < c->n * QX_LANES; i++) {
        c->inv[i] = 1.0f / c->scale[i];
        c->hi[i] = c->lo[i] + hi_lo;
    }
}
QX_MULTI(static, finish, (candidates *c, float hi_lo), (c, hi_lo)) /* inverses and upper limits */

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

/* The candidate scales, rounded as they are stored, by their errors. */
static void judge(const plan *p, group *g, candidates *c, choice *best)
{
    double err[MAX_CANDIDATES * QX_LANES];
    qx_scales_stored(&p->s->format, c->scale, (int64_t)c->n * QX_LANES, NULL);
    finish(c, p->hi - p->lo);
    errors_of(p, g, c, err);
    take_best(c, err, best);
}

/* ---- integers: codes by a grid, scales by least squares ---- */

/* unit: what a lane's x is multiplied by before anything else, so that candidates are the same for all lanes; scale: in the units of x so multiplied. */
typedef struct fit { float scale[QX_LANES], lo[QX_LANES], gain[QX_LANES], unit[QX_LANES]; } fit; /* gain: A^2 / B */

QX_INLINE void to_fixed_body(const float *restrict x, int64_t m, const float *restrict unit, int32_t *restrict out)
{
    const float magic = 0x1.8p23f; /* rounds into the low bits */
    for (int64_t i = 0; i < m; i += 2)
        for (int l = 0; l < QX_LANES; l++) {
            const float top = (float)FIXED_TOP * unit[l], a = x[i * QX_LANES + l] * top, b = x[(i + 1) * QX_LANES + l] * top;
            out[i / 2 * QX_LANES + l] = (int32_t)((qx_bits_of(a + magic) & 0xffffu) | qx_bits_of(b + magic) << 16);
        }
}
QX_MULTI(static, to_fixed, (const float *x, int64_t m, const float *unit, int32_t *out), (x, m, unit, out))

static void load_fixed(group *g, int64_t at, int64_t m, const float *unit)
{
    if (g->fixed_loaded == at) return;
    if (m % 2) memset(g->tile + m * QX_LANES, 0, sizeof(float[QX_LANES]));
    to_fixed(g->tile, m, unit, g->fixed);
    g->fixed_loaded = at;
}

QX_INLINE void add_ints_body(const int32_t *restrict part, int n, float *restrict sum)
{
    for (int i = 0; i < n * QX_LANES; i++) sum[i] += (float)part[i];
}
QX_MULTI(static, add_ints, (const int32_t *part, int n, float *sum), (part, n, sum))

QX_INLINE void add_floats_body(const float *restrict part, int n, float *restrict sum)
{
    for (int i = 0; i < n * QX_LANES; i++) sum[i] += part[i];
}
QX_MULTI(static, add_floats, (const float *part, int n, float *sum), (part, n, sum))

/* A and B of every candidate, x in its unit; in fixed point A is FIXED_TOP times too large. */
static void moments_fixed(const plan *p, group *g, const packed *k, int n, const fit *f, float *a, float *b)
{
    int32_t pa[MAX_CANDIDATES * QX_LANES], pb[MAX_CANDIDATES * QX_LANES];
    for (int64_t at = 0; at < g->longest; at += PIECE) {
        const int64_t m = load_piece(g, at);
        load_fixed(g, at, m, f->unit);
        p->leaf->lanes.fixed(g->fixed, (m + 1) / 2, k->mul, k->lo, k->hi, n, pa, pb);
        add_ints(pa, n, a);
        add_ints(pb, n, b);
    }
}

QX_INLINE void times_unit_body(const float *v, const float *restrict unit, int n, float *out)
{
    for (int i = 0; i < n; i++)
        for (int l = 0; l < QX_LANES; l++) out[i * QX_LANES + l] = v[i * QX_LANES + l] * unit[l];
}
QX_MULTI(static, times_unit, (const float *v, const float *unit, int n, float *out), (v, unit, n, out))

static void moments_float(const plan *p, group *g, const candidates *c, const fit *f, float *a, float *b)
{
    float pa[MAX_CANDIDATES * QX_LANES], pb[MAX_CANDIDATES * QX_LANES], inv[MAX_CANDIDATES * QX_LANES];
    times_unit(c->inv, f->unit, c->n, inv);
    for (int64_t at = 0; at < g->longest; at += PIECE) {
        const int64_t m = load_piece(g, at);
        p->leaf->lanes.moments(g->tile, weights_of(g), m, inv, c->lo, c->hi, c->n, pa, pb);
        times_unit(pa, f->unit, c->n, pa);
        add_floats(pa, c->n, a);
        add_floats(pb, c->n, b);
    }
}

QX_INLINE void take_fit_body(const candidates *c, const float *restrict a, const float *restrict b, float per_a, fit *f)
{
    for (int i = 0; i < c->n; i++)
        for (int l = 0; l < QX_LANES; l++) {
            const int at = i * QX_LANES + l;
            const float up = a[at] * per_a, slope = up / b[at], gain = up * slope;
            const int better = (b[at] > 0.0f) & (gain > f->gain[l]) & ((slope > 0.0f) == (c->inv[at] > 0.0f));
            f->scale[l] = better ? slope : f->scale[l];
            f->lo[l] = better ? c->lo[at] : f->lo[l];
            f->gain[l] = better ? gain : f->gain[l];
        }
}
QX_MULTI(static, take_fit, (const candidates *c, const float *a, const float *b, float per_a, fit *f), (c, a, b, per_a, f))

/* Candidates have inv and lo; `ready` when they are packed already. */
static void try_codes(const plan *p, group *g, candidates *c, const packed *ready, fit *f)
{
    float a[MAX_CANDIDATES * QX_LANES], b[MAX_CANDIDATES * QX_LANES];
    packed own;
    for (int i = 0; i < c->n * QX_LANES; i++) c->hi[i] = c->lo[i] + (p->hi - p->lo), a[i] = b[i] = 0;
    if (p->fixed && !ready) pack_candidates(c->n, c->inv, c->lo, c->hi, &own);
    if (p->fixed) moments_fixed(p, g, ready ? ready : &own, c->n, f, a, b);
    else moments_float(p, g, c, f, a, b);
    take_fit(c, a, b, p->fixed ? 1.0f / (float)FIXED_TOP : 1.0f, f);
}

QX_INLINE void start_body(const float *restrict rule, const float *restrict lo, fit *restrict f)
{
    for (int l = 0; l < QX_LANES; l++) f->scale[l] = rule[l] * f->unit[l], f->lo[l] = lo[l], f->gain[l] = 0.0f;
}
QX_MULTI(static, start, (const float *rule, const float *lo, fit *f), (rule, lo, f))

QX_INLINE void again_body(const fit *restrict f, candidates *restrict c)
{
    for (int l = 0; l < QX_LANES; l++) c->inv[l] = 1.0f / f->scale[l], c->lo[l] = f->lo[l];
}
QX_MULTI(static, again, (const fit *f, candidates *c), (f, c)) /* the best scale so far as the only candidate */

QX_INLINE void finalists_body(const float *restrict rule, const float *restrict lo, const fit *restrict f, candidates *restrict c)
{
    for (int l = 0; l < QX_LANES; l++) {
        const float fitted = f->scale[l] / f->unit[l];
        c->scale[l] = rule[l], c->scale[QX_LANES + l] = f->gain[l] > 0 ? fitted : rule[l];
        c->lo[l] = lo[l], c->lo[QX_LANES + l] = f->lo[l];
    }
}
QX_MULTI(static, finalists, (const float *rule, const float *lo, const fit *f, candidates *c), (rule, lo, f, c))

/* Grid, then the codes that the best scale so far makes. `rule` is the scale without a search, rule_lo its lowest code; the better of the two as
 * stored is chosen. f->unit is set. */
static void fit_codes(const plan *p, group *g, candidates *c, const float *rule, const float *rule_lo, fit *f, choice *best)
{
    start(rule, rule_lo, f);
    try_codes(p, g, c, p->s->zero_point ? NULL : &p->symmetric, f);
    c->n = 1;
    for (int round = 0; round < p->rounds; round++) {
        again(f, c);
        try_codes(p, g, c, NULL, f);
    }
    finalists(rule, rule_lo, f, c);
    c->n = 2;
    judge(p, g, c, best);
}

QX_INLINE void symmetric_rule_body(const float *restrict least, const float *restrict most, float top, int negative, float *restrict rule, float *restrict unit)
{
    for (int l = 0; l < QX_LANES; l++) {
        const float low = -least[l], amax = most[l] >= low ? most[l] : low, peak = ((negative != 0) & (most[l] < low)) ? -amax : amax, inv = 1.0f / peak;
        rule[l] = amax / top;
        unit[l] = amax > 1e-30f ? inv : 1.0f;
    }
}
QX_MULTI(static, symmetric_rule, (const float *least, const float *most, float top, int negative, float *rule, float *unit), (least, most, top, negative, rule, unit))

/* The largest value is made 1 where scales may be negative, +-1 elsewhere. */
static void symmetric_codes(const plan *p, group *g, const float *least, const float *most, candidates *c, choice *best)
{
    float rule[QX_LANES], lo[QX_LANES];
    fit f;
    symmetric_rule(least, most, p->hi, p->s->format.negative, rule, f.unit);
    for (int l = 0; l < QX_LANES; l++) lo[l] = p->lo;
    c->n = p->bases * p->n_grid;
    memcpy(c->inv, p->inv, sizeof(float[QX_LANES]) * (size_t)c->n);
    for (int i = 0; i < c->n * QX_LANES; i++) c->lo[i] = p->lo;
    fit_codes(p, g, c, rule, lo, &f, best);
}

/* Each factor gives three candidates: the rounded zero point and its neighbours (clamped, so one may come twice). */
static void zero_codes(const plan *p, group *g, const float *least, const float *most, candidates *c, choice *best)
{
    float rule[QX_LANES], rule_lo[QX_LANES], a[QX_LANES], b[QX_LANES], s[QX_LANES];
    int32_t z[QX_LANES];
    fit f;
    for (int l = 0; l < QX_LANES; l++) {
        const float amax = most[l] >= -least[l] ? most[l] : -least[l];
        f.unit[l] = amax > 1e-30f ? 1.0f / amax : 1.0f;
    }
    c->n = 3 * p->n_grid;
    for (int i = 0; i < p->n_grid; i++) {
        for (int l = 0; l < QX_LANES; l++) a[l] = least[l] * p->grid[i], b[l] = most[l] * p->grid[i];
        qx_scale_from_range(&p->s->format, a, b, QX_LANES, s, z, NULL);
        for (int d = 0; d < 3; d++)
            for (int l = 0; l < QX_LANES; l++) {
                const float zero = (float)z[l] + (d == 1 ? -1.0f : d == 2 ? 1.0f : 0.0f);
                c->inv[(3 * i + d) * QX_LANES + l] = 1.0f / (s[l] * f.unit[l]);
                c->lo[(3 * i + d) * QX_LANES + l] = p->lo - (zero < p->lo ? p->lo : zero > p->hi ? p->hi : zero);
            }
        for (int l = 0; l < QX_LANES && i == 0; l++) rule[l] = s[l], rule_lo[l] = p->lo - (float)z[l];
    }
    fit_codes(p, g, c, rule, rule_lo, &f, best);
}

/* ---- floats: the grid itself ---- */

static void float_codes(const plan *p, group *g, const float *least, const float *most, candidates *c, choice *best)
{
    c->n = p->n_grid;
    for (int i = 0; i < c->n; i++)
        for (int l = 0; l < QX_LANES; l++) c->scale[i * QX_LANES + l] = (most[l] >= -least[l] ? most[l] : -least[l]) / p->hi * p->grid[i];
    for (int i = 0; i < c->n * QX_LANES; i++) c->lo[i] = p->lo;
    judge(p, g, c, best);
}

static void search_group(const plan *p, group *g, choice *best)
{
    candidates c;
    float least[QX_LANES] = {0}, most[QX_LANES] = {0};
    for (int l = 0; l < QX_LANES; l++) best->scale[l] = 1, best->lo[l] = p->lo, best->err[l] = -1;
    for (int64_t at = 0; at < g->longest; at += PIECE) {
        const int64_t m = load_piece(g, at);
        p->leaf->lanes.range(g->tile, m, least, most);
    }
    if (p->kind != QX_ROUND_INT) float_codes(p, g, least, most, &c, best);
    else if (p->s->zero_point) zero_codes(p, g, least, most, &c, best);
    else symmetric_codes(p, g, least, most, &c, best);
    const float none = p->s->format.scale == QX_DT_FLOAT8E8M0 ? 0x1p-127f : 1.0f;
    for (int l = 0; l < QX_LANES; l++) {
        if (least[l] != 0 || most[l] != 0) continue; /* nothing but zeros */
        best->scale[l] = none, best->lo[l] = p->lo > 0 ? 0.0f : p->lo, best->err[l] = 0;
    }
}

/* How blocks lie: `along` of them follow each other along k in each of `rows` channels; x(row, j) at row * row_step + j * step. */
typedef struct lay { int64_t rows, k, block, along, row_step, step; } lay;

/* Blocks first .. first + QX_LANES of the output: [rows][along], or [along][rows] by columns. */
static void place_group(const qx_search *s, const float *x, const lay *y, int64_t first, group *g)
{
    const int64_t total = y->rows * y->along, fast_end = s->columns ? y->rows : y->along;
    int64_t fast = first % fast_end, slow = first / fast_end;
    g->longest = 0, g->loaded = -1, g->fixed_loaded = -1, g->weighted = s->weight != NULL, g->step = y->step;
    for (int64_t l = 0; l < QX_LANES; l++) {
        const int64_t row = s->columns ? fast : slow, at = (s->columns ? slow : fast) * y->block, n = y->k - at < y->block ? y->k - at : y->block;
        const bool there = first + l < total;
        g->x[l] = there ? x + row * y->row_step + at * y->step : g->x[0], g->w[l] = !s->weight ? NULL : there ? s->weight + at : g->w[0];
        g->n[l] = there ? n : 0;
        g->longest = g->n[l] > g->longest ? g->n[l] : g->longest;
        if (++fast == fast_end) fast = 0, slow++;
    }
}

bool qx_search_rows_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t rows, int64_t k, float *scale, int32_t *zero, double *err)
{
    plan p;
    if (!plan_init(&p, l, s) || (s->zero_point && !zero)) return false;
    const int64_t block = s->block > 0 ? s->block : (k > 0 ? k : 1);
    const lay y = {rows, k, block, qx_cells_of(k, block), s->columns ? 1 : k, s->columns ? rows : 1};
    float tile[(PIECE + 1) * QX_LANES], wtile[PIECE * QX_LANES];
    int32_t fixed[(PIECE + 1) / 2 * QX_LANES];
    group g = {.tile = tile, .wtile = wtile, .fixed = fixed};
    for (int64_t first = 0; first < rows * y.along; first += QX_LANES) {
        choice best;
        place_group(s, x, &y, first, &g);
        search_group(&p, &g, &best);
        for (int64_t i = first; i < rows * y.along && i < first + QX_LANES; i++) {
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
