/* nbits.h - products with weights of 2, 4 or 8 bits in blocks along k, as MatMulNBits stores them, never expanded as a whole:
 *     y[m][n] = sum over k of x[m][k] * (code(n, k) - zero(n, block)) * scale(n, block) + bias[n].
 * Up to QX_NBITS_GEMV_ROWS rows run through a dot product that turns each code into a number once for up to four of them; more
 * unpack panels of 32 columns through the stack into the float product of gemm.h, once for some hundred rows. Pieces are
 * independent and give the same bits on any threads. */
#ifndef QX_KERNELS_NBITS_H
#define QX_KERNELS_NBITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QX_NBITS_GEMV_ROWS = 4, QX_NBITS_GEMV_ROWS_4 = 12 /* of 4-bit codes; at 14 both take as long */ };

typedef struct qx_nbits {
    int bits;                 /* 2, 4, 8 */
    int64_t n, k, block;      /* block: multiple of 16, or anything with bits 8 */
    const uint8_t *codes;     /* row n at codes + n * row_bytes: ceil(k / block) blocks of block * bits / 8 bytes, first
                               * element in the low bits */
    int64_t row_bytes;        /* 0: ceil(k / block) * block * bits / 8 */
    bool is_signed;           /* two's complement codes (DequantizeLinear of int4, int8): default zero point 0; unsigned: 2^(bits-1) */
    const float *scale;       /* [n][blocks] */
    const uint8_t *zero;      /* packed like codes, [n][ceil(blocks * bits / 8)] bytes a row; NULL: the default */
    const float *zero_f;      /* [n][blocks] float zero points instead; NULL: off */
    const float *bias;        /* [n] or NULL */
    bool rounds_x;            /* x is rounded first, each block of a row to codes of 8 bits under its own amax / 127 (half to even; what
                               * is not finite makes nothing of its block a number): codes are multiplied as integers where the CPU
                               * has VNNI, the rounded numbers as floats elsewhere */
} qx_nbits;

/* Floats of scratch for m rows of x. */
int64_t qx_nbits_scratch(const qx_nbits *w, int64_t m);
/* Before the pieces, each row once, in any order: brings x[m][k] (row stride ldx) into the form that they read. */
void qx_nbits_prepare(const qx_nbits *w, int64_t m, const float *x, int64_t ldx, int64_t row, float *scratch);
bool qx_nbits_prepares(const qx_nbits *w, int64_t m);      /* whether it does anything */
const char *qx_nbits_kernel(const qx_nbits *w, int64_t m); /* its name, for profiles */
int64_t qx_nbits_pieces(const qx_nbits *w, int64_t m); /* ranges of columns: more rows take wider ones */
void qx_nbits_piece(const qx_nbits *w, int64_t m, const float *x, int64_t ldx, const float *scratch, float *y, int64_t ldy, int64_t piece);
/* Floats out[k] of column n. */
void qx_nbits_column(const qx_nbits *w, int64_t n, float *out);

#endif
