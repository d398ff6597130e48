/* feeds.h - arrays as feeds of a model, and the model's outputs back: shared by run, bench and compare. */
#ifndef QX_CLI_FEEDS_H
#define QX_CLI_FEEDS_H

#include "calib/data/samples.h"
#include "cli/cli.h"
#include "runtime/exec.h"

typedef struct cli_feeds {
    const qx_feed *given, *feeds; /* [n] as they came, and in the types that the model takes (--io makes other ones) */
    int n;
    qx_tensor *tensors, *made;    /* what the two point at, where that is ours */
    qx_npz *npz;
    qx_samples *samples;
} cli_feeds;
/* The arrays of --input whose names are inputs of the model (others are left out, with a warning). Without --input: what `first`
 * has (NULL: nothing), else the first sample of sample*.npz or calib*.npz beside the model, else made-up arrays; a log line says
 * which. */
qx_status cli_feeds_open(cli *c, qx_model *m, const cli_feeds *first, cli_feeds *out);
void cli_feeds_close(cli *c, cli_feeds *f);

typedef struct cli_session { qx_model *model; qx_exec *exec; qx_tensor *outs; int n_outs; } cli_session;
qx_status cli_session_open(cli *c, const char *path, const qx_exec_options *opt, cli_session *out);
qx_status cli_session_run(cli *c, cli_session *s, const cli_feeds *f); /* earlier outputs are freed */
void cli_session_close(cli *c, cli_session *s);

#endif
