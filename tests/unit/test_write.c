/* test_write.c - what the writer promises: same bytes where nothing changed, same bytes for any number of threads, names of our
 * own, all or nothing. */
#include "tmp_dir.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/file.h"
#include "onnx/edit.h"
#include "onnx/file/io.h"
#include "pb.h"

typedef struct place { qx_ctx *ctx; tmp_dir dir; } place;

static int setup(void **state)
{
    place *p = *state = calloc(1, sizeof *p);
    p->ctx = qx_ctx_new(NULL);
    return p->ctx ? tmp_make(&p->dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") : -1; /* thousands of fsyncs */
}

static int teardown(void **state)
{
    place *p = *state;
    const int rc = tmp_remove(&p->dir);
    qx_ctx_free(p->ctx);
    free(p);
    return rc;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static const char *at(const place *p, const char *name) { return tmp_path(&p->dir, name); }

typedef struct blob { uint8_t *p; size_t n; } blob;

static blob slurp(const char *path)
{
    blob b = {0};
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    assert_int_equal(fstat(fileno(f), &st), 0);
    b.n = (size_t)st.st_size;
    b.p = malloc(b.n + 1);
    assert_int_equal(fread(b.p, 1, b.n, f), b.n);
    fclose(f);
    return b;
}

static void same_files(const char *a, const char *b)
{
    blob x = slurp(a), y = slurp(b);
    if (x.n != y.n || memcmp(x.p, y.p, x.n)) fail_msg("%s (%zu bytes) and %s (%zu bytes) differ", a, x.n, b, y.n);
    free(x.p), free(y.p);
}

enum { K = 300, N = 200 };

/* x MatMul a MatMul b, a and b [K,N]-like matrices of 240,000 bytes, c small. */
static void put_model(const char *path, bool external, const char *data_name)
{
    pb g = pb_graph();
    float *w = calloc((size_t)K * N, 4);
    for (int i = 0; i < K * N; i++) w[i] = (float)((i * 37) % 1001 - 500) / 300.0f;
    for (int i = 0; i < 3; i++) {
        char name[2] = {(char)('a' + i), 0};
        pb t = i < 2 ? pb_tensor(name, 1, 2, (int64_t[]){K, N}) : pb_tensor(name, 1, 1, (int64_t[]){3});
        const size_t n = i < 2 ? (size_t)K * N * 4 : 12;
        if (external && i < 2) {
            char off[32];
            snprintf(off, sizeof off, "%d", i * 100); /* overlapping on purpose: they share most of their bytes */
            pb_entry(&t, 13, "location", data_name);
            if (i) pb_entry(&t, 13, "offset", off);
            pb_entry(&t, 13, "prepacked_0", "k|0;8;x");
            pb_int(&t, 14, 1);
        } else {
            pb_blob(&t, 9, w, n);
        }
        pb_str(&t, 12, "doc of a tensor");
        pb_msg(&g, 5, &t);
    }
    if (external) {
        char *slash, dir[256];
        snprintf(dir, sizeof dir, "%s", path);
        slash = strrchr(dir, '/');
        snprintf(slash + 1, sizeof dir - (size_t)(slash + 1 - dir), "%s", data_name);
        uint8_t *bytes = calloc(1, (size_t)K * N * 4 + 100);
        memcpy(bytes, w, (size_t)K * N * 4);
        put_file(dir, bytes, (size_t)K * N * 4 + 100);
        free(bytes);
    }
    pb m = pb_model(&g);
    put_file(path, m.p, m.n);
    pb_free(&m);
    free(w);
}

static qx_model *load(qx_ctx *ctx, const char *path)
{
    qx_model *m = NULL;
    if (qx_model_read(ctx, path, &(qx_read_options){.skip_check = true}, &m) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    return m;
}

static void save(qx_model *m, const char *path, qx_write_options o)
{
    if (qx_model_write(m, path, &o, NULL) != QX_OK) fail_msg("%s", qx_ctx_error(m->ctx));
}

static void unedited_is_copied(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), false, NULL);
    qx_model *m = load(p->ctx, at(p, "in.onnx"));
    qx_write_result r, s;
    OK(qx_model_write_size(m, NULL, &s));
    OK(qx_model_write(m, at(p, "out.onnx"), NULL, &r));
    assert_int_equal(r.model_bytes, s.model_bytes);
    assert_null(r.data_path);
    same_files(at(p, "in.onnx"), at(p, "out.onnx"));
    qx_model_free(m);
}

static void check_content(const place *p, const char *a, const char *b)
{
    qx_model *x = load(p->ctx, a), *y = load(p->ctx, b);
    assert_int_equal(x->graph->n_inits, y->graph->n_inits);
    for (uint32_t i = 0; i < x->graph->n_inits; i++) {
        const qx_weight *u = x->graph->inits[i]->init, *v = y->graph->inits[i]->init;
        uint8_t *pu = malloc(u->bytes + 1), *pv = malloc(v->bytes + 1);
        assert_string_equal(u->name, v->name);
        assert_int_equal(u->bytes, v->bytes);
        OK(qx_weight_read(p->ctx, u, pu));
        OK(qx_weight_read(p->ctx, v, pv));
        assert_memory_equal(pu, pv, u->bytes);
        free(pu), free(pv);
    }
    qx_model_free(x);
    qx_model_free(y);
}

static void rebuilt_is_the_same(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), false, NULL);
    qx_model *m = load(p->ctx, at(p, "in.onnx"));
    m->dirty = true;
    save(m, at(p, "out.onnx"), (qx_write_options){0}); /* in the order of field numbers now */
    qx_model_free(m);
    check_content(p, at(p, "in.onnx"), at(p, "out.onnx"));
    m = load(p->ctx, at(p, "out.onnx"));
    m->dirty = true;
    save(m, at(p, "again.onnx"), (qx_write_options){0});
    same_files(at(p, "out.onnx"), at(p, "again.onnx"));
    qx_model_free(m);
}

