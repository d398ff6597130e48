/* solve_refine.c - coordinate descent on rows under tr(dW H dW'), on a grid or (pruning) on which two of four weights are kept
 * and what they are.
 *
 * With d = w0 - w and g = H d, changing columns S of a row by x changes its error by -2 x'g_S + x'H_SS x: every step picks the
 * best x, so the error never grows. The tile is turned as in GPTQ: steps run over rows; inside a panel g is brought up to date
 * four columns at a time, behind it one product updates all of g that will be looked at again. Between sweeps a scale is one more
 * coordinate: along w_b, the weights of its block, the least error lies at w_b'g / (w_b' H w_b). What every step gains is added
 * up; a row that gained no more than rounding may have made up is put back. */
#include <string.h>

#include "kernels/loops/multi.h"
#include "kernels/scalar.h"
#include "kernels/solve/solve.h"
#include "kernels/solve/solve_columns.h"

enum { PANEL = QX_COLUMNS_PANEL, FOUR = QX_COLUMNS_FOUR };

typedef struct tile {
    const qx_refine *r;
    int64_t k, block, blocks, rows, wide;
    float lo, hi;
    float *w, *g, *v;  /* [k][wide] turned; v: d at first, then H w_b of a block whose scale is looked at */
    float *e;          /* [PANEL][wide] how far the panel's weights have moved */
    float *near;       /* [FOUR][wide] g of the columns at hand */
    float *s, *z, *keep, *by; /* [wide]; by: share that a scale grows by */
    double *before, *gain, *slope, *bend; /* [wide] */
    float *start;      /* [rows][k] */
    float *start_scale; /* [rows][blocks] */
} tile;

static const double least_gain = 1e-5; /* of a row's error: g is a sum of floats */

static int64_t block_of(const qx_refine *r) { return r->block > 0 ? r->block : r->k > 0 ? r->k : 1; }

size_t qx_refine_scratch(const qx_refine *r, int64_t rows)
{
    const size_t wide = (size_t)qx_columns_padded(rows), k = (size_t)r->k;
    return sizeof(float) * (3 * k * wide + (PANEL + FOUR + 4) * wide + 2 * k * (size_t)rows) + 4 * sizeof(double) * wide;
}

static void lay_out(tile *t, double *sums)
{
    float *p = (float *)(void *)(sums + 4 * t->wide);
    t->before = sums, t->gain = sums + t->wide, t->slope = sums + 2 * t->wide, t->bend = sums + 3 * t->wide;
    t->w = p, p += t->k * t->wide;
    t->g = p, p += t->k * t->wide;
    t->v = p, p += t->k * t->wide;
    t->e = p, p += PANEL * t->wide;
    t->near = p, p += FOUR * t->wide;
    t->s = p, p += t->wide;
    t->z = p, p += t->wide;
    t->keep = p, p += t->wide;
    t->by = p, p += t->wide;
    t->start = p, p += t->rows * t->k;
    t->start_scale = p;
}

static void product(const tile *t, const qx_matmul *p) { (t->r->mm ? t->r->mm : qx_matmul_f32)(t->r->user, p); }

/* ---- one column ---- */

/* w goes to the grid value nearest w + g / h where that lessens the error; e = how far it moved. */
#define STEP_LOOP(name, q_expr)                                                                                                             \
    QX_INLINE void name##_body(int64_t n, float *restrict w, const float *restrict g, const float *restrict s, const float *restrict z,     \
                               const float *restrict keep, float lo, float hi, float h, float *restrict e, double *restrict gain)           \
    {                                                                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                                                   \
            const float to = w[i] + g[i] / h, y = to / s[i], a = lo - z[i], b = hi - z[i], delta = ((q_expr) - w[i]) * keep[i];             \
            const float less = delta * (2.0f * g[i] - delta * h), move = less > 0.0f ? delta : 0.0f;                                        \
            e[i] = move;                                                                                                                    \
            gain[i] += (double)(less > 0.0f ? less : 0.0f);                                                                                 \
            w[i] = move != 0.0f ? (q_expr) : w[i];                                                                                          \
            (void)y, (void)a, (void)b;                                                                                                      \
        }                                                                                                                                   \
    }                                                                                                                                       \
    QX_MULTI(static, name, (int64_t n, float *w, const float *g, const float *s, const float *z, const float *keep, float lo, float hi, float h, float *e, double *gain), \
             (n, w, g, s, z, keep, lo, hi, h, e, gain))
