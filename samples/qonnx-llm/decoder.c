/* decoder.c - feeds a decoder: ids, mask of ones, positions, and an empty past to begin with: the session carries what comes out as
 * "present..." to where it goes in as "past...". */
#include "decoder.h"

#include <stdlib.h>
#include <string.h>

typedef enum role { IDS, MASK, POSITION, PAST, FLAG, OTHER } role;
typedef struct slot { role role; qonnx_tensor t; void *data; } slot;

struct llm_decoder {
    qonnx_ctx *ctx;
    qonnx_session *session;
    const qonnx_port *outputs;
    slot *slots; int n_slots, n_outputs, n_past;
    qonnx_tensor *in, out;
    int64_t *ids, n_ids, done; /* all tokens so far; those that are in the past */
    float *logits;
    const char *problem;
};

static role role_of(const char *name)
{
    if (strstr(name, "past")) return PAST;
    if (strstr(name, "mask")) return MASK;
    if (strstr(name, "position")) return POSITION;
    if (strstr(name, "use_cache")) return FLAG;
    return strstr(name, "ids") || strstr(name, "tokens") ? IDS : OTHER;
}

static size_t width_of(int dtype)
{
    if (dtype == QONNX_INT64 || dtype == QONNX_DOUBLE) return 8;
    if (dtype == QONNX_FLOAT || dtype == QONNX_INT32) return 4;
    if (dtype == QONNX_FLOAT16 || dtype == QONNX_BFLOAT16) return 2;
    return dtype == QONNX_BOOL || dtype == QONNX_INT8 || dtype == QONNX_UINT8 || dtype == QONNX_FLOAT8E4M3FN ? 1 : 0;
}

/* "past_key_values.3.key" goes on as "present.3.key": what stands behind the first dot is the same. */
static int present_of(const llm_decoder *d, const char *past)
{
    const char *tail = strchr(past, '.');
    for (int i = 0; tail && i < d->n_outputs; i++) {
        const char *other = strchr(d->outputs[i].name, '.');
        if (other && !strncmp(d->outputs[i].name, "present", 7) && !strcmp(tail, other)) return i;
    }
    return -1;
}

static const char *set_up_slot(llm_decoder *d, slot *s, const qonnx_port *p, int64_t head_size)
{
    s->role = role_of(p->name);
    s->t = (qonnx_tensor){.name = p->name, .dtype = p->dtype, .rank = p->rank};
    if (!width_of(p->dtype) || p->rank > QONNX_MAX_RANK) return "an input has a type that this program does not feed";
    for (int i = 0; i < p->rank; i++) s->t.dims[i] = p->dims[i] >= 0 ? p->dims[i] : 1;
    if (s->role == OTHER) return "the model has an input that is neither ids, mask, position nor past";
    if (s->role != PAST) return NULL;
    if (p->rank != 4) return "past inputs of rank 4 are expected: [batch, heads, past, head size]";
    if (p->dims[3] < 0 && head_size <= 0) return "the model leaves the head size of its past open: give --head-size";
    if (p->dims[3] < 0) s->t.dims[3] = head_size;
    s->t.dims[2] = 0;
    const int from = present_of(d, p->name);
    d->n_past++;
    if (from < 0) return "a past input has no output that continues it";
    const qonnx_code c = qonnx_session_carry(d->session, d->outputs[from].name, p->name);
    return c == QONNX_OK ? NULL : "the past has another type than what continues it";
}

static const char *set_up(llm_decoder *d, int64_t head_size)
{
    const qonnx_port *inputs;
    d->n_slots = qonnx_session_inputs(d->session, &inputs);
    d->n_outputs = qonnx_session_outputs(d->session, &d->outputs);
    d->slots = calloc((size_t)d->n_slots + 1, sizeof *d->slots);
    d->in = calloc((size_t)d->n_slots + 1, sizeof *d->in);
    if (!d->slots || !d->in) return "out of memory";
    for (int i = 0; i < d->n_slots; i++) {
        const char *why = set_up_slot(d, &d->slots[i], &inputs[i], head_size);
        if (why) return why;
    }
    for (int i = 0; i < d->n_outputs; i++)
        if (!strcmp(d->outputs[i].name, "logits")) return NULL;
    return "the model has no output 'logits'";
}

