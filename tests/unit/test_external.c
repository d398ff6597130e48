/* test_external.c - where external data may lie and what its entries may say: each rule of the containment policy, with its message. */
#include "tmp_dir.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/mem.h"
#include "onnx/file/io.h"
#include "onnx/sha1.h"
#include "pb.h"

typedef struct place { qx_ctx *ctx; tmp_dir dir; char model[128]; } place;

static const char *at(const place *p, const char *name) { return tmp_path(&p->dir, name); }

static int setup(void **state)
{
    place *p = *state = calloc(1, sizeof *p);
    p->ctx = qx_ctx_new(NULL);
    if (!p->ctx || tmp_make(&p->dir, "/tmp") != 0) return -1;
    snprintf(p->model, sizeof p->model, "%s/in/model.onnx", p->dir.path);
    return mkdir(at(p, "in"), 0700) != 0 || mkdir(at(p, "out"), 0700) != 0 ? -1 : 0;
}

static int teardown(void **state)
{
    place *p = *state;
    const int rc = tmp_remove(&p->dir);
    qx_ctx_free(p->ctx);
    free(p);
    return rc;
}

static void sha1_of(const void *p, size_t n, char hex[41])
{
    qx_sha1 s;
    qx_sha1_init(&s);
    qx_sha1_update(&s, p, n / 2);
    qx_sha1_update(&s, (const char *)p + n / 2, n - n / 2);
    qx_sha1_hex(&s, hex);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static const float data[4] = {1, 2, 3, 4};
static void put_data(const place *p, const char *name) { put_file(at(p, name), data, sizeof data); }

/* f32 [4] tensor with pairs of keys and values up to NULL. */
static pb external(const char *const *kv)
{
    pb t = pb_tensor("w", 1, 1, (int64_t[]){4});
    for (; kv && kv[0]; kv += 2) pb_entry(&t, 13, kv[0], kv[1]);
    pb_int(&t, 14, 1);
    return t;
}

#define KV(...) (const char *const[]){__VA_ARGS__, NULL}

static void write_model(const place *p, pb *tensor)
{
    pb m = pb_model_with(tensor);
    put_file(at(p, "in/model.onnx"), m.p, m.n);
    pb_free(&m);
}

static qx_status load(const place *p, pb tensor, qx_read_options o, qx_model **m)
{
    o.skip_check = true;
    write_model(p, &tensor);
    return qx_model_read(p->ctx, p->model, &o, m);
}

static void refused(const place *p, pb tensor, const char *part)
{
    qx_model *m;
    if (load(p, tensor, (qx_read_options){0}, &m) == QX_OK) fail_msg("accepted; \"%s\" was expected", part);
    MESSAGE_HAS(p->ctx, part);
    MESSAGE_HAS(p->ctx, "tensor 'w'");
    assert_int_equal(qx_mem_in_use(p->ctx), 0);
}

static void accepted_with(const place *p, pb tensor, qx_read_options o)
{
    qx_model *m;
    float x[4];
    if (load(p, tensor, o, &m) != QX_OK) fail_msg("%s", qx_ctx_error(p->ctx));
    OK(qx_weight_read(p->ctx, m->graph->inits[0]->init, x));
    assert_memory_equal(x, data, sizeof data);
    qx_model_free(m);
}

static void accepted(const place *p, pb tensor) { accepted_with(p, tensor, (qx_read_options){0}); }

static void e01_e06_locations(void **state)
{
    place *p = *state;
    put_data(p, "out/w.bin");
    put_data(p, "in/w.bin");
    put_data(p, "x");
    assert_int_equal(mkdir(at(p, "in/a"), 0700), 0);
    refused(p, external(NULL), "there is no location");
    refused(p, external(KV("offset", "0")), "there is no location");
    refused(p, external(KV("location", "")), "refused: it is empty");
    refused(p, external(KV("location", at(p, "in/w.bin"))), "it is absolute");
    refused(p, external(KV("location", "../x")), "it climbs out with '..'");
    refused(p, external(KV("location", "a/../../x")), "it climbs out with '..'");
    refused(p, external(KV("location", "a/../w.bin")), "it climbs out with '..'");
    refused(p, external(KV("location", "..")), "it climbs out with '..'");
}

static void e07_odd_but_legal_names(void **state)
{
    place *p = *state;
    static const char *names[] = {"w..bin", "..data", "./w.bin", "sub/w.bin", "noext", "...", "a b"};
    assert_int_equal(mkdir(at(p, "in/sub"), 0700), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "in/%s", names[i]);
        put_data(p, path);
        accepted(p, external(KV("location", names[i])));
    }
}

