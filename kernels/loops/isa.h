/* isa.h - which instruction set the fast loops may use. Every fast file is one set of loops compiled once for each row below
 * (function attribute target, so that the build itself stays plain x86-64). All rows give the same bits, but for products and what
 * kernels/loops/vmath_leaf.h has, which fuse multiplication and addition where the CPU does. */
#ifndef QX_KERNELS_LOOPS_ISA_H
#define QX_KERNELS_LOOPS_ISA_H

#include <stdbool.h>

typedef enum qx_isa { QX_ISA_BASE, QX_ISA_AVX2, QX_ISA_AVX512, QX_ISA_COUNT_ } qx_isa;

/* AVX2 means AVX2 + FMA + F16C; AVX512 means F, BW, DQ and VL on top. */
#define QX_TARGET_BASE
#if defined(__x86_64__)
#define QX_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define QX_TARGET_AVX512 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#define QX_TARGET_VNNI __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#endif

#if defined(__clang__) && __clang_major__ < 16
#define QX_CPU_HAS_F16C 1 /* clang 14 cannot ask; no CPU with AVX2 lacks it */
#else
#define QX_CPU_HAS_F16C __builtin_cpu_supports("f16c")
#endif

/* A build for tests may be held to less than its CPU has (cmake -DQONNX_ISA=base or avx2). */
#ifndef QX_ISA_MOST
#define QX_ISA_MOST QX_ISA_AVX512
#endif

/* The best set that this CPU and its kernel support. Cheap: reads a word that libgcc filled at start. */
static inline qx_isa qx_isa_best(void)
{
#if defined(__x86_64__)
    if (QX_ISA_MOST < QX_ISA_AVX2) return QX_ISA_BASE;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !QX_CPU_HAS_F16C) return QX_ISA_BASE;
    if (QX_ISA_MOST >= QX_ISA_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return QX_ISA_AVX512;
    return QX_ISA_AVX2;
#else
    return QX_ISA_BASE;
#endif
}

/* Whether there are products of unsigned by signed bytes that add to int32 without saturating, beside AVX512. */
static inline bool qx_isa_vnni(void)
{
#if defined(__x86_64__)
    return qx_isa_best() == QX_ISA_AVX512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

#endif
