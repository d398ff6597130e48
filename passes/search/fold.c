/* fold.c - see fold.h. Finding looks upstream through single uses only: a factor must not leak into another reader. */
#include "passes/search/fold.h"

#include <math.h>
#include <string.h>

#include "onnx/edit.h"

/* ---- Looking upstream ---- */

static bool single_use(const qx_value *v)
{
    int64_t n = 0;
    for (const qx_use *u = v->uses; u; u = u->next) n += qx_use_reads_values(u);
    return n == 1 && !v->is_output;
}

/* A constant whose elements line up with the last axis of k channels. */
static bool is_vector(const qx_value *v, int64_t k)
{
    const qx_weight *w = v ? qx_value_const(v) : NULL;
    return w && w->numel == k && w->rank >= 1 && w->dims[w->rank - 1] == k && qx_dtype_is_float(w->dtype) && qx_dtype_bits(w->dtype) >= 16;
}

/* Up through what only moves rows of k channels, as long as nothing else reads them. */
static qx_value *up_same_last(qx_value *v, int64_t k)
{
    for (qx_value *from; (from = qx_row_source(v, k)) && single_use(from);) v = from;
    return v;
}

static void add_param(qx_fold *f, qx_node *n, uint32_t index)
{
    f->params[f->n_params++] = (qx_fold_param){n, index};
}

/* ---- (a) a norm, whole or as its last Mul (and Add) ---- */

static const struct { qx_op_id op; uint32_t gamma, beta; } norms[] = {
    {QX_OP_LayerNormalization, 1, 2}, {QX_OP_SimplifiedLayerNormalization, 1, 0}, {QX_OP_RMSNormalization, 1, 0},
    {QX_OP_ms_SkipLayerNormalization, 2, 3}, {QX_OP_ms_SkipSimplifiedLayerNormalization, 2, 0},
};

static bool fold_norm_op(qx_value *v, int64_t k, qx_fold *f)
{
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        if (v->def->op->id != norms[i].op || v->def_index != 0) continue;
        qx_value *gamma = qx_node_in(v->def, norms[i].gamma), *beta = norms[i].beta ? qx_node_in(v->def, norms[i].beta) : NULL;
        if (!is_vector(gamma, k) || (beta && !is_vector(beta, k))) return false;
        add_param(f, v->def, norms[i].gamma);
        if (beta) add_param(f, v->def, norms[i].beta);
        return true;
    }
    return false;
}

/* Index of the operand that is a constant vector [k]; -1: none. */
static int vector_operand(const qx_node *n, int64_t k)
{
    for (int i = 0; i < 2; i++)
        if (is_vector(qx_node_in(n, (uint32_t)i), k)) return i;
    return -1;
}

static bool fold_mul_add(qx_value *v, int64_t k, qx_fold *f)
{
    qx_node *n = v->def;
    const int at = vector_operand(n, k);
    if (at < 0) return false;
    if (n->op->id == QX_OP_Mul) {
        add_param(f, n, (uint32_t)at);
        return true;
    }
    if (n->op->id != QX_OP_Add) return false;
    qx_value *other = n->in[1 - at];
    if (!other || !other->def || !single_use(other) || other->def->op->id != QX_OP_Mul) return false;
    const int gamma = vector_operand(other->def, k);
    if (gamma < 0) return false;
    add_param(f, other->def, (uint32_t)gamma);
    add_param(f, n, (uint32_t)at);
    return true;
}

/* ---- (b) rows of the linear before ---- */

/* Whether rows of the weight are channels of the result: of one matrix, or of each of several that are as large (experts). */
static bool has_row_channels(const qx_linear *l)
{
    return l->plain || (l->node->op->id == QX_OP_MatMul && (l->channel_axis < 0 || l->rows != l->x));
}

static bool makes_columns(const qx_node *n, const struct qx_pipeline *pipe)
{
    const qx_plan_item *it = qx_plan_item_of(pipe->plan, n);
    return it && qx_group_takes(it) && it->lin->rows != it->lin->x;
}

