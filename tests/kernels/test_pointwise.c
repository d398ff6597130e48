/* test_pointwise.c - every function of one and of two elements against double arithmetic of the C library: adversarial values,
 * every length up to two vectors, every alignment, in place; and an element's result never depends on its place. Integers against
 * wide arithmetic. */
#include "kernels.h"

#include "kernels/pointwise.h"

static const float hard[] = {
    0.0f, -0.0f, 0x1p-149f, -0x1p-149f, 0x1p-126f, -0x1.fffffep-127f, 1e-30f, -1e-30f, 1e-8f, -1e-8f, 0x1p-24f, 0.1f, -0.1f, 0.25f, 0.5f,
    -0.5f, 0.6931472f, 0.75f,
    0.99999994f, 1.0f, -1.0f, 1.0000001f, 1.5f, -1.5f, 2.0f, -2.0f, 2.5f, -2.5f, 3.0f, -3.0f, 3.5f, 4.0f, -4.0f, 5.9f, -5.9f, 6.0f, 7.5f,
    -7.5f, 9.0f, -9.0f, 12.0f, -12.0f,
    16.5f, -16.5f, 20.0f, -20.0f, 50.0f, -50.0f, 80.0f, -80.0f, 87.3f, -87.3f, 88.7f, -88.7f, 89.0f, -89.0f, 103.9f, -103.9f, 104.1f,
    -104.1f, 700.0f, -700.0f,
    8388607.5f, -8388607.5f, 8388609.0f, 1e9f, -1e9f, 1e20f, -1e20f, 3.4028235e38f, -3.4028235e38f, INFINITY, -INFINITY, NAN,
};
enum { N_HARD = COUNT(hard), PAD = 80 };

/* ---- One element ---- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double softplus(double x) { return x > 40 ? x : log1p(exp(x)); }

static double one(qx_unary op, double x, const float *p)
{
    const double a = (double)p[0], b = (double)p[1];
    switch (op) {
    case QX_U_ABS: return fabs(x);
    case QX_U_NEG: return -x;
    case QX_U_SIGN: return isnan(x) ? x : (x > 0) - (x < 0);
    case QX_U_SQRT: return sqrt(x);
    case QX_U_EXP: return exp(x);
    case QX_U_LOG: return log(x);
    case QX_U_RECIPROCAL: return 1 / x;
    case QX_U_FLOOR: return floor(x);
    case QX_U_CEIL: return ceil(x);
    case QX_U_ROUND: return nearbyint(x);
    case QX_U_RELU: return isnan(x) ? x : x > 0 ? x : 0;
    case QX_U_SIGMOID: return sigmoid(x);
    case QX_U_TANH: return tanh(x);
    case QX_U_ERF: return erf(x);
    case QX_U_SIN: return sin(x);
    case QX_U_COS: return cos(x);
    case QX_U_TAN: return tan(x);
    case QX_U_ASIN: return asin(x);
    case QX_U_ACOS: return acos(x);
    case QX_U_ATAN: return atan(x);
    case QX_U_SINH: return sinh(x);
    case QX_U_COSH: return cosh(x);
    case QX_U_ASINH: return asinh(x);
    case QX_U_ACOSH: return acosh(x);
    case QX_U_ATANH: return atanh(x);
    case QX_U_SOFTPLUS: return softplus(x);
    case QX_U_SOFTSIGN: return x / (1 + fabs(x));
    case QX_U_GELU: return 0.5 * x * (1 + erf(x * 0.70710678118654752));
    case QX_U_GELU_TANH: return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case QX_U_MISH: return x * tanh(softplus(x));
    case QX_U_HARDSWISH: return isnan(x) ? x : x * fmin(1, fmax(0, x / 6 + 0.5));
    case QX_U_LEAKY_RELU: return x < 0 ? a * x : x;
    case QX_U_ELU: return x < 0 ? a * expm1(x) : x;
    case QX_U_CELU: return x < 0 ? a * expm1(x / a) : x;
    case QX_U_SELU: return x < 0 ? b * a * expm1(x) : b * x;
    case QX_U_HARDSIGMOID: return isnan(x) ? x : fmin(1, fmax(0, a * x + b));
    case QX_U_THRESHOLDED: return x > a ? x : 0; /* as the standard writes them: NaN is not larger */
    case QX_U_SHRINK: return x < -b ? x + a : x > b ? x - a : 0;
    case QX_U_SWISH: return x * sigmoid(a * x);
    default: return 0;
    }
}

