/* rnn.c - RNN, GRU, LSTM in float: both directions, layouts 0 and 1, sequence lengths, peepholes, clip, the standard's activations.
 * What inputs add to the gates is one product for many steps; a step multiplies the states of the whole batch. Constant weights are
 * packed at the first run and then forgotten: a step reads all of R, which dot products of short rows do at a third of the speed.
 * com.microsoft's DynamicQuantizeLSTM is the same walk with weights in codes: inputs are rounded by the range of all of them, states by
 * that of each step. */
#include <string.h>

#include "kernels/dot.h"
#include "kernels/gemm.h"
#include "kernels/pointwise.h"
#include "runtime/cpu/op.h"
#include "runtime/cpu/rnn_codes.h"

enum { STEPS = 64 }; /* whose input products are made at once */

/* ---- Activations of a row ---- */

/* What goes beyond one unary function: Affine is a x + b, ScaledTanh a tanh(b x). */
typedef enum act_form { ACT_UNARY, ACT_AFFINE, ACT_SCALED_TANH } act_form;
typedef struct act { const char *name; act_form form; qx_unary fn; int n_params; float p[2]; } act;
static const act act_table[] = {
    {"Sigmoid", ACT_UNARY, QX_U_SIGMOID, 0, {0, 0}}, {"Tanh", ACT_UNARY, QX_U_TANH, 0, {0, 0}}, {"Relu", ACT_UNARY, QX_U_RELU, 0, {0, 0}},
    {"Affine", ACT_AFFINE, QX_U_COUNT_, 2, {1, 0}}, {"LeakyRelu", ACT_UNARY, QX_U_LEAKY_RELU, 1, {0.01f, 0}},
    {"ThresholdedRelu", ACT_UNARY, QX_U_THRESHOLDED, 1, {1, 0}}, {"ScaledTanh", ACT_SCALED_TANH, QX_U_COUNT_, 2, {1, 1}},
    {"HardSigmoid", ACT_UNARY, QX_U_HARDSIGMOID, 2, {0.2f, 0.5f}}, {"Elu", ACT_UNARY, QX_U_ELU, 1, {1, 0}},
    {"Softsign", ACT_UNARY, QX_U_SOFTSIGN, 0, {0, 0}},
    {"Softplus", ACT_UNARY, QX_U_SOFTPLUS, 0, {0, 0}},
};

static void scale_row(float *v, int64_t n, float by, float add)
{
    for (int64_t i = 0; i < n; i++) v[i] = by * v[i] + add;
}

static void act_row(const act *a, float *v, int64_t n)
{
    if (a->form == ACT_AFFINE) {
        scale_row(v, n, a->p[0], a->p[1]);
    } else if (a->form == ACT_SCALED_TANH) {
        scale_row(v, n, a->p[1], 0);
        qx_unary_find(QX_U_TANH, QX_DT_FLOAT)(v, v, n, a->p);
        scale_row(v, n, a->p[0], 0);
    } else {
        qx_unary_find(a->fn, QX_DT_FLOAT)(v, v, n, a->p);
    }
}

/* ---- Set-up ---- */

/* A weight [dirs][n][k]: as it lies, or (panels not NULL) packed, `size` floats a direction; or in codes (codes.w not NULL). */
typedef struct weight { const float *rows, *panels; int64_t n, k, size; qx_rnn_codes codes; } weight;

typedef struct rnn {
    int gates, n_acts, dirs;
    int64_t seq, batch, input, hidden;
    bool reverse_only, batch_first;
    float clip;
    const float *x, *b, *h0, *c0, *p;
    weight w, r;             /* r of a GRU that resets before its product: as it lies, its last gate is multiplied by itself */
    const int64_t *lens;
    int64_t n_lens;
    bool linear_before_reset, input_forget;
    act acts[6];
    float *y, *yh, *yc;
    float *h, *c;            /* [dirs][batch][hidden]: the state */
    float *rows;             /* [dirs][STEPS * batch][input]: inputs in the order in which a direction takes them */
    float *gx, *gh, *room;   /* [dirs] of gates: x W' + Wb [STEPS * batch][gates * hidden], h R' + Rb [batch][gates * hidden], [hidden] */
    bool in_codes;           /* the weights are; then x is rounded so, and code_room has code_size bytes a direction */
    qx_rnn_grid grid;
    uint8_t *code_room;
    int64_t code_size;
} rnn;

