/* profile.h - printing the executor's timing table. */
#ifndef QX_CLI_PROFILE_H
#define QX_CLI_PROFILE_H

#include "cli/cli.h"
#include "runtime/exec.h"

qx_status cli_profile_print(cli *c, const qx_node_time *t, int n);
/* Members of an open object. "operators", "kernels": seconds and calls by what the steps compute and by what ran them; "notes": what
 * libraries answered that did not run one. */
qx_status cli_profile_json(cli *c, qx_jsonw *w, const qx_node_time *t, int n);
/* Chrome trace (events one after another, as the executor runs them). */
qx_status cli_profile_trace(cli *c, const qx_node_time *t, int n, const char *path);

#endif
