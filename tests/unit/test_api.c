/* test_api.c - qonnx.h as its users call it: objects, ownership, codes and messages. What the functions compute is tested where
 * it is made. */
#include <math.h>

#include "include/qonnx.h"
#include "tests/unit/tmp_dir.h"
#include "tests/unit/unit.h"

#define MODEL TEST_SOURCE_DIR "/tests/data/mlp/model.onnx"
#define SAMPLES TEST_SOURCE_DIR "/tests/data/mlp/calib.npz"

static int open_context(void **state) { return (*state = qonnx_open()) ? 0 : -1; }
static int close_context(void **state) { qonnx_close(*state); return 0; }

static void says(qonnx_ctx *ctx, const char *part)
{
    if (!strstr(qonnx_error(ctx), part)) fail_msg("message \"%s\" lacks \"%s\"", qonnx_error(ctx), part);
}

typedef struct heard { int warnings, stages; } heard;
static void on_log(void *user, int level, const char *text) { ((heard *)user)->warnings += level == 2 && *text; }
static void on_progress(void *user, const char *stage, int64_t done, int64_t total) { ((heard *)user)->stages += *stage && done <= total; }

static void job(void **state)
{
    tmp_dir dir;
    heard h = {0};
    qonnx_job *j;
    assert_int_equal(tmp_make(&dir, "/tmp"), 0);
    qonnx_set_log(*state, on_log, on_progress, &h);
    assert_int_equal(qonnx_job_new(*state, MODEL, &j), QONNX_OK);
    assert_int_equal(qonnx_job_run(j), QONNX_USAGE); /* no format is asked for */
    says(*state, "no format");
    assert_null(qonnx_job_report(j));
    assert_int_equal(qonnx_job_set(j, "nosuch", "1"), QONNX_USAGE);
    says(*state, "nosuch");
    assert_int_equal(qonnx_job_set(j, "int8", NULL), QONNX_OK);
    assert_int_equal(qonnx_job_set(j, "calib", SAMPLES), QONNX_OK);
    assert_int_equal(qonnx_job_set(j, "output", tmp_path(&dir, "q.onnx")), QONNX_OK);
    assert_int_equal(qonnx_job_run(j), QONNX_OK);
    assert_non_null(strstr(qonnx_job_report(j), "\"verdict\": \"very close"));
    assert_true(h.stages > 0);
    assert_int_equal(qonnx_job_run(j), QONNX_USAGE); /* the file is there */
    says(*state, "is there already");
    assert_int_equal(qonnx_job_set(j, "force", "1"), QONNX_OK);
    assert_int_equal(qonnx_job_set(j, "min-sqnr", "200"), QONNX_OK);
    assert_int_equal(qonnx_job_run(j), QONNX_GATE); /* written, with a report */
    assert_non_null(qonnx_job_report(j));
    qonnx_job_free(j);
    qonnx_job_free(NULL);
    assert_int_equal(tmp_remove(&dir), 0);
}

static void looked_at(void **state)
{
    const char *json = "";
    assert_int_equal(qonnx_inspect(*state, MODEL, &json), QONNX_OK);
    assert_non_null(strstr(json, "\"linear_constant\": 2"));
    assert_non_null(strstr(json, "\"type\": \"f32[batch,64]\""));
    assert_int_equal(qonnx_check(*state, MODEL, "tensorrt", &json), QONNX_OK);
    assert_non_null(strstr(json, "\"findings\": ["));
    assert_int_equal(qonnx_check(*state, MODEL, NULL, &json), QONNX_OK);
    assert_int_equal(qonnx_check(*state, MODEL, "npu", &json), QONNX_USAGE);
    assert_null(json);
    assert_int_equal(qonnx_inspect(*state, SAMPLES, &json), QONNX_FAILED);
    assert_null(json);
}

static void session(void **state)
{
    float x[64];
    const qonnx_port *ports;
    qonnx_session *s;
    for (int i = 0; i < 64; i++) x[i] = (float)i / 64;
    qonnx_tensor in = {.name = "x", .dtype = QONNX_FLOAT, .rank = 2, .dims = {1, 64}, .data = x}, out;
    assert_int_equal(qonnx_session_open(*state, "nosuch.onnx", NULL, &s), QONNX_FAILED);
    assert_null(s);
    assert_int_equal(qonnx_session_open(*state, MODEL, "warp=9", &s), QONNX_USAGE);
    assert_int_equal(qonnx_session_open(*state, MODEL, NULL, &s), QONNX_OK);
    assert_int_equal(qonnx_session_inputs(s, &ports), 1);
    assert_true(strcmp(ports[0].name, "x") == 0 && ports[0].rank == 2 && ports[0].dims[0] == -1 && ports[0].dims[1] == 64);
    assert_int_equal(qonnx_session_outputs(s, &ports), 1);
    assert_int_equal(qonnx_session_run(s, &in, 1, NULL, 1, &out), QONNX_OK);
    assert_int_equal(qonnx_tensor_numel(&out), 32);
    assert_true(isfinite(((const float *)out.data)[31]));
    in.dims[1] = 63;
    assert_int_equal(qonnx_session_run(s, &in, 1, NULL, 1, &out), QONNX_FAILED);
    says(*state, "63");
    in.name = "y";
    assert_int_not_equal(qonnx_session_run(s, &in, 1, NULL, 1, &out), QONNX_OK);
    qonnx_session_close(s);
    qonnx_session_close(NULL);
}

