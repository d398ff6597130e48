/* exec.c - runs a planned model: feeds in, steps in order, outputs out. Everything about one node happens in run_step. */
#include "runtime/exec.h"

#include <math.h>
#include <string.h>

#include "base/text.h"
#include "runtime/dnnl/door.h"
#include "runtime/device/device.h"

/* ---- Constants ---- */

/* Its dims and type only. */
static qx_status const_shape(qx_exec *x, const qx_value *v)
{
    qx_slot *s = &x->slots[v->id];
    if (s->set) return QX_OK;
    qx_status st = v->sparse ? qx_tensor_shape(x->ctx, &s->t, v->sparse->values->dtype, v->sparse->rank, v->sparse->dims)
                             : qx_tensor_shape(x->ctx, &s->t, v->init->dtype, v->init->rank, v->init->dims);
    if (st != QX_OK) return qx_note(x->ctx, st, "initializer '%s'", v->name);
    s->set = true;
    return QX_OK;
}

qx_status qx_const_load(qx_exec *x, const qx_value *v)
{
    qx_slot *s = &x->slots[v->id];
    const qx_weight *w = v->init;
    if ((!w && !v->sparse) || (s->set && (s->t.data || s->borrowed))) return QX_OK;
    QX_TRY(const_shape(x, v));
    if (x->info[v->id].consumers <= 0 && !x->info[v->id].keep && !x->info[v->id].watched) return QX_OK; /* dropped by all */
    if (s->t.dtype == QX_DT_STRING) {
        QX_TRY(qx_alloc(x->ctx, s->t.bytes, &s->t.data));
        s->owned = true;
        char **to = s->t.data;
        for (int64_t i = 0; w && w->src.strings && i < w->numel; i++) {
            QX_TRY(qx_alloc(x->ctx, w->src.string_lens[i] + 1, (void **)&to[i]));
            memcpy(to[i], w->src.strings[i], w->src.string_lens[i]);
        }
        return QX_OK;
    }
    QX_TRY(qx_const_block(x, s->t.bytes, &s->block));
    s->t.data = s->block->data;
    qx_status st = v->sparse ? qx_sparse_read(x->ctx, v->sparse, s->t.data) : qx_weight_read(x->ctx, w, s->t.data);
    return st == QX_OK ? QX_OK : qx_note(x->ctx, st, "initializer '%s'", v->name);
}

/* Frees the bytes of a constant that every consumer has dropped; its shape stays. */
static void const_trim(qx_exec *x, uint32_t id)
{
    qx_slot *s = &x->slots[id];
    const qx_vinfo *v = &x->info[id];
    if (v->content != QX_CLASS_CONST || v->consumers > 0 || v->keep || !s->block) return;
    qx_const_retire(x, s->block);
    s->block = NULL;
    s->t.data = NULL;
}

/* ---- Watching ---- */

static qx_status tell(qx_exec *x, qx_rstep *s, const qx_value *v)
{
    const qx_tensor *t = &x->slots[v->id].t;
    qx_tensor plain;
    qx_tensor here = *t;
    if (t->on_device && x->watch_in_place) {
        here.data = x->slots[v->id].dev->data;
        t = &here;
    } else {
        QX_TRY(qx_device_fetch(x, v->id));
    }
    if (x->info[v->id].block) {
        qx_call c = {.ctx = x->ctx, .exec = x, .node = s->node, .step = s};
        QX_TRY(qx_layout_plain(&c, t, x->info[v->id].block, &plain));
        t = &plain;
    }
    for (int i = 0; i < x->n_watch; i++)
        if (x->watch[i] == v) QX_TRY(x->watch_fn(x->watch_user, i, v, t));
    return QX_OK;
}

qx_status qx_tell_interface(qx_exec *x, const qx_graph *g)
{
    for (int i = 0; i < x->n_watch; i++) {
        const qx_value *v = x->watch[i];
        if (v->def || v->graph != g) continue;
        QX_TRY(qx_const_load(x, v));
        if (x->slots[v->id].set) QX_TRY(x->watch_fn(x->watch_user, i, v, &x->slots[v->id].t));
    }
    return QX_OK;
}

/* ---- NaN tracing ---- */

