/* parse.c - pipeline text to passes: "smoothquant(alpha=auto),int8(act=entropy)". "gptq?,int4": the pass is left out when there
 * are no samples.
 *
 * Names, options, types and bounds come from the passes' tables; the order rules from their flags. Every message says what to
 * write instead. The expanded text (every option written out) is what an output file's metadata carries. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "passes/place/plan.h"

enum { MAX_TEXT = 1 << 16, MAX_PASSES = 32 };

typedef struct parser { qx_ctx *ctx; qx_pipeline *pipe; const char *at; } parser;

static const qx_preset presets[] = {
#define QX_PRESET(name, text, with_text, brief) {name, text, with_text, brief},
#include "passes/presets.def"
#undef QX_PRESET
};

const qx_preset *qx_presets(int *count)
{
    *count = (int)(sizeof presets / sizeof *presets);
    return presets;
}

const qx_preset *qx_preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (strcmp(presets[i].name, name) == 0) return &presets[i];
    return NULL;
}

static void skip_space(parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n') p->at++;
}

static size_t word_length(const char *s) { return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"); }

static qx_status list_names(qx_ctx *ctx, const char *name, size_t len)
{
    qx_buf b = QX_BUF_INIT(ctx);
    int n;
    char hint[80];
    qx_nearest near = qx_nearest_to(name, len);
    const qx_passdef *const *all = qx_passes(&n);
    for (int i = 0; i < n; i++) {
        if (all[i]->flags & QX_PASS_INTERNAL) continue;
        qx_nearest_offer(&near, all[i]->name, strlen(all[i]->name));
        qx_buf_printf(&b, "%s%s", b.len ? ", " : "", all[i]->name);
    }
    qx_status st = qx_fail(ctx, QX_E_USAGE, "there is no pass '%.*s'%s there are: %.2000s", (int)(len < 64 ? len : 64), name,
                           near.best ? qx_nearest_text(&near, "", hint, sizeof hint) : ";", b.data ? b.data : "");
    qx_buf_free(&b);
    return st;
}

static const qx_passdef *find_pass(const char *name, size_t len)
{
    int n;
    const qx_passdef *const *all = qx_passes(&n);
    for (int i = 0; i < n; i++)
        if (strlen(all[i]->name) == len && memcmp(all[i]->name, name, len) == 0) return all[i];
    return NULL;
}

static int option_count(const qx_passdef *d)
{
    int n = 0;
    while (d->options && d->options[n].name) n++;
    return n;
}

/* True when `value` is one of "a|b|c". */
static bool is_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);
    for (const char *c = choices; c && *c;) {
        size_t n = strcspn(c, "|");
        if (n == len && memcmp(c, value, n) == 0) return true;
        c += n + (c[n] == '|');
    }
    return false;
}

static qx_status check_number(qx_ctx *ctx, const qx_passdef *d, const qx_option *o, double v)
{
    if (v >= o->min && v <= o->max) return QX_OK;
    QX_FAIL(ctx, QX_E_USAGE, "%s(%s=%.10g): not in [%.10g, %.10g]", d->name, o->name, v, o->min, o->max);
}

/* Checks a value and gives its canonical text. An option that is no choice may name words in `choices` too ("auto"). */
static qx_status check_value(parser *p, const qx_passdef *d, const qx_option *o, const char *value, const char **out)
{
    int64_t i;
    double f;
    *out = value;
    if (o->type == QX_OPT_TEXT || (o->choices && is_choice(o->choices, value))) return QX_OK;
    switch (o->type) {
    case QX_OPT_BOOL:
        *out = is_choice("true|1|yes|on", value) ? "true" : "false";
        if (is_choice("true|1|yes|on|false|0|no|off", value)) return QX_OK;
        QX_FAIL(p->ctx, QX_E_USAGE, "%s(%s=%s): write true or false", d->name, o->name, value);
    case QX_OPT_INT:
        if (qx_parse_i64(p->ctx, value, &i) != QX_OK) return qx_note(p->ctx, QX_E_USAGE, "%s(%s=%s)", d->name, o->name, value);
        return check_number(p->ctx, d, o, (double)i);
    case QX_OPT_FLOAT:
        if (qx_parse_f64(p->ctx, value, &f) != QX_OK) return qx_note(p->ctx, QX_E_USAGE, "%s(%s=%s)", d->name, o->name, value);
        return check_number(p->ctx, d, o, f);
    default: QX_FAIL(p->ctx, QX_E_USAGE, "%s(%s=%s): write one of %s", d->name, o->name, value, o->choices);
    }
}