static void e08_e09_windows_and_control(void **state)
{
    place *p = *state;
    refused(p, external(KV("location", "C:\\x")), "it holds a backslash");
    refused(p, external(KV("location", "C:x")), "drive letter");
    refused(p, external(KV("location", "..\\x")), "it holds a backslash");
    refused(p, external(KV("location", "\\\\host\\x")), "it holds a backslash");
    refused(p, external(KV("location", "a\nb")), "it holds a control byte");
    pb t = pb_tensor("w", 1, 1, (int64_t[]){4}), e = {0};
    pb_str(&e, 1, "location");
    pb_blob(&e, 2, "w\0.bin", 6);
    pb_msg(&t, 13, &e);
    pb_int(&t, 14, 1);
    qx_model *m;
    assert_int_equal(load(p, t, (qx_read_options){0}, &m), QX_E_FORMAT);
    MESSAGE_HAS(p->ctx, "a NUL byte inside a string of 6 bytes");
}

static void e10_e12_links(void **state)
{
    place *p = *state;
    put_data(p, "out/w.bin");
    assert_int_equal(symlink(at(p, "out/w.bin"), at(p, "in/final")), 0);
    assert_int_equal(symlink(at(p, "out"), at(p, "in/parent")), 0);
    assert_int_equal(symlink("loop", at(p, "in/loop")), 0);
    refused(p, external(KV("location", "final")), "outside the model's directory");
    MESSAGE_HAS(p->ctx, "--allow-symlinks");
    refused(p, external(KV("location", "parent/w.bin")), "outside the model's directory");
    refused(p, external(KV("location", "loop")), "circle");
    accepted_with(p, external(KV("location", "final")), (qx_read_options){.allow_symlinks = true}); /* E14 */
    accepted_with(p, external(KV("location", "parent/w.bin")), (qx_read_options){.external_data_root = at(p, "out")});
    put_data(p, "in/real");
    assert_int_equal(symlink("real", at(p, "in/inside")), 0);
    accepted(p, external(KV("location", "inside")));
    qx_model *m;
    assert_int_not_equal(load(p, external(KV("location", "inside")), (qx_read_options){.strict = true}, &m), QX_OK);
    MESSAGE_HAS(p->ctx, "refused here");
}

/* A download cache: the names are links into a folder of blobs. */
static void e13_link_farm(void **state)
{
    place *p = *state;
    pb t = external(KV("location", "model.onnx_data")), m = pb_model_with(&t);
    put_file(at(p, "out/blob1"), m.p, m.n);
    put_data(p, "out/blob2");
    assert_int_equal(symlink("../out/blob1", at(p, "in/model.onnx")), 0);
    assert_int_equal(symlink("../out/blob2", at(p, "in/model.onnx_data")), 0);
    qx_model *model;
    float x[4];
    if (qx_model_read(p->ctx, p->model, &(qx_read_options){.skip_check = true}, &model) != QX_OK) fail_msg("%s", qx_ctx_error(p->ctx));
    OK(qx_weight_read(p->ctx, model->graph->inits[0]->init, x));
    assert_memory_equal(x, data, sizeof data);
    qx_model_free(model);
    pb_free(&m);
}

static void e15_hard_links(void **state)
{
    place *p = *state;
    qx_model *m;
    put_data(p, "in/w.bin");
    assert_int_equal(link(at(p, "in/w.bin"), at(p, "out/other")), 0);
    accepted(p, external(KV("location", "w.bin")));
    assert_int_equal(load(p, external(KV("location", "w.bin")), (qx_read_options){.strict = true}, &m), QX_E_FORMAT);
    MESSAGE_HAS(p->ctx, "2 hard links");
}

