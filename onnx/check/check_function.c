/* check_function.c - local functions: one of each identity, no recursion (also not through the bodies of If, Loop and Scan), and no
 * chain of calls deeper than QX_CALL_CHAIN. The search keeps its own stack, so a deep chain costs none of ours. */
#include <string.h>

#include "base/text.h"
#include "onnx/check/check.h"

enum { QX_CALL_CHAIN = 100 };

typedef struct calls { uint32_t *to; int64_t n, cap; } calls; /* functions that one function calls */
typedef struct search {
    qx_checker *c;
    calls *calls;       /* by function */
    uint32_t *stack, top;
    uint32_t *next;     /* by function: its next call to follow */
    uint32_t *depth;    /* by function: longest chain that starts here, itself included */
    uint8_t *state;     /* 0 new, 1 on the stack, 2 done */
} search;

static qx_status note_call(void *user, qx_node *n)
{
    search *s = user;
    if (!n->callee) return QX_OK;
    const qx_graph *g = n->graph;
    while (g->parent) g = g->parent;
    if (!g->function) return QX_OK;
    calls *list = &s->calls[g->function->index];
    if (list->n && list->to[list->n - 1] == n->callee->index) return QX_OK;
    QX_TRY(qx_grow(s->c->ctx, (void **)&list->to, list->n, &list->cap, sizeof *list->to));
    list->to[list->n++] = n->callee->index;
    return QX_OK;
}

static const char *name_of(const search *s, uint32_t f)
{
    return s->c->m->functions[f]->name;
}

static void push(search *s, uint32_t f)
{
    s->state[f] = 1;
    s->depth[f] = 1;
    s->stack[s->top++] = f;
}

/* One step from the function on top: down into its next call, or done. */
static qx_status step(search *s)
{
    uint32_t f = s->stack[s->top - 1];
    if (s->next[f] == s->calls[f].n) {
        s->state[f] = 2;
        s->top--;
        return QX_OK;
    }
    uint32_t to = s->calls[f].to[s->next[f]];
    if (s->state[to] == 1)
        QX_REFUSE(s->c, "function '%s' calls itself%s%s", QX_SHOWN(name_of(s, to)), to == f ? "" : " by way of ",
                  to == f ? "" : QX_SHOWN(name_of(s, f)));
    if (s->state[to] == 0) {
        push(s, to);
        return QX_OK; /* comes back to this call when `to` is done */
    }
    if (s->depth[f] < s->depth[to] + 1) s->depth[f] = s->depth[to] + 1;
    if (s->depth[f] > QX_CALL_CHAIN)
        QX_REFUSE(s->c, "function '%s' starts a chain of more than %d calls", QX_SHOWN(name_of(s, f)), QX_CALL_CHAIN);
    s->next[f]++;
    return QX_OK;
}

static qx_status find_cycles(search *s)
{
    for (uint32_t i = 0; i < s->c->m->n_functions; i++) {
        if (s->state[i] == 0) push(s, i);
        while (s->top) QX_TRY(step(s));
    }
    return QX_OK;
}

static qx_status check_identities(qx_checker *c)
{
    for (uint32_t i = 0; i < c->m->n_functions; i++) {
        const qx_function *f = c->m->functions[i];
        if (!f->name[0]) QX_REFUSE(c, "function %u has no name", i);
        if (qx_model_function(c->m, f->domain, f->name, f->overload) != f)
            QX_REFUSE(c, "function '%s' of domain '%s' (overload '%s') is defined twice", QX_SHOWN(f->name), QX_SHOWN(f->domain),
                      QX_SHOWN(f->overload));
    }
    return QX_OK;
}

qx_status qx_check_functions(qx_checker *c)
{
    size_t n = c->m->n_functions;
    search s = {.c = c};
    qx_status st;
    if (n == 0) return QX_OK;
    QX_TRY(check_identities(c));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(c->ctx, n, &s.calls));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(c->ctx, n, &s.stack));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(c->ctx, n, &s.next));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(c->ctx, n, &s.depth));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(c->ctx, n, &s.state));
    QX_TRY_GOTO(st, qx_model_each_node(c->m, note_call, &s));
    QX_TRY_GOTO(st, find_cycles(&s));
done:
    for (size_t i = 0; s.calls && i < n; i++) qx_free(c->ctx, s.calls[i].to);
    qx_free(c->ctx, s.calls);
    qx_free(c->ctx, s.stack);
    qx_free(c->ctx, s.next);
    qx_free(c->ctx, s.depth);
    qx_free(c->ctx, s.state);
    return st;
}
