/* fuse_match.c - see fuse_match.h. A recursive descent over the pattern's text and the graph at once; depth is that of the pattern. */
#include "runtime/fuse/fuse_match.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct matcher { const qx_fuser *f; qx_match m; } matcher;

static const char *match(matcher *t, const char *p, const qx_value *v, bool outermost);

/* Past one expression of the pattern. */
static const char *skip(const char *p)
{
    for (int depth = 0; *p; p++) {
        if (depth == 0 && strchr(",)|}", *p)) return p;
        if (*p == '(' || *p == '{') depth++;
        if (*p == ')' || *p == '}') depth--;
    }
    return p;
}

static const char *next_arg(const char *p)
{
    while (*p == ',' || *p == ' ') p++;
    return p;
}

/* One more reader of v inside the pattern. False when there is no room. */
static bool count_read(matcher *t, const qx_value *v, bool is_new)
{
    for (int i = 0; i < t->m.n_inner; i++)
        if (t->m.inner[i].v == v) return t->m.inner[i].reads++, true;
    if (!is_new) return true; /* a value from outside */
    if (t->m.n_inner == QX_MATCH_INNER) return false;
    t->m.inner[t->m.n_inner++] = (qx_inner){v, 1};
    return true;
}

static bool bind(matcher *t, char letter, const qx_value *v)
{
    int i = QX_LETTER(letter);
    if (t->m.v[i] && t->m.v[i] != v) return false;
    t->m.v[i] = v;
    t->m.reads[i]++;
    return true;
}

static bool is_number(const matcher *t, const qx_value *v, double want)
{
    double c;
    return qx_fuse_scalar(t->f, v, &c) && fabs(c - want) <= 1e-3 * fabs(want);
}

static const char *match_args(matcher *t, const char *p, const qx_value *const *in, uint32_t n)
{
    for (uint32_t i = 0; *p && *p != ')'; i++) {
        if (i >= n || !in[i] || !(p = match(t, p, in[i], false))) return NULL;
        p = next_arg(p);
    }
    return *p ? p + 1 : NULL;
}

static bool is_op(const qx_rstep *s, const char *name, size_t len)
{
    if (len == 3 && memcmp(name, "Act", 3) == 0) return s->fn == qx_cpu_act;
    return !s->fused && !*s->node->domain && strlen(s->node->op_type) == len && memcmp(s->node->op_type, name, len) == 0;
}

/* A fused activation stands for a chain that may read its input more than once. */
static void count_chain(matcher *t, const qx_rstep *s)
{
    for (uint32_t r = 1; s->fn == qx_cpu_act && r < ((const qx_act_params *)s->fused)->reads; r++) count_read(t, s->in_value[0], false);
}

static const char *match_op(matcher *t, const char *p, const qx_value *v, bool outermost)
{
    const qx_rstep *s = t->f->def[v->id];
    size_t len = strcspn(p, "(");
    if (!s || s->ref_attrs || !is_op(s, p, len) || (!outermost && !count_read(t, v, true))) return NULL;
    const char *args = p + len + 1, *end;
    const qx_value *const *in = s->in_value;
    bool swaps = s->n_in == 2 && !s->fused && (s->node->op->id == QX_OP_Add || s->node->op->id == QX_OP_Mul);
    qx_match before = t->m;
    if ((end = match_args(t, args, in, s->n_in))) count_chain(t, s);
    if (end || !swaps) return end;
    t->m = before;
    return match_args(t, args, (const qx_value *const[]){in[1], in[0]}, 2);
}

static const char *match_choice(matcher *t, const char *p, const qx_value *v, bool outermost)
{
    qx_match before = t->m;
    const char *close = skip(p);
    while (*p != '}') {
        t->m = before;
        p++;
        if (match(t, p, v, outermost)) return close;
        p = skip(p);
    }
    return NULL;
}

static const char *match(matcher *t, const char *p, const qx_value *v, bool outermost)
{
    char *end;
    if (*p == '{') return match_choice(t, p, v, outermost);
    if (*p == '=') {
        double want = strtod(p + 1, &end);
        return is_number(t, v, want) ? end : NULL;
    }
    if (*p == '$') return qx_fuse_scalar(t->f, v, &t->m.num[QX_LETTER(p[1])]) ? p + 2 : NULL;
    if (!islower((unsigned char)*p)) return match_op(t, p, v, outermost);
    if (!bind(t, *p, v)) return NULL;
    if (p[1] == ':') return match(t, p + 2, v, outermost);
    return count_read(t, v, false) ? p + 1 : NULL;
}

/* All readers of v are in the pattern, and nobody else asks for it. */
static bool vanishes(const qx_fuser *f, const qx_inner *i)
{
    const qx_vinfo *info = &f->x->info[i->v->id];
    if ((int64_t)i->v->n_uses != i->reads || i->v->is_output || info->keep || info->watched || i->v->graph != f->p->graph) return false;
    for (const qx_use *u = i->v->uses; u; u = u->next)
        if (u->node->graph != i->v->graph) return false;
    return true;
}

bool qx_fuse_match(const qx_fuser *f, const qx_rstep *s, const char *pattern, qx_match *m)
{
    matcher t = {.f = f};
    if (!s->n_out || !s->out_value[0] || !match(&t, pattern, s->out_value[0], true)) return false;
    for (int i = 0; i < t.m.n_inner; i++)
        if (!vanishes(f, &t.m.inner[i])) return false;
    *m = t.m;
    return true;
}
