/* sequence.c - see sequence.h. The float graph runs layer by layer (runtime/layers.c) in two streams of activations: in one all
 * weights are what the passes before made of them, in the other those that are solved are as their readers will see them. Before
 * the first reader of an input runs, every sample has shown it: then its Gram matrix is complete, and the weights that read it are
 * solved. Nothing runs twice, and one input's matrices are in memory at a time.
 *
 * What is rounded is not W but W (1 + share S), which makes up for what the inputs lack (shift.h), against the matrix of the float
 * inputs, as without `sequential`: where no share helps, the weight is what it would be without. */
#include "passes/search/sequence.h"

#include <string.h>

#include "base/spool.h"
#include "calib/stats/observer.h"
#include "calib/stats/store.h"
#include "kernels/search.h"
#include "passes/place/scheme.h"
#include "passes/place/second_level.h"
#include "passes/search/shift.h"
#include "passes/search/solve_step.h"

enum { FLOAT_STREAM, ROUNDED_STREAM };

/* ---- which weights ---- */

static bool asks(const qx_pass *p)
{
    for (int i = 0; p->def->options && p->def->options[i].name; i++)
        if (strcmp(p->def->options[i].name, "sequential") == 0) return qx_opt_bool(p, "sequential");
    return false;
}

static bool any_asks(const qx_pipeline *pipe)
{
    for (int i = 0; i < pipe->n_passes; i++)
        if (asks(pipe->passes[i])) return true;
    return false;
}

/* asks(p) is known. */
static bool solves(const qx_pass *p)
{
    return strcmp(p->def->name, "sparsity") != 0 || strcmp(qx_opt_text(p, "method"), "sparsegpt") == 0;
}

qx_status qx_sequence_check(const qx_pipeline *pipe)
{
    bool any = false, solved = false;
    for (int i = 0; i < pipe->n_passes; i++) {
        any |= asks(pipe->passes[i]);
        solved |= asks(pipe->passes[i]) && solves(pipe->passes[i]);
    }
    if (any && !solved)
        QX_FAIL(pipe->ctx, QX_E_USAGE, "sequential: magnitude and wanda choose by the weights of one layer; write "
                                       "sparsity(method=sparsegpt)");
    if (any && pipe->opt->resume)
        QX_FAIL(pipe->ctx, QX_E_USAGE, "sequential solves weights while the samples run, and no checkpoint holds those: leave out "
                                       "--resume or sequential");
    return QX_OK;
}

/* Its weight is an initializer that one node reads, as it is, between the model's own inputs and outputs. */
bool qx_in_turn(const qx_pass *p, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    return asks(p) && w && w->items == 1 && w->value->init && w->value->n_uses == 1 && !w->value->is_input && it->lin->w_in == w->value &&
        it->lin->rows && it->lin->group <= 1 && it->lin->node->graph == p->pipe->model->graph && it->lin->rows->graph == w->value->graph;
}

static bool any_in_turn(const qx_pipeline *pipe, const qx_plan_item *it)
{
    for (int i = 0; i < pipe->n_passes; i++)
        if (qx_in_turn(pipe->passes[i], it) && solves(pipe->passes[i])) return true;
    return false;
}

/* H and what finds S, more than which a solver does not need afterwards; the readers' weights as the executor has them, in each
 * stream. */
