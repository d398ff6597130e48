/* test_json.c - what the reader accepts and refuses (caps, duplicates, NaN), and that the writer's text reads back. */
#include "unit.h"
#include "base/json.h"
#include "base/mem.h"

#include <math.h>

static qx_status parse(qx_ctx *ctx, const char *text, qx_json **doc)
{
    return qx_json_parse(ctx, text, strlen(text), "t.json", doc);
}

static void reads(void **state)
{
    qx_json *d;
    OK(parse(*state, " {\"a\": [1, -2.5e3, true, null, \"x\\u00e9\\n\\ud83d\\ude00\"], \"b\": {\"c\": false}, \"\": 7}\n", &d));
    assert_int_equal(qx_json_type(d), QX_JSON_OBJECT);
    assert_int_equal(qx_json_count(d), 3);
    const qx_json *a = qx_json_get(d, "a");
    assert_int_equal(qx_json_count(a), 5);
    assert_true(qx_json_number(qx_json_at(a, 1), 0) == -2500);
    assert_true(qx_json_bool(qx_json_at(a, 2), false));
    assert_int_equal(qx_json_type(qx_json_at(a, 3)), QX_JSON_NULL);
    assert_string_equal(qx_json_string(qx_json_at(a, 4), ""), "x\xc3\xa9\n\xf0\x9f\x98\x80");
    assert_null(qx_json_at(a, 5));
    assert_null(qx_json_at(a, -1));
    assert_null(qx_json_get(a, "a"));
    assert_null(qx_json_get(NULL, "a"));
    assert_false(qx_json_bool(qx_json_get(qx_json_get(d, "b"), "c"), true));
    assert_true(qx_json_number(qx_json_get(d, ""), 0) == 7);
    assert_string_equal(qx_json_key(qx_json_at(d, 1)), "b");
    assert_string_equal(qx_json_string(qx_json_get(d, "b"), "fallback"), "fallback");
    qx_json_free(d);
    assert_int_equal(qx_mem_in_use(*state), 0);
}

static void refuses(void **state)
{
    static const struct { const char *text, *why; } bad[] = {
        {"", "ends where a value"}, {"  ", "ends where a value"}, {"{", "a string is missing"}, {"[1", "',' or ']'"},
        {"[1,]", "value is missing"},
        {"{\"a\":1,}", "string is missing"}, {"{\"a\" 1}", "':' is missing"}, {"{a:1}", "string is missing"},
        {"NaN", "value is missing"}, {"[nan]", "unknown word"}, {"Infinity", "value is missing"}, {"1e999", "too large"},
        {"-1e400", "too large"},
        {"01", "follows"}, {"1.", "ends in '.'"}, {".5", "value is missing"}, {"1e", "exponent"}, {"+1", "value is missing"},
        {"0x10", "follows"},
        {"1 2", "follows the JSON value"}, {"{} x", "follows the JSON value"}, {"[]]", "follows"}, {"tru", "unknown word"},
        {"{\"a\":1,\"a\":2}", "\"a\" stands twice"}, {"{\"a\":1,\"\\u0061\":2}", "\"a\" stands twice"},
        {"\"abc", "ends inside a string"}, {"\"a\nb\"", "control character"}, {"\"\\x\"", "unknown escape"},
        {"\"\\u12\"", "four hexadecimal"},
        {"\"\\ud800\"", "surrogate"}, {"\"\\ud800\\u0041\"", "surrogate"}, {"\"\\u0000\"", "not supported"}, {"\"\xff\"", "UTF-8"},
        {"\"\xc3\"", "UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qx_json *d;
        FAILS(parse(*state, bad[i].text, &d), QX_E_FORMAT);
        assert_null(d);
        MESSAGE_HAS(*state, bad[i].why);
        MESSAGE_HAS(*state, "t.json");
        assert_int_equal(qx_mem_in_use(*state), 0);
    }
    qx_json *d;
    FAILS(parse(*state, "{\n \"a\": 1,\n \"b\": x}", &d), QX_E_FORMAT);
    MESSAGE_HAS(*state, "'t.json' line 3 column 7");
    FAILS(qx_json_parse(*state, "1\0", 2, "t.json", &d), QX_E_FORMAT);
}

static void nesting(void **state)
{
    char text[256] = "";
    qx_json *d;
    for (int i = 0; i < 64; i++) text[i] = '[', text[64 + i] = ']';
    OK(parse(*state, text, &d));
    qx_json_free(d);
    for (int i = 0; i < 65; i++) text[i] = '[', text[65 + i] = ']';
    FAILS(parse(*state, text, &d), QX_E_FORMAT);
    MESSAGE_HAS(*state, "deeper than 64");
}

static void large_objects_are_indexed(void **state)
{
    qx_buf b = QX_BUF_INIT(*state);
    qx_jsonw w;
    qx_json *d;
    char key[32];
    qx_jsonw_init(&w, &b, false);
    OK(qx_jsonw_begin_object(&w, NULL));
    for (int i = 0; i < 30000; i++) {
        sprintf(key, "token %d", i);
        OK(qx_jsonw_int(&w, key, i));
    }
    OK(qx_jsonw_end_object(&w));
    OK(qx_json_parse(*state, b.data, b.len, "vocab", &d));
    for (int i = 0; i < 30000; i++) {
        sprintf(key, "token %d", i);
        assert_true(qx_json_number(qx_json_get(d, key), -1) == i);
        assert_string_equal(qx_json_key(qx_json_at(d, i)), key);
    }
    assert_null(qx_json_get(d, "token"));
    qx_json_free(d);
    b.data[b.len - 1] = ',';
    OK(qx_buf_printf(&b, "\"token 77\":0}"));
    FAILS(qx_json_parse(*state, b.data, b.len, "vocab", &d), QX_E_FORMAT);
    MESSAGE_HAS(*state, "\"token 77\" stands twice");
    qx_buf_free(&b);
}

static void size_caps(void **state)
{
    (void)state;
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.max_memory = 1 << 20});
    char path[] = "/tmp/qonnx-test-json-XXXXXX", *many = malloc(100001);
    qx_json *d;
    memset(many, '1', 100000);
    for (int i = 1; i < 100000; i += 2) many[i] = ',';
    many[0] = '[', many[100000] = '\0';
    many[1] = '1', many[99999] = ']';
    int fd = mkstemp(path);
    assert_int_equal(write(fd, many, 100000), 100000);
    close(fd);
    FAILS(qx_json_parse_file(ctx, path, 99999, &d), QX_E_FORMAT);
    MESSAGE_HAS(ctx, "has 100000 bytes; at most 99999");
    FAILS(qx_json_parse_file(ctx, path, 0, &d), QX_E_BUDGET); /* 50,000 values would need 4 MB */
    assert_int_equal(qx_mem_in_use(ctx), 0);
    unlink(path);
    free(many);
    qx_ctx_free(ctx);
}

