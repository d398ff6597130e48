/* step.c - one node of a run: constants loaded, inputs bound, the kernel called, watchers told, what nobody needs any more given back. */
#include "runtime/exec.h"

#include <math.h>
#include <string.h>

#include "base/text.h"
#include "runtime/device/device.h"
#include "runtime/cpu/picture/nhwc.h"

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
    const int block = x->info[v->id].block;
    qx_call c = {.ctx = x->ctx, .exec = x, .node = s->node, .step = s};
    qx_tensor plain;
    qx_tensor here = *t;
    if (t->on_device && x->watch_in_place) {
        here.data = x->slots[v->id].dev->data;
        t = &here;
    } else {
        QX_TRY(qx_device_fetch(x, v->id));
    }
    if (block) {
        QX_TRY(qx_layout_plain(&c, t, block, &plain));
        t = &plain;
    }
    x->watch_changed = false;
    for (int i = 0; i < x->n_watch; i++)
        if (x->watch[i] == v) QX_TRY(x->watch_fn(x->watch_user, i, v, t));
    if (!block || !x->watch_changed || !t->numel) return QX_OK;
    return qx_reblock(&c, t->dtype, t->dims, 0, plain.data, block, x->slots[v->id].t.data);
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
            QX_FAIL(x->ctx, QX_E_NUMERIC, "node '%s' (%s): output '%s' is not finite at element %lld while every input is",
                    s->node->name, s->node->op_type,
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
    if (s->wide) QX_TRY(qx_wide_outputs(rt));
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
        rt.home[i] = id == QX_NO_VALUE ? QX_BLOCK_RUN : x->info[id].content != QX_CLASS_DATA ? QX_BLOCK_KEPT : x->info[id].keep
            ? QX_BLOCK_GIVEN : QX_BLOCK_RUN;
    }
    QX_TRY_GOTO(st, bind_inputs(x, s, in));
    rt.c = (qx_call){.ctx = x->ctx, .exec = x, .node = s->node, .version = s->node->op->since, .n_in = s->n_in, .n_out = s->n_out,
                     .in = in, .step = s, .frame = frame, .fused = s->fused};
    if (s->blocked_in) QX_TRY_GOTO(st, qx_layout_inputs(&rt.c, in));
    if (s->wide || s->wide_in) QX_TRY_GOTO(st, qx_wide_inputs(&rt.c, in));
    st = name_node(&rt.c, call_step(x, s, &rt));
    for (uint32_t i = 0; i < s->n_out; i++) qx_slot_clear(x, &spare[i]);
    qx_scratch_back(x, mark); /* who watches results may need as much as the step did */
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

/* A step that need not run again, because only the shapes of its inputs matter, may be the last to read them: held on, they would
 * lie on what the recording of the first run has put in their place. */
static void pass_step(qx_exec *x, const qx_rstep *s)
{
    for (uint32_t i = 0; i < s->n_release; i++)
        if (x->info[s->release[i]].content == QX_CLASS_DATA) qx_slot_clear(x, &x->slots[s->release[i]]);
}

qx_status qx_run_steps(qx_exec *x, qx_gplan *p, uint32_t from, uint32_t to, const qx_frame *frame)
{
    for (uint32_t i = from; i < to; i++) {
        qx_rstep *s = &p->steps[i];
        if (s->klass == QX_CLASS_CONST && s->done) continue;
        if (p == x->main && is_cached(x, s)) {
            pass_step(x, s);
            continue;
        }
        QX_TRY(qx_check_cancel(x->ctx));
        QX_TRY(qx_run_step(x, s, frame));
    }
    return QX_OK;
}

qx_status qx_run_graph(qx_exec *x, qx_gplan *p, const qx_frame *frame) { return qx_run_steps(x, p, 0, p->n_steps, frame); }
