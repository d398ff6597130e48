/* settings.c - job options by name to qx_quantize_options: one table for the command line and the public API. */
#include <stddef.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "passes/job/record.h"

/* What an option's text becomes, and where in struct job it goes. */
typedef enum target_type { T_TEXT, T_FLAG, T_LIST, T_PATTERNS, T_I64, T_U64, T_F64, T_DIM, T_SET, T_TARGET, T_DEVICE, T_SIZE,
                           T_PASSES } target_type;

enum {
#define QX_JOB_OPTION(name, letter, kind, meta, def, help, type, offset, min, max, text) +1
    QX_JOB_OPTIONS = 0
#include "passes/job/job_options.def"
#undef QX_JOB_OPTION
};

struct qx_job_args {
    qx_ctx *ctx;
    qx_arena *arena;
    qx_quantize_options opt;
    const char **lists[4]; int n_lists[4]; int64_t cap_lists[4]; /* calib, include, exclude, verify */
    qx_dim_fix *dims; int64_t cap_dims;
    qx_setting *settings; int64_t cap_settings;
    qx_record record;         /* of --like */
    bool given[QX_JOB_OPTIONS]; /* by row: was set */
    const char *with_text;      /* of the preset asked for: the passes if there is a --text */
    bool gram;
};
enum { L_CALIB, L_INCLUDE, L_EXCLUDE, L_VERIFY };

typedef struct row { qx_argdef arg; target_type type; size_t offset; double min, max; const char *text; } row;
#define OPT(field) offsetof(qx_quantize_options, field)

