/* attention.cu - attention of f32 in tiles: the scores of 16 queries against 16 keys exist in shared memory only, with a running
 * maximum and sum for each query (online softmax). f32 sums; any strides, grouped heads, masks, windows, head sizes up to 256.
 * 16-bit types go to attention_tile.cu. */
#include "kernels/cuda/attention.h"

enum { BQ = 16, BK = 16, MOST_D = 256, ATTN_THREADS = 256, OUT_PER = BQ * MOST_D / ATTN_THREADS };

typedef struct place { attn_batch p; int h, hk, r0, first, last; } place;

QX_HD place place_of(const qk_attn_args *a, int64_t block)
{
    const int64_t tiles = (a->rows + BQ - 1) / BQ;
    place w;
    w.r0 = (int)(block % tiles) * BQ;
    w.h = (int)(block / tiles % a->heads);
    w.hk = w.h / (int)(a->heads / a->kv_heads);
    w.p = attn_batch_of(a, (int)(block / tiles / a->heads));
    attn_span(a, w.p, w.r0, w.r0 + BQ - 1, BK, &w.first, &w.last);
    return w;
}

/* The score of this thread's query r and key j of the tile. */
QK_INSIDE float tile_score(const qk_attn_args *a, const place *w, const float *qs, const float *ks, int r, int j, int k0)
{
    float s = 0;
    for (int64_t d = 0; d < a->dk; d++) s = fmaf(qs[r * MOST_D + d], ks[j * MOST_D + d], s);
    if (w->r0 + r >= a->rows || !attn_sees(a, w->p, w->r0 + r, k0 + j)) return qx_of_bits(0xff800000u);
    return attn_score(a, w->p.b, w->h, w->r0 + r, k0 + j, s * a->scale);
}

/* The row's scores become weights; *shrink: of what it has had so far. */
QK_INSIDE void row_softmax(float *sc, float *top, float *sum, float *shrink)
{
    const float none = qx_of_bits(0xff800000u);
    float m = *top, s = 0;
    for (int j = 0; j < BK; j++) m = sc[j] > m ? sc[j] : m;
    const float keep = m == none ? 0.0f : m;
    for (int j = 0; j < BK; j++) s += sc[j] = fm_exp(sc[j] - keep);
    *shrink = *top == none ? 0.0f : fm_exp(*top - keep);
    *sum = *sum * *shrink + s;
    *top = m;
}

/* With the maximum and the sum of the whole row: codes. */
QK_INSIDE void row_codes(const qk_attn_args *a, float *sc, float top, float sum)
{
    for (int j = 0; j < BK; j++) sc[j] = sum > 0 ? attn_code(a, fm_exp(sc[j] - top) / sum) : 0.0f;
}

QK_KERNEL_RESIDENT(attention_kernel, qk_attn_args, ATTN_THREADS, 2)
{
    const int t = QK_THREAD;
    QK_SHARED(float, qs, BQ * MOST_D);
    QK_SHARED(float, ks, BK * MOST_D); /* keys, then values */
    QK_SHARED(float, sc, BQ * (BK + 1));
    QK_SHARED(float, top, BQ);
    QK_SHARED(float, sum, BQ);
    QK_SHARED(float, shrink, BQ);
    float acc[OUT_PER];
    const place w = place_of(&a, QK_BLOCK);
    const float none = qx_of_bits(0xff800000u);
    for (int i = 0; i < OUT_PER; i++) acc[i] = 0;
    for (int e = t; e < BQ * a.dk; e += QK_NT) {
        const int64_t r = w.r0 + e / a.dk;
        qs[e / a.dk * MOST_D + e % a.dk] = r < a.rows ? qk_real(a.q.p, a.dtype,
                                                                w.p.b * a.q.b + w.h * a.q.h + r * a.q.s + e % a.dk * a.q.d) : 0.0f;
    }
    if (t < BQ) {
        top[t] = none;
        sum[t] = 0;
        shrink[t] = 1;
    }
    const int codes = a.p_scale > 0, span = w.last > w.first ? (w.last - w.first + BK - 1) / BK * BK : 0;
    for (int at = codes ? -span : 0; at < span; at += BK) { /* below 0: for the sums alone */
        const int k0 = w.first + (at < 0 ? at + span : at);
        QK_SYNC();
        for (int e = t; e < BK * a.dk; e += QK_NT) {
            /* neighbours of a warp read along the stride that is 1 */
            const int64_t j = a.k.d == 1 ? e / a.dk : e % BK, d = a.k.d == 1 ? e % a.dk : e / BK;
            ks[j * MOST_D + d] = k0 + j < w.last ? qk_real(a.k.p, a.dtype, w.p.b * a.k.b + w.hk * a.k.h + (k0 + j) * a.k.s + d * a.k.d)
                : 0.0f;
        }
        QK_SYNC();
        sc[t / BK * (BK + 1) + t % BK] = tile_score(&a, &w, qs, ks, t / BK, t % BK, k0);
        QK_SYNC();
        if (t < BQ && (at < 0 || !codes)) row_softmax(&sc[t * (BK + 1)], &top[t], &sum[t], &shrink[t]);
        if (at < 0) continue;
        if (t < BQ && codes) row_codes(&a, &sc[t * (BK + 1)], top[t], sum[t]);
        for (int e = t; e < BK * a.dv; e += QK_NT) /* every thread has read the keys */
            ks[e / a.dv * MOST_D + e % a.dv] = k0 + e / a.dv < w.last
                ? qk_real(a.v.p, a.dtype, w.p.b * a.v.b + w.hk * a.v.h + (k0 + e / a.dv) * a.v.s + e % a.dv * a.v.d) : 0.0f;
        QK_SYNC();
        for (int i = 0; i < OUT_PER; i++) {
            const int e = t + i * ATTN_THREADS, r = e / MOST_D, d = e % MOST_D;
            if (d >= a.dv) continue;
            float o = codes ? acc[i] : acc[i] * shrink[r];
            for (int j = 0; j < BK; j++) o = fmaf(sc[r * (BK + 1) + j], ks[j * MOST_D + d], o);
            acc[i] = o;
        }
    }
    QK_SYNC();
    if (t < BQ && a.sink) { /* a row without a key stays one */
        int is;
        const float s = attn_sink(&a, w.h, &is), m = s > top[t] ? s : top[t];
        shrink[t] = top[t] == none ? 0.0f : fm_exp(top[t] - m);
        sum[t] = sum[t] > 0 ? sum[t] * shrink[t] + fm_exp(s - m) : 0.0f;
    }
    QK_SYNC();
    for (int i = 0; i < OUT_PER; i++) {
        const int e = t + i * ATTN_THREADS, r = e / MOST_D, d = e % MOST_D;
        if (a.sink) acc[i] *= shrink[r];
        if (d < a.dv && w.r0 + r < a.rows) /* a row without a key gives 0 */
            qk_put_real(a.y, a.dtype, w.p.b * a.yb + w.h * a.yh + (w.r0 + r) * a.ys + d,
                        sum[r] > 0 ? codes ? acc[i] * a.p_scale : acc[i] / sum[r] : 0.0f);
    }
}
QK_EXTERN int qk_attention(qk_queue q, const qk_attn_args *a)
{
    if (a->dtype != QK_F32) return qk_attention_tile(q, a);
    return QK_LAUNCH(attention_kernel, a->batch * a->heads * ((a->rows + BQ - 1) / BQ), ATTN_THREADS, q, a);
}
