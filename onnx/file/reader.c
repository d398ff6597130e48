/* reader.c - model files in: store, wire scan, IR, checks. Structure only; what weights hold is read when somebody needs it. */
#include <string.h>

#include "onnx/edit.h"
#include "onnx/file/store.h"

qx_status qx_model_new(qx_ctx *ctx, const char *path, qx_model **out)
{
    qx_arena *arena = NULL;
    qx_status st;
    QX_TRY(qx_arena_new(ctx, &arena));
    qx_model *m = qx_arena_alloc(arena, sizeof *m);
    if (!m) {
        qx_arena_free(arena);
        return QX_E_NOMEM;
    }
    m->ctx = ctx;
    m->arena = arena;
    QX_TRY_GOTO(st, qx_strings_new(ctx, &m->names));
    m->store = qx_arena_alloc(arena, sizeof *m->store);
    if (path) m->path = qx_arena_strdup(arena, path);
    st = m->store && (m->path || !path) ? QX_OK : QX_E_NOMEM;
    if (st == QX_OK) m->store->ctx = ctx;
done:
    if (st == QX_OK) *out = m;
    else qx_model_free(m);
    return st;
}

void qx_model_free(qx_model *m)
{
    if (!m) return;
    qx_model_drop_graphs(m);
    qx_store_free(m->store);
    if (m->names) qx_strings_free(m->names);
    qx_arena_free(m->arena);
}

static qx_status fix_order(qx_model *m)
{
    int64_t moved;
    QX_TRY(qx_sort_nodes(m, &moved));
    if (moved) qx_warn(m->ctx, "nodes are not sorted: %lld that others need were moved before them", (long long)moved);
    return QX_OK;
}

static const char *const contrib = "com.microsoft";

static qx_status is_contrib(void *user, qx_node *n)
{
    bool *found = user;
    *found = *found || strcmp(n->domain, contrib) == 0;
    return QX_OK;
}

/* NNCF writes MatMulNBits without importing its domain, and ONNX Runtime, whose domain it is, loads such files. It has one version only. */
static qx_status import_contrib(qx_model *m)
{
    bool found = false;
    if (qx_graph_opset(m->graph, contrib)) return QX_OK;
    QX_TRY(qx_model_each_node(m, is_contrib, &found));
    if (!found) return QX_OK;
    qx_warn(m->ctx, "the model has operators of domain '%s' and does not import it: version 1 is meant", contrib);
    return qx_model_set_opset(m, contrib, 1);
}

static qx_status build(qx_model *m, const char *name)
{
    qx_store *s = m->store;
    const qx_wire_src src = {s->model_file, s->mem, s->model_file ? qx_file_size(s->model_file) : s->mem_size, name};
    ProtobufCMessage *msg = NULL;
    QX_TRY(qx_wire_read(m->ctx, &src, &onnx__model_proto__descriptor, m->arena, &msg, &s->spans, &s->n_spans));
    m->wire = msg;
    QX_TRY(qx_build_model(m, (Onnx__ModelProto *)msg));
    QX_TRY(qx_store_check_overlaps(m));
    if (s->opt.skip_check) return QX_OK;
    if (!s->opt.strict) QX_TRY(import_contrib(m));
    if (s->opt.fix_order) QX_TRY(fix_order(m));
    QX_TRY(qx_check(m, s->opt.strict));
    QX_TRY(qx_infer_shapes(m, NULL, 0));
    return qx_arena_status(m->arena); /* a shape that was lost for want of memory is not one that could not be known */
}

qx_status qx_model_read(qx_ctx *ctx, const char *path, const qx_read_options *opt, qx_model **out)
{
    qx_model *m = NULL;
    QX_TRY(qx_model_new(ctx, path, &m));
    qx_status st = qx_store_open_model(m, path, opt);
    if (st == QX_OK) st = build(m, path);
    if (st == QX_OK) *out = m;
    else qx_model_free(m);
    return st;
}

qx_status qx_model_read_bytes(qx_ctx *ctx, const void *bytes, size_t n, const char *base_dir, const qx_read_options *opt, qx_model **out)
{
    qx_model *m = NULL;
    QX_TRY(qx_model_new(ctx, NULL, &m));
    qx_status st = qx_store_set_memory(m, bytes, n, base_dir, opt);
    if (st == QX_OK) st = build(m, "model in memory");
    if (st == QX_OK) *out = m;
    else qx_model_free(m);
    return st;
}

/* `mem` lives in the arena: small payloads are used where they lie. */
static qx_status parse_tensor(qx_ctx *ctx, qx_arena *arena, const uint8_t *mem, int64_t size, const char *what, qx_weight **out)
{
    qx_model shell = {.ctx = ctx, .arena = arena}; /* only what a weight needs */
    qx_store store = {.ctx = ctx, .mem = mem, .mem_size = size};
    const qx_wire_src src = {NULL, mem, size, what};
    ProtobufCMessage *msg = NULL;
    qx_status st;
    shell.store = &store;
    QX_TRY_GOTO(st, qx_strings_new(ctx, &shell.names));
    QX_TRY_GOTO(st, qx_wire_read(ctx, &src, &onnx__tensor_proto__descriptor, arena, &msg, &store.spans, &store.n_spans));
    QX_TRY_GOTO(st, qx_weight_from_proto(&shell, (Onnx__TensorProto *)msg, out));
    (*out)->name = qx_arena_strdup(arena, (*out)->name); /* the name table goes */
    st = (*out)->name ? QX_OK : QX_E_NOMEM;
done:
    if (shell.names) qx_strings_free(shell.names);
    return st;
}

qx_status qx_tensor_pb_parse(qx_ctx *ctx, qx_arena *arena, const void *bytes, size_t n, qx_weight **out)
{
    uint8_t *mem = n ? qx_arena_memdup(arena, bytes, n) : qx_arena_alloc(arena, 1);
    return mem ? parse_tensor(ctx, arena, mem, (int64_t)n, "tensor in memory", out) : QX_E_NOMEM;
}

qx_status qx_tensor_pb_read(qx_ctx *ctx, qx_arena *arena, const char *path, qx_weight **out)
{
    enum { CAP = 1 << 30 };
    qx_file *f = NULL;
    QX_TRY(qx_store_open_regular(ctx, path, "tensor file", &f));
    const int64_t size = qx_file_size(f);
    uint8_t *mem = NULL;
    qx_status st = size > CAP ? qx_fail(ctx, QX_E_FORMAT, "tensor file '%s' has %lld bytes, more than %d", path, (long long)size, CAP)
        : QX_OK;
    if (st == QX_OK) st = (mem = qx_arena_alloc(arena, (size_t)size + 1)) ? qx_file_read(f, 0, (size_t)size, mem) : QX_E_NOMEM;
    qx_file_close(f);
    return st == QX_OK ? parse_tensor(ctx, arena, mem, size, path, out) : st;
}
