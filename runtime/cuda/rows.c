/* rows.c - adapters of softmax, normalisations, reductions, running sums and rotary embeddings: rows of a tensor seen as
 * [outer][d][inner]. */
#include <string.h>

#include "kernels/rows.h"
#include "runtime/cuda/node.h"

static qx_status real_place(const cu_build *b) { return cu_want_real(b, 0); }

static qx_status need_real(const cu_build *b, uint32_t i)
{
    if (!cu_real(b->in[i].dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[i].dtype)->text);
    return QX_OK;
}

/* ---- Softmax ---- */

static qx_status softmax_run(const cu_run *r)
{
    qk_softmax_args a = *(const qk_softmax_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_softmax(r->q, &a));
}

static qx_status softmax_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    bool flat = b->node->version < 13; /* before: everything from the axis on is one row */
    int axis;
    QX_TRY(need_real(b, 0));
    QX_TRY(cu_axis(b, cu_int(b, "axis", flat ? 1 : -1), x->rank + (flat && cu_int(b, "axis", 1) == x->rank), &axis));
    qk_softmax_args a = {.outer = cu_prod(x->dims, 0, axis), .dtype = x->dtype, .log = b->op == QX_OP_LogSoftmax, .inner = 1};
    a.d = flat ? cu_prod(x->dims, axis, x->rank) : x->rank ? x->dims[axis] : 1;
    if (!flat) a.inner = cu_prod(x->dims, axis + 1, x->rank);
    return cu_step(b, softmax_run, &a, sizeof a);
}
const cu_adapter qx_cuda_softmax = {real_place, softmax_compile};

/* ---- LayerNormalization, RMSNormalization and the Skip forms ---- */

static qx_status norm_run(const cu_run *r)
{
    qk_norm_args a = *(const qk_norm_args *)r->args;
    a.x = r->in[0].data;
    a.gamma = r->in[1].data;
    a.beta = a.beta ? r->in[2].data : NULL;
    a.y = r->out[0].data;
    a.mean = a.mean ? r->out[1].data : NULL;
    a.inv = a.inv ? r->out[a.rms ? 1 : 2].data : NULL;
    return cu_launched(r->d->m, qk_norm(r->q, &a));
}

static bool wanted(const cu_build *b, uint32_t i) { return i < b->node->n_out && b->out[i].dtype != 0; }

static qx_status norm_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    int axis;
    QX_TRY(need_real(b, 0));
    QX_TRY(cu_axis(b, cu_int(b, "axis", -1), x->rank, &axis));
    qk_norm_args a = {.d = cu_prod(x->dims, axis, x->rank), .rows = cu_prod(x->dims, 0, axis), .dtype = x->dtype, .ptype = b->in[1].dtype,
                      .rms = b->op != QX_OP_LayerNormalization, .eps = cu_float(b, "epsilon", 1e-5f)};
    if (!cu_real(a.ptype) || b->in[1].numel != a.d || (cu_has(b, 2) && (b->in[2].numel != a.d || b->in[2].dtype != a.ptype)))
        CU_NO(b, "scale of %lld elements of %s for rows of %lld", (long long)b->in[1].numel, qx_dtype_get(a.ptype)->text, (long long)a.d);
    a.beta = cu_has(b, 2) ? CU_LATER : NULL;
    a.mean = !a.rms && wanted(b, 1) ? CU_LATER : NULL;
    a.inv = wanted(b, a.rms ? 1 : 2) ? CU_LATER : NULL;
    return cu_step(b, norm_run, &a, sizeof a);
}
const cu_adapter qx_cuda_norm = {real_place, norm_compile};

typedef struct skip_args { qk_norm_args n; int beta, bias; } skip_args; /* input numbers, 0: none */