static void e16_e17_not_a_file(void **state)
{
    place *p = *state;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    assert_int_equal(mkdir(at(p, "in/d"), 0700), 0);
    assert_int_equal(mkfifo(at(p, "in/fifo"), 0600), 0);
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", at(p, "in/sock"));
    const int s = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(symlink("/dev/zero", at(p, "in/zero")), 0);
    assert_int_equal(symlink("/proc/self/environ", at(p, "in/proc")), 0);
    refused(p, external(KV("location", "d")), "is a directory");
    refused(p, external(KV("location", "fifo")), "is a fifo");
    refused(p, external(KV("location", "sock")), "socket");
    refused(p, external(KV("location", "zero")), "is a character device");
    refused(p, external(KV("location", "proc")), "file of the kernel");
    refused(p, external(KV("location", "missing.bin")), at(p, "in/missing.bin"));
    close(s);
}

/* For looking at a model whose data is elsewhere. */
static void missing_data_may_be_fine(void **state)
{
    place *p = *state;
    qx_model *m;
    float x[4];
    OK(load(p, external(KV("location", "missing.bin", "offset", "64")), (qx_read_options){.missing_data_ok = true}, &m));
    assert_int_equal(qx_ctx_warnings(p->ctx), 1);
    assert_int_equal(m->graph->inits[0]->init->bytes, 16);
    FAILS(qx_weight_read(p->ctx, m->graph->inits[0]->init, x), QX_E_IO);
    MESSAGE_HAS(p->ctx, "is not there");
    assert_int_equal(qx_model_write(m, at(p, "o.onnx"), NULL, NULL), QX_E_IO);
    qx_model_free(m);
}

static void e18_e26_offsets_and_lengths(void **state)
{
    place *p = *state;
    static const struct { const char *key, *value, *part; } bad[] = {
        {"offset", "-1", "offset '-1' is not a decimal number"}, {"length", "-16", "length '-16' is not"},
        {"offset", "0x10", "'0x10' is not"}, {"offset", "1e3", "'1e3' is not"},
        {"offset", " 5", "' 5' is not"}, {"offset", "+5", "'+5' is not"}, {"offset", "", "'' is not"},
        {"offset", "9223372036854775808", "is not a decimal number up to 9223372036854775807"},
        {"offset", "9223372036854775807", "overflow"}, {"offset", "20", "offset 20 is behind the end of 'w.bin', which has 16 bytes"},
        {"offset", "8", "8..24 is behind the end of 'w.bin', which has 16 bytes"},
        {"length", "1152921504606846976", "is behind the end"}, {"length", "12", "length 12, but 4 elements of FLOAT take 16 bytes"},
        {"length", "0", "length 0, but 4 elements"},
    };
    put_data(p, "in/w.bin");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(p, external(KV("location", "w.bin", bad[i].key, bad[i].value)), bad[i].part);
    assert_true(qx_mem_peak(p->ctx) < (8 << 20));
}

static void e27_ranges_that_fit(void **state)
{
    place *p = *state;
    float more[6] = {9, 1, 2, 3, 4, 9};
    put_file(at(p, "in/more.bin"), more, sizeof more);
    put_data(p, "in/w.bin");
    accepted(p, external(KV("location", "w.bin")));
    accepted(p, external(KV("location", "more.bin", "offset", "4")));
    accepted(p, external(KV("location", "more.bin", "offset", "4", "length", "16")));
}

