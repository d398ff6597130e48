/* forecast.c - what runs will take in memory and operations, told from the plan and the shapes of the feeds without running: for
 * the forecast that a user sees before the work. Values that one fused step passes on inside are not there; a result whose size
 * only a run can tell counts as its largest input. */
#include "base/checked.h"
#include "onnx/infer/expr.h"
#include "runtime/cpu/conv/winograd.h"
#include "runtime/fuse/fuse.h"
#include "runtime/plan.h"

/* bytes[n_values] of what is alive */
typedef struct forecast { qx_exec *x; qx_exprs *names; int64_t *bytes, *watched; qx_exec_need *need; int64_t live; } forecast;

/* Names of dims stand for the numbers that the feeds have. */
static qx_status bind_names(const forecast *f, const qx_feed *feeds, int n)
{
    for (int i = 0; i < n; i++) {
        const qx_value *v = qx_graph_find(f->x->model->graph, feeds[i].name);
        for (int d = 0; v && v->type.has_shape && d < v->type.rank && d < feeds[i].tensor->rank; d++)
            if (v->type.dims[d].n < 0 && v->type.dims[d].sym) QX_TRY(qx_exprs_fix(f->names, v->type.dims[d].sym, feeds[i].tensor->dims[d]));
    }
    return QX_OK;
}

static bool dim_known(const forecast *f, const qx_dim *d, int64_t *n)
{
    *n = d->n;
    const qx_expr *e = *n < 0 && d->sym ? qx_expr_parse(f->names, d->sym) : NULL;
    return *n >= 0 || (e && qx_expr_is_int(e, n) && *n >= 0);
}

/* -1: not known. */
static int64_t bytes_of(const forecast *f, const qx_value *v)
{
    const qx_type *t = &v->type;
    int64_t n = qx_dtype_bits(t->dtype), dim;
    if (t->kind != QX_KIND_TENSOR || !t->has_shape) return -1;
    for (int d = 0; d < t->rank; d++) {
        if (!dim_known(f, &t->dims[d], &dim) || !qx_mul_i64(n, dim, &n)) return -1;
    }
    return n / 8;
}

static void add_result(forecast *f, const qx_rstep *s, uint32_t i)
{
    int64_t n = bytes_of(f, s->out_value[i]);
    const bool known = n >= 0;
    if (!known) {
        f->need->unknown++;
        n = 0;
        for (uint32_t k = 0; k < s->n_in; k++)
            if (s->in[k] != QX_NO_VALUE && f->bytes[s->in[k]] > n) n = f->bytes[s->in[k]];
    }
    for (int w = 0; known && f->watched && f->x->info[s->out[i]].watched && w < f->x->n_watch; w++)
        if (f->x->watch[w] == s->out_value[i]) f->watched[w] = n;
    f->need->moved += (double)n;
    if (f->x->info[s->out[i]].keep) f->need->outputs += n;
    else f->live += n;
    f->bytes[s->out[i]] = n;
}

/* Pixels of a picture, channels in front; 0: not known to be one. */
static int64_t pixels_of(const forecast *f, const qx_value *v)
{
    int64_t h, w, n;
    const qx_type *t = v ? &v->type : NULL;
    if (!t || !t->has_shape || t->rank != 4 || !dim_known(f, &t->dims[2], &h) || !dim_known(f, &t->dims[3], &w) || !qx_mul_i64(h, w, &n))
        return 0;
    return n;
}

/* A convolution that keeps the size of a picture and has enough of it takes Winograd's form, where its weights fit that; of
 * unknown sizes it is said to. */
static bool is_transformed(const forecast *f, const qx_rstep *s)
{
    const int64_t in = s->n_in ? pixels_of(f, s->in_value[0]) : 0, out = s->n_out ? pixels_of(f, s->out_value[0]) : 0;
    return !in || !out || (qx_wino_pixels_pay(out) && in < 2 * out);
}

