The sample that talks: greedy text is the same every time, sampled text is the same for the same seed.

  $ qonnx-llm $MODELS/micro-llama/model.onnx --prompt "The king said to the" --tokens 8 --quiet
  The king said to the king, I have given thee a king
  $ qonnx-llm --help | head -1
  usage: qonnx-llm MODEL.onnx [--prompt TEXT] [options]
  $ qonnx-llm $MODELS/micro-llama/model.onnx --prompt "And it" --tokens 6 --temperature 1 --seed 5 --quiet > a; qonnx-llm $MODELS/micro-llama/model.onnx --prompt "And it" --tokens 6 --temperature 1 --seed 5 --quiet | cmp - a
  $ qonnx-llm $MODELS/micro-llama/model.onnx --prompt "" --quiet
  qonnx-llm: the prompt is empty
  [2]

The tokenizer lies beside the model or one folder above; where it is in neither place, the option for it is named.

  $ mkdir -p up/m && cp $MODELS/micro-llama/model.onnx up/m/ && qonnx-llm up/m/model.onnx --prompt "And it" --tokens 1 --quiet
  qonnx-llm: no tokenizer.json beside the model or one folder above: name it by --tokenizer FILE
  [1]
  $ cp $MODELS/micro-llama/tokenizer.json up/ && qonnx-llm up/m/model.onnx --prompt "And it" --tokens 1 --quiet
  And it came