static void e28_e33_keys(void **state)
{
    place *p = *state;
    qx_model *m;
    put_data(p, "in/w.bin");
    accepted(p, external(KV("location", "w.bin", "__class__", "x")));
    assert_int_equal(qx_ctx_warnings(p->ctx), 1);
    assert_int_equal(load(p, external(KV("location", "w.bin", "__class__", "x")), (qx_read_options){.strict = true}, &m), QX_E_FORMAT);
    MESSAGE_HAS(p->ctx, "unknown external data key '__class__'");
    pb t = pb_tensor("w", 1, 1, (int64_t[]){4});
    pb_entry(&t, 13, "location", "nowhere");
    pb_blob(&t, 9, data, sizeof data);
    accepted(p, t); /* E29: the location does not count, with a warning */
    assert_int_equal(qx_ctx_warnings(p->ctx), 2);
    accepted(p, external(KV("location", "w.bin", "prepacked_1", "k|0;16;x|y", "basepath", "/etc"))); /* E30 */
    assert_int_equal(qx_ctx_warnings(p->ctx), 2);
    refused(p, external(KV("location", "w.bin", "offset", "0", "offset", "0")), "gives 'offset' twice");
    t = pb_tensor("w", 1, 1, (int64_t[]){4});
    pb_entry(&t, 13, "location", NULL);
    pb_int(&t, 14, 1);
    refused(p, t, "entry 0 of external_data has no value");
    refused(p, external(KV("location", "*/_ORT_MEM_ADDR_/*", "offset", "12345")), "memory address tag");
}

static void e34_e35_checksums(void **state)
{
    place *p = *state;
    char bad[41], good[41];
    put_data(p, "in/w.bin");
    sha1_of(data, sizeof data, good);
    memcpy(bad, good, 41);
    bad[0] = bad[0] == '0' ? '1' : '0';
    accepted(p, external(KV("location", "w.bin", "checksum", good)));
    refused(p, external(KV("location", "w.bin", "checksum", bad)), "has SHA1");
    accepted_with(p, external(KV("location", "w.bin", "checksum", bad)), (qx_read_options){.skip_checksum = true});
    refused(p, external(KV("location", "w.bin", "checksum", "abc")), "is not 40 hexadecimal digits");
}

