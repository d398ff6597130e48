/* kv_codes.h - key and value caches as they are stored: floats of any width, or codes (int8, two 4-bit codes a byte, fp8 E4M3) with one
 * scale or one a channel of a head. */
#ifndef QX_RUNTIME_CPU_ATTENTION_KV_CODES_H
#define QX_RUNTIME_CPU_ATTENTION_KV_CODES_H

#include "kernels/attention.h"
#include "runtime/cpu/op.h"

typedef struct qx_kv_codes {
    qx_dtype type;              /* INT8, UINT8 (4-bit codes plus 8, the even element in the low bits), FLOAT8E4M3FN; floats */
    int64_t d, row_bytes;       /* numbers and bytes of a row */
    int64_t row_elements;       /* of the tensor: half of d where a byte has two */
    const float *scale; bool per_channel; /* [1], or [heads * d]; NULL: floats */
} qx_kv_codes;
/* As attention's kernels read them. */
qx_attn_codes qx_kv_codes_of(const qx_kv_codes *k);
/* From the cache's type (floats when the attribute is "NONE"), the scale at input `scale_in` and attribute quant_attr
 * ("PER_TENSOR", "PER_CHANNEL"); E_SHAPE or E_UNSUPPORTED by name. */
qx_status qx_kv_codes_read(qx_call *c, qx_dtype type, uint32_t scale_in, const char *quant_attr, int64_t heads, int64_t d,
                           qx_kv_codes *out);
/* One row of a head: code = clamp(rne(x / scale)). Rows of a head: x = code * scale. */
void qx_kv_encode(const qx_kv_codes *k, int64_t head, const float *x, uint8_t *codes);
void qx_kv_decode(const qx_kv_codes *k, int64_t head, int64_t rows, const uint8_t *codes, float *x);

#endif
