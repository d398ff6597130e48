/* fuse_linear.c - a product with a constant matrix and what follows it as long as nothing else reads the result: the bias, an
 * activation, the product with another tensor (the gate of a gated unit), the sum with another (the residual). In this order, any
 * of them. */
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse.h"

typedef struct chain { qx_rstep *last; const qx_value *v, *w, *bias, *mul, *add; qx_act act; bool nk; } chain; /* v: what it makes so far */

static bool is_float_matrix(const qx_value *v)
{
    const qx_weight *w = qx_fuse_const(v);
    return w && w->rank == 2 && qx_dtype_is_real(w->dtype);
}

/* The constant matrix behind the second operand; c->nk when it is read through a transposition (a head tied to the embedding). */
static bool take_weight(const qx_fuser *f, const qx_value *v, chain *c)
{
    const qx_node *t = qx_fuse_is(qx_fuse_def(f, v), QX_OP_Transpose);
    int64_t n;
    const int64_t *perm = t ? qx_attr_ints(t, "perm", &n) : NULL;
    c->nk = t && !f->x->device && (!perm || (n == 2 && perm[0] == 1 && perm[1] == 0));
    c->w = qx_fuse_behind(c->nk ? t->in[0] : v);
    return is_float_matrix(c->w);
}

static void extend(chain *c, qx_rstep *reader)
{
    c->last = reader;
    c->v = reader->out_value[0];
}

static void take_bias(const qx_fuser *f, chain *c, int64_t cols)
{
    qx_rstep *reader = qx_fuse_user(f, c->v);
    const qx_node *n = qx_fuse_is(reader, QX_OP_Add);
    if (!n || reader->ref_attrs) return;
    const qx_value *o = n->in[0] == c->v ? n->in[1] : n->in[0];
    const qx_weight *b = qx_fuse_const(o);
    if (!b || b->rank != 1 || b->numel != cols) return;
    c->bias = o;
    extend(c, reader);
}

static void take_act(const qx_fuser *f, chain *c)
{
    qx_rstep *act = qx_fuse_act_behind(f, c->v);
    if (!act) return;
    c->act = ((const qx_act_params *)act->fused)->act;
    extend(c, act);
}

static const qx_value *take_same(const qx_fuser *f, chain *c, qx_op_id op)
{
    qx_rstep *reader;
    const qx_value *o = qx_fuse_with_same(f, c->v, op, &reader);
    if (o) extend(c, reader);
    return o;
}

enum { LARGE = 1 << 20 }; /* bytes */

/* A large matrix is read and packed in pieces, so that the whole of it never lies beside its packed form. */
static bool reads_itself(const qx_fuser *f, const qx_value *v)
{
    const qx_weight *w = v->init;
    return !f->x->device && w && !w->job && w->bytes >= LARGE;
}

qx_status qx_fuse_linear(qx_fuser *f, qx_rstep *s)
{
    const qx_node *mm = qx_fuse_is(s, QX_OP_MatMul);
    chain c = {.last = s};
    if (!mm || !take_weight(f, mm->in[1], &c)) return QX_OK;
    c.v = mm->out[0];
    take_bias(f, &c, qx_fuse_const(c.w)->dims[!c.nk]);
    take_act(f, &c);
    c.mul = take_same(f, &c, QX_OP_Mul);
    c.add = take_same(f, &c, QX_OP_Add);
    const bool stored = reads_itself(f, c.w);
    if (c.last == s && !c.nk && !stored) return QX_OK;
    qx_linear_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = (qx_linear_params){c.act, c.nk};
    const qx_value *in[QX_LINEAR_INPUTS] = {mm->in[0], c.w, c.bias, c.mul, c.add};
    c.last->stored = stored ? 1 << QX_LINEAR_W : 0;
    return qx_fuse_set(f, c.last, qx_cpu_linear, p, in, QX_LINEAR_INPUTS, c.v);
}
