/* test_mixed.c - formats within a budget on a trained model, from file to file: the size holds, the choice is better than one
 * format for all, groups agree, goals that cannot be met say what can, and the picture is a picture. */
#include "unit.h"

#include <math.h>
#include <sys/stat.h>

#include "calib/stats/store.h"
#include "passes/pipeline.h"
#include "passes/job/settings.h"

#define MODEL TEST_SOURCE_DIR "/samples/models/micro-llama/"

typedef struct files { char out[96], png[96]; } files;

static files names(void)
{
    files f;
    snprintf(f.out, sizeof f.out, "/tmp/qonnx_test_mixed_%ld.onnx", (long)getpid());
    snprintf(f.png, sizeof f.png, "/tmp/qonnx_test_mixed_%ld.png", (long)getpid());
    return f;
}

static void fill(qx_quantize_options *o, const files *f, const char *passes)
{
    *o = (qx_quantize_options){.input = MODEL "model.onnx", .output = f->out, .passes = passes, .force = true};
    o->samples = (qx_samples_options){.text = MODEL "calib.txt", .tokenizer = MODEL "tokenizer.json", .seq_len = 48, .limit = 6,
                                      .hold_out = true};
}

static qx_report *quantize(qx_ctx *ctx, const files *f, const char *passes)
{
    qx_report *r;
    qx_quantize_options o;
    fill(&o, f, passes);
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    return r;
}

static int64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

static const char *format_of(const qx_report *r, const char *part, const char *layer)
{
    for (int64_t i = 0; i < r->n_nodes; i++)
        if (strstr(r->nodes[i].name, layer) && strstr(r->nodes[i].name, part)) return r->nodes[i].format ? r->nodes[i].format : "float";
    fail_msg("no node '%s' in '%s'", part, layer);
    return NULL;
}

static void size_holds_and_groups_agree(void **state)
{
    const files f = names();
    for (int64_t limit = 3400000; limit < 4200000; limit += 400000) {
        char passes[80], layer[32];
        snprintf(passes, sizeof passes, "mixed(size=%lld,probes=1,together=true)", (long long)limit);
        qx_report *r = quantize(*state, &f, passes);
        const int64_t size = size_of(f.out);
        assert_true(size <= limit && size > limit - 120000); /* no step of one group is larger */
        for (int i = 0; i < 5; i++) {
            snprintf(layer, sizeof layer, "layers.%d/", i);
            assert_string_equal(format_of(r, "q_proj", layer), format_of(r, "k_proj", layer));
            assert_string_equal(format_of(r, "q_proj", layer), format_of(r, "v_proj", layer));
            assert_string_equal(format_of(r, "gate_proj", layer), format_of(r, "up_proj", layer));
        }
        qx_report_free(r);
    }
    unlink(f.out);
}

static void write_text(qx_ctx *ctx, const char *text, const char *path)
{
    qx_model *m;
    OK(qx_model_parse_text(ctx, text, &m));
    OK(qx_model_write(m, path, &(qx_write_options){.force = true}, NULL));
    qx_model_free(m);
}

/* A head whose weight is the embedding too: its bytes are those of both, so a size that only an INT8 head fits is met. */
static void tied_head(void **state)
{
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 18]> g (int64[4,8] input_ids) => (float[4,8,512] logits) "
                               "<float[512,64] embedding = random(1), float[64,512] w1 = random(2), float[512,64] w2 = random(3)>"
        " { x = Gather(embedding, input_ids) [\"up\"] a = MatMul(x, w1) r = Relu(a) [\"down\"] b = MatMul(r, w2) h = Add(x, b) t "
        "= Transpose <perm = [1, 0]> (embedding) [\"lm_head\"] logits = MatMul(h, t) }";
    const files f = names();
    char in[120];
    qx_report *r;
    snprintf(in, sizeof in, "%s.in", f.out);
    write_text(*state, text, in);
    qx_quantize_options o = {.input = in, .output = f.out, .passes = "mixed(size=90000)", .force = true,
                             .samples = {.random = 2, .seed = 1}};
    OK(qx_report_new(*state, &r));
    if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    assert_true(size_of(f.out) <= 90000); /* the embedding alone is 131072 in float */
    assert_string_equal(format_of(r, "lm_head", ""), "int8-weights");
    qx_report_free(r);
    unlink(in);
    unlink(f.out);
}