/* Where a difference of numbers near each other loses digits, the error counts against the larger of them. */
static bool near(float got, double want, double x)
{
    if (isnan(want)) return isnan(got);
    if (fabs(want) > 3.4028235677973366e38) return got == (want > 0 ? INFINITY : -INFINITY) || fabs((double)got) > 3.3e38;
    if (isinf(got)) return fabs(want) > 3.3e38;
    return fabs((double)got - want) <= 3e-6 * fabs(want) + 4e-7 * fmin(1, fabs(x)) + 2e-38;
}

static void unary_is_the_function(void **state)
{
    static const float params[][2] = {{1.0f, 0.5f}, {0.2f, 0.3f}, {1.702f, 1.05f}};
    (void)state;
    for (int op = 0; op < QX_U_COUNT_; op++)
        for (int k = 0; k < COUNT(params); k++) {
            float y[N_HARD];
            qx_unary_fn *fn = qx_unary_find((qx_unary)op, QX_DT_FLOAT);
            assert_non_null(fn);
            fn(hard, y, N_HARD, params[k]);
            for (int i = 0; i < N_HARD; i++) {
                const double want = one((qx_unary)op, (double)hard[i], params[k]);
                if (!near(y[i], want, (double)hard[i]))
                    fail_msg("function %d (%g, %g) of %.9g is %.9g, expected %.9g", op, (double)params[k][0], (double)params[k][1],
                             (double)hard[i], (double)y[i], want);
            }
        }
}

static void unary_does_not_see_its_place(void **state)
{
    static const float p[2] = {1.25f, 0.75f};
    (void)state;
    float alone[N_HARD], x[N_HARD + PAD], y[N_HARD + PAD];
    for (int op = 0; op < QX_U_COUNT_; op++) {
        qx_unary_fn *fn = qx_unary_find((qx_unary)op, QX_DT_FLOAT);
        for (int i = 0; i < N_HARD; i++) fn(&hard[i], &alone[i], 1, p);
        for (int at = 0; at < 17; at++)
            for (int n = 0; n <= 37; n += at % 3 + 1) {
                const int first = (at * 5 + n) % (N_HARD - 37);
                memset(y, 0x5a, sizeof y);
                memcpy(x + at, hard + first, (size_t)n * sizeof *x);
                fn(x + at, y + at + 1, n, p);
                fn(x + at, x + at, n, p); /* in place */
                for (int i = 0; i < n; i++) {
                    if (memcmp(&y[at + 1 + i], &alone[first + i], 4) || memcmp(&x[at + i], &alone[first + i], 4))
                        fail_msg("function %d of %.9g at %d of %d, alignment %d: %.9g, alone %.9g", op, (double)hard[first + i], i, n,
                                 at, (double)y[at + 1 + i], (double)alone[first + i]);
                }
                uint32_t after;
                memcpy(&after, &y[at + 1 + n], 4);
                assert_int_equal(after, 0x5a5a5a5a); /* nothing behind the end */
            }
    }
}

static void unary_of_doubles(void **state)
{
    static const float p[2] = {1.25f, 0.75f};
    (void)state;
    for (int op = 0; op < QX_U_COUNT_; op++) {
        qx_unary_fn *fn = qx_unary_find((qx_unary)op, QX_DT_DOUBLE);
        assert_non_null(fn);
        for (int i = 0; i < N_HARD; i++) {
            const double x = (double)hard[i], want = one((qx_unary)op, x, p);
            double y;
            fn(&x, &y, 1, p);
            if (isnan(want) ? !isnan(y) : !(fabs(y - want) <= 1e-13 * fabs(want) + 1e-15 * fmin(1, fabs(x)) + 1e-300 || y == want))
                fail_msg("function %d of %.17g is %.17g, expected %.17g", op, x, y, want);
        }
    }
}

