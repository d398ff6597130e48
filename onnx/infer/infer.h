/* infer.h - types and shapes of values, and the content of small ones.
 *
 * One engine for two uses. Before a run (qx_infer_shapes in io.h): graph inputs have symbolic dims, results go into the values.
 * For a run: dims and contents of the inputs are given, and everything that follows from them comes out as numbers:
 *
 *     qx_infer_new(m, &ix); qx_infer_give(ix, ...) for each input; qx_infer_graph(ix, m->graph); qx_infer_type(ix, v) ...
 *
 * and for a node whose shape depends on data: qx_infer_give its inputs with content, qx_infer_node(ix, n), qx_infer_type its outputs.
 * The model is never changed by a qx_infer. Content is followed for tensors of at most QX_CONTENT_MAX elements. */
#ifndef QX_ONNX_INFER_H
#define QX_ONNX_INFER_H

#include "base/buf.h"
#include "onnx/graph.h"

enum { QX_CONTENT_MAX = 1024 };

/* One element: a whole number, a real one, or an expression over dim names divided by a positive number. */
typedef enum qx_num_kind { QX_NUM_UNKNOWN, QX_NUM_INT, QX_NUM_REAL, QX_NUM_EXPR } qx_num_kind;
typedef struct qx_num {
    qx_num_kind kind;
    int64_t i;                 /* INT; EXPR: the divisor, 1 for integer types */
    double f;                  /* REAL */
    const struct qx_expr *e;   /* EXPR */
} qx_num;
typedef struct qx_content { int64_t n; qx_num *v; } qx_content; /* row-major; the value's type has the shape */

typedef struct qx_infer qx_infer;
qx_status qx_infer_new(qx_model *m, qx_infer **out);
void qx_infer_free(qx_infer *ix);
/* Dims of a value from outside, with its content when data is not NULL and it is small and numeric (bytes as the dtype stores them). */
qx_status qx_infer_give(qx_infer *ix, const qx_value *v, qx_dtype dtype, int rank, const int64_t *dims, const void *data);
qx_status qx_infer_give_type(qx_infer *ix, const qx_value *v, const qx_type *t);
/* All nodes of a graph in order, bodies and called functions too. An impossible shape is QX_E_SHAPE (or E_TYPE) naming the node
 * and the numbers. */
qx_status qx_infer_graph(qx_infer *ix, qx_graph *g);
qx_status qx_infer_node(qx_infer *ix, qx_node *n);
/* Whether memory ran out since the beginning (QX_E_NOMEM): what qx_infer_type and qx_infer_content do not know may have been
 * lost, then. Every node looks by itself; ask after looking at values. */
qx_status qx_infer_status(const qx_infer *ix);
/* What is known; kind NONE when nothing. Valid until qx_infer_free. */
const qx_type *qx_infer_type(const qx_infer *ix, const qx_value *v);
/* NULL when not known; single elements may still be QX_NUM_UNKNOWN. */
const qx_content *qx_infer_content(qx_infer *ix, const qx_value *v);

/* "f32[batch,3,2*height]", "seq(f32[?])", "?" */
const char *qx_type_describe(const qx_type *t, char *buf, size_t cap);
/* "x f32[batch,64], y i64[batch]": the inputs of a graph that have no default, for messages; names printable, 2 KB at most. */
qx_status qx_inputs_describe(const qx_graph *g, qx_buf *out);

/* Whether a channels-last convolution stores its weight as [M, kernel..., C / group]: NhwcConv does (its documentation says otherwise,
 * the optimizer that writes it and the CUDA kernel that runs it do not), its fused and integer relatives do not. -1: not known. */
bool qx_nhwc_weight_is_last(const qx_node *n, int64_t channels, int64_t group, int64_t last);

#endif
