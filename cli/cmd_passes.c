/* cmd_passes.c - `qonnx passes [NAME]`: what can be written in --passes, from the passes' own tables. */
#include <string.h>

#include "cli/cli.h"

static const char *const type_names[] = {"true|false", "integer", "number", "", "text"};

static void print_bounds(const qx_option *o)
{
    bool number = o->type == QX_OPT_INT || o->type == QX_OPT_FLOAT, typed = number || o->type == QX_OPT_BOOL;
    if (o->choices) cli_print("%s%s", o->choices, typed ? "|" : "");
    if (!o->choices || typed) cli_print("%s", type_names[o->type]);
    if (number) cli_print(" in [%.10g, %.10g]", o->min, o->max);
}

enum { INDENT = 6, LIST = 19 };

static void print_pass(const qx_passdef *d)
{
    cli_print("%s - %s\n", d->name, d->brief);
    if (d->doc) { cli_print("\n"); cli_wrap(stdout, d->doc, 0, 0); }
    if (d->options) cli_print("\noptions:\n");
    for (const qx_option *o = d->options; o && o->name; o++) {
        cli_print("  %s=%s\n%*s", o->name, o->def, INDENT, "");
        cli_wrap(stdout, o->help, INDENT, INDENT);
        cli_print("%*s", INDENT, "");
        print_bounds(o);
        cli_print("\n");
    }
}

static qx_status option_json(qx_jsonw *w, const qx_option *o)
{
    static const char *const names[] = {"bool", "int", "float", "choice", "text"};
    QX_TRY(qx_jsonw_begin_object(w, NULL));
    QX_TRY(qx_jsonw_string(w, "name", o->name));
    QX_TRY(qx_jsonw_string(w, "type", names[o->type]));
    QX_TRY(qx_jsonw_string(w, "default", o->def));
    if (o->type == QX_OPT_INT || o->type == QX_OPT_FLOAT) {
        QX_TRY(qx_jsonw_number(w, "min", o->min));
        QX_TRY(qx_jsonw_number(w, "max", o->max));
    }
    if (o->choices) QX_TRY(qx_jsonw_string(w, "choices", o->choices));
    QX_TRY(qx_jsonw_string(w, "help", o->help));
    return qx_jsonw_end_object(w);
}

static qx_status pass_json(qx_jsonw *w, const qx_passdef *d)
{
    QX_TRY(qx_jsonw_begin_object(w, NULL));
    QX_TRY(qx_jsonw_string(w, "name", d->name));
    QX_TRY(qx_jsonw_string(w, "brief", d->brief));
    QX_TRY(qx_jsonw_bool(w, "format", d->flags & QX_PASS_FORMAT));
    QX_TRY(qx_jsonw_bool(w, "calibrated", d->flags & QX_PASS_CALIBRATED));
    if (d->doc) QX_TRY(qx_jsonw_string(w, "doc", d->doc));
    QX_TRY(qx_jsonw_begin_array(w, "options"));
    for (const qx_option *o = d->options; o && o->name; o++) QX_TRY(option_json(w, o));
    QX_TRY(qx_jsonw_end_array(w));
    return qx_jsonw_end_object(w);
}

static const qx_passdef *find(const char *name)
{
    int n;
    const qx_passdef *const *all = qx_passes(&n);
    for (int i = 0; i < n; i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    return NULL;
}

static qx_status print_json(cli *c, const qx_passdef *only)
{
    int n;
    const qx_passdef *const *all = qx_passes(&n);
    qx_buf b = QX_BUF_INIT(c->ctx);
    qx_jsonw w;
    qx_jsonw_init(&w, &b, true);
    qx_status st = qx_jsonw_begin_array(&w, NULL);
    for (int i = 0; i < n && st == QX_OK; i++)
        if (only ? all[i] == only : !(all[i]->flags & QX_PASS_INTERNAL)) st = pass_json(&w, all[i]);
    if (st == QX_OK) st = qx_jsonw_end_array(&w);
    if (st != QX_OK) { qx_buf_free(&b); return st; }
    return cli_print_buf(c, &b);
}

static void print_row(const char *name, const char *brief)
{
    cli_print("  %-*s", LIST - 2, name);
    cli_wrap(stdout, brief, LIST, LIST);
}

static void print_list(void)
{
    int n, n_presets;
    const qx_passdef *const *all = qx_passes(&n);
    const qx_preset *presets = qx_presets(&n_presets);
    cli_print("passes (qonnx passes NAME explains one):\n");
    for (int i = 0; i < n; i++)
        if (!(all[i]->flags & QX_PASS_INTERNAL)) print_row(all[i]->name, all[i]->brief);
    cli_print("\npresets (--preset NAME):\n");
    for (const qx_preset *p = presets; p < presets + n_presets; p++) {
        print_row(p->name, p->brief);
        cli_print("%*s--passes \"%s\"\n", LIST, "", p->text);
        if (p->with_text) cli_print("%*swith --text: --passes \"%s\"\n", LIST, "", p->with_text);
    }
    cli_print("\n--passes \"NAME(option=value,...),NAME,...\": weight transforms first, one format last.\n");
}

static qx_status no_pass(cli *c, const char *name)
{
    int n;
    char hint[80];
    const qx_passdef *const *all = qx_passes(&n);
    qx_nearest near = qx_nearest_to(name, strlen(name));
    for (int i = 0; i < n; i++)
        if (!(all[i]->flags & QX_PASS_INTERNAL)) qx_nearest_offer(&near, all[i]->name, strlen(all[i]->name));
    QX_FAIL(c->ctx, QX_E_USAGE, "there is no pass '%s'%s (qonnx passes lists them)", name, qx_nearest_text(&near, "", hint, sizeof hint));
}

static qx_status run(cli *c)
{
    const qx_passdef *only = NULL;
    if (c->n_args && !(only = find(c->args[0]))) return no_pass(c, c->args[0]);
    if (c->json) return print_json(c, only);
    if (only) print_pass(only);
    else print_list();
    return QX_OK;
}

const cli_command cli_command_passes = {
    .name = "passes", .brief = "list the passes, or explain one", .synopsis = "[NAME]", .max_args = 1, .run = run,
    .examples = "qonnx passes\nqonnx passes int8"};
