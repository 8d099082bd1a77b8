"""The classes of the umbrella are, token for token, the same for g++ and in both passes of nvcc.

usage: same_classes.py --cxx PATH --nvcc PATH --include DIR

A class whose members depend on the compiler has two layouts in a program of .cpp and .cu files. The three preprocessors' outputs
are cut down to the definitions that stand in include/gatefold/*.hpp; execution-space attributes and pragmas do not count.
In the device pass neither member function bodies (they may call other intrinsics) nor the CPU wing count. Both passes of nvcc must name
the same inline namespace, GATEFOLD_TIER, else a kernel is launched under a name that the device code does not have.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

MARKER = re.compile(r'#\s*(?:line\s+)?\d+\s+"([^"]*)"')
SPACE = re.compile(r"__attribute__\(\((?:host|device|global)\)\)|__host__|__device__|__global__")
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)+\'|[A-Za-z_]\w*|\.?\d(?:[\w.\']|[eEpP][+-])*|::|->|&&|\|\||<=>|[^\s\w]')
KEYS = ("class", "struct", "union", "enum")


def preprocess(command, text, suffix):
    with tempfile.TemporaryDirectory() as folder:
        unit = pathlib.Path(folder, "unit" + suffix)
        unit.write_text(text)
        result = subprocess.run([*command, "-E", str(unit)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if result.returncode != 0:
        sys.exit(result.stderr)
    return result.stdout


def tokens_of(text, root):
    """file name below include/ -> the tokens that come from it."""
    files, current = {}, None
    for line in text.splitlines():
        if line.startswith("#"):
            if marker := MARKER.match(line):
                position = marker[1].find(root)
                name = marker[1][position + len(root):] if position >= 0 else ""
                current = files.setdefault("gatefold" + name, []) if name.endswith(".hpp") else None
        elif current is not None:
            current += TOKEN.findall(SPACE.sub(" ", line))
    return files


def closing(tokens, i):
    """Index behind the brace that closes the one at i."""
    depth = 0
    while True:
        depth += {"{": 1, "}": -1}.get(tokens[i], 0)
        i += 1
        if depth == 0:
            return i


def body_start(tokens, i):
    """Index of the '{' of the class definition that begins at i, or None if a declaration or a template parameter begins there."""
    if i and tokens[i - 1] in ("enum", "<", ",", "template", "friend", "typename"):
        return None
    parentheses = angles = 0
    for j in range(i + 1, len(tokens)):
        t = tokens[j]
        parentheses += {"(": 1, ")": -1}.get(t, 0)
        angles += {"<": 1, ">": -1}.get(t, 0)
        if parentheses < 0 or angles < 0:
            return None
        if parentheses == 0 and t == "{" and tokens[j - 1] not in ("=",):
            return j
        if parentheses == 0 and t in (";", "="):
            return None
    return None


def definitions(tokens):
    found, i = [], 0
    while i < len(tokens):
        if tokens[i] in KEYS and (start := body_start(tokens, i)) is not None:
            found.append(tokens[i:closing(tokens, start)])
            i = closing(tokens, start)
        else:
            i += 1
    return found


def without_function_bodies(tokens):
    out, i, statement = [], 0, 0
    while i < len(tokens):
        t = tokens[i]
        if t == "{" and out and not any(key in out[statement:] for key in KEYS):
            out.append("{}")
            i = closing(tokens, i)
            statement = len(out)
            continue
        out.append(t)
        if t in ("{", "}", ";"):
            statement = len(out)
        i += 1
    return out


def compare(name, reference, other, simplify):
    failures = count = 0
    for file in sorted(reference):
        here, there = ([simplify(d) for d in definitions(files.get(file, []))] for files in (reference, other))
        count += len(here)
        if here == there:
            continue
        failures += 1
        for a, b in zip(here, there):
            if a != b:
                i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
                print(f"{file}, {' '.join(a[:3])}: {name} differs at\n  .cpp: {' '.join(a[max(0, i - 12):i + 12])}\n"
                      f"  .cu:  {' '.join(b[max(0, i - 12):i + 12])}")
                break
        else:
            print(f"{file}: {len(here)} definitions for .cpp, {len(there)} in {name}")
    print(f"{name}: {count} class definitions compared, {failures} files differ")
    return failures + (count < 20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cxx", required=True)
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--include", type=pathlib.Path, required=True)
    parser.add_argument("--header", default="gatefold/gatefold.hpp")
    options = parser.parse_args()

    text = f"#include <{options.header}>\ntier: GATEFOLD_TEXT(GATEFOLD_TIER)\n"
    flags = ["-std=c++20", "-I", str(options.include)]
    root = str(options.include / "gatefold")
    # -E alone is nvcc's device pass; without the architecture it is what the host compiler gets.
    nvcc = [options.nvcc, *flags, "-Wno-deprecated-gpu-targets"]
    texts = {"cpp": preprocess([options.cxx, *flags], text, ".cpp"),
             "host": preprocess([*nvcc, "-U__CUDA_ARCH__"], text, ".cu"),
             "device": preprocess(nvcc, text, ".cu")}
    cpp, host, device = (tokens_of(t, root) for t in texts.values())
    failures = compare("nvcc's host pass", cpp, host, lambda d: d)
    device_cpp = {name: tokens for name, tokens in cpp.items() if not name.startswith("gatefold/cpu/")}
    failures += compare("nvcc's device pass", device_cpp, device, without_function_bodies)

    tiers = {which: re.search(r'^tier: "(\w+)"', t, re.M)[1] for which, t in texts.items()}
    print("tiers:", tiers)
    if tiers["host"] != tiers["device"]:
        print("the passes of nvcc disagree on GATEFOLD_TIER")
        failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
