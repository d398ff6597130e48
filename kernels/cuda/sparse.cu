/* sparse.cu - products with a 2:4 sparse weight on sparse tensor cores (mma.sp): of every four neighbours along k two are zero;
 * the other two are stored with their places, and the instruction picks the matching activations. The weight is the instruction's
 * A (16 rows), tokens are its columns (8 a step).
 *
 * Values and places are stored in the order in which the lanes of a warp hold them, so that a warp reads 512 bytes in one go.
 * Lane = 4 g + t. Of a tile of 16 rows by 32 (f16) or 64 (8 bit) columns it holds four registers: rows g, g+8, g, g+8, columns
 * from the left and from the right half. Places: two bits each, four bits a chunk of four columns, the first chunk in the low
 * bits. f16: word 2 g + t (t < 2) has chunks 4t .. 4t+3 of row g below and of row g+8 above. 8 bit: word 4 g + t has chunks 8 (t
 * >> 1) .. of row g + 8 (t & 1). Sources: PTX ISA, "Warp-level matrix instructions", mma.sp; CUTLASS, reorder_meta of
 * host_reorder.h read through ldmatrix (f16 and int8), and CuTe's ELayout of SM120_SPARSE_16x8x64 (8 bit), which agree. On the
 * host the instruction is a function with that text as its meaning. */
#include "kernels/cuda/elem.h"

enum { TILE_M = 16, TOKENS = 8, TOKEN_TILES = 2, WARPS = 8, LANES = 32, AHEAD = 4, TILE_OUT = TILE_M * TOKENS * TOKEN_TILES };

QX_HD int tile_k(int dtype) { return dtype == QK_F16 ? 32 : 64; }

/* ---- compress ---- */

/* Places of the two that stay in a chunk: the first two that are not zero, filled up from the end so that they rise. More than
 * two: *bad. */
QX_HD uint32_t pick(const void *w, int dtype, int64_t at, int32_t *bad)
{
    int place[2], n = 0;
    for (int i = 0; i < 4; i++) {
        const int zero = dtype == QK_F16 ? (((const uint16_t *)w)[at + i] & 0x7fffu) == 0
            : (((const uint8_t *)w)[at + i] & (dtype == QK_E4M3 ? 0x7fu : 0xffu)) == 0;
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
    const int chunks = a->dtype == QK_F16 ? 1 : 2, bits = a->dtype == QK_F16 ? 16 : 8,
        first = a->dtype == QK_F16 ? t + (r >> 1) * 4 : 2 * t + (r >> 1) * 8;
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
            a.meta[tile * 32 + lane] = places(&a, m0 + g + 8 * (t & 1), k0, 8 * (t >> 1), 8);
        }
    }
}
QK_EXTERN int qk_sparse_compress(qk_queue q, const qk_compress_args *a)
{
    return QK_LAUNCH(compress_kernel, QK_EACH_BLOCKS(a->n * a->k / 16), 256, q, a);
}

/* ---- the instruction ---- */

