/* moe.c - com.microsoft's MoE and QMoE: every token goes through the k experts that its router row likes most. Experts run in
 * order of their number, each over all of its tokens at once, so sums do not depend on threads. Codes of QMoE stay codes
 * (kernels/nbits.h). */
#include <math.h>
#include <string.h>

#include "kernels/nbits.h"
#include "kernels/pointwise.h"
#include "runtime/cpu/matmul/gemm.h"

typedef enum kind { RELU, GELU, SILU, IDENTITY, SWIGLU } kind;

/* One of the three layers, [experts, n, k]; float data or codes. */
typedef struct layer {
    const qx_tensor *w;
    int64_t n, k;
    const float *f, *bias, *scale, *zero;
    const uint8_t *codes;
    int bits;
    int64_t block, row_bytes;
} layer;

typedef struct moe {
    const float *x; float *y;
    int64_t tokens, hidden, inter, experts, k;
    kind act;
    int fusion;                 /* swiglu: 0 apart (fc3), 1 interleaved, 2 halves */
    float alpha, beta, limit;
    bool normalize;
    layer fc1, fc2, fc3;        /* fc3.w NULL: none */
    int64_t *chosen; float *weight; /* [tokens, k] */
    float *in, *mid, *gate, *out;   /* scratch for one expert's tokens */
    qx_bmm_state **state;
} moe;

typedef struct state { qx_bmm_state *bmm[3]; } state;

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    for (int i = 0; i < 3; i++) qx_bmm_free(ctx, s->bmm[i]);
}

/* ---- Routing ---- */

/* The k largest of a row, larger first, equal ones by number. Weights: softmax over all experts, over the chosen when normalized. */
static void route(const moe *m, const float *probs, const float *mix, int64_t t)
{
    int64_t *chosen = m->chosen + t * m->k;
    float *weight = m->weight + t * m->k, top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < m->k; i++) {
        int64_t best = -1;
        for (int64_t e = 0; e < m->experts; e++) {
            bool taken = false;
            for (int64_t q = 0; q < i; q++) taken = taken || chosen[q] == e;
            if (!taken && (best < 0 || probs[e] > probs[best])) best = e;
        }
        chosen[i] = best;
        top = i == 0 ? probs[best] : top;
    }
    for (int64_t e = 0; e < m->experts && !m->normalize; e++) sum += expf(probs[e] - top);
    for (int64_t i = 0; i < m->k && m->normalize; i++) sum += expf(probs[chosen[i]] - top);
    for (int64_t i = 0; i < m->k; i++) weight[i] = mix ? mix[chosen[i]] : expf(probs[chosen[i]] - top) / sum;
}

/* Mixing weights that come from an input of their own are normalized by their sum. */
static void normalize_mix(const moe *m, int64_t t)
{
    float sum = 0;
    for (int64_t i = 0; i < m->k; i++) sum += m->weight[t * m->k + i];
    for (int64_t i = 0; sum != 0 && i < m->k; i++) m->weight[t * m->k + i] /= sum;
}

static qx_status routing(qx_call *c, moe *m, uint32_t mix_in)
{
    const qx_tensor *p, *mix = qx_call_in(c, mix_in);
    const float *f, *g = NULL;
    QX_TRY(qx_call_need(c, 1, &p));
    if (p->rank != 2 || p->dims[0] != m->tokens || p->dims[1] != m->experts || m->k < 1 || m->k > m->experts)
        QX_CALL_FAIL(c, QX_E_SHAPE, "router_probs has %lld elements for %lld tokens and %lld experts, of which %lld are taken",
                     (long long)p->numel, (long long)m->tokens, (long long)m->experts, (long long)m->k);
    if (mix && mix->numel != p->numel)
        QX_CALL_FAIL(c, QX_E_SHAPE, "router_weights has %lld elements, router_probs %lld", (long long)mix->numel, (long long)p->numel);
    QX_TRY(qx_call_in_f32(c, 1, &f));
    if (mix) QX_TRY(qx_call_in_f32(c, mix_in, &g));
    QX_TRY(QX_CALL_SCRATCH(c, m->tokens * m->k + 1, &m->chosen));
    QX_TRY(QX_CALL_SCRATCH(c, m->tokens * m->k + 1, &m->weight));
    for (int64_t t = 0; t < m->tokens; t++) {
        route(m, f + t * m->experts, g ? g + t * m->experts : NULL, t);
        if (g && m->normalize) normalize_mix(m, t);
    }
    return QX_OK;
}

/* ---- One expert ---- */

typedef struct nbits_job { const qx_nbits *w; const float *x; float *y, *scratch; int64_t m; } nbits_job;

