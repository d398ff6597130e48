/* bench_kernels.c - speed of the numeric loops on one core: billions of elements a second, and time as a multiple of a memcpy of the
 * same bytes (source plus result). bench_kernels [millions of elements] [filter] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/gemm.h"
#include "kernels/loops/nbits_leaf.h"
#include "kernels/loops/igemm_leaf.h"
#include "kernels/matmul.h"
#include "kernels/loops/quant_leaf.h"
#include "kernels/loops/search_leaf.h"
#include "kernels/solve/solve.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* one thread: its own time, also on a busy machine */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct data {
    int64_t rows, cols;
    float *f32;
    uint16_t *f16;
    float *scale, *scale2; /* big enough for one each element of a row or block */
    int32_t *zero;
    void *out;
} data;

typedef struct bench_case { const char *name; qx_dtype src, codes; int64_t block_r, block_c; bool zero; } bench_case; /* block 0: all */
static const bench_case cases[] = {
    {"amax f32 rows", QX_DT_FLOAT, QX_DT_UNDEFINED, 1, 0, false},
    {"amax f16 rows", QX_DT_FLOAT16, QX_DT_UNDEFINED, 1, 0, false},
    {"amax f16 columns", QX_DT_FLOAT16, QX_DT_UNDEFINED, 0, 1, false},
    {"amax f16 blocks 32", QX_DT_FLOAT16, QX_DT_UNDEFINED, 1, 32, false},
    {"int8 f32 rows", QX_DT_FLOAT, QX_DT_INT8, 1, 0, false},
    {"int8 f16 rows", QX_DT_FLOAT16, QX_DT_INT8, 1, 0, false},
    {"int8 f16 columns", QX_DT_FLOAT16, QX_DT_INT8, 0, 1, false},
    {"uint8 f32 tensor zp", QX_DT_FLOAT, QX_DT_UINT8, 0, 0, true},
    {"fp8 f32 rows", QX_DT_FLOAT, QX_DT_FLOAT8E4M3FN, 1, 0, false},
    {"fp8 f16 tensor", QX_DT_FLOAT16, QX_DT_FLOAT8E4M3FN, 0, 0, false},
    {"fp8 f16 128x128", QX_DT_FLOAT16, QX_DT_FLOAT8E4M3FN, 128, 128, false},
    {"int4 f32 blocks 32", QX_DT_FLOAT, QX_DT_INT4, 1, 32, false},
    {"int4 f16 blocks 128", QX_DT_FLOAT16, QX_DT_INT4, 1, 128, false},
    {"int4 f16 axis 0 128", QX_DT_FLOAT16, QX_DT_INT4, 128, 1, false},
    {"uint4 f16 blocks 32 zp", QX_DT_FLOAT16, QX_DT_UINT4, 1, 32, true},
    {"fp4 f16 blocks 16", QX_DT_FLOAT16, QX_DT_FLOAT4E2M1, 1, 16, false},
};

static double best_of(int n, void (*fn)(const data *, const bench_case *, const qx_leaf *), const data *d, const bench_case *c,
                      const qx_leaf *l)
{
    double best = 1e30;
    for (int i = 0; i < n; i++) {
        const double t = now();
        fn(d, c, l);
        const double e = now() - t;
        if (e < best) best = e;
    }
    return best;
}

static qx_grid grid_of(const data *d, const bench_case *c)
{
    return (qx_grid){d->rows, d->cols, c->block_r ? c->block_r : d->rows, c->block_c ? c->block_c : d->cols};
}
static const void *source(const data *d, const bench_case *c) { return c->src == QX_DT_FLOAT ? (const void *)d->f32 : d->f16; }

static void run_case(const data *d, const bench_case *c, const qx_leaf *l)
{
    const qx_grid g = grid_of(d, c);
    if (c->codes == QX_DT_UNDEFINED) {
        qx_amax_using(l, &g, c->src, source(d, c), d->scale2, NULL);
        return;
    }
    const qx_quant q = {.grid = g, .format = {.codes = c->codes}, .scale = d->scale, .zero = c->zero ? d->zero : NULL};
    qx_quantize_using(l, &q, c->src, source(d, c), d->out);
}

static size_t bytes_of(const data *d, const bench_case *c)
{
    size_t in = 0, out = 0;
    qx_dtype_bytes(c->src, d->rows * d->cols, &in);
    if (c->codes != QX_DT_UNDEFINED) qx_dtype_bytes(c->codes, d->rows * d->cols, &out);
    return in + out;
}

static double memcpy_seconds(const data *d, size_t bytes)
{
    double best = 1e30;
    for (int i = 0; i < 5; i++) {
        const double t = now();
        memcpy(d->out, d->f32, bytes / 2);
        const double e = now() - t;
        if (e < best) best = e;
    }
    return best; /* reads half and writes half: as many bytes move as in the kernel */
}

/* ---- searches, solvers, products: millions of weights a second, billions of operations a second ---- */

