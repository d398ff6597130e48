/* frontier_png.h - the picture of --frontier: loss (logarithmic) over file size, for every choice of formats that mixed had. */
#ifndef QX_PASSES_FRONTIER_PNG_H
#define QX_PASSES_FRONTIER_PNG_H

#include "passes/report.h"

/* Writes the points of the report to `path`, whole or not at all. QX_E_USAGE when there are none: no pass had formats to choose from. */
qx_status qx_frontier_png(const qx_report *r, const char *path);

#endif
