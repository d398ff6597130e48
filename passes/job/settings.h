/* settings.h - the options of a quantize job by name, as one table: the command line parses, documents and completes from it, and
 * the public API's qonnx_job_set takes the same names. */
#ifndef QX_PASSES_SETTINGS_H
#define QX_PASSES_SETTINGS_H

#include "passes/pipeline.h"

typedef enum qx_argkind { QX_ARG_FLAG, QX_ARG_VALUE, QX_ARG_LIST } qx_argkind; /* LIST: may be given several times */
typedef struct qx_argdef {
    const char *name;   /* without dashes; NULL ends a table */
    char letter;        /* short form, or 0 */
    qx_argkind kind;
    const char *meta;   /* what the value is: "FILE"; NULL for flags */
    const char *def;    /* default as shown in help; NULL: none */
    const char *help;   /* one line */
} qx_argdef;

/* Every option of a quantize job, `output` included; ends with name NULL. */
extern const qx_argdef qx_job_argdefs[];

typedef struct qx_job_args qx_job_args;
qx_status qx_job_args_new(qx_ctx *ctx, qx_job_args **out);
void qx_job_args_free(qx_job_args *a);
/* Strings are copied. Unknown name or a value out of bounds: QX_E_USAGE. A flag takes "1" or "0"; NULL counts as "1". */
qx_status qx_job_args_set(qx_job_args *a, const char *name, const char *value);
/* The options so far; valid until the next set. A format must have been asked for by passes, preset or a format flag. */
qx_status qx_job_args_options(qx_job_args *a, const qx_quantize_options **out);

#endif