static void external_data_moves(void **state)
{
    place *p = *state;
    assert_int_equal(mkdir(at(p, "in"), 0700), 0);
    put_model(at(p, "in/m.onnx"), true, "weights.bin");
    qx_model *m = load(p->ctx, at(p, "in/m.onnx"));
    qx_write_result r, s;
    OK(qx_model_write_size(m, NULL, &s));
    OK(qx_model_write(m, at(p, "out.onnx"), NULL, &r));
    assert_string_equal(r.data_path, at(p, "out.onnx.data"));
    assert_int_equal(r.data_bytes, s.data_bytes);
    qx_model_free(m);
    check_content(p, at(p, "in/m.onnx"), at(p, "out.onnx"));
    blob b = slurp(at(p, "out.onnx"));
    assert_null(memmem(b.p, b.n, "prepacked", 9));
    assert_null(memmem(b.p, b.n, "weights.bin", 11));
    assert_non_null(memmem(b.p, b.n, "out.onnx.data", 13));
    assert_non_null(memmem(b.p, b.n, "doc of a tensor", 15));
    free(b.p);
    m = load(p->ctx, at(p, "out.onnx"));
    for (uint32_t i = 0; i < 2; i++) assert_int_equal(m->graph->inits[i]->init->src.offset % 4096, 0);
    m->dirty = true; /* an edited model this small becomes one file */
    save(m, at(p, "one.onnx"), (qx_write_options){0});
    qx_model_free(m);
    assert_int_not_equal(access(at(p, "one.onnx.data"), F_OK), 0);
    check_content(p, at(p, "in/m.onnx"), at(p, "one.onnx"));
}

