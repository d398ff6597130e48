/* exec.c - runs a planned model: feeds in, steps in order, outputs out; and the life of an executor. */
#include "runtime/exec.h"

#include <string.h>

#include "base/text.h"
#include "runtime/dnnl/door.h"
#include "runtime/device/device.h"
#include "runtime/fuse/fuse.h"

/* ---- A run ---- */

/* Room for the values that the model has now: passes add some to it while a session's executor waits (calibration of a caller's runs). */
static qx_status fit_values(qx_exec *x)
{
    if (x->slots && x->n_values == x->model->n_values) return QX_OK;
    qx_free(x->ctx, x->slots);
    qx_free(x->ctx, x->info);
    x->slots = NULL;
    x->info = NULL;
    x->n_values = x->model->n_values;
    QX_TRY(qx_alloc_array(x->ctx, (size_t)x->n_values + 1, sizeof *x->slots, (void **)&x->slots));
    return qx_alloc_array(x->ctx, (size_t)x->n_values + 1, sizeof *x->info, (void **)&x->info);
}

qx_status qx_ensure_plan(qx_exec *x)
{
    if (x->planned) return QX_OK;
    if (x->mem) qx_plan_free(x);
    QX_TRY(fit_values(x));
    QX_TRY(qx_arena_new(x->ctx, &x->mem));
    qx_status st = qx_plan_build(x);
    if (st != QX_OK) qx_plan_free(x);
    return st;
}

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
    QX_TRY(qx_shape_plan_pick(x));
    QX_TRY(qx_shape_plan_start(x));
    if (x->device) QX_TRY(qx_device_start(x));
    if (!x->cur->values && x->main->n_cache)
        QX_TRY(qx_alloc_array(x->ctx, x->main->n_cache, sizeof *x->cur->values, (void **)&x->cur->values));
    qx_shape_plan_restore(x);
    QX_TRY(qx_tell_interface(x, x->model->graph));
    qx_status st = x->device ? qx_device_run_main(x) : qx_run_marked(x);
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
    QX_TRY_GOTO(st, qx_find_outputs(x, out_names, n_outs, vals));
    if (out_names) QX_TRY_GOTO(st, qx_keep_values(x, vals, n_outs));
    QX_TRY_GOTO(st, qx_ensure_plan(x));
    reset_times(x);
    x->peak = x->live;
    st = run_once(x, feeds, n_feeds);
    if (st != QX_OK && qx_device_run_again(x)) {
        qx_end_run(x);
        st = run_once(x, feeds, n_feeds);
    }
    for (; st == QX_OK && given < n_outs; given++) st = qx_give_output(x, vals[given], &outs[given]);
    if (st == QX_OK) st = qx_carries_keep(x);
    qx_end_run(x);
    for (int i = 0; st != QX_OK && i < given; i++) qx_tensor_free(x->ctx, &outs[i]);
done:
    x->marking = NULL;
    x->begin = NULL;
    qx_free(x->ctx, vals);
    return st;
}

/* ---- Life ---- */

int64_t qx_exec_counted_bytes(const qx_ctx *ctx, const qx_weight *w, bool as_float)
{
    return as_float || qx_dtype_is_float(w->dtype) ? qx_exec_float_bytes(w, qx_ctx_max_memory(ctx) > 0) : (int64_t)w->bytes;
}

bool qx_exec_would_stream(const qx_ctx *ctx, uint64_t weights)
{
    const uint64_t budget = qx_ctx_max_memory(ctx), limit = budget ? budget / 2 : qx_machine_memory() / 4;
    return limit && weights > limit;
}

/* Codes that only a convolution of floats reads are dequantized once and kept as floats. */
static bool becomes_filter(const qx_value *v)
{
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_value *w = u->node->op->id == QX_OP_DequantizeLinear && u->index == 0 ? qx_node_out(u->node, 0) : NULL;
        for (const qx_use *r = w ? w->uses : NULL; r; r = r->next) {
            const qx_node *n = r->node, *from = n->in[0] ? n->in[0]->def : NULL;
            const bool conv = n->op->id == QX_OP_Conv || n->op->id == QX_OP_ConvTranspose;
            if (conv && r->index == 1 && !(from && from->op->id == QX_OP_DequantizeLinear)) return true;
        }
    }
    return false;
}

static void choose_streaming(qx_exec *x)
{
    uint64_t bytes = 0;
    char text[32];
    if (x->device || x->opt.stream_weights) return;
    for (uint32_t i = 0; i < x->model->graph->n_inits; i++) {
        const qx_weight *w = x->model->graph->inits[i]->init;
        if (w) bytes += (uint64_t)qx_exec_counted_bytes(x->ctx, w, becomes_filter(x->model->graph->inits[i]));
    }
    x->opt.stream_weights = qx_exec_would_stream(x->ctx, bytes);
    if (x->opt.stream_weights)
        qx_log_once(x->ctx, QX_LOG_INFO, "weights take %s in float32: they are read for each use, not kept",
                    qx_format_bytes((int64_t)bytes, text, sizeof text));
}

qx_status qx_exec_new(qx_ctx *ctx, qx_model *m, const qx_exec_options *opt, qx_exec **out)
{
    qx_exec *x = NULL;
    qx_status st;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &x));
    qx_hold_spares(ctx);
    x->ctx = ctx;
    x->model = m;
    if (opt) x->opt = *opt;
    x->no_outputs = x->opt.only_watched;
    if (x->opt.bf16 && !qx_dnnl_has_bf16())
        QX_TRY_GOTO(st, qx_fail(ctx, QX_E_UNSUPPORTED,
                                "compute bf16: this CPU has no bfloat16 products (AVX512_BF16 or AMX), or oneDNN is not built in"));
    QX_TRY_GOTO(st, qx_device_open(x));
    x->opt.plugin_dir = NULL; /* the caller's; not needed any more */
    choose_streaming(x);
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
    qx_carries_drop(x);
    qx_drop_packed(x);
    free_blocks(x);
    qx_device_free(x);
    qx_dnnl_free(x->ctx, x->dnnl);
    qx_free(x->ctx, x->arena);
    qx_free(x->ctx, x->slots);
    qx_free(x->ctx, x->info);
    qx_free(x->ctx, x->keep_ids);
    qx_free(x->ctx, x->watch);
    qx_free(x->ctx, x->times);
    qx_let_spares_go(x->ctx);
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
    } else if (strcmp(text, "cuda") == 0 || (strncmp(text, "cuda:", 5) == 0 && text[5] && strlen(text) < 9 &&
                                             strspn(text + 5, "0123456789") == strlen(text + 5))) {
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
    qx_plan_renew(x);
    return qx_ensure_plan(x);
}

bool qx_exec_want_outputs(qx_exec *x, bool wanted)
{
    bool before = !x->no_outputs;
    if (before == wanted) return before;
    x->no_outputs = !wanted;
    qx_plan_renew(x);
    return before;
}

void qx_exec_changed(qx_exec *x) { x->watch_changed = true; }

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
            x->times[n++] = (qx_node_time){name, qx_fuse_operator(s), s->seconds, s->flops, s->bytes, s->kernel, s->calls, s->note};
        }
    *count = n;
    return x->times;
}

size_t qx_exec_peak_bytes(const qx_exec *x) { return x->device ? x->peak + x->device->peak : x->peak; }
