/* grid.h - how a kernel is written so that nvcc compiles it for the device and gcc compiles the same text for the host.
 *
 * A kernel is a function of one struct of arguments. Work that needs no cooperation is QK_EACH(i, n). Work of a block is a sequence of phases,
 * QK_THREADS(t) { ... }, with QK_SYNC() between phases that hand data on through QK_SHARED arrays; what a thread keeps from one phase to the next is QK_PRIVATE and
 * read as QK_MY(name); a part of a kernel takes it as QK_PRIVATE_ARG and is given QK_PASS(name). On the device a phase is the thread's own code and QK_SYNC a barrier; on the host a phase is a loop over the threads of a block, so that
 * the result is what the device computes, and sanitizers see every index. The host form is for tests and for the emulated plugin: it is no backend. */
#ifndef QX_KERNELS_CUDA_GRID_H
#define QX_KERNELS_CUDA_GRID_H

#include <stdint.h>

#include "kernels/cuda/kernels.h"

#ifdef __CUDACC__
#define QK_KERNEL(name, args_type) QK_KERNEL_RESIDENT(name, args_type, 256, 1)
/* With registers few enough for `blocks` blocks of `threads` threads on a multiprocessor. */
#define QK_KERNEL_RESIDENT(name, args_type, threads, blocks) static __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ args_type a)
/* Part of a kernel that has phases of its own. */
#define QK_INSIDE static __device__ __forceinline__
#define QK_UNROLL _Pragma("unroll")
#define QK_APART static __device__ __noinline__
#define QK_BLOCK ((int64_t)blockIdx.x)
#define QK_BLOCKS ((int64_t)gridDim.x)
#define QK_NT ((int)blockDim.x)
#define QK_EACH(i, n) for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)
#define QK_THREADS(t) for (int t = (int)threadIdx.x, qk_once = t >= 0; qk_once; qk_once = 0)
#define QK_SYNC() __syncthreads()
#define QK_SHARED(type, name, n) __shared__ __align__(16) type name[n]
#define QK_PRIVATE(type, name, n) type name[n]
#define QK_MY(name) name
#define QK_PRIVATE_ARG(type, name, n) type *name
#define QK_PASS(name) name
#define QK_ADD_COUNT(p, v) atomicAdd((unsigned long long *)(p), (unsigned long long)(v))
#define QK_ADD_COUNT32(p, v) atomicAdd((p), (v))
#define QK_LAUNCH(name, blocks, threads, queue, args) \
    (name<<<(unsigned)(blocks), (unsigned)(threads), 0, (cudaStream_t)(queue)>>>(*(args)), (int)cudaGetLastError())
#define QK_EXTERN extern "C"
/* Blocks for n pieces of work that need no cooperation: enough to fill any GPU, few enough to keep a block busy. */
#define QK_EACH_BLOCKS(n) qk_each_blocks(n)
static inline int64_t qk_each_blocks(int64_t n)
{
    const int64_t b = (n + 255) / 256;
    return b < 1 ? 1 : b > 4096 ? 4096 : b;
}
#else
#include <string.h>
#define QK_KERNEL_RESIDENT(name, args_type, threads, blocks) QK_KERNEL(name, args_type)
#define QK_KERNEL(name, args_type) static void name(const int64_t qk_block, const int64_t qk_blocks, const int qk_nt, const args_type a)
#define QK_INSIDE static inline
#define QK_UNROLL
#define QK_APART static inline
#define QK_BLOCK ((void)qk_blocks, (void)qk_nt, qk_block)
#define QK_BLOCKS qk_blocks
#define QK_NT qk_nt
#define QK_EACH(i, n) for (int64_t i = ((void)qk_nt, qk_block); i < (n); i += qk_blocks)
#define QK_THREADS(t) for (int t = 0; t < qk_nt; t++)
#define QK_SYNC() ((void)0)
#define QK_SHARED(type, name, n) type name[n]
#define QK_PRIVATE(type, name, n) type name##_of[256][n]
#define QK_MY(name) name##_of[t]
#define QK_PRIVATE_ARG(type, name, n) type (*name##_of)[n]
#define QK_PASS(name) name##_of
#define QK_ADD_COUNT(p, v) (*(p) += (v))
#define QK_ADD_COUNT32(p, v) (*(p) += (v))
#define QK_LAUNCH(name, blocks, threads, queue, args) ((void)(queue), qk_emulate_##name(blocks, threads, args))
/* One for each kernel: QK_HOST(name, args_type) behind its text. */
#define QK_EXTERN
#define QK_EACH_BLOCKS(n) ((void)(n), 1)
#endif

/* Makes the kernel callable: on the host a loop over its blocks. */
#ifdef __CUDACC__
#define QK_HOST(name, args_type)
#else
#define QK_HOST(name, args_type)                                                              \
    static int qk_emulate_##name(int64_t blocks, int threads, const args_type *args)          \
    {                                                                                         \
        for (int64_t b = 0; b < blocks; b++) name(b, blocks, threads, *args);                  \
        return 0;                                                                             \
    }
#endif

/* Sum or maximum of red[0 .. QK_NT) into red[0], always in the same order; QK_NT is a power of two. Ends with a barrier. */
#define QK_FOLD(red, expr)                                    \
    for (int qk_w = QK_NT / 2; qk_w > 0; qk_w /= 2) {         \
        QK_SYNC();                                            \
        QK_THREADS(t) if (t < qk_w) {                         \
            const float u = red[t], v = red[t + qk_w];        \
            red[t] = (expr);                                  \
        }                                                     \
    }                                                         \
    QK_SYNC()

#endif
