/* attention.c - see attention.h. Keys are taken in blocks of KEYS, query rows in tiles whose scores stay in the first cache; a
 * tile looks only at the keys between the first and the last that any of its rows may see, be they bounded by position or by an
 * additive mask of hopeless entries. */
#include "kernels/attention.h"

#include "kernels/fmath.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"
#include "kernels/vmath_leaf.h"

/* SCORES: what a tile has at most, 28 KiB; LEAST, MOST: its query rows with a whole block of keys, with few keys */
enum { KEYS = QX_ATTN_KEYS, NR = QX_GEMM_NR, LEAST = 28, MOST = 84, SCORES = LEAST * KEYS, TILES = (QX_ATTN_ROWS + LEAST - 1) / LEAST };

/* One call: the tables of this CPU, what lies in the scratch, and the keys [lo, hi) that the rows of each tile see at all. */
typedef struct work {
    const qx_attn_head *h;
    const qx_vmath *vm;
    int64_t height, wide;           /* query rows of a tile (the last may have less), columns of its scores: whole panels */
    float *pk, *pv, *s, *top, *sum; /* packed blocks of K and V, scores of a tile, running maximum and sum of every row */
    int64_t lo[TILES], hi[TILES];
} work;

static int64_t round_up(int64_t n) { return (n + NR - 1) / NR * NR; }
static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t qx_attn_scratch(int64_t rows, int64_t d, int64_t dv)
{
    return KEYS * d + KEYS * round_up(dv) + SCORES + 2 * rows;
}

QX_INLINE void softcap_row_body(float *s, int64_t n, float cap)
{
    float r = 1.0f / cap;
    for (int64_t j = 0; j < n; j++) s[j] = cap * fm_tanh(s[j] * r);
}
QX_MULTI(static, softcap_row, (float *s, int64_t n, float cap), (s, n, cap))

QX_INLINE void fade_row_body(float *y, int64_t n, float f)
{
    for (int64_t j = 0; j < n; j++) y[j] *= f;
}
QX_MULTI(static, fade_row, (float *y, int64_t n, float f), (y, n, f))

/* ---- Which keys a row sees ---- */

static int64_t add_open(int64_t i, int64_t off) { return off == INT64_MIN || off == INT64_MAX ? off : i + off; }

/* Keys [*lo, *hi) of the block [from, from + n) that row i sees by its position; empty: lo >= hi. */
static void row_keys(const qx_attn_head *h, int64_t i, int64_t from, int64_t n, int64_t *lo, int64_t *hi)
{
    const int64_t last = add_open(i, h->last);
    *lo = at_least(from, add_open(i, h->first));
    *hi = last == INT64_MAX ? from + n : at_most(from + n, last + 1);
}

/* Beside a score with a mask of at least PLAIN, one with HOPELESS or less has a weight of exactly 0. */
#define HOPELESS (-1e30f)
#define PLAIN (-1e4f)
enum { STRIP = 32 };

static bool all_hopeless(const float *m, int64_t n)
{
    int others = 0;
    if (!(m[0] <= HOPELESS)) return false; /* most strips */
    for (int64_t j = 0; j < n; j++) others += !(m[j] <= HOPELESS);
    return others == 0;
}

static bool any_plain(const float *m, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        if (m[j] >= PLAIN) return true;
    return false;
}

/* Widens [*lo, *hi) by the keys that a row of the mask leaves; all of them when no key is a plain one (then every weight may count). */
static void mask_keys(const float *m, int64_t n, int64_t *lo, int64_t *hi)
{
    int64_t first = 0, end = n;
    while (first < n && all_hopeless(m + first, at_most(STRIP, n - first))) first += STRIP;
    while (end > first && all_hopeless(m + (end - 1) / STRIP * STRIP, end - (end - 1) / STRIP * STRIP)) end = (end - 1) / STRIP * STRIP;
    if (first >= end || !any_plain(m + first, end - first)) first = 0, end = n;
    *lo = at_most(*lo, first);
    *hi = at_least(*hi, end);
}

