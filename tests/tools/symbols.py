"""What a translation unit instantiates, read from its object file.

usage: symbols.py --compiler PATH FILE -- FLAGS...

FILE is compiled without optimisation, so that nothing is inlined away. Each `// ABSENT: REGEX` in FILE must match no symbol of
gatefold, each `// PRESENT: REGEX` at least one.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("flags", nargs="*")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        output = str(pathlib.Path(folder, "unit.o"))
        subprocess.run([options.compiler, "-std=c++20", "-O0", *options.flags, "-c", str(options.file), "-o", output], check=True)
        table = subprocess.check_output(["nm", "--demangle", output], text=True)
    # Address and kind come first; template arguments and parameters may name what the function itself is not.
    symbols = [re.sub(r"^[0-9a-f ]{17}. ", "", line) for line in table.splitlines() if "gatefold::" in line]

    failures = 0
    for kind, pattern in re.findall(r"^// (ABSENT|PRESENT): (.+?)\s*$", options.file.read_text(), re.M):
        matches = [s for s in symbols if re.search(pattern, s)]
        if bool(matches) != (kind == "PRESENT"):
            failures += 1
            print(f"{kind} {pattern}: " + ("no symbol matches" if not matches else "\n  ".join(matches[:8])))
    print(f"{len(symbols)} symbols, {failures} of the expectations broken")
    return 1 if failures or not symbols else 0


if __name__ == "__main__":
    sys.exit(main())
