The sample that quantizes a whole pipeline folder: its settings, its statistics, and that nothing is left half written.

  $ P=$DATA/pipelines/sdxl; M=$MODELS/micro-sdxl
  $ draw() { qonnx-sdxl $P --tokenizer $M/tokenizer --tokenizer-2 $M/tokenizer_2 --steps 2 -q "$@"; }

Several settings for one folder: both reach the job (a pattern that matches nothing is an error).

  $ draw --quantize int8-weights --set "up_blocks.1.*=float" --set "down_blocks.0.*=float" --exclude "*conv_shortcut*" --exclude "mid_block.*" --json -o q8 > report.json; grep -o '"nodes_quantized": *[0-9]*' report.json; rm -r q8 report.json
  "nodes_quantized": 43
  $ draw --quantize int8-weights --set "up_blocks.1.*=float" --set "nowhere*=float" -o q8
  qonnx-sdxl: quantize: --set 'nowhere*' matches no node or weight of the model; did you mean Where? (101 linear operators; qonnx inspect --nodes lists names)
  [2]

--float: the UNet that is calibrated is the one in float16; it is gone afterwards.

  $ printf 'a red circle\n' > one.txt; draw --quantize int8 --float fp16 --calibrate one.txt -o q8 >/dev/null 2>&1; qonnx inspect q8/unet/model.onnx | grep -o ' f16 '; rm -r q8 one.txt; ls | grep half
   f16 
  [1]
  $ draw --quantize int8-weights --float fp17 -o q8
  qonnx-sdxl: quantize: --float 'fp17': write fp16, bf16 or fp32
  [2]

Statistics of the pipeline hold what the passes will ask for, also what they only want when there is data: nothing is lacking later.

  $ printf 'a red circle\n' > one.txt; draw --calibrate one.txt --passes "svdquant(rank=4),int4(block=32)" --stats s.stats | grep -o '^s.stats'
  s.stats
  $ qonnx quantize $P/unet/model.onnx --passes "svdquant(rank=4),int4(block=32)" --load-stats s.stats --no-verify -o s.onnx -q; rm s.stats s.onnx

What --calibrate collects unasked serves every level and every way of choosing ranges, the products of attention included.

  $ timeout -s KILL 300 qonnx-sdxl $M --calibrate one.txt --steps 1 --stats g.stats -q --passes "merge-shapes,sparsity,int8(rest=weights)" >/dev/null; ls g.stats
  g.stats

Passes that put channels in another order before the sweep know the statistics that were collected for them.

  $ qonnx quantize $M/unet/model.onnx --passes "merge-shapes,sparsity,int8(rest=weights)" --load-stats g.stats --no-verify -o s.onnx -q && rm s.onnx g.stats
  $ qonnx-sdxl $M --calibrate one.txt --steps 2 --stats s.stats -q >/dev/null
  $ qonnx-sdxl $M --calibrate one.txt --steps 1 --stats s2.stats 2>&1 | grep -o "^note: these are ranges alone"; rm s2.stats
  note: these are ranges alone
  $ for act in mse steps-mean-max; do qonnx quantize $M/unet/model.onnx --passes "fp8(level=4,act=$act)" --load-stats s.stats --no-verify -o s.onnx -f -q || echo "$act failed"; done
  $ qonnx quantize $M/unet/model.onnx --preset sdxl-int8 --load-stats s.stats --no-verify -o s.onnx -f -q 2>&1 | grep -o "lacks what these passes ask for"
  lacks what these passes ask for

Those of a preset serve its lower levels as well; samples beside statistics only verify.

  $ qonnx-sdxl $M --calibrate one.txt --steps 2 --passes sdxl-int8 --stats s.stats -q >/dev/null
  $ for level in 1 2 2.5 3; do qonnx quantize $M/unet/model.onnx --preset sdxl-int8 --level $level --load-stats s.stats --no-verify -o s.onnx -f -q 2>&1 | grep -v "opset raised"; done
  [1]
  $ qonnx quantize $M/unet/model.onnx --preset sdxl-int8 --load-stats s.stats -o s.onnx -f 2>/dev/null | grep -c "calibrated on"
  0
  [1]
  $ for level in 1 2 2.5 3 4; do qonnx quantize $M/unet/model.onnx --preset sdxl-int8 --level $level --dry-run 2>/dev/null | grep -oE "[0-9]+ nodes  int8$"; done
  27 nodes  int8
  61 nodes  int8
  163 nodes  int8
  208 nodes  int8
  276 nodes  int8

A dry run tells of the memory of the sweep that it leaves out.

  $ told() { qonnx quantize $M/unet/model.onnx --preset sdxl-int8 --no-verify "$@" 2>&1 | grep -oE "memory:? about [0-9.]+ MB" | grep -oE "[0-9.]+" | sort -u; }
  $ [ "$(told --dry-run)" = "$(told -v -o s.onnx -f)" ] && echo the same
  the same
  $ qonnx quantize $P/unet/model.onnx --preset sdxl-int8 --level 7 -o s.onnx
  qonnx quantize: --level: int8(level=7): not in [0, 4]
  [2]
  $ qonnx quantize $P/unet/model.onnx --passes int4 --level 3 -o s.onnx
  qonnx quantize: --level: no pass of 'int4.*' has an option 'level' (re)
  [2]
  $ rm one.txt s.stats s.onnx

Nothing half written: no picture, no folder.

  $ draw --quantize int8 -o q
  qonnx-sdxl: --quantize int8 needs statistics: --calibrate FILE runs the pipeline on the prompts of a file ('builtin': 64 that come along), --stats FILE takes earlier ones
  [2]
  $ draw --quantize int8 --calibrate none.txt -o q
  qonnx-sdxl: cannot open 'none.txt': No such file or directory
  [1]
  $ draw --quantize nonsense --calibrate $M/calib.txt -o q
  qonnx-sdxl: calibration: there is no pass 'nonsense'; there are: int8, int8-dynamic, fp8, .* (re)
  [2]
  $ draw --quantize int8 --calibrate $M/calib.txt -o $P/inside
  qonnx-sdxl: --out '$SOURCE/tests/data/pipelines/sdxl/inside' lies inside '$SOURCE/tests/data/pipelines/sdxl'
  [2]
  $ ls
