/* samples.c - a list of sources seen as one list of samples, checked sample by sample: ids inside the embedding, numbers finite. */
#include "calib/data/source.h"

#include "calib/data/folder.h"
#include "onnx/infer/infer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int64_t qx_samples_count(const qx_samples *s) { return s->count; }
int64_t qx_samples_held_out(const qx_samples *s) { return s->held; }
const char *qx_samples_describe(const qx_samples *s) { return s->description; }
bool qx_samples_synthetic(const qx_samples *s) { return s->synthetic; }

void qx_samples_half(qx_samples *s, bool half) { s->half = half; }

qx_status qx_source_add(qx_samples *s, const qx_sourcedef *def, const char *label, int64_t count, void *state)
{
    QX_TRY(qx_grow(s->ctx, (void **)&s->sources, s->n_sources, &s->cap_sources, sizeof *s->sources));
    s->sources[s->n_sources++] = (qx_source_of){def, s, label, count, state};
    s->all += count;
    return QX_OK;
}

static void drop_tensors(qx_samples *s)
{
    for (uint32_t i = 0; s->tensors && i < s->n_inputs; i++) qx_tensor_free(s->ctx, &s->tensors[i]);
}

void qx_samples_close(qx_samples *s)
{
    if (!s) return;
    drop_tensors(s);
    for (int i = 0; i < s->n_sources; i++) s->sources[i].def->free(&s->sources[i]);
    qx_ctx *ctx = s->ctx;
    qx_free(ctx, s->sources);
    qx_arena_free(s->arena);
    qx_free(ctx, s);
}

/* ---- messages ---- */

const char *qx_inputs_text(qx_samples *s)
{
    qx_buf b = QX_BUF_INIT(s->ctx);
    const char *text = qx_inputs_describe(s->model->graph, &b) == QX_OK ? qx_arena_strndup(s->arena, b.data, b.len) : NULL;
    qx_buf_free(&b);
    return text ? text : "?";
}

static qx_status nothing_given(qx_samples *s)
{
    QX_FAIL(s->ctx, QX_E_USAGE, "no samples given. The model takes: %s. Give --calib FILE.npz (arrays by these names), or --text "
                                "FILE --tokenizer tokenizer.json for a language model, or --random N (not real data)", qx_inputs_text(s));
}

/* ---- opening ---- */

/* "name=file.raw:f32[2,3]", "name=file.npy"; an existing file is never taken for one. */
static bool is_raw(const char *path)
{
    struct stat sb;
    const char *equals = strchr(path, '='), *bracket = strrchr(path, '[');
    if (stat(path, &sb) == 0 || !equals) return false;
    return qx_has_suffix(path, ".npy") || (bracket && bracket > equals && strchr(bracket, ']'));
}

static qx_status add_paths(qx_samples *s, const qx_samples_options *o)
{
    const char **raw = qx_arena_array(s->arena, (size_t)o->n_paths + 1, sizeof *raw);
    int n_raw = 0;
    if (!raw) return QX_E_NOMEM;
    for (int i = 0; i < o->n_paths; i++) {
        struct stat sb;
        qx_npz *z;
        if (is_raw(o->paths[i])) {
            raw[n_raw++] = o->paths[i];
        } else if (stat(o->paths[i], &sb) == 0 && S_ISDIR(sb.st_mode)) {
            QX_TRY(qx_source_folder(s, o->paths[i]));
        } else {
            QX_TRY(qx_npz_open(s->ctx, o->paths[i], &z));
            QX_TRY(qx_source_npz(s, z));
        }
    }
    qx_npz *z;
    if (!n_raw) return QX_OK;
    QX_TRY(qx_npz_open_raw(s->ctx, raw, n_raw, &z));
    return qx_source_npz(s, z);
}

static int64_t eighth_of(int64_t n) { return n / 8 > 0 ? n / 8 : 1; }