static void sha1_vectors(void **state)
{
    char hex[41];
    (void)state;
    sha1_of("", 0, hex);
    assert_string_equal(hex, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    sha1_of("abc", 3, hex);
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
    sha1_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
    assert_string_equal(hex, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
}

static qx_status load_two(const place *p, const char *off1, const char *off2, bool strict, qx_model **m)
{
    pb a = external(KV("location", "more.bin", "offset", off1)), b = {0}, g = pb_graph();
    pb_str(&b, 8, "w2");
    pb_int(&b, 1, 4), pb_int(&b, 2, 1);
    pb_entry(&b, 13, "location", "more.bin");
    pb_entry(&b, 13, "offset", off2);
    pb_int(&b, 14, 1);
    pb_msg(&g, 5, &a), pb_msg(&g, 5, &b);
    pb model = pb_model(&g);
    put_file(at(p, "in/model.onnx"), model.p, model.n);
    pb_free(&model);
    return qx_model_read(p->ctx, p->model, &(qx_read_options){.skip_check = true, .strict = strict}, m);
}

static void e36_e37_tied_and_overlapping(void **state)
{
    place *p = *state;
    qx_model *m;
    float more[8] = {0};
    put_file(at(p, "in/more.bin"), more, sizeof more);
    OK(load_two(p, "0", "0", true, &m));
    assert_int_equal(qx_model_external_bytes(m), 16);
    qx_model_free(m);
    OK(load_two(p, "0", "16", true, &m));
    assert_int_equal(qx_model_external_bytes(m), 32);
    qx_model_free(m);
    assert_int_equal(qx_ctx_warnings(p->ctx), 0);
    OK(load_two(p, "0", "8", false, &m));
    qx_model_free(m);
    assert_int_equal(qx_ctx_warnings(p->ctx), 1);
    FAILS(load_two(p, "0", "8", true, &m), QX_E_FORMAT);
    MESSAGE_HAS(p->ctx, "tensor 'w' at 0..16 overlaps tensor 'w2' at 8..24");
}

static void e38_e39_which_file(void **state)
{
    place *p = *state;
    refused(p, external(KV("location", "model.onnx")), "is the model file itself");
    put_data(p, "in/w.bin");
    qx_model *m;
    float x[4], other[4] = {9, 9, 9, 9};
    OK(load(p, external(KV("location", "w.bin")), (qx_read_options){0}, &m));
    unlink(at(p, "in/w.bin"));
    put_file(at(p, "in/w.bin"), other, sizeof other); /* swapped after the check: the file that was checked is read */
    OK(qx_weight_read(p->ctx, m->graph->inits[0]->init, x));
    assert_memory_equal(x, data, sizeof data);
    qx_model_free(m);
}

static void e40_file_cut(void **state)
{
    place *p = *state;
    qx_model *m;
    float x[4];
    put_data(p, "in/w.bin");
    OK(load(p, external(KV("location", "w.bin")), (qx_read_options){0}, &m));
    assert_int_equal(truncate(at(p, "in/w.bin"), 7), 0);
    FAILS(qx_weight_read(p->ctx, m->graph->inits[0]->init, x), QX_E_IO);
    qx_model_free(m);
}

/* The same rules for a tensor in a Constant, in a subgraph, in a function. */
static void e41_everywhere(void **state)
{
    place *p = *state;
    for (int where = 0; where < 3; where++) {
        pb t = external(KV("location", "../x")), a = {0}, n = {0}, g = {0}, m;
        pb_str(&a, 1, "value");
        pb_msg(&a, 5, &t);
        pb_int(&a, 20, 4);
        pb_str(&n, 2, "c");
        pb_str(&n, 4, "Constant");
        pb_msg(&n, 5, &a);
        if (where == 1) { /* If with the Constant in its branch */
            pb sub = {0};
            pb_msg(&sub, 1, &n);
            pb_str(&sub, 2, "branch");
            pb_str(&a, 1, "then_branch");
            pb_msg(&a, 6, &sub);
            pb_int(&a, 20, 5);
            pb_str(&n, 4, "If");
            pb_str(&n, 1, "x");
            pb_msg(&n, 5, &a);
        }
        g = pb_graph();
        if (where == 2) {
            pb f = {0}, o = {0};
            pb_str(&f, 1, "F");
            pb_str(&f, 10, "local");
            pb_str(&f, 5, "c");
            pb_msg(&f, 7, &n);
            pb_int(&o, 2, 17);
            pb_msg(&f, 9, &o);
            m = pb_model(&g);
            pb_msg(&m, 25, &f);
        } else {
            pb_msg(&g, 1, &n);
            m = pb_model(&g);
        }
        put_file(at(p, "in/model.onnx"), m.p, m.n);
        pb_free(&m);
        qx_model *model;
        assert_int_equal(qx_model_read(p->ctx, p->model, &(qx_read_options){.skip_check = true}, &model), QX_E_FORMAT);
        MESSAGE_HAS(p->ctx, "it climbs out with '..'");
    }
}

static void e42_bytes_without_a_directory(void **state)
{
    place *p = *state;
    pb t = external(KV("location", "w.bin")), m = pb_model_with(&t);
    qx_model *model;
    const qx_read_options o = {.skip_check = true};
    put_data(p, "in/w.bin");
    FAILS(qx_model_read_bytes(p->ctx, m.p, m.n, NULL, &o, &model), QX_E_FORMAT);
    MESSAGE_HAS(p->ctx, "given as bytes");
    OK(qx_model_read_bytes(p->ctx, m.p, m.n, at(p, "in"), &o, &model));
    qx_model_free(model);
    pb_free(&m);
}

static void lfs_pointer_as_data(void **state)
{
    place *p = *state;
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\n";
    qx_model *m;
    put_file(at(p, "in/w.bin"), lfs, sizeof lfs - 1);
    assert_int_equal(load(p, external(KV("location", "w.bin")), (qx_read_options){0}, &m), QX_E_FORMAT);
    MESSAGE_HAS(p->ctx, "git lfs pull");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(e01_e06_locations), CASE(e07_odd_but_legal_names), CASE(e08_e09_windows_and_control), CASE(e10_e12_links),
        CASE(e13_link_farm), CASE(e15_hard_links),
        CASE(e16_e17_not_a_file), CASE(missing_data_may_be_fine), CASE(e18_e26_offsets_and_lengths), CASE(e27_ranges_that_fit),
        CASE(e28_e33_keys), CASE(e34_e35_checksums), CASE(sha1_vectors),
        CASE(e36_e37_tied_and_overlapping), CASE(e38_e39_which_file), CASE(e40_file_cut), CASE(e41_everywhere),
        CASE(e42_bytes_without_a_directory), CASE(lfs_pointer_as_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