/* a and b through jobs; both name their parts with the codes only. */
static void quantize(qx_model *m, qx_dtype codes, int64_t block, qx_layout layout, qx_scale_rule rule)
{
    for (uint32_t i = 0, n = m->graph->n_inits; i < n; i++) {
        qx_value *v = m->graph->inits[i], *scale;
        qx_job *j;
        if (v->init->rank != 2 || v->init->job) continue;
        const qx_qspec q = {.codes = codes, .scale = QX_DT_FLOAT16, .block = block, .rule = rule};
        OK(qx_job_new(m, v->init, &(qx_view){N, K, 1, 0}, NULL, &q, layout, &j));
        OK(qx_init_add(m->graph, "scale", j->part[QX_PART_SCALE], &scale));
        OK(qx_init_replace(v, j->part[QX_PART_CODES]));
    }
}

static void same_bytes_for_any_threads(void **state)
{
    place *p = *state;
    static const struct { qx_dtype codes; int64_t block; qx_layout layout; qx_scale_rule rule; } jobs[] = {
        {QX_DT_INT8, 0, QX_LAYOUT_SAME, QX_SCALE_AMAX}, {QX_DT_INT4, 32, QX_LAYOUT_NK, QX_SCALE_SEARCH},
        {QX_DT_FLOAT8E4M3FN, -1, QX_LAYOUT_SAME, QX_SCALE_SEARCH},
        {QX_DT_UINT4, 32, QX_LAYOUT_NBITS, QX_SCALE_AMAX}, {QX_DT_INT4, 32, QX_LAYOUT_SAME, QX_SCALE_SEARCH},
        {QX_DT_INT8, -1, QX_LAYOUT_NK, QX_SCALE_AMAX},
    };
    put_model(at(p, "in.onnx"), false, NULL);
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++)
        for (int external = 0; external < 2; external++)
            for (int threads = 1; threads <= 4; threads *= 2) {
                char out[32], data[48];
                qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.threads = threads});
                qx_model *m = load(ctx, at(p, "in.onnx"));
                quantize(m, jobs[i].codes, jobs[i].block, jobs[i].layout, jobs[i].rule);
                snprintf(out, sizeof out, "t%d/o.onnx", threads);
                (void)mkdir(at(p, threads == 1 ? "t1" : threads == 2 ? "t2" : "t4"), 0700);
                qx_write_result r, s;
                const qx_write_options o = {.external_data = external, .force = true};
                OK(qx_model_write_size(m, &o, &s));
                if (qx_model_write(m, at(p, out), &o, &r) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
                assert_int_equal(r.data_bytes, s.data_bytes);
                snprintf(data, sizeof data, "%s.data", out);
                if (threads > 1) same_files(at(p, "t1/o.onnx"), at(p, out));
                if (threads > 1 && external) same_files(at(p, "t1/o.onnx.data"), at(p, data));
                qx_model_free(m);
                m = load(ctx, at(p, out)); /* and the parts are where the file says */
                uint8_t *got = malloc(m->graph->inits[0]->init->bytes + 1);
                OK(qx_weight_read(ctx, m->graph->inits[0]->init, got));
                free(got);
                qx_model_free(m);
                qx_ctx_free(ctx);
            }
}

/* Values from the file equal the job run into memory. */
static void parts_land_where_they_belong(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), false, NULL);
    qx_model *m = load(p->ctx, at(p, "in.onnx"));
    quantize(m, QX_DT_INT4, 32, QX_LAYOUT_NK, QX_SCALE_AMAX);
    for (int external = 0; external < 2; external++) {
        save(m, at(p, "out.onnx"), (qx_write_options){.external_data = external, .force = true});
        qx_model *r = load(p->ctx, at(p, "out.onnx"));
        assert_int_equal(r->graph->n_inits, m->graph->n_inits);
        for (uint32_t i = 0; i < m->graph->n_inits; i++) {
            const qx_weight *a = m->graph->inits[i]->init, *b = r->graph->inits[i]->init;
            uint8_t *x = malloc(a->bytes + 1), *y = malloc(a->bytes + 1);
            assert_int_equal(a->bytes, b->bytes);
            OK(qx_weight_read(p->ctx, a, x));
            OK(qx_weight_read(p->ctx, b, y));
            assert_memory_equal(x, y, a->bytes);
            free(x), free(y);
        }
        qx_model_free(r);
    }
    qx_model_free(m);
}

