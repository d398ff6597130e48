/* encode.c - prompts to the tensors that the UNet takes: tokens, both text encoders, the layer before the last. */
#include <stdio.h>
#include <string.h>

#include "pipeline.h"

void sx_cond_free(sx_cond *c)
{
    sx_free(c->hidden);
    sx_free(c->pooled);
    *c = (sx_cond){0};
}

static int count_hidden(const sx_model *m)
{
    int n = 0;
    for (int i = 0; i < m->n_out; i++) n += strncmp(m->out[i].name, "hidden_states.", 14) == 0;
    return n;
}

static int no_hidden(sx_err *e, const sx_model *m, int layer)
{
    sx_text t = {0};
    sx_describe_ports(m->out, m->n_out, &t);
    sx_fail(e, SX_UNSUPPORTED, "%s '%s': no hidden state of layer %d: expected an output hidden_states.%d or hidden_states, or a value "
            "/text_model/encoder/layers.%d/Add_1_output_0; the graph's outputs are: %s", m->what, m->path, layer, layer, layer - 1,
            t.s ? t.s : "");
    sx_text_free(&t);
    return e->code;
}

/* XL: the hidden state before the last layer, further back by skip. */
static int name_hidden_xl(sx_err *e, sx_model *m, int layers, int skip, char **name)
{
    int states = count_hidden(m);
    if (states > 1) layers = states - 1;
    int layer = layers - 1 - skip;
    if (layers > 0 && layer < 0) return sx_fail(e, SX_USAGE, "clip skip %d, but the %s has %d layers", skip, m->what, layers);
    SX_TRY(sx_printf(e, name, "hidden_states.%d", layer));
    if (states > 1 && sx_find_port(m->out, m->n_out, *name) >= 0) return SX_OK;
    sx_free(*name);
    *name = NULL;
    int whole = sx_find_port(m->out, m->n_out, "hidden_states");
    if (whole >= 0 && skip == 0) return sx_strdup(e, "hidden_states", name);
    if (layer < 1) return no_hidden(e, m, layer);
    SX_TRY(sx_printf(e, name, "/text_model/encoder/layers.%d/Add_1_output_0", layer - 1));
    return qonnx_session_expose(m->session, *name) == QONNX_OK ? SX_OK : no_hidden(e, m, layer);
}

static int name_hidden(sx_err *e, sx_pipe *p, int k, int skip, char **name)
{
    static const sx_role last[1] = {{{"last_hidden_state", "text_embeddings"}, .rank = 3, .rank2 = -1}};
    sx_model *m = &p->text[k];
    int i;
    if (p->folder->model[SX_TEXT2]) return name_hidden_xl(e, m, p->folder->text_layers[k], skip, name);
    if (skip)
        return sx_fail(e, SX_UNSUPPORTED, "clip skip %d needs the final layer norm, which this kind of export does not give apart", skip);
    SX_TRY(sx_bind(e, m, true, last, 1, false, &i));
    return sx_strdup(e, m->out[i].name, name);
}

/* All that may be read, named before the first run: values inside a graph can be exposed only then. */
static int name_outputs(sx_err *e, sx_pipe *p, int k)
{
    static const sx_role pooled[1] = {{{"text_embeds", "pooled_embeddings", "text_embeddings"}, .rank = 2, .rank2 = -1}};
    sx_model *m = &p->text[k];
    int i;
    SX_TRY(name_hidden(e, p, k, 0, &p->hidden_name[k][0]));
    SX_TRY(name_hidden(e, p, k, p->clip_skip, &p->hidden_name[k][1]));
    if (k != 1) return SX_OK;
    SX_TRY(sx_bind(e, m, true, pooled, 1, false, &i));
    return sx_strdup(e, m->out[i].name, &p->pooled_name);
}

static int open_encoder(sx_err *e, sx_pipe *p, int k)
{
    const sx_folder *f = p->folder;
    if (!f->model[SX_TEXT1 + k] || p->text[k].session) return SX_OK;
    SX_TRY(sx_clip_open(e, k ? f->tokenizer_2 : f->tokenizer, &p->tok[k]));
    SX_TRY(sx_pipe_open_part(e, p, k ? "text encoder 2" : "text encoder", SX_TEXT1 + k, &p->text[k]));
    return name_outputs(e, p, k);
}

typedef struct part { float *hidden; int tokens, dim; float *pooled; int pool, dropped; } part;

static int as_part(sx_err *e, const sx_model *m, sx_fetch *out, int n_out, part *r)
{
    if (out[0].rank != 3 || out[0].n < 1)
        return sx_fail(e, SX_UNSUPPORTED, "%s: output '%s' has rank %d, expected 3", m->what, out[0].name, out[0].rank);
    r->tokens = (int)out[0].dims[1];
    r->dim = (int)out[0].dims[2];
    r->hidden = out[0].f;
    if (n_out < 2) return SX_OK;
    if (out[1].rank != 2) return sx_fail(e, SX_UNSUPPORTED, "%s: output '%s' has rank %d, expected 2", m->what, out[1].name, out[1].rank);
    r->pool = (int)out[1].dims[1];
    r->pooled = out[1].f;
    return SX_OK;
}

