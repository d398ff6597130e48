/* op.h - how an operator is run on the CPU: the interface between the executor and an adapter.
 *
 * An adapter is one function, qx_cpu_<name>, named in the cpu column of onnx/ops.def; it serves every version of its operator (and
 * often a family: unary, binary, reduce, ...; look at c->node->op->id). It is called once each time the node runs, and
 *   1. reads inputs: c->in[i] (NULL: omitted), or as float / integers with qx_call_in_f32 / qx_call_in_i64 whatever the type is;
 *   2. reads attributes with qx_call_int, _float, _str, _ints (never from the node: inside a function an attribute may be a
 *      reference to one of the call's) and the operator version from c->version;
 *   3. works out and checks the output's shape, and asks for the output with qx_call_out (any dynamic shape), qx_call_out_f32 (float
 *      buffer, rounded to the tensor's type when the adapter returns), qx_call_out_reuse (in place when legal), qx_call_out_view (same
 *      bytes, other shape) or qx_call_out_take (sequence, optional, strings: a tensor that the adapter built);
 *   4. loops, through a kernel of kernels/ and qx_parallel over pieces whose size does not depend on the number of threads.
 * Inputs are checked here, not trusted: an index, rank or dim that does not fit is qx_call_fail(c, QX_E_SHAPE, "..."). Scratch comes from
 * qx_call_scratch and lives until the adapter returns; what shall live as long as the executor (packed weights, primitives) from
 * qx_call_state. fp16 and bf16 are computed in float and rounded once, at the output.
 *
 * Adding an operator: write the adapter in runtime/cpu/<family>.c, put its name in the cpu column, add a case to the tests. */
#ifndef QX_RUNTIME_CPU_OP_H
#define QX_RUNTIME_CPU_OP_H

#include "base/checked.h"
#include "base/thread.h"
#include "onnx/graph.h"
#include "runtime/tensor.h"

struct qx_exec;
struct qx_rstep;
struct qx_frame;

typedef struct qx_call {
    qx_ctx *ctx;
    struct qx_exec *exec;
    const qx_node *node;
    int version;                  /* node->op->since: the version in force */
    uint32_t n_in, n_out;
    const qx_tensor *const *in;   /* [n_in]; NULL: omitted. A constant that was dropped has data NULL and its shape */
    struct qx_rstep *step;         /* the rest is the executor's */
    const struct qx_frame *frame;
    const void *fused;            /* parameters of a fused step (runtime/fuse/fuse.h); NULL for a plain node */
} qx_call;

typedef qx_status qx_cpu_fn(qx_call *c);

