/* device_run.c - a run with a device: its steps one by one, or all at once by replaying a recording.
 *
 * The first run with given shapes compiles and records the memory plan, the second runs from the arena, the third is recorded by
 * the device (where it can) and replayed from then on. Recording needs that nothing between the first and the last device step
 * comes back to the host. */
#include <string.h>

#include "onnx/infer/infer.h"
#include "runtime/device/device.h"

/* ---- One step ---- */

/* Inputs where the kernel wants them; shapes of all in in[]. */
static qx_status bind(qx_exec *x, qx_rstep *s, const qx_tensor **in)
{
    for (uint32_t i = 0; i < s->n_in; i++) {
        in[i] = NULL;
        if (s->in[i] == QX_NO_VALUE) continue;
        const qx_value *v = s->in_value[i];
        qx_slot *slot = &x->slots[s->in[i]];
        if (!slot->set) QX_TRY(qx_const_load(x, v));
        if (!slot->set) QX_FAIL(x->ctx, QX_E_FORMAT, "node '%s': input '%s' has not been computed", s->node->name, v->name);
        bool on_host = s->host_in >> i & 1;
        if ((on_host || (s->shape_in >> i & 1)) && slot->t.on_device) QX_TRY(qx_device_fetch(x, s->in[i]));
        if (on_host && !slot->t.data) QX_TRY(qx_const_load(x, v));
        if (!on_host) QX_TRY(qx_device_send(x, v));
        in[i] = &slot->t;
    }
    return QX_OK;
}

static void set_output(qx_exec *x, uint32_t id, const qx_tensor *shape, qx_dblock *b)
{
    qx_slot *s = &x->slots[id];
    qx_slot_clear(x, s);
    s->t = *shape;
    s->t.data = NULL;
    s->t.on_device = true;
    s->dev = b;
    s->set = true;
}

static qx_status run_kernel(qx_exec *x, qx_rstep *s, const qx_tensor *const *in, const qx_dev_code *c)
{
    qx_gpu *d = x->device;
    qx_dev_tensor t[32 + 16];
    qx_dblock *ws = NULL;
    qx_status st = QX_OK;
    if (s->n_in > 32 || s->n_out > 16)
        QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "node '%s': %u inputs and %u outputs", s->node->name, s->n_in, s->n_out);
    for (uint32_t i = 0; i < s->n_in; i++) qx_device_tensor(x, s, i, in[i], &t[i]);
    for (uint32_t i = 0; i < s->n_out && st == QX_OK; i++) {
        qx_dblock *b = NULL;
        const qx_tensor *o = &c->out[i];
        t[32 + i] = (qx_dev_tensor){.dtype = (int32_t)o->dtype, .rank = o->rank, .numel = o->numel, .bytes = o->bytes};
        memcpy(t[32 + i].dims, o->dims, sizeof o->dims);
        if (s->out[i] == QX_NO_VALUE) continue;
        st = qx_dblock_new(x, o->bytes, false, &b);
        if (st != QX_OK) break;
        t[32 + i].data = b->data;
        set_output(x, s->out[i], o, b);
    }
    if (st == QX_OK && c->workspace) st = qx_dblock_new(x, c->workspace, false, &ws);
    if (st == QX_OK) st = qx_device_status(x, d->b->run(d->dev, c->step, t, t + 32, ws ? ws->data : NULL), s->node->name);
    qx_dblock_release(x, ws);
    return st;
}

/* The device's own time: what the host does before and behind is not in it. */
static qx_status timed_kernel(qx_exec *x, qx_rstep *s, const qx_tensor *const *in, const qx_dev_code *c)
{
    const qx_gpu *d = x->device;
    double seconds = 0;
    QX_TRY(qx_device_status(x, d->b->mark(d->dev, 0), s->node->name));
    QX_TRY(run_kernel(x, s, in, c));
    QX_TRY(qx_device_status(x, d->b->mark(d->dev, 1), s->node->name));
    QX_TRY(qx_device_status(x, d->b->elapsed(d->dev, 0, 1, &seconds), s->node->name));
    s->seconds += seconds;
    s->calls++;
    s->kernel = d->b->kernel(c->step);
    s->note = d->b->why(c->step);
    return QX_OK;
}

static void share(qx_exec *x, const qx_rstep *s, const qx_dev_code *c)
{
    qx_dblock *b = x->slots[s->in[0]].dev;
    b->refs++;
    set_output(x, s->out[0], &c->out[0], b);
}

/* A constant that the device holds is not needed on the host any more, unless it may have to be sent again and cannot be read again. */
static void drop_constants(qx_exec *x, qx_rstep *s)
{
    qx_gpu *d = x->device;
    for (uint32_t i = 0; i < s->n_in && i < 32; i++) {
        uint32_t id = s->in[i];
        if (id == QX_NO_VALUE || x->info[id].content != QX_CLASS_CONST || (s->host_in >> i & 1)) continue;
        bool over = d->budget && d->live > d->budget;
        if (!d->budget && !(s->dropped >> i & 1)) {
            s->dropped |= (uint64_t)1 << i;
            x->info[id].consumers--;
        }
        if (over && x->slots[id].dev && !x->info[id].keep) {
            d->resident -= x->slots[id].dev->bytes;
            qx_dblock_release(x, x->slots[id].dev);
            x->slots[id].dev = NULL;
        }
    }
}

