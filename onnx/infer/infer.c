/* infer.c - the engine of shape inference: what is known of every value, one node at a time in graph order, bodies and functions
 * through their calls. What single operators do is in infer_*.c. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/text.h"
#include "onnx/edit.h"
#include "onnx/infer/infer_state.h"
#include "onnx/make.h"
#include "onnx/weight/weight.h"

static const qx_type no_type;

qx_status qx_infer_new(qx_model *m, qx_infer **out)
{
    qx_arena *arena;
    QX_TRY(qx_arena_new(m->ctx, &arena));
    qx_infer *ix = qx_arena_alloc(arena, sizeof *ix);
    if (!ix) {
        qx_arena_free(arena);
        return QX_E_NOMEM;
    }
    *ix = (qx_infer){.m = m, .ctx = m->ctx, .arena = arena, .n_values = m->n_values};
    ix->types = qx_arena_array(arena, (size_t)m->n_values + 1, sizeof *ix->types);
    ix->contents = qx_arena_array(arena, (size_t)m->n_values + 1, sizeof *ix->contents);
    ix->budget = 100000 + 64 * (int64_t)m->n_node_ids;
    if (!ix->types || !ix->contents || qx_exprs_new(m->ctx, m->names, &ix->exprs) != QX_OK) {
        qx_arena_free(arena);
        return QX_E_NOMEM;
    }
    *out = ix;
    return QX_OK;
}

void qx_infer_free(qx_infer *ix)
{
    if (!ix) return;
    qx_exprs_free(ix->exprs);
    qx_arena_free(ix->arena);
}

/* ---- what values are ----------------------------------------------------------------------------------------------- */

/* Dims as they stand in files, with their names made canonical (and fixed ones replaced). */
static bool canonical(qx_infer *ix, const qx_type *t, qx_type *out)
{
    *out = *t;
    if (t->elem) {
        qx_type *elem = qx_arena_alloc(ix->arena, sizeof *elem);
        if (!elem || !canonical(ix, t->elem, elem)) return false;
        out->elem = elem;
    }
    if (!t->has_shape) return true;
    out->dims = qx_ix_dims(ix, t->rank);
    if (!out->dims) return false;
    for (int i = 0; i < t->rank; i++) out->dims[i] = t->dims[i].sym ? qx_dim_of_num(ix, qx_num_of_dim(ix, t->dims[i])) : t->dims[i];
    return true;
}

static bool weight_type(qx_infer *ix, const qx_weight *w, qx_type *out)
{
    *out = (qx_type){.kind = QX_KIND_TENSOR, .dtype = w->dtype, .has_shape = true, .rank = w->rank, .dims = qx_ix_dims(ix, w->rank)};
    if (!out->dims) return false;
    for (int i = 0; i < w->rank; i++) out->dims[i].n = w->dims[i];
    return true;
}

static const qx_type *type_of(qx_infer *ix, const qx_value *v)
{
    if (v->id >= ix->n_values) return &v->type; /* made after this engine: only what it says of itself */
    qx_type *t = &ix->types[v->id];
    if (t->kind != QX_KIND_NONE) return t;
    if (v->init && !(v->is_input && v->type.kind == QX_KIND_TENSOR)) {
        if (!weight_type(ix, v->init, t)) *t = no_type;
    } else if (!v->def && !canonical(ix, &v->type, t)) {
        *t = no_type;
    }
    return t;
}

const qx_type *qx_infer_type(const qx_infer *ix, const qx_value *v)
{
    return type_of((qx_infer *)ix, v);
}

void qx_ix_set_type(qx_infer *ix, const qx_value *v, const qx_type *t)
{
    if (v->id < ix->n_values) ix->types[v->id] = *t;
}

void qx_ix_set_content(qx_infer *ix, const qx_value *v, const qx_content *c)
{
    if (v->id < ix->n_values) ix->contents[v->id] = (qx_known){.content = c, .looked = true};
}

/* ---- content of constants ------------------------------------------------------------------------------------------- */

