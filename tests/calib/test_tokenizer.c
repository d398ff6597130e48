/* test_tokenizer.c - ids and decoded text equal to the `tokenizers` package: golden.json was made with it for small tokenizers of every
 * family (tests/data/tokenizer), and hostile tokenizer files are refused by name. */
#include "../unit/unit.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "calib/data/samples.h"

static void check_case(qx_ctx *ctx, qx_tokenizer *t, const char *name, const qx_json *c)
{
    const char *text = qx_json_string(qx_json_get(c, "text"), "");
    const qx_json *want = qx_json_get(c, "ids");
    int64_t *ids, n;
    qx_buf b = QX_BUF_INIT(ctx);
    OK(qx_tokenizer_encode(t, text, strlen(text), &ids, &n));
    if (n != qx_json_count(want)) fail_msg("%s: \"%s\": %lld ids, %lld wanted", name, text, (long long)n, (long long)qx_json_count(want));
    for (int64_t i = 0; i < n; i++)
        if (ids[i] != (int64_t)qx_json_number(qx_json_at(want, i), -1))
            fail_msg("%s: \"%s\": id %lld is %lld", name, text, (long long)i, (long long)ids[i]);
    OK(qx_tokenizer_decode(t, ids, n, &b));
    assert_string_equal(b.data ? b.data : "", qx_json_string(qx_json_get(c, "decoded"), ""));
    qx_buf_free(&b);
    qx_free(ctx, ids);
}

static void golden(void **state)
{
    qx_ctx *ctx = *state;
    qx_json *doc;
    OK(qx_json_parse_file(ctx, TEST_SOURCE_DIR "/tests/data/tokenizer/golden.json", 0, &doc));
    assert_true(qx_json_count(doc) >= 10);
    for (int64_t i = 0; i < qx_json_count(doc); i++) {
        const qx_json *cases = qx_json_at(doc, i);
        char path[512];
        snprintf(path, sizeof path, TEST_SOURCE_DIR "/tests/data/tokenizer/%s.json", qx_json_key(cases));
        qx_tokenizer *t;
        OK(qx_tokenizer_open(ctx, path, &t));
        for (int64_t k = 0; k < qx_json_count(cases); k++) check_case(ctx, t, qx_json_key(cases), qx_json_at(cases, k));
        qx_tokenizer_free(t);
    }
    qx_json_free(doc);
}

/* The checksum is sum (i + 1) * id over the package's ids. */
static void micro_llama(void **state)
{
    qx_ctx *ctx = *state;
    const char *dir = getenv("QONNX_MODELS");
    if (!dir) {
        print_message("QONNX_MODELS is not set: skipped\n");
        skip();
    }
    char path[512], *text;
    size_t len;
    qx_tokenizer *t;
    int64_t *ids, n;
    uint64_t sum = 0;
    snprintf(path, sizeof path, "%s/micro-llama/tokenizer.json", dir);
    OK(qx_tokenizer_open(ctx, path, &t));
    assert_int_equal(qx_tokenizer_vocab(t), 2048);
    snprintf(path, sizeof path, "%s/micro-llama/heldout.txt", dir);
    OK(qx_file_slurp(ctx, path, 1 << 20, &text, &len));
    OK(qx_tokenizer_encode(t, text, len, &ids, &n));
    for (int64_t i = 0; i < n; i++) sum += (uint64_t)(i + 1) * (uint64_t)ids[i];
    assert_int_equal(n, 30514);
    assert_int_equal(sum, 0x36f8796c27u);
    qx_free(ctx, ids);
    qx_free(ctx, text);
    qx_tokenizer_free(t);
}

static void prefix_of_post_processor(void **state)
{
    qx_ctx *ctx = *state;
    qx_tokenizer *t;
    int64_t n;
    OK(qx_tokenizer_open(ctx, TEST_SOURCE_DIR "/tests/data/tokenizer/llama2.json", &t));
    const int64_t *ids = qx_tokenizer_prefix(t, &n);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 1);
    qx_tokenizer_free(t);
}

