"""command.py --qonnx PATH --models DIR - the command as scripts meet it: stdout of --json parses, every option of quantize in good and in bad use, exit codes,
and a signal at any moment leaves nothing behind. DIR holds micro-llama (model.onnx, sample.npz, calib.txt, tokenizer.json). Prints what fails; exits 1 then."""
import argparse, json, os, random, re, shutil, signal, subprocess, sys, tempfile, time
from pathlib import Path

BAD = []


def run(*args, cwd=None):
    p = subprocess.run([QONNX, *map(str, args)], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd)
    return p.returncode, p.stdout, p.stderr


def expect(what, truth, said=""):
    if not truth:
        BAD.append(what)
        print(f"{what}\n    {said.strip()[:400]}", flush=True)


def documents(model, sample, tmp):
    """Each command that takes --json prints one document and nothing else on stdout."""
    out, stats = tmp / "j.onnx", tmp / "j.stats"
    for args in [["inspect", model], ["inspect", model, "--nodes"], ["inspect", model, "--tensors"], ["check", model], ["check", model, "--target", "tensorrt"],
                 ["run", model, "-i", sample, "-o", tmp / "o.npz"], ["compare", model, model, "-i", sample], ["quantize", model, "--int8", "-n"],
                 ["quantize", model, "--int8", "-o", out, "--save-stats", stats, "--explain"], ["quantize", model, "--int4", "-o", out, "-f"], ["stats", "show", stats],
                 ["bench", model, "--runs", "1"], ["passes"], ["passes", "int8"]]:
        code, stdout, stderr = run(*args, "--json")
        try:
            json.loads(stdout)
        except ValueError as e:
            stderr = f"{e}: {stdout[:200]} {stderr}"
            code = -1
        expect(f"{args[0]} {args[2:]} --json", code == 0, stderr)
    code, stdout, stderr = run("inspect", tmp / "none.onnx", "--json")
    expect("--json of a failure prints nothing on stdout", code == 1 and not stdout and stderr)


# option: words that do, words that do not
GOOD = {
    "fp8": [], "int8": [], "int4": [], "preset": ["int4-mix"], "passes": ["int4(block=64)"], "level": ["3"], "sequential": [], "target-size": ["40%"], "target-sqnr": ["15"], "formats": ["int4,int8-weights"],
    "target": ["ort"], "float": ["fp16"], "io": ["int8"], "output": ["x.onnx"], "force": [], "dry-run": [], "frontier": ["x.png"], "external-data": [], "max-opset": ["21"], "max-ir": ["10"], "calib": ["{sample}"], "text": ["{text}"],
    "tokenizer": ["{tokenizer}"], "seq-len": ["32"], "samples": ["2"], "random": ["2"], "seed": ["7"], "save-stats": ["x.stats"], "load-stats": ["{stats}"], "save-gram": [], "resume": ["x.resume"],
    "verify": ["{sample}"], "no-verify": [], "min-sqnr": ["1"], "include": ["*mlp*"], "exclude": ["*mlp*"], "set": ["*mlp*=int8-weights"], "tables": ["auto"], "dim": ["batch=1"], "strict": [], "fix-order": [],
    "allow-requantize": [], "keep-debug-info": [], "external-data-root": ["."], "allow-symlinks": [], "verify-each": [], "device": ["cpu"], "max-device-memory": ["1G"], "plugin-dir": ["."], "like": ["{like}"],
    "explain": [], "report": ["x.json"], "threads": ["1"], "max-memory": ["1G"], "json": [], "quiet": [], "verbose": [], "help": [],
}
WRONG = {
    "preset": "int3", "passes": "int4(block=7)", "level": "9", "target-size": "many", "target-sqnr": "x", "formats": "int5", "target": "npu", "float": "fp8", "io": "int9", "output": "no/where/x.onnx", "frontier": "no/where/x.png",
    "max-opset": "99", "max-ir": "2", "calib": "none.npz", "text": "none.txt", "tokenizer": "none.json", "seq-len": "0", "samples": "-1", "random": "0", "seed": "-1", "load-stats": "none.stats",
    "save-stats": "no/where/x.stats", "resume": "no/where/x.resume", "verify": "none.npz", "min-sqnr": "high", "include": "*nothing*", "exclude": "/(/", "set": "*mlp*", "tables": "int4", "dim": "batch",
    "device": "tpu", "max-device-memory": "1X", "like": "none.onnx", "report": "no/where/x.json", "threads": "0", "max-memory": "lots",
}
ALONE = {"fp8", "int8", "int4", "preset", "passes", "target-size", "target-sqnr", "like", "help"}  # ask for a format themselves
WITH = {"formats": ["--target-size", "40%"], "level": ["--int8"], "sequential": ["--passes", "gptq,int4"], "frontier": ["--target-size", "40%"], "tokenizer": ["--int8", "--text", "{text}"], "seq-len": ["--int8", "--random", "2"],
        "save-stats": ["--int8"], "load-stats": ["--int8"], "save-gram": ["--int8", "--save-stats", "x.stats"], "resume": ["--int8"], "verify": ["--int8"], "seed": ["--int8", "--random", "2"],
        "samples": ["--int8"], "calib": ["--int8"], "max-memory": ["--int8"], "dim": ["--int4"], "io": ["--int8"]}


