/* fuse_patterns.c - the rows of fuse_patterns.def: checks what a pattern's text cannot say (axes, sizes) and makes the fused step. */
#include <math.h>
#include <string.h>

#include "kernels/int8.h"
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse_match.h"

typedef qx_status build_fn(qx_fuser *f, qx_rstep *s, const qx_match *m);

#define NEW_PARAMS(f, p)                                  \
    (p) = qx_arena_alloc((f)->x->mem, sizeof *(p));       \
    if (!(p)) QX_FAIL((f)->x->ctx, QX_E_NOMEM, "plan: out of memory")

static const qx_value *letter(const qx_match *m, char c) { return m->v[QX_LETTER(c)]; }

/* ---- Nothing at all ---- */

/* Diffusers scales every residual by 1. */
static qx_status build_same(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    static const char by_one;
    const qx_value *x = letter(m, 'x'), *y = s->out_value[0];
    const double e = m->num[QX_LETTER('e')];
    if (e < 1 || e > 1 || x->type.dtype != y->type.dtype || !qx_type_same_dims(&x->type, &y->type)) return QX_OK;
    return qx_fuse_set(f, s, qx_cpu_identity, &by_one, &x, 1, y);
}

/* ---- Activations ---- */

static qx_status build_act(qx_fuser *f, qx_rstep *s, const qx_match *m, qx_act act)
{
    const qx_value *x = letter(m, 'x');
    qx_act_params *p;
    NEW_PARAMS(f, p);
    *p = (qx_act_params){act, (uint32_t)m->reads[QX_LETTER('x')]};
    f->act[x->id] = s;
    return qx_fuse_set(f, s, qx_cpu_act, p, &x, 1, s->out_value[0]);
}

static qx_status build_silu(qx_fuser *f, qx_rstep *s, const qx_match *m) { return build_act(f, s, m, QX_ACT_SILU); }
static qx_status build_hardswish(qx_fuser *f, qx_rstep *s, const qx_match *m) { return build_act(f, s, m, QX_ACT_HARDSWISH); }
static qx_status build_gelu(qx_fuser *f, qx_rstep *s, const qx_match *m) { return build_act(f, s, m, QX_ACT_GELU); }
static qx_status build_gelu_tanh(qx_fuser *f, qx_rstep *s, const qx_match *m) { return build_act(f, s, m, QX_ACT_GELU_TANH); }

/* ---- Normalisations of the last axis ---- */

static int known_rank(const qx_value *v) { return v->type.kind == QX_KIND_TENSOR && v->type.has_shape ? v->type.rank : -1; }

static bool is_float(const qx_value *v) { return v->type.kind == QX_KIND_TENSOR && v->type.dtype == QX_DT_FLOAT; }

/* Floats, and halves for our own kernels where no number in between is larger than what goes in and comes out: rounding once then hides
 * no overflow. */
static bool is_real(const qx_fuser *f, const qx_value *v)
{
    return is_float(v) || (!f->x->device && v->type.kind == QX_KIND_TENSOR && qx_dtype_is_real((int)v->type.dtype));
}

/* The one axis of a node: attribute, or constant input i; false when it is not one known number. */
static bool one_axis(const qx_fuser *f, const qx_node *n, const char *name, uint32_t i, int rank, int64_t *axis)
{
    int64_t count;
    double v;
    const int64_t *list = qx_attr_ints(n, name, &count);
    if (list ? count != 1 : !qx_fuse_scalar(f, qx_node_in(n, i), &v)) return false;
    *axis = list ? list[0] : (int64_t)v;
    if (*axis < 0) *axis += rank;
    return true;
}

static bool mean_of_last(const qx_fuser *f, const qx_value *v)
{
    const qx_node *n = v->def;
    int64_t axis;
    int rank = known_rank(n->in[0]);
    return rank > 0 && qx_attr_int(n, "keepdims", 1) && one_axis(f, n, "axes", 1, rank, &axis) && axis == rank - 1;
}

