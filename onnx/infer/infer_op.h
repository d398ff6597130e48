/* infer_op.h - what the inference functions of single operators (infer_*.c) may use. Each is named in the infer column of ops.def,
 * looks at its inputs through qx_ix_in / qx_ix_content, and says what its outputs are with qx_ix_out. What it does not know it
 * leaves alone; what cannot be is an error that names the node and the numbers. */
#ifndef QX_ONNX_INFER_OP_H
#define QX_ONNX_INFER_OP_H

#include "onnx/infer/expr.h"
#include "onnx/infer/infer.h"

#define QX_OP(prefix, name, since, min_in, max_in, min_out, max_out, traits, infer, cpu, cuda) int qx_infer_##infer(qx_infer *ix, qx_node *n);
#include "onnx/ops.def"
#undef QX_OP

/* ---- inputs -------------------------------------------------------------------------------------------------------- */
const qx_type *qx_ix_in(qx_infer *ix, const qx_node *n, uint32_t i);  /* never NULL: kind NONE when missing or unknown */
static inline int qx_ix_dtype(qx_infer *ix, const qx_node *n, uint32_t i) { return (int)qx_ix_in(ix, n, i)->dtype; }
bool qx_ix_shaped(qx_infer *ix, const qx_node *n, uint32_t i, const qx_type **out); /* a tensor with known rank */
bool qx_ix_given(const qx_node *n, uint32_t i);                        /* the optional input is there */
const qx_content *qx_ix_content(qx_infer *ix, const qx_node *n, uint32_t i); /* NULL: not known */
/* All elements whole numbers: copied into out[cap]; false when not (or more than cap). */
bool qx_ix_ints_of(qx_infer *ix, const qx_node *n, uint32_t i, int64_t *out, int64_t cap, int64_t *count);
qx_ctx *qx_ix_ctx(const qx_infer *ix);
qx_arena *qx_ix_arena(const qx_infer *ix);
qx_exprs *qx_ix_exprs(const qx_infer *ix);
bool qx_ix_is_concrete(const qx_infer *ix);

/* Attributes; references inside functions are resolved to what the call gives. */
const qx_attr *qx_ix_attr(const qx_infer *ix, const qx_node *n, const char *name);
int64_t qx_ix_int(const qx_infer *ix, const qx_node *n, const char *name, int64_t fallback);
float qx_ix_float(const qx_infer *ix, const qx_node *n, const char *name, float fallback);
const char *qx_ix_string(const qx_infer *ix, const qx_node *n, const char *name, const char *fallback);
const int64_t *qx_ix_ints(const qx_infer *ix, const qx_node *n, const char *name, int64_t *count);