static void tied_weights_are_stored_once(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), false, NULL);
    qx_model *m = load(p->ctx, at(p, "in.onnx"));
    qx_value *v;
    qx_weight *same = qx_arena_memdup(m->arena, m->graph->inits[0]->init, sizeof *same);
    OK(qx_init_add(m->graph, "tied", same, &v));
    qx_write_result r;
    OK(qx_model_write(m, at(p, "out.onnx"), &(qx_write_options){.external_data = true}, &r));
    assert_int_equal(r.data_bytes, 240000 + 242 * 0 + (240000 + 4095) / 4096 * 4096);
    qx_model_free(m);
    m = load(p->ctx, at(p, "out.onnx"));
    assert_int_equal(m->graph->inits[0]->init->src.offset, m->graph->inits[3]->init->src.offset);
    assert_string_equal(m->graph->inits[3]->name, "tied");
    qx_model_free(m);
}

static void refused_outputs(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), true, "w.data");
    put_file(at(p, "old.onnx"), "old", 3);
    put_file(at(p, "target"), "keep", 4);
    assert_int_equal(mkdir(at(p, "dir"), 0700), 0);
    assert_int_equal(symlink("in.onnx", at(p, "link.onnx")), 0);
    assert_int_equal(symlink("target", at(p, "other.onnx")), 0);
    qx_model *m = load(p->ctx, at(p, "in.onnx"));
    const qx_write_options force = {.force = true};
    const int before = tmp_entries(&p->dir);
    FAILS(qx_model_write(m, at(p, "old.onnx"), NULL, NULL), QX_E_USAGE);
    MESSAGE_HAS(p->ctx, "--force");
    assert_int_not_equal(qx_model_write(m, at(p, "in.onnx"), &force, NULL), QX_OK);
    MESSAGE_HAS(p->ctx, "same file as input");
    assert_int_not_equal(qx_model_write(m, at(p, "link.onnx"), &force, NULL), QX_OK);
    MESSAGE_HAS(p->ctx, "same file as input");
    assert_int_not_equal(qx_model_write(m, at(p, "w.data"), &force, NULL), QX_OK);
    assert_int_not_equal(qx_model_write(m, at(p, "dir"), &force, NULL), QX_OK);
    MESSAGE_HAS(p->ctx, "directory");
    assert_int_not_equal(qx_model_write(m, at(p, "nowhere/out.onnx"), &force, NULL), QX_OK);
    assert_int_equal(tmp_entries(&p->dir), before);
    save(m, at(p, "other.onnx"), force); /* the link itself is replaced, never followed */
    blob b = slurp(at(p, "target"));
    assert_memory_equal(b.p, "keep", 4);
    free(b.p);
    qx_model_free(m);
}

/* Every write, fsync and rename fails in turn: an error, the old output, nothing left behind. */
static void faults_leave_the_old_output(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), false, NULL);
    put_file(at(p, "out.onnx"), "old", 3);
    put_file(at(p, "out.onnx.data"), "old data", 8);
    qx_model *m = load(p->ctx, at(p, "in.onnx"));
    quantize(m, QX_DT_INT8, 0, QX_LAYOUT_SAME, QX_SCALE_AMAX);
    const int before = tmp_entries(&p->dir);
    for (int kind = QX_IO_READ; kind <= QX_IO_RENAME; kind++)
        for (int n = 1; n < 1000; n++) {
            blob model = slurp(at(p, "out.onnx")), data = slurp(at(p, "out.onnx.data"));
            qx_io_fail_at(p->ctx, (qx_io_kind)kind, n);
            const qx_status st = qx_model_write(m, at(p, "out.onnx"), &(qx_write_options){.external_data = true, .force = true}, NULL);
            qx_io_fail_at(p->ctx, (qx_io_kind)kind, 0);
            assert_int_equal(tmp_entries(&p->dir), before);
            if (st != QX_OK) {
                blob now = slurp(at(p, "out.onnx")), now_data = slurp(at(p, "out.onnx.data"));
                assert_int_equal(st, QX_E_IO);
                assert_true(now.n == model.n && !memcmp(now.p, model.p, now.n));
                assert_true(now_data.n == data.n && !memcmp(now_data.p, data.p, now_data.n));
                free(now.p), free(now_data.p);
            }
            free(model.p), free(data.p);
            if (st == QX_OK) {
                assert_true(n > 1);
                break;
            }
        }
    qx_model_free(m);
}

