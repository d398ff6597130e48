/* linear.c - the list of linear operators of a model, and the attention products among them: found by structure. How one operator is read:
 * linear_read.c. */
#include "passes/linear/linear.h"

#include <string.h>

#include "passes/linear/linear_read.h"

typedef struct finder { qx_model *m; qx_linears *out; int64_t cap; int32_t *group_of; } finder;

static qx_status add(finder *f, const qx_linear *read)
{
    qx_linears *ls = f->out;
    QX_TRY(qx_arena_grow(f->m->arena, (void **)&ls->items, ls->count, &f->cap, sizeof *ls->items));
    qx_linear *l = &ls->items[ls->count];
    *l = *read;
    l->index = ls->count++;
    if (f->group_of[l->x->id] == 0) f->group_of[l->x->id] = (int32_t)++ls->n_groups;
    l->group_id = f->group_of[l->x->id] - 1;
    return QX_OK;
}

static qx_status visit(void *user, qx_node *n)
{
    qx_linear read;
    for (uint32_t part = 0; qx_linear_read(n, part, &read); part++) QX_TRY(add(user, &read));
    return QX_OK;
}

/* ---- where an operator is ------------------------------------------------------------------------------------------- */

static const char *node_path(const qx_node *n) { return n->scope ? n->scope : n->name; }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Length of the first component of "/m/blocks.0/to_q" or "m.blocks.0.to_q"; 0 when it is the only one. */
static size_t first_part(const char *path, const char **part)
{
    bool slashes = *path == '/';
    *part = path + slashes;
    size_t n = strcspn(*part, slashes ? "/" : ".");
    return (*part)[n] ? n : 0;
}

/* Whether the component is one of a list: "blocks.0" in "/blocks.0/to_q", "blocks" in "blocks.0.to_q". */
static bool is_numbered(const char *part, size_t n) { return is_digit(part[n - 1]) || is_digit(part[n + 1]); }

/* The module that holds all others ("m" where a program exported class M with a member m), or length 0. */
static size_t find_wrapper(const qx_model *m, const char **wrapper)
{
    size_t length = 0;
    QX_FOR_NODES(m->graph, n) {
        const char *part;
        size_t k = first_part(node_path(n), &part);
        if (!k) continue;
        if (is_numbered(part, k) || (length && (k != length || memcmp(part, *wrapper, k) != 0))) return 0;
        *wrapper = part;
        length = k;
    }
    return length;
}

static const char *below(const char *path, const char *wrapper, size_t length)
{
    const char *part;
    size_t k = first_part(path, &part);
    return k && k == length && memcmp(part, wrapper, k) == 0 ? part + k + 1 : path;
}

static void set_paths(const qx_model *m, qx_linears *ls)
{
    const char *wrapper = "";
    size_t length = find_wrapper(m, &wrapper);
    for (int64_t i = 0; i < ls->count; i++) {
        qx_linear *l = &ls->items[i];
        l->path = below(node_path(l->node), wrapper, length);
        l->w_path = l->w_init ? below(l->w_init->name, wrapper, length) : "";
    }
}

qx_status qx_linears_find(qx_model *m, qx_linears *out)
{
    *out = (qx_linears){0};
    finder f = {m, out, 0, NULL};
    QX_TRY(qx_alloc_array(m->ctx, m->n_values + 1, sizeof *f.group_of, (void **)&f.group_of));
    qx_status st = qx_model_each_node(m, visit, &f);
    qx_free(m->ctx, f.group_of);
    set_paths(m, out);
    return st;
}

const qx_conv_window *qx_linear_window(const qx_linear *l) { return l->is_conv || l->columns ? &l->window : NULL; }
int qx_linear_axis(const qx_linear *l) { return l->is_conv ? 1 : l->columns ? l->x->type.rank - 2 : -1; }
bool qx_linear_reads_rows(const qx_linear *l) { return l->rows && !l->is_conv && !l->columns; }

bool qx_feeds_biased_matmul(const qx_value *v)
{
    if (v->type.kind == QX_KIND_TENSOR && v->type.has_shape && v->type.rank == 2) return false;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_value *y = u->node->op->id == QX_OP_MatMul && u->index == 0 ? u->node->out[0] : NULL;
        if (y && y->n_uses == 1 && y->uses->node->op->id == QX_OP_Add) return true;
    }
    return false;
}

