/* trace.c - from a value back to the constant it is made of, through operators that only rearrange: which stored axis is which. */
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/place/plan.h"

enum { MAX_CHAIN = 16, MAX_AXES = 8 };

static bool passes_through(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Identity: case QX_OP_Transpose: case QX_OP_Squeeze: case QX_OP_Unsqueeze: case QX_OP_Reshape:
    case QX_OP_Flatten:
        return true;
    case QX_OP_Cast: return qx_dtype_is_float((int)qx_attr_int(n, "to", 0)) && qx_node_in(n, 0) &&
        qx_dtype_is_float(qx_node_in(n, 0)->type.dtype);
    default: return false;
    }
}

typedef struct labels { int rank; int axis[MAX_AXES]; int64_t dim[MAX_AXES]; } labels;

static bool apply_transpose(const qx_node *n, labels *l)
{
    int64_t count;
    const int64_t *perm = qx_attr_ints(n, "perm", &count);
    labels old = *l;
    if (perm && count != l->rank) return false;
    for (int i = 0; i < l->rank; i++) {
        int64_t from = perm ? perm[i] : l->rank - 1 - i;
        if (from < 0 || from >= l->rank) return false;
        l->axis[i] = old.axis[from];
        l->dim[i] = old.dim[from];
    }
    return true;
}

/* A reshape that keeps the dims other than 1 in their order; the new shape is the output's. */
static bool apply_reshape(const qx_value *out, labels *l)
{
    labels old = *l;
    int from = 0;
    if (!out->type.has_shape || out->type.rank > MAX_AXES) return false;
    l->rank = out->type.rank;
    for (int i = 0; i < l->rank; i++) {
        int64_t d = out->type.dims[i].n;
        l->dim[i] = d;
        l->axis[i] = -1;
        if (d == 1) continue;
        while (from < old.rank && old.dim[from] == 1) from++;
        if (from == old.rank || old.dim[from] != d) return false;
        l->axis[i] = old.axis[from++];
    }
    while (from < old.rank && old.dim[from] == 1) from++;
    return from == old.rank;
}

/* Which axes the indices pick from (Gather: one, GatherND: the first ones), and how many axes they make of those. */
static bool picked_axes(const qx_node *n, int rank, int64_t *first, int64_t *count, int *made)
{
    const qx_type *t = qx_node_in(n, 1) ? &n->in[1]->type : NULL;
    const bool nd = n->op->id == QX_OP_GatherND;
    if (!t || !t->has_shape || (nd && (t->rank < 1 || qx_attr_int(n, "batch_dims", 0)))) return false;
    *first = nd ? 0 : qx_attr_int(n, "axis", 0);
    if (*first < 0) *first += rank;
    *count = nd ? t->dims[t->rank - 1].n : 1;
    *made = t->rank - nd;
    return *first >= 0 && *count >= 1 && *first <= rank - *count && rank - *count + *made <= MAX_AXES;
}

static bool apply_gather(const qx_node *n, labels *l)
{
    const labels old = *l;
    int64_t first, count;
    int made;
    if (!picked_axes(n, old.rank, &first, &count, &made)) return false;
    l->rank = 0;
    for (int i = 0; i < old.rank; i++) {
        for (int j = 0; i == first && j < made; j++) l->axis[l->rank] = QX_AXIS_PICKED, l->dim[l->rank++] = n->in[1]->type.dims[j].n;
        if (i < first || i >= first + count) l->axis[l->rank] = old.axis[i], l->dim[l->rank++] = old.dim[i];
    }
    return true;
}

static bool apply(const qx_node *n, labels *l)
{
    switch (n->op->id) {
    case QX_OP_Gather: case QX_OP_GatherND: return apply_gather(n, l);
    case QX_OP_Transpose: return apply_transpose(n, l);
    case QX_OP_Identity: case QX_OP_Cast: return true;
    default: return apply_reshape(n->out[0], l);
    }
}

static bool trace(const qx_value *v, bool gathers, qx_const_view *out)
{
    const qx_node *chain[MAX_CHAIN];
    int n = 0;
    *out = (qx_const_view){0};
    while (!qx_value_const(v)) {
        if (!v->def || n == MAX_CHAIN || v->def_index != 0) return false;
        if (v->def->op->traits & QX_T_QDQ) {
            qx_const_view inner;
            /* codes; or floats that a QuantizeLinear rounds first, as quantization-aware training writes them */
            out->quantized = qx_node_in(v->def, 0) && (trace(v->def->in[0], gathers, &inner) || inner.quantized);
            return false;
        }
        const bool gather = gathers && (v->def->op->id == QX_OP_Gather || v->def->op->id == QX_OP_GatherND);
        if (!(gather || passes_through(v->def)) || !qx_node_in(v->def, 0)) return false;
        chain[n++] = v->def;
        v = v->def->in[0];
    }
    qx_weight *w = qx_value_const(v);
    if (!w || w->rank > MAX_AXES) return false;
    labels l = {.rank = w->rank};
    for (int i = 0; i < w->rank; i++) { l.axis[i] = i; l.dim[i] = w->dims[i]; }
    while (n) if (!apply(chain[--n], &l)) return false;
    out->value = (qx_value *)v;
    out->tensor = w;
    out->rank = l.rank;
    memcpy(out->axes, l.axis, sizeof out->axes);
    return true;
}

bool qx_const_trace(const qx_value *v, qx_const_view *out) { return trace(v, false, out); }
bool qx_weight_trace(const qx_value *v, qx_const_view *out) { return trace(v, true, out); }

qx_value *qx_same_elements(qx_value *v)
{
    for (int i = 0; i < MAX_CHAIN && v->def; i++) {
        qx_op_id id = v->def->op->id;
        bool same = id == QX_OP_Identity || id == QX_OP_Transpose || id == QX_OP_Squeeze || id == QX_OP_Unsqueeze || id == QX_OP_Reshape ||
                    id == QX_OP_Flatten;
        if (!same || !qx_node_in(v->def, 0) || v->def->in[0]->graph != v->graph) break;
        v = v->def->in[0];
    }
    return v;
}
