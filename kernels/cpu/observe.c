/* observe.c - observation loops compiled for AVX2 and AVX-512. */
#include "kernels/loops/observe_leaf.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* What the compiler makes several instructions of, or shuffles, though it is one. */
#define LEAST(a, b) ((v8f)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define MOST(a, b) ((v8f)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define MOSTI(a, b) ((v8i)_mm256_max_epi32((__m256i)(a), (__m256i)(b)))
#define FN(name) avx2_##name
#define TARGET QX_TARGET_AVX2
#include "kernels/loops/observe_loops.h"
#undef FN
#undef TARGET
#undef WIDEN
#undef MINUS
#define WIDEN(v) ((v8d)_mm512_cvtps_pd((__m256)(v)))
/* The same bits: the product is exact. Zen 4 adds 512 bits in one unit and multiplies and adds them in another, which has nothing to do. */
#define MINUS(a, b) ((v8d)_mm512_fmsub_pd((__m512d)(a), _mm512_set1_pd(1.0), (__m512d)(b)))
#define FN(name) avx512_##name
#define TARGET QX_TARGET_AVX512
#include "kernels/loops/observe_loops.h"
#endif

const qx_observe_leaf *qx_observe_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    static const qx_observe_leaf avx2 = {avx2_scan, avx2_hist, avx2_columns}, avx512 = {avx512_scan, avx512_hist, avx512_columns};
    if (isa == QX_ISA_AVX512) return &avx512;
    if (isa == QX_ISA_AVX2) return &avx2;
#endif
    (void)isa;
    return qx_observe_ref();
}
