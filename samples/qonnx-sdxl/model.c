/* model.c - sessions with inputs found by role, and values converted to the types that the graph declares. */
#include "model.h"

#include <math.h>
#include <string.h>

static const char *type_name(int t)
{
    static const struct { int t; const char *name; } rows[] = {{QONNX_FLOAT, "f32"}, {QONNX_FLOAT16, "f16"}, {QONNX_BFLOAT16, "bf16"},
                                                               {QONNX_DOUBLE, "f64"},
        {QONNX_INT64, "i64"}, {QONNX_INT32, "i32"}, {QONNX_BOOL, "bool"}, {QONNX_UINT8, "u8"}, {QONNX_INT8, "i8"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].t == t) return rows[i].name;
    return "other";
}

static bool is_integer(int t) { return t == QONNX_INT64 || t == QONNX_INT32; }
static bool is_float(int t) { return t == QONNX_FLOAT || t == QONNX_FLOAT16 || t == QONNX_BFLOAT16 || t == QONNX_DOUBLE; }

void sx_describe_ports(const qonnx_port *p, int n, sx_text *t)
{
    for (int i = 0; i < n; i++) {
        sx_text_add(t, "%s%.100s %s[", i ? ", " : "", p[i].name, type_name(p[i].dtype));
        for (int k = 0; k < p[i].rank; k++) {
            if (p[i].dims[k] >= 0) sx_text_add(t, "%s%lld", k ? "," : "", (long long)p[i].dims[k]);
            else sx_text_add(t, "%s?", k ? "," : "");
        }
        sx_text_add(t, p[i].rank < 0 ? "...]" : "]");
        if (i >= 40) {
            sx_text_add(t, ", and %d more", n - i - 1);
            return;
        }
    }
}

int sx_find_port(const qonnx_port *p, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(p[i].name, name) == 0) return i;
    return -1;
}

static int list_failure(sx_err *e, const char *what, const qonnx_port *p, int n, const sx_role *r, const char *problem)
{
    sx_text t = {0};
    sx_describe_ports(p, n, &t);
    sx_fail(e, SX_UNSUPPORTED, "%s: %s '%s' (rank %d%s%s); the graph has: %s", what, problem, r->names[0], r->rank,
            r->last ? ", last dim fixed by the config" : "",
            r->names[1] ? ", or an alias of it" : "", t.s ? t.s : "nothing");
    sx_text_free(&t);
    return e->code;
}

static bool type_fits(const sx_role *r, int t)
{
    return r->any_type ? is_integer(t) || is_float(t) : r->integer ? is_integer(t) : is_float(t);
}

static bool shape_fits(const sx_role *r, const qonnx_port *p)
{
    if (!type_fits(r, p->dtype) || (p->rank != r->rank && p->rank != r->rank2)) return false;
    int64_t last = p->rank > 0 ? p->dims[p->rank - 1] : -1;
    return !r->last || last < 0 || last == r->last;
}

static void by_name(const qonnx_port *p, int n, const sx_role *roles, int n_roles, int *index, int alias)
{
    for (int k = 0; k < n_roles; k++) {
        if (index[k] >= 0 || !roles[k].names[0]) continue;
        for (int a = alias ? 1 : 0; a < (alias ? 6 : 1) && roles[k].names[a] && index[k] < 0; a++) {
            int i = sx_find_port(p, n, roles[k].names[a]);
            if (i >= 0 && type_fits(&roles[k], p[i].dtype) && (p[i].rank < 0 || p[i].rank == roles[k].rank || p[i].rank == roles[k].rank2))
                index[k] = i;
        }
    }
}

static bool taken(const int *index, int n, int port)
{
    for (int k = 0; k < n; k++)
        if (index[k] == port) return true;
    return false;
}

static int candidates(const qonnx_port *p, int n, const sx_role *r, const int *index, int n_roles, int *found)
{
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (taken(index, n_roles, i) || !shape_fits(r, &p[i])) continue;
        *found = i;
        count++;
    }
    return count;
}

