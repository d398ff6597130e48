"""ov.py --qonnx PATH - the graphs of forms.py with --target openvino, judged by OpenVINO instead of ONNX Runtime.

Each file must load there and compute what our executor computes on it. OpenVINO is told to keep activations float beside stored weights, as the file
says (by default it rounds them to 8 bits). Its FP8 pairs round twice, to float16 and then to E4M3, so one code in three hundred is the neighbour:
those rows are held to less. Prints a line a row; exits 1 when one fails, 77 without OpenVINO."""
import sys

try:
    import openvino
except ImportError:
    print("skipped: no openvino")
    sys.exit(77)
import forms
from interop import run_cases

AS_WRITTEN = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_NUM_THREADS": 2}
FORMATS = {"int8-weights": 36, "fp8-weights": 25, "int8-dynamic": 28, "int4(block=16)": 15, "int4(block=48)": 15, "int4(block=16,zero-point=true)": 15,
           "nvfp4": 12, "mxfp8": 20, "mxfp4": 10, "int8": 28, "fp8": 22}
TWICE_ROUNDED_DB = 35.0
core = openvino.Core()


class Session:
    """Looks like ONNX Runtime's."""
    def __init__(self, path, plain, optimize=True):
        self.model = core.compile_model(str(path), "CPU", AS_WRITTEN)

    def run(self, names, sample):
        known = {n for port in self.model.inputs for n in port.names}
        out = self.model({k: v for k, v in sample.items() if k in known})
        by_name = {n: out[port] for port in self.model.outputs for n in port.names}
        return [by_name[n] for n in names]


def one(qonnx, folder, name, fmt, case):
    forms.EQUAL_DB = TWICE_ROUNDED_DB if fmt == "fp8" else 55.0
    return forms.one(qonnx, folder, name, fmt, "openvino", case)


if __name__ == "__main__":
    forms.session, forms.FORMATS = Session, FORMATS
    sys.exit(run_cases(((c[0], f, c) for c in forms.cases() if not c[0].startswith("mixture") for f in FORMATS), one))  # it has no MoE
