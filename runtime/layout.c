/* layout.c - keeps the pictures of a chain of convolutions in the layout in which convolutions run (8 or 16 channels side by
 * side), so that they are not reordered at every node; or with all channels side by side, where many pictures are not made of
 * whole blocks.
 *
 * Convolutions read and write either layout. Pointwise operators, normalisations over channel groups, resizing and concatenation
 * of channels work in place of layout too, but need all their pictures in the same one: such values are tied. Every other
 * operator knows plain tensors: a blocked picture is reordered around its call. A set of tied values is blocked when that spares
 * more reorderings at convolutions than it costs at other operators. Dims are always those of [N, C, H, W]; the layout is known
 * to the plan only. */
#include <string.h>

#include "runtime/cpu/picture/nhwc.h"
#include "runtime/dnnl/door.h"
#include "runtime/fuse/fuse.h"
#include "runtime/plan.h"

enum { NO_SET = -1, MAX_TIED = 64 };

typedef struct set { int32_t parent, gain, channels; } set; /* gain: reorderings spared by blocking minus those it costs */
/* sets: by value id; parent NO_SET: stays plain. last: all channels side by side instead of blocks of them. */
typedef struct layouts { qx_exec *x; qx_gplan *p; int block; bool last; set *sets; } layouts;

static int32_t root(layouts *l, uint32_t id)
{
    int32_t r = (int32_t)id;
    while (l->sets[r].parent != r) r = l->sets[r].parent;
    return r;
}

static bool may_block(const layouts *l, uint32_t id) { return id != QX_NO_VALUE && l->sets[id].parent != NO_SET; }

static void tie(layouts *l, uint32_t a, uint32_t b)
{
    int32_t ra = root(l, a), rb = root(l, b);
    if (ra == rb) return;
    l->sets[rb].parent = ra;
    l->sets[ra].gain += l->sets[rb].gain;
}

/* ---- Candidates ---- */

/* In memory. */
static bool is_float(const qx_exec *x, const qx_value *v) { return v->type.dtype == QX_DT_FLOAT || x->info[v->id].wide; }
static bool is_codes(const qx_value *v) { return v->type.dtype == QX_DT_INT8 || v->type.dtype == QX_DT_UINT8; }

static bool known_channels(const qx_exec *x, const qx_value *v)
{
    const qx_type *t = &v->type;
    return t->kind == QX_KIND_TENSOR && (is_float(x, v) || is_codes(v)) && t->has_shape && t->rank == 4 && t->dims[1].n > 1 &&
        t->dims[1].n <= INT32_MAX;
}

static bool is_int8_conv(const qx_rstep *s)
{
    return s->fn == qx_cpu_int8_linear && ((const qx_int8_params *)s->fused)->kind == QX_INT8_CONV;
}

/* Of what convolutions read and write, so much is no whole number of blocks, or of codes, which the library's kernels read and write so
 * only, that channels last serve the graph better. Only where the library has kernels for that: those with blocks of 16. */
static bool channels_last(const layouts *l)
{
    int64_t odd = 0, all = 0;
    for (uint32_t k = 0; k < l->p->n_steps && l->block == 16; k++) {
        const qx_rstep *s = &l->p->steps[k];
        const bool codes = is_int8_conv(s);
        if ((s->fn != qx_cpu_conv && !codes) || s->out[0] == QX_NO_VALUE || !known_channels(l->x, s->out_value[0])) continue;
        odd += codes || s->out_value[0]->type.dims[1].n % l->block != 0;
        all++;
    }
    return 4 * odd > all;
}

/* One pixel lies the same in every layout, and is as plain what pictures are multiplied by (squeeze and excitation). */
static bool is_pixel(const qx_value *v) { return v->type.dims[2].n == 1 && v->type.dims[3].n == 1; }

static bool is_picture(const layouts *l, const qx_value *v)
{
    const qx_vinfo *i = &l->x->info[v->id];
    if (!known_channels(l->x, v) || is_pixel(v)) return false;
    const bool fits = l->last || (!is_codes(v) && v->type.dims[1].n % l->block == 0);
    return fits && !i->keep && i->content == QX_CLASS_DATA && v->graph == l->p->graph && !v->is_output;
}