static qx_status unknown_option(parser *p, const qx_passdef *d, const char *name)
{
    qx_buf b = QX_BUF_INIT(p->ctx);
    char hint[80];
    qx_nearest near = qx_nearest_to(name, strlen(name));
    for (int i = 0; i < option_count(d); i++) {
        qx_nearest_offer(&near, d->options[i].name, strlen(d->options[i].name));
        qx_buf_printf(&b, "%s%s", i ? ", " : "", d->options[i].name);
    }
    qx_status st = qx_fail(p->ctx, QX_E_USAGE, "pass %s has no option '%s'%s it has: %.2000s", d->name, name,
                           near.best ? qx_nearest_text(&near, "", hint, sizeof hint) : ";", b.data ? b.data : "none");
    qx_buf_free(&b);
    return st;
}

/* Option that a bare word means: a bool of that name, or the choice option that lists it. */
static int bare_option(const qx_passdef *d, const char *word)
{
    for (int i = 0; i < option_count(d); i++) {
        const qx_option *o = &d->options[i];
        if (o->type == QX_OPT_BOOL && strcmp(o->name, word) == 0) return i;
        if (o->type == QX_OPT_CHOICE && is_choice(o->choices, word)) return i;
    }
    return -1;
}

static int named_option(const qx_passdef *d, const char *name)
{
    for (int i = 0; i < option_count(d); i++)
        if (strcmp(d->options[i].name, name) == 0) return i;
    return -1;
}

static qx_status set_option(parser *p, qx_pass *pass, const char *name, const char *value)
{
    const qx_passdef *d = pass->def;
    int i = value ? named_option(d, name) : bare_option(d, name);
    if (i < 0) return unknown_option(p, d, name);
    if (pass->values[i]) QX_FAIL(p->ctx, QX_E_USAGE, "%s(%s): given twice", d->name, d->options[i].name);
    const char *text = value ? value : d->options[i].type == QX_OPT_BOOL ? "true" : name;
    return check_value(p, d, &d->options[i], text, &pass->values[i]);
}

static qx_status copy_until(parser *p, const char *stops, const char **out)
{
    size_t n = strcspn(p->at, stops);
    const char *start = p->at;
    p->at += n;
    while (n && (start[n - 1] == ' ' || start[n - 1] == '\t')) n--;
    *out = qx_arena_strndup(p->pipe->arena, start, n);
    return *out ? QX_OK : QX_E_NOMEM;
}

/* A value ends at a ',' or ')' that no parenthesis of its own holds: formats=int4(block=128,scale=amax)+int8. */
static qx_status copy_value(parser *p, const char **out)
{
    int depth = 0;
    const char *e = p->at, *start = e;
    for (; *e && (depth || (*e != ',' && *e != ')')); e++) depth += (*e == '(') - (*e == ')');
    p->at = e;
    while (e > start && (e[-1] == ' ' || e[-1] == '\t')) e--;
    *out = qx_arena_strndup(p->pipe->arena, start, (size_t)(e - start));
    return *out ? QX_OK : QX_E_NOMEM;
}

/* Whether what follows a ',' is no option but one more of the list before it, "formats=int4,int8,float": an option has a '=' outside
 * parentheses, or is a bare word that means one. */
static bool goes_on(const parser *p, const qx_passdef *d)
{
    char word[32];
    const size_t n = strcspn(p->at, "=,() \t");
    if (!n || n >= sizeof word) return false;
    memcpy(word, p->at, n);
    word[n] = 0;
    const char end = p->at[n + strspn(p->at + n, " \t")];
    return end != '=' && bare_option(d, word) < 0;
}

/* A text whose default has a '+' is a list: more of it, joined by that. */
static qx_status parse_list(parser *p, qx_pass *pass, int option)
{
    while (*p->at == ',') {
        const char *comma = p->at++, *more;
        skip_space(p);
        if (!goes_on(p, pass->def)) { p->at = comma; return QX_OK; }
        QX_TRY(copy_value(p, &more));
        pass->values[option] = qx_arena_printf(p->pipe->arena, "%s+%s", pass->values[option], more);
        if (!pass->values[option]) return QX_E_NOMEM;
    }
    return QX_OK;
}

