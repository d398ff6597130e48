/* matmul_integer.c - products of 8-bit codes with exact int32 sums: MatMulInteger, QLinearMatMul, and com.microsoft's
 * MatMulIntegerToFloat, DynamicQuantizeMatMul and QGemm. They differ in where scales and zero points stand and in how a sum is
 * finished: one table. Constant weights are packed once. */
#include "kernels/quant.h"
#include "runtime/cpu/codes/codes.h"
#include "runtime/cpu/matmul/matmul.h"
#include "runtime/cpu/codes/qdq.h"

enum { NO = UINT32_MAX };
typedef struct form { qx_op_id op; uint32_t b, a_scale, a_zero, b_scale, b_zero, bias, y_scale, y_zero; } form;
static const form forms[] = {
    {QX_OP_MatMulInteger, 1, NO, 2, NO, 3, NO, NO, NO},
    {QX_OP_QLinearMatMul, 3, 1, 2, 4, 5, NO, 6, 7},
    {QX_OP_ms_MatMulIntegerToFloat, 1, 2, 4, 3, 5, 6, NO, NO},
    {QX_OP_ms_DynamicQuantizeMatMul, 1, NO, NO, 2, 3, 4, NO, NO},
    {QX_OP_ms_QGemm, 3, 1, 2, 4, 5, 6, 7, 8},
};

/* Numbers that are one, or one a row (column), or one a row of every matrix. */
typedef struct spread { const float *f; const int32_t *z; int64_t n; bool per, per_matrix; } spread;

typedef struct state { qx_code_panels w; } state;

static void drop(qx_ctx *ctx, void *block)
{
    qx_code_panels_free(ctx, &((state *)block)->w);
}

typedef struct job {
    qx_mm_shape s;
    qx_tensor a, b;               /* dims as multiplied */
    const void *codes; bool a_signed; /* of A */
    const qx_code_panels *w;
    qx_code_out out;
    spread za, zb, sa, sb;
    void *y; int y_size;
    int64_t blocks, panels;
} job;

static qx_status read_spread(qx_call *c, uint32_t i, const char *what, int64_t per, int64_t matrices, bool zero, spread *s)
{
    static const float one = 1.0f;
    const qx_tensor *t = i == NO ? NULL : qx_call_in(c, i);
    *s = (spread){.f = &one, .n = 1};
    if (!t) return QX_OK;
    s->n = t->numel;
    s->per_matrix = matrices > 1 && t->numel == per * matrices && per * matrices > 1 && t->numel != per;
    s->per = t->numel != 1 && (s->per_matrix || t->numel == per);
    if (t->numel != 1 && !s->per)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s (input %u) has %lld elements; 1 or %lld are needed", what, i, (long long)t->numel, (long long)per);
    return zero ? qx_q_zeros(c, t, &s->z) : qx_call_in_f32(c, i, &s->f);
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const int64_t panel = i % j->panels, block = i / j->panels % j->blocks, batch = i / j->panels / j->blocks;
    const int64_t ma = qx_mm_batch_at(&j->s, &j->a, batch), mb = qx_mm_batch_at(&j->s, &j->b, batch), first = block * QX_CODE_ROWS;
    const int64_t ra = (j->za.per_matrix ? ma * j->s.m : 0) + first, sra = (j->sa.per_matrix ? ma * j->s.m : 0) + first;
    const qx_code_tile t = {
        .w = j->w, .matrix = mb, .panel = panel, .rows = j->s.m - first < QX_CODE_ROWS ? j->s.m - first : QX_CODE_ROWS,
        .a = (const char *)j->codes + (ma * j->s.m + first) * j->s.k, .lda = j->s.k, .a_signed = j->a_signed,
        .za = j->za.z && j->za.per ? j->za.z + ra : j->za.z, .za_per_row = j->za.per,
        .zb = j->zb.z && j->zb.per_matrix ? j->zb.z + mb * j->s.n : j->zb.z, .zb_per_col = j->zb.per,
        .sa = j->sa.per ? j->sa.f + sra : j->sa.f, .sa_per_row = j->sa.per,
        .sb = j->sb.per_matrix ? j->sb.f + mb * j->s.n : j->sb.f, .sb_per_col = j->sb.per,
        .out = &j->out, .y = (char *)j->y + ((batch * j->s.m + first) * j->s.n + panel * QX_IGEMM_PANEL) * j->y_size, .row = j->s.n,
            .col = 1};
    qx_code_tile_run(&t);
    return QX_OK;
}

/* A of DynamicQuantizeMatMul: uint8 codes of the whole tensor's range (with 0 in it). */
static qx_status quantize_a(qx_call *c, const qx_tensor *a, job *j, float *scale, int32_t *zero)
{
    const float *f;
    uint8_t *codes = NULL;
    float lo = 0, hi = 0;
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(QX_CALL_SCRATCH(c, a->numel + 1, &codes));
    qx_dynamic_range(f, a->numel, &lo, &hi);
    qx_dynamic_scale(lo, hi, scale, zero);
    const qx_qparams p = {.layout = {.scalar = true}, .codes = QX_DT_UINT8, .scale = scale, .zero = zero};
    QX_TRY(qx_q_tensor(c, &p, QX_DT_FLOAT, f, a->numel, codes));
    j->codes = codes;
    j->sa = (spread){.f = scale, .n = 1};
    j->za = (spread){.z = zero, .n = 1};
    return QX_OK;
}

