/* pointwise.c - adapters of operators that work element by element. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/matmul/gemm.h"
#include "runtime/cuda/node.h"
#include "runtime/fuse/fuse.h"
#include "runtime/pointwise_ops.h"

/* ---- one operand ---- */

static bool unary_takes(qx_unary fn, int dtype)
{
    bool whole = fn == QX_U_ABS || fn == QX_U_NEG || fn == QX_U_SIGN || fn == QX_U_RELU;
    return cu_real(dtype) || (whole && cu_integer(dtype) && dtype != QX_DT_BOOL && dtype != QX_DT_UINT64);
}

static qx_status unary_place(const cu_build *b)
{
    const qx_unary_row *r = qx_unary_row_of(b->op);
    if (!r) CU_NO(b, "not in the table of unary functions");
    if (b->in[0].dtype && !unary_takes(r->fn, b->in[0].dtype))
        CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    return QX_OK;
}

static qx_status unary_run(const cu_run *r)
{
    qk_unary_args a = *(const qk_unary_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_unary(r->q, &a));
}

static qx_status unary_step(cu_build *b, qx_unary fn, float p0, float p1)
{
    const qk_unary_args a = {.n = b->out[0].numel, .op = (int32_t)fn, .dtype = b->in[0].dtype, .p = {p0, p1}};
    if (!unary_takes(fn, b->in[0].dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    return cu_step(b, unary_run, &a, sizeof a);
}

static qx_status unary_compile(cu_build *b)
{
    const qx_unary_row *r = qx_unary_row_of(b->op);
    qx_unary fn = r->fn;
    if (r->op == QX_OP_Gelu && cu_is(b, "approximate", "tanh", false)) fn = QX_U_GELU_TANH;
    return unary_step(b, fn, r->p0 ? cu_float(b, r->p0, r->d0) : 0, r->p1 ? cu_float(b, r->p1, r->d1) : 0);
}
const cu_adapter qx_cuda_unary = {unary_place, unary_compile};

/* The fused activation of the plan; act is qx_act. */
static qx_status act_place(const cu_build *b) { return cu_want_real(b, 0); }
static qx_status act_compile(cu_build *b)
{
    static const qx_unary of[] = {[QX_ACT_RELU] = QX_U_RELU, [QX_ACT_GELU] = QX_U_GELU, [QX_ACT_GELU_TANH] = QX_U_GELU_TANH,
                                  [QX_ACT_SILU] = QX_U_SWISH, [QX_ACT_SIGMOID] = QX_U_SIGMOID, [QX_ACT_TANH] = QX_U_TANH,
                                  [QX_ACT_HARDSWISH] = QX_U_HARDSWISH};
    int64_t act = cu_int(b, "act", 0);
    if (act < 1 || act > QX_ACT_HARDSWISH) CU_BAD(b, "activation %lld", (long long)act);
    return unary_step(b, of[act], 1.0f, 0);
}
extern const cu_adapter cu_act;
const cu_adapter cu_act = {act_place, act_compile};

static qx_status not_place(const cu_build *b)
{
    if (b->in[0].dtype && !cu_integer(b->in[0].dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    return QX_OK;
}

static qx_status flip_run(const cu_run *r)
{
    qk_flip_args a = *(const qk_flip_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_flip(r->q, &a));
}

static qx_status not_compile(cu_build *b)
{
    const qk_flip_args a = {.n = (int64_t)b->out[0].bytes, .flip = b->in[0].dtype == QX_DT_BOOL ? 1 : 0xff};
    return cu_step(b, flip_run, &a, sizeof a);
}
const cu_adapter qx_cuda_not = {not_place, not_compile};

static qx_status isnan_place(const cu_build *b) { return cu_want_real(b, 0); }

static qx_status isnan_run(const cu_run *r)
{
    qk_isnan_args a = *(const qk_isnan_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_isnan(r->q, &a));
}

static qx_status isnan_compile(cu_build *b)
{
    qk_isnan_args a = {.n = b->out[0].numel, .dtype = b->in[0].dtype, .kind = 0};
    if (!cu_real(a.dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(a.dtype)->text);
    if (b->op == QX_OP_IsInf) a.kind = (cu_int(b, "detect_positive", 1) ? 1 : 0) | (cu_int(b, "detect_negative", 1) ? 2 : 0) | 4;
    return cu_step(b, isnan_run, &a, sizeof a);
}
const cu_adapter qx_cuda_isnan = {isnan_place, isnan_compile};

/* ---- Clip ---- */

static qx_status clip_place(const cu_build *b)
{
    if (b->in[0].dtype && !unary_takes(QX_U_RELU, b->in[0].dtype))
        CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    return cu_host_in(b, 1, 2);
}

static qx_status clip_run(const cu_run *r)
{
    qk_clip_args a = *(const qk_clip_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_clip(r->q, &a));
}

static void limit(const cu_build *b, uint32_t i, float *f, int64_t *n)
{
    const qx_dev_tensor *t = &b->in[i];
    uint64_t raw = 0;
    if (!cu_has(b, i) || t->numel != 1 || t->bytes > sizeof raw) return;
    memcpy(&raw, t->host, t->bytes);
    int bits = qx_dtype_bits(t->dtype);
    if (cu_real(t->dtype)) qx_to_f32(t->dtype, &raw, 1, f);
    else *n = qx_dtype_get(t->dtype)->cls == 'I' ? (int64_t)(raw << (64 - bits)) >> (64 - bits) : (int64_t)raw;
}

static qx_status clip_compile(cu_build *b)
{
    qk_clip_args a = {.n = b->out[0].numel, .dtype = b->in[0].dtype, .lo = cu_float(b, "min", -INFINITY),
                      .hi = cu_float(b, "max", INFINITY), .ilo = INT64_MIN, .ihi = INT64_MAX};
    if (!unary_takes(QX_U_RELU, a.dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(a.dtype)->text);
    limit(b, 1, &a.lo, &a.ilo);
    limit(b, 2, &a.hi, &a.ihi);
    return cu_step(b, clip_run, &a, sizeof a);
}
const cu_adapter qx_cuda_clip = {clip_place, clip_compile};

/* ---- two operands ---- */

static qx_status binary_place(const cu_build *b)
{
    const qx_binary_row *r = qx_binary_row_of(b->op);
    if (!r) CU_NO(b, "not in the table of binary functions");
    if (b->node->version < 7 && cu_int(b, "broadcast", 0)) CU_NO(b, "the broadcast of version %d", b->node->version);
    if (b->node->n_in != 2) CU_NO(b, "%u operands", b->node->n_in);
    for (uint32_t i = 0; i < 2; i++)
        if (b->in[i].dtype && !cu_real(b->in[i].dtype) && !cu_integer(b->in[i].dtype))
            CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[i].dtype)->text);
    return QX_OK;
}

static qx_status binary_run(const cu_run *r)
{
    qk_binary_args a = *(const qk_binary_args *)r->args;
    a.a = r->in[0].data;
    a.b = r->in[1].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_binary(r->q, &a));
}

static qx_status binary_compile(cu_build *b)
{
    const qx_binary_row *row = qx_binary_row_of(b->op);
    qk_binary_args a = {.n = b->out[0].numel, .dtype = b->in[0].dtype, .op = (int32_t)row->fn};
    int64_t s[2][QK_RANK] = {{0}};
    if (row->op == QX_OP_Mod && cu_int(b, "fmod", 0)) a.op = QX_B_FMOD;
    if (b->in[0].dtype != b->in[1].dtype)
        CU_NO(b, "operands of %s and %s", qx_dtype_get(b->in[0].dtype)->text, qx_dtype_get(b->in[1].dtype)->text);
    if (!cu_real(a.dtype) && !cu_integer(a.dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(a.dtype)->text);
    if (row->op == QX_OP_Mean) CU_NO(b, "a mean of operands");
    memcpy(a.dims, b->out[0].dims, sizeof a.dims);
    for (int i = 0; i < 2; i++) QX_TRY(cu_broadcast(b, &b->in[i], &b->out[0], s[i]));
    a.rank = cu_collapse(b->out[0].rank, a.dims, 2, s);
    memcpy(a.sa, s[0], sizeof a.sa);
    memcpy(a.sb, s[1], sizeof a.sb);
    return cu_step(b, binary_run, &a, sizeof a);
}
const cu_adapter qx_cuda_binary = {binary_place, binary_compile};

/* ---- chains of the plan (runtime/fuse/fuse.h) ---- */

static qx_status chain_place(const cu_build *b)
{
    for (uint32_t i = 0; i < b->node->n_in; i++) QX_TRY(cu_want_real(b, i));
    return QX_OK;
}

static qx_status chain_run(const cu_run *r)
{
    qk_chain_args a = *(const qk_chain_args *)r->args;
    for (int i = 0; i < a.n_in; i++) a.in[i] = r->in[i].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_chain(r->q, &a));
}

static qx_status chain_ops(const cu_build *b, qk_chain_args *a)
{
    int64_t n;
    const int64_t *ops = cu_ints(b, "ops", &n);
    const qx_dev_attr *p = cu_attr(b, "p");
    a->n_ops = (int32_t)(n / QX_CHAIN_FIELDS);
    if (!ops || !p || a->n_ops < 1 || a->n_ops > QK_CHAIN || p->n != 2 * a->n_ops) CU_BAD(b, "a chain of %lld fields", (long long)n);
    for (int i = 0; i < a->n_ops; i++) {
        const int64_t *f = ops + QX_CHAIN_FIELDS * i;
        a->ops[i] = (qk_chain_op){(int32_t)f[QX_CHAIN_FN], f[QX_CHAIN_BINARY] != 0, f[QX_CHAIN_SWAPPED] != 0, (int32_t)f[QX_CHAIN_INPUT],
                                  {p->floats[2 * i], p->floats[2 * i + 1]}};
        if (f[QX_CHAIN_INPUT] < 0 || f[QX_CHAIN_INPUT] >= a->n_in)
            CU_BAD(b, "input %lld of a chain with %d", (long long)f[QX_CHAIN_INPUT], a->n_in);
    }
    return QX_OK;
}

static qx_status chain_compile(cu_build *b)
{
    qk_chain_args a = {.n = b->out[0].numel, .dtype = b->out[0].dtype, .n_in = (int32_t)b->node->n_in};
    if (a.n_in < 1 || a.n_in > QK_CHAIN + 1 || !cu_real(a.dtype))
        CU_NO(b, "a chain with %d inputs of %s", a.n_in, qx_dtype_get(a.dtype)->text);
    memcpy(a.dims, b->out[0].dims, sizeof a.dims);
    for (int i = 0; i < a.n_in; i++) {
        if (b->in[i].dtype != a.dtype) CU_NO(b, "operands of %s and %s", qx_dtype_get(b->in[i].dtype)->text, qx_dtype_get(a.dtype)->text);
        QX_TRY(cu_broadcast(b, &b->in[i], &b->out[0], a.strides[i]));
    }
    if (b->in[0].numel != a.n) CU_BAD(b, "a chain of %lld elements that begins with %lld", (long long)a.n, (long long)b->in[0].numel);
    a.rank = cu_collapse(b->out[0].rank, a.dims, a.n_in, a.strides);
    QX_TRY(chain_ops(b, &a));
    return cu_step(b, chain_run, &a, sizeof a);
}
extern const cu_adapter cu_chain;
const cu_adapter cu_chain = {chain_place, chain_compile};

/* ---- Where ---- */

static qx_status where_place(const cu_build *b)
{
    QX_TRY(cu_want_plain(b, 1));
    return cu_want_plain(b, 2);
}

static qx_status where_run(const cu_run *r)
{
    qk_where_args a = *(const qk_where_args *)r->args;
    a.c = r->in[0].data;
    a.a = r->in[1].data;
    a.b = r->in[2].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_where(r->q, &a));
}

static qx_status where_compile(cu_build *b)
{
    qk_where_args a = {.n = b->out[0].numel, .size = cu_bytes(b->in[1].dtype)};
    int64_t s[3][QK_RANK] = {{0}};
    if (b->in[0].dtype != QX_DT_BOOL || b->in[1].dtype != b->in[2].dtype || !a.size)
        CU_BAD(b, "condition of %s", qx_dtype_get(b->in[0].dtype)->text);
    memcpy(a.dims, b->out[0].dims, sizeof a.dims);
    for (int i = 0; i < 3; i++) QX_TRY(cu_broadcast(b, &b->in[i], &b->out[0], s[i]));
    a.rank = cu_collapse(b->out[0].rank, a.dims, 3, s);
    memcpy(a.sc, s[0], sizeof a.sc);
    memcpy(a.sa, s[1], sizeof a.sa);
    memcpy(a.sb, s[2], sizeof a.sb);
    return cu_step(b, where_run, &a, sizeof a);
}
const cu_adapter qx_cuda_where = {where_place, where_compile};

/* ---- Cast ---- */

static bool castable(int dtype) { return dtype == QX_DT_DOUBLE || (dtype != QX_DT_STRING && strchr("FIUB", qx_dtype_get(dtype)->cls)); }

static qx_status cast_place(const cu_build *b)
{
    if (b->in[0].dtype && !castable(b->in[0].dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    if (b->op == QX_OP_Cast && !castable((int)cu_int(b, "to", 0))) CU_NO(b, "no cast to %s", qx_dtype_get((int)cu_int(b, "to", 0))->text);
    if (cu_attr(b, "round_mode") && !cu_is(b, "round_mode", "up", true)) CU_NO(b, "this rounding to E8M0");
    return QX_OK;
}

static qx_status cast_run(const cu_run *r)
{
    qk_cast_args a = *(const qk_cast_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    if (a.from == a.to) return cu_copy(r->d->m, a.y, a.x, r->in[0].bytes);
    return cu_launched(r->d->m, qk_cast(r->q, &a));
}

static qx_status cast_compile(cu_build *b)
{
    const qk_cast_args a = {.n = b->out[0].numel, .from = b->in[0].dtype, .to = b->out[0].dtype,
                            .saturate = (int32_t)cu_int(b, "saturate", 1)};
    if (!castable(a.from) || !castable(a.to)) CU_NO(b, "no cast from %s to %s", qx_dtype_get(a.from)->text, qx_dtype_get(a.to)->text);
    return cu_step(b, cast_run, &a, sizeof a);
}
const cu_adapter qx_cuda_cast = {cast_place, cast_compile};