static qx_status nbits_piece(void *user, int64_t i)
{
    const nbits_job *j = user;
    qx_nbits_piece(j->w, j->m, j->x, j->w->k, j->scratch, j->y, j->w->n, i);
    return QX_OK;
}

/* y[rows, n] = x[rows, k] W[e]' + bias[e]. */
static qx_status product(qx_call *c, const layer *l, qx_bmm_state **bmm, int64_t e, int64_t rows, const float *x, float *y)
{
    const float *bias = l->bias ? l->bias + e * l->n : NULL;
    if (l->codes) {
        const int64_t blocks = (l->k + l->block - 1) / l->block;
        const qx_nbits w = {.bits = l->bits, .n = l->n, .k = l->k, .block = l->block, .row_bytes = l->row_bytes,
                            .codes = l->codes + e * l->n * l->row_bytes,
                            .scale = l->scale + e * l->n * blocks, .zero_f = l->zero ? l->zero + e * l->n * blocks : NULL, .bias = bias};
        nbits_job j = {&w, x, y, NULL, rows};
        QX_TRY(QX_CALL_SCRATCH(c, qx_nbits_scratch(&w, rows) + 1, &j.scratch));
        for (int64_t r = 0; r < rows && qx_nbits_prepares(&w, rows); r++) qx_nbits_prepare(&w, rows, x, l->k, r, j.scratch);
        return qx_parallel(c->ctx, qx_nbits_pieces(&w, rows), nbits_piece, &j);
    }
    const qx_bmm g = {1, rows, l->n, l->k, x, l->f + e * l->n * l->k, y, {rows * l->k, l->k, 1}, {l->n * l->k, 1, l->k}};
    QX_TRY(qx_bmm_run(c, bmm, &g));
    for (int64_t i = 0; bias && i < rows * l->n; i++) y[i] += bias[i % l->n];
    return QX_OK;
}

static float swiglu(const moe *m, float g, float l)
{
    g = g > m->limit ? m->limit : g;
    l = l > m->limit ? m->limit : l < -m->limit ? -m->limit : l;
    return g / (1.0f + expf(-m->alpha * g)) * (l + m->beta);
}

/* ONNX Runtime's gelu of experts is the tanh form. mid[rows, fc1.n] (and gate[rows, inter]) become mid[rows, inter]. */
static void activate(const moe *m, int64_t rows)
{
    static const qx_unary fn[] = {[RELU] = QX_U_RELU, [GELU] = QX_U_GELU_TANH, [SILU] = QX_U_SWISH};
    const float one[2] = {1, 0};
    const int64_t n = m->inter;
    float *x = m->mid;
    if (m->act == SWIGLU) {
        for (int64_t i = 0; i < rows * n; i++) {
            const int64_t r = i / n, j = i % n;
            const float g = m->fusion == 1 ? x[r * 2 * n + 2 * j] : m->fusion == 2 ? x[r * 2 * n + j] : x[i];
            const float l = m->fusion == 1 ? x[r * 2 * n + 2 * j + 1] : m->fusion == 2 ? x[r * 2 * n + n + j] : m->gate[i];
            m->gate[i] = swiglu(m, g, l);
        }
        memcpy(x, m->gate, (size_t)(rows * n) * sizeof *x);
        return;
    }
    if (m->act != IDENTITY) qx_unary_find(fn[m->act], QX_DT_FLOAT)(x, x, rows * n, one);
    for (int64_t i = 0; m->fc3.w && i < rows * n; i++) x[i] *= m->gate[i];
}

static qx_status expert(qx_call *c, moe *m, int64_t e)
{
    int64_t rows = 0;
    for (int64_t t = 0; t < m->tokens * m->k; t++)
        if (m->chosen[t] == e) memcpy(m->in + rows++ * m->hidden, m->x + t / m->k * m->hidden, (size_t)m->hidden * sizeof *m->in);
    if (rows == 0) return QX_OK;
    QX_TRY(product(c, &m->fc1, &m->state[0], e, rows, m->in, m->mid));
    if (m->fc3.w) QX_TRY(product(c, &m->fc3, &m->state[2], e, rows, m->in, m->gate));
    activate(m, rows);
    QX_TRY(product(c, &m->fc2, &m->state[1], e, rows, m->mid, m->out));
    rows = 0;
    for (int64_t t = 0; t < m->tokens * m->k; t++) {
        if (m->chosen[t] != e) continue;
        float *y = m->y + t / m->k * m->hidden;
        for (int64_t i = 0; i < m->hidden; i++) y[i] += m->weight[t] * m->out[rows * m->hidden + i];
        rows++;
    }
    return QX_OK;
}

