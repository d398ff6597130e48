/* cudnn.h - graphs of cuDNN's backend interface, and the engines that carry them out. Internal to cudnn.c and cudnn_ops.c.
 *
 * An operation (cudnn_ops.c) describes itself as tensors and descriptors of a graph; dnn_engine() (cudnn.c) asks the library for
 * engines, takes the first that can be planned and that starts, and shares it among all steps with the same problem: planning one
 * takes a second where the library compiles it, and a UNet has 140 attentions of four shapes. */
#ifndef QX_RUNTIME_CUDA_CUDNN_H
#define QX_RUNTIME_CUDA_CUDNN_H

#include "runtime/cuda/library.h"

/* Engines that are looked at (on Hopper the first thirty for f32 all round operands), and tried. */
enum { DNN_ENGINES = 64, DNN_TRIES = 16, DNN_PARTS = 24, DNN_OUTER = 8, DNN_PROBLEM = 320 };

/* Everything that was made for one plan, destroyed together. ok false: something was refused, for the first time by `said`, and
 * nothing more is called. outer: the tensors in memory. */
typedef struct dnn_graph {
    const cu_dnn *c;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t card; /* in tests: of a device that is not there, in place of the handle's */
    cudnnBackendDescriptor_t all[DNN_PARTS + DNN_ENGINES];
    struct { int64_t id; size_t bytes; bool by_value; } outer[DNN_OUTER];
    int n, n_outer;
    bool ok;
    char said[160];
} dnn_graph;

/* A part of the graph, complete: made, its n attributes set (those whose v is NULL are not), finalized. NULL when something was refused. */
typedef struct dnn_attr { cudnnBackendAttributeName_t name; cudnnBackendAttributeType_t type; int64_t count; const void *v; } dnn_attr;
cudnnBackendDescriptor_t dnn_part(dnn_graph *g, cudnnBackendDescriptorType_t type, const dnn_attr *attrs, size_t n);
#define DNN_PART(g, type, ...) dnn_part(g, type, (const dnn_attr[]){__VA_ARGS__}, sizeof((const dnn_attr[]){__VA_ARGS__}) / sizeof(dnn_attr))

typedef struct dnn_tensor { int64_t id; cudnnDataType_t type; int rank; int64_t dims[5], strides[5]; bool internal, by_value; } dnn_tensor;
cudnnBackendDescriptor_t dnn_put(dnn_graph *g, const dnn_tensor *t);

/* The graph's operations, and how the library shall look for engines. */
typedef struct dnn_ops { cudnnBackendDescriptor_t op[3]; int n; cudnnBackendHeurMode_t mode; } dnn_ops;
/* problem: compared as bytes (it has no padding). describe: false when there are no more ways to try, else the graph of this one.
 * exact: no engine that rounds f32 operands. */
typedef struct dnn_question {
    const void *problem;
    size_t bytes;
    bool exact;
    bool (*describe)(dnn_graph *g, const void *problem, int way, dnn_ops *out);
} dnn_question;

struct cu_engine {
    struct cu_engine *next;
    int64_t users;             /* steps; 0: refused, which is remembered */
    dnn_graph g;
    cudnnBackendDescriptor_t plan;
    size_t workspace, bytes;
    char problem[DNN_PROBLEM];
};

/* NULL: the library does not take it; said: why (NULL: there is no library, which the device's notes say). Else one more user
 * (cu_engine_free). */
qx_status dnn_engine(qx_dev *d, const dnn_question *q, cu_engine **out, const char **said);
/* False: the library refuses, and cu_refused() has its answer. */
bool dnn_execute(qx_dev *d, const cu_engine *e, const int64_t *ids, void **pointers, int n, void *ws);

#endif
