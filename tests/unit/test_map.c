/* test_map.c - the map against a plain list, interning, hashes. */
#include "unit.h"
#include "base/map.h"

enum { KEYS = 700 };

static void name_of(int i, char *out)
{
    sprintf(out, "/layers.%d/attn/MatMul", i);
}

static void grows_and_keeps_order(void **state)
{
    qx_map *m;
    char key[64];
    OK(qx_map_new(*state, &m));
    assert_null(qx_map_get(m, "x"));
    qx_map_remove(m, "x");
    for (intptr_t i = 0; i < 20000; i++) {
        name_of((int)i, key);
        OK(qx_map_put(m, key, (void *)(i + 1)));
    }
    assert_int_equal(qx_map_count(m), 20000);
    for (intptr_t i = 0; i < 20000; i++) {
        void *v;
        name_of((int)i, key);
        assert_ptr_equal(qx_map_get(m, key), (void *)(i + 1));
        assert_string_equal(qx_map_key_at(m, (size_t)i, &v), key);
        assert_ptr_equal(v, (void *)(i + 1));
    }
    assert_null(qx_map_key_at(m, 20000, NULL));
    OK(qx_map_put(m, "null", NULL));
    assert_true(qx_map_has(m, "null"));
    assert_false(qx_map_has(m, "nul"));
    assert_false(qx_map_has(m, ""));
    OK(qx_map_put(m, "", m));
    assert_ptr_equal(qx_map_get(m, ""), m);
    qx_map_free(m);
    assert_int_equal(qx_mem_in_use(*state), 0);
}

static void against_a_list(void **state)
{
    qx_map *m;
    char key[64];
    int present[KEYS] = {0}, count = 0;
    uint32_t r = 1;
    OK(qx_map_new(*state, &m));
    for (int step = 0; step < 60000; step++) {
        r = r * 1664525u + 1013904223u;
        int i = (int)(r >> 8) % KEYS;
        name_of(i, key);
        if (r >> 30) { /* three of four */
            OK(qx_map_put(m, key, (void *)(intptr_t)(step + 1)));
            count += !present[i];
            present[i] = step + 1;
        } else {
            qx_map_remove(m, key);
            count -= present[i] != 0;
            present[i] = 0;
        }
        assert_int_equal(qx_map_count(m), count);
        int j = (int)(r >> 4) % KEYS;
        name_of(j, key);
        assert_int_equal((intptr_t)qx_map_get(m, key), present[j]);
    }
    for (size_t i = 0; i < qx_map_count(m); i++) {
        void *v;
        int j;
        assert_int_equal(sscanf(qx_map_key_at(m, i, &v), "/layers.%d/", &j), 1);
        assert_int_equal((intptr_t)v, present[j]);
        present[j] = 0;
    }
    qx_map_free(m);
}

static void interning(void **state)
{
    qx_strings *s;
    char text[] = "weight";
    OK(qx_strings_new(*state, &s));
    const char *a = qx_intern(s, text);
    for (int i = 0; i < 5000; i++) {
        char other[32];
        sprintf(other, "t%d", i);
        assert_non_null(qx_intern(s, other));
    }
    assert_ptr_equal(qx_intern(s, "weight"), a);
    assert_ptr_equal(qx_intern_n(s, "weight_scale", 6), a);
    assert_ptr_not_equal(qx_intern_n(s, "weight_scale", 7), a);
    assert_string_equal(qx_intern_n(s, "weight_scale", 7), "weight_");
    static const char kept[] = "kept by the caller", known[] = "weight";
    assert_ptr_equal(qx_intern_kept(s, kept), kept);
    assert_ptr_equal(qx_intern(s, "kept by the caller"), kept);
    assert_ptr_equal(qx_intern_kept(s, known), a);
    qx_strings_free(s);
}

static void hashes(void **state)
{
    (void)state;
    char hex[33];
    qx_hash128_hex("", 0, hex); /* the published value of XXH3-128 of nothing */
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    assert_true(qx_hash64("", 0) == 0x2D06800538D394C2ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(grows_and_keeps_order), TEST(against_a_list), TEST(interning), TEST(hashes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
