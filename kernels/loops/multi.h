/* multi.h - one loop, compiled for each instruction set of isa.h, chosen when it is called. The loops are plain C without fused
 * multiply-add (the build has -ffp-contract=off), so every set gives the same bits. */
#ifndef QX_KERNELS_LOOPS_MULTI_H
#define QX_KERNELS_LOOPS_MULTI_H

#include "kernels/loops/isa.h"

#define QX_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define QX_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define QX_IVDEP _Pragma("GCC ivdep") /* in place is fine: element i of the output needs element i of the inputs only */
#endif

/* QX_MULTI(static, name, (int n, float *x), (n, x)) defines `static void name(int n, float *x)` from `name_body`, which must be
 * QX_INLINE. */
#if defined(__x86_64__)
#define QX_MULTI(linkage, name, params, args)                          \
    static void name##_base params { name##_body args; }               \
    QX_TARGET_AVX2 static void name##_avx2 params { name##_body args; }   \
    QX_TARGET_AVX512 static void name##_avx512 params { name##_body args; } \
    linkage void name params                                           \
    {                                                                  \
        switch (qx_isa_best()) {                                       \
        case QX_ISA_AVX512: name##_avx512 args; break;                 \
        case QX_ISA_AVX2: name##_avx2 args; break;                     \
        default: name##_base args; break;                              \
        }                                                              \
    }
#else
#define QX_MULTI(linkage, name, params, args) \
    linkage void name params { name##_body args; }
#endif

#endif
