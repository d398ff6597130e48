/* report.h - what `qonnx quantize` prints when it is done: a summary for a person, or the whole report as JSON. */
#ifndef QX_CLI_REPORT_H
#define QX_CLI_REPORT_H

#include "cli/cli.h"

/* Follows --report, --json, --quiet, --dry-run and --explain of the running command. */
qx_status cli_report(cli *c, const qx_report *r);

#endif
