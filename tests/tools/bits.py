"""The same bits from every compiler, instruction set and contraction mode.

usage: bits.py --include DIR... [--cross COMPILER EMULATOR]... FILE COMPILER...

FILE is a program that prints what it computes and ends with 0 if its bits are the expected ones. It is built and run once per
compiler and variant; every run must end with 0 and print the same text. --cross builds it for another processor and runs it
with an emulator of that processor.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

VARIANTS = [
    ["-O0"],
    ["-O2"],  # x86-64 without FMA: the software twin
    ["-O2", "-march=native", "-ffp-contract=off"],
    ["-O2", "-march=native", "-ffp-contract=fast"],
    ["-O3", "-mavx2", "-mfma", "-ffp-contract=fast"],
    ["-O2", "-march=native", "-mno-fma"],
    ["-O2", "-march=native", "-DGATEFOLD_PORTABLE"],
]
CROSS_VARIANTS = [["-O2", "-static"], ["-O1", "-static", "-ffp-contract=off"]]


def builds(options):
    for compiler in options.compilers:
        for variant in VARIANTS:
            yield compiler, variant, []
    for compiler, emulator in options.cross:
        for variant in CROSS_VARIANTS:
            yield compiler, variant, [emulator]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--include", action="append", default=[])
    parser.add_argument("--cross", action="append", default=[], nargs=2)
    parser.add_argument("file")
    parser.add_argument("compilers", nargs="+")
    options = parser.parse_args()

    first, failures, count = None, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        program = str(pathlib.Path(folder, "program"))
        for compiler, variant, emulator in builds(options):
            name = " ".join([pathlib.Path(compiler).name, *variant])
            command = [compiler, "-std=c++20", *variant, options.file, "-o", program]
            command += [f"-I{path}" for path in options.include]
            build = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if build.returncode != 0:
                failures += 1
                print(f"---- {name}: does not compile\n{build.stdout}")
                continue
            run = subprocess.run([*emulator, program], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            count += 1
            if first is None:
                first = run.stdout
                print(first)
            if run.returncode != 0 or run.stdout != first:
                failures += 1
                print(f"---- {name}: ends with {run.returncode}\n{run.stdout}")
    print(f"{count} builds of {pathlib.Path(options.file).name}, {failures} failures")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    sys.exit(main())
