/* mask_step.c - 2:4 masks without compensation as a step of a weight: magnitude and Wanda (see solve_step.h). */
#include "passes/search/solve_step.h"

#include "kernels/solve/solve.h"
#include "passes/search/solve_order.h"

typedef struct masker { const float *norm; int64_t spatial; } masker;

static qx_status mask_rows(qx_ctx *ctx, const qx_step *s, int64_t first, int64_t rows, int64_t k, float *x, void *scratch)
{
    const masker *m = s->arg;
    float *y = scratch;
    uint8_t *mask = (uint8_t *)(y + k);
    (void)ctx;
    (void)first;
    for (int64_t r = 0; r < rows; r++) {
        qx_to_solver_order(m->spatial, 1, k, x + r * k, y);
        qx_mask_2_4(y, 1, k, m->norm, mask);
        for (int64_t j = 0; j < k; j++)
            if (!mask[j]) y[j] = 0;
        qx_from_solver_order(m->spatial, 1, k, y, x + r * k);
    }
    return QX_OK;
}

static size_t mask_scratch(const qx_step *s, int64_t k)
{
    (void)s;
    return (size_t)k * (sizeof(float) + 1) + 64;
}

static const qx_stepdef def_mask = {.name = "mask 2:4", .rows = mask_rows, .scratch_bytes = mask_scratch};

qx_status qx_mask_step(struct qx_pipeline *pipe, qx_plan_weight *w, const float *norm, int64_t spatial)
{
    masker *m = qx_arena_alloc(pipe->model->arena, sizeof *m);
    if (!m) return QX_E_NOMEM;
    *m = (masker){norm, spatial};
    return qx_plan_step(pipe, w, &def_mask, m);
}