/* name=value or a bare word, up to ',' or ')'. */
static qx_status parse_option(parser *p, qx_pass *pass)
{
    const char *name, *value = NULL;
    skip_space(p);
    QX_TRY(copy_until(p, "=,)", &name));
    if (*p->at == '=') {
        p->at++;
        skip_space(p);
        QX_TRY(copy_value(p, &value));
    }
    if (!*name) QX_FAIL(p->ctx, QX_E_USAGE, "pass %s: an option without a name", pass->def->name);
    QX_TRY(set_option(p, pass, name, value));
    const int i = named_option(pass->def, name);
    const qx_option *o = value && i >= 0 ? &pass->def->options[i] : NULL;
    return o && o->type == QX_OPT_TEXT && strchr(o->def, '+') ? parse_list(p, pass, i) : QX_OK;
}

static qx_status parse_options(parser *p, qx_pass *pass)
{
    if (*p->at != '(') return QX_OK;
    p->at++;
    skip_space(p);
    if (*p->at == ')') { p->at++; return QX_OK; }
    for (;;) {
        QX_TRY(parse_option(p, pass));
        if (*p->at == ')') { p->at++; return QX_OK; }
        if (*p->at != ',') QX_FAIL(p->ctx, QX_E_USAGE, "pass %s: ')' is missing", pass->def->name);
        p->at++;
    }
}

static void fill_defaults(qx_pass *pass)
{
    for (int i = 0; i < option_count(pass->def); i++)
        if (!pass->values[i]) pass->values[i] = pass->def->options[i].def;
}

/* The '?' of a pass that is left out when there are no samples. */
static qx_status parse_mark(parser *p, qx_pass *pass)
{
    if (*p->at != '?') return QX_OK;
    if (!(pass->def->flags & QX_PASS_CALIBRATED) || (pass->def->flags & QX_PASS_FORMAT))
        QX_FAIL(p->ctx, QX_E_USAGE, "%s?: '?' leaves a pass out when there are no samples; %s is %s", pass->def->name, pass->def->name,
                pass->def->flags & QX_PASS_FORMAT ? "a format" : "one that needs none");
    pass->optional = true;
    p->at++;
    skip_space(p);
    return QX_OK;
}

static qx_status parse_pass(parser *p, qx_pass **out)
{
    skip_space(p);
    size_t len = word_length(p->at);
    if (!len) QX_FAIL(p->ctx, QX_E_USAGE, "a pass name is expected at '%.40s'", p->at);
    const qx_passdef *d = find_pass(p->at, len);
    if (!d) return list_names(p->ctx, p->at, len);
    p->at += len;
    qx_pass *pass = qx_arena_alloc(p->pipe->arena, sizeof *pass);
    if (!pass) return QX_E_NOMEM;
    *pass = (qx_pass){.def = d, .ctx = p->ctx, .pipe = p->pipe};
    pass->values = qx_arena_array(p->pipe->arena, (size_t)option_count(d) + 1, sizeof *pass->values);
    if (!pass->values) return QX_E_NOMEM;
    skip_space(p);
    QX_TRY(parse_mark(p, pass));
    QX_TRY(parse_options(p, pass));
    fill_defaults(pass);
    skip_space(p);
    *out = pass;
    return QX_OK;
}

/* Writes name(option=value,...) with every option. */
static qx_status expand(const qx_pass *pass, qx_buf *b)
{
    QX_TRY(qx_buf_printf(b, "%s%s%s", b->len ? "," : "", pass->def->name, pass->optional ? "?" : ""));
    int n = option_count(pass->def);
    for (int i = 0; i < n; i++)
        QX_TRY(qx_buf_printf(b, "%s%s=%s%s", i ? "," : "(", pass->def->options[i].name, pass->values[i], i + 1 == n ? ")" : ""));
    return QX_OK;
}

bool qx_pass_same(const qx_pass *a, const qx_pass *b)
{
    if (a->def != b->def || a->optional != b->optional) return false;
    for (int i = 0; i < option_count(a->def); i++)
        if (strcmp(a->values[i], b->values[i]) != 0) return false;
    return true;
}

