Calibration layer by layer: 9 MB of weights within 18 MB.

  $ qonnx quantize $MODELS/micro-llama/model.onnx --passes int8 --text $MODELS/micro-llama/calib.txt --seq-len 128 --samples 4 --no-verify --quiet --save-stats a.stats -o a.onnx
  $ qonnx quantize $MODELS/micro-llama/model.onnx --passes int8 --text $MODELS/micro-llama/calib.txt --seq-len 128 --samples 4 --no-verify --save-stats b.stats -o b.onnx --max-memory 18M --resume b.part 2>&1 | grep weights.of
  weights of [0-9.]+ MB do not fit the memory limit: layer by layer, [0-9.]+ MB at a time (re)
  $ cmp a.stats b.stats && cmp a.onnx b.onnx && echo same bytes
  same bytes
  $ ls b.part* 2>&1
  ls: cannot access 'b.part*': No such file or directory
  [2]
