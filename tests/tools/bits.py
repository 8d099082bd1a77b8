"""The same bits from every compiler, instruction set and contraction mode.

usage: bits.py --include DIR... [--cross COMPILER EMULATOR]... [--variant FLAGS]... [--write] FILE COMPILER...

FILE is a program that prints what it computes and ends with 0 if its bits are the expected ones. It is built and run once per
compiler and variant; every run must end with 0 and print the same text. --cross builds it for another processor and runs it
with an emulator of that processor. --variant replaces the list of variants.

Where FILE has a neighbour with the ending .json, its lines are `KIND/NAME HASH`: every run must print exactly the lines of its
KIND that stand there as "KIND/NAME": "HASH". --write replaces the neighbour by what the builds print, if they agree.
"""
import argparse
import json
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
    ["-O2", "-march=native", "-mno-avx512bf16"],
    # The matrix unit of the processor, or one in software that executes the same instructions.
    ["-O2", "-march=native", "-mamx-tile", "-mamx-bf16", "-include", "tests/matrix_unit/machine.hpp"],
    ["-O2", "-march=native", "-mamx-tile", "-mamx-bf16", "-DGATEFOLD_SOFTWARE_TILES"],
]
CROSS_VARIANTS = [["-O2", "-static"], ["-O1", "-static", "-ffp-contract=off"]]


def builds(options):
    for compiler in options.compilers:
        for variant in [flags.split() for flags in options.variant] or VARIANTS:
            yield compiler, variant, []
    for compiler, emulator in options.cross:
        for variant in CROSS_VARIANTS:
            yield compiler, variant, [emulator]


class Expected:
    """What runs must print: the committed lines of their kind, or what the first of them printed."""

    def __init__(self, file, write):
        self.path = pathlib.Path(file).with_suffix(".json")
        self.committed = json.loads(self.path.read_text()) if self.path.exists() and not write else None
        self.keyed = self.path.exists() or write
        self.by_kind = {}

    def faults(self, text):
        if self.committed is None:
            kind = text.split("/", 1)[0] if self.keyed else ""
            return [] if self.by_kind.setdefault(kind, text) == text else ["prints other lines than the first build"]
        lines = dict(line.split(" ") for line in text.splitlines())
        kinds = {name.split("/", 1)[0] for name in lines}
        wanted = {name: hash_ for name, hash_ in self.committed.items() if name.split("/", 1)[0] in kinds}
        return [f"{name}: {lines.get(name)}, committed {wanted.get(name)}" for name in sorted(lines.keys() | wanted.keys())
                if lines.get(name) != wanted.get(name)] or ([] if lines else ["prints nothing"])

    def write(self):
        lines = dict(line.split(" ") for text in self.by_kind.values() for line in text.splitlines())
        self.path.write_text(json.dumps(lines, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--include", action="append", default=[])
    parser.add_argument("--cross", action="append", default=[], nargs=2)
    parser.add_argument("--variant", action="append", default=[])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("file")
    parser.add_argument("compilers", nargs="+")
    options = parser.parse_args()

    expected, failures, count = Expected(options.file, options.write), 0, 0
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
            if count == 1:
                print(run.stdout)
            faults = expected.faults(run.stdout) if run.returncode == 0 else [f"ends with {run.returncode}"]
            if faults:
                failures += 1
                print("\n".join([f"---- {name}", *faults, run.stdout]))
    if options.write and not failures:
        expected.write()
    print(f"{count} builds of {pathlib.Path(options.file).name}, {failures} failures")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    sys.exit(main())
