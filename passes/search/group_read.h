/* group_read.h - the weights of a group, after their steps, read once: some rows kept, and what their columns hold. */
#ifndef QX_PASSES_GROUP_READ_H
#define QX_PASSES_GROUP_READ_H

#include "passes/search/group.h"

/* Columns of all weights of a group: the largest |W| of each, and (NULL: not asked) the mean over rows of |W| / max of its block
 * (0: the row), which is AWQ's weight scale. */
typedef struct qx_group_columns { int64_t block; float *max, *mean; } qx_group_columns; /* [k] */
/* Rows of an item's weight; `at`: how many of the pieces before it lie in front of them. */
typedef struct qx_piece { int64_t item, first, rows, at; } qx_piece;
/* Pieces in order of item and row; rows[..][k] gets those of all, one behind the other. */
typedef struct qx_pieces { const qx_piece *items; int64_t n; float *rows; } qx_pieces;
/* kept and columns may be NULL; without columns only strips with pieces in them are read. */
qx_status qx_group_read(qx_ctx *ctx, const qx_group *g, const qx_pieces *kept, const qx_group_columns *columns);
/* The maxima of all columns alone: max[k]. */
qx_status qx_group_maxima(qx_ctx *ctx, const qx_group *g, float *max);

#endif
