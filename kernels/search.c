/* search.c - least-squares choice of scales per row, column or block. Sixteen blocks are searched at once, one a lane, so that
 * making, rounding and comparing candidates is as wide as the sums, which are leaf loops.
 *
 * Integer codes: for given codes q the best scale is A / B with A = sum w x q, B = sum w q^2, and it leaves sum w x^2 - A^2 / B.
 * So a candidate is not judged by its own error but by A^2 / B: a coarse grid finds the codes, the division the scale. Codes of
 * up to four bits without weights are summed in 16-bit fixed point (x in units of the largest value / 1023), twice as many at a
 * time and free of rounding. There the rule's scale loses by those sums too; elsewhere, where noise is small beside them, by
 * errors in float. Order of candidates is fixed and a later one must be strictly better, so results do not depend on anything but
 * the numbers. */
#include "kernels/search.h"

#include <string.h>

#include "kernels/loops/multi.h"
#include "kernels/scalar.h"
#include "kernels/search_group.h"

enum { MAX_GRID = 40, MAX_CANDIDATES = 42 };

typedef struct plan {
    const qx_search_leaf *leaf;
    const qx_search *s;
    qx_grid_kind kind;
    float lo, hi;               /* of the codes */
    float grid[MAX_GRID];       /* factors of the scale, the first is 1 */
    int n_grid, rounds;         /* of least squares after the grid */
    bool fixed;                 /* sums in fixed point */
    bool wants_error;
    int n_symmetric;            /* candidates for a largest value of 1 */
    struct { float inv[MAX_CANDIDATES * QX_LANES], lo[MAX_CANDIDATES * QX_LANES], hi[MAX_CANDIDATES * QX_LANES]; } symmetric;
} plan;

/* Candidates of sixteen blocks: rows of QX_LANES. */
typedef struct candidates {
    float scale[MAX_CANDIDATES * QX_LANES], inv[MAX_CANDIDATES * QX_LANES], lo[MAX_CANDIDATES * QX_LANES], hi[MAX_CANDIDATES * QX_LANES];
    int n;
} candidates;
typedef struct choice { float scale[QX_LANES], lo[QX_LANES]; double err[QX_LANES]; } choice; /* lo: lowest code minus zero point */

static bool kind_of(qx_dtype codes, qx_grid_kind *k)
{
    switch ((int)codes) {
    case QX_DT_INT8: case QX_DT_UINT8: case QX_DT_INT16: case QX_DT_UINT16: case QX_DT_INT4: case QX_DT_UINT4:
    case QX_DT_INT2: case QX_DT_UINT2:
        *k = QX_ROUND_INT;
        return true;
    case QX_DT_FLOAT8E4M3FN: *k = QX_ROUND_E4M3; return true;
    case QX_DT_FLOAT8E5M2: *k = QX_ROUND_E5M2; return true;
    case QX_DT_FLOAT4E2M1: *k = QX_ROUND_E2M1; return true;
    default: return false;
    }
}

/* Few steps where least squares follows, an octave in fine ones for floats, the three exponents for E8M0. Short blocks clip less
 * and need the fewest; four bits without weights take no more in long ones, which leaves 1 to 2 % more error but clips less of
 * the large weights, and these count for more than their squares say. On Gaussian and heavy-tailed blocks the integers' grids
 * otherwise leave 0.3 to 0.6 % more error than any number of steps would (2 bits: 2 to 3 %). Columns of very unequal weight leave
 * the error to a few values, which any scale may suit: there more steps pay (docs/passes/int4.md). */
static void make_grid(plan *p)
{
    const qx_search *s = p->s;
    const int bits = qx_dtype_bits(s->format.codes);
    const bool exponents = s->format.scale == QX_DT_FLOAT8E8M0, ints = p->kind == QX_ROUND_INT, wide = bits >= 8,
        brief = s->block > 0 && s->block < 64;
    const int skip = s->coarse && ints ? 3 : 1;
    const float step = (wide ? .05f : bits == 4 ? .06f : .2f) * (float)skip;
    p->n_grid = exponents ? 3 : ints ? ((wide ? 14 : s->weight ? 8 : bits == 4 || brief ? 3 : 5) + skip - 1) / skip : wide ? 21 : 11;
    p->rounds = p->fixed || s->coarse ? 1 : 2;
    for (int i = 0; i < p->n_grid; i++) {
        if (exponents) p->grid[i] = i == 0 ? 1.0f : i == 1 ? .5f : 2.0f;
        else if (ints) p->grid[i] = 1.0f / (1.0f + step * (float)i);
        else p->grid[i] = 1.0f - .5f * (float)i / (float)(p->n_grid - 1);
    }
}