static qx_status find_act(qx_call *c, const char *name, act *a)
{
    for (size_t i = 0; i < sizeof act_table / sizeof act_table[0]; i++)
        if (!strcasecmp(act_table[i].name, name)) {
            *a = act_table[i];
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
        if (a->n_params > 0 && ia < na) a->p[0] = alpha[ia++];
        if (a->n_params > 1 && ib < nb) a->p[1] = beta[ib++];
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

typedef struct state { float *w, *r; qx_code_panels wc, rc; } state; /* packed weights of a node */

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    qx_free(ctx, s->w);
    qx_free(ctx, s->r);
    qx_code_panels_free(ctx, &s->wc);
    qx_code_panels_free(ctx, &s->rc);
}

static qx_status pack(qx_call *c, const weight *w, int64_t dirs, float **packed)
{
    float *to = NULL;
    size_t n;
    if (!qx_mul_size((size_t)w->size, (size_t)dirs, &n)) QX_CALL_FAIL(c, QX_E_SHAPE, "weight of %lld numbers", (long long)w->size);
    QX_TRY(qx_alloc_raw_array(c->ctx, n, sizeof *to, (void **)&to));
    for (int64_t d = 0; d < dirs; d++)
        for (int64_t p = 0; p * QX_GEMM_NR < w->n; p++)
            qx_gemm_pack_panel(w->rows + d * w->n * w->k, w->k, w->n, 1, w->k, p, to + d * w->size + p * QX_GEMM_NR * w->k);
    *packed = to;
    return QX_OK;
}

/* Input i as [dirs][n][k]. */
static qx_status read_weight(qx_call *c, uint32_t i, const rnn *k, int64_t columns, bool packs, float **packed, weight *out)
{
    const int64_t n = k->gates * k->hidden, dims[3] = {k->dirs, n, columns};
    const qx_tensor *t;
    *out = (weight){.n = n, .k = columns, .size = qx_gemm_packed_size(columns, n)};
    QX_TRY(qx_call_need(c, i, &t));
    if (!*packed || t->data) QX_TRY(expect(c, i, 3, dims, &out->rows));
    if (packs && !*packed && qx_call_in_const(c, i) && columns > 0) QX_TRY(pack(c, out, k->dirs, packed));
    if (*packed) qx_call_drop_const(c, i);
    out->panels = *packed;
    return QX_OK;
}

/* W [dirs][input][4 hidden] and R likewise, the other way round than a float LSTM has them. */
static qx_status read_codes(qx_call *c, rnn *k, state *s)
{
    enum { W_SCALE = 8, R_SCALE = 10 };
    const int64_t n = k->gates * k->hidden;
    QX_TRY(qx_rnn_codes_read(c, 1, W_SCALE, (int64_t[]){k->dirs, k->input, n}, &s->wc, &k->w.codes));
    QX_TRY(qx_rnn_codes_read(c, 2, R_SCALE, (int64_t[]){k->dirs, k->hidden, n}, &s->rc, &k->r.codes));
    return QX_OK;
}

/* Of inputs up to the end of the longest entry; the layout of codes has steps first. */
static void see_inputs(rnn *k)
{
    int64_t longest = k->n_lens ? 0 : k->seq;
    for (int64_t i = 0; i < k->n_lens; i++) longest = k->lens[i] > longest ? k->lens[i] : longest;
    qx_rnn_grid_see(&k->grid, k->x, longest * k->batch * k->input);
    qx_rnn_grid_make(&k->grid);
}

static qx_status read_weights(qx_call *c, rnn *k)
{
    state *s;
    QX_TRY(qx_call_state(c, sizeof *s, drop, (void **)&s));
    if (k->in_codes) return read_codes(c, k, s);
    QX_TRY(read_weight(c, 1, k, k->input, true, &s->w, &k->w));
    return read_weight(c, 2, k, k->hidden, k->gates != 3 || k->linear_before_reset, &s->r, &k->r);
}

static qx_status read_inputs(qx_call *c, rnn *k)
{
    const int64_t d = k->dirs, h = k->hidden, g = k->gates;
    const int64_t state0[3] = {k->batch_first ? k->batch : d, k->batch_first ? d : k->batch, h};
    QX_TRY(qx_call_in_f32(c, 0, &k->x));
    QX_TRY(read_weights(c, k));
    QX_TRY(expect(c, 3, 2, (int64_t[]){d, 2 * g * h}, &k->b));
    QX_TRY(qx_call_in_i64(c, 4, &k->lens, &k->n_lens));
    QX_TRY(expect(c, 5, 3, state0, &k->h0));
    if (g == 4) QX_TRY(expect(c, 6, 3, state0, &k->c0));
    if (g == 4) QX_TRY(expect(c, 7, 2, (int64_t[]){d, 3 * h}, &k->p));
    for (int64_t i = 0; i < k->n_lens; i++)
        if (k->lens[i] < 0 || k->lens[i] > k->seq)
            QX_CALL_FAIL(c, QX_E_SHAPE, "sequence_lens[%lld] is %lld of %lld", (long long)i, (long long)k->lens[i], (long long)k->seq);
    if (k->in_codes) see_inputs(k);
    return QX_OK;
}

static int64_t chunk_steps(const rnn *k) { return k->seq < STEPS ? k->seq : STEPS; }

static qx_status workspace(qx_call *c, rnn *k)
{
    const int64_t rows = k->dirs * k->batch, all = rows * chunk_steps(k), g = k->gates * k->hidden;
    QX_TRY(QX_CALL_SCRATCH(c, rows * k->hidden + 1, &k->h));
    QX_TRY(QX_CALL_SCRATCH(c, rows * k->hidden + 1, &k->c));
    QX_TRY(QX_CALL_SCRATCH(c, all * k->input + 1, &k->rows));
    QX_TRY(QX_CALL_SCRATCH(c, all * g + 1, &k->gx));
    QX_TRY(QX_CALL_SCRATCH(c, rows * g + 1, &k->gh));
    k->code_size = k->batch * (chunk_steps(k) * k->input + k->hidden);
    if (k->in_codes) QX_TRY(QX_CALL_SCRATCH(c, k->dirs * k->code_size + 1, &k->code_room));
    return QX_CALL_SCRATCH(c, k->dirs * k->hidden, &k->room);
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
    k->batch_first = !k->in_codes && qx_call_int(c, "layout", 0) == 1;
    if (x->rank != 3 || w->rank != 3 || w->dims[k->in_codes ? 2 : 1] % gates)
        QX_CALL_FAIL(c, QX_E_SHAPE, "X of rank %d, W of rank %d", x->rank, w->rank);
    k->seq = x->dims[k->batch_first ? 1 : 0];
    k->batch = x->dims[k->batch_first ? 0 : 1];
    k->input = x->dims[2];
    const int64_t hidden = w->dims[k->in_codes ? 2 : 1] / gates;
    k->hidden = qx_call_int(c, "hidden_size", hidden);
    if (k->hidden <= 0 || k->hidden != hidden)
        QX_CALL_FAIL(c, QX_E_SHAPE, "hidden_size %lld, W has %lld", (long long)k->hidden, (long long)hidden);
    k->clip = qx_call_float(c, "clip", 0);
    QX_TRY(read_acts(c, k, defaults));
    QX_TRY(read_inputs(c, k));
    const int64_t full[4] = {k->batch_first ? k->batch : k->seq, k->batch_first ? k->seq : k->dirs, k->batch_first ? k->dirs : k->batch,
                             k->hidden};
    const int64_t last[3] = {k->batch_first ? k->batch : k->dirs, k->batch_first ? k->dirs : k->batch, k->hidden};
    if (c->n_out > 0) QX_TRY(qx_call_out_f32(c, 0, x->dtype, 4, full, &k->y));
    if (c->n_out > 1) QX_TRY(qx_call_out_f32(c, 1, x->dtype, 3, last, &k->yh));
    if (c->n_out > 2) QX_TRY(qx_call_out_f32(c, 2, x->dtype, 3, last, &k->yc));
    if (k->y) memset(k->y, 0, (size_t)(k->seq * k->dirs * k->batch * k->hidden) * sizeof *k->y);
    return workspace(c, k);
}

/* ---- Cells: one batch entry, one step; gx is x W' + Wb, gh is h R' + Rb, both [gates][hidden] and used up ---- */

typedef struct cell { const rnn *k; int d; float *gx, *gh, *h, *c, *room; } cell;

static void clip_row(const rnn *k, float *v, int64_t n)
{
    for (int64_t i = 0; i < n && k->clip > 0; i++) {
        const float low = v[i] < -k->clip ? -k->clip : v[i];
        v[i] = low > k->clip ? k->clip : low;
    }
}

/* act(clip(v + add)) of one gate. */
static void gate(const rnn *k, const act *a, float *v, const float *add, int64_t n)
{
    for (int64_t i = 0; i < n; i++) v[i] += add[i];
    clip_row(k, v, n);
    act_row(a, v, n);
}

static void cell_rnn(const cell *s)
{
    gate(s->k, &s->k->acts[s->d], s->gx, s->gh, s->k->hidden);
    memcpy(s->h, s->gx, (size_t)s->k->hidden * sizeof *s->h);
}

/* Gate order z, r, h. Without linear_before_reset the hidden part of h is R_h (r . h) + Rb_h. */
static void cell_gru(const cell *s)
{
    const rnn *k = s->k;
    const int64_t n = k->hidden;
    const act *f = &k->acts[2 * s->d], *g = f + 1;
    float *z = s->gx, *reset = s->gx + n, *cand = s->gx + 2 * n, *hidden = s->gh + 2 * n;
    gate(k, f, z, s->gh, n);
    gate(k, f, reset, s->gh + n, n);
    if (k->linear_before_reset) {
        for (int64_t j = 0; j < n; j++) hidden[j] *= reset[j];
    } else {
        for (int64_t j = 0; j < n; j++) s->room[j] = reset[j] * s->h[j];
        qx_gemm_nt(1, n, n, s->room, n, k->r.rows + (s->d * 3 + 2) * n * n, n, hidden, n);
        for (int64_t j = 0; j < n && k->b; j++) hidden[j] += k->b[s->d * 6 * n + 5 * n + j];
    }
    gate(k, g, cand, hidden, n);
    for (int64_t j = 0; j < n; j++) s->h[j] = (1 - z[j]) * cand[j] + z[j] * s->h[j];
}

static void add_peephole(float *v, const float *p, const float *c, int64_t n)
{
    for (int64_t j = 0; j < n && p; j++) v[j] += p[j] * c[j];
}

/* Gate order i, o, f, c; peepholes i, o, f. */
static void cell_lstm(const cell *s)
{
    const rnn *k = s->k;
    const int64_t n = k->hidden;
    const float *p = k->p ? k->p + s->d * 3 * n : NULL;
    const act *a = &k->acts[3 * s->d];
    float *i = s->gx, *o = s->gx + n, *f = s->gx + 2 * n, *cc = s->gx + 3 * n;
    add_peephole(i, p, s->c, n);
    gate(k, &a[0], i, s->gh, n);
    add_peephole(f, p ? p + 2 * n : NULL, s->c, n);
    if (k->input_forget) for (int64_t j = 0; j < n; j++) f[j] = 1 - i[j];
    else gate(k, &a[0], f, s->gh + 2 * n, n);
    gate(k, &a[1], cc, s->gh + 3 * n, n);
    for (int64_t j = 0; j < n; j++) s->c[j] = f[j] * s->c[j] + i[j] * cc[j];
    add_peephole(o, p ? p + n : NULL, s->c, n);
    gate(k, &a[0], o, s->gh + n, n);
    memcpy(s->room, s->c, (size_t)n * sizeof *s->room);
    act_row(&a[2], s->room, n);
    for (int64_t j = 0; j < n; j++) s->h[j] = o[j] * s->room[j];
}

/* ---- The walk: directions side by side, in each some steps of all batch entries at a time ---- */

typedef void cell_fn(const cell *s);
typedef struct walk { qx_ctx *ctx; const rnn *k; cell_fn *fn; } walk;

static int64_t length_of(const rnn *k, int64_t b) { return k->n_lens ? k->lens[b < k->n_lens ? b : k->n_lens - 1] : k->seq; }
static int64_t state_at(const rnn *k, int d, int64_t b) { return (k->batch_first ? b * k->dirs + d : d * k->batch + b) * k->hidden; }

/* Where step s of entry b lies in time. */
static int64_t time_of(const rnn *k, int d, int64_t s, int64_t b) { return k->reverse_only || d == 1 ? length_of(k, b) - 1 - s : s; }

static void copy_or_zero(float *to, const float *from, int64_t at, int64_t n)
{
    if (from) memcpy(to, from + at, (size_t)n * sizeof *to);
    else memset(to, 0, (size_t)n * sizeof *to);
}

static void add_bias(float *g, const float *bias, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows && bias; r++)
        for (int64_t i = 0; i < n; i++) g[r * n + i] += bias[i];
}

