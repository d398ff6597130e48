/* library.h - handles of the vendor's libraries of one device. Internal to product.c and cudnn.c. */
#ifndef QX_RUNTIME_CUDA_LIBRARY_H
#define QX_RUNTIME_CUDA_LIBRARY_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "runtime/cuda/lib.h"

typedef struct cu_library { cublasLtHandle_t lt; void *cudnn; } cu_library; /* cudnn: made when first needed */
void cu_cudnn_close(qx_dev *d);

#endif
