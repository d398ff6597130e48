/* rotary.c - RotaryEmbedding of the standard (X, cos, sin, position_ids) and of com.microsoft (input, position_ids, cos, sin), and
 * MRotaryEmbedding, which turns each token by three positions: one row of angles a token is gathered first, the rest is the same. */
#include <string.h>

#include "kernels/rows.h"
#include "runtime/cpu/op.h"

typedef struct rope {
    const qx_call *call;
    const float *x, *cos, *sin;
    float *y;
    const int64_t *pos;
    int64_t n_pos, batch, heads, seq, d, rot, cache_rows, batch_s, head_s, row_s;
    bool interleaved, per_token;
} rope;

static qx_status row_of(const qx_call *c, const rope *r, int64_t b, int64_t s, int64_t *out)
{
    if (r->per_token) return *out = b * r->seq + s, QX_OK;
    *out = r->n_pos == 1 ? r->pos[0] + s : r->pos[b * r->seq + s];
    if (*out >= 0 && *out < r->cache_rows) return QX_OK;
    QX_CALL_FAIL(c, QX_E_SHAPE, "position %lld of %lld", (long long)*out, (long long)r->cache_rows);
}

/* X is [batch, heads, seq, d] or [batch, seq, heads * d]. */
static qx_status setup(qx_call *c, rope *r, const qx_tensor *x, const qx_tensor *cache, int64_t heads)
{
    const int64_t cols = cache->dims[cache->rank - 1];
    r->rot = qx_call_int(c, "rotary_embedding_dim", 0);
    if (x->rank == 4) {
        *r = (rope){.batch = x->dims[0], .heads = x->dims[1], .seq = x->dims[2], .d = x->dims[3], .rot = r->rot};
        r->row_s = r->d;
        r->head_s = r->seq * r->d;
    } else {
        if (x->rank == 3 && heads <= 0) heads = x->dims[2] / (2 * (cols > 0 ? cols : 1));
        if (x->rank != 3 || heads <= 0 || x->dims[2] % heads)
            QX_CALL_FAIL(c, QX_E_SHAPE, "input of rank %d with %lld heads", x->rank, (long long)heads);
        *r = (rope){.batch = x->dims[0], .heads = heads, .seq = x->dims[1], .d = x->dims[2] / heads, .rot = r->rot};
        r->row_s = heads * r->d;
        r->head_s = r->d;
    }
    r->batch_s = r->heads * r->seq * r->d;
    if (!r->rot) r->rot = 2 * cols < r->d ? 2 * cols : r->d;
    if (r->rot % 2 || r->rot > r->d || cols != r->rot / 2)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld rotated of %lld, caches of %lld columns", (long long)r->rot, (long long)r->d, (long long)cols);
    r->interleaved = qx_call_int(c, "interleaved", 0) != 0;
    return QX_OK;
}

/* All heads of one token; what is not rotated is copied. */
static qx_status rotate_token(void *user, int64_t t)
{
    const rope *r = user;
    const int64_t b = t / r->seq, s = t % r->seq, half = r->rot / 2;
    int64_t row = 0;
    QX_TRY(row_of(r->call, r, b, s, &row));
    for (int64_t h = 0; h < r->heads; h++) {
        const int64_t at = b * r->batch_s + h * r->head_s + s * r->row_s;
        qx_rope_row(r->x + at, r->cos + row * half, r->sin + row * half, half, r->interleaved, r->y + at);
        memcpy(r->y + at + r->rot, r->x + at + r->rot, (size_t)(r->d - r->rot) * sizeof *r->y);
    }
    return QX_OK;
}

/* Which of the three positions (time, height, width) column i of the caches goes by. */
static int stream_of(const int64_t section[3], bool in_turn, int64_t i)
{
    if (in_turn) return i % 3 && i < 3 * section[i % 3] ? (int)(i % 3) : 0;
    return i < section[0] ? 0 : i < section[0] + section[1] ? 1 : 2;
}

