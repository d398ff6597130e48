/* test_npz.c - .npy and .npz in and out, and the hostile ones: bad headers, shapes that lie, pickles, names that leave the archive,
 * bombs, wrong checksums. Archives are made byte by byte where a writer would refuse to. */
#include "../unit/tmp_dir.h"
#include "base/buf.h"
#include "base/file.h"
#include "calib/data/npy.h"
#include "calib/data/npz.h"

#include <sys/stat.h>
#include <zip.h>

static tmp_dir dir;
static const char *in_dir(const char *name) { return tmp_path(&dir, name); }
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

/* A .npy with the given header text, version and data; returns its length. */
static size_t npy(char *out, int major, const char *header, const void *data, size_t n)
{
    size_t h = strlen(header), at = major == 1 ? 10 : 12;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (char)major, out[7] = 0;
    for (size_t i = 8; i < at; i++) out[i] = (char)(h >> 8 * (i - 8));
    memcpy(out + at, header, h);
    if (n) memcpy(out + at + h, data, n);
    return at + h + n;
}

static void zip_with(const char *path, const char *member, const void *p, size_t n, int method)
{
    int e;
    zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &e);
    assert_non_null(z);
    zip_int64_t i = zip_file_add(z, member, zip_source_buffer(z, p, n, 0), 0);
    assert_true(i >= 0);
    zip_set_file_compression(z, (zip_uint64_t)i, method, 0);
    assert_int_equal(zip_close(z), 0);
}

static void round_trip(void **state)
{
    qx_ctx *ctx = *state;
    const char *names[] = {"x", "a/b:0", "empty", "scalar", "mask"};
    int64_t dims[] = {2, 3, 0};
    float x[6] = {1, -2, 3.5f, 4, 5, 6};
    int64_t ids[3] = {7, -1, INT64_MAX};
    double scalar = 0.1;
    uint8_t mask[2] = {1, 0};
    qx_tensor t[5];
    OK(qx_tensor_shape(ctx, &t[0], QX_DT_FLOAT, 2, dims));
    OK(qx_tensor_shape(ctx, &t[1], QX_DT_INT64, 1, dims + 1));
    OK(qx_tensor_shape(ctx, &t[2], QX_DT_FLOAT16, 3, dims));
    OK(qx_tensor_shape(ctx, &t[3], QX_DT_DOUBLE, 0, NULL));
    OK(qx_tensor_shape(ctx, &t[4], QX_DT_BOOL, 1, dims));
    t[0].data = x, t[1].data = ids, t[2].data = x, t[3].data = &scalar, t[4].data = mask;
    OK(qx_npz_write(ctx, in_dir("r.npz"), names, t, 5));
    qx_npz *z;
    OK(qx_npz_open(ctx, in_dir("r.npz"), &z));
    assert_int_equal(qx_npz_count(z), 5);
    for (int i = 0; i < 5; i++) {
        qx_tensor got;
        assert_string_equal(qx_npz_name(z, i), names[i]);
        OK(qx_npz_read(z, i, &got));
        assert_int_equal(got.dtype, t[i].dtype);
        assert_int_equal(got.rank, t[i].rank);
        assert_int_equal(got.bytes, t[i].bytes);
        assert_memory_equal(got.dims, t[i].dims, sizeof *got.dims * (size_t)got.rank);
        if (got.bytes) assert_memory_equal(got.data, t[i].data, got.bytes);
        qx_tensor_free(ctx, &got);
    }
    float part[2];
    OK(qx_npz_read_part(z, 0, 4, 2, part));
    assert_true(part[0] == 5 && part[1] == 6);
    OK(qx_npz_read_part(z, 0, 0, 2, part)); /* back again */
    assert_true(part[0] == 1 && part[1] == -2);
    FAILS(qx_npz_read_part(z, 0, 5, 2, part), QX_E_FAIL);
    qx_npz_close(z);
    const char *twice[] = {"x", "x"};
    FAILS(qx_npz_write(ctx, in_dir("t.npz"), twice, t, 2), QX_E_USAGE);
    assert_int_equal(access(in_dir("t.npz"), F_OK), -1);
}

