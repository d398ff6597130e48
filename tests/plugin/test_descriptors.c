/* test_descriptors.c - what the adapters tell cuBLASLt and cuDNN, held against the libraries themselves as far as they go without
 * a device: products up to the heuristic's question, convolutions and attention up to the graph of operations, which is the first
 * that wants a handle; and cuDNN's engines for them on cards that are described to it, which is how it plans for machines that
 * have none (from 9.11 on). Skipped where the libraries are not installed. */
#include "../unit/unit.h"

#if __has_include(<cublasLt.h>) && __has_include(<cudnn_graph.h>)
#include "runtime/cuda/cudnn.c"
#include "runtime/cuda/cudnn_ops.c"
#define plan product_plan /* files have names of their own for these */
#define known product_known
#include "runtime/cuda/library.c"
#include "runtime/cuda/product.c"

static qx_dev dev;
static cu_library *lib;

/* The functions only: handles need a device. */
static int open_libraries(void **state)
{
    char why[128];
    (void)state;
    dev.ctx = qx_ctx_new(NULL);
    assert_int_equal(QX_NEW(dev.ctx, &lib), QX_OK);
    dev.lib = lib;
    dev.info.major = 9;
    lib->has_blas = load(blas_files, blas_symbols, &lib->blas, why);
    lib->has_dnn = load(dnn_files, dnn_symbols, &lib->dnn, why);
    return 0;
}

static int close_libraries(void **state)
{
    (void)state;
    qx_free(dev.ctx, lib);
    assert_int_equal(qx_mem_in_use(dev.ctx), 0);
    qx_ctx_free(dev.ctx);
    return 0;
}

static void products(void **state)
{
    static const cu_product rows[] = {
        {.type = QX_DT_FLOAT, .ytype = QX_DT_FLOAT, .m = 3, .n = 5, .k = 7, .batch = 2, .bx = 21, .by = 15, .x_km = true, .alpha = 2},
        {.type = QX_DT_FLOAT16, .ytype = QX_DT_FLOAT16, .m = 77, .n = 640, .k = 640, .batch = 1, .has_bias = true, .has_add = true,
         .alpha = 1},
        {.type = QX_DT_BFLOAT16, .ytype = QX_DT_FLOAT, .m = 1, .n = 4096, .k = 4096, .batch = 1, .w_nk = true, .alpha = 1},
        {.type = QX_DT_INT8, .ytype = QX_DT_INT32, .m = 5, .n = 36, .k = 20, .batch = 1, .w_nk = true, .alpha = 1},
        {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_FLOAT16, .m = 5, .n = 32, .k = 48, .batch = 1, .w_nk = true, .has_bias = true,
         .alpha = 1},
        {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_BFLOAT16, .m = 5, .n = 32, .k = 48, .batch = 1, .w_nk = true, .has_bias = true,
         .alpha = 1, .scale_mode = CU_SCALE_ROWS},
        {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_BFLOAT16, .m = 8, .n = 32, .k = 304, .batch = 1, .w_nk = true, .alpha = 1,
         .scale_mode = CU_SCALE_BLOCKS},
        {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_FLOAT, .m = 5, .n = 32, .k = 48, .batch = 1, .w_nk = true, .alpha = 1},
    };
    (void)state;
    if (!lib->has_blas) skip();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cu_product_plan *p = NULL;
        assert_int_equal(QX_NEW(dev.ctx, &p), QX_OK);
        p->l = lib;
        p->p = rows[i];
        assert_true(within_rules(&dev, &rows[i]));
        if (!make_desc(p, &rows[i]) || !make_layouts(p, &rows[i]) || !stand_ins(&dev, p, &rows[i]))
            fail_msg("product %zu: %s", i, lib->blas.cublasLtGetStatusString(p->status));
        cu_product_free(&dev, p);
    }
}

/* Refused where it is documented to be, whatever the library would say. */
static void rules(void **state)
{
    static const cu_product fp8 = {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_FLOAT16, .m = 5, .n = 32, .k = 48, .batch = 1,
                                   .w_nk = true, .scale_mode = CU_SCALE_ROWS};
    cu_product p = fp8;
    (void)state;
    for (int i = 0; i < 6; i++) {
        p = fp8;
        if (i == 0) p.k = 40;
        if (i == 1) p.n = 24;
        if (i == 2) p.w_nk = false;
        if (i == 3) p.batch = 2;
        if (i == 5) p.scale_mode = CU_SCALE_BLOCKS; /* five rows are no multiple of four */
        dev.info.minor = 0, dev.info.major = i == 4 ? 10 : 9; /* a scale a row: Hopper only */
        assert_false(within_rules(&dev, &p));
    }
    p.scale_mode = CU_SCALE_BLOCKS, p.m = 8;
    assert_true(within_rules(&dev, &p));
    p.scale_mode = CU_SCALE_ONE;
    assert_true(within_rules(&dev, &p));
    dev.info.major = 8, dev.info.minor = 6;
    assert_false(within_rules(&dev, &p));
    dev.info.major = 9, dev.info.minor = 0;
}

