/* test_shift.c - what makes up for a changed input: against a plain solution in double, rows without error stay as they are, and rows
 * that were held back say how much of it is taken. */
#include "unit.h"

#include <math.h>

#include "onnx/file/io.h"
#include "onnx/weight/weight.h"
#include "passes/search/shift.h"

enum { K = 8, N = 5, ROWS = 700 };

static uint32_t seed;
static float noise(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) seed = seed * 1664525u + 1013904223u, sum += (float)(seed >> 8) / 16777216.0f - 0.5f;
    return sum;
}

/* Rows of x and xq. Most carry an error along the last channel, which alone makes up every `special`th row; that has none. */
static void make_rows(float (*both)[2 * K], int rows, int special)
{
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < K; j++) both[r][K + j] = special && r % special == 0 ? 3.0f * (j == K - 1) : noise();
        memcpy(both[r], both[r] + K, K * sizeof **both);
        if (special && r % special == 0) continue;
        const float error = noise();
        both[r][K + K - 1] = error;
        both[r][K - 1] = 0.2f * both[r][0];
    }
}

/* S in double, as shift.h says it: Gauss-Jordan on H + damping, right sides D'. */
static void plain_solution(float (*both)[2 * K], int rows, double s[K][K])
{
    double h[K][2 * K] = {{0}}, trace = 0;
    for (int r = 0; r < rows; r++) {
        double e = 0, x2 = 0;
        for (int j = 0; j < K; j++) e += pow((double)both[r][j] - both[r][K + j], 2), x2 += pow(both[r][K + j], 2);
        const double w = 1 / (e + 1e-4 * x2);
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++) {
                h[i][j] += w * both[r][K + i] * both[r][K + j];
                h[i][K + j] += w * both[r][K + i] * ((double)both[r][j] - both[r][K + j]);
            }
    }
    for (int i = 0; i < K; i++) trace += h[i][i];
    for (int i = 0; i < K; i++) h[i][i] += 0.1 * trace / K;
    for (int p = 0; p < K; p++) {
        const double pivot = h[p][p];
        for (int j = 0; j < 2 * K; j++) h[p][j] /= pivot;
        for (int i = 0; i < K; i++) {
            const double f = h[i][p];
            for (int j = 0; j < 2 * K && i != p; j++) h[i][j] -= f * h[p][j];
        }
    }
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) s[i][j] = h[j][K + i]; /* S = (inv(H) D')' */
}

static void add_all(qx_ctx *ctx, qx_shift *s, float (*both)[2 * K], int rows, bool judges)
{
    for (int r = 0; r < rows; r += 30) OK(qx_shift_add(ctx, s, both[r], rows - r < 30 ? rows - r : 30, 2 * K, judges));
}

static void best_in_least_squares(void **state)
{
    static float both[ROWS][2 * K];
    double want[K][K];
    float *matrix, moved = 0;
    qx_shift *s;
    seed = 1;
    make_rows(both, ROWS, 50);
    plain_solution(both, ROWS, want);
    OK(qx_shift_new(*state, K, &s));
    add_all(*state, s, both, ROWS, false);
    OK(qx_shift_find(*state, s, &matrix));
    assert_non_null(matrix);
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++)
            if (fabs(matrix[j * K + i] - want[i][j]) > 1e-4) fail_msg("S[%d][%d]: %g, %g in double", i, j, (double)matrix[j * K + i], want[i][j]);
    for (int i = 0; i < K; i++) moved = fmaxf(moved, fabsf(matrix[(K - 1) * K + i])); /* of a row that is the last channel alone */
    assert_true(moved < 0.1f);
    qx_free(*state, matrix);
    qx_shift_free(*state, s);
}

/* The same rows judge (all of it is taken), the opposite (none), errors that have nothing to do with the inputs (next to none), or
 * nobody (none). */
static void judged(void **state)
{
    static float both[ROWS][2 * K], held[ROWS][2 * K];
    const float weights[N * K] = {1, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0.5f, 1, 1, 1, 1, 1, 1, 1, 1};
    const int64_t dims[2] = {N, K};
    const qx_view view = {N, 1, K, 0};
    qx_model *m;
    qx_weight *w;
    OK(qx_model_parse_text(*state, "<ir_version: 8, opset_import: [\"\": 17]> g (float[1] x) => (float[1] y) { y = Neg (x) }", &m));
    OK(qx_weight_from_bytes(m, QX_DT_FLOAT, 2, dims, weights, &w));
    for (int kind = 0; kind < 4; kind++) {
        qx_shift *s;
        float *matrix;
        double share;
        seed = 7;
        make_rows(both, ROWS, 0);
        memcpy(held, both, sizeof both);
        for (int r = 0; r < ROWS && kind == 1; r++)
            for (int j = 0; j < K; j++) held[r][j] = 2 * both[r][K + j] - both[r][j];
        for (int r = 0; r < ROWS && kind == 2; r++)
            for (int j = 0; j < K; j++) held[r][j] = held[r][K + j] + noise();
        OK(qx_shift_new(*state, K, &s));
        add_all(*state, s, both, ROWS, false);
        if (kind < 3) add_all(*state, s, held, ROWS, true);
        OK(qx_shift_find(*state, s, &matrix));
        OK(qx_shift_share(*state, s, matrix, w, &view, NULL, &share));
        print_message("kind %d: %.3f\n", kind, share);
        assert_true(kind == 0 ? share > 0.95 : kind == 2 ? share < 0.5 : share == 0);
        qx_free(*state, matrix);
        qx_shift_free(*state, s);
    }
    qx_model_free(m);
}

/* More rows that judge than there is room for, and inputs that nothing has changed. */
static void many_and_equal(void **state)
{
    static float both[ROWS][2 * K];
    qx_shift *s;
    float *matrix;
    seed = 3;
    make_rows(both, ROWS, 0);
    OK(qx_shift_new(*state, K, &s));
    for (int i = 0; i < 8; i++) add_all(*state, s, both, ROWS, true);
    for (int r = 0; r < ROWS; r++) memcpy(both[r], both[r] + K, K * sizeof **both);
    add_all(*state, s, both, ROWS, false);
    OK(qx_shift_find(*state, s, &matrix));
    assert_null(matrix);
    qx_shift_free(*state, s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(best_in_least_squares), TEST(judged), TEST(many_and_equal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
