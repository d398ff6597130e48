/* rows.cu - one block a row: softmax, normalisations, reductions, running sums. A block's threads keep partial sums that are
 * folded in a fixed order, so results do not depend on scheduling. Sums are f32 as on the CPU; the order differs from the CPU's,
 * so they agree to a few units in the last place. */
#include <math.h>

#include "kernels/cuda/act.h"
#include "kernels/pointwise.h"
#include "kernels/rows.h"

enum { ROW_THREADS = 256 };
#define MAX_OF(u, v) ((u) != (u) ? (u) : (u) > (v) ? (u) : (v))

QK_KERNEL(softmax_kernel, qk_softmax_args)
{
    const int t = QK_THREAD;
    QK_SHARED(float, red, ROW_THREADS);
    const int64_t base = QK_BLOCK / a.inner * a.d * a.inner + QK_BLOCK % a.inner, step = a.inner;
    float m = qx_of_bits(0xff800000u);
    for (int64_t k = t; k < a.d; k += QK_NT) {
        const float x = qk_real(a.x, a.dtype, base + k * step);
        m = x > m ? x : m;
    }
    red[t] = m;
    QK_FOLD(red, u > v ? u : v);
    const float top = red[0];
    QK_SYNC(); /* everybody has read it before it is used again */
    float s = 0;
    for (int64_t k = t; k < a.d; k += QK_NT) s += fm_exp(qk_real(a.x, a.dtype, base + k * step) - top);
    red[t] = s;
    QK_FOLD(red, u + v);
    const float sum = red[0], inv = 1.0f / sum, shift = a.log ? logf(sum) + top : top;
    for (int64_t k = t; k < a.d; k += QK_NT) {
        const float x = qk_real(a.x, a.dtype, base + k * step) - shift;
        qk_put_real(a.y, a.dtype, base + k * step, a.log ? x : fm_exp(x) * inv);
    }
}
QK_EXTERN int qk_softmax(qk_queue q, const qk_softmax_args *a)
{
    const int threads = a->d <= 32 ? 32 : a->d <= 128 ? 128 : ROW_THREADS;
    return QK_LAUNCH(softmax_kernel, a->outer * a->inner, threads, q, a);
}

/* EACH neighbours from `at` on. */
QK_INSIDE void reals_at(const void *p, int dtype, int64_t at, float *v, const int EACH)
{
    if (EACH == 1) v[0] = qk_real(p, dtype, at);
    else qk_real8(p, dtype, at, v);
}

QK_INSIDE void put_reals(void *p, int dtype, int64_t at, const float *v, const int EACH)
{
    if (EACH == 1) qk_put_real(p, dtype, at, v[0]);
    else qk_put_real8(p, dtype, at, v);
}

/* Those from column k of the row on, with what is added to them in front of the norm. */
QK_INSIDE void norm_inputs(const qk_norm_args *a, int64_t base, int64_t k, float *v, const int EACH)
{
    float u[QK_WIDE];
    reals_at(a->x, a->dtype, base + k, v, EACH);
    if (a->skip) {
        reals_at(a->skip, a->dtype, base + k, u, EACH);
        QK_UNROLL for (int i = 0; i < EACH; i++) v[i] += u[i];
    }
    if (a->bias) {
        reals_at(a->bias, a->ptype, k, u, EACH);
        QK_UNROLL for (int i = 0; i < EACH; i++) v[i] += u[i];
    }
}

/* (v - mean) inv gamma + beta. */
QK_INSIDE void norm_apply(const qk_norm_args *a, int64_t k, float mean, float inv, float *v, const int EACH)
{
    float u[QK_WIDE];
    QK_UNROLL for (int i = 0; i < EACH; i++) v[i] = (v[i] - mean) * inv;
    if (a->gamma) {
        reals_at(a->gamma, a->ptype, k, u, EACH);
        QK_UNROLL for (int i = 0; i < EACH; i++) v[i] *= u[i];
    }
    if (a->beta) {
        reals_at(a->beta, a->ptype, k, u, EACH);
        QK_UNROLL for (int i = 0; i < EACH; i++) v[i] += u[i];
    }
}

/* Over this thread's part of the row: the sum of the elements, or of their squared distances from the mean. */
QK_INSIDE float norm_sum(const qk_norm_args *a, int64_t base, float mean, int squares, const int EACH)
{
    float s = 0, x[QK_WIDE];
    for (int64_t k = QK_THREAD * EACH; k < a->d; k += QK_NT * EACH) {
        norm_inputs(a, base, k, x, EACH);
        QK_UNROLL for (int i = 0; i < EACH; i++) s += squares ? (x[i] - mean) * (x[i] - mean) : x[i];
    }
    return s;
}

