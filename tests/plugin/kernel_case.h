/* kernel_case.h - kernels of kernels/cuda tried by themselves against the CPU's (test_kernels.c has the table): arrays of any
 * type at any distance from an aligned address, on the device or in plain memory, and what comes back held against what the CPU
 * computes. */
#ifndef TESTS_KERNEL_CASE_H
#define TESTS_KERNEL_CASE_H

#include "../kernels/kernels.h"
#include "kernels/cuda/kernels.h"
#include "kernels/dtype.h"

#ifndef KC_ON_DEVICE
#define KC_ON_DEVICE 0 /* 1: matrix units round sums their own way */
#endif

typedef struct kernel_family { const char *name; void (*run)(void); } kernel_family;
/* end: name NULL */
extern const kernel_family kernels_pointwise[], kernels_move[], kernels_rows[], kernels_quant[], kernels_product[], kernels_attention[],
    kernels_cache[], kernels_observe[];

qk_queue kc_queue(void);
/* What a launch returned, and what comes up until it is done. */
void kc_launched(int error);
/* kc_launched(f(queue, args)) */
#define KC_RUN(f, args) kc_launched(f(kc_queue(), args))

/* Memory of the running family, `shift` bytes behind an aligned address. An output has a rim that nobody may write to (kc_back looks). */
void *kc_in(const void *from, size_t bytes, size_t shift);
void *kc_out(size_t bytes, size_t shift);
void kc_back(void *to, const void *from, size_t bytes);
void kc_release(void); /* all of it */

/* n numbers as `dtype`; they become what that type holds. And back. */
void *kc_reals(int dtype, float *v, int64_t n, size_t shift);
void *kc_reals_out(int dtype, int64_t n, size_t shift);
void kc_reals_back(int dtype, float *to, const void *from, int64_t n);
static inline size_t kc_size(int dtype) { return (size_t)qx_dtype_bits(dtype) / 8; }

/* got is what the CPU computed in f32, rounded to `dtype`: exactly (tol 0), or within tol (floor + |want|) and half a step of the
 * type. NaN agrees with NaN. */
void kc_agree(const char *what, int dtype, const float *got, const float *want, int64_t n, double tol, double floor);
void kc_same(const char *what, const void *got, const void *want, size_t bytes);

/* n numbers, by a seed of their own: hard ones, or even ones in (-1, 1). */
void kc_hard(float *v, int64_t n, uint32_t seed);
void kc_even(float *v, int64_t n, uint32_t seed);
void *kc_bytes(int64_t n, uint32_t seed); /* from malloc */

static const int kc_real_types[] = {QX_DT_FLOAT, QX_DT_FLOAT16, QX_DT_BFLOAT16};
#define KC_EACH_REAL(dt) for (int kc_i = 0, dt = kc_real_types[0]; kc_i < 3; dt = kc_real_types[++kc_i < 3 ? kc_i : 0])

#endif
