/* test_forged_stats.c - statistics files whose hash is right and whose content is made up: rows beyond the range, counts that
 * nothing has, tables without an end. Each is refused with the value's name; none is believed, for what works with statistics
 * indexes by them. */
#include "../unit/tmp_dir.h"
#include "base/file.h"
#include "base/map.h"
#include "calib/stats/stats.h"

#include <math.h>

#define MLP TEST_SOURCE_DIR "/tests/data/mlp/"
enum { HASH = 32, PIECE = 1 << 20 };
static tmp_dir dir;
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

typedef struct file { char *bytes; size_t n; char *arrays; } file; /* arrays: what offsets count from */

static void collect(qx_ctx *ctx, qx_model *m)
{
    qx_exec *x;
    qx_stats *s;
    qx_samples *samples;
    const char *path = MLP "calib.npz";
    OK(qx_exec_new(ctx, m, NULL, &x));
    OK(qx_stats_new(ctx, m->graph_hash, &s));
    OK(qx_stats_want(s, &(qx_stat_request){.value = qx_graph_find(m->graph, "x"),
                                           .kinds = QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS | QX_STAT_GRAM, .axis = -1,
                                           .rows = 10}));
    OK(qx_samples_open(ctx, m, &(qx_samples_options){.paths = &path, .n_paths = 1}, &samples));
    OK(qx_stats_collect(s, x, samples));
    OK(qx_stats_save(s, tmp_path(&dir, "good.stats"), true));
    qx_samples_close(samples);
    qx_stats_free(s);
    qx_exec_free(x);
}

static void open_good(qx_ctx *ctx, file *f)
{
    OK(qx_file_slurp(ctx, tmp_path(&dir, "good.stats"), 1 << 24, &f->bytes, &f->n));
    f->arrays = strstr(f->bytes, "\n}\n") + 3;
}

/* The place of the first element of an array of the one value. */
static void *array(const file *f, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *at = strstr(f->bytes, key);
    assert_non_null(at);
    return f->arrays + atol(at + strlen(key));
}

/* Another text of the same length in the table. */
static void edit(const file *f, const char *from, const char *to)
{
    char *at = strstr(f->bytes, from);
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
}

static void sign(file *f)
{
    char hashes[64 * HASH], hex[HASH + 1];
    size_t n = 0;
    for (size_t at = 0; at < f->n - HASH; at += PIECE, n += HASH) {
        qx_hash128_hex(f->bytes + at, f->n - HASH - at < PIECE ? f->n - HASH - at : PIECE, hex);
        memcpy(hashes + n, hex, HASH);
    }
    qx_hash128_hex(hashes, n, hex);
    memcpy(f->bytes + f->n - HASH, hex, HASH);
}

static void refused(qx_ctx *ctx, uint64_t model, file *f, const char *message)
{
    qx_stats *s;
    const char *path = tmp_path(&dir, "forged.stats");
    sign(f);
    put_file(path, f->bytes, f->n);
    OK(qx_stats_new(ctx, model, &s));
    FAILS(qx_stats_load(s, path), QX_E_FORMAT);
    MESSAGE_HAS(ctx, message);
    qx_ctx_clear_error(ctx);
    qx_stats_free(s);
    qx_free(ctx, f->bytes);
}

static void forged(void **state)
{
    qx_ctx *ctx = *state;
    static const struct { const char *array; float value; const char *message; } floats[] = {
        {"row_data", 1e30f, "rows leave its range"}, {"row_data", NAN, "rows leave its range"},
        {"top_data", -1e30f, "rows leave its range"},
        {"channel_max", 1e30f, "channels leave its range"}, {"channel_min", NAN, "channels leave its range"},
            {"channel_min", INFINITY, "channels leave its range"}};
    static const struct { const char *from, *to, *message; } texts[] = {
        {"\"kinds\": 31", "\"kinds\": 99", "promises kinds"}, {"\"gram_groups\": 1", "\"gram_groups\": 0", "counts do not fit"},
        {"\"row_length\": 64", "\"row_length\": -4", "counts do not fit"},
        {"\"bin_exponent\":", "\"bin_exponen_\":", "bin_exponent"}, {"\n}\n", "\n} ", "no table of values"},
        {"\"absmax\": 3.5", "\"absmax\": 4.5", "range and its sums"}, {"\"max\": 3.5", "\"max\": 2.5", "range and its sums"}};
    qx_model *m;
    file f;
    OK(qx_model_read(ctx, MLP "model.onnx", NULL, &m));
    collect(ctx, m);
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        open_good(ctx, &f);
        memcpy(array(&f, floats[i].array), &floats[i].value, sizeof(float));
        refused(ctx, m->graph_hash, &f, floats[i].message);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        open_good(ctx, &f);
        edit(&f, texts[i].from, texts[i].to);
        refused(ctx, m->graph_hash, &f, texts[i].message);
    }
    open_good(ctx, &f);
    memset(array(&f, "histogram"), 0xff, sizeof(uint64_t));
    refused(ctx, m->graph_hash, &f, "counts more than its range");
    qx_model_free(m);
}

/* A whole page without a byte 0: whoever reads it as a string reads on behind it. */
static void one_page(void **state)
{
    qx_ctx *ctx = *state;
    file f = {.n = 4096};
    OK(qx_alloc_raw(ctx, f.n, (void **)&f.bytes));
    memset(f.bytes, '1', f.n);
    memcpy(f.bytes, "qonnx-stats 1\n", 14);
    refused(ctx, 1, &f, "no table of values");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(forged), TEST(one_page)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