QK_INSIDE void norm_body(const qk_norm_args *a, const int EACH)
{
    QK_SHARED(float, red, ROW_THREADS);
    const int t = QK_THREAD;
    const int64_t base = QK_BLOCK * a->d;
    float mean = 0, x[QK_WIDE];
    if (!a->rms) {
        red[t] = norm_sum(a, base, 0, 0, EACH);
        QK_FOLD(red, u + v);
        mean = red[0] / (float)a->d;
        QK_SYNC();
    }
    red[t] = norm_sum(a, base, mean, 1, EACH);
    QK_FOLD(red, u + v);
    const float inv = 1.0f / sqrtf(red[0] / (float)a->d + a->eps);
    if (t == 0 && a->mean) a->mean[QK_BLOCK] = mean;
    if (t == 0 && a->inv) a->inv[QK_BLOCK] = inv;
    for (int64_t k = t * EACH; k < a->d; k += QK_NT * EACH) {
        norm_inputs(a, base, k, x, EACH);
        if (a->sum) put_reals(a->sum, a->dtype, base + k, x, EACH);
        norm_apply(a, k, mean, inv, x, EACH);
        put_reals(a->y, a->dtype, base + k, x, EACH);
    }
}

QK_KERNEL(norm_kernel, qk_norm_args) { norm_body(&a, 1); }
QK_KERNEL(norm_wide_kernel, qk_norm_args) { norm_body(&a, QK_WIDE); }
QK_EXTERN int qk_norm(qk_queue q, const qk_norm_args *a)
{
    const int wide = a->d % QK_WIDE == 0 && qk_is_wide(a->x) && qk_is_wide(a->skip) && qk_is_wide(a->bias) && qk_is_wide(a->gamma) &&
        qk_is_wide(a->beta) && qk_is_wide(a->y) && qk_is_wide(a->sum);
    const int64_t work = wide ? a->d / QK_WIDE : a->d;
    const int threads = work <= 32 ? 32 : work <= 128 ? 128 : ROW_THREADS;
    if (wide) return QK_LAUNCH(norm_wide_kernel, a->rows, threads, q, a);
    return QK_LAUNCH(norm_kernel, a->rows, threads, q, a);
}

/* A group is long (a tenth of a picture) and there are few: a block of a thousand threads, eight neighbours a thread where rows
 * allow it. Two of the three passes over it come from L2. */
enum { GROUP_THREADS = 1024 };

QK_INSIDE float group_sum(const qk_group_norm_args *a, int64_t base, int64_t n, float mean, int squares, const int EACH)
{
    float s = 0, x[QK_WIDE];
    for (int64_t k = QK_THREAD * EACH; k < n; k += QK_NT * EACH) {
        reals_at(a->x, a->dtype, base + k, x, EACH);
        QK_UNROLL for (int j = 0; j < EACH; j++) s += squares ? (x[j] - mean) * (x[j] - mean) : x[j];
    }
    return s;
}

/* Elements from `at` on, of one channel c: inner is a multiple of EACH. */
QK_INSIDE void group_apply(const qk_group_norm_args *a, int64_t at, int64_t c, float mean, float inv, const int EACH)
{
    const float gamma = a->gamma ? qk_real(a->gamma, a->ptype, c) : 1.0f, beta = a->beta ? qk_real(a->beta, a->ptype, c) : 0.0f;
    float x[QK_WIDE];
    reals_at(a->x, a->dtype, at, x, EACH);
    QK_UNROLL for (int j = 0; j < EACH; j++) {
        float y = (x[j] - mean) * inv;
        if (a->gamma) y *= gamma;
        if (a->beta) y += beta;
        x[j] = a->silu ? y * fm_sigmoid(y) : y;
    }
    put_reals(a->y, a->dtype, at, x, EACH);
}

QK_INSIDE void group_norm_body(const qk_group_norm_args *a, const int EACH)
{
    QK_SHARED(float, red, GROUP_THREADS);
    const int t = QK_THREAD;
    const int64_t per = a->channels / a->groups, n = per * a->inner, base = QK_BLOCK * n, c0 = QK_BLOCK % a->groups * per;
    red[t] = group_sum(a, base, n, 0, 0, EACH);
    QK_FOLD(red, u + v);
    const float mean = red[0] / (float)n;
    QK_SYNC();
    red[t] = group_sum(a, base, n, mean, 1, EACH);
    QK_FOLD(red, u + v);
    const float inv = 1.0f / sqrtf(red[0] / (float)n + a->eps);
    for (int64_t k = t * EACH; k < n; k += QK_NT * EACH) group_apply(a, base + k, c0 + k / a->inner, mean, inv, EACH);
}