/* Of weights alone each product chooses for itself; where inputs are rounded q, k and v still agree. */
static void products_choose_apart(void **state)
{
    static const struct { const char *passes; bool apart; } cases[] = {
        {"mixed(size=2300000,probes=1)", true}, {"mixed(size=2600000,probes=1,formats=int4+int8(act=max)+float)", false},
    };
    const files f = names();
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        qx_report *r = quantize(*state, &f, cases[c].passes);
        int differ = 0;
        for (int i = 0; i < 5; i++) {
            char layer[32];
            snprintf(layer, sizeof layer, "layers.%d/", i);
            differ += strcmp(format_of(r, "q_proj", layer), format_of(r, "v_proj", layer)) != 0;
            differ += strcmp(format_of(r, "gate_proj", layer), format_of(r, "up_proj", layer)) != 0;
        }
        if ((differ > 0) != cases[c].apart) fail_msg("%s: %d of 10 differ", cases[c].passes, differ);
        qx_report_free(r);
    }
    unlink(f.out);
}

/* Formats whose inputs are rounded when the model runs: the size holds with the nodes that do it, readers of one input agree, and the file is as
 * good as the run of the choice said it would be. */
static void inputs_rounded_at_run_time(void **state)
{
    static const struct { const char *formats, *smallest; int64_t limit; } cases[] = {
        {"nvfp4-dynamic+mxfp8-dynamic", "nvfp4-dynamic", 2550000}, {"nvfp4-dynamic+fp8(act=max)", "nvfp4-dynamic", 2550000},
        {"int4+int8-dynamic", "int4", 2600000}, {"int8-dynamic(scale=tensor)+float", "int8-dynamic(scale=tensor)", 4500000},
    };
    const files f = names();
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char passes[120], layer[32];
        qx_report *r = quantize(*state, &f, cases[c].smallest);
        const double alone = r->outputs[0].sqnr_db;
        double said = NAN;
        qx_report_free(r);
        snprintf(passes, sizeof passes, "mixed(formats=%s,size=%lld)", cases[c].formats, (long long)cases[c].limit);
        r = quantize(*state, &f, passes);
        for (int64_t i = 0; i < r->n_points; i++)
            if (r->points[i].chosen) said = -10 * log10(r->points[i].measured_noise);
        const int64_t size = size_of(f.out);
        if (size > cases[c].limit || size < cases[c].limit - 130000) fail_msg("%s: %lld bytes", passes, (long long)size);
        if (!(r->outputs[0].sqnr_db > alone + 0.5) || !(fabs(r->outputs[0].sqnr_db - said) < 2))
            fail_msg("%s: %.2f dB; %.2f said, %.2f with one format", passes, r->outputs[0].sqnr_db, said, alone);
        for (int i = 0; i < 5; i++) {
            snprintf(layer, sizeof layer, "layers.%d/", i);
            assert_string_equal(format_of(r, "q_proj", layer), format_of(r, "v_proj", layer));
        }
        qx_report_free(r);
    }
    unlink(f.out);
}

