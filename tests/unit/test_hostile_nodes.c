/* test_hostile_nodes.c - nodes, most of com.microsoft, whose operands do not fit each other: each is refused with a message, and nothing
 * is read beyond its end (run under a sanitizer this says more). Dims are fed, so that shape inference has nothing to refuse
 * first. */
#include "model_text.h"
#include "runtime/exec.h"

typedef struct port { const char *name; qx_dtype type; int rank; int64_t dims[5]; } port;
typedef struct hostile { const char *name, *text; port in[12]; } hostile;

#define MS "<ir_version: 10, opset_import: [\"\" : 21, \"com.microsoft\" : 1]>\n"
#define F QX_DT_FLOAT
#define U QX_DT_UINT8
#define I QX_DT_INT32
static const hostile cases[] = {
    {"QGemm of other ranks", MS "g (uint8[A] a, float s, uint8 z, uint8[B,C,D] b) => (float[M,N] y) { y = "
                                "com.microsoft.QGemm<transA=1, transB=1>(a, s, z, b, s, z) }",
     {{"a", U, 1, {4}}, {"s", F, 0, {0}}, {"z", U, 0, {0}}, {"b", U, 3, {2, 2, 2}}}},
    {"QGemm without a scale", MS "g (uint8[A,B] a, float s, uint8 z) => (float[M,N] y) { y = com.microsoft.QGemm(a, , z, a, s, z) }",
     {{"a", U, 2, {3, 3}}, {"s", F, 0, {0}}, {"z", U, 0, {0}}}},
    {"product without a scale", MS "g (uint8[A,B] a, float s) => (float[M,N] y) { y = com.microsoft.MatMulIntegerToFloat(a, a, , s) }",
     {{"a", U, 2, {3, 3}}, {"s", F, 0, {0}}}},
    {"scales of neither one nor a column",
     MS "g (uint8[A,B] a, float s, float[K] t) => (float[M,N] y) { y = com.microsoft.MatMulIntegerToFloat(a, a, s, t) }",
     {{"a", U, 2, {3, 3}}, {"s", F, 0, {0}}, {"t", F, 1, {2}}}},
    {"past value of another batch",
     MS "g (float[B,S,H] q, float[B,N,P,D] pk, float[X,Y,P,D] pv) => (float[B,S,H] y, float[B,N,T,D] k, float[B,N,T,D] v)"
     " { y, k, v = com.microsoft.MultiHeadAttention<num_heads=2>(q, q, q, , , , pk, pv) }",
     {{"q", F, 3, {4, 3, 8}}, {"pk", F, 4, {4, 2, 5, 4}}, {"pv", F, 4, {1, 1, 5, 4}}}},
    {"square mask smaller than the queries", MS "g (float[B,S,H] q, float[B,L,H] k, int32[B,O,M,M] m) => (float[B,S,H] y) { y = "
                                                "com.microsoft.MultiHeadAttention<num_heads=2>(q, k, k, , m) }",
     {{"q", F, 3, {1, 9, 8}}, {"k", F, 3, {1, 3, 8}}, {"m", I, 4, {1, 1, 3, 3}}}},
    {"bias too short", MS "g (float[B,S,H] q, float[N] b) => (float[B,S,H] y) { y = "
                          "com.microsoft.MultiHeadAttention<num_heads=2>(q, q, q, b) }", {{"q", F, 3, {1, 3, 8}}, {"b", F, 1, {16}}}},
    {"projection of another width",
     MS "g (float[B,S,H] x, float[A,C] w) => (float[B,S,D] y) { y = com.microsoft.Attention<num_heads=2>(x, w) }",
     {{"x", F, 3, {1, 3, 8}}, {"w", F, 2, {7, 24}}}},
    {"attention bias of half a batch",
     MS "g (float[B,S,H] q, int32[B] l, int32 t, float[X,N,S,T] b) => (float[B,S,H] y, float[B,K,T,D] k, float[B,K,T,D] v)"
     " { y, k, v = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=2>(q, q, q, , , l, t, , , , b) }",
     {{"q", F, 3, {4, 1, 8}}, {"l", I, 1, {4}}, {"t", I, 0, {0}}, {"b", F, 4, {2, 1, 1, 1}}}},
    {"a length that no cache can have",
     MS "g (float[B,S,H] q, float[B,K,C,D] p) => (float[B,S,H] y, float[B,K,C,D] k, float[B,K,C,D] v) <int64[1] l = {9223372036854775807}, "
        "int64 t = {9223372036854775807}> { y, k, v = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=2, local_window_size=2, "
        "sliding_window_cache=1>(q, q, q, p, p, l, t) }",
     {{"q", F, 3, {1, 1, 8}}, {"p", F, 4, {1, 2, 3, 4}}}},
    {"experts without inputs", MS "g (float[T,H] x, float[T,E] p, uint8[E,N,K] w, float[E,N] s, uint8[E,H,J] v, float[E,H] r) => "
                                  "(float[T,H] y)"
     " { y = com.microsoft.QMoE<k=1, weights_prepacked=0>(x, p, w, s, , v, r) }",
     {{"x", F, 2, {3, 0}}, {"p", F, 2, {3, 2}}, {"w", U, 3, {2, 16, 0}}, {"s", F, 2, {2, 16}}, {"v", U, 3, {2, 0, 8}},
      {"r", F, 2, {2, 0}}}},
    {"more experts taken than there are",
     MS "g (float[T,H] x, float[T,E] p, float[E,N,H] w, float[E,H,N] v) => (float[T,H] y) { y = com.microsoft.MoE<k=5>(x, p, w, , v) }",
     {{"x", F, 2, {3, 4}}, {"p", F, 2, {3, 2}}, {"w", F, 3, {2, 4, 4}}, {"v", F, 3, {2, 4, 4}}}},
    {"words outside of the table", MS "g (int32[B,S] i, float[V,H] w, float[H] g) => (float[B,S,H] y, int32[B] m) { y, m = "
                                      "com.microsoft.EmbedLayerNormalization(i, , w, w, , g, g) }",
     {{"i", I, 2, {1, 3}}, {"w", F, 2, {2, 4}}, {"g", F, 1, {4}}}},
    {"condition that is none", MS "g (int64[N] c, uint8[N] x, float s, uint8 z) => (uint8[N] y) { y = "
                                  "com.microsoft.QLinearWhere(c, x, s, z, x, s, z, s, z) }",
     {{"c", QX_DT_INT64, 1, {4}}, {"x", U, 1, {4}}, {"s", F, 0, {0}}, {"z", U, 0, {0}}}},
    {"table codes that are too few", MS "g (float[A,B] a, uint8[C] b, float[D] m) => (float[A,N] y) { y = "
                                        "com.microsoft.MatMulBnb4<K=64, N=9, block_size=16, quant_type=1>(a, b, m) }",
     {{"a", F, 2, {2, 64}}, {"b", U, 1, {287}}, {"m", F, 1, {36}}}},
    {"group norm of too few gammas",
     MS "g (float[N,H,W,C] x, float[G] g) => (float[N,H,W,C] y) { y = com.microsoft.GroupNorm<groups=2, activation=0>(x, g, g) }",
     {{"x", F, 4, {1, 2, 2, 4}}, {"g", F, 1, {3}}}},
    {"window larger than the picture", MS "g (uint8[N,C,H,W] x, float s, uint8 z) => (uint8[N,C,A,B] y) { y = "
                                          "com.microsoft.QLinearAveragePool<kernel_shape=[3, 3]>(x, s, z, s, z) }",
     {{"x", U, 4, {1, 1, 2, 2}}, {"s", F, 0, {0}}, {"z", U, 0, {0}}}},
    {"parts of other ranks", MS "g (uint8[A,B] x, uint8[C] w, float s, uint8 z) => (uint8[D,E] y) { y = "
                                "com.microsoft.QLinearConcat<axis=0>(s, z, x, s, z, w, s, z) }",
     {{"x", U, 2, {2, 2}}, {"w", U, 1, {2}}, {"s", F, 0, {0}}, {"z", U, 0, {0}}}},
    {"a block whose elements are 2^64 times as many", MS "g (float[A,B,C] x, int64[D] i) => (float[N,M,H,W] y) "
                                                         "<int64 up = {4294967296}> { b = Mul(i, up) y = Col2Im(x, b, b) }",
     {{"x", F, 3, {1, 4, 1}}, {"i", QX_DT_INT64, 1, {2}}}},
    {"a block of no size", MS "g (float[A,B,C] x, int64[D] i) => (float[N,M,H,W] y) { b = Sub(i, i) y = Col2Im(x, i, b) }",
     {{"x", F, 3, {1, 4, 1}}, {"i", QX_DT_INT64, 1, {2}}}},
};