QK_KERNEL_RESIDENT(group_norm_kernel, qk_group_norm_args, GROUP_THREADS, 1) { group_norm_body(&a, 1); }
QK_KERNEL_RESIDENT(group_norm_wide_kernel, qk_group_norm_args, GROUP_THREADS, 1) { group_norm_body(&a, QK_WIDE); }
QK_EXTERN int qk_group_norm(qk_queue q, const qk_group_norm_args *a)
{
    if (a->inner % QK_WIDE == 0 && qk_is_wide(a->x) && qk_is_wide(a->y))
        return QK_LAUNCH(group_norm_wide_kernel, a->groups_total, GROUP_THREADS, q, a);
    return QK_LAUNCH(group_norm_kernel, a->groups_total, GROUP_THREADS, q, a);
}

/* ---- reductions ---- */

QX_HD float reduce_term(int op, float x)
{
    if (op == QX_R_L1) return fabsf(x);
    if (op == QX_R_L2 || op == QX_R_SUMSQ) return x * x;
    return x;
}

QX_HD float reduce_start(int op)
{
    return op == QX_R_MAX ? qx_of_bits(0xff800000u) : op == QX_R_MIN ? qx_of_bits(0x7f800000u) : op == QX_R_PROD ? 1.0f : 0.0f;
}

QX_HD float reduce_join(int op, float u, float v)
{
    if (op == QX_R_MAX) return u != u ? u : v != v ? v : u > v ? u : v;
    if (op == QX_R_MIN) return u != u ? u : v != v ? v : u < v ? u : v;
    return op == QX_R_PROD ? u * v : u + v;
}

QX_HD float reduce_end(int op, float s, int64_t n)
{
    if (op == QX_R_MEAN) return s / (float)n;
    if (op == QX_R_L2) return sqrtf(s);
    return op == QX_R_LOGSUM || op == QX_R_LOGSUMEXP ? logf(s) : s;
}

QK_KERNEL(reduce_kernel, qk_reduce_args)
{
    const int t = QK_THREAD;
    QK_SHARED(float, red, ROW_THREADS);
    const int64_t base = QK_BLOCK / a.inner * a.d * a.inner + QK_BLOCK % a.inner;
    float top = 0;
    if (a.op == QX_R_LOGSUMEXP) {
        float m = reduce_start(QX_R_MAX);
        for (int64_t k = t; k < a.d; k += QK_NT) m = reduce_join(QX_R_MAX, m, qk_real(a.x, a.dtype, base + k * a.inner));
        red[t] = m;
        QK_FOLD(red, reduce_join(QX_R_MAX, u, v));
        top = red[0] - red[0] == 0 ? red[0] : 0; /* an infinite maximum is not subtracted */
        QK_SYNC();
    }
    float s = reduce_start(a.op);
    for (int64_t k = t; k < a.d; k += QK_NT) {
        const float x = qk_real(a.x, a.dtype, base + k * a.inner);
        s = reduce_join(a.op, s, a.op == QX_R_LOGSUMEXP ? fm_exp(x - top) : reduce_term(a.op, x));
    }
    red[t] = s;
    QK_FOLD(red, reduce_join(a.op, u, v));
    if (t == 0) qk_put_real(a.y, a.dtype, QK_BLOCK, reduce_end(a.op, red[0], a.d) + top);
}

/* Integers: exact, by one thread a result (indices and masks are small). */
QK_KERNEL(reduce_int_kernel, qk_reduce_args)
{
    QK_EACH(i, a.outer * a.inner) {
        const int64_t base = i / a.inner * a.d * a.inner + i % a.inner;
        int64_t s = a.op == QX_R_PROD ? 1 : a.op == QX_R_SUM || a.d == 0 ? 0 : qk_int(a.x, a.dtype, base);
        for (int64_t k = 0; k < a.d; k++) {
            const int64_t v = qk_int(a.x, a.dtype, base + k * a.inner);
            if (a.op == QX_R_MAX) s = v > s ? v : s;
            else if (a.op == QX_R_MIN) s = v < s ? v : s;
            else s = (int64_t)(a.op == QX_R_PROD ? (uint64_t)s * (uint64_t)v : (uint64_t)s + (uint64_t)v);
        }
        qk_put_int(a.y, a.dtype, i, s);
    }
}
QK_EXTERN int qk_reduce(qk_queue q, const qk_reduce_args *a)
{
    if (!qk_is_real(a->dtype)) return QK_LAUNCH(reduce_int_kernel, QK_EACH_BLOCKS(a->outer * a->inner), 256, q, a);
    return QK_LAUNCH(reduce_kernel, a->outer * a->inner, a->d <= 64 ? 32 : ROW_THREADS, q, a);
}