static int64_t first_nonfinite(const qx_tensor *t)
{
    float buf[256];
    if (!t->data || t->is_sequence || t->is_optional || !qx_dtype_is_float(t->dtype) || t->dtype == QX_DT_DOUBLE) return -1;
    size_t step_bytes = (size_t)256 * (size_t)qx_dtype_bits(t->dtype) / 8;
    for (int64_t i = 0; i < t->numel; i += 256) {
        int64_t n = t->numel - i < 256 ? t->numel - i : 256;
        qx_to_f32(t->dtype, (const char *)t->data + (size_t)(i / 256) * step_bytes, n, buf);
        for (int64_t k = 0; k < n; k++)
            if (!isfinite(buf[k])) return i + k;
    }
    return -1;
}

/* -Inf from a constant mask is legal, so a node is blamed only when its own inputs are all finite. */
static qx_status trace_nan(qx_exec *x, const qx_rstep *s)
{
    for (uint32_t i = 0; i < s->n_in; i++) {
        if (s->in[i] == QX_NO_VALUE) continue;
        QX_TRY(qx_device_fetch(x, s->in[i]));
        if (first_nonfinite(&x->slots[s->in[i]].t) >= 0) return QX_OK;
    }
    for (uint32_t i = 0; i < s->n_out; i++) {
        if (s->out[i] == QX_NO_VALUE) continue;
        QX_TRY(qx_device_fetch(x, s->out[i]));
        int64_t at = first_nonfinite(&x->slots[s->out[i]].t);
        if (at >= 0)
            QX_FAIL(x->ctx, QX_E_NUMERIC, "node '%s' (%s): output '%s' is not finite at element %lld while every input is", s->node->name, s->node->op_type,
                    s->out_value[i]->name, (long long)at);
    }
    return QX_OK;
}

/* ---- One step ---- */

static qx_status bind_inputs(qx_exec *x, const qx_rstep *s, const qx_tensor **in)
{
    for (uint32_t i = 0; i < s->n_in; i++) {
        in[i] = NULL;
        if (s->in[i] == QX_NO_VALUE) continue;
        qx_slot *slot = &x->slots[s->in[i]];
        const qx_value *v = s->in_value[i];
        if (i < 64 && (s->stored >> i & 1)) QX_TRY(const_shape(x, v));
        else if ((!slot->set || !slot->t.data) && !slot->borrowed) QX_TRY(qx_const_load(x, v));
        if (slot->t.on_device) QX_TRY(qx_device_fetch(x, s->in[i]));
        if (slot->set) in[i] = &slot->t; /* not set: an optional function input that the call left out */
        else if (!v->is_input) QX_FAIL(x->ctx, QX_E_FORMAT, "node '%s': input '%s' has not been computed", s->node->name, v->name);
    }
    return QX_OK;
}

static double step_bytes(const qx_exec *x, const qx_rstep *s)
{
    double b = 0;
    for (uint32_t i = 0; i < s->n_in; i++) b += s->in[i] == QX_NO_VALUE ? 0.0 : (double)x->slots[s->in[i]].t.bytes;
    for (uint32_t i = 0; i < s->n_out; i++) b += s->out[i] == QX_NO_VALUE ? 0.0 : (double)x->slots[s->out[i]].t.bytes;
    return b;
}

static qx_status call_step(qx_exec *x, qx_rstep *s, qx_call_rt *rt)
{
    double t0 = x->profile ? qx_clock_seconds() : 0;
    QX_TRY(s->fn(&rt->c));
    QX_TRY(qx_call_finish(rt));
    if (s->blocked_out) QX_TRY(qx_layout_outputs(&rt->c));
    if (!x->profile) return QX_OK;
    s->seconds += qx_clock_seconds() - t0;
    s->bytes += step_bytes(x, s);
    s->calls++;
    return QX_OK;
}

