/* rnn.c - RNN, GRU, LSTM in float: both directions, layouts 0 and 1, sequence lengths, peepholes, clip, the standard's activations. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/op.h"

/* ---- Activations ---- */

typedef float act_fn(float x, float alpha, float beta);
static float a_sigmoid(float x, float a, float b) { (void)a; (void)b; return 1.0f / (1.0f + expf(-x)); }
static float a_tanh(float x, float a, float b) { (void)a; (void)b; return tanhf(x); }
static float a_relu(float x, float a, float b) { (void)a; (void)b; return x > 0 ? x : 0; }
static float a_affine(float x, float a, float b) { return a * x + b; }
static float a_leaky(float x, float a, float b) { (void)b; return x >= 0 ? x : a * x; }
static float a_thresholded(float x, float a, float b) { (void)b; return x >= a ? x : 0; }
static float a_scaled_tanh(float x, float a, float b) { return a * tanhf(b * x); }
static float a_hard_sigmoid(float x, float a, float b) { return fminf(fmaxf(a * x + b, 0), 1); }
static float a_elu(float x, float a, float b) { (void)b; return x >= 0 ? x : a * (expf(x) - 1); }
static float a_softsign(float x, float a, float b) { (void)a; (void)b; return x / (1 + fabsf(x)); }
static float a_softplus(float x, float a, float b) { (void)a; (void)b; return log1pf(expf(x)); }

static const struct { const char *name; act_fn *fn; float alpha, beta; } act_table[] = {
    {"Sigmoid", a_sigmoid, 0, 0}, {"Tanh", a_tanh, 0, 0}, {"Relu", a_relu, 0, 0}, {"Affine", a_affine, 1, 0}, {"LeakyRelu", a_leaky, 0.01f, 0},
    {"ThresholdedRelu", a_thresholded, 1, 0}, {"ScaledTanh", a_scaled_tanh, 1, 1}, {"HardSigmoid", a_hard_sigmoid, 0.2f, 0.5f}, {"Elu", a_elu, 1, 0},
    {"Softsign", a_softsign, 0, 0}, {"Softplus", a_softplus, 0, 0},
};
typedef struct act { act_fn *fn; float alpha, beta; } act;

static inline float apply(const act *a, float x) { return a->fn(x, a->alpha, a->beta); }

/* ---- Set-up ---- */

typedef struct rnn {
    int gates, n_acts, dirs;
    int64_t seq, batch, input, hidden;
    bool reverse_only, batch_first;
    float clip;
    const float *x, *w, *r, *b, *h0, *c0, *p;
    const int64_t *lens;
    int64_t n_lens;
    bool linear_before_reset, input_forget;
    act acts[6];
    float *y, *yh, *yc;
    float *h, *c, *g; /* state [hidden] twice, gates [gates * hidden * 2] of one batch entry */
} rnn;

static qx_status find_act(qx_call *c, const char *name, act *a)
{
    for (size_t i = 0; i < sizeof act_table / sizeof act_table[0]; i++)
        if (!strcasecmp(act_table[i].name, name)) {
            *a = (act){act_table[i].fn, act_table[i].alpha, act_table[i].beta};
            return QX_OK;
        }
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "activation '%.40s'", name);
}

static qx_status read_acts(qx_call *c, rnn *k, const char *const *defaults)
{
    const qx_attr *names = qx_call_attr(c, "activations");
    int64_t na, nb, ia = 0, ib = 0;
    const float *alpha = qx_call_floats(c, "activation_alpha", &na), *beta = qx_call_floats(c, "activation_beta", &nb);
    const int n = k->n_acts * k->dirs;
    if (names && names->n != n) QX_CALL_FAIL(c, QX_E_FORMAT, "%lld activations, expected %d", (long long)names->n, n);
    for (int i = 0; i < n; i++) {
        act *a = &k->acts[i];
        QX_TRY(find_act(c, names ? names->strings[i] : defaults[i % k->n_acts], a));
        /* alpha and beta are lists over the activations that take one, in order */
        const bool takes_a = a->fn == a_affine || a->fn == a_leaky || a->fn == a_thresholded || a->fn == a_scaled_tanh || a->fn == a_hard_sigmoid || a->fn == a_elu;
        const bool takes_b = a->fn == a_affine || a->fn == a_scaled_tanh || a->fn == a_hard_sigmoid;
        if (takes_a && ia < na) a->alpha = alpha[ia++];
        if (takes_b && ib < nb) a->beta = beta[ib++];
    }
    return QX_OK;
}

