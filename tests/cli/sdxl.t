The sample that draws, on a tiny pipeline of random weights: what it writes, what it compares, and what it says to bad input.

  $ P=$DATA/pipelines/sdxl; M=$MODELS/micro-sdxl
  $ draw() { qonnx-sdxl $P --tokenizer $M/tokenizer --tokenizer-2 $M/tokenizer_2 --steps 2 -q "$@"; }
  $ draw -p "a red circle" --sheet sheet.png --steps-preview prev --json -o a.png | grep -o '"look": "[a-z]*"'
  "look": "ok"
  $ ls . prev
  .:
  a.png
  prev
  sheet.png
  
  prev:
  000-step-001.png
  000-step-002.png
  $ draw -p "a red circle" -o b.png >/dev/null; cmp a.png b.png; grep -ac "Seed: 0, Size: 64x64" b.png
  1

A quantized UNet against the folder's own: the report, the gate.

  $ qonnx quantize $P/unet/model.onnx --passes int4 -o u.onnx -q
  $ draw --unet u.onnx --ref -p "a red circle" --report rep --min-psnr 90
  qonnx-sdxl: mean PSNR is 26.57 dB, --min-psnr asks for 90
    0  PSNR  26.57 dB  SSIM 0.9479  MS-SSIM 0.9568  GMSD 0.0512  latent  14.95 dB  ok
  mean PSNR 26.57 dB, worst 26.57 dB, SSIM 0.9479, MS-SSIM 0.9568, GMSD 0.0512, 0 of 1 pictures look wrong
  rep/report.html
  [4]
  $ ls rep; grep -o '"verdict": "[a-z]*"' rep/report.json
  diff-000.png
  drift.png
  ref-000.png
  report.html
  report.json
  sheet.png
  test-000.png
  "verdict": "ok"

A folder lacks a part; a tokenizer lacks its merges; a prompt is too long.

  $ qonnx-sdxl $P -p a
  qonnx-sdxl: '$SOURCE/tests/data/pipelines/sdxl' lacks tokenizer/ (or --tokenizer DIR), tokenizer_2/ (or --tokenizer-2 DIR); found: clip-skip.npz, model_index.json, recorded.npz, scheduler, text_encoder, text_encoder_2, turbo.npz, unet, vae_decoder, vae_encoder
  [1]
  $ mkdir -p dit/transformer dit/vae_decoder; qonnx-sdxl dit -p a
  qonnx-sdxl: 'dit' lacks unet/model.onnx, vae_decoder/model.onnx, text_encoder/model.onnx or text_encoder_2/model.onnx; found: transformer, vae_decoder; a pipeline with a transformer is not drawn here: quantize its model alone, qonnx quantize MODEL --preset dit-int8 --calib FOLDER, with an .npz of its inputs for each call
  [1]
  $ rm -r dit; mkdir tok; cp $M/tokenizer/vocab.json tok; draw --tokenizer tok -p a
  qonnx-sdxl: tokenizer 'tok': expected vocab.json and merges.txt, or tokenizer.json; found vocab.json only
  [1]
  $ draw -p "$(printf 'red %.0s' $(seq 80))" -o c.png >/dev/null
  note: prompt 'red red red red red red red red red red red red red red red ...' is too long: its last 5 tokens are not seen

Schedulers and sizes that are not there; networks in the wrong place.

  $ draw -p a --scheduler magic
  qonnx-sdxl: scheduler 'magic' is not known; known are: euler, euler-karras, euler-trailing, lightning, euler-a, turbo, ddim, ddim-trailing, dpmpp-2m, dpmpp-2m-karras, lcm, pndm
  [2]
  $ draw -p a --size 60x64
  qonnx-sdxl: size 60 x 64: both must be multiples of 8, from 8 to 16384
  [2]
  $ draw -p a --size 72x72
  qonnx-sdxl: 72 x 72 pixels, where this UNet's levels want multiples of 16: unet: node '/inner/up_blocks.1/Concat' (Concat): input 1 is f32[2,4,9,9], input 0 is f32[2,8,10,10] (axis 1)
  [1]
  $ draw -p a --unet $P/vae_decoder/model.onnx
  qonnx-sdxl: unet: nothing matches 'timestep' (rank 0, or an alias of it); the graph has: latent_sample f32[?,4,?,?]
  [3]
  $ draw -p a --vae $P/unet/model.onnx
  qonnx-sdxl: VAE decoder: input 'timestep' is not one that this pipeline knows how to feed; the graph has: sample f32[?,4,?,?], timestep f32[], encoder_hidden_states f32[?,77,24], text_embeds f32[?,16], time_ids f32[?,6]
  [3]
  $ draw -p a --init none.png
  qonnx-sdxl: 'none.png': No such file or directory
  [1]
  $ draw -p a -o no/such/folder/x.png
  qonnx-sdxl: cannot write 'no/such/folder/x.png': folder 'no/such/folder': No such file or directory
  [1]

