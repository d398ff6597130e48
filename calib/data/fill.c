/* fill.c - inputs by name. Language models come with masks, positions and a past whose contents follow from the number of tokens; they are
 * made here, for text, for random samples and for evaluation alike. */
#include "calib/data/fill.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/weight/weight.h"

enum { MAX_CHAIN = 64 };

typedef struct role_row { const char *part; qx_role role; } role_row; /* the first row whose part is in the lower-case name wins */
static const role_row roles[] = {
    {"past", QX_ROLE_PAST}, {"use_cache", QX_ROLE_CACHE_FLAG}, {"token_type", QX_ROLE_TOKEN_TYPE}, {"segment_ids", QX_ROLE_TOKEN_TYPE},
    {"position", QX_ROLE_POSITION},
    {"mask", QX_ROLE_MASK}, {"timestep", QX_ROLE_TIMESTEP}, {"sigma", QX_ROLE_TIMESTEP}, {"time_ids", QX_ROLE_OTHER},
    {"input_ids", QX_ROLE_IDS}, {"_ids", QX_ROLE_IDS}, {"tokens", QX_ROLE_IDS},
};

static void lower_name(const char *name, char *out, size_t cap)
{
    size_t n = 0;
    for (; name[n] && n + 1 < cap; n++) out[n] = (char)tolower((unsigned char)name[n]);
    out[n] = 0;
}

qx_role qx_role_of(const qx_value *input)
{
    char name[128];
    lower_name(input->name, name, sizeof name);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strstr(name, roles[i].part)) return roles[i].role;
    return !strcmp(name, "t") ? QX_ROLE_TIMESTEP : !strcmp(name, "ids") ? QX_ROLE_IDS : QX_ROLE_OTHER;
}

/* ---- dims ---- */

static bool is_word(const char *s, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(s, *words)) return true;
    return false;
}

static bool is_fixed(const char *sym, const qx_dims_given *g)
{
    for (int i = 0; sym && i < g->n_fixes; i++)
        if (!strcmp(g->fixes[i].name, sym)) return true;
    return false;
}

static bool one_symbol(const char *text, const qx_dims_given *g, int64_t *out)
{
    static const char *const batch[] = {"b", "n", "bs", "batchsize", NULL},
        *const seq[] = {"s", "t", "l", "seq", "sequence", "seqlen", "length", "len", "n_ctx", "s0", "s1", NULL};
    static const char *const image[] = {"h", "w", "height", "width", NULL};
    char s[128];
    char *end;
    for (int i = 0; i < g->n_fixes; i++)
        if (!strcmp(g->fixes[i].name, text)) return *out = g->fixes[i].value, true;
    lower_name(text, s, sizeof s);
    long long number = strtoll(s, &end, 10);
    if (*s && !*end && number >= 0) return *out = number, true;
    if (strstr(s, "batch") || is_word(s, batch)) return *out = g->batch, true;
    if (strstr(s, "total")) return *out = g->past + g->seq, true;
    if (strstr(s, "past") || strstr(s, "cache_len")) return *out = g->past, true;
    if (strstr(s, "seq") || is_word(s, seq)) return *out = g->seq, true;
    if (strstr(s, "height") || strstr(s, "width") || is_word(s, image)) return *out = 64, true;
    return false;
}

/* A sum of names and numbers, as exporters write it: "past_sequence_length + sequence_length". A fix of the whole text comes first. */
static bool symbol_value(const char *text, const qx_dims_given *g, int64_t *out)
{
    char part[128];
    int64_t sum = 0, v;
    for (int i = 0; i < g->n_fixes; i++)
        if (!strcmp(g->fixes[i].name, text)) return *out = g->fixes[i].value, true;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "+"), from = 0, to = n;
        while (from < n && isspace((unsigned char)p[from])) from++;
        while (to > from && isspace((unsigned char)p[to - 1])) to--;
        if (to - from >= sizeof part) return false;
        memcpy(part, p + from, to - from);
        part[to - from] = 0;
        if (!one_symbol(part, g, &v) || v < 0) return false;
        sum += v;
        p += n + (p[n] == '+');
    }
    return *out = sum, true;
}