/* What all blocks have in common: the largest value on the highest code, or on the lowest where that is further out, which leaves
 * two for the highest (unless columns differ in weight). */
static void plan_symmetric(plan *p)
{
    const bool both = !p->s->format.narrow && p->lo < 0;
    const int high = both && !p->s->weight ? 2 : p->n_grid;
    p->n_symmetric = both ? high + p->n_grid : high;
    for (int i = 0; i < p->n_symmetric * QX_LANES; i++) {
        const int c = i / QX_LANES;
        p->symmetric.inv[i] = c < high ? p->hi / p->grid[c] : (p->s->format.negative ? p->lo : -p->lo) / p->grid[c - high];
        p->symmetric.lo[i] = p->lo, p->symmetric.hi[i] = p->hi;
    }
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

static void errors_of(const plan *p, qx_group *g, const candidates *c, double *err)
{
    float part[MAX_CANDIDATES * QX_LANES];
    for (int i = 0; i < c->n * QX_LANES; i++) err[i] = 0;
    for (int64_t at = 0; at < g->longest; at += QX_PIECE) {
        const int64_t m = qx_group_load(g, at);
        p->leaf->lanes.errors[p->kind](g->tile, g->ld, qx_group_weights(g), m, c->scale, c->inv, c->lo, c->hi, c->n, part);
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

/* The candidate scales, rounded as they are stored, by their errors. An only one is judged where its error is asked for. */
static void judge(const plan *p, qx_group *g, candidates *c, choice *best)
{
    double err[MAX_CANDIDATES * QX_LANES];
    qx_scales_stored(&p->s->format, c->scale, (int64_t)c->n * QX_LANES, NULL);
    if (c->n == 1 && !p->wants_error) {
        memcpy(best->scale, c->scale, sizeof best->scale), memcpy(best->lo, c->lo, sizeof best->lo);
        return;
    }
    finish(c, p->hi - p->lo);
    errors_of(p, g, c, err);
    take_best(c, err, best);
}

/* ---- integers: codes by a grid, scales by least squares ---- */

/* unit: what a lane's x is multiplied by before anything else, so that candidates are the same for all lanes; scales are in the
 * units of x so multiplied. */
/* rule_a, rule_b: A and B of the first candidate */
typedef struct fit { qx_fit best; float unit[QX_LANES], rule_a[QX_LANES], rule_b[QX_LANES]; } fit;

static void moments_fixed(const plan *p, qx_group *g, const qx_try *t, const fit *f, float *a, float *b)
{
    for (int64_t at = 0; at < g->longest; at += QX_PIECE) {
        const int64_t m = qx_group_load(g, at);
        if (g->fixed_loaded != at) p->leaf->lanes.to_fixed(g->tile, g->ld, m, f->unit, QX_FIXED_TOP, g->fixed), g->fixed_loaded = at;
        p->leaf->lanes.fixed(g->fixed, (m + 1) / 2, t, a, b);
    }
}

QX_INLINE void times_unit_body(const float *v, const float *restrict unit, int n, float *out)
{
    for (int i = 0; i < n; i++)
        for (int l = 0; l < QX_LANES; l++) out[i * QX_LANES + l] = v[i * QX_LANES + l] * unit[l];
}
QX_MULTI(static, times_unit, (const float *v, const float *unit, int n, float *out), (v, unit, n, out))

static void moments_float(const plan *p, qx_group *g, const qx_try *t, const fit *f, float *a, float *b)
{
    float inv[MAX_CANDIDATES * QX_LANES];
    const qx_try raw = {inv, t->lo, t->hi, t->m};
    times_unit(t->inv, f->unit, t->m, inv);
    for (int64_t at = 0; at < g->longest; at += QX_PIECE) {
        const int64_t m = qx_group_load(g, at);
        p->leaf->lanes.moments(g->tile, g->ld, qx_group_weights(g), m, &raw, a, b);
    }
    times_unit(a, f->unit, t->m, a);
}

static void try_codes(const plan *p, qx_group *g, const qx_try *t, fit *f, float *a, float *b)
{
    memset(a, 0, sizeof(float[QX_LANES]) * (size_t)t->m), memset(b, 0, sizeof(float[QX_LANES]) * (size_t)t->m);
    if (p->fixed) moments_fixed(p, g, t, f, a, b);
    else moments_float(p, g, t, f, a, b);
    p->leaf->lanes.take(t, a, b, &f->best);
}

QX_INLINE void start_body(const float *restrict rule, const float *restrict lo, fit *restrict f)
{
    for (int l = 0; l < QX_LANES; l++) f->best.scale[l] = rule[l] * f->unit[l], f->best.lo[l] = lo[l], f->best.gain[l] = 0.0f;
}
QX_MULTI(static, start, (const float *rule, const float *lo, fit *f), (rule, lo, f))

QX_INLINE void again_body(const qx_fit *restrict f, float top, float *restrict inv, float *restrict lo, float *restrict hi)
{
    for (int l = 0; l < QX_LANES; l++) inv[l] = 1.0f / f->scale[l], lo[l] = f->lo[l], hi[l] = f->lo[l] + top;
}
/* the best scale so far as the only candidate */
QX_MULTI(static, again, (const qx_fit *f, float top, float *inv, float *lo, float *hi), (f, top, inv, lo, hi))

QX_INLINE void finalists_body(const float *restrict rule, const float *restrict lo, const fit *restrict f, candidates *restrict c)
{
    for (int l = 0; l < QX_LANES; l++) {
        const float fitted = f->best.scale[l] / f->unit[l];
        c->scale[l] = rule[l], c->scale[QX_LANES + l] = f->best.gain[l] > 0 ? fitted : rule[l];
        c->lo[l] = lo[l], c->lo[QX_LANES + l] = f->best.lo[l];
    }
}
QX_MULTI(static, finalists, (const float *rule, const float *lo, const fit *f, candidates *c), (rule, lo, f, c))

/* The fitted scale where it gains more than the rule by the sums in fixed point, and by more than those may be off. */
QX_INLINE void better_body(const float *restrict rule, const float *restrict lo, const fit *restrict f, candidates *restrict c)
{
    for (int l = 0; l < QX_LANES; l++) {
        const float s = rule[l] * qx_of_bits(qx_bits_of(f->unit[l]) & 0x7fffffffu), plain = s * (2.0f * f->rule_a[l] - s * f->rule_b[l]);
        const float gain = f->best.gain[l], fitted = f->best.scale[l] / f->unit[l];
        const int better = gain - plain > 1e-4f * gain;
        c->scale[l] = better ? fitted : rule[l];
        c->lo[l] = better ? f->best.lo[l] : lo[l];
    }
}
QX_MULTI(static, better, (const float *rule, const float *lo, const fit *f, candidates *c), (rule, lo, f, c))

/* Grid, then the codes that the best scale so far makes. `rule` is the scale without a search, rule_lo its lowest code; the
 * better of the two as stored is chosen. f->unit is set; the first candidate is the rule's. */
static void fit_codes(const plan *p, qx_group *g, const qx_try *grid, const float *rule, const float *rule_lo, fit *f, candidates *c,
                      choice *best)
{
    float a[MAX_CANDIDATES * QX_LANES], b[MAX_CANDIDATES * QX_LANES], inv[QX_LANES], lo[QX_LANES], hi[QX_LANES];
    start(rule, rule_lo, f);
    try_codes(p, g, grid, f, a, b);
    memcpy(f->rule_a, a, sizeof f->rule_a), memcpy(f->rule_b, b, sizeof f->rule_b);
    for (int round = 0; round < p->rounds; round++) {
        again(&f->best, p->hi - p->lo, inv, lo, hi);
        try_codes(p, g, &(qx_try){inv, lo, hi, 1}, f, a, b);
    }
    if (p->fixed) better(rule, rule_lo, f, c), c->n = 1;
    else finalists(rule, rule_lo, f, c), c->n = 2;
    judge(p, g, c, best);
}

QX_INLINE void symmetric_rule_body(const float *restrict least, const float *restrict most, float top, int negative,
                                   float *restrict rule, float *restrict unit)
{
    for (int l = 0; l < QX_LANES; l++) {
        const float low = -least[l], amax = most[l] >= low ? most[l] : low, peak = ((negative != 0) & (most[l] < low)) ? -amax : amax,
            inv = 1.0f / peak;
        rule[l] = amax / top;
        unit[l] = amax > 1e-30f ? inv : 1.0f;
    }
}
QX_MULTI(static, symmetric_rule, (const float *least, const float *most, float top, int negative, float *rule, float *unit),
         (least, most, top, negative, rule, unit))

/* The largest value is made 1 where scales may be negative, +-1 elsewhere. */
static void symmetric_codes(const plan *p, qx_group *g, const float *least, const float *most, candidates *c, choice *best)
{
    float rule[QX_LANES];
    fit f;
    symmetric_rule(least, most, p->hi, p->s->format.negative, rule, f.unit);
    fit_codes(p, g, &(qx_try){p->symmetric.inv, p->symmetric.lo, p->symmetric.hi, p->n_symmetric}, rule, p->symmetric.lo, &f, c, best);
}

/* Each factor gives three candidates: the rounded zero point and its neighbours (clamped, so one may come twice). */
static void zero_codes(const plan *p, qx_group *g, const float *least, const float *most, candidates *c, choice *best)
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
    for (int i = 0; i < c->n * QX_LANES; i++) c->hi[i] = c->lo[i] + (p->hi - p->lo);
    fit_codes(p, g, &(qx_try){c->inv, c->lo, c->hi, c->n}, rule, rule_lo, &f, c, best);
}

/* ---- floats: the grid itself ---- */

static void float_codes(const plan *p, qx_group *g, const float *least, const float *most, candidates *c, choice *best)
{
    c->n = p->n_grid;
    for (int i = 0; i < c->n; i++)
        for (int l = 0; l < QX_LANES; l++) c->scale[i * QX_LANES + l] = (most[l] >= -least[l] ? most[l] : -least[l]) / p->hi * p->grid[i];
    for (int i = 0; i < c->n * QX_LANES; i++) c->lo[i] = p->lo;
    judge(p, g, c, best);
}

static void search_group(const plan *p, qx_group *g, choice *best)
{
    candidates c;
    float least[QX_LANES] = {0}, most[QX_LANES] = {0};
    for (int l = 0; l < QX_LANES; l++) best->scale[l] = 1, best->lo[l] = p->lo, best->err[l] = -1;
    for (int64_t at = 0; at < g->longest; at += QX_PIECE) {
        const int64_t m = qx_group_load(g, at);
        p->leaf->lanes.range(g->tile, g->ld, m, least, most);
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

bool qx_search_rows_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t rows, int64_t k, float *scale,
                          int32_t *zero, double *err)
{
    plan p;
    if (!plan_init(&p, l, s) || (s->zero_point && !zero)) return false;
    const qx_lay y = {rows, k, s->block > 0 ? s->block : (k > 0 ? k : 1), s->columns, s->weight};
    const int64_t total = rows * qx_lay_along(&y);
    qx_group g;
    p.wants_error = err != NULL;
    for (int64_t first = 0; first < total; first += QX_LANES) {
        choice best;
        qx_group_place(&g, &y, x, first);
        search_group(&p, &g, &best);
        for (int64_t i = first; i < total && i < first + QX_LANES; i++) {
            scale[i] = best.scale[i - first];
            if (zero) zero[i] = (int32_t)(p.lo - best.lo[i - first]);
            if (err) err[i] = best.err[i - first];
        }
    }
    return true;
}

bool qx_search_errors_using(const qx_search_leaf *l, const qx_search *s, const float *x, int64_t n, const float *scale,
                            const int32_t *zero, int m, double *err)
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
        for (int64_t at = 0; at < n; at += QX_PIECE) {
            const int64_t some_n = n - at < QX_PIECE ? n - at : QX_PIECE;
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
