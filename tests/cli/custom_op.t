A model with an operator that the executor has no kernel for: what it does not hang on is calibrated and measured, the rest stays float or needs no run.

  $ cp $DATA/custom_op/* .; qonnx quantize model.onnx --int4
  opset raised from 17 to 21: INT4 needs it
  wrote model.onnx -> model.int4.onnx
    size   .* (re)
    time   .* (re)
    memory [0-9.]+ MB \([0-9.]+ MB expected\) (re)
    samples calib.npz: 14 samples, 2 held out; they only verify
         2 nodes  int4 block 32
    output h                SQNR 2[0-9].* (re)
    measured as far as the operators have kernels
    furthest from float:
      2[0-9].* dB  cosine .*  int4 block 32  first (re)
    verdict .*close to the float model (re)
    hint   rounded without samples; with --calib, those beside the model let GPTQ make up for much of the loss
    hint   for TensorRT: --target tensorrt, without negative scales of 2 weights
  $ qonnx quantize model.onnx --int4 --force --calib calib.npz
  warning: the samples are not used: node 'own': operator acme.ops.Secret has no CPU kernel
  opset raised from 17 to 21: INT4 needs it
  wrote model.onnx -> model.int4.onnx
    size   .* (re)
    time   .* (re)
    memory [0-9.]+ MB \([0-9.]+ MB expected\) (re)
    samples calib.npz: 14 samples, 2 held out
         2 nodes  int4 block 32
    output h                SQNR 2[0-9].* (re)
    measured as far as the operators have kernels
    furthest from float:
      2[0-9].* dB  cosine .*  int4 block 32  first (re)
    verdict .*close to the float model (re)
    hint   for TensorRT: --target tensorrt, without negative scales of 2 weights
  $ qonnx quantize model.onnx --int4 --force --min-sqnr 5 -q
  $ qonnx quantize model.onnx --int8
  wrote model.onnx -> model.int8.onnx
    size   .* (re)
    time   .* (re)
    memory [0-9.]+ MB \([0-9.]+ MB expected\) (re)
    samples calib.npz: 14 samples, 2 held out
         1 node   int8
         1 left in float: shape unknown (type of 's'), 4.10 kB
    output h                SQNR [34][0-9].* (re)
    measured as far as the operators have kernels
    furthest from float:
      [34][0-9].* dB  cosine .*  int8  first (re)
    verdict .*close to the float model (re)
    hint   for TensorRT: --target tensorrt, without zero points of 1 activation
  $ ls
  calib.npz
  model.int4.onnx
  model.int8.onnx
  model.onnx
