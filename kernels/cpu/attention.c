/* attention.c - see attention.h. */
#include "kernels/attention.h"

#include "kernels/fmath.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"

enum { KEYS = QX_ATTN_KEYS, SUB = 48, NR = QX_GEMM_NR }; /* SUB: query rows of a score tile */

static int64_t round_up(int64_t n) { return (n + NR - 1) / NR * NR; }

/* Layout of the scratch: packed K block, packed V block, scores of SUB rows, running maximum and sum of every row. */
int64_t qx_attn_scratch(int64_t rows, int64_t d, int64_t dv)
{
    return KEYS * d + KEYS * round_up(dv) + SUB * KEYS + 2 * rows;
}

QX_INLINE void softcap_row_body(float *s, int64_t n, float cap)
{
    float r = 1.0f / cap;
    for (int64_t j = 0; j < n; j++) s[j] = cap * fm_tanh(s[j] * r);
}
QX_MULTI(static, softcap_row, (float *s, int64_t n, float cap), (s, n, cap))

QX_INLINE void scale_row_body(float *s, int64_t n, float f, const float *mask)
{
    if (mask)
        for (int64_t j = 0; j < n; j++) s[j] = s[j] * f + mask[j];
    else
        for (int64_t j = 0; j < n; j++) s[j] *= f;
}
QX_MULTI(static, scale_row, (float *s, int64_t n, float f, const float *mask), (s, n, f, mask))

/* s = exp(s - m), its sum in *sum. */
QX_INLINE void exp_row_body(float *s, int64_t n, float m, float *sum)
{
    float lane[16] = {0};
    int64_t j = 0;
    for (; j + 16 <= n; j += 16)
        for (int q = 0; q < 16; q++) {
            float e = fm_exp(s[j + q] - m);
            s[j + q] = e;
            lane[q] += e;
        }
    for (int q = 0; j < n; j++, q++) {
        s[j] = fm_exp(s[j] - m);
        lane[q] += s[j];
    }
    for (int w = 8; w > 0; w /= 2)
        for (int q = 0; q < w; q++) lane[q] += lane[q + w];
    *sum = lane[0];
}
QX_MULTI(static, exp_row, (float *s, int64_t n, float m, float *sum), (s, n, m, sum))

QX_INLINE void max_row_body(const float *s, int64_t n, float *out)
{
    float lane[16], m;
    int64_t j = 0;
    for (int q = 0; q < 16; q++) lane[q] = -INFINITY;
    for (; j + 16 <= n; j += 16)
        for (int q = 0; q < 16; q++) lane[q] = s[j + q] > lane[q] ? s[j + q] : lane[q];
    for (; j < n; j++) lane[0] = s[j] > lane[0] ? s[j] : lane[0];
    m = lane[0];
    for (int q = 1; q < 16; q++) m = lane[q] > m ? lane[q] : m;
    *out = m;
}
QX_MULTI(static, max_row, (const float *s, int64_t n, float *out), (s, n, out))

static int64_t add_open(int64_t i, int64_t off) { return off == INT64_MIN || off == INT64_MAX ? off : i + off; }

/* Scores of row i against keys [from, from + n): scaled, capped, masked. */
static void finish_scores(const qx_attn_head *h, float *s, int64_t i, int64_t from, int64_t n)
{
    const float *mask = h->mask ? h->mask + i * h->ld_mask + from : NULL;
    if (h->softcap > 0) {
        scale_row(s, n, h->scale, NULL);
        softcap_row(s, n, h->softcap);
        if (mask) scale_row(s, n, 1.0f, mask);
    } else {
        scale_row(s, n, h->scale, mask);
    }
    for (int64_t j = 0; h->keep && j < n; j++)
        if (!h->keep[i * h->ld_keep + from + j]) s[j] = -INFINITY;
    int64_t lo = add_open(i, h->first), hi = add_open(i, h->last);
    for (int64_t j = 0; j < n && from + j < lo; j++) s[j] = -INFINITY;
    for (int64_t j = hi < from ? 0 : hi == INT64_MAX ? n : hi - from + 1; j < n; j++) s[j] = -INFINITY;
}

/* Takes a block of scores into the running maximum and sum of its row; the row of y so far is rescaled. Leaves exp(s - max) in s. */
static void absorb(const qx_attn_head *h, float *s, int64_t n, float *m, float *l, float *y)
{
    float top, sum;
    max_row(s, n, &top);
    top = top > *m ? top : *m;
    if (top == -INFINITY) { /* nothing visible so far */
        for (int64_t j = 0; j < n; j++) s[j] = s[j] != s[j] ? s[j] : 0;
        return;
    }
    exp_row(s, n, top, &sum);
    float fade = *m == top ? 1.0f : fm_exp(*m - top);
    if (fade != 1.0f)
        for (int64_t j = 0; j < h->dv; j++) y[j] *= fade;
    *l = *l * fade + sum;
    *m = top;
}

