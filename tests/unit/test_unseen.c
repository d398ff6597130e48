/* What rows that nobody has seen are expected to lose by clipping (passes/search/judge.h), against many made-up calibrations: as
 * forecast where the tail falls with the sixth power, less than forecast where it falls faster. */
#include "passes/search/judge.h"
#include "unit.h"

#include <math.h>

enum { ROWS = 400, TRIALS = 20000 };

static double uniform(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return ((double)(*s >> 11) + 0.5) / 9007199254740992.0;
}

static double pareto(uint64_t *s) { return pow(uniform(s), -1.0 / 6); }
static double gaussian(uint64_t *s) { return fabs(sqrt(-2 * log(uniform(s))) * cos(6.283185307179586 * uniform(s))); }
static double laplace(uint64_t *s) { return -log(uniform(s)); }

/* Mean over many calibrations of ROWS rows of what ROWS new rows lose, in units of the largest seen value squared. */
static double loss(double (*draw)(uint64_t *), double room)
{
    uint64_t seed = 7;
    double sum = 0;
    for (int t = 0; t < TRIALS; t++) {
        double most = 0;
        for (int i = 0; i < ROWS; i++) most = fmax(most, draw(&seed));
        for (int i = 0; i < ROWS; i++) {
            const double over = draw(&seed) / most - room;
            if (over > 0) sum += over * over;
        }
    }
    return sum / TRIALS;
}

static void as_forecast(void **state)
{
    (void)state;
    for (double room = 1; room < 1.5; room += 0.2) {
        const double measured = loss(pareto, room), forecast = qx_unseen_loss(room);
        if (!(fabs(measured / forecast - 1) < 0.15)) fail_msg("room %g: %g lost, %g forecast", room, measured, forecast);
    }
}

static void less_with_light_tails(void **state)
{
    (void)state;
    assert_true(loss(gaussian, 1) < 0.5 * qx_unseen_loss(1));
    assert_true(loss(laplace, 1) < qx_unseen_loss(1));
    assert_true(loss(gaussian, 1.2) < 0.5 * qx_unseen_loss(1.2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_forecast), cmocka_unit_test(less_with_light_tails)};
    return cmocka_run_group_tests_name("unseen", tests, NULL, NULL);
}