/* A as multiplied: codes, and turned when transA asks for it (QGemm). */
static qx_status left(qx_call *c, job *j, bool turn)
{
    const qx_tensor *a;
    QX_TRY(qx_code_input(c, 0, &a));
    j->a = *a;
    j->codes = a->data;
    j->a_signed = a->dtype == QX_DT_INT8;
    if (!turn) return QX_OK;
    uint8_t *t = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, a->numel + 1, &t));
    qx_transpose(1, a->dims[0], a->dims[1], a->data, a->dims[1], t, a->dims[0]);
    j->a.dims[0] = a->dims[1];
    j->a.dims[1] = a->dims[0];
    j->codes = t;
    return QX_OK;
}

static qx_status right(qx_call *c, const form *f, const qx_tensor *b, bool turned, state *st, job *j, qx_code_panels *fresh)
{
    const int64_t matrices = qx_mm_batches(&j->b);
    const bool keep = qx_call_in_const(c, f->b);
    qx_code_panels *w = keep ? &st->w : fresh;
    j->w = w;
    if (keep && w->packed) return QX_OK;
    *w = (qx_code_panels){.k = j->s.k, .n = j->s.n, .count = matrices, .is_signed = b->dtype == QX_DT_INT8};
    const qx_code_source src = {b->data, j->s.k * j->s.n, turned ? 1 : j->s.n, turned ? j->s.k : 1};
    QX_TRY(qx_code_pack(c, &src, keep, w));
    if (keep) qx_call_drop_const(c, f->b);
    return QX_OK;
}

static qx_status bias_of(qx_call *c, const form *f, job *j)
{
    const qx_tensor *t = f->bias == NO ? NULL : qx_call_in(c, f->bias);
    if (!t) return QX_OK;
    if (t->numel != j->s.n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "the bias (input %u) has %lld elements for %lld columns", f->bias, (long long)t->numel,
                     (long long)j->s.n);
    if (f->op != QX_OP_ms_QGemm) return qx_call_in_f32(c, f->bias, &j->out.bias);
    if (t->dtype != QX_DT_INT32) QX_CALL_FAIL(c, QX_E_TYPE, "C is %s, int32 is needed", qx_dtype_get(t->dtype)->text);
    j->out.ibias = t->data;
    return QX_OK;
}

/* Kind and type of the output, and its memory. */
static qx_status output(qx_call *c, const form *f, job *j)
{
    const qx_tensor *ys = f->y_scale == NO ? NULL : qx_call_in(c, f->y_scale), *yz = f->y_zero == NO ? NULL : qx_call_in(c, f->y_zero);
    qx_tensor *y = NULL;
    if (!ys && f->op != QX_OP_MatMulInteger) {
        const qx_tensor *scale;
        float *fy = NULL;
        QX_TRY(qx_call_need(c, f->a_scale == NO ? 0 : f->a_scale, &scale));
        j->out.kind = QX_CODE_FLOAT;
        j->y_size = (int)sizeof *fy;
        QX_TRY(qx_call_out_f32(c, 0, scale->dtype, j->s.rank, j->s.dims, &fy));
        j->y = fy;
        return QX_OK;
    }
    qx_dtype type = QX_DT_INT32;
    if (ys) {
        double s;
        int64_t z;
        QX_TRY(qx_call_scalar_f64(c, f->y_scale, 1, &s));
        QX_TRY(qx_call_scalar_i64(c, f->y_zero, 0, &z));
        type = yz ? yz->dtype : QX_DT_UINT8;
        if (type != QX_DT_INT8 && type != QX_DT_UINT8) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "an output of %s codes", qx_dtype_get(type)->text);
        j->out = (qx_code_out){.kind = QX_CODE_CODES, .codes = type, .sy = (float)s, .zy = (int32_t)z};
    }
    QX_TRY(qx_call_out(c, 0, type, j->s.rank, j->s.dims, &y));
    j->y = y->data;
    j->y_size = qx_dtype_bits(type) / 8;
    return QX_OK;
}

static const form *form_of(const qx_call *c)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (forms[i].op == c->node->op->id) return &forms[i];
    return NULL;
}

