"""One compile-fail pair: FILE compiles as it stands, and with GATEFOLD_BAD defined it does not and says why.

usage: compile_pair.py --compiler PATH FILE -- FLAGS...

The sentences the compiler must print stand in FILE, each behind `// EXPECT: `, continued on comment lines that follow.
"""
import argparse
import re
import subprocess
import sys


def expected_sentences(path):
    with open(path, encoding="utf-8") as file:
        comments = re.findall(r"^// EXPECT: (.+(?:\n// (?!EXPECT: ).+)*)", file.read(), re.M)
    return [" ".join(comment.replace("\n//", " ").split()) for comment in comments]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("file")
    parser.add_argument("flags", nargs="*")
    options = parser.parse_args()

    sentences = expected_sentences(options.file)
    if not sentences:
        sys.exit(f"{options.file}: no line '// EXPECT: sentence'")

    def compile_with(*extra):
        command = [options.compiler, "-std=c++20", "-fsyntax-only", *options.flags, *extra, options.file]
        return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    good = compile_with()
    if good.returncode != 0:
        sys.exit(f"the good variant does not compile:\n{good.stdout}")
    bad = compile_with("-DGATEFOLD_BAD")
    if bad.returncode == 0:
        sys.exit("the bad variant compiles")
    missing = [s for s in sentences if s not in bad.stdout]
    if missing:
        sys.exit("the compiler does not say:\n  " + "\n  ".join(missing) + f"\nbut:\n{bad.stdout}")


if __name__ == "__main__":
    main()