llm_decoder *llm_open(qonnx_ctx *ctx, const char *path, const char *options, int64_t head_size, const char **why)
{
    llm_decoder *d = calloc(1, sizeof *d);
    *why = d ? NULL : "out of memory";
    if (!d) return NULL;
    d->ctx = ctx;
    if (qonnx_session_open(ctx, path, options, &d->session) == QONNX_OK) {
        *why = set_up(d, head_size);
        if (!*why) return d;
    }
    llm_close(d);
    return NULL;
}

void llm_close(llm_decoder *d)
{
    if (!d) return;
    for (int i = 0; d->slots && i < d->n_slots; i++) free(d->slots[i].data);
    qonnx_session_close(d->session);
    free(d->slots);
    free(d->in);
    free(d->ids);
    free(d->logits);
    free(d);
}

int llm_has_past(const llm_decoder *d) { return d->n_past > 0; }
const char *llm_problem(const llm_decoder *d) { return d->problem; }

/* ---- feeding ---- */

static int reserve(slot *s, int64_t elements)
{
    size_t bytes = (size_t)elements * width_of(s->t.dtype);
    void *p = realloc(s->data, bytes ? bytes : 1);
    if (!p) return 0;
    s->data = p;
    s->t.data = p;
    return 1;
}

static void put_whole(slot *s, int64_t i, int64_t v)
{
    if (s->t.dtype == QONNX_INT64) ((int64_t *)s->data)[i] = v;
    else if (s->t.dtype == QONNX_INT32) ((int32_t *)s->data)[i] = (int32_t)v;
    else if (s->t.dtype == QONNX_FLOAT) ((float *)s->data)[i] = (float)v;
    else ((uint8_t *)s->data)[i] = (uint8_t)v;
}

/* Fills everything but the past for the tokens from `done` on. */
static int fill(llm_decoder *d, slot *s)
{
    int64_t fresh = d->n_ids - d->done, n = s->role == MASK ? d->n_ids : s->role == FLAG ? 1 : fresh;
    if (s->role == PAST) return s->data || reserve(s, 0);
    if (s->t.rank > 0) s->t.dims[s->t.rank - 1] = n;
    if (!reserve(s, n)) return 0;
    for (int64_t i = 0; i < n; i++)
        put_whole(s, i, s->role == IDS ? d->ids[d->done + i] : s->role == POSITION ? d->done + i : s->role == MASK ? 1 : d->done > 0);
    return 1;
}

static qonnx_code last_logits(llm_decoder *d, float **logits, int64_t *vocab)
{
    const qonnx_tensor *o = &d->out;
    int64_t n = o->rank > 0 ? o->dims[o->rank - 1] : 0, all = qonnx_tensor_numel(o);
    d->problem = n < 1 || all < n ? "the logits are empty" : NULL;
    if (d->problem) return QONNX_FAILED;
    float *p = realloc(d->logits, (size_t)n * sizeof *p);
    d->problem = p ? NULL : "out of memory";
    if (!p) return QONNX_FAILED;
    *logits = d->logits = p;
    *vocab = n;
    return qonnx_to_float(d->ctx, o->dtype, (const char *)o->data + (size_t)(all - n) * width_of(o->dtype), n, p);
}

qonnx_code llm_push(llm_decoder *d, const int64_t *ids, int64_t n, float **logits, int64_t *vocab)
{
    int64_t *all = realloc(d->ids, (size_t)(d->n_ids + n) * sizeof *all);
    d->problem = all ? NULL : "out of memory";
    if (!all) return QONNX_FAILED;
    memcpy(all + d->n_ids, ids, (size_t)n * sizeof *ids);
    d->ids = all;
    d->n_ids += n;
    int fine = 1, n_in = 0;
    for (int i = 0; i < d->n_slots; i++) {
        if (d->slots[i].role == PAST && d->done) continue; /* the session has it */
        fine &= fill(d, &d->slots[i]);
        d->in[n_in++] = d->slots[i].t;
    }
    d->problem = fine ? NULL : "out of memory";
    if (!fine) return QONNX_FAILED;
    qonnx_code c = qonnx_session_run(d->session, d->in, n_in, (const char *[]){"logits"}, 1, &d->out);
    if (c != QONNX_OK) return c;
    if (d->n_past) d->done = d->n_ids;
    return last_logits(d, logits, vocab);
}
