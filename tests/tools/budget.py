"""Compile time and object size, as ratios to a fixed set of standard headers compiled in the same run.

usage: budget.py --compiler PATH --include DIR --source FILE... [--time RATIO] [--object BYTES] [--repeat N]

CPU time (user + system) of the compiler and its children, the least of several runs taken in turn, so that a busy machine
slows both sides alike. Other programs only ever add to it: a ratio above its limit is measured further before it counts.
"""
import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

BASELINE = "".join(f"#include <{h}>\n" for h in ("cmath", "vector", "string", "memory", "span", "stdexcept", "immintrin.h"))


def compile_seconds(compiler, include, source, output):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [compiler, "-std=c++20", "-O2", "-march=native", "-I", include, "-c", str(source), "-o", str(output)]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        sys.exit(f"{source} does not compile:\n{result.stdout}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def object_bytes(path):
    """Code and constant data as `size` counts them: no symbol table, no relocations."""
    return sum(int(n) for n in subprocess.check_output(["size", str(path)], text=True).splitlines()[1].split()[:3])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--include", required=True)
    parser.add_argument("--source", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--time", type=float)
    parser.add_argument("--object", type=int)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()

    failed = False
    with tempfile.TemporaryDirectory() as folder:
        baseline = pathlib.Path(folder, "baseline.cpp")
        baseline.write_text(BASELINE)
        outputs = {source: pathlib.Path(folder, source.stem + ".o") for source in options.source}
        base, units = [], {source: [] for source in options.source}
        def above_limit():
            return options.time and any(min(times) > options.time * min(base) for times in units.values())

        while len(base) < options.repeat or (len(base) < 3 * options.repeat and above_limit()):
            base.append(compile_seconds(options.compiler, options.include, baseline, pathlib.Path(folder, "baseline.o")))
            for source, output in outputs.items():
                units[source].append(compile_seconds(options.compiler, options.include, source, output))
        for source, output in outputs.items():
            unit, size = min(units[source]), os.stat(output).st_size
            ratio = unit / min(base)
            print(f"{source.name}: {unit:.3f} s, baseline {min(base):.3f} s, ratio {ratio:.2f}; "
                  f"object {size / 1000:.1f} kB, of it code and data {object_bytes(output) / 1000:.1f} kB")
            if options.time and ratio > options.time:
                print(f"compile time: expected at most {options.time} x the baseline")
                failed = True
            if options.object and size > options.object:
                print(f"object: expected at most {options.object / 1000:.0f} kB")
                failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