const qx_argdef qx_job_argdefs[] = {
#define QX_JOB_OPTION(name, letter, kind, meta, def, help, type, offset, min, max, text) {name, letter, kind, meta, def, help},
#include "passes/job/job_options.def"
#undef QX_JOB_OPTION
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static const row rows[] = {
#define QX_JOB_OPTION(name, letter, kind, meta, def, help, type, offset, min, max, text) {{name, letter, kind, meta, def, help}, type, offset, min, max, text},
#include "passes/job/job_options.def"
#undef QX_JOB_OPTION
};

qx_status qx_job_args_new(qx_ctx *ctx, qx_job_args **out)
{
    qx_arena *arena;
    QX_TRY(qx_arena_new(ctx, &arena));
    qx_job_args *a = qx_arena_alloc(arena, sizeof *a);
    if (!a) { qx_arena_free(arena); return QX_E_NOMEM; }
    a->ctx = ctx;
    a->arena = arena;
    *out = a;
    return QX_OK;
}

void qx_job_args_free(qx_job_args *a)
{
    if (a) qx_arena_free(a->arena);
}

static qx_status add_text(qx_job_args *a, size_t list, const char *value)
{
    QX_TRY(qx_arena_grow(a->arena, (void **)&a->lists[list], a->n_lists[list], &a->cap_lists[list], sizeof(char *)));
    a->lists[list][a->n_lists[list]++] = value;
    return QX_OK;
}

static qx_status add_dim(qx_job_args *a, const char *value)
{
    const char *eq = strchr(value, '=');
    qx_dim_fix d = {0};
    if (!eq || eq == value) QX_FAIL(a->ctx, QX_E_USAGE, "--dim '%s': write name=value", value);
    d.name = qx_arena_strndup(a->arena, value, (size_t)(eq - value));
    if (!d.name) return QX_E_NOMEM;
    if (qx_parse_i64(a->ctx, eq + 1, &d.value) != QX_OK) return qx_note(a->ctx, QX_E_USAGE, "--dim '%s'", value);
    if (d.value < 1) QX_FAIL(a->ctx, QX_E_USAGE, "--dim '%s': a dimension is at least 1", value);
    QX_TRY(qx_arena_grow(a->arena, (void **)&a->dims, a->opt.n_dims, &a->cap_dims, sizeof d));
    a->dims[a->opt.n_dims++] = d;
    return QX_OK;
}

/* "PATTERN=FORMAT": the last '=' outside parentheses separates, so that patterns may hold '=' and formats may hold options. */
static const char *setting_separator(const char *value)
{
    const char *paren = strchr(value, '('), *last = NULL;
    for (const char *s = value; *s && (!paren || s < paren); s++)
        if (*s == '=') last = s;
    return last;
}

static qx_status add_setting(qx_job_args *a, const char *value)
{
    const char *eq = setting_separator(value);
    if (!eq || eq == value || !eq[1]) QX_FAIL(a->ctx, QX_E_USAGE, "--set '%s': write PATTERN=FORMAT, as in --set \"lm_head*=int8\"", value);
    qx_setting s = {qx_arena_strndup(a->arena, value, (size_t)(eq - value)), eq + 1};
    if (!s.pattern) return QX_E_NOMEM;
    QX_TRY(qx_arena_grow(a->arena, (void **)&a->settings, a->opt.n_settings, &a->cap_settings, sizeof s));
    a->settings[a->opt.n_settings++] = s;
    return QX_OK;
}

static qx_status add_one(qx_job_args *a, const row *r, const char *value)
{
    return r->type == T_SET ? add_setting(a, value) : add_text(a, r->offset, value);
}

/* One value a line; empty lines and those that start with '#' say nothing. Values stay in the arena: patterns point into them. */
static qx_status add_lines(qx_job_args *a, const row *r, const char *path, char *text)
{
    int64_t number = 1;
    for (char *line = text; *line; number++) {
        const size_t n = strcspn(line, "\n"), blank = strspn(line, " \t\r");
        char *next = line + n + (line[n] == '\n'), *end = line + n;
        while (end > line && strchr(" \t\r", end[-1])) end--;
        if (blank < n && line[blank] != '#' && end > line + blank) {
            const char *value = qx_arena_strndup(a->arena, line + blank, (size_t)(end - line) - blank);
            if (!value) return QX_E_NOMEM;
            const qx_status st = add_one(a, r, value);
            if (st != QX_OK) return qx_note(a->ctx, st, "'%s', line %lld", path, (long long)number);
        }
        line = next;
    }
    return QX_OK;
}

/* "@FILE" stands for the lines of FILE. */
static qx_status add_value(qx_job_args *a, const row *r, const char *value)
{
    enum { MOST = 4 << 20 };
    char *text;
    size_t len;
    if (value[0] != '@') return add_one(a, r, value);
    const qx_status read = qx_file_slurp(a->ctx, value + 1, MOST, &text, &len);
    if (read != QX_OK) return qx_note(a->ctx, read, "--%s %s", r->arg.name, value);
    const qx_status st = strlen(text) == len ? add_lines(a, r, value + 1, text)
        : qx_fail(a->ctx, QX_E_FORMAT, "--%s %s: a NUL byte at %zu: not a text file", r->arg.name, value, strlen(text));
    qx_free(a->ctx, text);
    return st;
}

static qx_status no_preset(qx_job_args *a, const char *value)
{
    int n;
    char hint[80];
    const qx_preset *presets = qx_presets(&n);
    qx_buf all = QX_BUF_INIT(a->ctx);
    qx_nearest near = qx_nearest_to(value, strlen(value));
    for (int i = 0; i < n; i++) {
        qx_nearest_offer(&near, presets[i].name, strlen(presets[i].name));
        qx_buf_printf(&all, "%s%s", i ? ", " : "", presets[i].name);
    }
    qx_status st = qx_fail(a->ctx, QX_E_USAGE, "--preset: there is no preset '%s'%s there are: %s", value,
                           near.best ? qx_nearest_text(&near, "", hint, sizeof hint) : ";", all.data ? all.data : "?");
    qx_buf_free(&all);
    return st;
}

/* --passes gives the text, --preset the name of one, and --fp8 is the preset that its row names. */
static qx_status set_passes(qx_job_args *a, const row *r, const char *value)
{
    const char *name = r->text && *r->text ? r->text : value;
    const qx_preset *preset = r->text ? qx_preset_find(name) : NULL;
    if (r->text && !preset) return no_preset(a, name);
    const char *text = preset ? preset->text : value;
    if (a->opt.passes && strcmp(a->opt.passes, text) != 0)
        QX_FAIL(a->ctx, QX_E_USAGE, "two formats are asked for, '%s' and '%s': give one, and --set \"PATTERN=FORMAT\" for some nodes",
                a->opt.passes, text);
    a->opt.passes = text;
    if (preset) a->with_text = preset->with_text;
    return QX_OK;
}

static qx_status set_number(qx_job_args *a, const row *r, const char *value, void *field)
{
    int64_t i = 0;
    double f = 0;
    qx_status st = r->type == T_F64 ? qx_parse_f64(a->ctx, value, &f) : qx_parse_i64(a->ctx, value, &i);
    if (st != QX_OK) return qx_note(a->ctx, QX_E_USAGE, "--%s", r->arg.name);
    if (r->type != T_F64) f = (double)i;
    if (r->min < r->max && (f < r->min || f > r->max))
        QX_FAIL(a->ctx, QX_E_USAGE, "--%s: %s is not in [%.10g, %.10g]", r->arg.name, value, r->min, r->max);
    if (r->type == T_U64 && i < 0) QX_FAIL(a->ctx, QX_E_USAGE, "--%s: %s is negative", r->arg.name, value);
    if (r->type == T_F64) { *(double *)field = f; a->opt.has_min_sqnr = true; }
    else *(int64_t *)field = i; /* seed is uint64_t: the same bits */
    return QX_OK;
}

static qx_status set_size(qx_job_args *a, const row *r, const char *value, void *field)
{
    int64_t bytes = 0;
    if (qx_parse_size(a->ctx, value, &bytes) != QX_OK) return qx_note(a->ctx, QX_E_USAGE, "--%s", r->arg.name);
    *(size_t *)field = (size_t)bytes;
    return QX_OK;
}

static qx_status set_row(qx_job_args *a, const row *r, const char *value)
{
    char *field = (char *)&a->opt + r->offset;
    switch (r->type) {
    case T_TEXT: *(const char **)(void *)field = value; return QX_OK;
    case T_LIST: return add_text(a, r->offset, value);
    case T_PATTERNS: case T_SET: return add_value(a, r, value);
    case T_DIM: return add_dim(a, value);
    case T_PASSES: return r->arg.kind == QX_ARG_FLAG && strcmp(value, "0") == 0 ? QX_OK : set_passes(a, r, value);
    case T_TARGET: return qx_target_parse(a->ctx, value, &a->opt.target);
    case T_DEVICE: return qx_exec_set_device(a->ctx, value, &a->opt.exec) == QX_OK ? QX_OK : qx_note(a->ctx, QX_E_USAGE, "--device");
    case T_SIZE: return set_size(a, r, value, field);
    case T_FLAG: *(bool *)field = strcmp(value, "1") == 0; return QX_OK;
    default: return set_number(a, r, value, field);
    }
}

qx_status qx_job_args_set(qx_job_args *a, const char *name, const char *value)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        if (strcmp(r->arg.name, name) != 0) continue;
        bool flag = r->arg.kind == QX_ARG_FLAG;
        if (!value && !flag) QX_FAIL(a->ctx, QX_E_USAGE, "option '%s' needs a value (%s)", name, r->arg.meta);
        if (flag && value && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
            QX_FAIL(a->ctx, QX_E_USAGE, "option '%s' is a flag: write 1 or 0, not '%s'", name, value);
        const char *copy = qx_arena_strdup(a->arena, value ? value : "1");
        a->given[i] = true;
        return copy ? set_row(a, r, copy) : QX_E_NOMEM;
    }
    QX_FAIL(a->ctx, QX_E_USAGE, "there is no option '%s'", name);
}

