/* keep.c - packed weights outlive a plan: when other values are watched or wanted the plan is made anew, and products of the same
 * weight and bias find what was packed for the last one, which took reading the file and a second for a model of 500 MB. What no
 * step of the new plan takes waits for the next, until the executor ends. */
#include <string.h>

#include "runtime/fuse/fuse.h"
#include "runtime/plan.h"

struct qx_kept { const qx_value *w, *bias; bool nk; void *state; void (*drop)(qx_ctx *ctx, void *state); };

static bool is_nk(const qx_rstep *s) { return ((const qx_linear_params *)s->fused)->nk; }
static const qx_value *input_of(const qx_rstep *s, uint32_t i) { return i < s->n_in ? s->in_value[i] : NULL; }

/* Products alone: their state is made of weight and bias, whatever is fused behind them. */
static bool is_product(const qx_exec *x, const qx_rstep *s)
{
    return s->fn == qx_cpu_linear && !x->device && !s->streams && !s->ref_attrs && input_of(s, QX_LINEAR_W) &&
        input_of(s, QX_LINEAR_W)->init;
}

static void keep(qx_exec *x)
{
    for (uint32_t i = 0; x->main && i < x->main->n_steps; i++) {
        qx_rstep *s = &x->main->steps[i];
        if (!s->state || !is_product(x, s)) continue;
        if (qx_grow(x->ctx, (void **)&x->kept, x->n_kept, &x->cap_kept, sizeof *x->kept) != QX_OK) { /* then it is packed again */
            qx_ctx_clear_error(x->ctx);
            return;
        }
        x->kept[x->n_kept++] = (qx_kept){input_of(s, QX_LINEAR_W), input_of(s, QX_LINEAR_BIAS), is_nk(s), s->state, s->drop};
        s->state = NULL;
    }
}

void qx_plan_renew(qx_exec *x)
{
    keep(x);
    qx_plan_free(x);
}

void qx_take_packed(qx_exec *x)
{
    for (uint32_t i = 0; i < x->main->n_steps; i++) {
        qx_rstep *s = &x->main->steps[i];
        if (!is_product(x, s)) continue;
        for (int64_t k = 0; k < x->n_kept; k++) {
            const qx_kept *p = &x->kept[k];
            if (p->w != input_of(s, QX_LINEAR_W) || p->bias != input_of(s, QX_LINEAR_BIAS) || p->nk != is_nk(s)) continue;
            s->state = p->state;
            s->drop = p->drop;
            x->kept[k] = x->kept[--x->n_kept];
            break;
        }
    }
}

void qx_drop_packed(qx_exec *x)
{
    for (int64_t k = 0; k < x->n_kept; k++) {
        if (x->kept[k].drop) x->kept[k].drop(x->ctx, x->kept[k].state);
        qx_free(x->ctx, x->kept[k].state);
    }
    qx_free(x->ctx, x->kept);
    x->kept = NULL;
    x->n_kept = x->cap_kept = 0;
}
