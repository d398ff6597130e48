/* report_html.c - the report as one page that needs nothing else: sizes, quality of outputs, the layers furthest from float, every weight with a bar as
 * long as its bytes, and every node that stays float with its reason. Names come from files: they are escaped, and cut by no one. */
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "passes/report.h"

static const char style[] =
    "body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:left;border-bottom:1px solid #ddd;word-break:break-all}"
    "td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}.bar{height:.6em;background:#ddd;min-width:1px}.bar i{display:block;height:100%;background:#37a}"
    "dt{font-weight:600;float:left;clear:left;width:9em}dd{margin:0 0 .2em 9em}.grey{color:#777}";

static qx_status put(qx_buf *b, const char *text)
{
    for (const char *s = text ? text : ""; *s; s++) {
        const char *escaped = *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;" : *s == '"' ? "&quot;" : (unsigned char)*s < ' ' ? "&#xfffd;" : NULL;
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

static qx_status put_head(const qx_report *r, qx_buf *b)
{
    char before[24], after[24], peak[24];
    QX_TRY(qx_buf_printf(b, "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>"));
    QX_TRY(put(b, r->output));
    QX_TRY(qx_buf_printf(b, "</title><style>%s</style>\n<h1>", style));
    QX_TRY(put(b, r->output));
    QX_TRY(qx_buf_printf(b, "</h1>\n<dl>"));
    QX_TRY(fact(b, "from", r->input));
    QX_TRY(fact(b, "passes", r->pipeline));
    QX_TRY(fact(b, "samples", r->samples));
    QX_TRY(fact(b, "verdict", r->verdict));
    QX_TRY(fact(b, "verified", r->verify_note));
    QX_TRY(qx_buf_printf(b, "<dt>size</dt><dd>%s &rarr; %s (%.0f%%)</dd>\n", qx_format_bytes(r->input_bytes, before, sizeof before), qx_format_bytes(r->output_bytes, after, sizeof after),
                         r->input_bytes ? 100.0 * (double)r->output_bytes / (double)r->input_bytes : 100.0));
    QX_TRY(qx_buf_printf(b, "<dt>time</dt><dd>"));
    for (int64_t i = 0; i < r->n_stages; i++) QX_TRY(qx_buf_printf(b, "%s%s %.2f s", i ? ", " : "", r->stages[i].name, r->stages[i].seconds));
    return qx_buf_printf(b, "</dd>\n<dt>memory</dt><dd>%s</dd>\n</dl>\n", qx_format_bytes(r->peak_rss, peak, sizeof peak));
}

static qx_status put_outputs(const qx_report *r, qx_buf *b)
{
    if (!r->n_outputs) return QX_OK;
    QX_TRY(qx_buf_printf(b, "<h2>Outputs</h2>\n<table><tr><th>output<th class=n>SQNR<th class=n>cosine<th class=n>largest difference<th class=n>same<th></tr>\n"));
    for (int64_t i = 0; i < r->n_outputs; i++) {
        const qx_report_output *o = &r->outputs[i];
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(cell(b, o->name));
        QX_TRY(decibel_cell(b, o->sqnr_db));
        const double same = isnan(o->equal) ? o->top1 : o->equal;
        QX_TRY(qx_buf_printf(b, "<td class=n>%.6f</td><td class=n>%.4g</td>", o->cosine, o->max_abs));
        QX_TRY(isnan(same) ? qx_buf_printf(b, "<td></td>") : qx_buf_printf(b, "<td class=n>%.1f %%%s</td>", 100 * same, isnan(o->equal) ? " of top 1" : ""));
        QX_TRY(cell(b, o->note ? o->note : ""));
        QX_TRY(qx_buf_printf(b, "</tr>\n"));
    }
    return qx_buf_printf(b, "</table>\n");
}

static qx_status put_layers(const qx_report *r, qx_buf *b)
{
    if (!r->n_layers) return QX_OK;
    QX_TRY(qx_buf_printf(b, "<h2>Furthest from float</h2>\n<table><tr><th>node<th>format<th class=n>SQNR<th class=n>cosine</tr>\n"));
    for (int64_t i = 0; i < r->n_layers; i++) {
        const qx_report_layer *l = &r->layers[i];
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(cell(b, l->name));
        QX_TRY(cell(b, l->format));
        QX_TRY(decibel_cell(b, l->sqnr_db));
        QX_TRY(qx_buf_printf(b, "<td class=n>%.5f</td></tr>\n", l->cosine));
    }
    return qx_buf_printf(b, "</table>\n");
}

/* The bar is as long as the weight was, its dark part as long as it is. */
static qx_status put_tensors(const qx_report *r, qx_buf *b)
{
    int64_t largest = 1;
    for (int64_t i = 0; i < r->n_tensors; i++)
        if (r->tensors[i].bytes_before > largest) largest = r->tensors[i].bytes_before;
    QX_TRY(qx_buf_printf(b, "<h2>%lld weights</h2>\n<table><tr><th>read by<th class=n>N &times; K<th>format<th class=n>before<th class=n>after<th class=n>SQNR<th style=\"width:20%%\"></tr>\n", (long long)r->n_tensors));
    for (int64_t i = 0; i < r->n_tensors; i++) {
        const qx_report_tensor *t = &r->tensors[i];
        const double before = (double)t->bytes_before;
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(cell(b, t->node && *t->node ? t->node : t->name));
        QX_TRY(qx_buf_printf(b, "<td class=n>%lld &times; %lld</td>", (long long)t->n, (long long)t->k));
        QX_TRY(cell(b, t->format ? t->format : "float"));
        QX_TRY(bytes_cell(b, t->bytes_before));
        QX_TRY(bytes_cell(b, t->bytes_after));
        QX_TRY(decibel_cell(b, t->sqnr));
        QX_TRY(qx_buf_printf(b, "<td><div class=bar style=\"width:%.1f%%\"><i style=\"width:%.1f%%\"></i></div></td></tr>\n", 100 * before / (double)largest, before > 0 ? fmin(100, 100 * (double)t->bytes_after / before) : 0));
    }
    return qx_buf_printf(b, "</table>\n");
}

static qx_status put_kept(const qx_report *r, qx_buf *b)
{
    QX_TRY(qx_buf_printf(b, "<h2>Left in float</h2>\n<table><tr><th>node<th>operator<th>why<th class=n>weight</tr>\n"));
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        if (qx_report_fate(n) != QX_FATE_FLOAT) continue;
        QX_TRY(qx_buf_printf(b, "<tr>"));
        QX_TRY(cell(b, n->name));
        QX_TRY(cell(b, n->op));
        QX_TRY(cell(b, n->reason));
        QX_TRY(n->float_bytes ? bytes_cell(b, n->float_bytes) : qx_buf_printf(b, "<td></td>"));
        QX_TRY(qx_buf_printf(b, "</tr>\n"));
    }
    return qx_buf_printf(b, "</table>\n<p class=grey>qonnx %s</p>\n", QONNX_VERSION);
}

qx_status qx_report_html(const qx_report *r, qx_buf *out)
{
    QX_TRY(put_head(r, out));
    QX_TRY(put_outputs(r, out));
    QX_TRY(put_layers(r, out));
    QX_TRY(put_tensors(r, out));
    return put_kept(r, out);
}