/* The same network in a branch of an If: effects are measured there as in the main graph, so every layer gets the same format. */
static void in_a_branch(void **state)
{
    static const char body[] = "[\"layer_a\"] p = MatMul(x, w1) q = Relu(p) [\"layer_b\"] r = MatMul(q, w2) [\"layer_c\"] s = MatMul(x, w3) small = Mul(s, thousandth) t = "
                               "Add(r, small) [\"layer_d\"] %s = MatMul(t, w4)";
    static const char weights[] = "<float[64,64] w1 = random(1), float[64,64] w2 = random(2), float[64,64] w3 = random(3), float[64,64] w4 = random(4), "
                                  "float thousandth = {0.001}, int64 none = {0}>";
    static const char *const layers[] = {"layer_a", "layer_b", "layer_c", "layer_d"};
    const files f = names();
    char text[2000], inner[600], in[120];
    const char *formats[2][4];
    double noise[2] = {0, 0};
    qx_report *r[2];
    snprintf(in, sizeof in, "%s.in", f.out);
    for (int branch = 0; branch < 2; branch++) {
        snprintf(inner, sizeof inner, body, branch ? "v" : "y");
        snprintf(text, sizeof text, branch ? "<ir_version: 8, opset_import: [\"\" : 18]> g (float[16,64] x) => (float[16,64] y) %s { n = Size(x) c = Greater(n, none) "
                                             "y = If(c) <then_branch = g1 () => (float[16,64] v) { %s }, else_branch = g2 () => (float[16,64] e) { e = Identity(x) }> }"
                                           : "<ir_version: 8, opset_import: [\"\" : 18]> g (float[16,64] x) => (float[16,64] y) %s { %s }", weights, inner);
        write_text(*state, text, in);
        qx_quantize_options o = {.input = in, .output = f.out, .passes = "mixed(size=8bpw,formats=int4+int8-weights)", .force = true, .no_verify = true,
                                 .samples = {.random = 3, .seed = 1}};
        OK(qx_report_new(*state, &r[branch]));
        if (qx_quantize_file(*state, &o, r[branch]) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
        for (int i = 0; i < 4; i++) formats[branch][i] = format_of(r[branch], layers[i], "");
        for (int64_t i = 0; i < r[branch]->n_points; i++)
            if (r[branch]->points[i].chosen) noise[branch] = r[branch]->points[i].measured_noise;
    }
    for (int i = 0; i < 4; i++) assert_string_equal(formats[0][i], formats[1][i]);
    assert_string_equal(formats[1][2], "int4 block 32"); /* what hardly reaches the output */
    assert_string_equal(formats[1][1], "int8-weights");
    assert_true(noise[0] > 0 && fabs(noise[1] / noise[0] - 1) < 1e-3);
    qx_report_free(r[0]), qx_report_free(r[1]);
    unlink(in);
    unlink(f.out);
}

/* Experts that no name tells: tokens picked for each, three matrices each. Gates and ups agree, downs agree. */
static void experts_agree(void **state)
{
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 18]> g (float[24,64] x) => (float[24,64] y) <float[64] "
                               "gamma = random(1), float[64,64] head = random(2),"
        " float[64,96] g0 = random(3), float[64,96] u0 = random(4), float[96,64] d0 = random(5), float[64,96] g1 = random(6), "
        "float[64,96] u1 = random(7), float[96,64] d1 = random(8),"
        " int64[12] t0 = {0,2,3,5,7,8,11,12,14,17,20,23}, int64[12] t1 = {1,4,6,9,10,13,15,16,18,19,21,22}, int64[12,1] to0 = "
        "{0,2,3,5,7,8,11,12,14,17,20,23}, int64[12,1] to1 = {1,4,6,9,10,13,15,16,18,19,21,22}>"
        " { h = Mul(x, gamma) x0 = Gather(h, t0) [\"a\"] ga = MatMul(x0, g0) [\"b\"] ua = MatMul(x0, u0) sa = Relu(ga) pa = "
        "Mul(sa, ua) [\"c\"] oa = MatMul(pa, d0)"
        " x1 = Gather(h, t1) [\"d\"] gb = MatMul(x1, g1) [\"e\"] ub = MatMul(x1, u1) sb = Relu(gb) pb = Mul(sb, ub) [\"f\"] ob = "
        "MatMul(pb, d1)"
        " s0 = ScatterND(x, to0, oa) s1 = ScatterND(s0, to1, ob) [\"last\"] y = MatMul(s1, head) }";
    static const char *const same[][2] = {{"a", "b"}, {"a", "d"}, {"a", "e"}, {"c", "f"}};
    const files f = names();
    char in[120];
    snprintf(in, sizeof in, "%s.in", f.out);
    write_text(*state, text, in);
    for (int size = 40000; size <= 100000; size += 15000) {
        char passes[80];
        qx_report *r;
        snprintf(passes, sizeof passes, "mixed(formats=int4+int8+float,size=%d)", size);
        qx_quantize_options o = {.input = in, .output = f.out, .passes = passes, .force = true};
        o.samples = (qx_samples_options){.random = 2, .seed = 1};
        OK(qx_report_new(*state, &r));
        if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(*state));
        for (size_t i = 0; i < sizeof same / sizeof *same; i++)
            assert_string_equal(format_of(r, same[i][0], ""), format_of(r, same[i][1], ""));
        qx_report_free(r);
    }
    unlink(in);
    unlink(f.out);
}

