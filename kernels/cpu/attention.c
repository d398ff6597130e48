/* attention.c - see attention.h. Keys are taken in blocks of KEYS, query rows in tiles whose scores stay in the first cache; a
 * tile looks only at the keys between the first and the last that any of its rows may see, be they bounded by position or by an
 * additive mask of hopeless entries. A few rows are not worth packing keys for: those of all heads that share keys go over them
 * as they lie. */
#include "kernels/attention.h"

#include "kernels/dtype.h"
#include "kernels/loops/fmath.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"
#include "kernels/loops/vmath_leaf.h"

/* SCORES: what a tile has at most, 28 KiB; LEAST, MOST: its query rows with a whole block of keys, with few keys */
enum { KEYS = QX_ATTN_KEYS, NR = QX_GEMM_NR, LEAST = 28, MOST = 84, SCORES = LEAST * KEYS, TILES = (QX_ATTN_ROWS + LEAST - 1) / LEAST };
enum { FEW = 32 }; /* keys that a few rows take at once, for all of them from the first cache */

/* One call: the tables of this CPU, what lies in the scratch, and the keys [lo, hi) that the rows of each tile see at all. */
typedef struct work {
    const qx_attn_head *h;
    const qx_vmath *vm;
    int64_t height, wide;           /* query rows of a tile (the last may have less), columns of its scores: whole panels */
    float *pk, *pv, *s, *top, *sum; /* packed blocks of K and V, scores of a tile, running maximum and sum of every row */
    float *plain;                   /* codes of a block as floats */
    int64_t lo[TILES], hi[TILES];
} work;

/* A row on its way over the keys: its position, what it may see, and where its result and its running maximum and sum are. */
typedef struct row { int64_t at; const float *mask; const uint8_t *keep; float *y, *top, *sum; } row;

static int64_t round_up(int64_t n) { return (n + NR - 1) / NR * NR; }
static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t qx_attn_scratch(int64_t rows, int64_t d, int64_t dv)
{
    const int64_t many = KEYS * d + KEYS * round_up(dv) + SCORES + 2 * rows + KEYS * at_least(d, dv);
    return rows > QX_ATTN_FEW ? many : at_least(many, qx_attn_part(rows, dv) + qx_attn_few_scratch(rows, d, dv));
}

int64_t qx_attn_few_scratch(int64_t rows, int64_t d, int64_t dv) { return rows * (d + KEYS) + FEW * at_least(d, dv); }

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

/* ---- Codes ---- */

QX_INLINE void minus_row_body(float *x, int64_t n, float zero)
{
    for (int64_t j = 0; j < n; j++) x[j] -= zero;
}
QX_MULTI(static, minus_row, (float *x, int64_t n, float zero), (x, n, zero))

static void scale_row(const qx_attn_codes *c, float f, float *y, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] *= f * (c->type && c->scale ? c->scale[c->per_column ? j : 0] : 1.0f);
}

/* Rows [from, from + n) of keys or values as floats: as they lie, or turned in buf; with `scaled` by their scale. */
static const float *plain_rows(const void *data, const qx_attn_codes *c, int64_t ld, int64_t cols, int64_t from, int64_t n, bool scaled,
                               float *buf, int64_t *ld_out)
{
    if (c->type == 0 || c->type == QX_DT_FLOAT) {
        *ld_out = ld;
        return (const float *)data + from * ld;
    }
    const uint8_t *p = (const uint8_t *)data + (size_t)(from * ld) * (size_t)qx_dtype_get(c->type)->bits / 8;
    if (ld == cols) (void)qx_to_f32(c->type, p, n * cols, buf);
    for (int64_t i = 0; ld != cols && i < n; i++)
        (void)qx_to_f32(c->type, p + (size_t)(i * ld) * (size_t)qx_dtype_get(c->type)->bits / 8, cols, buf + i * cols);
    if (c->zero != 0) minus_row(buf, n * cols, c->zero);
    for (int64_t i = 0; scaled && c->scale && i < n; i++) scale_row(c, 1.0f, buf + i * cols, cols);
    *ld_out = cols;
    return buf;
}

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
static void cap_and_keep(const qx_attn_head *h, const uint8_t *keep, float *s, int64_t n)
{
    if (h->softcap > 0) {
        for (int64_t j = 0; j < n; j++) s[j] *= h->scale;
        softcap_row(s, n, h->softcap);
    }
    for (int64_t j = 0; keep && j < n; j++)
        if (!keep[j]) s[j] = -INFINITY;
}

/* Takes the scores s of a row against keys [from, from + n) into its running maximum and sum; its y so far is rescaled. Leaves
 * exp(s - max) in s, and 0 for keys that the row does not see. */
