/* infer_state.h - the inside of qx_infer; for infer.c and infer_rules.c only. */
#ifndef QX_ONNX_INFER_STATE_H
#define QX_ONNX_INFER_STATE_H

#include "onnx/infer/infer_op.h"
#include "onnx/file/io.h"

enum { QX_CALL_DEPTH = 100 };

/* A call in progress: where references to attributes are resolved. */
typedef struct qx_frame { const qx_node *call; struct qx_frame *up; } qx_frame;
typedef struct qx_known { const qx_content *content; bool looked; } qx_known;

struct qx_infer {
    qx_model *m;
    qx_ctx *ctx;
    qx_arena *arena;       /* of everything here */
    qx_exprs *exprs;
    uint32_t n_values;
    qx_type *types;        /* by value id; kind NONE: nothing known yet */
    qx_known *contents;    /* by value id */
    qx_type *keep; bool *kept; /* values of function bodies over all calls; NULL in a model without functions */
    qx_frame *frame;
    int depth;
    bool concrete;
    bool no_memory;        /* a constant could not be read for want of it; the arena and the expressions remember their own */
    int64_t budget;        /* nodes that may still be visited before calls are cut short */
    int warned;
};

qx_status qx_ix_keep_body(qx_infer *ix, qx_graph *g);
/* infer_types.c: E_TYPE when an input that holds places, sizes or counts is no whole number. */
qx_status qx_ix_check_types(qx_infer *ix, const qx_node *n);

#endif
