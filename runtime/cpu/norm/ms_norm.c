/* ms_norm.c - com.microsoft's GroupNorm and SkipGroupNorm (usually with channels last), and EmbedLayerNormalization. */
#include <string.h>

#include "kernels/pointwise.h"
#include "kernels/rows.h"
#include "runtime/cpu/picture/nhwc.h"

/* ---- GroupNorm, SkipGroupNorm: through NCHW, where a group is one run of memory ---- */

typedef struct group_job { float *x; const float *gamma, *beta; int64_t groups, channels, pixels; float eps; bool silu; } group_job;

static qx_status group_piece(void *user, int64_t i)
{
    const group_job *j = user;
    const int64_t g = i % j->groups, per = j->channels / j->groups;
    const float one[2] = {1, 0};
    float *x = j->x + i * per * j->pixels, mean, inv;
    qx_moments(x, per * j->pixels, j->eps, &mean, &inv);
    for (int64_t k = 0; k < per; k++) {
        float *row = x + k * j->pixels;
        qx_affine_row(row, mean, inv, j->gamma[g * per + k], j->beta[g * per + k], row, j->pixels);
        if (j->silu) qx_unary_find(QX_U_SWISH, QX_DT_FLOAT)(row, row, j->pixels, one);
    }
    return QX_OK;
}

/* x + skip + bias, in the order of x; skip is as large as x, or has one value a channel of a picture. */
static qx_status add_skip(qx_call *c, const qx_tensor *x, bool last, const float *fx, float *sum)
{
    const qx_tensor *skip, *bias = qx_call_in(c, 4);
    const float *fs, *fb = NULL;
    const int64_t ch = last ? x->dims[x->rank - 1] : x->dims[1], per = x->numel / (x->dims[0] ? x->dims[0] : 1);
    QX_TRY(qx_call_need(c, 3, &skip));
    const bool full = skip->numel == x->numel;
    if ((!full && skip->numel != x->dims[0] * ch) || (bias && bias->numel != ch))
        QX_CALL_FAIL(c, QX_E_SHAPE, "skip has %lld elements, bias %lld, for %lld channels", (long long)skip->numel,
                     (long long)(bias ? bias->numel : 0), (long long)ch);
    QX_TRY(qx_call_in_f32(c, 3, &fs));
    if (bias) QX_TRY(qx_call_in_f32(c, 4, &fb));
    const int64_t step = last ? 1 : per / ch; /* elements of one channel beside each other */
    for (int64_t i = 0; i < x->numel; i++) {
        const int64_t k = i / step % ch;
        sum[i] = fx[i] + fs[full ? i : i / per * ch + k] + (fb ? fb[k] : 0.0f);
    }
    return QX_OK;
}

qx_status qx_cpu_ms_group_norm(qx_call *c)
{
    const bool skip = c->node->op->id == QX_OP_ms_SkipGroupNorm, last = qx_call_int(c, "channels_last", 1) != 0;
    const qx_tensor *x, *gamma, *beta;
    const float *fx;
    float *y, *sum, *work = NULL;
    qx_tensor view;
    group_job j = {.groups = qx_call_int(c, "groups", 0), .eps = qx_call_float(c, "epsilon", 1e-5f),
                   .silu = qx_call_int(c, "activation", 0) != 0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &gamma));
    QX_TRY(qx_call_need(c, 2, &beta));
    view = *x;
    if (last) QX_TRY(qx_nhwc_view(c, x, &view));
    if (view.rank < 3) QX_CALL_FAIL(c, QX_E_SHAPE, "input of rank %d", view.rank);
    j.channels = view.dims[1];
    j.pixels = qx_prod(view.dims, 2, view.rank);
    if (j.groups < 1 || j.channels % j.groups || gamma->numel != j.channels || beta->numel != j.channels)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld channels in %lld groups, gamma has %lld elements", (long long)j.channels, (long long)j.groups,
                     (long long)gamma->numel);
    QX_TRY(qx_call_in_f32(c, 0, &fx));
    QX_TRY(qx_call_in_f32(c, 1, &j.gamma));
    QX_TRY(qx_call_in_f32(c, 2, &j.beta));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    if (x->numel == 0) return QX_OK;
    if (skip) {
        QX_TRY(qx_call_out_f32(c, 1, x->dtype, x->rank, x->dims, &sum));
        QX_TRY(add_skip(c, x, last, fx, sum));
        fx = sum;
    }
    if (last) QX_TRY(qx_nhwc_to_nchw(c, &view, fx, &fx));
    else QX_TRY(QX_CALL_SCRATCH(c, x->numel, &work));
    if (!last) memcpy(work, fx, (size_t)x->numel * sizeof *work);
    j.x = last ? (float *)(uintptr_t)fx : work; /* the transposed copy is ours */
    QX_TRY(qx_parallel(c->ctx, x->dims[0] * j.groups, group_piece, &j));
    if (last) return qx_nchw_to_nhwc(c, x->rank, view.dims, j.x, y);
    memcpy(y, j.x, (size_t)x->numel * sizeof *y);
    return QX_OK;
}

