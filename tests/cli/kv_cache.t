Models whose cache was quantized run in eval and in qonnx-llm: prompt first, then token by token, the codes handed on. The bundled decoders know 48 tokens;
the tokenizer made here gives each a letter.

  $ awk 'BEGIN { printf "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},"
  >   printf "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{"
  >   for (i = 0; i < 48; i++) printf "%s\"%c\":%d", i ? "," : "", i < 26 ? 65 + i : 71 + i, i
  >   print "}}}" }' > tokenizer.json
  $ for i in 1 2 3 4; do printf 'TheKingSaidToTheKingAndHeRodeAwayABCDEFGHIJKLMNOPQRSTUVabcdefgh'; done > text.txt
  $ try() { # GRAPH PASSES: the distance from the float model; the text, which must be the float model's
  >   qonnx quantize $DATA/cache/$1.onnx -o q.onnx --force --passes "$2" --calib $DATA/cache/ids.npz -q &&
  >   qonnx eval q.onnx --ref $DATA/cache/$1.onnx --text text.txt --tokenizer tokenizer.json --seq-len 24 -q | grep KL &&
  >   qonnx-llm $DATA/cache/$1.onnx --prompt TheKing --tokens 16 --quiet --tokenizer tokenizer.json > float.txt &&
  >   qonnx-llm q.onnx --prompt TheKing --tokens 16 --quiet > q.txt && cmp float.txt q.txt && wc -m < q.txt
  > }
  $ try concat "kv-cache(int8)"
  KL divergence   0\.0000[1-9].* (re)
  24
  $ try concat "kv-cache(fp8)"
  KL divergence   0\.000[1-9].* (re)
  24
  $ try concat "kv-cache(int8),int8"
  KL divergence   0\.000[1-9].* (re)
  24
  $ try gqa "kv-cache(int8)"
  KL divergence   0\.0000[1-9].* (re)
  24
  $ try gqa "kv-cache(fp8)"
  KL divergence   0\.000[1-9].* (re)
  24
  $ quantize() { qonnx quantize $DATA/cache/$1.onnx -o q.onnx --force --passes "$2" --calib $DATA/cache/ids.npz -q; }
  $ quantize gqa "kv-cache(int4)" && qonnx eval q.onnx --ref $DATA/cache/gqa.onnx --text text.txt --tokenizer tokenizer.json --seq-len 24 -q | grep KL
  KL divergence   0\.0[0-9]*.* (re)
  $ qonnx-llm q.onnx --prompt TheKing --tokens 16 --quiet --tokenizer tokenizer.json | wc -m
  24
  $ quantize concat "kv-cache(int4)"
  qonnx quantize: kv-cache(int4): 'past_key_values.0.key' does not go into GroupQueryAttention, which alone reads codes of 4 bits; write int8 or fp8
  [3]
