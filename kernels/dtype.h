/* dtype.h - element types: the enum (its values are ONNX's TensorProto.DataType), sizes, and conversion to and from float.
 * Packed types (4 and 2 bit) store the first element in the lowest bits; n elements take ceil(n * bits / 8) bytes. */
#ifndef QX_KERNELS_DTYPE_H
#define QX_KERNELS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qx_dtype {
    QX_DT_UNDEFINED = 0,
#define QX_DTYPE(name, code, bits, cls, text) QX_DT_##name = code,
#include "kernels/dtypes.def"
#undef QX_DTYPE
    QX_DT_COUNT_ = 27
} qx_dtype;

typedef struct qx_dtype_info { const char *name; const char *text; int bits; char cls; } qx_dtype_info; /* cls: F I U B S C, 0 unknown */
const qx_dtype_info *qx_dtype_get(int code); /* never NULL: an unknown code gives a row with bits 0 and text "?" */
/* From "f32", "FLOAT", "float16", "fp8"...; QX_DT_UNDEFINED when unknown. */
qx_dtype qx_dtype_parse(const char *text);
static inline int qx_dtype_bits(int code) { return qx_dtype_get(code)->bits; }
/* INT4, UINT4, INT2, UINT2: packed integers. */
static inline bool qx_dtype_is_small_int(int code)
{
    return code == QX_DT_INT4 || code == QX_DT_UINT4 || code == QX_DT_INT2 || code == QX_DT_UINT2;
}
static inline bool qx_dtype_is_float(int code) { return qx_dtype_get(code)->cls == 'F'; }
/* One of the types that models compute in, before anything is quantized. */
static inline bool qx_dtype_is_real(int code) { return code == QX_DT_FLOAT || code == QX_DT_FLOAT16 || code == QX_DT_BFLOAT16; }
/* Bytes of n packed elements; false on overflow, n < 0, or a type without fixed size (strings). */
bool qx_dtype_bytes(int code, int64_t n, size_t *out);

/* Single values. To a narrower float: round half to even; saturate != 0 clamps overflow and Inf to the largest finite, else
 * Inf (or NaN where the format has no Inf). NaN stays NaN (E2M1 and integers, which have none: 0). -0 keeps its sign except E2M1: code 0
 * (a negative value that rounds to zero keeps it: -0.1 gives E2M1 code 8). */
float qx_f16_to_f32(uint16_t h);
uint16_t qx_f32_to_f16(float f);
float qx_bf16_to_f32(uint16_t h);
uint16_t qx_f32_to_bf16(float f);
float qx_e4m3_to_f32(uint8_t c);
uint8_t qx_f32_to_e4m3(float f, int saturate);
float qx_e5m2_to_f32(uint8_t c);
uint8_t qx_f32_to_e5m2(float f, int saturate);
float qx_e2m1_to_f32(uint8_t c);  /* low nibble */
uint8_t qx_f32_to_e2m1(float f);  /* saturates at 6; RNE on the grid 0 .5 1 1.5 2 3 4 6 */
float qx_e8m0_to_f32(uint8_t c);  /* 2^(c-127), 255 NaN */
uint8_t qx_f32_to_e8m0_ceil(float f); /* smallest power of two >= f, clamped to codes 0..254; f <= 0 gives 0 */

/* Arrays: any numeric or bool dtype except strings and complex, packed types from element 0 (first element in the low bits of src[0]).
 * The fast versions (kernels/cpu) use what the CPU has and give the same bits as kernels/ref. */
bool qx_to_f32(int dtype, const void *src, int64_t n, float *dst);
/* f16 and bf16: IEEE, overflow gives Inf and Inf stays. 8-bit floats saturate. Integers: round half to even and saturate, NaN to 0.
 * BOOL: v != 0. FLOAT8E8M0: the ceil rule. */
bool qx_from_f32(int dtype, const float *src, int64_t n, void *dst);
/* Floats to FLOAT16 or BFLOAT16 and back, in place. */
void qx_round_half(int dtype, float *x, int64_t n);
bool qx_ref_to_f32(int dtype, const void *src, int64_t n, float *dst);
bool qx_ref_from_f32(int dtype, const float *src, int64_t n, void *dst);

#endif
