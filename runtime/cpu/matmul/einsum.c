/* einsum.c - Einsum. Each operand is seen with one stride per letter (0 where it lacks the letter, the sum of strides where a
 * letter repeats: a diagonal). Letters of the output are the outer loops, the rest is summed. When two operands share nothing but
 * batch letters and one group of summed letters, they are brought to batched matrices and multiplied as such. */
#include <string.h>

#include "runtime/cpu/matmul/gemm.h"
#include "runtime/cpu/move/strided.h"

enum { MAX_LETTERS = 52 + QX_MAX_RANK, MAX_OPS = 8 };

typedef struct einsum {
    int n_ops, n_letters, n_out;
    char name[MAX_LETTERS];              /* letters; dots are codes 1, 2, ... */
    int64_t dim[MAX_LETTERS];
    int64_t stride[MAX_OPS][MAX_LETTERS];
    bool has[MAX_OPS][MAX_LETTERS];
    int out[MAX_LETTERS];                /* letters of the output, in order */
    int ellipsis;                        /* rank that "..." stands for */
} einsum;

static int letter(einsum *e, char name)
{
    for (int i = 0; i < e->n_letters; i++)
        if (e->name[i] == name) return i;
    if (e->n_letters == MAX_LETTERS) return -1;
    e->name[e->n_letters] = name;
    e->dim[e->n_letters] = 1;
    return e->n_letters++;
}

/* Terms of one side as names without blanks; "..." becomes codes 1..n right-aligned to the longest ellipsis. */
static int term_names(const char **p, int rank, int ellipsis, char *out)
{
    int n = 0, letters = 0, at = -1;
    for (; **p && **p != ',' && strncmp(*p, "->", 2) != 0; (*p)++) {
        if (**p == ' ') continue;
        if (strncmp(*p, "...", 3) == 0 && at < 0) {
            at = n;
            *p += 2;
        } else if (n < 52 && ((**p >= 'a' && **p <= 'z') || (**p >= 'A' && **p <= 'Z'))) {
            out[n++] = **p;
            letters++;
        } else {
            return -1;
        }
    }
    if (at < 0) return n;
    int dots = rank >= 0 ? rank - letters : ellipsis;
    if (dots < 0 || dots > ellipsis) return -1;
    memmove(out + at + dots, out + at, (size_t)(n - at));
    for (int i = 0; i < dots; i++) out[at + i] = (char)(1 + ellipsis - dots + i);
    return n + dots;
}

static qx_status add_operand(qx_call *c, einsum *e, int op, const qx_tensor *t, const char *names, int n)
{
    int64_t strides[QX_MAX_RANK];
    if (n != t->rank) QX_CALL_FAIL(c, QX_E_SHAPE, "operand %d has rank %d, its term has %d letters", op, t->rank, n);
    qx_strides(t->dims, t->rank, strides);
    for (int i = 0; i < n; i++) {
        int l = letter(e, names[i]);
        if (l < 0) QX_CALL_FAIL(c, QX_E_SHAPE, "more than %d letters", MAX_LETTERS);
        if (t->dims[i] != 1 && e->dim[l] != 1 && e->dim[l] != t->dims[i])
            QX_CALL_FAIL(c, QX_E_SHAPE, "letter '%c' is %lld and %lld", names[i] < 32 ? '.' : names[i], (long long)e->dim[l],
                         (long long)t->dims[i]);
        if (t->dims[i] != 1) e->dim[l] = t->dims[i];
        e->stride[op][l] += t->dims[i] == 1 ? 0 : strides[i];
        e->has[op][l] = true;
    }
    return QX_OK;
}

static qx_status output_letters(qx_call *c, einsum *e, const char *eq, const char *arrow)
{
    char names[64];
    int n = 0;
    if (arrow) {
        const char *p = arrow + 2;
        n = term_names(&p, -1, e->ellipsis, names);
        if (n < 0 || *p) QX_CALL_FAIL(c, QX_E_FORMAT, "equation '%s'", eq);
    } else { /* implicit: dots, then letters that occur once, in alphabetical order */
        for (int i = 1; i <= e->ellipsis; i++) names[n++] = (char)i;
        for (int ch = 'A'; ch <= 'z'; ch++) {
            int seen = 0;
            for (const char *q = eq; *q; q++) seen += *q == ch;
            if (seen == 1) names[n++] = (char)ch;
        }
    }
    for (int i = 0; i < n; i++) {
        int l = -1;
        for (int k = 0; k < e->n_letters; k++) l = e->name[k] == names[i] ? k : l;
        if (l < 0) QX_CALL_FAIL(c, QX_E_FORMAT, "equation '%s': output letter '%c' is in no input", eq, names[i]);
        e->out[e->n_out++] = l;
    }
    if (e->n_out > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "output of rank %d", e->n_out);
    return QX_OK;
}