/* ---- Two elements ---- */

static double two(qx_binary op, double a, double b)
{
    switch (op) {
    case QX_B_ADD: return a + b;
    case QX_B_SUB: return a - b;
    case QX_B_MUL: return a * b;
    case QX_B_DIV: return a / b;
    case QX_B_POW: return pow(a, b);
    case QX_B_MIN: return isnan(a) || isnan(b) ? NAN : fmin(a, b);
    case QX_B_MAX: return isnan(a) || isnan(b) ? NAN : fmax(a, b);
    case QX_B_FMOD: return fmod(a, b);
    case QX_B_PRELU: return a < 0 ? a * b : a;
    default: return NAN;
    }
}

static bool compares(qx_binary op, float a, float b)
{
    return op == QX_B_EQUAL ? a == b : op == QX_B_LESS ? a < b : op == QX_B_LESS_EQUAL ? a <= b : op == QX_B_GREATER ? a > b : a >= b;
}

static void binary_of_floats(void **state)
{
    static const qx_binary ops[] = {QX_B_ADD, QX_B_SUB, QX_B_MUL, QX_B_DIV, QX_B_POW, QX_B_MIN, QX_B_MAX, QX_B_FMOD, QX_B_PRELU};
    static const qx_binary comparisons[] = {QX_B_EQUAL, QX_B_LESS, QX_B_LESS_EQUAL, QX_B_GREATER, QX_B_GREATER_EQUAL};
    (void)state;
    float y[N_HARD];
    uint8_t truth[N_HARD];
    for (int i = 0; i < N_HARD; i++)
        for (int form = 0; form < 2; form++) { /* one operand stays, on either side */
            const float *a = form ? hard : &hard[i], *b = form ? &hard[i] : hard;
            for (int k = 0; k < COUNT(ops); k++) {
                qx_binary_find(ops[k], QX_DT_FLOAT)(a, form, b, !form, y, N_HARD);
                for (int j = 0; j < N_HARD; j++) {
                    const float u = form ? hard[j] : hard[i], v = form ? hard[i] : hard[j];
                    const float want = (float)two(ops[k], (double)u, (double)v);
                    const bool good = isnan(want) ? isnan(y[j]) : y[j] == want || fabsf(y[j] - want) <= 2e-6f * fabsf(want);
                    if (!good)
                        fail_msg("operation %d of %.9g and %.9g is %.9g, expected %.9g", (int)ops[k], (double)u, (double)v, (double)y[j],
                                 (double)want);
                }
            }
            for (int k = 0; k < COUNT(comparisons); k++) {
                qx_binary_find(comparisons[k], QX_DT_FLOAT)(a, form, b, !form, truth, N_HARD);
                for (int j = 0; j < N_HARD; j++)
                    assert_int_equal(truth[j], compares(comparisons[k], form ? hard[j] : hard[i], form ? hard[i] : hard[j]));
            }
        }
}

