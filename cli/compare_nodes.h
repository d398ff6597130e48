/* compare_nodes.h - how far apart two runs are: one pair of arrays, and every value that two models compute under one name. */
#ifndef QX_CLI_COMPARE_NODES_H
#define QX_CLI_COMPARE_NODES_H

#include "cli/feeds.h"

/* codes: integers */
typedef struct cli_difference { const char *name, *op; bool codes; double sqnr, cosine, max_abs; int64_t count, differ; } cli_difference;
/* Fills everything but name and op. */
void cli_measure(const float *a, const float *b, int64_t n, cli_difference *d);

typedef struct cli_node_watch cli_node_watch;
/* Between opening the sessions and running them. Values larger than 65,536 elements are looked at in as many places. */
qx_status cli_nodes_watch(cli *c, cli_session *a, cli_session *b, cli_node_watch **out);
/* After running a, then b. Values in the order b computes them; in c->arena. */
qx_status cli_nodes_differences(cli *c, cli_node_watch *w, const cli_difference **out, int *n);
void cli_nodes_print(cli *c, const cli_difference *d, int n, double below);
qx_status cli_nodes_json(qx_jsonw *w, const cli_difference *d, int n);
void cli_nodes_free(cli *c, cli_node_watch *w);

#endif