#ifdef __CUDACC__
#define MMA_SP(shape_and_types, c, a, b, e)                                                                                                                    \
    asm volatile("mma.sp::ordered_metadata.sync.aligned." shape_and_types " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0x0;"           \
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(e))
static __device__ __forceinline__ void mma_sp(int dtype, uint32_t *c, const uint32_t *a, const uint32_t *b, uint32_t e)
{
    if (dtype == QK_F16) MMA_SP("m16n8k32.row.col.f32.f16.f16.f32", c, a, b, e);
    else if (dtype == QK_I8) MMA_SP("m16n8k64.row.col.s32.s8.s8.s32", c, a, b, e);
#if __CUDA_ARCH__ >= 890
    else MMA_SP("m16n8k64.row.col.f32.e4m3.e4m3.f32", c, a, b, e);
#endif
}
#else
static float host_number(uint32_t reg, int at, int dtype)
{
    if (dtype == QK_F16) return qx_sc_f16_to_f32((uint16_t)(reg >> (16 * at)));
    return dtype == QK_I8 ? (float)(int8_t)(reg >> (8 * at)) : qx_sc_e4m3_to_f32((uint8_t)(reg >> (8 * at)));
}
typedef struct sparse_operands { const uint32_t *a, *b; uint32_t e; } sparse_operands; /* of a lane */
/* Element (row, column) of the sparse A of 32 lanes, and of B, by the layouts above. */
static float host_a(const void *const *lanes, int dtype, int row, int col)
{
    const int f16 = dtype == QK_F16, g = row % 8, high = row / 8, chunk = col / 4, per = f16 ? 4 : 8, half = chunk / per,
        in = chunk % per, t = f16 ? in : in / 2;
    const sparse_operands *places_of = lanes[f16 ? 4 * g + half : 4 * g + 2 * half + high], *values_of = lanes[4 * g + t];
    const uint32_t p = places_of->e >> (f16 ? 16 * high : 0) >> (4 * in) & 15u, reg = values_of->a[half * 2 + high];
    for (int k = 0; k < 2; k++)
        if ((int)(p >> (2 * k) & 3u) == col % 4) return host_number(reg, f16 ? k : in % 2 * 2 + k, dtype);
    return 0;
}
static float host_b(const void *const *lanes, int dtype, int k, int col)
{
    const int per = dtype == QK_F16 ? 8 : 16;
    const sparse_operands *of = lanes[4 * col + k % per / (per / 4)];
    return host_number(of->b[k / per], k % (per / 4), dtype);
}
static void mma_sp(int dtype, uint32_t *c, const uint32_t *a, const uint32_t *b, uint32_t e)
{
    const sparse_operands mine = {a, b, e};
    const void *const *lanes = qk_host_meet(&mine);
    for (int i = 0; i < 4; i++) {
        const int row = QK_THREAD % LANES / 4 + i / 2 * 8, col = QK_THREAD % 4 * 2 + i % 2;
        float s = 0;
        for (int k = 0; k < tile_k(dtype); k++) s += host_a(lanes, dtype, row, k) * host_b(lanes, dtype, k, col);
        c[i] = dtype == QK_I8 ? c[i] + (uint32_t)(int32_t)s : qx_bits_of(qx_of_bits(c[i]) + s);
    }
    qk_host_part();
}
#endif

/* ---- product ---- */

/* Four bytes of activation row `token` from column k on; zeros behind the last token. */
QX_HD uint32_t activation(const qk_sparse_args *a, const int dtype, int64_t token, int64_t k)
{
    const int size = dtype == QK_F16 ? 2 : 1;
    return token < a->m ? *(const uint32_t *)(const void *)((const uint8_t *)a->x + (token * a->k + k) * size) : 0u;
}

QX_HD void sparse_store(const qk_sparse_args *a, int64_t token, int64_t row, uint32_t sum)
{
    if (token >= a->m) return;
    if (a->ytype == QK_I32) {
        ((uint32_t *)a->y)[token * a->n + row] = sum;
        return;
    }
    float v = (a->dtype == QK_I8 ? (float)(int32_t)sum : qx_of_bits(sum)) * a->alpha;
    if (a->bias) v += qk_real(a->bias, a->ytype, row);
    qk_put_real(a->y, a->ytype, token * a->n + row, v);
}

/* A block has 16 rows of the weight and up to 16 tokens. With few tokens the time is that of reading the weight: the warps take
 * turns along k, each with the loads of AHEAD tiles under way, and their sums are added in the order of the warps. */
