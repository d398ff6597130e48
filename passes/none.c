/* none.c - the pass that does nothing: `--passes none` gives the model back byte for byte. */
#include "passes/pass.h"

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)p, (void)m, (void)stats;
    return QX_OK;
}

const qx_passdef qx_pass_none = {.name = "none", .brief = "change nothing: the output is the input", .run = run};
