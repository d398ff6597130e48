/* linear_read.c - reads one operator as Y = X W': which input is the weight, which of its stored axes are rows (output channels,
 * experts) and which are contracted. One function an operator; all of them only say which axes that the operator sees are
 * contracted, and set_weight finds the view that holds that. */
#include "passes/linear/linear_read.h"

#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/equation.h"
#include "passes/linear/quantized.h"

enum { MAX_AXES = QX_EQUATION_AXES, LEAST_TABLE = 16 };

bool qx_is_variable(const qx_value *v)
{
    qx_const_view c;
    return !qx_const_trace(v, &c) && !c.quantized;
}

/* ---- from axes to a view --------------------------------------------------------------------------------------------------- */

/* The stored axes other than 1, as runs of rows and of contracted axes in turn. */
typedef struct runs { int n; bool contracted[MAX_AXES]; int64_t size[MAX_AXES]; int last_axis[MAX_AXES], axes[MAX_AXES]; } runs;

static void find_runs(const qx_weight *w, const bool *contracted, runs *r)
{
    *r = (runs){0};
    for (int i = 0; i < w->rank; i++) {
        if (w->dims[i] == 1) continue;
        if (!r->n || r->contracted[r->n - 1] != contracted[i]) r->contracted[r->n] = contracted[i], r->size[r->n++] = 1;
        r->size[r->n - 1] *= w->dims[i]; /* numel is known to fit */
        r->last_axis[r->n - 1] = i;
        r->axes[r->n - 1]++;
    }
}

/* The pattern of runs (r: rows, c: contracted) as a view; false: no view holds it. */
static bool view_of(const runs *r, qx_view *v)
{
    const int64_t *s = r->size;
    char text[MAX_AXES + 1] = "";
    for (int i = 0; i < r->n; i++) text[i] = r->contracted[i] ? 'c' : 'r';
    if (!strcmp(text, "") || !strcmp(text, "r")) *v = (qx_view){r->n ? s[0] : 1, 1, 1, 0};
    else if (!strcmp(text, "c")) *v = (qx_view){1, 1, s[0], 0};
    else if (!strcmp(text, "rc")) *v = (qx_view){s[0], 1, s[1], 0};
    else if (!strcmp(text, "cr")) *v = (qx_view){s[1], s[0], 1, 0};
    else if (!strcmp(text, "crc")) *v = (qx_view){s[1], s[0], s[2], 0};
    else if (!strcmp(text, "rcr")) *v = (qx_view){s[0] * s[2], s[1], 1, s[2]};
    else return false;
    return true;
}

/* The one stored axis of a kind; an axis of 1 stands in where all are 1; -1: there are several. */
static int only_axis(const qx_weight *w, const bool *contracted, bool kind, int fallback)
{
    int found = -1;
    for (int i = 0; i < w->rank; i++) {
        if (w->dims[i] == 1 || contracted[i] != kind) continue;
        if (found >= 0) return -1;
        found = i;
    }
    return found >= 0 ? found : fallback;
}

static int any_axis(const qx_weight *w, const bool *contracted, bool kind)
{
    for (int i = w->rank - 1; i >= 0; i--)
        if (contracted[i] == kind) return i;
    return -1;
}

/* seen[i]: the axis i that the operator sees is contracted. Rows are all other stored axes, those among them that a Gather picks from. */
static void set_weight(qx_linear *l, const qx_const_view *c, const bool *seen)
{
    bool contracted[MAX_AXES] = {false};
    runs r;
    qx_weight *w = c->tensor;
    if (w->numel <= 0 || !qx_dtype_is_float(w->dtype)) return;
    for (int i = 0; i < c->rank; i++) {
        if (seen[i] && c->axes[i] == QX_AXIS_PICKED) return;
        if (seen[i] && c->axes[i] >= 0) contracted[c->axes[i]] = true;
    }
    find_runs(w, contracted, &r);
    if (!view_of(&r, &l->view)) return;
    l->w_init = c->value;
    l->w = w;
    l->channel_axis = only_axis(w, contracted, false, any_axis(w, contracted, false));
    l->contract_axis = only_axis(w, contracted, true, any_axis(w, contracted, true));
    l->n = l->view.n;
    l->k = qx_view_k(&l->view);
}

/* ---- MatMul, Gemm, FusedMatMul --------------------------------------------------------------------------------------------- */

