/* codes.h - what adapters of integer arithmetic share: zero points and scales that are one number, one a row or one a column;
 * tiles of exact int32 sums; and how a tile is finished into int32, float or codes. */
#ifndef QX_RUNTIME_CPU_CODES_CODES_H
#define QX_RUNTIME_CPU_CODES_CODES_H

#include "kernels/igemm.h"
#include "runtime/cpu/op.h"

/* INT8 or UINT8, or an error naming the input. */
qx_status qx_code_input(const qx_call *c, uint32_t i, const qx_tensor **out);

/* A weight as packed panels: `count` matrices [k, n] of stored codes. */
typedef struct qx_code_panels { int8_t *packed; int32_t *sums; int64_t k, n, count; bool is_signed; } qx_code_panels;
/* Matrix i starts at data + i * stride; element (r, j) at r * row + j * col. Memory: the context's when kept (freed with
 * qx_code_panels_free), else scratch. */
typedef struct qx_code_source { const void *data; int64_t stride, row, col; } qx_code_source;
qx_status qx_code_pack(qx_call *c, const qx_code_source *s, bool keep, qx_code_panels *p);
void qx_code_panels_free(qx_ctx *ctx, qx_code_panels *p);

/* How sums become output. Sums s of row i, column j: kind INT32 s; FLOAT s * (sa * sb) + bias; CODES clamp(rne((s + ibias) * (sa
 * * sb / sy)) + zy). */
typedef enum qx_code_kind { QX_CODE_INT32, QX_CODE_FLOAT, QX_CODE_CODES } qx_code_kind;
typedef struct qx_code_out {
    qx_code_kind kind;
    qx_dtype codes; float sy; int32_t zy; /* CODES */
    const float *bias; const int32_t *ibias; /* [n] or NULL */
} qx_code_out;

enum { QX_CODE_ROWS = 64 }; /* rows of a tile; its columns are QX_IGEMM_PANEL */
/* One tile: rows [0, rows) by the columns of panel p of matrix `matrix`. */
typedef struct qx_code_tile {
    const qx_code_panels *w; int64_t matrix, panel, rows;
    const void *a; int64_t lda; bool a_signed;
    const int32_t *za; bool za_per_row;        /* NULL: 0 */
    const int32_t *zb; bool zb_per_col;        /* of the matrix */
    const float *sa; bool sa_per_row;          /* FLOAT and CODES */
    const float *sb; bool sb_per_col;
    const qx_code_out *out;
    void *y; int64_t row, col;                 /* element (0, 0) of the matrix's rows here; strides in elements */
} qx_code_tile;
void qx_code_tile_run(const qx_code_tile *t);

#endif