/* A graph with a fixed batch gets the same row in every place; row 0 is used. */
static int run_encoder(sx_err *e, sx_pipe *p, int k, const char *hidden, const char *prompt, part *r)
{
    static const sx_role roles[2] = {{{"input_ids", "tokens", "input"}, .rank = 2, .rank2 = -1, .integer = true},
                                     {{"attention_mask"}, .rank = 2, .rank2 = -1, .integer = true, .optional = true}};
    sx_model *m = &p->text[k];
    int at[2];
    SX_TRY(sx_bind(e, m, false, roles, 2, true, at));
    const qonnx_port *port = &m->in[at[0]];
    int64_t batch = port->rank == 2 && port->dims[0] > 0 ? port->dims[0] : 1,
        len = port->rank == 2 && port->dims[1] > 0 ? port->dims[1] : sx_clip_max_length(p->tok[k]);
    if (batch > 64 || len > 4096)
        return sx_fail(e, SX_UNSUPPORTED, "%s: input_ids of %lld x %lld", m->what, (long long)batch, (long long)len);
    int64_t *ids, *ones;
    SX_TRY(SX_NEW(e, batch * len * 2, &ids));
    ones = ids + batch * len;
    int rc = sx_clip_encode(e, p->tok[k], prompt, ids, (int)len, &r->dropped);
    for (int64_t b = 1; b < batch; b++) memcpy(ids + b * len, ids, (size_t)len * sizeof *ids);
    for (int64_t i = 0; i < batch * len; i++) ones[i] = 1;
    sx_feed in[2] = {{.port = at[0], .rank = 2, .dims = {batch, len}, .ids = ids},
                     {.port = at[1], .rank = 2, .dims = {batch, len}, .ids = ones}};
    sx_fetch out[2] = {{.name = hidden}, {.name = p->pooled_name}};
    int n_in = at[1] >= 0 ? 2 : 1, n_out = k == 1 ? 2 : 1;
    if (rc == SX_OK) rc = sx_model_run(e, m, in, n_in, out, n_out);
    if (rc == SX_OK) rc = as_part(e, m, out, n_out, r);
    int64_t bad = 0;
    for (int i = 0; rc == SX_OK && i < n_out; i++)
        for (size_t j = 0; j < out[i].n; j++) bad += !__builtin_isfinite(out[i].f[j]);
    if (rc == SX_OK && bad) rc = sx_model_blame(e, m, in, n_in, out, n_out, bad);
    for (int i = 0; rc != SX_OK && i < n_out; i++) sx_free(out[i].f);
    if (rc != SX_OK) *r = (part){0};
    sx_free(ids);
    return rc;
}

/* Hidden states side by side; pooled from the second encoder only. */
static int join(sx_err *e, const part *a, const part *b, sx_cond *out)
{
    const part *any = a->hidden ? a : b;
    if (a->hidden && b->hidden && a->tokens != b->tokens)
        return sx_fail(e, SX_UNSUPPORTED, "text encoders give %d and %d tokens, expected the same", a->tokens, b->tokens);
    *out = (sx_cond){.tokens = any->tokens, .dim = a->dim + b->dim, .pool = b->pool,
                     .dropped = a->dropped > b->dropped ? a->dropped : b->dropped};
    SX_TRY(SX_NEW(e, (size_t)out->tokens * (size_t)out->dim, &out->hidden));
    for (int t = 0; t < out->tokens; t++) {
        float *row = out->hidden + (size_t)t * (size_t)out->dim;
        if (a->dim) memcpy(row, a->hidden + (size_t)t * (size_t)a->dim, (size_t)a->dim * sizeof *row);
        if (b->dim) memcpy(row + a->dim, b->hidden + (size_t)t * (size_t)b->dim, (size_t)b->dim * sizeof *row);
    }
    if (!b->pooled) return SX_OK;
    SX_TRY(SX_NEW(e, b->pool, &out->pooled));
    memcpy(out->pooled, b->pooled, (size_t)b->pool * sizeof(float));
    return SX_OK;
}

/* Both encoders; layer is the index into hidden_name. */
static int encode(sx_err *e, sx_pipe *p, const char *prompt, int layer, sx_cond *out)
{
    part parts[2] = {{0}};
    int rc = SX_OK;
    *out = (sx_cond){0};
    for (int k = 0; rc == SX_OK && k < 2; k++) {
        rc = open_encoder(e, p, k);
        double t0 = sx_seconds();
        if (rc == SX_OK && p->text[k].session) rc = run_encoder(e, p, k, p->hidden_name[k][layer], prompt, &parts[k]);
        p->seconds_text += sx_seconds() - t0;
    }
    if (rc == SX_OK) rc = join(e, &parts[0], &parts[1], out);
    for (int k = 0; k < 2; k++) {
        sx_free(parts[k].hidden);
        sx_free(parts[k].pooled);
    }
    if (rc != SX_OK) sx_cond_free(out);
    return rc;
}

int sx_encode(sx_err *e, sx_pipe *p, const char *prompt, sx_cond *out) { return encode(e, p, prompt, 1, out); }

int sx_encode_negative(sx_err *e, sx_pipe *p, const char *prompt, sx_cond *out)
{
    SX_TRY(encode(e, p, prompt ? prompt : "", 0, out));
    if (prompt || !p->folder->force_zeros) return SX_OK;
    memset(out->hidden, 0, (size_t)out->tokens * (size_t)out->dim * sizeof(float));
    if (out->pooled) memset(out->pooled, 0, (size_t)out->pool * sizeof(float));
    return SX_OK;
}