STEP_LOOP(step_none, to)
STEP_LOOP(step_int, qx_rne_clamp(y, a, b) * s[i])
STEP_LOOP(step_e4m3, qx_mini_round(y, 3, 7, 448.0f) * s[i])
STEP_LOOP(step_e5m2, qx_mini_round(y, 2, 15, 57344.0f) * s[i])
STEP_LOOP(step_e2m1, qx_mini_round(y, 1, 1, 6.0f) * s[i])

static void use_scale(const tile *t, int64_t column)
{
    const qx_refine *r = t->r;
    for (int64_t i = 0; i < t->wide; i++) {
        const int64_t row = i < t->rows ? i : 0, at = row * t->blocks + column / t->block;
        t->s[i] = r->scale ? r->scale[at] : 1.0f;
        t->z[i] = r->zero ? (float)r->zero[at] : 0.0f;
        t->keep[i] = i < t->rows && (!r->mask || r->mask[row * t->k + column]) ? 1.0f : 0.0f;
    }
}

static void step_column(const tile *t, int64_t j, const float *g, float *e)
{
    float *w = t->w + j * t->wide;
    const float h = t->r->h[j * t->k + j];
    if (!(h > 0)) {
        memset(e, 0, sizeof *e * (size_t)t->wide);
        return;
    }
    use_scale(t, j);
    switch ((int)t->r->format.codes) {
    case QX_DT_FLOAT: step_none(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e, t->gain); break;
    case QX_DT_FLOAT8E4M3FN: step_e4m3(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e, t->gain); break;
    case QX_DT_FLOAT8E5M2: step_e5m2(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e, t->gain); break;
    case QX_DT_FLOAT4E2M1: step_e2m1(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e, t->gain); break;
    default: step_int(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e, t->gain); break;
    }
}

/* ---- two of four ---- */

/* h[4][4]; w, g, e [4][wide]. Weights c and d become 0, a and b go where they are best then; the pair whose error is least is
 * kept. The pair that is there is among the six, and better than it is now. */
QX_INLINE void swap_four_body(int64_t wide, const float *restrict h, float *restrict w, const float *restrict g, float *restrict e,
                              double *restrict gain)
{
    static const int pairs[6][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 3, 1, 2}, {1, 2, 0, 3}, {1, 3, 0, 2}, {2, 3, 0, 1}};
    for (int64_t i = 0; i < wide; i++) {
        float least = 0.0f, move[FOUR] = {0, 0, 0, 0};
        for (int p = 0; p < 6; p++) {
            const int a = pairs[p][0], b = pairs[p][1], c = pairs[p][2], d = pairs[p][3];
            const float xc = -w[c * wide + i], xd = -w[d * wide + i], haa = h[a * 5], hbb = h[b * 5], hab = h[a * FOUR + b];
            const float ra = g[a * wide + i] - h[a * FOUR + c] * xc - h[a * FOUR + d] * xd,
                rb = g[b * wide + i] - h[b * FOUR + c] * xc - h[b * FOUR + d] * xd;
            const float det = haa * hbb - hab * hab;
            const bool apart = det > 1e-4f * haa * hbb; /* else the two are nearly the same input: one of them moves */
            const float xa = apart ? (hbb * ra - hab * rb) / det : haa > 0 ? ra / haa : 0.0f,
                xb = apart ? (haa * rb - hab * ra) / det : 0.0f;
            const float cost = xc * (h[c * 5] * xc - 2.0f * g[c * wide + i]) + xd * (h[d * 5] * xd - 2.0f * g[d * wide +
                i]) + 2.0f * h[c * FOUR + d] * xc * xd
                               - 2.0f * (ra * xa + rb * xb) + haa * xa * xa + hbb * xb * xb + 2.0f * hab * xa * xb;
            const bool take = cost < least;
            least = take ? cost : least;
            move[a] = take ? xa : move[a];
            move[b] = take ? xb : move[b];
            move[c] = take ? xc : move[c];
            move[d] = take ? xd : move[d];
        }
        gain[i] -= (double)least;
        for (int c = 0; c < FOUR; c++) {
            e[c * wide + i] = move[c];
            w[c * wide + i] = move[c] == -w[c * wide + i] ? 0.0f : w[c * wide + i] + move[c];
        }
    }
}
QX_MULTI(static, swap_four, (int64_t wide, const float *h, float *w, const float *g, float *e, double *gain), (wide, h, w, g, e, gain))

static void step_swap(const tile *t, int64_t j, const float *g, float *e)
{
    float h[FOUR * FOUR];
    for (int a = 0; a < FOUR; a++)
        for (int b = 0; b < FOUR; b++) h[a * FOUR + b] = t->r->h[(j + a) * t->k + j + b];
    swap_four(t->wide, h, t->w + j * t->wide, g, e, t->gain);
}