static bool read_elements(int dtype, const void *data, int64_t n, qx_num *out)
{
#define EACH(type, expr)                             \
    do {                                             \
        const type *p = data;                        \
        for (int64_t k = 0; k < n; k++) out[k] = expr; \
        return true;                                 \
    } while (0)
    switch (dtype) {
    case QX_DT_INT64: EACH(int64_t, qx_num_of(p[k]));
    case QX_DT_INT32: EACH(int32_t, qx_num_of(p[k]));
    case QX_DT_INT16: EACH(int16_t, qx_num_of(p[k]));
    case QX_DT_INT8: EACH(int8_t, qx_num_of(p[k]));
    case QX_DT_BOOL: EACH(uint8_t, qx_num_of(p[k] != 0));
    case QX_DT_UINT8: EACH(uint8_t, qx_num_of(p[k]));
    case QX_DT_UINT16: EACH(uint16_t, qx_num_of(p[k]));
    case QX_DT_UINT32: EACH(uint32_t, qx_num_of(p[k]));
    case QX_DT_UINT64: EACH(uint64_t, p[k] <= INT64_MAX ? qx_num_of((int64_t)p[k]) : (qx_num){0});
    case QX_DT_FLOAT: EACH(float, qx_num_real(p[k]));
    case QX_DT_DOUBLE: EACH(double, qx_num_real(p[k]));
    case QX_DT_FLOAT16: EACH(uint16_t, qx_num_real(qx_f16_to_f32(p[k])));
    case QX_DT_BFLOAT16: EACH(uint16_t, qx_num_real(qx_bf16_to_f32(p[k])));
    default: return false;
    }
#undef EACH
}

static qx_content *content_of_bytes(qx_infer *ix, int dtype, int64_t n, const void *data)
{
    qx_content *c = qx_ix_new_content(ix, n);
    return c && read_elements(dtype, data, n, c->v) ? c : NULL;
}

qx_content *qx_ix_weight_content(qx_infer *ix, const qx_weight *w)
{
    if (w->numel > QX_CONTENT_MAX || w->dtype == QX_DT_STRING || w->bytes > 16 * QX_CONTENT_MAX) return NULL;
    void *data = qx_arena_alloc(ix->arena, w->bytes ? w->bytes : 1);
    if (!data) return NULL;
    qx_status st = qx_weight_read(ix->ctx, w, data);
    if (st != QX_OK) { /* the reader or the checker tells about a broken weight; here it is unknown */
        ix->no_memory |= st == QX_E_NOMEM;
        qx_ctx_clear_error(ix->ctx);
        return NULL;
    }
    return content_of_bytes(ix, w->dtype, w->numel, data);
}

const qx_content *qx_infer_content(qx_infer *ix, const qx_value *v)
{
    if (v->id >= ix->n_values) return NULL;
    qx_known *k = &ix->contents[v->id];
    if (k->looked) return k->content;
    k->looked = true;
    if (v->init && !v->is_input) k->content = qx_ix_weight_content(ix, v->init);
    return k->content;
}

qx_status qx_infer_give(qx_infer *ix, const qx_value *v, qx_dtype dtype, int rank, const int64_t *dims, const void *data)
{
    qx_type t = {.kind = QX_KIND_TENSOR, .dtype = dtype, .has_shape = true, .rank = rank, .dims = qx_ix_dims(ix, rank)};
    int64_t n;
    if (!t.dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < rank; i++) t.dims[i].n = dims[i];
    qx_ix_set_type(ix, v, &t);
    ix->concrete = true;
    if (!qx_dims_product(dims, rank, &n)) QX_FAIL(ix->ctx, QX_E_SHAPE, "'%s': the dims overflow", v->name);
    qx_ix_set_content(ix, v, data && n <= QX_CONTENT_MAX ? content_of_bytes(ix, dtype, n, data) : NULL);
    return QX_OK;
}

qx_status qx_infer_give_type(qx_infer *ix, const qx_value *v, const qx_type *t)
{
    qx_type copy;
    if (!canonical(ix, t, &copy)) return QX_IX_NOMEM(ix);
    qx_ix_set_type(ix, v, &copy);
    return QX_OK;
}

/* ---- declared against inferred --------------------------------------------------------------------------------------- */

static void warn_conflict(qx_infer *ix, const qx_value *v, const qx_type *declared, const qx_type *found)
{
    char a[160], b[160];
    if (!v->wire || ix->warned++ >= 10) return;
    qx_warn(ix->ctx, "value '%s' is declared as %s but its node makes %s", v->name, qx_type_describe(declared, a, sizeof a),
            qx_type_describe(found, b, sizeof b));
}