/* A data file of its own pads every tensor to 4 KiB: that counts. */
static void external_data(void **state)
{
    const files f = names();
    char data[120];
    qx_report *r;
    qx_quantize_options o;
    fill(&o, &f, "mixed(size=3600000,score=layer)");
    o.external_data = o.no_verify = true;
    OK(qx_report_new(*state, &r));
    if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    snprintf(data, sizeof data, "%s.data", f.out);
    const int64_t size = size_of(f.out) + size_of(data);
    assert_true(size <= 3600000 && size > 3600000 - 120000);
    qx_report_free(r);
    unlink(f.out);
    unlink(data);
}

/* A job with statistics from and to files that may be NULL; what its nodes became, one behind the other, in text. */
static qx_status by_stats(qx_ctx *ctx, const files *f, const char *passes, const char *from, const char *to, char text[8192])
{
    qx_report *r;
    qx_quantize_options o;
    size_t len = 0;
    fill(&o, f, passes);
    o.load_stats = from;
    o.save_stats = to;
    o.no_verify = true;
    OK(qx_report_new(ctx, &r));
    const qx_status st = qx_quantize_file(ctx, &o, r);
    for (int64_t i = 0; i < r->n_nodes && len < 8000; i++)
        len += (size_t)snprintf(text + len, 8192 - len, "%s ", r->nodes[i].format ? r->nodes[i].format : "-");
    qx_report_free(r);
    return st;
}

/* Every other group as if it hurt the output a thousand times as much. */
static void forge(qx_ctx *ctx, const char *path)
{
    qx_stats *s;
    OK(qx_stats_new(ctx, 0, &s));
    OK(qx_stats_load(s, path));
    assert_true(qx_stats_notes(s) > 10);
    for (int64_t i = 0; i < qx_stats_notes(s); i += 2) {
        void *v;
        (void)qx_map_key_at(s->notes, (size_t)i, &v);
        ((qx_measured *)v)->a *= 1000;
    }
    OK(qx_stats_save(s, path, false));
    qx_stats_free(s);
}

/* What single groups do to the output is measured once: it lies in the statistics, also of a job whose goal was out of reach, and a
 * job of another goal that has them chooses as one that measures. That it does not measure again: forged numbers decide otherwise. */
static void measured_once(void **state)
{
    static const char goal[] = "mixed(size=3600000,probes=1)";
    static char plain[8192], again[8192], forged[8192];
    const files f = names();
    char path[96];
    snprintf(path, sizeof path, "/tmp/qonnx_test_mixed_%ld.stats", (long)getpid());
    FAILS(by_stats(*state, &f, "mixed(size=100000,probes=1)", NULL, path, plain), QX_E_USAGE);
    OK(by_stats(*state, &f, goal, NULL, NULL, plain));
    OK(by_stats(*state, &f, goal, path, NULL, again));
    assert_string_equal(again, plain);
    forge(*state, path);
    OK(by_stats(*state, &f, goal, path, NULL, forged));
    assert_string_not_equal(forged, plain);
    OK(by_stats(*state, &f, "mixed(size=3600000,probes=2)", path, NULL, again)); /* measured otherwise */
    assert_string_not_equal(forged, again);
    unlink(path);
    unlink(f.out);
}