/* The mean over rows and columns of a picture is GlobalAveragePool, which reads every layout. */
static bool over_pixels(const qx_fuser *f, const qx_node *n)
{
    int64_t count = 0, read[2];
    const int64_t *axes = qx_attr_ints(n, "axes", &count);
    const qx_weight *w = qx_fuse_const(qx_node_in(n, 1));
    if (!axes && w && w->dtype == QX_DT_INT64 && w->numel == 2 && qx_fuse_ok(f, qx_weight_read(f->x->ctx, w, read))) axes = read, count = 2;
    if (!axes || count != 2) return false;
    const int64_t a = axes[0] < 0 ? axes[0] + 4 : axes[0], b = axes[1] < 0 ? axes[1] + 4 : axes[1];
    return (a == 2 && b == 3) || (a == 3 && b == 2);
}

static qx_status build_picture_mean(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    static const char as_pool;
    const qx_value *x = letter(m, 'x');
    if (f->x->device || known_rank(x) != 4 || !is_float(x) || !qx_attr_int(s->node, "keepdims", 1) || !over_pixels(f, s->node))
        return QX_OK;
    return qx_fuse_set(f, s, qx_cpu_global_pool, &as_pool, &x, 1, s->out_value[0]);
}

/* A constant of one number a column of x. */
static bool is_row(const qx_value *v, const qx_value *x)
{
    const qx_weight *w = qx_fuse_const(v);
    int rank = known_rank(x);
    return w && rank > 0 && w->rank >= 1 && w->numel == w->dims[w->rank - 1] && w->numel == x->type.dims[rank - 1].n && w->rank <= rank;
}

static qx_status set_norm(qx_fuser *f, qx_rstep *s, const qx_match *m, bool rms)
{
    const qx_value *in[3] = {letter(m, 'x'), letter(m, 'g'), rms ? NULL : letter(m, 'b')};
    if (!is_float(in[0]) || !is_row(in[1], in[0]) || (!rms && !is_row(in[2], in[0]))) return QX_OK;
    qx_norm_params *p;
    NEW_PARAMS(f, p);
    *p = (qx_norm_params){rms, (float)m->num[QX_LETTER('e')]};
    return qx_fuse_set(f, s, qx_cpu_row_norm, p, in, rms ? 2 : 3, s->out_value[0]);
}

static qx_status build_rms(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    return mean_of_last(f, letter(m, 'n')) ? set_norm(f, s, m, true) : QX_OK;
}

static qx_status build_layer_norm(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    return mean_of_last(f, letter(m, 'n')) && mean_of_last(f, letter(m, 'm')) ? set_norm(f, s, m, false) : QX_OK;
}

/* ---- Halves of the last axis ---- */

static bool slice_number(const qx_fuser *f, const qx_node *n, const char *name, uint32_t i, int64_t fallback, int64_t *out)
{
    int64_t count;
    double v;
    const int64_t *list = qx_attr_ints(n, name, &count);
    *out = fallback;
    if (list) return count == 1 ? (*out = list[0], true) : false;
    if (!qx_node_in(n, i)) return true;
    if (!qx_fuse_scalar(f, n->in[i], &v)) return false;
    *out = v >= 9e15 ? INT64_MAX : (int64_t)v;
    return true;
}

/* v is the first (upper false) or second half of the last axis of x, which has `cols` columns. */
static bool is_half(const qx_fuser *f, const qx_value *v, const qx_value *x, int64_t cols, bool upper)
{
    const qx_node *n = v->def;
    int64_t axis, from, to, step;
    int rank = known_rank(x);
    if (n->op->id == QX_OP_Split) {
        axis = qx_attr_int(n, "axis", 0);
        const qx_type *t = &v->type;
        return n->n_out == 2 && v == n->out[upper] && (axis < 0 ? axis + rank : axis) == rank - 1 && known_rank(v) == rank &&
            t->dims[rank - 1].n == cols / 2;
    }
    if (!one_axis(f, n, "axes", 3, rank, &axis) || axis != rank - 1) return false;
    if (!slice_number(f, n, "starts", 1, 0, &from) || !slice_number(f, n, "ends", 2, 0, &to) ||
        !slice_number(f, n, "steps", 4, 1, &step) || step != 1)
        return false;
    if (from < 0) from += cols;
    if (to < 0) to += cols;
    return upper ? from == cols / 2 && to >= cols : from == 0 && to == cols / 2;
}

