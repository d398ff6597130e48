/* solve_gptq.c - one walk over the columns that rounds (GPTQ), prunes (SparseGPT) or does both, and pushes the error onto later columns.
 *
 * The tile of rows is turned so that a column is contiguous: everything then runs over rows, sixteen and more at a time. Columns go in
 * panels of up to 64: inside a panel four columns at a time are brought up to date from the panel's own errors (so that the 2:4 choice
 * and a block's scales see compensated weights), after a panel one product updates all later columns. */
#include <string.h>

#include "kernels/loops/multi.h"
#include "kernels/scalar.h"
#include "kernels/solve/solve.h"
#include "kernels/solve/solve_columns.h"

enum { PANEL = QX_COLUMNS_PANEL, FOUR = QX_COLUMNS_FOUR };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

typedef struct walk {
    const qx_gptq *g;
    int64_t k, rows, wide;   /* wide: rows padded to WIDE */
    int64_t block, blocks, panel;
    float lo, hi;
    float *wt;               /* [k][wide] turned weights; solved columns hold their dequantized values */
    float *e;                /* [PANEL][wide] errors of the panel */
    float *s, *z;            /* [wide] scale and zero point of the current column */
    float *keep;             /* [FOUR][wide] 1 keeps, 0 prunes */
    float *rowmajor;         /* [rows][block] for choosing scales */
    float *chosen;           /* [wide] scales of one block, with its zero points and NVFP4 codes */
    int32_t *chosen_zero;
    uint8_t *chosen_code;
    uint8_t *zeros;          /* [k][wide] 1: was 0 at the start and stays so; NULL unless keep_zeros */
    float *scale; int32_t *zero; uint8_t *scale_code;
    double *loss;
} walk;

static bool rounds(const qx_gptq *g) { return g->format.codes != QX_DT_FLOAT; }
static int64_t block_of(const qx_gptq *g) { return g->nvfp4 ? QX_NVFP4_BLOCK : g->block > 0 ? g->block : g->k > 0 ? g->k : 1; }
static bool chooses(const qx_gptq *g) { return rounds(g) && (g->search || g->nvfp4); }

size_t qx_gptq_scratch(const qx_gptq *g, int64_t rows)
{
    const int64_t w = qx_columns_padded(rows), block = chooses(g) ? block_of(g) : 0;
    return sizeof(float) * (size_t)(g->k * w + PANEL * w + 2 * w + FOUR * w + rows * block + 3 * w) + (g->keep_zeros ? (size_t)(g->k * w)
        : 0);
}

/* ---- loops over rows ---- */

/* q = Q(x / s) * s, e = (x - q) / d; x becomes q. keep: 0 forces q = 0. */
#define ROUND_LOOP(name, q_expr)                                                                                                      \
    QX_INLINE void name##_body(int64_t n, float *restrict x, const float *restrict s, const float *restrict z, const float *restrict keep, \
                               float lo, float hi, float d, float *restrict e)                                                        \
    {                                                                                                                                 \
        for (int64_t i = 0; i < n; i++) {                                                                                             \
            const float y = x[i] / s[i], a = lo - z[i], b = hi - z[i], q = (q_expr) * s[i] * keep[i];                                 \
            e[i] = (x[i] - q) / d;                                                                                                    \
            x[i] = q;                                                                                                                 \
            (void)y, (void)a, (void)b;                                                                                                \
        }                                                                                                                             \
    }                                                                                                                                 \
    QX_MULTI(static, name, (int64_t n, float *x, const float *s, const float *z, const float *keep, float lo, float hi, float d, float *e), \
             (n, x, s, z, keep, lo, hi, d, e))
ROUND_LOOP(round_int, qx_rne_clamp(y, a, b))
ROUND_LOOP(round_e4m3, qx_mini_round(y, 3, 7, 448.0f))
ROUND_LOOP(round_e5m2, qx_mini_round(y, 2, 15, 57344.0f))
ROUND_LOOP(round_e2m1, qx_mini_round(y, 1, 1, 6.0f))

QX_INLINE void round_none_body(int64_t n, float *restrict x, const float *restrict keep, float d, float *restrict e)
{
    for (int64_t i = 0; i < n; i++) {
        const float q = x[i] * keep[i];
        e[i] = (x[i] - q) / d;
        x[i] = q;
    }
}
QX_MULTI(static, round_none, (int64_t n, float *x, const float *keep, float d, float *e), (n, x, keep, d, e))

/* ---- scales and masks ---- */

static void use_scale(walk *w, int64_t column)
{
    const int64_t at = column / w->block;
    for (int64_t r = 0; r < w->wide; r++) {
        const int64_t i = (r < w->rows ? r : 0) * w->blocks + at;
        w->s[r] = w->scale[i], w->z[r] = w->zero ? (float)w->zero[i] : 0.0f;
    }
}