qx_status qx_linear_store(qx_model *m, const qx_linear *l, const qx_step *step)
{
    qx_qspec *spec = qx_arena_alloc(m->arena, sizeof *spec);
    qx_job *job;
    if (!spec || !step) return QX_E_NOMEM;
    spec->codes = l->w->dtype;
    QX_TRY(qx_job_new(m, l->w, &l->view, step, spec, QX_LAYOUT_SAME, &job));
    return qx_init_replace(l->w_init, job->part[QX_PART_CODES]);
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

enum { MAX_WALK = 8 };

static bool is_wild(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Reshape: case QX_OP_Transpose: case QX_OP_Flatten: case QX_OP_Cast: case QX_OP_Identity: case QX_OP_Dropout:
    case QX_OP_Squeeze:
    case QX_OP_Unsqueeze: return true;
    default: return false;
    }
}

/* Upwards from the Softmax through a scale (Mul, Div) and a mask (Add, Where) to a MatMul of two variable values. */
static qx_node *find_qk(qx_node *softmax, qx_value **mask)
{
    qx_value *v = softmax->in[0];
    for (int i = 0; i < MAX_WALK && v && v->def; i++) {
        qx_node *n = v->def;
        qx_op_id id = n->op->id;
        if (id == QX_OP_MatMul) return qx_is_variable(n->in[0]) && qx_is_variable(n->in[1]) ? n : NULL;
        if (is_wild(n)) { v = n->in[0]; continue; }
        if (id != QX_OP_Add && id != QX_OP_Mul && id != QX_OP_Div && id != QX_OP_Where) return NULL;
        if (id == QX_OP_Where) { /* Where(keep, scores, fill) or the other way round */
            v = n->in[1]->def ? n->in[1] : n->in[2];
            *mask = n->in[0];
            continue;
        }
        bool first = n->in[0]->def && n->in[0]->def->op->id != QX_OP_Constant &&
            (is_wild(n->in[0]->def) || n->in[0]->def->op->traits & (QX_T_LINEAR | QX_T_POINTWISE));
        if (id == QX_OP_Add) *mask = n->in[first ? 1 : 0];
        v = n->in[first ? 0 : 1];
    }
    return NULL;
}

static qx_node *find_pv(qx_node *softmax)
{
    qx_value *v = softmax->out[0];
    for (int i = 0; i < MAX_WALK && v && v->n_uses == 1; i++) {
        qx_node *n = v->uses->node;
        if (n->op->id == QX_OP_MatMul) return v->uses->index == 0 && qx_is_variable(n->in[1]) ? n : NULL;
        if (!is_wild(n)) return NULL;
        v = n->out[0];
    }
    return NULL;
}

static int64_t head_size(const qx_node *qk)
{
    const qx_type *k = &qk->in[1]->type, *q = &qk->in[0]->type;
    if (k->has_shape && k->rank >= 2 && k->dims[k->rank - 2].n > 0) return k->dims[k->rank - 2].n;
    if (q->has_shape && q->rank >= 2 && q->dims[q->rank - 1].n > 0) return q->dims[q->rank - 1].n;
    return -1;
}

typedef struct attention_finder { qx_model *m; qx_attention *items; int64_t count, cap; } attention_finder;

static qx_status visit_softmax(void *user, qx_node *n)
{
    attention_finder *f = user;
    if (n->op->id != QX_OP_Softmax || !qx_node_in(n, 0)) return QX_OK;
    qx_attention a = {.softmax = n};
    a.qk = find_qk(n, &a.mask);
    a.pv = find_pv(n);
    if (!a.qk || !a.pv) return QX_OK;
    a.head_size = head_size(a.qk);
    QX_TRY(qx_arena_grow(f->m->arena, (void **)&f->items, f->count, &f->cap, sizeof *f->items));
    f->items[f->count++] = a;
    return QX_OK;
}

qx_status qx_attentions_find(qx_model *m, qx_attention **out, int64_t *count)
{
    attention_finder f = {m, NULL, 0, 0};
    QX_TRY(qx_model_each_node(m, visit_softmax, &f));
    *out = f.items;
    *count = f.count;
    return QX_OK;
}
