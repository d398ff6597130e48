/* report_html.c - the report as one page that needs nothing else. First what everybody reads: verdict, size, quality, what would
 * make it better; then what the file consists of, the layers furthest from float, the frontier of a choice among formats; then
 * every weight, and every node that stays float with its reason. Names come from files: they are escaped, and cut by no one. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "passes/job/frontier.h"
#include "passes/report.h"

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 "
    "1em;color:#1d2733}h1{font-size:1.5em;margin:0;word-break:break-all}"
    "h2{font-size:1.1em;margin:2.2em 0 .5em}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.25em .6em;text-align:left;border-bottom:1px solid "
    "#e3e7ec;vertical-align:top}th{color:#5a6673;font-weight:600;font-size:.85em}"
    "td{word-break:break-all}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".w{word-break:normal;white-space:nowrap}"
    ".grey{color:#5a6673}code{font-size:.9em;word-break:break-all}.cards{display:flex;flex-wrap:wrap;gap:1em;margin:1.4em 0}"
    ".card{flex:1 1 9em;border:1px solid #e3e7ec;border-radius:8px;padding:.7em 1em}.card b{display:block;font-size:1.45em}"
    ".card span{color:#5a6673;font-size:.9em}.badge{display:inline-block;border-radius:6px;padding:.3em "
    ".9em;color:#fff;font-weight:600;margin-top:.8em}"
    ".g0{background:#5a6673}.g1,.g2{background:#b3261e}.g3{background:#b26a00}.g4{background:#2e7d32}.g5{background:#1b6e2a}"
    ".bar{height:.75em;background:#e3e7ec;border-radius:3px;min-width:2px;margin-top:.35em;overflow:hidden}"
    ".bar i{display:block;height:100%;background:#2f6fb2}i.low{background:#b3261e}i.mid{background:#d9822b}i.high{background:#2e7d32}"
    ".stack{display:flex;height:1.6em;border-radius:5px;overflow:hidden;background:#eef1f4}.stack i{display:block}"
    ".key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .4em 0 1em}"
    ".hint{background:#eef4fb;border-radius:6px;padding:.5em .9em;margin:.4em "
    "0}summary{cursor:pointer;font-size:1.1em;font-weight:600;margin:2.2em 0 .5em}"
    "dt{font-weight:600;float:left;clear:left;width:7em}dd{margin:0 0 .2em 7em}svg text{font:12px system-ui,sans-serif;fill:#5a6673}"
    "@media print{details{display:block}}";

static qx_status put(qx_buf *b, const char *text)
{
    for (const char *s = text ? text : ""; *s; s++) {
        const char *escaped = *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;" : *s == '"' ? "&quot;"
            : (unsigned char)*s < ' ' ? "&#xfffd;" : NULL;
        QX_TRY(escaped ? qx_buf_put(b, escaped, strlen(escaped)) : qx_buf_put(b, s, 1));
    }
    return QX_OK;
}

static qx_status cell(qx_buf *b, const char *text)
{
    QX_TRY(qx_buf_printf(b, "<td>"));
    QX_TRY(put(b, text));
    return qx_buf_printf(b, "</td>");
}

/* A node, by the name that people know it by. */
static qx_status node_cell(qx_buf *b, const char *name, const char *scope)
{
    char title[480];
    return cell(b, qx_report_title(name, scope, title, sizeof title));
}

static qx_status bytes_cell(qx_buf *b, int64_t bytes)
{
    char text[24];
    return qx_buf_printf(b, "<td class=n>%s</td>", qx_format_bytes(bytes, text, sizeof text));
}

static qx_status decibel_cell(qx_buf *b, double db)
{
    if (isnan(db)) return qx_buf_printf(b, "<td class=n></td>");
    return db >= 299 ? qx_buf_printf(b, "<td class=n>exact</td>") : qx_buf_printf(b, "<td class=n>%.1f dB</td>", db);
}

static qx_status fact(qx_buf *b, const char *what, const char *text)
{
    if (!text || !*text) return QX_OK;
    QX_TRY(qx_buf_printf(b, "<dt>%s</dt><dd>", what));
    QX_TRY(put(b, text));
    return qx_buf_printf(b, "</dd>\n");
}

/* ---- what everybody reads ------------------------------------------------------------------------------------------------------ */

static double share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