/* cos or sin of every token, [batch * seq, half], from the rows of the cache that its three positions name, times the node's scale. */
static qx_status gather_angles(qx_call *c, const rope *r, const int64_t *section, const float *cache, float **out)
{
    const bool in_turn = qx_call_int(c, "mrope_layout", 0) != 0;
    const float scale = qx_call_float(c, "scale", 1.0f);
    const int64_t tokens = r->batch * r->seq, half = r->rot / 2;
    QX_TRY(QX_CALL_SCRATCH(c, tokens * half + 1, out));
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < half; i++)
            (*out)[t * half + i] = scale * cache[r->pos[stream_of(section, in_turn, i) * tokens + t] * half + i];
    return QX_OK;
}

/* Turns positions [3, batch, seq] into angles of each token. */
static qx_status three_positions(qx_call *c, rope *r)
{
    int64_t n = 0;
    float *cs, *sn;
    const int64_t *section = qx_call_ints(c, "mrope_section", &n), tokens = r->batch * r->seq;
    if (qx_call_int(c, "is_packed_batching", 0)) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "is_packed_batching is %d; only 0 is there", 1);
    if (n != 3 || section[0] < 0 || section[1] < 0 || section[2] < 0 || section[0] > r->rot || section[1] > r->rot || section[2] > r->rot ||
        2 * (section[0] + section[1] + section[2]) != r->rot)
        QX_CALL_FAIL(c, QX_E_SHAPE, "mrope_section has %lld sizes; 3 are needed, of %lld columns together", (long long)n,
                     (long long)r->rot / 2);
    if (r->n_pos != 3 * tokens)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld positions for 3 times %lld tokens", (long long)r->n_pos, (long long)tokens);
    for (int64_t i = 0; i < r->n_pos; i++)
        if (r->pos[i] < 0 || r->pos[i] >= r->cache_rows)
            QX_CALL_FAIL(c, QX_E_SHAPE, "position %lld of %lld", (long long)r->pos[i], (long long)r->cache_rows);
    QX_TRY(gather_angles(c, r, section, r->cos, &cs));
    QX_TRY(gather_angles(c, r, section, r->sin, &sn));
    r->cos = cs;
    r->sin = sn;
    r->cache_rows = tokens;
    r->per_token = true;
    return QX_OK;
}

static qx_status run(qx_call *c, uint32_t i_cos, uint32_t i_sin, uint32_t i_pos)
{
    const qx_tensor *x, *cs, *sn;
    rope r = {0};
    const float *xf;
    float *y;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, i_cos, &cs));
    QX_TRY(qx_call_need(c, i_sin, &sn));
    if (cs->rank < 1 || cs->numel != sn->numel) QX_CALL_FAIL(c, QX_E_SHAPE, "the two caches differ");
    QX_TRY(setup(c, &r, x, cs, qx_call_int(c, "num_heads", 0)));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_in_f32(c, i_cos, &r.cos));
    QX_TRY(qx_call_in_f32(c, i_sin, &r.sin));
    QX_TRY(qx_call_in_i64(c, i_pos, &r.pos, &r.n_pos));
    r.per_token = !qx_call_in(c, i_pos);
    r.cache_rows = r.rot ? cs->numel / (r.rot / 2) : 0;
    if (c->node->op->id == QX_OP_ms_MRotaryEmbedding) QX_TRY(three_positions(c, &r));
    if (r.per_token ? r.cache_rows != r.batch * r.seq : r.n_pos != 1 && r.n_pos != r.batch * r.seq)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld positions, %lld cache rows for [%lld, %lld]", (long long)r.n_pos, (long long)r.cache_rows,
                     (long long)r.batch, (long long)r.seq);
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    for (int64_t t = 0; t < r.batch * r.seq; t++) {
        int64_t row;
        QX_TRY(row_of(c, &r, t / r.seq, t % r.seq, &row)); /* positions are data: looked at before the threads start */
    }
    r.x = xf;
    r.y = y;
    r.call = c;
    return qx_parallel(c->ctx, r.batch * r.seq, rotate_token, &r);
}

qx_status qx_cpu_rotary(qx_call *c) { return run(c, 1, 2, 3); }
qx_status qx_cpu_ms_rotary(qx_call *c) { return run(c, 2, 3, 1); }
qx_status qx_cpu_ms_mrotary(qx_call *c) { return run(c, 2, 3, 1); }
