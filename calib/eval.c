/* eval.c - perplexity, KL divergence and top-1 agreement over windows of a text. One window's logits are in memory at a time; sums run in
 * the order of the tokens, so the result is the same for any number of threads. */
#include "calib/eval.h"

#include "base/thread.h"
#include "kernels/divergence.h"
#include "calib/data/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct side {
    qx_model *model;
    qx_exec *exec;
    qx_samples *samples;
    const char *logits;
    qx_tensor out;
    float *rows;
    int64_t n, vocab;
    double seconds;
} side;
typedef struct token { double nll, ref_nll, kl; bool agrees, right; } token;
typedef struct text_ids { int64_t *ids, n; } text_ids;
typedef struct window { const side *m, *ref; const int64_t *ids; token *tokens; } window;

/* ---- opening ---- */

/* "logits", or the only output of rank 3. */
static qx_status find_logits(qx_ctx *ctx, const qx_model *m, const char **name)
{
    const qx_graph *g = m->graph;
    int found = 0;
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const qx_value *v = g->outputs[i];
        if (!strcmp(v->name, "logits")) return *name = v->name, QX_OK;
        if (v->type.kind == QX_KIND_TENSOR && v->type.has_shape && v->type.rank == 3) *name = v->name, found++;
    }
    if (found == 1) return QX_OK;
    QX_FAIL(ctx, QX_E_UNSUPPORTED, "%s: no output 'logits' [batch, sequence, vocabulary] to evaluate", m->path ? m->path : "model");
}

static qx_status open_side(qx_ctx *ctx, qx_model *m, const qx_eval_options *o, side *s)
{
    qx_samples_options so = {.text = o->text, .tokenizer = o->tokenizer, .seq_len = o->seq_len, .limit = o->windows, .dims = o->dims,
                             .n_dims = o->n_dims};
    s->model = m;
    if (!so.text) QX_FAIL(ctx, QX_E_USAGE, "nothing to evaluate on: give --text FILE --tokenizer tokenizer.json");
    QX_TRY(find_logits(ctx, m, &s->logits));
    QX_TRY(qx_samples_open(ctx, m, &so, &s->samples));
    return qx_exec_new(ctx, m, &o->exec, &s->exec);
}

static void close_side(qx_ctx *ctx, side *s)
{
    qx_free(ctx, s->rows);
    qx_tensor_free(ctx, &s->out);
    qx_exec_free(s->exec);
    qx_samples_close(s->samples);
}

/* ---- a window ---- */

static qx_status check_logits(qx_ctx *ctx, const side *s, int64_t w)
{
    const qx_tensor *t = &s->out;
    char shape[96];
    if (t->rank != 3 || t->numel == 0)
        QX_FAIL(ctx, QX_E_SHAPE, "'%s' is %s; [batch, sequence, vocabulary] is needed", s->logits,
                qx_tensor_describe(t, shape, sizeof shape));
    for (int64_t i = 0; i < t->numel; i++)
        if (isnan(s->rows[i]))
            QX_FAIL(ctx, QX_E_NUMERIC, "%s: logits of window %lld hold NaN at position %lld, token %lld",
                    s->model->path ? s->model->path : "model", (long long)w, (long long)(i / t->dims[2]), (long long)(i % t->dims[2]));
    return QX_OK;
}

static qx_status run_side(qx_ctx *ctx, side *s, int64_t w)
{
    const qx_feed *feeds;
    int n;
    QX_TRY(qx_samples_get(s->samples, w, &feeds, &n));
    qx_tensor_free(ctx, &s->out);
    qx_free(ctx, s->rows);
    s->rows = NULL;
    double start = qx_clock_seconds();
    QX_TRY(qx_exec_run(s->exec, feeds, n, &s->logits, 1, &s->out));
    s->seconds += qx_clock_seconds() - start;
    QX_TRY(qx_alloc_raw(ctx, (size_t)s->out.numel * sizeof *s->rows, (void **)&s->rows));
    if (!qx_to_f32(s->out.dtype, s->out.data, s->out.numel, s->rows))
        QX_FAIL(ctx, QX_E_TYPE, "'%s' is %s", s->logits, qx_dtype_get(s->out.dtype)->text);
    QX_TRY(check_logits(ctx, s, w));
    s->vocab = s->out.dims[2];
    s->n = s->out.numel / s->vocab;
    return QX_OK;
}