/* y = x w' + bias. */
static void times(const weight *w, int d, int64_t rows, const float *x, const float *bias, float *y)
{
    if (w->panels) {
        qx_sgemm_run(&(qx_sgemm){.m = rows, .k = w->k, .n = w->n, .x = x, .ldx = w->k, .cx = 1, .panels = w->panels + d * w->size,
                                 .step = w->k * QX_GEMM_NR, .bias = bias, .y = y, .ldy = w->n, .alpha = 1.0f});
        return;
    }
    qx_gemm_nt(rows, w->n, w->k, x, w->k, w->rows + d * w->n * w->k, w->k, y, w->n);
    add_bias(y, bias, rows, w->n);
}

/* x W' + Wb of steps [s0, s0 + steps), entry by entry in each; entries that have ended get zeros. */
static void input_gates(const rnn *k, int d, int64_t s0, int64_t steps, float *gx)
{
    const int64_t gn = k->gates * k->hidden, rows = steps * k->batch;
    float *x = k->rows + d * chunk_steps(k) * k->batch * k->input;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t b = r % k->batch, s = s0 + r / k->batch, t = time_of(k, d, s, b);
        const bool there = s < length_of(k, b);
        copy_or_zero(x + r * k->input, there ? k->x : NULL, (k->batch_first ? b * k->seq + t : t * k->batch + b) * k->input, k->input);
    }
    const float *bias = k->b ? k->b + d * 2 * gn : NULL;
    if (k->in_codes) qx_rnn_codes_times(&k->w.codes, d, &k->grid, rows, x, bias, k->code_room + d * k->code_size, gx);
    else times(&k->w, d, rows, x, bias, gx);
}