/* ---- The node ---- */

static qx_status attributes(qx_call *c, moe *m)
{
    static const struct { const char *name; kind act; } names[] =
        {{"relu", RELU}, {"gelu", GELU}, {"silu", SILU}, {"identity", IDENTITY}, {"swiglu", SWIGLU}};
    const char *act = qx_call_str(c, "activation_type", "relu");
    int found = -1;
    for (int i = 0; i < 5; i++)
        if (!strcmp(names[i].name, act)) found = i;
    if (found < 0) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "activation_type '%s'", act);
    if (qx_call_int(c, "use_sparse_mixer", 0)) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "use_sparse_mixer");
    m->act = names[found].act;
    m->k = qx_call_int(c, "k", 1);
    m->fusion = m->act == SWIGLU ? (int)qx_call_int(c, "swiglu_fusion", 0) : 0;
    m->normalize = qx_call_int(c, "normalize_routing_weights", 0) != 0;
    m->alpha = qx_call_float(c, "activation_alpha", 1.0f);
    m->beta = qx_call_float(c, "activation_beta", 0.0f);
    m->limit = qx_call_float(c, "swiglu_limit", INFINITY);
    return QX_OK;
}

static qx_status layer_bias(qx_call *c, uint32_t i, int64_t experts, layer *l)
{
    const qx_tensor *t = qx_call_in(c, i);
    if (!t) return QX_OK;
    if (t->numel != experts * l->n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "bias (input %u) has %lld elements for %lld experts of %lld", i, (long long)t->numel,
                     (long long)experts, (long long)l->n);
    return qx_call_in_f32(c, i, &l->bias);
}

/* A layer of the float form: weights and bias. */
static qx_status float_layer(qx_call *c, uint32_t i, int64_t experts, int64_t n, int64_t k, layer *l)
{
    char a[96];
    QX_TRY(qx_call_need(c, i, &l->w));
    l->n = n;
    l->k = k;
    if (l->w->rank != 3 || l->w->dims[0] != experts || l->w->dims[1] != n || l->w->dims[2] != k)
        QX_CALL_FAIL(c, QX_E_SHAPE, "weights %s (input %u), [%lld, %lld, %lld] are needed", qx_tensor_describe(l->w, a, sizeof a), i,
                     (long long)experts, (long long)n, (long long)k);
    QX_TRY(qx_call_in_f32(c, i, &l->f));
    return layer_bias(c, i + 1, experts, l);
}

/* Packed zero points as floats [experts, n, blocks]: rows of blocks are padded to bytes, without blocks the columns of an expert
 * are one row. */
static qx_status layer_zeros(qx_call *c, uint32_t i, int64_t experts, layer *l)
{
    const qx_tensor *t = qx_call_in(c, i);
    const int64_t blocks = l->block ? (l->k + l->block - 1) / l->block : 1, per = blocks > 1 || (t && t->rank == 3) ? blocks : l->n,
        lines = experts * l->n * blocks / per;
    const int64_t bytes = (per * l->bits + 7) / 8;
    float *f = NULL;
    if (!t) return QX_OK;
    if (t->dtype != QX_DT_UINT8 || t->numel != lines * bytes)
        QX_CALL_FAIL(c, QX_E_SHAPE, "zero points (input %u) have %lld bytes, %lld are needed", i, (long long)t->bytes,
                     (long long)(lines * bytes));
    QX_TRY(QX_CALL_SCRATCH(c, lines * per + 1, &f));
    for (int64_t r = 0; r < lines; r++)
        for (int64_t j = 0; j < per; j++)
            f[r * per + j] = (float)(((const uint8_t *)t->data)[r * bytes + j * l->bits / 8] >> (j * l->bits % 8) & ((1 << l->bits) - 1));
    l->zero = f;
    return QX_OK;
}

