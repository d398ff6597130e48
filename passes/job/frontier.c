/* frontier.c - the axes of frontier.h, and the picture as SVG. */
#include "passes/job/frontier.h"

#include <math.h>

#include "base/text.h"

static double loss_of(const qx_axes *a, const qx_report_point *p) { return a->kl ? p->kl : p->noise; }

qx_axes qx_frontier_axes(const qx_report *r)
{
    enum { DECADES = 8 };
    double least = INFINITY, most = 0;
    qx_axes a = {.x0 = INFINITY, .kl = true};
    for (int64_t i = 0; i < r->n_points; i++) a.kl = a.kl && isfinite(r->points[i].kl);
    for (int64_t i = 0; i < r->n_points; i++) {
        const double b = (double)r->points[i].bytes, l = loss_of(&a, &r->points[i]);
        a.x0 = fmin(a.x0, b);
        a.x1 = fmax(a.x1, b);
        if (l > 0) least = fmin(least, l), most = fmax(most, l);
    }
    if (!(most > 0)) least = most = 1;
    a.x1 = a.x1 > a.x0 ? a.x1 : a.x0 + 1;
    a.y1 = ceil(log10(most) + 1e-9);
    a.y0 = fmax(floor(log10(least)), a.y1 - DECADES);
    if (a.y0 >= a.y1) a.y0 = a.y1 - 1;
    return a;
}

double qx_frontier_x(const qx_axes *a, const qx_report_point *p) { return ((double)p->bytes - a->x0) / (a->x1 - a->x0); }

double qx_frontier_y(const qx_axes *a, const qx_report_point *p)
{
    const double l = log10(fmax(loss_of(a, p), 1e-300));
    return (a->y1 - fmin(fmax(l, a->y0), a->y1)) / (a->y1 - a->y0);
}

/* ---- SVG ------------------------------------------------------------------------------------------------------------------------ */

enum { WIDTH = 900, HEIGHT = 380, LEFT = 60, RIGHT = 30, TOP = 20, BOTTOM = 50 };
static double px(double x) { return LEFT + x * (WIDTH - LEFT - RIGHT); }
static double py(double y) { return TOP + y * (HEIGHT - TOP - BOTTOM); }

static qx_status svg_axes(const qx_axes *a, qx_buf *b)
{
    enum { MARKS = 6 };
    char text[24];
    for (int d = (int)a->y0; d <= (int)a->y1; d++) {
        const double y = py((a->y1 - d) / (a->y1 - a->y0));
        QX_TRY(qx_buf_printf(b, "<path d=\"M%d %.1fH%d\" stroke=\"#e3e7ec\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%d</text>",
                             LEFT, y, WIDTH - RIGHT, LEFT - 8, y + 4, d));
    }
    for (int i = 0; i <= MARKS; i++) {
        const double x = (double)i / MARKS;
        QX_TRY(qx_buf_printf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", px(x), HEIGHT - BOTTOM + 20,
                             qx_format_bytes((int64_t)(a->x0 + x * (a->x1 - a->x0)), text, sizeof text)));
    }
    return qx_buf_printf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">size of the file</text>\n", WIDTH / 2, HEIGHT - 8);
}

static qx_status svg_mark(const qx_axes *a, const qx_report_point *p, qx_buf *b)
{
    const double x = qx_frontier_x(a, p), y = qx_frontier_y(a, p);
    const char *colour = p->chosen ? "#b3261e" : p->label ? "#d9822b" : "#2f6fb2", *label = p->chosen ? "chosen" : p->label;
    QX_TRY(qx_buf_printf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\"><title>%s</title></circle>", px(x), py(y),
                         label ? 6 : 3, colour, p->formats ? p->formats : ""));
    if (!label) return QX_OK;
    return qx_buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" style=\"fill:%s\">%s</text>\n", px(x) + (x < 0.5 ? 10 : -10),
                         py(y) - 9, x < 0.5 ? "start" : "end", colour, label);
}

qx_status qx_frontier_svg(const qx_report *r, qx_buf *b)
{
    if (!r->n_points) return QX_OK;
    const qx_axes a = qx_frontier_axes(r);
    QX_TRY(qx_buf_printf(b, "<h2>%s over size, for every choice of formats</h2>\n<svg viewBox=\"0 0 %d %d\" width=\"100%%\">\n",
                         a.kl ? "Predicted KL to the float model (nats)" : "Predicted noise, relative to the output,", WIDTH, HEIGHT));
    QX_TRY(svg_axes(&a, b));
    QX_TRY(qx_buf_printf(b, "<polyline fill=\"none\" stroke=\"#2f6fb2\" points=\""));
    for (int64_t i = 0; i < r->n_points; i++)
        if (!r->points[i].label)
            QX_TRY(qx_buf_printf(b, "%.1f,%.1f ", px(qx_frontier_x(&a, &r->points[i])), py(qx_frontier_y(&a, &r->points[i]))));
    QX_TRY(qx_buf_printf(b, "\"/>\n"));
    for (int64_t i = 0; i < r->n_points; i++) QX_TRY(svg_mark(&a, &r->points[i], b));
    return qx_buf_printf(b, "</svg>\n");
}