static qx_status check_pair(qx_ctx *ctx, const qx_passdef *a, const qx_passdef *b)
{
    if (a == b) QX_FAIL(ctx, QX_E_USAGE, "pass %s is given twice", a->name);
    const bool a_none = !strcmp(a->name, "none");
    if (a_none || !strcmp(b->name, "none"))
        QX_FAIL(ctx, QX_E_USAGE, "none changes nothing: leave it out beside %s", a_none ? b->name : a->name);
    if (b->rewrite && !(b->flags & QX_PASS_REORDERS) && (a->flags & QX_PASS_WEIGHTS) && !a->rewrite)
        QX_FAIL(ctx, QX_E_USAGE, "%s changes the model before calibration, so it cannot follow %s: write \"%s,%s,...\"", b->name,
                a->name, b->name, a->name);
    if ((a->flags & QX_PASS_FORMAT) && (b->flags & QX_PASS_FORMAT) && ((a->flags | b->flags) & QX_PASS_MIXES))
        QX_FAIL(ctx, QX_E_USAGE, "%s and %s: a mix chooses among formats by itself; leave the other out and name it in formats=, "
                                 "as in \"mixed(size=70%%,formats=int4+int8+float)\"", a->name, b->name);
    if ((a->flags & QX_PASS_FORMAT) && (b->flags & QX_PASS_FORMAT))
        QX_FAIL(ctx, QX_E_USAGE, "%s and %s are both formats and a node can have one; write one of them, and --set \"PATTERN=%s\" "
                                 "for some nodes", a->name, b->name, b->name);
    if (b->order && b->order < a->order)
        QX_FAIL(ctx, QX_E_USAGE, "%s changes weights that %s has pruned or rounded already: write \"%s,%s\"", b->name, a->name, b->name,
                a->name);
    if ((a->flags & QX_PASS_FORMAT) && (b->flags & QX_PASS_WEIGHTS))
        QX_FAIL(ctx, QX_E_USAGE, "%s changes float weights and must come before the format: write \"%s,%s\"", b->name, b->name, a->name);
    return QX_OK;
}

static qx_status check_order(const qx_pipeline *pipe)
{
    bool format = false;
    for (int i = 0; i < pipe->n_passes; i++) {
        format |= (pipe->passes[i]->def->flags & QX_PASS_FORMAT) != 0;
        for (int j = i + 1; j < pipe->n_passes; j++) QX_TRY(check_pair(pipe->ctx, pipe->passes[i]->def, pipe->passes[j]->def));
    }
    for (int i = 0; i < pipe->n_passes; i++) {
        const qx_passdef *d = pipe->passes[i]->def;
        if ((d->flags & QX_PASS_NEEDS_FORMAT) && !format)
            QX_FAIL(pipe->ctx, QX_E_USAGE,
                    "%s prepares weights for a format and does nothing by itself: write \"%s,%s\" or another format behind it", d->name,
                    d->name, d->flags & QX_PASS_FOR_FLOAT_X ? "int4" : "int8");
    }
    return QX_OK;
}

static qx_status write_text(qx_pipeline *pipe)
{
    qx_buf b = QX_BUF_INIT(pipe->ctx);
    qx_status st = QX_OK;
    for (int i = 0; i < pipe->n_passes && st == QX_OK; i++) st = expand(pipe->passes[i], &b);
    if (st == QX_OK && !(pipe->text = qx_arena_strdup(pipe->arena, b.data ? b.data : ""))) st = QX_E_NOMEM;
    qx_buf_free(&b);
    return st;
}

qx_status qx_pipeline_settle(qx_pipeline *p, bool have_samples)
{
    int kept = 0;
    for (int i = 0; i < p->n_passes; i++) {
        qx_pass *pass = p->passes[i];
        if (pass->optional && !have_samples) continue;
        pass->optional = false;
        p->passes[kept++] = pass;
    }
    p->n_passes = kept;
    return write_text(p);
}

static qx_status parse_all(parser *p)
{
    qx_pipeline *pipe = p->pipe;
    for (;;) {
        if (pipe->n_passes == MAX_PASSES) QX_FAIL(p->ctx, QX_E_USAGE, "more than %d passes", MAX_PASSES);
        QX_TRY(parse_pass(p, &pipe->passes[pipe->n_passes]));
        pipe->n_passes++;
        if (!*p->at) return write_text(pipe);
        if (*p->at != ',')
            QX_FAIL(p->ctx, QX_E_USAGE, "',' is expected between passes at '%.40s'; options stand in brackets: %s(option=value)", p->at,
                    pipe->passes[pipe->n_passes - 1]->def->name);
        p->at++;
    }
}

