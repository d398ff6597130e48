/* node_cases.c - runs the standard's test cases (folders with model.onnx and test_data_set_N/{input,output}_K.pb) through the
 * executor.
 *
 * usage: node_cases [--filter GLOB] [--verbose] [--min-pass PERCENT] [--plugin FOLDER] DIR... DIR is searched three levels deep
 * for model.onnx. A case passes when every output has the declared type and shape and |a - b| <= atol + rtol |b| (the standard's
 * 1e-3 and 1e-7, or tolerance.txt beside the model). A case whose operator has no kernel here, or that tests/node/skip.txt names
 * with a reason, is skipped; anything else that goes wrong is a failure. Of cases that tests/node/random.txt names, the standard
 * fixes type and shape only; here a second run must give the same bytes, too. Ends with "N passed, N failed, N skipped". */
#include <dirent.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "onnx/infer/infer.h"
#include "onnx/file/io.h"
#include "runtime/exec.h"

enum { MAX_PORTS = 64 };
static qx_exec_options plugin; /* --plugin: nodes that it has a kernel for run there */
typedef enum verdict { PASSED, FAILED, SKIPPED } verdict;
typedef struct skip_rule { char pattern[160], reason[200]; } skip_rule;
typedef struct rule_list { skip_rule rules[400]; int n; } rule_list;
typedef struct tally { int n[3]; bool verbose; const char *filter; rule_list skip, random; } tally;

/* ---- reading .pb values ---- */

static qx_status tensor_of(qx_ctx *ctx, qx_arena *arena, const uint8_t *p, size_t n, qx_tensor *out)
{
    qx_weight *w = NULL;
    QX_TRY(qx_tensor_pb_parse(ctx, arena, p, n, &w));
    QX_TRY(qx_tensor_new(ctx, out, w->dtype, w->rank, w->dims));
    if (w->dtype != QX_DT_STRING) return qx_weight_read(ctx, w, out->data);
    char **strings = out->data;
    for (int64_t i = 0; i < w->numel; i++) {
        QX_TRY(qx_alloc(ctx, w->src.string_lens[i] + 1, (void **)&strings[i]));
        memcpy(strings[i], w->src.strings[i], w->src.string_lens[i]);
    }
    return QX_OK;
}

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
    *v = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        uint8_t b = *(*p)++;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return true;
    }
    return false;
}

/* Calls fn for each length-delimited field of a message; other fields are passed over. */
typedef qx_status field_fn(void *user, uint32_t field, const uint8_t *p, size_t n);
static qx_status each_field(qx_ctx *ctx, const uint8_t *p, size_t n, field_fn *fn, void *user)
{
    const uint8_t *end = p + n;
    while (p < end) {
        uint64_t tag, v;
        if (!varint(&p, end, &tag)) QX_FAIL(ctx, QX_E_FORMAT, "test value: bad tag");
        if ((tag & 7) == 0) {
            if (!varint(&p, end, &v)) QX_FAIL(ctx, QX_E_FORMAT, "test value: bad varint");
        } else if ((tag & 7) == 2) {
            if (!varint(&p, end, &v) || v > (uint64_t)(end - p)) QX_FAIL(ctx, QX_E_FORMAT, "test value: bad length");
            QX_TRY(fn(user, (uint32_t)(tag >> 3), p, v));
            p += v;
        } else {
            QX_FAIL(ctx, QX_E_FORMAT, "test value: wire type %d", (int)(tag & 7));
        }
    }
    return QX_OK;
}

typedef struct value_reader { qx_ctx *ctx; qx_arena *arena; qx_tensor *out; const qx_type *type; } value_reader;
static qx_status read_value(qx_ctx *ctx, qx_arena *arena, const qx_type *type, const uint8_t *p, size_t n, qx_tensor *out);

