/* solve_refine.c - coordinate descent on rows under tr(dW H dW'), on a grid or (pruning) on which two of four weights are kept and what they are.
 *
 * With d = w0 - w and g = H d, changing columns S of a row by x changes its error by -2 x'g_S + x'H_SS x: every step picks the best x, so the error never
 * grows. The tile is turned as in GPTQ: steps run over rows; inside a panel g is brought up to date four columns at a time, behind it one product
 * updates all of g. Between sweeps a scale is one more coordinate: along w_b, the weights of its block, the least error lies at w_b'g / (w_b' H w_b).
 * What rounding says about the sum is checked at the end, and a row that did not gain is put back. */
#include <string.h>

#include "kernels/multi.h"
#include "kernels/scalar.h"
#include "kernels/solve.h"
#include "kernels/solve_columns.h"

enum { PANEL = QX_COLUMNS_PANEL, FOUR = QX_COLUMNS_FOUR };

typedef struct tile {
    const qx_refine *r;
    int64_t k, block, blocks, rows, wide;
    float lo, hi;
    float *w, *g, *v;  /* [k][wide] turned; v: H w_b of a block whose scale is looked at */
    float *e;          /* [PANEL][wide] how far the panel's weights have moved */
    float *near;       /* [FOUR][wide] g of the columns at hand */
    float *s, *z, *keep; /* [wide] */
    float *d, *start;  /* [rows][k] */
    float *start_scale; /* [rows][blocks] */
} tile;

static int64_t block_of(const qx_refine *r) { return r->block > 0 ? r->block : r->k > 0 ? r->k : 1; }

size_t qx_refine_scratch(const qx_refine *r, int64_t rows)
{
    const size_t wide = (size_t)qx_columns_padded(rows), k = (size_t)r->k;
    return sizeof(float) * (3 * k * wide + (PANEL + FOUR + 3) * wide + 3 * k * (size_t)rows) + 2 * sizeof(double) * (size_t)rows;
}

static void lay_out(tile *t, float *p)
{
    t->w = p, p += t->k * t->wide;
    t->g = p, p += t->k * t->wide;
    t->v = p, p += t->k * t->wide;
    t->e = p, p += PANEL * t->wide;
    t->near = p, p += FOUR * t->wide;
    t->s = p, p += t->wide;
    t->z = p, p += t->wide;
    t->keep = p, p += t->wide;
    t->d = p, p += t->rows * t->k;
    t->start = p, p += t->rows * t->k;
    t->start_scale = p;
}

static void product(const tile *t, const qx_matmul *p) { (t->r->mm ? t->r->mm : qx_matmul_f32)(t->r->user, p); }

/* ---- one column ---- */

/* w goes to the grid value nearest w + g / h where that lessens the error; e = how far it moved. */
#define STEP_LOOP(name, q_expr)                                                                                                             \
    QX_INLINE void name##_body(int64_t n, float *restrict w, const float *restrict g, const float *restrict s, const float *restrict z,     \
                               const float *restrict keep, float lo, float hi, float h, float *restrict e)                                  \
    {                                                                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                                                   \
            const float to = w[i] + g[i] / h, y = to / s[i], a = lo - z[i], b = hi - z[i], delta = ((q_expr) - w[i]) * keep[i];             \
            const float move = delta * (2.0f * g[i] - delta * h) > 0.0f ? delta : 0.0f;                                                     \
            e[i] = move;                                                                                                                    \
            w[i] = move != 0.0f ? (q_expr) : w[i];                                                                                          \
            (void)y, (void)a, (void)b;                                                                                                      \
        }                                                                                                                                   \
    }                                                                                                                                       \
    QX_MULTI(static, name, (int64_t n, float *w, const float *g, const float *s, const float *z, const float *keep, float lo, float hi, float h, float *e), \
             (n, w, g, s, z, keep, lo, hi, h, e))
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
    case QX_DT_FLOAT: step_none(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e); break;
    case QX_DT_FLOAT8E4M3FN: step_e4m3(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e); break;
    case QX_DT_FLOAT8E5M2: step_e5m2(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e); break;
    case QX_DT_FLOAT4E2M1: step_e2m1(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e); break;
    default: step_int(t->wide, w, g, t->s, t->z, t->keep, t->lo, t->hi, h, e); break;
    }
}