static qx_status parse(qx_call *c, einsum *e)
{
    const char *eq = qx_call_str(c, "equation", ""), *p = eq, *arrow = strstr(eq, "->");
    char names[64];
    if (strlen(eq) > 200 || c->n_in > MAX_OPS || c->n_in < 1)
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "%u operands, equation of %zu characters", c->n_in, strlen(eq));
    for (uint32_t k = 0; k < c->n_in; k++) { /* the longest ellipsis first */
        const qx_tensor *t;
        int letters = 0;
        bool dots = false;
        QX_TRY(qx_call_need(c, k, &t));
        for (; *p && *p != ',' && strncmp(p, "->", 2) != 0; p++) {
            letters += (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');
            dots = dots || *p == '.';
        }
        if (dots && t->rank - letters > e->ellipsis) e->ellipsis = t->rank - letters;
        if (*p == ',') p++;
    }
    p = eq;
    e->n_ops = (int)c->n_in;
    for (int k = 0; k < e->n_ops; k++) {
        int n = term_names(&p, c->in[k]->rank, e->ellipsis, names);
        if (n < 0 || (k + 1 < e->n_ops && *p != ',') || (k + 1 == e->n_ops && *p == ','))
            QX_CALL_FAIL(c, QX_E_FORMAT, "equation '%s' does not fit %d operands", eq, e->n_ops);
        if (*p == ',') p++;
        QX_TRY(add_operand(c, e, k, c->in[k], names, n));
    }
    return output_letters(c, e, eq, arrow);
}

static bool in_output(const einsum *e, int l)
{
    for (int i = 0; i < e->n_out; i++)
        if (e->out[i] == l) return true;
    return false;
}

/* ---- Any equation: loops over output and summed letters ---- */

typedef struct loop_job {
    const einsum *e;
    const float *const *x;
    float *y;
    int sum[MAX_LETTERS], n_sum;
    int64_t sums, per, total;
} loop_job;

static qx_status loop_piece(void *user, int64_t piece)
{
    const loop_job *j = user;
    const einsum *e = j->e;
    int64_t last = (piece + 1) * j->per < j->total ? (piece + 1) * j->per : j->total;
    for (int64_t k = piece * j->per; k < last; k++) {
        int64_t base[MAX_OPS] = {0}, rest = k;
        for (int i = e->n_out - 1; i >= 0; i--) {
            int l = e->out[i];
            for (int o = 0; o < e->n_ops; o++) base[o] += rest % e->dim[l] * e->stride[o][l];
            rest /= e->dim[l];
        }
        double acc = 0;
        for (int64_t s = 0; s < j->sums; s++) {
            double v = 1;
            for (int o = 0; o < e->n_ops; o++) {
                int64_t off = base[o], r = s;
                for (int i = j->n_sum - 1; i >= 0; i--) {
                    off += r % e->dim[j->sum[i]] * e->stride[o][j->sum[i]];
                    r /= e->dim[j->sum[i]];
                }
                v *= (double)j->x[o][off];
            }
            acc += v;
        }
        j->y[k] = (float)acc;
    }
    return QX_OK;
}

static qx_status run_loops(qx_call *c, const einsum *e, const float *const *x, float *y)
{
    loop_job j = {.e = e, .x = x, .y = y, .sums = 1, .total = 1};
    for (int l = 0; l < e->n_letters; l++) {
        if (in_output(e, l)) j.total *= e->dim[l];
        else {
            j.sums *= e->dim[l];
            j.sum[j.n_sum++] = l;
        }
    }
    j.per = 4096 / (j.sums + 1) + 1;
    return qx_parallel(c->ctx, (j.total + j.per - 1) / j.per, loop_piece, &j);
}

/* ---- One operand, nothing summed: a strided copy ---- */

static bool is_copy(const einsum *e)
{
    for (int l = 0; l < e->n_letters; l++)
        if (!in_output(e, l)) return false;
    return e->n_ops == 1;
}

static qx_status run_copy(qx_call *c, const einsum *e, const float *x, float *y)
{
    qx_strided s = {.rank = e->n_out};
    for (int i = 0; i < e->n_out; i++) {
        s.dims[i] = e->dim[e->out[i]];
        s.stride[i] = e->stride[0][e->out[i]];
    }
    return qx_strided_copy(c->ctx, &s, x, y, sizeof *y);
}

/* ---- Two operands: batched product ---- */

typedef enum role { BATCH, LEFT, RIGHT, SUMMED, ROLES } role;