/* Right after a SHAPE step of the first run with these shapes: later runs find its values instead of running it. */
static qx_status cache_step(qx_exec *x, const qx_rstep *s)
{
    for (uint32_t k = 0; k < s->n_out; k++) {
        if (s->cache_at[k] == QX_NO_VALUE) continue;
        qx_slot *from = &x->slots[s->out[k]], *to = &x->cur->values[s->cache_at[k]];
        qx_slot_clear(x, to);
        if (from->block) {
            from->block->refs++;
            *to = *from;
            to->dev = NULL;
        } else {
            QX_TRY(qx_tensor_copy(x->ctx, &from->t, &to->t));
            to->set = to->owned = true;
        }
    }
    return QX_OK;
}

static qx_status after_step(qx_exec *x, qx_rstep *s)
{
    if (x->opt.trace_nan) QX_TRY(trace_nan(x, s));
    if (s->watched)
        for (uint32_t i = 0; i < s->n_out; i++)
            if (s->out[i] != QX_NO_VALUE && x->info[s->out[i]].watched) QX_TRY(tell(x, s, s->out_value[i]));
    if (s->klass == QX_CLASS_SHAPE && x->depth == 0 && !x->cur->cached) QX_TRY(cache_step(x, s));
    if (s->klass == QX_CLASS_CONST && !s->done) {
        s->done = true;
        for (uint32_t i = 0; i < s->n_in && i < 64; i++)
            if (s->in[i] != QX_NO_VALUE && !(s->dropped >> i & 1)) {
                s->dropped |= (uint64_t)1 << i;
                x->info[s->in[i]].consumers--;
            }
    }
    for (uint32_t i = 0; i < s->n_release; i++) qx_slot_clear(x, &x->slots[s->release[i]]);
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->in[i] != QX_NO_VALUE) {
            const_trim(x, s->in[i]);
            if (x->info[s->in[i]].streamed && s->in_value[i]->init && !x->slots[s->in[i]].borrowed) qx_slot_clear(x, &x->slots[s->in[i]]);
        }
    return QX_OK;
}

void qx_drop_state(qx_exec *x, qx_rstep *s)
{
    if (s->state && s->drop) s->drop(x->ctx, s->state);
    qx_free(x->ctx, s->state);
    s->state = NULL;
}

static qx_status run_on_device(qx_exec *x, qx_rstep *s)
{
    QX_TRY(qx_device_step(x, s));
    return after_step(x, s);
}

/* Failures of adapters name their node; those from deeper down (memory) get it here. */
static qx_status name_node(const qx_call *c, qx_status st)
{
    const qx_node *n = c->node;
    if (st == QX_OK || st == QX_E_CANCELLED || strstr(qx_ctx_error(c->ctx), "node '")) return st;
    return qx_note(c->ctx, st, "node '%s' (%s)", n->name && *n->name ? n->name : n->n_out && n->out[0] ? n->out[0]->name : "", n->op_type);
}

qx_status qx_run_step(qx_exec *x, qx_rstep *s, const qx_frame *frame)
{
    qx_call_rt rt;
    if (s->on_device) return run_on_device(x, s);
    memset(&rt, 0, sizeof rt);
    qx_scratch_mark mark = qx_scratch_here(x);
    const qx_tensor **in = NULL;
    qx_slot *spare = NULL;
    qx_status st;
    QX_TRY_GOTO(st, qx_scratch_get(x, (s->n_in + 1) * sizeof *in, (void **)&in));
    QX_TRY_GOTO(st, qx_scratch_get(x, (s->n_out + 1) * sizeof *rt.out, (void **)&rt.out));
    QX_TRY_GOTO(st, qx_scratch_get(x, (s->n_out + 1) * sizeof *rt.home, (void **)&rt.home));
    QX_TRY_GOTO(st, qx_scratch_get(x, (s->n_out + 1) * sizeof *spare, (void **)&spare));
    memset(spare, 0, (s->n_out + 1) * sizeof *spare);
    for (uint32_t i = 0; i < s->n_out; i++) {
        uint32_t id = s->out[i];
        rt.out[i] = id == QX_NO_VALUE ? &spare[i] : &x->slots[id];
        rt.home[i] = id == QX_NO_VALUE ? QX_BLOCK_RUN : x->info[id].content != QX_CLASS_DATA ? QX_BLOCK_KEPT : x->info[id].keep ? QX_BLOCK_GIVEN : QX_BLOCK_RUN;
    }
    QX_TRY_GOTO(st, bind_inputs(x, s, in));
    rt.c = (qx_call){.ctx = x->ctx, .exec = x, .node = s->node, .version = s->node->op->since, .n_in = s->n_in, .n_out = s->n_out,
                     .in = in, .step = s, .frame = frame, .fused = s->fused};
    if (s->blocked_in) QX_TRY_GOTO(st, qx_layout_inputs(&rt.c, in));
    st = name_node(&rt.c, call_step(x, s, &rt));
    for (uint32_t i = 0; i < s->n_out; i++) qx_slot_clear(x, &spare[i]);
    if (st == QX_OK) st = after_step(x, s);
    if (s->ref_attrs || s->streams) qx_drop_state(x, s); /* another call of the function may have other attributes */
done:
    qx_scratch_back(x, mark);
    return st;
}