static qx_status skip_run(const cu_run *r)
{
    const skip_args *s = r->args;
    qk_norm_args a = s->n;
    a.x = r->in[0].data;
    a.skip = r->in[1].data;
    a.gamma = r->in[2].data;
    a.beta = s->beta ? r->in[s->beta].data : NULL;
    a.bias = s->bias ? r->in[s->bias].data : NULL;
    a.y = r->out[0].data;
    a.mean = a.mean ? r->out[1].data : NULL;
    a.inv = a.inv ? r->out[2].data : NULL;
    a.sum = a.sum ? r->out[3].data : NULL;
    return cu_launched(r->d->m, qk_norm(r->q, &a));
}

static qx_status skip_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    bool rms = b->op == QX_OP_ms_SkipSimplifiedLayerNormalization;
    QX_TRY(need_real(b, 0));
    if (x->rank < 2 || b->in[1].numel != x->numel || b->in[2].numel != x->dims[x->rank - 1] || b->in[1].dtype != x->dtype ||
        !cu_real(b->in[2].dtype))
        CU_NO(b, "skip of %lld elements for an input of %lld", (long long)b->in[1].numel, (long long)x->numel);
    skip_args s = {.n = {.d = x->dims[x->rank - 1], .rows = x->numel / x->dims[x->rank - 1], .dtype = x->dtype, .ptype = b->in[2].dtype,
                         .rms = rms, .eps = cu_float(b, "epsilon", 1e-12f)}};
    s.beta = !rms && cu_has(b, 3) ? 3 : 0;
    s.bias = cu_has(b, rms ? 3 : 4) ? (rms ? 3 : 4) : 0;
    s.n.mean = wanted(b, 1) ? CU_LATER : NULL;
    s.n.inv = wanted(b, 2) ? CU_LATER : NULL;
    s.n.sum = wanted(b, 3) ? CU_LATER : NULL;
    return cu_step(b, skip_run, &s, sizeof s);
}
const cu_adapter qx_cuda_skip_norm = {real_place, skip_compile};

/* The plan's normalisation of the last axis. */
static qx_status row_norm_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    QX_TRY(need_real(b, 0));
    qk_norm_args a = {.d = x->rank ? x->dims[x->rank - 1] : 1, .dtype = x->dtype, .ptype = b->in[1].dtype,
                      .rms = cu_int(b, "rms", 0) != 0, .eps = cu_float(b, "epsilon", 1e-5f)};
    a.rows = a.d ? x->numel / a.d : 0;
    for (uint32_t i = 1; i < b->node->n_in; i++)
        if (cu_has(b, i) && (b->in[i].numel != a.d || b->in[i].dtype != a.ptype || !cu_real(a.ptype)))
            CU_BAD(b, "%lld factors for rows of %lld", (long long)b->in[i].numel, (long long)a.d);
    a.beta = !a.rms && cu_has(b, 2) ? CU_LATER : NULL;
    return cu_step(b, norm_run, &a, sizeof a);
}
extern const cu_adapter cu_row_norm;
const cu_adapter cu_row_norm = {real_place, row_norm_compile};

/* ---- gated units and rotated halves, fused by the plan ---- */

static qx_status glu_run(const cu_run *r)
{
    qk_glu_args a = *(const qk_glu_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_glu(r->q, &a));
}

static qx_status glu_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    QX_TRY(need_real(b, 0));
    if (x->rank < 1 || x->dims[x->rank - 1] % 2) CU_BAD(b, "rows of %lld have no halves", (long long)(x->rank ? x->dims[x->rank - 1] : 0));
    const qk_glu_args a = {.d = x->dims[x->rank - 1] / 2, .rows = cu_prod(x->dims, 0, x->rank - 1), .dtype = x->dtype,
                           .act = (int32_t)cu_int(b, "act", 0), .upper = cu_int(b, "upper", 0) != 0};
    return cu_step(b, glu_run, &a, sizeof a);
}
extern const cu_adapter cu_glu;
const cu_adapter cu_glu = {real_place, glu_compile};

