/* grid.h - how a kernel is written so that nvcc compiles it for the device and gcc compiles the same text for the host.
 *
 * A kernel is a function of one struct of arguments, in the words of CUDA: QK_THREAD, QK_BLOCK, QK_SYNC() for a block's barrier,
 * QK_SHARED arrays. Work that needs no cooperation is QK_EACH(i, n). On the host every thread of a block is a fiber with a stack
 * of its own that runs until it meets a barrier (runtime/cuda/grid_host.c): between two barriers threads run one after another,
 * forwards in one block and backwards in the next, so a barrier that is missing shows as a wrong result, and threads that do not
 * meet at the same one are an error. So are launches that a device refuses, and wide loads and stores at addresses that are not
 * multiples of their size; sanitizers see every index. The host form is for tests: it is no backend. */
#ifndef QX_KERNELS_CUDA_GRID_H
#define QX_KERNELS_CUDA_GRID_H

#include <stdint.h>

#include "kernels/cuda/kernels.h"

#define QK_KERNEL(name, args_type) QK_KERNEL_RESIDENT(name, args_type, 256, 1)

#ifdef __CUDACC__
/* With registers few enough for `blocks` blocks of `threads` threads on a multiprocessor. */
#define QK_KERNEL_RESIDENT(name, args_type, threads, blocks) static __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ args_type a)
/* Part of a kernel. */
#define QK_INSIDE static __device__ __forceinline__
#define QK_APART static __device__ __noinline__
#define QK_UNROLL _Pragma("unroll")
#define QK_BLOCK ((int64_t)blockIdx.x)
#define QK_BLOCKS ((int64_t)gridDim.x)
#define QK_NT ((int)blockDim.x)
#define QK_THREAD ((int)threadIdx.x)
#define QK_EACH(i, n) for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)
#define QK_SYNC() __syncthreads()
#define QK_SHARED(type, name, n) __shared__ __align__(16) type name[n]
#define QK_ADD_COUNT32(p, v) atomicAdd((p), (v))
#define QK_LAUNCH(name, blocks, threads, queue, args) \
    (name<<<(unsigned)(blocks), (unsigned)(threads), 0, (cudaStream_t)(queue)>>>(*(args)), (int)cudaGetLastError())
#define QK_EXTERN extern "C"
enum { QK_MOST_BLOCKS = 4096 };
#else
#include <string.h>
/* What a queue is on the host. dry: launches are looked at, nothing is computed. */
typedef struct qk_host_queue { int dry; int64_t launches; } qk_host_queue;
/* Of the running thread; serial: a number for each block that has been run; error: CUDA's number for what went wrong in this launch. */
typedef struct qk_host { int64_t block, blocks, serial; int threads, thread, error; } qk_host;
extern qk_host qk_at;
typedef void qk_host_kernel(const void *args);
/* As a launch: 0 or CUDA's number for what is wrong with it. most: threads that the kernel was compiled for. */
int qk_host_launch(qk_host_kernel *kernel, int64_t blocks, int64_t threads, int most, qk_queue queue, const void *args);
void qk_host_sync(int line);              /* all threads of the block, at the same line */
/* all lanes of the warp: what each of them has brought along, by lane, until qk_host_part() */
const void *const *qk_host_meet(const void *mine);
void qk_host_part(void);
void qk_host_need(int fits);              /* an address */
/* Copies that are not there before they have been waited for: all groups but the last n. */
void qk_host_copy(void *to, const void *from);
void qk_host_group(void);
void qk_host_wait(int n);

#define QK_KERNEL_RESIDENT(name, args_type, threads, blocks)                           \
    enum { name##_most = threads };                                                     \
    static void name##_text(const args_type a);                                         \
    static void name(const void *args) { name##_text(*(const args_type *)args); }       \
    static void name##_text(const args_type a)
#define QK_INSIDE static inline
#define QK_APART static inline
#define QK_UNROLL
#define QK_BLOCK (qk_at.block)
#define QK_BLOCKS (qk_at.blocks)
#define QK_NT (qk_at.threads)
#define QK_THREAD (qk_at.thread)
/* No thread knows of another here, so the first of each block does all: neighbours in a row, which is faster. */
#define QK_EACH(i, n) for (int64_t i = qk_at.thread ? (n) : qk_at.block; i < (n); i += qk_at.blocks)
#define QK_SYNC() qk_host_sync(__LINE__)
/* Each block finds it filled with what shows. */
#define QK_SHARED(type, name, n)                                                        \
    static type name[n] __attribute__((aligned(16)));                                   \
    static int64_t name##_serial;                                                       \
    if (name##_serial != qk_at.serial) name##_serial = qk_at.serial, memset(name, 0xcd, sizeof name)
#define QK_ADD_COUNT32(p, v) (*(p) += (v))
#define QK_LAUNCH(name, blocks, threads, queue, args) qk_host_launch(name, blocks, threads, name##_most, queue, args)
#define QK_EXTERN
enum { QK_MOST_BLOCKS = 2 };
#endif

/* Blocks for n pieces of work that need no cooperation: enough to fill any GPU, few enough to keep a block busy. */
#define QK_EACH_BLOCKS(n) qk_each_blocks(n)
static inline int64_t qk_each_blocks(int64_t n)
{
    const int64_t b = (n + 255) / 256;
    return b < 1 ? 1 : b > QK_MOST_BLOCKS ? QK_MOST_BLOCKS : b;
}

/* Sum or maximum of red[0 .. QK_NT) into red[0], always in the same order; QK_NT is a power of two. Ends with a barrier. */
#define QK_FOLD(red, expr)                                        \
    for (int qk_w = QK_NT / 2; qk_w > 0; qk_w /= 2) {             \
        QK_SYNC();                                                \
        if (QK_THREAD < qk_w) {                                   \
            const float u = red[QK_THREAD], v = red[QK_THREAD + qk_w]; \
            red[QK_THREAD] = (expr);                              \
        }                                                         \
    }                                                             \
    QK_SYNC()

#endif
