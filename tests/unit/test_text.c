/* test_text.c - patterns, sizes, numbers, printable names. */
#include "unit.h"
#include "base/text.h"

static bool matches(qx_ctx *ctx, const char *pattern, const char *name)
{
    qx_pattern *p;
    OK(qx_pattern_new(ctx, pattern, &p));
    bool hit = qx_pattern_matches(p, name);
    assert_int_equal(qx_pattern_hits(p), hit);
    assert_string_equal(qx_pattern_text(p), pattern);
    qx_pattern_free(p);
    return hit;
}

static void globs(void **state)
{
    qx_ctx *ctx = *state;
    assert_true(matches(ctx, "*", ""));
    assert_true(matches(ctx, "lm_head", "lm_head"));
    assert_false(matches(ctx, "lm_head", "lm_head.weight"));
    assert_true(matches(ctx, "lm_head*", "lm_head.weight"));
    assert_true(matches(ctx, "*attn*", "/model/layers.0/attn/MatMul"));
    assert_true(matches(ctx, "model/*", "/model/layers.0/attn/MatMul"));
    assert_true(matches(ctx, "/model/*", "model/layers.0"));
    assert_true(matches(ctx, "*ff.net*", "/down/ff/net.0/MatMul"));
    assert_true(matches(ctx, "model.layers.?.attn*", "/model/layers.0/attn/MatMul"));
    assert_false(matches(ctx, "layers.?", "layers.10"));
    assert_true(matches(ctx, "layers.[0-3]", "layers.2"));
    assert_true(matches(ctx, "weird[0]*", "weird[0]*"));
    assert_false(matches(ctx, "LM_HEAD", "lm_head"));
}

static void regexes(void **state)
{
    qx_ctx *ctx = *state;
    assert_true(matches(ctx, "/lm_head/", "lm_head"));
    assert_false(matches(ctx, "/lm_head/", "lm_head.weight"));
    assert_false(matches(ctx, "/head/", "lm_head"));
    assert_true(matches(ctx, "/.*\\.(q|k|v)_proj\\.weight/", "model.layers.3.q_proj.weight"));
    assert_true(matches(ctx, "/model.layers.\\d+.mlp/", "/model/layers.12/mlp"));
    assert_true(matches(ctx, "/.*/", "\xff\xfe"));
}