static void every_allocation_may_fail(void **state)
{
    for (int n = 1;; n++) {
        qx_json *d;
        qx_mem_fail_at(*state, n);
        qx_status st = parse(*state, "{\"a\":[1,2,{\"b\":\"c\"}],\"1\":1,\"2\":1,\"3\":1,\"4\":1,\"5\":1,\"6\":1,\"7\":1,\"8\":1}", &d);
        if (st == QX_OK) {
            qx_json_free(d);
            assert_true(n > 3);
            break;
        }
        assert_int_equal(st, QX_E_NOMEM);
        assert_null(d);
        assert_int_equal(qx_mem_in_use(*state), 0);
    }
}

static void write_sample(qx_jsonw *w)
{
    OK(qx_jsonw_begin_object(w, NULL));
    OK(qx_jsonw_string(w, "name", "a\"b\\c\n\x01\xff\xc3\xa9"));
    OK(qx_jsonw_begin_array(w, "list"));
    OK(qx_jsonw_int(w, NULL, INT64_MIN));
    OK(qx_jsonw_number(w, NULL, 0.1));
    OK(qx_jsonw_number(w, NULL, NAN));
    OK(qx_jsonw_begin_object(w, NULL));
    OK(qx_jsonw_end_object(w));
    OK(qx_jsonw_end_array(w));
    OK(qx_jsonw_bool(w, "yes", true));
    OK(qx_jsonw_null(w, "none"));
    OK(qx_jsonw_end_object(w));
}

static void writes(void **state)
{
    qx_buf b = QX_BUF_INIT(*state);
    qx_jsonw w;
    qx_json *d;
    qx_jsonw_init(&w, &b, false);
    write_sample(&w);
    assert_string_equal(b.data, "{\"name\":\"a\\\"b\\\\c\\n\\u0001\\ufffd\xc3\xa9\",\"list\":[-9223372036854775808,0.1,null,{}],\"yes\":true,\"none\":null}");
    qx_buf_clear(&b);
    qx_jsonw_init(&w, &b, true);
    write_sample(&w);
    assert_non_null(strstr(b.data, "{\n  \"name\": \"a"));
    assert_non_null(strstr(b.data, "\n  \"list\": [\n    -9223372036854775808,\n    0.1,\n    null,\n    {}\n  ],\n"));
    OK(qx_json_parse(*state, b.data, b.len, "own", &d));
    qx_json_free(d);
    qx_buf_free(&b);
}

static void numbers_round_trip(void **state)
{
    static const double values[] = {0, -0.0, 1, 0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789012345678.0,
                                    2.2250738585072014e-308};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        qx_buf b = QX_BUF_INIT(*state);
        qx_jsonw w;
        qx_json *d;
        qx_jsonw_init(&w, &b, false);
        OK(qx_jsonw_number(&w, NULL, values[i]));
        OK(qx_json_parse(*state, b.data, b.len, "n", &d));
        assert_true(qx_json_number(d, -1) == values[i]);
        qx_json_free(d);
        qx_buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reads), TEST(refuses), TEST(nesting), TEST(large_objects_are_indexed), TEST(size_caps), TEST(every_allocation_may_fail),
        TEST(writes), TEST(numbers_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