/* All parts are accepted, and what says no is the graph, for want of a handle. */
static void stops_at_graph(bool (*describe)(dnn_graph *g, const void *problem, int way, dnn_ops *out), const void *problem, int way,
                           int parts, int outer)
{
    cu_engine e = {.g = {.c = &lib->dnn, .ok = true}};
    dnn_ops ops;
    char want[40];
    assert_true(describe(&e.g, problem, way, &ops));
    assert_int_equal(e.g.n_outer, outer);
    assert_false(plan_graph(&dev, &e, &ops, false));
    snprintf(want, sizeof want, "attribute %d:", (int)CUDNN_ATTR_OPERATIONGRAPH_HANDLE);
    if (e.g.n != parts + 1 || strncmp(e.g.said, want, strlen(want)) != 0) fail_msg("way %d: %d parts, %s", way, e.g.n, e.g.said);
    forget(&e.g);
}

static void convolutions(void **state)
{
    static const cu_conv base = {.spatial = 2, .batch = 2, .in_ch = 64, .out_ch = 32, .group = 1, .in = {16, 16, 1}, .out = {16, 16, 1},
                                 .kernel = {3, 3, 1}, .stride = {1, 1, 1},
                                 .dilation = {1, 1, 1}, .begin = {1, 1, 0}, .end = {1, 1, 0}};
    static const struct { int type, ytype; bool last, scale, bias; int way, parts, outer; } rows[] = {
        {QX_DT_FLOAT, QX_DT_FLOAT, false, false, false, 0, 5, 3}, {QX_DT_FLOAT16, QX_DT_FLOAT16, true, false, true, 0, 9, 4},
        {QX_DT_INT8, QX_DT_INT32, true, false, false, 0, 8, 3},
        {QX_DT_INT8, QX_DT_INT32, true, false, false, 1, 5, 3}, {QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT16, true, true, true, 0, 13, 5},
        {QX_DT_FLOAT16, QX_DT_FLOAT, true, false, false, 0, 8, 3},
        {QX_DT_INT8, QX_DT_FLOAT16, true, true, true, 0, 13, 5},
    };
    (void)state;
    if (!lib->has_dnn) skip();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cu_conv c = base;
        dnn_graph g = {.c = &lib->dnn};
        c.type = rows[i].type, c.ytype = rows[i].ytype, c.last = rows[i].last, c.has_scale = rows[i].scale, c.has_bias = rows[i].bias;
        stops_at_graph(describe_conv, &c, rows[i].way, rows[i].parts, rows[i].outer);
        assert_false(describe_conv(&g, &c, 3, NULL));
    }
}

static void attention(void **state)
{
    const cu_sdpa s = {.type = QX_DT_FLOAT16, .batch = 2, .heads = 10, .kv_heads = 10, .rows = 64, .keys = 77, .d = 64, .dv = 64,
                       .scale = 0.125f, .q = {40960, 64, 640, 1},
                       .k = {49280, 64, 640, 1}, .v = {49280, 64, 640, 1}, .o = {40960, 64, 640, 1}};
    (void)state;
    if (!lib->has_dnn) skip();
    stops_at_graph(describe_sdpa, &s, 0, 6, 5);
}

/* ---- cards that are not here ---- */

/* As cuDNN writes a device's properties down; what differs between cards. */
typedef struct card { const char *name; int sm, processors, l2_mb; int64_t shared; } card;
static const card cards[] = {{"A100", 80, 108, 40, 166912}, {"RTX 4090", 89, 128, 72, 101376}, {"H200", 90, 132, 50, 232448},
                             {"B200", 100, 148, 126, 232448}, {"RTX 5090", 120, 170, 96, 101376}};

static bool describe_card(const card *c, cudnnBackendDescriptor_t *out)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"deviceVer\":%d,\"driverVer\":13000,\"cudaDeviceId\":0,\"totalGlobalMem\":85899345920,\"regsPerBlock\":65536,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
             "\"multiProcessorCount\":%d,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%lld,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
             "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,\"smClockRateKHz\":1800000,\"memClockRateKHz\":3000000,"
             "\"l2CacheSize\":%d,\"deviceName\":\"%s\"}", c->sm * 10, c->processors, (long long)c->shared, c->l2_mb << 20, c->name);
    return lib->dnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, out) == CUDNN_STATUS_SUCCESS &&
           lib->dnn.cudnnBackendSetAttribute(*out, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(text) + 1,
                                             text) == CUDNN_STATUS_SUCCESS &&
           lib->dnn.cudnnBackendFinalize(*out) == CUDNN_STATUS_SUCCESS;
}

/* The first of the ways that are tried in turn for which the library has engines; -1: none. *all: how many. exact: that do not
 * round f32 operands. */
static int first_way(cudnnBackendDescriptor_t on, bool (*describe)(dnn_graph *g, const void *problem, int way, dnn_ops *out),
                     const void *problem, bool exact, int64_t *all)
{
    for (int way = 0;; way++) {
        dnn_graph g = {.c = &lib->dnn, .card = on, .ok = true};
        cudnnBackendDescriptor_t configs[DNN_ENGINES];
        dnn_ops ops;
        if (!describe(&g, problem, way, &ops)) return -1;
        const int64_t offered = offers(&g, &ops, configs);
        if (!g.ok) fail_msg("way %d: %s", way, g.said);
        *all = 0;
        for (int64_t i = 0; i < offered && i < DNN_ENGINES; i++) *all += !exact || !rounds_operands(g.c, configs[i]);
        forget(&g);
        if (*all) return way;
    }
}

