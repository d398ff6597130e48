/* sparse.cu - products with a 2:4 sparse weight on sparse tensor cores (mma.sp): of every four neighbours along k two are zero; the other two are stored with their places,
 * and the instruction picks the matching activations. The weight is the instruction's A (16 rows), tokens are its columns (8 a step).
 *
 * Values and places are stored in the order in which the lanes of a warp hold them, so that a warp reads 512 bytes in one go. Lane = 4 g + t. Of a tile of 16 rows by
 * 32 (f16) or 64 (8 bit) columns it holds four registers: rows g, g+8, g, g+8, columns from the left and from the right half. Places: two bits each, four bits a chunk of four
 * columns, the first chunk in the low bits. f16: word 2 g + t (t < 2) has chunks 4t .. 4t+3 of row g below and of row g+8 above. 8 bit: word 4 g + t has chunks
 * 8 (t & 1) .. of row g + 8 (t >> 1). Source: PTX ISA, "Warp-level matrix instructions", mma.sp; on the host the instruction is a function with that text as its meaning. */
#include "kernels/cuda/elem.h"

enum { TILE_M = 16, TOKENS = 8, TOKEN_TILES = 4, WARPS = 4, LANES = 32 };

QX_HD int tile_k(int dtype) { return dtype == QK_F16 ? 32 : 64; }

/* ---- compress ---- */

/* Places of the two that stay in a chunk: the first two that are not zero, filled up from the end so that they rise. More than two: *bad. */
QX_HD uint32_t pick(const void *w, int dtype, int64_t at, int32_t *bad)
{
    int place[2], n = 0;
    for (int i = 0; i < 4; i++) {
        const int zero = dtype == QK_F16 ? (((const uint16_t *)w)[at + i] & 0x7fffu) == 0 : ((const uint8_t *)w)[at + i] == 0;
        if (zero) continue;
        if (n == 2) {
            *bad = 1;
            break;
        }
        place[n++] = i;
    }
    if (n == 0) return 0 | 1u << 2;
    if (n == 1) return place[0] == 3 ? 2u | 3u << 2 : (uint32_t)place[0] | 3u << 2;
    return (uint32_t)place[0] | (uint32_t)place[1] << 2;
}

QX_HD uint32_t code(const void *w, int dtype, int64_t i) { return dtype == QK_F16 ? ((const uint16_t *)w)[i] : ((const uint8_t *)w)[i]; }

/* Register r of lane (g, t): its values, two a chunk. */
QX_HD uint32_t packed_register(const qk_compress_args *a, int64_t m0, int64_t k0, int g, int t, int r)
{
    const int64_t row = m0 + g + (r & 1) * 8;
    const int chunks = a->dtype == QK_F16 ? 1 : 2, bits = a->dtype == QK_F16 ? 16 : 8, first = a->dtype == QK_F16 ? t + (r >> 1) * 4 : 2 * t + (r >> 1) * 8;
    uint32_t out = 0;
    for (int c = 0; c < chunks; c++) {
        const int64_t at = row * a->k + k0 + 4 * (first + c);
        const uint32_t p = pick(a->w, a->dtype, at, a->bad);
        out |= code(a->w, a->dtype, at + (p & 3u)) << (2 * c * bits);
        out |= code(a->w, a->dtype, at + (p >> 2)) << ((2 * c + 1) * bits);
    }
    return out;
}

QX_HD uint32_t places(const qk_compress_args *a, int64_t row, int64_t k0, int first, int chunks)
{
    uint32_t out = 0;
    for (int c = 0; c < chunks; c++) out |= pick(a->w, a->dtype, row * a->k + k0 + 4 * (first + c), a->bad) << (4 * c);
    return out;
}