/* One run of the model, observed for these passes. */
static qonnx_code calibrate(qonnx_session *s, const char *passes, const char *stats)
{
    static float x[64];
    const qonnx_tensor in = {.name = "x", .dtype = QONNX_FLOAT, .rank = 2, .dims = {1, 64}, .data = x};
    qonnx_calibration *c = NULL;
    qonnx_tensor out;
    for (int i = 0; i < 64; i++) x[i] = (float)(i * 37 % 64) / 32.0f - 1.0f;
    qonnx_code q = qonnx_calibration_begin(s, passes, &c);
    if (q != QONNX_OK) return q;
    assert_int_equal(qonnx_session_run(s, &in, 1, NULL, 1, &out), QONNX_OK);
    assert_int_equal(qonnx_calibration_save(c, stats), QONNX_OK);
    qonnx_calibration_end(c);
    return QONNX_OK;
}

/* sparsity puts channels in another order before it collects: a job knows those statistics, and the session is no longer the file's. */
static void calibration(void **state)
{
    tmp_dir dir;
    qonnx_session *s;
    qonnx_job *j;
    assert_int_equal(tmp_make(&dir, "/tmp"), 0);
    char *stats = strdup(tmp_path(&dir, "s.stats"));
    assert_int_equal(qonnx_session_open(*state, MODEL, NULL, &s), QONNX_OK);
    assert_int_equal(calibrate(s, "int8", stats), QONNX_OK);
    assert_int_equal(calibrate(s, "sparsity,int8", stats), QONNX_OK);
    assert_int_equal(calibrate(s, "int8", stats), QONNX_USAGE);
    says(*state, "open a session for each calibration");
    qonnx_session_close(s);
    assert_int_equal(qonnx_job_new(*state, MODEL, &j), QONNX_OK);
    assert_int_equal(qonnx_job_set(j, "passes", "sparsity,int8"), QONNX_OK);
    assert_int_equal(qonnx_job_set(j, "load-stats", stats), QONNX_OK);
    assert_int_equal(qonnx_job_set(j, "output", tmp_path(&dir, "q.onnx")), QONNX_OK);
    assert_int_equal(qonnx_job_run(j), QONNX_OK);
    qonnx_job_free(j);
    free(stats);
    assert_int_equal(tmp_remove(&dir), 0);
}

static void tensors(void **state)
{
    const float x[3] = {1, -2.5f, 1e9f};
    uint16_t half[3];
    float back[3];
    qonnx_tensor t = {.rank = 2, .dims = {3, 4}};
    assert_int_equal(qonnx_tensor_numel(&t), 12);
    t.dims[0] = -1;
    assert_int_equal(qonnx_tensor_numel(&t), -1);
    t.dims[0] = t.dims[1] = INT64_MAX;
    assert_int_equal(qonnx_tensor_numel(&t), -1);
    assert_int_equal(qonnx_from_float(*state, QONNX_FLOAT16, x, 3, half), QONNX_OK);
    assert_int_equal(qonnx_to_float(*state, QONNX_FLOAT16, half, 3, back), QONNX_OK);
    assert_true(back[0] == 1 && back[1] == -2.5f && back[2] > 6e4f);
    assert_int_not_equal(qonnx_to_float(*state, 8 /* strings */, half, 3, back), QONNX_OK);
}

static void limits(void **state)
{
    static const volatile int stop = 1;
    qonnx_session *s;
    assert_int_equal(qonnx_set_threads(*state, -1), QONNX_USAGE);
    assert_int_equal(qonnx_set_max_memory(*state, -1), QONNX_USAGE);
    assert_int_equal(qonnx_set_threads(*state, 1), QONNX_OK);
    assert_int_equal(qonnx_set_max_memory(*state, 4096), QONNX_OK);
    assert_int_equal(qonnx_session_open(*state, MODEL, NULL, &s), QONNX_FAILED);
    says(*state, "memory");
    assert_int_equal(qonnx_set_max_memory(*state, 0), QONNX_OK);
    qonnx_set_cancel(*state, &stop);
    qonnx_job *j;
    assert_int_equal(qonnx_job_new(*state, MODEL, &j), QONNX_OK);
    assert_int_equal(qonnx_job_set(j, "int8", "1"), QONNX_OK);
    assert_int_equal(qonnx_job_run(j), QONNX_FAILED);
    qonnx_job_free(j);
    qonnx_set_cancel(*state, NULL);
}

int main(void)
{
    #define API(f) cmocka_unit_test_setup_teardown(f, open_context, close_context)
    const struct CMUnitTest tests[] = {API(job), API(looked_at), API(session), API(calibration), API(tensors), API(limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
