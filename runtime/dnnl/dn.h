/* dn.h - what the files of runtime/dnnl/ share: the engine, primitives with their layouts and arguments. Only these files
 * include dnnl.h (2.x: version 3 renamed most of it). Weights are reordered once into the layout that the library asks for; primitives are
 * kept per node. Scratch comes from the call, so nothing stays allocated between calls. */
#ifndef QX_RUNTIME_DNNL_DN_H
#define QX_RUNTIME_DNNL_DN_H

#include <dnnl.h>

#include "runtime/cpu/codes/int8.h"
#include "runtime/dnnl/door.h"

enum { QX_DN_CACHE = 6 }; /* primitives of one node: different row counts */

/* Memory objects of a primitive's arguments, made at its first run; later ones only say where the data is. */
enum { QX_DN_ARGS = 7 };
typedef struct qx_dn_args { dnnl_exec_arg_t a[QX_DN_ARGS]; const void *data[QX_DN_ARGS]; int n; } qx_dn_args;

/* Reorderings that calls repeat: making one takes longer than a small one runs. */
enum { QX_DN_REORDERS = 32 };
typedef struct qx_dn_turn { dnnl_memory_desc_t from, to, scratch; dnnl_primitive_t p; qx_dn_args args; } qx_dn_turn;

typedef struct qx_dn { dnnl_engine_t engine; dnnl_stream_t stream; qx_dn_turn *turns[QX_DN_REORDERS]; } qx_dn;

const char *qx_dn_text(dnnl_status_t s);
#define QX_DN(c, call)                                                                                      \
    do {                                                                                                    \
        dnnl_status_t s_ = (call);                                                                          \
        if (s_ != dnnl_success) return qx_call_fail((c), s_ == dnnl_out_of_memory ? QX_E_NOMEM : QX_E_FAIL, "oneDNN: %s (%s)", qx_dn_text(s_), #call); \
    } while (0)

/* flops of the product that comes: a small one is done before a second thread would have woken up. */
qx_status qx_dn_get(qx_call *c, double flops, qx_dn **out);
double qx_dn_mm_flops(int64_t batch, int64_t m, int64_t k, int64_t n);
double qx_dn_conv_flops(const qx_conv_shape *s);

/* ---- Primitives ---- */
typedef struct qx_dn_prim {
    int64_t key[10];
    uint64_t used;
    dnnl_primitive_t p;
    dnnl_memory_desc_t src, wei, dst, scratch; /* as the library wants them */
    dnnl_memory_desc_t have_src, have_dst, bias; /* as the caller has them */
    bool turn_src, turn_dst;                     /* these differ: reordered around the run */
    const char *impl;
    bool bare;     /* a convolution: sum and activation are not part of it */
    qx_dn_args args; /* the same ones at every run */
} qx_dn_prim;

void qx_dn_prim_drop(qx_dn_prim *p);
/* The primitive with this key, or the slot to make it in (*found false). */
qx_dn_prim *qx_dn_prim_slot(qx_dn_prim *cache, const int64_t key[10], uint64_t *clock, bool *found);
/* From descriptor and attributes to a primitive with its layouts known: the library's first implementation that `good` likes;
 * p->p stays NULL when there is none. */
typedef bool qx_dn_good(const char *impl);
qx_dn_good qx_dn_stable; /* the same result for any number of threads */
qx_dn_good qx_dn_exact;  /* for integers: all but reference loops */
qx_status qx_dn_prim_make(qx_call *c, qx_dn *l, const_dnnl_op_desc_t desc, const_dnnl_primitive_attr_t attr, qx_dn_good *good,
                          qx_dn_prim *p);
/* How the caller's x and y lie. Once, behind qx_dn_prim_make. */
void qx_dn_prim_have(qx_dn_prim *p, const dnnl_memory_desc_t *src, const dnnl_memory_desc_t *dst);
/* One run: x and y as said there, packed weights, and arguments besides these, each with its layout. */
typedef struct qx_dn_more { int id; const dnnl_memory_desc_t *md; const void *data; } qx_dn_more;
enum { QX_DN_MORE = 3 };
typedef struct qx_dn_data { const void *x, *w; void *y; int n; qx_dn_more more[QX_DN_MORE]; } qx_dn_data;
qx_status qx_dn_prim_run(qx_call *c, qx_dn *l, qx_dn_prim *p, const qx_dn_data *d, double flops);
/* Constant weights of a node as its primitives want them, and these. */
typedef struct qx_dn_weights { void *packed; dnnl_memory_desc_t md; qx_dn_prim cache[QX_DN_CACHE]; uint64_t clock; } qx_dn_weights;
void qx_dn_weights_drop(qx_ctx *ctx, qx_dn_weights *w);
/* Takes `packed`, which lies as `md`; primitives for another packing go. */
void qx_dn_packed(qx_ctx *ctx, qx_dn_weights *w, void *packed, const dnnl_memory_desc_t *md);
/* Packed as `to` from data, which lies as `from` and may be what is packed now. */
qx_status qx_dn_repack(qx_call *c, qx_dn *l, qx_dn_weights *w, const dnnl_memory_desc_t *from, const void *data,
                       const dnnl_memory_desc_t *to);
/* Attributes: the activation, then the product with a tensor laid out as `mul` and the sum with one laid out as `add` (NULL: none). */
qx_status qx_dn_attr(qx_call *c, qx_act act, const dnnl_memory_desc_t *mul, const dnnl_memory_desc_t *add, dnnl_primitive_attr_t *out);

qx_status qx_dn_reorder(qx_call *c, qx_dn *l, const dnnl_memory_desc_t *from, const void *src, const dnnl_memory_desc_t *to, void *dst);

/* ---- Layouts ---- */
/* strides NULL: the library may choose the layout. */
qx_status qx_dn_typed_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims, dnnl_data_type_t type, const int64_t *strides);
qx_status qx_dn_strided_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims, const int64_t *strides); /* float */
qx_status qx_dn_any_md(qx_call *c, dnnl_memory_desc_t *md, int n, const int64_t *dims);                             /* float */
/* [N, C, H, W] with `block` (8 or 16) channels side by side: see qx_dnnl_block. */
qx_status qx_dn_blocked_md(qx_call *c, const int64_t dims[4], int block, dnnl_memory_desc_t *md);
/* Dims of picture, weights (with a group axis when there is more than one) and result; returns the rank of the picture. */
int qx_dn_conv_dims(const qx_conv_shape *s, int64_t *x, int64_t *w, int64_t *y);

#endif