static qx_status expect(qx_call *c, uint32_t i, int rank, const int64_t *dims, const float **out)
{
    const qx_tensor *t = qx_call_in(c, i);
    *out = NULL;
    if (!t) return QX_OK;
    bool ok = t->rank == rank;
    for (int d = 0; ok && d < rank; d++) ok = t->dims[d] == dims[d];
    char buf[128];
    if (!ok) QX_CALL_FAIL(c, QX_E_SHAPE, "input %u is %s", i, qx_tensor_describe(t, buf, sizeof buf));
    return qx_call_in_f32(c, i, out);
}

static qx_status read_inputs(qx_call *c, rnn *k, const qx_tensor *x, const qx_tensor *w)
{
    const int64_t d = k->dirs, h = k->hidden, g = k->gates;
    const int64_t state0[3] = {k->batch_first ? k->batch : d, k->batch_first ? d : k->batch, h};
    QX_TRY(qx_call_in_f32(c, 0, &k->x));
    QX_TRY(expect(c, 1, 3, (int64_t[]){d, g * h, k->input}, &k->w));
    QX_TRY(expect(c, 2, 3, (int64_t[]){d, g * h, h}, &k->r));
    QX_TRY(expect(c, 3, 2, (int64_t[]){d, 2 * g * h}, &k->b));
    QX_TRY(qx_call_in_i64(c, 4, &k->lens, &k->n_lens));
    QX_TRY(expect(c, 5, 3, state0, &k->h0));
    if (g == 4) QX_TRY(expect(c, 6, 3, state0, &k->c0));
    if (g == 4) QX_TRY(expect(c, 7, 2, (int64_t[]){d, 3 * h}, &k->p));
    if (!k->w || !k->r) QX_CALL_FAIL(c, QX_E_FORMAT, "W or R is missing");
    for (int64_t i = 0; i < k->n_lens; i++)
        if (k->lens[i] < 0 || k->lens[i] > k->seq) QX_CALL_FAIL(c, QX_E_SHAPE, "sequence_lens[%lld] is %lld of %lld", (long long)i, (long long)k->lens[i], (long long)k->seq);
    (void)x;
    (void)w;
    return QX_OK;
}

static qx_status setup(qx_call *c, rnn *k, int gates, int n_acts, const char *const *defaults)
{
    const qx_tensor *x, *w;
    const char *dir = qx_call_str(c, "direction", "forward");
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &w));
    k->gates = gates;
    k->n_acts = n_acts;
    k->dirs = strcmp(dir, "bidirectional") ? 1 : 2;
    k->reverse_only = !strcmp(dir, "reverse");
    k->batch_first = qx_call_int(c, "layout", 0) == 1;
    if (x->rank != 3 || w->rank != 3 || w->dims[1] % gates) QX_CALL_FAIL(c, QX_E_SHAPE, "X of rank %d, W of rank %d", x->rank, w->rank);
    k->seq = x->dims[k->batch_first ? 1 : 0];
    k->batch = x->dims[k->batch_first ? 0 : 1];
    k->input = x->dims[2];
    k->hidden = qx_call_int(c, "hidden_size", w->dims[1] / gates);
    if (k->hidden <= 0 || k->hidden != w->dims[1] / gates) QX_CALL_FAIL(c, QX_E_SHAPE, "hidden_size %lld, W has %lld", (long long)k->hidden, (long long)(w->dims[1] / gates));
    k->clip = qx_call_float(c, "clip", 0);
    QX_TRY(read_acts(c, k, defaults));
    QX_TRY(read_inputs(c, k, x, w));
    const int64_t full[4] = {k->batch_first ? k->batch : k->seq, k->batch_first ? k->seq : k->dirs, k->batch_first ? k->dirs : k->batch, k->hidden};
    const int64_t last[3] = {k->batch_first ? k->batch : k->dirs, k->batch_first ? k->dirs : k->batch, k->hidden};
    if (c->n_out > 0) QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, full, &k->y));
    if (c->n_out > 1) QX_TRY(qx_call_out_f32(c, 1, x->dtype, 3, last, &k->yh));
    if (c->n_out > 2) QX_TRY(qx_call_out_f32(c, 2, x->dtype, 3, last, &k->yc));
    if (k->y) memset(k->y, 0, (size_t)(k->seq * k->dirs * k->batch * k->hidden) * sizeof *k->y);
    QX_TRY(QX_CALL_SCRATCH(c, k->hidden, &k->h));
    QX_TRY(QX_CALL_SCRATCH(c, k->hidden, &k->c));
    return QX_CALL_SCRATCH(c, 2 * gates * k->hidden, &k->g);
}