/* Values that a subgraph of the step reads stay plain: their readers are not steps of this plan. */
static void drop_captured(layouts *l, const uint8_t *need, const qx_rstep *s)
{
    for (uint32_t id = 0; id < l->x->n_values; id++) {
        bool direct = false;
        for (uint32_t i = 0; i < s->n_in; i++) direct = direct || s->in[i] == id;
        if (need[id] && !direct) l->sets[id].parent = NO_SET;
    }
}

static qx_status candidates(layouts *l)
{
    uint8_t *need = NULL;
    for (uint32_t id = 0; id < l->x->n_values; id++) l->sets[id].parent = NO_SET;
    for (uint32_t k = 0; k < l->p->n_steps; k++)
        for (uint32_t i = 0; i < l->p->steps[k].n_out; i++)
            if (l->p->steps[k].out[i] != QX_NO_VALUE && is_picture(l, l->p->steps[k].out_value[i])) {
                const int32_t id = (int32_t)l->p->steps[k].out[i];
                l->sets[id].parent = id;
                l->sets[id].channels = (int32_t)l->p->steps[k].out_value[i]->type.dims[1].n;
            }
    QX_TRY(qx_alloc_array(l->x->ctx, (size_t)l->x->n_values + 1, 1, (void **)&need));
    qx_status st = QX_OK;
    for (uint32_t k = 0; k < l->p->n_steps && st == QX_OK; k++) {
        if (!(l->p->steps[k].node->op->traits & QX_T_CONTROL)) continue;
        memset(need, 0, l->x->n_values);
        st = qx_plan_mark_inputs(l->x, &l->p->steps[k], need);
        if (st == QX_OK) drop_captured(l, need, &l->p->steps[k]);
    }
    qx_free(l->x->ctx, need);
    return st;
}

/* ---- What a step can do ---- */

static bool same_picture(const qx_type *a, const qx_type *b)
{
    for (int i = 0; i < 4; i++)
        if (!qx_dim_same(a->dims[i], b->dims[i])) return false;
    return true;
}

/* Broadcast to a picture as one number, or one a channel: [1], [C, 1, 1], [N, C, 1, 1]. */
static bool is_per_channel(const qx_value *v)
{
    const qx_type *t = &v->type;
    if (t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank > 4 || !qx_dtype_is_real(t->dtype)) return false;
    if (t->rank == 0) return true;
    if (t->rank < 3) return t->dims[t->rank - 1].n == 1 && (t->rank == 1 || t->dims[0].n == 1);
    return t->dims[t->rank - 1].n == 1 && t->dims[t->rank - 2].n == 1;
}

typedef enum role { ROLE_PLAIN, ROLE_CONV, ROLE_TIED, ROLE_DIMS } role;

/* Fills the inputs that must (of a convolution: had better) have the output's layout. */
typedef role role_fn(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n);

static role conv_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    /* else reordered by the call */
    if (s->n_in > QX_CONV_ADD && may_block(l, s->in[QX_CONV_ADD]) && may_block(l, s->out[0])) tied[(*n)++] = s->in[QX_CONV_ADD];
    return ROLE_CONV;
}

static role int8_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    (void)l, (void)tied;
    *n = 0;
    return is_int8_conv(s) && l->last ? ROLE_CONV : ROLE_PLAIN;
}

/* Reads any layout, and what it writes is the same in all: the dims, or one pixel a channel. */
static role dims_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    (void)l, (void)s, (void)tied;
    *n = 0;
    return ROLE_DIMS;
}

static role first_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    tied[0] = s->in[0];
    *n = 1;
    return may_block(l, s->in[0]) && s->n_out == 1 && may_block(l, s->out[0]) ? ROLE_TIED : ROLE_PLAIN;
}

/* Numbers into codes and back by one scale. */
static role codes_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    const qx_value *scale = s->n_in > 1 ? s->in_value[1] : NULL;
    *n = 0;
    if (!scale || s->fused || scale->type.kind != QX_KIND_TENSOR || !scale->type.has_shape || scale->type.rank != 0) return ROLE_PLAIN;
    return first_role(l, s, tied, n);
}

static role between_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    if (!may_block(l, s->out[0])) return ROLE_PLAIN;
    for (uint32_t i = QX_BETWEEN_A; i <= QX_BETWEEN_B; i += QX_BETWEEN_B - QX_BETWEEN_A) {
        if (s->in[i] == QX_NO_VALUE) continue;
        if (!may_block(l, s->in[i])) return ROLE_PLAIN;
        tied[(*n)++] = s->in[i];
    }
    return ROLE_TIED;
}