/* h R' + Rb of all entries. What has ended a step ago says nothing of the range of codes. */
static void state_gates(const rnn *k, int d, int64_t s, const float *h, float *gh)
{
    qx_rnn_grid g = {0};
    const int64_t gn = k->gates * k->hidden;
    const float *bias = k->b ? k->b + d * 2 * gn + gn : NULL;
    if (!k->in_codes) {
        times(&k->r, d, k->batch, h, bias, gh);
        return;
    }
    for (int64_t b = 0; b < k->batch; b++)
        if (s <= length_of(k, b)) qx_rnn_grid_see(&g, h + b * k->hidden, k->hidden);
    qx_rnn_grid_make(&g);
    qx_rnn_codes_times(&k->r.codes, d, &g, k->batch, h, bias, k->code_room + d * k->code_size, gh);
}

static void one_step(const walk *w, int d, int64_t s, float *gx)
{
    const rnn *k = w->k;
    const int64_t n = k->hidden, gn = k->gates * n;
    float *h = k->h + d * k->batch * n, *gh = k->gh + d * k->batch * gn;
    state_gates(k, d, s, h, gh);
    for (int64_t b = 0; b < k->batch; b++) {
        if (s >= length_of(k, b)) continue;
        const int64_t t = time_of(k, d, s, b), at = k->batch_first ? (b * k->seq + t) * k->dirs + d : (t * k->dirs + d) * k->batch + b;
        w->fn(&(cell){k, d, gx + b * gn, gh + b * gn, h + b * n, k->c + (d * k->batch + b) * n, k->room + d * n});
        if (k->y) memcpy(k->y + at * n, h + b * n, (size_t)n * sizeof *k->y);
    }
}