static qx_status rotate_run(const cu_run *r)
{
    qk_rotate_args a = *(const qk_rotate_args *)r->args;
    a.x = r->in[0].data;
    a.cos = r->in[1].data;
    a.sin = r->in[2].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_rotate(r->q, &a));
}

static qx_status table_strides(const cu_build *b, uint32_t i, const int64_t dims[4], int64_t st[3])
{
    const qx_dev_tensor *t = &b->in[i];
    if (t->rank < 1 || t->rank > 4 || t->dims[t->rank - 1] != dims[3] || t->dtype != b->in[1].dtype || !cu_real(t->dtype))
        CU_BAD(b, "angles of rank %d for heads of %lld", t->rank, (long long)dims[3]);
    for (int k = 0; k < 3; k++) {
        const int own = k - (4 - t->rank);
        st[k] = own < 0 || t->dims[own] == 1 ? 0 : cu_prod(t->dims, own + 1, t->rank);
        if (st[k] && t->dims[own] != dims[k])
            CU_BAD(b, "angles have %lld where %lld are needed", (long long)t->dims[own], (long long)dims[k]);
    }
    return QX_OK;
}

static qx_status rotate_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    const bool bshd = cu_int(b, "bshd", 0) != 0;
    QX_TRY(need_real(b, 0));
    if (x->rank != 4 || x->dims[3] % 2) CU_BAD(b, "rank %d has no halves of heads", x->rank);
    const int64_t *e = x->dims, dims[4] = {e[0], bshd ? e[2] : e[1], bshd ? e[1] : e[2], e[3]};
    qk_rotate_args a = {.heads = dims[1], .seq = dims[2], .d = dims[3], .n = x->numel, .dtype = x->dtype, .ttype = b->in[1].dtype,
                        .sx = {dims[1] * dims[2] * dims[3], bshd ? dims[3] : dims[2] * dims[3], bshd ? dims[1] * dims[3] : dims[3]}};
    QX_TRY(table_strides(b, 1, dims, a.sc));
    QX_TRY(table_strides(b, 2, dims, a.ss));
    return cu_step(b, rotate_run, &a, sizeof a);
}
extern const cu_adapter cu_rotate;
const cu_adapter cu_rotate = {real_place, rotate_compile};

/* ---- InstanceNormalization, GroupNormalization, and the plan's fused group norm ---- */

static qx_status group_run(const cu_run *r)
{
    qk_group_norm_args a = *(const qk_group_norm_args *)r->args;
    a.x = r->in[0].data;
    a.gamma = r->in[1].data;
    a.beta = r->in[2].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_group_norm(r->q, &a));
}

static qx_status group_step(cu_build *b, int64_t groups, float eps, bool silu)
{
    const qx_dev_tensor *x = &b->in[0];
    int64_t ch = x->rank >= 2 ? x->dims[1] : 0;
    QX_TRY(need_real(b, 0));
    QX_TRY(need_real(b, 1));
    if (groups < 1 || ch < 1 || ch % groups || b->in[1].numel != ch || b->in[2].numel != ch || b->in[1].dtype != b->in[2].dtype)
        CU_NO(b, "%lld channels in %lld groups with a scale of %lld", (long long)ch, (long long)groups, (long long)b->in[1].numel);
    const qk_group_norm_args a = {.groups_total = x->dims[0] * groups, .groups = groups, .channels = ch,
                                  .inner = cu_prod(x->dims, 2, x->rank), .dtype = x->dtype,
                                  .ptype = b->in[1].dtype, .silu = silu, .eps = eps};
    return cu_step(b, group_run, &a, sizeof a);
}

static qx_status group_compile(cu_build *b)
{
    int64_t ch = b->in[0].rank >= 2 ? b->in[0].dims[1] : 0;
    return group_step(b, b->op == QX_OP_InstanceNormalization ? ch : cu_int(b, "num_groups", 0), cu_float(b, "epsilon", 1e-5f), false);
}
const cu_adapter qx_cuda_group_norm = {real_place, group_compile};

