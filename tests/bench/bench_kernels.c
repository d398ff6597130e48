/* bench_kernels.c - speed of the numeric loops on one core: billions of elements a second, and time as a multiple of a memcpy of the
 * same bytes (source plus result). bench_kernels [millions of elements] [filter] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/quant_leaf.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
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

static double best_of(int n, void (*fn)(const data *, const bench_case *, const qx_leaf *), const data *d, const bench_case *c, const qx_leaf *l)
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

int main(int argc, char **argv)
{
    const int64_t n = (argc > 1 ? atoll(argv[1]) : 16) * 1024 * 1024;
    data d = {.rows = n / 4096, .cols = 4096};
    d.f32 = malloc((size_t)n * 4), d.f16 = malloc((size_t)n * 2), d.out = malloc((size_t)n * 4);
    d.scale = malloc((size_t)n * 4), d.scale2 = calloc((size_t)n, 4), d.zero = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) {
        d.f32[i] = (float)((i * 7919) % 10007 - 5000) / 5000.0f;
        d.scale[i] = 0.01f + 0.001f * (float)(i % 7), d.zero[i] = (int32_t)(i % 16);
    }
    qx_from_f32(QX_DT_FLOAT16, d.f32, n, d.f16);
    printf("%-24s %10s %10s %10s   x memcpy\n", "Gelem/s, one core", "ref", "avx2", "avx512");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (argc > 2 && !strstr(cases[k].name, argv[2])) continue;
        printf("%-24s", cases[k].name);
        double t = 0;
        for (int isa = 0; isa <= (int)qx_isa_best(); isa++) {
            t = best_of(isa ? 5 : 1, run_case, &d, &cases[k], isa ? qx_leaf_cpu((qx_isa)isa) : qx_leaf_ref());
            printf(" %10.2f", (double)n / t * 1e-9);
        }
        printf("   %.2f\n", t / memcpy_seconds(&d, bytes_of(&d, &cases[k])));
    }
    return 0;
}
