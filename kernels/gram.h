/* gram.h - X'X of a block of rows, upper half in tiles of 16 x 16: rows are packed into panels of 16 columns, then every pair of
 * panels adds its tile to sums in float64. A dot product is a chain of fused multiply-adds in float32 over the rows of the block:
 * the same bits with every instruction set. */
#ifndef QX_KERNELS_GRAM_H
#define QX_KERNELS_GRAM_H

#include <stdint.h>

enum { QX_GRAM_TILE = 16, QX_GRAM_CELLS = QX_GRAM_TILE * QX_GRAM_TILE };

static inline int64_t qx_gram_panels(int64_t k) { return (k + QX_GRAM_TILE - 1) / QX_GRAM_TILE; }
/* Place of tile (i, j), i <= j, of p panels: rows of tiles one behind the other. */
static inline int64_t qx_gram_at(int64_t p, int64_t i, int64_t j) { return i * p - i * (i - 1) / 2 + (j - i); }
static inline int64_t qx_gram_tiles(int64_t k) { return qx_gram_at(qx_gram_panels(k), qx_gram_panels(k), qx_gram_panels(k)); }

typedef struct qx_gram_block {
    const float *panels; /* [p][rows][16] */
    double *tiles;       /* [qx_gram_tiles][16][16] */
    int64_t rows, p;
} qx_gram_block;

/* panel[rows][16] from the first 16 columns of x, fewer when cols_left is: zeros beside them. */
void qx_gram_pack(const float *x, int64_t rows, int64_t stride, int64_t cols_left, float *panel);

/* The work as independent pieces, whose operands fit a second cache: for i in [0, pieces) qx_gram_piece(b, i), on any threads. */
int64_t qx_gram_pieces(int64_t p);
void qx_gram_piece(const qx_gram_block *b, int64_t i);

#endif
