/* source_random.c - seeded samples for a model without data: ids inside the vocabulary, masks of ones, positions that count,
 * timesteps spread over the schedule, bytes for pictures of bytes, normal numbers elsewhere. They say nothing about real
 * activations, and the description says so. */
#include "calib/data/source.h"

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

/* part: of the schedule of timesteps; cached: a merged decoder goes on from a past. */
static double value_for(qx_role role, noise *r, int64_t rows, qx_dtype dtype, double part, bool cached)
{
    if (role == QX_ROLE_TIMESTEP) return floor((1 - part) * 999);
    if (qx_dtype_is_float(dtype)) return normal(r);
    if (role == QX_ROLE_CACHE_FLAG) return cached;
    /* ids, bytes of a picture, flags */
    return floor(uniform(r) * (rows > 0 ? (double)rows : role == QX_ROLE_IDS ? 1000 : dtype == QX_DT_UINT8 ? 256 : 2));
}

static qx_status fill_random(qx_samples *s, const qx_value *v, int64_t rows, uint64_t key, double part, bool cached, qx_tensor *t)
{
    qx_role role = qx_role_of(v);
    noise r = {key};
    if (role == QX_ROLE_MASK || role == QX_ROLE_POSITION || role == QX_ROLE_TOKEN_TYPE) return QX_OK; /* as filled */
    for (int64_t i = 0; i < t->numel; i++) QX_TRY(qx_set_element(s->ctx, t, i, value_for(role, &r, rows, t->dtype, part, cached), v->name));
    return QX_OK;
}

static bool has_cache_flag(const qx_samples *s)
{
    for (uint32_t k = 0; k < s->n_inputs; k++)
        if (qx_role_of(s->inputs[k]) == QX_ROLE_CACHE_FLAG) return true;
    return false;
}

static qx_status random_get(qx_source_of *src, int64_t i, qx_tensor *out)
{
    qx_samples *s = src->owner;
    uint64_t seed = *(const uint64_t *)src->state;
    double part = src->count > 1 ? (double)i / (double)(src->count - 1) : 0.5;
    bool cached = i % 2 && has_cache_flag(s);
    qx_dims_given dims = s->dims;
    if (cached) dims.past = dims.seq / 2;
    for (uint32_t k = 0; k < s->n_inputs; k++) {
        if (s->inputs[k]->init || qx_input_idle(s->inputs[k])) continue;
        noise mix = {seed + (uint64_t)i * 0x10001 + ((uint64_t)k << 40)};
        QX_TRY(qx_fill_input(s->ctx, s->inputs[k], &dims, &out[k]));
        QX_TRY(fill_random(s, s->inputs[k], s->embedding[k], next(&mix), part, cached, &out[k]));
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
    s->dims.guess = true;
    for (uint32_t i = 0; i < s->n_inputs; i++) /* what has no shape at all is said now, not at the first sample */
        if (!s->inputs[i]->init && !qx_input_idle(s->inputs[i]))
            QX_TRY(qx_input_dims(s->ctx, s->inputs[i], &s->dims, dims));
    s->synthetic = true;
    return qx_source_add(s, &random_source, label, n, state);
}

/* ---- a length that the model can take --------------------------------------------------------------------------------- */

/* Whether dims of some input hang on the length, or on nothing but a guess. */
static bool is_guessed(const qx_samples *s)
{
    int64_t dims[QX_MAX_RANK], shorter[QX_MAX_RANK];
    qx_dims_given half = s->dims, sure = s->dims;
    half.seq = s->dims.seq / 2;
    sure.guess = false;
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        const qx_value *v = s->inputs[i];
        if (v->init || qx_input_idle(v)) continue;
        if (qx_input_dims(s->ctx, v, &sure, dims) != QX_OK) return qx_ctx_clear_error(s->ctx), true;
        if (qx_input_dims(s->ctx, v, &half, shorter) == QX_OK && memcmp(dims, shorter, (size_t)v->type.rank * sizeof *dims) != 0)
            return true;
    }
    return false;
}

/* The first sample of each kind: without and, for merged decoders, with a past. */
static qx_status try_once(qx_samples *s, qx_exec *x)
{
    const qx_feed *feeds;
    int n;
    for (int64_t i = 0; i < (has_cache_flag(s) && s->all > 1 ? 2 : 1); i++) {
        QX_TRY(qx_samples_get(s, i, &feeds, &n));
        QX_TRY(qx_exec_run(x, feeds, n, (const char *const[]){""}, 0, NULL));
    }
    return QX_OK;
}

/* "x f32[1,3,256,256], length i64[1]" of the sample at hand; in the arena. */
static const char *sizes_text(qx_samples *s)
{
    qx_buf b = QX_BUF_INIT(s->ctx);
    char name[96], type[160];
    qx_status st = QX_OK;
    for (int i = 0; i < s->n_feeds && st == QX_OK && b.len < 400; i++)
        st = qx_buf_printf(&b, "%s%s %s", i ? ", " : "", qx_printable(s->feeds[i].name, name, sizeof name),
                           qx_tensor_describe(s->feeds[i].tensor, type, sizeof type));
    const char *text = st == QX_OK && b.data ? qx_arena_strdup(s->arena, b.data) : NULL;
    qx_buf_free(&b);
    return text ? text : "?";
}

static bool may_be_length(qx_status st) { return st == QX_E_SHAPE || st == QX_E_FORMAT || st == QX_E_FAIL; }

qx_status qx_samples_fit(qx_samples *s, const qx_exec_options *options, int64_t *seq_len)
{
    enum { SHORTEST = 8 };
    const int64_t wanted = s->dims.seq;
    qx_exec *x;
    if (!s->synthetic || !is_guessed(s)) return QX_OK;
    qx_status st = qx_exec_new(s->ctx, s->model, options, &x);
    if (st == QX_E_UNSUPPORTED) return qx_ctx_clear_error(s->ctx), QX_OK; /* told by those who need it to run */
    if (st != QX_OK) return st;
    do st = try_once(s, x);
    while (may_be_length(st) && (s->dims.seq /= 2) >= SHORTEST);
    if (may_be_length(st)) { /* not the length: tell what the first try met */
        s->dims.seq = wanted;
        st = try_once(s, x);
    }
    qx_exec_free(x);
    if (st != QX_OK)
        return qx_note(s->ctx, st, "the model does not run with made-up sizes of its inputs (%s): give --dim NAME=N or --calib FILE.npz",
                       sizes_text(s));
    if (s->dims.seq != wanted)
        qx_log(s->ctx, QX_LOG_INFO, "made-up samples have length %lld: with %lld the model does not run", (long long)s->dims.seq,
               (long long)wanted);
    *seq_len = s->dims.seq;
    return QX_OK;
}