A UNet made for inpainting: from text alone, with a mask, quantized by the same command; what it lacks is said.

  $ I=$DATA/pipelines/inpaint; paint() { qonnx-sdxl $I --tokenizer $M/tokenizer --steps 2 -q "$@"; }
  $ paint -p "a red circle" -o i.png | cut -d' ' -f1
  i.png
  $ paint -p a --init $I/init.png
  qonnx-sdxl: this UNet inpaints: --init wants --mask FILE.png, white where the picture shall be drawn anew
  [2]
  $ paint -p a --mask $I/mask.png
  qonnx-sdxl: --mask does nothing without --init FILE
  [2]
  $ paint -p a --init $I/init.png --mask none.png
  qonnx-sdxl: 'none.png': No such file or directory
  [1]
  $ paint -p a --init $I/init.png --mask $I/mask.png --refiner $P
  qonnx-sdxl: --mask and --refiner: a refiner would draw over what the mask keeps; refine the picture afterwards with --init
  [2]
  $ draw -p a --refiner $I
  qonnx-sdxl: refiner: unet '$SOURCE/tests/data/pipelines/inpaint/unet/model.onnx' is made for inpainting, which a refiner does not do
  [3]
  $ printf 'a red circle\n' > one.txt; paint --quantize int8 --calibrate one.txt --init $I/init.png --mask $I/mask.png -o i8
  i8
  $ qonnx-sdxl i8 --tokenizer $M/tokenizer --steps 2 -q --ref-dir $I -p a --init $I/init.png --mask $I/mask.png --min-psnr 25 | grep -o '0 of 1 pictures look wrong'
  0 of 1 pictures look wrong
  $ rm -r i8 i.png one.txt

Options that do nothing alone are not passed over in silence.

  $ draw -p a --report rep
  qonnx-sdxl: --report does nothing without --ref or --ref-dir DIR
  [2]
  $ draw -p a --strength 0.5
  qonnx-sdxl: --strength does nothing without --init FILE
  [2]
  $ draw -p a --level 3
  qonnx-sdxl: --level does nothing without --quantize FORMAT
  [2]

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
  qonnx-sdxl: quantize: --float 'fp17': write fp16 or bf16
  [2]

Statistics of the pipeline hold what the passes will ask for, also what they only want when there is data: nothing is lacking later.

  $ printf 'a red circle\n' > one.txt; draw --calibrate one.txt --passes "svdquant(rank=4),int4(block=32)" --stats s.stats | grep -o '^s.stats'
  s.stats
  $ qonnx quantize $P/unet/model.onnx --passes "svdquant(rank=4),int4(block=32)" --load-stats s.stats --no-verify -o s.onnx -q; rm s.stats s.onnx

What --calibrate collects unasked serves every level and every way of choosing ranges, the products of attention included.

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
  qonnx quantize: --level: no pass of 'int4(block=32,zero-point=false,scale=search,negative-scale=true,unblocked=int8)' has an option 'level'
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
  qonnx-sdxl: calibration: there is no pass 'nonsense'; there are: int8, int8-dynamic, fp8, int4, int8-weights, fp8-weights, nvfp4, mxfp8, mxfp4, smoothquant, awq, gptq, sparsity, svdquant, rotate, equalize, bias-correction, kv-cache, io, io-half, mixed, role-mix, fp16, bf16, fp16-safe, merge-shapes, none
  [2]
  $ draw --quantize int8 --calibrate $M/calib.txt -o $P/inside
  qonnx-sdxl: --out '$SOURCE/tests/data/pipelines/sdxl/inside' lies inside '$SOURCE/tests/data/pipelines/sdxl'
  [2]
  $ ls
  a.png
  b.png
  c.png
  prev
  rep
  sheet.png
  tok
  u.onnx