static qx_status put_title(const qx_report *r, qx_buf *b)
{
    QX_TRY(qx_buf_printf(b, "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><meta name=viewport "
                            "content=\"width=device-width\"><title>"));
    QX_TRY(put(b, r->output));
    QX_TRY(qx_buf_printf(b, "</title><style>%s</style>\n<h1>", style));
    QX_TRY(put(b, r->output));
    QX_TRY(qx_buf_printf(b, "</h1>\n<div class=grey>made from "));
    QX_TRY(put(b, r->input));
    QX_TRY(qx_buf_printf(b, "</div>\n<div class=\"badge g%d\">", (int)r->grade));
    QX_TRY(put(b, r->verdict ? r->verdict : r->verify_note ? r->verify_note : "not compared with the float model"));
    return qx_buf_printf(b, "</div>\n");
}

static qx_status put_card(qx_buf *b, const char *big, const char *small)
{
    return qx_buf_printf(b, "<div class=card><b>%s</b><span>%s</span></div>\n", big, small);
}

/* The output furthest from float, which the verdict is about. */
static qx_status put_quality_card(const qx_report *r, qx_buf *b)
{
    const qx_report_output *worst = NULL;
    char big[48];
    for (int64_t i = 0; i < r->n_outputs; i++)
        if (!isnan(r->outputs[i].sqnr_db) && (!worst || r->outputs[i].sqnr_db < worst->sqnr_db)) worst = &r->outputs[i];
    if (!worst) return QX_OK;
    snprintf(big, sizeof big, worst->sqnr_db >= 299 ? "exact" : "%.1f dB", worst->sqnr_db);
    QX_TRY(put_card(b, big, r->n_outputs > 1 ? "signal to noise of the output furthest from float" : "signal to noise of the output"));
    if (isnan(worst->top1)) return QX_OK;
    snprintf(big, sizeof big, "%.1f %%", 100 * worst->top1);
    return put_card(b, big, "of rows keep their largest score");
}

static qx_status put_cards(const qx_report *r, qx_buf *b)
{
    char before[24], after[24], big[64], small[96];
    double seconds = 0;
    for (int64_t i = 0; i < r->n_stages; i++) seconds += r->stages[i].seconds;
    QX_TRY(qx_buf_printf(b, "<div class=cards>\n"));
    snprintf(big, sizeof big, "%.0f %%", share((double)r->output_bytes, (double)r->input_bytes));
    snprintf(small, sizeof small, "of the size: %s &rarr; %s", qx_format_bytes(r->input_bytes, before, sizeof before),
             qx_format_bytes(r->output_bytes, after, sizeof after));
    QX_TRY(put_card(b, big, small));
    QX_TRY(put_quality_card(r, b));
    snprintf(big, sizeof big, "%lld", (long long)r->n_quantized);
    QX_TRY(put_card(b, big, "nodes in low precision"));
    snprintf(big, sizeof big, "%.1f s", seconds);
    snprintf(small, sizeof small, "and %s of memory to make it", qx_format_bytes(r->peak_rss, before, sizeof before));
    QX_TRY(put_card(b, big, small));
    return qx_buf_printf(b, "</div>\n");
}

static qx_status put_hints(const qx_report *r, qx_buf *b)
{
    for (int i = 0; i < r->n_hints; i++) {
        QX_TRY(qx_buf_printf(b, "<div class=hint>"));
        QX_TRY(put(b, r->hints[i]));
        QX_TRY(qx_buf_printf(b, "</div>\n"));
    }
    return QX_OK;
}

/* ---- bytes by format ---------------------------------------------------------------------------------------------------------------- */

enum { MOST_FORMATS = 8 };
typedef struct share_row { const char *format; int64_t bytes, weights; } share_row;

/* Bytes of the output by format of the weights, in order of appearance; what is no quantized weight comes last, as float. */
static int count_formats(const qx_report *r, share_row *out)
{
    int n = 0;
    int64_t rest = r->output_bytes;
    for (int64_t i = 0; i < r->n_tensors; i++) {
        const qx_report_tensor *t = &r->tensors[i];
        int k = 0;
        while (t->format && k < n && strcmp(out[k].format, t->format) != 0) k++;
        if (!t->format || k == MOST_FORMATS) continue;
        if (k == n) out[n++] = (share_row){.format = t->format};
        out[k].bytes += t->bytes_after;
        out[k].weights++;
        rest -= t->bytes_after;
    }
    if (rest > 0) out[n++] = (share_row){.format = "float, and the graph", .bytes = rest};
    return n;
}