static bool is_cached(const qx_exec *x, const qx_rstep *s)
{
    return s->klass == QX_CLASS_SHAPE && x->cur->cached && x->depth == 0;
}

qx_status qx_run_graph(qx_exec *x, qx_gplan *p, const qx_frame *frame)
{
    for (uint32_t i = 0; i < p->n_steps; i++) {
        qx_rstep *s = &p->steps[i];
        if ((s->klass == QX_CLASS_CONST && s->done) || (p == x->main && is_cached(x, s))) continue;
        QX_TRY(qx_check_cancel(x->ctx));
        QX_TRY(qx_run_step(x, s, frame));
    }
    return QX_OK;
}

/* ---- Feeds ---- */

static qx_status list_inputs(qx_exec *x, const char *name)
{
    const qx_graph *g = x->model->graph;
    char text[512];
    size_t n = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < g->n_inputs && n < sizeof text - 64; i++) {
        const char *in = g->inputs[i]->name;
        size_t len = strlen(in) < 48 ? strlen(in) : 48;
        if (n) text[n++] = ' ';
        memcpy(text + n, in, len);
        n += len;
        text[n] = 0;
    }
    QX_FAIL(x->ctx, QX_E_USAGE, "the model has no input '%s'; its inputs are: %s", name, text);
}

/* The declared type against the given tensor; symbols are free. */
static qx_status check_feed(qx_exec *x, const qx_value *v, const qx_tensor *t)
{
    char got[96];
    const qx_type *ty = &v->type;
    qx_tensor_describe(t, got, sizeof got);
    if (ty->kind == QX_KIND_SEQUENCE || ty->kind == QX_KIND_OPTIONAL) {
        if (!t->is_sequence && !t->is_optional) QX_FAIL(x->ctx, QX_E_TYPE, "input '%s': %s given, a sequence or optional is needed", v->name, got);
        return QX_OK;
    }
    if (ty->kind != QX_KIND_TENSOR) return QX_OK;
    if (t->is_sequence || t->is_optional || (ty->dtype && t->dtype != ty->dtype))
        QX_FAIL(x->ctx, QX_E_TYPE, "input '%s': %s given, %s is needed", v->name, got, qx_dtype_get(ty->dtype)->text);
    if (!ty->has_shape) return QX_OK;
    if (t->rank != ty->rank) QX_FAIL(x->ctx, QX_E_SHAPE, "input '%s': %s has rank %d, rank %d is needed", v->name, got, t->rank, ty->rank);
    for (int i = 0; i < t->rank; i++)
        if (ty->dims[i].n >= 0 && ty->dims[i].n != t->dims[i])
            QX_FAIL(x->ctx, QX_E_SHAPE, "input '%s': %s has %lld in dim %d, %lld is needed", v->name, got, (long long)t->dims[i], i, (long long)ty->dims[i].n);
    return QX_OK;
}

