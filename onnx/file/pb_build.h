/* pb_build.h - from the graph back to messages, and to bytes. Internal to onnx/: pb_build.c, pb_tensor.c, pb_out.c, writer.c. */
#ifndef QX_ONNX_PB_BUILD_H
#define QX_ONNX_PB_BUILD_H

#include "base/file.h"
#include "onnx/file/store.h"

/* bytes: smaller tensors stay in the model file; external ones start at multiples */
enum { QX_EXTERNAL_OVER = 1024, QX_DATA_ALIGN = 4096 };

/* Content that one tensor of the model file holds in raw_data, or that one range of the data file holds. */
typedef struct qx_payload { const qx_weight *weight; int64_t bytes, offset; } qx_payload;
typedef struct qx_payloads { qx_payload *v; int64_t n, cap; } qx_payloads;

typedef struct qx_out_plan {
    qx_model *m;
    qx_arena *arena;         /* of the messages built here; messages that nothing touched are the model's own */
    bool external;
    const char *location;    /* of the data file, as it is written into tensors */
    qx_map *placed;          /* content key -> index + 1 in data: tied weights are stored once */
    qx_payloads data;        /* ranges of the data file */
    qx_payloads inline_;     /* raw_data of the model file; span index = store's spans + index */
    int64_t data_bytes;
    Onnx__ModelProto *proto;
} qx_out_plan;

/* Messages for the whole model; p->m, arena, external, location and placed are set. */
qx_status qx_pb_model(qx_out_plan *p);
/* The message of a weight under a name: verbatim when nothing changed, else inline or external as the plan says. */
qx_status qx_pb_tensor(qx_out_plan *p, const qx_weight *w, const char *name, bool is_init, Onnx__TensorProto **out);
qx_status qx_pb_sparse(qx_out_plan *p, const qx_sparse *s, const char *name, Onnx__SparseTensorProto **out);
bool qx_pb_was_external(const qx_weight *w);
/* Bytes that a weight takes as a payload; 0 for strings. */
int64_t qx_pb_payload_bytes(const qx_weight *w);

typedef struct qx_piece { int64_t at, n, span; } qx_piece; /* n bytes of payload `span` belong at `at` */
typedef struct qx_image {
    int64_t size;                                   /* of the model file */
    int64_t *sizes; int64_t n_sizes, cap_sizes;     /* of its messages, in the order of the walk */
    qx_piece *pieces; int64_t n_pieces, cap_pieces; /* in the order of the file; known once it is put */
} qx_image;
qx_status qx_pb_measure(qx_out_plan *p, qx_image *out);
/* Writes all of the model file but the payloads, and lists these. */
qx_status qx_pb_put(qx_out_plan *p, qx_image *img, qx_out *to);
void qx_image_free(qx_ctx *ctx, qx_image *img);

#endif