static qx_status add_item(value_reader *r, const qx_type *type, const uint8_t *p, size_t n)
{
    qx_tensor *t = r->out;
    QX_TRY(qx_regrow(r->ctx, (void **)&t->items, (size_t)t->n_items * sizeof *t, (size_t)(t->n_items + 1) * sizeof *t));
    QX_TRY(read_value(r->ctx, r->arena, type, p, n, &t->items[t->n_items]));
    t->n_items++;
    return QX_OK;
}

static qx_status sequence_field(void *user, uint32_t field, const uint8_t *p, size_t n)
{
    value_reader *r = user;
    return field == 3 || field == 5 ? add_item(r, r->type->elem, p, n) : QX_OK; /* tensor_values, sequence_values */
}

static qx_status optional_field(void *user, uint32_t field, const uint8_t *p, size_t n)
{
    value_reader *r = user;
    return field == 3 || field == 5 ? add_item(r, r->type->elem, p, n) : QX_OK; /* tensor_value, sequence_value */
}

static qx_status read_value(qx_ctx *ctx, qx_arena *arena, const qx_type *type, const uint8_t *p, size_t n, qx_tensor *out)
{
    memset(out, 0, sizeof *out);
    value_reader r = {ctx, arena, out, type};
    if (type->kind == QX_KIND_SEQUENCE) {
        out->is_sequence = true;
        out->dtype = type->elem ? type->elem->dtype : QX_DT_UNDEFINED;
        return each_field(ctx, p, n, sequence_field, &r);
    }
    if (type->kind == QX_KIND_OPTIONAL) {
        out->is_optional = true;
        out->dtype = type->elem ? type->elem->dtype : QX_DT_UNDEFINED;
        return each_field(ctx, p, n, optional_field, &r);
    }
    return tensor_of(ctx, arena, p, n, out);
}

static qx_status read_value_file(qx_ctx *ctx, qx_arena *arena, const qx_type *type, const char *path, qx_tensor *out)
{
    char *bytes = NULL;
    size_t n = 0;
    QX_TRY(qx_file_slurp(ctx, path, 1u << 30, &bytes, &n));
    qx_status st = read_value(ctx, arena, type, (const uint8_t *)bytes, n, out);
    qx_free(ctx, bytes);
    return st;
}

/* ---- comparing ---- */

static double as_double(const qx_tensor *t, int64_t i)
{
    switch ((int)t->dtype) {
    case QX_DT_DOUBLE: return ((const double *)t->data)[i];
    case QX_DT_INT64: return (double)((const int64_t *)t->data)[i];
    case QX_DT_UINT64: return (double)((const uint64_t *)t->data)[i];
    case QX_DT_INT32: return ((const int32_t *)t->data)[i];
    case QX_DT_UINT32: return ((const uint32_t *)t->data)[i];
    default: return NAN;
    }
}

static bool close_enough(double a, double b, double rtol, double atol)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b)) return a == b;
    return fabs(a - b) <= atol + rtol * fabs(b);
}

static bool same_numbers(qx_ctx *ctx, const qx_tensor *a, const qx_tensor *b, double rtol, double atol, char *why, size_t cap)
{
    float *fa = NULL, *fb = NULL;
    const char cls = qx_dtype_get((int)a->dtype)->cls;
    const bool wide = a->dtype == QX_DT_DOUBLE || (cls != 'F' && qx_dtype_bits((int)a->dtype) >= 32);
    const int64_t n = cls == 'C' ? 0 : a->numel;
    bool ok = true;
    if (cls == 'C') {
        snprintf(why, cap, "complex numbers are not compared here");
        return memcmp(a->data, b->data, a->bytes) == 0;
    }
    if (!wide && (qx_alloc_array(ctx, (size_t)n + 1, 4, (void **)&fa) || qx_alloc_array(ctx, (size_t)n + 1, 4, (void **)&fb) ||
                  !qx_to_f32((int)a->dtype, a->data, n, fa) || !qx_to_f32((int)b->dtype, b->data, n, fb))) {
        snprintf(why, cap, "cannot read type %s", qx_dtype_get((int)a->dtype)->name);
        ok = false;
    }
    for (int64_t i = 0; ok && i < n; i++) {
        double x = wide ? as_double(a, i) : (double)fa[i], y = wide ? as_double(b, i) : (double)fb[i];
        if (close_enough(x, y, rtol, atol)) continue;
        snprintf(why, cap, "element %lld is %.9g, expected %.9g", (long long)i, x, y);
        ok = false;
    }
    qx_free(ctx, fa);
    qx_free(ctx, fb);
    return ok;
}

