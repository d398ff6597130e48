/* quant.h - quantize, dequantize, ranges and scales over matrices in memory. Pointers and sizes only.
 *
 * How scales lie over a matrix is one small struct, qx_grid: the matrix is [rows, cols] row-major as stored, and a cell of
 * block_r x block_c elements shares one scale. That covers every layout in use:
 *     per tensor            block_r = rows, block_c = cols      scale[1]
 *     per row               block_r = 1,    block_c = cols      scale[rows]              weights [N,K], Conv [O, I*kh*kw]
 *     per column            block_r = rows, block_c = 1         scale[cols]              MatMul weights [K,N]
 *     blocks along rows     block_r = 1,    block_c = B         scale[rows][ceil(cols/B)]
 *     blocks along axis 0   block_r = B,    block_c = 1         scale[ceil(rows/B)][cols]
 *     2-D blocks            block_r = 128,  block_c = 128       scale[ceil(rows/128)][ceil(cols/128)]
 * The last cell of a row or column may be partial. Tiles for threads: cut rows at multiples of block_r (and, for 4 and 2 bit codes, at
 * whole bytes) and pass the tile as a matrix of its own. Results are the same bits on every instruction set. */
#ifndef QX_KERNELS_QUANT_H
#define QX_KERNELS_QUANT_H

#include "kernels/dtype.h"

typedef struct qx_grid { int64_t rows, cols, block_r, block_c; } qx_grid;
static inline int64_t qx_cells_of(int64_t n, int64_t block) { return n / block + (n % block != 0); }
static inline int64_t qx_grid_cell_cols(const qx_grid *g) { return qx_cells_of(g->cols, g->block_c); }
static inline int64_t qx_grid_cells(const qx_grid *g) { return qx_cells_of(g->rows, g->block_r) * qx_grid_cell_cols(g); }

/* ---- ranges ---- */

/* What was found that is not a number: counts, and the flat index of the first one (-1: none). Start with QX_NONFINITE_NONE. */
typedef struct qx_nonfinite { int64_t nan, inf, first; } qx_nonfinite;
#define QX_NONFINITE_NONE ((qx_nonfinite){0, 0, -1})

/* amax[cell] = max(amax[cell], |x|) over the finite elements; the caller starts with zeros, so tiles accumulate. NaN and Inf are
 * counted in *bad (when not NULL; `first` counts from this call's src) and kept out. src dtype: FLOAT, FLOAT16, BFLOAT16 or any other
 * that qx_to_f32 knows. false: unknown dtype. */
bool qx_amax(const qx_grid *g, int dtype, const void *src, float *amax, qx_nonfinite *bad);
/* lo[cell] = min(lo[cell], x), hi[cell] = max(hi[cell], x) over the finite elements. Starting with zeros gives ranges that contain 0. */
bool qx_min_max(const qx_grid *g, int dtype, const void *src, float *lo, float *hi, qx_nonfinite *bad);

/* ---- formats and scales ---- */

typedef struct qx_format {
    qx_dtype codes;  /* INT8 UINT8 INT16 UINT16 INT4 UINT4 INT2 UINT2 FLOAT8E4M3FN FLOAT8E5M2 (and FNUZ) FLOAT4E2M1 */
    qx_dtype scale;  /* as stored: FLOAT FLOAT16 BFLOAT16 FLOAT8E8M0 FLOAT8E4M3FN; UNDEFINED counts as FLOAT */
    bool narrow;     /* symmetric integers: lowest code is -qmax (INT8: -127) */
    bool negative;   /* search may choose a negative scale, so that the largest value lands on the lowest code exactly */
} qx_format;

/* Lowest and highest code value (INT8 -128 127, or -127 with narrow; E4M3 -448 448); false when codes is no quantized type. */
bool qx_format_range(const qx_format *f, float *lo, float *hi);
/* The scale as it will be stored: rounded to f->scale (half to even; E8M0: up to a power of two) and kept usable: never 0, NaN,
 * Inf. Not finite gives 1, and so does 0 (E8M0: 2^-127, code 0). |s| below the smallest magnitude that is kept (FLT_MIN for f32
 * and bf16, 2^-24 for f16, 2^-9 for E4M3, 2^-127 for E8M0) or above the largest is moved there. *adjusted (may be NULL) is
 * incremented when that happened. */
float qx_scale_stored(const qx_format *f, float s, int64_t *adjusted);
void qx_scales_stored(const qx_format *f, float *s, int64_t n, int64_t *adjusted); /* in place */
/* scale[i] = stored(amax[i] / qmax), amax 0 gives 1 (E8M0: 2^-127). qmax: 127, 7, 1, 448, 57344, 6. Division in float. */
void qx_scale_from_amax(const qx_format *f, const float *amax, int64_t n, float *scale, int64_t *adjusted);
/* lo <= 0 <= hi is enforced; scale[i] = stored((hi - lo) / (code_hi - code_lo)), zero[i] = clamp(rne(code_lo - lo / scale)).
 * A range of 0 gives scale 1 and the zero point 0 (clamped into the codes). */
void qx_scale_from_range(const qx_format *f, const float *lo, const float *hi, int64_t n, float *scale, int32_t *zero, int64_t *adjusted);

/* ---- codes ---- */

typedef struct qx_quant {
    qx_grid grid;
    qx_format format;
    const float *scale;   /* [cells], as stored (already rounded) */
    const int32_t *zero;  /* [cells]; NULL: 0. Integer codes only */
    bool no_saturate;     /* 8-bit floats: overflow gives NaN (E4M3, FNUZ) or Inf (E5M2), as ONNX's saturate=0 */
    bool unpacked;        /* 4 and 2 bit codes: one byte a code (the low bits; upper bits 0), not packed */
} qx_quant;

/* Integers: code = clamp(rne(x / scale) + zero) to the format's range: true division in float, half to even, exactly as ONNX's
 * QuantizeLinear. Floats: code = round-to-format(x / scale). NaN gives the code of 0 for integers and E2M1, NaN otherwise.
 * A zero scale divides as IEEE says: x/0 saturates, 0/0 counts as NaN.
 * src is [rows, cols] of src_dtype; dst is packed flat over the whole matrix. false: a dtype that cannot be converted. */
bool qx_quantize(const qx_quant *q, int src_dtype, const void *src, void *dst);
/* (code - zero) * scale in float, then rounded to dst_dtype. INT32 codes are accepted here too. */
bool qx_dequantize(const qx_quant *q, const void *codes, int dst_dtype, void *dst);
/* Quantize and dequantize in place: what a consumer of the codes will see. x is [rows, cols] float. */
bool qx_fake_quantize(const qx_quant *q, float *x);

/* One code a byte <-> packed, first element in the low bits, last byte padded with zero bits. bits 4 or 2; unpack sign-extends
 * when asked. */
void qx_pack(int bits, const uint8_t *codes, int64_t n, uint8_t *dst);
void qx_unpack(int bits, bool sign, const uint8_t *src, int64_t n, uint8_t *codes);

/* dst[c][r] = src[r][c] for elements of size 1, 2, 4 or 8; ld in elements. */
bool qx_transpose(int elem_size, int64_t rows, int64_t cols, const void *src, int64_t src_ld, void *dst, int64_t dst_ld);
/* codes[rows][cols], one a byte, to dst[cols][ceil(rows * bits / 8)]: transposed and packed along rows, `up` added to each modulo
 * 2^bits (8, 4 or 2 bits), missing codes of a last byte 0. dst_ld in bytes. */
void qx_pack_columns(int bits, int up, int64_t rows, int64_t cols, const uint8_t *codes, uint8_t *dst, int64_t dst_ld);

#endif
