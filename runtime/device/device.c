/* device.c - the device itself: opening it or saying why not, its memory, and copies to and from the host.
 *
 * Memory follows the same plan as on the CPU (runtime/memory.c): the first run with given input shapes takes blocks from the
 * plugin and records their lives; later runs replay the recording as offsets in one arena. Constants, and the device copies of
 * feeds and shape values, lie outside of it. */
#include "runtime/device/device.h"

#include <stdio.h>
#include <string.h>

#include "onnx/infer/infer.h"
#include "onnx/weight/weight.h"
#include "runtime/device/loader.h"

enum { DEVICE_ALIGN = 256 };

/* ---- Opening ---- */

qx_status qx_device_status(const qx_exec *x, qx_dev_status st, const char *doing)
{
    static const qx_status codes[] = {QX_OK, QX_E_FAIL, QX_E_UNSUPPORTED, QX_E_NOMEM, QX_E_SHAPE, QX_E_FAIL};
    const qx_gpu *d = x->device;
    if (st == QX_DEV_OK) return QX_OK;
    qx_status code = (unsigned)st < sizeof codes / sizeof *codes ? codes[st] : QX_E_FAIL;
    QX_FAIL(x->ctx, code, "%s: %s: %s", d->name, doing, d->b->error(d->dev));
}

static qx_status open_backend(qx_exec *x, const qx_backend *b)
{
    char why[512] = "no reason given";
    qx_gpu *d = NULL;
    qx_dev_info info;
    QX_TRY(QX_NEW(x->ctx, &d));
    d->b = b;
    d->budget = x->opt.max_device_memory;
    int32_t index = x->opt.device == QX_DEVICE_CUDA ? x->opt.device_index : -1;
    if (b->open(index, &d->dev, why, sizeof why) != QX_DEV_OK || !d->dev) {
        qx_free(x->ctx, d);
        QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "%s", why);
    }
    memset(&info, 0, sizeof info);
    b->info(d->dev, &info);
    snprintf(d->name, sizeof d->name, "%s:%d %s", b->name, index < 0 ? 0 : (int)index, info.name);
    if (*info.notes) qx_log(x->ctx, QX_LOG_WARN, "%s: %s", d->name, info.notes);
    x->device = d;
    return QX_OK;
}

qx_status qx_device_open(qx_exec *x)
{
    const qx_backend *b = NULL;
    bool installed = false;
    if (x->opt.device == QX_DEVICE_CPU) return QX_OK;
    /* nobody asked: no reason to map the vendor's libraries */
    if (x->opt.device == QX_DEVICE_AUTO && !x->opt.tell_device && !qx_plugin_driver()) return QX_OK;
    qx_status st = qx_plugin_load(x->ctx, x->opt.plugin_dir, &b, &installed);
    if (st == QX_OK) st = open_backend(x, b);
    if (st == QX_OK || st == QX_E_NOMEM) return st;
    if (x->opt.device == QX_DEVICE_CUDA) return qx_note(x->ctx, st, "device cuda");
    qx_log(x->ctx, x->opt.tell_device ? QX_LOG_INFO : QX_LOG_DEBUG, "device auto: the CPU, because %s", qx_ctx_error(x->ctx));
    qx_ctx_clear_error(x->ctx);
    return QX_OK;
}

void qx_device_free(qx_exec *x)
{
    qx_gpu *d = x->device;
    if (!d) return;
    while (d->free_blocks) {
        qx_dblock *b = d->free_blocks;
        d->free_blocks = b->next_free;
        qx_free(x->ctx, b);
    }
    qx_free(x->ctx, d->looks);
    if (d->arena) d->b->release(d->dev, d->arena);
    d->b->close(d->dev);
    qx_free(x->ctx, d);
    x->device = NULL;
}

/* ---- Blocks ---- */

static qx_status block_struct(qx_exec *x, qx_dblock **out)
{
    qx_gpu *d = x->device;
    if (!d->free_blocks) return QX_NEW(x->ctx, out);
    *out = d->free_blocks;
    d->free_blocks = (*out)->next_free;
    memset(*out, 0, sizeof **out);
    return QX_OK;
}

static qx_status record_alloc(qx_exec *x, size_t bytes, int64_t *index)
{
    qx_dev_plan *p = x->cur->dev;
    QX_TRY(qx_grow(x->ctx, (void **)&p->recs, p->n_recs, &p->cap_recs, sizeof *p->recs));
    p->recs[p->n_recs] = (qx_alloc_rec){.bytes = bytes, .born = x->device->clock++, .died = INT64_MAX};
    *index = p->n_recs++;
    return QX_OK;
}