static qx_node *attention_of(const qx_value *past)
{
    for (const qx_use *u = past->uses; u; u = u->next)
        if (!strcmp(u->node->op_type, "GroupQueryAttention") || !strcmp(u->node->op_type, "MultiHeadAttention")) return u->node;
    return NULL;
}

static int64_t last_dim(const qx_value *v)
{
    return v && v->type.kind == QX_KIND_TENSOR && v->type.has_shape && v->type.rank > 0 ? v->type.dims[v->type.rank - 1].n : -1;
}

/* Head size of a past whose own type leaves it open: from the attention that takes it. */
static int64_t head_size(const qx_value *past)
{
    const qx_node *n = attention_of(past);
    if (!n) return -1;
    int64_t heads = qx_attr_int(n, "num_heads", 0), kv = qx_attr_int(n, "kv_num_heads", heads), width = last_dim(qx_node_in(n, 0));
    if (heads < 1 || width < 1) return -1;
    int64_t parts = qx_node_in(n, 1) ? heads : heads + 2 * kv; /* packed: q, k and v side by side */
    return width % parts ? -1 : width / parts;
}

/* What a weight fixes of an open dim: the columns that a product sums over, the channels of a convolution or a norm. -1: nothing known.
 * Followed through operators whose result has the dims of their input. */
static int64_t weight_dim(const qx_value *v, int d, int depth)
{
    static const char *const same[] = {"Cast", "Identity", "Relu", "Sigmoid", "Tanh", "Gelu", "LayerNormalization", "RMSNormalization",
                                       "SimplifiedLayerNormalization", "Dropout", "QuantizeLinear", "DequantizeLinear", NULL};
    const int last = v->type.rank - 1;
    for (const qx_use *u = v->uses; u && depth < MAX_CHAIN; u = u->next) {
        const qx_node *n = u->node;
        const qx_value *w = qx_node_in(n, 1);
        const qx_type *t = w && w->type.kind == QX_KIND_TENSOR && w->type.has_shape ? &w->type : NULL;
        if (u->index) continue;
        if (!strcmp(n->op_type, "MatMul") && t && t->rank >= 2 && d == last) return t->dims[t->rank - 2].n;
        if (!strcmp(n->op_type, "Gemm") && t && t->rank == 2 && d == last && !qx_attr_int(n, "transA", 0))
            return t->dims[qx_attr_int(n, "transB", 0) ? 1 : 0].n;
        if (!strcmp(n->op_type, "Conv") && t && t->rank > 2 && d == 1 && t->dims[1].n > 0 && t->dims[1].n < INT32_MAX)
            return t->dims[1].n * qx_attr_int(n, "group", 1);
        if (!strcmp(n->op_type, "BatchNormalization") && t && t->rank == 1 && d == 1) return t->dims[0].n;
        int64_t behind = is_word(n->op_type, same) && n->out[0] ? weight_dim(n->out[0], d, depth + 1) : -1;
        if (behind > 0) return behind;
    }
    return -1;
}

/* A size for a dim whose name says nothing: one sample, a picture of 256 x 256 (few channels) or a latent of 64 x 64, a second of
 * sound, else a sequence. */
static int64_t guess(const qx_type *t, int d, const qx_dims_given *g)
{
    if (d == 0) return g->batch;
    if (t->rank >= 4)
        return (t->dims[1].n > 0 && t->dims[1].n <= 4) || (t->dims[t->rank - 1].n > 0 && t->dims[t->rank - 1].n <= 4) ? 256 : 64;
    return t->rank == 2 && qx_dtype_is_float(t->dtype) ? 16000 : g->seq;
}