/* rtol < 0: type and shape only. */
static bool same_tensor(qx_ctx *ctx, const qx_tensor *a, const qx_tensor *b, double rtol, double atol, char *why, size_t cap)
{
    char da[128], db[128];
    if (a->is_sequence != b->is_sequence || a->is_optional != b->is_optional || a->n_items != b->n_items) {
        snprintf(why, cap, "%lld items, expected %lld (or another kind of value)", (long long)a->n_items, (long long)b->n_items);
        return false;
    }
    for (int64_t i = 0; i < a->n_items; i++)
        if (!same_tensor(ctx, &a->items[i], &b->items[i], rtol, atol, why, cap)) return false;
    if (a->is_sequence || a->is_optional) return true;
    if (a->dtype != b->dtype || a->rank != b->rank || memcmp(a->dims, b->dims, sizeof a->dims[0] * (size_t)a->rank)) {
        snprintf(why, cap, "%s, expected %s", qx_tensor_describe(a, da, sizeof da), qx_tensor_describe(b, db, sizeof db));
        return false;
    }
    if (a->dtype == QX_DT_STRING) {
        for (int64_t i = 0; i < a->numel; i++) {
            const char *sa = ((char **)a->data)[i], *sb = ((char **)b->data)[i];
            if (!strcmp(sa ? sa : "", sb ? sb : "")) continue;
            snprintf(why, cap, "string %lld is '%.60s', expected '%.60s'", (long long)i, sa ? sa : "", sb ? sb : "");
            return false;
        }
        return true;
    }
    return rtol < 0 || same_numbers(ctx, a, b, rtol, atol, why, cap);
}

/* ---- one case ---- */

typedef struct runner { qx_ctx *ctx; qx_arena *arena; qx_model *m; qx_exec *x; double rtol, atol; char *why; size_t cap; } runner;

static qx_status load_ports(runner *r, const char *dir, const char *prefix, qx_value *const *ports, uint32_t n, qx_tensor *out, int *count)
{
    char path[4096];
    *count = 0;
    for (uint32_t i = 0; i < n && i < MAX_PORTS; i++) {
        struct stat sb;
        snprintf(path, sizeof path, "%s/%s_%u.pb", dir, prefix, i);
        if (stat(path, &sb)) break;
        QX_TRY(read_value_file(r->ctx, r->arena, &ports[i]->type, path, &out[i]));
        /* old data files hold bfloat16 as uint16 */
        if (out[i].dtype == QX_DT_UINT16 && ports[i]->type.dtype == QX_DT_BFLOAT16) out[i].dtype = QX_DT_BFLOAT16;
        (*count)++;
    }
    return QX_OK;
}

static verdict judge(runner *r, qx_status st, const char *where)
{
    if (st == QX_OK) return PASSED;
    snprintf(r->why, r->cap, "%s: %.700s", where, qx_ctx_error(r->ctx));
    return st == QX_E_UNSUPPORTED ? SKIPPED : FAILED;
}

/* What inference says of the outputs is what was computed: types, and every dim that it knows. */
static verdict check_types(runner *r, const qx_tensor *got)
{
    for (uint32_t i = 0; i < r->m->graph->n_outputs; i++) {
        const qx_type *t = &r->m->graph->outputs[i]->type;
        char type[128], made[128];
        if (t->kind != QX_KIND_TENSOR || got[i].is_sequence || got[i].is_optional) continue;
        bool fits = (!t->dtype || t->dtype == got[i].dtype) && (!t->has_shape || t->rank == got[i].rank);
        for (int d = 0; fits && t->has_shape && d < t->rank; d++) fits = t->dims[d].n < 0 || t->dims[d].n == got[i].dims[d];
        if (fits) continue;
        snprintf(r->why, r->cap, "output %u is %s, inferred was %s", i, qx_tensor_describe(&got[i], made, sizeof made),
                 qx_type_describe(t, type, sizeof type));
        return FAILED;
    }
    return PASSED;
}