/* Roles that only one port fits are bound first, which may leave one port for the next role. */
static void by_shape(const qonnx_port *p, int n, const sx_role *roles, int n_roles, int *index)
{
    for (bool again = true; again;) {
        again = false;
        for (int k = 0; k < n_roles; k++) {
            int found;
            if (index[k] >= 0 || roles[k].optional || candidates(p, n, &roles[k], index, n_roles, &found) != 1) continue;
            index[k] = found;
            again = true;
        }
    }
}

int sx_bind_ports(sx_err *e, const char *what, const qonnx_port *p, int n, const sx_role *roles, int n_roles, bool all_used, int *index)
{
    for (int k = 0; k < n_roles; k++) index[k] = -1;
    by_name(p, n, roles, n_roles, index, 0);
    by_name(p, n, roles, n_roles, index, 1);
    by_shape(p, n, roles, n_roles, index);
    for (int k = 0; k < n_roles; k++) {
        int found;
        if (index[k] >= 0 || roles[k].optional) continue;
        bool several = candidates(p, n, &roles[k], index, n_roles, &found) > 1;
        return list_failure(e, what, p, n, &roles[k], several ? "more than one value could be" : "nothing matches");
    }
    for (int i = 0; all_used && i < n; i++) {
        if (taken(index, n_roles, i)) continue;
        sx_text t = {0};
        sx_describe_ports(p, n, &t);
        sx_fail(e, SX_UNSUPPORTED, "%s: input '%.100s' is not one that this pipeline knows how to feed; the graph has: %s", what,
                p[i].name, t.s ? t.s : "");
        sx_text_free(&t);
        return e->code;
    }
    return SX_OK;
}

int sx_bind(sx_err *e, const sx_model *m, bool outputs, const sx_role *roles, int n, bool all_used, int *index)
{
    return sx_bind_ports(e, m->what, outputs ? m->out : m->in, outputs ? m->n_out : m->n_in, roles, n, all_used, index);
}

int sx_model_open(sx_err *e, qonnx_ctx *ctx, const char *what, const char *path, const char *options, sx_model *m)
{
    *m = (sx_model){.ctx = ctx, .what = what};
    SX_TRY(sx_strdup(e, path, &m->path));
    qonnx_code c = qonnx_session_open(ctx, path, options, &m->session);
    if (c != QONNX_OK) {
        sx_fail(e, (int)c, "%s '%s': %s", what, path, qonnx_error(ctx));
        sx_model_close(m);
        return e->code;
    }
    m->n_in = qonnx_session_inputs(m->session, &m->in);
    m->n_out = qonnx_session_outputs(m->session, &m->out);
    return SX_OK;
}

void sx_model_close(sx_model *m)
{
    qonnx_session_close(m->session);
    sx_free(m->path);
    *m = (sx_model){0};
}

/* The feed in the type and rank that the graph declares; *owned is freed after the run when not NULL. */
static int convert(sx_err *e, sx_model *m, const sx_feed *f, qonnx_tensor *t, void **owned)
{
    const qonnx_port *p = &m->in[f->port];
    *t = (qonnx_tensor){.name = p->name, .dtype = p->dtype, .rank = f->rank};
    memcpy(t->dims, f->dims, sizeof t->dims);
    for (int k = 0; p->rank == f->rank && k < f->rank; k++)
        if (p->dims[k] >= 0 && p->dims[k] != f->dims[k])
            return sx_fail(e, SX_UNSUPPORTED, "%s: input '%s' has dim %d fixed to %lld, this run needs %lld", m->what, p->name, k,
                           (long long)p->dims[k], (long long)f->dims[k]);
    int64_t n = qonnx_tensor_numel(t);
    if (n < 0) return sx_fail(e, SX_FAILED, "%s: input '%s' is too large", m->what, p->name);
    SX_TRY(sx_alloc(e, (size_t)n, 8, owned));
    t->data = *owned;
    if (is_integer(p->dtype)) {
        for (int64_t i = 0; i < n; i++) {
            int64_t v = f->ids ? f->ids[i] : (int64_t)llrintf(f->f[i]);
            if (p->dtype == QONNX_INT32) ((int32_t *)*owned)[i] = (int32_t)v;
            else ((int64_t *)*owned)[i] = v;
        }
        return SX_OK;
    }
    if (!f->f) return sx_fail(e, SX_UNSUPPORTED, "%s: input '%s' takes %s, expected integers", m->what, p->name, type_name(p->dtype));
    qonnx_code c = qonnx_from_float(m->ctx, p->dtype, f->f, n, *owned);
    return c == QONNX_OK ? SX_OK : sx_fail(e, (int)c, "%s: input '%s': %s", m->what, p->name, qonnx_error(m->ctx));
}

