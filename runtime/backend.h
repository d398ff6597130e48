/* backend.h - the interface between the executor and a device plugin (qonnx-cuda.so).
 *
 * Plain C structs and no other header of the project, so that command and plugin may be built apart. A plugin exports one
 * function, qonnx_backend, which takes the ABI number of the caller and returns its table, or NULL when it does not speak that
 * number; the loader also compares abi and struct_size. Nothing here throws, exits or prints: a function returns a qx_dev_status
 * and leaves a text for error().
 *
 * Who does what. The executor keeps the order, the lifetimes, the shapes and the memory plan: it asks place() for every node
 * before anything runs, works out the dims of all outputs, calls compile() once for each node and set of shapes, and then run()
 * in order. Everything between is one queue: run(), upload() and zero() are asynchronous and happen in the order of the calls;
 * download() and sync() wait. Outputs and the workspace are memory that the executor got from alloc(); they never overlap an
 * input. A plugin must not keep pointers of run() except for constants. */
#ifndef QX_RUNTIME_BACKEND_H
#define QX_RUNTIME_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { QX_BACKEND_ABI = 5, QX_DEV_RANK = 8 };

typedef enum qx_dev_status {
    QX_DEV_OK,
    QX_DEV_FAILED,      /* the device or its driver said no; error() has the text */
    QX_DEV_UNSUPPORTED, /* no kernel for this node, type or shape */
    QX_DEV_NOMEM,
    QX_DEV_BAD_SHAPE,   /* the node's inputs do not fit each other */
    QX_DEV_FULL,        /* no room for another look before gather() */
} qx_dev_status;

typedef enum qx_dev_attr_kind { QX_DEV_INT = 1, QX_DEV_FLOAT, QX_DEV_STRING, QX_DEV_INTS, QX_DEV_FLOATS } qx_dev_attr_kind;
typedef struct qx_dev_attr {
    const char *name;
    int32_t kind;
    int64_t i;
    double f;
    const char *s;
    const int64_t *ints; /* [n] */
    const float *floats; /* [n] */
    int64_t n;
} qx_dev_attr;

/* A node of the model, or a fused step of the plan: domain "qonnx", op and attributes as in runtime/fuse/fuse.h. */
typedef struct qx_dev_node {
    const char *name, *domain, *op;
    int32_t version; /* of the operator */
    uint32_t n_in, n_out, n_attrs;
    const qx_dev_attr *attrs;
} qx_dev_node;

enum {
    QX_DEV_CONST = 1,  /* the same content in every run: may be repacked at compile() and kept */
    QX_DEV_SPARSE = 2, /* a constant whose 2:4 zeros are to be used where they are there (two of four neighbours along the contraction) */
};
typedef struct qx_dev_tensor {
    int32_t dtype;     /* TensorProto.DataType; 0: the input is omitted */
    int32_t rank;
    int64_t dims[QX_DEV_RANK];
    int64_t numel;
    size_t bytes;      /* packed row-major content: two 4-bit elements a byte, the first in the low bits */
    void *data;        /* on the device; NULL in place() and for inputs of host_in */
    const void *host;  /* the same content on the host, for inputs of host_in; NULL otherwise */
    uint32_t flags;
} qx_dev_tensor;

typedef struct qx_dev_place {
    uint32_t host_in;  /* bit i: input i is wanted on the host (shapes, axes, scalars that are arguments of the kernel) */
    /* bit i: the kernel reads input i on the device, but its content decides dims of the outputs: compile() again only when
     * those change */
    uint32_t shape_in;
    int32_t view;      /* output 0 is input 0 under other dims: no kernel runs, compile() and run() are not called */
} qx_dev_place;

typedef struct qx_dev_info {
    char name[128];
    size_t memory_total, memory_free;
    int32_t major, minor;    /* compute capability */
    int32_t driver, runtime; /* versions as the vendor counts them */
    char notes[256];         /* what a user should know of it (a library that is missing); empty: nothing */
} qx_dev_info;

typedef struct qx_dev qx_dev;           /* an open device with its queue */
typedef struct qx_dev_step qx_dev_step; /* a node compiled for shapes */
typedef struct qx_dev_graph qx_dev_graph;
typedef struct qx_dev_gram qx_dev_gram; /* a sum of Gram matrices on the device */

/* What calibration wants to know of n elements; the same definitions as qx_scan in kernels/observe.h. Sums are hi + lo. */
typedef struct qx_dev_scan { float min, max, absmax; int64_t zeros, nonfinite; double sum[2], abs[2], sumsq[2]; } qx_dev_scan;
/* What calibration asks of a tensor beside that. channels 0: nothing of channels; else the tensor is [outer, channels, inner]. */
typedef struct qx_dev_look { bool histogram; int64_t outer, channels, inner; } qx_dev_look;
/* What was seen. bins [4096], of width 2^exp, the smallest with absmax < 4096 * 2^exp (at least 2^-120): bin = (int)(|x| / 2^exp)
 * of what is finite. Arrays of [channels]; sums of [channels][2]. NULL: not asked for. */
