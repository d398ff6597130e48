/* rules.c - default exclusions: by name (whole path components, so that "mlp.gate" does not find "mlp.gate_proj"), by size, by level. */
#include "passes/place/rules.h"

#include <stdio.h>
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/linear_read.h"

typedef enum group { every, head, vision, fine } group;
static const struct keep { group g; const char *path, *what; } keeps[] = {
#define QX_KEEP(g, path, what) {g, path, what},
#include "passes/place/keep.def"
#undef QX_KEEP
};

static bool is_separator(char c) { return c == '/' || c == '.' || c == 0; }

/* Length of path at s when it matches there up to a separator, else 0; '.' of the path matches '/' and '.'. */
static size_t match_here(const char *s, const char *path)
{
    size_t i = 0;
    for (; path[i]; i++)
        if (path[i] == '.' ? !s[i] || !is_separator(s[i]) : s[i] != path[i]) return 0;
    return is_separator(s[i]) ? i : 0;
}

bool qx_path_has(const char *name, const char *path, bool only_first)
{
    const char *s = name;
    while (*s && is_separator(*s)) s++;
    for (;;) {
        if (match_here(s, path)) return true;
        if (only_first) return false;
        while (!is_separator(*s)) s++;
        if (!*s) return false;
        s++;
    }
}

static const struct keep *find_keep(const qx_linear *l)
{
    for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
        bool first = keeps[i].g == head;
        if (qx_path_has(l->path, keeps[i].path, first) || qx_path_has(l->w_path, keeps[i].path, first)) return &keeps[i];
    }
    return NULL;
}

const char *qx_rule_name(const qx_linear *l, bool with_vision)
{
    const struct keep *k = find_keep(l);
    if (l->embedding) return "embedding";
    if (l->recurrent) return "recurrence";
    if (k && k->g != fine && (k->g != vision || with_vision)) return k->what;
    return qx_rule_is_head(l) ? "language model head" : NULL;
}

bool qx_rule_is_vision(const qx_linear *l)
{
    const struct keep *k = find_keep(l);
    return k && k->g == vision;
}

bool qx_rule_wants_eight(const qx_linear *l)
{
    const struct keep *k = find_keep(l);
    return k && k->g == fine;
}

const qx_value *qx_rule_head_output(const qx_linear *l)
{
    enum { MAX_TAIL = 8, LEAST_VOCABULARY = 512 };
    if (!l->w || !l->plain || l->n < LEAST_VOCABULARY || l->n < 4 * l->k) return NULL;
    const qx_value *v = qx_node_out(l->node, 0);
    for (int i = 0; v && i < MAX_TAIL; i++) {
        if (v->is_output) return v;
        if (v->n_uses != 1 || !(v->uses->node->op->traits & QX_T_POINTWISE)) return NULL;
        v = qx_node_out(v->uses->node, 0);
    }
    return NULL;
}

bool qx_rule_is_head(const qx_linear *l) { return qx_rule_head_output(l) != NULL; }

bool qx_rule_names_head(const qx_linear *l)
{
    const struct keep *k = find_keep(l);
    if (l->embedding || l->recurrent) return false;
    return k ? strstr(k->what, "language model head") != NULL : qx_rule_is_head(l);
}

bool qx_rule_is_table(const qx_linear *l) { return l->w && (l->embedding || l->recurrent || qx_rule_names_head(l)); }

bool qx_rule_may_store(const qx_linear *l, bool with_vision, qx_target target, const qx_dim *batch)
{
    char detail[120];
    const struct keep *k = find_keep(l);
    if (!l->w || qx_rule_is_table(l) || !k || !qx_rule_name(l, with_vision) || strstr(k->what, "router")) return false;
    if (target == QX_TARGET_ORT && (l->is_conv || qx_rule_one_row(l, batch))) return false;
    return qx_rule_size(l, QX_FAMILY_INT8, detail, sizeof detail) == QX_WHY_NONE;
}

/* Cosines and sines picked by position, gates: what each row does to the output is no sum of small parts. */
static bool only_multiplies(const qx_value *v, int depth)
{
    enum { DEEPEST = 8 };
    if (v->is_output || !v->uses || depth > DEEPEST) return false;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_node *n = u->node;
        const bool product = n->op->id == QX_OP_Mul && qx_node_in(n, 1 - u->index) && qx_is_variable(n->in[1 - u->index]),
            moved = u->index == 0 && n->n_out == 1 && (n->op->traits & QX_T_COPY || n->op->id == QX_OP_Cast);
        if (!product && !(moved && only_multiplies(n->out[0], depth + 1))) return false;
    }
    return true;
}

const char *qx_rule_float_table(const qx_linear *l, int64_t all)
{
    enum { LEAST = 8192, LARGE = 1 << 20, ONE_IN = 50 };
    const int64_t saved = (int64_t)l->w->bytes - l->w->numel;
    /* of a model of 70 G parameters a table is 1 %, and in 16 bits the tenth of its 4-bit file */
    if (l->w->numel < LEAST || (l->w->numel < LARGE && saved < all / ONE_IN)) return "small";
    if (l->embedding && only_multiplies(l->node->out[0], 0)) return "factors";
    return NULL;
}

