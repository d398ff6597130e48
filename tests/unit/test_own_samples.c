/* test_own_samples.c - when `--int4` calibrates without samples given: tokens are made up for a transformer that reads nothing else, of up to
 * 5e8 parameters and no more; samples that lie beside a model are taken under the same limit. */
#include "model_text.h"
#include "passes/job/own_samples.h"

#define TOKENS "(int64[b,s] input_ids"
#define REST ") => (float[b,s,32] y) <float[100,32] table = random(1), float[32,32] w = random(2)> { e = Gather (table, input_ids) " \
    "a = Attention <q_num_heads = 4, kv_num_heads = 4> (e, e, e) y = MatMul (a, w) }"
enum { PARAMETERS = 100 * 32 + 32 * 32 };

/* Whether tokens are made up when the model has so many parameters: the table is said to be as large, nothing reads it. */
static qx_own_samples chosen(const char *inputs, int64_t parameters)
{
    char text[800];
    qx_own_samples own;
    snprintf(text, sizeof text, "%sg %s" REST, HEAD(23), inputs);
    fixture f = load(text);
    qx_weight *table = value(&f, "table")->init;
    table->numel += parameters - PARAMETERS;
    ok(&f, qx_own_samples_choose(f.m, NULL, &own));
    unload(&f);
    return own;
}

static void up_to_a_size(void **state)
{
    (void)state;
    assert_int_equal(chosen(TOKENS, PARAMETERS), QX_OWN_MADE_UP);
    assert_int_equal(chosen(TOKENS, 500000000), QX_OWN_MADE_UP);
    assert_int_equal(chosen(TOKENS, 500000001), QX_OWN_NONE);
}

static void of_tokens_alone(void **state)
{
    (void)state;
    assert_int_equal(chosen(TOKENS ", int64[b,s] attention_mask", PARAMETERS), QX_OWN_MADE_UP);
    assert_int_equal(chosen(TOKENS ", float[b,3,32,32] pixel_values", PARAMETERS), QX_OWN_MADE_UP); /* nobody reads it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(up_to_a_size), cmocka_unit_test(of_tokens_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