/* A filter lies beside its packed form for a moment; matrices are packed while they are read. */
static int64_t filter_bytes(const qx_rstep *s)
{
    int64_t most = 0;
    for (uint32_t i = 0; i < s->n_in; i++) {
        const qx_weight *w = s->in_value[i] ? s->in_value[i]->init : NULL;
        if (w && w->rank > 2 && qx_dtype_is_float(w->dtype) && w->numel * (int64_t)sizeof(float) > most)
            most = w->numel * (int64_t)sizeof(float);
    }
    return most;
}

static int64_t packed_weights(const forecast *f)
{
    int64_t bytes = 0;
    for (uint32_t i = 0; i < f->x->main->n_steps; i++) {
        const qx_rstep *s = &f->x->main->steps[i];
        bytes += qx_step_weights(s, is_transformed(f, s));
    }
    return bytes;
}

static int64_t largest_filter(const forecast *f)
{
    int64_t most = 0;
    for (uint32_t i = 0; i < f->x->main->n_steps; i++) {
        const int64_t bytes = filter_bytes(&f->x->main->steps[i]);
        if (bytes > most) most = bytes;
    }
    return most;
}

static bool is_small(const qx_rstep *s)
{
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->in_value[i] && s->in_value[i]->init && s->in_value[i]->init->numel >= QX_STREAM_ELEMENTS) return false;
    return true;
}

/* Where weights are streamed: the one that takes most while it is used, and the small ones, which stay. A matrix is packed as it is
 * read; filters lie there as they are read too, and in more than one form. */
static int64_t streamed_weights(const forecast *f)
{
    int64_t stay = 0, most = 0;
    for (uint32_t i = 0; i < f->x->main->n_steps; i++) {
        const qx_rstep *s = &f->x->main->steps[i];
        const int64_t filter = filter_bytes(s), all = filter ? 2 * qx_step_weights(s, true) : qx_step_weights(s, false);
        if (is_small(s)) stay += qx_step_weights(s, is_transformed(f, s));
        else most = all > most ? all : most;
    }
    return stay + most;
}

/* ---- operations ---- */

static double elements_of(const forecast *f, const qx_value *v)
{
    const int64_t bytes = v ? bytes_of(f, v) : 0;
    return bytes > 0 ? (double)bytes * 8 / qx_dtype_bits(v->type.dtype) : 0;
}

static double dim_of(const forecast *f, const qx_value *v, int axis)
{
    int64_t n;
    const int at = axis < 0 ? v->type.rank + axis : axis;
    return v->type.has_shape && at >= 0 && at < v->type.rank && dim_known(f, &v->type.dims[at], &n) ? (double)n : 0;
}

/* Each query meets every key twice. */
static double attention_flops(const forecast *f, const qx_rstep *s)
{
    const qx_attn_params *p = s->fused;
    const qx_value *q = s->in_value[0], *k = s->in_value[1];
    const int rank = q->type.rank, keys = k->type.rank < 4 ? (p->k_layout == QX_K_BHDS ? 2 : 1) : p->k_layout == QX_K_BHSD ? 2
        : p->k_layout == QX_K_BHDS ? 3 : 1;
    return rank < 3 ? 0 : 4 * elements_of(f, q) * dim_of(f, k, keys);
}

/* Each weight of a filter meets every output pixel of its channel; F(4x4, 3x3) takes two thirds of that time and less. */
static double filter_flops(const forecast *f, const qx_rstep *s, const qx_weight *w)
{
    const bool fits = w->rank == 4 && w->dims[2] == 3 && w->dims[3] == 3 && qx_wino_weights_fit(w->dims[0], w->dims[1]);
    const double direct = 2 * elements_of(f, s->out_value[0]) * ((double)w->numel / (double)(w->dims[0] > 0 ? w->dims[0] : 1));
    return fits && is_transformed(f, s) ? direct / 1.5 : direct;
}

