/* igemm.h - exact 8-bit integer product: C = (A - za)(B - zb) in int32 (wrapping as ONNX's MatMulInteger does), for any mix of
 * signed and unsigned operands. No saturating instruction is used: VNNI where the CPU has it, widening products elsewhere; all
 * give the same integers.
 *
 * B is packed once as signed bytes (unsigned ones minus 128) in panels of 32 columns, four rows of k beside each other, with its
 * column sums. A is read as it lies and turned to unsigned a tile at a time on the stack. */
#ifndef QX_KERNELS_IGEMM_H
#define QX_KERNELS_IGEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QX_IGEMM_PANEL = 32 };

int64_t qx_igemm_panels(int64_t n);
/* Bytes of a packed B[k, n], and int32s of its column sums. */
size_t qx_igemm_packed_bytes(int64_t k, int64_t n);
int64_t qx_igemm_sums(int64_t n);
/* Columns of a B[k, cols] as a panel of `width` columns, four rows beside each other: element (i, j) of B is at b[i * row + j * col].
 * Zeros behind the last column and behind k, up to 4 * quads. */
typedef struct qx_igemm_part { const void *b; bool is_signed; int64_t k, cols, row, col; } qx_igemm_part;
void qx_igemm_pack(const qx_igemm_part *b, int64_t width, int64_t quads, int8_t *panel);
/* Packs panel p: element (i, j) of B is at b[i * row + j * col]. Panels are independent. */
void qx_igemm_pack_panel(const void *b, bool is_signed, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, int8_t *packed,
                         int32_t *sums);

typedef struct qx_igemm {
    int64_t m, n, k;
    const void *a; int64_t lda; bool a_signed;    /* [m][k] bytes, row stride lda */
    const int32_t *za; bool za_per_row;           /* [1] or [m]; NULL: 0 */
    const int8_t *packed; const int32_t *sums; bool b_signed;
    const int32_t *zb; bool zb_per_col;           /* [1] or [n]; NULL: 0 */
    int32_t *c; int64_t ldc;                      /* integers out; or NULL and instead: */
    float *y; int64_t ldy;                        /* y = (float)C * (scale_a[i] * scale_b[j]) + bias[j] */
    const float *scale_a; bool scale_a_per_row;   /* [1] or [m] */
    const float *scale_b; bool scale_b_per_col;   /* [1] or [n] */
    const float *bias;                            /* [n] or NULL */
} qx_igemm;
/* Rows [i0, i1) of panel p. Any cut of the work over threads gives the same result. */
void qx_igemm_run(const qx_igemm *g, int64_t p, int64_t i0, int64_t i1);

/* ---- Few rows ---- One token reads each weight once: panels as oneDNN packs them, `width` columns (32 or 64), four rows of k
 * beside each other, fetched ahead of their use. False: no kernel on this CPU (without VNNI) or for this width. */
enum { QX_IGEMM_FEW = 6, QX_IGEMM_WIDEST = 64 };
bool qx_igemm_has_few(int64_t width);
/* acc[r * width + j] = sum over i < 4 * quads of a[r * lda + i] * panel[i / 4][j][i % 4]; rows of a are readable up to whole quads. */
void qx_igemm_few(int64_t rows, const uint8_t *a, int64_t lda, const int8_t *panel, int64_t quads, int64_t width, int32_t *acc);
/* Sums of a panel's columns. */
void qx_igemm_panel_sums(const int8_t *panel, int64_t quads, int64_t width, int32_t *sums);

#endif
