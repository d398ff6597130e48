/* expr.c - canonical polynomials over dimension names (see expr.h).
 *
 * A term is a coefficient and a sorted list of atoms (repeated for powers). Terms are kept in graded lexicographic order, which
 * is what exact polynomial division needs. Numbers of terms and degree are capped, so hostile dims cost bounded time. */
#include "onnx/infer/expr.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { MAX_TERMS = 48, MAX_DEGREE = 12, MAX_PARSE_DEPTH = 40, MAX_TEXT = 400 };

#define MAX_COEF (INT64_C(1) << 61) /* far from overflow in every step that follows */

typedef enum atom_kind { ATOM_NAME, ATOM_DIV, ATOM_MIN, ATOM_MAX } atom_kind;
typedef struct atom {
    atom_kind kind;
    const char *text;      /* interned; atoms are compared by it */
    const qx_expr *a, *b;  /* operands of DIV, MIN, MAX */
} atom;

typedef struct term { int64_t c; int n; const atom **atoms; } term;
struct qx_expr { const char *text; int n; term *terms; }; /* 0 terms: zero */

struct qx_exprs {
    qx_arena *arena;
    qx_strings *names;
    qx_map *by_text, *atoms, *fixed;
    bool oom;
};

/* A polynomial under construction, not interned. */
typedef struct poly { int n; bool bad; term t[MAX_TERMS]; } poly;

qx_status qx_exprs_new(qx_ctx *ctx, qx_strings *names, qx_exprs **out)
{
    qx_arena *arena;
    QX_TRY(qx_arena_new(ctx, &arena));
    qx_exprs *x = qx_arena_alloc(arena, sizeof *x);
    if (x) *x = (qx_exprs){.arena = arena, .names = names};
    if (!x || qx_map_new(ctx, &x->by_text) != QX_OK || qx_map_new(ctx, &x->atoms) != QX_OK || qx_map_new(ctx, &x->fixed) != QX_OK) {
        if (x) qx_exprs_free(x);
        else qx_arena_free(arena);
        return QX_E_NOMEM;
    }
    *out = x;
    return QX_OK;
}

void qx_exprs_free(qx_exprs *x)
{
    if (!x) return;
    if (x->by_text) qx_map_free(x->by_text);
    if (x->atoms) qx_map_free(x->atoms);
    if (x->fixed) qx_map_free(x->fixed);
    qx_arena_free(x->arena);
}

bool qx_exprs_out_of_memory(const qx_exprs *x) { return x->oom; }
const char *qx_expr_text(const qx_expr *e) { return e->text; }

static void *grab(qx_exprs *x, size_t n)
{
    void *p = qx_arena_alloc(x->arena, n ? n : 1);
    if (!p) x->oom = true;
    return p;
}

/* ---- terms -------------------------------------------------------------------------------------------------------- */

/* Before (negative) when a stands before b: higher degree first, then by names. 0: same atoms. */
static int order(const term *a, const term *b)
{
    if (a->n != b->n) return b->n - a->n;
    for (int i = 0; i < a->n; i++) {
        if (a->atoms[i] == b->atoms[i]) continue;
        return strcmp(a->atoms[i]->text, b->atoms[i]->text);
    }
    return 0;
}

static void poly_add_term(poly *p, term t)
{
    int i = 0;
    if (t.c > MAX_COEF || t.c < -MAX_COEF) p->bad = true;
    while (i < p->n && order(&p->t[i], &t) < 0) i++;
    if (i < p->n && order(&p->t[i], &t) == 0) {
        if (!qx_add_i64(p->t[i].c, t.c, &p->t[i].c) || p->t[i].c > MAX_COEF || p->t[i].c < -MAX_COEF) p->bad = true;
        if (p->t[i].c) return;
        memmove(&p->t[i], &p->t[i + 1], (size_t)(--p->n - i) * sizeof t);
        return;
    }
    if (!t.c) return;
    if (p->n == MAX_TERMS) {
        p->bad = true;
        return;
    }
    memmove(&p->t[i + 1], &p->t[i], (size_t)(p->n++ - i) * sizeof t);
    p->t[i] = t;
}

static void poly_add(poly *p, const qx_expr *e, int64_t factor)
{
    for (int i = 0; i < e->n; i++) {
        term t = e->terms[i];
        if (!qx_mul_i64(t.c, factor, &t.c)) p->bad = true;
        poly_add_term(p, t);
    }
}