static void use_input(qx_linear *l, uint32_t weight)
{
    l->w_index = weight;
    l->x_index = 1 - weight;
    l->w_in = l->node->in[weight];
    l->x = l->node->in[1 - weight];
}

bool qx_swaps_last_two(const qx_node *n)
{
    int64_t rank;
    const int64_t *perm = qx_attr_ints(n, "perm", &rank);
    if (!perm) return n->in[0]->type.has_shape && n->in[0]->type.rank == 2;
    for (int64_t i = 0; i < rank - 2; i++)
        if (perm[i] != i) return false;
    return rank >= 2 && perm[rank - 1] == rank - 2 && perm[rank - 2] == rank - 1;
}

/* Whose rows the columns of x are: what it is without the 1 that stands behind its channels (vectors as matrices of one column, so
 * that W x is a product of matrices), or what was transposed. */
static qx_value *rows_behind(qx_value *x)
{
    if (x->def && x->def->op->id == QX_OP_Transpose && x->def->in[0] && x->def->in[0]->graph == x->graph && qx_swaps_last_two(x->def))
        return x->def->in[0];
    const qx_node *n = x->def;
    const qx_value *from = n && (n->op->id == QX_OP_Unsqueeze || n->op->id == QX_OP_Reshape) ? qx_node_in(n, 0) : NULL;
    const qx_type *a = from ? &from->type : NULL, *b = &x->type;
    if (!a || !a->has_shape || !b->has_shape || a->rank < 1 || b->rank != a->rank + 1 || b->dims[b->rank - 1].n != 1) return NULL;
    const int64_t k = a->dims[a->rank - 1].n;
    if (k == 1 || (n->op->id == QX_OP_Reshape && (k < 1 || k != b->dims[b->rank - 2].n))) return NULL;
    return n->in[0]->graph == x->graph ? n->in[0] : NULL;
}

/* FusedMatMul's transBatch moves the first axis of x. */
static qx_value *rows_of_x(qx_linear *l)
{
    const bool right = l->x_index == 1, turned = qx_attr_int(l->node, right ? "transB" : "transA", 0) != 0;
    if (qx_attr_int(l->node, right ? "transBatchB" : "transBatchA", 0)) return NULL;
    if (right == turned || (l->x->type.has_shape && l->x->type.rank == 1)) return l->x;
    qx_value *behind = rows_behind(l->x);
    if (behind) return behind;
    if (!l->x->type.has_shape) return NULL;
    l->window = (qx_conv_window){.group = 1};
    l->columns = true;
    return l->x;
}

/* Which of the last two axes that the product sees is contracted. */
static void read_side(qx_linear *l, const qx_const_view *c)
{
    bool seen[MAX_AXES] = {false};
    const bool left = l->w_index == 0, trans = qx_attr_int(l->node, left ? "transA" : "transB", 0) != 0;
    const int k = c->rank - (left == trans ? 2 : 1), n = 2 * c->rank - 3 - k;
    if (c->rank < 2 || c->axes[n] == QX_AXIS_PICKED) return;
    seen[k] = true;
    set_weight(l, c, seen);
    if (!l->w) return;
    l->rows = rows_of_x(l);
    l->plain = l->rows == l->x && l->x_index == 0 && !l->columns && (l->n == 1 || c->axes[n] == l->channel_axis);
}

static bool read_matmul(qx_linear *l)
{
    qx_const_view c;
    for (uint32_t weight = 2; weight-- > 0;) { /* on the right, or else on the left */
        use_input(l, weight);
        const bool constant = qx_weight_trace(l->w_in, &c);
        l->quantized = c.quantized || qx_expands_codes(l->w_in);
        if (constant) read_side(l, &c);
        if (l->w || l->quantized) return true;
    }
    use_input(l, 1);
    return true;
}

/* Constant operand of an Add that is the only use of y. */
static void read_bias_add(qx_linear *l)
{
    qx_value *y = l->node->out[0];
    if (!y || y->n_uses != 1 || y->is_output || y->uses->node->op->id != QX_OP_Add) return;
    qx_node *add = y->uses->node;
    qx_value *other = add->in[1 - y->uses->index];
    if (!other || other == y || qx_is_variable(other)) return;
    l->bias = other;
    l->bias_add = add;
}

static void read_bias_input(qx_linear *l)
{
    qx_value *b = qx_node_in(l->node, 2);
    if (b && !qx_is_variable(b)) l->bias = b;
}

