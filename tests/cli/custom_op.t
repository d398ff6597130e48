A model with an operator that the executor has no kernel for: formats that need no run are written, the others say which operator it is.

  $ cp $DATA/custom_op/* .; qonnx quantize model.onnx --int4
  opset raised from 17 to 21: INT4 needs it
  wrote model.onnx -> model.int4.onnx
    size   .* (re)
    time   .* (re)
    samples calib.npz: 14 samples, 2 held out
         2 nodes  int4 block 32
    not verified: verification of the float model: node 'own': operator acme.ops.Secret has no CPU kernel
    weights furthest from float:
      2[12].* dB    int4 block 32  first (re)
      2[12].* dB    int4 block 32  second (re)
  $ qonnx quantize model.onnx --int4 --force --calib calib.npz
  warning: the samples are not used: node 'own': operator acme.ops.Secret has no CPU kernel
  opset raised from 17 to 21: INT4 needs it
  wrote model.onnx -> model.int4.onnx
    size   .* (re)
    time   .* (re)
    samples calib.npz: 14 samples, 2 held out
         2 nodes  int4 block 32
    not verified: verification of the float model: node 'own': operator acme.ops.Secret has no CPU kernel
    weights furthest from float:
      2[12].* dB    int4 block 32  first (re)
      2[12].* dB    int4 block 32  second (re)
  $ qonnx quantize model.onnx --int4 --force --verify calib.npz
  opset raised from 17 to 21: INT4 needs it
  qonnx quantize: verification of the float model: node 'own': operator acme.ops.Secret has no CPU kernel
  [3]
  $ qonnx quantize model.onnx --int4 --force --min-sqnr 5 -q
  qonnx quantize: --min-sqnr 5: nothing was measured (not verified: verification of the float model: node 'own': operator acme.ops.Secret has no CPU kernel)
  [4]
  $ qonnx quantize model.onnx --int8
  qonnx quantize: calibration runs the model (--int4, --passes int8-weights and fp8-weights need no run): node 'own': operator acme.ops.Secret has no CPU kernel
  [3]
  $ ls
  calib.npz
  model.int4.onnx
  model.onnx
