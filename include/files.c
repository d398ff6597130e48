/* files.c - .npz files and tokenizers of the public interface. */
#include <string.h>

#include "base/buf.h"
#include "include/facade.h"

struct qonnx_npz { qonnx_ctx *ctx; qx_npz *z; qx_tensor *read; int count; };
struct qonnx_tokenizer { qonnx_ctx *ctx; qx_tokenizer *t; int64_t *ids; qx_buf text; };

qonnx_code qonnx_npz_open(qonnx_ctx *c, const char *path, qonnx_npz **out)
{
    qonnx_npz *n = NULL;
    *out = NULL;
    qx_ctx_clear_error(c->qx);
    qx_status st = qx_alloc(c->qx, sizeof *n, (void **)&n);
    if (st != QX_OK) return qx_code(st);
    n->ctx = c;
    st = qx_npz_open(c->qx, path, &n->z);
    if (st == QX_OK) n->count = qx_npz_count(n->z);
    if (st == QX_OK) st = qx_alloc_array(c->qx, (size_t)n->count + 1, sizeof *n->read, (void **)&n->read);
    if (st != QX_OK) {
        qonnx_npz_close(n);
        return qx_code(st);
    }
    *out = n;
    return QONNX_OK;
}

int qonnx_npz_count(const qonnx_npz *n)
{
    return n->count;
}

qonnx_code qonnx_npz_get(qonnx_npz *n, int i, qonnx_tensor *out)
{
    if (i < 0 || i >= n->count) return qx_code(qx_fail(n->ctx->qx, QX_E_USAGE, "npz: array %d of %d", i, n->count));
    if (!n->read[i].data) {
        qx_status st = qx_npz_read(n->z, i, &n->read[i]);
        if (st != QX_OK) return qx_code(st);
    }
    qx_lend(&n->read[i], qx_npz_name(n->z, i), out);
    return QONNX_OK;
}

void qonnx_npz_close(qonnx_npz *n)
{
    if (!n) return;
    qx_ctx *qx = n->ctx->qx;
    for (int i = 0; n->read && i < n->count; i++) qx_tensor_free(qx, &n->read[i]);
    qx_free(qx, n->read);
    if (n->z) qx_npz_close(n->z);
    qx_free(qx, n);
}

qonnx_code qonnx_npz_save(qonnx_ctx *c, const char *path, const qonnx_tensor *tensors, int n)
{
    const char **names = NULL;
    qx_tensor *list = NULL;
    qx_ctx_clear_error(c->qx);
    qx_status st = n < 0 ? qx_fail(c->qx, QX_E_USAGE, "npz: %d arrays", n) : QX_OK;
    if (st == QX_OK) st = qx_alloc_array(c->qx, (size_t)n + 1, sizeof *names, (void **)&names);
    if (st == QX_OK) st = qx_alloc_array(c->qx, (size_t)n + 1, sizeof *list, (void **)&list);
    for (int i = 0; st == QX_OK && i < n; i++) {
        names[i] = tensors[i].name;
        st = qx_borrow(c, &tensors[i], &list[i]);
    }
    if (st == QX_OK) st = qx_npz_write(c->qx, path, names, list, n);
    qx_free(c->qx, names);
    qx_free(c->qx, list);
    return qx_code(st);
}

qonnx_code qonnx_tokenizer_open(qonnx_ctx *c, const char *path, qonnx_tokenizer **out)
{
    qonnx_tokenizer *t = NULL;
    *out = NULL;
    qx_ctx_clear_error(c->qx);
    qx_status st = qx_alloc(c->qx, sizeof *t, (void **)&t);
    if (st != QX_OK) return qx_code(st);
    t->ctx = c;
    t->text = QX_BUF_INIT(c->qx);
    st = qx_tokenizer_open(c->qx, path, &t->t);
    if (st != QX_OK) {
        qonnx_tokenizer_close(t);
        return qx_code(st);
    }
    *out = t;
    return QONNX_OK;
}

qonnx_code qonnx_tokenizer_encode(qonnx_tokenizer *t, const char *text, const int64_t **ids, int64_t *n)
{
    qx_free(t->ctx->qx, t->ids);
    t->ids = NULL;
    qx_status st = qx_tokenizer_encode(t->t, text, strlen(text), &t->ids, n);
    *ids = t->ids;
    return qx_code(st);
}

qonnx_code qonnx_tokenizer_prefix(qonnx_tokenizer *t, const int64_t **ids, int64_t *n)
{
    *ids = qx_tokenizer_prefix(t->t, n);
    return QONNX_OK;
}

qonnx_code qonnx_tokenizer_decode(qonnx_tokenizer *t, const int64_t *ids, int64_t n, const char **text)
{
    qx_buf_clear(&t->text);
    qx_status st = qx_tokenizer_decode(t->t, ids, n, &t->text);
    *text = st == QX_OK && t->text.data ? t->text.data : "";
    return qx_code(st);
}

void qonnx_tokenizer_close(qonnx_tokenizer *t)
{
    if (!t) return;
    qx_ctx *qx = t->ctx->qx;
    qx_free(qx, t->ids);
    qx_buf_free(&t->text);
    if (t->t) qx_tokenizer_free(t->t);
    qx_free(qx, t);
}