qx_status qx_bind_feeds(qx_exec *x, const qx_feed *feeds, int n)
{
    const qx_graph *g = x->model->graph;
    for (int i = 0; i < n; i++) {
        const qx_value *v = NULL;
        for (uint32_t k = 0; k < g->n_inputs; k++)
            if (strcmp(g->inputs[k]->name, feeds[i].name) == 0) v = g->inputs[k];
        if (!v) return list_inputs(x, feeds[i].name);
        QX_TRY(check_feed(x, v, feeds[i].tensor));
        qx_slot *s = &x->slots[v->id];
        qx_slot_clear(x, s);
        s->t = *feeds[i].tensor;
        s->set = s->borrowed = true;
    }
    for (uint32_t k = 0; k < g->n_inputs; k++) {
        const qx_value *v = g->inputs[k];
        if (!x->slots[v->id].set) QX_TRY(qx_const_load(x, v));
        if (!x->slots[v->id].set && x->info[v->id].needed) QX_FAIL(x->ctx, QX_E_USAGE, "input '%s' is missing (%d given, the model has %u)", v->name, n, g->n_inputs);
    }
    return QX_OK;
}

/* ---- Shape plans ---- */

static int64_t key_length(const qx_exec *x)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < x->model->graph->n_inputs; i++) n += 1 + x->slots[x->model->graph->inputs[i]->id].t.rank;
    return n;
}

static void key_fill(const qx_exec *x, int64_t *key)
{
    for (uint32_t i = 0; i < x->model->graph->n_inputs; i++) {
        const qx_tensor *t = &x->slots[x->model->graph->inputs[i]->id].t;
        *key++ = t->is_sequence || t->is_optional ? -1 - t->n_items : t->rank;
        for (int d = 0; d < t->rank; d++) *key++ = t->dims[d];
    }
}

/* The plan of these input shapes: a known one, or the oldest replaced. */
static qx_status pick_plan(qx_exec *x)
{
    int64_t *key = NULL, n = key_length(x);
    QX_TRY(qx_alloc_array(x->ctx, (size_t)n + 1, sizeof *key, (void **)&key));
    key_fill(x, key);
    qx_shape_plan *oldest = &x->plans[0];
    x->cur = NULL;
    for (int i = 0; i < QX_SHAPE_PLANS; i++) {
        qx_shape_plan *p = &x->plans[i];
        if (p->key && p->key_len == n && memcmp(p->key, key, (size_t)n * sizeof *key) == 0) x->cur = p;
        if (p->used < oldest->used) oldest = p;
    }
    if (!x->cur) {
        qx_shape_plan_reset(x, oldest);
        oldest->key = key;
        oldest->key_len = n;
        x->cur = oldest;
    } else {
        qx_free(x->ctx, key);
    }
    x->cur->used = ++x->run_count;
    return QX_OK;
}

enum { ARENA_ALIGN = 64 };

static qx_status start_memory(qx_exec *x)
{
    qx_shape_plan *p = x->cur;
    x->record = !p->recs && !p->ready;
    x->replay = false;
    x->alloc_i = x->clock = 0;
    if (x->record) return QX_OK;
    if (!p->ready) p->ready = qx_records_pack(x->ctx, p->recs, p->n_recs, ARENA_ALIGN, &p->arena_bytes);
    if (p->ready && p->arena_bytes > x->arena_cap) {
        qx_free(x->ctx, x->arena);
        x->arena = NULL;
        x->arena_cap = 0;
        QX_TRY(qx_alloc_raw(x->ctx, p->arena_bytes, &x->arena));
        x->arena_cap = p->arena_bytes;
    }
    x->replay = p->ready;
    return QX_OK;
}

/* Puts the kept SHAPE values into their slots. */
static void restore_cache(qx_exec *x)
{
    for (uint32_t i = 0; x->cur->cached && i < x->main->n_cache; i++) {
        const qx_slot *from = &x->cur->values[i];
        qx_slot *s = &x->slots[x->main->cache[i]];
        if (!from->set) continue;
        qx_slot_clear(x, s);
        *s = *from;
        s->owned = false;
        if (s->block) s->block->refs++;
        else s->borrowed = true;
    }
}

/* ---- Outputs ---- */

