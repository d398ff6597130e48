#!/usr/bin/env python3
"""Writes test cases for the operators of com.microsoft to DIR/node/NAME/{model.onnx, tolerance.txt, test_data_set_0/*.pb}, in the form of the
standard's node tests, so that node_cases runs them.

Expected outputs come from ONNX Runtime on the same one-node model; where its CPU provider has no kernel (or refuses a form that the documentation allows),
from the documented definition in numpy (contrib_numpy.py). A case that neither can compute is an error, not a gap.
usage: generate_contrib.py DIR [--list]      (numpy, onnx, onnxruntime from PyPI)"""
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import contrib_cases
import contrib_numpy

MS = "com.microsoft"
ort.set_default_logger_severity(4)


def type_of(a):
    return helper.np_dtype_to_tensor_dtype(a.dtype)


def build(case):
    """Model with one node. Inputs named in case.const are initializers, the others are fed."""
    ins, inits, names = [], [], []
    for i, (name, a) in enumerate(case.inputs):
        names.append(name if a is not None else "")
        if a is None:
            continue
        if name in case.const:
            inits.append(numpy_helper.from_array(a, name))
        else:
            ins.append(helper.make_tensor_value_info(name, type_of(a), a.shape))
    while names and not names[-1]:
        names.pop()
    outs = [helper.make_tensor_value_info(o, t, None) for o, t in zip(case.outputs, case.types) if o]
    node = helper.make_node(case.op, names, list(case.outputs), name="n", domain=case.domain, **case.attrs)
    graph = helper.make_graph([node], "g", ins, outs, inits)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="contrib cases")


def feeds(case):
    return {n: a for n, a in case.inputs if a is not None and n not in case.const}


def from_runtime(model, case):
    o = ort.SessionOptions()
    o.intra_op_num_threads = 1  # with more it splits an LSTM's batch, and gives each part codes of its own range
    o.log_severity_level = 4
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    s = ort.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"])
    return s.run(None, feeds(case))


def expected(model, case):
    """Outputs, and who computed them. Both where both can: they must agree, so that the definition is tested too."""
    by_hand = getattr(contrib_numpy, case.op, None) if case.numpy else None
    try:
        mine = [a for a, o in zip(by_hand(case), case.outputs) if o] if by_hand else None
    except NotImplementedError:  # a form that the definition leaves to ONNX Runtime
        mine = None
    try:
        theirs = from_runtime(model, case)
    except Exception as e:
        if mine is None:
            raise RuntimeError(f"no oracle: {str(e)[:300]}")
        return mine, "numpy"
    for a, b in zip(mine or [], theirs):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=case.rtol or 1e-3, atol=case.atol or 1e-5)
    return theirs, "onnxruntime"


def write(root, case):
    folder = os.path.join(root, "node", "test_contrib_" + case.name)
    data = os.path.join(folder, "test_data_set_0")
    os.makedirs(data, exist_ok=True)
    model = build(case)
    outs, oracle = expected(model, case)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    with open(os.path.join(folder, "tolerance.txt"), "w") as f:
        f.write(f"{case.rtol} {case.atol}\n")
    for prefix, values in (("input", list(feeds(case).items())), ("output", [(o, a) for o, a in zip([o for o in case.outputs if o], outs)])):
        for i, (name, a) in enumerate(values):
            with open(os.path.join(data, f"{prefix}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(np.asarray(a, order="C"), name).SerializeToString())
    return oracle


def main():
    root, count, failed = sys.argv[1], {}, 0
    for case in contrib_cases.all_cases():
        try:
            oracle = write(root, case)
            count[oracle] = count.get(oracle, 0) + 1
            if "--list" in sys.argv:
                print(f"{case.name}: {oracle}")
        except Exception as e:
            failed += 1
            print(f"not written: {case.name}: {e}")
    print(f"{sum(count.values())} cases ({', '.join(f'{n} by {k}' for k, n in sorted(count.items()))}), {failed} not written")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
