/* job.h - what job.c and job_run.c share. Internal to onnx/. */
#ifndef QX_ONNX_JOB_H
#define QX_ONNX_JOB_H

#include "kernels/quant.h"
#include "onnx/file/source.h"

int64_t qx_job_blocks(const qx_job *j);   /* scales a row */
qx_format qx_job_format(const qx_job *j);
int qx_job_code_bits(const qx_job *j);

#endif
