/* quant_leaf.h - the innermost loops behind quant.c, as a table that exists once per instruction set. Internal to kernels/ and
 * its tests. */
#ifndef QX_KERNELS_LOOPS_QUANT_LEAF_H
#define QX_KERNELS_LOOPS_QUANT_LEAF_H

#include "kernels/convert.h"
#include "kernels/quant.h"

/* How a code is made out of x / scale. BYTE and WORD: integers of up to 8 and 16 bits. *_NS: overflow does not saturate. */
typedef enum qx_kind {
    QX_KIND_BYTE, QX_KIND_WORD, QX_KIND_E4M3, QX_KIND_E4M3_NS, QX_KIND_E5M2, QX_KIND_E5M2_NS, QX_KIND_E4M3FNUZ, QX_KIND_E4M3FNUZ_NS,
    QX_KIND_E5M2FNUZ, QX_KIND_E5M2FNUZ_NS, QX_KIND_E2M1, QX_KIND_COUNT_
} qx_kind;

typedef struct qx_quant_leaf {
    /* n elements under one scale; under one scale each. z may be NULL in vec. lo, hi: range of codes. d: bytes, or words for WORD. */
    void (*run)(const float *x, int64_t n, float s, int32_t z, float lo, float hi, void *d);
    void (*vec)(const float *x, int64_t n, const float *s, const int32_t *z, float lo, float hi, void *d);
} qx_quant_leaf;

typedef struct qx_leaf {
    const qx_conv_row *(*conv)(void); /* table of conversions */
    qx_quant_leaf quant[QX_KIND_COUNT_];
    /* out[i] = values[i / block] for nb blocks of 32-bit values: makes blocked scales fit the vec loops. */
    void (*expand)(const void *values, int64_t nb, int64_t block, void *out);
    /* x = (x - z) * s in place. */
    void (*affine_run)(float *x, int64_t n, float s, int32_t z);
    void (*affine_vec)(float *x, int64_t n, const float *s, const int32_t *z);
    /* Bits of the largest |x| (>= 0x7f800000 when something is not finite), smallest and largest x. */
    uint32_t (*amax_run)(const float *x, int64_t n);
    uint32_t (*amax_vec)(const float *x, int64_t n, float *amax); /* leaves amax untouched and says so when something is not finite */
    uint32_t (*range_run)(const float *x, int64_t n, float *lo, float *hi);
    uint32_t (*range_vec)(const float *x, int64_t n, float *lo, float *hi);
    void (*pack4)(const uint8_t *c, int64_t pairs, uint8_t *d);
} qx_leaf;

const qx_leaf *qx_leaf_ref(void);
const qx_leaf *qx_leaf_cpu(qx_isa isa);

bool qx_amax_using(const qx_leaf *l, const qx_grid *g, int dtype, const void *src, float *amax, qx_nonfinite *bad);
bool qx_min_max_using(const qx_leaf *l, const qx_grid *g, int dtype, const void *src, float *lo, float *hi, qx_nonfinite *bad);
bool qx_quantize_using(const qx_leaf *l, const qx_quant *q, int src_dtype, const void *src, void *dst);
bool qx_dequantize_using(const qx_leaf *l, const qx_quant *q, const void *codes, int dst_dtype, void *dst);
bool qx_fake_quantize_using(const qx_leaf *l, const qx_quant *q, float *x);

#endif
