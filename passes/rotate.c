/* rotate.c - turns the residual stream and each head's values by orthogonal matrices that are folded into the weights (QuaRot,
 * arXiv 2404.00456; SpinQuant's R1 and R2, arXiv 2405.16406): x becomes x D H, D random signs, H a Hadamard matrix. What the
 * model computes stays the same; outlier channels are spread over all channels, so that few bits hold weights and activations
 * better.
 *
 * It happens before the sweep (rewrite): later passes see the statistics of the turned model, exactly. Nothing is added to the
 * graph: gammas become ones inside the readers' weights, a tied embedding gets a matrix of its own. */
#include <string.h>

#include "base/checked.h"
#include "kernels/solve/solve.h"
#include "passes/linear/store.h"
#include "passes/place/plan.h"
#include "passes/rotate_find.h"

/* One rotation, of vectors of length h.n, and (readers) the gamma that goes before it. */
typedef struct spin { qx_hadamard h; const float *sign; /* [h.n] */ const float *gamma; /* [k] or NULL */ } spin;

static qx_status spin_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const spin *p = s->arg;
    const int64_t n = p->h.n;
    (void)ctx, (void)first, (void)scratch;
    for (int64_t r = 0; r < rows; r++) {
        float *row = x + r * k;
        for (int64_t j = 0; p->gamma && j < k; j++) row[j] *= p->gamma[j];
        for (int64_t b = 0; b < k; b += n)
            for (int64_t j = 0; j < n; j++) row[b + j] *= p->sign[j];
    }
    qx_hadamard_rows(&p->h, x, rows * (k / n), false);
    return QX_OK;
}

static const qx_stepdef def_spin = {.name = "rotate", .rows = spin_rows};

/* Signs by a fixed generator (splitmix64): the same for every run with the same seed. */
static qx_status new_spin(qx_pass *p, qx_model *m, int64_t n, const float *gamma, const spin *like, spin **out)
{
    uint64_t z = (uint64_t)qx_opt_int(p, "seed") * 0x9E3779B97F4A7C15u + (uint64_t)n;
    spin *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    *out = s;
    if (like) {
        *s = *like;
        s->gamma = gamma;
        return QX_OK;
    }
    float *sign = qx_arena_array(m->arena, (size_t)n, sizeof *sign);
    if (!sign) return QX_E_NOMEM;
    for (int64_t i = 0; i < n; i++) {
        uint64_t x = z += 0x9E3779B97F4A7C15u;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        sign[i] = (x ^ (x >> 31)) & 1 ? -1.0f : 1.0f;
    }
    s->sign = sign;
    s->gamma = gamma;
    if (!qx_hadamard_plan(n, 0, &s->h)) QX_FAIL(m->ctx, QX_E_UNSUPPORTED, "rotate: no Hadamard matrix for %lld channels", (long long)n);
    return QX_OK;
}

/* ---- weights -------------------------------------------------------------------------------------------------------------- */

static qx_status turn_embedding(qx_model *m, qx_node *gather, const spin *s)
{
    qx_const_view c;
    qx_weight *fresh;
    qx_value *v;
    if (!qx_const_trace(gather->in[0], &c) || c.rank != 2)
        QX_FAIL(m->ctx, QX_E_FAIL, "rotate: the embedding of '%s' is not constant", gather->name);
    const bool transposed = c.axes[0] == 1;
    const qx_view view = {c.tensor->dims[c.axes[0]], transposed ? c.tensor->dims[0] : 1, transposed ? 1 : c.tensor->dims[1], 0};
    QX_TRY(qx_store_matrix(m, c.tensor, &view, &def_spin, s, transposed ? QX_LAYOUT_NK : QX_LAYOUT_SAME, &fresh));
    if (!transposed && gather->in[0] == c.value && c.value->init && c.value->n_uses == 1) return qx_init_replace(c.value, fresh);
    QX_TRY(qx_init_add(m->graph, qx_unique_name(m, c.value->name), fresh, &v));
    return qx_node_set_in(gather, 0, v);
}

/* ---- gammas -------------------------------------------------------------------------------------------------------------------- */

static qx_status read_gamma(qx_model *m, const qx_spin_param *at, int64_t n, const float **out)
{
    qx_const_view c;
    *out = NULL;
    if (!at->node) return QX_OK;
    if (!qx_const_trace(at->node->in[at->index], &c) || c.tensor->numel != n)
        QX_FAIL(m->ctx, QX_E_FAIL, "rotate: gamma of '%s' is not constant", at->node->name);
    float *g = qx_arena_array(m->arena, (size_t)n, sizeof *g);
    const qx_view view = {1, 1, n, 0};
    if (!g) return QX_E_NOMEM;
    *out = g;
    return qx_rows_read(m->ctx, c.tensor, &view, NULL, 0, 1, g);
}

