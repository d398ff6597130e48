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
  qonnx-sdxl: mean PSNR is 2[0-9.]+ dB, --min-psnr asks for 90 (re)
    0  PSNR  2[0-9.]+ dB  SSIM 0.9[0-9]+  MS-SSIM 0.9[0-9]+  GMSD 0.0[0-9]+  latent  1[0-9.]+ dB  ok (re)
  mean PSNR 2[0-9.]+ dB, worst 2[0-9.]+ dB, SSIM 0.9[0-9]+, MS-SSIM 0.9[0-9]+, GMSD 0.0[0-9]+, 0 of 1 pictures look wrong (re)
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

Help fits a terminal.

  $ qonnx-sdxl --help | awk 'length > 80'
