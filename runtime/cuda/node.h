/* node.h - how an operator gets onto the device: the interface between plugin.c and an adapter.
 *
 * An adapter is a pair of functions named in the cuda column of onnx/ops.def (qx_cuda_<name>), or in the list of fused steps
 * (table.c). place() is asked before anything runs, with what is known statically (dtype 0, rank -1, dims -1: unknown), says
 * which inputs it wants on the host, and refuses with CU_NO what has no kernel. compile() gets all dims, checks that they fit,
 * and puts the arguments of the launch into a step with cu_step; the step's run function fills in the pointers and launches.
 * Nothing is allocated in run. */
#ifndef QX_RUNTIME_CUDA_NODE_H
#define QX_RUNTIME_CUDA_NODE_H

#include "kernels/dtype.h"
#include "onnx/ops.h"
#include "runtime/cuda/machine.h"

enum { CU_WHY = 256 };
struct qx_dev {
    qx_ctx *ctx;         /* its own: memory of the plugin and the text of the last failure */
    cu_machine *m;
    qk_queue q;
    int32_t *bad;        /* on the device: set by a kernel that met an index out of range; looked at by download */
    qx_dev_info info;
    /* what a library answered to the step that is being compiled or run and that it does not take; plugin.c hands it to the
     * step */
    char why[CU_WHY];
    void *lib;           /* cuBLASLt and cuDNN (lib.h) */
    struct cu_looks *looks; /* what observers saw and nobody has gathered yet (observe.c) */
};

typedef struct cu_build {
    qx_dev *d;
    const qx_dev_node *node;
    const qx_dev_tensor *in, *out; /* out NULL in place() */
    qx_op_id op;                   /* QX_OP_UNKNOWN for a fused step */
    qx_dev_place *place;           /* place() only */
    qx_dev_step *step;             /* compile() only */
} cu_build;

typedef struct cu_run { qx_dev *d; qx_dev_step *step; qk_queue q; const void *args; const qx_dev_tensor *in, *out; void *ws; } cu_run;
typedef qx_status cu_run_fn(const cu_run *r);

struct qx_dev_step {
    cu_run_fn *run;
    void *args;                                /* of cu_step */
    size_t workspace;
    bool empty;                                /* no output has an element: nothing is launched */
    void *memory[4]; int n_memory;             /* device memory that goes with the step */
    void *plan; void (*drop)(qx_dev *d, void *plan); /* of a library */
    const char *kernel;                        /* what does the work, for profiles */
    char why[CU_WHY];                          /* why no library does; empty: nothing to say */
};

typedef struct cu_adapter { qx_status (*place)(const cu_build *b); qx_status (*compile)(cu_build *b); } cu_adapter;

/* "no kernel for ..." and "inputs do not fit". */
#define CU_NO(b, ...) QX_FAIL((b)->d->ctx, QX_E_UNSUPPORTED, __VA_ARGS__)
#define CU_BAD(b, ...) QX_FAIL((b)->d->ctx, QX_E_SHAPE, __VA_ARGS__)
/* A library does not take the step: its answer, which is no failure. */
__attribute__((format(printf, 2, 3))) void cu_refused(qx_dev *d, const char *format, ...);

/* In the arguments of a step: a pointer that its run function will fill in; NULL stays NULL. */
#define CU_LATER ((void *)1)

/* A copy of the arguments and what runs them. */
qx_status cu_step(cu_build *b, cu_run_fn *run, const void *args, size_t size);
/* The library's plan that the step runs, and whose it is. */
void cu_step_plan(cu_build *b, void *plan, void (*drop)(qx_dev *d, void *plan), const char *kernel);
/* A block of device memory that is released with the step (at once when there is no room for it: an error). */
qx_status cu_step_keep(cu_build *b, void *block);
/* Device memory of the step, filled from the host. */
qx_status cu_step_memory(cu_build *b, const void *from, size_t bytes, void **out);

/* ---- Attributes ---- */
const qx_dev_attr *cu_attr(const cu_build *b, const char *name);
int64_t cu_int(const cu_build *b, const char *name, int64_t fallback);
float cu_float(const cu_build *b, const char *name, float fallback);
bool cu_is(const cu_build *b, const char *name, const char *text, bool fallback); /* string attribute equals text */
const int64_t *cu_ints(const cu_build *b, const char *name, int64_t *n);

/* ---- Inputs ---- */
bool cu_has(const cu_build *b, uint32_t i);
/* A list of integers: attribute, else input i on the host (at most 64 entries, copied to list). n -1: neither. */
qx_status cu_list(const cu_build *b, const char *name, uint32_t i, int64_t list[64], int64_t *n);
static inline bool cu_real(int dtype) { return dtype == QX_DT_FLOAT || dtype == QX_DT_FLOAT16 || dtype == QX_DT_BFLOAT16; }
bool cu_integer(int dtype); /* 8 to 64 bits, and BOOL */
/* place(): input i must be one of the sets, when its type is known. */
qx_status cu_want_real(const cu_build *b, uint32_t i);
qx_status cu_want_plain(const cu_build *b, uint32_t i); /* whole bytes: real, integer, double, float8 */
qx_status cu_host_in(const cu_build *b, uint32_t first, uint32_t last); /* inputs first..last are arguments */
/* To the alignment of blocks: parts of a workspace. */
static inline size_t cu_round(size_t bytes) { return (bytes + 255) / 256 * 256; }
int cu_bytes(int dtype);                                /* of one element; 0 for packed types */

/* ---- Shapes ---- */
qx_status cu_axis(const cu_build *b, int64_t axis, int rank, int *out);
int64_t cu_prod(const int64_t *dims, int from, int to);
void cu_strides(const int64_t *dims, int rank, int64_t *strides);
/* Strides of t broadcast to out; an error when it does not fit. */
qx_status cu_broadcast(const cu_build *b, const qx_dev_tensor *t, const qx_dev_tensor *out, int64_t *strides);
/* Joins neighbouring axes that all operands walk through evenly and drops axes of one element; strides [n_ops][QK_RANK]. Returns
 * the new rank, at least 1. */
int cu_collapse(int rank, int64_t *dims, int n_ops, int64_t (*strides)[QK_RANK]);

/* All adapters, from the table. qx_cuda_none stands for "no kernel". */
#define QX_OP(prefix, name, since, min_in, max_in, min_out, max_out, traits, infer, cpu, cuda) extern const cu_adapter qx_cuda_##cuda;
#include "onnx/ops.def"
#undef QX_OP
/* The adapter of a node; NULL when there is none. *op: its identity. */
const cu_adapter *cu_find(const qx_dev_node *n, qx_op_id *op);

#endif