/* ---- EmbedLayerNormalization ---- */

enum { IDS, SEGMENTS, WORDS, POSITIONS, SEGMENT_TABLE, GAMMA, BETA, MASK, POSITION_IDS };

/* Row ids[i] of a table [rows, n]. */
static qx_status row_at(const qx_call *c, uint32_t input, const float *table, int64_t id, int64_t n, const float **row)
{
    const int64_t rows = c->in[input]->dims[0];
    if (id < 0 || id >= rows)
        QX_CALL_FAIL(c, QX_E_SHAPE, "id %lld of a table (input %u) of %lld rows", (long long)id, input, (long long)rows);
    *row = table + id * n;
    return QX_OK;
}

/* The number of words: where the first 0 of the mask is. */
static qx_status mask_index(qx_call *c, const qx_tensor *ids)
{
    const int64_t *mask, B = ids->dims[0], S = ids->dims[1];
    int64_t n;
    qx_tensor *out = NULL;
    QX_TRY(qx_call_out(c, 1, QX_DT_INT32, 1, &B, &out));
    QX_TRY(qx_call_in_i64(c, MASK, &mask, &n));
    if (mask && n != B * S) QX_CALL_FAIL(c, QX_E_SHAPE, "mask has %lld elements, %lld are needed", (long long)n, (long long)(B * S));
    for (int64_t b = 0; b < B; b++) {
        int64_t words = 0;
        while (mask && words < S && mask[b * S + words] == 1) words++;
        ((int32_t *)out->data)[b] = (int32_t)words;
    }
    return QX_OK;
}

typedef struct embed {
    int64_t n;
    const float *word, *position, *segment, *gamma, *beta;
    const int64_t *ids, *segments, *positions;
    int64_t n_positions;
} embed;

static qx_status embed_inputs(qx_call *c, embed *e, const qx_tensor *ids)
{
    const qx_tensor *t;
    int64_t n;
    for (uint32_t i = WORDS; i <= BETA; i++) {
        if (i == SEGMENT_TABLE && !qx_call_in(c, i)) continue;
        QX_TRY(qx_call_need(c, i, &t));
        if (i == WORDS && t->rank == 2) e->n = t->dims[1];
        if (t->rank != (i < GAMMA ? 2 : 1) || t->dims[t->rank - 1] != e->n)
            QX_CALL_FAIL(c, QX_E_SHAPE, "input %u does not fit a hidden size of %lld", i, (long long)e->n);
        QX_TRY(qx_call_in_f32(c, i, i == WORDS ? &e->word : i == POSITIONS ? &e->position : i == SEGMENT_TABLE ? &e->segment : i == GAMMA
                              ? &e->gamma : &e->beta));
    }
    QX_TRY(qx_call_in_i64(c, IDS, &e->ids, &n));
    QX_TRY(qx_call_in_i64(c, SEGMENTS, &e->segments, &n));
    if (e->segments && (n != ids->numel || !e->segment))
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld segment ids for %lld words", (long long)n, (long long)ids->numel);
    QX_TRY(qx_call_in_i64(c, POSITION_IDS, &e->positions, &e->n_positions));
    if (e->positions && e->n_positions != ids->numel && e->n_positions != ids->dims[1])
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld position ids for %lld words", (long long)e->n_positions, (long long)ids->numel);
    return QX_OK;
}

qx_status qx_cpu_ms_embed_layer_norm(qx_call *c)
{
    const qx_tensor *ids;
    embed e = {0};
    float *y, *sum;
    const float eps = qx_call_float(c, "epsilon", 1e-12f);
    QX_TRY(qx_call_need(c, IDS, &ids));
    if (ids->rank != 2) QX_CALL_FAIL(c, QX_E_SHAPE, "input_ids have rank %d", ids->rank);
    QX_TRY(embed_inputs(c, &e, ids));
    const int64_t dims[3] = {ids->dims[0], ids->dims[1], e.n};
    QX_TRY(qx_call_out_f32(c, 0, c->in[WORDS]->dtype, 3, dims, &y));
    QX_TRY(mask_index(c, ids));
    QX_TRY(qx_call_out_f32(c, 2, c->in[WORDS]->dtype, 3, dims, &sum));
    for (int64_t i = 0; i < ids->numel; i++) {
        const float *w, *p, *s = NULL;
        float *row = sum + i * e.n;
        QX_TRY(row_at(c, WORDS, e.word, e.ids[i], e.n, &w));
        QX_TRY(row_at(c, POSITIONS, e.position, e.positions ? e.positions[i % e.n_positions] : i % ids->dims[1], e.n, &p));
        if (e.segments) QX_TRY(row_at(c, SEGMENT_TABLE, e.segment, e.segments[i], e.n, &s));
        for (int64_t k = 0; k < e.n; k++) row[k] = w[k] + p[k] + (s ? s[k] : 0.0f);
        qx_layernorm_row(row, e.gamma, e.beta, eps, y + i * e.n, e.n, NULL, NULL);
    }
    return QX_OK;
}
