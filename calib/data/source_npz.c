/* source_npz.c - arrays as samples. An array of an input's rank is one feed; one with one rank more has a leading axis of
 * samples.
 *
 * A feed with a dynamic batch dimension is cut along it when that saves memory: the graph computes each entry of the batch by
 * itself, so the statistics are the same. It is cut only when every input and output has that dimension first, or not at all, and no
 * node splits along it. */
#include "calib/data/source.h"

#include "base/checked.h"
#include "calib/data/folder.h"

#include <ctype.h>
#include <string.h>

enum { CUT_ELEMENTS = 64 }; /* entries smaller than this go together: a run costs more than they do */

typedef struct plug { int array; bool stacked; qx_tensor t; bool batched; } plug; /* array -1: left out, the input has a default */
/* batch: entries of one feed; step: entries a sample */
typedef struct arrays { qx_npz *z; plug *plugs; int64_t samples, batch, step; } arrays;

/* ---- types ---- */

static bool type_fits(qx_dtype given, qx_dtype wanted)
{
    char a = qx_dtype_get(given)->cls, b = qx_dtype_get(wanted)->cls;
    bool whole_a = a == 'I' || a == 'U' || a == 'B', whole_b = b == 'I' || b == 'U' || b == 'B';
    return given == wanted || (a == 'F' && b == 'F') || (whole_a && whole_b);
}

static bool dims_fit(const qx_type *t, const int64_t *dims)
{
    for (int d = 0; d < t->rank; d++)
        if (t->dims[d].n >= 0 && t->dims[d].n != dims[d]) return false;
    return true;
}

/* What may have been meant by an array whose dims do not fit. */
static const char *hint(const qx_type *t, const qx_tensor *given)
{
    const int64_t *d = given->dims;
    if (given->rank == t->rank - 1 && dims_fit(&(qx_type){.rank = t->rank - 1, .dims = t->dims + 1}, d))
        return "a batch axis in front is missing";
    if (given->rank == 4 && t->rank == 4 && dims_fit(t, (const int64_t[]){d[0], d[3], d[1], d[2]}))
        return "channels last: transpose(0,3,1,2) would fit";
    if (given->rank == 4 && t->rank == 4 && dims_fit(t, (const int64_t[]){d[0], d[2], d[3], d[1]}))
        return "channels first: transpose(0,2,3,1) would fit";
    return "one axis more in front: a list of samples";
}

static qx_status misfit(qx_samples *s, const arrays *a, const qx_value *v, const plug *p)
{
    char shape[128];
    const char *name = qx_npz_name(a->z, p->array), *is = qx_tensor_describe(&p->t, shape, sizeof shape);
    if (!type_fits(p->t.dtype, v->type.dtype))
        QX_FAIL(s->ctx, QX_E_USAGE, "%s: array '%s' is %s, not %s; the model takes: %s", qx_npz_path(a->z), name, is,
                qx_dtype_get(v->type.dtype)->text, qx_inputs_text(s));
    QX_FAIL(s->ctx, QX_E_USAGE, "%s: array '%s' is %s; the model takes: %s (%s)", qx_npz_path(a->z), name, is, qx_inputs_text(s),
            hint(&v->type, &p->t));
}

/* A list of nothing: only a past, and what the model declares empty, may be. */
static bool is_empty(const qx_value *v, const qx_tensor *t)
{
    for (int d = 0; v->type.has_shape && d < v->type.rank; d++)
        if (v->type.dims[d].n == 0) return false;
    return t->numel == 0 && qx_role_of(v) != QX_ROLE_PAST;
}

/* The array of this input: the one of its name, or for the only input the only array, when nobody named it (a .npy file, numpy's
 * "arr_0"). */
static int array_for(const qx_samples *s, const qx_npz *z, const qx_value *v)
{
    int at = qx_npz_find(z, v->name), wanted = 0;
    bool nameless = qx_npz_count(z) == 1 && (qx_has_suffix(qx_npz_path(z), ".npy") || !strcmp(qx_npz_name(z, 0), "arr_0"));
    for (uint32_t i = 0; i < s->n_inputs; i++) wanted += !s->inputs[i]->init && !qx_input_idle(s->inputs[i]);
    return at < 0 && nameless && wanted == 1 && !v->init && !qx_input_idle(v) ? 0 : at;
}

static qx_status plug_in(qx_samples *s, arrays *a, const qx_value *v, plug *p)
{
    p->array = array_for(s, a->z, v);
    if (p->array < 0) return QX_OK;
    QX_TRY(qx_npz_describe(a->z, p->array, &p->t));
    const qx_type *t = &v->type;
    if (t->kind != QX_KIND_TENSOR || !type_fits(p->t.dtype, t->dtype)) return misfit(s, a, v, p);
    if (!t->has_shape) return QX_OK;
    p->stacked = p->t.rank == t->rank + 1;
    if (p->t.rank != t->rank && !p->stacked) return misfit(s, a, v, p);
    if (!p->stacked && is_empty(v, &p->t))
        QX_FAIL(s->ctx, QX_E_SHAPE, "%s: array '%s' is empty", qx_npz_path(a->z), qx_npz_name(a->z, p->array));
    return dims_fit(t, p->t.dims + p->stacked) ? QX_OK : misfit(s, a, v, p);
}

