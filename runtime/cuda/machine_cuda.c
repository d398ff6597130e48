/* machine_cuda.c - memory, queue and recordings over the CUDA runtime. One stream carries everything, so that order is the order
 * of the calls and no event is needed but for the two pinned buffers of uploads. Compiled, never run on a device: see
 * docs/gpu.md. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

#include "runtime/cuda/machine.h"

/* The runtime is linked in, and a runtime runs on every driver of its own major version and of later ones. */
enum { STAGES = 2, MARKS = 2, MIN_MAJOR = 8, MIN_DRIVER = CUDART_VERSION / 1000 * 1000 };
static const size_t stage_bytes = (size_t)16 << 20;

struct cu_machine {
    qx_ctx *ctx;
    int index;
    cudaStream_t stream;
    cudaMemPool_t pool;           /* NULL: this device or its driver has none (some virtual machines) */
    void *stage[STAGES];          /* pinned */
    cudaEvent_t empty[STAGES];    /* the copy out of it has been done */
    int next;
    cudaEvent_t marks[MARKS];
    struct cudaDeviceProp prop;
};

/* The runtime also remembers its last error, for whoever asks next: a launch (QK_LAUNCH) would take a refusal that is dealt with
 * here for its own. */
static qx_status fail(qx_ctx *ctx, cudaError_t e, const char *what)
{
    cudaGetLastError();
    QX_FAIL(ctx, e == cudaErrorMemoryAllocation ? QX_E_NOMEM : QX_E_FAIL, "%s: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
}

#define CU(m, call, what)                                          \
    do {                                                           \
        cudaError_t cu_e_ = (call);                                \
        if (cu_e_ != cudaSuccess) return fail((m)->ctx, cu_e_, what); \
    } while (0)

/* Each thing that keeps a device from being used has its own text. */
static qx_status usable(qx_ctx *ctx, int index, struct cudaDeviceProp *prop)
{
    int count = 0, driver = 0;
    cudaError_t e = cudaDriverGetVersion(&driver);
    if (e != cudaSuccess || driver == 0) QX_FAIL(ctx, QX_E_UNSUPPORTED, "no NVIDIA driver is installed");
    if (driver < MIN_DRIVER)
        QX_FAIL(ctx, QX_E_UNSUPPORTED,
                "the driver speaks CUDA %d.%d, %d.0 is needed, since this plugin was built with a toolkit of CUDA %d", driver / 1000,
                driver % 1000 / 10, MIN_DRIVER / 1000,
                                      CUDART_VERSION / 1000);
    e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess) QX_FAIL(ctx, QX_E_UNSUPPORTED, "%s", cudaGetErrorString(e));
    if (index >= count || count == 0) QX_FAIL(ctx, QX_E_UNSUPPORTED, "no device %d: there are %d", index, count);
    e = cudaGetDeviceProperties(prop, index);
    if (e != cudaSuccess) QX_FAIL(ctx, QX_E_UNSUPPORTED, "device %d: %s", index, cudaGetErrorString(e));
    if (prop->major < MIN_MAJOR)
        QX_FAIL(ctx, QX_E_UNSUPPORTED, "device %d (%.64s) has compute capability %d.%d, %d.0 is needed", index, prop->name, prop->major,
                prop->minor, MIN_MAJOR);
    return QX_OK;
}

static qx_status make(cu_machine *m)
{
    uint64_t keep = UINT64_MAX;
    int pools = 0;
    CU(m, cudaSetDevice(m->index), "select the device");
    CU(m, cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking), "make a stream");
    CU(m, cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, m->index), "memory pool");
    if (pools) {
        CU(m, cudaDeviceGetDefaultMemPool(&m->pool, m->index), "memory pool");
        /* freed blocks stay for the next run */
        CU(m, cudaMemPoolSetAttribute(m->pool, cudaMemPoolAttrReleaseThreshold, &keep), "memory pool");
    }
    for (int i = 0; i < STAGES; i++) {
        CU(m, cudaMallocHost(&m->stage[i], stage_bytes), "pinned buffer");
        CU(m, cudaEventCreateWithFlags(&m->empty[i], cudaEventDisableTiming), "event");
    }
    return QX_OK;
}

qx_status cu_machine_open(qx_ctx *ctx, int index, cu_machine **out)
{
    struct cudaDeviceProp prop;
    cu_machine *m = NULL;
    *out = NULL;
    if (index < 0) index = 0;
    QX_TRY(usable(ctx, index, &prop));
    QX_TRY(QX_NEW(ctx, &m));
    m->ctx = ctx;
    m->index = index;
    m->prop = prop;
    qx_status st = make(m);
    if (st == QX_OK) *out = m;
    else cu_machine_close(m);
    return st;
}

void cu_machine_close(cu_machine *m)
{
    if (m->stream) cudaStreamSynchronize(m->stream);
    for (int i = 0; i < STAGES; i++) {
        if (m->empty[i]) cudaEventDestroy(m->empty[i]);
        if (m->stage[i]) cudaFreeHost(m->stage[i]);
    }
    for (int i = 0; i < MARKS; i++)
        if (m->marks[i]) cudaEventDestroy(m->marks[i]);
    if (m->stream) cudaStreamDestroy(m->stream);
    if (m->pool) cudaMemPoolTrimTo(m->pool, 0);
    qx_free(m->ctx, m);
}