static qx_status set_to_ones(qx_model *m, const qx_spin_param *at)
{
    qx_const_view c;
    qx_weight *w;
    qx_value *v;
    if (!qx_const_trace(at->node->in[at->index], &c)) QX_FAIL(m->ctx, QX_E_FAIL, "rotate: gamma of '%s' is not constant", at->node->name);
    const int64_t n = c.tensor->numel;
    const qx_value *old = at->node->in[at->index];
    float *ones = qx_arena_array(m->arena, (size_t)n, sizeof *ones);
    void *bytes = qx_arena_alloc(m->arena, (size_t)n * 4);
    if (!ones || !bytes) return QX_E_NOMEM;
    for (int64_t i = 0; i < n; i++) ones[i] = 1;
    if (!qx_from_f32(c.tensor->dtype, ones, n, bytes))
        QX_FAIL(m->ctx, QX_E_TYPE, "rotate: gamma of '%s' is %s", at->node->name, qx_dtype_get(c.tensor->dtype)->name);
    QX_TRY(qx_weight_from_bytes(m, c.tensor->dtype, c.tensor->rank, c.tensor->dims, bytes, &w));
    QX_TRY(qx_init_add(m->graph, qx_unique_name(m, old->name), w, &v));
    return qx_node_set_in(at->node, at->index, v);
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------------- */

static qx_status turn_stream(qx_pass *p, qx_model *m, const qx_spins *s)
{
    spin *base, *own;
    const float *gamma;
    QX_TRY(new_spin(p, m, s->width, NULL, NULL, &base));
    for (int64_t i = 0; i < s->n_readers; i++) {
        QX_TRY(read_gamma(m, &s->readers[i].gamma, s->width, &gamma));
        QX_TRY(new_spin(p, m, s->width, gamma, base, &own));
        QX_TRY(qx_store_inputs(m, s->readers[i].lin, &def_spin, own));
    }
    for (int64_t i = 0; i < s->n_writers; i++) QX_TRY(qx_store_outputs(m, s->writers[i].lin, &def_spin, base));
    QX_TRY(turn_embedding(m, s->embedding, base));
    for (int64_t i = 0; i < s->n_gammas; i++) QX_TRY(set_to_ones(m, &s->gammas[i]));
    return QX_OK;
}

static qx_status turn_heads(qx_pass *p, qx_model *m, const qx_spins *s)
{
    spin *turn = NULL;
    for (int64_t i = 0; i < s->n_heads; i++) {
        if (!turn || turn->h.n != s->values[i].head) QX_TRY(new_spin(p, m, s->values[i].head, NULL, NULL, &turn));
        QX_TRY(qx_store_outputs(m, s->values[i].lin, &def_spin, turn));
        QX_TRY(qx_store_inputs(m, s->outputs[i].lin, &def_spin, turn));
    }
    return QX_OK;
}

/* One rotation after the other: the second finds the weights as the first left them. */
static qx_status rewrite(qx_pass *p, qx_model *m)
{
    const bool r1 = qx_opt_bool(p, "r1"), r2 = qx_opt_bool(p, "r2");
    qx_linears ls;
    qx_spins *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    p->state = s;
    if (!r1 && !r2) QX_FAIL(p->ctx, QX_E_USAGE, "rotate(r1=false,r2=false) does nothing: leave it out");
    QX_TRY(qx_linears_find(m, &ls));
    if (r1) QX_TRY(qx_spins_stream(m, &ls, s));
    if (r1) QX_TRY(turn_stream(p, m, s));
    if (!r2) return QX_OK;
    QX_TRY(qx_linears_find(m, &ls));
    QX_TRY(qx_spins_heads(m, &ls, s));
    if (!r1 && !s->n_heads)
        QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "rotate(r1=false): no attention whose values come straight from a linear operator");
    return turn_heads(p, m, s);
}

/* Their outputs are turned: not comparable with the float model's, layer by layer. */
static qx_status note(qx_pass *p, const qx_linear *l, bool turned, const char *text)
{
    qx_plan_item *it = qx_plan_item_of(p->pipe->plan, l->node);
    if (!it) return QX_OK;
    it->rescaled = it->rescaled || turned;
    return qx_item_note(p->pipe, it, "%s", text);
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const qx_spins *s = p->state;
    (void)m, (void)stats;
    for (int64_t i = 0; i < s->n_readers; i++) QX_TRY(note(p, s->readers[i].lin, false, "rotate: input"));
    for (int64_t i = 0; i < s->n_writers; i++) QX_TRY(note(p, s->writers[i].lin, true, "rotate: output"));
    for (int64_t i = 0; i < s->n_heads; i++) QX_TRY(note(p, s->values[i].lin, true, "rotate: heads out"));
    for (int64_t i = 0; i < s->n_heads; i++) QX_TRY(note(p, s->outputs[i].lin, false, "rotate: heads in"));
    return QX_OK;
}

static const qx_option options[] = {
    {"r1", QX_OPT_BOOL, "true", 0, 1, NULL, "turn the residual stream (Llama-like graphs: RMS norms)"},
    {"r2", QX_OPT_BOOL, "true", 0, 1, NULL, "turn each head's values between value and output projection"},
    {"seed", QX_OPT_INT, "0", 0, 1e9, NULL, "of the random signs"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_rotate = {
    .name = "rotate", .brief = "spread outlier channels by Hadamard rotations folded into the weights", .options = options,
    .flags = QX_PASS_WEIGHTS | QX_PASS_UNTIMED, .rewrite = rewrite, .run = run,
    .doc = "R1: the residual stream x becomes x D H (random signs, Hadamard; Kronecker with a Paley matrix or blocks where the "
           "width is no power of two).\n"
           "Norm gammas move into the readers first; the embedding and the projections back to the stream turn their outputs. R2: "
           "the same per head\n"
           "between value and output projection. The float model stays the same to rounding. For Llama-like graphs; put it first."};