static int64_t top(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static qx_status one_token(void *user, int64_t i)
{
    const window *w = user;
    int64_t n = w->m->vocab, id = w->ids[i + 1], first;
    const float *x = w->m->rows + i * n;
    first = top(x, n);
    double norm = qx_log_sum_exp(x, n);
    token *t = &w->tokens[i];
    *t = (token){.nll = norm - (double)x[id], .right = first == id};
    if (!w->ref) return QX_OK;
    const float *r = w->ref->rows + i * n;
    int64_t ref_first = top(r, n);
    double ref_norm = qx_log_sum_exp(r, n);
    t->ref_nll = ref_norm - (double)r[id];
    t->kl = qx_divergence(r, ref_norm, x, norm, n);
    t->agrees = first == ref_first;
    return QX_OK;
}

/* ---- sums ---- */

typedef struct sums { double nll, ref_nll, kl, max_kl; int64_t agree, right, tokens; qx_buf kls; } sums;

static qx_status add_tokens(sums *s, const token *t, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        s->nll += t[i].nll;
        s->ref_nll += t[i].ref_nll;
        s->kl += t[i].kl;
        s->max_kl = fmax(s->max_kl, t[i].kl);
        s->agree += t[i].agrees;
        s->right += t[i].right;
        QX_TRY(qx_buf_put(&s->kls, &t[i].kl, sizeof t[i].kl));
    }
    s->tokens += n;
    return QX_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void finish(sums *s, bool ref, qx_eval_result *r)
{
    double n = (double)s->tokens;
    r->tokens = s->tokens;
    r->perplexity = exp(s->nll / n);
    r->top1_accuracy = (double)s->right / n;
    r->ref_perplexity = r->mean_kl = r->max_kl = r->top1_agreement = r->kl_99 = NAN;
    if (!ref) return;
    r->ref_perplexity = exp(s->ref_nll / n);
    r->mean_kl = s->kl / n;
    r->max_kl = s->max_kl;
    r->top1_agreement = (double)s->agree / n;
    qsort(s->kls.data, (size_t)s->tokens, sizeof(double), by_value);
    r->kl_99 = ((const double *)(const void *)s->kls.data)[(int64_t)(0.99 * (n - 1))];
}

static qx_status check_window(qx_ctx *ctx, const side *m, const side *ref, const text_ids *t, int64_t first)
{
    if (ref && (ref->vocab != m->vocab || ref->n != m->n))
        QX_FAIL(ctx, QX_E_SHAPE, "logits are [%lld, %lld], those of the reference [%lld, %lld]", (long long)m->n, (long long)m->vocab,
                (long long)ref->n, (long long)ref->vocab);
    for (int64_t i = 0; i <= m->n && first + i < t->n; i++)
        if (t->ids[first + i] >= m->vocab)
            QX_FAIL(ctx, QX_E_SHAPE, "token id %lld, but the logits have %lld columns", (long long)t->ids[first + i], (long long)m->vocab);
    return QX_OK;
}

static qx_status eval_window(qx_ctx *ctx, side *m, side *ref, int64_t w, const text_ids *t, sums *s)
{
    if (ref) QX_TRY(run_side(ctx, ref, w));
    QX_TRY(run_side(ctx, m, w));
    int64_t first = w * m->n, left = t->n - first - 1, n = left < m->n ? left : m->n; /* all windows have one length */
    QX_TRY(check_window(ctx, m, ref, t, first));
    if (n < 1) return QX_OK;
    token *tokens;
    QX_TRY(QX_NEW_ARRAY(ctx, n, &tokens));
    window job = {m, ref, t->ids + first, tokens};
    qx_status st = qx_parallel(ctx, n, one_token, &job);
    if (st == QX_OK) st = add_tokens(s, tokens, n);
    qx_free(ctx, tokens);
    return st;
}

static qx_status eval_all(qx_ctx *ctx, side *m, side *ref, const text_ids *t, sums *s)
{
    int64_t n = qx_samples_count(m->samples);
    for (int64_t w = 0; w < n; w++) {
        qx_progress(ctx, "evaluate", w, n);
        QX_TRY(qx_check_cancel(ctx));
        QX_TRY(eval_window(ctx, m, ref, w, t, s));
    }
    qx_progress(ctx, "evaluate", n, n);
    if (s->tokens == 0) QX_FAIL(ctx, QX_E_USAGE, "no token to predict: the text is shorter than two tokens");
    return QX_OK;
}

qx_status qx_eval_text(qx_ctx *ctx, qx_model *model, qx_model *reference, const qx_eval_options *opt, qx_eval_result *out)
{
    side m = {0}, ref = {0};
    text_ids text = {0};
    sums s = {.kls = QX_BUF_INIT(ctx)};
    *out = (qx_eval_result){0};
    qx_status st = open_side(ctx, model, opt, &m);
    if (st == QX_OK && reference) st = open_side(ctx, reference, opt, &ref);
    if (st == QX_OK) st = qx_text_ids(ctx, opt->text, opt->tokenizer, &text.ids, &text.n);
    if (st == QX_OK) st = eval_all(ctx, &m, reference ? &ref : NULL, &text, &s);
    if (st == QX_OK) {
        finish(&s, reference != NULL, out);
        out->windows = qx_samples_count(m.samples);
        out->seconds = m.seconds;
    }
    close_side(ctx, &m);
    close_side(ctx, &ref);
    qx_buf_free(&s.kls);
    qx_free(ctx, text.ids);
    return st;
}