/* "node 'name' (Op): <text>"; returns code. */
qx_status qx_call_fail(const qx_call *c, qx_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define QX_CALL_FAIL(c, code, ...) return (qx_call_fail((c), (code), __VA_ARGS__), (code))

/* ---- Layout: only for adapters that runtime/layout.c lists; all others see plain tensors ---- Channels that lie side by side in
 * the memory of a tensor [N, C, H, W] (its dims stay as they are): [N, C / block, H, W, block]. 0: plain. The layout of a
 * convolution says more: -C is [N, H, W, C] (a block of C for all others), which its kernels tell from a block. */
int qx_call_in_block(const qx_call *c, uint32_t i);
int qx_call_out_block(const qx_call *c, uint32_t i);
int qx_call_in_layout(const qx_call *c, uint32_t i);
int qx_call_out_layout(const qx_call *c, uint32_t i);

/* Output i is declared as 16 bits, and floats that the executor rounds are wanted instead (runtime/wide.c): only Cast has to know. */
bool qx_call_out_wide(const qx_call *c, uint32_t i);

/* ---- Attributes ---- */
const qx_attr *qx_call_attr(const qx_call *c, const char *name); /* NULL when absent */
int64_t qx_call_int(const qx_call *c, const char *name, int64_t fallback);
float qx_call_float(const qx_call *c, const char *name, float fallback);
const char *qx_call_str(const qx_call *c, const char *name, const char *fallback);
const int64_t *qx_call_ints(const qx_call *c, const char *name, int64_t *count);   /* NULL, 0 when absent */
const float *qx_call_floats(const qx_call *c, const char *name, int64_t *count);

/* ---- Inputs ---- */
static inline const qx_tensor *qx_call_in(const qx_call *c, uint32_t i) { return i < c->n_in ? c->in[i] : NULL; }
/* The input, or an error naming it when omitted. */
qx_status qx_call_need(const qx_call *c, uint32_t i, const qx_tensor **out);
/* The same, and an error naming both ranks where it has another one. */
qx_status qx_call_rank(const qx_call *c, uint32_t i, int rank, const qx_tensor **out);
/* Any numeric type as float; the tensor's own memory when it is float already. */
qx_status qx_call_in_f32(qx_call *c, uint32_t i, const float **out);
/* Same for a tensor that is not an input (a part, a sequence item); freed with the call's scratch. */
qx_status qx_call_to_f32(qx_call *c, const qx_tensor *t, const float **out);
/* An integer or bool tensor as int64; *n elements. Omitted: NULL and 0. */
qx_status qx_call_in_i64(qx_call *c, uint32_t i, const int64_t **out, int64_t *n);
/* A scalar (one element) as int64 / double; omitted: fallback. */
qx_status qx_call_scalar_i64(qx_call *c, uint32_t i, int64_t fallback, int64_t *out);
qx_status qx_call_scalar_f64(qx_call *c, uint32_t i, double fallback, double *out);
/* The list that is attribute `name` in old versions and input i in new ones (axes, pads, split ...). NULL and 0 when neither is there. */
qx_status qx_call_list(qx_call *c, const char *name, uint32_t i, const int64_t **out, int64_t *n);
/* True when the input has the same content in every run (initializer, Constant, or computed from these only). */
bool qx_call_in_const(const qx_call *c, uint32_t i);
/* "I keep what I need of this constant in my state": later calls get it without data, and it is freed once nobody needs it. */
void qx_call_drop_const(qx_call *c, uint32_t i);
/* A dropped constant that is an initializer can be read once more, into scratch. */
bool qx_call_can_read_again(const qx_call *c, uint32_t i);
qx_status qx_call_const_again(qx_call *c, uint32_t i, const void **data);
qx_status qx_call_const_again_f32(qx_call *c, uint32_t i, const float **out); /* as floats */
/* The initializer behind input i when the plan left it to the adapter to read it from the model (its tensor has dims and no
 * data); NULL otherwise. */
const struct qx_weight *qx_call_stored(const qx_call *c, uint32_t i);
/* The initializer that is input i, the same in every run; NULL: something else. Steps with the same one read the same numbers. */
const qx_value *qx_call_initializer(const qx_call *c, uint32_t i);
/* Resolves a possibly negative axis; out of [-rank, rank) is an error naming both. */
qx_status qx_call_axis(const qx_call *c, int64_t axis, int rank, int *out);

/* ---- Outputs ---- *t (may be NULL) is the tensor to fill, not zeroed. An omitted output gets memory too, thrown away after the call. */
qx_status qx_call_out(qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t);
/* Output of a float type, filled through a float buffer: the tensor itself when dtype is FLOAT, else rounded to dtype on return. */
qx_status qx_call_out_f32(qx_call *c, uint32_t i, qx_dtype dtype, int rank, const int64_t *dims, float **y);
/* Shares the memory of input `from` when this is its last use and the sizes agree, else like qx_call_out. For loops in which element j
 * of the output depends on element j of that input only. */
qx_status qx_call_out_reuse(qx_call *c, uint32_t i, uint32_t from, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t);
/* Output i, which begins with what input `from` holds: the input's own memory where the executor carries it there from run to run and the
 * dims are the same, so that nothing has to be copied; else like qx_call_out. */
qx_status qx_call_out_append(qx_call *c, uint32_t i, uint32_t from, qx_dtype dtype, int rank, const int64_t *dims, qx_tensor **t);
/* Whether qx_call_out_reuse would share input `from` (when the sizes agree). */
bool qx_call_may_reuse(const qx_call *c, uint32_t i, uint32_t from);
/* Output i is input `from` with other dims (same number of elements) or another name; no copy. */
qx_status qx_call_out_view(qx_call *c, uint32_t i, uint32_t from, int rank, const int64_t *dims);
/* Moves a tensor made with qx_tensor_new (or a sequence / optional of such) into the output; *t is emptied, also on failure. */
qx_status qx_call_out_take(qx_call *c, uint32_t i, qx_tensor *t);
/* Deep copy (strings and sequences too), for qx_call_out_take. */
qx_status qx_tensor_copy(qx_ctx *ctx, const qx_tensor *from, qx_tensor *to);

/* ---- Memory ---- 64-byte aligned, not zeroed; until the adapter returns. */
qx_status qx_call_scratch(qx_call *c, size_t bytes, void **out);
#define QX_CALL_SCRATCH(c, n, ptr) qx_call_scratch_array((c), (int64_t)(n), sizeof **(ptr), (void **)(ptr))
qx_status qx_call_scratch_array(qx_call *c, int64_t n, size_t size, void **out);
/* One block of `size` bytes a node, zeroed at the first call, kept until the executor is freed (then drop(ctx, block), which may be
 * NULL, is called; the block itself is freed by the executor). */
qx_status qx_call_state(qx_call *c, size_t size, void (*drop)(qx_ctx *ctx, void *state), void **out);
/* Name of the kernel that ran ("brgemm:avx512_core", "own"), flops and bytes of this call, for --profile. */
void qx_call_note_kernel(qx_call *c, const char *kernel, double flops);
bool qx_call_simulate(const qx_call *c); /* exec options */
bool qx_call_bf16(const qx_call *c);
int64_t qx_call_max_loop(const qx_call *c);

/* ---- Subgraphs ---- Runs a graph attribute: in[k] becomes its k-th input (borrowed for the run); out[k] (all outputs) are the caller's,
 * freed with qx_tensor_free. */
qx_status qx_call_graph(qx_call *c, qx_graph *g, const qx_tensor *const *in, uint32_t n_in, qx_tensor *out, uint32_t n_out);

/* ---- Shapes ---- */
/* Broadcast of two shapes (ONNX's rule); false when they do not fit. */
bool qx_broadcast(const int64_t *a, int ra, const int64_t *b, int rb, int64_t *out, int *rank);
/* Row-major strides in elements. */
void qx_strides(const int64_t *dims, int rank, int64_t *strides);
/* Product of dims [from, to). */
static inline int64_t qx_prod(const int64_t *dims, int from, int to)
{
    int64_t p = 1;
    for (int i = from; i < to; i++) p *= dims[i];
    return p;
}

/* All adapters, from the table. qx_cpu_none stands for "no kernel". */
#define QX_OP(prefix, name, since, min_in, max_in, min_out, max_out, traits, infer, cpu, cuda) qx_cpu_fn qx_cpu_##cpu;
#include "onnx/ops.def"
#undef QX_OP
/* The adapter of a row of the operator table (qx_cpu_none when it has none). */
qx_cpu_fn *qx_cpu_find(const qx_op *op);

#endif
