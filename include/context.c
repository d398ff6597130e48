/* context.c - context, tensors and conversions of the public interface. */
#include <string.h>

#include "include/facade.h"

static void forward_log(void *user, qx_log_level level, const char *text)
{
    qonnx_ctx *c = user;
    if (c->log) c->log(c->user, (int)level, text);
}

static void forward_progress(void *user, const char *stage, int64_t done, int64_t total)
{
    qonnx_ctx *c = user;
    if (c->progress) c->progress(c->user, stage, done, total);
}

qonnx_code qx_code(qx_status st)
{
    return (qonnx_code)qx_status_exit_code(st);
}

const char *qonnx_version(void)
{
    return QONNX_VERSION;
}

qonnx_ctx *qonnx_open(void)
{
    qx_ctx *boot = qx_ctx_new(NULL);
    if (!boot) return NULL;
    qonnx_ctx *c = NULL;
    if (qx_alloc(boot, sizeof *c, (void **)&c) != QX_OK) {
        qx_ctx_free(boot);
        return NULL;
    }
    c->qx = boot;
    c->text = (qx_buf)QX_BUF_INIT(boot);
    qx_ctx_configure(boot, &(qx_ctx_options){.log = forward_log, .progress = forward_progress, .user = c});
    return c;
}

void qonnx_close(qonnx_ctx *c)
{
    if (!c) return;
    qx_ctx *qx = c->qx;
    qx_buf_free(&c->text);
    qx_free(qx, c);
    qx_ctx_free(qx);
}

const char *qonnx_error(const qonnx_ctx *c)
{
    return qx_ctx_error(c->qx);
}

static void apply(qonnx_ctx *c)
{
    c->opt.log = forward_log;
    c->opt.progress = forward_progress;
    c->opt.user = c;
    c->opt.cancel = c->cancel;
    qx_ctx_configure(c->qx, &c->opt);
}

void qonnx_set_log(qonnx_ctx *c, qonnx_log_fn *log, qonnx_progress_fn *progress, void *user)
{
    c->log = log;
    c->progress = progress;
    c->user = user;
}

void qonnx_set_cancel(qonnx_ctx *c, const volatile int *flag)
{
    c->cancel = flag;
    apply(c);
}

qonnx_code qonnx_set_threads(qonnx_ctx *c, int threads)
{
    if (threads < 0 || threads > 4096) return qx_code(qx_fail(c->qx, QX_E_USAGE, "threads: %d is not in [0, 4096]", threads));
    c->opt.threads = threads;
    apply(c);
    return QONNX_OK;
}

qonnx_code qonnx_set_max_memory(qonnx_ctx *c, int64_t bytes)
{
    if (bytes < 0) return qx_code(qx_fail(c->qx, QX_E_USAGE, "max memory: %lld is negative", (long long)bytes));
    c->opt.max_memory = (size_t)bytes;
    apply(c);
    return QONNX_OK;
}

int64_t qonnx_tensor_numel(const qonnx_tensor *t)
{
    int64_t n = 1;
    if (t->rank < 0 || t->rank > QONNX_MAX_RANK) return -1;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] < 0 || __builtin_mul_overflow(n, t->dims[i], &n)) return -1;
    return n;
}

qonnx_code qonnx_to_float(qonnx_ctx *c, int dtype, const void *src, int64_t n, float *dst)
{
    if (n >= 0 && qx_to_f32(dtype, src, n, dst)) return QONNX_OK;
    return qx_code(qx_fail(c->qx, QX_E_TYPE, "cannot convert %lld elements of type %s to float", (long long)n, qx_dtype_get(dtype)->name));
}

qonnx_code qonnx_from_float(qonnx_ctx *c, int dtype, const float *src, int64_t n, void *dst)
{
    if (n >= 0 && qx_from_f32(dtype, src, n, dst)) return QONNX_OK;
    return qx_code(qx_fail(c->qx, QX_E_TYPE, "cannot convert %lld floats to type %s", (long long)n, qx_dtype_get(dtype)->name));
}

qx_status qx_borrow(qonnx_ctx *c, const qonnx_tensor *in, qx_tensor *out)
{
    if (in->rank < 0 || in->rank > QX_MAX_RANK)
        QX_FAIL(c->qx, QX_E_SHAPE, "tensor '%s': rank %d is not in [0, %d]", in->name ? in->name : "", in->rank, QX_MAX_RANK);
    memset(out, 0, sizeof *out);
    QX_TRY(qx_tensor_shape(c->qx, out, (qx_dtype)in->dtype, in->rank, in->dims));
    if (!in->data && out->numel)
        QX_FAIL(c->qx, QX_E_USAGE, "tensor '%s': %lld elements but no data", in->name ? in->name : "", (long long)out->numel);
    out->data = (void *)(uintptr_t)in->data; /* borrowed: the executor only reads feeds */
    return QX_OK;
}

void qx_lend(const qx_tensor *in, const char *name, qonnx_tensor *out)
{
    memset(out, 0, sizeof *out);
    out->name = name;
    out->dtype = (int)in->dtype;
    out->rank = in->rank;
    for (int i = 0; i < in->rank; i++) out->dims[i] = in->dims[i];
    out->data = in->data;
}