qx_status qx_device_step(qx_exec *x, qx_rstep *s)
{
    const qx_tensor *in[32];
    qx_dev_code *c = NULL;
    QX_TRY(bind(x, s, in));
    QX_TRY(qx_device_compile(x, s, in, &c));
    if (s->view) share(x, s, c);
    else QX_TRY(x->profile ? timed_kernel(x, s, in, c) : run_kernel(x, s, in, c));
    drop_constants(x, s);
    return QX_OK;
}

/* ---- A run as one recording ---- */

static bool wants_every_step(const qx_exec *x)
{
    return x->n_watch || x->profile || x->opt.trace_nan || x->device->n_host || x->device->budget || x->device->changing;
}

/* Where the kept values lie at the end of a run: what a replay leaves behind. */
static qx_status remember_ends(qx_exec *x, qx_dev_plan *p)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < x->n_values; i++) n += x->info[i].keep && x->slots[i].set && x->slots[i].t.on_device;
    qx_free(x->ctx, p->ends);
    p->ends = NULL;
    QX_TRY(qx_alloc_array(x->ctx, (size_t)n + 1, sizeof *p->ends, (void **)&p->ends));
    p->n_ends = 0;
    for (uint32_t i = 0; i < x->n_values; i++)
        if (x->info[i].keep && x->slots[i].set && x->slots[i].t.on_device)
            p->ends[p->n_ends++] = (qx_dev_end){i, x->slots[i].t, x->slots[i].dev->data};
    return QX_OK;
}

static qx_status place_ends(qx_exec *x, const qx_dev_plan *p)
{
    for (int64_t i = 0; i < p->n_ends; i++) {
        qx_dblock *b = NULL;
        QX_TRY(QX_NEW(x->ctx, &b));
        *b = (qx_dblock){.refs = 1, .data = p->ends[i].data, .arena = true, .record = -1};
        set_output(x, p->ends[i].id, &p->ends[i].t, b);
    }
    return QX_OK;
}

static qx_status record_run(qx_exec *x, qx_dev_plan *p)
{
    qx_gpu *d = x->device;
    const qx_dev_status begun = d->b->capture_begin(d->dev);
    if (begun == QX_DEV_UNSUPPORTED) { /* one by one, then */
        d->no_graphs = true;
        return qx_run_graph(x, x->main, NULL);
    }
    d->unrecordable = true; /* until it is known better */
    QX_TRY(qx_device_status(x, begun, "record"));
    qx_status st = qx_run_graph(x, x->main, NULL);
    if (st == QX_OK) st = remember_ends(x, p);
    if (st != QX_OK) {
        d->b->capture_end(d->dev, NULL);
        return st;
    }
    QX_TRY(qx_device_status(x, d->b->capture_end(d->dev, &p->graph), "record"));
    d->unrecordable = false;
    st = qx_device_status(x, d->b->replay(d->dev, p->graph), "replay");
    if (d->replay && !d->host_touches) return st;
    d->b->drop_graph(d->dev, p->graph); /* the run went another way than those before: good for this time only */
    p->graph = NULL;
    p->steady = false;
    return st;
}

/* Dims that follow from the content of a feed (how long a cache becomes) may be others than those of the recording. */
static qx_status drop_if_reshaped(qx_exec *x, qx_dev_plan *p)
{
    bool hold;
    QX_TRY(qx_device_dims_hold(x, &hold));
    if (hold) return QX_OK;
    x->device->b->drop_graph(x->device->dev, p->graph);
    p->graph = NULL;
    p->steady = false;
    return QX_OK;
}

static qx_status run_main(qx_exec *x)
{
    qx_gpu *d = x->device;
    qx_dev_plan *p = x->cur->dev;
    bool whole = d->b->capture_begin && !d->no_graphs && d->n_steps && !wants_every_step(x);
    if (whole && p->graph && d->reshaping) QX_TRY(drop_if_reshaped(x, p));
    if (whole && p->graph) {
        QX_TRY(qx_device_status(x, d->b->replay(d->dev, p->graph), "replay"));
        return place_ends(x, p);
    }
    if (whole && p->steady) return record_run(x, p);
    QX_TRY(qx_run_graph(x, x->main, NULL));
    p->steady = d->replay && !d->host_touches;
    if (!d->changing && !d->reshaping) { /* compiled for good */
        qx_infer_free(p->infer);
        p->infer = NULL;
    }
    return QX_OK;
}

bool qx_device_run_again(qx_exec *x)
{
    qx_gpu *d = x->device;
    if (!d || !d->unrecordable) return false;
    d->unrecordable = false;
    d->no_graphs = true;
    qx_log(x->ctx, QX_LOG_WARN, "%s: runs are not recorded, they go step by step: %s", d->name, qx_ctx_error(x->ctx));
    qx_ctx_clear_error(x->ctx);
    return true;
}

qx_status qx_device_run_main(qx_exec *x) { return qx_device_gather(x, run_main(x)); }