static qx_status add_sources(qx_samples *s, const qx_samples_options *o)
{
    QX_TRY(add_paths(s, o));
    if (o->text && !o->tokenizer)
        QX_FAIL(s->ctx, QX_E_USAGE, "--text %s needs --tokenizer tokenizer.json: none lies beside the model or in the folder above",
                o->text);
    if (o->text) QX_TRY(qx_source_text(s, o->text, o->tokenizer, s->dims.seq));
    if (o->random > 0) QX_TRY(qx_source_random(s, o->random + (o->hold_out ? eighth_of(o->random) : 0), o->seed));
    if (!s->n_sources) return nothing_given(s);
    if (!s->all) QX_FAIL(s->ctx, QX_E_USAGE, "%s: zero samples", s->sources[0].label);
    return QX_OK;
}

/* Samples beyond the limit serve for verification when there are any (of made-up ones more are made); otherwise the last eighth does. */
static void share_out(qx_samples *s, const qx_samples_options *o)
{
    const int64_t meant = s->synthetic && s->n_sources == 1 ? o->random : s->all;
    int64_t n = o->limit > 0 && o->limit < meant ? o->limit : meant, spare = s->all - n;
    const int64_t eighth = eighth_of(n);
    s->count = n;
    if (!o->hold_out) return;
    if (spare > 0) {
        s->held = spare < eighth ? spare : eighth;
    } else if (n >= 2) {
        s->held = eighth;
        s->count = n - eighth;
    }
}

static qx_status describe(qx_samples *s, const qx_samples_options *o)
{
    const char *more = s->n_sources > 1 ? qx_arena_printf(s->arena, " and %d more", s->n_sources - 1) : "";
    const char *held = s->held ? qx_arena_printf(s->arena, ", %lld held out", (long long)s->held) : "";
    const char *plural = s->count == 1 ? "" : "s";
    if (!more || !held) return QX_E_NOMEM;
    if (s->synthetic && s->n_sources == 1)
        s->description = qx_arena_printf(s->arena, "random, seed %llu: %lld sample%s (not real data)", (unsigned long long)o->seed,
                                         (long long)s->count, plural);
    else s->description = qx_arena_printf(s->arena, "%s%s: %lld sample%s%s", s->sources[0].label, more, (long long)s->count, plural, held);
    return s->description ? QX_OK : QX_E_NOMEM;
}

static qx_status open_all(qx_samples *s, const qx_samples_options *o)
{
    const qx_graph *g = s->model->graph;
    const uint32_t n = g->n_inputs;
    s->dims = (qx_dims_given){.batch = 1, .seq = o->seq_len > 0 ? o->seq_len : 256, .fixes = o->dims, .n_fixes = o->n_dims};
    s->inputs = qx_arena_array(s->arena, n + 1, sizeof *s->inputs);
    s->tensors = qx_arena_array(s->arena, n + 1, sizeof *s->tensors);
    s->feeds = qx_arena_array(s->arena, n + 1, sizeof *s->feeds);
    s->embedding = qx_arena_array(s->arena, n + 1, sizeof *s->embedding);
    if (!s->inputs || !s->tensors || !s->feeds || !s->embedding) return QX_E_NOMEM;
    memcpy(s->inputs, g->inputs, n * sizeof *s->inputs);
    s->n_inputs = n;
    for (uint32_t i = 0; i < n; i++)
        if (!qx_dtype_is_float(s->inputs[i]->type.dtype)) s->embedding[i] = qx_embedding_rows(s->inputs[i]);
    QX_TRY(add_sources(s, o));
    share_out(s, o);
    return describe(s, o);
}

qx_status qx_samples_open(qx_ctx *ctx, qx_model *m, const qx_samples_options *opt, qx_samples **out)
{
    qx_samples *s;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &s));
    s->ctx = ctx;
    s->model = m;
    qx_status st = qx_arena_new(ctx, &s->arena);
    if (st == QX_OK) st = open_all(s, opt);
    if (st != QX_OK) qx_samples_close(s);
    else *out = s;
    return st;
}

/* ---- handing out ---- */

static double element(const qx_tensor *t, int64_t i)
{
    float f = 0;
    if (t->dtype == QX_DT_INT64) return (double)((const int64_t *)t->data)[i];
    if (t->dtype == QX_DT_DOUBLE) return ((const double *)t->data)[i];
    qx_to_f32(t->dtype, (const char *)t->data + i * (qx_dtype_bits(t->dtype) / 8), 1, &f);
    return (double)f;
}

