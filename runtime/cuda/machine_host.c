/* machine_host.c - plain memory in place of a device, for tests: see machine.h. Blocks come from the heap one by one, so that
 * sanitizers see every byte behind their ends, and are filled with something that shows. Recordings are not available: what they
 * would replay are calls of functions.
 *
 * Device 0 computes. Device 1 only looks: its addresses belong to nobody, so that whoever reads them on the host stops the
 * program, and its launches are held against a card's limits and not done. Models far larger than the host are gone through with
 * it, from placement over the memory plan to the last launch. */
#include <string.h>

#include "base/thread.h"
#include "kernels/cuda/grid.h"
#include "runtime/cuda/machine.h"

enum { MARKS = 2, DEVICES = 2 };
struct cu_machine { qk_host_queue queue; qx_ctx *ctx; uintptr_t next; double marks[MARKS]; }; /* next: address of device 1 */

qx_status cu_machine_open(qx_ctx *ctx, int index, cu_machine **out)
{
    *out = NULL;
    if (index >= DEVICES) QX_FAIL(ctx, QX_E_UNSUPPORTED, "no device %d: there are %d", index, DEVICES);
    QX_TRY(QX_NEW(ctx, out));
    (*out)->ctx = ctx;
    (*out)->queue.dry = index == 1;
    (*out)->next = (uintptr_t)1 << 44;
    return QX_OK;
}

void cu_machine_close(cu_machine *m) { qx_free(m->ctx, m); }

void cu_machine_info(cu_machine *m, qx_dev_info *out)
{
    const size_t total = (size_t)64 << 30;
    *out = (qx_dev_info){.name = "host form of the kernels", .memory_total = total, .memory_free = total - qx_mem_in_use(m->ctx),
                         .major = 9};
}

qk_queue cu_machine_queue(cu_machine *m) { return &m->queue; }
void cu_machine_enter(cu_machine *m) { (void)m; }

qx_status cu_alloc(cu_machine *m, size_t bytes, void **out)
{
    if (m->queue.dry) {
        *out = (void *)m->next;
        m->next += (bytes + 255) / 256 * 256;
        return QX_OK;
    }
    QX_TRY(qx_alloc_raw(m->ctx, bytes, out));
    memset(*out, 0xcd, bytes); /* a NaN or a wild index in every type: what is read before it is written shows */
    return QX_OK;
}

void cu_release(cu_machine *m, void *p)
{
    if (!m->queue.dry) qx_free(m->ctx, p);
}

static qx_status copy(const cu_machine *m, void *to, const void *from, size_t bytes)
{
    if (bytes && !m->queue.dry) memcpy(to, from, bytes);
    return QX_OK;
}

qx_status cu_upload(cu_machine *m, void *to, const void *from, size_t bytes) { return copy(m, to, from, bytes); }

qx_status cu_download(cu_machine *m, void *to, const void *from, size_t bytes)
{
    if (m->queue.dry) memset(to, 0, bytes);
    return copy(m, to, from, bytes);
}

qx_status cu_pinned(cu_machine *m, size_t bytes, void **out) { return qx_alloc_raw(m->ctx, bytes, out); }
void cu_unpin(cu_machine *m, void *p) { qx_free(m->ctx, p); }
qx_status cu_download_later(cu_machine *m, void *to, const void *from, size_t bytes) { return cu_download(m, to, from, bytes); }
qx_status cu_copy(cu_machine *m, void *to, const void *from, size_t bytes) { return copy(m, to, from, bytes); }
qx_status cu_sync(cu_machine *m) { return (void)m, QX_OK; }

qx_status cu_zero(cu_machine *m, void *p, size_t bytes)
{
    if (!m->queue.dry) memset(p, 0, bytes);
    return QX_OK;
}

qx_status cu_launched(cu_machine *m, int error)
{
    if (error) QX_FAIL(m->ctx, QX_E_FAIL, "kernel error %d", error);
    return QX_OK;
}

qx_status cu_mark(cu_machine *m, uint32_t index)
{
    m->marks[index % MARKS] = qx_clock_seconds();
    return QX_OK;
}

qx_status cu_elapsed(cu_machine *m, uint32_t from, uint32_t to, double *seconds)
{
    *seconds = m->marks[to % MARKS] - m->marks[from % MARKS];
    return QX_OK;
}

qx_status cu_capture_begin(cu_machine *m) { QX_FAIL(m->ctx, QX_E_UNSUPPORTED, "the host form records nothing"); }
qx_status cu_capture_end(cu_machine *m, void **graph) { return (void)m, (void)graph, QX_OK; }
qx_status cu_replay(cu_machine *m, void *graph) { return (void)m, (void)graph, QX_OK; }
void cu_drop_graph(cu_machine *m, void *graph) { (void)m, (void)graph; }
