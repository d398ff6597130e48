/* convert.c - the conversion loops of the reference compiled for AVX2 and AVX-512, and the choice between them. */
#include "kernels/convert.h"
#include "kernels/scalar.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define HAVE_F16C
#define FN(name) avx2_##name
#define TARGET QX_TARGET_AVX2
#include "kernels/loops/convert_loops.h"
#undef FN
#undef TARGET
#define FN(name) avx512_##name
#define TARGET QX_TARGET_AVX512
#include "kernels/loops/convert_loops.h"
#endif

const qx_conv_row *qx_conv_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return avx512_conv_rows;
    if (isa == QX_ISA_AVX2) return avx2_conv_rows;
#endif
    (void)isa;
    return qx_conv_ref();
}

bool qx_to_f32(int dtype, const void *src, int64_t n, float *dst)
{
    if (dtype < 0 || dtype >= QX_DT_COUNT_) return false;
    const qx_conv_row *row = &qx_conv_cpu(qx_isa_best())[dtype];
    if (!row->to_f32) return false;
    row->to_f32(src, n, dst);
    return true;
}

void qx_round_half(int dtype, float *x, int64_t n)
{
    qx_conv_cpu(qx_isa_best())[dtype].round(x, n);
}

bool qx_from_f32(int dtype, const float *src, int64_t n, void *dst)
{
    if (dtype < 0 || dtype >= QX_DT_COUNT_) return false;
    const qx_conv_row *row = &qx_conv_cpu(qx_isa_best())[dtype];
    if (!row->from_f32) return false;
    row->from_f32(src, n, dst);
    return true;
}
