/* test_wire.c - hostile and odd protobuf: every rule of the wire scan, with the message it gives. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/mem.h"
#include "onnx/file/io.h"
#include "pb.h"

/* Reads the bytes (and frees them); on failure the message must have every part. */
static void refused(qx_ctx *ctx, pb *b, const char *part1, const char *part2)
{
    qx_model *m = NULL;
    const qx_status st = qx_model_read_bytes(ctx, b->p, b->n, NULL, &(qx_read_options){.skip_check = true}, &m);
    if (st == QX_OK) {
        qx_model_free(m);
        fail_msg("accepted; \"%s\" was expected", part1);
    }
    MESSAGE_HAS(ctx, part1);
    if (part2) MESSAGE_HAS(ctx, part2);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    pb_free(b);
}

static qx_model *accepted(qx_ctx *ctx, pb *b)
{
    qx_model *m = NULL;
    if (qx_model_read_bytes(ctx, b->p, b->n, NULL, &(qx_read_options){.skip_check = true}, &m) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    return m;
}

static pb good(void)
{
    pb g = pb_graph();
    return pb_model(&g);
}

static void p01_varint_cut(void **state)
{
    pb m = good();
    pb_tag(&m, 5, 0);
    pb_byte(&m, 0x80);
    refused(*state, &m, "model_version", "varint is cut off after 1 bytes");
}

static void p02_varint_of_11_bytes(void **state)
{
    pb m = good();
    pb_tag(&m, 5, 0);
    for (int i = 0; i < 10; i++) pb_byte(&m, 0x80);
    pb_byte(&m, 1);
    refused(*state, &m, "varint of more than 10 bytes", NULL);
}

static void p03_length_past_parent(void **state)
{
    pb g = {0}, n = {0};
    pb_str(&n, 3, "first");
    pb_msg(&g, 1, &n);
    pb_str(&n, 3, "second");
    pb_tag(&n, 4, 2);
    pb_varint(&n, 500);
    pb_raw(&n, "Relu", 4);
    pb_msg(&g, 1, &n);
    pb m = pb_model(&g);
    refused(*state, &m, "graph.node[1] 'second'.op_type: length 500 runs past its parent, which has 4 bytes left", "byte 24");
}

static void p04_length_overflow(void **state)
{
    pb m = {0};
    pb_tag(&m, 2, 2);
    for (int i = 0; i < 9; i++) pb_byte(&m, 0xff);
    pb_byte(&m, 1);
    refused(*state, &m, "producer_name: length 18446744073709551615 runs past", NULL);
}

static void p05_wrong_wire_type(void **state)
{
    pb m = good();
    pb_tag(&m, 5, 5);
    pb_raw(&m, "abcd", 4);
    refused(*state, &m, "model_version: wire type 5 where 0 belongs", NULL);
}

static void p06_field_number_0(void **state)
{
    pb m = good();
    pb_byte(&m, 0);
    pb_byte(&m, 1);
    refused(*state, &m, "field number 0", NULL);
}

static void p07_field_number_too_large(void **state)
{
    pb m = good();
    pb_varint(&m, (uint64_t)536870912 << 3);
    pb_byte(&m, 1);
    refused(*state, &m, "field number 536870912 is over 536870911", NULL);
}

static void p08_wire_types_that_do_not_exist(void **state)
{
    static const int wires[] = {3, 4, 6, 7};
    for (int i = 0; i < 4; i++) {
        pb m = good();
        char want[64];
        pb_tag(&m, 99, wires[i]);
        snprintf(want, sizeof want, "field 99 has wire type %d, which does not exist", wires[i]);
        refused(*state, &m, want, NULL);
    }
}

/* Types in types: sequence (field 4) of elem (field 1), two messages a level, around a tensor type with or without a shape. */
static pb nested_type(int levels, bool shape)
{
    pb inner = {0}, type = {0}, none = {0};
    pb_int(&inner, 1, 1);
    if (shape) pb_msg(&inner, 2, &none);
    pb_msg(&type, 1, &inner);
    for (int i = 0; i < levels; i++) {
        pb sequence = {0};
        pb_msg(&sequence, 1, &type);
        pb_msg(&type, 4, &sequence);
    }
    return type;
}

/* Model > graph > value info > type > tensor [> shape]: 4 messages below the model and two a level. */
static pb model_with_depth(int depth)
{
    pb g = pb_graph(), v = {0}, type = nested_type((depth - 4) / 2, depth % 2);
    pb_str(&v, 1, "deep");
    pb_msg(&v, 2, &type);
    pb_msg(&g, 13, &v);
    return pb_model(&g);
}

static void p09_depth(void **state)
{
    pb deep = model_with_depth(100);
    qx_model_free(accepted(*state, &deep));
    pb_free(&deep);
    deep = model_with_depth(101);
    refused(*state, &deep, "messages nest more than 100 deep", NULL);
}

static void p10_nested_subgraphs(void **state)
{
    pb g = {0};
    for (int i = 0; i < 10000; i++) {
        pb a = {0}, n = {0}, outer = {0};
        pb_msg(&a, 6, &g);
        pb_msg(&n, 5, &a);
        pb_msg(&outer, 1, &n);
        g = outer;
    }
    pb m = pb_model(&g);
    refused(*state, &m, "messages nest more than 100 deep", NULL);
}

static void p11_empty(void **state)
{
    qx_model *m;
    FAILS(qx_model_read_bytes(*state, "", 0, NULL, NULL, &m), QX_E_FORMAT);
    MESSAGE_HAS(*state, "empty");
}

/* ---- files that are no models ---- */

static void file_refused(qx_ctx *ctx, const char *path, const char *part)
{
    qx_model *m = NULL;
    assert_int_not_equal(qx_model_read(ctx, path, NULL, &m), QX_OK);
    MESSAGE_HAS(ctx, part);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void content_refused(qx_ctx *ctx, const void *bytes, size_t n, const char *part)
{
    char path[] = "/tmp/qx_wire_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
    file_refused(ctx, path, part);
    unlink(path);
}

static void p12_kinds(void **state)
{
    static const char text[] = "<  ir_version: 8, opset_import: [ \"\" : 17 ] > g (float x) => (float y) { y = Identity(x) }";
    char fifo[64];
    snprintf(fifo, sizeof fifo, "/tmp/qx_fifo_%d", (int)getpid());
    assert_int_equal(mkfifo(fifo, 0600), 0);
    file_refused(*state, fifo, "is a fifo");
    unlink(fifo);
    file_refused(*state, "/tmp", "is a directory");
    file_refused(*state, "/dev/zero", "is a character device");
    file_refused(*state, "/proc/self/status", "file of the kernel");
    file_refused(*state, "/tmp/there is no such file", "No such file");
    file_refused(*state, "https://example.com/model.onnx", "is a URL: download it first");
    file_refused(*state, "-", "standard input is not read");
    file_refused(*state, TEST_SOURCE_DIR "/tests/data/mlp", "it holds model.onnx");
    file_refused(*state, TEST_SOURCE_DIR "/tests/data", "it holds no .onnx file");
    content_refused(*state, "", 0, "is an empty file");
    content_refused(*state, text, sizeof text - 1, "is a text file");
    content_refused(*state, "\x1f\x8b\x08\0\0\0\0\0", 8, "gzip");
    content_refused(*state, "PK\3\4\0\0\0\0", 8, "zip archive");
    content_refused(*state, "<!DOCTYPE html><html>", 21, "HTML page");
    content_refused(*state, "404: Not Found", 14, "is a text file");
    content_refused(*state, "\x20\1\0\0\0\0\0\0{\"a\":{", 14, "safetensors");
    content_refused(*state, "GGUF\3\0\0\0", 8, "GGUF");
    content_refused(*state, "\x80\2}q\1.", 6, "pickle");
    content_refused(*state, "\x1c\0\0\0TFL3", 8, "TensorFlow Lite");
    content_refused(*state, "\x89HDF\r\n\x1a\n", 8, "HDF5");
}

static void p13_lfs_pointer(void **state)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    content_refused(*state, lfs, sizeof lfs - 1, "git lfs pull");
}

static void p14_given_twice(void **state)
{
    pb g = pb_graph();
    pb m = pb_model(&g);
    g = pb_graph();
    pb_msg(&m, 7, &g);
    refused(*state, &m, "graph: given twice", NULL);
    pb t = pb_tensor("w", 1, 1, (int64_t[]){1});
    pb_blob(&t, 9, "abcd", 4);
    pb_blob(&t, 9, "abcd", 4);
    m = pb_model_with(&t);
    refused(*state, &m, "graph 'g'.initializer[0] 'w'.raw_data: given twice", NULL);
    uint8_t *big = calloc(1, 4096);
    t = pb_tensor("w", 1, 1, (int64_t[]){1024});
    pb_blob(&t, 9, big, 4096);
    pb_blob(&t, 9, big, 4096);
    m = pb_model_with(&t);
    refused(*state, &m, "raw_data: given twice", NULL);
    pb v = {0}, type = {0}, none = {0};
    g = pb_graph();
    pb_int(&type, 1, 1);
    pb both = {0};
    pb_msg(&both, 1, &type);
    pb_msg(&both, 4, &none);
    pb_str(&v, 1, "v");
    pb_msg(&v, 2, &both);
    pb_msg(&g, 13, &v);
    m = pb_model(&g);
    refused(*state, &m, "second value of a oneof", NULL);
    free(big);
}

static void payload_in_pieces(void **state)
{
    uint8_t *big = calloc(1, 4096);
    pb t = pb_tensor("w", 1, 1, (int64_t[]){2048});
    pb_blob(&t, 4, big, 4096);
    pb_blob(&t, 4, big, 4096);
    pb m = pb_model_with(&t);
    refused(*state, &m, "'w'.float_data: a large payload in several pieces", NULL);
    t = pb_tensor("w", 1, 1, (int64_t[]){1025});
    pb_blob(&t, 4, big, 4);
    pb_blob(&t, 4, big, 4096);
    m = pb_model_with(&t);
    refused(*state, &m, "a large payload in 2 pieces", NULL);
    t = pb_tensor("w", 1, 1, (int64_t[]){3});
    pb_blob(&t, 4, big, 8);
    pb_blob(&t, 4, big, 4);
    m = pb_model_with(&t);
    qx_model_free(accepted(*state, &m)); /* small pieces are legal protobuf and join */
    pb_free(&m);
    free(big);
}

/* Unknown fields of every wire type come back byte for byte, after an edit of something else too; our private field number is no
 * exception. */
static void p15_unknown_fields(void **state)
{
    pb g = pb_graph(), t = pb_tensor("w", 1, 1, (int64_t[]){1024}), mark = {0};
    float *w = calloc(1024, 4);
    w[5] = 3;
    pb_blob(&t, 9, w, 4096);
    pb_int(&mark, 536870911, 0);
    pb_blob(&mark, 536870911, "foreign", 7);
    pb_tag(&mark, 200, 5), pb_raw(&mark, "wxyz", 4);
    pb_tag(&mark, 201, 1), pb_raw(&mark, "abcdefgh", 8);
    pb_blob(&mark, 202, "unknown", 7);
    pb_raw(&t, mark.p, mark.n);
    pb_msg(&g, 5, &t);
    pb_str(&g, 1000, "in the graph");
    pb m = pb_model(&g);
    pb_str(&m, 1000, "in the model");
    qx_model *model = accepted(*state, &m);
    float back[1024];
    OK(qx_weight_read(*state, model->graph->inits[0]->init, back));
    assert_memory_equal(back, w, sizeof back);
    model->dirty = true;
    char path[64];
    snprintf(path, sizeof path, "/tmp/qx_p15_%d.onnx", (int)getpid());
    if (qx_model_write(model, path, &(qx_write_options){.force = true}, NULL) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    qx_model_free(model);
    uint8_t *got = calloc(1, m.n + 1);
    FILE *f = fopen(path, "rb");
    assert_int_equal(fread(got, 1, m.n + 1, f), m.n); /* the same length */
    fclose(f);
    assert_non_null(memmem(got, m.n, mark.p, 2)); /* the private field number survives ... */
    assert_non_null(memmem(got, m.n, "foreign", 7));
    assert_non_null(memmem(got, m.n, "wxyz", 4));
    assert_non_null(memmem(got, m.n, "abcdefgh", 8));
    assert_non_null(memmem(got, m.n, "in the graph", 12));
    assert_non_null(memmem(got, m.n, "in the model", 12));
    unlink(path);
    free(got), free(w);
    pb_free(&m), pb_free(&mark);
}

static void p16_trailing_garbage(void **state)
{
    pb m = good();
    pb_raw(&m, "\0\0\0\0", 4);
    refused(*state, &m, "field number 0", NULL);
}

/* A sparse file with a 2.2 GiB tensor: read, but never written inline. */
static void p17_over_2_gib(void **state)
{
    const int64_t n = (int64_t)2200 << 20;
    char path[64], out[80], data[96];
    pb t = pb_tensor("w", 3, 1, &n), g = pb_graph(), tail = {0}, m = {0}, o = {0};
    pb_tag(&t, 9, 2);
    pb_varint(&t, (uint64_t)n);
    pb_str(&o, 1, "");
    pb_int(&o, 2, 17);
    pb_msg(&tail, 8, &o);
    pb_int(&m, 1, 8);
    pb_tag(&m, 7, 2);
    pb_varint(&m, g.n + 1 + 6 + t.n + (uint64_t)n - 1); /* tag of initializer, 5-byte length */
    pb_raw(&m, g.p, g.n);
    pb_tag(&m, 5, 2);
    pb_varint(&m, t.n + (uint64_t)n);
    pb_raw(&m, t.p, t.n);
    snprintf(path, sizeof path, "/tmp/qx_p17_%d.onnx", (int)getpid());
    snprintf(out, sizeof out, "/tmp/qx_p17_%d_out.onnx", (int)getpid());
    snprintf(data, sizeof data, "%s.data", out);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0 && pwrite(fd, m.p, m.n, 0) == (ssize_t)m.n && pwrite(fd, tail.p, tail.n, (off_t)m.n + n) == (ssize_t)tail.n);
    close(fd);
    qx_model *model = NULL;
    qx_write_result size;
    if (qx_model_read(*state, path, &(qx_read_options){.skip_check = true}, &model) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    assert_int_equal(model->graph->inits[0]->init->bytes, n);
    assert_true(qx_mem_peak(*state) < (4 << 20));
    OK(qx_model_write_size(model, NULL, &size));
    assert_int_equal(size.data_bytes, n);
    assert_true(size.model_bytes < 4096);
    qx_model_free(model);
    unlink(path), unlink(out), unlink(data);
    pb_free(&t), pb_free(&g), pb_free(&tail), pb_free(&m);
}

static void p18_amplification(void **state)
{
    pb g = {0};
    for (int i = 0; i < 20000000; i++) pb_byte(&g, 0x0a), pb_byte(&g, 0);
    pb m = pb_model(&g);
    refused(*state, &m, "would take more than", NULL);
    assert_true(qx_mem_peak(*state) < ((size_t)64 << 20));
}

static void p19_invalid_utf8(void **state)
{
    pb g = pb_graph(), n = {0};
    pb_str(&n, 1, "y");
    pb_str(&n, 2, "z");
    pb_str(&n, 3, "bad\xff\xfename");
    pb_str(&n, 4, "Identity");
    pb_msg(&g, 1, &n);
    pb m = pb_model(&g);
    qx_model_free(accepted(*state, &m));
    assert_int_equal(qx_ctx_warnings(*state), 1);
    pb_free(&m);
}

static void p20_nul_in_a_name(void **state)
{
    pb g = {0}, n = {0};
    pb_blob(&n, 3, "a\0b", 3);
    pb_msg(&g, 1, &n);
    pb m = pb_model(&g);
    refused(*state, &m, "graph.node[0].name: a NUL byte inside a string of 3 bytes", NULL);
}

static void p21_odd_names(void **state)
{
    pb g = pb_graph(), n = {0};
    char *big = malloc((1 << 20) + 1);
    memset(big, 'n', 1 << 20);
    big[1 << 20] = 0;
    pb_str(&n, 1, "y");
    pb_str(&n, 2, "\x1b[31m\n/\"quoted\"");
    pb_str(&n, 3, big);
    pb_str(&n, 4, "Identity");
    pb_msg(&g, 1, &n);
    pb m = pb_model(&g);
    qx_model *model = accepted(*state, &m);
    assert_int_equal(strlen(model->graph->last->name), 1 << 20);
    assert_string_equal(model->graph->last->out[0]->name, "\x1b[31m\n/\"quoted\"");
    qx_model_free(model);
    pb_free(&m);
    free(big);
}

static void packed_numbers(void **state)
{
    pb g = pb_graph(), n = {0}, a = {0};
    pb_str(&a, 1, "axes");
    pb_blob(&a, 8, "\1\2\x80", 3); /* ints, packed, the last one cut */
    pb_msg(&n, 5, &a);
    pb_msg(&g, 1, &n);
    pb m = pb_model(&g);
    refused(*state, &m, "attribute[0] 'axes'.ints: varint is cut off after 1 bytes", NULL);
    g = pb_graph();
    pb_str(&a, 1, "values");
    pb_blob(&a, 7, "abcde", 5);
    pb_msg(&n, 5, &a);
    pb_msg(&g, 1, &n);
    m = pb_model(&g);
    refused(*state, &m, "floats: 5 bytes are not a multiple of 4", NULL);
}

/* A file that shrinks after it was opened is an error code, never a signal. */
static void file_cut_while_open(void **state)
{
    char path[] = "/tmp/qx_cut_XXXXXX";
    const int fd = mkstemp(path);
    pb t = pb_tensor("w", 1, 1, (int64_t[]){65536});
    float *w = calloc(65536, 4);
    pb_blob(&t, 9, w, 65536 * 4);
    pb m = pb_model_with(&t);
    assert_int_equal(write(fd, m.p, m.n), (ssize_t)m.n);
    qx_model *model;
    OK(qx_model_read(*state, path, &(qx_read_options){.skip_check = true}, &model));
    assert_int_equal(ftruncate(fd, 1000), 0);
    FAILS(qx_weight_read(*state, model->graph->inits[0]->init, w), QX_E_IO);
    MESSAGE_HAS(*state, path);
    qx_model_free(model);
    close(fd), unlink(path);
    free(w), pb_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(p01_varint_cut), TEST(p02_varint_of_11_bytes), TEST(p03_length_past_parent), TEST(p04_length_overflow),
        TEST(p05_wrong_wire_type),
        TEST(p06_field_number_0), TEST(p07_field_number_too_large), TEST(p08_wire_types_that_do_not_exist), TEST(p09_depth),
        TEST(p10_nested_subgraphs),
        TEST(p11_empty), TEST(p12_kinds), TEST(p13_lfs_pointer), TEST(p14_given_twice), TEST(payload_in_pieces), TEST(p15_unknown_fields),
        TEST(p16_trailing_garbage), TEST(p17_over_2_gib), TEST(p18_amplification), TEST(p19_invalid_utf8), TEST(p20_nul_in_a_name),
        TEST(p21_odd_names),
        TEST(packed_numbers), TEST(file_cut_while_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
