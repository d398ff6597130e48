Broken files are refused with the place and the numbers, never a crash.

  $ printf 'not a model' > x.onnx; qonnx inspect x.onnx
  qonnx inspect: model 'x.onnx' is a text file; an ONNX model (*.onnx) is wanted
  [1]
  $ head -c 20000 $DATA/mlp/model.onnx > cut.onnx; qonnx inspect cut.onnx
  qonnx inspect: cut.onnx: byte 3, in graph: length 37511 runs past its parent, which has 19994 bytes left
  [1]
  $ : > empty.onnx; qonnx inspect empty.onnx
  qonnx inspect: .*empty.onnx.*empty.* (re)
  [1]
  $ qonnx inspect .
  qonnx inspect: .*is a directory.* (re)
  [1]
  $ mkfifo pipe; qonnx inspect pipe 2>&1 | grep -c pipe
  1
  $ qonnx check $SOURCE/tests/fuzz/corpus/model/external
  qonnx check: tensor 'e': external data .*w.data': No such file or directory (re)
  [1]
  $ qonnx inspect $SOURCE/tests/fuzz/corpus/model/external 2>&1 | head -1
  warning: external data .*w.data' is not there (re)
  $ for i in 1 100 1000 5000 30000 37000; do head -c $i $DATA/mlp/model.onnx > t.onnx; qonnx check t.onnx >/dev/null 2>&1; echo $?; done | sort | uniq -c
        6 1
