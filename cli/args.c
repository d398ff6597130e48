/* args.c - command line words to option values, by the command's table. Accepts --name value, --name=value, -o value, -ovalue and
 * "--" before positional words; an unknown option names the nearest one. */
#include <assert.h>
#include <string.h>

#include "cli/cli.h"

const qx_argdef cli_common[] = {
    {"threads", 0, QX_ARG_VALUE, "N", "all cores", "threads to use; the result is the same for any number"},
    {"max-memory", 0, QX_ARG_VALUE, "SIZE", "no cap", "stop with a message before more than this is allocated (8G, 512M)"},
    {"json", 0, QX_ARG_FLAG, NULL, NULL, "print the result as one JSON document (keys: docs/json.md)"},
    {"quiet", 'q', QX_ARG_FLAG, NULL, NULL, "no log lines and no progress"},
    {"verbose", 'v', QX_ARG_FLAG, NULL, NULL, "more log lines"},
    {"help", 'h', QX_ARG_FLAG, NULL, NULL, "print this help"},
    {NULL, 0, QX_ARG_FLAG, NULL, NULL, NULL},
};

static int table_size(const qx_argdef *t)
{
    int n = 0;
    while (t && t[n].name) n++;
    return n;
}

static const qx_argdef *option_at(const cli_command *cmd, int i)
{
    int own = table_size(cmd->options);
    return i < own ? &cmd->options[i] : &cli_common[i - own];
}

static int option_count(const cli_command *cmd) { return table_size(cmd->options) + table_size(cli_common); }

static int find_option(const cli_command *cmd, const char *name, size_t len)
{
    for (int i = 0, n = option_count(cmd); i < n; i++) {
        const char *o = option_at(cmd, i)->name;
        if (strlen(o) == len && memcmp(o, name, len) == 0) return i;
    }
    return -1;
}

static int find_letter(const cli_command *cmd, char letter)
{
    for (int i = 0, n = option_count(cmd); i < n; i++)
        if (option_at(cmd, i)->letter == letter) return i;
    return -1;
}

static qx_status unknown(qx_ctx *ctx, qx_arena *arena, const cli_command *cmd, const char *word, const char *name, size_t len)
{
    char hint[80];
    qx_nearest near = qx_nearest_to(name, len);
    const char *instead = cmd->instead ? cmd->instead(arena, qx_arena_strndup(arena, name, len)) : NULL;
    if (instead) QX_FAIL(ctx, QX_E_USAGE, "unknown option '%s'; here: %s", word, instead);
    for (int i = 0, n = option_count(cmd); i < n; i++) qx_nearest_offer(&near, option_at(cmd, i)->name, strlen(option_at(cmd, i)->name));
    QX_FAIL(ctx, QX_E_USAGE, "unknown option '%s'%s (qonnx %s --help lists all)", word, qx_nearest_text(&near, "--", hint, sizeof hint),
            cmd->name);
}

typedef struct word { int option; const char *value; bool takes_next; } word;

/* What one word that starts with '-' means. */
static qx_status read_word(qx_ctx *ctx, qx_arena *arena, const cli_command *cmd, const char *arg, word *w)
{
    bool is_long = arg[1] == '-';
    const char *name = arg + (is_long ? 2 : 1);
    size_t len = is_long ? strcspn(name, "=") : 1;
    *w = (word){is_long ? find_option(cmd, name, len) : find_letter(cmd, *name), NULL, false};
    if (w->option < 0) return unknown(ctx, arena, cmd, arg, name, is_long ? len : strlen(name));
    bool flag = option_at(cmd, w->option)->kind == QX_ARG_FLAG;
    bool more = name[len] != 0;
    if (flag && more) QX_FAIL(ctx, QX_E_USAGE, "option '%s' takes no value", arg);
    w->value = flag ? "1" : more ? name + len + (name[len] == '=') : NULL;
    w->takes_next = !flag && !more;
    return QX_OK;
}

static qx_status allocate(qx_ctx *ctx, qx_arena *arena, int argc, cli *c)
{
    c->n_options = option_count(c->cmd);
    c->args = qx_arena_array(arena, (size_t)argc + 1, sizeof *c->args);
    c->values = qx_arena_array(arena, (size_t)c->n_options, sizeof *c->values);
    c->counts = qx_arena_array(arena, (size_t)c->n_options, sizeof *c->counts);
    if (!c->args || !c->values || !c->counts) QX_FAIL(ctx, QX_E_NOMEM, "out of memory while reading the command line");
    for (int i = 0; i < c->n_options; i++) {
        c->values[i] = qx_arena_array(arena, (size_t)argc + 1, sizeof **c->values);
        if (!c->values[i]) QX_FAIL(ctx, QX_E_NOMEM, "out of memory while reading the command line");
    }
    return QX_OK;
}

