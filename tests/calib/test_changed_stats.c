/* test_changed_stats.c - statistics whose channels were scaled or shifted, against those of the scaled or shifted numbers, worked out
 * in float64: passes that fold factors never look at data again, so what they are told must be what they would see. */
#include "../unit/unit.h"
#include "calib/data/npz.h"
#include "calib/stats/store.h"

#include <math.h>

#define MLP TEST_SOURCE_DIR "/tests/data/mlp/"
enum { ROWS = 16, K = 64 };
typedef struct world { qx_model *m; qx_exec *x; qx_stats *s; const qx_value *v; float data[ROWS * K]; } world;

static void open_world(qx_ctx *ctx, world *w)
{
    const char *path = MLP "calib.npz";
    qx_samples *samples;
    qx_npz *z;
    qx_tensor t;
    OK(qx_model_read(ctx, MLP "model.onnx", NULL, &w->m));
    OK(qx_infer_shapes(w->m, NULL, 0));
    OK(qx_exec_new(ctx, w->m, NULL, &w->x));
    OK(qx_stats_new(ctx, w->m->graph_hash, &w->s));
    w->v = qx_graph_find(w->m->graph, "x");
    const uint32_t kinds = QX_STAT_RANGE | QX_STAT_HISTOGRAM | QX_STAT_CHANNELS | QX_STAT_ROWS | QX_STAT_GRAM;
    OK(qx_stats_want(w->s, &(qx_stat_request){.value = w->v, .kinds = kinds, .axis = -1, .rows = ROWS}));
    OK(qx_samples_open(ctx, w->m, &(qx_samples_options){.paths = &path, .n_paths = 1}, &samples));
    OK(qx_stats_collect(w->s, w->x, samples));
    qx_samples_close(samples);
    OK(qx_npz_open(ctx, path, &z));
    OK(qx_npz_read(z, qx_npz_find(z, "x"), &t));
    assert_int_equal(t.numel, ROWS * K);
    memcpy(w->data, t.data, sizeof w->data);
    qx_tensor_free(ctx, &t);
    qx_npz_close(z);
}

static void close_world(world *w)
{
    qx_stats_free(w->s);
    qx_exec_free(w->x);
    qx_model_free(w->m);
}

static void near(const char *what, int i, double got, double want, double scale)
{
    if (!(fabs(got - want) <= 1e-5 * scale)) fail_msg("%s %d: %.9g, %.9g wanted", what, i, got, want);
}

static void check_channels(const qx_value_stats *v, const float *x)
{
    double least = 0, most = 0;
    for (int c = 0; c < K; c++) {
        double sum = 0, sq = 0, lo = (double)x[c], hi = lo;
        for (int r = 0; r < ROWS; r++) {
            const double e = (double)x[r * K + c];
            sum += e, sq += e * e, lo = fmin(lo, e), hi = fmax(hi, e);
        }
        const double scale = fmax(fabs(lo), fabs(hi));
        near("least of channel", c, (double)v->channels.min[c], lo, scale);
        near("largest of channel", c, (double)v->channels.max[c], hi, scale);
        near("mean of channel", c, (double)v->channels.mean[c], sum / ROWS, scale);
        near("mean square of channel", c, (double)v->channels.mean_sq[c], sq / ROWS, scale * scale);
        least = c ? fmin(least, lo) : lo, most = c ? fmax(most, hi) : hi;
    }
    near("least", 0, (double)v->min, least, fabs(least));
    near("largest", 0, (double)v->max, most, fabs(most));
}

static void check_gram(const qx_value_stats *v, const float *x)
{
    double h[K];
    for (int i = 0; i < K; i++) {
        h[i] = 0;
        for (int r = 0; r < ROWS; r++) h[i] += (double)x[r * K + i] * (double)x[r * K + i];
    }
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            double want = 0;
            for (int r = 0; r < ROWS; r++) want += (double)x[r * K + i] * (double)x[r * K + j];
            near("Gram matrix", i * K + j, (double)v->gram[i * K + j], want, sqrt(h[i] * h[j]));
        }
}

static bool is_row(const float *row, const float *x)
{
    for (int r = 0; r < ROWS; r++) {
        int c = 0;
        while (c < K && fabsf(row[c] - x[r * K + c]) <= 1e-5f * (1 + fabsf(row[c]))) c++;
        if (c == K) return true;
    }
    return false;
}

/* All of it; and the histogram ends where the largest value lies. */
static void check(const world *w, const float *x)
{
    float t;
    const qx_value_stats *v = qx_stats_get(w->s, w->v);
    check_channels(v, x);
    check_gram(v, x);
    assert_int_equal(v->n_rows, ROWS);
    for (int64_t i = 0; i < v->n_rows; i++) assert_true(is_row(v->rows + i * K, x));
    for (int64_t i = 0; i < v->n_tops; i++) assert_true(is_row(v->tops + i * K, x));
    OK(qx_stats_threshold(w->s, w->v, &(qx_range_options){.method = QX_RANGE_PERCENTILE, .percentile = 100}, &t));
    near("largest in the histogram", 0, (double)t, (double)v->absmax, (double)v->absmax);
}

static void scaled(void **state)
{
    world w;
    float f[K];
    open_world(*state, &w);
    check(&w, w.data);
    for (int c = 0; c < K; c++) f[c] = (c % 3 ? 1 : -1) * (0.25f + 0.125f * (float)(c % 11));
    for (int i = 0; i < ROWS * K; i++) w.data[i] *= f[i % K];
    OK(qx_stats_scale_channels(w.s, w.v, f, K));
    check(&w, w.data);
    close_world(&w);
}

static void shifted(void **state)
{
    world w;
    float d[K];
    open_world(*state, &w);
    for (int c = 0; c < K; c++) d[c] = 0.5f * (float)(c % 7 - 3);
    for (int i = 0; i < ROWS * K; i++) w.data[i] += d[i % K];
    OK(qx_stats_shift_channels(w.s, w.v, d, K));
    check(&w, w.data);
    close_world(&w);
}

/* A threshold cuts both sides; what lies nearer to zero than it stays, and zero is always inside. */
static void both_sides(void **state)
{
    world w;
    float lo, hi;
    open_world(*state, &w);
    const qx_value_stats *v = qx_stats_get(w.s, w.v);
    assert_true(v->min < 0 && v->max > 0);
    OK(qx_stats_min_max(w.s, w.v, v->absmax, &lo, &hi));
    assert_true(lo == v->min && hi == v->max);
    const float near_zero = 0.5f * fminf(-v->min, v->max);
    OK(qx_stats_min_max(w.s, w.v, near_zero, &lo, &hi));
    assert_true(lo == -near_zero && hi == near_zero);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(scaled), TEST(shifted), TEST(both_sides)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