/* Its moments are those of a block's lanes. */
static role group_norm_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    return l->last ? ROLE_PLAIN : first_role(l, s, tied, n);
}

/* Not for training, whose statistics run over plain pictures. */
static role batch_norm_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    const bool trains = qx_attr_int(s->node, "training_mode", 0) || s->node->op->since < 7;
    return trains ? ROLE_PLAIN : first_role(l, s, tied, n);
}

/* Maxima and averages; their places and other norms know plain pictures. */
static role pool_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    return s->n_out != 1 || s->node->op->id == QX_OP_LpPool ? ROLE_PLAIN : first_role(l, s, tied, n);
}

static role binary_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    if (s->node->op->since < 7 || s->n_in != 2 || !may_block(l, s->out[0])) return ROLE_PLAIN;
    for (uint32_t i = 0; i < 2; i++) {
        if (s->in[i] == QX_NO_VALUE) return ROLE_PLAIN;
        if (may_block(l, s->in[i]) && same_picture(&s->in_value[i]->type, &s->out_value[0]->type)) tied[(*n)++] = s->in[i];
        else if (may_block(l, s->in[i]) || !is_per_channel(s->in_value[i])) return ROLE_PLAIN;
    }
    return *n ? ROLE_TIED : ROLE_PLAIN;
}

/* Channels, as Concat puts them together. */
static role split_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    if (qx_attr_int(s->node, "axis", 0) != 1 || s->n_out >= MAX_TIED || !may_block(l, s->in[0])) return ROLE_PLAIN;
    tied[(*n)++] = s->in[0];
    for (uint32_t i = 0; i < s->n_out; i++) {
        if (!may_block(l, s->out[i])) return ROLE_PLAIN;
        tied[(*n)++] = s->out[i];
    }
    return ROLE_TIED;
}

static role concat_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    *n = 0;
    if (qx_attr_int(s->node, "axis", 0) != 1 || s->n_in > MAX_TIED || !may_block(l, s->out[0])) return ROLE_PLAIN;
    for (uint32_t i = 0; i < s->n_in; i++) {
        if (!may_block(l, s->in[i])) return ROLE_PLAIN;
        tied[(*n)++] = s->in[i];
    }
    return ROLE_TIED;
}

/* Rows and columns only. */
static role resize_role(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    if (first_role(l, s, tied, n) == ROLE_PLAIN) return ROLE_PLAIN;
    const qx_type *a = &s->in_value[0]->type, *b = &s->out_value[0]->type;
    const char *mode = qx_attr_string(s->node, "coordinate_transformation_mode", "");
    if (strcmp(mode, "tf_crop_and_resize") == 0 || (is_codes(s->in_value[0]) && *qx_attr_string(s->node, "mode", "nearest") != 'n'))
        return ROLE_PLAIN;
    return qx_dim_same(a->dims[0], b->dims[0]) && qx_dim_same(a->dims[1], b->dims[1]) ? ROLE_TIED : ROLE_PLAIN;
}

static role role_of(const layouts *l, const qx_rstep *s, uint32_t *tied, uint32_t *n)
{
    static const struct { qx_cpu_fn *fn; role_fn *role; } table[] = {
        {qx_cpu_conv, conv_role}, {qx_cpu_int8_linear, int8_role}, {qx_cpu_quantize, codes_role},
        {qx_cpu_dequantize, codes_role}, {qx_cpu_between, between_role}, {qx_cpu_gn, group_norm_role}, {qx_cpu_group_norm, group_norm_role},
        {qx_cpu_batch_norm, batch_norm_role}, {qx_cpu_pool, pool_role},
        {qx_cpu_act, first_role}, {qx_cpu_unary, first_role}, {qx_cpu_clip, first_role}, {qx_cpu_identity, first_role},
        {qx_cpu_binary, binary_role},
        {qx_cpu_concat, concat_role}, {qx_cpu_split, split_role}, {qx_cpu_resize, resize_role},
        {qx_cpu_shape, dims_role}, {qx_cpu_global_pool, dims_role}};
    *n = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].fn == s->fn) return table[i].role(l, s, tied, n);
    return ROLE_PLAIN;
}

/* ---- Gains, and the decision ---- */