static qx_status walk_direction(void *user, int64_t direction)
{
    const walk *w = user;
    const rnn *k = w->k;
    const int d = (int)direction;
    const int64_t n = k->hidden, gn = k->gates * n, most = chunk_steps(k);
    float *gx = k->gx + d * most * k->batch * gn;
    for (int64_t b = 0; b < k->batch; b++) {
        copy_or_zero(k->h + (d * k->batch + b) * n, k->h0, state_at(k, d, b), n);
        copy_or_zero(k->c + (d * k->batch + b) * n, k->c0, state_at(k, d, b), n);
    }
    for (int64_t s0 = 0; s0 < k->seq; s0 += most) {
        const int64_t steps = k->seq - s0 < most ? k->seq - s0 : most;
        QX_TRY(qx_check_cancel(w->ctx));
        input_gates(k, d, s0, steps, gx);
        for (int64_t s = 0; s < steps; s++) one_step(w, d, s0 + s, gx + s * k->batch * gn);
    }
    for (int64_t b = 0; b < k->batch; b++) {
        if (k->yh) memcpy(k->yh + state_at(k, d, b), k->h + (d * k->batch + b) * n, (size_t)n * sizeof *k->yh);
        if (k->yc) memcpy(k->yc + state_at(k, d, b), k->c + (d * k->batch + b) * n, (size_t)n * sizeof *k->yc);
    }
    return QX_OK;
}

static qx_status run(qx_call *c, const rnn *k, cell_fn *fn)
{
    walk w = {c->ctx, k, fn};
    return qx_parallel(c->ctx, k->dirs, walk_direction, &w);
}

qx_status qx_cpu_rnn(qx_call *c)
{
    rnn k = {0};
    QX_TRY(setup(c, &k, 1, 1, (const char *const[]){"Tanh"}));
    return run(c, &k, cell_rnn);
}

qx_status qx_cpu_gru(qx_call *c)
{
    rnn k = {0};
    k.linear_before_reset = qx_call_int(c, "linear_before_reset", 0) != 0;
    QX_TRY(setup(c, &k, 3, 2, (const char *const[]){"Sigmoid", "Tanh"}));
    return run(c, &k, cell_gru);
}

qx_status qx_cpu_lstm(qx_call *c)
{
    rnn k = {.in_codes = c->node->op->id == QX_OP_ms_DynamicQuantizeLSTM};
    k.input_forget = qx_call_int(c, "input_forget", 0) != 0;
    QX_TRY(setup(c, &k, 4, 3, (const char *const[]){"Sigmoid", "Tanh", "Tanh"}));
    return run(c, &k, cell_lstm);
}
