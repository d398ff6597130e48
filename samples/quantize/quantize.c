/* quantize.c - quantizes a model through the library; `qonnx quantize` does the same from the command line.
 *   cc quantize.c $(pkg-config --cflags --libs qonnx) -o quantize && ./quantize model.onnx model.int8.onnx int8 calib.npz */
#include <qonnx.h>
#include <stdio.h>

static void on_progress(void *user, const char *stage, int64_t done, int64_t total)
{
    (void)user;
    fprintf(stderr, "%s %lld/%lld\n", stage, (long long)done, (long long)total);
}

static qonnx_code configure(qonnx_job *job, char **argv)
{
    const char *const options[][2] = {{"output", argv[2]}, {"passes", argv[3]}, {"calib", argv[4]}, {"force", "1"}};
    for (int i = 0; i < 4; i++) {
        if (!options[i][1]) continue;
        qonnx_code rc = qonnx_job_set(job, options[i][0], options[i][1]);
        if (rc != QONNX_OK) return rc;
    }
    return QONNX_OK;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s IN.onnx OUT.onnx PASSES [CALIB.npz]\n", argv[0]);
        return QONNX_USAGE;
    }
    qonnx_ctx *ctx = qonnx_open();
    qonnx_job *job = NULL;
    if (!ctx) return QONNX_FAILED;
    qonnx_set_log(ctx, NULL, on_progress, NULL);
    qonnx_code rc = qonnx_job_new(ctx, argv[1], &job);
    if (rc == QONNX_OK) rc = configure(job, argv);
    if (rc == QONNX_OK) rc = qonnx_job_run(job);
    if (rc == QONNX_OK) puts(qonnx_job_report(job));
    else fprintf(stderr, "%s\n", qonnx_error(ctx));
    qonnx_job_free(job);
    qonnx_close(ctx);
    return rc;
}