/* ---- Einsum ---------------------------------------------------------------------------------------------------------------- */

/* A weight with a label that neither x nor y has is a sum over the weight, not a product. */
static bool each_label_meets(const qx_equation *e, uint32_t weight)
{
    for (const char *c = e->term[weight]; *c; c++)
        if (*c == '.' || (!strchr(e->term[1 - weight], *c) && !strchr(e->term[2], *c))) return false;
    return true;
}

static bool read_einsum(qx_linear *l)
{
    qx_const_view c, other;
    qx_equation e;
    bool seen[MAX_AXES] = {false};
    const uint32_t weight = qx_const_trace(l->node->in[0], &c) ? 0 : 1;
    if (l->node->n_in != 2 || !qx_equation_read(qx_attr_string(l->node, "equation", ""), &e) || !each_label_meets(&e, weight)) return false;
    use_input(l, weight);
    if (!qx_const_trace(l->w_in, &c)) return l->quantized = c.quantized;
    if (qx_const_trace(l->x, &other) || (int)strlen(e.term[weight]) != c.rank) return false;
    for (int i = 0; i < c.rank; i++) seen[i] = !strchr(e.term[2], e.term[weight][i]);
    set_weight(l, &c, seen);
    if (!l->w || l->k == 1) return l->w = NULL, false; /* an outer product */
    const char *x = e.term[1 - weight], last = *x ? x[strlen(x) - 1] : 0;
    if (l->contract_axis >= 0 && last && strchr(e.term[weight], last) && !strchr(e.term[2], last)) l->rows = l->x;
    return true;
}

/* ---- convolutions ---------------------------------------------------------------------------------------------------------- */

static void fill3(int64_t *out, const int64_t *values, int64_t count, int rank, int64_t fallback)
{
    for (int i = 0; i < 3; i++) out[i] = values && i < rank && i < count ? values[i] : fallback;
}

/* SAME_UPPER and SAME_LOWER: total padding from the input size where it is known (else left 0). */
static void same_pads(qx_linear *l, bool lower)
{
    const qx_type *t = &l->x->type;
    qx_conv_window *w = &l->window;
    for (int i = 0; i < w->rank; i++) {
        if (!t->has_shape || t->rank != w->rank + 2 || t->dims[i + 2].n < 0) continue;
        int64_t in = t->dims[i + 2].n, out = (in + w->stride[i] - 1) / w->stride[i];
        int64_t total = (out - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] + 1 - in;
        if (total < 0) total = 0;
        w->pad_begin[i] = lower ? (total + 1) / 2 : total / 2;
        w->pad_end[i] = total - w->pad_begin[i];
    }
}

static void read_window(qx_linear *l, const qx_weight *w)
{
    const qx_node *n = l->node;
    int64_t count;
    int rank = w->rank - 2;
    l->window = (qx_conv_window){.rank = rank, .group = l->group};
    fill3(l->window.kernel, w->dims + 2, rank, rank, 1);
    const int64_t *v = qx_attr_ints(n, "strides", &count);
    fill3(l->window.stride, v, count, rank, 1);
    v = qx_attr_ints(n, "dilations", &count);
    fill3(l->window.dilation, v, count, rank, 1);
    v = qx_attr_ints(n, "pads", &count);
    bool pads = v && count == 2 * rank;
    fill3(l->window.pad_begin, pads ? v : NULL, rank, rank, 0);
    fill3(l->window.pad_end, pads ? v + rank : NULL, rank, rank, 0);
    const char *mode = qx_attr_string(n, "auto_pad", "NOTSET");
    if (strncmp(mode, "SAME_", 5) == 0) same_pads(l, strcmp(mode, "SAME_LOWER") == 0);
}

static bool read_conv(qx_linear *l)
{
    qx_const_view c;
    bool seen[MAX_AXES];
    const bool transposed = l->node->op->id == QX_OP_ConvTranspose, constant = qx_const_trace(l->w_in, &c);
    const int channel = transposed ? 1 : 0;
    bool stored = constant && c.rank == c.tensor->rank && c.rank >= 3 && c.rank <= 5;
    l->is_conv = true;
    l->quantized = c.quantized || qx_expands_codes(l->w_in);
    for (int i = 0; stored && i < c.rank; i++) seen[i] = i != channel, stored = c.axes[i] == i || (c.axes[i] < 0 && c.tensor->dims[i] == 1);
    if (!stored) return true;
    set_weight(l, &c, seen);
    l->channel_axis = channel;
    l->contract_axis = 1 - channel;
    l->rows = l->x;
    if (l->w) read_window(l, l->w);
    return true;
}

