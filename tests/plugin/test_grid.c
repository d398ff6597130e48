/* test_grid.c - the host form of a block of threads (runtime/cuda/grid_host.c) finds what it is there to find: a barrier that is
 * missing or that not all threads meet, launches and addresses that a device refuses, copies that are read before they have come. */
#include "../unit/unit.h"
#include "kernels/cuda/elem.h"
#include "kernels/cuda/mma.h"

enum { THREADS = 64 };
typedef struct grid_args { int32_t *y; int kind; } grid_args;
enum { WITH_BARRIER, WITHOUT, HALF_OF_THEM, HALF_A_WARP, MISALIGNED, WAITED_FOR, TOO_EARLY };

/* Each thread takes what its neighbours left and right have written. */
QK_KERNEL_RESIDENT(neighbours, grid_args, THREADS, 1)
{
    QK_SHARED(int32_t, all, THREADS);
    const int t = QK_THREAD;
    all[t] = t;
    if (a.kind == WITH_BARRIER) QK_SYNC();
    if (a.kind == HALF_OF_THEM && t < THREADS / 2) QK_SYNC();
    if (a.kind == HALF_A_WARP && t < 16) lane_xor(1, 1);
    a.y[t] = (int32_t)((uint32_t)all[(t + 1) % THREADS] + 1000u * (uint32_t)all[(t + THREADS - 1) % THREADS]);
    if (a.kind == MISALIGNED) qk_load16(a.y + t % 4, (uint32_t[4]){0});
}

QK_KERNEL_RESIDENT(copied, grid_args, THREADS, 1)
{
    QK_SHARED(int32_t, all, 4 * THREADS);
    const int t = QK_THREAD;
    qk_copy_async(&all[4 * t], a.y + 4 * t, 1);
    QK_ASYNC_GROUP();
    qk_copy_async(&all[4 * t], NULL, 0); /* a group that is never waited for */
    QK_ASYNC_GROUP();
    if (a.kind == WAITED_FOR) QK_ASYNC_WAIT(1);
    QK_SYNC();
    a.y[4 * t] = (int32_t)(10u * (uint32_t)all[(4 * t + 4) % (4 * THREADS)]);
}

static int32_t y[4 * THREADS] __attribute__((aligned(16)));
static int run(int kind) { return QK_LAUNCH(neighbours, 4, THREADS, NULL, (&(grid_args){y, kind})); }

static bool right(void)
{
    for (int t = 0; t < THREADS; t++)
        if (y[t] != (t + 1) % THREADS + 1000 * ((t + THREADS - 1) % THREADS)) return false;
    return true;
}

static void barriers(void **state)
{
    (void)state;
    assert_int_equal(run(WITH_BARRIER), 0);
    assert_true(right());
    assert_int_equal(run(WITHOUT), 0);
    assert_false(right());
    assert_int_equal(run(HALF_OF_THEM), 719);
    assert_int_equal(run(HALF_A_WARP), 719);
    assert_int_equal(run(WITH_BARRIER), 0); /* and nothing stays behind */
    assert_true(right());
}

static void launches(void **state)
{
    const grid_args a = {y, WITH_BARRIER};
    qk_host_queue dry = {.dry = 1};
    (void)state;
    assert_int_equal(run(MISALIGNED), 716);
    assert_int_equal(QK_LAUNCH(neighbours, 0, THREADS, NULL, &a), 9);
    assert_int_equal(QK_LAUNCH(neighbours, (int64_t)INT32_MAX + 1, THREADS, NULL, &a), 9);
    assert_int_equal(QK_LAUNCH(neighbours, 1, THREADS + 32, NULL, &a), 9);
    assert_int_equal(QK_LAUNCH(neighbours, INT32_MAX, THREADS, &dry, &a), 0);
    assert_int_equal(QK_LAUNCH(neighbours, 0, THREADS, &dry, &a), 9);
    assert_int_equal(dry.launches, 1);
}

static void copies(void **state)
{
    (void)state;
    for (int kind = WAITED_FOR; kind <= TOO_EARLY; kind++) {
        const grid_args a = {y, kind};
        for (int i = 0; i < 4 * THREADS; i++) y[i] = i;
        assert_int_equal(QK_LAUNCH(copied, 1, THREADS, NULL, &a), 0);
        for (int t = 0; t < THREADS; t++) assert_int_equal(y[4 * t] == 10 * (4 * t + 4) % (40 * THREADS), kind == WAITED_FOR);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(barriers), cmocka_unit_test(launches), cmocka_unit_test(copies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