/* Letters by role. False when a letter is summed in one operand only. */
static bool roles(const einsum *e, int list[ROLES][MAX_LETTERS], int n[ROLES])
{
    memset(n, 0, sizeof(int[ROLES]));
    for (int i = 0; i < e->n_out; i++) {
        int l = e->out[i];
        role r = e->has[0][l] && e->has[1][l] ? BATCH : e->has[0][l] ? LEFT : RIGHT;
        list[r][n[r]++] = l;
    }
    for (int l = 0; l < e->n_letters; l++) {
        if (in_output(e, l)) continue;
        if (!e->has[0][l] || !e->has[1][l]) return false;
        list[SUMMED][n[SUMMED]++] = l;
    }
    return true;
}

static int64_t group(const einsum *e, const int *letters, int n, int op, qx_strided *s)
{
    int64_t size = 1;
    for (int i = 0; i < n; i++) {
        s->dims[s->rank] = e->dim[letters[i]];
        s->stride[s->rank++] = e->stride[op][letters[i]];
        size *= e->dim[letters[i]];
    }
    return size;
}

/* Product [batch, left, right] into the output's order. */
static qx_status put_back(qx_call *c, const einsum *e, int list[ROLES][MAX_LETTERS], const int n[ROLES], const float *from, float *y)
{
    qx_strided s = {.rank = e->n_out};
    int64_t stride[MAX_LETTERS] = {0}, at = 1;
    const role order[3] = {RIGHT, LEFT, BATCH};
    for (int r = 0; r < 3; r++)
        for (int i = n[order[r]] - 1; i >= 0; i--) {
            stride[list[order[r]][i]] = at;
            at *= e->dim[list[order[r]][i]];
        }
    for (int i = 0; i < e->n_out; i++) {
        s.dims[i] = e->dim[e->out[i]];
        s.stride[i] = stride[e->out[i]];
    }
    return qx_strided_copy(c->ctx, &s, from, y, sizeof *y);
}

static void drop(qx_ctx *ctx, void *block) { qx_bmm_free(ctx, *(qx_bmm_state **)block); }

static qx_status run_product(qx_call *c, const einsum *e, const float *const *x, float *y, int list[ROLES][MAX_LETTERS], const int n[ROLES])
{
    qx_strided sa = {0}, sb = {0};
    qx_bmm_state **state = NULL;
    float *a = NULL, *b = NULL, *p = NULL;
    int64_t nb = group(e, list[BATCH], n[BATCH], 0, &sa), m = group(e, list[LEFT], n[LEFT], 0, &sa),
        k = group(e, list[SUMMED], n[SUMMED], 0, &sa);
    group(e, list[BATCH], n[BATCH], 1, &sb);
    group(e, list[SUMMED], n[SUMMED], 1, &sb);
    int64_t cols = group(e, list[RIGHT], n[RIGHT], 1, &sb);
    QX_TRY(qx_call_state(c, sizeof *state, drop, (void **)&state));
    QX_TRY(QX_CALL_SCRATCH(c, nb * m * k, &a));
    QX_TRY(QX_CALL_SCRATCH(c, nb * k * cols, &b));
    QX_TRY(QX_CALL_SCRATCH(c, nb * m * cols, &p));
    QX_TRY(qx_strided_copy(c->ctx, &sa, x[0], a, sizeof *a));
    QX_TRY(qx_strided_copy(c->ctx, &sb, x[1], b, sizeof *b));
    qx_bmm g = {nb, m, cols, k, a, b, p, {m * k, k, 1}, {k * cols, cols, 1}};
    QX_TRY(qx_bmm_run(c, state, &g));
    return put_back(c, e, list, n, p, y);
}

qx_status qx_cpu_einsum(qx_call *c)
{
    einsum e;
    const float *x[MAX_OPS];
    float *y = NULL;
    int64_t dims[QX_MAX_RANK];
    int list[ROLES][MAX_LETTERS], n[ROLES];
    memset(&e, 0, sizeof e);
    QX_TRY(parse(c, &e));
    for (int i = 0; i < e.n_ops; i++) QX_TRY(qx_call_in_f32(c, (uint32_t)i, &x[i]));
    for (int i = 0; i < e.n_out; i++) dims[i] = e.dim[e.out[i]];
    QX_TRY(qx_call_out_f32(c, 0, c->in[0]->dtype, e.n_out, dims, &y));
    if (qx_prod(dims, 0, e.n_out) == 0) return QX_OK;
    if (is_copy(&e)) return run_copy(c, &e, x[0], y);
    bool empty = false;
    for (int l = 0; l < e.n_letters; l++) empty = empty || e.dim[l] == 0;
    if (e.n_ops == 2 && !empty && roles(&e, list, n) && n[SUMMED] > 0) return run_product(c, &e, x, y, list, n);
    return run_loops(c, &e, x, y);
}
