/* test_tensor.c - tensors as messages describe them: types, dims, sizes, value fields; what is refused, warned about, and read back. */
#include "unit.h"

#include <math.h>

#include "base/mem.h"
#include "onnx/file/io.h"
#include "pb.h"

#define DIMS(...) (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__}

static pb bytes; /* of the model loaded last, which points into them */

static qx_status load(qx_ctx *ctx, pb *tensor, bool strict, qx_model **out)
{
    pb_free(&bytes);
    bytes = pb_model_with(tensor);
    return qx_model_read_bytes(ctx, bytes.p, bytes.n, NULL, &(qx_read_options){.skip_check = true, .strict = strict}, out);
}

static void refused(qx_ctx *ctx, pb tensor, const char *part)
{
    qx_model *m;
    assert_int_equal(load(ctx, &tensor, false, &m), QX_E_FORMAT);
    MESSAGE_HAS(ctx, part);
    MESSAGE_HAS(ctx, "tensor 'w'");
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

/* The raw content must be these bytes. */
static void reads(qx_ctx *ctx, pb tensor, const void *want, size_t n)
{
    qx_model *m;
    if (load(ctx, &tensor, false, &m) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    const qx_weight *w = m->graph->inits[0]->init;
    uint8_t *got = calloc(1, w->bytes + 1);
    if (qx_weight_read(ctx, w, got) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    assert_int_equal(w->bytes, n);
    assert_memory_equal(got, want, n);
    free(got);
    qx_model_free(m);
}

static void warns(qx_ctx *ctx, pb tensor, const char *part)
{
    qx_model *m;
    pb again = {0};
    const int before = qx_ctx_warnings(ctx);
    pb_raw(&again, tensor.p, tensor.n);
    OK(load(ctx, &tensor, false, &m));
    assert_int_equal(qx_ctx_warnings(ctx), before + 1);
    qx_model_free(m);
    assert_int_equal(load(ctx, &again, true, &m), QX_E_FORMAT);
    MESSAGE_HAS(ctx, part);
    MESSAGE_HAS(ctx, "--strict");
}

static pb with_raw(int dtype, int rank, const int64_t *dims, const void *raw, size_t n)
{
    pb t = pb_tensor("w", dtype, rank, dims);
    pb_blob(&t, 9, raw, n);
    return t;
}

static pb with_varints(int dtype, int rank, const int64_t *dims, uint32_t field, const int64_t *v, int n)
{
    pb t = pb_tensor("w", dtype, rank, dims), packed = {0};
    for (int i = 0; i < n; i++) pb_varint(&packed, (uint64_t)v[i]);
    pb_msg(&t, field, &packed);
    return t;
}

static const uint8_t zeros[64];

static void t01_t02_types(void **state)
{
    refused(*state, with_raw(0, DIMS(1), zeros, 4), "data_type 0 is not one of 1..26");
    refused(*state, with_raw(27, DIMS(1), zeros, 4), "data_type 27 is not one of 1..26");
    refused(*state, with_raw(-1, DIMS(1), zeros, 4), "data_type -1");
}

static void t03_t05_dims(void **state)
{
    refused(*state, with_raw(1, DIMS(2, -3), zeros, 4), "dim 1 is -3");
    refused(*state, with_raw(1, DIMS((int64_t)1 << 32, (int64_t)1 << 32), zeros, 4), "product of its 2 dims overflows");
    refused(*state, with_raw(14, DIMS((int64_t)1 << 62), zeros, 4), "overflow");
}

static void t06_t11_raw_sizes(void **state)
{
    refused(*state, with_raw(1, DIMS(2), zeros, 7), "raw_data has 7 bytes, 2 elements of FLOAT take 8");
    refused(*state, with_raw(1, DIMS(2), zeros, 9), "raw_data has 9 bytes, 2 elements of FLOAT take 8");
    refused(*state, with_raw(22, DIMS(5), zeros, 2), "raw_data has 2 bytes, 5 elements of INT4 take 3");
    refused(*state, with_raw(23, DIMS(4), zeros, 3), "4 elements of FLOAT4E2M1 take 2");
    refused(*state, with_raw(25, DIMS(5), zeros, 1), "5 elements of UINT2 take 2");
    refused(*state, with_raw(9, DIMS(3), zeros, 1), "3 elements of BOOL take 3");
    refused(*state, with_raw(14, DIMS(1), zeros, 4), "1 elements of COMPLEX64 take 8");
    refused(*state, with_raw(15, DIMS(1), zeros, 8), "1 elements of COMPLEX128 take 16");
}

static void t12_typed_counts(void **state)
{
    pb t = pb_tensor("w", 1, DIMS(3));
    pb_blob(&t, 4, zeros, 8);
    refused(*state, t, "float_data has 2 entries, 3 elements of FLOAT take 3");
    t = pb_tensor("w", 14, DIMS(2));
    pb_blob(&t, 4, zeros, 8);
    refused(*state, t, "float_data has 2 entries, 2 elements of COMPLEX64 take 4");
    refused(*state, with_varints(22, DIMS(20), 5, (int64_t[]){1, 2}, 2), "int32_data has 2 entries, 20 elements of INT4 take 10");
    refused(*state, with_varints(26, DIMS(40), 5, (int64_t[]){1, 2}, 2), "int32_data has 2 entries, 40 elements of INT2 take 10");
    reads(*state, with_varints(22, DIMS(5), 5, (int64_t[]){0x21, 0x43, 0x05}, 3), "\x21\x43\x05", 3);     /* one entry a byte */
    reads(*state, with_varints(22, DIMS(9), 5, (int64_t[]){0x76543210, 0x08}, 2), "\x10\x32\x54\x76\x08", 5); /* 32 bits an entry */
}

static void t13_t18_value_fields(void **state)
{
    pb t = with_raw(1, DIMS(1), zeros, 4);
    pb_blob(&t, 4, zeros, 4);
    refused(*state, t, "fills 2 value fields");
    refused(*state, with_varints(1, DIMS(1), 7, (int64_t[]){1}, 1), "elements of FLOAT in int64_data instead of float_data");
    refused(*state, with_raw(8, DIMS(1), zeros, 4), "STRING elements in raw_data");
    refused(*state, with_raw(1, DIMS(0), zeros, 4), "has 0 elements but 4 entries in raw_data");
    refused(*state, pb_tensor("w", 1, DIMS(2)), "has 2 elements of FLOAT but no data");
    t = with_raw(1, DIMS(1), zeros, 4);
    pb_entry(&t, 13, "location", "x.bin");
    pb_int(&t, 14, 1);
    refused(*state, t, "data_location is EXTERNAL, but raw_data is there too");
    t = with_raw(1, DIMS(1), zeros, 4);
    pb_int(&t, 14, 2);
    refused(*state, t, "data_location 2");
}

static void t19_t20_ranges_and_segments(void **state)
{
    refused(*state, with_varints(3, DIMS(2), 5, (int64_t[]){1, 200}, 2), "entry 1 of int32_data is 200, outside -128..127 of INT8");
    refused(*state, with_varints(2, DIMS(1), 5, (int64_t[]){256}, 1), "outside 0..255 of UINT8");
    refused(*state, with_varints(10, DIMS(1), 5, (int64_t[]){65536}, 1), "outside 0..65535 of FLOAT16");
    refused(*state, with_varints(12, DIMS(1), 11, (int64_t[]){(int64_t)1 << 33}, 1), "of UINT32");
    pb t = with_raw(1, DIMS(1), zeros, 4), segment = {0};
    pb_int(&segment, 1, 0);
    pb_msg(&t, 3, &segment);
    refused(*state, t, "one segment of a larger tensor");
}

static void t21_t22_warnings(void **state)
{
    warns(*state, with_raw(9, DIMS(3), "\0\1\2", 3), "BOOL element 2 is 2");
    warns(*state, with_raw(22, DIMS(3), "\x21\xf3", 2), "padding bits of its last byte 0xf3");
    warns(*state, with_varints(9, DIMS(1), 5, (int64_t[]){7}, 1), "BOOL element 0 is 7");
}

static void t24_t26_accepted(void **state)
{
    reads(*state, with_raw(1, 0, NULL, "abcd", 4), "abcd", 4); /* a scalar has no dims */
    pb t = pb_tensor("w", 1, DIMS(0, 5));
    reads(*state, t, "", 0);
    uint8_t raw[4096]; /* stays in the file, at whatever alignment it has there */
    for (int i = 0; i < 4096; i++) raw[i] = (uint8_t)(i * 7);
    reads(*state, with_raw(10, DIMS(2048), raw, 4096), raw, 4096);
    reads(*state, with_varints(10, DIMS(3), 5, (int64_t[]){0x3c00, 0, 0xffff}, 3), "\x00\x3c\x00\x00\xff\xff", 6);
    reads(*state, with_varints(3, DIMS(2), 5, (int64_t[]){-1, -128}, 2), "\xff\x80", 2);
    reads(*state, with_varints(6, DIMS(1), 5, (int64_t[]){-2}, 1), "\xfe\xff\xff\xff", 4);
    reads(*state, with_varints(7, DIMS(1), 7, (int64_t[]){INT64_MIN}, 1), "\0\0\0\0\0\0\0\x80", 8);
    reads(*state, with_varints(13, DIMS(1), 11, (int64_t[]){-1}, 1), "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
}

static void strings(void **state)
{
    pb t = pb_tensor("w", 8, DIMS(2));
    pb_blob(&t, 6, "a\0b", 3);
    pb_str(&t, 6, "");
    qx_model *m;
    OK(load(*state, &t, false, &m));
    const qx_weight *w = m->graph->inits[0]->init;
    assert_int_equal(w->src.string_lens[0], 3);
    assert_memory_equal(w->src.strings[0], "a\0b", 3);
    assert_int_equal(w->src.string_lens[1], 0);
    FAILS(qx_weight_read(*state, w, (uint8_t[8]){0}), QX_E_TYPE);
    qx_model_free(m);
    t = pb_tensor("w", 8, DIMS(2));
    pb_str(&t, 6, "only one");
    refused(*state, t, "string_data has 1 entries, 2 elements of STRING take 2");
}

/* Varints over a kilobyte stay in the file and are decoded in a stream; ranges of them too. */
static void large_typed(void **state)
{
    enum { N = 3000 };
    int64_t *v = calloc(N, sizeof *v);
    uint16_t half[N];
    for (int i = 0; i < N; i++) v[i] = half[i] = (uint16_t)(i * 21);
    reads(*state, with_varints(10, DIMS(N), 5, v, N), half, sizeof half);
    pb t = with_varints(10, DIMS(N), 5, v, N);
    qx_model *m;
    OK(load(*state, &t, false, &m));
    const qx_weight *w = m->graph->inits[0]->init;
    assert_int_equal(w->src.kind, QX_SRC_TYPED);
    float x[7];
    OK(qx_weight_read_f32(*state, w, 2001, 7, x));
    for (int i = 0; i < 7; i++) assert_float_equal(x[i], qx_f16_to_f32(half[2001 + i]), 0);
    qx_model_free(m);
    refused(*state, with_varints(10, DIMS(N + 1), 5, v, N), "int32_data has 3000 entries, 3001 elements of FLOAT16 take 3001");
    v[2500] = 70000;
    refused(*state, with_varints(10, DIMS(N), 5, v, N), "entry 2500 of int32_data is 70000");
    free(v);
}

static void large_fixed(void **state)
{
    float f[600];
    for (int i = 0; i < 600; i++) f[i] = (float)i;
    pb t = pb_tensor("w", 1, DIMS(600));
    pb_blob(&t, 4, f, sizeof f);
    reads(*state, t, f, sizeof f);
    t = pb_tensor("w", 1, DIMS(601));
    pb_blob(&t, 4, f, sizeof f);
    refused(*state, t, "float_data has 600 entries, 601 elements of FLOAT take 601");
}

/* Packed types can be read from any element on. */
static void packed_from_the_middle(void **state)
{
    uint8_t raw[3] = {0x21, 0x43, 0x65};
    pb t = with_raw(21, DIMS(6), raw, 3);
    qx_model *m;
    float x[6];
    OK(load(*state, &t, false, &m));
    for (int first = 0; first < 6; first++)
        for (int n = 0; first + n <= 6; n++) {
            OK(qx_weight_read_f32(*state, m->graph->inits[0]->init, first, n, x));
            for (int i = 0; i < n; i++) assert_float_equal(x[i], first + i + 1, 0);
        }
    FAILS(qx_weight_read_f32(*state, m->graph->inits[0]->init, 4, 3, x), QX_E_FAIL);
    qx_model_free(m);
}

/* More elements than 2^31, of which nothing is read but the last. */
static void t27_many_elements(void **state)
{
    const int64_t n = (int64_t)1 << 32;
    char path[] = "/tmp/qx_many_XXXXXX";
    pb t = pb_tensor("w", 2, 1, &n), g = {0}, m = {0};
    pb_tag(&t, 9, 2), pb_varint(&t, (uint64_t)n);
    pb_tag(&g, 5, 2), pb_varint(&g, t.n + (uint64_t)n), pb_raw(&g, t.p, t.n);
    pb_int(&m, 1, 8), pb_tag(&m, 7, 2), pb_varint(&m, g.n + (uint64_t)n), pb_raw(&m, g.p, g.n);
    const int fd = mkstemp(path);
    assert_int_equal(write(fd, m.p, m.n), (ssize_t)m.n);
    assert_int_equal(pwrite(fd, "\x2a", 1, (off_t)m.n + n - 1), 1);
    qx_model *model;
    float x;
    OK(qx_model_read(*state, path, &(qx_read_options){.skip_check = true}, &model));
    OK(qx_weight_read_f32(*state, model->graph->inits[0]->init, n - 1, 1, &x));
    assert_float_equal(x, 42, 0);
    qx_model_free(model);
    close(fd), unlink(path);
    pb_free(&t), pb_free(&g), pb_free(&m);
}

/* The second of three is as the first, the third differs in its last byte. */
static void check_hashes(qx_ctx *ctx, int64_t n)
{
    uint64_t h[3];
    qx_model *m;
    OK(qx_model_new(ctx, NULL, &m));
    for (int i = 0; i < 3; i++) {
        char *data = test_calloc((size_t)n, 1);
        qx_weight *w;
        data[n - 1] = i == 2;
        OK(qx_weight_from_bytes(m, QX_DT_UINT8, 1, &n, data, &w));
        OK(qx_weight_hash(ctx, w, &h[i]));
        test_free(data);
    }
    assert_true(h[0] == h[1] && h[0] != h[2]);
    qx_model_free(m);
}

static void equal_content_equal_hash(void **state)
{
    check_hashes(*state, 4);
    check_hashes(*state, (1 << 20) + 3); /* more than is read at once */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(t01_t02_types), TEST(t03_t05_dims), TEST(t06_t11_raw_sizes), TEST(t12_typed_counts), TEST(t13_t18_value_fields),
        TEST(t19_t20_ranges_and_segments),
        TEST(t21_t22_warnings), TEST(t24_t26_accepted), TEST(strings), TEST(large_typed), TEST(large_fixed),
        TEST(packed_from_the_middle), TEST(t27_many_elements),
        TEST(equal_content_equal_hash),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pb_free(&bytes);
    return failed;
}
