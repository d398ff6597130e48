/* test_engines.c - the life of cuDNN's engines (runtime/cuda/cudnn.c) against a library that is made up: which of the offered
 * ones is taken, who shares it, and that everything which was made is destroyed. Skipped where cuDNN's headers are not installed. */
#include "../unit/unit.h"

#if __has_include(<cublasLt.h>) && __has_include(<cudnn_graph.h>)
#include "runtime/cuda/cudnn.c"
#include "runtime/cuda/cudnn_ops.c"

/* Descriptors are numbered by type. The heuristic offers `offered` engines; of them the first `unplannable` cannot be planned,
 * the next `unstartable` do not start. */
static struct { int alive, asked, plans, runs, offered, unplannable, unstartable; } fake;
typedef struct fake_descriptor { cudnnBackendDescriptorType_t type; } fake_descriptor;

static cudnnStatus_t fake_create(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out)
{
    fake_descriptor *d = malloc(sizeof *d);
    d->type = type;
    *out = (cudnnBackendDescriptor_t)d;
    fake.alive++;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t fake_destroy(cudnnBackendDescriptor_t d)
{
    fake.alive--;
    free((void *)d);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t fake_set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n,
                              const void *v)
{
    (void)name, (void)type, (void)n;
    return d && v ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
}

static cudnnStatus_t fake_get(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                              int64_t most, int64_t *n, void *v)
{
    (void)d, (void)type;
    *n = 1;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) *n = fake.offered < most ? fake.offered : most;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) *(int64_t *)v = 4096;
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) *n = 0;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t fake_finalize(cudnnBackendDescriptor_t d)
{
    const cudnnBackendDescriptorType_t type = ((fake_descriptor *)d)->type;
    if (type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) fake.asked++;
    return type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && fake.plans++ < fake.unplannable ? CUDNN_STATUS_NOT_SUPPORTED
        : CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t fake_execute(cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
    (void)h;
    assert_true(plan && pack);
    return fake.runs++ < fake.unstartable ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t fake_handle(cudnnHandle_t *h) { return *h = (cudnnHandle_t)(void *)&fake, CUDNN_STATUS_SUCCESS; }
static cudnnStatus_t fake_stream(cudnnHandle_t h, cudaStream_t s) { return (void)h, (void)s, CUDNN_STATUS_SUCCESS; }
static const char *fake_text(cudnnStatus_t st) { return st == CUDNN_STATUS_EXECUTION_FAILED ? "does not start" : "cannot be planned"; }
static void fake_last(char *text, size_t n) { snprintf(text, n, "for some reason"); }

static qx_dev dev;
static cu_library lib;

static void open_device(int offered, int unplannable, int unstartable)
{
    memset(&fake, 0, sizeof fake);
    memset(&dev, 0, sizeof dev);
    fake.offered = offered, fake.unplannable = unplannable, fake.unstartable = unstartable;
    lib = (cu_library){.has_dnn = true, .dnn = {.cudnnCreate = fake_handle, .cudnnSetStream = fake_stream,
                                                .cudnnGetErrorString = fake_text, .cudnnGetLastErrorString = fake_last,
                                                .cudnnBackendCreateDescriptor = fake_create,
                                                .cudnnBackendDestroyDescriptor = fake_destroy, .cudnnBackendSetAttribute = fake_set,
                                                .cudnnBackendGetAttribute = fake_get, .cudnnBackendFinalize = fake_finalize,
                                                    .cudnnBackendExecute = fake_execute}};
    dev.ctx = qx_ctx_new(NULL);
    dev.info.major = 9;
    dev.lib = &lib;
    assert_int_equal(cu_machine_open(dev.ctx, 0, &dev.m), QX_OK);
}

static void close_device(void)
{
    cu_engines_close(&dev);
    cu_machine_close(dev.m);
    assert_int_equal(fake.alive, 0);
    assert_int_equal(qx_mem_in_use(dev.ctx), 0);
    qx_ctx_free(dev.ctx);
}

static const cu_conv conv = {.type = QX_DT_FLOAT16, .ytype = QX_DT_FLOAT16, .spatial = 2, .last = true, .has_bias = true, .batch = 2,
                             .in_ch = 64, .out_ch = 32, .group = 1, .in = {16, 16, 1},
                             .out = {16, 16, 1}, .kernel = {3, 3, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .begin = {1, 1, 0},
                                 .end = {1, 1, 0}};

/* Two cannot be planned, the third does not start, the fourth is taken; the same problem gets it too, another asks again. */
static void shared(void **state)
{
    cu_engine *a = NULL, *b = NULL, *c = NULL;
    cu_conv other = conv;
    size_t ws;
    bool taken;
    (void)state;
    open_device(5, 2, 1);
    assert_int_equal(cu_conv_new(&dev, &conv, &a, &ws, &taken), QX_OK);
    assert_true(taken && ws == 4096);
    assert_int_equal(fake.plans, 4);
    assert_int_equal(fake.asked, 1);
    assert_int_equal(cu_conv_new(&dev, &conv, &b, &ws, &taken), QX_OK);
    assert_ptr_equal(a, b);
    assert_int_equal(fake.asked, 1);
    other.out_ch = 48;
    assert_int_equal(cu_conv_new(&dev, &other, &c, &ws, &taken), QX_OK);
    assert_true(taken && c != a && fake.asked == 2);
    assert_int_equal(cu_conv_run(&dev, c, &(cu_conv_data){.x = &ws, .w = &ws, .bias = &ws, .y = &ws, .ws = &ws}), QX_OK);
    const int alive = fake.alive;
    cu_engine_free(&dev, a);
    assert_int_equal(fake.alive, alive);
    cu_engine_free(&dev, b);
    assert_true(fake.alive < alive);
    cu_engine_free(&dev, c);
    assert_int_equal(fake.alive, 0);
    close_device();
}

/* What is refused is not asked again, and the reason is there each time. */
static void refused(void **state)
{
    static const cu_sdpa s = {.type = QX_DT_FLOAT16, .batch = 2, .heads = 10, .kv_heads = 10, .rows = 64, .keys = 77, .d = 64, .dv = 64,
                              .scale = 0.125f, .q = {40960, 64, 640, 1},
                              .k = {49280, 64, 640, 1}, .v = {49280, 64, 640, 1}, .o = {40960, 64, 640, 1}};
    cu_engine *e = NULL;
    size_t ws;
    bool taken;
    (void)state;
    open_device(2, 0, 2);
    for (int i = 0; i < 2; i++) {
        *dev.why = 0;
        assert_int_equal(cu_sdpa_new(&dev, &s, &e, &ws, &taken), QX_OK);
        assert_false(taken);
        assert_non_null(strstr(dev.why, "does not start"));
        assert_non_null(strstr(dev.why, "64 rows, 77 keys"));
        assert_int_equal(fake.asked, 1);
    }
    close_device();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    printf("skipped: the headers of cuDNN are not installed\n");
    return 0;
}
#endif