static int64_t even_columns(const qx_value *x)
{
    int rank = known_rank(x);
    int64_t n = rank > 0 ? x->type.dims[rank - 1].n : 0;
    return n > 0 && n % 2 == 0 ? n : 0;
}

static bool swaps_middle(const qx_node *n)
{
    int64_t count;
    const int64_t *p = n ? qx_attr_ints(n, "perm", &count) : NULL;
    return p && count == 4 && p[0] == 0 && p[1] == 2 && p[2] == 1 && p[3] == 3;
}

static qx_status build_rope(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    const qx_value *x = letter(m, 'x'), *in[3] = {x, letter(m, 'c'), letter(m, 's')};
    int64_t d = even_columns(x), axis = qx_attr_int(letter(m, 'k')->def, "axis", 0);
    if (!d || known_rank(x) != 4 || !is_real(f, x) || (axis != -1 && axis != 3)) return QX_OK;
    if (!is_half(f, letter(m, 'h'), x, d, true) || !is_half(f, letter(m, 'l'), x, d, false)) return QX_OK;
    for (int i = 1; i < 3; i++)
        if (known_rank(in[i]) < 1 || known_rank(in[i]) > 4 || in[i]->type.dims[known_rank(in[i]) - 1].n != d) return QX_OK;
    qx_rope_params *p;
    NEW_PARAMS(f, p);
    const qx_node *t = qx_fuse_is(qx_fuse_def(f, x), QX_OP_Transpose);
    p->bshd = swaps_middle(t);
    if (p->bshd) in[0] = t->in[0];
    return qx_fuse_set(f, s, qx_cpu_rope, p, in, 3, s->out_value[0]);
}

static qx_status build_geglu(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    const qx_value *x = letter(m, 'x'), *low = letter(m, 'l'), *high = letter(m, 'h');
    int64_t n = even_columns(x);
    if (!n || !is_real(f, x)) return QX_OK;
    bool upper = is_half(f, high, x, n, true) && is_half(f, low, x, n, false);
    if (!upper && !(is_half(f, high, x, n, false) && is_half(f, low, x, n, true))) return QX_OK;
    qx_glu_params *p;
    NEW_PARAMS(f, p);
    *p = (qx_glu_params){((const qx_act_params *)f->act[high->id]->fused)->act, upper};
    return qx_fuse_set(f, s, qx_cpu_glu, p, &x, 1, s->out_value[0]);
}

/* ---- Products of rows that are quantized when the graph runs (passes/place/dynamic.c writes them) ---- */

static qx_status build_row_top(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    static const char no_params;
    const qx_value *x = letter(m, 'x'), *t = letter(m, 't');
    const int rank = known_rank(x);
    int64_t axis;
    if (f->x->device || !is_float(x) || rank < 1 || !qx_attr_int(t->def, "keepdims", 1) ||
        !one_axis(f, t->def, "axes", 1, rank, &axis) || axis != rank - 1)
        return QX_OK;
    return qx_fuse_set(f, s, qx_cpu_row_top, &no_params, &x, 1, t);
}

/* s has one number a row of x, whatever the dims are. */
static bool one_a_row(const qx_value *s, const qx_value *x)
{
    const int rank = known_rank(x);
    if (rank < 1 || known_rank(s) != rank || s->type.dims[rank - 1].n != 1 || x->type.dims[rank - 1].n == 1) return false;
    for (int i = 0; i + 1 < rank; i++) {
        const qx_dim *a = &s->type.dims[i], *b = &x->type.dims[i];
        if (a->n >= 0 || b->n >= 0 ? a->n != b->n : !a->sym || a->sym != b->sym) return false;
    }
    return true;
}