bool qx_rule_needs_blocks(const qx_linear *l, qx_target target)
{
    return l->recurrent && (l->channel_axis < 0 || target == QX_TARGET_OPENVINO);
}

static bool is_square(const qx_conv_window *w)
{
    for (int i = 1; i < w->rank; i++)
        if (w->kernel[i] != w->kernel[0]) return false;
    return true;
}

static bool each_kernel_at_least(const qx_conv_window *w, int64_t k)
{
    for (int i = 0; i < w->rank; i++)
        if (w->kernel[i] < k) return false;
    return true;
}

/* Convolutions with few channels have no INT8 kernel on the usual devices; the exceptions are the peer's table. */
static bool int8_conv_fits(const qx_linear *l, int64_t oc, int64_t ic)
{
    if (oc >= 16 && ic >= 16) return true;
    if (l->group > 1) return oc % 8 == 0 && each_kernel_at_least(&l->window, 3);
    bool one_side = l->x->is_input || oc >= 16 || ic >= 16;
    return (oc % 8 == 0 || ic % 8 == 0) && one_side && is_square(&l->window);
}

static qx_why conv_size(const qx_linear *l, qx_family family, char *detail, size_t cap)
{
    int64_t oc = l->w->dims[0], ic = l->w->dims[1]; /* the weight's dims 0 and 1, for ConvTranspose too */
    int64_t volume = l->window.kernel[0] * l->window.kernel[1] * l->window.kernel[2];
    bool image_end = l->group == 1 && (oc <= 4 || ic <= 4);
    snprintf(detail, cap, "%lld and %lld", (long long)oc, (long long)ic);
    if (family == QX_FAMILY_FP8 && (oc <= 16 || ic <= 16)) return QX_WHY_FEW_CHANNELS;
    if (family == QX_FAMILY_INT8 && (image_end || !int8_conv_fits(l, oc, ic))) return QX_WHY_FEW_CHANNELS;
    snprintf(detail, cap, "%lld elements, at most 32", (long long)volume);
    if (family == QX_FAMILY_FP8 && volume > 32) return QX_WHY_LARGE_KERNEL;
    return QX_WHY_NONE;
}

qx_why qx_rule_size(const qx_linear *l, qx_family family, char *detail, size_t cap)
{
    enum { LEAST = 16 };
    detail[0] = 0;
    const bool ordinary = l->plain || l->is_conv || l->embedding; /* others may be no layer at all: tables of angles, masks, reductions */
    if (!l->w || l->embedding || (family == QX_FAMILY_WEIGHT_ONLY && ordinary)) return QX_WHY_NONE;
    if (l->is_conv) return conv_size(l, family, detail, cap);
    snprintf(detail, cap, "K %lld, at least %d", (long long)l->k, LEAST);
    if (l->k < LEAST) return QX_WHY_SMALL_K;
    snprintf(detail, cap, "N %lld, at least %d", (long long)l->n, LEAST);
    if (l->n < LEAST) return QX_WHY_SMALL_N;
    return QX_WHY_NONE;
}

qx_dim qx_rule_batch(const qx_model *m)
{
    const qx_dim none = {-1, NULL};
    qx_dim batch = none;
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) {
        const qx_value *v = m->graph->inputs[i];
        if (v->init || v->type.kind != QX_KIND_TENSOR || !v->type.has_shape || v->type.rank < 2) continue;
        if ((batch.n >= 0 || batch.sym) && !qx_dim_same(batch, v->type.dims[0])) return none;
        batch = v->type.dims[0];
    }
    return batch;
}

bool qx_rule_one_row(const qx_linear *l, const qx_dim *batch)
{
    const qx_type *t = &l->x->type;
    if (!(l->plain || l->is_conv) || t->kind != QX_KIND_TENSOR || !t->has_shape) return false;
    const int channels = l->is_conv ? 1 : t->rank - 1;
    for (int i = 0; i < t->rank; i++)
        if (i != channels && t->dims[i].n != 1 && (i || !qx_dim_same(t->dims[0], *batch))) return false;
    return true;
}

int qx_rule_up_block(const qx_linear *l)
{
    const char *at = strstr(l->path, "up_blocks");
    if (!at || !is_separator(at[9]) || at[10] < '0' || at[10] > '9') return -1;
    return at[11] >= '0' && at[11] <= '9' ? (at[10] - '0') * 10 + at[11] - '0' : at[10] - '0';
}

bool qx_rule_above_level(const qx_linear *l, double level)
{
    static const char *const qkv[] = {"to_q", "to_k", "to_v", "to_qkv"};
    const char *name = l->path;
    if (level <= 0 || l->is_conv || l->embedding) return false;
    /* Flux: half of a block's feed-forward */
    if (level >= 3) return qx_path_has(name, "proj_out", false) && !qx_path_has(name, "single_transformer_blocks", false);
    if (level >= 2 && qx_path_has(name, "ff.net", false)) return false;
    for (size_t i = 0; level >= 2.5 && i < sizeof qkv / sizeof *qkv; i++)
        if (qx_path_has(name, qkv[i], false)) return false;
    return true;
}