/* ---- Cells: g holds W x + Wb in [0, gates * hidden) and R h + Rb behind it ---- */

static float clipped(const rnn *k, float v)
{
    return k->clip > 0 ? fminf(fmaxf(v, -k->clip), k->clip) : v;
}

static void cell_rnn(const rnn *k, int d, const float *gx, const float *gh)
{
    for (int64_t j = 0; j < k->hidden; j++) k->h[j] = apply(&k->acts[d], clipped(k, gx[j] + gh[j]));
}

/* Gate order z, r, h. Without linear_before_reset the hidden part of h is R_h (r . h), worked out by the caller's matrix. */
static void cell_gru(const rnn *k, int d, const float *gx, const float *gh)
{
    const int64_t n = k->hidden;
    const act *f = &k->acts[2 * d], *g = &k->acts[2 * d + 1];
    const float *rh = k->r + (d * 3 + 2) * n * n, *rb = k->b ? k->b + d * 6 * n + 5 * n : NULL;
    float *z = k->c, *reset = (float *)(uintptr_t)gx; /* gx of z and r are used up in order */
    for (int64_t j = 0; j < n; j++) {
        z[j] = apply(f, clipped(k, gx[j] + gh[j]));
        reset[j] = apply(f, clipped(k, gx[n + j] + gh[n + j]));
    }
    float *cand = (float *)(uintptr_t)gh; /* likewise */
    for (int64_t j = 0; j < n; j++) {
        double s;
        if (k->linear_before_reset) {
            s = (double)reset[j] * gh[2 * n + j];
        } else {
            s = rb ? rb[j] : 0;
            for (int64_t i = 0; i < n; i++) s += (double)rh[j * n + i] * ((double)reset[i] * k->h[i]);
        }
        cand[j] = apply(g, clipped(k, gx[2 * n + j] + (float)s));
    }
    for (int64_t j = 0; j < n; j++) k->h[j] = (1 - z[j]) * cand[j] + z[j] * k->h[j];
}

/* Gate order i, o, f, c; peepholes i, o, f. */
static void cell_lstm(const rnn *k, int d, const float *gx, const float *gh)
{
    const int64_t n = k->hidden;
    const float *p = k->p ? k->p + d * 3 * n : NULL;
    const act *a = &k->acts[3 * d];
    for (int64_t j = 0; j < n; j++) {
        const float i = apply(&a[0], clipped(k, gx[j] + gh[j] + (p ? p[j] * k->c[j] : 0)));
        const float f = k->input_forget ? 1 - i : apply(&a[0], clipped(k, gx[2 * n + j] + gh[2 * n + j] + (p ? p[2 * n + j] * k->c[j] : 0)));
        const float cc = apply(&a[1], clipped(k, gx[3 * n + j] + gh[3 * n + j]));
        const float cell = f * k->c[j] + i * cc;
        const float o = apply(&a[0], clipped(k, gx[n + j] + gh[n + j] + (p ? p[n + j] * cell : 0)));
        k->c[j] = cell;
        k->h[j] = o * apply(&a[2], cell);
    }
}

