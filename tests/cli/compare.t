Two models on the same inputs: their outputs, and with --nodes every value that both compute.

  $ cp $DATA/mlp/* .
  $ qonnx quantize model.onnx --int8 --calib calib.npz -o q.onnx --no-verify --quiet > /dev/null
  $ qonnx compare model.onnx model.onnx -i calib.npz --nodes
  y                                SQNR     inf dB  cosine 1.00000000  max |a-b| 0
  4 values of one name, in the order of the second model
  first below 60 dB        none
  $ qonnx compare model.onnx q.onnx -i calib.npz --nodes --below 45
  y                                SQNR   36.57 dB  cosine 0.99988983  max |a-b| 0.03758
  4 values of one name, in the order of the second model
  first below 45 dB          40.41 dB  1536 of 1536 differ, by at most 0.03688  a (MatMul)
  furthest                   36.57 dB  512 of 512 differ, by at most 0.03758  y (MatMul)
                             40.26 dB  753 of 1536 differ, by at most 0.03164  c (Relu)
                             40.41 dB  1536 of 1536 differ, by at most 0.03688  a (MatMul)
                             40.65 dB  1536 of 1536 differ, by at most 0.03394  b (Add)
  $ qonnx compare model.onnx q.onnx -i calib.npz --nodes --json | grep -c '"op"'
  4
  $ qonnx compare q.onnx q.onnx -i calib.npz --nodes | head -2
  y                                SQNR     inf dB  cosine 1.00000000  max |a-b| 0
  10 values of one name, in the order of the second model
  $ qonnx compare model.onnx q.onnx -i calib.npz --min-sqnr 200
  qonnx compare: output 'y': SQNR 36.57 dB, at least 200.00 dB is asked for
  y                                SQNR   36.57 dB  cosine 0.99988983  max |a-b| 0.03758
  [4]
  $ qonnx compare model.onnx q.onnx
  qonnx compare: give the inputs with -i FILE.npz
  [2]
  $ qonnx compare model.onnx q.onnx -i calib.npz --below much
  qonnx compare: --below: 'much' is not a number
  [2]