/* ---- embeddings ------------------------------------------------------------------------------------------------------------ */

/* Gather of rows of a constant matrix: no product, but a large weight. Tables of few or short rows are not worth a scale. */
static bool read_embedding(qx_linear *l)
{
    qx_const_view c;
    static const bool seen[2] = {false, true};
    use_input(l, 0);
    const bool constant = qx_const_trace(l->w_in, &c);
    if (!constant || c.rank != 2 || c.axes[0] < 0 || c.axes[1] < 0 || qx_attr_int(l->node, "axis", 0) != 0 || !qx_is_variable(l->x))
        return false;
    set_weight(l, &c, seen);
    l->embedding = l->w && l->n >= LEAST_TABLE && l->k >= LEAST_TABLE;
    return l->embedding;
}

/* ---- mixtures of experts --------------------------------------------------------------------------------------------------- */

/* Where the weights [experts, n, k] of fc1, fc2 and fc3 stand. fc2 multiplies what the node makes of the others' results. */
static const struct { uint32_t weight; bool reads_x; } mixture_layers[] = {{2, true}, {4, false}, {6, true}};
enum { MIXTURE_LAYERS = sizeof mixture_layers / sizeof *mixture_layers };

static bool read_mixture(qx_linear *l, uint32_t part)
{
    static const bool seen[3] = {false, false, true};
    qx_const_view c;
    if (part >= MIXTURE_LAYERS || !qx_node_in(l->node, mixture_layers[part].weight)) return false;
    l->mixture = true;
    l->w_index = mixture_layers[part].weight;
    l->w_in = l->node->in[l->w_index];
    const bool constant = qx_const_trace(l->w_in, &c);
    l->quantized = c.quantized;
    if (constant && c.rank == 3) set_weight(l, &c, seen);
    if (l->w && mixture_layers[part].reads_x) l->rows = l->x;
    return true;
}

/* ---- recurrences ----------------------------------------------------------------------------------------------------------- */

/* W [directions, gates n, k] meets x, R the state of the turn before: neither result leaves the node. */
static bool read_recurrence(qx_linear *l, uint32_t part)
{
    enum { PARTS = 2, W = 1 };
    static const bool seen[3] = {false, false, true};
    qx_const_view c;
    if (part >= PARTS || !qx_node_in(l->node, W + part)) return false;
    l->recurrent = true;
    l->w_index = W + part;
    l->w_in = l->node->in[l->w_index];
    const bool constant = qx_const_trace(l->w_in, &c);
    l->quantized = c.quantized;
    if (constant && c.rank == 3) set_weight(l, &c, seen);
    return true;
}

/* ---- all of them ----------------------------------------------------------------------------------------------------------- */

static const struct reader { qx_op_id op; bool (*read)(qx_linear *l); void (*bias)(qx_linear *l); } readers[] = {
    {QX_OP_MatMul, read_matmul, read_bias_add},
    {QX_OP_Gemm, read_matmul, read_bias_input},
    {QX_OP_ms_FusedMatMul, read_matmul, read_bias_add},
    {QX_OP_Conv, read_conv, read_bias_input},
    {QX_OP_ConvTranspose, read_conv, read_bias_input},
    {QX_OP_Einsum, read_einsum, NULL},
    {QX_OP_Gather, read_embedding, NULL},
};

bool qx_linear_read(qx_node *n, uint32_t part, qx_linear *out)
{
    const struct reader *r = NULL;
    if (!qx_node_in(n, 0) || !qx_node_in(n, 1)) return false;
    *out = (qx_linear){.node = n, .x = n->in[0], .x_index = 0, .w_in = n->in[1], .w_index = 1, .group = qx_attr_int(n, "group", 1)};
    if (n->op->id == QX_OP_ms_MoE) return read_mixture(out, part);
    if (n->op->id == QX_OP_LSTM || n->op->id == QX_OP_GRU || n->op->id == QX_OP_RNN) return read_recurrence(out, part);
    for (size_t i = 0; i < sizeof readers / sizeof *readers && !r; i++)
        if (readers[i].op == n->op->id) r = &readers[i];
    if (!r || part || !r->read(out)) return false;
    if (out->w && r->bias && qx_is_variable(out->x)) r->bias(out);
    return true;
}
