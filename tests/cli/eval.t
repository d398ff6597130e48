Perplexity of the bundled model, and its distance from itself. (18.0610 is what ONNX Runtime computes for the same windows.)

  $ L=$MODELS/micro-llama
  $ qonnx eval $L/model.onnx --text $L/heldout.txt --tokenizer $L/tokenizer.json --samples 2 --quiet
  tokens          512 in 2 windows
  perplexity      18.061[01] (re)
  top-1 accuracy  [0-9.]+ % (re)
  speed           [0-9]+ tokens/s (re)
  $ qonnx eval $L/model.onnx --ref $L/model.onnx --text $L/heldout.txt --tokenizer $L/tokenizer.json --samples 1 --json --quiet | grep -E 'mean_kl|agreement'
    "mean_kl": 0,
    "top1_agreement": 1,

What is missing is said.

  $ qonnx eval $L/model.onnx
  qonnx eval: nothing to evaluate on: give --text FILE --tokenizer tokenizer.json
  [2]
  $ mkdir -p repo/onnx alone; cp $L/model.onnx alone; cp $L/model.onnx repo/onnx; qonnx eval alone/model.onnx --text $L/heldout.txt
  qonnx eval: --text $SOURCE/samples/models/micro-llama/heldout.txt needs --tokenizer tokenizer.json: none lies beside the model or in the folder above
  [2]

The tokenizer is found beside the model, beside the reference, or in the folder above, where repositories keep it.

  $ qonnx eval alone/model.onnx --ref $L/model.onnx --text $L/heldout.txt --samples 2 -q | head -2
  tokens          512 in 2 windows
  perplexity      18.0610
  $ cp $L/tokenizer.json repo; qonnx eval repo/onnx/model.onnx --text $L/heldout.txt --samples 2 -q | head -2
  tokens          512 in 2 windows
  perplexity      18.0610
  $ printf 'a\377b' > bad.txt; qonnx eval $L/model.onnx --text bad.txt --tokenizer $L/tokenizer.json
  qonnx eval: bad.txt: text is not UTF-8: byte 0xff at 1 of 3
  [1]
