/* test_ops.c - the operator table: rows are sorted (the lookup depends on it), versions resolve as the standard says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "onnx/ops.h"

static int order(const qx_op *a, const qx_op *b)
{
    int c = strcmp(a->domain, b->domain);
    if (!c) c = strcmp(a->name, b->name);
    return c ? c : a->since - b->since;
}

static void rows_are_sorted(void **state)
{
    (void)state;
    int n;
    const qx_op *t = qx_op_table(&n);
    assert_true(n > 600);
    for (int i = 1; i < n; i++) {
        if (order(&t[i - 1], &t[i]) >= 0)
            fail_msg("rows %s-%d and %s-%d are out of order", t[i - 1].name, t[i - 1].since, t[i].name, t[i].since);
    }
}

static void every_row_is_found(void **state)
{
    (void)state;
    int n;
    const qx_op *t = qx_op_table(&n);
    for (int i = 0; i < n; i++) assert_ptr_equal(qx_op_find(t[i].domain, t[i].name, t[i].since), &t[i]);
}

static void version_in_force(void **state)
{
    (void)state;
    assert_int_equal(qx_op_find("", "ReduceMean", 17)->since, 13);
    assert_int_equal(qx_op_find("ai.onnx", "ReduceMean", 28)->since, 18);
    assert_null(qx_op_find("", "LayerNormalization", 16));
    assert_null(qx_op_find("", "MatMulNBits", 28));
    assert_int_equal(qx_op_find("com.microsoft", "MatMulNBits", 1)->id, QX_OP_ms_MatMulNBits);
    assert_null(qx_op_find("no.such", "Add", 20));
    assert_null(qx_op_find("", "Addd", 20));
    assert_int_equal(qx_op_find("", "MatMul", 13)->id, QX_OP_MatMul);
}

/* TensorRT's own names in whatever domain, and the standard's pair in its domain. */
static void domains_of_tensorrt(void **state)
{
    (void)state;
    static const char *domains[] = {"", "ai.onnx", "trt", "trt.plugins"};
    for (int i = 0; i < 4; i++) assert_int_equal(qx_op_find(domains[i], "TRT_FP8QuantizeLinear", 17)->id, QX_OP_trt_TRT_FP8QuantizeLinear);
    assert_int_equal(qx_op_find("trt", "DequantizeLinear", 1)->id, QX_OP_DequantizeLinear);
    assert_int_equal(qx_op_find("trt", "QuantizeLinear", 1)->id, QX_OP_QuantizeLinear);
    assert_null(qx_op_find("trt", "MatMul", 1));
    assert_null(qx_op_find("com.microsoft", "TRT_FP8QuantizeLinear", 1));
}

static void known_domains(void **state)
{
    (void)state;
    assert_true(qx_op_domain_is_known(""));
    assert_true(qx_op_domain_is_known("ai.onnx"));
    assert_false(qx_op_domain_is_known("com.microsoft"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sorted),
        cmocka_unit_test(every_row_is_found),
        cmocka_unit_test(version_in_force),
        cmocka_unit_test(domains_of_tensorrt), cmocka_unit_test(known_domains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
