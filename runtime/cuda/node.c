/* node.c - what adapters share: attributes, arguments, shapes, steps. */
#include "runtime/cuda/node.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cu_refused(qx_dev *d, const char *format, ...)
{
    char text[CU_WHY]; /* an argument may be what was said before */
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    memcpy(d->why, text, strlen(text) + 1);
}

qx_status cu_step(cu_build *b, cu_run_fn *run, const void *args, size_t size)
{
    b->step->run = run;
    if (!b->step->kernel) b->step->kernel = "own";
    QX_TRY(qx_alloc(b->d->ctx, size, &b->step->args));
    memcpy(b->step->args, args, size);
    return QX_OK;
}

void cu_step_plan(cu_build *b, void *plan, void (*drop)(qx_dev *d, void *plan), const char *kernel)
{
    b->step->plan = plan;
    b->step->drop = drop;
    b->step->kernel = kernel;
}

qx_status cu_step_keep(cu_build *b, void *block)
{
    qx_dev_step *s = b->step;
    if (s->n_memory < (int)(sizeof s->memory / sizeof *s->memory)) {
        s->memory[s->n_memory++] = block;
        return QX_OK;
    }
    cu_release(b->d->m, block);
    QX_FAIL(b->d->ctx, QX_E_FAIL, "a step with more than %d blocks", s->n_memory);
}

qx_status cu_step_memory(cu_build *b, const void *from, size_t bytes, void **out)
{
    QX_TRY(cu_alloc(b->d->m, bytes ? bytes : 1, out));
    QX_TRY(cu_step_keep(b, *out));
    return from && bytes ? cu_upload(b->d->m, *out, from, bytes) : QX_OK;
}

const qx_dev_attr *cu_attr(const cu_build *b, const char *name)
{
    for (uint32_t i = 0; i < b->node->n_attrs; i++)
        if (strcmp(b->node->attrs[i].name, name) == 0) return &b->node->attrs[i];
    return NULL;
}

int64_t cu_int(const cu_build *b, const char *name, int64_t fallback)
{
    const qx_dev_attr *a = cu_attr(b, name);
    return a && a->kind == QX_DEV_INT ? a->i : fallback;
}

float cu_float(const cu_build *b, const char *name, float fallback)
{
    const qx_dev_attr *a = cu_attr(b, name);
    return a && a->kind == QX_DEV_FLOAT ? (float)a->f : fallback;
}

bool cu_is(const cu_build *b, const char *name, const char *text, bool fallback)
{
    const qx_dev_attr *a = cu_attr(b, name);
    return a && a->kind == QX_DEV_STRING ? strcmp(a->s, text) == 0 : fallback;
}

const int64_t *cu_ints(const cu_build *b, const char *name, int64_t *n)
{
    const qx_dev_attr *a = cu_attr(b, name);
    bool there = a && a->kind == QX_DEV_INTS;
    *n = there ? a->n : 0;
    return there ? a->ints : NULL;
}

bool cu_has(const cu_build *b, uint32_t i) { return i < b->node->n_in && b->in[i].dtype != 0; }

qx_status cu_list(const cu_build *b, const char *name, uint32_t i, int64_t list[64], int64_t *n)
{
    int64_t count;
    const int64_t *a = name ? cu_ints(b, name, &count) : NULL;
    *n = -1;
    if (a || cu_has(b, i)) *n = a ? count : b->in[i].numel;
    if (*n > 64) CU_BAD(b, "a list of %lld entries", (long long)*n);
    for (int64_t k = 0; k < *n; k++) {
        if (a) list[k] = a[k];
        else if (b->in[i].dtype == QX_DT_INT64) list[k] = ((const int64_t *)b->in[i].host)[k];
        else if (b->in[i].dtype == QX_DT_INT32) list[k] = ((const int32_t *)b->in[i].host)[k];
        else CU_BAD(b, "input %u is no list of integers", i);
    }
    return QX_OK;
}

bool cu_integer(int dtype)
{
    return dtype == QX_DT_BOOL || (dtype >= QX_DT_UINT8 && dtype <= QX_DT_INT64) || dtype == QX_DT_UINT32 || dtype == QX_DT_UINT64;
}

int cu_bytes(int dtype)
{
    int bits = qx_dtype_bits(dtype);
    return dtype == QX_DT_STRING || bits % 8 || bits > 64 ? 0 : bits / 8;
}

/* A type that is not known yet (0) passes: compile() looks again. */
qx_status cu_want_real(const cu_build *b, uint32_t i)
{
    if (i >= b->node->n_in) CU_NO(b, "input %u is missing", i);
    if (b->in[i].dtype && !cu_real(b->in[i].dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[i].dtype)->text);
    return QX_OK;
}

qx_status cu_want_plain(const cu_build *b, uint32_t i)
{
    if (i >= b->node->n_in) CU_NO(b, "input %u is missing", i);
    if (b->in[i].dtype && !cu_bytes(b->in[i].dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[i].dtype)->text);
    return QX_OK;
}

qx_status cu_host_in(const cu_build *b, uint32_t first, uint32_t last)
{
    for (uint32_t i = first; i <= last && i < b->node->n_in && i < 32; i++) b->place->host_in |= 1u << i;
    return QX_OK;
}

qx_status cu_axis(const cu_build *b, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= (rank ? rank : 1)) CU_BAD(b, "axis %lld of a tensor of rank %d", (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return QX_OK;
}

int64_t cu_prod(const int64_t *dims, int from, int to)
{
    int64_t p = 1;
    for (int i = from; i < to; i++) p *= dims[i];
    return p;
}

void cu_strides(const int64_t *dims, int rank, int64_t *strides)
{
    int64_t s = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = s;
        s *= dims[i];
    }
}

qx_status cu_broadcast(const cu_build *b, const qx_dev_tensor *t, const qx_dev_tensor *out, int64_t *strides)
{
    int64_t s = 1;
    int skip = out->rank - t->rank;
    if (skip < 0) CU_BAD(b, "rank %d does not broadcast to rank %d", t->rank, out->rank);
    for (int i = out->rank - 1; i >= 0; i--) {
        int64_t d = i < skip ? 1 : t->dims[i - skip];
        if (d != 1 && d != out->dims[i]) CU_BAD(b, "axis %d of %lld does not broadcast to %lld", i, (long long)d, (long long)out->dims[i]);
        strides[i] = d == 1 ? 0 : s;
        s *= d;
    }
    return QX_OK;
}

int cu_collapse(int rank, int64_t *dims, int n_ops, int64_t (*strides)[QK_RANK])
{
    int r = 0;
    for (int i = 0; i < rank; i++) {
        bool join = r > 0;
        if (dims[i] == 1) continue;
        for (int o = 0; join && o < n_ops; o++) join = strides[o][r - 1] == strides[o][i] * dims[i];
        if (join) {
            dims[r - 1] *= dims[i];
            for (int o = 0; o < n_ops; o++) strides[o][r - 1] = strides[o][i];
            continue;
        }
        int64_t d = dims[i];
        for (int o = 0; o < n_ops; o++) strides[o][r] = strides[o][i];
        dims[r++] = d;
    }
    if (r > 0) return r;
    dims[0] = 1;
    for (int o = 0; o < n_ops; o++) strides[o][0] = 0;
    return 1;
}