/* A layer of codes: weights, scales, bias from input i; zero points at input zp. */
static qx_status code_layer(qx_call *c, uint32_t i, uint32_t zp, const char *bits_attr, int64_t experts, int64_t n, int64_t k, layer *l)
{
    const qx_tensor *scale;
    QX_TRY(qx_call_need(c, i, &l->w));
    QX_TRY(qx_call_need(c, i + 1, &scale));
    l->n = n;
    l->k = k;
    l->bits = (int)qx_call_int(c, bits_attr, qx_call_int(c, "expert_weight_bits", 4));
    const int64_t block = qx_call_int(c, "block_size", 0);
    l->block = block > 0 ? block : k;
    if (k < 1 || l->block > k) QX_CALL_FAIL(c, QX_E_SHAPE, "blocks of %lld in rows of %lld", (long long)l->block, (long long)k);
    if ((l->bits != 2 && l->bits != 4 && l->bits != 8) || (l->bits < 8 && l->block % 16))
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "blocks of %lld %d-bit codes; multiples of 16 are there", (long long)l->block, l->bits);
    l->row_bytes = k * l->bits / 8;
    const int64_t blocks = (k + l->block - 1) / l->block;
    if (l->w->dtype != QX_DT_UINT8 || l->w->numel != experts * n * l->row_bytes || scale->numel != experts * n * blocks || k % l->block)
        QX_CALL_FAIL(c, QX_E_SHAPE, "weights (input %u) have %lld bytes and %lld scales; %lld and %lld are needed", i,
                     (long long)l->w->bytes, (long long)scale->numel,
                     (long long)(experts * n * l->row_bytes), (long long)(experts * n * blocks));
    l->codes = l->w->data;
    QX_TRY(qx_call_in_f32(c, i + 1, &l->scale));
    QX_TRY(layer_bias(c, i + 2, experts, l));
    return layer_zeros(c, zp, experts, l);
}

static qx_status layers(qx_call *c, moe *m, bool codes)
{
    const uint32_t f1 = 2, f2 = codes ? 5 : 4, f3 = codes ? 8 : 6;
    const qx_tensor *w1, *w2;
    const bool gated = qx_call_in(c, f3) != NULL;
    QX_TRY(qx_call_need(c, f1, &w1));
    QX_TRY(qx_call_need(c, f2, &w2));
    if (w1->rank != 3 || w2->rank != 3) QX_CALL_FAIL(c, QX_E_SHAPE, "expert weights have ranks %d and %d instead of 3", w1->rank, w2->rank);
    m->experts = w1->dims[0];
    m->inter = m->fusion ? w1->dims[1] / 2 : w1->dims[1];
    const int64_t n1 = m->fusion ? 2 * m->inter : m->inter;
    if ((m->act == SWIGLU && !m->fusion && !gated) || (m->fusion && gated))
        QX_CALL_FAIL(c, QX_E_SHAPE, "swiglu takes fc3 or swiglu_fusion, not both");
    if (!codes) {
        QX_TRY(float_layer(c, f1, m->experts, n1, m->hidden, &m->fc1));
        QX_TRY(float_layer(c, f2, m->experts, m->hidden, m->inter, &m->fc2));
        return gated ? float_layer(c, f3, m->experts, m->inter, m->hidden, &m->fc3) : QX_OK;
    }
    const char *type = qx_call_str(c, "quant_type", "int");
    if (strcmp(type, "int") != 0 || qx_call_int(c, "weights_prepacked", -1) > 0)
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "quant_type '%s' or prepacked weights", type);
    QX_TRY(code_layer(c, f1, 11, "fc1_expert_weight_bits", m->experts, n1, m->hidden, &m->fc1));
    QX_TRY(code_layer(c, f2, 12, "fc2_expert_weight_bits", m->experts, m->hidden, m->inter, &m->fc2));
    return gated ? code_layer(c, f3, 13, "fc3_expert_weight_bits", m->experts, m->inter, m->hidden, &m->fc3) : QX_OK;
}

qx_status qx_cpu_ms_moe(qx_call *c)
{
    const bool codes = c->node->op->id == QX_OP_ms_QMoE;
    const qx_tensor *x;
    moe m = {0};
    state *st = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank < 2 || x->rank > 3) QX_CALL_FAIL(c, QX_E_SHAPE, "input of rank %d", x->rank);
    m.hidden = x->dims[x->rank - 1];
    m.tokens = qx_prod(x->dims, 0, x->rank - 1);
    QX_TRY(attributes(c, &m));
    QX_TRY(layers(c, &m, codes));
    QX_TRY(routing(c, &m, codes ? 14 : UINT32_MAX));
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    m.state = st->bmm;
    QX_TRY(qx_call_in_f32(c, 0, &m.x));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &m.y));
    if (x->numel == 0) return QX_OK;
    memset(m.y, 0, (size_t)x->numel * sizeof *m.y);
    QX_TRY(QX_CALL_SCRATCH(c, m.tokens * m.hidden, &m.in));
    QX_TRY(QX_CALL_SCRATCH(c, m.tokens * m.fc1.n + 1, &m.mid));
    QX_TRY(QX_CALL_SCRATCH(c, m.tokens * m.inter + 1, &m.gate));
    QX_TRY(QX_CALL_SCRATCH(c, m.tokens * m.hidden, &m.out));
    for (int64_t e = 0; e < m.experts; e++) QX_TRY(expert(c, &m, e));
    return QX_OK;
}