static void count(layouts *l, uint32_t id, int gain)
{
    if (may_block(l, id)) l->sets[root(l, id)].gain += gain;
}

static void weigh(layouts *l, const qx_rstep *s)
{
    uint32_t tied[MAX_TIED], n;
    role r = role_of(l, s, tied, &n);
    if (r == ROLE_DIMS) return;
    if (r != ROLE_PLAIN) {
        for (uint32_t i = 0; i < n; i++) tie(l, s->out[0], tied[i]);
        if (r != ROLE_CONV) return;
        count(l, s->in[0], 1);
        count(l, s->out[0], 1);
        return;
    }
    for (uint32_t i = 0; i < s->n_in; i++) count(l, s->in[i], -1);
    for (uint32_t i = 0; i < s->n_out; i++) count(l, s->out[i], -1);
}

static void settle(layouts *l, qx_rstep *s)
{
    uint32_t tied[MAX_TIED], n;
    role r = role_of(l, s, tied, &n);
    s->native = r != ROLE_PLAIN;
    for (uint32_t i = 0; i < s->n_in && !s->native; i++)
        s->blocked_in = s->blocked_in || (s->in[i] != QX_NO_VALUE && l->x->info[s->in[i]].block);
    for (uint32_t i = 0; i < s->n_out && !s->native; i++)
        s->blocked_out = s->blocked_out || (s->out[i] != QX_NO_VALUE && l->x->info[s->out[i]].block);
}

qx_status qx_plan_layout(qx_exec *x, qx_gplan *p)
{
    layouts l = {.x = x, .p = p, .block = qx_dnnl_block()};
    if (!l.block) return QX_OK;
    l.last = channels_last(&l);
    QX_TRY(qx_alloc_array(x->ctx, (size_t)x->n_values + 1, sizeof *l.sets, (void **)&l.sets));
    qx_status st = candidates(&l);
    for (uint32_t i = 0; i < p->n_steps && st == QX_OK; i++) weigh(&l, &p->steps[i]);
    for (uint32_t id = 0; id < x->n_values && st == QX_OK; id++)
        if (may_block(&l, id) && l.sets[root(&l, id)].gain > 0) x->info[id].block = l.last ? -l.sets[id].channels : l.block;
    for (uint32_t i = 0; i < p->n_steps && st == QX_OK; i++) settle(&l, &p->steps[i]);
    qx_free(x->ctx, l.sets);
    return st;
}

/* ---- Around the call of a step that knows plain tensors only ---- */

qx_status qx_layout_plain(qx_call *c, const qx_tensor *t, int block, qx_tensor *out)
{
    *out = *t;
    QX_TRY(qx_call_scratch(c, t->bytes, &out->data));
    return t->numel ? qx_reblock(c, t->dtype, t->dims, block, t->data, 0, out->data) : QX_OK;
}

qx_status qx_layout_inputs(qx_call *c, const qx_tensor **in)
{
    const qx_rstep *s = c->step;
    for (uint32_t i = 0; i < s->n_in; i++) {
        int block = s->in[i] == QX_NO_VALUE ? 0 : c->exec->info[s->in[i]].block;
        qx_tensor *plain = NULL;
        if (!block || !in[i]) continue;
        QX_TRY(qx_call_scratch(c, sizeof *plain, (void **)&plain));
        QX_TRY(qx_layout_plain(c, in[i], block, plain));
        in[i] = plain;
    }
    return QX_OK;
}

qx_status qx_layout_outputs(qx_call *c)
{
    const qx_rstep *s = c->step;
    for (uint32_t i = 0; i < s->n_out; i++) {
        int block = s->out[i] == QX_NO_VALUE ? 0 : c->exec->info[s->out[i]].block;
        if (!block) continue;
        qx_slot *slot = &c->exec->slots[s->out[i]];
        qx_block *b = NULL;
        QX_TRY(qx_block_new(c->exec, slot->t.bytes, QX_BLOCK_RUN, &b));
        qx_status st = slot->t.numel ? qx_reblock(c, slot->t.dtype, slot->t.dims, 0, slot->t.data, block, b->data) : QX_OK;
        qx_tensor t = slot->t;
        qx_slot_clear(c->exec, slot);
        *slot = (qx_slot){.t = t, .block = b, .set = true};
        slot->t.data = b->data;
        QX_TRY(st);
    }
    return QX_OK;
}