static void long_words_are_quick(void **state)
{
    qx_ctx *ctx = *state;
    qx_tokenizer *t;
    OK(qx_tokenizer_open(ctx, TEST_SOURCE_DIR "/tests/data/tokenizer/llama2.json", &t));
    size_t len = 400000;
    char *text = malloc(len);
    for (size_t i = 0; i < len; i++) text[i] = "the then"[i % 8];
    int64_t *ids, n;
    OK(qx_tokenizer_encode(t, text, len, &ids, &n));
    assert_true(n > 0 && n < (int64_t)len);
    qx_free(ctx, ids);
    free(text);
    qx_tokenizer_free(t);
}

static void refuse(qx_ctx *ctx, const char *json, qx_status code, const char *part)
{
    qx_tokenizer *t = NULL;
    FAILS(qx_tokenizer_parse(ctx, json, strlen(json), &t), code);
    assert_null(t);
    MESSAGE_HAS(ctx, part);
    qx_ctx_clear_error(ctx);
    assert_int_equal(qx_mem_in_use(ctx), 0);
}

#define BPE(vocab, merges) "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"

#define UNIGRAM(vocab, unk) "{\"model\":{\"type\":\"Unigram\",\"unk_id\":" unk ",\"vocab\":" vocab "}}"
#define CHARSMAP(base64) "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" base64 "\"},\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1]]}}"

static void hostile_files(void **state)
{
    qx_ctx *ctx = *state;
    refuse(ctx, "{}", QX_E_FORMAT, "no \"model\"");
    refuse(ctx, "{\"model\":{\"type\":\"Neural\",\"vocab\":[]}}", QX_E_UNSUPPORTED, "'Neural'");
    refuse(ctx, UNIGRAM("{}", "0"), QX_E_FORMAT, "not an array");
    refuse(ctx, UNIGRAM("[[\"a\"]]", "0"), QX_E_FORMAT, "entry 0");
    refuse(ctx, UNIGRAM("[[1,-1]]", "0"), QX_E_FORMAT, "entry 0");
    refuse(ctx, UNIGRAM("[[\"a\",-1]]", "1"), QX_E_FORMAT, "unk_id 1 is not one of the 1 tokens");
    refuse(ctx, UNIGRAM("[[\"a\",-1]]", "-1"), QX_E_FORMAT, "unk_id -1");
    refuse(ctx, CHARSMAP("!"), QX_E_FORMAT, "not base64");
    refuse(ctx, CHARSMAP("CAAAAA=="), QX_E_FORMAT, "a trie of 8 bytes in a block of 4");
    refuse(ctx, CHARSMAP("BAAAAAAAAAD/"), QX_E_FORMAT, "not UTF-8");
    refuse(ctx, BPE("{\"a\":-1}", "[]"), QX_E_FORMAT, "'a'");
    refuse(ctx, BPE("{\"a\":1.5}", "[]"), QX_E_FORMAT, "'a'");
    refuse(ctx, BPE("{\"a\":9000000}", "[]"), QX_E_FORMAT, "highest id 9000000 for 1");
    refuse(ctx, BPE("{\"a\":0,\"b\":0}", "[]"), QX_E_FORMAT, "id 0 belongs to 'a' and to 'b'");
    refuse(ctx, BPE("[]", "[]"), QX_E_FORMAT, "not an object");
    refuse(ctx, BPE("{\"a\":0}", "[\"a\"]"), QX_E_FORMAT, "merge 0");
    refuse(ctx, BPE("{\"a\":0}", "[\"a b c\"]"), QX_E_FORMAT, "merge 0");
    refuse(ctx, BPE("{\"a\":0}", "[\"a b\"]"), QX_E_FORMAT, "'b' is not in the vocabulary");
    refuse(ctx, BPE("{\"a\":0,\"b\":1}", "[[\"a\",\"b\"]]"), QX_E_FORMAT, "'ab'");
    refuse(ctx, BPE("{\"a\":0}", "{}"), QX_E_FORMAT, "merges");
    refuse(ctx, "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}},\"model\":{\"vocab\":{},\"merges\":[]}}",
           QX_E_FORMAT, "does not compile");
    refuse(ctx, "{\"pre_tokenizer\":{\"type\":\"Magic\"},\"model\":{\"vocab\":{},\"merges\":[]}}", QX_E_UNSUPPORTED, "'Magic'");
    refuse(ctx, "{\"added_tokens\":[{\"id\":3,\"content\":\"a\"}],\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", QX_E_FORMAT, "id 3");
}