/* Shapes, with transA and transB of QGemm. */
static qx_status shapes(qx_call *c, const form *f, job *j, bool *turn_b)
{
    const qx_tensor *b;
    const bool gemm = f->op == QX_OP_ms_QGemm, turn_a = gemm && qx_call_int(c, "transA", 0) != 0,
        dynamic = f->op == QX_OP_ms_DynamicQuantizeMatMul;
    *turn_b = gemm && qx_call_int(c, "transB", 0) != 0;
    QX_TRY(qx_code_input(c, f->b, &b));
    if (gemm && (b->rank != 2 || !qx_call_in(c, 0) || c->in[0]->rank != 2)) QX_CALL_FAIL(c, QX_E_SHAPE, "both operands must be matrices");
    j->b = *b;
    if (*turn_b) {
        j->b.dims[0] = b->dims[1];
        j->b.dims[1] = b->dims[0];
    }
    if (!dynamic) {
        QX_TRY(left(c, j, turn_a));
    } else {
        const qx_tensor *a;
        QX_TRY(qx_call_need(c, 0, &a));
        j->a = *a;
    }
    return qx_mm_shape_of(c, &j->a, &j->b, &j->s);
}

static qx_status scales(qx_call *c, const form *f, job *j)
{
    const int64_t ma = qx_mm_batches(&j->a), mb = qx_mm_batches(&j->b);
    QX_TRY(read_spread(c, f->b_scale, "the scale of B", j->s.n, mb, false, &j->sb));
    QX_TRY(read_spread(c, f->b_zero, "the zero point of B", j->s.n, mb, true, &j->zb));
    if (f->op == QX_OP_ms_DynamicQuantizeMatMul) return QX_OK;
    QX_TRY(read_spread(c, f->a_scale, "the scale of A", j->s.m, ma, false, &j->sa));
    QX_TRY(read_spread(c, f->a_zero, "the zero point of A", j->s.m, ma, true, &j->za));
    const float alpha = f->op == QX_OP_ms_QGemm ? qx_call_float(c, "alpha", 1.0f) : 1.0f;
    if (alpha == 1.0f) return QX_OK;
    if (j->sa.n != 1) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "alpha %g beside a scale a row", (double)alpha);
    float *s = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, 1, &s));
    *s = j->sa.f[0] * alpha;
    j->sa.f = s;
    return QX_OK;
}

qx_status qx_cpu_matmul_integer(qx_call *c)
{
    const form *f = form_of(c);
    job j = {0};
    state *st = NULL;
    qx_code_panels fresh = {0};
    float scale;
    int32_t zero;
    bool turn_b;
    if (!f) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "not in the table of integer products");
    QX_TRY(shapes(c, f, &j, &turn_b));
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    QX_TRY(scales(c, f, &j));
    if (f->op == QX_OP_ms_DynamicQuantizeMatMul) QX_TRY(quantize_a(c, qx_call_in(c, 0), &j, &scale, &zero));
    QX_TRY(output(c, f, &j));
    QX_TRY(bias_of(c, f, &j));
    const int64_t batch = qx_prod(j.s.batch_dims, 0, j.s.n_batch);
    if (batch == 0 || j.s.m == 0 || j.s.n == 0) return QX_OK;
    QX_TRY(right(c, f, qx_call_in(c, f->b), turn_b, st, &j, &fresh));
    j.blocks = (j.s.m + QX_CODE_ROWS - 1) / QX_CODE_ROWS;
    j.panels = qx_igemm_panels(j.s.n);
    qx_call_note_kernel(c, "own int8 panels", 2.0 * (double)(batch * j.s.m) * (double)j.s.n * (double)j.s.k);
    return qx_parallel(c->ctx, batch * j.blocks * j.panels, piece, &j);
}

typedef struct wide_job { const int16_t *a, *b; int32_t *y; qx_mm_shape s; const qx_tensor *ta, *tb; } wide_job;

static qx_status wide_row(void *user, int64_t i)
{
    const wide_job *j = user;
    const int64_t batch = i / j->s.m, n = j->s.n, k = j->s.k;
    const int16_t *a = j->a + (qx_mm_batch_at(&j->s, j->ta, batch) * j->s.m + i % j->s.m) * k,
        *b = j->b + qx_mm_batch_at(&j->s, j->tb, batch) * k * n;
    for (int64_t q = 0; q < n; q++) {
        uint32_t sum = 0;
        for (int64_t p = 0; p < k; p++) sum += (uint32_t)((int32_t)a[p] * (int32_t)b[p * n + q]);
        j->y[i * n + q] = (int32_t)sum;
    }
    return QX_OK;
}

qx_status qx_cpu_ms_matmul_integer16(qx_call *c)
{
    wide_job j = {0};
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &j.ta));
    QX_TRY(qx_call_need(c, 1, &j.tb));
    if (j.ta->dtype != QX_DT_INT16 || j.tb->dtype != QX_DT_INT16)
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "operands are %s and %s, int16 is multiplied", qx_dtype_get(j.ta->dtype)->text,
                     qx_dtype_get(j.tb->dtype)->text);
    QX_TRY(qx_mm_shape_of(c, j.ta, j.tb, &j.s));
    QX_TRY(qx_call_out(c, 0, QX_DT_INT32, j.s.rank, j.s.dims, &y));
    j.a = j.ta->data;
    j.b = j.tb->data;
    j.y = y->data;
    return y->numel ? qx_parallel(c->ctx, qx_prod(j.s.batch_dims, 0, j.s.n_batch) * j.s.m, wide_row, &j) : QX_OK;
}