static qx_status put_formats(const qx_report *r, qx_buf *b)
{
    static const char *const colours[MOST_FORMATS + 1] = {"#2f6fb2", "#6aa84f", "#d9822b", "#8e63b8", "#c2557a", "#3aa6a6", "#a07a4a",
                                                          "#5577aa", "#b9c1ca"};
    share_row rows[MOST_FORMATS + 1];
    char text[24];
    const int n = count_formats(r, rows);
    QX_TRY(qx_buf_printf(b, "<h2>What the file consists of</h2>\n<div class=stack>"));
    for (int i = 0; i < n; i++)
        QX_TRY(qx_buf_printf(b, "<i style=\"width:%.2f%%;background:%s\"></i>", share((double)rows[i].bytes, (double)r->output_bytes),
                             colours[rows[i].weights ? i : MOST_FORMATS]));
    QX_TRY(qx_buf_printf(b, "</div>\n<div style=\"margin:.4em 0 0 -1em\">"));
    for (int i = 0; i < n; i++) {
        QX_TRY(qx_buf_printf(b, "<span class=w><span class=key style=\"background:%s\"></span>",
                             colours[rows[i].weights ? i : MOST_FORMATS]));
        QX_TRY(put(b, rows[i].format));
        QX_TRY(qx_buf_printf(b, " %s", qx_format_bytes(rows[i].bytes, text, sizeof text)));
        if (rows[i].weights) QX_TRY(qx_buf_printf(b, " in %lld weight%s", (long long)rows[i].weights, rows[i].weights == 1 ? "" : "s"));
        QX_TRY(qx_buf_printf(b, "</span> "));
    }
    return qx_buf_printf(b, "</div>\n");
}

/* ---- quality -------------------------------------------------------------------------------------------------------------------- */

static qx_status put_outputs(const qx_report *r, qx_buf *b)
{
    if (!r->n_outputs) return QX_OK;
    QX_TRY(qx_buf_printf(b, "<h2>Outputs, quantized against float</h2>\n<table><tr><th>output<th class=n>signal to noise<th "
                            "class=n>cosine<th class=n>largest difference<th class=n>same<th></tr>\n"));
    for (int64_t i = 0; i < r->n_outputs; i++) {
        const qx_report_output *o = &r->outputs[i];
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(cell(b, o->name));
        QX_TRY(decibel_cell(b, o->sqnr_db));
        const double same = isnan(o->equal) ? o->top1 : o->equal;
        QX_TRY(qx_buf_printf(b, "<td class=n>%.6f</td><td class=n>%.4g</td>", o->cosine, o->max_abs));
        QX_TRY(isnan(same) ? qx_buf_printf(b, "<td></td>") : qx_buf_printf(b, "<td class=n>%.1f %%%s</td>", 100 * same,
            isnan(o->equal) ? " of top 1" : ""));
        QX_TRY(cell(b, o->note ? o->note : ""));
        QX_TRY(qx_buf_printf(b, "</tr>\n"));
    }
    return qx_buf_printf(b, "</table>\n");
}

/* A bar of decibels: full at 50 dB; red below 10, orange below 20. */
static qx_status decibel_bar(qx_buf *b, double db)
{
    const double full = 50;
    const char *colour = db < 10 ? "low" : db < 20 ? "mid" : "high";
    return qx_buf_printf(b, "<td style=\"width:30%%\"><div class=bar><i class=%s style=\"width:%.1f%%\"></i></div></td>", colour,
                         isnan(db) ? 0 : fmax(1, fmin(100, 100 * db / full)));
}

static qx_status put_layers(const qx_report *r, qx_buf *b)
{
    if (!r->n_layers) return QX_OK;
    QX_TRY(qx_buf_printf(b, "<h2>Layers furthest from float</h2>\n<table><tr><th>node<th>format<th class=n>signal to noise<th><th "
                            "class=n>cosine</tr>\n"));
    for (int64_t i = 0; i < r->n_layers; i++) {
        const qx_report_layer *l = &r->layers[i];
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(node_cell(b, l->name, l->scope));
        QX_TRY(cell(b, l->format));
        QX_TRY(decibel_cell(b, l->sqnr_db));
        QX_TRY(decibel_bar(b, l->sqnr_db));
        QX_TRY(qx_buf_printf(b, "<td class=n>%.5f</td></tr>\n", l->cosine));
    }
    return qx_buf_printf(b, "</table>\n");
}

/* ---- the rest, for who looks closer --------------------------------------------------------------------------------------------- */

enum { FEW_ROWS = 60 }; /* longer tables are folded */

