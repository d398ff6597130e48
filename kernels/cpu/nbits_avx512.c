/* nbits_avx512.c - dot products with few-bit weights for AVX512, and with rounded rows for VNNI. */
#if defined(__x86_64__)
#define LANES_ISA 512
#include "kernels/loops/nbits_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/nbits_loops.h"
#include "kernels/loops/nbits_ints_loops.h"

const qx_nbits_leaf *qx_nbits_leaf_avx512(void) { return &leaf; }

const qx_nbits_leaf *qx_nbits_leaf_vnni(void)
{
    static const qx_nbits_leaf with = {.ints = &ints, .dot4 = dot4, .dot8 = dot8, .panel4 = panel4, .panel8 = panel8};
    return qx_isa_vnni() ? &with : NULL;
}
#endif
