/* kv_cache.c - caches of keys and values in 8 or 4 bits: the past inputs and present outputs of a decoder become INT8, FP8 or two
 * INT4 codes a byte, so that the memory that grows with every token is a quarter or an eighth (of float32).
 *
 * Where present = Concat(past, new), only the new entries are quantized and join the codes (INT8; Concat takes no FP8); the
 * attention reads everything dequantized. GroupQueryAttention takes codes and scales itself. Any other form is dequantized behind
 * its input and quantized before its output, which gives the same codes again for entries that came in as codes. One scale a
 * layer for keys and one for values (or one a channel), from what the present outputs held during calibration. The attention's
 * own inputs and outputs stay float. */
#include <math.h>
#include <string.h>

#include "kernels/quant.h"
#include "passes/kv_cache.h"
#include "passes/place/emit.h"
#include "passes/place/nodes.h"
#include "passes/place/scheme.h"

/* `stored`: the element type of the tensors; UINT8 holds two codes of INT4 (GroupQueryAttention's own form, moved up by 8). */
typedef struct kv_state { qx_kv_pair *pairs; int64_t n; qx_dtype codes, stored; bool channels; } kv_state;
static const struct { const char *name; qx_dtype codes, stored; float levels; } formats[] = {
    {"int8", QX_DT_INT8, QX_DT_INT8, 127.0f}, {"fp8", QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E4M3FN, 448.0f},
    {"int4", QX_DT_INT4, QX_DT_UINT8, 7.0f},
};

static size_t format_of(const qx_pass *p)
{
    size_t i = 0;
    while (i + 1 < sizeof formats / sizeof *formats && strcmp(formats[i].name, qx_opt_text(p, "format")) != 0) i++;
    return i;
}

/* Channels of a head; -1: not known. Exporters leave that of the past open, the present has it from the projection. */
static int64_t head_size(const qx_kv_pair *k)
{
    const qx_type *t = &k->present->type, *past = &k->past->type;
    const int64_t n = t->has_shape && t->rank > 0 ? t->dims[t->rank - 1].n : -1;
    return n > 0 ? n : past->dims[past->rank - 1].n;
}

/* What the form of a cache can hold. */
static qx_status check_pair(const qx_pass *p, const kv_state *s, const qx_kv_pair *k)
{
    const int64_t size = head_size(k);
    const char *sym = k->past->type.dims[k->past->type.rank - 1].sym;
    if (s->codes != QX_DT_INT4) return QX_OK;
    if (k->form != QX_KV_FUSED)
        QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "kv-cache(int4): '%s' does not go into GroupQueryAttention, which alone reads codes of 4 bits; "
                                          "write int8 or fp8", k->past->name);
    if (size < 1)
        QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "kv-cache(int4): the head size of '%s' is not known; --dim %s=N gives it", k->past->name,
                sym ? sym : "NAME");
    if (size % 2)
        QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "kv-cache(int4): two codes share a byte, and '%s' has a head size of %lld", k->past->name,
                (long long)size);
    return QX_OK;
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    kv_state *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    p->state = s;
    const size_t format = format_of(p);
    const char scales = qx_opt_text(p, "scales")[0];
    s->codes = formats[format].codes;
    s->stored = formats[format].stored;
    s->channels = scales == 'c' || (scales == 'a' && s->codes == QX_DT_INT4);
    QX_TRY(qx_kv_find(m, &s->pairs, &s->n));
    if (!s->n)
        QX_FAIL(p->ctx, QX_E_UNSUPPORTED,
                "kv-cache: the graph has no float cache: an input 'past...' that an output 'present...' continues");
    for (int64_t i = 0; i < s->n; i++) {
        if (s->codes != QX_DT_INT8 && s->pairs[i].form == QX_KV_CONCAT) s->pairs[i].form = QX_KV_AROUND; /* Concat takes no float8 */
        QX_TRY(check_pair(p, s, &s->pairs[i]));
        QX_TRY(qx_stats_want(stats, &(qx_stat_request){.value = s->pairs[i].present,
                                                       .kinds = QX_STAT_RANGE | QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS,
                                                       .axis = -1}));
    }
    return QX_OK;
}

/* ---- scales ------------------------------------------------------------------------------------------------------------------ */

/* How much larger than the largest element the norm of a rotated pair (d, d + half) gets: rotary embedding turns each pair by the
 * position, so that a position that calibration did not see may bring the whole norm into one element. */
static float envelope(const qx_value_stats *st)
{
    const int64_t half = st->row_len / 2;
    float top = 0, pair = 0;
    for (int64_t r = 0; r < st->n_rows; r++)
        for (int64_t j = 0; j < half; j++) {
            const float a = st->rows[r * st->row_len + j], b = st->rows[r * st->row_len + j + half];
            top = fmaxf(top, fmaxf(fabsf(a), fabsf(b)));
            pair = fmaxf(pair, sqrtf(a * a + b * b));
        }
    return top > 0 ? pair / top : 1;
}

