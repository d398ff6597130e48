/* mock.c - a plugin without a device, for tests of the loader and of the protocol. Built several times: MOCK_KIND says what is
 * wrong with it.
 *
 * Device memory is mapped without access and opened only inside the plugin's functions, so that a host that touches it crashes;
 * released memory is unmapped. A recording is a list of the calls. It knows Add of equal shapes, Relu, MatMul of matrices,
 * Reshape (as a view), all of float. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/backend.h"

enum { GOOD, OTHER_ABI, OTHER_SIZE, REFUSES, NO_DEVICE, SMALL_MEMORY, NO_RECORDING };
#ifndef MOCK_KIND
#define MOCK_KIND GOOD
#endif
enum { MOST_BLOCKS = 4096, MOST_CALLS = 256 };

typedef struct block { void *p; size_t bytes; } block;
struct qx_dev_step { char op[32]; };
typedef struct call { qx_dev_step *step; qx_dev_tensor in[4], out[1]; } call;
struct qx_dev_graph { call calls[MOST_CALLS]; int n; };
struct qx_dev { char text[200]; block blocks[MOST_BLOCKS]; size_t used; bool recording; qx_dev_graph *graph; };

static void access_all(qx_dev *d, int prot)
{
    for (int i = 0; i < MOST_BLOCKS; i++)
        if (d->blocks[i].p) mprotect(d->blocks[i].p, d->blocks[i].bytes, prot);
}

static qx_dev_status fail(qx_dev *d, qx_dev_status st, const char *text)
{
    snprintf(d->text, sizeof d->text, "%s", text);
    return st;
}

static qx_dev_status mock_open(int32_t index, qx_dev **out, char *text, size_t cap)
{
    *out = NULL;
    if (MOCK_KIND == NO_DEVICE || index > 1) {
        snprintf(text, cap, "no device %d: the mock has none", index);
        return QX_DEV_FAILED;
    }
    *out = calloc(1, sizeof **out);
    return *out ? QX_DEV_OK : QX_DEV_NOMEM;
}

static void mock_close(qx_dev *d)
{
    size_t left = 0;
    for (int i = 0; i < MOST_BLOCKS; i++) left += d->blocks[i].p != NULL;
    if (left) fprintf(stderr, "mock: %zu blocks were not released\n", left), abort();
    free(d);
}

static qx_dev_status mock_info(qx_dev *d, qx_dev_info *out)
{
    *out = (qx_dev_info){.memory_total = 1u << 30, .memory_free = (1u << 30) - d->used};
    snprintf(out->name, sizeof out->name, "mock");
    return QX_DEV_OK;
}

static const char *mock_error(qx_dev *d) { return d->text; }

static qx_dev_status mock_alloc(qx_dev *d, size_t bytes, void **out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    int i = 0;
    while (i < MOST_BLOCKS && d->blocks[i].p) i++;
    if (i == MOST_BLOCKS || (MOCK_KIND == SMALL_MEMORY && d->used + whole > 4 * page)) return fail(d, QX_DEV_NOMEM, "full");
    void *p = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return fail(d, QX_DEV_NOMEM, "mmap");
    d->blocks[i] = (block){p, whole};
    d->used += whole;
    *out = p;
    return QX_DEV_OK;
}

static void mock_release(qx_dev *d, void *p)
{
    for (int i = 0; i < MOST_BLOCKS; i++)
        if (d->blocks[i].p == p) {
            munmap(p, d->blocks[i].bytes);
            d->used -= d->blocks[i].bytes;
            d->blocks[i].p = NULL;
            return;
        }
    abort(); /* released twice, or never allocated */
}

static qx_dev_status copy(qx_dev *d, void *to, const void *from, size_t bytes)
{
    access_all(d, PROT_READ | PROT_WRITE);
    memcpy(to, from, bytes);
    access_all(d, PROT_NONE);
    return QX_DEV_OK;
}

static qx_dev_status mock_upload(qx_dev *d, void *to, const void *from, size_t bytes)
{
    if (d->recording) abort(); /* a recording holds kernels only */
    return copy(d, to, from, bytes);
}

static qx_dev_status mock_download(qx_dev *d, void *to, const void *from, size_t bytes)
{
    if (d->recording) abort();
    return copy(d, to, from, bytes);
}

static qx_dev_status mock_sync(qx_dev *d) { return d->recording ? QX_DEV_FAILED : QX_DEV_OK; }

static qx_dev_status mock_place(qx_dev *d, const qx_dev_node *n, const qx_dev_tensor *in, qx_dev_place *out)
{
    static const char *const known[] = {"Add", "Relu", "MatMul", "Reshape"};
    *out = (qx_dev_place){0};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(n->op, known[i]) && in[0].dtype == 1) {
            out->view = i == 3;
            out->host_in = i == 3 ? 2u : 0u;
            return QX_DEV_OK;
        }
    return fail(d, QX_DEV_UNSUPPORTED, "the mock does not know it");
}

