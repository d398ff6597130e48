/* test_edit.c - every edit leaves a graph that the verifier accepts; and the verifier notices when it is not. */
#include "base/buf.h"
#include "model_text.h"
#include "onnx/weight/weight.h"

static const char *const chain = HEAD(17) "g (float[2,3] x) => (float[2,3] y) <float[3] b = {1,2,3}> {\n"
                                          "[add] a = Add (x, b) [relu] r = Relu (a) [id] y = Identity (r) }";

static const char *const nested = HEAD(17) "g (float[2] x, bool c) => (float[2] y) <float[2] w = {1,2}> {\n"
                                           "h = Neg (x)\n"
                                           "y = If (c) <then_branch = t () => (float[2] p) { p = Add (h, w) }, else_branch = e () "
                                           "=> (float[2] q) { q = Identity (h) }> }";

static void uses_are_linked_in_graph_order(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2] x) => (float[2] z) { a = Neg (x) b = Add (x, a) z = Mul (b, x) }");
    const qx_value *x = value(&f, "x");
    assert_int_equal(x->n_uses, 3);
    assert_ptr_equal(x->uses->node, producer(&f, "a"));
    assert_ptr_equal(x->uses->next->node, producer(&f, "b"));
    assert_ptr_equal(x->uses->next->next->node, producer(&f, "z"));
    assert_int_equal(x->uses->next->next->index, 1);
    unload(&f);
}

static void bodies_use_outer_values(void **state)
{
    (void)state;
    fixture f = load(nested);
    const qx_value *h = value(&f, "h");
    assert_int_equal(h->n_uses, 2);
    assert_ptr_equal(h->uses->node->graph->owner, producer(&f, "y"));
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void a_node_is_added_before_another(void **state)
{
    (void)state;
    fixture f = load(chain);
    qx_value *a = value(&f, "a");
    const char *out = "a";
    qx_node *n;
    ok(&f, qx_node_add(f.m->graph, &(qx_node_spec){.op_type = "Neg", .domain = "", .name = "add", .in = &a, .n_in = 1, .out_names = &out,
                                                   .n_out = 1}, producer(&f, "r"), &n));
    assert_string_equal(n->name, "add_1"); /* names stay unique */
    assert_string_equal(n->out[0]->name, "a_1");
    assert_int_equal(n->op->id, QX_OP_Neg);
    ok(&f, qx_node_set_in(producer(&f, "r"), 0, n->out[0]));
    assert_int_equal(a->n_uses, 1);
    ok(&f, qx_verify(f.m));
    assert_true(f.m->dirty);
    assert_null(producer(&f, "r")->wire);
    assert_non_null(producer(&f, "a")->wire); /* untouched */
    unload(&f);
}

static void an_unknown_operator_is_refused(void **state)
{
    (void)state;
    fixture f = load(chain);
    qx_value *a = value(&f, "a");
    const char *out = "n";
    qx_node_spec spec = {.op_type = "RMSNormalization", .domain = "", .in = &a, .n_in = 1, .out_names = &out, .n_out = 1};
    assert_int_equal(qx_node_add(f.m->graph, &spec, NULL, NULL), QX_E_UNSUPPORTED); /* there since 23 */
    assert_non_null(strstr(qx_ctx_error(f.ctx), "opset 17"));
    unload(&f);
}

static void erase_asks_for_dead_outputs(void **state)
{
    (void)state;
    fixture f = load(chain);
    qx_node *relu = producer(&f, "r");
    assert_int_equal(qx_node_erase(relu), QX_E_FAIL);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "'relu' (Relu)"));
    qx_ctx_clear_error(f.ctx);
    assert_int_equal(qx_node_erase(producer(&f, "y")), QX_E_FAIL);
    qx_ctx_clear_error(f.ctx);
    ok(&f, qx_value_replace_uses(relu->out[0], value(&f, "a"), NULL));
    ok(&f, qx_node_erase(relu));
    assert_null(qx_graph_find(f.m->graph, "r"));
    assert_int_equal(f.m->graph->n_nodes, 2);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void replace_uses_spares_one_node(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2] x) => (float[2] y, float[2] z) { a = Neg (x) y = Add (x, a) z = Mul (x, x) }");
    ok(&f, qx_value_replace_uses(value(&f, "x"), value(&f, "a"), producer(&f, "a")));
    assert_int_equal(value(&f, "x")->n_uses, 1);
    assert_int_equal(value(&f, "a")->n_uses, 4);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void output_keeps_its_name(void **state)
{
    (void)state;
    fixture f = load(chain);
    qx_value *r = value(&f, "r"), *y = value(&f, "y");
    qx_node *relu = r->def;
    ok(&f, qx_output_rewire(y, r));
    assert_ptr_equal(f.m->graph->outputs[0], r);
    assert_string_equal(r->name, "y");
    assert_string_equal(y->name, "r");
    assert_null(relu->wire);
    ok(&f, qx_node_erase(y->def)); /* the Identity serves nobody now */
    ok(&f, qx_verify(f.m));
    assert_ptr_equal(value(&f, "y")->def, relu);
    unload(&f);
}