/* "int4(block=32,scale=amax),int8" with '+' for the commas outside parentheses. */
static char *plus_separated(qx_arena *arena, const char *formats)
{
    char *text = qx_arena_strdup(arena, formats);
    int depth = 0;
    for (char *s = text; s && *s; s++) {
        depth += (*s == '(') - (*s == ')');
        if (*s == ',' && depth == 0) *s = '+';
    }
    return text;
}

/* --target-size, --target-sqnr and --formats are short for a last pass "mixed(...)", behind what --int4 does to weights of few bits:
 * at the same size a third less KL on micro-llama (docs/passes/mixed.md). */
static qx_status add_mixed(qx_job_args *a)
{
    qx_quantize_options *o = &a->opt;
    if (!o->target_size && !o->target_sqnr) {
        if (o->formats) QX_FAIL(a->ctx, QX_E_USAGE, "--formats: to choose from for --target-size or --target-sqnr, and neither is given");
        return QX_OK;
    }
    if (o->target_size && o->target_sqnr) QX_FAIL(a->ctx, QX_E_USAGE, "--target-size and --target-sqnr are two goals: give one");
    const char *formats = o->formats ? plus_separated(a->arena, o->formats) : NULL;
    o->passes = qx_arena_printf(a->arena, "%s,mixed(%s=%s%s%s)", o->passes ? o->passes : "bias-correction?,gptq?(bits=4)",
                                o->target_size ? "size" : "sqnr",
                                o->target_size ? o->target_size : o->target_sqnr, o->formats ? ",formats=" : "", formats ? formats : "");
    o->target_size = o->target_sqnr = o->formats = NULL;
    return o->passes ? QX_OK : QX_E_NOMEM;
}

/* --level and --sequential are short for options of passes. */
static qx_status set_option(qx_job_args *a, const char *option, const char *value)
{
    qx_quantize_options *o = &a->opt;
    qx_pipeline *pipe;
    if (!value || !o->passes) return QX_OK;
    QX_TRY(qx_pipeline_parse(a->ctx, o->passes, &pipe));
    qx_status st = qx_pipeline_set(pipe, option, value);
    if (st == QX_OK && !(o->passes = qx_arena_strdup(a->arena, qx_pipeline_text(pipe)))) st = QX_E_NOMEM;
    qx_pipeline_free(pipe);
    return st == QX_OK ? QX_OK : qx_note(a->ctx, st, "--%s", option);
}

