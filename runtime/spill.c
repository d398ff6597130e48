/* spill.c - what is alive between two steps of the main graph, in a file: for a run that goes on there later. */
#include <string.h>

#include "base/spool.h"
#include "runtime/plan.h"

typedef struct spilled { uint32_t id; qx_tensor t; } spilled; /* followed by the tensor's bytes; id QX_NO_VALUE ends a sample */

/* Everything that later steps need of this sample and that its feeds and the constants do not bring back. */
qx_status qx_spill_save(qx_exec *x, qx_spool *s)
{
    spilled h;
    memset(&h, 0, sizeof h);
    for (uint32_t id = 0; id < x->n_values; id++) {
        const qx_slot *slot = &x->slots[id];
        if (!slot->set || slot->borrowed || x->info[id].content == QX_CLASS_CONST) continue;
        if (slot->owned)
            QX_FAIL(x->ctx, QX_E_UNSUPPORTED,
                    "layer by layer: a sequence, optional or string is alive between two stretches; raise --max-memory");
        h.id = id;
        h.t = slot->t;
        h.t.data = NULL;
        QX_TRY(qx_spool_put(s, &h, sizeof h));
        QX_TRY(qx_spool_put(s, slot->t.data, slot->t.bytes));
    }
    h.id = QX_NO_VALUE;
    return qx_spool_put(s, &h, sizeof h);
}

/* What a file says of a value: one that may lie there, of a size that its dims have. */
static qx_status check_spilled(const qx_exec *x, const spilled *h)
{
    qx_tensor t;
    const bool value = h->id < x->n_values && x->info[h->id].content != QX_CLASS_CONST && h->t.rank >= 0 && h->t.rank <= QX_MAX_RANK;
    if (!value || qx_tensor_shape(x->ctx, &t, h->t.dtype, h->t.rank, h->t.dims) != QX_OK || t.bytes != h->t.bytes || t.numel != h->t.numel)
        QX_FAIL(x->ctx, QX_E_FORMAT, "activations between two layers: value %u of %u does not look like one", h->id, x->n_values);
    return QX_OK;
}

qx_status qx_spill_load(qx_exec *x, qx_spool *s)
{
    spilled h;
    for (;;) {
        QX_TRY(qx_spool_get(s, &h, sizeof h));
        if (h.id == QX_NO_VALUE) return QX_OK;
        QX_TRY(check_spilled(x, &h));
        qx_slot *slot = &x->slots[h.id];
        qx_slot_clear(x, slot);
        QX_TRY(qx_block_new(x, h.t.bytes, QX_BLOCK_KEPT, &slot->block));
        slot->t = h.t;
        slot->t.data = slot->block->data;
        slot->set = true;
        QX_TRY(qx_spool_get(s, slot->t.data, h.t.bytes));
    }
}