/* The same for one channel: the norm of its pair over the channel's own largest. */
static float channel_reach(const qx_value_stats *st, int64_t c, bool rope)
{
    const int64_t n = st->channels.n, other = c < n / 2 ? c + n / 2 : c - n / 2;
    const float a = st->channels.absmax[c], b = rope && n % 2 == 0 ? st->channels.absmax[other] : 0;
    return sqrtf(a * a + b * b);
}

/* Of 4 bits a largest value that is rare costs all others their digits: the part of `top` that rounds the sampled rows best. */
static float clipped(const qx_value_stats *st, int64_t c, float top, float levels)
{
    enum { STEPS = 10 };
    float best = top;
    double least = INFINITY;
    for (int i = 0; i < STEPS; i++) {
        const float to = top * (1 - 0.05f * (float)i), scale = to / levels;
        double error = 0;
        for (int64_t r = 0; r < st->n_rows; r++) {
            const float x = st->rows[r * st->row_len + c], code = fminf(fmaxf(rintf(x / scale), -levels - 1), levels);
            error += (double)(x - code * scale) * (double)(x - code * scale);
        }
        if (error < least) least = error, best = to;
    }
    return best;
}

static qx_status check_observed(qx_pass *p, const qx_kv_pair *k, const qx_value_stats *st, bool channels)
{
    if (st && st->count > 0 && st->absmax > 0 && isfinite(st->absmax) && (!channels || st->channels.n > 1)) return QX_OK;
    QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "kv-cache: '%s' held nothing but zeros (or nothing) during calibration: give samples with tokens",
            k->present->name);
}

/* scale[n]; n is 1 or the number of channels. */
static qx_status find_scales(qx_pass *p, const kv_state *s, const qx_kv_pair *k, qx_stats *stats, qx_dtype type, float *scale, int64_t n)
{
    const qx_value_stats *st = qx_stats_get(stats, k->present);
    const bool rope = k->key && qx_opt_text(p, "rope")[0] == 'e';
    const float levels = formats[format_of(p)].levels;
    const qx_range_options range = qx_scheme_range(p, levels, s->codes, QX_RANGE_MAX);
    const qx_format f = {.codes = s->codes, .scale = type};
    float top = 1;
    if (!p->pipe->no_stats) QX_TRY(check_observed(p, k, st, n > 1));
    if (!p->pipe->no_stats && n == 1) {
        QX_TRY(qx_stats_threshold(stats, k->present, &range, &top));
        if (rope && st->n_rows && st->row_len % 2 == 0) top *= envelope(st);
    }
    for (int64_t i = 0; i < n; i++) {
        if (n > 1 && !p->pipe->no_stats) top = channel_reach(st, i, rope);
        if (n > 1 && !p->pipe->no_stats && s->codes == QX_DT_INT4 && st->row_len == n && top > 0) top = clipped(st, i, top, levels);
        scale[i] = qx_scale_stored(&f, top / levels, NULL);
    }
    return QX_OK;
}

static int64_t channel_count(const kv_state *s, const qx_kv_pair *k)
{
    return s->channels && head_size(k) > 1 ? head_size(k) : 1;
}

/* GroupQueryAttention wants the scales of every head; statistics of channels are those of all heads together. */
static int64_t heads_of(const qx_kv_pair *k, int64_t channels)
{
    return k->form == QX_KV_FUSED && channels > 1 ? qx_attr_int(k->node, "kv_num_heads", 1) : 1;
}

static qx_status scale_value(qx_pass *p, const kv_state *s, const qx_kv_pair *k, qx_stats *stats, qx_dtype type, qx_value **out)
{
    qx_model *m = p->pipe->model;
    const int64_t n = channel_count(s, k), heads = heads_of(k, n), count = n * heads;
    float *scale = qx_arena_array(m->arena, (size_t)count, sizeof *scale);
    void *bytes = qx_arena_alloc(m->arena, (size_t)count * 4);
    const char *name = qx_arena_printf(m->arena, "%s_scale", k->past->name);
    const bool fused = k->form == QX_KV_FUSED;
    qx_weight *w;
    if (!scale || !bytes || !name) return QX_E_NOMEM;
    QX_TRY(find_scales(p, s, k, stats, type, scale, n));
    for (int64_t h = 1; h < heads; h++) memcpy(scale + h * n, scale, (size_t)n * sizeof *scale);
    (void)qx_from_f32(type, scale, count, bytes);
    QX_TRY(qx_weight_from_bytes(m, type, fused && n > 1 ? 4 : n > 1 || fused ? 1 : 0,
                                fused && n > 1 ? (int64_t[]){1, heads, 1, n} : &count, bytes, &w));
    return qx_init_add(m->graph, name, w, out);
}