/* ---- the walk ---- */

static void step_columns(const tile *t, int64_t j, int64_t n, float *e)
{
    for (int64_t c = 0; c < n; c++) {
        step_column(t, j + c, t->near + c * t->wide, e + c * t->wide);
        for (int64_t d = c + 1; d < n; d++)
            qx_columns_push(t->wide, t->r->h[(j + c) * t->k + j + d], e + c * t->wide, t->near + d * t->wide);
    }
}

/* Whether a weight of the panel moved. last: what lies in front of the panel will not be looked at again. */
static bool sweep_panel(const tile *t, int64_t first, int64_t n, bool last)
{
    const int64_t k = t->k, wide = t->wide, from = last ? first + n : 0;
    for (int64_t j = first; j < first + n; j += FOUR) {
        const int64_t columns = first + n - j < FOUR ? first + n - j : FOUR;
        float *e = t->e + (j - first) * wide;
        memcpy(t->near, t->g + j * wide, sizeof *t->g * (size_t)(columns * wide));
        qx_columns_pull(wide, j - first, (int)columns, t->r->h + first * k + j, k, t->e, t->near);
        if (t->r->prune_2_4 && columns == FOUR) step_swap(t, j, t->near, e);
        else step_columns(t, j, columns, e);
    }
    bool moved = false;
    for (int64_t i = 0; i < n * wide && !moved; i++) moved = t->e[i] != 0.0f;
    const qx_matmul p = {k - from, wide, n, t->r->h + from * k + first, k, 1, t->e, wide, 1, t->g + from * wide, wide, -1.0f, 1.0f};
    if (moved && from < k) product(t, &p);
    return moved;
}

static bool sweep(const tile *t, bool last)
{
    bool moved = false;
    for (int64_t j = 0; j < t->k; j += PANEL) moved |= sweep_panel(t, j, t->k - j < PANEL ? t->k - j : PANEL, last);
    return moved;
}

/* ---- scales ---- */

/* sum[i] += a[j][i] b[j][i] over n columns. */
QX_INLINE void add_products_body(int64_t n, int64_t wide, const float *restrict a, const float *restrict b, double *restrict sum)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < wide; i++) sum[i] += (double)a[j * wide + i] * (double)b[j * wide + i];
}
QX_MULTI(static, add_products, (int64_t n, int64_t wide, const float *a, const float *b, double *sum), (n, wide, a, b, sum))

static void products(const tile *t, int64_t n, const float *a, const float *b, double *sum)
{
    memset(sum, 0, sizeof *sum * (size_t)t->wide);
    add_products(n, t->wide, a, b, sum);
}

/* g[j][i] -= by[i] v[j][i] */
QX_INLINE void take_share_body(int64_t n, int64_t wide, const float *restrict by, const float *restrict v, float *restrict g)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < wide; i++) g[j * wide + i] -= by[i] * v[j * wide + i];
}
QX_MULTI(static, take_share, (int64_t n, int64_t wide, const float *by, const float *v, float *g), (n, wide, by, v, g))

/* The scale of block b of a row, when a better one can be stored; *gain: what the error falls by. */
static bool better_scale(const tile *t, int64_t row, int64_t b, float *out, double *gain)
{
    const float s = t->r->scale[row * t->blocks + b], global = t->r->global > 0 ? t->r->global : 1.0f;
    const double slope = t->slope[row], bend = t->bend[row];
    if (!(bend > 0)) return false;
    *out = global * qx_scale_stored(&t->r->format, (float)((double)(s / global) * (1 + slope / bend)), NULL);
    const double by = (double)*out / (double)s - 1;
    *gain = by * (2 * slope - by * bend);
    return *gain > 0;
}

static float nearest(const tile *t, float v, int64_t row, int64_t b)
{
    const float s = t->r->scale[row * t->blocks + b], z = t->r->zero ? (float)t->r->zero[row * t->blocks + b] : 0.0f, y = v / s;
    switch ((int)t->r->format.codes) {
    case QX_DT_FLOAT8E4M3FN: return qx_mini_round(y, 3, 7, 448.0f) * s;
    case QX_DT_FLOAT8E5M2: return qx_mini_round(y, 2, 15, 57344.0f) * s;
    case QX_DT_FLOAT4E2M1: return qx_mini_round(y, 1, 1, 6.0f) * s;
    default: return qx_rne_clamp(y, t->lo - z, t->hi - z) * s;
    }
}

