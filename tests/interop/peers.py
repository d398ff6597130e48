"""peers.py --qonnx PATH [--modelopt PYTHON] [--json FILE] FOLDER... - one table: --int8, --fp8 and --int4 beside the best of the peers' quantizers.

Models and samples lie as zoo.py wants them (sample*.npz calibrate every tool, heldout*.npz judge). Peers are ONNX Runtime's static quantizer (symmetric, and with
zero points, its default), its MatMulNBitsQuantizer, and, under the interpreter PYTHON that has nvidia-modelopt[onnx], Model Optimizer (INT8 by max and entropy, FP8,
INT4 by rtn and awq). All files are run by ONNX Runtime: at its default settings, or without optimisations when it refuses its own peers' form; FP8 always
without, as its default optimisations (1.32) compute FP8 pairs wrongly in some networks. Each cell is the
mean SQNR of the outputs in dB with the size of the file as a part of the float one. A cell where a peer is ahead by more than 0.5 dB is marked '!'; one where
that peer's file is more than 15 % larger than ours is marked '~' instead. --json keeps every number, and what is in it is not measured again."""
import argparse, json, sys, tempfile, time
from pathlib import Path
import zoo

AHEAD_DB, LARGER, NOTHING = 0.5, 1.15, 0.9
SECONDS = 900


def ort_file(fmt, **options):
    return lambda a, m, tmp, out: zoo.peer_file(zoo.as_initializers(m.path, tmp / "peer_in.onnx"), fmt, m.samples, out, **options)


def modelopt_file(mode, method):
    def make(a, m, tmp, out):
        zoo.Run(a.modelopt, Path(__file__).resolve(), "--make", mode, method, m.path, out, *m.samples, timeout=SECONDS)
        return out
    return make


def ours_file(flag, target="generic"):  # that of ort rounds the results of convolutions too, in 8 bits
    def make(a, m, tmp, out):
        calib = [v for s in m.samples for v in ("--calib", s)]
        zoo.Run(a.qonnx, "quantize", m.path, "-o", out, flag, "--target", target, "--no-verify", "--force", "--quiet", *calib, timeout=SECONDS)
        return out
    return make


# format: ours, then every peer's, by name; a name that begins with "modelopt" needs --modelopt
JOBS = {
    "int8": {"ours": ours_file("--int8"), "ort symmetric": ort_file("int8"), "ort": ort_file("int8", symmetric=False),
             "modelopt max": modelopt_file("int8", "max"), "modelopt entropy": modelopt_file("int8", "entropy")},
    "fp8": {"ours": ours_file("--fp8"), "modelopt max": modelopt_file("fp8", "max")},
    "int4": {"ours": ours_file("--int4", "ort"), "ort b32": ort_file("int4"), "modelopt rtn": modelopt_file("int4", "rtn_dq"), "modelopt awq": modelopt_file("int4", "awq_lite")},
}


def make_modelopt(mode, method, source, out, *samples):
    """In Model Optimizer's interpreter: its quantizer as its documentation calls it, block 32 in four bits as the others'."""
    from modelopt.onnx.quantization import quantize
    form = {"block_size": 32} if mode == "int4" else {"dq_only": True}  # else it stores float weights in front of their Q and DQ
    quantize(source, quantize_mode=mode, calibration_method=method, calibration_data_reader=zoo.Reader(samples), calibration_eps=["cpu"], output_path=out,
             high_precision_dtype="fp32", log_level="ERROR", **form)


def run_file(path, tests, fmt):
    """By ONNX Runtime, as it likes; FP8 and blocks around operators that its fusions refuse run as written."""
    try:
        return zoo.run_all(zoo.session(path, fmt != "fp8", fmt != "fp8"), tests)
    except Exception:
        return zoo.run_all(zoo.session(path, False, False), tests)


def size_of(path):
    return sum(f.stat().st_size for f in path.parent.glob(path.name + "*"))


def measure(a, m, ref, fmt, make):
    with tempfile.TemporaryDirectory() as t:
        tmp = Path(t)
        (tmp / "out").mkdir()
        start = time.time()
        try:
            out = make(a, m, tmp, tmp / "out" / "q.onnx")
            seconds = time.time() - start
            return {"db": zoo.mean(zoo.each(ref, run_file(out, m.tests, fmt))), "size": size_of(out) / size_of(m.path), "seconds": seconds}
        except Exception as e:
            return {"error": f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[-1][-160:]}"}


def cell(rows):
    """'ours (size) / best peer (its name, size)', and the mark; a peer that leaves the file nearly as large as it was has done next to nothing."""
    mine = rows.get("ours", {})  # --skip ours
    peers = [(r["db"], n, r["size"]) for n, r in rows.items() if n != "ours" and "db" in r and r["size"] < NOTHING]
    left = f"{mine['db']:.1f} ({mine['size']:.2f})" if "db" in mine else "-"
    if not peers:
        return left
    db, name, size = max(peers)
    ahead = "db" not in mine or db > mine["db"] + AHEAD_DB
    mark = "" if not ahead else "~" if "db" in mine and size > LARGER * mine["size"] else "!"
    return f"{left} / {db:.1f} ({name}, {size:.2f}){mark}"


def one(a, path, name, known):
    with tempfile.TemporaryDirectory() as t:
        m = zoo.Model(a, path, Path(t))
        ref = None
        for fmt, jobs in JOBS.items():
            for who, make in jobs.items():
                if known.get(fmt, {}).get(who) or (who.startswith("modelopt") and not a.modelopt) or who in a.skip or (a.format and fmt not in a.format):
                    continue
                ref = ref or zoo.run_all(zoo.session(m.path), m.tests)
                known.setdefault(fmt, {})[who] = measure(a, m, ref, fmt, make)
                print(f"  {name:24} {fmt:5} {who:18} {known[fmt][who]}", file=sys.stderr, flush=True)
    return known


def main():
    if "--make" in sys.argv:
        return make_modelopt(*sys.argv[sys.argv.index("--make") + 1:])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--qonnx", required=True)
    p.add_argument("--modelopt", help="an interpreter that has nvidia-modelopt[onnx]")
    p.add_argument("--json", type=Path, help="keeps the numbers; read first when it is there")
    p.add_argument("--format", action="append", choices=list(JOBS))
    p.add_argument("--again", action="append", default=[], help="forget these tools' numbers first (ours, ...)")
    p.add_argument("--skip", action="append", default=[], help="a tool that is not run (modelopt awq, modelopt entropy: minutes each)")
    p.add_argument("folder", nargs="+", type=Path)
    a = p.parse_args()
    known = json.loads(a.json.read_text()) if a.json and a.json.exists() else {}
    print("| model | " + " | ".join(a.format or JOBS) + " |\n|---" + "|---" * len(a.format or JOBS) + "|")
    for path in [f for root in a.folder for f in ([root] if root.suffix == ".onnx" else sorted(root.rglob("*.onnx")))]:
        name = path.parent.name if path.name == "model.onnx" else path.stem
        for rows in known.get(name, {}).values():
            for who in a.again:
                rows.pop(who, None)
        try:
            rows = known[name] = one(a, path, name, known.get(name, {}))
        except Exception as e:
            print(f"| {name} | no reference: {str(e).splitlines()[0][:120]} |", flush=True)
            continue
        print(f"| {name} | " + " | ".join(cell(rows[f]) for f in a.format or JOBS) + " |", flush=True)
        if a.json:
            a.json.write_text(json.dumps(known, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