/* --io is short for a last pass. */
static qx_status add_io(qx_job_args *a)
{
    static const struct { const char *word, *pass; } types[] = {
        {"float", ""}, {"int8", ",io"}, {"float16", ",io-half"}, {"fp16", ",io-half"}, {"bfloat16", ",io-half(type=bfloat16)"},
            {"bf16", ",io-half(type=bfloat16)"}};
    qx_quantize_options *o = &a->opt;
    const char *pass = o->io ? NULL : "";
    for (size_t i = 0; o->io && i < sizeof types / sizeof *types; i++)
        if (strcmp(o->io, types[i].word) == 0) pass = types[i].pass;
    if (!pass) QX_FAIL(a->ctx, QX_E_USAGE, "--io '%s': write float, int8, float16 or bfloat16", o->io);
    if (*pass && o->passes && !(o->passes = qx_arena_printf(a->arena, "%s%s", o->passes, pass))) return QX_E_NOMEM;
    o->io = NULL;
    return QX_OK;
}

/* Where in a pipeline text the passes end that change the model before the sweep: those may work on float32 weights only. */
static size_t behind_rewrites(const char *text)
{
    size_t at = 0;
    while (text[at]) {
        int n;
        const qx_passdef *const *defs = qx_passes(&n), *def = NULL;
        const size_t name = strcspn(text + at, "(,?");
        for (int i = 0; i < n; i++)
            if (strlen(defs[i]->name) == name && strncmp(defs[i]->name, text + at, name) == 0) def = defs[i];
        if (!def || !def->rewrite) break;
        for (int depth = 0; text[at] && (depth || text[at] != ','); at++) depth += (text[at] == '(') - (text[at] == ')');
        at += text[at] == ',';
    }
    return at;
}

/* --float fp16 is short for that pass in front of what runs behind the sweep, --float fp32 for that one in front of all. */
static qx_status add_rest(qx_job_args *a)
{
    qx_quantize_options *o = &a->opt;
    const char *text = o->passes ? o->passes : "", *type = o->rest;
    const size_t at = type && strcmp(type, "fp32") == 0 ? 0 : behind_rewrites(text); /* fp32 gives the others the weights that they want */
    if (!type) return QX_OK;
    if (strcmp(type, "fp16") != 0 && strcmp(type, "bf16") != 0 && strcmp(type, "fp32") != 0)
        QX_FAIL(a->ctx, QX_E_USAGE, "--float '%s': write fp16, bf16 or fp32", type);
    o->passes = qx_arena_printf(a->arena, "%.*s%s%s%s%s", (int)at, text, at && text[at - 1] != ',' ? "," : "", type, text[at] ? "," : "",
                                text + at);
    o->rest = NULL;
    return o->passes ? QX_OK : QX_E_NOMEM;
}

static bool was_given(void *user, const char *name)
{
    const bool *given = user;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].arg.name, name) == 0) return given[i];
    return false;
}

/* --like: what the record says and nobody has set. */
static qx_status replay(qx_job_args *a)
{
    bool given[QX_JOB_OPTIONS];
    const char *path = a->opt.like_path;
    if (!path || a->opt.like) return QX_OK;
    memcpy(given, a->given, sizeof given);
    QX_TRY(qx_record_read(a->ctx, a->arena, path, &a->record));
    QX_TRY(qx_record_replay(a->ctx, &a->record, a, was_given, given));
    a->opt.like = &a->record;
    return QX_OK;
}

qx_status qx_job_args_options(qx_job_args *a, const qx_quantize_options **out)
{
    qx_quantize_options *o = &a->opt;
    QX_TRY(replay(a));
    if (o->samples.text && a->with_text) o->passes = a->with_text;
    a->with_text = NULL;
    QX_TRY(add_mixed(a));
    QX_TRY(set_option(a, "level", o->level));
    QX_TRY(set_option(a, "sequential", o->sequential ? "true" : NULL));
    o->level = NULL;
    o->sequential = false;
    QX_TRY(add_rest(a));
    QX_TRY(add_io(a));
    if (!o->passes)
        QX_FAIL(a->ctx, QX_E_USAGE, "no format is asked for: give --fp8, --int8, --int4, --preset NAME, --passes TEXT, "
                                    "--target-size SIZE, --float fp16 or --like OUT.onnx");
    o->samples.paths = a->lists[L_CALIB]; o->samples.n_paths = a->n_lists[L_CALIB];
    o->include = a->lists[L_INCLUDE]; o->n_include = a->n_lists[L_INCLUDE];
    o->exclude = a->lists[L_EXCLUDE]; o->n_exclude = a->n_lists[L_EXCLUDE];
    o->verify = a->lists[L_VERIFY]; o->n_verify = a->n_lists[L_VERIFY];
    o->settings = a->settings;
    o->dims = a->dims;
    o->samples.dims = a->dims; o->samples.n_dims = o->n_dims;
    *out = o;
    return QX_OK;
}