/* Whether no tensor can have both types. */
static bool contradicts(const qx_type *a, const qx_type *b)
{
    if (a->kind != QX_KIND_TENSOR || b->kind != QX_KIND_TENSOR) return false;
    if (a->dtype && b->dtype && a->dtype != b->dtype) return true;
    if (!a->has_shape || !b->has_shape) return false;
    bool differ = a->rank != b->rank;
    for (int i = 0; !differ && i < a->rank; i++) differ = a->dims[i].n >= 0 && b->dims[i].n >= 0 && a->dims[i].n != b->dims[i].n;
    return differ;
}

/* The more telling of both dims; numbers that differ: what the node makes. */
static qx_dim settle_dim(qx_dim found, qx_dim declared)
{
    if (found.n >= 0) return found;
    return declared.n >= 0 || !found.sym ? declared : found;
}

static bool settle(qx_infer *ix, const qx_value *v, qx_type *found)
{
    qx_type declared;
    if (!canonical(ix, &v->type, &declared)) return false;
    if (declared.kind == QX_KIND_NONE) return true;
    if (found->kind == QX_KIND_NONE) {
        *found = declared;
        return true;
    }
    if (found->kind != QX_KIND_TENSOR || declared.kind != QX_KIND_TENSOR) return true;
    if (contradicts(found, &declared)) warn_conflict(ix, v, &declared, found);
    if (!found->dtype) found->dtype = declared.dtype;
    if (!declared.has_shape || (found->has_shape && found->rank != declared.rank)) return true;
    if (!found->has_shape) {
        found->has_shape = true;
        found->rank = declared.rank;
        found->dims = declared.dims;
        return true;
    }
    qx_dim *dims = qx_ix_dims(ix, found->rank);
    if (!dims) return false;
    for (int i = 0; i < found->rank; i++) dims[i] = settle_dim(found->dims[i], declared.dims[i]);
    found->dims = dims;
    return true;
}

/* For a run only kinds and element types are taken on trust. */
static void settle_concrete(const qx_value *v, qx_type *found)
{
    if (found->kind == QX_KIND_NONE && v->type.kind == QX_KIND_TENSOR) *found = (qx_type){.kind = QX_KIND_TENSOR, .dtype = v->type.dtype};
    else if (found->kind == QX_KIND_NONE) *found = v->type;
}

static bool settle_outputs(qx_infer *ix, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++) {
        const qx_value *v = n->out[i];
        if (!v || v->id >= ix->n_values) continue;
        if (ix->concrete) settle_concrete(v, &ix->types[v->id]);
        else if (!settle(ix, v, &ix->types[v->id])) return false;
    }
    return true;
}

/* ---- nodes, graphs, functions ---------------------------------------------------------------------------------------- */

static void forget(qx_infer *ix, const qx_value *v)
{
    if (!v || v->id >= ix->n_values) return;
    ix->types[v->id] = no_type;
    ix->contents[v->id] = (qx_known){0};
}

static void forget_outputs(qx_infer *ix, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++) forget(ix, n->out[i]);
}

qx_status qx_ix_enter(qx_infer *ix, qx_graph *g)
{
    size_t count = qx_map_count(g->values);
    for (size_t i = 0; i < count; i++) {
        void *v;
        qx_map_key_at(g->values, i, &v);
        forget(ix, v);
    }
    return QX_OK;
}

qx_status qx_infer_status(const qx_infer *ix)
{
    if (ix->no_memory || qx_exprs_out_of_memory(ix->exprs)) return QX_IX_NOMEM(ix);
    return qx_arena_status(ix->arena);
}

qx_status qx_infer_graph(qx_infer *ix, qx_graph *g)
{
    QX_FOR_NODES(g, n) QX_TRY(qx_infer_node(ix, n));
    return QX_OK;
}