static void mul_terms(qx_exprs *x, const term *a, const term *b, term *out)
{
    out->n = a->n + b->n;
    out->atoms = out->n > MAX_DEGREE ? NULL : grab(x, (size_t)out->n * sizeof *out->atoms);
    if (!qx_mul_i64(a->c, b->c, &out->c)) out->atoms = NULL;
    if (!out->atoms) return;
    for (int i = 0, k = 0, o = 0; o < out->n; o++) {
        bool left = k == b->n || (i < a->n && strcmp(a->atoms[i]->text, b->atoms[k]->text) <= 0);
        out->atoms[o] = left ? a->atoms[i++] : b->atoms[k++];
    }
}

/* a / b when b's coefficient and atoms divide a's. */
static bool div_terms(qx_exprs *x, const term *a, const term *b, term *out)
{
    if (a->n < b->n || a->c % b->c != 0) return false;
    *out = (term){.c = a->c / b->c, .n = a->n - b->n, .atoms = grab(x, (size_t)a->n * sizeof *out->atoms)};
    if (!out->atoms) return false;
    int k = 0, o = 0;
    for (int i = 0; i < a->n; i++) {
        if (k < b->n && a->atoms[i] == b->atoms[k]) k++;
        else if (o < out->n) out->atoms[o++] = a->atoms[i];
        else return false;
    }
    return k == b->n;
}

/* ---- text and interning ------------------------------------------------------------------------------------------- */

/* Text of at most MAX_TEXT bytes; what would be longer is not kept. */
typedef struct line { char text[MAX_TEXT + 1]; size_t n; bool over; } line;

static void put(line *l, const char *text)
{
    const size_t n = strlen(text);
    l->over = l->over || n > MAX_TEXT - l->n;
    if (l->over) return;
    memcpy(l->text + l->n, text, n + 1);
    l->n += n;
}

static void put_factor(line *l, const atom *a)
{
    if (a->kind == ATOM_DIV) put(l, "(");
    put(l, a->text);
    if (a->kind == ATOM_DIV) put(l, ")");
}

static void put_size(line *l, uint64_t size)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)size);
    put(l, digits);
}

static void put_term(line *l, const term *t, bool first)
{
    uint64_t size = t->c < 0 ? 0 - (uint64_t)t->c : (uint64_t)t->c;
    if (t->c < 0) put(l, "-");
    else if (!first) put(l, "+");
    if (t->n == 0 || size != 1) put_size(l, size);
    if (t->n == 1 && size == 1) {
        put(l, t->atoms[0]->text);
        return;
    }
    for (int i = 0; i < t->n; i++) {
        if (i || size != 1) put(l, "*");
        put_factor(l, t->atoms[i]);
    }
}

/* The first positive term leads, so that "seq-1" and not "-1+seq". */
static void put_poly(line *l, const poly *p)
{
    int lead = 0;
    while (lead < p->n && p->t[lead].c < 0) lead++;
    if (lead < p->n) put_term(l, &p->t[lead], true);
    for (int i = 0; i < p->n; i++) {
        if (i != lead) put_term(l, &p->t[i], lead == p->n && i == 0);
    }
    if (p->n == 0) put(l, "0");
}

static const char *intern(qx_exprs *x, const char *text)
{
    const char *interned = qx_intern(x->names, text);
    if (!interned) x->oom = true;
    return interned;
}

static const qx_expr *intern_poly(qx_exprs *x, const poly *p)
{
    line l = {.n = 0};
    if (p->bad || x->oom) return NULL;
    put_poly(&l, p);
    if (l.over) return NULL;
    const qx_expr *known = qx_map_get(x->by_text, l.text);
    const char *text = known ? NULL : intern(x, l.text);
    if (!text) return known;
    qx_expr *e = grab(x, sizeof *e);
    term *terms = grab(x, (size_t)p->n * sizeof *terms);
    if (!e || !terms) return NULL;
    if (p->n) memcpy(terms, p->t, (size_t)p->n * sizeof *terms);
    *e = (qx_expr){.text = text, .n = p->n, .terms = terms};
    if (qx_map_put(x->by_text, text, e) != QX_OK) x->oom = true;
    return e;
}

static const qx_expr *of_atom(qx_exprs *x, const atom *a)
{
    poly p = {.n = 1};
    p.t[0] = (term){.c = 1, .n = 1, .atoms = grab(x, sizeof a)};
    if (!p.t[0].atoms) return NULL;
    p.t[0].atoms[0] = a;
    return intern_poly(x, &p);
}