static qx_status give_output(qx_exec *x, const qx_value *v, qx_tensor *out)
{
    qx_slot *s = &x->slots[v->id];
    QX_TRY(qx_const_load(x, v));
    if (!s->set) QX_FAIL(x->ctx, QX_E_FAIL, "output '%s' was not computed", v->name);
    if (s->t.on_device) return qx_device_copy_out(x, s, out);
    if (s->dev) qx_dblock_release(x, s->dev);
    s->dev = NULL;
    if (s->owned) {
        *out = s->t;
        memset(s, 0, sizeof *s);
        return QX_OK;
    }
    if (s->block && s->block->refs == 1 && !s->block->arena && x->info[v->id].content == QX_CLASS_DATA && s->t.data == s->block->data) {
        *out = s->t;
        s->block->data = NULL;
        qx_slot_clear(x, s);
        return QX_OK;
    }
    return qx_tensor_copy(x->ctx, &s->t, out);
}

static qx_status find_outputs(qx_exec *x, const char *const *names, int n, const qx_value **vals)
{
    const qx_graph *g = x->model->graph;
    if (!names && x->no_outputs) QX_FAIL(x->ctx, QX_E_USAGE, "all outputs are asked for, but only watched values are computed");
    if (!names && n != (int)g->n_outputs) QX_FAIL(x->ctx, QX_E_USAGE, "%d outputs asked for, the model has %u", n, g->n_outputs);
    for (int i = 0; i < n; i++) {
        vals[i] = names ? qx_graph_find(g, names[i]) : g->outputs[i];
        if (!vals[i]) QX_FAIL(x->ctx, QX_E_USAGE, "the model has no value '%s'", names[i]);
    }
    return QX_OK;
}

/* Values asked for that are not kept yet: they join the kept ones and the plan is made anew. */
static qx_status keep_values(qx_exec *x, const qx_value *const *vals, int n)
{
    for (int i = 0; i < n; i++) {
        bool known = vals[i]->is_output && vals[i]->graph == x->model->graph && !x->no_outputs;
        for (int k = 0; k < x->n_keep; k++) known = known || x->keep_ids[k] == vals[i]->id;
        if (known) continue;
        QX_TRY(qx_regrow(x->ctx, (void **)&x->keep_ids, (size_t)x->n_keep * sizeof *x->keep_ids, ((size_t)x->n_keep + 1) * sizeof *x->keep_ids));
        x->keep_ids[x->n_keep++] = vals[i]->id;
        if (x->planned) qx_plan_free(x);
    }
    return QX_OK;
}

qx_status qx_exec_expose(qx_exec *x, qx_value *v)
{
    const qx_value *one[1] = {v};
    if (v->graph != x->model->graph) QX_FAIL(x->ctx, QX_E_USAGE, "value '%s' lies in a subgraph: only values of the main graph can be outputs", v->name);
    return keep_values(x, one, 1);
}

/* ---- A run ---- */

qx_status qx_ensure_plan(qx_exec *x)
{
    if (x->planned) return QX_OK;
    if (x->mem) qx_plan_free(x);
    QX_TRY(qx_arena_new(x->ctx, &x->mem));
    qx_status st = qx_plan_build(x);
    if (st != QX_OK) qx_plan_free(x);
    return st;
}

/* Empties every slot that does not outlive the run. */
void qx_end_run(qx_exec *x)
{
    for (uint32_t i = 0; i < x->n_values; i++) {
        qx_slot *s = &x->slots[i];
        if (!s->set) continue;
        if (s->borrowed || x->info[i].content != QX_CLASS_CONST) qx_slot_clear(x, s);
    }
    if (x->record) {
        qx_spare_drop(x);
        qx_scratch_drop(x, false); /* packing weights took more than runs will */
    }
    x->record = x->replay = false;
    x->depth = 0;
}

static qx_status run_once(qx_exec *x, const qx_feed *feeds, int n_feeds)
{
    QX_TRY(qx_bind_feeds(x, feeds, n_feeds));
    QX_TRY(pick_plan(x));
    QX_TRY(start_memory(x));
    if (x->device) QX_TRY(qx_device_start(x));
    if (!x->cur->values && x->main->n_cache) QX_TRY(qx_alloc_array(x->ctx, x->main->n_cache, sizeof *x->cur->values, (void **)&x->cur->values));
    restore_cache(x);
    QX_TRY(qx_tell_interface(x, x->model->graph));
    qx_status st = x->device ? qx_device_run_main(x) : qx_run_graph(x, x->main, NULL);
    if (st == QX_OK) {
        x->cur->cached = true;
        return QX_OK;
    }
    if (x->device) x->device->record = false;
    x->record = false; /* what is still alive belongs to a recording that goes away now */
    qx_shape_plan_reset(x, x->cur);
    return st;
}

