/* extra.c - Dropout, SwiGLU, LpNormalization, LinearAttention: short loops over rows. */
#include <math.h>
#include <string.h>

#include "kernels/rows.h"
#include "runtime/cpu/random.h"

/* ---- Dropout ---- */

/* Training: an element stays (scaled up) or becomes 0, by its own number of the node's stream. */
static qx_status dropout_draw(qx_call *c, const qx_tensor *x, double ratio, uint8_t *mask)
{
    const float *f;
    float *y;
    const uint64_t seed = qx_random_seed(c, "seed");
    const float up = ratio < 1 ? (float)(1.0 / (1.0 - ratio)) : 0.0f;
    if (!(ratio >= 0 && ratio < 1)) QX_CALL_FAIL(c, QX_E_SHAPE, "ratio %g is not in [0, 1)", ratio);
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    for (int64_t i = 0; i < x->numel; i++) {
        const bool stays = qx_random_uniform(seed, (uint64_t)i) >= ratio;
        y[i] = stays ? f[i] * up : 0.0f;
        if (mask) mask[i] = stays;
    }
    return QX_OK;
}

qx_status qx_cpu_dropout(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *mask = NULL;
    int64_t training = 0;
    double ratio = 0.5;
    QX_TRY(qx_call_need(c, 0, &x));
    if (c->version >= 12) {
        QX_TRY(qx_call_scalar_i64(c, 2, 0, &training));
        QX_TRY(qx_call_scalar_f64(c, 1, 0.5, &ratio));
    }
    if (c->n_out > 1) QX_TRY(qx_call_out(c, 1, c->version < 10 ? x->dtype : QX_DT_BOOL, x->rank, x->dims, &mask));
    if (training && ratio != 0) return dropout_draw(c, x, ratio, mask ? mask->data : NULL);
    if (mask) memset(mask->data, mask->dtype == QX_DT_BOOL, mask->bytes);
    return qx_call_out_view(c, 0, 0, x->rank, x->dims);
}

qx_status qx_cpu_swiglu(qx_call *c)
{
    const qx_tensor *a, *b;
    const float *fa, *fb;
    float *y;
    const float alpha = qx_call_float(c, "alpha", 1.0f);
    QX_TRY(qx_call_need(c, 0, &a));
    QX_TRY(qx_call_need(c, 1, &b));
    if (a->rank != b->rank || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0)
        QX_CALL_FAIL(c, QX_E_SHAPE, "A and B have different shapes");
    QX_TRY(qx_call_in_f32(c, 0, &fa));
    QX_TRY(qx_call_in_f32(c, 1, &fb));
    QX_TRY(qx_call_out_f32(c, 0, a->dtype, a->rank, a->dims, &y));
    for (int64_t i = 0; i < a->numel; i++) y[i] = fa[i] / (1.0f + expf(-alpha * fa[i])) * fb[i];
    return QX_OK;
}

qx_status qx_cpu_lp_norm(qx_call *c)
{
    const qx_tensor *x;
    const float *f;
    float *y;
    int axis;
    const int64_t p = qx_call_int(c, "p", 2);
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", -1), x->rank, &axis));
    if (p != 1 && p != 2) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "p is %lld", (long long)p);
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    const int64_t n = x->dims[axis], inner = qx_prod(x->dims, axis + 1, x->rank);
    for (int64_t r = 0; n && r < x->numel / n; r++) {
        const int64_t base = r / inner * n * inner + r % inner;
        double s = 0;
        for (int64_t i = 0; i < n; i++)
            s += p == 1 ? fabs((double)f[base + i * inner]) : (double)f[base + i * inner] * (double)f[base + i * inner];
        s = p == 1 ? s : sqrt(s);
        for (int64_t i = 0; i < n; i++) y[base + i * inner] = s > 0 ? (float)((double)f[base + i * inner] / s) : 0.0f;
    }
    return QX_OK;
}

/* ---- LinearAttention: a state [d_k, d_v] a head, decayed, corrected, added to and read token by token ---- */

typedef struct linear {
    const float *q, *k, *v, *decay, *beta;
    float *y, *state, *tmp;
    int64_t batch, t, hq, hk, keys, dk, dv, decay_n, beta_n; /* heads of the query, of value and state, of the key */
    float scale;
} linear;

/* Head h of `has` for head `of` of the output or the state, of which there are n: heads are shared by neighbours. */
static int64_t head_of(int64_t of, int64_t n, int64_t has) { return of / (n / has); }

static void linear_head(const linear *l, int64_t b, int64_t h)
{
    float *s = l->state + (b * l->hk + h) * l->dk * l->dv, *u = l->tmp;
    const int64_t heads = l->hq > l->hk ? l->hq : l->hk, group = heads / l->hk;
    for (int64_t i = 0; i < l->t; i++) {
        const int64_t row = b * l->t + i;
        const float *k = l->k + (row * l->keys + head_of(h, l->hk, l->keys)) * l->dk, *v = l->v + (row * l->hk + h) * l->dv;
        for (int64_t d = 0; l->decay && d < l->dk; d++) {
            const float g = expf(l->decay[row * l->decay_n + (l->decay_n == l->hk ? h : h * l->dk + d)]);
            for (int64_t m = 0; m < l->dv; m++) s[d * l->dv + m] *= g;
        }
        for (int64_t m = 0; m < l->dv; m++) u[m] = 0;
        for (int64_t d = 0; l->beta && d < l->dk; d++) qx_axpy(k[d], s + d * l->dv, u, l->dv);
        for (int64_t m = 0; m < l->dv; m++) u[m] = l->beta ? l->beta[row * l->beta_n + (l->beta_n == 1 ? 0 : h)] * (v[m] - u[m]) : v[m];
        for (int64_t d = 0; d < l->dk; d++) qx_axpy(k[d], u, s + d * l->dv, l->dv);
        for (int64_t g = h * group; g < (h + 1) * group; g++) {
            const float *q = l->q + (row * l->hq + head_of(g, heads, l->hq)) * l->dk;
            float *y = l->y + (row * heads + g) * l->dv;
            for (int64_t m = 0; m < l->dv; m++) y[m] = 0;
            for (int64_t d = 0; d < l->dk; d++) qx_axpy(l->scale * q[d], s + d * l->dv, y, l->dv);
        }
    }
}

