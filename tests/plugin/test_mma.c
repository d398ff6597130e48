/* test_mma.c - the rule by which kernels fill the fragments of mma.sync (kernels/cuda/mma.h) against the layouts as NVIDIA writes
 * them down: a thread and value index each run through nested strides of a column-major matrix (CuTe, MMA_Traits of
 * SM80_16x8x8_F32TF32TF32F32_TN, SM80_16x8x16_F32F16F16F32_TN and SM80_16x8x32_S32S8S8S32_TN, whose layout E4M3 shares). */
#include "../unit/unit.h"

#include <math.h>

#include "kernels/cuda/mma.h"

/* Value v of thread t lies at t % 4 * t4 + t / 4 + (v's digits, in base `per`, 2, 2) * their strides, of a matrix whose columns
 * are `rows` long. */
typedef struct fragment { int rows, per, t4, v_in, v_second, v_third; } fragment;
typedef struct shape { int kind, k; fragment a, b; } shape;
static const shape shapes[] = {
    {QK_F32, 8, {16, 1, 16, 0, 8, 64}, {8, 1, 8, 0, 32, 0}},
    {QK_F16, 16, {16, 2, 32, 16, 8, 128}, {8, 2, 16, 8, 64, 0}},
    {QK_BF16, 16, {16, 2, 32, 16, 8, 128}, {8, 2, 16, 8, 64, 0}},
    {QK_E4M3, 32, {16, 4, 64, 16, 8, 256}, {8, 4, 32, 8, 128, 0}},
};

static int place(const fragment *f, int t, int v)
{
    const int in = v % f->per, second = v / f->per % 2, third = v / f->per / 2;
    return t % 4 * f->t4 + t / 4 + in * f->v_in + second * f->v_second + third * f->v_third;
}

/* Small whole numbers are exact in all the types. */
static uint32_t code_of(int kind, float v)
{
    switch (kind) {
    case QK_F16: return qx_sc_f32_to_f16(v);
    case QK_BF16: return qx_sc_f32_to_bf16(v);
    case QK_E4M3: return qx_sc_f32_to_e4m3(v, 1);
    default: return qx_bits_of(v);
    }
}

static void fill(const shape *s, const fragment *f, int values, const float *matrix, uint32_t *registers, int n_registers)
{
    memset(registers, 0, 32 * (size_t)n_registers * sizeof *registers);
    for (int t = 0; t < 32; t++)
        for (int v = 0; v < values; v++)
            registers[t * n_registers + v / f->per] |= code_of(s->kind, matrix[place(f, t, v)]) << (32 / f->per * (v % f->per) % 32);
}

static void one(const shape *s)
{
    float a[16 * 32], b[8 * 32]; /* column-major [16][k], [8][k] */
    uint32_t ra[32 * 4], rb[32 * 2];
    mma_operands operands[32];
    const void *lanes[32];
    for (int i = 0; i < 16 * s->k; i++) a[i] = (float)(i * 7 % 13 - 6);
    for (int i = 0; i < 8 * s->k; i++) b[i] = (float)(i * 5 % 11 - 5);
    fill(s, &s->a, 16 * s->k / 32, a, ra, 4);
    fill(s, &s->b, 8 * s->k / 32, b, rb, 2);
    for (int t = 0; t < 32; t++) {
        operands[t] = (mma_operands){ra + 4 * t, rb + 2 * t};
        lanes[t] = &operands[t];
    }
    for (int t = 0; t < 32; t++) {
        float c[4] = {1, 2, 3, 4}; /* added to */
        host_mma(s->kind, c, lanes, t);
        for (int v = 0; v < 4; v++) {
            const int at = t % 4 * 32 + t / 4 + v % 2 * 16 + v / 2 * 8, row = at % 16, col = at / 16; /* SM80_16x8_Row */
            float want = (float)(v + 1);
            for (int k = 0; k < s->k; k++) want += a[row + 16 * k] * b[col + 8 * k];
            if (fabsf(c[v] - want) > 0) fail_msg("type %d, lane %d, register %d: %g, not %g", s->kind, t, v, (double)c[v], (double)want);
        }
    }
}

static void fragments(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) one(&shapes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fragments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