static void orders_and_versions(void **state)
{
    qx_ctx *ctx = *state;
    char buf[512];
    const uint8_t big_endian[] = {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6}; /* column-major [2,3]: rows 1 3 5, 2 4 6 */
    size_t n = npy(buf, 2, "{'shape': (2L, 3L,), \"fortran_order\": True , 'descr':'>i2'}\n", big_endian, sizeof big_endian);
    put_file(in_dir("f.npy"), buf, n);
    qx_npz *z;
    qx_tensor t;
    OK(qx_npz_open(ctx, in_dir("f.npy"), &z));
    assert_string_equal(qx_npz_name(z, 0), "f");
    OK(qx_npz_read(z, 0, &t));
    const int16_t want[] = {1, 3, 5, 2, 4, 6};
    assert_memory_equal(t.data, want, sizeof want);
    qx_tensor_free(ctx, &t);
    int16_t part[2];
    OK(qx_npz_read_part(z, 0, 2, 2, part));
    assert_true(part[0] == 5 && part[1] == 2);
    qx_npz_close(z);
}

static void refuse(qx_ctx *ctx, const char *path, qx_status code, const char *part)
{
    qx_npz *z = NULL;
    size_t before = qx_mem_in_use(ctx);
    qx_status st = qx_npz_open(ctx, path, &z);
    for (int i = 0; st == QX_OK && i < qx_npz_count(z); i++) {
        qx_tensor t;
        st = qx_npz_read(z, i, &t);
        if (st == QX_OK) qx_tensor_free(ctx, &t);
    }
    if (st != code) fail_msg("%s: status %d, %d wanted (%s)", path, st, code, qx_ctx_error(ctx));
    MESSAGE_HAS(ctx, part);
    qx_npz_close(z);
    qx_ctx_clear_error(ctx);
    assert_int_equal(qx_mem_in_use(ctx), before);
}

static void refuse_npy(qx_ctx *ctx, const char *header, size_t data, qx_status code, const char *part)
{
    char buf[1024], zeros[256] = {0};
    put_file(in_dir("bad.npy"), buf, npy(buf, 1, header, zeros, data));
    refuse(ctx, in_dir("bad.npy"), code, part);
}

static void hostile_headers(void **state)
{
    qx_ctx *ctx = *state;
    refuse_npy(ctx, "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8, QX_E_UNSUPPORTED, "pickles are never read");
    refuse_npy(ctx, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4, QX_E_UNSUPPORTED, "structured");
    refuse_npy(ctx, "{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", 12, QX_E_UNSUPPORTED, "'U3'");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 8, QX_E_SHAPE, "bad.npy");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 8, QX_E_FORMAT, "2^63");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 8, QX_E_FORMAT, "a dim that is not negative");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 8, QX_E_FORMAT, "needs 12 bytes, 8 are there");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 8, QX_E_FORMAT, "needs 4 bytes, 8 are there");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': (1), }", 4, QX_E_FORMAT, "','");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, }", 4, QX_E_FORMAT, "lacks");
    refuse_npy(ctx, "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4, QX_E_FORMAT, "once each");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': 1, 'shape': ()}", 4, QX_E_FORMAT, "True or False");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x", 4, QX_E_FORMAT, "nothing more");
    refuse_npy(ctx, "__import__('os')", 0, QX_E_FORMAT, "'{'");
    refuse_npy(ctx, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 4, QX_E_UNSUPPORTED, "more than 8 dims");
    char buf[64] = "\x93NUMPY\x01";
    buf[8] = (char)200;
    put_file(in_dir("cut.npy"), buf, 20);
    refuse(ctx, in_dir("cut.npy"), QX_E_FORMAT, "210 bytes in 20");
    buf[6] = 9;
    put_file(in_dir("cut.npy"), buf, 20);
    refuse(ctx, in_dir("cut.npy"), QX_E_FORMAT, "version 9.0");
    put_file(in_dir("cut.npy"), "PK", 2);
    refuse(ctx, in_dir("cut.npy"), QX_E_FORMAT, "not a .npy array");
    refuse(ctx, in_dir("none.npy"), QX_E_IO, "none.npy");
}