static qx_status call_function(qx_infer *ix, qx_node *n)
{
    qx_frame frame = {.call = n, .up = ix->frame};
    qx_graph *body = n->callee->body;
    if (ix->depth >= QX_CALL_DEPTH)
        QX_FAIL(ix->ctx, QX_E_FORMAT, "function '%s': calls are nested deeper than %d", n->op_type, QX_CALL_DEPTH);
    if (ix->budget <= 0) return QX_OK; /* exponentially many calls: their results stay unknown */
    QX_TRY(qx_ix_enter(ix, body));
    for (uint32_t i = 0; i < body->n_inputs && i < n->n_in; i++) {
        if (!n->in[i]) continue;
        qx_ix_set_type(ix, body->inputs[i], type_of(ix, n->in[i]));
        qx_ix_set_content(ix, body->inputs[i], qx_infer_content(ix, n->in[i]));
    }
    ix->frame = &frame;
    ix->depth++;
    qx_status st = qx_infer_graph(ix, body);
    ix->depth--;
    ix->frame = frame.up;
    if (st != QX_OK) return qx_note(ix->ctx, st, "function '%s'", n->op_type);
    if (ix->keep) QX_TRY(qx_ix_keep_body(ix, body));
    for (uint32_t i = 0; i < body->n_outputs && i < n->n_out; i++) {
        if (!n->out[i]) continue;
        qx_ix_set_type(ix, n->out[i], type_of(ix, body->outputs[i]));
        qx_ix_set_content(ix, n->out[i], qx_infer_content(ix, body->outputs[i]));
    }
    return QX_OK;
}

qx_status qx_infer_node(qx_infer *ix, qx_node *n)
{
    forget_outputs(ix, n);
    ix->budget--;
    QX_TRY(qx_ix_check_types(ix, n));
    if (n->callee) QX_TRY(call_function(ix, n));
    else if (n->op->infer) QX_TRY((qx_status)n->op->infer(ix, n));
    if (!settle_outputs(ix, n)) return QX_IX_NOMEM(ix);
    return qx_infer_status(ix);
}

/* ---- a whole model ---------------------------------------------------------------------------------------------------- */

/* Function bodies are seen once per call: a body value keeps what all calls agree on. */
qx_status qx_ix_keep_body(qx_infer *ix, qx_graph *g)
{
    size_t count = qx_map_count(g->values);
    for (size_t i = 0; i < count; i++) {
        void *p;
        qx_map_key_at(g->values, i, &p);
        const qx_value *v = p;
        if (v->id >= ix->n_values) continue;
        qx_type *kept = &ix->keep[v->id], joined;
        const qx_type *now = type_of(ix, v);
        bool first = !ix->kept[v->id];
        ix->kept[v->id] = true;
        if (first) *kept = *now;
        else if (qx_ix_join(ix, NULL, kept, now, &joined) == QX_OK) *kept = joined;
        else {
            qx_ctx_clear_error(ix->ctx);
            *kept = no_type;
        }
    }
    return QX_OK;
}

static qx_status copy_type(qx_model *m, const qx_type *t, qx_type *out)
{
    *out = *t;
    if (t->has_shape) {
        out->dims = qx_arena_memdup(m->arena, t->rank ? (const void *)t->dims : (const void *)out,
                                    (t->rank ? (size_t)t->rank : 1) * sizeof *t->dims);
        if (!out->dims) return QX_NOMEM(m);
    }
    if (!t->elem) return QX_OK;
    qx_type *elem = qx_arena_alloc(m->arena, sizeof *elem);
    if (!elem) return QX_NOMEM(m);
    out->elem = elem;
    return copy_type(m, t->elem, elem);
}

static qx_status store_graph(void *user, qx_graph *g)
{
    qx_infer *ix = user;
    size_t count = qx_map_count(g->values);
    for (size_t i = 0; i < count; i++) {
        void *p;
        qx_map_key_at(g->values, i, &p);
        qx_value *v = p;
        const qx_type *t = ix->kept && ix->kept[v->id] ? &ix->keep[v->id] : &ix->types[v->id];
        if (t->kind == QX_KIND_NONE || qx_type_equal(t, &v->type)) continue;
        if (contradicts(t, &v->type) && !v->is_output) v->wire = NULL; /* what the exporter declared is not written again */
        QX_TRY(copy_type(ix->m, t, &v->type));
    }
    return QX_OK;
}

static bool names_dim(const char *sym, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = strstr(sym, name); at; at = strstr(at + 1, name)) {
        bool starts = at == sym || strchr("+-*/(), ", at[-1]), ends = !at[n] || strchr("+-*/(), ", at[n]);
        if (starts && ends) return true;
    }
    return false;
}