/* What makes v; behind W x its channels lie before a trailing 1, or are turned to be the last axis: NULL where they are not. */
static qx_node *maker_of(const struct qx_pipeline *pipe, const qx_value *v)
{
    qx_node *n = v->def, *of = n->n_in && n->in[0] ? n->in[0]->def : NULL;
    const bool last = n->op->id == QX_OP_Transpose ? qx_swaps_last_two(n)
        : (n->op->id == QX_OP_Squeeze || n->op->id == QX_OP_Reshape) && qx_last_dim(n->in[0]) == 1;
    if (makes_columns(n, pipe)) return NULL;
    return last && of && single_use(n->in[0]) && makes_columns(of, pipe) ? of : n;
}

/* Below the Add of a bias, whose vector is noted; other nodes as they are. */
static qx_node *below_bias(struct qx_pipeline *pipe, qx_node *n, qx_fold *f)
{
    for (uint32_t i = 0; n->op->id == QX_OP_Add && i < 2; i++) {
        qx_value *other = qx_node_in(n, 1 - i);
        const qx_plan_item *it = other && other->def && single_use(other) ? qx_plan_item_of(pipe->plan, other->def) : NULL;
        if (!it || !qx_group_takes(it) || !it->lin->plain || !is_vector(n->in[i], it->lin->n)) continue;
        add_param(f, n, i);
        return other->def;
    }
    return n;
}

/* The linear that makes v, its bias noted; NULL: none, or others read what lies between. */
static qx_plan_item *producer_of(struct qx_pipeline *pipe, qx_value *v, qx_fold *f)
{
    if (!v->def) return NULL;
    qx_node *n = maker_of(pipe, v);
    qx_plan_item *it = n ? qx_plan_item_of(pipe->plan, n = below_bias(pipe, n, f)) : NULL;
    if (!it || !qx_group_takes(it) || !has_row_channels(it->lin)) return NULL;
    const qx_group alone = qx_group_alone(&it);
    f->each = it->lin->plain ? it->lin->n : qx_last_dim(v);
    if (!qx_group_owns_weights(&alone) || f->each < 1 || it->lin->n % f->each) return NULL;
    if (n->op->id == QX_OP_Gemm && qx_node_in(n, 2)) {
        if (!is_vector(n->in[2], it->lin->n)) return NULL;
        add_param(f, n, 2);
    }
    return it;
}

/* A piece of a packed projection: Split on the last axis into equal parts. Moves *v to the packed value and adds the offset. */
static bool through_split(qx_value **v, int64_t k, int64_t *first)
{
    qx_node *n = (*v)->def;
    if (!n || n->op->id != QX_OP_Split || !single_use(*v) || !n->in[0]) return false;
    const qx_value *x = n->in[0];
    const int64_t axis = qx_attr_int(n, "axis", 0);
    if (!x->type.has_shape || (axis != -1 && axis != x->type.rank - 1) || qx_last_dim(x) != k * (int64_t)n->n_out) return false;
    *first = k * (*v)->def_index;
    *v = n->in[0];
    return single_use(*v);
}

static bool is_int(qx_ctx *ctx, const qx_value *v, int64_t wanted)
{
    const qx_weight *w = v ? qx_value_const(v) : NULL;
    int64_t got;
    return w && w->dtype == QX_DT_INT64 && w->numel == 1 && qx_weight_read(ctx, w, &got) == QX_OK && got == wanted;
}

/* One of two Slices that share x between them, each k of its 2 k channels: chunk(2) of a size that the exporter computed. The
 * first begins at 0, the second where the first ends. */
static bool is_half(qx_ctx *ctx, const qx_use *u, int64_t k)
{
    const qx_node *n = u->node;
    return n->op->id == QX_OP_Slice && u->index == 0 && n->n_in >= 3 && qx_last_dim(n->out[0]) == k && qx_last_dim(n->in[0]) == 2 * k &&
        (!qx_node_in(n, 4) || is_int(ctx, n->in[4], 1));
}