/* What is no token becomes unk_token, two in a row one where fuse_unk says so, and nothing where there is none: as in `tokenizers`. */
static void unknown_letters(void **state)
{
    qx_ctx *ctx = *state;
    static const struct { const char *options; int64_t n, ids[6]; } cases[] = {
        {"\"unk_token\":\"<unk>\",", 5, {0, 2, 2, 1, 3}}, {"\"unk_token\":\"<unk>\",\"fuse_unk\":true,", 4, {0, 2, 1, 3}},
        {"", 2, {3, 3}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[300];
        qx_tokenizer *t;
        int64_t *ids, n;
        snprintf(json, sizeof json, "{\"model\":{\"type\":\"BPE\",%s\"vocab\":{\"a\":0,\"b\":1,\"<unk>\":2,\"ab\":3},"
                                    "\"merges\":[\"a b\"]}}", cases[i].options);
        OK(qx_tokenizer_parse(ctx, json, strlen(json), &t));
        OK(qx_tokenizer_encode(t, "axxbab", 6, &ids, &n));
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(ids, cases[i].ids, (size_t)n * sizeof *ids);
        qx_free(ctx, ids);
        qx_tokenizer_free(t);
    }
}

static void bad_text(void **state)
{
    qx_ctx *ctx = *state;
    qx_tokenizer *t;
    int64_t *ids, n, id = 5;
    OK(qx_tokenizer_parse(ctx, BPE("{\"a\":0}", "[]"), strlen(BPE("{\"a\":0}", "[]")), &t));
    FAILS(qx_tokenizer_encode(t, "ab\xc3(", 4, &ids, &n), QX_E_FORMAT);
    MESSAGE_HAS(ctx, "0xc3 at 2 of 4");
    FAILS(qx_tokenizer_encode(t, "\xed\xa0\x80", 3, &ids, &n), QX_E_FORMAT); /* a surrogate */
    qx_buf b = QX_BUF_INIT(ctx);
    FAILS(qx_tokenizer_decode(t, &id, 1, &b), QX_E_FORMAT);
    qx_buf_free(&b);
    qx_tokenizer_free(t);
}

static void fail_each_allocation(qx_ctx *ctx, const char *path)
{
    bool done = false;
    for (int64_t k = 1; !done; k++) {
        qx_tokenizer *t = NULL;
        int64_t *ids = NULL, n;
        qx_mem_fail_at(ctx, k);
        qx_status st = qx_tokenizer_open(ctx, path, &t);
        if (st == QX_OK) st = qx_tokenizer_encode(t, "It's a \xc3\xa9! test", 14, &ids, &n);
        qx_mem_fail_at(ctx, 0);
        done = st == QX_OK;
        if (!done) assert_int_equal(st, QX_E_NOMEM);
        qx_free(ctx, ids);
        qx_tokenizer_free(t);
        qx_ctx_clear_error(ctx);
        assert_int_equal(qx_mem_in_use(ctx), 0);
    }
}

static void allocation_failures(void **state)
{
    fail_each_allocation(*state, TEST_SOURCE_DIR "/tests/data/tokenizer/qwen.json");
    fail_each_allocation(*state, TEST_SOURCE_DIR "/tests/data/tokenizer/albert.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(golden), TEST(micro_llama), TEST(prefix_of_post_processor), TEST(long_words_are_quick),
                                       TEST(hostile_files), TEST(unknown_letters), TEST(bad_text), TEST(allocation_failures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
