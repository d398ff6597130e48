#!/usr/bin/env python3
"""Which mistakes would no test notice? Puts single mutations into the tree that it stands in, and runs the short tests on each.

    git worktree add --detach ../mutants && cd ../mutants
    cmake --preset release -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DQONNX_WERROR=OFF && cmake --build --preset release
    tests/mutants/mutate.py --seed 1 --count 60 [--folders onnx,passes,calib,base,cli]

All mutations are compiled into one build (`if (qx_mutant(17)) { mutated } else { as it was }`) and chosen by an environment variable, so
that it costs one build and not sixty. The tests are run once to see which reach which mutation, then, for each mutation, those that reach
it until one fails. What is printed as SURVIVED is for a person to judge: some change nothing that anybody could see (a failed allocation,
a prefetch, a log line), the others want a test. The tree is changed: use one that can be thrown away.
"""
import argparse
import collections
import glob
import json
import os
import random
import re
import subprocess
import time

HEADER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mutant.h")
SWAPS = [(" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "), (" != ", " == "), (" && ", " || "),
         (r" \|\| ", " && "), (r" \+ ", " - "), (" - ", " + "), (r"\+= ", "-= "), ("return false;", "return true;"),
         ("return true;", "return false;"), (r"(?<=[\w)\]]) \* (?=\w)", " / ")]
DULL = re.compile(r"NOMEM|qx_log|prefetch|_free\(|_close\(|qx_alloc|QX_NEW|arena_status")  # nothing that a test could see
DECLARATION = re.compile(r"(const |static |struct |unsigned )*[a-z]\w* \**(const )?\w+( =|;|\[|,)")
PER_TRY = 12  # lines of a file that are tried before the next file's turn


def swaps(code):
    """Single changes of an expression or statement, outside of strings."""
    for pattern, to in SWAPS:
        for m in re.finditer(pattern, code):
            if code[:m.start()].count('"') % 2 == 0:
                yield code[:m.start()] + to + code[m.end():]


def one_of(rng, items):
    items = list(items)
    return rng.choice(items) if items else None


def mutant(rng, s, number):
    """The line that holds both the statement s and a mutation of it, and the mutation; None: this line has none."""
    on = f"qx_mutant({number})"
    if m := re.match(r"(if|while) \((.*)\) \{$", s):
        new = one_of(rng, swaps(m[2]))
        return new and (f"{m[1]} ({on} ? ({new}) : ({m[2]})) {{", f"{m[1]} ({new})")
    if m := re.match(r"for \((.*?); (.*?); (.*)\) \{$", s):
        new = one_of(rng, swaps(m[2]))
        return new and (f"for ({m[1]}; {on} ? ({new}) : ({m[2]}); {m[3]}) {{", f"for (...; {new}; ...)")
    if not s.endswith(";") or s.startswith(("goto", "break", "continue", "QX_FOR")):
        return None
    if DECLARATION.match(s) and not s.startswith("return"):
        m = re.match(r'(.*? = )([^{}"]*);$', s)
        new = m and one_of(rng, swaps(m[2]))
        return new and (f"{m[1]}{on} ? ({new}) : ({m[2]});", m[1] + new)
    new = one_of(rng, swaps(s)) if rng.random() < 0.75 or s.startswith("return") else None
    if not new and s.startswith("return"):
        return None
    return f"if ({on}) {{ {new or ';'} }} else {{ {s} }}", new or "(dropped)"


def candidates(lines):
    """Numbers of lines within functions that begin a statement."""
    inside, last = False, ""
    for i, line in enumerate(lines):
        s = re.sub(r"/\*.*?\*/", "", line).strip()
        inside = (inside or line == "{") and line != "}"
        begins = not last or last.endswith((";", "{", "}", ":"))
        after = lines[i + 1].strip() if i + 1 < len(lines) else ""
        if inside and begins and line.startswith("    ") and "/*" not in s and not DULL.search(s) and not after.startswith("else"):
            if not s.startswith(("#", "case", "}", "else", "default", "static")) and s:
                yield i
        last = s


def compiles(command, folder):
    command = re.sub(r" -o \S+", " -fsyntax-only -w", command).replace(" -c ", " ")
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True).returncode == 0


def plant(rng, count, folders):
    with open("build/compile_commands.json") as f:
        commands = {os.path.relpath(os.path.join(e["directory"], e["file"])): e for e in json.load(f)}
    files = sorted(f for d in folders for f in glob.glob(d + "/**/*.c", recursive=True) if f in commands)
    rng.shuffle(files)
    found = []
    for turn in range(20 * len(files)):
        if len(found) == count or not files:
            break
        path = files[turn % len(files)]
        with open(path) as f:
            text = f.read()
        lines = text.split("\n")
        for i in rng.sample(at := list(candidates(lines)), min(PER_TRY, len(at))):
            s = re.sub(r"/\*.*?\*/", "", lines[i]).strip()
            made = mutant(rng, s, len(found)) if "qx_mutant(" not in s else None
            if not made:
                continue
            include = "" if HEADER in text else f'#include "{HEADER}"\n#line 1\n'
            with open(path, "w") as f:
                f.write(include + "\n".join(lines[:i] + [made[0]] + lines[i + 1:]))
            if compiles(commands[path]["command"], commands[path]["directory"]):
                line = i + 1 - (2 if HEADER in text else 0)
                found.append(f"{path}:{line}  {s}  =>  {made[1]}")
                break
            with open(path, "w") as f:
                f.write(text)
    return found


def read_tests():
    shown = subprocess.run(["ctest", "--show-only=json-v1", "-L", "short"], cwd="build", capture_output=True, text=True, check=True)
    tests = {}
    for t in json.loads(shown.stdout)["tests"]:
        p = {x["name"]: x["value"] for x in t["properties"]}
        if not t["name"].startswith("style"):  # it looks at the sources, and does not like these
            tests[t["name"]] = (t["command"], p.get("WORKING_DIRECTORY", "build"), dict(e.split("=", 1) for e in p.get("ENVIRONMENT", [])),
                                p.get("SKIP_RETURN_CODE"))
    return tests


def passes(test, limit, **extra):
    command, folder, env, skip = test
    env = dict(os.environ, OMP_NUM_THREADS="1", **env, **extra)
    try:
        code = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return False
    return code in (0, skip)


def reached(tests):
    """mutation -> [(seconds, test)] of the tests that pass as it is."""
    reach, log = collections.defaultdict(list), os.path.abspath("build/mutants.log")
    for name, test in tests.items():
        open(log, "w").close()
        start = time.time()
        if not passes(test, 600, QX_MUTANT_LOG=log):
            print(f"{name} fails without a mutation: left out")
            continue
        with open(log) as f:
            for number in set(f.read().split()):
                reach[int(number)].append((time.time() - start, name))
    return reach


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--count", type=int, default=60)
    args.add_argument("--folders", default="onnx,passes,calib,base,cli")
    a = args.parse_args()
    mutants = plant(random.Random(a.seed), a.count, a.folders.split(","))
    subprocess.run(["ninja", "-C", "build"], check=True, stdout=subprocess.DEVNULL)
    tests = read_tests()
    reach = reached(tests)
    survived = 0
    for number, what in enumerate(mutants):
        by = next((n for s, n in sorted(reach[number]) if not passes(tests[n], 60 + 10 * s, QX_MUTANT=str(number))), None)
        survived += by is None
        print(f"found by {by}:" if by else f"SURVIVED, {len(reach[number])} tests reach it:", what, flush=True)
    print(f"{survived} of {len(mutants)} survived")


if __name__ == "__main__":
    main()
