/* attention_tile.cu - attention of f16 and bf16 on matrix units (mma.sync m16n8k16, f32 sums) with an online softmax: masks,
 * causality, windows, grouped heads, head sizes to 256.
 *
 * The query heads that share a key head are rows of one matrix: virtual row v is row v / group of head v % group. So keys and
 * values are read once for all of them, and one token of a decoder still fills a tile. A block has 64 virtual rows, 16 a warp,
 * and walks over tiles of keys in shared memory; the scores stay in registers, where the layout of a product's result is that of
 * the next one's left operand. When there are too few blocks for the card, the keys are shared out over `splits` of them and a
 * second kernel joins the parts, in order. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix"; on the
 * host both are functions with that meaning. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/mma.h"

enum {
    /* halves behind a row: lanes of a fragment meet different banks */
    WARPS = 4, WARP_ROWS = 16, ROWS = WARPS * WARP_ROWS, THREADS = WARPS * 32, PAD = 8,
    MOST_D = 256, MOST_KEYS = 64, TILE = MOST_KEYS * (128 + PAD)                          /* 16 keys of 256, 64 of up to 128 */
};

#ifdef __CUDACC__
QK_INSIDE float exp2_of(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
#define exp2_of exp2f
#endif

/* Masks with a tensor and soft caps are rare and long: a call, not a copy for each of the unrolled elements. */
QK_APART float attn_score_apart(const qk_attn_args *a, int b, int h, int row, int key, float s) { return attn_score(a, b, h, row, key, s); }

/* Four fragments of a right operand for lane t: element (k, n) of 16 x 8. plain: from rows n of [key][d], columns d0 .. d0 + 31:
 * two steps of k. turned: from rows k of [key][d], columns d0 .. d0 + 15: two tiles of n. */
QK_INSIDE void fragments(int turned, uint32_t *r, const uint16_t *tile, int ld, int key0, int d0, int lane)
{
    const int m = lane / 8, key = turned ? (m & 1) * 8 + lane % 8 : lane % 8, d = turned ? (m >> 1) * 8 : m * 8;
    ldmatrix(turned, r, tile + (key0 + key) * ld + d0 + d);
}

/* rows: virtual ones; group: query heads of a key head */
typedef struct tile_place { attn_batch p; int hk, v0, first, last, rows, group, split; } tile_place;

QX_HD tile_place tile_place_of(const qk_attn_args *a, int64_t block, int keys)
{
    tile_place w;
    int first, last;
    w.group = (int)(a->heads / a->kv_heads);
    w.rows = (int)a->rows * w.group;
    const int tiles = (w.rows + ROWS - 1) / ROWS;
    w.split = (int)(block % a->splits);
    block /= a->splits;
    w.v0 = (int)(block % tiles) * ROWS;
    w.hk = (int)(block / tiles % a->kv_heads);
    w.p = attn_batch_of(a, (int)(block / tiles / a->kv_heads));
    const int v1 = w.v0 + ROWS < w.rows ? w.v0 + ROWS : w.rows;
    attn_span(a, w.p, w.v0 / w.group, (v1 - 1) / w.group, keys, &first, &last);
    const int steps = last > first ? (last - first + keys - 1) / keys : 0, each = (steps + a->splits - 1) / a->splits * keys;
    w.first = first + w.split * each;
    w.last = w.first + each < last ? w.first + each : last;
    return w;
}

QX_HD uint16_t half_at(const void *p, int64_t i) { return ((const uint16_t *)p)[i]; }

/* Rows k0 .. of keys or values into [keys][width + PAD], zeros where there is nothing. Complete behind a wait for the group and a
 * barrier. */
QK_INSIDE void load_tile(uint16_t *to, const qk_attn_view *v, int64_t base, int k0, int last, int64_t d, int width, int keys, int whole,
                         int t)
{
    const int ld = width + PAD;
    if (whole) { /* sixteen bytes at a time, which nobody waits for here */
        const uint16_t *from = (const uint16_t *)v->p + base;
        for (int e = t * 8; e < keys * width; e += THREADS * 8) {
            const int some = k0 + e / width < last && e % width < d;
            qk_copy_async(to + e / width * ld + e % width, some ? from + (k0 + e / width) * v->s + e % width : from, some);
        }
        return;
    }
    for (int e = t; e < keys * width; e += THREADS) {
        /* neighbours of a warp read along the stride that is 1 */
        const int key = v->d == 1 ? e / width : e % keys, c = v->d == 1 ? e % width : e / keys;
        to[key * ld + c] = k0 + key < last && c < d ? half_at(v->p, base + (k0 + key) * v->s + c * v->d) : (uint16_t)0;
    }
}

QX_HD uint32_t packed(int bf, float low, float high)
{
    return bf ? qk_f32_to_bf16(low) | (uint32_t)qk_f32_to_bf16(high) << 16 : qk_f32_to_f16(low) | (uint32_t)qk_f32_to_f16(high) << 16;
}

/* A virtual row of the block: -1: none. */
typedef struct query_row { int h, row; } query_row;
QX_HD query_row query_row_of(const tile_place *w, int t, int half)
{
    const int v = w->v0 + t / 32 * WARP_ROWS + t % 32 / 4 + half * 8;
    const query_row r = {w->hk * w->group + v % w->group, v < w->rows ? v / w->group : -1};
    return r;
}

/* Columns of the query from HELD on lie in shared memory, behind the tiles of keys (rows of warps 0 and 1) and values: there are
 * not registers enough for them. */
enum { HELD = 128, SPARE = HELD + PAD };
QX_HD uint16_t *spare_row(uint16_t *ks, uint16_t *vs, int t, int half, int tile)
{
    return (t / 64 ? vs : ks) + tile + (t / 32 % 2 * WARP_ROWS + t % 32 / 4 + half * 8) * SPARE + t % 4 * 2;
}

/* The left operand's registers of the warp: row g or g + 8, columns 2 t and behind it, of step i / 4. */
QK_INSIDE void load_query(const qk_attn_args *a, const tile_place *w, int t, int half, const int D, uint32_t *qf, uint16_t *spare)
{
    const query_row r = query_row_of(w, t, half);
    const uint16_t *q = (const uint16_t *)a->q.p + (w->p.b * a->q.b + r.h * a->q.h + r.row * a->q.s);
    QK_UNROLL for (int i = 0; i < D / 8; i++) {
        const int64_t d = i * 8 + t % 4 * 2;
        const uint32_t low = r.row >= 0 && d < a->dk ? q[d * a->q.d] : 0u, high = r.row >= 0 && d + 1 < a->dk ? q[(d + 1) * a->q.d] : 0u;
        if (i < HELD / 8) qf[i / 2 * 4 + i % 2 * 2 + half] = low | high << 16;
        else *(uint32_t *)(void *)(spare + i * 8 - HELD) = low | high << 16;
    }
}

/* Scores of one row to units of log2, with everything that masks them; the largest. */
QK_INSIDE float finish_scores(const qk_attn_args *a, const tile_place *w, int k0, int t, int half, int plain, const int KEYS, float *sc)
{
    const query_row r = query_row_of(w, t, half);
    const float none = qx_of_bits(0xff800000u), log2e = 1.44269504f;
    const int own = a->mask.p || a->softcap > 0;
    float most = none;
    QK_UNROLL for (int i = 0; i < KEYS / 4; i++) {
        const int at = i / 2 * 4 + half * 2 + i % 2;
        const int key = k0 + i / 2 * 8 + t % 4 * 2 + i % 2;
        const int sees = plain || (r.row >= 0 && attn_sees(a, w->p, r.row, key));
        sc[at] = sees ? sc[at] * a->scale : none;
        if (own && sees) sc[at] = attn_score_apart(a, w->p.b, r.h, r.row, key, sc[at]);
        sc[at] *= log2e;
        most = sc[at] > most ? sc[at] : most;
    }
    return most;
}

/* Nothing but the scale stands between product and softmax for any pair of the tile. */
QX_HD int tile_is_plain(const qk_attn_args *a, const tile_place *w, int k0, int keys)
{
    if (a->mask.p || a->left >= 0 || a->softcap > 0 || k0 + keys > w->last) return 0;
    return !a->causal || k0 + keys - 1 <= w->v0 / w->group + w->p.offset;
}

/* What turns a row's sums into its result: `top` is in units of log2. A row without a key gives 0. */
QK_INSIDE float attn_factor(const qk_attn_args *a, int h, float top, float sum)
{
    int is;
    const float sink = attn_sink(a, h, &is) * 1.44269504f, m = is && sink > top ? sink : top;
    if (!(sum > 0)) return 0.0f;
    const float f = exp2_of(top - m);
    return f / (sum * f + (is ? exp2_of(sink - m) : 0.0f));
}

/* A row of the result, or of a part: part[split][b][h][row] is [dv] sums, their maximum and their weight. */
QK_INSIDE void store_row(const qk_attn_args *a, const tile_place *w, int t, int half, const int D, const float *out, float top,
                         float sum, const int codes)
{
    const query_row r = query_row_of(w, t, half);
    const float inv = codes ? a->p_scale : attn_factor(a, r.h, top, sum);
    const int64_t at = w->p.b * a->yb + r.h * a->yh + r.row * a->ys,
        part = ((((int64_t)w->split * a->batch + w->p.b) * a->heads + r.h) * a->rows + r.row) * (a->dv + 2);
    if (r.row < 0) return;
    QK_UNROLL for (int i = 0; i < D / 4; i++) {
        const int64_t d = i / 2 * 8 + t % 4 * 2 + i % 2;
        const float v = out[i / 2 * 4 + half * 2 + i % 2];
        if (d >= a->dv) continue;
        if (a->splits > 1) a->part[part + d] = v;
        else qk_put_real(a->y, a->dtype, at + d, v * inv);
    }
    if (a->splits > 1 && t % 4 == 0) a->part[part + a->dv] = top, a->part[part + a->dv + 1] = sum;
}

/* ---- the parts of a block's work; D: the head size rounded up to what fills whole fragments, KEYS of a tile: constants of the
 * kernels below, so that the arrays are registers ---- */

enum { Q_REGS = HELD / 16 * 4, OUT_REGS = MOST_D / 8 * 4, SCORE_REGS = MOST_KEYS / 8 * 4 };

/* sc = q k' of the tile, sixteen rows a warp. */
QK_INSIDE void tile_scores(uint16_t *ks, uint16_t *vs, uint32_t *qf, float *sc, const int D, const int KEYS, const int bf)
{
    const int t = QK_THREAD;
    uint32_t qv[8], bv[4];
    QK_UNROLL for (int j = 0; j < KEYS / 8; j++) {
        QK_UNROLL for (int i = 0; i < 4; i++) sc[4 * j + i] = 0;
        QK_UNROLL for (int d = 0; d < D / 32; d++) {
            fragments(0, bv, ks, D + PAD, 8 * j, 32 * d, t % 32);
            if (32 * d < HELD) {
                mma(bf ? QK_BF16 : QK_F16, sc + 4 * j, qf + 8 * d, bv);
                mma(bf ? QK_BF16 : QK_F16, sc + 4 * j, qf + 8 * d + 4, bv + 2);
            } else {
                QK_UNROLL for (int i = 0; i < 8; i++)
                    qv[i] = *(const uint32_t *)(const void *)(spare_row(ks, vs, t, i % 2, KEYS * (D + PAD)) + 32 * d - HELD + i / 2 * 8);
                mma(bf ? QK_BF16 : QK_F16, sc + 4 * j, qv, bv);
                mma(bf ? QK_BF16 : QK_F16, sc + 4 * j, qv + 4, bv + 2);
            }
        }
    }
}

/* What every row has had so far shrinks to the new maximum m, and the scores become weights. D 0: there are no sums of values yet. */
QK_INSIDE void rescale_row(int half, float m, float *sc, float *out, float *top, float *sum, const int D, const int KEYS)
{
    const float keep = m == qx_of_bits(0xff800000u) ? 0.0f : m, shrink = exp2_of(*top - keep);
    float s = 0;
    QK_UNROLL for (int i = 0; i < KEYS / 4; i++) {
        const int at = i / 2 * 4 + half * 2 + i % 2;
        sc[at] = exp2_of(sc[at] - keep);
        s += sc[at];
    }
    *top = m;
    *sum = *sum * shrink + s;
    QK_UNROLL for (int i = 0; i < D / 4; i++) out[i / 2 * 4 + half * 2 + i % 2] *= shrink;
}

QK_INSIDE void tile_softmax(const qk_attn_args *a, const tile_place *w, int k0, float *sc, float *out, float *top, float *sum,
                            const int D, const int KEYS)
{
    const int t = QK_THREAD;
    const int plain = tile_is_plain(a, w, k0, KEYS);
    float most[2]; /* of a row, over a lane's own columns, over a pair of lanes, over all four */
    QK_UNROLL for (int h = 0; h < 2; h++) most[h] = finish_scores(a, w, k0, t, h, plain, KEYS, sc);
    QK_UNROLL for (int mask = 1; mask <= 2; mask *= 2)
        QK_UNROLL for (int h = 0; h < 2; h++) most[h] = fmaxf(most[h], lane_xor(most[h], mask));
    QK_UNROLL for (int h = 0; h < 2; h++) rescale_row(h, fmaxf(top[h], most[h]), sc, out, &top[h], &sum[h], D, KEYS);
}

/* A row's maximum and sum of a first walk become what its scores are held against: factor * 2^(score - top) is a probability. */
QK_INSIDE void row_ends(const qk_attn_args *a, const tile_place *w, float *top, float *sum)
{
    QK_UNROLL for (int h = 0; h < 2; h++) {
        const float pair = sum[h] + lane_xor(sum[h], 1), all = pair + lane_xor(pair, 2);
        sum[h] = attn_factor(a, query_row_of(w, QK_THREAD, h).h, top[h], all);
        if (!(all > 0)) top[h] = 0;
    }
}

/* The scores become codes. */
QK_INSIDE void tile_codes(const qk_attn_args *a, const tile_place *w, int k0, float *sc, const float *top, const float *factor,
                          const int KEYS)
{
    const int plain = tile_is_plain(a, w, k0, KEYS);
    QK_UNROLL for (int h = 0; h < 2; h++) {
        finish_scores(a, w, k0, QK_THREAD, h, plain, KEYS, sc);
        QK_UNROLL for (int i = 0; i < KEYS / 4; i++) {
            const int at = i / 2 * 4 + h * 2 + i % 2;
            sc[at] = attn_code(a, exp2_of(sc[at] - top[h]) * factor[h]);
        }
    }
}

/* out += p v of the tile. */
QK_INSIDE void tile_values(const uint16_t *vs, float *sc, float *out, const int D, const int KEYS, const int bf)
{
    const int t = QK_THREAD;
    uint32_t pf[4], bv[4];
    QK_UNROLL for (int k = 0; k < KEYS / 16; k++) {
        QK_UNROLL for (int i = 0; i < 4; i++) pf[i] = packed(bf, sc[8 * k + 2 * i], sc[8 * k + 2 * i + 1]);
        QK_UNROLL for (int d = 0; d < D / 16; d++) {
            fragments(1, bv, vs, D + PAD, 16 * k, 16 * d, t % 32);
            mma(bf ? QK_BF16 : QK_F16, out + 8 * d, pf, bv);
            mma(bf ? QK_BF16 : QK_F16, out + 8 * d + 4, pf, bv + 2);
        }
    }
}

/* Sums of four lanes, and the rows. */
QK_INSIDE void tile_store(const qk_attn_args *a, const tile_place *w, float *out, float *top, float *sum, const int D, const int codes)
{
    const int t = QK_THREAD;
    QK_UNROLL for (int h = 0; h < 2; h++) {
        const float pair = sum[h] + lane_xor(sum[h], 1);
        store_row(a, w, t, h, D, out, top[h], pair + lane_xor(pair, 2), codes);
    }
}

/* Walks along the keys for the maxima and sums of rows alone. */
QK_INSIDE void walk_for_sums(const qk_attn_args *a, const tile_place *w, uint16_t *ks, uint16_t *vs, uint32_t *qf, float *sc, float *top,
                             float *sum, const int D, const int KEYS, const int bf)
{
    const int64_t base = w->p.b * a->k.b + w->hk * a->k.h;
    for (int k0 = w->first; k0 < w->last; k0 += KEYS) {
        load_tile(ks, &a->k, base, k0, w->last, a->dk, D, KEYS, a->whole & 1, QK_THREAD);
        QK_ASYNC_GROUP();
        QK_ASYNC_WAIT(0);
        QK_SYNC();
        tile_scores(ks, vs, qf, sc, D, KEYS, bf);
        tile_softmax(a, w, k0, sc, sc, top, sum, 0, KEYS);
        QK_SYNC(); /* everybody is done with the keys */
    }
    row_ends(a, w, top, sum);
}

QK_INSIDE void tile_body(const qk_attn_args *a, const int D, const int KEYS, const int bf, const int codes)
{
    const int t = QK_THREAD;
    QK_SHARED(uint16_t, ks, TILE);
    QK_SHARED(uint16_t, vs, TILE);
    uint32_t qf[Q_REGS];
    float out[OUT_REGS], sc[SCORE_REGS], top[2], sum[2];
    const tile_place w = tile_place_of(a, QK_BLOCK, KEYS);
    const int64_t k_base = w.p.b * a->k.b + w.hk * a->k.h, v_base = w.p.b * a->v.b + w.hk * a->v.h;
    QK_UNROLL for (int h = 0; h < 2; h++) {
        load_query(a, &w, t, h, D, qf, spare_row(ks, vs, t, h, KEYS * (D + PAD)));
        top[h] = qx_of_bits(0xff800000u), sum[h] = 0;
    }
    if (codes) walk_for_sums(a, &w, ks, vs, qf, sc, top, sum, D, KEYS, bf);
    QK_UNROLL for (int i = 0; i < D / 2; i++) out[i] = 0;
    /* Values come while keys are multiplied, the next keys while values are: one buffer each is enough. */
    if (w.first < w.last) load_tile(ks, &a->k, k_base, w.first, w.last, a->dk, D, KEYS, a->whole & 1, t);
    QK_ASYNC_GROUP();
    for (int k0 = w.first; k0 < w.last; k0 += KEYS) {
        QK_ASYNC_WAIT(0);
        QK_SYNC(); /* the keys are here, and everybody is done with the values before */
        load_tile(vs, &a->v, v_base, k0, w.last, a->dv, D, KEYS, a->whole & 2, t);
        QK_ASYNC_GROUP();
        tile_scores(ks, vs, qf, sc, D, KEYS, bf);
        QK_SYNC(); /* everybody is done with the keys */
        if (k0 + KEYS < w.last) load_tile(ks, &a->k, k_base, k0 + KEYS, w.last, a->dk, D, KEYS, a->whole & 1, t);
        QK_ASYNC_GROUP();
        if (codes) tile_codes(a, &w, k0, sc, top, sum, KEYS);
        else tile_softmax(a, &w, k0, sc, out, top, sum, D, KEYS);
        QK_ASYNC_WAIT(1);
        QK_SYNC(); /* the values are here */
        tile_values(vs, sc, out, D, KEYS, bf);
    }
    tile_store(a, &w, out, top, sum, D, codes);
}

/* The kernels: head sizes up to 64, 128 and 256 in f16 and bf16; and with probabilities that become codes. */
#define TILE_KERNEL(name, d, keys, bf)                                                                                            \
    QK_KERNEL_RESIDENT(name, qk_attn_args, THREADS, d == 64 ? 3 : 2) { tile_body(&a, d, keys, bf, 0); }                           \
    QK_KERNEL_RESIDENT(name##_codes, qk_attn_args, THREADS, d == 64 ? 3 : 2) { tile_body(&a, d, keys, bf, 1); }                   \
    static int launch_##name(qk_queue q, const qk_attn_args *a, int64_t blocks)                                                   \
    {                                                                                                                             \
        return a->p_scale > 0 ? QK_LAUNCH(name##_codes, blocks, THREADS, q, a) : QK_LAUNCH(name, blocks, THREADS, q, a);          \
    }
TILE_KERNEL(tile_f16_64, 64, 64, 0)
TILE_KERNEL(tile_f16_128, 128, 64, 0)
TILE_KERNEL(tile_bf16_64, 64, 64, 1)
TILE_KERNEL(tile_bf16_128, 128, 64, 1)
TILE_KERNEL(tile_f16_256, 256, 16, 0)
TILE_KERNEL(tile_bf16_256, 256, 16, 1)

/* Parts of all splits into one result: maxima are in units of log2. */
QK_KERNEL(join_kernel, qk_attn_args)
{
    const int64_t rows = a.batch * a.heads * a.rows, stride = rows * (a.dv + 2);
    QK_EACH(i, rows * a.dv) {
        const float *p = a.part + i / a.dv * (a.dv + 2);
        const float none = qx_of_bits(0xff800000u);
        float top = none, sum = 0, o = 0;
        for (int s = 0; s < a.splits; s++) top = fmaxf(top, p[s * stride + a.dv]);
        for (int s = 0; s < a.splits && top != none; s++) {
            const float f = exp2_of(p[s * stride + a.dv] - top);
            sum += f * p[s * stride + a.dv + 1];
            o += f * p[s * stride + i % a.dv];
        }
        const int64_t row = i / a.dv % a.rows, h = i / a.dv / a.rows % a.heads, b = i / a.dv / a.rows / a.heads;
        qk_put_real(a.y, a.dtype, b * a.yb + h * a.yh + row * a.ys + i % a.dv, o * attn_factor(&a, (int)h, top, sum));
    }
}

/* Sixteen bytes at a time: rows of whole pieces at addresses that are multiples of them. */
static int whole_rows(const qk_attn_view *v, int64_t d)
{
    return v->d == 1 && d % 8 == 0 && ((uintptr_t)v->p | (uintptr_t)(v->b * 2) | (uintptr_t)(v->h * 2) | (uintptr_t)(v->s * 2)) % 16 == 0;
}

static int launch_tiles(qk_queue q, const qk_attn_args *a, int64_t blocks)
{
    const int64_t d = a->dk > a->dv ? a->dk : a->dv;
    const int bf = a->dtype == QK_BF16;
    if (d <= 64) return bf ? launch_tile_bf16_64(q, a, blocks) : launch_tile_f16_64(q, a, blocks);
    if (d <= 128) return bf ? launch_tile_bf16_128(q, a, blocks) : launch_tile_f16_128(q, a, blocks);
    return bf ? launch_tile_bf16_256(q, a, blocks) : launch_tile_f16_256(q, a, blocks);
}

static int64_t tile_blocks(const qk_attn_args *a)
{
    return a->batch * a->kv_heads * ((a->rows * (a->heads / a->kv_heads) + ROWS - 1) / ROWS);
}

/* Splits that fill a card of some hundred multiprocessors, each with at least two tiles of keys. Codes want the sums of whole rows: one. */
QK_EXTERN int qk_attention_splits(const qk_attn_args *a)
{
    enum { ENOUGH = 256, LEAST_KEYS = 128, MOST = 32 };
    const int64_t blocks = tile_blocks(a), by_keys = a->keys / LEAST_KEYS;
    int64_t n = blocks > 0 ? ENOUGH / blocks : 1;
    n = n < by_keys ? n : by_keys;
    return a->dtype == QK_F32 || a->p_scale > 0 || n < 2 ? 1 : n < MOST ? (int)n : MOST;
}

int qk_attention_tile(qk_queue q, const qk_attn_args *args)
{
    qk_attn_args a = *args;
    a.whole = whole_rows(&a.k, a.dk) | whole_rows(&a.v, a.dv) << 1;
    if (a.splits < 1 || a.p_scale > 0) a.splits = 1;
    const int err = launch_tiles(q, &a, tile_blocks(&a) * a.splits);
    return err || a.splits == 1 ? err : QK_LAUNCH(join_kernel, QK_EACH_BLOCKS(a.batch * a.heads * a.rows * a.dv), 256, q, &a);
}