static qx_dev_status mock_compile(qx_dev *d, const qx_dev_node *n, const qx_dev_tensor *in, const qx_dev_tensor *out, qx_dev_step **step,
                                  size_t *workspace)
{
    if (!strcmp(n->op, "Add") && in[0].numel != in[1].numel) return fail(d, QX_DEV_BAD_SHAPE, "the mock adds equal shapes only");
    *step = calloc(1, sizeof **step);
    snprintf((*step)->op, sizeof (*step)->op, "%s", n->op);
    *workspace = !strcmp(n->op, "MatMul") ? out[0].bytes : 0;
    return QX_DEV_OK;
}

static void compute(const call *c)
{
    const float *a = c->in[0].data, *b = c->in[1].data;
    float *y = c->out[0].data;
    int64_t n = c->out[0].numel;
    if (c->step->op[0] == 'A')
        for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
    else if (c->step->op[0] == 'R')
        for (int64_t i = 0; i < n; i++) y[i] = a[i] > 0 ? a[i] : 0;
    else
        for (int64_t i = 0; i < n; i++) {
            int64_t cols = c->in[1].dims[1], k = c->in[1].dims[0];
            float s = 0;
            for (int64_t j = 0; j < k; j++) s += a[i / cols * k + j] * b[j * cols + i % cols];
            y[i] = s;
        }
}

static qx_dev_status mock_run(qx_dev *d, qx_dev_step *step, const qx_dev_tensor *in, const qx_dev_tensor *out, void *workspace)
{
    call c = {.step = step, .in = {in[0]}, .out = {out[0]}};
    if (step->op[0] != 'R') c.in[1] = in[1];
    if ((step->op[0] == 'M') != (workspace != NULL)) abort();
    if (d->recording) {
        if (d->graph->n == MOST_CALLS) return fail(d, QX_DEV_FAILED, "recording is full");
        d->graph->calls[d->graph->n++] = c;
        return QX_DEV_OK;
    }
    access_all(d, PROT_READ | PROT_WRITE);
    compute(&c);
    access_all(d, PROT_NONE);
    return QX_DEV_OK;
}

static const char *mock_kernel(const qx_dev_step *step) { return step->op; }
static const char *mock_why(const qx_dev_step *step) { return step->op[0] == 'M' ? "the mock has no library" : NULL; }

static qx_dev_status mock_mark(qx_dev *d, uint32_t index) { return (void)d, index < 2 ? QX_DEV_OK : QX_DEV_FAILED; }

static qx_dev_status mock_elapsed(qx_dev *d, uint32_t from, uint32_t to, double *seconds)
{
    (void)d;
    *seconds = from == 0 && to == 1 ? 0.25 : -1;
    return QX_DEV_OK;
}

static void mock_drop(qx_dev *d, qx_dev_step *step)
{
    (void)d;
    free(step);
}

static qx_dev_status mock_capture_begin(qx_dev *d)
{
    d->graph = calloc(1, sizeof *d->graph);
    d->recording = true;
    return d->graph ? QX_DEV_OK : QX_DEV_NOMEM;
}

static qx_dev_status mock_capture_end(qx_dev *d, qx_dev_graph **out)
{
    d->recording = false;
    if (out && MOCK_KIND != NO_RECORDING) {
        *out = d->graph;
        return QX_DEV_OK;
    }
    free(d->graph);
    return out ? fail(d, QX_DEV_FAILED, "the mock records nothing") : QX_DEV_OK;
}

static qx_dev_status mock_replay(qx_dev *d, qx_dev_graph *g)
{
    access_all(d, PROT_READ | PROT_WRITE);
    for (int i = 0; i < g->n; i++) compute(&g->calls[i]);
    access_all(d, PROT_NONE);
    return QX_DEV_OK;
}

static void mock_drop_graph(qx_dev *d, qx_dev_graph *g)
{
    (void)d;
    free(g);
}

static const qx_backend table = {
    .abi = MOCK_KIND == OTHER_ABI ? QX_BACKEND_ABI + 1 : QX_BACKEND_ABI,
    .struct_size = sizeof table - (MOCK_KIND == OTHER_SIZE ? 8 : 0),
    .name = "mock", .open = mock_open, .close = mock_close, .info = mock_info, .error = mock_error, .alloc = mock_alloc,
    .release = mock_release,
    .upload = mock_upload, .download = mock_download, .sync = mock_sync, .place = mock_place, .compile = mock_compile, .run = mock_run,
    .drop = mock_drop,
    .kernel = mock_kernel, .why = mock_why, .mark = mock_mark, .elapsed = mock_elapsed,
    .capture_begin = mock_capture_begin, .capture_end = mock_capture_end, .replay = mock_replay, .drop_graph = mock_drop_graph,
};

__attribute__((visibility("default"))) const qx_backend *qonnx_backend(uint32_t abi);
const qx_backend *qonnx_backend(uint32_t abi) { return MOCK_KIND == REFUSES || abi != QX_BACKEND_ABI ? NULL : &table; }
