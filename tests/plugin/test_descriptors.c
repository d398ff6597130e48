/* test_descriptors.c - what the adapters tell cuBLASLt and cuDNN, held against the libraries themselves as far as they go without a device: products up to the heuristic's question,
 * convolutions and attention up to the graph of operations, which is the first that wants a handle. Skipped where the libraries are not installed. */
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
        {.type = QX_DT_FLOAT16, .ytype = QX_DT_FLOAT16, .m = 77, .n = 640, .k = 640, .batch = 1, .has_bias = true, .has_add = true, .alpha = 1},
        {.type = QX_DT_BFLOAT16, .ytype = QX_DT_FLOAT, .m = 1, .n = 4096, .k = 4096, .batch = 1, .w_nk = true, .alpha = 1},
        {.type = QX_DT_INT8, .ytype = QX_DT_INT32, .m = 5, .n = 36, .k = 20, .batch = 1, .w_nk = true, .alpha = 1},
        {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_FLOAT16, .m = 5, .n = 32, .k = 48, .batch = 1, .w_nk = true, .has_bias = true, .alpha = 1},
        {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_BFLOAT16, .m = 5, .n = 32, .k = 48, .batch = 1, .w_nk = true, .has_bias = true, .alpha = 1, .scale_mode = CU_SCALE_ROWS},
        {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_BFLOAT16, .m = 8, .n = 32, .k = 304, .batch = 1, .w_nk = true, .alpha = 1, .scale_mode = CU_SCALE_BLOCKS},
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
        if (!make_desc(p, &rows[i]) || !make_layouts(p, &rows[i]) || !stand_ins(&dev, p, &rows[i])) fail_msg("product %zu: %s", i, lib->blas.cublasLtGetStatusString(p->status));
        cu_product_free(&dev, p);
    }
}

/* Refused where it is documented to be, whatever the library would say. */
static void rules(void **state)
{
    static const cu_product fp8 = {.type = QX_DT_FLOAT8E4M3FN, .ytype = QX_DT_FLOAT16, .m = 5, .n = 32, .k = 48, .batch = 1, .w_nk = true, .scale_mode = CU_SCALE_ROWS};
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
static void stops_at_graph(bool (*describe)(dnn_graph *g, const void *problem, int way, dnn_ops *out), const void *problem, int way, int parts, int outer)
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
    static const cu_conv base = {.spatial = 2, .batch = 2, .in_ch = 64, .out_ch = 32, .group = 1, .in = {16, 16, 1}, .out = {16, 16, 1}, .kernel = {3, 3, 1}, .stride = {1, 1, 1},
                                 .dilation = {1, 1, 1}, .begin = {1, 1, 0}, .end = {1, 1, 0}};
    static const struct { int type, ytype; bool last, scale, bias; int way, parts, outer; } rows[] = {
        {QX_DT_FLOAT, QX_DT_FLOAT, false, false, false, 0, 5, 3}, {QX_DT_FLOAT16, QX_DT_FLOAT16, true, false, true, 0, 9, 4}, {QX_DT_INT8, QX_DT_INT32, true, false, false, 0, 5, 3},
        {QX_DT_INT8, QX_DT_INT32, true, false, false, 1, 8, 3}, {QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT16, true, true, true, 0, 13, 5}, {QX_DT_FLOAT16, QX_DT_FLOAT, true, false, false, 1, 5, 3},
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
    const cu_sdpa s = {.type = QX_DT_FLOAT16, .batch = 2, .heads = 10, .kv_heads = 10, .rows = 64, .keys = 77, .d = 64, .dv = 64, .scale = 0.125f, .q = {40960, 64, 640, 1},
                       .k = {49280, 64, 640, 1}, .v = {49280, 64, 640, 1}, .o = {40960, 64, 640, 1}};
    (void)state;
    if (!lib->has_dnn) skip();
    stops_at_graph(describe_sdpa, &s, 0, 6, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(rules), cmocka_unit_test(convolutions), cmocka_unit_test(attention)};
    return cmocka_run_group_tests(tests, open_libraries, close_libraries);
}
#else
int main(void)
{
    printf("skipped: the headers of cuBLASLt and cuDNN are not installed\n");
    return 0;
}
#endif