static qx_status linear_gates(qx_call *c, linear *l)
{
    const qx_tensor *g = qx_call_in(c, 4), *e = qx_call_in(c, 5);
    const char *rule = qx_call_str(c, "update_rule", "gated_delta");
    const bool gated = strncmp(rule, "gated", 5) == 0, delta = strcmp(rule, "delta") == 0 || strcmp(rule, "gated_delta") == 0;
    if (!gated && !delta && strcmp(rule, "linear") != 0) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "update_rule \"%s\"", rule);
    if (gated != (g != NULL) || delta != (e != NULL)) QX_CALL_FAIL(c, QX_E_SHAPE, "decay and beta do not fit update_rule \"%s\"", rule);
    const int64_t rows = l->batch * l->t;
    if (g) l->decay_n = rows ? g->numel / rows : l->hk;
    if (e) l->beta_n = rows ? e->numel / rows : 1;
    if ((g && (g->numel != rows * l->decay_n || (l->decay_n != l->hk && l->decay_n != l->hk * l->dk))) ||
        (e && (e->numel != rows * l->beta_n || (l->beta_n != 1 && l->beta_n != l->hk))))
        QX_CALL_FAIL(c, QX_E_SHAPE, "decay or beta do not fit %lld tokens of %lld heads", (long long)rows, (long long)l->hk);
    if (g) QX_TRY(qx_call_in_f32(c, 4, &l->decay));
    if (e) QX_TRY(qx_call_in_f32(c, 5, &l->beta));
    return QX_OK;
}

/* The sizes that query, key, value and past have in common. com.microsoft's heads may be fewer in query and key than in value. */
static qx_status linear_sizes(qx_call *c, linear *l, const qx_tensor *q, const qx_tensor *k, const qx_tensor *v, const qx_tensor *past)
{
    if (l->hq < 1 || l->hk < 1 || (l->hq % l->hk && l->hk % l->hq) || q->rank != 3 || k->rank != 3 || v->rank != 3 || q->dims[2] % l->hq ||
        v->dims[2] % l->hk)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld heads, %lld key heads", (long long)l->hq, (long long)l->hk);
    l->batch = q->dims[0];
    l->t = q->dims[1];
    l->dk = q->dims[2] / l->hq;
    l->dv = v->dims[2] / l->hk;
    l->keys = l->dk ? k->dims[2] / l->dk : l->hk;
    if (l->keys < 1 || l->hk % l->keys || k->numel != l->batch * l->t * l->keys * l->dk || v->numel != l->batch * l->t * l->hk * l->dv ||
        (past && past->numel != l->batch * l->hk * l->dk * l->dv))
        QX_CALL_FAIL(c, QX_E_SHAPE, "key, value or past state do not fit the query");
    return QX_OK;
}

qx_status qx_cpu_linear_attention(qx_call *c)
{
    const qx_tensor *q, *k, *v, *past = qx_call_in(c, 3);
    linear l = {.hq = qx_call_int(c, "q_num_heads", 0), .hk = qx_call_int(c, "kv_num_heads", 0), .scale = qx_call_float(c, "scale", 0)};
    QX_TRY(qx_call_need(c, 0, &q));
    QX_TRY(qx_call_need(c, 1, &k));
    QX_TRY(qx_call_need(c, 2, &v));
    if (qx_call_int(c, "state_window", 0))
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "state_window %lld: only the last state is kept", (long long)qx_call_int(c, "state_window", 0));
    QX_TRY(linear_sizes(c, &l, q, k, v, past));
    QX_TRY(linear_gates(c, &l));
    if (l.scale == 0) l.scale = 1.0f / sqrtf((float)(l.dk ? l.dk : 1));
    QX_TRY(qx_call_in_f32(c, 0, &l.q));
    QX_TRY(qx_call_in_f32(c, 1, &l.k));
    QX_TRY(qx_call_in_f32(c, 2, &l.v));
    QX_TRY(qx_call_out_f32(c, 0, q->dtype, 3, (int64_t[]){l.batch, l.t, (l.hq > l.hk ? l.hq : l.hk) * l.dv}, &l.y));
    QX_TRY(qx_call_out_f32(c, 1, past ? past->dtype : q->dtype, 4, (int64_t[]){l.batch, l.hk, l.dk, l.dv}, &l.state));
    QX_TRY(QX_CALL_SCRATCH(c, l.dv + 1, &l.tmp));
    const size_t bytes = (size_t)(l.batch * l.hk * l.dk * l.dv) * sizeof *l.state;
    const float *from = NULL;
    if (past) QX_TRY(qx_call_in_f32(c, 3, &from));
    if (bytes && from) memcpy(l.state, from, bytes);
    else if (bytes) memset(l.state, 0, bytes);
    for (int64_t i = 0; i < l.batch * l.hk; i++) linear_head(&l, i / l.hk, i % l.hk);
    return QX_OK;
}