static qx_status build_row_codes(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    const qx_value *in[2] = {letter(m, 'x'), letter(m, 's')};
    const double z = m->num[QX_LETTER('z')];
    if (!is_float(in[0]) || !is_float(in[1]) || !one_a_row(in[1], in[0]) || s->out_value[0]->type.dtype != QX_DT_UINT8 || z < 0 ||
        z > 255 || z != (int32_t)z)
        return QX_OK;
    qx_row_codes_params *p;
    NEW_PARAMS(f, p);
    p->zero = (int32_t)z;
    return qx_fuse_set(f, s, qx_cpu_row_codes, p, in, 2, s->out_value[0]);
}

/* Constant INT8 codes of a matrix, maybe turned; *nk: as stored they are [n, k]. NULL: something else. */
static const qx_value *matrix_of_codes(const qx_fuser *f, const qx_value *v, bool *nk)
{
    int64_t n;
    const qx_node *t = qx_fuse_is(qx_fuse_def(f, v), QX_OP_Transpose);
    const int64_t *perm = t ? qx_attr_ints(t, "perm", &n) : NULL;
    *nk = t != NULL;
    if (perm && !(n == 2 && perm[0] == 1 && perm[1] == 0)) return NULL;
    v = qx_fuse_behind(t ? t->in[0] : v);
    const qx_weight *w = qx_fuse_const(v);
    return w && w->rank == 2 && w->dtype == QX_DT_INT8 ? v : NULL;
}

static qx_status build_row_product(qx_fuser *f, qx_rstep *s, const qx_match *m)
{
    const qx_value *a = letter(m, 'a'), *scale = letter(m, 's'), *per = letter(m, 'w'), *z = letter(m, 'z');
    bool nk;
    const qx_value *b = matrix_of_codes(f, letter(m, 'b'), &nk);
    const qx_weight *w = b ? qx_fuse_const(b) : NULL, *zero = qx_fuse_const(z), *ws = qx_fuse_const(per);
    const qx_node *mm = letter(m, 'i')->def;
    if (f->x->opt.simulate || !w || !zero || zero->numel != 1 || qx_node_in(mm, 3) || !ws || ws->rank != 1 || ws->dtype != QX_DT_FLOAT)
        return QX_OK;
    if (ws->numel != w->dims[nk ? 0 : 1] || w->dims[nk ? 1 : 0] > QX_INT8_MAX_K || !is_float(scale) || !one_a_row(scale, a)) return QX_OK;
    qx_int8_params *p;
    NEW_PARAMS(f, p);
    *p = (qx_int8_params){.kind = QX_INT8_MATMUL, .w_nk = nk, .act.none = true};
    const qx_value *in[QX_INT8_ROW_INPUTS] = {[QX_INT8_X] = a, [QX_INT8_X_ZERO] = qx_fuse_behind(z), [QX_INT8_W] = b,
                                              [QX_INT8_W_SCALE] = qx_fuse_behind(per), [QX_INT8_ROW_SCALE] = scale};
    return qx_fuse_set(f, s, qx_cpu_int8_linear, p, in, QX_INT8_ROW_INPUTS, s->out_value[0]);
}

/* ---- The table ---- */

qx_status qx_fuse_patterns(qx_fuser *f)
{
    static const struct { const char *pattern; build_fn *build; } rows[] = {
#define QX_PATTERN(name, pattern, build) {pattern, build},
#include "runtime/fuse/fuse_patterns.def"
#undef QX_PATTERN
    };
    qx_match m;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        for (uint32_t i = 0; i < f->p->n_steps; i++) {
            qx_rstep *s = &f->p->steps[i];
            if (!s->fused && !s->ref_attrs && qx_fuse_match(f, s, rows[r].pattern, &m)) QX_TRY(rows[r].build(f, s, &m));
        }
    }
    return QX_OK;
}