/* A second run of the same feeds gives the same bytes. */
static verdict run_again(runner *r, const qx_feed *feeds, int n_in, const qx_tensor *first)
{
    qx_tensor got[MAX_PORTS] = {{0}};
    const uint32_t n = r->m->graph->n_outputs;
    verdict v = judge(r, qx_exec_run(r->x, feeds, n_in, NULL, (int)n, got), "second run");
    for (uint32_t i = 0; v == PASSED && i < n; i++) {
        if (got[i].bytes == first[i].bytes && !memcmp(got[i].data, first[i].data, got[i].bytes)) continue;
        snprintf(r->why, r->cap, "output %u differs from run to run", i);
        v = FAILED;
    }
    for (int i = 0; i < MAX_PORTS; i++) qx_tensor_free(r->ctx, &got[i]);
    return v;
}

static verdict run_set(runner *r, const char *dir)
{
    qx_graph *g = r->m->graph;
    qx_tensor in[MAX_PORTS] = {{0}}, want[MAX_PORTS] = {{0}}, got[MAX_PORTS] = {{0}};
    qx_feed feeds[MAX_PORTS];
    int n_in = 0, n_out = 0;
    verdict v = judge(r, load_ports(r, dir, "input", g->inputs, g->n_inputs, in, &n_in), "input");
    if (v == PASSED) v = judge(r, load_ports(r, dir, "output", g->outputs, g->n_outputs, want, &n_out), "expected output");
    for (int i = 0; i < n_in; i++) feeds[i] = (qx_feed){g->inputs[i]->name, &in[i]};
    if (v == PASSED) v = judge(r, qx_exec_run(r->x, feeds, n_in, NULL, (int)g->n_outputs, got), "run");
    for (int i = 0; v == PASSED && i < n_out; i++) {
        char why[400] = "";
        /* a device's matrix units take the weights of a softmax in half precision: one more rounding of 2^-11 */
        const double rtol = plugin.plugin_dir && want[i].dtype == QX_DT_FLOAT16 ? 1.5 * r->rtol : r->rtol;
        if (same_tensor(r->ctx, &got[i], &want[i], rtol, r->atol, why, sizeof why)) continue;
        snprintf(r->why, r->cap, "output '%.60s': %s", g->outputs[i]->name, why);
        v = FAILED;
    }
    if (v == PASSED) v = check_types(r, got);
    if (v == PASSED && r->rtol < 0) v = run_again(r, feeds, n_in, got);
    for (int i = 0; i < MAX_PORTS; i++) {
        qx_tensor_free(r->ctx, &in[i]);
        qx_tensor_free(r->ctx, &want[i]);
        qx_tensor_free(r->ctx, &got[i]);
    }
    return v;
}

static void read_tolerance(const char *dir, double *rtol, double *atol)
{
    char path[4096];
    *rtol = 1e-3;
    *atol = 1e-7;
    snprintf(path, sizeof path, "%s/tolerance.txt", dir);
    FILE *f = fopen(path, "r");
    if (!f) return;
    if (fscanf(f, "%lf %lf", rtol, atol) != 2) fprintf(stderr, "%s: not two numbers\n", path);
    fclose(f);
}

