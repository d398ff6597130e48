/* mma.h - the matrix instructions of a warp: C[16, 8] += A[16, K] B[K, 8] with f32 sums; ldmatrix, which loads their operands
 * from shared memory; and copies into shared memory that go on while the warp computes.
 *
 * Who holds what (PTX ISA, "Matrix Fragments for mma.m16n8k8", "k16" and "k32" are one rule): a register has e = 1, 2 or 4
 * elements (tf32, 16 bit, 8 bit) that are neighbours along K, and K = 8 e. With lane = 4 g + t: A's register r holds row g + 8 (r
 * % 2), columns e (t + 4 (r / 2)) on; B's register r holds column g, rows e (t + 4 r) on; C's register r holds row g + 8 (r / 2),
 * column 2 t + r % 2. On the host the instruction is a function with that meaning, so the index arithmetic of every kernel that
 * uses it is tested without a card. */
#ifndef QX_KERNELS_CUDA_MMA_H
#define QX_KERNELS_CUDA_MMA_H

#include <stdbool.h>

#include "kernels/cuda/elem.h"

/* kind: QK_F16, QK_BF16, QK_E4M3 (from sm_89 on), QK_F32 (of which TF32's 19 bits count): a constant. c: four sums; a: four
 * registers, b: two. */
#ifdef __CUDACC__
#define MMA_ASM(text, c, a, b)                                                                                     \
    asm volatile("mma.sync.aligned." text " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                 \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
QK_INSIDE void mma(const int kind, float *c, const uint32_t *a, const uint32_t *b)
{
    if (kind == QK_BF16) MMA_ASM("m16n8k16.row.col.f32.bf16.bf16.f32", c, a, b);
    else if (kind == QK_F16) MMA_ASM("m16n8k16.row.col.f32.f16.f16.f32", c, a, b);
    else if (kind == QK_F32) MMA_ASM("m16n8k8.row.col.f32.tf32.tf32.f32", c, a, b);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    else if (kind == QK_E4M3) MMA_ASM("m16n8k32.row.col.f32.e4m3.e4m3.f32", c, a, b);
#endif
}
/* Sixteen bytes from global to shared memory, or sixteen zeros (`from` must be an address all the same). They are there when the
 * group that they belong to has been waited for and the block has met at a barrier. QK_ASYNC_WAIT(n): all groups but the last n. */
QK_INSIDE void qk_copy_async(void *to, const void *from, int some)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from),
                 "r"(some ? 16 : 0) : "memory");
}
#define QK_ASYNC_GROUP() asm volatile("cp.async.commit_group;" ::: "memory")
#define QK_ASYNC_WAIT(n) asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory")
/* Four 8 x 8 matrices from rows in shared memory, whose addresses the lanes give. */
QK_INSIDE void ldmatrix(bool turned, uint32_t *r, const uint16_t *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]),
                     "=r"(r[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]),
                     "=r"(r[3]) : "r"(at) : "memory");
}
/* The sum or maximum of a row goes round the lanes that hold it. */
QK_INSIDE float lane_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
#else
static inline void qk_copy_async(void *to, const void *from, int some) { qk_host_copy(to, some ? from : NULL); }
#define QK_ASYNC_GROUP() qk_host_group()
#define QK_ASYNC_WAIT(n) qk_host_wait(n)
static inline float lane_xor(float v, int mask)
{
    const float other = *(const float *)qk_host_meet(&v)[QK_THREAD % 32 ^ mask];
    qk_host_part();
    return other;
}
static inline void ldmatrix(bool turned, uint32_t *r, const uint16_t *row)
{
    const int g = QK_THREAD % 32 / 4, t = QK_THREAD % 4 * 2;
    const void *const *rows = qk_host_meet(row);
    qk_host_need((uintptr_t)row % 16 == 0);
    for (int m = 0; m < 4; m++) {
        const uint16_t *first = rows[8 * m + (turned ? t : g)], *second = rows[8 * m + (turned ? t + 1 : g)];
        r[m] = first[turned ? g : t] | (uint32_t)second[turned ? g : t + 1] << 16;
    }
    qk_host_part();
}
typedef struct mma_operands { const uint32_t *a, *b; } mma_operands; /* of a lane */
static inline float mma_element(int kind, uint32_t reg, int at)
{
    switch (kind) {
    case QK_F16: return qx_sc_f16_to_f32((uint16_t)(reg >> (16 * at)));
    case QK_BF16: return qx_sc_bf16_to_f32((uint16_t)(reg >> (16 * at)));
    case QK_E4M3: return qx_sc_e4m3_to_f32((uint8_t)(reg >> (8 * at)));
    default: return qx_of_bits(reg & 0xffffe000u);
    }
}
static inline void host_mma(int kind, float *c, const void *const *lanes, int lane)
{
    const int e = kind == QK_F32 ? 1 : kind == QK_E4M3 ? 4 : 2;
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 8 * e; k++) {
            const int t = k / e % 4, far = k / (4 * e);
            const mma_operands *left = lanes[row % 8 * 4 + t], *right = lanes[col * 4 + t];
            c[i] += mma_element(kind, left->a[row / 8 + far * 2], k % e) * mma_element(kind, right->b[far], k % e);
        }
    }
}
static inline void mma(int kind, float *c, const uint32_t *a, const uint32_t *b)
{
    const mma_operands mine = {a, b};
    host_mma(kind, c, qk_host_meet(&mine), QK_THREAD % 32);
    qk_host_part();
}
#endif

#endif
