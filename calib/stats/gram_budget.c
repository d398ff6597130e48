/* gram_budget.c - which Gram matrices are collected together: as many as fit the memory that is left. */
#include "calib/stats/sweep.h"

#include <unistd.h>

#include "base/text.h"

/* Columns are only known from the data when the graph has no shape for the value. */
typedef size_t gram_size_fn(int64_t k, int64_t groups);

static size_t gram_size(const qx_entry *e, gram_size_fn *size)
{
    const qx_type *t = &e->value->type;
    if (!(e->o.want & QX_STAT_GRAM) || t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank < 1) return 0;
    int64_t dims[QX_MAX_RANK];
    if (t->rank > QX_MAX_RANK) return 0;
    for (int d = 0; d < t->rank; d++) dims[d] = t->dims[d].n;
    int64_t k = qx_rows_length(t->rank, dims, e->o.has_window ? &e->o.window : NULL),
        groups = e->o.has_window && e->o.window.group > 1 ? e->o.window.group : 1;
    return k > 0 && k % groups == 0 ? size(k / groups, groups) : 0;
}

size_t qx_gram_need(const qx_entry *e) { return gram_size(e, qx_gram_bytes); }

size_t qx_grams_need(const qx_stats *s)
{
    size_t sum = 0;
    for (int w = 0; w < s->n_watched; w++)
        for (const qx_entry *e = s->watched[w]; e; e = e->next) sum += qx_gram_need(e);
    return sum;
}

size_t qx_grams_extra(const qx_stats *s)
{
    size_t most = 0;
    for (int w = 0; w < s->n_watched; w++)
        for (const qx_entry *e = s->watched[w]; e; e = e->next)
            most = gram_size(e, qx_gram_extra) > most ? gram_size(e, qx_gram_extra) : most;
    return most;
}

size_t qx_gram_budget(const qx_stats *s, const qx_exec *exec)
{
    size_t cap = qx_ctx_max_memory(s->ctx), used = qx_mem_in_use(s->ctx) + qx_exec_peak_bytes(exec) + qx_grams_extra(s);
    if (cap) return cap > used ? (cap - used) / 10 * 9 : 0;
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    size_t total = pages > 0 && size > 0 ? (size_t)pages * (size_t)size / 4 * 3 : SIZE_MAX;
    return total > used ? total - used : 0;
}

static qx_entry *largest_gram(const qx_stats *s)
{
    qx_entry *most = NULL;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next)
            if (qx_gram_need(e) > (most ? qx_gram_need(most) : 0)) most = e;
    return most;
}

size_t qx_grams_drop(qx_stats *s, const qx_exec *exec)
{
    size_t budget;
    for (qx_entry *e; (budget = qx_gram_budget(s, exec), e = largest_gram(s)) && qx_gram_need(e) > budget;) {
        char a[32], b[32];
        qx_warn(s->ctx, "the Gram matrix of '%s' takes %s, %s are left of the memory budget: not collected, its weights are "
                        "rounded to nearest or pruned by size; --max-memory allows more", e->o.name,
                qx_format_bytes((int64_t)qx_gram_need(e), a, sizeof a), qx_format_bytes((int64_t)budget, b, sizeof b));
        e->o.want &= ~(uint32_t)QX_STAT_GRAM;
    }
    return budget;
}

size_t qx_grams_choose(const qx_stats *s, size_t budget, uint32_t on)
{
    size_t bytes = 0;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            size_t need = qx_gram_need(e);
            if (!(e->o.want & QX_STAT_GRAM) || (e->o.have & QX_STAT_GRAM)) continue;
            if (need > budget - bytes) continue;
            e->o.doing |= on;
            bytes += need;
        }
    return bytes;
}

size_t qx_grams_on(const qx_stats *s, bool *any)
{
    size_t bytes = 0;
    *any = false;
    for (int w = 0; w < s->n_watched; w++)
        for (const qx_entry *e = s->watched[w]; e; e = e->next) {
            *any = *any || e->o.doing;
            if (e->o.doing & QX_STAT_GRAM) bytes += qx_gram_need(e);
        }
    return bytes;
}
