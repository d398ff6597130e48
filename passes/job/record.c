/* record.c - see record.h. */
#include "passes/job/record.h"

#include <stdio.h>
#include <string.h>

static const char *meta_of(const qx_model *m, qx_arena *arena, const char *key)
{
    for (uint32_t i = 0; i < m->n_meta; i++)
        if (strcmp(m->meta[i].key, key) == 0) return qx_arena_strdup(arena, m->meta[i].value);
    return NULL;
}

qx_status qx_record_read(qx_ctx *ctx, qx_arena *arena, const char *path, qx_record *out)
{
    qx_model *m;
    const qx_read_options ro = {.skip_check = true, .missing_data_ok = true};
    QX_TRY(qx_model_read(ctx, path, &ro, &m));
    *out = (qx_record){.path = path, .version = meta_of(m, arena, "qonnx.version"), .passes = meta_of(m, arena, "qonnx.passes"),
                       .target = meta_of(m, arena, "qonnx.target"),
                       .options = meta_of(m, arena, "qonnx.options"), .source = meta_of(m, arena, "qonnx.source"),
                       .samples = meta_of(m, arena, "qonnx.samples"),
                       .stats = meta_of(m, arena, "qonnx.stats")};
    qx_model_free(m);
    if (!out->passes)
        QX_FAIL(ctx, QX_E_USAGE, "'%s' does not say how it was made (no qonnx.passes in its metadata): it was not written by "
                                 "qonnx quantize", path);
    return qx_arena_status(arena);
}

/* ---- writing --------------------------------------------------------------------------------------------------------------- */

static qx_status put_list(qx_jsonw *w, const char *key, const char *const *list, int n)
{
    if (!n) return QX_OK;
    QX_TRY(qx_jsonw_begin_array(w, key));
    for (int i = 0; i < n; i++) QX_TRY(qx_jsonw_string(w, NULL, list[i]));
    return qx_jsonw_end_array(w);
}

static qx_status put_pairs(qx_ctx *ctx, qx_jsonw *w, const qx_quantize_options *o)
{
    qx_buf b = QX_BUF_INIT(ctx);
    qx_status st = o->n_settings ? qx_jsonw_begin_array(w, "set") : QX_OK;
    for (int i = 0; i < o->n_settings && st == QX_OK; i++) {
        qx_buf_clear(&b);
        st = qx_buf_printf(&b, "%s=%s", o->settings[i].pattern, o->settings[i].format);
        if (st == QX_OK) st = qx_jsonw_string(w, NULL, b.data);
    }
    if (st == QX_OK && o->n_settings) st = qx_jsonw_end_array(w);
    if (st == QX_OK && o->n_dims) st = qx_jsonw_begin_array(w, "dim");
    for (int i = 0; i < o->n_dims && st == QX_OK; i++) {
        qx_buf_clear(&b);
        st = qx_buf_printf(&b, "%s=%lld", o->dims[i].name, (long long)o->dims[i].value);
        if (st == QX_OK) st = qx_jsonw_string(w, NULL, b.data);
    }
    if (st == QX_OK && o->n_dims) st = qx_jsonw_end_array(w);
    qx_buf_free(&b);
    return st;
}

static qx_status put_text(qx_jsonw *w, const char *key, const char *value) { return value ? qx_jsonw_string(w, key, value) : QX_OK; }

static qx_status put_number(qx_jsonw *w, const char *key, int64_t value)
{
    char text[24];
    if (!value) return QX_OK;
    snprintf(text, sizeof text, "%lld", (long long)value);
    return qx_jsonw_string(w, key, text);
}

static qx_status put_samples(qx_jsonw *w, const qx_quantize_options *o)
{
    const qx_samples_options *s = &o->samples;
    QX_TRY(put_list(w, "calib", s->paths, s->n_paths));
    QX_TRY(put_text(w, "text", s->text));
    QX_TRY(put_text(w, "tokenizer", s->tokenizer));
    QX_TRY(put_text(w, "load-stats", o->load_stats));
    QX_TRY(put_number(w, "seq-len", s->seq_len));
    QX_TRY(put_number(w, "samples", s->limit));
    QX_TRY(put_number(w, "random", s->random));
    QX_TRY(put_number(w, "seed", (int64_t)s->seed));
    return o->no_verify || o->n_verify ? qx_jsonw_string(w, "no-verify", "1") : QX_OK; /* nothing was held out for verification */
}