/* ---- outputs ------------------------------------------------------------------------------------------------------- */
qx_dim *qx_ix_dims(qx_infer *ix, int rank); /* zeroed; NULL when out of memory */
/* Outputs that the node does not have are skipped. dims from qx_ix_dims are kept, not copied. */
qx_status qx_ix_out(qx_infer *ix, const qx_node *n, uint32_t i, int dtype, int rank, qx_dim *dims);
qx_status qx_ix_out_unranked(qx_infer *ix, const qx_node *n, uint32_t i, int dtype);
qx_status qx_ix_out_type(qx_infer *ix, const qx_node *n, uint32_t i, const qx_type *t);
qx_content *qx_ix_new_content(qx_infer *ix, int64_t count); /* all unknown; NULL when count is over QX_CONTENT_MAX or < 0 */
/* Content of a small tensor (of an attribute); NULL when it is not small or not numeric. */
qx_content *qx_ix_weight_content(qx_infer *ix, const qx_weight *w);
void qx_ix_out_content(qx_infer *ix, const qx_node *n, uint32_t i, qx_content *c); /* c may be NULL */
/* "node 'x' (Op): ..." */
qx_status qx_ix_fail(qx_infer *ix, const qx_node *n, qx_status code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
#define QX_IX_FAIL(ix, n, code, ...) return qx_ix_fail((ix), (n), (code), __VA_ARGS__)
#define QX_IX_NOMEM(ix) qx_fail(qx_ix_ctx(ix), QX_E_NOMEM, "out of memory for shape inference")

/* ---- numbers ------------------------------------------------------------------------------------------------------- */
static inline qx_num qx_num_of(int64_t v) { return (qx_num){.kind = QX_NUM_INT, .i = v}; }
static inline qx_num qx_num_real(double v) { return (qx_num){.kind = QX_NUM_REAL, .f = v}; }
static inline qx_dim qx_dim_of(int64_t v) { return (qx_dim){.n = v}; }
static inline qx_dim qx_dim_unknown(void) { return (qx_dim){.n = -1}; }
static inline bool qx_dim_known(qx_dim d) { return d.n >= 0; }
qx_num qx_num_of_dim(qx_infer *ix, qx_dim d);
qx_dim qx_dim_of_num(qx_infer *ix, qx_num v); /* negative or unknown: unknown dim */
bool qx_num_as_int(qx_num v, int64_t *out);   /* INT, or a whole REAL */
bool qx_num_as_real(qx_num v, double *out);   /* INT or REAL */
qx_num qx_num_add(qx_infer *ix, qx_num a, qx_num b);
qx_num qx_num_sub(qx_infer *ix, qx_num a, qx_num b);
qx_num qx_num_mul(qx_infer *ix, qx_num a, qx_num b);
qx_num qx_num_floordiv(qx_infer *ix, qx_num a, qx_num b);
qx_num qx_num_exact_div(qx_infer *ix, qx_num a, qx_num b); /* unknown when b does not divide a */
qx_num qx_num_div(qx_infer *ix, qx_num a, qx_num b);       /* of real numbers */
qx_num qx_num_floor(qx_infer *ix, qx_num a);
qx_num qx_num_ceil(qx_infer *ix, qx_num a);
qx_num qx_num_min(qx_infer *ix, qx_num a, qx_num b);
qx_num qx_num_max(qx_infer *ix, qx_num a, qx_num b);
bool qx_num_nonneg(qx_num a); /* provably >= 0 */

qx_dim qx_dim_add(qx_infer *ix, qx_dim a, qx_dim b);
qx_dim qx_dim_mul(qx_infer *ix, qx_dim a, qx_dim b);
/* Product of dims; unknown when one is. */
qx_dim qx_dim_product(qx_infer *ix, const qx_dim *dims, int count);

/* ---- rules that many operators share -------------------------------------------------------------------------------- */
/* axis in [-rank, rank) to [0, rank); E_SHAPE naming it otherwise. */
qx_status qx_ix_axis(qx_infer *ix, const qx_node *n, int64_t axis, int rank, int *out);
/* Dims that must be equal: the more telling of both into *a. E_SHAPE when both are numbers and differ; what: "K", "channels"... */
qx_status qx_ix_equal(qx_infer *ix, const qx_node *n, const char *what, qx_dim *a, qx_dim b);
/* Multidirectional broadcast of two shapes into new dims. */
qx_status qx_ix_broadcast(qx_infer *ix, const qx_node *n, const qx_dim *a, int ra, const qx_dim *b, int rb, qx_dim **out, int *rank);
/* Broadcast of all inputs from..to-1 (missing ones skipped); *rank -1 when some shape is unknown. */
qx_status qx_ix_broadcast_inputs(qx_infer *ix, const qx_node *n, uint32_t from, uint32_t to, qx_dim **out, int *rank);
qx_status qx_ix_same(qx_infer *ix, const qx_node *n, uint32_t out, uint32_t in); /* type of an input */
/* Dims from a 1-D content (Reshape, Expand...); NULL with *rank -1 when its length is not known. E_SHAPE on a negative number. */
qx_status qx_ix_dims_from_content(qx_infer *ix, const qx_node *n, uint32_t input, qx_dim **out, int *rank);
/* Bodies: runs graph attribute `name` with its inputs given as types; NULL graph when absent. */
qx_graph *qx_ix_body(const qx_infer *ix, const qx_node *n, const char *name);
qx_status qx_ix_enter(qx_infer *ix, qx_graph *g);                      /* forgets what an earlier visit left in g */
void qx_ix_set_type(qx_infer *ix, const qx_value *v, const qx_type *t);
void qx_ix_set_content(qx_infer *ix, const qx_value *v, const qx_content *c);
/* The wider of two types for one place: dims that differ become unknown. E_TYPE when kinds or element types differ. */
qx_status qx_ix_join(qx_infer *ix, const qx_node *n, const qx_type *a, const qx_type *b, qx_type *out);
bool qx_type_equal(const qx_type *a, const qx_type *b);
bool qx_dtype_is_numeric(int dtype);

#endif