QK_KERNEL(compress_kernel, qk_compress_args)
{
    const int kt = tile_k(a.dtype);
    const int64_t tiles_k = a.k / kt;
    QK_EACH(i, a.n / TILE_M * tiles_k * LANES) {
        const int lane = (int)(i % LANES), g = lane / 4, t = lane % 4;
        const int64_t tile = i / LANES, m0 = tile / tiles_k * TILE_M, k0 = tile % tiles_k * kt;
        for (int r = 0; r < 4; r++) ((uint32_t *)a.values)[(tile * LANES + lane) * 4 + r] = packed_register(&a, m0, k0, g, t, r);
        if (a.dtype == QK_F16) {
            if (t < 2) a.meta[tile * 16 + 2 * g + t] = places(&a, m0 + g, k0, 4 * t, 4) | places(&a, m0 + g + 8, k0, 4 * t, 4) << 16;
        } else {
            a.meta[tile * 32 + lane] = places(&a, m0 + g + 8 * (t >> 1), k0, 8 * (t & 1), 8);
        }
    }
}
QK_HOST(compress_kernel, qk_compress_args)
QK_EXTERN int qk_sparse_compress(qk_queue q, const qk_compress_args *a) { return QK_LAUNCH(compress_kernel, QK_EACH_BLOCKS(a->n * a->k / 16), 256, q, a); }

/* ---- the instruction ---- */

#ifdef __CUDACC__
static __device__ __forceinline__ void mma_f16(float *c, const uint32_t *a, const uint32_t *b, uint32_t e)
{
    asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0x0;"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(e));
}
static __device__ __forceinline__ void mma_s8(int32_t *c, const uint32_t *a, const uint32_t *b, uint32_t e)
{
    asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0x0;"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(e));
}
#define MMA_F16(c, cj, a, b, e) mma_f16((c) + 4 * (cj), a, b, (e)[0])
#define MMA_S8(c, cj, a, b, e) mma_s8((c) + 4 * (cj), a, b, (e)[0])
#else
/* Element (row, column) of the sparse A of 32 lanes, and of B, by the layouts above. */
static float host_a(const uint32_t (*a)[4], const uint32_t (*e)[1], int f16, int row, int col)
{
    const int g = row % 8, high = row / 8, chunk = col / 4, per = f16 ? 4 : 8, half = chunk / per, in = chunk % per, t = f16 ? in : in / 2;
    const uint32_t word = f16 ? e[4 * g + half][0] >> (16 * high) : e[4 * g + 2 * high + half][0];
    const uint32_t p = word >> (4 * in) & 15u, reg = a[4 * g + t][half * 2 + high];
    for (int k = 0; k < 2; k++)
        if ((int)(p >> (2 * k) & 3u) == col % 4) {
            const int at = f16 ? k : in % 2 * 2 + k;
            return f16 ? qx_sc_f16_to_f32((uint16_t)(reg >> (16 * at))) : (float)(int8_t)(reg >> (8 * at));
        }
    return 0;
}
static float host_b(const uint32_t (*b)[4], int f16, int k, int col)
{
    if (f16) return qx_sc_f16_to_f32((uint16_t)(b[4 * col + k % 8 / 2][k / 8] >> (16 * (k % 2))));
    return (float)(int8_t)(b[4 * col + k % 16 / 4][k / 16] >> (8 * (k % 4)));
}
static float host_mma(const uint32_t (*a)[4], const uint32_t (*b)[4], const uint32_t (*e)[1], int f16, int lane, int i)
{
    const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
    float s = 0;
    for (int k = 0; k < (f16 ? 32 : 64); k++) s += host_a(a, e, f16, row, k) * host_b(b, f16, k, col);
    return s;
}
#endif

/* ---- product ---- */

/* Four bytes of activation row `token` from column k on; zeros behind the last token. */
QX_HD uint32_t activation(const qk_sparse_args *a, int64_t token, int64_t k)
{
    const int size = a->dtype == QK_F16 ? 2 : 1;
    uint32_t v = 0;
    if (token < a->m) memcpy(&v, (const uint8_t *)a->x + (token * a->k + k) * size, sizeof v);
    return v;
}