static void *replay_alloc(qx_exec *x, size_t bytes)
{
    qx_gpu *d = x->device;
    const qx_dev_plan *p = x->cur->dev;
    if (d->alloc_i >= p->n_recs || p->recs[d->alloc_i].bytes != bytes) {
        d->replay = false;
        return NULL;
    }
    return (char *)d->arena + p->recs[d->alloc_i++].offset;
}

static qx_status device_alloc(qx_exec *x, size_t bytes, void **out)
{
    qx_gpu *d = x->device;
    qx_dev_info info;
    qx_dev_status st = d->b->alloc(d->dev, bytes ? bytes : 1, out);
    if (st == QX_DEV_OK) return QX_OK;
    memset(&info, 0, sizeof info);
    d->b->info(d->dev, &info);
    if (st != QX_DEV_NOMEM) return qx_device_status(x, st, "allocate");
    QX_FAIL(x->ctx, QX_E_NOMEM, "%s: %zu bytes asked for, %zu of %zu are free (%zu hold weights: --max-device-memory streams them)",
            d->name, bytes, info.memory_free,
            info.memory_total, d->resident);
}

qx_status qx_dblock_new(qx_exec *x, size_t bytes, bool keep, qx_dblock **out)
{
    qx_gpu *d = x->device;
    qx_dblock *b = NULL;
    qx_status st = QX_OK;
    QX_TRY(block_struct(x, &b));
    *b = (qx_dblock){.refs = 1, .bytes = bytes, .record = -1};
    if (!keep && d->replay) {
        b->data = replay_alloc(x, bytes);
        b->arena = b->data != NULL;
    }
    if (!b->data) st = device_alloc(x, bytes, &b->data);
    if (st == QX_OK && !keep && d->record) st = record_alloc(x, bytes, &b->record);
    if (st != QX_OK) {
        if (b->data && !b->arena) d->b->release(d->dev, b->data);
        qx_free(x->ctx, b);
        return st;
    }
    d->live += bytes;
    if (d->live > d->peak) d->peak = d->live;
    *out = b;
    return QX_OK;
}

void qx_dblock_release(qx_exec *x, qx_dblock *b)
{
    qx_gpu *d = x->device;
    if (!b || --b->refs > 0) return;
    d->live -= b->bytes;
    if (!b->arena) d->b->release(d->dev, b->data);
    if (b->record >= 0 && d->record) x->cur->dev->recs[b->record].died = d->clock++;
    b->next_free = d->free_blocks;
    d->free_blocks = b;
}

/* ---- Copies ---- */

qx_status qx_device_fetch(qx_exec *x, uint32_t id)
{
    qx_slot *s = &x->slots[id];
    qx_gpu *d = x->device;
    if (!s->set || !s->t.on_device) return QX_OK;
    QX_TRY(qx_block_new(x, s->t.bytes, QX_BLOCK_KEPT, &s->block));
    s->t.data = s->block->data;
    s->t.on_device = false;
    d->host_touches++;
    return s->t.bytes ? qx_device_status(x, d->b->download(d->dev, s->t.data, s->dev->data, s->t.bytes), "download") : QX_OK;
}

qx_status qx_device_copy_out(qx_exec *x, const qx_slot *s, qx_tensor *out)
{
    qx_gpu *d = x->device;
    QX_TRY(qx_tensor_new(x->ctx, out, s->t.dtype, s->t.rank, s->t.dims));
    qx_status st = out->bytes ? qx_device_status(x, d->b->download(d->dev, out->data, s->dev->data, out->bytes), "download") : QX_OK;
    if (st != QX_OK) qx_tensor_free(x->ctx, out);
    return st;
}

/* A block that lives as long as the shape plan, for a feed or a shape value. *fresh: its content has still to be uploaded. */
static qx_status kept_block(qx_exec *x, uint32_t id, size_t bytes, bool is_feed, qx_dblock **out, bool *fresh)
{
    qx_dblock **kept = &x->cur->dev->kept[id];
    *fresh = is_feed;
    if (*kept && (*kept)->bytes != bytes) {
        qx_dblock_release(x, *kept);
        *kept = NULL;
    }
    if (!*kept) {
        QX_TRY(qx_dblock_new(x, bytes, true, kept));
        *fresh = true;
    }
    (*kept)->refs++;
    *out = *kept;
    return QX_OK;
}

