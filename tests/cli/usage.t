Wrong use says what is wrong and exits with 2.

  $ qonnx | head -n 1
  qonnx 0.1.0 - makes ONNX models small and fast: FP8, INT8, INT4 and what helps them stay accurate
  $ qonnx nosuch
  qonnx: there is no command 'nosuch' (qonnx help lists them)
  [2]
  $ qonnx prune model.onnx
  qonnx: there is no command 'prune'; here: qonnx quantize MODEL --passes sparsity (qonnx help lists all)
  [2]
  $ qonnx stats some.stats; qonnx stats show; qonnx stats show a b
  qonnx stats: 'some.stats' is neither show nor merge: qonnx stats show FILE
  qonnx stats: FILE is missing: qonnx stats show FILE
  qonnx stats: show takes one file, 2 are given: qonnx stats merge FILE... -o OUT makes one of several
  [2]
  $ qonnx run model.onnx samples.npz
  qonnx run: 'samples.npz' is one argument too many: inputs are given with -i FILE.npz, a trace is written with --profile
  [2]
  $ qonnx inspect
  qonnx inspect: MODEL.onnx is missing: qonnx inspect MODEL.onnx [--nodes] [--tensors]
  [2]
  $ qonnx inspect a b c
  qonnx inspect: 'b' is one argument too many: qonnx inspect MODEL.onnx [--nodes] [--tensors]
  [2]
  $ qonnx inspect --nosuch x
  qonnx inspect: unknown option '--nosuch' (qonnx inspect --help lists all)
  [2]
  $ qonnx inspect none.onnx
  qonnx inspect: model 'none.onnx': No such file or directory
  [1]
  $ qonnx --version
  qonnx 0.1.0
  $ qonnx version
  qonnx 0.1.0
  $ qonnx run $DATA/mlp/model.onnx 2>&1 | head -2
  inputs: the first sample of $SOURCE/tests/data/mlp/calib.npz; -i FILE.npz gives others
  y f32[1,32]
  $ qonnx inspect $DATA/mlp/model.onnx --threads 0
  qonnx inspect: --threads: 0 is not in [1, 1024]
  [2]
  $ qonnx inspect $DATA/mlp/model.onnx --threads x
  qonnx inspect: --threads: 'x' is not a whole number
  [2]
  $ qonnx inspect $DATA/mlp/model.onnx --max-memory 1X
  qonnx inspect: --max-memory: '1X' is not a size; write bytes, or a number with K, M, G or T, like 512M or 1.5G
  [2]

A loop limit below 1 is wrong use.

  $ qonnx run $MODELS/bert/model.onnx --profile 2>/dev/null | grep -oE "^(MatMul|Attention|LayerNormalization|Add|Mul) +[0-9]+" | sort | tr -s ' '
  Add 2
  Attention 3
  LayerNormalization 7
  MatMul 18
  $ qonnx run $MODELS/bert/model.onnx --profile --json 2>/dev/null | grep -A 2 '"op": "Attention"' | grep calls
        "calls": 3
  $ qonnx run $DATA/mlp/model.onnx -i $DATA/mlp/calib.npz --max-loop 0
  qonnx run: --max-loop: 0 is not in [1, 9223372036854775807]
  [2]

Help fits the terminal.

  $ COLUMNS=60 qonnx run --help | head -4
  usage: qonnx run MODEL [-i IN.npz] [-o OUT.npz] [--profile
                   [TRACE.json]]
  
  Run a model on arrays of an .npz file, or a sample beside it.
  $ for c in quantize run compare bench eval stats inspect check passes help; do COLUMNS=72 qonnx $c --help; done | sed '/^examples/,/^usage/d' | awk 'length > 72' | wc -l
  0

So do summaries, but for paths of files and nodes.

  $ fits() { COLUMNS=80 "$@" 2>/dev/null | grep -v "^/\|^wrote\|  try\|  next\|dB  cosine" | awk 'length > 80'; }
  $ fits qonnx inspect $MODELS/micro-llama/model.onnx; fits qonnx quantize $MODELS/micro-llama/model.onnx --int8 -o q.onnx; rm q.onnx

A reader that leaves early (`| head`) ends a command as it ends any filter, without a word.

  $ { sleep 0.3; qonnx help quantize; echo $? >&2; } | true
  141
  $ qonnx help quantize >/dev/full
  qonnx help: writing to standard output failed
  [1]

Help of a command is its --help; completion scripts know commands and options.

  $ for c in quantize run compare bench eval stats inspect check passes help; do qonnx $c --help > a; qonnx help $c | cmp - a; done
  $ qonnx help nosuch
  qonnx help: there is no command 'nosuch' (qonnx help lists them)
  [2]
  $ qonnx help --completion bash > a; bash -n a && grep -c "dry-run" a
  1
  $ qonnx help --completion zsh > a; grep -o "'--dry-run\[[^]]*\]'\|inspect) _arguments '--nodes\[[^]]*\]'" a
  '--dry-run[print the whole plan and write nothing]'
  inspect) _arguments '--nodes[one line a node]'
  $ qonnx help --man > a; head -3 a
  .TH QONNX 1 "" "qonnx 0.1.0" "User Commands"
  .SH NAME
  qonnx \- rewrite ONNX models for low precision