static void one(const hostile *k)
{
    fixture f = {.ctx = qx_ctx_new(NULL)};
    qx_exec *x = NULL;
    qx_tensor t[12] = {{0}}, out[4] = {{0}};
    qx_feed feeds[12];
    int n = 0;
    qx_status st = qx_model_parse_text(f.ctx, k->text, &f.m);
    for (; st == QX_OK && n < 12 && k->in[n].name; n++) {
        const port *p = &k->in[n];
        ok(&f, qx_tensor_new(f.ctx, &t[n], p->type, p->rank, p->dims));
        for (size_t i = 0; i < t[n].bytes; i++) ((uint8_t *)t[n].data)[i] = (uint8_t)(p->type == I ? (i % 4 ? 0 : 7) : 1); /* int32: 7 */
        feeds[n] = (qx_feed){p->name, &t[n]};
    }
    if (st == QX_OK) st = qx_exec_new(f.ctx, f.m, NULL, &x);
    if (st == QX_OK) st = qx_exec_run(x, feeds, n, NULL, (int)f.m->graph->n_outputs, out);
    if (st == QX_OK) fail_msg("%s: ran", k->name);
    if (!strstr(qx_ctx_error(f.ctx), "node")) fail_msg("%s: says '%s'", k->name, qx_ctx_error(f.ctx));
    if (x) qx_exec_free(x);
    for (int i = 0; i < 12; i++) qx_tensor_free(f.ctx, &t[i]);
    for (int i = 0; i < 4; i++) qx_tensor_free(f.ctx, &out[i]);
    if (f.m) unload(&f);
    else qx_ctx_free(f.ctx);
}

