/* igemm_leaf.h - the register tiles behind igemm.c; the door that tests use to compare them. Internal. */
#ifndef QX_KERNELS_LOOPS_IGEMM_LEAF_H
#define QX_KERNELS_LOOPS_IGEMM_LEAF_H

#include "kernels/igemm.h"

enum { QX_IGEMM_ROWS = 8, QX_IGEMM_DEPTH = 1024 };
/* acc += a b for `rows` rows, at most QX_IGEMM_ROWS (stride QX_IGEMM_DEPTH; one more is read when they are odd), and one panel, `quads`
 * groups of four along k. */
typedef void qx_igemm_tile(int64_t rows, const uint8_t *a, const int8_t *b, int64_t quads, int32_t acc[QX_IGEMM_ROWS][QX_IGEMM_PANEL]);
/* level 0: plain C, 1: AVX2, 2: AVX-512 VNNI; NULL when this CPU has it not. */
qx_igemm_tile *qx_igemm_tile_at(int level);
void qx_igemm_run_using(qx_igemm_tile *tile, const qx_igemm *g, int64_t p, int64_t i0, int64_t i1);

#endif