/* ---- graph ---------------------------------------------------------------------------------------------------------------------- */

static qx_type typed(const qx_value *v, qx_dtype dtype)
{
    qx_type t = v->type;
    t.dtype = dtype;
    return t;
}

/* Codes of one cache: its scale and zero point, one, or one a channel (the last axis). */
typedef struct coder { qx_graph *g; qx_value *scale, *zero; bool channels; } coder;

/* QuantizeLinear or DequantizeLinear of x, whose result is of `type`; named after the graph's own value `name`. */
static qx_status code(const coder *c, qx_node *before, const char *op, const qx_value *name, qx_value *x, const qx_type *type,
                      qx_node **out)
{
    const qx_new_node n = {op, {x, c->scale, c->zero}, 3, type, type->dtype, name->name, op};
    QX_TRY(qx_node_put(c->g, before, &n, out));
    return c->channels ? qx_attr_set_int(*out, "axis", type->rank - 1) : QX_OK;
}

static qx_status zero_value(qx_pass *p, const kv_state *s, const qx_kv_pair *k, qx_value **out)
{
    qx_model *m = p->pipe->model;
    int64_t n = channel_count(s, k);
    void *bytes = qx_arena_alloc(m->arena, (size_t)n);
    const char *name = qx_arena_printf(m->arena, "%s_zero_point", k->past->name);
    qx_weight *w;
    if (!bytes || !name) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(m, s->codes, n > 1 ? 1 : 0, &n, bytes, &w));
    return qx_init_add(m->graph, name, w, out);
}

/* Everything that reads v's numbers reads `to`; Shape is as well served by codes. */
static qx_status readers_to(qx_value *v, qx_value *to, const qx_node *except)
{
    for (const qx_use *u = v->uses, *next; u; u = next) {
        next = u->next;
        if (u->node == except || u->node == to->def || u->node->op->id == QX_OP_Shape) continue;
        QX_TRY(qx_node_set_in(u->node, u->index, to));
    }
    return QX_OK;
}

/* The chain from the past to its Concat carries codes now. */
static qx_status retype_chain(const qx_kv_pair *k, qx_dtype codes)
{
    for (qx_value *v = k->node->in[0]; v != k->past && v->def; v = v->def->in[0]) {
        const qx_type t = typed(v, codes);
        QX_TRY(qx_value_set_type(v, &t));
    }
    return QX_OK;
}

static bool reads_past(const qx_kv_pair *k, const qx_node *n)
{
    for (const qx_value *v = k->node->in[0]; v != k->past && v->def; v = v->def->in[0])
        if (v->def == n) return true;
    return n == k->node;
}

static qx_status concat_form(const kv_state *s, const qx_kv_pair *k, qx_value *scale, qx_value *zero)
{
    qx_value *fresh = k->node->in[1];
    const coder c = {k->node->graph, scale, zero, channel_count(s, k) > 1};
    const qx_type past = typed(k->past, s->codes), fresh_codes = typed(fresh, s->codes), all = k->present->type,
        coded = typed(k->present, s->codes);
    qx_node *q, *dq, *dq_past = NULL;
    QX_TRY(code(&c, k->node, "QuantizeLinear", k->present, fresh, &fresh_codes, &q));
    QX_TRY(code(&c, k->node->next, "DequantizeLinear", k->present, k->present, &all, &dq));
    QX_TRY(readers_to(k->present, dq->out[0], NULL));
    for (const qx_use *u = k->past->uses, *next; u; u = next) { /* a reader of the past's own numbers */
        next = u->next;
        if (reads_past(k, u->node) || u->node->op->id == QX_OP_Shape || (dq_past && u->node == dq_past)) continue;
        const qx_type t = k->past->type;
        if (!dq_past) QX_TRY(code(&c, c.g->first, "DequantizeLinear", k->past, k->past, &t, &dq_past));
        QX_TRY(qx_node_set_in(u->node, u->index, dq_past->out[0]));
    }
    QX_TRY(qx_node_set_in(k->node, 1, q->out[0]));
    QX_TRY(retype_chain(k, s->codes));
    QX_TRY(qx_value_set_type(k->past, &past));
    return qx_value_set_type(k->present, &coded);
}

/* Two codes a byte. */
static qx_status half_as_wide(qx_arena *arena, int64_t channels, qx_type *t)
{
    qx_dim *dims = qx_arena_array(arena, (size_t)t->rank, sizeof *dims);
    if (!dims) return QX_E_NOMEM;
    memcpy(dims, t->dims, (size_t)t->rank * sizeof *dims);
    dims[t->rank - 1] = (qx_dim){channels / 2, NULL};
    t->dims = dims;
    return QX_OK;
}

