Statistics of a run: shown, merged, refused.

  $ cp $DATA/mlp/* .
  $ qonnx quantize model.onnx --int8 --calib calib.npz --save-stats a.stats -o q.onnx --no-verify --quiet > /dev/null
  $ head -1 a.stats
  qonnx-stats 1
  $ qonnx stats show a.stats | sed -n '4,6p' | cut -c1-7
  value  
  x      
  c      
  $ qonnx stats show a.stats --json --only x | grep '"count"'
        "count": 1024,
  $ qonnx stats merge a.stats a.stats -o m.stats
  m.stats: 2 values from 2 files
  $ qonnx stats show m.stats --json --only x | grep '"count"'
        "count": 2048,

A second run takes them instead of samples and gives the same model (its record names the statistics instead of the samples).

  $ qonnx quantize model.onnx --int8 --load-stats a.stats -o q2.onnx --no-verify --quiet > /dev/null
  $ qonnx compare q.onnx q2.onnx -i calib.npz
  y +SQNR +inf dB .*max .a-b. 0 (re)
  $ qonnx quantize model.onnx --like q2.onnx -o q3.onnx --quiet && cmp q2.onnx q3.onnx && echo same bytes
  same bytes
Layers in turn need the samples themselves, and a record brings them back. The first layer is what it is without (of few
samples only with H's diagonal alone: another order of its sums rounds otherwise).

  $ qonnx quantize model.onnx --passes gptq,int8-weights --sequential --calib calib.npz --save-stats s.stats -o s.onnx --no-verify --quiet > /dev/null
  $ qonnx quantize model.onnx --like s.onnx -o s2.onnx --quiet && cmp s.onnx s2.onnx && echo same bytes
  same bytes
  $ for s in "" --sequential; do qonnx quantize model.onnx --passes "gptq(shrink=1000),int4(block=16)" --include "fc1*" $s --calib calib.npz -o one$s.onnx --no-verify --quiet; done; qonnx compare one.onnx one--sequential.onnx -i calib.npz
  y +SQNR +inf dB .*max .a-b. 0 (re)
  $ qonnx quantize model.onnx --passes gptq,int8-weights --sequential --load-stats s.stats -o s3.onnx --no-verify --quiet
  qonnx quantize: sequential runs the samples again: statistics alone (--load-stats) are not enough
  [2]
  $ qonnx quantize model.onnx --passes gptq,int8-weights --sequential --load-stats s.stats --calib calib.npz -o s3.onnx --no-verify --quiet && qonnx compare s.onnx s3.onnx -i calib.npz
  y +SQNR +inf dB .*max .a-b. 0 (re)
  $ qonnx stats show a.stats --only nothing
  qonnx stats: --only nothing matches none of the 2 values
  [2]
  $ head -c 3000 a.stats > cut.stats; qonnx stats show cut.stats
  qonnx stats: cut.stats: the file is damaged or cut off: its bytes hash to [0-9a-f]+, which is not what its end says (re)
  [1]
  $ qonnx stats show model.onnx
  qonnx stats: model.onnx: not a statistics file (it does not start with "qonnx-stats ")
  [1]
  $ qonnx stats merge a.stats
  qonnx stats: merge: give the file to write with -o FILE
  [2]