static void absorb(const work *w, const row *r, float *s, int64_t from, int64_t n)
{
    const qx_attn_head *h = w->h;
    int64_t lo, hi;
    row_keys(h, r->at, from, n, &lo, &hi);
    lo -= from, hi -= from;
    for (int64_t j = 0; j < at_most(lo, n); j++) s[j] = 0;
    for (int64_t j = at_least(hi, 0); j < n; j++) s[j] = 0;
    if (lo >= hi) return;
    s += lo, from += lo, n = hi - lo;
    if (h->softcap > 0 || r->keep) cap_and_keep(h, r->keep ? r->keep + from : NULL, s, n);
    float top = w->vm->score_top(s, n, h->softcap > 0 ? 1.0f : h->scale, r->mask ? r->mask + from : NULL);
    top = top > *r->top ? top : *r->top;
    if (top == -INFINITY) { /* nothing visible so far */
        for (int64_t j = 0; j < n; j++) s[j] = s[j] != s[j] ? s[j] : 0;
        return;
    }
    const float sum = w->vm->exp_sum(s, n, top);
    if (*r->sum != 0 && *r->top != top) { /* not the first keys that it sees, and a new maximum */
        const float fade = fm_exp(*r->top - top);
        fade_row(r->y, h->dv, fade);
        *r->sum *= fade;
    }
    *r->sum += sum;
    *r->top = top;
}

/* ---- Blocks ---- */

static void pack_block(const work *w, int64_t from, int64_t n)
{
    const qx_attn_head *h = w->h;
    int64_t ld;
    const float *k = plain_rows(h->k, &h->k_codes, h->ldk, h->d, from, n, true, w->plain, &ld);
    for (int64_t p = 0; p * NR < n; p++) qx_gemm_pack_panel(k, h->d, n, h->kc, ld, p, w->pk + p * NR * h->d);
    const float *v = plain_rows(h->v, &h->v_codes, h->ldv, h->dv, from, n, true, w->plain, &ld);
    for (int64_t p = 0; p * NR < h->dv; p++) qx_gemm_pack_panel(v, n, h->dv, ld, 1, p, w->pv + p * NR * KEYS);
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
    for (int64_t i = r; i < r + m; i++) {
        const row one = {i, h->mask ? h->mask + i * h->ld_mask : NULL, h->keep ? h->keep + i * h->ld_keep : NULL, h->y + i * h->ldy,
                         w->top + i, w->sum + i};
        absorb(w, &one, w->s + (i - r) * w->wide + lo - from, lo, hi - lo);
    }
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
            if (!packed) pack_block(w, from, n);
            packed = true;
            sub_block(w, r, at_most(w->height, h->rows - r), from, lo, hi);
        }
    }
}

static void fill_nan(float *y, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = NAN;
}

/* ---- A few rows of each head of a group ---- */

/* The keys [*lo, *hi) that any of the rows sees. */
static void few_keys(const qx_attn_head *h, const qx_attn_group *g, int64_t *lo, int64_t *hi)
{
    int64_t first, end, none, a = h->keys, b = 0;
    for (int64_t k = 0; h->mask && k < (g->mask ? g->heads : 1); k++)
        for (int64_t i = 0; i < (h->ld_mask ? h->rows : 1); i++) mask_keys(h->mask + k * g->mask + i * h->ld_mask, h->keys, &a, &b);
    row_keys(h, 0, 0, h->keys, &first, &none);
    row_keys(h, h->rows - 1, 0, h->keys, &none, &end);
    *lo = h->mask ? at_least(first, a) : first;
    *hi = h->mask ? at_most(end, b) : end;
}

/* Scores of all rows q[rows][d] against keys [from, from + n) into s[rows][KEYS]; n <= FEW. */
static void few_scores(const work *w, int64_t rows, const float *q, int64_t from, int64_t n, float *s)
{
    const qx_attn_head *h = w->h;
    int64_t ld;
    if (h->kc != 1) {
        for (int64_t r = 0; r < rows; r++) memset(s + r * KEYS, 0, (size_t)n * sizeof *s);
        w->vm->times(rows, h->d, n, q, h->d, (const float *)h->k + from * h->ldk, h->kc, s, KEYS);
        return;
    }
    const float *k = plain_rows(h->k, &h->k_codes, h->ldk, h->d, from, n, false, w->plain, &ld);
    w->vm->dots(rows, n, h->d, q, h->d, k, ld, s, KEYS);
}

static void few_block(const work *w, const qx_attn_group *g, const float *q, int64_t from, int64_t n, float *part)
{
    const qx_attn_head *h = w->h;
    const int64_t rows = g->heads * h->rows;
    for (int64_t t = 0; t < n; t += FEW) few_scores(w, rows, q, from + t, at_most(FEW, n - t), w->s + t);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t head = r / h->rows, i = r % h->rows;
        const row one = {i, h->mask ? h->mask + head * g->mask + i * h->ld_mask : NULL,
                         h->keep ? h->keep + head * g->keep + i * h->ld_keep : NULL, part + r * h->dv, w->top + r, w->sum + r};
        absorb(w, &one, w->s + r * KEYS, from, n);
    }
    for (int64_t t = 0; t < n; t += FEW) {
        int64_t ld;
        const float *v = plain_rows(h->v, &h->v_codes, h->ldv, h->dv, from + t, at_most(FEW, n - t), false, w->plain, &ld);
        w->vm->times(rows, at_most(FEW, n - t), h->dv, w->s + t, KEYS, v, ld, part, h->dv);
    }
}