static void reset_times(qx_exec *x)
{
    for (uint32_t i = 0; i < x->n_gplans; i++)
        for (uint32_t k = 0; k < x->gplans[i]->n_steps; k++) {
            qx_rstep *s = &x->gplans[i]->steps[k];
            s->seconds = s->flops = s->bytes = 0;
            s->calls = 0;
            s->note = NULL;
        }
}

qx_status qx_exec_run(qx_exec *x, const qx_feed *feeds, int n_feeds, const char *const *out_names, int n_outs, qx_tensor *outs)
{
    const qx_value **vals = NULL;
    int given = 0;
    qx_status st;
    for (int i = 0; i < n_outs; i++) memset(&outs[i], 0, sizeof outs[i]);
    QX_TRY(qx_alloc_array(x->ctx, (size_t)n_outs + 1, sizeof *vals, (void **)&vals));
    QX_TRY_GOTO(st, find_outputs(x, out_names, n_outs, vals));
    if (out_names) QX_TRY_GOTO(st, keep_values(x, vals, n_outs));
    QX_TRY_GOTO(st, qx_ensure_plan(x));
    reset_times(x);
    x->peak = x->live;
    st = run_once(x, feeds, n_feeds);
    if (st != QX_OK && qx_device_run_again(x)) {
        qx_end_run(x);
        st = run_once(x, feeds, n_feeds);
    }
    for (; st == QX_OK && given < n_outs; given++) st = give_output(x, vals[given], &outs[given]);
    qx_end_run(x);
    for (int i = 0; st != QX_OK && i < given; i++) qx_tensor_free(x->ctx, &outs[i]);
done:
    qx_free(x->ctx, vals);
    return st;
}

/* ---- Life ---- */

static void choose_streaming(qx_exec *x)
{
    const uint64_t budget = qx_ctx_max_memory(x->ctx), limit = budget ? budget / 2 : qx_machine_memory() / 4;
    uint64_t bytes = 0;
    char text[32];
    if (x->device || x->opt.stream_weights) return;
    for (uint32_t i = 0; i < x->model->graph->n_inits; i++) {
        const qx_weight *w = x->model->graph->inits[i]->init;
        if (w && qx_dtype_is_float(w->dtype)) bytes += (uint64_t)w->numel * sizeof(float);
        else if (w) bytes += w->bytes;
    }
    x->opt.stream_weights = limit && bytes > limit;
    if (x->opt.stream_weights) qx_log(x->ctx, QX_LOG_INFO, "weights take %s in float32: they are read for each use, not kept", qx_format_bytes((int64_t)bytes, text, sizeof text));
}

qx_status qx_exec_new(qx_ctx *ctx, qx_model *m, const qx_exec_options *opt, qx_exec **out)
{
    qx_exec *x = NULL;
    qx_status st;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &x));
    x->ctx = ctx;
    x->model = m;
    if (opt) x->opt = *opt;
    x->n_values = m->n_values;
    x->no_outputs = x->opt.only_watched;
    if (x->opt.bf16 && !qx_dnnl_has_bf16()) QX_TRY_GOTO(st, qx_fail(ctx, QX_E_UNSUPPORTED, "compute bf16: this CPU has no bfloat16 products (AVX512_BF16 or AMX), or oneDNN is not built in"));
    QX_TRY_GOTO(st, qx_device_open(x));
    x->opt.plugin_dir = NULL; /* the caller's; not needed any more */
    choose_streaming(x);
    QX_TRY_GOTO(st, qx_alloc_array(ctx, x->n_values + 1, sizeof *x->slots, (void **)&x->slots));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, x->n_values + 1, sizeof *x->info, (void **)&x->info));
    QX_TRY_GOTO(st, qx_ensure_plan(x)); /* now, so that an operator without a kernel is known before anything runs */
    *out = x;
    return QX_OK;
done:
    qx_exec_free(x);
    return st;
}

