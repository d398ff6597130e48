/* verify_outputs.h - how far an output of the quantized model is from the float model's, over several samples, in the measure
 * that suits it: float values in decibels, codes and masks by how many are equal, scores by how often the largest stays the
 * largest; and what all of that means, in words. */
#ifndef QX_PASSES_VERIFY_OUTPUTS_H
#define QX_PASSES_VERIFY_OUTPUTS_H

#include "onnx/graph.h"
#include "passes/report.h"
#include "runtime/exec.h"

/* Sums over pairs (a float model, b quantized). */
typedef struct qx_pairs { double aa, bb, ab, dd, max; int64_t n, bad[2]; } qx_pairs; /* bad: values that are not finite */
void qx_pairs_add(qx_pairs *s, double a, double b);
double qx_pairs_sqnr(const qx_pairs *s);   /* dB; 300: equal; NaN where a value of either is not finite */
double qx_pairs_cosine(const qx_pairs *s);

typedef struct qx_output_meter {
    const char *name;
    bool scores;              /* logits or probabilities along the last axis */
    bool list;                /* of what was detected: its order may change, and then decibels say little */
    qx_pairs pairs;
    int64_t compared, equal;  /* values of integer and boolean outputs */
    int64_t rows, same_top;   /* rows of scores */
    int64_t counts[2];        /* of values, where the two models gave different numbers of them; counts[0] < 0: they never did */
} qx_output_meter;

/* output: the value of that name, or NULL. */
void qx_meter_start(qx_output_meter *m, const char *name, const qx_value *output);
/* One sample. What cannot be compared (sequences, strings, codes of a cache without their scale) is passed over. */
void qx_meter_add(qx_output_meter *m, const qx_tensor *a, const qx_tensor *b);
/* Rows of the report, its note about values that are not finite, and its verdict. */
qx_status qx_meters_report(const qx_output_meter *m, int n, qx_report *r);

#endif
