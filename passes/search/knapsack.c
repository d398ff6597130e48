/* knapsack.c - see knapsack.h. Stage g holds the undominated sums over groups 0..g; each state remembers its choice and the state
 * before it. */
#include "passes/search/knapsack.h"

#include <string.h>

typedef struct state { int64_t bytes; double cost; int32_t from; uint8_t choice; } state;
typedef struct link { int32_t from; uint8_t choice; } link;
struct qx_knapsack { qx_ctx *ctx; int64_t groups; link **links; /* [groups] lists */ state *last; int64_t count; bool exact; };

/* Smallest next state over all choices of one group: choice c walks the old list at at[c]. Equal sums: the earlier choice. */
static int smallest(const state *old, int64_t n_old, const qx_choice *c, int n, const int64_t *at)
{
    int best = -1;
    int64_t bytes = 0;
    double cost = 0;
    for (int i = 0; i < n; i++) {
        if (!c[i].allowed || at[i] == n_old) continue;
        const int64_t b = old[at[i]].bytes + c[i].bytes;
        const double d = old[at[i]].cost + c[i].cost;
        if (best >= 0 && (b > bytes || (b == bytes && d >= cost))) continue;
        best = i;
        bytes = b;
        cost = d;
    }
    return best;
}

/* All undominated sums of an old state and a choice, by rising bytes. out has room for n_old * n. */
static int64_t extend(const state *old, int64_t n_old, const qx_choice *c, int n, state *out)
{
    int64_t at[QX_KNAPSACK_CHOICES] = {0}, made = 0;
    for (;;) {
        const int i = smallest(old, n_old, c, n, at);
        if (i < 0) return made;
        const state s = {old[at[i]].bytes + c[i].bytes, old[at[i]].cost + c[i].cost, (int32_t)at[i], (uint8_t)i};
        at[i]++;
        if (!made || s.cost < out[made - 1].cost) out[made++] = s;
    }
}

/* Keeps the last (cheapest) state of each of CAP equal ranges of bytes, and the first of all. */
static int64_t thin(state *s, int64_t n)
{
    const double width = (double)(s[n - 1].bytes - s[0].bytes) / (QX_KNAPSACK_CAP - 1);
    int64_t kept = 1;
    for (int64_t i = 1; i < n; i++) {
        const int64_t here = (int64_t)((double)(s[i].bytes - s[0].bytes) / width);
        const bool last = i + 1 == n || (int64_t)((double)(s[i + 1].bytes - s[0].bytes) / width) != here;
        if (last && kept < QX_KNAPSACK_CAP) s[kept++] = s[i];
    }
    return kept;
}

static qx_status keep_links(qx_knapsack *k, int64_t g, const state *s, int64_t n)
{
    QX_TRY(QX_NEW_ARRAY(k->ctx, n, &k->links[g]));
    for (int64_t i = 0; i < n; i++) k->links[g][i] = (link){s[i].from, s[i].choice};
    return QX_OK;
}

static qx_status solve(qx_knapsack *k, const qx_choice *choices, int n)
{
    state *old = NULL, *next = NULL;
    qx_status st;
    int64_t count = 1;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(k->ctx, 1, &old));
    for (int64_t g = 0; g < k->groups; g++) {
        QX_TRY_GOTO(st, qx_check_cancel(k->ctx));
        QX_TRY_GOTO(st, QX_NEW_ARRAY(k->ctx, count * n, &next));
        count = extend(old, count, choices + g * n, n, next);
        if (!count) {
            st = qx_fail(k->ctx, QX_E_FAIL, "group %lld has no choice", (long long)g);
            goto done;
        }
        if (count > QX_KNAPSACK_CAP) {
            count = thin(next, count);
            k->exact = false;
        }
        QX_TRY_GOTO(st, keep_links(k, g, next, count));
        qx_free(k->ctx, old);
        old = next;
        next = NULL;
    }
    k->last = old;
    k->count = count;
    old = NULL;
done:
    qx_free(k->ctx, old);
    qx_free(k->ctx, next);
    return st;
}

qx_status qx_knapsack_new(qx_ctx *ctx, const qx_choice *choices, int64_t groups, int n, qx_knapsack **out)
{
    qx_knapsack *k;
    *out = NULL;
    if (n < 1 || n > QX_KNAPSACK_CHOICES) QX_FAIL(ctx, QX_E_USAGE, "%d formats to choose from, at most %d", n, QX_KNAPSACK_CHOICES);
    QX_TRY(QX_NEW(ctx, &k));
    *k = (qx_knapsack){.ctx = ctx, .groups = groups, .exact = true};
    qx_status st = QX_NEW_ARRAY(ctx, groups + 1, &k->links);
    if (st == QX_OK) st = solve(k, choices, n);
    if (st == QX_OK) *out = k;
    else qx_knapsack_free(k);
    return st;
}

void qx_knapsack_free(qx_knapsack *k)
{
    if (!k) return;
    for (int64_t g = 0; k->links && g < k->groups; g++) qx_free(k->ctx, k->links[g]);
    qx_free(k->ctx, k->links);
    qx_free(k->ctx, k->last);
    qx_free(k->ctx, k);
}

bool qx_knapsack_exact(const qx_knapsack *k) { return k->exact; }
int64_t qx_knapsack_count(const qx_knapsack *k) { return k->count; }

void qx_knapsack_point(const qx_knapsack *k, int64_t i, int64_t *bytes, double *cost)
{
    *bytes = k->last[i].bytes;
    *cost = k->last[i].cost;
}

void qx_knapsack_pick(const qx_knapsack *k, int64_t i, uint8_t *pick)
{
    for (int64_t g = k->groups; g-- > 0; i = k->links[g][i].from) pick[g] = k->links[g][i].choice;
}