static qx_status fused_group_compile(cu_build *b)
{
    return group_step(b, cu_int(b, "groups", 0), cu_float(b, "epsilon", 1e-5f), cu_int(b, "silu", 0) != 0);
}
extern const cu_adapter cu_fused_group_norm;
const cu_adapter cu_fused_group_norm = {real_place, fused_group_compile};

/* ---- reductions ---- */

typedef struct reduce_row { qx_op_id op; qx_reduce fn; bool ints; } reduce_row;
static const reduce_row reduce_rows[] = {
    {QX_OP_ReduceSum, QX_R_SUM, true}, {QX_OP_ReduceMean, QX_R_MEAN, false}, {QX_OP_ReduceMax, QX_R_MAX, true},
    {QX_OP_ReduceMin, QX_R_MIN, true},
    {QX_OP_ReduceProd, QX_R_PROD, true}, {QX_OP_ReduceL1, QX_R_L1, false}, {QX_OP_ReduceL2, QX_R_L2, false},
    {QX_OP_ReduceSumSquare, QX_R_SUMSQ, false},
    {QX_OP_ReduceLogSum, QX_R_LOGSUM, false}, {QX_OP_ReduceLogSumExp, QX_R_LOGSUMEXP, false},
};

static const reduce_row *reduce_row_of(const cu_build *b)
{
    for (size_t i = 0; i < sizeof reduce_rows / sizeof *reduce_rows; i++)
        if (reduce_rows[i].op == b->op) return &reduce_rows[i];
    return NULL;
}

static bool reduces(const reduce_row *r, int dtype)
{
    return cu_real(dtype) || (r->ints && cu_integer(dtype) && dtype != QX_DT_UINT64 && dtype != QX_DT_BOOL);
}

static qx_status reduce_place(const cu_build *b)
{
    const reduce_row *r = reduce_row_of(b);
    if (!r || (b->in[0].dtype && !reduces(r, b->in[0].dtype)))
        CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    return cu_host_in(b, 1, 1);
}

typedef struct reduce_args { qk_reduce_args r; qk_copy_args turn; bool turned; size_t bytes; } reduce_args;

static qx_status reduce_run(const cu_run *r)
{
    reduce_args a = *(const reduce_args *)r->args;
    a.r.x = r->in[0].data;
    a.r.y = r->out[0].data;
    if (a.turned) {
        a.turn.src = a.r.x;
        a.turn.dst = r->ws;
        a.r.x = r->ws;
        QX_TRY(cu_launched(r->d->m, qk_copy(r->q, &a.turn)));
    }
    return cu_launched(r->d->m, qk_reduce(r->q, &a.r));
}

/* Axes that are not neighbours are moved behind the others first. */
static void reduce_turn(const qx_dev_tensor *x, const bool *over, reduce_args *a)
{
    int64_t xs[QK_RANK], s[2][QK_RANK] = {{0}};
    int n = 0;
    cu_strides(x->dims, x->rank, xs);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->rank; i++)
            if (over[i] == (pass == 1)) {
                a->turn.dims[n] = x->dims[i];
                s[0][n++] = xs[i];
            }
    cu_strides(a->turn.dims, n, s[1]);
    a->turn.n = x->numel;
    a->turn.size = cu_bytes(x->dtype);
    a->turn.rank = cu_collapse(n, a->turn.dims, 2, s);
    memcpy(a->turn.ss, s[0], sizeof s[0]);
    memcpy(a->turn.ds, s[1], sizeof s[1]);
    a->turned = true;
    a->bytes = x->bytes;
}

