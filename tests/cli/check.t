Findings by target: what a runtime refuses is an error, what it runs slowly a warning.

  $ cp $DATA/mlp/* .; qonnx quantize model.onnx --fp8 -q --no-verify; qonnx check model.fp8.onnx
  model.fp8.onnx: ok
  $ qonnx check model.fp8.onnx --target tensorrt
  model.fp8.onnx: ok
  $ qonnx check model.fp8.onnx --target ort
  qonnx check: 2 findings that the target refuses or miscomputes
  error: x_DequantizeLinear (DequantizeLinear): float8 Q/DQ before MatMul '/fc1/MatMul' is refused at default settings before 1.32 (session.disable_quant_qdq=1 runs it; --target ort writes Cast) [fp8-pair]
  error: c_DequantizeLinear (DequantizeLinear): float8 Q/DQ before MatMul '/fc2/MatMul' is refused at default settings before 1.32 (session.disable_quant_qdq=1 runs it; --target ort writes Cast) [fp8-pair]
  model.fp8.onnx: 2 errors, 0 warnings
  hint: it was written for generic; qonnx quantize MODEL.onnx --like model.fp8.onnx --target ort writes the forms of ort
  [1]
  $ qonnx quantize model.onnx --fp8 --target ort -q --no-verify -o ort.onnx; qonnx check ort.onnx --target ort
  ort.onnx: ok
  $ qonnx quantize model.onnx --int4 --target ort -q --no-verify -o i4.onnx; qonnx check i4.onnx --target tensorrt
  qonnx check: 2 findings that the target refuses or miscomputes
  error: /fc1/MatMul (MatMulNBits): domain com.microsoft is ONNX Runtime's own [contrib]
  error: /fc2/MatMul (MatMulNBits): domain com.microsoft is ONNX Runtime's own [contrib]
  i4.onnx: 2 errors, 0 warnings
  hint: it was written for ort; qonnx quantize MODEL.onnx --like i4.onnx --target tensorrt writes the forms of tensorrt
  [1]
  $ qonnx quantize model.onnx --passes int4 -q --no-verify -o g4.onnx; qonnx check g4.onnx --target tensorrt
  qonnx check: 2 findings that the target refuses or miscomputes
  error: fc2.weight_DequantizeLinear (DequantizeLinear): scale[3] is -0.0369568: TensorRT's parser takes positive scales only [negative-scale]
  error: fc1.weight_DequantizeLinear (DequantizeLinear): scale[0] is -0.0390015: TensorRT's parser takes positive scales only [negative-scale]
  g4.onnx: 2 errors, 0 warnings
  hint: it was written for generic; qonnx quantize MODEL.onnx --like g4.onnx --target tensorrt writes the forms of tensorrt
  [1]
  $ qonnx check g4.onnx --target ort
  g4.onnx: ok
  $ qonnx check g4.onnx --target npu
  qonnx check: --target 'npu': write one of generic|ort|tensorrt|openvino
  [2]
  $ qonnx passes nosuch
  qonnx passes: there is no pass 'nosuch' (qonnx passes lists them)
  [2]
  $ qonnx passes int4
  int4 - INT4 weights in blocks; activations stay float
  
  W in blocks of `block` elements along the contraction, 4 bits each and one scale a block. The scale is searched per
  block: the largest value on 7 or on -8, shrunk in a few steps and fitted by least squares to the codes it gives,
  weighted by E[x^2] of the input channel when samples are given; what counts is the scale as stored (rounded).
  Embeddings, recurrences and heads of language models have 8 bits (--tables); convolutions, which have no blocks, are
  stored in INT8 with a scale per channel. --target ort writes MatMulNBits, generic and tensorrt DequantizeLinear on
  [K,N], of which ONNX Runtime makes the same; openvino, and generic with accuracy-level=0, DequantizeLinear on [N,K] +
  Transpose.
  
  options:
    block=32
        elements of the contraction that share a scale (32, 64, 128; smaller is more accurate and larger in file)
        integer in [8, 65536]
    zero-point=false
        asymmetric blocks with a zero point (not for tensorrt)
        true|false
    scale=search
        block scale of least squared error, or amax/7
        search|amax
    negative-scale=true
        let the search use a negative scale, so that the largest value lands on -8 (not for tensorrt)
        true|false
    half-scales=true
        block scales of float32 weights are stored as float16 behind a Cast, which runtimes fold as they load (not for
        tensorrt)
        true|false
    unblocked=int8
        weights that have no blocks (convolutions, Einsum over several axes): INT8 with a scale per channel, or float
        int8|float
    accuracy-level=4
        for ONNX Runtime (targets generic and ort): 4 lets it multiply by 8-bit blocks of x, rounded as it runs
        (docs/runtimes.md); 0: x as it is, many times slower in generic
        0|4

Ten findings of a rule are enough.

  $ qonnx quantize $MODELS/micro-llama/model.onnx --passes int8-weights -o many.onnx --no-verify --quiet > /dev/null
  $ qonnx check many.onnx --target tensorrt | tail -3
  ... and 26 more [half-quantized] (--verbose prints all)
  many.onnx: 0 errors, 36 warnings
  hint: it was written for generic; qonnx quantize MODEL.onnx --like many.onnx --target tensorrt writes the forms of tensorrt
  $ qonnx check many.onnx --target tensorrt --verbose | wc -l
  38
  $ for m in micro-llama micro-sdxl/unet sd3-mmdit-dynamo micro-sdxl/vae_decoder; do qonnx inspect $MODELS/$m/model.onnx | grep -o ' --.*SOURCE\|try .*' | sed 's/qonnx .*onnx//'; done
  try       --int4 --text FILE, or --int8 --text FILE
  try       --preset sdxl-int8, or sdxl-fp8, with samples of real steps
  try       --preset dit-int8, or dit-fp8, with samples of real steps
  try       --int8 --calib DIR
  $ qonnx inspect $MODELS/micro-llama/model.onnx | grep quantizable
    quantizable 36 of 46 linear operators have constant weights, 9.44 MB; embeddings 1.57 MB; 5 attentions

Whether weights are 2:4 sparse, in words and as data.

  $ cp $DATA/mlp/model.onnx mlp.onnx; qonnx quantize mlp.onnx -o sparse.onnx --passes "sparsity(method=magnitude),int8-weights" -q
  $ qonnx check sparse.onnx --sparsity
    2:4  /fc1/MatMul: 0 of 1536 groups broken, 50.0 % zeros
    2:4  /fc2/MatMul: 0 of 768 groups broken, 50.0 % zeros
  2 of 2 weights are 2:4 sparse
  $ qonnx check sparse.onnx --sparsity --json | head -8
  [
    {
      "node": "/fc1/MatMul",
      "weight": "fc1.weight_i8",
      "groups": 1536,
      "broken": 0,
      "zeros": 0.5
    },
  $ qonnx check mlp.onnx --sparsity | sed 's/: [0-9]* of/: N of/'
  qonnx check: no weight holds the 2:4 pattern
  dense  /fc1/MatMul: N of 1536 groups broken, 0.0 % zeros
  dense  /fc2/MatMul: N of 768 groups broken, 0.0 % zeros
  0 of 2 weights are 2:4 sparse