static void pack_block(const qx_attn_head *h, int64_t from, int64_t n, float *pk, float *pv)
{
    for (int64_t p = 0; p * NR < n; p++) qx_gemm_pack_panel(h->k + from * h->ldk, h->d, n, h->kc, h->ldk, p, pk + p * NR * h->d);
    for (int64_t p = 0; p * NR < h->dv; p++) qx_gemm_pack_panel(h->v + from * h->ldv, n, h->dv, h->ldv, 1, p, pv + p * NR * KEYS);
}

/* Query rows [r, r + m) against the packed block. */
static void sub_block(const qx_attn_head *h, int64_t r, int64_t m, int64_t from, int64_t n, const float *pk, const float *pv, float *s, float *top, float *sum)
{
    for (int64_t p = 0; p * NR < n; p++) {
        qx_gemm_tile t = {.x = h->q + r * h->ldq, .ldx = h->ldq, .cx = 1, .panel = pk + p * NR * h->d, .y = s + p * NR, .ldy = KEYS, .m = m, .k = h->d, .cols = n - p * NR < NR ? n - p * NR : NR};
        qx_gemm_panel(&t);
    }
    for (int64_t i = 0; i < m; i++) {
        finish_scores(h, s + i * KEYS, r + i, from, n);
        absorb(h, s + i * KEYS, n, &top[r + i], &sum[r + i], h->y + (r + i) * h->ldy);
    }
    for (int64_t p = 0; p * NR < h->dv; p++) {
        qx_gemm_tile t = {.x = s, .ldx = KEYS, .cx = 1, .panel = pv + p * NR * KEYS, .y = h->y + r * h->ldy + p * NR, .ldy = h->ldy, .m = m, .k = n,
                          .cols = h->dv - p * NR < NR ? h->dv - p * NR : NR, .add = true};
        qx_gemm_panel(&t);
    }
}

/* One or a few rows: packing would cost more than it saves. */
static void few_rows(const qx_attn_head *h, float *s, float *top, float *sum)
{
    for (int64_t i = 0; i < h->rows; i++)
        for (int64_t from = 0; from < h->keys; from += KEYS) {
            int64_t n = h->keys - from < KEYS ? h->keys - from : KEYS;
            if (from > add_open(i, h->last) || from + n - 1 < add_open(i, h->first)) continue;
            if (h->kc == 1) {
                for (int64_t j = 0; j < n; j++) s[j] = qx_dot(h->q + i * h->ldq, h->k + (from + j) * h->ldk, h->d);
            } else {
                for (int64_t j = 0; j < n; j++) s[j] = 0;
                for (int64_t c = 0; c < h->d; c++) qx_axpy(h->q[i * h->ldq + c], h->k + c * h->kc + from * h->ldk, s, n);
            }
            finish_scores(h, s, i, from, n);
            absorb(h, s, n, &top[i], &sum[i], h->y + i * h->ldy);
            for (int64_t j = 0; j < n; j++)
                if (s[j] != 0) qx_axpy(s[j], h->v + (from + j) * h->ldv, h->y + i * h->ldy, h->dv);
        }
}

static void fill_nan(float *y, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = NAN;
}

void qx_attn_rows(const qx_attn_head *h, float *scratch)
{
    float *pk = scratch, *pv = pk + KEYS * h->d, *s = pv + KEYS * round_up(h->dv), *top = s + SUB * KEYS, *sum = top + h->rows;
    for (int64_t i = 0; i < h->rows; i++) {
        top[i] = h->has_sink ? h->sink : -INFINITY;
        sum[i] = h->has_sink ? 1.0f : 0.0f;
        for (int64_t j = 0; j < h->dv; j++) h->y[i * h->ldy + j] = 0;
    }
    if (h->rows < 8 && (h->kc == 1 || h->ldk == 1)) few_rows(h, s, top, sum);
    else
        for (int64_t from = 0; from < h->keys; from += KEYS) {
            int64_t n = h->keys - from < KEYS ? h->keys - from : KEYS;
            if (from > add_open(h->rows - 1, h->last) || from + n - 1 < add_open(0, h->first)) continue; /* no row sees this block */
            pack_block(h, from, n, pk, pv);
            for (int64_t r = 0; r < h->rows; r += SUB) {
                int64_t m = h->rows - r < SUB ? h->rows - r : SUB;
                if (from > add_open(r + m - 1, h->last)) continue;
                sub_block(h, r, m, from, n, pk, pv, s, top, sum);
            }
        }
    for (int64_t i = 0; i < h->rows; i++) {
        if (sum[i] != 0) scale_row(h->y + i * h->ldy, h->dv, 1.0f / sum[i], NULL);
        else if (h->nan_when_empty) fill_nan(h->y + i * h->ldy, h->dv);
    }
}