def options(model, sample, folder, tmp):
    """Every option that --help lists, used well and badly; a bad use says so by name, is no success and writes nothing."""
    listed = set(re.findall(r"^ {2,6}(?:-., )?--([a-z0-9-]+)", run("quantize", "--help")[1], re.M))
    expect(f"options without a row here: {listed - set(GOOD)}", not listed - set(GOOD))
    expect(f"rows without an option: {set(GOOD) - listed}", not set(GOOD) - listed)
    made = tmp / "made"
    made.mkdir()
    run("quantize", model, "--int8", "-o", made / "like.onnx", "--save-stats", made / "like.stats", "--samples", "4", "--no-verify", "-q")
    names = {"sample": sample, "text": folder / "calib.txt", "tokenizer": folder / "tokenizer.json", "stats": made / "like.stats", "like": made / "like.onnx"}

    def use(option, words, label):
        place = Path(tempfile.mkdtemp(dir=tmp))
        base = [] if option in ALONE else WITH.get(option, ["--int4"])
        args = [a.format(**names) for a in [*base, f"--{option}", *words]]
        output = [] if option == "output" else ["-o", "out.onnx"]
        return label, place, run("quantize", model, *args, *output, *([] if option in ("no-verify", "verify", "min-sqnr") else ["--no-verify"]), cwd=place)

    for option, words in GOOD.items():
        label, place, (code, _, said) = use(option, words, f"--{option} {' '.join(words)}")
        expect(f"{label}: exit {code}", code == 0, said)
        shutil.rmtree(place)
    for option, word in WRONG.items():
        label, place, (code, _, said) = use(option, [word], f"--{option} {word}")
        expect(f"{label}: exit {code}", code in (1, 2, 3), said)
        expect(f"{label}: the message names neither", word in said or option in said or word.split("(")[0] in said, said)
        expect(f"{label}: left {os.listdir(place)}", not os.listdir(place), said)
        shutil.rmtree(place)


def interrupted(model, sample, tmp):
    """SIGINT and SIGTERM at random moments of a whole job: the old file, or (stopped while it verified) the whole new pair, and the message says which.
    The wait before a signal is no share of a time measured before: it shrinks behind each job that was done first and grows behind each that was stopped."""
    place = tmp / "killed"
    place.mkdir()
    (place / "out.onnx").write_bytes(b"the old file")
    args = [QONNX, "quantize", model, "--int8", "--calib", sample, "-o", place / "out.onnx", "--force", "--external-data"]
    longest, random_moment, rounds, stopped = 0.2, random.Random(5), 0, 0
    while (stopped < 8 or rounds < 16) and rounds < 200:
        p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(random_moment.random() * longest)
        p.send_signal((signal.SIGINT, signal.SIGTERM)[rounds % 2])
        _, said = p.communicate()
        rounds += 1
        left = sorted(os.listdir(place))
        if p.returncode == 0 or "is written and whole" in said:
            expect(f"after a whole job: {left}", left == ["out.onnx", "out.onnx.data"] and run("check", place / "out.onnx")[0] == 0, said)
            (place / "out.onnx.data").unlink(missing_ok=True)
            (place / "out.onnx").write_bytes(b"the old file")
            longest /= 2
            continue
        stopped, longest = stopped + 1, longest * 1.5
        expect(f"signal {rounds}: exit {p.returncode}, left {left}", left == ["out.onnx"] and (place / "out.onnx").read_bytes() == b"the old file", said)
    expect(f"{stopped} of {rounds} jobs could be stopped", stopped >= 8)


def main():
    global QONNX
    p = argparse.ArgumentParser()
    p.add_argument("--qonnx", required=True)
    p.add_argument("--models", required=True, type=Path)
    a = p.parse_args()
    QONNX, folder = str(Path(a.qonnx).resolve()), (a.models / "micro-llama").resolve()
    model, sample = folder / "model.onnx", folder / "sample.npz"
    with tempfile.TemporaryDirectory() as tmp:
        documents(model, sample, Path(tmp))
        options(model, sample, folder, Path(tmp))
        interrupted(model, sample, Path(tmp))
    print(f"{len(BAD)} failed")
    return len(BAD) > 0


if __name__ == "__main__":
    sys.exit(main())