static bool through_halves(qx_ctx *ctx, qx_value **v, int64_t k, int64_t *first)
{
    const qx_node *n = (*v)->def, *half[2];
    int count = 0;
    if (!n || n->op->id != QX_OP_Slice || !single_use(*v) || !n->in[0] || n->in[0]->is_output) return false;
    for (const qx_use *u = n->in[0]->uses; u; u = u->next) {
        if (!qx_use_reads_values(u)) continue;
        if (count == 2 || !is_half(ctx, u, k)) return false;
        half[count++] = u->node;
    }
    for (int i = 0; i < 2 && count == 2; i++) {
        if (!is_int(ctx, half[i]->in[1], 0) || half[i]->in[2] != half[1 - i]->in[1]) continue;
        *first = n == half[i] ? 0 : k;
        *v = n->in[0];
        return true;
    }
    return false;
}

/* Sibling pieces of a Split read other rows, so the packed linear may have other readers only through them. */
static bool fold_rows_from(struct qx_pipeline *pipe, qx_value *v, int64_t k, qx_fold *f)
{
    int64_t first = 0;
    v = up_same_last(v, k);
    const bool packed = through_split(&v, k, &first) || through_halves(pipe->ctx, &v, k, &first);
    if (!packed && !single_use(v)) return false;
    if (packed) v = up_same_last(v, qx_last_dim(v));
    f->n_params = 0;
    qx_plan_item *it = producer_of(pipe, v, f);
    if (!it || f->each < first + k || (!packed && f->each != k)) return false;
    f->producer = it;
    f->first = first;
    return true;
}

/* Relu-like functions commute with a positive factor. */
static qx_value *through_relu(qx_value *v)
{
    while (v->def && (v->def->op->id == QX_OP_Relu || v->def->op->id == QX_OP_LeakyRelu) && single_use(v)) v = v->def->in[0];
    return v;
}

/* x = gate * up: either operand that comes straight from a linear takes the factor. */
static bool fold_product(struct qx_pipeline *pipe, qx_value *v, int64_t k, qx_fold *f)
{
    if (v->def->op->id != QX_OP_Mul) return false;
    for (uint32_t i = 2; i-- > 0;) {
        qx_value *side = qx_node_in(v->def, i);
        if (side && qx_last_dim(side) == k && single_use(side) && fold_rows_from(pipe, side, k, f)) return true;
    }
    return false;
}

/* ---- v -> o through the attention product ---- */

static bool moves_heads(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Reshape: case QX_OP_Transpose: case QX_OP_Unsqueeze: case QX_OP_Squeeze: case QX_OP_Expand: case QX_OP_Identity: return true;
    default: return false;
    }
}

/* Up over head splitting, transposing and repeating; NULL when something else is on the way (a cache that concatenates, for example). */
static qx_value *up_heads(qx_value *v)
{
    while (v->def && moves_heads(v->def)) {
        if (!single_use(v) || !v->def->in[0]) return NULL;
        v = v->def->in[0];
    }
    return v;
}

static bool fold_attention(struct qx_pipeline *pipe, qx_value *x, int64_t k, qx_fold *f)
{
    qx_value *y = up_heads(x);
    if (!y || !y->def || y->def->op->id != QX_OP_MatMul || !single_use(y)) return false;
    qx_value *pv = qx_node_in(y->def, 1);
    const int64_t head = qx_last_dim(pv);
    if (!pv || !single_use(pv) || head <= 0 || qx_last_dim(y) != head || k % head) return false;
    qx_value *v = up_heads(pv);
    if (!v || !single_use(v)) return false;
    f->n_params = 0;
    qx_plan_item *it = producer_of(pipe, v, f);
    if (!it || !it->lin->plain || it->lin->n % head || k % it->lin->n) return false;
    f->producer = it;
    f->head = head;
    f->repeat = k / it->lin->n;
    return true;
}

void qx_fold_find(struct qx_pipeline *pipe, const qx_group *g, qx_fold *out)
{
    *out = (qx_fold){.kind = QX_FOLD_MUL, .repeat = 1};
    if (!g->all_consumers || !g->x->def) return;
    qx_value *v = up_same_last(g->x, g->k);
    if (!v->def) return;
    if (fold_norm_op(v, g->k, out) || fold_mul_add(v, g->k, out)) {
        out->kind = QX_FOLD_NORM;
        return;
    }
    *out = (qx_fold){.kind = QX_FOLD_ROWS, .repeat = 1};
    qx_value *r = through_relu(v);
    if (r->def && (fold_product(pipe, r, g->k, out) || fold_rows_from(pipe, r, g->k, out) || fold_attention(pipe, v, g->k, out))) return;
    *out = (qx_fold){.kind = QX_FOLD_MUL, .repeat = 1};
}