static void long_names(void **state)
{
    qx_ctx *ctx = *state;
    char *name = malloc(100001);
    memset(name, 'a', 100000);
    name[50000] = '/';
    name[100000] = '\0';
    assert_true(matches(ctx, "a*.*a", name));
    assert_false(matches(ctx, "a*.*b", name));
    free(name);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void runaway_regex_gives_up(void **state)
{
    qx_ctx *ctx = *state;
    assert_false(matches(ctx, "/(a+)+b/", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaacb"));
    assert_int_equal(qx_ctx_warnings(ctx), 1);
}

static void bad_patterns(void **state)
{
    qx_ctx *ctx = *state;
    qx_pattern *p;
    FAILS(qx_pattern_new(ctx, "/(a/", &p), QX_E_USAGE);
    MESSAGE_HAS(ctx, "pattern '/(a/': missing closing parenthesis");
    assert_null(p);
    FAILS(qx_pattern_new(ctx, "", &p), QX_E_USAGE);
    for (int n = 1; n < 4; n++) {
        qx_mem_fail_at(ctx, n);
        FAILS(qx_pattern_new(ctx, "/a+/", &p), QX_E_NOMEM);
    }
    qx_mem_fail_at(ctx, 0);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

static void sizes(void **state)
{
    qx_ctx *ctx = *state;
    static const struct { const char *text; int64_t bytes; } good[] = {
        {"0", 0}, {"1000", 1000}, {"8G", 8ll << 30}, {"512m", 512ll << 20}, {"64KiB", 65536}, {"5GB", 5000000000ll}, {"7B", 7},
        {"1t", 1ll << 40}, {"1.5G", 3ll << 29}, {"0.5k", 512}, {"4.2GB", 4200000000ll}, {"0.000001KiB", 0}, {"0.57KB", 570}, {"1.999999T", 2199022156040ll},
        {"9223372036854775807", INT64_MAX},
    };
    static const char *const bad[] = {"", "G", "-1", "1.5", "1.5B", "1.G", ".5G", "1.0000001G", "1.5.2G", "8X", "8 G", "8Gi", "9223372036854775808", "9000000T", "0x10", "+1", "1e3"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t v = -1;
        OK(qx_parse_size(ctx, good[i].text, &v));
        assert_int_equal(v, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t v = -7;
        FAILS(qx_parse_size(ctx, bad[i], &v), QX_E_USAGE);
        assert_int_equal(v, -7);
        MESSAGE_HAS(ctx, bad[i]);
    }
}

static void numbers(void **state)
{
    qx_ctx *ctx = *state;
    int64_t i;
    double d;
    OK(qx_parse_i64(ctx, "-9223372036854775808", &i));
    assert_true(i == INT64_MIN);
    FAILS(qx_parse_i64(ctx, "9223372036854775808", &i), QX_E_USAGE);
    FAILS(qx_parse_i64(ctx, "12x", &i), QX_E_USAGE);
    FAILS(qx_parse_i64(ctx, "", &i), QX_E_USAGE);
    FAILS(qx_parse_i64(ctx, " 1", &i), QX_E_USAGE);
    OK(qx_parse_f64(ctx, "0.5e-3", &d));
    assert_true(d == 0.0005);
    FAILS(qx_parse_f64(ctx, "nan", &d), QX_E_USAGE);
    FAILS(qx_parse_f64(ctx, "1e999", &d), QX_E_USAGE);
    FAILS(qx_parse_f64(ctx, "0.5,", &d), QX_E_USAGE);
    FAILS(qx_parse_f64(ctx, "", &d), QX_E_USAGE);
}

static void bytes_for_people(void **state)
{
    (void)state;
    char b[24];
    assert_string_equal(qx_format_bytes(0, b, sizeof b), "0 B");
    assert_string_equal(qx_format_bytes(999, b, sizeof b), "999 B");
    assert_string_equal(qx_format_bytes(812000, b, sizeof b), "812.0 kB");
    assert_string_equal(qx_format_bytes(5130000000ll, b, sizeof b), "5.13 GB");
    assert_string_equal(qx_format_bytes(999960, b, sizeof b), "1.00 MB");
    assert_string_equal(qx_format_bytes(INT64_MAX, b, sizeof b), "9.22 EB");
    assert_string_equal(qx_format_bytes(INT64_MIN, b, sizeof b), "-9.22 EB");
}

static void printable(void **state)
{
    (void)state;
    char out[64], tiny[8];
    assert_string_equal(qx_printable("plain/name.0", out, sizeof out), "plain/name.0");
    assert_string_equal(qx_printable("sch\xc3\xb6n \xe6\x97\xa5", out, sizeof out), "sch\xc3\xb6n \xe6\x97\xa5");
    assert_string_equal(qx_printable("a\x1b[31m\r\n\t\x7f", out, sizeof out), "a\\x1b[31m\\r\\n\\t\\x7f");
    assert_string_equal(qx_printable("\xc0\x80\xed\xa0\x80\xf5", out, sizeof out), "\\xc0\\x80\\xed\\xa0\\x80\\xf5");
    assert_string_equal(qx_printable("\xc2\x85", out, sizeof out), "\\u0085");
    assert_string_equal(qx_printable("1234567", tiny, sizeof tiny), "1234567");
    assert_string_equal(qx_printable("12345678", tiny, sizeof tiny), "1234...");
    assert_string_equal(qx_printable("123\xe6\x97\xa5xx", tiny, sizeof tiny), "123...");
    for (size_t cap = 1; cap < 12; cap++) {
        memset(out, 'Z', sizeof out);
        qx_printable("\x01\x02\xe6\x97\xa5long enough", out, cap);
        assert_true(strlen(out) < cap && out[cap] == 'Z');
    }
}

static void mistyped(void **state)
{
    (void)state;
    static const struct { const char *word, *hint; } cases[] = {
        {"quantise", "; did you mean quantize?"}, {"inspct", "; did you mean inspect?"}, {"nosuchthing", ""}, {"x", ""}, {"", ""},
            {"ru", ""}, {"rum", "; did you mean run?"}, {"quantizequantizequantizequantizequantizequantize", ""}};
    static const char *const words[] = {"quantize", "inspect", "run", "passes"};
    char out[40];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qx_nearest n = qx_nearest_to(cases[i].word, strlen(cases[i].word));
        for (size_t w = 0; w < 4; w++) qx_nearest_offer(&n, words[w], strlen(words[w]));
        assert_string_equal(qx_nearest_text(&n, "", out, sizeof out), cases[i].hint);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(globs), TEST(regexes), TEST(long_names), TEST(runaway_regex_gives_up), TEST(bad_patterns), TEST(sizes), TEST(numbers),
        TEST(bytes_for_people), TEST(printable), TEST(mistyped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