/* Of one block in all rows; the searches take sixteen rows at a time. */
static void choose_scales(walk *w, int64_t column)
{
    const qx_gptq *g = w->g;
    const int64_t n = least(w->block, w->k - column), at = column / w->block;
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t c = 0; c < n; c++) w->rowmajor[r * n + c] = w->wt[(column + c) * w->wide + r];
    if (g->nvfp4) {
        qx_nvfp4 p = *g->nvfp4;
        if (p.weight) p.weight += column;
        qx_nvfp4_search(&p, w->rowmajor, w->rows, n, w->chosen_code, w->chosen, NULL);
    } else {
        qx_search s = *g->search;
        s.block = 0, s.zero_point = g->zero_point;
        if (s.weight) s.weight += column;
        qx_search_rows(&s, w->rowmajor, w->rows, n, w->chosen, w->zero ? w->chosen_zero : NULL, NULL);
    }
    for (int64_t r = 0; r < w->rows; r++) {
        const int64_t i = r * w->blocks + at;
        w->scale[i] = w->chosen[r];
        if (g->nvfp4) w->scale_code[i] = w->chosen_code[r];
        else if (w->zero) w->zero[i] = w->chosen_zero[r];
    }
}

/* keep[c][r] for columns j .. j + n of the walk. */
static void make_keep(walk *w, int64_t j, int64_t n)
{
    const qx_gptq *g = w->g;
    for (int64_t i = 0; i < FOUR * w->wide; i++) w->keep[i] = w->zeros && i < n * w->wide && w->zeros[j * w->wide + i] ? 0.0f : 1.0f;
    for (int64_t c = 0; c < n && g->mask; c++) {
        const int64_t column = g->perm ? g->perm[j + c] : j + c;
        for (int64_t r = 0; r < w->rows; r++)
            if (!g->mask[r * w->k + column]) w->keep[c * w->wide + r] = 0.0f;
    }
}

static void prune_four(walk *w, int64_t j)
{
    float inv[FOUR];
    for (int c = 0; c < FOUR; c++) inv[c] = 1.0f / w->g->u[(j + c) * w->k + j + c];
    for (int64_t r = 0; r < w->rows; r++) {
        float score[FOUR];
        for (int c = 0; c < FOUR; c++) {
            const float v = w->wt[(j + c) * w->wide + r] * inv[c] * w->keep[c * w->wide + r];
            score[c] = v * v;
        }
        for (int drop = 0; drop < 2; drop++) {
            int worst = -1;
            for (int c = 0; c < FOUR; c++)
                if (score[c] >= 0 && (worst < 0 || score[c] <= score[worst])) worst = c;
            if (worst < 0) break;
            score[worst] = -1;
            w->keep[worst * w->wide + r] = 0.0f;
        }
    }
}

/* ---- the walk ---- */

static void round_column(walk *w, int64_t j, const float *keep, float *e)
{
    float *x = w->wt + j * w->wide;
    const float d = w->g->u[j * w->k + j];
    switch ((int)w->g->format.codes) {
    case QX_DT_FLOAT: round_none(w->wide, x, keep, d, e); break;
    case QX_DT_FLOAT8E4M3FN: round_e4m3(w->wide, x, w->s, w->z, keep, w->lo, w->hi, d, e); break;
    case QX_DT_FLOAT8E5M2: round_e5m2(w->wide, x, w->s, w->z, keep, w->lo, w->hi, d, e); break;
    case QX_DT_FLOAT4E2M1: round_e2m1(w->wide, x, w->s, w->z, keep, w->lo, w->hi, d, e); break;
    default: round_int(w->wide, x, w->s, w->z, keep, w->lo, w->hi, d, e); break;
    }
    for (int64_t r = 0; r < w->rows && w->loss; r++) w->loss[r] += (double)e[r] * (double)e[r];
}

static void solve_four(walk *w, int64_t first, int64_t j, int64_t n)
{
    const qx_gptq *g = w->g;
    const float *u = g->u;
    qx_columns_pull(w->wide, j - first, (int)n, u + first * w->k + j, w->k, w->e, w->wt + j * w->wide);
    make_keep(w, j, n);
    if (g->prune_2_4 && n == FOUR) prune_four(w, j);
    for (int64_t c = 0; c < n; c++) {
        const int64_t column = g->perm ? g->perm[j + c] : j + c;
        if (rounds(g) && (g->perm || column % w->block == 0)) use_scale(w, column);
        float *e = w->e + (j + c - first) * w->wide;
        round_column(w, j + c, w->keep + c * w->wide, e);
        for (int64_t d = c + 1; d < n; d++) qx_columns_push(w->wide, u[(j + c) * w->k + j + d], e, w->wt + (j + d) * w->wide);
    }
}

