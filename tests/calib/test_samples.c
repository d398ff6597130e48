/* test_samples.c - what people give as calibration data: one array under another name, folders by input, axes in the wrong order,
 * nothing at all, pictures of 0 to 255. */
#include "../unit/model_text.h"
#include "../unit/tmp_dir.h"

#include <sys/stat.h>

#include "calib/data/samples.h"
#include "onnx/edit.h"

#define PICTURE HEAD(17) "g (float[n,3,h,w] x) => (y) { y = Relu (x) }"
#define PAIR HEAD(17) "g (float[n,2] a, float[n,2] b) => (y) { y = Add (a, b) }"

static tmp_dir dir;
static char logged[4096];

static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }
static const char *in_dir(const char *name) { return tmp_path(&dir, name); }

static void keep_log(void *user, qx_log_level level, const char *text)
{
    (void)user;
    (void)level;
    strncat(logged, text, sizeof logged - strlen(logged) - 1);
}

static qx_status open_file(fixture *f, const char *path, qx_samples **s)
{
    return qx_samples_open(f->ctx, f->m, &(qx_samples_options){.paths = &path, .n_paths = 1}, s);
}

static const char *npz(fixture *f, const char *name, const char *file, int rank, const int64_t *dims, float first, float step)
{
    qx_tensor t;
    ok(f, qx_tensor_new(f->ctx, &t, QX_DT_FLOAT, rank, dims));
    for (int64_t i = 0; i < t.numel; i++) ((float *)t.data)[i] = first + step * (float)(i % 256);
    ok(f, qx_npz_write(f->ctx, in_dir(file), &name, &t, 1));
    qx_tensor_free(f->ctx, &t);
    return in_dir(file);
}

/* The file must be refused with `part` in the message, or be read with `part` in the log. */
static void gives(const char *model, const char *name, int rank, const int64_t *dims, float first, float step, bool accepted,
                  const char *part)
{
    fixture f = {.ctx = qx_ctx_new(&(qx_ctx_options){.log = keep_log})};
    qx_samples *s = NULL;
    const qx_feed *feeds;
    int n;
    logged[0] = 0;
    assert_non_null(f.ctx);
    ok(&f, qx_model_parse_text(f.ctx, model, &f.m));
    qx_status st = open_file(&f, npz(&f, name, "s.npz", rank, dims, first, step), &s);
    if (st == QX_OK) st = qx_samples_get(s, 0, &feeds, &n);
    if ((st == QX_OK) != accepted || !strstr(accepted ? logged : qx_ctx_error(f.ctx), part))
        fail_msg("'%s' and '%s', not '%s'", qx_ctx_error(f.ctx), logged, part);
    qx_samples_close(s);
    unload(&f);
}

static void shapes_and_contents(void **state)
{
    (void)state;
    gives(PICTURE, "arr_0", 4, (int64_t[]){1, 3, 8, 8}, -1, 0.01F, true, "");
    gives(PAIR, "arr_0", 2, (int64_t[]){1, 2}, 0, 1, false, "no array 'a'. It holds: arr_0");
    gives(PICTURE, "x", 4, (int64_t[]){1, 8, 8, 3}, -1, 0.01F, false, "transpose(0,3,1,2) would fit");
    gives(PICTURE, "x", 3, (int64_t[]){3, 8, 8}, -1, 0.01F, false, "a batch axis in front is missing");
    gives(PICTURE, "x", 4, (int64_t[]){0, 3, 8, 8}, 0, 0, false, "is empty");
    gives(PICTURE, "x", 4, (int64_t[]){1, 3, 16, 16}, 0, 1, true, "like a picture that is not scaled yet");
    gives(PICTURE, "x", 4, (int64_t[]){1, 3, 16, 16}, 0.5F, 0, true, "is 0.5 everywhere");
}

