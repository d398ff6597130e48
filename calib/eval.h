/* eval.h - how well a language model predicts a text, and how far its predictions are from those of another model (the float original). */
#ifndef QX_CALIB_EVAL_H
#define QX_CALIB_EVAL_H

#include "calib/data/samples.h"

typedef struct qx_eval_options {
    const char *text, *tokenizer;
    int64_t seq_len;               /* tokens a window; every window starts anew (empty past). 0: 256 */
    int64_t windows;               /* at most this many; 0: the whole text */
    const qx_dim_fix *dims; int n_dims;
    qx_exec_options exec;
} qx_eval_options;

typedef struct qx_eval_result {
    int64_t windows, tokens;       /* tokens that were predicted: each position of a window predicts the next token of the
                                    * text, the last one the first of the next window */
    double perplexity;             /* exp(mean -log p(token)) */
    double ref_perplexity;         /* of the reference; NaN without one, like the next four */
    double mean_kl, max_kl;        /* KL(reference || model) a token, in nats */
    double top1_agreement;         /* share of tokens for which both put the same token first */
    double kl_99;                  /* 99 % of the tokens have no more than this */
    double top1_accuracy;          /* share of tokens that the model puts first */
    double seconds;                /* in the model's runs alone */
} qx_eval_result;

/* ref may be NULL. Both models are evaluated on the same ids; their vocabularies must agree. Progress stage: "evaluate". NaN in logits is
 * QX_E_NUMERIC with model, window and position. */
qx_status qx_eval_text(qx_ctx *ctx, qx_model *m, qx_model *ref, const qx_eval_options *opt, qx_eval_result *out);

#endif