static void solve_panel(walk *w, int64_t first, int64_t n)
{
    const int64_t rest = w->k - first - n;
    if (chooses(w->g) && first % w->block == 0) choose_scales(w, first);
    for (int64_t j = first; j < first + n; j += FOUR) solve_four(w, first, j, least(FOUR, first + n - j));
    const qx_matmul p = {rest, w->wide, n, w->g->u + first * w->k + first + n, 1, w->k, w->e, w->wide, 1, w->wt + (first + n) * w->wide,
                         w->wide, -1.0f, 1.0f};
    if (rest > 0) qx_matmul_f32(NULL, &p);
}

/* The largest panel that starts at every block: a divisor of the block, a multiple of 4 when there is one. */
static int64_t panel_of(const qx_gptq *g, int64_t block)
{
    if (!chooses(g) || block >= g->k) return PANEL;
    for (int64_t p = PANEL; p >= FOUR; p -= FOUR)
        if (block % p == 0) return p;
    for (int64_t p = FOUR - 1; p > 1; p--)
        if (block % p == 0) return p;
    return 1;
}

static void turn(const walk *w, const float *src)
{
    const int32_t *perm = w->g->perm;
    for (int64_t j = 0; j < w->k; j++) {
        const float *x = src + (perm ? perm[j] : j);
        float *d = w->wt + j * w->wide;
        for (int64_t r = 0; r < w->rows; r++) d[r] = x[r * w->k];
        for (int64_t r = w->rows; r < w->wide; r++) d[r] = 0.0f;
        for (int64_t r = 0; r < w->wide && w->zeros; r++) w->zeros[j * w->wide + r] = d[r] == 0.0f;
    }
}

static void turn_back(const walk *w, float *dst)
{
    const int32_t *perm = w->g->perm;
    for (int64_t j = 0; j < w->k; j++) {
        float *x = dst + (perm ? perm[j] : j);
        const float *s = w->wt + j * w->wide;
        for (int64_t r = 0; r < w->rows; r++) x[r * w->k] = s[r];
    }
}

static bool valid(const qx_gptq *g, const float *scale, const int32_t *zero, const uint8_t *scale_code)
{
    const bool sequential = chooses(g) || g->prune_2_4;
    if (sequential && g->perm) return false;
    if (g->prune_2_4 && chooses(g) && block_of(g) % FOUR != 0 && block_of(g) < g->k) return false;
    if (rounds(g) && (!scale || (g->zero_point && !zero))) return false;
    if (g->nvfp4 && (!scale_code || g->format.codes != QX_DT_FLOAT4E2M1 || g->zero_point)) return false;
    float lo, hi;
    return !rounds(g) || (qx_format_range(&g->format, &lo, &hi) && g->format.codes != QX_DT_FLOAT8E4M3FNUZ &&
                          g->format.codes != QX_DT_FLOAT8E5M2FNUZ);
}

static void lay_out(walk *w, float *p)
{
    w->wt = p, p += w->k * w->wide;
    w->e = p, p += PANEL * w->wide;
    w->s = p, p += w->wide;
    w->z = p, p += w->wide;
    w->keep = p, p += FOUR * w->wide;
    w->rowmajor = p, p += chooses(w->g) ? w->rows * w->block : 0;
    w->chosen = p, p += w->wide;
    w->chosen_zero = (int32_t *)p, p += w->wide;
    w->chosen_code = (uint8_t *)p, p += w->wide;
    w->zeros = w->g->keep_zeros ? (uint8_t *)p : NULL;
}

bool qx_gptq_rows(const qx_gptq *g, float *w, int64_t rows, float *scale, int32_t *zero, uint8_t *scale_code, double *loss, void *scratch)
{
    if (!valid(g, scale, zero, scale_code)) return false;
    walk s = {.g = g, .k = g->k, .rows = rows, .wide = qx_columns_padded(rows), .block = block_of(g), .scale = scale,
              .zero = g->zero_point ? zero : NULL,
              .scale_code = scale_code, .loss = loss};
    s.blocks = qx_cells_of(g->k, s.block);
    s.panel = panel_of(g, s.block);
    if (rounds(g)) qx_format_range(&g->format, &s.lo, &s.hi);
    lay_out(&s, scratch);
    for (int64_t r = 0; r < rows && loss; r++) loss[r] = 0;
    if (rows == 0) return true;
    turn(&s, w);
    for (int64_t j = 0; j < s.k; j += s.panel) solve_panel(&s, j, least(s.panel, s.k - j));
    turn_back(&s, w);
    return true;
}
