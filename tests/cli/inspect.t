What is in a file: in short, node by node, weight by weight, and as data.

  $ qonnx inspect $DATA/mlp/model.onnx
  $SOURCE/tests/data/mlp/model.onnx
    IR 9, opset 19
    input    x                            f32[batch,64]
    output   y                            f32[batch,32]
    nodes    4
    weights  0.009312 M parameters, 37.2 kB in 3 tensors
             f32        37.2 kB in 3
    operators MatMul 2, Add 1, Relu 1
    quantizable 2 of 2 linear operators have constant weights, 36.9 kB; 0 attentions
    saves    27.1 kB in 8 bit (--int8, --fp8), 31.1 kB in 4 bit (--int4)
    try      qonnx quantize $SOURCE/tests/data/mlp/model.onnx --int8 --calib DIR
  $ qonnx inspect $DATA/mlp/model.onnx --nodes
  MatMul                       /fc1/MatMul  (x, fc1.weight) -> a f32[batch,96]
  Add                          /fc1/Add  (a, fc1.bias) -> b f32[batch,96]
  Relu                         /Relu  (b) -> c f32[batch,96]
  MatMul                       /fc2/MatMul  (c, fc2.weight) -> y f32[batch,32]
  $ qonnx inspect $DATA/mlp/model.onnx --tensors
  fc1.weight                               f32[64,96]                  24.6 kB  file   1 reader
  fc1.bias                                 f32[96]                       384 B  inline 1 reader
  fc2.weight                               f32[96,32]                  12.3 kB  file   1 reader
  $ qonnx inspect $DATA/mlp/model.onnx --nodes --tensors
  MatMul                       /fc1/MatMul  (x, fc1.weight) -> a f32[batch,96]
  Add                          /fc1/Add  (a, fc1.bias) -> b f32[batch,96]
  Relu                         /Relu  (b) -> c f32[batch,96]
  MatMul                       /fc2/MatMul  (c, fc2.weight) -> y f32[batch,32]
  fc1.weight                               f32[64,96]                  24.6 kB  file   1 reader
  fc1.bias                                 f32[96]                       384 B  inline 1 reader
  fc2.weight                               f32[96,32]                  12.3 kB  file   1 reader
  $ qonnx quantize $DATA/mlp/model.onnx -o q.onnx --passes int8-weights -q; qonnx inspect q.onnx --tensors
  fc1.bias                                 f32[96]                       384 B  inline 1 reader
  fc1.weight_i8                            i8[64,96]                   6.14 kB  file   1 reader
  fc1.weight_scale                         f32[96]                       384 B  inline 1 reader
  fc2.weight_i8                            i8[96,32]                   3.07 kB  file   1 reader
  fc2.weight_scale                         f32[32]                       128 B  inline 1 reader
  $ qonnx inspect q.onnx --nodes
  DequantizeLinear             fc2.weight_DequantizeLinear  (fc2.weight_i8, fc2.weight_scale) -> fc2.weight_DequantizeLinear_Output f32[96,32]
  DequantizeLinear             fc1.weight_DequantizeLinear  (fc1.weight_i8, fc1.weight_scale) -> fc1.weight_DequantizeLinear_Output f32[64,96]
  Gemm                         /fc1/MatMul  (x, fc1.weight_DequantizeLinear_Output) -> a f32[batch,96]
  Add                          /fc1/Add  (a, fc1.bias) -> b f32[batch,96]
  Relu                         /Relu  (b) -> c f32[batch,96]
  MatMul                       /fc2/MatMul  (c, fc2.weight_DequantizeLinear_Output) -> y f32[batch,32]
  $ qonnx inspect q.onnx --json | tr -d ' \n' | grep -o '"metadata":{.*}' | grep -o '"qonnx.[a-z]*":"[^"]*"' | grep -v hash
  "qonnx.version":"0.1.0"
  "qonnx.passes":"int8-weights(block=0,scale=amax,half-scales=true,accuracy-level=4)"
  "qonnx.target":"generic"
  "qonnx.source":"2600b8a67595357e"
  $ qonnx inspect q.onnx --json --nodes --tensors | grep -c '"readers": 1$'
  5
  $ qonnx inspect q.onnx
  q.onnx
    IR 9, opset 19
    input    x                            f32[batch,64]
    output   y                            f32[batch,32]
    nodes    6
    weights  0.00944 M parameters, 10.1 kB in 5 tensors
             i8         9.22 kB in 2
             f32        896 B in 3
    operators DequantizeLinear 2, Add 1, Gemm 1, MatMul 1, Relu 1
    quantized already: 2 nodes
    quantizable 0 of 2 linear operators have constant weights, 0 B; 0 attentions
  $ qonnx inspect $MODELS/clip-text/model.onnx --dim nosuch=3
  qonnx inspect: shape inference: no input has a dimension called 'nosuch' (their names: B)
  [2]