typedef struct search_case { const char *name; qx_dtype codes, scale; int64_t block; bool zero, nvfp4; } search_case;
static const search_case searches[] = {
    {"search int4 f16 block 32", QX_DT_INT4, QX_DT_FLOAT16, 32, false, false},
    {"search int4 f16 block 128", QX_DT_INT4, QX_DT_FLOAT16, 128, false, false},
    {"search uint4 f16 block 32", QX_DT_UINT4, QX_DT_FLOAT16, 32, true, false},
    {"search int8 rows", QX_DT_INT8, QX_DT_FLOAT, 0, false, false},
    {"search fp8 rows", QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT, 0, false, false},
    {"search nvfp4", QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E4M3FN, 16, false, true}};

static void bench_searches(const data *d, const char *filter)
{
    const int64_t rows = 64, k = d->cols;
    for (size_t i = 0; i < sizeof searches / sizeof *searches; i++) {
        const search_case *c = &searches[i];
        if (filter && !strstr(c->name, filter)) continue;
        const qx_search s = {.format = {.codes = c->codes, .scale = c->scale, .negative = true}, .block = c->block, .zero_point = c->zero};
        const qx_nvfp4 nv = {.global = qx_nvfp4_global(1)};
        const double t = now();
        if (c->nvfp4) qx_nvfp4_search(&nv, d->f32, rows, k, d->out, d->scale2, NULL);
        else qx_search_rows(&s, d->f32, rows, k, d->scale2, d->zero, NULL);
        printf("%-28s %8.1f Melem/s\n", c->name, (double)(rows * k) / (now() - t) * 1e-6);
    }
}

static void bench_solvers(const char *filter)
{
    const int64_t k = 1536, rows = 64;
    if (filter && !strstr("solvers", filter)) return;
    float *x = malloc(sizeof *x * (size_t)(2 * k * k)), *h = malloc(sizeof *h * (size_t)(k * k)),
        *u = malloc(sizeof *u * (size_t)(k * k)), *fs = malloc(sizeof *fs * (size_t)(128 * k));
    float *scale = malloc(sizeof *scale * (size_t)(rows * k));
    for (int64_t i = 0; i < 2 * k * k; i++) x[i] = (float)((i * 7919 + i / k) % 10007 - 5000) / 5000.0f;
    double t = now(), damping;
    qx_matmul_f32(NULL, &(qx_matmul){k, k, 2 * k, x, 1, k, x, k, 1, h, k, 1, 0});
    printf("%-28s %8.1f GFLOP/s\n", "product f32 (X'X)", 4e-9 * (double)(k * k * k) / (now() - t));
    t = now();
    qx_factor_inverse(&(qx_factor){.h = h, .k = k, .damp = .01}, u, fs, &damping);
    printf("%-28s %8.1f ms for k = %d\n", "factor of the inverse", 1e3 * (now() - t), (int)k);
    const qx_search s = {.format = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT16, .negative = true}};
    const qx_gptq g = {.k = k, .u = u, .format = s.format, .block = 128, .search = &s};
    void *scratch = malloc(qx_gptq_scratch(&g, rows));
    t = now();
    qx_gptq_rows(&g, x, rows, scale, NULL, NULL, NULL, scratch);
    printf("%-28s %8.1f Melem/s\n", "gptq int4 block 128", 1e-6 * (double)(rows * k) / (now() - t));
    free(x), free(h), free(u), free(fs), free(scale), free(scratch);
}

static void bench_products(const data *d, const char *filter)
{
    const int64_t n = 4096, k = 4096;
    if (filter && !strstr("products", filter)) return;
    uint8_t *codes = calloc(1, (size_t)(n * k));
    float *y = malloc(sizeof *y * (size_t)(n * 256)), *scratch = malloc(sizeof *scratch * (size_t)(256 * 2 * k));
    for (int i = 0; i < 16; i++) {
        const qx_nbits w = {.bits = i % 2 ? 8 : 4, .n = n, .k = k, .block = i & 8 ? 64 : 32, .codes = codes, .scale = d->scale,
                            .rounds_x = i & 2};
        const int64_t m = i & 4 ? 256 : 1;
        const double t = now();
        for (int64_t r = 0; r < m; r++) qx_nbits_prepare(&w, m, d->f32, 0, r, scratch);
        for (int64_t p = 0; p < qx_nbits_pieces(&w, m); p++) qx_nbits_piece(&w, m, d->f32, 0, scratch, y, n, p);
        const double s = now() - t;
        printf("int%d by %-8s blocks of %d, %3d rows %8.2f Gweights/s %8.1f GFLOP/s\n", w.bits, w.rounds_x ? "int8" : "float32",
               (int)w.block, (int)m, 1e-9 * (double)(n * k) / s, 2e-9 * (double)(m * n * k) / s);
    }
    const int64_t m = 256, kk = 1024, nn = 1024;
    int8_t *packed = malloc(qx_igemm_packed_bytes(kk, nn));
    int32_t *sums = malloc(sizeof *sums * (size_t)qx_igemm_sums(nn)), *c = malloc(sizeof *c * (size_t)(m * nn));
    for (int64_t p = 0; p < qx_igemm_panels(nn); p++) qx_igemm_pack_panel(codes, true, kk, nn, nn, 1, p, packed, sums);
    const qx_igemm g = {.m = m, .n = nn, .k = kk, .a = d->f32, .lda = kk, .a_signed = true, .packed = packed, .sums = sums,
                        .b_signed = true, .c = c, .ldc = nn};
    const double t = now();
    for (int64_t p = 0; p < qx_igemm_panels(nn); p++) qx_igemm_run(&g, p, 0, m);
    printf("%-28s %8.1f Gop/s\n", "product int8", 2e-9 * (double)(m * nn * kk) / (now() - t));
    free(codes), free(y), free(scratch), free(packed), free(sums), free(c);
}

