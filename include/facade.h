/* facade.h - what the files behind qonnx.h share: the public objects, and the step from qx_status to qonnx_code. Nothing here is
 * logic that the command line would miss: the facade only translates. */
#ifndef QX_FACADE_H
#define QX_FACADE_H

#include "base/buf.h"
#include "calib/stats/stats.h"
#include "include/qonnx.h"

struct qonnx_ctx {
    qx_ctx *qx;
    qonnx_log_fn *log;
    qonnx_progress_fn *progress;
    void *user;
    const volatile int *cancel;
    qx_ctx_options opt;
    qx_buf text;       /* what qonnx_inspect and qonnx_check handed out last */
};

struct qonnx_session {
    qonnx_ctx *ctx;
    qx_model *model;
    qx_exec *exec;
    qonnx_port *inputs, *outputs;
    int n_inputs, n_outputs;
    qx_tensor *held;   /* outputs of the last run: qonnx_session_run hands out their data */
    int n_held;
    qx_value **exposed; /* values that are not graph outputs */
    int n_exposed;
    bool rewritten;    /* passes of a calibration changed the float graph (sparsity: order of channels): exact, no longer the file's */
};

qonnx_code qx_code(qx_status st);
/* A tensor given by the caller, seen as ours: data is borrowed. */
qx_status qx_borrow(qonnx_ctx *ctx, const qonnx_tensor *in, qx_tensor *out);
void qx_lend(const qx_tensor *in, const char *name, qonnx_tensor *out);

#endif