static qx_status check_fix(qx_model *m, const qx_dim_fix *fix)
{
    qx_buf known = QX_BUF_INIT(m->ctx);
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) {
        const qx_type *t = &m->graph->inputs[i]->type;
        for (int k = 0; t->has_shape && k < t->rank; k++) {
            if (!t->dims[k].sym) continue;
            if (names_dim(t->dims[k].sym, fix->name)) {
                qx_buf_free(&known);
                return QX_OK;
            }
            if (!known.data || !strstr(known.data, t->dims[k].sym))
                QX_TRY(qx_buf_printf(&known, "%s%s", known.len ? ", " : "", t->dims[k].sym));
        }
    }
    qx_status st = qx_fail(m->ctx, QX_E_USAGE, "no input has a dimension called '%s' (%s%s)", fix->name,
                           known.data ? "their names: " : "none has a name", known.data ? known.data : "");
    qx_buf_free(&known);
    return st;
}

static qx_status infer_model(qx_infer *ix, const qx_dim_fix *fixes, int n_fixes)
{
    qx_model *m = ix->m;
    for (int i = 0; i < n_fixes; i++) {
        QX_TRY(check_fix(m, &fixes[i]));
        if (fixes[i].value < 0) QX_FAIL(m->ctx, QX_E_USAGE, "dimension '%s' cannot be %lld", fixes[i].name, (long long)fixes[i].value);
        QX_TRY(qx_exprs_fix(ix->exprs, fixes[i].name, fixes[i].value));
    }
    if (m->n_functions) {
        ix->keep = qx_arena_array(ix->arena, (size_t)m->n_values + 1, sizeof *ix->keep);
        ix->kept = qx_arena_array(ix->arena, (size_t)m->n_values + 1, sizeof *ix->kept);
        if (!ix->keep || !ix->kept) return QX_IX_NOMEM(ix);
    }
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) type_of(ix, m->graph->inputs[i]);
    QX_TRY(qx_infer_graph(ix, m->graph));
    return qx_model_each_graph(m, store_graph, ix);
}

qx_status qx_infer_shapes(qx_model *m, const qx_dim_fix *fixes, int n_fixes)
{
    qx_infer *ix;
    QX_TRY(qx_infer_new(m, &ix));
    qx_status st = infer_model(ix, fixes, n_fixes);
    qx_infer_free(ix);
    return st == QX_OK ? st : qx_note(m->ctx, st, "shape inference");
}

/* ---- types in words ---------------------------------------------------------------------------------------------------- */

static size_t put(char *buf, size_t cap, size_t at, const char *fmt, const char *text)
{
    int n = at < cap ? snprintf(buf + at, cap - at, fmt, text) : 0;
    return n < 0 ? at : at + (size_t)n < cap ? at + (size_t)n : cap - 1;
}

static size_t describe(const qx_type *t, char *buf, size_t cap, size_t at, int depth)
{
    static const char *const kinds[] = {"?", "", "sparse ", "seq", "opt", "map"};
    at = put(buf, cap, at, "%s", kinds[t->kind]);
    if (t->elem && depth < 8) return put(buf, cap, describe(t->elem, buf, cap, put(buf, cap, at, "%s", "("), depth + 1), "%s", ")");
    if (t->kind != QX_KIND_TENSOR && t->kind != QX_KIND_SPARSE) return at;
    at = put(buf, cap, at, "%s", t->dtype ? qx_dtype_get(t->dtype)->text : "?");
    if (!t->has_shape) return put(buf, cap, at, "%s", "[...]");
    at = put(buf, cap, at, "%s", "[");
    for (int i = 0; i < t->rank; i++) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)t->dims[i].n);
        at = put(buf, cap, at, i ? ",%s" : "%s", t->dims[i].n >= 0 ? number : t->dims[i].sym ? t->dims[i].sym : "?");
    }
    return put(buf, cap, at, "%s", "]");
}

const char *qx_type_describe(const qx_type *t, char *buf, size_t cap)
{
    if (cap) buf[0] = '\0';
    describe(t, buf, cap, 0, 0);
    return buf;
}

qx_status qx_inputs_describe(const qx_graph *g, qx_buf *out)
{
    enum { MOST = 8 }; /* a language model's cache is two inputs a layer */
    char name[80], type[160];
    int shown = 0, more = 0;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const qx_value *v = g->inputs[i];
        if (v->init) continue;
        if (shown == MOST) { more++; continue; }
        shown++;
        QX_TRY(qx_buf_printf(out, "%s%s %s", out->len ? ", " : "", qx_printable(v->name, name, sizeof name),
                             qx_type_describe(&v->type, type, sizeof type)));
    }
    if (more) return qx_buf_printf(out, " and %d more (qonnx inspect names them)", more);
    return out->len ? QX_OK : qx_buf_printf(out, "none");
}