/* What a core can do at most: multiply-adds that touch registers only, and our product with both operands in the nearest cache. */
#if defined(__x86_64__)
enum { CHAINS = 12 };
#define PEAK(isa, TARGET, V, W, SET1, FMA, ADD, STORE)                                       \
    TARGET static double peak_##isa(int64_t n, float *out)                                   \
    {                                                                                        \
        V s[CHAINS], a = SET1(0.5f);                                                         \
        for (int j = 0; j < CHAINS; j++) s[j] = SET1((float)j);                              \
        const double t = now();                                                              \
        for (int64_t i = 0; i < n; i++)                                                      \
            for (int j = 0; j < CHAINS; j++) s[j] = FMA(s[j], a, a);                         \
        const double seconds = now() - t;                                                    \
        for (int j = 1; j < CHAINS; j++) s[0] = ADD(s[0], s[j]);                             \
        STORE(out, s[0]);                                                                    \
        return 2.0 * W * CHAINS * (double)n / seconds;                                       \
    }
PEAK(avx512, QX_TARGET_AVX512, __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_storeu_ps)
PEAK(avx2, QX_TARGET_AVX2, __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_storeu_ps)
#endif

static void bench_peak(const data *d, const char *filter)
{
    enum { M = 112, K = 1280, N = 1280, TIMES = 50 };
    static _Alignas(64) float y[M * N];
    if (filter && !strstr("peak", filter)) return;
#if defined(__x86_64__)
    if (qx_isa_best() == QX_ISA_AVX512) printf("%-28s %8.1f GFLOP/s\n", "multiply-add in registers", 1e-9 * peak_avx512(100000000, y));
    else if (qx_isa_best() == QX_ISA_AVX2) printf("%-28s %8.1f GFLOP/s\n", "multiply-add in registers", 1e-9 * peak_avx2(100000000, y));
#endif
    const qx_sgemm g = {.x = d->f32, .ldx = K, .cx = 1, .panels = d->f32 + M * K, .step = QX_GEMM_NR * K, .y = y, .ldy = N, .m = M,
                        .k = K, .n = N, .alpha = 1.0f};
    const double t = now();
    for (int i = 0; i < TIMES; i++) qx_sgemm_run(&g);
    printf("%-28s %8.1f GFLOP/s\n", "product 112 x 1280 x 1280", 2e-9 * M * K * N * TIMES / (now() - t));
}

int main(int argc, char **argv)
{
    const bool sized = argc > 1 && atoll(argv[1]) > 0;
    const char *filter = argc > 1 + sized ? argv[1 + sized] : NULL;
    const int64_t n = (sized ? atoll(argv[1]) : 16) * 1024 * 1024;
    data d = {.rows = n / 4096, .cols = 4096};
    d.f32 = aligned_alloc(64, (size_t)n * 4), d.f16 = malloc((size_t)n * 2), d.out = malloc((size_t)n * 4);
    d.scale = malloc((size_t)n * 4), d.scale2 = calloc((size_t)n, 4), d.zero = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) {
        d.f32[i] = (float)((i * 7919) % 10007 - 5000) / 5000.0f;
        d.scale[i] = 0.01f + 0.001f * (float)(i % 7), d.zero[i] = (int32_t)(i % 16);
    }
    qx_from_f32(QX_DT_FLOAT16, d.f32, n, d.f16);
    printf("%-24s %10s %10s %10s   x memcpy\n", "Gelem/s, one core", "ref", "avx2", "avx512");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (filter && !strstr(cases[k].name, filter)) continue;
        printf("%-24s", cases[k].name);
        double t = 0;
        for (int isa = 0; isa <= (int)qx_isa_best(); isa++) {
            t = best_of(isa ? 5 : 1, run_case, &d, &cases[k], isa ? qx_leaf_cpu((qx_isa)isa) : qx_leaf_ref());
            printf(" %10.2f", (double)n / t * 1e-9);
        }
        printf("   %.2f\n", t / memcpy_seconds(&d, bytes_of(&d, &cases[k])));
    }
    bench_searches(&d, filter);
    bench_solvers(filter);
    bench_products(&d, filter);
    bench_peak(&d, filter);
    free(d.f32), free(d.f16), free(d.out), free(d.scale), free(d.scale2), free(d.zero);
    return 0;
}
