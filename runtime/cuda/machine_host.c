/* machine_host.c - plain memory in place of a device, for tests: see machine.h. Every block is a mapping of its own, filled with NaN: reading behind
 * a block, after its release or before anything was written shows. Recordings are not available: what they would replay are calls of functions. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/cuda/machine.h"

enum { MOST_BLOCKS = 1 << 16 };
typedef struct block { void *p; size_t bytes; } block;
struct cu_machine { qx_ctx *ctx; block *blocks; int n, cap; size_t used; };

qx_status cu_machine_open(qx_ctx *ctx, int index, cu_machine **out)
{
    *out = NULL;
    if (index > 0) QX_FAIL(ctx, QX_E_UNSUPPORTED, "no device %d: there is 1", index);
    QX_TRY(QX_NEW(ctx, out));
    (*out)->ctx = ctx;
    return QX_OK;
}

void cu_machine_close(cu_machine *m)
{
    for (int i = 0; i < m->n; i++) munmap(m->blocks[i].p, m->blocks[i].bytes);
    qx_free(m->ctx, m->blocks);
    qx_free(m->ctx, m);
}

void cu_machine_info(cu_machine *m, qx_dev_info *out)
{
    const size_t total = (size_t)64 << 30;
    *out = (qx_dev_info){.name = "host form of the kernels", .memory_total = total, .memory_free = total - m->used, .major = 9};
}

qk_queue cu_machine_queue(cu_machine *m) { return m; }
void cu_machine_enter(cu_machine *m) { (void)m; }

qx_status cu_alloc(cu_machine *m, size_t bytes, void **out)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    if (m->n == m->cap) {
        int cap = m->cap ? 2 * m->cap : 64;
        if (cap > MOST_BLOCKS) QX_FAIL(m->ctx, QX_E_NOMEM, "more than %d blocks", MOST_BLOCKS);
        QX_TRY(qx_regrow(m->ctx, (void **)&m->blocks, (size_t)m->cap * sizeof *m->blocks, (size_t)cap * sizeof *m->blocks));
        m->cap = cap;
    }
    void *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) QX_FAIL(m->ctx, QX_E_NOMEM, "mmap of %zu bytes", whole);
    memset(p, 0xcd, bytes); /* a NaN of every type: what is read before it is written shows */
    m->blocks[m->n++] = (block){p, whole};
    m->used += whole;
    *out = p;
    return QX_OK;
}

void cu_release(cu_machine *m, void *p)
{
    for (int i = 0; i < m->n; i++)
        if (m->blocks[i].p == p) {
            munmap(p, m->blocks[i].bytes);
            m->used -= m->blocks[i].bytes;
            m->blocks[i] = m->blocks[--m->n];
            return;
        }
}

static qx_status copy(void *to, const void *from, size_t bytes)
{
    if (bytes) memcpy(to, from, bytes);
    return QX_OK;
}

qx_status cu_upload(cu_machine *m, void *to, const void *from, size_t bytes) { return (void)m, copy(to, from, bytes); }
qx_status cu_download(cu_machine *m, void *to, const void *from, size_t bytes) { return (void)m, copy(to, from, bytes); }
qx_status cu_copy(cu_machine *m, void *to, const void *from, size_t bytes) { return (void)m, copy(to, from, bytes); }
qx_status cu_sync(cu_machine *m) { return (void)m, QX_OK; }

qx_status cu_zero(cu_machine *m, void *p, size_t bytes)
{
    (void)m;
    memset(p, 0, bytes);
    return QX_OK;
}

qx_status cu_launched(cu_machine *m, int error)
{
    if (error) QX_FAIL(m->ctx, QX_E_FAIL, "kernel error %d", error);
    return QX_OK;
}

qx_status cu_capture_begin(cu_machine *m) { QX_FAIL(m->ctx, QX_E_UNSUPPORTED, "the host form records nothing"); }
qx_status cu_capture_end(cu_machine *m, void **graph) { return (void)m, (void)graph, QX_OK; }
qx_status cu_replay(cu_machine *m, void *graph) { return (void)m, (void)graph, QX_OK; }
void cu_drop_graph(cu_machine *m, void *graph) { (void)m, (void)graph; }