QK_KERNEL(arg_kernel, qk_arg_args)
{
    QK_EACH(i, a.outer * a.inner) {
        const int64_t base = i / a.inner * a.d * a.inner + i % a.inner;
        int64_t best = 0;
        for (int64_t k = 1; k < a.d; k++) {
            int better, equal;
            if (qk_is_real(a.dtype)) {
                const float x = qk_real(a.x, a.dtype, base + k * a.inner), y = qk_real(a.x, a.dtype, base + best * a.inner);
                better = a.min ? x < y : x > y;
                equal = x == y;
            } else {
                const int64_t x = qk_int(a.x, a.dtype, base + k * a.inner), y = qk_int(a.x, a.dtype, base + best * a.inner);
                better = a.min ? x < y : x > y;
                equal = x == y;
            }
            if (better || (equal && a.last)) best = k;
        }
        a.y[i] = best;
    }
}
QK_EXTERN int qk_arg(qk_queue q, const qk_arg_args *a) { return QK_LAUNCH(arg_kernel, QK_EACH_BLOCKS(a->outer * a->inner), 256, q, a); }

QK_KERNEL(cumsum_kernel, qk_cumsum_args)
{
    QK_EACH(i, a.outer * a.inner) {
        const int64_t base = i / a.inner * a.d * a.inner + i % a.inner;
        float s = 0;
        int64_t si = 0;
        for (int64_t n = 0; n < a.d; n++) {
            const int64_t at = base + (a.reverse ? a.d - 1 - n : n) * a.inner;
            if (qk_is_real(a.dtype)) {
                const float x = qk_real(a.x, a.dtype, at);
                qk_put_real(a.y, a.dtype, at, a.exclusive ? s : s + x);
                s += x;
            } else {
                const int64_t x = qk_int(a.x, a.dtype, at), next = (int64_t)((uint64_t)si + (uint64_t)x);
                qk_put_int(a.y, a.dtype, at, a.exclusive ? si : next);
                si = next;
            }
        }
    }
}
QK_EXTERN int qk_cumsum(qk_queue q, const qk_cumsum_args *a)
{
    return QK_LAUNCH(cumsum_kernel, QK_EACH_BLOCKS(a->outer * a->inner), 256, q, a);
}

/* ---- rotary embedding ---- */

QK_KERNEL(rope_kernel, qk_rope_args)
{
    const int64_t half = a.rot / 2, work = half + (a.d - a.rot);
    QK_EACH(i, a.batch * a.heads * a.seq * work) {
        const int64_t k = i % work, s = i / work % a.seq, h = i / work / a.seq % a.heads, b = i / work / a.seq / a.heads;
        const int64_t row = b * a.sb + h * a.sh + s * a.ss;
        if (k >= half) { /* behind the rotated part */
            const int64_t at = row + a.rot + (k - half);
            qk_put_real(a.y, a.dtype, at, qk_real(a.x, a.dtype, at));
            continue;
        }
        int64_t p = b * a.table_batch + s;
        if (a.pos) {
            p = a.pos[b * a.pos_batch + s * a.pos_seq] + (a.pos_add ? s : 0);
            if (p < 0 || p >= a.max_pos) {
                *a.bad = 1;
                p = 0;
            }
        }
        const float c = qk_real(a.cos, a.ttype, p * half + k), sn = qk_real(a.sin, a.ttype, p * half + k);
        const int64_t i0 = row + (a.interleaved ? 2 * k : k), i1 = a.interleaved ? i0 + 1 : i0 + half;
        const float x0 = qk_real(a.x, a.dtype, i0), x1 = qk_real(a.x, a.dtype, i1);
        qk_put_real(a.y, a.dtype, i0, x0 * c - x1 * sn);
        qk_put_real(a.y, a.dtype, i1, x0 * sn + x1 * c);
    }
}
QK_EXTERN int qk_rope(qk_queue q, const qk_rope_args *a)
{
    return QK_LAUNCH(rope_kernel, QK_EACH_BLOCKS(a->batch * a->heads * a->seq * (a->d - a->rot / 2)), 256, q, a);
}