static const qx_expr *make_atom(qx_exprs *x, atom_kind kind, const char *text, const qx_expr *a, const qx_expr *b)
{
    const atom *known = qx_map_get(x->atoms, text);
    if (known) return of_atom(x, known);
    if (strlen(text) > MAX_TEXT) return NULL;
    atom *made = grab(x, sizeof *made);
    const char *interned = intern(x, text);
    if (!made || !interned) return NULL;
    *made = (atom){.kind = kind, .text = interned, .a = a, .b = b};
    if (qx_map_put(x->atoms, interned, made) != QX_OK) x->oom = true;
    return of_atom(x, made);
}

static const qx_expr *make_name(qx_exprs *x, const char *name)
{
    const int64_t *fixed = qx_map_get(x->fixed, name);
    return fixed ? qx_expr_int(x, *fixed) : make_atom(x, ATOM_NAME, name, NULL, NULL);
}

qx_status qx_exprs_fix(qx_exprs *x, const char *name, int64_t value)
{
    int64_t *v = grab(x, sizeof *v);
    if (!v) return QX_E_NOMEM;
    *v = value;
    return qx_map_put(x->fixed, name, v);
}

/* ---- arithmetic ---------------------------------------------------------------------------------------------------- */

const qx_expr *qx_expr_int(qx_exprs *x, int64_t v)
{
    poly p = {.n = v != 0};
    const atom *none[1];
    p.t[0] = (term){.c = v, .n = 0, .atoms = none};
    if (v && !(p.t[0].atoms = grab(x, 1))) return NULL;
    return intern_poly(x, &p);
}

bool qx_expr_is_int(const qx_expr *e, int64_t *v)
{
    if (e->n > 1 || (e->n == 1 && e->terms[0].n)) return false;
    *v = e->n ? e->terms[0].c : 0;
    return true;
}

bool qx_expr_is_name(const qx_expr *e)
{
    return e->n == 1 && e->terms[0].c == 1 && e->terms[0].n == 1 && e->terms[0].atoms[0]->kind == ATOM_NAME;
}

static const qx_expr *combine(qx_exprs *x, const qx_expr *a, const qx_expr *b, int64_t factor)
{
    poly p = {0};
    if (!a || !b) return NULL;
    poly_add(&p, a, 1);
    poly_add(&p, b, factor);
    return intern_poly(x, &p);
}

const qx_expr *qx_expr_add(qx_exprs *x, const qx_expr *a, const qx_expr *b) { return combine(x, a, b, 1); }
const qx_expr *qx_expr_sub(qx_exprs *x, const qx_expr *a, const qx_expr *b) { return combine(x, a, b, -1); }

const qx_expr *qx_expr_mul(qx_exprs *x, const qx_expr *a, const qx_expr *b)
{
    poly p = {0};
    if (!a || !b) return NULL;
    for (int i = 0; i < a->n; i++) {
        for (int k = 0; k < b->n; k++) {
            term t;
            mul_terms(x, &a->terms[i], &b->terms[k], &t);
            if (!t.atoms) return NULL;
            poly_add_term(&p, t);
        }
    }
    return intern_poly(x, &p);
}

const qx_expr *qx_expr_exact_div(qx_exprs *x, const qx_expr *a, const qx_expr *b)
{
    if (!a || !b || b->n == 0) return NULL;
    poly quotient = {0};
    for (int steps = 0; a && a->n; steps++) {
        term q;
        if (steps == MAX_TERMS || !div_terms(x, &a->terms[0], &b->terms[0], &q)) return NULL;
        poly_add_term(&quotient, q);
        poly one = {.n = 1, .t = {q}};
        const qx_expr *step = intern_poly(x, &one);
        a = qx_expr_sub(x, a, qx_expr_mul(x, step, b));
    }
    return a ? intern_poly(x, &quotient) : NULL;
}

static int64_t floor_div(int64_t a, int64_t b) /* b > 0 */
{
    return a / b - (a % b < 0);
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t t = a % b;
        a = b;
        b = t;
    }
    return a < 0 ? -a : a;
}

static const qx_expr *div_atom(qx_exprs *x, const qx_expr *a, const qx_expr *b)
{
    bool plain_a = qx_expr_is_name(a);
    int64_t v;
    bool plain_b = qx_expr_is_name(b) || (qx_expr_is_int(b, &v) && v >= 0);
    const char *text = qx_arena_printf(x->arena, plain_a ? "%s/%s%s%s" : "(%s)/%s%s%s", a->text, plain_b ? "" : "(", b->text,
                                       plain_b ? "" : ")");
    if (!text) x->oom = true;
    return text ? make_atom(x, ATOM_DIV, text, a, b) : NULL;
}