static double flops_of(const forecast *f, const qx_rstep *s)
{
    if (s->fn == qx_cpu_attn) return attention_flops(f, s);
    const bool product = s->fn == qx_cpu_linear || s->fn == qx_cpu_conv || (s->node->op->traits & QX_T_LINEAR);
    const qx_value *x = product && s->n_in > 1 ? s->in_value[0] : NULL, *v = x ? s->in_value[1] : NULL;
    const qx_weight *w = v ? v->init : NULL;
    if (!x || !v) return 0;
    if (w && w->rank > 2 && s->n_out) return filter_flops(f, s, w);
    const double k = dim_of(f, x, -1), rows = k > 0 ? elements_of(f, x) / k : 0;
    return 2 * (w ? rows * (double)w->numel : k * elements_of(f, s->out_value[0]));
}

/* Watched values that no step makes. */
static void watch_inputs(const forecast *f)
{
    for (int w = 0; f->watched && w < f->x->n_watch; w++) {
        const int64_t n = !f->x->watch[w]->def && !f->x->watch[w]->init ? bytes_of(f, f->x->watch[w]) : 0;
        if (n > 0) f->watched[w] = n;
    }
}

/* Copies of pictures for a step that knows plain ones only, then for whoever watches its results. */
static int64_t reordered(const forecast *f, const qx_rstep *s)
{
    int64_t around = 0, most = 0;
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->blocked_in && s->in[i] != QX_NO_VALUE && f->x->info[s->in[i]].block) around += f->bytes[s->in[i]];
    for (uint32_t i = 0; i < s->n_out; i++) {
        const uint32_t id = s->out[i];
        if (id == QX_NO_VALUE || !f->x->info[id].block) continue;
        if (s->blocked_out) around += f->bytes[id];
        if (f->x->info[id].watched && f->bytes[id] > most) most = f->bytes[id];
    }
    return around > most ? around : most;
}

static void walk(forecast *f)
{
    const qx_gplan *p = f->x->main;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const qx_rstep *s = &p->steps[i];
        if (s->klass == QX_CLASS_CONST) continue; /* made of weights: counted with them */
        for (uint32_t k = 0; k < s->n_out; k++)
            if (s->out[k] != QX_NO_VALUE) add_result(f, s, k);
        if (f->live > f->need->activations) f->need->activations = f->live;
        f->need->flops += flops_of(f, s);
        const int64_t scratch = reordered(f, s);
        if (scratch > f->need->scratch) f->need->scratch = scratch;
        for (uint32_t k = 0; k < s->n_release; k++) {
            f->live -= f->bytes[s->release[k]];
            f->bytes[s->release[k]] = 0;
        }
    }
}

qx_status qx_exec_forecast(qx_exec *x, const qx_feed *feeds, int n, int64_t *watched, qx_exec_need *out)
{
    forecast f = {.x = x, .watched = watched, .need = out};
    int64_t largest;
    qx_status st;
    *out = (qx_exec_need){0};
    QX_TRY_GOTO(st, qx_exec_weight_bytes(x, &out->weights, &largest));
    QX_TRY_GOTO(st, qx_alloc_array(x->ctx, x->n_values + 1, sizeof *f.bytes, (void **)&f.bytes));
    QX_TRY_GOTO(st, qx_exprs_new(x->ctx, x->model->names, &f.names));
    QX_TRY_GOTO(st, bind_names(&f, feeds, n));
    out->streamed = x->opt.stream_weights;
    out->packed = (double)packed_weights(&f);
    out->weights = out->streamed ? streamed_weights(&f) : packed_weights(&f) + largest_filter(&f);
    watch_inputs(&f);
    walk(&f);
    if (qx_exprs_out_of_memory(f.names)) st = QX_E_NOMEM;
done:
    qx_exprs_free(f.names);
    qx_free(x->ctx, f.bytes);
    return st;
}
