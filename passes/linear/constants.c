/* constants.c - weights that the graph computes from constants alone: weight standardisation (BiT, NFNet), weight norm
 * (vocoders), a LoRA branch added to its weight, projections put side by side. Exporters leave such chains in the graph, and a weight
 * that a node makes cannot be quantized. The executor computes them once and the result becomes an initializer; the rest of the chain
 * is dead code. A chain in the body of an If or Loop moves to the main graph first. What is smaller unfolded (a weight in two low-rank
 * factors, one that is repeated) stays as it is, and so does what comes out of a quantized weight. */
#include "passes/linear/constants.h"

#include <string.h>

#include "onnx/edit.h"
#include "onnx/weight/weight.h"
#include "passes/linear/lift.h"
#include "passes/linear/linear.h"
#include "passes/linear/quantized.h"
#include "runtime/exec.h"

enum { MAX_DEPTH = 64 };
#define MAX_PARTS ((int64_t)1 << 50) /* a constant that is read on many ways counts each time */
#define MAX_BYTES ((int64_t)2 << 30) /* of all folded weights: they lie in memory until they are written */

typedef struct folder {
    qx_model *m;
    int64_t *parts; /* by value id: elements of all constants it is made of; 0: not looked at, -1: not made of constants */
    qx_value **values; qx_weight **made;
    int n;
    int64_t bytes;
    qx_lifter lifter;
} folder;

static int64_t parts_of(folder *f, const qx_value *v, int depth);

static int64_t parts_of_operands(folder *f, const qx_node *n, int depth)
{
    enum { NEVER = QX_T_QDQ | QX_T_QUANTIZED | QX_T_CONTROL | QX_T_RANDOM };
    int64_t sum = 0;
    if (!n->n_in || n->op->traits & NEVER || n->op->id == QX_OP_UNKNOWN || n->graph->function || depth > MAX_DEPTH) return -1;
    if (n->graph != f->m->graph && !qx_lift_may(n)) return -1;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!n->in[i]) continue;
        int64_t size = parts_of(f, n->in[i], depth + 1);
        if (size < 0) return -1;
        sum = sum + size < MAX_PARTS ? sum + size : MAX_PARTS;
    }
    return sum ? sum : -1;
}

static int64_t parts_of(folder *f, const qx_value *v, int depth)
{
    int64_t *known = &f->parts[v->id];
    if (*known) return *known;
    const qx_weight *w = v->is_input ? NULL : qx_value_const(v);
    if (w) return *known = w->numel > 0 ? w->numel : 1;
    if (qx_expands_codes(v)) return *known = -1;
    return *known = v->def ? parts_of_operands(f, v->def, depth) : -1;
}

/* Elements of a value whose shape is known; -1 otherwise. */
static int64_t elements(const qx_value *v)
{
    int64_t n = 1;
    if (v->type.kind != QX_KIND_TENSOR || !v->type.has_shape || !qx_dtype_is_float(v->type.dtype)) return -1;
    for (int i = 0; i < v->type.rank; i++)
        if (v->type.dims[i].n < 0 || __builtin_mul_overflow(n, v->type.dims[i].n, &n)) return -1;
    return n;
}

/* The executor watches values of the main graph. */
static qx_status lift(folder *f, qx_value *v, qx_value **out)
{
    QX_TRY(qx_lift(&f->lifter, v, out));
    return *out == v ? QX_OK : qx_value_replace_uses(v, *out, NULL);
}

static qx_status look(folder *f, const qx_linear *l)
{
    qx_value *v = l->w_in;
    int64_t n = elements(v);
    if (l->w || l->quantized || !v->def || n <= 0 || n > parts_of(f, v, 0) || parts_of(f, l->x, 0) > 0) return QX_OK;
    int64_t bytes = n * qx_dtype_bits(v->type.dtype) / 8;
    if (f->bytes + bytes > MAX_BYTES) return QX_OK;
    QX_TRY(lift(f, v, &v));
    for (int i = 0; i < f->n; i++)
        if (f->values[i] == v) return QX_OK;
    f->bytes += bytes;
    f->values[f->n++] = v;
    return QX_OK;
}

static qx_status keep(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    folder *f = user;
    (void)v;
    return qx_weight_from_bytes(f->m, t->dtype, t->rank, t->dims, t->data, &f->made[watch]);
}