static verdict run_case(const char *dir, bool random, char *why, size_t cap)
{
    char path[4096];
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.max_memory = (size_t)2 << 30});
    runner r = {.ctx = ctx, .why = why, .cap = cap};
    verdict v = FAILED;
    read_tolerance(dir, &r.rtol, &r.atol);
    if (random) r.rtol = -1;
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    if (!ctx || qx_arena_new(ctx, &r.arena)) goto done;
    v = judge(&r, qx_model_read(ctx, path, NULL, &r.m), "read");
    if (v == PASSED) v = judge(&r, qx_infer_shapes(r.m, NULL, 0), "infer");
    if (v == PASSED) v = judge(&r, qx_exec_new(ctx, r.m, &plugin, &r.x), "plan");
    for (int i = 0; v == PASSED; i++) {
        struct stat sb;
        snprintf(path, sizeof path, "%s/test_data_set_%d", dir, i);
        if (stat(path, &sb)) break;
        v = run_set(&r, path);
    }
done:
    if (r.x) qx_exec_free(r.x);
    if (r.m) qx_model_free(r.m);
    if (r.arena) qx_arena_free(r.arena);
    qx_ctx_free(ctx);
    return v;
}

/* ---- all cases ---- */

static const char *reason_of(const rule_list *t, const char *name)
{
    for (int i = 0; i < t->n; i++)
        if (!fnmatch(t->rules[i].pattern, name, 0)) return t->rules[i].reason;
    return NULL;
}

static void load_rules(rule_list *t, const char *path)
{
    char line[400];
    FILE *f = fopen(path, "r");
    if (!f) return;
    while (t->n < 400 && fgets(line, sizeof line, f)) {
        skip_rule *r = &t->rules[t->n];
        if (line[0] != '#' && sscanf(line, "%159s %199[^\n]", r->pattern, r->reason) == 2) t->n++;
    }
    fclose(f);
}

static void one(tally *t, const char *dir)
{
    const char *name = strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir;
    static const char *const words[] = {"pass", "FAIL", "skip"};
    if (t->filter && fnmatch(t->filter, name, 0)) return;
    const char *rule = reason_of(&t->skip, name);
    char why[1024] = "";
    verdict v = rule ? SKIPPED : run_case(dir, reason_of(&t->random, name) != NULL, why, sizeof why);
    t->n[v]++;
    if (v != PASSED || t->verbose) printf("%s %s%s%s\n", words[v], name, v == PASSED ? "" : ": ", rule ? rule : why);
    fflush(stdout);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void walk(tally *t, const char *dir, int depth)
{
    char path[4096];
    struct stat sb;
    struct dirent **list = NULL;
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    if (!stat(path, &sb)) {
        one(t, dir);
        return;
    }
    int n = depth > 3 ? 0 : scandir(dir, &list, NULL, by_name);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name);
        if (list[i]->d_name[0] != '.' && !stat(path, &sb) && S_ISDIR(sb.st_mode)) walk(t, path, depth + 1);
        free(list[i]);
    }
    free(list);
}

int main(int argc, char **argv)
{
    static tally t;
    double min_pass = 0;
    load_rules(&t.skip, TEST_SOURCE_DIR "/tests/node/skip.txt");
    load_rules(&t.random, TEST_SOURCE_DIR "/tests/node/random.txt");
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--verbose")) t.verbose = true;
        else if (!strcmp(argv[i], "--filter") && i + 1 < argc) t.filter = argv[++i];
        else if (!strcmp(argv[i], "--plugin") && i + 1 < argc)
            plugin = (qx_exec_options){.device = QX_DEVICE_CUDA, .plugin_dir = argv[++i], .allow_fallback = true};
        else if (!strcmp(argv[i], "--min-pass") && i + 1 < argc) min_pass = atof(argv[++i]);
        else walk(&t, argv[i], 0);
    }
    const int all = t.n[0] + t.n[1] + t.n[2];
    const double share = all ? 100.0 * t.n[PASSED] / all : 0;
    printf("%.1f %% of %d cases pass\n%d passed, %d failed, %d skipped\n", share, all, t.n[PASSED], t.n[FAILED], t.n[SKIPPED]);
    return t.n[FAILED] || share < min_pass || !all;
}
