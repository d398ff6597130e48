/* cache.cu - key and value caches of GroupQueryAttention: how many keys each batch entry has, and the new cache from the old one
 * and the new rows. Lengths are read where they lie, so a decoder's steps are the same launches with the same arguments.
 * Definitions: runtime/cpu/attention/gqa.c and runtime/cpu/attention/kv_codes.c. */
#include "kernels/cuda/elem.h"

QK_KERNEL(lengths_kernel, qk_lengths_args)
{
    QK_EACH(b, a.batch) {
        const int64_t total = qk_int(a.total, a.ttype, 0);
        int64_t count = qk_int(a.seq, a.stype, b) + 1, past = a.rows == total ? 0 : count - a.rows;
        if (count < 1 || past < 0 || past > a.past_cap || past + a.rows > a.cap || count > a.cap || total < a.rows) {
            *a.bad = 1;
            past = 0;
            count = a.rows; /* at most cap: nothing is written or read out of bounds */
        }
        a.lengths[b] = (int32_t)count;
        a.offsets[b] = (int32_t)past;
        a.starts[b] = past;
    }
}
QK_EXTERN int qk_cache_lengths(qk_queue q, const qk_lengths_args *a)
{
    return QK_LAUNCH(lengths_kernel, QK_EACH_BLOCKS(a->batch), 256, q, a);
}

/* One element: its code (the number's bits when the cache is not of codes), and its value. */
typedef struct kv_element { uint32_t code; float value; } kv_element;

QX_HD float kv_value(int codes, uint32_t c)
{
    if (codes == QK_E4M3) return qx_sc_e4m3_to_f32((uint8_t)c);
    return codes == QK_I8 ? (float)(int8_t)c : (float)((int)c - 8);
}

QX_HD kv_element kv_encode(int codes, float x, float scale)
{
    const float v = x / scale;
    kv_element e;
    if (codes == QK_E4M3) e.code = qx_sc_f32_to_e4m3(v, 1);
    else if (codes == QK_I8) e.code = (uint32_t)(int)qx_rne_clamp(v, -128.0f, 127.0f) & 0xffu;
    else e.code = (uint32_t)((int)qx_rne_clamp(v, -8.0f, 7.0f) + 8);
    e.value = kv_value(codes, e.code) * scale;
    return e;
}

/* Where a piece of EACH elements of the new cache comes from. */
typedef struct kv_place { int64_t b, h, r, k, fresh; } kv_place; /* fresh: offset among the new rows, -1: not one of them */
QX_HD kv_place kv_place_of(const qk_cache_args *a, int64_t i)
{
    const int64_t row = i / a->d, head = row / a->cap;
    kv_place p = {head / a->heads, head % a->heads, row % a->cap, i % a->d, -1};
    const int64_t s = p.r - a->starts[p.b];
    if (s >= 0 && s < a->rows) p.fresh = p.b * a->fb + s * a->fs + p.h * a->fh + p.k;
    return p;
}

QX_HD int64_t kv_past(const qk_cache_args *a, const kv_place *p) { return ((p->b * a->heads + p->h) * a->past_cap + p->r) * a->d + p->k; }

/* Of reals: the bits as they are. */
QK_INSIDE void cache_reals(const qk_cache_args *a, const int64_t i, const int EACH)
{
    const kv_place p = kv_place_of(a, i);
    const void *from = p.fresh >= 0 ? a->fresh : a->past;
    const int64_t at = p.fresh >= 0 ? p.fresh : kv_past(a, &p);
    float v[QK_WIDE] = {0, 0, 0, 0, 0, 0, 0, 0};
    const int some = p.fresh >= 0 || (a->past && p.r < a->starts[p.b]);
    if (EACH == 1) qk_put_real(a->cache, a->dtype, i, some ? qk_real(from, a->dtype, at) : 0.0f);
    if (EACH == 1) return;
    if (some) qk_real8(from, a->dtype, at, v);
    qk_put_real8(a->cache, a->dtype, i, v);
}

/* Of codes: what attention sees is what is stored. */
QK_INSIDE void cache_codes(const qk_cache_args *a, const int64_t i, const int EACH)
{
    const kv_place p = kv_place_of(a, i);
    const int four = a->codes == QK_U4;
    uint64_t word = four ? 0x88888888u : 0; /* codes of 0 */
    float v[QK_WIDE] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (p.fresh < 0 && a->past && p.r < a->starts[p.b]) {
        const uint8_t *old = (const uint8_t *)a->past + kv_past(a, &p) / (four ? 2 : 1);
        word = EACH == 1 ? *old : four ? *(const uint32_t *)(const void *)old : *(const uint64_t *)(const void *)old;
    }
    if (p.fresh >= 0) {
        word = 0;
        if (EACH == 1) v[0] = qk_real(a->fresh, a->dtype, p.fresh);
        else qk_real8(a->fresh, a->dtype, p.fresh, v);
    }
    QK_UNROLL for (int k = 0; k < EACH; k++) {
        const float scale = qk_real(a->scale, a->stype, a->per_channel ? p.h * a->d + p.k + k : 0);
        const int bit = (four ? 4 : 8) * k;
        if (p.fresh >= 0) {
            const kv_element e = kv_encode(a->codes, v[k], scale);
            word |= (uint64_t)e.code << bit;
            v[k] = e.value;
        } else {
            v[k] = kv_value(a->codes, (uint32_t)(word >> bit) & (four ? 15u : 255u)) * scale;
        }
    }
    if (EACH == 1) {
        ((uint8_t *)a->cache)[i] = (uint8_t)word;
        qk_put_real(a->values, a->dtype, i, v[0]);
        return;
    }
    if (four) ((uint32_t *)a->cache)[i / QK_WIDE] = (uint32_t)word;
    else ((uint64_t *)a->cache)[i / QK_WIDE] = word;
    qk_put_real8(a->values, a->dtype, i, v);
}

QK_KERNEL(cache_kernel, qk_cache_args)
{
    QK_EACH(piece, a.batch * a.heads * a.cap * a.d / (a.wide ? QK_WIDE : 1)) {
        if (a.wide && a.codes) cache_codes(&a, piece * QK_WIDE, QK_WIDE);
        else if (a.wide) cache_reals(&a, piece * QK_WIDE, QK_WIDE);
        else if (a.codes) cache_codes(&a, piece, 1);
        else cache_reals(&a, piece, 1);
    }
}
QK_EXTERN int qk_cache_fill(qk_queue q, const qk_cache_args *args)
{
    qk_cache_args a = *args;
    const int size = a.dtype == QK_F32 ? 4 : 2;
    a.wide = a.codes == QK_U4 || (a.d % QK_WIDE == 0 && a.fb * size % 16 == 0 && a.fs * size % 16 == 0 && a.fh * size % 16 == 0 &&
                                  qk_is_wide(a.fresh) && qk_is_wide(a.cache));
    return QK_LAUNCH(cache_kernel, QK_EACH_BLOCKS(a.batch * a.heads * a.cap * a.d / (a.wide ? QK_WIDE : 1)), 256, q, &a);
}