static qx_status reduce_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    const reduce_row *row = reduce_row_of(b);
    int64_t axes[64], n;
    bool over[QK_RANK] = {false};
    int first = x->rank, last = -1, count = 0;
    if (!reduces(row, x->dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(x->dtype)->text);
    QX_TRY(cu_list(b, "axes", 1, axes, &n));
    if (n <= 0 && cu_int(b, "noop_with_empty_axes", 0)) CU_NO(b, "a reduction of nothing");
    for (int64_t k = 0; k < (n > 0 ? n : x->rank); k++) {
        int axis;
        QX_TRY(cu_axis(b, n > 0 ? axes[k] : k, x->rank, &axis));
        over[axis] = true;
    }
    for (int i = 0; i < x->rank; i++) {
        if (!over[i]) continue;
        first = i < first ? i : first;
        last = i;
        count++;
    }
    reduce_args a = {.r = {.dtype = x->dtype, .op = (int32_t)row->fn, .inner = 1, .outer = 1, .d = 1}};
    if (count && last - first + 1 == count) {
        a.r.outer = cu_prod(x->dims, 0, first);
        a.r.d = cu_prod(x->dims, first, last + 1);
        a.r.inner = cu_prod(x->dims, last + 1, x->rank);
    } else if (count) {
        for (int i = 0; i < x->rank; i++) *(over[i] ? &a.r.d : &a.r.outer) *= x->dims[i];
        reduce_turn(x, over, &a);
    }
    b->step->workspace = a.bytes;
    return cu_step(b, reduce_run, &a, sizeof a);
}
const cu_adapter qx_cuda_reduce = {reduce_place, reduce_compile};

static qx_status arg_place(const cu_build *b)
{
    if (b->in[0].dtype && !cu_real(b->in[0].dtype) && !cu_integer(b->in[0].dtype))
        CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    return QX_OK;
}

static qx_status arg_run(const cu_run *r)
{
    qk_arg_args a = *(const qk_arg_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_arg(r->q, &a));
}

static qx_status arg_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    int axis;
    QX_TRY(cu_axis(b, cu_int(b, "axis", 0), x->rank, &axis));
    const qk_arg_args a = {.outer = cu_prod(x->dims, 0, axis), .d = x->rank ? x->dims[axis] : 1,
                           .inner = cu_prod(x->dims, axis + 1, x->rank), .dtype = x->dtype,
                           .min = b->op == QX_OP_ArgMin, .last = cu_int(b, "select_last_index", 0) != 0};
    return cu_step(b, arg_run, &a, sizeof a);
}
const cu_adapter qx_cuda_arg = {arg_place, arg_compile};

static qx_status cumsum_place(const cu_build *b)
{
    if (b->in[0].dtype && !cu_real(b->in[0].dtype) && !cu_integer(b->in[0].dtype))
        CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    return cu_host_in(b, 1, 1);
}

static qx_status cumsum_run(const cu_run *r)
{
    qk_cumsum_args a = *(const qk_cumsum_args *)r->args;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_cumsum(r->q, &a));
}

static qx_status cumsum_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    int64_t list[64], n;
    int axis;
    QX_TRY(cu_list(b, NULL, 1, list, &n));
    if (n != 1) CU_BAD(b, "%lld axes", (long long)n);
    QX_TRY(cu_axis(b, list[0], x->rank, &axis));
    const qk_cumsum_args a = {.outer = cu_prod(x->dims, 0, axis), .d = x->rank ? x->dims[axis] : 1,
                              .inner = cu_prod(x->dims, axis + 1, x->rank), .dtype = x->dtype,
                              .exclusive = cu_int(b, "exclusive", 0) != 0, .reverse = cu_int(b, "reverse", 0) != 0};
    return cu_step(b, cumsum_run, &a, sizeof a);
}
const cu_adapter qx_cuda_cumsum = {cumsum_place, cumsum_compile};

/* ---- rotary embedding: (X, cos, sin, positions) of the standard, (input, positions, cos, sin) of com.microsoft ---- */

typedef struct rope_args { qk_rope_args r; uint32_t cos, sin, pos; bool has_pos; } rope_args;

