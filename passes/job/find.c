/* find.c - see find.h. */
#include <dirent.h>
#include <fnmatch.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "onnx/infer/infer.h"
#include "passes/job/find.h"

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool is_sample(const char *name) { return fnmatch("sample*.npz", name, 0) == 0 || fnmatch("calib*.npz", name, 0) == 0; }

/* The list doubles when it is full: at powers of two. */
static qx_status add_path(qx_arena *arena, const char ***paths, int *n, const char *path)
{
    if (!path) return QX_E_NOMEM;
    if ((*n & (*n - 1)) == 0) {
        const char **more = qx_arena_array(arena, (size_t)*n * 2 + 1, sizeof *more);
        if (!more) return QX_E_NOMEM;
        if (*n) memcpy(more, *paths, (size_t)*n * sizeof *more);
        *paths = more;
    }
    (*paths)[(*n)++] = path;
    return QX_OK;
}

qx_status qx_find_samples(qx_ctx *ctx, qx_arena *arena, const char *model_path, const char ***paths, int *n)
{
    const char *slash = strrchr(model_path, '/');
    const char *dir = slash ? qx_arena_strndup(arena, model_path, (size_t)(slash - model_path) + 1) : "./";
    qx_status st = QX_OK;
    *n = 0;
    *paths = NULL;
    if (!dir) return QX_E_NOMEM;
    DIR *d = opendir(dir);
    if (!d) QX_FAIL(ctx, QX_E_IO, "cannot list '%s': %s", dir, strerror(errno));
    for (struct dirent *e; st == QX_OK && (e = readdir(d));)
        if (is_sample(e->d_name)) st = add_path(arena, paths, n, qx_arena_printf(arena, "%s%s", slash ? dir : "", e->d_name));
    closedir(d);
    if (*n) qsort(*paths, (size_t)*n, sizeof **paths, by_name);
    return st;
}

qx_status qx_find_tokenizer(qx_arena *arena, const char *model_path, const char **out)
{
    static const char *const places[] = {"", "../"};
    const char *slash = strrchr(model_path, '/');
    const int dir = slash ? (int)(slash - model_path) + 1 : 0;
    *out = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !*out; i++) {
        const char *path = qx_arena_printf(arena, "%.*s%stokenizer.json", dir, model_path, places[i]);
        if (!path) return QX_E_NOMEM;
        if (access(path, R_OK) == 0) *out = path;
    }
    return QX_OK;
}

#define WAYS_SAMPLES "this format needs samples to calibrate with, and none are beside the model (sample*.npz, calib*.npz). Give one of:\n" \
                     "  --calib FILE.npz       arrays named like the inputs: %.2000s\n"
#define WAYS_TEXT    "  --text FILE            plain text, for this language model (--tokenizer FILE when tokenizer.json is not beside it)\n"
#define WAYS_WITHOUT "  --random 4             made-up samples: for a try only, quality will suffer\n" \
                     "  --passes int8-dynamic  INT8 whose activations are measured when the model runs: needs no samples\n" \
                     "  --int4, --passes int8-weights, --passes fp8-weights     store weights in few bits, need no samples"

qx_status qx_no_samples(qx_ctx *ctx, const qx_model *m)
{
    qx_buf b = QX_BUF_INIT(ctx);
    bool tokens = false;
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) tokens |= strstr(m->graph->inputs[i]->name, "input_ids") != NULL;
    (void)qx_inputs_describe(m->graph, &b); /* what does not fit is left out of the message */
    const char *inputs = b.data ? b.data : "";
    qx_status st = tokens ? qx_fail(ctx, QX_E_USAGE, WAYS_SAMPLES WAYS_TEXT WAYS_WITHOUT, inputs)
        : qx_fail(ctx, QX_E_USAGE, WAYS_SAMPLES WAYS_WITHOUT, inputs);
    qx_buf_free(&b);
    return st;
}

const char *qx_output_name(qx_arena *arena, const char *input, const char *label)
{
    size_t n = strlen(input);
    if (n > 5 && strcmp(input + n - 5, ".onnx") == 0) n -= 5;
    return qx_arena_printf(arena, "%.*s.%s.onnx", (int)n, input, label);
}