/* The same bytes as INT4 with an INT8 head: the measured output is nearer to float. */
static void better_than_uniform(void **state)
{
    const files f = names();
    static const qx_setting head = {"lm_head*", "int8-weights"};
    qx_quantize_options o;
    qx_report *r;
    char passes[64];
    fill(&o, &f, "int4");
    o.settings = &head;
    o.n_settings = 1;
    OK(qx_report_new(*state, &r));
    OK(qx_quantize_file(*state, &o, r));
    const double uniform = r->outputs[0].sqnr_db;
    const int64_t size = size_of(f.out);
    qx_report_free(r);
    snprintf(passes, sizeof passes, "mixed(size=%lld,probes=1)", (long long)size);
    r = quantize(*state, &f, passes);
    print_message("%lld bytes: %.2f dB uniform, %.2f dB mixed (%lld bytes)\n", (long long)size, uniform, r->outputs[0].sqnr_db,
                  (long long)size_of(f.out));
    assert_true(size_of(f.out) <= size);
    assert_true(r->outputs[0].sqnr_db > uniform + 0.2);
    qx_report_free(r);
    unlink(f.out);
}

/* The chosen file meets the goal on the samples it was measured on; a finer goal costs bytes. */
static void quality_goal(void **state)
{
    const files f = names();
    int64_t before = 0;
    for (int db = 30; db <= 50; db += 20) {
        char passes[64];
        snprintf(passes, sizeof passes, "mixed(sqnr=%d,probes=1)", db);
        qx_report *r = quantize(*state, &f, passes);
        double measured = NAN;
        for (int64_t i = 0; i < r->n_points; i++)
            if (r->points[i].chosen) measured = -10 * log10(r->points[i].measured_noise);
        assert_true(measured >= db);
        assert_true(r->outputs[0].sqnr_db > db - 2); /* other text */
        assert_true(size_of(f.out) > before);
        before = size_of(f.out);
        qx_report_free(r);
    }
    unlink(f.out);
}

/* What is predicted for one format everywhere is what is measured when it is written, within what adding up errors can say. */
static void predictions_hold(void **state)
{
    const files f = names();
    qx_report *r = quantize(*state, &f, "mixed(size=99%,formats=int4+int8,probes=1)"); /* all int8-weights */
    const qx_report_point *all4 = NULL, *chosen = NULL;
    for (int64_t i = 0; i < r->n_points; i++) {
        if (r->points[i].label && strstr(r->points[i].label, "int4")) all4 = &r->points[i];
        if (r->points[i].chosen) chosen = &r->points[i];
    }
    assert_non_null(all4);
    assert_non_null(chosen);
    const double ratio = chosen->measured_noise / chosen->noise;
    print_message("int8 everywhere: predicted %.3g, measured %.3g\n", chosen->noise, chosen->measured_noise);
    assert_true(ratio > 0.4 && ratio < 2.5);
    const double predicted = -10 * log10(all4->noise);
    char passes[80]; /* no room for a single layer of 8 bits */
    snprintf(passes, sizeof passes, "mixed(size=%lld,formats=int4+int8,probes=1)", (long long)all4->bytes);
    qx_report_free(r);
    r = quantize(*state, &f, passes);
    print_message("int4 everywhere: predicted %.2f dB, held-out text %.2f dB\n", predicted, r->outputs[0].sqnr_db);
    assert_true(fabs(predicted - r->outputs[0].sqnr_db) < 3);
    qx_report_free(r);
    unlink(f.out);
}

static void refuse(qx_ctx *ctx, const char *passes, const char *part)
{
    const files f = names();
    qx_report *r;
    qx_quantize_options o;
    fill(&o, &f, passes);
    OK(qx_report_new(ctx, &r));
    qx_ctx_clear_error(ctx);
    assert_int_not_equal(qx_quantize_file(ctx, &o, r), QX_OK);
    MESSAGE_HAS(ctx, part);
    assert_int_equal(size_of(f.out), -1);
    qx_report_free(r);
}