static void hostile_archives(void **state)
{
    qx_ctx *ctx = *state;
    char buf[512];
    float v[4] = {1, 2, 3, 4};
    size_t n = npy(buf, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", v, sizeof v);
    zip_with(in_dir("p.npz"), "../x.npy", buf, n, ZIP_CM_STORE);
    refuse(ctx, in_dir("p.npz"), QX_E_FORMAT, "'../x.npy'");
    zip_with(in_dir("p.npz"), "/a/../../x.npy", buf, n, ZIP_CM_STORE);
    refuse(ctx, in_dir("p.npz"), QX_E_FORMAT, "leaves the archive");
    zip_with(in_dir("p.npz"), "x.txt", buf, n, ZIP_CM_STORE);
    refuse(ctx, in_dir("p.npz"), QX_E_FORMAT, "not a .npy");
    put_file(in_dir("p.npz"), "hello", 5);
    refuse(ctx, in_dir("p.npz"), QX_E_FORMAT, "not a readable .npz");
    refuse(ctx, in_dir("none.npz"), QX_E_IO, "none.npz");

    zip_with(in_dir("crc.npz"), "x.npy", buf, n, ZIP_CM_STORE); /* flip a byte of the data: the checksum must notice */
    char *file;
    size_t len;
    OK(qx_file_slurp(ctx, in_dir("crc.npz"), 4096, &file, &len));
    char *hit = memmem(file, len, v, sizeof v);
    assert_non_null(hit);
    hit[5] ^= 1;
    put_file(in_dir("crc.npz"), file, len);
    refuse(ctx, in_dir("crc.npz"), QX_E_FORMAT, "CRC");
    for (size_t cut = 0; cut < len; cut += 7) { /* and no truncation passes */
        put_file(in_dir("cut.npz"), file, cut);
        refuse(ctx, in_dir("cut.npz"), QX_E_FORMAT, "cut.npz");
    }
    qx_free(ctx, file);
}

static void bomb(void **state)
{
    qx_ctx *ctx = *state;
    size_t n = (size_t)80 << 20;
    char *zeros = calloc(1, n);
    npy(zeros, 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (83886000,), }", NULL, 0);
    zip_with(in_dir("bomb.npz"), "x.npy", zeros, n, ZIP_CM_DEFLATE);
    free(zeros);
    refuse(ctx, in_dir("bomb.npz"), QX_E_FORMAT, "claims 83886080 bytes");
}

/* As numpy saves the input of a model that was cut at a value of a torch export. */
static void name_with_slash(void **state)
{
    qx_ctx *ctx = *state;
    char buf[256];
    float v = 5;
    const size_t n = npy(buf, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", &v, sizeof v);
    zip_with(in_dir("slash.npz"), "/enc/Mul_output_0.npy", buf, n, ZIP_CM_STORE);
    qx_npz *z;
    OK(qx_npz_open(ctx, in_dir("slash.npz"), &z));
    assert_string_equal(qx_npz_name(z, 0), "/enc/Mul_output_0");
    qx_npz_close(z);
}

static void folder(void **state)
{
    qx_ctx *ctx = *state;
    char buf[256];
    int32_t v = 5;
    mkdir(in_dir("d"), 0700);
    size_t n = npy(buf, 1, "{'descr': '<i4', 'fortran_order': False, 'shape': (), }", &v, sizeof v);
    put_file(in_dir("d/b.npy"), buf, n);
    put_file(in_dir("d/a.npy"), buf, n);
    put_file(in_dir("d/readme.txt"), "x", 1);
    qx_npz *z;
    OK(qx_npz_open(ctx, in_dir("d"), &z));
    assert_int_equal(qx_npz_count(z), 2);
    assert_string_equal(qx_npz_name(z, 0), "a");
    assert_int_equal(qx_npz_find(z, "b"), 1);
    assert_int_equal(qx_npz_find(z, "c"), -1);
    qx_npz_close(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(round_trip), TEST(orders_and_versions), TEST(hostile_headers), TEST(hostile_archives),
                                       TEST(bomb), TEST(name_with_slash), TEST(folder)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
