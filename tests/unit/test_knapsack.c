/* The frontier of qx_knapsack against brute force over all combinations, and its behaviour when lists outgrow the cap. */
#include "unit.h"

#include "passes/search/knapsack.h"

enum { GROUPS = 7, N = 3, ALL = 2187 }; /* 3^7 */

static uint32_t next(uint32_t *s) { return *s = *s * 1664525u + 1013904223u; }

static void fill(qx_choice *c, int64_t groups, uint32_t seed)
{
    for (int64_t i = 0; i < groups * N; i++)
        c[i] = (qx_choice){next(&seed) % 50, (double)(next(&seed) % 1000) / 7, i % N == 0 || next(&seed) % 4 != 0};
}

/* Least cost of any combination that takes at most `limit` bytes; -1: none. */
static double brute(const qx_choice *c, int64_t limit)
{
    double best = -1;
    for (int64_t code = 0; code < ALL; code++) {
        int64_t bytes = 0, rest = code;
        double cost = 0;
        bool ok = true;
        for (int g = 0; g < GROUPS; g++, rest /= N) {
            const qx_choice *x = &c[g * N + rest % N];
            ok = ok && x->allowed;
            bytes += x->bytes;
            cost += x->cost;
        }
        if (ok && bytes <= limit && (best < 0 || cost < best)) best = cost;
    }
    return best;
}

static void frontier_is_exact(void **state)
{
    for (uint32_t seed = 1; seed < 40; seed++) {
        qx_choice c[GROUPS * N];
        qx_knapsack *k;
        fill(c, GROUPS, seed);
        OK(qx_knapsack_new(*state, c, GROUPS, N, &k));
        assert_true(qx_knapsack_exact(k));
        for (int64_t i = 0; i < qx_knapsack_count(k); i++) {
            int64_t bytes, sum = 0, before;
            double cost, total = 0, earlier;
            uint8_t pick[GROUPS];
            qx_knapsack_point(k, i, &bytes, &cost);
            qx_knapsack_pick(k, i, pick);
            for (int g = 0; g < GROUPS; g++) {
                assert_true(c[g * N + pick[g]].allowed);
                sum += c[g * N + pick[g]].bytes;
                total += c[g * N + pick[g]].cost;
            }
            assert_int_equal(sum, bytes);
            assert_true(total == cost);
            assert_true(cost <= brute(c, bytes) + 1e-9);
            if (i == 0) assert_true(brute(c, bytes - 1) < 0);
            if (i == 0) continue;
            qx_knapsack_point(k, i - 1, &before, &earlier);
            assert_true(before < bytes && earlier > cost);
            assert_true(brute(c, bytes - 1) >= earlier - 1e-9); /* nothing between two points is better */
        }
        qx_knapsack_free(k);
    }
}

static void group_without_choice(void **state)
{
    const qx_choice c[2] = {{1, 1, true}, {1, 1, false}};
    qx_knapsack *k;
    FAILS(qx_knapsack_new(*state, c, 2, 1, &k), QX_E_FAIL);
    MESSAGE_HAS(*state, "group 1");
    assert_null(k);
}

/* 40 groups of sizes without a common measure: the lists outgrow the cap, and what remains is still true and spans the whole range. */
static void thinned(void **state)
{
    enum { MANY = 40 };
    qx_choice c[MANY * 2];
    qx_knapsack *k;
    uint32_t seed = 5;
    int64_t least = 0, most = 0, bytes;
    double cost;
    uint8_t pick[MANY];
    for (int g = 0; g < MANY; g++) {
        const int64_t b = 1000000 + next(&seed) % 1000000;
        c[2 * g] = (qx_choice){b, (double)(b + next(&seed) % 1000), true};
        c[2 * g + 1] = (qx_choice){b * 2, 0, true};
        least += b;
        most += 2 * b;
    }
    OK(qx_knapsack_new(*state, c, MANY, 2, &k));
    assert_false(qx_knapsack_exact(k));
    assert_true(qx_knapsack_count(k) <= QX_KNAPSACK_CAP && qx_knapsack_count(k) > 1000);
    qx_knapsack_point(k, 0, &bytes, &cost);
    assert_int_equal(bytes, least);
    qx_knapsack_point(k, qx_knapsack_count(k) - 1, &bytes, &cost);
    assert_true(cost == 0 && bytes == most);
    qx_knapsack_pick(k, qx_knapsack_count(k) / 2, pick);
    int64_t sum = 0, at;
    for (int g = 0; g < MANY; g++) sum += c[2 * g + pick[g]].bytes;
    qx_knapsack_point(k, qx_knapsack_count(k) / 2, &at, &cost);
    assert_int_equal(sum, at);
    qx_knapsack_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(frontier_is_exact), TEST(group_without_choice), TEST(thinned)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
