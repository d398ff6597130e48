/* second_level.c - see second_level.h. Runtimes that fuse q, k and v, or gate and up, into one product have one second-level
 * scale for it (TensorRT-LLM, vLLM take the largest and rescale the others, which moves block scales off their grid). Chosen
 * together, nothing is left to rescale. */
#include "passes/place/second_level.h"

#include <math.h>

#include "base/thread.h"
#include "kernels/quant.h"
#include "passes/search/solve_step.h"

enum { STRIP = 512 };

typedef struct levels { qx_pass *p; int64_t least, *members; float *amax, *top; } levels; /* members, top [groups], amax [items] */

static bool wants(const qx_pass *p, const qx_plan_item *it)
{
    return it->pass == p && it->weight && it->lin->group_id >= 0 && qx_spec_two_level(&it->weight->spec);
}

static qx_status item_amax(void *user, int64_t i)
{
    levels *l = user;
    qx_ctx *ctx = l->p->ctx;
    const qx_plan_item *it = &l->p->pipe->plan->items[i];
    const int64_t k = it->weight ? qx_view_k(&it->weight->view) : 0;
    float *x;
    if (!wants(l->p, it) || l->members[it->lin->group_id] < l->least) return QX_OK;
    QX_TRY(qx_alloc_raw(ctx, (size_t)(STRIP * k) * sizeof *x, (void **)&x));
    qx_status st = QX_OK;
    for (int64_t first = 0, n = it->weight->view.n; first < n && st == QX_OK; first += STRIP) {
        const int64_t rows = n - first < STRIP ? n - first : STRIP;
        st = qx_rows_read(ctx, it->weight->tensor, &it->weight->view, qx_steps_before_solver(it->weight), first, rows, x);
        if (st == QX_OK) qx_amax(&(qx_grid){rows, k, rows, k}, QX_DT_FLOAT, x, &l->amax[i], NULL);
    }
    qx_free(ctx, x);
    return st;
}

static void agree(const levels *l)
{
    const qx_plan *plan = l->p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (wants(l->p, &plan->items[i])) l->top[plan->items[i].lin->group_id] = fmaxf(l->top[plan->items[i].lin->group_id], l->amax[i]);
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (wants(l->p, &plan->items[i])) plan->items[i].weight->spec.amax = l->top[plan->items[i].lin->group_id];
}

qx_status qx_second_level_share(qx_pass *p, int64_t least)
{
    const qx_plan *plan = p->pipe->plan;
    const int64_t n = plan->linears.count;
    const size_t groups = (size_t)(plan->linears.n_groups > n ? plan->linears.n_groups : n) + 1;
    levels l = {.p = p, .least = least};
    qx_status st;
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, groups, sizeof *l.members, (void **)&l.members));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, groups, sizeof *l.top, (void **)&l.top));
    QX_TRY_GOTO(st, qx_alloc_array(p->ctx, (size_t)n + 1, sizeof *l.amax, (void **)&l.amax));
    for (int64_t i = 0; i < n; i++)
        if (wants(p, &plan->items[i])) l.members[plan->items[i].lin->group_id]++;
    QX_TRY_GOTO(st, qx_parallel(p->ctx, n, item_amax, &l));
    agree(&l);
done:
    qx_free(p->ctx, l.members);
    qx_free(p->ctx, l.amax);
    qx_free(p->ctx, l.top);
    return st;
}
