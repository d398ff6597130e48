/* convert.h - tables of conversion loops by dtype and instruction set; the door that tests use to compare them. */
#ifndef QX_KERNELS_CONVERT_H
#define QX_KERNELS_CONVERT_H

#include "kernels/dtype.h"
#include "kernels/loops/isa.h"

typedef struct qx_conv_row {
    void (*to_f32)(const void *src, int64_t n, float *dst); /* NULL where the dtype has no conversion */
    void (*from_f32)(const float *src, int64_t n, void *dst);
    void (*round)(float *x, int64_t n); /* to that type and back; NULL: no type of 16 bits */
} qx_conv_row;

/* [QX_DT_COUNT_] rows. isa must be one that the CPU has. */
const qx_conv_row *qx_conv_ref(void);
const qx_conv_row *qx_conv_cpu(qx_isa isa);

#endif