int64_t qx_sequence_bytes(const qx_pipeline *pipe)
{
    const qx_plan *plan = pipe->plan;
    int64_t most = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (!any_in_turn(pipe, it)) continue;
        const int64_t k = qx_view_k(&it->lin->view);
        int64_t bytes = (int64_t)qx_gram_bytes(k, 1) + qx_shift_bytes(k);
        for (int64_t j = 0; j < plan->linears.count; j++)
            if (plan->items[j].weight && plan->items[j].lin->rows == it->lin->rows)
                bytes += 2 * plan->items[j].weight->tensor->numel * (int64_t)sizeof(float);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* ---- what is seen of an input ---- */

typedef struct gate {
    qx_value *seen;
    const qx_conv_window *window;  /* NULL: rows of the last axis */
    int64_t enough;
    qx_gram h; qx_thinning thin;
    qx_shift *shift;               /* NULL: no row yet */
    int64_t runs, rows;            /* samples, rows so far */
    bool done;
} gate;

/* gate: -1: changed by other passes alone. own: as it was read */
typedef struct turn { qx_plan_weight *w; int64_t gate; qx_weight *own, *in_float, *rounded; } turn;

typedef struct sequence {
    qx_ctx *ctx;
    qx_pipeline *pipe;
    qx_samples *samples;
    qx_stats *stats;               /* whom solved weights wait with */
    gate *gates; int64_t n_gates;
    turn *turns; int64_t n_turns;
    qx_sweep_gate *sweep;          /* [turns] */
    qx_spool *pairs;               /* inputs of the stretch in float, for the other stream */
    int stream;
} sequence;

/* Every eighth sample judges; of fewer samples than eight, every eighth run of rows. */
static bool judges(const sequence *s, const gate *g)
{
    enum { ONE_OF = 8, RUN = 32 };
    return qx_samples_count(s->samples) >= ONE_OF ? g->runs % ONE_OF == ONE_OF - 1 : g->rows / RUN % ONE_OF == ONE_OF - 1;
}

typedef struct adder { sequence *s; gate *g; } adder;

/* Rows of x and xq behind each other. */
static qx_status add_rows(void *user, const float *x, int64_t rows, int64_t stride, int64_t len)
{
    const adder *a = user;
    gate *g = a->g;
    const int64_t k = len / 2;
    if (!g->shift) QX_TRY(qx_shift_new(a->s->ctx, k, &g->shift));
    QX_TRY(qx_gram_add(a->s->ctx, &g->h, x, rows, stride, k, 1));
    for (int64_t r = 0; r < rows; r++, g->rows++) QX_TRY(qx_shift_add(a->s->ctx, g->shift, x + r * stride, 1, stride, judges(a->s, g)));
    return QX_OK;
}

/* x and xq as one tensor of twice the channels, whose rows (patches, of a convolution) then hold both. */
static qx_status add_both(sequence *s, gate *g, const qx_tensor *t, const float *x, const float *xq, float *both)
{
    const int axis = !g->window ? t->rank - 1 : g->window->rank ? 1 : t->rank - 2;
    int64_t dims[QX_MAX_RANK], piece = 1;
    memcpy(dims, t->dims, (size_t)t->rank * sizeof *dims);
    for (int i = axis; i < t->rank; i++) piece *= dims[i];
    dims[axis] *= 2;
    for (int64_t at = 0; at < t->numel; at += piece) {
        memcpy(both + 2 * at, x + at, (size_t)piece * sizeof *both);
        memcpy(both + 2 * at + piece, xq + at, (size_t)piece * sizeof *both);
    }
    const qx_seen_by by = {both, t->rank, dims, g->window, g->seen->name};
    const qx_status st = qx_rows_each(s->ctx, &by, &g->thin, add_rows, &(adder){s, g});
    g->runs++;
    return st;
}

static qx_status see(sequence *s, gate *g, const qx_tensor *t, const float *xq)
{
    float *x = NULL, *both = NULL;
    qx_status st;
    if (s->stream == FLOAT_STREAM) return qx_spool_put(s->pairs, xq, (size_t)t->numel * sizeof *xq);
    QX_TRY_GOTO(st, qx_alloc_raw(s->ctx, (size_t)t->numel * sizeof *x, (void **)&x));
    QX_TRY_GOTO(st, qx_alloc_raw(s->ctx, (size_t)t->numel * 2 * sizeof *both, (void **)&both));
    QX_TRY_GOTO(st, qx_spool_get(s->pairs, x, (size_t)t->numel * sizeof *x));
    st = add_both(s, g, t, x, xq, both);
done:
    qx_free(s->ctx, x);
    qx_free(s->ctx, both);
    return st;
}

static qx_status observed(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    sequence *s = user;
    float *x;
    qx_status st = QX_OK;
    (void)watch;
    if (!t->numel) return QX_OK;
    QX_TRY(qx_alloc_raw(s->ctx, (size_t)t->numel * sizeof *x, (void **)&x));
    if (!qx_to_f32(t->dtype, t->data, t->numel, x)) st = qx_fail(s->ctx, QX_E_TYPE, "sequential: '%s' is not a float", v->name);
    for (int64_t i = 0; i < s->n_gates && st == QX_OK; i++)
        if (s->gates[i].seen == v) st = see(s, &s->gates[i], t, x);
    qx_free(s->ctx, x);
    return st;
}

/* ---- solving ---- */

static void close_gate(qx_ctx *ctx, gate *g)
{
    qx_gram_free(ctx, &g->h);
    qx_shift_free(ctx, g->shift);
    g->shift = NULL;
}

static qx_status solve_turn(sequence *s, const gate *g, turn *t, const float *matrix)
{
    const qx_input_gram gram = {.h = g->h.full, .rows = g->h.rows};
    qx_solve_shift shift = {.matrix = matrix};
    qx_file *file = NULL;
    QX_TRY(qx_check_cancel(s->ctx));
    if (matrix)
        QX_TRY(qx_shift_share(s->ctx, g->shift, matrix, t->w->tensor, &t->w->view, qx_steps_before_solver(t->w), &shift.share));
    qx_log(s->ctx, QX_LOG_DEBUG, "'%s' makes up for %.2f of what its input lacks", t->w->tensor->name, shift.share);
    QX_TRY(qx_solve_give(s->pipe, t->w, &gram, &shift));
    const qx_status st = qx_solve_settle(s->pipe, t->w, &file, &t->rounded);
    return file && qx_stats_keep_file(s->stats, file) != QX_OK ? QX_E_NOMEM : st;
}

static qx_status solve_gate(sequence *s, int64_t at)
{
    gate *g = &s->gates[at];
    float *matrix = NULL;
    qx_status st = qx_gram_finish(s->ctx, &g->h);
    if (st == QX_OK && g->shift) st = qx_shift_find(s->ctx, g->shift, &matrix);
    for (int64_t i = 0; i < s->n_turns && st == QX_OK; i++)
        if (s->turns[i].gate == at) st = solve_turn(s, g, &s->turns[i], matrix);
    qx_free(s->ctx, matrix);
    close_gate(s->ctx, g);
    g->done = true;
    return st;
}

static qx_status open_gates(void *user, const int64_t *which, int64_t n)
{
    sequence *s = user;
    for (int64_t i = 0; i < n; i++)
        if (!s->gates[s->turns[which[i]].gate].done) QX_TRY(solve_gate(s, s->turns[which[i]].gate));
    return QX_OK;
}

static qx_status begin_stream(void *user, int stream)
{
    sequence *s = user;
    s->stream = stream;
    qx_spool_rewind(s->pairs);
    for (int64_t i = 0; i < s->n_turns; i++) {
        turn *t = &s->turns[i];
        QX_TRY(qx_init_replace(t->w->value, stream == ROUNDED_STREAM && t->rounded ? t->rounded : t->in_float));
    }
    return QX_OK;
}

/* ---- before and after ---- */

static const qx_plan_item *reader_of(const qx_plan *plan, const qx_plan_weight *w)
{
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (plan->items[i].weight == w) return &plan->items[i];
    return NULL;
}

static int64_t enough_rows(const qx_pipeline *pipe)
{
    int64_t most = 0;
    for (int i = 0; i < pipe->n_passes; i++) {
        const int64_t rows = asks(pipe->passes[i]) ? qx_opt_int(pipe->passes[i], "rows") : -1;
        if (!rows) return 0;
        most = rows > most ? rows : most;
    }
    return most;
}

static int64_t gate_of(sequence *s, const qx_linear *l)
{
    const qx_conv_window *window = qx_linear_window(l);
    int64_t i = 0;
    while (i < s->n_gates && !(s->gates[i].seen == l->rows && qx_window_same(s->gates[i].window, window))) i++;
    if (i < s->n_gates) return i;
    s->gates[s->n_gates++] = (gate){.seen = l->rows, .window = window,
                                    .thin = {.enough = enough_rows(s->pipe), .runs = qx_samples_count(s->samples)}};
    return i;
}

/* What the passes before its solvers made of it; always by a job, so that the executor does not count on finding it in the file. */
static qx_status in_float(const sequence *s, const qx_plan_weight *w, qx_weight **out)
{
    const qx_step *steps = qx_steps_before_solver(w);
    const qx_qspec spec = {.codes = w->tensor->dtype};
    qx_job *job;
    QX_TRY(qx_job_new(s->pipe->model, w->tensor, &w->view, steps, &spec, QX_LAYOUT_SAME, &job));
    *out = job->part[QX_PART_CODES];
    (*out)->name = w->value->name;
    return QX_OK;
}

/* Weights that wait, first, so that gates are numbered as they are; then those that other passes changed. */
static qx_status list_turns(sequence *s)
{
    const qx_plan *plan = s->pipe->plan;
    QX_TRY(qx_alloc_array(s->ctx, (size_t)plan->n_weights + 1, sizeof *s->turns, (void **)&s->turns));
    QX_TRY(qx_alloc_array(s->ctx, (size_t)plan->n_weights + 1, sizeof *s->gates, (void **)&s->gates));
    QX_TRY(qx_alloc_array(s->ctx, (size_t)plan->n_weights + 1, sizeof *s->sweep, (void **)&s->sweep));
    for (int waits = 1; waits >= 0; waits--)
        for (int64_t i = 0; i < plan->n_weights; i++) {
            qx_plan_weight *w = &plan->weights[i];
            const qx_plan_item *it = reader_of(plan, w);
            if (!w->steps || !it || qx_solve_waits(w) != waits) continue;
            if (!w->value->init)
                QX_FAIL(s->ctx, QX_E_UNSUPPORTED, "sequential: weight '%s' comes out of a Constant node and is scaled by another pass: "
                                                  "leave out one of the two", w->tensor->name);
            turn *t = &s->turns[s->n_turns++];
            *t = (turn){.w = w, .gate = waits ? gate_of(s, it->lin) : -1, .own = w->value->init};
            QX_TRY(in_float(s, w, &t->in_float));
            if (waits) s->sweep[s->n_turns - 1] = (qx_sweep_gate){it->lin->rows, w->value};
        }
    return QX_OK;
}

/* As the formats do in their run(), which comes later. */
static void weigh_columns(const qx_pipeline *pipe, const qx_stats *stats)
{
    for (int64_t i = 0; i < pipe->plan->linears.count; i++) {
        qx_plan_item *it = &pipe->plan->items[i];
        if (it->weight && it->pass && it->pass->state && !(it->pass->def->flags & QX_PASS_MIXES)) qx_scheme_weigh(it->pass, stats, it);
    }
}

static qx_status share_levels(const qx_pipeline *pipe)
{
    enum { ROOM = 5, OF = 4 }; /* for what makes up for the inputs: block scales have range to spare */
    for (int i = 0; i < pipe->n_passes; i++) QX_TRY(qx_second_level_share(pipe->passes[i], 1));
    for (int i = 0; i < pipe->n_set_passes; i++) QX_TRY(qx_second_level_share(pipe->set_passes[i], 1));
    for (int64_t i = 0; i < pipe->plan->n_weights; i++) {
        qx_plan_weight *w = &pipe->plan->weights[i];
        if (w->spec.amax > 0 && qx_solve_waits(w)) w->spec.second = qx_nvfp4_global(w->spec.amax * ROOM / OF);
    }
    return QX_OK;
}

static qx_status feeds(void *user, int64_t i, const qx_feed **out, int *n)
{
    const sequence *s = user;
    return qx_samples_get(s->samples, i, out, n);
}

static int64_t budget_of(qx_ctx *ctx)
{
    const size_t cap = qx_ctx_max_memory(ctx), used = qx_mem_in_use(ctx);
    return cap ? (int64_t)((cap > used ? cap - used : 0) / 8) + 1 : INT64_MAX;
}

static qx_status watch_inputs(sequence *s, qx_exec *x)
{
    qx_value **values;
    int n = 0;
    QX_TRY(QX_NEW_ARRAY(s->ctx, s->n_gates + 1, &values));
    for (int64_t i = 0; i < s->n_gates; i++) {
        bool seen = false;
        for (int k = 0; k < n; k++) seen |= values[k] == s->gates[i].seen;
        if (!seen) values[n++] = s->gates[i].seen;
    }
    const qx_status st = qx_exec_watch(x, values, n, observed, s);
    qx_free(s->ctx, values);
    return st;
}

static qx_status sweep(sequence *s)
{
    const qx_exec_options eo = {.device = QX_DEVICE_CPU, .only_watched = true};
    int64_t waiting = 0;
    qx_exec *x;
    while (waiting < s->n_turns && s->turns[waiting].gate >= 0) waiting++;
    const qx_sweep_turns turns = {.gates = s->sweep, .n = waiting, .streams = 2, .open = open_gates, .begin = begin_stream};
    const qx_sweep_job job = {.samples = qx_samples_count(s->samples), .weight_budget = budget_of(s->ctx), .turns = &turns, .get = feeds,
                              .user = s};
    QX_TRY(begin_stream(s, FLOAT_STREAM));
    QX_TRY(qx_exec_new(s->ctx, s->pipe->model, &eo, &x));
    qx_status st = watch_inputs(s, x);
    if (st == QX_OK) st = qx_exec_sweep(x, &job);
    for (int64_t i = 0; i < waiting && st == QX_OK; i++) /* what is read last of all */
        if (!s->gates[s->turns[i].gate].done) st = solve_gate(s, s->turns[i].gate);
    qx_exec_free(x);
    return st;
}

qx_status qx_sequence_run(qx_pipeline *pipe, qx_samples *samples, qx_stats *stats)
{
    sequence s = {.ctx = pipe->ctx, .pipe = pipe, .samples = samples, .stats = stats};
    qx_status st;
    if (!any_asks(pipe) || pipe->no_stats) return QX_OK;
    if (!samples) QX_FAIL(pipe->ctx, QX_E_USAGE, "sequential runs the samples again: statistics alone (--load-stats) are not enough");
    weigh_columns(pipe, stats);
    QX_TRY(share_levels(pipe));
    QX_TRY_GOTO(st, list_turns(&s));
    QX_TRY_GOTO(st, qx_spool_open(pipe->ctx, "inputs of a layer", NULL, false, &s.pairs));
    QX_TRY_GOTO(st, sweep(&s));
    for (int64_t i = 0; i < s.n_turns; i++) QX_TRY_GOTO(st, qx_init_replace(s.turns[i].w->value, s.turns[i].own));
done:
    for (int64_t i = 0; i < s.n_gates; i++) close_gate(pipe->ctx, &s.gates[i]);
    qx_spool_close(s.pairs);
    qx_free(pipe->ctx, s.turns);
    qx_free(pipe->ctx, s.gates);
    qx_free(pipe->ctx, s.sweep);
    return st;
}