static qx_status new_pipeline(qx_ctx *ctx, qx_pipeline **out)
{
    qx_arena *arena;
    QX_TRY(qx_arena_new(ctx, &arena));
    qx_pipeline *pipe = qx_arena_alloc(arena, sizeof *pipe);
    if (pipe) {
        *pipe = (qx_pipeline){.ctx = ctx, .arena = arena};
        pipe->passes = qx_arena_array(arena, MAX_PASSES, sizeof *pipe->passes);
    }
    if (!pipe || !pipe->passes) { qx_arena_free(arena); return QX_E_NOMEM; }
    *out = pipe;
    return QX_OK;
}

/* The passes of the text, in any order. */
static qx_status parse_text(qx_ctx *ctx, const char *text, qx_pipeline **out)
{
    *out = NULL;
    if (strnlen(text, MAX_TEXT) == MAX_TEXT) QX_FAIL(ctx, QX_E_USAGE, "pipeline text is longer than %d bytes", MAX_TEXT);
    const qx_preset *preset = find_pass(text, strlen(text)) ? NULL : qx_preset_find(text);
    qx_pipeline *pipe;
    QX_TRY(new_pipeline(ctx, &pipe));
    parser p = {ctx, pipe, preset ? preset->text : text};
    qx_status st = parse_all(&p);
    if (st != QX_OK) { qx_pipeline_free(pipe); return st; }
    *out = pipe;
    return QX_OK;
}

qx_status qx_pipeline_parse(qx_ctx *ctx, const char *text, qx_pipeline **out)
{
    QX_TRY(parse_text(ctx, text, out));
    qx_status st = check_order(*out);
    if (st == QX_OK) return QX_OK;
    qx_pipeline_free(*out);
    *out = NULL;
    return st;
}

const char *qx_pipeline_text(const qx_pipeline *p) { return p->text; }

qx_status qx_pipeline_set(qx_pipeline *pipe, const char *option, const char *value)
{
    parser p = {pipe->ctx, pipe, ""};
    bool found = false;
    for (int i = 0; i < pipe->n_passes; i++) {
        qx_pass *pass = pipe->passes[i];
        int k = named_option(pass->def, option);
        if (k < 0) continue;
        QX_TRY(check_value(&p, pass->def, &pass->def->options[k], value, &pass->values[k]));
        found = true;
    }
    if (!found) QX_FAIL(pipe->ctx, QX_E_USAGE, "no pass of '%.200s' has an option '%s'", pipe->text, option);
    return write_text(pipe);
}

static qx_status adopt(qx_pipeline *p, qx_pipeline *sub)
{
    const qx_status st = qx_arena_grow(p->arena, (void **)&p->subs, p->n_subs, &p->cap_subs, sizeof *p->subs);
    if (st != QX_OK) { qx_pipeline_free(sub); return st; }
    p->subs[p->n_subs++] = sub;
    return QX_OK;
}

qx_status qx_pipeline_parse_format(qx_pipeline *p, const char *text, qx_pass **out)
{
    qx_pipeline *sub;
    QX_TRY(parse_text(p->ctx, text, &sub));
    QX_TRY(adopt(p, sub));
    *out = sub->passes[0];
    const qx_passdef *d = (*out)->def;
    if (d->flags & QX_PASS_NEEDS_FORMAT)
        QX_FAIL(p->ctx, QX_E_USAGE, "%s prepares weights and is no format: write it into --passes, before the format", d->name);
    if (sub->n_passes != 1 || !(d->flags & QX_PASS_FORMAT) || (d->flags & QX_PASS_MIXES))
        QX_FAIL(p->ctx, QX_E_USAGE, "write one format (int8, fp8, int4, nvfp4, float ...)");
    (*out)->pipe = p;
    return QX_OK;
}

void qx_pipeline_free(qx_pipeline *p)
{
    if (!p) return;
    for (int i = 0; i < p->n_subs; i++) qx_pipeline_free(p->subs[i]);
    qx_arena_free(p->arena);
}