/* The keys of each tile. A mask that all rows share is looked at once. */
static void find_keys(work *w)
{
    const qx_attn_head *h = w->h;
    for (int64_t r = 0, t = 0; r < h->rows; r += w->height, t++) {
        const int64_t m = at_most(w->height, h->rows - r);
        int64_t lo = h->keys, hi = 0, none;
        for (int64_t i = 0; h->mask && i < (h->ld_mask ? m : 1); i++) mask_keys(h->mask + (r + i) * h->ld_mask, h->keys, &lo, &hi);
        if (!h->mask) lo = 0, hi = h->keys;
        row_keys(h, r, 0, h->keys, &w->lo[t], &none);
        row_keys(h, r + m - 1, 0, h->keys, &none, &w->hi[t]);
        w->lo[t] = at_least(w->lo[t], lo);
        w->hi[t] = at_most(w->hi[t], hi);
    }
}

/* ---- One row of scores ---- */

/* What the leaf does not do by itself. */
static void cap_and_keep(const qx_attn_head *h, float *s, int64_t i, int64_t from, int64_t n)
{
    if (h->softcap > 0) {
        for (int64_t j = 0; j < n; j++) s[j] *= h->scale;
        softcap_row(s, n, h->softcap);
    }
    for (int64_t j = 0; h->keep && j < n; j++)
        if (!h->keep[i * h->ld_keep + from + j]) s[j] = -INFINITY;
}

/* Takes the scores s of row i against keys [from, from + n) into its running maximum and sum; the row of y so far is rescaled.
 * Leaves exp(s - max) in s, and 0 for keys that the row does not see. */
static void absorb(const work *w, float *s, int64_t i, int64_t from, int64_t n)
{
    const qx_attn_head *h = w->h;
    int64_t lo, hi;
    row_keys(h, i, from, n, &lo, &hi);
    lo -= from, hi -= from;
    for (int64_t j = 0; j < at_most(lo, n); j++) s[j] = 0;
    for (int64_t j = at_least(hi, 0); j < n; j++) s[j] = 0;
    if (lo >= hi) return;
    s += lo, from += lo, n = hi - lo;
    if (h->softcap > 0 || h->keep) cap_and_keep(h, s, i, from, n);
    float top = w->vm->score_top(s, n, h->softcap > 0 ? 1.0f : h->scale, h->mask ? h->mask + i * h->ld_mask + from : NULL);
    top = top > w->top[i] ? top : w->top[i];
    if (top == -INFINITY) { /* nothing visible so far */
        for (int64_t j = 0; j < n; j++) s[j] = s[j] != s[j] ? s[j] : 0;
        return;
    }
    const float sum = w->vm->exp_sum(s, n, top);
    if (w->sum[i] != 0 && w->top[i] != top) { /* not the first keys that it sees, and a new maximum */
        const float fade = fm_exp(w->top[i] - top);
        fade_row(h->y + i * h->ldy, h->dv, fade);
        w->sum[i] *= fade;
    }
    w->sum[i] += sum;
    w->top[i] = top;
}

/* ---- Blocks ---- */

static void pack_block(const qx_attn_head *h, int64_t from, int64_t n, float *pk, float *pv)
{
    for (int64_t p = 0; p * NR < n; p++) qx_gemm_pack_panel(h->k + from * h->ldk, h->d, n, h->kc, h->ldk, p, pk + p * NR * h->d);
    for (int64_t p = 0; p * NR < h->dv; p++) qx_gemm_pack_panel(h->v + from * h->ldv, n, h->dv, h->ldv, 1, p, pv + p * NR * KEYS);
}

/* Query rows [r, r + m) against keys [lo, hi) of the packed block that begins at key `from`; lo is at the start of a panel. Scores
 * are made of whole panels, which end in zeros. */
