The whole job: the output's name, what is printed, the files that appear, and every way to use it wrong.

  $ cp $DATA/mlp/* .; qonnx quantize model.onnx --int8 --threads 1
  wrote model.onnx -> model.int8.onnx
    size   37.5 kB -> 11.[0-9] kB \([0-9]+%\).* (re)
    time   .* (re)
    memory [0-9.]+ MB \([0-9.]+ MB expected\) (re)
    samples calib.npz: 14 samples, 2 held out
         2 nodes  int8
    output y +SQNR .* (re)
    furthest from float:
      .* dB  cosine .*  int8  /fc[12]/MatMul (re)
      .* dB  cosine .*  int8  /fc[12]/MatMul (re)
    verdict very close to the float model
    hint   for TensorRT: --target tensorrt, without zero points of 2 activations
    next   qonnx bench model.onnx model.int8.onnx
  $ ls
  calib.npz
  model.int8.onnx
  model.onnx
  $ qonnx quantize model.onnx --int8
  qonnx quantize: 'model.int8.onnx' is there already (--force replaces it)
  [2]
  $ qonnx quantize model.onnx --int8 --force -q --threads 2 -o two.onnx; cmp two.onnx model.int8.onnx && echo same bytes
  same bytes
  $ qonnx quantize model.onnx --int4 -q -o a/b/c.onnx
  qonnx quantize: 'a/b/c.onnx' cannot be written: folder 'a/b': No such file or directory
  [1]
  $ qonnx quantize model.onnx --int4 -q --force -o model.onnx
  qonnx quantize: output 'model.onnx' is the same file as 'model.onnx'; give another name
  [2]
  $ qonnx quantize model.onnx --int4 -q -o o.onnx --report model.onnx; qonnx quantize model.onnx --int8 -q -o o.onnx --save-stats ./model.onnx
  qonnx quantize: output 'model.onnx' is the same file as 'model.onnx'; give another name
  qonnx quantize: output './model.onnx' is the same file as 'model.onnx'; give another name
  [2]
  $ qonnx quantize model.onnx --int4 -q -o .; qonnx quantize model.onnx --int4 -q -o o.onnx --report r.pdf; ls o.onnx 2>&1
  qonnx quantize: output '.' is a folder; name a file in it
  qonnx quantize: --report 'r.pdf': write FILE.json or FILE.html
  ls: cannot access 'o.onnx': No such file or directory
  [2]
  $ mkfifo pipe; qonnx quantize model.onnx --int4 -q -o pipe; qonnx quantize model.onnx --int4 -q -o pipe --force; ls pipe; rm pipe
  qonnx quantize: output 'pipe' is a device, pipe or socket; give the name of a file
  qonnx quantize: output 'pipe' is a device, pipe or socket; give the name of a file
  pipe
  $ qonnx quantize model.onnx --int4 -q -o -
  qonnx quantize: output '-': nothing is written to standard output; name a file (./- if it shall be called that)
  [2]
  $ cat model.onnx | qonnx quantize /dev/stdin --int4 -q -o o.onnx
  qonnx quantize: model '/dev/stdin' is a fifo, not a file: it is read at many places; save it first
  [1]
  $ qonnx quantize model.onnx --passes "int4 block=32"; qonnx quantize model.onnx --passes "mixed(size=10)"
  qonnx quantize: ',' is expected between passes at 'block=32'; options stand in brackets: int4(option=value)
  qonnx quantize: mixed(size=10): write a share of the input (70%), bytes (300M, 1.2G) or bits per weight (4.5bpw)
  [2]
  $ qonnx quantize model.onnx --int8 -q -o o.onnx --save-stats a/b; qonnx quantize model.onnx --int8 -q -o o.onnx --report a/b; ls o.onnx 2>&1
  qonnx quantize: 'a/b' cannot be written: folder 'a': No such file or directory
  qonnx quantize: 'a/b' cannot be written: folder 'a': No such file or directory
  ls: cannot access 'o.onnx': No such file or directory
  [2]
  $ (ulimit -f 8; qonnx quantize $MODELS/micro-llama/model.onnx --int4 -q -o cut.onnx 2>&1 | grep -o 'File too large'); ls -A | grep -e cut -e '^[.]q'
  File too large
  [1]
  $ qonnx quantize model.onnx
  qonnx quantize: no format is asked for: give --fp8, --int8, --int4, --preset NAME, --passes TEXT, --target-size SIZE, --float fp16 or --like OUT.onnx
  [2]
  $ qonnx quantize model.onnx --float fp8
  qonnx quantize: --float 'fp8': write fp16, bf16 or fp32
  [2]
  $ qonnx quantize model.onnx --float fp16 -o h.onnx -q
  $ qonnx quantize h.onnx --float fp16 -o hh.onnx; qonnx quantize model.onnx --float fp32 -o hh.onnx
  qonnx quantize: pass fp16: nothing in the model can change to fp16; leave it out
  qonnx quantize: pass fp32: nothing in the model is bfloat16, float16 or float64; leave it out
  [3]
  $ qonnx quantize h.onnx --float fp16 --int4 -o hh.onnx -q && qonnx quantize model.onnx --float fp32 --int4 --dry-run 2>&1 | head -n 1
  nothing in the model is bfloat16, float16 or float64: pass fp32 changes nothing
  $ qonnx quantize h.onnx --int8 --calib calib.npz -o hi.onnx | grep 'hint.*float16'; qonnx quantize h.onnx --int8 --float fp32 --calib calib.npz --target ort -f -o hi.onnx | grep 'hint.*float16'
    hint   ONNX Runtime's CPU has no INT8 operator of float16: --float fp32 runs 4 times as fast there
  [1]
  $ qonnx quantize h.onnx --passes int8-weights,fp16
  qonnx quantize: fp16 changes float weights and must come before the format: write "fp16,int8-weights"
  [2]
  $ qonnx quantize model.onnx few.onnx --fp8 --samples 2 2>/dev/null | tail -n 3
    verdict close to the float model
    hint   calibrated on 2 samples; 32 show more of what the model will meet (--calib FILE.npz|DIR)
    next   qonnx bench model.onnx few.onnx
  $ qonnx quantize model.onnx made-up.onnx --fp8 --random 9 --no-verify 2>/dev/null | tail -n 2
    hint   calibrated on made-up samples; real ones give other ranges (--calib FILE.npz|DIR)
    next   qonnx compare model.onnx made-up.onnx
  $ qonnx quantize model.onnx --fp8 --random 9 --dry-run 2>/dev/null | grep -oE "work +about a second, when nothing else runs"
  work   about a second, when nothing else runs
  $ qonnx quantize model.onnx --passes "svdquant,gptq,int4" --sequential --calib calib.npz --dry-run 2>/dev/null | grep -o "not counted.*"
  not counted: svdquant, sequential
  $ qonnx quantize model.onnx --passes int8-weights --dry-run 2>/dev/null | grep -c "work  "
  0
  [1]
  $ qonnx quantize $MODELS/micro-sdxl/unet/model.onnx --fp8 --random 9 --dry-run 2>/dev/null | tail -n 1
    hint   a diffusion UNet: --preset sdxl-fp8 places formats as its published recipes do
  $ qonnx quantize $MODELS/sd3-mmdit-dynamo/model.onnx --int8 --random 9 --dry-run 2>/dev/null | grep preset
    hint   a diffusion transformer: --preset dit-int8 places formats as its published recipes do
  $ qonnx quantize model.onnx --int4 --calib calib.npz --dry-run 2>/dev/null | grep -E "time  |work  |samples"
    time   .*read [0-9.]+, plan [0-9.]+, rewrite [0-9.]+, size.* (re)
    work   about a second, when nothing else runs
    samples calib.npz: 14 samples, 2 held out
  $ text="--text $MODELS/micro-llama/calib.txt --tokenizer $MODELS/micro-llama/tokenizer.json"; cp $MODELS/micro-llama/model.onnx llm.onnx
  $ for p in --int4 "--passes bias-correction,gptq(bits=4),int4"; do qonnx quantize llm.onnx $p $text --dry-run 2>/dev/null | grep memory; done | uniq -c | grep -c "  2 "
  1
  $ qonnx quantize llm.onnx --int4 --no-verify --dry-run 2>/dev/null | grep -E "size  |kept|node.*  int8-weights"
    size   11.3 MB -> 2.2[0-9] MB .* (re)
         2 nodes  int8-weights
  $ qonnx quantize llm.onnx --int4 --no-verify --tables float --dry-run 2>/dev/null | grep -E "size  |kept|node.*  int8-weights"
    size   11.3 MB -> 4.[56][0-9] MB .* (re)
         2 left in float: kept by default (embedding; language model head), 3.15 MB
  $ qonnx quantize llm.onnx --int4 --no-verify --target tensorrt --dry-run 2>/dev/null | grep -E "size  |kept|node.*  int8-weights"
    size   11.3 MB -> 4.6[0-9] MB .* (re)
         2 left in float: kept by default (embedding; language model head), 3.15 MB
  $ qonnx quantize llm.onnx --int4 --no-verify --set "embed*=float" --dry-run 2>/dev/null | grep -E "size  |excluded|node.*  int8-weights"
    size   11.3 MB -> 3.3[0-9] MB .* (re)
         1 node   int8-weights
         1 left in float: excluded (--set embed*=float), 1.57 MB
  $ qonnx quantize model.onnx --int4 --no-verify --tables int4 --dry-run
  qonnx quantize: --tables 'int4': write auto, int8 or float
  [2]

Without samples a transformer of tokens is rounded on made-up ones; a sample or two verify; the format alone takes none. Another model's samples are left.
  $ mkdir own; mv llm.onnx own; run() { qonnx quantize own/llm.onnx "$@" --force -o o.onnx 2>&1 | grep -E "^  samples|warning"; }; run --int4
    samples random, seed 0: 4 samples (not real data)
  $ qonnx inspect o.onnx --json | grep -oE '"qonnx.(passes": "[a-z0-9-]*|seed.*|samples.*[0-9] samples)'
  "qonnx.passes": "bias-correction
  "qonnx.samples": "random, seed 0: 4 samples
  "qonnx.seed": "0"
  $ cp $MODELS/micro-llama/sample.npz own; run --int4; run --int4 --dry-run; run --int4 --no-verify
    samples random, seed 0: 4 samples (not real data); verified on own/sample.npz: 1 sample
    samples random, seed 0: 4 samples (not real data); verified on own/sample.npz: 1 sample
    samples random, seed 0: 4 samples (not real data)
  $ run --int4; qonnx quantize own/llm.onnx --like o.onnx -q -o again3.onnx && cmp o.onnx again3.onnx && echo same bytes
    samples random, seed 0: 4 samples (not real data); verified on own/sample.npz: 1 sample
  same bytes
  $ run --passes int4; run --int4 --random 2; cp calib.npz own; run --int4
    samples own/sample.npz: 1 sample; they only verify
    samples random, seed 0: 2 samples (not real data)
  warning: the samples beside the model are not used: own/calib.npz has no array 'input_ids'. .* (re)
    samples random, seed 0: 4 samples (not real data)
  $ qonnx quantize model.onnx second.onnx --int4 -q && ls second.onnx
  second.onnx
  $ qonnx quantize model.onnx second.onnx --int4 -o third.onnx
  qonnx quantize: two outputs are named, 'second.onnx' and 'third.onnx': give one
  [2]
  $ qonnx quantize model.onnx Q4_K_M
  qonnx quantize: 'Q4_K_M' is no output (OUT.onnx); formats are options, here: --preset int4-mix
  [2]
  $ qonnx quantize model.onnx int9
  qonnx quantize: 'int9' is no output (OUT.onnx); formats are options: --fp8, --int8, --int4, --passes TEXT
  [2]
  $ qonnx quantize model.onnx --int8 --nodes_to_exclude fc1
  qonnx quantize: unknown option '--nodes_to_exclude'; here: --exclude PATTERN (may be repeated)
  [2]
  $ qonnx quantize model.onnx --nvfp4
  qonnx quantize: unknown option '--nvfp4'; here: --passes nvfp4
  [2]
  $ qonnx quantize model.onnx --preset int3
  qonnx quantize: --preset: there is no preset 'int3'; did you mean int8[?] there are: fp8, int8, int4, .* (re)
  [2]
  $ qonnx quantize model.onnx --int8 --int4
  qonnx quantize: two formats are asked for, 'smoothquant,bias-correction,int8' and 'bias-correction?,gptq?(bits=4),int4': give one, and --set "PATTERN=FORMAT" for some nodes
  [2]
  $ qonnx quantize model.onnx --passes "int8,awq"
  qonnx quantize: awq changes float weights and must come before the format: write "awq,int8"
  [2]
  $ qonnx quantize model.onnx --passes "int8(nosuch=1)"
  qonnx quantize: pass int8 has no option 'nosuch'; it has: act, percentile, .* (re)
  [2]
  $ qonnx quantize model.onnx --passes "int4(block=4)"
  qonnx quantize: int4(block=4): not in [8, 65536]
  [2]
  $ qonnx quantize model.onnx --int4 --exclude "fc9*"
  qonnx quantize: --exclude 'fc9*' matches no node or weight of the model; did you mean fc1? (2 linear operators; qonnx inspect --nodes lists names)
  [2]
  $ qonnx quantize model.onnx --int4 --exclude "/(/"
  qonnx quantize: pattern '/(/': missing closing parenthesis (at character 2)
  [2]
  $ qonnx quantize model.onnx --int4 --set "fc1*"
  qonnx quantize: --set 'fc1*': write PATTERN=FORMAT, as in --set "lm_head*=int8"
  [2]
  $ qonnx quantize model.onnx --int4 --set "fc1*=int5"
  qonnx quantize: --set 'fc1[*]=int5': there is no pass 'int5'; did you mean int8[?] there are: int8, .* (re)
  [2]
  $ for f in awq awq,int8 int4-mix; do qonnx quantize model.onnx --int4 --set "fc1*=$f"; done
  qonnx quantize: --set 'fc1*=awq': awq prepares weights and is no format: write it into --passes, before the format
  qonnx quantize: --set 'fc1*=awq,int8': awq prepares weights and is no format: write it into --passes, before the format
  qonnx quantize: --set 'fc1*=int4-mix': write one format (int8, fp8, int4, nvfp4, float ...)
  [2]
  $ qonnx quantize model.onnx --int4 --set "Relu=float"
  qonnx quantize: --set 'Relu' matches no linear operator of the model (2 linear operators; qonnx inspect --nodes lists names)
  [2]
  $ qonnx quantize model.onnx --int4 --exclude "*"
  qonnx quantize: no node was quantized: of 2 linear operators 2 excluded
  [3]
  $ qonnx quantize model.onnx --int4 --target rknn
  qonnx quantize: --target 'rknn': write one of generic|ort|tensorrt|openvino
  [2]
  $ mkdir alone; cp model.onnx alone/; qonnx quantize alone/model.onnx --fp8
  qonnx quantize: this format needs samples to calibrate with, and none are beside the model (sample*.npz, calib*.npz). Give one of:
    --calib FILE.npz       arrays named like the inputs: x f32[batch,64]
    --random 4             made-up samples: for a try only, quality will suffer
    --passes int8-dynamic  INT8 whose activations are measured when the model runs: needs no samples
    --int4, --passes int8-weights, --passes fp8-weights     store weights in few bits, need no samples
  [2]
  $ ls alone
  model.onnx
  $ qonnx quantize alone/model.onnx --fp8 --random 2 --no-verify -q && qonnx inspect alone/model.fp8.onnx --json | grep -E '"qonnx.(samples|seed|target)'
      "qonnx.target": "generic",
      "qonnx.samples": "random, seed 0: 2 samples (not real data)",
      "qonnx.seed": "0"
  $ qonnx quantize model.int8.onnx --int4
  qonnx quantize: the model is quantized already: 6 nodes such as 'fc2.weight_DequantizeLinear' (DequantizeLinear); quantize the float model that it was made of, or with --allow-requantize what is still float in this one
  [3]
  $ qonnx quantize alone/model.onnx --int4 -q -o plain.onnx && qonnx inspect plain.onnx --json | grep -o '"qonnx.passes": "[a-z0-9]*'
  "qonnx.passes": "int4
  $ qonnx quantize model.onnx --int4 --calib calib.npz -q -o solved.onnx && qonnx inspect solved.onnx --json | grep -o '"qonnx.passes": "[a-z0-9-]*,[a-z0-9]*(\|),[a-z0-9]*('
  "qonnx.passes": "bias-correction,gptq(
  ),int4(
  $ cmp -s plain.onnx solved.onnx || echo rounded in another way
  rounded in another way
  $ qonnx quantize model.onnx --int4 --min-sqnr 100 -o gate.onnx -q
  qonnx quantize: output 'y' has .* dB, --min-sqnr asks for 100.00 dB (re)
  [4]
  $ qonnx quantize model.onnx --int4 --min-sqnr 5 -o gate2.onnx -q
  $ qonnx quantize model.onnx --int4 --set "fc1*=int8-weights" -n --explain | sed 's/  time.*/  time/'
  opset raised from 19 to 21: INT4 needs it
  int8-weights /fc1/MatMul (MatMul)
  float      /fc1/Add (Add): not a linear operator
  float      /Relu (Relu): not a linear operator
  int4 block 32 /fc2/MatMul (MatMul)
  weight of      N x K  format          before    after
  /fc2/MatMul  32 x 96  int4 block 32  12.3 kB  1.73 kB
  /fc1/MatMul  96 x 64  int8-weights   24.6 kB  6.53 kB
  plan: model.onnx -> model.int4.onnx (nothing is written)
    size   37.5 kB -> 9.[89][0-9]* kB \(2[67]%\).* (re)
    time
    work   about a second, when nothing else runs
    memory about [12][0-9]\.[0-9] MB for the work (re)
    samples calib.npz: 14 samples, 2 held out
         1 node   int8-weights
         1 node   int4 block 32
    hint   for TensorRT: --target tensorrt, without negative scales of 1 weight
  $ printf '# layers\n\n fc1*=int8-weights \r\nfc2*=float' > list; qonnx quantize model.onnx --int4 --set @list -q -o listed.onnx; qonnx quantize model.onnx --int4 --set "fc1*=int8-weights" --set "fc2*=float" -q -o named.onnx; cmp listed.onnx named.onnx && echo same bytes
  same bytes
  $ rm list; qonnx quantize model.onnx --like listed.onnx -q -o again2.onnx && cmp again2.onnx listed.onnx && echo same bytes
  same bytes
  $ printf 'fc1*=int8-weights\nfc2*\n' > list; qonnx quantize model.onnx --int4 --set @list
  qonnx quantize: 'list', line 2: --set 'fc2*': write PATTERN=FORMAT, as in --set "lm_head*=int8"
  [2]
  $ qonnx quantize model.onnx --int4 --exclude @list.not
  qonnx quantize: --exclude @list.not: 'list.not': cannot open: No such file or directory
  [1]
  $ qonnx quantize model.onnx --int4 --set @model.onnx
  qonnx quantize: --set @model.onnx: a NUL byte at 614: not a text file
  [1]
  $ printf 'fc1*\n' > list; qonnx quantize model.onnx --int4 --exclude @list -n -q --json | grep -c '"reason": "excluded: --exclude fc1\*"'
  1
  $ qonnx quantize model.onnx --tensor-type-file list
  qonnx quantize: unknown option '--tensor-type-file'; here: --set @FILE (lines PATTERN=FORMAT)
  [2]
  $ qonnx quantize $MODELS/llama-dynamo/model.onnx --int4 --dry-run 2>/dev/null | grep -m 1 down_proj
  m\.model\.layers\.0\.mlp\.down_proj \(node_linear_6\) .* int4 block 32 .* (re)
  $ qonnx quantize model.onnx --passes none -q -o same.onnx; cmp same.onnx model.onnx && echo identical
  identical
  $ qonnx quantize model.onnx --int8 --force -q --report r.json --save-stats s.bin && grep -c '"sqnr_db"' r.json && grep -c '"input_sqnr_db"' r.json
  5
  2
  $ qonnx quantize model.onnx --int8 --dry-run -q --set "/fc2*=float" --report r.html > /dev/null && grep -c "<tr>" r.html; grep "fc2" r.html
  4
  <tr><td>/fc2/MatMul</td><td>MatMul</td><td>excluded: --set /fc2*=float</td><td class=n>12.3 kB</td></tr>
  $ qonnx quantize model.onnx --passes "int8(act=percentile)" --load-stats s.bin -q --no-verify -o p.onnx; echo $?
  0
  $ qonnx quantize model.onnx --int8 --load-stats model.onnx -q -o q.onnx
  qonnx quantize: model.onnx: not a statistics file (it does not start with "qonnx-stats ")
  [1]
  $ qonnx quantize model.onnx --int8 --verify nosuch.npz -q -o q.onnx
  qonnx quantize: nosuch.npz: no such file
  [1]
  $ qonnx quantize model.onnx --int4 -n --max-opset 20
  qonnx quantize: pass int4: INT4 needs opset 21, --max-opset allows 20
  [2]
  $ qonnx quantize model.onnx --int4 -n --max-ir 9
  qonnx quantize: pass int4: INT4 needs IR version 10, --max-ir allows 9
  [2]
  $ qonnx quantize model.onnx --int4 -n --max-ir 99
  qonnx quantize: --max-ir: 99 is not in [3, 14]
  [2]
  $ qonnx quantize model.onnx --int8 -q --exclude "fc1*" -o first.onnx; qonnx quantize model.onnx --like first.onnx -q -o again.onnx; cmp first.onnx again.onnx && echo same bytes
  same bytes
  $ qonnx quantize model.onnx --like first.onnx --samples 5 -q -o other.onnx
  warning: like 'first.onnx': samples differ: calib.npz: 14 samples, 2 held out there, calib.npz: [0-9]+ samples, [0-9] held out here (re)
  warning: like 'first.onnx': what calibration found differs \(samples or weights\): [0-9a-f]+ there, [0-9a-f]+ here (re)
  $ qonnx quantize model.onnx --like first.onnx --fp8 -q -o other.onnx --force
  qonnx quantize: 'first.onnx' was made with other passes; leave those out, or --like: .* (re)
  [2]
  $ qonnx quantize model.onnx --like model.onnx -q
  qonnx quantize: 'model.onnx' does not say how it was made \(no qonnx.passes in its metadata\): .* (re)
  [2]
  $ L=$MODELS/micro-llama; how() { qonnx quantize $L/model.onnx "$@" --no-verify -q -f -o t.onnx --report t.json; sed -nE 's/.*"pipeline": "(.*)",/\1/; T; s/\([^)]*\)//gp' t.json; }
  $ text="--text $L/calib.txt --tokenizer $L/tokenizer.json --seq-len 64 --samples 2"; how --int4; how --passes int4; how --int4 $text; how --fp8 $text; how --preset fp8 $text; how --passes fp8 $text
  bias-correction,gptq,int4
  int4
  bias-correction,gptq,int4
  smoothquant,bias-correction,gptq,fp8
  smoothquant,bias-correction,gptq,fp8
  fp8
  $ for t in auto int8; do qonnx quantize $L/model.onnx --int8 $text --tables $t --dry-run 2>/dev/null | grep "hint .*embedding"; done
    hint   1 embedding becomes float16 in the job itself where INT8 costs a decibel (--tables int8: never)
  [1]
  $ for s in "" --sequential; do qonnx quantize $L/model.onnx --int4 $text $s --no-verify -f -o t.onnx 2>/dev/null | grep -c "hint   --sequential"; done
  1
  0
  [1]
  $ for f in "" "--float fp16"; do qonnx quantize model.onnx --target-size 50% --formats int4,int8,fp16 $f --calib calib.npz --no-verify -f -o t.onnx 2>&1 | grep -E "^warn|^ *size"; done
  warning: formats: what stays float keeps the type that it has, f32; for 'fp16' write --float fp16 beside it
    size   37.5 kB -> [0-9.]+ kB \(([2-4][0-9]|50)%\).* (re)
    size   37.5 kB -> [0-9.]+ kB \((3|4)[0-9]%\).* (re)
  $ for p in gptq awq smoothquant sparsity,gptq; do qonnx quantize model.onnx --passes $p; done
  qonnx quantize: gptq prepares weights for a format and does nothing by itself: write "gptq,int8" or another format behind it
  qonnx quantize: awq prepares weights for a format and does nothing by itself: write "awq,int4" or another format behind it
  qonnx quantize: smoothquant prepares weights for a format and does nothing by itself: write "smoothquant,int8" or another format behind it
  qonnx quantize: gptq prepares weights for a format and does nothing by itself: write "gptq,int8" or another format behind it
  [2]
  $ for p in smoothquant,int4 awq,int8 awq,int8-dynamic none,int8; do qonnx quantize model.onnx --passes $p --random 2 -f -o t.onnx; done
  qonnx quantize: smoothquant balances activations that a format quantizes, and int4 leaves them float: write "awq,int4", or "smoothquant,int8"
  qonnx quantize: awq scales weights whose activations stay float, and int8 quantizes those: write "smoothquant,int8", or "awq,int4"
  qonnx quantize: awq scales weights whose activations stay float, and int8-dynamic quantizes those: write "smoothquant,int8-dynamic", or "awq,int4"
  qonnx quantize: none changes nothing: leave it out beside int8
  [2]
  $ for p in gptq,sparsity,int4 gptq,awq,int4 sparsity,smoothquant,int8 gptq,svdquant,int4; do qonnx quantize model.onnx --passes $p; done
  qonnx quantize: sparsity changes weights that gptq has pruned or rounded already: write "sparsity,gptq"
  qonnx quantize: awq changes weights that gptq has pruned or rounded already: write "awq,gptq"
  qonnx quantize: smoothquant changes weights that sparsity has pruned or rounded already: write "smoothquant,sparsity"
  qonnx quantize: svdquant changes weights that gptq has pruned or rounded already: write "svdquant,gptq"
  [2]
  $ for f in int4,int8,float int4+int8+float; do qonnx quantize model.onnx --passes "mixed(formats=$f,size=50%)" --calib calib.npz --no-verify -f -q -o t.onnx; cksum < t.onnx; done | uniq | wc -l
  1