static void an_input_cannot_become_an_output(void **state)
{
    (void)state;
    fixture f = load(chain);
    assert_int_equal(qx_output_rewire(value(&f, "y"), value(&f, "x")), QX_E_FAIL);
    assert_int_equal(qx_output_rewire(value(&f, "r"), value(&f, "a")), QX_E_FAIL);
    unload(&f);
}

static void inputs_grow_and_shrink(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2] x, float lo) => (float[2] y) { y = Clip (x) }");
    qx_node *clip = producer(&f, "y");
    ok(&f, qx_node_set_in(clip, 1, value(&f, "lo")));
    assert_int_equal(clip->n_in, 2);
    assert_int_equal(value(&f, "lo")->n_uses, 1);
    assert_int_equal(qx_node_set_in(clip, 4, NULL), QX_E_FAIL); /* a hole */
    qx_ctx_clear_error(f.ctx);
    ok(&f, qx_verify(f.m));
    ok(&f, qx_node_truncate_in(clip, 1));
    assert_int_equal(value(&f, "lo")->n_uses, 0);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void attributes_are_set_and_removed(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2,3] x) => (float[2,3] y) { y = Softmax <axis = 1> (x) }");
    qx_node *n = producer(&f, "y");
    ok(&f, qx_attr_set_int(n, "axis", -1));
    ok(&f, qx_attr_set_string(n, "note", "a \"b\""));
    ok(&f, qx_attr_set_ints(n, "list", (int64_t[]){1, 2}, 2));
    ok(&f, qx_attr_set_float(n, "f", 0.5f));
    assert_int_equal(qx_attr_int(n, "axis", 0), -1);
    assert_string_equal(qx_attr_string(n, "note", ""), "a \"b\"");
    assert_int_equal(n->n_attrs, 4);
    assert_null(n->wire);
    ok(&f, qx_attr_remove(n, "note"));
    ok(&f, qx_attr_remove(n, "nothing"));
    int64_t count;
    assert_int_equal(qx_attr_ints(n, "list", &count)[1], 2);
    assert_int_equal(count, 2);
    assert_int_equal(n->n_attrs, 3);
    unload(&f);
}

