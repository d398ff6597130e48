/* model.h - one ONNX file of a pipeline: a session, its inputs and outputs found by role, feeding and fetching with type conversion.
 *
 * Exporters do not agree on names. A role is found by exact name, then by alias, then by rank, kind of type and last dim; when that is
 * not unique the error lists what the graph has. */
#ifndef SX_MODEL_H
#define SX_MODEL_H

#include <qonnx.h>

#include "util.h"

typedef struct sx_role {
    const char *names[6];  /* the exact name first, then aliases; NULL ends */
    int rank, rank2;       /* accepted ranks; -1: none */
    int64_t last;          /* last dim when the graph fixes it; 0: any */
    bool integer;          /* token ids; otherwise floats (a timestep may be either: see any_type) */
    bool any_type, optional;
} sx_role;

typedef struct sx_model {
    qonnx_ctx *ctx;
    qonnx_session *session;
    char *path;
    const char *what;      /* "unet", "VAE decoder", ...: for messages */
    const qonnx_port *in, *out;
    int n_in, n_out;
    int64_t runs;
    double seconds;        /* spent in runs */
} sx_model;

int sx_model_open(sx_err *e, qonnx_ctx *ctx, const char *what, const char *path, const char *options, sx_model *out);
void sx_model_close(sx_model *m);
/* index[k] = port of roles[k], -1 for an optional one that is absent. all_used: a port left over is an error (inputs). */
int sx_bind(sx_err *e, const sx_model *m, bool outputs, const sx_role *roles, int n, bool all_used, int *index);
/* The same on a list of ports, for tests. */
int sx_bind_ports(sx_err *e, const char *what, const qonnx_port *ports, int n_ports, const sx_role *roles, int n, bool all_used,
                  int *index);
/* "sample f32[?,4,?,?], timestep f32[]" */
void sx_describe_ports(const qonnx_port *ports, int n, sx_text *t);
int sx_find_port(const qonnx_port *ports, int n, const char *name); /* -1 when absent */

/* One input as floats (or ids), converted to the declared type when run. */
typedef struct sx_feed { int port; int rank; int64_t dims[QONNX_MAX_RANK]; const float *f; const int64_t *ids; } sx_feed;
/* An output as floats: new memory, the caller frees f. */
typedef struct sx_fetch { const char *name; int rank; int64_t dims[QONNX_MAX_RANK]; float *f; size_t n; } sx_fetch;
int sx_model_run(sx_err *e, sx_model *m, const sx_feed *in, int n_in, sx_fetch *out, int n_out);
/* Runs again with tracing, and puts the name of the first node that made a NaN or infinity into the error. Returns the error code. */
int sx_model_blame(sx_err *e, sx_model *m, const sx_feed *in, int n_in, const sx_fetch *out, int n_out, int64_t bad);

#endif
