/* wire.h - from a file to protobuf-c messages without ever holding the weights, and the contract between reader and IR.
 *
 * The scan (skim.c) walks the wire format iteratively, checks all of it, and copies it without the large tensor payloads into a skeleton
 * that protobuf-c unpacks into an arena. A payload that stayed in the file comes back in its Onnx__TensorProto as
 * qx_span[0 .. n_qx_span): indices into the spans of the scan. Only onnx/ may include this header. */
#ifndef QX_ONNX_WIRE_H
#define QX_ONNX_WIRE_H

#include "onnx.pb-c.h" /* generated into the build tree from onnx/file/onnx.proto */
#include "onnx/weight/weight.h"

enum {
    QX_WIRE_MAX_DEPTH = 100,     /* messages inside messages below the outermost; C++ protobuf's limit too */
    QX_WIRE_ELIDE_OVER = 1024,   /* payload bytes; longer ones stay in the file */
    QX_WIRE_BUDGET = 64 << 20,   /* bytes that unpacked messages may take, plus four times what was scanned */
};

/* What a scan reads: a file (with pread, so that a file cut meanwhile is an error and not a signal) or memory. */
typedef struct qx_wire_src { qx_file *file; const uint8_t *bytes; int64_t size; const char *name; } qx_wire_src;

/* A range of the source that the skeleton leaves out. field: TensorProto field number of a payload (4 5 7 9 10 11); 0: a whole
 * foreign field, tag included, to be written back verbatim. The range is the content without tag and length (field 0: with both). */
typedef struct qx_span { int field; int64_t offset, length; } qx_span;

typedef struct qx_skeleton {
    char *bytes; size_t len;         /* qx_free; complete wire form of the root message without the spans */
    qx_span *spans; int64_t n_spans; /* in the arena */
    int64_t invalid_utf8;            /* strings that are not UTF-8 */
} qx_skeleton;

/* Scans a whole source as one message of type `root`. Spans go to the arena. out NULL: only checks. */
qx_status qx_skim(qx_ctx *ctx, const qx_wire_src *src, const ProtobufCMessageDescriptor *root, qx_arena *arena, qx_skeleton *out);
/* qx_skim + unpack into the arena; the skeleton's bytes are freed. Nobody frees *msg. */
qx_status qx_wire_read(qx_ctx *ctx, const qx_wire_src *src, const ProtobufCMessageDescriptor *root, qx_arena *arena,
                       ProtobufCMessage **msg, qx_span **spans, int64_t *n_spans);

/* Fills an empty model from a message that lives in its arena: graphs, nodes, values, weights, opsets, metadata, hash (build.c).
 * Messages stay reachable through the wire fields. */
qx_status qx_build_model(qx_model *m, Onnx__ModelProto *proto);
/* Releases what the graph holds outside the arena (maps); called by qx_model_free (graph.c). */
void qx_model_drop_graphs(qx_model *m);
/* A weight from its message: type, dims and every size are checked, external data is found, contained and opened (weight_proto.c).
 * Initializers, attributes, sparse parts: all tensors of a model come through here. */
qx_status qx_weight_from_proto(qx_model *m, Onnx__TensorProto *t, qx_weight **out);

#endif