void cu_machine_info(cu_machine *m, qx_dev_info *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%.100s", m->prop.name);
    if (cudaMemGetInfo(&out->memory_free, &out->memory_total) != cudaSuccess) {
        out->memory_free = out->memory_total = 0;
        cudaGetLastError();
    }
    out->major = m->prop.major;
    out->minor = m->prop.minor;
    cudaDriverGetVersion(&out->driver);
    cudaRuntimeGetVersion(&out->runtime);
}

qk_queue cu_machine_queue(cu_machine *m) { return m->stream; }
void cu_machine_enter(cu_machine *m) { cudaSetDevice(m->index); }

qx_status cu_alloc(cu_machine *m, size_t bytes, void **out)
{
    *out = NULL;
    CU(m, m->pool ? cudaMallocAsync(out, bytes, m->stream) : cudaMalloc(out, bytes), "allocate");
    return QX_OK;
}

void cu_release(cu_machine *m, void *p)
{
    /* what is wrong with the device says the next call that can fail */
    if (p && (m->pool ? cudaFreeAsync(p, m->stream) : cudaFree(p)) != cudaSuccess) cudaGetLastError();
}

/* While one buffer is copied to the device, the other is filled. */
qx_status cu_upload(cu_machine *m, void *to, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        const size_t n = bytes - done < stage_bytes ? bytes - done : stage_bytes;
        const int s = m->next;
        m->next = (m->next + 1) % STAGES;
        CU(m, cudaEventSynchronize(m->empty[s]), "upload");
        memcpy(m->stage[s], (const char *)from + done, n);
        CU(m, cudaMemcpyAsync((char *)to + done, m->stage[s], n, cudaMemcpyHostToDevice, m->stream), "upload");
        CU(m, cudaEventRecord(m->empty[s], m->stream), "upload");
        done += n;
    }
    return QX_OK;
}

qx_status cu_download(cu_machine *m, void *to, const void *from, size_t bytes)
{
    CU(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, m->stream), "download");
    return cu_sync(m);
}

qx_status cu_pinned(cu_machine *m, size_t bytes, void **out)
{
    *out = NULL;
    CU(m, cudaMallocHost(out, bytes), "pinned buffer");
    return QX_OK;
}

void cu_unpin(cu_machine *m, void *p)
{
    (void)m;
    if (p) cudaFreeHost(p);
}

qx_status cu_download_later(cu_machine *m, void *to, const void *from, size_t bytes)
{
    CU(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, m->stream), "download");
    return QX_OK;
}

qx_status cu_zero(cu_machine *m, void *p, size_t bytes)
{
    CU(m, cudaMemsetAsync(p, 0, bytes, m->stream), "clear");
    return QX_OK;
}

qx_status cu_copy(cu_machine *m, void *to, const void *from, size_t bytes)
{
    CU(m, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, m->stream), "copy");
    return QX_OK;
}

qx_status cu_sync(cu_machine *m)
{
    CU(m, cudaStreamSynchronize(m->stream), "wait for the device");
    return QX_OK;
}

qx_status cu_launched(cu_machine *m, int error)
{
    CU(m, (cudaError_t)error, "launch a kernel");
    return QX_OK;
}

/* ---- marks ---- */

qx_status cu_mark(cu_machine *m, uint32_t index)
{
    cudaEvent_t *e = &m->marks[index % MARKS];
    if (!*e) CU(m, cudaEventCreate(e), "event");
    CU(m, cudaEventRecord(*e, m->stream), "mark");
    return QX_OK;
}

qx_status cu_elapsed(cu_machine *m, uint32_t from, uint32_t to, double *seconds)
{
    float ms = 0;
    CU(m, cudaEventSynchronize(m->marks[to % MARKS]), "wait for a mark");
    CU(m, cudaEventElapsedTime(&ms, m->marks[from % MARKS], m->marks[to % MARKS]), "time between marks");
    *seconds = (double)ms * 1e-3;
    return QX_OK;
}

/* ---- recordings ---- */

qx_status cu_capture_begin(cu_machine *m)
{
    CU(m, cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal), "record");
    return QX_OK;
}

/* Events that were recorded into a recording cannot be waited for: the pinned buffers get theirs anew. */
static void renew_events(cu_machine *m)
{
    for (int i = 0; i < STAGES; i++) cudaEventRecord(m->empty[i], m->stream);
}

qx_status cu_capture_end(cu_machine *m, void **graph)
{
    cudaGraph_t g = NULL;
    cudaGraphExec_t exec = NULL;
    if (graph) *graph = NULL;
    cudaError_t e = cudaStreamEndCapture(m->stream, &g);
    if (e == cudaSuccess && graph) e = cudaGraphInstantiate(&exec, g, 0);
    if (g) cudaGraphDestroy(g);
    renew_events(m);
    if (!graph) {
        cudaGetLastError(); /* a recording that is thrown away leaves no error behind */
        return QX_OK;
    }
    if (e != cudaSuccess) return fail(m->ctx, e, "record");
    *graph = exec;
    return QX_OK;
}

qx_status cu_replay(cu_machine *m, void *graph)
{
    CU(m, cudaGraphLaunch((cudaGraphExec_t)graph, m->stream), "replay");
    return QX_OK;
}

void cu_drop_graph(cu_machine *m, void *graph)
{
    (void)m;
    if (graph) cudaGraphExecDestroy((cudaGraphExec_t)graph);
}