static bool is_used(const qx_samples *s, const plug *plugs, int array)
{
    for (uint32_t i = 0; i < s->n_inputs; i++)
        if (plugs[i].array == array) return true;
    return false;
}

/* Of all arrays, or (plugs given) of those that no input takes. */
static const char *names_of(qx_samples *s, const qx_npz *z, const plug *plugs)
{
    qx_buf b = QX_BUF_INIT(s->ctx);
    qx_status st = QX_OK;
    for (int i = 0; i < qx_npz_count(z) && st == QX_OK && b.len < 2048; i++)
        if (!plugs || !is_used(s, plugs, i)) st = qx_buf_printf(&b, "%s%s", b.len ? ", " : "", qx_npz_name(z, i));
    const char *text = st == QX_OK && b.data ? qx_arena_strndup(s->arena, b.data, b.len) : "nothing";
    qx_buf_free(&b);
    return text ? text : "?";
}

/* Before arrays are called missing: what is there must be arrays. */
static qx_status readable(qx_npz *z)
{
    qx_tensor t;
    for (int i = 0; i < qx_npz_count(z); i++) QX_TRY(qx_npz_describe(z, i, &t));
    return QX_OK;
}

static qx_status plug_all(qx_samples *s, arrays *a)
{
    int used = 0;
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        QX_TRY(plug_in(s, a, s->inputs[i], &a->plugs[i]));
        used += a->plugs[i].array >= 0;
        if (a->plugs[i].array >= 0 || s->inputs[i]->init || qx_input_idle(s->inputs[i])) continue;
        QX_TRY(readable(a->z));
        QX_FAIL(s->ctx, QX_E_USAGE, "%s has no array '%s'. It holds: %s. The model takes: %s", qx_npz_path(a->z), s->inputs[i]->name,
                names_of(s, a->z, NULL), qx_inputs_text(s));
    }
    if (used < qx_npz_count(a->z) && !s->extra_told) {
        qx_warn(s->ctx, "%s has arrays that are no inputs of the model and are not used: %s", qx_npz_path(a->z),
                names_of(s, a->z, a->plugs));
        s->extra_told = true;
    }
    return QX_OK;
}

/* ---- samples ---- */

static qx_status count_stacked(qx_samples *s, arrays *a)
{
    const char *first = NULL;
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        const plug *p = &a->plugs[i];
        if (p->array < 0 || !p->stacked) continue;
        if (first && p->t.dims[0] != a->samples)
            QX_FAIL(s->ctx, QX_E_SHAPE, "%s: '%s' holds %lld samples, '%s' %lld", qx_npz_path(a->z), first, (long long)a->samples,
                    s->inputs[i]->name, (long long)p->t.dims[0]);
        first = s->inputs[i]->name;
        a->samples = p->t.dims[0];
    }
    if (!first) a->samples = -1; /* none: one feed */
    return QX_OK;
}

static bool names_batch(const char *sym)
{
    char c = (char)tolower((unsigned char)sym[0]);
    return strcasestr(sym, "batch") || ((c == 'b' || c == 'n') && (sym[1] == 0 || (tolower((unsigned char)sym[1]) == 's' && sym[2] == 0)));
}

static const char *first_symbol(const qx_value *v)
{
    return v->type.kind == QX_KIND_TENSOR && v->type.has_shape && v->type.rank > 0 && v->type.dims[0].n < 0 ? v->type.dims[0].sym : NULL;
}

static bool has_elsewhere(const qx_value *v, const char *sym)
{
    for (int d = 1; v->type.has_shape && d < v->type.rank; d++)
        if (v->type.dims[d].sym && strstr(v->type.dims[d].sym, sym)) return true;
    return false;
}

/* An export that was traced for so many entries may take them apart. */
static bool splits_first(const qx_graph *g)
{
    for (const qx_node *n = g->first; n; n = n->next) {
        const qx_value *x = n->n_in ? n->in[0] : NULL;
        const int64_t axis = qx_attr_int(n, "axis", 0);
        if ((n->op->id != QX_OP_Split && n->op->id != QX_OP_SplitToSequence) || !x) continue;
        const bool known = x->type.kind == QX_KIND_TENSOR && x->type.has_shape && x->type.rank > 0;
        if ((axis == 0 || (known && axis == -x->type.rank)) && !(known && x->type.dims[0].n >= 0)) return true;
    }
    return false;
}

/* The symbol that may be cut along: first dim of some input, nowhere in the middle, first in every output. */
static const char *batch_symbol(const qx_samples *s, const arrays *a)
{
    const qx_graph *g = s->model->graph;
    const char *sym = NULL;
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        const char *mine = a->plugs[i].array >= 0 ? first_symbol(s->inputs[i]) : NULL;
        if (mine && !sym && names_batch(mine)) sym = mine;
        if (mine && sym && mine != sym && names_batch(mine)) return NULL;
    }
    for (uint32_t i = 0; sym && i < s->n_inputs; i++)
        if (has_elsewhere(s->inputs[i], sym)) return NULL;
    for (uint32_t i = 0; sym && i < g->n_outputs; i++)
        if (first_symbol(g->outputs[i]) != sym || has_elsewhere(g->outputs[i], sym)) return NULL;
    return sym && !splits_first(g) ? sym : NULL;
}