/* ---- two of four ---- */

/* h[4][4]; w, g, e [4][wide]. Weights c and d become 0, a and b go where they are best then; the pair whose error is least is kept. The pair that is
 * there is among the six, and better than it is now. */
QX_INLINE void swap_four_body(int64_t wide, const float *restrict h, float *restrict w, const float *restrict g, float *restrict e)
{
    static const int pairs[6][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 3, 1, 2}, {1, 2, 0, 3}, {1, 3, 0, 2}, {2, 3, 0, 1}};
    for (int64_t i = 0; i < wide; i++) {
        float least = 0.0f, move[FOUR] = {0, 0, 0, 0};
        for (int p = 0; p < 6; p++) {
            const int a = pairs[p][0], b = pairs[p][1], c = pairs[p][2], d = pairs[p][3];
            const float xc = -w[c * wide + i], xd = -w[d * wide + i], haa = h[a * 5], hbb = h[b * 5], hab = h[a * FOUR + b];
            const float ra = g[a * wide + i] - h[a * FOUR + c] * xc - h[a * FOUR + d] * xd, rb = g[b * wide + i] - h[b * FOUR + c] * xc - h[b * FOUR + d] * xd;
            const float det = haa * hbb - hab * hab;
            const bool apart = det > 1e-4f * haa * hbb; /* else the two are nearly the same input: one of them moves */
            const float xa = apart ? (hbb * ra - hab * rb) / det : haa > 0 ? ra / haa : 0.0f, xb = apart ? (haa * rb - hab * ra) / det : 0.0f;
            const float cost = xc * (h[c * 5] * xc - 2.0f * g[c * wide + i]) + xd * (h[d * 5] * xd - 2.0f * g[d * wide + i]) + 2.0f * h[c * FOUR + d] * xc * xd
                               - 2.0f * (ra * xa + rb * xb) + haa * xa * xa + hbb * xb * xb + 2.0f * hab * xa * xb;
            const bool take = cost < least;
            least = take ? cost : least;
            move[a] = take ? xa : move[a];
            move[b] = take ? xb : move[b];
            move[c] = take ? xc : move[c];
            move[d] = take ? xd : move[d];
        }
        for (int c = 0; c < FOUR; c++) {
            e[c * wide + i] = move[c];
            w[c * wide + i] = move[c] == -w[c * wide + i] ? 0.0f : w[c * wide + i] + move[c];
        }
    }
}
QX_MULTI(static, swap_four, (int64_t wide, const float *h, float *w, const float *g, float *e), (wide, h, w, g, e))

static void step_swap(const tile *t, int64_t j, const float *g, float *e)
{
    float h[FOUR * FOUR];
    for (int a = 0; a < FOUR; a++)
        for (int b = 0; b < FOUR; b++) h[a * FOUR + b] = t->r->h[(j + a) * t->k + j + b];
    swap_four(t->wide, h, t->w + j * t->wide, g, e);
}

/* ---- the walk ---- */

static void step_columns(const tile *t, int64_t j, int64_t n, float *e)
{
    for (int64_t c = 0; c < n; c++) {
        step_column(t, j + c, t->near + c * t->wide, e + c * t->wide);
        for (int64_t d = c + 1; d < n; d++) qx_columns_push(t->wide, t->r->h[(j + c) * t->k + j + d], e + c * t->wide, t->near + d * t->wide);
    }
}

/* Whether a weight of the panel moved. */
static bool sweep_panel(const tile *t, int64_t first, int64_t n)
{
    const int64_t k = t->k, wide = t->wide;
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
    const qx_matmul p = {k, wide, n, t->r->h + first, k, 1, t->e, wide, 1, t->g, wide, -1.0f, 1.0f};
    if (moved) product(t, &p);
    return moved;
}

static bool sweep(const tile *t)
{
    bool moved = false;
    for (int64_t j = 0; j < t->k; j += PANEL) moved |= sweep_panel(t, j, t->k - j < PANEL ? t->k - j : PANEL);
    return moved;
}

