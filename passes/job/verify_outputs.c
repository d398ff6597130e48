/* verify_outputs.c - see verify_outputs.h. */
#include "passes/job/verify_outputs.h"

#include <math.h>
#include <string.h>

/* ---- pairs ---------------------------------------------------------------------------------------------------------------- */

void qx_pairs_add(qx_pairs *s, double a, double b)
{
    const double d = a - b;
    s->bad[0] += !isfinite(a);
    s->bad[1] += !isfinite(b);
    s->aa += a * a;
    s->bb += b * b;
    s->ab += a * b;
    s->dd += d * d;
    if (!(fabs(d) <= s->max)) s->max = fabs(d); /* NaN sticks */
    s->n++;
}

double qx_pairs_sqnr(const qx_pairs *s)
{
    if (s->dd == 0) return 300;
    return s->aa > 0 ? 10 * log10(s->aa / s->dd) : -300;
}

double qx_pairs_cosine(const qx_pairs *s) { return s->aa > 0 && s->bb > 0 ? s->ab / sqrt(s->aa * s->bb) : s->aa == s->bb; }

/* ---- one output ------------------------------------------------------------------------------------------------------------ */

static bool is_softmax(const qx_value *v)
{
    enum { MAX_TAIL = 4 };
    for (int i = 0; v->def && i < MAX_TAIL; i++) {
        switch (v->def->op->id) {
        case QX_OP_Softmax: case QX_OP_LogSoftmax: return true;
        case QX_OP_Identity: case QX_OP_Cast: v = v->def->in[0]; break;
        default: return false;
        }
    }
    return false;
}

void qx_meter_start(qx_output_meter *m, const char *name, const qx_value *output)
{
    *m = (qx_output_meter){.name = name, .counts = {-1, -1}, .scores = strstr(name, "logits") || (output && is_softmax(output))};
}

static void add_exact(qx_output_meter *m, const qx_tensor *a, const qx_tensor *b)
{
    const size_t size = (size_t)qx_dtype_bits(a->dtype) / 8;
    for (int64_t i = 0; i < a->numel; i++)
        m->equal += memcmp((const char *)a->data + (size_t)i * size, (const char *)b->data + (size_t)i * size, size) == 0;
    m->compared += a->numel;
}

/* Which column of the row at hand is the largest so far, in either model. */
typedef struct top { int64_t col, at[2]; float most[2]; } top;

static void add_score(qx_output_meter *m, top *t, int64_t columns, float a, float b)
{
    const float x[2] = {a, b};
    for (int k = 0; k < 2; k++)
        if (t->col == 0 || x[k] > t->most[k]) t->most[k] = x[k], t->at[k] = t->col;
    if (++t->col < columns) return;
    t->col = 0;
    m->rows++;
    m->same_top += t->at[0] == t->at[1];
}

static void add_floats(qx_output_meter *m, const qx_tensor *a, const qx_tensor *b)
{
    enum { PIECE = 4096 };
    float x[PIECE], y[PIECE];
    const size_t sx = (size_t)qx_dtype_bits(a->dtype) / 8, sy = (size_t)qx_dtype_bits(b->dtype) / 8;
    const int64_t columns = m->scores && a->rank > 0 ? a->dims[a->rank - 1] : 0;
    top t = {0};
    for (int64_t at = 0; at < a->numel; at += PIECE) {
        const int64_t n = a->numel - at < PIECE ? a->numel - at : PIECE;
        qx_to_f32(a->dtype, (const char *)a->data + (size_t)at * sx, n, x);
        qx_to_f32(b->dtype, (const char *)b->data + (size_t)at * sy, n, y);
        for (int64_t k = 0; k < n; k++) {
            qx_pairs_add(&m->pairs, (double)x[k], (double)y[k]);
            if (columns > 1) add_score(m, &t, columns, x[k], y[k]);
        }
    }
}