static qx_status compute(folder *f, const qx_exec_options *options)
{
    qx_exec *x = NULL;
    qx_exec_options eo = *options;
    eo.device = QX_DEVICE_CPU;
    eo.only_watched = true;
    qx_status st = qx_exec_new(f->m->ctx, f->m, &eo, &x);
    if (st != QX_OK) return st;
    st = qx_exec_watch(x, f->values, f->n, keep, f);
    if (st == QX_OK) st = qx_exec_run(x, NULL, 0, (const char *const[]){""}, 0, NULL);
    qx_exec_free(x);
    return st;
}

static qx_status replace(folder *f)
{
    for (int i = 0; i < f->n; i++) {
        qx_value *w;
        if (!f->made[i]) continue;
        QX_TRY(qx_init_add(f->m->graph, f->values[i]->name, f->made[i], &w));
        QX_TRY(qx_value_replace_uses(f->values[i], w, NULL));
    }
    return QX_OK;
}

/* ---- shapes of weights ------------------------------------------------------------------------------------------------------------ */

/* What Shape gives of its input's dims: those from start to end. */
static int shape_part(const qx_node *n, int rank, int *first)
{
    int64_t start = qx_attr_int(n, "start", 0), end = qx_attr_int(n, "end", rank);
    start = start < 0 ? start + rank : start;
    end = end < 0 ? end + rank : end;
    *first = (int)(start < 0 ? 0 : start > rank ? rank : start);
    const int last = (int)(end < 0 ? 0 : end > rank ? rank : end);
    return last > *first ? last - *first : 0;
}

/* tf2onnx asks for the shapes of the kernels of Keras' EinsumDense; a weight that is quantized would stay in the file as floats beside
 * its codes, for its shape alone. */
static qx_status fold_shape(void *user, qx_node *n)
{
    enum { MOST = 8 };
    qx_model *m = n->graph->model;
    qx_value *x = n->op->id == QX_OP_Shape ? qx_node_in(n, 0) : NULL, *made;
    qx_const_view c;
    qx_weight *w;
    int64_t dims[MOST];
    int first;
    (void)user;
    if (!x || n->out[0]->is_output || !qx_const_trace(x, &c) || !x->type.has_shape || x->type.rank > MOST) return QX_OK;
    const int64_t count = shape_part(n, x->type.rank, &first);
    for (int i = 0; i < count; i++)
        if ((dims[i] = x->type.dims[first + i].n) < 0) return QX_OK;
    QX_TRY(qx_weight_from_bytes(m, QX_DT_INT64, 1, &count, dims, &w));
    QX_TRY(qx_init_add(n->graph, n->out[0]->name, w, &made));
    return qx_value_replace_uses(n->out[0], made, NULL);
}

/* ---- all -------------------------------------------------------------------------------------------------------------------------- */

static qx_status fold(folder *f, const qx_exec_options *options)
{
    qx_linears linears;
    qx_model *m = f->m;
    QX_TRY(qx_linears_find(m, &linears));
    f->values = qx_arena_array(m->arena, (size_t)linears.count + 1, sizeof *f->values);
    f->made = qx_arena_array(m->arena, (size_t)linears.count + 1, sizeof *f->made);
    if (!f->values || !f->made) return QX_E_NOMEM;
    for (int64_t i = 0; i < linears.count; i++) QX_TRY(look(f, &linears.items[i]));
    if (!f->n) return QX_OK;
    qx_status st = compute(f, options);
    /* an operator that we do not run; a plan without the data files: they stay computed weights */
    if (st == QX_E_UNSUPPORTED || st == QX_E_IO) {
        qx_log(m->ctx, QX_LOG_INFO, "%d weights that the graph computes stay float: %s", f->n, qx_ctx_error(m->ctx));
        qx_ctx_clear_error(m->ctx);
        return QX_OK;
    }
    if (st != QX_OK) return qx_note(m->ctx, st, "weights that the graph computes");
    qx_log(m->ctx, QX_LOG_INFO, "%d weights that the graph computes from constants are stored as the result", f->n);
    return replace(f);
}

qx_status qx_fold_computed_weights(qx_model *m, const qx_exec_options *options)
{
    folder f = {.m = m};
    QX_TRY(qx_model_each_node(m, fold_shape, NULL));
    QX_TRY(qx_alloc_array(m->ctx, (size_t)m->n_values + 1, sizeof *f.parts, (void **)&f.parts));
    qx_status st = qx_lifter_open(m, &f.lifter);
    if (st == QX_OK) st = fold(&f, options);
    qx_lifter_close(&f.lifter);
    qx_free(m->ctx, f.parts);
    return st;
}
