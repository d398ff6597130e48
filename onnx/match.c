/* match.c - see match.h. A recursive descent over the pattern's text and the graph at once. */
#include "onnx/match.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct matcher { const qx_match_graph *g; qx_match m; } matcher;

static const char *match(matcher *t, const char *p, const qx_value *v, bool outermost);

/* Past one expression of the pattern. Most values fail at the first operator of every choice, so this is where matching spends its time. */
static const char *skip(const char *p)
{
    for (int depth = 0; *p; p++)
        switch (*p) {
        case ',': case '|':
            if (!depth) return p;
            break;
        case '(': case '{': case '[': depth++; break;
        case ')': case '}':
            if (!depth) return p;
            depth--;
            break;
        case ']': depth--; break;
        default: break;
        }
    return p;
}

static const char *next_arg(const char *p) { return p + strspn(p, ", "); }

static bool is_near(double c, double want) { return fabs(c - want) <= 1e-3 * fabs(want); }

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

static const char *match_number(const matcher *t, const char *p, const qx_value *v)
{
    char *end;
    double c;
    const double want = strtod(p, &end);
    return t->g->number(t->g->user, v, &c) && is_near(c, want) ? end : NULL;
}

static const qx_attr *find_attr(const qx_node *n, const char *name, size_t len)
{
    for (uint32_t i = 0; n && i < n->n_attrs; i++)
        if (strlen(n->attrs[i].name) == len && memcmp(n->attrs[i].name, name, len) == 0) return &n->attrs[i];
    return NULL;
}

/* "a=1, b=2?]": behind the bracket. */
static const char *match_attrs(const qx_node *n, const char *p)
{
    while (*p && *p != ']') {
        char *end;
        const size_t len = strcspn(p, "=");
        const qx_attr *a = find_attr(n, p, len);
        const double want = strtod(p + len + 1, &end);
        const bool may_miss = *end == '?', has = a && !a->ref_name && (a->type == QX_ATTR_FLOAT || a->type == QX_ATTR_INT);
        if (has ? !is_near(a->type == QX_ATTR_INT ? (double)a->i : (double)a->f, want) : a || !may_miss) return NULL;
        p = next_arg(end + may_miss);
    }
    return *p ? p + 1 : NULL;
}

static const char *match_args(matcher *t, const char *p, const qx_value *const *in, uint32_t n)
{
    for (uint32_t i = 0; *p && *p != ')'; i++) {
        if (i >= n || !in[i] || !(p = match(t, p, in[i], false))) return NULL;
        p = next_arg(p);
    }
    return *p ? p + 1 : NULL;
}

static bool named(const qx_made *made, const char *name, size_t len) { return strlen(made->op) == len && memcmp(made->op, name, len) == 0; }

static const char *match_op(matcher *t, const char *p, const qx_value *v, bool outermost)
{
    qx_made made;
    const size_t len = strcspn(p, "([");
    if (!t->g->made(t->g->user, v, &made) || !named(&made, p, len) || (!outermost && !count_read(t, v, true))) return NULL;
    const char *args = p[len] == '[' ? match_attrs(made.node, p + len + 1) : p + len, *end;
    if (!args) return NULL;
    const qx_value *const *in = made.in;
    const bool swaps = made.n_in == 2 && len == 3 && (memcmp(p, "Add", len) == 0 || memcmp(p, "Mul", len) == 0);
    const qx_match before = t->m;
    if ((end = match_args(t, args + 1, in, made.n_in)))
        for (uint32_t r = 1; r < made.reads; r++) count_read(t, in[0], false);
    if (end || !swaps) return end;
    t->m = before;
    return match_args(t, args + 1, (const qx_value *const[]){in[1], in[0]}, 2);
}

static const char *match_choice(matcher *t, const char *p, const qx_value *v, bool outermost)
{
    const qx_match before = t->m;
    const char *choice = p + 1, *end;
    while (!match(t, choice, v, outermost)) {
        t->m = before;
        end = skip(choice);
        if (*end != '|') return NULL;
        choice = end + 1;
    }
    return skip(p);
}

static const char *match(matcher *t, const char *p, const qx_value *v, bool outermost)
{
    if (*p == '{') return match_choice(t, p, v, outermost);
    if (*p == '=') return match_number(t, p + 1, v);
    if (*p == '$') return t->g->number(t->g->user, v, &t->m.num[QX_LETTER(p[1])]) ? p + 2 : NULL;
    if (!islower((unsigned char)*p)) return match_op(t, p, v, outermost);
    if (!bind(t, *p, v)) return NULL;
    if (p[1] == ':') return match(t, p + 2, v, outermost);
    return count_read(t, v, false) ? p + 1 : NULL;
}

/* All readers of it are in the pattern, and nobody else asks for it. */
static bool vanishes(const matcher *t, const qx_inner *i)
{
    return (int64_t)i->v->n_uses == i->reads && !i->v->is_output && t->g->vanishes(t->g->user, i->v);
}

bool qx_match_value(const qx_match_graph *g, const qx_value *v, const char *pattern, qx_match *m)
{
    matcher t = {.g = g};
    if (!match(&t, pattern, v, true)) return false;
    for (int i = 0; i < t.m.n_inner; i++)
        if (!vanishes(&t, &t.m.inner[i])) return false;
    *m = t.m;
    return true;
}
