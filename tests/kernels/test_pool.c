/* test_pool.c - sliding windows: each instruction set's loops against windows taken one by one, on shapes of every kind and
 * numbers of every kind. */
#include "kernels.h"

#include "kernels/loops/pool_leaf.h"

/* in, out, kernel, stride, dilation, begin, end of three axes; lanes. out is what fits, and more where ceil_mode adds windows. */
static const struct { const char *name; qx_windows w; int64_t lanes; } shapes[] = {
    {"3x3", {{1, 14, 14}, {1, 14, 14}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 1},
    {"3x3 stride 2", {{1, 9, 57}, {1, 5, 29}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 1},
    {"2x2 stride 2, a column left over", {{1, 6, 35}, {1, 3, 17}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}}, 1},
    {"ceil: the last window hangs over", {{1, 6, 35}, {1, 3, 18}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}}, 1},
    {"stride 3 and 7", {{1, 21, 70}, {1, 7, 10}, {1, 3, 7}, {1, 3, 7}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}}, 1},
    {"dilated", {{1, 11, 20}, {1, 7, 16}, {1, 3, 3}, {1, 1, 1}, {1, 3, 4}, {0, 1, 2}, {0, 1, 2}}, 1},
    {"dilated by a stride", {{1, 11, 40}, {1, 4, 12}, {1, 3, 3}, {1, 2, 3}, {1, 2, 5}, {0, 1, 4}, {0, 0, 1}}, 1},
    {"wider than the picture", {{1, 3, 4}, {1, 3, 4}, {1, 13, 13}, {1, 1, 1}, {1, 1, 1}, {0, 6, 6}, {0, 6, 6}}, 1},
    {"windows in the padding only", {{1, 2, 2}, {1, 6, 6}, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}, {0, 3, 3}, {0, 2, 2}}, 1},
    {"three axes", {{4, 5, 9}, {4, 3, 5}, {3, 3, 3}, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}}, 1},
    {"stride 3 along rows", {{1, 5, 150}, {1, 5, 50}, {1, 1, 3}, {1, 1, 3}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}}, 1},
    {"stride 4 along rows, 5 wide", {{1, 5, 150}, {1, 5, 37}, {1, 2, 5}, {1, 1, 4}, {1, 1, 1}, {0, 1, 1}, {0, 0, 0}}, 1},
    {"a line", {{1, 1, 100}, {1, 1, 25}, {1, 1, 4}, {1, 1, 4}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}}, 1},
    {"one pixel", {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}}, 1},
    {"blocked", {{1, 7, 7}, {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 16},
    {"blocked by 8, stride 2", {{1, 7, 9}, {1, 4, 5}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 8},
    {"channels last, dilated, three axes", {{3, 6, 6}, {2, 2, 4}, {2, 3, 3}, {1, 1, 1}, {1, 2, 1}, {0, 0, 0}, {0, 0, 0}}, 21},
    {"channels last, stride 2", {{1, 6, 6}, {1, 3, 3}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}}, 3},
};

/* One window: its maximum, NaN if it has one, or the sum of its columns' sums. */
static float window(const qx_windows *w, const float *x, int64_t lanes, int64_t lane, const int64_t o[3], bool means)
{
    float all = means ? 0.0f : -INFINITY;
    for (int64_t c = 0; c < w->kernel[2]; c++) {
        float column = means ? 0.0f : -INFINITY;
        for (int64_t a = 0; a < w->kernel[0]; a++)
            for (int64_t b = 0; b < w->kernel[1]; b++) {
                const int64_t k[3] = {a, b, c};
                int64_t at = 0;
                bool in = true;
                for (int d = 0; d < 3; d++) {
                    const int64_t p = o[d] * w->stride[d] - w->begin[d] + k[d] * w->dilation[d];
                    in = in && p >= 0 && p < w->in[d];
                    at = at * w->in[d] + p;
                }
                const float v = in ? x[at * lanes + lane] : 0.0f;
                if (in) column = means ? column + v : v != v || v > column ? v : column;
            }
        all = means ? all + column : column != column || column > all ? column : all;
    }
    return all;
}

/* Numbers of axis d that window o counts, by hand. */
static float counted(const qx_windows *w, int d, int64_t o, bool pad)
{
    float n = 0;
    for (int64_t k = 0; k < w->kernel[d]; k++) {
        const int64_t p = o * w->stride[d] - w->begin[d] + k * w->dilation[d];
        n += pad ? p < w->in[d] + w->end[d] : p >= 0 && p < w->in[d];
    }
    return n;
}

typedef struct run { const qx_windows *w; int64_t lanes; const float *x; float *cols; bool means, pad; } run;

static float *columns(const qx_windows *w, int64_t lanes, bool pad)
{
    float *cols = calloc((size_t)(w->out[2] * lanes), sizeof *cols);
    for (int64_t i = 0; i < w->out[2] * lanes; i++) cols[i] = counted(w, 2, i / lanes, pad);
    return cols;
}

/* In bands of `most` rows, into memory of exactly the size that was asked for. */
static float *pooled(qx_pool_leaf *leaf, const run *r, int64_t most)
{
    const qx_windows *w = r->w;
    const int64_t row = w->out[2] * r->lanes, all = w->out[0] * w->out[1] * row;
    float *y = malloc((size_t)all * sizeof *y), *scratch = malloc((size_t)qx_pool_scratch(w, r->lanes, most) * sizeof *scratch);
    for (int64_t d = 0; d < w->out[0]; d++)
        for (int64_t first = 0; first < w->out[1]; first += most) {
            const int64_t n = w->out[1] - first < most ? w->out[1] - first : most;
            const qx_pool_band b = {.lanes = r->lanes, .depth = d, .first = first, .n = n, .x = r->x, .cols = r->means ? r->cols : NULL,
                                    .count_pad = r->pad,
                                    .y = y + (d * w->out[1] + first) * row, .scratch = scratch};
            leaf(w, &b);
        }
    free(scratch);
    return y;
}

static void same(float a, float b, bool exact)
{
    if (isnan(b)) assert_true(isnan(a));
    else if (exact || isinf(b)) assert_true(a == b);
    else assert_true(fabsf(a - b) <= 1e-5f * fabsf(b) + 1e-6f);
}

static void compare(const run *r, const char *name, bool hard)
{
    static const int64_t bands[] = {1, 3, 1000};
    const qx_windows *w = r->w;
    float *first = NULL;
    const int64_t all = w->out[0] * w->out[1] * w->out[2] * r->lanes;
    for (int isa = 0; isa <= (int)qx_isa_best(); isa++)
        for (int k = 0; k < COUNT(bands); k++) {
            float *y = pooled(qx_pool_leaf_cpu((qx_isa)isa), r, bands[k] < w->out[1] ? bands[k] : w->out[1]);
            for (int64_t i = 0; i < all && !first; i++) {
                const int64_t p = i / r->lanes, o[3] = {p / w->out[2] / w->out[1], p / w->out[2] % w->out[1], p % w->out[2]};
                float want = window(w, r->x, r->lanes, i % r->lanes, o, r->means);
                if (r->means) want /= counted(w, 0, o[0], r->pad) * counted(w, 1, o[1], r->pad) * r->cols[i % (w->out[2] * r->lanes)];
                if (!hard || !r->means) same(y[i], want, !r->means);
            }
            if (first && memcmp(first, y, (size_t)all * sizeof *y) != 0)
                for (int64_t i = 0; i < all; i++)
                    if (!(isnan(first[i]) && isnan(y[i])) && memcmp(&first[i], &y[i], sizeof *y) != 0)
                        fail_msg("%s: isa %d, bands of %d: element %d", name, isa, (int)bands[k], (int)i);
            if (first) free(y);
            else first = y;
        }
    free(first);
}

/* hard: NaN, Inf, subnormals, ties, the ends of the range, signed zeros. */
static void each_shape(bool hard)
{
    uint32_t seed = 7;
    for (int s = 0; s < COUNT(shapes); s++)
        for (int offset = 0; offset < 4; offset++) {
            const qx_windows *w = &shapes[s].w;
            const int64_t n = w->in[0] * w->in[1] * w->in[2] * shapes[s].lanes;
            float *x = malloc((size_t)(n + offset) * sizeof *x);
            for (int64_t i = 0; i < n + offset; i++) x[i] = hard ? adversarial(&seed, 1) : rng_normal(&seed);
            for (int pad = 0; pad < 2; pad++) {
                run r = {w, shapes[s].lanes, x + offset, columns(w, shapes[s].lanes, pad), pad, pad};
                compare(&r, shapes[s].name, hard);
                r.means = true;
                compare(&r, shapes[s].name, hard);
                free(r.cols);
            }
            free(x);
        }
}

static void every_shape(void **state) { (void)state; each_shape(false); }
static void hard_numbers(void **state) { (void)state; each_shape(true); }

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_shape), cmocka_unit_test(hard_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