#define WIDE(OP, A, B) ((OP) == QX_B_ADD ? (A) + (B) : (OP) == QX_B_SUB ? (A) - (B) : (OP) == QX_B_MUL ? (A) * (B) : (OP) == QX_B_MIN ? ((A) < (B) ? (A) : (B)) : ((A) > (B) ? (A) : (B)))
#define INTEGERS(T, DT, LO, HI) { \
    const T v[] = {0, 1, 2, 3, 7, (T)-1, (T)-2, LO, (T)(LO + 1), HI, (T)(HI - 1), (T)(HI / 2), (T)(LO / 2)}; \
    static const qx_binary ops[] = {QX_B_ADD, QX_B_SUB, QX_B_MUL, QX_B_MIN, QX_B_MAX}; \
    for (int i = 0; i < COUNT(v); i++) \
        for (int j = 0; j < COUNT(v); j++) { \
            T y; \
            for (int k = 0; k < COUNT(ops); k++) { \
                qx_binary_find(ops[k], DT)(&v[i], 1, &v[j], 1, &y, 1); \
                const T want = ops[k] == QX_B_MIN || ops[k] == QX_B_MAX ? (T)WIDE(ops[k], v[i], v[j]) : (T)WIDE(ops[k], (unsigned __int128)v[i], (unsigned __int128)v[j]); \
                if (y != want) fail_msg("%s %d: operation %d of elements %d and %d", #T, __LINE__, (int)ops[k], i, j); \
            } \
            qx_binary_find(QX_B_DIV, DT)(&v[i], 1, &v[j], 1, &y, 1); \
            const T quotient = v[j] == 0 ? 0 : v[i] == (LO) && (LO) < 0 && v[j] == (T)-1 ? (LO) : (T)(v[i] / v[j]); \
            if (y != quotient) fail_msg("%s: quotient of elements %d and %d", #T, i, j); \
            qx_binary_find(QX_B_MOD, DT)(&v[i], 1, &v[j], 1, &y, 1); \
            __int128 rest = v[j] == 0 ? 0 : (__int128)v[i] % (__int128)v[j]; \
            if (rest != 0 && (rest < 0) != ((__int128)v[j] < 0)) rest += v[j]; \
            if (y != (T)rest) fail_msg("%s: modulo of elements %d and %d", #T, i, j); \
        } }

static void binary_of_integers(void **state)
{
    (void)state;
    INTEGERS(int8_t, QX_DT_INT8, INT8_MIN, INT8_MAX)
    INTEGERS(uint8_t, QX_DT_UINT8, 0, UINT8_MAX)
    INTEGERS(int16_t, QX_DT_INT16, INT16_MIN, INT16_MAX)
    INTEGERS(uint16_t, QX_DT_UINT16, 0, UINT16_MAX)
    INTEGERS(int32_t, QX_DT_INT32, INT32_MIN, INT32_MAX)
    INTEGERS(uint32_t, QX_DT_UINT32, 0, UINT32_MAX)
    INTEGERS(int64_t, QX_DT_INT64, INT64_MIN, INT64_MAX)
    INTEGERS(uint64_t, QX_DT_UINT64, 0, UINT64_MAX)
}

static void selection(void **state)
{
    static const int sizes[] = {1, 2, 4, 8, 16};
    (void)state;
    uint8_t c[37], a[37 * 16], b[37 * 16], y[37 * 16 + 1];
    uint32_t s = 5;
    for (int k = 0; k < COUNT(sizes); k++)
        for (int mode = 0; mode < 8; mode++) {
            const int size = sizes[k], sc = mode & 1, sa = mode >> 1 & 1, sb = mode >> 2;
            for (int i = 0; i < 37; i++) c[i] = (uint8_t)(rng_next(&s) % 3);
            for (size_t i = 0; i < sizeof a; i++) a[i] = (uint8_t)rng_next(&s), b[i] = (uint8_t)rng_next(&s);
            y[37 * size] = 0x77;
            qx_select(c, sc, a, sa, b, sb, y, 37, size);
            for (int i = 0; i < 37; i++)
                assert_memory_equal(y + i * size, c[sc ? i : 0] ? a + (sa ? i * size : 0) : b + (sb ? i * size : 0), (size_t)size);
            assert_int_equal(y[37 * size], 0x77);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(unary_is_the_function), cmocka_unit_test(unary_does_not_see_its_place),
                                       cmocka_unit_test(unary_of_doubles),
                                       cmocka_unit_test(binary_of_floats), cmocka_unit_test(binary_of_integers),
                                           cmocka_unit_test(selection)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