static qx_status send_block(qx_exec *x, const qx_value *v, qx_dblock **out, bool *fresh)
{
    qx_slot *s = &x->slots[v->id];
    qx_class content = x->info[v->id].content;
    *fresh = true;
    if (content == QX_CLASS_CONST) {
        QX_TRY(qx_dblock_new(x, s->t.bytes, QX_BLOCK_KEPT, out));
        x->device->resident += s->t.bytes;
        return QX_OK;
    }
    bool is_feed = !v->def && v->graph == x->main->graph;
    if (is_feed || content == QX_CLASS_SHAPE) return kept_block(x, v->id, s->t.bytes, is_feed, out, fresh);
    x->device->host_touches++;
    return qx_dblock_new(x, s->t.bytes, false, out);
}

qx_status qx_device_send(qx_exec *x, const qx_value *v)
{
    qx_slot *s = &x->slots[v->id];
    qx_gpu *d = x->device;
    qx_dblock *b = NULL;
    bool fresh;
    char text[96];
    if (s->dev) return QX_OK;
    QX_TRY(qx_const_load(x, v));
    if (!s->set) QX_FAIL(x->ctx, QX_E_FORMAT, "value '%s' has not been computed", v->name);
    if (s->t.is_sequence || s->t.is_optional || s->t.dtype == QX_DT_STRING)
        QX_FAIL(x->ctx, QX_E_UNSUPPORTED, "value '%s': %s cannot lie on a device", v->name, qx_tensor_describe(&s->t, text, sizeof text));
    if (!s->t.data && s->t.bytes) QX_FAIL(x->ctx, QX_E_FAIL, "value '%s' has no content on the host any more", v->name);
    QX_TRY(send_block(x, v, &b, &fresh));
    s->dev = b;
    return fresh && s->t.bytes ? qx_device_status(x, d->b->upload(d->dev, b->data, s->t.data, s->t.bytes), "upload") : QX_OK;
}

/* ---- Start of a run ---- */

static void drop_graphs(qx_exec *x)
{
    for (int i = 0; i < QX_SHAPE_PLANS; i++) {
        qx_dev_plan *p = x->plans[i].dev;
        if (!p || !p->graph) continue;
        x->device->b->drop_graph(x->device->dev, p->graph);
        p->graph = NULL;
    }
}

/* Recordings of runs hold addresses in the arena, so they go when it moves. */
static qx_status arena_grow(qx_exec *x, size_t bytes)
{
    qx_gpu *d = x->device;
    if (bytes <= d->arena_cap) return QX_OK;
    drop_graphs(x);
    if (d->arena) d->b->release(d->dev, d->arena);
    d->arena = NULL;
    d->arena_cap = 0;
    QX_TRY(device_alloc(x, bytes, &d->arena));
    d->arena_cap = bytes;
    return QX_OK;
}

static qx_status plan_new(qx_exec *x, qx_dev_plan **out)
{
    qx_dev_plan *p = NULL;
    QX_TRY(QX_NEW(x->ctx, &p));
    qx_status st = qx_alloc_array(x->ctx, x->main->n_steps + 1, sizeof *p->codes, (void **)&p->codes);
    if (st == QX_OK) st = qx_alloc_array(x->ctx, x->n_values + 1, sizeof *p->kept, (void **)&p->kept);
    if (st == QX_OK) *out = p;
    else qx_dev_plan_free(x, p);
    return st;
}

qx_status qx_device_start(qx_exec *x)
{
    qx_gpu *d = x->device;
    if (!x->cur->dev) QX_TRY(plan_new(x, &x->cur->dev));
    qx_dev_plan *p = x->cur->dev;
    d->record = !p->recs && !p->ready;
    d->replay = false;
    d->alloc_i = d->clock = d->host_touches = 0;
    d->peak = d->live;
    if (d->record) return QX_OK;
    if (!p->ready) p->ready = qx_records_pack(x->ctx, p->recs, p->n_recs, DEVICE_ALIGN, &p->arena_bytes);
    if (p->ready) QX_TRY(arena_grow(x, p->arena_bytes));
    d->replay = p->ready;
    for (uint32_t i = 0; i < x->main->graph->n_inputs; i++) /* now, because a recorded run does not upload */
        if (p->kept[x->main->graph->inputs[i]->id]) QX_TRY(qx_device_send(x, x->main->graph->inputs[i]));
    return QX_OK;
}
