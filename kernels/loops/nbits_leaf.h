/* nbits_leaf.h - dot products of nbits.c, one table per instruction set. Internal. */
#ifndef QX_KERNELS_LOOPS_NBITS_LEAF_H
#define QX_KERNELS_LOOPS_NBITS_LEAF_H

#include "kernels/loops/isa.h"
#include "kernels/nbits.h"

enum { QX_NBITS_ROWS = 4 }; /* whose prepared x lies side by side, sixteen floats each, for 4-bit codes */

static inline int64_t qx_nbits_blocks(const qx_nbits *w) { return w->k / w->block + (w->k % w->block != 0); }
static inline int64_t qx_nbits_padded_k(const qx_nbits *w) { return qx_nbits_blocks(w) * w->block; }
static inline int64_t qx_nbits_row_bytes(const qx_nbits *w) { return w->row_bytes ? w->row_bytes : qx_nbits_padded_k(w) * w->bits / 8; }
static inline unsigned qx_nbits_half(const qx_nbits *w) { return 1u << (w->bits - 1); }
/* The zero point of a block for unsigned codes, signed ones being half their range more. */
float qx_nbits_zero(const qx_nbits *w, int64_t n, int64_t b);

/* Columns side by side that read one x: codes and scales of the next one row_bytes and ld_scale further. */
typedef struct qx_nbits_dot {
    const uint8_t *codes; int64_t row_bytes;
    const float *scale; int64_t ld_scale;
    const float *zero; int64_t ld_zero;  /* zero points by block; NULL: zero_all everywhere */
    float zero_all;
    const float *x, *sum;                /* rows in prepared order; sums of their blocks, those of the next row ld_sum further */
    int64_t ld_sum;
    int64_t blocks, block;
    uint8_t flip;                        /* xor-ed into each byte */
} qx_nbits_dot;

/* ---- Rows rounded to codes of 8 bits (qx_nbits.rounds_x): sums of a block are integers, exact ----
 * A step of few rows: a line of 64 bytes of codes of a column. For each row of it QX_NBITS_LINE(bits) floats of room: the codes of
 * x (of 4 bits: 64 whose partners have the low nibbles, 64 of the high), as 16 int32 -half times their sums by lanes, and as 16
 * floats the scale of x by lanes. The rows of a line lie side by side. */
#define QX_NBITS_LINE(bits) ((bits) == 4 ? 64 : 48)

enum { QX_NBITS_STRETCH = 512 /* k of a panel that is unpacked at a time: the longest block */, QX_NBITS_TILE = 7 /* rows */ };
/* Many rows: 32 columns of `blocks` blocks, `quads` groups of four codes each. Arrays by block: [row][ld_block], [block][32]. */
typedef struct qx_nbits_tile {
    const int8_t *x; int64_t ldx;
    const float *x_scale, *x_sum;        /* of the codes' blocks */
    const int32_t *begin; int64_t ld_block; /* -half times x_sum */
    const uint8_t *panel;                /* [quad][column][4] */
    const float *scale, *zero;           /* of columns; the zero point less half of the range, NULL: 0 everywhere */
    int64_t blocks, quads;
    float *y; int64_t ldy, cols;         /* y += */
} qx_nbits_tile;

typedef struct qx_nbits_ints {
    void (*few4)(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy); /* y +=; rows <= QX_NBITS_ROWS */
    void (*few8)(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy);
    /* `bytes` (a multiple of 16) of each of `cols` <= 32 columns into a panel; 4-bit codes as the even, then the odd ones of each eight. */
    void (*pack)(const uint8_t *codes, int64_t row_bytes, int64_t cols, int64_t bytes, int bits, uint8_t flip, uint8_t *panel);
    void (*tile)(const qx_nbits_tile *t, int64_t rows); /* rows <= QX_NBITS_TILE */
} qx_nbits_ints;

typedef struct qx_nbits_leaf {
    const qx_nbits_ints *ints; /* NULL: rounded rows are multiplied as floats */
    /* y[r * ldy + c] += sum over blocks of scale[b] * (dot(x block, codes block) - zero[b] * sum[b]), for r < rows, c < cols.
     * dot4 takes up to QX_NBITS_ROWS rows, dot8 one. */
    void (*dot4)(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy);
    void (*dot8)(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy);
    /* out[i * ld + c] = (code i of column c - zero[c]) * scale[c] for 32 4-bit codes of `cols` <= 16 columns; what is there for
     * columns from cols on, up to 16, is made of the last one's codes and their zero and scale. */
    void (*panel4)(const uint8_t *codes, int64_t row_bytes, int64_t cols, uint8_t flip, const float *zero, const float *scale,
                   float *out, int64_t ld);
    void (*panel8)(const uint8_t *codes, int64_t row_bytes, int64_t cols, uint8_t flip, const float *zero, const float *scale,
                   float *out, int64_t ld); /* 16 8-bit codes */
} qx_nbits_leaf;

const qx_nbits_leaf *qx_nbits_leaf_ref(void);
#if defined(__x86_64__)
const qx_nbits_leaf *qx_nbits_leaf_avx2(void);
const qx_nbits_leaf *qx_nbits_leaf_avx512(void);
const qx_nbits_leaf *qx_nbits_leaf_vnni(void); /* the same with `ints`; NULL: this CPU has them not */
#endif
static inline const qx_nbits_leaf *qx_nbits_leaf_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return qx_nbits_leaf_vnni() ? qx_nbits_leaf_vnni() : qx_nbits_leaf_avx512();
    if (isa == QX_ISA_AVX2) return qx_nbits_leaf_avx2();
#endif
    (void)isa;
    return qx_nbits_leaf_ref();
}
int64_t qx_nbits_scratch_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m);
void qx_nbits_prepare_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *x, int64_t ldx, int64_t row, float *scratch);
int64_t qx_nbits_pieces_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m);
void qx_nbits_piece_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *x, int64_t ldx, const float *scratch,
                          float *y, int64_t ldy, int64_t piece);

/* nbits_rounded.c, for nbits.c: the same with integer sums. Whether blocks fit them: */
bool qx_nbits_in_ints(const qx_nbits_leaf *l, const qx_nbits *w);
int64_t qx_nbits_ints_scratch(const qx_nbits *w, int64_t m);
void qx_nbits_ints_prepare(const qx_nbits *w, int64_t m, const float *x, int64_t row, float *scratch);
int64_t qx_nbits_ints_pieces(const qx_nbits *w, int64_t m);
void qx_nbits_ints_piece(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *scratch, float *y, int64_t ldy, int64_t piece);
/* One row rounded, as floats. */
void qx_nbits_round_row(const qx_nbits *w, const float *x, float *out);

#endif
