/* Where an operator is, for rules and patterns by name: in its name, in what torch's dynamo exporter writes beside a numbered name, below a
 * module that wraps the whole model. */
#include "model_text.h"
#include "passes/pipeline.h"
#include "passes/place/rules.h"

#define DYNAMO TEST_SOURCE_DIR "/samples/models/sd3-mmdit-dynamo/model.onnx"

static const qx_linear *by_path(const qx_linears *ls, const char *path)
{
    for (int64_t i = 0; i < ls->count; i++)
        if (strcmp(ls->items[i].path, path) == 0) return &ls->items[i];
    fail_msg("no linear operator at '%s'", path);
    return NULL;
}

static void numbered_names(void **state)
{
    (void)state;
    static const struct { const char *path, *kept; double least_level; } rows[] = {
        {"context_embedder", "condition embedding", 3}, {"pos_embed.proj", "patch embedding", 0},
        {"time_text_embed.timestep_embedder.linear_1", "timestep embedding", 3},
        {"norm_out.linear", "output modulation", 3}, {"proj_out", "output projection", 9}, {"transformer_blocks.0.attn.to_q", NULL, 2.5},
        {"transformer_blocks.1.ff.net.2", NULL, 2},
        {"transformer_blocks.0.attn.add_q_proj", NULL, 3},
    };
    fixture f = {.ctx = qx_ctx_new(NULL)};
    qx_linears ls;
    ok(&f, qx_model_read(f.ctx, DYNAMO, NULL, &f.m));
    ok(&f, qx_linears_find(f.m, &ls));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const qx_linear *l = by_path(&ls, rows[i].path);
        assert_int_equal(strncmp(l->node->name, "node_", 5), 0); /* which says nothing */
        const char *kept = qx_rule_name(l, false);
        if (rows[i].kept) assert_string_equal(kept, rows[i].kept);
        else assert_null(kept);
        for (double level = 1; level <= 4; level += 0.5)
            if (qx_rule_above_level(l, level) != (level < rows[i].least_level)) fail_msg("%s at level %g", rows[i].path, level);
    }
    unload(&f);
}

static void patterns(void **state)
{
    (void)state;
    static const char *const exclude[] = {"*to_q*", "transformer_blocks.1.ff*"};
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_report *r;
    int left_out = 0;
    assert_int_equal(qx_report_new(ctx, &r), QX_OK);
    qx_quantize_options o = {.input = DYNAMO, .passes = "int8-weights", .exclude = exclude, .n_exclude = 2, .dry_run = true,
                             .no_verify = true};
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    for (int64_t i = 0; i < r->n_nodes; i++) {
        const qx_report_node *n = &r->nodes[i];
        bool out = n->scope && (strstr(n->scope, "to_q") || strstr(n->scope, "transformer_blocks.1.ff"));
        if (out && !n->format && strstr(n->reason, "--exclude")) left_out++;
        assert_false(out && n->format);
    }
    assert_int_equal(left_out, 3 + 4); /* q of three blocks; two linears of each of two feed-forwards */
    qx_report_free(r);
    qx_ctx_free(ctx);
}

static void wrapper(void **state)
{
    (void)state;
    static const struct { const char *first, *second, *path; bool kept; } rows[] = {
        {"/m/blocks.0/to_q/MatMul", "/m/proj_out/MatMul", "proj_out/MatMul", true},
        {"/blocks.0/to_q/MatMul", "/proj_out/MatMul", "/proj_out/MatMul", true},
        {"/m/blocks.0/to_q/MatMul", "/m/blocks.0/proj_out/MatMul", "blocks.0/proj_out/MatMul", false},
        /* the only block of a list is no wrapper */
        {"/blocks.0/to_q/MatMul", "/blocks.0/proj_out/MatMul", "/blocks.0/proj_out/MatMul", false},
        {"/blocks.0/to_q/MatMul", "/blocks.1/proj_out/MatMul", "/blocks.1/proj_out/MatMul", false},
        {"MatMul_1", "proj_out", "proj_out", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[600];
        snprintf(text, sizeof text, HEAD(17) "g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {1, "
                                             "2, 3, 4}> {\n"
                 "[\"%s\"] t = MatMul (x, w)\n[\"%s\"] y = MatMul (t, v)\n}", rows[i].first, rows[i].second);
        fixture f = load(text);
        qx_linears ls;
        ok(&f, qx_linears_find(f.m, &ls));
        assert_int_equal(ls.count, 2);
        assert_string_equal(ls.items[1].path, rows[i].path);
        assert_int_equal(qx_rule_name(&ls.items[1], false) != NULL, rows[i].kept);
        unload(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbered_names), cmocka_unit_test(patterns), cmocka_unit_test(wrapper)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
