/* mix.h - several formats for one model: each linear operator ends in one of them, and operators that belong together in the same
 * one.
 *
 * Every format of the list is an ordinary FORMAT pass that plans all candidates as if it had them alone; what it decided (its
 * spec, or why not) is kept as a cell per operator and format. Who gets which format is up to the caller (mixed.c: by score;
 * role_mix.c: by role); the passes then run as usual on the operators they were given. */
#ifndef QX_PASSES_MIX_H
#define QX_PASSES_MIX_H

#include "passes/place/scheme.h"

enum { QX_MIX_FORMATS = 8 };

typedef struct qx_mix_cell {
    bool ok;
    qx_why why; const char *detail;      /* why not */
    qx_qspec spec; const char *format; const char *notes; /* as the format's plan() left them */
    qx_dtype act; qx_dynamic dynamic; bool weight_only;
    float act_scale;                     /* of x; 0: x stays float */
    /* in the file, with scales, zero points and the nodes that read them; a shared weight counts at its first reader */
    int64_t bytes;
    double error;                        /* || Y - Yq ||^2 / || Y ||^2 over sampled rows of x (mix_score.c) */
} qx_mix_cell;

typedef struct qx_mix {
    qx_pass *pass;                       /* that owns the mix */
    qx_pass *formats[QX_MIX_FORMATS]; int n; /* as listed, without "float" */
    const char *names[QX_MIX_FORMATS + 1]; /* for reports: "int4 block 32"; the last is "float" */
    bool external;                       /* weights go to a data file of their own, with its padding */
    int64_t input_bytes;                 /* of the model as it is, when written */
    const char *text;                    /* "int4+int8-weights+float", short names written out */
    bool keep_float;                     /* "float" is in the list: column n may be chosen where others can */
    const char *float_name;              /* of the part that says so */
    qx_mix_cell *cells;                  /* [items][n + 1]; the last column is float */
    bool together;                       /* readers of one tensor inside one module agree in every case */
    int64_t *group;                      /* [items]; -1: not a candidate */
    int64_t n_groups;
} qx_mix;

static inline qx_mix_cell *qx_mix_at(const qx_mix *m, int64_t item, int format) { return &m->cells[item * (m->n + 1) + format]; }

/* Parses "int4(block=128)+int8+float". In a list with a weight-only format int8 and fp8 without options mean int8-weights and
 * fp8-weights: such a list is about storage. Plans every format on the items that pass p was given, and on language model heads
 * that a default rule kept. together: readers of one tensor agree (q/k/v), also where formats are of weights alone. */
qx_status qx_mix_plan(qx_pass *p, const char *formats, bool together, qx_stats *stats, qx_mix **out);
/* Hands the item to a format (n: float). */
void qx_mix_give(const qx_mix *m, int64_t item, int format);
/* The same for a whole group. */
void qx_mix_give_group(const qx_mix *m, int64_t group, int format);
/* Whether every member of the group can have it; the sum of its bytes. */
bool qx_mix_allowed(const qx_mix *m, int64_t group, int format, int64_t *bytes);
/* run() of every format. */
qx_status qx_mix_run(const qx_mix *m, qx_model *model, qx_stats *stats);
/* Fills cell.error for every candidate and format. Without rows of x (no statistics, grouped convolutions) the error of the
 * weight alone. */
qx_status qx_mix_score(const qx_mix *m, const qx_stats *stats);

#endif