static qx_status fused_form(const kv_state *s, const qx_kv_pair *k, qx_value *scale)
{
    qx_type past = typed(k->past, s->stored), present = typed(k->present, s->stored);
    if (s->codes == QX_DT_INT4) {
        QX_TRY(half_as_wide(k->past->graph->model->arena, head_size(k), &past));
        QX_TRY(half_as_wide(k->past->graph->model->arena, head_size(k), &present));
    }
    for (uint32_t i = k->node->n_in; i < (k->key ? 12u : 13u); i++) QX_TRY(qx_node_set_in(k->node, i, NULL));
    QX_TRY(qx_node_set_in(k->node, k->key ? 12 : 13, scale));
    QX_TRY(qx_attr_set_string(k->node, k->key ? "k_quant_type" : "v_quant_type", channel_count(s, k) > 1 ? "PER_CHANNEL" : "PER_TENSOR"));
    QX_TRY(qx_attr_set_int(k->node, "kv_cache_bit_width", qx_dtype_bits(s->codes)));
    QX_TRY(qx_value_set_type(k->past, &past));
    return qx_value_set_type(k->present, &present);
}

static bool has_readers(const qx_value *v, const qx_node *except)
{
    for (const qx_use *u = v->uses; u; u = u->next)
        if (u->node != except && u->node->op->id != QX_OP_Shape) return true;
    return false;
}

/* Whoever reads the present's numbers reads what the next run will read: the codes, dequantized. */
static qx_status around_form(const kv_state *s, const qx_kv_pair *k, qx_value *scale, qx_value *zero)
{
    const coder c = {k->present->graph, scale, zero, channel_count(s, k) > 1};
    const qx_type past = typed(k->past, s->codes), present = typed(k->present, s->codes), before = k->past->type;
    qx_node *q, *dq;
    QX_TRY(code(&c, c.g->first, "DequantizeLinear", k->past, k->past, &before, &dq));
    QX_TRY(readers_to(k->past, dq->out[0], NULL));
    QX_TRY(code(&c, k->present->def->next, "QuantizeLinear", k->present, k->present, &present, &q));
    if (has_readers(k->present, q)) {
        const qx_type all = k->present->type;
        QX_TRY(code(&c, q->next, "DequantizeLinear", k->present, q->out[0], &all, &dq));
        QX_TRY(readers_to(k->present, dq->out[0], q));
    }
    QX_TRY(qx_output_rewire(k->present, q->out[0]));
    QX_TRY(qx_value_set_type(q->out[0], &present));
    return qx_value_set_type(k->past, &past);
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const kv_state *s = p->state;
    for (int64_t i = 0; i < s->n; i++) {
        const qx_kv_pair *k = &s->pairs[i];
        qx_value *scale, *zero = NULL;
        if (k->form != QX_KV_FUSED)
            QX_TRY(qx_emit_raise(p->pipe, qx_need_for(s->codes, k->past->type.dtype, channel_count(s, k) > 1, false),
                                 qx_dtype_get(s->codes)->name));
        QX_TRY(scale_value(p, s, k, stats, k->form == QX_KV_FUSED ? QX_DT_FLOAT : k->past->type.dtype, &scale));
        if (k->form != QX_KV_FUSED) QX_TRY(zero_value(p, s, k, &zero));
        if (k->form == QX_KV_CONCAT) QX_TRY(concat_form(s, k, scale, zero));
        else if (k->form == QX_KV_FUSED) QX_TRY(fused_form(s, k, scale));
        else QX_TRY(around_form(s, k, scale, zero));
    }
    qx_log(m->ctx, QX_LOG_INFO, "kv-cache: %lld caches are %s now", (long long)s->n, qx_dtype_get(s->codes)->text);
    return QX_OK;
}

static const qx_option options[] = {
    {"format", QX_OPT_CHOICE, "int8", 0, 0, "int8|fp8|int4", "of the cached keys and values; int4 with GroupQueryAttention alone"},
    {"scales", QX_OPT_CHOICE, "auto", 0, 0, "auto|tensor|channel",
     "one scale a layer, or one a channel of the head, from the maxima; auto: a channel for int4, else a layer"},
    {"rope", QX_OPT_CHOICE, "envelope", 0, 0, "envelope|off",
     "keys: leave room for the norm of each rotated pair, so that scales hold for any position"},
    QX_SCHEME_RANGE_OPTIONS("max"),
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_kv_cache = {
    .name = "kv-cache", .brief = "INT8, FP8 or INT4 key and value caches of decoders with past inputs", .options = options,
    .flags = QX_PASS_CALIBRATED, .plan = plan, .run = run,
    .doc = "The inputs past... and outputs present... become codes with one scale a layer for keys and one for values, so that "
           "the cache takes a quarter\n"
           "of float32, an eighth with kv-cache(int4). Goes with any format: \"kv-cache(fp8),int4\". Samples with an empty past do: "
           "scales come from the present outputs."};