/* floor((floor(p / m) + k) / d) = floor((p + m k) / (m d)). */
static const qx_expr *div_of_div(qx_exprs *x, const qx_expr *a, int64_t d)
{
    if (a->n < 1 || a->n > 2 || (a->n == 2 && a->terms[1].n)) return NULL;
    const term *t = &a->terms[0];
    int64_t m, k = a->n == 2 ? a->terms[1].c : 0, md, mk;
    if (t->c != 1 || t->n != 1 || t->atoms[0]->kind != ATOM_DIV || !qx_expr_is_int(t->atoms[0]->b, &m)) return NULL;
    if (!qx_mul_i64(m, d, &md) || !qx_mul_i64(m, k, &mk)) return NULL;
    return qx_expr_floordiv(x, qx_expr_add(x, t->atoms[0]->a, qx_expr_int(x, mk)), qx_expr_int(x, md));
}

/* Division by a positive number: what is divisible comes out, the rest is reduced by the common divisor. */
static const qx_expr *div_by_int(qx_exprs *x, const qx_expr *a, int64_t d)
{
    poly whole = {0}, rest = {0};
    int64_t common = d;
    for (int i = 0; i < a->n; i++) {
        term w = a->terms[i], r = w;
        w.c = floor_div(w.c, d);
        r.c -= w.c * d;
        if (r.n && r.c && w.c < 0) { /* keep -x/2 readable: -(x) stays in the rest */
            r.c = a->terms[i].c;
            w.c = 0;
        }
        poly_add_term(&whole, w);
        poly_add_term(&rest, r);
        if (r.n) common = gcd(common, r.c);
    }
    if (rest.n == 0 || (rest.n == 1 && rest.t[0].n == 0)) return intern_poly(x, &whole); /* a constant in [0, d) */
    for (int i = 0; i < rest.n; i++) rest.t[i].c = floor_div(rest.t[i].c, common);
    if (rest.t[rest.n - 1].n == 0 && rest.t[rest.n - 1].c == 0) rest.n--;
    const qx_expr *r = intern_poly(x, &rest), *w = intern_poly(x, &whole);
    if (!r || !w) return NULL;
    if (d == common) return qx_expr_add(x, w, r);
    const qx_expr *nested = div_of_div(x, r, d / common);
    return qx_expr_add(x, w, nested ? nested : div_atom(x, r, qx_expr_int(x, d / common)));
}

const qx_expr *qx_expr_floordiv(qx_exprs *x, const qx_expr *a, const qx_expr *b)
{
    int64_t d;
    if (!a || !b || b->n == 0) return NULL;
    if (qx_expr_is_int(b, &d)) {
        if (d == INT64_MIN) return NULL;
        return d > 0 ? div_by_int(x, a, d) : div_by_int(x, qx_expr_sub(x, qx_expr_int(x, 0), a), -d);
    }
    const qx_expr *exact = qx_expr_exact_div(x, a, b);
    if (exact || x->oom) return exact;
    if (a->n == 0) return a;
    return div_atom(x, a, b);
}

/* ---- bounds -------------------------------------------------------------------------------------------------------- */

static bool atom_nonneg(const atom *a)
{
    switch (a->kind) {
    case ATOM_NAME: return true;
    case ATOM_MAX: return qx_expr_nonneg(a->a) || qx_expr_nonneg(a->b);
    default: return qx_expr_nonneg(a->a) && qx_expr_nonneg(a->b);
    }
}

bool qx_expr_nonneg(const qx_expr *e)
{
    for (int i = 0; i < e->n; i++) {
        if (e->terms[i].c < 0) return false;
        for (int k = 0; k < e->terms[i].n; k++) {
            if (!atom_nonneg(e->terms[i].atoms[k])) return false;
        }
    }
    return true;
}

static const atom *lone_atom(const qx_expr *e)
{
    return e->n == 1 && e->terms[0].c == 1 && e->terms[0].n == 1 ? e->terms[0].atoms[0] : NULL;
}

/* Is `part` one of the operands of the min or max that e is? */
static bool absorbs(const qx_expr *e, atom_kind kind, const qx_expr *part)
{
    const atom *a = lone_atom(e);
    return a && a->kind == kind && (a->a == part || a->b == part);
}