/* Every allocation of reading and writing fails in turn: a clean error and no leak. */
static void out_of_memory(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), true, "w.data");
    for (int n = 1; n < 100000; n++) {
        qx_model *m = NULL;
        qx_mem_fail_at(p->ctx, n);
        qx_status st = qx_model_read(p->ctx, at(p, "in.onnx"), &(qx_read_options){.skip_check = true}, &m);
        if (st == QX_OK) {
            m->dirty = true;
            st = qx_model_write(m, at(p, "out.onnx"), &(qx_write_options){.external_data = true, .force = true}, NULL);
        }
        qx_mem_fail_at(p->ctx, 0);
        qx_model_free(m);
        assert_int_equal(qx_mem_in_use(p->ctx), 0);
        if (st == QX_OK) return;
        assert_int_not_equal(qx_ctx_error(p->ctx)[0], 0);
    }
    fail();
}

static void out_of_memory_in_jobs(void **state)
{
    place *p = *state;
    static const qx_layout layouts[] = {QX_LAYOUT_SAME, QX_LAYOUT_NK, QX_LAYOUT_NBITS};
    put_model(at(p, "in.onnx"), false, NULL);
    for (size_t i = 0; i < 3; i++) {
        qx_model *m = load(p->ctx, at(p, "in.onnx"));
        quantize(m, QX_DT_INT4, 32, layouts[i], i ? QX_SCALE_SEARCH : QX_SCALE_AMAX);
        const size_t before = qx_mem_in_use(p->ctx);
        qx_status st = QX_E_NOMEM;
        for (int n = 1; st != QX_OK; n++) {
            qx_mem_fail_at(p->ctx, n);
            st = qx_model_write(m, at(p, "out.onnx"), &(qx_write_options){.force = true}, NULL);
            qx_mem_fail_at(p->ctx, 0);
            if (st != QX_OK) assert_int_equal(st, QX_E_NOMEM);
            assert_int_equal(access(at(p, "out.onnx"), F_OK) == 0, st == QX_OK);
            assert_true(st == QX_OK || qx_mem_in_use(p->ctx) == before);
        }
        unlink(at(p, "out.onnx"));
        qx_model_free(m);
    }
}

static void cancelled(void **state)
{
    place *p = *state;
    static volatile int stop;
    qx_ctx *ctx = qx_ctx_new(&(qx_ctx_options){.cancel = &stop});
    put_model(at(p, "in.onnx"), false, NULL);
    qx_model *m = load(ctx, at(p, "in.onnx"));
    const int before = tmp_entries(&p->dir);
    m->dirty = true;
    stop = 1;
    FAILS(qx_model_write(m, at(p, "out.onnx"), NULL, NULL), QX_E_CANCELLED);
    assert_int_equal(tmp_entries(&p->dir), before);
    stop = 0;
    qx_model_free(m);
    qx_ctx_free(ctx);
}

