Two models on the same inputs: their outputs, and with --nodes every value that both compute.

  $ cp $DATA/mlp/* .
  $ qonnx quantize model.onnx --int8 --calib calib.npz -o q.onnx --no-verify --quiet > /dev/null
  $ qonnx compare model.onnx model.onnx -i calib.npz --nodes
  y                                SQNR     inf dB  cosine 1.00000000  max |a-b| 0
  4 values of one name, in the order of the second model
  first below 60 dB        none
  $ qonnx compare model.onnx q.onnx -i calib.npz --nodes --below 45
  y                                SQNR   38.11 dB  cosine 0.99992307  max |a-b| 0.0317454
  4 values of one name, in the order of the second model
  first below 45 dB          40.41 dB  1536 of 1536 differ, by at most 0.03688  a (Gemm)
  furthest                   38.11 dB  512 of 512 differ, by at most 0.03175  y (MatMul)
                             40.11 dB  755 of 1536 differ, by at most 0.03563  c (Relu)
                             40.41 dB  1536 of 1536 differ, by at most 0.03688  a (Gemm)
                             40.45 dB  1536 of 1536 differ, by at most 0.03688  b (Add)
  $ qonnx compare model.onnx q.onnx -i calib.npz --nodes --json | grep -c '"op"'
  4
  $ qonnx compare q.onnx q.onnx -i calib.npz --nodes | head -2
  y                                SQNR     inf dB  cosine 1.00000000  max |a-b| 0
  10 values of one name, in the order of the second model
  $ qonnx compare model.onnx q.onnx -i calib.npz --min-sqnr 200
  qonnx compare: output 'y': SQNR 38.11 dB, at least 200.00 dB is asked for
  y                                SQNR   38.11 dB  cosine 0.99992307  max \|a-b\| 0.03174.* (re)
  [4]

Without -i: a sample beside the first model, else arrays that are made up, the same for both.

  $ qonnx compare model.onnx q.onnx
  inputs: the first sample of calib.npz; -i FILE.npz gives others
  y                                SQNR   3[0-9].* (re)
  $ mkdir alone; cp model.onnx alone; qonnx compare alone/model.onnx q.onnx
  inputs are made up (no sample*.npz beside the model); -i FILE.npz gives others
  y                                SQNR   [1-4][0-9].* (re)
  $ qonnx bench alone/model.onnx q.onnx --runs 2 2>&1 | sed 's/[0-9.]* ms.*/T/; s/takes .*/takes/'
  inputs are made up (no sample*.npz beside the model); -i FILE.npz gives others
  2 runs, [0-9]+ threads, cpu (re)
  model +a run.* (re)
  alone/model.onnx +T (re)
  q.onnx +T (re)
  the second takes
  $ qonnx compare model.onnx q.onnx -i calib.npz --below much
  qonnx compare: --below: 'much' is not a number
  [2]

Files whose ends are other types (--io) are fed in them, and their codes count as what they stand for.

  $ for io in float16 int8; do qonnx quantize model.onnx --int8 --calib calib.npz --io $io -o $io.onnx --no-verify 2>&1 | grep "^io"; qonnx compare model.onnx $io.onnx -i calib.npz | cut -c1-42; done
  io-half: 1 input and 1 output are f16 now
  y                                SQNR   3[0-9].* (re)
  io: input 'x' is u8 now: number = \(code - 128\) \* 0.0[0-9]* (re)
  io: output 'y' is u8 now: number = \(code - 128\) \* 0.0[0-9]* (re)
  y                                SQNR   3[0-9].* (re)