static void free_blocks(qx_exec *x)
{
    while (x->free_blocks) {
        qx_block *b = x->free_blocks;
        x->free_blocks = b->next_free;
        qx_free(x->ctx, b);
    }
    qx_scratch_drop(x, true);
    qx_spare_drop(x);
}

void qx_exec_free(qx_exec *x)
{
    if (!x) return;
    qx_plan_free(x);
    free_blocks(x);
    qx_device_free(x);
    qx_dnnl_free(x->ctx, x->dnnl);
    qx_free(x->ctx, x->arena);
    qx_free(x->ctx, x->slots);
    qx_free(x->ctx, x->info);
    qx_free(x->ctx, x->keep_ids);
    qx_free(x->ctx, x->watch);
    qx_free(x->ctx, x->times);
    qx_drop_spares(x->ctx);
    qx_free(x->ctx, x);
}

const char *qx_exec_device_name(const qx_exec *x)
{
    return x->device ? x->device->name : "cpu";
}

qx_status qx_exec_set_device(qx_ctx *ctx, const char *text, qx_exec_options *o)
{
    int64_t index = 0;
    o->device_index = 0;
    if (strcmp(text, "auto") == 0) {
        o->device = QX_DEVICE_AUTO;
        o->tell_device = true;
    } else if (strcmp(text, "cpu") == 0) {
        o->device = QX_DEVICE_CPU;
    } else if (strcmp(text, "cuda") == 0 || (strncmp(text, "cuda:", 5) == 0 && text[5] && strlen(text) < 9 && strspn(text + 5, "0123456789") == strlen(text + 5))) {
        o->device = QX_DEVICE_CUDA;
        for (const char *c = text[4] ? text + 5 : ""; *c; c++) index = index * 10 + (*c - '0');
        o->device_index = (int)index;
    } else {
        QX_FAIL(ctx, QX_E_USAGE, "device '%s' is not auto, cpu, cuda or cuda:N", text);
    }
    return QX_OK;
}

qx_status qx_exec_watch(qx_exec *x, qx_value *const *values, int n, qx_watch_fn *fn, void *user)
{
    qx_value **copy = NULL;
    QX_TRY(qx_alloc_array(x->ctx, (size_t)n + 1, sizeof *copy, (void **)&copy));
    if (n) memcpy(copy, values, (size_t)n * sizeof *copy);
    qx_free(x->ctx, x->watch);
    x->watch = copy;
    x->n_watch = n;
    x->watch_fn = fn;
    x->watch_user = user;
    x->watch_in_place = false;
    qx_plan_free(x);
    return qx_ensure_plan(x);
}

bool qx_exec_want_outputs(qx_exec *x, bool wanted)
{
    bool before = !x->no_outputs;
    if (before == wanted) return before;
    x->no_outputs = !wanted;
    qx_plan_free(x);
    return before;
}

void qx_exec_watch_in_place(qx_exec *x, bool on) { x->watch_in_place = on && x->device && x->device->b->look; }

void qx_exec_profile(qx_exec *x, bool on) { x->profile = on; }

const qx_node_time *qx_exec_times(const qx_exec *cx, int *count)
{
    qx_exec *x = (qx_exec *)cx; /* the table is built when asked for */
    int n = 0, total = 0;
    *count = 0;
    for (uint32_t i = 0; i < x->n_gplans; i++) total += (int)x->gplans[i]->n_steps;
    qx_free(x->ctx, x->times);
    if (qx_alloc_array(x->ctx, (size_t)total + 1, sizeof *x->times, (void **)&x->times) != QX_OK) return NULL;
    for (uint32_t i = 0; i < x->n_gplans; i++)
        for (uint32_t k = 0; k < x->gplans[i]->n_steps; k++) {
            const qx_rstep *s = &x->gplans[i]->steps[k];
            if (!s->calls) continue;
            const char *name = *s->node->name || !s->n_out || !s->out_value[0] ? s->node->name : s->out_value[0]->name;
            x->times[n++] = (qx_node_time){name, s->node->op_type, s->seconds, s->flops, s->bytes, s->kernel, s->calls, s->note};
        }
    *count = n;
    return x->times;
}

size_t qx_exec_peak_bytes(const qx_exec *x) { return x->device ? x->peak + x->device->peak : x->peak; }