qx_status qx_record_options(qx_ctx *ctx, const qx_quantize_options *o, qx_buf *out)
{
    qx_jsonw w;
    qx_jsonw_init(&w, out, false);
    QX_TRY(qx_jsonw_begin_object(&w, NULL));
    QX_TRY(put_list(&w, "include", o->include, o->n_include));
    QX_TRY(put_list(&w, "exclude", o->exclude, o->n_exclude));
    QX_TRY(put_pairs(ctx, &w, o));
    if (o->target) QX_TRY(qx_jsonw_string(&w, "target", qx_target_name(o->target)));
    QX_TRY(put_text(&w, "tables", o->tables));
    QX_TRY(put_number(&w, "max-opset", o->max_opset));
    QX_TRY(put_number(&w, "max-ir", o->max_ir));
    if (o->external_data) QX_TRY(qx_jsonw_string(&w, "external-data", "1"));
    if (o->allow_requantize) QX_TRY(qx_jsonw_string(&w, "allow-requantize", "1"));
    if (o->keep_debug_info) QX_TRY(qx_jsonw_string(&w, "keep-debug-info", "1"));
    QX_TRY(put_samples(&w, o));
    QX_TRY(qx_jsonw_end_object(&w));
    if (strcmp(out->data, "{}") == 0) qx_buf_clear(out);
    return QX_OK;
}

/* ---- replaying --------------------------------------------------------------------------------------------------------------- */

static bool is_source(const char *name)
{
    return !strcmp(name, "calib") || !strcmp(name, "text") || !strcmp(name, "random") || !strcmp(name, "load-stats");
}

static bool any_source(qx_record_given *given, void *user)
{
    return given(user, "calib") || given(user, "text") || given(user, "random") || given(user, "load-stats");
}

/* What qx_record_options writes. A record comes with a model, so from anybody: what names a plugin, an output or another root of
 * external data is not taken from it. */
static bool is_recorded(const char *name)
{
    static const char *const names[] = {"include", "exclude", "set", "tables", "dim", "target", "max-opset", "max-ir", "external-data",
                                        "allow-requantize", "keep-debug-info", "calib", "text", "tokenizer", "load-stats",
        "seq-len", "samples", "random", "seed", "no-verify"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

static qx_status replay_option(qx_ctx *ctx, const qx_record *r, const qx_json *v, qx_job_args *a)
{
    const char *name = qx_json_key(v);
    const bool list = qx_json_type(v) == QX_JSON_ARRAY;
    for (int64_t i = 0; i < (list ? qx_json_count(v) : 1); i++) {
        const char *value = qx_json_string(list ? qx_json_at(v, i) : v, NULL);
        if (!value || qx_job_args_set(a, name, value) != QX_OK)
            return qx_note(ctx, QX_E_USAGE, "option '%.100s' recorded in '%s'", name, r->path);
    }
    return QX_OK;
}

static qx_status replay_options(qx_ctx *ctx, const qx_record *r, const qx_json *doc, qx_job_args *a, qx_record_given *given, void *user)
{
    const bool samples = any_source(given, user);
    for (int64_t i = 0; i < qx_json_count(doc); i++) {
        const qx_json *v = qx_json_at(doc, i);
        const char *name = qx_json_key(v);
        if (!is_recorded(name))
            QX_FAIL(ctx, QX_E_USAGE, "'%s' records the option '%.100s', which is none that qonnx records: it was not written by "
                                     "qonnx quantize", r->path, name);
        if (given(user, name) || (samples && is_source(name))) continue;
        QX_TRY(replay_option(ctx, r, v, a));
    }
    return QX_OK;
}

qx_status qx_record_replay(qx_ctx *ctx, const qx_record *r, qx_job_args *a, qx_record_given *given, void *user)
{
    qx_json *doc;
    if (qx_job_args_set(a, "passes", r->passes) != QX_OK)
        return qx_note(ctx, QX_E_USAGE, "'%s' was made with other passes; leave those out, or --like", r->path);
    if (!r->options) return QX_OK;
    QX_TRY(qx_json_parse(ctx, r->options, strlen(r->options), r->path, &doc));
    const qx_status st = qx_json_type(doc) == QX_JSON_OBJECT ? replay_options(ctx, r, doc, a, given, user)
        : qx_fail(ctx, QX_E_FORMAT, "'%s': qonnx.options is no JSON object", r->path);
    qx_json_free(doc);
    return st;
}

static void compare(qx_ctx *ctx, const qx_record *r, const char *what, const char *then, const char *now)
{
    if (then && now && strcmp(then, now) != 0) qx_warn(ctx, "like '%s': %s: %s there, %s here", r->path, what, then, now);
    if (then && !now) qx_warn(ctx, "like '%s': %s: %s there, none here", r->path, what, then);
    if (!then && now) qx_warn(ctx, "like '%s': %s: none there, %s here", r->path, what, now);
}

void qx_record_compare(qx_ctx *ctx, const qx_record *r, const char *source, const char *stats, const char *samples)
{
    compare(ctx, r, "version of qonnx differs", r->version, QONNX_VERSION);
    compare(ctx, r, "structure of the input differs, patterns may find other nodes", r->source, source);
    compare(ctx, r, "samples differ", r->samples, samples);
    if (!r->source || !source || strcmp(r->source, source) == 0)
        compare(ctx, r, "what calibration found differs (samples or weights)", r->stats, stats);
}
