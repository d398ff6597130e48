/* source_random.c - seeded samples for a model without data: ids inside the vocabulary, masks of ones, positions that count, timesteps
 * spread over the schedule, normal numbers elsewhere. They say nothing about real activations, and the description says so. */
#include "calib/source.h"

#include <math.h>
#include <string.h>

typedef struct noise { uint64_t state; } noise;

/* splitmix64: any sample can be made without making those before it. */
static uint64_t next(noise *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double uniform(noise *r) { return ((double)(next(r) >> 11) + 0.5) * 0x1p-53; }

static double normal(noise *r)
{
    double u = uniform(r), v = uniform(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static double value_for(qx_role role, noise *r, int64_t rows, bool is_float, double part)
{
    if (role == QX_ROLE_IDS) return floor(uniform(r) * (double)(rows > 0 ? rows : 1000));
    if (role == QX_ROLE_TIMESTEP) return floor((1 - part) * 999);
    return is_float ? normal(r) : floor(uniform(r) * 2);
}

static qx_status fill_random(qx_samples *s, const qx_value *v, int64_t rows, uint64_t key, double part, qx_tensor *t)
{
    qx_role role = qx_role_of(v);
    noise r = {key};
    if (role == QX_ROLE_MASK || role == QX_ROLE_POSITION || role == QX_ROLE_TOKEN_TYPE || role == QX_ROLE_CACHE_FLAG) return QX_OK; /* as filled */
    for (int64_t i = 0; i < t->numel; i++) QX_TRY(qx_set_element(s->ctx, t, i, value_for(role, &r, rows, qx_dtype_is_float(t->dtype), part), v->name));
    return QX_OK;
}

static qx_status random_get(qx_source_of *src, int64_t i, qx_tensor *out)
{
    qx_samples *s = src->owner;
    const qx_graph *g = s->model->graph;
    uint64_t seed = *(const uint64_t *)src->state;
    double part = src->count > 1 ? (double)i / (double)(src->count - 1) : 0.5;
    for (uint32_t k = 0; k < g->n_inputs; k++) {
        if (g->inputs[k]->init) continue;
        noise mix = {seed + (uint64_t)i * 0x10001 + ((uint64_t)k << 40)};
        QX_TRY(qx_fill_input(s->ctx, g->inputs[k], &s->dims, &out[k]));
        QX_TRY(fill_random(s, g->inputs[k], s->embedding[k], next(&mix), part, &out[k]));
    }
    return QX_OK;
}

static void random_free(qx_source_of *src) { (void)src; }

static const qx_sourcedef random_source = {.get = random_get, .free = random_free};

qx_status qx_source_random(qx_samples *s, int64_t n, uint64_t seed)
{
    uint64_t *state = qx_arena_alloc(s->arena, sizeof *state);
    const char *label = qx_arena_printf(s->arena, "random, seed %llu", (unsigned long long)seed);
    int64_t dims[QX_MAX_RANK];
    if (!state || !label) return QX_E_NOMEM;
    *state = seed;
    for (uint32_t i = 0; i < s->model->graph->n_inputs; i++) /* what cannot be guessed is said now, not at the first sample */
        if (!s->model->graph->inputs[i]->init) QX_TRY(qx_input_dims(s->ctx, s->model->graph->inputs[i], &s->dims, dims));
    s->synthetic = true;
    return qx_source_add(s, &random_source, label, n, state);
}
