/* Golden tests of the rewrites. A case is a folder: in.txt (ONNX text), options (lines "name value" of a quantize job), out.txt:
 * the graph that must come out and what was decided for each node, or "error: ..." with the message. Weights print as hashes of
 * their content, so codes and scales are pinned too; cases must not hang on the last bits of what a convolution sums
 * (bias-correction's hashes would). `golden_test_golden --update` writes out.txt anew. */
#include <dirent.h>
#include <stdlib.h>

#include "../unit/rewrite.h"
#include "base/file.h"

enum { MAX_CASES = 200 };
static bool update;

static char *slurp(qx_ctx *ctx, const char *dir, const char *name)
{
    char path[1024], *text = NULL;
    size_t len;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (qx_file_slurp(ctx, path, 1 << 20, &text, &len) != QX_OK) return NULL;
    return text;
}

static void make_output(qx_ctx *ctx, const char *dir, qx_buf *out)
{
    qx_model *m = NULL;
    qx_job_args *a;
    qx_report *r = NULL;
    const qx_quantize_options *o;
    char *in = slurp(ctx, dir, "in.txt"), *options = slurp(ctx, dir, "options");
    if (!in || !options) fail_msg("%s: in.txt or options is missing: %s", dir, qx_ctx_error(ctx));
    if (qx_job_args_new(ctx, &a) != QX_OK || qx_report_new(ctx, &r) != QX_OK) fail_msg("no memory");
    set_options(ctx, a, options);
    if (qx_job_args_options(a, &o) != QX_OK || qx_model_parse_text(ctx, in, &m) != QX_OK) fail_msg("%s: %s", dir, qx_ctx_error(ctx));
    qx_stats *stats = NULL;
    if (rewrite(ctx, o, m, r, &stats) != QX_OK) {
        qx_buf_printf(out, "error: %s\n", qx_ctx_error(ctx));
    } else {
        if (qx_model_print(m, out) != QX_OK) fail_msg("%s: %s", dir, qx_ctx_error(ctx));
        print_decisions(r, out);
    }
    qx_stats_free(stats);
    qx_model_free(m);
    qx_report_free(r);
    qx_job_args_free(a);
    qx_free(ctx, in);
    qx_free(ctx, options);
}

/* Numbers in braces with five digits: the last ones of a scale hang on the order in which the processor's kernels add. */
static void round_numbers(qx_ctx *ctx, qx_buf *text)
{
    qx_buf out = QX_BUF_INIT(ctx);
    bool inside = false;
    for (const char *p = text->data, *end; *p; p = end) {
        char *stop = NULL;
        const double v = inside && strchr("-0123456789", *p) ? strtod(p, &stop) : 0;
        end = stop && stop > p ? stop : p + 1;
        if (*p == '{' || *p == '}') inside = *p == '{';
        const bool real = end > p + 1 && (memchr(p, '.', (size_t)(end - p)) || memchr(p, 'e', (size_t)(end - p)));
        assert_int_equal(real ? qx_buf_printf(&out, "%.5g", v) : qx_buf_put(&out, p, (size_t)(end - p)), QX_OK);
    }
    qx_buf_free(text);
    *text = out;
}

static void write_file(const char *dir, const char *text)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/out.txt", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void run_case(void **state)
{
    const char *dir = *state;
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_buf out = QX_BUF_INIT(ctx);
    make_output(ctx, dir, &out);
    round_numbers(ctx, &out);
    if (update) write_file(dir, out.data);
    char *want = slurp(ctx, dir, "out.txt");
    if (!want) fail_msg("%s/out.txt is missing (--update writes it)", dir);
    if (strcmp(want, out.data) != 0) fail_msg("%s: got\n%s\nwanted\n%s", dir, out.data, want);
    qx_free(ctx, want);
    qx_buf_free(&out);
    assert_int_equal(qx_mem_in_use(ctx), 0); /* nothing is left behind, in error cases too */
    qx_ctx_free(ctx);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[MAX_CASES];
    static char paths[MAX_CASES][512];
    const char *root = TEST_SOURCE_DIR "/tests/golden";
    size_t n = 0;
    update = argc > 1 && strcmp(argv[1], "--update") == 0;
    DIR *d = opendir(root);
    if (!d) { fprintf(stderr, "no folder %s\n", root); return 1; }
    for (struct dirent *e; n < MAX_CASES && (e = readdir(d));) {
        if (e->d_name[0] == '.' || strchr(e->d_name, '.')) continue;
        snprintf(paths[n], sizeof paths[n], "%s/%s", root, e->d_name);
        tests[n] = (struct CMUnitTest){paths[n] + strlen(root) + 1, run_case, NULL, NULL, paths[n]};
        n++;
    }
    closedir(d);
    qsort(tests, n, sizeof *tests, by_name);
    return n ? _cmocka_run_group_tests("golden", tests, n, NULL, NULL) : 1;
}