static void put_npy(const char *file, float a, float b)
{
    char head[128];
    const float v[2] = {a, b};
    int n = snprintf(head + 10, sizeof head - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n");
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    head[8] = (char)n;
    head[9] = 0;
    memcpy(head + 10 + n, v, sizeof v);
    put_file(in_dir(file), head, (size_t)n + 10 + sizeof v);
}

static void folders_by_input(void **state)
{
    (void)state;
    fixture f = load(PAIR);
    qx_samples *s;
    const qx_feed *feeds;
    int n;
    mkdir(in_dir("d"), 0700);
    mkdir(in_dir("d/a"), 0700);
    mkdir(in_dir("d/b"), 0700);
    put_npy("d/a/0.npy", 1, 2);
    put_npy("d/a/1.npy", 3, 4);
    put_npy("d/b/x0.npy", 5, 6);
    assert_int_equal(open_file(&f, in_dir("d"), &s), QX_E_USAGE);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "2 files for input 'a', 1 for 'b'"));
    qx_ctx_clear_error(f.ctx);
    put_npy("d/b/x1.npy", 7, 8);
    ok(&f, open_file(&f, in_dir("d"), &s));
    assert_int_equal(qx_samples_count(s), 2);
    ok(&f, qx_samples_get(s, 1, &feeds, &n));
    assert_int_equal(n, 2);
    assert_true(((const float *)feeds[0].tensor->data)[0] == 3 && ((const float *)feeds[1].tensor->data)[1] == 8);
    qx_samples_close(s);
    unload(&f);
}

static void single_files_by_name(void **state)
{
    (void)state;
    fixture f = load(PAIR);
    char a[512], b[512];
    const char *const paths[] = {a, b};
    qx_samples *s;
    put_npy("left.npy", 1, 2);
    put_npy("right.npy", 3, 4);
    snprintf(a, sizeof a, "a=%s", in_dir("left.npy"));
    snprintf(b, sizeof b, "b=%s", in_dir("right.npy"));
    ok(&f, qx_samples_open(f.ctx, f.m, &(qx_samples_options){.paths = paths, .n_paths = 2}, &s));
    assert_int_equal(qx_samples_count(s), 1);
    qx_samples_close(s);
    unload(&f);
}

/* Four entries are four samples, unless a node of the graph takes four apart. */
static void cut_along_the_batch(void **state)
{
    static const struct { const char *text; int64_t samples; } rows[] = {
        {HEAD(18) "g (float[n,64] x) => (float[n,64] y) { y = Relu (x) }", 4},
        {HEAD(18) "g (float[n,64] x) => (float[n,64] y) { a, b = Split <axis=-1, num_outputs=2> (x) y = Concat <axis=1> (b, a) }", 4},
        {HEAD(18) "g (float[n,64] x) => (float[n,64] y) { a, b, c, d = Split <axis=0, num_outputs=4> (x) y = Concat <axis=0> (d, c, b, a) }", 1},
        {HEAD(18) "g (float[n,64] x) => (float[n,64] y) { a, b, c, d = Split <axis=-2, num_outputs=4> (x) y = Concat <axis=0> (d, c, b, a) }", 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qx_samples *s;
        fixture f = load(rows[i].text);
        ok(&f, open_file(&f, npz(&f, "x", "s.npz", 2, (int64_t[]){4, 64}, -1, 0.01F), &s));
        assert_int_equal(qx_samples_count(s), rows[i].samples);
        qx_samples_close(s);
        unload(&f);
    }
}

/* Old exporters list weights as inputs, some before the data; a rewrite makes them constants while the samples are open. */
static void input_made_a_constant(void **state)
{
    (void)state;
    fixture f = load(HEAD(9) "g (float[2] bias = {1, 2}, float[n,2] x) => (y) { y = Add (x, bias) }");
    qx_samples *s;
    const qx_feed *feeds;
    int n;
    ok(&f, open_file(&f, npz(&f, "x", "s.npz", 2, (int64_t[]){1, 2}, 5, 1), &s));
    ok(&f, qx_input_fix(f.m->graph->inputs[0]));
    ok(&f, qx_samples_get(s, 0, &feeds, &n));
    assert_int_equal(n, 1);
    assert_string_equal(feeds[0].name, "x");
    assert_float_equal(((const float *)feeds[0].tensor->data)[1], 6, 0);
    qx_samples_close(s);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes_and_contents), cmocka_unit_test(folders_by_input),
                                       cmocka_unit_test(single_files_by_name), cmocka_unit_test(cut_along_the_batch),
                                       cmocka_unit_test(input_made_a_constant)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