QK_KERNEL(rotate_kernel, qk_rotate_args)
{
    const int64_t half = a.d / 2;
    QK_EACH(i, a.n) {
        const int64_t k = i % a.d, s = i / a.d % a.seq, h = i / a.d / a.seq % a.heads, b = i / a.d / a.seq / a.heads;
        const int64_t x = b * a.sx[0] + h * a.sx[1] + s * a.sx[2], c = b * a.sc[0] + h * a.sc[1] + s * a.sc[2] + k,
            sn = b * a.ss[0] + h * a.ss[1] + s * a.ss[2] + k;
        const float other = k < half ? -qk_real(a.x, a.dtype, x + k + half) : qk_real(a.x, a.dtype, x + k - half);
        qk_put_real(a.y, a.dtype, i, qk_real(a.x, a.dtype, x + k) * qk_real(a.cos, a.ttype, c) + other * qk_real(a.sin, a.ttype, sn));
    }
}
QK_EXTERN int qk_rotate(qk_queue q, const qk_rotate_args *a) { return QK_LAUNCH(rotate_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

QK_KERNEL(glu_kernel, qk_glu_args)
{
    QK_EACH(piece, a.wide ? a.rows * a.d / QK_WIDE : 0) {
        const int64_t i = piece * QK_WIDE, low = i / a.d * 2 * a.d + i % a.d, high = low + a.d;
        float u[QK_WIDE], v[QK_WIDE];
        qk_real8(a.x, a.dtype, a.upper ? high : low, u);
        qk_real8(a.x, a.dtype, a.upper ? low : high, v);
        for (int k = 0; k < QK_WIDE; k++) u[k] = act_of(a.act, u[k]) * v[k];
        qk_put_real8(a.y, a.dtype, i, u);
    }
    if (a.wide) return;
    QK_EACH(i, a.rows * a.d) {
        const int64_t low = i / a.d * 2 * a.d + i % a.d, high = low + a.d;
        const float g = act_of(a.act, qk_real(a.x, a.dtype, a.upper ? high : low));
        qk_put_real(a.y, a.dtype, i, g * qk_real(a.x, a.dtype, a.upper ? low : high));
    }
}
QK_EXTERN int qk_glu(qk_queue q, const qk_glu_args *args)
{
    qk_glu_args a = *args;
    a.wide = a.d % QK_WIDE == 0 && qk_is_wide(a.x) && qk_is_wide(a.y);
    return QK_LAUNCH(glu_kernel, QK_EACH_BLOCKS(a.wide ? a.rows * a.d / QK_WIDE : a.rows * a.d), 256, q, &a);
}

/* ---- resize ---- */

QX_HD float resize_at(const qk_resize_args *a, int64_t base, const int64_t *o)
{
    float sum = 0;
    for (int corner = 0; corner < 8; corner++) {
        float w = 1.0f;
        int64_t at = 0;
        for (int k = 0; k < 3; k++) {
            const float f = a->w[k] ? a->w[k][o[k]] : 0.0f;
            const int second = corner >> (2 - k) & 1;
            at = at * a->in[k] + (second ? a->i1[k][o[k]] : a->i0[k][o[k]]);
            w *= second ? f : 1.0f - f;
        }
        if (w != 0.0f) sum += w * qk_real(a->x, a->dtype, base + at);
    }
    return sum;
}

QK_KERNEL(resize_kernel, qk_resize_args)
{
    const int64_t out = a.out[0] * a.out[1] * a.out[2], in = a.in[0] * a.in[1] * a.in[2];
    QK_EACH(i, a.planes * out) {
        const int64_t r = i % out, base = i / out * in;
        const int64_t o[3] = {r / (a.out[1] * a.out[2]), r / a.out[2] % a.out[1], r % a.out[2]};
        if (a.w[0]) qk_put_real(a.y, a.dtype, i, resize_at(&a, base, o));
        else qk_move(a.x, base + ((int64_t)a.i0[0][o[0]] * a.in[1] + a.i0[1][o[1]]) * a.in[2] + a.i0[2][o[2]], a.y, i, a.size);
    }
}
QK_EXTERN int qk_resize(qk_queue q, const qk_resize_args *a)
{
    return QK_LAUNCH(resize_kernel, QK_EACH_BLOCKS(a->planes * a->out[0] * a->out[1] * a->out[2]), 256, q, a);
}