static qx_status check_count(qx_ctx *ctx, const cli *c)
{
    const cli_command *cmd = c->cmd;
    const char *left = cmd->synopsis; /* positional arguments come first there */
    for (int i = 0; i < c->n_args && strchr(left, ' '); i++) left = strchr(left, ' ') + 1;
    if (left[0] >= 'a') left = "command"; /* a word to be typed as it stands: qonnx stats show|merge */
    if (c->n_args < cmd->min_args)
        QX_FAIL(ctx, QX_E_USAGE, "%.*s is missing: qonnx %s %s", (int)strcspn(left, " "), left, cmd->name, cmd->synopsis);
    if (cmd->max_args >= 0 && c->n_args > cmd->max_args)
        QX_FAIL(ctx, QX_E_USAGE, "'%s' is one argument too many: qonnx %s %s", c->args[cmd->max_args], cmd->name, cmd->synopsis);
    return QX_OK;
}

qx_status cli_parse(qx_ctx *ctx, qx_arena *arena, const cli_command *cmd, int argc, char **argv, cli *out)
{
    *out = (cli){.cmd = cmd, .ctx = ctx, .arena = arena};
    QX_TRY(allocate(ctx, arena, argc, out));
    bool only_args = false;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (only_args || arg[0] != '-' || !arg[1]) { out->args[out->n_args++] = arg; continue; }
        if (strcmp(arg, "--") == 0) { only_args = true; continue; }
        word w;
        QX_TRY(read_word(ctx, arena, cmd, arg, &w));
        if (w.takes_next) {
            if (i + 1 == argc) QX_FAIL(ctx, QX_E_USAGE, "option '%s' needs a value (%s)", arg, option_at(cmd, w.option)->meta);
            w.value = argv[++i];
        }
        out->values[w.option][out->counts[w.option]++] = w.value;
    }
    out->json = cli_flag(out, "json");
    out->quiet = cli_flag(out, "quiet");
    out->verbose = cli_flag(out, "verbose");
    return cli_flag(out, "help") ? QX_OK : check_count(ctx, out);
}

static int index_of(const cli *c, const char *name)
{
    int i = find_option(c->cmd, name, strlen(name));
    assert(i >= 0 && "option is not in the command's table");
    return i;
}

bool cli_flag(const cli *c, const char *name) { return c->counts[index_of(c, name)] > 0; }

const char *cli_value(const cli *c, const char *name)
{
    int i = index_of(c, name);
    return c->counts[i] ? c->values[i][c->counts[i] - 1] : NULL;
}

int cli_list(const cli *c, const char *name, const char *const **out)
{
    int i = index_of(c, name);
    *out = c->values[i];
    return c->counts[i];
}

qx_status cli_int(const cli *c, const char *name, int64_t fallback, int64_t min, int64_t max, int64_t *out)
{
    const char *text = cli_value(c, name);
    *out = fallback;
    if (!text) return QX_OK;
    qx_status st = qx_parse_i64(c->ctx, text, out);
    if (st != QX_OK) return qx_note(c->ctx, QX_E_USAGE, "--%s", name);
    if (*out < min || *out > max)
        QX_FAIL(c->ctx, QX_E_USAGE, "--%s: %lld is not in [%lld, %lld]", name, (long long)*out, (long long)min, (long long)max);
    return QX_OK;
}

qx_status cli_float(const cli *c, const char *name, double fallback, double min, double max, double *out)
{
    const char *text = cli_value(c, name);
    *out = fallback;
    if (!text) return QX_OK;
    qx_status st = qx_parse_f64(c->ctx, text, out);
    if (st != QX_OK) return qx_note(c->ctx, QX_E_USAGE, "--%s", name);
    if (*out < min || *out > max) QX_FAIL(c->ctx, QX_E_USAGE, "--%s: %.10g is not in [%.10g, %.10g]", name, *out, min, max);
    return QX_OK;
}

qx_status cli_dims(cli *c, const char *option, qx_dim_fix **out, int *n)
{
    const char *const *texts;
    *n = cli_list(c, option, &texts);
    *out = qx_arena_array(c->arena, (size_t)*n + 1, sizeof **out);
    if (!*out) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
    for (int i = 0; i < *n; i++) {
        const char *eq = strchr(texts[i], '=');
        if (!eq || eq == texts[i]) QX_FAIL(c->ctx, QX_E_USAGE, "--%s '%s': write name=value", option, texts[i]);
        (*out)[i].name = qx_arena_strndup(c->arena, texts[i], (size_t)(eq - texts[i]));
        if (!(*out)[i].name) QX_FAIL(c->ctx, QX_E_NOMEM, "out of memory");
        if (qx_parse_i64(c->ctx, eq + 1, &(*out)[i].value) != QX_OK) return qx_note(c->ctx, QX_E_USAGE, "--%s '%s'", option, texts[i]);
        if ((*out)[i].value < 0) QX_FAIL(c->ctx, QX_E_USAGE, "--%s '%s': a dimension is not negative", option, texts[i]);
    }
    return QX_OK;
}