static void rescale_block(const tile *t, int64_t b)
{
    const int64_t first = b * t->block, end = first + t->block < t->k ? first + t->block : t->k, wide = t->wide;
    const qx_matmul p = {t->k, wide, end - first, t->r->h + first, t->k, 1, t->w + first * wide, wide, 1, t->v, wide, 1.0f, 0.0f};
    product(t, &p);
    products(t, end - first, t->w + first * wide, t->g + first * wide, t->slope);
    products(t, end - first, t->w + first * wide, t->v + first * wide, t->bend);
    memset(t->by, 0, sizeof *t->by * (size_t)wide);
    for (int64_t row = 0; row < t->rows; row++) {
        float *s = &t->r->scale[row * t->blocks + b], better;
        double gain;
        if (!better_scale(t, row, b, &better, &gain)) continue;
        const float by = better / *s;
        *s = better;
        t->by[row] = by - 1.0f;
        t->gain[row] += gain;
        for (int64_t i = first * wide + row; i < end * wide; i += wide) t->w[i] = nearest(t, t->w[i] * by, row, b);
    }
    take_share(t->k, wide, t->by, t->v, t->g);
}

/* ---- turning, and the whole ---- */

static void turn(const tile *t, const float *x, float *y)
{
    for (int64_t j = 0; j < t->k; j++)
        for (int64_t r = 0; r < t->wide; r++) y[j * t->wide + r] = r < t->rows ? x[r * t->k + j] : 0.0f;
}

static void turn_back(const tile *t, const float *y, float *x)
{
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t j = 0; j < t->k; j++) x[r * t->k + j] = y[j * t->wide + r];
}

static bool valid(const qx_refine *r, float *lo, float *hi)
{
    if (r->prune_2_4 && (r->mask || r->format.codes != QX_DT_FLOAT)) return false;
    if (r->format.codes == QX_DT_FLOAT) return !r->rescale;
    return r->scale && qx_format_range(&r->format, lo, hi) && r->format.codes != QX_DT_FLOAT8E4M3FNUZ &&
        r->format.codes != QX_DT_FLOAT8E5M2FNUZ;
}

static void put_back(const tile *t, int64_t row, float *w)
{
    memcpy(w + row * t->k, t->start + row * t->k, sizeof *w * (size_t)t->k);
    if (t->r->scale) memcpy(t->r->scale + row * t->blocks, t->start_scale + row * t->blocks, sizeof *w * (size_t)t->blocks);
}

/* d, g = H d, and d'g, the error as it is. */
static void start(const tile *t, const float *w0, const float *w)
{
    const int64_t n = t->k * t->wide;
    turn(t, w0, t->v);
    turn(t, w, t->w);
    for (int64_t i = 0; i < n; i++) t->v[i] -= t->w[i];
    const qx_matmul p = {t->k, t->wide, t->k, t->r->h, t->k, 1, t->v, t->wide, 1, t->g, t->wide, 1.0f, 0.0f};
    product(t, &p);
    products(t, t->k, t->v, t->g, t->before);
    memset(t->gain, 0, sizeof *t->gain * (size_t)t->wide);
}

static void descend(const tile *t)
{
    const int sweeps = t->r->sweeps > 0 ? t->r->sweeps : 4;
    for (int s = 0; s < sweeps; s++) {
        for (int64_t b = 0; t->r->rescale && s > 0 && b < t->blocks; b++) rescale_block(t, b);
        if (!sweep(t, s == sweeps - 1)) break;
    }
}

bool qx_refine_rows(const qx_refine *r, const float *w0, float *w, int64_t rows, double *err, void *scratch)
{
    tile t = {.r = r, .k = r->k, .block = block_of(r), .rows = rows, .wide = qx_columns_padded(rows)};
    if (!valid(r, &t.lo, &t.hi)) return false;
    t.blocks = qx_cells_of(r->k, t.block);
    lay_out(&t, scratch);
    memcpy(t.start, w, sizeof *w * (size_t)(rows * r->k));
    if (r->scale) memcpy(t.start_scale, r->scale, sizeof *w * (size_t)(rows * t.blocks));
    start(&t, w0, w);
    descend(&t);
    turn_back(&t, t.w, w);
    for (int64_t row = 0; row < rows; row++) {
        const bool gained = t.gain[row] > least_gain * t.before[row];
        if (!gained) put_back(&t, row, w);
        if (err) err[row] = t.before[row] - (gained ? t.gain[row] : 0);
    }
    return true;
}