Twenty outputs: the first ones, the worst ones, and how far the rest is. Samples that merely lie beside the model verify.
  $ qonnx quantize $DATA/outputs/model.onnx -o outs.onnx --int4 2>/dev/null | grep -E "^  (output |[0-9]+ more|samples |hint   rounded)"
    samples .*calib.npz: 2 samples, 1 held out (re)
    output y0 +SQNR .* (re)
    output y1 +SQNR .* (re)
    output y2 +SQNR .* (re)
    output y3 +SQNR .* (re)
    output y4 +SQNR .* (re)
    output y5 +SQNR .* (re)
    output y14 +SQNR .* (re)
    output y15 +SQNR .* (re)
    output y16 +SQNR .* (re)
    output y17 +SQNR .* (re)
    output y18 +SQNR .* (re)
    output y19 +SQNR .* (re)
    8 more outputs, each [0-9.]+ dB or better, or all equal (re)
  $ qonnx quantize $DATA/outputs/model.onnx -o outs.onnx --int4 --dry-run 2>/dev/null | grep -E "^  (samples |hint   rounded)"
    samples .*calib.npz: 2 samples, 1 held out (re)

What every executor of a job would say is said once.
  $ qonnx quantize $MODELS/micro-sdxl/unet/model.onnx -o u.onnx --passes int8 --random 2 --no-verify --max-memory 100M 2>&1 | grep -c "read for each use"
  1