static const qx_expr *extreme(qx_exprs *x, const qx_expr *a, const qx_expr *b, bool want_max)
{
    if (!a || !b) return NULL;
    if (a == b) return a;
    const qx_expr *d = qx_expr_sub(x, a, b), *minus = qx_expr_sub(x, b, a);
    if (d && qx_expr_nonneg(d)) return want_max ? a : b;
    if (minus && qx_expr_nonneg(minus)) return want_max ? b : a;
    atom_kind same = want_max ? ATOM_MAX : ATOM_MIN, other = want_max ? ATOM_MIN : ATOM_MAX;
    if (absorbs(a, same, b) || absorbs(b, other, a)) return a; /* max(max(p,q),q); max(p,min(p,q)) */
    if (absorbs(b, same, a) || absorbs(a, other, b)) return b;
    if (strcmp(a->text, b->text) > 0) {
        const qx_expr *t = a;
        a = b;
        b = t;
    }
    const char *text = qx_arena_printf(x->arena, "%s(%s,%s)", want_max ? "max" : "min", a->text, b->text);
    if (!text) x->oom = true;
    return text ? make_atom(x, same, text, a, b) : NULL;
}

const qx_expr *qx_expr_min(qx_exprs *x, const qx_expr *a, const qx_expr *b) { return extreme(x, a, b, false); }
const qx_expr *qx_expr_max(qx_exprs *x, const qx_expr *a, const qx_expr *b) { return extreme(x, a, b, true); }

/* ---- parsing ------------------------------------------------------------------------------------------------------- */

typedef struct parser { qx_exprs *x; const char *p; int depth; } parser;

static const qx_expr *parse_sum(parser *s);

static void skip_space(parser *s)
{
    while (*s->p == ' ') s->p++;
}

static bool eat(parser *s, char c)
{
    skip_space(s);
    if (*s->p != c) return false;
    s->p++;
    return true;
}

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.' || c == ':' || c == '#' || (unsigned char)c >= 0x80;
}

static const qx_expr *parse_call(parser *s, const char *name, size_t n)
{
    static const char *const calls[] = {"floor", "ceil", "ceiling", "min", "Min", "max", "Max"};
    size_t i = 0;
    while (i < sizeof calls / sizeof *calls && (strlen(calls[i]) != n || strncmp(calls[i], name, n) != 0)) i++;
    if (i == sizeof calls / sizeof *calls) return NULL;
    const qx_expr *a = parse_sum(s);
    for (; i >= 3 && a && eat(s, ',');) {
        const qx_expr *b = parse_sum(s);
        a = i < 5 ? qx_expr_min(s->x, a, b) : qx_expr_max(s->x, a, b);
    }
    if (i == 1 || i == 2) return NULL; /* a ceiling of a quotient that was floored already: not representable, so the text is a name */
    return eat(s, ')') ? a : NULL;
}

static const qx_expr *parse_primary(parser *s)
{
    skip_space(s);
    if (eat(s, '(')) {
        const qx_expr *e = parse_sum(s);
        return eat(s, ')') ? e : NULL;
    }
    const char *from = s->p;
    while (is_name_char(*s->p)) s->p++;
    size_t n = (size_t)(s->p - from);
    if (n == 0 || n > 200) return NULL;
    if (strspn(from, "0123456789") >= n) return n < 18 ? qx_expr_int(s->x, strtoll(from, NULL, 10)) : NULL;
    if (isdigit((unsigned char)*from)) return NULL;
    if (eat(s, '(')) return parse_call(s, from, n);
    char name[201];
    memcpy(name, from, n);
    name[n] = '\0';
    return make_name(s->x, name);
}

static const qx_expr *parse_product(parser *s)
{
    const qx_expr *e = parse_primary(s);
    for (;;) {
        if (!e) return NULL;
        if (eat(s, '*')) {
            if (*s->p == '*') return NULL;
            e = qx_expr_mul(s->x, e, parse_primary(s));
        } else if (eat(s, '/')) {
            if (*s->p == '/') s->p++;
            e = qx_expr_floordiv(s->x, e, parse_primary(s));
        } else {
            return e;
        }
    }
}

static const qx_expr *parse_sum(parser *s)
{
    if (++s->depth > MAX_PARSE_DEPTH) return NULL;
    const qx_expr *e = eat(s, '-') ? qx_expr_sub(s->x, qx_expr_int(s->x, 0), parse_product(s)) : parse_product(s);
    while (e) {
        if (eat(s, '+')) e = qx_expr_add(s->x, e, parse_product(s));
        else if (eat(s, '-')) e = qx_expr_sub(s->x, e, parse_product(s));
        else break;
    }
    s->depth--;
    return e;
}

const qx_expr *qx_expr_parse(qx_exprs *x, const char *text)
{
    const qx_expr *known = qx_map_get(x->by_text, text);
    if (known && !qx_map_count(x->fixed)) return known;
    parser s = {.x = x, .p = text};
    const qx_expr *e = strlen(text) <= MAX_TEXT ? parse_sum(&s) : NULL;
    skip_space(&s);
    if (e && *s.p == '\0') return e;
    return make_name(x, text);
}