static void operands_that_do_not_fit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) one(&cases[i]);
}

/* More items are left out between two than there are: that ends with the row, not with the number. */
static void endless_skips(void **state)
{
    (void)state;
    fixture f = load("<ir_version: 8, opset_import: [\"\" : 17]> g (int64[N] x) => (float[3] y) { y = TfIdfVectorizer<max_gram_length=2, "
                     "max_skip_count=4611686018427387904, min_gram_length=1, mode=\"TF\", ngram_counts=[0, 2], ngram_indexes=[0, 1, 2], "
                     "pool_int64s=[1, 3, 1, 3]>(x) }");
    const int64_t dims[] = {3}, row[] = {1, 2, 3};
    const float want[] = {1, 1, 1}; /* 1, 3, and 1 . 3 with one left out */
    qx_exec *x;
    qx_tensor in = {0}, out = {0};
    ok(&f, qx_tensor_new(f.ctx, &in, QX_DT_INT64, 1, dims));
    memcpy(in.data, row, sizeof row);
    ok(&f, qx_exec_new(f.ctx, f.m, NULL, &x));
    ok(&f, qx_exec_run(x, &(qx_feed){"x", &in}, 1, NULL, 1, &out));
    assert_memory_equal(out.data, want, sizeof want);
    qx_tensor_free(f.ctx, &in);
    qx_tensor_free(f.ctx, &out);
    qx_exec_free(x);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(operands_that_do_not_fit), cmocka_unit_test(endless_skips)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
