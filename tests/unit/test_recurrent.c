/* test_recurrent.c - LSTM, GRU and RNN with weights that are packed beside such as are not, and an LSTM of codes. */
#include "exec_run.h"

/* Constant weights of recurrent operators are packed at the first run, and gone at the second; others are multiplied as they lie. */
static void recurrent_weights(void **state)
{
    (void)state;
#define RECURRENT(batch, op, gates, twice, options, made, w, r) \
    HEAD(21) "g (float[4," batch ",12] x, float[1] t) => (float[4,2," batch ",10] y) " \
    "<float[2," gates ",12] w = random(1), float[2," gates ",10] r = random(2), float[2," twice "] b = random(3), " \
    "float[1] zero = {0}> {" made \
    " y, h = " op "<hidden_size = 10, direction = \"bidirectional\"" options ">(x, " w ", " r ", b) }"
#define BOTH(batch, op, gates, twice, options) {RECURRENT(batch, op, gates, twice, options, "", "w", "r"), \
    RECURRENT(batch, op, gates, twice, options, " s = Mul(t, zero) v = Add(w, s) q = Add(r, s)", "v", "q")}
    static const char *const same[][2] = {BOTH("1", "LSTM", "40", "80", ""), BOTH("8", "LSTM", "40", "80", ""),
                                          BOTH("3", "RNN", "10", "20", ""), BOTH("1", "GRU", "30", "60", ""),
                                          BOTH("2", "GRU", "30", "60", ", linear_before_reset = 1")};
    enum { MOST = 4 * 2 * 8 * 10 };
    static float first[MOST];
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        for (int k = 0; k < 2; k++) {
            feeds in;
            qx_tensor y;
            fixture f = load(same[i][k]);
            make_feeds(&f, &in);
            qx_exec *x = make_exec(&f, NULL);
            for (int again = 0; again < 2; again++) {
                run(&f, x, &in, &y);
                assert_true(y.numel <= MOST);
                const float *v = y.data;
                for (int64_t e = 0; e < y.numel && (k || again); e++) assert_true(fabsf(v[e] - first[e]) <= 2e-5f);
                memcpy(first, y.data, y.bytes);
                qx_tensor_free(f.ctx, &y);
            }
            qx_exec_free(x);
            free_feeds(&f, &in);
            unload(&f);
        }
}

/* Packed weights serve every shape that comes. */
static void batches_may_change(void **state)
{
    (void)state;
    fixture f = load(HEAD(21) "g (float[3,batch,12] x) => (float[3,1,batch,10] y) <float[1,40,12] w = random(1), float[1,40,10] r = random(2)>"
                     " { y, h = LSTM<hidden_size = 10>(x, w, r) }");
    qx_exec *x = make_exec(&f, NULL);
    float first[30];
    for (int k = 0; k < 4; k++) {
        const int64_t batch = 1 + k % 3 * 4; /* 1, 5, 9, 1 */
        qx_tensor in, y;
        ok(&f, qx_tensor_new(f.ctx, &in, QX_DT_FLOAT, 3, (int64_t[]){3, batch, 12}));
        for (int64_t i = 0; i < in.numel; i++) ((float *)in.data)[i] = (float)(i % 12) * 0.1f; /* all rows alike */
        ok(&f, qx_exec_run(x, &(qx_feed){"x", &in}, 1, NULL, 1, &y));
        assert_int_equal(y.numel, 30 * batch);
        const float *v = y.data;
        for (int64_t i = 0; i < y.numel && k; i++) assert_true(fabsf(v[i] - first[i / 10 / batch * 10 + i % 10]) <= 2e-5f);
        if (k == 3) assert_memory_equal(v, first, sizeof first);
        if (k == 0) memcpy(first, v, sizeof first);
        qx_tensor_free(f.ctx, &y);
        qx_tensor_free(f.ctx, &in);
    }
    qx_exec_free(x);
    unload(&f);
}

/* Inputs that are whole numbers from 0 to 255 are their own codes, and a state that meets zeros leaves no rounding: the operator of codes
 * gives what the float one gives for the numbers that the codes mean. */
static void codes_mean_their_numbers(void **state)
{
    (void)state;
    fixture f = load(HEAD(21) "g (float[70,3,5] x) => (float[70,2,3,6] d, float[70,2,3,6] y) <int8[2,5,24] w = random(1), int8[2,6,24] r = fill(0), "
                     "float[2,48] b = random(3), float[2,24] s0 = random(2), float m = {0.001}, int8[2,24] z = fill(0), int64[1] one = {1}, "
                     "float[2,24,6] none = fill(0)> { s = Mul (s0, m) p = Abs (s) "
                     "q, qh, qc = com.microsoft.DynamicQuantizeLSTM <hidden_size = 6, direction = \"bidirectional\"> (x, w, r, b, , , , , p, z, p, z) "
                     "wf = Cast <to = 1> (w) pu = Unsqueeze (p, one) ws = Mul (wf, pu) wt = Transpose <perm = [0, 2, 1]> (ws) "
                     "y, h, c = LSTM <hidden_size = 6, direction = \"bidirectional\"> (x, wt, none, b) d = Sub (q, y) }");
    qx_exec *x = make_exec(&f, NULL);
    qx_tensor in, out[2];
    ok(&f, qx_tensor_new(f.ctx, &in, QX_DT_FLOAT, 3, (int64_t[]){70, 3, 5}));
    for (int again = 0; again < 2; again++) { /* packed, and forgotten */
        double sum = 0;
        for (int64_t i = 0; i < in.numel; i++) ((float *)in.data)[i] = (float)(i * 37 % 256);
        ok(&f, qx_exec_run(x, &(qx_feed){"x", &in}, 1, NULL, 2, out));
        for (int64_t i = 0; i < out[0].numel; i++) assert_true(fabsf(((float *)out[0].data)[i]) < 1e-5f);
        for (int64_t i = 0; i < out[1].numel; i++) sum += fabs(((float *)out[1].data)[i]);
        assert_true(sum > 0.1 * (double)out[1].numel);
        for (int i = 0; i < 2; i++) qx_tensor_free(f.ctx, &out[i]);
    }
    qx_tensor_free(f.ctx, &in);
    qx_exec_free(x);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(recurrent_weights), cmocka_unit_test(batches_may_change),
                                       cmocka_unit_test(codes_mean_their_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
