/* disk.c - whether the output will fit where it goes: told before the samples are run, not hours later when it is written. */
#include "base/text.h"
#include "onnx/weight/weight.h"
#include "passes/job/job.h"
#include "passes/place/emit.h"

static qx_status add_stored(void *user, qx_graph *g)
{
    int64_t *bytes = user;
    for (uint32_t i = 0; i < g->n_inits; i++)
        if (g->inits[i]->init) *bytes += (int64_t)g->inits[i]->init->bytes;
    return QX_OK;
}

/* What the file takes at least. Half of what stays float: passes may still make it 16 bits wide. Nothing of weights whose format is
 * chosen by samples. */
static qx_status least_bytes(qx_pipeline *p, int64_t *out)
{
    int64_t floats = 0, codes = 0;
    QX_TRY(qx_model_each_graph(p->model, add_stored, &floats));
    for (int64_t i = 0; i < p->plan->linears.count; i++) {
        const qx_plan_item *it = &p->plan->items[i];
        int64_t bytes = 0;
        if (!it->pass || !it->weight || !it->weight->value->init || !qx_plan_first_reader(p->plan, i)) continue;
        if (it->weight->spec.codes) QX_TRY(qx_emit_bytes(p, it, &it->weight->spec, false, &bytes));
        codes += bytes;
        floats -= (int64_t)it->weight->tensor->bytes;
    }
    *out = codes + (floats > 0 ? floats / 2 : 0);
    return QX_OK;
}

qx_status qx_job_fits_disk(qx_pipeline *p)
{
    int64_t least;
    char a[32], b[32];
    if (!p->disk_room) return QX_OK;
    QX_TRY(least_bytes(p, &least));
    if (least < p->disk_room) return QX_OK;
    QX_FAIL(p->ctx, QX_E_IO, "the output takes %s or more, and %s are free where it goes; make room, or name another place (-o)",
            qx_format_bytes(least, a, sizeof a), qx_format_bytes(p->disk_room - 1, b, sizeof b));
}