const char *qx_fold_text(const qx_fold *f)
{
    static const char *const text[] = {"norm", "previous linear", "mul"};
    return text[f->kind];
}

/* ---- Applying ---- */

/* Row of the producer (of its first matrix) that channel c of x reads. Query head h reads key/value head h / repeat. */
static int64_t row_of(const qx_fold *f, int64_t c)
{
    if (f->repeat <= 1 || !f->head) return f->first + c;
    return f->first + c / f->head / f->repeat * f->head + c % f->head;
}

void qx_fold_constrain(const qx_fold *f, int64_t k, float *s)
{
    if (f->repeat <= 1 || !f->head) return;
    const int64_t rows = k / f->repeat;
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t j = 0; j < f->repeat; j++) sum += log((double)s[(r / f->head * f->repeat + j) * f->head + r % f->head]);
        const float mean = (float)exp(sum / (double)f->repeat);
        for (int64_t j = 0; j < f->repeat; j++) s[(r / f->head * f->repeat + j) * f->head + r % f->head] = mean;
    }
}

/* node->in[index], a constant vector, becomes itself times f[numel]; other readers of the old constant keep it. */
static qx_status scale_vector(qx_model *m, const qx_fold_param *at, const float *f)
{
    qx_value *old = at->node->in[at->index], *fresh;
    const qx_weight *w = qx_value_const(old);
    const qx_view view = {1, 1, w->numel, 0};
    const qx_qspec spec = {.codes = w->dtype};
    const qx_step *step = qx_step_new(m, &qx_step_scale_cols, NULL, f);
    qx_job *job;
    if (!step) return QX_E_NOMEM;
    QX_TRY(qx_job_new(m, w, &view, step, &spec, QX_LAYOUT_SAME, &job));
    QX_TRY(qx_init_add(at->node->graph, qx_unique_name(m, old->name), job->part[QX_PART_CODES], &fresh));
    QX_TRY(qx_node_set_in(at->node, at->index, fresh));
    if (old->init && !old->n_uses && !old->is_input && !old->is_output) QX_TRY(qx_init_erase(old));
    return QX_OK;
}

static qx_status apply_norm(qx_model *m, const qx_fold *f, const float *inv)
{
    for (int i = 0; i < f->n_params; i++) QX_TRY(scale_vector(m, &f->params[i], inv));
    return QX_OK;
}

static qx_status apply_rows(struct qx_pipeline *pipe, const qx_fold *f, const float *inv, int64_t k)
{
    qx_model *m = pipe->model;
    const int64_t n = f->producer->lin->n;
    float *rows = qx_arena_array(m->arena, (size_t)n, sizeof *rows);
    if (!rows) return QX_E_NOMEM;
    for (int64_t r = 0; r < n; r++) rows[r] = 1;
    for (int64_t e = 0; e < n; e += f->each)
        for (int64_t c = 0; c < k; c++) rows[e + row_of(f, c)] = inv[c];
    for (int i = 0; i < f->n_params; i++) QX_TRY(scale_vector(m, &f->params[i], rows));
    f->producer->rescaled = true;
    return qx_plan_step(pipe, f->producer->weight, &qx_step_scale_rows, rows);
}

/* The first node, in graph order, that reads x for the group. */
static qx_node *first_reader(const qx_group *g)
{
    for (qx_node *n = g->items[0]->lin->node->graph->first; n; n = n->next)
        for (const qx_use *u = g->x->uses; u; u = u->next)
            if (u->node == n && qx_group_has_use(g, u)) return n;
    return NULL;
}

