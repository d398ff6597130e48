/* machine.h - memory, queue and recordings of one device. Two implementations: machine_cuda.c over the CUDA runtime, and
 * machine_host.c, which is plain memory and for tests only: with it and the host form of the kernels (kernels/cuda/grid.h)
 * everything else of the plugin runs and is checked without a GPU. */
#ifndef QX_RUNTIME_CUDA_MACHINE_H
#define QX_RUNTIME_CUDA_MACHINE_H

#include "base/mem.h"
#include "kernels/cuda/kernels.h"
#include "runtime/backend.h"

typedef struct cu_machine cu_machine;
/* index -1: the first device. QX_E_UNSUPPORTED with a text: no driver, too old, no such device, too old a card. */
qx_status cu_machine_open(qx_ctx *ctx, int index, cu_machine **out);
void cu_machine_close(cu_machine *m);
void cu_machine_info(cu_machine *m, qx_dev_info *out);
qk_queue cu_machine_queue(cu_machine *m);
/* Makes the device current for the calling thread: first in every function of the interface, since callers may change threads. */
void cu_machine_enter(cu_machine *m);

/* QX_E_NOMEM when there is not enough. Aligned to 256. Both are in the order of the queue. */
qx_status cu_alloc(cu_machine *m, size_t bytes, void **out);
void cu_release(cu_machine *m, void *p);
/* From the host through two pinned buffers that take turns: `from` may change when it returns, the copy itself is in the queue. */
qx_status cu_upload(cu_machine *m, void *to, const void *from, size_t bytes);
qx_status cu_download(cu_machine *m, void *to, const void *from, size_t bytes); /* waits */
/* Memory of the host that the device writes to by itself, and a copy to it that nobody waits for. */
qx_status cu_pinned(cu_machine *m, size_t bytes, void **out);
void cu_unpin(cu_machine *m, void *p);
qx_status cu_download_later(cu_machine *m, void *to, const void *from, size_t bytes);
qx_status cu_zero(cu_machine *m, void *p, size_t bytes);
qx_status cu_copy(cu_machine *m, void *to, const void *from, size_t bytes);     /* on the device */
qx_status cu_sync(cu_machine *m);
/* What a launch function of kernels/cuda returned, as a status with a text. */
qx_status cu_launched(cu_machine *m, int error);

/* Marks in the queue and the time between two of them; there are two, indices 0 and 1. */
qx_status cu_mark(cu_machine *m, uint32_t index);
qx_status cu_elapsed(cu_machine *m, uint32_t from, uint32_t to, double *seconds);

qx_status cu_capture_begin(cu_machine *m);
qx_status cu_capture_end(cu_machine *m, void **graph); /* graph NULL: thrown away */
qx_status cu_replay(cu_machine *m, void *graph);
void cu_drop_graph(cu_machine *m, void *graph);

#endif
