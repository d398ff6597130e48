/* frontier.h - the choices of formats that mixed had, drawn: loss (logarithmic) over file size. As a file for --frontier, and
 * inside the report's page. */
#ifndef QX_PASSES_FRONTIER_H
#define QX_PASSES_FRONTIER_H

#include "passes/report.h"

/* Writes the points of the report to `path` as PNG, whole or not at all. QX_E_USAGE when there are none: no pass had formats to
 * choose from. */
qx_status qx_frontier_png(const qx_report *r, const char *path);
/* A heading and an <svg> of the same picture; nothing when there are no points. */
qx_status qx_frontier_svg(const qx_report *r, qx_buf *out);

/* Ends of the axes, for those two: all sizes in bytes; log10 of the loss, at most 8 decades below the largest. Loss is the
 * predicted KL in nats where every point has one, else the noise relative to the output. */
typedef struct qx_axes { double x0, x1, y0, y1; bool kl; } qx_axes;
qx_axes qx_frontier_axes(const qx_report *r);
double qx_frontier_x(const qx_axes *a, const qx_report_point *p); /* in [0, 1], from small to large */
double qx_frontier_y(const qx_axes *a, const qx_report_point *p); /* in [0, 1], from the largest loss (top) to the least */

#endif
