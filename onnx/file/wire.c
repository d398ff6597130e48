/* wire.c - unpacking a skeleton with protobuf-c into an arena. The scan has checked everything, so a failure here is memory. */
#include "onnx/file/wire.h"

typedef struct pool { qx_arena *arena; bool failed; } pool;

static void *pool_alloc(void *user, size_t size)
{
    pool *p = user;
    void *mem = qx_arena_alloc(p->arena, size);
    if (!mem) p->failed = true;
    return mem;
}

/* Only its lists of the fields it has seen, which are long for a graph, are worth giving back. */
static void pool_free(void *user, void *mem)
{
    qx_arena_release(((pool *)user)->arena, mem);
}

static qx_status unpack(qx_ctx *ctx, const qx_wire_src *src, const ProtobufCMessageDescriptor *root, qx_arena *arena,
                        const qx_skeleton *sk, ProtobufCMessage **msg)
{
    pool p = {arena, false};
    ProtobufCAllocator a = {pool_alloc, pool_free, &p};
    *msg = protobuf_c_message_unpack(root, &a, sk->len, (const uint8_t *)(sk->bytes ? sk->bytes : ""));
    if (*msg) return QX_OK;
    if (p.failed) QX_FAIL(ctx, QX_E_NOMEM, "%s: no memory for its %zu bytes of graph", src->name, sk->len);
    QX_FAIL(ctx, QX_E_FORMAT, "%s: protobuf-c refuses a %s of %zu bytes", src->name, root->short_name, sk->len);
}

qx_status qx_wire_read(qx_ctx *ctx, const qx_wire_src *src, const ProtobufCMessageDescriptor *root, qx_arena *arena,
                       ProtobufCMessage **msg, qx_span **spans, int64_t *n_spans)
{
    qx_skeleton sk;
    QX_TRY(qx_skim(ctx, src, root, arena, &sk));
    if (sk.invalid_utf8) qx_warn(ctx, "%s: %lld strings are not valid UTF-8", src->name, (long long)sk.invalid_utf8);
    const qx_status st = unpack(ctx, src, root, arena, &sk, msg);
    qx_free(ctx, sk.bytes);
    *spans = sk.spans;
    *n_spans = sk.n_spans;
    return st;
}