static void sub_block(const work *w, int64_t r, int64_t m, int64_t from, int64_t lo, int64_t hi)
{
    const qx_attn_head *h = w->h;
    const qx_sgemm scores = {.m = m, .k = h->d, .n = round_up(hi - lo), .x = h->q + r * h->ldq, .ldx = h->ldq, .cx = 1,
                             .panels = w->pk + (lo - from) * h->d, .step = NR * h->d,
                             .y = w->s + lo - from, .ldy = w->wide, .alpha = 1.0f};
    qx_sgemm_run(&scores);
    for (int64_t i = 0; i < m; i++) absorb(w, w->s + i * w->wide + lo - from, r + i, lo, hi - lo);
    const qx_sgemm values = {.m = m, .k = hi - lo, .n = h->dv, .x = w->s + lo - from, .ldx = w->wide, .cx = 1,
                             .panels = w->pv + (lo - from) * NR, .step = NR * KEYS,
                             .y = h->y + r * h->ldy, .ldy = h->ldy, .alpha = 1.0f, .add = true};
    qx_sgemm_run(&values);
}

static void many_rows(const work *w)
{
    const qx_attn_head *h = w->h;
    for (int64_t from = 0; from < h->keys; from += KEYS) {
        const int64_t n = at_most(KEYS, h->keys - from);
        bool packed = false;
        for (int64_t r = 0, t = 0; r < h->rows; r += w->height, t++) {
            const int64_t lo = at_least(from, w->lo[t] / NR * NR), hi = at_most(from + n, w->hi[t]);
            if (lo >= hi) continue;
            if (!packed) pack_block(h, from, n, w->pk, w->pv);
            packed = true;
            sub_block(w, r, at_most(w->height, h->rows - r), from, lo, hi);
        }
    }
}

static void dot_row(const qx_attn_head *h, const float *q, int64_t from, int64_t n, float *s)
{
    if (h->kc == 1) {
        for (int64_t j = 0; j < n; j++) s[j] = qx_dot(q, h->k + (from + j) * h->ldk, h->d);
        return;
    }
    for (int64_t j = 0; j < n; j++) s[j] = 0;
    for (int64_t c = 0; c < h->d; c++) qx_axpy(q[c], h->k + c * h->kc + from * h->ldk, s, n);
}

/* One or a few rows: packing would cost more than it saves. */
static void few_rows(const work *w)
{
    const qx_attn_head *h = w->h;
    for (int64_t i = 0; i < h->rows; i++)
        for (int64_t from = w->lo[0]; from < w->hi[0]; from += KEYS) {
            const int64_t n = at_most(KEYS, w->hi[0] - from);
            dot_row(h, h->q + i * h->ldq, from, n, w->s);
            absorb(w, w->s, i, from, n);
            for (int64_t j = 0; j < n; j++)
                if (w->s[j] != 0) qx_axpy(w->s[j], h->v + (from + j) * h->ldv, h->y + i * h->ldy, h->dv);
        }
}

/* Tiles of even height: none is left with a row or two. */
static void cut_rows(work *w)
{
    const qx_attn_head *h = w->h;
    w->wide = round_up(at_most(KEYS, at_least(h->keys, 1)));
    const int64_t tiles = (h->rows + at_most(SCORES / w->wide, MOST) - 1) / at_most(SCORES / w->wide, MOST);
    w->height = (h->rows + tiles - 1) / tiles;
}

static void fill_nan(float *y, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = NAN;
}

void qx_attn_rows(const qx_attn_head *h, float *scratch)
{
    work w = {.h = h, .vm = qx_vmath_cpu(qx_isa_best()), .pk = scratch};
    w.pv = w.pk + KEYS * h->d;
    w.s = w.pv + KEYS * round_up(h->dv);
    w.top = w.s + SCORES;
    w.sum = w.top + h->rows;
    for (int64_t i = 0; i < h->rows; i++) {
        w.top[i] = h->has_sink ? h->sink : -INFINITY;
        w.sum[i] = h->has_sink ? 1.0f : 0.0f;
        memset(h->y + i * h->ldy, 0, (size_t)h->dv * sizeof *h->y);
    }
    cut_rows(&w);
    find_keys(&w);
    if (h->rows < 8 && (h->kc == 1 || h->ldk == 1)) few_rows(&w);
    else many_rows(&w);
    for (int64_t i = 0; i < h->rows; i++) {
        if (w.sum[i] != 0) fade_row(h->y + i * h->ldy, h->dv, 1.0f / w.sum[i]);
        else if (h->nan_when_empty) fill_nan(h->y + i * h->ldy, h->dv);
    }
}