static int fetch(sx_err *e, sx_model *m, const qonnx_tensor *t, sx_fetch *out)
{
    int64_t n = qonnx_tensor_numel(t);
    if (n < 0) return sx_fail(e, SX_FAILED, "%s: output '%s' has no size", m->what, out->name);
    out->rank = t->rank;
    memcpy(out->dims, t->dims, sizeof out->dims);
    out->n = (size_t)n;
    SX_TRY(SX_NEW(e, n, &out->f));
    qonnx_code c = qonnx_to_float(m->ctx, t->dtype, t->data, n, out->f);
    return c == QONNX_OK ? SX_OK : sx_fail(e, (int)c, "%s: output '%s': %s", m->what, out->name, qonnx_error(m->ctx));
}

enum { MOST_PORTS = 16 };

static int run_on(sx_err *e, sx_model *m, qonnx_session *s, const sx_feed *in, int n_in, sx_fetch *out, int n_out)
{
    qonnx_tensor ins[MOST_PORTS], outs[MOST_PORTS];
    const char *names[MOST_PORTS];
    void *owned[MOST_PORTS] = {0};
    int rc = SX_OK;
    if (n_in > MOST_PORTS || n_out > MOST_PORTS)
        return sx_fail(e, SX_FAILED, "%s: %d inputs and %d outputs, at most %d", m->what, n_in, n_out, MOST_PORTS);
    for (int i = 0; rc == SX_OK && i < n_in; i++) rc = convert(e, m, &in[i], &ins[i], &owned[i]);
    for (int i = 0; i < n_out; i++) {
        names[i] = out[i].name;
        out[i].f = NULL;
    }
    double t0 = sx_seconds();
    if (rc == SX_OK) {
        qonnx_code c = qonnx_session_run(s, ins, n_in, names, n_out, outs);
        if (c != QONNX_OK) rc = sx_fail(e, (int)c, "%s: %s", m->what, qonnx_error(m->ctx));
    }
    m->seconds += sx_seconds() - t0;
    m->runs++;
    for (int i = 0; rc == SX_OK && i < n_out; i++) rc = fetch(e, m, &outs[i], &out[i]);
    for (int i = 0; i < n_in; i++) sx_free(owned[i]);
    for (int i = 0; rc != SX_OK && i < n_out; i++) {
        sx_free(out[i].f);
        out[i].f = NULL;
    }
    return rc;
}

int sx_model_run(sx_err *e, sx_model *m, const sx_feed *in, int n_in, sx_fetch *out, int n_out)
{
    return run_on(e, m, m->session, in, n_in, out, n_out);
}

int sx_model_blame(sx_err *e, sx_model *m, const sx_feed *in, int n_in, const sx_fetch *out, int n_out, int64_t bad)
{
    qonnx_session *s = NULL;
    sx_fetch again[MOST_PORTS] = {0};
    for (int i = 0; i < n_out && i < MOST_PORTS; i++) again[i].name = out[i].name;
    int rc = SX_OK;
    if (qonnx_session_open(m->ctx, m->path, "trace-nan=1", &s) == QONNX_OK) {
        rc = run_on(e, m, s, in, n_in, again, n_out);
        qonnx_session_close(s);
    }
    for (int i = 0; i < n_out && i < MOST_PORTS; i++) sx_free(again[i].f);
    if (rc == SX_OK) return sx_fail(e, SX_FAILED, "%s '%s' gave %lld values that are not finite", m->what, m->path, (long long)bad);
    return sx_note(e, SX_FAILED, "%lld values of the %s are not finite", (long long)bad, m->what);
}
