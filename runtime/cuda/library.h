/* library.h - the vendor's libraries of one device: handles, and their functions, which are looked up when the plugin runs
 * (library.c), so that it starts where one of them is not installed. Internal to product.c, cudnn.c and cudnn_ops.c. */
#ifndef QX_RUNTIME_CUDA_LIBRARY_H
#define QX_RUNTIME_CUDA_LIBRARY_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn_graph.h>

#include "runtime/cuda/lib.h"

#define CU_BLAS(X)                                                                                                                                                       \
    X(cublasLtCreate) X(cublasLtDestroy) X(cublasLtGetStatusString) X(cublasLtMatmul) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy)  \
    X(cublasLtMatmulDescSetAttribute) X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute) X(cublasLtMatrixLayoutCreate) \
    X(cublasLtMatrixLayoutDestroy) X(cublasLtMatrixLayoutSetAttribute)
#define CU_DNN(X)                                                                                                                                          \
    X(cudnnCreate) X(cudnnDestroy) X(cudnnGetErrorString) X(cudnnGetLastErrorString) X(cudnnSetStream) X(cudnnBackendCreateDescriptor) X(cudnnBackendDestroyDescriptor) X(cudnnBackendExecute) \
    X(cudnnBackendFinalize) X(cudnnBackendGetAttribute) X(cudnnBackendSetAttribute)
#define CU_POINTER(name) __typeof__(name) *name;
typedef struct cu_blas { CU_BLAS(CU_POINTER) } cu_blas;
typedef struct cu_dnn { CU_DNN(CU_POINTER) } cu_dnn;

typedef struct cu_library {
    bool has_blas, has_dnn;
    cu_blas blas;
    cu_dnn dnn;
    cublasLtHandle_t lt;
    cudnnHandle_t cudnn;       /* made when first needed */
    struct cu_engine *engines; /* planned, and refused (cudnn.c) */
} cu_library;
void cu_engines_close(qx_dev *d);

#endif