#ifndef CUDA_STUB /* the headers are there, but the plugin is not built */
#define CUDA_STUB "libcuda.so"
#endif
/* Engines are generated for the card with the driver's library at hand; without one, the toolkit's stand-in for linking does. */
static bool has_driver_library(void)
{
    return dlopen("libcuda.so.1", RTLD_NOW) || dlopen(CUDA_STUB, RTLD_NOW);
}

static void wants_engine(const card *c, cudnnBackendDescriptor_t on, const char *what,
                         bool (*describe)(dnn_graph *g, const void *problem, int way, dnn_ops *out), const void *problem, bool exact)
{
    int64_t all = 0;
    const int way = first_way(on, describe, problem, exact, &all);
    printf("%-9s %-34s way %2d, %2lld engines\n", c->name, what, way, (long long)all);
    if (way < 0) fail_msg("%s: no engine for %s", c->name, what);
}

static void engines(void **state)
{
    static const cu_conv base = {.spatial = 2, .batch = 2, .in_ch = 320, .out_ch = 640, .group = 1, .in = {64, 64, 1},
                                 .out = {64, 64, 1}, .kernel = {3, 3, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .begin = {1, 1, 0},
                                 .end = {1, 1, 0}};
    static const struct { const char *name; int type, ytype; bool last, scale, bias; int since; } rows[] = {
        {"f32", QX_DT_FLOAT, QX_DT_FLOAT, false, false, true, 80}, {"f16, bias", QX_DT_FLOAT16, QX_DT_FLOAT16, true, false, true, 80},
        {"f16", QX_DT_FLOAT16, QX_DT_FLOAT16, true, false, false, 80},
        {"bf16, bias", QX_DT_BFLOAT16, QX_DT_BFLOAT16, true, false, true, 80},
        {"f16 to f32", QX_DT_FLOAT16, QX_DT_FLOAT, true, false, false, 80},
        {"INT8 to INT32", QX_DT_INT8, QX_DT_INT32, true, false, false, 80},
        {"INT8, scales, bias, to f16", QX_DT_INT8, QX_DT_FLOAT16, true, true, true, 80},
        {"INT8, scales, to f32", QX_DT_INT8, QX_DT_FLOAT, true, true, false, 80},
        {"E4M3, scales, bias, to f16", QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT16, true, true, true, 89},
        {"E4M3, scales, to f32", QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT, true, true, false, 89},
    };
    static const struct { const char *name; int type; int64_t heads, kv_heads, keys, d; } attentions[] = {
        {"f16, 4096 keys of 64", QX_DT_FLOAT16, 10, 10, 4096, 64}, {"f16, 77 keys of 64", QX_DT_FLOAT16, 10, 10, 77, 64},
        {"bf16, 2048 keys of 128, grouped", QX_DT_BFLOAT16, 32, 8, 2048, 128},
        {"f16, 1024 keys of 80", QX_DT_FLOAT16, 8, 8, 1024, 80},
    };
    (void)state;
    if (!lib->has_dnn || !has_driver_library()) skip();
    for (size_t c = 0; c < sizeof cards / sizeof *cards; c++) {
        cudnnBackendDescriptor_t on = NULL;
        if (!describe_card(&cards[c], &on)) skip(); /* an older library */
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            cu_conv q = base;
            q.type = rows[i].type, q.ytype = rows[i].ytype, q.last = rows[i].last, q.has_scale = rows[i].scale, q.has_bias = rows[i].bias;
            if (cards[c].sm >= rows[i].since) wants_engine(&cards[c], on, rows[i].name, describe_conv, &q, q.type == QX_DT_FLOAT);
        }
        for (size_t i = 0; i < sizeof attentions / sizeof *attentions; i++) {
            const int64_t h = attentions[i].heads, k = attentions[i].kv_heads, n = attentions[i].keys, d = attentions[i].d;
            const cu_sdpa q = {.type = attentions[i].type, .batch = 2, .heads = h, .kv_heads = k, .rows = 1024, .keys = n, .d = d,
                               .dv = d, .scale = 0.125f, .q = {1024 * h * d, d, h * d, 1}, .k = {n * k * d, d, k * d, 1},
                               .v = {n * k * d, d, k * d, 1}, .o = {1024 * h * d, d, h * d, 1}};
            wants_engine(&cards[c], on, attentions[i].name, describe_sdpa, &q, false);
        }
        lib->dnn.cudnnBackendDestroyDescriptor(on);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(rules), cmocka_unit_test(convolutions),
                                       cmocka_unit_test(attention), cmocka_unit_test(engines)};
    return cmocka_run_group_tests(tests, open_libraries, close_libraries);
}
#else
int main(void)
{
    printf("skipped: the headers of cuBLASLt and cuDNN are not installed\n");
    return 0;
}
#endif