typedef struct qx_dev_seen {
    qx_dev_scan scan;
    int32_t exp;
    const uint32_t *bins;
    int64_t channels;
    const float *min, *max;
    const double *sum, *abs, *sumsq;
} qx_dev_seen;

typedef struct qx_backend {
    uint32_t abi, struct_size; /* QX_BACKEND_ABI, sizeof(qx_backend) */
    const char *name;          /* "cuda" */
    uint32_t chains;           /* 1: has a kernel for the fused step "Chain" */

    /* index -1: the first usable device. On failure *out is NULL and text holds the reason. */
    qx_dev_status (*open)(int32_t index, qx_dev **out, char *text, size_t cap);
    void (*close)(qx_dev *d);
    qx_dev_status (*info)(qx_dev *d, qx_dev_info *out);
    const char *(*error)(qx_dev *d); /* of the last failure */

    qx_dev_status (*alloc)(qx_dev *d, size_t bytes, void **out); /* aligned to 256 */
    void (*release)(qx_dev *d, void *p);                         /* waits until the queue no longer needs it */
    qx_dev_status (*upload)(qx_dev *d, void *to, const void *from, size_t bytes);   /* `from` may be changed as soon as it returns */
    qx_dev_status (*download)(qx_dev *d, void *to, const void *from, size_t bytes); /* waits */
    qx_dev_status (*sync)(qx_dev *d);

    /* Whether the node can run here. Dtypes, ranks and dims are what is known statically (dtype 0, rank -1, dim -1: not known). */
    qx_dev_status (*place)(qx_dev *d, const qx_dev_node *n, const qx_dev_tensor *in, qx_dev_place *out);
    /* All dims are known; in[i].data of constants is valid. *workspace: bytes that run() needs beside the outputs. */
    qx_dev_status (*compile)(qx_dev *d, const qx_dev_node *n, const qx_dev_tensor *in, const qx_dev_tensor *out, qx_dev_step **step,
                             size_t *workspace);
    qx_dev_status (*run)(qx_dev *d, qx_dev_step *step, const qx_dev_tensor *in, const qx_dev_tensor *out, void *workspace);
    void (*drop)(qx_dev *d, qx_dev_step *step);
    /* What runs the step, for profiles: "own", "cublasLt", "cuDNN", ... Lives as long as the plugin. */
    const char *(*kernel)(const qx_dev_step *step);
    /* Why a library that might have run the step does not, with its own words; NULL: nothing to say. Lives as long as the step. */
    const char *(*why)(const qx_dev_step *step);
    /* Puts mark `index` (0 or 1) into the queue; elapsed() waits for both marks and gives the device's time between them. */
    qx_dev_status (*mark)(qx_dev *d, uint32_t index);
    qx_dev_status (*elapsed)(qx_dev *d, uint32_t from, uint32_t to, double *seconds);

    /* Everything that is queued between begin and end is recorded and not done; replay() does it again. NULL functions: not available. */
    qx_dev_status (*capture_begin)(qx_dev *d);
    qx_dev_status (*capture_end)(qx_dev *d, qx_dev_graph **out); /* out NULL: give up the recording */
    qx_dev_status (*replay)(qx_dev *d, qx_dev_graph *g);
    void (*drop_graph)(qx_dev *d, qx_dev_graph *g);

    /* Observers. A look is put into the queue and nobody waits for it; gather() waits and gives the results of the n looks since
     * the last one, in their order. What they point to stays until the next look. */
    qx_dev_status (*look)(qx_dev *d, const qx_dev_tensor *t, const qx_dev_look *what);
    qx_dev_status (*gather)(qx_dev *d, qx_dev_seen *out, int64_t n);
    /* *g += X'X of `rows` rows of k elements; made when it is NULL (QX_DEV_NOMEM: the device has no room to spare). take: waits,
     * gives the elements at and above the diagonal of [k, k] on the host (gram NULL: nothing), and frees it. */
    qx_dev_status (*gram_add)(qx_dev *d, const qx_dev_tensor *t, int64_t rows, int64_t k, qx_dev_gram **g);
    qx_dev_status (*gram_take)(qx_dev *d, qx_dev_gram *g, double *gram);
} qx_backend;

typedef const qx_backend *qonnx_backend_fn(uint32_t abi);
#define QX_BACKEND_SYMBOL "qonnx_backend"

#ifdef __cplusplus
}
#endif
#endif
