/* fuse_match.c - see fuse_match.h. */
#include "runtime/fuse/fuse_match.h"

/* A fused activation stands for a chain that may read its input more than once; other fused steps are nothing that a pattern names. */
static bool made(const void *user, const qx_value *v, qx_made *out)
{
    const qx_fuser *f = user;
    const qx_rstep *s = f->def[v->id];
    const bool act = s && s->fn == qx_cpu_act;
    if (!s || s->ref_attrs || (!act && (s->fused || *s->node->domain))) return false;
    *out = (qx_made){.op = act ? "Act" : s->node->op_type, .node = act ? NULL : s->node, .in = s->in_value, .n_in = s->n_in,
                     .reads = act ? ((const qx_act_params *)s->fused)->reads : 1};
    return true;
}

static bool number(const void *user, const qx_value *v, double *out) { return qx_fuse_scalar(user, v, out); }

static bool vanishes(const void *user, const qx_value *v)
{
    const qx_fuser *f = user;
    const qx_vinfo *info = &f->x->info[v->id];
    if (info->keep || info->watched || v->graph != f->p->graph) return false;
    for (const qx_use *u = v->uses; u; u = u->next)
        if (u->node->graph != v->graph) return false;
    return true;
}

bool qx_fuse_match(const qx_fuser *f, const qx_rstep *s, const char *pattern, qx_match *m)
{
    const qx_match_graph g = {f, made, number, vanishes};
    return s->n_out && s->out_value[0] && qx_match_value(&g, s->out_value[0], pattern, m);
}