/* The bar is as long as the weight was, its dark part as long as it is. */
static qx_status put_tensors(const qx_report *r, qx_buf *b)
{
    int64_t largest = 1;
    for (int64_t i = 0; i < r->n_tensors; i++)
        if (r->tensors[i].bytes_before > largest) largest = r->tensors[i].bytes_before;
    QX_TRY(qx_buf_printf(b, "<details%s><summary>%lld weights</summary>\n<table><tr><th>read by<th class=n>N &times; "
                            "K<th>format<th class=n>before<th class=n>after<th class=n>SQNR"
                            "<th style=\"width:20%%\"></tr>\n", r->n_tensors <= FEW_ROWS ? " open" : "", (long long)r->n_tensors));
    for (int64_t i = 0; i < r->n_tensors; i++) {
        const qx_report_tensor *t = &r->tensors[i];
        const double before = (double)t->bytes_before;
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(node_cell(b, t->node && *t->node ? t->node : t->name, t->scope));
        QX_TRY(qx_buf_printf(b, "<td class=n>%lld &times; %lld</td>", (long long)t->n, (long long)t->k));
        QX_TRY(cell(b, t->format ? t->format : "float"));
        QX_TRY(bytes_cell(b, t->bytes_before));
        QX_TRY(bytes_cell(b, t->bytes_after));
        QX_TRY(decibel_cell(b, t->sqnr));
        QX_TRY(qx_buf_printf(b, "<td><div class=bar style=\"width:%.1f%%\"><i style=\"width:%.1f%%\"></i></div></td></tr>\n",
                             100 * before / (double)largest, before > 0 ? fmin(100, 100 * (double)t->bytes_after / before) : 0));
    }
    return qx_buf_printf(b, "</table></details>\n");
}

static int64_t count_kept(const qx_report *r)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_nodes; i++) n += qx_report_fate(&r->nodes[i]) == QX_FATE_FLOAT;
    return n;
}

static qx_status put_kept(const qx_report *r, qx_buf *b)
{
    const int64_t kept = count_kept(r);
    if (!kept) return QX_OK;
    QX_TRY(qx_buf_printf(b, "<details%s><summary>%lld nodes left in float, and why</summary>\n"
                            "<table><tr><th>node<th>operator<th>why<th class=n>weight</tr>\n", kept <= FEW_ROWS ? " open" : "",
                            (long long)kept));
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        if (qx_report_fate(n) != QX_FATE_FLOAT) continue;
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(node_cell(b, n->name, n->scope));
        QX_TRY(cell(b, n->op));
        QX_TRY(cell(b, n->reason));
        QX_TRY(n->float_bytes ? bytes_cell(b, n->float_bytes) : qx_buf_printf(b, "<td></td>"));
        QX_TRY(qx_buf_printf(b, "</tr>\n"));
    }
    return qx_buf_printf(b, "</table></details>\n");
}

static qx_status put_made(const qx_report *r, qx_buf *b)
{
    QX_TRY(qx_buf_printf(b, "<h2>How it was made</h2>\n<dl>"));
    QX_TRY(fact(b, "passes", r->pipeline));
    QX_TRY(fact(b, "samples", r->samples));
    QX_TRY(fact(b, "verified", r->verdict ? r->verify_note : NULL));
    QX_TRY(fact(b, "device", r->device));
    QX_TRY(qx_buf_printf(b, "<dt>time</dt><dd>"));
    for (int64_t i = 0; i < r->n_stages; i++)
        QX_TRY(qx_buf_printf(b, "%s%s %.2f s", i ? ", " : "", r->stages[i].name, r->stages[i].seconds));
    QX_TRY(qx_buf_printf(b, "</dd>\n<dt>again</dt><dd><code>qonnx quantize MODEL.onnx --like "));
    QX_TRY(put(b, r->output));
    return qx_buf_printf(b, "</code></dd>\n</dl>\n<p class=grey>qonnx %s</p>\n", QONNX_VERSION);
}

qx_status qx_report_html(const qx_report *r, qx_buf *out)
{
    QX_TRY(put_title(r, out));
    QX_TRY(put_cards(r, out));
    QX_TRY(put_hints(r, out));
    QX_TRY(put_formats(r, out));
    QX_TRY(put_outputs(r, out));
    QX_TRY(put_layers(r, out));
    QX_TRY(qx_frontier_svg(r, out));
    QX_TRY(put_tensors(r, out));
    QX_TRY(put_kept(r, out));
    return put_made(r, out);
}
