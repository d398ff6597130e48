/* unit.h - what every cmocka program here starts with. */
#ifndef QX_TESTS_UNIT_H
#define QX_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

static inline int with_ctx(void **state)
{
    *state = qx_ctx_new(NULL);
    return *state ? 0 : -1;
}

static inline int free_ctx(void **state)
{
    qx_ctx_free(*state);
    return 0;
}

#define OK(expr) assert_int_equal((expr), QX_OK)
#define FAILS(expr, code) assert_int_equal((expr), (code))
#define MESSAGE_HAS(ctx, part) \
    do { if (!strstr(qx_ctx_error(ctx), (part))) fail_msg("message \"%s\" lacks \"%s\"", qx_ctx_error(ctx), (part)); } while (0)
#define TEST(f) cmocka_unit_test_setup_teardown(f, with_ctx, free_ctx)

#endif
