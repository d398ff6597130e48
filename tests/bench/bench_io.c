/* bench_io.c - what reading and rewriting models costs, as time and peak memory.
 *     bench_io read MODEL                          structure only
 *     bench_io copy|rebuild|external IN OUT [N]    unedited; messages built anew; weights to a data file. N threads
 *     bench_io int8|fp8|int4|f16 IN OUT [N] every large matrix and convolution weight through a job (codes only: a speed test, not a
 *     valid model)
 * Compare with the time of `cp` for the bytes of input plus output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/thread.h"
#include "onnx/edit.h"
#include "onnx/file/io.h"

static void say(void *user, qx_log_level level, const char *text)
{
    (void)user;
    if (level != QX_LOG_DEBUG) fprintf(stderr, "%s\n", text);
}

static const struct { const char *name; qx_qspec spec; } modes[] = {
    {"int8", {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT16, .narrow = true}},
    {"fp8", {.codes = QX_DT_FLOAT8E4M3FN, .scale = QX_DT_FLOAT16}},
    {"int4", {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT16, .block = 32}},
    {"int4s", {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT16, .block = 32, .rule = QX_SCALE_SEARCH}},
    {"f16", {.codes = QX_DT_FLOAT16}},
};

static qx_status quantize(qx_model *m, const qx_qspec *spec, int64_t *count)
{
    for (uint32_t i = 0; i < m->graph->n_inits; i++) {
        qx_value *v = m->graph->inits[i];
        qx_job *j;
        if (!v->init || v->init->numel < 4096 || v->init->rank < 2 || !qx_dtype_is_float(v->init->dtype)) continue;
        const int64_t *d = v->init->dims;
        const bool matrix = v->init->rank == 2;
        const qx_view view = matrix ? (qx_view){d[1], d[0], 1, 0} : (qx_view){d[0], 1, v->init->numel / d[0], 0};
        qx_qspec s = *spec;
        if (!matrix && s.block) s.block = 0;
        QX_TRY(qx_job_new(m, v->init, &view, NULL, &s, s.block ? QX_LAYOUT_NK : QX_LAYOUT_SAME, &j));
        QX_TRY(qx_init_replace(v, j->part[QX_PART_CODES]));
        ++*count;
    }
    return QX_OK;
}

static qx_status edit(qx_model *m, const char *mode, qx_write_options *opt)
{
    int64_t n = 0;
    if (!strcmp(mode, "copy")) return QX_OK;
    if (!strcmp(mode, "rebuild")) return m->dirty = true, QX_OK;
    if (!strcmp(mode, "external")) return opt->external_data = true, QX_OK;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(mode, modes[i].name)) {
            QX_TRY(quantize(m, &modes[i].spec, &n));
            printf("%lld weights, ", (long long)n);
            return QX_OK;
        }
    return QX_E_USAGE;
}

static long peak_kb(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: bench_io MODE IN [OUT] [THREADS]\n"), 2;
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.log = say, .threads = argc > 4 ? atoi(argv[4]) : 0});
    qx_model *m = NULL;
    qx_write_options opt = {.force = true};
    qx_write_result res = {0};
    const bool read_only = !strcmp(argv[1], "read");
    const double start = qx_clock_seconds();
    qx_status st = qx_model_read(ctx, argv[2], &(qx_read_options){.skip_check = true}, &m);
    const double read = qx_clock_seconds();
    if (st == QX_OK)
        printf("read %.4f s, %ld kB (arena %zu, heap %zu); ", read - start, peak_kb(), qx_arena_bytes(m->arena), qx_mem_in_use(ctx));
    if (st == QX_OK && !read_only) st = edit(m, argv[1], &opt);
    if (st == QX_OK && !read_only) st = qx_model_write(m, argv[3], &opt, &res);
    const double end = qx_clock_seconds();
    if (st == QX_OK)
        printf("write %.3f s, model %lld + data %lld bytes, peak %ld kB, heap %zu\n", end - read, (long long)res.model_bytes,
               (long long)res.data_bytes, peak_kb(), qx_mem_peak(ctx));
    else fprintf(stderr, "failed: %s\n", qx_ctx_error(ctx));
    qx_model_free(m);
    qx_ctx_free(ctx);
    return st != QX_OK;
}
