/* fuse_rows.c - Gather of rows of a large float table (an embedding): a run looks at a few rows, which are read from the file each time, so that the
 * table takes no memory. */
#include "onnx/weight.h"
#include "runtime/fuse.h"

enum { LARGE = 4 << 20 }; /* bytes: smaller tables are kept */

qx_status qx_fuse_rows(qx_fuser *f, qx_rstep *s)
{
    const qx_node *n = qx_fuse_is(s, QX_OP_Gather);
    const qx_weight *w = n ? qx_fuse_const(n->in[0]) : NULL;
    if (!w || f->x->device || w->job || w->dtype != QX_DT_FLOAT || w->rank < 2 || w->bytes < LARGE || qx_attr_int(n, "axis", 0) != 0) return QX_OK;
    qx_rows_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    p->table = w;
    const qx_value *in[1] = {n->in[1]};
    return qx_fuse_set(f, s, qx_cpu_rows_of, p, in, 1, n->out[0]);
}