/* ---- The walk over directions, batch and time ---- */

static void gates_of(const float *m, const float *bias, const float *x, int64_t rows, int64_t cols, float *out)
{
    for (int64_t r = 0; r < rows; r++) {
        double s = bias ? bias[r] : 0;
        for (int64_t i = 0; i < cols; i++) s += (double)m[r * cols + i] * x[i];
        out[r] = (float)s;
    }
}

typedef void cell_fn(const rnn *k, int d, const float *gx, const float *gh);

static int64_t state_at(const rnn *k, int d, int64_t b)
{
    return (k->batch_first ? b * k->dirs + d : d * k->batch + b) * k->hidden;
}

static void walk_one(const rnn *k, cell_fn *cell, int d, int64_t b)
{
    const int64_t n = k->hidden, gn = k->gates * n, len = k->n_lens ? k->lens[b < k->n_lens ? b : k->n_lens - 1] : k->seq;
    const bool back = k->reverse_only || d == 1;
    const float *bias = k->b ? k->b + d * 2 * gn : NULL;
    if (k->h0) memcpy(k->h, k->h0 + state_at(k, d, b), (size_t)n * sizeof *k->h);
    else memset(k->h, 0, (size_t)n * sizeof *k->h);
    if (k->c0) memcpy(k->c, k->c0 + state_at(k, d, b), (size_t)n * sizeof *k->c);
    else memset(k->c, 0, (size_t)n * sizeof *k->c);
    for (int64_t s = 0; s < len; s++) {
        const int64_t t = back ? len - 1 - s : s;
        const float *x = k->x + (k->batch_first ? b * k->seq + t : t * k->batch + b) * k->input;
        gates_of(k->w + d * gn * k->input, bias, x, gn, k->input, k->g);
        gates_of(k->r + d * gn * n, bias ? bias + gn : NULL, k->h, gn, n, k->g + gn);
        cell(k, d, k->g, k->g + gn);
        const int64_t at = k->batch_first ? (b * k->seq + t) * k->dirs + d : (t * k->dirs + d) * k->batch + b;
        if (k->y) memcpy(k->y + at * n, k->h, (size_t)n * sizeof *k->y);
    }
    if (k->yh) memcpy(k->yh + state_at(k, d, b), k->h, (size_t)n * sizeof *k->h);
    if (k->yc) memcpy(k->yc + state_at(k, d, b), k->c, (size_t)n * sizeof *k->c);
}

static qx_status walk(qx_call *c, const rnn *k, cell_fn *cell)
{
    for (int d = 0; d < k->dirs; d++)
        for (int64_t b = 0; b < k->batch; b++) {
            QX_TRY(qx_check_cancel(c->ctx));
            walk_one(k, cell, d, b);
        }
    return QX_OK;
}

qx_status qx_cpu_rnn(qx_call *c)
{
    rnn k = {0};
    QX_TRY(setup(c, &k, 1, 1, (const char *const[]){"Tanh"}));
    return walk(c, &k, cell_rnn);
}

qx_status qx_cpu_gru(qx_call *c)
{
    rnn k = {0};
    k.linear_before_reset = qx_call_int(c, "linear_before_reset", 0) != 0;
    QX_TRY(setup(c, &k, 3, 2, (const char *const[]){"Sigmoid", "Tanh"}));
    return walk(c, &k, cell_gru);
}

qx_status qx_cpu_lstm(qx_call *c)
{
    rnn k = {0};
    k.input_forget = qx_call_int(c, "input_forget", 0) != 0;
    QX_TRY(setup(c, &k, 4, 3, (const char *const[]){"Sigmoid", "Tanh", "Tanh"}));
    return walk(c, &k, cell_lstm);
}