void qx_attn_few(const qx_attn_head *h, const qx_attn_group *g, int64_t from, int64_t to, float *part, float *scratch)
{
    const int64_t rows = g->heads * h->rows;
    work w = {.h = h, .vm = qx_vmath_cpu(qx_isa_best()), .top = part + rows * h->dv, .sum = part + rows * (h->dv + 1)};
    float *q = scratch; /* dense, and with the scale of codes of K: scores need no other */
    w.s = q + rows * h->d;
    w.plain = w.s + rows * KEYS;
    few_keys(h, g, &w.lo[0], &w.hi[0]);
    memset(part, 0, (size_t)qx_attn_part(rows, h->dv) * sizeof *part);
    for (int64_t r = 0; r < rows; r++) {
        memcpy(q + r * h->d, h->q + r / h->rows * g->q + r % h->rows * h->ldq, (size_t)h->d * sizeof *q);
        scale_row(&h->k_codes, 1.0f, q + r * h->d, h->d);
        w.top[r] = -INFINITY;
    }
    to = at_most(to, w.hi[0]);
    for (from = at_least(from, w.lo[0]); from < to; from += KEYS) few_block(&w, g, q, from, at_most(KEYS, to - from), part);
}

/* Row r of all parts, into the first; its maximum and sum there too. */
static void join_row(const qx_attn_head *h, int64_t rows, int64_t r, int64_t n, const float *sink, float *parts)
{
    const int64_t size = qx_attn_part(rows, h->dv), at = rows * h->dv + r;
    float top = sink ? *sink : -INFINITY, sum;
    for (int64_t p = 0; p < n; p++) top = parts[p * size + at] > top ? parts[p * size + at] : top;
    sum = sink ? fm_exp(*sink - top) : 0.0f;
    for (int64_t p = 0; p < n; p++) {
        const float *from = parts + p * size, f = from[at] == top ? 1.0f : fm_exp(from[at] - top);
        sum += f * from[at + rows];
        if (p == 0) fade_row(parts + r * h->dv, h->dv, f);
        else qx_axpy(f, from + r * h->dv, parts + r * h->dv, h->dv);
    }
    parts[at + rows] = sum;
}

void qx_attn_join(const qx_attn_head *h, const qx_attn_group *g, int64_t n, float *parts)
{
    const int64_t rows = g->heads * h->rows;
    for (int64_t r = 0; r < rows; r++) {
        float *y = h->y + r / h->rows * g->y + r % h->rows * h->ldy;
        join_row(h, rows, r, n, g->sink ? g->sink + r / h->rows : NULL, parts);
        const float sum = parts[rows * (h->dv + 1) + r];
        memcpy(y, parts + r * h->dv, (size_t)h->dv * sizeof *y);
        if (sum == 0 && h->nan_when_empty) fill_nan(y, h->dv);
        else scale_row(&h->v_codes, sum != 0 ? 1.0f / sum : 1.0f, y, h->dv);
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

void qx_attn_rows(const qx_attn_head *h, float *scratch)
{
    if (h->rows <= QX_ATTN_FEW && (h->kc == 1 || h->ldk == 1)) {
        const qx_attn_group one = {.heads = 1, .sink = h->has_sink ? &h->sink : NULL};
        qx_attn_few(h, &one, 0, h->keys, scratch, scratch + qx_attn_part(h->rows, h->dv));
        qx_attn_join(h, &one, 1, scratch);
        return;
    }
    work w = {.h = h, .vm = qx_vmath_cpu(qx_isa_best()), .pk = scratch};
    w.pv = w.pk + KEYS * h->d;
    w.s = w.pv + KEYS * round_up(h->dv);
    w.top = w.s + SCORES;
    w.sum = w.top + h->rows;
    w.plain = w.sum + h->rows;
    for (int64_t i = 0; i < h->rows; i++) {
        w.top[i] = h->has_sink ? h->sink : -INFINITY;
        w.sum[i] = h->has_sink ? 1.0f : 0.0f;
        memset(h->y + i * h->ldy, 0, (size_t)h->dv * sizeof *h->y);
    }
    cut_rows(&w);
    find_keys(&w);
    many_rows(&w);
    for (int64_t i = 0; i < h->rows; i++) {
        if (w.sum[i] != 0) fade_row(h->y + i * h->ldy, h->dv, 1.0f / w.sum[i]);
        else if (h->nan_when_empty) fill_nan(h->y + i * h->ldy, h->dv);
    }
}