static void wrong_goals(void **state)
{
    refuse(*state, "mixed", "mixed needs one goal");
    refuse(*state, "mixed(size=70%,sqnr=3)", "mixed needs one goal");
    refuse(*state, "mixed(size=170%)", "write a share of the input");
    refuse(*state, "mixed(size=-3bpw)", "write a share of the input");
    refuse(*state, "mixed(size=many)", "write a share of the input");
    refuse(*state, "mixed(size=40)", "write a share of the input");
    refuse(*state, "mixed(size=1.5X)", "write a share of the input");
    refuse(*state, "mixed(size=.M)", "write a share of the input");
    refuse(*state, "mixed(size=1.2M,score=layer)", "1.26 MB are asked for, the smallest that");
    refuse(*state, "mixed(size=1M,score=layer)", "the smallest that");
    refuse(*state, "mixed(sqnr=60,formats=int4,probes=1)", "the best that");
    refuse(*state, "mixed(sqnr=60,score=layer)", "needs samples and score=output");
    refuse(*state, "mixed(size=70%,formats=int4+int5)", "there is no pass 'int5'");
    refuse(*state, "mixed(size=70%,formats=int4,int5,probes=1)", "there is no pass 'int5'");
    refuse(*state, "mixed(formats=int4,nosuch=1)", "pass mixed has no option 'nosuch'");
    refuse(*state, "mixed(size=70%,formats=int4+int4)", "given twice");
    refuse(*state, "mixed(size=70%,formats=awq+int4)", "mixed(formats=awq): awq prepares weights and is no format");
    refuse(*state, "mixed(size=70%,formats=float)", "no format to choose from");
    refuse(*state, "mixed(size=70%,formats=mixed+int4)", "mixed(formats=mixed): write one format");
    refuse(*state, "int4,mixed(size=70%)", "leave the other out");
}

static void roles(void **state)
{
    const files f = names();
    qx_report *r = quantize(*state, &f, "role-mix");
    assert_string_equal(format_of(r, "lm_head", ""), "int8-weights");
    /* five layers: 5/8 = 0, 35/8 = 4: layer 4 is in the last eighth, layer 2 is every third */
    for (int i = 0; i < 5; i++) {
        char layer[32];
        const char *more = i == 2 || i == 4 ? "int8-weights" : "int4 block 32";
        snprintf(layer, sizeof layer, "layers.%d/", i);
        assert_string_equal(format_of(r, "v_proj", layer), more);
        assert_string_equal(format_of(r, "down_proj", layer), more);
        assert_string_equal(format_of(r, "q_proj", layer), "int4 block 32");
        assert_string_equal(format_of(r, "up_proj", layer), "int4 block 32");
    }
    qx_report_free(r);
    unlink(f.out);
}

static void picture(void **state)
{
    const files f = names();
    qx_job_args *a;
    const qx_quantize_options *o;
    qx_report *r;
    uint8_t head[8] = {0};
    OK(qx_job_args_new(*state, &a));
    OK(qx_job_args_set(a, "formats", "int4(block=32,scale=amax),int8"));
    FAILS(qx_job_args_options(a, &o), QX_E_USAGE);
    OK(qx_job_args_set(a, "target-size", "40%"));
    OK(qx_job_args_set(a, "frontier", f.png));
    OK(qx_job_args_options(a, &o));
    assert_string_equal(o->passes, "bias-correction?,gptq?(bits=4),mixed(size=40%,formats=int4(block=32,scale=amax)+int8)");
    qx_quantize_options full = *o;
    full.input = MODEL "model.onnx";
    full.output = f.out;
    full.no_verify = true;
    full.samples = (qx_samples_options){.text = MODEL "calib.txt", .tokenizer = MODEL "tokenizer.json", .seq_len = 64, .limit = 2};
    OK(qx_report_new(*state, &r));
    if (qx_quantize_file(*state, &full, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    FILE *png = fopen(f.png, "rb");
    assert_non_null(png);
    assert_int_equal(fread(head, 1, 8, png), 8);
    fclose(png);
    assert_memory_equal(head, "\x89PNG\r\n\x1a\n", 8);
    qx_report_free(r);
    qx_job_args_free(a);
    unlink(f.png);
    unlink(f.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(size_holds_and_groups_agree), TEST(products_choose_apart), TEST(inputs_rounded_at_run_time), TEST(in_a_branch), TEST(tied_head),
                                       TEST(experts_agree), TEST(external_data),
                                       TEST(better_than_uniform), TEST(quality_goal), TEST(predictions_hold), TEST(wrong_goals),
                                       TEST(measured_once), TEST(roles), TEST(picture)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