/* What the group reads of x, it reads of y. */
static qx_status reroute(struct qx_pipeline *pipe, const qx_group *g, const qx_node *mul, qx_value *y)
{
    for (const qx_use *u = g->x->uses, *next; u; u = next) {
        next = u->next;
        if (u->node != mul && qx_group_has_use(g, u)) QX_TRY(qx_node_set_in(u->node, u->index, y));
    }
    for (int64_t i = 0; i < g->n; i++) {
        qx_linear *lin = &pipe->plan->linears.items[g->items[i]->lin->index];
        if (lin->x == g->x) lin->x = y;
        if (lin->rows == g->x) lin->rows = y;
    }
    return QX_OK;
}

static qx_status apply_mul(struct qx_pipeline *pipe, qx_group *g, const float *inv, qx_stats *stats)
{
    qx_model *m = pipe->model;
    const qx_dtype dtype = g->x->type.dtype;
    qx_weight *w;
    qx_value *factor;
    qx_node *mul, *before = first_reader(g);
    void *bytes = qx_arena_alloc(m->arena, (size_t)g->k * 8);
    if (!bytes || !before) return QX_E_NOMEM;
    if (!qx_from_f32((int)dtype, inv, g->k, bytes)) QX_FAIL(m->ctx, QX_E_TYPE, "value '%s': smoothing needs a float type", g->x->name);
    QX_TRY(qx_weight_from_bytes(m, dtype, 1, &g->k, bytes, &w));
    QX_TRY(qx_init_add(before->graph, qx_arena_printf(m->arena, "%s_smooth", g->x->name), w, &factor));
    const char *out_name = qx_arena_printf(m->arena, "%s_smoothed", g->x->name);
    if (!out_name) return QX_E_NOMEM;
    QX_TRY(qx_node_add(before->graph, &(qx_node_spec){.op_type = "Mul", .domain = "", .name = out_name,
                                                      .in = (qx_value *[]){g->x, factor}, .n_in = 2, .out_names = &out_name, .n_out = 1},
                                                      before, &mul));
    QX_TRY(qx_value_set_type(mul->out[0], &g->x->type));
    QX_TRY(qx_stats_alias(stats, g->x, mul->out[0]));
    QX_TRY(reroute(pipe, g, mul, mul->out[0]));
    g->x = mul->out[0];
    return QX_OK;
}

/* Statistics follow the values: of x, and of what operators read further down. */
static qx_status scale_stats(const qx_group *g, const float *inv, qx_stats *stats)
{
    QX_TRY(qx_stats_scale_channels(stats, g->x, inv, g->k));
    for (int64_t i = 0; i < g->n; i++) {
        const qx_value *rows = g->items[i]->lin->rows;
        bool done = rows == g->x;
        for (int64_t j = 0; j < i; j++) done = done || g->items[j]->lin->rows == rows;
        if (!done && qx_stats_get(stats, rows)) QX_TRY(qx_stats_scale_channels(stats, rows, inv, g->k));
        g->items[i]->x_stat = g->x;
    }
    return QX_OK;
}

qx_status qx_fold_apply(qx_pass *p, qx_group *g, const qx_fold *f, const float *s, qx_stats *stats)
{
    struct qx_pipeline *pipe = p->pipe;
    qx_model *m = pipe->model;
    float *cols = qx_arena_memdup(m->arena, s, (size_t)g->k * sizeof *s), *inv = qx_arena_array(m->arena, (size_t)g->k, sizeof *inv);
    if (!cols || !inv) return QX_E_NOMEM;
    for (int64_t i = 0; i < g->k; i++) inv[i] = 1.0f / cols[i];
    for (int64_t i = 0; i < g->n; i++) {
        bool again = false; /* one step a weight, even when two linears of the group share it */
        for (int64_t j = 0; j < i; j++) again = again || g->items[j]->weight == g->items[i]->weight;
        if (!again) QX_TRY(qx_plan_step(pipe, g->items[i]->weight, &qx_step_scale_cols, cols));
    }
    if (f->kind == QX_FOLD_NORM) QX_TRY(apply_norm(m, f, inv));
    if (f->kind == QX_FOLD_ROWS) QX_TRY(apply_rows(pipe, f, inv, g->k));
    if (f->kind == QX_FOLD_MUL) QX_TRY(apply_mul(pipe, g, inv, stats));
    return scale_stats(g, inv, stats);
}