/* An edit of one node: the others keep their bytes, the new attribute and name are there, doc strings too. */
static void an_edit_keeps_the_rest(void **state)
{
    place *p = *state;
    put_model(at(p, "in.onnx"), false, NULL);
    qx_model *m = load(p->ctx, at(p, "in.onnx"));
    qx_node *n;
    const char *out[] = {"sum"};
    qx_value *in[] = {m->graph->inputs[0], m->graph->inputs[0]};
    OK(qx_node_add(m->graph, &(qx_node_spec){.op_type = "Concat", .domain = "", .name = "q", .in = in, .n_in = 2, .out_names = out,
                                             .n_out = 1}, NULL, &n));
    OK(qx_attr_set_int(n, "axis", 0));
    OK(qx_attr_set_ints(n, "some", (int64_t[]){1, -2}, 2));
    OK(qx_attr_set_string(n, "text", "abc"));
    OK(qx_attr_set_float(n, "f", 0.5f));
    OK(qx_model_set_meta(m, "key", "value"));
    OK(qx_model_set_opset(m, "com.microsoft", 1));
    save(m, at(p, "out.onnx"), (qx_write_options){0});
    qx_model_free(m);
    m = load(p->ctx, at(p, "out.onnx"));
    n = m->graph->last;
    int64_t count;
    assert_string_equal(n->name, "q"); /* a single letter is a name */
    assert_int_equal(qx_attr_int(n, "axis", 7), 0); /* an explicit zero survives */
    assert_int_equal(qx_attr_ints(n, "some", &count)[1], -2);
    assert_string_equal(qx_attr_string(n, "text", ""), "abc");
    assert_float_equal(qx_attr_float(n, "f", 0), 0.5f, 0);
    assert_string_equal(m->meta[0].value, "value");
    assert_int_equal(qx_graph_opset(m->graph, "com.microsoft"), 1);
    assert_int_equal(qx_graph_opset(m->graph, ""), 17);
    qx_model_free(m);
}

/* ---- real models ---- */

static const char *walk_dir;
static place *walk_place;
static int walked;

static int visit(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)f;
    const size_t n = strlen(path);
    if (type != FTW_F || n < 5 || strcmp(path + n - 5, ".onnx") || st->st_size > (64 << 20)) return 0;
    qx_model *m = NULL;
    if (qx_model_read(walk_place->ctx, path, &(qx_read_options){.skip_check = true}, &m) != QX_OK) {
        if (strstr(qx_ctx_error(walk_place->ctx), "No such file")) return 0; /* its data is not there */
        fail_msg("%s", qx_ctx_error(walk_place->ctx));
    }
    const bool external = strstr(path, "genai") != NULL;
    const qx_write_options o = {.force = true};
    save(m, at(walk_place, "out.onnx"), o);
    if (!external) same_files(path, at(walk_place, "out.onnx"));
    m->dirty = true; /* all messages built anew: still the same bytes */
    save(m, at(walk_place, "out.onnx"), o);
    if (!external) same_files(path, at(walk_place, "out.onnx"));
    else check_content(walk_place, path, at(walk_place, "out.onnx"));
    qx_model_free(m);
    walked++;
    return 0;
}

static void walk(void **state, const char *dir, const char *why_not)
{
    if (!dir || access(dir, R_OK) != 0) {
        print_message("skipped: %s\n", why_not);
        skip();
    }
    walk_place = *state;
    walk_dir = dir;
    walked = 0;
    assert_int_equal(nftw(dir, visit, 16, FTW_PHYS), 0);
    print_message("%d models, same bytes\n", walked);
    assert_true(walked > 0);
}

static void models_come_back(void **state) { walk(state, getenv("QONNX_MODELS"), "QONNX_MODELS names no folder of models"); }
static void standard_cases_come_back(void **state) { walk(state, "/usr/share/libonnx-testdata/data", "libonnx-testdata is not installed"); }
static void bundled_models_come_back(void **state) { walk(state, TEST_SOURCE_DIR "/samples", "no bundled models"); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(unedited_is_copied), CASE(rebuilt_is_the_same), CASE(external_data_moves), CASE(same_bytes_for_any_threads),
        CASE(parts_land_where_they_belong),
        CASE(tied_weights_are_stored_once), CASE(refused_outputs), CASE(faults_leave_the_old_output), CASE(out_of_memory),
        CASE(out_of_memory_in_jobs), CASE(cancelled), CASE(an_edit_keeps_the_rest),
        CASE(models_come_back), CASE(standard_cases_come_back), CASE(bundled_models_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
