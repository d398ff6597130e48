/* quant.c - the innermost quantization loops compiled for AVX2 and AVX-512. */
#include "kernels/loops/quant_leaf.h"
#include "kernels/scalar.h"

#if defined(__x86_64__)
static const qx_conv_row *avx2_conv(void) { return qx_conv_cpu(QX_ISA_AVX2); }
static const qx_conv_row *avx512_conv(void) { return qx_conv_cpu(QX_ISA_AVX512); }

#define FN(name) avx2_##name
#define TARGET QX_TARGET_AVX2
#define CONV avx2_conv
#include "kernels/loops/quant_loops.h"
#undef FN
#undef TARGET
#undef CONV
#define FN(name) avx512_##name
#define TARGET QX_TARGET_AVX512
#define CONV avx512_conv
#include "kernels/loops/quant_loops.h"
#endif

const qx_leaf *qx_leaf_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return &avx512_leaf;
    if (isa == QX_ISA_AVX2) return &avx2_leaf;
#endif
    (void)isa;
    return qx_leaf_ref();
}