static void initializers_come_and_go(void **state)
{
    (void)state;
    fixture f = load(chain);
    qx_weight *w;
    qx_value *v;
    ok(&f, qx_weight_from_bytes(f.m, QX_DT_FLOAT, 1, (int64_t[]){3}, (float[]){4, 5, 6}, &w));
    ok(&f, qx_init_add(f.m->graph, "b", w, &v));
    assert_string_equal(v->name, "b_1");
    assert_string_equal(v->init->name, "b_1");
    assert_type(&f, "b_1", "f32[3]");
    assert_int_equal(qx_init_erase(value(&f, "b")), QX_E_FAIL);
    qx_ctx_clear_error(f.ctx);
    ok(&f, qx_node_set_in(producer(&f, "a"), 1, v));
    ok(&f, qx_init_erase(value(&f, "b")));
    assert_int_equal(f.m->graph->n_inits, 1);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void touching_a_body_touches_its_owner(void **state)
{
    (void)state;
    fixture f = load(nested);
    qx_node *owner = producer(&f, "y"), *inner = owner->attrs[0].graph->first;
    ok(&f, qx_node_set_in(inner, 1, value(&f, "x")));
    assert_null(owner->wire);
    assert_null(owner->attrs[0].wire);
    assert_non_null(owner->attrs[1].wire);
    assert_non_null(producer(&f, "h")->wire);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void dead_code_goes_with_its_initializers(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2] x, bool c) => (float[2] y) <float[2] w = {1,2}, float[2] u = {3,4}> {\n"
                              "d = Mul (x, w) e = Neg (d) h = Add (x, u)\n"
                              "unused = If (c) <then_branch = t () => (float[2] p) { p = Add (d, w) }, else_branch = e () => "
                              "(float[2] q) { q = Identity (e) }>\n"
                              "y = Identity (h) }");
    int64_t removed;
    ok(&f, qx_dead_code(f.m, &removed));
    assert_int_equal(removed, 4); /* d, e, the If, and w */
    assert_int_equal(f.m->graph->n_nodes, 2);
    assert_int_equal(f.m->graph->n_inits, 1);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void dead_code_inside_bodies(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2] x, bool c) => (float[2] y) { h = Neg (x)\n"
                              "y = If (c) <then_branch = t () => (float[2] p) { dead = Exp (h) p = Identity (x) }, else_branch = "
                              "e () => (float[2] q) { q = Identity (x) }> }");
    int64_t removed;
    ok(&f, qx_dead_code(f.m, &removed));
    assert_int_equal(removed, 2);
    assert_int_equal(f.m->graph->n_nodes, 1);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void the_verifier_notices(void **state)
{
    (void)state;
    fixture f = load(chain);
    qx_node *relu = producer(&f, "r");
    ok(&f, qx_verify(f.m));
    relu->in[0] = value(&f, "x"); /* behind the back of the use lists */
    assert_int_equal(qx_verify(f.m), QX_E_FAIL);
    relu->in[0] = value(&f, "a");
    qx_ctx_clear_error(f.ctx);
    ok(&f, qx_node_move(relu, producer(&f, "a")));
    assert_int_equal(qx_verify(f.m), QX_E_FAIL);
    assert_non_null(strstr(qx_ctx_error(f.ctx), "before"));
    qx_ctx_clear_error(f.ctx);
    ok(&f, qx_node_move(relu, producer(&f, "y")));
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void raising_the_opset_resolves_operators_again(void **state)
{
    (void)state;
    fixture f = load(HEAD(17) "g (float[2] x) => (float[2] y) { y = Identity (x) }");
    assert_int_equal(producer(&f, "y")->op->since, 16);
    ok(&f, qx_model_set_opset(f.m, "ai.onnx", 21));
    assert_int_equal(producer(&f, "y")->op->since, 21);
    ok(&f, qx_model_set_opset(f.m, "new.domain", 3));
    assert_int_equal(qx_graph_opset(f.m->graph, "new.domain"), 3);
    ok(&f, qx_verify(f.m));
    unload(&f);
}

static void metadata_is_a_map(void **state)
{
    (void)state;
    fixture f = load(chain);
    ok(&f, qx_model_set_meta(f.m, "k", "1"));
    ok(&f, qx_model_set_meta(f.m, "l", "2"));
    ok(&f, qx_model_set_meta(f.m, "k", "3"));
    assert_int_equal(f.m->n_meta, 2);
    assert_string_equal(f.m->meta[0].value, "3");
    ok(&f, qx_model_set_meta(f.m, "k", NULL));
    assert_string_equal(f.m->meta[0].key, "l");
    unload(&f);
}

static void a_thousand_unique_names(void **state)
{
    (void)state;
    fixture f = load(chain);
    for (int i = 0; i < 1000; i++) {
        qx_value *v;
        ok(&f, qx_value_new(f.m->graph, "a", &v));
    }
    assert_non_null(qx_graph_find(f.m->graph, "a_1000"));
    unload(&f);
}

/* Every allocation of loading and editing fails once: an error each time, and nothing stays behind. */
static void allocations_may_fail(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 5000; n++) {
        qx_ctx *ctx = qx_ctx_new(NULL);
        qx_model *m = NULL;
        int64_t removed;
        qx_mem_fail_at(ctx, n);
        qx_status st = qx_model_parse_text(ctx, nested, &m);
        if (st == QX_OK) st = qx_dead_code(m, &removed);
        if (st == QX_OK) st = qx_verify(m);
        qx_mem_fail_at(ctx, 0);
        if (m) qx_model_free(m);
        assert_int_equal(qx_mem_in_use(ctx), 0);
        qx_ctx_free(ctx);
        if (st == QX_OK && n > 10) return; /* the n-th allocation was never asked for */
        assert_int_equal(st, QX_E_NOMEM);
    }
    fail_msg("never got through");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uses_are_linked_in_graph_order), cmocka_unit_test(bodies_use_outer_values),
        cmocka_unit_test(a_node_is_added_before_another),
        cmocka_unit_test(an_unknown_operator_is_refused), cmocka_unit_test(erase_asks_for_dead_outputs),
        cmocka_unit_test(replace_uses_spares_one_node),
        cmocka_unit_test(output_keeps_its_name), cmocka_unit_test(an_input_cannot_become_an_output),
        cmocka_unit_test(inputs_grow_and_shrink),
        cmocka_unit_test(attributes_are_set_and_removed), cmocka_unit_test(initializers_come_and_go),
        cmocka_unit_test(touching_a_body_touches_its_owner),
        cmocka_unit_test(dead_code_goes_with_its_initializers), cmocka_unit_test(dead_code_inside_bodies),
        cmocka_unit_test(the_verifier_notices),
        cmocka_unit_test(raising_the_opset_resolves_operators_again), cmocka_unit_test(metadata_is_a_map),
        cmocka_unit_test(a_thousand_unique_names),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