void qx_meter_add(qx_output_meter *m, const qx_tensor *a, const qx_tensor *b)
{
    const int bits = qx_dtype_bits(a->dtype);
    if (a->is_sequence || a->is_optional || b->is_sequence || b->is_optional) return;
    if (a->numel != b->numel) {
        m->counts[0] = a->numel;
        m->counts[1] = b->numel;
    } else if (qx_dtype_is_float(a->dtype) && qx_dtype_is_float(b->dtype) && qx_dtype_bits(b->dtype) > 8) add_floats(m, a, b);
    else if (!qx_dtype_is_float(a->dtype) && a->dtype == b->dtype && bits >= 8 && bits % 8 == 0) add_exact(m, a, b);
}

/* ---- all of them ------------------------------------------------------------------------------------------------------------ */

/* What the worst output says: decibels of values, or the share of rows whose largest score stays the largest. */
static const struct level { double db, top; qx_grade grade; const char *words; } levels[] = {
    {30, 0.98, QX_GRADE_VERY_CLOSE, "very close to the float model"},
    {20, 0.93, QX_GRADE_CLOSE, "close to the float model"},
    {10, 0.80, QX_GRADE_DIFFERS, "results will differ from the float model's"},
    {-INFINITY, 0, QX_GRADE_FAR, "far from the float model"},
};

/* Scores are judged by which is largest, everything else by its decibels. */
static bool reaches(const qx_report_output *o, const struct level *l)
{
    return isnan(o->top1) ? isnan(o->sqnr_db) || o->sqnr_db >= l->db : o->top1 >= l->top;
}

static void set_verdict(const qx_output_meter *m, int n, qx_report *r)
{
    size_t at = 0;
    bool any = false, broken = false;
    for (int i = 0; i < n; i++) broken = broken || (m[i].pairs.bad[1] && !m[i].pairs.bad[0]);
    for (int64_t i = 0; i < r->n_outputs; i++) {
        const qx_report_output *o = &r->outputs[i];
        if (o->note || (isnan(o->top1) && isnan(o->sqnr_db))) continue;
        any = true;
        while (!reaches(o, &levels[at])) at++; /* the last one is reached by all */
    }
    r->grade = broken ? QX_GRADE_BROKEN : any ? levels[at].grade : QX_GRADE_NONE;
    r->verdict = broken ? "BROKEN: it gives values that are not finite where the float model gives none" : any ? levels[at].words : NULL;
}

/* A float model that overflows by itself (a float16 VAE) has nothing to compare with; one that overflows only when quantized is broken. */
static const char *note_of(const qx_output_meter *m, qx_arena *arena)
{
    const qx_pairs *s = &m->pairs;
    if (m->counts[0] >= 0)
        return qx_arena_printf(arena, "%lld values in float and %lld quantized: not compared", (long long)m->counts[0],
                               (long long)m->counts[1]);
    if (s->bad[0])
        return qx_arena_printf(arena, "%lld of %lld values of the model before are not finite, %lld after", (long long)s->bad[0],
                               (long long)s->n, (long long)s->bad[1]);
    if (s->bad[1])
        return qx_arena_printf(arena, "%lld of %lld values are not finite, all of the model before are", (long long)s->bad[1],
                               (long long)s->n);
    return m->list ? "detections: not judged, another order costs decibels" : "";
}

static qx_status report_one(const qx_output_meter *m, qx_report *r)
{
    const bool floats = m->pairs.n > 0;
    const char *note = note_of(m, r->arena);
    if (!note) return QX_E_NOMEM;
    if (!floats && !m->compared && !*note) return QX_OK;
    return qx_report_add_output(r, &(qx_report_output){
        .name = m->name, .note = *note ? note : NULL, .count = m->pairs.n + m->compared, .max_abs = m->pairs.max,
        .sqnr_db = floats ? qx_pairs_sqnr(&m->pairs) : NAN, .cosine = floats ? qx_pairs_cosine(&m->pairs) : NAN,
        .equal = m->compared ? (double)m->equal / (double)m->compared : NAN,
            .top1 = m->rows ? (double)m->same_top / (double)m->rows : NAN});
}

qx_status qx_meters_report(const qx_output_meter *m, int n, qx_report *r)
{
    for (int i = 0; i < n; i++) QX_TRY(report_one(&m[i], r));
    set_verdict(m, n, r);
    return QX_OK;
}
