/* search_group.h - sixteen blocks of a matrix turned so that each is a lane, for the searches of search.c and nvfp4.c. Internal
 * to kernels/. */
#ifndef QX_KERNELS_SEARCH_GROUP_H
#define QX_KERNELS_SEARCH_GROUP_H

#include "kernels/loops/search_leaf.h"

enum { QX_PIECE = 256 }; /* elements of a block in a tile */

/* How blocks lie: rows of k elements; columns: x is [k][rows]. weight: [k], or NULL. */
typedef struct qx_lay { int64_t rows, k, block; bool columns; const float *weight; } qx_lay;
static inline int64_t qx_lay_along(const qx_lay *y) { return qx_cells_of(y->k, y->block); } /* blocks of a row */

/* Element i of a lane lies at x[lane][i * step], its weight at w[lane][i]. Lanes without a block have n 0. */
typedef struct qx_group {
    const float *x[QX_LANES], *w[QX_LANES];
    int64_t n[QX_LANES], longest, step;
    bool weighted;
    const float *tile; int64_t ld;       /* the piece: element i of the lanes at tile + i * ld; in `room`, or where it lies */
    int64_t loaded, fixed_loaded;        /* where the piece begins; -1: none yet */
    float room[QX_PIECE * QX_LANES], wtile[QX_PIECE * QX_LANES];
    int32_t fixed[QX_PIECE / 2 * QX_LANES]; /* the piece in fixed point, two elements a word */
} qx_group;

/* Blocks first .. first + QX_LANES of the output, which is [rows][along], or [along][rows] by columns. */
void qx_group_place(qx_group *g, const qx_lay *y, const float *x, int64_t first);
/* Elements [at, at + QX_PIECE) of all blocks, zeros behind the end of each; the piece loaded last is kept. Returns how many there are. */
int64_t qx_group_load(qx_group *g, int64_t at);
static inline const float *qx_group_weights(const qx_group *g) { return g->weighted ? g->wtile : NULL; }

#endif
