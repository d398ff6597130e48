#!/usr/bin/env python3
"""Writes the standard's node tests (all that the installed onnx package generates) to DIR/node/NAME/{model.onnx, test_data_set_N/*.pb}.

The package once had a command for this; newer releases keep only the generators, so the writing is done here.
usage: generate.py DIR      (onnx >= 1.19 and ml_dtypes from PyPI)"""
import os
import sys

import onnx.backend.test.case.model as model_cases
import onnx.backend.test.case.node as node_cases
from onnx import TensorProto, numpy_helper


def encode(value, info):
    if isinstance(value, TensorProto) or hasattr(value, "SerializeToString"):
        return value
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    if kind == "map_type":
        return numpy_helper.from_dict(value, info.name)
    return numpy_helper.from_array(value, info.name)


def write_values(folder, prefix, values, infos):
    for i, value in enumerate(values):
        with open(os.path.join(folder, f"{prefix}_{i}.pb"), "wb") as f:
            f.write(encode(value, infos[i]).SerializeToString())


def write_case(root, case):
    folder = os.path.join(root, case.kind, case.name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(case.model.SerializeToString())
    with open(os.path.join(folder, "tolerance.txt"), "w") as f:
        f.write(f"{case.rtol} {case.atol}\n")
    for i, (inputs, outputs) in enumerate(case.data_sets):
        data = os.path.join(folder, f"test_data_set_{i}")
        os.makedirs(data, exist_ok=True)
        write_values(data, "input", inputs, case.model.graph.input)
        write_values(data, "output", outputs, case.model.graph.output)


def main():
    root = sys.argv[1]
    failed = 0
    cases = list(node_cases.collect_testcases(None)) + list(model_cases.collect_testcases())
    for case in cases:
        if case.kind == "real" or case.model is None:
            continue
        try:
            write_case(root, case)
        except Exception as e:  # a case that the package itself cannot write down is named, not hidden
            failed += 1
            print(f"not written: {case.name}: {e}")
    print(f"{len(cases)} cases, {failed} not written")


if __name__ == "__main__":
    main()
