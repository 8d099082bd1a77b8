"""Every header compiles on its own, twice in one unit, under the names that other people's macros use.

usage: headers.py --include DIR --folder FOLDER --compiler PATH [--traps] -- FLAGS...

Without --traps, each header in DIR/gatefold/FOLDER is compiled alone with I, small and B0 defined as poison. With --traps, all
headers below DIR/gatefold are compiled in one unit after function-like macros min and max, as <windows.h> has them.
"""
import argparse
import pathlib
import re
import subprocess
import sys

POISON = "".join(f"#define {name} %%poison_{name}%%\n" for name in ("I", "small", "B0"))
MIN_MAX = "#define min(a, b) %%poison_min%%\n#define max(a, b) %%poison_max%%\n"
SYSTEM_INCLUDE = re.compile(r"^\s*#\s*include\s*(<(?!gatefold/)[^>]+>)", re.M)
FOREIGN = ("thrust/", "mpi.h", "nccl.h")  # headers of libraries that need not be here


def needs_foreign(path):
    return any(name.strip("<>").startswith(FOREIGN) for name in SYSTEM_INCLUDE.findall(path.read_text()))


def compile_text(command, text):
    return subprocess.run(command, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--include", type=pathlib.Path, required=True)
    parser.add_argument("--folder", default="")
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--traps", action="store_true")
    parser.add_argument("flags", nargs="*")
    options = parser.parse_args()

    root = options.include / "gatefold"
    if options.traps:
        headers = sorted(root.rglob("*.hpp"))
    else:
        headers = sorted((root / options.folder).glob("*.hpp"))
    if not headers:
        sys.exit(f"no headers in {root / options.folder}")
    headers = [h for h in headers if not needs_foreign(h)]
    names = [h.relative_to(options.include).as_posix() for h in headers]

    command = [options.compiler, "-std=c++20", "-I", str(options.include), *options.flags]
    command += ["-x", "c++", "-fsyntax-only", "-"]

    if options.traps:
        system = sorted({name for h in headers for name in SYSTEM_INCLUDE.findall(h.read_text())})
        system = [name for name in system if not name.strip("<>").startswith(FOREIGN)]
        text = "".join(f"#if __has_include({name})\n#include {name}\n#endif\n" for name in system)
        text += POISON + MIN_MAX + "".join(f"#include <{name}>\n" for name in names)
        units = {"all headers after min and max": text}
    else:
        units = {name: f"{POISON}#include <{name}>\n#include <{name}>\n" for name in names}

    failures = 0
    for name, text in units.items():
        result = compile_text(command, text)
        if result.returncode != 0:
            failures += 1
            print(f"---- {name}\n{result.stdout}")
    print(f"{len(units) - failures} of {len(units)} units compile ({pathlib.Path(options.compiler).name})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