QK_KERNEL(sparse_kernel, qk_sparse_args)
{
    QK_PRIVATE(float, acc, TOKEN_TILES * 4);
    QK_PRIVATE(int32_t, sum, TOKEN_TILES * 4);
    QK_PRIVATE(uint32_t, av, 4);
    QK_PRIVATE(uint32_t, bv, 4);
    QK_PRIVATE(uint32_t, ev, 1);
    const int f16 = a.dtype == QK_F16, kt = tile_k(a.dtype);
    const int64_t tiles_k = a.k / kt, groups = (a.n / TILE_M + WARPS - 1) / WARPS, tok0 = QK_BLOCK / groups * TOKENS * TOKEN_TILES;
    QK_THREADS(t) for (int i = 0; i < TOKEN_TILES * 4; i++) QK_MY(acc)[i] = 0, QK_MY(sum)[i] = 0;
    for (int64_t kk = 0; kk < tiles_k; kk++) {
        QK_THREADS(t) {
            const int64_t mt = QK_BLOCK % groups * WARPS + t / LANES, tile = (mt < a.n / TILE_M ? mt : 0) * tiles_k + kk;
            for (int r = 0; r < 4; r++) QK_MY(av)[r] = ((const uint32_t *)a.values)[(tile * LANES + t % LANES) * 4 + r];
            QK_MY(ev)[0] = f16 ? a.meta[tile * 16 + t % LANES / 4 * 2 + t % 2] : a.meta[tile * 32 + t % LANES];
        }
        for (int j = 0; j < TOKEN_TILES; j++) {
            QK_THREADS(t) for (int r = 0; r < 4; r++)
                QK_MY(bv)[r] = activation(&a, tok0 + j * TOKENS + t % LANES / 4, kk * kt + (f16 ? t % 4 * 2 + 8 * r : t % 4 * 4 + 16 * r));
#ifdef __CUDACC__
            if (f16) MMA_F16(acc, j, av, bv, ev);
            else MMA_S8(sum, j, av, bv, ev);
#else
            QK_THREADS(t) for (int i = 0; i < 4; i++) {
                const int w = t / LANES * LANES;
                const float v = host_mma((const uint32_t (*)[4])&av_of[w], (const uint32_t (*)[4])&bv_of[w], (const uint32_t (*)[1])&ev_of[w], f16, t % LANES, i);
                if (f16) QK_MY(acc)[4 * j + i] += v;
                else QK_MY(sum)[4 * j + i] += (int32_t)v;
            }
#endif
        }
    }
    QK_THREADS(t) for (int i = 0; i < TOKEN_TILES * 4; i++) {
        const int64_t mt = QK_BLOCK % groups * WARPS + t / LANES, row = mt * TILE_M + t % LANES / 4 + i % 4 / 2 * 8, token = tok0 + i / 4 * TOKENS + t % 4 * 2 + i % 2;
        if (mt >= a.n / TILE_M || token >= a.m) continue;
        if (a.ytype == QK_I32) {
            ((int32_t *)a.y)[token * a.n + row] = QK_MY(sum)[i];
            continue;
        }
        float v = (f16 ? QK_MY(acc)[i] : (float)QK_MY(sum)[i]) * a.alpha;
        if (a.bias) v += qk_real(a.bias, a.ytype, row);
        qk_put_real(a.y, a.ytype, token * a.n + row, v);
    }
}
QK_HOST(sparse_kernel, qk_sparse_args)
QK_EXTERN int qk_sparse_gemm(qk_queue q, const qk_sparse_args *a)
{
    const int64_t groups = (a->n / TILE_M + WARPS - 1) / WARPS, tokens = (a->m + TOKENS * TOKEN_TILES - 1) / (TOKENS * TOKEN_TILES);
    return QK_LAUNCH(sparse_kernel, groups * tokens, WARPS * LANES, q, a);
}
