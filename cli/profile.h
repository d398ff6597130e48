/* profile.h - printing the executor's timing table. */
#ifndef QX_CLI_PROFILE_H
#define QX_CLI_PROFILE_H

#include "cli/cli.h"
#include "runtime/exec.h"

qx_status cli_profile_print(cli *c, const qx_node_time *t, int n);
/* Member "kernels" of an open object: seconds and calls by what ran the steps. */
qx_status cli_profile_json(cli *c, qx_jsonw *w, const qx_node_time *t, int n);
/* Chrome trace (events one after another, as the executor runs them). */
qx_status cli_profile_trace(cli *c, const qx_node_time *t, int n, const char *path);

#endif
