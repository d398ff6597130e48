/* convert.c - reference conversions: the scalar definitions in a loop, in plain C. */
#include "kernels/convert.h"
#include "kernels/scalar.h"

#define FN(name) ref_##name
#define TARGET
#include "kernels/loops/convert_loops.h"

const qx_conv_row *qx_conv_ref(void) { return ref_conv_rows; }

bool qx_ref_to_f32(int dtype, const void *src, int64_t n, float *dst)
{
    if (dtype < 0 || dtype >= QX_DT_COUNT_ || !ref_conv_rows[dtype].to_f32) return false;
    ref_conv_rows[dtype].to_f32(src, n, dst);
    return true;
}

bool qx_ref_from_f32(int dtype, const float *src, int64_t n, void *dst)
{
    if (dtype < 0 || dtype >= QX_DT_COUNT_ || !ref_conv_rows[dtype].from_f32) return false;
    ref_conv_rows[dtype].from_f32(src, n, dst);
    return true;
}