QK_INSIDE void sparse_body(const qk_sparse_args *a, const int dtype)
{
    const int t = QK_THREAD;
    QK_SHARED(uint32_t, red, WARPS * TILE_OUT);
    uint32_t acc[TOKEN_TILES * 4], av[AHEAD * 4], ev[AHEAD], bv[4];
    const int f16 = dtype == QK_F16, kt = tile_k(dtype);
    const int64_t tiles_k = a->k / kt, row0 = QK_BLOCK % (a->n / TILE_M), tok0 = QK_BLOCK / (a->n / TILE_M) * TOKENS * TOKEN_TILES;
    QK_UNROLL for (int i = 0; i < TOKEN_TILES * 4; i++) acc[i] = 0;
    for (int64_t k0 = 0; k0 < tiles_k; k0 += WARPS * AHEAD) {
        QK_UNROLL for (int s = 0; s < AHEAD; s++) {
            const int64_t kk = k0 + s * WARPS + t / LANES, tile = row0 * tiles_k + kk;
            if (kk >= tiles_k) continue;
            qk_load16((const uint32_t *)a->values + (tile * LANES + t % LANES) * 4, &av[s * 4]);
            ev[s] = f16 ? a->meta[tile * 16 + t % LANES / 4 * 2 + t % 2] : a->meta[tile * 32 + t % LANES];
        }
        QK_UNROLL for (int s = 0; s < AHEAD; s++)
            QK_UNROLL for (int j = 0; j < TOKEN_TILES; j++) {
                if (tok0 + j * TOKENS >= a->m) continue;
                const int64_t kk = k0 + s * WARPS + t / LANES;
                QK_UNROLL for (int r = 0; r < 4; r++)
                    bv[r] = kk >= tiles_k ? 0u : activation(a, dtype, tok0 + j * TOKENS + t % LANES / 4,
                                                            kk * kt + (f16 ? t % 4 * 2 + 8 * r : t % 4 * 4 + 16 * r));
                if (kk < tiles_k) mma_sp(dtype, acc + 4 * j, av + 4 * s, bv, ev[s]); /* the same for all lanes of a warp */
            }
    }
    QK_UNROLL for (int i = 0; i < TOKEN_TILES * 4; i++) {
        const int row = t % LANES / 4 + i % 4 / 2 * 8, token = i / 4 * TOKENS + t % 4 * 2 + i % 2;
        red[t / LANES * TILE_OUT + token * TILE_M + row] = acc[i];
    }
    QK_SYNC();
    for (int e = t; e < TILE_OUT; e += QK_NT) {
        uint32_t sum = red[e];
        for (int w = 1; w < WARPS; w++) {
            const uint32_t v = red[w * TILE_OUT + e];
            sum = dtype == QK_I8 ? sum + v : qx_bits_of(qx_of_bits(sum) + qx_of_bits(v));
        }
        sparse_store(a, tok0 + e / TILE_M, row0 * TILE_M + e % TILE_M, sum);
    }
}

/* E4M3 is an instruction of sm_89 and 120; on 90 and 100 the compiler makes two of f16 of it and conversions, which want registers. */
#define SPARSE_KERNEL(name, dtype, resident) \
    QK_KERNEL_RESIDENT(name, qk_sparse_args, WARPS * LANES, resident) { sparse_body(&a, dtype); }
SPARSE_KERNEL(sparse_f16, QK_F16, 2)
SPARSE_KERNEL(sparse_s8, QK_I8, 2)
SPARSE_KERNEL(sparse_e4m3, QK_E4M3, 1)
QK_EXTERN int qk_sparse_gemm(qk_queue q, const qk_sparse_args *a)
{
    const int64_t blocks = a->n / TILE_M * ((a->m + TOKENS * TOKEN_TILES - 1) / (TOKENS * TOKEN_TILES));
    if (a->dtype == QK_F16) return QK_LAUNCH(sparse_f16, blocks, WARPS * LANES, q, a);
    if (a->dtype == QK_I8) return QK_LAUNCH(sparse_s8, blocks, WARPS * LANES, q, a);
    return QK_LAUNCH(sparse_e4m3, blocks, WARPS * LANES, q, a);
}