static void plan_cut(const qx_samples *s, arrays *a)
{
    const char *sym = batch_symbol(s, a);
    int64_t elements = 0;
    a->batch = a->step = 1;
    if (!sym) return;
    int64_t batch = -1;
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        plug *p = &a->plugs[i];
        if (p->array < 0 || first_symbol(s->inputs[i]) != sym) continue;
        if (p->stacked || (batch >= 0 && batch != p->t.dims[0])) return; /* the executor will say what is wrong */
        batch = p->t.dims[0];
        p->batched = true;
        if (batch > 0) elements += p->t.numel / batch;
    }
    if (batch < 1) return;
    a->batch = batch;
    a->step = elements >= CUT_ELEMENTS ? 1 : CUT_ELEMENTS / (elements > 0 ? elements : 1);
    if (a->step > batch) a->step = batch;
}

/* ---- reading ---- */

static qx_status convert(qx_samples *s, const qx_value *v, qx_tensor *t)
{
    qx_tensor made;
    QX_TRY(qx_tensor_new(s->ctx, &made, v->type.dtype, t->rank, t->dims));
    qx_status st = QX_OK;
    for (int64_t i = 0; i < t->numel && st == QX_OK; i++) {
        float f = 0;
        const char *p = (const char *)t->data + i * (qx_dtype_bits(t->dtype) / 8);
        if (t->dtype != QX_DT_INT64 && t->dtype != QX_DT_DOUBLE) qx_to_f32(t->dtype, p, 1, &f);
        double x = t->dtype == QX_DT_INT64 ? (double)((const int64_t *)t->data)[i] : t->dtype == QX_DT_DOUBLE
            ? ((const double *)t->data)[i] : t->dtype == QX_DT_INT32 ? (double)((const int32_t *)t->data)[i] : (double)f;
        st = qx_set_element(s->ctx, &made, i, x, v->name);
    }
    qx_tensor_free(s->ctx, t);
    if (st == QX_OK) *t = made;
    else qx_tensor_free(s->ctx, &made);
    return st;
}

static qx_status read_plug(qx_samples *s, arrays *a, const plug *p, const qx_value *v, int64_t i, qx_tensor *out)
{
    int64_t dims[QX_MAX_RANK], n, first;
    int rank = p->t.rank - p->stacked;
    for (int d = 0; d < rank; d++) dims[d] = p->t.dims[d + p->stacked];
    first = p->stacked ? i : 0;
    if (p->batched) {
        first = i * a->step;
        dims[0] = p->t.dims[0] - first < a->step ? p->t.dims[0] - first : a->step;
    }
    QX_TRY(qx_tensor_new(s->ctx, out, p->t.dtype, rank, dims));
    n = p->t.dims[0] > 0 && (p->stacked || p->batched) ? p->t.numel / p->t.dims[0] : 0; /* elements an entry */
    qx_status st = qx_npz_read_part(a->z, p->array, first * n, out->numel, out->data);
    if (st == QX_OK && out->dtype != v->type.dtype) st = convert(s, v, out);
    if (st != QX_OK) qx_tensor_free(s->ctx, out);
    return st;
}

static qx_status npz_get(qx_source_of *src, int64_t i, qx_tensor *out)
{
    arrays *a = src->state;
    for (uint32_t k = 0; k < src->owner->n_inputs; k++)
        if (a->plugs[k].array >= 0) QX_TRY(read_plug(src->owner, a, &a->plugs[k], src->owner->inputs[k], i, &out[k]));
    return QX_OK;
}

static void npz_free(qx_source_of *src) { qx_npz_close(((arrays *)src->state)->z); }

static const qx_sourcedef npz_source = {.get = npz_get, .free = npz_free};

static qx_status open_arrays(qx_samples *s, arrays *a)
{
    QX_TRY(plug_all(s, a));
    QX_TRY(count_stacked(s, a));
    if (a->samples >= 0) return QX_OK;
    plan_cut(s, a);
    a->samples = (a->batch + a->step - 1) / a->step;
    return QX_OK;
}

qx_status qx_source_npz(qx_samples *s, qx_npz *z)
{
    arrays *a = qx_arena_alloc(s->arena, sizeof *a);
    plug *plugs = qx_arena_array(s->arena, s->n_inputs + 1, sizeof *plugs);
    if (!a || !plugs) {
        qx_npz_close(z);
        return QX_E_NOMEM;
    }
    *a = (arrays){.z = z, .plugs = plugs, .batch = 1, .step = 1};
    qx_status st = open_arrays(s, a);
    if (st == QX_OK) st = qx_source_add(s, &npz_source, qx_npz_path(z), a->samples, a);
    if (st != QX_OK) qx_npz_close(z);
    return st;
}