/* ---- scales ---- */

/* The scale of block b (columns [first, end)) of a row, when a better one can be stored. */
static bool better_scale(const tile *t, int64_t row, int64_t b, int64_t first, int64_t end, float *out)
{
    const float s = t->r->scale[row * t->blocks + b], global = t->r->global > 0 ? t->r->global : 1.0f;
    double slope = 0, bend = 0;
    for (int64_t i = first * t->wide + row; i < end * t->wide; i += t->wide) slope += (double)t->w[i] * (double)t->g[i], bend += (double)t->w[i] * (double)t->v[i];
    if (!(bend > 0)) return false;
    *out = global * qx_scale_stored(&t->r->format, (float)((double)(s / global) * (1 + slope / bend)), NULL);
    const double by = (double)*out / (double)s - 1;
    return by * (2 * slope - by * bend) > 0; /* what the error falls by */
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
    for (int64_t row = 0; row < t->rows; row++) {
        float *s = &t->r->scale[row * t->blocks + b], better;
        if (!better_scale(t, row, b, first, end, &better)) continue;
        const float by = better / *s;
        *s = better;
        for (int64_t i = first * wide + row; i < end * wide; i += wide) t->w[i] = nearest(t, t->w[i] * by, row, b);
        for (int64_t i = row; i < t->k * wide; i += wide) t->g[i] -= (by - 1.0f) * t->v[i];
    }
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

static void subtract(const float *a, const float *b, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = a[i] - b[i];
}

static bool valid(const qx_refine *r, float *lo, float *hi)
{
    if (r->prune_2_4 && (r->mask || r->format.codes != QX_DT_FLOAT)) return false;
    if (r->format.codes == QX_DT_FLOAT) return !r->rescale;
    return r->scale && qx_format_range(&r->format, lo, hi) && r->format.codes != QX_DT_FLOAT8E4M3FNUZ && r->format.codes != QX_DT_FLOAT8E5M2FNUZ;
}

static void put_back(const tile *t, int64_t row, float *w)
{
    memcpy(w + row * t->k, t->start + row * t->k, sizeof *w * (size_t)t->k);
    if (t->r->scale) memcpy(t->r->scale + row * t->blocks, t->start_scale + row * t->blocks, sizeof *w * (size_t)t->blocks);
}

static void descend(const tile *t)
{
    for (int s = 0; s < (t->r->sweeps > 0 ? t->r->sweeps : 4); s++) {
        for (int64_t b = 0; t->r->rescale && s > 0 && b < t->blocks; b++) rescale_block(t, b);
        if (!sweep(t)) break;
    }
}

bool qx_refine_rows(const qx_refine *r, const float *w0, float *w, int64_t rows, double *err, void *scratch)
{
    const int64_t n = rows * r->k;
    tile t = {.r = r, .k = r->k, .block = block_of(r), .rows = rows, .wide = qx_columns_padded(rows)};
    double *e0 = scratch, *e1 = e0 + rows;
    if (!valid(r, &t.lo, &t.hi)) return false;
    t.blocks = qx_cells_of(r->k, t.block);
    lay_out(&t, (float *)(void *)(e1 + rows));
    memcpy(t.start, w, sizeof *w * (size_t)n);
    if (r->scale) memcpy(t.start_scale, r->scale, sizeof *w * (size_t)(rows * t.blocks));
    subtract(w0, w, n, t.d);
    qx_quad_errors(t.d, r->h, rows, r->k, e0, t.v, r->mm, r->user); /* leaves H d there */
    turn(&t, t.v, t.g);
    turn(&t, w, t.w);
    descend(&t);
    turn_back(&t, t.w, w);
    subtract(w0, w, n, t.d);
    qx_quad_errors(t.d, r->h, rows, r->k, e1, t.v, r->mm, r->user);
    for (int64_t row = 0; row < rows; row++) {
        if (!(e1[row] <= e0[row])) put_back(&t, row, w);
        if (err) err[row] = e1[row] <= e0[row] ? e1[row] : e0[row];
    }
    return true;
}
