/* source_text.c - text through a tokenizer, cut into windows of seq_len tokens; masks, positions and an empty past are filled in. */
#include "calib/data/source.h"

#include "base/file.h"

#include <string.h>

enum { SHORT = 64 }; /* windows of fewer tokens are never halved */

typedef struct chunks { int64_t *ids, n, len; bool fixed; } chunks; /* fixed: the model takes windows of this length only */

static qx_status ids_into(qx_samples *s, const qx_value *v, qx_tensor *t, const int64_t *ids, int64_t n)
{
    if (t->rank < 1 || t->dims[t->rank - 1] != n || t->numel != n) {
        char shape[96];
        QX_FAIL(s->ctx, QX_E_SHAPE, "input '%s' is %s; a window of text has %lld tokens (see --seq-len)", v->name,
                qx_tensor_describe(t, shape, sizeof shape), (long long)n);
    }
    for (int64_t i = 0; i < n; i++) QX_TRY(qx_set_element(s->ctx, t, i, (double)ids[i], v->name));
    return QX_OK;
}

static qx_status text_get(qx_source_of *src, int64_t i, qx_tensor *out)
{
    qx_samples *s = src->owner;
    const chunks *c = src->state;
    qx_dims_given dims = s->dims;
    int64_t from = i * c->len;
    dims.seq = c->n - from < c->len ? c->n - from : c->len;
    if (s->half && !c->fixed && dims.seq >= SHORT) dims.seq /= 2;
    for (uint32_t k = 0; k < s->n_inputs; k++) {
        const qx_value *v = s->inputs[k];
        if (v->init && qx_role_of(v) != QX_ROLE_IDS) continue;
        QX_TRY(qx_fill_input(s->ctx, v, &dims, &out[k]));
        if (qx_role_of(v) == QX_ROLE_IDS) QX_TRY(ids_into(s, v, &out[k], c->ids + from, dims.seq));
    }
    return QX_OK;
}

static void text_free(qx_source_of *src) { qx_free(src->owner->ctx, ((chunks *)src->state)->ids); }

static const qx_sourcedef text_source = {.get = text_get, .free = text_free};

static bool takes_ids(const qx_samples *s)
{
    for (uint32_t i = 0; i < s->n_inputs; i++)
        if (qx_role_of(s->inputs[i]) == QX_ROLE_IDS) return true;
    return false;
}

qx_status qx_text_ids(qx_ctx *ctx, const char *path, const char *tokenizer, int64_t **ids, int64_t *n)
{
    enum { TEXT_CAP = 1 << 30 };
    qx_tokenizer *t;
    char *text;
    size_t len;
    QX_TRY(qx_tokenizer_open(ctx, tokenizer, &t));
    qx_status st = qx_file_slurp(ctx, path, TEXT_CAP, &text, &len);
    if (st == QX_OK) {
        st = qx_tokenizer_encode(t, text, len, ids, n);
        if (st != QX_OK) st = qx_note(ctx, st, "%s", path);
        qx_free(ctx, text);
    }
    qx_tokenizer_free(t);
    return st;
}

/* The length that every window must have when the model fixes it; 0 when it does not. */
static int64_t fixed_length(const qx_samples *s)
{
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        const qx_value *v = s->inputs[i];
        if (qx_role_of(v) == QX_ROLE_IDS && v->type.has_shape && v->type.rank > 0 && v->type.dims[v->type.rank - 1].n > 0)
            return v->type.dims[v->type.rank - 1].n;
    }
    return 0;
}

qx_status qx_source_text(qx_samples *s, const char *text, const char *tokenizer, int64_t seq_len)
{
    if (!takes_ids(s)) QX_FAIL(s->ctx, QX_E_USAGE, "--text: the model has no input of token ids. It takes: %s", qx_inputs_text(s));
    chunks *c = qx_arena_alloc(s->arena, sizeof *c);
    if (!c) return QX_E_NOMEM;
    int64_t fixed = fixed_length(s);
    c->len = fixed ? fixed : seq_len;
    c->fixed = fixed > 0;
    s->dims.seq = c->len;
    QX_TRY(qx_text_ids(s->ctx, text, tokenizer, &c->ids, &c->n));
    int64_t count = c->n / c->len; /* a remainder shorter than a window is left out */
    if (count == 0 && c->n > 0 && !fixed) count = 1;
    qx_status st = count ? QX_OK : qx_fail(s->ctx, QX_E_USAGE, "%s: %lld tokens are less than one window of %lld", text, (long long)c->n,
                                           (long long)c->len);
    const char *label = qx_arena_printf(s->arena, "%s (windows of %lld tokens)", text, (long long)c->len);
    if (st == QX_OK) st = label ? qx_source_add(s, &text_source, label, count, c) : QX_E_NOMEM;
    if (st != QX_OK) qx_free(s->ctx, c->ids);
    return st;
}