static qx_status check_ids(qx_samples *s, const qx_value *v, const qx_tensor *t, int64_t rows)
{
    for (int64_t i = 0; i < t->numel; i++) {
        double id = element(t, i);
        if (id < (double)-rows || id >= (double)rows)
            QX_FAIL(s->ctx, QX_E_FORMAT, "input '%s': token id %.0f at index %lld: the embedding has %lld rows", v->name, id,
                    (long long)i, (long long)rows);
    }
    return QX_OK;
}

/* Inf is how some masks say "not this one"; anywhere else, and NaN everywhere, it is broken data. */
static qx_status check_finite(qx_samples *s, const qx_value *v, const qx_tensor *t)
{
    bool mask = qx_role_of(v) == QX_ROLE_MASK;
    if (!qx_dtype_is_float(t->dtype) || qx_dtype_bits(t->dtype) < 8) return QX_OK;
    for (int64_t i = 0; i < t->numel; i++) {
        double x = element(t, i);
        if (isnan(x) || (isinf(x) && !mask))
            QX_FAIL(s->ctx, QX_E_NUMERIC, "input '%s' holds %s at index %lld", v->name, isnan(x) ? "NaN" : "Inf", (long long)i);
    }
    return QX_OK;
}

/* Data that the network can hardly have been trained on, said once: a picture of whole numbers up to 255, a constant. */
static void look(qx_samples *s, const qx_value *v, const qx_tensor *t)
{
    enum { FEW = 64 };
    double low = INFINITY, high = -INFINITY;
    bool whole = true;
    qx_role role = qx_role_of(v);
    if (!qx_dtype_is_float(t->dtype) || t->numel < FEW || role == QX_ROLE_MASK || role == QX_ROLE_PAST || role == QX_ROLE_TIMESTEP) return;
    for (int64_t i = 0; i < t->numel; i++) {
        double x = element(t, i);
        low = x < low ? x : low;
        high = x > high ? x : high;
        whole = whole && x == floor(x);
    }
    if (low == high)
        qx_warn(s->ctx, "%s: input '%s' is %g everywhere: ranges found with it mean nothing", s->sources[0].label, v->name, low);
    else if (whole && t->rank >= 3 && low >= 0 && high <= 255 && high > 127)
        qx_warn(s->ctx, "%s: input '%s' holds whole numbers from %g to %g, like a picture that is not scaled yet: calibrate with "
                        "what the model gets", s->sources[0].label, v->name, low, high);
}

static qx_status check_sample(qx_samples *s)
{
    s->n_feeds = 0;
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        qx_tensor *t = &s->tensors[i];
        if (!t->data || !s->inputs[i]->is_input) continue;
        s->feeds[s->n_feeds++] = (qx_feed){s->inputs[i]->name, t};
        if (s->embedding[i]) QX_TRY(check_ids(s, s->inputs[i], t, s->embedding[i]));
        QX_TRY(check_finite(s, s->inputs[i], t));
        if (!s->looked && !s->synthetic) look(s, s->inputs[i], t);
    }
    s->looked = true;
    return QX_OK;
}

qx_status qx_samples_get(qx_samples *s, int64_t i, const qx_feed **feeds, int *n_feeds)
{
    int64_t at = i;
    int k = 0;
    if (i < 0 || i >= s->count + s->held) QX_FAIL(s->ctx, QX_E_FAIL, "sample %lld of %lld", (long long)i, (long long)(s->count + s->held));
    while (k + 1 < s->n_sources && at >= s->sources[k].count) at -= s->sources[k++].count;
    drop_tensors(s);
    qx_status st = s->sources[k].def->get(&s->sources[k], at, s->tensors);
    if (st == QX_OK) st = check_sample(s);
    if (st != QX_OK) return qx_note(s->ctx, st, "%s, sample %lld", s->sources[k].label, (long long)at);
    *feeds = s->feeds;
    *n_feeds = s->n_feeds;
    return QX_OK;
}
