/* table.c - see table.h. One outlier of a row takes the codes of all its other elements. What that costs is known from the row alone: even
 * steps of amax/127 have a noise of step^2/12. Blocks of 32 are never below 37 dB, whatever is in them.
 *
 * What a table gets wrong goes into every layer, whereas errors of single weights part on their way: where all weights have 8 bits, one
 * scale a row would often be most of the loss (MiniLM 37.3 dB with float tables, 35.4 so, 36.1 in blocks of 128), so that more is asked of
 * tables there: 43 dB, and beside weights alone, whose errors are all there is, blocks of 64 in every case, or of the format's own length
 * (SmolLM2's gptq,int8-weights KL 0.0031 to 0.0020 for 0.5 % of the file; with blocks of 32 everywhere 0.0018 to 0.0006 for 1.1 %). */
#include "passes/place/table.h"

#include <math.h>

#include "passes/place/emit.h"
#include "passes/place/half_scale.h"
#include "passes/place/scheme.h"

enum { TRIED = 4, ROWS = 256, LEVELS = 127 };
static const int64_t shorter[TRIED] = {0, 128, 64, 32}; /* 0: as the format has it */
enum { LEAST_DB = 35, FINE_DB = 43, FINE_BLOCK = 64 };

typedef struct noise { int64_t block[TRIED]; double of[TRIED], signal; } noise;

static double noise_of(const float *x, int64_t k, int64_t block)
{
    double sum = 0;
    for (int64_t i = 0; i < k; i += block) {
        float amax = 0;
        for (int64_t j = i; j < k && j < i + block; j++) amax = fmaxf(amax, fabsf(x[j]));
        const double step = (double)amax / LEVELS;
        sum += step * step / 12 * (double)(k - i < block ? k - i : block);
    }
    return sum;
}

static void add_row(void *user, const float *x, int64_t k)
{
    noise *s = user;
    for (int64_t j = 0; j < k; j++) s->signal += (double)x[j] * x[j];
    for (int b = 0; b < TRIED; b++)
        if (s->block[b]) s->of[b] += noise_of(x, k, s->block[b]);
}

static bool blocks_allowed(const qx_pass *p, const qx_plan_item *it)
{
    qx_qspec blocked = it->weight->spec;
    blocked.block = 32;
    return qx_emit_may(p->pipe, qx_emit_need(&blocked));
}

/* Of the first format, which has been settled before those of tables; NULL: it is none of one kind. */
static const qx_scheme *main_scheme(const qx_pipeline *pipe)
{
    for (int i = 0; i < pipe->n_passes; i++) {
        const uint32_t flags = pipe->passes[i]->def->flags;
        if (flags & QX_PASS_FORMAT) return flags & QX_PASS_MIXES ? NULL : pipe->passes[i]->state;
    }
    return NULL;
}

/* Whether blocks in a table ask for no newer operators than the model or the format of its other weights. */
static bool is_free(const qx_pass *p, const qx_scheme *main, qx_plan_item *it)
{
    const int64_t block = it->weight->spec.block, has = qx_graph_opset(p->pipe->model->graph, "");
    it->weight->spec.block = FINE_BLOCK;
    const int64_t needs = qx_emit_weight_need(p->pipe, it).opset;
    it->weight->spec.block = block;
    return needs <= has || (main->weight.block > 0 && needs <= qx_emit_need(&main->weight).opset);
}

/* What rows are measured by: blocks down to `least_block` until they have `db`, shorter ones below LEAST_DB. */
typedef struct aim { double db; int64_t least_block; } aim;

/* More where all weights have 8 bits. */
static aim aim_of(const qx_pass *p, qx_plan_item *it)
{
    const qx_scheme *s = main_scheme(p->pipe);
    if (!s || qx_dtype_bits(s->weight.codes) != 8 || !is_free(p, s, it)) return (aim){LEAST_DB, FINE_BLOCK};
    if (s->act || s->dynamic) return (aim){FINE_DB, FINE_BLOCK};
    return (aim){INFINITY, s->weight.block > 0 ? s->weight.block : FINE_BLOCK};
}

static qx_status choose(qx_pass *p, qx_plan_item *it, int64_t *block)
{
    noise s = {{0}, {0}, 0};
    const int64_t k = it->lin->k, now = it->weight->spec.block > 0 ? it->weight->spec.block : k;
    const aim to = aim_of(p, it);
    *block = 0;
    s.block[0] = now;
    for (int b = 1; b < TRIED; b++) s.block[b] = shorter[b] < now && k % shorter[b] == 0 ? shorter[b] : 0;
    QX_TRY(qx_some_rows(p, it, ROWS, add_row, &s));
    for (int b = 0; b < TRIED; b++) {
        if (!s.block[b]) continue;
        *block = b ? s.block[b] : 0;
        const double db = s.of[b] > 0 ? 10 * log10(s.signal / s.of[b]) : INFINITY;
        if (db >= (s.block[b] > to.least_block ? to.db : LEAST_DB)) break;
    }
    return QX_OK;
}

qx_status qx_table_settle(qx_pass *p, qx_plan_item *it)
{
    qx_plan_weight *w = it->weight;
    if (!it->table || it->lin->is_conv || w->spec.codes != QX_DT_INT8 || w->spec.block < 0 || !blocks_allowed(p, it)) return QX_OK;
    if (!w->settled) QX_TRY(choose(p, it, &w->table_block)); /* of two that share a table, the first one chooses */
    w->settled = true;
    if (!w->table_block) return QX_OK;
    w->spec.block = w->table_block;
    w->format = qx_arena_printf(p->pipe->model->arena, "int8-weights block %lld", (long long)w->table_block);
    return w->format ? QX_OK : QX_E_NOMEM;
}
