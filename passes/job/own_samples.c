/* own_samples.c - see own_samples.h */
#include "passes/job/own_samples.h"

#include "calib/data/fill.h"
#include "passes/job/summary.h"

static bool is_of_tokens(qx_role r)
{
    return r == QX_ROLE_IDS || r == QX_ROLE_MASK || r == QX_ROLE_POSITION || r == QX_ROLE_TOKEN_TYPE || r == QX_ROLE_PAST ||
           r == QX_ROLE_CACHE_FLAG;
}

static bool reads_tokens_alone(const qx_model *m)
{
    bool any = false;
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) {
        const qx_value *v = m->graph->inputs[i];
        if (v->init || qx_input_idle(v)) continue;
        if (!is_of_tokens(qx_role_of(v))) return false;
        any |= qx_role_of(v) == QX_ROLE_IDS && qx_embedding_rows(v) > 0;
    }
    return any;
}

qx_status qx_own_samples_choose(qx_model *m, const qx_samples *found, qx_own_samples *out)
{
    const int64_t most_parameters = 500000000, few = 8;
    qx_summary s;
    qx_arena *arena;
    *out = QX_OWN_NONE;
    QX_TRY(qx_arena_new(m->ctx, &arena));
    qx_status st = qx_summarize(m, arena, &s);
    qx_arena_free(arena);
    if (st != QX_OK || s.parameters > most_parameters) return st;
    const bool tokens = s.attentions > 0 && reads_tokens_alone(m);
    if (found && (!tokens || qx_samples_count(found) + qx_samples_held_out(found) >= few)) *out = QX_OWN_FOUND;
    else if (tokens) *out = QX_OWN_MADE_UP;
    return QX_OK;
}

static qx_status try_to_open(qx_ctx *ctx, qx_model *m, const qx_exec_options *exec, qx_samples_options *o, qx_samples **out)
{
    QX_TRY(qx_samples_open(ctx, m, o, out));
    return exec && !o->seq_len ? qx_samples_fit(*out, exec, &o->seq_len) : QX_OK;
}

qx_status qx_made_up_open(qx_ctx *ctx, qx_model *m, const qx_exec_options *exec, qx_samples_options *o, qx_samples **out)
{
    o->random = QX_MADE_UP_SAMPLES;
    *out = NULL;
    const qx_status st = try_to_open(ctx, m, exec, o, out);
    if (st == QX_OK || st == QX_E_NOMEM || st == QX_E_CANCELLED) return st;
    qx_log(ctx, QX_LOG_INFO, "no tokens are made up: %s", qx_ctx_error(ctx));
    qx_ctx_clear_error(ctx);
    qx_samples_close(*out);
    *out = NULL;
    return QX_OK;
}
