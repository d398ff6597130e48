/* CLIP's tokenizer in the picture sample, against ids that Hugging Face's tokenizers gives for the bundled vocabulary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "samples/qonnx-sdxl/clip.h"
#include "samples/qonnx-sdxl/unicode.h"

#define DIR TEST_SOURCE_DIR "/samples/models/micro-sdxl/tokenizer"

static void expect(const sx_clip *t, const char *prompt, const int64_t *want, int n, int64_t pad)
{
    int64_t ids[77];
    int dropped;
    sx_err e = {0};
    if (sx_clip_encode(&e, t, prompt, ids, 77, &dropped) != SX_OK) fail_msg("%s", e.text);
    assert_int_equal(dropped, 0);
    for (int i = 0; i < 77; i++)
        if (ids[i] != (i < n ? want[i] : pad))
            fail_msg("'%s': id %d is %lld, expected %lld", prompt, i, (long long)ids[i], (long long)(i < n ? want[i] : pad));
}

static void known_ids(void **state)
{
    (void)state;
    if (!sx_is_dir(DIR)) skip();
    sx_clip *t;
    sx_err e = {0};
    assert_int_equal(sx_clip_open(&e, DIR, &t), SX_OK);
    assert_int_equal(sx_clip_max_length(t), 77);
    static const int64_t first[] = {637, 320, 561, 615, 525, 530, 320, 568, 620, 513, 320, 594, 522, 638},
        second[] = {637, 72, 339, 6, 338, 275, 273, 66, 64, 83, 338, 0, 286, 127, 102, 127, 358, 160, 116, 255, 162, 244, 485, 638},
        third[] = {637, 320, 638, 321, 328, 136, 485, 638};
    expect(t, "a red circle left of a blue square on a gray background", first, sizeof first / sizeof *first, 638);
    expect(t, "It's 42 CATS!? \xc3\x89" "e\xcc\x81 \xe4\xb8\xad\xe6\x96\x87", second, sizeof second / sizeof *second, 638);
    expect(t, "a<|endoftext|>b \xc4\xb0", third, sizeof third / sizeof *third, 638);
    sx_clip_free(t);
}

static void truncates(void **state)
{
    (void)state;
    if (!sx_is_dir(DIR)) skip();
    sx_clip *t;
    sx_err e = {0};
    assert_int_equal(sx_clip_open(&e, DIR, &t), SX_OK);
    char prompt[400] = "";
    for (int i = 0; i < 90; i++) strcat(prompt, "a ");
    int64_t ids[77];
    int dropped;
    assert_int_equal(sx_clip_encode(&e, t, prompt, ids, 77, &dropped), SX_OK);
    assert_int_equal(dropped, 15);
    assert_int_equal(ids[0], 637);
    assert_int_equal(ids[76], 638); /* the end token stays */
    char *huge = calloc(1, 20001);
    memset(huge, 'a', 20000);
    assert_int_equal(sx_clip_encode(&e, t, huge, ids, 77, &dropped), SX_USAGE);
    assert_non_null(strstr(e.text, "20000"));
    free(huge);
    sx_clip_free(t);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    sx_err e;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(sx_write_file(&e, path, text, strlen(text)), SX_OK);
}

static void bad_folders(void **state)
{
    (void)state;
    char dir[] = "/tmp/sdxl_tok_XXXXXX", path[256];
    assert_non_null(mkdtemp(dir));
    sx_clip *t = NULL;
    sx_err e = {0};
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_FAILED);
    assert_non_null(strstr(e.text, "none of them"));
    write_file(dir, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"<|startoftext|>\":3,\"<|endoftext|>\":4}");
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_FAILED);
    assert_non_null(strstr(e.text, "vocab.json only"));
    write_file(dir, "merges.txt", "#version: 0.2\na z\n");
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_FAILED);
    assert_non_null(strstr(e.text, "a z"));
    write_file(dir, "merges.txt", "#version: 0.2\nab\n");
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_FAILED);
    write_file(dir, "merges.txt", "#version: 0.2\na b\n");
    write_file(dir, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":1}");
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_FAILED);
    assert_non_null(strstr(e.text, "share id 1"));
    write_file(dir, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":7}");
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_FAILED);
    write_file(dir, "vocab.json", "{\"a\":0,");
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_FAILED);
    assert_non_null(strstr(e.text, "not JSON"));
    write_file(dir, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"<|startoftext|>\":3,\"<|endoftext|>\":4}");
    write_file(dir, "special_tokens_map.json", "{\"pad_token\":{\"content\":\"a\"}}");
    assert_int_equal(sx_clip_open(&e, dir, &t), SX_OK);
    int64_t ids[6];
    assert_int_equal(sx_clip_encode(&e, t, "ab", ids, 6, NULL), SX_OK); /* no symbol ends a word here: unknown */
    assert_true(ids[0] == 3 && ids[5] == 0);
    sx_clip_free(t);
    static const char *const made[] = {"vocab.json", "merges.txt", "special_tokens_map.json"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, made[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void composition(void **state)
{
    (void)state;
    static const struct { uint32_t in[4]; size_t n; uint32_t out[4]; size_t m; } rows[] = {
        {{'e', 0x301}, 2, {0xE9}, 1},
        {{0x212B}, 1, {0xC5}, 1},
        {{0x1100, 0x1161, 0x11A8}, 3, {0xAC01}, 1},
        {{0x1E9B, 0x323}, 2, {0x1E9B, 0x323}, 2},
        {{'q', 0x307, 0x323}, 3, {'q', 0x323, 0x307}, 3},
        {{0x958}, 1, {0x915, 0x93C}, 2}, /* excluded from composition */
        {{'d', 0x323, 0x307}, 3, {0x1E0D, 0x307}, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t *out;
        size_t n;
        sx_err e;
        assert_int_equal(sx_nfc(&e, rows[i].in, rows[i].n, &out, &n), SX_OK);
        assert_int_equal(n, rows[i].m);
        assert_memory_equal(out, rows[i].out, n * sizeof *out);
        sx_free(out);
    }
    uint32_t low[2], cp[8];
    assert_int_equal(sx_lower(0x130, low), 2);
    sx_lower(0x1C4, low);
    assert_int_equal(low[0], 0x1C6);
    sx_lower(0x1E9E, low);
    assert_int_equal(low[0], 0xDF);
    assert_int_equal(sx_utf8_decode("\xC0\x80\xED\xA0\x80z", 6, cp), 6); /* overlong and surrogate: one mark a byte */
    assert_true(cp[0] == 0xFFFD && cp[4] == 0xFFFD && cp[5] == 'z');
    assert_true(sx_is_letter(0x4E2D) && sx_is_number(0x664) && sx_is_space(0xA0) && !sx_is_space(0x200B) && !sx_is_letter('_'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_ids), cmocka_unit_test(truncates), cmocka_unit_test(bad_folders),
                                       cmocka_unit_test(composition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
