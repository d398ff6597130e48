/* move.cu - kernels that move elements and compute nothing: strided copies, transposition through shared memory, gathers,
 * scatters, padding. */
#include "kernels/cuda/elem.h"

QK_KERNEL(copy_kernel, qk_copy_args)
{
    QK_EACH(i, a.n) qk_move(a.src, a.s0 + qk_offset(i, a.rank, a.dims, a.ss), a.dst, a.d0 + qk_offset(i, a.rank, a.dims, a.ds), a.size);
}
QK_EXTERN int qk_copy(qk_queue q, const qk_copy_args *a) { return QK_LAUNCH(copy_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

QK_KERNEL(fill_kernel, qk_fill_args)
{
    const uint64_t v = a.value;
    QK_EACH(i, a.n) qk_move(&v, 0, a.dst, i, a.size);
}
QK_EXTERN int qk_fill(qk_queue q, const qk_fill_args *a) { return QK_LAUNCH(fill_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

/* Tiles of 32 x 32: read along columns, written along rows; the odd width keeps a warp's reads of a column in different banks. */
enum { TILE = 32, TILE_ROWS = 8 };
QK_KERNEL(turn_kernel, qk_turn_args)
{
    const int t = QK_THREAD;
    QK_SHARED(uint64_t, tile, TILE * (TILE + 1));
    const int64_t tc = (a.cols + TILE - 1) / TILE, tr = (a.rows + TILE - 1) / TILE, b = QK_BLOCK / (tc * tr);
    const int64_t r0 = QK_BLOCK / tc % tr * TILE, c0 = QK_BLOCK % tc * TILE, base = b * a.rows * a.cols;
    for (int k = t / TILE; k < TILE; k += TILE_ROWS)
        if (r0 + k < a.rows && c0 + t % TILE < a.cols)
            qk_move(a.src, base + (r0 + k) * a.cols + c0 + t % TILE, &tile[k * (TILE + 1) + t % TILE], 0, a.size);
    QK_SYNC();
    for (int k = t / TILE; k < TILE; k += TILE_ROWS) {
        const int64_t c = c0 + k, at = a.width ? a.first + c / a.width * a.step + c % a.width : c, out = a.width ? a.out_cols : a.cols;
        /* the low bytes, as every device and host that runs this */
        uint64_t v = tile[t % TILE * (TILE + 1) + k] ^ (uint64_t)(uint32_t)a.flip;
        if (c < a.cols && r0 + t % TILE < a.rows) qk_move(&v, 0, a.dst, (b * out + at) * a.rows + r0 + t % TILE, a.size);
    }
}
QK_EXTERN int qk_turn(qk_queue q, const qk_turn_args *a)
{
    const int64_t blocks = a->batch * ((a->rows + TILE - 1) / TILE) * ((a->cols + TILE - 1) / TILE);
    return QK_LAUNCH(turn_kernel, blocks, TILE * TILE_ROWS, q, a);
}

QX_HD int64_t pad_index(int64_t i, int64_t n, int mode)
{
    if (mode == 1) return i < 0 ? 0 : i >= n ? n - 1 : i;
    if (mode == 3) return (i % n + n) % n;
    if (n == 1) return 0;
    i = (i % (2 * n - 2) + 2 * n - 2) % (2 * n - 2); /* reflect */
    return i < n ? i : 2 * n - 2 - i;
}

QK_KERNEL(pad_kernel, qk_pad_args)
{
    QK_EACH(i, a.n) {
        int64_t r = i, off = 0;
        for (int k = a.rank - 1; k >= 0; k--) {
            off += pad_index(r % a.dims[k] - a.begin[k], a.in[k], a.mode) * a.ss[k];
            r /= a.dims[k];
        }
        qk_move(a.src, off, a.dst, i, a.size);
    }
}
QK_EXTERN int qk_pad(qk_queue q, const qk_pad_args *a) { return QK_LAUNCH(pad_kernel, QK_EACH_BLOCKS(a->n), 256, q, a); }

QK_KERNEL(gather_kernel, qk_gather_args)
{
    QK_EACH(i, a.outer * a.count * a.inner) {
        const int64_t at = i / a.inner, o = at / a.count, v = qk_index(a.idx, a.wide, at % a.count, a.d, a.bad);
        if (v < 0) qk_zero(a.y, i, a.size);
        else qk_move(a.x, (o * a.d + v) * a.inner + i % a.inner, a.y, i, a.size);
    }
}
QK_EXTERN int qk_gather(qk_queue q, const qk_gather_args *a)
{
    return QK_LAUNCH(gather_kernel, QK_EACH_BLOCKS(a->outer * a->count * a->inner), 256, q, a);
}

QK_KERNEL(gather_elements_kernel, qk_gather_elements_args)
{
    QK_EACH(i, a.n) {
        const int64_t v = qk_index(a.idx, a.wide, i, a.d, a.bad);
        if (v < 0) qk_zero(a.y, i, a.size);
        else qk_move(a.x, qk_offset(i, a.rank, a.dims, a.ss) + v * a.along, a.y, i, a.size);
    }
}
QK_EXTERN int qk_gather_elements(qk_queue q, const qk_gather_elements_args *a)
{
    return QK_LAUNCH(gather_elements_kernel, QK_EACH_BLOCKS(a->n), 256, q, a);
}

QK_KERNEL(nd_kernel, qk_nd_args)
{
    QK_EACH(i, a.batch * a.per_batch * a.inner) {
        const int64_t tuple = i / a.inner, b = tuple / a.per_batch;
        int64_t off = b * a.x_batch + i % a.inner;
        int ok = 1;
        for (int k = 0; k < a.depth; k++) {
            const int64_t v = qk_index(a.idx, 1, tuple * a.depth + k, a.d[k], a.bad);
            ok = ok && v >= 0;
            off += v * a.stride[k];
        }
        if (a.scatter) {
            if (ok) qk_move(a.x, i, a.y, off, a.size);
        } else if (ok) {
            qk_move(a.x, off, a.y, i, a.size);
        } else {
            qk_zero(a.y, i, a.size);
        }
    }
}
QK_EXTERN int qk_nd(qk_queue q, const qk_nd_args *a)
{
    return QK_LAUNCH(nd_kernel, QK_EACH_BLOCKS(a->batch * a->per_batch * a->inner), 256, q, a);
}
