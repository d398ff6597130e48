/* half_scale.c - see half_scale.h. Below 2^-14 float16 has even steps of 2^-24: a weight takes it where its usual scales have 10 bits and
 * more, so that those of much smaller blocks are still exact to a share of a step. */
#include "passes/place/half_scale.h"

#include <math.h>

#include "kernels/quant.h"
#include "onnx/weight/weight.h"
#include "passes/place/nodes.h"
#include "passes/place/scheme.h"

enum { ROWS = 64, AT_ONCE = 16, BLOCK = 32 };
static const float least = 0x1p-15f, most = 1000; /* of usual scales; float16 ends at 65504 */

qx_status qx_some_rows(qx_pass *p, const qx_plan_item *it, int64_t rows, qx_row_fn *fn, void *user)
{
    const qx_plan_weight *w = it->weight;
    const int64_t n = w->view.n, k = qx_view_k(&w->view), stride = n > rows ? n / (rows / AT_ONCE) : AT_ONCE;
    float *x;
    qx_status st = QX_OK;
    QX_TRY(qx_alloc_array(p->ctx, (size_t)(AT_ONCE * k), sizeof *x, (void **)&x));
    for (int64_t i = 0; i < n && st == QX_OK; i += stride) {
        const int64_t some = n - i < AT_ONCE ? n - i : AT_ONCE;
        st = qx_rows_read(p->ctx, w->tensor, &w->view, w->steps, i, some, x);
        for (int64_t r = 0; r < some && st == QX_OK; r++) fn(user, x + r * k, k);
    }
    qx_free(p->ctx, x);
    return st;
}

typedef struct largest { double squares; int64_t blocks; } largest;

static void add_row(void *user, const float *x, int64_t k)
{
    largest *l = user;
    for (int64_t i = 0; i < k; i += BLOCK, l->blocks++) {
        float amax = 0;
        for (int64_t j = i; j < k && j < i + BLOCK; j++) amax = fmaxf(amax, fabsf(x[j]));
        l->squares += (double)amax * (double)amax;
    }
}

static bool may_be_half(const qx_pass *p, const qx_plan_item *it)
{
    const qx_plan_weight *w = it->weight;
    return w && w->tensor->dtype == QX_DT_FLOAT && !it->lin->is_conv && !it->lin->mixture &&
        !qx_target_has(p->pipe->opt->target, QX_TARGET_CONSTANT_SCALES) && !((const qx_scheme *)p->state)->float_scales;
}

qx_status qx_half_scale_measure(qx_pass *p, const qx_plan_item *it)
{
    const qx_scheme *s = p->state;
    const bool blocks = s->weight.block > 0 || it->table || p->pipe->opt->target == QX_TARGET_ORT;
    largest l = {0, 0};
    if (!blocks || !may_be_half(p, it) || it->weight->block_amax > 0) return QX_OK;
    QX_TRY(qx_some_rows(p, it, ROWS, add_row, &l));
    it->weight->block_amax = l.blocks ? (float)sqrt(l.squares / (double)l.blocks) : 0;
    return QX_OK;
}

void qx_half_scale_settle(const qx_pass *p, const qx_plan_item *it)
{
    qx_qspec *q = &it->weight->spec;
    const qx_format f = {.codes = q->codes, .narrow = q->narrow};
    float lo, hi;
    if (!may_be_half(p, it) || q->scale != QX_DT_FLOAT || q->block <= 0 || q->given_rows > 1 || !qx_format_range(&f, &lo, &hi)) return;
    const float usual = it->weight->block_amax / (q->zero_point ? (hi - lo) / 2 : hi);
    if (usual >= least && usual <= most) q->scale = QX_DT_FLOAT16;
}

qx_status qx_half_scale_cast(const qx_plan_weight *w, qx_value *stored, qx_value **out)
{
    qx_node *n;
    *out = stored;
    if (w->tensor->dtype != QX_DT_FLOAT || stored->type.dtype != QX_DT_FLOAT16) return QX_OK;
    const qx_new_node cast = {"Cast", {stored}, 1, &stored->type, QX_DT_FLOAT, stored->name, "Cast"};
    QX_TRY(qx_node_put(w->value->graph, qx_place_behind(w->value), &cast, &n));
    *out = n->out[0];
    return qx_attr_set_int(n, "to", QX_DT_FLOAT);
}