qx_status qx_input_dims(qx_ctx *ctx, const qx_value *input, const qx_dims_given *g, int64_t *dims)
{
    const qx_type *t = &input->type;
    if (t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank > QX_MAX_RANK)
        QX_FAIL(ctx, QX_E_USAGE, "input '%s' has no known shape: give it in an .npz file", input->name);
    for (int d = 0; d < t->rank; d++) {
        dims[d] = t->dims[d].n;
        if (dims[d] < 0 && !is_fixed(t->dims[d].sym, g)) dims[d] = weight_dim(input, d, 0);
        if (dims[d] >= 0 || (t->dims[d].sym && symbol_value(t->dims[d].sym, g, &dims[d]))) continue;
        if (qx_role_of(input) == QX_ROLE_PAST && d == t->rank - 1 && (dims[d] = head_size(input)) > 0) continue;
        if (g->guess) {
            dims[d] = guess(t, d, g);
            continue;
        }
        QX_FAIL(ctx, QX_E_USAGE, "input '%s': dim %d ('%s') is open and its name does not tell its size: give --dim %s=N", input->name,
                d, t->dims[d].sym ? t->dims[d].sym : "?", t->dims[d].sym ? t->dims[d].sym : "NAME");
    }
    return QX_OK;
}

/* ---- contents ---- */

/* Input `index` of n holds row numbers of this table; NULL when it does not. */
static const qx_value *indexed_table(const qx_node *n, uint32_t index)
{
    if (!strcmp(n->op_type, "EmbedLayerNormalization")) return index < 2 ? qx_node_in(n, index ? 4 : 2) : NULL;
    bool gathers = (!strcmp(n->op_type, "Gather") && qx_attr_int(n, "axis", 0) == 0) ||
        (!strcmp(n->op_type, "GatherBlockQuantized") && qx_attr_int(n, "gather_axis", 0) == 0);
    return gathers && index == 1 ? n->in[0] : NULL;
}

static int64_t rows_below(const qx_value *v, int depth)
{
    static const char *const same[] = {"Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Transpose", "Expand", NULL};
    int64_t least = 0;
    for (const qx_use *u = v->uses; u && depth < MAX_CHAIN; u = u->next) {
        const qx_value *table = indexed_table(u->node, u->index);
        int64_t rows = 0;
        if (table && table->type.kind == QX_KIND_TENSOR && table->type.has_shape && table->type.rank == 2) rows = table->type.dims[0].n;
        else if (u->index == 0 && is_word(u->node->op_type, same) && u->node->out[0]) rows = rows_below(u->node->out[0], depth + 1);
        if (rows > 0 && (!least || rows < least)) least = rows;
    }
    return least;
}

bool qx_input_idle(const qx_value *input) { return !input->uses && !input->is_output; }

int64_t qx_embedding_rows(const qx_value *input) { return rows_below(input, 0); }

qx_status qx_set_element(qx_ctx *ctx, qx_tensor *t, int64_t i, double v, const char *name)
{
    if (t->dtype == QX_DT_INT64) return ((int64_t *)t->data)[i] = (int64_t)v, QX_OK;
    if (t->dtype == QX_DT_DOUBLE) return ((double *)t->data)[i] = v, QX_OK;
    float f = (float)v;
    int bits = qx_dtype_bits(t->dtype);
    if (bits < 8 || !qx_from_f32(t->dtype, &f, 1, (char *)t->data + i * (bits / 8)))
        QX_FAIL(ctx, QX_E_TYPE, "input '%s': %s cannot be filled", name, qx_dtype_get(t->dtype)->text);
    return QX_OK;
}

static double value_for(qx_role role, const qx_dims_given *g, int64_t i, int64_t last)
{
    if (role == QX_ROLE_MASK) return 1;
    if (role == QX_ROLE_POSITION) return (double)(g->past + i % last);
    return 0;
}

qx_status qx_fill_input(qx_ctx *ctx, const qx_value *input, const qx_dims_given *g, qx_tensor *out)
{
    int64_t dims[QX_MAX_RANK];
    QX_TRY(qx_input_dims(ctx, input, g, dims));
    QX_TRY(qx_tensor_new(ctx, out, input->type.dtype, input->type.rank, dims));
    qx_role role = qx_role_of(input);
    int64_t last = out->rank > 0 && out->dims[out->rank - 1] > 0 ? out->dims[out->rank - 1] : 1;
    qx_status st = QX_OK;
    for (int64_t i = 0; i < out->numel && st == QX_OK && value_for(role, g, last - 1, last) != 0; i++)
        st = qx_set_element(ctx, out, i, value_for(role, g, i, last), input->name);
    if (st != QX_OK) qx_tensor_free(ctx, out);
    return st;
}