static qx_status rope_run(const cu_run *r)
{
    const rope_args *p = r->args;
    qk_rope_args a = p->r;
    a.x = r->in[0].data;
    a.cos = r->in[p->cos].data;
    a.sin = r->in[p->sin].data;
    a.pos = p->has_pos ? r->in[p->pos].data : NULL;
    a.y = r->out[0].data;
    a.bad = r->d->bad;
    return cu_launched(r->d->m, qk_rope(r->q, &a));
}

static qx_status rope_dims(const cu_build *b, int64_t cols, qk_rope_args *a)
{
    const qx_dev_tensor *x = &b->in[0];
    int64_t heads = cu_int(b, "num_heads", 0);
    a->batch = x->dims[0];
    if (x->rank == 4) {
        a->heads = x->dims[1];
        a->seq = x->dims[2];
        a->d = x->dims[3];
        a->ss = a->d;
        a->sh = a->seq * a->d;
    } else {
        if (x->rank == 3 && heads <= 0) heads = x->dims[2] / (2 * (cols > 0 ? cols : 1));
        if (x->rank != 3 || heads <= 0 || x->dims[2] % heads) CU_BAD(b, "input of rank %d with %lld heads", x->rank, (long long)heads);
        a->heads = heads;
        a->seq = x->dims[1];
        a->d = x->dims[2] / heads;
        a->ss = heads * a->d;
        a->sh = a->d;
    }
    a->sb = a->heads * a->seq * a->d;
    a->rot = cu_int(b, "rotary_embedding_dim", 0);
    if (!a->rot) a->rot = 2 * cols < a->d ? 2 * cols : a->d;
    if (a->rot < 2 || a->rot % 2 || a->rot > a->d || cols != a->rot / 2)
        CU_BAD(b, "%lld rotated of %lld, caches of %lld columns", (long long)a->rot, (long long)a->d, (long long)cols);
    return QX_OK;
}

static qx_status rope_compile(cu_build *b)
{
    bool ms = b->op == QX_OP_ms_RotaryEmbedding;
    rope_args p = {.cos = ms ? 2 : 1, .sin = ms ? 3 : 2, .pos = ms ? 1 : 3};
    const qx_dev_tensor *cs = &b->in[p.cos];
    QX_TRY(need_real(b, 0));
    QX_TRY(need_real(b, p.cos));
    if (cs->rank < 1 || b->in[p.sin].numel != cs->numel || b->in[p.sin].dtype != cs->dtype) CU_BAD(b, "the two caches differ");
    p.r = (qk_rope_args){.dtype = b->in[0].dtype, .ttype = cs->dtype, .interleaved = cu_int(b, "interleaved", 0) != 0};
    QX_TRY(rope_dims(b, cs->dims[cs->rank - 1], &p.r));
    p.r.max_pos = cs->numel / (p.r.rot / 2);
    p.has_pos = cu_has(b, p.pos);
    int64_t n_pos = p.has_pos ? b->in[p.pos].numel : 0, tokens = p.r.batch * p.r.seq;
    if (p.has_pos ? n_pos != 1 && n_pos != tokens : p.r.max_pos != tokens)
        CU_BAD(b, "%lld positions, %lld cache rows for %lld tokens", (long long)n_pos, (long long)p.r.max_pos, (long long)tokens);
    if (p.has_pos && b->in[p.pos].dtype != QX_DT_INT64) CU_NO(b, "positions of %s", qx_dtype_get(b->in[p.pos].dtype)->text);
    p.r.table_batch = p.r.seq;
    p.r.pos_add = n_pos == 1;
    p.r.pos_batch = n_pos == 1 ? 0 : p.r.seq;
    p.r.pos_seq = n_pos == 1 ? 0 : 1;
    return cu_step(b, rope_run, &p, sizeof p);
}
const cu_adapter qx_cuda_rotary = {real_place, rope_compile};
